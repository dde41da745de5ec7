"""The security context that logins and key exchanges by GSSAPI drive, whatever library is behind it, and its limits."""

from collections.abc import Awaitable
from typing import Final, NamedTuple, Protocol

from .errors import ProtocolError
from .wire import Cursor

# Limits, in bytes and counts. A ticket of Windows has up to 64 KiB, and a delegated one comes on top; Kerberos needs
# one token each way; the MICs of its strongest mechanisms have less than 100 bytes.
MAX_TOKEN: Final = 160 * 1024
MAX_TOKENS: Final = 10
MAX_MIC: Final = 4096


class GSSFailure(Exception):
    """The mechanism refused: no credentials, a token that is wrong, a clock that is off."""


class GSSStep(NamedTuple):
    """What a token led to: one for the peer, empty if there is none, and whether the context is established.

    `protects_integrity` tells whether the established context makes MICs, which prove that it belongs to the session,
    `mutual` whether the server has proven its name as well as the client.
    """

    token: bytes
    complete: bool
    protects_integrity: bool
    mutual: bool = False


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


def read_token(cursor: Cursor, limit: int = MAX_TOKEN) -> bytes:
    """Take a token or a MIC from a message.

    Raises:
      ProtocolError: it is longer than any honest one
    """

    token = cursor.string()

    if len(token) > limit:
        raise ProtocolError(f'Expected a GSSAPI token of at most {limit} bytes, got {len(token)}')

    return token
