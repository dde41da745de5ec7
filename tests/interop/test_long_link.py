"""Uploads to OpenSSH over a link with a long way: several sessions where one window is not enough."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from ssh_fast.sftp import spread
from tests.interop.ours import MIB
from tests.interop.peers import KeyRing, OpenSSHServer, Target

ROOT = Path(__file__).parents[2]
SIZE = 40 * MIB


@contextlib.asynccontextmanager
async def over_a_link(target: Target, seconds: float = 0.1, rate: float = 125e6) -> AsyncIterator[dict[str, Any]]:
    """Put a link with so long a round trip before a server; gives the options to connect through it."""
    relay = await asyncio.create_subprocess_exec(
        sys.executable, '-m', 'benchmarks.link_relay', str(target.port), str(seconds / 2), str(rate),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT,
    )
    assert relay.stdin and relay.stdout
    try:
        port = int(await relay.stdout.readline())
        yield target.connect_options(host='127.0.0.1', port=port, known_hosts=None)
    finally:
        relay.stdin.close()
        await relay.wait()


def sessions(connection: Any) -> int:
    """How many SFTP sessions are open on a connection."""
    return len(connection._require_mux()._links)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the first piece takes longer than the link makes it."""
    monkeypatch.setattr(spread, '_LIMITED', 1000)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / 'source'
    path.write_bytes(os.urandom(MIB) * (SIZE // MIB))
    return path


@pytest.mark.usefixtures('patient')
async def test_several_sessions_write_one_file(key_ring: KeyRing, tmp_path: Path, source: Path) -> None:
    told: list[int] = []
    with OpenSSHServer(key_ring, tmp_path / 'sshd') as server:
        async with over_a_link(server.target) as options, ssh_fast.connect(**options) as connection:
            async with connection.start_sftp_client() as sftp:
                for atomic in (False, True):
                    await sftp.put(
                        source, str(tmp_path / 'target'), atomic=atomic, preserve=True, verify=True,
                        progress_handler=lambda *done: told.append(done[2]),
                    )
                    assert (tmp_path / 'target').read_bytes() == source.read_bytes()
                    assert (tmp_path / 'target').stat().st_mtime == int(source.stat().st_mtime)
                    assert told == sorted(told) and told[-1] == SIZE
                    assert 4 <= sessions(connection) <= 8
                    told.clear()
            assert sessions(connection) == 0


async def test_a_short_link_and_small_files_need_one_session(key_ring: KeyRing, tmp_path: Path, source: Path) -> None:
    with OpenSSHServer(key_ring, tmp_path / 'sshd') as server:
        async with ssh_fast.connect(**server.target.connect_options()) as connection:
            async with connection.start_sftp_client() as sftp:
                await sftp.put(source, str(tmp_path / 'target'))
                assert sessions(connection) == 1
        async with over_a_link(server.target) as options, ssh_fast.connect(**options) as connection:
            async with connection.start_sftp_client() as sftp:
                (tmp_path / 'small').write_bytes(bytes(4 * MIB))
                await sftp.put(tmp_path / 'small', str(tmp_path / 'target'))
                await sftp.put(source, str(tmp_path / 'target'), max_requests=64)
                assert sessions(connection) == 1
    assert (tmp_path / 'target').read_bytes() == source.read_bytes()


@pytest.mark.parametrize('most', [1, 2])
@pytest.mark.usefixtures('patient')
async def test_a_server_that_gives_no_more_sessions(
    key_ring: KeyRing, tmp_path: Path, source: Path, most: int
) -> None:
    with OpenSSHServer(key_ring, tmp_path / 'sshd', [f'MaxSessions {most}']) as server:
        async with over_a_link(server.target) as options, ssh_fast.connect(**options) as connection:
            async with connection.start_sftp_client() as sftp:
                for _ in range(2):
                    await sftp.put(source, str(tmp_path / 'target'))
                    assert (tmp_path / 'target').read_bytes() == source.read_bytes()
                    assert sessions(connection) == most


@pytest.mark.parametrize('way', ['cancelled', 'killed'])
@pytest.mark.usefixtures('patient')
@pytest.mark.parametrize('atomic', [False, True])
async def test_an_upload_that_ends_early_does_not_look_whole(
    key_ring: KeyRing, tmp_path: Path, source: Path, way: str, atomic: bool
) -> None:
    content = source.read_bytes()
    with OpenSSHServer(key_ring, tmp_path / 'sshd') as server:
        async with over_a_link(server.target) as options, ssh_fast.connect(**options) as connection:
            sftp = await connection.start_sftp_client()
            half = asyncio.Event()

            def progress(source: bytes, target: bytes, done: int, total: int) -> None:
                if done > SIZE // 2:
                    half.set()

            copying = asyncio.ensure_future(
                sftp.put(source, str(tmp_path / 'target'), atomic=atomic, progress_handler=progress)
            )
            await half.wait()
            if way == 'cancelled':
                copying.cancel()
            else:
                for pid in server.processes()[1:]:
                    os.kill(pid, signal.SIGKILL)
            with pytest.raises((asyncio.CancelledError, ssh_fast.Error)):
                await copying
            if way == 'cancelled':
                await sftp.stat('.')
    target = tmp_path / 'target'
    if atomic:
        assert not target.exists()
    elif way == 'cancelled':
        written = target.read_bytes()
        assert len(written) < SIZE and written == content[: len(written)]
    else:
        assert target.stat().st_size < SIZE
