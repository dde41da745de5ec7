"""The SFTP client that users hold: a server's files, and copies of files and trees."""

from collections.abc import Sequence
from typing import Any

from ..wire import encode_string, encode_uint64
from .download import copy_remote_to_local
from .errors import SFTPOpUnsupported
from .extensions import FileCheck, check_file, user_names
from .file import SFTPClientFile
from .glob import glob_local
from .paths import SFTPPath, SFTPPaths, as_list, is_list, local_path
from .remote_copy import copy_remote
from .remote_files import RemoteFiles
from .requests import SFTPClientSession
from .spread import OpenSession, Spread
from .transfer import CopyOptions, ErrorHandler, ProgressHandler, Transfer, passed_over
from .upload import copy_local_to_remote


class SFTPClient(RemoteFiles):
    """An SFTP session with a server, as `SSHClientConnection.start_sftp_client` gives it.

    Paths are text, bytes or `pathlib` paths; who gives text gets text, encoded with `path_encoding`, and who gives
    bytes gets bytes. Relative paths start at the directory that `chdir` chose, or the server's own. Errors are
    `SFTPError`, or what ended the connection. Over a long link `put` opens further sessions by `open_session` if the
    server's windows are too small for it.
    """

    def __init__(
        self,
        handler: SFTPClientSession,
        path_encoding: str | None = 'utf-8',
        path_errors: str = 'strict',
        *,
        open_session: OpenSession | None = None,
    ) -> None:
        super().__init__(handler, path_encoding, path_errors)
        self._spread = Spread(handler, open_session)

    def exit(self) -> None:
        """End the session, and those that it has opened."""

        self._spread.close()
        super().exit()

    async def wait_closed(self) -> None:
        """Wait until all of it is closed."""

        await super().wait_closed()
        await self._spread.wait_closed()

    # --- copies

    async def get(
        self,
        remotepaths: SFTPPaths,
        localpath: SFTPPath | None = None,
        *,
        preserve: bool = False,
        recurse: bool = False,
        follow_symlinks: bool = False,
        sparse: bool = True,
        block_size: int = -1,
        max_requests: int = -1,
        progress_handler: ProgressHandler = None,
        error_handler: ErrorHandler = None,
        atomic: bool = True,
        resume: bool = False,
        verify: bool = False,
        sync: bool = False,
    ) -> Transfer:
        """Download files or, with `recurse`, trees into a local file or directory.

        `progress_handler(srcpath, dstpath, done, total)` gets paths as bytes. `error_handler(exc)` takes the errors of
        single files, which otherwise end the copy; each has `srcpath` and `dstpath`. `preserve` sets permissions,
        without set-id bits, and times. Links below `localpath` are not followed, nor made if they lead out of it.
        `sparse` has its effect in `put`.

        A file is written beside its place, and put there when it is whole; what stood there before stays until then.
        Without `atomic` it is written in its place, and if it fails removed, or left empty if it was there before.

        `resume` passes over files that are as large as the source and not older than its last change, and goes on with
        what an earlier copy with `resume` has left of a file, if it is not older than that either and ends in what the
        source has there. `verify` reads each file again and compares it, SFTPFailure if it is another. `sync` waits
        until each file is on its disk.
        """

        options = CopyOptions(
            preserve,
            recurse,
            follow_symlinks,
            sparse,
            block_size,
            max_requests,
            progress_handler,
            error_handler,
            atomic,
            resume,
            verify,
            sync,
        )
        sources = [self.compose_path(path) for path in as_list(remotepaths)]

        return await copy_remote_to_local(
            self._session, sources, is_list(remotepaths), local_path(localpath), options
        )

    async def put(
        self,
        localpaths: SFTPPaths,
        remotepath: SFTPPath | None = None,
        *,
        preserve: bool = False,
        recurse: bool = False,
        follow_symlinks: bool = False,
        sparse: bool = True,
        block_size: int = -1,
        max_requests: int = -1,
        progress_handler: ProgressHandler = None,
        error_handler: ErrorHandler = None,
        atomic: bool = False,
        resume: bool = False,
        verify: bool = False,
        sync: bool = False,
    ) -> Transfer:
        """Upload files or, with `recurse`, trees into a remote file or directory; the arguments are those of `get`.

        With `sparse` the holes of a local file are not sent, and are holes on the server as well. With `atomic` a file
        is written beside its place and renamed: in one step if the server offers posix-rename, else the old file is
        removed before. `sync` needs a server that offers fsync.
        """

        options = CopyOptions(
            preserve,
            recurse,
            follow_symlinks,
            sparse,
            block_size,
            max_requests,
            progress_handler,
            error_handler,
            atomic,
            resume,
            verify,
            sync,
        )
        sources = [local_path(path) or b'' for path in as_list(localpaths)]
        target = None if remotepath is None and self._paths.cwd is None else self.compose_path(remotepath or b'.')

        return await copy_local_to_remote(
            self._session, self._spread, self._symlink_order, sources, is_list(localpaths), target, options
        )

    async def copy(
        self,
        srcpaths: SFTPPaths,
        dstpath: SFTPPath | None = None,
        *,
        preserve: bool = False,
        recurse: bool = False,
        follow_symlinks: bool = False,
        sparse: bool = True,
        block_size: int = -1,
        max_requests: int = -1,
        progress_handler: ProgressHandler = None,
        error_handler: ErrorHandler = None,
        remote_only: bool = False,
    ) -> Transfer:
        """Copy files or trees on the server; the arguments are those of `get`.

        A server that offers copy-data copies by itself; else the data passes through this client, unless `remote_only`
        forbids it: then it is SFTPOpUnsupported. `sparse` has no effect, as version 3 does not tell holes.
        """

        if remote_only and not self.supports_remote_copy:
            raise SFTPOpUnsupported('The server does not support copy-data')

        options = CopyOptions(
            preserve, recurse, follow_symlinks, sparse, block_size, max_requests, progress_handler, error_handler
        )
        sources = [self.compose_path(path) for path in as_list(srcpaths)]
        target = None if dstpath is None and self._paths.cwd is None else self.compose_path(dstpath or b'.')

        return await copy_remote(self._session, self._symlink_order, sources, is_list(srcpaths), target, options)

    async def remote_copy(
        self,
        src: SFTPClientFile | SFTPPath,
        dst: SFTPClientFile | SFTPPath,
        src_offset: int = 0,
        src_length: int = 0,
        dst_offset: int = 0,
    ) -> None:
        """Have the server copy a range of one file into another; a length of 0 reaches to the end.

        SFTPOpUnsupported if the server does not offer copy-data.
        """

        self._session.require(b'copy-data')

        if not isinstance(src, SFTPClientFile):
            async with self.open(src, 'rb') as file:
                await self.remote_copy(file, dst, src_offset, src_length, dst_offset)
        elif not isinstance(dst, SFTPClientFile):
            async with self.open(dst, 'wb') as file:
                await self.remote_copy(src, file, src_offset, src_length, dst_offset)
        else:
            body = encode_string(src.handle) + encode_uint64(src_offset) + encode_uint64(src_length)
            body += encode_string(dst.handle) + encode_uint64(dst_offset)
            await self._session.extended_status(b'copy-data', body)

    async def check_file(
        self,
        file: SFTPClientFile | SFTPPath,
        algorithms: Sequence[str] | str = ('sha256', 'sha512', 'sha1', 'md5'),
        offset: int = 0,
        length: int = 0,
        block_size: int = 0,
    ) -> FileCheck:
        """Have the server hash a range of a file with the first of the algorithms that it knows.

        A length of 0 reaches to the end. There is a digest for each block of `block_size` bytes, which are at least
        256, or a single one. SFTPOpUnsupported if the server does not offer check-file.
        """

        handle = file.handle if isinstance(file, SFTPClientFile) else None
        path = b'' if isinstance(file, SFTPClientFile) else self.compose_path(file)

        return await check_file(self._session, handle, path, algorithms, offset, length, block_size)

    # --- the server's users

    async def home_directory(self, user: str = '') -> bytes | str:
        """Return a user's home directory, without a name the own; SFTPOpUnsupported if the server does not tell it."""

        return self.decode(await self._session.extended_path(b'home-directory', encode_string(user)))

    async def expand_path(self, path: SFTPPath) -> bytes | str:
        """Return the absolute form of a path that may begin with `~` or `~user`.

        SFTPOpUnsupported if the server does not offer expand-path@openssh.com.
        """

        body = encode_string(self.encode(path))
        found = await self._session.extended_path(b'expand-path@openssh.com', body)

        return self.decode(found, not isinstance(path, bytes))

    async def users_groups_by_id(
        self, uids: Sequence[int] = (), gids: Sequence[int] = ()
    ) -> tuple[list[str | None], list[str | None]]:
        """Return the names of users and groups, None for those that the server does not know.

        SFTPOpUnsupported if the server does not offer users-groups-by-id@openssh.com.
        """

        return await user_names(self._session, uids, gids)

    # --- copies of what matches

    async def mget(self, remotepaths: SFTPPaths, localpath: SFTPPath | None = None, **options: Any) -> Transfer:
        """Download the files that match patterns; the arguments are those of `get`."""

        found = await self.glob(remotepaths, options.get('error_handler'))

        return await self.get(list(found), localpath, **options)

    async def mput(self, localpaths: SFTPPaths, remotepath: SFTPPath | None = None, **options: Any) -> Transfer:
        """Upload the local files that match patterns; the arguments are those of `put`."""

        found: list[bytes] = []

        for pattern in as_list(localpaths):
            with passed_over(options.get('error_handler')):
                found += glob_local(local_path(pattern) or b'')

        return await self.put(found, remotepath, **options)

    async def mcopy(self, srcpaths: SFTPPaths, dstpath: SFTPPath | None = None, **options: Any) -> Transfer:
        """Copy the files on the server that match patterns; the arguments are those of `copy`."""

        found = await self.glob(srcpaths, options.get('error_handler'))

        return await self.copy(list(found), dstpath, **options)
