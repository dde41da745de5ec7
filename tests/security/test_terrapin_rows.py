"""Terrapin (CVE-2023-48795): what a man in the middle slips into a handshake, or cuts off behind it.

A proxy stands between our ends, and between each of them and OpenSSH, for each cipher and in both directions.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from tests.interop import peers
from tests.reference.suites import SUITES, Suite
from tests.security.peer import (
    IGNORE,
    LOOPBACK,
    MODES,
    USER,
    Gone,
    Peer,
    client_options,
    hostile_server,
    logs_in,
    serving,
    string,
    uint32,
)


class Proxy:
    """Between a client and a server: slips IGNORE packets into the handshake and cuts off what follows NEWKEYS."""

    def __init__(self, port: int, *, client_to_server: bool, inject: bool, drop: bool) -> None:
        self._port, self._towards_server, self._inject, self._drop = port, client_to_server, inject, drop
        self.done = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection(LOOPBACK, self._port)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                await asyncio.gather(
                    self._carry(reader, to_there, self._towards_server),
                    self._carry(there, writer, not self._towards_server),
                )
            finally:
                writer.close()
                to_there.close()

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, attacked: bool) -> None:
        try:
            target.write(await source.readuntil(b'\n'))
            while attacked:
                head = await source.readexactly(4)
                packet = head + await source.readexactly(int.from_bytes(head, 'big'))
                if packet[5] != 21:
                    target.write(packet)
                    continue
                if self._inject:
                    payload = IGNORE
                    padding = 8 - (5 + len(payload)) % 8 + 8
                    size = uint32(1 + len(payload) + padding)
                    target.write(size + bytes([padding]) + payload + bytes(padding))
                target.write(packet)
                if self._drop:
                    await source.read(65536)
                self.done += 1
                break
            while received := await source.read(65536):
                target.write(received)
                await target.drain()
        finally:
            with contextlib.suppress(OSError):
                target.close()


@contextlib.asynccontextmanager
async def proxied(port: int, **attack: bool) -> AsyncIterator[tuple[int, Proxy]]:
    proxy = Proxy(port, **attack)
    server = await asyncio.start_server(proxy.serve, LOOPBACK, 0)
    try:
        yield server.sockets[0].getsockname()[1], proxy
    finally:
        server.close()


ATTACKS = {
    'inject': {'inject': True, 'drop': False},
    'drop': {'inject': False, 'drop': True},
    'inject and drop': {'inject': True, 'drop': True},
}
# Every cipher; encrypt-and-MAC with one of them
ETM = b'hmac-sha2-256-etm@openssh.com'
PROXIED = [
    suite for suite in SUITES if suite.mac in (b'', ETM) or suite == (b'aes256-ctr', b'hmac-sha2-256')
]


def refusals(attack: str) -> tuple[type[Exception], ...]:
    """What is slipped in is refused at once; what was cut off leaves a hole that an end may wait for."""
    return (ssh_fast.DisconnectError, TimeoutError) if attack == 'drop' else (ssh_fast.DisconnectError,)


def patience(attack: str) -> float:
    return 0.4 if attack == 'drop' else 10


towards = pytest.mark.parametrize('client_to_server', [True, False], ids=['to server', 'to client'])


@towards
@pytest.mark.parametrize('attack', ATTACKS)
@pytest.mark.parametrize('suite', PROXIED, ids=str)
async def test_cve_2023_48795_terrapin_between_our_ends(suite: Suite, attack: str, client_to_server: bool) -> None:
    algorithms = {'encryption_algs': [suite.name.decode()], 'mac_algs': [(suite.mac or b'hmac-sha2-256').decode()]}
    async with serving(**algorithms) as server:
        async with proxied(server.port, client_to_server=client_to_server, **ATTACKS[attack]) as (port, proxy):
            with pytest.raises(refusals(attack)):
                await ssh_fast.connect(LOOPBACK, port, **client_options(connect_timeout=patience(attack)))
            assert proxy.done
            assert server.made[-1].users == [] or not client_to_server
            assert server.made[-1].conn.get_extra_info('username') is None


@pytest.fixture(scope='module')
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp('sshd')
    try:
        peers.find_program('sshd')
    except peers.PeerMissing as exc:
        pytest.skip(str(exc))
    ring = peers.KeyRing(folder / 'keys')
    with peers.OpenSSHServer(ring, folder) as server:
        yield server, ring


@towards
@pytest.mark.parametrize('suite', PROXIED, ids=str)
async def test_cve_2023_48795_terrapin_between_our_client_and_openssh(
    sshd: Any, suite: Suite, client_to_server: bool
) -> None:
    server, ring = sshd
    options = client_options(
        username=peers.user_name(),
        password=None,
        client_keys=[str(ring.private('user', 'ed25519'))],
        encryption_algs=[suite.name.decode()],
        mac_algs=[(suite.mac or b'hmac-sha2-256').decode()],
    )
    for attack, parts in ATTACKS.items():
        async with proxied(server.target.port, client_to_server=client_to_server, **parts) as (port, proxy):
            with pytest.raises(refusals(attack)):
                await ssh_fast.connect(LOOPBACK, port, connect_timeout=patience(attack), **options)
            assert proxy.done


@towards
@pytest.mark.parametrize('suite', PROXIED, ids=str)
async def test_cve_2023_48795_terrapin_between_openssh_and_our_server(
    tmp_path: Path, suite: Suite, client_to_server: bool
) -> None:
    command = ['ssh', '-F', 'none', '-o', 'StrictHostKeyChecking=no', '-o', f'UserKnownHostsFile={tmp_path / "known"}',
               '-o', 'BatchMode=yes', '-o', 'ConnectTimeout=2', '-c', suite.name.decode()]
    if suite.mac:
        command += ['-m', suite.mac.decode()]

    class Open(ssh_fast.SSHServer):
        def __init__(self) -> None:
            self.users: list[str] = []
            self.done = False

        def connection_made(self, conn: Any) -> None:
            self.conn = conn

        def begin_auth(self, username: str) -> bool:
            self.users.append(username)
            return False

        def auth_completed(self) -> None:
            self.done = True

    async with serving(Open, login_timeout=2) as server:
        async with proxied(server.port, client_to_server=client_to_server, inject=True, drop=True) as (port, proxy):
            ssh = await asyncio.create_subprocess_exec(
                *command, '-p', str(port), f'{USER}@{LOOPBACK}', 'true',
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
            )
            _, shown = await asyncio.wait_for(ssh.communicate(), 20)
            assert ssh.returncode == 255, shown
            assert proxy.done, shown
        assert not any(owner.done for owner in server.made)


@pytest.mark.parametrize('is_client', [True, False], ids=['server', 'client'])
@pytest.mark.parametrize('suite', MODES, ids=str)
async def test_cve_2023_48795_a_peer_without_the_marker(suite: Suite, is_client: bool) -> None:
    """Optional messages before NEWKEYS of an end without strict kex: fatal where the cipher would forget them."""
    fatal = suite.name.startswith(b'chacha20') or suite.mac.endswith(b'-etm@openssh.com')
    if is_client:
        async with serving() as server:
            async with await Peer.connect(server.port, suite=suite, strict=False) as peer:
                if fatal:
                    with pytest.raises(Gone, match='key exchange messages'):
                        await peer.handshake(before_newkeys=[IGNORE])
                        await peer.expect(6)
                else:
                    await peer.handshake(before_newkeys=[IGNORE])
                    peer.send(b'\x05' + string(b'ssh-userauth'))
                    await peer.expect(6)
        return

    async def script(peer: Peer) -> None:
        await peer.handshake(before_newkeys=[IGNORE])
        await peer.expect(5)
        peer.send(b'\x06' + string(b'ssh-userauth'))
        await peer.expect(50)
        peer.send(b'\x34')
        await peer.expect_gone()

    async with hostile_server(script, suite=suite, strict=False) as port:
        if fatal:
            with pytest.raises(ssh_fast.ProtocolError, match='key exchange messages'):
                await logs_in(port)
        else:
            assert await logs_in(port)
