"""Diffie-Hellman over the finite fields of RFC 3526 (RFC 4253 section 8, RFC 8268)."""

import warnings

from cryptography.hazmat.primitives.asymmetric import dh
from cryptography.utils import CryptographyDeprecationWarning

from ...errors import KeyExchangeFailed
from ...wire import Cursor, encode_mpint
from .base import KexContext, KeyExchange, encode_secret
from .groups import MODP_GROUPS

# `cryptography` announces that finite field Diffie-Hellman will go. SSH still needs it; users of this library can do
# nothing about the warning, so it is silenced for this module alone.
warnings.filterwarnings(
    'ignore',
    message='Diffie-Hellman over finite fields',
    category=CryptographyDeprecationWarning,
    module=__name__.replace('.', r'\.'),
)


class DHExchange(KeyExchange):
    """Diffie-Hellman in a group that the method's name fixes; the generator is 2."""

    def __init__(self, context: KexContext, bits: int, hash_name: str) -> None:
        super().__init__(context, hash_name)
        self._prime = 0
        self._key: dh.DHPrivateKey | None = None
        self._numbers: dh.DHParameterNumbers | None = None

        if bits:
            self._set_group(MODP_GROUPS[bits], 2)

    def read_value(self, cursor: Cursor) -> bytes:
        """Take e or f, an mpint."""

        return encode_mpint(cursor.mpint())

    def make_client_value(self) -> bytes:
        """Make our private number, and send e or f."""

        if self._numbers is None:
            raise KeyExchangeFailed('Expected a group to be agreed upon first')

        try:
            self._key = self._numbers.parameters().generate_private_key()
        except ValueError:
            raise KeyExchangeFailed('Expected a Diffie-Hellman group, got numbers that make none') from None

        return encode_mpint(self._key.public_key().public_numbers().y)

    def answer(self, client_value: bytes) -> tuple[bytes, bytes]:
        """Make f and agree."""

        server_value = self.make_client_value()

        return server_value, self.agree(client_value)

    def agree(self, server_value: bytes) -> bytes:
        """Raise the peer's value to our private number."""

        value = self._check_value(server_value)

        if self._key is None or self._numbers is None:
            raise KeyExchangeFailed('Expected our value to be sent before the answer to it')

        try:
            secret = self._key.exchange(dh.DHPublicNumbers(value, self._numbers).public_key())
        except ValueError:
            raise KeyExchangeFailed('Expected a Diffie-Hellman value of the group, got one outside it') from None

        return encode_secret(secret)

    def _set_group(self, prime: int, generator: int) -> None:
        self._prime = prime
        self._numbers = dh.DHParameterNumbers(prime, generator)

    def _check_value(self, field: bytes) -> int:
        """Refuse what would make the secret known to anyone: 0, 1, p-1 and what lies outside (RFC 4253 section 8)."""

        value = Cursor(field).mpint()

        if not 2 <= value <= self._prime - 2:
            raise KeyExchangeFailed('Expected a Diffie-Hellman value from 2 to p-2, got one outside that range')

        return value
