"""What both sides of gssapi-with-mic and gssapi-keyex share (RFC 4462 sections 3 and 4): messages, and what is signed.

    USERAUTH_REQUEST   ..., uint32 n, n x string mechanism (an object identifier in DER)
    GSSAPI_RESPONSE    byte 60, string mechanism
    GSSAPI_TOKEN       byte 61, string token
    EXCHANGE_COMPLETE  byte 63
    GSSAPI_ERROR       byte 64, uint32 major status, uint32 minor status, string message, string language
    GSSAPI_ERRTOK      byte 65, string token
    GSSAPI_MIC         byte 66, string MIC

For gssapi-keyex a USERAUTH_REQUEST has a field of its own: string MIC.
"""

from typing import Final

from ..constants import MSG_USERAUTH_REQUEST
from ..errors import ProtocolError
from ..gss_context import MAX_TOKEN, read_token
from ..wire import Cursor, encode_byte, encode_string, encode_uint32
from .messages import SERVICE_CONNECTION

MSG_USERAUTH_GSSAPI_RESPONSE: Final = 60
MSG_USERAUTH_GSSAPI_TOKEN: Final = 61
MSG_USERAUTH_GSSAPI_EXCHANGE_COMPLETE: Final = 63
MSG_USERAUTH_GSSAPI_ERROR: Final = 64
MSG_USERAUTH_GSSAPI_ERRTOK: Final = 65
MSG_USERAUTH_GSSAPI_MIC: Final = 66

# A client has a handful at most
MAX_MECHANISMS: Final = 64


def signed_data(session_id: bytes, username: bytes, method: bytes) -> bytes:
    """Return what the MIC is made of: it ties the context to this session, user and method."""

    return b''.join(
        (
            encode_string(session_id),
            encode_byte(MSG_USERAUTH_REQUEST),
            encode_string(username),
            encode_string(SERVICE_CONNECTION),
            encode_string(method),
        )
    )


def encode_mechanisms(*mechanisms: bytes) -> bytes:
    """Encode a request's own fields: the mechanisms that the client has."""

    return encode_uint32(len(mechanisms)) + b''.join(map(encode_string, mechanisms))


def decode_mechanisms(cursor: Cursor) -> list[bytes]:
    """Decode the mechanisms that end a request."""

    count = cursor.uint32()

    if count > MAX_MECHANISMS:
        raise ProtocolError(f'Expected at most {MAX_MECHANISMS} GSSAPI mechanisms, got {count}')

    mechanisms = [cursor.string() for _ in range(count)]
    cursor.check_end()

    return mechanisms


def decode_token(cursor: Cursor, limit: int = MAX_TOKEN) -> bytes:
    """Decode the token or MIC that a message consists of."""

    token = read_token(cursor, limit)
    cursor.check_end()

    return token


def encode_gss(message_type: int, data: bytes) -> bytes:
    """Encode a message of one string: RESPONSE, TOKEN or MIC."""

    return encode_byte(message_type) + encode_string(data)
