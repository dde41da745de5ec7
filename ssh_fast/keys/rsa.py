"""Keys of type ssh-rsa (RFC 4253) and their signatures (RFC 8332); SHA-1 only where a list of algorithms names it."""

from typing import Any, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ..errors import KeyGenerationError, KeyImportError
from ..wire import Cursor, encode_mpint
from .key import KeyRefused, SSHKey, check_no_arguments, register_key_type

# RFC 8332 has no bounds: below is no longer safe (NIST SP 800-131A), above is more than OpenSSH and OpenSSL take.
_DEFAULT_MIN_BITS = 2048
_MAX_BITS = 16384

# What `set_required_rsa_size` goes down to, as OpenSSH's RequiredRSASize: shorter keys can be factored
_LEAST_MIN_BITS = 1024

# OpenSSL's OPENSSL_RSA_MAX_PUBEXP_BITS: a longer exponent only makes verifying slow
_MAX_EXPONENT_BITS = 64

# In the order of preference
_HASHES: dict[bytes, hashes.HashAlgorithm] = {
    b'rsa-sha2-512': hashes.SHA512(),
    b'rsa-sha2-256': hashes.SHA256(),
    b'ssh-rsa': hashes.SHA1(),
}

# Under X.509 certificates the signatures of rsa-sha2-256 have another name (RFC 6187 section 3).
_X509_NAME = b'rsa2048-sha256'

_skip_validation = False
_min_bits = _DEFAULT_MIN_BITS


def set_required_rsa_size(bits: int) -> None:
    """Set the fewest bits of RSA keys that are accepted or generated from now on, 1024 to 16384 (default 2048)."""

    global _min_bits

    if not _LEAST_MIN_BITS <= bits <= _MAX_BITS:
        raise ValueError(f'bits: expected {_LEAST_MIN_BITS} to {_MAX_BITS}, got {bits}')

    _min_bits = bits


def set_default_skip_rsa_key_validation(skip_validation: bool) -> None:
    """Set whether private RSA keys are used without checking that their numbers agree, where a call doesn't say."""

    global _skip_validation

    _skip_validation = skip_validation


class RSAKey(SSHKey):
    """An RSA key of 2048 to 16384 bits; `set_required_rsa_size` changes the lower bound."""

    algorithm = b'ssh-rsa'
    sig_algorithms = tuple(_HASHES)
    weak_sig_algorithms = frozenset((b'ssh-rsa',))
    x509_sig_algorithms = (_X509_NAME,)
    type_name = 'RSA'
    has_traditional_format = True

    def __init__(self, public_key: rsa.RSAPublicKey, private_key: rsa.RSAPrivateKey | None = None) -> None:
        super().__init__()
        self._public_key = public_key
        self._private_key = private_key

    @classmethod
    def from_pyca(cls, pyca_key: Any) -> Self | None:
        """Make the key from a `cryptography` RSA key; None for others. Private numbers are not checked here."""

        if isinstance(pyca_key, rsa.RSAPrivateKey):
            public_key = pyca_key.public_key()
            numbers = public_key.public_numbers()
            _check_public(numbers.e, numbers.n)

            return cls(public_key, pyca_key)

        if isinstance(pyca_key, rsa.RSAPublicKey):
            numbers = pyca_key.public_numbers()
            _check_public(numbers.e, numbers.n)

            return cls(pyca_key)

        return None

    @classmethod
    def generate(cls, algorithm: bytes, **kwargs: Any) -> Self:
        """Generate a private key of `key_size` bits; the `exponent` is 65537, or 3 for old peers."""

        key_size, exponent = kwargs.pop('key_size', 3072), kwargs.pop('exponent', 65537)
        check_no_arguments(kwargs, algorithm)

        if not _min_bits <= key_size <= _MAX_BITS:
            raise KeyGenerationError(f'Expected an RSA key_size of {_min_bits} to {_MAX_BITS} bits, got {key_size}')

        if exponent not in (3, 65537):
            raise KeyGenerationError(f'Expected an RSA exponent of 65537 or 3, got {exponent}')

        private_key = rsa.generate_private_key(exponent, key_size)

        return cls(private_key.public_key(), private_key)

    @classmethod
    def decode_ssh_public(cls, algorithm: bytes, cursor: Cursor) -> Self:
        """Decode mpint e, mpint n (RFC 4253 section 6.6)."""

        e, n = _positive(cursor, _MAX_EXPONENT_BITS, 'exponent'), _positive(cursor, _MAX_BITS, 'modulus')
        _check_public(e, n)

        try:
            return cls(rsa.RSAPublicNumbers(e, n).public_key())
        except ValueError as exc:
            raise KeyImportError(f'The RSA key is not valid: {exc}') from None

    @classmethod
    def decode_ssh_private(cls, algorithm: bytes, cursor: Cursor) -> Self:
        """Decode mpint n, e, d, iqmp, p, q (OpenSSH PROTOCOL.key)."""

        n = _positive(cursor, _MAX_BITS, 'modulus')
        e = _positive(cursor, _MAX_EXPONENT_BITS, 'exponent')
        _check_public(e, n)
        names = ('private exponent', 'coefficient', 'first prime', 'second prime')
        d, iqmp, p, q = (_positive(cursor, _MAX_BITS, name) for name in names)

        if p < 3 or q < 3:
            raise KeyImportError('The numbers of the private RSA key do not agree')

        try:
            numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), iqmp, rsa.RSAPublicNumbers(e, n))
            private_key = numbers.private_key(unsafe_skip_rsa_key_validation=True)
        except ValueError as exc:
            raise KeyImportError(f'The RSA key is not valid: {exc}') from None

        return cls(private_key.public_key(), private_key)

    def validate_private(self, skip_validation: bool | None = None) -> None:
        """Check that the private numbers agree, unless told to skip it; `KeyImportError` if they do not.

        The two primality tests of OpenSSL's check take 0.3 s for 4096 bits and are left out: a signature made by wrong
        numbers never leaves `sign_raw`, which verifies it.
        """

        if self._private_key is None or (_skip_validation if skip_validation is None else skip_validation):
            return

        numbers = self._private_key.private_numbers()
        n, e = numbers.public_numbers.n, numbers.public_numbers.e
        p, q, d = numbers.p, numbers.q, numbers.d

        # p and q are odd since n is; each at least a third of the bits, so that no trivial factor passes.
        agree = (
            p * q == n
            and min(p, q).bit_length() * 3 > n.bit_length()
            and p != q
            and 0 < d < n
            and d * e % (p - 1) == 1
            and d * e % (q - 1) == 1
            and numbers.dmp1 == d % (p - 1)
            and numbers.dmq1 == d % (q - 1)
            and numbers.iqmp * q % p == 1
        )

        if not agree:
            raise KeyImportError('The numbers of the private RSA key do not agree')

    def encode_ssh_public(self) -> bytes:
        """Encode mpint e, mpint n."""

        numbers = self._public_key.public_numbers()

        return encode_mpint(numbers.e) + encode_mpint(numbers.n)

    def encode_ssh_private(self) -> bytes:
        """Encode mpint n, e, d, iqmp, p, q."""

        if self._private_key is None:
            raise ValueError('The key has no private part')

        numbers = self._private_key.private_numbers()
        public = numbers.public_numbers
        fields = (public.n, public.e, numbers.d, numbers.iqmp, numbers.p, numbers.q)

        return b''.join(encode_mpint(field) for field in fields)

    def encode_agent_cert_private(self) -> bytes:
        """Encode mpint d, iqmp, p, q."""

        if self._private_key is None:
            raise ValueError('The key has no private part')

        numbers = self._private_key.private_numbers()

        return b''.join(encode_mpint(field) for field in (numbers.d, numbers.iqmp, numbers.p, numbers.q))

    @property
    def bits(self) -> int:
        """The length of the modulus."""

        return self._public_key.key_size

    @property
    def is_private(self) -> bool:
        """Whether the private part is here."""

        return self._private_key is not None

    @property
    def pyca_key(self) -> rsa.RSAPrivateKey | rsa.RSAPublicKey:
        """The key as an object of the `cryptography` package."""

        return self._private_key or self._public_key

    def convert_to_public(self) -> SSHKey:
        """Return the public key."""

        return type(self)(self._public_key)._copy_names(self)

    def sign_raw(self, data: bytes, sig_algorithm: bytes) -> bytes:
        """Make a PKCS#1 v1.5 signature as long as the modulus (RFC 8332 section 3)."""

        if self._private_key is None:
            raise ValueError('A private key is needed for signing')

        blob = self._private_key.sign(data, padding.PKCS1v15(), _hash(sig_algorithm))

        # One wrong signature reveals the factors to whoever sees it (Boneh, DeMillo, Lipton 1997).
        if not self.verify_raw(data, sig_algorithm, blob):
            raise ValueError('The RSA signature made does not verify: the key is damaged, or the machine is')

        return blob

    def verify_raw(self, data: bytes, sig_algorithm: bytes, blob: bytes) -> bool:
        """Tell whether a PKCS#1 v1.5 signature is right; leading zeros that an old peer left out are put back."""

        size = (self._public_key.key_size + 7) // 8

        if not blob or len(blob) > size:
            return False

        try:
            self._public_key.verify(blob.rjust(size, b'\0'), data, padding.PKCS1v15(), _hash(sig_algorithm))
        except InvalidSignature:
            return False

        return True


def _hash(sig_algorithm: bytes) -> hashes.HashAlgorithm:
    return _HASHES[b'rsa-sha2-256' if sig_algorithm == _X509_NAME else sig_algorithm]


def _positive(cursor: Cursor, max_bits: int, name: str) -> int:
    """Decode an mpint whose sign and size are right."""

    data = cursor.string()

    if data[:1] > b'\x7f':
        raise KeyImportError(f'Expected a positive RSA {name}, got a negative one')

    value = data.lstrip(b'\0')

    # Counted in bytes before the number is made: a peer chooses the length.
    if len(value) * 8 > max_bits + 7:
        raise KeyRefused(f'Expected an RSA {name} of at most {max_bits} bits, got {len(value) * 8}')

    return int.from_bytes(value, 'big')


def _check_public(e: int, n: int) -> None:
    """Check the sizes of a public key before it is used."""

    if not _min_bits <= n.bit_length() <= _MAX_BITS:
        raise KeyRefused(f'Expected an RSA key of {_min_bits} to {_MAX_BITS} bits, got {n.bit_length()}')

    if n % 2 == 0 or e % 2 == 0 or e < 3 or e.bit_length() > _MAX_EXPONENT_BITS:
        raise KeyImportError(f'Expected an odd RSA modulus and an odd exponent of 3 to {_MAX_EXPONENT_BITS} bits')


register_key_type(RSAKey, (RSAKey.algorithm,), RSAKey.from_pyca)
