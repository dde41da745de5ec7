"""The local side of copies: files and directories that are made without following a link that the user did not name."""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import TypeVar

from .attrs import SFTPAttrs
from .errors import SFTPFailure

_T = TypeVar('_T')

# What a download makes its owner can write and enter: a later copy must be able to.
_FILE_MODE = 0o200
_DIRECTORY_MODE = 0o700

# Holes that are smaller are sent as zeros: a round trip costs more.
_MIN_HOLE = 1 << 20


class LocalDirectory:
    """A directory that is being filled, known by its descriptor, so that nothing can be put in its place."""

    def __init__(self, fd: int, path: bytes, depth: int) -> None:
        self.fd = fd
        self.path = path
        self.depth = depth

    def close(self) -> None:
        """Close the descriptor."""

        os.close(self.fd)


class LocalPlace:
    """Where a file is going to be: a path that the user named, or a name in a directory that is being filled.

    A link at a path that the user named is followed; one in a directory that is being filled is an error.
    """

    def __init__(self, path: bytes, directory: LocalDirectory | None = None) -> None:
        self.path = path
        self._name = path if directory is None else os.path.basename(path)
        self._dir_fd = None if directory is None else directory.fd
        self._depth = 0 if directory is None else directory.depth
        self._no_follow = 0 if directory is None else os.O_NOFOLLOW

    def make_directory(self, permissions: int | None) -> LocalDirectory:
        """Make the directory unless it is there, and open it."""

        mode = 0o777 if permissions is None else permissions & 0o777

        with contextlib.suppress(FileExistsError):
            os.mkdir(self._name, mode | _DIRECTORY_MODE, dir_fd=self._dir_fd)

        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | self._no_follow
        fd = self._named(lambda: os.open(self._name, flags, dir_fd=self._dir_fd))

        return LocalDirectory(fd, self.path, self._depth + 1)

    def open_directory(self) -> tuple[int, bytes]:
        """Open the directory that the file is going to be in, behind the links that are followed; with its name there.

        The descriptor is the caller's to close.
        """

        if self._dir_fd is not None:
            return os.dup(self._dir_fd), self._name

        parent, name = os.path.split(os.path.realpath(self.path))

        return self._named(lambda: os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)), name

    def stat(self) -> os.stat_result | None:
        """Return what is there, None if nothing is."""

        try:
            return os.stat(self._name, dir_fd=self._dir_fd, follow_symlinks=not self._no_follow)
        except FileNotFoundError:
            return None

    def create(self, permissions: int | None, keep: bool = False, read: bool = False) -> 'LocalOutput':
        """Create the file, or empty the one that is there; `keep` leaves it as it is, to be resumed.

        With `read` it can be read as well.
        """

        mode = (0o666 if permissions is None else permissions & 0o777) | _FILE_MODE
        flags = os.O_RDWR if read else os.O_WRONLY
        flags |= os.O_CLOEXEC | os.O_NONBLOCK | self._no_follow
        empty = 0 if keep else os.O_TRUNC

        try:
            fd = os.open(self._name, flags | os.O_CREAT | os.O_EXCL, mode, dir_fd=self._dir_fd)
            created = True
        except FileExistsError:
            created = False
            fd = self._named(lambda: os.open(self._name, flags | os.O_CREAT | empty, mode, dir_fd=self._dir_fd))

        kind = os.fstat(fd).st_mode

        if not stat.S_ISREG(kind) and (self._no_follow or not stat.S_ISCHR(kind)):
            os.close(fd)
            raise SFTPFailure('The local file is not a regular file')

        return LocalOutput(self, fd, created, keep)

    def make_link(self, target: bytes) -> None:
        """Make a symbolic link, or replace one; SFTPFailure if it would lead out of the tree that is being copied."""

        depth = self._depth

        for name in target.split(b'/'):
            depth += -1 if name == b'..' else name not in (b'', b'.')

            if depth < 0 or target.startswith(b'/'):
                raise SFTPFailure(
                    f'The symbolic link leads out of the copied tree, to {target[:256]!r}: use follow_symlinks'
                )

        try:
            if stat.S_ISLNK(os.stat(self._name, dir_fd=self._dir_fd, follow_symlinks=False).st_mode):
                os.unlink(self._name, dir_fd=self._dir_fd)
        except FileNotFoundError:
            pass

        self._named(lambda: os.symlink(target, self._name, dir_fd=self._dir_fd))

    def remove(self) -> None:
        """Remove the file."""

        os.unlink(self._name, dir_fd=self._dir_fd)

    def _named(self, call: Callable[[], _T]) -> _T:
        """Make a call whose error is to name the whole path."""

        try:
            return call()
        except OSError as exc:
            raise named_error(exc, self.path) from None


class LocalOutput:
    """A file that is being written. If the copy fails nothing stays that could be taken for the whole file."""

    def __init__(self, place: LocalPlace, fd: int, created: bool, keep: bool) -> None:
        self.fd = fd
        self._place = place
        self._created = created
        self._keep = keep

    def finish(self, attrs: SFTPAttrs | None, sync: bool = False) -> None:
        """Set the attributes, if there are any, and close the file; its last errors are raised here.

        With `sync` it is on its disk when this returns.
        """

        fd = self.fd

        try:
            if attrs is not None:
                set_local_attrs(fd, attrs)

            if sync:
                os.fsync(fd)
        except OSError as exc:
            raise named_error(exc, self._place.path) from None

        self.fd = -1

        try:
            os.close(fd)
            self._arrive(sync)
        except OSError as exc:
            self._withdraw()
            raise named_error(exc, self._place.path) from None

    def discard(self, whole: int = 0) -> None:
        """Remove the file if it was not there before, else leave it empty; keep what is whole for who resumes."""

        if self.fd < 0:
            return

        kept = False

        try:
            if stat.S_ISREG(os.fstat(self.fd).st_mode):
                os.ftruncate(self.fd, whole if self._keep else 0)
                kept = self._keep and whole > 0
        except OSError:
            # What cannot be cut does not hide the error that is being raised.
            pass
        finally:
            os.close(self.fd)
            self.fd = -1

        if not kept:
            self._withdraw()

    def _arrive(self, sync: bool) -> None:
        """Do what makes the whole file be seen."""

    def _withdraw(self) -> None:
        if self._created:
            with contextlib.suppress(OSError):
                self._place.remove()


def named_error(exc: OSError, path: bytes) -> OSError:
    """Make the same error again, with the whole path as its file name."""

    code = exc.errno or errno.EIO

    return OSError(code, os.strerror(code), os.fsdecode(path))


def set_local_attrs(fd: int, attrs: SFTPAttrs) -> None:
    """Set permissions, without the set-id bits that a server should not give to files here, and times."""

    if attrs.permissions is not None:
        os.fchmod(fd, attrs.permissions & 0o777)

    if attrs.atime is not None and attrs.mtime is not None:
        os.utime(fd, (attrs.atime, attrs.mtime))


def open_local(path: bytes, follow: bool) -> tuple[int, os.stat_result]:
    """Open a local file to read it; only regular files, as others may never end."""

    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    # As text, with which the error names it.
    fd = os.open(os.fsdecode(path), flags)
    result = os.fstat(fd)

    if not stat.S_ISREG(result.st_mode):
        os.close(fd)
        raise SFTPFailure('The local file is not a regular file')

    return fd, result


def first_hole(fd: int, size: int) -> int:
    """Return where the first hole of a file is; its size if there is none, or the system does not tell."""

    if not size or not hasattr(os, 'SEEK_HOLE'):
        return size

    try:
        return min(os.lseek(fd, 0, os.SEEK_HOLE), size)
    except OSError:
        return size


def data_ranges(fd: int, size: int, sparse: bool) -> Iterator[tuple[int, int]]:
    """Yield begin and end of the parts of a file that hold data; all of it unless holes are to be found."""

    if not sparse or not hasattr(os, 'SEEK_DATA') or os.fstat(fd).st_blocks * 512 >= size:
        yield 0, size
        return

    begin = end = 0

    while end < size:
        try:
            data = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                break

            # A file system that does not tell its holes.
            data = end

        if data - end >= _MIN_HOLE:
            if end > begin:
                yield begin, end

            begin = data

        try:
            end = min(os.lseek(fd, data, os.SEEK_HOLE), size)
        except OSError:
            end = size

    if end > begin:
        yield begin, end
