"""The tasks that carry data between a channel and what one of its streams is redirected to.

A source is not read while more than the channel's high-water mark waits to be sent; a target is not given more before
it has taken what it got. Between a plain file and a channel of bytes the compiled lanes do the carrying, and the task
only waits for the end.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from .._file_lanes import FileFeed, FileSink
from ..errors import BreakReceived, SignalReceived, TerminalSizeChanged
from .redirect import Converter, Source, Target
from .redirect_files import PlainFile
from .redirect_open import send_exception

# What a server's session may find between the data.
RECEIVED_EXCEPTIONS = (BreakReceived, SignalReceived, TerminalSizeChanged)


class PumpSession(Protocol):
    """The session whose streams are redirected."""

    @property
    def channel(self) -> Any:
        """The channel of the session."""

    def take_received(self, datatype: int | None, before_waiting: Callable[[], None]) -> Awaitable[Any]:
        """Wait for data that was received, and take it; empty at the end."""

    def wait_for_room(self, datatype: int | None) -> Awaitable[None]:
        """Wait until little enough waits to be sent."""

    def pump_ended(self, pump: Any, failure: Exception | None) -> None:
        """Take note that nothing more is carried."""


class _Pump:
    """A task that carries data until the end, a failure, or `stop`, and then lets go of what it used."""

    def __init__(self, session: PumpSession, end: Source | Target, datatype: int | None) -> None:
        self.datatype = datatype
        self.stopped = False
        self._session = session
        self._end = end
        self._started = False
        self._busy = False
        self.task: asyncio.Task[None]

    def start(self) -> 'asyncio.Task[None]':
        """Begin to carry data."""

        self.task = asyncio.get_running_loop().create_task(self._run())

        return self.task

    def stop(self, at_once: bool = True) -> None:
        """Carry nothing more; if not `at_once`, behind what is just being written."""

        self.stopped = True

        if self._started and (at_once or not self._busy):
            self.task.cancel()

    async def _run(self) -> None:
        self._started = True
        failure: Exception | None = None
        cancelled: BaseException | None = None

        try:
            if not self.stopped:
                await self._carry()
        except asyncio.CancelledError as exc:
            cancelled = exc
        except Exception as exc:
            failure = exc

        try:
            await self._end.close()
        except Exception as exc:
            failure = failure or exc

        self._session.pump_ended(self, failure)

        if cancelled and not self.stopped:
            raise cancelled

    async def _carry(self) -> None:
        raise NotImplementedError


class Feed(_Pump):
    """Feeds a channel from a source."""

    def __init__(self, session: PumpSession, source: Source, datatype: int | None, send_eof: bool) -> None:
        super().__init__(session, source, datatype)

        self.send_eof = send_eof
        self._source = source

    def feed_exception(self, exc: Exception) -> bool:
        """Send the signal, break or size of a terminal that the source received."""

        return send_exception(self._session.channel, exc)

    async def _carry(self) -> None:
        chan = self._session.channel
        encoding, errors = chan.get_encoding()

        if encoding is None and self.datatype is None and isinstance(self._source, PlainFile):
            await self._carry_file(self._source.fd)
            return

        convert = Converter(encoding is not None, self._source.encoding or encoding, errors)

        while True:
            try:
                data = await self._source.read()
            except RECEIVED_EXCEPTIONS as exc:
                self.feed_exception(exc)
                continue

            piece = convert(data) if data else convert.finish()

            try:
                if piece:
                    chan.write(piece, self.datatype)
            except BrokenPipeError:
                # We have closed the channel, or written an end of file, meanwhile.
                break

            if not data:
                break

            await self._session.wait_for_room(self.datatype)

    async def _carry_file(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def ended(exc: OSError | None) -> None:
            loop.call_soon(_settle, done, exc)

        lane = FileFeed(self._session.channel.flow, fd, os.lseek(fd, 0, os.SEEK_CUR), ended)
        lane.start()

        try:
            await done
        finally:
            lane.stop()
            os.lseek(fd, lane.position, os.SEEK_SET)


class Drain(_Pump):
    """Drains what a channel receives into a target."""

    def __init__(self, session: PumpSession, target: Target, datatype: int | None, use_lane: bool) -> None:
        super().__init__(session, target, datatype)

        self._target = target
        self._use_lane = use_lane
        self._in_lane = False

    def feed_exception(self, exc: Exception) -> bool:
        """Pass a signal, a break or a terminal's size on to the target."""

        return self._target.feed_exception(exc)

    def leave_lane(self) -> None:
        """Let all further data pass through the session's buffer, where other data can join them."""

        self._use_lane = False

        if self._in_lane:
            self._in_lane = False
            self._session.channel.flow.set_sink(None)

    def _enter_lane(self) -> None:
        if self._use_lane and not self._in_lane and isinstance(self._target, PlainFile):
            self._in_lane = True
            self._session.channel.set_sink(FileSink(self._target.fd))

    async def _carry(self) -> None:
        encoding, errors = self._session.channel.get_encoding()
        self._use_lane = self._use_lane and encoding is None and self.datatype is None
        convert = Converter(self._target.takes_text, self._target.encoding or encoding, errors)

        try:
            while not self.stopped:
                try:
                    data = await self._session.take_received(self.datatype, self._enter_lane)
                except RECEIVED_EXCEPTIONS as exc:
                    self.feed_exception(exc)
                    continue

                piece = convert(data) if data else convert.finish()

                if piece:
                    self._busy = True
                    await self._target.write(piece)
                    self._busy = False

                if not data:
                    break
        finally:
            self.leave_lane()


def _settle(done: 'asyncio.Future[None]', exc: OSError | None) -> None:
    if done.done():
        return

    if exc:
        done.set_exception(exc)
    else:
        done.set_result(None)
