"""What options about keys and trust become: keys, certificates, known hosts, authorized keys, by value or by file."""

import os
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

from ..keys.authorized_keys import SSHAuthorizedKeys, read_authorized_keys
from ..keys.certificate import DEFAULT_CA_SIGNATURES, SSHCertificate
from ..keys.certificate_files import load_certificates
from ..keys.key import SSHKey
from ..keys.known_hosts import SSHKnownHosts, import_known_hosts, read_known_hosts
from ..keys.load import load_public_keys
from ..keys.principals import SSHAuthorizedPrincipals, read_authorized_principals
from ..keys.revocation import RevokedKeys, load_revoked_keys
from ..transport.algorithms import select_algorithms

# Where the systems that package OpenSSH put it
_KEYSIGN_PATHS = (
    '/usr/lib/openssh/ssh-keysign',
    '/usr/libexec/openssh/ssh-keysign',
    '/usr/libexec/ssh-keysign',
    '/usr/lib/ssh/ssh-keysign',
    '/usr/local/libexec/ssh-keysign',
)

_KNOWN_HOSTS_FILES = ('~/.ssh/known_hosts', '/etc/ssh/ssh_known_hosts')


def keys(name: str, value: Any) -> Any:
    """Take keys in any form: they are loaded when their passphrases and certificates are known."""

    return value


def certificates(name: str, value: Any) -> tuple[SSHCertificate, ...]:
    """Take certificates, their data or their files, one or a list; None stands for none."""

    items = () if value is None else value if isinstance(value, list | tuple) else (value,)

    if not all(isinstance(item, bytes | str | PurePath | SSHCertificate) for item in items):
        raise ValueError(f'{name}: expected certificates, their data or their files, got {value!r}')

    return tuple(load_certificates([key_paths(item) for item in items]))


def keysign(name: str, value: Any) -> Path | None:
    """Take the path of OpenSSH's ssh-keysign, True for where it usually is, or None or False for none.

    Raises:
      ValueError: there is no such program
    """

    if value is None or value is False:
        return None

    if value is True:
        found = next((Path(path) for path in _KEYSIGN_PATHS if os.access(path, os.X_OK)), None)

        if not found:
            raise ValueError(f'{name}: there is no ssh-keysign in {", ".join(_KEYSIGN_PATHS)}')

        return found

    if not isinstance(value, str | PurePath):
        raise ValueError(f'{name}: expected a path, True, False or None, got {value!r}')

    return Path(value).expanduser()


def key_paths(value: Any) -> Any:
    """Expand `~` in what names key files; keys themselves and their data stay as they are."""

    if isinstance(value, str | PurePath):
        return Path(value).expanduser()

    if isinstance(value, list | tuple):
        return type(value)(key_paths(item) for item in value)

    return value


def known_hosts(name: str, value: Any) -> Any:
    """Take known hosts in any form; files are read now, so that a missing one is reported here."""

    if value is None or callable(value) or isinstance(value, SSHKnownHosts):
        return value

    if isinstance(value, bytes):
        return import_known_hosts(value.decode(errors='surrogateescape'))

    if isinstance(value, str | PurePath):
        value = [value]

    if isinstance(value, list) and all(isinstance(item, str | PurePath) for item in value):
        paths = [Path(item).expanduser() for item in value]

        for path in paths:
            read_known_hosts(path)

        return paths

    if isinstance(value, list | tuple) and len(value) in (3, 7):
        return value

    raise ValueError(f'{name}: expected a path, a list of paths, bytes, lists of keys or a callable, got {value!r}')


def default_known_hosts() -> list[Path]:
    """List the user's and the system's files, as far as they can be read; without any, no host is trusted."""

    paths = [Path(name).expanduser() for name in _KNOWN_HOSTS_FILES]

    return [path for path in paths if os.access(path, os.R_OK)]


def known_hosts_file(options: Any) -> Path:
    """Return the file that new keys of hosts are written to: the first that `known_hosts` names, or else the user's.

    Raises:
      ValueError: known_hosts names no file
    """

    if options.user_known_hosts == '':
        raise ValueError('UserKnownHostsFile is none: there is no file to which the keys of hosts can be written')

    if options.user_known_hosts:
        return Path(options.user_known_hosts)

    if not options.is_set('known_hosts'):
        return Path(_KNOWN_HOSTS_FILES[0]).expanduser()

    files = options.known_hosts

    if not isinstance(files, list) or not files or not isinstance(files[0], Path):
        raise ValueError('known_hosts: expected a file to which the keys of hosts can be written')

    return files[0]


def authorized_keys(name: str, value: Any) -> SSHAuthorizedKeys | None:
    """Take authorized keys, or a path or a list of paths to read them from, or None."""

    if value is None or isinstance(value, SSHAuthorizedKeys):
        return value

    return read_authorized_keys(_paths(name, value))


def agent_identities(name: str, value: Any) -> tuple[bytes, ...] | None:
    """Take the public keys of the agent that may be used, as keys, data or files; None for all of them."""

    if value is None:
        return None

    items = value if isinstance(value, list | tuple) else [value]

    if not all(isinstance(item, bytes | str | PurePath | SSHKey) for item in items):
        raise ValueError(f'{name}: expected public keys, their data or their files, got {value!r}')

    return tuple(key.public_data for key in load_public_keys([key_paths(item) for item in items]))


def ca_signature_algs(name: str, value: Any) -> tuple[bytes, ...]:
    """Take the signature algorithms that certificate authorities may use."""

    if not value or not isinstance(value, str | list | tuple):
        raise ValueError(f'{name}: expected a list of algorithm names or one string, got {value!r}')

    return select_algorithms('signature', value, name, DEFAULT_CA_SIGNATURES)


def ca_keys(name: str, value: Any) -> tuple[SSHKey, ...]:
    """Take the keys of certificate authorities, their data or their files; None stands for none."""

    if value is None:
        return ()

    items = value if isinstance(value, list | tuple) else [value]

    if not all(isinstance(item, bytes | str | PurePath | SSHKey) for item in items):
        raise ValueError(f'{name}: expected public keys, their data or their files, got {value!r}')

    keys: list[SSHKey] = []

    for item in items:
        # A file may hold the keys of several authorities.
        keys.extend(load_public_keys(key_paths(item) if isinstance(item, str | PurePath) else [item]))

    return tuple(keys)


def principals(
    name: str, value: Any
) -> SSHAuthorizedPrincipals | Callable[[str], SSHAuthorizedPrincipals | None] | None:
    """Take principals that may log in: what was read, files to read, a callable of a user name, or None."""

    if value is None or callable(value) or isinstance(value, SSHAuthorizedPrincipals):
        checked: SSHAuthorizedPrincipals | Callable[[str], SSHAuthorizedPrincipals | None] | None = value

        return checked

    return read_authorized_principals(_paths(name, value))


def revoked_keys(name: str, value: Any) -> RevokedKeys | None:
    """Take revoked keys: what was read, files of keys or KRLs to read, their data, or None."""

    if value is None or isinstance(value, bytes | RevokedKeys):
        return None if value is None else load_revoked_keys(value)

    paths = _paths(name, value)

    # The parse of a single file is remembered.
    return load_revoked_keys(paths[0] if len(paths) == 1 else paths)


def _paths(name: str, value: Any) -> list[Path]:
    paths = [value] if isinstance(value, str | PurePath) else value

    if not isinstance(paths, list | tuple) or not all(isinstance(item, str | PurePath) for item in paths):
        raise ValueError(f'{name}: expected a path or a list of paths, got {value!r}')

    return [Path(item).expanduser() for item in paths]
