"""Other clients of our server: dbclient, rclone, lftp, psftp, AsyncSSH and paramiko."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

import ssh_fast
from tests.interop import peers
from tests.interop.ours import (
    BIG,
    describe_tree,
    digest,
    make_files,
    make_tree,
    our_server,
    quick_folder,
    run_in_thread,
)
from tests.interop.paramiko_peer import paramiko_client
from tests.interop.peers import CommandFailed, KeyRing, Target


async def process(process: Any) -> None:
    """What commands do on our server, in bytes."""
    command, _, argument = process.command.partition(' ')
    if command == 'cat':
        async for data in process.stdin:
            process.stdout.write(data)
            await process.stdout.drain()
    elif command == 'fill':
        process.stdout.write(bytes(range(256)) * (int(argument) // 256))
    elif command == 'save':
        Path(argument).write_bytes(await process.stdin.read())
    elif command == 'stderr':
        process.stderr.write(argument.encode())
    process.exit(int(argument) if command == 'exit' else 0)


@pytest.fixture
async def target(key_ring: KeyRing, tmp_path: Path) -> AsyncIterator[Target]:
    async with our_server(key_ring, tmp_path / 'ours', process_factory=process, encoding=None) as target:
        yield target


# --- dbclient, which guesses the first packet of the key exchange -----------------------------------------------------


async def test_dbclient_runs_commands(target: Target) -> None:
    content = bytes(range(256)) * 4000
    result = await peers.dbclient(target, 'cat', stdin=content).run_async()
    assert (result.status, result.stdout) == (0, content)
    assert (await peers.dbclient(target, 'exit 7').run_async(check=False)).status == 7
    assert 'warning' in (await peers.dbclient(target, 'stderr warning').run_async()).stderr


@pytest.mark.parametrize('way', ['to us', 'from us'])
async def test_dbclient_moves_much(way: str, target: Target, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000
    if way == 'to us':
        await peers.dbclient(target, f'save {tmp_path}/copy', stdin=content).run_async()
        assert (tmp_path / 'copy').read_bytes() == content
    else:
        assert (await peers.dbclient(target, f'fill {len(content)}').run_async()).stdout == content


@pytest.mark.parametrize('cipher', ['chacha20-poly1305@openssh.com', 'aes128-ctr', 'aes256-ctr'])
async def test_dbclient_with_each_cipher(cipher: str, target: Target) -> None:
    result = await peers.dbclient(target, 'cat', flags=('-c', cipher), stdin=b'text').run_async()
    assert result.stdout == b'text'


@pytest.mark.parametrize('host_key', ['ecdsa-256', 'rsa'])
async def test_dbclient_with_other_host_keys(host_key: str, key_ring: KeyRing, tmp_path: Path) -> None:
    """The guess is right for the kex and wrong for the host key, or the other way round."""
    for kex_algs in ((), ['ecdh-sha2-nistp256'], ['diffie-hellman-group14-sha256']):
        folder = tmp_path / f'ours-{len(kex_algs)}-{"".join(kex_algs)}'
        options: dict[str, Any] = {'host_keys': (host_key,), 'kex_algs': kex_algs}
        async with our_server(key_ring, folder, process_factory=process, encoding=None, **options) as target:
            assert (await peers.dbclient(target, 'cat', stdin=b'text').run_async()).stdout == b'text'


async def test_dbclient_starts_sftp(target: Target) -> None:
    """The whole of a session: INIT, VERSION, end of file, exit status 0."""
    result = await peers.dbclient(target, 'sftp', flags=('-s',), stdin=b'\0\0\0\5\1\0\0\0\3').run_async()
    length, kind, version = struct.unpack_from('>IBI', result.stdout)
    assert (length + 4, kind, version) == (len(result.stdout), 2, 3)


async def test_dbclient_is_refused(target: Target, key_ring: KeyRing, tmp_path: Path) -> None:
    stranger = Target(target.port, key_ring.private('nobody', 'ed25519'), target.known_hosts, target.host_key, tmp_path)
    with pytest.raises(CommandFailed, match=r'(?i)auth|permission denied'):
        await peers.dbclient(stranger, 'cat').run_async(timeout=20)


# --- SFTP clients of their own ----------------------------------------------------------------------------------------


async def test_rclone_copies_trees(target: Target, tmp_path: Path) -> None:
    source, there, back = make_tree(tmp_path / 'source', links=False), tmp_path / 'there', tmp_path / 'back'
    make_files(source / 'sizes')
    (source / 'empty').rmdir()
    await peers.rclone(target, 'copy', str(source), f':sftp:{there}').run_async()
    await peers.rclone(target, 'copy', f':sftp:{there}', str(back)).run_async()
    await peers.rclone(target, 'check', '--download', str(source), f':sftp:{there}').run_async()
    assert describe_tree(there) == describe_tree(back) == describe_tree(source)
    assert (there / 'a/file1').stat().st_mtime == (back / 'a/file1').stat().st_mtime == 1_100_000_001


async def test_rclone_works_with_files(target: Target, tmp_path: Path) -> None:
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder/one').write_bytes(b'1')
    (tmp_path / 'folder/two').write_bytes(b'22')
    remote = f':sftp:{tmp_path}/folder'
    listed = (await peers.rclone(target, 'ls', remote).run_async()).stdout.decode()
    assert sorted(listed.split()) == ['1', '2', 'one', 'two']
    await peers.rclone(target, 'moveto', f'{remote}/one', f'{remote}/three').run_async()
    await peers.rclone(target, 'deletefile', f'{remote}/two').run_async()
    await peers.rclone(target, 'mkdir', f'{remote}/made').run_async()
    assert sorted(path.name for path in (tmp_path / 'folder').iterdir()) == ['made', 'three']
    await peers.rclone(target, 'purge', remote).run_async()
    assert not (tmp_path / 'folder').exists()
    about = (await peers.rclone(target, 'about', f':sftp:{tmp_path}').run_async(check=False)).stdout.decode()
    assert 'Total' in about or about == ''


async def test_lftp_mirrors_trees(target: Target, tmp_path: Path) -> None:
    source, there, back = make_tree(tmp_path / 'source'), tmp_path / 'there', tmp_path / 'back'
    make_files(source / 'sizes')
    await peers.lftp(target, f'mirror -R {source} {there}').run_async()
    assert describe_tree(there) == describe_tree(source)
    await peers.lftp(target, f'mirror --parallel=4 {there} {back}').run_async()
    assert describe_tree(back) == describe_tree(source)


async def test_lftp_works_with_files(target: Target, tmp_path: Path) -> None:
    source = make_files(tmp_path / 'source')
    lines = [
        f'mkdir {tmp_path}/there',
        f'cd {tmp_path}/there',
        f'mput {source}/*',
        'mv f1 moved',
        'rm f0',
        'chmod 600 moved',
        'ln -s moved link',
        'cls -l',
    ]
    await peers.lftp(target, *lines).run_async()
    names = {path.name for path in (tmp_path / 'there').iterdir()}
    assert names == {'f32767', 'f32768', 'f32769', 'f5242880', 'moved', 'link'}
    assert (tmp_path / 'there/moved').stat().st_mode & 0o777 == 0o600
    assert (tmp_path / 'there/link').read_bytes() == (source / 'f1').read_bytes()


async def test_psftp(target: Target, tmp_path: Path) -> None:
    source, there, back = make_files(tmp_path / 'source'), tmp_path / 'there', tmp_path / 'back'
    lines = [
        f'put -r {source} {there}',
        f'get -r {there} {back}',
        f'mkdir {tmp_path}/made',
        f'mv {there}/f1 {tmp_path}/made/moved',
        f'ls {tmp_path}/made',
        f'chmod 600 {tmp_path}/made/moved',
    ]
    assert 'moved' in (await peers.psftp(target, *lines).run_async()).stdout.decode()
    assert describe_tree(back) == describe_tree(source)
    assert digest(tmp_path / 'made/moved') == digest(source / 'f1')


# --- AsyncSSH ---------------------------------------------------------------------------------------------------------


async def test_asyncssh_copies_files_and_trees(target: Target, tmp_path: Path) -> None:
    source, there, back = make_tree(tmp_path / 'source'), tmp_path / 'there', tmp_path / 'back'
    make_files(source / 'sizes')
    options: dict[str, Any] = {'recurse': True, 'preserve': True}
    async with asyncssh.connect(**target.connect_options()) as connection, connection.start_sftp_client() as sftp:
        await sftp.put(str(source), str(there), **options)
        await sftp.get(str(there), str(back), **options)
    assert describe_tree(there, preserved=True) == describe_tree(back, preserved=True)
    assert describe_tree(back, preserved=True) == describe_tree(source, preserved=True)


async def test_asyncssh_moves_a_big_file(target: Target) -> None:
    with quick_folder() as folder:
        source = make_files(folder, (BIG // 8,)) / f'f{BIG // 8}'
        async with asyncssh.connect(**target.connect_options()) as connection, connection.start_sftp_client() as sftp:
            await sftp.put(str(source), f'{folder}/there')
            await sftp.get(f'{folder}/there', f'{folder}/back')
        assert digest(folder / 'there') == digest(folder / 'back') == digest(source)


async def test_asyncssh_uses_every_operation(target: Target, tmp_path: Path) -> None:
    folder = str(tmp_path / 'folder')
    async with asyncssh.connect(**target.connect_options()) as connection, connection.start_sftp_client() as sftp:
        await sftp.makedirs(f'{folder}/a/b')
        await sftp.chdir(folder)
        async with sftp.open('file', 'w+') as file:
            await file.write('0123456789')
            await file.seek(2)
            assert await file.read(3) == '234'
            await file.truncate(6)
            await file.fsync()
            assert (await file.stat()).size == 6
            assert (await file.statvfs()).bsize > 0
        await sftp.symlink('file', 'soft')
        await sftp.link('file', 'hard')
        assert await sftp.readlink('soft') == 'file'
        assert await sftp.realpath('soft') == f'{folder}/file'
        await sftp.posix_rename('hard', 'renamed')
        await sftp.chmod('file', 0o600)
        await sftp.utime('file', (1000, 2000))
        await sftp.truncate('renamed', 3)
        assert await sftp.getsize('file') == 3
        assert set(await sftp.listdir()) - {'.', '..'} == {'a', 'file', 'renamed', 'soft'}
        assert (await sftp.statvfs('.')).blocks > 0
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await sftp.stat('nothing')
        with pytest.raises(asyncssh.SFTPError):
            await sftp.rmdir('a')
        await sftp.copy('file', 'copy')
        assert await sftp.getsize('copy') == 3
        assert set(await sftp.glob('*e*')) == {'file', 'renamed'}
        await sftp.rmtree(folder)
    assert not (tmp_path / 'folder').exists()


async def test_asyncssh_runs_commands(target: Target) -> None:
    async with asyncssh.connect(**target.connect_options()) as connection:
        result = await connection.run('cat', input=b'text', encoding=None)
        assert (result.exit_status, result.stdout) == (0, b'text')
        assert (await connection.run('exit 3')).exit_status == 3
        results = await asyncio.gather(*(connection.run(f'exit {number}') for number in range(10)))
        assert [result.exit_status for result in results] == list(range(10))


# --- paramiko ---------------------------------------------------------------------------------------------------------


def with_paramiko(target: Target, work: Callable[[Any, Any], None]) -> Any:
    def run() -> None:
        with paramiko_client(target) as client, client.open_sftp() as sftp:
            work(client, sftp)

    return run_in_thread(run)


async def test_paramiko_copies_files(target: Target, tmp_path: Path) -> None:
    source, there, back = make_files(tmp_path / 'source'), tmp_path / 'there', tmp_path / 'back'

    def work(client: Any, sftp: Any) -> None:
        sftp.mkdir(str(there))
        back.mkdir()
        for path in source.iterdir():
            sftp.put(str(path), str(there / path.name))
            sftp.get(str(there / path.name), str(back / path.name))

    await with_paramiko(target, work)
    assert describe_tree(there) == describe_tree(back) == describe_tree(source)


async def test_paramiko_uses_every_operation(target: Target, tmp_path: Path) -> None:
    def work(client: Any, sftp: Any) -> None:
        sftp.chdir(str(tmp_path))
        with sftp.open('file', 'w+') as file:
            file.set_pipelined(True)
            file.write(b'0123456789')
            file.seek(2)
            assert file.read(3) == b'234'
            file.truncate(6)
        with sftp.open('file', 'a') as file:
            file.write(b'END')
        with sftp.open('file') as file:
            file.prefetch()
            assert file.read() == b'012345END'
            assert list(file.readv([(0, 2), (4, 3)])) == [b'01', b'45E']
        sftp.symlink('file', 'soft')
        assert sftp.readlink('soft') == 'file'
        assert sftp.normalize('.') == str(tmp_path)
        sftp.chmod('file', 0o600)
        sftp.utime('file', (1000, 2000))
        assert (sftp.stat('file').st_mtime, sftp.stat('file').st_mode & 0o777) == (2000, 0o600)
        sftp.mkdir('folder')
        sftp.rename('file', 'folder/file')
        sftp.posix_rename('folder/file', 'folder/again')
        assert sftp.listdir('folder') == ['again']
        assert [entry.filename for entry in sftp.listdir_iter('folder')] == ['again']
        with pytest.raises(FileNotFoundError):
            sftp.stat('nothing')
        sftp.remove('folder/again')
        sftp.rmdir('folder')
        assert sftp.lstat('soft').st_mode & 0o170000 == 0o120000

    await with_paramiko(target, work)
    assert not (tmp_path / 'folder').exists()


async def test_paramiko_runs_commands(target: Target) -> None:
    def work(client: Any, sftp: Any) -> None:
        stdin, stdout, _ = client.exec_command('cat')
        stdin.write(b'text')
        stdin.channel.shutdown_write()
        assert stdout.read() == b'text'
        assert stdout.channel.recv_exit_status() == 0
        assert client.exec_command('exit 5')[1].channel.recv_exit_status() == 5
        assert client.exec_command('stderr warning')[2].read() == b'warning'

    await with_paramiko(target, work)


# --- a client that goes away ------------------------------------------------------------------------------------------


async def test_clients_that_only_look(target: Target) -> None:
    """Port scanners, and people with telnet: nothing they send keeps the server from serving others."""
    greetings = b'', b'GET / HTTP/1.0\r\n\r\n', b'SSH-2.0-x\r\n' + b'\xff' * 100, b'SSH-1.5-old\r\n', b'\0' * 70000
    for greeting in greetings:
        reader, writer = await asyncio.open_connection(target.host, target.port)
        writer.write(greeting)
        if not greeting:
            writer.close()
        # A server that closes with bytes unread resets the connection.
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                await reader.read() if greeting else None
        writer.close()
    async with ssh_fast.connect(**target.connect_options()) as connection:
        assert (await connection.run('cat', input=b'text', encoding=None)).stdout == b'text'
