"""The OpenSSH certificate, version 01: a public key, who it stands for and until when, signed by an authority.

string algorithm | string nonce | the key's fields | uint64 serial | uint32 type | string key id | string principals |
uint64 valid after | uint64 valid before | string critical options | string extensions | string reserved |
string authority's key | string signature (PROTOCOL.certkeys). A host certificate has no extensions.
"""

import ipaddress
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, ClassVar, Final, Self

from ..errors import KeyExportError, KeyImportError, PacketDecodeError
from ..logging import printable
from ..wire import Cursor
from .certificate_names import certificate_algorithm, certificate_algorithms, is_certificate_algorithm, plain_algorithm
from .key import SSHKey, decode_public_key, key_type, verify_signature, write_file
from .openssh_format import encode_public_line
from .patterns import matches_wildcard, parse_address
from .rfc4716 import encode_rfc4716

CERT_TYPE_USER: Final = 1
CERT_TYPE_HOST: Final = 2

# Valid before this means for ever.
NEVER: Final = 0xffffffffffffffff

# OpenSSH's SSHKEY_CERT_MAX_PRINCIPALS
MAX_PRINCIPALS: Final = 256

# What an authority may sign with unless the option says otherwise: OpenSSH's CASignatureAlgorithms
DEFAULT_CA_SIGNATURES: Final = (
    b'ssh-ed25519',
    b'ecdsa-sha2-nistp256',
    b'ecdsa-sha2-nistp384',
    b'ecdsa-sha2-nistp521',
    b'sk-ssh-ed25519@openssh.com',
    b'sk-ecdsa-sha2-nistp256@openssh.com',
    b'rsa-sha2-512',
    b'rsa-sha2-256',
    b'ssh-ed448',
)

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_TYPE_NAMES = {CERT_TYPE_USER: 'user', CERT_TYPE_HOST: 'host'}


class SSHCertificate:
    """A public key that somebody vouches for, and the comment that came with it."""

    is_x509: ClassVar[bool] = False
    is_x509_chain: ClassVar[bool] = False

    def __init__(
        self,
        algorithm: bytes,
        sig_algorithms: Sequence[bytes],
        host_key_algorithms: Sequence[bytes],
        key: SSHKey,
        public_data: bytes,
        comment: bytes | str | None,
    ) -> None:
        self.algorithm = algorithm
        self.sig_algorithms = tuple(sig_algorithms)
        self.host_key_algorithms = tuple(host_key_algorithms)
        self.key = key
        self.public_data = public_data
        self._comment: bytes | None = None
        self.set_comment(comment)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SSHCertificate) and self.public_data == other.public_data

    def __hash__(self) -> int:
        return hash(self.public_data)

    def shown(self) -> 'SSHCertificate':
        """Return the certificate in the form in which peers are shown it."""

        return self

    def get_algorithm(self) -> str:
        """Return the name of the certificate's algorithm."""

        return self.algorithm.decode('ascii')

    def has_comment(self) -> bool:
        """Tell whether the certificate has a comment."""

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
            raise ValueError('A certificate comment cannot hold line ends or NUL')

        self._comment = comment or None

    def export_certificate(self, format_name: str = 'openssh') -> bytes:
        """Export the certificate as openssh (one line) or rfc4716."""

        if format_name == 'openssh':
            return encode_public_line(self.public_data, self.algorithm, self._comment)

        if format_name == 'rfc4716':
            return encode_rfc4716(self.public_data, self._comment)

        raise KeyExportError(f'Unknown certificate format {format_name!r}, expected openssh or rfc4716')

    def write_certificate(self, filename: str | PurePath, format_name: str = 'openssh') -> None:
        """Write the certificate, as `export_certificate` makes it, to a file."""

        write_file(filename, self.export_certificate(format_name), os.O_TRUNC, 0o644)

    def append_certificate(self, filename: str | PurePath, format_name: str = 'openssh') -> None:
        """Append the certificate, as `export_certificate` makes it, to a file."""

        write_file(filename, self.export_certificate(format_name), os.O_APPEND, 0o644)


class SSHOpenSSHCertificate(SSHCertificate):
    """A certificate whose authority's signature is right; whether that authority is trusted is another question.

    `options` holds critical options and extensions by name: text, networks, or True for those without a value.
    """

    serial: int
    cert_type: int
    key_id: str
    principals: list[str]
    valid_after: int
    valid_before: int
    options: dict[str, Any]
    signing_key: SSHKey
    signature_algorithm: bytes

    def __repr__(self) -> str:
        kind = _TYPE_NAMES[self.cert_type]
        key_id = printable(self.key_id, 64)

        return f'<{type(self).__name__} {self.get_algorithm()} {kind} {key_id!r} serial {self.serial}>'

    @classmethod
    def decode(cls, blob: bytes, comment: bytes | str | None = None) -> Self:
        """Decode a certificate blob and verify its signature; whatever is wrong with it raises `KeyImportError`."""

        cursor = Cursor(blob)

        try:
            algorithm = cursor.string()
            name = plain_algorithm(algorithm)

            if not is_certificate_algorithm(algorithm) or algorithm != certificate_algorithm(name):
                shown = printable(algorithm.decode(errors='replace'), 64)
                raise KeyImportError(f'Expected a certificate, got a {shown!r} key')

            cursor.string()
            key = key_type(name).decode_ssh_public(name, cursor)
            cert = cls(
                algorithm,
                key.sig_algorithms,
                certificate_algorithms(key.sig_algorithms),
                key,
                blob,
                comment,
            )
            cert._decode_fields(cursor)
        except PacketDecodeError as exc:
            raise KeyImportError(f'Malformed certificate: {exc.reason}') from None

        return cert

    def _decode_fields(self, cursor: Cursor) -> None:
        self.serial = cursor.uint64()
        self.cert_type = cursor.uint32()
        self.key_id = cursor.text()
        self.principals = _decode_principals(cursor.string())
        self.valid_after = cursor.uint64()
        self.valid_before = cursor.uint64()

        if self.cert_type not in _TYPE_NAMES:
            raise KeyImportError(f'Expected a user (1) or host (2) certificate, got type {self.cert_type}')

        user = self.cert_type == CERT_TYPE_USER
        critical = _decode_options(cursor.string(), _CRITICAL_OPTIONS if user else {}, critical=True)
        extensions = _decode_options(cursor.string(), _EXTENSIONS if user else {}, critical=False)
        self.options = {**extensions, **critical}

        cursor.string()
        # An authority's key cannot be a certificate in turn: their names are not those of key types.
        self.signing_key = decode_public_key(cursor.string())
        signed = self.public_data[: cursor.position]
        signature = cursor.string()
        cursor.check_end()

        self.signature_algorithm = Cursor(signature).string()

        if verify_signature(self.signing_key, signed, signature, self.signing_key.sig_algorithms) is not True:
            raise KeyImportError('The signature of the certificate is not that of its authority')

    def check(
        self, cert_type: int, signature_algs: Collection[bytes] = DEFAULT_CA_SIGNATURES, now: float | None = None
    ) -> None:
        """Raise `ValueError` unless the certificate is of that type, properly signed, and valid at that time.

        `now` is in seconds since 1970, by default the time of day.
        """

        if self.cert_type != cert_type:
            raise ValueError(
                f'Expected a {_TYPE_NAMES[cert_type]} certificate, got a {_TYPE_NAMES[self.cert_type]} certificate'
            )

        if self.signature_algorithm not in signature_algs:
            name = printable(self.signature_algorithm.decode(errors='replace'), 64)
            raise ValueError(f'The certificate is signed with {name}, which is not allowed for authorities')

        if now is None:
            now = datetime.now(UTC).timestamp()

        if now < self.valid_after:
            raise ValueError(f'The certificate is not valid before {_show_time(self.valid_after)}')

        if self.valid_before != NEVER and now >= self.valid_before:
            raise ValueError(f'The certificate has expired at {_show_time(self.valid_before)}')

    def validate(self, cert_type: int, principal: str, now: float | None = None) -> None:
        """Raise `ValueError` unless the certificate is valid, of that type, and made out to the principal, if any.

        Principals of users are compared whole (CVE-2026-35414); those of hosts may be patterns. A certificate without
        principals is made out to nobody.
        """

        self.check(cert_type, now=now)

        if principal and not self.names(principal):
            raise ValueError(f'The certificate is not made out to {printable(principal, 64)}')

    def names(self, principal: str) -> bool:
        """Tell whether the certificate is made out to a user, or to a host."""

        if self.cert_type == CERT_TYPE_HOST:
            name = principal.lower()

            return any(matches_wildcard(pattern.lower(), name) for pattern in self.principals)

        return principal in self.principals

    def admits_address(self, addr: str) -> bool:
        """Tell whether the certificate may be used from an address: its source-address option."""

        networks = self.options.get('source-address')

        if networks is None:
            return True

        address = parse_address(addr)

        return address is not None and any(address in network for network in networks)


def decode_certificate(blob: bytes, comment: bytes | str | None = None) -> SSHOpenSSHCertificate:
    """Decode a certificate blob as peers and agents send it; `KeyImportError` if anything is wrong with it."""

    return SSHOpenSSHCertificate.decode(blob, comment)


def is_certificate_blob(blob: bytes) -> bool:
    """Tell whether a blob claims to be a certificate."""

    try:
        return is_certificate_algorithm(Cursor(blob).string())
    except PacketDecodeError:
        return False


# --- principals and options


def _decode_principals(data: bytes) -> list[str]:
    cursor = Cursor(data)
    principals: list[str] = []

    while cursor.remaining:
        if len(principals) == MAX_PRINCIPALS:
            raise KeyImportError(f'Expected at most {MAX_PRINCIPALS} principals in a certificate, got more')

        name = cursor.text()

        if not name or '\0' in name:
            raise KeyImportError('Expected principals that are text without NUL, got an empty one or one with NUL')

        principals.append(name)

    return principals


def _decode_networks(data: bytes) -> list[_Network]:
    text = _decode_text(data)

    try:
        return [ipaddress.ip_network(part) for part in text.split(',')]
    except ValueError:
        raise KeyImportError(f'Expected addresses or networks in source-address, got {printable(text, 64)!r}') from None


def _decode_text(data: bytes) -> str:
    cursor = Cursor(data)
    text = cursor.text()
    cursor.check_end()

    if '\0' in text:
        raise KeyImportError('Expected the option of a certificate without NUL')

    return text


def _decode_flag(data: bytes) -> bool:
    if data:
        raise KeyImportError(f'Expected an option of a certificate without a value, got {len(data)} bytes')

    return True


def _decode_unknown(data: bytes) -> str | bytes | bool:
    """Keep an extension of somebody else's: most hold one string, or nothing."""

    try:
        return _decode_text(data) if data else True
    except (PacketDecodeError, KeyImportError):
        return data


_Decoder = Callable[[bytes], Any]

_CRITICAL_OPTIONS: Mapping[str, _Decoder] = {
    'force-command': _decode_text,
    'source-address': _decode_networks,
    'verify-required': _decode_flag,
}

_EXTENSIONS: Mapping[str, _Decoder] = dict.fromkeys(
    (
        'no-touch-required',
        'permit-X11-forwarding',
        'permit-agent-forwarding',
        'permit-port-forwarding',
        'permit-pty',
        'permit-user-rc',
    ),
    _decode_flag,
)


def _decode_options(data: bytes, known: Mapping[str, _Decoder], *, critical: bool) -> dict[str, Any]:
    """Decode named options; each stands once, in order. An unknown one that is critical refuses the certificate."""

    cursor = Cursor(data)
    options: dict[str, Any] = {}
    last = b''

    while cursor.remaining:
        raw_name = cursor.string()
        value = cursor.string()
        name = raw_name.decode(errors='replace')

        if raw_name <= last:
            raise KeyImportError('Expected the options of a certificate once each and in order of their names')

        if critical and name not in known:
            raise KeyImportError(f'Unknown critical option {printable(name, 64)!r} of a certificate')

        options[name] = known.get(name, _decode_unknown)(value)
        last = raw_name

    return options


def _show_time(seconds: int) -> str:
    try:
        return f'{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC'
    except (OverflowError, OSError, ValueError):
        return f'{seconds} seconds after 1970'
