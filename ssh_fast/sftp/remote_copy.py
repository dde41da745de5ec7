"""Copies from a server to itself: done by the server where it can, else through this client."""

import asyncio
import os
from collections.abc import Sequence

from .. import constants as c
from .._sftp_codec import WritePipeline
from ..wire import encode_string, encode_uint64
from .attrs import SFTPAttrs
from .errors import SFTPFailure
from .remote import RemoteSource, RemoteTarget, preserved, write
from .remote_output import RemoteOutput
from .requests import SFTPClientSession
from .symlink import SymlinkOrder
from .transfer import Copy, CopyOptions, Progress, Transfer

# What is read and written at once of a file that passes through, and what a server is asked to copy at once.
_RELAYED = 8 << 20
_COPIED = 64 << 20

# The sizes of files that are made up as they are read are not known: they are read in pieces of this.
_PIECE = 1 << 20


async def copy_remote(
    session: SFTPClientSession,
    links: SymlinkOrder,
    sources: Sequence[bytes],
    many: bool,
    target: bytes | None,
    options: CopyOptions,
) -> Transfer:
    """Copy files or trees on the server; `many` sources need a directory to go to."""

    copy = _RemoteCopy(session, RemoteTarget(session, links), options)

    return await Copy(options, copy.source, copy.target, copy.copy_file).run(sources, many, target)


class _RemoteCopy:
    def __init__(self, session: SFTPClientSession, target: RemoteTarget, options: CopyOptions) -> None:
        self._session = session
        self._options = options
        self.source = RemoteSource(session, options)
        self.target = target

    async def copy_file(self, source: bytes, attrs: SFTPAttrs, place: bytes) -> int:
        session = self._session

        # The destination would be emptied before it is read.
        if await self._same(source, place):
            raise SFTPFailure('The source and the destination are the same file')

        read_handle = await self.source.open(source)

        try:
            attrs = await session.attrs(c.FXP_FSTAT, encode_string(read_handle))
            size = attrs.size or 0
            output = RemoteOutput(session, place, await self.target.create(place, attrs))

            try:
                if b'copy-data' in session.extensions:
                    await self._copy_data(source, read_handle, output.handle, size, place)
                else:
                    size = await self._relay(source, read_handle, output.handle, size, place)
            except BaseException as exc:
                output.discard(getattr(exc, 'offset', None))
                raise

            await output.finish(preserved(attrs) if self._options.preserve else None)
        finally:
            session.forget_handle(read_handle)

        return size

    async def _same(self, source: bytes, path: bytes) -> bool:
        paths = [await self._session.path(c.FXP_REALPATH, encode_string(each)) for each in (source, path)]

        return paths[0] == paths[1]

    async def _copy_data(self, source: bytes, read_handle: bytes, write_handle: bytes, size: int, path: bytes) -> None:
        """Have the server copy, piece by piece for the progress; the last piece reaches to the end."""

        progress = Progress(self._options, source, path, size)
        done = 0

        while True:
            last = size - done <= _COPIED
            where = encode_uint64(done) + encode_uint64(0 if last else _COPIED)
            body = encode_string(read_handle) + where + encode_string(write_handle) + encode_uint64(done)
            await self._session.extended_status(b'copy-data', body)
            done = size if last else done + _COPIED
            progress.tell(done)

            if last:
                break

    async def _relay(self, source: bytes, read_handle: bytes, write_handle: bytes, size: int, path: bytes) -> int:
        """Pass the data through: while a piece is written the next one is read; returns how much it was."""

        progress = Progress(self._options, source, path, size)
        silent = Progress(CopyOptions(), source, path, size)
        session = self._session
        block = self._options.block(session.write_size, session.write_size)
        requests = self._options.requests

        async def read(offset: int) -> bytes:
            # Files without a size are read to their end, one request after another.
            if not size:
                return (await self.source.read(read_handle, offset, _PIECE, 1, silent)).take_result()

            wanted = min(_RELAYED, size - offset)

            if wanted <= 0:
                return b''

            data = (await self.source.read(read_handle, offset, wanted, requests, silent)).take_result()

            if len(data) < wanted:
                exc = SFTPFailure(f'{os.fsdecode(source)} ended after {offset + len(data)} of {size} bytes')
                exc.offset = offset + len(data)
                raise exc

            return data

        done = 0
        data = await read(0)

        while data:
            following = asyncio.ensure_future(read(done + len(data)))

            try:
                piece, begin = data, done
                await write(
                    session,
                    lambda ended, piece=piece, begin=begin: WritePipeline(  # type: ignore[misc]
                        session.assembler,
                        write_handle,
                        done=ended,
                        block_size=block,
                        max_requests=requests,
                        data=piece,
                        offset=begin,
                        progress=progress.begin(begin),
                    ),
                    source,
                )
                done += len(data)
                data = await following
            finally:
                if not following.done():
                    following.cancel()
                elif not following.cancelled():
                    # Where the write failed, that the read did too is of no interest.
                    following.exception()

        progress.total = max(size, done)
        progress.tell(done)

        return done
