"""What a server's configuration is as options: names and forms of the options, tokens replaced, files found."""

import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .config_client_options import FAMILIES, algorithms, gss_switch, rekey
from .config_parser import Configured
from .config_server import ServerConfig
from .config_tokens import expand

_MAX_BANNER = 1 << 16

_SAME = {
    'allowagentforwarding': 'agent_forwarding',
    'allowstreamlocalforwarding': 'unix_forwarding',
    'allowtcpforwarding': 'tcp_forwarding',
    'clientaliveinterval': 'keepalive_interval',
    'gatewayports': 'gateway_ports',
    'hostbasedauthentication': 'host_based_auth',
    'kbdinteractiveauthentication': 'kbdint_auth',
    'logingracetime': 'login_timeout',
    'maxsessions': 'max_sessions',
    'maxstartups': 'max_startups',
    'passwordauthentication': 'password_auth',
    'permittty': 'allow_pty',
    'permittunnel': 'tunnel_forwarding',
    'persourcemaxstartups': 'per_source_max_startups',
    'persourcenetblocksize': 'per_source_net_block_size',
    'persourcepenaltyexemptlist': 'per_source_penalty_exempt',
    'pubkeyauthentication': 'public_key_auth',
    'tcpkeepalive': 'tcp_keepalive',
    'usedns': 'rdns_lookup',
    'x11forwarding': 'x11_forwarding',
}

_ALGORITHMS = {
    'casignaturealgorithms': ('ca_signature_algs', 'signature'),
    'ciphers': ('encryption_algs', 'encryption'),
    'kexalgorithms': ('kex_algs', 'kex'),
    'macs': ('mac_algs', 'mac'),
    'pubkeyacceptedalgorithms': ('signature_algs', 'signature'),
}


def server_options(config: ServerConfig) -> dict[str, Configured]:
    """Return what a configuration sets.

    Files that depend on the user are left out until there is one.

    Raises:
      ConfigParseError: a value cannot be, or a token in it cannot be replaced
    """

    found: dict[str, Configured] = {}

    for keyword, value in config.values.items():
        line = config.lines[keyword]

        if keyword in _SAME:
            found[_SAME[keyword]] = Configured(value, line)
        elif keyword in _ALGORITHMS:
            option, kind = _ALGORITHMS[keyword]
            found[option] = Configured(algorithms(value, kind, line), line)
        else:
            for option, converted in _OTHERS[keyword](config, value).items():
                found[option] = Configured(converted, line)

    if config.values.get('disableforwarding'):
        # Whatever else is said of single kinds.
        line = config.lines['disableforwarding']
        found['agent_forwarding'] = found['x11_forwarding'] = Configured(False, line)
        found['tcp_forwarding'] = found['unix_forwarding'] = found['tunnel_forwarding'] = Configured('no', line)

    return found


def depends_on_user(config: ServerConfig) -> bool:
    """Tell whether a client's name or address decides about a value."""

    paths = (*config.values.get('authorizedkeysfile', ()), config.values.get('authorizedprincipalsfile', '/'))

    return config.depends_on_client or any(_of_user(path) for path in paths if path != 'none')


def _of_user(path: str) -> bool:
    return '%' in path or not os.path.isabs(path)


def _user_paths(config: ServerConfig, keyword: str, paths: tuple[str, ...]) -> list[str] | None:
    """Return the files that are there for a client's user; None if it takes a user to tell, and there is none yet."""

    client = config.client

    if client is None and any(_of_user(path) for path in paths if path != 'none'):
        return None

    found = []

    for path in paths:
        if path == 'none':
            continue

        if _of_user(path):
            assert client is not None

            # The name is the client's: it must not lead elsewhere, and it need not be one of the system's users.
            if not client.user or '/' in client.user or client.user in ('.', '..') or '\0' in client.user:
                continue

            try:
                account = pwd.getpwnam(client.user)
            except KeyError:
                account = None

            tokens = {'u': client.user}

            if account:
                tokens.update(h=account.pw_dir, U=str(account.pw_uid))
            elif '%h' in path or '%U' in path or not os.path.isabs(path):
                continue

            try:
                path = expand(path, tokens)
            except ValueError as exc:
                raise config.lines[keyword].error(exc) from None

            if account:
                path = os.path.join(account.pw_dir, path)

        if os.path.exists(path):
            found.append(path)

    return found


def _authorized_keys(config: ServerConfig, value: tuple[str, ...]) -> dict[str, Any]:
    paths = _user_paths(config, 'authorizedkeysfile', value)

    return {} if paths is None else {'authorized_client_keys': paths}


def _principals(config: ServerConfig, value: str) -> dict[str, Any]:
    if value.lower() == 'none':
        return {}

    paths = _user_paths(config, 'authorizedprincipalsfile', (value,))

    return {} if paths is None else {'authorized_principals': paths}


def _methods(config: ServerConfig, value: tuple[str, ...]) -> dict[str, Any]:
    if value == ('any',):
        return {'auth_methods': []}

    # Submethods such as keyboard-interactive:pam are the system's.
    return {'auth_methods': [','.join(name.partition(':')[0] for name in item.split(',')) for item in value]}


def _banner(config: ServerConfig, value: str) -> dict[str, Any]:
    if value.lower() == 'none':
        return {'banner': None}

    path = Path(value)

    try:
        with path.open('rb') as file:
            data = file.read(_MAX_BANNER + 1)
    except OSError as exc:
        raise config.lines['banner'].error(f'{value} cannot be read: {exc.strerror or exc}') from None

    if len(data) > _MAX_BANNER:
        raise config.lines['banner'].error(f'expected a file of at most {_MAX_BANNER} bytes')

    return {'banner': data.decode(errors='replace')}


def _listen(config: ServerConfig, value: tuple[tuple[str, int | None], ...]) -> dict[str, Any]:
    if len(value) > 1:
        raise config.lines['listenaddress'].error('one listener has one address: call listen for each')

    host, port = value[0]

    # A port beside the address counts more than Port.
    return {'host': '' if host == '*' else host} | ({} if port is None else {'port': port})


def _port(config: ServerConfig, value: tuple[int, ...]) -> dict[str, Any]:
    addresses = config.values.get('listenaddress', ())

    if addresses and addresses[0][1] is not None:
        return {}

    if len(value) > 1:
        raise config.lines['port'].error('one listener has one port: call listen for each')

    return {'port': value[0]}


def _penalties(config: ServerConfig, value: tuple[str, ...]) -> dict[str, Any]:
    # RefuseConnection, which this penalty is for, is an error here.
    words = [word for word in value if not word.lower().startswith('refuseconnection:')]

    return {'per_source_penalties': ' '.join(words) or True}


def _file(option: str) -> Callable[[ServerConfig, str], dict[str, Any]]:
    return lambda config, value: {} if value.lower() == 'none' else {option: os.path.expanduser(value)}


_OTHERS: dict[str, Callable[[ServerConfig, Any], dict[str, Any]]] = {
    'addressfamily': lambda config, value: {'family': int(FAMILIES[value])},
    'authenticationmethods': _methods,
    'authorizedkeysfile': _authorized_keys,
    'authorizedprincipalsfile': _principals,
    'banner': _banner,
    'bindaddress': lambda config, value: {} if 'listenaddress' in config.values else {'host': value},
    'clientalivecountmax': lambda config, value: {'keepalive_count_max': max(value, 1)},
    'compression': lambda config, value: {'compression_algs': ['none', 'zlib@openssh.com'] if value else ['none']},
    'disableforwarding': lambda config, value: {},
    'gssapiauthentication': lambda config, value: gss_switch(
        'gss_auth', value, config.lines['gssapiauthentication']
    ),
    'gssapikeyexchange': lambda config, value: gss_switch('gss_kex', value, config.lines['gssapikeyexchange']),
    'hostcertificate': lambda config, value: {'server_host_certs': [os.path.expanduser(path) for path in value]},
    'hostkey': lambda config, value: {'server_host_keys': [os.path.expanduser(path) for path in value]},
    'listenaddress': _listen,
    'maxauthtries': lambda config, value: {'max_auth_tries': max(value, 1)},
    'persourcepenalties': _penalties,
    'port': _port,
    'rekeylimit': lambda config, value: rekey(value),
    'revokedkeys': _file('revoked_keys'),
    'trustedusercakeys': _file('trusted_user_ca_keys'),
}
