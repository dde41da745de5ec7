"""Shell patterns over the server's files: `*`, `?`, `[...]` in a name, and `**` for any directories."""

import fnmatch
import glob
import os
import posixpath
import re
from collections.abc import AsyncIterator

from .. import constants as c
from ..wire import encode_string
from .attrs import SFTPAttrs, SFTPName
from .errors import SFTPBadMessage, SFTPError, SFTPNoSuchFile, SFTPNoSuchPath, SFTPNotADirectory, SFTPPermissionDenied
from .listing import MAX_DEPTH, check_name, list_directory
from .requests import SFTPClientSession

_MAGIC = re.compile(rb'[*?[]')


async def glob_remote(session: SFTPClientSession, pattern: bytes, cwd: bytes | None) -> list[SFTPName]:
    """Return the matches in the order of their names; SFTPNoSuchFile if there is none.

    A relative pattern is one from `cwd` on, and gives relative paths. Names that begin with a dot match only a pattern
    that does too. `**` does not follow links.
    """

    walk = _Walk(session, cwd)
    base = b'/' if pattern.startswith(b'/') else b''
    parts = [part for part in pattern.split(b'/') if part]
    found: dict[bytes, SFTPName] = {}

    async for name in walk.matches(base, parts):
        assert isinstance(name.filename, bytes)
        found.setdefault(name.filename, name)

    if not found:
        raise SFTPNoSuchFile(f'No file matches {pattern.decode("utf-8", "backslashreplace")}')

    return [found[path] for path in sorted(found)]


def glob_local(pattern: bytes) -> list[bytes]:
    """Return the local matches; SFTPNoSuchFile if there is none."""

    found = sorted(glob.glob(pattern, recursive=True))

    if not found:
        raise SFTPNoSuchFile(f'No local file matches {os.fsdecode(pattern)}')

    return found


class _Walk:
    def __init__(self, session: SFTPClientSession, cwd: bytes | None) -> None:
        self._session = session
        self._cwd = cwd

    def _wire(self, path: bytes) -> bytes:
        return posixpath.join(self._cwd, path) if self._cwd is not None else path or b'.'

    async def matches(self, base: bytes, parts: list[bytes]) -> AsyncIterator[SFTPName]:
        """Yield what matches the parts below a base."""

        if not parts:
            return

        part, rest = parts[0], parts[1:]

        if part == b'**':
            async for name in self._any_depth(base, rest):
                yield name
        elif not _MAGIC.search(part):
            path = base + part

            if rest:
                async for name in self.matches(path + b'/', rest):
                    yield name
            else:
                attrs = await self._attrs(path)

                if attrs is not None:
                    yield SFTPName(path, attrs=attrs)
        else:
            match = re.compile(fnmatch.translate(part.decode('latin-1')))

            async for name in self._entries(base):
                filename = check_name(name.filename)

                if filename.startswith(b'.') and not part.startswith(b'.'):
                    continue

                if not match.match(filename.decode('latin-1')):
                    continue

                if not rest:
                    yield SFTPName(base + filename, attrs=name.attrs)
                elif name.attrs.type not in (c.FILEXFER_TYPE_REGULAR, c.FILEXFER_TYPE_SPECIAL):
                    async for deeper in self.matches(base + filename + b'/', rest):
                        yield deeper

    async def _any_depth(self, base: bytes, rest: list[bytes]) -> AsyncIterator[SFTPName]:
        """Yield what matches the rest below a base or any directory below it; without a rest, everything there is."""

        waiting = [(base, 0)]

        while waiting:
            base, depth = waiting.pop()

            if depth > MAX_DEPTH:
                raise SFTPBadMessage(f'Directories are nested deeper than {MAX_DEPTH}')

            if rest:
                async for name in self.matches(base, rest):
                    yield name

            async for name in self._entries(base):
                filename = check_name(name.filename)

                if filename.startswith(b'.'):
                    continue

                if not rest:
                    yield SFTPName(base + filename, attrs=name.attrs)

                if name.attrs.type == c.FILEXFER_TYPE_DIRECTORY:
                    waiting.append((base + filename + b'/', depth + 1))

    async def _entries(self, base: bytes) -> AsyncIterator[SFTPName]:
        """Yield a directory's entries; one that is not there, not a directory or not readable has none."""

        try:
            async for names in list_directory(self._session, self._wire(base)):
                for name in names:
                    if name.filename not in (b'.', b'..'):
                        yield name
        except SFTPError as exc:
            if not isinstance(exc, (SFTPNoSuchFile, SFTPNoSuchPath, SFTPNotADirectory, SFTPPermissionDenied)):
                raise

    async def _attrs(self, path: bytes) -> SFTPAttrs | None:
        try:
            return await self._session.attrs(c.FXP_LSTAT, encode_string(self._wire(path)))
        except (SFTPNoSuchFile, SFTPNoSuchPath):
            return None
