"""A bounded memory of parsed files, valid as long as the file's size, times and inode stay what they were."""

import os
import threading
from collections import OrderedDict
from typing import Generic, TypeVar

_T = TypeVar('_T')


class FileCache(Generic[_T]):
    """The values parsed from the files used last; safe to use from several threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[tuple[str, object], tuple[tuple[int, ...], _T]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: str, extra: object, status: os.stat_result) -> _T | None:
        """Return the value of a file that is still what it was; `extra` tells apart several values of one file."""

        with self._lock:
            entry = self._entries.get((path, extra))

            if entry is None or entry[0] != _stamp(status):
                return None

            self._entries.move_to_end((path, extra))

            return entry[1]

    def put(self, path: str, extra: object, status: os.stat_result, value: _T) -> None:
        """Remember a value; `status` must be of the descriptor that was read, taken before reading."""

        with self._lock:
            self._entries[path, extra] = _stamp(status), value
            self._entries.move_to_end((path, extra))

            while len(self._entries) > self._size:
                self._entries.popitem(last=False)


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_bounded(path: str, limit: int) -> tuple[bytes, os.stat_result]:
    """Read a file of at most `limit` bytes; more raises `ValueError`. The status is as of before reading."""

    with open(path, 'rb') as file:
        status = os.fstat(file.fileno())
        data = file.read(limit + 1)

    if len(data) > limit:
        raise ValueError(f'{path}: expected a file of at most {limit} bytes')

    return data, status
