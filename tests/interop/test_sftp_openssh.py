"""OpenSSH's `sftp` and `scp` against our server: every batch command, files of all sizes, trees."""

import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.interop import peers
from tests.interop.ours import BIG, SIZES, describe_tree, digest, make_files, make_tree, our_server, quick_folder
from tests.interop.peers import CommandFailed, KeyRing, Target


@pytest.fixture
async def target(key_ring: KeyRing, tmp_path: Path) -> AsyncIterator[Target]:
    async with our_server(key_ring, tmp_path / 'ours') as target:
        yield target


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The folder that clients work in."""
    (tmp_path / 'there').mkdir()
    return tmp_path / 'there'


@pytest.fixture(scope='module')
def big_file() -> Iterator[Path]:
    with quick_folder() as folder:
        yield make_files(folder, (BIG,)) / f'f{BIG}'


async def run(target: Target, *lines: str, check: bool = True, flags: tuple[str, ...] = ()) -> peers.Result:
    return await peers.sftp(target, *lines, flags=flags).run_async(check=check)


# --- commands of a batch ----------------------------------------------------------------------------------------------


async def test_list(target: Target, there: Path) -> None:
    (there / 'plain').write_bytes(b'12345')
    (there / 'folder').mkdir()
    (there / 'link').symlink_to('plain')
    (there / '.hidden').touch()
    (there / 'plain').chmod(0o640)
    os.utime(there / 'plain', (1_100_000_000, 1_100_000_000))
    short = (await run(target, f'cd {there}', 'ls -1')).stdout.decode().split('\n')
    assert [name for name in short if name and not name.startswith('sftp>')] == ['folder', 'link', 'plain']
    everything = (await run(target, f'ls -1a {there}')).stdout.decode()
    assert f'{there}/.hidden' in everything
    assert f'{there}/..' in everything
    for flags in ('-l', '-ln'):
        lines = (await run(target, f'cd {there}', f'ls {flags}')).stdout.decode().splitlines()
        shown = {line.split()[-1]: line for line in lines if not line.startswith('sftp>')}
        assert shown['plain'].startswith('-rw-r-----')
        assert ' 5 ' in shown['plain']
        assert '2004' in shown['plain']
        assert shown['folder'].startswith('drwx')
        assert ('root' if flags == '-l' and os.getuid() == 0 else str(os.getuid())) in shown['plain']


async def test_list_of_a_thousand_files(target: Target, there: Path) -> None:
    names = {f'a rather long name of a file to fill the replies quickly, number {number}' for number in range(1000)}
    for name in names:
        (there / name).touch()
    shown = (await run(target, f'cd {there}', 'ls -1')).stdout.decode().splitlines()
    assert set(shown) - {line for line in shown if line.startswith('sftp>')} == names


async def test_rename_replaces(target: Target, there: Path) -> None:
    (there / 'old').write_text('old')
    (there / 'new').write_text('new')
    await run(target, f'rename {there}/old {there}/new')
    assert (there / 'new').read_text() == 'old'
    assert not (there / 'old').exists()


async def test_plain_rename_does_not_replace(target: Target, there: Path) -> None:
    (there / 'old').write_text('old')
    (there / 'new').write_text('new')
    result = await run(target, f'rename -l {there}/old {there}/new', check=False)
    assert result.status == 1
    assert 'remote rename' in result.stderr
    assert ((there / 'old').read_text(), (there / 'new').read_text()) == ('old', 'new')
    await run(target, f'rename -l {there}/old {there}/other')
    assert (there / 'other').read_text() == 'old'


async def test_links(target: Target, there: Path) -> None:
    (there / 'file').write_text('text')
    file = there / 'file'
    await run(target, f'symlink file {there}/soft', f'ln -s {file} {there}/soft2', f'ln {file} {there}/hard')
    assert os.readlink(there / 'soft') == 'file'
    assert os.readlink(there / 'soft2') == f'{there}/file'
    assert (there / 'hard').stat().st_ino == (there / 'file').stat().st_ino


async def test_folders(target: Target, there: Path) -> None:
    await run(target, f'mkdir {there}/made', f'mkdir "{there}/with space"')
    assert (there / 'made').is_dir()
    assert (there / 'with space').is_dir()
    again = await run(target, f'mkdir {there}/made', check=False)
    assert again.status == 1
    assert 'remote mkdir' in again.stderr
    await run(target, f'rmdir {there}/made')
    assert not (there / 'made').exists()
    (there / 'with space/file').touch()
    full = await run(target, f'rmdir "{there}/with space"', check=False)
    assert full.status == 1
    assert (there / 'with space/file').exists()


async def test_remove(target: Target, there: Path) -> None:
    for name in ('a1', 'a2', 'b1'):
        (there / name).touch()
    await run(target, f'rm {there}/a*')
    assert [path.name for path in there.iterdir()] == ['b1']
    gone = await run(target, f'rm {there}/a1', check=False)
    assert gone.status == 1
    assert 'No such file' in gone.stderr


async def test_attributes(target: Target, there: Path) -> None:
    (there / 'file').touch()
    (there / 'link').symlink_to('file')
    await run(target, f'chmod 604 {there}/file')
    assert stat.S_IMODE((there / 'file').stat().st_mode) == 0o604
    user, group = os.getuid(), os.getgid()
    if user == 0:
        user, group = 12345, 23456
    await run(target, f'chown {user} {there}/file', f'chgrp {group} {there}/file', f'chown -h {user} {there}/link')
    info = (there / 'file').stat()
    assert (info.st_uid, info.st_gid, (there / 'link').lstat().st_uid) == (user, group, user)


async def test_space(target: Target, there: Path) -> None:
    result = (await run(target, f'df {there}', f'df -i {there}')).stdout.decode()
    sizes, inodes = [line.split() for line in result.splitlines() if line.strip()[:1].isdigit()]
    info = os.statvfs(there)
    assert int(sizes[0]) == info.f_blocks * info.f_frsize // 1024
    assert int(inodes[0]) == info.f_files


async def test_where_we_are(target: Target, there: Path) -> None:
    result = (await run(target, 'pwd', f'cd {there}', 'pwd', 'cd ..', 'pwd')).stdout.decode()
    assert f'Remote working directory: {os.getcwd()}' in result
    assert f'Remote working directory: {there}\n' in result
    assert f'Remote working directory: {there.parent}\n' in result
    wrong = await run(target, f'cd {there}/nothing', check=False)
    assert wrong.status == 1
    assert 'No such file' in wrong.stderr


async def test_copy_on_the_server(target: Target, there: Path) -> None:
    if peers.openssh_version() < (9, 0):
        pytest.skip('the installed OpenSSH has no command `cp`: it came with 9.0')
    (there / 'file').write_bytes(os.urandom(100_000))
    await run(target, f'cp {there}/file {there}/copy')
    assert (there / 'copy').read_bytes() == (there / 'file').read_bytes()


async def test_resume(target: Target, there: Path, tmp_path: Path) -> None:
    content = os.urandom(400_000)
    (there / 'file').write_bytes(content)
    (tmp_path / 'part').write_bytes(content[:150_000])
    await run(target, f'reget {there}/file {tmp_path}/part')
    assert (tmp_path / 'part').read_bytes() == content
    (there / 'file').write_bytes(content[:250_000])
    await run(target, f'reput {tmp_path}/part {there}/file')
    assert (there / 'file').read_bytes() == content


# --- files and trees --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('flags', [(), ('-B', '1000', '-R', '3'), ('-B', '32768', '-R', '200'), ('-C',)])
async def test_sizes(flags: tuple[str, ...], target: Target, there: Path, tmp_path: Path) -> None:
    sizes = SIZES[:-1] if '1000' in flags else SIZES
    source, back = make_files(tmp_path / 'source', sizes), tmp_path / 'back'
    back.mkdir()
    await run(target, f'put {source}/* {there}', f'get {there}/* {back}', flags=flags)
    assert describe_tree(there) == describe_tree(back) == describe_tree(source)


async def test_put_a_big_file(target: Target, big_file: Path) -> None:
    await run(target, f'put {big_file} {big_file}.put')
    assert digest(big_file.with_suffix('.put')) == digest(big_file)


async def test_get_a_big_file(target: Target, big_file: Path) -> None:
    await run(target, f'get {big_file} {big_file}.got')
    assert digest(big_file.with_suffix('.got')) == digest(big_file)


async def test_fsync(target: Target, there: Path, tmp_path: Path) -> None:
    source = make_files(tmp_path, (100_000,)) / 'f100000'
    await run(target, f'put {source} {there}/copy', flags=('-f',))
    assert digest(there / 'copy') == digest(source)


async def test_put_a_tree(target: Target, there: Path, tmp_path: Path) -> None:
    source = make_tree(tmp_path / 'source', links=False)
    await run(target, f'put -rp {source} {there}')
    assert describe_tree(there / 'source', preserved=True) == describe_tree(source, preserved=True)


async def test_get_a_tree(target: Target, there: Path, tmp_path: Path) -> None:
    source = make_tree(tmp_path / 'source', links=False)
    await run(target, f'get -rp {source} {there}')
    assert describe_tree(there / 'source', preserved=True) == describe_tree(source, preserved=True)


async def test_missing_file(target: Target, there: Path) -> None:
    result = await run(target, f'get {there}/nothing {there}/copy', check=False)
    assert result.status == 1
    assert 'not found' in result.stderr
    assert not (there / 'copy').exists()


async def test_errors_tell_why(target: Target, there: Path) -> None:
    (there / 'file').write_text('text')
    result = await run(target, f'put {there}/file {there}/nowhere/file', check=False)
    assert result.status == 1
    assert 'No such file' in result.stderr
    result = await run(target, f'put {there}/file /sys/kernel/nothing-may-be-made-here', check=False)
    assert result.status == 1
    assert 'ermission denied' in result.stderr


# --- scp --------------------------------------------------------------------------------------------------------------


async def test_scp_both_ways(target: Target, there: Path, tmp_path: Path) -> None:
    source, back = make_files(tmp_path / 'source'), tmp_path / 'back'
    back.mkdir()
    names = [str(path) for path in source.iterdir()]
    assert (await peers.scp(target, *names, f'remote:{there}').run_async()).status == 0
    assert (await peers.scp(target, f'remote:{there}/*', str(back)).run_async()).status == 0
    assert describe_tree(there) == describe_tree(back) == describe_tree(source)


async def test_scp_of_a_tree(target: Target, there: Path, tmp_path: Path) -> None:
    source, back = make_tree(tmp_path / 'source', links=False), tmp_path / 'back'
    await peers.scp(target, '-rp', str(source), f'remote:{there}').run_async()
    assert describe_tree(there / 'source', preserved=True) == describe_tree(source, preserved=True)
    await peers.scp(target, '-rp', f'remote:{there}/source', str(back)).run_async()
    assert describe_tree(back, preserved=True) == describe_tree(source, preserved=True)


async def test_scp_to_a_relative_path(
    target: Target, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(there)  # where the server begins
    (tmp_path / 'file').write_text('text')
    await peers.scp(target, str(tmp_path / 'file'), 'remote:copied').run_async()
    await peers.scp(target, str(tmp_path / 'file'), 'remote:').run_async()
    assert {path.name for path in there.iterdir()} == {'copied', 'file'}


async def test_scp_fails_where_it_must(target: Target, there: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match='(?i)no such file'):
        await peers.scp(target, f'remote:{there}/nothing', str(tmp_path)).run_async()
