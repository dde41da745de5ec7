"""Keys of type ssh-ed25519 (RFC 8709), signed and verified by PyNaCl."""

from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from ..errors import KeyImportError
from ..wire import Cursor, encode_string
from .key import SSHKey, check_no_arguments, register_key_type

_ALGORITHM = b'ssh-ed25519'
_KEY_SIZE = 32
_SIGNATURE_SIZE = 64


class Ed25519Key(SSHKey):
    """An Ed25519 key: 32 bytes public, a seed of 32 bytes private."""

    algorithm = _ALGORITHM
    sig_algorithms = (_ALGORITHM,)

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


register_key_type(Ed25519Key, (_ALGORITHM,), Ed25519Key.from_pyca)
