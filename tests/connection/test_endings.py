"""How connections end: reasons, silence, cancellation, back pressure, and a whole program that leaves nothing open."""

import asyncio
import os
import resource
import socket
import subprocess
import sys
from typing import Any

import pytest

import ssh_fast
from tests.security.peer import (
    LOOPBACK,
    USER,
    Peer,
    client_options,
    hostile_server,
    resident_kib,
    serving,
)


class Ends:
    """A factory of client objects that tell how their connections ended."""

    def __init__(self, base: type[ssh_fast.SSHClient] = ssh_fast.SSHClient) -> None:
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        future = self.lost

        class Client(base):    # type: ignore[misc, valid-type]
            def connection_lost(self, exc: Exception | None) -> None:
                future.set_result(exc)

        self.factory = Client


def open_files() -> int:
    return len(os.listdir('/proc/self/fd'))


async def test_a_reason_reaches_the_peer() -> None:
    async with serving() as server:
        ends = Ends()
        conn = await ssh_fast.connect(LOOPBACK, server.port, **client_options(client_factory=ends.factory))
        server.made[0].conn.disconnect(ssh_fast.DISC_TOO_MANY_CONNECTIONS, 'come back later')
        exc = await asyncio.wait_for(ends.lost, 5)
        assert isinstance(exc, ssh_fast.DisconnectError)
        assert (exc.code, exc.reason) == (ssh_fast.DISC_TOO_MANY_CONNECTIONS, 'come back later')
        await conn.wait_closed()
        assert conn.is_closed()
        with pytest.raises(ssh_fast.DisconnectError):
            await conn.run('x')


async def test_close_and_abort() -> None:
    async with serving() as server:
        for way in ('close', 'abort'):
            conn = await ssh_fast.connect(LOOPBACK, server.port, **client_options())
            getattr(conn, way)()
            await asyncio.wait_for(conn.wait_closed(), 5)
            exc = await asyncio.wait_for(server.made[-1].lost, 5)
            assert exc is None if way == 'close' else isinstance(exc, ssh_fast.ConnectionLost)
            getattr(conn, way)()


async def test_leaving_the_block_with_data_in_flight() -> None:
    """Closing is quick although the peer reads nothing, and says so to who waits."""
    async def stuck(process: Any) -> None:
        await asyncio.sleep(60)

    async with serving(process_factory=stuck) as server:
        async with ssh_fast.connect(LOOPBACK, server.port, **client_options()) as conn:
            process = await conn.create_process('x', encoding=None)
            process.stdin.write(bytes(8 << 20))
            waiting = asyncio.ensure_future(process.wait())
            await asyncio.sleep(0.05)
        results = await asyncio.gather(waiting, return_exceptions=True)
        assert results and conn.is_closed()


async def test_a_peer_that_ends_its_stream_and_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does not take is dropped in the end: nobody waits for it for ever."""
    monkeypatch.setattr('ssh_fast.connection.connection._CLOSE_TIMEOUT', 0.2)

    async def script(peer: Peer) -> None:
        await peer.admit()
        await peer.accept_session(window=2**31)
        peer.writer.transport.pause_reading()    # type: ignore[attr-defined]
        await asyncio.sleep(0.3)
        peer.writer.write_eof()
        await asyncio.sleep(60)

    async with hostile_server(script) as port:
        conn = await ssh_fast.connect(LOOPBACK, port, **client_options(encoding=None))
        process = await conn.create_process('x')
        process.stdin.write(bytes(50 << 20))
        await asyncio.wait_for(conn.wait_closed(), 10)
        with pytest.raises(ssh_fast.ConnectionLost):
            await process.wait()


async def test_a_silent_peer_is_given_up() -> None:
    """No answer to `count` keepalives: ConnectionLost, for whoever waits too."""
    async def script(peer: Peer) -> None:
        await peer.admit()
        await peer.accept_session()
        await peer.expect_gone()

    async with hostile_server(script) as port:
        ends = Ends()
        options = client_options(keepalive_interval=0.1, keepalive_count_max=2, client_factory=ends.factory)
        conn = await ssh_fast.connect(LOOPBACK, port, **options)
        loop = asyncio.get_running_loop()
        process = await conn.create_process('x')
        started = loop.time()
        with pytest.raises(ssh_fast.ConnectionLost):
            await asyncio.wait_for(process.wait(check=True), 5)
        assert loop.time() - started >= 0.2
        assert isinstance(await ends.lost, ssh_fast.ConnectionLost)


async def test_an_idle_honest_peer_is_kept() -> None:
    async with serving(keepalive_interval=0.05, keepalive_count_max=1) as server:
        async with ssh_fast.connect(LOOPBACK, server.port, **client_options(keepalive_interval=0.05)) as conn:
            await asyncio.sleep(0.5)
            assert not conn.is_closed() and not server.made[0].conn.is_closed()


@pytest.mark.parametrize('stage', range(0, 60, 3))
async def test_cve_2024_6387_connect_cancelled_anywhere_leaves_nothing(stage: int) -> None:
    """After any number of the loop's steps: no task, no socket, and a server that goes on."""
    async with serving() as server:
        before, tasks = open_files(), len(asyncio.all_tasks())
        connecting = asyncio.ensure_future(_connect(server.port))
        for _ in range(stage):
            await asyncio.sleep(0)
        connecting.cancel()
        try:
            conn = await connecting
        except asyncio.CancelledError:
            pass
        else:
            conn.abort()
            del conn
        for _ in range(100):
            if open_files() <= before and len(asyncio.all_tasks()) <= tasks:
                break
            await asyncio.sleep(0.01)
        assert open_files() <= before
        assert len(asyncio.all_tasks()) <= tasks


async def _connect(port: int) -> Any:
    return await ssh_fast.connect(LOOPBACK, port, **client_options())


async def test_running_out_of_files_does_not_end_the_accept_loop() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with serving() as server:
        clients = [socket.socket() for _ in range(8)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir('/proc/self/fd'))) + 1, hard))
        try:
            for client in clients:
                client.setblocking(False)
                client.connect_ex((LOOPBACK, server.port))
            await asyncio.sleep(0.1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for client in clients:
                client.close()
        # asyncio waits a second before it accepts again.
        async with ssh_fast.connect(LOOPBACK, server.port, **client_options(connect_timeout=10)) as conn:
            assert conn.get_extra_info('username') == USER


# --- back pressure


@pytest.mark.parametrize('direction', ['to client', 'to server'])
async def test_a_slow_reader_bounds_memory(direction: str) -> None:
    """100 MiB are offered to an end that reads nothing: the writer waits, and memory stays."""
    written = 0

    async def pour(writer: Any) -> None:
        nonlocal written
        for _ in range(100):
            writer.write(bytes(1 << 20))
            written += 1 << 20
            await writer.drain()

    async def handle(process: Any) -> None:
        await (pour(process.stdout) if direction == 'to client' else asyncio.sleep(60))

    async with serving(process_factory=handle, encoding=None) as server:
        async with ssh_fast.connect(LOOPBACK, server.port, **client_options()) as conn:
            before = resident_kib()
            process = await conn.create_process('x', encoding=None)
            pouring = asyncio.ensure_future(pour(process.stdin) if direction == 'to server' else asyncio.sleep(60))
            await asyncio.sleep(0.7)
            assert 0 < written < 64 << 20
            assert resident_kib() - before < 64 * 1024
            pouring.cancel()
            conn.abort()
            await asyncio.gather(pouring, return_exceptions=True)


# --- the loop and the interpreter

PROGRAM = """
import asyncio, gc, sys, tempfile
import ssh_fast
from tests.security.peer import serving, client_options, LOOPBACK

async def main():
    async def handle(process):
        process.stdout.write(await process.stdin.read())
        process.exit(0)
    async with serving(process_factory=handle, sftp_factory=True) as server:
        async with ssh_fast.connect(LOOPBACK, server.port, **client_options()) as conn:
            assert (await conn.run('x', input='hello' * 100_000)).stdout == 'hello' * 100_000
            async with conn.start_sftp_client() as sftp:
                with tempfile.NamedTemporaryFile() as file:
                    file.write(bytes(3_000_000))
                    file.flush()
                    await sftp.get(file.name, file.name + '.copy')
                with open(file.name + '.copy', 'rb') as copy:
                    assert copy.read() == bytes(3_000_000)
                await sftp.remove(file.name + '.copy')
        try:
            await ssh_fast.connect(LOOPBACK, server.port, **client_options(password='wrong'))
        except ssh_fast.PermissionDenied:
            pass
        await asyncio.gather(*(owner.lost for owner in server.made))
    gc.collect()

if sys.argv[1] == 'uvloop':
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
gc.collect()
"""


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
def test_a_whole_program_with_every_warning_an_error(loop: str) -> None:
    """python -X dev: no resource left open, nothing never awaited; under uvloop too."""
    if loop == 'uvloop':
        pytest.importorskip('uvloop')
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run(
        [sys.executable, '-X', 'dev', '-W', 'error::ResourceWarning', '-c', PROGRAM, loop],
        capture_output=True, text=True, timeout=60, cwd=root, env={**os.environ, 'PYTHONPATH': root}, check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not [
        line
        for line in done.stderr.splitlines()
        if 'Warning' in line or 'Exception ignored' in line or 'never retrieved' in line
    ], done.stderr
