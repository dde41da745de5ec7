"""Principals files: which names in a certificate let a user in, and with which restrictions.

A line is: [options] name, the options being those of authorized_keys (sshd_config(5), AuthorizedPrincipalsFile).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, TypeAlias

from ..logging import logger, printable
from .authorized_keys import options_admit, parse_options
from .file_cache import read_bounded

_Path: TypeAlias = str | PurePath

_MAX_LINE_SIZE = 16384
_MAX_FILE_SIZE = 16 << 20


class SSHAuthorizedPrincipals:
    """Parsed principals files; made once, they can be used for many connections."""

    def __init__(self, principals: str | None = None) -> None:
        self._entries: dict[str, list[dict[str, Any]]] = {}

        if principals is not None:
            self.load(principals)

    def __repr__(self) -> str:
        return f'<{type(self).__name__} of {len(self._entries)} principals>'

    def load(self, principals: str, source: str = 'authorized_principals') -> None:
        """Add the lines of a principals file; `source` is its name in messages. Refused lines are logged."""

        for number, line in enumerate(principals.split('\n'), 1):
            line = line.strip()

            if line and not line.startswith('#'):
                try:
                    self._load_line(line)
                except ValueError as exc:
                    logger.warning('%s:%d: the line is refused: %s', source, number, printable(str(exc)))

    def validate(
        self, principals: Sequence[str], client_host: str, client_addr: str, *, now: float | None = None
    ) -> Mapping[str, Any] | None:
        """Return the options of the first line that admits one of a certificate's principals; None if none does.

        Names are compared whole. `now` is in seconds since 1970, by default the time of day.
        """

        for name in principals:
            for options in self._entries.get(name, ()):
                if options_admit(options, client_host, client_addr, now):
                    return dict(options)

        return None

    def _load_line(self, line: str) -> None:
        size = len(line.encode(errors='surrogateescape'))

        if size > _MAX_LINE_SIZE:
            raise ValueError(f'Expected a line of at most {_MAX_LINE_SIZE} bytes, got {size}')

        if '\0' in line:
            raise ValueError('Expected a line without NUL')

        # As sshd does: the name is the last word of the line.
        *before, name = line.rsplit(None, 1)
        options = parse_options(before[0].rstrip()) if before else {}

        if 'cert-authority' in options or 'principals' in options:
            raise ValueError('Expected no cert-authority or principals option in a principals file')

        self._entries.setdefault(name, []).append(options)


def read_authorized_principals(filelist: _Path | Sequence[_Path]) -> SSHAuthorizedPrincipals:
    """Read principals from one or more files."""

    principals = SSHAuthorizedPrincipals()

    for filename in [filelist] if isinstance(filelist, str | PurePath) else filelist:
        path = os.path.abspath(filename)
        data, _ = read_bounded(path, _MAX_FILE_SIZE)
        principals.load(data.decode(errors='surrogateescape'), path)

    return principals
