"""Keys of type ssh-ed25519, signed and verified by PyNaCl, and ssh-ed448, by `cryptography` (RFC 8709)."""

from typing import Any, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from ..errors import KeyImportError
from ..wire import Cursor, encode_string
from .key import SSHKey, check_no_arguments, register_key_type

_ALGORITHM = b'ssh-ed25519'
_KEY_SIZE = 32
_SIGNATURE_SIZE = 64

_ED448_ALGORITHM = b'ssh-ed448'
_ED448_KEY_SIZE = 57
_ED448_SIGNATURE_SIZE = 114


class Ed25519Key(SSHKey):
    """An Ed25519 key: 32 bytes public, a seed of 32 bytes private."""

    algorithm = _ALGORITHM
    sig_algorithms = (_ALGORITHM,)
    type_name = 'ED25519'
    bits = 256

    def __init__(self, public: bytes, signing_key: SigningKey | None = None) -> None:
        super().__init__()

        if len(public) != _KEY_SIZE:
            raise KeyImportError(f'Expected an Ed25519 public key of {_KEY_SIZE} bytes, got {len(public)}')

        self._public = public
        self._verify_key = VerifyKey(public)
        self._signing_key = signing_key

    @classmethod
    def _from_seed(cls, seed: bytes) -> Self:
        signing_key = SigningKey(seed)

        return cls(bytes(signing_key.verify_key), signing_key)

    @classmethod
    def from_pyca(cls, pyca_key: Any) -> Self | None:
        """Make the key from a `cryptography` Ed25519 key; None for others."""

        if isinstance(pyca_key, ed25519.Ed25519PrivateKey):
            return cls._from_seed(pyca_key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))

        if isinstance(pyca_key, ed25519.Ed25519PublicKey):
            return cls(pyca_key.public_bytes(Encoding.Raw, PublicFormat.Raw))

        return None

    @classmethod
    def generate(cls, algorithm: bytes, **kwargs: Any) -> Self:
        """Generate a private key."""

        check_no_arguments(kwargs, algorithm)
        signing_key = SigningKey.generate()

        return cls(bytes(signing_key.verify_key), signing_key)

    @classmethod
    def decode_ssh_public(cls, algorithm: bytes, cursor: Cursor) -> Self:
        """Decode string public key."""

        return cls(cursor.string())

    @classmethod
    def decode_ssh_private(cls, algorithm: bytes, cursor: Cursor) -> Self:
        """Decode string public key, string seed and public key."""

        public = cursor.string()
        private = cursor.string()

        if len(public) != _KEY_SIZE or len(private) != 2 * _KEY_SIZE:
            raise KeyImportError(
                f'Expected an Ed25519 key of {_KEY_SIZE} and {2 * _KEY_SIZE} bytes, '
                f'got {len(public)} and {len(private)}'
            )

        key = cls._from_seed(private[:_KEY_SIZE])

        if not public == private[_KEY_SIZE:] == key._public:
            raise KeyImportError('The public part of the Ed25519 key does not belong to its private part')

        return key

    def encode_ssh_public(self) -> bytes:
        """Encode string public key."""

        return encode_string(self._public)

    def encode_ssh_private(self) -> bytes:
        """Encode string public key, string seed and public key."""

        return encode_string(self._public) + encode_string(self._seed() + self._public)

    def encode_agent_cert_private(self) -> bytes:
        """Encode string public key, string seed and public key: they are repeated although the certificate has one."""

        return self.encode_ssh_private()

    @property
    def is_private(self) -> bool:
        """Whether the private part is here."""

        return self._signing_key is not None

    @property
    def pyca_key(self) -> ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey:
        """The key as an object of the `cryptography` package."""

        if self._signing_key is None:
            return ed25519.Ed25519PublicKey.from_public_bytes(self._public)

        return ed25519.Ed25519PrivateKey.from_private_bytes(self._seed())

    def convert_to_public(self) -> SSHKey:
        """Return the public key."""

        return type(self)(self._public)._copy_names(self)

    def sign_raw(self, data: bytes, sig_algorithm: bytes) -> bytes:
        """Make a signature of 64 bytes."""

        if self._signing_key is None:
            raise ValueError('A private key is needed for signing')

        return self._signing_key.sign(data).signature

    def verify_raw(self, data: bytes, sig_algorithm: bytes, blob: bytes) -> bool:
        """Tell whether a signature of 64 bytes is right."""

        if len(blob) != _SIGNATURE_SIZE:
            return False

        try:
            self._verify_key.verify(data, blob)
        except BadSignatureError:
            return False

        return True

    def _seed(self) -> bytes:
        if self._signing_key is None:
            raise ValueError('The key has no private part')

        return bytes(self._signing_key)


class Ed448Key(SSHKey):
    """An Ed448 key: 57 bytes public, a seed of 57 bytes private."""

    algorithm = _ED448_ALGORITHM
    sig_algorithms = (_ED448_ALGORITHM,)
    type_name = 'ED448'
    bits = 456

    def __init__(self, public: bytes, private_key: ed448.Ed448PrivateKey | None = None) -> None:
        super().__init__()

        if len(public) != _ED448_KEY_SIZE:
            raise KeyImportError(f'Expected an Ed448 public key of {_ED448_KEY_SIZE} bytes, got {len(public)}')

        try:
            self._public_key = ed448.Ed448PublicKey.from_public_bytes(public)
        except ValueError as exc:
            raise KeyImportError(f'The Ed448 key is not valid: {exc}') from None

        self._public = public
        self._private_key = private_key

    @classmethod
    def _from_private(cls, private_key: ed448.Ed448PrivateKey) -> Self:
        return cls(private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw), private_key)

    @classmethod
    def from_pyca(cls, pyca_key: Any) -> Self | None:
        """Make the key from a `cryptography` Ed448 key; None for others."""

        if isinstance(pyca_key, ed448.Ed448PrivateKey):
            return cls._from_private(pyca_key)

        if isinstance(pyca_key, ed448.Ed448PublicKey):
            return cls(pyca_key.public_bytes(Encoding.Raw, PublicFormat.Raw))

        return None

    @classmethod
    def generate(cls, algorithm: bytes, **kwargs: Any) -> Self:
        """Generate a private key."""

        check_no_arguments(kwargs, algorithm)

        return cls._from_private(ed448.Ed448PrivateKey.generate())

    @classmethod
    def decode_ssh_public(cls, algorithm: bytes, cursor: Cursor) -> Self:
        """Decode string public key."""

        return cls(cursor.string())

    @classmethod
    def decode_ssh_private(cls, algorithm: bytes, cursor: Cursor) -> Self:
        """Decode string public key, string seed and public key."""

        public = cursor.string()
        private = cursor.string()

        if len(public) != _ED448_KEY_SIZE or len(private) != 2 * _ED448_KEY_SIZE:
            raise KeyImportError(
                f'Expected an Ed448 key of {_ED448_KEY_SIZE} and {2 * _ED448_KEY_SIZE} bytes, '
                f'got {len(public)} and {len(private)}'
            )

        key = cls._from_private(ed448.Ed448PrivateKey.from_private_bytes(private[:_ED448_KEY_SIZE]))

        if not public == private[_ED448_KEY_SIZE:] == key._public:
            raise KeyImportError('The public part of the Ed448 key does not belong to its private part')

        return key

    def encode_ssh_public(self) -> bytes:
        """Encode string public key."""

        return encode_string(self._public)

    def encode_ssh_private(self) -> bytes:
        """Encode string public key, string seed and public key."""

        if self._private_key is None:
            raise ValueError('The key has no private part')

        seed = self._private_key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())

        return encode_string(self._public) + encode_string(seed + self._public)

    def encode_agent_cert_private(self) -> bytes:
        """Encode string public key, string seed and public key: they are repeated although the certificate has one."""

        return self.encode_ssh_private()

    @property
    def is_private(self) -> bool:
        """Whether the private part is here."""

        return self._private_key is not None

    @property
    def pyca_key(self) -> ed448.Ed448PrivateKey | ed448.Ed448PublicKey:
        """The key as an object of the `cryptography` package."""

        return self._private_key or self._public_key

    def convert_to_public(self) -> SSHKey:
        """Return the public key."""

        return type(self)(self._public)._copy_names(self)

    def sign_raw(self, data: bytes, sig_algorithm: bytes) -> bytes:
        """Make a signature of 114 bytes."""

        if self._private_key is None:
            raise ValueError('A private key is needed for signing')

        return self._private_key.sign(data)

    def verify_raw(self, data: bytes, sig_algorithm: bytes, blob: bytes) -> bool:
        """Tell whether a signature of 114 bytes is right."""

        if len(blob) != _ED448_SIGNATURE_SIZE:
            return False

        try:
            self._public_key.verify(blob, data)
        except InvalidSignature:
            return False

        return True


register_key_type(Ed25519Key, (_ALGORITHM,), Ed25519Key.from_pyca)
register_key_type(Ed448Key, (_ED448_ALGORITHM,), Ed448Key.from_pyca)
