"""Talking to security keys, through the optional package `fido2` (CTAP 2; CTAP 1 for signing with older ones).

The package is imported when a device is needed. What goes wrong is said by our errors, never by those of `fido2`.
"""

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from ..errors import KeyGenerationError, KeyImportError
from ..wire import encode_mpint

_ECDSA = b'sk-ecdsa-sha2-nistp256@openssh.com'

# COSE algorithm identifiers (RFC 8152 section 8) and the names of the parameters of COSE keys
_COSE = {b'sk-ssh-ed25519@openssh.com': -8, _ECDSA: -7}
_COSE_ALGORITHM, _COSE_X, _COSE_Y = 3, -2, -3
_COORDINATE_SIZE = 32

# How often and how long a device of CTAP 1, which doesn't wait by itself, is asked whether it was touched
_TOUCH_POLL_SECONDS = 0.2
_TOUCH_POLLS = 150

_MISSING = "Security keys need the package fido2: install the extra, as in pip install 'ssh_fast[fido2]'"


class DeviceKey(NamedTuple):
    """What a device tells about a key that it holds; `public` is 32 bytes, or an uncompressed point of 65."""

    algorithm: bytes
    application: str
    user: str
    public: bytes
    key_handle: bytes
    touch_required: bool


class DeviceSignature(NamedTuple):
    """What a device signed with: the blob in the encoding of SSH, and what it says of the user."""

    blob: bytes
    flags: int
    counter: int


class DeviceError(ValueError):
    """No security key signed: none is there, none holds the key, or it was not touched."""


def enroll(
    algorithm: bytes,
    *,
    application: str = 'ssh:',
    user: str = 'ssh_fast',
    pin: str | None = None,
    resident: bool = False,
    touch_required: bool = True,
) -> DeviceKey:
    """Have the first device make a key; `resident` stores it there, to be found again by `resident_keys`."""

    if not application.startswith('ssh:'):
        raise KeyGenerationError(f'application: expected one that begins with ssh:, got {application!r}')

    with _typed(KeyGenerationError):
        for device in _devices(KeyGenerationError):
            ctap = _ctap2(device)

            if ctap is None:
                continue

            challenge = os.urandom(32)
            token, version = _authorize(ctap, pin, 'MAKE_CREDENTIAL', application, challenge)
            credential = ctap.make_credential(
                challenge,
                {'id': application, 'name': application},
                {'id': user.encode(), 'name': user, 'displayName': user},
                [{'type': 'public-key', 'alg': _COSE[algorithm]}],
                options={'rk': True} if resident else None,
                pin_uv_param=token,
                pin_uv_protocol=version,
            )
            data = credential.auth_data.credential_data

            return DeviceKey(
                algorithm, application, user, _public(data.public_key), bytes(data.credential_id), touch_required
            )

    raise KeyGenerationError('No security key is there that could make a key')


def sign(
    algorithm: bytes, digest: bytes, application: str, key_handle: bytes, *, touch_required: bool
) -> DeviceSignature:
    """Have the device that holds a key sign a SHA-256 digest; blocks until it was touched, if it must be."""

    with _typed(DeviceError):
        from fido2.ctap import CtapError

        for device in _devices(DeviceError):
            ctap = _ctap2(device)

            if ctap is None:
                made = _sign_ctap1(device, digest, application, key_handle)

                if made is not None:
                    return made

                continue

            try:
                answer = ctap.get_assertion(
                    application,
                    digest,
                    [{'type': 'public-key', 'id': key_handle}],
                    options=None if touch_required else {'up': False},
                )
            except CtapError as exc:
                # A device that doesn't hold the key; another may.
                if exc.code in (CtapError.ERR.NO_CREDENTIALS, CtapError.ERR.INVALID_CREDENTIAL):
                    continue

                raise

            data = answer.auth_data

            return DeviceSignature(_blob(algorithm, answer.signature), int(data.flags), int(data.counter))

    raise DeviceError('No security key is there that holds this key')


def resident_keys(pin: str, application: str, user: str | None, touch_required: bool) -> Sequence[DeviceKey]:
    """List the keys stored on all devices for an application, of one user or all."""

    found: list[DeviceKey] = []
    names = {number: name for name, number in _COSE.items()}
    wanted = hashlib.sha256(application.encode()).digest()

    with _typed(KeyImportError):
        from fido2.ctap2 import CredentialManagement

        for device in _devices(KeyImportError):
            ctap = _ctap2(device)

            if ctap is None or not CredentialManagement.is_supported(ctap.info):
                continue

            protocol, token = _pin_token(ctap, pin, 'CREDENTIAL_MGMT', None)
            manager = CredentialManagement(ctap, protocol, token)
            result = CredentialManagement.RESULT

            if not manager.get_metadata().get(result.EXISTING_CRED_COUNT):
                continue

            for entry in manager.enumerate_creds(wanted):
                name = str(entry[result.USER].get('name', ''))
                public = entry[result.PUBLIC_KEY]
                algorithm = names.get(public.get(_COSE_ALGORITHM))

                if algorithm is not None and user in (None, name):
                    handle = bytes(entry[result.CREDENTIAL_ID]['id'])
                    found.append(DeviceKey(algorithm, application, name, _public(public), handle, touch_required))

    return found


# --- devices


@contextmanager
def _typed(error: type[ValueError]) -> Iterator[None]:
    """Turn what `fido2` and the system raise into an error of ours."""

    try:
        import fido2.client
        import fido2.ctap
    except ImportError:
        raise error(_MISSING) from None

    try:
        yield
    except (fido2.ctap.CtapError, fido2.client.ClientError, OSError) as exc:
        raise error(f'The security key refused: {exc}') from exc


def _devices(error: type[ValueError]) -> Sequence[Any]:
    from fido2.hid import CtapHidDevice

    devices = list(CtapHidDevice.list_devices())

    if not devices:
        raise error('No security key is there')

    return devices


def _ctap2(device: Any) -> Any:
    """Return the newer protocol of a device; None if it has the older one alone."""

    from fido2.ctap2 import Ctap2

    try:
        return Ctap2(device)
    except ValueError:
        return None


def _pin_token(ctap: Any, pin: str, permission: str, application: str | None) -> tuple[Any, bytes]:
    from fido2.ctap2 import ClientPin

    client = ClientPin(ctap)

    return client.protocol, client.get_pin_token(pin, getattr(ClientPin.PERMISSION, permission), application)


def _authorize(
    ctap: Any, pin: str | None, permission: str, application: str, challenge: bytes
) -> tuple[bytes | None, int | None]:
    """Return what proves the PIN to the device, if there is one."""

    if pin is None:
        return None, None

    protocol, token = _pin_token(ctap, pin, permission, application)

    return protocol.authenticate(token, challenge), protocol.VERSION


def _sign_ctap1(device: Any, digest: bytes, application: str, key_handle: bytes) -> DeviceSignature | None:
    """Sign with a U2F device; None if it doesn't hold the key."""

    from fido2.ctap1 import APDU, ApduError, Ctap1

    ctap = Ctap1(device)
    app_digest = hashlib.sha256(application.encode()).digest()

    try:
        ctap.authenticate(digest, app_digest, key_handle, check_only=True)
    except ApduError as exc:
        # The answer of a device that holds the key: it would need a touch.
        if exc.code != APDU.USE_NOT_SATISFIED:
            return None

    for _ in range(_TOUCH_POLLS):
        try:
            answer = ctap.authenticate(digest, app_digest, key_handle)
        except ApduError as exc:
            if exc.code != APDU.USE_NOT_SATISFIED:
                raise DeviceError(f'The security key refused: {exc!r}') from exc

            threading.Event().wait(_TOUCH_POLL_SECONDS)
        else:
            return DeviceSignature(_blob(_ECDSA, answer.signature), answer.user_presence, answer.counter)

    raise DeviceError('The security key was not touched')


# --- the encodings of FIDO and those of SSH


def _public(cose_key: Any) -> bytes:
    """Return the key of a COSE structure: 32 bytes of Ed25519, or the point of P-256."""

    x = bytes(cose_key[_COSE_X])

    if _COSE_Y not in cose_key:
        return x

    return b'\4' + x.rjust(_COORDINATE_SIZE, b'\0') + bytes(cose_key[_COSE_Y]).rjust(_COORDINATE_SIZE, b'\0')


def _blob(algorithm: bytes, signature: bytes) -> bytes:
    """Return a signature in the encoding of SSH: mpint r, mpint s of ECDSA's DER, Ed25519's as it is."""

    if algorithm != _ECDSA:
        return bytes(signature)

    r, s = decode_dss_signature(bytes(signature))

    return encode_mpint(r) + encode_mpint(s)
