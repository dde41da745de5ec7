"""A session whose streams can be redirected, before it starts or in mid-flight.

The bound: what is received for a target that is slow fills the stream's buffer up to the receive window that the
channel began with (2 MiB unless set), then the channel stops taking data, and one more window at most waits in the
channel. What is read from a source waits in the channel up to its high-water mark (64 KiB unless set) and one piece of
`bufsize`, or one block of 128 KiB of a plain file.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, AnyStr, cast

from ..constants import DEVNULL, PIPE, STDOUT
from .buffer import SoftEOF
from .redirect import Source, Target
from .redirect_open import Opener, ReaderSource
from .redirect_pumps import Drain, Feed
from .stream_session import SSHStreamSession
from .streams import SSHReader, SSHWriter

Wanted = Mapping[int | None, tuple[str, Any]]


@dataclass
class Redirections:
    """The redirections of one call, opened: by the type of data PIPE, DEVNULL, STDOUT, a source or a target."""

    opener: Opener
    sources: dict[int | None, int | Source]
    targets: dict[int | None, int | Target]
    send_eof: bool

    async def abandon(self) -> None:
        """Undo: there is no process to redirect."""

        await self.opener.abandon()


async def open_redirections(
    sources: Wanted, targets: Wanted, bufsize: int, send_eof: bool, recv_eof: bool
) -> Redirections:
    """Open what streams are to be redirected to, each given with its argument's name; None leaves a stream alone."""

    opener = Opener(bufsize, recv_eof)
    opened = Redirections(opener, {}, {}, send_eof)

    try:
        for datatype, (name, value) in sources.items():
            if value is not None:
                opened.sources[datatype] = _open(name, value, opener.source)

        for datatype, (name, value) in targets.items():
            if value is not None:
                opened.targets[datatype] = _open(name, value, opener.target)
    except BaseException:
        await opener.abandon()
        raise

    return opened


def _open(name: str, value: Any, open_value: Callable[[str, Any], Any]) -> Any:
    if type(value) is int and (value in (PIPE, DEVNULL) or (value == STDOUT and name == 'stderr')):
        return value

    if isinstance(value, RedirectSession):
        value = value.redirect_reader if name == 'stdin' else value.redirect_writer

    return open_value(name, value)


class _SessionSource:
    """What another process receives, taken from where its readers would find it."""

    encoding: str | None = None

    def __init__(self, session: 'RedirectSession[Any]', datatype: int | None) -> None:
        self.session = session
        self.datatype = datatype

    async def read(self) -> Any:
        """Return what was received, as soon as there is something."""

        return await self.session.take_received(self.datatype)

    async def close(self) -> None:
        """Leave the other process as it is: `Feed` has given it back."""


class RedirectSession(SSHStreamSession[AnyStr]):
    """A session whose streams can be redirected."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)

        self._feeds: dict[int | None, Feed] = {}
        # Who takes what is received: a drain of our own, or a feed of another process.
        self._takers: dict[int | None, Drain | Feed] = {}
        self._given: dict[Feed, tuple[RedirectSession[Any], int | None]] = {}
        self._dropped: set[int | None] = set()
        self._merged: set[int | None] = set()
        self._redirect_tasks: set[asyncio.Task[None]] = set()
        self._eof_due = False

    @property
    def channel(self) -> Any:
        """The channel that the process runs on."""

        return self._chan

    @property
    def redirect_reader(self) -> SSHReader[AnyStr]:
        """The stream that is meant if this session is named as a source."""

        return SSHReader(self, self._chan)

    @property
    def redirect_writer(self) -> SSHWriter[AnyStr]:
        """The stream that is meant if this session is named as a target."""

        return SSHWriter(self, self._chan)

    # --- beginning and ending -----------------------------------------------------------------------------------------

    async def attach_redirections(self, opened: Redirections) -> None:
        """Redirect the streams to what was opened, in place of what they were redirected to."""

        for datatype, source in opened.sources.items():
            await self._clear_source(datatype)
            self._set_source(datatype, source, opened.send_eof)

        for datatype, target in opened.targets.items():
            await self._clear_target(datatype)
            self._set_target(datatype, target)

    async def _clear_source(self, datatype: int | None) -> None:
        if feed := self._feeds.get(datatype):
            feed.stop()
            await asyncio.wait([feed.task])

    def _set_source(self, datatype: int | None, source: int | Source, send_eof: bool) -> None:
        if source == PIPE:
            return

        if source == DEVNULL:
            if send_eof and datatype is None:
                self._eof_due = True
                self._send_due_eof()

            return

        assert not isinstance(source, int)
        given: tuple[RedirectSession[Any], int | None] | None = None

        if isinstance(source, ReaderSource) and isinstance(source.reader, SSHReader):
            session, other_datatype = source.reader.get_redirect_info()

            if isinstance(session, RedirectSession):
                given = (session, other_datatype)
                source = _SessionSource(session, other_datatype)

        feed = Feed(self, source, datatype, send_eof)
        self._feeds[datatype] = feed

        if given:
            self._given[feed] = given
            given[0].set_taker(given[1], feed)

        self._start(feed)

    async def _clear_target(self, datatype: int | None) -> None:
        self._dropped.discard(datatype)
        self._merged.discard(datatype)

        if taker := self._takers.get(datatype):
            taker.stop(at_once=False)
            await asyncio.wait([taker.task])

    def _set_target(self, datatype: int | None, target: int | Target) -> None:
        if target == PIPE:
            return

        if target == DEVNULL:
            self._drop_received(datatype)
        elif target == STDOUT:
            self._merge_received(datatype)
        else:
            assert not isinstance(target, int)
            drain = Drain(self, target, datatype, use_lane=not self._merged)
            self.set_taker(datatype, drain)
            self._start(drain)

    def set_taker(self, datatype: int | None, taker: Drain | Feed) -> None:
        """Let all data of one kind go to `taker`, with the limit that keeps memory bounded."""

        if old := self._takers.get(datatype):
            old.stop()

        self._takers[datatype] = taker
        self._limits[datatype] = self._chan.get_recv_window()
        self._update_pausing()

    def clear_taker(self, datatype: int | None, taker: Drain | Feed) -> None:
        """Let data of one kind go to the readers again, if nobody else has it by now."""

        if self._takers.get(datatype) is taker:
            del self._takers[datatype]
            self._limits[datatype] = self._limit
            self._update_pausing()

    def _drop_received(self, datatype: int | None) -> None:
        self._dropped.add(datatype)
        self._buffers[datatype].take(-1, self._empty)
        self._after_reading()

    def _merge_received(self, datatype: int | None) -> None:
        self._merged.add(datatype)

        if isinstance(taker := self._takers.get(None), Drain):
            taker.leave_lane()

        if data := self._buffers[datatype].take(-1, self._empty):
            self.data_received(data, datatype)

    def _start(self, pump: Drain | Feed) -> None:
        task = pump.start()
        self._redirect_tasks.add(task)
        task.add_done_callback(self._redirect_tasks.discard)

    def stop_redirections(self) -> None:
        """Carry nothing more, in either direction."""

        for pump in (*self._feeds.values(), *self._takers.values()):
            pump.stop()

    async def wait_for_redirections(self) -> None:
        """Wait until all that was received is written, and every source and target let go of."""

        while self._redirect_tasks:
            await asyncio.wait(self._redirect_tasks)

    # --- called by the pumps ------------------------------------------------------------------------------------------

    async def take_received(
        self, datatype: int | None, before_waiting: Callable[[], None] = lambda: None
    ) -> AnyStr:
        """Wait for data that was received, and take it; empty at the end.

        Raises:
          DisconnectError: the connection went away before the end
        """

        buffer = self._buffers[datatype]

        async with self._locks[datatype]:
            while self._nothing_to_take(datatype):
                before_waiting()

                # Preparing may have shown that there is no more to come.
                if self._nothing_to_take(datatype):
                    await self._wait(datatype)

            if not buffer.readable:
                self._raise_end(buffer, 0)

            data = buffer.take(-1, self._empty)

            if not data:
                buffer.skip_soft_eof()

            self._after_reading()

        return data

    def _nothing_to_take(self, datatype: int | None) -> bool:
        buffer = self._buffers[datatype]

        return not (buffer.size or buffer.has_exception or self._eof_received)

    async def wait_for_room(self, datatype: int | None) -> None:
        """Wait until little enough waits to be sent."""

        await super().drain(datatype)

    def pump_ended(self, pump: Drain | Feed, failure: Exception | None) -> None:
        """Take note that a redirection ended, or failed."""

        if isinstance(pump, Drain):
            self.clear_taker(pump.datatype, pump)
        else:
            if self._feeds.get(pump.datatype) is pump:
                del self._feeds[pump.datatype]

            if given := self._given.pop(pump, None):
                given[0].clear_taker(given[1], pump)

            self._eof_due |= pump.send_eof and pump.datatype is None and not pump.stopped and not failure

        if failure:
            self._redirection_failed(pump, failure)
        else:
            self._send_due_eof()

    def _send_due_eof(self) -> None:
        if self._eof_due and not self._feeds and not self._lost:
            self._eof_due = False
            self._chan.write_eof()

    def _redirection_failed(self, pump: Drain | Feed, exc: Exception) -> None:
        raise NotImplementedError

    # --- what a stream session does, but for streams that are redirected ----------------------------------------------

    def data_received(self, data: AnyStr, datatype: int | None) -> None:
        """Keep data for who takes it."""

        if datatype in self._merged:
            datatype = None

        if datatype not in self._dropped:
            super().data_received(cast(Any, data), datatype)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the sources; what was received still goes to its targets."""

        super().connection_lost(exc)
        self._stop_feeds()

    def peer_closed(self) -> None:
        """End the sources, although a target is still to take what was received."""

        self._stop_feeds()
        super().peer_closed()

    def _stop_feeds(self) -> None:
        for feed in list(self._feeds.values()):
            feed.stop()

    async def drain(self, datatype: int | None) -> None:
        """Wait for the end of what the stream is fed from, and until it is on its way."""

        while feed := self._feeds.get(datatype):
            await asyncio.wait([feed.task])

        await super().drain(datatype)

    def _feed_exception(self, exc: Exception, datatype: int | None = None) -> None:
        taker = self._takers.get(datatype)

        if not taker:
            super()._feed_exception(exc, datatype)
        elif isinstance(exc, SoftEOF):
            # It ends the data for the target, in their order.
            super()._feed_exception(exc, datatype)
        elif not taker.feed_exception(exc):
            self._chan.logger.debug('Dropped for a redirected stream: %r', exc)

    def _somebody_starves(self) -> bool:
        # Data for a target is never dropped: everything waits for it.
        return not any(map(self._is_full, self._takers)) and super()._somebody_starves()

    def _remove_limit(self) -> None:
        taken = {datatype: self._limits[datatype] for datatype in self._takers}
        super()._remove_limit()
        self._limits.update(taken)
        self._update_pausing()
