"""Copies that are whole or not there at all, that go on where they stopped, and that are looked at afterwards."""

import asyncio
import contextlib
import errno
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssh_fast import Transfer
from ssh_fast.sftp.errors import SFTPError, SFTPFailure, SFTPOpUnsupported
from ssh_fast.sftp.server import SFTPServer

from .ends import sftp_pair

SIZE = 3 << 20


@pytest.fixture
def near(tmp_path: Path) -> Path:
    (tmp_path / 'near').mkdir()
    return tmp_path / 'near'


@pytest.fixture
def far(tmp_path: Path) -> Path:
    (tmp_path / 'far').mkdir()
    return tmp_path / 'far'


class Fragile(SFTPServer):
    """Fails from an offset on."""

    fails_at = 1 << 20

    def read(self, file_obj: object, offset: int, size: int) -> Any:
        if offset + size > self.fails_at:
            raise OSError(errno.EIO, 'Input/output error')

        return super().read(file_obj, offset, size)

    def write(self, file_obj: object, offset: int, data: bytes) -> Any:
        if offset + len(data) > self.fails_at:
            raise OSError(errno.ENOSPC, 'No space left on device')

        return super().write(file_obj, offset, data)


def fragile(far: Path) -> Callable[[Any], SFTPServer]:
    return lambda chan: Fragile(chan, str(far))


def whole(far: Path) -> Callable[[Any], SFTPServer]:
    return lambda chan: SFTPServer(chan, str(far))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- atomic


async def test_a_download_is_seen_when_it_is_whole(near: Path, far: Path) -> None:
    content = os.urandom(SIZE)
    (far / 'file').write_bytes(content)
    (near / 'file').write_bytes(b'old')
    seen: list[bytes] = []

    async with sftp_pair(whole(far)) as (sftp, _, _):
        await sftp.get('file', near / 'file', progress_handler=lambda *_: seen.append((near / 'file').read_bytes()))

    # The last progress is told when all is read, before the file gets its name.
    assert set(seen) == {b'old'} and (near / 'file').read_bytes() == content
    assert names(near) == ['file']


async def test_a_download_that_fails_leaves_what_was_there(near: Path, far: Path) -> None:
    (far / 'file').write_bytes(os.urandom(SIZE))
    (near / 'there').write_bytes(b'old')

    async with sftp_pair(fragile(far)) as (sftp, session, _):
        for target in ('there', 'new'):
            with pytest.raises(SFTPFailure, match='Input/output error'):
                await sftp.get('file', near / target)

        assert (near / 'there').read_bytes() == b'old' and names(near) == ['there']

        with pytest.raises(SFTPFailure):
            await sftp.get('file', near / 'there', atomic=False)

        assert (near / 'there').read_bytes() == b'' and names(near) == ['there']
        await sftp.stat('.')
        assert not list(session._handles)


async def test_what_a_download_replaces(near: Path, far: Path) -> None:
    """Links are followed, modes stay, devices are written to, and names may be as long as they can be."""
    (far / 'file').write_bytes(b'content')
    (far / 'file').chmod(0o640)
    (near / 'file').write_bytes(b'old')
    (near / 'file').chmod(0o600)
    (near / 'link').symlink_to('file')
    (near / 'dangling').symlink_to('made')
    (near / 'folder').mkdir()
    os.mkfifo(near / 'fifo')
    long = 'n' * 255

    async with sftp_pair(whole(far)) as (sftp, _, _):
        await sftp.get('file', near / 'link')
        assert (near / 'link').is_symlink() and (near / 'file').read_bytes() == b'content'
        assert stat.S_IMODE((near / 'file').stat().st_mode) == 0o600
        await sftp.get('file', near / 'file', preserve=True)
        assert stat.S_IMODE((near / 'file').stat().st_mode) == 0o640
        await sftp.get('file', near / 'dangling')
        assert (near / 'made').read_bytes() == b'content' and (near / 'dangling').is_symlink()
        await sftp.get('file', '/dev/null')
        assert stat.S_ISCHR(os.stat('/dev/null').st_mode)
        await sftp.get('file', near / long)
        assert (near / long).read_bytes() == b'content'

        with pytest.raises((OSError, SFTPFailure)):
            await sftp.get('file', near / 'fifo')

        with pytest.raises(FileNotFoundError, match='absent'):
            await sftp.get('file', near / 'absent/file')

    assert names(near) == sorted(['dangling', 'fifo', 'file', 'folder', 'link', 'made', long])


@pytest.mark.parametrize('replaces', [False, True])
async def test_an_upload_is_seen_when_it_is_whole(near: Path, far: Path, replaces: bool) -> None:
    content = os.urandom(SIZE)
    (near / 'file').write_bytes(content)
    seen: set[bytes | None] = set()

    if replaces:
        (far / 'file').write_bytes(b'old')
        (far / 'file').chmod(0o600)

    def look(*_: object) -> None:
        seen.add((far / 'file').read_bytes() if (far / 'file').exists() else None)

    async with sftp_pair(whole(far)) as (sftp, _, _):
        assert (await sftp.put(near / 'file', 'file', atomic=True, progress_handler=look)).bytes == SIZE

    assert seen == {b'old' if replaces else None} and (far / 'file').read_bytes() == content
    assert not replaces or stat.S_IMODE((far / 'file').stat().st_mode) == 0o600
    assert names(far) == ['file']


async def test_an_upload_that_fails_leaves_what_was_there(near: Path, far: Path) -> None:
    (near / 'file').write_bytes(os.urandom(SIZE))
    (far / 'there').write_bytes(b'old')

    async with sftp_pair(fragile(far)) as (sftp, session, _):
        for target in ('there', 'new'):
            with pytest.raises(SFTPFailure, match='No space left'):
                await sftp.put(near / 'file', target, atomic=True)

        await sftp.stat('.')
        assert (far / 'there').read_bytes() == b'old' and names(far) == ['there']
        assert not list(session._handles)


async def test_an_upload_through_a_link(near: Path, far: Path) -> None:
    (near / 'file').write_bytes(b'content')
    (far / 'real').write_bytes(b'old')
    (far / 'link').symlink_to('real')

    async with sftp_pair(whole(far)) as (sftp, _, _):
        await sftp.put(near / 'file', 'link', atomic=True)

    assert (far / 'link').is_symlink() and (far / 'real').read_bytes() == b'content' and names(far) == ['link', 'real']


async def test_an_upload_to_a_server_that_cannot_replace(near: Path, far: Path) -> None:
    (near / 'file').write_bytes(b'content')
    (far / 'file').write_bytes(b'old')

    async with sftp_pair(whole(far)) as (sftp, _, _):
        sftp.session.extensions.pop(b'posix-rename@openssh.com')
        await sftp.put(near / 'file', 'file', atomic=True)
        await sftp.put(near / 'file', 'new', atomic=True)

    assert [(far / name).read_bytes() for name in names(far)] == [b'content'] * 2


async def test_sync(near: Path, far: Path) -> None:
    (near / 'file').write_bytes(b'content')
    synced: list[object] = []

    class Synced(SFTPServer):
        def fsync(self, file_obj: object) -> None:
            synced.append(file_obj)
            super().fsync(file_obj)

    async with sftp_pair(lambda chan: Synced(chan, str(far))) as (sftp, _, _):
        await sftp.put(near / 'file', 'plain', sync=True)
        await sftp.put(near / 'file', 'whole', sync=True, atomic=True)
        assert len(synced) == 2
        await sftp.get('plain', near / 'got', sync=True)
        await sftp.get('plain', near / 'written', sync=True, atomic=False)
        sftp.session.extensions.pop(b'fsync@openssh.com')

        with pytest.raises(SFTPOpUnsupported, match=r'fsync@openssh\.com'):
            await sftp.put(near / 'file', 'more', sync=True, atomic=True)

    assert names(near) == ['file', 'got', 'written'] and names(far) == ['plain', 'whole']


# --- resume


async def test_downloads_go_on_where_they_stopped(near: Path, far: Path) -> None:
    content = os.urandom(SIZE)
    (far / 'file').write_bytes(content)

    async with sftp_pair(fragile(far)) as (sftp, _, _):
        with pytest.raises(SFTPFailure, match='Input/output error'):
            await sftp.get('file', near / 'file', resume=True, block_size=32768)

    assert names(near) == ['.file.part']
    left = (near / '.file.part').read_bytes()
    assert left == content[: 1 << 20]

    async with sftp_pair(whole(far)) as (sftp, _, _):
        done: list[int] = []
        result = await sftp.get('file', near / 'file', resume=True, progress_handler=lambda *told: done.append(told[2]))
        assert (result.files, result.bytes, result.skipped) == (1, SIZE - len(left), 0)
        assert min(done) > len(left) and done[-1] == SIZE
        assert (near / 'file').read_bytes() == content and names(near) == ['file']
        result = await sftp.get('file', near / 'file', resume=True)
        assert (result.files, result.bytes, result.skipped) == (0, 0, 1)


async def test_downloads_in_place_go_on_where_they_stopped(near: Path, far: Path) -> None:
    content = os.urandom(SIZE)
    (far / 'file').write_bytes(content)
    (near / 'file').write_bytes(content[:1_000_000])

    async with sftp_pair(whole(far)) as (sftp, _, _):
        assert (await sftp.get('file', near / 'file', resume=True, atomic=False)).bytes == SIZE - 1_000_000

    assert (near / 'file').read_bytes() == content


@pytest.mark.parametrize('what', ['end', 'newer', 'longer'])
async def test_parts_of_something_else_are_not_gone_on_with(near: Path, far: Path, what: str) -> None:
    content = os.urandom(SIZE)
    (far / 'file').write_bytes(content)
    part = content[: 1 << 20]
    (near / '.file.part').write_bytes(part[:-1] + bytes([part[-1] ^ 1]) if what == 'end' else part)

    if what == 'newer':
        os.utime(near / '.file.part', (1000, 1000))
    elif what == 'longer':
        (near / '.file.part').write_bytes(content + b'more')

    (far / 'up.part').write_bytes((near / '.file.part').read_bytes())

    async with sftp_pair(whole(far)) as (sftp, _, _):
        assert (await sftp.get('file', near / 'file', resume=True)).bytes == SIZE

    assert (near / 'file').read_bytes() == content


async def test_a_part_with_a_hole_is_cut_there(near: Path, far: Path) -> None:
    content = os.urandom(SIZE)
    (far / 'file').write_bytes(content)
    (near / '.file.part').write_bytes(content[: 1 << 20])

    with open(near / '.file.part', 'r+b') as part:
        part.seek(2 << 20)
        part.write(content[2 << 20 : 5 << 19])

    if os.stat(near / '.file.part').st_blocks * 512 >= 5 << 19:
        pytest.skip('the file system of the temporary folder has no holes')

    async with sftp_pair(whole(far)) as (sftp, _, _):
        assert (await sftp.get('file', near / 'file', resume=True)).bytes == SIZE - (1 << 20)

    assert (near / 'file').read_bytes() == content


async def test_a_part_that_is_a_link_is_not_written_to(near: Path, far: Path) -> None:
    (far / 'file').write_bytes(b'content')
    (near / 'secret').write_bytes(b'secret')
    (near / '.file.part').symlink_to('secret')

    async with sftp_pair(whole(far)) as (sftp, _, _):
        with pytest.raises(OSError, match='file'):
            await sftp.get('file', near / 'file', resume=True)

        (near / '.file.part').unlink()
        os.link(near / 'secret', near / '.file.part')

        with pytest.raises(SFTPFailure, match='not a file of this user alone'):
            await sftp.get('file', near / 'file', resume=True)

    assert (near / 'secret').read_bytes() == b'secret'


@pytest.mark.parametrize('atomic', [False, True])
async def test_uploads_go_on_where_they_stopped(near: Path, far: Path, atomic: bool) -> None:
    content = os.urandom(SIZE)
    (near / 'file').write_bytes(content)

    async with sftp_pair(fragile(far)) as (sftp, _, _):
        with pytest.raises(SFTPFailure, match='No space left'):
            await sftp.put(near / 'file', 'file', resume=True, atomic=atomic, block_size=32768)

        await sftp.stat('.')

    assert names(far) == ['.file.part' if atomic else 'file']
    assert (far / names(far)[0]).read_bytes() == content[: 1 << 20]

    async with sftp_pair(whole(far)) as (sftp, _, _):
        result = await sftp.put(near / 'file', 'file', resume=True, atomic=atomic)
        assert (result.files, result.bytes, result.skipped) == (1, SIZE - (1 << 20), 0)
        assert (far / 'file').read_bytes() == content and names(far) == ['file']
        result = await sftp.put(near / 'file', 'file', resume=True, atomic=atomic)
        assert (result.files, result.bytes, result.skipped) == (0, 0, 1)


@pytest.mark.parametrize('what', ['end', 'newer', 'longer'])
async def test_uploads_of_something_else_are_not_gone_on_with(near: Path, far: Path, what: str) -> None:
    content = os.urandom(SIZE)
    (near / 'file').write_bytes(content)
    part = content[: 1 << 20]
    (far / 'file').write_bytes({'end': part[:-1] + bytes([part[-1] ^ 1]), 'longer': content + b'more'}.get(what, part))

    if what == 'newer':
        os.utime(far / 'file', (1000, 1000))

    async with sftp_pair(whole(far)) as (sftp, _, _):
        assert (await sftp.put(near / 'file', 'file', resume=True)).bytes == SIZE

    assert (far / 'file').read_bytes() == content


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('direction', ['get', 'put'])
@pytest.mark.parametrize('way', ['cancelled', 'lost'])
async def test_interrupted_at_any_moment_then_resumed(
    near: Path, far: Path, direction: str, way: str, seed: int
) -> None:
    chance = random.Random(seed)
    content = {f'file{number}': chance.randbytes(chance.randrange(2 << 20)) for number in range(6)}
    source, target = (far, near) if direction == 'get' else (near, far)
    (source / 'tree').mkdir()

    for name, data in content.items():
        (source / 'tree' / name).write_bytes(data)

    async def copy(sftp: Any) -> Transfer:
        options: Any = {'recurse': True, 'resume': True, 'atomic': True, 'block_size': 8192}

        if direction == 'get':
            return await sftp.get('tree/.', near / 'copy', **options)

        return await sftp.put(f'{near}/tree/.', 'copy', **options)

    for _ in range(3):
        async with sftp_pair(whole(far)) as (sftp, session, pair):
            copying = asyncio.ensure_future(copy(sftp))

            for _ in range(chance.randrange(60)):
                await asyncio.sleep(0)

            if way == 'cancelled':
                copying.cancel()
            else:
                pair.lose(None)

            with contextlib.suppress(asyncio.CancelledError, SFTPError):
                await copying

            if way == 'cancelled':
                await sftp.stat('.')

                # A hash that is being made of a file comes before its end.
                async with asyncio.timeout(5):
                    while list(session._handles):
                        await asyncio.sleep(0.001)

        for name, data in content.items():
            there = target / 'copy' / name
            assert not there.exists() or there.read_bytes() == data

    async with sftp_pair(whole(far)) as (sftp, _, _):
        result = await copy(sftp)
        assert result.files + result.skipped == len(content)

    assert {path.name: path.read_bytes() for path in (target / 'copy').iterdir()} == content


@pytest.mark.parametrize('offers', [True, False])
async def test_a_cancelled_atomic_upload_leaves_nothing_behind(near: Path, far: Path, offers: bool) -> None:
    """Whenever it is cancelled there is the old file or the new one, and no part; nothing is said to the loop."""
    (near / 'file').write_bytes(b'new' * 1000)
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: said.append(context))

    async with sftp_pair(whole(far)) as (sftp, session, _):
        if not offers:
            sftp.session.extensions.pop(b'posix-rename@openssh.com')

        for passes in range(60):
            (far / 'file').write_bytes(b'old')
            copying = asyncio.ensure_future(sftp.put(near / 'file', 'file', atomic=True))

            for _ in range(passes):
                await asyncio.sleep(0)

            copying.cancel()

            with contextlib.suppress(asyncio.CancelledError):
                await copying

            for _ in range(3):
                await sftp.stat('.')

            found = {path.name: path.read_bytes() for path in far.iterdir()}
            assert not list(session._handles) and not said, passes

            if not offers and 'file' not in found:
                # The old one was being replaced: the part is all that there is.
                assert list(found.values()) == [b'new' * 1000], passes
                (far / next(iter(found))).unlink()
            else:
                assert found in ({'file': b'old'}, {'file': b'new' * 1000}), passes


# --- verify


async def test_what_arrives_otherwise_is_found(near: Path, far: Path) -> None:
    content = os.urandom(2_000_000) + bytes(SIZE - 2_000_000)
    (near / 'file').write_bytes(content)
    (far / 'file').write_bytes(content)

    class Forgetful(SFTPServer):
        """Gives a byte that is another one each time, and never what it is."""

        reads = 0

        def read(self, file_obj: object, offset: int, size: int) -> Any:
            data = bytearray(super().read(file_obj, offset, size))

            if data and offset <= 2_000_000 < offset + len(data):
                Forgetful.reads += 1
                data[2_000_000 - offset] = Forgetful.reads % 255 + 1

            return bytes(data)

    async with sftp_pair(lambda chan: Forgetful(chan, str(far))) as (sftp, session, _):
        for atomic in (False, True):
            for resume in (False, True):
                with pytest.raises(SFTPFailure, match='is not what was written'):
                    await sftp.get('file', near / 'got', verify=True, atomic=atomic, resume=resume)

                with pytest.raises(SFTPFailure, match='is not what was written'):
                    await sftp.put(near / 'file', 'sent', verify=True, atomic=atomic, resume=resume)

                await sftp.stat('.')
                assert names(near) == ['file']
                assert not (far / 'sent').exists() or (far / 'sent').read_bytes() == b''
                assert names(far) in (['file'], ['file', 'sent'])

        assert not list(session._handles)

    async with sftp_pair(whole(far)) as (sftp, _, _):
        assert (await sftp.get('file', near / 'got', verify=True)).bytes == SIZE
        assert (await sftp.put(near / 'file', 'sent', verify=True, atomic=True)).bytes == SIZE
        assert (near / 'got').read_bytes() == (far / 'sent').read_bytes() == content


# --- what was done


async def test_what_a_copy_has_done(near: Path, far: Path) -> None:
    (far / 'tree/below').mkdir(parents=True)
    (far / 'tree/one').write_bytes(b'1')
    (far / 'tree/below/two').write_bytes(b'22')
    os.mkfifo(far / 'tree/fifo')

    async with sftp_pair(whole(far)) as (sftp, _, _):
        errors: list[Exception] = []
        got = await sftp.get('tree', near / 'tree', recurse=True, error_handler=errors.append)
        assert (got.files, got.bytes, got.skipped, got.failed) == (2, 3, 0, 1) and got.seconds > 0
        assert len(errors) == 1
        put = await sftp.put(near / 'tree', 'up', recurse=True)
        assert (put.files, put.bytes, put.failed) == (2, 3, 0)
        copied = await sftp.copy('up', 'copy', recurse=True)
        assert (copied.files, copied.bytes) == (2, 3)
        assert (await sftp.mget('tree/o*', near)).files == 1
        assert (await sftp.mput(near / 'o*', 'up')).files == 1
        assert (await sftp.mcopy('tree/o*', 'copy')).files == 1
