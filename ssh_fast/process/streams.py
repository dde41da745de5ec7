"""Streams over a session channel: SSHReader, SSHWriter, and the sessions of client and server that have them.

A connection opens streams with `session = await chan.create(SSHClientStreamSession, command, ...)`, whose `stdin`,
`stdout` and `stderr` they are, and serves them with `chan.set_session(SSHServerStreamSession(handler))`, where the
handler is called with (stdin, stdout, stderr). `stream_session` says how much they hold.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from inspect import isawaitable
from typing import Any, AnyStr, Generic, TypeAlias, cast

from ..channel.channel import SSHChannel
from ..channel.server_channel import SSHServerChannel
from ..channel.session import SSHClientSession, SSHServerSession
from ..constants import EXTENDED_DATA_STDERR
from ..errors import BreakReceived, SignalReceived, TerminalSizeChanged
from ..logging import ContextLogger
from .buffer import SoftEOF
from .stream_session import SSHStreamSession

StreamHandler: TypeAlias = Callable[['SSHReader[Any]', 'SSHWriter[Any]', 'SSHWriter[Any]'], Awaitable[None] | None]


class SSHReader(Generic[AnyStr]):
    """Reads what a channel receives: its data, or with `datatype` its extended data of that type.

    Memory is bounded: a reader holds as many bytes or characters as the channel's first receive window has bytes (the
    option `window`, 2 MiB unless set) before the channel stops taking data; what the peer's window still allows, at
    most `max_window` bytes, then waits in the channel. Only `read()` to the end, and `readexactly(n)` of more, hold
    what they return.
    """

    def __init__(
        self, session: SSHStreamSession[AnyStr], chan: SSHChannel[AnyStr], datatype: int | None = None
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

    def get_redirect_info(self) -> tuple[SSHStreamSession[AnyStr], int | None]:
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

        line = self._session.take_line(self._datatype)

        if line is None:
            line = await self._session.readline(self._datatype)

        return line

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
        self, session: SSHStreamSession[AnyStr], chan: SSHChannel[AnyStr], datatype: int | None = None
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

    def get_redirect_info(self) -> tuple[SSHStreamSession[AnyStr], int | None]:
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


class SSHClientStreamSession(SSHStreamSession[AnyStr], SSHClientSession[AnyStr]):
    """The session behind the streams that a client opens."""

    @property
    def stdin(self) -> SSHWriter[AnyStr]:
        """The command's standard input."""

        return SSHWriter(self, self._chan)

    @property
    def stdout(self) -> SSHReader[AnyStr]:
        """The command's standard output."""

        return SSHReader(self, self._chan)

    @property
    def stderr(self) -> SSHReader[AnyStr]:
        """The command's error output."""

        return SSHReader(self, self._chan, EXTENDED_DATA_STDERR)


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

        return SSHReader(self, self._chan)

    @property
    def stdout(self) -> SSHWriter[AnyStr]:
        """What the client receives as standard output."""

        return SSHWriter(self, self._chan)

    @property
    def stderr(self) -> SSHWriter[AnyStr]:
        """What the client receives as error output."""

        return SSHWriter(self, self._chan, EXTENDED_DATA_STDERR)

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

    def soft_eof_received(self) -> None:
        """End what reads stdin as at the end of file, once; input may go on."""

        self._feed_exception(SoftEOF())

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
