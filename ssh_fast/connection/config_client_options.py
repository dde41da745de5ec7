"""What a client's configuration is as options: names, units and forms of the options, tokens replaced, files found."""

import os
import socket
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ..logging import logger
from ..transport.algorithms import available_algorithms, select_algorithms
from .config_client import ClientConfig, expanded
from .config_parser import Configured, Directive
from .config_tokens import expand
from .config_values import Forward, RekeyLimit
from .gss import gss_available

FAMILIES = {'any': socket.AF_UNSPEC, 'inet': socket.AF_INET, 'inet6': socket.AF_INET6}
_USER_HOSTS = ('~/.ssh/known_hosts',)
_GLOBAL_HOSTS = ('/etc/ssh/ssh_known_hosts',)
_DEFAULT_IDENTITIES = ('~/.ssh/id_ed25519', '~/.ssh/id_ecdsa', '~/.ssh/id_rsa')

# Option, kind of algorithm
ALGORITHMS = {
    'ciphers': ('encryption_algs', 'encryption'),
    'kexalgorithms': ('kex_algs', 'kex'),
    'macs': ('mac_algs', 'mac'),
    'hostkeyalgorithms': ('server_host_key_algs', 'host_key'),
    'pubkeyacceptedalgorithms': ('signature_algs', 'signature'),
}

_SAME = {
    'hostkeyalias': 'host_key_alias',
    'port': 'port',
    'user': 'username',
    'tcpkeepalive': 'tcp_keepalive',
    'pubkeyauthentication': 'public_key_auth',
    'kbdinteractiveauthentication': 'kbdint_auth',
    'passwordauthentication': 'password_auth',
    'hostbasedauthentication': 'host_based_auth',
    'canonicalizefallbacklocal': 'canonicalize_fallback_local',
    'canonicalizemaxdots': 'canonicalize_max_dots',
    'requesttty': 'request_pty',
    'sendenv': 'send_env',
    'updatehostkeys': 'update_host_keys',
    'hashknownhosts': 'hash_known_hosts',
    'setenv': 'env',
    'enablesshkeysign': 'client_host_keysign',
}


def client_options(config: ClientConfig, methods: Collection[bytes]) -> dict[str, Configured]:
    """Return what a configuration sets; `methods` are the ways to log in that there are.

    Raises:
      ConfigParseError: a value cannot be, or a token in it cannot be replaced
    """

    found: dict[str, Configured] = {}

    for keyword, value in config.values.items():
        line = config.lines.get(keyword)

        if line is None:
            continue

        if keyword in _SAME:
            found[_SAME[keyword]] = Configured(value, line)
        elif keyword in ALGORITHMS:
            option, kind = ALGORITHMS[keyword]
            found[option] = Configured(algorithms(value, kind, line), line)
        elif keyword in _OTHERS:
            for option, converted in _OTHERS[keyword](config, value).items():
                found[option] = Configured(converted, line)

    if config.values.get('identitiesonly'):
        named = found['client_keys'].value if 'client_keys' in found else [
            os.path.expanduser(path) for path in _DEFAULT_IDENTITIES
        ]
        found['identities_only'] = Configured(named, config.lines['identitiesonly'])

    if 'known_hosts' in found:
        # New hosts are written there, whether or not it is there already.
        names = [text for text in config.values.get('userknownhostsfile', _USER_HOSTS) if text != 'none']
        path = _path(config, 'userknownhostsfile', names[0]) if names else ''
        found['user_hosts_file'] = Configured(path, found['known_hosts'].line)

    preferred = found.get('preferred_auth')

    if preferred:
        known = [name for name in preferred.value if name.encode() in methods]
        found['preferred_auth'] = Configured(known, preferred.line)

    return found


def config_forwards(config: ClientConfig) -> tuple[Forward, ...]:
    """Return the forwardings that a configuration asks for, tokens in their paths replaced.

    Raises:
      ConfigParseError: a token or variable cannot be replaced
    """

    forwards: list[Forward] = []

    for keyword in ('localforward', 'remoteforward', 'dynamicforward'):
        for forward in config.values.get(keyword, ()):
            host, port = forward.listen
            listen = host if not host or port else _path(config, keyword, host), port
            target = forward.target

            if target:
                target = target if target[1] else (_path(config, keyword, target[0]), 0)

            forwards.append(Forward(forward.kind, listen, target))

    return tuple(forwards)


def algorithms(value: str, kind: str, line: Directive) -> list[str]:
    """Choose algorithms; those of OpenSSH that are not here are passed over, but one must be left.

    Raises:
      ConfigParseError: none is left
    """

    prefix = value[0] if value[0] in '+-^' else ''
    known = {name.decode() for name in available_algorithms(kind)}
    names = []

    for name in value[len(prefix) :].split(','):
        try:
            select_algorithms(kind, [name], line.keyword)
        except ValueError:
            logger.info('%s: the algorithm %s is not here', line.place, name)
        else:
            names.append(name)

    if not names:
        if prefix:
            return [name.decode() for name in available_algorithms(kind)]

        raise line.error(f'none of the algorithms is here, expected some of {", ".join(sorted(known))}')

    try:
        chosen = select_algorithms(kind, prefix + ','.join(names), line.keyword)
    except ValueError as exc:
        raise line.error(exc) from None

    return [name.decode() for name in chosen]


def rekey(limit: RekeyLimit) -> dict[str, Any]:
    """Return the options of RekeyLimit; what is 0 is left to the default."""

    return {
        name: amount for name, amount in (('rekey_bytes', limit.bytes), ('rekey_seconds', limit.seconds)) if amount
    }


def _path(config: ClientConfig, keyword: str, text: str) -> str:
    return expanded(config, keyword, text, config.tokens())


def _hosts_files(config: ClientConfig) -> list[str]:
    user: tuple[str, ...] = config.values.get('userknownhostsfile', _USER_HOSTS)
    system: tuple[str, ...] = config.values.get('globalknownhostsfile', _GLOBAL_HOSTS)
    paths = [
        _path(config, 'userknownhostsfile', text) if 'userknownhostsfile' in config.lines else os.path.expanduser(text)
        for text in user
        if text != 'none'
    ]

    paths += [os.path.expanduser(text) for text in system if text != 'none']

    return [path for path in paths if os.access(path, os.R_OK)]


def _known_hosts(config: ClientConfig, _: object) -> dict[str, Any]:
    return {'known_hosts': _hosts_files(config)}


def _identities(config: ClientConfig, value: tuple[str, ...]) -> dict[str, Any]:
    return {'client_keys': [_path(config, 'identityfile', text) for text in value if text.lower() != 'none']}


def _certificates(config: ClientConfig, value: tuple[str, ...]) -> dict[str, Any]:
    paths = [_path(config, 'certificatefile', text) for text in value if text.lower() != 'none']

    return {'client_certs': [path for path in paths if os.path.exists(path)]}


def _agent(config: ClientConfig, value: str) -> dict[str, Any]:
    if value.lower() == 'none':
        return {'agent_path': None}

    if value == 'SSH_AUTH_SOCK':
        return {'agent_path': os.environ.get('SSH_AUTH_SOCK')}

    if value.startswith('$') and not value.startswith('${'):
        return {'agent_path': os.environ.get(value[1:])}

    return {'agent_path': _path(config, 'identityagent', value)}


def _forward_agent(_: ClientConfig, value: str) -> dict[str, Any]:
    flags: Mapping[str, bool] = {'yes': True, 'true': True, 'no': False, 'false': False}

    if value.lower() in flags:
        return {'agent_forwarding': flags[value.lower()]}

    path = os.environ.get(value[1:].strip('{}')) if value.startswith('$') else os.path.expanduser(value)

    return {'agent_forwarding': path or False}


def _forward_x11(config: ClientConfig, value: bool) -> dict[str, Any]:
    if value and not config.values.get('forwardx11trusted'):
        logger.info(
            '%s: X11 is not forwarded without ForwardX11Trusted: there are no untrusted clients here',
            config.lines['forwardx11'].place,
        )

        return {}

    return {'x11_forwarding': 'ignore_failure' if value else False}


def _proxy_command(config: ClientConfig, value: str) -> dict[str, Any]:
    if value.lower() == 'none':
        return {'proxy_command': None}

    try:
        command = expand(value, config.shell_tokens().only('hnpr')) if '%' in value else value
    except ValueError as exc:
        raise config.lines['proxycommand'].error(exc) from None

    # As OpenSSH does: by the user's shell, which the command takes the place of.
    return {'proxy_command': [os.environ.get('SHELL') or '/bin/sh', '-c', f'exec {command}']}


def _proxy_jump(config: ClientConfig, value: str | None) -> dict[str, Any]:
    if value is None:
        return {'tunnel': None}

    try:
        return {'tunnel': expand(value, config.tokens().only('hnpr'))}
    except ValueError as exc:
        raise config.lines['proxyjump'].error(exc) from None


def _command(config: ClientConfig, value: str) -> dict[str, Any]:
    if value.lower() == 'none':
        return {}

    try:
        return {'command': expand(value, config.tokens())}
    except ValueError as exc:
        raise config.lines['remotecommand'].error(exc) from None


def _checking(config: ClientConfig, value: str) -> dict[str, Any]:
    if value == 'no':
        logger.warning(
            '%s: host keys are checked all the same: known_hosts=None turns that off',
            config.lines['stricthostkeychecking'].place,
        )

    return {'strict_host_key_checking': 'accept-new' if value == 'accept-new' else 'yes'}


def _revoked(config: ClientConfig, value: str) -> dict[str, Any]:
    return {'revoked_host_keys': None if value.lower() == 'none' else os.path.expanduser(value)}


def gss_switch(name: str, wanted: bool, line: Directive) -> dict[str, Any]:
    """Return an option that takes the package for GSSAPI: nothing without it, as if it were not built in."""

    if wanted and not gss_available():
        logger.info('%s: GSSAPI is not here: it needs the gssapi package', line.place)

        return {}

    return {name: wanted}


_OTHERS: dict[str, Callable[[ClientConfig, Any], dict[str, Any]]] = {
    'addressfamily': lambda config, value: {'family': int(FAMILIES[value])},
    'bindaddress': lambda config, value: {'local_addr': (value, 0)},
    'canonicaldomains': lambda config, value: {'canonical_domains': [] if value == ('none',) else list(value)},
    'canonicalizehostname': lambda config, value: {
        'canonicalize_hostname': value if value == 'always' else value == 'yes'
    },
    'canonicalizepermittedcnames': lambda config, value: {
        'canonicalize_permitted_cnames': [tuple(rule) for rule in value]
    },
    'casignaturealgorithms': lambda config, value: {
        'ca_signature_algs': algorithms(value, 'signature', config.lines['casignaturealgorithms'])
    },
    'certificatefile': _certificates,
    'compression': lambda config, value: {'compression_algs': ['zlib@openssh.com', 'none'] if value else ['none']},
    'connecttimeout': lambda config, value: {'connect_timeout': value},
    'forwardagent': _forward_agent,
    'forwardx11': _forward_x11,
    'forwardx11trusted': lambda config, value: {},
    'globalknownhostsfile': _known_hosts,
    'gssapiauthentication': lambda config, value: gss_switch(
        'gss_auth', value, config.lines['gssapiauthentication']
    ),
    'gssapidelegatecredentials': lambda config, value: gss_switch(
        'gss_delegate_creds', value, config.lines['gssapidelegatecredentials']
    ),
    'gssapikeyexchange': lambda config, value: gss_switch('gss_kex', value, config.lines['gssapikeyexchange']),
    'identityagent': _agent,
    'identityfile': _identities,
    'pkcs11provider': lambda config, value: {'pkcs11_provider': None if value.lower() == 'none' else value},
    'preferredauthentications': lambda config, value: {'preferred_auth': value.split(',')},
    'proxycommand': _proxy_command,
    'proxyjump': _proxy_jump,
    'rekeylimit': lambda config, value: rekey(value),
    'remotecommand': _command,
    'revokedhostkeys': _revoked,
    'serveralivecountmax': lambda config, value: {'keepalive_count_max': max(value, 1)},
    'serveraliveinterval': lambda config, value: {'keepalive_interval': value or 0},
    'stricthostkeychecking': _checking,
    'userknownhostsfile': _known_hosts,
}
