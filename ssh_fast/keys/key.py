"""The SSH key: what every key type offers, and how names and blobs become keys.

A key type is a subclass that registers its algorithm names. It knows three things only: its fields in the SSH encoding
(RFC 4253 section 6.6), its signature blobs, and its `cryptography` object for the PEM formats.
"""

import copy
import os
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from pathlib import PurePath
from typing import Any, ClassVar, Self

from ..errors import KeyExportError, KeyGenerationError, KeyImportError, PacketDecodeError
from ..logging import printable
from ..wire import Cursor, encode_string
from . import fingerprint, openssh_format, pem_format, rfc4716


def check_no_arguments(kwargs: dict[str, Any], algorithm: bytes) -> None:
    """Raise `KeyGenerationError` if arguments of a generation are left that the key type doesn't have."""

    if kwargs:
        raise KeyGenerationError(f'Unknown argument for a key of type {algorithm.decode()}: {", ".join(kwargs)}')


class KeyRefused(KeyImportError):
    """A key of an understood form that is not accepted: its type is not known, or its size is out of bounds."""


class SSHKey:
    """A public key, or a private key with its public part, and the comment that came with it."""

    algorithm: bytes = b''
    sig_algorithms: tuple[bytes, ...] = ()

    # Those of `sig_algorithms` that `verify` never takes: they count only where a caller's own list names them.
    weak_sig_algorithms: ClassVar[frozenset[bytes]] = frozenset()

    # The names of signatures under X.509 certificates, where they differ (RFC 6187)
    x509_sig_algorithms: ClassVar[tuple[bytes, ...]] = ()

    # Whether signing waits for a device, and its touch
    needs_device: ClassVar[bool] = False

    # Whether the PKCS#1 or SEC1 format is defined for the type
    has_traditional_format: ClassVar[bool] = False

    def __init__(self) -> None:
        self._comment: bytes | None = None
        self._filename: bytes | None = None
        self._public_data: bytes | None = None

    def __repr__(self) -> str:
        kind = 'private' if self.is_private else 'public'

        return f'<{type(self).__name__} {self.get_algorithm()} {kind} {self.get_fingerprint()}>'

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SSHKey) and self.public_data == other.public_data and self.is_private == other.is_private
        )

    def __hash__(self) -> int:
        return hash(self.public_data)

    # --- what a key type defines

    @classmethod
    def generate(cls, algorithm: bytes, **kwargs: Any) -> Self:
        """Generate a private key; the keyword arguments are the key type's own."""

        raise NotImplementedError

    @classmethod
    def decode_ssh_public(cls, algorithm: bytes, cursor: Cursor) -> Self:
        """Decode the fields that follow the algorithm name in a public key blob."""

        raise NotImplementedError

    @classmethod
    def decode_ssh_private(cls, algorithm: bytes, cursor: Cursor) -> Self:
        """Decode the fields that follow the algorithm name in an OpenSSH private key, and check that they agree."""

        raise NotImplementedError

    def encode_ssh_public(self) -> bytes:
        """Encode the fields of the public key that follow the algorithm name."""

        raise NotImplementedError

    def encode_ssh_private(self) -> bytes:
        """Encode the fields of the private key that follow the algorithm name."""

        raise NotImplementedError

    @property
    def is_private(self) -> bool:
        """Whether the private part is here."""

        raise NotImplementedError

    @property
    def pyca_key(self) -> Any:
        """The key as an object of the `cryptography` package, private if this key is."""

        raise NotImplementedError

    def convert_to_public(self) -> 'SSHKey':
        """Return the public key of a private key; it keeps the comment and the file name."""

        raise NotImplementedError

    @property
    def type_name(self) -> str:
        """The key's type as ssh-keygen shows it, as RSA or ED25519."""

        raise NotImplementedError

    @property
    def bits(self) -> int:
        """The key's size in bits, as ssh-keygen shows it."""

        raise NotImplementedError

    def encode_agent_cert_private(self) -> bytes:
        """Encode what follows a certificate in an agent's add request: the fields that the certificate lacks."""

        raise NotImplementedError

    def sign_raw(self, data: bytes, sig_algorithm: bytes) -> bytes:
        """Make the signature blob that follows the algorithm name."""

        raise NotImplementedError

    def verify_raw(self, data: bytes, sig_algorithm: bytes, blob: bytes) -> bool:
        """Tell whether a signature blob is right; never raises on what a peer sent."""

        raise NotImplementedError

    def sign_fields(self, data: bytes, sig_algorithm: bytes) -> bytes:
        """Make all fields that follow the algorithm name in a signature: here the one blob as a string."""

        return encode_string(self.sign_raw(data, sig_algorithm))

    def verify_fields(self, data: bytes, sig_algorithm: bytes, cursor: Cursor) -> bool:
        """Tell whether the fields that follow the algorithm name are right; raises `PacketDecodeError` only."""

        blob = cursor.string()
        cursor.check_end()

        return self.verify_raw(data, sig_algorithm, blob)

    # --- signatures

    def set_touch_required(self, touch_required: bool) -> None:
        """Set whether a security key's signature counts only if it was touched (default); others have no such sign."""

    def set_verify_required(self, verify_required: bool) -> None:
        """Set whether a security key's signature counts only if it knew its user, by PIN or finger (default: no)."""

    def sign(self, data: bytes, sig_algorithm: bytes) -> bytes:
        """Sign data: string signature algorithm, string signature blob (RFC 4253 section 6.6)."""

        if not self.is_private:
            raise ValueError(f'A private key is needed for signing, got the public {self.get_algorithm()} key')

        if sig_algorithm not in self.sig_algorithms + self.x509_sig_algorithms:
            name = sig_algorithm.decode(errors='replace')
            raise ValueError(f'A {self.get_algorithm()} key cannot make {name} signatures')

        return encode_string(sig_algorithm) + self.sign_fields(data, sig_algorithm)

    def verify(self, data: bytes, sig: bytes) -> bool:
        """Tell whether a signature by any of this key's signature algorithms is right; SHA-1 of RSA never is."""

        allowed = [name for name in self.sig_algorithms if name not in self.weak_sig_algorithms]

        return verify_signature(self, data, sig, allowed)

    # --- names

    @property
    def public_data(self) -> bytes:
        """The public key blob: string algorithm, then the key's fields."""

        if self._public_data is None:
            self._public_data = encode_string(self.algorithm) + self.encode_ssh_public()

        return self._public_data

    @property
    def private_data(self) -> bytes:
        """The private key as it stands in an OpenSSH file and in agent messages: string algorithm, then all fields."""

        self._check_private()

        return encode_string(self.algorithm) + self.encode_ssh_private()

    def get_algorithm(self) -> str:
        """Return the name of the key's algorithm."""

        return self.algorithm.decode('ascii')

    def get_fingerprint(self, hash_name: str = 'sha256') -> str:
        """Return the fingerprint as OpenSSH shows it: the hash's name, a colon, the hash (md5 in hex, else base64)."""

        return fingerprint.fingerprint(self.public_data, hash_name)

    def get_randomart(self, hash_name: str = 'sha256') -> str:
        """Return the picture of the fingerprint that `ssh-keygen -lv` shows, eleven lines of text."""

        return fingerprint.randomart(self.public_data, hash_name, self.type_name, self.bits)

    def has_comment(self) -> bool:
        """Tell whether the key has a comment."""

        return bool(self._comment)

    def get_comment_bytes(self) -> bytes | None:
        """Return the comment as it stands in the file."""

        return self._comment

    def get_comment(self, encoding: str = 'utf-8', errors: str = 'strict') -> str | None:
        """Return the comment as text."""

        return None if self._comment is None else self._comment.decode(encoding, errors)

    def set_comment(self, comment: bytes | str | None, encoding: str = 'utf-8', errors: str = 'strict') -> None:
        """Set the comment, or remove it."""

        if isinstance(comment, str):
            comment = comment.encode(encoding, errors)

        if comment is not None and any(char in comment for char in b'\r\n\0'):
            raise ValueError('A key comment cannot hold line ends or NUL')

        self._comment = comment or None

    def get_filename(self) -> bytes | None:
        """Return the name of the file that the key was read from."""

        return self._filename

    def set_filename(self, filename: bytes | str | PurePath | None) -> None:
        """Remember the name of the file that the key was read from."""

        self._filename = None if filename is None else os.fsencode(filename)

    # --- export

    def export_private_key(
        self,
        format_name: str = 'openssh',
        passphrase: bytes | str | None = None,
        cipher_name: str | None = None,
        hash_name: str = 'sha256',
        pbe_version: int = 2,
        rounds: int = 128,
        ignore_few_rounds: bool = False,
    ) -> bytes:
        """Export the private key as openssh, pkcs1-pem, pkcs1-der, pkcs8-pem or pkcs8-der, encrypted if asked.

        `cipher_name` defaults to aes256-ctr for openssh and aes256-cbc elsewhere; `rounds` are those of openssh's
        bcrypt KDF. A combination that cannot be written raises `KeyExportError` or `KeyEncryptionError`.
        """

        self._check_private()

        if isinstance(passphrase, str):
            passphrase = passphrase.encode()

        if format_name == 'openssh':
            return openssh_format.encode_private(
                self.public_data,
                self.private_data,
                self._comment or b'',
                passphrase,
                cipher_name or 'aes256-ctr',
                rounds,
                ignore_few_rounds,
            )

        if format_name.startswith('pkcs1-') and not self.has_traditional_format:
            raise KeyExportError(f'A {self.get_algorithm()} key has no PKCS#1 form: use openssh or pkcs8-pem')

        return pem_format.encode_private(
            self.pyca_key, format_name, passphrase, cipher_name or 'aes256-cbc', hash_name, pbe_version
        )

    def export_public_key(self, format_name: str = 'openssh') -> bytes:
        """Export the public key as openssh, rfc4716, pkcs1-pem, pkcs1-der, pkcs8-pem or pkcs8-der."""

        if format_name == 'openssh':
            return openssh_format.encode_public_line(self.public_data, self.algorithm, self._comment)

        if format_name == 'rfc4716':
            return rfc4716.encode_rfc4716(self.public_data, self._comment)

        key = self.convert_to_public().pyca_key

        return pem_format.encode_public(key, format_name)

    def write_private_key(self, filename: str | PurePath, *args: Any, **kwargs: Any) -> None:
        """Write the private key, as `export_private_key` makes it, to a file that only its owner can read."""

        write_file(filename, self.export_private_key(*args, **kwargs), os.O_TRUNC, 0o600)

    def write_public_key(self, filename: str | PurePath, *args: Any, **kwargs: Any) -> None:
        """Write the public key, as `export_public_key` makes it, to a file."""

        write_file(filename, self.export_public_key(*args, **kwargs), os.O_TRUNC, 0o644)

    def append_private_key(self, filename: str | PurePath, *args: Any, **kwargs: Any) -> None:
        """Append the private key, as `export_private_key` makes it, to a file that only its owner can read."""

        write_file(filename, self.export_private_key(*args, **kwargs), os.O_APPEND, 0o600)

    def append_public_key(self, filename: str | PurePath, *args: Any, **kwargs: Any) -> None:
        """Append the public key, as `export_public_key` makes it, to a file."""

        write_file(filename, self.export_public_key(*args, **kwargs), os.O_APPEND, 0o644)

    # --- certificates

    def generate_user_certificate(
        self,
        user_key: 'SSHKey',
        key_id: str,
        version: int = 1,
        serial: int = 0,
        principals: str | Sequence[str] = (),
        valid_after: int | float | datetime | str = 0,
        valid_before: int | float | datetime | str = 0xffffffffffffffff,
        force_command: str | None = None,
        source_address: Sequence[str] | None = None,
        permit_x11_forwarding: bool = True,
        permit_agent_forwarding: bool = True,
        permit_port_forwarding: bool = True,
        permit_pty: bool = True,
        permit_user_rc: bool = True,
        touch_required: bool = True,
        sig_alg: str | tuple[()] = (),
        comment: bytes | str | tuple[()] | None = (),
    ) -> Any:
        """Sign a user's key with this key, an authority's, and return the `SSHOpenSSHCertificate`.

        Times are seconds since 1970, datetimes, 'now', local dates YYYYMMDD[HHMM[SS]] (with a Z behind: in UTC), or
        from now as in '1w2d' and '-1h'. Without `principals` the certificate is made out to nobody.
        """

        from .certificate_issue import issue_user_certificate

        return issue_user_certificate(
            self,
            user_key,
            key_id,
            version,
            serial,
            principals,
            valid_after,
            valid_before,
            force_command,
            source_address,
            permit_x11_forwarding,
            permit_agent_forwarding,
            permit_port_forwarding,
            permit_pty,
            permit_user_rc,
            touch_required,
            sig_alg,
            comment,
        )

    def generate_host_certificate(
        self,
        host_key: 'SSHKey',
        key_id: str,
        version: int = 1,
        serial: int = 0,
        principals: str | Sequence[str] = (),
        valid_after: int | float | datetime | str = 0,
        valid_before: int | float | datetime | str = 0xffffffffffffffff,
        sig_alg: str | tuple[()] = (),
        comment: bytes | str | tuple[()] | None = (),
    ) -> Any:
        """Sign a host's key with this key, an authority's; `principals` are the host's names, patterns included."""

        from .certificate_issue import issue_host_certificate

        return issue_host_certificate(
            self, host_key, key_id, version, serial, principals, valid_after, valid_before, sig_alg, comment
        )

    def generate_x509_user_certificate(
        self,
        user_key: 'SSHKey',
        subject: str,
        issuer: str | None = None,
        serial: int | None = None,
        principals: str | Sequence[str] = (),
        valid_after: int | float | datetime | str = 0,
        valid_before: int | float | datetime | str = 0xffffffffffffffff,
        purposes: str | Sequence[str] | None = 'secureShellClient',
        hash_alg: str | tuple[()] = (),
        comment: bytes | str | tuple[()] | None = (),
    ) -> Any:
        """Sign a user's key with this key, an authority's, and return the `SSHX509Certificate`.

        Names are `type=value` pairs between commas; without `issuer` it is the subject. Without `principals` the
        subject's common name is the user.
        """

        from .x509_issue import issue_x509_end_entity

        return issue_x509_end_entity(
            self, user_key, subject, issuer, serial, principals, valid_after, valid_before, purposes, hash_alg, comment,
            host=False,
        )  # fmt: skip

    def generate_x509_host_certificate(
        self,
        host_key: 'SSHKey',
        subject: str,
        issuer: str | None = None,
        serial: int | None = None,
        principals: str | Sequence[str] = (),
        valid_after: int | float | datetime | str = 0,
        valid_before: int | float | datetime | str = 0xffffffffffffffff,
        purposes: str | Sequence[str] | None = 'secureShellServer',
        hash_alg: str | tuple[()] = (),
        comment: bytes | str | tuple[()] | None = (),
    ) -> Any:
        """Sign a host's key with this key, an authority's; `principals` are the host's names and addresses."""

        from .x509_issue import issue_x509_end_entity

        return issue_x509_end_entity(
            self, host_key, subject, issuer, serial, principals, valid_after, valid_before, purposes, hash_alg, comment,
            host=True,
        )  # fmt: skip

    def generate_x509_ca_certificate(
        self,
        ca_key: 'SSHKey',
        subject: str,
        issuer: str | None = None,
        serial: int | None = None,
        valid_after: int | float | datetime | str = 0,
        valid_before: int | float | datetime | str = 0xffffffffffffffff,
        ca_path_len: int | None = None,
        hash_alg: str | tuple[()] = (),
        comment: bytes | str | tuple[()] | None = (),
    ) -> Any:
        """Sign an authority's key; `ca_path_len` bounds how many authorities may stand below it."""

        from .x509_issue import issue_x509_ca

        return issue_x509_ca(
            self, ca_key, subject, issuer, serial, valid_after, valid_before, ca_path_len, hash_alg, comment
        )

    def _check_private(self) -> None:
        if not self.is_private:
            raise KeyExportError(f'A private key is needed, got the public {self.get_algorithm()} key')

    def _copy_names(self, other: Self) -> Self:
        """Take comment and file name from the key that this one was made from."""

        self._comment = other._comment
        self._filename = other._filename

        return self


def write_file(filename: str | PurePath, data: bytes, flag: int, mode: int) -> None:
    """Write or append to a file, by an `os.O_` flag; a file of mode 0o600 has that mode even if it was there."""

    fd = os.open(filename, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flag, mode)

    with open(fd, 'wb') as file:
        if mode == 0o600:
            os.fchmod(fd, mode)

        file.write(data)


# --- the key types

_KEY_TYPES: dict[bytes, type[SSHKey]] = {}
_PYCA_DECODERS: list[Callable[[Any], SSHKey | None]] = []


def register_key_type(
    cls: type[SSHKey], algorithms: Collection[bytes], from_pyca: Callable[[Any], SSHKey | None]
) -> None:
    """Make a key type known: its algorithm names, and how it is made from a `cryptography` key (None: not its own)."""

    _KEY_TYPES.update(dict.fromkeys(algorithms, cls))
    _PYCA_DECODERS.append(from_pyca)


def key_type(algorithm: bytes) -> type[SSHKey]:
    """Return the class of a key algorithm; `KeyRefused` if it is not known."""

    try:
        return _KEY_TYPES[algorithm]
    except KeyError:
        raise KeyRefused(f'Unknown key algorithm {printable(algorithm.decode(errors="replace"), 64)!r}') from None


def decode_public_key(blob: bytes) -> SSHKey:
    """Decode a public key blob; what is malformed, of a wrong size or unknown raises `KeyImportError`."""

    cursor = Cursor(blob)

    try:
        algorithm = cursor.string()
        key = key_type(algorithm).decode_ssh_public(algorithm, cursor)
        cursor.check_end()
    except PacketDecodeError as exc:
        raise KeyImportError(f'Malformed public key: {exc.reason}') from None

    return key


def decode_private_key(cursor: Cursor) -> SSHKey:
    """Decode a private key in the encoding of OpenSSH files and agent messages; what follows it is left."""

    try:
        algorithm = cursor.string()

        return key_type(algorithm).decode_ssh_private(algorithm, cursor)
    except PacketDecodeError as exc:
        raise KeyImportError(f'Malformed private key: {exc.reason}') from None


def key_from_pyca(pyca_key: Any) -> SSHKey:
    """Make a key from a public or private key object of the `cryptography` package."""

    for from_pyca in _PYCA_DECODERS:
        key = from_pyca(pyca_key)

        if key is not None:
            return key

    raise KeyRefused(f'Unknown key type {type(pyca_key).__name__}')


def verify_signature(key: SSHKey, data: bytes, sig: bytes, allowed: Collection[bytes]) -> bool:
    """Tell whether a signature is right, and its algorithm both this key's own and exactly one of those allowed."""

    cursor = Cursor(sig)

    try:
        sig_algorithm = cursor.string()

        # Names are compared whole: a family's name must not admit its other members (CVE-2026-35387).
        if sig_algorithm not in allowed or sig_algorithm not in key.sig_algorithms + key.x509_sig_algorithms:
            return False

        return key.verify_fields(data, sig_algorithm, cursor)
    except PacketDecodeError:
        return False


def generate_private_key(alg_name: str, comment: bytes | str | None = None, **kwargs: Any) -> SSHKey:
    """Generate a private key; ssh-rsa takes `key_size` (bits, default 3072) and `exponent` (default 65537)."""

    algorithm = alg_name.encode()

    if algorithm not in _KEY_TYPES:
        raise KeyGenerationError(f'Unknown algorithm {alg_name!r}, expected one of {b", ".join(_KEY_TYPES).decode()}')

    key = _KEY_TYPES[algorithm].generate(algorithm, **kwargs)
    key.set_comment(comment)

    return key


def copy_key(key: SSHKey) -> SSHKey:
    """Copy a key, so that its comment and file name can be set apart; the key material is shared."""

    return copy.copy(key)
