import asyncio
import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ssh_fast.sftp.attrs import SFTPAttrs
from ssh_fast.sftp.errors import (
    SFTPConnectionLost,
    SFTPError,
    SFTPFailure,
    SFTPFileIsADirectory,
    SFTPNoSuchFile,
    SFTPNotADirectory,
    SFTPOpUnsupported,
    SFTPPermissionDenied,
)
from ssh_fast.sftp.server import SFTPServer

from .ends import rooted, sftp_pair

SIZES = [0, 1, 32767, 32768, 32769, 261119, 261121, 5 << 20]


@pytest.fixture
def near(tmp_path: Path) -> Path:
    (tmp_path / 'near').mkdir()

    return tmp_path / 'near'


@pytest.fixture
def far(tmp_path: Path) -> Path:
    (tmp_path / 'far').mkdir()

    return tmp_path / 'far'


def make_tree(root: Path, files: int = 40) -> dict[str, bytes]:
    content = {}

    for number in range(files):
        path = root / ('.' if number % 4 == 0 else f'd{number % 4}/e{number % 3}') / f'file{number}'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(number * 997))
        os.utime(path, (1000 + number, 2000 + number))
        content[str(path.relative_to(root))] = path.read_bytes()

    (root / 'empty').mkdir()
    os.symlink('file0', root / 'link')
    os.symlink('../../file4', root / 'd1' / 'e1' / 'uplink')
    (root / 'file8').chmod(0o754)

    return content


def read_tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob('*')
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.parametrize('size', SIZES)
async def test_files_of_all_sizes(near: Path, far: Path, size: int) -> None:
    data = os.urandom(size)
    (near / 'up').write_bytes(data)
    told: list[Any] = []

    async with sftp_pair(rooted(far)) as (sftp, session, _):
        await sftp.put(near / 'up', 'a', progress_handler=lambda *args: told.append(args))
        assert (far / 'a').read_bytes() == data
        await sftp.copy('a', 'b', progress_handler=lambda *args: told.append(args))
        await sftp.get('b', near / 'down', progress_handler=lambda *args: told.append(args))
        assert (near / 'down').read_bytes() == data
        assert not list(session._handles)

    for source, target in ((os.fsencode(near / 'up'), b'a'), (b'a', b'b'), (b'b', os.fsencode(near / 'down'))):
        of_one = [args[2:] for args in told if args[:2] == (source, target)]
        assert of_one[-1] == (size, size) and len(set(of_one)) == len(of_one)
        assert of_one == sorted(of_one)


@pytest.mark.parametrize('preserve', [False, True])
async def test_trees(near: Path, far: Path, preserve: bool) -> None:
    (near / 'tree').mkdir()
    content = make_tree(near / 'tree')

    async with sftp_pair(rooted(far)) as (sftp, session, _):
        await sftp.put(near / 'tree', recurse=True, preserve=preserve)
        await sftp.copy('tree', 'again', recurse=True, preserve=preserve)
        await sftp.get('again', near / 'back', recurse=True, preserve=preserve)
        # A second time over what is there.
        await sftp.get('again', near / 'back2', recurse=True)
        await sftp.get('again/.', near / 'back2', recurse=True)
        await sftp.put(near / 'tree', '/', recurse=True)
        assert not list(session._handles)

    for root in (far / 'tree', far / 'again', near / 'back', near / 'back2'):
        assert read_tree(root) == content
        assert os.readlink(root / 'link') == 'file0' and os.readlink(root / 'd1' / 'e1' / 'uplink') == '../../file4'
        assert (root / 'empty').is_dir()

    if preserve:
        result = (near / 'back' / 'file8').stat()
        assert (stat.S_IMODE(result.st_mode), result.st_mtime) == (0o754, 2008)


async def test_links_followed(near: Path, far: Path) -> None:
    (near / 'tree').mkdir()
    (near / 'tree' / 'file').write_text('data')
    os.symlink('file', near / 'tree' / 'link')
    os.symlink('.', near / 'dirlink')

    async with sftp_pair(rooted(far)) as (sftp, _, _):
        await sftp.put(near / 'tree', recurse=True, follow_symlinks=True)
        assert (far / 'tree' / 'link').read_text() == 'data' and not (far / 'tree' / 'link').is_symlink()
        os.symlink('file', far / 'tree' / 'link2')
        await sftp.get('tree', near / 'out', recurse=True, follow_symlinks=True)
        assert not (near / 'out' / 'link2').is_symlink() and (near / 'out' / 'link2').read_text() == 'data'


async def test_lists_and_patterns(near: Path, far: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('a1', 'a2', 'b1'):
        (near / name).write_text(name)

    (near / 'out').mkdir()

    async with sftp_pair(rooted(far)) as (sftp, _, _):
        await sftp.put([near / 'a1', str(near / 'b1')], '/')
        assert sorted(os.listdir(far)) == ['a1', 'b1']
        await sftp.mput(str(near / 'a*'))
        await sftp.mget('a?', near / 'out')
        assert sorted(os.listdir(near / 'out')) == ['a1', 'a2']
        await sftp.mkdir('copies')
        await sftp.mcopy(['a*', 'b1'], 'copies')
        assert sorted(os.listdir(far / 'copies')) == ['a1', 'a2', 'b1']

        with pytest.raises(SFTPNotADirectory):
            await sftp.get(['a1', 'a2'], near / 'nowhere')

        with pytest.raises(SFTPNoSuchFile):
            await sftp.mget('x*', near / 'out')

        with pytest.raises(SFTPNoSuchFile):
            await sftp.mput(str(near / 'x*'))

        monkeypatch.chdir(near / 'out')
        await sftp.get('b1')
        assert (near / 'out' / 'b1').read_text() == 'b1'


async def test_errors_of_copies(near: Path, far: Path) -> None:
    (far / 'tree').mkdir()
    (far / 'tree' / 'good').write_text('good')
    os.mkfifo(far / 'tree' / 'fifo')
    os.mkfifo(near / 'fifo')
    (near / 'is-dir').mkdir()

    async with sftp_pair(rooted(far)) as (sftp, session, _):
        with pytest.raises(SFTPNoSuchFile) as info:
            await sftp.get('missing', near / 'x')

        assert (info.value.srcpath, info.value.dstpath) == (b'missing', os.fsencode(near / 'x'))
        assert not (near / 'x').exists()

        with pytest.raises(FileNotFoundError) as info2:
            await sftp.put(near / 'missing', 'y')

        assert vars(info2.value) == {'srcpath': os.fsencode(near / 'missing'), 'dstpath': b'y'}
        assert not (far / 'y').exists()

        with pytest.raises(SFTPFileIsADirectory):
            await sftp.get('tree', near / 'z')

        with pytest.raises(SFTPFailure, match='not a regular file'):
            await sftp.get('tree', near / 'z', recurse=True)

        with pytest.raises(SFTPFailure, match='not a regular file'):
            await sftp.put(near / 'fifo')

        errors: list[Exception] = []
        await sftp.get('tree', near / 'w', recurse=True, error_handler=errors.append)
        assert [type(exc) for exc in errors] == [SFTPFailure] and (near / 'w' / 'good').read_text() == 'good'
        await sftp.get('tree', near / 'v', recurse=True, error_handler=False)
        assert (near / 'v' / 'good').exists()

        with pytest.raises(IsADirectoryError):
            (near / 'is-dir' / 'good').mkdir()
            await sftp.get('tree/good', near / 'is-dir')

        with pytest.raises(SFTPFailure):
            await sftp.put(near / 'v' / 'good', 'tree/fifo')

        with pytest.raises(SFTPFailure, match='same file'):
            await sftp.copy('tree/good', '/tree/../tree/good')

        assert (far / 'tree' / 'good').read_text() == 'good'

        sftp.session.extensions.pop(b'copy-data')

        with pytest.raises(SFTPOpUnsupported):
            await sftp.copy('tree/good', 'x', remote_only=True)

        with pytest.raises(SFTPOpUnsupported):
            await sftp.remote_copy('tree/good', 'x')

        with pytest.raises(SFTPFailure, match='name'):
            await sftp.get('..', near, recurse=True)

        assert not list(session._handles)


async def test_options_are_honoured(near: Path, far: Path) -> None:
    data = os.urandom(100_000)
    (near / 'file').write_bytes(data)
    sizes: list[int] = []
    now = most = 0

    class Counting(SFTPServer):
        async def read(self, file_obj: object, offset: int, size: int) -> bytes:
            sizes.append(size)

            return SFTPServer.read(self, file_obj, offset, size)  # type: ignore[return-value]

        async def write(self, file_obj: object, offset: int, data: bytes) -> int:
            nonlocal now, most
            sizes.append(len(data))

            return SFTPServer.write(self, file_obj, offset, data)  # type: ignore[return-value]

    async with sftp_pair(lambda chan: Counting(chan, str(far))) as (sftp, _, _):
        await sftp.put(near / 'file', 'file', block_size=1000, max_requests=2)
        assert set(sizes) == {1000} and len(sizes) == 100
        sizes.clear()
        await sftp.get('file', near / 'back', block_size=3000)
        assert max(sizes) == 3000 and (near / 'back').read_bytes() == data


async def test_holes_are_not_sent(near: Path, far: Path) -> None:
    with open(near / 'sparse', 'wb') as file:
        file.truncate(40 << 20)
        file.seek(20 << 20)
        file.write(b'middle')

    if os.stat(near / 'sparse').st_blocks * 512 >= 40 << 20:
        pytest.skip('no holes here')

    async with sftp_pair(rooted(far)) as (sftp, _, pair):
        before = pair.client.writer.total_bytes
        await sftp.put(near / 'sparse')
        assert pair.client.writer.total_bytes - before < 2 << 20
        before = pair.client.writer.total_bytes
        await sftp.put(near / 'sparse', 'full', sparse=False)
        assert pair.client.writer.total_bytes - before > 40 << 20

    for name in ('sparse', 'full'):
        assert hashlib.sha256((far / name).read_bytes()).digest() == hashlib.sha256(
            (near / 'sparse').read_bytes()
        ).digest()


async def test_a_file_that_claims_to_be_empty(near: Path, far: Path) -> None:
    async with sftp_pair() as (sftp, _, _):
        await sftp.put('/proc/self/status', far / 'status')
        assert b'Name:' in (far / 'status').read_bytes()
        await sftp.get('/proc/version', near / 'version')
        assert (near / 'version').read_bytes() == Path('/proc/version').read_bytes()
        await sftp.copy('/proc/version', far / 'version')
        assert (far / 'version').read_bytes() == Path('/proc/version').read_bytes()


async def test_full_disks(near: Path, far: Path) -> None:
    (near / 'file').write_bytes(b'x' * 1000)
    (far / 'file').write_bytes(b'y' * 1000)

    async with sftp_pair() as (sftp, session, _):
        with pytest.raises(OSError, match='full') as info:
            await sftp.get(far / 'file', '/dev/full')

        assert info.value.errno == errno.ENOSPC and info.value.filename == '/dev/full'

        with pytest.raises(SFTPFailure, match='No space left') as info2:
            await sftp.put(near / 'file', '/dev/full')

        assert info2.value.dstpath == b'/dev/full'
        assert not list(session._handles)


class Failing(SFTPServer):
    """Serves a file whose end cannot be read or written."""

    def read(self, file_obj: object, offset: int, size: int) -> Any:
        if offset + size > 1 << 20:
            raise OSError(errno.EIO, 'Input/output error')

        return super().read(file_obj, offset, size)

    def write(self, file_obj: object, offset: int, data: bytes) -> Any:
        if offset == 1 << 20:
            raise OSError(errno.ENOSPC, 'No space left on device')

        return super().write(file_obj, offset, data)


async def test_no_failed_copy_looks_whole(near: Path, far: Path) -> None:
    (near / 'file').write_bytes(os.urandom(3 << 20))
    (far / 'file').write_bytes(os.urandom(3 << 20))
    (near / 'there').write_bytes(b'z' * (3 << 20))

    async with sftp_pair(lambda chan: Failing(chan, str(far))) as (sftp, session, _):
        with pytest.raises(SFTPFailure, match='Input/output error') as info:
            await sftp.get('file', near / 'new')

        assert info.value.offset is not None and info.value.offset >= (1 << 20) - 262144
        assert not (near / 'new').exists()

        with pytest.raises(SFTPFailure):
            await sftp.get('file', near / 'there', atomic=False)

        assert (near / 'there').stat().st_size == 0

        with pytest.raises(SFTPFailure, match='No space left') as info:
            await sftp.put(near / 'file', 'up', block_size=1 << 16)

        assert info.value.offset == 1 << 20
        await sftp.stat('/')
        assert (far / 'up').stat().st_size == 1 << 20
        assert not list(session._handles)


async def test_a_file_that_shrinks_and_one_that_grows(near: Path, far: Path) -> None:
    class Lying(SFTPServer):
        """Lists other sizes than its files have."""

        def lstat(self, path: bytes) -> Any:
            attrs = SFTPAttrs.from_local(os.stat(self.map_path(path)))
            attrs.size = 5000

            return attrs

        def fstat(self, file_obj: object) -> Any:
            attrs = SFTPAttrs.from_local(os.fstat(file_obj.fileno()))  # type: ignore[attr-defined]
            attrs.size = attrs.size if attrs.size != 4000 else 4500

            return attrs

    (far / 'short').write_bytes(b's' * 100)
    (far / 'long').write_bytes(os.urandom(700_000))
    (far / 'cut').write_bytes(b's' * 4000)

    async with sftp_pair(lambda chan: Lying(chan, str(far))) as (sftp, _, _):
        await sftp.get(['short', 'long'], near)
        assert (near / 'short').read_bytes() == (far / 'short').read_bytes()
        assert (near / 'long').read_bytes() == (far / 'long').read_bytes()

        with pytest.raises(SFTPFailure, match='ended after 4000 of 4500') as info:
            await sftp.get('cut', near / 'cut')

        assert info.value.offset == 4000 and not (near / 'cut').exists()


@pytest.mark.parametrize('turns', [0, 1, 2, 3, 5, 8, 13])
async def test_cancelled_copies(near: Path, far: Path, turns: int) -> None:
    (far / 'tree').mkdir()
    content = make_tree(far / 'tree')
    (far / 'tree' / 'large').write_bytes(os.urandom(20 << 20))

    async with sftp_pair(rooted(far)) as (sftp, session, _):
        task = asyncio.create_task(sftp.get('tree', near / 'tree', recurse=True))

        for _ in range(turns):
            await asyncio.sleep(0)

        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

        for path, data in read_tree(near / 'tree').items() if (near / 'tree').exists() else ():
            assert content[path] == data

        for _ in range(3):
            await sftp.stat('/')

        assert not list(session._handles)
        await sftp.get('tree', near / 'tree', recurse=True)
        assert len(read_tree(near / 'tree')) == len(content) + 1


@pytest.mark.parametrize('turns', [1, 3, 6])
async def test_a_connection_that_goes(near: Path, far: Path, turns: int) -> None:
    (far / 'large').write_bytes(os.urandom(20 << 20))
    (near / 'large').write_bytes(os.urandom(20 << 20))

    async with sftp_pair(rooted(far)) as (sftp, session, pair):
        tasks = [
            asyncio.create_task(sftp.get('large', near / 'down')),
            asyncio.create_task(sftp.put(near / 'large', 'up')),
            asyncio.create_task(sftp.stat('/')),
        ]

        for _ in range(turns):
            await asyncio.sleep(0)

        done_before = {task for task in tasks if task.done()}
        pair.lose(SFTPConnectionLost('gone'))
        results = await asyncio.gather(*tasks, return_exceptions=True)

        for task, result in zip(tasks, results, strict=True):
            assert task in done_before or isinstance(result, SFTPError), result

        assert tasks[0] in done_before or not (near / 'down').exists()

        for _ in range(10):
            await asyncio.sleep(0)

        assert not list(session._handles)


async def test_a_progress_handler_that_raises(near: Path, far: Path) -> None:
    (far / 'file').write_bytes(os.urandom(3 << 20))

    def progress(*args: Any) -> None:
        raise RuntimeError('stop')

    async with sftp_pair(rooted(far)) as (sftp, session, _):
        with pytest.raises(RuntimeError, match='stop'):
            await sftp.get('file', near / 'file', progress_handler=progress)

        assert not (near / 'file').exists()
        await sftp.stat('/')
        assert not list(session._handles)


async def test_set_id_bits_are_not_taken_over(near: Path, far: Path) -> None:
    (far / 'file').write_text('x')
    (far / 'file').chmod(0o6755)

    async with sftp_pair(rooted(far)) as (sftp, _, _):
        await sftp.get('file', near / 'file', preserve=True)
        assert stat.S_IMODE((near / 'file').stat().st_mode) == 0o755


async def test_a_server_that_refuses(near: Path, far: Path) -> None:
    class ReadOnly(SFTPServer):
        async def open(self, path: bytes, pflags: int, attrs: SFTPAttrs) -> object:
            raise SFTPPermissionDenied('Read only')

    (near / 'file').write_text('x')

    async with sftp_pair(lambda chan: ReadOnly(chan, str(far))) as (sftp, _, _):
        with pytest.raises(SFTPPermissionDenied, match='Read only'):
            await sftp.put(near / 'file')


async def test_a_missing_local_file_is_named_as_text(near: Path, far: Path) -> None:
    async with sftp_pair(rooted(far)) as (sftp, _, _):
        with pytest.raises(FileNotFoundError) as caught:
            await sftp.put(near / 'missing', 'x')

    assert caught.value.filename == str(near / 'missing')
    assert f"'{near / 'missing'}'" in str(caught.value)
    assert not (far / 'x').exists()


async def test_a_cancellation_from_within_is_a_failure(near: Path, far: Path) -> None:
    """It must not pass for the end of a copy."""

    (far / 'file').write_bytes(bytes(2 << 20))

    def handler(exc: Exception) -> None:
        raise asyncio.CancelledError

    async with sftp_pair(lambda chan: Failing(chan, str(far))) as (sftp, _, _):
        with pytest.raises(SFTPFailure, match='cancelled from within'):
            await sftp.get('file', near / 'file', error_handler=handler)

    assert not (near / 'file').exists()
