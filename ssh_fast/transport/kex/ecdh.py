"""Elliptic curve Diffie-Hellman: the NIST curves (RFC 5656 section 4) and Curve25519 (RFC 8731)."""

from cryptography.hazmat.primitives.asymmetric import ec
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.exceptions import CryptoError
from nacl.utils import random

from ...errors import KeyExchangeFailed
from ...wire import Cursor, encode_string
from .base import KexContext, KeyExchange, encode_secret

X25519_SIZE = 32
_UNCOMPRESSED = 4


class X25519:
    """One end's ephemeral Curve25519 key. PyNaCl is twice as fast here as OpenSSL."""

    def __init__(self) -> None:
        self._private = random(X25519_SIZE)
        self.public = crypto_scalarmult_base(self._private)

    def exchange(self, peer: bytes) -> bytes:
        """Make the shared secret; a value of the wrong size, or of low order, raises `KeyExchangeFailed`."""

        if len(peer) != X25519_SIZE:
            raise KeyExchangeFailed(f'Expected a Curve25519 value of {X25519_SIZE} bytes, got {len(peer)}')

        try:
            secret = crypto_scalarmult(self._private, peer)
        except (CryptoError, RuntimeError):
            secret = bytes(X25519_SIZE)

        # A point of low order makes every secret zero (RFC 8731 section 3).
        if not any(secret):
            raise KeyExchangeFailed('Expected a Curve25519 value of full order, got one of low order')

        return secret


class Curve25519Exchange(KeyExchange):
    """curve25519-sha256, and the same by its libssh.org name."""

    def __init__(self, context: KexContext) -> None:
        super().__init__(context, 'sha256')
        self._key = X25519()

    def make_client_value(self) -> bytes:
        """Send our public value."""

        return encode_string(self._key.public)

    def answer(self, client_value: bytes) -> tuple[bytes, bytes]:
        """Send our public value, and agree."""

        return encode_string(self._key.public), self.agree(client_value)

    def agree(self, server_value: bytes) -> bytes:
        """Read the 32 bytes of the secret as a number in network order (RFC 8731 section 3.1)."""

        return encode_secret(self._key.exchange(Cursor(server_value).string()))


class ECDHExchange(KeyExchange):
    """ecdh-sha2 over a NIST curve; points are taken in their uncompressed form only."""

    def __init__(self, context: KexContext, curve: ec.EllipticCurve, hash_name: str) -> None:
        super().__init__(context, hash_name)
        self._curve = curve
        self._key = ec.generate_private_key(curve)

    def make_client_value(self) -> bytes:
        """Send our public point."""

        numbers = self._key.public_key().public_numbers()
        size = (self._curve.key_size + 7) // 8

        return encode_string(bytes([_UNCOMPRESSED]) + numbers.x.to_bytes(size, 'big') + numbers.y.to_bytes(size, 'big'))

    def answer(self, client_value: bytes) -> tuple[bytes, bytes]:
        """Send our public point, and agree."""

        return self.make_client_value(), self.agree(client_value)

    def agree(self, server_value: bytes) -> bytes:
        """Use the x coordinate of the shared point as the secret (RFC 5656 section 4)."""

        point = Cursor(server_value).string()
        size = 1 + 2 * ((self._curve.key_size + 7) // 8)

        if len(point) != size or point[0] != _UNCOMPRESSED:
            raise KeyExchangeFailed(
                f'Expected an uncompressed point of {size} bytes on {self._curve.name}, got {len(point)} bytes '
                f'that begin with 0x{point[:1].hex()}'
            )

        try:
            peer = ec.EllipticCurvePublicKey.from_encoded_point(self._curve, point)
            secret = self._key.exchange(ec.ECDH(), peer)
        except ValueError:
            raise KeyExchangeFailed(f'Expected a point on {self._curve.name}, got one that is not on it') from None

        return encode_secret(secret)
