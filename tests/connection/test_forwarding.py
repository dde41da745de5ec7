"""Forwarding between our two ends: every kind, what a server lets its clients do, and what is left afterwards."""

import asyncio
import contextlib
import hashlib
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from tests.connection.test_server_sessions import HOST_KEY, Owner, connected

LOOPBACK = '127.0.0.1'
MIB = 1 << 20


class Permissive(Owner):
    """Lets its clients forward everything."""

    def connection_requested(self, *where: Any) -> Any:
        return True

    def server_requested(self, *where: Any) -> Any:
        return True

    def unix_connection_requested(self, path: str) -> Any:
        return True

    def unix_server_requested(self, path: str) -> Any:
        return True


async def echo(reader: Any, writer: Any) -> None:
    """Give everything back, and then the end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    writer.close()


@contextlib.asynccontextmanager
async def echo_port() -> AsyncIterator[int]:
    server = await asyncio.start_server(echo, LOOPBACK, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def exchange(reader: Any, writer: Any, size: int, seed: int = 0) -> None:
    """Send so many bytes and the end, and expect the same back."""
    data = random.Random(seed).randbytes(size)

    async def send() -> None:
        writer.write(data)
        await writer.drain()
        writer.write_eof()

    sending = asyncio.create_task(send())
    received = await reader.read() if size < MIB else b''.join([piece async for piece in pieces(reader)])
    await sending
    writer.close()
    assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()


async def pieces(reader: Any) -> AsyncIterator[bytes]:
    while piece := await reader.read(1 << 16):
        yield piece


async def settled(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize('size', [0, 1, 100_000, 8 * MIB])
async def test_local_port(size: int) -> None:
    async with echo_port() as port, connected(owner=Permissive) as conn:
        async with conn.forward_local_port(LOOPBACK, 0, LOOPBACK, port) as listener:
            await exchange(*await asyncio.open_connection(LOOPBACK, listener.get_port()), size)


@pytest.mark.parametrize('size', [0, 1, 100_000, 8 * MIB])
async def test_remote_port(size: int) -> None:
    async with echo_port() as port, connected(owner=Permissive) as conn:
        async with conn.forward_remote_port(LOOPBACK, 0, LOOPBACK, port) as listener:
            await exchange(*await asyncio.open_connection(LOOPBACK, listener.get_port()), size)


async def test_paths_and_ports_in_every_mixture(tmp_path: Path) -> None:
    target, here = str(tmp_path / 'target'), str(tmp_path / 'here')
    unix = await asyncio.start_unix_server(echo, target)
    async with echo_port() as port, connected(owner=Permissive) as conn:
        for make in (
            lambda: conn.forward_local_path(here, target),
            lambda: conn.forward_local_path_to_port(here, LOOPBACK, port),
            lambda: conn.forward_remote_path(here, target),
            lambda: conn.forward_remote_path_to_port(here, LOOPBACK, port),
        ):
            async with make():
                assert os.stat(here).st_mode & 0o777 == 0o600
                await exchange(*await asyncio.open_unix_connection(here), 300_000)
            await settled(lambda: not os.path.exists(here))
        for make in (
            lambda: conn.forward_local_port_to_path(LOOPBACK, 0, target),
            lambda: conn.forward_remote_port_to_path(LOOPBACK, 0, target),
        ):
            async with make() as listener:
                await exchange(*await asyncio.open_connection(LOOPBACK, listener.get_port()), 300_000)
    unix.close()


async def test_many_connections_through_rekeys() -> None:
    async with echo_port() as port, connected(owner=Permissive, rekey_bytes=1 << 20) as conn:
        async with conn.forward_local_port(LOOPBACK, 0, LOOPBACK, port) as listener:

            async def use(number: int) -> None:
                size = random.Random(number).choice([0, 1, 1000, 200_000])
                await exchange(*await asyncio.open_connection(LOOPBACK, listener.get_port()), size, number)

            await asyncio.gather(*(use(number) for number in range(100)))
        await settled(lambda: not conn._mux.channels)


async def test_streams_and_sessions_through_the_server(tmp_path: Path) -> None:
    target = str(tmp_path / 'target')
    unix = await asyncio.start_unix_server(echo, target)
    async with echo_port() as port, connected(owner=Permissive) as conn:
        await exchange(*await conn.open_connection(LOOPBACK, port), 100_000)
        await exchange(*await conn.open_unix_connection(target), 100_000)
        reader, writer = await conn.open_connection(LOOPBACK, port, encoding='utf-8')
        writer.write('grüße')
        writer.write_eof()
        assert await reader.read() == 'grüße'
        assert reader.get_extra_info('local_peername') == (LOOPBACK, port)
    unix.close()


async def test_handlers_take_what_comes_to_the_server() -> None:
    async with connected(owner=Permissive) as conn:
        peers: list[tuple[str, int]] = []

        def handler(host: str, port: int) -> Any:
            peers.append((host, port))
            return echo

        async with conn.start_server(handler, LOOPBACK, 0) as listener:
            reader, writer = await asyncio.open_connection(LOOPBACK, listener.get_port())
            own = writer.get_extra_info('sockname')
            await exchange(reader, writer, 100_000)
        assert peers == [own[:2]]
        with pytest.raises(OSError):
            await asyncio.open_connection(LOOPBACK, listener.get_port())


async def test_a_failed_connect_is_an_open_failure() -> None:
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        port = sock.getsockname()[1]
        async with connected(owner=Permissive) as conn:
            with pytest.raises(ssh_fast.ChannelOpenError, match='Cannot connect') as caught:
                await conn.open_connection(LOOPBACK, port)
            assert caught.value.code == ssh_fast.OPEN_CONNECT_FAILED
            assert not conn._mux.channels


async def test_a_reset_closes_the_channel() -> None:
    arrived: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda r, w: arrived.set_result((r, w)), LOOPBACK, 0)
    async with connected(owner=Permissive) as conn:
        async with conn.forward_local_port(LOOPBACK, 0, LOOPBACK, server.sockets[0].getsockname()[1]) as listener:
            _, writer = await asyncio.open_connection(LOOPBACK, listener.get_port())
            _, target = await arrived
            sock = writer.get_extra_info('socket')
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            writer.transport.abort()
            await settled(lambda: not conn._mux.channels)
            target.close()
    server.close()


async def test_a_slow_receiver_holds_its_sender_and_nobody_else() -> None:
    async def stalled(reader: Any, writer: Any) -> None:
        await asyncio.sleep(3600)

    server = await asyncio.start_server(stalled, LOOPBACK, 0, limit=1024)
    async with echo_port() as port, connected(owner=Permissive) as conn:
        slow = conn.forward_local_port(LOOPBACK, 0, LOOPBACK, server.sockets[0].getsockname()[1])
        async with slow as listener, conn.forward_local_port(LOOPBACK, 0, LOOPBACK, port) as other:
            sock = socket.socket()
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, (LOOPBACK, listener.get_port()))
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 200 * MIB:
                    async with asyncio.timeout(1):
                        await asyncio.get_running_loop().sock_sendall(sock, bytes(1 << 16))
                    sent += 1 << 16
            # Two windows of up to 16 MiB, and the kernel's buffers of three sockets.
            assert sent < 100 * MIB
            await exchange(*await asyncio.open_connection(LOOPBACK, other.get_port()), MIB)
            sock.close()
    server.close()
    for task in asyncio.all_tasks():
        if 'stalled' in repr(task):
            task.cancel()


async def test_listening_fails_with_host_port_and_reason() -> None:
    async with connected(owner=Permissive) as conn, conn.forward_local_port(LOOPBACK, 0, LOOPBACK, 1) as listener:
        port = listener.get_port()
        with pytest.raises(ssh_fast.ChannelListenError, match=f'{LOOPBACK} port {port}.*in use'):
            await conn.forward_local_port(LOOPBACK, port, LOOPBACK, 1)
        with pytest.raises(ssh_fast.ChannelListenError, match=f'{LOOPBACK} port {port}'):
            await conn.forward_remote_port(LOOPBACK, port, LOOPBACK, 1)
        with pytest.raises(ValueError, match='listen_port'):
            await conn.forward_remote_port(LOOPBACK, 65536, LOOPBACK, 1)


async def test_listeners_end_with_the_connection(tmp_path: Path) -> None:
    async with connected(owner=Permissive) as conn:
        local = await conn.forward_local_port(LOOPBACK, 0, LOOPBACK, 1)
        remote = await conn.forward_remote_port(LOOPBACK, 0, LOOPBACK, 1)
        await conn.forward_local_path(str(tmp_path / 'here'), '/nowhere')
    for port in (local.get_port(), remote.get_port()):
        with pytest.raises(OSError):
            for _ in range(100):
                _, writer = await asyncio.open_connection(LOOPBACK, port)
                writer.close()
                await asyncio.sleep(0.01)
    assert not (tmp_path / 'here').exists()


async def test_the_applications_own_listener_ends_with_the_connection() -> None:
    class Listener(ssh_fast.SSHListener):
        closed = False

        def get_port(self) -> int:
            return 4711

        def close(self) -> None:
            self.closed = True

    listener = Listener()

    class Own(Owner):
        async def server_requested(self, *where: Any) -> Any:
            return listener

    async with connected(owner=Own) as conn:
        asked = await conn.forward_remote_port('', 0, LOOPBACK, 1)
        assert asked.get_port() == 4711 and not listener.closed
    await settled(lambda: listener.closed)


async def test_listeners_that_were_closed_are_forgotten() -> None:
    async with connected(owner=Permissive) as conn:
        for _ in range(20):
            async with conn.forward_local_port(LOOPBACK, 0, LOOPBACK, 1):
                pass
        assert len(conn._forwarding._listeners) == 1


async def test_an_accept_handler_refuses() -> None:
    async def accept(host: str, port: int) -> bool:
        return False

    async with echo_port() as port, connected(owner=Permissive) as conn:
        async with conn.forward_local_port(LOOPBACK, 0, LOOPBACK, port, accept) as listener:
            reader, writer = await asyncio.open_connection(LOOPBACK, listener.get_port())
            assert await reader.read() == b''
            writer.close()


async def attempts(conn: Any, path: str) -> list[str]:
    """Try every kind of forwarding that a server decides about; return those that it refused."""

    def attempt(name: str, call: Callable[[], Awaitable[Any]], *errors: type[Exception]) -> Any:
        return name, call, errors

    refused = []
    for name, call in (
        ('tcp', lambda: conn.open_connection(LOOPBACK, 1)),
        ('unix', lambda: conn.open_unix_connection('/nowhere')),
        ('listen', lambda: conn.forward_remote_port(LOOPBACK, 0, LOOPBACK, 1)),
        ('listen path', lambda: conn.forward_remote_path(path, '/nowhere')),
    ):
        try:
            (await call()).close()
        except ssh_fast.ChannelListenError:
            refused.append(name)
        except ssh_fast.ChannelOpenError as exc:
            if exc.code == ssh_fast.OPEN_ADMINISTRATIVELY_PROHIBITED:
                refused.append(name)
    return refused


ALL = ['tcp', 'unix', 'listen', 'listen path']


@pytest.mark.parametrize(
    'options, refused',
    [
        ({}, []),
        ({'tcp_forwarding': 'no'}, ['tcp', 'listen']),
        ({'tcp_forwarding': 'local'}, ['listen']),
        ({'tcp_forwarding': 'remote'}, ['tcp']),
        ({'unix_forwarding': 'no'}, ['unix', 'listen path']),
        ({'unix_forwarding': 'local'}, ['listen path']),
        ({'unix_forwarding': 'remote'}, ['unix']),
    ],
    ids=str,
)
async def test_options_forbid(options: dict[str, str], refused: list[str], tmp_path: Path) -> None:
    async with connected(owner=Permissive, **options) as conn:
        assert await attempts(conn, str(tmp_path / 'there')) == refused


async def test_nothing_is_forwarded_unless_the_server_says_so(tmp_path: Path) -> None:
    async with connected() as conn:
        assert await attempts(conn, str(tmp_path / 'there')) == ALL


@pytest.mark.parametrize(
    'line, refused',
    [
        ('no-port-forwarding', ALL),
        ('restrict', ALL),
        ('restrict,port-forwarding', []),
        ('permitopen="127.0.0.1:2"', ['tcp', 'unix']),
        ('permitopen="127.0.0.1:1"', ['unix']),
        ('permitlisten="127.0.0.1:2"', ['listen', 'listen path']),
    ],
)
async def test_authorized_keys_forbid(line: str, refused: list[str], tmp_path: Path) -> None:
    class Keyed(Permissive):
        def begin_auth(self, username: str) -> bool:
            return True

    key = ssh_fast.generate_private_key('ssh-ed25519')
    authorized = ssh_fast.import_authorized_keys(f'{line} {key.export_public_key().decode()}')
    settings = {'server_host_keys': [HOST_KEY], 'server_factory': Keyed, 'authorized_client_keys': authorized}
    async with ssh_fast.listen(LOOPBACK, 0, **settings) as server:
        async with ssh_fast.connect(
            LOOPBACK, server.get_port(), username='user', known_hosts=None, config=None, agent_path=None,
            client_keys=[key],
        ) as conn:
            assert await attempts(conn, str(tmp_path / 'there')) == refused


@pytest.mark.parametrize('later', [False, True])
async def test_the_server_may_serve_a_connection_itself(later: bool) -> None:
    class Serving(Owner):
        def connection_requested(self, host: str, port: int, orig_host: str, orig_port: int) -> Any:
            async def decide() -> Any:
                return echo if port == 7 else False

            return decide() if later else echo if port == 7 else False

    async with connected(owner=Serving) as conn:
        await exchange(*await conn.open_connection('anywhere', 7), 100_000)
        with pytest.raises(ssh_fast.ChannelOpenError, match='refused'):
            await conn.open_connection('anywhere', 8)


async def test_rejected_opens_leave_nothing() -> None:
    async with connected() as conn:
        for _ in range(20):
            results = await asyncio.gather(
                *(conn.open_connection('host', 1) for _ in range(100)), return_exceptions=True
            )
            assert all(isinstance(result, ssh_fast.ChannelOpenError) for result in results)
        assert not conn._mux.channels and len(conn._mux._free) <= 100


async def test_a_cancelled_open_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Slow(Owner):
        async def connection_requested(self, *where: Any) -> Any:
            await asyncio.sleep(0.2)
            return echo

    class Session(ssh_fast.SSHTCPSession[bytes]):
        calls: list[str] = []

        def connection_made(self, chan: Any) -> None:
            self.calls.append('made')

        def connection_lost(self, exc: Exception | None) -> None:
            self.calls.append('lost')

    async with connected(owner=Slow) as conn:
        for opening in (conn.open_connection('host', 1), conn.create_connection(Session, 'host', 1)):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await opening
        await settled(lambda: not conn._mux.channels)
    assert Session.calls == [], 'it was never connected'
    assert 'Uncaught' not in caplog.text


async def test_a_peer_that_leaves_while_its_channel_opens_leaves_nothing() -> None:
    class Slow(Owner):
        async def connection_requested(self, *where: Any) -> Any:
            await asyncio.sleep(0.2)
            return echo

    async with connected(owner=Slow) as conn:
        async with conn.forward_local_port(LOOPBACK, 0, 'host', 1) as listener:
            _, writer = await asyncio.open_connection(LOOPBACK, listener.get_port())
            writer.close()
            await asyncio.sleep(0.1)
            await settled(lambda: not conn._mux.channels)
