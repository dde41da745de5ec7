"""Which options connections have: how each value is checked, what stands for it if it is unset, and what is refused."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..channel.channel import DEFAULT_MAX_WINDOW, DEFAULT_WINDOW
from ..channel.mux import DEFAULT_MAX_SESSIONS
from ..constants import DEFAULT_PORT
from ..keys.certificate import DEFAULT_CA_SIGNATURES
from ..userauth.messages import DEFAULT_METHODS
from ..userauth.server_policy import MAX_FAILURES
from . import options_gss as gss
from . import options_limits as limits
from . import options_prepare as prepare
from . import options_trust as trust
from . import options_x509 as x509
from .callbacks import SSHClient, SSHServer

_DEFAULT_VERSION = b'ssh_fast'
_DEFAULT_MAX_PACKET = 32 * 1024


class Option(NamedTuple):
    """How the value of one option is checked, and what stands for it if it is unset."""

    check: Callable[[str, Any], Any]
    default: Any = None


# The directions in which clients may forward: opening connections (local), listening (remote), or both.
DIRECTIONS = ('yes', 'no', 'local', 'remote')
TUNNELS = ('yes', 'no', 'point-to-point', 'ethernet')

COMMON: dict[str, Option] = {
    'config': Option(prepare.config_paths, ()),
    'host': Option(prepare.host, ''),
    'port': Option(prepare.port, DEFAULT_PORT),
    'family': Option(prepare.family, 0),
    'local_addr': Option(prepare.address),
    'tunnel': Option(prepare.tunnel),
    'proxy_command': Option(prepare.proxy_command),
    'tcp_keepalive': Option(prepare.boolean, True),
    'utf8_decode_errors': Option(prepare.error_handler, 'strict'),
    'kex_algs': Option(prepare.algorithms('kex')),
    'encryption_algs': Option(prepare.algorithms('encryption')),
    'mac_algs': Option(prepare.algorithms('mac')),
    'compression_algs': Option(prepare.algorithms('compression')),
    'signature_algs': Option(prepare.algorithms('signature')),
    'ca_signature_algs': Option(trust.ca_signature_algs, DEFAULT_CA_SIGNATURES),
    'host_based_auth': Option(prepare.boolean, True),
    'public_key_auth': Option(prepare.boolean, True),
    'kbdint_auth': Option(prepare.boolean, True),
    'password_auth': Option(prepare.boolean, True),
    'gss_host': Option(gss.host),
    'gss_auth': Option(gss.switch, False),
    'gss_kex': Option(gss.switch, False),
    'x509_trusted_certs': Option(x509.trusted_certs, ()),
    'x509_trusted_cert_paths': Option(x509.trusted_cert_paths, ()),
    'rekey_bytes': Option(prepare.byte_count, 1 << 30),
    'rekey_seconds': Option(prepare.positive_duration, 3600.0),
    'connect_timeout': Option(prepare.optional_duration),
    'login_timeout': Option(prepare.duration, 120.0),
    'keepalive_interval': Option(prepare.duration, 0.0),
    'keepalive_count_max': Option(prepare.integer(1), 3),
    'passphrase': Option(prepare.passphrase),
    'encoding': Option(prepare.encoding, 'utf-8'),
    'errors': Option(prepare.error_handler, 'strict'),
    'window': Option(prepare.window, DEFAULT_WINDOW),
    'max_window': Option(prepare.window, DEFAULT_MAX_WINDOW),
    'max_pktsize': Option(prepare.max_pktsize, _DEFAULT_MAX_PACKET),
}

CLIENT: dict[str, Option] = {
    **COMMON,
    'client_factory': Option(prepare.function, SSHClient),
    'canonicalize_hostname': Option(prepare.canonicalize, False),
    'canonical_domains': Option(prepare.domains, ()),
    'canonicalize_fallback_local': Option(prepare.boolean, True),
    'canonicalize_max_dots': Option(prepare.integer(0), 1),
    'canonicalize_permitted_cnames': Option(prepare.permitted_cnames, ()),
    'client_version': Option(prepare.version, _DEFAULT_VERSION),
    'known_hosts': Option(trust.known_hosts),
    'x509_purposes': Option(x509.purposes, x509.purposes('x509_purposes', 'secureShellServer')),
    'host_key_alias': Option(prepare.optional_host),
    'server_host_key_algs': Option(prepare.algorithms('host_key')),
    'strict_host_key_checking': Option(prepare.choice('yes', 'accept-new'), 'yes'),
    'update_host_keys': Option(prepare.boolean, False),
    'hash_known_hosts': Option(prepare.boolean, False),
    'revoked_host_keys': Option(trust.revoked_keys),
    'server_host_keys_handler': Option(prepare.function),
    'username': Option(prepare.username),
    'password': Option(prepare.password),
    'client_keys': Option(trust.keys),
    'client_certs': Option(trust.certificates, ()),
    'client_host_keys': Option(trust.keys),
    'client_host_certs': Option(trust.certificates, ()),
    'client_host_keysign': Option(trust.keysign),
    'gss_store': Option(gss.store('ccache')),
    'gss_delegate_creds': Option(gss.switch, False),
    'client_host': Option(prepare.optional_host),
    'client_username': Option(prepare.username),
    'ignore_encrypted': Option(prepare.boolean, False),
    'pkcs11_provider': Option(prepare.optional_text),
    'pkcs11_pin': Option(prepare.optional_text),
    'preferred_auth': Option(prepare.preferred_methods, DEFAULT_METHODS),
    'disable_trivial_auth': Option(prepare.boolean, False),
    'agent_path': Option(prepare.optional_text),
    'agent_identities': Option(trust.agent_identities),
    'agent_forwarding': Option(prepare.agent_forwarding, False),
    'command': Option(prepare.optional_text),
    'subsystem': Option(prepare.optional_text),
    'env': Option(prepare.environment),
    'send_env': Option(prepare.variable_names, ()),
    'request_pty': Option(prepare.request_pty, True),
    'term_type': Option(prepare.optional_text),
    'term_size': Option(prepare.term_size),
    'term_modes': Option(prepare.term_modes),
    'x11_forwarding': Option(prepare.x11_forwarding, False),
    'x11_display': Option(prepare.optional_text),
    'x11_auth_path': Option(prepare.optional_text),
    'x11_single_connection': Option(prepare.boolean, False),
}

SERVER: dict[str, Option] = {
    **COMMON,
    'server_factory': Option(prepare.function, SSHServer),
    'server_version': Option(prepare.version, _DEFAULT_VERSION),
    'server_host_keys': Option(trust.keys),
    'server_host_certs': Option(trust.certificates, ()),
    'send_server_host_keys': Option(prepare.boolean, False),
    'known_client_hosts': Option(trust.known_hosts),
    'x509_purposes': Option(x509.purposes, x509.purposes('x509_purposes', 'secureShellClient')),
    'trust_client_host': Option(prepare.boolean, False),
    'rdns_lookup': Option(prepare.boolean, False),
    'authorized_client_keys': Option(trust.authorized_keys),
    'gss_store': Option(gss.store('keytab')),
    'trusted_user_ca_keys': Option(trust.ca_keys, ()),
    'authorized_principals': Option(trust.principals),
    'revoked_keys': Option(trust.revoked_keys),
    'auth_methods': Option(prepare.method_sequences, ()),
    'max_auth_tries': Option(prepare.integer(1), MAX_FAILURES),
    'max_sessions': Option(prepare.integer(1), DEFAULT_MAX_SESSIONS),
    'auth_failure_delay': Option(prepare.duration, 0.005),
    'max_connections': Option(limits.optional_count),
    'max_startups': Option(limits.startups, limits.Startups(100, 30, 1000)),
    'per_source_max_startups': Option(limits.optional_count),
    'per_source_net_block_size': Option(limits.net_block_size, (32, 128)),
    'per_source_penalties': Option(limits.penalties, limits.Penalties()),
    'per_source_penalty_exempt': Option(limits.networks, limits.LOOPBACK),
    'banner': Option(prepare.optional_text),
    'allow_pty': Option(prepare.boolean, True),
    'agent_forwarding': Option(prepare.boolean, True),
    'x11_forwarding': Option(prepare.boolean, False),
    'x11_auth_path': Option(prepare.optional_text),
    'tcp_forwarding': Option(prepare.choice(*DIRECTIONS), 'yes'),
    'unix_forwarding': Option(prepare.choice(*DIRECTIONS), 'yes'),
    'tunnel_forwarding': Option(prepare.choice(*TUNNELS), 'yes'),
    'gateway_ports': Option(prepare.choice('no', 'yes', 'clientspecified'), 'clientspecified'),
    'line_editor': Option(prepare.boolean, True),
    'line_echo': Option(prepare.boolean, True),
    'line_history': Option(prepare.integer(0), 1000),
    'max_line_length': Option(prepare.integer(1), 1024),
    'process_factory': Option(prepare.function),
    'session_factory': Option(prepare.function),
    'sftp_factory': Option(prepare.sftp_factory),
    'sftp_version': Option(prepare.sftp_version, 3),
    'allow_scp': Option(prepare.boolean, False),
}

# Options of AsyncSSH that this version does not have, and the values that ask for nothing, as the empty tuple does.
_NONE: tuple[object, ...] = (None,)

UNSUPPORTED_COMMON: dict[str, Sequence[object]] = {
    'loop': _NONE,
    'last_config': _NONE,
    'reload': (False,),
    'canonical': (False,),
    'final': (False,),
}

UNSUPPORTED_CLIENT: dict[str, Sequence[object]] = {
    **UNSUPPORTED_COMMON,
}

UNSUPPORTED_SERVER: dict[str, Sequence[object]] = {
    **UNSUPPORTED_COMMON,
    'canonicalize_hostname': (False,),
    'canonical_domains': ([],),
    'canonicalize_fallback_local': (True,),
    'canonicalize_max_dots': (1,),
    'canonicalize_permitted_cnames': ([],),
    'accept_addr': ('',),
    'accept_port': (0,),
    'client_addr': ('',),
    'client_host': ('',),
    'username': ('',),
}
