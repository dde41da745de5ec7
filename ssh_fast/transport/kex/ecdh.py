"""Elliptic curve Diffie-Hellman: the NIST curves and secp256k1 (RFC 5656), Curve25519 and Curve448 (RFC 8731)."""

from collections.abc import Callable
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec, x448
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.exceptions import CryptoError
from nacl.utils import random

from ...errors import KeyExchangeFailed
from ...wire import Cursor, encode_string
from .base import KexContext, KeyExchange, encode_secret

_X25519_SIZE = 32
_X448_SIZE = 56
_UNCOMPRESSED = 4


class CurveKey(Protocol):
    """One end's ephemeral key on a curve."""

    public: bytes

    def exchange(self, peer: bytes) -> bytes:
        """Make the shared secret of the peer's value; `KeyExchangeFailed` if the value is not one of the curve."""


class X25519:
    """An ephemeral Curve25519 key. PyNaCl is twice as fast here as OpenSSL."""

    size = _X25519_SIZE

    def __init__(self) -> None:
        self._private = random(_X25519_SIZE)
        self.public = crypto_scalarmult_base(self._private)

    def exchange(self, peer: bytes) -> bytes:
        """Make the shared secret; a value of the wrong size, or of low order, raises `KeyExchangeFailed`."""

        if len(peer) != _X25519_SIZE:
            raise KeyExchangeFailed(f'Expected a Curve25519 value of {_X25519_SIZE} bytes, got {len(peer)}')

        try:
            secret = crypto_scalarmult(self._private, peer)
        except (CryptoError, RuntimeError):
            secret = bytes(_X25519_SIZE)

        # A point of low order makes every secret zero (RFC 8731 section 3).
        if not any(secret):
            raise KeyExchangeFailed('Expected a Curve25519 value of full order, got one of low order')

        return secret


class X448:
    """An ephemeral Curve448 key."""

    size = _X448_SIZE

    def __init__(self) -> None:
        self._key = x448.X448PrivateKey.generate()
        self.public = self._key.public_key().public_bytes_raw()

    def exchange(self, peer: bytes) -> bytes:
        """Make the shared secret; a value of the wrong size, or of low order, raises `KeyExchangeFailed`."""

        if len(peer) != _X448_SIZE:
            raise KeyExchangeFailed(f'Expected a Curve448 value of {_X448_SIZE} bytes, got {len(peer)}')

        try:
            secret = self._key.exchange(x448.X448PublicKey.from_public_bytes(peer))
        except ValueError:
            secret = bytes(_X448_SIZE)

        if not any(secret):
            raise KeyExchangeFailed('Expected a Curve448 value of full order, got one of low order')

        return secret


class WeierstrassKey:
    """An ephemeral key on a NIST curve or secp256k1; points are sent and taken in their uncompressed form only."""

    def __init__(self, curve: ec.EllipticCurve) -> None:
        self._curve = curve
        self._key = ec.generate_private_key(curve)
        self._width = (curve.key_size + 7) // 8
        self.size = 1 + 2 * self._width
        numbers = self._key.public_key().public_numbers()
        x, y = numbers.x.to_bytes(self._width, 'big'), numbers.y.to_bytes(self._width, 'big')
        self.public = bytes([_UNCOMPRESSED]) + x + y

    def exchange(self, peer: bytes) -> bytes:
        """Make the x coordinate of the shared point (RFC 5656 section 4), as long as the curve's field."""

        if len(peer) != self.size or peer[0] != _UNCOMPRESSED:
            raise KeyExchangeFailed(
                f'Expected an uncompressed point of {self.size} bytes on {self._curve.name}, got {len(peer)} bytes '
                f'that begin with 0x{peer[:1].hex()}'
            )

        try:
            return self._key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(self._curve, peer))
        except ValueError:
            raise KeyExchangeFailed(f'Expected a point on {self._curve.name}, got one that is not on it') from None


class CurveExchange(KeyExchange):
    """Diffie-Hellman on one curve: its values are strings, the secret is a number in network order."""

    def __init__(self, context: KexContext, make_key: Callable[[], CurveKey], hash_name: str) -> None:
        super().__init__(context, hash_name)
        self._key = make_key()

    def make_client_value(self) -> bytes:
        """Send our public value."""

        return encode_string(self._key.public)

    def answer(self, client_value: bytes) -> tuple[bytes, bytes]:
        """Send our public value, and agree."""

        return encode_string(self._key.public), self.agree(client_value)

    def agree(self, server_value: bytes) -> bytes:
        """Agree with the peer's public value."""

        return encode_secret(self._key.exchange(Cursor(server_value).string()))
