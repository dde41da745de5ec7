"""Forwarding with Dropbear: its client through our server, and our client through its server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import ssh_fast
from tests.connection.test_forwarding import MIB, echo, echo_port, exchange
from tests.interop import peers
from tests.interop.dropbear import DropbearServer
from tests.interop.ours import our_server
from tests.interop.peers import LOOPBACK, KeyRing, OpenSSHServer, Target, free_port
from tests.interop.test_forwarding import when_it_listens
from tests.interop.test_jump import Gate

SIZES = (0, 1, 100_000, 4 * MIB)
DATA = bytes(range(256)) * (4 * MIB // 256)


@contextlib.asynccontextmanager
async def dropbear_client(target: Target, *flags: str) -> AsyncIterator[None]:
    """Run `dbclient -N` with its forwardings until the block ends."""
    command = peers.dbclient(target, flags=('-N', *flags))
    process = await asyncio.create_subprocess_exec(
        *command.argv, stdin=asyncio.subprocess.DEVNULL, env={**peers.plain_environment(), **command.environment}
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def test_their_client_through_our_server(key_ring: KeyRing, tmp_path: Path) -> None:
    local, remote = free_port(), free_port()
    async with our_server(key_ring, tmp_path / 'ours', server_factory=Gate) as target, echo_port() as port:
        async with dropbear_client(
            target, '-L', f'{LOOPBACK}:{local}:{LOOPBACK}:{port}', '-R', f'{LOOPBACK}:{remote}:{LOOPBACK}:{port}'
        ):
            for number in (local, remote):
                await when_it_listens(number)
                for size in SIZES:
                    await exchange(*await asyncio.open_connection(LOOPBACK, number), size)
                await asyncio.gather(
                    *[exchange(*await asyncio.open_connection(LOOPBACK, number), 300_000, seed) for seed in range(8)]
                )
        through = peers.dbclient(target, flags=('-B', f'{LOOPBACK}:{port}'), stdin=DATA)
        assert (await through.run_async()).stdout == DATA


async def test_their_client_jumps_over_our_server(
    key_ring: KeyRing, openssh_server: OpenSSHServer, tmp_path: Path
) -> None:
    inner = openssh_server.target
    async with our_server(key_ring, tmp_path / 'ours', server_factory=Gate) as gate:
        command = peers.dbclient(gate, 'cat', stdin=DATA)
        options = command.argv[: command.argv.index(gate.host)]
        argv = [*options, f'{gate.user}@{gate.host}/{gate.port},{inner.user}@{inner.host}/{inner.port}', 'cat']
        assert (await peers.Command(argv, DATA, command.environment).run_async()).stdout == DATA

        # -J is a command that stands in for the socket: one more of these.
        first = ' '.join(peers.dbclient(gate, flags=('-B', f'{inner.host}:{inner.port}')).argv)
        last = peers.dbclient(inner, 'cat', flags=('-J', first), stdin=DATA)
        assert (await last.run_async()).stdout == DATA


@pytest.fixture
def dropbear(key_ring: KeyRing, tmp_path: Path) -> Iterator[Target]:
    with DropbearServer(key_ring, tmp_path / 'dropbear') as server:
        yield server.target


async def test_our_client_through_their_server(dropbear: Target) -> None:
    async with echo_port() as port, ssh_fast.connect(**dropbear.connect_options()) as conn:
        async with conn.forward_local_port(LOOPBACK, 0, LOOPBACK, port) as listener:
            for size in SIZES:
                await exchange(*await asyncio.open_connection(LOOPBACK, listener.get_port()), size)
            await asyncio.gather(
                *[
                    exchange(*await asyncio.open_connection(LOOPBACK, listener.get_port()), 300_000, seed)
                    for seed in range(8)
                ]
            )
        number = free_port()
        async with conn.forward_remote_port(LOOPBACK, number, LOOPBACK, port):
            for size in SIZES:
                await exchange(*await asyncio.open_connection(LOOPBACK, number), size)
        async with conn.start_server(lambda host, orig_port: echo, LOOPBACK, 0) as listener:
            await exchange(*await asyncio.open_connection(LOOPBACK, listener.get_port()), 300_000)
        async with conn.forward_socks(LOOPBACK, 0) as listener:
            reader, writer = await asyncio.open_connection(LOOPBACK, listener.get_port())
            writer.write(b'\4\1' + port.to_bytes(2, 'big') + b'\x7f\0\0\1\0')
            assert (await reader.readexactly(8))[1] == 90
            await exchange(reader, writer, 300_000)
        with pytest.raises(ssh_fast.ChannelOpenError):
            await conn.open_connection(LOOPBACK, 1)


async def test_our_client_jumps_over_their_server(dropbear: Target, openssh_server: OpenSSHServer) -> None:
    inner = openssh_server.target
    async with ssh_fast.connect(**dropbear.connect_options()) as outer:
        async with ssh_fast.connect(tunnel=outer, **inner.connect_options()) as conn:
            assert (await conn.run('cat', input=DATA, encoding=None, check=True)).stdout == DATA


async def test_a_server_of_theirs_that_forwards_nothing(key_ring: KeyRing, tmp_path: Path) -> None:
    with DropbearServer(key_ring, tmp_path / 'dropbear', ['-j', '-k']) as server:
        async with ssh_fast.connect(**server.target.connect_options()) as conn:
            with pytest.raises(ssh_fast.ChannelOpenError):
                await conn.open_connection(LOOPBACK, server.target.port)
            with pytest.raises(ssh_fast.ChannelListenError):
                await conn.forward_remote_port(LOOPBACK, 0, LOOPBACK, 1)
            assert (await conn.run('echo lives')).stdout == 'lives\n'
