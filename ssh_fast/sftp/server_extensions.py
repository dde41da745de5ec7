"""The extensions of a server that are more than one call: copy-data, check-file, and names of users and homes.

copy-data, home-directory, expand-path@openssh.com and users-groups-by-id@openssh.com are OpenSSH's (PROTOCOL, section
4); check-file is draft-ietf-secsh-filexfer-extensions-00, section 3.
"""

import asyncio
import errno
import hashlib
import io
import os
import stat
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from .. import constants as c
from ..wire import Cursor, encode_string
from .errors import SFTPBadMessage, SFTPEOFError, SFTPFailure, SFTPInvalidParameter, SFTPPermissionDenied
from .handles import Handle
from .lane import Lane, LanePair
from .longname import look_up
from .server import SFTPServer
from .server_replies import Reply, Request, done, path_reply
from .threads import in_thread

_T = TypeVar('_T')

# What is copied or hashed at once, between two looks at whether the session still wants it.
_COPIED = 16 << 20
_PIECE = 256 * 1024

# The names that one users-groups-by-id may ask for, and the bytes of hashes in a reply: a message is no longer.
_MAX_IDS = 4096
_MAX_HASHES = 128 * 1024

# The draft's: a block is no shorter.
_MIN_BLOCK = 256

#: What check-file can hash with, the first of which is the best.
HASHES = ('sha256', 'sha512', 'sha384', 'sha224', 'sha1', 'md5')

# copy_file_range does not do it between these files, or not here: reading and writing does.
_NOT_IN_THE_KERNEL = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)


# No file reaches further, and the system takes no such offset.
_MAX_OFFSET = 0x7fffffffffffffff


async def awaited(result: Any) -> Any:
    """Wait for what a method of a server returned, if it has to be waited for."""

    return await result if hasattr(result, '__await__') else result


async def _in_turn(turn: asyncio.Lock, work: Callable[[threading.Event], _T]) -> _T:
    """Do something that takes long in a thread, in turn."""

    async with turn:
        return await in_thread(work)


def _check_range(offset: int, length: int) -> None:
    if offset + length > _MAX_OFFSET:
        raise SFTPInvalidParameter('The range lies behind the end of what a file can hold')


def _check_ends(file_obj: object) -> None:
    """Refuse devices, which may never end; of what is not a file of the system its server knows."""

    if isinstance(file_obj, io.FileIO) and not stat.S_ISREG(os.fstat(file_obj.fileno()).st_mode):
        raise SFTPFailure('Not a regular file')


# --- copy-data

def copy_data(
    server: SFTPServer,
    source: Handle,
    target: Handle,
    offset: int,
    length: int,
    to: int,
    turn: asyncio.Lock,
    held: Callable[[], AbstractContextManager[None]],
) -> Request:
    """Copy a range of one open file into another, up to its end if the length is 0.

    While `held()` lasts nothing else is done with the two.

    Raises:
      SFTPInvalidParameter: it is the same handle, or no file reaches so far
    """

    _check_range(offset, length)
    _check_range(to, length)

    if source is target:
        raise SFTPInvalidParameter('A file cannot be copied into the same handle')

    async def call() -> None:
        with held():
            if source.access and target.access:
                files = source.file_obj, target.file_obj
                assert isinstance(files[0], io.FileIO) and isinstance(files[1], io.FileIO)
                copied = await _copy_files(turn, files[0].fileno(), files[1].fileno(), offset, length, to)
            else:
                _check_ends(source.file_obj)
                copied = await _copy_by_calls(server, source.file_obj, target.file_obj, offset, length, to)

            if copied < length:
                raise SFTPEOFError('The source ended before the range did')

    return Request(LanePair(target.lane, source.lane), True, call, done)


async def _copy_files(turn: asyncio.Lock, source: int, target: int, offset: int, length: int, to: int) -> int:
    one, other = os.fstat(source), os.fstat(target)

    if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino) and (
        not length or max(offset, to) < min(offset, to) + length
    ):
        raise SFTPInvalidParameter('A range of a file cannot be copied onto itself')

    # As long as one READ and WRITE, which are not done in threads either.
    if one.st_size and (length or one.st_size - offset) <= _PIECE:
        return _copy_range(source, target, offset, length, to, threading.Event())

    # Of their own: the session may end, and its descriptors become those of other files.
    fds = os.dup(source), os.dup(target)

    try:
        return await _in_turn(turn, lambda stop: _copy_range(*fds, offset, length, to, stop))
    finally:
        for fd in fds:
            os.close(fd)


def _copy_range(source: int, target: int, offset: int, length: int, to: int, stop: threading.Event) -> int:
    copied = 0
    in_kernel = hasattr(os, 'copy_file_range')

    while not stop.is_set() and (not length or copied < length):
        wanted = min(_COPIED, length - copied) if length else _COPIED

        if in_kernel:
            try:
                count = os.copy_file_range(source, target, wanted, offset + copied, to + copied)
            except OSError as exc:
                if exc.errno not in _NOT_IN_THE_KERNEL:
                    raise

                in_kernel = False
                continue

            # Files that are made up as they are read have no size, and nothing for the kernel to copy.
            if not count and not copied:
                in_kernel = False
                continue
        else:
            data = os.pread(source, min(wanted, _PIECE), offset + copied)
            count = len(data)
            rest = memoryview(data)

            while rest:
                written = os.pwrite(target, rest, to + copied + count - len(rest))
                rest = rest[written:]

        if not count:
            break

        copied += count

    return copied


async def _copy_by_calls(
    server: SFTPServer, source: object, target: object, offset: int, length: int, to: int
) -> int:
    copied = 0

    if not length:
        # As it is now: it may be the file that is copied into. Those without a size are read to their end.
        attrs = await awaited(server.fstat(source))
        size = attrs.st_size if isinstance(attrs, os.stat_result) else attrs.size
        length = max(0, (size or 0) - offset)

        if size and not length:
            return 0

    while not length or copied < length:
        wanted = min(_PIECE, length - copied) if length else _PIECE
        data = await awaited(server.read(source, offset + copied, wanted))

        if not data:
            break

        await awaited(server.write(target, to + copied, data))
        copied += len(data)
        # Methods that are plain would hold up everybody else.
        await asyncio.sleep(0)

    return copied


# --- check-file

def check_file(
    server: SFTPServer,
    opened: Handle,
    algorithms: bytes,
    offset: int,
    length: int,
    block_size: int,
    turn: asyncio.Lock,
) -> Callable[[], Awaitable[Reply]]:
    """Return what hashes a range of an open file, or each block of it: up to its end if the length is 0.

    Raises:
      SFTPInvalidParameter: none of the hashes is known, the blocks are too short, or no file reaches so far
    """

    _check_range(offset, length)

    wanted = algorithms.decode('ascii', 'replace').split(',')
    name = next((name for name in wanted if name in HASHES), None)

    if name is None:
        raise SFTPInvalidParameter(f'Expected one of the hashes {", ".join(HASHES)}')

    if block_size and block_size < _MIN_BLOCK:
        raise SFTPInvalidParameter(f'Expected blocks of at least {_MIN_BLOCK} bytes, got {block_size}')

    async def check() -> Reply:
        _check_ends(opened.file_obj)

        if opened.access:
            assert isinstance(opened.file_obj, io.FileIO)
            fd = os.dup(opened.file_obj.fileno())

            try:
                digests = await _in_turn(turn, lambda stop: _hash_file(fd, name, offset, length, block_size, stop))
            finally:
                os.close(fd)
        else:
            digests = await _hash_by_calls(server, opened.file_obj, name, offset, length, block_size)

        return c.FXP_EXTENDED_REPLY, encode_string(b'check-file') + encode_string(name.encode()) + digests

    return check


class _Digests:
    """The hashes of a file's blocks, as its data comes."""

    def __init__(self, name: str, block_size: int) -> None:
        self._name = name
        self._block_size = block_size
        self._hash = hashlib.new(name, usedforsecurity=False)
        self._left = block_size
        self._digests = b''

    def wanted(self, left: int | None) -> int:
        """Return how much to read next, of so much that is left."""

        return min(self._left or _PIECE, _PIECE, _PIECE if left is None else left)

    def update(self, data: bytes) -> None:
        """Take some data, no more than was wanted."""

        self._hash.update(data)

        if self._block_size:
            self._left -= len(data)

            if not self._left:
                self._end_block()

    def _end_block(self) -> None:
        self._digests += self._hash.digest()
        self._hash = hashlib.new(self._name, usedforsecurity=False)
        self._left = self._block_size

        if len(self._digests) > _MAX_HASHES:
            raise SFTPInvalidParameter('Expected fewer hashes: blocks that are longer, or a shorter range')

    def finish(self) -> bytes:
        """Return the hashes of all blocks, the last of which may be shorter."""

        if not self._block_size or self._left < self._block_size:
            self._end_block()

        return self._digests


def _hash_file(fd: int, name: str, offset: int, length: int, block_size: int, stop: threading.Event) -> bytes:
    digests = _Digests(name, block_size)
    done = 0

    while not stop.is_set() and (not length or done < length):
        data = os.pread(fd, digests.wanted(length - done if length else None), offset + done)

        if not data:
            break

        digests.update(data)
        done += len(data)

    return digests.finish()


async def _hash_by_calls(
    server: SFTPServer, file_obj: object, name: str, offset: int, length: int, block_size: int
) -> bytes:
    digests = _Digests(name, block_size)
    done = 0

    while not length or done < length:
        wanted = digests.wanted(length - done if length else None)
        data = await awaited(server.read(file_obj, offset + done, wanted))

        if not data:
            break

        digests.update(data[:wanted])
        done += len(data)
        await asyncio.sleep(0)

    return digests.finish()


# --- names

def home_directory(server: SFTPServer, lane: Lane, user: bytes) -> Request:
    """Tell a user's home directory; no name is the user who is logged in."""

    return Request(lane, False, lambda: server.home_directory(user), path_reply)


def expand_path(server: SFTPServer, lane: Lane, path: bytes) -> Request:
    """Make a path that may begin with `~` or `~user` absolute."""

    async def call() -> bytes:
        if not path.startswith(b'~'):
            expanded: bytes = await awaited(server.realpath(path))

            return expanded

        user, slash, rest = path[1:].partition(b'/')
        home: bytes = await awaited(server.home_directory(user))
        expanded = await awaited(server.realpath(home.rstrip(b'/') + slash + rest if slash else home))

        return expanded

    return Request(lane, False, call, path_reply)


def names_of_ids(server: SFTPServer, lane: Lane, users: bytes, groups: bytes) -> Request:
    """Tell the names of users and groups; what has no name gets an empty one."""

    if len(users) % 4 or len(groups) % 4:
        raise SFTPBadMessage('Expected ids of 4 bytes each')

    if len(users) + len(groups) > 4 * _MAX_IDS:
        raise SFTPFailure(f'Expected at most {_MAX_IDS} ids, got {(len(users) + len(groups)) // 4}')

    def numbers(ids: bytes) -> list[int]:
        cursor = Cursor(ids)

        return [cursor.uint32() for _ in range(len(ids) // 4)]

    def names(ids: list[int], name_of: Callable[[int], str]) -> bytes:
        found = [(name_of(number), str(number)) for number in ids]

        return b''.join(encode_string(b'' if name == number else name.encode()) for name, number in found)

    async def call() -> Reply:
        uids, gids = numbers(users), numbers(groups)
        # Where a directory service knows them it may take long.
        await asyncio.to_thread(look_up, uids, gids)
        body = encode_string(names(uids, server.format_user)) + encode_string(names(gids, server.format_group))

        return c.FXP_EXTENDED_REPLY, body

    return Request(lane, False, call, lambda reply: reply)


# --- read-only

_CHANGES = frozenset((
    c.FXP_WRITE, c.FXP_SETSTAT, c.FXP_FSETSTAT, c.FXP_REMOVE, c.FXP_MKDIR, c.FXP_RMDIR, c.FXP_RENAME, c.FXP_SYMLINK,
))
_EXTENDED_CHANGES = frozenset((
    b'posix-rename@openssh.com', b'hardlink@openssh.com', b'fsync@openssh.com', b'lsetstat@openssh.com', b'copy-data',
))


def refuse_changes(message_type: int, cursor: Cursor) -> None:
    """Refuse a request that would change something, before anything is looked at: the server is read-only.

    Raises:
      SFTPPermissionDenied: it would
    """

    changes = message_type in _CHANGES

    if message_type == c.FXP_OPEN:
        cursor.string()
        changes = bool(cursor.uint32() & (c.FXF_WRITE | c.FXF_APPEND | c.FXF_CREAT | c.FXF_TRUNC | c.FXF_EXCL))
    elif message_type == c.FXP_EXTENDED:
        changes = cursor.string() in _EXTENDED_CHANGES

    if changes:
        raise SFTPPermissionDenied('This server is read-only')
