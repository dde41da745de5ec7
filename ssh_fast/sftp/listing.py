"""Walks of the server's directories: listing one, and removing a tree."""

import asyncio
import posixpath
from collections import deque
from collections.abc import AsyncGenerator, Callable

from .. import constants as c
from ..wire import encode_string
from .attrs import SFTPAttrs, SFTPName
from .errors import SFTPBadMessage, SFTPError, SFTPFailure, SFTPFileAlreadyExists
from .requests import SFTPClientSession

# READDIR requests under way at once, so that a round trip is not spent on every hundred names.
_READDIRS = 2

# REMOVE requests under way at once, and how deep a tree may be.
_REMOVES = 64
MAX_DEPTH = 256


def check_name(name: bytes | str) -> bytes:
    """Return a name that came from a server if it can be that of an entry of a directory; SFTPBadMessage if not."""

    assert isinstance(name, bytes)

    if name in (b'', b'.', b'..') or b'/' in name or b'\0' in name:
        raise SFTPBadMessage(f'Expected the name of a file, got {name[:256]!r}')

    return name


async def list_directory(session: SFTPClientSession, path: bytes) -> AsyncGenerator[SFTPName, None]:
    """Yield a directory's entries, names as bytes, as they arrive."""

    handle = await session.handle(c.FXP_OPENDIR, encode_string(path))
    body = encode_string(handle)
    waiting: deque[asyncio.Future[tuple[int, bytes]]] = deque()

    try:
        while True:
            while len(waiting) < _READDIRS:
                waiting.append(session.send(c.FXP_READDIR, body))

            names = session.names_reply(await waiting.popleft())

            if names is None:
                break

            for name in names:
                yield name
    finally:
        for future in waiting:
            future.cancel()

        session.forget_handle(handle)


async def remove_tree(
    session: SFTPClientSession, path: bytes, failed: Callable[[str, bytes, SFTPError], None], depth: int = 0
) -> None:
    """Remove a directory with all that is in it; `failed` is told the client's method, the path and the error."""

    directories: list[bytes] = []
    removing: dict[asyncio.Future[tuple[int, bytes]], bytes] = {}

    def removed(future: asyncio.Future[tuple[int, bytes]]) -> None:
        at = removing.pop(future)

        try:
            session.check_reply(future.result())
        except SFTPError as exc:
            failed('remove', at, exc)

    try:
        if depth > MAX_DEPTH:
            raise SFTPBadMessage(f'Directories are nested deeper than {MAX_DEPTH}')

        if depth == 0 and (await session.attrs(c.FXP_LSTAT, encode_string(path))).type == c.FILEXFER_TYPE_SYMLINK:
            raise SFTPBadMessage('A symbolic link is not removed as a tree')

        async for name in list_directory(session, path):
            if name.filename in (b'.', b'..'):
                continue

            entry = path.rstrip(b'/') + b'/' + check_name(name.filename)

            if name.attrs.type == c.FILEXFER_TYPE_UNKNOWN:
                name.attrs = await session.attrs(c.FXP_LSTAT, encode_string(entry))

            if name.attrs.type == c.FILEXFER_TYPE_DIRECTORY:
                directories.append(entry)
                continue

            removing[session.send(c.FXP_REMOVE, encode_string(entry))] = entry

            if len(removing) >= _REMOVES:
                await asyncio.wait(removing, return_when=asyncio.FIRST_COMPLETED)

                for future in [future for future in removing if future.done()]:
                    removed(future)
    except SFTPError as exc:
        failed('scandir', path, exc)
    finally:
        if removing:
            await asyncio.wait(removing)

    for future in list(removing):
        removed(future)

    for directory in directories:
        await remove_tree(session, directory, failed, depth + 1)

    try:
        await session.status(c.FXP_RMDIR, encode_string(path))
    except SFTPError as exc:
        failed('rmdir', path, exc)


async def make_directories(session: SFTPClientSession, path: bytes, attrs: SFTPAttrs, exist_ok: bool) -> None:
    """Make a directory and those above it that are missing."""

    made = b'/' if path.startswith(b'/') else b''
    last: SFTPError | None = None
    names = [name for name in path.split(b'/') if name]

    for name in names:
        made = posixpath.join(made, name)

        # Servers of version 3 do not tell why a directory was not made: only the last one's failure counts.
        try:
            last = None
            await session.status(c.FXP_MKDIR, encode_string(made) + attrs.encode())
        except SFTPError as exc:
            last = exc

    if names and last is None:
        return

    try:
        is_directory = (await session.attrs(c.FXP_STAT, encode_string(path))).type == c.FILEXFER_TYPE_DIRECTORY
    except SFTPError:
        is_directory = False

    if not is_directory:
        raise last or SFTPFailure('A directory needs a name')

    if not exist_ok:
        raise SFTPFileAlreadyExists(f'{path.decode("utf-8", "backslashreplace")} already exists') from last
