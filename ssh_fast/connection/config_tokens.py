"""What stands for something else in arguments of configuration files: `%h` and its like, `${NAME}`, and `~`."""

import hashlib
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

# OpenSSH bounds what an expansion may become, as a token may stand for much.
_MAX_EXPANDED = 65536

_TOKEN = re.compile(r'%(.?)', re.DOTALL)
_TOKEN_OR_VARIABLE = re.compile(r'%(.?)|\$\{([^}]*)(\}?)', re.DOTALL)


def expand(text: str, tokens: Mapping[str, str], *, variables: bool = False) -> str:
    """Replace percent tokens, and with `variables` names of environment variables as `${NAME}`.

    Raises:
      ValueError: a token is not known here, or a variable is not set
    """

    def replace(found: re.Match[str]) -> str:
        if found[0][0] == '%':
            if found[1] == '%':
                return '%'

            if not found[1] or found[1] not in tokens:
                raise ValueError(f'{found[0]!r} is not a token that can stand here, in {text!r}')

            return tokens[found[1]]

        if not found[2] or not found[3]:
            raise ValueError(f'expected the name of an environment variable between ${{ and }}, in {text!r}')

        if found[2] not in os.environ:
            raise ValueError(f'the environment variable {found[2]} is not set, in {text!r}')

        return os.environ[found[2]]

    if '%' not in text and '$' not in text:
        return text

    expanded = (_TOKEN_OR_VARIABLE if variables else _TOKEN).sub(replace, text)

    if len(expanded) > _MAX_EXPANDED:
        raise ValueError(f'expected at most {_MAX_EXPANDED} characters after expansion')

    return expanded


class LazyTokens(Mapping[str, str]):
    """Tokens whose values are found when they are asked for: the name of this host may cost a call."""

    def __init__(self, values: Mapping[str, Callable[[], str]]) -> None:
        self._values = values

    def __getitem__(self, token: str) -> str:
        return self._values[token]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def only(self, names: str) -> 'LazyTokens':
        """Return the tokens of these letters."""

        return LazyTokens({name: value for name, value in self._values.items() if name in names})


class LocalHost:
    """What tokens tell of this side: its user, home and names."""

    @cached_property
    def home(self) -> str:
        """The home folder."""

        return os.path.expanduser('~')

    @cached_property
    def name(self) -> str:
        """The name of this host, as the system has it."""

        return socket.gethostname()

    @property
    def short_name(self) -> str:
        """The same up to its first dot."""

        return self.name.partition('.')[0]

    @property
    def user_id(self) -> str:
        """The number of the user."""

        return str(os.getuid()) if hasattr(os, 'getuid') else ''


def connection_hash(local_name: str, host: str, port: str, user: str) -> str:
    """Return what %C stands for: the SHA-1 of the names of both hosts, the port and the user, in hexadecimal."""

    return hashlib.sha1(f'{local_name}{host}{port}{user}'.encode(errors='surrogateescape')).hexdigest()
