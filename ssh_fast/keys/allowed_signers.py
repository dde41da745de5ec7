"""Whose signatures of files count: the lines of an allowed_signers file (ssh-keygen(1), ALLOWED SIGNERS).

principals [options] algorithm key [comment]     options: cert-authority, namespaces=, valid-after=, valid-before=
"""

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PurePath
from typing import NamedTuple, TypeAlias

from ..errors import KeyImportError
from ..logging import logger, printable
from .authorized_keys import parse_time
from .file_cache import read_bounded
from .key import SSHKey, decode_public_key
from .openssh_format import decode_public_line
from .patterns import matches_wildcard

_Path: TypeAlias = str | PurePath

_MAX_FILE_SIZE = 16 << 20
_MAX_LINE = 64 << 10

_PRINCIPALS = re.compile(r'(?:"([^"]+)"|([^\s"]+))\s+(?=\S)')
_OPTION = re.compile(r'([A-Za-z-]+)(?:="((?:[^"\\]|\\.)*)")?(?:,|$)')


class _Signer(NamedTuple):
    """A line: who signs with which key, for what and when; times are in seconds since 1970."""

    principals: tuple[str, ...]
    key: SSHKey
    authority: bool
    namespaces: tuple[str, ...] | None
    valid_after: float | None
    valid_before: float | None


class SSHAllowedSigners:
    """The lines of one or more allowed_signers files."""

    def __init__(self, allowed_signers: str | None = None) -> None:
        self._signers: dict[bytes, list[_Signer]] = {}

        if allowed_signers:
            self.load(allowed_signers)

    def __repr__(self) -> str:
        return f'<{type(self).__name__} of {len(self._signers)} keys>'

    def load(self, allowed_signers: str) -> None:
        """Add the lines of a text; what is malformed is logged and allows nobody, a text without any line raises.

        Raises:
          KeyImportError: no line is usable; it names the first that is not
        """

        self._load(allowed_signers, 'allowed_signers')

    def _load(self, text: str, source: str) -> None:
        fault, found = '', False

        for number, line in enumerate(text.split('\n'), 1):
            line = line.strip()

            if not line or line.startswith('#'):
                continue

            try:
                signer = _parse_line(line)
            except ValueError as exc:
                reason = f'{source}:{number}: {printable(str(exc))}'
                logger.warning('The line is left out: %s', reason)
                fault = fault or reason
            else:
                self._signers.setdefault(signer.key.public_data, []).append(signer)
                found = True

        if not found:
            raise KeyImportError(fault or f'{source}: expected the lines of allowed signers, found none')

    def validate(self, key: SSHKey, principal: str, namespace: str, ca: bool = False) -> bool:
        """Tell whether a principal signs with a key in a namespace now; `ca`: or by certificates that the key signs."""

        return self.validate_at(key, principal, namespace, ca, None)

    def validate_at(self, key: SSHKey, principal: str, namespace: str, ca: bool, now: float | None) -> bool:
        """Tell what `validate` does for a time in seconds since 1970, None for the present."""

        if now is None:
            now = datetime.now(UTC).timestamp()

        return any(
            signer.authority is ca
            and _matches_list(signer.principals, principal)
            and (signer.namespaces is None or _matches_list(signer.namespaces, namespace))
            and (signer.valid_after is None or now >= signer.valid_after)
            and (signer.valid_before is None or now <= signer.valid_before)
            for signer in self._signers.get(key.public_data, ())
        )

    def find_principals(self, key: SSHKey) -> list[str]:
        """Return the principals of the lines that have a key, as they stand there: names or patterns."""

        return [
            ','.join(signer.principals) for signer in self._signers.get(key.public_data, ()) if not signer.authority
        ]


def _parse_line(line: str) -> _Signer:
    if len(line) > _MAX_LINE:
        raise ValueError(f'Expected a line of at most {_MAX_LINE} characters, got {len(line)}')

    match = _PRINCIPALS.match(line)

    if not match:
        raise ValueError('Expected principals, a key type and a key')

    fields = decode_public_line(line[match.end() :])
    authority, namespaces, valid_after, valid_before = False, None, None, None
    seen: set[str] = set()

    for name, value in _parse_options(fields.options):
        if name in seen:
            raise ValueError(f'Expected the option {name} once, got it twice')

        seen.add(name)

        if name == 'cert-authority' and value is None:
            authority = True
        elif name == 'namespaces' and value:
            namespaces = tuple(value.split(','))
        elif name == 'valid-after' and value:
            valid_after = parse_time(value)
        elif name == 'valid-before' and value:
            valid_before = parse_time(value)
        else:
            raise ValueError(f'Unknown option, or one without its value: {name}')

    if valid_after is not None and valid_before is not None and valid_before <= valid_after:
        raise ValueError('Expected a valid-before later than valid-after')

    key = decode_public_key(fields.public_data)
    key.set_comment(fields.comment)

    return _Signer(tuple((match[1] or match[2]).split(',')), key, authority, namespaces, valid_after, valid_before)


def _parse_options(text: str) -> list[tuple[str, str | None]]:
    options, pos = [], 0

    while pos < len(text):
        match = _OPTION.match(text, pos)

        if not match:
            raise ValueError(f'Expected an option, got {text[pos : pos + 32]!r}')

        options.append((match[1].lower(), match[2]))
        pos = match.end()

    return options


def _matches_list(patterns: Sequence[str], text: str) -> bool:
    """Match a text against patterns: one of them must match, and none that begins with an exclamation mark."""

    if any(matches_wildcard(pattern[1:], text) for pattern in patterns if pattern.startswith('!')):
        return False

    return any(matches_wildcard(pattern, text) for pattern in patterns if not pattern.startswith('!'))


def import_allowed_signers(data: str) -> SSHAllowedSigners:
    """Parse allowed signers from a text."""

    return SSHAllowedSigners(data)


def read_allowed_signers(filelist: _Path | Sequence[_Path]) -> SSHAllowedSigners:
    """Read allowed signers from one or more files; errors name file and line."""

    signers = SSHAllowedSigners()

    for name in [filelist] if isinstance(filelist, str | PurePath) else filelist:
        path = os.path.abspath(name)

        try:
            data, _ = read_bounded(path, _MAX_FILE_SIZE)
        except ValueError as exc:
            raise KeyImportError(str(exc)) from None

        signers._load(data.decode(errors='surrogateescape'), path)

    return signers
