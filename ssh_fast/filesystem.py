"""An fsspec filesystem over SFTP (extra `fsspec`), as in `fsspec.open('ssh-fast://user@host/path')`.

One connection and one SFTP session serve all files of a filesystem; each process and each worker has its own.
"""

import asyncio
import errno
import os
import posixpath
import stat
import weakref
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from fsspec.asyn import AsyncFileSystem, sync, sync_wrapper
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractBufferedFile

from .connection.client import SSHClientConnection
from .endpoints import connect
from .sftp.attrs import SFTPAttrs
from .sftp.client import SFTPClient
from .sftp.errors import (
    SFTPError,
    SFTPFailure,
    SFTPFileAlreadyExists,
    SFTPNoSuchFile,
    SFTPOpUnsupported,
    SFTPPermissionDenied,
)
from .sftp.file import SFTPClientFile

PROTOCOL = 'ssh-fast'

_COPY_BLOCK = 8 << 20    # bytes of a copy between two places on the server that go through this process at a time
_FILE_BLOCK = 4 << 20    # bytes that a file which is read by and by fetches ahead, or that is written collects
_OF_FSSPEC = {'listings_expiry_time', 'max_paths', 'use_listings_cache'}
_ERRORS: tuple[tuple[type[SFTPError], type[OSError], int], ...] = (
    (SFTPNoSuchFile, FileNotFoundError, errno.ENOENT),
    (SFTPPermissionDenied, PermissionError, errno.EACCES),
    (SFTPFileAlreadyExists, FileExistsError, errno.EEXIST),
)


def _as_os_error(exc: SFTPError, path: str) -> OSError:
    for kind, made, number in _ERRORS:
        if isinstance(exc, kind):
            return made(number, os.strerror(number), path)

    return OSError(errno.EIO, str(exc), path)


def _progress(callback: Any) -> Callable[[bytes, bytes, int, int], None] | None:
    if callback is DEFAULT_CALLBACK:
        return None

    def handler(_: bytes, __: bytes, done: int, total: int) -> None:
        callback.set_size(total)
        callback.absolute_update(done)

    return handler


class SSHFileSystem(AsyncFileSystem):
    """Files on a server; `host`, `port` and other keywords are those of `ssh_fast.connect`.

    Paths without a leading slash start where the login does; those of URLs are absolute. Errors of the server are
    OSError. Writing a whole file, by `pipe`, `put` and `cp`, makes the directories above it.
    """

    protocol = PROTOCOL
    root_marker = ''
    cachable = True

    def __init__(
        self,
        host: str,
        port: int | tuple[()] = (),
        *,
        asynchronous: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
        batch_size: int | None = None,
        **options: Any,
    ) -> None:
        of_fsspec = {name: value for name, value in options.items() if name in _OF_FSSPEC}
        super().__init__(asynchronous=asynchronous, loop=loop, batch_size=batch_size, **of_fsspec)
        self._connect = {
            'host': host,
            'port': port,
            **{name: value for name, value in options.items() if name not in _OF_FSSPEC},
        }
        self._connection: SSHClientConnection | None = None
        self._sftp: SFTPClient | None = None
        self._connecting = asyncio.Lock()

    # --- where

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(item) for item in path]

        name = os.fspath(path)
        _, mark, after = name.partition('://')

        if mark:
            name = '/' + after.partition('/')[2]

        return name.rstrip('/') or ('/' if name else '')

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        place = urlsplit(f'//{path.partition("://")[2].partition("/")[0]}')
        found = {
            'host': place.hostname,
            'port': place.port,
            'username': unquote(place.username) if place.username else None,
            'password': unquote(place.password) if place.password else None,
        }

        return {name: value for name, value in found.items() if value}

    # --- the session

    async def _session(self) -> SFTPClient:
        async with self._connecting:
            if self._sftp is None or self._connection is None or self._connection.is_closed():
                conn = await connect(**self._connect)

                try:
                    self._sftp = await conn.start_sftp_client()
                except BaseException:
                    conn.close()
                    raise

                self._connection = conn
                loop = asyncio.get_running_loop()
                weakref.finalize(self, _close, loop, conn)

            return self._sftp

    @asynccontextmanager
    async def _on(self, path: str) -> AsyncIterator[SFTPClient]:
        """Give the session, and turn what the server says of `path` into errors of the system."""

        try:
            yield await self._session()
        except SFTPError as exc:
            raise _as_os_error(exc, path) from exc

    async def _with_parent(self, path: str, work: Callable[[], Any]) -> Any:
        """Do what makes a file; if there is no directory for it, make that first."""

        try:
            return await work()
        except FileNotFoundError:
            parent = posixpath.dirname(path)

            if not parent:
                raise

            # It may be there by now, made for another file.
            await self._makedirs(parent, exist_ok=True)

            return await work()

    # --- what there is

    async def _info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)

        async with self._on(path) as sftp:
            found = await sftp.lstat(path or '.')

            return _details(path, found, await self._target(sftp, path, found))

    async def _target(self, sftp: SFTPClient, path: str, found: SFTPAttrs) -> SFTPAttrs | None:
        """Return what a link leads to; None if nothing is there, or if it is none."""

        if not stat.S_ISLNK(found.permissions or 0):
            return None

        try:
            return await sftp.stat(path)
        except SFTPError:
            return None

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        itself = await self._info(path)

        if itself['type'] != 'directory':
            return [itself] if detail else [path]

        async with self._on(path) as sftp:
            entries = [entry for entry in await sftp.readdir(path or '.') if entry.filename not in ('.', '..')]
            names = [posixpath.join(path, os.fsdecode(entry.filename)) for entry in entries]

            if not detail:
                return sorted(names)

            pairs = sorted(zip(names, (entry.attrs for entry in entries), strict=True), key=lambda pair: pair[0])
            targets = await asyncio.gather(*(self._target(sftp, *pair) for pair in pairs))

            return [_details(*pair, target) for pair, target in zip(pairs, targets, strict=True)]

    async def _modified(self, path: str) -> datetime:
        return datetime.fromtimestamp((await self._info(path))['mtime'], UTC)

    modified = sync_wrapper(_modified)

    # --- directories and names

    async def _mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        path = self._strip_protocol(path)

        if create_parents:
            await self._makedirs(path)
            return

        async with self._on(path) as sftp:
            if await sftp.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

            await sftp.mkdir(path)

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        path = self._strip_protocol(path)

        async with self._on(path) as sftp:
            try:
                await sftp.makedirs(path, exist_ok=exist_ok)
            except SFTPFailure:
                if await sftp.lexists(path):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None

                raise

    async def _rmdir(self, path: str) -> None:
        path = self._strip_protocol(path)

        async with self._on(path) as sftp:
            await sftp.rmdir(path)

    rmdir = sync_wrapper(_rmdir)

    async def _rm_file(self, path: str, **kwargs: Any) -> None:
        path = self._strip_protocol(path)

        async with self._on(path) as sftp:
            if stat.S_ISDIR((await sftp.lstat(path)).permissions or 0):
                await sftp.rmdir(path)
            else:
                await sftp.remove(path)

    async def _rm(
        self, path: Any, recursive: bool = False, batch_size: int | None = None, maxdepth: int | None = None, **kw: Any
    ) -> None:
        if not recursive or maxdepth is not None:
            # One after another, as what is in a directory goes before it.
            for name in reversed(await self._expand_path(path, recursive=recursive, maxdepth=maxdepth)):
                await self._rm_file(name)

            return

        for name in await self._expand_path(path):
            async with self._on(name) as sftp:
                if stat.S_ISDIR((await sftp.lstat(name)).permissions or 0):
                    await sftp.rmtree(name)
                else:
                    await sftp.remove(name)

    async def _mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Rename a file or directory, into `path2` if that is a directory; over a file that is there."""

        source, target = self._strip_protocol(path1), self._strip_protocol(path2)

        if path2.endswith('/') or await self._isdir(target):
            target = posixpath.join(target, posixpath.basename(source))

        await self._mv_file(source, target)

    mv = sync_wrapper(_mv)
    move = rename = mv

    async def _mv_file(self, path1: str, path2: str) -> None:
        async with self._on(path1) as sftp:
            try:
                await sftp.posix_rename(path1, path2)
            except SFTPOpUnsupported:
                await sftp.rename(path1, path2)

    # --- whole files

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        return (await self._read_ranges(self._strip_protocol(path), [(start, end)]))[0]

    async def _read_ranges(self, path: str, ranges: list[tuple[int | None, int | None]]) -> list[bytes]:
        """Open a file once, and read the ranges of it at the same time; negative ones count from the end."""

        async with self._on(path) as sftp, sftp.open(path, 'rb') as file:
            size = 0

            if any(bound is not None and bound < 0 for pair in ranges for bound in pair):
                size = (await file.stat()).size or 0

            async def read(start: int, end: int | None) -> bytes:
                wanted = -1 if end is None else max(end - start, 0)

                return bytes(await file.read(wanted, start)) if wanted else b''

            def bound(value: int) -> int:
                return max(size + value, 0) if value < 0 else value

            return list(
                await asyncio.gather(
                    *(read(bound(start or 0), None if end is None else bound(end)) for start, end in ranges)
                )
            )

    async def _cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        batch_size: int | None = None,
        on_error: str = 'return',
        **kwargs: Any,
    ) -> list[Any]:
        """Read ranges of files, each file opened once, all at the same time. `max_gap` is refused."""

        if max_gap is not None:
            raise NotImplementedError('max_gap: ranges are read as they are')

        first = list(starts) if isinstance(starts, Iterable) else [starts] * len(paths)
        last = list(ends) if isinstance(ends, Iterable) else [ends] * len(paths)

        if not len(paths) == len(first) == len(last):
            raise ValueError('starts, ends: expected as many as there are paths')

        places: dict[str, list[int]] = {}

        for index, path in enumerate(paths):
            places.setdefault(self._strip_protocol(path), []).append(index)

        results: list[Any] = [None] * len(paths)
        limit = asyncio.Semaphore(batch_size or self.batch_size or 64)

        async def read(path: str, indices: list[int]) -> None:
            try:
                async with limit:
                    found: list[Any] = list(
                        await self._read_ranges(path, [(first[index], last[index]) for index in indices])
                    )
            except Exception as exc:
                if on_error != 'return':
                    raise

                found = [exc] * len(indices)

            for index, data in zip(indices, found, strict=True):
                results[index] = data

        async with asyncio.TaskGroup() as group:
            for path, indices in places.items():
                group.create_task(read(path, indices))

        return results

    async def _pipe_file(self, path: str, value: Any, mode: str = 'overwrite', **kwargs: Any) -> None:
        path = self._strip_protocol(path)

        async def write() -> None:
            async with self._on(path), await self._open_remote(path, 'xb' if mode == 'create' else 'wb') as file:
                await file.write(value)

        await self._with_parent(path, write)

    async def _open_remote(self, path: str, mode: str) -> SFTPClientFile:
        async with self._on(path) as sftp:
            try:
                return await sftp.open(path, mode)
            except SFTPFailure:
                # Servers of version 3 have no other word for it.
                if 'x' in mode and await sftp.lexists(path):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None

                raise

    async def _cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)

        if (await self._info(path1))['type'] == 'directory':
            await self._makedirs(path2, exist_ok=True)
            return

        async def copy() -> None:
            async with self._on(path1) as sftp:
                if sftp.supports_remote_copy:
                    await sftp.copy(path1, path2)
                    return

                async with sftp.open(path1, 'rb') as source, sftp.open(path2, 'wb') as target:
                    while data := await source.read(_COPY_BLOCK):
                        await target.write(data)

        await self._with_parent(path2, copy)

    async def _put_file(
        self, lpath: str, rpath: str, mode: str = 'overwrite', callback: Any = DEFAULT_CALLBACK, **kwargs: Any
    ) -> None:
        rpath = self._strip_protocol(rpath)

        if stat.S_ISDIR((await asyncio.to_thread(os.stat, lpath)).st_mode):
            await self._makedirs(rpath, exist_ok=True)
            return

        if mode == 'create':
            await (await self._open_remote(rpath, 'xb')).close()

        async def put() -> None:
            async with self._on(rpath) as sftp:
                await sftp.put(lpath, rpath, follow_symlinks=True, progress_handler=_progress(callback))

        await self._with_parent(rpath, put)

    async def _get_file(self, rpath: str, lpath: str, callback: Any = DEFAULT_CALLBACK, **kwargs: Any) -> None:
        rpath = self._strip_protocol(rpath)

        if await self._isdir(rpath):
            os.makedirs(lpath, exist_ok=True)
            return

        os.makedirs(os.path.dirname(lpath) or '.', exist_ok=True)

        async with self._on(rpath) as sftp:
            await sftp.get(rpath, lpath, follow_symlinks=True, progress_handler=_progress(callback))

    # --- files that are open

    async def open_async(self, path: str, mode: str = 'rb', **kwargs: Any) -> SFTPClientFile:
        """Open a file of bytes for coroutines.

        Raises:
          ValueError: the mode has no `b`
          OSError: the server cannot open it
        """

        if 'b' not in mode:
            raise ValueError(f'mode: expected one with b, got {mode!r}')

        return await self._open_remote(self._strip_protocol(path), mode)

    def _open(
        self,
        path: str,
        mode: str = 'rb',
        block_size: int | str | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> 'SSHFile':
        size = _FILE_BLOCK if block_size in (None, 'default') else block_size

        return SSHFile(self, path, mode, size, autocommit=autocommit, cache_options=cache_options, **kwargs)

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        """Make an empty file, or with `truncate` false set the time of one that is there."""

        if truncate or not self.exists(path):
            self.pipe_file(path, b'')
        else:
            sync(self.loop, self._set_time, self._strip_protocol(path))

    async def _set_time(self, path: str) -> None:
        async with self._on(path) as sftp:
            await sftp.utime(path)

    def close(self) -> None:
        """Close the connection; the next use opens another."""

        conn, self._connection, self._sftp = self._connection, None, None

        if conn is not None:
            _close(self.loop, conn)


def _close(loop: asyncio.AbstractEventLoop, conn: SSHClientConnection) -> None:
    if loop.is_running():
        loop.call_soon_threadsafe(conn.close)


def _details(path: str, attrs: SFTPAttrs, target: SFTPAttrs | None) -> dict[str, Any]:
    mode = (target or attrs).permissions or 0
    kind = 'directory' if stat.S_ISDIR(mode) else 'file' if stat.S_ISREG(mode) else 'other'
    details = {
        'name': path,
        'size': (target or attrs).size or 0,
        'type': kind,
        'mode': mode,
        'uid': attrs.uid,
        'gid': attrs.gid,
        'mtime': (target or attrs).mtime,
    }

    return {**details, 'islink': True} if stat.S_ISLNK(attrs.permissions or 0) else details


class SSHFile(AbstractBufferedFile):
    """A file that is open for reading, with what the cache of fsspec fetches ahead, or for writing.

    Within a transaction what is written goes to a file beside its place, and takes it at the end.
    """

    def __init__(self, fs: SSHFileSystem, path: str, mode: str, block_size: Any, **kwargs: Any) -> None:
        self._file: SFTPClientFile | None = None
        super().__init__(fs, path, mode, block_size, **kwargs)
        self._written_to = self.path

        if 'r' in mode:
            return

        if not self.autocommit and 'a' not in mode:
            self._written_to = f'{self.path}.{os.urandom(6).hex()}.part'

            if 'x' in mode and fs.exists(self.path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.path)

        self._file = sync(fs.loop, fs._open_remote, self._written_to, mode)

        if 'a' in mode:
            self.loc = fs.info(self.path)['size']

    def _fetch_range(self, start: int, end: int) -> Any:
        return self.fs.cat_file(self.path, start, end)

    def _upload_chunk(self, final: bool = False) -> bool:
        if self._file is not None:
            data = self.buffer.getvalue()

            if data:
                sync(self.fs.loop, self._write, self._file, data)

            if final:
                file, self._file = self._file, None
                sync(self.fs.loop, file.close)

        return True

    async def _write(self, file: SFTPClientFile, data: bytes) -> None:
        try:
            await file.write(data)
        except SFTPError as exc:
            raise _as_os_error(exc, self._written_to) from exc

    def commit(self) -> None:
        """Put what was written in its place."""

        if self._written_to != self.path:
            sync(self.fs.loop, self.fs._mv_file, self._written_to, self.path)

    def discard(self) -> None:
        """Remove what was written."""

        if self._written_to != self.path:
            self.fs.rm_file(self._written_to)
