"""Files of a server that are being written: their ends, and those that are not seen under their names until whole."""

import asyncio
import contextlib
import posixpath

from .. import constants as c
from ..wire import encode_string
from .attrs import SFTPAttrs
from .errors import SFTPError
from .local_part import part_name
from .remote import RemoteTarget
from .requests import SFTPClientSession

_RENAME = b'posix-rename@openssh.com'
_FSYNC = b'fsync@openssh.com'


class RemoteOutput:
    """A file that is being written; `resume` keeps what there is of it if it fails."""

    def __init__(self, session: SFTPClientSession, path: bytes, handle: bytes, resume: bool = False) -> None:
        self.handle = handle
        self.written_path = path
        self._session = session
        self._path = path
        self._resume = resume

    async def finish(self, attrs: SFTPAttrs | None, size: int | None = None, sync: bool = False) -> None:
        """Set attributes and size, write the file out, close it: sent together; the first failure is raised.

        Raises:
          SFTPOpUnsupported: the server does not offer fsync@openssh.com, which `sync` needs
        """

        session, handle = self._session, encode_string(self.handle)
        requests = []

        if sync:
            session.require(_FSYNC)

        if attrs is not None or size is not None:
            attrs = attrs or SFTPAttrs()
            attrs.size = size
            requests.append(session.send(c.FXP_FSETSTAT, handle + attrs.encode()))

        if sync:
            requests.append(session.send(c.FXP_EXTENDED, encode_string(_FSYNC) + handle))

        if not requests:
            await session.close_handle(self.handle)
            return

        for reply in await asyncio.gather(*requests, session.send(c.FXP_CLOSE, handle)):
            session.check_reply(reply)

    def discard(self, offset: int | None) -> None:
        """Close a file whose copy failed; it is cut where the failure was, so that it does not look whole.

        Who resumes keeps all of it if no offset is known: what was sent is written in order.
        """

        if offset is None and not self._resume:
            offset = 0

        try:
            if offset is not None:
                body = encode_string(self.handle) + SFTPAttrs(size=offset).encode()
                self._session.send(c.FXP_FSETSTAT, body).cancel()

            self._session.forget_handle(self.handle)
        except SFTPError:
            # The session has ended, and the server closes its files.
            return


class RemotePart(RemoteOutput):
    """The part of a file, beside it; it becomes the file when it is finished."""

    def __init__(
        self, session: SFTPClientSession, path: bytes, handle: bytes, part: bytes, mode: int | None, resume: bool
    ) -> None:
        super().__init__(session, path, handle, resume)
        self.written_path = self._part = part
        self._mode = mode
        self._replaces = False    # the old file may be gone, and the part be all that there is

    async def finish(self, attrs: SFTPAttrs | None, size: int | None = None, sync: bool = False) -> None:
        """Give the part its name, behind what is done with any file; without attributes, the mode of the old file.

        A server that cannot replace a file by renaming loses the old one first.
        """

        if attrs is None and self._mode is not None:
            attrs = SFTPAttrs(permissions=self._mode)

        names = encode_string(self._part) + encode_string(self._path)

        try:
            await super().finish(attrs, size, sync)

            if _RENAME in self._session.extensions:
                await self._session.extended_status(_RENAME, names)
                return

            if self._mode is not None:
                self._replaces = True
                await self._session.status(c.FXP_REMOVE, encode_string(self._path))

            await self._session.status(c.FXP_RENAME, names)
        except BaseException:
            if not self._resume and not self._replaces:
                _remove(self._session, self._part)

            raise

    def discard(self, offset: int | None) -> None:
        """Remove the part, or leave what is whole of it to who resumes."""

        if self._resume and offset != 0:
            super().discard(offset)
            return

        self._session.forget_handle(self.handle)
        _remove(self._session, self._part)


def _remove(session: SFTPClientSession, path: bytes) -> None:
    """Remove a file without waiting for it; it stays if the session has ended."""

    with contextlib.suppress(SFTPError):
        session.send(c.FXP_REMOVE, encode_string(path)).cancel()


async def open_part(
    session: SFTPClientSession, target: RemoteTarget, path: bytes, attrs: SFTPAttrs, resume: bool, verify: bool
) -> RemoteOutput:
    """Open the part of a file, or the file itself where that is no regular one: nothing can take its place."""

    there = await target.look(path, follow=False)

    if there is not None and there.type == c.FILEXFER_TYPE_SYMLINK:
        path = await session.path(c.FXP_REALPATH, encode_string(path))
        there = await target.look(path)

    read = c.FXF_READ if resume or verify else 0

    if there is not None and there.type not in (c.FILEXFER_TYPE_REGULAR, c.FILEXFER_TYPE_UNKNOWN):
        return RemoteOutput(session, path, await target.create(path, attrs, read=resume or verify))

    folder, name = posixpath.split(path)
    part = posixpath.join(folder, part_name(name, resume))

    try:
        handle = await target.open(part, attrs, c.FXF_WRITE | c.FXF_CREAT | read | (0 if resume else c.FXF_EXCL))
    except asyncio.CancelledError:
        # It may have been opened: the handle is then closed when the reply comes.
        if not resume:
            _remove(session, part)

        raise

    mode = None if there is None or there.permissions is None else there.permissions & 0o777

    return RemotePart(session, path, handle, part, mode, resume)
