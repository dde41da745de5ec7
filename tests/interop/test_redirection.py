"""Streams of processes redirected to all that they can be, against OpenSSH, AsyncSSH and ourselves as servers."""

import asyncio
import contextlib
import hashlib
import io
import os
import resource
import signal
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

import ssh_fast
from tests.interop.asyncssh_peer import asyncssh_server
from tests.interop.ours import our_server, until
from tests.interop.peers import KeyRing, OpenSSHServer, Target

MIB = 1024 * 1024
CONTENT = os.urandom(3 * MIB + 12345)
TEXT = 'grüße\n' * 20_000


async def run_shell(process: Any) -> None:
    """Serve a command by a local shell whose pipes are asyncio's streams."""
    pipe = asyncio.subprocess.PIPE
    local = await asyncio.create_subprocess_shell(
        process.command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    )
    try:
        await serve_local(process, local, lambda: local.returncode)
    finally:
        local._transport.close()  # type: ignore[attr-defined]


async def run_popen(process: Any) -> None:
    """Serve a command by a local shell whose pipes are plain descriptors."""
    pipe = subprocess.PIPE
    local = subprocess.Popen(
        process.command, shell=True, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True
    )
    await serve_local(process, local, local.poll)


async def serve_local(process: Any, local: Any, poll: Callable[[], int | None]) -> None:
    try:
        await process.redirect(local.stdin, local.stdout, local.stderr)
        await process.stdout.drain()
        await process.stderr.drain()
        while poll() is None and not process.is_closing():
            await asyncio.sleep(0.005)
        process.exit(poll() or 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(local.pid, signal.SIGKILL)


async def run_apart(process: Any) -> None:
    """Serve a command by a local shell without redirection: AsyncSSH's loses the end of the data now and then."""
    pipe = asyncio.subprocess.PIPE
    local = await asyncio.create_subprocess_shell(process.command, stdin=pipe, stdout=pipe, stderr=pipe)

    async def carry(source: Any, target: Any, end: Callable[[], None]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        end()

    try:
        feed = asyncio.ensure_future(carry(process.stdin, local.stdin, local.stdin.close))
        output = carry(local.stdout, process.stdout, lambda: None)
        await asyncio.gather(output, carry(local.stderr, process.stderr, lambda: None))
        feed.cancel()
        process.exit(await local.wait())
    finally:
        with contextlib.suppress(ProcessLookupError):
            local.kill()
        local._transport.close()  # type: ignore[attr-defined]


@pytest.fixture
async def ours(key_ring: KeyRing, tmp_path: Path) -> AsyncIterator[Target]:
    async with our_server(key_ring, tmp_path / 'ours', process_factory=run_popen, encoding=None) as target:
        yield target


@pytest.fixture(params=['openssh', 'ours', 'asyncssh'])
async def target(
    request: pytest.FixtureRequest, key_ring: KeyRing, tmp_path: Path, openssh_server: OpenSSHServer
) -> AsyncIterator[Target]:
    if request.param == 'openssh':
        yield openssh_server.target
    elif request.param == 'ours':
        async with our_server(key_ring, tmp_path / 't', process_factory=run_popen, encoding=None) as made:
            yield made
    else:
        async with asyncssh_server(key_ring, tmp_path / 't', process_factory=run_apart, encoding=None) as made:
            yield made


@pytest.fixture
async def conn(target: Target) -> AsyncIterator[Any]:
    async with ssh_fast.connect(**target.connect_options()) as connection:
        yield connection


@pytest.fixture
async def sshd(openssh_server: OpenSSHServer) -> AsyncIterator[Any]:
    async with ssh_fast.connect(**openssh_server.target.connect_options()) as connection:
        yield connection


def read_all(fd: int) -> tuple[threading.Thread, bytearray]:
    """Read a pipe or a socket to its end, in a thread."""
    data = bytearray()

    def read() -> None:
        while piece := os.read(fd, 65536):
            data.extend(piece)

    thread = threading.Thread(target=read)
    thread.start()
    return thread, data


class AsyncFile:
    """A file object of coroutines, each of which takes longer than the one before it took."""

    def __init__(self, data: bytes = b'') -> None:
        self.inner = io.BytesIO(data)
        self.calls = 0
        self.closed = False

    async def _wait(self) -> None:
        self.calls += 1
        for _ in range(5 - self.calls % 5):
            await asyncio.sleep(0)

    async def read(self, size: int) -> bytes:
        await self._wait()
        return self.inner.read(size)

    async def write(self, data: bytes) -> int:
        await self._wait()
        return self.inner.write(data)

    async def close(self) -> None:
        self.closed = True


# --- whole streams, to and from everything ----------------------------------------------------------------------------


async def test_paths(conn: Any, tmp_path: Path) -> None:
    source, copy, errors = tmp_path / 'source', tmp_path / 'copy', tmp_path / 'errors'
    source.write_bytes(CONTENT)
    result = await conn.run('cat; echo wrong >&2', stdin=source, stdout=str(copy), stderr=errors, encoding=None)
    assert (result.stdout, result.stderr, result.exit_status) == (b'', b'', 0)
    assert copy.read_bytes() == CONTENT
    assert errors.read_bytes() == b'wrong\n'


async def test_paths_with_text(conn: Any, tmp_path: Path) -> None:
    (tmp_path / 'source').write_text(TEXT)
    await conn.run('cat', stdin=tmp_path / 'source', stdout=tmp_path / 'copy', check=True)
    assert (tmp_path / 'copy').read_text() == TEXT


@pytest.mark.parametrize('encoding', [None, 'utf-8'])
async def test_file_objects(conn: Any, tmp_path: Path, encoding: str | None) -> None:
    (tmp_path / 'source').write_text('head\n' + TEXT)
    source, copy = (tmp_path / 'source').open('rb'), (tmp_path / 'copy').open('wb')
    assert source.readline() == b'head\n'
    copy.write(b'before ')
    await conn.run('cat', stdin=source, stdout=copy, check=True, encoding=encoding, recv_eof=False)
    assert source.closed
    copy.write(b'after')
    copy.close()
    assert (tmp_path / 'copy').read_text() == f'before {TEXT}after'


@pytest.mark.parametrize('encoding', [None, 'utf-8'])
async def test_text_files_of_another_encoding(conn: Any, tmp_path: Path, encoding: str | None) -> None:
    (tmp_path / 'source').write_text(TEXT, 'latin-1')
    source = (tmp_path / 'source').open(encoding='latin-1')
    # A channel of bytes carries those of the files.
    other = 'utf-16' if encoding else 'latin-1'
    copy = (tmp_path / 'copy').open('w', encoding=other)
    await conn.run('cat', stdin=source, stdout=copy, check=True, encoding=encoding)
    assert copy.closed
    assert (tmp_path / 'copy').read_text(other) == TEXT


async def test_objects_in_memory(conn: Any) -> None:
    target = io.BytesIO()
    await conn.run('cat', stdin=io.BytesIO(CONTENT), stdout=target, recv_eof=False, encoding=None, check=True)
    assert target.getvalue() == CONTENT
    text = io.StringIO()
    await conn.run('cat', stdin=io.StringIO(TEXT), stdout=text, recv_eof=False, check=True)
    assert text.getvalue() == TEXT


async def test_async_files(conn: Any) -> None:
    source, target = AsyncFile(CONTENT), AsyncFile()
    await conn.run('cat', stdin=source, stdout=target, encoding=None, check=True)
    assert target.inner.getvalue() == CONTENT
    assert source.closed
    assert target.closed


async def test_files_of_sftp(sshd: Any, tmp_path: Path) -> None:
    (tmp_path / 'source').write_bytes(CONTENT)
    async with sshd.start_sftp_client() as sftp:
        source, copy = await sftp.open(tmp_path / 'source', 'rb'), await sftp.open(tmp_path / 'copy', 'wb')
        await sshd.run('cat', stdin=source, stdout=copy, encoding=None, check=True)
    assert (tmp_path / 'copy').read_bytes() == CONTENT


async def test_pipes(conn: Any) -> None:
    (read_in, write_in), (read_out, write_out) = os.pipe(), os.pipe()
    thread, data = read_all(read_out)
    writer = threading.Thread(target=lambda: (os.fdopen(write_in, 'wb').write(CONTENT)))
    writer.start()
    await conn.run('cat', stdin=read_in, stdout=write_out, encoding=None, check=True)
    await asyncio.to_thread(thread.join)
    writer.join()
    assert data == CONTENT
    for fd in (read_in, write_out):
        with pytest.raises(OSError, match='Bad file descriptor'):
            os.fstat(fd)
    os.close(read_out)


async def test_pipe_that_stays_open_is_set_back(conn: Any) -> None:
    read_out, write_out = os.pipe()
    for number in range(3):
        await conn.run(f'echo {number}; echo wrong >&2', stdout=write_out, stderr=write_out, recv_eof=False)
    assert os.get_blocking(write_out)
    assert sorted(os.read(read_out, 100).split()) == [b'0', b'1', b'2', *[b'wrong'] * 3]
    os.close(read_out)
    os.close(write_out)


async def test_sockets(conn: Any) -> None:
    inside, outside = socket.socketpair()
    thread, data = read_all(outside.fileno())
    writer = threading.Thread(target=lambda: (outside.sendall(CONTENT), outside.shutdown(socket.SHUT_WR)))
    writer.start()
    await conn.run('cat', stdin=inside, stdout=inside, encoding=None, check=True)
    await asyncio.to_thread(thread.join)
    writer.join()
    assert data == CONTENT
    assert inside.getblocking()
    inside.close()
    outside.close()


async def test_terminals(sshd: Any) -> None:
    """A terminal that is written to gets its mode back; one whose other side is closed has ended."""
    master, slave = os.openpty()
    await sshd.run('echo shown', stdout=slave, recv_eof=False)
    assert os.get_blocking(slave)
    assert os.read(master, 100) == b'shown\r\n'
    waiting = asyncio.ensure_future(sshd.run('cat', stdin=master))
    await asyncio.sleep(0.05)
    os.write(slave, b'typed\n')
    os.close(slave)
    assert (await waiting).stdout == 'typed\r\n'


async def test_fifos(sshd: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'fifo')
    with pytest.raises(OSError, match='No such device or address'):
        await sshd.run('echo to nobody', stdout=tmp_path / 'fifo')
    waiting = asyncio.ensure_future(sshd.run('cat', stdin=tmp_path / 'fifo'))
    await asyncio.sleep(0.1)
    writer = os.open(tmp_path / 'fifo', os.O_WRONLY)
    os.write(writer, b'late')
    os.close(writer)
    assert (await waiting).stdout == 'late'


async def test_asyncio_streams_of_local_processes(conn: Any) -> None:
    pipe = asyncio.subprocess.PIPE
    source = await asyncio.create_subprocess_exec('head', '-c', '3000000', '/dev/zero', stdout=pipe)
    target = await asyncio.create_subprocess_exec('wc', '-c', stdin=pipe, stdout=pipe)
    await conn.run('cat', stdin=source.stdout, stdout=target.stdin, encoding=None, check=True)
    assert target.stdout is not None
    assert int(await target.stdout.read()) == 3_000_000
    assert await source.wait() == await target.wait() == 0


async def test_errors_with_the_output(conn: Any, tmp_path: Path) -> None:
    command = 'echo one; sleep .05; echo two >&2; sleep .05; echo three'
    for encoding in (None, 'utf-8'):
        copy = tmp_path / f'copy-{encoding}'
        await conn.run(command, stdout=copy, stderr=ssh_fast.STDOUT, encoding=encoding, check=True)
        assert copy.read_text() == 'one\ntwo\nthree\n'
    with (tmp_path / 'both').open('wb') as both:
        await conn.run('echo one; echo two >&2', stdout=both, stderr=both, check=True)
        assert both.closed
    assert sorted((tmp_path / 'both').read_text().split()) == ['one', 'two']


async def test_nothing_and_given_input(conn: Any, tmp_path: Path) -> None:
    result = await conn.run('cat; echo out; echo err >&2', stdin=ssh_fast.DEVNULL, stdout=ssh_fast.DEVNULL)
    assert (result.stdout, result.stderr) == ('', 'err\n')
    (tmp_path / 'unused').write_text('not this')
    assert (await conn.run('cat', input='this', stdin=tmp_path / 'unused')).stdout == 'this'
    assert (await conn.run('cat', stdin='/dev/null')).stdout == ''
    assert (await conn.run('head -c 5', stdin='/dev/zero', encoding=None)).stdout == bytes(5)


# --- processes --------------------------------------------------------------------------------------------------------


async def test_large_output_from_process_to_process(
    key_ring: KeyRing, tmp_path: Path, openssh_server: OpenSSHServer, ours: Target
) -> None:
    (tmp_path / 'big').write_bytes(os.urandom(MIB) * 64)
    expected = hashlib.sha256((tmp_path / 'big').read_bytes()).hexdigest()
    async with (
        ssh_fast.connect(**openssh_server.target.connect_options()) as first,
        ssh_fast.connect(**ours.connect_options()) as second,
    ):
        source = await first.create_process(f'cat {tmp_path / "big"}', encoding=None)
        target = await second.create_process('sha256sum', stdin=source.stdout, encoding=None)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result = await target.wait(check=True)
        assert result.stdout.split()[0].decode() == expected
        assert (await source.wait(check=True)).stdout == b''

        target = await first.create_process('sha256sum', encoding=None)
        source = await second.create_process(f'cat {tmp_path / "big"}', stdout=target.stdin, encoding=None)
        await source.wait(check=True)
        assert (await target.wait(check=True)).stdout.split()[0].decode() == expected
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 * 1024


async def test_pipeline_on_one_connection(conn: Any) -> None:
    source = await conn.create_process('printf "b\\na\\n"')
    middle = await conn.create_process('sort', stdin=source)
    result = await conn.run('tr a-z A-Z', stdin=middle.stdout)
    assert result.stdout == 'A\nB\n'
    assert (await middle.wait()).exit_status == (await source.wait()).exit_status == 0


async def test_streams_of_a_session(conn: Any) -> None:
    stdin, stdout, _ = await conn.open_session('cat', encoding=None)
    sender = await conn.create_process('cat', stdin=io.BytesIO(CONTENT), stdout=stdin, encoding=None)
    result = await conn.run('cat', stdin=stdout, encoding=None)
    assert result.stdout == CONTENT
    await sender.wait(check=True)


async def test_reader_that_leaves_ends_its_source(conn: Any) -> None:
    source = await conn.create_process('cat /dev/zero', encoding=None)
    result = await conn.run('head -c 100000', stdin=source.stdout, encoding=None)
    assert result.stdout == bytes(100_000)
    source.close()
    target = await conn.create_process('head -c 10', encoding=None)
    source = await conn.create_process('cat /dev/zero', stdout=target.stdin, encoding=None)
    with pytest.raises(BrokenPipeError):
        await source.wait()
    assert (await target.wait(check=True)).stdout == bytes(10)


# --- in mid-flight ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('encoding', 'newline'), [(None, b'\n'), ('utf-8', '\n')])
async def test_targets_change_in_mid_flight(conn: Any, tmp_path: Path, encoding: Any, newline: Any) -> None:
    paths = [tmp_path / 'first', tmp_path / 'third']
    process = await conn.create_process('cat', stdout=paths[0], encoding=encoding)
    process.stdin.write(newline * 3)
    await until(lambda: paths[0].exists() and paths[0].stat().st_size == 3)
    await process.redirect(stdout=ssh_fast.PIPE)
    process.stdin.write(newline * 2)
    assert await process.stdout.readexactly(2) == newline * 2
    await process.redirect(stdout=paths[1])
    process.stdin.write(newline * 4)
    process.stdin.write_eof()
    assert not (await process.wait(check=True)).stdout
    assert [path.stat().st_size for path in paths] == [3, 4]


async def test_output_that_was_there_before_goes_first(conn: Any, tmp_path: Path) -> None:
    process = await conn.create_process('echo early; cat', encoding=None)
    await until(lambda: process._buffers[None].size == 6)
    await process.redirect(stdin=io.BytesIO(b'late\n'), stdout=tmp_path / 'copy')
    await process.wait(check=True)
    assert (tmp_path / 'copy').read_bytes() == b'early\nlate\n'


async def test_several_sources_one_after_another(conn: Any, tmp_path: Path) -> None:
    (tmp_path / 'part').write_bytes(CONTENT)
    process = await conn.create_process('cat', stdin=tmp_path / 'part', stdout=tmp_path / 'all', send_eof=False,
                                        encoding=None)
    await process.stdin.drain()
    await process.redirect(stdin=str(tmp_path / 'part'), send_eof=False)
    await process.stdin.drain()
    process.stdin.write(b'the end')
    process.stdin.write_eof()
    await process.wait(check=True)
    assert (tmp_path / 'all').read_bytes() == CONTENT * 2 + b'the end'


async def test_end_of_input_in_the_middle_of_a_file(conn: Any, tmp_path: Path) -> None:
    (tmp_path / 'big').write_bytes(bytes(40 * MIB))
    for stop in ('write_eof', 'close'):
        process = await conn.create_process('sleep .1; cat >/dev/null', stdin=tmp_path / 'big', encoding=None)
        await asyncio.sleep(0.01)
        getattr(process.channel, stop)()
        await process.wait()
        await process.wait_closed()
    assert (await conn.run('echo still here')).stdout == 'still here\n'


# --- back pressure, failures, cancellation ----------------------------------------------------------------------------


async def test_slow_target_stops_the_process(conn: Any) -> None:
    """A pipe that nobody reads holds the process up; what is kept stays below the bound that is documented."""
    read_out, write_out = os.pipe()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    process = await conn.create_process('cat /dev/zero', stdout=write_out, encoding=None, window=256 * 1024)
    sizes = set()
    for _ in range(6):
        await asyncio.sleep(0.05)
        sizes.add(process._buffers[None].size)
    assert 0 < max(sizes) < 3 * MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 * 1024
    for _ in range(3):
        assert len(os.read(read_out, 65536)) > 0
        await asyncio.sleep(0.05)
    process.channel.abort()
    process.stop_redirections()
    await process.wait_closed()
    os.close(read_out)


async def test_fast_source_waits_for_the_process(conn: Any) -> None:
    process = await conn.create_process('sleep 10', stdin='/dev/zero', encoding=None, window=256 * 1024)
    for _ in range(5):
        await asyncio.sleep(0.05)
        assert process.channel.get_write_buffer_size() < MIB
    process.channel.abort()


@pytest.mark.parametrize('encoding', [None, 'utf-8'])
async def test_full_disk(conn: Any, encoding: str | None, tmp_path: Path) -> None:
    with pytest.raises(OSError, match='No space left'):
        await conn.run('echo too much', stdout='/dev/full', encoding=encoding)
    with pytest.raises(OSError, match='No space left'):
        await conn.run('echo too much >&2', stderr='/dev/full', encoding=encoding)
    # A file that is opened for reading only refuses what is written to its descriptor.
    (tmp_path / 'file').write_bytes(b'')
    fd = os.open(tmp_path / 'file', os.O_RDONLY)
    with pytest.raises(OSError, match='Bad file descriptor'):
        await conn.run('echo too much; sleep 20', stdout=fd, encoding=encoding)
    assert (await conn.run('echo still here')).stdout == 'still here\n'


async def test_source_that_fails(conn: Any) -> None:
    class Failing(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise OSError(5, 'The disk is broken')

    with pytest.raises(OSError, match='The disk is broken'):
        await conn.run('cat', stdin=Failing(), encoding=None)
    reader = asyncio.StreamReader()
    reader.feed_data(b'half')
    reader.set_exception(ConnectionResetError('The other side has gone'))
    with pytest.raises(ConnectionResetError, match='The other side has gone'):
        await conn.run('cat', stdin=reader, encoding=None)
    assert (await conn.run('echo still here')).stdout == 'still here\n'


async def test_lost_source_process_is_not_an_end(sshd: Any, ours: Target) -> None:
    async with ssh_fast.connect(**ours.connect_options()) as other:
        source = await other.create_process('printf half; sleep 20')
        target = await sshd.create_process('cat', stdin=source.stdout)
        waiting = asyncio.ensure_future(target.wait())
        await asyncio.sleep(0.05)
        other.abort()
        with pytest.raises(ssh_fast.DisconnectError):
            await waiting
    assert (await sshd.run('echo still here')).stdout == 'still here\n'


async def test_what_is_no_text_ends_its_channel_only(conn: Any, tmp_path: Path) -> None:
    with pytest.raises(ssh_fast.ProtocolError, match='utf-8'):
        await conn.run(r"printf 'good\377bad'; cat", stdout=tmp_path / 'copy')
    (tmp_path / 'source').write_bytes(b'good\xffbad')
    with pytest.raises(UnicodeDecodeError, match='invalid start byte'):
        await conn.run('cat', stdin=tmp_path / 'source')
    assert (await conn.run('echo still here')).stdout == 'still here\n'


async def test_what_cannot_be_opened_starts_nothing(conn: Any, tmp_path: Path) -> None:
    mark = tmp_path / 'mark'
    good = (tmp_path / 'good').open('wb')
    descriptors = len(os.listdir('/proc/self/fd'))
    for wrong, error in (
        ({'stdin': tmp_path / 'absent'}, FileNotFoundError),
        ({'stdin': tmp_path}, IsADirectoryError),
        ({'stderr': tmp_path}, IsADirectoryError),
        ({'stdin': 987}, OSError),
        ({'stdin': True}, ValueError),
        ({'stdin': -2}, ValueError),
        ({'stderr': -7}, ValueError),
        ({'stderr': object()}, TypeError),
        ({'bufsize': 0}, ValueError),
    ):
        with pytest.raises(error):
            await conn.run(f'touch {mark}', **{'stdin': '/dev/null', 'stdout': good, **wrong})
    assert not good.closed
    assert len(os.listdir('/proc/self/fd')) == descriptors
    good.close()
    assert not mark.exists()


@pytest.mark.parametrize('target', ['openssh', 'ours'], indirect=True)
async def test_cancellation_leaves_nothing_behind(conn: Any, tmp_path: Path) -> None:
    (tmp_path / 'big').write_bytes(bytes(50 * MIB))
    await conn.run('true')
    read_out, write_out = os.pipe()
    given = os.dup(write_out)
    tasks, descriptors = len(asyncio.all_tasks()), len(os.listdir('/proc/self/fd'))
    for streams in (
        {'stdin': tmp_path / 'big', 'stdout': tmp_path / 'out'},
        {'stdin': '/dev/zero', 'stdout': given},
        {'stdin': AsyncFile(bytes(50 * MIB)), 'stdout': AsyncFile()},
    ):
        run = asyncio.ensure_future(conn.run('cat; sleep 20', encoding=None, **streams))
        await asyncio.sleep(0.1)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    await until(lambda: len(os.listdir('/proc/self/fd')) <= descriptors)
    with contextlib.suppress(OSError):
        os.close(given)
    os.close(read_out)
    os.close(write_out)


async def test_cancelled_wait_leaves_the_process(conn: Any, tmp_path: Path) -> None:
    process = await conn.create_process('sleep .2; cat', stdin=io.BytesIO(b'input'), stdout=tmp_path / 'copy',
                                        encoding=None)
    waiting = asyncio.ensure_future(process.wait())
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(ssh_fast.TimeoutError):
        await process.wait(timeout=0.01)
    assert (await process.wait(check=True)).exit_status == 0
    assert (tmp_path / 'copy').read_bytes() == b'input'


# --- our server -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('factory', [run_popen, run_shell])
async def test_asyncssh_client_of_our_redirecting_server(key_ring: KeyRing, tmp_path: Path, factory: Any) -> None:
    async with our_server(key_ring, tmp_path / 's', process_factory=factory, encoding=None) as target:
        async with asyncssh.connect(**target.connect_options()) as connection:
            result = await connection.run('cat; echo wrong >&2; exit 3', input=CONTENT, encoding=None)
            assert (result.stdout, result.stderr, result.exit_status) == (CONTENT, b'wrong\n', 3)
            assert (await connection.run('exit 5', input=CONTENT, encoding=None)).exit_status == 5


async def test_server_redirects_to_files(key_ring: KeyRing, tmp_path: Path) -> None:
    (tmp_path / 'source').write_bytes(CONTENT)

    async def handler(process: Any) -> None:
        errors = io.BytesIO(b'errors')
        await process.redirect(tmp_path / 'received', tmp_path / 'source', errors)
        await process.stdout.drain()
        await process.stderr.drain()
        await process.wait_for_redirections()
        process.exit(0)

    async with our_server(key_ring, tmp_path / 's', process_factory=handler, encoding=None) as target:
        async with ssh_fast.connect(**target.connect_options()) as connection:
            result = await connection.run('', input=CONTENT, encoding=None, check=True)
            assert (result.stdout, result.stderr) == (CONTENT, b'errors')
    assert (tmp_path / 'received').read_bytes() == CONTENT


async def test_server_passes_a_session_on(key_ring: KeyRing, tmp_path: Path, openssh_server: OpenSSHServer) -> None:
    seen = []

    async def inner(process: Any) -> None:
        while not process.stdin.at_eof():
            try:
                process.stdout.write((await process.stdin.read()).upper())
            except (ssh_fast.SignalReceived, ssh_fast.BreakReceived, ssh_fast.TerminalSizeChanged) as exc:
                seen.append(str(exc))
        process.exit_with_signal('HUP')

    async def outer(process: Any) -> None:
        async with ssh_fast.connect(**behind.connect_options()) as onward:
            remote = await onward.create_process('x', encoding=None, term_type='vt100')
            await process.redirect(remote.stdin, remote.stdout, remote.stderr)
            await process.stdout.drain()
            result = await remote.wait()
            process.exit_with_signal(*result.exit_signal)

    async with (
        our_server(key_ring, tmp_path / 'b', process_factory=inner, encoding=None) as behind,
        our_server(key_ring, tmp_path / 'f', process_factory=outer, encoding=None) as front,
        ssh_fast.connect(**front.connect_options()) as connection,
    ):
        process = await connection.create_process('x', encoding=None, term_type='vt100')
        await asyncio.sleep(0.2)
        process.send_signal('USR1')
        process.send_break(7)
        process.change_terminal_size(10, 20)
        await until(lambda: len(seen) == 3)
        process.stdin.write(b'text')
        process.stdin.write_eof()
        result = await process.wait()
        assert (result.stdout, result.exit_signal[0]) == (b'TEXT', 'HUP')
    assert seen == ['Signal: USR1', 'Break for 7 msec', 'Terminal size change: (10, 20, 0, 0)']


async def test_typed_end_of_input_ends_a_redirected_program(key_ring: KeyRing, tmp_path: Path) -> None:
    """With a terminal and text, which is when there is a line editor, as without."""
    async with our_server(key_ring, tmp_path / 's', process_factory=run_shell) as target:
        async with ssh_fast.connect(**target.connect_options()) as connection:
            assert (await connection.run('sort', input='b\nä\n')).stdout == 'b\nä\n'
            process = await connection.create_process('sort', term_type='vt100')
            process.stdin.write('b\ra\r\x04')
            result = await process.wait(check=True)
    assert result.stdout.endswith('a\r\nb\r\n')


async def test_source_that_fails_on_the_server(key_ring: KeyRing, tmp_path: Path) -> None:
    async def handler(process: Any) -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(b'half')
        await process.redirect(stdout=reader)
        await asyncio.sleep(0.05)
        reader.set_exception(OSError(5, 'The disk is broken'))
        await process.wait_closed()

    async with our_server(key_ring, tmp_path / 's', process_factory=handler, encoding=None) as target:
        async with ssh_fast.connect(**target.connect_options()) as connection:
            result = await connection.run('x')
            assert (result.stdout, result.exit_status) == ('half', 1)
