"""The open files and directories of one SFTP session, by the handles that the client knows them by."""

import os
import resource
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from ..wire import encode_uint32
from .attrs import SFTPName
from .errors import SFTPFailure, SFTPInvalidHandle
from .lane import Lane

# How many descriptors OpenSSH leaves for other things than handles; and a bound where the system has none.
_SPARE_DESCRIPTORS = 5
_MAX_HANDLES = 65536


@dataclass(slots=True)
class Handle:
    """An open file, or a directory being listed.

    `access` says whether a file that compiled code serves can be read, written, and only appended to; `held` counts the
    requests that keep it from doing so.
    """

    file_obj: object = None
    names: AsyncIterator[SFTPName] | None = None
    held_back: SFTPName | None = None
    access: tuple[bool, bool, bool] | None = None
    held: int = 0
    lane: Lane = field(default_factory=Lane)


def _default_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)

    return _MAX_HANDLES if soft == resource.RLIM_INFINITY else max(min(soft - _SPARE_DESCRIPTORS, _MAX_HANDLES), 1)


class HandleTable:
    """Gives out handles that are not those of any other session, and no more than the process can have files open."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit or _default_limit()
        self._prefix = os.urandom(4)
        self._count = 0
        self._opening = 0
        self._handles: dict[bytes, Handle] = {}

    def reserve(self) -> None:
        """Count a file that is being opened; SFTPFailure if there are too many already."""

        if len(self._handles) + self._opening >= self.limit:
            raise SFTPFailure('Too many open handles')

        self._opening += 1

    def unreserve(self) -> None:
        """Note that the file is open, or could not be opened."""

        self._opening -= 1

    def add(self, opened: Handle) -> bytes:
        """Give a handle to an open file."""

        self._count += 1
        handle = self._prefix + encode_uint32(self._count & 0xffffffff)
        self._handles[handle] = opened

        return handle

    def find(self, handle: bytes) -> Handle:
        """Return what a handle stands for; SFTPInvalidHandle if it is not an open one of this session."""

        opened = self._handles.get(handle)

        if opened is None:
            raise SFTPInvalidHandle('Not an open handle of this session')

        return opened

    def remove(self, handle: bytes) -> Handle:
        """Take a handle back; it may have been closed since the request came."""

        opened = self.find(handle)
        del self._handles[handle]

        return opened

    def __contains__(self, handle: object) -> bool:
        return handle in self._handles

    def __iter__(self) -> Iterator[bytes]:
        return iter(list(self._handles))
