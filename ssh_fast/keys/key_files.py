"""Reading keys from bytes and files, in whichever format they are.

Parsed key files are remembered while they stay unchanged: parsing and, above all, the bcrypt KDF are slow.
"""

import hashlib
import hmac
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import isawaitable, iscoroutine
from pathlib import PurePath
from typing import NamedTuple, TypeAlias

from ..errors import KeyEncryptionError, KeyImportError
from . import openssh_format, pem_format, rfc4716
from .file_cache import FileCache, read_bounded
from .key import SSHKey, copy_key, decode_private_key, decode_public_key, key_from_pyca
from .keypair import PassphraseValue
from .rsa import RSAKey

_Path: TypeAlias = str | PurePath
Passphrase: TypeAlias = PassphraseValue | Callable[[str], PassphraseValue | Awaitable[PassphraseValue]]

# OpenSSH's MAX_KEY_FILE_SIZE
_MAX_FILE_SIZE = 1 << 20

_PEM_MARK = re.compile(rb'^-----(BEGIN|END) ([A-Z0-9 ]{1,64})-----[ \t\r]*$', re.MULTILINE)
_RFC4716_MARK = re.compile(rb'^---- (BEGIN|END) (SSH2 PUBLIC KEY) ----[ \t\r]*$', re.MULTILINE)

_LINE_ENDS = bytes.maketrans(b'\r\n\0', b'   ')

_private_cache: FileCache[list[SSHKey]] = FileCache(256)
_public_cache: FileCache[list[SSHKey]] = FileCache(256)
_cache_secret = os.urandom(32)


# --- from bytes


def import_private_key(
    data: bytes | str, passphrase: PassphraseValue = None, unsafe_skip_rsa_key_validation: bool | None = None
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


class _Block(NamedTuple):
    """A part of a text between two marks: the label of the marks, what is between them, all of it, the first line."""

    label: bytes
    body: bytes
    whole: bytes
    line: int


def _blocks(data: bytes, mark: re.Pattern[bytes]) -> Iterator[_Block]:
    """Find the blocks of a text in one pass; a mark without its partner is passed over."""

    begin: re.Match[bytes] | None = None
    line = 1
    counted = 0

    for found in mark.finditer(data):
        if found[1] == b'BEGIN':
            begin = found
            line += data.count(b'\n', counted, found.start())
            counted = found.start()
        elif begin and found[2] == begin[2]:
            whole = data[begin.start() : found.end()] + b'\n'
            yield _Block(begin[2], data[begin.end() + 1 : found.start()], whole, line)
            begin = None


@contextmanager
def _placed(source: str, line: int) -> Iterator[None]:
    """Put file and line before the text of an error, where the key comes from a file."""

    try:
        yield
    except (KeyImportError, KeyEncryptionError) as exc:
        raise (type(exc)(f'{source}:{line}: {exc}') if source else exc) from None


def _private_keys(
    data: bytes, passphrase: PassphraseValue, skip_validation: bool | None, source: str = ''
) -> list[SSHKey]:
    """Decode every private key of a file."""

    if isinstance(passphrase, str):
        passphrase = passphrase.encode()

    if data[:1] == b'\x30':
        with _placed(source, 1):
            return [_private_from_pem(data, passphrase, skip_validation)]

    keys = []

    for block in _blocks(data, _PEM_MARK):
        with _placed(source, block.line):
            if block.label == b'OPENSSH PRIVATE KEY':
                keys.append(_private_from_openssh(block.body, passphrase, skip_validation))
            elif block.label.endswith(b'PRIVATE KEY'):
                keys.append(_private_from_pem(block.whole, passphrase, skip_validation))

    return keys


def _private_from_pem(data: bytes, passphrase: bytes | None, skip_validation: bool | None) -> SSHKey:
    return _validated(key_from_pyca(pem_format.decode_private(data, passphrase)), skip_validation)


def _sealed_file(body: bytes) -> openssh_format.PrivateFile:
    return openssh_format.decode_private_file(openssh_format.decode_base64(b''.join(body.split())))


def _private_from_openssh(body: bytes, passphrase: bytes | None, skip_validation: bool | None) -> SSHKey:
    file = _sealed_file(body)
    cursor = openssh_format.open_private_file(file, passphrase)
    key = decode_private_key(cursor)
    comment = openssh_format.close_private_file(cursor)

    if key.public_data != file.public_data:
        raise KeyImportError('The public key of the OpenSSH private key does not belong to its private part')

    key.set_comment(_on_one_line(comment))

    return _validated(key, skip_validation)


def _on_one_line(comment: bytes | None) -> bytes | None:
    """Make blanks of what would end the line that the comment is written on again."""

    return comment and comment.translate(_LINE_ENDS)


def _validated(key: SSHKey, skip_validation: bool | None) -> SSHKey:
    if isinstance(key, RSAKey):
        key.validate_private(skip_validation)

    return key


def _public_keys(data: bytes, source: str = '') -> list[SSHKey]:
    """Decode every public key of a file, which is of one format throughout."""

    if data[:1] == b'\x30':
        with _placed(source, 1):
            return [key_from_pyca(pem_format.decode_public(data))]

    keys = []

    if b'-----BEGIN ' in data:
        for block in _blocks(data, _PEM_MARK):
            if block.label.endswith(b'PUBLIC KEY'):
                with _placed(source, block.line):
                    keys.append(key_from_pyca(pem_format.decode_public(block.whole)))

        return keys

    if b'---- BEGIN SSH2 PUBLIC KEY' in data:
        for block in _blocks(data, _RFC4716_MARK):
            with _placed(source, block.line):
                keys.append(_public_from_rfc4716(block.whole))

        return keys

    for number, line in enumerate(data.decode(errors='surrogateescape').split('\n'), 1):
        if line.strip() and not line.lstrip().startswith('#'):
            with _placed(source, number):
                fields = openssh_format.decode_public_line(line)
                key = decode_public_key(fields.public_data)
                key.set_comment(_on_one_line(fields.comment))
                keys.append(key)

    return keys


def _public_from_rfc4716(data: bytes) -> SSHKey:
    public_data, comment = rfc4716.decode_rfc4716(data.decode(errors='surrogateescape'))
    key = decode_public_key(public_data)
    key.set_comment(_on_one_line(comment))

    return key


# --- from files


def read_private_key(
    filename: _Path, passphrase: Passphrase = None, unsafe_skip_rsa_key_validation: bool | None = None
) -> SSHKey:
    """Read a private key from a file; errors name it. A passphrase that is a callable is given the file's name."""

    return _one(read_private_key_list(filename, passphrase, unsafe_skip_rsa_key_validation), filename, 'private')


def read_public_key(filename: _Path) -> SSHKey:
    """Read a public key from a file; errors name it."""

    return _one(read_public_key_list(filename), filename, 'public')


def read_private_key_list(
    filename: _Path, passphrase: Passphrase = None, unsafe_skip_rsa_key_validation: bool | None = None
) -> Sequence[SSHKey]:
    """Read all private keys of a file."""

    path = os.path.abspath(filename)

    if callable(passphrase):
        # Not asked for a file that needs none
        passphrase = _plain_value(passphrase(os.fspath(filename)), path) if needs_passphrase(path) else None

    # The passphrase itself is not kept.
    secret = passphrase.encode() if isinstance(passphrase, str) else passphrase
    mark = hmac.digest(_cache_secret, secret, hashlib.sha256) if secret is not None else None
    keys = _private_cache.get(path, (mark, unsafe_skip_rsa_key_validation), os.stat(path))

    if keys is None:
        data, status = _read(path)

        keys = _private_keys(data, secret, unsafe_skip_rsa_key_validation, path)
        _private_cache.put(path, (mark, unsafe_skip_rsa_key_validation), status, keys)

    return _named(keys, filename)


def read_public_key_list(filename: _Path) -> Sequence[SSHKey]:
    """Read all public keys of a file."""

    path = os.path.abspath(filename)
    keys = _public_cache.get(path, None, os.stat(path))

    if keys is None:
        data, status = _read(path)

        keys = _public_keys(data, path)
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


def _plain_value(passphrase: object, path: str) -> PassphraseValue:
    """Check what a callable returned as the passphrase of a file whose key must be opened now."""

    if isinstance(passphrase, bytes | str | None):
        return passphrase

    if isawaitable(passphrase):
        if iscoroutine(passphrase):
            passphrase.close()

        raise KeyImportError(
            f'{path}: a coroutine can only be asked for the passphrase of a key whose public half is known: '
            f'expected an OpenSSH private key, or {path}.pub beside it'
        )

    raise TypeError(f'{path}: expected a passphrase of type str or bytes, got {type(passphrase).__name__}')


def needs_passphrase(path: str) -> bool:
    """Tell whether a key file is encrypted."""

    data, _ = _read(path)

    for block in _blocks(data, _PEM_MARK):
        if block.label == b'OPENSSH PRIVATE KEY':
            try:
                if _sealed_file(block.body).is_encrypted:
                    return True
            except (KeyImportError, KeyEncryptionError):
                continue
        elif block.label == b'ENCRYPTED PRIVATE KEY' or b'Proc-Type: 4,ENCRYPTED' in block.body:
            return True

    return data[:1] == b'\x30' and pem_format.is_encrypted(data)


def public_of_sealed(path: str) -> SSHKey | None:
    """Return the public key of a file with one encrypted private key, without its passphrase; None if it is not known.

    It stands in an OpenSSH private key; for the other formats it is that of the file `path` with .pub behind it.
    """

    if not needs_passphrase(path):
        return None

    blocks = list(_blocks(_read(path)[0], _PEM_MARK))

    if len(blocks) > 1:
        return None

    if blocks and blocks[0].label == b'OPENSSH PRIVATE KEY':
        with _placed(path, blocks[0].line):
            key = decode_public_key(_sealed_file(blocks[0].body).public_data)
    else:
        try:
            key = read_public_key(path + '.pub')
        except (OSError, KeyImportError):
            return None

    key.set_filename(path)

    return key
