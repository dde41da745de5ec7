"""Configuration files as options and on live connections: what wins, what is read when, what is refused and where."""

import asyncio
import builtins
import logging
import os
import pwd
import socket
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ssh_fast
from ssh_fast import SSHClientConnectionOptions, SSHServerConnectionOptions
from ssh_fast.connection import config_client, config_match, options_load
from ssh_fast.connection.config_server import Client, ServerConfig, server_files
from ssh_fast.connection.config_values import Forward
from ssh_fast.errors import ConfigParseError
from ssh_fast.keys.key import generate_private_key
from tests.connection.test_config_oracle import CONFIGS
from tests.connection.test_config_server_oracle import CONFIGS as SERVER_CONFIGS
from tests.security.peer import HOST_KEY, LOOPBACK, PASSWORD, USER, Server, client_options, serving


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('LOGNAME', 'tester')
    monkeypatch.setenv('SHELL', '/bin/sh')
    monkeypatch.delenv('SSH_AUTH_SOCK', raising=False)
    (tmp_path / '.ssh').mkdir()
    return tmp_path


@pytest.fixture
def config(home: Path) -> Any:
    """Write ~/.ssh/config, as its owner's alone."""

    def write(text: str, name: str = 'config') -> Path:
        path = home / '.ssh' / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


def client(**kwargs: Any) -> SSHClientConnectionOptions:
    return SSHClientConnectionOptions(**kwargs)


# --- options from a configuration


def test_every_kind_of_value(config: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('AGENT', '/run/agent')
    (home / 'hosts').write_text('')
    config("""
        AddressFamily inet6
        BindAddress ::1
        CanonicalDomains a.org b.org
        CanonicalizeFallbackLocal no
        CanonicalizeMaxDots 2
        CanonicalizePermittedCNAMEs *.a.org:*.b.org
        CASignatureAlgorithms ssh-ed25519
        Ciphers aes256-ctr,nonsense@example.com
        Compression yes
        ConnectTimeout 1m
        HashKnownHosts yes
        HostKeyAlgorithms ssh-ed25519
        HostKeyAlias alias
        HostName %h.example.com
        IdentityAgent $AGENT
        KbdInteractiveAuthentication no
        KexAlgorithms curve25519-sha256
        MACs hmac-sha2-256
        PasswordAuthentication no
        Port 2222
        PreferredAuthentications gssapi-with-mic,publickey,password
        PubkeyAcceptedAlgorithms rsa-sha2-512
        RekeyLimit 1M 10m
        RemoteCommand echo %h %r
        RequestTTY force
        SendEnv LANG LC_*
        ServerAliveInterval 15
        ServerAliveCountMax 7
        SetEnv A=1 "B=x y"
        StrictHostKeyChecking accept-new
        TCPKeepAlive no
        UpdateHostKeys yes
        User bob
        UserKnownHostsFile ~/hosts ~/missing
        """)
    options = client(host='foo')
    assert (options.host, options.port, options.username) == ('foo.example.com', 2222, 'bob')
    assert (options.family, options.local_addr, options.tcp_keepalive) == (socket.AF_INET6, ('::1', 0), False)
    assert (options.canonical_domains, options.canonicalize_max_dots) == (('a.org', 'b.org'), 2)
    assert options.canonicalize_fallback_local is False
    assert options.canonicalize_permitted_cnames == (('*.a.org', '*.b.org'),)
    assert options.ca_signature_algs == (b'ssh-ed25519',)
    assert (options.encryption_algs, options.mac_algs) == ((b'aes256-ctr',), (b'hmac-sha2-256',))
    assert (options.kex_algs, options.server_host_key_algs) == ((b'curve25519-sha256',), (b'ssh-ed25519',))
    assert options.signature_algs == (b'rsa-sha2-512',)
    assert options.compression_algs == (b'zlib@openssh.com', b'none')
    assert (options.connect_timeout, options.keepalive_interval, options.keepalive_count_max) == (60, 15, 7)
    assert (options.host_key_alias, options.agent_path) == ('alias', '/run/agent')
    assert options.preferred_auth == (b'publickey',)
    assert (options.rekey_bytes, options.rekey_seconds) == (1 << 20, 600)
    assert (options.command, options.request_pty) == ('echo foo.example.com bob', 'force')
    assert (options.send_env, options.env) == (('LANG', 'LC_*'), {b'A': b'1', b'B': b'x y'})
    assert (options.hash_known_hosts, options.update_host_keys) == (True, True)
    assert options.strict_host_key_checking == 'accept-new'
    assert home / 'hosts' in options.known_hosts
    assert home / 'missing' not in options.known_hosts
    assert options.user_known_hosts == str(home / 'hosts')
    assert options.is_set('port') and not options.is_set('window')


def test_keywords_given_win(config: Any) -> None:
    config('Host alias\nHostName real\nUser bob\nPort 2222\nCompression yes\n')
    options = client(host='alias', username='carol', port=22, compression_algs='none')
    assert (options.host, options.username, options.port) == ('real', 'carol', 22)
    assert options.compression_algs == (b'none',)
    assert client(host='other').host == 'other'


def test_match_sees_what_was_given(config: Any) -> None:
    config('Match user carol\n Port 1\nMatch user tester\n Port 2\nMatch user bob\n Port 3\n')
    assert client(username='carol').port == 1
    assert client().port == 2
    assert client(username='bob').port == 3


def test_which_files_are_read(config: Any) -> None:
    config('Port 1\nUser default\n')
    one, two = config('Port 2\n', 'one'), config('Port 3\nUser two\n', 'two')
    assert client().port == 1
    assert client(config=None).port == 22
    assert client(config=[]).port == 22
    assert client(config=str(one)).port == 2
    assert client(config=one).username == 'tester'
    assert (client(config=[one, two]).port, client(config=['~/.ssh/one', two]).username) == (2, 'two')
    assert SSHServerConnectionOptions().config == ()

    base = client(config=one)
    assert SSHClientConnectionOptions(base, config=two).config == (str(one), str(two))
    assert SSHClientConnectionOptions(base, config=two).port == 2
    assert SSHClientConnectionOptions(base, config=two).username == 'two'
    assert SSHClientConnectionOptions(base, config=None).port == 2
    assert SSHClientConnectionOptions(client(config=None), host='x').port == 22

    with pytest.raises(FileNotFoundError):
        client(config='~/.ssh/missing')

    for value in (5, [5], '', ['']):
        with pytest.raises(ValueError, match=r'^config: '):
            client(config=value)


def test_a_file_that_others_may_write_is_refused(config: Any) -> None:
    path = config('Port 1\n')
    for mode in (0o620, 0o602):
        path.chmod(mode)
        with pytest.raises(ConfigParseError, match='bad owner or permissions'):
            client()
    path.chmod(0o644)
    assert client().port == 1
    path.chmod(0o666)
    assert client(config=path).port == 1
    with pytest.raises(ConfigParseError, match='bad owner or permissions'):
        client(config=config(f'Include {path}\n', 'outer'))


def test_included_names_are_relative_to_the_users_folder(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config('Include more missing*\nInclude ~/.ssh/other\n')
    config('User more\n', 'more')
    config('Port 7\n', 'other')
    monkeypatch.chdir('/')
    assert (client().username, client().port) == ('more', 7)


def test_nothing_is_read_again_for_a_shared_object(config: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = generate_private_key('ssh-ed25519')
    key.write_private_key(home / 'key')
    (home / 'hosts').write_text('')
    path = config(
        'Include more\nHost a*\n Port 1\nHost b\n Port 2\nHost *\n IdentityFile ~/key\n UserKnownHostsFile ~/hosts\n'
    )
    config('User more\n', 'more')
    base = client(config=path)
    opened: list[Any] = []
    plain_open = builtins.open

    def note(*args: Any, **kwargs: Any) -> Any:
        opened.append(args[0])
        return plain_open(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, 'open', note)
        path.unlink()
        for name, port in (('a1', 1), ('a2', 1), ('b', 2), ('c', 22)) * 50:
            options = SSHClientConnectionOptions(base, host=name)
            assert (options.host, options.port, options.username) == (name, port, 'more')
            assert options.client_keys is base.client_keys
            assert options.known_hosts is base.known_hosts
    assert opened == []
    assert [pair.public_data for pair in base.client_keys] == [key.public_data]


def test_a_file_that_changed_is_read_again(config: Any) -> None:
    path = config('Port 1\n')
    assert client().port == 1
    path.write_text('Port 22222\n')
    assert client().port == 22222


def test_identity_files(config: Any, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = {name: generate_private_key('ssh-ed25519') for name in ('id_foo', 'id_bar', 'locked')}
    for name, key in keys.items():
        options = {'passphrase': 'secret', 'rounds': 1, 'ignore_few_rounds': True} if name == 'locked' else {}
        key.write_private_key(home / name, **options)
        key.write_public_key(home / f'{name}.pub')
    config('IdentityFile ~/id_%n\nIdentityFile %d/locked\nIdentityFile none\nIdentityFile ~/missing\n')
    with caplog.at_level(logging.INFO, 'ssh_fast'):
        found = client(host='foo').client_keys
    assert [pair.public_data for pair in found] == [keys['id_foo'].public_data]
    assert 'missing' in caplog.text
    assert len(client(host='foo', passphrase='secret').client_keys) == 2
    assert client(host='foo').agent_identities is None
    assert client(host='foo', client_keys=None).client_keys == ()

    config('IdentityFile ~/id_%n\nIdentitiesOnly yes\n')
    assert client(host='bar').agent_identities == (keys['id_bar'].public_data,)
    base = client()
    assert SSHClientConnectionOptions(base, host='bar').agent_identities == (keys['id_bar'].public_data,)
    assert SSHClientConnectionOptions(base, host='none').agent_identities == ()

    config('IdentityAgent none\n')
    assert client(host='bar').agent_path is None


def test_tokens_that_a_shell_would_take_for_commands(config: Any) -> None:
    config('ProxyCommand nc %h %p %r\n')
    assert client(host='foo').proxy_command == ('/bin/sh', '-c', 'exec nc foo 22 tester')
    for names in ({'host': 'a;b'}, {'host': '`x`'}, {'host': '-oProxy'}, {'username': 'x$(y)'}, {'username': "a'b"}):
        with pytest.raises(ConfigParseError, match='line 1: proxycommand: .* shell'):
            client(**{'host': 'foo', **names})
    config('Match exec "touch /nonexistent/%h"\n Port 3\n')
    with pytest.raises(ConfigParseError, match='line 1: match: .* shell'):
        client(host='a;b')
    config('ProxyCommand fixed\n')
    assert client(host='a;b').proxy_command == ('/bin/sh', '-c', 'exec fixed')


def test_forwards_and_jumps_are_resolved(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('RUN', '/run')
    config("""
        LocalForward 8080 [::1]:80
        LocalForward ${RUN}/%h.sock db:5432
        RemoteForward *:9090
        DynamicForward 127.0.0.1:1080
        Host jumping
          ProxyJump %r@gate:2222,inner
        """)
    options = client(host='foo')
    assert options.forwards == (
        Forward('local', (None, 8080), ('::1', 80)),
        Forward('local', ('/run/foo.sock', 0), ('db', 5432)),
        Forward('remote', ('', 9090), None),
        Forward('dynamic', ('127.0.0.1', 1080), None),
    )
    assert options.proxy_jump is None
    assert client(host='jumping').proxy_jump == 'tester@gate:2222,inner'
    assert client(host='jumping', tunnel=None).proxy_jump is None
    assert client(host='jumping', proxy_command='nc x').proxy_jump is None


async def test_jump_hosts_that_lead_in_a_circle_are_refused_when_connecting(config: Any) -> None:
    config('ProxyJump gate\n')
    with pytest.raises(ValueError, match='at most 16 jump hosts, got 17 with .gate'):
        await ssh_fast.connect(LOOPBACK, 1, **client_options())


def test_tags_and_local_networks(monkeypatch: pytest.MonkeyPatch, config: Any) -> None:
    monkeypatch.setattr(config_match, 'local_addresses', lambda: ['192.0.2.7', 'fe80::1'])
    config('Tag work\nMatch tagged w*,!x\n Port 1\nMatch localnetwork 192.0.2.0/24\n User near\n')
    assert (client().port, client().username) == (1, 'near')
    config('Match localnetwork 198.51.100.0/24\n Port 1\nMatch !localnetwork 10.0.0.0/8\n User far\n')
    assert (client().port, client().username) == (22, 'far')
    config('Match localnetwork 10.0.0.1/8\n Port 1\n')
    with pytest.raises(ConfigParseError, match='line 1: match: .*host bits'):
        client()


def test_addresses_of_this_host() -> None:
    found = config_match.local_addresses()
    assert '127.0.0.1' not in found and '::1' not in found
    for address in found:
        socket.inet_pton(socket.AF_INET6 if ':' in address else socket.AF_INET, address)


def test_a_command_that_hangs(monkeypatch: pytest.MonkeyPatch, config: Any) -> None:
    monkeypatch.setattr(config_match, '_EXEC_SECONDS', 0.1)
    config('Match exec "sleep 20"\n Port 1\n')
    with pytest.raises(ConfigParseError, match='line 1: match: the command of exec did not end'):
        client()


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch, config: Any) -> None:
    def nobody() -> str:
        raise KeyError('getpwuid(): uid not found: 12345')

    monkeypatch.setattr(options_load.getpass, 'getuser', nobody)
    config('Match user bob\n Port 1\n')
    assert client(username='bob').port == 1
    config('User carol\n')
    assert client().username == 'carol'
    with pytest.raises(ValueError, match='^username: the local user has no name'):
        client(config=None)


# --- what is logged, what is refused


def test_unknown_keywords_are_logged(config: Any, caplog: pytest.LogCaptureFixture) -> None:
    path = config('Prot 23\nLogLevel debug\nIgnoreUnknown fancy*\nFancyThing 1\n')
    with caplog.at_level(logging.DEBUG, 'ssh_fast'):
        client()
    assert f'{path} line 1: unknown keyword Prot is passed over' in caplog.text
    assert f'{path} line 2: LogLevel has no use here' in caplog.text
    assert 'fancy' not in caplog.text.lower()


def test_host_keys_are_checked_whatever_a_file_says(config: Any, caplog: pytest.LogCaptureFixture) -> None:
    path = config('StrictHostKeyChecking no\n')
    with caplog.at_level(logging.INFO, 'ssh_fast'):
        assert client().strict_host_key_checking == 'yes'
    assert f'{path} line 1: host keys are checked all the same' in caplog.text


@pytest.mark.parametrize(
    ('text', 'expected', 'told'),
    [
        ('', False, False),
        ('ForwardX11Trusted yes', False, False),
        ('ForwardX11 yes', False, True),
        ('ForwardX11 yes\nForwardX11Trusted no', False, True),
        ('ForwardX11 yes\nForwardX11Trusted yes', 'ignore_failure', False),
        ('ForwardX11 no\nForwardX11Trusted yes', False, False),
    ],
)
def test_x11_forwarding(
    config: Any, text: str, expected: object, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    config(f'{text}\n')
    with caplog.at_level(logging.INFO, 'ssh_fast'):
        assert client().x11_forwarding == expected
    assert ('not forwarded without ForwardX11Trusted' in caplog.text) == told


def test_agent_forwarding(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('AGENT', '/run/agent')
    path = os.path.expanduser('~/agent')
    for text, expected in (('yes', True), ('no', False), ('$AGENT', '/run/agent'), ('~/agent', path)):
        config(f'ForwardAgent {text}\n')
        assert client().agent_forwarding == expected


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('Port x', r'config line 1: Port: expected a port'),
        ('\n# x\nPort', r'config line 3: Port: expected an argument'),
        ('Host a\n User "b', r'config line 2: User: expected a closing quote'),
        ('Host b\n Compression maybe', r'config line 2: Compression: expected one of yes, no'),
        ('Ciphers nonsense', r'config line 1: ciphers: none of the algorithms is here'),
        ('User a\0b', r'config line 1: expected text, got a NUL'),
        ('HostName %x', r'config line 1: hostname: .%x. is not a token'),
        ('UserKnownHostsFile ${NOPE_NOT_SET}/x', r'config line 1: userknownhostsfile: the environment variable'),
        ('UserKnownHostsFile ${HOME', r'config line 1: userknownhostsfile: expected the name of an environment'),
        ('IdentityFile %', r'config line 1: identityfile: .%. is not a token'),
        ('User ' + 'x' * 2000, r'config line 1: user: username: expected 1 to 1024 bytes'),
        ('HostName "a b"', r'config line 1: hostname: host: expected a host name'),
        ('Match canonical\n Port x', r'config line 2: Port: '),
        ('SetEnv SECRET', r'config line 1: SetEnv: expected NAME=value'),
    ],
)
def test_malformed_lines_name_file_and_line(config: Any, home: Path, text: str, expected: str) -> None:
    config(text)
    with pytest.raises(ConfigParseError, match=f'^{home}/.ssh/{expected}'):
        client(host='foo')


def test_bounds(config: Any) -> None:
    config('Include config\n')
    with pytest.raises(ConfigParseError, match=r'config line 1: include: .* more than 16 deep'):
        client()
    config('Include wide\nInclude wide\n')
    config('Include wide2\n' * 100, 'wide')
    config('Include wide3\n' * 100, 'wide2')
    config('Port 1\n', 'wide3')
    with pytest.raises(ConfigParseError, match='more than 4096 files'):
        client()
    config('Include long\n' * 20)
    config('Host x\n' * 15000, 'long')
    with pytest.raises(ConfigParseError, match='more than 200000 lines'):
        client()
    config('#' * (1 << 20) + '#')
    with pytest.raises(ConfigParseError, match='at most 1048576 bytes'):
        client()
    config('\n' * 20001)
    with pytest.raises(ConfigParseError, match='at most 20000 lines'):
        client()
    config(''.join(f'IdentityFile {number}\n' for number in range(101)))
    with pytest.raises(ConfigParseError, match='config line 101: identityfile: there are too many'):
        client()
    with pytest.raises(ConfigParseError, match='expected a file'):
        client(config='/')


FRAGMENTS = st.sampled_from([
    'Host', 'Match', 'Include', 'Port', 'User', 'HostName', 'SetEnv', 'SendEnv', 'IdentityFile', 'Ciphers',
    'RekeyLimit', 'ProxyJump', 'LocalForward', 'ListenAddress', 'AuthorizedKeysFile', 'final', 'canonical', 'all',
    'user', 'host', 'address', 'localnetwork', '10.0.0.0/8', '%h', '%', '%%', '${HOME}', '${', '~', '"', "'", '\\',
    '=', '!', '*', ',',
    '#', ' ', '\t', '\n', '\r', '\f', '\0', '::1', '[', ']', ':', '65536', '-1', '9' * 40, 'yes', 'none', 'é', '\udcff',
    'A=1', '+', '-', '^', 'a/b', 'x' * 5000,
])  # fmt: skip
TEXTS = st.lists(FRAGMENTS | st.text(max_size=8), max_size=30).map(''.join)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS)
def test_hostile_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / 'hostile'
    path.write_bytes(text.encode('utf-8', 'surrogateescape' if '\udcff' in text else 'replace'))
    resolve_all(path)


def resolve_all(path: Path) -> None:
    """Read a file as every side does: what it raises names the file and the line, or a file that a line names."""
    for resolve in (
        lambda: SSHClientConnectionOptions(config=path, host='foo', client_keys=None),
        lambda: SSHServerConnectionOptions(config=path),
        lambda: ServerConfig(server_files((str(path),)), Client('u', 'h', '10.0.0.1', '::1', 22)),
    ):
        try:
            resolve()
        except ConfigParseError as exc:
            assert str(exc).startswith(f'{path} line ')
            assert str(exc).isprintable()
        except OSError as exc:
            assert exc.filename


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([*CONFIGS, *SERVER_CONFIGS]),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 3), st.binary(max_size=3)), min_size=1, max_size=4),
)
def test_mutated_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, changes: list[tuple[int, int, bytes]]
) -> None:
    monkeypatch.setattr(config_client, 'command_succeeds', lambda command, shell: True)
    data = text.encode()
    for at, size, inserted in changes:
        data = data[:at] + inserted + data[at + size :]
    path = tmp_path / 'mutated'
    path.write_bytes(data)
    resolve_all(path)


@pytest.mark.parametrize(
    'line',
    [
        'User ' + 'a ' * 32_000,
        'Host ' + '*a' * 32_000,
        'Host ' + 'a ' * 32_000,
        'Match host ' + '*,' * 32_000,
        'SendEnv ' + '"a" ' * 16_000,
        'LocalForward ' + '[' * 65_000,
        'ProxyJump ' + 'a,' * 32_000 + 'a',
        'RekeyLimit ' + '9' * 65_000,
        'ConnectTimeout ' + '1s' * 32_000,
        'HostName ' + '%h' * 32_000,
        'User ' + '\\"' * 32_000,
        'CanonicalizePermittedCNAMEs ' + 'a:b ' * 16_000,
        'User ' + 'a' * 65_536,
        'Host x\n' * 15_000,
    ],
)
def test_long_lines_take_bounded_memory(tmp_path: Path, line: str) -> None:
    path = tmp_path / 'long'
    path.write_text(line)
    tracemalloc.start()
    try:
        client(config=path, host='f' * 64, client_keys=None)
    except ConfigParseError as exc:
        assert len(str(exc)) < 1200
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 32 << 20


# --- canonical names


class Resolver:
    """Stands in for the DNS: names that there are, and what they are aliases of."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self.asked: list[str] = []

    async def __call__(self, host: str, *args: Any, **kwargs: Any) -> list[Any]:
        self.asked.append(host)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, 'no such host')
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, self.names[host], ('192.0.2.1', 0))]


@pytest.fixture
async def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    made = Resolver({'web.b.org.': 'web.b.org', 'db.a.org.': 'cluster.c.org', 'other': 'other', 'x.y.z': 'x.y.z'})
    monkeypatch.setattr(asyncio.get_running_loop(), 'getaddrinfo', made)
    return made


CANONICAL = 'CanonicalizeHostname yes\nCanonicalDomains a.org b.org\nHost *.b.org\n Port 7\nMatch canonical\n User c\n'


async def test_names_become_canonical(resolver: Resolver, config: Any) -> None:
    config(CANONICAL)
    options = await SSHClientConnectionOptions.construct(host='web')
    assert resolver.asked == ['web.a.org.', 'web.b.org.']
    assert (options.host, options.port, options.username) == ('web.b.org', 7, 'c')

    # An object that was made without a loop looks names up when it is used.
    made = SSHClientConnectionOptions(host='web')
    assert (made.host, made.port) == ('web', 22)
    assert (await SSHClientConnectionOptions.construct(made)).port == 7
    assert made.host == 'web'


async def test_which_names_are_looked_up(resolver: Resolver, config: Any) -> None:
    async def name(host: str, **kwargs: Any) -> str:
        resolver.asked.clear()
        return (await SSHClientConnectionOptions.construct(host=host, **kwargs)).host

    config(CANONICAL)
    assert await name('other') == 'other'
    assert await name('x.y.z') == 'x.y.z' and resolver.asked == []
    assert await name('192.0.2.9') == '192.0.2.9' and resolver.asked == []
    assert await name('web', proxy_command='nc') == 'web' and resolver.asked == []
    assert await name('web', proxy_command='nc', canonicalize_hostname='always') == 'web.b.org'
    assert await name('web', canonicalize_hostname=False) == 'web' and resolver.asked == []
    assert await name('db') == 'db.a.org'
    assert await name('db', canonicalize_permitted_cnames=[('*.a.org', '*.c.org')]) == 'cluster.c.org'
    assert await name('db', canonicalize_permitted_cnames=[('*.a.org', '*.b.org')]) == 'db.a.org'
    assert await name('web.b.org.') == 'web.b.org'
    with pytest.raises(OSError, match=r'Cannot find the host nope in the domains a\.org, b\.org'):
        await name('nope', canonicalize_fallback_local=False)


async def test_canonical_names_without_a_file(resolver: Resolver) -> None:
    options = await SSHClientConnectionOptions.construct(
        host='web', config=None, canonicalize_hostname=True, canonical_domains=['b.org'], canonicalize_max_dots=0
    )
    assert options.host == 'web.b.org'


# --- live connections


async def test_without_a_users_file_no_new_host_is_written_down(config: Any, home: Path) -> None:
    (home / 'system').write_text('')
    async with serving() as server:
        config(
            'StrictHostKeyChecking accept-new\nUserKnownHostsFile none\nGlobalKnownHostsFile ~/system\n'
            f'Port {server.port}\nUser {USER}\n'
        )
        with pytest.raises(ValueError, match='UserKnownHostsFile is none'):
            await ssh_fast.connect(LOOPBACK, password=PASSWORD)
        assert (home / 'system').read_text() == ''
        config(f'StrictHostKeyChecking accept-new\nGlobalKnownHostsFile ~/system\nPort {server.port}\nUser {USER}\n')
        async with ssh_fast.connect(LOOPBACK, password=PASSWORD):
            pass
        assert (home / 'system').read_text() == ''
        assert str(server.port) in (home / '.ssh/known_hosts').read_text()


async def test_an_alias_leads_to_a_server(config: Any, home: Path) -> None:
    async with serving() as server:
        (home / 'hosts').write_text(f'[{LOOPBACK}]:{server.port} {HOST_KEY.export_public_key().decode()}')
        config(f"""
            Host alias
              HostName {LOOPBACK}
              Port {server.port}
              User {USER}
              UserKnownHostsFile ~/hosts
            """)
        async with ssh_fast.connect('alias', password=PASSWORD) as conn:
            assert conn.get_extra_info('username') == USER
        with pytest.raises(ssh_fast.HostKeyNotVerifiable):
            await ssh_fast.connect('alias', password=PASSWORD, config=config(
                f'HostName {LOOPBACK}\nPort {server.port}\nUserKnownHostsFile none\nGlobalKnownHostsFile none\n', 'none'
            ))  # fmt: skip


async def test_new_hosts_are_accepted_into_the_configured_file(config: Any, home: Path) -> None:
    async with serving() as server:
        config(f'StrictHostKeyChecking accept-new\nUserKnownHostsFile ~/new\nPort {server.port}\nUser {USER}\n')
        async with ssh_fast.connect(LOOPBACK, password=PASSWORD):
            pass
        assert HOST_KEY.export_public_key().split()[1] in (home / 'new').read_bytes()


RELAY = """
import os, socket, sys, threading
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def pump(read, write, end):
    while data := read(65536):
        write(data)
    end()
def write_all(data):
    while data:
        data = data[os.write(1, data):]
threading.Thread(
    target=pump, args=(lambda n: os.read(0, n), sock.sendall, lambda: sock.shutdown(socket.SHUT_WR)), daemon=True
).start()
pump(sock.recv, write_all, lambda: None)
"""


@pytest.fixture
def relay(home: Path) -> Path:
    (home / 'relay.py').write_text(RELAY)
    return home / 'relay.py'


def children() -> set[str]:
    own = str(os.getpid())
    found = set()
    for name in os.listdir('/proc'):
        if name.isdigit():
            try:
                status = Path(f'/proc/{name}/stat').read_text().rpartition(')')[2].split()
            except OSError:
                continue
            if status[1] == own:
                found.add(name)
    return found


async def gone(before: set[str]) -> bool:
    for _ in range(500):
        if children() <= before:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_proxy_commands(relay: Path, config: Any) -> None:
    before = children()
    async with serving() as server:
        command = [sys.executable, str(relay), LOOPBACK, str(server.port)]
        for proxy in (' '.join(command), command):
            async with ssh_fast.connect('nowhere.invalid', proxy_command=proxy, **client_options()) as conn:
                assert conn.get_extra_info('username') == USER
                assert len(children() - before) == 1
            assert await gone(before)
        proxy = f'ProxyCommand {sys.executable} {relay} %h %p'
        config(f'Host hidden\n HostName {LOOPBACK}\n Port {server.port}\n {proxy}\n')
        async with ssh_fast.connect('hidden', **client_options()) as conn:
            assert conn.get_extra_info('username') == USER
        assert await gone(before)
        assert await ssh_fast.get_server_auth_methods('hidden') == ['keyboard-interactive', 'password']


async def test_proxy_commands_that_fail(relay: Path) -> None:
    before = children()
    with pytest.raises(FileNotFoundError, match='Cannot run the proxy command /nonexistent'):
        await ssh_fast.connect('x', proxy_command='/nonexistent/program x', **client_options())
    with pytest.raises(ssh_fast.ConnectionLost):
        await ssh_fast.connect('x', proxy_command='true', **client_options())
    with pytest.raises(TimeoutError):
        await ssh_fast.connect('x', proxy_command='sleep 30', connect_timeout=0.2, **client_options())
    assert await gone(before)
    with pytest.raises(ValueError, match=r'^proxy_command: No closing quotation'):
        client(proxy_command='nc "x')
    for value in (5, [5], ['a\0']):
        with pytest.raises(ValueError, match=r'^proxy_command: '):
            client(proxy_command=value)
    assert client(proxy_command='').proxy_command is None


async def test_login_methods_of_a_server() -> None:
    class Open(Server):
        def begin_auth(self, username: str) -> bool:
            return super().begin_auth(username) and username != 'guest'

    async with serving(Open) as server:
        assert await ssh_fast.get_server_auth_methods(LOOPBACK, server.port, 'guest') == ['none']
        methods = await ssh_fast.get_server_auth_methods(LOOPBACK, server.port, USER)
        assert 'password' in methods and 'none' not in methods
        assert server.made[-1].users == [USER]


# --- servers


@pytest.fixture
def sshd(home: Path) -> Any:
    HOST_KEY.write_private_key(home / 'host_key')

    def write(text: str) -> Path:
        path = home / 'sshd_config'
        path.write_text(f'HostKey {home}/host_key\n{text}')
        return path

    return write


def test_server_values(sshd: Any, home: Path) -> None:
    (home / 'banner').write_text('Hello\n')
    (home / 'keys').write_bytes(generate_private_key('ssh-ed25519').export_public_key())
    path = sshd(f"""
        Port 2222
        ListenAddress {LOOPBACK}
        AddressFamily inet
        AuthorizedKeysFile {home}/keys {home}/missing
        AuthenticationMethods publickey,password keyboard-interactive:pam
        Banner {home}/banner
        Ciphers aes128-ctr
        ClientAliveInterval 30
        ClientAliveCountMax 4
        Compression no
        HostbasedAuthentication no
        KexAlgorithms curve25519-sha256
        LoginGraceTime 45
        MACs hmac-sha2-256
        MaxAuthTries 3
        MaxSessions 2
        PermitTTY no
        PasswordAuthentication no
        RekeyLimit 1M
        TCPKeepAlive no
        UseDNS yes
        Subsystem sftp internal-sftp
        UsePAM yes
        """)
    options = SSHServerConnectionOptions(config=path)
    assert (options.host, options.port, options.family) == (LOOPBACK, 2222, socket.AF_INET)
    assert len(options.server_host_keys) == 1
    assert options.authorized_client_keys is not None
    assert options.auth_methods == ((b'publickey', b'password'), (b'keyboard-interactive',))
    assert (options.banner, options.login_timeout) == ('Hello\n', 45)
    assert (options.keepalive_interval, options.keepalive_count_max) == (30, 4)
    assert (options.max_auth_tries, options.max_sessions, options.allow_pty) == (3, 2, False)
    assert (options.password_auth, options.rekey_bytes, options.tcp_keepalive) == (False, 1 << 20, False)
    assert (options.encryption_algs, options.compression_algs) == ((b'aes128-ctr',), (b'none',))
    assert options.rdns_lookup is True
    assert options.depends_on_client is False
    assert SSHServerConnectionOptions(config=path, port=1, password_auth=True).port == 1


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('DenyUsers bob', 'line 2: DenyUsers: this restriction is not supported'),
        ('AllowUsers bob', 'line 2: AllowUsers: this restriction'),
        ('ForceCommand x', 'line 2: ForceCommand: this restriction'),
        ('PermitRootLogin no', 'line 2: PermitRootLogin: this restriction'),
        ('PermitOpen host:80', 'line 2: PermitOpen: this restriction'),
        ('PermitListen none', 'line 2: PermitListen: this restriction'),
        ('AllowTcpForwarding maybe', 'line 2: AllowTcpForwarding: expected one of'),
        ('Match user bob\n ChrootDirectory /x', 'line 3: ChrootDirectory: this restriction'),
        ('PubkeyAuthOptions verify-required', 'line 2: PubkeyAuthOptions: this restriction'),
        ('AuthorizedPrincipalsCommand /bin/names %u', 'line 2: AuthorizedPrincipalsCommand: this restriction'),
        ('RequiredRSASize 3072', 'line 2: RequiredRSASize: this restriction'),
        ('Port 1\nPort 2', 'line 2: port: one listener has one port'),
        ('ListenAddress ::1\nListenAddress ::2', 'line 2: listenaddress: one listener has one address'),
        ('Match user x\n Port 3', 'line 3: port: this cannot stand below Match'),
        ('Banner /nonexistent', 'line 2: banner: /nonexistent cannot be read'),
        ('MaxSessions 0', 'line 2: maxsessions: max_sessions: expected an integer from 1'),
        ('AuthenticationMethods nonsense', 'line 2: authenticationmethods: auth_methods: '),
        ('Match exec true', 'line 2: Match: .exec. is not a criterion'),
    ],
)
def test_server_files_that_are_refused(sshd: Any, text: str, expected: str) -> None:
    with pytest.raises(ConfigParseError, match=expected):
        SSHServerConnectionOptions(config=sshd(text))


@pytest.mark.parametrize(
    ('text', 'forwards'),
    [
        ('AllowAgentForwarding yes', True),
        ('DisableForwarding no', True),
        ('DisableForwarding yes', False),
        ('DisableForwarding yes\nAllowAgentForwarding yes', False),
        ('AllowAgentForwarding yes\nDisableForwarding yes', False),
        ('Match all\n AllowAgentForwarding yes\n DisableForwarding yes', False),
    ],
)
def test_disabled_forwarding_is_that_of_agents_too(sshd: Any, text: str, forwards: bool) -> None:
    config = f'{text}\nPubkeyAuthOptions none\nAuthorizedPrincipalsCommand none\nRequiredRSASize 2048\n'
    if 'Match' in text:
        config = text
    assert SSHServerConnectionOptions(config=sshd(config)).agent_forwarding is forwards


@pytest.mark.parametrize(
    ('text', 'forwards'),
    [
        ('', False),
        ('X11Forwarding yes', True),
        ('X11Forwarding yes\nDisableForwarding yes', False),
        ('Match all\n DisableForwarding yes\n X11Forwarding yes', False),
    ],
)
def test_x11_forwarding_of_servers(sshd: Any, text: str, forwards: bool) -> None:
    assert SSHServerConnectionOptions(config=sshd(text)).x11_forwarding is forwards


@pytest.mark.parametrize(
    ('text', 'tcp', 'unix'),
    [
        ('PermitOpen any\nPermitListen any', 'yes', 'yes'),
        ('AllowTcpForwarding all\nAllowStreamLocalForwarding no', 'yes', 'no'),
        ('AllowTcpForwarding local\nAllowStreamLocalForwarding remote', 'local', 'remote'),
        ('AllowTcpForwarding yes\nDisableForwarding yes', 'no', 'no'),
    ],
)
def test_forwarding_of_ports_and_sockets(sshd: Any, text: str, tcp: str, unix: str) -> None:
    options = SSHServerConnectionOptions(config=sshd(text))
    assert (options.tcp_forwarding, options.unix_forwarding) == (tcp, unix)


def test_a_changed_file_is_read_again_when_it_is_named_again(sshd: Any) -> None:
    path = sshd('MaxAuthTries 3\n')
    options = SSHServerConnectionOptions(config=path)
    sshd('MaxAuthTries 44\n')
    options.update(login_timeout=5)
    assert options.max_auth_tries == 3
    options.update(config=path)
    assert (options.max_auth_tries, options.config) == (44, (str(path),))


async def test_match_lines_decide_for_each_client(sshd: Any) -> None:
    path = sshd(f'PermitTTY no\nMatch User {USER} Address 127.0.0.0/8\n PasswordAuthentication yes\n PermitTTY yes\n'
                'Match User other\n PasswordAuthentication no\nMatch !User other\n MaxSessions 1\n')  # fmt: skip
    async with serving(config=path, server_host_keys=()) as server:
        async with ssh_fast.connect(LOOPBACK, server.port, **client_options()) as conn:
            assert conn.get_extra_info('username') == USER
            assert server.made[-1].conn._options.allow_pty is True
            assert server.made[-1].conn._options.max_sessions == 1
        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(LOOPBACK, server.port, **client_options(username='other'))
        assert await ssh_fast.get_server_auth_methods(LOOPBACK, server.port, 'other') == []


async def test_authorized_keys_of_the_user(sshd: Any, home: Path) -> None:
    keys = {name: generate_private_key('ssh-ed25519') for name in ('one', 'two')}
    (home / 'keys').mkdir()
    for name, key in keys.items():
        key.write_public_key(home / 'keys' / name)
    (home / 'secret').write_bytes(keys['one'].export_public_key())
    path = sshd(f'AuthorizedKeysFile {home}/keys/%u\n')

    async with serving(ssh_fast.SSHServer, config=path, server_host_keys=()) as server:
        for user, name in (('one', 'one'), ('two', 'two')):
            options = client_options(username=user, client_keys=[keys[name]], password=None)
            async with ssh_fast.connect(LOOPBACK, server.port, **options) as conn:
                assert conn.get_extra_info('username') == user
        for user in ('two', '../secret', 'three', '..'):
            options = client_options(username=user, client_keys=[keys['one']], password=None)
            with pytest.raises(ssh_fast.PermissionDenied):
                await ssh_fast.connect(LOOPBACK, server.port, **options)


async def test_relative_authorized_keys_are_in_the_users_home(sshd: Any, home: Path) -> None:
    account = pwd.getpwuid(os.getuid())
    options = SSHServerConnectionOptions(config=sshd('AuthorizedKeysFile .nothing-here/%u ../../../%h/x\n'))
    assert options.authorized_client_keys is None
    chosen = await options.for_client(Client(account.pw_name, 'h', '192.0.2.1', '192.0.2.2', 22))
    assert chosen.authorized_client_keys is not None
    assert options.authorized_client_keys is None


# --- logging


def test_levels_of_logging() -> None:
    logger = logging.getLogger('ssh_fast')
    before = logger.level, logger.getChild('sftp').level
    try:
        ssh_fast.set_log_level('DEBUG')
        ssh_fast.set_sftp_log_level(logging.ERROR)
        assert logger.isEnabledFor(logging.DEBUG)
        assert not logger.getChild('sftp').isEnabledFor(logging.WARNING)
        ssh_fast.set_sftp_log_level(logging.NOTSET)
        assert logger.getChild('sftp').isEnabledFor(logging.DEBUG)
        for level in (1, 2, 3):
            ssh_fast.set_debug_level(level)
        for bad in (0, 4, 'x'):
            with pytest.raises(ValueError, match='from 1 to 3'):
                ssh_fast.set_debug_level(bad)
    finally:
        logger.setLevel(before[0])
        logger.getChild('sftp').setLevel(before[1])


async def test_records_about_sftp_have_a_logger_of_their_own() -> None:
    async with (
        serving(sftp_factory=True) as server,
        ssh_fast.connect(LOOPBACK, server.port, **client_options()) as conn,
        conn.start_sftp_client() as sftp,
    ):
        base: Any = sftp.logger
        contexts = 0
        while isinstance(base, logging.LoggerAdapter):
            base, contexts = base.logger, contexts + 1
        assert (base.name, contexts) == ('ssh_fast.sftp', 2)


def test_names_of_types_are_there() -> None:
    assert ssh_fast.BytesOrStr == bytes | str
    assert ssh_fast.DataType == int | None
    assert callable(ssh_fast.SSHServerProcessFactory) and callable(ssh_fast.SSHServerSessionFactory)
