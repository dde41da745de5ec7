"""Whether an X.509 certificate leads to a trusted one: the path, and what each certificate on it must be (RFC 5280).

The checks are written out here, as the verifier of `cryptography` knows the profile of the web only: it refuses keys of
type Ed25519 and Ed448, e-mail names without a domain, and certificates that are trusted by themselves. Signatures are
verified by `cryptography`. Fewer things are understood than RFC 5280 has, and what is not understood is refused: name
constraints, policies that are critical, and every other critical extension. Revocation lists and OCSP are not asked.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, ObjectIdentifier, SignatureAlgorithmOID

from .x509 import MAX_CHAIN_LENGTH, SSHX509Certificate

_T = TypeVar('_T', bound=x509.ExtensionType)

PURPOSES: Final = {
    'serverAuth': ExtendedKeyUsageOID.SERVER_AUTH,
    'clientAuth': ExtendedKeyUsageOID.CLIENT_AUTH,
    'secureShellClient': ObjectIdentifier('1.3.6.1.5.5.7.3.21'),
    'secureShellServer': ObjectIdentifier('1.3.6.1.5.5.7.3.22'),
    'any': ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
}

# Who sends many certificates of one name must not make us verify many signatures.
_MAX_SIGNATURES = 32

_STRONG_HASHES = (
    hashes.SHA256, hashes.SHA384, hashes.SHA512, hashes.SHA3_256, hashes.SHA3_384, hashes.SHA3_512
)  # fmt: skip
_WITHOUT_HASH = (SignatureAlgorithmOID.ED25519, SignatureAlgorithmOID.ED448)

_UNDERSTOOD = (
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
)


def purpose_ids(purposes: str | Iterable[str] | None) -> tuple[ObjectIdentifier, ...] | None:
    """Turn purposes, by name or as dotted numbers, one string between commas or a list, into identifiers.

    Raises:
      ValueError: a purpose is not known
    """

    if purposes is None:
        return None

    names = [name.strip() for name in purposes.split(',')] if isinstance(purposes, str) else list(purposes)
    found = []

    for name in names:
        if name in PURPOSES:
            found.append(PURPOSES[name])
        elif isinstance(name, str) and '.' in name:
            found.append(ObjectIdentifier(name))
        else:
            raise ValueError(f'Expected purposes of {", ".join(PURPOSES)} or dotted numbers, got {name!r}')

    if not found:
        raise ValueError('Expected at least one purpose, or None')

    return tuple(found)


def find_path(
    shown: Sequence[SSHX509Certificate],
    trusted: Sequence[SSHX509Certificate],
    purposes: Collection[ObjectIdentifier] | None,
    now: float | None = None,
) -> list[SSHX509Certificate]:
    """Return the path from the first certificate shown to a trusted one, which is its last.

    Certificates between may be any of those shown or trusted. `purposes` are those of which the first certificate must
    have one, if it is restricted to some at all (RFC 6187 section 2.2.2); None takes any. `now` is in seconds since
    1970, by default the time of day.

    Raises:
      ValueError: there is no such path; the message says what was wrong with the one that came furthest
    """

    moment = datetime.now(UTC) if now is None else datetime.fromtimestamp(now, UTC)

    return _Search(shown, trusted, purposes, moment).run()


class _Search:
    """One search; a certificate is on a path once, and the number of signatures is bounded."""

    def __init__(
        self,
        shown: Sequence[SSHX509Certificate],
        trusted: Sequence[SSHX509Certificate],
        purposes: Collection[ObjectIdentifier] | None,
        now: datetime,
    ) -> None:
        self._shown = shown
        self._trusted = {cert.public_data for cert in trusted}
        self._purposes = purposes
        self._now = now
        self._signatures = 0
        self._by_subject: dict[x509.Name, list[SSHX509Certificate]] = {}
        self._failure = 'it was not issued by an authority that is trusted'

        # Trusted ones first, so that the shortest path is found.
        for cert in (*trusted, *shown[1:MAX_CHAIN_LENGTH]):
            self._by_subject.setdefault(cert.subject, []).append(cert)

    def run(self) -> list[SSHX509Certificate]:
        own = self._shown[0]
        self._check_common(own)
        _check_own(own, self._purposes)
        path = self._extend([own])

        if path is None:
            raise ValueError(self._failure)

        return path

    def _extend(self, path: list[SSHX509Certificate]) -> list[SSHX509Certificate] | None:
        cert = path[-1]

        if cert.public_data in self._trusted:
            return path

        if len(path) >= MAX_CHAIN_LENGTH:
            self._failure = f'its chain is longer than {MAX_CHAIN_LENGTH} certificates'
            return None

        for issuer in self._by_subject.get(cert.issuer, ()):
            if issuer in path:
                continue

            try:
                self._check_common(issuer)
                _check_authority(issuer, path, self._purposes)
                self._check_signature(cert, issuer)
            except ValueError as exc:
                self._failure = str(exc)
                continue

            found = self._extend([*path, issuer])

            if found is not None:
                return found

        return None

    def _check_common(self, cert: SSHX509Certificate) -> None:
        """Check what holds for every certificate of a path, the trusted one included."""

        if cert.x509_cert.version != x509.Version.v3:
            raise ValueError(f'{_name(cert)} is not of version 3')

        if self._now < cert.x509_cert.not_valid_before_utc:
            raise ValueError(f'{_name(cert)} is not valid before {cert.x509_cert.not_valid_before_utc:%Y-%m-%d %H:%M}')

        if self._now > cert.x509_cert.not_valid_after_utc:
            raise ValueError(f'{_name(cert)} has expired at {cert.x509_cert.not_valid_after_utc:%Y-%m-%d %H:%M}')

        for extension in cert.extensions:
            name_constraints = extension.oid == ExtensionOID.NAME_CONSTRAINTS

            if name_constraints or (extension.critical and extension.oid not in _UNDERSTOOD):
                raise ValueError(f'{_name(cert)} has the extension {extension.oid.dotted_string}, not understood here')

    def _check_signature(self, cert: SSHX509Certificate, issuer: SSHX509Certificate) -> None:
        self._signatures += 1

        if self._signatures > _MAX_SIGNATURES:
            raise ValueError(f'finding its chain takes more than {_MAX_SIGNATURES} signatures')

        try:
            digest = cert.x509_cert.signature_hash_algorithm
        except UnsupportedAlgorithm:
            raise ValueError(f'{_name(cert)} is signed with an algorithm that is not known') from None

        strong = isinstance(digest, _STRONG_HASHES) or (
            digest is None and cert.x509_cert.signature_algorithm_oid in _WITHOUT_HASH
        )

        if not strong:
            raise ValueError(f'{_name(cert)} is signed with {digest.name if digest else "an unknown hash"}: too weak')

        try:
            cert.x509_cert.verify_directly_issued_by(issuer.x509_cert)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            raise ValueError(f'the signature of {_name(cert)} is not that of {_name(issuer)}') from None


def _check_own(cert: SSHX509Certificate, purposes: Collection[ObjectIdentifier] | None) -> None:
    """Check the certificate of the key that signs for a host or a user."""

    usage = _extension(cert, x509.KeyUsage)

    if usage is not None and not (usage.digital_signature or usage.content_commitment):
        raise ValueError(f'{_name(cert)} is not for signatures')

    _check_purpose(cert, purposes)


def _check_authority(
    cert: SSHX509Certificate, below: Sequence[SSHX509Certificate], purposes: Collection[ObjectIdentifier] | None
) -> None:
    """Check the certificate of an authority, below which the path is so far (RFC 5280 section 6.1.4)."""

    constraints = _extension(cert, x509.BasicConstraints)

    if constraints is None or not constraints.ca:
        raise ValueError(f'{_name(cert)} is not that of an authority')

    # Certificates that an authority made for itself don't count.
    between = sum(other.subject != other.issuer for other in below[1:])

    if constraints.path_length is not None and between > constraints.path_length:
        raise ValueError(f'{_name(cert)} admits {constraints.path_length} authorities below it, got {between}')

    usage = _extension(cert, x509.KeyUsage)

    if usage is not None and not usage.key_cert_sign:
        raise ValueError(f'{_name(cert)} is not for signing certificates')

    _check_purpose(cert, purposes)


def _check_purpose(cert: SSHX509Certificate, purposes: Collection[ObjectIdentifier] | None) -> None:
    usage = _extension(cert, x509.ExtendedKeyUsage)

    if usage is None or purposes is None:
        return

    if not any(purpose in purposes or purpose == PURPOSES['any'] for purpose in usage):
        raise ValueError(f'{_name(cert)} is for other purposes')


def _extension(cert: SSHX509Certificate, kind: type[_T]) -> _T | None:
    try:
        return cert.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _name(cert: SSHX509Certificate) -> str:
    return f'the certificate of {cert.subject.rfc4514_string()[:80]!r}'
