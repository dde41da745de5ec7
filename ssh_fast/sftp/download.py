"""Downloads: a server's files into local ones."""

import os
import posixpath
import stat
from collections.abc import Sequence

from .. import constants as c
from ..wire import encode_string
from .attrs import SFTPAttrs
from .comparison import Comparison
from .errors import SFTPError, SFTPFailure
from .local import LocalOutput, LocalPlace, first_hole, named_error, set_local_attrs
from .local_part import open_part
from .remote import RemoteSource
from .requests import SFTPClientSession
from .threads import in_thread
from .transfer import Copy, CopyOptions, Fill, Progress, Transfer, is_copy


async def copy_remote_to_local(
    session: SFTPClientSession, sources: Sequence[bytes], many: bool, target: bytes | None, options: CopyOptions
) -> Transfer:
    """Download files or trees; `many` sources need a directory to go to."""

    download = _Download(session, options)

    return await Copy(options, download.source, _LocalTarget(), download.copy_file).run(sources, many, target)


class _LocalTarget:
    async def is_directory(self, path: bytes) -> bool:
        try:
            return stat.S_ISDIR(os.stat(path).st_mode)
        except FileNotFoundError:
            return False

    def place(self, path: bytes) -> LocalPlace:
        return LocalPlace(path)

    def path_of(self, place: LocalPlace) -> bytes:
        return place.path

    async def fill_directory(
        self, place: LocalPlace, attrs: SFTPAttrs, preserve: bool, fill: Fill[LocalPlace]
    ) -> None:
        directory = place.make_directory(attrs.permissions)

        try:
            await fill(lambda name: LocalPlace(posixpath.join(directory.path, name), directory))

            if preserve:
                set_local_attrs(directory.fd, attrs)
        finally:
            directory.close()

    async def make_link(self, target: bytes, place: LocalPlace) -> None:
        place.make_link(target)


class _Download:
    def __init__(self, session: SFTPClientSession, options: CopyOptions) -> None:
        self._session = session
        self._options = options
        self.source = RemoteSource(session, options)
        self._comparison = Comparison(session, self.source, options)

    async def copy_file(self, source: bytes, attrs: SFTPAttrs, place: LocalPlace) -> int | None:
        options = self._options

        there = place.stat() if options.resume else None

        if there is not None and is_copy(SFTPAttrs.from_local(there), attrs):
            return None

        handle = await self.source.open(source)

        try:
            output = self._open_output(place, attrs.permissions)
            progress = Progress(options, source, place.path, attrs.size or 0)

            try:
                progress.whole = begin = await self._resumable(handle, attrs, output.fd) if options.resume else 0
                attrs = await self._receive(source, handle, attrs, place.path, output.fd, progress)

                if options.verify:
                    await self._verify(source, handle, output.fd, progress)

                await self._finish(output, attrs if options.preserve else None)
            except BaseException:
                output.discard(progress.whole)
                raise
        finally:
            self._session.forget_handle(handle)

        return progress.whole - begin

    def _open_output(self, place: LocalPlace, permissions: int | None) -> LocalOutput:
        resume = self._options.resume
        read = resume or self._options.verify

        return open_part(place, permissions, resume, read) if self._options.atomic else place.create(
            permissions, resume, read
        )

    async def _finish(self, output: LocalOutput, attrs: SFTPAttrs | None) -> None:
        if self._options.sync:
            await in_thread(lambda stop: output.finish(attrs, sync=True))
        else:
            output.finish(attrs)

    async def _resumable(self, handle: bytes, attrs: SFTPAttrs, fd: int) -> int:
        """Return how much of a part that an earlier copy left can be kept; it is cut there.

        It must not be older than the last change of its source, and be what the source has there.
        """

        part = os.fstat(fd)

        if not stat.S_ISREG(part.st_mode):
            return 0

        # Who was killed could not cut it: where replies came in another order there is a hole.
        size = first_hole(fd, part.st_size)

        if not 0 < size <= (attrs.size or 0) or attrs.mtime is None or attrs.mtime > part.st_mtime:
            size = 0

        if size and not await self._comparison.is_likely_same(handle, fd, size):
            size = 0

        os.ftruncate(fd, size)

        return size

    async def _verify(self, source: bytes, handle: bytes, fd: int, progress: Progress) -> None:
        """Compare what was written with the source as it is now."""

        if not await self._comparison.is_same(handle, fd, progress.whole):
            # Nothing of it is worth to be kept.
            progress.whole = 0
            raise SFTPFailure(f'{os.fsdecode(source)} is not what was written of it')

    async def _receive(
        self, source: bytes, handle: bytes, attrs: SFTPAttrs, path: bytes, fd: int, progress: Progress
    ) -> SFTPAttrs:
        """Read all of the file as it is now, whatever its size was when it was listed; returns its attributes now."""

        listed = attrs.size or 0
        done = progress.whole
        asked = self._session.send(c.FXP_FSTAT, encode_string(handle))

        try:
            if not listed or done < listed:
                done += await self._read(handle, done, listed - done if listed else None, progress, path, fd)

            try:
                attrs = self._session.attrs_reply(await asked)
            except SFTPError:
                # Few servers cannot tell: what was listed is then all that is known.
                attrs.size = listed
        finally:
            asked.cancel()

        size = attrs.size or 0
        progress.total = size

        if listed and size > done == listed:
            done += await self._read(handle, done, size - done, progress, path, fd)

        if done < size:
            exc = SFTPFailure(f'{os.fsdecode(source)} ended after {done} of {size} bytes: it was cut while it was read')
            exc.offset = done
            raise exc

        progress.tell(done)

        return attrs

    async def _read(
        self, handle: bytes, offset: int, size: int | None, progress: Progress, path: bytes, fd: int
    ) -> int:
        # Of a file without a size the end is found one request after another: most of these are empty.
        requests = self._options.requests if size is not None else 1

        try:
            pipeline = await self.source.read(handle, offset, size, requests, progress, fd)
        except OSError as exc:
            named = named_error(exc, path)
            named.offset = getattr(exc, 'offset', None)  # type: ignore[attr-defined]
            raise named from None

        return pipeline.bytes_done
