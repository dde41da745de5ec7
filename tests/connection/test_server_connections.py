"""What a server hands to its client: connections of its own, and what it passes on to another server."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from tests.connection.test_forwarding import LOOPBACK, MIB, Permissive, echo, echo_port, exchange, settled
from tests.connection.test_server_sessions import HOST_KEY, connected
from tests.connection.test_tunnels import OPTIONS, Cat, server
from tests.interop.ours import nothing_leaks


class Listener(ssh_fast.SSHListener):
    """Listens on nothing: the test makes the connections."""

    def __init__(self, port: int) -> None:
        self.port, self.closed = port, False

    def get_port(self) -> int:
        return self.port

    def close(self) -> None:
        self.closed = True

    async def wait_closed(self) -> None:
        pass


class Handing(Permissive):
    """Hands its client what the test wants."""

    last: Any = None

    def connection_made(self, conn: Any) -> None:
        super().connection_made(conn)
        type(self).last = conn

    def server_requested(self, *where: Any) -> Any:
        return Listener(where[1] or 4711)

    def unix_server_requested(self, path: str) -> Any:
        return Listener(0)


@contextlib.asynccontextmanager
async def both(owner: type[Permissive] = Handing) -> AsyncIterator[tuple[Any, Any]]:
    """A client's connection, and the server's end of it."""
    ends: list[Any] = []

    class Made(owner):  # type: ignore[misc, valid-type]
        def connection_made(self, conn: Any) -> None:
            super().connection_made(conn)
            ends.append(conn)

    async with connected(owner=Made) as conn:
        yield conn, ends[0]


async def test_connections_that_a_server_hands_over() -> None:
    came: list[Any] = []

    def factory(host: str, port: int) -> Any:
        came.append((host, port))
        return echo

    async with nothing_leaks(), both() as (client, serving):
        async with client.start_server(factory, 'name', 0) as listener:
            assert listener.get_port() == 4711
            await exchange(*await serving.open_connection('name', 4711, 'somewhere', 7), 300_000)
            assert came == [('somewhere', 7)]
            reader, writer = await serving.open_connection('name', 4711, encoding='utf-8')
            writer.write('ä')
            writer.write_eof()
            assert await reader.read() == 'ä'
            assert writer.get_extra_info('local_peername') == ('name', 4711)
        with pytest.raises(ssh_fast.ChannelOpenError):
            await serving.open_connection('name', 4711)
        with pytest.raises(ValueError, match='port'):
            await serving.open_connection('name', 65536)
        await settled(lambda: not client._mux.channels and not serving._mux.channels)


async def test_connections_to_paths_that_a_server_hands_over() -> None:
    async with both() as (client, serving):
        async with client.start_unix_server(lambda: echo, '/some/path'):
            await exchange(*await serving.open_unix_connection('/some/path'), 300_000)
            with pytest.raises(ssh_fast.ChannelOpenError, match='Nothing listens'):
                await serving.open_unix_connection('/other')
        with pytest.raises(ssh_fast.ChannelOpenError, match='forwarding was asked for'):
            await serving.open_unix_connection('/some/path')


async def test_sessions_of_connections_that_a_server_hands_over() -> None:
    class Collect(ssh_fast.SSHTCPSession):
        def __init__(self) -> None:
            self.data = b''
            self.lost = asyncio.get_running_loop().create_future()

        def data_received(self, data: bytes, datatype: int | None) -> None:
            self.data += data

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost.set_result(exc)

    async with both() as (client, serving), client.start_server(lambda host, port: echo, '', 22):
        chan, session = await serving.create_connection(Collect, '', 22)
        chan.write(b'there and back')
        chan.write_eof()
        assert await session.lost is None
        assert session.data == b'there and back'


async def test_a_client_that_has_gone_takes_no_connection() -> None:
    async with both() as (client, serving):
        client.close()
        await serving.wait_closed()
        with pytest.raises(ssh_fast.ConnectionLost):
            await serving.open_connection('', 22)


async def test_channels_with_an_encoding() -> None:
    class Upper(Permissive):
        async def shout(self, reader: Any, writer: Any) -> None:
            writer.write((await reader.read()).upper())
            writer.close()

        def connection_requested(self, *where: Any) -> Any:
            return self.conn.create_tcp_channel(encoding='utf-8', window=100_000, max_pktsize=5000), self.shout

        def unix_connection_requested(self, path: str) -> Any:
            return self.conn.create_unix_channel(encoding='latin-1'), self.shout

    async with connected(owner=Upper) as conn:
        for opening, encoding in (
            (conn.open_connection('any', 1, encoding='utf-8'), 'utf-8'),
            (conn.open_unix_connection('/any', encoding='latin-1'), 'latin-1'),
        ):
            reader, writer = await opening
            writer.write('ä' * 50_000)
            writer.write_eof()
            assert await reader.read() == 'Ä' * 50_000, encoding


async def test_answers_that_the_connection_makes(tmp_path: Path) -> None:
    """What AsyncSSH's connections have, too: a session that leads to a port, a listener in another place."""
    target, there = str(tmp_path / 'target'), str(tmp_path / 'there')
    unix = await asyncio.start_unix_server(echo, target)

    class Elsewhere(Permissive):
        def connection_requested(self, *where: Any) -> Any:
            return self.conn.forward_connection(LOOPBACK, port)

        def unix_connection_requested(self, path: str) -> Any:
            return self.conn.forward_unix_connection(target)

        def server_requested(self, host: str, port: int) -> Any:
            return self.conn.forward_local_port(LOOPBACK, 0, host, port)

        def unix_server_requested(self, path: str) -> Any:
            return self.conn.forward_local_path(there, path)

    async with echo_port() as port, both(Elsewhere) as (client, serving):
        await exchange(*await client.open_connection('any', 1), 100_000)
        await exchange(*await client.open_unix_connection('/any'), 100_000)
        async with client.start_unix_server(lambda: echo, '/not/there'):
            await exchange(*await asyncio.open_unix_connection(there), 100_000)
        async with client.start_server(lambda host, port: echo, 'any', 7):
            (listener,) = serving._forwarding._serving.values()
            await exchange(*await asyncio.open_connection(LOOPBACK, listener.get_port()), 100_000)
    unix.close()


async def test_a_server_may_choose_who_connects() -> None:
    asked: list[Any] = []

    async def choose(host: str, port: int) -> bool:
        asked.append((host, port))
        return len(asked) != 2

    class Choosing(Permissive):
        def server_requested(self, *where: Any) -> Any:
            return choose

    async with connected(owner=Choosing) as conn, conn.start_server(lambda host, port: echo, LOOPBACK, 0) as listener:
        port = listener.get_port()
        await exchange(*await asyncio.open_connection(LOOPBACK, port), 1000)
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        assert await reader.read() == b''
        writer.close()
        await exchange(*await asyncio.open_connection(LOOPBACK, port), 1000)
        assert len(asked) == 3 and asked[0][0] == LOOPBACK


# --- through another server


@contextlib.asynccontextmanager
async def proxy(upstream: type[Permissive] = Cat, **options: Any) -> AsyncIterator[tuple[Any, Any]]:
    """A client's connection to a server that passes everything on, and the connection by which it does."""
    async with server(server_factory=upstream, **options) as port:
        async with ssh_fast.connect(LOOPBACK, port, **OPTIONS) as there:

            class Passing(Permissive):
                def session_requested(self) -> Any:
                    return there

                def connection_requested(self, *where: Any) -> Any:
                    return there

                def unix_connection_requested(self, path: str) -> Any:
                    async def later() -> Any:
                        await asyncio.sleep(0)
                        return there

                    return later()

                def server_requested(self, *where: Any) -> Any:
                    return there

                def unix_server_requested(self, path: str) -> Any:
                    return there

            async with connected(owner=Passing, **options) as conn:
                yield conn, there
                await settled(lambda: conn.is_closed() or not conn._mux.channels)
                await settled(lambda: there.is_closed() or not there._mux.channels)


@pytest.mark.parametrize('size', [0, 1, 100_000, 8 * MIB])
async def test_connections_through_another_server(size: int, tmp_path: Path) -> None:
    target = str(tmp_path / 'target')
    unix = await asyncio.start_unix_server(echo, target)
    async with nothing_leaks(), echo_port() as port, proxy() as (conn, _):
        await exchange(*await conn.open_connection(LOOPBACK, port), size)
        await exchange(*await conn.open_unix_connection(target), size)
        async with conn.forward_local_port(LOOPBACK, 0, LOOPBACK, port) as listener:
            await exchange(*await asyncio.open_connection(LOOPBACK, listener.get_port()), size)
    unix.close()


@pytest.mark.parametrize('size', [0, 1, 100_000, 8 * MIB])
async def test_listening_through_another_server(size: int, tmp_path: Path) -> None:
    path = str(tmp_path / 'path')
    async with nothing_leaks(), proxy() as (conn, _):
        async with conn.start_server(lambda host, port: echo, LOOPBACK, 0) as listener:
            await exchange(*await asyncio.open_connection(LOOPBACK, listener.get_port()), size)
        async with conn.start_unix_server(lambda: echo, path):
            await exchange(*await asyncio.open_unix_connection(path), size)
        with pytest.raises(OSError):
            await asyncio.open_connection(LOOPBACK, listener.get_port())


async def test_many_at_once_through_another_server_and_rekeys() -> None:
    async with nothing_leaks(), echo_port() as port, proxy(rekey_bytes=1 << 20) as (conn, _):

        async def use(number: int) -> None:
            size = random.Random(number).choice([0, 1, 1000, 200_000])
            await exchange(*await conn.open_connection(LOOPBACK, port), size, number)

        await asyncio.gather(*(use(number) for number in range(60)))


async def test_a_slow_reader_behind_another_server_holds_its_sender() -> None:
    sent = 0

    async def pour(reader: Any, writer: Any) -> None:
        nonlocal sent
        with contextlib.suppress(OSError):
            while True:
                writer.write(bytes(1 << 16))
                await writer.drain()
                sent += 1 << 16
        writer.close()

    source = await asyncio.start_server(pour, LOOPBACK, 0)
    async with proxy(max_window=1 << 21) as (conn, _):
        reader, writer = await conn.open_connection(LOOPBACK, source.sockets[0].getsockname()[1])
        await reader.read(1)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.3)
        assert sent < 24 * MIB
        assert not conn.is_closed()
        writer.channel.abort()
    source.close()


async def test_what_another_server_refuses_is_refused() -> None:
    class Closed(Cat):
        def connection_requested(self, *where: Any) -> Any:
            raise ssh_fast.ChannelOpenError(ssh_fast.OPEN_ADMINISTRATIVELY_PROHIBITED, 'not from there')

        def server_requested(self, *where: Any) -> Any:
            return False

    async with proxy(Closed) as (conn, _):
        with pytest.raises(ssh_fast.ChannelOpenError, match='not from there') as caught:
            await conn.open_connection(LOOPBACK, 1)
        assert caught.value.code == ssh_fast.OPEN_ADMINISTRATIVELY_PROHIBITED
        with pytest.raises(ssh_fast.ChannelListenError):
            await conn.start_server(lambda host, port: echo, LOOPBACK, 0)


async def test_another_server_that_has_gone_is_a_failure_of_that_channel(tmp_path: Path) -> None:
    async with echo_port() as port, proxy() as (conn, there):
        reader, _ = await conn.open_connection(LOOPBACK, port)
        there.abort()
        with contextlib.suppress(ssh_fast.Error, OSError):
            assert await reader.read() == b''
        with pytest.raises(ssh_fast.ChannelOpenError, match='has ended'):
            await conn.open_connection(LOOPBACK, port)
        with pytest.raises(ssh_fast.ChannelListenError):
            await conn.start_server(lambda host, port: echo, LOOPBACK, 0)
        assert (await conn.run('any', encoding=None)).exit_status == 255
        assert not conn.is_closed()


async def test_a_client_that_goes_leaves_nothing_in_the_other_connection() -> None:
    async with echo_port() as port, proxy() as (conn, there):
        for _ in range(5):
            await conn.open_connection(LOOPBACK, port)
        assert len(there._mux.channels) == 5
        conn.abort()
        await settled(lambda: not there._mux.channels)


# --- sessions


class Programs(Cat):
    """Runs what a test asks for."""

    def session_requested(self) -> Any:
        return self.conn.create_server_channel(encoding=None), ssh_fast.SSHServerProcess(self.run)

    async def run(self, process: Any) -> None:
        if process.command == 'env':
            process.stdout.write(repr(sorted(process.env.items())).encode())
            process.stderr.write(b'errors')
            process.exit(3)
        elif process.command == 'die':
            process.exit_with_signal('KILL', False, 'was killed')
        elif process.command == 'signals':
            process.stdout.write(b'ready')
            try:
                await process.stdin.read()
            except ssh_fast.SignalReceived as exc:
                process.stdout.write(exc.signal.encode())
            process.exit(0)
        elif process.term_type:
            process.stdout.write(f'{process.term_type} {process.term_size}'.encode())
            try:
                await process.stdin.read()
            except ssh_fast.TerminalSizeChanged as exc:
                process.stdout.write(str(exc.term_size).encode())
            process.exit(0)
        else:
            while data := await process.stdin.read(1 << 16):
                process.stdout.write(data)
                await process.stdout.drain()
            process.exit(0)


async def test_sessions_on_another_server() -> None:
    async with nothing_leaks(), proxy(Programs) as (conn, _):
        result = await conn.run('env', env={'LC_A': 'b'}, encoding=None)
        assert (result.exit_status, result.stdout, result.stderr) == (3, b"[('LC_A', 'b')]", b'errors')
        data = random.Random(0).randbytes(8 * MIB)
        assert (await conn.run('cat', input=data, encoding=None)).stdout == data
        assert (await conn.run('die')).exit_signal[:3] == ('KILL', False, 'was killed')


async def test_signals_and_terminals_on_another_server() -> None:
    async with proxy(Programs) as (conn, _):
        async with conn.create_process('signals', encoding=None) as process:
            assert await process.stdout.readexactly(5) == b'ready'
            process.send_signal('INT')
            assert await process.stdout.read() == b'INT'
        async with conn.create_process(term_type='xterm', term_size=(80, 24), encoding=None) as process:
            first = b'xterm (80, 24, 0, 0)'
            assert await process.stdout.readexactly(len(first)) == first
            process.change_terminal_size(100, 50)
            assert await process.stdout.read() == b'(100, 50, 0, 0)'


async def test_sftp_on_another_server(tmp_path: Path) -> None:
    (tmp_path / 'file').write_bytes(b'content')

    class Files(Cat):
        def session_requested(self) -> Any:
            return False

    async with proxy(Files, sftp_factory=True) as (conn, _):
        async with conn.start_sftp_client() as sftp:
            await sftp.get(str(tmp_path / 'file'), str(tmp_path / 'copy'))
        assert (tmp_path / 'copy').read_bytes() == b'content'


async def test_an_answer_that_is_nothing_of_these_is_refused_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(Permissive):
        def unix_server_requested(self, path: str) -> Any:
            return 'yes'

    async with ssh_fast.listen(LOOPBACK, 0, server_host_keys=[HOST_KEY], server_factory=Wrong) as acceptor:
        async with ssh_fast.connect(LOOPBACK, acceptor.get_port(), **OPTIONS) as conn:
            with pytest.raises(ssh_fast.ChannelListenError):
                await conn.start_unix_server(lambda: echo, '/path')
            assert not conn.is_closed()
            assert 'Expected True, a listener' in caplog.text
