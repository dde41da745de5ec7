"""Session channels between a client and a server: requests, data, closing, and what goes wrong."""

import asyncio
import signal

import pytest

from ssh_fast.channel.client_channel import prepare_environment
from ssh_fast.channel.server_channel import MAX_ENVIRONMENT_BYTES, MAX_ENVIRONMENT_COUNT
from ssh_fast.constants import EXTENDED_DATA_STDERR, PTY_ECHO, PTY_OP_OSPEED, PTY_VINTR
from ssh_fast.errors import ChannelOpenError, ConnectionLost, PacketDecodeError, ProtocolError
from ssh_fast.wire import encode_boolean, encode_string, encode_uint32
from tests.channel.pair import ClientSession, Pair, ServerSession, client_channel, later, live_objects, serve, settle

REQUEST, CLOSE = 98, 97


async def start(pair, server=None, encoding=None, window=2 << 20, **options):
    """Start a session; the client's channel and session, and the server's channel and session."""

    server = server or ServerSession()
    channels = serve(pair, server, encoding, window=window)
    chan = client_channel(pair, encoding, window=window)
    session = await chan.create(ClientSession, **options)

    return chan, session, channels[-1], server


def send_request(end, name, *fields, want_reply=False, channel=0):
    """Send a request that no API of ours would."""

    end.send_message(
        b'\x62' + encode_uint32(channel) + encode_string(name) + encode_boolean(want_reply) + b''.join(fields)
    )


# --- the ordinary life of a session -----------------------------------------------------------------------------------


async def test_a_command_with_its_environment_input_output_and_status():
    pair = Pair()
    chan, session, server_chan, server = await start(pair, command='cat', env={'LANG': 'C', b'X': b'\xff'})

    assert server_chan.get_command() == chan.get_command() == 'cat'
    assert server_chan.get_environment() == {'LANG': 'C'}
    assert server_chan.get_environment_bytes() == chan.get_environment_bytes() == {b'LANG': b'C', b'X': b'\xff'}
    assert server.calls == ['made', ('exec', 'cat'), 'started']

    chan.write(b'input')
    chan.writelines([b' ', b'lines'])
    chan.write_eof()
    await settle()

    assert b''.join(server.data) == b'input lines' and server.calls[-1] == 'eof'

    server_chan.write(b'output')
    server_chan.write_stderr(b'error')
    server_chan.writelines_stderr([b' ', b'lines'])
    server_chan.exit(3)
    await chan.wait_closed()
    await server_chan.wait_closed()

    assert session.data == [b'output'] and b''.join(session.errors) == b'error lines'
    assert session.calls == ['made', 'started', 'data', 'eof', ('status', 3), ('lost', None)]
    assert server.calls[-1] == ('lost', None)
    assert chan.get_exit_status() == chan.get_returncode() == 3 and chan.get_exit_signal() is None
    assert chan.is_closing() and server_chan.is_closing()
    assert not pair.client.mux.channels and not pair.server.mux.channels


@pytest.mark.parametrize('cut', [0, 1])
async def test_a_fast_command_reports_in_order(cut):
    # The reply, the output, the end, the status and the close arrive in one pass.
    def run(chan):
        chan.write(b'out')
        chan.exit(0)

    pair = Pair(cut=cut)
    chan, session, _, _ = await start(pair, ServerSession(started=run), command='true')
    await chan.wait_closed()

    assert session.calls == ['made', 'started', 'data', 'eof', ('status', 0), ('lost', None)]


async def test_text_is_encoded_and_decoded_across_packets():
    pair = Pair(cut=1)
    chan, session, server_chan, server = await start(pair, encoding='utf-8')
    server_chan.flow.send('€'.encode()[:1])
    await settle()
    assert session.data == []

    server_chan.flow.send('€'.encode()[1:])
    server_chan.write_stderr('fehler')
    chan.write('größe')
    await settle()

    assert session.data == ['€'] and session.errors == ['fehler'] and ''.join(server.data) == 'größe'
    assert server.calls[1] == ('shell',)


async def test_a_byte_that_is_not_text_ends_the_channel_and_not_the_connection():
    pair = Pair()
    chan, session, server_chan, _ = await start(pair, encoding='utf-8')
    other, _, _, other_session = await start(pair, encoding='utf-8')
    server_chan.flow.send(b'ab\xffcd')
    await chan.wait_closed()

    (_, exc) = session.calls[-1]
    assert isinstance(exc, ProtocolError) and '0xff' in str(exc) and 'utf-8' in str(exc)
    await server_chan.wait_closed()
    assert not pair.client.error and not pair.server.error

    other.write('still works')
    await settle()
    assert other_session.data == ['still works']


async def test_text_that_ends_in_the_middle_of_a_character_is_an_error():
    pair = Pair()
    _, session, server_chan, _ = await start(pair, encoding='utf-8')
    server_chan.flow.send(b'ab\xe2\x82')
    server_chan.write_eof()
    await settle()

    assert session.data == ['ab'] and isinstance(session.calls[-1][1], ProtocolError)


async def test_a_terminal_and_its_changes():
    pair = Pair()
    modes = {PTY_VINTR: 3, PTY_ECHO: 1, PTY_OP_OSPEED: 9600}
    chan, _, server_chan, server = await start(
        pair, term_type='xterm', term_size=(80, 24, 640, 480), term_modes=modes
    )

    assert server.calls == ['made', ('pty', 'xterm', (80, 24, 640, 480), modes), ('shell',), 'started']
    assert server_chan.get_terminal_type() == 'xterm' and server_chan.get_terminal_size() == (80, 24, 640, 480)
    assert server_chan.get_terminal_modes() == modes and server_chan.get_terminal_mode(PTY_ECHO) == 1
    assert server_chan.get_terminal_mode(99) is None

    chan.change_terminal_size(100, 30)
    chan.send_signal('INT')
    chan.send_signal(signal.SIGHUP)
    chan.terminate()
    chan.kill()
    chan.send_break(250)
    await settle()

    assert server.calls[4:] == [
        ('size', 100, 30, 0, 0), ('signal', 'INT'), ('signal', 'HUP'), ('signal', 'TERM'), ('signal', 'KILL'),
        ('break', 250),
    ]
    assert server_chan.get_terminal_size() == (100, 30, 0, 0)

    with pytest.raises(ValueError):
        chan.send_signal(9999)


@pytest.mark.parametrize(('request_pty', 'term_type', 'command', 'asked'), [
    (True, 'vt100', None, True), (True, 'vt100', 'ls', True), (True, None, None, False), (False, 'vt100', None, False),
    ('force', None, 'ls', True), ('auto', 'vt100', None, True), ('auto', 'vt100', 'ls', False),
])
async def test_when_a_terminal_is_asked_for(request_pty, term_type, command, asked):
    pair = Pair()
    _, _, _, server = await start(pair, request_pty=request_pty, term_type=term_type, command=command)

    assert any(call[0] == 'pty' for call in server.calls) == asked


async def test_an_exit_signal():
    pair = Pair()
    chan, session, server_chan, _ = await start(pair)
    server_chan.exit_with_signal('SEGV', True, 'crashed', 'en')
    await chan.wait_closed()

    assert chan.get_exit_signal() == ('SEGV', True, 'crashed', 'en')
    assert chan.get_exit_status() == -1 and chan.get_returncode() == -signal.SIGSEGV
    assert ('signal', 'SEGV', True, 'crashed', 'en') in session.calls

    chan, _, server_chan, _ = await start(pair)
    server_chan.exit_with_signal('ODD@example.com')
    await chan.wait_closed()
    assert chan.get_returncode() == -99


async def test_a_channel_that_just_closes_has_no_exit_status_but_a_subsystem_has():
    pair = Pair()
    chan, _, server_chan, _ = await start(pair, command='ls')
    server_chan.close()
    await chan.wait_closed()
    assert chan.get_exit_status() is None and chan.get_returncode() is None

    chan, _, server_chan, server = await start(pair, subsystem='sftp')
    assert server_chan.get_subsystem() == chan.get_subsystem() == 'sftp' and ('subsystem', 'sftp') in server.calls
    server_chan.close()
    await chan.wait_closed()
    assert chan.get_exit_status() == 0

    chan, _, server_chan, _ = await start(pair, subsystem='sftp')
    server_chan.exit(0x1FF)
    await chan.wait_closed()
    assert chan.get_exit_status() == 255


async def test_a_session_that_says_so_gets_its_end_of_file_answered():
    pair = Pair()
    chan, session, _, _ = await start(pair, ServerSession(eof=False))
    chan.write_eof()
    await settle()
    assert session.calls[-1] == 'eof'

    chan, session, _, _ = await start(pair, ServerSession(eof=True))
    chan.write_eof()
    await settle()
    assert session.calls[-1] != 'eof'


async def test_a_named_subsystem_takes_the_place_of_the_session():
    pair = Pair()
    general, special = ServerSession(), ServerSession(subsystem=False)
    channels = serve(pair, general, 'utf-8', subsystems={'sftp': lambda chan: special})
    chan = client_channel(pair)
    await chan.create(ClientSession, subsystem='sftp')
    chan.write(b'\xff')
    await settle()

    assert general.calls == ['made', ('lost', None)]
    assert special.calls == ['made', 'started', 'data'] and special.data == [b'\xff']
    channels[0].close()
    await chan.wait_closed()
    assert special.calls[-1] == ('lost', None)


async def test_extra_info_of_channel_and_connection():
    pair = Pair()
    chan, *_ = await start(pair)
    chan.set_extra_info(answer=42)

    assert chan.get_extra_info('answer') == 42 and chan.get_extra_info('username') == 'user'
    assert chan.get_extra_info('none', 'default') == 'default'
    assert chan.get_connection() is chan.get_extra_info('connection') is pair.client
    assert chan.get_encoding() == (None, 'strict') and chan.get_recv_window() == 2 << 20
    assert chan.get_read_datatypes() == {EXTENDED_DATA_STDERR} and chan.get_write_datatypes() == set()

    with pytest.raises(LookupError):
        chan.set_encoding('klingon')


# --- refusals ---------------------------------------------------------------------------------------------------------


async def test_refusals_raise_and_leave_nothing():
    pair = Pair()

    for answers, options, text in (
        ({'exec': False}, {'command': 'ls'}, 'exec'),
        ({'shell': False}, {}, 'shell'),
        ({'subsystem': False}, {'subsystem': 'x'}, 'subsystem'),
        ({'pty': False}, {'term_type': 'vt100'}, 'terminal'),
        ({'exec': lambda: 1 // 0}, {'command': 'ls'}, 'exec'),
        ({'exec': lambda: later(False)}, {'command': 'ls'}, 'exec'),
        ({'exec': lambda: later(ValueError('x'))}, {'command': 'ls'}, 'exec'),
        ({'pty': lambda: later(False)}, {'term_type': 'vt100'}, 'terminal'),
    ):
        server = ServerSession(**answers)

        with pytest.raises(ChannelOpenError, match=text):
            await start(pair, server, **options)

        await settle()
        assert 'started' not in server.calls and server.calls[-1] == ('lost', None)
        assert not pair.client.mux.channels and not pair.server.mux.channels

    with pytest.raises(ChannelOpenError) as excinfo:
        pair.server.open_requested = pair.server._refuse_open
        await client_channel(pair).create(ClientSession)

    assert excinfo.value.code == 3


async def test_answers_may_be_awaited_and_data_waits_for_them():
    pair = Pair()
    server = ServerSession(exec=lambda: later(True, 10), pty=lambda: later(True, 10))
    channels = serve(pair, server)
    chan = client_channel(pair)
    task = asyncio.ensure_future(chan.create(ClientSession, command='cat', term_type='vt100'))
    await settle(15)
    assert ('exec', 'cat') in server.calls and not task.done()

    # A client need not wait for the reply before it sends.
    chan.flow.send(b'early')
    chan._link.send_eof()
    await settle(5)
    assert 'data' not in server.calls

    await task
    await settle()
    assert server.calls[-3:] == ['started', 'data', 'eof']
    assert channels[0].get_terminal_type() == 'vt100'


async def test_wrong_arguments_name_themselves():
    pair = Pair()
    serve(pair, ServerSession())

    for options, text in (
        ({'command': 'a', 'subsystem': 'b'}, 'command and subsystem'),
        ({'request_pty': 'maybe'}, 'request_pty'),
        ({'term_type': 'x', 'term_size': (1, 2, 3)}, 'term_size'),
        ({'term_type': 'x', 'term_size': (-1, 2)}, 'term_size'),
        ({'term_type': 'x', 'term_modes': {0: 1}}, 'term_modes'),
        ({'term_type': 'x', 'term_modes': {160: 1}}, 'term_modes'),
        ({'term_size': (1,)}, 'term_size'),
        ({'env': ['NOEQUALS']}, 'env'),
        ({'env': 'A=b'}, 'env must be a mapping or a list'),
        ({'env': b'A=b'}, 'env must be a mapping or a list'),
        ({'env': {'A=': 'b'}}, 'env'),
        ({'env': {'': 'b'}}, 'env'),
        ({'env': [('a', 'b', 'c')]}, 'env'),
        ({'env': {'A': 'b\0c'}}, 'env must not have a NUL'),
        ({'command': 'a\0b'}, 'command must not have a NUL'),
        ({'subsystem': 'a\0b'}, 'subsystem must not have a NUL'),
        ({'request_pty': 'force', 'term_type': 'a\0b'}, 'term_type must not have a NUL'),
    ):
        with pytest.raises(ValueError, match=text):
            await client_channel(pair).create(ClientSession, **options)

    for options, text in (({'command': 5}, 'command'), ({'env': {'A': 5}}, 'env'), ({'env': {5: 'b'}}, 'env')):
        with pytest.raises(TypeError, match=text):
            await client_channel(pair).create(ClientSession, **options)

    for window, packet, text in ((0, 1000, 'window'), (-1, 1000, 'window'), (1 << 32, 1000, 'window'),
                                 (1000, 0, 'max_pktsize'), (1000, -1, 'max_pktsize'), (1000, 261121, 'max_pktsize')):
        with pytest.raises(ValueError, match=text):
            client_channel(pair, window=window, max_packet=packet)

    for encoding, errors in (('no-such', 'strict'), ('utf-8', 'no-such')):
        with pytest.raises(LookupError):
            client_channel(pair).set_encoding(encoding, errors)

    assert not pair.server.received


async def test_a_secret_in_the_environment_is_in_no_error():
    for env in ([('', 'secret')], ['=secret'], {'A=': 'secret'}, {'A': 'secret\0'}, [('A', 'secret', 'secret')]):
        with pytest.raises(ValueError) as caught:
            prepare_environment(env)
        assert 'secret' not in str(caught.value)


def test_environments_in_every_form(monkeypatch):
    monkeypatch.setenv('SSH_FAST_TEST_ONE', '1')
    monkeypatch.setenv('SSH_FAST_TEST_TWO', '2')

    assert prepare_environment({'A': 'ä', b'B': b'\xff'}) == {b'A': 'ä'.encode(), b'B': b'\xff'}
    assert prepare_environment([('A', 'b')]) == prepare_environment(['A=b']) == {b'A': b'b'}
    assert prepare_environment(['A=b=c', b'D=']) == {b'A': b'b=c', b'D': b''}
    assert prepare_environment(None) == {}
    assert prepare_environment({'SSH_FAST_TEST_ONE': 'x'}, ['SSH_FAST_TEST_*', 'UNSET_VARIABLE']) == {
        b'SSH_FAST_TEST_ONE': b'x', b'SSH_FAST_TEST_TWO': b'2'
    }

    for names in ('SSH_FAST_TEST_ONE', b'SSH_FAST_TEST_ONE'):
        with pytest.raises(ValueError, match='send_env must be a list'):
            prepare_environment(None, names)


# --- writing and reading ----------------------------------------------------------------------------------------------


async def test_what_cannot_be_written():
    pair = Pair()
    chan, _, server_chan, _ = await start(pair)

    with pytest.raises(TypeError, match='bytes'):
        chan.write('text')

    with pytest.raises(OSError, match='datatype'):
        chan.write(b'x', EXTENDED_DATA_STDERR)

    chan.write(bytearray(b'x'))
    chan.write(memoryview(b'y'))
    chan.write(b'')
    chan.write_eof()

    with pytest.raises(BrokenPipeError):
        chan.write(b'x')

    server_chan.close()
    await chan.wait_closed()

    with pytest.raises(BrokenPipeError):
        chan.write(b'x')

    with pytest.raises(BrokenPipeError):
        chan.change_terminal_size(1, 1)

    text, *_ = await start(Pair(), encoding='ascii')

    with pytest.raises(TypeError, match='str'):
        text.write(b'bytes')

    with pytest.raises(UnicodeEncodeError):
        text.write('ä')

    with pytest.raises(BrokenPipeError):
        client_channel(pair).write(b'not open')


async def test_a_mutable_buffer_may_change_after_it_was_written():
    pair = Pair()
    chan, _, _, server = await start(pair)
    data = bytearray(b'before')
    chan.write(data)
    data[:] = b'after!'
    await settle()

    assert server.data == [b'before']


async def test_writing_pauses_and_resumes_at_the_marks():
    pair = Pair()
    server = ServerSession()
    chan, session, server_chan, _ = await start(pair, server, window=1000)
    chan.set_write_buffer_limits(high=5000, low=2000)
    server_chan.pause_reading()
    chan.write(b'x' * 4000)
    await settle()
    assert 'pause' not in session.calls and chan.get_write_buffer_size() == 3000

    chan.write(b'x' * 3000)
    await settle()
    assert session.calls[-1] == 'pause' and chan.get_write_buffer_size() == 6000

    server_chan.resume_reading()
    await settle(100)
    assert session.calls[-1] == 'resume' and sum(map(len, server.data)) == 7000

    with pytest.raises(ValueError, match='high'):
        chan.set_write_buffer_limits(high=1, low=2)


async def test_a_paused_reader_stops_the_peer_and_holds_one_window():
    pair = Pair()
    server = ServerSession()
    chan, _, server_chan, _ = await start(pair, server, window=10_000)
    server_chan.pause_reading()
    chan.write(b'x' * 50_000)
    chan.write_eof()
    await settle()

    assert server.data == [] and chan.get_write_buffer_size() == 40_000
    assert sum(len(data) for data, _ in server_chan._received) == 10_000

    server_chan.resume_reading()
    await settle(100)
    assert sum(map(len, server.data)) == 50_000 and server.calls[-1] == 'eof'


async def test_a_session_may_pause_itself_for_every_piece():
    pair = Pair()

    def take(data):
        server.chan.pause_reading()
        asyncio.get_running_loop().call_soon(server.chan.resume_reading)

    server = ServerSession(data=take)
    chan, _, _, _ = await start(pair, server, window=1000)
    chan.write(b'x' * 20_000)
    chan.write_eof()
    await settle(500)

    assert sum(map(len, server.data)) == 20_000 and server.calls[-1] == 'eof'


async def test_tiny_pieces_that_wait_are_joined():
    pair = Pair()
    server = ServerSession()
    chan, _, server_chan, _ = await start(pair, server)
    server_chan.pause_reading()

    for _ in range(10_000):
        chan.write(b'x')
        pair.run()

    assert len(server_chan._received) < 10
    server_chan.resume_reading()
    assert sum(map(len, server.data)) == 10_000


async def test_extended_data_of_other_types_is_dropped_and_credited():
    pair = Pair()
    _, session, server_chan, _ = await start(pair, window=1000)

    for datatype in (2, 3, 0xFFFFFFFF):
        server_chan.flow.send(b'x' * 5000, datatype)

    server_chan.write(b'after')
    await settle(100)

    assert session.data == [b'after'] and session.errors == []

    # To a server, no extended data is of use.
    chan, _, _, server = await start(pair, window=1000)
    chan.flow.send(b'x' * 5000, EXTENDED_DATA_STDERR)
    chan.write(b'after')
    await settle(100)
    assert server.data == [b'after']


# --- closing ----------------------------------------------------------------------------------------------------------


async def test_a_close_is_delivered_behind_the_data_that_waits():
    pair = Pair()
    chan, session, server_chan, _ = await start(pair)
    chan.pause_reading()
    server_chan.write(b'data')
    server_chan.exit(0)
    await settle()

    assert session.calls[-1] == ('status', 0) and not chan._closed.is_set() and chan.is_closing()
    # The wire is done with it all the same.
    assert not pair.client.mux.channels

    chan.resume_reading()
    await chan.wait_closed()
    assert session.calls[-3:] == ['data', 'eof', ('lost', None)]


async def test_our_close_forgets_the_data_that_waits():
    pair = Pair()
    chan, session, server_chan, _ = await start(pair)
    chan.pause_reading()
    server_chan.write(b'data')
    server_chan.exit(0)
    await settle()
    chan.close()
    await chan.wait_closed()

    assert 'data' not in session.calls and session.calls[-1] == ('lost', None)


async def test_abort_drops_what_was_not_sent():
    pair = Pair()
    chan, _, _, server = await start(pair, window=100)
    server.chan.pause_reading()
    chan.write(b'x' * 1000)
    await settle()
    chan.abort()
    chan.abort()
    chan.close()
    server.chan.resume_reading()
    await chan.wait_closed()

    assert sum(map(len, server.data)) == 100 and server.calls[-1] == ('lost', None)


async def test_a_lost_connection_reaches_sessions_behind_their_data():
    pair = Pair()
    chan, session, server_chan, _ = await start(pair)
    server_chan.write(b'data')
    pair.run()
    error = ConnectionLost('gone')
    pair.lose(error)
    await chan.wait_closed()

    assert session.calls == ['made', 'started', 'data', ('lost', error)]


async def test_a_peer_that_ends_the_connection_did_not_end_the_session():
    pair = Pair()
    _, session, _, server = await start(pair)
    pair.client.mux.channels[0].close()
    pair.lose(None)

    # The client closed its connection, and says so by closing its channels; the server's did not come to an end.
    assert session.calls[-1] == ('lost', None)
    assert isinstance(server.calls[-1][1], ConnectionLost)


async def test_an_exception_of_a_session_closes_its_channel_only():
    pair = Pair()

    def fail(data):
        raise RuntimeError('session failed')

    server = ServerSession(data=fail)
    chan, session, _, _ = await start(pair, server)
    other, _, _, other_server = await start(pair)
    chan.write(b'x')
    await chan.wait_closed()

    assert isinstance(server.calls[-1][1], RuntimeError) and session.calls[-1] == ('lost', None)
    other.write(b'works')
    await settle()
    assert other_server.data == [b'works'] and not pair.server.error


async def test_a_session_factory_that_fails_makes_create_fail():
    pair = Pair()
    serve(pair, ServerSession())

    def fail():
        raise RuntimeError('factory failed')

    with pytest.raises(RuntimeError, match='factory'):
        await client_channel(pair).create(fail)

    await settle()
    assert not pair.client.mux.channels and not pair.server.mux.channels


async def test_create_ends_when_the_connection_or_the_channel_does():
    pair = Pair()
    never = asyncio.get_running_loop().create_future()
    channels = serve(pair, lambda: ServerSession(exec=lambda: never))
    task = asyncio.ensure_future(client_channel(pair).create(ClientSession, command='x'))
    await settle()
    channels[0].close()

    with pytest.raises(ChannelOpenError, match='closed'):
        await task

    chan = client_channel(pair)
    task = asyncio.ensure_future(chan.create(ClientSession, command='x'))
    await settle()
    error = ConnectionLost('gone')
    pair.lose(error)

    with pytest.raises(ConnectionLost):
        await task

    await chan.wait_closed()

    with pytest.raises(ConnectionLost):
        await client_channel(pair).create(ClientSession)

    never.cancel()


@pytest.mark.parametrize('turns', range(14))
async def test_create_cancelled_at_any_point_leaves_nothing(turns):
    pair = Pair()
    server = ServerSession(exec=lambda: later(True, 2), pty=lambda: later(True, 2))
    serve(pair, server)
    chan = client_channel(pair)
    task = asyncio.ensure_future(chan.create(ClientSession, command='x', term_type='vt100'))
    await settle(turns)

    if task.cancel():
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        chan.close()

    await settle(40)
    assert not pair.client.mux.channels and not pair.server.mux.channels and not pair.server.tasks
    assert chan._closed.is_set() or not pair.server.received
    assert not pair.client.error and not pair.server.error


async def test_cancelled_waits_leave_the_channel_as_it_is():
    pair = Pair()
    chan, _, server_chan, _ = await start(pair)
    task = asyncio.ensure_future(chan.wait_closed())
    await settle()
    task.cancel()
    await settle()
    server_chan.exit(0)
    await chan.wait_closed()
    assert chan.get_exit_status() == 0


async def test_many_sessions_leave_nothing():
    pair = Pair(max_sessions=200)
    served = serve(pair, lambda: ServerSession(started=lambda chan: chan.exit(0)))

    async def run_many():
        channels = [client_channel(pair) for _ in range(200)]
        await asyncio.gather(*(chan.create(ClientSession, command='true') for chan in channels))
        await asyncio.gather(*(chan.wait_closed() for chan in channels))
        served.clear()

        for end in (pair.client, pair.server):
            end.received.clear()
            end.sent.clear()

    await run_many()
    before = live_objects()

    for _ in range(5):
        await run_many()

    assert live_objects() - before < 250


# --- hostile clients and servers --------------------------------------------------------------------------------------


async def test_requests_in_the_wrong_state_are_refused():
    pair = Pair()
    server = ServerSession()
    await start(pair, server, command='one')
    calls = list(server.calls)

    for name, fields in (
        (b'exec', [encode_string(b'two')]),
        (b'shell', []),
        (b'subsystem', [encode_string(b'sftp')]),
        (b'env', [encode_string(b'A'), encode_string(b'b')]),
        (b'pty-req', [encode_string(b'vt100'), bytes(16), encode_string(b'')]),
        (b'window-change', [bytes(16)]),
        (b'x11-req', [b'\0', encode_string(b'MIT'), encode_string(b'00'), bytes(4)]),
        (b'auth-agent-req@openssh.com', []),
        (b'exit-status', [bytes(4)]),
        (b'unknown@example.com', []),
    ):
        pair.client.received.clear()
        send_request(pair.client, name, *fields, want_reply=True)
        await settle()
        assert pair.client.types() == [100], name

    assert server.calls == calls and not pair.server.error


async def test_a_signal_before_the_start_reaches_nobody():
    pair = Pair()
    server = ServerSession()
    serve(pair, server)
    pair.client.mux.open_channel(client_channel(pair), b'session')
    pair.client.received.clear()
    chan = client_channel(pair)
    task = asyncio.ensure_future(chan.create(ClientSession, command='x'))
    send_request(pair.client, b'signal', encode_string(b'KILL'), want_reply=False, channel=0)
    pair.held = True
    task.cancel()
    await settle()
    pair.held = False
    pair.run()
    await settle()

    assert ('signal', 'KILL') not in server.calls


@pytest.mark.parametrize('data', [b'a\0b', b'\xff\xfe'])
@pytest.mark.parametrize('name', [b'exec', b'subsystem'])
async def test_a_command_that_nothing_can_run_is_refused(name, data):
    pair = Pair()
    server = ServerSession()
    serve(pair, server)
    chan = client_channel(pair)
    chan._opened = lambda cursor: send_request(pair.client, name, encode_string(data), want_reply=True)
    pair.client.mux.open_channel(chan, b'session')
    await settle()

    assert pair.client.types()[-1] == 100 and server.calls == ['made']


async def test_the_environment_is_bounded():
    pair = Pair()
    channels = serve(pair, ServerSession)
    chan = client_channel(pair)
    environment = {f'VAR{index}': 'x' for index in range(10_000)}
    await chan.create(ClientSession, command='env', env=environment)
    assert len(channels[0].get_environment()) == MAX_ENVIRONMENT_COUNT

    chan = client_channel(pair)
    await chan.create(ClientSession, command='env', env={f'V{index}': 'x' * 10_000 for index in range(100)})
    assert sum(len(value) for value in channels[1].get_environment_bytes().values()) <= MAX_ENVIRONMENT_BYTES
    assert 0 < len(channels[1].get_environment()) < 100

    chan = client_channel(pair)
    opened = chan._opened

    def open_with_what_cannot_be(cursor):
        for name, value in ((b'A', b'nul\0'), (b'', b'none'), (b'A=B', b'C')):
            send_request(pair.client, b'env', encode_string(name), encode_string(value), channel=2)

        opened(cursor)

    chan._opened = open_with_what_cannot_be
    await chan.create(ClientSession, command='env', env={'B': 'ok'})
    assert channels[2].get_environment() == {'B': 'ok'}


@pytest.mark.parametrize(('modes', 'expected'), [
    (b'', {}), (b'\0', {}), (b'\x03\0\0\0\x01', {3: 1}), (b'\x03\0\0\0\x01\0', {3: 1}),
    (b'\x03\0\0\0\x01\xa0junk', {3: 1}), (b'\x03\0\0\0\x01\0\x04', {3: 1}),
])
async def test_terminal_modes_in_odd_forms(modes, expected):
    pair = Pair()
    server = ServerSession()
    channels = serve(pair, server)
    chan = client_channel(pair)
    chan._opened = lambda cursor: send_request(
        pair.client, b'pty-req', encode_string(b'vt100'), bytes(16), encode_string(modes), want_reply=True
    )
    pair.client.mux.open_channel(chan, b'session')
    await settle()

    assert channels[0].get_terminal_modes() == expected and channels[0].get_terminal_size() == (0, 0, 0, 0)
    assert pair.client.types()[-1] == 99


@pytest.mark.parametrize(('name', 'fields'), [
    (b'pty-req', [encode_string(b'vt100'), bytes(16), encode_string(b'\x03\0\0')]),
    (b'pty-req', [encode_string(b'vt100'), bytes(15)]),
    (b'pty-req', [encode_string(b'\xff'), bytes(16), encode_string(b'')]),
    (b'window-change', [bytes(15)]),
    (b'exec', [encode_uint32(100)]),
    (b'exec', [encode_string(b'ls'), b'tail']),
    (b'shell', [b'tail']),
    (b'env', [encode_string(b'A')]),
    (b'signal', [b'']),
    (b'break', [b'\0']),
])
async def test_a_malformed_request_ends_the_connection(name, fields):
    pair = Pair()
    server = ServerSession()
    await start(pair, server)
    calls = list(server.calls)
    send_request(pair.client, name, *fields)
    await settle()

    assert isinstance(pair.server.error, PacketDecodeError)
    assert server.calls == [*calls, ('lost', pair.server.error)]


@pytest.mark.parametrize(('name', 'fields'), [
    (b'exit-status', [b'\0']), (b'exit-status', [bytes(5)]), (b'exit-signal', [encode_string(b'TERM')]),
    (b'xon-xoff', []),
])
async def test_a_malformed_request_of_a_server_ends_the_connection(name, fields):
    pair = Pair()
    await start(pair)
    send_request(pair.server, name, *fields)
    await settle()

    assert isinstance(pair.client.error, PacketDecodeError)


async def test_requests_that_a_client_does_not_know_are_refused():
    pair = Pair()
    chan, _, _, _ = await start(pair)
    pair.server.received.clear()
    send_request(pair.server, b'exec', encode_string(b'rm'), want_reply=True)
    send_request(pair.server, b'keepalive@openssh.com', want_reply=True)
    send_request(pair.server, b'eow@openssh.com')
    await settle()

    assert pair.server.types() == [100, 100] and not chan.is_closing()


async def test_flow_control_by_xon_and_xoff():
    pair = Pair()
    _, session, server_chan, _ = await start(pair)
    session.xon_xoff_requested = lambda client_can_do: session.calls.append(('xon', client_can_do))
    server_chan.set_xon_xoff(True)
    await settle()

    assert session.calls[-1] == ('xon', True)


async def test_nothing_reaches_a_session_while_its_close_waits_behind_data():
    pair = Pair()
    chan, session, server_chan, server = await start(pair, window=1000)
    server_chan.pause_reading()
    chan.write(b'x' * 3000)
    chan.close()
    server_chan.write(b'late')
    await settle()
    assert 'data' not in session.calls and not chan._closed.is_set()

    server_chan.resume_reading()
    await chan.wait_closed()
    assert sum(map(len, server.data)) == 3000 and 'data' not in session.calls


async def test_nothing_that_a_server_sends_after_our_close_reaches_the_session():
    pair = Pair()
    chan, session, server_chan, _ = await start(pair)
    server_chan.write(b'late')
    server_chan.exit(1)
    chan.close()
    await chan.wait_closed()

    assert 'data' not in session.calls and pair.server.types().count(CLOSE) == 1
    assert not pair.client.error and not pair.server.error


async def test_requests_follow_the_data_that_the_window_lets_through():
    """A break or a signal comes where it was sent; used-up windows do not hold it back."""
    pair = Pair()
    chan, _, _, server = await start(pair, command='x', window=1000)
    chan.write(b'before')
    chan.send_break(5)
    chan.write(b'after')
    chan.send_signal('INT')
    await settle()
    calls = [call if isinstance(call, str) else call[0] for call in server.calls]
    assert calls[-4:] == ['data', 'break', 'data', 'signal']
    assert server.data == [b'before', b'after']
    server.chan.pause_reading()
    chan.write(bytes(2000))
    chan.send_signal('TERM')
    await settle()
    assert server.calls[-1] == ('signal', 'TERM') and server.data == [b'before', b'after']
