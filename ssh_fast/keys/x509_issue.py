"""Issuing X.509 certificates: an authority's key signs a user's, a host's or another authority's key (RFC 6187)."""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519

from ..errors import KeyGenerationError
from .certificate_issue import Comment, Time, parse_time
from .key import KeyRefused, SSHKey
from .x509 import SSHX509Certificate, as_x509_key
from .x509_names import parse_name
from .x509_path import purpose_ids

_Hash: TypeAlias = hashes.SHA256 | hashes.SHA384 | hashes.SHA512

_HASHES: dict[str, _Hash] = {
    'sha256': hashes.SHA256(),
    'sha384': hashes.SHA384(),
    'sha512': hashes.SHA512(),
}

# 99991231235959Z stands for no end (RFC 5280 section 4.1.2.5).
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

_Extensions = Sequence[tuple[x509.ExtensionType, bool]]


def issue_x509_end_entity(
    signer: SSHKey,
    key: SSHKey,
    subject: str,
    issuer: str | None,
    serial: int | None,
    principals: str | Sequence[str],
    valid_after: Time,
    valid_before: Time,
    purposes: str | Sequence[str] | None,
    hash_alg: str | tuple[()],
    comment: Comment,
    *,
    host: bool,
) -> SSHX509Certificate:
    """Sign a host's key or a user's; the arguments are those of `SSHKey.generate_x509_host_certificate`."""

    names = [_host_name(name) if host else _rfc822_name(name) for name in _split(principals)]

    return _issue(
        signer, key, subject, issuer, serial, valid_after, valid_before, hash_alg, comment, _own(names, purposes)
    )


def issue_x509_ca(
    signer: SSHKey,
    key: SSHKey,
    subject: str,
    issuer: str | None,
    serial: int | None,
    valid_after: Time,
    valid_before: Time,
    ca_path_len: int | None,
    hash_alg: str | tuple[()],
    comment: Comment,
) -> SSHX509Certificate:
    """Sign an authority's key; the arguments are those of `SSHKey.generate_x509_ca_certificate`."""

    if ca_path_len is not None and ca_path_len < 0:
        raise KeyGenerationError(f'ca_path_len: expected 0 or more, or None, got {ca_path_len}')

    extensions = [
        (x509.BasicConstraints(True, ca_path_len), True),
        (_usage(authority=True), True),
    ]

    return _issue(signer, key, subject, issuer, serial, valid_after, valid_before, hash_alg, comment, extensions)


def _issue(
    signer: SSHKey,
    key: SSHKey,
    subject: str,
    issuer: str | None,
    serial: int | None,
    valid_after: Time,
    valid_before: Time,
    hash_alg: str | tuple[()],
    comment: Comment,
    extensions: _Extensions,
) -> SSHX509Certificate:
    if not signer.is_private:
        raise KeyGenerationError('A certificate is signed with a private key, got a public one')

    try:
        private = as_x509_key(signer).pyca_key
        public = as_x509_key(key.convert_to_public() if key.is_private else key).pyca_key
    except KeyRefused as exc:
        raise KeyGenerationError(str(exc)) from None

    after, before = _moment(valid_after), _moment(valid_before)

    if before <= after:
        raise ValueError(f'Expected valid_before to be later than valid_after, got {before} and {after}')

    builder = x509.CertificateBuilder(
        issuer_name=parse_name(subject if issuer is None else issuer),
        subject_name=parse_name(subject),
        public_key=public,
        serial_number=x509.random_serial_number() if serial is None else serial,
        not_valid_before=after,
        not_valid_after=before,
    )
    own_id = x509.SubjectKeyIdentifier.from_public_key(public)
    builder = builder.add_extension(own_id, False)
    authority = signer.convert_to_public().pyca_key

    if issuer not in (None, subject):
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), False)

    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)

    chosen = key.get_comment_bytes() if isinstance(comment, tuple) else comment

    return SSHX509Certificate(builder.sign(private, _hash(private, hash_alg)), chosen)


def _own(names: Sequence[x509.GeneralName], purposes: str | Sequence[str] | None) -> _Extensions:
    """Return the extensions of a certificate that is no authority's."""

    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(False, None), True),
        (_usage(authority=False), True),
    ]
    ids = purpose_ids(purposes)

    if ids is not None:
        extensions.append((x509.ExtendedKeyUsage(ids), False))

    if names:
        extensions.append((x509.SubjectAlternativeName(names), False))

    return extensions


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _hash(private: object, hash_alg: str | tuple[()]) -> _Hash | None:
    """Choose the hash; Ed25519 and Ed448 have their own."""

    if hash_alg and hash_alg not in _HASHES:
        raise KeyGenerationError(f'hash_alg: expected one of {", ".join(_HASHES)}, got {hash_alg!r}')

    if isinstance(private, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return None

    return _HASHES[hash_alg or 'sha256']


def _moment(value: Time) -> datetime:
    seconds = parse_time(value)

    return _LAST if seconds >= _LAST.timestamp() else datetime.fromtimestamp(max(seconds, _FIRST.timestamp()), UTC)


def _split(principals: str | Sequence[str]) -> list[str]:
    names = [name.strip() for name in principals.split(',')] if isinstance(principals, str) else list(principals)

    if not principals:
        return []

    if not all(names):
        raise KeyGenerationError('Expected principals that are not empty')

    return names


def _rfc822_name(name: str) -> x509.RFC822Name:
    try:
        return x509.RFC822Name(name)
    except ValueError as exc:
        raise KeyGenerationError(f'{name!r} cannot be the principal of an X.509 certificate: {exc}') from None


def _host_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass

    try:
        return x509.DNSName(name)
    except ValueError as exc:
        raise KeyGenerationError(f'{name!r} cannot be the principal of an X.509 certificate: {exc}') from None
