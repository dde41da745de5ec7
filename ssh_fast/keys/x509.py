"""X.509 certificates as SSH shows them (RFC 6187): one, and a chain from the key's own up to an authority's.

A chain's blob is: string algorithm | uint32 count | that many strings, each a certificate in DER, the key's own first |
uint32 count | that many strings, each an OCSP response. Parsing is `cryptography`'s. Whether a certificate is trusted
is `x509_path`'s question.
"""

import ipaddress
import os
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import ClassVar, Final, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ..errors import KeyExportError, KeyImportError, PacketDecodeError
from ..wire import Cursor, encode_string, encode_uint32
from .certificate import SSHCertificate, SSHOpenSSHCertificate, decode_certificate
from .certificate_names import X509_ALGORITHMS, X509_PREFIX, X509_RSA_SHA256, is_x509_algorithm, x509_algorithm
from .key import KeyRefused, SSHKey, key_from_pyca, write_file
from .openssh_format import encode_public_line

# No hierarchy in use is deeper.
MAX_CHAIN_LENGTH: Final = 10

# A certificate has 1 to 2 KiB; those with many names some more.
MAX_CERTIFICATE_SIZE: Final = 32768

_MAX_OCSP_RESPONSES = MAX_CHAIN_LENGTH

# What `cryptography` raises for what others made
_MALFORMED = (
    ValueError,
    TypeError,
    OverflowError,
    Warning,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class SSHX509Certificate(SSHCertificate):
    """One X.509 certificate, whose signature nobody has looked at."""

    is_x509: ClassVar[bool] = True

    def __init__(self, cert: x509.Certificate, comment: bytes | str | None = None) -> None:
        try:
            key = as_x509_key(key_from_pyca(cert.public_key()))
            self.extensions = cert.extensions
            self.subject = cert.subject
            self.issuer = cert.issuer
            der = cert.public_bytes(Encoding.DER)
            self.user_principals, self.host_names, self.host_addresses = _principals(cert)
        except KeyImportError:
            raise
        except _MALFORMED as exc:
            raise KeyImportError(f'Malformed X.509 certificate: {exc}') from None

        algorithm = x509_algorithm(key.algorithm)
        super().__init__(
            algorithm, key.x509_sig_algorithms or key.sig_algorithms, (algorithm,), key, der, comment
        )
        self.x509_cert = cert

    def __repr__(self) -> str:
        return f'<{type(self).__name__} {self.get_algorithm()} {self.subject.rfc4514_string()!r}>'

    @classmethod
    def construct_from_der(cls, data: bytes, comment: bytes | str | None = None) -> Self:
        """Make a certificate from DER; `KeyImportError` if it is malformed, or its key not accepted."""

        if len(data) > MAX_CERTIFICATE_SIZE:
            raise KeyImportError(f'Expected a certificate of at most {MAX_CERTIFICATE_SIZE} bytes, got {len(data)}')

        try:
            cert = x509.load_der_x509_certificate(data)
        except _MALFORMED as exc:
            raise KeyImportError(f'Malformed X.509 certificate: {exc}') from None

        return cls(cert, comment)

    def shown(self) -> 'SSHX509CertificateChain':
        """Return the chain of this certificate alone."""

        return SSHX509CertificateChain([self], self._comment)

    def names_host(self, host: str) -> bool:
        """Tell whether the certificate is made out to a host, by name or address (RFC 6125 section 6.4.3).

        A wildcard stands for one whole label, the first, and needs two more behind it.
        """

        return _names_host(self, host)

    def export_certificate(self, format_name: str = 'openssh') -> bytes:
        """Export the certificate as der, pem or openssh (one line)."""

        if format_name == 'der':
            return self.public_data

        if format_name == 'pem':
            return self.x509_cert.public_bytes(Encoding.PEM)

        if format_name == 'openssh':
            # As AsyncSSH writes it: the certificate alone, and RSA's older name
            name = b'x509v3-ssh-rsa' if self.algorithm == X509_RSA_SHA256 else self.algorithm

            return encode_public_line(self.public_data, name, self._comment)

        raise KeyExportError(f'Unknown format {format_name!r} of X.509 certificates, expected der, pem or openssh')


class SSHX509CertificateChain(SSHCertificate):
    """A key's X.509 certificate and those of the authorities above it, as far as they are shown."""

    is_x509: ClassVar[bool] = True
    is_x509_chain: ClassVar[bool] = True

    def __init__(
        self, certs: Sequence[SSHX509Certificate], comment: bytes | str | None = None, algorithm: bytes | None = None
    ) -> None:
        if not 0 < len(certs) <= MAX_CHAIN_LENGTH:
            raise KeyImportError(f'Expected a chain of 1 to {MAX_CHAIN_LENGTH} certificates, got {len(certs)}')

        own = certs[0]
        name = algorithm or own.algorithm
        data = b''.join(
            (
                encode_string(name),
                encode_uint32(len(certs)),
                *(encode_string(cert.public_data) for cert in certs),
                encode_uint32(0),
            )
        )
        super().__init__(name, own.sig_algorithms, (name,), own.key, data, comment)
        self.certs = tuple(certs)

    def __repr__(self) -> str:
        subject = self.certs[0].subject.rfc4514_string()

        return f'<{type(self).__name__} {self.get_algorithm()} {subject!r} of {len(self.certs)}>'

    @classmethod
    def construct_from_certs(cls, certs: Iterable[SSHCertificate]) -> Self:
        """Make the chain of the first certificate: of the others, those that stand above it are taken, in order."""

        pool = [cert for cert in certs if isinstance(cert, SSHX509Certificate)]

        if not pool:
            raise KeyImportError('Expected X.509 certificates, found none')

        chain = [pool.pop(0)]

        while chain[-1].issuer != chain[-1].subject:
            above = next((cert for cert in pool if cert.subject == chain[-1].issuer), None)

            if above is None:
                break

            pool.remove(above)
            chain.append(above)

        return cls(chain, chain[0].get_comment_bytes())

    @classmethod
    def decode(cls, blob: bytes, comment: bytes | str | None = None) -> Self:
        """Decode a chain as peers send it; OCSP responses are passed over. `KeyImportError` if it is malformed."""

        cursor = Cursor(blob)

        try:
            algorithm = cursor.string()

            if not is_x509_algorithm(algorithm):
                raise KeyImportError('Expected a chain of X.509 certificates, got another key')

            count = cursor.uint32()

            if not 0 < count <= MAX_CHAIN_LENGTH:
                raise KeyImportError(f'Expected a chain of 1 to {MAX_CHAIN_LENGTH} certificates, got {count}')

            certs = [SSHX509Certificate.construct_from_der(cursor.string()) for _ in range(count)]
            responses = cursor.uint32()

            if responses > _MAX_OCSP_RESPONSES:
                raise KeyImportError(f'Expected at most {_MAX_OCSP_RESPONSES} OCSP responses, got {responses}')

            for _ in range(responses):
                cursor.string()

            cursor.check_end()
        except PacketDecodeError as exc:
            raise KeyImportError(f'Malformed chain of certificates: {exc.reason}') from None

        if algorithm != certs[0].algorithm and (algorithm, certs[0].key.algorithm) != (b'x509v3-ssh-rsa', b'ssh-rsa'):
            raise KeyImportError(
                f'Expected a certificate for {algorithm.decode()}, got one for {certs[0].get_algorithm()}'
            )

        chain = cls(certs, comment, algorithm)
        # What was signed and what is compared are the bytes that came.
        chain.public_data = blob

        return chain

    def export_certificate(self, format_name: str = 'openssh') -> bytes:
        """Export all certificates of the chain as pem, or lines of openssh."""

        if format_name not in ('pem', 'openssh'):
            raise KeyExportError(f'Unknown format {format_name!r} of certificate chains, expected pem or openssh')

        return b''.join(cert.export_certificate(format_name) for cert in self.certs)

    def write_certificate(self, filename: str | PurePath, format_name: str = 'pem') -> None:
        """Write all certificates of the chain to a file."""

        write_file(filename, self.export_certificate(format_name), os.O_TRUNC, 0o644)


def decode_shown_certificate(blob: bytes) -> SSHOpenSSHCertificate | SSHX509CertificateChain:
    """Decode a certificate of either kind as peers show it; `KeyImportError` if anything is wrong with it."""

    if blob.startswith(X509_PREFIX, 4):
        return SSHX509CertificateChain.decode(blob)

    return decode_certificate(blob)


def _principals(
    cert: x509.Certificate,
) -> tuple[list[str], list[str], list[ipaddress.IPv4Address | ipaddress.IPv6Address]]:
    """Return the users, the host names and the host addresses that a certificate is made out to.

    Users stand as e-mail addresses, which may be bare names; without any, the common name is the user.
    """

    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)

        return [str(common[0].value)] if len(common) == 1 else [], [], []

    addresses = [
        value
        for value in names.get_values_for_type(x509.IPAddress)
        if isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address)
    ]

    return names.get_values_for_type(x509.RFC822Name), names.get_values_for_type(x509.DNSName), addresses


def _names_host(cert: SSHX509Certificate, host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in cert.host_addresses
    except ValueError:
        pass

    if '*' in host:
        return False

    name = host.rstrip('.').lower()
    first, _, rest = name.partition('.')

    for pattern in cert.host_names:
        pattern = pattern.rstrip('.').lower()

        if pattern == name:
            return True

        if first and pattern.startswith('*.') and '.' in rest and pattern[2:] == rest:
            return True

    return False


def as_x509_key(key: SSHKey) -> SSHKey:
    """Return a key if there are X.509 certificates in SSH for its type; `KeyRefused` if not."""

    if x509_algorithm(key.algorithm) not in X509_ALGORITHMS:
        raise KeyRefused(f'There are no X.509 certificates in SSH for keys of type {key.get_algorithm()}')

    return key
