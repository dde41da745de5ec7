"""The extensions of servers beyond OpenSSH's first: copies within a server, hashes, homes, and names of users."""

import asyncio
import errno
import hashlib
import os
import pwd
import threading
from pathlib import Path
from typing import Any

import pytest

from ssh_fast.constants import FXP_EXTENDED, FXP_EXTENDED_REPLY, FXP_STATUS
from ssh_fast.sftp.attrs import SFTPAttrs
from ssh_fast.sftp.errors import (
    SFTPBadMessage,
    SFTPEOFError,
    SFTPError,
    SFTPFailure,
    SFTPInvalidHandle,
    SFTPNoSuchFile,
    SFTPOpUnsupported,
)
from ssh_fast.sftp.server import SFTPServer
from ssh_fast.wire import Cursor, encode_string, encode_uint32, encode_uint64

from .ends import reply, rooted, scripted, sftp_pair

DATA = os.urandom(3 << 20)


class InMemory(SFTPServer):
    """Serves files that are buffers in memory, by coroutines."""

    files: dict[bytes, bytearray] = {}

    async def open(self, path: bytes, pflags: int, attrs: Any) -> object:
        if path not in self.files:
            raise SFTPNoSuchFile('None of that name')

        return path

    async def close(self, file_obj: Any) -> None:
        assert file_obj in self.files

    async def read(self, file_obj: Any, offset: int, size: int) -> bytes:
        await asyncio.sleep(0)
        return bytes(self.files[file_obj][offset : offset + size])

    async def fstat(self, file_obj: Any) -> SFTPAttrs:
        return SFTPAttrs(size=len(self.files[file_obj]))

    async def write(self, file_obj: Any, offset: int, data: bytes) -> int:
        file = self.files[file_obj]
        file.extend(bytes(max(offset - len(file), 0)))
        file[offset : offset + len(data)] = data
        return len(data)


# --- copy-data


@pytest.mark.parametrize('kernel', [True, False])
@pytest.mark.parametrize(
    ('src_offset', 'length', 'dst_offset'),
    [(0, 0, 0), (5, 0, 3), (100, 2 << 20, 1 << 20), (len(DATA), 0, 4), (1, 1, 9)],
)
async def test_ranges_between_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: bool, src_offset: int, length: int, dst_offset: int
) -> None:
    if not kernel:
        monkeypatch.delattr(os, 'copy_file_range')

    (tmp_path / 'a').write_bytes(DATA)

    async with sftp_pair(rooted(tmp_path)) as (sftp, session, _):
        assert sftp.supports_remote_copy
        await sftp.remote_copy('a', 'b', src_offset, length, dst_offset)
        assert not list(session._handles)

    part = DATA[src_offset : src_offset + length if length else None]
    assert (tmp_path / 'b').read_bytes() == (bytes(dst_offset) + part if part else b'')


async def test_the_kernel_refuses_and_the_copy_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> int:
        raise OSError(errno.EXDEV, 'another file system')

    monkeypatch.setattr(os, 'copy_file_range', refuse)
    (tmp_path / 'a').write_bytes(DATA)

    async with sftp_pair(rooted(tmp_path)) as (sftp, _, _):
        await sftp.copy('a', 'b')

    assert (tmp_path / 'b').read_bytes() == DATA


async def test_files_without_a_size_are_copied_and_devices_are_not(tmp_path: Path) -> None:
    async with sftp_pair() as (sftp, _, _):
        await sftp.remote_copy('/proc/self/status', str(tmp_path / 'status'))
        assert (tmp_path / 'status').read_bytes().startswith(b'Name:')

        with pytest.raises(SFTPFailure, match='regular'):
            await sftp.remote_copy('/dev/zero', '/dev/null')


async def test_ranges_that_end_early_or_cannot_be(tmp_path: Path) -> None:
    (tmp_path / 'a').write_bytes(b'0123456789')
    (tmp_path / 'b').touch()

    async with sftp_pair(rooted(tmp_path)) as (sftp, _, _):
        async with sftp.open('a', 'rb') as src, sftp.open('b', 'r+b') as dst:
            with pytest.raises(SFTPEOFError):
                await sftp.remote_copy(src, dst, 5, 100)

            assert (tmp_path / 'b').read_bytes() == b'56789'

            for args in ((1 << 63, 0, 0), (0, 0, 1 << 63), (1, (1 << 63) - 1, 0), (0, (1 << 64) - 1, 0)):
                with pytest.raises(SFTPFailure, match='behind'):
                    await sftp.remote_copy(src, dst, *args)

            with pytest.raises(SFTPError):
                await sftp.remote_copy(dst, src)

            body = encode_string(src.handle) + encode_uint64(0) * 2 + encode_string(b'forged!!') + encode_uint64(0)

            with pytest.raises((SFTPInvalidHandle, SFTPFailure)):
                await sftp.session.extended_status(b'copy-data', body)

            with pytest.raises(SFTPBadMessage):
                await sftp.session.extended_status(b'copy-data', body[:20])


async def test_copies_wait_for_what_came_before_and_others_for_them(tmp_path: Path) -> None:
    """WRITE, copy, WRITE to one file are sent at once: the copy sees the first write and not the second."""

    (tmp_path / 'a').write_bytes(b'old.')
    (tmp_path / 'b').touch()

    async with sftp_pair(rooted(tmp_path)) as (sftp, _, _):
        async with sftp.open('a', 'r+b') as a, sftp.open('b', 'r+b') as b:
            session = sftp.session

            def write(handle: bytes, data: bytes) -> asyncio.Future[Any]:
                return session.send(6, encode_string(handle) + encode_uint64(0) + encode_string(data))

            def copy(src: bytes, dst: bytes, at: int) -> asyncio.Future[Any]:
                body = encode_string(src) + encode_uint64(0) * 2 + encode_string(dst) + encode_uint64(at)
                return session.send(FXP_EXTENDED, encode_string(b'copy-data') + body)

            # Crosswise, too: neither may wait for the other forever.
            replies = await asyncio.gather(
                write(a.handle, b'1st.'), copy(a.handle, b.handle, 0), write(a.handle, b'2nd.'),
                copy(b.handle, a.handle, 4), write(b.handle, b'3rd.'), copy(a.handle, b.handle, 4),
            )  # fmt: skip
            assert [Cursor(body).uint32() for _, body in replies] == [0] * 6

    assert (tmp_path / 'a').read_bytes() == b'2nd.1st.'
    assert (tmp_path / 'b').read_bytes() == b'3rd.2nd.1st.'


async def test_files_of_a_subclass_are_copied_by_its_methods() -> None:
    InMemory.files = {b'/a': bytearray(DATA), b'/b': bytearray()}

    async with sftp_pair(InMemory) as (sftp, _, _):
        await sftp.remote_copy('/a', '/b', 3, 0, 1)
        assert InMemory.files[b'/b'] == b'\0' + DATA[3:]
        await sftp.remote_copy('/a', '/b', 0, 2, 0)
        assert InMemory.files[b'/b'][:3] == DATA[:2] + DATA[4:5]

        with pytest.raises(SFTPEOFError):
            await sftp.remote_copy('/a', '/b', len(DATA) - 1, 2, 0)

        async with sftp.open('/a', 'r+b') as file:
            with pytest.raises(SFTPFailure, match='same'):
                await sftp.remote_copy(file, file, 0, 1, 5)

        check = await sftp.check_file('/a', 'sha512', 7, 1000)
        assert check == ('sha512', [hashlib.sha512(DATA[7:1007]).digest()])


# --- check-file


@pytest.mark.parametrize('algorithm', ['md5', 'sha1', 'sha224', 'sha256', 'sha384', 'sha512'])
async def test_hashes(tmp_path: Path, algorithm: str) -> None:
    (tmp_path / 'a').write_bytes(DATA)

    async with sftp_pair(rooted(tmp_path)) as (sftp, session, _):
        whole = await sftp.check_file('a', algorithm)
        assert whole == (algorithm, [hashlib.new(algorithm, DATA).digest()])

        async with sftp.open('a', 'rb') as file:
            part = await sftp.check_file(file, ('sha512', algorithm)[1:], 100, 2_000_000, 65536)

        data = DATA[100:2_000_100]
        blocks = [data[start : start + 65536] for start in range(0, len(data), 65536)]
        assert part.digests == [hashlib.new(algorithm, block).digest() for block in blocks]
        assert (await sftp.check_file('a', algorithm, len(DATA) - 1, 50)).digests == [
            hashlib.new(algorithm, DATA[-1:]).digest()
        ]
        assert (await sftp.check_file('a', algorithm, len(DATA), 0, 256)).digests == []
        assert not list(session._handles)


async def test_hashes_that_are_not_made(tmp_path: Path) -> None:
    (tmp_path / 'a').write_bytes(DATA)

    async with sftp_pair(rooted(tmp_path)) as (sftp, session, _):
        with pytest.raises(SFTPFailure, match='fewer'):
            await sftp.check_file('a', 'sha256', block_size=256)

        with pytest.raises(SFTPNoSuchFile):
            await sftp.check_file('b')

        for algorithms, block_size in (('crc32', 0), ((), 0), ('sha256', 255)):
            with pytest.raises(ValueError, match='algorithms|block_size'):
                await sftp.check_file('a', algorithms, block_size=block_size)

        for wanted, block_size, told in (('crc32,tiger', 0, 'sha256'), ('md5', 255, '256')):
            body = encode_string('/a') + encode_string(wanted) + encode_uint64(0) * 2 + encode_uint32(block_size)

            with pytest.raises(SFTPFailure, match=told):
                await sftp.session.announced(b'check-file-name', body)

        # The first that is known is taken.
        body = encode_string('/a') + encode_string('tiger,sha1,md5') + encode_uint64(0) * 2 + encode_uint32(0)
        cursor = await sftp.session.announced(b'check-file-name', body)
        assert (cursor.string(), cursor.string()) == (b'check-file', b'sha1')
        assert not list(session._handles) and session._handles._opening == 0

    async with sftp_pair() as (sftp, _, _):
        with pytest.raises(SFTPFailure, match='regular'):
            await sftp.check_file('/dev/zero')


async def test_replies_of_other_servers() -> None:
    digest = hashlib.sha256(b'').digest()
    answers: list[bytes] = []

    def answer(message_type: int, request_id: int, cursor: Cursor) -> bytes | None:
        return reply(FXP_EXTENDED_REPLY, request_id, answers.pop())

    extensions = {b'check-file-name': b'', b'users-groups-by-id@openssh.com': b'1'}

    async with scripted(answer, extensions) as (sftp, _, _):
        answers.append(encode_string('sha256') + digest)
        assert (await sftp.check_file('x', 'sha256')).digests == [digest]

        named = encode_string('sha256')
        others = encode_string('md5') + digest, encode_string('check-file'), encode_string('check-file') * 2

        for bad in (b'', named + digest[1:], named + digest * 2, *others):
            answers.append(bad)

            with pytest.raises(SFTPBadMessage):
                await sftp.check_file('x', 'sha256')

        for bad in (b'', encode_string(encode_string('a')), encode_string(encode_string('a') * 2) + encode_string(b'')):
            answers.append(bad)

            with pytest.raises(SFTPBadMessage):
                await sftp.users_groups_by_id([1])

    async with scripted(answer) as (sftp, _, _):
        for call in (sftp.check_file('x'), sftp.home_directory(), sftp.expand_path('~'), sftp.users_groups_by_id([0])):
            with pytest.raises(SFTPOpUnsupported):
                await call


async def test_long_work_takes_one_thread_of_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'a').write_bytes(DATA)
    now, most, go_on = [0], [0], threading.Event()
    pread = os.pread

    def slow(fd: int, size: int, offset: int) -> bytes:
        now[0] += 1
        most[0] = max(most[0], now[0])
        go_on.wait(10)
        now[0] -= 1
        return pread(fd, size, offset)

    async with sftp_pair(rooted(tmp_path)) as (sftp, _, _):
        monkeypatch.setattr(os, 'pread', slow)
        checks = [asyncio.ensure_future(sftp.check_file('a')) for _ in range(20)]

        while not now[0]:
            await asyncio.sleep(0.001)

        # What changes paths is not held up, whatever is hashed, nor is a thread of somebody else.
        await sftp.mkdir('b')
        await asyncio.to_thread(go_on.set)
        assert len({check.digests[0] for check in await asyncio.gather(*checks)}) == 1

    assert most == [1]


# --- homes and users


async def test_homes(tmp_path: Path) -> None:
    own = pwd.getpwuid(os.geteuid())

    async with sftp_pair() as (sftp, _, _):
        home = os.path.expanduser('~')
        assert await sftp.home_directory() == home
        assert await sftp.home_directory(own.pw_name) == own.pw_dir
        assert await sftp.expand_path('~') == os.path.realpath(home)
        assert await sftp.expand_path(b'~/x/../y') == os.fsencode(os.path.realpath(home)) + b'/y'
        assert await sftp.expand_path(f'~{own.pw_name}/z') == os.path.realpath(own.pw_dir) + '/z'
        assert await sftp.expand_path('/a/./~b') == '/a/~b'

        for call in (sftp.home_directory('no-such-user'), sftp.expand_path('~no-such-user')):
            with pytest.raises(SFTPNoSuchFile):
                await call

    async with sftp_pair(rooted(tmp_path)) as (sftp, _, _):
        assert await sftp.home_directory() == '/'
        assert await sftp.expand_path('~/../x') == '/x'


async def test_homes_of_a_subclass() -> None:
    class Homes(SFTPServer):
        async def home_directory(self, user: bytes) -> bytes:
            return b'/homes/' + (user or b'own')

        async def realpath(self, path: bytes) -> bytes:
            return b'/top' + path

    async with sftp_pair(Homes) as (sftp, _, _):
        assert await sftp.home_directory('anna') == '/homes/anna'
        assert await sftp.expand_path('~anna/x') == '/top/homes/anna/x'
        assert await sftp.expand_path('~') == '/top/homes/own'


async def test_names_of_users_and_groups(tmp_path: Path) -> None:
    class Named(SFTPServer):
        def format_group(self, gid: int | None) -> str:
            return 'staff' if gid == 7 else str(gid)

    async with sftp_pair(Named) as (sftp, _, _):
        users, groups = await sftp.users_groups_by_id([0, 4_000_000_000], [7, 0])
        assert users == [pwd.getpwuid(0).pw_name, None] and groups == ['staff', None]
        assert await sftp.users_groups_by_id() == ([], [])

        with pytest.raises(SFTPFailure, match='at most'):
            await sftp.users_groups_by_id([0] * 40_000)

        body = encode_string(b'\0' * 5) + encode_string(b'')
        message_type, _ = await sftp.session.send(FXP_EXTENDED, encode_string(b'users-groups-by-id@openssh.com') + body)
        assert message_type == FXP_STATUS
