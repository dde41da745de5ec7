"""Whether a range of a local file and of a server's are the same: by a hash that the server makes, or by reading it."""

import hashlib
import os
import threading

from .errors import SFTPError
from .extensions import check_file
from .remote import RemoteSource
from .requests import SFTPClientSession
from .threads import in_thread
from .transfer import CopyOptions, Progress

# What is read of the server's file at once; and of the end of a file that is resumed, where only reading can tell.
_PIECE = 8 << 20
_END = 256 * 1024

# The hashes that are asked for.
_HASHES = ('sha256', 'sha512')


class Comparison:
    """Compares the files of one copy."""

    def __init__(self, session: SFTPClientSession, source: RemoteSource, options: CopyOptions) -> None:
        self._session = session
        self._source = source
        self._options = options

    async def is_same(self, handle: bytes, fd: int, size: int) -> bool:
        """Whether the first `size` bytes are the same."""

        return await self._by_hash(handle, fd, size) if self._can_hash else await self._by_reading(handle, fd, 0, size)

    async def is_likely_same(self, handle: bytes, fd: int, size: int) -> bool:
        """Whether the first `size` bytes are the same, or, if the server makes no hashes, the end of them is."""

        if self._can_hash:
            return await self._by_hash(handle, fd, size)

        return await self._by_reading(handle, fd, max(0, size - _END), size)

    @property
    def _can_hash(self) -> bool:
        return b'check-file' in self._session.extensions

    async def _by_hash(self, handle: bytes, fd: int, size: int) -> bool:
        if not size:
            return True

        try:
            check = await check_file(self._session, handle, b'', _HASHES, 0, size, 0)
        except SFTPError:
            # What is offered need not be possible for every file.
            return await self._by_reading(handle, fd, 0, size)

        return await in_thread(lambda stop: _hash_range(fd, check.algorithm, size, stop)) == check.digests[0]

    async def _by_reading(self, handle: bytes, fd: int, begin: int, end: int) -> bool:
        silent = Progress(CopyOptions(), b'', b'', end)

        for offset in range(begin, end, _PIECE):
            size = min(_PIECE, end - offset)
            theirs = await self._source.read(handle, offset, size, self._options.requests, silent)

            if theirs.take_result() != os.pread(fd, size, offset):
                return False

        return True


def _hash_range(fd: int, name: str, size: int, stop: threading.Event) -> bytes:
    digest = hashlib.new(name, usedforsecurity=False)
    done = 0

    while done < size and not stop.is_set() and (data := os.pread(fd, min(_PIECE, size - done), done)):
        digest.update(data)
        done += len(data)

    return digest.digest()
