"""Uploads: local files into a server's."""

import os
from collections.abc import AsyncIterator, Sequence
from typing import Any

from .. import constants as c
from .._sftp_codec import WritePipeline
from ..wire import encode_string
from .attrs import SFTPAttrs
from .comparison import Comparison
from .errors import SFTPFailure
from .local import data_ranges, open_local
from .remote import RemoteSource, RemoteTarget, preserved, write
from .remote_output import RemoteOutput, open_part
from .requests import SFTPClientSession
from .spread import Spread, Writer
from .symlink import SymlinkOrder
from .transfer import Copy, CopyOptions, Progress, Transfer, is_copy

# The sizes of files that are made up as they are read are not known: they are read in pieces of this.
_PIECE = 1 << 20


async def copy_local_to_remote(
    session: SFTPClientSession,
    spread: Spread,
    links: SymlinkOrder,
    sources: Sequence[bytes],
    many: bool,
    target: bytes | None,
    options: CopyOptions,
) -> Transfer:
    """Upload files or trees; `many` sources need a directory to go to."""

    upload = _Upload(session, spread, RemoteTarget(session, links), options)

    return await Copy(options, _LocalSource(), upload.target, upload.copy_file).run(sources, many, target)


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
    def __init__(
        self, session: SFTPClientSession, spread: Spread, target: RemoteTarget, options: CopyOptions
    ) -> None:
        self._session = session
        self._spread = spread
        self._options = options
        self._block = options.block(session.write_size, session.write_size)
        self._comparison = Comparison(session, RemoteSource(session, options), options)
        self.target = target

    async def copy_file(self, source: bytes, attrs: SFTPAttrs, place: bytes) -> int | None:
        options = self._options
        fd, result = open_local(source, options.follow_symlinks)

        try:
            attrs = SFTPAttrs.from_local(result)

            if options.resume and is_copy(await self.target.look(place), attrs):
                return None

            output = await self._open_output(place, attrs)
            progress = Progress(options, source, place, result.st_size)

            try:
                begin = await self._resumable(output.handle, attrs, fd) if options.resume else 0
                sent = await self._send(source, fd, begin, output, progress)

                size = max(result.st_size, sent)

                if options.verify:
                    await self._verify(source, fd, sent, output.handle)
            except BaseException as exc:
                output.discard(getattr(exc, 'offset', None))
                raise

            extended = size if sent < size else None
            await output.finish(preserved(attrs) if options.preserve else None, extended, options.sync)
        finally:
            os.close(fd)

        return size - begin

    async def _open_output(self, place: bytes, attrs: SFTPAttrs) -> RemoteOutput:
        options = self._options

        if options.atomic:
            return await open_part(self._session, self.target, place, attrs, options.resume, options.verify)

        read = options.resume or options.verify

        handle = await self.target.create(place, attrs, keep=options.resume, read=read)

        return RemoteOutput(self._session, place, handle, options.resume)

    async def _send(self, source: bytes, fd: int, done: int, output: RemoteOutput, progress: Progress) -> int:
        """Write the file's data from `done` on; return up to where it has been written: a hole at its end is not."""

        size, handle = progress.total, output.handle
        end = done

        if not size:
            end = await self._send_unsized(source, fd, handle, progress)
            progress.total = end

        for first, end in data_ranges(fd, size, self._options.sparse):
            begin = max(first, done)

            if self._options.requests is None and self._spread.may_help(end - begin):
                writer = Writer(fd, source, output.written_path, self._block)
                await self._spread.write(writer, handle, begin, end, progress)
            elif begin < end:
                await self._write(source, handle, begin, progress, fd=fd, size=end - begin)

        progress.tell(max(size, end))

        return end

    async def _resumable(self, handle: bytes, attrs: SFTPAttrs, fd: int) -> int:
        """Return how much of a part that an earlier copy left can be kept; the rest is cut off.

        It must not be older than the last change of its source, and be what the source has there.
        """

        part = await self._session.attrs(c.FXP_FSTAT, encode_string(handle))
        size = part.size or 0

        if not size:
            return 0

        if size > (attrs.size or 0) or part.mtime is None or int(attrs.mtime or 0) > int(part.mtime):
            size = 0

        if size and not await self._comparison.is_likely_same(handle, fd, size):
            size = 0

        if not size:
            await self._session.status(c.FXP_FSETSTAT, encode_string(handle) + SFTPAttrs(size=0).encode())

        return size

    async def _verify(self, source: bytes, fd: int, size: int, handle: bytes) -> None:
        """Compare what was written with the source."""

        if not await self._comparison.is_same(handle, fd, size):
            exc = SFTPFailure(f'{os.fsdecode(source)} is not what was written of it')
            # Nothing of it is worth to be kept.
            exc.offset = 0
            raise exc

    async def _send_unsized(self, source: bytes, fd: int, handle: bytes, progress: Progress) -> int:
        """Write a file that claims to be empty: those of /proc are not."""

        offset = 0

        while data := os.pread(fd, _PIECE, offset):
            await self._write(source, handle, offset, progress, data=data)
            offset += len(data)

        return offset

    async def _write(self, source: bytes, handle: bytes, offset: int, progress: Progress, **data: Any) -> None:
        await write(
            self._session,
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
