"""The name `asyncssh` for this package: programs that were written for AsyncSSH run on it unchanged."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .asyncssh_config import SSHClientConfig
from .wire import (
    encode_boolean,
    encode_byte,
    encode_mpint,
    encode_name_list,
    encode_string,
    encode_uint32,
    encode_uint64,
)

NAME = 'asyncssh'
VERSION = '2.24.1'    # of the public names: what programs compare to find out what there is

_ABOUT = ('__author__', '__author_email__', '__url__')

# What else than public names programs take from AsyncSSH's modules. All of these modules have the public names.
_MODULES: dict[str, dict[str, Any]] = {
    'agent': {},
    'auth_keys': {},
    'channel': {},
    'client': {},
    'config': {'SSHClientConfig': SSHClientConfig},
    'connection': {},
    'constants': {},
    'editor': {},
    'forward': {},
    'known_hosts': {},
    'listener': {},
    'logging': {},
    'misc': {},
    'packet': {
        'Boolean': encode_boolean,
        'Byte': encode_byte,
        'MPInt': encode_mpint,
        'NameList': encode_name_list,
        'String': encode_string,
        'UInt32': encode_uint32,
        'UInt64': encode_uint64,
    },
    'pattern': {},
    'process': {},
    'public_key': {},
    'rsa': {},
    'scp': {},
    'server': {},
    'session': {},
    'sftp': {'_MAX_SFTP_REQUESTS': 128},
    'sshsig': {},
    'stream': {},
    'subprocess': {},
    'version': {'__version__': VERSION},
}


class _Alias(ModuleType):
    """A module whose names are those of another, with some of its own."""

    def __init__(self, name: str, package: ModuleType, own: dict[str, Any]) -> None:
        super().__init__(name, f'ssh_fast by the name of {name}.')
        self.__spec__ = ModuleSpec(name, None, origin='ssh_fast', is_package=name == NAME)
        self.__package__ = NAME
        self._package = package

        if name == NAME:
            self.__path__: list[str] = []    # nothing of ours is imported a second time by a name below this one

        self.__all__ = list(package.__all__)
        self.__dict__.update(own)

    def __getattr__(self, name: str) -> Any:
        package = self._package

        if name not in package.__all__ and not name.isupper() and name not in _ABOUT:
            raise AttributeError(f'{self.__name__}: ssh_fast has no {name}', name=name, obj=self)

        return getattr(package, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.__all__})


def install(package: ModuleType) -> None:
    """Make `package` what `import asyncssh` and imports below it give.

    Raises:
      RuntimeError: AsyncSSH itself was imported before
    """

    present = sys.modules.get(NAME)

    if isinstance(present, _Alias):
        return

    if present is not None:
        place = getattr(present, '__file__', None) or 'somewhere'
        raise RuntimeError(
            f'install_as_asyncssh: AsyncSSH is imported already, from {place}; call this before anything imports it'
        )

    made = _Alias(NAME, package, {'__version__': VERSION})

    for name, own in _MODULES.items():
        module = _Alias(f'{NAME}.{name}', package, own)
        made.__dict__[name] = sys.modules[module.__name__] = module

    sys.modules[NAME] = made
