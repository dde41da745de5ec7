"""The lanes between a channel and a plain file, which no Python runs along."""

from collections.abc import Callable

from ssh_fast._flow import BlockSource, ByteSink, ChannelFlow

class FileSink(ByteSink):
    """Writes a channel's data to a file, at the file's own position; what cannot be written closes the channel."""

    def __init__(self, fd: int) -> None: ...
    @property
    def written(self) -> int: ...

class FileFeed(BlockSource):
    """Sends a file from `offset` to its end through a flow; `ended` is called once, with None or an OSError."""

    def __init__(
        self, flow: ChannelFlow, fd: int, offset: int, ended: Callable[[OSError | None], object]
    ) -> None: ...
    @property
    def position(self) -> int: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
