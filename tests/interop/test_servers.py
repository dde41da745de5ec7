"""Our SFTP client against OpenSSH's, AsyncSSH's and paramiko's servers."""

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from tests.interop.asyncssh_peer import asyncssh_server
from tests.interop.ours import BIG, SIZES, describe_tree, digest, make_files, make_tree, quick_folder
from tests.interop.paramiko_peer import paramiko_server
from tests.interop.peers import KeyRing, OpenSSHServer, Target

SERVERS = ('openssh', 'sftp-server', 'asyncssh', 'paramiko')


@pytest.fixture(scope='module')
def separate_sftp_server(key_ring: KeyRing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSSHServer]:
    """OpenSSH's sftp-server as a process of its own, behind pipes."""
    with OpenSSHServer(key_ring, tmp_path_factory.mktemp('sshd'), sftp_server='sftp-server') as server:
        yield server


@pytest.fixture
async def target(
    request: pytest.FixtureRequest, key_ring: KeyRing, openssh_server: OpenSSHServer, tmp_path: Path
) -> AsyncIterator[Target]:
    match request.param:
        case 'openssh':
            yield openssh_server.target
        case 'sftp-server':
            yield request.getfixturevalue('separate_sftp_server').target
        case 'asyncssh':
            async with asyncssh_server(key_ring, tmp_path / 'asyncssh') as target:
                yield target
        case 'paramiko':
            with paramiko_server(key_ring, tmp_path / 'paramiko') as target:
                yield target


every_server = pytest.mark.parametrize('target', SERVERS, indirect=True)
openssh_only = pytest.mark.parametrize('target', ['openssh'], indirect=True)


@contextlib.asynccontextmanager
async def sftp_to(target: Target, **options: Any) -> AsyncIterator[Any]:
    async with ssh_fast.connect(**target.connect_options(**options)) as connection:
        async with connection.start_sftp_client() as sftp:
            yield sftp


# --- copies -----------------------------------------------------------------------------------------------------------


@every_server
@pytest.mark.parametrize('block_size', [-1, 32768, 1000])
async def test_sizes(target: Target, block_size: int, tmp_path: Path) -> None:
    sizes = SIZES if block_size != 1000 else SIZES[:-1]
    source, there, back = make_files(tmp_path / 'source', sizes), tmp_path / 'there', tmp_path / 'back'
    there.mkdir()
    back.mkdir()
    names = [path.name for path in source.iterdir()]
    async with sftp_to(target) as sftp:
        await sftp.put([str(source / name) for name in names], str(there), block_size=block_size)
        await sftp.get([str(there / name) for name in names], str(back), block_size=block_size)
    assert describe_tree(there) == describe_tree(back) == describe_tree(source)


@every_server
async def test_trees(target: Target, tmp_path: Path) -> None:
    source, there, back = make_tree(tmp_path / 'source'), tmp_path / 'there', tmp_path / 'back'
    options: dict[str, Any] = {'recurse': True, 'preserve': True}
    async with sftp_to(target) as sftp:
        await sftp.put(str(source), str(there), **options)
        await sftp.get(str(there), str(back), **options)
    assert describe_tree(there, preserved=True) == describe_tree(source, preserved=True)
    assert describe_tree(back, preserved=True) == describe_tree(source, preserved=True)


@pytest.fixture(scope='module')
def big_file() -> Iterator[Path]:
    with quick_folder() as folder:
        yield make_files(folder, (BIG,)) / f'f{BIG}'


@openssh_only
@pytest.mark.parametrize('way', ['put', 'get'])
async def test_a_big_file(target: Target, way: str, big_file: Path) -> None:
    seen: list[tuple[int, int]] = []
    copy = big_file.with_suffix(f'.{way}')
    async with sftp_to(target) as sftp:
        await getattr(sftp, way)(
            str(big_file),
            str(copy),
            progress_handler=lambda source, target, done, total: seen.append((done, total)),
        )
    assert digest(copy) == digest(big_file)
    assert seen == sorted(seen)
    assert seen[-1] == (BIG, BIG)


@pytest.mark.parametrize('target', ['asyncssh', 'paramiko'], indirect=True)
async def test_a_fairly_big_file(target: Target, tmp_path: Path) -> None:
    source = make_files(tmp_path, (BIG // 16,)) / f'f{BIG // 16}'
    async with sftp_to(target) as sftp:
        await sftp.put(str(source), str(tmp_path / 'there'))
        await sftp.get(str(tmp_path / 'there'), str(tmp_path / 'back'))
    assert digest(tmp_path / 'there') == digest(tmp_path / 'back') == digest(source)


@openssh_only
async def test_copies_run_side_by_side(target: Target, tmp_path: Path) -> None:
    source = make_files(tmp_path, (3_000_001,)) / 'f3000001'
    async with sftp_to(target) as sftp:
        await asyncio.gather(
            *(sftp.put(str(source), f'{tmp_path}/put{number}') for number in range(8)),
            *(sftp.get(str(source), f'{tmp_path}/get{number}') for number in range(8)),
            *(sftp.stat(str(source)) for _ in range(100)),
        )
    copies = [path for path in tmp_path.iterdir() if path.name[:3] in ('put', 'get')]
    assert len(copies) == 16
    assert {digest(path) for path in copies} == {digest(source)}


@openssh_only
async def test_clients_share_a_connection(target: Target, tmp_path: Path) -> None:
    source = make_files(tmp_path, (2_000_001,)) / 'f2000001'

    async def work(connection: Any, number: int) -> None:
        async with connection.start_sftp_client() as sftp:
            await sftp.get(str(source), f'{tmp_path}/copy{number}')

    async with ssh_fast.connect(**target.connect_options()) as connection:
        await asyncio.gather(*(work(connection, number) for number in range(10)))
    assert {digest(tmp_path / f'copy{number}') for number in range(10)} == {digest(source)}


@openssh_only
async def test_small_windows(target: Target, tmp_path: Path) -> None:
    source = make_files(tmp_path, (3_000_001,)) / 'f3000001'
    async with sftp_to(target, window=65536, max_window=65536, max_pktsize=4096) as sftp:
        await sftp.get(str(source), str(tmp_path / 'got'))
        await sftp.put(str(source), str(tmp_path / 'put'))
    assert digest(tmp_path / 'got') == digest(tmp_path / 'put') == digest(source)


@openssh_only
async def test_sparse_files(target: Target, tmp_path: Path) -> None:
    with (tmp_path / 'source').open('wb') as file:
        for offset in (0, 10_000_000, 63_999_000):
            file.seek(offset)
            file.write(os.urandom(1000))
        file.truncate(64_000_000)
    async with sftp_to(target) as sftp:
        await sftp.put(str(tmp_path / 'source'), str(tmp_path / 'put'))
        await sftp.get(str(tmp_path / 'source'), str(tmp_path / 'got'))
    assert digest(tmp_path / 'put') == digest(tmp_path / 'got') == digest(tmp_path / 'source')


@openssh_only
async def test_patterns(target: Target, tmp_path: Path) -> None:
    for name in ('one.txt', 'two.txt', 'three.bin'):
        (tmp_path / name).write_text(name)
    (tmp_path / 'back').mkdir()
    async with sftp_to(target) as sftp:
        await sftp.mget(f'{tmp_path}/*.txt', str(tmp_path / 'back'))
        assert {path.name for path in (tmp_path / 'back').iterdir()} == {'one.txt', 'two.txt'}
        assert sorted(await sftp.glob(f'{tmp_path}/t*')) == [f'{tmp_path}/three.bin', f'{tmp_path}/two.txt']


# --- operations -------------------------------------------------------------------------------------------------------


@every_server
async def test_operations_on_paths(target: Target, tmp_path: Path) -> None:
    folder = tmp_path / 'folder'
    async with sftp_to(target) as sftp:
        await sftp.makedirs(f'{folder}/a/b')
        (folder / 'file').write_bytes(b'0123456789')
        await sftp.chdir(str(folder))
        assert await sftp.getcwd() == str(folder)
        assert await sftp.realpath('a/..') == str(folder)
        assert (await sftp.stat('file')).size == 10
        assert await sftp.isdir('a')
        assert await sftp.isfile('file')
        assert not await sftp.exists('nothing')
        await sftp.symlink('file', 'soft')
        assert os.readlink(folder / 'soft') == 'file'
        assert await sftp.readlink('soft') == 'file'
        assert stat.S_ISLNK((await sftp.lstat('soft')).permissions)
        await sftp.chmod('file', 0o640)
        await sftp.utime('file', (1000, 2000))
        attrs = await sftp.stat('file')
        assert (attrs.permissions & 0o777, attrs.atime, attrs.mtime) == (0o640, 1000, 2000)
        if 'paramiko' not in target.folder.name:  # whose server empties the file
            await sftp.truncate('file', 4)
            assert (folder / 'file').read_bytes() == b'0123'
        await sftp.rename('file', 'moved')
        names = {entry.filename for entry in await sftp.readdir()} - {'.', '..'}
        assert names == {'a', 'moved', 'soft'}
        assert set(await sftp.listdir()) - {'.', '..'} == names
        await sftp.remove('soft')
        with pytest.raises(ssh_fast.SFTPNoSuchFile):
            await sftp.stat('nothing')
        with pytest.raises(ssh_fast.SFTPNoSuchFile):
            await sftp.remove('nothing')
        with pytest.raises(ssh_fast.SFTPError):
            await sftp.rmdir('a')
        await sftp.rmtree(str(folder))
    assert not folder.exists()


@openssh_only
async def test_extensions(target: Target, tmp_path: Path) -> None:
    (tmp_path / 'file').write_bytes(os.urandom(100_000))
    (tmp_path / 'other').write_bytes(b'other')
    async with sftp_to(target) as sftp:
        await sftp.link(f'{tmp_path}/file', f'{tmp_path}/hard')
        assert (tmp_path / 'hard').stat().st_nlink == 2
        with pytest.raises(ssh_fast.SFTPError):
            await sftp.rename(f'{tmp_path}/file', f'{tmp_path}/other')
        await sftp.posix_rename(f'{tmp_path}/hard', f'{tmp_path}/other')
        space, known = await sftp.statvfs(str(tmp_path)), os.statvfs(tmp_path)
        assert (space.bsize, space.blocks, space.namemax) == (known.f_bsize, known.f_blocks, known.f_namemax)
        (tmp_path / 'link').symlink_to('file')
        await sftp.utime(f'{tmp_path}/link', (1000, 2000), follow_symlinks=False)
        assert (tmp_path / 'link').lstat().st_mtime == 2000
        assert (tmp_path / 'file').stat().st_mtime != 2000
        await sftp.copy(f'{tmp_path}/file', f'{tmp_path}/copy')
        assert digest(tmp_path / 'copy') == digest(tmp_path / 'file')
        assert sftp.limits.max_read_len == 261120
        async with sftp.open(f'{tmp_path}/file', 'r+b') as file:
            await file.fsync()


@every_server
async def test_file_objects(target: Target, tmp_path: Path) -> None:
    content = os.urandom(1_000_000)
    path = f'{tmp_path}/file'
    async with sftp_to(target) as sftp:
        async with sftp.open(path, 'wb') as file:
            await file.write(content)
        assert Path(path).read_bytes() == content
        async with sftp.open(path, 'rb') as file:
            assert await file.read() == content
            assert await file.read(10) == b''
            assert await file.read(1000, 999_990) == content[-10:]
            await file.seek(-5, os.SEEK_END)
            assert (await file.read(), await file.tell()) == (content[-5:], 1_000_000)
        async with sftp.open(path, 'r+b') as file:
            await file.write(b'XYZ', 500)
            if 'paramiko' not in target.folder.name:  # whose server empties the file
                await file.truncate(600)
                assert (await file.stat()).size == 600
        size = Path(path).stat().st_size
        assert Path(path).read_bytes() == content[:500] + b'XYZ' + content[503:size]
        async with sftp.open(path, 'ab') as file:
            await file.write(b'end')
        assert Path(path).read_bytes()[-4:] == content[size - 1 : size] + b'end'
        async with sftp.open(f'{tmp_path}/text', 'w') as file:
            await file.write('ä text\n')
        async with sftp.open(f'{tmp_path}/text') as file:
            assert await file.read() == 'ä text\n'
        with pytest.raises(ssh_fast.SFTPError):
            async with sftp.open(path, 'xb') as file:
                pass


@every_server
async def test_large_folders(target: Target, tmp_path: Path) -> None:
    names = {f'a rather long name of a file to fill the replies quickly, number {number}' for number in range(1000)}
    for name in names:
        (tmp_path / 'folder').mkdir(exist_ok=True)
        (tmp_path / 'folder' / name).touch()
    async with sftp_to(target) as sftp:
        assert set(await sftp.listdir(f'{tmp_path}/folder')) - {'.', '..'} == names
        assert {entry.filename async for entry in sftp.scandir(f'{tmp_path}/folder')} - {'.', '..'} == names


# --- what a user finds in the documentation ---------------------------------------------------------------------------


@openssh_only
async def test_ends_in_order(target: Target, tmp_path: Path) -> None:
    connection = await ssh_fast.connect(**target.connect_options())
    sftp = await connection.start_sftp_client()
    sftp.exit()
    await sftp.wait_closed()
    with pytest.raises(ssh_fast.SFTPError):
        await sftp.stat('.')
    assert not connection.is_closed()
    connection.close()
    await connection.wait_closed()
    assert connection.is_closed()


@openssh_only
async def test_no_sftp_there(key_ring: KeyRing, target: Target, tmp_path: Path) -> None:
    with OpenSSHServer(key_ring, tmp_path / 'sshd', ['MaxSessions 0']) as server:
        async with ssh_fast.connect(**server.target.connect_options()) as connection:
            with pytest.raises(ssh_fast.ChannelOpenError):
                await connection.start_sftp_client()
    with OpenSSHServer(key_ring, tmp_path / 'none', ['ForceCommand exit 0']) as server:
        async with ssh_fast.connect(**server.target.connect_options()) as connection:
            with pytest.raises(ssh_fast.Error):
                await connection.start_sftp_client()


@openssh_only
async def test_read_only_server(key_ring: KeyRing, target: Target, tmp_path: Path) -> None:
    source = make_files(tmp_path, (1000,)) / 'f1000'
    with OpenSSHServer(key_ring, tmp_path / 'sshd', ['ForceCommand internal-sftp -R']) as server:
        async with sftp_to(server.target) as sftp:
            with pytest.raises(ssh_fast.SFTPPermissionDenied) as caught:
                await sftp.put(str(source), str(tmp_path / 'copy'))
            assert caught.value.dstpath == os.fsencode(tmp_path / 'copy')
            await sftp.get(str(source), str(tmp_path / 'copy'))
    assert digest(tmp_path / 'copy') == digest(source)
