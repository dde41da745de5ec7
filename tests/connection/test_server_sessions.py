"""What a server makes of its clients' sessions: every form of answer, plain or awaited, and what sessions are told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncssh
import pytest

import ssh_fast

HOST_KEY = ssh_fast.generate_private_key('ssh-ed25519')


class Owner(ssh_fast.SSHServer):
    """Lets everybody in; `answer` makes what `session_requested` returns, given the connection."""

    answer: Any = None

    def connection_made(self, conn: Any) -> None:
        self.conn = conn

    def begin_auth(self, username: str) -> bool:
        return False

    def session_requested(self) -> Any:
        return self.answer(self.conn) if self.answer else super().session_requested()


@contextlib.asynccontextmanager
async def connected(
    answer: Any = None, client: Any = ssh_fast, owner: type[Owner] = Owner, **options: Any
) -> AsyncIterator[Any]:
    """Serve on loopback, and log in with a client of ours or of AsyncSSH."""
    made = type('Made', (owner,), {'answer': staticmethod(answer)} if answer else {})
    settings = {'server_host_keys': [HOST_KEY], 'server_factory': made, **options}
    async with ssh_fast.listen('127.0.0.1', 0, **settings) as server:
        port = server.get_port()
        async with client.connect(
            '127.0.0.1', port, username='user', known_hosts=None, config=None, agent_path=None
        ) as conn:
            yield conn


class Echo(ssh_fast.SSHServerSession):
    """Says what it was told, in its output; `later` makes coroutines of the calls that may be."""

    def __init__(self, later: bool = False) -> None:
        self._later = later
        self.calls: list[str] = []

    def connection_made(self, chan: Any) -> None:
        self.chan = chan
        self.calls.append('made')

    def _answer(self, call: str) -> Any:
        self.calls.append(call)

        async def later() -> bool:
            await asyncio.sleep(0.01)
            return True

        return later() if self._later else True

    def pty_requested(self, term_type: str, term_size: Any, term_modes: Any) -> Any:
        return self._answer(f'pty {term_type} {term_size} {dict(term_modes)}')

    def shell_requested(self) -> Any:
        return self._answer('shell')

    def exec_requested(self, command: str) -> Any:
        return self._answer(f'exec {command}')

    def subsystem_requested(self, subsystem: str) -> Any:
        return self._answer(f'subsystem {subsystem}')

    def session_started(self) -> None:
        self.calls.append('started')
        self.chan.write('; '.join(self.calls) + '\n')

        if not self.chan.get_terminal_type():
            self.chan.exit(0)

    def break_received(self, msec: int) -> Any:
        self.chan.write(f'break {msec}\n')
        return self._answer('break')

    def signal_received(self, signal: str) -> None:
        self.chan.write(f'signal {signal}\n')

        if signal == 'TERM':
            self.chan.exit_with_signal('TERM', True, 'Ended', 'de')

    def terminal_size_changed(self, *size: int) -> None:
        self.chan.write(f'size {size}\n')

    def soft_eof_received(self) -> None:
        self.chan.write('soft eof\n')
        self.chan.exit(5)

    def data_received(self, data: Any, datatype: int | None) -> None:
        self.chan.write(f'data {data!r}\n')


async def handler(stdin: Any, stdout: Any, stderr: Any) -> None:
    stdout.write('a handler\n')
    stdout.channel.exit(0)


def plain_handler(stdin: Any, stdout: Any, stderr: Any) -> None:
    stdout.write('a handler\n')
    stdout.channel.exit(0)


async def soon(value: Any) -> Any:
    await asyncio.sleep(0.01)
    return value


ECHO = 'made; exec x; started\n'


@pytest.mark.parametrize(
    ('answer', 'output'),
    [
        (lambda conn: Echo(), ECHO),
        (lambda conn: Echo(later=True), ECHO),
        (lambda conn: soon(Echo()), ECHO),
        (lambda conn: soon(soon(Echo())), ECHO),
        (lambda conn: handler, 'a handler\n'),
        (lambda conn: plain_handler, 'a handler\n'),
        (lambda conn: soon(handler), 'a handler\n'),
        (lambda conn: (conn.create_server_channel(), Echo()), ECHO),
        (lambda conn: (conn.create_server_channel(), soon(Echo())), ECHO),
        (lambda conn: (conn.create_server_channel(), handler), 'a handler\n'),
        (lambda conn: soon((conn.create_server_channel(), soon(Echo()))), ECHO),
        (lambda conn: False, 'the factory x\n'),
        (lambda conn: soon(False), 'the factory x\n'),
    ],
)
async def test_every_form_of_answer(answer: Any, output: str) -> None:
    def factory(process: Any) -> None:
        process.stdout.write(f'the factory {process.command}\n')
        process.exit(0)

    async with connected(answer, process_factory=factory) as conn:
        result = await conn.run('x')
        assert (result.stdout, result.exit_status) == (output, 0)


@pytest.mark.parametrize(
    'answer',
    [
        None,
        lambda conn: False,
        lambda conn: soon(False),
        lambda conn: None,
        lambda conn: 42,
        lambda conn: soon(42),
        lambda conn: 1 // 0,
        lambda conn: soon(1) and (conn.create_server_channel(), False),
    ],
)
@pytest.mark.filterwarnings('ignore:coroutine')
async def test_sessions_are_refused(answer: Any) -> None:
    async with connected(answer) as conn:
        for _ in range(2):
            with pytest.raises(ssh_fast.ChannelOpenError):
                await conn.run('x')


async def test_a_refusal_may_say_why() -> None:
    def refuse(conn: Any) -> Any:
        raise ssh_fast.ChannelOpenError(ssh_fast.OPEN_RESOURCE_SHORTAGE, 'Come back later')

    async with connected(refuse) as conn:
        with pytest.raises(ssh_fast.ChannelOpenError, match='Come back later') as caught:
            await conn.run('x')
        assert caught.value.code == ssh_fast.OPEN_RESOURCE_SHORTAGE


@pytest.mark.parametrize('later', [False, True])
async def test_calls_come_in_their_order(later: bool) -> None:
    async with connected(lambda conn: Echo(later), line_editor=False) as conn:
        modes = {ssh_fast.PTY_IUTF8: 1, ssh_fast.PTY_VINTR: 3}
        process = await conn.create_process(term_type='vt100', term_size=(100, 30, 800, 600), term_modes=modes)
        pty = f'pty vt100 (100, 30, 800, 600) {modes}'
        assert await process.stdout.readline() == f'made; {pty}; shell; started\n'
        process.change_terminal_size(90, 20, 700, 500)
        process.send_break(250)
        process.send_signal('USR1')
        for line in ('size (90, 20, 700, 500)', 'break 250', 'signal USR1'):
            assert await process.stdout.readline() == line + '\n'
        process.stdin.write('text\r')
        assert await process.stdout.readline() == "data 'text\\r'\n"
        process.terminate()
        result = await process.wait()
        assert result.exit_signal == ('TERM', True, 'Ended', 'de')
        assert result.exit_status == -1

    async with connected(lambda conn: Echo(later)) as conn:
        assert (await conn.run(subsystem='news')).stdout == 'made; subsystem news; started\n'


class Coroutines(Echo):
    """Is told of everything by coroutines."""

    async def terminal_size_changed(self, *size: int) -> None:    # type: ignore[override]
        await soon(None)
        super().terminal_size_changed(*size)

    async def signal_received(self, signal: str) -> None:    # type: ignore[override]
        await soon(None)
        if signal == 'KILL':
            raise ZeroDivisionError
        super().signal_received(signal)

    async def soft_eof_received(self) -> None:    # type: ignore[override]
        await soon(None)
        self.chan.write('soft eof\n')


async def test_what_tells_may_be_coroutines() -> None:
    async with connected(lambda conn: Coroutines(later=True)) as conn:
        process = await conn.create_process(term_type='xterm')
        await process.stdout.readline()
        process.change_terminal_size(90, 20)
        process.send_signal('USR1')
        assert await process.stdout.readline() == 'size (90, 20, 0, 0)\r\n'
        assert await process.stdout.readline() == 'signal USR1\r\n'
        process.stdin.write('\x04')
        assert await process.stdout.readline() == 'soft eof\r\n'
        process.stdin.write('\x03')
        assert await process.stdout.readline() == 'break 0\r\n'
        process.kill()
        await process.wait_closed()
        assert (await conn.run('x')).stdout == ECHO, 'its error ended the session alone'


@pytest.mark.parametrize('client', [ssh_fast, asyncssh], ids=['ours', 'asyncssh'])
async def test_what_a_session_can_ask_its_channel(client: Any) -> None:
    seen: dict[str, Any] = {}

    def look(process: Any) -> None:
        chan = process.channel
        seen.update(
            environment=dict(chan.get_environment()),
            environment_bytes=dict(chan.get_environment_bytes()),
            command=chan.get_command(),
            subsystem=chan.get_subsystem(),
            term=(chan.get_terminal_type(), chan.get_terminal_size()),
            mode=(chan.get_terminal_mode(ssh_fast.PTY_ECHO), chan.get_terminal_mode(ssh_fast.PTY_IUTF8)),
            modes=dict(chan.get_terminal_modes()),
            nothing=(chan.get_x11_display(), chan.get_agent_path()),
            user=chan.get_extra_info('username'),
            connection=chan.get_connection().get_extra_info('username'),
            encoding=chan.get_encoding(),
        )
        chan.set_xon_xoff(False)
        chan.exit(300)

    async with connected(client=client, process_factory=look) as conn:
        result = await conn.run(
            'the command', env={'ONE': '1', 'TWO': 'zwei é'}, term_type='ansi', term_size=(1, 2, 3, 4),
            term_modes={ssh_fast.PTY_ECHO: 0},
        )
    assert result.exit_status == 300 & 0xFF
    assert seen == {
        'environment': {'ONE': '1', 'TWO': 'zwei é'},
        'environment_bytes': {b'ONE': b'1', b'TWO': 'zwei é'.encode()},
        'command': 'the command',
        'subsystem': None,
        'term': ('ansi', (1, 2, 3, 4)),
        'mode': (0, None),
        'modes': {ssh_fast.PTY_ECHO: 0},
        'nothing': (None, None),
        'user': 'user',
        'connection': 'user',
        'encoding': ('utf-8', 'strict'),
    }


async def test_channels_of_their_own() -> None:
    """Encoding, error handler, window and packet size may be those of one session."""
    chosen: list[dict[str, Any]] = [
        {'encoding': None},
        {'encoding': 'latin-1'},
        {'errors': 'replace', 'window': 65536},
        {},
    ]
    seen: list[Any] = []

    class Reads(ssh_fast.SSHServerSession):
        def connection_made(self, chan: Any) -> None:
            self.chan = chan

        def exec_requested(self, command: str) -> bool:
            return True

        def data_received(self, data: Any, datatype: int | None) -> None:
            seen.append((self.chan.get_encoding(), self.chan.get_recv_window(), data))
            self.chan.exit(0)

    def answer(conn: Any) -> Any:
        return conn.create_server_channel(**chosen[len(seen)]), Reads()

    async with connected(answer, window=131072) as conn:
        for data in (b'\xff', b'\xff', b'\xff', b'a'):
            await conn.run('x', encoding=None, input=data)
    assert seen == [
        ((None, 'strict'), 131072, b'\xff'),
        (('latin-1', 'strict'), 131072, 'ÿ'),
        (('utf-8', 'replace'), 65536, '\ufffd'),
        (('utf-8', 'strict'), 131072, 'a'),
    ]


async def test_allow_pty() -> None:
    async with connected(lambda conn: Echo(), allow_pty=False) as conn:
        with pytest.raises(ssh_fast.ChannelOpenError, match='terminal'):
            await conn.create_process(term_type='xterm')
        assert (await conn.run('x')).stdout == ECHO


# --- streams, and the line editor on them


async def converse(stdin: Any, stdout: Any, stderr: Any) -> None:
    """Print what comes in, lines and exceptions, until the end."""
    stdout.write('ready\n')
    while True:
        try:
            line = await stdin.readline()
        except ssh_fast.BreakReceived as exc:
            stdout.write(f'break {exc.msec}\n')
        except ssh_fast.SignalReceived as exc:
            stdout.write(f'signal {exc.signal}\n')
        except ssh_fast.TerminalSizeChanged as exc:
            stdout.write(f'size {exc.width} {exc.height} {exc.pixwidth} {exc.pixheight}\n')
        else:
            if not line and stdin.at_eof():
                break
            stdout.write(f'line {line!r}\n')
    stdout.channel.exit(4)


@pytest.mark.parametrize('client', [ssh_fast, asyncssh], ids=['ours', 'asyncssh'])
async def test_everything_comes_through_the_line_editor(client: Any) -> None:
    async with connected(client=client, session_factory=converse) as conn:
        process = await conn.create_process(term_type='xterm', term_size=(80, 24))

        async def expect(text: str) -> None:
            assert (await asyncio.wait_for(process.stdout.readuntil(text), 10)).endswith(text)

        await expect('ready\r\n')
        process.stdin.write('helo\x02l\r')
        await expect("line 'hello\\n'\r\n")
        process.stdin.write('\x03')
        await expect('break 0\r\n')
        process.stdin.write('\x04')
        await expect("line ''\r\n")
        process.change_terminal_size(70, 30, 1, 2)
        await expect('size 70 30 1 2\r\n')
        process.send_break(9)
        await expect('break 9\r\n')
        process.send_signal('USR2')
        await expect('signal USR2\r\n')
        process.stdin.write('\x10\x7fO\r')
        await expect("line 'hellO\\n'\r\n")
        process.stdin.write('rest')
        await expect('rest')
        process.stdin.write_eof()
        await expect("line 'rest'\r\n")
        assert (await process.wait()).exit_status == 4


@pytest.mark.parametrize('client', [ssh_fast, asyncssh], ids=['ours', 'asyncssh'])
async def test_a_login_dialogue(client: Any) -> None:
    """Echo off for a password, completion by a key, and a key for a signal: what applications use the editor for."""
    def complete(line: str, position: int) -> Any:
        return (line + 'plete', position + 5) if line.endswith('com') else False

    async def dialogue(process: Any) -> None:
        chan = process.channel
        chan.register_key('\t', complete)
        chan.register_key('\x14', lambda line, position: ('INFO', -1))
        process.stdout.write('Name: ')
        name = (await process.stdin.readline()).rstrip()
        chan.set_echo(False)
        process.stdout.write('Password: ')
        password = (await process.stdin.readline()).rstrip()
        chan.set_echo(True)
        chan.set_input('draft', 5)
        try:
            await process.stdin.readline()
        except ssh_fast.SignalReceived as exc:
            process.stdout.write(f'{name} {password} {exc.signal}\n')
        chan.clear_input()
        chan.set_line_mode(False)
        process.stdout.write(repr(await process.stdin.read(100)))
        process.exit(0)

    async with connected(client=client, process_factory=dialogue, line_echo=True) as conn:
        process = await conn.create_process(term_type='xterm', term_size=(80, 24))
        process.stdin.write('com\t\r')
        shown = await process.stdout.readuntil('Password: ')
        process.stdin.write('secret\r')
        shown += await process.stdout.readuntil('draft')
        process.stdin.write('\x14')
        shown += await process.stdout.readuntil('INFO\r\n')
        process.stdin.write('\x01\t\r')
        shown += (await process.wait()).stdout
    assert shown.startswith('Name: complete\r\nPassword: \r\n')
    assert shown.count('secret') == 1
    assert 'complete secret INFO\r\n' in shown
    assert shown.endswith("'\\x01\\t\\r'")


async def test_options_of_the_line_editor() -> None:
    lines: list[str] = []

    async def collect(process: Any) -> None:
        lines.clear()
        async for line in process.stdin:
            lines.append(line)
        process.exit(0)

    async def run(keys: str, **options: Any) -> str:
        async with connected(process_factory=collect, **options) as conn:
            return str((await conn.run(term_type='xterm', input=keys)).stdout)

    assert (await run('one\r'), lines) == ('one\r\n', ['one\n'])
    assert (await run('one\r', line_echo=False), lines) == ('', ['one\n'])
    assert (await run('abcdefgh\r', max_line_length=4), lines) == ('abcd\r\n\a', ['abcd\n'])
    await run('a\rb\r\x10\x10\r', line_history=1)
    assert lines == ['a\n', 'b\n', 'b\n']
    await run('a\rb\r\x10\x10\r')
    assert lines == ['a\n', 'b\n', 'a\n']
    assert (await run('a\x7fb\n', line_editor=False), lines) == ('', ['a\x7fb\n'])

    for name, value in (('line_history', -1), ('max_line_length', 0), ('line_editor', 'yes')):
        with pytest.raises(ValueError, match=name):
            ssh_fast.SSHServerConnectionOptions(server_host_keys=[HOST_KEY], **{name: value})
