"""ssh_config: the keywords of clients, and what they are for one host after one or two walks (ssh_config(5))."""

import os
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..constants import DEFAULT_PORT
from ..keys.file_cache import FileCache
from ..keys.patterns import matches_wildcard, parse_address
from . import config_values as value
from .config_match import (
    command_succeeds,
    match_parser,
    matches_criteria,
    matches_host,
    matches_list,
    matches_local_network,
    parse_host,
    parse_include,
)
from .config_parser import ConfigFiles, Directive, Parse, ignored
from .config_tokens import LazyTokens, LocalHost, connection_hash, expand
from .config_walk import Walk

# OpenSSH's SSH_MAX_IDENTITY_FILES and SSH_MAX_CERTIFICATE_FILES; the others have no bound there.
_MAX_FILES = 100
_MAX_ITEMS = 1000

_DANGEROUS = re.compile(r'^-|[\'"`$\\;&<>|(){}\s\x00-\x1f\x7f]')

_CANONICALIZE = {'yes': 'yes', 'true': 'yes', 'no': 'no', 'false': 'no', 'always': 'always'}
_CHECKING = {
    'yes': 'yes', 'true': 'yes', 'ask': 'ask', 'no': 'no', 'false': 'no', 'off': 'no', 'accept-new': 'accept-new',
}  # fmt: skip
_PUBKEY = {'yes': True, 'true': True, 'no': False, 'false': False, 'unbound': True, 'host-bound': True}
_TTY = {'yes': True, 'true': True, 'no': False, 'false': False, 'force': 'force', 'auto': 'auto'}
_FAMILIES = {'any': 'any', 'inet': 'inet', 'inet6': 'inet6'}
_ASK = {'yes': True, 'true': True, 'no': False, 'false': False, 'ask': False}

_ALIASES = {
    'challengeresponseauthentication': 'kbdinteractiveauthentication',
    'skeyauthentication': 'kbdinteractiveauthentication',
    'tisauthentication': 'kbdinteractiveauthentication',
    'pubkeyacceptedkeytypes': 'pubkeyacceptedalgorithms',
    'smartcarddevice': 'pkcs11provider',
}

_KEYWORDS: dict[str, Parse] = {
    'addressfamily': value.choice(_FAMILIES),
    'bindaddress': value.single,
    'canonicaldomains': value.words,
    'canonicalizefallbacklocal': value.flag,
    'canonicalizehostname': value.choice(_CANONICALIZE),
    'canonicalizemaxdots': value.integer(0),
    'canonicalizepermittedcnames': value.permitted_cnames,
    'casignaturealgorithms': value.algorithms,
    'certificatefile': value.single,
    'ciphers': value.algorithms,
    'compression': value.choice({'yes': True, 'no': False}),
    'connecttimeout': value.duration,
    'dynamicforward': value.forward('dynamic'),
    'enablesshkeysign': value.flag,
    'forwardagent': value.single,
    'forwardx11': value.flag,
    'forwardx11trusted': value.flag,
    'globalknownhostsfile': value.words,
    'gssapiauthentication': value.flag,
    'gssapidelegatecredentials': value.flag,
    'gssapikeyexchange': value.flag,
    'hashknownhosts': value.flag,
    'hostbasedauthentication': value.flag,
    'hostkeyalgorithms': value.algorithms,
    'hostkeyalias': value.single,
    'hostname': value.single,
    'identitiesonly': value.flag,
    'identityagent': value.single,
    'identityfile': value.single,
    'ignoreunknown': value.single,
    'kbdinteractiveauthentication': value.flag,
    'kexalgorithms': value.algorithms,
    'localforward': value.forward('local'),
    'macs': value.algorithms,
    'passwordauthentication': value.flag,
    'pkcs11provider': value.single,
    'port': value.port,
    'preferredauthentications': value.single,
    'proxycommand': value.command,
    'proxyjump': value.jump,
    'pubkeyacceptedalgorithms': value.algorithms,
    'pubkeyauthentication': value.choice(_PUBKEY),
    'rekeylimit': value.rekey_limit,
    'remotecommand': value.command,
    'remoteforward': value.forward('remote'),
    'requesttty': value.choice(_TTY),
    'revokedhostkeys': value.single,
    'sendenv': value.variable_names,
    'serveralivecountmax': value.integer(0),
    'serveraliveinterval': value.duration,
    'setenv': value.variables,
    'stricthostkeychecking': value.choice(_CHECKING),
    'tag': value.single,
    'tcpkeepalive': value.flag,
    'updatehostkeys': value.choice(_ASK),
    'user': value.single,
    'userknownhostsfile': value.words,
}

# Keywords of OpenSSH that decide nothing here: programs that show things to people, multiplexing, other daemons.
_UNUSED = frozenset(re.findall(r'\w+', """
    addkeystoagent batchmode channeltimeout checkhostip clearallforwardings connectionattempts controlmaster
    controlpath controlpersist enableescapecommandline escapechar exitonforwardfailure fingerprinthash
    forkafterauthentication forwardx11timeout gatewayports
    gssapiclientidentity gssapikexalgorithms gssapirenewalforcesrekey
    gssapiserveridentity gssapitrustdns hostbasedacceptedalgorithms hostbasedkeytypes ipqos kbdinteractivedevices
    knownhostscommand localcommand loglevel logverbose nohostauthenticationforlocalhost numberofpasswordprompts
    obscurekeystroketiming permitlocalcommand permitremoteopen proxyusefdpass requiredrsasize securitykeyprovider
    sessiontype stdinnull streamlocalbindmask streamlocalbindunlink syslogfacility tunnel tunneldevice
    verifyhostkeydns versionaddendum visualhostkey warnweakcrypto xauthlocation
"""))

_ACCUMULATING = ('identityfile', 'certificatefile', 'sendenv', 'localforward', 'remoteforward', 'dynamicforward')

_PARSE: dict[str, Parse] = {
    **_KEYWORDS,
    **{alias: _KEYWORDS[keyword] for alias, keyword in _ALIASES.items()},
    **dict.fromkeys(_UNUSED, ignored),
    'host': parse_host,
    'match': match_parser(
        ('all', 'canonical', 'final', 'exec', 'host', 'originalhost', 'user', 'localuser', 'tagged', 'localnetwork')
    ),
    'include': parse_include,
}

_cache: FileCache[tuple[Directive, ...]] = FileCache(64)


def client_files(paths: tuple[str, ...], *, guarded: bool = False) -> ConfigFiles:
    """Name the files of a client's configuration; with `guarded`, those that others may write to are refused."""

    return ConfigFiles(paths, _PARSE, _cache, os.path.expanduser('~/.ssh'), guarded=guarded)


class ClientConfig:
    """What a configuration says about one host.

    `values` has what each keyword in lower case is, and `lines` where that stands. Values that were given by other
    means, `user` and `port`, are what Match lines and tokens see.
    """

    def __init__(self, files: ConfigFiles, host: str, user: str | None, port: int | None, local_user: str) -> None:
        self.original_host = host
        self.host = host
        self.values: dict[str, Any] = {}
        self.lines: dict[str, Directive] = {}
        self.wants_final = False
        self._files = files
        self._user = user
        self._port = port
        self._local_user = local_user
        self._local = LocalHost()
        self._final = False
        self._shell = os.environ.get('SHELL') or '/bin/sh'

        self._walk()

    def finish(self, host: str | None = None) -> None:
        """Walk again, as after the host's name became canonical: Host lines see the new name, `Match final` applies.

        Raises:
          ConfigParseError: a line that applies now cannot be
        """

        self.host = host or self.resolved_host
        self.values['hostname'] = self.host
        self._final = True
        self._walk()

    def _walk(self) -> None:
        Walk(self._files, self._applies, self._take).run()

    @property
    def resolved_host(self) -> str:
        """The name to connect to: HostName if it is set; names, but not addresses, in lower case.

        Raises:
          ConfigParseError: HostName has a token that cannot be
        """

        host = self._hostname()

        return host if parse_address(host) else host.lower()

    @property
    def user(self) -> str:
        """The user to log in as."""

        return self._user or self.values.get('user') or self._local_user

    @property
    def port(self) -> int:
        """The port to connect to."""

        return self._port or self.values.get('port') or DEFAULT_PORT

    def tokens(self, host: str | None = None) -> LazyTokens:
        """Return what percent tokens stand for; %h is the host to connect to, unless another is given."""

        local = self._local
        name = self.resolved_host if host is None else host

        return LazyTokens(
            {
                'C': lambda: connection_hash(local.name, name, str(self.port), self.user),
                'd': lambda: local.home,
                'h': lambda: name,
                'i': lambda: local.user_id,
                'k': lambda: str(self.values.get('hostkeyalias') or self.original_host),
                'L': lambda: local.short_name,
                'l': lambda: local.name,
                'n': lambda: self.original_host,
                'p': lambda: str(self.port),
                'r': lambda: self.user,
                'u': lambda: self._local_user,
            }
        )

    def shell_tokens(self, host: str | None = None) -> LazyTokens:
        """Return the tokens for a command that a shell runs: using one that could mean something to it is an error."""

        tokens = self.tokens(host)

        def harmless(letter: str) -> str:
            # CVE-2023-51385: names often come from elsewhere.
            if letter in 'hnkr' and _DANGEROUS.search(tokens[letter]):
                raise ValueError(f'%{letter} would be {tokens[letter]!r}, which a shell could take for commands')

            return tokens[letter]

        return LazyTokens({letter: partial(harmless, letter) for letter in tokens})

    # --- the walk

    def _hostname(self) -> str:
        name = self.values.get('hostname')

        if not name or self._final:
            return name or self.host

        try:
            return expand(name, {'h': self.original_host})
        except ValueError as exc:
            raise self.lines['hostname'].error(exc) from None

    def _applies(self, directive: Directive, run: bool) -> bool:
        if directive.keyword == 'host':
            return matches_host(directive.value, self.host)

        if any(criterion.name == 'final' for criterion in directive.value):
            self.wants_final = True

        return matches_criteria(
            directive,
            {
                'host': lambda patterns: matches_list(patterns, self._hostname(), lower=True),
                'originalhost': lambda patterns: matches_list(patterns, self.original_host, lower=True),
                'user': lambda patterns: matches_list(patterns, self.user),
                'localuser': lambda patterns: matches_list(patterns, self._local_user),
                'tagged': lambda patterns: matches_list(patterns, self.values.get('tag', '')),
                'localnetwork': matches_local_network,
                'exec': self._run,
            },
            final=self._final,
            run=run,
        )

    def _run(self, command: str) -> bool:
        host = self._hostname()

        if '%' in command:
            command = expand(command, self.shell_tokens(host))

        return command_succeeds(command, self._shell)

    def _take(self, directive: Directive, _: bool, __: bool) -> None:
        keyword = _ALIASES.get(directive.keyword, directive.keyword)
        values = self.values

        if keyword in _ACCUMULATING:
            self._add(keyword, directive)
        elif keyword in ('proxyjump', 'proxycommand'):
            # Whichever comes first keeps the other out.
            if 'proxyjump' not in values and 'proxycommand' not in values:
                values[keyword], self.lines[keyword] = directive.value, directive
        elif keyword not in values:
            values[keyword], self.lines[keyword] = directive.value, directive

    def _add(self, keyword: str, directive: Directive) -> None:
        found: tuple[Any, ...] = self.values.get(keyword, ())

        for item in directive.value if keyword == 'sendenv' else (directive.value,):
            if keyword == 'sendenv' and item.startswith('-'):
                found = tuple(name for name in found if not matches_wildcard(item[1:], name))
            elif item not in found:
                found = (*found, item)

        if len(found) > (_MAX_FILES if keyword.endswith('file') else _MAX_ITEMS):
            raise directive.error('there are too many of these')

        self.values[keyword] = found
        self.lines.setdefault(keyword, directive)


def expanded(config: ClientConfig, keyword: str, text: str, tokens: Mapping[str, str]) -> str:
    """Replace tokens, variables and `~` in a path; errors name the line.

    Raises:
      ConfigParseError: a token or variable cannot be replaced
    """

    try:
        return os.path.expanduser(expand(text, tokens, variables=True))
    except ValueError as exc:
        raise config.lines[keyword].error(exc) from None
