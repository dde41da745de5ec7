"""One configuration file for two clients, and one for two servers: OpenSSH and we come to the same connections."""

import asyncio
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from tests.interop import peers
from tests.interop.peers import LOOPBACK, Command, KeyRing, OpenSSHServer, Target, find_program

USER = peers.user_name()


def client_config(folder: Path, target: Target) -> Path:
    path = folder / 'ssh_config'
    path.write_text(f"""
        Host box inner
          HostName {LOOPBACK}
          Port {target.port}
        Host proxied
          ProxyCommand {find_program('ssh')} -F {path} -W %h:%p inner
          HostName {LOOPBACK}
          Port {target.port}
        Match originalhost box,proxied exec "test %r = {target.user}"
          SetEnv SHOWN="two  words"
        Host *
          User {target.user}
          IdentityFile {target.key}
          IdentitiesOnly yes
          IdentityAgent none
          UserKnownHostsFile {target.known_hosts}
          GlobalKnownHostsFile none
          BatchMode yes
          Ciphers ^aes256-ctr
          ConnectTimeout 20s
        """)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize('host', ['box', 'proxied'])
async def test_a_file_of_openssh_leads_us_where_it_leads_its_client(
    host: str, start_openssh: Callable[..., OpenSSHServer], tmp_path: Path
) -> None:
    target = start_openssh(['AcceptEnv SHOWN']).target
    path = client_config(tmp_path, target)
    command = 'echo "$SHOWN"; echo "$SSH_CONNECTION"'
    theirs = await asyncio.to_thread(Command([find_program('ssh'), '-F', str(path), host, command]).run)

    async with ssh_fast.connect(host, config=path) as conn:
        assert conn.get_extra_info('send_cipher') == 'aes256-ctr'
        ours = await conn.run(command, check=True)
    assert str(ours.stdout).splitlines()[0] == 'two  words'
    assert theirs.stdout.decode().splitlines()[0] == 'two  words'
    assert str(ours.stdout).split()[-2:] == theirs.stdout.decode().split()[-2:] == [LOOPBACK, str(target.port)]


async def test_a_file_of_sshd_lets_the_same_clients_in(
    key_ring: KeyRing, start_openssh: Callable[..., OpenSSHServer], tmp_path: Path
) -> None:
    """The user has a key, and is let in from this address; under another name there is none."""
    (tmp_path / 'keys').mkdir()
    (tmp_path / 'keys' / USER).write_bytes(key_ring.public('user', 'ed25519').read_bytes())
    (tmp_path / 'keys' / USER).chmod(0o600)
    # The blocks of a file that is included end with it.
    (tmp_path / 'rules').write_text(f"""
        AuthorizedKeysFile {tmp_path}/keys/%u
        PubkeyAuthentication no
        Match Address 127.0.0.0/8 User {USER}
          PubkeyAuthentication yes
        """)
    (tmp_path / 'rules').chmod(0o600)
    lines = [f'Include {tmp_path}/rules']
    path = tmp_path / 'sshd_config'
    path.write_text('\n'.join([f'HostKey {key_ring.private("host-ed25519", "ed25519")}', *lines, '']))

    async def show(process: Any) -> None:
        process.exit(0)

    theirs = start_openssh(lines).target
    async with ssh_fast.listen(LOOPBACK, 0, config=path, process_factory=show) as server:
        ours = peers.make_target(
            key_ring, tmp_path / 'ours', server.get_port(), [key_ring.public('host-ed25519', 'ed25519')]
        )
        for target in (theirs, ours):
            result = await asyncio.to_thread(peers.ssh(target, 'true').run)
            assert result.status == 0
        other = next(entry.pw_name for entry in pwd.getpwall() if entry.pw_name != USER)
        for target in (theirs, ours):
            refused = await asyncio.to_thread(
                peers.ssh(target, 'true', options=[f'User={other}']).run, check=False
            )
            assert (refused.status, 'Permission denied' in refused.stderr) == (255, True)
