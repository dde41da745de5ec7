"""The remote side of copies: a server's files as the source and as the target."""

import os
import posixpath
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from .. import constants as c
from .._sftp_codec import Pipeline, ReadPipeline
from ..wire import encode_string, encode_uint32
from .attrs import SFTPAttrs
from .errors import SFTPError, SFTPFailure, SFTPNoSuchFile, SFTPNoSuchPath
from .listing import list_directory
from .local import named_error
from .requests import SFTPClientSession
from .symlink import SymlinkOrder
from .transfer import CopyOptions, Fill, Progress


def preserved(attrs: SFTPAttrs) -> SFTPAttrs:
    """Return the attributes that a copy takes over."""

    permissions = None if attrs.permissions is None else stat.S_IMODE(attrs.permissions)

    if attrs.atime is None or attrs.mtime is None:
        return SFTPAttrs(permissions=permissions)

    return SFTPAttrs(permissions=permissions, atime=attrs.atime, mtime=attrs.mtime)


class RemoteSource:
    """The files of a server as the source of a copy."""

    def __init__(self, session: SFTPClientSession, options: CopyOptions) -> None:
        self._session = session
        self._block = options.block(session.read_size, session.usual_read_size)

    async def attrs(self, path: bytes, follow: bool) -> SFTPAttrs:
        """Return a file's attributes."""

        return await self._session.attrs(c.FXP_STAT if follow else c.FXP_LSTAT, encode_string(path))

    async def entries(self, path: bytes) -> AsyncIterator[tuple[bytes, SFTPAttrs]]:
        """Yield the entries of a directory, without `.` and `..`; the names may be anything."""

        async with aclosing(list_directory(self._session, path)) as replies:
            async for names in replies:
                for name in names:
                    if name.filename not in (b'.', b'..'):
                        assert isinstance(name.filename, bytes)
                        yield name.filename, name.attrs

    async def link(self, path: bytes) -> bytes:
        """Return the target of a link."""

        return await self._session.path(c.FXP_READLINK, encode_string(path))

    async def open(self, path: bytes) -> bytes:
        """Open a file for reading."""

        body = encode_string(path) + encode_uint32(c.FXF_READ) + SFTPAttrs().encode()

        return await self._session.handle(c.FXP_OPEN, body)

    async def read(
        self, handle: bytes, offset: int, size: int | None, requests: int | None, progress: Progress, fd: int = -1
    ) -> ReadPipeline:
        """Read a range into a local file, or into memory; an error is raised, an early end is the caller's to see."""

        session = self._session
        made: list[ReadPipeline] = []

        def make(done: Callable[[Any], object]) -> ReadPipeline:
            pipeline = ReadPipeline(
                session.assembler,
                handle,
                done=done,
                size=size,
                block_size=self._block,
                max_requests=requests,
                offset=offset,
                fd=fd,
                progress=progress.begin(offset),
            )
            made.append(pipeline)

            return pipeline

        try:
            raise_failure(session, await session.run(make), b'')
        finally:
            progress.whole = offset + (made[0].bytes_whole if made else 0)

        return made[0]


class RemoteTarget:
    """The files of a server as the destination of a copy."""

    def __init__(self, session: SFTPClientSession, links: SymlinkOrder) -> None:
        self._session = session
        self._links = links

    async def is_directory(self, path: bytes) -> bool:
        """Whether there is a directory at a path."""

        attrs = await self.look(path)

        return attrs is not None and attrs.type == c.FILEXFER_TYPE_DIRECTORY

    async def look(self, path: bytes, follow: bool = True) -> SFTPAttrs | None:
        """Return the attributes of what is at a path; None if nothing is."""

        try:
            return await self._session.attrs(c.FXP_STAT if follow else c.FXP_LSTAT, encode_string(path))
        except (SFTPNoSuchFile, SFTPNoSuchPath):
            return None

    async def create(self, path: bytes, attrs: SFTPAttrs, keep: bool = False, read: bool = False) -> bytes:
        """Create or empty a file that its owner can write; `keep` leaves one as it is, `read` lets it be read too."""

        pflags = c.FXF_WRITE | c.FXF_CREAT | (0 if keep else c.FXF_TRUNC) | (c.FXF_READ if read else 0)

        return await self.open(path, attrs, pflags)

    async def open(self, path: bytes, attrs: SFTPAttrs, pflags: int) -> bytes:
        """Open a file to write it."""

        mode = None if attrs.permissions is None else attrs.permissions & 0o777 | 0o200
        body = encode_string(path) + encode_uint32(pflags) + SFTPAttrs(permissions=mode).encode()

        return await self._session.handle(c.FXP_OPEN, body)

    def place(self, path: bytes) -> bytes:
        """Make the place that the user named: its path."""

        return path

    def path_of(self, place: bytes) -> bytes:
        """Return a place's path."""

        return place

    async def fill_directory(self, place: bytes, attrs: SFTPAttrs, preserve: bool, fill: Fill[bytes]) -> None:
        """Make a directory unless it is there, have it filled, and set its attributes."""

        mode = None if attrs.permissions is None else attrs.permissions & 0o777 | 0o700

        try:
            await self._session.status(c.FXP_MKDIR, encode_string(place) + SFTPAttrs(permissions=mode).encode())
        except SFTPError:
            if not await self.is_directory(place):
                raise

        await fill(lambda name: posixpath.join(place, name))

        if preserve:
            await self._session.status(c.FXP_SETSTAT, encode_string(place) + preserved(attrs).encode())

    async def make_link(self, target: bytes, place: bytes) -> None:
        """Make a symbolic link."""

        try:
            await self._links.make(target, place)
        except SFTPError:
            # A link that is there already, from an earlier copy, is as good.
            try:
                there = await self._session.path(c.FXP_READLINK, encode_string(place))
            except SFTPError:
                there = None

            if there != target:
                raise


async def write(
    session: SFTPClientSession, make: Callable[[Callable[[Any], object]], Pipeline], source: bytes
) -> None:
    """Run a pipeline that writes on a session; an error, or an early end of a local file, is raised."""

    pipeline = await session.run(make)
    raise_failure(session, pipeline, source)

    if not pipeline.complete:
        exc = SFTPFailure(f'{os.fsdecode(source)} ended early: it was cut while it was read')
        exc.offset = pipeline.bytes_done
        raise exc


def raise_failure(session: SFTPClientSession, pipeline: Pipeline, path: bytes) -> None:
    """Raise why a pipeline failed, if it did; an error of the system is one of the local path."""

    exc = session.pipeline_error(pipeline)

    if exc is None:
        return

    if isinstance(exc, OSError):
        exc = named_error(exc, path)
        exc.offset = pipeline.failed_offset  # type: ignore[attr-defined]

    raise exc
