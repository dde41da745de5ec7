"""What a stranger can cost a server: memory of each connection before the login, measured in a process of its own."""

import asyncio
import contextlib
import subprocess
import sys

import pytest

from tests.security.peer import LOOPBACK, Peer, serving, string, uint32

PEERS = 120
LIMIT = 64     # KiB each

SERVER = """
import asyncio, gc, os, sys
import ssh_fast

async def main():
    key = ssh_fast.generate_private_key('ssh-ed25519')
    async with ssh_fast.listen('127.0.0.1', 0, server_host_keys=[key], max_startups=None) as server:
        print(server.get_port(), flush=True)
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            gc.collect()
            with open('/proc/self/statm') as file:
                print(int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') // 1024, flush=True)

asyncio.run(main())
"""


class Measured:
    """A server in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, '-c', SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.port = self._read()

    def _read(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def resident_kib(self) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write('\n')
        self._process.stdin.flush()
        return self._read()

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


async def silent(peer: Peer) -> None:
    """Say nothing at all."""


async def identified(peer: Peer) -> None:
    await peer.identify()
    await peer.expect(20)


async def failed(peer: Peer) -> None:
    await peer.start_auth()
    peer.send(peer.password('wrong'))
    await peer.expect(51)


async def half_a_packet(peer: Peer) -> None:
    await peer.handshake()
    packet = uint32(36_000) + b'\x04' + b'\x02' + bytes(35_998)
    peer.writer.write(peer.sender.send_framed(packet)[:35_000])
    await peer.drain()


async def flood(peer: Peer) -> None:
    await peer.handshake()
    for _ in range(40):
        peer.send(b'\x02' + string(bytes(30_000)))
    await peer.drain()


@pytest.mark.parametrize('stage', [silent, identified, failed, half_a_packet, flood])
async def test_memory_of_a_stranger(stage: object) -> None:
    server = Measured()
    try:
        async with contextlib.AsyncExitStack() as stack:

            async def come(count: int) -> None:
                for _ in range(count):
                    await stage(await stack.enter_async_context(await Peer.connect(server.port)))

            await come(20)
            await asyncio.sleep(0.2)
            before = server.resident_kib()
            await come(PEERS)
            await asyncio.sleep(0.2)
            each = (server.resident_kib() - before) / PEERS
            assert each < LIMIT, f'{each:.1f} KiB of each connection'
    finally:
        server.stop()


@pytest.mark.parametrize('size', [35_000, 40_000, 200_000])
async def test_packets_before_the_login_and_after_it(size: int) -> None:
    """RFC 4253 section 6.1 has 35,000 bytes taken; more only of those who are in."""
    payload = b'\x02' + string(bytes(size - 100))
    async with serving() as server:
        async with await Peer.connect(server.port) as peer:
            await peer.handshake()
            peer.send(payload)
            peer.send(b'\x05' + string(b'ssh-userauth'))
            if size > 35_000:
                gone = await peer.expect_gone()
                assert 'packet length' in gone.reason
            else:
                await peer.expect(6)
        async with await Peer.connect(server.port) as peer:
            await peer.login()
            peer.send(payload, peer.open_session())
            await peer.expect(91, 92)


async def test_many_silent_connections_do_not_keep_others_out_for_longer_than_the_grace_time() -> None:
    async with serving(max_startups='10:100:10', login_timeout=0.5) as server:
        silent = [await asyncio.open_connection(LOOPBACK, server.port) for _ in range(10)]
        async with await Peer.connect(server.port) as peer:
            await peer.identify()
            assert peer.versions[1] == b'Exceeded MaxStartups'
        for reader, _ in silent:
            assert (await asyncio.wait_for(reader.read(), 6)).startswith(b'SSH-2.0-')
        async with await Peer.connect(server.port) as peer:
            await peer.login()
        for _, writer in silent:
            writer.close()
