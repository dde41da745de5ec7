"""Keys that a security key (FIDO, U2F) holds: sk-ssh-ed25519@openssh.com and sk-ecdsa-sha2-nistp256@openssh.com.

    signature of the device over: SHA-256 of the application | byte flags | uint32 counter | SHA-256 of the data
    string name | string blob | byte flags | uint32 counter         (PROTOCOL.u2f)
    ... | string origin | string client data | string extensions    (the webauthn form, made by browsers)

Verifying needs no device. Signing does, through `sk_device`.
"""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from cryptography.hazmat.primitives import hashes
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from ..errors import KeyExportError, KeyImportError
from ..logging import printable
from ..wire import Cursor, encode_byte, encode_string, encode_uint32
from . import sk_device
from .ecdsa import point_on_curve, verify_point_signature
from .key import SSHKey, register_key_type

ED25519 = b'sk-ssh-ed25519@openssh.com'
ECDSA = b'sk-ecdsa-sha2-nistp256@openssh.com'
WEBAUTHN = b'webauthn-sk-ecdsa-sha2-nistp256@openssh.com'

# The flags of a signature (WebAuthn section 6.1), of which the first two are also those of a key (PROTOCOL.u2f)
USER_PRESENT = 0x01
USER_VERIFIED = 0x04
_ATTESTED_DATA = 0x40
_EXTENSION_DATA = 0x80

_POINT_ALGORITHM = b'ecdsa-sha2-nistp256'
_POINT_SIZE = 32
_MAX_APPLICATION = 1024
_MAX_KEY_HANDLE = 8192


class _Handle(NamedTuple):
    """What a private key file has: not the key, but by what the device knows it."""

    flags: int
    key_handle: bytes
    reserved: bytes


class SKKey(SSHKey):
    """A key that a device holds for one application; the private part is the device's handle of it."""

    needs_device = True

    def __init__(self, public: bytes, application: bytes, handle: _Handle | None = None) -> None:
        super().__init__()
        self._public = public
        self._application = application
        self._handle = handle
        self._touch_required = True
        self._verify_required = False

    @classmethod
    def from_pyca(cls, pyca_key: Any) -> Self | None:
        """Say that no other format has keys of this type."""

        return None

    @classmethod
    def generate(cls, algorithm: bytes, **kwargs: Any) -> Self:
        """Have the device generate a key: `application`, `user`, `pin`, `resident`, `touch_required`.

        Needs the extra `fido2` and a touch; `KeyGenerationError` says what failed.
        """

        made = sk_device.enroll(algorithm, **kwargs)

        return cls.from_device(made)

    @classmethod
    def from_device(cls, made: 'sk_device.DeviceKey') -> Self:
        """Make a private key of what a device told about one that it holds."""

        flags = USER_PRESENT if made.touch_required else 0

        return cls(made.public, made.application.encode(), _Handle(flags, made.key_handle, b''))

    @classmethod
    def decode_ssh_public(cls, algorithm: bytes, cursor: Cursor) -> Self:
        """Decode the public key's own fields, string application."""

        public = cls._decode_own(cursor)

        return cls(public, _application(cursor))

    @classmethod
    def decode_ssh_private(cls, algorithm: bytes, cursor: Cursor) -> Self:
        """Decode the public key, string application, byte flags, string key handle, string reserved."""

        key = cls.decode_ssh_public(algorithm, cursor)
        key._handle = _Handle(cursor.byte(), cursor.string(), cursor.string())

        if not 0 < len(key._handle.key_handle) <= _MAX_KEY_HANDLE:
            raise KeyImportError(
                f'Expected a key handle of 1 to {_MAX_KEY_HANDLE} bytes, got {len(key._handle.key_handle)}'
            )

        return key

    @classmethod
    def _decode_own(cls, cursor: Cursor) -> bytes:
        """Decode the key without its application, and check it."""

        raise NotImplementedError

    def _encode_own(self) -> bytes:
        raise NotImplementedError

    def encode_ssh_public(self) -> bytes:
        """Encode the public key's own fields, string application."""

        return self._encode_own() + encode_string(self._application)

    def encode_ssh_private(self) -> bytes:
        """Encode the public key, string application, byte flags, string key handle, string reserved."""

        return self._encode_own() + self.encode_agent_cert_private()

    def encode_agent_cert_private(self) -> bytes:
        """Encode string application, byte flags, string key handle, string reserved."""

        handle = self._private()

        return (
            encode_string(self._application)
            + encode_byte(handle.flags)
            + encode_string(handle.key_handle)
            + encode_string(handle.reserved)
        )

    @property
    def application(self) -> str:
        """What the key is for: `ssh:`, and what its owner put behind it."""

        return self._application.decode()

    @property
    def is_private(self) -> bool:
        """Whether the device's handle is here."""

        return self._handle is not None

    @property
    def pyca_key(self) -> Any:
        """Raise `KeyExportError`: no PEM or DER format has keys of this type."""

        raise KeyExportError(f'A {self.get_algorithm()} key can only be written as openssh or rfc4716')

    def convert_to_public(self) -> SSHKey:
        """Return the public key."""

        key = type(self)(self._public, self._application)._copy_names(self)
        key._touch_required, key._verify_required = self._touch_required, self._verify_required

        return key

    def set_touch_required(self, touch_required: bool) -> None:
        """Set whether a signature counts only if the device was touched for it (the default), and wants that itself."""

        self._touch_required = touch_required

    def set_verify_required(self, verify_required: bool) -> None:
        """Set whether a signature counts only if the device knew its user, by PIN or finger (default: no)."""

        self._verify_required = verify_required

    def sign_fields(self, data: bytes, sig_algorithm: bytes) -> bytes:
        """Have the device sign; blocks until it was touched."""

        handle = self._private()
        made = sk_device.sign(
            self.algorithm,
            hashlib.sha256(data).digest(),
            self.application,
            handle.key_handle,
            touch_required=self._touch_required and bool(handle.flags & USER_PRESENT),
        )

        return encode_string(made.blob) + encode_byte(made.flags) + encode_uint32(made.counter)

    def verify_fields(self, data: bytes, sig_algorithm: bytes, cursor: Cursor) -> bool:
        """Tell whether a device made the signature, and had the touch and the PIN that are required."""

        blob, flags, counter = cursor.string(), cursor.byte(), cursor.bytes(4)
        extensions = b''

        if sig_algorithm == WEBAUTHN:
            origin, client_data, extensions = cursor.string(), cursor.string(), cursor.string()

            # What the browser says of itself begins with the data and the origin; the rest of it doesn't matter.
            if b'"' in origin or not client_data.startswith(_client_data_start(data, origin)):
                return False

            data = client_data

        # Extensions are signed as a part of the authenticator's data: its flags must announce them.
        if bool(flags & _EXTENSION_DATA) != bool(extensions):
            return False

        cursor.check_end()

        if flags & _ATTESTED_DATA:
            return False

        if self._touch_required and not flags & USER_PRESENT:
            return False

        if self._verify_required and not flags & USER_VERIFIED:
            return False

        signed = (
            hashlib.sha256(self._application).digest()
            + encode_byte(flags)
            + counter
            + extensions
            + hashlib.sha256(data).digest()
        )

        return self.verify_raw(signed, sig_algorithm, blob)

    def _private(self) -> _Handle:
        if self._handle is None:
            raise ValueError('The key has no private part')

        return self._handle


class SKEd25519Key(SKKey):
    """An Ed25519 key that a device holds."""

    algorithm = ED25519
    sig_algorithms = (ED25519,)
    type_name = 'ED25519-SK'
    bits = 256

    def __init__(self, public: bytes, application: bytes, handle: _Handle | None = None) -> None:
        super().__init__(public, application, handle)

        if len(public) != _POINT_SIZE:
            raise KeyImportError(f'Expected an Ed25519 public key of {_POINT_SIZE} bytes, got {len(public)}')

        self._verify_key = VerifyKey(public)

    @classmethod
    def _decode_own(cls, cursor: Cursor) -> bytes:
        return cursor.string()

    def _encode_own(self) -> bytes:
        return encode_string(self._public)

    def verify_raw(self, data: bytes, sig_algorithm: bytes, blob: bytes) -> bool:
        """Tell whether a signature of 64 bytes is right."""

        if len(blob) != 2 * _POINT_SIZE:
            return False

        try:
            self._verify_key.verify(data, blob)
        except BadSignatureError:
            return False

        return True


class SKECDSAKey(SKKey):
    """An ECDSA key on the curve P-256 that a device holds."""

    algorithm = ECDSA
    sig_algorithms = (ECDSA, WEBAUTHN)
    type_name = 'ECDSA-SK'
    bits = 256

    def __init__(self, public: bytes, application: bytes, handle: _Handle | None = None) -> None:
        super().__init__(public, application, handle)

        self._verify_key = point_on_curve(_POINT_ALGORITHM, public)

    @classmethod
    def _decode_own(cls, cursor: Cursor) -> bytes:
        name, point = cursor.string(), cursor.string()

        if name != b'nistp256':
            raise KeyImportError(f'Expected the curve nistp256, got {printable(name.decode(errors="replace"), 64)!r}')

        return point

    def _encode_own(self) -> bytes:
        return encode_string(b'nistp256') + encode_string(self._public)

    def verify_raw(self, data: bytes, sig_algorithm: bytes, blob: bytes) -> bool:
        """Tell whether mpint r, mpint s are right."""

        return verify_point_signature(self._verify_key, hashes.SHA256(), _POINT_SIZE, data, blob)


def load_resident_keys(
    pin: str, *, application: str = 'ssh:', user: str | None = None, touch_required: bool = True
) -> Sequence[SSHKey]:
    """Load the keys that plugged-in security keys hold for an application, of one user or all.

    Needs the extra `fido2`; `KeyImportError` says what failed.
    """

    types: dict[bytes, type[SKKey]] = {ED25519: SKEd25519Key, ECDSA: SKECDSAKey}

    found = sk_device.resident_keys(pin, application, user, touch_required)

    return [types[made.algorithm].from_device(made) for made in found]


def _application(cursor: Cursor) -> bytes:
    """Decode the application, which is text."""

    text = cursor.text()

    if len(text) > _MAX_APPLICATION or '\0' in text:
        raise KeyImportError(f'Expected an application of at most {_MAX_APPLICATION} characters, got {len(text)}')

    return text.encode()


def _client_data_start(data: bytes, origin: bytes) -> bytes:
    """Return what the client data of a browser must begin with (WebAuthn section 5.8.1.1)."""

    challenge = base64.urlsafe_b64encode(data).rstrip(b'=')

    return b'{"type":"webauthn.get","challenge":"' + challenge + b'","origin":"' + origin + b'"'


register_key_type(SKEd25519Key, (ED25519,), SKEd25519Key.from_pyca)
register_key_type(SKECDSAKey, (ECDSA,), SKECDSAKey.from_pyca)
