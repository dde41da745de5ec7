"""Forwarding between us and others: our client through sshd and AsyncSSH, `ssh` and AsyncSSH through our server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

import ssh_fast
from tests.connection.test_forwarding import Permissive, echo, echo_port, exchange
from tests.interop import peers
from tests.interop.ours import MIB, our_server
from tests.interop.peers import LOOPBACK, KeyRing, OpenSSHServer, Target, free_port


class Forwarding(Permissive):
    """Forwards everything for who has the key."""

    def begin_auth(self, username: str) -> bool:
        return True


async def use_port(port: int, size: int = 3 * MIB) -> None:
    await exchange(*await asyncio.open_connection(LOOPBACK, port), size)


async def use_path(path: str, size: int = 3 * MIB) -> None:
    await exchange(*await asyncio.open_unix_connection(path), size)


async def use_all(conn: Any, port: int, folder: Path) -> None:
    """Forward in every way over a client's connection, whoever's it is."""
    target = str(folder / 'target')
    server = await asyncio.start_unix_server(echo, target)
    async with conn.forward_local_port(LOOPBACK, 0, LOOPBACK, port) as listener:
        await asyncio.gather(*(use_port(listener.get_port()) for _ in range(4)))
    async with conn.forward_remote_port(LOOPBACK, 0, LOOPBACK, port) as listener:
        await asyncio.gather(*(use_port(listener.get_port()) for _ in range(4)))
    for make, name in ((conn.forward_local_path, 'local'), (conn.forward_remote_path, 'remote')):
        async with make(str(folder / name), target):
            await use_path(str(folder / name))
    await exchange(*await conn.open_connection(LOOPBACK, port), MIB)
    with pytest.raises((ssh_fast.ChannelOpenError, asyncssh.ChannelOpenError)):
        await conn.open_connection(LOOPBACK, free_port())
    server.close()


async def test_our_client_through_sshd(openssh_server: OpenSSHServer, tmp_path: Path) -> None:
    async with echo_port() as port, ssh_fast.connect(**openssh_server.target.connect_options()) as conn:
        await use_all(conn, port, tmp_path)


async def test_our_client_through_a_rekeying_sshd(start_openssh: Any, tmp_path: Path) -> None:
    target = start_openssh(['RekeyLimit 1M']).target
    async with echo_port() as port, ssh_fast.connect(**target.connect_options()) as conn:
        await use_all(conn, port, tmp_path)


async def test_a_port_that_sshd_refuses_to_listen_on(start_openssh: Any) -> None:
    target = start_openssh(['AllowTcpForwarding no', 'AllowStreamLocalForwarding no']).target
    async with ssh_fast.connect(**target.connect_options()) as conn:
        with pytest.raises(ssh_fast.ChannelListenError):
            await conn.forward_remote_port(LOOPBACK, 0, LOOPBACK, 1)
        with pytest.raises(ssh_fast.ChannelOpenError) as caught:
            await conn.open_connection(LOOPBACK, 1)
        assert caught.value.code == ssh_fast.OPEN_ADMINISTRATIVELY_PROHIBITED


async def test_asyncssh_through_our_server(key_ring: KeyRing, tmp_path: Path) -> None:
    async with our_server(key_ring, tmp_path / 'ours', server_factory=Forwarding) as target, echo_port() as port:
        async with asyncssh.connect(**target.connect_options()) as conn:
            await use_all(conn, port, tmp_path)


async def test_our_client_through_asyncssh(key_ring: KeyRing, tmp_path: Path) -> None:
    class Server(asyncssh.SSHServer):
        connection_requested = unix_connection_requested = lambda self, *where: True
        server_requested = unix_server_requested = lambda self, *where: True

    async with asyncssh.listen(
        LOOPBACK,
        0,
        server_host_keys=[str(key_ring.private('host-ed25519', 'ed25519'))],
        authorized_client_keys=str(key_ring.public('user', 'ed25519')),
        server_factory=Server,
    ) as server:
        known = Path(f'{key_ring.private("host-ed25519", "ed25519")}.pub')
        target = peers.make_target(key_ring, tmp_path / 'asyncssh', server.get_port(), [known])
        async with echo_port() as port, ssh_fast.connect(**target.connect_options()) as conn:
            await use_all(conn, port, tmp_path)


@contextlib.asynccontextmanager
async def openssh_client(target: Target, *flags: str) -> AsyncIterator[None]:
    """Run `ssh -N` with its forwardings until the block ends."""
    argv = peers.ssh(target, options=['ExitOnForwardFailure=yes']).argv
    process = await asyncio.create_subprocess_exec(*argv[:-1], '-N', *flags, argv[-1])
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def web_port() -> AsyncIterator[int]:
    """Serve one page of 3 MiB."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'\r\n\r\n')
        writer.write(b'HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n' % (3 * MIB) + bytes(3 * MIB))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def when_it_listens(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(LOOPBACK, port)
                writer.close()
                return
            await asyncio.sleep(0.05)


async def test_ssh_through_our_server(key_ring: KeyRing, tmp_path: Path) -> None:
    local, remote, dynamic = free_port(), free_port(), free_port()
    here, there, path = (str(tmp_path / name) for name in ('here', 'there', 'target'))
    unix = await asyncio.start_unix_server(echo, path)
    async with our_server(key_ring, tmp_path / 'ours', server_factory=Forwarding) as target, echo_port() as port:
        async with openssh_client(
            target,
            *('-L', f'{LOOPBACK}:{local}:{LOOPBACK}:{port}', '-R', f'{LOOPBACK}:{remote}:{LOOPBACK}:{port}'),
            *('-L', f'{here}:{path}', '-R', f'{there}:{path}', '-D', f'{LOOPBACK}:{dynamic}'),
        ):
            for number in (local, remote):
                await when_it_listens(number)
                await asyncio.gather(*(use_port(number) for _ in range(4)))
            for name in (here, there):
                await use_path(name)
            async with web_port() as web:
                argv = ['curl', '-sSf', '--socks5-hostname', f'{LOOPBACK}:{dynamic}', f'http://localhost:{web}/']
                assert (await peers.Command(argv).run_async()).stdout == bytes(3 * MIB)
    unix.close()


async def test_curl_through_our_tunnel(openssh_server: OpenSSHServer) -> None:
    async with web_port() as port, ssh_fast.connect(**openssh_server.target.connect_options()) as conn:
        async with conn.forward_local_port('localhost', 0, LOOPBACK, port) as listener:
            command = peers.Command(['curl', '-sSf', f'http://localhost:{listener.get_port()}/'])
            assert (await command.run_async()).stdout == bytes(3 * MIB)
