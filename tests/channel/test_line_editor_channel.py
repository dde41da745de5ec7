"""The line editor on a channel: who gets what, in which order, and what stops whom."""

from typing import Any

import pytest

from ssh_fast.channel.line_editor_channel import SSHLineEditorChannel
from ssh_fast.channel.server_channel import LineEditing, SSHServerChannel
from tests.channel.pair import ClientSession, Pair, ServerSession, client_channel, later, serve, settle

EDITING = LineEditing()


async def begin(
    session: ServerSession | None = None,
    encoding: str | None = 'utf-8',
    line_editing: LineEditing | None = EDITING,
    term_type: str | None = 'xterm',
    window: int = 2 << 20,
    **options: Any,
) -> tuple[Pair, ClientSession, ServerSession, Any]:
    """Open a session with a terminal; returns both ends' sessions, and the client's channel."""
    pair = Pair()
    session = session or ServerSession()
    serve(pair, session, encoding, window=window, line_editing=line_editing, **options)
    chan = client_channel(pair, encoding)
    client = await chan.create(ClientSession, term_type=term_type, term_size=(20, 10))
    return pair, client, session, chan


def shown(client: ClientSession) -> str:
    return ''.join(client.data)


async def test_lines_are_edited() -> None:
    _pair, client, server, chan = await begin()
    assert isinstance(server.chan, SSHLineEditorChannel)
    assert [call if isinstance(call, str) else call[0] for call in server.calls] == ['made', 'pty', 'shell', 'started']
    server.chan.write('> ')
    chan.write('hallo\x02\x02\x02\x7fe\r')
    await settle()
    assert server.data == ['hello\n']
    assert shown(client).startswith('> ') and shown(client).endswith('\r\n')


async def test_what_the_wrapper_does_not_have_is_the_channels() -> None:
    _pair, _client, server, _chan = await begin()
    assert server.chan.get_terminal_size() == (20, 10, 0, 0)
    assert server.chan.get_command() is None
    assert server.chan.get_encoding() == ('utf-8', 'strict')
    with pytest.raises(AttributeError):
        server.chan.no_such_thing()
    server.chan.exit(3)
    await settle()
    assert ('lost', None) in server.calls


@pytest.mark.parametrize(
    'options', [{'encoding': None}, {'term_type': None}, {'line_editing': None}], ids=['bytes', 'no-terminal', 'off']
)
async def test_there_is_no_editor(options: dict[str, Any]) -> None:
    _pair, client, server, chan = await begin(**options)
    data: Any = 'ab\x7f\r' if options.get('encoding', '') is not None else b'ab\x7f\r'
    chan.write(data)
    server.chan.write(data[:2] + data[:0].join([data[-1:]]) + data[:1])
    await settle()
    assert server.data == [data]
    assert shown(client) == 'ab\ra' if isinstance(data, str) else client.data == [b'ab\ra']
    assert isinstance(server.chan, SSHServerChannel) is (options not in ({'term_type': None},))


async def test_settings_without_a_terminal_change_nothing() -> None:
    _pair, client, server, chan = await begin(term_type=None)
    server.chan.set_echo(False)
    server.chan.set_line_mode(False)
    server.chan.register_key('x', lambda line, position: False)
    server.chan.unregister_key('y')
    server.chan.set_input('abc', 0)
    server.chan.clear_input()
    with pytest.raises(ValueError, match='at least one character'):
        server.chan.register_key('', lambda line, position: False)
    chan.write('xy\n')
    server.chan.write('a\nb')
    await settle()
    assert server.data == ['xy\n']
    assert shown(client) == 'a\nb'


async def test_settings_before_the_terminal_hold_for_it() -> None:
    class Early(ServerSession):
        def connection_made(self, chan: Any) -> None:
            super().connection_made(chan)
            chan.set_echo(False)
            chan.register_key('!', lambda line, position: ('QUIT', -1))

    _pair, client, server, chan = await begin(Early())
    chan.write('se!cret\r')
    await settle()
    assert server.data == ['secret\n']
    assert ('signal', 'QUIT') in server.calls
    assert shown(client) == '\r\n'


async def test_a_terminal_that_is_granted_later_or_refused() -> None:
    _pair, _client, server, chan = await begin(ServerSession(pty=lambda: later(True)))
    chan.write('a\x7fb\r')
    await settle()
    assert server.data == ['b\n']

    pair, session = Pair(), ServerSession(pty=False)
    serve(pair, session, 'utf-8', line_editing=LineEditing())
    with pytest.raises(Exception, match='refused a terminal'):
        await client_channel(pair, 'utf-8').create(ClientSession, term_type='xterm')
    assert session.chan.get_terminal_type() is None


async def test_limits_of_the_options() -> None:
    _pair, client, server, chan = await begin(line_editing=LineEditing(False, 1, 4))
    chan.write('abcdef\r')
    chan.write('x\r\x10\x10\r')
    await settle()
    assert ''.join(server.data) == 'abcd\nx\nx\n'
    assert '\r\n' not in shown(client)


async def test_events_come_in_order() -> None:
    _pair, _client, server, chan = await begin(ServerSession(**{'break': True}))
    chan.write('one\r\x03\x04two\rthree')
    await settle()
    assert server.calls[4:] == ['data', ('break', 0), 'soft eof', 'data']
    chan.change_terminal_size(30, 10)
    chan.send_signal('INT')
    chan.send_break(7)
    chan.write_eof()
    await settle()
    assert server.calls[8:] == [('size', 30, 10, 0, 0), ('signal', 'INT'), ('break', 7), 'data', 'eof']
    assert ''.join(server.data) == 'one\ntwo\nthree'


async def test_both_kinds_of_output_keep_the_line_whole() -> None:
    _pair, client, server, chan = await begin()
    chan.write('abc')
    await settle()
    server.chan.write_stderr('oh\n')
    server.chan.writelines(['x\n', 'y\r\n'])
    server.chan.writelines_stderr(['z'])
    await settle()
    assert ''.join(client.errors) == 'oh\r\nz'
    assert shown(client) == 'abc' + '\b\b\b\x1b[J' + 'abc' + '\b\b\b\x1b[J' + 'x\r\ny\r\nabc' + '\b\b\b\x1b[J' + 'abc'


async def test_output_that_is_not_text_is_refused() -> None:
    _pair, _client, server, _chan = await begin()
    with pytest.raises(TypeError, match='must be str'):
        server.chan.write(b'bytes')


async def test_bytes_from_now_on() -> None:
    _pair, client, server, chan = await begin()
    chan.write('ab')
    await settle()
    server.chan.set_encoding(None)
    server.chan.write(b'x\ny')
    chan.write('c\r\x7f')
    await settle()
    assert server.data == ['ab', b'c\r\x7f']
    assert shown(client).endswith('x\ny')


async def test_an_application_that_does_not_read_gets_no_more_lines() -> None:
    """Not even those that came in the same packet; the end of file waits behind them."""
    class Slow(ServerSession):
        def data_received(self, data: Any, datatype: int | None) -> None:
            super().data_received(data, datatype)
            self.chan.pause_reading()

    _pair, _client, server, chan = await begin(Slow())
    chan.write('1\r2\r3\r4')
    chan.write_eof()
    await settle()
    assert server.data == ['1\n']
    server.chan.resume_reading()
    assert server.data == ['1\n', '2\n']
    server.chan.resume_reading()
    server.chan.resume_reading()
    server.chan.resume_reading()
    await settle()
    assert server.data == ['1\n', '2\n', '3\n', '4']
    assert server.calls[-1] == 'eof'


async def test_an_end_of_file_is_answered_if_the_session_wants_it() -> None:
    _pair, client, server, chan = await begin(ServerSession(eof=False))
    chan.write('ab')
    chan.write_eof()
    await settle()
    assert server.data == ['ab']
    assert client.calls[-1] == 'eof'


async def test_a_client_that_takes_no_output_is_not_edited_for() -> None:
    """Two bytes can recall and enter a long line: what that prints is bounded, and so is what the session is given."""
    pair = Pair()
    session = ServerSession()
    serve(pair, session, 'utf-8', line_editing=LineEditing())
    chan = client_channel(pair, 'utf-8', window=1 << 16)
    client = await chan.create(ClientSession, term_type='xterm', term_size=(80, 24))
    chan.pause_reading()
    chan.write('x' * 1000 + '\r' + '\x10\r' * 1000)
    await settle()
    assert session.chan.get_write_buffer_size() < 200_000
    assert len(''.join(session.data)) < 1_000_000
    before = len(session.data)
    chan.resume_reading()
    await settle(100)
    assert len(session.data) > before
    assert client.data


async def test_a_key_that_fails_ends_the_channel_alone() -> None:
    pair, client, server, chan = await begin()
    server.chan.register_key('!', lambda line, position: 1 // 0)
    chan.write('a!')
    await settle()
    assert isinstance(server.calls[-1][1], ZeroDivisionError)
    assert client.calls[-1] == ('lost', None)
    assert pair.server.error is None


async def test_a_failure_while_held_input_is_processed_ends_the_channel_alone() -> None:
    _pair, _client, server, chan = await begin()
    server.chan.register_key('!', lambda line, position: 1 // 0)
    server.chan.pause_reading()
    chan.write('a!')
    await settle()
    server.chan.resume_reading()
    assert isinstance(server.calls[-1][1], ZeroDivisionError)


async def test_input_after_our_end_of_file() -> None:
    _pair, client, server, chan = await begin()
    server.chan.write_eof()
    chan.write('abc\r')
    await settle()
    assert server.data == ['abc\n']
    assert shown(client) == ''


async def test_a_subsystem_that_takes_the_sessions_place() -> None:
    made: list[ServerSession] = []

    def factory(chan: Any) -> ServerSession:
        made.append(ServerSession())
        return made[-1]

    pair, session = Pair(), ServerSession()
    serve(pair, session, 'utf-8', line_editing=LineEditing(), subsystems={'sftp': factory})
    chan = client_channel(pair, 'utf-8')
    await chan.create(ClientSession, subsystem='sftp', term_type='xterm', request_pty='force')
    chan.write('a\x7f\r')
    await settle()
    assert isinstance(made[0].chan, SSHServerChannel)
    assert made[0].data == [b'a\x7f\r']
    assert session.calls[-1] == ('lost', None)
