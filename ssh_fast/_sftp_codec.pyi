"""The SFTP codec: the server's side of a channel is here, and the names of the messages and of the client's side.

Messages that compiled code does not handle itself reach Python as `on_message(type, request_id, body)`: `body` is what
follows the request id; for INIT and VERSION, which have none, `request_id` is the protocol version. Callbacks run
inside the reader's or the writer's work: they must be short, and an exception of `on_message` fails the channel like
any other error of the stream.
"""

from collections.abc import Callable

from ssh_fast._flow import ChannelFlow
from ssh_fast._sftp_messages import (
    MAX_MESSAGE,
    Attrs,
    MessageAssembler,
    decode_attrs,
    decode_names,
    decode_status,
    encode_attrs,
    encode_data_head,
    encode_message,
    encode_names,
    encode_read,
    encode_status,
    encode_string_message,
    encode_write_head,
)
from ssh_fast._sftp_pipeline import Pipeline, ReadPipeline, ReplyAssembler, WritePipeline

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

class RequestAssembler(MessageAssembler):
    """The server's sink: READ and WRITE on registered files are served at once, all else goes to `on_message`.

    INIT must be the first message and comes once. A message longer than `max_message` or shorter than 5 bytes raises
    ProtocolError out of the reader. `status_for_errno(errno)` gives code and message of the STATUS for a failed read or
    write, and must not raise. At most `max_read` bytes answer one READ; a client that has very much asked for and does
    not take it gets shorter replies, then failures, and no more window.
    """

    max_read: int
    def __init__(
        self,
        flow: ChannelFlow,
        on_message: Callable[[int, int, bytes], object],
        status_for_errno: Callable[[int], tuple[int, str]],
        max_message: int = ...,
        max_read: int = ...,
    ) -> None: ...
    def register_file(self, handle: bytes, fd: int, readable: bool, writable: bool, append: bool = False) -> None:
        """Serve READ and WRITE of `handle` (1 to 256 bytes) from a duplicate of `fd`, a file for pread and pwrite.

        A request that the flags do not allow goes to `on_message`. With `append` every WRITE goes to the file's end,
        whatever its offset. ValueError if the handle is registered; OSError if the descriptor cannot be duplicated.
        """
    def unregister_file(self, handle: bytes) -> None:
        """Stop serving `handle` (unknown ones are ignored). Accepted READs are still answered from the duplicate."""
    def settle_file(self, handle: bytes) -> None:
        """Read what accepted READs of `handle` asked for now, before Python changes the file. Unknown: ignored."""
