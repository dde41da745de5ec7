"""The key pair: a private key as authentication and the host key exchange use it, wherever it is kept."""

from collections.abc import Awaitable, Sequence

from .key import SSHKey


class SSHKeyPair:
    """What can sign for a public key: a key held here, or one that an agent holds."""

    _key_type = 'unknown'

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
        self.set_comment(comment)

    def __repr__(self) -> str:
        return f'<{type(self).__name__} {self.get_algorithm()} {self.get_comment(errors="replace")!r}>'

    def get_key_type(self) -> str:
        """Return where the private key is kept: local or agent."""

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

    @property
    def key(self) -> SSHKey:
        """The private key."""

        return self._key

    def sign(self, data: bytes) -> bytes:
        """Sign data with the chosen algorithm."""

        return self._key.sign(data, self.sig_algorithm)

    def get_agent_private_key(self) -> bytes:
        """Return string algorithm and the key's private fields."""

        return self._key.private_data
