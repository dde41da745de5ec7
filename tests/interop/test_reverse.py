"""The reverse direction with AsyncSSH: its server connects to our client, ours to its, also through other servers."""

import asyncio
from pathlib import Path
from typing import Any

import asyncssh

import ssh_fast
from tests.connection.test_tunnels import Cat, server, use
from tests.interop.ours import MIB
from tests.interop.peers import LOOPBACK, KeyRing, OpenSSHServer

DATA = bytes(range(256)) * (4 * MIB // 256)


async def cat(process: Any) -> None:
    process.stdout.write(await process.stdin.read())
    process.exit(0)


def both(ring: KeyRing, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what client and server are given, of either library."""
    hosts = folder / 'hosts'
    hosts.write_text(f'{LOOPBACK},friend {ring.public("host", "ed25519").read_text()}')
    key = str(ring.private('user', 'ed25519'))
    client = {'known_hosts': str(hosts), 'client_keys': [key], 'username': 'user', 'config': None, 'agent_path': None}
    return client, {
        'server_host_keys': [str(ring.private('host', 'ed25519'))],
        'authorized_client_keys': str(ring.public('user', 'ed25519')),
    }


async def test_their_server_connects_to_our_client(key_ring: KeyRing, tmp_path: Path) -> None:
    client, serving = both(key_ring, tmp_path)
    came: asyncio.Queue[Any] = asyncio.Queue()
    async with ssh_fast.listen_reverse(LOOPBACK, 0, acceptor=came.put, **client) as acceptor:
        conn = await asyncssh.connect_reverse(
            LOOPBACK, acceptor.get_port(), process_factory=cat, encoding=None, **serving
        )
        async with await came.get() as ours:
            assert (await ours.run('cat', input=DATA, encoding=None, check=True)).stdout == DATA
        await conn.wait_closed()


async def test_our_server_connects_to_their_client(key_ring: KeyRing, tmp_path: Path) -> None:
    client, serving = both(key_ring, tmp_path)
    came: asyncio.Queue[Any] = asyncio.Queue()
    acceptor = await asyncssh.listen_reverse(LOOPBACK, 0, acceptor=came.put, **client)
    async with ssh_fast.connect_reverse(
        LOOPBACK, acceptor.get_port(), process_factory=cat, encoding=None, **serving
    ) as conn:
        theirs = await came.get()
        result = await theirs.run('cat', input=DATA, encoding=None, check=True)
        assert result.stdout == DATA
        theirs.close()
        await conn.wait_closed()
    acceptor.close()


async def test_through_sshd_in_both_directions(
    key_ring: KeyRing, openssh_server: OpenSSHServer, tmp_path: Path
) -> None:
    """A server of ours listens on sshd's side; another connects by way of sshd to a client that listens there."""
    client, serving = both(key_ring, tmp_path)
    came: asyncio.Queue[Any] = asyncio.Queue()
    alias = {**client, 'host_key_alias': 'friend'}
    async with ssh_fast.connect(**openssh_server.target.connect_options()) as outer:
        async with outer.listen_ssh(LOOPBACK, 0, process_factory=cat, encoding=None, **serving) as acceptor:
            theirs = {**client, 'known_hosts': None}
            async with asyncssh.connect(LOOPBACK, acceptor.get_port(), **theirs) as conn:
                assert (await conn.run('cat', input=DATA, encoding=None, check=True)).stdout == DATA
        async with outer.listen_reverse_ssh(LOOPBACK, 0, acceptor=came.put, **alias) as acceptor:
            async with outer.connect_reverse_ssh(
                LOOPBACK, acceptor.get_port(), process_factory=cat, encoding=None, **serving
            ):
                async with await came.get() as ours:
                    assert (await ours.run('cat', input=DATA, encoding=None, check=True)).stdout == DATA


async def test_their_connections_inside_of_one_through_our_server(key_ring: KeyRing, tmp_path: Path) -> None:
    """AsyncSSH listens by way of our server, as a server and as a client."""
    client, serving = both(key_ring, tmp_path)
    came: asyncio.Queue[Any] = asyncio.Queue()
    options = {'known_hosts': None, 'username': 'user', 'config': None, 'client_keys': None, 'agent_path': None}
    async with server(server_factory=Cat) as gate, asyncssh.connect(LOOPBACK, gate, **options) as outer:
        acceptor = await outer.listen_ssh(LOOPBACK, 0, process_factory=cat, encoding=None, **serving)
        async with ssh_fast.connect(LOOPBACK, acceptor.get_port(), **{**client, 'known_hosts': None}) as conn:
            await use(conn)
        acceptor.close()
        acceptor = await outer.listen_reverse_ssh(
            LOOPBACK, 0, acceptor=came.put, **{**client, 'known_hosts': None}
        )
        async with ssh_fast.connect_reverse(
            LOOPBACK, acceptor.get_port(), process_factory=cat, encoding=None, **serving
        ):
            theirs = await came.get()
            assert (await theirs.run('cat', input=DATA, encoding=None, check=True)).stdout == DATA
            theirs.close()
        acceptor.close()
