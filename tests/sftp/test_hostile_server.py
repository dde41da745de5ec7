"""What a server may send that must not do harm: names, links, counts, handles, types of replies."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from ssh_fast.constants import (
    FXP_ATTRS,
    FXP_CLOSE,
    FXP_DATA,
    FXP_EXTENDED,
    FXP_FSTAT,
    FXP_HANDLE,
    FXP_LSTAT,
    FXP_NAME,
    FXP_OPEN,
    FXP_OPENDIR,
    FXP_READ,
    FXP_READDIR,
    FXP_READLINK,
    FXP_REMOVE,
    FXP_STAT,
    FXP_SYMLINK,
)
from ssh_fast.sftp.attrs import SFTPAttrs, SFTPName, encode_names
from ssh_fast.sftp.errors import SFTPBadMessage, SFTPError, SFTPFailure, SFTPNoSuchFile
from ssh_fast.wire import Cursor, encode_string, encode_uint32, encode_uint64

from .ends import reply, scripted, status

DIRECTORY = SFTPAttrs(permissions=0o40755)
REGULAR = SFTPAttrs(permissions=0o100644, size=4)
LINK = SFTPAttrs(permissions=0o120777)


class Tree:
    """Answers as a server whose directory `/top` lists what a test wants, and whose files all hold `evil`."""

    def __init__(self, *names: tuple[bytes, SFTPAttrs], target: bytes = b'/etc/passwd') -> None:
        self.names = names
        self.target = target
        self.listed = 0

    def __call__(self, message_type: int, request_id: int, cursor: Cursor) -> bytes:
        if message_type in (FXP_LSTAT, FXP_STAT):
            path = cursor.string()
            attrs = DIRECTORY if path in (b'/top', b'/top/.') else dict(self.names).get(os.path.basename(path), REGULAR)

            return reply(FXP_ATTRS, request_id, attrs.encode())

        if message_type in (FXP_OPEN, FXP_OPENDIR):
            path = cursor.string()
            self.listed = self.listed if message_type == FXP_OPEN else 0 if path in (b'/top', b'/top/.') else 1

            return reply(FXP_HANDLE, request_id, encode_string(b'h'))

        if message_type == FXP_READDIR:
            self.listed += 1
            names = [SFTPName(name, name, attrs) for name, attrs in self.names]

            return reply(FXP_NAME, request_id, encode_names(names)) if self.listed == 1 else status(request_id, 1)

        if message_type == FXP_FSTAT:
            return reply(FXP_ATTRS, request_id, REGULAR.encode())

        if message_type == FXP_READ:
            offset = (cursor.string(), cursor.uint64())[1]

            return status(request_id, 1) if offset else reply(FXP_DATA, request_id, encode_string(b'evil'))

        if message_type == FXP_READLINK:
            return reply(FXP_NAME, request_id, encode_names([SFTPName(self.target)]))

        return status(request_id, 0)


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob('*')}


@pytest.mark.parametrize(
    'name', [b'../evil', b'/tmp/ssh_fast_evil', b'a/b', b'', b'a\0b', b'..', b'.', b'sub/../../evil', b'//', b'evil/']
)
async def test_names_that_lead_elsewhere(tmp_path: Path, name: bytes) -> None:
    for attrs in (REGULAR, DIRECTORY, LINK):
        target = tmp_path / 'in' / f'{attrs.permissions}'
        target.parent.mkdir(exist_ok=True)

        async with scripted(Tree((name, attrs))) as (sftp, _, _):
            errors: list[Exception] = []
            await sftp.get('/top', target, recurse=True, error_handler=errors.append)

            if name not in (b'.', b'..'):
                assert [type(exc) for exc in errors] == [SFTPBadMessage]

                with pytest.raises(SFTPBadMessage, match='name'):
                        await sftp.get('/top/.', target, recurse=True)

        assert everything(target) == set()

    assert everything(tmp_path) == {'in', *(f'in/{attrs.permissions}' for attrs in (REGULAR, DIRECTORY, LINK))}


async def test_a_good_name_beside_a_bad_one_and_odd_ones(tmp_path: Path) -> None:
    names = [(b'../x', REGULAR), (b'good', REGULAR), (b'back\\slash', REGULAR), (b'esc\x1b[31m', REGULAR)]

    async with scripted(Tree(*names)) as (sftp, _, _):
        await sftp.get('/top', tmp_path / 'top', recurse=True, error_handler=False)

    assert everything(tmp_path) == {'top', 'top/good', 'top/back\\slash', 'top/esc\x1b[31m'}
    assert (tmp_path / 'top' / 'good').read_bytes() == b'evil'


@pytest.mark.parametrize('target', [b'/etc', b'..', b'../..', b'sub/../../..', b'./../x', b'a/../../b'])
async def test_links_that_lead_out_are_not_made(tmp_path: Path, target: bytes) -> None:
    async with scripted(Tree((b'link', LINK), target=target)) as (sftp, _, _):
        errors: list[Exception] = []
        await sftp.get('/top', tmp_path / 'top', recurse=True, error_handler=errors.append)
        fine = target == b'..' or target == b'./../x' or target == b'a/../../b'

        # One step up is the directory that the tree itself was put into: the link leads there, not further.
        assert [type(exc) for exc in errors] == [] if fine else [SFTPFailure]
        assert os.path.lexists(tmp_path / 'top' / 'link') == fine


@pytest.mark.parametrize('second', [REGULAR, DIRECTORY])
async def test_a_name_listed_as_link_and_again(tmp_path: Path, second: SFTPAttrs) -> None:
    outside = tmp_path / 'outside'
    outside.mkdir()
    (tmp_path / 'in').mkdir()
    names = Tree((b'x', LINK), (b'x', second), target=b'.')

    async with scripted(names) as (sftp, _, _):
        with pytest.raises((OSError, SFTPError)):
            await sftp.get('/top', tmp_path / 'in' / 'top', recurse=True)

    assert everything(outside) == set() and os.path.islink(tmp_path / 'in' / 'top' / 'x')


@pytest.mark.parametrize('attrs', [REGULAR, DIRECTORY])
async def test_a_planted_link_is_not_followed(tmp_path: Path, attrs: SFTPAttrs) -> None:
    (tmp_path / 'victim').mkdir()
    (tmp_path / 'victim' / 'file').write_text('precious')
    (tmp_path / 'top').mkdir()
    os.symlink('../victim/file' if attrs is REGULAR else '../victim', tmp_path / 'top' / 'x')

    async with scripted(Tree((b'x', attrs))) as (sftp, _, _):
        with pytest.raises(OSError, match=r'symbolic|directory') as info:
            await sftp.get('/top', tmp_path, recurse=True)

        assert str(info.value.filename) == str(tmp_path / 'top' / 'x')

    assert (tmp_path / 'victim' / 'file').read_text() == 'precious' and everything(tmp_path / 'victim') == {'file'}


async def test_rmtree_takes_no_bad_name(tmp_path: Path) -> None:
    async with scripted(Tree((b'../x', REGULAR))) as (sftp, server, _):
        with pytest.raises(SFTPBadMessage):
            await sftp.rmtree('/top')

        assert not [message for message in server.requests if message[0] == FXP_REMOVE]


async def test_endless_directories_end(tmp_path: Path) -> None:
    class Endless(Tree):
        def __call__(self, message_type: int, request_id: int, cursor: Cursor) -> bytes:
            if message_type == FXP_OPENDIR:
                self.listed = 0

                return reply(FXP_HANDLE, request_id, encode_string(b'h'))

            return super().__call__(message_type, request_id, cursor)

    async with scripted(Endless((b'd', DIRECTORY))) as (sftp, _, _):
        with pytest.raises(SFTPBadMessage, match='deeper'):
            await sftp.rmtree('/top')

        with pytest.raises(SFTPFailure, match='deeper'):
            await sftp.get('/top', tmp_path / 'top', recurse=True)

        with pytest.raises(SFTPBadMessage, match='deeper'):
            await sftp.glob('/top/**')


def raw(message_type: int, body: bytes) -> Any:
    return lambda _, request_id, cursor: reply(message_type, request_id, body)


@pytest.mark.parametrize(
    ('message_type', 'body'),
    [
        (FXP_ATTRS, b''),
        (FXP_ATTRS, encode_uint32(0x10)),
        (FXP_ATTRS, encode_uint32(1) + b'\0\0'),
        (FXP_ATTRS, encode_uint32(0x80000000) + encode_uint32(0xffffffff)),
        (FXP_HANDLE, encode_string(b'h')),
        (FXP_DATA, encode_string(b'h')),
        (FXP_NAME, encode_uint32(0xffffffff)),
        (101, b''),
        (101, encode_uint32(0)),
    ],
)
async def test_replies_that_do_not_fit(message_type: int, body: bytes) -> None:
    async with scripted(raw(message_type, body)) as (sftp, _, _):
        with pytest.raises(SFTPBadMessage):
            await sftp.stat('/')


@pytest.mark.parametrize(
    'body',
    [
        encode_uint32(0xffffffff),
        encode_uint32(2) + encode_string(b'a') + encode_string(b'') + encode_uint32(0),
        encode_uint32(0),
        encode_uint32(1) + encode_string(b'a') + encode_uint32(0xffffffff),
        encode_names([SFTPName(b'a'), SFTPName(b'b')]),
    ],
)
async def test_names_that_do_not_fit(body: bytes) -> None:
    async with scripted(raw(FXP_NAME, body)) as (sftp, _, _):
        with pytest.raises(SFTPBadMessage):
            await sftp.realpath('/')


async def test_handles_too_long_and_longnames_of_any_size() -> None:
    async with scripted(raw(FXP_HANDLE, encode_string(b'h' * 257))) as (sftp, _, _):
        with pytest.raises(SFTPBadMessage, match='256'):
            await sftp.open('x')

    async with scripted(raw(FXP_NAME, encode_names([SFTPName(b'a', b'l' * 65536)]))) as (sftp, _, _):
        assert await sftp.realpath('/') == 'a'


@pytest.mark.parametrize(('code', 'text'), [(2, True), (2, False), (4, False), (77, False), (0xffffffff, True)])
async def test_statuses_without_text_and_unknown_ones(code: int, text: bool) -> None:
    body = encode_uint32(code) + ((encode_string(b'why\xff') + encode_string(b'xx')) if text else b'')

    async with scripted(raw(101, body)) as (sftp, _, _):
        with pytest.raises(SFTPError) as info:
            await sftp.stat('/')

        assert info.value.code == code and info.value.reason
        assert (type(info.value) is SFTPNoSuchFile) == (code == 2)

        with pytest.raises(SFTPError):
            await sftp.open('/')


@pytest.mark.parametrize(
    'message',
    [
        reply(105, 12345, b''),            # nobody asked
        encode_string(b'\x65'),            # no id
        encode_string(b'\x03' + b'\0' * 8),  # a request
        encode_uint32(1 << 30),            # a gigabyte is to come
        encode_string(b'\2' + encode_uint32(3)),   # VERSION again
    ],
)
async def test_messages_that_end_the_session(message: bytes) -> None:
    async with scripted(lambda *_: message) as (sftp, _, _):
        with pytest.raises(Exception, match=r'.') as info:
            await asyncio.wait_for(sftp.stat('/'), 5)

        assert not isinstance(info.value, TimeoutError)


async def test_a_cancelled_open_is_closed_when_it_arrives() -> None:
    answers: list[bytes] = []

    def answer(message_type: int, request_id: int, cursor: Cursor) -> bytes | None:
        if message_type == FXP_OPEN:
            answers.append(reply(FXP_HANDLE, request_id, encode_string(b'late')))

            return None

        return status(request_id, 0)

    async with scripted(answer) as (sftp, server, _):
        task = asyncio.ensure_future(_open(sftp))

        for _ in range(5):
            await asyncio.sleep(0)

        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.chan.write(answers[0])

        for _ in range(5):
            await asyncio.sleep(0)

        assert [body for kind, _, body in server.requests if kind == FXP_CLOSE] == [encode_string(b'late')]
        assert sftp.session.assembler.outstanding == 0


async def _open(sftp: Any) -> None:
    await sftp.open('x')


@pytest.mark.parametrize(('extensions', 'target_first'), [
    ({b'posix-rename@openssh.com': b'1'}, True),
    ({b'posix-rename@openssh.com': b'1', b'ranges@asyncssh.com': b'1'}, False),
])
async def test_the_order_of_symlink_by_extensions(extensions: dict[bytes, bytes], target_first: bool) -> None:
    async with scripted(lambda kind, request_id, cursor: status(request_id, 0), extensions) as (sftp, server, _):
        await sftp.symlink('target', 'link')
        wanted = [b'target', b'link'] if target_first else [b'link', b'target']
        assert server.requests == [(FXP_SYMLINK, server.requests[0][1], b''.join(encode_string(p) for p in wanted))]


@pytest.mark.parametrize('target_first', [True, False])
@pytest.mark.parametrize('exists', [True, False])
async def test_the_order_of_symlink_by_trial(tmp_path: Path, target_first: bool, exists: bool) -> None:
    if exists:
        (tmp_path / 'target').write_text('')

    def answer(message_type: int, request_id: int, cursor: Cursor) -> bytes:
        first = tmp_path / os.fsdecode(cursor.string())

        try:
            if message_type == FXP_SYMLINK:
                second = tmp_path / os.fsdecode(cursor.string())
                target, link = (first, second) if target_first else (second, first)
                os.symlink(target.name, link)
            elif message_type == FXP_READLINK:
                return reply(FXP_NAME, request_id, encode_names([SFTPName(os.fsencode(os.readlink(first)))]))
            elif message_type == FXP_REMOVE:
                first.unlink()

            return status(request_id, 0)
        except OSError:
            return status(request_id, 4)

    async with scripted(answer) as (sftp, server, _):
        await sftp.symlink('target', 'link')
        assert os.readlink(tmp_path / 'link') == 'target'
        assert (tmp_path / 'target').exists() == exists and not (tmp_path / 'target').is_symlink()
        asked = len(server.requests)
        await sftp.symlink('other', 'link2')
        assert os.readlink(tmp_path / 'link2') == 'other' and len(server.requests) == asked + 1


async def test_limits_that_make_no_sense() -> None:
    def answer(message_type: int, request_id: int, cursor: Cursor) -> bytes:
        assert message_type == FXP_EXTENDED

        return reply(201, request_id, b''.join(encode_uint64(value) for value in (1, 1 << 63, 0, 0)))

    async with scripted(answer, {b'limits@openssh.com': b'1'}) as (sftp, _, _):
        assert sftp.session.read_size == 1 and sftp.session.write_size == 1

    async with scripted(raw(201, b''), {b'limits@openssh.com': b'1'}) as (sftp, _, _):
        assert sftp.session.read_size == 32768
