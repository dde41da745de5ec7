"""The order of SYMLINK's two paths, which servers do not agree on.

The draft (filexfer-02 section 6.10) has the link's path first and the target second; OpenSSH's server takes them the
other way round, and so do those that follow it. A server with OpenSSH's extensions and no name of its own is one of
these; AsyncSSH's, which has them too, keeps the draft's order with clients that do not call themselves OpenSSH. About
all others the first link that is made tells.
"""

from .. import constants as c
from ..wire import encode_string
from .errors import SFTPError
from .requests import SFTPClientSession


class SymlinkOrder:
    """Makes symbolic links, and remembers which order the server takes."""

    def __init__(self, session: SFTPClientSession) -> None:
        self._session = session
        self._target_first: bool | None = None

    async def make(self, target: bytes, link: bytes) -> None:
        """Make a link with a target."""

        if self._target_first is None:
            self._target_first = self._announced()

        if self._target_first is not None:
            await self._send(self._target_first, target, link)
            return

        try:
            await self._send(True, target, link)
        except SFTPError:
            # The wrong order fails where the target exists. What failed for another reason fails again.
            await self._send(False, target, link)
            self._target_first = False
            return

        if await self._target_of(link) is not None:
            self._target_first = True
        elif await self._target_of(target) == link:
            await self._session.status(c.FXP_REMOVE, encode_string(target))
            await self._send(False, target, link)
            self._target_first = False

    def _announced(self) -> bool | None:
        """Return what the extensions say about the order."""

        names = self._session.extensions

        if any(name.endswith(b'@asyncssh.com') for name in names) or b'AsyncSSH' in names.get(b'vendor-id', b''):
            return False

        if b'vendor-id' not in names and any(name.endswith(b'@openssh.com') for name in names):
            return True

        return None

    async def _send(self, target_first: bool, target: bytes, link: bytes) -> None:
        paths = (target, link) if target_first else (link, target)
        await self._session.status(c.FXP_SYMLINK, b''.join(encode_string(path) for path in paths))

    async def _target_of(self, path: bytes) -> bytes | None:
        try:
            return await self._session.path(c.FXP_READLINK, encode_string(path))
        except SFTPError:
            return None
