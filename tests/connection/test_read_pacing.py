"""Read pacing: what is held back in the kernel while much arrives, and that nothing is held back for long."""

import asyncio
import hashlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ssh_fast
from ssh_fast.connection.read_pacing import ReadPacing

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='SO_RCVLOWAT wakes by size on Linux alone')

MIB = 1024 * 1024


class Counter:
    """A reader that only counts."""

    def __init__(self) -> None:
        self.total_bytes = 0


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection on loopback."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        yield near, far


def piece(sock: socket.socket) -> int:
    """Return how much has to arrive before the socket is readable."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)


async def until_released(sock: socket.socket) -> None:
    """Wait until nothing is held back any more."""
    async with asyncio.timeout(10):
        while piece(sock) != 1:
            await asyncio.sleep(0.002)


def begin(pacing: ReadPacing, reader: Counter, rate: float = 1e9) -> None:
    """Let one look's worth of bytes arrive at a rate in bytes a second."""
    size = pacing.look_at - reader.total_bytes
    reader.total_bytes = pacing.look_at
    pacing.look(pacing._looked_at + size / rate)


async def test_a_fast_peer_wakes_us_for_large_pieces_and_silence_ends_it(ends: tuple[socket.socket, ...]) -> None:
    near, _ = ends
    reader = Counter()
    pacing = ReadPacing(asyncio.get_running_loop(), reader, near, 1 << 30)
    begin(pacing, reader)
    assert 64 * 1024 <= piece(near) <= 512 * 1024
    await until_released(near)
    begin(pacing, reader)
    assert piece(near) > 1, 'nothing had been held back, so the next burst is paced again'
    pacing.stop()
    assert piece(near) == 1


async def test_a_slow_peer_wakes_us_for_every_byte(ends: tuple[socket.socket, ...]) -> None:
    near, _ = ends
    reader = Counter()
    pacing = ReadPacing(asyncio.get_running_loop(), reader, near, 1 << 30)
    begin(pacing, reader, rate=20e6)
    assert piece(near) == 1


async def test_a_peer_that_waits_for_us_is_served_and_then_left_alone(ends: tuple[socket.socket, ...]) -> None:
    near, far = ends
    loop = asyncio.get_running_loop()
    reader = Counter()
    near.setblocking(False)
    pacing = ReadPacing(loop, reader, near, 1 << 30)
    begin(pacing, reader)
    far.sendall(b'a question')
    readable = asyncio.Event()
    loop.add_reader(near, readable.set)
    async with asyncio.timeout(10):
        await readable.wait()
    loop.remove_reader(near)
    assert piece(near) == 1 and near.recv(100) == b'a question'
    now = loop.time()
    begin(pacing, reader)
    assert piece(near) == 1
    pacing._looked_at = now + 10
    begin(pacing, reader)
    assert piece(near) > 1, 'the rest is over'
    pacing.stop()


async def test_a_unix_socket_is_left_alone() -> None:
    near, far = socket.socketpair()
    with near, far:
        pacing = ReadPacing(asyncio.get_running_loop(), Counter(), near, 1 << 30)
        assert pacing.look_at > 1 << 63


async def test_pieces_are_a_small_part_of_what_the_keys_may_take(ends: tuple[socket.socket, ...]) -> None:
    near, _ = ends
    reader = Counter()
    pacing = ReadPacing(asyncio.get_running_loop(), reader, near, 4 * MIB)
    begin(pacing, reader, rate=10e9)
    assert piece(near) == 128 * 1024
    pacing.stop()
    assert ReadPacing(asyncio.get_running_loop(), reader, near, MIB).look_at > 1 << 63


async def test_a_transfer_is_paced_and_requests_behind_it_are_not_held_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('ssh_fast.connection.read_pacing._MIN_RATE', 0)
    data = hashlib.shake_128(b'pacing').digest(64 * MIB)
    (tmp_path / 'big').write_bytes(data)
    key = ssh_fast.generate_private_key('ssh-ed25519')
    pieces = set()

    async with (
        ssh_fast.listen(
            '127.0.0.1',
            0,
            server_host_keys=[key],
            authorized_client_keys=ssh_fast.import_authorized_keys(key.export_public_key().decode()),
            sftp_factory=True,
        ) as server,
        ssh_fast.connect(
            '127.0.0.1', server.get_port(), username='u', client_keys=[key], known_hosts=None, agent_path=None
        ) as conn,
        conn.start_sftp_client() as sftp,
    ):
        sock = conn.get_extra_info('socket')

        for _ in range(3):
            await sftp.get(
                str(tmp_path / 'big'), tmp_path / 'got', progress_handler=lambda *args: pieces.add(piece(sock))
            )
            assert (tmp_path / 'got').read_bytes() == data
        # A request waits for its reply alone: had it been held back, none of these would come.
        for _ in range(20):
            await sftp.stat(str(tmp_path / 'big'))
        await until_released(sock)
    assert 1 < max(pieces) <= 512 * 1024
