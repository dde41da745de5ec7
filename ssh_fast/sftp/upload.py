"""Uploads: local files into a server's."""

import os
from collections.abc import AsyncIterator, Sequence
from typing import Any

from .._sftp_codec import WritePipeline
from .attrs import SFTPAttrs
from .local import data_ranges, open_local
from .remote import RemoteTarget, preserved
from .requests import SFTPClientSession
from .symlink import SymlinkOrder
from .transfer import Copy, CopyOptions, Progress

# The sizes of files that are made up as they are read are not known: they are read in pieces of this.
_PIECE = 1 << 20


async def copy_local_to_remote(
    session: SFTPClientSession,
    links: SymlinkOrder,
    sources: Sequence[bytes],
    many: bool,
    target: bytes | None,
    options: CopyOptions,
) -> None:
    """Upload files or trees; `many` sources need a directory to go to."""

    upload = _Upload(session, RemoteTarget(session, links), options)
    await Copy(options, _LocalSource(), upload.target, upload.copy_file).run(sources, many, target)


class _LocalSource:
    async def attrs(self, path: bytes, follow: bool) -> SFTPAttrs:
        # As text, with which an error names it.
        return SFTPAttrs.from_local(os.stat(os.fsdecode(path), follow_symlinks=follow))

    async def entries(self, path: bytes) -> AsyncIterator[tuple[bytes, SFTPAttrs]]:
        with os.scandir(path) as entries:
            for entry in entries:
                yield entry.name, SFTPAttrs.from_local(entry.stat(follow_symlinks=False))

    async def link(self, path: bytes) -> bytes:
        return os.readlink(path)


class _Upload:
    def __init__(self, session: SFTPClientSession, target: RemoteTarget, options: CopyOptions) -> None:
        self._session = session
        self._options = options
        self._block = options.block(session.write_size, session.write_size)
        self.target = target

    async def copy_file(self, source: bytes, attrs: SFTPAttrs, place: bytes) -> None:
        fd, result = open_local(source, self._options.follow_symlinks)

        try:
            attrs = SFTPAttrs.from_local(result)
            handle = await self.target.create(place, attrs)
            sent = 0

            try:
                sent = await self._send(source, fd, result.st_size, handle, place)
                extended = sent < result.st_size
            except BaseException as exc:
                self.target.discard(handle, getattr(exc, 'offset', None) or 0)
                raise

            await self.target.finish(
                handle, preserved(attrs) if self._options.preserve else None, result.st_size if extended else None
            )
        finally:
            os.close(fd)

    async def _send(self, source: bytes, fd: int, size: int, handle: bytes, path: bytes) -> int:
        """Write the file's data, and return up to where it has been written: a hole at its end is not."""

        progress = Progress(self._options, source, path, size)
        end = 0

        if not size:
            end = await self._send_unsized(source, fd, handle, progress)
            progress.total = end

        for begin, end in data_ranges(fd, size, self._options.sparse):
            await self._write(source, handle, begin, progress, fd=fd, size=end - begin)

        progress.tell(max(size, end))

        return end

    async def _send_unsized(self, source: bytes, fd: int, handle: bytes, progress: Progress) -> int:
        """Write a file that claims to be empty: those of /proc are not."""

        offset = 0

        while data := os.pread(fd, _PIECE, offset):
            await self._write(source, handle, offset, progress, data=data)
            offset += len(data)

        return offset

    async def _write(self, source: bytes, handle: bytes, offset: int, progress: Progress, **data: Any) -> None:
        await self.target.write(
            lambda done: WritePipeline(
                self._session.assembler,
                handle,
                done=done,
                block_size=self._block,
                max_requests=self._options.requests,
                offset=offset,
                progress=progress.begin(offset),
                **data,
            ),
            source,
        )
