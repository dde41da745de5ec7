"""Uploads of large files by several sessions of one connection, where the window of each is what it waits for.

OpenSSH's server opens a window of 2 MiB and no more, whatever the link: with 100 ms between the ends that is 20 MB/s.
How fast a first piece gets through tells whether the window was the limit; the sessions that are opened then stay for
the files that follow. Servers that are not OpenSSH's may make something else of a file that is written by several
handles.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from .. import constants as c
from .._sftp_codec import WritePipeline
from ..errors import Error
from ..wire import encode_string, encode_uint32
from .attrs import SFTPAttrs
from .remote import write
from .requests import SFTPClientSession
from .transfer import Progress

# Smaller files are not worth it; the piece that tells, and those that the sessions then take one after another.
_LEAST = 32 << 20
_FIRST = 4 << 20
_PIECE = 4 << 20

# What all windows together should allow under way, and the most sessions: sshd allows ten on a connection.
_UNDER_WAY = 16 << 20
_SESSIONS = 8

# Pieces that a session has under way: while the last of one is on its way, the next one begins.
_AT_ONCE = 2

# A round trip, in seconds, that is too short to be of interest; and how many times as many round trips as the window
# makes it take the first piece may take: a link that is slow in itself takes far more.
_SHORT = 0.01
_LIMITED = 1.7

# How long, in seconds, the end of what was under way is waited for when something has failed.
_PATIENCE = 10.0

OpenSession = Callable[[], Awaitable[SFTPClientSession]]


class Spread:
    """The further sessions of a client."""

    def __init__(self, session: SFTPClientSession, open_session: OpenSession | None) -> None:
        self._session = session
        self._open_session = open_session
        self._further: list[SFTPClientSession] = []
        self._is_limit: bool | None = None
        self._refused = False
        self._lock = asyncio.Lock()

    def close(self) -> None:
        """End the further sessions."""

        for session in self._further:
            session.close()

    async def wait_closed(self) -> None:
        """Wait until they are closed."""

        for session in self._further:
            await session.wait_closed()

    def may_help(self, size: int) -> bool:
        """Whether a range of so many bytes may be written by several sessions."""

        if self._open_session is None or self._is_limit is False or size < _LEAST:
            return False

        return 'OpenSSH_' in self._session.channel.get_extra_info('server_version', '')

    async def write(self, writer: 'Writer', handle: bytes, begin: int, end: int, progress: Progress) -> None:
        """Write a range of a file; what fails, or is cancelled, says by its offset up to where nothing is missing."""

        pieces = _Pieces(begin, end, progress)

        try:
            if self._is_limit is None:
                self._is_limit = await self._measure(writer, handle, pieces)

            if self._is_limit:
                await _together(self._lane(writer, handle, pieces), self._further_lanes(writer, pieces))
            else:
                await writer.write(self._session, handle, pieces.take(pieces.left), pieces)
        except BaseException as exc:
            exc.offset = pieces.whole()  # type: ignore[attr-defined]
            raise

    async def _measure(self, writer: 'Writer', handle: bytes, pieces: '_Pieces') -> bool:
        """Write the first piece, and say whether the window was what it waited for."""

        flow = self._session.assembler.flow
        window = flow.send_window
        began = time.monotonic()
        await self._session.attrs(c.FXP_FSTAT, encode_string(handle))
        round_trip = time.monotonic() - began

        if round_trip < _SHORT or window >= _UNDER_WAY:
            return False

        began = time.monotonic()
        await writer.write(self._session, handle, pieces.take(_FIRST), pieces)
        trips = (time.monotonic() - began) / round_trip

        # A window that has grown meanwhile goes on growing.
        return flow.send_window < 1.5 * window and trips < _LIMITED * (1 + _FIRST / window)

    async def _further_lanes(self, writer: 'Writer', pieces: '_Pieces') -> None:
        """Open the further sessions if they are not open, and have them take part."""

        wanted = min(_SESSIONS, -(-_UNDER_WAY // max(self._session.assembler.flow.send_window, _FIRST // 2))) - 1

        async with self._lock:
            missing = 0 if self._refused else wanted - len(self._further)
            opened = await asyncio.gather(*(self._opened() for _ in range(missing)))
            self._further += [session for session in opened if session]
            self._refused = None in opened

        if self._further:
            await _together(*(self._further_lane(writer, session, pieces) for session in self._further[:wanted]))

    async def _opened(self) -> SFTPClientSession | None:
        """Open one more session; a server that gives us no more of them gives us None."""

        assert self._open_session

        try:
            return await self._open_session()
        except (Error, OSError):
            return None

    async def _further_lane(self, writer: 'Writer', session: SFTPClientSession, pieces: '_Pieces') -> None:
        if not pieces.left:
            return

        body = encode_string(writer.path) + encode_uint32(c.FXF_WRITE) + SFTPAttrs().encode()
        handle = await session.handle(c.FXP_OPEN, body)

        try:
            await self._lane(writer, handle, pieces, session)
        except BaseException:
            # Before the file is cut what this session was given must be written, or it would come after that.
            with contextlib.suppress(Error, OSError, TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await session.close_handle(handle)

            raise

        await session.close_handle(handle)

    async def _lane(
        self, writer: 'Writer', handle: bytes, pieces: '_Pieces', session: SFTPClientSession | None = None
    ) -> None:
        """Write pieces by one session until there are none left."""

        async def work() -> None:
            while pieces.left:
                await writer.write(session or self._session, handle, pieces.take(_PIECE), pieces)

        await _together(*(work() for _ in range(_AT_ONCE)))


async def _together(*works: Coroutine[Any, Any, None]) -> None:
    """Do all of it; the first failure ends the others, and is raised when they have ended."""

    tasks = [asyncio.ensure_future(work) for work in works]

    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        # Once each: a second time would interrupt how they end.
        for task in tasks:
            task.cancel()

        await asyncio.wait(tasks)

    for task in tasks:
        if not task.cancelled() and (exc := task.exception()):
            raise exc


class _Pieces:
    """The pieces of a range, and what is done of them."""

    def __init__(self, begin: int, end: int, progress: Progress) -> None:
        self._next = begin
        self._end = end
        self._begin = begin
        self._progress = progress
        self._under_way: dict[int, int] = {}
        self._done = 0

    @property
    def left(self) -> int:
        """Bytes that nobody has taken."""

        return self._end - self._next

    def take(self, size: int) -> tuple[int, int]:
        """Take the next piece."""

        begin = self._next
        self._next = min(begin + size, self._end)
        self._under_way[begin] = 0

        return begin, self._next

    def whole(self) -> int:
        """Return up to where nothing is missing."""

        return min([self._next, *self._under_way])

    def told(self, begin: int) -> Callable[[int], object] | None:
        """Return what a piece's pipeline calls as it gets on, if anybody wants to know."""

        if self._progress.begin(0) is None:
            return None

        def tell(done: int) -> None:
            self._under_way[begin] = done
            self._progress.tell(self._begin + self._done + sum(self._under_way.values()))

        return tell

    def done(self, begin: int, size: int) -> None:
        """Note that a piece has been written."""

        del self._under_way[begin]
        self._done += size


class Writer:
    """Writes pieces of one local file, at the path that they go to."""

    def __init__(self, fd: int, source: bytes, path: bytes, block_size: int) -> None:
        self.path = path
        self._fd = fd
        self._source = source
        self._block_size = block_size

    async def write(
        self, session: SFTPClientSession, handle: bytes, piece: tuple[int, int], pieces: _Pieces
    ) -> None:
        """Write one piece by a session."""

        begin, end = piece
        await write(
            session,
            lambda done: WritePipeline(
                session.assembler,
                handle,
                done=done,
                fd=self._fd,
                size=end - begin,
                block_size=self._block_size,
                offset=begin,
                progress=pieces.told(begin),
            ),
            self._source,
        )
        pieces.done(begin, end - begin)
