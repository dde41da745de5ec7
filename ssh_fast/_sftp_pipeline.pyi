"""The client's side of an SFTP channel: replies matched to requests, and the block pipelines of bulk transfers."""

from collections.abc import Callable

from ssh_fast._flow import BlockSource, ChannelFlow
from ssh_fast._sftp_messages import MessageAssembler

class ReplyAssembler(MessageAssembler):
    """The client's sink: cuts the stream into replies; those of pipelines never reach Python.

    VERSION must be the first message and comes once. A reply to a request that is not outstanding, a message longer
    than `max_message` (or than the largest block that a pipeline has asked for, and 1 KiB) or shorter than 5 bytes, and
    any type that is not a reply raise ProtocolError out of the reader.
    """

    def __init__(
        self, flow: ChannelFlow, on_message: Callable[[int, int, bytes], object], max_message: int = ...
    ) -> None: ...
    @property
    def outstanding(self) -> int:
        """Requests whose reply has not come, of Python and of pipelines."""
    def next_request_id(self) -> int:
        """Give the id of a request that Python sends now; one reply with it is expected, and given to `on_message`."""

class Pipeline(BlockSource):
    """One bulk transfer of an open remote file: requests are sent, matched and refilled without Python.

    `done(pipeline)` is called exactly once, when no request is outstanding any more or the channel is gone, perhaps
    inside start() or cancel(), and perhaps while the writer fills a chunk: set a future there, nothing else. The
    transfer succeeded if `complete` is true. `progress(bytes_done)` is called at most once a read pass, after
    `progress_step` more bytes; if it raises, the transfer stops and `progress_error` holds what it raised. The local
    file must support pread/pwrite and stay open until done, or until cancel() returned.
    """

    @property
    def bytes_done(self) -> int:
        """Bytes written to the local side, or acknowledged by the remote one.

        When the file ended early (`eof`) these are the bytes up to that end, with no gap; after an error there may be
        gaps.
        """
    @property
    def complete(self) -> bool:
        """Done, everything asked for transferred (with an unknown size: up to the end of the file), and no error."""
    @property
    def finished(self) -> bool:
        """Whether done was called."""
    @property
    def eof(self) -> bool:
        """The file (remote when reading, local when writing) ended before `size`, or, of unknown size, it ended."""
    @property
    def status(self) -> tuple[int, str, str] | None:
        """The first failing STATUS: code, message, language. An EOF of a file that is read is not a failure."""
    @property
    def os_error(self) -> OSError | None:
        """The first error of the local file."""
    @property
    def progress_error(self) -> Exception | None: ...
    @property
    def failed_offset(self) -> int | None:
        """Where in the remote file the block of the first failure (status or os_error) lies."""
    @property
    def cancelled(self) -> bool: ...
    @property
    def closed(self) -> bool:
        """The channel went away before the transfer ended."""
    @property
    def outstanding(self) -> int: ...
    @property
    def max_requests(self) -> int: ...
    def start(self) -> None:
        """Send the first requests."""
    def cancel(self) -> None:
        """Send no further request and drop what still comes; the local file is not touched any more.

        Done is called when the outstanding replies are in. Does nothing once finished.
        """

class ReadPipeline(Pipeline):
    """Reads a range of a remote file into a local file descriptor, or into memory if `fd` is -1.

    `size` None reads to the end of the file. `max_requests` None keeps about 16 MiB asked for: 16 to 512 requests.
    `fd_offset` is where the byte at `offset` goes, the same position unless given. Short replies are asked for again,
    an empty DATA counts as the end.
    """

    def __init__(
        self,
        assembler: ReplyAssembler,
        handle: bytes,
        *,
        done: Callable[[ReadPipeline], object],
        size: int | None,
        block_size: int,
        max_requests: int | None = None,
        offset: int = 0,
        fd: int = -1,
        fd_offset: int | None = None,
        progress: Callable[[int], object] | None = None,
        progress_step: int = 0,
    ) -> None: ...
    @property
    def bytes_whole(self) -> int:
        """Bytes from the beginning up to which nothing is missing, however it ended."""
    def take_result(self) -> bytes:
        """Give away what was read into memory, `bytes_done` bytes. Once, if complete or `eof` without an error."""

class WritePipeline(Pipeline):
    """Writes a range of a local file, or all of `data`, to a remote file.

    With `fd`, `size` bytes from `fd_offset` (the same position as `offset` unless given) are read late, straight into
    packets; a file that ends before them stops the transfer with `eof`. `data` must not change until done.
    `max_requests` None keeps at most 512 requests and 16 MiB unacknowledged; every reply is awaited and the first
    failure is kept.
    """

    def __init__(
        self,
        assembler: ReplyAssembler,
        handle: bytes,
        *,
        done: Callable[[WritePipeline], object],
        block_size: int,
        data: bytes | bytearray | memoryview | None = None,
        fd: int = -1,
        size: int | None = None,
        max_requests: int | None = None,
        offset: int = 0,
        fd_offset: int | None = None,
        progress: Callable[[int], object] | None = None,
        progress_step: int = 0,
    ) -> None: ...
