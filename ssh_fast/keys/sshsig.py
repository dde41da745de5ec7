"""Signatures of files, as `ssh-keygen -Y sign` makes them (PROTOCOL.sshsig).

"SSHSIG" | uint32 1 | string public key | string namespace | string reserved | string hash name | string signature
signed: "SSHSIG" | string namespace | string reserved | string hash name | string hash of the data
"""

import base64
import copy
import hashlib
import os
import re
from collections.abc import Sequence
from inspect import iscoroutine
from pathlib import PurePath
from typing import NamedTuple, TypeAlias

from ..errors import KeyImportError, PacketDecodeError
from ..wire import Cursor, encode_string, encode_uint32
from .allowed_signers import SSHAllowedSigners, import_allowed_signers, read_allowed_signers
from .certificate import CERT_TYPE_USER, SSHOpenSSHCertificate, decode_certificate, is_certificate_blob
from .file_cache import read_bounded
from .key import SSHKey, decode_public_key, verify_signature
from .load import KeyPairList, load_keypairs
from .openssh_format import decode_base64, wrap_lines

_Path: TypeAlias = str | PurePath

_MAGIC = b'SSHSIG'
_VERSION = 1
_HASH_SIZES = {'sha256': 32, 'sha512': 64}
_BEGIN = b'-----BEGIN SSH SIGNATURE-----'
_END = b'-----END SSH SIGNATURE-----'

# A certificate with a signature is of some KiB.
_MAX_SIGNATURE = 256 << 10
_CHUNK = 1 << 20

# PROTOCOL.sshsig: RSA signs with SHA-2 only.
_REFUSED = (b'ssh-rsa', b'ssh-dss')


class _Signature(NamedTuple):
    """The fields of a signature file."""

    public_data: bytes
    namespace: bytes
    reserved: bytes
    hash_name: str
    signature: bytes


def create_sshsig(
    key: KeyPairList,
    data: bytes | _Path,
    *,
    is_hashed: bool = False,
    hash_name: str = 'sha512',
    namespace: str = 'file',
    raw: bool = False,
) -> bytes:
    """Sign data, or the file of a name, with the first of the keys; in PEM armour, or as it is if `raw`.

    `is_hashed` says that the data is already the hash. The namespace tells what the signature is for: `file`, or
    something like `git` or `email@example.com`.
    """

    if hash_name not in _HASH_SIZES:
        raise ValueError(f'hash_name: expected one of {", ".join(_HASH_SIZES)}, got {hash_name!r}')

    if not namespace:
        raise ValueError('namespace: expected one of at least one character, got an empty one')

    pairs = load_keypairs(key)

    if not pairs:
        raise ValueError('key: expected a private key to sign with, got none')

    # The caller's pair keeps its own choice of algorithm.
    pair = copy.copy(pairs[0])
    algorithm = next((name for name in pair.sig_algorithms if name not in _REFUSED), None)

    if algorithm is None:
        raise ValueError(f'key: expected one that can sign files, got {pair.get_algorithm()}')

    pair.set_sig_algorithm(algorithm)
    digest = _digest(data, hash_name, is_hashed)
    signature = pair.sign(_signed_data(namespace.encode(), b'', hash_name, digest))

    if not isinstance(signature, bytes):
        if iscoroutine(signature):
            signature.close()

        raise ValueError('key: expected one that signs at once; those of an agent do not')

    blob = (
        _MAGIC
        + encode_uint32(_VERSION)
        + encode_string(pair.public_data)
        + encode_string(namespace)
        + encode_string(b'')
        + encode_string(hash_name)
        + encode_string(signature)
    )

    return blob if raw else _BEGIN + b'\n' + wrap_lines(base64.b64encode(blob), 70) + _END + b'\n'


def validate_sshsig(
    data: bytes | _Path,
    sig: bytes | _Path,
    principal: str,
    allowed_signers: bytes | str | Sequence[str] | SSHAllowedSigners,
    *,
    is_hashed: bool = False,
) -> bool:
    """Tell whether a signature of data, or of the file of a name, is right and by a principal who may sign so.

    `sig` is the signature or the name of its file; `allowed_signers` what `read_allowed_signers` returns, a text as
    bytes, or the names of files. The namespace is that of the signature: `namespaces=` of a line bounds it.
    """

    if isinstance(allowed_signers, bytes):
        allowed_signers = import_allowed_signers(allowed_signers.decode(errors='surrogateescape'))
    elif not isinstance(allowed_signers, SSHAllowedSigners):
        allowed_signers = read_allowed_signers(allowed_signers)

    if not isinstance(sig, bytes):
        sig = read_bounded(os.path.abspath(sig), _MAX_SIGNATURE)[0]

    try:
        fields = _decode(sig)
        namespace = fields.namespace.decode()
        key, cert = _decode_signer(fields.public_data)
    except (KeyImportError, UnicodeDecodeError):
        return False

    try:
        digest = _digest(data, fields.hash_name, is_hashed)
    except ValueError:
        return False

    signed = _signed_data(fields.namespace, fields.reserved, fields.hash_name, digest)
    allowed = [name for name in key.sig_algorithms if name not in _REFUSED]

    if not verify_signature(key, signed, fields.signature, allowed):
        return False

    if cert is None:
        return allowed_signers.validate(key, principal, namespace)

    try:
        cert.validate(CERT_TYPE_USER, principal)
    except ValueError:
        return False

    return bool(principal) and allowed_signers.validate(cert.signing_key, principal, namespace, ca=True)


def _decode_signer(public_data: bytes) -> tuple[SSHKey, SSHOpenSSHCertificate | None]:
    if not is_certificate_blob(public_data):
        return decode_public_key(public_data), None

    cert = decode_certificate(public_data)

    return cert.key, cert


def _decode(sig: bytes) -> _Signature:
    """Decode a signature, in PEM armour or without; `KeyImportError` if it is malformed."""

    if len(sig) > _MAX_SIGNATURE:
        raise KeyImportError(f'Expected a signature of at most {_MAX_SIGNATURE} bytes, got {len(sig)}')

    if not sig.startswith(_MAGIC):
        match = re.match(rb'\s*' + _BEGIN + rb'\r?\n([A-Za-z0-9+/=\s]*)' + _END + rb'\s*\Z', sig)

        if not match:
            raise KeyImportError(f'Expected {_BEGIN.decode()}')

        sig = decode_base64(b''.join(match[1].split()))

    cursor = Cursor(sig)

    try:
        if cursor.bytes(len(_MAGIC)) != _MAGIC or cursor.uint32() != _VERSION:
            raise KeyImportError(f'Expected a signature of version {_VERSION}')

        fields = _Signature(cursor.string(), cursor.string(), cursor.string(), cursor.text(), cursor.string())
        cursor.check_end()
    except PacketDecodeError as exc:
        raise KeyImportError(f'Malformed signature: {exc.reason}') from None

    if fields.hash_name not in _HASH_SIZES or not fields.namespace:
        raise KeyImportError('Expected a namespace and a hash of sha256 or sha512')

    return fields


def _signed_data(namespace: bytes, reserved: bytes, hash_name: str, digest: bytes) -> bytes:
    return (
        _MAGIC + encode_string(namespace) + encode_string(reserved) + encode_string(hash_name) + encode_string(digest)
    )


def _digest(data: bytes | _Path, hash_name: str, is_hashed: bool) -> bytes:
    """Hash data, or a file piece by piece; take it as it is if it is already the hash."""

    if isinstance(data, bytes):
        if not is_hashed:
            return hashlib.new(hash_name, data).digest()

        if len(data) != _HASH_SIZES[hash_name]:
            raise ValueError(f'data: expected a {hash_name} hash of {_HASH_SIZES[hash_name]} bytes, got {len(data)}')

        return data

    with open(data, 'rb') as file:
        if is_hashed:
            return _digest(file.read(max(_HASH_SIZES.values()) + 1), hash_name, is_hashed)

        digest = hashlib.new(hash_name)

        while piece := file.read(_CHUNK):
            digest.update(piece)

    return digest.digest()
