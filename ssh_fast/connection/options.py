"""The options of connections: which there are, what they default to, and objects that hold them ready for use."""

import asyncio
import getpass
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, Self

from ..channel.channel import DEFAULT_MAX_WINDOW, DEFAULT_WINDOW
from ..keys.authorized_keys import SSHAuthorizedKeys
from ..keys.key import SSHKey
from ..keys.keypair import SSHKeyPair
from ..keys.load import load_default_keypairs, load_keypairs
from ..transport.algorithms import available_algorithms
from ..userauth.messages import DEFAULT_METHODS, KEYBOARD_INTERACTIVE, PASSWORD, PUBLIC_KEY
from ..userauth.server_policy import MethodSequence
from . import options_prepare as prepare
from . import options_table as table
from . import options_trust as trust
from .callbacks import SSHClient, SSHServer
from .options_prepare import PasswordValue

_HOST_BASED = b'hostbased'

_ALGORITHM_KINDS = {
    'kex_algs': 'kex',
    'encryption_algs': 'encryption',
    'mac_algs': 'mac',
    'compression_algs': 'compression',
    'signature_algs': 'signature',
    'server_host_key_algs': 'host_key',
}


class SSHConnectionOptions:
    """What the options of clients and of servers share.

    An object is made from keywords, or from another object and the keywords that differ. Files are read when it is made
    (see `construct`), not when it is used: what one object holds serves any number of connections. The empty tuple
    leaves an option unset. A keyword that is not known raises `TypeError`; a value that cannot be, or that asks for
    what this version does not have, `ValueError`.
    """

    _options: ClassVar[Mapping[str, table.Option]] = table.COMMON
    _unsupported: ClassVar[Mapping[str, Sequence[object]]] = table.UNSUPPORTED_COMMON

    host: str
    port: int
    family: int
    local_addr: tuple[str, int] | None
    tcp_keepalive: bool
    utf8_decode_errors: str
    kex_algs: tuple[bytes, ...]
    encryption_algs: tuple[bytes, ...]
    mac_algs: tuple[bytes, ...]
    compression_algs: tuple[bytes, ...]
    signature_algs: tuple[bytes, ...]
    ca_signature_algs: tuple[bytes, ...]
    host_based_auth: bool
    public_key_auth: bool
    kbdint_auth: bool
    password_auth: bool
    rekey_bytes: int
    rekey_seconds: float
    connect_timeout: float | None
    login_timeout: float
    keepalive_interval: float
    keepalive_count_max: int
    encoding: str | None
    errors: str
    window: int
    max_window: int
    max_pktsize: int

    _given: dict[str, Any]

    def __init__(self, options: Self | None = None, **kwargs: object) -> None:
        if options is not None and not isinstance(options, type(self)):
            raise TypeError(f'Expected options of type {type(self).__name__}, got {type(options).__name__}')

        if options is not None:
            self.__dict__.update(options.__dict__)

        self._apply(kwargs, None if options is None else set(kwargs))

    @classmethod
    async def construct(cls, options: Self | None = None, **kwargs: object) -> Self:
        """Make an object in another thread, so that reading key files doesn't hold up the event loop."""

        if options is not None and not kwargs and type(options) is cls:
            return options

        return await asyncio.get_running_loop().run_in_executor(None, partial(cls, options, **kwargs))

    def update(self, **kwargs: object) -> None:
        """Set options anew; if a value is refused, none changes."""

        self._apply(kwargs, set(kwargs))

    def is_set(self, name: str) -> bool:
        """Tell whether an option was given, rather than left to its default."""

        return name in self._given

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f'Options do not change by assignment: use update({name}=...)')

    def __repr__(self) -> str:
        # Most values are long or secret.
        return f'<{type(self).__name__} host={self.host!r} port={self.port}>'

    def _apply(self, kwargs: Mapping[str, object], changed: set[str] | None) -> None:
        """Check the keywords and set what follows from them; `changed` is None for a new object."""

        given = {**self.__dict__.get('_given', {}), **kwargs}

        for name, value in kwargs.items():
            if name in self._unsupported:
                prepare.refuse_unsupported(name, value, self._unsupported[name])
            elif name not in self._options:
                raise TypeError(f'{type(self).__name__} got an unexpected option {name!r}')

            if name in self._unsupported or prepare.is_unset(value):
                del given[name]

        values: dict[str, Any] = {}

        for name in self._options if changed is None else changed & self._options.keys():
            option = self._options[name]

            if name in given:
                values[name] = option.check(name, given[name])
            elif name in _ALGORITHM_KINDS:
                values[name] = available_algorithms(_ALGORITHM_KINDS[name])
            else:
                values[name] = option.default

        if 'window' in values or 'max_window' in values:
            values['window'], values['max_window'] = _windows(given)

        self._load(given, values, changed)
        self.__dict__.update(values, _given=given)

    def _load(self, given: Mapping[str, Any], values: dict[str, Any], changed: set[str] | None) -> None:
        """Replace names of files in `values` by what they hold, and unset values by what stands in for them."""

        raise NotImplementedError


class SSHClientConnectionOptions(SSHConnectionOptions):
    """The options of client connections, with the names and meanings of AsyncSSH's.

    Beyond those: `max_window`, the bytes up to which a channel's receive window may grow by itself (default 16 MiB).
    Unset: `username` is the local user; `known_hosts` are ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts (None checks
    nothing); `client_keys` are id_ed25519, id_ecdsa and id_rsa of ~/.ssh, unless encrypted; `agent_path` is
    SSH_AUTH_SOCK. `client_keys` None turns key authentication off, the agent's keys included.
    """

    _options = table.CLIENT
    _unsupported = table.UNSUPPORTED_CLIENT

    client_factory: Callable[[], SSHClient]
    client_version: bytes
    known_hosts: Any
    host_key_alias: str | None
    server_host_key_algs: tuple[bytes, ...]
    strict_host_key_checking: str
    update_host_keys: bool
    hash_known_hosts: bool
    revoked_host_keys: Any
    server_host_keys_handler: Callable[..., Any] | None
    username: str
    password: PasswordValue
    client_keys: tuple[SSHKeyPair, ...]
    client_host_keys: tuple[SSHKeyPair, ...]
    client_host_keysign: Path | None
    client_host: str | None
    client_username: str
    ignore_encrypted: bool
    preferred_auth: tuple[bytes, ...]
    disable_trivial_auth: bool
    agent_path: str | None
    agent_identities: tuple[bytes, ...] | None
    command: str | None
    subsystem: str | None
    env: Mapping[bytes, bytes]
    send_env: tuple[str | bytes, ...]
    request_pty: bool | str
    term_type: str | None
    term_size: tuple[int, int] | tuple[int, int, int, int] | None
    term_modes: Mapping[int, int] | None

    def _load(self, given: Mapping[str, Any], values: dict[str, Any], changed: set[str] | None) -> None:
        # What these hold is in the key pairs.
        for name in ('passphrase', 'client_certs', 'client_host_certs'):
            values.pop(name, None)

        def touched(*names: str) -> bool:
            return changed is None or not changed.isdisjoint(names)

        if touched('username') and 'username' not in given:
            values['username'] = _local_user('username')

        if touched('client_username') and 'client_username' not in given:
            values['client_username'] = _local_user('client_username')

        if touched('known_hosts') and 'known_hosts' not in given:
            values['known_hosts'] = trust.default_known_hosts()

        if touched('env') and 'env' not in given:
            values['env'] = {}

        flags = ('host_based_auth', 'public_key_auth', 'kbdint_auth', 'password_auth')
        uses_keys = given.get('public_key_auth', True) and given.get('client_keys', ()) is not None

        if touched('preferred_auth', 'client_keys', *flags):
            preferred = values.get('preferred_auth') or prepare.preferred_methods(
                'preferred_auth', given.get('preferred_auth', [name.decode() for name in DEFAULT_METHODS])
            )
            wanted = dict(zip((_HOST_BASED, PUBLIC_KEY, KEYBOARD_INTERACTIVE, PASSWORD), flags, strict=True))
            values['preferred_auth'] = tuple(
                name
                for name in preferred
                if given.get(wanted[name], True) and (name != PUBLIC_KEY or uses_keys)
            )

        if touched('agent_path', 'client_keys', 'public_key_auth'):
            path = given.get('agent_path', os.environ.get('SSH_AUTH_SOCK')) if uses_keys else None
            values['agent_path'] = os.path.expanduser(path) if path else None

        if touched('client_keys', 'client_certs', 'passphrase', 'ignore_encrypted', 'public_key_auth'):
            values['client_keys'] = _load_client_keys(given) if uses_keys else ()

        if touched('client_host_keys', 'client_host_certs', 'passphrase'):
            values['client_host_keys'] = _load_keys('client_host_keys', 'client_host_certs', given)


class SSHServerConnectionOptions(SSHConnectionOptions):
    """The options of server connections, with the names and meanings of AsyncSSH's.

    Beyond those: `max_window`, the bytes up to which a channel's receive window may grow by itself (default 16 MiB);
    `auth_methods`, alternative sequences of methods of which a login must complete one, such as
    ['publickey,password', 'publickey,keyboard-interactive'] (default: any one method); `max_auth_tries`, the failure
    that ends the connection (default 6); `max_sessions`, the sessions that a connection may have open at once (default
    10, as OpenSSH's MaxSessions); `banner`, a text that is sent to clients before they log in. Files of keys are read
    once: call `update` with the same names to read them again.
    """

    _options = table.SERVER
    _unsupported = table.UNSUPPORTED_SERVER

    server_factory: Callable[[], SSHServer]
    server_version: bytes
    server_host_keys: tuple[SSHKeyPair, ...]
    send_server_host_keys: bool
    known_client_hosts: Any
    trust_client_host: bool
    rdns_lookup: bool
    authorized_client_keys: SSHAuthorizedKeys | None
    trusted_user_ca_keys: tuple[SSHKey, ...]
    authorized_principals: Any
    revoked_keys: Any
    auth_methods: tuple[MethodSequence, ...]
    max_auth_tries: int
    max_sessions: int
    banner: str | None
    allow_pty: bool
    line_editor: bool
    line_echo: bool
    line_history: int
    max_line_length: int
    process_factory: Callable[..., Any] | None
    session_factory: Callable[..., Any] | None
    sftp_factory: Callable[..., Any] | bool | None
    sftp_version: Literal[3]

    def _load(self, given: Mapping[str, Any], values: dict[str, Any], changed: set[str] | None) -> None:
        # What these hold is in the key pairs.
        for name in ('passphrase', 'server_host_certs'):
            values.pop(name, None)

        if changed is None or not changed.isdisjoint(('server_host_keys', 'server_host_certs', 'passphrase')):
            values['server_host_keys'] = _load_keys('server_host_keys', 'server_host_certs', given)


def _windows(given: Mapping[str, Any]) -> tuple[int, int]:
    """Return the first receive window and its bound: what is not given follows what is."""

    window, bound = given.get('window'), given.get('max_window')

    if window and bound and window > bound:
        raise ValueError(f'window: expected at most max_window, {bound}, got {window}')

    return window or min(DEFAULT_WINDOW, bound or DEFAULT_WINDOW), bound or max(DEFAULT_MAX_WINDOW, window or 0)


def _local_user(name: str) -> str:
    try:
        return prepare.username(name, getpass.getuser())
    except (KeyError, OSError) as exc:
        raise ValueError(f'{name}: the local user has no name, so it must be given: {exc}') from None


def _load_client_keys(given: Mapping[str, Any]) -> tuple[SSHKeyPair, ...]:
    if 'client_keys' in given:
        return _load_keys('client_keys', 'client_certs', given)

    return tuple(load_default_keypairs(given.get('passphrase'), _certificates('client_certs', given)))


def _load_keys(name: str, certs: str, given: Mapping[str, Any]) -> tuple[SSHKeyPair, ...]:
    keys = given.get(name)

    if keys is None or prepare.is_unset(keys):
        return ()

    try:
        return tuple(
            load_keypairs(
                trust.key_paths(keys),
                given.get('passphrase'),
                _certificates(certs, given),
                ignore_encrypted=given.get('ignore_encrypted', False),
            )
        )
    except TypeError as exc:
        raise ValueError(f'{name}: expected keys or their files: {exc}') from None


def _certificates(name: str, given: Mapping[str, Any]) -> tuple[Any, ...]:
    return trust.certificates(name, given.get(name))
