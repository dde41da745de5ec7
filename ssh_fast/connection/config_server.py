"""sshd_config: the keywords of servers, and what they are for a listener or for one client (sshd_config(5))."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from ..keys.file_cache import FileCache
from . import config_values as value
from .config_match import match_parser, matches_addresses, matches_criteria, matches_list, parse_include
from .config_parser import ConfigFiles, Directive, Parse, ignored
from .config_walk import Walk

_FLAG = value.choice({'yes': True, 'no': False})
_FAMILIES = {'any': 'any', 'inet': 'inet', 'inet6': 'inet6'}

_MAX_FILES = 256

# Bits that keys must have anyway, as long as the application does not lower it
_RSA_SIZE = 2048


def _seconds(keyword: str, rest: str) -> int:
    return value.seconds(value.single(keyword, rest))


def _no_restriction(*harmless: str) -> Parse:
    """Make a parser of a keyword that keeps clients out and has no counterpart here: ignored, it would be a hole."""

    def parse(_: str, rest: str) -> None:
        if rest.strip('"').lower() not in harmless:
            raise ValueError('this restriction is not supported by this version')

    return parse


def _least_rsa_size(keyword: str, rest: str) -> None:
    bits = value.integer(0)(keyword, rest)

    if bits > _RSA_SIZE:
        raise ValueError(f'this restriction is not supported by this version: set_required_rsa_size takes {bits}')


_DIRECTIONS = {'yes': 'yes', 'all': 'yes', 'no': 'no', 'local': 'local', 'remote': 'remote'}

_KEYWORDS: dict[str, Parse] = {
    'addressfamily': value.choice(_FAMILIES),
    'allowagentforwarding': _FLAG,
    'allowstreamlocalforwarding': value.choice(_DIRECTIONS),
    'allowtcpforwarding': value.choice(_DIRECTIONS),
    'authenticationmethods': value.words,
    'authorizedkeysfile': value.paths,
    'authorizedprincipalsfile': value.single,
    'banner': value.single,
    'bindaddress': value.single,
    'casignaturealgorithms': value.algorithms,
    'ciphers': value.algorithms,
    'clientalivecountmax': value.integer(0),
    'clientaliveinterval': _seconds,
    'compression': value.choice({'yes': True, 'delayed': True, 'no': False}),
    'disableforwarding': _FLAG,
    'gatewayports': value.choice({name: name for name in ('no', 'yes', 'clientspecified')}),
    'gssapiauthentication': _FLAG,
    'gssapikeyexchange': _FLAG,
    'hostbasedauthentication': _FLAG,
    'hostcertificate': value.single,
    'hostkey': value.single,
    'kbdinteractiveauthentication': _FLAG,
    'kexalgorithms': value.algorithms,
    'listenaddress': value.listen_address,
    'logingracetime': _seconds,
    'macs': value.algorithms,
    'maxauthtries': value.integer(0),
    'maxsessions': value.integer(0),
    'maxstartups': value.single,
    'passwordauthentication': _FLAG,
    'permittty': _FLAG,
    'persourcemaxstartups': value.single,
    'persourcenetblocksize': value.single,
    'persourcepenalties': value.words,
    'persourcepenaltyexemptlist': value.single,
    'permittunnel': value.choice({name: name for name in ('no', 'yes', 'point-to-point', 'ethernet')}),
    'port': value.port,
    'pubkeyacceptedalgorithms': value.algorithms,
    'pubkeyauthentication': _FLAG,
    'rekeylimit': value.rekey_limit,
    'revokedkeys': value.single,
    'tcpkeepalive': _FLAG,
    'trustedusercakeys': value.single,
    'usedns': _FLAG,
    'x11forwarding': _FLAG,
}

_ALIASES = {
    'challengeresponseauthentication': 'kbdinteractiveauthentication',
    'skeyauthentication': 'kbdinteractiveauthentication',
    'pubkeyacceptedkeytypes': 'pubkeyacceptedalgorithms',
    'keepalive': 'tcpkeepalive',
}

# What may stand below Match: of what sshd lets stand there, all that is used once the user is known
_IN_MATCH = frozenset(
    (
        'allowagentforwarding', 'allowstreamlocalforwarding', 'allowtcpforwarding', 'authenticationmethods',
        'authorizedkeysfile', 'authorizedprincipalsfile', 'banner',
        'casignaturealgorithms', 'disableforwarding', 'gatewayports', 'gssapiauthentication',
        'hostbasedauthentication',
        'kbdinteractiveauthentication', 'maxauthtries', 'maxsessions', 'passwordauthentication', 'permittty',
        'permittunnel', 'pubkeyacceptedalgorithms', 'pubkeyauthentication', 'revokedkeys', 'trustedusercakeys',
        'x11forwarding',
    )
)  # fmt: skip

_RESTRICTIONS: dict[str, Parse] = {
    'allowgroups': _no_restriction(),
    'allowusers': _no_restriction(),
    'authorizedkeyscommand': _no_restriction('none'),
    'authorizedprincipalscommand': _no_restriction('none'),
    'chrootdirectory': _no_restriction('none'),
    'denygroups': _no_restriction(),
    'denyusers': _no_restriction(),
    'forcecommand': _no_restriction('none'),
    'permitlisten': _no_restriction('any'),
    'permitopen': _no_restriction('any'),
    'permitrootlogin': _no_restriction('yes'),
    'pubkeyauthoptions': _no_restriction('none'),
    'refuseconnection': _no_restriction('no'),
    'requiredrsasize': _least_rsa_size,
}

# Keywords of sshd that decide nothing here: its processes, its accounts.
_UNUSED = frozenset(re.findall(r'\w+', """
    acceptenv authorizedkeyscommanduser
    authorizedprincipalscommanduser channeltimeout debianbanner exposeauthinfo fingerprinthash
    gssapicleanupcredentials gssapikexalgorithms
    gssapistorecredentialsonrekey gssapistrictacceptorcheck hostbasedacceptedalgorithms
    hostbasedusesnamefrompacketonly hostkeyagent hostkeyalgorithms ignorerhosts ignoreuserknownhosts ipqos
    kerberosauthentication kerberosgetafstoken kerberosorlocalpasswd kerberosticketcleanup loglevel logverbose
    modulifile permitemptypasswords permituserenvironment permituserrc
    pidfile printlastlog printmotd
    securitykeyprovider setenv streamlocalbindmask streamlocalbindunlink strictmodes subsystem
    syslogfacility unusedconnectiontimeout usepam useprivilegeseparation versionaddendum x11displayoffset
    x11uselocalhost xauthlocation
"""))

_ACCUMULATING = ('hostkey', 'hostcertificate', 'listenaddress', 'port')

_PARSE: dict[str, Parse] = {
    **_KEYWORDS,
    **_RESTRICTIONS,
    **{alias: _KEYWORDS[keyword] for alias, keyword in _ALIASES.items()},
    **dict.fromkeys(_UNUSED, ignored),
    'match': match_parser(('all', 'user', 'host', 'address', 'localaddress', 'localport'), all_alone=True),
    'include': parse_include,
}

_cache: FileCache[tuple[Directive, ...]] = FileCache(16)


class Client(NamedTuple):
    """Who a server's Match lines are asked about; names are as the client gave them, addresses as they are."""

    user: str
    host: str
    addr: str
    local_addr: str
    local_port: int


def server_files(paths: tuple[str, ...]) -> ConfigFiles:
    """Name the files of a server's configuration."""

    return ConfigFiles(paths, _PARSE, _cache, '/etc/ssh')


class ServerConfig:
    """What a configuration says for a listener, or for one client: there Match blocks override what stands above them.

    `values` has what each keyword in lower case is, and `lines` where that stands. `depends_on_client` tells whether
    there is a Match line.
    """

    def __init__(self, files: ConfigFiles, client: Client | None = None) -> None:
        self.values: dict[str, Any] = {}
        self.lines: dict[str, Directive] = {}
        self.client = client
        self.depends_on_client = False
        self._matched: set[str] = set()

        Walk(files, self._applies, self._take, check_all=True).run()

    def _applies(self, directive: Directive, run: bool) -> bool:
        client = self.client
        self.depends_on_client = True

        if client is None:
            return bool(directive.value[0].name == 'all') and run

        tests: dict[str, Callable[[str], bool]] = {
            'user': lambda patterns: matches_list(patterns, client.user),
            'host': lambda patterns: matches_list(patterns, client.host, lower=True),
            'address': lambda patterns: matches_addresses(patterns, client.addr),
            'localaddress': lambda patterns: matches_addresses(patterns, client.local_addr),
            'localport': lambda port: value.port('localport', port) == client.local_port,
        }

        return matches_criteria(directive, tests, final=False, run=run)

    def _take(self, directive: Directive, in_block: bool, active: bool) -> None:
        keyword = _ALIASES.get(directive.keyword, directive.keyword)

        if keyword in _RESTRICTIONS:
            return

        if in_block and keyword not in _IN_MATCH:
            raise directive.error('this cannot stand below Match')

        if not active:
            return

        if keyword in _ACCUMULATING:
            found = self.values.get(keyword, ())

            if len(found) >= _MAX_FILES:
                raise directive.error('there are too many of these')

            self.values[keyword] = (*found, directive.value) if directive.value not in found else found
            self.lines.setdefault(keyword, directive)
        elif keyword not in self.values or (in_block and self.client and keyword not in self._matched):
            self.values[keyword], self.lines[keyword] = directive.value, directive

            if in_block:
                self._matched.add(keyword)
