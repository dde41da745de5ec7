"""The options of connections, as objects that hold them ready for use: those of clients, and those of servers."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from ..keys.authorized_keys import SSHAuthorizedKeys
from ..keys.certificate import SSHCertificate
from ..keys.key import SSHKey
from ..keys.keypair import SSHKeyPair
from ..keys.load import open_keypairs
from ..process.process import SSHServerProcess
from ..process.streams import SSHReader, SSHWriter
from ..userauth.messages import (
    DEFAULT_METHODS,
    GSSAPI_KEYEX,
    GSSAPI_WITH_MIC,
    HOST_BASED,
    KEYBOARD_INTERACTIVE,
    PASSWORD,
    PUBLIC_KEY,
)
from ..userauth.server_policy import MethodSequence
from . import options_gss as gss
from . import options_load as load
from . import options_prepare as prepare
from . import options_table as table
from . import options_trust as trust
from . import options_x509 as x509
from .callbacks import SSHClient, SSHServer
from .canonical import canonical_name
from .config_client import ClientConfig, client_files
from .config_client_options import client_options, config_forwards
from .config_parser import ConfigFiles, Configured, Directive
from .config_server import Client, ServerConfig, server_files
from .config_server_options import depends_on_user, server_options
from .config_values import Forward
from .options_base import Sources, SSHConnectionOptions
from .options_limits import Network, Penalties, Startups
from .options_prepare import PasswordValue

SSHServerProcessFactory = Callable[[SSHServerProcess[Any]], Awaitable[None] | None]
SSHServerSessionFactory = Callable[[SSHReader[Any], SSHWriter[Any], SSHWriter[Any]], Awaitable[None] | None]

# The user's file is read if there is one; the system's is not, as in AsyncSSH.
_DEFAULT_CONFIG = '~/.ssh/config'

# What a client's configuration depends on
_CONFIG_NAMES = frozenset(('config', 'host', 'port', 'username', 'canonicalize_hostname'))


class SSHClientConnectionOptions(SSHConnectionOptions):
    """The options of client connections, with the names and meanings of AsyncSSH's.

    Beyond those: `max_window`, the bytes up to which a channel's receive window may grow by itself (default 16 MiB).
    Unset: `username` is the local user; `known_hosts` are ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts (None checks
    nothing); `client_keys` are id_ed25519, id_ecdsa and id_rsa of ~/.ssh, unless encrypted; `agent_path` is
    SSH_AUTH_SOCK. `client_keys` None turns key authentication off, the agent's keys included.

    `config` names files as OpenSSH's ssh_config; unset, ~/.ssh/config is read if it is there, and None reads none. What
    a file says for the host stands in for options that are not given. An object made from another one has that one's
    files too, in front of its own.
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
    client_certs: tuple[SSHCertificate, ...]
    client_host_keys: tuple[SSHKeyPair, ...]
    client_host_keysign: Path | None
    client_host: str | None
    client_username: str
    gss_delegate_creds: bool
    ignore_encrypted: bool
    preferred_auth: tuple[bytes, ...]
    disable_trivial_auth: bool
    pkcs11_provider: str | None
    agent_path: str | None
    agent_identities: tuple[bytes, ...] | None
    agent_forwarding: bool | str
    x11_forwarding: bool | str
    x11_display: str | None
    x11_auth_path: str | None
    x11_single_connection: bool
    command: str | None
    subsystem: str | None
    env: Mapping[bytes, bytes]
    send_env: tuple[str | bytes, ...]
    request_pty: bool | str
    term_type: str | None
    term_size: tuple[int, int] | tuple[int, int, int, int] | None
    term_modes: Mapping[int, int] | None
    canonicalize_hostname: bool | str
    canonical_domains: tuple[str, ...]
    canonicalize_fallback_local: bool
    canonicalize_max_dots: int
    canonicalize_permitted_cnames: tuple[tuple[str, str], ...]

    _files: ConfigFiles
    _forwards: tuple[Forward, ...]
    _canonicalizing: bool

    @property
    def proxy_jump(self) -> str | None:
        """The hosts of the configuration's ProxyJump, as [user@]host[:port] between commas."""

        if self.is_set('proxy_command') or 'tunnel' in self._given or 'tunnel' not in self._configured:
            return None

        hosts: str | None = self._configured['tunnel'].value

        return hosts

    @property
    def route(self) -> Any:
        """What to go through: an open connection, or hosts as `proxy_jump` has them; None for nothing."""

        return self.tunnel if 'tunnel' in self._given else self.proxy_jump

    @property
    def config_given(self) -> Any:
        """The configuration files that were named: None for none at all, and empty if nothing was said of them."""

        return (self._given['config'] or None) if 'config' in self._given else ()

    @property
    def user_known_hosts(self) -> str | None:
        """The first file of the configuration's UserKnownHostsFile, there or not, or an empty text if that is `none`.

        None if `known_hosts` was given, or the configuration has nothing about it.
        """

        path: str | None = None if 'known_hosts' in self._given else _value(self._configured, 'user_hosts_file')

        return path

    @property
    def forwards(self) -> tuple[Forward, ...]:
        """The forwardings that the configuration asks for; nothing is forwarded for it being there."""

        return self._forwards

    async def _settle(self, loop: asyncio.AbstractEventLoop) -> Self:
        if not self._canonicalizing:
            return self

        name = await canonical_name(self, loop)
        settled = copy(self)
        await loop.run_in_executor(None, partial(settled._set, self._given, set(), name))

        return settled

    def _configure(
        self, given: Mapping[str, Any], changed: set[str] | None, canonical_host: str | None
    ) -> tuple[dict[str, Any], dict[str, Configured]]:
        if changed is not None and changed.isdisjoint(_CONFIG_NAMES) and canonical_host is None:
            return {}, dict(self._configured)

        files: ConfigFiles | None = self.__dict__.get('_files')

        if files is None or (changed and 'config' in changed):
            files = _files(given.get('config'))

        def checked(name: str) -> Any:
            return self._options[name].check(name, given[name]) if name in given else None

        user = load.local_user_if_any()
        config = ClientConfig(files, checked('host') or '', checked('username'), checked('port'), user)
        configured = client_options(config, DEFAULT_METHODS)
        canonicalizes = given.get('canonicalize_hostname', _value(configured, 'canonicalize_hostname'))

        if canonical_host is not None or (config.wants_final and not canonicalizes):
            config.finish(canonical_host)
            configured = client_options(config, DEFAULT_METHODS)

        if 'hostname' in config.lines or canonical_host is not None:
            line = config.lines.get('hostname') or Directive('hostname', config.resolved_host, 'DNS', 0)
            configured['host'] = Configured(config.resolved_host, line)

        state = {
            '_files': files,
            '_forwards': config_forwards(config),
            '_canonicalizing': bool(canonicalizes) and canonical_host is None,
        }

        return state, configured

    def _load(self, sources: Sources, values: dict[str, Any]) -> None:
        given, touched = sources.effective, sources.touched

        # What these hold is in the key pairs.
        for name in ('passphrase', 'client_host_certs', 'pkcs11_pin'):
            values.pop(name, None)

        if touched('username') and 'username' not in given:
            values['username'] = load.local_user('username')

        if touched('client_username') and 'client_username' not in given:
            values['client_username'] = load.local_user_if_any()

        if touched('known_hosts') and 'known_hosts' not in given:
            values['known_hosts'] = trust.default_known_hosts()

        if touched('x509_trusted_certs') and 'x509_trusted_certs' not in given:
            values['x509_trusted_certs'] = x509.default_certs()

        if touched('x509_trusted_cert_paths') and 'x509_trusted_cert_paths' not in given:
            values['x509_trusted_cert_paths'] = x509.default_cert_paths()

        if touched('env') and 'env' not in given:
            values['env'] = {}

        flags = ('host_based_auth', 'public_key_auth', 'kbdint_auth', 'password_auth')
        uses_keys = given.get('public_key_auth', True) and given.get('client_keys', ()) is not None

        if touched(*gss.GSS_NAMES):
            values['gss_auth'] = gss.is_wanted(sources.given, given)

        if touched(*gss.GSS_NAMES, 'kex_algs'):
            kex_algs = {**self.__dict__, **values}['kex_algs']
            values['gss_kex'] = gss.kex_is_wanted(sources.given, given, kex_algs)

        if touched(
            'preferred_auth', 'client_keys', 'client_host_keys', 'client_host_keysign', *flags, *gss.GSS_NAMES
        ):
            preferred = values.get('preferred_auth') or prepare.preferred_methods(
                'preferred_auth', given.get('preferred_auth', [name.decode() for name in DEFAULT_METHODS])
            )
            wanted = dict(zip((HOST_BASED, PUBLIC_KEY, KEYBOARD_INTERACTIVE, PASSWORD), flags, strict=True))
            values['preferred_auth'] = tuple(
                name
                for name in preferred
                if given.get(wanted.get(name, ''), True)
                and (name not in (GSSAPI_KEYEX, GSSAPI_WITH_MIC) or gss.is_wanted(sources.given, given))
                and (name != PUBLIC_KEY or uses_keys)
                and (name != HOST_BASED or given.get('client_host_keys') or given.get('client_host_keysign'))
            )

        if touched('agent_path', 'client_keys', 'public_key_auth'):
            path = given.get('agent_path', os.environ.get('SSH_AUTH_SOCK')) if uses_keys else None
            values['agent_path'] = os.path.expanduser(path) if path else None

        if touched(
            'client_keys',
            'client_certs',
            'passphrase',
            'ignore_encrypted',
            'public_key_auth',
            'pkcs11_provider',
            'pkcs11_pin',
        ):
            values['client_keys'] = (
                load.client_keys(given, sources.only_configured('client_keys')) if uses_keys else ()
            )

        if 'agent_identities' not in given and touched('agent_identities', 'identities_only'):
            only: Sequence[str] | None = _value(sources.configured, 'identities_only')
            values['agent_identities'] = None if only is None else tuple(
                key.public_data for key in load.identities(only)
            )

        if touched('client_host_keys', 'client_host_certs', 'passphrase'):
            values['client_host_keys'] = load.key_pairs('client_host_keys', 'client_host_certs', given)


class SSHServerConnectionOptions(SSHConnectionOptions):
    """The options of server connections, with the names and meanings of AsyncSSH's.

    Beyond those: `max_window`, the bytes up to which a channel's receive window may grow by itself (default 16 MiB);
    `auth_methods`, alternative sequences of methods of which a login must complete one, such as
    ['publickey,password', 'publickey,keyboard-interactive'] (default: any one method); `max_auth_tries`, the failure
    that ends the connection (default 6); `max_sessions`, the sessions that a connection may have open at once (default
    10, as OpenSSH's MaxSessions); `banner`, a text that is sent to clients before they log in. Files of keys are read
    once: call `update` with the same names to read them again.

    What strangers may cost, for each listener: `max_startups`, as start, rate and full: how many connections may be
    logging in before some and then all further ones are dropped (default '100:30:1000'); `max_connections`, how many
    there may be in all; `per_source_max_startups`, how many may be logging in from one source, which is an address cut
    to `per_source_net_block_size` bits (default '32:128'); `per_source_penalties`, what failures cost, as sshd's
    PerSourcePenalties (default True); `per_source_penalty_exempt`, networks that have none (default: loopback); and
    `auth_failure_delay`, the seconds that a failed attempt takes at least (default 0.005).

    `config` names files as sshd's sshd_config; none is read unless named. Match blocks are applied to each client.
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
    auth_failure_delay: float
    max_connections: int | None
    max_startups: Startups | None
    per_source_max_startups: int | None
    per_source_net_block_size: tuple[int, int]
    per_source_penalties: Penalties | None
    per_source_penalty_exempt: tuple[Network, ...]
    banner: str | None
    allow_pty: bool
    agent_forwarding: bool
    x11_forwarding: bool
    x11_auth_path: str | None
    tcp_forwarding: str
    unix_forwarding: str
    tunnel_forwarding: str
    gateway_ports: str
    line_editor: bool
    line_echo: bool
    line_history: int
    max_line_length: int
    process_factory: SSHServerProcessFactory | None
    session_factory: SSHServerSessionFactory | None
    sftp_factory: Callable[..., Any] | bool | None
    sftp_version: Literal[3]
    allow_scp: bool

    _files: ConfigFiles
    _client: Client | None
    _depends_on_client: bool

    @property
    def depends_on_client(self) -> bool:
        """Whether the configuration says something else for some clients."""

        return self._depends_on_client

    @property
    def route(self) -> Any:
        """What a server goes through to listen, or to a client: an open connection, or jump hosts; None for nothing."""

        return self.tunnel

    @property
    def config_given(self) -> Any:
        """The configuration of jump hosts, which an sshd_config is not: None for none at all, else the user's."""

        return None if 'config' in self._given and not self._given['config'] else ()

    async def for_client(self, client: Client) -> Self:
        """Return the options for one client, as Match lines and names of files decide.

        Raises:
          ConfigParseError: a value that holds for this client cannot be
          OSError: a file that is there cannot be read
        """

        chosen = copy(self)
        chosen.__dict__['_client'] = client
        await asyncio.get_running_loop().run_in_executor(None, chosen._set, self._given, {'config'})

        return chosen

    def _configure(
        self, given: Mapping[str, Any], changed: set[str] | None, canonical_host: str | None
    ) -> tuple[dict[str, Any], dict[str, Configured]]:
        client: Client | None = self.__dict__.get('_client')

        if changed is not None and 'config' not in changed:
            return {}, dict(self._configured)

        files: ConfigFiles | None = self.__dict__.get('_files')

        if files is None or client is None:
            files = server_files(given.get('config', ()))

        config = ServerConfig(files, client)
        configured = server_options(config)

        return {'_files': files, '_client': client, '_depends_on_client': depends_on_user(config)}, configured

    def _load(self, sources: Sources, values: dict[str, Any]) -> None:
        # What these hold is in the key pairs.
        for name in ('passphrase', 'server_host_certs'):
            values.pop(name, None)

        chosen = {**self.__dict__, **values}

        if chosen['allow_scp'] and not chosen['sftp_factory']:
            raise ValueError('allow_scp: expected sftp_factory with it, whose files SCP serves, got none')

        if sources.touched(*gss.GSS_NAMES):
            values['gss_auth'] = gss.is_wanted(sources.given, sources.effective)

        if sources.touched(*gss.GSS_NAMES, 'kex_algs'):
            kex_algs = {**self.__dict__, **values}['kex_algs']
            values['gss_kex'] = gss.kex_is_wanted(sources.given, sources.effective, kex_algs)

        if sources.touched('server_host_keys', 'server_host_certs', 'passphrase'):
            pairs = load.key_pairs('server_host_keys', 'server_host_certs', sources.effective)
            values['server_host_keys'] = tuple(open_keypairs(pairs))


def _value(configured: Mapping[str, Configured], name: str) -> Any:
    return configured[name].value if name in configured else None


def _files(paths: tuple[str, ...] | None) -> ConfigFiles:
    """Return the files of a client's configuration; the user's if none were named."""

    if paths is not None:
        return client_files(paths)

    default = os.path.expanduser(_DEFAULT_CONFIG)

    return client_files((default,) if os.access(default, os.R_OK) else (), guarded=True)
