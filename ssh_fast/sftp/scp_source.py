"""The side of an SCP copy that has the files: the walk through them, and the records that it sends."""

import asyncio
import os
import posixpath
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Protocol

from .. import constants as c
from .attrs import SFTPAttrs
from .errors import SFTPError, SFTPFailure, SFTPFileIsADirectory, SFTPInvalidFilename, error_from_os
from .scp_command import has_pattern, name_pattern
from .scp_link import ScpLink
from .scp_records import MAX_DEPTH, OK, encode_entry, encode_message, encode_times, is_fit
from .transfer import CopyOptions, Progress

# A pattern that matches more costs too much: clients may ask for any.
_MAX_MATCHES = 100_000

# Takes an error with the paths of source and destination. Raises it if the copy is to stop, and then all that follows.
Failed = Callable[[Exception, bytes, bytes], None]


class ScpInput(Protocol):
    """A file that is open for reading."""

    @property
    def attrs(self) -> SFTPAttrs:
        """The file's attributes."""

    async def read(self, offset: int, size: int) -> bytes:
        """Read up to `size` bytes at an offset; none at the end."""

    async def close(self) -> None:
        """Close the file."""


class ScpFiles(Protocol):
    """Where a copy comes from."""

    async def attrs(self, path: bytes) -> SFTPAttrs:
        """Return a file's attributes, of a link those of its target."""

    def names(self, path: bytes) -> AsyncIterator[bytes]:
        """Yield the names in a directory, without `.` and `..`."""

    async def open(self, path: bytes) -> ScpInput:
        """Open a file; only regular ones, as others may never end."""


class RecordSender:
    """Sends the records of entries to a sink, and waits for its answer to each."""

    def __init__(self, link: ScpLink, preserve: bool) -> None:
        self.link = link
        self._preserve = preserve

    async def file(self, name: bytes, attrs: SFTPAttrs, size: int) -> None:
        """Announce a file, of which `size` bytes must follow.

        Raises:
          SFTPFailure: the sink does not take it
        """

        await self._entry(name, attrs, size, is_directory=False)

    async def directory(self, name: bytes, attrs: SFTPAttrs) -> None:
        """Begin a directory.

        Raises:
          SFTPFailure: the sink does not take it
        """

        await self._entry(name, attrs, 0, is_directory=True)

    async def data(self, data: bytes) -> None:
        """Send some of a file's data."""

        await self.link.send(data)

    async def end_file(self, error: str | None = None) -> None:
        """End a file, with what went wrong if its data is not what it should be.

        Raises:
          SFTPFailure: the sink could not write it
        """

        await self.link.send(OK if error is None else encode_message(error))
        await self.link.expect_ok()

    async def end_directory(self) -> None:
        """End a directory.

        Raises:
          SFTPFailure: the sink could not set its attributes
        """

        await self.link.send(b'E\n')
        await self.link.expect_ok()

    async def _entry(self, name: bytes, attrs: SFTPAttrs, size: int, is_directory: bool) -> None:
        if not is_fit(name):
            raise SFTPInvalidFilename(f'SCP cannot carry the name {name[:256]!r}')

        if self._preserve and attrs.mtime is not None and attrs.atime is not None:
            await self.link.send(encode_times(attrs.mtime, attrs.atime))
            await self.link.expect_ok()

        await self.link.send(encode_entry(name, attrs.permissions, size, is_directory))
        await self.link.expect_ok()


class ScpSource:
    """Sends files and trees; `tells` says that the sink is told of what could not be sent."""

    def __init__(
        self, files: ScpFiles, sender: RecordSender, options: CopyOptions, failed: Failed, *, tells: bool
    ) -> None:
        self._files = files
        self._sender = sender
        self._link = sender.link
        self._options = options
        self._report = failed
        self._tells = tells

    async def send(self, source: bytes) -> None:
        """Send a file, or a directory with all that is in it if the options say so."""

        name = posixpath.basename(source.rstrip(b'/'))
        directories: list[tuple[bytes, bytes, Iterator[bytes]]] = []

        if entries := await self._entry(source, name, name, 0):
            directories.append((source, name, entries))

        while directories:
            path, shown, entries = directories[-1]
            name = next(entries, b'')

            if name:
                deeper = posixpath.join(path, name), posixpath.join(shown, name)

                if names := await self._entry(deeper[0], name, deeper[1], len(directories)):
                    directories.append((*deeper, names))
            else:
                directories.pop()
                await self._end_directory(path, shown)

    async def _entry(self, path: bytes, name: bytes, shown: bytes, depth: int) -> Iterator[bytes] | None:
        """Send a file, or begin a directory and return the names in it; what fails is reported."""

        try:
            if name in (b'', b'.', b'..'):
                raise SFTPFailure(f'{os.fsdecode(path)} has no name of its own: name the file or directory')

            attrs = await self._files.attrs(path)

            if attrs.type == c.FILEXFER_TYPE_DIRECTORY:
                return await self._begin_directory(path, name, attrs, depth)

            await self._file(path, name, shown)
        except (OSError, SFTPError) as exc:
            await self._failed(exc, path, shown)

        return None

    async def _begin_directory(self, path: bytes, name: bytes, attrs: SFTPAttrs, depth: int) -> Iterator[bytes]:
        if not self._options.recurse:
            raise SFTPFileIsADirectory(f'{os.fsdecode(path)} is a directory')

        if depth >= MAX_DEPTH:
            raise SFTPFailure(f'Directories are nested deeper than {MAX_DEPTH}')

        # Listed first, so that one that cannot be listed is not begun.
        names = [name async for name in self._files.names(path)]
        await self._sender.directory(name, attrs)

        return iter(names)

    async def _end_directory(self, path: bytes, shown: bytes) -> None:
        try:
            await self._sender.end_directory()
        except SFTPError as exc:
            await self._failed(exc, path, shown)

    async def _file(self, path: bytes, name: bytes, shown: bytes) -> None:
        file = await self._files.open(path)

        try:
            size = file.attrs.size

            if size is None:
                raise SFTPFailure(f'The size of {os.fsdecode(path)} is not known')

            await self._sender.file(name, file.attrs, size)
            progress = Progress(self._options, path, shown, size)
            failure = await self._data(file, path, shown, size, progress)

            if failure is None:
                await self._sender.end_file()
                progress.tell(size)
            else:
                await self._end_failed(failure)
        finally:
            await file.close()

    async def _data(
        self, file: ScpInput, path: bytes, shown: bytes, size: int, progress: Progress
    ) -> SFTPError | OSError | None:
        """Send as many bytes as were announced: from where the file fails on, zeros. Return why it failed."""

        failure: SFTPError | OSError | None = None
        done = 0

        while done < size:
            wanted = min(self._options.block_size, size - done)
            data = b''

            if failure is None:
                try:
                    data = (await file.read(done, wanted))[:wanted]

                    if not data:
                        raise SFTPFailure(f'{os.fsdecode(path)} ended after {done} of {size} bytes')
                except (OSError, SFTPError) as exc:
                    failure = exc
                    exc.offset = done  # type: ignore[union-attr]
                    self._report(exc, path, shown)

            # The last piece is told when the sink has written it.
            if done and failure is None:
                progress.tell(done)

            data = data or bytes(wanted)
            await self._sender.data(data)
            done += len(data)

        return failure

    async def _end_failed(self, failure: SFTPError | OSError) -> None:
        try:
            await self._sender.end_file(reason_of(failure))
        except SFTPFailure:
            # The sink agrees that the file is no good.
            if self._link.broken:
                raise

    async def _failed(self, exc: OSError | SFTPError, path: bytes, shown: bytes) -> None:
        if self._link.broken:
            raise exc

        self._report(exc, path, shown)

        # What the sink has refused it knows.
        if self._tells and exc is not self._link.refusal:
            await self._link.refuse(f'{os.fsdecode(path)}: {reason_of(exc)}')


async def matching_paths(files: ScpFiles, pattern: bytes) -> list[bytes]:
    """Return the paths that match a pattern, in order; none if there are none, or its directories cannot be read.

    Raises:
      SFTPFailure: there are very many
    """

    found = [b'/' if pattern.startswith(b'/') else b'']

    for part in [part for part in pattern.split(b'/') if part]:
        if not has_pattern(part):
            found = [base + part + b'/' for base in found]
            continue

        matches = name_pattern(part)
        bases, found = found, []

        for base in bases:
            try:
                found += [base + name + b'/' async for name in files.names(base or b'.') if matches(name)]
            except (OSError, SFTPError):
                continue

            if len(found) > _MAX_MATCHES:
                raise SFTPFailure(f'The pattern matches more than {_MAX_MATCHES} files')

            await asyncio.sleep(0)

    there = []

    for path in sorted(path.rstrip(b'/') for path in found):
        try:
            await files.attrs(path)
        except (OSError, SFTPError):
            continue

        there.append(path)

    return there


def reason_of(exc: Exception) -> str:
    """Return what the other side is told of an error: not the paths of the system."""

    if isinstance(exc, OSError):
        exc = error_from_os(exc)

    return exc.reason if isinstance(exc, SFTPError) else 'The request failed'
