"""The SFTP server that applications subclass: each request is one method, done here on the local file system."""

import errno
import io
import os
import posixpath
import pwd
import stat
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any, Protocol, cast

from ..constants import FXF_APPEND, FXF_CREAT, FXF_EXCL, FXF_READ, FXF_TRUNC, FXF_WRITE
from .attrs import SFTPAttrs, SFTPName, SFTPVFSAttrs
from .confine import ConfinedPaths, HostPaths, Paths, Place, below, check_path, components
from .errors import SFTPFailure, SFTPFileAlreadyExists, SFTPInvalidParameter, SFTPNoSuchFile
from .longname import group_name, long_name, user_name

_StatResult = os.stat_result | SFTPAttrs
_VFSResult = os.statvfs_result | SFTPVFSAttrs


class ServerChannel(Protocol):
    """What the server needs of the channel that it is given."""

    @property
    def logger(self) -> Any:
        """The logger that names the connection and channel."""

    def get_connection(self) -> Any:
        """The connection that the channel belongs to."""

    def get_environment(self) -> Mapping[str, str]:
        """The environment variables that the client sent."""


def _open_flags(pflags: int) -> int:
    """Turn the flags of an OPEN request into those of open(2)."""

    writes = pflags & (FXF_WRITE | FXF_APPEND)

    # What POSIX does with O_TRUNC on a file opened for reading is anybody's guess; on Linux the file is emptied.
    if pflags & FXF_TRUNC and not writes:
        raise SFTPInvalidParameter('A file that is opened for reading only cannot be truncated')

    # Without O_NONBLOCK the open of a FIFO would wait for its other end.
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    flags |= os.O_RDONLY if not writes else os.O_RDWR if pflags & FXF_READ else os.O_WRONLY

    for pflag, flag in ((FXF_APPEND, os.O_APPEND), (FXF_CREAT, os.O_CREAT), (FXF_TRUNC, os.O_TRUNC)):
        if pflags & pflag:
            flags |= flag

    if pflags & FXF_CREAT and pflags & FXF_EXCL:
        flags |= os.O_EXCL

    return flags


def _open_place(place: Place, flags: int, mode: int = 0o666) -> int:
    """Open a place; where links are not followed, one that appears there in the last moment is an error."""

    return os.open(place.name, flags if place.follow else flags | os.O_NOFOLLOW, mode, dir_fd=place.dir_fd)


def _set_mode(place: Place, mode: int) -> None:
    """Change permissions, of a link's target only where links are followed."""

    if place.follow:
        os.chmod(place.name, mode)
    elif os.chmod in os.supports_follow_symlinks:
        os.chmod(place.name, mode, dir_fd=place.dir_fd, follow_symlinks=False)
    else:
        # Linux changes no mode through an O_PATH descriptor itself, but does through its name in /proc.
        fd = _open_place(place, os.O_PATH | os.O_CLOEXEC)

        try:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

            os.chmod(f'/proc/self/fd/{fd}', mode)
        finally:
            os.close(fd)


def _times_ns(attrs: SFTPAttrs) -> tuple[int, int] | None:
    """Return access and modification time in nanoseconds, if the attributes have both."""

    def nanoseconds(seconds: float | None, exact: int | None) -> int | None:
        return exact if exact is not None else None if seconds is None else int(seconds * 1_000_000_000)

    atime = nanoseconds(attrs.atime, attrs.atime_ns)
    mtime = nanoseconds(attrs.mtime, attrs.mtime_ns)

    return None if atime is None or mtime is None else (atime, mtime)


def _set_place_attrs(place: Place, attrs: SFTPAttrs) -> None:
    """Set what the attributes name. The owner goes before the mode: a change of owner clears the set-user-id bits."""

    if attrs.size is not None:
        fd = _open_place(place, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)

        try:
            os.ftruncate(fd, attrs.size)
        finally:
            os.close(fd)

    if attrs.uid is not None and attrs.gid is not None:
        os.chown(place.name, attrs.uid, attrs.gid, dir_fd=place.dir_fd, follow_symlinks=place.follow)

    if attrs.permissions is not None:
        _set_mode(place, stat.S_IMODE(attrs.permissions))

    times = _times_ns(attrs)

    if times is not None:
        os.utime(place.name, ns=times, dir_fd=place.dir_fd, follow_symlinks=place.follow)


def _set_fd_attrs(fd: int, attrs: SFTPAttrs) -> None:
    """Set what the attributes name on an open file."""

    if attrs.size is not None:
        os.ftruncate(fd, attrs.size)

    if attrs.uid is not None and attrs.gid is not None:
        os.chown(fd, attrs.uid, attrs.gid)

    if attrs.permissions is not None:
        os.chmod(fd, stat.S_IMODE(attrs.permissions))

    times = _times_ns(attrs)

    if times is not None:
        os.utime(fd, ns=times)


class SFTPServer:
    """Serves the files of the local file system; subclass it to serve others, or to change what is allowed.

    One is made for each SFTP session, by the `sftp_factory` of the server. Any method may be a coroutine instead. An
    `SFTPError` or `OSError` that a method raises becomes the status that the client gets, any other exception a plain
    failure. With `chroot` clients see this directory as `/` and cannot leave it, by `..`, symbolic links or renames.
    A subclass that overrides `map_path` and `reverse_map_path` shows its own tree. With `read_only` whatever would
    change something is refused before a method is called, by SCP too; a subclass may have it as an attribute.
    """

    read_only = False

    def __init__(
        self, chan: ServerChannel, chroot: bytes | str | os.PathLike[str] | None = None, *, read_only: bool = False
    ) -> None:
        self._chan = chan
        self.read_only = read_only or self.read_only
        self._chroot: bytes | None = None
        self._paths: Paths = HostPaths()

        if chroot is not None:
            self._chroot = os.path.realpath(os.fsencode(chroot))
            self._paths = ConfinedPaths(self._chroot)

    @property
    def channel(self) -> Any:
        """The channel that the session runs on."""

        return self._chan

    @property
    def connection(self) -> Any:
        """The connection that the session runs on."""

        return self._chan.get_connection()

    @property
    def env(self) -> Mapping[str, str]:
        """The environment variables that the client sent."""

        return self._chan.get_environment()

    @property
    def logger(self) -> Any:
        """The logger of the session's channel, for SFTP."""

        return self._chan.logger.child('sftp')

    # --- names

    def format_user(self, uid: int | None) -> str:
        """Return the user name that `format_longname` shows."""

        return '' if uid is None else user_name(uid)

    def format_group(self, gid: int | None) -> str:
        """Return the group name that `format_longname` shows."""

        return '' if gid is None else group_name(gid)

    def format_longname(self, name: SFTPName) -> Awaitable[None] | None:
        """Set the name's `longname` to the line that `ls -l` would show."""

        name.longname = long_name(name, self.format_user(name.attrs.uid), self.format_group(name.attrs.gid))

        return None

    def map_path(self, path: bytes) -> bytes:
        """Turn the path of a client into one of the local file system."""

        if self._chroot is None:
            return path

        check_path(path)

        return b'/'.join([self._chroot.rstrip(b'/'), *components(posixpath.normpath(b'/' + path))]) or b'/'

    def reverse_map_path(self, path: bytes) -> bytes:
        """Turn a path of the local file system into the one that the client knows it by."""

        if self._chroot is None:
            return path

        names = below(self._chroot, posixpath.normpath(path))

        if names is None:
            raise SFTPNoSuchFile('No such file')

        return b'/' + b'/'.join(names)

    # --- open files

    def open(self, path: bytes, pflags: int, attrs: SFTPAttrs) -> object | Awaitable[object]:
        """Open a file and return an object for it, which the methods of open files then get as `file_obj`.

        `pflags` are the FXF_ flags of version 3; `attrs.permissions` is the mode of a file that is created. READ and
        WRITE on the unbuffered file that is returned here never reach `read` and `write`, unless these are overridden.
        """

        flags = _open_flags(pflags)
        mode = 0o666 if attrs.permissions is None else stat.S_IMODE(attrs.permissions)

        with self._paths.locate(self.map_path(path), follow=not flags & os.O_EXCL) as place:
            fd = _open_place(place, flags, mode)

        try:
            kind = os.fstat(fd).st_mode

            if stat.S_ISDIR(kind):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))

            if not stat.S_ISREG(kind) and not stat.S_ISCHR(kind):
                raise SFTPFailure('Not a regular file')

            access = flags & os.O_ACCMODE

            return io.FileIO(fd, 'r' if access == os.O_RDONLY else 'w' if access == os.O_WRONLY else 'r+')
        except BaseException:
            os.close(fd)
            raise

    def close(self, file_obj: object) -> Awaitable[None] | None:
        """Close an open file."""

        cast(io.IOBase, file_obj).close()

        return None

    def read(self, file_obj: object, offset: int, size: int) -> bytes | Awaitable[bytes]:
        """Read up to `size` bytes at an offset; no bytes are the end of the file."""

        if isinstance(file_obj, io.FileIO):
            return os.pread(file_obj.fileno(), size, offset)

        file = cast(io.BufferedIOBase, file_obj)
        file.seek(offset)

        return file.read(size)

    def write(self, file_obj: object, offset: int, data: bytes) -> int | Awaitable[int]:
        """Write all of the data at an offset, or at the end of a file that was opened for appending."""

        if isinstance(file_obj, io.FileIO):
            view, fd = memoryview(data), file_obj.fileno()

            while view:
                count = os.pwrite(fd, view, offset)
                view, offset = view[count:], offset + count

            return len(data)

        file = cast(io.BufferedIOBase, file_obj)
        file.seek(offset)

        return file.write(data)

    def fstat(self, file_obj: object) -> _StatResult | Awaitable[_StatResult]:
        """Return the attributes of an open file."""

        return os.fstat(self._fileno(file_obj))

    def fsetstat(self, file_obj: object, attrs: SFTPAttrs) -> Awaitable[None] | None:
        """Change the attributes of an open file."""

        _set_fd_attrs(self._fileno(file_obj), attrs)

        return None

    def fstatvfs(self, file_obj: object) -> _VFSResult | Awaitable[_VFSResult]:
        """Return the figures of the file system that holds an open file."""

        return os.statvfs(self._fileno(file_obj))

    def fsync(self, file_obj: object) -> Awaitable[None] | None:
        """Bring an open file's data to the disk. For a file that `open` returned this runs in a thread."""

        os.fsync(self._fileno(file_obj))

        return None

    # --- paths

    def stat(self, path: bytes) -> _StatResult | Awaitable[_StatResult]:
        """Return the attributes of a file; of a link's target if it is a link."""

        with self._paths.locate(self.map_path(path)) as place:
            return os.stat(place.name, dir_fd=place.dir_fd, follow_symlinks=place.follow)

    def lstat(self, path: bytes) -> _StatResult | Awaitable[_StatResult]:
        """Return the attributes of a file or of a link itself."""

        with self._paths.locate(self.map_path(path), follow=False) as place:
            return os.stat(place.name, dir_fd=place.dir_fd, follow_symlinks=False)

    def setstat(self, path: bytes, attrs: SFTPAttrs) -> Awaitable[None] | None:
        """Change the attributes of a file; of a link's target if it is a link."""

        with self._paths.locate(self.map_path(path)) as place:
            _set_place_attrs(place, attrs)

        return None

    def lsetstat(self, path: bytes, attrs: SFTPAttrs) -> Awaitable[None] | None:
        """Change the attributes of a file or of a link itself."""

        with self._paths.locate(self.map_path(path), follow=False) as place:
            _set_place_attrs(place, attrs)

        return None

    def statvfs(self, path: bytes) -> _VFSResult | Awaitable[_VFSResult]:
        """Return the figures of the file system that holds a file."""

        with self._paths.locate(self.map_path(path)) as place:
            if place.follow:
                return os.statvfs(place.name)

            fd = _open_place(place, getattr(os, 'O_PATH', os.O_RDONLY) | os.O_CLOEXEC)

            try:
                return os.statvfs(fd)
            finally:
                os.close(fd)

    def realpath(self, path: bytes) -> bytes | Awaitable[bytes]:
        """Return the absolute form of a path, without links and dots; it need not exist."""

        return self.reverse_map_path(self._paths.resolve(self.map_path(path)))

    def home_directory(self, user: bytes) -> bytes | Awaitable[bytes]:
        """Return the home directory of a user of the system, as the client sees it; of no name, the process's own."""

        if self._chroot is not None:
            return b'/'

        try:
            home = pwd.getpwnam(os.fsdecode(user)).pw_dir if user else os.path.expanduser('~')
        except KeyError:
            raise SFTPNoSuchFile('No such user') from None

        return self.reverse_map_path(os.fsencode(home))

    async def scandir(self, path: bytes) -> AsyncIterator[SFTPName]:
        """Yield the entries of a directory with their attributes, `.` and `..` first."""

        with self._paths.locate(self.map_path(path)) as place:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK | os.O_CLOEXEC
            fd = _open_place(place, flags)

        try:
            here = SFTPAttrs.from_local(os.fstat(fd))
            yield SFTPName(b'.', attrs=here)
            # What lies above the root is not shown.
            top = self._chroot is not None and not components(posixpath.normpath(b'/' + path))
            yield SFTPName(b'..', attrs=here if top else SFTPAttrs.from_local(os.stat('..', dir_fd=fd)))

            with os.scandir(fd) as entries:
                for entry in entries:
                    try:
                        attrs = SFTPAttrs.from_local(entry.stat(follow_symlinks=False))
                    except FileNotFoundError:
                        continue

                    yield SFTPName(os.fsencode(entry.name), attrs=attrs)
        finally:
            os.close(fd)

    def mkdir(self, path: bytes, attrs: SFTPAttrs) -> Awaitable[None] | None:
        """Make a directory; `attrs.permissions` is its mode."""

        mode = 0o777 if attrs.permissions is None else stat.S_IMODE(attrs.permissions)

        with self._paths.locate(self.map_path(path), follow=False) as place:
            os.mkdir(place.name, mode, dir_fd=place.dir_fd)

        return None

    def rmdir(self, path: bytes) -> Awaitable[None] | None:
        """Remove an empty directory."""

        with self._paths.locate(self.map_path(path), follow=False) as place:
            os.rmdir(place.name, dir_fd=place.dir_fd)

        return None

    def remove(self, path: bytes) -> Awaitable[None] | None:
        """Remove a file or a link."""

        with self._paths.locate(self.map_path(path), follow=False) as place:
            os.unlink(place.name, dir_fd=place.dir_fd)

        return None

    def rename(self, oldpath: bytes, newpath: bytes) -> Awaitable[None] | None:
        """Rename a file, not onto one that exists."""

        with (
            self._paths.locate(self.map_path(oldpath), follow=False) as old,
            self._paths.locate(self.map_path(newpath), follow=False) as new,
        ):
            if not stat.S_ISDIR(os.stat(old.name, dir_fd=old.dir_fd, follow_symlinks=False).st_mode):
                # A second link and the removal of the first never replace a file that appears meanwhile.
                try:
                    os.link(old.name, new.name, src_dir_fd=old.dir_fd, dst_dir_fd=new.dir_fd, follow_symlinks=False)
                except FileExistsError:
                    raise SFTPFileAlreadyExists('File already exists') from None
                except OSError as exc:
                    if exc.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                        raise
                else:
                    os.unlink(old.name, dir_fd=old.dir_fd)

                    return None

            if self._present(new):
                raise SFTPFileAlreadyExists('File already exists')

            os.rename(old.name, new.name, src_dir_fd=old.dir_fd, dst_dir_fd=new.dir_fd)

        return None

    def posix_rename(self, oldpath: bytes, newpath: bytes) -> Awaitable[None] | None:
        """Rename a file; one that has the new name is replaced, as rename(2) does it."""

        with (
            self._paths.locate(self.map_path(oldpath), follow=False) as old,
            self._paths.locate(self.map_path(newpath), follow=False) as new,
        ):
            os.rename(old.name, new.name, src_dir_fd=old.dir_fd, dst_dir_fd=new.dir_fd)

        return None

    def readlink(self, path: bytes) -> bytes | Awaitable[bytes]:
        """Return the target of a link as the client knows it."""

        with self._paths.locate(self.map_path(path), follow=False) as place:
            target = os.readlink(place.name, dir_fd=place.dir_fd)

        if target.startswith(b'/') and (self._chroot is None or below(self._chroot, target) is not None):
            return self.reverse_map_path(target)

        return target

    def symlink(self, oldpath: bytes, newpath: bytes) -> Awaitable[None] | None:
        """Make a link at `newpath` whose target is `oldpath`."""

        with self._paths.locate(self.map_path(newpath), follow=False) as place:
            if oldpath.startswith(b'/'):
                oldpath = self.map_path(oldpath)
            elif self._chroot is not None:
                oldpath = self._inner_target(oldpath, newpath)

            check_path(oldpath)
            os.symlink(oldpath, place.name, dir_fd=place.dir_fd)

        return None

    def link(self, oldpath: bytes, newpath: bytes) -> Awaitable[None] | None:
        """Make a hard link at `newpath` to the file `oldpath`; a symbolic link there is linked itself."""

        with (
            self._paths.locate(self.map_path(oldpath), follow=False) as old,
            self._paths.locate(self.map_path(newpath), follow=False) as new,
        ):
            os.link(old.name, new.name, src_dir_fd=old.dir_fd, dst_dir_fd=new.dir_fd, follow_symlinks=False)

        return None

    # --- the end

    def exit(self) -> Awaitable[None] | None:
        """Clean up: called once when the session has ended."""

        return None

    # --- private

    @staticmethod
    def _fileno(file_obj: object) -> int:
        """Return an open file's descriptor, with everything that was written through its buffer behind it."""

        file = cast(io.IOBase, file_obj)
        file.flush()

        return file.fileno()

    @staticmethod
    def _present(place: Place) -> bool:
        try:
            os.stat(place.name, dir_fd=place.dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False

        return True

    def _inner_target(self, target: bytes, newpath: bytes) -> bytes:
        """Drop those `..` of a relative link that would lead above the root for whoever is not confined to it."""

        depth = len(components(posixpath.normpath(b'/' + newpath))) - 1
        names = []

        for name in components(target):
            if name != b'..':
                depth += 1
            elif depth > 0:
                depth -= 1
            else:
                continue

            names.append(name)

        return b'/'.join(names) or b'.'
