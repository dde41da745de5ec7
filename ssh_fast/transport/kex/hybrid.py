"""The post-quantum hybrid mlkem768x25519-sha256 (draft-ietf-sshm-mlkem-hybrid-kex)."""

import hashlib

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import mlkem

from ...errors import KeyExchangeFailed
from ...wire import Cursor, encode_string
from .base import KexContext, KeyExchange
from .ecdh import X25519, X25519_SIZE

PUBLIC_KEY_SIZE = 1184         # FIPS 203, ML-KEM-768
CIPHERTEXT_SIZE = 1088


def mlkem_available() -> bool:
    """Tell whether the library behind `cryptography` has ML-KEM-768."""

    try:
        mlkem.MLKEM768PrivateKey.generate()
    except UnsupportedAlgorithm:
        return False

    return True


class MLKEM768X25519Exchange(KeyExchange):
    """Two secrets in one: it holds as long as either ML-KEM-768 or Curve25519 does."""

    def __init__(self, context: KexContext) -> None:
        super().__init__(context, 'sha256')
        self._curve_key = X25519()
        self._kem_key: mlkem.MLKEM768PrivateKey | None = None

    def make_client_value(self) -> bytes:
        """Send C_INIT: the ML-KEM public key, then the Curve25519 value."""

        self._kem_key = mlkem.MLKEM768PrivateKey.generate()

        return encode_string(self._kem_key.public_key().public_bytes_raw() + self._curve_key.public)

    def answer(self, client_value: bytes) -> tuple[bytes, bytes]:
        """Send S_REPLY: the ML-KEM ciphertext, then the Curve25519 value."""

        public, curve_value = _split(client_value, PUBLIC_KEY_SIZE)

        try:
            kem_secret, ciphertext = mlkem.MLKEM768PublicKey.from_public_bytes(public).encapsulate()
        except ValueError:
            raise KeyExchangeFailed('Expected an ML-KEM-768 public key, got one that is not valid') from None

        secret = _combine(kem_secret, self._curve_key.exchange(curve_value))

        return encode_string(ciphertext + self._curve_key.public), secret

    def agree(self, server_value: bytes) -> bytes:
        """Open the ciphertext and combine both secrets."""

        ciphertext, curve_value = _split(server_value, CIPHERTEXT_SIZE)

        if self._kem_key is None:
            raise KeyExchangeFailed('Expected our value to be sent before the answer to it')

        try:
            kem_secret = self._kem_key.decapsulate(ciphertext)
        except ValueError:
            raise KeyExchangeFailed('Expected an ML-KEM-768 ciphertext, got one that is not valid') from None

        return _combine(kem_secret, self._curve_key.exchange(curve_value))


def _split(value: bytes, kem_size: int) -> tuple[bytes, bytes]:
    """Take a value apart into its ML-KEM and its Curve25519 part."""

    data = Cursor(value).string()

    if len(data) != kem_size + X25519_SIZE:
        raise KeyExchangeFailed(f'Expected a hybrid value of {kem_size + X25519_SIZE} bytes, got {len(data)}')

    return data[:kem_size], data[kem_size:]


def _combine(kem_secret: bytes, curve_secret: bytes) -> bytes:
    """Make K: the hash of both secrets, as a string and not as an mpint."""

    return encode_string(hashlib.sha256(kem_secret + curve_secret).digest())
