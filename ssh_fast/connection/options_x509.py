"""What the options about X.509 certificates become: the certificates that are trusted, and the purposes."""

import re
from pathlib import Path, PurePath
from typing import Any

from cryptography.x509 import ObjectIdentifier

from ..errors import KeyImportError
from ..keys.certificate import SSHCertificate
from ..keys.certificate_files import load_certificates
from ..keys.x509 import SSHX509Certificate
from ..keys.x509_path import purpose_ids
from ..logging import logger, printable
from . import options_trust as trust

# What a client trusts if it is told nothing else
_DEFAULT_CERTS = '~/.ssh/ca-bundle.crt'
_DEFAULT_CERT_PATHS = '~/.ssh/crt'

# The names that `openssl rehash` gives: the hash of the subject, and a number
_HASHED_NAME = re.compile(r'[0-9a-f]{8}\.[0-9]{1,6}')

# Ten times what systems that trust the whole web have
_MAX_FILES = 4096


def trusted_certs(name: str, value: Any) -> tuple[SSHX509Certificate, ...] | None:
    """Take X.509 certificates to trust, their data or their files, one or a list; None turns X.509 off."""

    if value is None:
        return None

    items = value if isinstance(value, list | tuple) else (value,)

    if not all(isinstance(item, bytes | str | PurePath | SSHCertificate) for item in items):
        raise ValueError(f'{name}: expected certificates, their data or their files, got {value!r}')

    found: list[SSHX509Certificate] = []

    for item in items:
        for cert in load_certificates(trust.key_paths(item)):
            if not isinstance(cert, SSHX509Certificate):
                raise ValueError(f'{name}: expected X.509 certificates, got one for {cert.get_algorithm()}')

            found.append(cert)

    return tuple(found)


def trusted_cert_paths(name: str, value: Any) -> tuple[SSHX509Certificate, ...]:
    """Take directories of certificates to trust, as `openssl rehash` names them; all are read now.

    A certificate that cannot be used, such as one whose key is too short, is left out.
    """

    paths = () if value is None else value if isinstance(value, list | tuple) else (value,)

    if not all(isinstance(path, str | PurePath) for path in paths):
        raise ValueError(f'{name}: expected directories, got {value!r}')

    found: dict[bytes, SSHX509Certificate] = {}

    for path in paths:
        files = [file for file in Path(path).expanduser().iterdir() if _HASHED_NAME.fullmatch(file.name)]

        if len(files) > _MAX_FILES:
            raise ValueError(f'{name}: expected at most {_MAX_FILES} certificates in {path}, got {len(files)}')

        for file in sorted(files):
            try:
                certs = trusted_certs(name, file) or ()
            except KeyImportError as exc:
                logger.info('The certificate %s is left out: %s', file, printable(str(exc)))
                continue

            found.update((cert.public_data, cert) for cert in certs)

    return tuple(found.values())


def purposes(name: str, value: Any) -> tuple[ObjectIdentifier, ...] | None:
    """Take purposes, one or a list; None takes certificates for any."""

    if value is not None and not isinstance(value, str | list | tuple):
        raise ValueError(f'{name}: expected purposes or None, got {value!r}')

    try:
        return purpose_ids(value)
    except ValueError as exc:
        raise ValueError(f'{name}: {exc}') from None


def default_certs() -> tuple[SSHX509Certificate, ...]:
    """Return what the user's own bundle has, if there is one."""

    path = Path(_DEFAULT_CERTS).expanduser()

    return (trusted_certs('x509_trusted_certs', path) or ()) if path.is_file() else ()


def default_cert_paths() -> tuple[SSHX509Certificate, ...]:
    """Return what the user's own directory of certificates has, if there is one."""

    path = Path(_DEFAULT_CERT_PATHS).expanduser()

    return trusted_cert_paths('x509_trusted_cert_paths', [path]) if path.is_dir() else ()
