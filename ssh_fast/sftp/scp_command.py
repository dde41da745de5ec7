"""The command line that starts the other side of an SCP copy: written for a shell, and read as a shell reads it."""

import fnmatch
import posixpath
import re
from collections.abc import Callable
from typing import NamedTuple

from .scp_records import Wanted

_MAGIC = re.compile(rb'[*?[]')
_TILDE = re.compile(rb'~[A-Za-z0-9_.-]*(?=/|\Z)')

# What no shell takes for more than it is. Patterns, where they are wanted, also need what their brackets hold.
_UNSAFE = re.compile(rb'[^A-Za-z0-9_./,:=@%+-]+')
_UNSAFE_IN_PATTERN = re.compile(rb'[^A-Za-z0-9_./,:=@%+*?\[\]!^-]+')

_TOKEN = re.compile(
    rb"""'(?P<single>[^']*)'"""
    rb"""|"(?P<double>(?:[^"\\]|\\.)*)\""""
    rb"""|\\(?P<escaped>.)"""
    rb"""|(?P<space>[ \t\n]+)"""
    rb"""|(?P<plain>[^'"\\ \t\n]+)""",
    re.DOTALL,
)


class Word(NamedTuple):
    """A word of a command line, and the pattern that it is if a shell would look for files that match it."""

    text: bytes
    pattern: bytes | None


class ScpCommand(NamedTuple):
    """What a client asks of the scp on a server."""

    is_source: bool
    recurse: bool
    preserve: bool
    must_be_directory: bool
    paths: list[Word]


# --- what is asked of a server


def has_pattern(path: bytes) -> bool:
    """Whether a path has characters of patterns in it."""

    return bool(_MAGIC.search(path))


def source_command(path: bytes, *, recurse: bool, preserve: bool) -> bytes:
    """Return the command that sends files; patterns in the path are left to the server's shell."""

    unsafe = _UNSAFE_IN_PATTERN if has_pattern(path) else _UNSAFE

    return b'scp%s%s -f %s' % (b' -r' * recurse, b' -p' * preserve, _quote(path, unsafe))


def sink_command(path: bytes, *, recurse: bool, preserve: bool, must_be_directory: bool) -> bytes:
    """Return the command that receives files."""

    flags = b' -r' * recurse + b' -p' * preserve + b' -d' * must_be_directory

    return b'scp%s -t %s' % (flags, _quote(path or b'.', _UNSAFE))


def _quote(path: bytes, unsafe: re.Pattern[bytes]) -> bytes:
    """Make one word of a path; a `~` in front stays the user's home directory."""

    if path.startswith(b'-'):
        # Not all take `--` for the end of the options.
        path = b'./' + path

    tilde = _TILDE.match(path)
    begin = tilde.end() if tilde else 0

    return path[:begin] + unsafe.sub(lambda run: b"'" + run[0].replace(b"'", b"'\\''") + b"'", path[begin:])


def wanted_names(path: bytes) -> Wanted | None:
    """Return which names a server may send for a path; None if it leads to no name that is known here."""

    name = posixpath.basename(path.rstrip(b'/'))

    if name in (b'', b'.', b'..') or _TILDE.fullmatch(path.rstrip(b'/')):
        return None

    match = name_pattern(name)

    return Wanted(lambda got: got == name or match(got), has_pattern(path))


def name_pattern(pattern: bytes) -> Callable[[bytes], bool]:
    """Return what tells whether a name matches a pattern as a shell says: a dot in front must be in the pattern."""

    is_hidden = pattern.startswith(b'.')
    match = re.compile(fnmatch.translate(pattern.decode('latin-1').replace('[^', '[!'))).match

    return lambda name: (is_hidden or not name.startswith(b'.')) and bool(match(name.decode('latin-1')))


# --- what is asked of us


def is_scp(command: str) -> bool:
    """Whether a command is to be served as SCP."""

    return command.split(' ', 1)[0] == 'scp'


def parse_command(command: bytes) -> ScpCommand:
    """Parse what a client runs.

    Raises:
      ValueError: it is not a command of SCP
    """

    words = split_words(command)[1:]
    flags: set[str] = set()

    while words and words[0].text.startswith(b'-') and words[0].text != b'-':
        option = words.pop(0).text

        if option == b'--':
            break

        flags |= set(option[1:].decode('latin-1'))

    # Clients pass on that they are to be verbose, or quiet.
    if unknown := flags - set('tfrpdvq'):
        raise ValueError(f'expected options of -tfrpdvq, got -{min(unknown)}')

    if len(flags & {'t', 'f'}) != 1:
        raise ValueError('expected one of -t and -f')

    if not words or ('t' in flags and len(words) > 1):
        raise ValueError(f'expected one path, got {len(words)}: quote names with spaces in them')

    return ScpCommand('f' in flags, 'r' in flags, 'p' in flags, 'd' in flags, words)


def split_words(command: bytes) -> list[Word]:
    """Split a command line as a shell does: quotes are taken off, but there are no variables, and no other commands.

    Raises:
      ValueError: a quote is not closed
    """

    words = []
    text, pattern = bytearray(), bytearray()
    began = is_pattern = has_tilde = False
    position = 0

    while position <= len(command):
        token = _TOKEN.match(command, position)

        if not token and position < len(command):
            raise ValueError('expected quotes in pairs')

        if not token or token['space'] is not None:
            if began:
                # A client's home is where its session begins.
                if has_tilde and bytes(text[1:2]) in (b'', b'/'):
                    text, pattern = text[2:] or bytearray(b'.'), pattern[2:]

                words.append(Word(bytes(text), bytes(pattern) if is_pattern else None))

            text, pattern = bytearray(), bytearray()
            began = is_pattern = has_tilde = False
        elif token['plain'] is not None:
            has_tilde = has_tilde or (not began and token['plain'].split(b'/')[0] == b'~')
            is_pattern = is_pattern or has_pattern(token['plain'])
            text += token['plain']
            pattern += token['plain']
            began = True
        else:
            quoted = _unquoted(token)
            text += quoted
            pattern += _MAGIC.sub(rb'[\g<0>]', quoted)
            began = True

        if not token:
            break

        position = token.end()

    return words


def _unquoted(token: 're.Match[bytes]') -> bytes:
    if token['double'] is not None:
        return re.sub(rb'\\([\\"$`])', rb'\1', token['double'])

    return token['single'] if token['single'] is not None else token['escaped']
