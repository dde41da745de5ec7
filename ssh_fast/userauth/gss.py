"""What both sides of gssapi-with-mic share (RFC 4462 section 3): messages, limits, and the security context they drive.

    USERAUTH_REQUEST   ..., uint32 n, n x string mechanism (an object identifier in DER)
    GSSAPI_RESPONSE    byte 60, string mechanism
    GSSAPI_TOKEN       byte 61, string token
    EXCHANGE_COMPLETE  byte 63
    GSSAPI_ERROR       byte 64, uint32 major status, uint32 minor status, string message, string language
    GSSAPI_ERRTOK      byte 65, string token
    GSSAPI_MIC         byte 66, string MIC
"""

from collections.abc import Awaitable
from typing import Final, NamedTuple, Protocol

from ..constants import MSG_USERAUTH_REQUEST
from ..errors import ProtocolError
from ..wire import Cursor, encode_byte, encode_string, encode_uint32
from .messages import GSSAPI_WITH_MIC, SERVICE_CONNECTION

MSG_USERAUTH_GSSAPI_RESPONSE: Final = 60
MSG_USERAUTH_GSSAPI_TOKEN: Final = 61
MSG_USERAUTH_GSSAPI_EXCHANGE_COMPLETE: Final = 63
MSG_USERAUTH_GSSAPI_ERROR: Final = 64
MSG_USERAUTH_GSSAPI_ERRTOK: Final = 65
MSG_USERAUTH_GSSAPI_MIC: Final = 66

# Limits, in bytes and counts. A ticket of Windows has up to 64 KiB, and a delegated one comes on top; Kerberos needs
# one token each way; the MICs of its strongest mechanisms have less than 100 bytes.
MAX_TOKEN: Final = 160 * 1024
MAX_TOKENS: Final = 10
MAX_MIC: Final = 4096
MAX_MECHANISMS: Final = 64


class GSSFailure(Exception):
    """The mechanism refused: no credentials, a token that is wrong, a clock that is off."""


class GSSStep(NamedTuple):
    """What a token led to: one for the peer, empty if there is none, and whether the context is established.

    `protects_integrity` tells whether the established context makes MICs, which prove that it belongs to the session.
    """

    token: bytes
    complete: bool
    protects_integrity: bool


class GSSContext(Protocol):
    """One end of a security context; what can block is awaitable, and every method may raise `GSSFailure`."""

    @property
    def mechanism(self) -> bytes:
        """The mechanism's object identifier in DER, with tag and length."""

    def step(self, token: bytes) -> GSSStep | Awaitable[GSSStep]:
        """Take the peer's token; a client's first one is empty."""

    def sign(self, data: bytes) -> bytes:
        """Return the MIC of data."""

    def verify(self, data: bytes, mic: bytes) -> None:
        """Raise `GSSFailure` if the MIC is not the data's."""


def signed_data(session_id: bytes, username: bytes) -> bytes:
    """Return what the MIC is made of: it ties the context to this session, user and service."""

    return b''.join(
        (
            encode_string(session_id),
            encode_byte(MSG_USERAUTH_REQUEST),
            encode_string(username),
            encode_string(SERVICE_CONNECTION),
            encode_string(GSSAPI_WITH_MIC),
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

    token = cursor.string()
    cursor.check_end()

    if len(token) > limit:
        raise ProtocolError(f'Expected a GSSAPI token of at most {limit} bytes, got {len(token)}')

    return token


def encode_gss(message_type: int, data: bytes) -> bytes:
    """Encode a message of one string: RESPONSE, TOKEN or MIC."""

    return encode_byte(message_type) + encode_string(data)
