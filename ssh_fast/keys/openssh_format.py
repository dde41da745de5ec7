"""OpenSSH's own key formats: the private key file (PROTOCOL.key) and the one-line public key.

"openssh-key-v1" NUL | string cipher | string kdf | string kdf options | uint32 1 | string public key blob
| string sealed: uint32 check | uint32 check | private key | string comment | bytes 1, 2, 3 ... | tag of an AEAD
"""

import base64
import binascii
import os
import re
import warnings
from typing import NamedTuple

import bcrypt
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.poly1305 import Poly1305

from ..errors import KeyEncryptionError, KeyExportError, KeyImportError, PacketDecodeError
from ..logging import printable
from ..wire import Cursor, encode_string, encode_uint32
from .certificate_names import X509_PREFIX

_MAGIC = b'openssh-key-v1\0'
_SALT_SIZE = 16

# A round costs about 9 ms: 2048 of them are far beyond what is in use (ssh-keygen: 16 to 24, asyncssh: 128), yet end.
_MAX_ROUNDS = 2048
_MAX_SALT_SIZE = 1024


class _FileCipher(NamedTuple):
    """A row of the table of key file ciphers: sizes in bytes."""

    key_size: int
    iv_size: int
    block_size: int
    tag_size: int
    mode: str


_CIPHERS = {
    'aes128-cbc': _FileCipher(16, 16, 16, 0, 'cbc'),
    'aes192-cbc': _FileCipher(24, 16, 16, 0, 'cbc'),
    'aes256-cbc': _FileCipher(32, 16, 16, 0, 'cbc'),
    'aes128-ctr': _FileCipher(16, 16, 16, 0, 'ctr'),
    'aes192-ctr': _FileCipher(24, 16, 16, 0, 'ctr'),
    'aes256-ctr': _FileCipher(32, 16, 16, 0, 'ctr'),
    'aes128-gcm@openssh.com': _FileCipher(16, 12, 16, 16, 'gcm'),
    'aes256-gcm@openssh.com': _FileCipher(32, 12, 16, 16, 'gcm'),
    'chacha20-poly1305@openssh.com': _FileCipher(64, 0, 8, 16, 'chacha'),
}


# --- private keys


class PrivateFile(NamedTuple):
    """A private key file, still sealed: what can be told without the passphrase."""

    cipher: str
    kdf: bytes
    kdf_options: bytes
    public_data: bytes
    sealed: bytes
    tag: bytes

    @property
    def is_encrypted(self) -> bool:
        """Whether a passphrase is needed."""

        return self.cipher != 'none'


def decode_private_file(data: bytes) -> PrivateFile:
    """Take the outer layer of a private key file apart (the base64 is already decoded)."""

    if not data.startswith(_MAGIC):
        raise KeyImportError('Expected an OpenSSH private key that begins with openssh-key-v1')

    cursor = Cursor(data[len(_MAGIC) :])

    try:
        cipher = cursor.text()
        kdf = cursor.string()
        kdf_options = cursor.string()
        count = cursor.uint32()

        if count != 1:
            raise KeyImportError(f'Expected one key in an OpenSSH private key, got {count}')

        public_data = cursor.string()
        sealed = cursor.string()
        tag = cursor.rest()
    except PacketDecodeError as exc:
        raise KeyImportError(f'Malformed OpenSSH private key: {exc.reason}') from None

    row = _CIPHERS.get(cipher)

    if cipher != 'none' and row is None:
        raise KeyEncryptionError(f'Unknown cipher {printable(cipher, 64)!r} of an OpenSSH private key')

    if kdf != (b'bcrypt' if row else b'none'):
        raise KeyEncryptionError(f'Unknown KDF {printable(kdf.decode(errors="replace"), 64)!r} for the cipher {cipher}')

    if len(tag) != (row.tag_size if row else 0) or not sealed or len(sealed) % (row.block_size if row else 8):
        raise KeyImportError(
            f'The size of the OpenSSH private key does not fit its cipher {cipher}: {len(sealed)} and {len(tag)} bytes'
        )

    return PrivateFile(cipher, kdf, kdf_options, public_data, sealed, tag)


def open_private_file(file: PrivateFile, passphrase: bytes | None) -> Cursor:
    """Decrypt a private key file; the cursor returned stands before the private key.

    A wrong passphrase raises `KeyEncryptionError`, a missing one `KeyImportError`.
    """

    if file.is_encrypted:
        if passphrase is None:
            raise KeyImportError('Passphrase must be specified to import encrypted private keys')

        plain = _open(file, passphrase)
    else:
        plain = file.sealed

    cursor = Cursor(plain)

    try:
        checks = cursor.uint32(), cursor.uint32()
    except PacketDecodeError as exc:
        raise KeyImportError(f'Malformed OpenSSH private key: {exc.reason}') from None

    if checks[0] != checks[1]:
        if file.is_encrypted:
            raise KeyEncryptionError('Incorrect passphrase')

        raise KeyImportError('The check numbers of the OpenSSH private key differ')

    return cursor


def close_private_file(cursor: Cursor) -> bytes:
    """Decode the comment behind the private key, and check the padding; return the comment."""

    try:
        comment = cursor.string()
    except PacketDecodeError as exc:
        raise KeyImportError(f'Malformed OpenSSH private key: {exc.reason}') from None

    padding = cursor.rest()

    if padding != bytes(range(1, len(padding) + 1))[:15] or len(padding) > 15:
        raise KeyImportError('The padding of the OpenSSH private key is not 1, 2, 3 ...')

    return comment


def encode_private(
    public_data: bytes,
    private_data: bytes,
    comment: bytes,
    passphrase: bytes | None,
    cipher_name: str,
    rounds: int,
    ignore_few_rounds: bool,
) -> bytes:
    """Make a private key file in PEM armour, encrypted if there is a passphrase."""

    check = os.urandom(4)
    plain = check + check + private_data + encode_string(comment)

    if passphrase is None:
        cipher_name, kdf, kdf_options, block_size = 'none', b'none', b'', 8
    else:
        if cipher_name not in _CIPHERS:
            raise KeyEncryptionError(f'Unknown cipher {cipher_name!r}, expected one of {", ".join(_CIPHERS)}')

        if not 1 <= rounds <= _MAX_ROUNDS:
            raise KeyEncryptionError(f'Expected 1 to {_MAX_ROUNDS} KDF rounds, got {rounds}')

        if not passphrase:
            raise KeyExportError('Expected a passphrase of at least one character, got an empty one')

        kdf = b'bcrypt'
        kdf_options = encode_string(os.urandom(_SALT_SIZE)) + encode_uint32(rounds)
        block_size = _CIPHERS[cipher_name].block_size

        if rounds < 50 and not ignore_few_rounds:
            warnings.warn(f'{rounds} rounds of the bcrypt KDF are few: 50 and more are advised', stacklevel=3)

    plain += bytes(range(1, 1 + -len(plain) % block_size))

    if passphrase is None:
        sealed, tag = plain, b''
    else:
        sealed, tag = _seal(cipher_name, kdf_options, passphrase, plain)

    data = (
        _MAGIC
        + encode_string(cipher_name)
        + encode_string(kdf)
        + encode_string(kdf_options)
        + encode_uint32(1)
        + encode_string(public_data)
        + encode_string(sealed)
        + tag
    )

    return (
        b'-----BEGIN OPENSSH PRIVATE KEY-----\n'
        + wrap_lines(base64.b64encode(data), 70)
        + b'-----END OPENSSH PRIVATE KEY-----\n'
    )


def _derive(row: _FileCipher, kdf_options: bytes, passphrase: bytes) -> tuple[bytes, bytes]:
    """Derive the cipher's key and IV from the passphrase."""

    cursor = Cursor(kdf_options)

    try:
        salt = cursor.string()
        rounds = cursor.uint32()
        cursor.check_end()
    except PacketDecodeError as exc:
        raise KeyImportError(f'Malformed KDF options of the OpenSSH private key: {exc.reason}') from None

    if not 1 <= rounds <= _MAX_ROUNDS:
        raise KeyEncryptionError(f'Expected 1 to {_MAX_ROUNDS} KDF rounds, got {rounds}')

    if not 1 <= len(salt) <= _MAX_SALT_SIZE:
        raise KeyEncryptionError(f'Expected a salt of 1 to {_MAX_SALT_SIZE} bytes, got {len(salt)}')

    if not passphrase:
        raise KeyEncryptionError('Incorrect passphrase: it is empty')

    secret = bcrypt.kdf(passphrase, salt, row.key_size + row.iv_size, rounds, ignore_few_rounds=True)

    return secret[: row.key_size], secret[row.key_size :]


def _seal(cipher_name: str, kdf_options: bytes, passphrase: bytes, plain: bytes) -> tuple[bytes, bytes]:
    """Encrypt the inner layer; return it and the tag."""

    row = _CIPHERS[cipher_name]
    key, iv = _derive(row, kdf_options, passphrase)

    if row.mode == 'gcm':
        sealed = AESGCM(key).encrypt(iv, plain, None)

        return sealed[:-16], sealed[-16:]

    if row.mode == 'chacha':
        sealed = _chacha(key, 1, plain)

        return sealed, Poly1305.generate_tag(_chacha(key, 0, bytes(32)), sealed)

    encryptor = _block_cipher(row, key, iv).encryptor()

    return encryptor.update(plain) + encryptor.finalize(), b''


def _open(file: PrivateFile, passphrase: bytes) -> bytes:
    """Decrypt the inner layer."""

    row = _CIPHERS[file.cipher]
    key, iv = _derive(row, file.kdf_options, passphrase)

    try:
        if row.mode == 'gcm':
            return AESGCM(key).decrypt(iv, file.sealed + file.tag, None)

        if row.mode == 'chacha':
            Poly1305.verify_tag(_chacha(key, 0, bytes(32)), file.sealed, file.tag)

            return _chacha(key, 1, file.sealed)
    except (InvalidTag, InvalidSignature):
        raise KeyEncryptionError('Incorrect passphrase') from None

    decryptor = _block_cipher(row, key, iv).decryptor()

    return decryptor.update(file.sealed) + decryptor.finalize()


def _block_cipher(row: _FileCipher, key: bytes, iv: bytes) -> Cipher[modes.CTR | modes.CBC]:
    return Cipher(algorithms.AES(key), modes.CTR(iv) if row.mode == 'ctr' else modes.CBC(iv))


def _chacha(key: bytes, counter: int, data: bytes) -> bytes:
    """ChaCha20 as chacha20-poly1305@openssh.com uses it, for sequence number 0 and with the payload's key."""

    nonce = counter.to_bytes(8, 'little') + bytes(8)

    return Cipher(algorithms.ChaCha20(key[:32], nonce), None).encryptor().update(data)


# --- public keys


class PublicLine(NamedTuple):
    """A public key on one line: options (authorized_keys only), algorithm name, blob, comment."""

    options: str
    algorithm: bytes
    public_data: bytes
    comment: bytes | None


_ALGORITHM_NAME = re.compile(r'(ssh|ecdsa|sk|rsa|webauthn|x509v3)-[!-~]+')


def decode_public_line(line: str) -> PublicLine:
    """Take a line apart: options, algorithm name, base64 blob, comment; the blob must begin with the same name.

    That of an X.509 certificate is DER, which has no name.
    """

    options, rest = '', line.strip()

    if not _ALGORITHM_NAME.fullmatch(rest.split(None, 1)[0] if rest else ''):
        end = _options_end(rest)
        options, rest = rest[:end], rest[end:].lstrip()

    fields = rest.split(None, 2)

    if len(fields) < 2:
        raise KeyImportError('Expected an algorithm name and a key in base64')

    public_data = decode_base64(fields[1])
    algorithm = fields[0].encode(errors='replace')

    # On lines X.509 certificates stand without the encoding of SSH.
    if not public_data.startswith(encode_string(algorithm)) and not algorithm.startswith(X509_PREFIX):
        raise KeyImportError(f'The key in base64 is not of the type {printable(fields[0], 64)!r} named before it')

    # Comments are in any encoding: what is not UTF-8 was read as escapes.
    comment = fields[2].encode(errors='surrogateescape') if len(fields) == 3 else None

    return PublicLine(options, algorithm, public_data, comment)


def _options_end(line: str) -> int:
    """Find the blank that ends the options: the first outside of double quotes (sshd(8), AUTHORIZED_KEYS)."""

    quoted = False
    pos = 0

    while pos < len(line):
        char = line[pos]

        if char == '\\' and line[pos + 1 : pos + 2] == '"':
            pos += 1
        elif char == '"':
            quoted = not quoted
        elif char in ' \t' and not quoted:
            return pos

        pos += 1

    if quoted:
        raise KeyImportError('Expected a closing double quote in the options')

    return pos


def encode_public_line(public_data: bytes, algorithm: bytes, comment: bytes | None) -> bytes:
    """Make the one-line form of a public key, with its line end."""

    line = algorithm + b' ' + base64.b64encode(public_data)

    return (line + b' ' + comment if comment else line) + b'\n'


# --- base64


def decode_base64(text: str | bytes) -> bytes:
    """Decode base64 that must be whole and hold nothing else."""

    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise KeyImportError('Expected base64') from None


def wrap_lines(data: bytes, width: int) -> bytes:
    """Cut base64 into lines."""

    return b''.join(data[pos : pos + width] + b'\n' for pos in range(0, len(data), width))
