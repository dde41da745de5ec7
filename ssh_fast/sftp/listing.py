"""Walks of the server's directories: listing one, and removing a tree."""

import asyncio
import posixpath
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Self

from .. import constants as c
from ..wire import encode_string
from .attrs import SFTPAttrs, SFTPName
from .errors import SFTPBadMessage, SFTPError, SFTPFailure
from .requests import SFTPClientSession

# READDIR requests under way at once, so that a round trip is not spent on every hundred names.
_READDIRS = 2

# Directories that are emptied at once, REMOVE requests under way for each, and how deep a tree may be.
_DIRECTORIES = 16
_REMOVES = 64
MAX_DEPTH = 256


def check_name(name: bytes | str) -> bytes:
    """Return a name that came from a server if it can be that of an entry of a directory; SFTPBadMessage if not."""

    assert isinstance(name, bytes)

    if name in (b'', b'.', b'..') or b'/' in name or b'\0' in name:
        raise SFTPBadMessage(f'Expected the name of a file, got {name[:256]!r}')

    return name


async def list_directory(session: SFTPClientSession, path: bytes) -> AsyncGenerator[list[SFTPName], None]:
    """Yield a directory's entries, names as bytes, as they arrive: those of one reply together."""

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

            yield names
    finally:
        for future in waiting:
            future.cancel()

        session.forget_handle(handle)


async def remove_tree(
    session: SFTPClientSession, path: bytes, failed: Callable[[str, bytes, SFTPError], None]
) -> None:
    """Remove a directory with all that is in it; `failed` is told the client's method, the path and the error.

    What `failed` raises ends the removal, and is raised.
    """

    await _Removal(session, failed).run(path)


@dataclass(slots=True)
class _Directory:
    """A directory that is being removed, and how many in it are still there."""

    path: bytes
    parent: Self | None
    depth: int
    inside: int = 0


class _Removal:
    """Empties several directories at once; each is removed when all that are in it have been."""

    def __init__(self, session: SFTPClientSession, failed: Callable[[str, bytes, SFTPError], None]) -> None:
        self._session = session
        self._failed = failed
        self._waiting: list[_Directory] = []

    async def run(self, path: bytes) -> None:
        tasks: set[asyncio.Task[None]] = set()
        self._waiting.append(_Directory(path, None, 0))

        try:
            while self._waiting or tasks:
                # The latest first: those that wait are then few, however large the tree is.
                while self._waiting and len(tasks) < _DIRECTORIES:
                    tasks.add(asyncio.create_task(self._remove(self._waiting.pop())))

                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

                for error in [task.exception() for task in done]:
                    if error is not None:
                        raise error
        finally:
            for task in tasks:
                task.cancel()

            # Of several failures the first one counts.
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _remove(self, directory: _Directory) -> None:
        """Remove a directory's files, and then itself unless there are directories in it: these are left waiting."""

        inside = await self._remove_files(directory)
        directory.inside = len(inside)
        self._waiting += [_Directory(path, directory, directory.depth + 1) for path in reversed(inside)]
        empty: _Directory | None = directory

        while empty is not None and not empty.inside:
            try:
                await self._session.status(c.FXP_RMDIR, encode_string(empty.path))
            except SFTPError as exc:
                self._failed('rmdir', empty.path, exc)

            empty = empty.parent

            if empty is not None:
                empty.inside -= 1

    async def _remove_files(self, directory: _Directory) -> list[bytes]:
        """Remove all but the directories in a directory, and return these."""

        session, path = self._session, directory.path
        directories: list[bytes] = []
        removing: dict[asyncio.Future[tuple[int, bytes]], bytes] = {}

        def removed(future: asyncio.Future[tuple[int, bytes]]) -> None:
            at = removing.pop(future)

            try:
                session.check_reply(future.result())
            except SFTPError as exc:
                self._failed('remove', at, exc)

        try:
            if directory.depth > MAX_DEPTH:
                raise SFTPBadMessage(f'Directories are nested deeper than {MAX_DEPTH}')

            if directory.parent is None:
                attrs = await session.attrs(c.FXP_LSTAT, encode_string(path))

                if attrs.type == c.FILEXFER_TYPE_SYMLINK:
                    raise SFTPBadMessage('A symbolic link is not removed as a tree')

            async for names in list_directory(session, path):
                for name in names:
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
            self._failed('scandir', path, exc)
        finally:
            await asyncio.gather(*removing, return_exceptions=True)

        for future in list(removing):
            removed(future)

        return directories


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
        raise SFTPFailure(f'{path.decode("utf-8", "backslashreplace")} already exists') from last
