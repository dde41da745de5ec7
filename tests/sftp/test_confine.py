"""A server that is confined to a directory: nothing outside of it is seen, made, changed or named."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssh_fast.constants import FXF_CREAT, FXF_READ, FXF_TRUNC, FXF_WRITE
from ssh_fast.sftp.attrs import SFTPAttrs
from ssh_fast.sftp.confine import ConfinedPaths, below
from ssh_fast.sftp.errors import SFTPError
from ssh_fast.sftp.server import SFTPServer

WRITE = FXF_WRITE | FXF_CREAT | FXF_TRUNC


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file tree with a root `/jail` in it, and beside it what is not to be reached."""

    for name in ('jail/sub/deep', 'jail10', 'secret'):
        (tmp_path / name).mkdir(parents=True)

    (tmp_path / 'jail' / 'file').write_text('inside')
    (tmp_path / 'jail' / 'sub' / 'inner').write_text('inner')
    (tmp_path / 'jail10' / 'file').write_text('sibling')
    (tmp_path / 'secret' / 'file').write_text('secret')
    (tmp_path / 'secret' / 'file').chmod(0o600)
    links = {
        'abs': tmp_path / 'secret',
        'absfile': tmp_path / 'secret' / 'file',
        'rel': '../secret',
        'relfile': '../secret/file',
        'sub/up': '../../secret',
        'sub/deep/up': '../../../../../../../../..' + str(tmp_path / 'secret'),
        'chain': 'abs',
        'dots': 'sub/../../secret/file',
        'sibling': str(tmp_path / 'jail') + '10',
        'new': str(tmp_path / 'secret' / 'new'),
        'root': '/',
    }

    for name, target in links.items():
        os.symlink(target, tmp_path / 'jail' / name)

    return tmp_path


@pytest.fixture
def server(outside: Path) -> SFTPServer:
    return SFTPServer(Any, chroot=outside / 'jail')


def unchanged(outside: Path) -> bool:
    result = (outside / 'secret' / 'file').stat()

    return (
        (outside / 'secret' / 'file').read_text() == 'secret'
        and (outside / 'jail10' / 'file').read_text() == 'sibling'
        and sorted(os.listdir(outside / 'secret')) == ['file']
        and sorted(os.listdir(outside / 'jail10')) == ['file']
        and sorted(os.listdir(outside)) == ['jail', 'jail10', 'secret']
        and stat.S_IMODE(result.st_mode) == 0o600
        and result.st_nlink == 1
        and result.st_mtime > 1_000_000
    )


ESCAPES = [
    b'/../secret/file', b'../secret/file', b'/sub/../../secret/file', b'//../secret/file', b'/./../secret/file',
    b'/abs/file', b'/absfile', b'/rel/file', b'/relfile', b'/sub/up/file', b'/sub/deep/up/file', b'/chain/file',
    b'/dots', b'/sibling/file', b'/../jail10/file', b'/new', b'/root/../secret/file', b'/root/secret/file',
]


@pytest.mark.parametrize('path', ESCAPES)
async def test_nothing_leads_out(server: SFTPServer, outside: Path, path: bytes) -> None:
    size = (outside / 'secret' / 'file').stat().st_size
    calls: list[Any] = [
        lambda: server.open(path, FXF_READ, SFTPAttrs()),
        lambda: server.open(path, FXF_WRITE, SFTPAttrs()),
        lambda: server.open(path, FXF_WRITE | FXF_TRUNC, SFTPAttrs()),
        lambda: server.stat(path),
        lambda: server.setstat(path, SFTPAttrs(size=0, permissions=0o777, atime=1, mtime=1)),
        lambda: server.statvfs(path),
        lambda: server.posix_rename(b'/' + os.path.dirname(path) + b'/file', b'/stolen'),
        lambda: server.link(b'/' + os.path.dirname(path) + b'/file', b'/hard')
        if os.path.basename(path) == b'file' and os.path.normpath(path) not in (b'/file',)
        else None,
    ]

    for call in calls:
        try:
            result = call()
        except (OSError, SFTPError):
            continue

        if isinstance(result, os.stat_result):
            assert result.st_size != size

    with pytest.raises((OSError, SFTPError)):
        async for _ in server.scandir(os.path.dirname(path) + b'/nothing'):
            pass

    assert unchanged(outside)


@pytest.mark.parametrize('path', ESCAPES)
def test_nothing_is_made_or_removed_outside(server: SFTPServer, outside: Path, path: bytes) -> None:
    directory = os.path.dirname(path) or b'/'

    for call in (
        lambda: server.open(directory + b'/made', WRITE, SFTPAttrs()).close(),  # type: ignore[union-attr]
        lambda: server.open(path, WRITE, SFTPAttrs()).close(),  # type: ignore[union-attr]
        lambda: server.mkdir(directory + b'/dir', SFTPAttrs()),
        lambda: server.symlink(b'x', directory + b'/sym'),
        lambda: server.rename(b'/file', directory + b'/moved'),
        lambda: server.posix_rename(b'/sub/inner', directory + b'/moved2'),
        lambda: server.link(b'/sub', directory + b'/hard'),
        lambda: server.remove(path),
        lambda: server.rmdir(directory),
        lambda: server.lsetstat(path, SFTPAttrs(atime=1, mtime=1)),
    ):
        try:
            call()
        except (OSError, SFTPError):
            continue

    assert unchanged(outside)


@pytest.mark.parametrize('path', ESCAPES)
def test_no_name_of_the_outside_is_told(server: SFTPServer, outside: Path, path: bytes) -> None:
    told = server.realpath(path)
    assert isinstance(told, bytes) and told.startswith(b'/')
    assert below(os.fsencode(outside / 'jail'), told) is None


def test_links_inside_work(server: SFTPServer, outside: Path) -> None:
    server.symlink(b'/sub/inner', b'/to-inner')
    assert server.readlink(b'/to-inner') == b'/sub/inner'
    assert os.readlink(outside / 'jail' / 'to-inner') == str(outside / 'jail' / 'sub' / 'inner')
    assert server.stat(b'/to-inner').st_size == 5  # type: ignore[union-attr]
    assert server.realpath(b'/to-inner') == b'/sub/inner'
    server.symlink(b'../file', b'/sub/to-file')
    assert server.readlink(b'/sub/to-file') == b'../file' and server.realpath(b'sub/to-file') == b'/file'
    server.symlink(b'..', b'/sub/deep/parent')
    assert server.realpath(b'/sub/deep/parent/inner') == b'/sub/inner'
    server.symlink(b'.', b'/sub/self')
    assert server.realpath(b'/sub/self/self/inner') == b'/sub/inner'
    assert server.realpath(b'/sub/self') == b'/sub' and server.stat(b'/sub/self').st_ino  # type: ignore[union-attr]
    # One that a process without the confinement would follow out of the root is cut.
    server.symlink(b'../../../secret', b'/sub/cut')
    assert os.readlink(outside / 'jail' / 'sub' / 'cut') == '../secret'
    assert server.realpath(b'/root') == b'/' and server.realpath(b'/root/sub/..') == b'/'
    assert server.realpath(b'/no/such/../file') == b'/no/file'


def test_links_in_circles_end(server: SFTPServer, outside: Path) -> None:
    os.symlink('b', outside / 'jail' / 'a')
    os.symlink('a', outside / 'jail' / 'b')

    with pytest.raises(OSError, match='symbolic'):
        server.stat(b'/a')

    os.symlink('/'.join(['sub/..'] * 500), outside / 'jail' / 'long')
    assert server.stat(b'/long').st_ino == (outside / 'jail').stat().st_ino  # type: ignore[union-attr]

    for number in range(30):
        os.symlink(f'l{number + 1}/../l{number + 1}', outside / 'jail' / f'l{number}')

    os.symlink('sub', outside / 'jail' / 'l30')

    with pytest.raises(OSError, match='symbolic'):
        server.stat(b'/l0')


def test_nul_and_prefix(server: SFTPServer) -> None:
    for call in (server.stat, server.realpath, server.remove, server.map_path):
        with pytest.raises(SFTPError, match='NUL'):
            call(b'/a\0b')

    assert below(b'/home/u1', b'/home/u10/x') is None and below(b'/home/u1', b'/home/u1') == []
    assert below(b'/', b'/x/y') == [b'x', b'y']


def test_a_directory_swapped_for_a_link_is_not_followed(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the walk and the operation the directory becomes a link: the operation still happens inside."""

    paths = ConfinedPaths(os.fsencode(outside / 'jail'))

    with paths.locate(os.fsencode(outside / 'jail' / 'sub' / 'made')) as place:
        os.rename(outside / 'jail' / 'sub', outside / 'jail' / 'was-sub')
        os.symlink('../secret', outside / 'jail' / 'sub')
        os.mkdir(place.name, dir_fd=place.dir_fd)

    assert (outside / 'jail' / 'was-sub' / 'made').is_dir() and unchanged(outside)


NAMES = st.lists(st.sampled_from(
    [b'..', b'.', b'', b'sub', b'deep', b'abs', b'rel', b'up', b'chain', b'root', b'secret', b'file', b'\xff']
), max_size=12)


@settings(max_examples=300, deadline=None)
@given(NAMES, st.booleans())
def test_any_path_stays_inside(tmp_path_factory: pytest.TempPathFactory, names: list[bytes], follow: bool) -> None:
    base = tmp_path_factory.getbasetemp() / 'any'

    if not base.exists():
        (base / 'jail' / 'sub' / 'deep').mkdir(parents=True)
        (base / 'secret').mkdir()
        (base / 'secret' / 'file').write_text('secret')
        os.symlink('../../secret', base / 'jail' / 'sub' / 'up')
        os.symlink(base / 'secret', base / 'jail' / 'abs')
        os.symlink('../secret/./..', base / 'jail' / 'rel')
        os.symlink('sub/deep/../../rel', base / 'jail' / 'chain')
        os.symlink('/', base / 'jail' / 'root')

    server = SFTPServer(Any, chroot=base / 'jail')
    inodes = {os.stat(path).st_ino for path in (base, base / 'secret', base / 'secret' / 'file', '/')}

    try:
        result = (server.stat if follow else server.lstat)(b'/'.join(names))
    except (OSError, SFTPError):
        return

    assert isinstance(result, os.stat_result) and result.st_ino not in inodes
    before = len(os.listdir('/proc/self/fd'))
    server.realpath(b'/'.join(names))
    assert len(os.listdir('/proc/self/fd')) == before


async def test_the_root_shows_nothing_above(server: SFTPServer, outside: Path) -> None:
    names = {name.filename: name.attrs for name in [name async for name in server.scandir(b'/')]}
    assert names[b'..'].uid == names[b'.'].uid and names[b'..'].mtime == (outside / 'jail').stat().st_mtime
    inner = {name.filename: name.attrs async for name in server.scandir(b'/sub/deep')}
    assert inner[b'..'].mtime == (outside / 'jail' / 'sub').stat().st_mtime


async def test_a_map_of_ones_own(outside: Path) -> None:
    class Mapped(SFTPServer):
        def map_path(self, path: bytes) -> bytes:
            return os.fsencode(outside / 'jail') + b'/' + path.replace(b'@', b'')

        def reverse_map_path(self, path: bytes) -> bytes:
            return b'@' + os.path.relpath(path, os.fsencode(outside / 'jail'))

    server = Mapped(Any)
    assert server.stat(b'@file').st_size == 6  # type: ignore[union-attr]
    assert server.realpath(b'@sub/../file') == b'@file'


def test_files_that_are_not_served(server: SFTPServer, outside: Path) -> None:
    os.mkfifo(outside / 'jail' / 'fifo')

    for path in (b'/fifo', b'/sub'):
        for pflags in (FXF_READ, FXF_WRITE | FXF_READ, FXF_WRITE):
            with pytest.raises((OSError, SFTPError)):
                server.open(path, pflags, SFTPAttrs())

    with pytest.raises(SFTPError, match='truncated'):
        server.open(b'/file', FXF_READ | FXF_TRUNC, SFTPAttrs())

    assert (outside / 'jail' / 'file').read_text() == 'inside'


def test_attributes_of_a_place(server: SFTPServer, outside: Path) -> None:
    path = outside / 'jail' / 'file'
    attrs = SFTPAttrs(size=3, uid=os.getuid(), gid=os.getgid(), permissions=0o100601, atime=5, mtime=6)
    server.setstat(b'/file', attrs)
    result = path.stat()
    assert (result.st_size, stat.S_IMODE(result.st_mode), result.st_atime, result.st_mtime) == (3, 0o601, 5, 6)
    server.lsetstat(b'/root', SFTPAttrs(atime_ns=7 * 10**9, mtime_ns=8 * 10**9))
    assert (outside / 'jail' / 'root').lstat().st_mtime == 8

    with pytest.raises(OSError, match='not supported'):
        server.lsetstat(b'/root', SFTPAttrs(permissions=0o600))

    assert stat.S_IMODE(os.stat('/').st_mode) != 0o600
