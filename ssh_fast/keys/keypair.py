"""The key pair: a private key as authentication and the host key exchange use it, wherever it is kept."""

import copy
from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable, iscoroutine
from typing import Self, TypeAlias

from ..errors import KeyImportError
from ..wire import encode_string
from .certificate import SSHCertificate
from .key import SSHKey

PassphraseValue: TypeAlias = bytes | str | None


class SSHKeyPair:
    """What can sign for a public key: a key held here, or one that an agent or a device holds.

    With a certificate, `public_data` and `host_key_algorithms` are the certificate's; signatures are the key's own.
    """

    _key_type = 'unknown'

    # Whether `sign` waits for a person or a device, so that an event loop should call it in a thread
    use_executor = False

    def __init__(
        self,
        algorithm: bytes,
        sig_algorithms: Sequence[bytes],
        public_data: bytes,
        comment: bytes | str | None,
        filename: bytes | None = None,
    ) -> None:
        self.algorithm = algorithm
        self.sig_algorithms = tuple(sig_algorithms)
        self.host_key_algorithms = self.sig_algorithms
        self.sig_algorithm = self.sig_algorithms[0] if self.sig_algorithms else algorithm
        self.public_data = public_data
        self._comment: bytes | None = None
        self._filename = filename
        self._cert: SSHCertificate | None = None
        self.set_comment(comment)

    def __repr__(self) -> str:
        return f'<{type(self).__name__} {self.get_algorithm()} {self.get_comment(errors="replace")!r}>'

    def get_key_type(self) -> str:
        """Return where the private key is kept: local, agent or pkcs11."""

        return self._key_type

    def get_algorithm(self) -> str:
        """Return the name of the key's algorithm."""

        return self.algorithm.decode('ascii', 'replace')

    def get_comment_bytes(self) -> bytes | None:
        """Return the comment as bytes."""

        return self._comment

    def get_comment(self, encoding: str = 'utf-8', errors: str = 'strict') -> str | None:
        """Return the comment as text."""

        return None if self._comment is None else self._comment.decode(encoding, errors)

    def set_comment(self, comment: bytes | str | None, encoding: str = 'utf-8', errors: str = 'strict') -> None:
        """Set the comment, or remove it."""

        self._comment = (comment.encode(encoding, errors) if isinstance(comment, str) else comment) or None

    def get_filename(self) -> bytes | None:
        """Return the name of the file that the key was read from."""

        return self._filename

    @property
    def has_cert(self) -> bool:
        """Whether there is a certificate."""

        return self._cert is not None

    @property
    def has_x509_chain(self) -> bool:
        """Whether the certificate is a chain of X.509 certificates."""

        return self._cert is not None and self._cert.is_x509_chain

    @property
    def certificate(self) -> SSHCertificate | None:
        """The certificate, if there is one."""

        return self._cert

    def set_certificate(self, cert: SSHCertificate) -> None:
        """Show a certificate in place of the public key from now on; `ValueError` if it is that of another key."""

        if cert.key.public_data != (self._cert.key.public_data if self._cert else self.public_data):
            raise ValueError(f'Expected a certificate of the {self.get_algorithm()} key, got that of another key')

        cert = cert.shown()

        if cert.is_x509_chain:
            if self._key_type != 'local':
                raise ValueError(f'X.509 certificates are for keys held here, got one of kind {self._key_type}')

            self.sig_algorithms = tuple(cert.sig_algorithms)
            self.sig_algorithm = self.sig_algorithms[0]

        self._cert = cert
        self.algorithm = cert.algorithm
        self.host_key_algorithms = tuple(cert.host_key_algorithms)
        self.public_data = cert.public_data

    def with_certificate(self, cert: SSHCertificate) -> Self:
        """Return a key pair of the same key that shows a certificate."""

        pair = copy.copy(self)
        pair.set_certificate(cert)

        return pair

    def set_sig_algorithm(self, sig_algorithm: bytes) -> None:
        """Choose the signature algorithm of the signatures from now on; it must be one of `sig_algorithms`."""

        if sig_algorithm not in self.sig_algorithms:
            name = sig_algorithm.decode(errors='replace')
            raise ValueError(f'A {self.get_algorithm()} key cannot make {name} signatures')

        self.sig_algorithm = sig_algorithm

    def sign(self, data: bytes) -> bytes | Awaitable[bytes]:
        """Sign data with the chosen algorithm: string algorithm, string blob, or an awaitable of it."""

        raise NotImplementedError

    def get_agent_private_key(self) -> bytes:
        """Return the private key as an agent's add request holds it (draft-ietf-sshm-ssh-agent section 3.2)."""

        raise ValueError('This key cannot be added to an agent: its private part is not here')


class SSHLocalKeyPair(SSHKeyPair):
    """A key pair whose private key is held in this process."""

    _key_type = 'local'

    def __init__(self, key: SSHKey, comment: bytes | str | None = None) -> None:
        if not key.is_private:
            raise ValueError(f'A key pair needs a private key, got the public {key.get_algorithm()} key')

        super().__init__(
            key.algorithm, key.sig_algorithms, key.public_data, comment or key.get_comment_bytes(), key.get_filename()
        )
        self._key = key
        self.use_executor = key.needs_device

    @property
    def key(self) -> SSHKey:
        """The private key."""

        return self._key

    def sign(self, data: bytes) -> bytes:
        """Sign data with the chosen algorithm."""

        return self._key.sign(data, self.sig_algorithm)

    def get_agent_private_key(self) -> bytes:
        """Return string algorithm and the key's private fields, with a certificate before them if there is one."""

        return _agent_private_key(self._key, self._cert)


class Seal:
    """A private key in an encrypted file, and what opens it; `ask` returns the passphrase or an awaitable of it."""

    def __init__(
        self,
        ask: Callable[[], PassphraseValue | Awaitable[PassphraseValue]],
        open_with: Callable[[PassphraseValue], SSHKey],
    ) -> None:
        self.ask = ask
        self._open_with = open_with
        self.key: SSHKey | None = None

    def open_with(self, passphrase: PassphraseValue) -> SSHKey:
        """Open the key, and keep it."""

        self.key = self._open_with(passphrase)

        return self.key


class SSHSealedKeyPair(SSHKeyPair):
    """A key pair whose private key is in an encrypted file, and opened when it is first used.

    All copies of a pair, of which each login makes its own, share the `seal`. `sign` raises what its functions do.
    """

    _key_type = 'local'

    def __init__(self, public_key: SSHKey, seal: Seal) -> None:
        super().__init__(
            public_key.algorithm,
            public_key.sig_algorithms,
            public_key.public_data,
            public_key.get_comment_bytes(),
            public_key.get_filename(),
        )
        self.seal = seal
        self.use_executor = True

    def open_now(self) -> SSHKey:
        """Open the key; `KeyImportError` if its passphrase can only be awaited."""

        if self.seal.key is not None:
            return self.seal.key

        passphrase = self.seal.ask()

        if isawaitable(passphrase):
            if iscoroutine(passphrase):
                passphrase.close()

            raise KeyImportError('The passphrase of this key can only be awaited, and is needed at once')

        return self.seal.open_with(passphrase)

    def sign(self, data: bytes) -> bytes | Awaitable[bytes]:
        """Sign data with the chosen algorithm, after the passphrase was asked for."""

        if self.seal.key is not None:
            return self.seal.key.sign(data, self.sig_algorithm)

        passphrase = self.seal.ask()

        if isawaitable(passphrase):
            return self._sign_later(passphrase, data)

        return self.seal.open_with(passphrase).sign(data, self.sig_algorithm)

    async def _sign_later(self, answer: Awaitable[PassphraseValue], data: bytes) -> bytes:
        return self.seal.open_with(await answer).sign(data, self.sig_algorithm)

    def get_agent_private_key(self) -> bytes:
        """Return string algorithm and the key's private fields, with a certificate before them if there is one."""

        return _agent_private_key(self.open_now(), self._cert)


def _agent_private_key(key: SSHKey, cert: SSHCertificate | None) -> bytes:
    if cert is None:
        return key.private_data

    return encode_string(cert.algorithm) + encode_string(cert.public_data) + key.encode_agent_cert_private()
