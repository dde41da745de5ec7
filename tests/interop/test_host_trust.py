"""Trust in hosts with real peers: rotation of host keys, new hosts, and hosts that vouch for their users."""

import asyncio
import contextlib
import dataclasses
import os
import pwd
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

import ssh_fast
from ssh_fast.connection import keysign
from tests.interop import peers
from tests.interop.asyncssh_peer import asyncssh_server
from tests.interop.ours import our_server
from tests.interop.peers import KEY_TYPES, LOOPBACK, KeyRing, OpenSSHServer, find_program

USER = peers.user_name()


async def show(process: Any) -> None:
    process.stdout.write(process.command or 'shell')
    process.exit(0)


def key_line(key_ring: KeyRing, name: str, port: int, key: str = '') -> str:
    return f'[{LOOPBACK}]:{port} {" ".join(key_ring.public(key or f"host-{name}", name).read_text().split()[:2])}\n'


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


# --- rotation


@pytest.mark.parametrize('hashed', [False, True])
async def test_openssh_tells_our_client_its_keys(
    hashed: bool, key_ring: KeyRing, start_openssh: Callable[..., OpenSSHServer], tmp_path: Path
) -> None:
    """All types at once; what we write, OpenSSH's client believes."""
    names = [name for name in KEY_TYPES if name != 'ecdsa-521']
    target = start_openssh(host_keys=names).target
    known = tmp_path / 'known'
    gone = key_line(key_ring, 'ecdsa-521', target.port)
    others = f'# mine\n*.example.com,{LOOPBACK} {gone.split(None, 1)[1]}@revoked other {gone.split(None, 1)[1]}'
    known.write_text(others + gone.replace(' ', ',other ', 1) + key_line(key_ring, 'rsa', target.port))
    known.chmod(0o640)
    told: list[Any] = []
    options = target.connect_options(
        known_hosts=str(known), update_host_keys=True, hash_known_hosts=hashed,
        server_host_keys_handler=lambda *lists: told.append(lists),
    )
    async with ssh_fast.connect(**options) as connection:
        assert connection.get_extra_info('host_key_alg') == 'rsa-sha2-512'
        await until(lambda: known.read_text().count('\n') == 4 + len(names))
    [(added, removed, retained, revoked)] = told
    assert [len(keys) for keys in (added, removed, retained, revoked)] == [len(names) - 1, 1, 1, 0]
    text = known.read_text()
    assert text.startswith(others + f'other {gone.split(None, 1)[1]}') and known.stat().st_mode & 0o777 == 0o640
    assert ('|1|' in text) is hashed and not [path for path in tmp_path.iterdir() if path.name.startswith('.known')]
    for name in names:
        algorithm = key_ring.public(f'host-{name}', name).read_text().split()[0].replace('ssh-rsa', 'rsa-sha2-512')
        settings = [f'UserKnownHostsFile={known}', f'HostKeyAlgorithms={algorithm}']
        assert (await peers.ssh(target, 'echo in', options=settings).run_async()).stdout == b'in\n'


@pytest.mark.parametrize('first', ['ed25519', 'rsa'])
async def test_our_server_tells_openssh_its_keys(first: str, key_ring: KeyRing, tmp_path: Path) -> None:
    known = tmp_path / 'known'

    async def wait(process: Any) -> None:
        # The client learns while the session runs: it doesn't wait for the proof at its end.
        with contextlib.suppress(TimeoutError):
            await until(lambda: len(known.read_text().splitlines()) == len(KEY_TYPES))
        process.exit(0)

    settings = {'host_keys': tuple(KEY_TYPES), 'send_server_host_keys': True, 'process_factory': wait}
    async with our_server(key_ring, tmp_path / 'server', **settings) as target:
        known.write_text(key_line(key_ring, first, target.port))
        options = [f'UserKnownHostsFile={known}', 'UpdateHostKeys=yes', 'LogLevel=debug1']
        result = await peers.ssh(target, 'wait', options=options).run_async()
        assert len(known.read_text().splitlines()) == len(KEY_TYPES), result.stderr
        for name in KEY_TYPES:
            assert key_line(key_ring, name, target.port).split()[2] in known.read_text()


async def test_our_ends_and_a_key_that_goes(key_ring: KeyRing, tmp_path: Path) -> None:
    known, told = tmp_path / 'known', []

    async def handler(*lists: Any) -> None:
        told.append(lists)

    settings = {'host_keys': ('ed25519', 'rsa'), 'send_server_host_keys': True}
    async with our_server(key_ring, tmp_path / 'server', **settings) as target:
        lines = key_line(key_ring, 'ed25519', target.port), key_line(key_ring, 'ecdsa-256', target.port)
        known.write_text(''.join(lines))
        options = target.connect_options(known_hosts=str(known), server_host_keys_handler=handler)
        async with ssh_fast.connect(**options):
            await until(lambda: bool(told))
        assert known.read_text() == ''.join(lines), 'the file is changed only if asked'
        [(added, removed, retained, revoked)] = told
        assert [key.get_algorithm() for keys in (added, removed, retained) for key in keys] == [
            'ssh-rsa', 'ecdsa-sha2-nistp256', 'ssh-ed25519'
        ]
        assert revoked == []
        # Trusted by another way than known_hosts: nothing is learned.
        async with ssh_fast.connect(**{**options, 'known_hosts': None}) as connection:
            await connection.create_session(ssh_fast.SSHClientSession, subsystem='sftp', encoding=None)
        assert len(told) == 1


async def test_asyncssh_learns_our_keys(key_ring: KeyRing, tmp_path: Path) -> None:
    told: list[Any] = []
    settings = {'host_keys': ('ed25519', 'rsa'), 'send_server_host_keys': True}
    async with our_server(key_ring, tmp_path / 'server', **settings) as target:
        known = tmp_path / 'known'
        known.write_text(key_line(key_ring, 'ed25519', target.port))
        options = target.connect_options(known_hosts=str(known))
        handler = lambda *lists: told.append(lists)  # noqa: E731
        async with asyncssh.connect(**options, server_host_keys_handler=handler):
            await until(lambda: bool(told))
        assert [key.get_algorithm() for key in told[0][0]] == ['ssh-rsa']
    # AsyncSSH proves RSA keys with SHA-1: that one is not learned.
    async with asyncssh_server(
        key_ring, tmp_path / 'asyncssh', host_keys=('ed25519', 'rsa', 'ecdsa-256'), send_server_host_keys=True
    ) as target:
        known.write_text(key_line(key_ring, 'ed25519', target.port))
        told.clear()
        options = target.connect_options(known_hosts=str(known), server_host_keys_handler=handler)
        async with ssh_fast.connect(**options):
            await until(lambda: bool(told))
        assert [key.get_algorithm() for key in told[0][0]] == ['ecdsa-sha2-nistp256']


# --- new hosts


@pytest.mark.parametrize('hashed', [False, True])
async def test_a_new_host_is_written_down(hashed: bool, key_ring: KeyRing, tmp_path: Path) -> None:
    known = tmp_path / 'known'
    known.write_text('other ssh-ed25519 AAAA')
    async with our_server(key_ring, tmp_path / 'server', process_factory=show) as target:
        options = target.connect_options(known_hosts=str(known), hash_known_hosts=hashed)
        with pytest.raises(ssh_fast.HostKeyNotVerifiable):
            await ssh_fast.connect(**options)
        async with ssh_fast.connect(**options, strict_host_key_checking='accept-new'):
            pass
        lines = known.read_text().splitlines()
        assert len(lines) == 2 and lines[1].startswith('|1|' if hashed else f'[{LOOPBACK}]:{target.port} ssh-ed25519 ')
        async with ssh_fast.connect(**options):
            pass
        result = await peers.ssh(target, 'hello', options=[f'UserKnownHostsFile={known}']).run_async()
        assert result.stdout == b'hello'


async def test_a_changed_host_is_refused(key_ring: KeyRing, tmp_path: Path) -> None:
    known = tmp_path / 'known'
    async with our_server(key_ring, tmp_path / 'server') as target:
        for text in (
            key_line(key_ring, 'ed25519', target.port, 'old-host-key'),
            '@revoked * ' + key_line(key_ring, 'ed25519', target.port).split(None, 1)[1],
            '@cert-authority * ' + key_line(key_ring, 'ed25519', target.port, 'host-ca').split(None, 1)[1],
        ):
            known.write_text(text)
            options = target.connect_options(known_hosts=str(known), strict_host_key_checking='accept-new')
            with pytest.raises(ssh_fast.HostKeyNotVerifiable):
                await ssh_fast.connect(**options)
            assert known.read_text() == text


async def test_a_new_host_needs_a_file(key_ring: KeyRing, tmp_path: Path, monkeypatch: Any) -> None:
    async with our_server(key_ring, tmp_path / 'server') as target:
        options = target.connect_options(known_hosts=b'', strict_host_key_checking='accept-new')
        with pytest.raises(ValueError, match='known_hosts'):
            await ssh_fast.connect(**options)
        # By default it is the user's, which may not be there yet.
        monkeypatch.setenv('HOME', str(tmp_path))
        del options['known_hosts']
        async with ssh_fast.connect(**options):
            pass
        file = tmp_path / '.ssh/known_hosts'
        assert file.read_text() == key_line(key_ring, 'ed25519', target.port)
        assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        file.unlink()
        (tmp_path / '.ssh').rmdir()
        (tmp_path / '.ssh').write_text('in the way')
        with pytest.raises(ssh_fast.HostKeyNotVerifiable, match='cannot be added'):
            await ssh_fast.connect(**options)


# --- hosts that vouch for their users


class HostBased(ssh_fast.SSHServer):
    asked: list[Any]

    def validate_host_based_user(self, username: str, client_host: str, client_username: str) -> bool:
        self.asked.append((username, client_host, client_username))
        return username == client_username


@pytest.fixture
def vouching(key_ring: KeyRing) -> dict[str, Any]:
    known = f'client.example {key_ring.public("client-host", "ed25519").read_text()}'
    known += f'@cert-authority *.example {key_ring.public("host-ca", "ed25519").read_text()}'
    HostBased.asked = []
    return {
        'authorized_client_keys': None, 'known_client_hosts': known.encode(), 'trust_client_host': True,
        'server_factory': HostBased,
    }


CASES = {
    'right': ({}, True),
    'another name': ({'client_host': 'other.example'}, False),
    'another user': ({'client_username': 'mallory'}, False),
    'another key': ({'key': 'ed25519'}, False),
}


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('client', [ssh_fast, asyncssh], ids=['ours', 'asyncssh'])
async def test_host_based_login(case: str, client: Any, key_ring: KeyRing, vouching: Any, tmp_path: Path) -> None:
    changes, accepted = CASES[case]
    changes = dict(changes)
    key = key_ring.private(changes.pop('key', 'client-host'), 'ed25519')
    async with our_server(key_ring, tmp_path / 'server', **vouching) as target:
        options = target.connect_options(
            client_keys=None, client_host_keys=[str(key)],
            **{'client_host': 'client.example', 'client_username': USER, **changes},
        )
        if accepted:
            async with client.connect(**options) as connection:
                assert connection.get_extra_info('username') == USER
            assert HostBased.asked == [(USER, 'client.example', USER)]
        else:
            with pytest.raises(client.PermissionDenied):
                await client.connect(**options)


async def test_host_based_login_to_asyncssh(key_ring: KeyRing, vouching: Any, tmp_path: Path) -> None:
    vouching = {**vouching, 'server_factory': asyncssh.SSHServer}
    async with asyncssh_server(key_ring, tmp_path / 'asyncssh', **vouching) as target:
        keys = [str(key_ring.private('client-host', 'ed25519'))]
        options = target.connect_options(client_keys=None, client_host_keys=keys, client_host='client.example')
        async with ssh_fast.connect(**options):
            pass
        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(**{**options, 'client_host': 'other.example'})


async def test_a_host_certificate_vouches(key_ring: KeyRing, vouching: Any, tmp_path: Path) -> None:
    authority = ssh_fast.read_private_key(key_ring.private('host-ca', 'ed25519'))
    key = ssh_fast.read_private_key(key_ring.private('client-rsa', 'rsa'))
    async with our_server(key_ring, tmp_path / 'server', **vouching) as target:
        cases = ((['client.example'], True), (['*.example'], True), (['x.example'], False), ([], False))
        for principals, accepted in cases:
            cert = authority.generate_host_certificate(key, 'client', principals=principals)
            options = target.connect_options(
                client_keys=None, client_host_keys=[(key, cert)], client_host='client.example', client_username=USER
            )
            if accepted:
                async with ssh_fast.connect(**options):
                    pass
            else:
                with pytest.raises(ssh_fast.PermissionDenied):
                    await ssh_fast.connect(**options)


async def test_the_name_a_client_claims_is_not_believed(key_ring: KeyRing, vouching: Any, tmp_path: Path) -> None:
    """Without trust_client_host the name is what its address leads to, and leads back to it."""
    vouching = {**vouching, 'trust_client_host': False}
    options = {'client_keys': None, 'client_host_keys': [str(key_ring.private('client-host', 'ed25519'))]}
    async with our_server(key_ring, tmp_path / 'server', **vouching) as target:
        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(**target.connect_options(**options, client_host='client.example'))
    names = f'localhost,{LOOPBACK} {key_ring.public("client-host", "ed25519").read_text()}'.encode()
    vouching = {**vouching, 'known_client_hosts': names}
    async with our_server(key_ring, tmp_path / 'server', **vouching) as target:
        async with ssh_fast.connect(**target.connect_options(**options, client_username=USER)):
            pass
    assert HostBased.asked[-1][1] in ('localhost', LOOPBACK)


@pytest.mark.parametrize('lookup', [True, False])
async def test_names_of_clients_are_looked_up_if_asked(lookup: bool, key_ring: KeyRing, tmp_path: Path) -> None:
    if socket.getnameinfo((LOOPBACK, 0), 0)[0] != 'localhost':
        pytest.skip('the loopback address has another name than localhost here')
    lines = f'from="localhost" {key_ring.public("user", "ed25519").read_text()}'
    settings = {'authorized_client_keys': ssh_fast.import_authorized_keys(lines), 'rdns_lookup': lookup}
    async with our_server(key_ring, tmp_path / 'server', **settings) as target:
        connecting = ssh_fast.connect(**target.connect_options())
        if lookup:
            async with connecting:
                pass
        else:
            with pytest.raises(ssh_fast.PermissionDenied):
                await connecting


async def test_hosts_do_not_vouch_unless_asked(key_ring: KeyRing, vouching: Any, tmp_path: Path) -> None:
    options = {'client_keys': None, 'client_host_keys': [str(key_ring.private('client-host', 'ed25519'))]}
    for changes in ({'known_client_hosts': None}, {'host_based_auth': False}):
        async with our_server(key_ring, tmp_path / f'server-{len(changes)}', **{**vouching, **changes}) as target:
            with pytest.raises(ssh_fast.PermissionDenied) as refusal:
                await ssh_fast.connect(**target.connect_options(**options, client_host='client.example'))
            assert 'hostbased' not in str(refusal.value)




KEYSIGN = """#!/usr/bin/env python3
# What ssh-keysign does, with a key that it is given.
import socket, struct, sys
sys.path[:0] = {path!r}
import ssh_fast
data = sys.stdin.buffer.read()
size, version, fd, length = struct.unpack('>IBII', data[:13])
request = data[13:]
assert (size, version, length) == (len(data) - 4, 2, len(request)), data[:13]
assert socket.socket(fileno=fd).getpeername()[0] == {host!r}
if {refuses!r}:
    sys.exit('no, says keysign')
blob = ssh_fast.read_private_key({key!r}).sign(request, b'ssh-ed25519')
sys.stdout.buffer.write(struct.pack('>IBI', len(blob) + 5, 2, len(blob)) + blob)
"""


@pytest.mark.parametrize('refuses', [False, True])
async def test_keysign_signs(refuses: bool, key_ring: KeyRing, vouching: Any, tmp_path: Path, monkeypatch: Any) -> None:
    key, program = key_ring.private('client-host', 'ed25519'), tmp_path / 'keysign'
    text = KEYSIGN.format(path=sys.path, host=LOOPBACK, refuses=refuses, key=str(key))
    program.write_text(text.replace('#!/usr/bin/env python3', f'#!{sys.executable}'))
    program.chmod(0o755)
    monkeypatch.setattr(keysign.keysign_pairs, '__defaults__', ([tmp_path / 'missing', Path(f'{key}.pub')],))
    async with our_server(key_ring, tmp_path / 'server', **vouching) as target:
        options = target.connect_options(client_keys=None, client_host_keysign=program, client_host='client.example')
        if refuses:
            with pytest.raises(ssh_fast.PermissionDenied, match='no, says keysign'):
                await ssh_fast.connect(**options)
        else:
            async with ssh_fast.connect(**options):
                pass
            assert HostBased.asked == [(USER, 'client.example', USER)]


async def test_the_real_keysign_says_why(key_ring: KeyRing, vouching: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """It is there, and disabled as it is by default: its reason is in the error."""
    key, program = key_ring.private('client-host', 'ed25519'), find_program('ssh-keysign')
    monkeypatch.setattr(keysign.keysign_pairs, '__defaults__', ([Path(f'{key}.pub')],))
    async with our_server(key_ring, tmp_path / 'server', **vouching) as target:
        options = target.connect_options(client_keys=None, client_host_keysign=program, client_host='client.example')
        with pytest.raises(ssh_fast.PermissionDenied, match=r'ssh-keysign did not sign: \S+'):
            await ssh_fast.connect(**options)


class Vouched(OpenSSHServer):
    """An sshd that sees a home directory of its own in place of the user's, and believes the hosts named there."""

    def command(self, port: int) -> list[str]:
        home = pwd.getpwuid(os.getuid()).pw_dir
        move = f'mount --bind {shlex.quote(str(self._folder / "vouched"))} {shlex.quote(home)} && exec "$@"'
        return ['unshare', '-m', 'sh', '-c', move, 'sh', *super().command(port)]


def can_mount() -> bool:
    return os.getuid() == 0 and subprocess.run(['unshare', '-m', 'true'], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason='sshd reads who vouches from the home directory only: needs a mount of it')
@pytest.mark.parametrize('name', ['ed25519', 'rsa'])
async def test_openssh_believes_our_client(name: str, key_ring: KeyRing, tmp_path: Path) -> None:
    home = tmp_path / 'sshd' / 'vouched'
    (home / '.ssh').mkdir(parents=True)
    key = key_ring.private(f'client-host-{name}', name)
    (home / '.shosts').write_text(f'client.example {USER}\n')
    (home / '.ssh/known_hosts').write_text(f'client.example {Path(f"{key}.pub").read_text()}')
    lines = ['HostbasedAuthentication yes', 'IgnoreRhosts no', 'HostbasedUsesNameFromPacketOnly yes']
    with Vouched(key_ring, tmp_path / 'sshd', lines) as server:
        options = server.target.connect_options(client_keys=None, client_host_keys=[str(key)])
        async with ssh_fast.connect(**options, client_host='client.example') as connection:
            assert (await connection.run('echo in', check=True)).stdout == 'in\n'
        others = {'client_host': 'other.example'}, {'client_username': 'mallory', 'client_host': 'client.example'}
        for changes in others:
            with pytest.raises(ssh_fast.PermissionDenied):
                await ssh_fast.connect(**options, **changes)


@pytest.fixture
def own_host(key_ring: KeyRing, tmp_path: Path) -> list[str]:
    """A command line in front of a program of OpenSSH that has it see a host key and a configuration of ours."""
    if not can_mount():
        pytest.skip('ssh-keysign reads the host keys of /etc/ssh only: needs a mount of it')
    folder = tmp_path / 'etc-ssh'
    folder.mkdir()
    key = key_ring.private('client-host', 'ed25519')
    (folder / 'ssh_host_ed25519_key').write_bytes(key.read_bytes())
    (folder / 'ssh_host_ed25519_key').chmod(0o600)
    (folder / 'ssh_host_ed25519_key.pub').write_bytes(Path(f'{key}.pub').read_bytes())
    (folder / 'ssh_config').write_text('EnableSSHKeysign yes\nHostbasedAuthentication yes\n')
    return ['unshare', '-m', 'sh', '-c', f'mount --bind {shlex.quote(str(folder))} /etc/ssh && exec "$@"', 'sh']


async def test_our_server_believes_openssh(
    own_host: list[str], key_ring: KeyRing, vouching: Any, tmp_path: Path
) -> None:
    known = f'localhost,{LOOPBACK} {key_ring.public("client-host", "ed25519").read_text()}'.encode()
    for trust in (True, False):
        settings = {**vouching, 'known_client_hosts': known, 'trust_client_host': trust, 'process_factory': show}
        async with our_server(key_ring, tmp_path / f'server-{trust}', **settings) as target:
            options = ['HostbasedAuthentication=yes', 'PreferredAuthentications=hostbased', 'IdentityFile=none']
            command = peers.ssh(target, 'hello', options=options)
            result = await dataclasses.replace(command, argv=[*own_host, *command.argv]).run_async()
            assert result.stdout == b'hello'
            assert HostBased.asked[-1][0] == HostBased.asked[-1][2] == USER


async def test_the_real_keysign_signs(
    own_host: list[str], key_ring: KeyRing, vouching: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    program = tmp_path / 'keysign'
    program.write_text(f'#!/bin/sh\nexec {shlex.join([*own_host, find_program("ssh-keysign")])}\n')
    program.chmod(0o755)
    public = key_ring.public('client-host', 'ed25519')
    monkeypatch.setattr(keysign.keysign_pairs, '__defaults__', ([public],))
    settings = {**vouching, 'known_client_hosts': f'* {public.read_text()}'.encode()}
    async with our_server(key_ring, tmp_path / 'server', **settings) as target:
        options = target.connect_options(client_keys=None, client_host_keysign=program)
        async with ssh_fast.connect(**options):
            pass
        with pytest.raises(ssh_fast.PermissionDenied, match='did not sign'):
            await ssh_fast.connect(**options, client_host='another.example')
