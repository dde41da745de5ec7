"""Servers that pass their client on to sshd, and connections that a server hands to its client, with other programs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh

import ssh_fast
from tests.connection.test_forwarding import echo, exchange
from tests.connection.test_server_connections import Handing, Listener
from tests.connection.test_tunnels import OPTIONS
from tests.interop import peers
from tests.interop.ours import MIB, our_server
from tests.interop.peers import LOOPBACK, Command, KeyRing, OpenSSHServer, Target
from tests.interop.test_jump import Gate


@contextlib.asynccontextmanager
async def passing_on(key_ring: KeyRing, folder: Path, sshd: Target) -> AsyncIterator[Target]:
    """A server of ours that has sshd do everything for its clients."""
    async with ssh_fast.connect(**sshd.connect_options()) as there:

        class Passing(Gate):
            def session_requested(self) -> Any:
                return there

            def connection_requested(self, *where: Any) -> Any:
                return there

            def server_requested(self, *where: Any) -> Any:
                return there

        async with our_server(key_ring, folder, server_factory=Passing, sftp_factory=None) as target:
            yield target


async def test_openssh_client_through_us_to_sshd(
    key_ring: KeyRing, openssh_server: OpenSSHServer, tmp_path: Path
) -> None:
    data = bytes(range(256)) * (4 * MIB // 256)
    async with passing_on(key_ring, tmp_path / 'us', openssh_server.target) as us:
        assert (await peers.ssh(us, 'cat', stdin=data).run_async()).stdout == data
        result = await peers.ssh(us, 'echo error >&2; exit 7').run_async(check=False)
        assert (result.status, result.stderr) == (7, 'error\n')
        result = await peers.ssh(us, 'tty; stty size', options=['RequestTTY=force']).run_async(check=False)
        assert b'/dev/pts/' in result.stdout
        (tmp_path / 'file').write_bytes(data)
        await peers.sftp(us, f'get {tmp_path}/file {tmp_path}/copy').run_async()
        assert (tmp_path / 'copy').read_bytes() == data

        there = await asyncio.start_server(echo, LOOPBACK, 0)
        port = there.sockets[0].getsockname()[1]
        command = peers.ssh(us, stdin=data)
        argv = [*command.argv[:-1], '-W', f'{LOOPBACK}:{port}', command.argv[-1]]
        assert (await Command(argv, data).run_async()).stdout == data

        forwarded = peers.free_port()
        argv = [*command.argv[:-1], '-R', f'{forwarded}:{LOOPBACK}:{port}', command.argv[-1], 'read line']
        client = await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.PIPE)
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    await exchange(*await asyncio.open_connection(LOOPBACK, forwarded), 300_000)
                    break
                await asyncio.sleep(0.1)
        client.stdin.write(b'\n')
        assert await client.wait() == 0
        there.close()


async def test_asyncssh_client_through_us_to_sshd(
    key_ring: KeyRing, openssh_server: OpenSSHServer, tmp_path: Path
) -> None:
    data = bytes(range(256)) * (4 * MIB // 256)
    async with passing_on(key_ring, tmp_path / 'us', openssh_server.target) as us:
        async with asyncssh.connect(**us.connect_options()) as conn:
            assert (await conn.run('cat', input=data, encoding=None)).stdout == data
            result = await conn.run('kill -TERM $$')
            assert result.exit_signal[0] == 'TERM'
            process = await conn.create_process('cat', term_type='xterm', term_size=(90, 30))
            process.stdin.write('text\n')
            assert await process.stdout.readline() in ('text\n', 'text\r\n')
            process.close()


async def test_our_server_hands_connections_to_their_client() -> None:
    settings: dict[str, Any] = {
        'server_host_keys': [ssh_fast.generate_private_key('ssh-ed25519')], 'server_factory': Handing,
    }
    async with ssh_fast.listen(LOOPBACK, 0, **settings) as acceptor:
        async with asyncssh.connect(LOOPBACK, acceptor.get_port(), **OPTIONS) as conn:
            async with await conn.start_server(lambda host, port: echo, 'name', 22):
                await exchange(*await Handing.last.open_connection('name', 22, 'from', 5), 300_000)
            async with await conn.start_unix_server(lambda: echo, '/path'):
                await exchange(*await Handing.last.open_unix_connection('/path'), 300_000)


async def test_their_server_hands_connections_to_our_client() -> None:
    class Theirs(asyncssh.SSHServer):
        made: Any = None

        def connection_made(self, conn: Any) -> None:
            Theirs.made = conn

        def begin_auth(self, username: str) -> bool:
            return False

        def server_requested(self, host: str, port: int) -> Any:
            class Theirs(Listener, asyncssh.SSHListener):
                pass

            return Theirs(port)

    key = asyncssh.generate_private_key('ssh-ed25519')
    async with await asyncssh.listen(LOOPBACK, 0, server_host_keys=[key], server_factory=Theirs) as acceptor:
        async with ssh_fast.connect(LOOPBACK, acceptor.get_port(), **OPTIONS) as conn:
            async with conn.start_server(lambda host, port: echo, 'name', 22):
                await exchange(*await Theirs.made.open_connection('name', 22), 300_000)
