"""Reading certificates from bytes and files: OpenSSH's lines and RFC 4716, and X.509 in DER, PEM and lines."""

import os
from collections.abc import Sequence
from pathlib import PurePath
from typing import TypeAlias

from ..errors import KeyImportError
from . import openssh_format
from .certificate import SSHCertificate, decode_certificate
from .certificate_names import is_certificate_algorithm, is_x509_algorithm
from .file_cache import FileCache, read_bounded
from .rfc4716 import decode_rfc4716
from .x509 import SSHX509Certificate

_Path: TypeAlias = str | PurePath
CertificateList: TypeAlias = bytes | _Path | SSHCertificate | Sequence[bytes | _Path | SSHCertificate]

# OpenSSH's MAX_KEY_FILE_SIZE
_MAX_FILE_SIZE = 1 << 20

_RFC4716_BEGIN = '---- BEGIN SSH2 PUBLIC KEY ----'
_RFC4716_END = '---- END SSH2 PUBLIC KEY ----'

_PEM_BEGIN = '-----BEGIN CERTIFICATE-----'
_PEM_END = '-----END CERTIFICATE-----'

# What every certificate in DER begins with
_DER_SEQUENCE = b'\x30'

_cache: FileCache[list[SSHCertificate]] = FileCache(256)


def import_certificate(data: bytes | str) -> SSHCertificate:
    """Import a certificate, OpenSSH's line or RFC 4716, or X.509 in DER or PEM; `KeyImportError` if it is none.

    The signature of OpenSSH's is verified; that of X.509 is, when somebody shows it.
    """

    if len(data) > _MAX_FILE_SIZE:
        raise KeyImportError(f'Expected a certificate of at most {_MAX_FILE_SIZE} bytes, got {len(data)}')

    return _certificates_or_error(data.encode(errors='surrogateescape') if isinstance(data, str) else data)[0]


def read_certificate(filename: _Path) -> SSHCertificate:
    """Read a certificate from a file; errors name it."""

    certs = read_certificate_list(filename)

    if not certs:
        raise KeyImportError(f'{os.path.abspath(filename)}: expected a certificate, found none')

    return certs[0]


def read_certificate_list(filename: _Path) -> Sequence[SSHCertificate]:
    """Read all certificates of a file; the parse is remembered while the file is unchanged."""

    path = os.path.abspath(filename)
    certs = _cache.get(path, None, os.stat(path))

    if certs is None:
        try:
            data, status = read_bounded(path, _MAX_FILE_SIZE)
            certs = _certificates(data)
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


def _certificates_or_error(data: bytes) -> list[SSHCertificate]:
    certs = _certificates(data)

    if not certs:
        raise KeyImportError('Expected a certificate, found none')

    return certs


def _certificates(data: bytes) -> list[SSHCertificate]:
    """Decode the certificate in DER, or every certificate of a text; an error names its line."""

    if data.startswith(_DER_SEQUENCE):
        return [SSHX509Certificate.construct_from_der(data)]

    certs: list[SSHCertificate] = []
    text = data.decode(errors='surrogateescape')
    lines = text.split('\n')
    in_pem = _PEM_BEGIN in text
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
            elif line == _PEM_BEGIN:
                end = next((at for at in range(number, len(lines)) if lines[at].strip() == _PEM_END), -1)

                if end < 0:
                    raise KeyImportError(f'Expected {_PEM_END} behind the certificate')

                der = openssh_format.decode_base64(''.join(part.strip() for part in lines[number:end]))
                certs.append(SSHX509Certificate.construct_from_der(der))
                number = end + 1
            elif is_x509_algorithm(line.split(None, 1)[0].encode(errors='replace')):
                certs.append(decode_x509_line(line))
            elif in_pem and not is_certificate_algorithm(line.split(None, 1)[0].encode(errors='replace')):
                # Text between certificates says what they are (RFC 7468 section 5.2).
                continue
            else:
                fields = openssh_format.decode_public_line(line)
                certs.append(decode_certificate(fields.public_data, fields.comment))
        except KeyImportError as exc:
            raise KeyImportError(f'line {number}: {exc}') from None

    return certs


def decode_x509_line(line: str) -> SSHX509Certificate:
    """Decode an X.509 certificate on a line: name, DER in base64, comment. The name may be either of RSA's two."""

    fields = line.split(None, 2)

    if len(fields) < 2:
        raise KeyImportError('Expected an algorithm name and a certificate in base64')

    comment = fields[2].encode(errors='surrogateescape') if len(fields) == 3 else None
    cert = SSHX509Certificate.construct_from_der(openssh_format.decode_base64(fields[1]), comment)

    if fields[0] not in (cert.get_algorithm(), 'x509v3-ssh-rsa') or (
        fields[0] == 'x509v3-ssh-rsa' and cert.key.algorithm != b'ssh-rsa'
    ):
        raise KeyImportError(f'The certificate in base64 is not of the type {fields[0]!r} named before it')

    return cert
