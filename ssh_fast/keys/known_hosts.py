"""known_hosts: which host keys are trusted for a host, which certificate authorities, and which keys are revoked.

A line is: [marker] host names | key type | key in base64 | comment (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT). Names are
indexed, patterns by what they end in, and keys decoded when they match, so that a file of many thousand hosts costs
little. Hashed names cannot be indexed, as each has a salt of its own: every one of them is tried (about a microsecond
each), and what was found for the names that were looked up last is remembered.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple, TypeAlias, cast

from ..constants import DEFAULT_PORT
from ..errors import KeyImportError
from ..logging import logger, printable
from ..wire import encode_string
from .certificate import SSHCertificate
from .certificate_files import load_certificates
from .certificate_names import is_x509_algorithm
from .file_cache import FileCache, read_bounded
from .key import KeyRefused, SSHKey, decode_public_key
from .load import load_public_keys
from .openssh_format import decode_base64
from .patterns import HostPattern, HostPatternList, canonical_address
from .x509 import SSHX509Certificate
from .x509_names import X509NamePattern

# 64 MiB: far above the largest files in use (some hundred thousand hosts)
MAX_FILE_SIZE = 64 << 20

HASH_PREFIX = '|1|'
_SHA1_SIZE = 20
_MAX_SALT = 64                  # the block of SHA-1; ssh-keygen's salts have 20 bytes
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5c for byte in range(256))

# Names whose hashed lines are remembered
_MAX_REMEMBERED = 4096
_MARKERS = ('@cert-authority', '@revoked')

_Path: TypeAlias = str | PurePath


class KnownHostKeys(NamedTuple):
    """What is known about a host; X.509 certificates are trusted by themselves or as authorities, for this host."""

    host_keys: Sequence[SSHKey]
    ca_keys: Sequence[SSHKey]
    revoked_keys: Sequence[SSHKey]
    x509_certs: Sequence[SSHX509Certificate]
    revoked_certs: Sequence[SSHX509Certificate]
    x509_subjects: Sequence[X509NamePattern]
    revoked_subjects: Sequence[X509NamePattern]


_KeyLists: TypeAlias = Sequence[Sequence[object]]
_Lookup: TypeAlias = Callable[[str, str, int | None], '_KeyLists | bytes | SSHKnownHosts']
KnownHostsSource: TypeAlias = '_Path | bytes | SSHKnownHosts | _Lookup | _KeyLists | Sequence[_Path] | None'


_Trusted: TypeAlias = SSHKey | SSHX509Certificate | X509NamePattern


class _Entry:
    """A line: its marker and its key, which is decoded when first wanted."""

    __slots__ = ('_key', '_pending', 'marker', 'number', 'place', 'public_data')

    def __init__(self, marker: str, public_data: bytes, place: str, number: int) -> None:
        self.marker = marker
        self.public_data = public_data
        self.place = place
        self.number = number
        self._key: _Trusted | None = None
        self._pending = True

    @classmethod
    def of_x509(cls, marker: str, trusted: SSHX509Certificate | X509NamePattern, number: int) -> '_Entry':
        """Make the entry of a line with an X.509 certificate, or a pattern of subjects, which is decoded at once."""

        entry = cls(marker, b'', '', number)
        entry._key = trusted
        entry._pending = False

        return entry

    def key(self) -> _Trusted | None:
        """Decode the key; None, logged once, if it cannot be used. One that is revoked and malformed raises."""

        if self._pending:
            try:
                self._key = decode_public_key(self.public_data)
            except KeyRefused as exc:
                # No peer can use such a key either, so that leaving it out is safe even where it is revoked.
                logger.debug('%s: the key is left out: %s', self.place, exc)
            except KeyImportError as exc:
                if self.marker == '@revoked':
                    raise KeyImportError(f'{self.place}: the revoked key is malformed: {exc}') from None

                logger.warning('%s: the line is skipped: %s', self.place, exc)

            self._pending = False

        return self._key


class SSHKnownHosts:
    """Parsed known hosts; made once, it can be given to many connections."""

    def __init__(self, known_hosts: str | None = None) -> None:
        self._exact: dict[str, list[_Entry]] = {}
        self._patterns: dict[str, list[tuple[HostPatternList, _Entry]]] = {}
        self._tail_sizes: set[int] = set()
        self._hashed: list[tuple[bytes, bytes, _Entry]] = []
        self._hashed_found: dict[str, list[_Entry]] = {}
        self._count = 0

        if known_hosts is not None:
            self.load(known_hosts)

    def __repr__(self) -> str:
        return f'<{type(self).__name__} of {self._count} keys>'

    def load(self, known_hosts: str, source: str = 'known_hosts') -> None:
        """Add the lines of a known_hosts text; `source` is its name in messages.

        A malformed line is logged and skipped, except a malformed @revoked line: it raises `KeyImportError`.
        """

        for number, line in enumerate(known_hosts.split('\n'), 1):
            line = line.strip()

            if line and not line.startswith('#'):
                try:
                    self._load_line(line, f'{source}:{number}')
                except (KeyImportError, ValueError) as exc:
                    if line.startswith('@revoked'):
                        raise KeyImportError(f'{source}:{number}: the @revoked line is malformed: {exc}') from None

                    logger.warning('%s:%d: the line is skipped: %s', source, number, printable(str(exc)))

    def match(self, host: str, addr: str, port: int | None) -> KnownHostKeys:
        """Look up a host by name, address and port.

        For another port than 22, lines for [host]:port are looked up; only where there are none, lines without a port.
        A key revoked for the host is revoked on all ports.
        """

        host, addr = canonical_address(host.lower()), canonical_address(addr.lower())
        entries = self._match(host, addr)

        if port is not None and port != DEFAULT_PORT:
            with_port = self._match(*(host_name(name, port) if name else '' for name in (host, addr)))

            if with_port:
                entries = with_port + [entry for entry in entries if entry.marker == '@revoked']

        keys: dict[str, list[SSHKey]] = {'': [], '@cert-authority': [], '@revoked': []}
        certs: tuple[list[SSHX509Certificate], list[SSHX509Certificate]] = ([], [])
        subjects: tuple[list[X509NamePattern], list[X509NamePattern]] = ([], [])

        for entry in entries:
            key = entry.key()
            revoked = entry.marker == '@revoked'

            if isinstance(key, SSHX509Certificate):
                certs[revoked].append(key)
            elif isinstance(key, X509NamePattern):
                subjects[revoked].append(key)
            # A file hashed by ssh-keygen has a line for each name of a host.
            elif key is not None and key not in keys[entry.marker]:
                keys[entry.marker].append(key)

        return KnownHostKeys(keys[''], keys['@cert-authority'], keys['@revoked'], *certs, *subjects)

    def _match(self, host: str, addr: str) -> list[_Entry]:
        """Find the lines for a name or an address, in the file's order."""

        names = {name for name in (host, addr) if name}
        found = {id(entry): entry for name in names for entry in self._exact.get(name, ())}
        tails = {name[-size:] if size else '' for name in names for size in self._tail_sizes}

        for tail in tails:
            for patterns, entry in self._patterns.get(tail, ()):
                if patterns.matches(host, addr):
                    found[id(entry)] = entry

        if self._hashed:
            found.update((id(entry), entry) for name in names for entry in self._match_hashed(name))

        return sorted(found.values(), key=lambda entry: entry.number)

    def _match_hashed(self, name: str) -> list[_Entry]:
        """Find the hashed lines for a name."""

        found = self._hashed_found.get(name)

        if found is None:
            encoded = name.encode(errors='surrogateescape')
            found = [entry for salt, digest, entry in self._hashed if hash_name(salt, encoded) == digest]

            if len(self._hashed_found) >= _MAX_REMEMBERED:
                self._hashed_found.clear()

            self._hashed_found[name] = found

        return found

    def _load_line(self, line: str, place: str) -> None:
        fields = line.split(None, 4)
        marker = fields.pop(0) if fields[0].startswith('@') else ''

        if marker and marker not in _MARKERS:
            raise ValueError(f'Unknown marker {marker!r}, expected {" or ".join(_MARKERS)}')

        if len(fields) < 3:
            raise ValueError('Expected host names, key type and key')

        if is_x509_algorithm(fields[1].encode(errors='replace')):
            self._index(fields[0], _Entry.of_x509(marker, _decode_x509(fields[2:]), self._count))
            self._count += 1
            return

        public_data = decode_base64(fields[2])

        if not public_data.startswith(encode_string(fields[1].encode(errors='replace'))):
            raise ValueError(f'The key in base64 is not of the type {fields[1]!r} named before it')

        entry = _Entry(marker, public_data, place, self._count)

        if marker == '@revoked':
            entry.key()

        self._index(fields[0], entry)
        self._count += 1

    def _index(self, names: str, entry: _Entry) -> None:
        """File a line under its names, as a hash, or as patterns."""

        if names.startswith(HASH_PREFIX):
            self._hashed.append((*decode_hash(names), entry))
            self._hashed_found.clear()
        elif any(char in names for char in '*?!/'):
            patterns = HostPatternList(names)

            # One of those that are not negated must match: it is found by what stands behind its last wildcard.
            for tail in {_tail(pattern) for pattern in patterns.patterns if not pattern.negated}:
                self._patterns.setdefault(tail, []).append((patterns, entry))
                self._tail_sizes.add(len(tail))
        else:
            parts = names.lower().split(',')

            if not all(parts):
                raise ValueError('Expected a host name, got an empty one')

            for name in parts:
                self._exact.setdefault(_canonical(name), []).append(entry)


def _decode_x509(fields: Sequence[str]) -> SSHX509Certificate | X509NamePattern:
    """Decode what stands behind the name of an X.509 algorithm: a certificate in base64, or subject=pattern."""

    text = ' '.join(fields)

    if text.startswith('subject='):
        return X509NamePattern(text.removeprefix('subject='))

    return SSHX509Certificate.construct_from_der(decode_base64(fields[0]))


def host_name(host: str, port: int) -> str:
    """Write a host as known_hosts names it: in lower case, as [host]:port if the port is not 22."""

    name = canonical_address(host.lower())

    return name if port == DEFAULT_PORT else f'[{name}]:{port}'


def _canonical(name: str) -> str:
    """Write the address in a name, with a port or without, as sockets report it."""

    if name.startswith('['):
        address, bracket, port = name[1:].partition(']')

        return f'[{canonical_address(address)}{bracket}{port}'

    return canonical_address(name)


def _tail(pattern: HostPattern) -> str:
    """Return what every name that a pattern matches ends in; networks have addresses of any ending."""

    if pattern.network is not None:
        return ''

    return pattern.text[max(pattern.text.rfind('*'), pattern.text.rfind('?')) + 1 :]


def hash_name(salt: bytes, name: bytes) -> bytes:
    """Hash a host name: HMAC-SHA1 keyed with a salt of at most 64 bytes, in half the time that `hmac` takes.

    The digest hides the name from who reads the file: nothing secret is compared with it.
    """

    inner = hashlib.sha1(salt.translate(_INNER_PAD).ljust(64, b'\x36') + name).digest()

    return hashlib.sha1(salt.translate(_OUTER_PAD).ljust(64, b'\x5c') + inner).digest()


def decode_hash(text: str) -> tuple[bytes, bytes]:
    """Decode |1|salt|hash: the HMAC-SHA1 of a host name, keyed with the salt."""

    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in text[len(HASH_PREFIX) :].split('|'))
    except (binascii.Error, ValueError):
        raise ValueError('Expected a hashed host name of the form |1|salt|hash') from None

    if len(digest) != _SHA1_SIZE or not 0 < len(salt) <= _MAX_SALT:
        raise ValueError(
            f'Expected a hashed host name of {_SHA1_SIZE} bytes with a salt of 1 to {_MAX_SALT}, '
            f'got {len(digest)} and {len(salt)}'
        )

    return salt, digest


_cache: FileCache[SSHKnownHosts] = FileCache(32)


def import_known_hosts(data: str) -> SSHKnownHosts:
    """Parse known hosts from a text."""

    return SSHKnownHosts(data)


def read_known_hosts(filelist: _Path | Sequence[_Path]) -> SSHKnownHosts:
    """Read known hosts from one or more files; the parse of a single file is remembered while it is unchanged."""

    if not isinstance(filelist, str | PurePath):
        known_hosts = SSHKnownHosts()

        for filename in filelist:
            known_hosts.load(*_read(os.path.abspath(filename))[:2])

        return known_hosts

    path = os.path.abspath(filelist)
    cached = _cache.get(path, None, os.stat(path))

    if cached is None:
        text, _, status = _read(path)
        cached = SSHKnownHosts()
        cached.load(text, path)
        _cache.put(path, None, status, cached)

    return cached


def _read(path: str) -> tuple[str, str, os.stat_result]:
    data, status = read_bounded(path, MAX_FILE_SIZE)

    return data.decode(errors='surrogateescape'), path, status


def match_known_hosts(known_hosts: KnownHostsSource, host: str, addr: str, port: int | None) -> KnownHostKeys:
    """Look up a host in known hosts of any form the `known_hosts` option takes.

    That is: a path or a list of paths, bytes as of a file, an `SSHKnownHosts`, a tuple of three or seven lists (trusted
    keys, trusted CA keys, revoked keys, and the X.509 ones), or a callable of host, address and port that returns one.
    """

    if callable(known_hosts):
        known_hosts = known_hosts(host, addr, port)

    if known_hosts is None:
        raise ValueError('Expected known hosts to look up in, got None')

    if isinstance(known_hosts, str | PurePath):
        known_hosts = read_known_hosts(known_hosts)
    elif isinstance(known_hosts, bytes):
        known_hosts = import_known_hosts(known_hosts.decode(errors='surrogateescape'))

    if isinstance(known_hosts, SSHKnownHosts):
        return known_hosts.match(host, addr, port)

    if isinstance(known_hosts, list) and all(isinstance(item, str | PurePath) for item in known_hosts):
        return _match_files(cast('list[_Path]', known_hosts), host, addr, port)

    return _from_lists(cast('Sequence[Sequence[object]]', known_hosts))


def _match_files(filelist: Iterable[_Path], host: str, addr: str, port: int | None) -> KnownHostKeys:
    """Look up in several files, each with its own remembered parse."""

    matches = [read_known_hosts(filename).match(host, addr, port) for filename in filelist]
    joined: Any = ([item for match in matches for item in match[slot]] for slot in range(7))

    return KnownHostKeys(*joined)


def _from_lists(lists: Sequence[Sequence[object]]) -> KnownHostKeys:
    """Take the lists that a user made."""

    if len(lists) not in (3, 7):
        raise ValueError(f'Expected known hosts of 3 or 7 lists, got {len(lists)}')

    keys = [load_public_keys(cast('Sequence[bytes | _Path | SSHKey]', part)) for part in lists[:3]]
    sources = [item for part in lists[3:5] for item in part]

    if not all(isinstance(item, bytes | str | PurePath | SSHCertificate) for item in sources):
        raise ValueError('Expected certificates, their data or their files in the fourth and fifth list of known hosts')

    certs = [load_certificates(cast('Sequence[bytes | _Path | SSHCertificate]', part)) for part in lists[3:5]]
    subjects = [
        [item if isinstance(item, X509NamePattern) else X509NamePattern(str(item)) for item in part]
        for part in lists[5:]
    ]

    if not all(isinstance(cert, SSHX509Certificate) for part in certs for cert in part):
        raise ValueError('Expected X.509 certificates in the fourth and fifth list of known hosts')

    x509: Any = [*certs, *subjects] or [[], [], [], []]

    return KnownHostKeys(keys[0], keys[1], keys[2], *x509)
