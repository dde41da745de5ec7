"""The requests of SFTP version 3 on a server: each is decoded into the `SFTPServer` method that does it, and its reply.

READ and WRITE on real files are served in compiled code and are not seen here.
"""

import asyncio
import io
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from .. import constants as c
from .._sftp_codec import MAX_MESSAGE, RequestAssembler
from ..wire import Cursor, encode_string, encode_uint32
from . import server_extensions as extensions
from .attrs import SFTPAttrs, SFTPLimits, SFTPName
from .errors import SFTPInvalidHandle, SFTPOpUnsupported
from .handles import Handle, HandleTable
from .lane import Lane
from .server import SFTPServer
from .server_replies import (
    EOF,
    Reply,
    Request,
    attrs_reply,
    data_reply,
    done,
    handle_reply,
    path_reply,
    vfs_reply,
)

# The longest READ that is answered in full and the longest WRITE that is announced: OpenSSH's figure.
MAX_BLOCK = 261120

# A READDIR reply holds at most as many names as OpenSSH's, and ends early once it is this long.
_NAMES_PER_REPLY = 128
_NAMES_SIZE = 128 * 1024

#: The extensions that VERSION announces.
EXTENSIONS = (
    (b'posix-rename@openssh.com', b'1'),
    (b'statvfs@openssh.com', b'2'),
    (b'fstatvfs@openssh.com', b'2'),
    (b'hardlink@openssh.com', b'1'),
    (b'fsync@openssh.com', b'1'),
    (b'lsetstat@openssh.com', b'1'),
    (b'limits@openssh.com', b'1'),
    (b'expand-path@openssh.com', b'1'),
    (b'copy-data', b'1'),
    (b'home-directory', b'1'),
    (b'users-groups-by-id@openssh.com', b'1'),
    (b'check-file', ','.join(extensions.HASHES).encode()),
)

def _overridden(server: SFTPServer, method: str) -> bool:
    return getattr(getattr(server, method), '__func__', None) is not getattr(SFTPServer, method)


async def _one_by_one(names: Iterable[SFTPName]) -> AsyncIterator[SFTPName]:
    for name in names:
        yield name


class Dispatcher:
    """Knows the session's server, its open handles, and what has to wait for what.

    Requests on one open file or directory are done one after another. Requests on paths that only look are done
    together; those that change something wait for the ones before them, and the ones behind wait for them.
    `link_first` says that the client sends SYMLINK's paths in the draft's order.
    """

    def __init__(
        self, server: SFTPServer, assembler: RequestAssembler, handles: HandleTable, *, link_first: bool = False
    ) -> None:
        self._server = server
        self._link_first = link_first
        self._assembler = assembler
        self._handles = handles
        self._paths = Lane()

        # Copies and hashes take a thread each: one at a time, so that no session takes them all.
        self._long = asyncio.Lock()

        # A user's read, write or fsync must see every request; those of the base class may be bypassed.
        self._direct = not (_overridden(server, 'read') or _overridden(server, 'write'))
        self._own_fsync = _overridden(server, 'fsync')

    def decode(self, message_type: int, body: bytes) -> Request:
        """Decode a request; SFTPError if it is not known or its handle is not open, PacketDecodeError if it is cut."""

        decode = _DECODERS.get(message_type)

        if not decode:
            raise SFTPOpUnsupported(f'Unknown SFTP request type {message_type}')

        if self._server.read_only:
            extensions.refuse_changes(message_type, Cursor(body))

        return decode(self, Cursor(body))

    # --- open files

    def _opened(self, cursor: Cursor) -> tuple[bytes, Handle]:
        handle = cursor.string()

        return handle, self._handles.find(handle)

    def _open_file(self, cursor: Cursor) -> tuple[bytes, Handle]:
        handle, opened = self._opened(cursor)

        if opened.names is not None:
            raise SFTPInvalidHandle('The handle is that of a directory')

        return handle, opened

    def _decode_open(self, cursor: Cursor) -> Request:
        path, pflags, attrs = cursor.string(), cursor.uint32(), SFTPAttrs.decode(cursor)
        changes = bool(pflags & ~c.FXF_READ)

        def call() -> Any:
            self._handles.reserve()

            try:
                result = self._server.open(path, pflags, attrs)
            except BaseException:
                self._handles.unreserve()
                raise

            if hasattr(result, '__await__'):
                return self._wait_opened(result)

            self._handles.unreserve()

            return result

        return Request(self._paths, changes, call, lambda file_obj: self._file_reply(file_obj, pflags))

    async def _wait_opened(self, result: Awaitable[Any]) -> Any:
        try:
            return await result
        finally:
            self._handles.unreserve()

    def _file_reply(self, file_obj: object, pflags: int) -> Reply:
        opened = Handle(file_obj)
        handle = self._handles.add(opened)

        if self._direct and isinstance(file_obj, io.FileIO) and stat.S_ISREG(os.fstat(file_obj.fileno()).st_mode):
            readable, append = bool(pflags & c.FXF_READ), bool(pflags & c.FXF_APPEND)
            writable = append or bool(pflags & c.FXF_WRITE)

            try:
                self._assembler.register_file(handle, file_obj.fileno(), readable, writable, append)
            except OSError:
                self._handles.remove(handle)
                file_obj.close()
                raise

            opened.access = readable, writable, append

        return c.FXP_HANDLE, encode_string(handle)

    def close(self, handle: bytes) -> Any:
        """Close an open file or directory; the result may have to be awaited."""

        opened = self._handles.remove(handle)

        if opened.access:
            self._assembler.unregister_file(handle)

        if opened.names is None:
            return self._server.close(opened.file_obj)

        close = getattr(opened.names, 'aclose', None) or getattr(opened.names, 'close', None)

        return close() if close else None

    def _decode_close(self, cursor: Cursor) -> Request:
        handle, opened = self._opened(cursor)

        return Request(opened.lane, True, lambda: self.close(handle), done)

    def _decode_read(self, cursor: Cursor) -> Request:
        _, opened = self._open_file(cursor)
        offset, size = cursor.uint64(), min(cursor.uint32(), MAX_BLOCK)

        return Request(opened.lane, True, lambda: self._server.read(opened.file_obj, offset, size), data_reply)

    def _decode_write(self, cursor: Cursor) -> Request:
        handle, opened = self._open_file(cursor)
        offset, data = cursor.uint64(), cursor.string()

        def call() -> Any:
            self._settle(handle, opened)

            return self._server.write(opened.file_obj, offset, data)

        return Request(opened.lane, True, call, done)

    def _decode_fstat(self, cursor: Cursor) -> Request:
        _, opened = self._open_file(cursor)

        return Request(opened.lane, True, lambda: self._server.fstat(opened.file_obj), attrs_reply)

    def _decode_fsetstat(self, cursor: Cursor) -> Request:
        handle, opened = self._open_file(cursor)
        attrs = SFTPAttrs.decode(cursor)

        def call() -> Any:
            self._settle(handle, opened)

            return self._server.fsetstat(opened.file_obj, attrs)

        return Request(opened.lane, True, call, done)

    def _settle(self, handle: bytes, opened: Handle) -> None:
        """Before Python changes a file: what was asked for earlier is read as it was."""

        if opened.access:
            self._assembler.settle_file(handle)

    def _decode_fstatvfs(self, cursor: Cursor) -> Request:
        _, opened = self._open_file(cursor)

        return Request(opened.lane, True, lambda: self._server.fstatvfs(opened.file_obj), vfs_reply)

    def _decode_fsync(self, cursor: Cursor) -> Request:
        _, opened = self._open_file(cursor)

        def call() -> Any:
            if opened.access and not self._own_fsync:
                return asyncio.to_thread(self._server.fsync, opened.file_obj)

            return self._server.fsync(opened.file_obj)

        return Request(opened.lane, True, call, done)

    # --- directories

    def _decode_opendir(self, cursor: Cursor) -> Request:
        path = cursor.string()

        return Request(self._paths, False, lambda: self._open_directory(path), handle_reply)

    async def _open_directory(self, path: bytes) -> bytes:
        """Begin a listing: its first name is fetched, so that a directory that cannot be read fails here."""

        self._handles.reserve()

        try:
            result: Any = self._server.scandir(path)

            if hasattr(result, '__await__'):
                result = await result

            names: AsyncIterator[SFTPName] = aiter(result) if hasattr(result, '__aiter__') else _one_by_one(result)
            opened = Handle(names=names)
            opened.held_back = await anext(names, None)
        finally:
            self._handles.unreserve()

        return self._handles.add(opened)

    def _decode_readdir(self, cursor: Cursor) -> Request:
        _, opened = self._opened(cursor)

        if opened.names is None:
            raise SFTPInvalidHandle('The handle is not that of a directory')

        return Request(opened.lane, True, lambda: self._read_names(opened), lambda answer: answer)

    async def _read_names(self, opened: Handle) -> Reply:
        if opened.held_back is None:
            return EOF

        first, opened.held_back = opened.held_back, None
        entries = [await self._encoded(first)]
        size = len(entries[0])

        async for name in cast(AsyncIterator[SFTPName], opened.names):
            if len(entries) == _NAMES_PER_REPLY or size >= _NAMES_SIZE:
                opened.held_back = name
                break

            entry = await self._encoded(name)
            size += len(entry)
            entries.append(entry)

        return c.FXP_NAME, encode_uint32(len(entries)) + b''.join(entries)

    async def _encoded(self, name: SFTPName) -> bytes:
        if not name.longname and (formatted := self._server.format_longname(name)) is not None:
            await formatted

        return name.encode()

    # --- paths

    def _path_request(self, method: str, exclusive: bool, reply: Callable[[Any], Reply], *args: Any) -> Request:
        return Request(self._paths, exclusive, lambda: getattr(self._server, method)(*args), reply)

    def _decode_stat(self, cursor: Cursor) -> Request:
        return self._path_request('stat', False, attrs_reply, cursor.string())

    def _decode_lstat(self, cursor: Cursor) -> Request:
        return self._path_request('lstat', False, attrs_reply, cursor.string())

    def _decode_setstat(self, cursor: Cursor) -> Request:
        return self._path_request('setstat', True, done, cursor.string(), SFTPAttrs.decode(cursor))

    def _decode_remove(self, cursor: Cursor) -> Request:
        return self._path_request('remove', True, done, cursor.string())

    def _decode_mkdir(self, cursor: Cursor) -> Request:
        return self._path_request('mkdir', True, done, cursor.string(), SFTPAttrs.decode(cursor))

    def _decode_rmdir(self, cursor: Cursor) -> Request:
        return self._path_request('rmdir', True, done, cursor.string())

    def _decode_realpath(self, cursor: Cursor) -> Request:
        return self._path_request('realpath', False, path_reply, cursor.string())

    def _decode_rename(self, cursor: Cursor) -> Request:
        return self._path_request('rename', True, done, cursor.string(), cursor.string())

    def _decode_readlink(self, cursor: Cursor) -> Request:
        return self._path_request('readlink', False, path_reply, cursor.string())

    def _decode_symlink(self, cursor: Cursor) -> Request:
        # OpenSSH sends the target first, where the draft has the link's path; its clients are nearly all there are,
        # and the extensions named in VERSION say that this server goes with them.
        first, second = cursor.string(), cursor.string()
        target, link = (second, first) if self._link_first else (first, second)

        return self._path_request('symlink', True, done, target, link)

    # --- extensions

    def _decode_extended(self, cursor: Cursor) -> Request:
        name = cursor.string()
        decode = _EXTENDED_DECODERS.get(name)

        if not decode:
            raise SFTPOpUnsupported(f'Unknown SFTP extension {name[:64].decode("utf-8", "backslashreplace")}')

        return decode(self, cursor)

    def _decode_posix_rename(self, cursor: Cursor) -> Request:
        return self._path_request('posix_rename', True, done, cursor.string(), cursor.string())

    def _decode_statvfs(self, cursor: Cursor) -> Request:
        return self._path_request('statvfs', False, vfs_reply, cursor.string())

    def _decode_hardlink(self, cursor: Cursor) -> Request:
        return self._path_request('link', True, done, cursor.string(), cursor.string())

    def _decode_lsetstat(self, cursor: Cursor) -> Request:
        return self._path_request('lsetstat', True, done, cursor.string(), SFTPAttrs.decode(cursor))

    def _hold(self, files: dict[bytes, Handle]) -> None:
        """From here on READs and WRITEs of these files take their turn in Python, behind what they are held for."""

        for handle, opened in files.items():
            opened.held += 1

            if opened.access and opened.held == 1:
                self._assembler.settle_file(handle)
                self._assembler.unregister_file(handle)

    @contextmanager
    def _held(self, files: dict[bytes, Handle]) -> Iterator[None]:
        """Do what files are held for; SFTPInvalidHandle if one was closed meanwhile."""

        try:
            for handle in files:
                self._handles.find(handle)

            yield
        finally:
            for handle, opened in files.items():
                opened.held -= 1

                if opened.access and not opened.held and handle in self._handles and not self._assembler.closed:
                    fd = cast(io.FileIO, opened.file_obj).fileno()
                    self._assembler.register_file(handle, fd, *opened.access)

    def _decode_copy_data(self, cursor: Cursor) -> Request:
        source_handle, source = self._open_file(cursor)
        offset, length = cursor.uint64(), cursor.uint64()
        target_handle, target = self._open_file(cursor)
        where = offset, length, cursor.uint64()
        files = {source_handle: source, target_handle: target}
        request = extensions.copy_data(self._server, source, target, *where, self._long, lambda: self._held(files))
        self._hold(files)

        return request

    def _decode_check_handle(self, cursor: Cursor) -> Request:
        handle, opened = self._open_file(cursor)
        check = extensions.check_file(self._server, opened, *_check_arguments(cursor), self._long)
        files = {handle: opened}
        self._hold(files)

        async def call() -> Reply:
            with self._held(files):
                return await check()

        return Request(opened.lane, False, call, lambda reply: reply)

    def _decode_check_name(self, cursor: Cursor) -> Request:
        path, arguments = cursor.string(), _check_arguments(cursor)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def turn_came() -> None:
            if turn.cancelled():
                self._paths.leave(False)
            else:
                turn.set_result(None)

        # Requests on paths wait until it is open, not until it is hashed.
        self._paths.enter(False, turn_came)

        async def opened() -> Any:
            try:
                await turn
                self._handles.reserve()

                try:
                    return await extensions.awaited(self._server.open(path, c.FXF_READ, SFTPAttrs()))
                except BaseException:
                    self._handles.unreserve()
                    raise
            finally:
                if not turn.cancelled():
                    self._paths.leave(False)

        async def call() -> Reply:
            file_obj = await opened()
            plain = self._direct and isinstance(file_obj, io.FileIO)
            file = Handle(file_obj, access=(True, False, False) if plain else None)

            try:
                return await extensions.check_file(self._server, file, *arguments, self._long)()
            finally:
                self._handles.unreserve()
                await extensions.awaited(self._server.close(file_obj))

        return Request(Lane(), False, call, lambda reply: reply)

    def _decode_home_directory(self, cursor: Cursor) -> Request:
        return extensions.home_directory(self._server, self._paths, cursor.string())

    def _decode_expand_path(self, cursor: Cursor) -> Request:
        return extensions.expand_path(self._server, self._paths, cursor.string())

    def _decode_names_of_ids(self, cursor: Cursor) -> Request:
        return extensions.names_of_ids(self._server, self._paths, cursor.string(), cursor.string())

    def _decode_limits(self, cursor: Cursor) -> Request:
        limits = SFTPLimits(MAX_MESSAGE, MAX_BLOCK, MAX_BLOCK, self._handles.limit)

        return Request(self._paths, False, lambda: limits, lambda _: (c.FXP_EXTENDED_REPLY, limits.encode()))


def _check_arguments(cursor: Cursor) -> tuple[bytes, int, int, int]:
    return cursor.string(), cursor.uint64(), cursor.uint64(), cursor.uint32()


_Decoder = Callable[[Dispatcher, Cursor], Request]

_DECODERS: dict[int, _Decoder] = {
    c.FXP_OPEN: Dispatcher._decode_open,
    c.FXP_CLOSE: Dispatcher._decode_close,
    c.FXP_READ: Dispatcher._decode_read,
    c.FXP_WRITE: Dispatcher._decode_write,
    c.FXP_LSTAT: Dispatcher._decode_lstat,
    c.FXP_FSTAT: Dispatcher._decode_fstat,
    c.FXP_SETSTAT: Dispatcher._decode_setstat,
    c.FXP_FSETSTAT: Dispatcher._decode_fsetstat,
    c.FXP_OPENDIR: Dispatcher._decode_opendir,
    c.FXP_READDIR: Dispatcher._decode_readdir,
    c.FXP_REMOVE: Dispatcher._decode_remove,
    c.FXP_MKDIR: Dispatcher._decode_mkdir,
    c.FXP_RMDIR: Dispatcher._decode_rmdir,
    c.FXP_REALPATH: Dispatcher._decode_realpath,
    c.FXP_STAT: Dispatcher._decode_stat,
    c.FXP_RENAME: Dispatcher._decode_rename,
    c.FXP_READLINK: Dispatcher._decode_readlink,
    c.FXP_SYMLINK: Dispatcher._decode_symlink,
    c.FXP_EXTENDED: Dispatcher._decode_extended,
}

_EXTENDED_DECODERS: dict[bytes, _Decoder] = {
    b'posix-rename@openssh.com': Dispatcher._decode_posix_rename,
    b'statvfs@openssh.com': Dispatcher._decode_statvfs,
    b'fstatvfs@openssh.com': Dispatcher._decode_fstatvfs,
    b'hardlink@openssh.com': Dispatcher._decode_hardlink,
    b'fsync@openssh.com': Dispatcher._decode_fsync,
    b'lsetstat@openssh.com': Dispatcher._decode_lsetstat,
    b'limits@openssh.com': Dispatcher._decode_limits,
    b'copy-data': Dispatcher._decode_copy_data,
    # The first name is what paramiko asks for.
    b'check-file': Dispatcher._decode_check_handle,
    b'check-file-handle': Dispatcher._decode_check_handle,
    b'check-file-name': Dispatcher._decode_check_name,
    b'home-directory': Dispatcher._decode_home_directory,
    b'expand-path@openssh.com': Dispatcher._decode_expand_path,
    b'users-groups-by-id@openssh.com': Dispatcher._decode_names_of_ids,
}
