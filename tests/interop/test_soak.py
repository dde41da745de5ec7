"""Forwarding for a long time: hundreds of connections that come and go, while keys are exchanged all the time.

Runs for SSH_FAST_SOAK_SECONDS, 20 by default: a third with our server, one with it on uvloop, and one with sshd;
`make soak` is an hour.
What each connection does, in both of its directions, follows from one number, which is in the error if something goes
wrong.
"""

import asyncio
import contextlib
import gc
import hashlib
import itertools
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import ssh_fast
from ssh_fast.channel.link import ChannelLink
from ssh_fast.forwarding.bridge import ChannelEnd
from ssh_fast.forwarding.targets import connect_path
from tests.connection.test_forwarding import LOOPBACK, settled
from tests.interop.ours import MIB, nothing_leaks, our_server, rekeys
from tests.interop.peers import KeyRing
from tests.interop.test_forwarding import Forwarding

SECONDS = float(os.environ.get('SSH_FAST_SOAK_SECONDS', '20')) / 3
AT_ONCE = 200
REKEY_BYTES = 8 * MIB
PATIENCE = 400.0  # seconds for one connection, however slow and busy the machine
BLOB = random.Random(0).randbytes(MIB) * 2

KINDS = ('local', 'local path', 'remote', 'remote path', 'socks', 'direct', 'direct path', 'served')


class Way(NamedTuple):
    """One direction of a connection: how much goes through, how it is cut, and how slow its ends are."""

    seed: int
    size: int
    piece: int
    pause: float

    def data(self, offset: int, size: int) -> bytes:
        """Return what goes through between two offsets."""
        start = (self.seed * 7919 + offset) % MIB
        return BLOB[start : start + size]

    def digest(self, size: int) -> bytes:
        """Return the hash of the first bytes."""
        made = hashlib.sha256()
        for offset in range(0, size, 1 << 16):
            made.update(self.data(offset, min(1 << 16, size - offset)))
        return made.digest()


class Plan:
    """What one connection does; both of its ends make the same of a number."""

    def __init__(self, number: int) -> None:
        dice = random.Random(number)
        self.number = number
        self.up, self.down = self._way(dice), self._way(dice)
        self.end = dice.choices(('both', 'reset', 'leave'), (90, 6, 4))[0]
        self.kind = dice.choice(KINDS)
        self.reset_after = dice.randrange(self.up.size + 1)

    def _way(self, dice: random.Random) -> Way:
        size = dice.choice((0, 1, 100, 5_000, 65_536, 300_000, 2 * MIB))
        size += dice.randrange(size + 1)
        slow = size <= 600_000 and dice.random() < 0.4
        piece = dice.randrange(max(500, size // 50), 65_537) if slow else 65_536
        return Way(dice.randrange(1 << 32), size, piece, dice.random() * 0.02 if slow else 0.0)


async def send(writer: Any, way: Way, until: int) -> None:
    for offset in range(0, until, way.piece):
        writer.write(way.data(offset, min(way.piece, until - offset)))
        await writer.drain()
        if way.pause:
            await asyncio.sleep(way.pause)


async def receive(reader: Any, way: Way, whole: bool) -> None:
    """Check everything that comes; it may be cut off if it need not be `whole`."""
    made, size = hashlib.sha256(), 0
    with contextlib.suppress(() if whole else (OSError, ssh_fast.Error)):
        while data := await reader.read(max(way.piece, 4096)):
            made.update(data)
            size += len(data)
            if way.pause:
                await asyncio.sleep(way.pause)
    assert size == way.size if whole else size <= way.size, f'{size} bytes came of {way.size}'
    assert made.digest() == way.digest(size), 'other bytes came than were sent'


async def converse(reader: Any, writer: Any, plan: Plan, outgoing: Way, incoming: Way, until: int) -> None:
    """Send and receive at once; our direction ends when all is sent, whether or not the other has."""

    async def send_all() -> None:
        with contextlib.suppress(() if plan.end == 'both' else (OSError, ssh_fast.Error)):
            await send(writer, outgoing, until)
            if until == outgoing.size:
                writer.write_eof()

    receiving = asyncio.create_task(receive(reader, incoming, plan.end == 'both'))
    try:
        await send_all()
        if until == outgoing.size:
            await receiving
    finally:
        receiving.cancel()
        await asyncio.wait([receiving])


def must_not_be(plan: Plan, exc: Exception) -> bool:
    """Tell whether something went wrong, as no plan has wrong data or waits for ever, and most have no error at all."""
    return plan.end == 'both' or isinstance(exc, AssertionError | TimeoutError)


class Target:
    """Where the forwarded connections lead: it reads the number, and does its part of that plan."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.running: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: Any, writer: Any) -> None:
        task, plan = asyncio.current_task(), None
        self.running.add(task)
        try:
            header = await reader.readexactly(8)
            plan = Plan(int.from_bytes(header, 'big'))
            async with asyncio.timeout(PATIENCE):
                await converse(reader, writer, plan, plan.down, plan.up, plan.down.size)
        except Exception as exc:
            # Who left or was reset before the number came is known to the other end.
            if plan and must_not_be(plan, exc):
                self.failures.append(f'target, plan {plan.number}: {exc!r}')
        finally:
            writer.close()
            self.running.discard(task)


class Soak:
    """Connections through one client's connection, of every kind, until the time is over."""

    def __init__(self, conn: Any, target: Target, folder: Path, port: int, path: str) -> None:
        self._conn, self._target, self._folder = conn, target, folder
        self._port, self._path = port, path
        self._numbers = itertools.count(random.Random(AT_ONCE).randrange(1 << 40))
        self.listeners: dict[str, Any] = {}
        self.done: dict[str, int] = dict.fromkeys(KINDS, 0)
        self.bytes = 0

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        conn, here, there = self._conn, str(self._folder / 'here'), str(self._folder / 'there')
        for kind, listener in (
            ('local', conn.forward_local_port(LOOPBACK, 0, LOOPBACK, self._port)),
            ('local path', conn.forward_local_path(here, self._path)),
            ('remote', conn.forward_remote_port(LOOPBACK, 0, LOOPBACK, self._port)),
            ('remote path', conn.forward_remote_path(there, self._path)),
            ('socks', conn.forward_socks(LOOPBACK, 0)),
            ('served', conn.start_server(lambda host, port: self._target.serve, LOOPBACK, 0)),
        ):
            self.listeners[kind] = await stack.enter_async_context(listener)

    async def _open(self, kind: str) -> tuple[Any, Any]:
        if kind == 'direct':
            return await self._conn.open_connection(LOOPBACK, self._port)  # type: ignore[no-any-return]
        if kind == 'direct path':
            return await self._conn.open_unix_connection(self._path)  # type: ignore[no-any-return]
        if kind.endswith('path'):
            # asyncio would take a socket for connected although the listener had no room for it.
            path = self._folder / ('here' if kind == 'local path' else 'there')
            return await asyncio.open_unix_connection(sock=await connect_path(str(path)))
        reader, writer = await asyncio.open_connection(LOOPBACK, self.listeners[kind].get_port())
        if kind == 'socks':
            writer.write(b'\4\1' + self._port.to_bytes(2, 'big') + socket.inet_aton(LOOPBACK) + b'\0')
            assert (await reader.readexactly(8))[1] == 90
        return reader, writer

    async def _one(self, plan: Plan) -> None:
        reader, writer = await self._open(plan.kind)
        try:
            if plan.end == 'leave':
                return
            writer.write(plan.number.to_bytes(8, 'big'))
            until = plan.reset_after if plan.end == 'reset' else plan.up.size
            await converse(reader, writer, plan, plan.up, plan.down, until)
        finally:
            if plan.end == 'reset':
                reset(writer)
            else:
                writer.close()
        if plan.end == 'both':
            self.done[plan.kind] += 1
            self.bytes += plan.up.size + plan.down.size

    async def work(self, deadline: float) -> None:
        """Run one connection after the other."""
        loop = asyncio.get_running_loop()
        while loop.time() < deadline and not self._target.failures:
            plan = Plan(next(self._numbers))
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._one(plan)
            except Exception as exc:
                if must_not_be(plan, exc):
                    raise AssertionError(f'{plan.kind}, plan {plan.number}: {exc!r}') from exc


def reset(writer: Any) -> None:
    """End a connection as if its program was killed."""
    if isinstance(writer, ssh_fast.SSHWriter):
        writer.channel.abort()
        return
    sock = writer.get_extra_info('socket')
    if sock and sock.family == socket.AF_INET:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    writer.transport.abort()


def living(kinds: tuple[type, ...]) -> list[Any]:
    gc.collect()
    return [found for found in gc.get_objects() if isinstance(found, kinds)]


Ends = tuple[Any, Callable[[], list[Any]]]


@contextlib.asynccontextmanager
async def to_ours(ring: KeyRing, start_openssh: Any, folder: Path) -> AsyncIterator[Ends]:
    made: list[Any] = []

    class Watched(Forwarding):
        def connection_made(self, conn: Any) -> None:
            made.append(conn)

    async with our_server(ring, folder / 'ours', server_factory=Watched, rekey_bytes=REKEY_BYTES) as target:
        async with ssh_fast.connect(**target.connect_options(), rekey_bytes=REKEY_BYTES) as conn:
            yield conn, lambda: made


@contextlib.asynccontextmanager
async def to_sshd(ring: KeyRing, start_openssh: Any, folder: Path) -> AsyncIterator[Ends]:
    target = start_openssh(['RekeyLimit 8M']).target
    async with ssh_fast.connect(**target.connect_options(), rekey_bytes=REKEY_BYTES) as conn:
        yield conn, list


async def soak_through(connect: Callable[..., Any], key_ring: KeyRing, start_openssh: Any, folder: Path) -> None:
    kinds = (ssh_fast.SSHForwarder, ssh_fast.SSHTCPChannel, ssh_fast.SSHUNIXChannel, ChannelLink, ChannelEnd)
    before = len(living(kinds))
    target, path = Target(), str(folder / 'target')
    servers = [
        await asyncio.start_server(target.serve, LOOPBACK, 0, backlog=AT_ONCE),
        await asyncio.start_unix_server(target.serve, path, backlog=AT_ONCE),
    ]
    port = servers[0].sockets[0].getsockname()[1]
    async with nothing_leaks(), connect(key_ring, start_openssh, folder) as (conn, server_ends):
        soak = Soak(conn, target, folder, port, path)
        async with contextlib.AsyncExitStack() as stack:
            await soak.start(stack)
            deadline = asyncio.get_running_loop().time() + SECONDS
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(soak.work(deadline))
            await settled(lambda: not target.running)
        assert target.failures == []
        assert min(soak.done.values()) > 0, soak.done
        assert rekeys(conn) >= soak.bytes // (4 * REKEY_BYTES)
        for end in (conn, *server_ends()):
            await settled(lambda end=end: not end._mux.channels)  # type: ignore[misc]
            await settled(lambda end=end: not end._writer.backlog)  # type: ignore[misc]
        await settled(lambda: len(living(kinds)) == before)
        counts = f'{sum(soak.done.values())} connections, {soak.bytes // MIB} MiB, {rekeys(conn)} rekeys'
        print(f'{counts}: {soak.done}')  # noqa: T201 - shown by `make soak`
    for server in servers:
        server.close()


@pytest.mark.timeout(2 * SECONDS + 2 * PATIENCE)
@pytest.mark.parametrize(('connect', 'loop'), [(to_ours, 'asyncio'), (to_ours, 'uvloop'), (to_sshd, 'asyncio')])
def test_connections_that_come_and_go(
    connect: Callable[..., Any], loop: str, key_ring: KeyRing, start_openssh: Any, tmp_path: Path
) -> None:
    run: Any = asyncio.run if loop == 'asyncio' else pytest.importorskip('uvloop').run
    run(soak_through(connect, key_ring, start_openssh, tmp_path))
