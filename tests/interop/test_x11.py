"""Forwarding of X11 between Xvfb, xauth and xdpyinfo, OpenSSH's client and server, AsyncSSH's, and ours."""

import asyncio
import contextlib
import hashlib
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

import ssh_fast
from ssh_fast.connection import x11_client
from ssh_fast.forwarding.x11_auth import MIT_MAGIC_COOKIE, add_entry, local_entry, read_entries
from ssh_fast.forwarding.x11_setup import X11Setup
from ssh_fast.wire import encode_boolean, encode_string, encode_uint32
from tests.interop import peers
from tests.interop.asyncssh_peer import asyncssh_server
from tests.interop.ours import our_server, until, watching
from tests.interop.peers import KeyRing, OpenSSHServer, Target, find_program, make_target, plain_environment

SHOWN = 'vendor string'


@dataclass
class Screen:
    """An X server that lets in whoever has its cookie."""

    display: str
    auth_path: str
    cookie: bytes


@pytest.fixture(scope='module')
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Screen]:
    folder = tmp_path_factory.mktemp('xvfb')
    auth, cookie = folder / 'Xauthority', secrets.token_bytes(16)
    auth.touch(0o600)
    ready, told = os.pipe()
    # It would begin anew when its last client has gone, and lose who connects meanwhile.
    command = [find_program('Xvfb'), '-displayfd', str(told), '-auth', str(auth), '-nolisten', 'tcp', '-noreset']
    xauth(auth, 'add', ':0', '.', cookie.hex())
    server = subprocess.Popen(
        command, pass_fds=[told], stdin=-3, stdout=-3, stderr=-3, env=plain_environment()
    )
    os.close(told)
    try:
        with open(ready, 'rb') as pipe:
            number = pipe.readline().strip().decode()
        assert number, 'Xvfb did not start'
        xauth(auth, 'add', f':{number}', '.', cookie.hex())
        yield Screen(f':{number}', str(auth), cookie)
    finally:
        server.terminate()
        server.wait(10)


def xauth(path: Path | str, *arguments: str) -> str:
    """Run xauth on a file, and return what it prints."""
    command = [find_program('xauth'), '-q', '-f', str(path), *arguments]
    return subprocess.run(
        command, capture_output=True, check=True, timeout=60, text=True, env=plain_environment()
    ).stdout


class Shell:
    """A handler that runs each command in a shell, in the session's environment."""

    def __init__(self) -> None:
        self.displays: list[str | None] = []
        self.release = asyncio.Event()
        self.release.set()

    async def __call__(self, process: Any) -> None:
        display = process.channel.get_x11_display()
        self.displays.append(display)
        assert process.env.get('DISPLAY') == display
        ours = {name: value for name, value in os.environ.items() if name not in ('DISPLAY', 'XAUTHORITY')}
        shell = await asyncio.create_subprocess_shell(
            process.command, env={**ours, **process.env}, stdin=-3, stdout=-1, stderr=-2
        )
        output, _ = await shell.communicate()
        await self.release.wait()
        process.stdout.write(output.decode())
        process.exit(shell.returncode)


@contextlib.asynccontextmanager
async def shell_server(ring: KeyRing, folder: Path, **options: Any) -> AsyncIterator[tuple[Target, Shell, Path]]:
    """Serve commands and X11; yields the target, the handler and the Xauthority file."""
    shell, auth = Shell(), folder / 'server-Xauthority'
    settings = {'x11_forwarding': True, 'x11_auth_path': str(auth), 'process_factory': shell, **options}
    async with our_server(ring, folder / 'ours', **settings) as target:
        yield target, shell, auth


@contextlib.contextmanager
def sshd(ring: KeyRing, folder: Path, allowed: str = 'yes') -> Iterator[Target]:
    lines = [f'X11Forwarding {allowed}', f'XAuthLocation {find_program("xauth")}']
    with OpenSSHServer(ring, folder / 'sshd', lines) as server:
        yield server.target


def wanted(target: Target, screen: Screen, **options: Any) -> dict[str, Any]:
    """Return the options of a client that forwards the screen."""
    settings = {'x11_forwarding': True, 'x11_display': screen.display, 'x11_auth_path': screen.auth_path, **options}
    return target.connect_options(**settings)


# --- our client


async def test_our_client_and_an_sshd(key_ring: KeyRing, screen: Screen, tmp_path: Path) -> None:
    with sshd(key_ring, tmp_path) as target:
        async with ssh_fast.connect(**wanted(target, screen)) as connection:
            results = await asyncio.gather(*(connection.run('xdpyinfo', check=True) for _ in range(3)))
            assert all(SHOWN in str(result.stdout) for result in results)
            listed = await connection.run('xauth list', check=True)
            assert screen.cookie.hex() not in str(listed.stdout), 'the real cookie is never told'


async def test_the_environment_names_the_display(
    key_ring: KeyRing, screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('DISPLAY', screen.display)
    monkeypatch.setenv('XAUTHORITY', screen.auth_path)
    with sshd(key_ring, tmp_path) as target:
        async with ssh_fast.connect(**target.connect_options()) as connection:
            plain = await connection.run('echo "[$DISPLAY]"', check=True)
            assert plain.stdout == '[]\n', 'nothing is forwarded unless told'
            result = await connection.run('xdpyinfo', check=True, x11_forwarding=True)
            assert SHOWN in str(result.stdout)


async def test_a_server_that_forwards_nothing(key_ring: KeyRing, screen: Screen, tmp_path: Path) -> None:
    with sshd(key_ring, tmp_path, 'no') as target:
        async with ssh_fast.connect(**wanted(target, screen)) as connection:
            with pytest.raises(ssh_fast.ChannelOpenError, match='forwards no X11') as failure:
                await connection.run('true')
            assert failure.value.code == ssh_fast.OPEN_REQUEST_X11_FORWARDING_FAILED
            result = await connection.run('echo "[$DISPLAY]"', check=True, x11_forwarding='ignore_failure')
            assert result.stdout == '[]\n'
            assert not connection._x11._targets, 'a cookie that was not asked for opens nothing'


async def test_no_display_to_forward(
    key_ring: KeyRing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv('DISPLAY', raising=False)
    async with shell_server(key_ring, tmp_path) as (target, shell, _):
        async with ssh_fast.connect(**target.connect_options()) as connection:
            with pytest.raises(ssh_fast.ChannelOpenError, match='no DISPLAY'):
                await connection.run('true', x11_forwarding=True)
            with pytest.raises(ValueError, match=r'x11_display: expected a display'):
                await connection.run('true', x11_forwarding=True, x11_display='nowhere')
            with pytest.raises(ValueError, match='x11_forwarding: expected True'):
                await connection.run('true', x11_forwarding='ignore-failure')
            await connection.run('true', x11_forwarding='ignore_failure', check=True)
            (tmp_path / 'broken').write_bytes(b'\1\0\0\7')
            with pytest.raises(ssh_fast.ChannelOpenError, match='broken: '):
                await connection.run(
                    'true', x11_forwarding=True, x11_display=':7', x11_auth_path=str(tmp_path / 'broken')
                )
        assert shell.displays == [None]


async def test_our_client_and_asyncssh(key_ring: KeyRing, screen: Screen, tmp_path: Path) -> None:
    auth, shell = tmp_path / 'server-Xauthority', AsyncSSHShell(tmp_path / 'server-Xauthority')
    async with asyncssh_server(
        key_ring, tmp_path / 'peer', x11_forwarding=True, x11_auth_path=str(auth), process_factory=shell
    ) as target:
        async with ssh_fast.connect(**wanted(target, screen)) as connection:
            result = await connection.run('xdpyinfo', check=True)
            assert SHOWN in str(result.stdout)


class AsyncSSHShell:
    """The handler of an AsyncSSH server."""

    def __init__(self, auth: Path) -> None:
        self.auth = auth

    async def __call__(self, process: Any) -> None:
        environment = {**os.environ, 'DISPLAY': process.channel.get_x11_display(), 'XAUTHORITY': str(self.auth)}
        shell = await asyncio.create_subprocess_shell(
            process.command, env=environment, stdin=-3, stdout=-1, stderr=-2
        )
        output, _ = await shell.communicate()
        process.stdout.write(output.decode())
        process.exit(shell.returncode)


# --- our server


@pytest.mark.parametrize('flag', ['-X', '-Y'])
async def test_openssh_and_our_server(key_ring: KeyRing, screen: Screen, tmp_path: Path, flag: str) -> None:
    async with shell_server(key_ring, tmp_path) as (target, shell, auth):
        # Trusted both times: Xvfb refuses cookies that xauth had it generate for clients that are not.
        command = peers.ssh(target, 'xdpyinfo', options=['ForwardX11Trusted=yes'])
        display = {'DISPLAY': screen.display, 'XAUTHORITY': screen.auth_path}
        argv = [command.argv[0], flag, *command.argv[1:]]
        done = await replace(command, argv=argv, environment={**command.environment, **display}).run_async()
        assert SHOWN in done.stdout.decode()
        assert str(shell.displays[0]).startswith('localhost:')
        await until(lambda: not read_entries(str(auth)))


async def test_asyncssh_and_our_server(key_ring: KeyRing, screen: Screen, tmp_path: Path) -> None:
    async with shell_server(key_ring, tmp_path) as (target, _, auth):
        async with asyncssh.connect(**wanted(target, screen)) as connection:
            result = await connection.run('xdpyinfo', check=True)
            assert SHOWN in str(result.stdout)
        await until(lambda: not read_entries(str(auth)))


async def test_ours_and_ours(key_ring: KeyRing, screen: Screen, tmp_path: Path) -> None:
    """Each session has a display of its own, whose entry and ports are gone after it."""
    made, factory = watching()
    async with shell_server(key_ring, tmp_path, server_factory=factory) as (target, shell, auth):
        xauth(auth, 'add', '192.0.2.1:7', '.', '00' * 16)
        kept = auth.read_bytes()
        shell.release.clear()
        async with ssh_fast.connect(**wanted(target, screen)) as connection:
            running = [asyncio.create_task(connection.run('xdpyinfo')) for _ in range(3)]
            await until(lambda: len(shell.displays) == 3)
            assert len(set(shell.displays)) == 3
            listed = xauth(auth, 'list')
            assert all(f'unix:{str(name)[10:-2]} ' in listed for name in shell.displays), listed
            assert auth.stat().st_mode & 0o777 == 0o600
            assert screen.cookie.hex() not in listed
            shell.release.set()
            for result in await asyncio.gather(*running):
                assert SHOWN in str(result.stdout), result.stdout
        await until(lambda: auth.read_bytes() == kept)
        assert not any(display._listener.is_open for display in made[0].conn._x11._displays)
        await until(lambda: [path.name for path in tmp_path.glob('server-*')] == ['server-Xauthority'])


async def test_the_screen_is_passed_on(key_ring: KeyRing, screen: Screen, tmp_path: Path) -> None:
    async with shell_server(key_ring, tmp_path) as (target, shell, _):
        async with ssh_fast.connect(**wanted(target, screen, x11_display=f'{screen.display}.3')) as connection:
            await connection.run('true', check=True)
        assert str(shell.displays[0]).endswith('.3')


async def test_both_loopback_addresses_lead_to_the_display(
    key_ring: KeyRing, screen: Screen, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(('::1', 0))
        except OSError:
            pytest.skip('this machine has no ::1')
    async with shell_server(key_ring, tmp_path) as (target, _, _):
        async with ssh_fast.connect(**wanted(target, screen)) as connection:
            for address in ('127.0.0.1', '[::1]'):
                result = await connection.run(f'xdpyinfo -display "{address}:${{DISPLAY#*:}}"')
                assert SHOWN in str(result.stdout), result.stdout


async def test_one_client_only(key_ring: KeyRing, screen: Screen, tmp_path: Path) -> None:
    async with shell_server(key_ring, tmp_path) as (target, _, _):
        async with ssh_fast.connect(**wanted(target, screen, x11_single_connection=True)) as connection:
            result = await connection.run('xdpyinfo >/dev/null && xdpyinfo >/dev/null; echo $?')
            assert str(result.stdout).endswith('1\n'), result.stdout
            result = await connection.run('xdpyinfo', check=True, x11_single_connection=True)
            assert SHOWN in str(result.stdout), 'the next session has one too'


async def test_the_client_lets_one_in_although_the_server_sends_more(
    key_ring: KeyRing, screen: Screen, tmp_path: Path
) -> None:
    with sshd(key_ring, tmp_path) as target:
        async with ssh_fast.connect(**wanted(target, screen, x11_single_connection=True)) as connection:
            result = await connection.run('xdpyinfo >/dev/null && echo first; xdpyinfo >/dev/null 2>&1 || echo none')
            assert result.stdout == 'first\nnone\n'


@pytest.mark.parametrize(
    'options', ['no-X11-forwarding', 'restrict', 'restrict,pty'], ids=['no-X11-forwarding', 'restrict', 'pty']
)
async def test_a_key_that_may_not(key_ring: KeyRing, screen: Screen, tmp_path: Path, options: str) -> None:
    keys = tmp_path / 'authorized_keys'
    keys.write_text(f'{options} {key_ring.public("user", "ed25519").read_text()}')
    async with shell_server(key_ring, tmp_path, authorized_client_keys=str(keys)) as (target, _, auth):
        async with ssh_fast.connect(**wanted(target, screen)) as connection:
            with pytest.raises(ssh_fast.ChannelOpenError, match='forwards no X11'):
                await connection.run('true')
    assert not auth.exists()


async def test_a_server_forwards_only_if_told(key_ring: KeyRing, screen: Screen, tmp_path: Path) -> None:
    config = tmp_path / 'sshd_config'
    for lines, granted in (
        (None, False), ('', False), ('X11Forwarding yes', True), ('X11Forwarding yes\nDisableForwarding yes', False)
    ):
        settings = {'x11_forwarding': (), 'config': None if lines is None else str(config)}
        config.write_text(f'{lines}\n')
        async with shell_server(key_ring, tmp_path, **settings) as (target, shell, _):
            async with ssh_fast.connect(**wanted(target, screen, x11_forwarding='ignore_failure')) as connection:
                await connection.run('true', check=True)
                assert bool(shell.displays[0]) == granted, lines


async def test_the_clients_variables_do_not_replace_the_display(
    key_ring: KeyRing, screen: Screen, tmp_path: Path
) -> None:
    async with shell_server(key_ring, tmp_path) as (target, shell, _):
        async with ssh_fast.connect(**wanted(target, screen)) as connection:
            result = await connection.run('echo $DISPLAY', check=True, env={'DISPLAY': 'evil:0'})
            assert result.stdout == f'{shell.displays[0]}\n'


async def test_a_file_that_cannot_be_changed(key_ring: KeyRing, screen: Screen, tmp_path: Path) -> None:
    (tmp_path / 'server-Xauthority').write_bytes(b'\1\0\0\7')
    async with shell_server(key_ring, tmp_path) as (target, _, auth):
        async with ssh_fast.connect(**wanted(target, screen)) as connection:
            with pytest.raises(ssh_fast.ChannelOpenError, match='forwards no X11'):
                await connection.run('true')
        assert auth.read_bytes() == b'\1\0\0\7'


async def test_a_connection_that_is_dropped_leaves_nothing(
    key_ring: KeyRing, screen: Screen, tmp_path: Path
) -> None:
    made, factory = watching()
    async with shell_server(key_ring, tmp_path, server_factory=factory) as (target, shell, auth):
        shell.release.clear()
        connection = await ssh_fast.connect(**wanted(target, screen))
        running = asyncio.create_task(connection.run('true'))
        await until(lambda: len(shell.displays) == 1)
        assert read_entries(str(auth))
        connection.abort()
        await until(lambda: not read_entries(str(auth)))
        await made[0].lost
        shell.release.set()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_session_on_another_server(key_ring: KeyRing, screen: Screen, tmp_path: Path) -> None:
    """The display follows a session through our server to an sshd."""
    with sshd(key_ring, tmp_path) as far:
        async with ssh_fast.connect(**far.connect_options()) as onward:

            class Proxy(ssh_fast.SSHServer):
                def session_requested(self) -> Any:
                    return onward

            async with shell_server(key_ring, tmp_path, server_factory=Proxy) as (near, _, auth):
                async with ssh_fast.connect(**wanted(near, screen)) as connection:
                    result = await connection.run('xdpyinfo', check=True)
                    assert SHOWN in str(result.stdout)
                    result = await connection.run('echo "[$DISPLAY]"', x11_forwarding=False)
                    assert result.stdout == '[]\n'
                await until(lambda: not read_entries(str(auth)))


@pytest.mark.parametrize('allowed', [True, False])
async def test_the_example_of_shells(key_ring: KeyRing, screen: Screen, tmp_path: Path, allowed: bool) -> None:
    root = Path(__file__).resolve().parent.parent.parent
    command = [sys.executable, str(root / 'examples/shell_server.py'), '--port', '0', '--shell', '/bin/sh']
    command += ['--host-key', str(key_ring.private('host-ed25519', 'ed25519'))]
    command += ['--authorized-keys', str(key_ring.public('user', 'ed25519'))]
    environment = {**plain_environment(), 'PYTHONPATH': str(root), 'XAUTHORITY': str(tmp_path / 'Xauthority')}
    server = await asyncio.create_subprocess_exec(
        *command, *['--forward-x11'] * allowed, env=environment, stdin=-3, stdout=-1
    )
    try:
        assert server.stdout
        port = int((await server.stdout.readline()).split()[-1])
        target = make_target(key_ring, tmp_path, port, [key_ring.public('host-ed25519')])
        async with ssh_fast.connect(**wanted(target, screen, x11_forwarding='ignore_failure')) as connection:
            result = await connection.run('xdpyinfo')
            assert (SHOWN in str(result.stdout)) == allowed, result
    finally:
        server.terminate()
        await server.wait()


# --- who has no cookie, or a wrong one


async def test_a_wrong_cookie_reaches_nothing(
    key_ring: KeyRing, screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an unknown cookie, none at all, nor the display's own opens it from the other side."""
    reached: list[Any] = []
    real = x11_client.X11Gate._join
    monkeypatch.setattr(x11_client.X11Gate, '_join', lambda self, *args: reached.append(1) or real(self, *args))
    async with shell_server(key_ring, tmp_path) as (target, _, _):
        async with ssh_fast.connect(**wanted(target, screen)) as connection:
            for cookie in (secrets.token_hex(16), screen.cookie.hex(), '00' * 16, 'ff'):
                result = await connection.run(
                    f'cd {tmp_path}; xauth -q -f other add "$DISPLAY" . {cookie} && XAUTHORITY=other xdpyinfo; rm other'
                )
                assert SHOWN not in str(result.stdout) and 'Wrong authentication' in str(result.stdout)
            result = await connection.run('XAUTHORITY=/nonexistent xdpyinfo')
            assert SHOWN not in str(result.stdout)
            assert not reached
            result = await connection.run('xdpyinfo', check=True)
            assert SHOWN in str(result.stdout) and reached


@pytest.mark.parametrize('first', [b'', b'x', b'GET / HTTP/1.0\r\n\r\n', b'B' + b'\xff' * 11, b'l' + b'\xff' * 11])
async def test_what_is_no_x_client(key_ring: KeyRing, screen: Screen, tmp_path: Path, first: bytes) -> None:
    async with shell_server(key_ring, tmp_path) as (target, shell, _):
        shell.release.clear()
        async with ssh_fast.connect(**wanted(target, screen)) as connection:
            running = asyncio.create_task(connection.run('true', check=True))
            await until(lambda: len(shell.displays) == 1)
            reader, writer = await asyncio.open_connection('127.0.0.1', 6000 + int(str(shell.displays[0])[10:-2]))
            writer.write(first)
            if not first:
                writer.write_eof()
            async with asyncio.timeout(10):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b''
            writer.close()
            shell.release.set()
            await running


async def test_a_display_that_is_not_there(key_ring: KeyRing, tmp_path: Path) -> None:
    async with shell_server(key_ring, tmp_path) as (target, _, _):
        gone = Screen(f'{tmp_path}/none:7', str(tmp_path / 'empty'), b'')
        async with ssh_fast.connect(**wanted(target, gone)) as connection:
            result = await connection.run('xdpyinfo')
            assert 'The display cannot be reached' in str(result.stdout)


async def test_what_follows_the_first_message_arrives_whole(key_ring: KeyRing, tmp_path: Path) -> None:
    """A client that waits for nothing, and a display that takes its time: the order holds, and nothing is lost."""
    cookie, data = secrets.token_bytes(16), os.urandom(12 << 20)
    seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(len(X11Setup(b'B', 11, 0, MIT_MAGIC_COOKIE, cookie).encode()))
        await asyncio.sleep(0.2)
        seen.set_result(first)
        received = await reader.readexactly(len(data))
        writer.write(hashlib.sha256(received).digest() + bytes(1 << 20))
        writer.write_eof()
        assert await reader.read() == b''
        writer.close()

    add_entry(str(tmp_path / 'client'), local_entry(0, MIT_MAGIC_COOKIE, cookie))
    display = Screen(f'{tmp_path}/display:0', str(tmp_path / 'client'), cookie)
    server = await asyncio.start_unix_server(serve, display.display)
    async with server, shell_server(key_ring, tmp_path) as (target, shell, auth):
        shell.release.clear()
        async with ssh_fast.connect(**wanted(target, display)) as connection:
            running = asyncio.create_task(connection.run('true', check=True))
            await until(lambda: len(shell.displays) == 1)
            fake = read_entries(str(auth))[0].data
            assert fake != cookie
            reader, writer = await asyncio.open_connection('127.0.0.1', 6000 + int(str(shell.displays[0])[10:-2]))
            writer.write(X11Setup(b'B', 11, 0, MIT_MAGIC_COOKIE, fake).encode() + data)
            answer = await reader.readexactly(32 + (1 << 20))
            assert answer[:32] == hashlib.sha256(data).digest()
            assert await reader.read() == b'', 'the end of the data is passed on'
            writer.write_eof()
            await writer.drain()
            assert (await seen) == X11Setup(b'B', 11, 0, MIT_MAGIC_COOKIE, cookie).encode()
            writer.close()
            shell.release.set()
            await running


async def test_a_server_opens_nothing_unasked(key_ring: KeyRing, screen: Screen, tmp_path: Path) -> None:
    """Channels are refused before a session has asked, and after its end."""
    made, factory = watching()
    async with shell_server(key_ring, tmp_path, server_factory=factory) as (target, shell, _):
        async with ssh_fast.connect(**wanted(target, screen, x11_forwarding=False)) as connection:

            async def opens() -> bool:
                chan = ssh_fast.channel.x11_channel.SSHX11Channel(
                    made[0].conn._mux, asyncio.get_running_loop(), 65536, 16384, 65536
                )
                try:
                    await chan.accept(ssh_fast.SSHTCPSession, '127.0.0.1', 1)
                except ssh_fast.ChannelOpenError as exc:
                    assert exc.code == ssh_fast.OPEN_ADMINISTRATIVELY_PROHIBITED
                    return False
                chan.abort()
                return True

            assert not await opens()
            shell.release.clear()
            running = asyncio.create_task(connection.run('true', x11_forwarding=True))
            await until(lambda: len(shell.displays) == 1)
            assert await opens()
            shell.release.set()
            await running
            assert not await opens()


@pytest.mark.parametrize(
    ('protocol', 'cookie'),
    [
        (b'MIT-MAGIC-COOKIE-1', b''), (b'', b'00'), (b'MIT', b'0'), (b'MIT', b'0g'), (b'MIT\nadd', b'00'),
        (b'MIT', b'00' * 257), (b'M' * 65, b'00'), (b'MIT', b'00\n'), (b'MIT', b' 00'),
    ],
)  # fmt: skip
async def test_requests_that_authenticate_nobody(
    key_ring: KeyRing, tmp_path: Path, protocol: bytes, cookie: bytes
) -> None:
    async with shell_server(key_ring, tmp_path) as (target, shell, auth):
        async with ssh_fast.connect(**target.connect_options()) as connection:
            answers: list[bool] = []

            class Session(ssh_fast.SSHClientSession[str]):
                def connection_made(self, chan: Any) -> None:
                    fields = encode_boolean(False), encode_string(protocol), encode_string(cookie), encode_uint32(0)
                    chan._send_request(b'x11-req', *fields, answer=answers.append)

            chan, _ = await connection.create_session(Session, 'true')
            await chan.wait_closed()
            assert answers == [False] and shell.displays == [None]
    assert not auth.exists()


async def test_a_session_has_one_display(key_ring: KeyRing, screen: Screen, tmp_path: Path) -> None:
    async with shell_server(key_ring, tmp_path) as (target, shell, auth):
        shell.release.clear()
        async with ssh_fast.connect(**wanted(target, screen)) as connection:
            answers: list[bool] = []

            class Session(ssh_fast.SSHClientSession[str]):
                def connection_made(self, chan: Any) -> None:
                    fields = encode_boolean(False), encode_string(b'MIT'), encode_string(b'00'), encode_uint32(0)
                    chan._send_request(b'x11-req', *fields, answer=answers.append)
                    chan._send_request(b'x11-req', *fields, answer=answers.append)

            chan, _ = await connection.create_session(Session, 'true', x11_forwarding='ignore_failure')
            assert answers == [True, False] and len(read_entries(str(auth))) == 1
            shell.release.set()
            await chan.wait_closed()
            await until(lambda: not read_entries(str(auth)))
