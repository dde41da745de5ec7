"""Reading certificates from bytes and files: OpenSSH's lines and RFC 4716."""

import os
from collections.abc import Sequence
from pathlib import PurePath
from typing import TypeAlias

from ..errors import KeyImportError
from . import openssh_format
from .certificate import SSHCertificate, SSHOpenSSHCertificate, decode_certificate
from .file_cache import FileCache, read_bounded
from .rfc4716 import decode_rfc4716

_Path: TypeAlias = str | PurePath
CertificateList: TypeAlias = bytes | _Path | SSHCertificate | Sequence[bytes | _Path | SSHCertificate]

# OpenSSH's MAX_KEY_FILE_SIZE
_MAX_FILE_SIZE = 1 << 20

_RFC4716_BEGIN = '---- BEGIN SSH2 PUBLIC KEY ----'
_RFC4716_END = '---- END SSH2 PUBLIC KEY ----'

_cache: FileCache[list[SSHOpenSSHCertificate]] = FileCache(256)


def import_certificate(data: bytes | str) -> SSHOpenSSHCertificate:
    """Import a certificate, OpenSSH's line or RFC 4716; `KeyImportError` if it is none, or its signature is wrong."""

    text = data.decode(errors='surrogateescape') if isinstance(data, bytes) else data

    if len(text) > _MAX_FILE_SIZE:
        raise KeyImportError(f'Expected a certificate of at most {_MAX_FILE_SIZE} bytes, got {len(text)}')

    certs = _certificates(text)

    if not certs:
        raise KeyImportError('Expected a certificate, found none')

    return certs[0]


def read_certificate(filename: _Path) -> SSHOpenSSHCertificate:
    """Read a certificate from a file; errors name it."""

    certs = read_certificate_list(filename)

    if not certs:
        raise KeyImportError(f'{os.path.abspath(filename)}: expected a certificate, found none')

    return certs[0]


def read_certificate_list(filename: _Path) -> Sequence[SSHOpenSSHCertificate]:
    """Read all certificates of a file; the parse is remembered while the file is unchanged."""

    path = os.path.abspath(filename)
    certs = _cache.get(path, None, os.stat(path))

    if certs is None:
        try:
            data, status = read_bounded(path, _MAX_FILE_SIZE)
            certs = _certificates(data.decode(errors='surrogateescape'))
        except KeyImportError as exc:
            raise KeyImportError(f'{path}: {exc}') from None
        except ValueError as exc:
            raise KeyImportError(str(exc)) from None

        _cache.put(path, None, status, certs)

    return list(certs)


def load_certificates(certlist: CertificateList) -> Sequence[SSHCertificate]:
    """Load certificates from one file, certificate or its bytes, or from a list of these."""

    if isinstance(certlist, SSHCertificate):
        return [certlist]

    if isinstance(certlist, bytes):
        return _certificates_or_error(certlist)

    if isinstance(certlist, str | PurePath):
        return read_certificate_list(certlist)

    certs: list[SSHCertificate] = []

    for item in certlist:
        certs.extend(load_certificates(item))

    return certs


def _certificates_or_error(data: bytes) -> list[SSHOpenSSHCertificate]:
    certs = _certificates(data.decode(errors='surrogateescape'))

    if not certs:
        raise KeyImportError('Expected a certificate, found none')

    return certs


def _certificates(text: str) -> list[SSHOpenSSHCertificate]:
    """Decode every certificate of a text; an error names its line."""

    certs = []
    lines = text.split('\n')
    number = 0

    while number < len(lines):
        line = lines[number].strip()
        number += 1

        if not line or line.startswith('#'):
            continue

        try:
            if line == _RFC4716_BEGIN:
                end = next((at for at in range(number, len(lines)) if lines[at].strip() == _RFC4716_END), len(lines))
                blob, comment = decode_rfc4716('\n'.join(lines[number - 1 : end + 1]))
                certs.append(decode_certificate(blob, comment))
                number = end + 1
            else:
                fields = openssh_format.decode_public_line(line)
                certs.append(decode_certificate(fields.public_data, fields.comment))
        except KeyImportError as exc:
            raise KeyImportError(f'line {number}: {exc}') from None

    return certs
