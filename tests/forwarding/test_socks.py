"""Requests of SOCKS: whole, in pieces, malformed, and over a real connection with curl."""

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssh_fast.forwarding.socks import SocksError, SocksRequest
from tests.connection.test_forwarding import LOOPBACK, Permissive
from tests.connection.test_server_sessions import connected

PORT = b'\x1f\x90'
GREETING = b'\5\1\0'

REQUESTS = {
    'socks4': (b'\4\1' + PORT + b'\x7f\0\0\1user\0', b'', ('127.0.0.1', 8080)),
    'socks4a': (b'\4\1' + PORT + b'\0\0\0\1user\0example.org\0', b'', ('example.org', 8080)),
    'socks5 v4': (GREETING + b'\5\1\0\1\x7f\0\0\1' + PORT, b'\5\0', ('127.0.0.1', 8080)),
    'socks5 name': (GREETING + b'\5\1\0\3\x0bexample.org' + PORT, b'\5\0', ('example.org', 8080)),
    'socks5 v6': (GREETING + b'\5\1\0\4' + bytes(15) + b'\1' + PORT, b'\5\0', ('::1', 8080)),
    'socks5 methods': (b'\5\3\2\1\0' + b'\5\1\0\1\x7f\0\0\1' + PORT, b'\5\0', ('127.0.0.1', 8080)),
}


@pytest.mark.parametrize('name', REQUESTS)
@pytest.mark.parametrize('step', [1, 2, 3, 1000])
def test_requests_in_pieces(name: str, step: int) -> None:
    data, reply, target = REQUESTS[name]
    request, got = SocksRequest(), b''
    for index in range(0, len(data), step):
        assert request.target is None
        got += request.feed(data[index : index + step])
    assert (request.target, got, request.rest) == (target, reply, b'')


@pytest.mark.parametrize('name', REQUESTS)
def test_what_comes_behind_a_request_is_kept(name: str) -> None:
    data, _, target = REQUESTS[name]
    request = SocksRequest()
    request.feed(data + b'GET /')
    assert (request.target, request.rest) == (target, b'GET /')


@pytest.mark.parametrize(
    'data, reply',
    [
        (b'GET / HTTP/1.0\r\n', b''),
        (b'\6', b''),
        (b'\4\2' + PORT, b'\0\x5b' + bytes(6)),
        (b'\4\1' + PORT + b'\x7f\0\0\1' + b'u' * 300, b'\0\x5b' + bytes(6)),
        (b'\4\1' + PORT + b'\0\0\0\1\0' + b'h' * 300, b'\0\x5b' + bytes(6)),
        (b'\4\1' + PORT + b'\0\0\0\1\0\0', b'\0\x5b' + bytes(6)),
        (b'\5\1\2', b'\5\xff'),
        (b'\5\0', b'\5\xff'),
        (GREETING + b'\5\2\0\1', b'\5\7\0\1' + bytes(6)),
        (GREETING + b'\5\3\0\1', b'\5\7\0\1' + bytes(6)),
        (GREETING + b'\5\1\0\2\0', b'\5\x08\0\1' + bytes(6)),
        (GREETING + b'\4\1\0\1', b'\5\1\0\1' + bytes(6)),
        (GREETING + b'\5\1\0\3\0' + PORT, b'\5\4\0\1' + bytes(6)),
        (GREETING + b'\5\1\0\3\3a\nb' + PORT, b'\5\4\0\1' + bytes(6)),
        (GREETING + b'\5\1\0\3\3a\0b' + PORT, b'\5\4\0\1' + bytes(6)),
        (GREETING + b'\5\1\0\3\2\xff\xfe' + PORT, b'\5\4\0\1' + bytes(6)),
    ],
)
def test_refusals(data: bytes, reply: bytes) -> None:
    with pytest.raises(SocksError) as caught:
        SocksRequest().feed(data)
    assert caught.value.reply == reply


@given(st.sampled_from(sorted(REQUESTS)), st.integers(0, 40), st.binary(max_size=600), st.integers(1, 7))
def test_garbage_waits_or_is_refused(name: str, keep: int, garbage: bytes, step: int) -> None:
    data = REQUESTS[name][0][:keep] + garbage
    request = SocksRequest()
    with contextlib.suppress(SocksError):
        for index in range(0, len(data), step):
            request.feed(data[index : index + step])
            assert len(request._data) < 1024, 'what is kept is bounded'


WITH_PASSWORD = b'\5\2\0\2' + b'\1\4user\6secret'
REST = b'\5\1\0\1\x7f\0\0\1' + PORT


@pytest.mark.parametrize('step', [1, 2, 3, 1000])
def test_a_password_in_pieces(step: int) -> None:
    request, got = SocksRequest(needs_password=True), b''
    for index in range(0, len(WITH_PASSWORD), step):
        assert request.credentials is None
        got += request.feed(WITH_PASSWORD[index : index + step])
    assert (request.credentials, got) == (('user', 'secret'), b'\5\2')
    assert request.judge(True) == b'\1\0'
    for index in range(0, len(REST), step):
        assert request.target is None
        assert request.feed(REST[index : index + step]) == b''
    assert request.target == ('127.0.0.1', 8080)


def test_a_request_that_comes_with_the_password_waits_for_the_judgement() -> None:
    request = SocksRequest(needs_password=True)
    assert request.feed(WITH_PASSWORD + REST + b'more') == b'\5\2'
    assert request.target is None
    assert request.judge(True) == b'\1\0'
    assert (request.target, request.rest) == (('127.0.0.1', 8080), b'more')


def test_a_wrong_password_ends_it() -> None:
    request = SocksRequest(needs_password=True)
    request.feed(WITH_PASSWORD + REST)
    with pytest.raises(SocksError) as caught:
        request.judge(False)
    assert (caught.value.reply, request.target) == (b'\1\1', None)
    assert 'secret' not in str(caught.value)


@pytest.mark.parametrize(
    'data, reply',
    [
        (GREETING, b'\5\xff'),
        (b'\4\1' + PORT + b'\x7f\0\0\1user\0', b'\0\x5b' + bytes(6)),
        (b'\5\1\2\5', b'\1\1'),
        (b'\5\1\2\1\2\xff\xfe\1a', b'\1\1'),
        (WITH_PASSWORD + bytes(5000), b''),
    ],
)
def test_refusals_where_a_password_is_needed(data: bytes, reply: bytes) -> None:
    request = SocksRequest(needs_password=True)
    with pytest.raises(SocksError) as caught:
        request.feed(data)
        request.feed(b'x')
    assert caught.value.reply == reply
    assert request.target is None


@given(st.integers(0, 40), st.binary(max_size=600), st.integers(1, 7))
def test_garbage_in_front_of_a_password_waits_or_is_refused(keep: int, garbage: bytes, step: int) -> None:
    data = (WITH_PASSWORD + REST)[:keep] + garbage
    request = SocksRequest(needs_password=True)
    with contextlib.suppress(SocksError):
        for index in range(0, len(data), step):
            request.feed(data[index : index + step])
            assert request.target is None
            assert len(request._data) < 5000, 'what is kept is bounded'


async def curl(*arguments: str) -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec('curl', '-sSf', *arguments, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return process.returncode or 0, output


@pytest.mark.parametrize('option', ['--socks4', '--socks4a', '--socks5', '--socks5-hostname'])
async def test_curl(option: str) -> None:
    async def serve(reader: Any, writer: Any) -> None:
        await reader.readuntil(b'\r\n\r\n')
        writer.write(b'HTTP/1.0 200 OK\r\nContent-Length: 2000000\r\n\r\n' + bytes(2000000))
        await writer.drain()
        writer.close()

    web = await asyncio.start_server(serve, LOOPBACK, 0)
    port = web.sockets[0].getsockname()[1]
    async with connected(owner=Permissive) as conn, conn.forward_socks(LOOPBACK, 0) as listener:
        proxy = f'{LOOPBACK}:{listener.get_port()}'
        assert await curl(option, proxy, f'http://{LOOPBACK}:{port}/') == (0, bytes(2000000))
        assert (await curl(option, proxy, f'http://{LOOPBACK}:1/'))[0] == 97
    web.close()


@pytest.mark.parametrize('later', [False, True])
async def test_curl_with_a_password(later: bool) -> None:
    asked: list[tuple[str, str]] = []

    def validate(user: str, password: str) -> Any:
        asked.append((user, password))

        async def answer() -> bool:
            await asyncio.sleep(0)
            return password == 'right'

        return answer() if later else password == 'right'

    async def serve(reader: Any, writer: Any) -> None:
        await reader.readuntil(b'\r\n\r\n')
        writer.write(b'HTTP/1.0 200 OK\r\n\r\ncontent')
        writer.close()

    web = await asyncio.start_server(serve, LOOPBACK, 0)
    url = f'http://{LOOPBACK}:{web.sockets[0].getsockname()[1]}/'
    async with connected(owner=Permissive) as conn:
        async with conn.forward_socks(LOOPBACK, 0, validate_password=validate) as listener:
            proxy = ('--socks5', f'{LOOPBACK}:{listener.get_port()}')
            assert await curl(*proxy, '--proxy-user', 'user:right', url) == (0, b'content')
            assert (await curl(*proxy, '--proxy-user', 'user:wrong', url))[0] == 97
            assert (await curl(*proxy, url))[0] == 97
            assert (await curl('--socks4', proxy[1], url))[0] == 97
    assert asked == [('user', 'right'), ('user', 'wrong')]
    web.close()


async def test_a_refusal_is_sent_before_the_end() -> None:
    async with connected(owner=Permissive) as conn, conn.forward_socks(LOOPBACK, 0) as listener:
        reader, writer = await asyncio.open_connection(LOOPBACK, listener.get_port())
        writer.write(b'\5\1\2')
        assert await reader.read() == b'\5\xff'
        writer.close()
