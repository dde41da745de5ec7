"""Keys of smart cards and other tokens, through PKCS#11 and the optional package `python-pkcs11`.

The private keys stay where they are: a token signs. Its calls block and take their time: they belong in a thread, and
follow each other in a session. A process has one session with each token, as its login is the process's.
"""

import hashlib
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ..errors import KeyImportError
from ..logging import logger, printable
from ..wire import encode_mpint, encode_string
from .key import SSHKey, key_from_pyca, verify_signature
from .keypair import SSHKeyPair

_MISSING = "Keys of tokens need the package python-pkcs11: install the extra, as in pip install 'ssh_fast[pkcs11]'"

# What a token hashes and pads by itself, or is given hashed
_RSA_MECHANISMS = {
    b'rsa-sha2-512': 'SHA512_RSA_PKCS',
    b'rsa-sha2-256': 'SHA256_RSA_PKCS',
    b'ssh-rsa': 'SHA1_RSA_PKCS',
}
_EC_HASHES = {
    b'ecdsa-sha2-nistp256': 'sha256',
    b'ecdsa-sha2-nistp384': 'sha384',
    b'ecdsa-sha2-nistp521': 'sha512',
}

# The objects that name a curve, in DER: an object identifier, or the name that PKCS#11 gives to a curve of Edwards
_CURVES: dict[bytes, ec.EllipticCurve] = {
    bytes.fromhex('06082a8648ce3d030107'): ec.SECP256R1(),
    bytes.fromhex('06052b81040022'): ec.SECP384R1(),
    bytes.fromhex('06052b81040023'): ec.SECP521R1(),
}
_ED25519 = (bytes.fromhex('06032b6570'), b'\x13\x0cedwards25519', bytes.fromhex('06092b06010401da470f01'))
_ED25519_SIZE = 32


class SSHPKCS11KeyPair(SSHKeyPair):
    """A key pair whose private key a token holds."""

    _key_type = 'pkcs11'
    use_executor = True

    def __init__(self, session: '_Session', private_key: Any, public_key: SSHKey, comment: str) -> None:
        super().__init__(public_key.algorithm, public_key.sig_algorithms, public_key.public_data, comment)
        self._session = session
        self._private_key = private_key
        self._public_key = public_key

    def sign(self, data: bytes) -> bytes:
        """Have the token sign data with the chosen algorithm; `ValueError` if it does not, or wrongly."""

        algorithm = self.sig_algorithm
        mechanism, message = _mechanism(algorithm, data)

        with self._session.use() as pkcs11:
            blob = bytes(self._private_key.sign(message, mechanism=getattr(pkcs11.Mechanism, mechanism)))

        if algorithm in _EC_HASHES:
            half = len(blob) // 2
            blob = b''.join(encode_mpint(int.from_bytes(part, 'big')) for part in (blob[:half], blob[half:]))

        signature = encode_string(algorithm) + encode_string(blob)

        if not verify_signature(self._public_key, data, signature, (algorithm,)):
            raise ValueError(f'The token did not make a valid {algorithm.decode()} signature')

        return signature


class _Session:
    """The session with a token, which lives as long as a key pair of it; one call at a time."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._lock = threading.Lock()

    def __del__(self) -> None:
        # The token may be gone.
        with suppress(Exception):
            self._session.close()

    @contextmanager
    def use(self) -> Iterator[Any]:
        """Keep other threads out, and turn errors of the token into ours; yield the package."""

        with self._lock, _typed('The token failed') as pkcs11:
            yield pkcs11

    def private_keys(self, label: str | None, key_id: bytes | None) -> Iterator[tuple[Any, SSHKey]]:
        """Find the keys that can sign for SSH, with their public keys."""

        with self.use() as pkcs11:
            wanted = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}

            if label is not None:
                wanted[pkcs11.Attribute.LABEL] = label

            if key_id is not None:
                wanted[pkcs11.Attribute.ID] = key_id

            # A search must end before the next begins.
            found = list(self._session.get_objects(wanted))
            keys = [(key, self._public_key(pkcs11, key)) for key in found]

        for key, public in keys:
            if public is not None:
                yield key, public

    def _public_key(self, pkcs11: Any, key: Any) -> SSHKey | None:
        """Make the public key of a private one; None, and a line in the log, if SSH has none like it."""

        try:
            if key.key_type == pkcs11.KeyType.RSA:
                modulus, exponent = key[pkcs11.Attribute.MODULUS], key[pkcs11.Attribute.PUBLIC_EXPONENT]
                numbers = rsa.RSAPublicNumbers(int.from_bytes(exponent, 'big'), int.from_bytes(modulus, 'big'))

                return key_from_pyca(numbers.public_key())

            # The point stands in the public key, which has the same identifier.
            wanted = {
                pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY,
                pkcs11.Attribute.KEY_TYPE: key.key_type,
                pkcs11.Attribute.ID: key.id,
            }
            public = next(iter(list(self._session.get_objects(wanted))), None)

            if public is None:
                raise KeyImportError('its public key is not on the token')

            return _decode_point(bytes(public[pkcs11.Attribute.EC_PARAMS]), bytes(public[pkcs11.Attribute.EC_POINT]))
        except (pkcs11.PKCS11Error, ValueError) as exc:
            logger.info('A key of a token is left out: %s', printable(str(exc) or type(exc).__name__))

            return None


_sessions: weakref.WeakValueDictionary[tuple[str, bytes, str], _Session] = weakref.WeakValueDictionary()
_sessions_lock = threading.Lock()


def load_pkcs11_keys(
    provider: str,
    pin: str | None = None,
    *,
    load_certs: bool = True,
    token_label: str | None = None,
    token_serial: bytes | str | None = None,
    key_label: str | None = None,
    key_id: bytes | str | None = None,
) -> Sequence[SSHPKCS11KeyPair]:
    """Load the key pairs of all tokens of a PKCS#11 provider (the path of a library), or of those of a label or serial.

    `token_serial` as text, and `key_id` in hex, may be given as bytes too. The X.509 certificates of a token are not
    loaded, whatever `load_certs` says. Needs the extra `pkcs11`; `KeyImportError` says what failed.
    """

    serial = token_serial.encode() if isinstance(token_serial, str) else token_serial

    try:
        identifier = bytes.fromhex(key_id) if isinstance(key_id, str) else key_id
    except ValueError:
        raise ValueError(f'key_id: expected hex, got {key_id!r}') from None

    pairs: list[SSHPKCS11KeyPair] = []

    with _typed(f'The PKCS#11 provider {provider} failed') as pkcs11:
        for token in list(pkcs11.lib(provider).get_tokens(token_label=token_label, token_serial=serial)):
            if not token.flags & pkcs11.TokenFlag.TOKEN_INITIALIZED:
                continue

            session = _open_session(provider, token, pin)

            for key, public in session.private_keys(key_label, identifier):
                comment = f'{token.label.strip()}: {key.label or key.id.hex()}'
                pairs.append(SSHPKCS11KeyPair(session, key, public, comment))

    return pairs


def _open_session(provider: str, token: Any, pin: str | None) -> _Session:
    """Log in to a token; a session that there is serves again, whose PIN was right."""

    name = provider, bytes(token.serial), str(token.label)

    with _sessions_lock:
        session = _sessions.get(name)

        if session is None:
            session = _sessions[name] = _Session(token.open(user_pin=pin))

        return session


def _mechanism(algorithm: bytes, data: bytes) -> tuple[str, bytes]:
    """Return the name of the mechanism of a signature algorithm, and what the token is given to sign."""

    if algorithm in _RSA_MECHANISMS:
        return _RSA_MECHANISMS[algorithm], data

    if algorithm in _EC_HASHES:
        return 'ECDSA', hashlib.new(_EC_HASHES[algorithm], data).digest()

    return 'EDDSA', data


def _decode_point(parameters: bytes, point: bytes) -> SSHKey:
    """Make a public key of its curve and its point, which is in a DER OCTET STRING, or is bare on older tokens."""

    if parameters in _ED25519:
        return key_from_pyca(ed25519.Ed25519PublicKey.from_public_bytes(point[-_ED25519_SIZE:]))

    if parameters not in _CURVES:
        raise KeyImportError('its curve is not known')

    curve = _CURVES[parameters]
    size = 1 + 2 * ((curve.key_size + 7) // 8)

    return key_from_pyca(ec.EllipticCurvePublicKey.from_encoded_point(curve, point[-size:]))


@contextmanager
def _typed(text: str) -> Iterator[Any]:
    """Turn what the package raises into an error of ours; yield the package."""

    try:
        import pkcs11
    except ImportError:
        raise KeyImportError(_MISSING) from None

    try:
        yield pkcs11
    except (pkcs11.PKCS11Error, OSError) as exc:
        raise KeyImportError(f'{text}: {printable(str(exc)) or type(exc).__name__}') from exc
