import os
from pathlib import Path

import pytest

from ssh_fast.constants import (
    FILEXFER_TYPE_DIRECTORY,
    FILEXFER_TYPE_SYMLINK,
    FXF_CREAT,
    FXF_WRITE,
    FXR_OVERWRITE,
    FXRP_STAT_ALWAYS,
    FXRP_STAT_IF_EXISTS,
)
from ssh_fast.sftp.attrs import SFTPAttrs, SFTPName
from ssh_fast.sftp.errors import (
    SFTPBadMessage,
    SFTPError,
    SFTPFailure,
    SFTPNoConnection,
    SFTPNoSuchFile,
    SFTPNotADirectory,
    SFTPOpUnsupported,
    SFTPPermissionDenied,
)

from .ends import rooted, sftp_pair


async def test_paths_and_attributes(tmp_path: Path) -> None:
    (tmp_path / 'dir').mkdir()
    (tmp_path / 'dir' / 'file').write_bytes(b'12345')
    os.symlink('file', tmp_path / 'dir' / 'link')
    os.symlink('nothing', tmp_path / 'dir' / 'dangling')

    async with sftp_pair() as (sftp, _, _):
        assert await sftp.getcwd() == os.getcwd()
        await sftp.chdir(tmp_path / 'dir')
        assert await sftp.getcwd() == str(tmp_path / 'dir')
        assert await sftp.realpath('link') == str(tmp_path / 'dir' / 'file')
        assert await sftp.realpath(b'.') == os.fsencode(tmp_path / 'dir')
        assert await sftp.realpath('..', 'dir', 'file') == str(tmp_path / 'dir' / 'file')
        checked = await sftp.realpath('file', check=FXRP_STAT_ALWAYS)
        assert isinstance(checked, SFTPName) and checked.attrs.size == 5
        unchecked = await sftp.realpath('missing', check=FXRP_STAT_IF_EXISTS)
        assert isinstance(unchecked, SFTPName) and unchecked.attrs.size is None

        with pytest.raises(SFTPNoSuchFile):
            await sftp.realpath('missing', check=FXRP_STAT_ALWAYS)

        with pytest.raises(SFTPNotADirectory):
            await sftp.chdir('file')

        assert (await sftp.stat('link')).size == 5
        assert (await sftp.lstat('link')).type == FILEXFER_TYPE_SYMLINK
        assert (await sftp.stat('link', follow_symlinks=False)).type == FILEXFER_TYPE_SYMLINK
        assert (await sftp.stat('.')).type == FILEXFER_TYPE_DIRECTORY
        assert await sftp.exists('link') and not await sftp.exists('dangling') and await sftp.lexists('dangling')
        assert await sftp.isdir('.') and not await sftp.isdir('file')
        assert await sftp.isfile('link') and await sftp.islink('link') and not await sftp.islink('file')
        assert await sftp.getsize('file') == 5
        await sftp.chmod('file', 0o640)
        assert (tmp_path / 'dir' / 'file').stat().st_mode & 0o7777 == 0o640
        await sftp.utime('file', (1000, 2000))
        assert await sftp.getatime('file') == 1000 and await sftp.getmtime_ns('file') == 2000 * 10**9
        await sftp.utime('link', ns=(3 * 10**9, 4 * 10**9), follow_symlinks=False)
        assert (await sftp.lstat('link')).mtime == 4 and await sftp.getmtime('link') == 2000
        await sftp.truncate('file', 2)
        assert (tmp_path / 'dir' / 'file').read_bytes() == b'12'
        await sftp.chown('file', os.getuid(), os.getgid())
        assert await sftp.getcrtime('file') is None
        assert (await sftp.statvfs('.')).bsize == os.statvfs(tmp_path).f_bsize
        assert sftp.limits.max_read_len == 261120

        with pytest.raises(ValueError, match='uid and gid'):
            await sftp.chown('file', uid=1)

        with pytest.raises(SFTPOpUnsupported):
            await sftp.chmod('link', 0o600, follow_symlinks=False)


async def test_names_and_links(tmp_path: Path) -> None:
    async with sftp_pair() as (sftp, _, _):
        await sftp.chdir(tmp_path)
        await sftp.makedirs('a/b/c')

        with pytest.raises(SFTPFailure):
            await sftp.makedirs('a/b/c')

        await sftp.makedirs('a/b/c', exist_ok=True)
        (tmp_path / 'one').write_text('1')
        (tmp_path / 'two').write_text('2')

        with pytest.raises(SFTPFailure):
            await sftp.rename('one', 'two')

        assert (tmp_path / 'one').read_text() == '1' and (tmp_path / 'two').read_text() == '2'
        await sftp.rename('one', 'three')
        assert not (tmp_path / 'one').exists() and (tmp_path / 'three').read_text() == '1'
        await sftp.rename('three', 'two', FXR_OVERWRITE)
        assert (tmp_path / 'two').read_text() == '1'
        await sftp.rename('a/b', 'a/z')

        with pytest.raises(SFTPFailure):
            await sftp.rename('a/z', 'two')

        await sftp.symlink('two', 'soft')
        assert os.readlink(tmp_path / 'soft') == 'two'
        assert await sftp.readlink('soft') == 'two' and await sftp.readlink(b'soft') == b'two'
        await sftp.link('two', 'hard')
        assert (tmp_path / 'hard').stat().st_ino == (tmp_path / 'two').stat().st_ino
        await sftp.remove('hard')
        await sftp.unlink('soft')
        assert sorted(name for name in await sftp.listdir() if name not in ('.', '..')) == ['a', 'two']
        entries = {name.filename: name for name in await sftp.readdir('.')}
        assert entries['two'].attrs.size == 1 and str(entries['two'].longname).startswith('-rw')
        await sftp.rmdir('a/z/c')

        with pytest.raises(SFTPNoSuchFile):
            await sftp.rmdir('a/z/c')

        await sftp.rmtree('a')
        assert not (tmp_path / 'a').exists()


async def test_rmtree_does_not_follow_links_and_reports(tmp_path: Path) -> None:
    (tmp_path / 'keep').mkdir()
    (tmp_path / 'keep' / 'file').write_text('kept')

    for number in range(300):
        (tmp_path / 'tree' / f'd{number % 7}').mkdir(parents=True, exist_ok=True)
        (tmp_path / 'tree' / f'd{number % 7}' / f'f{number}').write_text('')

    os.symlink(tmp_path / 'keep', tmp_path / 'tree' / 'link')

    async with sftp_pair() as (sftp, _, _):
        with pytest.raises(SFTPBadMessage):
            await sftp.rmtree(tmp_path / 'tree' / 'link')

        await sftp.rmtree(tmp_path / 'tree')
        assert not (tmp_path / 'tree').exists() and (tmp_path / 'keep' / 'file').read_text() == 'kept'

        with pytest.raises(SFTPNoSuchFile):
            await sftp.rmtree(tmp_path / 'tree')

        await sftp.rmtree(tmp_path / 'tree', ignore_errors=True)
        seen: list[object] = []
        await sftp.rmtree(tmp_path / 'tree', onerror=lambda *args: seen.append(args))
        assert [args[0] for args in seen] == [sftp.scandir, sftp.rmdir]  # type: ignore[index]


async def test_a_large_directory_comes_whole(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f'n{number:04}').write_text('')

    async with sftp_pair(rooted(tmp_path)) as (sftp, session, _):
        names = [name async for name in sftp.scandir('/')]
        assert len(names) == 1002 and len({name.filename for name in names}) == 1002

        async for _ in sftp.scandir('/'):
            break

        # The loop clears up iterators that were left.
        for _ in range(3):
            await sftp.exists('/')

        assert not list(session._handles)


async def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    raw = b'caf\xe9'
    open(os.path.join(os.fsencode(tmp_path), raw), 'w').close()

    async with sftp_pair(rooted(tmp_path)) as (sftp, _, _):
        assert raw in await sftp.listdir(b'/')

        with pytest.raises(SFTPBadMessage):
            await sftp.listdir('/')

    async with sftp_pair(rooted(tmp_path), path_encoding='latin-1') as (sftp, _, _):
        assert 'caf\xe9' in await sftp.listdir('/')
        assert await sftp.isfile('/caf\xe9')

    async with sftp_pair(rooted(tmp_path), path_errors='surrogateescape') as (sftp, _, _):
        [name] = [name for name in await sftp.listdir('/') if str(name).startswith('caf')]
        assert await sftp.isfile(name)

    async with sftp_pair(rooted(tmp_path), path_encoding=None) as (sftp, _, _):
        assert await sftp.realpath(b'.') == b'/'

        with pytest.raises(SFTPBadMessage):
            await sftp.stat('text')


async def test_glob(tmp_path: Path) -> None:
    for name in ('a.txt', 'b.txt', '.hidden.txt', 'sub/c.txt', 'sub/deep/d.txt', 'sub/e.bin'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    async with sftp_pair(rooted(tmp_path)) as (sftp, _, _):
        assert await sftp.glob('*.txt') == ['a.txt', 'b.txt']
        assert await sftp.glob(['/[b-z].txt', b'/?.txt']) == ['/b.txt', b'/a.txt', b'/b.txt']
        assert await sftp.glob('**/*.txt') == ['a.txt', 'b.txt', 'sub/c.txt', 'sub/deep/d.txt']
        assert await sftp.glob('sub/*') == ['sub/c.txt', 'sub/deep', 'sub/e.bin']
        assert await sftp.glob('s*/[!c]*') == ['sub/deep', 'sub/e.bin']
        assert await sftp.glob('a.txt') == ['a.txt'] and await sftp.glob('.h*') == ['.hidden.txt']

        with pytest.raises(SFTPNoSuchFile):
            await sftp.glob('*.none')

        errors: list[Exception] = []
        assert await sftp.glob(['*.none', 'a*'], errors.append) == ['a.txt'] and len(errors) == 1
        assert await sftp.glob(['*.none'], False) == []
        await sftp.chdir('sub')
        assert await sftp.glob('*.txt') == ['c.txt']


async def test_open_modes_and_positions(tmp_path: Path) -> None:
    path = tmp_path / 'file'

    async with sftp_pair() as (sftp, session, _):
        async with sftp.open(path, 'w') as file:
            assert await file.write('gr\u00fcn') == 5
            assert await file.tell() == 5

        assert path.read_text() == 'gr\u00fcn'

        async with sftp.open(path, 'a+b') as file:
            await file.write(b'++')
            assert await file.tell() == 7
            await file.seek(0)
            assert await file.read(2) == b'gr'
            await file.write(b'!')

        assert path.read_bytes() == 'gr\u00fcn++!'.encode()

        file = await sftp.open(path, 'r+b')
        assert await file.read() == 'gr\u00fcn++!'.encode() and await file.read() == b''
        assert await file.seek(-3, os.SEEK_END) == 5 and await file.seek(1, os.SEEK_CUR) == 6
        assert await file.read(100) == b'+!'
        assert await file.read(2, 0) == b'gr'
        await file.write(b'XY', 0)
        await file.truncate(4)
        assert (await file.stat()).size == 4
        await file.setstat(SFTPAttrs(permissions=0o600))
        await file.chmod(0o644)
        await file.utime((5, 6))
        await file.chown(os.getuid(), os.getgid())
        await file.fsync()
        assert (await file.statvfs()).bsize

        with pytest.raises(SFTPOpUnsupported):
            await file.lock(0, 1, 0)

        with pytest.raises(ValueError, match='seek'):
            await file.seek(0, 9)

        with pytest.raises(ValueError, match='position'):
            await file.seek(-1)

        await file.close()
        await file.close()
        assert not list(session._handles)

        with pytest.raises(ValueError, match='closed'):
            await file.read()

        with pytest.raises(ValueError, match='mode'):
            sftp.open(path, 'rw')

        with pytest.raises(SFTPFailure):
            await sftp.open(path, 'x')

        with pytest.raises(SFTPFailure):
            await sftp.open(tmp_path)

        with pytest.raises(SFTPNoSuchFile):
            await sftp.open(tmp_path / 'missing')

        async with sftp.open(tmp_path / 'new', FXF_WRITE | FXF_CREAT, SFTPAttrs(permissions=0o600)) as file:
            await file.write('text by default')

        assert (tmp_path / 'new').stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(('block_size', 'max_requests'), [(-1, -1), (1000, 3), (0, -1), (None, 1), (1 << 30, -1)])
async def test_large_reads_and_writes(tmp_path: Path, block_size: int | None, max_requests: int) -> None:
    data = os.urandom(3 << 20)
    path = tmp_path / 'file'

    async with sftp_pair() as (sftp, _, _):
        async with sftp.open(path, 'wb', block_size=block_size, max_requests=max_requests) as file:
            assert await file.write(data) == len(data)
            assert await file.write(memoryview(data)[:10]) == 10

        assert path.read_bytes() == data + data[:10]

        async with sftp.open(path, 'rb', block_size=block_size, max_requests=max_requests) as file:
            assert await file.read() == data + data[:10]
            assert await file.read(2 << 20, 12345) == data[12345 : 12345 + (2 << 20)]
            pieces = [piece async for piece in await file.read_parallel(offset=7)]
            whole = b''.join(piece for _, piece in sorted(pieces))
            assert whole == (data + data[:10])[7:]


async def test_an_ended_session(tmp_path: Path) -> None:
    async with sftp_pair() as (sftp, _, _):
        file = await sftp.open(tmp_path / 'file', 'wb')
        sftp.exit()
        await sftp.wait_closed()

        for call in (sftp.stat('.'), file.read(1), sftp.listdir()):
            with pytest.raises(SFTPNoConnection):
                await call


async def test_denied(tmp_path: Path) -> None:
    if os.getuid() == 0:
        pytest.skip('root may do everything')

    (tmp_path / 'file').write_text('')
    (tmp_path / 'file').chmod(0)

    async with sftp_pair() as (sftp, _, _):
        with pytest.raises(SFTPPermissionDenied):
            await sftp.open(tmp_path / 'file')


async def test_errors_are_of_one_class() -> None:
    async with sftp_pair() as (sftp, _, _):
        with pytest.raises(SFTPError, match='No such file'):
            await sftp.stat('/does/not/exist')
