"""Lines of OpenSSH's configuration files: keywords, quoting, and the files that a resolution may read, each once.

Follows ssh_config(5) and what OpenSSH 9's parsers do where the page says nothing: a keyword ends at white space or one
`=`; arguments may be quoted with `'` or `"`; a backslash escapes quotes, itself and, outside of quotes, a space; `#` at
the start of an argument ends the line.
"""

import glob
import os
import re
import stat
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import ConfigParseError
from ..keys.file_cache import FileCache, read_bounded
from ..keys.patterns import matches_wildcard
from ..logging import logger, printable

# A user's file has a few thousand lines at most; Include may go as deep as in OpenSSH, and not on for ever in width.
_MAX_FILE_SIZE = 1 << 20
_MAX_LINES = 20_000
_MAX_LINE = 1 << 16
_MAX_INCLUDED = 1024
MAX_DEPTH = 16

_WHITESPACE = ' \t'
_TRAILING = ' \t\r\n\f'

# An argument without quotes and escapes
_PLAIN = re.compile(r"""[^ \t"'\\]+(?=[ \t]|\Z)""")

Parse = Callable[[str, str], Any]


class Directive(NamedTuple):
    """A line that was understood: its keyword in lower case, what its arguments mean, and where it stands."""

    keyword: str
    value: Any
    path: str
    line: int

    @property
    def place(self) -> str:
        """The file and line, for errors and logs."""

        return f'{self.path} line {self.line}'

    def error(self, reason: object) -> ConfigParseError:
        """Make the error of this line."""

        return ConfigParseError(f'{self.place}: {self.keyword}: {printable(str(reason), 512)}')


class Configured(NamedTuple):
    """The value that a configuration has for an option, and the line that it comes from."""

    value: Any
    line: Directive


def next_word(text: str) -> tuple[str, str]:
    """Split off a word that ends at white space, at one `=`, or at the end of its quotes; return it and the rest.

    Raises:
      ValueError: the quotes do not end
    """

    end = next((at for at, char in enumerate(text) if char in ' \t="'), len(text))
    word, rest = text[:end], text[end:]

    if rest.startswith('"'):
        quoted, closing, rest = rest[1:].partition('"')

        if not closing:
            raise ValueError('expected a closing quote')

        return word + quoted, rest.lstrip(_WHITESPACE)

    spaced = rest.lstrip(_WHITESPACE)

    return word, spaced[1:].lstrip(_WHITESPACE) if spaced.startswith('=') else spaced


def split_line(text: str) -> tuple[str, str]:
    """Split a line into its keyword, as written, and the rest; the keyword is empty if there is nothing on the line.

    Raises:
      ValueError: the quotes around the keyword do not end
    """

    text = text.rstrip(_TRAILING).lstrip(_WHITESPACE)

    return next_word(text) if text and text[0] != '#' else ('', '')


def split_arguments(text: str) -> list[str]:
    """Split what follows a keyword into its arguments.

    Raises:
      ValueError: a quote is not closed
    """

    words: list[str] = []
    at = 0

    while at < len(text):
        if text[at] in _WHITESPACE:
            at += 1
            continue

        if text[at] == '#':
            break

        plain = _PLAIN.match(text, at)

        if plain:
            word, at = plain[0], plain.end()
        else:
            word, at = _word(text, at)

        words.append(word)

    return words


def _word(text: str, at: int) -> tuple[str, int]:
    """Return the argument that begins at a place, and where it ends."""

    quote = ''
    word: list[str] = []

    while at < len(text):
        char = text[at]
        after = text[at + 1 : at + 2]

        if char == '\\' and (after in ('"', "'", '\\') or (after == ' ' and not quote)):
            word.append(after)
            at += 1
        elif not quote and char in _WHITESPACE:
            break
        elif not quote and char in '"\'':
            quote = char
        elif quote and char == quote:
            quote = ''
        else:
            word.append(char)

        at += 1

    if quote:
        raise ValueError('expected a closing quote')

    return ''.join(word), at


def ignored(_: str, __: str) -> None:
    """Take anything: the keyword decides nothing here."""


def parse_lines(data: bytes, path: str, parse: Mapping[str, Parse]) -> tuple[Directive, ...]:
    """Parse a file; `parse` has a function for each keyword, of its name and the rest of its line.

    It raises `ValueError` for what cannot be. Other keywords are passed over with a warning, as an older or newer
    OpenSSH may know them.

    Raises:
      ConfigParseError: a line is malformed; names file, line and reason
    """

    lines = data.decode('utf-8', 'surrogateescape').split('\n')

    if len(lines) > _MAX_LINES:
        raise ConfigParseError(f'{path}: expected at most {_MAX_LINES} lines, got {len(lines)}')

    directives = []
    expected: list[str] = []

    for number, text in enumerate(lines, 1):
        name = ''

        try:
            if len(text) > _MAX_LINE:
                raise ValueError(f'expected at most {_MAX_LINE} characters, got {len(text)}')

            if '\0' in text:
                raise ValueError('expected text, got a NUL')

            name, rest = split_line(text)

            if name:
                keyword = name.lower()

                if not rest:
                    raise ValueError('expected an argument')

                parser = parse.get(keyword)

                if parser is None:
                    if not any(matches_wildcard(pattern, keyword) for pattern in expected):
                        logger.warning(
                            '%s line %d: unknown keyword %s is passed over', path, number, printable(name, 64)
                        )
                elif parser is ignored:
                    logger.debug('%s line %d: %s has no use here', path, number, name)
                else:
                    directives.append(Directive(keyword, parser(keyword, rest), path, number))

                    if keyword == 'ignoreunknown':
                        expected = directives[-1].value.lower().split(',')
        except ValueError as exc:
            what = f'{printable(name, 64)}: ' if name else ''
            raise ConfigParseError(f'{path} line {number}: {what}{printable(str(exc), 512)}') from None

    return tuple(directives)


class ConfigFiles:
    """The files of one configuration: each is read once, and whoever resolves by it again sees the same.

    Files parsed before are taken from a memory of their parsed lines, as long as they stay unchanged. Names that
    Include leaves relative are looked for in `folder`.
    """

    def __init__(
        self,
        paths: tuple[str, ...],
        parse: Mapping[str, Parse],
        cache: FileCache[tuple[Directive, ...]],
        folder: str,
        *,
        guarded: bool = False,
    ) -> None:
        self.paths = paths
        self._parse = parse
        self._cache = cache
        self._folder = folder
        self._guarded = guarded
        self._files: dict[str, tuple[Directive, ...]] = {}
        self._globs: dict[str, tuple[str, ...]] = {}
        self._lock = threading.Lock()

    def read(self, path: str, *, included: bool = False) -> tuple[Directive, ...]:
        """Return the lines of a file.

        Raises:
          OSError: it cannot be read
          ConfigParseError: it is malformed, or too long, or others may write to it
        """

        with self._lock:
            found = self._files.get(path)

            if found is None:
                if len(self._files) > _MAX_INCLUDED:
                    raise ConfigParseError(f'{path}: expected at most {_MAX_INCLUDED} files')

                found = self._files[path] = self._load(path, guarded=included or self._guarded)

            return found

    def _load(self, path: str, *, guarded: bool) -> tuple[Directive, ...]:
        status = os.stat(path)

        # As OpenSSH does: who may write to the file could have any command run.
        if guarded and os.name == 'posix' and (status.st_uid not in (0, os.getuid()) or status.st_mode & 0o022):
            raise ConfigParseError(f'{path}: bad owner or permissions: others may write to it')

        if not stat.S_ISREG(status.st_mode) and not stat.S_ISCHR(status.st_mode):
            raise ConfigParseError(f'{path}: expected a file')

        found = self._cache.get(path, None, status)

        if found is None:
            try:
                data, status = read_bounded(path, _MAX_FILE_SIZE)
            except ValueError as exc:
                raise ConfigParseError(str(exc)) from None

            found = parse_lines(data, path, self._parse)
            self._cache.put(path, None, status, found)

        return found

    def included(self, pattern: str) -> tuple[str, ...]:
        """Return the files that a pattern of Include stands for, in order."""

        with self._lock:
            found = self._globs.get(pattern)

            if found is None:
                anchored = os.path.join(self._folder, os.path.expanduser(pattern))
                found = self._globs[pattern] = tuple(sorted(glob.glob(anchored)))

            return found
