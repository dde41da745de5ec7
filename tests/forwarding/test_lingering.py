"""The last bytes of a forwarded connection: they arrive however long they are not taken, and what waits is bounded."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ssh_fast.channel import channel, close_watch
from ssh_fast.forwarding import lingering
from ssh_fast.forwarding.lingering import Lingering
from tests.connection.test_forwarding import LOOPBACK, MIB, Permissive, settled
from tests.connection.test_server_sessions import connected
from tests.interop.ours import nothing_leaks

BOUND = 0.1
# What a window that grows holds is another amount each time.
FIXED = {'window': 2 * MIB, 'max_window': 2 * MIB}
DATA = bytes(range(256)) * (24 * MIB // 256)    # more than all buffers on the way hold


@pytest.fixture(autouse=True)
def short_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (channel, close_watch):
        monkeypatch.setattr(module, 'CLOSE_TIMEOUT', BOUND)
    monkeypatch.setattr(lingering, 'END_TIMEOUT', BOUND)


class Sink:
    """A socket that is listened on, and read when the test says so; its sending direction is shut at once."""

    def __init__(self) -> None:
        self._server = socket.create_server((LOOPBACK, 0))
        self._server.setblocking(False)
        self.port = self._server.getsockname()[1]

    async def accept(self) -> None:
        loop = asyncio.get_running_loop()
        self._sock, _ = await loop.sock_accept(self._server)
        self._sock.shutdown(socket.SHUT_WR)

    async def read(self) -> bytes:
        loop, received = asyncio.get_running_loop(), []
        while data := await loop.sock_recv(self._sock, 1 << 20):
            received.append(data)
        return b''.join(received)

    def close(self) -> None:
        self._sock.close()
        self._server.close()


@contextlib.asynccontextmanager
async def sink() -> AsyncIterator[Sink]:
    made = Sink()
    try:
        yield made
    finally:
        made.close()


async def test_a_receiver_that_takes_a_break_gets_everything() -> None:
    """All is sent and closed while nobody reads, for many times what an unanswered close is waited for."""
    async with nothing_leaks(), sink() as target, connected(owner=Permissive) as conn:
        _, writer = await conn.open_connection(LOOPBACK, target.port)
        await target.accept()
        writer.write(DATA)
        writer.close()
        await asyncio.sleep(10 * BOUND)
        assert writer.channel.get_write_buffer_size() > 0
        assert await target.read() == DATA
        await writer.wait_closed()
        await settled(lambda: not conn._mux.channels)


async def what_the_far_end_holds(conn: Any) -> int:
    """Return how much may be written to a connection that nobody reads until all buffers are full."""
    async with sink() as target:
        _, writer = await conn.open_connection(LOOPBACK, target.port)
        await target.accept()
        writer.write(DATA)
        before = -1
        while before != (queued := writer.channel.get_write_buffer_size()):
            before = queued
            await asyncio.sleep(0.3)
        writer.channel.abort()
        await writer.wait_closed()
        return len(DATA) - before - MIB


async def test_a_receiver_behind_a_socket_takes_a_break() -> None:
    """The same where the far end holds it all: its channel has ended, and the socket has not."""
    async with nothing_leaks(), connected(owner=Permissive, **FIXED) as conn, sink() as target:
        data = DATA[: await what_the_far_end_holds(conn)]
        _, writer = await conn.open_connection(LOOPBACK, target.port)
        await target.accept()
        writer.write(data)
        writer.close()
        await settled(lambda: not conn._mux.channels)
        await asyncio.sleep(10 * BOUND)
        assert await target.read() == data


async def test_a_break_behind_a_listener() -> None:
    """The other way: what a program of the server's side sent, and is gone."""

    async def pour(reader: Any, writer: Any) -> None:
        writer.write(DATA)
        writer.write_eof()
        await reader.read()
        writer.close()

    source = await asyncio.start_server(pour, LOOPBACK, 0)
    port = source.sockets[0].getsockname()[1]
    async with nothing_leaks(), connected(owner=Permissive) as conn:
        async with conn.forward_local_port(LOOPBACK, 0, LOOPBACK, port) as listener:
            reader, writer = await asyncio.open_connection(LOOPBACK, listener.get_port(), limit=4096)
            writer.write_eof()
            await asyncio.sleep(10 * BOUND)
            assert await reader.read() == DATA
            writer.close()
    source.close()


async def test_who_never_takes_the_end_is_dropped_after_the_connection() -> None:
    async with nothing_leaks(), sink() as target:
        async with connected(owner=Permissive, **FIXED) as conn:
            data = DATA[: await what_the_far_end_holds(conn)]
            _, writer = await conn.open_connection(LOOPBACK, target.port)
            await target.accept()
            writer.write(data)
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(5 * BOUND)
        received = b''
        with contextlib.suppress(ConnectionResetError):
            received = await target.read()
        assert len(received) < len(data)


class Item:
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


async def test_what_lingers_is_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, 'MAX_LINGERING', 3)
    waiting, items = Lingering(asyncio.get_running_loop()), [Item() for _ in range(5)]
    for item in items:
        waiting.add(item)
    assert [item.closed for item in items] == [1, 1, 0, 0, 0]
    waiting.discard(items[2])
    waiting.add(Item())
    await asyncio.sleep(3 * BOUND)
    assert [item.closed for item in items] == [1, 1, 0, 0, 0], 'there is no hurry while the connection is there'


@pytest.mark.parametrize('late', [False, True])
async def test_what_lingers_is_bounded_in_time_once_the_connection_has_ended(late: bool) -> None:
    waiting, item, taken = Lingering(asyncio.get_running_loop()), Item(), Item()
    waiting.add(taken)
    if late:
        waiting.end()
    waiting.add(item)
    if not late:
        waiting.end()
    waiting.discard(taken)
    await asyncio.sleep(3 * BOUND)
    assert (item.closed, taken.closed) == (1, 0)
