"""SFTP version 3 messages to and from bytes, and the block pipelines of bulk transfers (draft-ietf-secsh-filexfer-02).

Messages that this module does not handle itself reach Python as `on_message(type, request_id, body)`: `body` is what
follows the request id; for INIT and VERSION, which have none, `request_id` is the protocol version. Callbacks run
inside the reader's or the writer's work: they must be short, and an exception of `on_message` ends the connection like
any other error of the stream.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from ._packet import BlockSource, ByteSink, ChannelFlow

__all__ = [
    'MAX_MESSAGE',
    'Attrs',
    'Pipeline',
    'ReadPipeline',
    'ReplyAssembler',
    'RequestAssembler',
    'WritePipeline',
    'decode_attrs',
    'decode_names',
    'decode_status',
    'encode_attrs',
    'encode_data_head',
    'encode_message',
    'encode_names',
    'encode_read',
    'encode_status',
    'encode_string_message',
    'encode_write_head',
]

#: The longest message taken by default: OpenSSH's 256 KiB, and 1 KiB for heads in front of a block of that size.
MAX_MESSAGE: Final[int]

# flags, size, uid, gid, permissions, atime, mtime, extended (name, data) pairs; absent is None; () for extended
Attrs: TypeAlias = tuple[
    int, int | None, int | None, int | None, int | None, int | None, int | None, tuple[tuple[bytes, bytes], ...]
]

# --- messages

def encode_message(message_type: int, request_id: int, body: bytes = b'') -> bytes:
    """Encode any message: length, type, request id (the version for INIT and VERSION), and `body` as it is."""

def encode_string_message(message_type: int, request_id: int, value: bytes) -> bytes:
    """Encode a message with one string: CLOSE, FSTAT, READDIR (handle), STAT, OPENDIR, REALPATH ... (path), HANDLE."""

def encode_read(request_id: int, handle: bytes, offset: int, size: int) -> bytes:
    """Encode a READ request."""

def encode_write_head(request_id: int, handle: bytes, offset: int, size: int) -> bytes:
    """Encode a WRITE request up to its data; exactly `size` bytes of data must be sent behind it."""

def encode_data_head(request_id: int, size: int) -> bytes:
    """Encode a DATA reply up to its data; exactly `size` bytes of data must be sent behind it."""

def encode_status(request_id: int, code: int, message: str = '', lang: str = '') -> bytes:
    """Encode a STATUS reply."""

def encode_attrs(attrs: Attrs) -> bytes:
    """Encode ATTRS; the flags say which fields are sent.

    OverflowError if a value does not fit its field, ValueError for a flag that is not of version 3 or a missing field.
    """

def encode_names(request_id: int, names: Sequence[tuple[bytes, bytes, Attrs]]) -> bytes:
    """Encode a NAME reply of (filename, longname, attrs)."""

def decode_status(body: bytes) -> tuple[int, str, str]:
    """Decode a STATUS body into code, message and language; servers that leave out the texts are tolerated."""

def decode_attrs(body: bytes, pos: int = 0) -> tuple[Attrs, int]:
    """Decode ATTRS at `pos`; returns them and the position behind.

    PacketDecodeError if truncated, or with flags that are not of version 3.
    """

def decode_names(body: bytes) -> list[tuple[bytes, bytes, Attrs]]:
    """Decode a NAME body into (filename, longname, attrs).

    PacketDecodeError if truncated, or with a count larger than what is there can hold.
    """

# --- client

class ReplyAssembler(ByteSink):
    """The client's sink: cuts the stream into replies; those of pipelines never reach Python.

    VERSION must be the first message and comes once. A reply to a request that is not outstanding, a message longer
    than `max_message` (or than the largest block that a pipeline has asked for, and 1 KiB) or shorter than 5 bytes, and
    any type that is not a reply raise ProtocolError out of the reader.
    """

    max_message: int
    def __init__(
        self, flow: ChannelFlow, on_message: Callable[[int, int, bytes], object], max_message: int = ...
    ) -> None: ...
    @property
    def flow(self) -> ChannelFlow: ...
    @property
    def closed(self) -> bool:
        """Whether the channel is gone."""
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

# --- server

class RequestAssembler(ByteSink):
    """The server's sink: READ and WRITE on registered files are served at once, all else goes to `on_message`.

    INIT must be the first message and comes once. A message longer than `max_message` or shorter than 5 bytes raises
    ProtocolError out of the reader. `status_for_errno(errno)` gives code and message of the STATUS for a failed read or
    write. At most `max_read` bytes answer one READ; a client that has very much asked for and does not take it gets
    shorter replies, then failures.
    """

    max_message: int
    max_read: int
    def __init__(
        self,
        flow: ChannelFlow,
        on_message: Callable[[int, int, bytes], object],
        status_for_errno: Callable[[int], tuple[int, str]],
        max_message: int = ...,
        max_read: int = ...,
    ) -> None: ...
    @property
    def flow(self) -> ChannelFlow: ...
    @property
    def closed(self) -> bool: ...
    def register_file(self, handle: bytes, fd: int, readable: bool, writable: bool, append: bool = False) -> None:
        """Serve READ and WRITE of `handle` (1 to 256 bytes) from a duplicate of `fd`, a file for pread and pwrite.

        A request that the flags do not allow goes to `on_message`. With `append` every WRITE goes to the file's end,
        whatever its offset. ValueError if the handle is registered; OSError if the descriptor cannot be duplicated.
        """
    def unregister_file(self, handle: bytes) -> None:
        """Stop serving `handle` (unknown ones are ignored). Accepted READs are still answered from the duplicate."""
    def settle_file(self, handle: bytes) -> None:
        """Read what accepted READs of `handle` asked for now, before Python changes the file. Unknown: ignored."""
