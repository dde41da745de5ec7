"""An open file on the server, with the calls of Python's own files as coroutines."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from .. import constants as c
from .._sftp_codec import ReadPipeline, WritePipeline
from ..wire import encode_string
from .attrs import SFTPAttrs, SFTPVFSAttrs, owner_attrs, time_attrs
from .errors import SFTPError, SFTPFailure, SFTPOpUnsupported
from .requests import SFTPClientSession

_MODES = {
    'r': c.FXF_READ,
    'w': c.FXF_WRITE | c.FXF_CREAT | c.FXF_TRUNC,
    'a': c.FXF_WRITE | c.FXF_CREAT | c.FXF_APPEND,
    'x': c.FXF_WRITE | c.FXF_CREAT | c.FXF_EXCL,
}


def mode_to_pflags(mode: str) -> tuple[int, bool]:
    """Turn a mode as of Python's `open` into the flags of an OPEN request, and whether it is binary."""

    pflags = _MODES.get(mode[:1])
    rest = mode[1:]

    if pflags is None or len(set(rest)) != len(rest) or not set(rest) <= set('bt+') or {'b', 't'} <= set(rest):
        raise ValueError(f'Invalid mode: {mode!r}')

    if '+' in rest:
        pflags |= c.FXF_READ | c.FXF_WRITE

    return pflags, 'b' in rest


class SFTPClientFile:
    """A file that `SFTPClient.open` opened. In text mode sizes and offsets still count bytes.

    A read or write of more than a block is sent as many requests at once, and is one call here and in compiled code.
    """

    def __init__(
        self,
        handler: SFTPClientSession,
        handle: bytes,
        appending: bool = False,
        encoding: str | None = None,
        errors: str = 'strict',
        block_size: int | None = -1,
        max_requests: int = -1,
    ) -> None:
        self._session = handler
        self._handle: bytes | None = handle
        self._appending = appending
        self._encoding = encoding
        self._errors = errors
        self._block_size = block_size
        self._max_requests = max_requests if max_requests > 0 else None
        self._offset: int | None = None if appending else 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except SFTPError:
            # The error that ended the context says more than that its file could not be closed either.
            if exc is None:
                raise

    @property
    def handle(self) -> bytes:
        """The server's name for the open file; ValueError once it is closed."""

        if self._handle is None:
            raise ValueError('I/O operation on closed file')

        return self._handle

    # --- data

    def _block(self, largest: int, usual: int, size: int | None) -> int:
        """Return the block size: what was asked for, at most what the server takes; 0 or None is one request a call."""

        if not self._block_size:
            return min(size or largest, largest)

        return usual if self._block_size < 0 else min(self._block_size, largest)

    async def _read(self, size: int | None, offset: int) -> bytes:
        session, handle = self._session, self.handle
        block = self._block(session.read_size, session.usual_read_size, size)
        requests = self._max_requests if self._block_size else 1
        pipeline = await session.run(
            lambda done: ReadPipeline(
                session.assembler, handle, done=done, size=size, block_size=block, max_requests=requests, offset=offset
            )
        )
        exc = session.pipeline_error(pipeline)

        if exc:
            raise exc

        assert isinstance(pipeline, ReadPipeline)

        return pipeline.take_result()

    async def read(self, size: int = -1, offset: int | None = None) -> Any:
        """Read `size` bytes, or all up to the end, from the offset or the file's position; empty at the end.

        Fewer bytes come only at the end of the file. The position moves behind what was read.
        """

        start = await self._position() if offset is None else offset
        wanted: int | None = size

        if size < 0:
            # A size of zero is what files that are made up as they are read have.
            wanted = ((await self.stat()).size or 0) - start
            wanted = wanted if wanted > 0 else None

        data = await self._read(wanted, start) if wanted != 0 else b''
        self._offset = start + len(data)

        return data.decode(self._encoding, self._errors) if self._encoding else data

    async def read_parallel(self, size: int = -1, offset: int | None = None) -> AsyncIterator[tuple[int, bytes]]:
        """Return an iterator over (offset, data) of blocks, as they arrive and in any order."""

        start = await self._position() if offset is None else offset

        if size < 0:
            size = max(((await self.stat()).size or 0) - start, 0)

        return self._blocks(start, size)

    async def _blocks(self, start: int, size: int) -> AsyncIterator[tuple[int, bytes]]:
        session = self._session
        block = self._block(session.read_size, session.usual_read_size, size)
        limit = self._max_requests or min(max((16 << 20) // block, 1), 128)
        waiting = deque(range(start, start + size, block))
        running: dict[asyncio.Task[bytes], int] = {}

        try:
            while waiting or running:
                while waiting and len(running) < limit:
                    position = waiting.popleft()
                    wanted = min(block, start + size - position)
                    running[asyncio.ensure_future(self._read(wanted, position))] = position

                ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)

                for task in ended:
                    position, data = running.pop(task), task.result()

                    if data:
                        yield position, data
        finally:
            for task in running:
                task.cancel()

            if running:
                await asyncio.wait(running)

    async def write(self, data: Any, offset: int | None = None) -> int:
        """Write text or bytes at the offset or the file's position, and return how many bytes these were.

        A file that was opened for appending is always written at its end.
        """

        raw = data.encode(self._encoding, self._errors) if self._encoding else data
        start = 0 if self._appending else (self._offset or 0) if offset is None else offset
        session, handle = self._session, self.handle
        size = memoryview(raw).nbytes

        if size:
            block = self._block(session.write_size, session.write_size, size)
            requests = self._max_requests if self._block_size else 1
            pipeline = await session.run(
                lambda done: WritePipeline(
                    session.assembler,
                    handle,
                    done=done,
                    block_size=block,
                    data=raw,
                    max_requests=requests,
                    offset=start,
                )
            )
            exc = session.pipeline_error(pipeline)

            if exc:
                raise exc

            if not pipeline.complete:
                raise SFTPFailure(f'Only {pipeline.bytes_done} of {size} bytes were written')

        self._offset = None if self._appending else start + size

        return size

    # --- position

    async def _position(self) -> int:
        """Return the position; that of a file opened for appending is its end until it is moved."""

        if self._offset is None:
            self._offset = (await self.stat()).size or 0

        return self._offset

    async def seek(self, offset: int, from_what: int = os.SEEK_SET) -> int:
        """Move the position, from the file's begin, from where it is, or from the file's end; returns it."""

        if from_what == os.SEEK_CUR:
            offset += await self._position()
        elif from_what == os.SEEK_END:
            offset += (await self.stat()).size or 0
        elif from_what != os.SEEK_SET:
            raise ValueError(f'Invalid reference point for seek: {from_what}')

        if offset < 0:
            raise ValueError(f'Invalid position: {offset}')

        self.handle  # noqa: B018
        self._offset = offset

        return offset

    async def tell(self) -> int:
        """Return the position."""

        return await self._position()

    # --- attributes

    async def stat(self, flags: int = c.FILEXFER_ATTR_DEFINED_V4) -> SFTPAttrs:
        """Return the file's attributes; version 3 has no means to choose them by `flags`."""

        return await self._session.attrs(c.FXP_FSTAT, encode_string(self.handle))

    async def setstat(self, attrs: SFTPAttrs) -> None:
        """Change the attributes that are not None."""

        await self._session.status(c.FXP_FSETSTAT, encode_string(self.handle) + attrs.encode())

    async def statvfs(self) -> SFTPVFSAttrs:
        """Return the figures of the file system that holds the file."""

        return SFTPVFSAttrs.decode(await self._session.extended(b'fstatvfs@openssh.com', encode_string(self.handle)))

    async def truncate(self, size: int | None = None) -> None:
        """Cut or extend the file to a size, or to the position."""

        await self.setstat(SFTPAttrs(size=await self._position() if size is None else size))

    async def chown(
        self,
        uid_or_owner: int | str | None = None,
        gid_or_group: int | str | None = None,
        uid: int | None = None,
        gid: int | None = None,
        owner: str | None = None,
        group: str | None = None,
    ) -> None:
        """Change the file's owner and group; version 3 takes both together, as numbers."""

        await self.setstat(owner_attrs(uid_or_owner, gid_or_group, uid, gid, owner, group))

    async def chmod(self, mode: int) -> None:
        """Change the file's permissions."""

        await self.setstat(SFTPAttrs(permissions=mode))

    async def utime(self, times: tuple[float, float] | None = None, ns: tuple[int, int] | None = None) -> None:
        """Change access and modification time, in seconds or nanoseconds since 1970, or to now."""

        await self.setstat(time_attrs(times, ns))

    async def fsync(self) -> None:
        """Have the server bring the file's data to its disk."""

        await self._session.extended_status(b'fsync@openssh.com', encode_string(self.handle))

    async def lock(self, offset: int, length: int, flags: int) -> None:
        """Lock a range of the file: SFTPOpUnsupported, this came with version 6 of the protocol."""

        raise SFTPOpUnsupported('Byte range locks need version 6 of SFTP')

    async def unlock(self, offset: int, length: int) -> None:
        """Unlock a range of the file: SFTPOpUnsupported, this came with version 6 of the protocol."""

        raise SFTPOpUnsupported('Byte range locks need version 6 of SFTP')

    # --- the end

    async def close(self) -> None:
        """Close the file; an error of writing that the server tells only now is raised. Once closed it does nothing."""

        if self._handle is not None:
            handle, self._handle = self._handle, None
            await self._session.close_handle(handle)
