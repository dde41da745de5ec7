"""Two muxes joined in memory, through real readers, writers and flows: no sockets, no transport."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine
from inspect import isawaitable
from typing import Any

from ssh_fast._packet import PacketReader, PacketWriter
from ssh_fast.channel.client_channel import SSHClientChannel
from ssh_fast.channel.mux import Mux
from ssh_fast.channel.server_channel import SSHServerChannel
from ssh_fast.channel.session import SSHClientSession, SSHServerSession
from ssh_fast.errors import ChannelOpenError, DisconnectError
from ssh_fast.logging import ContextLogger
from ssh_fast.wire import Cursor

WINDOW = 2 << 20
PACKET = 32 << 10


class End:
    """One connection's worth of host, reader, writer and mux; it remembers every message that its mux got."""

    def __init__(self, wake: Callable[[], object], **limits: int) -> None:
        self.reader = PacketReader(self)
        self.reader.identified = True
        self.reader.express = True
        self.writer = PacketWriter(wake)
        self.mux = Mux(self, self.reader, self.writer, self, **limits)
        self.logger = ContextLogger('test')
        self.received: list[bytes] = []
        self.sent: list[bytes] = []
        self.unknown: list[int] = []
        self.error: Exception | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.open_requested: Callable[[bytes, Cursor], Any] = self._refuse_open
        self.global_requested: Callable[[bytes, Cursor, bool], Any] = lambda name, cursor, want_reply: False

    @staticmethod
    def _refuse_open(channel_type: bytes, cursor: Cursor) -> Any:
        raise ChannelOpenError(3, f'Unknown channel type {channel_type!r}')

    # the transport's and the connection's part

    def send_message(self, payload: bytes) -> None:
        self.sent.append(payload)
        self.writer.send_packet(payload)

    def packet_received(self, payload: bytes, sequence: int) -> None:
        self.received.append(payload)

        if not self.mux.message_received(payload[0], payload, sequence):
            self.unknown.append(payload[0])

    def channel_open_requested(self, channel_type: bytes, cursor: Cursor) -> Any:
        return self.open_requested(channel_type, cursor)

    def global_request_received(self, name: bytes, cursor: Cursor, want_reply: bool) -> Any:
        return self.global_requested(name, cursor, want_reply)

    def create_task(self, coro: Coroutine[Any, Any, None]) -> object:
        task = asyncio.get_running_loop().create_task(coro)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

        return task

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {'username': 'user'}.get(name, default)

    def fail(self, exc: DisconnectError) -> None:
        self.error = exc
        self.mux.connection_lost(exc)

    def types(self) -> list[int]:
        return [payload[0] for payload in self.received]


class Pair:
    """A client's end and a server's end; `run` moves bytes between them until nothing moves."""

    def __init__(self, *, cut: int = 0, **limits: int) -> None:
        self.client = End(self._wake, **limits)
        self.server = End(self._wake, **limits)
        self.cut = cut
        self._running = False
        self._scheduled = False
        self.held = False       # let nothing through

    def _wake(self) -> None:
        if not self._scheduled:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return

            self._scheduled = True
            loop.call_soon(self._scheduled_run)

    def _scheduled_run(self) -> None:
        self._scheduled = False
        self.run()

    def run(self) -> None:
        if self._running or self.held:
            return

        self._running = True

        try:
            while self._move(self.client, self.server) | self._move(self.server, self.client):
                pass
        finally:
            self._running = False

    def _move(self, source: End, target: End) -> bool:
        chunk = source.writer.take_chunk()

        if chunk is None:
            return False

        data = bytes(chunk)
        del chunk

        if target.error:
            return True

        try:
            for start in range(0, len(data), self.cut or len(data)):
                target.reader.feed(data[start : start + (self.cut or len(data))])
        except DisconnectError as exc:
            target.fail(exc)

        return True

    def lose(self, exc: Exception | None) -> None:
        """Let the connection go away on both ends."""

        self.held = True

        for end in (self.client, self.server):
            end.error = end.error or exc
            end.mux.connection_lost(exc)


class ClientSession(SSHClientSession[Any]):
    """A session that writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.data: list[Any] = []
        self.errors: list[Any] = []

    def connection_made(self, chan: Any) -> None:
        self.chan = chan
        self.calls.append('made')

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append(('lost', exc))

    def session_started(self) -> None:
        self.calls.append('started')

    def data_received(self, data: Any, datatype: int | None) -> None:
        if not self.calls or self.calls[-1] != 'data':
            self.calls.append('data')

        (self.errors if datatype else self.data).append(data)

    def eof_received(self) -> bool:
        self.calls.append('eof')
        return True

    def exit_status_received(self, status: int) -> None:
        self.calls.append(('status', status))

    def exit_signal_received(self, *args: Any) -> None:
        self.calls.append(('signal', *args))

    def pause_writing(self) -> None:
        self.calls.append('pause')

    def resume_writing(self) -> None:
        self.calls.append('resume')


class ServerSession(SSHServerSession[Any]):
    """A server's session that grants everything and writes down what it is told; `answers` replaces an answer."""

    def __init__(self, **answers: Any) -> None:
        self.calls: list[Any] = []
        self.data: list[Any] = []
        self.answers = answers
        self.chan: Any = None

    def _answer(self, name: str, *args: Any) -> Any:
        self.calls.append((name, *args))
        answer = self.answers.get(name, True)

        return answer() if callable(answer) else answer

    def connection_made(self, chan: Any) -> None:
        self.chan = chan
        self.calls.append('made')

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append(('lost', exc))

    def session_started(self) -> None:
        self.calls.append('started')

        if 'started' in self.answers:
            self.answers['started'](self.chan)

    def data_received(self, data: Any, datatype: int | None) -> None:
        self.calls.append('data')
        self.data.append(data)

        if 'data' in self.answers:
            self.answers['data'](data)

    def eof_received(self) -> bool:
        self.calls.append('eof')
        return bool(self.answers.get('eof', True))

    def pty_requested(self, *args: Any) -> Any:
        return self._answer('pty', *args)

    def shell_requested(self) -> Any:
        return self._answer('shell')

    def exec_requested(self, command: str) -> Any:
        return self._answer('exec', command)

    def subsystem_requested(self, subsystem: str) -> Any:
        return self._answer('subsystem', subsystem)

    def break_received(self, msec: int) -> Any:
        return self._answer('break', msec)

    def signal_received(self, signal: str) -> None:
        self.calls.append(('signal', signal))

    def terminal_size_changed(self, *size: int) -> None:
        self.calls.append(('size', *size))

    def soft_eof_received(self) -> None:
        self.calls.append('soft eof')


def serve(
    pair: Pair,
    session: SSHServerSession[Any] | Callable[[], SSHServerSession[Any]],
    encoding: str | None = None,
    window: int = WINDOW,
    max_packet: int = PACKET,
    **options: Any,
) -> list[SSHServerChannel[Any]]:
    """Let the server's end accept sessions; returns the list that its channels go to."""

    channels: list[SSHServerChannel[Any]] = []

    def open_requested(channel_type: bytes, cursor: Cursor) -> SSHServerChannel[Any]:
        cursor.check_end()
        channel = SSHServerChannel(
            pair.server.mux, asyncio.get_running_loop(), encoding, 'strict', window, max_packet, window, **options
        )
        channel.set_session(session if isinstance(session, SSHServerSession) else session())
        channels.append(channel)

        return channel

    pair.server.open_requested = open_requested

    return channels


def client_channel(
    pair: Pair, encoding: str | None = None, window: int = WINDOW, max_packet: int = PACKET
) -> SSHClientChannel[Any]:
    return SSHClientChannel(
        pair.client.mux, asyncio.get_running_loop(), encoding, 'strict', window, max_packet, window
    )


async def settle(turns: int = 20) -> None:
    """Let everything that is ready to run do so."""

    for _ in range(turns):
        await asyncio.sleep(0)


async def maybe_await(value: Any) -> Any:
    return await value if isawaitable(value) else value


def live_objects() -> int:
    gc.collect()

    return len(gc.get_objects())


async def later(value: Any, turns: int = 3) -> Any:
    await settle(turns)

    if isinstance(value, Exception):
        raise value

    return value


AnyAwaitable = Awaitable[Any]
