"""What the arguments of a keyword mean: one function for each kind of value, for the tables of clients and servers.

Each takes the keyword and the rest of its line, and raises `ValueError` for what OpenSSH would not take either.
"""

import re
import socket
from collections.abc import Callable, Mapping
from typing import NamedTuple

from .config_parser import split_arguments

# OpenSSH keeps times and numbers in an int.
_MAX_INT = 0x7fffffff
_MAX_SIZE = (1 << 63) - 1

_TIME = re.compile(r'(\d+)([smhdw]?)', re.ASCII | re.IGNORECASE)
_TIME_UNITS = {'': 1, 's': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 604800}
_SIZE = re.compile(r'(\d+)(?:\.(\d+))?([bkmgtpe]?)', re.ASCII | re.IGNORECASE)
_SIZE_UNITS = {'': 0, 'b': 0, 'k': 10, 'm': 20, 'g': 30, 't': 40, 'p': 50, 'e': 60}

_MIN_REKEY = 16

_FLAGS = {'yes': True, 'true': True, 'no': False, 'false': False}


class RekeyLimit(NamedTuple):
    """When keys are exchanged again; 0 is the default."""

    bytes: int
    seconds: int


class Forward(NamedTuple):
    """A forwarding that a configuration asks for.

    `kind` is local, remote or dynamic. An end is a host (empty for any, None for the default) and a port, or a path
    and 0. The target of a remote forwarding without one is None: it is a SOCKS proxy.
    """

    kind: str
    listen: tuple[str | None, int]
    target: tuple[str, int] | None


class PermittedCname(NamedTuple):
    """Lists of patterns: names that match the first may be followed to names that match the second."""

    sources: str
    targets: str


def single(_: str, rest: str) -> str:
    """Take one argument that is not empty."""

    words = split_arguments(rest)

    if not words or not words[0]:
        raise ValueError('expected an argument')

    if len(words) > 1:
        raise ValueError(f'expected one argument, got {len(words)}')

    return words[0]


def paths(_: str, rest: str) -> tuple[str, ...]:
    """Take any number of arguments, at least one."""

    found = split_arguments(rest)

    if not found or not all(found):
        raise ValueError('expected arguments that are not empty')

    return tuple(found)


def words(keyword: str, rest: str) -> tuple[str, ...]:
    """Take any number of arguments; `none` must stand alone."""

    found = paths(keyword, rest)

    if len(found) > 1 and any(word.lower() == 'none' for word in found):
        raise ValueError("'none' must stand alone")

    return found


def command(_: str, rest: str) -> str:
    """Take the rest of the line as it is."""

    return rest.lstrip(' \t=')


def choice(choices: Mapping[str, object]) -> Callable[[str, str], object]:
    """Make a parser of one word of several, in any case."""

    def parse(keyword: str, rest: str) -> object:
        word = single(keyword, rest)

        if word.lower() not in choices:
            raise ValueError(f'expected one of {", ".join(choices)}, got {word!r}')

        return choices[word.lower()]

    return parse


flag = choice(_FLAGS)


def integer(low: int, high: int = _MAX_INT) -> Callable[[str, str], int]:
    """Make a parser of a number."""

    def parse(keyword: str, rest: str) -> int:
        word = single(keyword, rest)

        if not re.fullmatch(r'[+-]?\d{1,18}', word, re.ASCII) or not low <= int(word) <= high:
            raise ValueError(f'expected an integer from {low} to {high}, got {word!r}')

        return int(word)

    return parse


def port(keyword: str, rest: str) -> int:
    """Take a port, by its number or the name of its service."""

    return _port(single(keyword, rest))


def _port(word: str, low: int = 1) -> int:
    if re.fullmatch(r'\d{1,9}', word, re.ASCII):
        number = int(word)
    else:
        try:
            number = socket.getservbyname(word, 'tcp')
        except (OSError, ValueError):
            number = -1

    if not low <= number <= 65535:
        raise ValueError(f'expected a port from {low} to 65535, got {word!r}')

    return number


def duration(keyword: str, rest: str) -> int | None:
    """Take a time in seconds, as 90 or 1m30s; None for `none`."""

    word = single(keyword, rest)

    return None if word == 'none' else seconds(word)


def seconds(word: str) -> int:
    """Read a time: numbers with the units s, m, h, d and w."""

    parts = _TIME.findall(word) if len(word) <= 64 else []
    total = sum(int(number) * _TIME_UNITS[unit.lower()] for number, unit in parts)

    if not parts or ''.join(map(''.join, parts)) != word or total > _MAX_INT:
        raise ValueError(f'expected a time such as 90 or 1m30s, got {word!r}')

    return total


def rekey_limit(_: str, rest: str) -> RekeyLimit:
    """Take a size and perhaps a time, as `1G 1h`."""

    found = split_arguments(rest)

    if not 1 <= len(found) <= 2:
        raise ValueError(f'expected a size and perhaps a time, got {len(found)} arguments')

    size = 0 if found[0] == 'default' else _size(found[0])

    if 0 < size < _MIN_REKEY:
        raise ValueError(f'expected at least {_MIN_REKEY} bytes, got {size}')

    return RekeyLimit(size, seconds(found[1]) if len(found) == 2 and found[1] != 'none' else 0)


def _size(word: str) -> int:
    found = _SIZE.fullmatch(word) if len(word) <= 64 else None

    if not found:
        raise ValueError(f'expected a size such as 512M, got {word!r}')

    shift = _SIZE_UNITS[found[3].lower()]
    fraction = found[2] or ''
    size = (int(found[1]) << shift) + (((int(fraction) << shift) // 10 ** len(fraction)) if fraction else 0)

    if size > _MAX_SIZE:
        raise ValueError(f'expected a size below 8E, got {word!r}')

    return size


def algorithms(keyword: str, rest: str) -> str:
    """Take a list of algorithms, perhaps behind `+`, `-` or `^`; names are looked at by who uses them."""

    word = single(keyword, rest)

    if not all(word.lstrip('+-^').split(',')):
        raise ValueError(f'expected names of algorithms between commas, got {word!r}')

    return word


def variable_names(_: str, rest: str) -> tuple[str, ...]:
    """Take names of environment variables, perhaps with wildcards, or behind `-` to take them back."""

    found = words(_, rest)

    if any('=' in name for name in found):
        raise ValueError('expected names of variables, without values')

    return found


def variables(_: str, rest: str) -> tuple[str, ...]:
    """Take variables with their values, as `NAME=value`; the first of a name counts."""

    found = words(_, rest)
    names: dict[str, str] = {}

    for item in found:
        name, equals, _value = item.partition('=')

        if not equals or not name:
            # The value may be secret.
            raise ValueError('expected NAME=value')

        names.setdefault(name, item)

    return tuple(names.values())


def permitted_cnames(_: str, rest: str) -> tuple[PermittedCname, ...]:
    """Take rules of the form `sources:targets`."""

    found = words(_, rest)

    if found == ('none',):
        return ()

    if len(found) == 1 and found[0] == '*':
        return (PermittedCname('*', '*'),)

    rules = []

    for word in found:
        sources, colon, targets = word.partition(':')

        if not sources or not colon or not targets:
            raise ValueError(f'expected patterns as sources:targets, got {word!r}')

        rules.append(PermittedCname(sources.lower(), targets.lower()))

    return tuple(rules)


def jump(keyword: str, rest: str) -> str | None:
    """Take the hosts of ProxyJump, each as [user@]host[:port] or ssh://...; None for `none`."""

    text = rest.split()[0] if keyword == 'proxyjump' else rest

    if text.lower() == 'none':
        return None

    return ','.join(_hop(hop) for hop in text.split(','))


def _hop(text: str) -> str:
    """Check one host of a chain, and write it without the scheme."""

    plain = text[6:].rstrip('/') if text.lower().startswith('ssh://') else text
    user, at, where = plain.rpartition('@')
    bracketed = re.fullmatch(r'\[([^][]+)\](?::(.+))?', where)
    host, colon, number = where.partition(':') if not bracketed else (bracketed[1], bracketed[2] or '', bracketed[2])

    if not bracketed and where.count(':') > 1:
        host, colon, number = where, '', ''

    if not host or (at and not user) or (colon and not number) or any(char <= ' ' for char in plain) or host[0] == '-':
        raise ValueError(f'expected hosts as user@host:port, got {text!r}')

    if number:
        _port(number)

    return plain


def forward(kind: str) -> Callable[[str, str], Forward]:
    """Make a parser of one forwarding."""

    def parse(_: str, rest: str) -> Forward:
        found = split_arguments(rest)

        if not 1 <= len(found) <= 2 or not all(found) or (kind == 'dynamic' and len(found) == 2):
            raise ValueError(f'expected where to listen and where to connect to, got {len(found)} arguments')

        if len(found) == 1 and kind == 'local':
            raise ValueError('expected where to connect to')

        listen = _listen_end(found[0], remote=kind == 'remote')

        return Forward(kind, listen, _target_end(found[1]) if len(found) == 2 else None)

    return parse


def _listen_end(text: str, *, remote: bool) -> tuple[str | None, int]:
    if '/' in text and not text.startswith('['):
        return text, 0

    host, number = _split_port(text)

    return None if host is None else '' if host == '*' else host, _port(number, 0 if remote else 1)


def _target_end(text: str) -> tuple[str, int]:
    if text.startswith('/') or ('/' in text and ':' not in text):
        return text, 0

    host, number = _split_port(text)

    if not host:
        raise ValueError(f'expected a host and a port, got {text!r}')

    return host, _port(number)


def _split_port(text: str) -> tuple[str | None, str]:
    """Split [host:]port; also with / for the colon, and with brackets around the host."""

    found = re.fullmatch(r'(?:\[([^][]*)\]|([^][:/]*))[:/]([^:/]+)', text)

    if found:
        return found[1] if found[1] is not None else found[2], found[3]

    if ':' in text or '/' in text:
        raise ValueError(f'expected [host:]port, with an IPv6 address in brackets, got {text!r}')

    return None, text


def listen_address(_: str, rest: str) -> tuple[str, int | None]:
    """Take the address of ListenAddress, perhaps with a port."""

    found = split_arguments(rest)

    if not found or not found[0] or (len(found) > 1 and found[1].lower() != 'rdomain'):
        raise ValueError('expected an address')

    text = found[0]

    if text.count(':') > 1 and not text.startswith('['):
        return text, None

    bare = re.fullmatch(r'\[([^][]*)\]', text)

    if bare:
        return bare[1], None

    host, number = _split_port(text) if ':' in text else (text, '')

    return host or '', _port(number) if number else None
