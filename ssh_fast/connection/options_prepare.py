"""What the value of an option becomes: each function checks one kind of value, and its errors name the option."""

import codecs
import os
import re
import shlex
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from inspect import isawaitable
from pathlib import PurePath
from typing import Any, TypeVar

from ..channel.client_channel import prepare_environment
from ..transport.algorithms import select_algorithms
from ..userauth.messages import DEFAULT_METHODS, MAX_PASSWORD, MAX_USERNAME
from ..userauth.server_policy import AuthPolicy, MethodSequence, parse_sequences

T = TypeVar('T')

PasswordValue = str | Awaitable[str | None] | Callable[[], str | Awaitable[str | None] | None] | None

# RFC 4253 section 4.2: the identification line has at most 255 bytes, with SSH-2.0- and CR LF
_MAX_VERSION = 255 - len('SSH-2.0-\r\n')

_BYTE_UNITS = {'': 1, 'b': 1, 'k': 1 << 10, 'm': 1 << 20, 'g': 1 << 30}
_TIME_UNITS = {'': 1, 's': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 604800}
_QUANTITY = re.compile(r'(\d+(?:\.\d+)?)([a-z]?)', re.ASCII)

# Windows are counted in 32 bits (RFC 4254 section 5.2); a packet must fit in 256 KiB with its header and MAC.
_MAX_UINT32 = 0xffffffff
_MAX_PACKET = 256 * 1024 - 1024
_MIN_PACKET = 64



def is_unset(value: object) -> bool:
    """Tell whether a value leaves an option unset: the empty tuple does, as in AsyncSSH."""

    return isinstance(value, tuple) and not value


# --- plain values


def boolean(name: str, value: object) -> bool:
    """Take True or False."""

    if not isinstance(value, bool):
        raise ValueError(f'{name}: expected True or False, got {value!r}')

    return value


def integer(low: int, high: int = _MAX_UINT32) -> Callable[[str, object], int]:
    """Make a check for an integer within bounds."""

    def check(name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f'{name}: expected an integer from {low} to {high}, got {value!r}')

        return value

    return check


def text(name: str, value: object) -> str:
    """Take text."""

    if not isinstance(value, str):
        raise ValueError(f'{name}: expected text, got {value!r}')

    return value


def optional_text(name: str, value: object) -> str | None:
    """Take text or None."""

    return None if value is None else text(name, value)


def agent_forwarding(name: str, value: object) -> bool | str:
    """Take True, False, or the path of the agent that is to be forwarded."""

    return text(name, value) if isinstance(value, str) and value else boolean(name, value or False)


def x11_forwarding(name: str, value: object) -> bool | str:
    """Take True, False, or 'ignore_failure'."""

    if value == 'ignore_failure':
        return 'ignore_failure'

    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{name}: expected True, False or 'ignore_failure', got {value!r}")

    return bool(value)


def tunnel(name: str, value: object) -> object:
    """Take an open connection, or jump hosts as [user@]host[:port] between commas or in a list; None for none."""

    if value is None or value == '':
        return None

    if isinstance(value, list | tuple) and value and all(isinstance(host, str) and host for host in value):
        return ','.join(value)

    if isinstance(value, str) or hasattr(value, 'create_connection'):
        return value

    raise ValueError(f'{name}: expected a connection, or jump hosts as [user@]host[:port], got {type(value).__name__}')


def choice(*choices: str) -> Callable[[str, object], str]:
    """Make a check for one of several words."""

    def check(name: str, value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f'{name}: expected {" or ".join(map(repr, choices))}, got {value!r}')

        return value

    return check


def function(name: str, value: object) -> Callable[..., Any] | None:
    """Take a callable or None."""

    if value is not None and not callable(value):
        raise ValueError(f'{name}: expected a callable or None, got {value!r}')

    return value


def sftp_factory(name: str, value: object) -> Callable[..., Any] | bool | None:
    """Take a callable, True for the default server, False or None for none."""

    return value if isinstance(value, bool) else function(name, value)


def host(name: str, value: object) -> str:
    """Take a host name or address; control characters and spaces would be somebody's trick."""

    value = text(name, value)

    if any(char <= ' ' or char == '\x7f' for char in value):
        raise ValueError(f'{name}: expected a host name or address, got {value!r}')

    return value


def sftp_version(name: str, value: object) -> int:
    """Take the version of SFTP, which is 3."""

    if value != 3:
        raise ValueError(f'{name}: expected 3, the only version there is here, got {value!r}')

    return 3


def optional_host(name: str, value: object) -> str | None:
    """Take a host name or None."""

    return None if value is None else host(name, value)


def address(name: str, value: object) -> tuple[str, int] | None:
    """Take a local address, a pair of host and port, or None."""

    if value is None:
        return None

    if not isinstance(value, tuple) or len(value) != 2:
        raise ValueError(f'{name}: expected a pair of host and port, got {value!r}')

    return host(name, value[0]), integer(0, 65535)(name, value[1])


def family(name: str, value: object) -> int:
    """Take an address family of the socket module."""

    if not isinstance(value, int) or value not in (socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6):
        raise ValueError(f'{name}: expected AF_UNSPEC, AF_INET or AF_INET6, got {value!r}')

    return value


def version(name: str, value: object) -> bytes:
    """Take a software version for the identification line (RFC 4253 section 4.2)."""

    data = value.encode() if isinstance(value, str) else value
    printable = isinstance(data, bytes) and all(32 <= byte < 127 for byte in data)

    if not isinstance(data, bytes) or not printable or not 1 <= len(data) <= _MAX_VERSION:
        raise ValueError(f'{name}: expected 1 to {_MAX_VERSION} printable ASCII characters, got {value!r}')

    return data


def encoding(name: str, value: object) -> str | None:
    """Take the name of a text encoding, or None for bytes."""

    if value is None:
        return None

    try:
        codecs.lookup(text(name, value))
    except LookupError:
        raise ValueError(f'{name}: unknown encoding {value!r}') from None

    return text(name, value)


def error_handler(name: str, value: object) -> str:
    """Take the name of a way to handle bytes that cannot be decoded."""

    try:
        codecs.lookup_error(text(name, value))
    except LookupError:
        raise ValueError(f'{name}: unknown error handler {value!r}') from None

    return text(name, value)


def proxy_command(name: str, value: Any) -> tuple[str, ...] | None:
    """Take a command as a list of arguments, or as text that is split as a shell would; None or nothing for none."""

    if isinstance(value, str):
        try:
            value = shlex.split(value)
        except ValueError as exc:
            raise ValueError(f'{name}: {exc}') from None

    if value is None:
        return None

    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and '\0' not in item for item in value):
        raise ValueError(f'{name}: expected a command as text or as a list of texts, got {value!r}')

    return tuple(value) or None


# --- configuration files and canonical names


def config_paths(name: str, value: Any) -> tuple[str, ...]:
    """Take the paths of configuration files, one or a list; None for none."""

    paths = [] if value is None else [value] if isinstance(value, str | PurePath) else value

    if not isinstance(paths, list | tuple) or not all(isinstance(item, str | PurePath) and str(item) for item in paths):
        raise ValueError(f'{name}: expected a path, a list of paths or None, got {value!r}')

    return tuple(os.path.abspath(os.path.expanduser(item)) for item in paths)


def canonicalize(name: str, value: object) -> bool | str:
    """Take True, False, or 'always' for behind proxies too."""

    if isinstance(value, bool) or value == 'always':
        return value

    raise ValueError(f"{name}: expected True, False or 'always', got {value!r}")


def domains(name: str, value: Any) -> tuple[str, ...]:
    """Take names of domains."""

    if not isinstance(value, list | tuple):
        raise ValueError(f'{name}: expected a list of domains, got {value!r}')

    return tuple(host(name, item) for item in value)


def permitted_cnames(name: str, value: Any) -> tuple[tuple[str, str], ...]:
    """Take pairs of pattern lists: names that match the first may become names that match the second."""

    if not isinstance(value, list | tuple):
        raise ValueError(f'{name}: expected a list of pairs of patterns, got {value!r}')

    pairs = []

    for item in value:
        pair = tuple(item.split(':', 1)) if isinstance(item, str) else item

        if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise ValueError(f'{name}: expected pairs of patterns, got {item!r}')

        pairs.append((pair[0], pair[1]))

    return tuple(pairs)


# --- quantities


def byte_count(name: str, value: object) -> int:
    """Take a number of bytes, above 0: an integer, or text with the units k, m and g such as '1g' or '1.5g'."""

    count = _quantity(name, value, _BYTE_UNITS, 'bytes')

    if not 1 <= count < float('inf'):
        raise ValueError(f'{name}: expected more than 0 bytes, got {value!r}')

    return int(count)


def duration(name: str, value: object) -> float:
    """Take a time in seconds, at least 0: a number, or text with the units s, m, h, d and w such as '1h30m'."""

    seconds = _quantity(name, value, _TIME_UNITS, 'seconds')

    if not 0 <= seconds < float('inf'):
        raise ValueError(f'{name}: expected a time of at least 0 seconds, got {value!r}')

    return seconds


def positive_duration(name: str, value: object) -> float:
    """Take a time in seconds above 0."""

    seconds = duration(name, value)

    if not seconds:
        raise ValueError(f'{name}: expected a time of more than 0 seconds, got {value!r}')

    return seconds


def optional_duration(name: str, value: object) -> float | None:
    """Take a time in seconds; None and 0 stand for no limit."""

    return None if value is None else duration(name, value) or None


def _quantity(name: str, value: object, units: Mapping[str, int], what: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value

    parts = _QUANTITY.findall(value.strip().lower()) if isinstance(value, str) else []

    if not parts or ''.join(map(''.join, parts)) != str(value).strip().lower() or any(
        unit not in units for _, unit in parts
    ):
        names = ', '.join(filter(None, units))
        raise ValueError(f'{name}: expected a number of {what}, or text with the units {names}; got {value!r}')

    return sum(float(number) * units[unit] for number, unit in parts)


window = integer(_MIN_PACKET)
max_pktsize = integer(_MIN_PACKET, _MAX_PACKET)
port = integer(0, 65535)


# --- algorithms and methods


def algorithms(kind: str) -> Callable[[str, object], tuple[bytes, ...]]:
    """Make a check for a selection of algorithms of a kind."""

    def check(name: str, value: Any) -> tuple[bytes, ...]:
        if value is not None and not isinstance(value, str | list | tuple):
            raise ValueError(f'{name}: expected a list of algorithm names or one string, got {value!r}')

        return select_algorithms(kind, value, name)

    return check


def preferred_methods(name: str, value: object) -> tuple[bytes, ...]:
    """Take the client's methods in order: a list of names, or one string of names between commas."""

    names = value.split(',') if isinstance(value, str) else value

    if not isinstance(names, list | tuple) or not all(isinstance(method, str) for method in names):
        raise ValueError(f'{name}: expected a list of authentication methods or one string, got {value!r}')

    methods = tuple(method.strip().encode() for method in names)

    for method in methods:
        if method not in DEFAULT_METHODS:
            known = b', '.join(DEFAULT_METHODS).decode()
            raise ValueError(f'{name}: unknown method {method.decode()!r}, expected some of {known}')

    return methods


def method_sequences(name: str, value: Any) -> tuple[MethodSequence, ...]:
    """Take what a server demands: alternative sequences such as ['publickey,password', 'keyboard-interactive']."""

    try:
        return AuthPolicy(parse_sequences(value)).sequences
    except (ValueError, TypeError, AttributeError) as exc:
        raise ValueError(f'{name}: {exc}') from None


# --- who logs in



def username(name: str, value: object) -> str:
    """Take a user name."""

    value = text(name, value)

    if not value or len(value.encode(errors='replace')) > MAX_USERNAME or '\0' in value:
        raise ValueError(f'{name}: expected 1 to {MAX_USERNAME} bytes without NUL, got {value[:32]!r}')

    return value


def password(name: str, value: Any) -> PasswordValue:
    """Take a password, an awaitable of one, a callable that returns either, or None; errors do not show it."""

    if isinstance(value, str):
        if len(value.encode(errors='replace')) > MAX_PASSWORD:
            raise ValueError(f'{name}: expected at most {MAX_PASSWORD} bytes')
    elif value is not None and not callable(value) and not isawaitable(value):
        raise ValueError(f'{name}: expected text, a callable, an awaitable or None, got {type(value).__name__}')

    checked: PasswordValue = value

    return checked


def passphrase(name: str, value: Any) -> bytes | str | Callable[[str], bytes | str | None] | None:
    """Take a passphrase, a callable of a file name that returns one, or None; errors do not show it."""

    if value is not None and not isinstance(value, bytes | str) and not callable(value):
        raise ValueError(f'{name}: expected text, bytes, a callable or None, got {type(value).__name__}')

    checked: bytes | str | Callable[[str], bytes | str | None] | None = value

    return checked


# --- sessions


def environment(name: str, value: Any) -> dict[bytes, bytes]:
    """Take variables as a mapping, as pairs, or as texts of the form name=value."""

    try:
        return prepare_environment(value)
    except (TypeError, IndexError, KeyError, ValueError, AttributeError):
        # The values may be secret.
        raise ValueError(f"{name}: expected a mapping, pairs, or texts of the form 'name=value'") from None


def variable_names(name: str, value: Any) -> tuple[str | bytes, ...]:
    """Take names of variables of this process to send, wildcards included."""

    if value is None:
        return ()

    if not isinstance(value, Iterable) or isinstance(value, str | bytes):
        raise ValueError(f'{name}: expected a list of names, got {value!r}')

    names = tuple(value)

    if not all(isinstance(item, str | bytes) for item in names):
        raise ValueError(f'{name}: expected names as text or bytes, got {value!r}')

    return names


def request_pty(name: str, value: object) -> bool | str:
    """Take True, False, 'force' or 'auto'."""

    if isinstance(value, bool) or (isinstance(value, str) and value in ('force', 'auto')):
        return value

    raise ValueError(f"{name}: expected True, False, 'force' or 'auto', got {value!r}")


def term_size(name: str, value: Any) -> tuple[int, ...] | None:
    """Take width and height in characters, and perhaps in pixels, or None."""

    if value is None:
        return None

    if not isinstance(value, Sequence) or len(value) not in (2, 4):
        raise ValueError(f'{name}: expected 2 or 4 sizes, got {value!r}')

    return tuple(integer(0)(name, size) for size in value)


def term_modes(name: str, value: Any) -> Mapping[int, int] | None:
    """Take a mapping of PTY_ constants to values, or None."""

    if value is None:
        return None

    if not isinstance(value, Mapping):
        raise ValueError(f'{name}: expected a mapping of terminal modes, got {value!r}')

    return {integer(1, 159)(name, mode): integer(0)(name, setting) for mode, setting in value.items()}


# --- what is not here


def refuse_unsupported(name: str, value: object, off: Collection[object]) -> None:
    """Refuse an option that this version does not have, unless its value turns it off."""

    # Compared with its type: 0 is not False here, and 1 not True.
    if not is_unset(value) and not any(type(value) is type(item) and value == item for item in off):
        raise ValueError(f'option {name!r} is not supported by this version')
