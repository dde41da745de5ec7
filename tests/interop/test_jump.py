"""Jump hosts: our client through two sshds, and `ssh -J` through our server."""

from pathlib import Path

import ssh_fast
from tests.connection.test_forwarding import Permissive
from tests.interop import peers
from tests.interop.ours import MIB, our_server
from tests.interop.peers import LOOPBACK, KeyRing, OpenSSHServer


class Gate(Permissive):
    """Forwards everything for who has the key."""

    def begin_auth(self, username: str) -> bool:
        return True


async def test_our_client_through_two_sshds(key_ring: KeyRing, openssh_server: OpenSSHServer, tmp_path: Path) -> None:
    with OpenSSHServer(key_ring, tmp_path / 'inner', ['RekeyLimit 1M']) as inner:
        gate = openssh_server.target
        hosts = tmp_path / 'hosts'
        hosts.write_text(gate.known_hosts.read_text() + inner.target.known_hosts.read_text())
        config = tmp_path / 'config'
        config.write_text(
            f'UserKnownHostsFile {hosts}\nIdentityFile {gate.key}\nUser {gate.user}\n'
            f'Host inside\n HostName {LOOPBACK}\n Port {inner.target.port}\n ProxyJump {LOOPBACK}:{gate.port}\n'
        )
        data = bytes(range(256)) * (8 * MIB // 256)
        async with ssh_fast.connect('inside', config=str(config), agent_path=None) as conn:
            assert (await conn.run('cat', input=data, encoding=None, check=True)).stdout == data
        async with ssh_fast.connect(**gate.connect_options()) as outer:
            async with ssh_fast.connect(tunnel=outer, **inner.target.connect_options()) as conn:
                assert (await conn.run('cat', input=data, encoding=None, check=True)).stdout == data


async def test_ssh_through_our_server(key_ring: KeyRing, openssh_server: OpenSSHServer, tmp_path: Path) -> None:
    inner = openssh_server.target
    async with our_server(key_ring, tmp_path / 'gate', server_factory=Gate) as gate:
        config = tmp_path / 'config'
        hosts = tmp_path / 'hosts'
        hosts.write_text(gate.known_hosts.read_text() + inner.known_hosts.read_text())
        config.write_text(
            f'UserKnownHostsFile {hosts}\nIdentityFile {inner.key}\nUser {inner.user}\nBatchMode yes\n'
            'StrictHostKeyChecking yes\nIdentitiesOnly yes\n'
        )
        argv = ['ssh', '-F', str(config), '-J', f'{LOOPBACK}:{gate.port}', '-p', str(inner.port), LOOPBACK, 'cat']
        data = bytes(range(256)) * (4 * MIB // 256)
        assert (await peers.Command(argv, data).run_async()).stdout == data
