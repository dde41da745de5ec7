"""The parts of files that are downloaded: beside the files, under other names, until they are whole."""

import contextlib
import errno
import os
import stat

from .attrs import SFTPAttrs
from .errors import SFTPFailure
from .local import LocalOutput, LocalPlace, named_error

# Between the dots that surround it this leaves room for what is added: a name has at most 255 bytes.
_LONGEST_NAME = 230
_RANDOM = 6
_MODE = 0o200


def part_name(name: bytes, resume: bool) -> bytes:
    """Return the name of a file's part: one that is found again to be resumed, or one that nobody can know."""

    middle = b'' if resume else b'.' + os.urandom(_RANDOM).hex().encode()

    return b'.' + name[:_LONGEST_NAME] + middle + b'.part'


class LocalPart(LocalOutput):
    """The part of a file, in a directory that is known by its descriptor; it becomes the file when it is finished."""

    def __init__(
        self, place: LocalPlace, fd: int, directory: int, names: tuple[bytes, bytes], mode: int | None, keep: bool
    ) -> None:
        super().__init__(place, fd, created=True, keep=keep)
        self._directory = directory
        self._part, self._name = names
        self._mode = mode

    def finish(self, attrs: SFTPAttrs | None, sync: bool = False) -> None:
        """Give the part its name, behind what is done with any file; without attributes, the mode of the old file."""

        if attrs is None and self._mode is not None:
            os.fchmod(self.fd, self._mode)

        try:
            super().finish(attrs, sync)
        finally:
            if self.fd < 0:
                os.close(self._directory)

    def discard(self, whole: int = 0) -> None:
        """Remove the part, or keep what is whole of it for who resumes."""

        if self.fd >= 0:
            super().discard(whole)
            os.close(self._directory)

    def _arrive(self, sync: bool) -> None:
        os.rename(self._part, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)

        if sync:
            os.fsync(self._directory)

    def _withdraw(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._part, dir_fd=self._directory)


def open_part(place: LocalPlace, permissions: int | None, resume: bool, read: bool) -> LocalOutput:
    """Open the part of a file, or the file itself where that is a device: nothing can take its place."""

    directory, name = place.open_directory()

    try:
        there = _look(directory, name)

        if there is not None and not stat.S_ISREG(there):
            os.close(directory)

            return place.create(permissions, read=read)

        part = part_name(name, resume)
        mode = (0o666 if permissions is None else permissions & 0o777) | _MODE
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(part, flags if resume else flags | os.O_EXCL, mode, dir_fd=directory)

        if resume:
            _check_own(fd)
    except OSError as exc:
        os.close(directory)
        raise named_error(exc, place.path) from None
    except BaseException:
        os.close(directory)
        raise

    return LocalPart(place, fd, directory, (part, name), None if there is None else stat.S_IMODE(there), resume)


def _look(directory: int, name: bytes) -> int | None:
    """Return the mode of what has the name; a directory or a link cannot be replaced by a file."""

    try:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None

    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))

    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    return mode


def _check_own(fd: int) -> None:
    """See that a part with a name that anybody can know is a file of ours alone."""

    result = os.fstat(fd)

    if not stat.S_ISREG(result.st_mode) or result.st_uid != os.geteuid() or result.st_nlink != 1:
        os.close(fd)
        raise SFTPFailure('The part of the file that was left is not a file of this user alone: remove it')
