"""Whether a client trusts the host key that a server shows: known_hosts, revocation lists, and the owner's own word."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from cryptography.x509 import ObjectIdentifier

from ..errors import HostKeyNotVerifiable, KeyImportError
from ..keys.certificate import (
    CERT_TYPE_HOST,
    DEFAULT_CA_SIGNATURES,
    SSHOpenSSHCertificate,
    is_certificate_blob,
)
from ..keys.certificate_names import is_certificate_algorithm, is_x509_algorithm, plain_algorithm
from ..keys.key import SSHKey, decode_public_key
from ..keys.known_hosts import match_known_hosts
from ..keys.revocation import RevokedKeys
from ..keys.x509 import SSHX509Certificate, SSHX509CertificateChain, decode_shown_certificate
from ..keys.x509_names import X509NamePattern
from ..transport.algorithms import available_algorithms, x509_algorithms
from .x509_trust import X509Trust


class HostKeyOwner(Protocol):
    """The client object's part in the decision."""

    def validate_host_public_key(self, host: str, addr: str, port: int, key: SSHKey) -> bool:
        """Return whether a key that known_hosts does not list is trusted."""

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: SSHKey) -> bool:
        """Return whether an authority that known_hosts does not list is trusted."""


class HostKeyPolicy:
    """The trusted and the revoked keys of one server; `known_hosts` None trusts every key that is not revoked.

    The files are read when the policy is made: what they list decides which algorithms the client offers first.
    `accept_new` is told of the key of a server of which nothing at all is known, and makes it a trusted one.
    """

    def __init__(
        self,
        known_hosts: Any,
        host: str,
        addr: str,
        port: int,
        *,
        revoked_keys: RevokedKeys | None = None,
        ca_signature_algs: Collection[bytes] = DEFAULT_CA_SIGNATURES,
        accept_new: Callable[[SSHKey], None] | None = None,
        x509_trusted: Sequence[SSHX509Certificate] | None = None,
        x509_purposes: Collection[ObjectIdentifier] | None = None,
    ) -> None:
        self._host = host
        self._addr = addr
        self._port = port
        self._check = known_hosts is not None
        self._revoked_keys = revoked_keys
        self._ca_signature_algs = ca_signature_algs
        self._accept_new = accept_new
        self._authorities: Sequence[SSHKey] = ()
        self.trusted: Sequence[SSHKey] = ()
        self.revoked: Sequence[SSHKey] = ()
        self._x509_known: Sequence[SSHX509Certificate] = ()
        self._x509_subjects: Sequence[X509NamePattern] = ()
        self._revoked_subjects: Sequence[X509NamePattern] = ()
        self._x509: X509Trust | None = None

        if self._check:
            found = match_known_hosts(known_hosts, host, addr, port)
            self.trusted, self._authorities, self.revoked = found[:3]

            # None turns X.509 off altogether.
            if x509_trusted is not None:
                self._x509_known, self._x509_subjects = found.x509_certs, found.x509_subjects
                self._revoked_subjects = found.revoked_subjects
                authorities = (*found.x509_certs, *x509_trusted)

                if authorities:
                    self._x509 = X509Trust(
                        authorities, x509_purposes, revoked_keys, found.revoked_keys, found.revoked_certs
                    )

    @property
    def known_algorithms(self) -> tuple[bytes, ...]:
        """The algorithms of trusted authorities and keys: a server is asked for a key that can be verified."""

        if self._x509_known or (self._x509 and not self.trusted and not self._authorities):
            return x509_algorithms(available_algorithms('signature'))

        certified = filter(is_certificate_algorithm, available_algorithms('host_key')) if self._authorities else ()

        return tuple(dict.fromkeys((*certified, *(name for key in self.trusted for name in key.sig_algorithms))))

    def offered_algorithms(self, algorithms: Sequence[bytes], explicit: bool) -> tuple[bytes, ...]:
        """List what the server is asked for: X.509 only if such a certificate could be verified, or nothing is.

        A user's list of X.509 alone stays: what the server shows is then refused for what it is.
        """

        if self._check and self._x509 is None:
            algorithms = [name for name in algorithms if not is_x509_algorithm(name)] or algorithms
        elif self._x509 and not explicit:
            algorithms = (*algorithms, *x509_algorithms(available_algorithms('signature')))

        return order_algorithms(algorithms, self.known_algorithms, explicit)

    def verify(self, key_data: bytes, owner: HostKeyOwner) -> SSHKey:
        """Return the key if it is trusted; every doubt is a refusal.

        A certificate by an authority that is not trusted counts for its key alone, as with OpenSSH.

        Raises:
          HostKeyNotVerifiable: it is malformed, revoked, or not known, or its certificate is not valid here
        """

        try:
            cert = decode_shown_certificate(key_data) if is_certificate_blob(key_data) else None
            key = cert.key if cert else decode_public_key(key_data)
        except KeyImportError as exc:
            raise HostKeyNotVerifiable(f'Host key of {self._name} is not valid: {exc}') from exc

        if self.is_revoked(key) or (cert and self._revoked_keys and self._revoked_keys.revokes(cert)):
            raise HostKeyNotVerifiable(f'Host key of {self._name} is revoked: {key.get_fingerprint()}')

        if not self._check:
            return key

        if isinstance(cert, SSHX509CertificateChain):
            # As with OpenSSH's, a certificate of a key that is known counts for its key alone.
            if not includes(self.trusted, key):
                self._verify_x509(cert)

            return key

        if cert and self._trusts_authority(cert, owner):
            self._verify_certificate(cert)

            return key

        if includes(self.trusted, key):
            return key

        if owner.validate_host_public_key(self._host, self._addr, self._port, key) is True:
            return key

        if self._accept_new and not (self.trusted or self._authorities or self.revoked):
            self._accept_new(key)
            self.trusted = [key]

            return key

        known = 'has another key than' if self.trusted else 'is not in'

        raise HostKeyNotVerifiable(
            f'Host key is not trusted: {self._name} {known} known_hosts, it showed {key.get_fingerprint()}'
        )

    def is_revoked(self, key: SSHKey) -> bool:
        """Tell whether known_hosts or a revocation list revokes a key."""

        return includes(self.revoked, key) or bool(self._revoked_keys and self._revoked_keys.revokes(key))

    def _trusts_authority(self, cert: SSHOpenSSHCertificate, owner: HostKeyOwner) -> bool:
        authority = cert.signing_key

        if self.is_revoked(authority):
            raise HostKeyNotVerifiable(
                f'The authority of the host certificate of {self._name} is revoked: {authority.get_fingerprint()}'
            )

        return includes(self._authorities, authority) or (
            owner.validate_host_ca_key(self._host, self._addr, self._port, authority) is True
        )

    def _verify_x509(self, chain: SSHX509CertificateChain) -> None:
        """Check the path, and that the certificate is this host's, by its names or by what known_hosts lists."""

        if self._x509 is None:
            raise HostKeyNotVerifiable(f'Host certificate of {self._name} is refused: no X.509 certificate is trusted')

        try:
            own = self._x509.verify(chain)
        except ValueError as exc:
            raise HostKeyNotVerifiable(f'Host certificate of {self._name} is refused: {exc}') from None

        if any(pattern.matches(own.subject) for pattern in self._revoked_subjects):
            raise HostKeyNotVerifiable(f'Host certificate of {self._name} is refused: its subject is revoked')

        if self._x509_subjects:
            listed = any(pattern.matches(own.subject) for pattern in self._x509_subjects)
        else:
            listed = own in self._x509_known or own.names_host(self._host)

        if not listed:
            raise HostKeyNotVerifiable(
                f'Host certificate of {self._name} is refused: it is not made out to this host'
            )

    def _verify_certificate(self, cert: SSHOpenSSHCertificate) -> None:
        try:
            cert.check(CERT_TYPE_HOST, self._ca_signature_algs)
        except ValueError as exc:
            raise HostKeyNotVerifiable(f'Host certificate of {self._name} is refused: {exc}') from None

        if not cert.names(self._host):
            raise HostKeyNotVerifiable(
                f'Host certificate of {self._name} is refused: it is not made out to this host'
            )

    @property
    def _name(self) -> str:
        return self._host if self._port == 22 else f'[{self._host}]:{self._port}'


def includes(keys: Sequence[SSHKey], key: SSHKey) -> bool:
    """Tell whether keys, of which some may be private ones, include a key."""

    return any(listed.public_data == key.public_data for listed in keys)


def order_algorithms(offered: Sequence[bytes], known: Sequence[bytes], explicit: bool) -> tuple[bytes, ...]:
    """Put the algorithms of the keys that are known first, so that a server with several keys shows a known one.

    A list that the user gave stays as it is. What is known decides only the order: a key of another type is then
    refused for what it is, rather than for want of an algorithm. An observer can tell from the order whether a key is
    known, unless it is of the type that comes first anyway, as with OpenSSH (CVE-2020-14145).
    """

    if explicit or not known or plain_algorithm(offered[0]) in known:
        return tuple(offered)

    first = [name for name in offered if name in known]

    return (*first, *(name for name in offered if name not in first))
