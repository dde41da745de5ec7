"""Downloads: a server's files into local ones."""

import os
import posixpath
import stat
from collections.abc import Sequence

from .. import constants as c
from ..wire import encode_string
from .attrs import SFTPAttrs
from .errors import SFTPError, SFTPFailure
from .local import LocalPlace, named_error, set_local_attrs
from .remote import RemoteSource
from .requests import SFTPClientSession
from .transfer import Copy, CopyOptions, Fill, Progress


async def copy_remote_to_local(
    session: SFTPClientSession, sources: Sequence[bytes], many: bool, target: bytes | None, options: CopyOptions
) -> None:
    """Download files or trees; `many` sources need a directory to go to."""

    download = _Download(session, options)
    await Copy(options, download.source, _LocalTarget(), download.copy_file).run(sources, many, target)


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

    async def copy_file(self, source: bytes, attrs: SFTPAttrs, place: LocalPlace) -> None:
        handle = await self.source.open(source)

        try:
            output = place.create(attrs.permissions)

            try:
                attrs = await self._receive(source, handle, attrs, place.path, output.fd)
                output.finish(attrs if self._options.preserve else None)
            except BaseException:
                output.discard()
                raise
        finally:
            self._session.forget_handle(handle)

    async def _receive(self, source: bytes, handle: bytes, attrs: SFTPAttrs, path: bytes, fd: int) -> SFTPAttrs:
        """Read all of the file as it is now, whatever its size was when it was listed; returns its attributes now."""

        listed = attrs.size or 0
        progress = Progress(self._options, source, path, listed)
        asked = self._session.send(c.FXP_FSTAT, encode_string(handle))

        try:
            done = await self._read(handle, 0, listed or None, progress, path, fd)

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
