"""Streams over a session channel: SSHReader, SSHWriter, and the sessions that feed them.

The bound: a reader that nobody reads holds as much as the channel's receive window was at first (2 MiB unless set);
then the channel stops taking data, and one more window at most waits in the channel. A client has two readers, output
and errors. When one is full and somebody waits for the other, what comes for the full one is dropped and its reader is
told; so unread errors cannot stall output.

A connection opens streams with `session = await chan.create(SSHClientStreamSession, command, ...)`, whose `stdin`,
`stdout` and `stderr` they are, and serves them with `chan.set_session(SSHServerStreamSession(handler))`, where the
handler is called with (stdin, stdout, stderr).
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from inspect import isawaitable
from typing import Any, AnyStr, Generic, TypeAlias, cast

from ..channel.channel import SSHChannel
from ..channel.server_channel import SSHServerChannel
from ..channel.session import SSHClientSession, SSHServerSession, SSHSession
from ..constants import EXTENDED_DATA_STDERR
from ..errors import BreakReceived, SignalReceived, TerminalSizeChanged
from ..logging import ContextLogger
from .buffer import ReceiveBuffer

StreamHandler: TypeAlias = Callable[['SSHReader[Any]', 'SSHWriter[Any]', 'SSHWriter[Any]'], Awaitable[None] | None]


class SSHReader(Generic[AnyStr]):
    """Reads what a channel receives: its data, or with `datatype` its extended data of that type."""

    def __init__(
        self, session: 'SSHStreamSession[AnyStr]', chan: SSHChannel[AnyStr], datatype: int | None = None
    ) -> None:
        self._session: SSHStreamSession[AnyStr] = session
        self._chan: SSHChannel[AnyStr] = chan
        self._datatype = datatype

    @property
    def channel(self) -> SSHChannel[AnyStr]:
        """The channel that this stream reads from."""

        return self._chan

    @property
    def logger(self) -> ContextLogger:
        """The channel's logger."""

        return self._chan.logger

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Look up what is known of the channel or its connection."""

        return self._chan.get_extra_info(name, default)

    def get_redirect_info(self) -> tuple['SSHStreamSession[AnyStr]', int | None]:
        """Return the session and datatype that this stream reads."""

        return self._session, self._datatype

    def feed_data(self, data: AnyStr) -> None:
        """Add data as if it had been received."""

        self._session.data_received(data, self._datatype)

    def feed_eof(self) -> None:
        """End the stream as if its end had been received."""

        self._session.eof_received()

    async def read(self, n: int = -1) -> AnyStr:
        """Read until the end, or with `n` what is there, at least 1 and at most `n` bytes or characters.

        An empty result is the end. An exception that was received between data is raised in its place.
        """

        return await self._session.read(self._datatype, n, exact=False)

    async def readline(self) -> AnyStr:
        """Read a line with its newline; without it if the stream ends first, or the buffer is full."""

        return await self._session.readline(self._datatype)

    async def readuntil(self, separator: object, max_separator_len: int = 0) -> AnyStr:
        """Read up to and with a separator: a string, a sequence of them, or a compiled pattern.

        A pattern is searched from the start of the data each time more comes, unless `max_separator_len` bounds it.

        Raises:
          IncompleteReadError: the stream ended, or the buffer is full; `partial` is what was read
        """

        return await self._session.readuntil(separator, self._datatype, max_separator_len)

    async def readexactly(self, n: int) -> AnyStr:
        """Read exactly `n` bytes or characters.

        Raises:
          IncompleteReadError: the stream ended; `partial` is what was read
        """

        return await self._session.read(self._datatype, n, exact=True)

    def at_eof(self) -> bool:
        """Return whether the stream ended and everything was read."""

        return self._session.at_eof(self._datatype)

    def __aiter__(self) -> AsyncIterator[AnyStr]:
        """Iterate over the lines."""

        return self._session.aiter(self._datatype)


class SSHWriter(Generic[AnyStr]):
    """Writes what a channel sends: its data, or with `datatype` its extended data of that type."""

    def __init__(
        self, session: 'SSHStreamSession[AnyStr]', chan: SSHChannel[AnyStr], datatype: int | None = None
    ) -> None:
        self._session: SSHStreamSession[AnyStr] = session
        self._chan: SSHChannel[AnyStr] = chan
        self._datatype = datatype

    @property
    def channel(self) -> SSHChannel[AnyStr]:
        """The channel that this stream writes to."""

        return self._chan

    @property
    def logger(self) -> ContextLogger:
        """The channel's logger."""

        return self._chan.logger

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Look up what is known of the channel or its connection."""

        return self._chan.get_extra_info(name, default)

    def get_redirect_info(self) -> tuple['SSHStreamSession[AnyStr]', int | None]:
        """Return the session and datatype that this stream writes."""

        return self._session, self._datatype

    def can_write_eof(self) -> bool:
        """Return whether an end of file can be written."""

        return self._chan.can_write_eof()

    def write(self, data: AnyStr) -> None:
        """Send data; see `drain` for waiting until it is on its way."""

        self._chan.write(data, self._datatype)

    def writelines(self, list_of_data: Iterable[AnyStr]) -> None:
        """Send several pieces of data."""

        self._chan.writelines(list_of_data, self._datatype)

    def write_eof(self) -> None:
        """Send an end of file behind the data."""

        self._chan.write_eof()

    def close(self) -> None:
        """Close the channel when what was written has been sent."""

        self._chan.close()

    def is_closing(self) -> bool:
        """Return whether the channel is closing or closed."""

        return self._chan.is_closing()

    async def drain(self) -> None:
        """Wait until little enough waits to be sent (see `set_write_buffer_limits` of the channel).

        Raises:
          DisconnectError: the connection went away
          BrokenPipeError: the channel closed before the data was sent
        """

        await self._session.drain(self._datatype)

    async def wait_closed(self) -> None:
        """Wait until the channel is closed."""

        await self._chan.wait_closed()


class SSHStreamSession(SSHSession[AnyStr]):
    """Keeps what a channel receives for its readers, and stops the channel when they fall behind."""

    def __init__(self) -> None:
        self._chan: SSHChannel[AnyStr]
        self._empty: AnyStr
        self._newline: AnyStr
        self._buffers: dict[int | None, ReceiveBuffer[AnyStr]] = {}
        self._limits: dict[int | None, int] = {}
        self._locks: dict[int | None, asyncio.Lock] = {}
        self._waiters: dict[int | None, asyncio.Future[None]] = {}
        self._gaps: set[int | None] = set()
        self._limit = 0
        self._drain_waiters: set[asyncio.Future[None]] = set()
        self._reading_paused = False
        self._writing_paused = False
        self._eof_received = False
        self._lost = False
        self._lost_error: Exception | None = None

    # --- the channel's calls ------------------------------------------------------------------------------------------

    def connection_made(self, chan: Any) -> None:
        """Make a buffer for each kind of data."""

        self._chan = chan
        self._limit = chan.get_recv_window()
        is_text = chan.get_encoding()[0] is not None
        self._empty = cast(AnyStr, '' if is_text else b'')
        self._newline = cast(AnyStr, '\n' if is_text else b'\n')

        for datatype in (None, *chan.get_read_datatypes()):
            self._buffers[datatype] = ReceiveBuffer()
            self._limits[datatype] = self._limit
            self._locks[datatype] = asyncio.Lock()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the readers, with an exception if there is one, and wake everyone who waits."""

        self._lost = True
        self._lost_error = None if self._eof_received else exc
        self._eof_received = True
        self._wake_readers()
        self._wake_drainers()

    def data_received(self, data: AnyStr, datatype: int | None) -> None:
        """Keep data for its reader."""

        buffer = self._buffers[datatype]

        if self._is_full(datatype) and self._somebody_starves():
            if datatype not in self._gaps:
                self._gaps.add(datatype)
                buffer.feed_exception(BufferError('Data was dropped here: nobody read it while other data was awaited'))
                self._chan.logger.warning('Dropped unread data, because other data is awaited')

            return

        self._gaps.discard(datatype)
        buffer.feed(data)
        self._wake_reader(datatype)
        self._update_pausing()

    def eof_received(self) -> bool:
        """End the readers; the sending direction stays open."""

        self._eof_received = True
        self._wake_readers()

        return True

    def pause_writing(self) -> None:
        """Let `drain` wait."""

        self._writing_paused = True

    def resume_writing(self) -> None:
        """Let `drain` return."""

        self._writing_paused = False
        self._wake_drainers()

    # --- for readers and writers --------------------------------------------------------------------------------------

    async def read(self, datatype: int | None, n: int, exact: bool) -> AnyStr:
        """Read for `SSHReader.read` and `readexactly`."""

        if exact and n < 0:
            raise ValueError(f'n must be at least 0, got {n}')

        buffer = self._buffers[datatype]

        if not n:
            return self._empty

        async with self._locks[datatype]:
            try:
                if n < 0:
                    self._limits[datatype] = 0
                elif exact and self._limit:
                    self._limits[datatype] = max(self._limit, n)

                # Until the end, an exception, or as much as is wanted.
                wanted = n if exact else 1

                while not (self._eof_received or buffer.has_exception or (n > 0 and buffer.size >= wanted)):
                    await self._wait(datatype)
            finally:
                self._limits[datatype] = self._limit

            readable = buffer.readable

            if n < 0 or readable < wanted:
                self._raise_end(buffer, readable)

            data = buffer.take(n, self._empty)
            self._after_reading()

        if exact and len(data) < n:
            raise asyncio.IncompleteReadError(_partial(data), n)

        return data

    async def readline(self, datatype: int | None) -> AnyStr:
        """Read for `SSHReader.readline`."""

        if not self._locks[datatype].locked():
            line = self._buffers[datatype].take_line(self._newline)

            if line is not None:
                self._after_reading()
                return line

        try:
            return await self.readuntil(self._newline, datatype)
        except asyncio.IncompleteReadError as exc:
            return cast(AnyStr, exc.partial)

    async def readuntil(self, separator: object, datatype: int | None, max_separator_len: int = 0) -> AnyStr:
        """Read for `SSHReader.readuntil`."""

        pattern, longest = _compile_separator(separator, max_separator_len)
        buffer = self._buffers[datatype]

        async with self._locks[datatype]:
            while True:
                end = buffer.find(pattern, longest)

                if end is not None:
                    break

                if self._eof_received or buffer.has_exception:
                    self._raise_end(buffer, buffer.readable)

                if self._eof_received or buffer.has_exception or self._is_full(datatype):
                    data = buffer.take(-1, self._empty)
                    self._after_reading()

                    raise asyncio.IncompleteReadError(_partial(data), None)

                await self._wait(datatype)

            data = buffer.take(end, self._empty)
            self._after_reading()

        return data

    async def aiter(self, datatype: int | None) -> AsyncIterator[AnyStr]:
        """Iterate over the lines."""

        while line := await self.readline(datatype):
            yield line

    def at_eof(self, datatype: int | None) -> bool:
        """Return whether the end was received and everything before it read."""

        buffer = self._buffers[datatype]

        return self._eof_received and not buffer.size and not buffer.has_exception

    async def drain(self, datatype: int | None) -> None:
        """Wait until writing goes on."""

        while self._writing_paused and not self._lost:
            waiter = asyncio.get_running_loop().create_future()
            self._drain_waiters.add(waiter)

            try:
                await waiter
            finally:
                self._drain_waiters.discard(waiter)

        if self._lost and self._lost_error:
            raise self._lost_error

        if self._lost and self._writing_paused:
            raise BrokenPipeError('The channel closed before everything was sent')

    # --- private ------------------------------------------------------------------------------------------------------

    def _reader(self, datatype: int | None) -> SSHReader[AnyStr]:
        return SSHReader(self, self._chan, datatype)

    def _writer(self, datatype: int | None) -> SSHWriter[AnyStr]:
        return SSHWriter(self, self._chan, datatype)

    def _remove_limit(self) -> None:
        """Let the readers hold as much as comes."""

        self._limit = 0
        self._limits = dict.fromkeys(self._limits, 0)
        self._update_pausing()

    def _feed_exception(self, exc: Exception, datatype: int | None = None) -> None:
        """Raise an exception in a reader, behind the data that came before it."""

        self._buffers[datatype].feed_exception(exc)
        self._wake_reader(datatype)

    def _raise_end(self, buffer: ReceiveBuffer[AnyStr], readable: int) -> None:
        """Raise what ended the data: an exception behind it if all was read, or the loss of the connection."""

        if not readable:
            buffer.raise_next()

        if self._lost_error and not buffer.has_exception:
            raise self._lost_error

    def _is_full(self, datatype: int | None) -> bool:
        limit = self._limits[datatype]

        return 0 < limit <= self._buffers[datatype].size

    def _somebody_starves(self) -> bool:
        """Whether a reader waits for data whose buffer has room."""

        return any(not waiter.done() and not self._is_full(datatype) for datatype, waiter in self._waiters.items())

    def _update_pausing(self) -> None:
        """Pause the channel while a buffer is full, unless somebody waits for other data."""

        pause = any(map(self._is_full, self._buffers)) and not self._somebody_starves()

        if pause != self._reading_paused:
            self._reading_paused = pause

            if pause:
                self._chan.pause_reading()
            else:
                self._chan.resume_reading()

    def _after_reading(self) -> None:
        if self._reading_paused:
            self._update_pausing()

    async def _wait(self, datatype: int | None) -> None:
        """Wait for more of one kind of data, an exception, or the end."""

        waiter = self._waiters[datatype] = asyncio.get_running_loop().create_future()

        try:
            if self._reading_paused:
                self._update_pausing()

            await waiter
        finally:
            del self._waiters[datatype]

    def _wake_reader(self, datatype: int | None) -> None:
        waiter = self._waiters.get(datatype)

        if waiter and not waiter.done():
            waiter.set_result(None)

    def _wake_readers(self) -> None:
        for datatype in self._waiters:
            self._wake_reader(datatype)

    def _wake_drainers(self) -> None:
        for waiter in self._drain_waiters:
            if not waiter.done():
                waiter.set_result(None)


class SSHClientStreamSession(SSHStreamSession[AnyStr], SSHClientSession[AnyStr]):
    """The session behind the streams that a client opens."""

    @property
    def stdin(self) -> SSHWriter[AnyStr]:
        """The command's standard input."""

        return self._writer(None)

    @property
    def stdout(self) -> SSHReader[AnyStr]:
        """The command's standard output."""

        return self._reader(None)

    @property
    def stderr(self) -> SSHReader[AnyStr]:
        """The command's error output."""

        return self._reader(EXTENDED_DATA_STDERR)


class SSHServerStreamSession(SSHStreamSession[AnyStr], SSHServerSession[AnyStr]):
    """Serves a client's session by calling a handler with streams (stdin, stdout, stderr).

    The handler may be a coroutine. Breaks, signals and new terminal sizes are raised in its stdin. It ends the session
    by closing the channel, as with `stdout.channel.exit(0)`; if it raises, the exit status is 1.
    """

    def __init__(self, session_factory: StreamHandler | None) -> None:
        super().__init__()

        self._session_factory = session_factory

    def shell_requested(self) -> bool:
        """Grant a shell, if there is a handler."""

        return bool(self._session_factory)

    def exec_requested(self, command: str) -> bool:
        """Grant a command, if there is a handler."""

        return bool(self._session_factory)

    def subsystem_requested(self, subsystem: str) -> bool:
        """Grant a subsystem, if there is a handler."""

        return bool(self._session_factory)

    @property
    def stdin(self) -> SSHReader[AnyStr]:
        """What the client sends."""

        return self._reader(None)

    @property
    def stdout(self) -> SSHWriter[AnyStr]:
        """What the client receives as standard output."""

        return self._writer(None)

    @property
    def stderr(self) -> SSHWriter[AnyStr]:
        """What the client receives as error output."""

        return self._writer(EXTENDED_DATA_STDERR)

    def session_started(self) -> None:
        """Call the handler."""

        if self._session_factory:
            self._run(self._session_factory, self.stdin, self.stdout, self.stderr)

    def exception_received(self, exc: Exception) -> None:
        """Raise an exception in stdin."""

        self._feed_exception(exc)

    def break_received(self, msec: int) -> bool:
        """Raise `BreakReceived` in stdin."""

        self.exception_received(BreakReceived(msec))

        return True

    def signal_received(self, signal: str) -> None:
        """Raise `SignalReceived` in stdin."""

        self.exception_received(SignalReceived(signal))

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        """Raise `TerminalSizeChanged` in stdin."""

        self.exception_received(TerminalSizeChanged(width, height, pixwidth, pixheight))

    def _run(self, handler: Callable[..., Awaitable[None] | None], *args: object) -> None:
        """Call a handler, as a task of the connection if it is a coroutine."""

        try:
            result = handler(*args)
        except Exception as exc:
            self._handler_failed(exc)
            return

        if isawaitable(result):
            self._chan.get_connection().create_task(self._await(result))

    async def _await(self, awaitable: Awaitable[None]) -> None:
        try:
            await awaitable
        except Exception as exc:
            self._handler_failed(exc)

    def _handler_failed(self, exc: Exception) -> None:
        if self._lost:
            self._chan.logger.debug('The handler ended after its channel closed: %r', exc)
        else:
            self._chan.logger.error('Uncaught exception in a session handler', exc_info=exc)
            cast('SSHServerChannel[AnyStr]', self._chan).exit(1)


def _partial(data: Any) -> bytes:
    # The class of asyncio says bytes, but carries text as well.
    return cast(bytes, data)


def _compile_separator(separator: object, max_separator_len: int) -> tuple[re.Pattern[Any], int]:
    """Make a pattern of what `readuntil` takes, and the length of its longest match, 0 if that is not known."""

    if isinstance(separator, re.Pattern):
        return separator, max_separator_len

    separators: list[Any] = [separator] if isinstance(separator, str | bytes) else list(cast(Iterable[Any], separator))

    if not separators or not all(separators):
        raise ValueError('separator must not be empty')

    bar: Any = '|' if isinstance(separators[0], str) else b'|'

    return re.compile(bar.join(re.escape(value) for value in separators)), max(map(len, separators))
