"""What goes wrong half-way: peers that are killed or freeze, disks that are full, files that may not be had."""

import asyncio
import contextlib
import errno
import os
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from tests.interop import peers
from tests.interop.ours import BIG, MIB, digest, make_files, nothing_leaks, open_fds, our_server, quick_folder, watching
from tests.interop.peers import CommandFailed, KeyRing, OpenSSHServer, Target


@pytest.fixture(scope='module')
def folder() -> Iterator[Path]:
    """Where the big files lie; they have holes only."""
    with quick_folder() as folder:
        with (folder / 'big').open('wb') as file:
            file.truncate(BIG * 4)
        yield folder


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    if os.getuid() != 0:
        pytest.skip('mounting a small file system needs root')
    place = tmp_path / 'small'
    place.mkdir()
    command = ['mount', '-t', 'tmpfs', '-o', 'size=4m', 'none', str(place)]
    mount = subprocess.run(command, capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f'a small file system cannot be mounted here: {mount.stderr.strip()}')
    try:
        yield place
    finally:
        subprocess.run(['umount', '-l', str(place)], check=True)


@pytest.fixture
async def our_target(key_ring: KeyRing, tmp_path: Path) -> AsyncIterator[Target]:
    async with our_server(key_ring, tmp_path / 'ours') as target:
        yield target


@contextlib.asynccontextmanager
async def sftp_to(target: Target, **options: Any) -> AsyncIterator[Any]:
    async with ssh_fast.connect(**target.connect_options(**options)) as connection:
        async with connection.start_sftp_client() as sftp:
            yield sftp


LOST = ssh_fast.ConnectionLost, ssh_fast.SFTPConnectionLost

# --- a server that is killed, or freezes ------------------------------------------------------------------------------


def after(size: int, event: Callable[[], object]) -> Callable[..., None]:
    """A progress handler that calls something, once, when so much is done."""
    done = False

    def handler(source: bytes, target: bytes, so_far: int, total: int) -> None:
        nonlocal done
        if so_far >= size and not done:
            done = True
            event()

    return handler


@pytest.mark.parametrize('way', ['get', 'put'])
async def test_server_is_killed(way: str, key_ring: KeyRing, folder: Path, tmp_path: Path) -> None:
    copy = folder / f'{way}-killed'
    with OpenSSHServer(key_ring, tmp_path / 'sshd') as server:
        async with nothing_leaks():
            connection = await ssh_fast.connect(**server.target.connect_options())
            sftp = await connection.start_sftp_client()
            killed = 0.0

            def kill() -> None:
                nonlocal killed
                killed = time.monotonic()
                for pid in server.processes()[1:]:
                    os.kill(pid, signal.SIGKILL)

            with pytest.raises(LOST) as caught:
                await getattr(sftp, way)(str(folder / 'big'), str(copy), progress_handler=after(5 * MIB, kill))
            assert killed
            assert time.monotonic() - killed < 1
            if isinstance(caught.value, ssh_fast.SFTPError):
                assert os.fsencode(copy) == caught.value.dstpath
            with pytest.raises((ssh_fast.Error, OSError)):
                await sftp.stat('.')
            await asyncio.wait_for(connection.wait_closed(), 1)
            with pytest.raises(ssh_fast.ConnectionLost):
                await connection.run('true')
    if way == 'get':
        assert not copy.exists()
    copy.unlink(missing_ok=True)


async def test_everybody_who_waits_is_told(key_ring: KeyRing, folder: Path, tmp_path: Path) -> None:
    with OpenSSHServer(key_ring, tmp_path / 'sshd') as server:
        async with nothing_leaks():
            connection = await ssh_fast.connect(**server.target.connect_options())
            sftp = await connection.start_sftp_client()
            process = await connection.create_process('sleep 20')
            file = await sftp.open(str(folder / 'big'), 'rb')
            victims = server.processes()[1:]
            # Stopped first, so that nothing can be done before it is killed.
            for pid in victims:
                os.kill(pid, signal.SIGSTOP)
            waiting = [
                asyncio.ensure_future(sftp.get(str(folder / 'big'), str(folder / 'told1'))),
                asyncio.ensure_future(sftp.put(str(folder / 'big'), str(folder / 'told2'))),
                asyncio.ensure_future(file.read()),
                asyncio.ensure_future(process.stdout.read()),
                asyncio.ensure_future(connection.run('sleep 20', check=True)),
            ]
            await asyncio.sleep(0.1)
            assert not any(task.done() for task in waiting)
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            done, pending = await asyncio.wait(waiting, timeout=1)
            assert not pending
            for task in waiting:
                assert isinstance(task.exception(), ssh_fast.Error), task
            del done, pending, waiting, task, process, file
    for name in ('told1', 'told2'):
        (folder / name).unlink(missing_ok=True)


@pytest.mark.parametrize('way', ['get', 'put'])
async def test_server_freezes(way: str, key_ring: KeyRing, folder: Path, tmp_path: Path) -> None:
    """Keepalives notice what TCP doesn't tell."""
    copy = folder / f'{way}-frozen'
    with OpenSSHServer(key_ring, tmp_path / 'sshd') as server:
        stopped: list[int] = []

        def freeze() -> None:
            stopped.extend(server.processes()[1:])
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)

        try:
            options = server.target.connect_options(keepalive_interval=0.3, keepalive_count_max=2)
            connection = await ssh_fast.connect(**options)
            sftp = await connection.start_sftp_client()
            with pytest.raises(LOST):
                async with asyncio.timeout(5):
                    await getattr(sftp, way)(str(folder / 'big'), str(copy), progress_handler=after(5 * MIB, freeze))
            assert stopped
            async with asyncio.timeout(1):
                await connection.wait_closed()
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGKILL)
    copy.unlink(missing_ok=True)


async def test_transfer_is_cancelled(openssh_server: OpenSSHServer, folder: Path) -> None:
    """The connection stays of use, and what was under way does no harm."""
    async with sftp_to(openssh_server.target) as sftp:
        for way in ('get', 'put'):
            copy = folder / f'{way}-cancelled'
            begun = asyncio.Event()
            task = asyncio.ensure_future(
                getattr(sftp, way)(str(folder / 'big'), str(copy), progress_handler=after(5 * MIB, begun.set))
            )
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 1)
            assert (await sftp.stat(str(folder / 'big'))).size == BIG * 4
            copy.unlink(missing_ok=True)
        async with nothing_leaks():
            small = make_files(folder, (100_000,)) / 'f100000'
            await sftp.get(str(small), str(folder / 'small'))
        assert digest(folder / 'small') == digest(small)


@pytest.mark.parametrize('atomic', [False, True])
@pytest.mark.parametrize('way', ['get', 'put'])
async def test_killed_again_and_again_then_resumed(
    way: str, atomic: bool, key_ring: KeyRing, folder: Path, tmp_path: Path
) -> None:
    """Each time it goes on where it stopped; nothing is ever seen under the name but what is whole, if it is atomic."""
    chance = random.Random(f'{way} {atomic}')
    copy = folder / f'{way}-resumed-{atomic}'
    content = chance.randbytes(40 * MIB)
    (folder / 'random').write_bytes(content)
    moved = 0
    with OpenSSHServer(key_ring, tmp_path / 'sshd') as server:
        def kill() -> None:
            for pid in server.processes()[1:]:
                os.kill(pid, signal.SIGKILL)

        for _ in range(6):
            progress = after(chance.randrange(len(content)), kill)
            async with ssh_fast.connect(**server.target.connect_options()) as connection:
                sftp = await connection.start_sftp_client()
                options: dict[str, Any] = {'resume': True, 'atomic': atomic, 'progress_handler': progress}
                with contextlib.suppress(*LOST):
                    result = await getattr(sftp, way)(str(folder / 'random'), str(copy), **options)
                    moved += result.bytes
            if atomic:
                assert not copy.exists() or copy.read_bytes() == content
        async with sftp_to(server.target) as sftp:
            await getattr(sftp, way)(str(folder / 'random'), str(copy), resume=True, atomic=atomic, verify=True)
    assert copy.read_bytes() == content and moved <= len(content)
    assert not (folder / f'.{copy.name}.part').exists()
    copy.unlink()
    (folder / 'random').unlink()


# --- a client that is killed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize('way', ['get', 'put'])
async def test_client_is_killed(way: str, key_ring: KeyRing, folder: Path, tmp_path: Path) -> None:
    made, factory = watching()
    copy = folder / f'{way}-by-killed'
    async with our_server(key_ring, tmp_path / 'ours', server_factory=factory) as target, nothing_leaks():
        command = peers.sftp(target, f'{way} {folder}/big {copy}')
        task = asyncio.ensure_future(command.run_async(check=False))
        async with asyncio.timeout(10):
            while not copy.exists() or copy.stat().st_size < 5 * MIB:
                await asyncio.sleep(0.01)
        task.cancel()  # which kills sftp and its ssh
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await asyncio.wait_for(made[0].lost, 1)
        await asyncio.sleep(0)
        size = copy.stat().st_size
        assert not [fd for fd in open_fds() if str(folder) in fd]
        assert size < BIG * 4
        await asyncio.sleep(0.1)
        assert copy.stat().st_size == size
    copy.unlink()


async def test_client_freezes(key_ring: KeyRing, folder: Path, tmp_path: Path) -> None:
    """A client that doesn't read what it asked for costs a bounded amount of memory, and is given up."""
    made, factory = watching()
    options: dict[str, Any] = {'server_factory': factory, 'keepalive_interval': 0.3, 'keepalive_count_max': 2}
    copy = folder / 'by-frozen'
    async with our_server(key_ring, tmp_path / 'ours', **options) as target:
        command = peers.sftp(target, f'get {folder}/big {copy}')
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        assert process.stdin
        process.stdin.write(command.stdin)
        async with asyncio.timeout(10):
            while not copy.exists() or copy.stat().st_size < 5 * MIB:
                await asyncio.sleep(0.01)
        os.killpg(process.pid, signal.SIGSTOP)
        try:
            assert isinstance(await asyncio.wait_for(made[0].lost, 5), ssh_fast.ConnectionLost)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    copy.unlink()


# --- full disks -------------------------------------------------------------------------------------------------------


async def test_remote_disk_is_full(openssh_server: OpenSSHServer, full_disk: Path, tmp_path: Path) -> None:
    source = make_files(tmp_path, (8 * MIB,)) / f'f{8 * MIB}'
    async with sftp_to(openssh_server.target) as sftp:
        async with nothing_leaks():
            with pytest.raises(ssh_fast.SFTPError) as caught:
                await sftp.put(str(source), str(full_disk / 'copy'))
        assert caught.value.srcpath == os.fsencode(source)
        assert caught.value.dstpath == os.fsencode(full_disk / 'copy')
        with pytest.raises(ssh_fast.SFTPError):
            async with sftp.open(str(full_disk / 'other'), 'wb') as file:
                await file.write(source.read_bytes())
        await sftp.stat('.')


async def test_our_disk_is_full(openssh_server: OpenSSHServer, full_disk: Path, tmp_path: Path) -> None:
    source = make_files(tmp_path, (8 * MIB,)) / f'f{8 * MIB}'
    copy = full_disk / 'copy'
    async with sftp_to(openssh_server.target) as sftp:
        async with nothing_leaks():
            with pytest.raises((OSError, ssh_fast.SFTPError)) as caught:
                await sftp.get(str(source), str(copy))
        error: Any = caught.value
        assert getattr(error, 'errno', None) == errno.ENOSPC or 'No space left' in str(error)
        assert str(copy) in str(error) or os.fsencode(copy) in (getattr(error, 'dstpath', None), error.filename)
        assert not copy.exists() or copy.stat().st_size < 8 * MIB
        await sftp.stat('.')


@pytest.mark.parametrize('client', ['sftp', 'scp', 'rclone', 'lftp'])
async def test_disk_of_our_server_is_full(client: str, our_target: Target, full_disk: Path, tmp_path: Path) -> None:
    source, copy = make_files(tmp_path, (8 * MIB,)) / f'f{8 * MIB}', full_disk / 'copy'
    commands = {
        'sftp': lambda: peers.sftp(our_target, f'put {source} {copy}'),
        'scp': lambda: peers.scp(our_target, str(source), f'remote:{copy}'),
        'rclone': lambda: peers.rclone(our_target, 'copyto', str(source), f':sftp:{copy}'),
        'lftp': lambda: peers.lftp(our_target, f'put {source} -o {copy}'),
    }
    with pytest.raises(CommandFailed) as caught:
        await commands[client]().run_async()
    if client != 'lftp':  # which says little
        assert 'ail' in str(caught.value) or 'No space' in str(caught.value)
    copy.unlink(missing_ok=True)
    await peers.sftp(our_target, f'put {our_target.host_key} {copy}').run_async()
    assert digest(copy) == digest(our_target.host_key)


async def test_device_without_room(openssh_server: OpenSSHServer, our_target: Target, tmp_path: Path) -> None:
    """/dev/full takes nothing: needs no rights, and fails at the first block."""
    source = make_files(tmp_path, (100_000,)) / 'f100000'
    for target in (openssh_server.target, our_target):
        async with sftp_to(target) as sftp:
            with pytest.raises(ssh_fast.SFTPError) as caught:
                await sftp.put(str(source), '/dev/full')
            assert caught.value.dstpath == b'/dev/full'
    assert 'No space left' in caught.value.reason
    with pytest.raises(CommandFailed):
        await peers.sftp(our_target, f'put {source} /dev/full').run_async()


# --- files that may not be had ----------------------------------------------------------------------------------------


async def test_missing_files(openssh_server: OpenSSHServer, tmp_path: Path) -> None:
    async with sftp_to(openssh_server.target) as sftp:
        with pytest.raises(ssh_fast.SFTPNoSuchFile) as remote:
            await sftp.get(str(tmp_path / 'nothing'), str(tmp_path / 'copy'))
        assert remote.value.srcpath == os.fsencode(tmp_path / 'nothing')
        assert not (tmp_path / 'copy').exists()
        with pytest.raises((FileNotFoundError, ssh_fast.SFTPNoSuchFile)) as local:
            await sftp.put(str(tmp_path / 'nothing'), str(tmp_path / 'copy'))
        assert str(tmp_path / 'nothing') in f'{local.value} {local.value.srcpath}'
        assert not (tmp_path / 'copy').exists()
        with pytest.raises(ssh_fast.SFTPNoSuchFile):
            await sftp.put(__file__, str(tmp_path / 'nowhere/copy'))


async def test_folders_in_the_way(openssh_server: OpenSSHServer, tmp_path: Path) -> None:
    source = make_files(tmp_path / 'source', (1000,)) / 'f1000'
    (tmp_path / 'there/f1000').mkdir(parents=True)
    async with sftp_to(openssh_server.target) as sftp:
        await sftp.put(str(source), str(tmp_path / 'there/f1000'))  # a folder takes what is put
        assert (tmp_path / 'there/f1000/f1000').read_bytes() == source.read_bytes()
        with pytest.raises(ssh_fast.SFTPError) as caught:
            await sftp.put(str(source), str(tmp_path / 'there'))
        assert b'/there/f1000' in caught.value.dstpath
        with pytest.raises((ssh_fast.SFTPError, OSError)):
            await sftp.get(str(source), str(tmp_path / 'there'))
        with pytest.raises(ssh_fast.SFTPError):
            await sftp.get(str(tmp_path / 'source'), str(tmp_path / 'copy'))  # without `recurse`
        assert not (tmp_path / 'copy').exists()
        with pytest.raises(ssh_fast.SFTPError):
            async with sftp.open(str(tmp_path / 'there'), 'wb'):
                pass


async def test_permission_is_denied(openssh_server: OpenSSHServer, our_target: Target, tmp_path: Path) -> None:
    """Nobody makes files in /sys, not even root."""
    source, forbidden = make_files(tmp_path, (1000,)) / 'f1000', '/sys/kernel/nothing-may-be-made-here'
    for target in (openssh_server.target, our_target):
        async with sftp_to(target) as sftp:
            with pytest.raises(ssh_fast.SFTPPermissionDenied) as caught:
                await sftp.put(str(source), forbidden)
            assert caught.value.dstpath == forbidden.encode()
            with pytest.raises((PermissionError, ssh_fast.SFTPPermissionDenied)) as local:
                await sftp.get(str(source), forbidden)
            assert forbidden in f'{local.value} {local.value.dstpath}'
            with pytest.raises(ssh_fast.SFTPPermissionDenied):
                await sftp.mkdir(forbidden)


async def test_one_bad_file_of_many(openssh_server: OpenSSHServer, tmp_path: Path) -> None:
    source = make_files(tmp_path / 'source', (1, 2, 3, 70_000))
    (tmp_path / 'there/source/f2').mkdir(parents=True)
    failures: list[Any] = []
    async with sftp_to(openssh_server.target) as sftp:
        await sftp.put(str(source), str(tmp_path / 'there'), recurse=True, error_handler=failures.append)
    assert [error.dstpath for error in failures] == [os.fsencode(tmp_path / 'there/source/f2')]
    for name in ('f1', 'f3', 'f70000'):
        assert digest(tmp_path / 'there/source' / name) == digest(source / name)


async def test_file_shrinks_or_grows(openssh_server: OpenSSHServer, folder: Path) -> None:
    """A file that changes under the transfer gives an error or its new content, never a short copy called complete."""
    source, copy = folder / 'changing', folder / 'changed'
    for way in ('get', 'put'):
        for size in (4 * MIB, 90 * MIB):
            with source.open('wb') as file:
                file.truncate(64 * MIB)
            async with sftp_to(openssh_server.target) as sftp:
                change = after(2 * MIB, lambda size=size: os.truncate(source, size))  # type: ignore[misc]
                try:
                    await getattr(sftp, way)(str(source), str(copy), progress_handler=change, sparse=False)
                except (ssh_fast.SFTPError, OSError):
                    pass
                else:
                    assert copy.stat().st_size in ((64 * MIB, 90 * MIB) if size > 64 * MIB else (4 * MIB, 64 * MIB))
            source.unlink()
            copy.unlink(missing_ok=True)
