"""A database behind our tunnels: Redis, with its own clients, values and load."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from tests.interop.ours import MIB, our_server
from tests.interop.peers import LOOPBACK, Command, KeyRing, OpenSSHServer, find_program, free_port
from tests.interop.test_forwarding import openssh_client, when_it_listens
from tests.interop.test_jump import Gate

Redis = tuple[int, str]
Flags = Sequence[str]


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Redis]:
    """Redis on a port and a UNIX socket, in memory only."""
    port, path = free_port(), str(tmp_path / 'redis.sock')
    argv = [find_program('redis-server'), '--port', str(port), '--bind', LOOPBACK, '--unixsocket', path]
    argv += ['--save', '', '--appendonly', 'no', '--dir', str(tmp_path), '--logfile', str(tmp_path / 'log')]
    process = await asyncio.create_subprocess_exec(*argv)
    try:
        await when_it_listens(port)
        yield port, path
    finally:
        process.terminate()
        await process.wait()


async def cli(where: Flags, *arguments: str, stdin: bytes = b'') -> bytes:
    """Run redis-cli."""
    return (await Command([find_program('redis-cli'), *where, *arguments], stdin).run_async()).stdout


async def use(where: Flags) -> None:
    """Keep and fetch large values, send thousands of commands at once, and wait for a message."""
    value = os.urandom(8 * MIB)
    assert await cli(where, '-x', 'set', 'large', stdin=value) == b'OK\n'
    assert await cli(where, 'get', 'large') == value + b'\n'
    commands = b''.join(b'SET key%d %d\r\n' % (number, number) for number in range(20_000))
    assert b'errors: 0, replies: 20000' in await cli(where, '--pipe', stdin=commands)
    assert await cli(where, 'get', 'key19999') == b'19999\n'

    subscriber = await asyncio.create_subprocess_exec(
        find_program('redis-cli'), *where, 'subscribe', 'news', stdout=asyncio.subprocess.PIPE
    )
    assert subscriber.stdout
    assert b'subscribe' in await subscriber.stdout.readline()
    assert await cli(where, 'publish', 'news', 'something happened') == b'1\n'
    async with asyncio.timeout(10):
        while b'something happened' not in await subscriber.stdout.readline():
            pass
    subscriber.terminate()
    await subscriber.wait()

    # A pool of 50 connections, by Redis's own measure of speed.
    flags = ['-n', '20000', '-c', '50', '-P', '8', '-d', '1000', '-t', 'set,get', '--csv']
    result = await Command([find_program('redis-benchmark'), *where, *flags]).run_async()
    assert b'"SET"' in result.stdout and b'"GET"' in result.stdout and 'rror' not in result.stderr


@contextlib.asynccontextmanager
async def to_sshd(ring: KeyRing, sshd: OpenSSHServer, folder: Path) -> AsyncIterator[Any]:
    async with ssh_fast.connect(**sshd.target.connect_options()) as conn:
        yield conn


@contextlib.asynccontextmanager
async def to_ours(ring: KeyRing, sshd: OpenSSHServer, folder: Path) -> AsyncIterator[Any]:
    async with our_server(ring, folder / 'ours', server_factory=Gate) as target:
        async with ssh_fast.connect(**target.connect_options()) as conn:
            yield conn


@contextlib.asynccontextmanager
async def over_ours_to_sshd(ring: KeyRing, sshd: OpenSSHServer, folder: Path) -> AsyncIterator[Any]:
    async with to_ours(ring, sshd, folder) as outer:
        async with ssh_fast.connect(tunnel=outer, **sshd.target.connect_options()) as conn:
            yield conn


@pytest.mark.parametrize('connect', [to_sshd, to_ours, over_ours_to_sshd])
@pytest.mark.parametrize('kind', ['port', 'path', 'remote'])
async def test_redis_through_our_client(
    connect: Callable[..., Any],
    kind: str,
    redis: Redis,
    key_ring: KeyRing,
    openssh_server: OpenSSHServer,
    tmp_path: Path,
) -> None:
    port, path = redis
    async with connect(key_ring, openssh_server, tmp_path) as conn:
        if kind == 'path':
            here = str(tmp_path / 'here')
            async with conn.forward_local_path(here, path):
                await use(['-s', here])
        else:
            forward = conn.forward_local_port if kind == 'port' else conn.forward_remote_port
            async with forward(LOOPBACK, 0, LOOPBACK, port) as listener:
                await use(['-h', LOOPBACK, '-p', str(listener.get_port())])


async def test_redis_through_our_server(redis: Redis, key_ring: KeyRing, tmp_path: Path) -> None:
    local, remote = free_port(), free_port()
    port, path = redis
    async with our_server(key_ring, tmp_path / 'ours', server_factory=Gate) as target:
        async with openssh_client(
            target, '-L', f'{LOOPBACK}:{local}:{path}', '-R', f'{LOOPBACK}:{remote}:{LOOPBACK}:{port}'
        ):
            for number in (local, remote):
                await when_it_listens(number)
                await use(['-h', LOOPBACK, '-p', str(number)])
