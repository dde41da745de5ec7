"""The walk that all copies of files and trees share, their options, errors and progress.

A directory is walked in the order of its listing, and several directories at once. Their files are copied several at a
time: small ones overlap their round trips, of large ones, which fill the link by themselves, only two are under way.
"""

import asyncio
import contextlib
import os
import posixpath
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar, cast

from .. import constants as c
from ..errors import DisconnectError
from .attrs import SFTPAttrs
from .errors import (
    SFTPConnectionLost,
    SFTPError,
    SFTPFailure,
    SFTPFileIsADirectory,
    SFTPNoConnection,
    SFTPNotADirectory,
)
from .listing import MAX_DEPTH, check_name

ProgressHandler = Callable[[bytes, bytes, int, int], object] | None
ErrorHandler = Callable[[Exception], object] | Literal[False] | None

_D = TypeVar('_D')

# The errors of single files, of which the error handler is told.
_REPORTED = (OSError, SFTPError, DisconnectError)
Fill = Callable[[Callable[[bytes], _D]], Awaitable[None]]

# Files under way at once, and from which size on a file counts as large.
_FILES = 64
_LARGE_FILES = 2
_LARGE = 1 << 20

# Directories that are copied beside the one that the walk is in. Each of them, and all above it, may have a descriptor
# open: deeper than this no further ones begin, and only one of them goes on at a time.
_BESIDE = 8
_DEEP = 16

# So many directories are entered below each other before a task of its own goes on.
_LEVELS = 32


@dataclass(slots=True)
class CopyOptions:
    """The arguments that all copies share."""

    preserve: bool = False
    recurse: bool = False
    follow_symlinks: bool = False
    sparse: bool = True
    block_size: int = -1
    max_requests: int = -1
    progress_handler: ProgressHandler = None
    error_handler: ErrorHandler = None
    atomic: bool = False
    resume: bool = False
    verify: bool = False
    sync: bool = False

    def block(self, largest: int, usual: int) -> int:
        """Return the block size: the one that was asked for, as far as it is possible, or the usual one."""

        return min(self.block_size, largest) if self.block_size > 0 else usual

    @property
    def requests(self) -> int | None:
        """The most requests under way for one file, or None for as many as the link needs."""

        return self.max_requests if self.max_requests > 0 else None


@dataclass(slots=True)
class Transfer:
    """What a copy has done: files that were copied, their bytes that were moved, and how many seconds it took.

    With `resume`, `skipped` are the files that were there already, and `bytes` only what was missing; `failed` are the
    files and directories of whose errors the error handler was told.
    """

    files: int = 0
    bytes: int = 0
    seconds: float = 0.0
    skipped: int = 0
    failed: int = 0


class Start(Protocol):
    """Starts a part of a copy as a task when there is a slot for it."""

    async def __call__(self, coroutine: Coroutine[Any, Any, None], slots: asyncio.Semaphore = ..., /) -> None:
        """Start it, or raise why another part has failed."""


class Source(Protocol):
    """Where a copy comes from."""

    async def attrs(self, path: bytes, follow: bool) -> SFTPAttrs:
        """Return a file's attributes."""

    def entries(self, path: bytes) -> AsyncIterator[tuple[bytes, SFTPAttrs]]:
        """Yield the entries of a directory, without `.` and `..`; the names may be anything."""

    async def link(self, path: bytes) -> bytes:
        """Return the target of a link."""


class Target(Protocol[_D]):
    """Where a copy goes to; its places are of type `_D`."""

    async def is_directory(self, path: bytes) -> bool:
        """Whether there is a directory at a path."""

    def place(self, path: bytes) -> _D:
        """Make the place that the user named."""

    def path_of(self, place: _D) -> bytes:
        """Return a place's path."""

    async def fill_directory(self, place: _D, attrs: SFTPAttrs, preserve: bool, fill: Fill[_D]) -> None:
        """Make a directory, await `fill` with a function that gives the places in it, and set its attributes."""

    async def make_link(self, target: bytes, place: _D) -> None:
        """Make a symbolic link."""


class Copy(Generic[_D]):
    """A copy of files or trees from a source to a target.

    `copy_file` copies one file's data and attributes, and returns how many bytes it moved; None if all were there.
    """

    def __init__(
        self,
        options: CopyOptions,
        source: Source,
        target: Target[_D],
        copy_file: Callable[[bytes, SFTPAttrs, _D], Awaitable[int | None]],
    ) -> None:
        self.options = options
        self.target = target
        self._source = source
        self._copy_data = copy_file
        self._slots = asyncio.Semaphore(_FILES)
        self._large = asyncio.Semaphore(_LARGE_FILES)
        self._beside = asyncio.Semaphore(_BESIDE)
        self._deep = asyncio.Lock()
        self._failures: list[tuple[int, Exception]] = []
        self._waiting: set[asyncio.Future[None]] = set()
        self._started = 0
        self._transfer = Transfer()

    # --- the walk

    async def run(self, sources: Sequence[bytes], many: bool, target: bytes | None) -> Transfer:
        """Copy the sources to the target, or into it if it is a directory; None is the current directory."""

        began = time.monotonic()
        inside = target is None or await self.target.is_directory(target)

        if many and not inside:
            assert target is not None
            raise SFTPNotADirectory(f'{os.fsdecode(target)} must be a directory')

        async def each(start: Start) -> None:
            for source in sources:
                name = posixpath.basename(source.rstrip(b'/'))

                if inside and name in (b'', b'..'):
                    raise SFTPFailure(f'{os.fsdecode(source)} has no name of its own: name the destination')

                # A source that ends with a dot is one whose entries, not the directory itself, go into the target.
                path = (target or b'.') if name == b'.' or not inside else posixpath.join(target or b'', name)
                await self._copy(source, None, self.target.place(path), 0, start)

        await self._together(each)
        self._transfer.seconds = time.monotonic() - began

        return self._transfer

    async def _together(self, work: Callable[[Start], Awaitable[None]]) -> None:
        """Do `work`, which gets a function that starts a part of it as a task; ends when all parts have ended.

        The first part that fails ends it all, and its exception is raised: of several the one that began first.
        """

        tasks: set[asyncio.Task[None]] = set()
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def part(index: int, coroutine: Coroutine[Any, Any, None], slots: asyncio.Semaphore) -> None:
            try:
                await coroutine
            except Exception as exc:
                self._failed(index, exc)
            except asyncio.CancelledError as exc:
                # Of something inside, as a handler's own task: who ends without a failure would count as done.
                if not cast('asyncio.Task[None]', asyncio.current_task()).cancelling():
                    failure = SFTPFailure('The copy of a file was cancelled from within')
                    failure.__cause__ = exc
                    self._failed(index, failure)

                raise
            finally:
                slots.release()

        def part_ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)

            if not tasks and ended in self._waiting:
                self._waiting.discard(ended)
                _wake(ended)

        async def start(coroutine: Coroutine[Any, Any, None], slots: asyncio.Semaphore = self._slots) -> None:
            try:
                await slots.acquire()
            except BaseException:
                coroutine.close()
                raise

            if self._failures:
                slots.release()
                coroutine.close()
                raise self._first_failure()

            self._started += 1
            task = asyncio.create_task(part(self._started, coroutine, slots))
            tasks.add(task)
            task.add_done_callback(part_ended)

        try:
            await work(start)

            if tasks and not self._failures:
                self._waiting.add(ended)
                await ended
        finally:
            self._waiting.discard(ended)

            # A task must have begun before it can be cancelled, so that it gives back what it holds.
            if tasks:
                await asyncio.sleep(0)

            for task in tasks:
                task.cancel()

            while tasks:
                await asyncio.wait(tasks)

        if self._failures:
            raise self._first_failure()

    def _failed(self, index: int, exc: Exception) -> None:
        """Keep why a part failed, unless it is what a part of it failed of, and wake all that wait for their parts."""

        if all(exc is not known for _, known in self._failures):
            self._failures.append((index, exc))

        for ended in self._waiting:
            _wake(ended)

        self._waiting.clear()

    def _first_failure(self) -> Exception:
        return min(self._failures, key=lambda failure: failure[0])[1]

    async def _copy(
        self,
        source: bytes,
        attrs: SFTPAttrs | None,
        place: _D,
        depth: int,
        start: Start,
    ) -> None:
        """Copy one source, whatever it is; files are only started."""

        try:
            follow = self.options.follow_symlinks

            if (
                attrs is None
                or attrs.type == c.FILEXFER_TYPE_UNKNOWN
                or (follow and attrs.type == c.FILEXFER_TYPE_SYMLINK)
            ):
                attrs = await self._source.attrs(source, follow)

            if attrs.type == c.FILEXFER_TYPE_DIRECTORY:
                if not self.options.recurse:
                    raise SFTPFileIsADirectory(f'{os.fsdecode(source)} is a directory')

                if depth > MAX_DEPTH:
                    raise SFTPFailure(f'Directories are nested deeper than {MAX_DEPTH}')

                async with self._deep if depth == _DEEP else contextlib.nullcontext():
                    await self._copy_directory(source, attrs, place, depth)
            elif attrs.type == c.FILEXFER_TYPE_SYMLINK:
                await self.target.make_link(await self._source.link(source), place)
            elif attrs.type in (c.FILEXFER_TYPE_REGULAR, c.FILEXFER_TYPE_UNKNOWN):
                await start(self._copy_file(source, attrs, place))
            else:
                raise SFTPFailure(f'{os.fsdecode(source)} is not a regular file')
        except _REPORTED as exc:
            if not self._is_handled(exc, source, place):
                raise

    async def _copy_directory(self, source: bytes, attrs: SFTPAttrs, place: _D, depth: int) -> None:
        async def fill(inner: Callable[[bytes], _D]) -> None:
            async def entries(start: Start) -> None:
                directories = []

                async for name, entry in self._source.entries(source):
                    path = posixpath.join(source, name)

                    try:
                        check_name(name)
                    except SFTPError as exc:
                        if not self._is_handled(exc, path, place):
                            raise

                        continue

                    if entry.type == c.FILEXFER_TYPE_REGULAR:
                        await start(self._copy_file(path, entry, inner(name)))
                    elif entry.type == c.FILEXFER_TYPE_DIRECTORY:
                        directories.append((path, entry, inner(name)))
                    else:
                        await self._copy(path, entry, inner(name), depth + 1, start)

                for path, entry, at in directories:
                    deeper = self._copy(path, entry, at, depth + 1, start)

                    # Never waits for one: those that are copied beside have directories of their own to copy.
                    if depth < _DEEP and not self._beside.locked():
                        await start(deeper, self._beside)
                    else:
                        # A task begins with an empty stack, where the interpreter's would not be deep enough.
                        await (asyncio.create_task(deeper) if depth % _LEVELS == _LEVELS - 1 else deeper)

            # All that is in a directory has been copied before its times are set.
            await self._together(entries)

        await self.target.fill_directory(place, attrs, self.options.preserve, fill)

    async def _copy_file(self, source: bytes, attrs: SFTPAttrs, place: _D) -> None:
        try:
            if attrs.size is not None and attrs.size <= _LARGE:
                moved = await self._copy_data(source, attrs, place)
            else:
                async with self._large:
                    moved = await self._copy_data(source, attrs, place)
        except _REPORTED as exc:
            if not self._is_handled(exc, source, place):
                raise
        else:
            if moved is None:
                self._transfer.skipped += 1
            else:
                self._transfer.files += 1
                self._transfer.bytes += moved

    def _is_handled(self, exc: Exception, source: bytes, place: _D) -> bool:
        self._transfer.failed += 1

        return is_handled(exc, source, self.target.path_of(place), self.options.error_handler)


def _wake(waiting: asyncio.Future[None]) -> None:
    # Who waits may have been cancelled, and not have noticed yet.
    if not waiting.done():
        waiting.set_result(None)


class Progress:
    """Tells the progress handler about one file: bytes done of all, and 0 of 0 for an empty file."""

    def __init__(self, options: CopyOptions, source: bytes, path: bytes, total: int) -> None:
        self._handler = options.progress_handler
        self._source = source
        self._path = path
        self._told = -1
        self.total = total
        self.whole = 0    # bytes of the file up to which nothing is missing, also when it fails

    def begin(self, offset: int) -> Callable[[int], object] | None:
        """Return what a pipeline that begins at an offset calls as it gets on, if anybody wants to know."""

        return None if self._handler is None else lambda done: self.tell(offset + done)

    def tell(self, done: int) -> None:
        """Tell how much is done, once for each amount."""

        if self._handler is not None and done != self._told:
            self._told = done
            self._handler(self._source, self._path, done, max(self.total, done))


def is_copy(there: SFTPAttrs | None, source: SFTPAttrs) -> bool:
    """Whether a file is a copy of its source: as large, and not older than the source's last change."""

    return (
        there is not None
        and there.type in (c.FILEXFER_TYPE_REGULAR, c.FILEXFER_TYPE_UNKNOWN)
        and there.size == source.size
        and there.mtime is not None
        and source.mtime is not None
        and int(there.mtime) >= int(source.mtime)
    )


def is_handled(exc: Exception, source: bytes, path: bytes, handler: ErrorHandler) -> bool:
    """Name the paths in an error and give it to the handler; if there is none, or the connection ended, it is not."""

    if getattr(exc, 'srcpath', None) is None:
        exc.srcpath = source  # type: ignore[attr-defined]
        exc.dstpath = path  # type: ignore[attr-defined]

    if handler is None or isinstance(exc, (DisconnectError, SFTPConnectionLost, SFTPNoConnection)):
        return False

    if handler:
        handler(exc)

    return True


@contextlib.contextmanager
def passed_over(handler: ErrorHandler) -> Iterator[None]:
    """Give SFTP errors to an error handler; False passes over them, and without one they are raised."""

    try:
        yield
    except SFTPError as exc:
        if handler is None:
            raise

        if handler:
            handler(exc)
