"""Diffie-Hellman over the finite fields of RFC 3526 and RFC 2409 (RFC 4253 section 8, RFC 8268).

The powers are OpenSSL's, in constant time. Its own Diffie-Hellman is not used: `cryptography` announces that it will
go, and it first proves that a modulus is a safe prime, which takes seconds for a group that a server made up.
"""

import secrets

from ..._power import power
from ...errors import KeyExchangeFailed
from ...wire import Cursor, encode_mpint
from .base import KexContext, KeyExchange, encode_secret
from .groups import MODP_GROUPS

# Bytes of a private number: twice the strength of the longest cipher key, as in OpenSSH
_PRIVATE_SIZE = 64


class DHExchange(KeyExchange):
    """Diffie-Hellman in a group that the method's name fixes; the generator is 2."""

    def __init__(self, context: KexContext, bits: int, hash_name: str) -> None:
        super().__init__(context, hash_name)
        self._prime = 0
        self._generator = 0
        self._private = b''

        if bits:
            self._set_group(MODP_GROUPS[bits], 2)

    def read_value(self, cursor: Cursor) -> bytes:
        """Take e or f, an mpint."""

        return encode_mpint(cursor.mpint())

    def make_client_value(self) -> bytes:
        """Make our private number, and send e or f."""

        if not self._prime:
            raise KeyExchangeFailed('Expected a group to be agreed upon first')

        self._private = secrets.token_bytes(_PRIVATE_SIZE)

        return encode_mpint(int.from_bytes(self._raise(self._generator), 'big'))

    def answer(self, client_value: bytes) -> tuple[bytes, bytes]:
        """Make f and agree."""

        self._check_value(client_value)
        server_value = self.make_client_value()

        return server_value, self.agree(client_value)

    def agree(self, server_value: bytes) -> bytes:
        """Raise the peer's value to our private number."""

        value = self._check_value(server_value)

        if not self._private:
            raise KeyExchangeFailed('Expected our value to be sent before the answer to it')

        return encode_secret(self._raise(value))

    def _set_group(self, prime: int, generator: int) -> None:
        self._prime = prime
        self._generator = generator

    def _check_value(self, field: bytes) -> int:
        """Refuse what would make the secret known to anyone: 0, 1, p-1 and what lies outside (RFC 4253 section 8)."""

        value = Cursor(field).mpint()

        if not 2 <= value <= self._prime - 2:
            raise KeyExchangeFailed('Expected a Diffie-Hellman value from 2 to p-2, got one outside that range')

        return value

    def _raise(self, base: int) -> bytes:
        size = (self._prime.bit_length() + 7) // 8

        return power(base.to_bytes(size, 'big'), self._private, self._prime.to_bytes(size, 'big'))
