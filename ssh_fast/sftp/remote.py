"""The remote side of copies: a server's files as the source and as the target."""

import asyncio
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

_WRITE = c.FXF_WRITE | c.FXF_CREAT | c.FXF_TRUNC


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
        pipeline = await session.run(
            lambda done: ReadPipeline(
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
        )
        raise_failure(session, pipeline, b'')
        assert isinstance(pipeline, ReadPipeline)

        return pipeline


class RemoteTarget:
    """The files of a server as the destination of a copy."""

    def __init__(self, session: SFTPClientSession, links: SymlinkOrder) -> None:
        self._session = session
        self._links = links

    async def is_directory(self, path: bytes) -> bool:
        """Whether there is a directory at a path."""

        try:
            attrs = await self._session.attrs(c.FXP_STAT, encode_string(path))
        except (SFTPNoSuchFile, SFTPNoSuchPath):
            return False

        return attrs.type == c.FILEXFER_TYPE_DIRECTORY

    async def create(self, path: bytes, attrs: SFTPAttrs) -> bytes:
        """Create or empty a file that its owner can write."""

        mode = None if attrs.permissions is None else attrs.permissions & 0o777 | 0o200
        body = encode_string(path) + encode_uint32(_WRITE) + SFTPAttrs(permissions=mode).encode()

        return await self._session.handle(c.FXP_OPEN, body)

    async def finish(self, handle: bytes, attrs: SFTPAttrs | None, size: int | None = None) -> None:
        """Set a file's attributes and close it: requests that are sent together; the first failure is raised."""

        if attrs is None and size is None:
            await self._session.close_handle(handle)
            return

        attrs = attrs or SFTPAttrs()
        attrs.size = size
        setting = self._session.send(c.FXP_FSETSTAT, encode_string(handle) + attrs.encode())

        for reply in await asyncio.gather(setting, self._session.send(c.FXP_CLOSE, encode_string(handle))):
            self._session.check_reply(reply)

    def discard(self, handle: bytes, size: int) -> None:
        """Close a file whose copy failed; it is cut where the failure was, so that it does not look whole."""

        try:
            body = encode_string(handle) + SFTPAttrs(size=size).encode()
            self._session.send(c.FXP_FSETSTAT, body).cancel()
            self._session.forget_handle(handle)
        except SFTPError:
            # The session has ended, and the server closes its files.
            return

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

    async def write(self, make: Callable[[Callable[[Any], object]], Pipeline], source: bytes) -> None:
        """Run a pipeline that writes; an error, or an early end of a local file, is raised."""

        pipeline = await self._session.run(make)
        raise_failure(self._session, pipeline, source)

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
