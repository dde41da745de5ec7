"""SFTP version 3 in plain Python, from draft-ietf-secsh-filexfer-02: messages, streams of them, READ and WRITE.

A message is length (uint32) | type (byte) | request id (uint32, in INIT and VERSION the version) | body.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence

INIT, READ, WRITE = 1, 5, 6
STATUS, DATA, NAME = 101, 103, 104
OK, EOF, BAD_MESSAGE = 0, 1, 5

SIZE, UIDGID, PERMISSIONS, ACMODTIME, EXTENDED = 1, 2, 4, 8, 0x80000000
DEFINED = SIZE | UIDGID | PERMISSIONS | ACMODTIME | EXTENDED

Attrs = tuple[
    int, int | None, int | None, int | None, int | None, int | None, int | None, tuple[tuple[bytes, bytes], ...]
]


class BadMessageError(Exception):
    """A message whose fields do not fit, or whose length is out of range."""


def string(value: bytes) -> bytes:
    return struct.pack('>I', len(value)) + value


class Fields:
    """The fields of a body, one after another."""

    def __init__(self, data: bytes, pos: int = 0) -> None:
        self.data = data
        self.pos = pos

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.pos:
            raise BadMessageError(f'{size} bytes wanted, {len(self.data) - self.pos} left')
        self.pos += size
        return self.data[self.pos - size : self.pos]

    def uint32(self) -> int:
        return int.from_bytes(self.take(4), 'big')

    def uint64(self) -> int:
        return int.from_bytes(self.take(8), 'big')

    def string(self) -> bytes:
        return self.take(self.uint32())

    @property
    def rest(self) -> bytes:
        return self.data[self.pos :]


# --- messages


def message(message_type: int, request_id: int, body: bytes = b'') -> bytes:
    return struct.pack('>IBI', 5 + len(body), message_type, request_id) + body


def read(request_id: int, handle: bytes, offset: int, size: int) -> bytes:
    return message(READ, request_id, string(handle) + struct.pack('>QI', offset, size))


def write(request_id: int, handle: bytes, offset: int, data: bytes) -> bytes:
    return message(WRITE, request_id, string(handle) + struct.pack('>Q', offset) + string(data))


def status(request_id: int, code: int, text: str = '', lang: str = '') -> bytes:
    return message(STATUS, request_id, struct.pack('>I', code) + string(text.encode()) + string(lang.encode()))


def data(request_id: int, block: bytes) -> bytes:
    return message(DATA, request_id, string(block))


def encode_attrs(attrs: Attrs) -> bytes:
    flags, size, uid, gid, permissions, atime, mtime, extended = attrs
    encoded = struct.pack('>I', flags)
    if flags & SIZE:
        encoded += struct.pack('>Q', size)
    if flags & UIDGID:
        encoded += struct.pack('>II', uid, gid)
    if flags & PERMISSIONS:
        encoded += struct.pack('>I', permissions)
    if flags & ACMODTIME:
        encoded += struct.pack('>II', atime, mtime)
    if flags & EXTENDED:
        encoded += struct.pack('>I', len(extended)) + b''.join(string(name) + string(value) for name, value in extended)
    return encoded


def take_attrs(fields: Fields) -> Attrs:
    flags = fields.uint32()
    if flags & ~DEFINED:
        raise BadMessageError(f'unknown flags {flags:#x}')
    size = fields.uint64() if flags & SIZE else None
    uid, gid = (fields.uint32(), fields.uint32()) if flags & UIDGID else (None, None)
    permissions = fields.uint32() if flags & PERMISSIONS else None
    atime, mtime = (fields.uint32(), fields.uint32()) if flags & ACMODTIME else (None, None)
    pairs = []
    if flags & EXTENDED:
        for _ in range(fields.uint32()):
            name = fields.string()
            pairs.append((name, fields.string()))
    return flags, size, uid, gid, permissions, atime, mtime, tuple(pairs)


def decode_attrs(body: bytes, pos: int = 0) -> tuple[Attrs, int]:
    fields = Fields(body, pos)
    return take_attrs(fields), fields.pos


def encode_names(request_id: int, names: Sequence[tuple[bytes, bytes, Attrs]]) -> bytes:
    entries = (string(filename) + string(longname) + encode_attrs(attrs) for filename, longname, attrs in names)
    return message(NAME, request_id, struct.pack('>I', len(names)) + b''.join(entries))


def decode_names(body: bytes) -> list[tuple[bytes, bytes, Attrs]]:
    fields = Fields(body)
    names = []
    for _ in range(fields.uint32()):
        filename = fields.string()
        longname = fields.string()
        names.append((filename, longname, take_attrs(fields)))
    return names


def decode_status(body: bytes) -> tuple[int, str, str]:
    fields = Fields(body)
    code = fields.uint32()
    texts = [fields.string() if fields.rest else b'' for _ in range(2)]
    return code, texts[0].decode('utf-8', 'replace'), texts[1].decode('utf-8', 'replace')


# --- the stream


def cut(chunks: Iterable[bytes], max_message: int) -> Iterator[tuple[int, int, bytes]]:
    """Cut a stream into messages: type, request id and body."""
    pending = b''
    for chunk in chunks:
        pending += chunk
        while len(pending) >= 4:
            length = int.from_bytes(pending[:4], 'big')
            if not 5 <= length <= max_message:
                raise BadMessageError(f'length {length}')
            if len(pending) < 4 + length:
                break
            whole, pending = pending[4 : 4 + length], pending[4 + length :]
            yield whole[0], int.from_bytes(whole[1:5], 'big'), whole[5:]


def serve(
    files: dict[bytes, bytearray], message_type: int, request_id: int, body: bytes, max_read: int
) -> bytes | None:
    """Answer one READ or WRITE as a server does; None for what a handler of other requests answers."""
    try:
        fields = Fields(body)
        handle = fields.string()
        offset = fields.uint64()
        size = fields.uint32()
    except BadMessageError:
        return None
    if handle not in files:
        return None
    content = files[handle]
    if message_type == READ:
        block = bytes(content[offset : offset + min(size, max_read)])
        return data(request_id, block) if block else status(request_id, EOF, 'End of file')
    if size > len(fields.rest):
        return status(request_id, BAD_MESSAGE, f'Expected {size} bytes of data, got {len(fields.rest)}')
    if size:
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + size] = fields.take(size)
    return status(request_id, OK, 'Success')
