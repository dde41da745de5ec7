"""The side of an SCP copy that gets the files: it takes a source's records, and says yes or no to each."""

import os
import posixpath
from typing import Protocol

from .attrs import SFTPAttrs
from .errors import SFTPBadMessage, SFTPError, SFTPNotADirectory
from .scp_command import has_pattern
from .scp_link import ScpLink
from .scp_records import End, Entry, Message, RecordOrder, Times
from .scp_source import Failed, reason_of
from .transfer import CopyOptions, Progress


class ScpOutput(Protocol):
    """A file that is being written. Unless it is finished nothing stays that could be taken for the whole file."""

    async def write(self, offset: int, data: bytes) -> None:
        """Write all of the data at an offset."""

    async def finish(self, attrs: SFTPAttrs | None) -> None:
        """Set the attributes, if there are any, and close the file; its last errors are raised here."""

    async def discard(self, reason: str | None) -> None:
        """Give up the file, for a reason, or because the whole copy has ended."""


class ScpDirectory(Protocol):
    """A directory that is being filled."""

    async def create(self, name: bytes, attrs: SFTPAttrs, size: int) -> ScpOutput:
        """Create a file in it, or empty the one that is there."""

    async def make_directory(self, name: bytes, attrs: SFTPAttrs) -> 'ScpDirectory':
        """Make a directory in it, unless it is there."""

    async def finish(self, attrs: SFTPAttrs | None) -> None:
        """Set the attributes, if there are any: nothing more comes into it."""

    def close(self) -> None:
        """Let go of it, whether it is finished or not."""


class ScpTarget(ScpDirectory, Protocol):
    """Where a copy goes to, as if it were a directory."""

    @property
    def path(self) -> bytes:
        """The path of it."""

    @property
    def takes_many(self) -> bool:
        """Whether it is a directory indeed, and not the name for the one thing that comes."""


class ScpSink:
    """Receives what a source sends, into a target; `source` is the path that was asked for, if one was."""

    def __init__(
        self,
        link: ScpLink,
        target: ScpTarget,
        order: RecordOrder,
        options: CopyOptions,
        failed: Failed,
        source: bytes = b'',
    ) -> None:
        self._link = link
        self._target = target
        self._order = order
        self._options = options
        self._failed = failed
        self._source = source
        self.count = 0    # of what has come at the top

    async def receive(self) -> None:
        """Receive everything.

        Raises:
          SFTPBadMessage: the source sent what it must not; it is told so
          SFTPConnectionLost: it ended early
        """

        # The directory that is being filled, with those above it, and the attributes that each gets at its end.
        directories: list[tuple[ScpDirectory, bytes, SFTPAttrs]] = []

        try:
            await self._link.acknowledge()

            while (line := await self._link.record()) is not None:
                await self._take(line, directories)

            self._order.finish()
        except SFTPBadMessage as exc:
            await self._give_up(exc)
            raise
        finally:
            for directory, _, _ in reversed(directories):
                directory.close()

    async def _take(self, line: bytes, directories: list[tuple[ScpDirectory, bytes, SFTPAttrs]]) -> None:
        record = self._order.take(line)
        shown = directories[-1][1] if directories else b''

        if isinstance(record, Message):
            exc = self._link.failure(record)

            if record.fatal:
                raise exc

            self._report(exc, shown)
        elif isinstance(record, Times):
            await self._link.acknowledge()
        elif isinstance(record, End):
            await self._end_directory(*directories.pop())
        else:
            if not directories:
                self.count += 1

                if self.count > 1 and not self._target.takes_many:
                    exc = SFTPNotADirectory(f'{os.fsdecode(self._target.path)} must be a directory')
                    await self._give_up(exc)

                    raise exc

            directory = directories[-1][0] if directories else self._target
            shown = posixpath.join(shown, record.name)

            if record.is_directory:
                made = await self._begin_directory(directory, record, shown)

                if made:
                    self._order.enter()
                    directories.append((made, shown, attrs_of(record)))
            else:
                await self._file(directory, record, shown)

    async def _begin_directory(self, directory: ScpDirectory, entry: Entry, shown: bytes) -> ScpDirectory | None:
        try:
            made = await directory.make_directory(entry.name, attrs_of(entry))
        except (OSError, SFTPError) as exc:
            await self._refuse(exc, shown)

            return None

        try:
            await self._link.acknowledge()
        except BaseException:
            made.close()
            raise

        return made

    async def _end_directory(self, directory: ScpDirectory, shown: bytes, attrs: SFTPAttrs) -> None:
        try:
            await directory.finish(attrs if self._options.preserve else None)
        except (OSError, SFTPError) as exc:
            await self._refuse(exc, shown)
        else:
            await self._link.acknowledge()
        finally:
            directory.close()

    async def _file(self, directory: ScpDirectory, entry: Entry, shown: bytes) -> None:
        attrs = attrs_of(entry)

        try:
            output = await directory.create(entry.name, attrs, entry.size)
        except (OSError, SFTPError) as exc:
            await self._refuse(exc, shown)
            return

        try:
            await self._link.acknowledge()
            progress = Progress(self._options, self._shown_source(shown), self._shown_target(shown), entry.size)
            failure = await self._data(output, entry.size, shown, progress)
            answer = await self._link.answer()

            if answer and failure is None:
                failure = self._link.failure(answer)
                self._report(failure, shown)

            if failure is None:
                failure = await self._finish(output, attrs, shown)

            if failure is not None:
                await output.discard(reason_of(failure))
        except BaseException:
            await output.discard(None)
            raise

        if failure is None:
            progress.tell(entry.size)
            await self._link.acknowledge()
        else:
            await self._link.refuse(f'{os.fsdecode(shown)}: {reason_of(failure)}')

    async def _data(
        self, output: ScpOutput, size: int, shown: bytes, progress: Progress
    ) -> SFTPError | OSError | None:
        """Write a file's data; from where that fails on, only take it. Return why it failed."""

        failure: SFTPError | OSError | None = None
        done = 0

        while done < size:
            data = await self._link.data(min(self._options.block_size, size - done))

            if failure is None:
                try:
                    await output.write(done, data)
                except (OSError, SFTPError) as exc:
                    failure = exc
                    exc.offset = done  # type: ignore[union-attr]
                    self._report(exc, shown)

            done += len(data)

            # The end is told when the file is whole.
            if failure is None and done < size:
                progress.tell(done)

        return failure

    async def _finish(self, output: ScpOutput, attrs: SFTPAttrs, shown: bytes) -> SFTPError | OSError | None:
        try:
            await output.finish(attrs if self._options.preserve else None)
        except (OSError, SFTPError) as exc:
            self._report(exc, shown)

            return exc

        return None

    def _shown_source(self, shown: bytes) -> bytes:
        """Return the path that something comes from, as far as it is known."""

        base = posixpath.dirname(self._source)

        return posixpath.join(b'' if has_pattern(base) else base, shown) if shown else self._source

    def _shown_target(self, shown: bytes) -> bytes:
        """Return the path that something goes to: the target itself, if that is the name for it."""

        if self._target.takes_many:
            return posixpath.join(self._target.path, shown) if shown else self._target.path

        return posixpath.join(self._target.path, *shown.split(b'/')[1:])

    async def _refuse(self, exc: OSError | SFTPError, shown: bytes) -> None:
        self._report(exc, shown)
        await self._link.refuse(f'{os.fsdecode(shown)}: {reason_of(exc)}')

    async def _give_up(self, exc: SFTPError) -> None:
        """Tell the source why nothing more is taken."""

        if not self._link.broken:
            try:
                await self._link.refuse(exc.reason, fatal=True)
            except (OSError, SFTPError):
                # It need not hear it.
                return
            finally:
                self._link.broken = True

    def _report(self, exc: OSError | SFTPError, shown: bytes) -> None:
        self._failed(exc, self._shown_source(shown), self._shown_target(shown))


def attrs_of(entry: Entry) -> SFTPAttrs:
    """Return the attributes that an entry's records tell."""

    if entry.times is None:
        return SFTPAttrs(permissions=entry.permissions)

    return SFTPAttrs(permissions=entry.permissions, atime=entry.times.atime, mtime=entry.times.mtime)
