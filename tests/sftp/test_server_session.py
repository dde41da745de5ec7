"""The server's side, request by request: order, handles, damage, user code that fails or waits, and the end."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssh_fast.channel.session import SSHClientSession, SSHServerSession
from ssh_fast.constants import (
    FX_BAD_MESSAGE,
    FX_EOF,
    FX_FAILURE,
    FX_NO_SUCH_FILE,
    FX_OK,
    FX_OP_UNSUPPORTED,
    FXF_CREAT,
    FXF_READ,
    FXF_WRITE,
    FXP_ATTRS,
    FXP_CLOSE,
    FXP_DATA,
    FXP_EXTENDED,
    FXP_EXTENDED_REPLY,
    FXP_FSETSTAT,
    FXP_FSTAT,
    FXP_HANDLE,
    FXP_LSTAT,
    FXP_MKDIR,
    FXP_NAME,
    FXP_OPEN,
    FXP_OPENDIR,
    FXP_READ,
    FXP_READDIR,
    FXP_REALPATH,
    FXP_REMOVE,
    FXP_STAT,
    FXP_STATUS,
    FXP_WRITE,
)
from ssh_fast.sftp.attrs import SFTPAttrs, SFTPLimits, SFTPName, decode_names
from ssh_fast.sftp.errors import SFTPFailure
from ssh_fast.sftp.server import SFTPServer
from ssh_fast.sftp.server_session import SFTPServerSession
from ssh_fast.wire import Cursor, encode_string, encode_uint32, encode_uint64
from tests.channel.pair import Pair, client_channel, serve, settle

from .ends import rooted, sftp_pair


class RawClient(SSHClientSession[bytes]):
    """Sends what a test says, and keeps the replies by their ids."""

    def __init__(self) -> None:
        self.chan: Any = None
        self.buffer = b''
        self.replies: dict[int, tuple[int, bytes]] = {}
        self.order: list[int] = []
        self.version: bytes | None = None
        self.exit_status: int | None = None
        self.lost = False

    def connection_made(self, chan: Any) -> None:
        self.chan = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.buffer += data

        while len(self.buffer) >= 4 and len(self.buffer) >= 4 + (size := int.from_bytes(self.buffer[:4], 'big')):
            message, self.buffer = self.buffer[4 : 4 + size], self.buffer[4 + size :]

            if message[0] == 2:
                self.version = message[1:]
            else:
                request_id = int.from_bytes(message[1:5], 'big')
                assert request_id not in self.replies
                self.replies[request_id] = message[0], message[5:]
                self.order.append(request_id)

    def eof_received(self) -> bool:
        return True

    def exit_status_received(self, status: int) -> None:
        self.exit_status = status

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def send(self, message_type: int, request_id: int, *fields: bytes) -> None:
        self.chan.write(encode_string(bytes([message_type]) + encode_uint32(request_id) + b''.join(fields)))

    async def ask(self, message_type: int, *fields: bytes) -> tuple[int, bytes]:
        request_id = 1000 + len(self.replies)
        self.send(message_type, request_id, *fields)

        for _ in range(2000):
            if request_id in self.replies or self.lost:
                break

            await asyncio.sleep(0 if _ < 1000 else 0.001)

        return self.replies[request_id]

    async def code(self, message_type: int, *fields: bytes) -> int:
        kind, body = await self.ask(message_type, *fields)
        assert kind == FXP_STATUS, kind
        cursor = Cursor(body)
        code = cursor.uint32()
        assert cursor.text() is not None and cursor.text() is not None
        cursor.check_end()

        return code

    async def open(self, path: bytes, pflags: int = FXF_READ) -> bytes:
        kind, body = await self.ask(FXP_OPEN, encode_string(path), encode_uint32(pflags), encode_uint32(0))
        assert kind == FXP_HANDLE, body

        return Cursor(body).string()


async def raw_client(
    factory: Any, pair: Pair | None = None, sessions: list[SFTPServerSession] | None = None
) -> RawClient:
    pair = pair or Pair()

    def make(chan: Any) -> SFTPServerSession:
        session = SFTPServerSession(factory)

        if sessions is not None:
            sessions.append(session)

        return session

    serve(pair, SSHServerSession, subsystems={'sftp': make})
    client = await client_channel(pair).create(RawClient, subsystem='sftp')
    assert isinstance(client, RawClient)
    client.chan.write(encode_string(b'\1' + encode_uint32(3)))
    await settle()

    return client


class SlowlyGranted(SFTPServerSession):
    """Thinks about it before it grants the subsystem."""

    async def subsystem_requested(self, subsystem: str) -> bool:  # type: ignore[override]
        await asyncio.sleep(0.01)

        return subsystem == 'sftp'


@pytest.mark.parametrize('slow_server', [False, True])
async def test_what_a_client_sends_before_its_session_is_granted_is_not_lost(tmp_path: Path, slow_server: bool) -> None:
    (tmp_path / 'file').write_bytes(b'content')

    async def later(chan: Any) -> SFTPServer:
        await asyncio.sleep(0.01)

        return rooted(tmp_path)(chan)

    pair = Pair()
    serve(pair, lambda: SlowlyGranted(later if slow_server else rooted(tmp_path)))
    early = [encode_string(b'\1' + encode_uint32(3))]
    early += [
        encode_string(bytes([FXP_LSTAT]) + encode_uint32(number) + encode_string(b'/file')) for number in range(12)
    ]

    class Eager(RawClient):
        def connection_made(self, chan: Any) -> None:
            super().connection_made(chan)
            # In two pieces, so that a message is cut where the session starts.
            data = b''.join(early)
            chan.write(data[:100])
            chan.write(data[100:-5])

    client = await client_channel(pair).create(Eager, subsystem='sftp')
    assert isinstance(client, Eager)
    client.chan.write(early[-1][-5:])

    for _ in range(100):
        if len(client.replies) == 12:
            break

        await asyncio.sleep(0.005)

    assert client.version is not None
    assert client.order == list(range(12))
    assert {kind for kind, _ in client.replies.values()} == {FXP_ATTRS}
    assert await client.open(b'/file')


async def test_version_limits_and_end(tmp_path: Path) -> None:
    client = await raw_client(rooted(tmp_path))
    assert client.version is not None
    cursor = Cursor(client.version)
    assert cursor.uint32() == 3
    names = set()

    while cursor.remaining:
        names.add(cursor.string())
        cursor.string()

    openssh = (
        b'posix-rename', b'statvfs', b'fstatvfs', b'hardlink', b'fsync', b'lsetstat', b'limits', b'expand-path',
        b'users-groups-by-id',
    )
    assert names == {name + b'@openssh.com' for name in openssh} | {b'copy-data', b'home-directory', b'check-file'}
    kind, body = await client.ask(FXP_EXTENDED, encode_string(b'limits@openssh.com'))
    limits = SFTPLimits.decode(Cursor(body))
    assert kind == FXP_EXTENDED_REPLY and limits.max_read_len == limits.max_write_len == 261120
    assert limits.max_open_handles and limits.max_open_handles > 0
    client.chan.write_eof()
    await settle()
    assert client.exit_status == 0 and client.lost


async def test_the_end_waits_for_what_is_under_way(tmp_path: Path) -> None:
    events: list[str] = []
    go = asyncio.Event()

    class Slow(SFTPServer):
        async def mkdir(self, path: bytes, attrs: SFTPAttrs) -> None:
            await go.wait()
            events.append('made')

        def close(self, file_obj: object) -> None:
            events.append('closed')
            super().close(file_obj)

        async def exit(self) -> None:
            await asyncio.sleep(0)
            events.append('exit')

    client = await raw_client(lambda chan: Slow(chan, str(tmp_path)))
    (tmp_path / 'f').write_text('')
    await client.open(b'/f')
    client.send(FXP_MKDIR, 1, encode_string(b'/x'), encode_uint32(0))
    client.chan.write_eof()
    await settle()
    assert not client.lost and events == []
    go.set()
    await settle()
    assert client.replies[1][0] == FXP_STATUS and events == ['made', 'closed', 'exit'] and client.exit_status == 0


def descriptors_of(path: Path) -> int:
    return sum(os.path.realpath(f'/proc/self/fd/{fd}') == str(path) for fd in os.listdir('/proc/self/fd'))


async def test_a_lost_connection_cancels_and_clears_up(tmp_path: Path) -> None:
    events: list[str] = []

    class Slow(SFTPServer):
        async def mkdir(self, path: bytes, attrs: SFTPAttrs) -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                events.append('cancelled')

        def exit(self) -> None:
            events.append('exit')

    (tmp_path / 'f').write_text('')
    pair = Pair()
    sessions: list[SFTPServerSession] = []
    client = await raw_client(lambda chan: Slow(chan, str(tmp_path)), pair, sessions)
    await client.open(b'/f')
    client.send(FXP_MKDIR, 1, encode_string(b'/x'), encode_uint32(0))
    client.send(FXP_MKDIR, 2, encode_string(b'/x'), encode_uint32(0))
    await asyncio.sleep(0)
    assert descriptors_of(tmp_path / 'f') == 2     # the file's, and the compiled core's duplicate
    pair.lose(None)
    await settle()
    assert events == ['cancelled', 'exit'] and not list(sessions[0]._handles)
    assert descriptors_of(tmp_path / 'f') == 0


async def test_handles(tmp_path: Path) -> None:
    (tmp_path / 'f').write_text('data')
    pair = Pair()
    sessions: list[SFTPServerSession] = []
    client = await raw_client(rooted(tmp_path), pair, sessions)
    other = await raw_client(rooted(tmp_path), pair, sessions)
    handle, theirs = await client.open(b'/f'), await other.open(b'/f')
    directory = Cursor((await client.ask(FXP_OPENDIR, encode_string(b'/')))[1]).string()
    assert handle != theirs and 0 < len(handle) <= 256
    forged = [
        b'', b'\0', handle[:-1], handle + b'\0', theirs, b'h' * 257, b'h' * 65536, handle[:-1] + b'\x7f',
        directory[::-1],
    ]

    for bad in forged:
        for kind, rest in ((FXP_READ, encode_uint64(0) + encode_uint32(10)), (FXP_FSTAT, b''), (FXP_CLOSE, b''),
                           (FXP_READDIR, b''), (FXP_WRITE, encode_uint64(0) + encode_string(b'x')),
                           (FXP_FSETSTAT, encode_uint32(0))):
            assert await client.code(kind, encode_string(bad), rest) == FX_FAILURE

    read = encode_uint64(0) + encode_uint32(10)
    assert await client.code(FXP_READ, encode_string(directory), read) == FX_FAILURE
    assert await client.code(FXP_READDIR, encode_string(handle)) == FX_FAILURE
    assert await client.code(FXP_WRITE, encode_string(handle), encode_uint64(0), encode_string(b'x')) == FX_FAILURE
    assert await client.ask(FXP_READ, encode_string(handle), read) == (FXP_DATA, encode_string(b'data'))
    assert await client.code(FXP_CLOSE, encode_string(handle)) == FX_OK
    assert await client.code(FXP_CLOSE, encode_string(handle)) == FX_FAILURE
    assert await client.code(FXP_READ, encode_string(handle), read) == FX_FAILURE
    assert await other.ask(FXP_READ, encode_string(theirs), read) == (FXP_DATA, encode_string(b'data'))
    assert await client.code(FXP_CLOSE, encode_string(directory)) == FX_OK
    assert (tmp_path / 'f').read_text() == 'data' and not list(sessions[0]._handles)


async def test_no_more_handles_than_the_limit(tmp_path: Path) -> None:
    (tmp_path / 'f').write_text('')
    sessions: list[SFTPServerSession] = []
    client = await raw_client(rooted(tmp_path), None, sessions)
    sessions[0]._handles.limit = 3
    handles = [await client.open(b'/f') for _ in range(3)]
    assert await client.code(FXP_OPEN, encode_string(b'/f'), encode_uint32(1), encode_uint32(0)) == FX_FAILURE
    assert await client.code(FXP_OPENDIR, encode_string(b'/')) == FX_FAILURE
    assert await client.code(FXP_CLOSE, encode_string(handles[0])) == FX_OK
    assert await client.open(b'/f')


async def test_lengths_offsets_and_padding(tmp_path: Path) -> None:
    (tmp_path / 'f').write_bytes(b'z' * 600_000)
    client = await raw_client(rooted(tmp_path))
    handle = await client.open(b'/f', FXF_READ | FXF_WRITE)
    kind, body = await client.ask(FXP_READ, encode_string(handle), encode_uint64(0), encode_uint32(0xffffffff))
    assert kind == FXP_DATA and 0 < len(body) - 4 <= 262144

    for offset in (600_000, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        code = await client.code(FXP_READ, encode_string(handle), encode_uint64(offset), encode_uint32(100))
        assert code in (FX_EOF, FX_FAILURE)

    # What lies behind the data of a WRITE is not data.
    body = encode_string(handle) + encode_uint64(3) + encode_string(b'abc') + b'padding'
    assert await client.code(FXP_WRITE, body) == FX_OK
    assert (tmp_path / 'f').read_bytes()[:8] == b'zzzabczz' and (tmp_path / 'f').stat().st_size == 600_000

    for offset in (1 << 63, (1 << 64) - 1):
        body = encode_string(handle) + encode_uint64(offset) + encode_string(b'abc')
        assert await client.code(FXP_WRITE, body) == FX_FAILURE


async def test_unknown_requests(tmp_path: Path) -> None:
    client = await raw_client(rooted(tmp_path))

    for kind in (0, 21, 22, 23, 24, 99, 101, 102, 150, 199, 201, 255):
        assert await client.code(kind, b'whatever') == FX_OP_UNSUPPORTED

    assert await client.code(FXP_EXTENDED, encode_string(b'no-such@example.com'), b'') == FX_OP_UNSUPPORTED
    assert await client.code(FXP_EXTENDED, encode_string(b'\xff\x1b[31m')) == FX_OP_UNSUPPORTED


REQUESTS = [
    (FXP_OPEN, encode_string(b'/f') + encode_uint32(1) + SFTPAttrs(size=1, uid=1, gid=1, permissions=1).encode()),
    (FXP_STAT, encode_string(b'/f')),
    (FXP_MKDIR, encode_string(b'/m') + SFTPAttrs(atime=1, mtime=1, extended=[(b'a', b'b')]).encode()),
    (FXP_REMOVE, encode_string(b'/r')),
    (18, encode_string(b'/f') + encode_string(b'/g')),
    (20, encode_string(b'/f') + encode_string(b'/s')),
    (9, encode_string(b'/f') + SFTPAttrs(permissions=0o600).encode()),
    (FXP_CLOSE, encode_string(b'handle')),
    (FXP_READ, encode_string(b'handle') + encode_uint64(0) + encode_uint32(0)),
    (FXP_WRITE, encode_string(b'handle') + encode_uint64(0) + encode_string(b'data')),
    (FXP_EXTENDED, encode_string(b'hardlink@openssh.com') + encode_string(b'/f') + encode_string(b'/h')),
    (FXP_EXTENDED, encode_string(b'lsetstat@openssh.com') + encode_string(b'/f') + encode_uint32(0)),
]


@pytest.mark.parametrize(('kind', 'body'), REQUESTS)
async def test_requests_cut_anywhere_change_nothing(tmp_path: Path, kind: int, body: bytes) -> None:
    (tmp_path / 'f').write_text('f')
    (tmp_path / 'r').write_text('r')
    before = sorted(os.listdir(tmp_path))
    client = await raw_client(rooted(tmp_path))

    for size in range(len(body)):
        code = await client.code(kind, body[:size])
        assert code in (FX_BAD_MESSAGE, FX_FAILURE, FX_OP_UNSUPPORTED), (size, code)

    assert sorted(os.listdir(tmp_path)) == before and (tmp_path / 'f').read_text() == 'f'
    assert (await client.ask(FXP_STAT, encode_string(b'/f')))[0] == FXP_ATTRS


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(3, 255), st.binary(max_size=60)), max_size=8))
def test_any_bytes_are_answered(tmp_path: Path, requests: list[tuple[int, bytes]]) -> None:
    async def run() -> None:
        client = await raw_client(rooted(tmp_path))

        for kind, body in requests:
            assert (await client.ask(kind, body))[0] in (
                FXP_STATUS, FXP_HANDLE, FXP_DATA, FXP_NAME, FXP_ATTRS, FXP_EXTENDED_REPLY
            )

        assert (await client.ask(FXP_STAT, encode_string(b'/')))[0] == FXP_ATTRS

    asyncio.run(run())


@pytest.mark.parametrize('first', [
    encode_string(b'\1' + encode_uint32(2)),
    encode_string(b'\1'),
    encode_string(b'\x11' + encode_uint32(3) + encode_string(b'/')),
    encode_uint32(1 << 30),
    encode_uint32(0),
])
async def test_a_wrong_beginning_ends_the_session(tmp_path: Path, first: bytes) -> None:
    pair = Pair()
    serve(pair, SSHServerSession, subsystems={'sftp': lambda chan: SFTPServerSession(rooted(tmp_path))})
    client = await client_channel(pair).create(RawClient, subsystem='sftp')
    assert isinstance(client, RawClient)
    client.chan.write(first)
    await settle()
    assert client.lost and client.version is None and not client.replies and pair.server.error is None


async def test_exceptions_in_user_code_fail_their_request_only(tmp_path: Path, caplog: Any) -> None:
    class Broken(SFTPServer):
        def stat(self, path: bytes) -> Any:
            raise RuntimeError('secret details')

        async def lstat(self, path: bytes) -> Any:
            raise KeyError('secret details')

        def realpath(self, path: bytes) -> Any:
            return 42

        def remove(self, path: bytes) -> Any:
            raise NotImplementedError

        def mkdir(self, path: bytes, attrs: SFTPAttrs) -> Any:
            raise SFTPFailure('told \x1b[31m to the client')

        def open(self, path: bytes, pflags: int, attrs: SFTPAttrs) -> Any:
            raise FileNotFoundError(2, 'No such file', '/secret/path')

        def scandir(self, path: bytes) -> Any:
            return 5

    client = await raw_client(lambda chan: Broken(chan, str(tmp_path)))

    for kind in (FXP_STAT, FXP_LSTAT, FXP_REALPATH, FXP_OPENDIR):
        assert await client.code(kind, encode_string(b'/')) == FX_FAILURE

    assert await client.code(FXP_REMOVE, encode_string(b'/')) == FX_OP_UNSUPPORTED
    assert await client.code(FXP_MKDIR, encode_string(b'/'), encode_uint32(0)) == FX_FAILURE
    assert b'\x1b[' not in client.replies[client.order[-1]][1] and b'told' in client.replies[client.order[-1]][1]
    assert await client.code(FXP_OPEN, encode_string(b'/'), encode_uint32(1), encode_uint32(0)) == FX_NO_SUCH_FILE
    assert not any(b'secret' in body for _, body in client.replies.values())
    assert 'secret details' in caplog.text


async def test_order_of_concurrent_requests(tmp_path: Path) -> None:
    running: list[str] = []
    log: list[tuple[str, str]] = []

    class Slow(SFTPServer):
        async def _slowly(self, name: str) -> None:
            log.append(('begin', name))
            running.append(name)
            await asyncio.sleep(0.002)
            running.remove(name)
            log.append(('end', name))

        async def stat(self, path: bytes) -> Any:
            await self._slowly(path.decode())

            return SFTPAttrs(size=1)

        async def mkdir(self, path: bytes, attrs: SFTPAttrs) -> None:
            assert running == []
            await self._slowly(path.decode())

        async def read(self, file_obj: object, offset: int, size: int) -> Any:
            await self._slowly(f'read{offset}')

            return b'x'

        async def close(self, file_obj: object) -> None:
            assert not [name for name in running if name.startswith('read')]
            super().close(file_obj)

    (tmp_path / 'f').write_text('')
    client = await raw_client(lambda chan: Slow(chan, str(tmp_path)))
    handle = encode_string(await client.open(b'/f'))
    client.send(FXP_STAT, 1, encode_string(b's1'))
    client.send(FXP_STAT, 2, encode_string(b's2'))
    client.send(FXP_MKDIR, 3, encode_string(b'm3'), encode_uint32(0))
    client.send(FXP_STAT, 4, encode_string(b's4'))

    while len(client.replies) < 5:
        await asyncio.sleep(0.001)

    names = [f'{what} {name}' for what, name in log]
    assert names[:2] == ['begin s1', 'begin s2'] and names[4:] == ['begin m3', 'end m3', 'begin s4', 'end s4']
    log.clear()

    for number in range(10, 13):
        client.send(FXP_READ, number, handle, encode_uint64(number), encode_uint32(1))

    client.send(FXP_CLOSE, 13, handle)
    client.send(FXP_CLOSE, 14, handle)

    while len(client.replies) < 10:
        await asyncio.sleep(0.001)

    assert client.order[-5:] == [10, 11, 12, 13, 14]
    assert [name for what, name in log if what == 'begin'] == ['read10', 'read11', 'read12']
    assert client.replies[13][1][:4] == encode_uint32(FX_OK)
    assert client.replies[14][1][:4] == encode_uint32(FX_FAILURE)


async def test_a_thousand_requests_behind_a_slow_one(tmp_path: Path) -> None:
    go = asyncio.Event()

    class Slow(SFTPServer):
        async def mkdir(self, path: bytes, attrs: SFTPAttrs) -> None:
            await go.wait()

    sessions: list[SFTPServerSession] = []
    client = await raw_client(lambda chan: Slow(chan, str(tmp_path)), None, sessions)
    client.send(FXP_MKDIR, 0, encode_string(b'x'), encode_uint32(0))

    for number in range(1, 3000):
        client.send(FXP_STAT, number, encode_string(b'/'))

    await settle()
    assert not client.replies and sessions[0]._held_back
    go.set()

    while len(client.replies) < 3000:
        await asyncio.sleep(0)

    assert not sessions[0]._held_back and sessions[0]._pending == 0


async def test_a_client_that_floods_gets_no_more_room(tmp_path: Path) -> None:
    class Never(SFTPServer):
        async def stat(self, path: bytes) -> Any:
            await asyncio.sleep(1000)

    sessions: list[SFTPServerSession] = []
    client = await raw_client(lambda chan: Never(chan, str(tmp_path)), None, sessions)

    for number in range(200):
        client.send(FXP_STAT, number, encode_string(b'p' * 60000))

    for number in range(200, 100_000):
        client.send(FXP_STAT, number, encode_string(b'p' * 100))

    await settle()
    # A window of 2 MiB, and no more of it.
    assert sessions[0]._pending < 100_000 and client.chan.get_write_buffer_size() > 0
    sessions[0]._end(cancel=True)
    await settle()


async def test_factories_that_wait_or_fail(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def later(chan: Any) -> SFTPServer:
        await go.wait()

        return SFTPServer(chan, str(tmp_path))

    client = await raw_client(later)
    client.send(FXP_STAT, 1, encode_string(b'/'))
    await settle()
    assert client.version is None
    go.set()
    await settle()
    assert client.version is not None and client.replies[1][0] == FXP_ATTRS

    async def failing(chan: Any) -> SFTPServer:
        await asyncio.sleep(0)
        raise RuntimeError('no server today')

    client = await raw_client(failing)
    await settle()
    assert client.lost and client.exit_status == 1 and client.version is None


async def test_listings_of_every_kind(tmp_path: Path) -> None:
    class Listed(SFTPServer):
        def scandir(self, path: bytes) -> Any:
            names = [SFTPName(b'n%d' % number, b'long', SFTPAttrs(size=number)) for number in range(300)]

            if path == b'list':
                return names

            if path == b'iterator':
                return iter(names)

            if path == b'big':
                return [SFTPName(b'x' * 1000, b'y' * 100_000) for _ in range(5)]

            if path == b'empty':
                return []

            if path == b'coroutine':
                async def later() -> list[SFTPName]:
                    return names

                return later()

            async def entries() -> AsyncIterator[SFTPName]:
                for name in names:
                    await asyncio.sleep(0)
                    yield name

            return entries()

        async def format_longname(self, name: SFTPName) -> None:
            name.longname = b'formatted'

    async with sftp_pair(lambda chan: Listed(chan)) as (sftp, session, _):
        for path in (b'list', b'iterator', b'coroutine', b'generator'):
            found = await sftp.readdir(path)
            assert [name.attrs.size for name in found] == list(range(300)) and found[0].longname == b'long'

        assert len(await sftp.readdir(b'big')) == 5 and await sftp.listdir(b'empty') == []
        await sftp.stat(b'.')
        assert not list(session._handles)


async def test_a_virtual_file_system_reads_and_writes(tmp_path: Path) -> None:
    """Overridden methods see every request, also those that the compiled core would serve."""

    seen: list[str] = []

    class Shouting(SFTPServer):
        def read(self, file_obj: object, offset: int, size: int) -> Any:
            seen.append('read')
            data = super().read(file_obj, offset, size)
            assert isinstance(data, bytes)

            return data.upper()

        async def write(self, file_obj: object, offset: int, data: bytes) -> int:
            seen.append('write')
            await asyncio.sleep(0)

            return SFTPServer.write(self, file_obj, offset, data.lower())  # type: ignore[return-value]

        def fsync(self, file_obj: object) -> None:
            seen.append('fsync')

    async with sftp_pair(lambda chan: Shouting(chan, str(tmp_path))) as (sftp, _, _):
        async with sftp.open('f', 'w') as file:
            await file.write('Hello')
            await file.fsync()

        assert (tmp_path / 'f').read_text() == 'hello'

        async with sftp.open('f') as file:
            assert await file.read() == 'HELLO'

    assert {'read', 'write', 'fsync'} == set(seen)


async def test_files_that_are_not_real(tmp_path: Path) -> None:
    import io

    files: dict[bytes, bytes] = {b'a': b'0123456789'}

    class Memory(SFTPServer):
        def open(self, path: bytes, pflags: int, attrs: SFTPAttrs) -> object:
            if path not in files and not pflags & FXF_CREAT:
                raise FileNotFoundError(2, 'No such file')

            file = io.BytesIO(files.get(path, b''))
            file.name = path  # type: ignore[attr-defined]

            return file

        def close(self, file_obj: Any) -> None:
            files[file_obj.name] = file_obj.getvalue()

        def fstat(self, file_obj: Any) -> SFTPAttrs:
            return SFTPAttrs(size=len(file_obj.getvalue()))

        def stat(self, path: bytes) -> SFTPAttrs:
            return SFTPAttrs(size=len(files[path]), permissions=0o100644)

        lstat = stat

    async with sftp_pair(lambda chan: Memory(chan)) as (sftp, _, _):
        await sftp.get('a', tmp_path / 'a')
        assert (tmp_path / 'a').read_bytes() == b'0123456789'
        (tmp_path / 'b').write_bytes(os.urandom(700_000))

        async with sftp.open('b', 'wb') as file:
            await file.write((tmp_path / 'b').read_bytes())

        assert files[b'b'] == (tmp_path / 'b').read_bytes()


def names_of(body: bytes) -> Iterator[Any]:
    return (name.filename for name in decode_names(Cursor(body)))


async def test_readdir_after_the_end(tmp_path: Path) -> None:
    client = await raw_client(rooted(tmp_path))
    handle = Cursor((await client.ask(FXP_OPENDIR, encode_string(b'/')))[1]).string()
    kind, body = await client.ask(FXP_READDIR, encode_string(handle))
    assert kind == FXP_NAME and set(names_of(body)) == {b'.', b'..'}
    assert await client.code(FXP_READDIR, encode_string(handle)) == FX_EOF
    assert await client.code(FXP_READDIR, encode_string(handle)) == FX_EOF
    assert await client.code(FXP_OPENDIR, encode_string(b'/none')) == FX_NO_SUCH_FILE
