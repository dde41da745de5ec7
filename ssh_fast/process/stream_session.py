"""What lies behind the streams of a session channel: it keeps what was received for the readers, and stops the channel.

The bound: a reader that nobody reads holds as much as the channel's receive window was at first (2 MiB unless set);
then the channel stops taking data, and one more window at most waits in the channel. A client has two readers, output
and errors. When one is full and somebody waits for the other, what comes for the full one is dropped and its reader is
told; so unread errors cannot stall output.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from functools import lru_cache
from typing import Any, AnyStr, cast

from ..channel.channel import SSHChannel
from ..channel.session import SSHSession
from ..errors import ConnectionLost
from .buffer import ReceiveBuffer


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
        """End the readers and wake everyone who waits; an end that the peer did not close is an exception."""

        if not exc and not self._chan.closed_by_peer:
            exc = ConnectionLost('The connection was closed')

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

    def peer_closed(self) -> None:
        """Let `drain` raise: the peer has closed, although not all that it sent was read yet."""

        self._wake_drainers()

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

            if n < 0 or len(data) < wanted:
                buffer.skip_soft_eof()

            self._after_reading()

        if exact and len(data) < n:
            raise asyncio.IncompleteReadError(_partial(data), n)

        return data

    def take_line(self, datatype: int | None) -> AnyStr | None:
        """Take a line if a whole one is there, and nobody who came before waits for it; else use `readline`."""

        if self._locks[datatype].locked():
            return None

        line = self._buffers[datatype].take_line(self._newline)

        if self._reading_paused and line is not None:
            self._update_pausing()

        return line

    async def readline(self, datatype: int | None) -> AnyStr:
        """Read for `SSHReader.readline`."""

        try:
            return await self.readuntil(self._newline, datatype)
        except asyncio.IncompleteReadError as exc:
            partial: Any = exc.partial

            return cast(AnyStr, partial)

    async def readuntil(self, separator: object, datatype: int | None, max_separator_len: int = 0) -> AnyStr:
        """Read for `SSHReader.readuntil`."""

        pattern, longest = _compile_separator(separator, max_separator_len, type(self._empty))
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
                    buffer.skip_soft_eof()
                    self._after_reading()

                    raise asyncio.IncompleteReadError(_partial(data), None)

                await self._wait(datatype)

            data = buffer.take(end, self._empty)
            self._after_reading()

        return data

    async def aiter(self, datatype: int | None) -> AsyncIterator[AnyStr]:
        """Iterate over the lines."""

        while True:
            line = self.take_line(datatype)

            if line is None:
                line = await self.readline(datatype)

                if not line:
                    return

            yield line

    def at_eof(self, datatype: int | None) -> bool:
        """Return whether the end was received and everything before it read."""

        buffer = self._buffers[datatype]

        return self._eof_received and not buffer.size and not buffer.has_exception

    async def drain(self, datatype: int | None) -> None:
        """Wait until writing goes on."""

        while self._writing_paused and not self._lost and not self._chan.closed_by_peer:
            waiter = self._chan.get_loop().create_future()
            self._drain_waiters.add(waiter)

            try:
                await waiter
            finally:
                self._drain_waiters.discard(waiter)

        if self._lost and self._lost_error:
            raise self._lost_error

        if self._writing_paused:
            raise BrokenPipeError('The channel closed before everything was sent')

    # --- private ------------------------------------------------------------------------------------------------------

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

        if not readable and not buffer.at_soft_eof:
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

        waiter = self._waiters[datatype] = self._chan.get_loop().create_future()

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


def _partial(data: Any) -> Any:
    # asyncio declares the partial data of its error as bytes; it is text on a channel with an encoding.
    return data


@lru_cache(maxsize=64)
def _pattern_of(separators: tuple[Any, ...]) -> re.Pattern[Any]:
    bar: Any = '|' if isinstance(separators[0], str) else b'|'

    return re.compile(bar.join(map(re.escape, separators)))


def _compile_separator(separator: object, max_separator_len: int, kind: type) -> tuple[re.Pattern[Any], int]:
    """Make a pattern of what `readuntil` takes, and the length of its longest match, 0 if that is not known."""

    if max_separator_len < 0:
        raise ValueError(f'max_separator_len must be at least 0, got {max_separator_len}')

    if isinstance(separator, re.Pattern):
        if not isinstance(separator.pattern, kind):
            raise TypeError(f'separator must be a pattern of {kind.__name__} on this stream')

        return separator, max_separator_len

    separators = (separator,) if isinstance(separator, str | bytes) else tuple(cast(Iterable[Any], separator))

    if not all(isinstance(value, kind) for value in separators):
        raise TypeError(f'separator must be {kind.__name__}, several of them, or a pattern, on this stream')

    if not separators or not all(separators):
        raise ValueError('separator must not be empty')

    return _pattern_of(separators), max(map(len, separators))
