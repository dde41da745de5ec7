"""Which keys and certificates a server accepts from a client, and from the client's host."""

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from inspect import isawaitable
from typing import Any

from ..keys.authorized_keys import SSHAuthorizedKeys
from ..keys.certificate import CERT_TYPE_HOST, CERT_TYPE_USER, SSHCertificate, SSHOpenSSHCertificate
from ..keys.key import SSHKey
from ..keys.known_hosts import match_known_hosts
from ..keys.permissions import Grant, Permissions
from ..keys.principals import SSHAuthorizedPrincipals
from ..keys.x509 import SSHX509Certificate, SSHX509CertificateChain
from ..logging import ContextLogger, printable
from .callbacks import SSHServer
from .options import SSHServerConnectionOptions
from .x509_trust import X509Trust

Credential = SSHKey | SSHCertificate
_Judgement = Grant | Awaitable[Grant | None] | None


class ClientTrust:
    """Judges what a client shows by the options first, then by the owner's word; what is revoked never passes."""

    def __init__(self, owner: SSHServer, options: SSHServerConnectionOptions, logger: ContextLogger) -> None:
        self._owner = owner
        self._options = options
        self._logger = logger

    # --- users

    def judge_key(
        self, username: str, key: SSHKey, authorized_keys: SSHAuthorizedKeys | None, host: str, addr: str
    ) -> _Judgement:
        """Return what admits a key; None if nothing does."""

        if self._is_revoked(key):
            return None

        options = None if authorized_keys is None else authorized_keys.validate(key, host, addr)

        if options is not None:
            return self._granted(Grant(options))

        if not self._owner.public_key_auth_supported():
            return None

        return self._if_trusted(self._owner.validate_public_key(username, key), Grant({}))

    def judge_certificate(
        self, username: str, cert: SSHCertificate, authorized_keys: SSHAuthorizedKeys | None, host: str, addr: str
    ) -> _Judgement:
        """Return what admits a certificate; None if nothing does.

        Its authority may stand in authorized_keys, whose line may name principals; among the trusted authorities, for
        whom the principals file names principals if there is one; or have the owner's trust. Where no principals are
        named, the certificate must be made out to the user.
        """

        if isinstance(cert, SSHX509CertificateChain):
            return self._judge_x509(username, cert, authorized_keys, host, addr)

        if not isinstance(cert, SSHOpenSSHCertificate) or self._is_revoked(cert):
            return None

        try:
            cert.check(CERT_TYPE_USER, self._options.ca_signature_algs)
        except ValueError as exc:
            self._logger.info('Certificate %s refused: %s', printable(cert.key_id, 64), exc)
            return None

        if not cert.admits_address(addr):
            self._logger.info('Certificate %s refused: not valid from %s', printable(cert.key_id, 64), addr)
            return None

        options = self._match_authority(username, cert, authorized_keys, host, addr)

        if options is not None:
            return self._granted(Grant(options, cert.options))

        if username not in cert.principals:
            return None

        return self._if_trusted(
            self._owner.validate_ca_key(username, cert.signing_key), Grant({}, cert.options)
        )

    def _judge_x509(
        self,
        username: str,
        chain: SSHX509CertificateChain,
        authorized_keys: SSHAuthorizedKeys | None,
        host: str,
        addr: str,
    ) -> Grant | None:
        """Return what admits an X.509 certificate: a line of authorized_keys, or that a trusted authority made it.

        It must be made out to the user, unless the line names principals, or is for this very certificate.
        """

        if self._options.x509_authorities is None:
            return None

        own = chain.certs[0]

        if authorized_keys is not None:
            for options, trusted in authorized_keys.match_x509(chain, host, addr):
                admitted = trusted == own or 'principals' in options or username in own.user_principals

                if admitted and self._verify_x509(chain, (trusted,)):
                    return self._granted(Grant(options))

        if username in own.user_principals and self._verify_x509(chain, self._options.x509_authorities):
            return Grant({})

        return None

    def _verify_x509(self, chain: SSHX509CertificateChain, trusted: Sequence[SSHX509Certificate]) -> bool:
        """Tell whether a chain leads to a trusted certificate, over none that is revoked."""

        try:
            X509Trust(trusted, self._options.x509_purposes, self._options.revoked_keys).verify(chain)
        except ValueError as exc:
            self._logger.info('An X.509 certificate is refused: %s', printable(str(exc)))

            return False

        return True

    def _match_authority(
        self,
        username: str,
        cert: SSHOpenSSHCertificate,
        authorized_keys: SSHAuthorizedKeys | None,
        host: str,
        addr: str,
    ) -> Mapping[str, Any] | None:
        """Return the options of the line that admits the certificate."""

        if authorized_keys is not None:
            options = authorized_keys.validate(cert.signing_key, host, addr, cert.principals, ca=True)

            if options is not None and ('principals' in options or username in cert.principals):
                return options

        if not _lists(self._options.trusted_user_ca_keys, cert.signing_key):
            return None

        principals = self._options.authorized_principals

        if principals is None:
            return {} if username in cert.principals else None

        if callable(principals):
            principals = principals(username)

            # No file for this user: nobody is named, as with OpenSSH.
            if principals is None:
                return None

        if not isinstance(principals, SSHAuthorizedPrincipals):
            raise TypeError(
                f'authorized_principals: expected SSHAuthorizedPrincipals or None, got {type(principals).__name__}'
            )

        return principals.validate(cert.principals, host, addr)

    def _granted(self, grant: Grant) -> Grant | None:
        try:
            Permissions([grant])
        except ValueError as exc:
            self._logger.warning('A certificate is refused: %s', exc)
            return None

        return grant

    def _if_trusted(self, answer: bool | Awaitable[bool], grant: Grant) -> _Judgement:
        if isawaitable(answer):
            return self._await_trust(answer, grant)

        return grant if answer else None

    async def _await_trust(self, answer: Awaitable[bool], grant: Grant) -> Grant | None:
        return grant if await answer else None

    def _is_revoked(self, credential: Credential) -> bool:
        revoked = self._options.revoked_keys

        if revoked is None or not revoked.revokes(credential):
            return False

        self._logger.warning('A key that is revoked was refused')

        return True

    # --- hosts

    def trusts_host(self, credential: Credential, name: str, addr: str, port: int) -> bool:
        """Tell whether a client's host is the one it claims to be, by its key or its certificate.

        A name that was taken from its request, and need not be that of its address, must be the key's own.
        """

        if self._is_revoked(credential):
            return False

        known = self._options.known_client_hosts
        found = None if known is None else match_known_hosts(known, name, addr, None)
        trusted, authorities, revoked = ((), (), ()) if found is None else found[:3]

        if known is not None and self._options.trust_client_host:
            # Patterns of addresses may keep a host out, but do not prove its name.
            named = match_known_hosts(known, name, '', None)
            trusted = [key for key in trusted if _lists(named.host_keys, key)]
            authorities = [key for key in authorities if _lists(named.ca_keys, key)]

        if isinstance(credential, SSHKey):
            if _lists(revoked, credential):
                return False

            return _lists(trusted, credential) or (
                self._owner.validate_host_public_key(name, addr, port, credential) is True
            )

        if not isinstance(credential, SSHOpenSSHCertificate):
            return False

        if _lists(revoked, credential.key) or _lists(revoked, credential.signing_key):
            return False

        try:
            credential.check(CERT_TYPE_HOST, self._options.ca_signature_algs)
        except ValueError as exc:
            self._logger.info('Certificate of the host %s refused: %s', printable(name, 64), exc)
            return False

        if not credential.names(name):
            return False

        return _lists(authorities, credential.signing_key) or (
            self._owner.validate_host_ca_key(name, addr, port, credential.signing_key) is True
        )


def _lists(keys: Iterable[SSHKey], key: SSHKey) -> bool:
    """Tell whether keys, of which some may be private ones, include a key."""

    return any(listed.public_data == key.public_data for listed in keys)
