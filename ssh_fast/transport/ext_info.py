"""The EXT_INFO message: what each end may do beyond the base protocol (RFC 8308)."""

from collections.abc import Mapping

from ..constants import MSG_EXT_INFO
from ..errors import ProtocolError
from ..wire import Cursor, encode_byte, encode_string, encode_uint32

MAX_EXTENSIONS = 1024      # OpenSSH's limit; a count is a claim of the peer's (CVE-2026-55199)

SERVER_SIG_ALGS = b'server-sig-algs'
PING = b'ping@openssh.com'


def encode_ext_info(extensions: Mapping[bytes, bytes]) -> bytes:
    """Encode an EXT_INFO message."""

    fields = b''.join(encode_string(name) + encode_string(value) for name, value in extensions.items())

    return encode_byte(MSG_EXT_INFO) + encode_uint32(len(extensions)) + fields


def decode_ext_info(payload: bytes) -> dict[bytes, bytes]:
    """Decode an EXT_INFO message; of an extension that is named twice the last counts."""

    cursor = Cursor(payload)
    cursor.byte()
    count = cursor.uint32()

    if count >= MAX_EXTENSIONS:
        raise ProtocolError(f'Expected fewer than {MAX_EXTENSIONS} extensions in EXT_INFO, got {count}')

    extensions = {}

    for _ in range(count):
        name = cursor.string()
        extensions[name] = cursor.string()

    cursor.check_end()

    return extensions
