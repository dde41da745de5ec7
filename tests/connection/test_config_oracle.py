"""ssh_config as `ssh -G` resolves it: a table of small configurations, and configurations made at random."""

import getpass
import os
import pwd
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssh_fast.connection.config_client import ClientConfig, client_files, expanded
from ssh_fast.connection.config_tokens import expand
from ssh_fast.errors import ConfigParseError

pytestmark = pytest.mark.skipif(shutil.which('ssh') is None, reason='there is no ssh')

USER = getpass.getuser()

# What `ssh -G` prints for what a configuration leaves alone is OpenSSH's default, and not compared.
FLAGS = {True: 'yes', False: 'no'}


@cache
def version() -> tuple[int, int]:
    found = re.search(r'OpenSSH_(\d+)\.(\d+)', subprocess.run(['ssh', '-V'], capture_output=True, text=True).stderr)
    return (int(found[1]), int(found[2])) if found else (0, 0)


@cache
def asked(path: str, host: str, text: str) -> dict[str, list[str]] | str:
    """Return what ssh resolves, or the error it prints; `text` is there to tell apart what one path held."""
    done = subprocess.run(
        ['ssh', '-G', '-F', path, host], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL
    )
    if done.returncode or not done.stdout:
        return done.stderr or 'error'
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        keyword, _, rest = line.partition(' ')
        found.setdefault(keyword.lower(), []).append(rest)
    return found


def ours(path: str, host: str) -> dict[str, list[str]]:
    """Resolve, and write each value that was set as `ssh -G` does."""
    config = ClientConfig(client_files((path,)), host, None, None, USER)
    canonicalize = config.values.get('canonicalizehostname', 'no') != 'no'
    if canonicalize or config.wants_final:
        config.finish()
    shown = {'hostname': [config.resolved_host], 'user': [config.user], 'port': [str(config.port)]}
    for keyword, value in config.values.items():
        if keyword not in ('hostname', 'user', 'port', 'tag', 'ignoreunknown'):
            shown[keyword] = show(config, keyword, value)
    return shown


def show(config: ClientConfig, keyword: str, value: object) -> list[str]:
    tokens = config.tokens()
    match value:
        case bool():
            return [FLAGS[value]]
        case None if keyword == 'proxyjump':
            return []
        case 'none' if keyword.endswith('command'):
            return []
        case None:
            return ['none' if keyword == 'connecttimeout' else '0']
        case str() if keyword == 'remotecommand':
            return [substituted(config, value)]
        case str() if keyword == 'identityagent' and value != 'none':
            return [expanded(config, keyword, value, tokens)]
        case tuple() if keyword == 'userknownhostsfile' and value != ('none',):
            return [' '.join(expanded(config, keyword, item, tokens) for item in value)]
        case tuple() if keyword in ('globalknownhostsfile', 'canonicaldomains', 'userknownhostsfile'):
            return [' '.join(value)]
        case tuple() if keyword == 'canonicalizepermittedcnames':
            return [' '.join(f'{rule.sources}:{rule.targets}' for rule in value) or 'none']
        case tuple() if keyword.endswith('forward'):
            return [forward(config, item) for item in value]
        case tuple() if keyword == 'rekeylimit':
            return [f'{value.bytes} {value.seconds}']
        case tuple():
            return [str(item) for item in value]
        case _:
            return [str(value)]


def substituted(config: ClientConfig, text: str) -> str:
    return expand(text, config.tokens())


def end(host: str | None, port: int) -> str:
    if host and '/' in host:
        return host
    return str(port) if host is None else f'[{host or "*"}]:{port}'


def forward(config: ClientConfig, item) -> str:
    if item.kind == 'dynamic':
        return end(*item.listen)
    target = item.target and (item.target[0] if not item.target[1] else f'[{item.target[0]}]:{item.target[1]}')
    return f'{end(*item.listen)} {substituted(config, target) if target else "[socks]:0"}'


RENAMED = {
    'stricthostkeychecking': {'yes': 'true', 'no': 'false'},
    'canonicalizehostname': {'yes': 'true', 'no': 'false'},
}
STATES = {
    'pubkeyauthentication': {'true': 'yes', 'false': 'no', 'unbound': 'yes', 'host-bound': 'yes'},
    'requesttty': {'true': 'yes', 'false': 'no'},
    'updatehostkeys': {'true': 'yes', 'false': 'no', 'ask': 'no'},
}


def compare(path: Path, host: str) -> None:
    """Compare every keyword that our resolution has set with what ssh has."""
    theirs = asked(str(path), host, path.read_text())
    try:
        mine = ours(str(path), host)
    except ConfigParseError as exc:
        assert isinstance(theirs, str), f'only we refuse it: {exc}'
        return
    assert not isinstance(theirs, str), f'only ssh refuses it: {theirs}'
    for keyword, values in mine.items():
        values = [RENAMED.get(keyword, {}).get(value, value) for value in values]
        expected = [STATES.get(keyword, {}).get(value, value) for value in theirs.get(keyword, [])]
        if keyword == 'sendenv':
            # ssh lists one that is named twice, or by both walks, twice.
            expected = list(dict.fromkeys(expected))
        if keyword in ('ciphers', 'kexalgorithms', 'macs', 'hostkeyalgorithms', 'casignaturealgorithms') and (
            values[0][0] in '+-^'
        ):
            continue
        assert values == expected, keyword


CONFIGS = """
User alice
=====
user=alice
=====
USER = alice
=====
User "alice b"
=====
User 'alice b'
=====
User al"ic"e
=====
User al\\ ice
=====
User "al\\"ice"
=====
User alice # comment
=====
User alice#comment
=====
"User" alice
=====
	User	alice
=====
# comment
   # another

User alice
=====
User "alice
=====
User
=====
User ""
=====
User alice bob
=====
User == alice
=====
Port 22
Port 23
=====
Port 0
=====
Port 65536
=====
Port x
=====
Port 0x16
=====
Port ssh
=====
Host foo
 Port 1
Host *
 Port 2
=====
Host !foo *
 Port 1
Host foo
 Port 2
=====
Host * !foo
 Port 1
=====
Host f?o ba*
 Port 1
 User x
=====
Host bar
 Port 1
Host foo,bar
 Port 2
=====
Host FOO
 Port 1
=====
Host "foo" bar # x
 Port 9
=====
Host
=====
Host ""
=====
Match host foo
 Port 1
=====
Match host FOO user nobody,LOCAL_USER
 Port 1
=====
Match host !foo,*
 Port 1
Match host *,!bar
 Port 2
=====
Match !host foo
 Port 1
Match !host bar
 Port 2
=====
HostName real.example.com
Match host real.example.com
 Port 1
Match originalhost foo
 User x
=====
HostName %h.example.com
=====
HostName %%h
=====
HostName %n
=====
Host foo
 HostName Real.Example.COM
Host real.example.com
 Port 7
=====
Host foo
 HostName Real.Example.COM
 User u1
Match final host real.example.com
 Port 7
 User u2
=====
Host real
 Port 7
Host foo
 HostName real
Match final all
 User x
=====
Match canonical
 Port 3
=====
Match canonical final
 Port 3
=====
Match final !canonical
 Port 3
=====
Match !final
 Port 3
Match final
 Port 4
=====
Match !final user x
 Port 3
Match final
 User y
=====
Match all
 Port 3
=====
Match !all
 Port 3
=====
Match all host foo
 Port 3
=====
Match host foo all
 Port 3
=====
Match host foo user LOCAL_USER all
 Port 3
=====
Match
 Port 3
=====
Match nonsense x
 Port 3
=====
Match host
 Port 3
=====
Match host=foo user=LOCAL_USER
 Port 3
=====
Match host "foo" user "LOCAL_USER" # x
 Port 3
=====
Match localuser LOCAL_USER
 Port 3
=====
Match localuser nobody,!LOCAL_USER
 Port 3
=====
User bob
Match user bob
 Port 3
=====
Match exec true
 Port 3
=====
Match exec "test %h = foo"
 Port 3
=====
Match exec "test %n%p%r = foo22LOCAL_USER"
 Port 3
=====
Match !exec false
 Port 3
=====
Match exec "exit 3"
 Port 3
=====
Match exec "test %u-%L-%% != x" host foo
 Port 3
=====
Match user nobody exec "touch DIR/made"
 Port 3
=====
Match exec "test %x"
 Port 3
=====
Include DIR/one
Port 5
=====
Host bar
 Include DIR/one
Host *
 Port 5
=====
Host foo
 Include DIR/match
 User after
=====
Match host bar
 Include DIR/match
 User inside
=====
Include DIR/o* DIR/missing
=====
Include DIR/loop
=====
Include
=====
Include DIR/broken
=====
Host bar
 Include DIR/broken
=====
IdentityFile ~/.ssh/a
IdentityFile ~/.ssh/b
IdentityFile ~/.ssh/a
Host foo
 IdentityFile %d/c
=====
CertificateFile x
CertificateFile y
=====
IdentitiesOnly yes
IdentityAgent ~/agent-%h-%r
=====
IdentityAgent none
=====
SendEnv A B_* C
SendEnv -B* D
=====
SendEnv A=b
=====
SetEnv A=1 "B=a b" A=2
SetEnv C=3
=====
SetEnv A
=====
SetEnv =x
=====
SetEnv A=
=====
UserKnownHostsFile ~/%h ${HOME}/x-%p
GlobalKnownHostsFile /etc/a "/etc/b c"
=====
UserKnownHostsFile none
=====
UserKnownHostsFile a none
=====
HostKeyAlias a%h
UserKnownHostsFile /x/%k/%n/%r/%i/%C/%u/%d
=====
Ciphers aes128-ctr,aes256-gcm@openssh.com
MACs hmac-sha2-256
KexAlgorithms curve25519-sha256
HostKeyAlgorithms ssh-ed25519,rsa-sha2-512
CASignatureAlgorithms ssh-ed25519
PubkeyAcceptedAlgorithms ssh-ed25519
=====
PubkeyAcceptedKeyTypes ssh-ed25519
=====
Ciphers +aes128-cbc
MACs -hmac-sha1*
KexAlgorithms ^ecdh-sha2-nistp256
=====
PreferredAuthentications publickey,password
PasswordAuthentication no
PubkeyAuthentication no
KbdInteractiveAuthentication no
HostbasedAuthentication yes
=====
ChallengeResponseAuthentication no
=====
KbdInteractiveAuthentication yes
ChallengeResponseAuthentication no
=====
PubkeyAuthentication unbound
=====
PasswordAuthentication maybe
=====
Compression TRUE
=====
Compression yes no
=====
RekeyLimit 1G 1h
=====
RekeyLimit default 30m
=====
RekeyLimit 1.5M none
=====
RekeyLimit 15
=====
RekeyLimit 1G 1y
=====
RekeyLimit 1 2 3
=====
ConnectTimeout 1h30
ServerAliveInterval 1m
ServerAliveCountMax 5
=====
ConnectTimeout none
ServerAliveInterval none
=====
ConnectTimeout 1x
=====
ServerAliveInterval 99999999999
=====
ServerAliveCountMax -1
=====
AddressFamily inet6
BindAddress ::1
TCPKeepAlive no
=====
AddressFamily ipv6
=====
RequestTTY force
RemoteCommand echo "a  b" %h %r # no comment
=====
RequestTTY yes
=====
RequestTTY maybe
=====
RemoteCommand none
=====
ProxyCommand nc -x "a b" %h %p # kept
=====
ProxyCommand = nc %h
=====
ProxyCommand none
=====
ProxyJump a
ProxyCommand nc
=====
ProxyCommand nc
ProxyJump a
=====
ProxyJump u@a:22,b,[::1]:5
=====
ProxyJump ssh://u@a:22
=====
ProxyJump a:b
=====
ProxyJump none
ProxyJump a
=====
LocalForward 8080 localhost:80
LocalForward 127.0.0.1:8081 [::1]:81
LocalForward *:8082 h/82
LocalForward /tmp/s /tmp/t
=====
LocalForward 8080
=====
LocalForward 0 a:1
=====
LocalForward 8080 a
=====
RemoteForward 8080 localhost:80
RemoteForward 9090
RemoteForward /a /b
=====
DynamicForward 1080
DynamicForward [::1]:1081
DynamicForward localhost:1082
=====
DynamicForward 1080 x
=====
CanonicalizeHostname no
CanonicalDomains a.org b.org
CanonicalizeMaxDots 2
CanonicalizeFallbackLocal no
=====
CanonicalizePermittedCNAMEs a
=====
CanonicalDomains none
CanonicalizePermittedCNAMEs none
=====
CanonicalDomains a none
=====
StrictHostKeyChecking accept-new
UpdateHostKeys yes
HashKnownHosts yes
=====
StrictHostKeyChecking off
=====
StrictHostKeyChecking maybe
=====
EnableSSHKeysign yes
ForwardAgent yes
ForwardX11 yes
ForwardX11Trusted no
PKCS11Provider /x.so
=====
IgnoreUnknown nonsense,other*
Nonsense yes
Otherwise no
Port 4
=====
User a

Host foo
User b
Port 2
""".replace('LOCAL_USER', USER).split('=====\n')


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    """ssh asks the system for the home folder, whatever HOME says."""
    monkeypatch.setenv('HOME', pwd.getpwuid(os.getuid()).pw_dir)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / 'one').write_text('User one\nHost bar\nUser bar\n')
    (tmp_path / 'match').write_text('User first\nMatch host bar\n Port 1\nMatch host foo\n Port 2\n')
    (tmp_path / 'loop').write_text(f'Include {tmp_path}/loop\n')
    (tmp_path / 'broken').write_text('Port x\n')
    for path in tmp_path.iterdir():
        path.chmod(0o600)
    return tmp_path


@pytest.mark.parametrize('text', CONFIGS)
def test_table(folder: Path, text: str) -> None:
    path = folder / 'config'
    path.write_text(text.lstrip('\n').replace('DIR', str(folder)))
    for host in ('foo', 'FOO', 'bar.example.com') if re.search('host', text, re.IGNORECASE) else ('foo',):
        compare(path, host)
    assert not (folder / 'made').exists()


def test_table_is_large() -> None:
    assert len(CONFIGS) > 120


@pytest.mark.skipif(version() < (9, 4), reason='ssh knows no Tag before 9.4')
@pytest.mark.parametrize('text', ['Tag x\nMatch tagged x\n Port 3\n', 'Match tagged x\n Port 3\n'])
def test_tags(folder: Path, text: str) -> None:
    path = folder / 'config'
    path.write_text(text)
    compare(path, 'foo')


WORDS = st.sampled_from(
    ['a', 'b', 'foo', '*', 'f*', '!foo', '?oo', 'foo.example.com', USER, 'x,y', '!a,*', '"a b"', "'c'"]
)
SETTINGS = st.one_of(
    st.tuples(
        st.sampled_from(['User', 'HostKeyAlias', 'BindAddress', 'IdentityFile', 'CertificateFile', 'SendEnv']), WORDS
    ),
    st.tuples(st.sampled_from(['Port', 'ServerAliveCountMax', 'port']), st.integers(1, 70000).map(str)),
    st.tuples(st.sampled_from(['Compression', 'TCPKeepAlive', 'IdentitiesOnly']), st.sampled_from(['yes', 'no'])),
    st.tuples(
        st.sampled_from(['ConnectTimeout', 'ServerAliveInterval']), st.from_regex(r'[0-9]{1,3}[smhdw]?', fullmatch=True)
    ),
    st.tuples(st.just('HostName'), st.sampled_from(['%h.example.com', 'foo', 'Bar', '10.0.0.1'])),
    st.tuples(st.just('SetEnv'), st.sampled_from(['A=1', 'B=2 C=3', '"D=x y"'])),
)
CRITERIA = st.tuples(
    st.sampled_from(['', '!']), st.sampled_from(['host', 'originalhost', 'user', 'localuser']), WORDS
).map(lambda parts: f'{parts[0]}{parts[1]} {parts[2]}')
BLOCKS = st.one_of(
    st.lists(WORDS, min_size=1, max_size=3).map(lambda words: 'Host ' + ' '.join(words)),
    st.lists(CRITERIA, min_size=1, max_size=3).map(lambda items: 'Match ' + ' '.join(items)),
    st.lists(CRITERIA, max_size=2).map(lambda items: ' '.join(['Match', 'final', *items])),
    st.sampled_from(['Match all', 'Match canonical', 'Match !final']),
)
LINES = st.one_of(SETTINGS.map(lambda parts: f'{parts[0]} {parts[1]}'), BLOCKS)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINES, max_size=12), st.sampled_from(['foo', 'a', 'Foo', 'foo.example.com']))
def test_random_configurations(tmp_path: Path, lines: list[str], host: str) -> None:
    path = tmp_path / 'config'
    path.write_text('\n'.join(lines) + '\n')
    os.chmod(path, 0o600)
    compare(path, host)
