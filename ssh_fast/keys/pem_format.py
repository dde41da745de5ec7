"""The PEM and DER key formats: traditional (PKCS#1, SEC1), PKCS#8 and SubjectPublicKeyInfo, through `cryptography`."""

import base64
import re
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from ..errors import KeyEncryptionError, KeyExportError, KeyImportError
from .openssh_format import decode_base64, wrap_lines
from .pem_encryption import encrypt_pkcs8, encrypt_traditional

_PRIVATE_FORMATS = {'pkcs1': PrivateFormat.TraditionalOpenSSL, 'pkcs8': PrivateFormat.PKCS8}
_PUBLIC_FORMATS = {'pkcs1': PublicFormat.PKCS1, 'pkcs8': PublicFormat.SubjectPublicKeyInfo}
_ENCODINGS = {'pem': Encoding.PEM, 'der': Encoding.DER}

# OpenSSL writes 2048, password managers up to 600000 (OWASP); two million take a second.
_MAX_KDF_ITERATIONS = 2_000_000

# scrypt's N * r * 128 bytes of memory: N = 2^17, r = 8
_MAX_SCRYPT_WORK = 1 << 20

# A private RSA key of 16384 bits takes 10 KiB, a DSA key of 1024 bits half a KiB: `cryptography` computes its public
# part, by arithmetic whose size the file chooses.
_MAX_SIZE = 16 << 10
_MAX_DSA_SIZE = 1 << 10
_MAX_PEM_SIZE = 2 * _MAX_SIZE

_OID_DSA = bytes.fromhex('06072a8648ce380401')
_OID_PBES2 = bytes.fromhex('2a864886f70d01050d')
_OID_SCRYPT = bytes.fromhex('2b06010401da47040b')
_DEK_INFO = re.compile(rb'^DEK-Info: ([A-Z0-9-]+),([0-9A-Fa-f]+)\r?$', re.MULTILINE)
_TRADITIONAL_IV_SIZES = {b'AES-128-CBC': 16, b'AES-256-CBC': 16, b'DES-EDE3-CBC': 8}
_TAG_INTEGER = 0x02
_TAG_SEQUENCE = 0x30


def decode_private(data: bytes, passphrase: bytes | None) -> Any:
    """Decode a private key in PEM or DER into a `cryptography` key, whose numbers are not checked.

    A wrong passphrase raises `KeyEncryptionError`, a missing one `KeyImportError`.
    """

    _check_size(data)
    pem = _is_pem(data)
    encrypted = is_encrypted(data)

    if encrypted and passphrase is None:
        raise KeyImportError('Passphrase must be specified to import encrypted private keys')

    load = load_pem_private_key if pem else load_der_private_key

    try:
        return load(data, passphrase if encrypted else None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError) as exc:
        if encrypted:
            raise KeyEncryptionError('Incorrect passphrase, or malformed encrypted private key') from None

        raise KeyImportError(f'Malformed private key: {_first_line(exc)}') from None
    except UnsupportedAlgorithm as exc:
        error = KeyEncryptionError if encrypted else KeyImportError

        raise error(f'Unknown algorithm in a private key: {_first_line(exc)}') from None


def decode_public(data: bytes) -> Any:
    """Decode a public key in PEM or DER into a `cryptography` key."""

    _check_size(data)
    load = load_pem_public_key if _is_pem(data) else load_der_public_key

    try:
        return load(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise KeyImportError(f'Malformed public key: {_first_line(exc)}') from None


def encode_private(
    pyca_key: Any, format_name: str, passphrase: bytes | None, cipher_name: str, hash_name: str, pbe_version: int
) -> bytes:
    """Encode a private key; `hash_name` and `pbe_version` are of PKCS#8 only, and so is an encrypted DER."""

    kind, encoding = _split_format(format_name)

    if passphrase is not None and not passphrase:
        raise KeyExportError('Expected a passphrase of at least one character, got an empty one')

    if passphrase is not None and format_name == 'pkcs1-der':
        raise KeyExportError('The format pkcs1-der cannot be encrypted')

    try:
        if passphrase is None:
            return bytes(pyca_key.private_bytes(encoding, _PRIVATE_FORMATS[kind], NoEncryption()))

        plain = bytes(pyca_key.private_bytes(Encoding.DER, _PRIVATE_FORMATS[kind], NoEncryption()))
    except ValueError as exc:
        raise KeyExportError(f'The key cannot be written as {format_name}: {_first_line(exc)}') from None

    if kind == 'pkcs1':
        kinds = {rsa.RSAPrivateKey: 'RSA', dsa.DSAPrivateKey: 'DSA', ec.EllipticCurvePrivateKey: 'EC'}
        label = next(name for made, name in kinds.items() if isinstance(pyca_key, made))

        return encrypt_traditional(plain, f'{label} PRIVATE KEY', passphrase, cipher_name)

    sealed = encrypt_pkcs8(plain, passphrase, cipher_name, hash_name, pbe_version)

    if encoding is Encoding.DER:
        return sealed

    return (
        b'-----BEGIN ENCRYPTED PRIVATE KEY-----\n'
        + wrap_lines(base64.b64encode(sealed), 64)
        + b'-----END ENCRYPTED PRIVATE KEY-----\n'
    )


def encode_public(pyca_key: Any, format_name: str) -> bytes:
    """Encode a public key."""

    kind, encoding = _split_format(format_name)

    try:
        return bytes(pyca_key.public_bytes(encoding, _PUBLIC_FORMATS[kind]))
    except ValueError as exc:
        raise KeyExportError(f'The key cannot be written as {format_name}: {_first_line(exc)}') from None


def _check_size(data: bytes) -> None:
    """Refuse what is longer than the keys that are accepted, before anything is computed with it."""

    limit = _MAX_PEM_SIZE if _is_pem(data) else _MAX_SIZE

    if len(data) > limit:
        raise KeyImportError(f'Expected a key of at most {limit} bytes, got {len(data)}')

    der = _body(data) if _is_pem(data) else data

    if (_OID_DSA in der or data.lstrip().startswith(b'-----BEGIN DSA ')) and len(der) > _MAX_DSA_SIZE:
        raise KeyImportError(f'Expected a DSA key of at most {_MAX_DSA_SIZE} bytes, got {len(der)}')


def _body(pem: bytes) -> bytes:
    """Decode what is between the marks of a PEM block, without its headers."""

    lines = [line.strip() for line in pem.splitlines()]

    return decode_base64(b''.join(line for line in lines if b':' not in line and not line.startswith(b'-----')))


def _is_pem(data: bytes) -> bool:
    return data.lstrip().startswith(b'-----BEGIN')


def _split_format(format_name: str) -> tuple[str, Encoding]:
    kind, _, encoding = format_name.partition('-')

    if kind not in _PRIVATE_FORMATS or encoding not in _ENCODINGS:
        raise KeyExportError(f'Unknown key format {format_name!r}')

    return kind, _ENCODINGS[encoding]


def _first_line(exc: Exception) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0]


# --- encrypted keys: told from plain ones, and their work bounded, before any KDF runs


def is_encrypted(data: bytes) -> bool:
    """Tell whether a private key needs a passphrase; a KDF that would run for too long raises `KeyEncryptionError`."""

    if not _is_pem(data):
        der = data
    elif b'-----BEGIN ENCRYPTED PRIVATE KEY-----' in data:
        body = data.partition(b'-----BEGIN ENCRYPTED PRIVATE KEY-----')[2].partition(b'-----END')[0]
        der = decode_base64(b''.join(body.split()))
    else:
        return _is_traditional_encrypted(data)

    try:
        key_info = _sequence(der)

        # EncryptedPrivateKeyInfo begins with an algorithm, every plain form with its version (RFC 5958).
        if key_info[0][0] != _TAG_SEQUENCE:
            return False

        _check_kdf(*_algorithm(key_info[0]))
    except (IndexError, ValueError) as exc:
        if isinstance(exc, KeyEncryptionError | KeyImportError):
            raise

        raise KeyImportError('Malformed private key: its DER structure is not valid') from None

    return True


def _is_traditional_encrypted(data: bytes) -> bool:
    """Tell whether a traditional PEM block is encrypted, and check its header (RFC 1421 section 4.6.1)."""

    if b'\nProc-Type: 4,ENCRYPTED' not in data:
        return False

    header = _DEK_INFO.search(data)

    # `cryptography` panics, which is no Exception, if the IV is shorter than the cipher's.
    if not header or len(header[2]) != 2 * _TRADITIONAL_IV_SIZES.get(header[1], 0):
        raise KeyEncryptionError('Unknown or malformed encryption of a private key: its DEK-Info is not valid')

    return True


def _check_kdf(oid: bytes, parameters: tuple[int, bytes]) -> None:
    """Refuse a key derivation that takes too long (RFC 8018 appendix A; scrypt: RFC 7914 section 7)."""

    if oid == _OID_PBES2:
        oid, parameters = _algorithm(_elements(parameters[1])[0])

    numbers = [int.from_bytes(value, 'big') for tag, value in _elements(parameters[1]) if tag == _TAG_INTEGER]

    if oid == _OID_SCRYPT:
        work = numbers[0] * numbers[1] * numbers[2]

        if work > _MAX_SCRYPT_WORK:
            raise KeyEncryptionError(f'Expected a scrypt work N * r * p of at most {_MAX_SCRYPT_WORK}, got {work}')
    elif numbers[0] > _MAX_KDF_ITERATIONS:
        raise KeyEncryptionError(f'Expected at most {_MAX_KDF_ITERATIONS} KDF iterations, got {numbers[0]}')


def _algorithm(element: tuple[int, bytes]) -> tuple[bytes, tuple[int, bytes]]:
    """Take an AlgorithmIdentifier apart: object identifier, parameters."""

    items = _elements(element[1])

    return items[0][1], items[1]


def _sequence(der: bytes) -> list[tuple[int, bytes]]:
    """Decode a DER value that must be one SEQUENCE, into its elements."""

    items = _elements(der)

    if len(items) != 1 or items[0][0] != _TAG_SEQUENCE:
        raise ValueError('Expected a DER sequence')

    return _elements(items[0][1])


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """Decode DER values one behind the other, into tag and content."""

    items: list[tuple[int, bytes]] = []
    pos = 0

    while pos < len(data):
        tag, size, pos = data[pos], data[pos + 1], pos + 2

        if size >= 0x80:
            count = size & 0x7F
            size = int.from_bytes(data[pos : pos + count], 'big')
            pos += count

        if pos + size > len(data):
            raise ValueError('A DER value is longer than what holds it')

        items.append((tag, data[pos : pos + size]))
        pos += size

    return items
