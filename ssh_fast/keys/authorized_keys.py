"""authorized_keys: which keys may log in, from where, until when, and what they may then do.

A line is: [options] | key type | key in base64 | comment (sshd(8), AUTHORIZED_KEYS FILE FORMAT). A line with an option
that is not known or not valid is refused whole: what it meant to restrict would otherwise be allowed.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, TypeAlias

from ..errors import KeyImportError
from ..logging import logger, printable
from .certificate_names import is_x509_algorithm
from .file_cache import read_bounded
from .key import SSHKey, decode_public_key
from .openssh_format import decode_public_line
from .patterns import HostPatternList
from .x509 import SSHX509Certificate, SSHX509CertificateChain
from .x509_names import X509NamePattern

# OpenSSH's SSH_MAX_PUBKEY_BYTES. A line that is longer is refused whole, never cut into two.
_MAX_LINE_SIZE = 16384

_MAX_FILE_SIZE = 16 << 20

_Path: TypeAlias = str | PurePath
_Options: TypeAlias = dict[str, Any]

# What `restrict` takes away, by the name without no- in front
_PERMISSIONS = {
    name.lower(): f'no-{name}' for name in ('agent-forwarding', 'port-forwarding', 'pty', 'user-rc', 'X11-forwarding')
}
_FLAGS = ('cert-authority', 'no-touch-required', 'verify-required')
_ENVIRONMENT_NAME = re.compile(r'[A-Za-z0-9_]+')


# --- options with a value: each takes the options so far and the value


def _command(options: _Options, value: str) -> None:
    _set_once(options, 'command', value)


def _environment(options: _Options, value: str) -> None:
    name, separator, content = value.partition('=')

    if not separator or not _ENVIRONMENT_NAME.fullmatch(name):
        raise ValueError(f'Expected environment="NAME=value", got {value!r}')

    options.setdefault('environment', {}).setdefault(name, content)


def _from(options: _Options, value: str) -> None:
    options.setdefault('from', []).append(HostPatternList(value))


def _principals(options: _Options, value: str) -> None:
    names = value.split(',')

    if not all(names):
        raise ValueError(f'Expected principals separated by commas, got {value!r}')

    _set_once(options, 'principals', names)


def _permit(name: str, bare_port: bool) -> Callable[[_Options, str], None]:
    def permit(options: _Options, value: str) -> None:
        if bare_port and ':' not in value:
            value = f'*:{value}'

        options.setdefault(name, set()).add(_host_port(name, value))

    return permit


def _host_port(name: str, value: str) -> tuple[str, int | None]:
    """Take host:port or [host]:port apart; port `*` is any, and None here."""

    match = re.fullmatch(r'(?:\[([^]\s]+)\]|([^:\s]+)):(\*|[0-9]{1,5})', value)

    if not match or (match[3] != '*' and not 0 < int(match[3]) < 65536):
        raise ValueError(f'Expected {name}="host:port", got {value!r}')

    return match[1] or match[2], None if match[3] == '*' else int(match[3])


def _expiry_time(options: _Options, value: str) -> None:
    expires = parse_time(value)
    options['expiry-time'] = min(expires, options.get('expiry-time', expires))


def parse_time(value: str) -> float:
    """Parse YYYYMMDD[HHMM[SS]], local or with a Z in UTC, into seconds since 1970."""

    match = re.fullmatch(r'(\d{8})(\d{4}(?:\d{2})?)?(Z?)', value, re.ASCII)

    if match:
        digits = match[1] + (match[2] or '').ljust(6, '0')

        try:
            moment = datetime.strptime(digits, '%Y%m%d%H%M%S')

            return (moment.replace(tzinfo=UTC) if match[3] else moment).timestamp()
        except (ValueError, OverflowError, OSError):
            pass

    raise ValueError(f'Expected a time as YYYYMMDD[HHMM[SS]][Z], got {value!r}')


def _subject(options: _Options, value: str) -> None:
    options.setdefault('subject', []).append(X509NamePattern(value))


def _tunnel(options: _Options, value: str) -> None:
    if value != 'any' and not re.fullmatch(r'\d{1,9}', value, re.ASCII):
        raise ValueError(f'Expected tunnel="number" or "any", got {value!r}')

    _set_once(options, 'tunnel', value if value == 'any' else int(value))


def _set_once(options: _Options, name: str, value: object) -> None:
    if name in options:
        raise ValueError(f'Expected {name} once, got it twice')

    options[name] = value


_VALUE_OPTIONS: dict[str, Callable[[_Options, str], None]] = {
    'command': _command,
    'environment': _environment,
    'expiry-time': _expiry_time,
    'from': _from,
    'permitlisten': _permit('permitlisten', True),
    'permitopen': _permit('permitopen', False),
    'principals': _principals,
    'subject': _subject,
    'tunnel': _tunnel,
}


def parse_options(text: str) -> _Options:
    """Parse the options of a line; what is unknown or not valid raises `ValueError`.

    Names are told apart whatever their case. `restrict` becomes the no- options it stands for, and a permission that
    follows it, such as `pty`, takes its no- option away again.
    """

    options: _Options = {}
    pos = 0

    while pos < len(text):
        match = _OPTION.match(text, pos)

        if not match:
            raise ValueError(f'Expected an option name, got {text[pos : pos + 32]!r}')

        pos = match.end()
        name = match[1].lower()
        value = match[2]

        if value is not None:
            if name not in _VALUE_OPTIONS:
                raise ValueError(f'Unknown option {match[1]}="..."')

            _VALUE_OPTIONS[name](options, value.replace('\\"', '"'))
        else:
            _set_flag(options, name)

        if pos < len(text):
            if text[pos] != ',' or pos + 1 == len(text):
                raise ValueError(f'Expected a comma and an option, got {text[pos : pos + 32]!r}')

            pos += 1

    return options


# A name, and a value in double quotes in which a quote is written \" (a backslash elsewhere is itself)
_OPTION = re.compile(r'([A-Za-z0-9-]+)(?:="((?:[^"\\]|\\"|\\(?!"))*)")?')


def _set_flag(options: _Options, name: str) -> None:
    """Apply an option that has no value."""

    if name in _FLAGS:
        options[name] = True
    elif name == 'restrict':
        options['restrict'] = True
        options.update(dict.fromkeys(_PERMISSIONS.values(), True))
    elif name in _PERMISSIONS:
        options.pop(_PERMISSIONS[name], None)
    elif name.startswith('no-') and name[3:] in _PERMISSIONS:
        options[_PERMISSIONS[name[3:]]] = True
    else:
        raise ValueError(f'Unknown option {name}, or an option whose value is missing')


# --- the file


class SSHAuthorizedKeys:
    """Parsed authorized keys; made once, they can be used for many connections."""

    def __init__(self, authorized_keys: str | None = None) -> None:
        self._entries: dict[tuple[bytes, bool], list[_Options]] = {}
        self._x509: list[tuple[SSHX509Certificate, _Options]] = []

        if authorized_keys is not None:
            self.load(authorized_keys)

    def __repr__(self) -> str:
        return f'<{type(self).__name__} of {sum(map(len, self._entries.values())) + len(self._x509)} keys>'

    def load(self, authorized_keys: str, source: str = 'authorized_keys') -> None:
        """Add the lines of an authorized_keys text; `source` is its name in messages. Refused lines are logged."""

        for number, line in enumerate(authorized_keys.split('\n'), 1):
            line = line.strip()

            if line and not line.startswith('#'):
                try:
                    self._load_line(line)
                except (KeyImportError, ValueError) as exc:
                    logger.warning('%s:%d: the line is refused: %s', source, number, printable(str(exc)))

    def validate(
        self,
        key: SSHKey,
        client_host: str,
        client_addr: str,
        cert_principals: Sequence[str] | None = None,
        ca: bool = False,
        *,
        now: float | None = None,
    ) -> Mapping[str, Any] | None:
        """Return the options of the first line that admits the key, from that host and now; None if there is none.

        With `ca`, `key` is the authority that signed a certificate, only cert-authority lines count, and one of the
        certificate's principals must be among those that the line names. `now` is in seconds since 1970, by default
        the time of day.
        """

        for options in self._entries.get((key.public_data, ca), ()):
            if options_admit(options, client_host, client_addr, now) and (
                not ca or _names_principal(options, cert_principals)
            ):
                return dict(options)

        return None

    @property
    def has_x509(self) -> bool:
        """Whether there are lines of X.509 certificates."""

        return bool(self._x509)

    def match_x509(
        self, chain: SSHX509CertificateChain, client_host: str, client_addr: str, *, now: float | None = None
    ) -> Iterator[tuple[Mapping[str, Any], SSHX509Certificate]]:
        """Yield options and certificate of the lines that admit a chain, if it leads to the line's certificate.

        A line with cert-authority has an authority's certificate, any other the key's own. A line with subjects admits
        certificates of these alone.
        """

        own = chain.certs[0]

        for cert, options in self._x509:
            if (
                ('cert-authority' in options or cert == own)
                and all(pattern.matches(own.subject) for pattern in options.get('subject', ()))
                and options_admit(options, client_host, client_addr, now)
                and ('principals' not in options or any(name in options['principals'] for name in own.user_principals))
            ):
                yield dict(options), cert

    def validate_x509(
        self, cert: SSHX509CertificateChain, client_host: str, client_addr: str
    ) -> tuple[Mapping[str, Any] | None, SSHX509Certificate | None]:
        """Return options and certificate of the first line that may admit a chain; whether it leads there is open."""

        return next(self.match_x509(cert, client_host, client_addr), (None, None))

    def _load_line(self, line: str) -> None:
        size = len(line.encode(errors='surrogateescape'))

        if size > _MAX_LINE_SIZE:
            raise ValueError(f'Expected a line of at most {_MAX_LINE_SIZE} bytes, got {size}')

        if '\0' in line:
            raise ValueError('Expected a line without NUL')

        fields = decode_public_line(line)
        options = parse_options(fields.options)

        if is_x509_algorithm(fields.algorithm):
            self._x509.append((SSHX509Certificate.construct_from_der(fields.public_data, fields.comment), options))
            return

        if 'subject' in options:
            raise ValueError('Expected subject with an X.509 certificate, got it with a key')

        key = decode_public_key(fields.public_data)
        self._entries.setdefault((key.public_data, 'cert-authority' in options), []).append(options)


def options_admit(options: Mapping[str, Any], host: str, addr: str, now: float | None = None) -> bool:
    """Tell whether the options of a line allow a login from a host and address at a time, by default now."""

    if now is None:
        now = datetime.now(UTC).timestamp()

    if 'expiry-time' in options and now >= options['expiry-time']:
        return False

    return all(patterns.matches(host, addr) for patterns in options.get('from', ()))


def _names_principal(options: _Options, principals: Sequence[str] | None) -> bool:
    """Tell whether a line's principals, if it has any, name one of a certificate's.

    They are compared whole; a certificate without any matches no list (CVE-2026-35414, CVE-2024-7594).
    """

    return 'principals' not in options or any(name in options['principals'] for name in principals or ())


def import_authorized_keys(data: str) -> SSHAuthorizedKeys:
    """Parse authorized keys from a text; lines that are refused are logged, and admit nobody."""

    return SSHAuthorizedKeys(data)


def read_authorized_keys(filelist: _Path | Sequence[_Path]) -> SSHAuthorizedKeys:
    """Read authorized keys from one or more files."""

    authorized_keys = SSHAuthorizedKeys()

    for filename in [filelist] if isinstance(filelist, str | PurePath) else filelist:
        path = os.path.abspath(filename)
        data, _ = read_bounded(path, _MAX_FILE_SIZE)
        authorized_keys.load(data.decode(errors='surrogateescape'), path)

    return authorized_keys
