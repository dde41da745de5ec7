"""Keys of type ssh-dss (RFC 4253 section 6.6), for peers that have nothing else: off by default.

Signatures are SHA-1 over keys of 1024 bits, so only keys of exactly this size are taken, as OpenSSH did.
"""

from typing import Any, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from ..errors import KeyGenerationError, KeyImportError
from ..wire import Cursor, encode_mpint
from .key import KeyRefused, SSHKey, check_no_arguments, register_key_type

_ALGORITHM = b'ssh-dss'
_BITS = 1024
_SUBGROUP_BITS = 160
_NUMBER_SIZE = _SUBGROUP_BITS // 8


class DSAKey(SSHKey):
    """A DSA key of 1024 bits with a subgroup of 160."""

    algorithm = _ALGORITHM
    sig_algorithms = (_ALGORITHM,)
    has_traditional_format = True
    type_name = 'DSA'
    bits = _BITS

    def __init__(self, public_key: dsa.DSAPublicKey, private_key: dsa.DSAPrivateKey | None = None) -> None:
        super().__init__()
        self._public_key = public_key
        self._private_key = private_key

    @classmethod
    def from_pyca(cls, pyca_key: Any) -> Self | None:
        """Make the key from a `cryptography` DSA key; None for others."""

        if not isinstance(pyca_key, dsa.DSAPrivateKey | dsa.DSAPublicKey):
            return None

        if isinstance(pyca_key, dsa.DSAPrivateKey):
            private, public = pyca_key, pyca_key.public_key()
        else:
            private, public = None, pyca_key

        numbers = public.public_numbers()
        group = numbers.parameter_numbers
        _check_public(group.p, group.q, group.g, numbers.y)

        if private and pow(group.g, private.private_numbers().x, group.p) != numbers.y:
            raise KeyImportError('The numbers of the private DSA key do not agree')

        return cls(public, private)

    @classmethod
    def generate(cls, algorithm: bytes, **kwargs: Any) -> Self:
        """Generate a private key."""

        if kwargs.pop('key_size', _BITS) != _BITS:
            raise KeyGenerationError(f'Expected a DSA key_size of {_BITS}: there is no other for ssh-dss')

        check_no_arguments(kwargs, algorithm)
        private_key = dsa.generate_private_key(_BITS)

        return cls(private_key.public_key(), private_key)

    @classmethod
    def decode_ssh_public(cls, algorithm: bytes, cursor: Cursor) -> Self:
        """Decode mpint p, q, g, y."""

        return cls(_public_numbers(cursor).public_key())

    @classmethod
    def decode_ssh_private(cls, algorithm: bytes, cursor: Cursor) -> Self:
        """Decode mpint p, q, g, y, x (OpenSSH PROTOCOL.key)."""

        numbers = _public_numbers(cursor)
        x = _number(cursor, _SUBGROUP_BITS)
        group = numbers.parameter_numbers

        if not 0 < x < group.q or pow(group.g, x, group.p) != numbers.y:
            raise KeyImportError('The numbers of the private DSA key do not agree')

        try:
            private_key = dsa.DSAPrivateNumbers(x, numbers).private_key()
        except ValueError as exc:
            raise KeyImportError(f'The DSA key is not valid: {exc}') from None

        return cls(private_key.public_key(), private_key)

    def encode_ssh_public(self) -> bytes:
        """Encode mpint p, q, g, y."""

        numbers = self._public_key.public_numbers()
        group = numbers.parameter_numbers

        return b''.join(encode_mpint(field) for field in (group.p, group.q, group.g, numbers.y))

    def encode_ssh_private(self) -> bytes:
        """Encode mpint p, q, g, y, x."""

        return self.encode_ssh_public() + self.encode_agent_cert_private()

    def encode_agent_cert_private(self) -> bytes:
        """Encode mpint x."""

        if self._private_key is None:
            raise ValueError('The key has no private part')

        return encode_mpint(self._private_key.private_numbers().x)

    @property
    def is_private(self) -> bool:
        """Whether the private part is here."""

        return self._private_key is not None

    @property
    def pyca_key(self) -> dsa.DSAPrivateKey | dsa.DSAPublicKey:
        """The key as an object of the `cryptography` package."""

        return self._private_key or self._public_key

    def convert_to_public(self) -> SSHKey:
        """Return the public key."""

        return type(self)(self._public_key)._copy_names(self)

    def sign_raw(self, data: bytes, sig_algorithm: bytes) -> bytes:
        """Make r and s, 20 bytes each."""

        if self._private_key is None:
            raise ValueError('A private key is needed for signing')

        r, s = decode_dss_signature(self._private_key.sign(data, hashes.SHA1()))

        return r.to_bytes(_NUMBER_SIZE, 'big') + s.to_bytes(_NUMBER_SIZE, 'big')

    def verify_raw(self, data: bytes, sig_algorithm: bytes, blob: bytes) -> bool:
        """Tell whether r and s, 20 bytes each, are right."""

        if len(blob) != 2 * _NUMBER_SIZE:
            return False

        r, s = int.from_bytes(blob[:_NUMBER_SIZE], 'big'), int.from_bytes(blob[_NUMBER_SIZE:], 'big')

        if not r or not s:
            return False

        try:
            self._public_key.verify(encode_dss_signature(r, s), data, hashes.SHA1())
        except InvalidSignature:
            return False

        return True


def _number(cursor: Cursor, max_bits: int) -> int:
    """Decode an mpint whose sign and size are right."""

    data = cursor.string()

    # One byte more than the number: an mpint with its highest bit set begins with a zero.
    if data[:1] > b'\x7f' or len(data) > max_bits // 8 + 1:
        raise KeyRefused(f'Expected positive DSA numbers of at most {max_bits} bits, got {len(data)} bytes')

    return int.from_bytes(data, 'big')


def _public_numbers(cursor: Cursor) -> dsa.DSAPublicNumbers:
    p, q = _number(cursor, _BITS), _number(cursor, _SUBGROUP_BITS)
    g, y = _number(cursor, _BITS), _number(cursor, _BITS)
    _check_public(p, q, g, y)

    return dsa.DSAPublicNumbers(y, dsa.DSAParameterNumbers(p, q, g))


def _check_public(p: int, q: int, g: int, y: int) -> None:
    """Check the sizes of a public key before it is used, and that its elements are of the subgroup."""

    if p.bit_length() != _BITS or q.bit_length() != _SUBGROUP_BITS:
        raise KeyRefused(
            f'Expected a DSA key of {_BITS} bits with a subgroup of {_SUBGROUP_BITS}, '
            f'got {p.bit_length()} and {q.bit_length()}'
        )

    if p % 2 == 0 or (p - 1) % q or not 1 < g < p - 1 or not 1 < y < p - 1:
        raise KeyImportError('The numbers of the DSA key do not fit each other')

    if pow(g, q, p) != 1 or pow(y, q, p) != 1:
        raise KeyImportError('The numbers of the DSA key are not of its subgroup')


register_key_type(DSAKey, (_ALGORITHM,), DSAKey.from_pyca)
