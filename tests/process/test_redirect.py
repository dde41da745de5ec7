"""The parts of redirection: conversions, leases, soft ends, and the bounds of what is kept."""

import asyncio
import io
import os

import pytest

from ssh_fast.constants import PIPE, STDOUT
from ssh_fast.process.process import SSHClientProcess, SSHServerProcess
from ssh_fast.process.redirect import Converter, Lease
from ssh_fast.process.redirect_open import Opener
from tests.channel.pair import Pair, client_channel, serve, settle


async def start(factory, encoding=None, window=2 << 20):
    """Start a process that the server's factory runs."""

    pair = Pair()
    serve(pair, lambda: SSHServerProcess(factory), encoding, window=window)

    return await client_channel(pair, encoding, window=window).create(SSHClientProcess)


async def idle(process):
    await process.stdin.read()
    process.exit(0)


# --- conversions and leases -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-16', 'latin-1', None])
def test_pieces_are_converted_as_a_whole(encoding):
    text = 'aß€' if encoding != 'latin-1' else 'aßa'
    whole = text.encode(encoding or 'utf-8')
    convert = Converter(True, encoding, 'strict')
    assert ''.join([*(convert(whole[at : at + 1]) for at in range(len(whole))), convert.finish()]) == text

    convert = Converter(False, encoding, 'strict')
    assert b''.join([*(convert(char) for char in text), convert.finish()]) == whole


def test_what_is_right_is_passed_on():
    data = b'\xff'
    assert Converter(False, 'utf-8', 'strict')(data) is data
    assert Converter(True, 'ascii', 'strict')('ß') == 'ß'
    assert Converter(True, 'utf-8', 'strict').finish() == ''
    assert Converter(False, 'utf-8', 'strict').finish() == b''


def test_what_cannot_be_converted():
    with pytest.raises(UnicodeDecodeError):
        Converter(True, 'utf-8', 'strict')(b'\xff')

    with pytest.raises(UnicodeEncodeError):
        Converter(False, 'ascii', 'strict')('ß')

    convert = Converter(True, 'utf-8', 'strict')
    assert convert('ß'.encode()[:1]) == ''

    with pytest.raises(UnicodeDecodeError):
        convert.finish()


async def test_the_last_user_closes():
    calls = []
    lease = Lease(lambda: calls.append('closed'))
    lease.take()
    lease.take()
    await lease.drop()
    assert not calls
    await lease.drop()
    assert calls == ['closed']


async def test_what_was_opened_for_nothing_is_closed_and_what_was_given_is_not(tmp_path):
    before = len(os.listdir('/proc/self/fd'))
    read_end, write_end = os.pipe()
    opener = Opener(8192, True)
    opener.target('stdout', tmp_path / 'file')
    opener.target('stderr', write_end)
    opener.source('stdin', read_end)
    assert not os.get_blocking(write_end)
    await opener.abandon()
    assert os.get_blocking(write_end) and os.get_blocking(read_end)
    os.close(read_end)
    os.close(write_end)
    assert len(os.listdir('/proc/self/fd')) == before


async def test_a_descriptor_that_two_redirections_use_is_set_back_by_the_last():
    read_end, write_end = os.pipe()
    targets = [Opener(8192, False).target('stdout', write_end) for _ in range(2)]
    await targets[0].close()
    assert not os.get_blocking(write_end)
    await targets[1].close()
    assert os.get_blocking(write_end)
    os.close(read_end)
    os.close(write_end)


# --- what a client's process does -------------------------------------------------------------------------------------


@pytest.mark.parametrize(('name', 'value', 'error'), [
    ('stdin', STDOUT, ValueError), ('stdout', STDOUT, ValueError), ('stdout', True, ValueError),
    ('stdin', object(), TypeError), ('stdout', b'path', TypeError), ('bufsize', 0, ValueError),
])
async def test_what_is_no_redirection(name, value, error):
    process = await start(idle)

    with pytest.raises(error, match=name):
        await process.redirect(**{name: value})

    process.close()


async def test_a_source_may_return_nothing_but_data():
    class Odd:
        def read(self, size):
            return 5

    process = await start(idle)
    await process.redirect(stdin=Odd())

    with pytest.raises(TypeError, match=r'Odd\.read must return bytes or str, not int'):
        await process.wait()


async def test_order_is_kept_by_slow_targets():
    class Slow(io.BytesIO):
        async def write(self, data):
            await asyncio.sleep(0)
            super().write(data)
            await asyncio.sleep(0.001 * (len(data) % 3))

    async def count(process):
        for number in range(500):
            process.stdout.write(b'%d,' % number)
            await asyncio.sleep(0)
        process.exit(0)

    process = await start(count)
    target = Slow()
    await process.redirect(stdout=target, recv_eof=False)
    await process.wait(check=True)
    assert target.getvalue() == b''.join(b'%d,' % number for number in range(500))


async def test_data_for_a_slow_target_is_bounded_and_never_dropped():
    """Nor while somebody waits for other data, or for the end."""

    released = asyncio.Event()
    window = 10_000
    total = 200_000

    class Stuck(io.BytesIO):
        async def write(self, data):
            await released.wait()
            super().write(data)

    async def produce(process):
        process.stdout.write(bytes(total))
        await process.stdout.drain()
        process.exit(0)

    process = await start(produce, window=window)
    target = Stuck()
    await process.redirect(stdout=target, recv_eof=False)
    errors = asyncio.ensure_future(process.stderr.read())
    waiting = asyncio.ensure_future(process.wait())
    await settle(100)
    kept = process._buffers[None].size + sum(len(data) for data, _ in process.channel._received)
    assert 0 < kept <= 2 * window
    assert not waiting.done()
    released.set()
    await waiting
    await errors
    assert len(target.getvalue()) == total


async def test_a_stream_that_is_given_back():
    async def echo(process):
        while data := await process.stdin.read(100):
            process.stdout.write(data)
        process.exit(0)

    process = await start(echo)
    target = io.BytesIO()
    await process.redirect(stdout=target, recv_eof=False)
    process.stdin.write(b'one')
    await settle()
    await process.redirect(stdout=PIPE)
    process.stdin.write(b'two')
    assert await process.stdout.read(10) == b'two'
    assert target.getvalue() == b'one'
    process.stdin.write_eof()
    await process.wait(check=True)


async def test_drain_waits_for_the_end_of_a_source():
    process = await start(idle)
    source = asyncio.StreamReader()
    await process.redirect(stdin=source)
    drained = asyncio.ensure_future(process.stdin.drain())
    await settle()
    assert not drained.done()
    source.feed_eof()
    await drained
    await process.wait(check=True)


# --- a server's soft end of input -------------------------------------------------------------------------------------


async def test_a_soft_end_ends_what_reads_and_input_goes_on():
    seen = []

    async def read(process):
        process.soft_eof_received()
        seen.append((await process.stdin.readline(), process.stdin.at_eof()))
        process.soft_eof_received()
        seen.append((await process.stdin.read(), process.stdin.at_eof()))

        with pytest.raises(asyncio.IncompleteReadError):
            process.soft_eof_received()
            await process.stdin.readexactly(5)

        ready = asyncio.get_running_loop().call_later(0.01, lambda: (
            process.data_received('partial', None), process.soft_eof_received()
        ))
        seen.append(await process.stdin.readline())
        ready.cancel()
        seen.append(await process.stdin.readline())
        process.exit(0)

    process = await start(read, 'utf-8')
    await settle()
    await asyncio.sleep(0.05)
    process.stdin.write('more\n')
    await process.wait(check=True)
    assert seen == [('', False), ('', False), 'partial', 'more\n']


async def test_a_soft_end_ends_a_redirected_input():
    target = io.StringIO()

    async def redirect(process):
        await process.redirect(stdin=target, recv_eof=False)
        process.data_received('text', None)
        process.soft_eof_received()
        await process.wait_for_redirections()
        process.exit(0)

    process = await start(redirect, 'utf-8')
    await process.wait(check=True)
    assert target.getvalue() == 'text'
