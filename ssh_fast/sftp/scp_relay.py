"""A server as the target of an SCP copy from another one: the records and data pass through this client."""

from .attrs import SFTPAttrs
from .errors import SFTPFailure
from .scp_source import RecordSender


class RelayTarget:
    """What comes goes on to another sink, which also decides what its path is: a directory, or a name."""

    path = b''
    takes_many = True

    def __init__(self, sender: RecordSender) -> None:
        self._sender = sender

    async def create(self, name: bytes, attrs: SFTPAttrs, size: int) -> '_RelayedFile':
        """Announce a file."""

        await self._sender.file(name, attrs, size)

        return _RelayedFile(self._sender, size)

    async def make_directory(self, name: bytes, attrs: SFTPAttrs) -> '_RelayedDirectory':
        """Begin a directory."""

        await self._sender.directory(name, attrs)

        return _RelayedDirectory(self._sender)

    async def finish(self, attrs: SFTPAttrs | None) -> None:
        """End nothing: the sink's own directory was not begun here."""

    def close(self) -> None:
        """Let go of nothing."""


class _RelayedDirectory(RelayTarget):
    """A directory that was begun; if it is not finished, all that follows would go to the wrong place."""

    def __init__(self, sender: RecordSender) -> None:
        super().__init__(sender)
        self._finished = False

    async def finish(self, attrs: SFTPAttrs | None) -> None:
        self._finished = True
        await self._sender.end_directory()

    def close(self) -> None:
        if not self._finished:
            self._sender.link.broken = True


class _RelayedFile:
    """A file whose data passes through; the sink has to get all that was announced."""

    def __init__(self, sender: RecordSender, size: int) -> None:
        self._sender = sender
        self._missing = size
        self._ended = False

    async def write(self, offset: int, data: bytes) -> None:
        self._missing -= len(data)
        await self._sender.data(data)

    async def finish(self, attrs: SFTPAttrs | None) -> None:
        self._ended = True
        await self._sender.end_file()

    async def discard(self, reason: str | None) -> None:
        if self._ended:
            return

        self._ended = True

        if reason is None or self._missing:
            self._sender.link.broken = True
            return

        try:
            await self._sender.end_file(reason)
        except SFTPFailure:
            # The sink agrees that the file is no good.
            if self._sender.link.broken:
                raise
