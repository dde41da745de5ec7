"""sshd_config as `sshd -T` resolves it, for a listener and for clients that Match lines tell apart."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssh_fast.connection.config_server import Client, ServerConfig, server_files
from ssh_fast.errors import ConfigParseError
from ssh_fast.keys.key import generate_private_key

SSHD = shutil.which('sshd') or '/usr/sbin/sshd'

pytestmark = pytest.mark.skipif(not os.access(SSHD, os.X_OK) or os.getuid() != 0, reason='there is no sshd, or no root')

CLIENTS = [
    Client('bob', 'a.example.com', '10.1.2.3', '127.0.0.1', 2200),
    Client('alice', 'b.example.org', '192.0.2.1', '10.0.0.1', 22),
]
FLAGS = {True: 'yes', False: 'no'}


@pytest.fixture(scope='module')
def host_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('key') / 'key'
    generate_private_key('ssh-ed25519').write_private_key(path)
    path.chmod(0o600)
    Path('/run/sshd').mkdir(exist_ok=True)
    return path


def asked(path: Path, client: Client | None) -> dict[str, list[str]] | str:
    command = [SSHD, '-T', '-f', str(path)]
    if client:
        command += ['-C', f'user={client.user},host={client.host},addr={client.addr}']
        command += ['-C', f'laddr={client.local_addr},lport={client.local_port}']
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode:
        return done.stderr or 'error'
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        keyword, _, rest = line.partition(' ')
        found.setdefault(keyword, []).append(rest)
    return found


def show(value: object) -> list[str]:
    match value:
        case bool():
            return [FLAGS[value]]
        case tuple():
            return [str(item) for item in value]
        case _:
            return [str(value)]


def compare(path: Path, client: Client | None) -> None:
    theirs = asked(path, client)
    try:
        config = ServerConfig(server_files((str(path),)), client)
    except ConfigParseError as exc:
        assert isinstance(theirs, str), f'only we refuse it: {exc}'
        return
    assert not isinstance(theirs, str), f'only sshd refuses it: {theirs}'
    for keyword, value in config.values.items():
        if keyword == 'listenaddress':
            continue
        mine, expected = show(value), theirs.get(keyword, [])
        if keyword in ('authenticationmethods', 'authorizedkeysfile'):
            mine = [' '.join(mine)]
        if keyword == 'rekeylimit':
            mine = [f'{value.bytes} {value.seconds}']
        assert mine == expected, keyword


TABLE = r"""
GatewayPorts clientspecified
=====
GatewayPorts maybe
=====
GatewayPorts no
Match user bob
 GatewayPorts yes
=====
Port 2200
Port 2201
=====
Port 22 23
=====
PORT=2200
=====
AddressFamily inet6
=====
LoginGraceTime 1m30
MaxAuthTries 3
MaxSessions 5
=====
LoginGraceTime none
=====
MaxAuthTries 0
=====
MaxAuthTries -1
=====
PasswordAuthentication no
PasswordAuthentication yes
PubkeyAuthentication no
KbdInteractiveAuthentication no
HostbasedAuthentication yes
=====
PasswordAuthentication true
=====
PermitTTY yes no
=====
ChallengeResponseAuthentication no
=====
AuthenticationMethods publickey,password keyboard-interactive
=====
AuthenticationMethods any
=====
AuthorizedKeysFile .ssh/a %h/b/%u "c d"
=====
Banner none
=====
Banner "/etc/my banner"
=====
Banner a b
=====
RekeyLimit 1G 1h
=====
RekeyLimit default none
=====
ClientAliveInterval 1m
ClientAliveCountMax 2
=====
ClientAliveInterval none
=====
TCPKeepAlive no
UseDNS yes
AllowAgentForwarding no
X11Forwarding yes
=====
Compression delayed
=====
Ciphers aes128-ctr
MACs hmac-sha2-256
KexAlgorithms curve25519-sha256
CASignatureAlgorithms ssh-ed25519
PubkeyAcceptedAlgorithms ssh-ed25519
=====
TrustedUserCAKeys none
RevokedKeys none
AuthorizedPrincipalsFile none
=====
MaxAuthTries 3
Match User bob
 MaxAuthTries 4
Match User *
 MaxAuthTries 5
=====
Match User bob,!alice Address 10.0.0.0/8
 PasswordAuthentication no
 PermitTTY no
Match Host *.example.org
 PasswordAuthentication no
 Banner /x
=====
Match Host !a.example.com,*
 PermitTTY no
=====
Match LocalPort 2200 LocalAddress 127.0.0.1
 AllowAgentForwarding no
 X11Forwarding yes
=====
Match Address 192.0.2.0/24,10.1.2.3
 AllowAgentForwarding no
=====
Match all
 PermitTTY no
=====
PermitTTY yes
Match all
 PermitTTY no
=====
Match user bob all
 PermitTTY no
=====
Match user
 PermitTTY no
=====
Match nonsense x
 PermitTTY no
=====
Match user=bob
 PermitTTY no
Match "user" "bob" # x
 MaxSessions 3
=====
Match user bob
 Port 3
=====
Match user nobody
 Ciphers aes128-ctr
=====
Include DIR/one
PermitTTY yes
=====
Match user bob
 Include DIR/one
=====
Match user bob
 MaxSessions 2
Match user bob,alice
 MaxSessions 3
 PermitTTY no
=====
PermitTTY "no"
=====
PermitTTY "no
=====
UseDNS
"""
CONFIGS = TABLE.split('=====\n')


@pytest.mark.parametrize('text', CONFIGS)
def test_table(tmp_path: Path, host_key: Path, text: str) -> None:
    (tmp_path / 'one').write_text('PermitTTY no\nMatch user alice\n MaxSessions 9\n')
    path = tmp_path / 'config'
    path.write_text(f'HostKey {host_key}\n' + text.lstrip('\n').replace('DIR', str(tmp_path)))
    for client in (None, *CLIENTS) if re.search('match', text, re.IGNORECASE) else (None,):
        # Without -C, sshd refuses to look at Match lines.
        if client or 'atch' not in text:
            compare(path, client)


PATTERNS = st.sampled_from(['bob', 'alice', '*', 'b*', '!bob,*', '*.example.com', '!*.org,*', 'x'])
CRITERIA = st.tuples(st.sampled_from(['User', 'host', 'user']), PATTERNS).map(' '.join)
ADDRESSES = st.sampled_from(['10.0.0.0/8', '10.1.2.3', '192.0.2.*', '!10.0.0.0/8,*', '::/0']).map('Address {}'.format)
LINES = st.one_of(
    st.tuples(st.sampled_from(['MaxAuthTries', 'MaxSessions']), st.integers(0, 9).map(str)).map(' '.join),
    st.tuples(
        st.sampled_from(['PermitTTY', 'PasswordAuthentication', 'X11Forwarding', 'AllowAgentForwarding']),
        st.sampled_from(['yes', 'no']),
    ).map(' '.join),
    st.lists(CRITERIA | ADDRESSES, min_size=1, max_size=3).map(lambda items: 'Match ' + ' '.join(items)),
    st.just('Match all'),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINES, max_size=10), st.sampled_from(CLIENTS))
def test_random_configurations(tmp_path: Path, host_key: Path, lines: list[str], client: Client) -> None:
    path = tmp_path / 'config'
    path.write_text('\n'.join([f'HostKey {host_key}', *lines, '']))
    compare(path, client)
