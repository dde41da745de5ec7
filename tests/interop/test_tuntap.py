"""Tunnels of layer 2 and 3: devices in network namespaces, with OpenSSH's `ssh -w` and sshd, AsyncSSH, and ours."""

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

import ssh_fast
from tests.interop import peers
from tests.interop.asyncssh_peer import asyncssh_server
from tests.interop.ours import our_server, until
from tests.interop.peers import KeyRing, OpenSSHServer, Target

WINDOW = 2 << 20

V4 = '10.197.13.1', '10.197.13.2', 30
V6 = 'fd97:13::1', 'fd97:13::2', 64

# What the far side runs: it answers what a client sends with its digest.
SERVE = """
import hashlib, socket, sys
server = socket.create_server((sys.argv[1], 7), family=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
print('ready', flush=True)
sock, _ = server.accept()
digest = hashlib.sha256()
while data := sock.recv(1 << 16):
    digest.update(data)
sock.sendall(digest.digest() + bytes(1 << 20))
"""
SEND = """
import hashlib, os, socket, sys
data = os.urandom(int(sys.argv[2]))
with socket.create_connection((sys.argv[1], 7), 30) as sock:
    sock.settimeout(30)
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    answer = b''
    while part := sock.recv(1 << 16):
        answer += part
assert len(answer) == 32 + (1 << 20) and answer[:32] == hashlib.sha256(data).digest()
"""


def ip(*arguments: str) -> str:
    """Run ip, and return what it prints."""
    done = subprocess.run(['ip', *arguments], capture_output=True, text=True, timeout=30)
    assert not done.returncode, f'ip {" ".join(arguments)}: {done.stderr}'
    return done.stdout


@dataclass
class Spaces:
    """Two network namespaces: where the device of the client goes, and that of the server."""

    client: str
    server: str

    def join(self, interface: str, side: str, v4: str, v6: str) -> None:
        """Move a device into a namespace, and bring it up with its addresses."""
        space = getattr(self, side)
        ip('link', 'set', interface, 'netns', space)
        ip('-n', space, 'addr', 'add', f'{v4}/{V4[2]}', 'dev', interface)
        ip('-n', space, 'addr', 'add', f'{v6}/{V6[2]}', 'dev', interface, 'nodad')
        ip('-n', space, 'link', 'set', interface, 'up')

    def take(self, client_interface: str, server_interface: str) -> None:
        """Move both devices where they belong."""
        self.join(client_interface, 'client', V4[0], V6[0])
        self.join(server_interface, 'server', V4[1], V6[1])

    def interfaces(self, side: str) -> list[str]:
        """Name the devices of a namespace but for its loopback."""
        lines = ip('-n', getattr(self, side), '-o', 'link').splitlines()
        return [name for line in lines if (name := line.split(':')[1].strip().split('@')[0]) != 'lo']

    async def transfer(self, address: str, size: int = 4 << 20) -> None:
        """Send data over TCP from the client's namespace to the server's, and some back."""
        serving = await self._python('server', SERVE, address)
        try:
            assert serving.stdout
            assert await asyncio.wait_for(serving.stdout.readline(), 30) == b'ready\n'
            sending = await self._python('client', SEND, address, str(size))
            _, errors = await asyncio.wait_for(sending.communicate(), 60)
            assert not sending.returncode, errors.decode()
        finally:
            with contextlib.suppress(ProcessLookupError):
                serving.kill()
            await serving.wait()

    async def _python(self, side: str, program: str, *arguments: str) -> asyncio.subprocess.Process:
        command = ['ip', 'netns', 'exec', getattr(self, side), sys.executable, '-c', program, *arguments]
        return await asyncio.create_subprocess_exec(*command, stdin=-3, stdout=-1, stderr=-1)


@pytest.fixture
def spaces() -> Iterator[Spaces]:
    if sys.platform != 'linux' or os.getuid():
        pytest.skip('tunnel devices need Linux, and root')
    if not shutil.which('ip'):
        pytest.skip('ip is not installed (Debian: apt-get install iproute2)')
    if not os.access('/dev/net/tun', os.R_OK | os.W_OK):
        pytest.skip('there is no /dev/net/tun (mknod /dev/net/tun c 10 200)')
    mark = secrets.token_hex(3)
    made = Spaces(f'client-{mark}', f'server-{mark}')
    names = made.client, made.server
    try:
        for name in names:
            done = subprocess.run(['ip', 'netns', 'add', name], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f'no network namespaces can be made here: {done.stderr.strip()}')
        yield made
    finally:
        for name in names:
            subprocess.run(['ip', 'netns', 'del', name], capture_output=True)


def unit() -> int:
    """Return a number that no device has."""
    return next(number for number in range(100, 10000) if not any(
        Path(f'/sys/class/net/{kind}{number}').exists() for kind in ('tun', 'tap')
    ))


class Tunnels(ssh_fast.SSHServer):
    """Answers requests with `answer`, and keeps them."""

    answer: Any = True
    asked: list[tuple[str, int | None]]
    conn: Any

    def __init__(self) -> None:
        type(self).asked = []

    def connection_made(self, conn: Any) -> None:
        type(self).conn = conn

    def tun_requested(self, unit: int | None) -> Any:
        self.asked.append(('tun', unit))
        return self.answer(self) if callable(self.answer) else self.answer

    def tap_requested(self, unit: int | None) -> Any:
        self.asked.append(('tap', unit))
        return self.answer(self) if callable(self.answer) else self.answer


@contextlib.asynccontextmanager
async def tunnel_server(
    ring: KeyRing, folder: Path, answer: Any, **options: Any
) -> AsyncIterator[tuple[Target, type[Tunnels]]]:
    class Server(Tunnels):
        pass

    Server.answer = staticmethod(answer) if callable(answer) else answer
    async with our_server(ring, folder / 'ours', server_factory=Server, **options) as target:
        yield target, Server


# --- devices


@pytest.mark.parametrize('kind', ['tun', 'tap'])
async def test_ours_and_ours(key_ring: KeyRing, spaces: Spaces, tmp_path: Path, kind: str) -> None:
    async with tunnel_server(key_ring, tmp_path, True) as (target, server):
        async with ssh_fast.connect(**target.connect_options()) as connection:
            number = unit()
            async with getattr(connection, f'forward_{kind}')(None, number) as forwarder:
                assert isinstance(forwarder, ssh_fast.SSHForwarder)
                interface = forwarder.get_extra_info('interface')
                assert interface.startswith(kind) and server.asked == [(kind, number)]
                spaces.take(interface, f'{kind}{number}')
                await spaces.transfer(V4[1])
                await spaces.transfer(V6[1])
                assert spaces.interfaces('client') == [interface] and spaces.interfaces('server') == [f'{kind}{number}']
            await until(lambda: not spaces.interfaces('client') + spaces.interfaces('server'))


async def test_devices_go_with_the_connection(key_ring: KeyRing, spaces: Spaces, tmp_path: Path) -> None:
    async with tunnel_server(key_ring, tmp_path, True) as (target, _):
        connection = await ssh_fast.connect(**target.connect_options())
        number = unit()
        forwarder = await connection.forward_tun(remote_unit=number)
        spaces.take(forwarder.get_extra_info('interface'), f'tun{number}')
        await spaces.transfer(V4[1], 1000)
        connection.abort()
        await until(lambda: not spaces.interfaces('client') + spaces.interfaces('server'))


async def test_a_device_that_is_taken_away_ends_the_tunnel(
    key_ring: KeyRing, spaces: Spaces, tmp_path: Path
) -> None:
    async with tunnel_server(key_ring, tmp_path, True) as (target, _):
        async with ssh_fast.connect(**target.connect_options()) as connection:
            number = unit()
            forwarder = await connection.forward_tun(remote_unit=number)
            spaces.take(forwarder.get_extra_info('interface'), f'tun{number}')
            ip('-n', spaces.client, 'link', 'del', forwarder.get_extra_info('interface'))
            await until(lambda: not spaces.interfaces('server'))


@pytest.mark.parametrize('kind', ['tun', 'tap'])
async def test_our_client_and_an_sshd(key_ring: KeyRing, spaces: Spaces, tmp_path: Path, kind: str) -> None:
    with OpenSSHServer(key_ring, tmp_path / 'sshd', ['PermitTunnel yes']) as server:
        async with ssh_fast.connect(**server.target.connect_options()) as connection:
            number = unit()
            async with getattr(connection, f'forward_{kind}')(remote_unit=number) as forwarder:
                spaces.take(forwarder.get_extra_info('interface'), f'{kind}{number}')
                await spaces.transfer(V4[1], 8 << 20)
                await spaces.transfer(V6[1])
                await asyncio.sleep(0.1)
                window = forwarder._chan.flow.send_window
                assert window <= WINDOW, 'what sshd counts for each packet is counted here too'


async def test_an_sshd_that_allows_no_tunnels(key_ring: KeyRing, spaces: Spaces, tmp_path: Path) -> None:
    with OpenSSHServer(key_ring, tmp_path / 'sshd', ['PermitTunnel no']) as server:
        async with ssh_fast.connect(**server.target.connect_options()) as connection:
            before = set(os.listdir('/sys/class/net'))
            with pytest.raises(ssh_fast.ChannelOpenError):
                await connection.forward_tun()
            assert set(os.listdir('/sys/class/net')) == before, 'the device here is gone'


@pytest.mark.parametrize(('kind', 'name'), [('tun', 'point-to-point'), ('tap', 'ethernet')])
async def test_openssh_and_our_server(
    key_ring: KeyRing, spaces: Spaces, tmp_path: Path, kind: str, name: str
) -> None:
    async with tunnel_server(key_ring, tmp_path, True) as (target, server):
        local = unit()
        remote = local + 1
        command = peers.ssh(target, options=['ExitOnForwardFailure=yes'])
        argv = [command.argv[0], '-N', '-o', f'Tunnel={name}', '-w', f'{local}:{remote}', *command.argv[1:]]
        running = asyncio.create_task(replace(command, argv=argv).run_async(check=False))
        try:
            await until(lambda: all(Path(f'/sys/class/net/{kind}{number}').exists() for number in (local, remote)), 20)
            assert server.asked == [(kind, remote)]
            spaces.take(f'{kind}{local}', f'{kind}{remote}')
            await spaces.transfer(V4[1])
            await spaces.transfer(V6[1])
            await asyncio.sleep(0.1)
            flows = [link.flow for link in server.conn._mux.channels]
            assert [flow.send_window <= 2 << 20 for flow in flows] == [True]
        finally:
            server.conn.close()
            await running


async def test_a_device_that_cannot_be_opened(key_ring: KeyRing, spaces: Spaces, tmp_path: Path) -> None:
    async with tunnel_server(key_ring, tmp_path, True) as (target, _):
        async with ssh_fast.connect(**target.connect_options()) as connection:
            number = unit()
            async with connection.forward_tun(number, number + 1):
                with pytest.raises(OSError, match=rf'\(tun{number}\)'):
                    await connection.forward_tun(number)
                with pytest.raises(ssh_fast.ChannelOpenError, match='cannot be opened'):
                    await connection.create_tun(ssh_fast.SSHTunTapSession, number + 1)
            with pytest.raises(ValueError, match='unit must be'):
                await connection.forward_tun(-1)


# --- programs at one end or both


PACKETS = [b'\x45' + bytes([number]) * (number + 1) for number in range(200)] + [b'\x60' + os.urandom(30000)]


async def echo(reader: Any, writer: Any) -> None:
    """Send each packet back in front of its length, and end."""
    async for packet in packets(reader):
        writer.write(packet)
    writer.close()


async def packets(reader: Any) -> AsyncIterator[bytes]:
    while packet := await reader.read(1 << 16):
        yield packet


async def exchange(reader: Any, writer: Any) -> None:
    """Have every packet echoed."""
    for packet in PACKETS:
        writer.write(packet)
    assert [await reader.read(1 << 16) for _ in PACKETS] == PACKETS
    writer.close()


class EchoSession(ssh_fast.SSHTunTapSession):
    """Sends packets back."""

    def connection_made(self, chan: Any) -> None:
        self.chan = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.chan.write(data)


async def later(answer: Any) -> Any:
    await asyncio.sleep(0)
    return answer


ANSWERS = {
    'session': lambda server: EchoSession(),
    'coroutine': lambda server: later(EchoSession()),
    'handler': lambda server: echo,
    'channel and session': lambda server: (server.conn.create_tuntap_channel(window=70000), EchoSession()),
    'channel and handler': lambda server: (server.conn.create_tuntap_channel(max_pktsize=40000), echo),
}


@pytest.mark.parametrize('name', ANSWERS)
@pytest.mark.parametrize('kind', ['tun', 'tap'])
async def test_what_a_server_may_answer(key_ring: KeyRing, tmp_path: Path, name: str, kind: str) -> None:
    async with tunnel_server(key_ring, tmp_path, ANSWERS[name]) as (target, server):
        async with ssh_fast.connect(**target.connect_options()) as connection:
            await exchange(*await getattr(connection, f'open_{kind}')(5))
            _, writer = await getattr(connection, f'open_{kind}')()
            assert server.asked == [(kind, 5), (kind, None)]
            assert isinstance(writer.channel, ssh_fast.SSHTunTapChannel)
            writer.close()


@pytest.mark.parametrize('kind', ['tun', 'tap'])
async def test_our_client_and_asyncssh(key_ring: KeyRing, tmp_path: Path, kind: str) -> None:
    class Server(asyncssh.SSHServer):
        def tun_requested(self, unit: int | None) -> Any:
            return echo if unit == 7 else False

        tap_requested = tun_requested

    async with asyncssh_server(key_ring, tmp_path / 'peer', server_factory=Server) as target:
        async with ssh_fast.connect(**target.connect_options()) as connection:
            await exchange(*await getattr(connection, f'open_{kind}')(7))
            with pytest.raises(ssh_fast.ChannelOpenError):
                await getattr(connection, f'open_{kind}')()


@pytest.mark.parametrize('kind', ['tun', 'tap'])
async def test_asyncssh_and_our_server(key_ring: KeyRing, tmp_path: Path, kind: str) -> None:
    async with tunnel_server(key_ring, tmp_path, ANSWERS['handler']) as (target, server):
        async with asyncssh.connect(**target.connect_options()) as connection:
            await exchange(*await getattr(connection, f'open_{kind}')(7))
            assert server.asked == [(kind, 7)]


@pytest.mark.parametrize('kind', ['tun', 'tap'])
async def test_a_tunnel_is_passed_on_to_another_server(key_ring: KeyRing, tmp_path: Path, kind: str) -> None:
    async with tunnel_server(key_ring, tmp_path / 'far', ANSWERS['handler']) as (far, far_server):
        async with ssh_fast.connect(**far.connect_options()) as onward:
            async with tunnel_server(key_ring, tmp_path / 'near', lambda server: onward) as (near, _):
                async with ssh_fast.connect(**near.connect_options()) as connection:
                    await exchange(*await getattr(connection, f'open_{kind}')(9))
                    assert far_server.asked == [(kind, 9)]


async def test_streams_have_packets_and_nothing_else(key_ring: KeyRing, tmp_path: Path) -> None:
    async with tunnel_server(key_ring, tmp_path, ANSWERS['handler']) as (target, _):
        async with ssh_fast.connect(**target.connect_options()) as connection:
            reader, writer = await connection.open_tun()
            writer.write(b'\x45one')
            writer.write(b'\x45two')
            writer.write(b'\x45three')
            assert await reader.read(1) == b'\x45one', 'a packet comes whole'
            assert await reader.readexactly(4) == b'\x45two'
            with pytest.raises(asyncio.IncompleteReadError):
                await reader.readexactly(4)
            with pytest.raises(TypeError, match='packet by packet'):
                await reader.readline()
            with pytest.raises(ValueError, match='version 4 or 6'):
                writer.write(b'\0no packet')
            writer.write(b'\x45last')
            writer.write_eof()
            assert [packet async for packet in reader] == [b'\x45last']
            assert reader.at_eof() and await reader.read() == b''


async def test_a_reader_that_nobody_reads_stops_the_channel(key_ring: KeyRing, tmp_path: Path) -> None:
    """Of a flood some are dropped, none that is read is damaged, and the rest of the connection goes on."""
    async with tunnel_server(key_ring, tmp_path, ANSWERS['session']) as (target, _):
        async with ssh_fast.connect(**target.connect_options()) as connection:
            reader, writer = await connection.open_tap()
            for number in range(10_000):
                writer.write(b'%08d' % number)
            await asyncio.sleep(0.2)
            await exchange(*await connection.open_tap())
            seen = [await reader.read()]
            writer.write(b'end')
            while seen[-1] != b'end':
                seen.append(await reader.read())
            numbers = [int(packet) for packet in seen[:-1]]
            assert numbers == sorted(set(numbers)) and numbers[:1000] == list(range(1000))


# --- who may not


REFUSALS = {
    'refused': (lambda server: False, {}, 'refused'),
    'nothing of the kind': (lambda server: None, {}, 'refused'),
    'an error of its own': (lambda server: denied(), {}, 'not today'),
    'the option': (ANSWERS['session'], {'tunnel_forwarding': 'no'}, 'not permitted'),
}


def denied() -> Any:
    raise ssh_fast.ChannelOpenError(ssh_fast.OPEN_ADMINISTRATIVELY_PROHIBITED, 'not today')


@pytest.mark.parametrize('name', REFUSALS)
async def test_refusals(key_ring: KeyRing, tmp_path: Path, name: str) -> None:
    answer, options, reason = REFUSALS[name]
    async with tunnel_server(key_ring, tmp_path, answer, **options) as (target, server):
        async with ssh_fast.connect(**target.connect_options()) as connection:
            for kind in ('tun', 'tap'):
                with pytest.raises(ssh_fast.ChannelOpenError, match=reason):
                    await getattr(connection, f'open_{kind}')(1)
            assert len(server.asked) == (0 if options else 2)


async def test_nothing_unless_the_application_says_so(key_ring: KeyRing, tmp_path: Path) -> None:
    async with our_server(key_ring, tmp_path / 'ours') as target:
        async with ssh_fast.connect(**target.connect_options()) as connection:
            for opener in (connection.open_tun, connection.open_tap):
                with pytest.raises(ssh_fast.ChannelOpenError):
                    await opener()


@pytest.mark.parametrize(
    ('options', 'asked', 'given'),
    [
        ('no-port-forwarding', 1, None),
        ('restrict', 1, None),
        ('tunnel="4"', 1, None),
        ('tunnel="4"', 4, 4),
        ('tunnel="4"', None, 4),
        ('', 1, 1),
        ('restrict,port-forwarding', 1, 1),
    ],
)
async def test_keys_that_may_have_some_tunnels(
    key_ring: KeyRing, tmp_path: Path, options: str, asked: int | None, given: int | None
) -> None:
    keys = tmp_path / 'authorized_keys'
    keys.write_text(f'{options} {key_ring.public("user", "ed25519").read_text()}')
    async with tunnel_server(key_ring, tmp_path, ANSWERS['session'], authorized_client_keys=str(keys)) as (target, own):
        async with ssh_fast.connect(**target.connect_options()) as connection:
            if given is None:
                with pytest.raises(ssh_fast.ChannelOpenError, match='not permitted'):
                    await connection.open_tun(asked)
                assert not own.asked
            else:
                await connection.open_tun(asked)
                assert own.asked == [('tun', given)]


@pytest.mark.parametrize(
    ('line', 'tun', 'tap'),
    [
        ('', True, True), ('PermitTunnel yes', True, True), ('PermitTunnel no', False, False),
        ('PermitTunnel point-to-point', True, False), ('PermitTunnel ethernet', False, True),
        ('PermitTunnel yes\nDisableForwarding yes', False, False),
    ],
)  # fmt: skip
async def test_the_configuration_of_a_server(
    key_ring: KeyRing, tmp_path: Path, line: str, tun: bool, tap: bool
) -> None:
    config = tmp_path / 'sshd_config'
    config.write_text(f'{line}\n')
    async with tunnel_server(key_ring, tmp_path, ANSWERS['session'], config=str(config)) as (target, _):
        async with ssh_fast.connect(**target.connect_options()) as connection:
            for opener, allowed in ((connection.open_tun, tun), (connection.open_tap, tap)):
                if allowed:
                    await opener()
                else:
                    with pytest.raises(ssh_fast.ChannelOpenError, match='not permitted'):
                        await opener()
