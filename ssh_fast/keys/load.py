"""Reading keys from bytes, files and the user's defaults, in whichever format they are.

Parsed key files are remembered while they stay unchanged: parsing and, above all, the bcrypt KDF are slow.
"""

import hashlib
import hmac
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import TypeAlias, TypeGuard, cast

from ..errors import KeyEncryptionError, KeyImportError
from ..logging import logger, printable
from . import openssh_format, pem_format, rfc4716
from .file_cache import FileCache, read_bounded
from .key import SSHKey, copy_key, decode_private_key, decode_public_key, key_from_pyca
from .keypair import SSHKeyPair, SSHLocalKeyPair
from .rsa import RSAKey, set_default_skip_rsa_key_validation

__all__ = [
    'KeyPairItem',
    'KeyPairList',
    'import_private_key',
    'import_public_key',
    'load_default_keypairs',
    'load_keypairs',
    'load_public_keys',
    'read_private_key',
    'read_private_key_list',
    'read_public_key',
    'read_public_key_list',
    'set_default_skip_rsa_key_validation',
]

_Path: TypeAlias = str | PurePath
_PassphraseValue: TypeAlias = bytes | str | None
_Passphrase: TypeAlias = _PassphraseValue | Callable[[str], _PassphraseValue]
KeyPairItem: TypeAlias = SSHKeyPair | SSHKey | bytes | _Path | tuple['SSHKey | bytes | _Path', None]
KeyPairList: TypeAlias = KeyPairItem | Sequence[KeyPairItem]

# OpenSSH's MAX_KEY_FILE_SIZE
_MAX_FILE_SIZE = 1 << 20

# In the order in which they are offered to a server
_DEFAULT_KEY_FILES = ('id_ed25519', 'id_ecdsa', 'id_rsa')

_PEM_BLOCK = re.compile(
    rb'^-----BEGIN ([A-Z0-9 ]{1,64})-----[ \t\r]*\n(.*?)^-----END \1-----[ \t\r]*$', re.MULTILINE | re.DOTALL
)
_RFC4716_BLOCK = re.compile(
    rb'^---- BEGIN SSH2 PUBLIC KEY ----[ \t\r]*\n.*?^---- END SSH2 PUBLIC KEY ----[ \t\r]*$', re.MULTILINE | re.DOTALL
)

_private_cache: FileCache[list[SSHKey]] = FileCache(256)
_public_cache: FileCache[list[SSHKey]] = FileCache(256)
_cache_secret = os.urandom(32)


# --- from bytes


def import_private_key(
    data: bytes | str, passphrase: _PassphraseValue = None, unsafe_skip_rsa_key_validation: bool | None = None
) -> SSHKey:
    """Import a private key: OpenSSH, or PKCS#1, SEC1 or PKCS#8 as PEM or DER.

    A missing passphrase raises `KeyImportError`, a wrong one `KeyEncryptionError`.
    """

    keys = _private_keys(_as_bytes(data), passphrase, unsafe_skip_rsa_key_validation)

    if not keys:
        raise KeyImportError('Expected a private key, found none')

    return keys[0]


def import_public_key(data: bytes | str) -> SSHKey:
    """Import a public key: OpenSSH's line, RFC 4716, or PKCS#1 or SubjectPublicKeyInfo as PEM or DER."""

    keys = _public_keys(_as_bytes(data))

    if not keys:
        raise KeyImportError('Expected a public key, found none')

    return keys[0]


def _as_bytes(data: bytes | str) -> bytes:
    if isinstance(data, str):
        try:
            data = data.encode()
        except UnicodeEncodeError:
            raise KeyImportError('Expected key data that is text, got lone surrogates') from None

    if len(data) > _MAX_FILE_SIZE:
        raise KeyImportError(f'Expected key data of at most {_MAX_FILE_SIZE} bytes, got {len(data)}')

    return data


def _private_keys(data: bytes, passphrase: _PassphraseValue, skip_validation: bool | None) -> list[SSHKey]:
    """Decode every private key of a file."""

    if isinstance(passphrase, str):
        passphrase = passphrase.encode()

    if data[:1] == b'\x30':
        return [_private_from_pem(data, passphrase, skip_validation)]

    keys = []

    for block in _PEM_BLOCK.finditer(data):
        label, body = block[1], block[2]

        if label == b'OPENSSH PRIVATE KEY':
            keys.append(_private_from_openssh(body, passphrase, skip_validation))
        elif label.endswith(b'PRIVATE KEY'):
            keys.append(_private_from_pem(block[0] + b'\n', passphrase, skip_validation))

    return keys


def _private_from_pem(data: bytes, passphrase: bytes | None, skip_validation: bool | None) -> SSHKey:
    return _validated(key_from_pyca(pem_format.decode_private(data, passphrase)), skip_validation)


def _private_from_openssh(body: bytes, passphrase: bytes | None, skip_validation: bool | None) -> SSHKey:
    file = openssh_format.decode_private_file(openssh_format.decode_base64(b''.join(body.split())))
    cursor = openssh_format.open_private_file(file, passphrase)
    key = decode_private_key(cursor)
    comment = openssh_format.close_private_file(cursor)

    if key.public_data != file.public_data:
        raise KeyImportError('The public key of the OpenSSH private key does not belong to its private part')

    key.set_comment(comment)

    return _validated(key, skip_validation)


def _validated(key: SSHKey, skip_validation: bool | None) -> SSHKey:
    if isinstance(key, RSAKey):
        key.validate_private(skip_validation)

    return key


def _public_keys(data: bytes) -> list[SSHKey]:
    """Decode every public key of a file, which is of one format throughout."""

    if data[:1] == b'\x30':
        return [key_from_pyca(pem_format.decode_public(data))]

    if b'-----BEGIN ' in data:
        return [
            key_from_pyca(pem_format.decode_public(block[0] + b'\n'))
            for block in _PEM_BLOCK.finditer(data)
            if block[1].endswith(b'PUBLIC KEY')
        ]

    if b'---- BEGIN SSH2 PUBLIC KEY' in data:
        return [_public_from_rfc4716(block[0]) for block in _RFC4716_BLOCK.finditer(data)]

    keys = []

    for line in data.decode(errors='surrogateescape').split('\n'):
        if line.strip() and not line.lstrip().startswith('#'):
            fields = openssh_format.decode_public_line(line)
            key = decode_public_key(fields.public_data)
            key.set_comment(fields.comment)
            keys.append(key)

    return keys


def _public_from_rfc4716(data: bytes) -> SSHKey:
    public_data, comment = rfc4716.decode_rfc4716(data.decode(errors='surrogateescape'))
    key = decode_public_key(public_data)
    key.set_comment(comment)

    return key


# --- from files


def read_private_key(
    filename: _Path, passphrase: _Passphrase = None, unsafe_skip_rsa_key_validation: bool | None = None
) -> SSHKey:
    """Read a private key from a file; errors name it. A passphrase that is a callable is given the file's name."""

    return _one(read_private_key_list(filename, passphrase, unsafe_skip_rsa_key_validation), filename, 'private')


def read_public_key(filename: _Path) -> SSHKey:
    """Read a public key from a file; errors name it."""

    return _one(read_public_key_list(filename), filename, 'public')


def read_private_key_list(
    filename: _Path, passphrase: _Passphrase = None, unsafe_skip_rsa_key_validation: bool | None = None
) -> Sequence[SSHKey]:
    """Read all private keys of a file."""

    path = os.path.abspath(filename)

    if callable(passphrase):
        # Not asked for a file that needs none
        passphrase = passphrase(os.fspath(filename)) if _needs_passphrase(path) else None

        if passphrase is not None and not isinstance(passphrase, bytes | str):
            raise TypeError(f'{path}: expected a passphrase of type str or bytes, got {type(passphrase).__name__}')

    # The passphrase itself is not kept.
    secret = passphrase.encode() if isinstance(passphrase, str) else passphrase
    mark = hmac.digest(_cache_secret, secret, hashlib.sha256) if secret is not None else None
    keys = _private_cache.get(path, (mark, unsafe_skip_rsa_key_validation), os.stat(path))

    if keys is None:
        data, status = _read(path)

        try:
            keys = _private_keys(data, secret, unsafe_skip_rsa_key_validation)
        except (KeyImportError, KeyEncryptionError) as exc:
            raise type(exc)(f'{path}: {exc}') from None

        _private_cache.put(path, (mark, unsafe_skip_rsa_key_validation), status, keys)

    return _named(keys, filename)


def read_public_key_list(filename: _Path) -> Sequence[SSHKey]:
    """Read all public keys of a file."""

    path = os.path.abspath(filename)
    keys = _public_cache.get(path, None, os.stat(path))

    if keys is None:
        data, status = _read(path)

        try:
            keys = _public_keys(data)
        except KeyImportError as exc:
            raise type(exc)(f'{path}: {exc}') from None

        _public_cache.put(path, None, status, keys)

    return _named(keys, filename)


def _read(path: str) -> tuple[bytes, os.stat_result]:
    try:
        return read_bounded(path, _MAX_FILE_SIZE)
    except ValueError as exc:
        raise KeyImportError(str(exc)) from None


def _named(keys: Sequence[SSHKey], filename: _Path) -> list[SSHKey]:
    """Copy remembered keys, since a caller may change their comment."""

    copies = [copy_key(key) for key in keys]

    for key in copies:
        key.set_filename(filename)

    return copies


def _one(keys: Sequence[SSHKey], filename: _Path, kind: str) -> SSHKey:
    if not keys:
        raise KeyImportError(f'{os.path.abspath(filename)}: expected a {kind} key, found none')

    return keys[0]


def _needs_passphrase(path: str) -> bool:
    """Tell whether a key file is encrypted."""

    data, _ = _read(path)

    for block in _PEM_BLOCK.finditer(data):
        label, body = block[1], block[2]

        if label == b'OPENSSH PRIVATE KEY':
            try:
                if openssh_format.decode_private_file(
                    openssh_format.decode_base64(b''.join(body.split()))
                ).is_encrypted:
                    return True
            except (KeyImportError, KeyEncryptionError):
                continue
        elif label == b'ENCRYPTED PRIVATE KEY' or b'Proc-Type: 4,ENCRYPTED' in body:
            return True

    return data[:1] == b'\x30' and pem_format.is_encrypted(data)


# --- what options take


def load_keypairs(
    keylist: KeyPairList,
    passphrase: _Passphrase = None,
    certlist: Sequence[object] = (),
    skip_public: bool = False,
    ignore_encrypted: bool = False,
    unsafe_skip_rsa_key_validation: bool | None = None,
) -> Sequence[SSHKeyPair]:
    """Load key pairs from one or more key files, keys, key pairs or private keys as bytes.

    A single path may hold several keys. `skip_public` passes over public keys, `ignore_encrypted` over files whose
    passphrase is missing or wrong; both raise otherwise.
    """

    if certlist:
        raise KeyImportError('Certificates are not supported here: expected an empty certlist')

    items: list[KeyPairItem] = []

    if isinstance(keylist, str | PurePath):
        try:
            items.extend(read_private_key_list(keylist, passphrase, unsafe_skip_rsa_key_validation))
        except (KeyImportError, KeyEncryptionError):
            if not (ignore_encrypted and _needs_passphrase(os.path.abspath(keylist))):
                raise

            return []

        if not items and not skip_public:
            raise KeyImportError(f'{os.path.abspath(keylist)}: expected a private key, found none')
    elif isinstance(keylist, bytes | SSHKey | SSHKeyPair) or _is_key_alone(keylist):
        items.append(keylist)
    else:
        items.extend(cast(Sequence[KeyPairItem], keylist))

    pairs = (
        _load_keypair(item, passphrase, skip_public, ignore_encrypted, unsafe_skip_rsa_key_validation) for item in items
    )

    return [pair for pair in pairs if pair is not None]


def _is_key_alone(item: KeyPairList) -> TypeGuard[tuple[SSHKey | bytes | _Path, None]]:
    """Tell the pair (key, no certificate) from a list of keys."""

    return isinstance(item, tuple) and len(item) == 2 and item[1] is None


def _load_keypair(
    item: KeyPairItem,
    passphrase: _Passphrase,
    skip_public: bool,
    ignore_encrypted: bool,
    skip_validation: bool | None,
) -> SSHKeyPair | None:
    """Load one key pair; None if it is one to pass over."""

    if isinstance(item, tuple):
        if not _is_key_alone(item):
            raise KeyImportError('Certificates are not supported here: expected (key, None) or a key alone')

        item = item[0]

    if isinstance(item, SSHKeyPair):
        return item

    if isinstance(item, SSHKey):
        key = item
    elif isinstance(item, bytes):
        key = import_private_key(item, passphrase('') if callable(passphrase) else passphrase, skip_validation)
    else:
        try:
            key = read_private_key(item, passphrase, skip_validation)
        except (KeyImportError, KeyEncryptionError):
            if ignore_encrypted and _needs_passphrase(os.path.abspath(item)):
                return None

            raise

    if not key.is_private and skip_public:
        return None

    return SSHLocalKeyPair(key)


def load_default_keypairs(
    passphrase: _Passphrase = None, certlist: Sequence[object] = (), directory: _Path | None = None
) -> Sequence[SSHKeyPair]:
    """Load the user's keys, id_ed25519, id_ecdsa and id_rsa of ~/.ssh; what cannot be read is logged and left out."""

    pairs: list[SSHKeyPair] = []
    folder = Path.home() / '.ssh' if directory is None else Path(directory)

    for name in _DEFAULT_KEY_FILES:
        path = folder / name

        try:
            if path.exists():
                pairs.extend(load_keypairs([path], passphrase, certlist))
        except (OSError, KeyImportError, KeyEncryptionError) as exc:
            logger.info('The default key %s is left out: %s', path, printable(str(exc)))

    return pairs


def load_public_keys(keylist: _Path | Sequence[bytes | _Path | SSHKey]) -> Sequence[SSHKey]:
    """Load public keys from one file, or from a list of files, keys, and public keys as bytes."""

    if isinstance(keylist, str | PurePath):
        return read_public_key_list(keylist)

    keys = []

    for item in keylist:
        if isinstance(item, SSHKey):
            keys.append(item)
        elif isinstance(item, bytes):
            keys.append(import_public_key(item))
        else:
            keys.append(read_public_key(item))

    return keys
