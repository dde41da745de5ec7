"""SFTP version 3 messages to and from bytes, and a channel's stream cut into them (draft-ietf-secsh-filexfer-02)."""

from collections.abc import Sequence
from typing import Final, TypeAlias

from ssh_fast._flow import ByteSink, ChannelFlow

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

# --- the stream

class MessageAssembler(ByteSink):
    """Cuts the bytes of a channel into SFTP messages; what each message means is its subclasses' business."""

    max_message: int
    @property
    def flow(self) -> ChannelFlow: ...
    @property
    def closed(self) -> bool:
        """Whether the channel is gone."""
