"""Keys of type ecdsa-sha2-nistp256, -nistp384, -nistp521 and, by its object identifier, secp256k1 (RFC 5656)."""

from typing import Any, NamedTuple, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..errors import KeyImportError, PacketDecodeError
from ..logging import printable
from ..wire import Cursor, encode_mpint, encode_string
from .key import KeyRefused, SSHKey, check_no_arguments, register_key_type


class _Curve(NamedTuple):
    """A row of the table of curves: RFC 5656 sections 6.2.1 and 10.1; sizes in bytes."""

    name: bytes
    curve: ec.EllipticCurve
    hash: hashes.HashAlgorithm
    size: int


_CURVES = {
    b'ecdsa-sha2-nistp256': _Curve(b'nistp256', ec.SECP256R1(), hashes.SHA256(), 32),
    b'ecdsa-sha2-nistp384': _Curve(b'nistp384', ec.SECP384R1(), hashes.SHA384(), 48),
    b'ecdsa-sha2-nistp521': _Curve(b'nistp521', ec.SECP521R1(), hashes.SHA512(), 66),
    b'ecdsa-sha2-1.3.132.0.10': _Curve(b'1.3.132.0.10', ec.SECP256K1(), hashes.SHA256(), 32),
}
_ALGORITHMS = {row.curve.name: algorithm for algorithm, row in _CURVES.items()}


class ECDSAKey(SSHKey):
    """An ECDSA key on one of the curves of the table; the point is always in its uncompressed form."""

    has_traditional_format = True
    type_name = 'ECDSA'

    def __init__(
        self,
        algorithm: bytes,
        public_key: ec.EllipticCurvePublicKey,
        private_key: ec.EllipticCurvePrivateKey | None = None,
    ) -> None:
        super().__init__()
        self.algorithm = algorithm
        self.sig_algorithms = (algorithm,)
        self._curve = _CURVES[algorithm]
        self._public_key = public_key
        self._private_key = private_key

    @classmethod
    def from_pyca(cls, pyca_key: Any) -> Self | None:
        """Make the key from a `cryptography` elliptic curve key; None for others."""

        if isinstance(pyca_key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
            algorithm = _ALGORITHMS.get(pyca_key.curve.name)

            if algorithm is None:
                raise KeyRefused(f'Unknown elliptic curve {pyca_key.curve.name}')

            if isinstance(pyca_key, ec.EllipticCurvePublicKey):
                return cls(algorithm, pyca_key)

            return cls(algorithm, pyca_key.public_key(), pyca_key)

        return None

    @classmethod
    def generate(cls, algorithm: bytes, **kwargs: Any) -> Self:
        """Generate a private key."""

        check_no_arguments(kwargs, algorithm)
        private_key = ec.generate_private_key(_CURVES[algorithm].curve)

        return cls(algorithm, private_key.public_key(), private_key)

    @classmethod
    def decode_ssh_public(cls, algorithm: bytes, cursor: Cursor) -> Self:
        """Decode string curve name, string point (RFC 5656 section 3.1)."""

        return cls(algorithm, _decode_point(algorithm, cursor))

    @classmethod
    def decode_ssh_private(cls, algorithm: bytes, cursor: Cursor) -> Self:
        """Decode string curve name, string point, mpint private value."""

        public_key = _decode_point(algorithm, cursor)
        curve = _CURVES[algorithm]
        value = cursor.string()

        # One byte more than the curve's size: an mpint with its highest bit set begins with a zero.
        if not value or len(value) > curve.size + 1 or value[0] & 0x80:
            raise KeyImportError(f'Expected a private value of at most {curve.size} bytes, got {len(value)}')

        try:
            private_key = ec.derive_private_key(int.from_bytes(value, 'big'), curve.curve)
        except ValueError:
            raise KeyImportError(f'The private value is not valid on {curve.name.decode()}') from None

        if private_key.public_key() != public_key:
            raise KeyImportError('The public part of the ECDSA key does not belong to its private part')

        return cls(algorithm, public_key, private_key)

    def encode_ssh_public(self) -> bytes:
        """Encode string curve name, string point."""

        point = self._public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

        return encode_string(self._curve.name) + encode_string(point)

    def encode_ssh_private(self) -> bytes:
        """Encode string curve name, string point, mpint private value."""

        if self._private_key is None:
            raise ValueError('The key has no private part')

        return self.encode_ssh_public() + encode_mpint(self._private_key.private_numbers().private_value)

    def encode_agent_cert_private(self) -> bytes:
        """Encode mpint private value."""

        if self._private_key is None:
            raise ValueError('The key has no private part')

        return encode_mpint(self._private_key.private_numbers().private_value)

    @property
    def bits(self) -> int:
        """The size of the curve's field."""

        return self._public_key.key_size

    @property
    def is_private(self) -> bool:
        """Whether the private part is here."""

        return self._private_key is not None

    @property
    def pyca_key(self) -> ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey:
        """The key as an object of the `cryptography` package."""

        return self._private_key or self._public_key

    def convert_to_public(self) -> SSHKey:
        """Return the public key."""

        return type(self)(self.algorithm, self._public_key)._copy_names(self)

    def sign_raw(self, data: bytes, sig_algorithm: bytes) -> bytes:
        """Make mpint r, mpint s (RFC 5656 section 3.1.2)."""

        if self._private_key is None:
            raise ValueError('A private key is needed for signing')

        r, s = decode_dss_signature(self._private_key.sign(data, ec.ECDSA(self._curve.hash)))

        return encode_mpint(r) + encode_mpint(s)

    def verify_raw(self, data: bytes, sig_algorithm: bytes, blob: bytes) -> bool:
        """Tell whether mpint r, mpint s are right."""

        return verify_point_signature(self._public_key, self._curve.hash, self._curve.size, data, blob)


def verify_point_signature(
    public_key: ec.EllipticCurvePublicKey, hash_algorithm: hashes.HashAlgorithm, size: int, data: bytes, blob: bytes
) -> bool:
    """Tell whether mpint r, mpint s, numbers of at most `size` bytes, are a signature of data."""

    # Two mpints of a length field, a sign byte and the curve's size each
    if len(blob) > 2 * (5 + size):
        return False

    cursor = Cursor(blob)

    try:
        r, s = cursor.mpint(), cursor.mpint()
        cursor.check_end()
    except PacketDecodeError:
        return False

    if r <= 0 or s <= 0:
        return False

    try:
        public_key.verify(encode_dss_signature(r, s), data, ec.ECDSA(hash_algorithm))
    except InvalidSignature:
        return False

    return True


def _decode_point(algorithm: bytes, cursor: Cursor) -> ec.EllipticCurvePublicKey:
    """Decode the curve's name and a point."""

    curve = _CURVES[algorithm]
    name = cursor.string()

    if name != curve.name:
        raise KeyImportError(
            f'Expected the curve {curve.name.decode()}, got {printable(name.decode(errors="replace"), 64)!r}'
        )

    return point_on_curve(algorithm, cursor.string())


def point_on_curve(algorithm: bytes, point: bytes) -> ec.EllipticCurvePublicKey:
    """Make a public key of a point, whose form and size are checked before any arithmetic."""

    curve = _CURVES[algorithm]

    if len(point) != 1 + 2 * curve.size or point[0] != 4:
        raise KeyImportError(
            f'Expected an uncompressed point of {1 + 2 * curve.size} bytes that begins with 4, '
            f'got {len(point)} bytes that begin with {point[:1].hex() or "nothing"}'
        )

    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve.curve, point)
    except ValueError:
        raise KeyImportError(f'The point is not on the curve {curve.name.decode()}') from None


register_key_type(ECDSAKey, _CURVES, ECDSAKey.from_pyca)
