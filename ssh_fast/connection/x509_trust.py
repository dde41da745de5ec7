"""Which X.509 certificates a connection trusts: the authorities, the purposes, and what is revoked."""

from collections.abc import Collection, Sequence

from cryptography.x509 import ObjectIdentifier

from ..keys.key import SSHKey
from ..keys.revocation import RevokedKeys
from ..keys.x509 import SSHX509Certificate, SSHX509CertificateChain
from ..keys.x509_path import find_path


class X509Trust:
    """Authorities, and certificates that are trusted by themselves; `purposes` None takes certificates for any."""

    def __init__(
        self,
        trusted: Sequence[SSHX509Certificate],
        purposes: Collection[ObjectIdentifier] | None,
        revoked_keys: RevokedKeys | None,
        revoked: Sequence[SSHKey] = (),
        revoked_certs: Sequence[SSHX509Certificate] = (),
    ) -> None:
        self.trusted = trusted
        self._purposes = purposes
        self._revoked_keys = revoked_keys
        self._revoked = {key.public_data for key in revoked}
        # By what is signed: who holds a certificate can write its signature in other ways that verify as well.
        self._revoked_certs = {cert.x509_cert.tbs_certificate_bytes for cert in revoked_certs}

    def verify(self, chain: SSHX509CertificateChain) -> SSHX509Certificate:
        """Return the key's certificate, or raise `ValueError` if its chain leads to none that is trusted.

        Nothing on the path may be revoked, as certificate or by its key.
        """

        path = find_path(chain.certs, self.trusted, self._purposes)

        for cert in path:
            if self._is_revoked(cert):
                raise ValueError(f'{cert.subject.rfc4514_string()[:80]!r} is revoked')

        return path[0]

    def _is_revoked(self, cert: SSHX509Certificate) -> bool:
        return (
            cert.key.public_data in self._revoked
            or cert.x509_cert.tbs_certificate_bytes in self._revoked_certs
            or bool(self._revoked_keys and self._revoked_keys.revokes(cert))
        )
