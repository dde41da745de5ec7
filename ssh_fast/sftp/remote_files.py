"""What single requests do to a server's files: a method for each of them, and listings and patterns."""

import posixpath
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

from .. import constants as c
from ..opening import Opening
from ..wire import encode_string, encode_uint32
from .attrs import SFTPAttrs, SFTPLimits, SFTPName, SFTPVFSAttrs, nanoseconds, owner_attrs, time_attrs
from .errors import (
    SFTPError,
    SFTPNoSuchFile,
    SFTPNoSuchPath,
    SFTPNotADirectory,
)
from .file import SFTPClientFile, mode_to_pflags
from .glob import glob_remote
from .listing import list_directory, make_directories, remove_tree
from .paths import RemotePaths, SFTPPath, SFTPPaths, as_list
from .requests import SFTPClientSession
from .symlink import SymlinkOrder
from .transfer import ErrorHandler, passed_over


class RemoteFiles:
    """The files of a server; `SFTPClient` adds the copies."""

    def __init__(
        self, handler: SFTPClientSession, path_encoding: str | None = 'utf-8', path_errors: str = 'strict'
    ) -> None:
        self._session = handler
        self._paths = RemotePaths(path_encoding, path_errors)
        self._symlink_order = SymlinkOrder(handler)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.exit()
        await self.wait_closed()

    @property
    def version(self) -> int:
        """The protocol version that is spoken: 3."""

        return 3

    @property
    def logger(self) -> Any:
        """The logger of the session's channel, for SFTP."""

        return self._session.channel.logger.child('sftp')

    @property
    def limits(self) -> SFTPLimits:
        """What the server told about its limits."""

        return self._session.limits

    @property
    def supports_remote_copy(self) -> bool:
        """Whether the server can copy files by itself."""

        return b'copy-data' in self._session.extensions

    @property
    def session(self) -> SFTPClientSession:
        """The requests below this client."""

        return self._session

    def exit(self) -> None:
        """End the session."""

        self._session.close()

    async def wait_closed(self) -> None:
        """Wait until the session has ended."""

        await self._session.wait_closed()

    # --- paths

    def encode(self, path: SFTPPath) -> bytes:
        """Turn a path into the bytes that are sent."""

        return self._paths.encode(path)

    def decode(self, path: bytes, want_string: bool = True) -> bytes | str:
        """Turn a path as it came into text, if that is wanted and there is an encoding; SFTPBadMessage if it cannot."""

        return self._paths.decode(path, want_string)

    def compose_path(self, path: SFTPPath, parent: bytes | None = None) -> bytes:
        """Turn a path into bytes, below `parent` or the current directory if it is relative."""

        return self._paths.compose(path, parent)

    def _wire(self, path: SFTPPath) -> bytes:
        return encode_string(self.compose_path(path))

    async def realpath(
        self, path: SFTPPath, *compose_paths: SFTPPath, check: int = c.FXRP_NO_CHECK
    ) -> bytes | str | SFTPName:
        """Return the absolute form of a path, to which others may be joined.

        With `check` FXRP_STAT_IF_EXISTS or FXRP_STAT_ALWAYS an `SFTPName` with the file's attributes is returned; the
        latter raises SFTPNoSuchFile if there is none.
        """

        joined = self.compose_path(path)

        for part in compose_paths:
            joined = posixpath.join(joined, self.encode(part))

        found = await self._session.path(c.FXP_REALPATH, encode_string(joined))
        result = self.decode(found, not isinstance(path, bytes))

        if check == c.FXRP_NO_CHECK:
            return result

        attrs = SFTPAttrs()

        try:
            attrs = await self.stat(found)
        except SFTPError:
            if check == c.FXRP_STAT_ALWAYS:
                raise

        return SFTPName(result, attrs=attrs)

    async def getcwd(self) -> bytes | str:
        """Return the current directory."""

        if self._paths.cwd is None:
            self._paths.cwd = await self._session.path(c.FXP_REALPATH, encode_string(b'.'))

        return self.decode(self._paths.cwd)

    async def chdir(self, path: SFTPPath) -> None:
        """Change the current directory; SFTPNotADirectory if it is not one."""

        cwd = await self._session.path(c.FXP_REALPATH, self._wire(path))

        if (await self.stat(cwd)).type != c.FILEXFER_TYPE_DIRECTORY:
            raise SFTPNotADirectory(f'{cwd.decode("utf-8", "backslashreplace")} is not a directory')

        self._paths.cwd = cwd

    # --- open files

    def open(
        self,
        path: SFTPPath,
        pflags_or_mode: int | str = c.FXF_READ,
        attrs: SFTPAttrs | None = None,
        encoding: str | None = 'utf-8',
        errors: str = 'strict',
        block_size: int | None = -1,
        max_requests: int = -1,
    ) -> Opening[SFTPClientFile]:
        """Open a file with a mode as of Python's `open`, or FXF_ flags; await this or use it as a context manager.

        Text is encoded as `encoding`; None, or `b` in the mode, is a file of bytes. `attrs` are those of a file that is
        created. Large reads and writes go as up to `max_requests` requests of `block_size` bytes at once (-1 chooses by
        the server's limits); a `block_size` of 0 or None makes each read or write wait for one request at a time.
        """

        if isinstance(pflags_or_mode, str):
            pflags, binary = mode_to_pflags(pflags_or_mode)
            encoding = None if binary else encoding
        else:
            pflags = pflags_or_mode

        body = self._wire(path) + encode_uint32(pflags) + (attrs or SFTPAttrs()).encode()

        async def opening() -> SFTPClientFile:
            handle = await self._session.handle(c.FXP_OPEN, body)
            appending = bool(pflags & c.FXF_APPEND)

            return SFTPClientFile(self._session, handle, appending, encoding, errors, block_size, max_requests)

        return Opening(opening())

    # --- attributes

    async def stat(
        self, path: SFTPPath, flags: int = c.FILEXFER_ATTR_DEFINED_V4, *, follow_symlinks: bool = True
    ) -> SFTPAttrs:
        """Return a file's attributes; version 3 has no means to choose them by `flags`."""

        return await self._session.attrs(c.FXP_STAT if follow_symlinks else c.FXP_LSTAT, self._wire(path))

    async def lstat(self, path: SFTPPath, flags: int = c.FILEXFER_ATTR_DEFINED_V4) -> SFTPAttrs:
        """Return the attributes of a file, or of a link itself."""

        return await self._session.attrs(c.FXP_LSTAT, self._wire(path))

    async def setstat(self, path: SFTPPath, attrs: SFTPAttrs, *, follow_symlinks: bool = True) -> None:
        """Change the attributes that are not None."""

        body = self._wire(path) + attrs.encode()

        if follow_symlinks:
            await self._session.status(c.FXP_SETSTAT, body)
        else:
            await self._session.extended_status(b'lsetstat@openssh.com', body)

    async def statvfs(self, path: SFTPPath) -> SFTPVFSAttrs:
        """Return the figures of the file system that holds a file."""

        return SFTPVFSAttrs.decode(await self._session.extended(b'statvfs@openssh.com', self._wire(path)))

    async def truncate(self, path: SFTPPath, size: int) -> None:
        """Cut or extend a file to a size."""

        await self.setstat(path, SFTPAttrs(size=size))

    async def chown(
        self,
        path: SFTPPath,
        uid_or_owner: int | str | None = None,
        gid_or_group: int | str | None = None,
        uid: int | None = None,
        gid: int | None = None,
        owner: str | None = None,
        group: str | None = None,
        *,
        follow_symlinks: bool = True,
    ) -> None:
        """Change a file's owner and group; version 3 takes both together, as numbers."""

        attrs = owner_attrs(uid_or_owner, gid_or_group, uid, gid, owner, group)
        await self.setstat(path, attrs, follow_symlinks=follow_symlinks)

    async def chmod(self, path: SFTPPath, mode: int, *, follow_symlinks: bool = True) -> None:
        """Change a file's permissions."""

        await self.setstat(path, SFTPAttrs(permissions=mode), follow_symlinks=follow_symlinks)

    async def utime(
        self,
        path: SFTPPath,
        times: tuple[float, float] | None = None,
        ns: tuple[int, int] | None = None,
        *,
        follow_symlinks: bool = True,
    ) -> None:
        """Change a file's access and modification time, in seconds or nanoseconds since 1970, or to now."""

        await self.setstat(path, time_attrs(times, ns), follow_symlinks=follow_symlinks)

    async def exists(self, path: SFTPPath) -> bool:
        """Whether a file exists; a link whose target does not exist does not."""

        return await self._type(path) is not None

    async def lexists(self, path: SFTPPath) -> bool:
        """Whether a file or link exists."""

        return await self._type(path, follow_symlinks=False) is not None

    async def isdir(self, path: SFTPPath) -> bool:
        """Whether a path is a directory, or a link to one."""

        return await self._type(path) == c.FILEXFER_TYPE_DIRECTORY

    async def isfile(self, path: SFTPPath) -> bool:
        """Whether a path is a regular file, or a link to one."""

        return await self._type(path) == c.FILEXFER_TYPE_REGULAR

    async def islink(self, path: SFTPPath) -> bool:
        """Whether a path is a symbolic link."""

        return await self._type(path, follow_symlinks=False) == c.FILEXFER_TYPE_SYMLINK

    async def _type(self, path: SFTPPath, follow_symlinks: bool = True) -> int | None:
        try:
            return (await self.stat(path, follow_symlinks=follow_symlinks)).type
        except (SFTPNoSuchFile, SFTPNoSuchPath):
            return None

    async def getsize(self, path: SFTPPath) -> int | None:
        """Return a file's size in bytes."""

        return (await self.stat(path)).size

    async def getatime(self, path: SFTPPath) -> float | None:
        """Return the time of the last access, in seconds since 1970."""

        return (await self.stat(path)).atime

    async def getatime_ns(self, path: SFTPPath) -> int | None:
        """Return the time of the last access, in nanoseconds since 1970."""

        return nanoseconds((await self.stat(path)).atime)

    async def getmtime(self, path: SFTPPath) -> float | None:
        """Return the time of the last change, in seconds since 1970."""

        return (await self.stat(path)).mtime

    async def getmtime_ns(self, path: SFTPPath) -> int | None:
        """Return the time of the last change, in nanoseconds since 1970."""

        return nanoseconds((await self.stat(path)).mtime)

    async def getcrtime(self, path: SFTPPath) -> float | None:
        """Return the time of creation, which version 3 does not carry: None."""

        return (await self.stat(path)).crtime

    async def getcrtime_ns(self, path: SFTPPath) -> int | None:
        """Return the time of creation in nanoseconds, which version 3 does not carry: None."""

        return (await self.stat(path)).crtime_ns

    # --- names

    async def remove(self, path: SFTPPath) -> None:
        """Remove a file or link."""

        await self._session.status(c.FXP_REMOVE, self._wire(path))

    async def unlink(self, path: SFTPPath) -> None:
        """Remove a file or link."""

        await self.remove(path)

    async def rename(self, oldpath: SFTPPath, newpath: SFTPPath, flags: int = 0) -> None:
        """Rename a file. An existing one is replaced only with FXR_OVERWRITE in `flags`.

        Version 3 knows no flags: with any of them this is `posix_rename`, SFTPOpUnsupported if the server has it not.
        """

        if flags:
            await self.posix_rename(oldpath, newpath)
        else:
            await self._session.status(c.FXP_RENAME, self._wire(oldpath) + self._wire(newpath))

    async def posix_rename(self, oldpath: SFTPPath, newpath: SFTPPath) -> None:
        """Rename a file; one that has the new name is replaced."""

        body = self._wire(oldpath) + self._wire(newpath)
        await self._session.extended_status(b'posix-rename@openssh.com', body)

    async def readlink(self, path: SFTPPath) -> bytes | str:
        """Return the target of a symbolic link."""

        target = await self._session.path(c.FXP_READLINK, self._wire(path))

        return self.decode(target, not isinstance(path, bytes))

    async def symlink(self, oldpath: SFTPPath, newpath: SFTPPath) -> None:
        """Make a symbolic link at `newpath` whose target is `oldpath`, as it is."""

        await self._symlink_order.make(self.encode(oldpath), self.compose_path(newpath))

    async def link(self, oldpath: SFTPPath, newpath: SFTPPath) -> None:
        """Make a hard link at `newpath` to the file `oldpath`."""

        body = self._wire(oldpath) + self._wire(newpath)
        await self._session.extended_status(b'hardlink@openssh.com', body)

    # --- directories

    async def scandir(self, path: SFTPPath = '.') -> AsyncIterator[SFTPName]:
        """Iterate over a directory's entries as they arrive; `.` and `..` are among them if the server sends them."""

        want_string = not isinstance(path, bytes)

        async with aclosing(list_directory(self._session, self.compose_path(path))) as replies:
            async for names in replies:
                for name in names:
                    if want_string:
                        assert isinstance(name.filename, bytes) and isinstance(name.longname, bytes)
                        name.filename = self.decode(name.filename)

                        # The long name is for people: what it does not say in this encoding fails no listing.
                        if self._paths.encoding is not None:
                            name.longname = name.longname.decode(self._paths.encoding, 'replace')

                    yield name

    async def readdir(self, path: SFTPPath = '.') -> Sequence[SFTPName]:
        """Return a directory's entries with their attributes."""

        return [name async for name in self.scandir(path)]

    async def listdir(self, path: SFTPPath = '.') -> Sequence[bytes | str]:
        """Return the names of a directory's entries."""

        return [name.filename async for name in self.scandir(path)]

    async def mkdir(self, path: SFTPPath, attrs: SFTPAttrs | None = None) -> None:
        """Make a directory."""

        await self._session.status(c.FXP_MKDIR, self._wire(path) + (attrs or SFTPAttrs()).encode())

    async def makedirs(self, path: SFTPPath, attrs: SFTPAttrs | None = None, exist_ok: bool = False) -> None:
        """Make a directory and those above it that are missing; SFTPFailure if it is there, or `exist_ok`."""

        await make_directories(self._session, self.compose_path(path), attrs or SFTPAttrs(), exist_ok)

    async def rmdir(self, path: SFTPPath) -> None:
        """Remove an empty directory."""

        await self._session.status(c.FXP_RMDIR, self._wire(path))

    async def rmtree(
        self, path: SFTPPath, ignore_errors: bool = False, onerror: Callable[..., object] | None = None
    ) -> None:
        """Remove a directory and all below it; links are removed, never followed.

        Errors are raised, or passed over, or given to `onerror(function, path, exc_info)`.
        """

        def failed(function: str, at: bytes, exc: SFTPError) -> None:
            if onerror is not None and not ignore_errors:
                onerror(getattr(self, function), at, (type(exc), exc, exc.__traceback__))
            elif not ignore_errors:
                raise exc

        await remove_tree(self._session, self.compose_path(path), failed)

    # --- patterns

    async def glob(self, patterns: SFTPPaths, error_handler: ErrorHandler = None) -> Sequence[bytes | str]:
        """Return the paths that match shell patterns with `*`, `?`, `[...]` and `**`; SFTPNoSuchFile if none does."""

        return [name.filename for name in await self.glob_sftpname(patterns, error_handler)]

    async def glob_sftpname(self, patterns: SFTPPaths, error_handler: ErrorHandler = None) -> Sequence[SFTPName]:
        """Return the paths that match shell patterns, with their attributes.

        Errors of a pattern are raised, or given to `error_handler`; False passes over them.
        """

        found: list[SFTPName] = []

        for pattern in as_list(patterns):
            with passed_over(error_handler):
                names = await glob_remote(self._session, self.encode(pattern), self._paths.cwd)

                for name in names:
                    assert isinstance(name.filename, bytes)
                    found.append(SFTPName(self.decode(name.filename, not isinstance(pattern, bytes)), attrs=name.attrs))

        return found
