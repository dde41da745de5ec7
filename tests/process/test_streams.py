"""Streams over a session channel: reading in every way, back pressure, exceptions and ends."""

import asyncio
import re

import pytest

from ssh_fast.errors import BreakReceived, ConnectionLost, ProtocolError, SignalReceived, TerminalSizeChanged
from ssh_fast.process.streams import SSHClientStreamSession, SSHServerStreamSession
from tests.channel.pair import Pair, client_channel, serve, settle


async def open_streams(handler=None, encoding=None, window=2 << 20, pair=None, **options):
    """Open a session of streams on both sides; the client's session and the server's."""

    pair = pair or Pair()
    server = SSHServerStreamSession(handler or (lambda stdin, stdout, stderr: None))
    serve(pair, server, encoding, window=window)
    session = await client_channel(pair, encoding, window=window).create(SSHClientStreamSession, **options)

    return pair, session, server


async def test_an_echo_server_of_streams():
    async def echo(stdin, stdout, stderr):
        async for line in stdin:
            stdout.write(line.upper())
            stderr.write('e:' + line)

        stdout.channel.exit(7)

    _, session, _ = await open_streams(echo, 'utf-8', command='echo')
    session.stdin.write('one\ntwo\n')
    session.stdin.writelines(['th', 'ree'])
    session.stdin.write_eof()

    assert await session.stdout.read() == 'ONE\nTWO\nTHREE'
    assert await session.stderr.read() == 'e:one\ne:two\ne:three'
    assert session.stdout.at_eof() and session.stderr.at_eof()
    await session.stdout.channel.wait_closed()
    assert session.stdout.channel.get_exit_status() == 7
    assert await session.stdout.read() == '' and await session.stdout.readline() == ''


async def test_reading_in_every_way():
    _, session, server = await open_streams()
    stdout = session.stdout
    server.stdout.write(b'one\ntwo\nthree;four--five<6>seven')
    server.stdout.channel.write_eof()

    assert await stdout.read(0) == b''
    assert await stdout.read(2) == b'on'
    assert await stdout.readline() == b'e\n'
    assert await stdout.readexactly(3) == b'two'
    assert not stdout.at_eof()
    assert await stdout.readuntil(b';') == b'\nthree;'
    assert await stdout.readuntil([b'==', b'--']) == b'four--'
    assert await stdout.readuntil(re.compile(rb'<\d+>')) == b'five<6>'

    with pytest.raises(asyncio.IncompleteReadError) as excinfo:
        await stdout.readexactly(100)

    assert excinfo.value.partial == b'seven' and excinfo.value.expected == 100
    assert stdout.at_eof() and await stdout.read() == b'' and await stdout.read(5) == b''

    with pytest.raises(asyncio.IncompleteReadError) as excinfo:
        await stdout.readuntil(b'x')

    assert excinfo.value.partial == b''

    with pytest.raises(ValueError, match='n must'):
        await stdout.readexactly(-1)

    for separator in (b'', [], [b'']):
        with pytest.raises(ValueError, match='separator'):
            await stdout.readuntil(separator)


@pytest.mark.parametrize('cut', [0, 1, 5])
async def test_separators_across_pieces(cut):
    _, session, server = await open_streams(pair=Pair(cut=cut))

    async def feed():
        for piece in (b'a\r', b'\nb', b'\r', b'\r\n', b'c<', b'12', b'34>', b'rest'):
            server.stdout.write(piece)
            await settle(5)

        server.stdout.channel.write_eof()

    task = asyncio.ensure_future(feed())
    assert await session.stdout.readuntil(b'\r\n') == b'a\r\n'
    assert await session.stdout.readuntil(b'\r\n') == b'b\r\r\n'
    assert await session.stdout.readuntil(re.compile(rb'<\d+>'), max_separator_len=6) == b'c<1234>'
    assert await session.stdout.readline() == b'rest'
    await task


async def test_read_returns_what_is_there_and_waits_for_the_first_byte():
    _, session, server = await open_streams()
    task = asyncio.ensure_future(session.stdout.read(100))
    await settle()
    assert not task.done()
    server.stdout.write(b'abc')
    assert await task == b'abc'


async def test_a_line_longer_than_the_buffer_comes_in_parts():
    _, session, server = await open_streams(window=1000)
    server.stdout.write(b'x' * 2500 + b'\nnext\n')
    lines = [await session.stdout.readline()]

    while not lines[-1].endswith(b'\n'):
        lines.append(await session.stdout.readline())

    assert b''.join(lines) == b'x' * 2500 + b'\n' and all(len(line) <= 2000 for line in lines)
    assert await session.stdout.readline() == b'next\n'

    server.stdout.write(b'y' * 2500)

    with pytest.raises(asyncio.IncompleteReadError) as excinfo:
        await session.stdout.readuntil(b';')

    assert 1000 <= len(excinfo.value.partial) <= 2000


async def test_more_than_the_buffer_holds_can_be_read_at_once():
    _, session, server = await open_streams(window=1000)
    server.stdout.write(b'x' * 50_000)
    assert await session.stdout.readexactly(20_000) == b'x' * 20_000
    server.stdout.channel.write_eof()
    assert await session.stdout.read() == b'x' * 30_000


async def test_a_slow_reader_stops_the_peer_within_the_bound():
    _, session, server = await open_streams(window=10_000)
    server.stdout.write(b'x' * 100_000)
    await settle(200)

    unread = session._buffers[None].size + sum(len(data) for data, _ in session._chan._received)
    assert unread <= 20_000
    assert server.stdout.channel.get_write_buffer_size() == 100_000 - unread

    drained = asyncio.ensure_future(server.stdout.drain())
    await settle()
    assert not drained.done()

    assert await session.stdout.readexactly(100_000) == b'x' * 100_000
    await drained


async def test_unread_errors_do_not_stall_output_and_their_loss_is_told():
    _, session, server = await open_streams(window=10_000)

    async def produce():
        for _ in range(20):
            server.stderr.write(b'e' * 5000)
            server.stdout.write(b'o' * 5000)
            await server.stdout.drain()

        server.stdout.channel.exit(0)

    task = asyncio.ensure_future(produce())
    assert await session.stdout.read() == b'o' * 100_000
    await task

    assert session._buffers[1].size <= 20_000
    data = await session.stderr.read()
    assert set(data) == {ord('e')} and 10_000 <= len(data) <= 20_000

    with pytest.raises(BufferError, match='dropped'):
        await session.stderr.read()

    assert await session.stderr.read() == b''


async def test_unread_output_does_not_stall_errors():
    _, session, server = await open_streams(window=10_000)
    server.stdout.write(b'o' * 100_000)
    server.stderr.write(b'error\n')
    await settle(100)
    assert await asyncio.wait_for(session.stderr.readline(), 5) == b'error\n'


async def test_nothing_is_dropped_while_nobody_waits():
    _, session, server = await open_streams(window=10_000)
    server.stderr.write(b'e' * 50_000)
    await settle(100)
    assert await session.stderr.readexactly(50_000) == b'e' * 50_000


async def test_a_cancelled_read_keeps_the_data():
    _, session, server = await open_streams()

    for read in (session.stdout.read, lambda: session.stdout.readexactly(10), session.stdout.readline):
        task = asyncio.ensure_future(read())
        await settle()
        server.stdout.write(b'abc')
        await settle()
        assert not task.done()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

        assert await session.stdout.read(100) == b'abc'

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(session.stdout.read(1), 0.01)

    assert not session._waiters


async def test_a_cancelled_drain_leaves_nothing():
    _, session, server = await open_streams(window=1000)
    server.stdout.write(b'x' * 100_000)
    task = asyncio.ensure_future(server.stdout.drain())
    await settle()
    task.cancel()
    await settle()

    assert task.cancelled() and not server._drain_waiters and session is not None


async def test_two_readers_of_one_stream_take_turns():
    _, session, server = await open_streams()
    first = asyncio.ensure_future(session.stdout.readline())
    second = asyncio.ensure_future(session.stdout.readline())
    await settle()
    server.stdout.write(b'one\ntwo\n')

    assert await first == b'one\n' and await second == b'two\n'


async def test_signals_breaks_and_sizes_are_raised_between_data():
    pair, session, server = await open_streams(term_type='vt100')
    session.stdin.write(b'before')
    await settle()
    session.stdin.channel.send_signal('INT')
    session.stdin.channel.change_terminal_size(100, 50)
    session.stdin.channel.send_break(10)
    await settle()
    session.stdin.write(b'after')
    await settle()

    assert await server.stdin.read() == b'before'

    with pytest.raises(SignalReceived, match='INT'):
        await server.stdin.read()

    with pytest.raises(TerminalSizeChanged) as excinfo:
        await server.stdin.readline()

    assert excinfo.value.term_size == (100, 50, 0, 0)

    with pytest.raises(BreakReceived):
        await server.stdin.readexactly(3)

    assert await server.stdin.readexactly(5) == b'after'

    # Who waits already is woken; what was read of a line is not lost.
    session.stdin.write(b'part')
    task = asyncio.ensure_future(server.stdin.readuntil(b'\n'))
    await settle()
    session.stdin.channel.send_signal('TERM')

    with pytest.raises(asyncio.IncompleteReadError) as incomplete:
        await task

    assert incomplete.value.partial == b'part'

    with pytest.raises(SignalReceived):
        await server.stdin.read(1)

    assert not pair.server.error


async def test_a_lost_connection_is_raised_to_everyone_who_waits():
    pair, session, server = await open_streams(window=1000)
    server.stdout.write(b'partial')
    await settle()
    reads = [
        asyncio.ensure_future(read)
        for read in (session.stdout.read(), session.stderr.readline(), server.stdin.readexactly(5))
    ]
    session.stdin.write(b'x' * 4)
    server._chan.pause_reading()
    session.stdin.write(b'x' * 100_000)
    drain = asyncio.ensure_future(session.stdin.drain())
    await settle()
    error = ConnectionLost('gone')
    pair.lose(error)
    results = await asyncio.gather(*reads[:2], drain, return_exceptions=True)

    assert results == [error] * 3
    # A truncated read is never taken for a whole one; what came can still be had.
    assert await session.stdout.read(100) == b'partial'

    with pytest.raises(ConnectionLost):
        await session.stdout.read(100)

    with pytest.raises(BrokenPipeError):
        session.stdin.write(b'x')

    reads[2].cancel()


async def test_a_close_with_data_unsent_is_a_broken_pipe_to_drain():
    _, session, server = await open_streams(window=1000)
    session.stdin.write(b'x' * 100_000)
    drain = asyncio.ensure_future(session.stdin.drain())
    await settle()
    server.stdout.close()

    with pytest.raises(BrokenPipeError):
        await drain

    assert await session.stdout.read() == b'' and session.stdin.is_closing()
    await session.stdin.wait_closed()


async def test_text_that_is_none_is_raised_to_its_reader():
    _, session, server = await open_streams(encoding='utf-8')
    task = asyncio.ensure_future(session.stdout.readline())
    await settle()
    server.stdout.channel.flow.send(b'\xff')

    with pytest.raises(ProtocolError, match='utf-8'):
        await task


async def test_a_handler_that_fails_ends_its_session_with_a_status():
    for handler in (lambda *streams: 1 // 0, lambda *streams: settle_and_fail()):
        pair, session, _ = await open_streams(handler)
        await session.stdout.channel.wait_closed()

        assert session.stdout.channel.get_exit_status() == 1
        assert not pair.server.error and not pair.server.tasks


async def settle_and_fail():
    await settle()
    raise RuntimeError('handler failed')


async def test_streams_know_their_channel():
    _, session, server = await open_streams()
    chan = session.stdin.channel

    assert session.stdout.channel is session.stderr.channel is chan
    assert session.stdin.get_extra_info('username') == session.stdout.get_extra_info('username') == 'user'
    assert session.stdin.can_write_eof() and session.stdin.logger is session.stdout.logger is chan.logger
    assert session.stderr.get_redirect_info() == (session, 1) and server.stdin.get_redirect_info() == (server, None)
    session.stdout.feed_data(b'fed')
    session.stdout.feed_eof()
    assert await session.stdout.read() == b'fed'


async def test_iteration_ends_at_the_end():
    _, session, server = await open_streams()
    server.stdout.write(b'1\n2\n3')
    server.stdout.channel.exit(0)

    assert [line async for line in session.stdout] == [b'1\n', b'2\n', b'3']


async def test_without_a_handler_everything_is_refused():
    session = SSHServerStreamSession(None)

    assert not session.shell_requested() and not session.exec_requested('x') and not session.subsystem_requested('x')
