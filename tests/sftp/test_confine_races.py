"""A confined server while others change its tree: directories that become links and back, and renames across."""

import errno
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ssh_fast.constants import FXF_CREAT, FXF_EXCL, FXF_READ, FXF_TRUNC, FXF_WRITE
from ssh_fast.sftp.attrs import SFTPAttrs
from ssh_fast.sftp.confine import below
from ssh_fast.sftp.errors import SFTPError
from ssh_fast.sftp.server import SFTPServer

SECONDS = 1.5


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A root `/jail`, and beside it `secret`, which has files of the same names with other content."""

    for name in ('jail/a/b', 'jail/other', 'secret/b', 'spare'):
        (tmp_path / name).mkdir(parents=True)

    for name in ('jail/a/file', 'jail/a/b/file'):
        (tmp_path / name).write_text('inside')

    for name in ('secret/file', 'secret/only-here', 'secret/b/file', 'secret/b/only-here'):
        (tmp_path / name).write_text('secret!')

    return tmp_path


def secrets(outside: Path) -> list[Any]:
    found = [outside / 'secret', *sorted((outside / 'secret').rglob('*'))]

    return [
        (str(path), (info := path.lstat()).st_mode, info.st_ino, info.st_nlink, info.st_mtime_ns,
         info.st_uid, path.read_text() if path.is_file() else sorted(os.listdir(path)))
        for path in found
    ]  # fmt: skip


def exchange(one: Path, other: Path) -> None:
    """Have two names change places: by a third, so that for a moment the first is not there."""

    spare = one.with_name(one.name + '.spare')
    os.rename(one, spare)
    os.rename(other, one)
    os.rename(spare, other)


@contextmanager
def racing(change: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Change the tree again and again in a thread; gives whether there is time for more."""

    ended, failed, turns = threading.Event(), [], [0]

    def run() -> None:
        try:
            while not ended.is_set():
                change()
                turns[0] += 1
        except BaseException as exc:
            failed.append(exc)
            raise

    thread = threading.Thread(target=run)
    thread.start()
    end = time.monotonic() + SECONDS

    try:
        yield lambda: time.monotonic() < end and not failed
    finally:
        ended.set()
        thread.join()

    assert not failed and turns[0] > 20


def tried(call: Callable[[], Any]) -> Any:
    """Return what a call gives, or None for the errors that a tree in motion may have."""

    try:
        return call()
    except SFTPError:
        return None
    except OSError as exc:
        assert exc.errno in (
            errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.EINVAL,
            errno.EBUSY, errno.EOPNOTSUPP,
        ), exc  # fmt: skip
        return None


async def looks(server: SFTPServer, path: bytes, root: bytes) -> None:
    """Ask for everything that a path has, and see that it is of the inside."""

    file = tried(lambda: server.open(path + b'/file', FXF_READ, SFTPAttrs()))

    if file is not None:
        assert os.pread(file.fileno(), 100, 0) == b'inside'
        file.close()

    for call in (server.stat, server.lstat):
        info = tried(lambda call=call: call(path + b'/file'))  # type: ignore[misc]
        assert info is None or info.st_size == 6

    told = tried(lambda: server.realpath(path + b'/file'))
    assert told is None or below(root, told) is None
    names = set()

    try:
        async for name in server.scandir(path):
            names.add(name.filename)

            if name.filename == b'file':
                assert name.attrs.size == 6
    except (OSError, SFTPError):
        return

    assert b'only-here' not in names


def changes(server: SFTPServer, path: bytes, number: int) -> None:
    """Make, change and remove all sorts of things below a path."""

    new = path + b'/made'
    file = tried(lambda: server.open(new, FXF_WRITE | FXF_CREAT | (FXF_EXCL, FXF_TRUNC)[number % 2], SFTPAttrs()))

    if file is not None:
        file.close()

    for call in (
        lambda: server.setstat(path + b'/b', SFTPAttrs(permissions=0o700, atime=1, mtime=1)),
        lambda: server.lsetstat(path + b'/b', SFTPAttrs(permissions=0o755, uid=os.getuid(), gid=os.getgid())),
        lambda: server.mkdir(path + b'/dir', SFTPAttrs()),
        lambda: server.symlink(b'/other', path + b'/link'),
        lambda: server.link(path + b'/file', b'/other/hard'),
        lambda: server.link(b'/other/hard', path + b'/hard'),
        lambda: server.rename(path + b'/dir', path + b'/moved'),
        lambda: server.posix_rename(path + b'/hard', b'/other/moved'),
        lambda: server.posix_rename(b'/other/moved', path + b'/moved'),
        lambda: server.rmdir(path + b'/dir'),
        lambda: server.rmdir(path + b'/moved'),
        lambda: server.remove(path + b'/made'),
        lambda: server.remove(path + b'/link'),
        lambda: server.remove(path + b'/moved'),
        lambda: server.remove(path + b'/hard'),
        lambda: server.remove(b'/other/hard'),
    ):
        tried(call)


LINKS = ['../secret', '{outside}/secret', 'other/../../secret', '../jail/../secret']


@pytest.mark.parametrize('link', LINKS)
async def test_a_directory_that_becomes_a_link_and_back(outside: Path, link: str) -> None:
    before = secrets(outside)
    (outside / 'jail' / 'trap').symlink_to(link.format(outside=outside))
    server = SFTPServer(Any, chroot=outside / 'jail')
    number = 0

    with racing(lambda: exchange(outside / 'jail' / 'a', outside / 'jail' / 'trap')) as more:
        while more():
            number += 1

            for path in (b'/a', b'/trap', b'/a/../a', b'/other/../trap', b'/a/b/..'):
                await looks(server, path, os.fsencode(outside / 'jail'))
                changes(server, path, number)

    assert number > 5 and secrets(outside) == before


async def test_a_deeper_directory_that_becomes_a_link(outside: Path) -> None:
    before = secrets(outside)
    (outside / 'jail' / 'a' / 'trap').symlink_to('../../secret/b')
    server = SFTPServer(Any, chroot=outside / 'jail')

    with racing(lambda: exchange(outside / 'jail' / 'a' / 'b', outside / 'jail' / 'a' / 'trap')) as more:
        while more():
            for path in (b'/a/b', b'/a/trap'):
                await looks(server, path, os.fsencode(outside / 'jail'))
                changes(server, path, 0)

    assert secrets(outside) == before


async def test_a_directory_that_is_moved_while_its_parent_is_asked_for(outside: Path) -> None:
    """`..` behind a link is the directory above in the tree that clients see, wherever the directory has gone."""

    before = secrets(outside)
    (outside / 'jail' / 'a' / 'up').symlink_to('b/../../file')
    (outside / 'jail' / 'a' / 'up2').symlink_to('b/../../../secret/file')
    (outside / 'jail' / 'file').write_text('inside')
    server = SFTPServer(Any, chroot=outside / 'jail')

    def move() -> None:
        # Its parent is now outside: a walk that goes by the descriptor's own `..` would be there.
        os.rename(outside / 'jail' / 'a' / 'b', outside / 'spare' / 'b')
        os.rename(outside / 'spare' / 'b', outside / 'jail' / 'a' / 'b')

    with racing(move) as more:
        while more():
            for path in (b'/a/up', b'/a/up2', b'/a/b/../../file', b'/a/b/../../secret/file'):
                file = tried(lambda path=path: server.open(path, FXF_READ, SFTPAttrs()))  # type: ignore[misc]

                if file is not None:
                    assert os.pread(file.fileno(), 100, 0) == b'inside'
                    file.close()

    assert secrets(outside) == before


async def test_the_last_name_becomes_a_link(outside: Path) -> None:
    """What is found to be a file is one when it is opened, or it is not opened."""

    before = secrets(outside)
    (outside / 'jail' / 'a' / 'link').symlink_to('../../secret/file')
    server = SFTPServer(Any, chroot=outside / 'jail')

    with racing(lambda: exchange(outside / 'jail' / 'a' / 'file', outside / 'jail' / 'a' / 'link')) as more:
        while more():
            for path in (b'/a/file', b'/a/link'):
                for flags in (FXF_READ, FXF_READ | FXF_WRITE):
                    file = tried(lambda path=path, flags=flags: server.open(path, flags, SFTPAttrs()))  # type: ignore[misc]

                    if file is not None:
                        assert os.pread(file.fileno(), 100, 0) == b'inside'
                        file.close()

                tried(lambda path=path: server.setstat(path, SFTPAttrs(permissions=0o644, size=6)))  # type: ignore[misc]
                tried(lambda path=path: server.setstat(path, SFTPAttrs(atime=3, mtime=3)))  # type: ignore[misc]

    assert secrets(outside) == before


async def test_walks_at_random_in_a_tree_that_changes(outside: Path) -> None:
    before = secrets(outside)
    random_, picks = random.Random(7), random.Random(8)    # one for each thread
    jail = outside / 'jail'
    server = SFTPServer(Any, chroot=jail)
    names = [b'a', b'b', b'other', b'link', b'..', b'.', b'', b'file', b'secret', b'jail']
    secret = outside / 'secret'
    targets = ['..', '../..', '../secret', f'{secret}', 'a', 'b', '/', '../../secret/b', f'{jail}/../secret']

    def change() -> None:
        where = jail / random_.choice(['', 'a', 'a/b', 'other']) / 'link'

        try:
            if random_.random() < 0.5:
                os.symlink(random_.choice(targets), where)
            else:
                os.unlink(where)
        except OSError:
            pass

    with racing(change) as more:
        while more():
            path = b'/' + b'/'.join(picks.choice(names) for _ in range(picks.randrange(1, 8)))
            await looks(server, path, os.fsencode(outside / 'jail'))
            tried(lambda path=path: server.readlink(path))  # type: ignore[misc]
            changes(server, path, 1)

            for name in ('a/b', 'other'):
                (jail / name).mkdir(parents=True, exist_ok=True)

            if not (jail / 'a' / 'file').exists():
                (jail / 'a' / 'file').write_text('inside')

    assert secrets(outside) == before
