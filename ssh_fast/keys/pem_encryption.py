"""Encrypting private keys for PEM and DER: PBES2 of PKCS#8 (RFC 8018), and the header DEK-Info of traditional PEM.

EncryptedPrivateKeyInfo: SEQUENCE { SEQUENCE { PBES2, SEQUENCE { kdf, cipher } }, OCTET STRING sealed }
kdf: SEQUENCE { PBKDF2, SEQUENCE { OCTET STRING salt, INTEGER iterations, INTEGER key size, SEQUENCE { PRF, NULL } } }
cipher: SEQUENCE { its object identifier, OCTET STRING iv }
"""

import base64
import hashlib
import os
from typing import NamedTuple

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, Cipher, CipherAlgorithm, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.padding import PKCS7

from ..errors import KeyEncryptionError
from .openssh_format import wrap_lines

# Some 30 ms; the reader's limit is twenty times that.
_ITERATIONS = 100_000
_SALT_SIZE = 16

_OID_PBES2 = '06092a864886f70d01050d'
_OID_PBKDF2 = '06092a864886f70d01050c'
_PRF_PREFIX = '06082a864886f70d02'


class _PemCipher(NamedTuple):
    """A row of the table of ciphers: sizes in bytes, the object identifier in DER, the name in DEK-Info or none."""

    key_size: int
    block_size: int
    oid: str
    dek_name: str


_CIPHERS = {
    'aes128-cbc': _PemCipher(16, 16, '0609608648016503040102', 'AES-128-CBC'),
    'aes192-cbc': _PemCipher(24, 16, '0609608648016503040116', ''),
    'aes256-cbc': _PemCipher(32, 16, '060960864801650304012a', 'AES-256-CBC'),
    'des3-cbc': _PemCipher(24, 8, '06082a864886f70d0307', 'DES-EDE3-CBC'),
}

# The last byte of the object identifiers of HMAC with each hash (RFC 8018 appendix B.1)
_PRFS: dict[str, tuple[hashes.HashAlgorithm, str]] = {
    'sha1': (hashes.SHA1(), '07'),
    'sha224': (hashes.SHA224(), '08'),
    'sha256': (hashes.SHA256(), '09'),
    'sha384': (hashes.SHA384(), '0a'),
    'sha512': (hashes.SHA512(), '0b'),
}


def encrypt_pkcs8(der: bytes, passphrase: bytes, cipher_name: str, hash_name: str, pbe_version: int) -> bytes:
    """Encrypt a PrivateKeyInfo into an EncryptedPrivateKeyInfo, by PBES2."""

    if pbe_version != 2:
        raise KeyEncryptionError(f'Expected PBE version 2, got {pbe_version}: those of version 1 are no longer safe')

    if hash_name not in _PRFS:
        raise KeyEncryptionError(f'Unknown hash {hash_name!r}, expected one of {", ".join(_PRFS)}')

    row = _row(cipher_name, list(_CIPHERS))
    algorithm, prf = _PRFS[hash_name]
    salt, iv = os.urandom(_SALT_SIZE), os.urandom(row.block_size)
    key = PBKDF2HMAC(algorithm, row.key_size, salt, _ITERATIONS).derive(passphrase)

    parameters = _der(0x04, salt) + _integer(_ITERATIONS) + _integer(row.key_size)

    # DER leaves a default out.
    if hash_name != 'sha1':
        parameters += _der(0x30, bytes.fromhex(_PRF_PREFIX + prf + '0500'))

    kdf = _der(0x30, bytes.fromhex(_OID_PBKDF2) + _der(0x30, parameters))
    cipher = _der(0x30, bytes.fromhex(row.oid) + _der(0x04, iv))
    scheme = _der(0x30, bytes.fromhex(_OID_PBES2) + _der(0x30, kdf + cipher))

    return _der(0x30, scheme + _der(0x04, _encrypt(row, key, iv, der)))


def encrypt_traditional(der: bytes, label: str, passphrase: bytes, cipher_name: str) -> bytes:
    """Encrypt the content of a traditional PEM block, and return the block.

    The key is derived by one round of MD5, as OpenSSL does (RFC 1421 says nothing of it): PKCS#8 and OpenSSH's format
    withstand guessing better.
    """

    row = _row(cipher_name, [name for name, entry in _CIPHERS.items() if entry.dek_name])
    iv = os.urandom(row.block_size)
    key = b''

    while len(key) < row.key_size:
        key += hashlib.md5(key[-16:] + passphrase + iv[:8], usedforsecurity=False).digest()

    sealed = _encrypt(row, key[: row.key_size], iv, der)
    header = f'-----BEGIN {label}-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: {row.dek_name},{iv.hex().upper()}\n\n'

    return header.encode() + wrap_lines(base64.b64encode(sealed), 64) + f'-----END {label}-----\n'.encode()


def _row(cipher_name: str, names: list[str]) -> _PemCipher:
    if cipher_name not in names:
        raise KeyEncryptionError(f'Unknown cipher {cipher_name!r} for this format, expected one of {", ".join(names)}')

    return _CIPHERS[cipher_name]


def _encrypt(row: _PemCipher, key: bytes, iv: bytes, data: bytes) -> bytes:
    algorithm: CipherAlgorithm = AES(key) if row.block_size == 16 else TripleDES(key)
    assert isinstance(algorithm, BlockCipherAlgorithm)

    padder = PKCS7(algorithm.block_size).padder()
    encryptor = Cipher(algorithm, modes.CBC(iv)).encryptor()

    return encryptor.update(padder.update(data) + padder.finalize()) + encryptor.finalize()


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, 'big'))


def _der(tag: int, content: bytes) -> bytes:
    """Encode a DER value: tag, length, content."""

    size = len(content)

    if size < 0x80:
        return bytes((tag, size)) + content

    length = size.to_bytes((size.bit_length() + 7) // 8, 'big')

    return bytes((tag, 0x80 | len(length))) + length + content
