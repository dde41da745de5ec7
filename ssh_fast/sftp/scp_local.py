"""Local files as the source and as the target of an SCP copy."""

import os
import posixpath
from collections.abc import AsyncIterator
from typing import Self

from .attrs import SFTPAttrs
from .errors import SFTPNotADirectory
from .local import LocalDirectory, LocalOutput, LocalPlace, named_error, open_local, set_local_attrs


class LocalFiles:
    """The local file system as a source; links are followed, as SCP carries none."""

    async def attrs(self, path: bytes) -> SFTPAttrs:
        """Return a file's attributes, of a link those of its target."""

        # As text, with which an error names it.
        return SFTPAttrs.from_local(os.stat(os.fsdecode(path)))

    async def names(self, path: bytes) -> AsyncIterator[bytes]:
        """Yield the names in a directory."""

        for name in os.listdir(path):
            yield name

    async def open(self, path: bytes) -> '_LocalInput':
        """Open a regular file."""

        return _LocalInput(*open_local(path, follow=True))


class _LocalInput:
    def __init__(self, fd: int, result: os.stat_result) -> None:
        self.attrs = SFTPAttrs.from_local(result)
        self._fd = fd

    async def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._fd, size, offset)

    async def close(self) -> None:
        os.close(self._fd)


class LocalScpTarget:
    """A local path as the target: a directory to copy into, or the name for the one thing that comes.

    A link at a path that the user named is followed; where the source chooses the names, one there is an error.
    """

    def __init__(self, path: bytes, *, must_be_directory: bool, follow_names: bool) -> None:
        self.path = path
        self.takes_many = os.path.isdir(path)
        self._follow_names = follow_names
        self._directory: LocalDirectory | None = None

        if must_be_directory and not self.takes_many:
            raise SFTPNotADirectory(f'{os.fsdecode(path)} must be a directory')

    async def create(self, name: bytes, attrs: SFTPAttrs, size: int) -> '_LocalFile':
        """Create a file, or empty the one that is there."""

        return _LocalFile(self._place(name), attrs)

    async def make_directory(self, name: bytes, attrs: SFTPAttrs) -> '_LocalTree':
        """Make a directory, unless it is there."""

        return _LocalTree(self._place(name).make_directory(attrs.permissions))

    async def finish(self, attrs: SFTPAttrs | None) -> None:
        """Leave the directory as it is: it is the user's."""

    def close(self) -> None:
        """Close the directory, if it was opened."""

        if self._directory:
            self._directory.close()
            self._directory = None

    def _place(self, name: bytes) -> LocalPlace:
        if not self.takes_many:
            return LocalPlace(self.path)

        path = posixpath.join(self.path, name)

        return LocalPlace(path) if self._follow_names else LocalPlace(path, self._opened())

    def _opened(self) -> LocalDirectory:
        if self._directory is None:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            self._directory = LocalDirectory(os.open(self.path, flags), self.path, 0)

        return self._directory

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _LocalTree:
    """A directory of the copied tree, known by its descriptor."""

    def __init__(self, directory: LocalDirectory) -> None:
        self._directory = directory

    async def create(self, name: bytes, attrs: SFTPAttrs, size: int) -> '_LocalFile':
        return _LocalFile(self._place(name), attrs)

    async def make_directory(self, name: bytes, attrs: SFTPAttrs) -> '_LocalTree':
        return _LocalTree(self._place(name).make_directory(attrs.permissions))

    async def finish(self, attrs: SFTPAttrs | None) -> None:
        if attrs is not None:
            try:
                set_local_attrs(self._directory.fd, attrs)
            except OSError as exc:
                raise named_error(exc, self._directory.path) from None

    def close(self) -> None:
        self._directory.close()

    def _place(self, name: bytes) -> LocalPlace:
        return LocalPlace(posixpath.join(self._directory.path, name), self._directory)


class _LocalFile:
    """A local file that is being written."""

    def __init__(self, place: LocalPlace, attrs: SFTPAttrs) -> None:
        self._path = place.path
        self._output: LocalOutput = place.create(attrs.permissions)

    async def write(self, offset: int, data: bytes) -> None:
        rest = memoryview(data)

        try:
            while rest:
                rest = rest[os.write(self._output.fd, rest) :]
        except OSError as exc:
            raise named_error(exc, self._path) from None

    async def finish(self, attrs: SFTPAttrs | None) -> None:
        self._output.finish(attrs)

    async def discard(self, reason: str | None) -> None:
        self._output.discard()
