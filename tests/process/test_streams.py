"""Streams over a session channel: reading in every way, back pressure, exceptions and ends."""

import asyncio
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


# --- text in any encoding

TEXT = 'Grüße, мир, 世界, 🎉\n'


@pytest.mark.parametrize('cut', [0, 1, 3])
@pytest.mark.parametrize(
    'encoding', ['utf-8', 'utf-16', 'utf-16-be', 'utf-32', 'utf-8-sig', 'utf-7', 'gb18030', 'iso2022_jp_ext', 'latin-1']
)
async def test_text_in_any_encoding_although_characters_are_cut(encoding, cut):
    text = TEXT.encode(encoding, 'ignore').decode(encoding)
    _, session, server = await open_streams(encoding=encoding, pair=Pair(cut=cut))

    for _ in range(3):
        server.stdout.write(text)
        server.stderr.write(text[:4])
        await settle(5)

    server.stdout.writelines(['a', 'b', 'c\n'])
    server.stdout.write_eof()

    assert [line async for line in session.stdout] == [text] * 3 + ['abc\n']
    assert await session.stderr.read() == text[:4] * 3


@pytest.mark.parametrize(
    ('errors', 'expected'), [('replace', 'a\ufffdb'), ('ignore', 'ab'), ('surrogateescape', 'a\udcffb')]
)
async def test_how_errors_are_handled_is_the_channels_choice(errors, expected):
    _, session, server = await open_streams(encoding='utf-8')
    session.stdout.channel.set_encoding('utf-8', errors)
    server.stdout.channel.flow.send(b'a\xffb')
    server.stdout.write_eof()

    assert await session.stdout.read() == expected


@pytest.mark.parametrize('ending', [b'\xff', b'\xe4\xb8'], ids=['wrong', 'cut short'])
async def test_what_is_no_text_ends_its_channel_only(ending):
    pair, session, server = await open_streams(encoding='utf-8')
    _, other, other_server = await open_streams(encoding='utf-8', pair=pair)
    server.stdout.write('good\n')
    await settle()
    server.stdout.channel.flow.send(ending)
    server.stdout.write_eof()
    await settle()

    assert await session.stdout.readline() == 'good\n'

    with pytest.raises(ProtocolError, match='Expected utf-8 text on channel 0'):
        await session.stdout.readline()

    with pytest.raises(ProtocolError):
        await session.stdout.read()

    assert session.stdin.is_closing()
    await session.stdin.wait_closed()
    other_server.stdout.write('still here\n')
    assert await other.stdout.readline() == 'still here\n'
    assert not pair.client.error and not pair.server.error


async def test_text_that_the_encoding_does_not_have_is_refused_by_write():
    _, session, server = await open_streams(encoding='ascii')

    with pytest.raises(UnicodeEncodeError):
        session.stdin.write('ü')

    with pytest.raises(TypeError, match='str'):
        session.stdin.write(b'bytes')

    session.stdin.write('fine\n')
    assert await server.stdin.readline() == 'fine\n'


async def test_separators_are_of_the_streams_kind():
    _, session, server = await open_streams(encoding='utf-8')
    server.stdout.write('eins;zwei--drei')

    assert await session.stdout.readuntil(';') == 'eins;'
    assert await session.stdout.readuntil(['==', '--']) == 'zwei--'
    assert await session.stdout.readuntil(re.compile('[e-i]+'), 0) == 'drei'

    for separator in (b';', [b';'], ['ok', b';'], re.compile(b';')):
        with pytest.raises(TypeError, match='str'):
            await session.stdout.readuntil(separator)

    with pytest.raises(ValueError, match='max_separator_len'):
        await session.stdout.readuntil(re.compile(';'), -1)


# --- reading against a model

READS = st.lists(
    st.one_of(
        st.tuples(st.just('read'), st.integers(1, 40)),
        st.tuples(st.just('readexactly'), st.integers(0, 40)),
        st.tuples(st.just('readline'), st.none()),
        st.tuples(st.just('readuntil'), st.sampled_from([b'b', b'ab', [b'ba', b'a\n'], re.compile(b'a+b')])),
    ),
    max_size=30,
)


def find_end(data, separator):
    """Where what a model of `readuntil` returns ends, None if the separator is not there."""

    if not isinstance(separator, re.Pattern):
        several = [separator] if isinstance(separator, bytes) else separator
        separator = re.compile(b'|'.join(map(re.escape, several)))

    match = separator.search(data)

    return match.end() if match else None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.text('ab\n', max_size=200).map(str.encode), reads=READS, cut=st.integers(0, 9), window=st.integers(250, 999)
)
def test_reads_return_what_a_model_says(data, reads, cut, window):
    async def check():
        left = data
        _, session, server = await open_streams(window=window, pair=Pair(cut=cut))
        stdout = session.stdout
        server.stdout.write(data)
        server.stdout.write_eof()
        await settle()

        for method, argument in reads:
            assert not left or not stdout.at_eof()

            if method == 'read':
                size = min(argument, len(left))
                assert await stdout.read(argument) == left[:size]
            elif method == 'readline':
                size = left.find(b'\n') + 1 or len(left)
                assert await stdout.readline() == left[:size]
            else:
                size = argument if method == 'readexactly' else find_end(left, argument)

                if size is None or size > len(left):
                    size = len(left)

                    with pytest.raises(asyncio.IncompleteReadError) as excinfo:
                        await getattr(stdout, method)(argument)

                    assert excinfo.value.partial == left
                else:
                    assert await getattr(stdout, method)(argument) == left[:size]

            left = left[size:]

        assert await stdout.read() == left
        assert stdout.at_eof() and await stdout.read(1) == b''

    asyncio.run(check())


# --- writing

async def test_writing_until_the_peers_window_is_full_and_drain():
    _, session, server = await open_streams(window=10_000)
    session.stdin.channel.set_write_buffer_limits(high=5000, low=1000)
    written = 0

    while not session._writing_paused:
        session.stdin.writelines([b'x' * 500, b'y' * 500])
        written += 1000
        await settle(3)

    # What its reader holds, what waits in its channel, and what waits here: nothing else can.
    assert written <= 10_000 + 10_000 + 5000 + 1000
    drained = asyncio.ensure_future(session.stdin.drain())
    await settle()
    assert not drained.done()
    assert len(await server.stdin.readexactly(written)) == written
    await drained
    assert session.stdin.channel.get_write_buffer_size() == 0


async def test_the_end_of_a_writer():
    _, session, server = await open_streams()
    assert session.stdin.can_write_eof() and not session.stdin.is_closing()
    session.stdin.write_eof()
    session.stdin.write_eof()

    with pytest.raises(BrokenPipeError):
        session.stdin.write(b'late')

    assert await server.stdin.read() == b'' and server.stdin.at_eof()
    # The other direction is open.
    server.stdout.write(b'answer')
    assert await session.stdout.read(6) == b'answer'

    session.stdin.close()
    assert session.stdin.is_closing()
    await session.stdin.wait_closed()
    await server.stdout.wait_closed()
    assert server.stdout.is_closing() and await server.stdin.read() == b''


async def test_a_typed_end_of_file_ends_one_read_and_nothing_else():
    _, session, server = await open_streams(encoding='utf-8')
    stdin = server.stdin
    session.stdin.write('one')
    await settle()
    server.soft_eof_received()
    session.stdin.write('two\n')
    await settle()

    assert await stdin.readline() == 'one'
    assert not stdin.at_eof()
    assert await stdin.readline() == 'two\n'

    server.soft_eof_received()
    assert await stdin.readline() == '' and not stdin.at_eof()
    server.soft_eof_received()

    with pytest.raises(asyncio.IncompleteReadError) as excinfo:
        await stdin.readexactly(3)

    assert excinfo.value.partial == '' and not stdin.at_eof()
