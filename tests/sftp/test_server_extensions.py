"""The extensions of our server that are more than one call, and its read-only mode."""

import asyncio
import hashlib
import os
import pwd
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from ssh_fast.constants import FXP_EXTENDED, FXP_EXTENDED_REPLY, FXP_NAME, FXP_STATUS
from ssh_fast.errors import Error
from ssh_fast.sftp.attrs import SFTPAttrs, SFTPName
from ssh_fast.sftp.client import SFTPClient
from ssh_fast.sftp.errors import (
    SFTPBadMessage,
    SFTPEOFError,
    SFTPError,
    SFTPFailure,
    SFTPNoSuchFile,
    SFTPPermissionDenied,
)
from ssh_fast.sftp.server import SFTPServer
from ssh_fast.wire import Cursor, encode_string, encode_uint32, encode_uint64

from .ends import rooted, sftp_pair

CONTENT = bytes(range(256)) * 4096


class ByCalls(SFTPServer):
    """Its files are read and written by its own methods."""

    async def read(self, file_obj: object, offset: int, size: int) -> Any:
        await asyncio.sleep(0)
        return super().read(file_obj, offset, size)

    async def write(self, file_obj: object, offset: int, data: bytes) -> Any:
        await asyncio.sleep(0)
        return super().write(file_obj, offset, data)


@pytest.fixture(params=[SFTPServer, ByCalls])
async def sftp(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SFTPClient]:
    (tmp_path / 'file').write_bytes(CONTENT)
    async with sftp_pair(lambda chan: request.param(chan, str(tmp_path))) as (client, session, _):
        yield client
        await client.stat('.')
        assert not list(session._handles)


async def ask(sftp: SFTPClient, extension: bytes, *parts: bytes) -> Cursor:
    kind, body = await sftp.session.send(FXP_EXTENDED, encode_string(extension) + b''.join(parts))
    if kind == FXP_STATUS:
        sftp.session.check_reply((kind, body))
    assert kind in (FXP_STATUS, FXP_EXTENDED_REPLY, FXP_NAME)
    return Cursor(body)


# --- copy-data


@pytest.mark.parametrize(
    ('offset', 'length', 'to'),
    [(0, 0, 0), (1000, 0, 5), (0, len(CONTENT), 0), (7, 300_000, 11), (len(CONTENT) - 3, 9, 0), (1 << 30, 0, 0)],
)
async def test_copy_data(sftp: SFTPClient, tmp_path: Path, offset: int, length: int, to: int) -> None:
    if offset + length <= len(CONTENT) or not length:
        await sftp.remote_copy('file', 'copy', offset, length, to)
    else:
        # As OpenSSH's: what there is has been copied by then.
        with pytest.raises(SFTPEOFError):
            await sftp.remote_copy('file', 'copy', offset, length, to)
    expected = CONTENT[offset : offset + length if length else None]
    assert (tmp_path / 'copy').read_bytes() == (bytes(to) + expected if expected else b'')


async def test_copy_data_of_more_than_is_copied_at_once(sftp: SFTPClient, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 40
    (tmp_path / 'large').write_bytes(content)
    await sftp.copy('large', 'copy')
    assert (tmp_path / 'copy').read_bytes() == content


async def test_copies_between_two_files_in_both_directions_at_once(sftp: SFTPClient, tmp_path: Path) -> None:
    """Each waits for what the other changes: whoever comes first goes first."""
    (tmp_path / 'other').write_bytes(CONTENT[::-1])
    async with sftp.open('file', 'r+b') as one, sftp.open('other', 'r+b') as two:
        ways = [(one, two, 0, 1000, 5000), (two, one, 0, 1000, 5000), (one, two, 2000, 1000, 7000)] * 10
        await asyncio.gather(*(sftp.remote_copy(*way) for way in ways))
    assert (tmp_path / 'file').read_bytes()[5000:6000] == CONTENT[::-1][:1000]
    assert (tmp_path / 'other').read_bytes()[5000:6000] == CONTENT[:1000]


async def test_copies_wait_for_writes_before_them(sftp: SFTPClient, tmp_path: Path) -> None:
    async with sftp.open('file', 'r+b') as source, sftp.open('copy', 'wb') as target:
        writing = source.write(b'x' * 200_000, 0)
        await asyncio.gather(writing, sftp.remote_copy(source, target, 0, 200_000))
    assert (tmp_path / 'copy').read_bytes() == b'x' * 200_000


async def test_copies_that_cannot_be(sftp: SFTPClient, tmp_path: Path) -> None:
    async with sftp.open('file', 'r+b') as file, sftp.open('copy', 'wb') as target:
        with pytest.raises(SFTPFailure, match='same handle'):
            await sftp.remote_copy(file, file, 0, 10, 100)
        with pytest.raises(SFTPError):
            await sftp.remote_copy(target, file, 0, 10)    # not open for reading
        handles = encode_string(file.handle) + encode_uint64(0) + encode_uint64(0) + encode_string(b'none')
        with pytest.raises(SFTPFailure):
            await ask(sftp, b'copy-data', handles, encode_uint64(0))
    with pytest.raises(SFTPBadMessage):
        await ask(sftp, b'copy-data')


async def test_a_file_copied_onto_itself(tmp_path: Path) -> None:
    (tmp_path / 'file').write_bytes(CONTENT)
    async with sftp_pair(rooted(tmp_path)) as (sftp, _, _):
        async with sftp.open('/file', 'rb') as source, sftp.open('/file', 'r+b') as target:
            for offset, length, to in ((0, 0, len(CONTENT)), (0, 1000, 999), (999, 1000, 0)):
                with pytest.raises(SFTPFailure, match='onto itself'):
                    await sftp.remote_copy(source, target, offset, length, to)
            await sftp.remote_copy(source, target, 0, 1000, 1000)
    assert (tmp_path / 'file').read_bytes() == CONTENT[:1000] * 2 + CONTENT[2000:]


async def test_a_session_that_ends_while_it_copies(tmp_path: Path) -> None:
    """The thread notices, and the session's end waits for it."""
    with open(tmp_path / 'file', 'wb') as file:
        file.truncate(64 << 30)    # with holes: it takes a while, and no room
    async with sftp_pair(lambda chan: SFTPServer(chan, str(tmp_path))) as (sftp, session, pair):
        source, target = await sftp.open('file', 'rb'), await sftp.open('copy', 'wb')
        handles = encode_string(source.handle) + encode_uint64(0) + encode_uint64(0) + encode_string(target.handle)
        copying = asyncio.ensure_future(ask(sftp, b'copy-data', handles, encode_uint64(0)))
        await asyncio.sleep(0.05)
        pair.lose(None)
        with pytest.raises(Error):
            await copying
        async with asyncio.timeout(10):
            while session._tasks or list(session._handles):
                await asyncio.sleep(0.01)
    size = (tmp_path / 'copy').stat().st_size
    await asyncio.sleep(0.05)
    assert (tmp_path / 'copy').stat().st_size == size < 64 << 30
    (tmp_path / 'copy').unlink()


@pytest.mark.parametrize('offers', [True, False])
async def test_copies_by_the_server_or_through_the_client(sftp: SFTPClient, tmp_path: Path, offers: bool) -> None:
    (tmp_path / 'tree/below').mkdir(parents=True)
    (tmp_path / 'tree/below/file').write_bytes(CONTENT)
    (tmp_path / 'tree/empty').write_bytes(b'')
    if not offers:
        sftp.session.extensions.pop(b'copy-data')
    assert (await sftp.copy('tree', 'copied', recurse=True)).bytes == len(CONTENT)
    assert (tmp_path / 'copied/below/file').read_bytes() == CONTENT
    assert (tmp_path / 'copied/empty').read_bytes() == b''


# --- check-file


@pytest.mark.parametrize('name', ['sha256', 'sha512', 'sha384', 'sha224', 'sha1', 'md5'])
@pytest.mark.parametrize('offset, length', [(0, 0), (100, 0), (3, 5000), (len(CONTENT) - 5, 100), (len(CONTENT), 0)])
async def test_check_file(sftp: SFTPClient, name: str, offset: int, length: int) -> None:
    arguments = encode_string(f'unknown,{name},md5') + encode_uint64(offset) + encode_uint64(length) + encode_uint32(0)
    expected = hashlib.new(name, CONTENT[offset : offset + length if length else None]).digest()
    async with sftp.open('file', 'rb') as file:
        for extension, what in ((b'check-file-handle', file.handle), (b'check-file-name', b'file')):
            reply = await ask(sftp, extension, encode_string(what), arguments)
            assert (reply.string(), reply.string(), reply.rest()) == (b'check-file', name.encode(), expected)


async def test_check_file_in_blocks(sftp: SFTPClient) -> None:
    def arguments(length: int, block: int) -> bytes:
        where = encode_uint64(0) + encode_uint64(length) + encode_uint32(block)
        return encode_string(b'file') + encode_string('md5') + where

    reply = await ask(sftp, b'check-file-name', arguments(1000, 256))
    blocks = [CONTENT[:1000][at : at + 256] for at in range(0, 1000, 256)]
    assert (reply.string(), reply.string()) == (b'check-file', b'md5')
    assert reply.rest() == b''.join(hashlib.md5(block).digest() for block in blocks)
    reply = await ask(sftp, b'check-file-name', arguments(512, 256))
    assert len(reply.rest()) == 4 + 10 + 4 + 3 + 2 * 16
    with pytest.raises(SFTPFailure, match='at least 256'):
        await ask(sftp, b'check-file-name', arguments(1000, 255))


async def test_check_file_that_cannot_be(sftp: SFTPClient, tmp_path: Path) -> None:
    rest = encode_uint64(0) + encode_uint64(0) + encode_uint32(0)
    with pytest.raises(SFTPFailure, match='one of the hashes'):
        await ask(sftp, b'check-file-name', encode_string(b'file'), encode_string(b'crc32'), rest)
    with pytest.raises(SFTPNoSuchFile):
        await ask(sftp, b'check-file-name', encode_string(b'absent'), encode_string(b'md5'), rest)
    with pytest.raises(SFTPFailure):
        await ask(sftp, b'check-file-handle', encode_string(b'absent'), encode_string(b'md5'), rest)
    with open(tmp_path / 'large', 'wb') as file:
        file.truncate(4 << 20)
    many = encode_string(b'large') + encode_string(b'sha512') + encode_uint64(0) + encode_uint64(0) + encode_uint32(256)
    with pytest.raises(SFTPFailure, match='fewer hashes'):
        await ask(sftp, b'check-file-name', many)


async def test_resume_and_verify_use_the_hashes(tmp_path: Path) -> None:
    (tmp_path / 'far').mkdir()
    (tmp_path / 'far/file').write_bytes(CONTENT)
    damaged = bytearray(CONTENT[:600_000])
    damaged[5] ^= 1    # far from its end
    (tmp_path / '.got.part').write_bytes(damaged)
    async with sftp_pair(rooted(tmp_path / 'far')) as (sftp, _, _):
        assert (await sftp.get('file', tmp_path / 'got', resume=True, verify=True)).bytes == len(CONTENT)
        (tmp_path / '.again.part').write_bytes(CONTENT[:600_000])
        result = await sftp.get('file', tmp_path / 'again', resume=True, verify=True)
        assert result.bytes == len(CONTENT) - 600_000
        assert (await sftp.put(tmp_path / 'got', 'sent', verify=True, atomic=True)).bytes == len(CONTENT)
    assert (tmp_path / 'got').read_bytes() == (tmp_path / 'again').read_bytes() == CONTENT


# --- names


async def test_homes(tmp_path: Path) -> None:
    home = os.path.expanduser('~').encode()
    root = pwd.getpwuid(0)
    async with sftp_pair() as (sftp, _, _):
        for user, expected in ((b'', home), (root.pw_name.encode(), root.pw_dir.encode())):
            reply = await ask(sftp, b'home-directory', encode_string(user))
            assert (reply.uint32(), reply.string()) == (1, expected)
        with pytest.raises(SFTPNoSuchFile, match='No such user'):
            await ask(sftp, b'home-directory', encode_string(b'nobody-of-that-name'))
        real = os.path.realpath(home)
        paths = [
            (b'~', real),
            (b'~/a', real + b'/a'),
            (b'~' + root.pw_name.encode(), os.path.realpath(root.pw_dir).encode()),
            (str(tmp_path).encode() + b'/.', os.path.realpath(tmp_path).encode()),
        ]
        for path, expected in paths:
            reply = await ask(sftp, b'expand-path@openssh.com', encode_string(path))
            assert (reply.uint32(), reply.string()) == (1, expected)
    async with sftp_pair(rooted(tmp_path)) as (sftp, _, _):
        for extension, path, expected in (
            (b'home-directory', b'root', b'/'), (b'expand-path@openssh.com', b'~/a/..', b'/'),
            (b'expand-path@openssh.com', b'~root/x', b'/x'),
        ):
            reply = await ask(sftp, extension, encode_string(path))
            assert (reply.uint32(), reply.string()) == (1, expected)


async def test_names_of_ids(tmp_path: Path) -> None:
    def strings(data: bytes) -> list[bytes]:
        cursor, found = Cursor(data), []
        while cursor.remaining:
            found.append(cursor.string())
        return found

    users = encode_uint32(0) + encode_uint32(4_000_000_000)
    async with sftp_pair() as (sftp, _, _):
        groups = encode_string(encode_uint32(0))
        reply = await ask(sftp, b'users-groups-by-id@openssh.com', encode_string(users), groups)
        assert strings(reply.string()) == [pwd.getpwuid(0).pw_name.encode(), b'']
        assert strings(reply.string()) == [b'root'] and not reply.remaining
        with pytest.raises(SFTPBadMessage, match='4 bytes'):
            await ask(sftp, b'users-groups-by-id@openssh.com', encode_string(b'abc'), encode_string(b''))
        with pytest.raises(SFTPFailure, match='at most 4096 ids'):
            await ask(sftp, b'users-groups-by-id@openssh.com', encode_string(bytes(4 * 4097)), encode_string(b''))


# --- read-only


class Untouched(SFTPServer):
    """Whatever would change something is never called."""

    read_only = True

    def _called(self, *args: Any) -> None:
        raise AssertionError('called')

    mkdir = rmdir = remove = rename = posix_rename = symlink = link = setstat = lsetstat = fsetstat = write = _called
    fsync = _called

    def open(self, path: bytes, pflags: int, attrs: SFTPAttrs) -> Any:
        assert pflags == 1
        return super().open(path, pflags, attrs)


@pytest.mark.parametrize('option', [True, False])
async def test_cve_2017_15906_nothing_is_changed(tmp_path: Path, option: bool) -> None:
    (tmp_path / 'served').mkdir()
    (tmp_path / 'served/file').write_bytes(CONTENT)
    (tmp_path / 'near').write_bytes(b'near')

    def state() -> list[tuple[str, bytes, int, int]]:
        found = sorted((tmp_path / 'served').iterdir())
        return [(path.name, path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns) for path in found]

    def make(chan: Any) -> SFTPServer:
        root = str(tmp_path / 'served')
        return SFTPServer(chan, root, read_only=True) if option else Untouched(chan, root)

    before = state()
    async with sftp_pair(make) as (sftp, _, _):
        changes: list[Callable[[], Any]] = [
            lambda: sftp.put(tmp_path / 'near', 'new'),
            lambda: sftp.put(tmp_path / 'near', 'file'),
            lambda: sftp.open('file', 'r+b'),
            lambda: sftp.open('file', 'ab'),
            lambda: sftp.open('new', 'xb'),
            lambda: sftp.mkdir('d'),
            lambda: sftp.rmdir('d'),
            lambda: sftp.remove('file'),
            lambda: sftp.rename('file', 'other'),
            lambda: sftp.posix_rename('file', 'other'),
            lambda: sftp.symlink('file', 'link'),
            lambda: sftp.link('file', 'link'),
            lambda: sftp.chmod('file', 0o600),
            lambda: sftp.chmod('file', 0o600, follow_symlinks=False),
            lambda: sftp.utime('file', (1, 1)),
            lambda: sftp.truncate('file', 0),
        ]
        for change in changes:
            with pytest.raises(SFTPPermissionDenied, match='read-only'):
                await change()
        async with sftp.open('file', 'rb') as file:
            for change in (
                lambda: file.write(b'x', 0), lambda: file.truncate(0), lambda: file.fsync(),
                lambda: sftp.remote_copy(file, file, 0, 1, 5),
            ):
                with pytest.raises(SFTPError):
                    await change()
            assert await file.read() == CONTENT
        assert [name.filename async for name in sftp.scandir('.') if name.filename[0] != '.'] == ['file']
        await sftp.get('file', tmp_path / 'got')
    assert state() == before and (tmp_path / 'got').read_bytes() == CONTENT


async def test_listings_of_servers_that_return_a_list(tmp_path: Path) -> None:
    class Lists(SFTPServer):
        def scandir(self, path: bytes) -> Any:
            return [SFTPName(b'%d' % number, attrs=SFTPAttrs(size=number)) for number in range(1000)]

    async with sftp_pair(lambda chan: Lists(chan, str(tmp_path))) as (sftp, _, _):
        found = [(name.filename, name.attrs.size) async for name in sftp.scandir('.')]
    assert found == [(str(number), number) for number in range(1000)]


async def test_a_hash_that_is_refused_holds_up_no_other_request(tmp_path: Path) -> None:
    """For want of handles: what changes paths afterwards must not wait for it for ever."""
    (tmp_path / 'file').write_bytes(CONTENT)
    arguments = encode_string(b'md5') + encode_uint64(0) + encode_uint64(0) + encode_uint32(0)
    async with sftp_pair(rooted(tmp_path)) as (sftp, session, _):
        session._handles.limit = 1
        async with sftp.open('file', 'rb'):
            with pytest.raises(SFTPFailure, match='Too many open handles'):
                await ask(sftp, b'check-file-name', encode_string(b'file'), arguments)
            async with asyncio.timeout(10):
                await sftp.mkdir('d')
        reply = await ask(sftp, b'check-file-name', encode_string(b'file'), arguments)
        assert reply.rest().endswith(hashlib.md5(CONTENT).digest())
