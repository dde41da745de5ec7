"""Post-quantum hybrids: a key encapsulation and a curve, whose two secrets are hashed into one.

mlkem*: draft-ietf-sshm-mlkem-hybrid-kex; sntrup761x25519-sha512: draft-ietf-sshm-ntruprime-ssh.
"""

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

from ...errors import KeyExchangeFailed
from ...wire import Cursor, encode_string
from .base import KexContext, KeyExchange
from .ecdh import CurveKey
from .kem import KEM


class _SizedCurveKey(CurveKey, Protocol):
    """A curve's key whose values all have one size, in bytes."""

    size: int


class HybridExchange(KeyExchange):
    """Two secrets in one: it holds as long as either the encapsulation or the curve does."""

    def __init__(
        self, context: KexContext, kem: KEM, make_curve_key: Callable[[], _SizedCurveKey], hash_name: str
    ) -> None:
        super().__init__(context, hash_name)
        self._kem = kem
        self._kem_key: Any = None
        self._curve_key = make_curve_key()

    def make_client_value(self) -> bytes:
        """Send C_INIT: the encapsulation's public key, then the curve's value."""

        self._kem_key, public = self._kem.generate()

        return encode_string(public + self._curve_key.public)

    def answer(self, client_value: bytes) -> tuple[bytes, bytes]:
        """Send S_REPLY: the ciphertext, then the curve's value."""

        public, curve_value = self._split(client_value, self._kem.public_size)

        try:
            kem_secret, ciphertext = self._kem.encapsulate(public)
        except ValueError:
            raise KeyExchangeFailed(f'Expected an {self._kem.name} public key, got one that is not valid') from None

        secret = self._combine(kem_secret, self._curve_key.exchange(curve_value))

        return encode_string(ciphertext + self._curve_key.public), secret

    def agree(self, server_value: bytes) -> bytes:
        """Open the ciphertext and combine both secrets."""

        ciphertext, curve_value = self._split(server_value, self._kem.ciphertext_size)

        if self._kem_key is None:
            raise KeyExchangeFailed('Expected our value to be sent before the answer to it')

        try:
            kem_secret = self._kem.decapsulate(self._kem_key, ciphertext)
        except ValueError:
            raise KeyExchangeFailed(f'Expected an {self._kem.name} ciphertext, got one that is not valid') from None

        return self._combine(kem_secret, self._curve_key.exchange(curve_value))

    def _split(self, value: bytes, kem_size: int) -> tuple[bytes, bytes]:
        """Take a value apart into the encapsulation's part and the curve's."""

        data = Cursor(value).string()
        size = kem_size + self._curve_key.size

        if len(data) != size:
            raise KeyExchangeFailed(f'Expected a hybrid value of {size} bytes, got {len(data)}')

        return data[:kem_size], data[kem_size:]

    def _combine(self, kem_secret: bytes, curve_secret: bytes) -> bytes:
        """Make K: the hash of both secrets, as a string and not as an mpint."""

        return encode_string(hashlib.new(self.hash_name, kem_secret + curve_secret).digest())
