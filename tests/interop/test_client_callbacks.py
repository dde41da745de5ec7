"""One session class with our client and with AsyncSSH's, on OpenSSH's server and on AsyncSSH's: the same calls."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

import ssh_fast
from tests.interop.asyncssh_peer import asyncssh_server
from tests.interop.peers import KeyRing, OpenSSHServer, Target


def session_class(module: Any) -> type[Any]:
    """Make a session for one of the packages that notes its calls; pieces of data that follow each other are one."""

    class Session(module.SSHClientSession):    # type: ignore[misc, name-defined]
        def __init__(self, started: Callable[[Any], None], stays_open: bool) -> None:
            self.calls: list[Any] = []
            self.ends: list[Any] = []
            self._started, self._stays_open = started, stays_open

        def connection_made(self, chan: Any) -> None:
            self.chan = chan
            self.calls.append('made')

        def session_started(self) -> None:
            self.calls.append('started')
            self._started(self.chan)

        def data_received(self, data: Any, datatype: Any) -> None:
            if isinstance(self.calls[-1], list) and self.calls[-1][1] == datatype:
                self.calls[-1][2] += data
            else:
                self.calls.append(['data', datatype, data])

        def eof_received(self) -> bool:
            self.calls.append('eof')
            return self._stays_open

        def exit_status_received(self, status: int) -> None:
            self._end('status', status)

        def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
            self._end('signal', signal, core_dumped)

        def _end(self, *end: Any) -> None:
            # It comes at any time before the close: sshd sends it when it has waited for the process.
            assert 'started' in self.calls
            self.ends.append(end)

        def connection_lost(self, exc: Exception | None) -> None:
            self.calls.append(('lost', exc))

    return Session


def ask(*lines: str, eof: bool = True) -> Callable[[Any], None]:
    """Write lines at the start: a command that waits for them cannot be faster than its start."""
    def started(chan: Any) -> None:
        chan.writelines(lines)
        if eof:
            chan.write_eof()

    return started


def press(*steps: Callable[[Any], None]) -> Callable[[Any], None]:
    def started(chan: Any) -> None:
        for step in steps:
            step(chan)

    return started


CASES: dict[str, tuple[dict[str, Any], Callable[[Any], None]]] = {
    'a status': ({'command': 'read x; echo out; exit 3'}, ask('go\n')),
    'errors': ({'command': 'read x; echo err >&2'}, ask('go\n')),
    'input': ({'command': 'cat'}, ask('one\n', 'two\n')),
    'bytes': ({'command': 'cat', 'encoding': None}, lambda chan: (chan.write(b'\xff\0'), chan.write_eof())[1]),
    'a signal': ({'command': 'read x; kill -TERM $$'}, ask('go\n')),
    'no input': ({'command': 'read x || exit 9'}, ask()),
    'a shell': ({}, ask('echo "$0-shell" | tail -c 6\n')),
    'environment': ({'command': 'read x; echo "$LC_A$LC_B"', 'env': {'LC_A': 'ä', 'LC_B': 'b'}}, ask('go\n')),
    'environment as a list': ({'command': 'read x; echo "$LC_A$LC_B"', 'env': ['LC_A=a', 'LC_B=b']}, ask('go\n')),
    'a terminal': (
        {'command': 'read x; stty size; echo $TERM', 'term_type': 'vt100', 'term_size': (99, 33),
         'term_modes': {asyncssh.PTY_ECHO: 0}},
        ask('go\n', eof=False),
    ),
    'a terminal of another size': (
        {'command': 'read x; stty size', 'term_type': 'vt100', 'term_modes': {asyncssh.PTY_ECHO: 0}},
        press(lambda chan: chan.change_terminal_size(50, 20), ask('go\n', eof=False)),
    ),
    'a terminal by force': ({'command': 'read x; tty | cut -c1-8; stty -echo', 'request_pty': 'force',
                             'term_modes': {asyncssh.PTY_ECHO: 0}}, ask('go\n', eof=False)),
    'no terminal for a command': ({'command': 'read x; tty', 'request_pty': 'auto', 'term_type': 'vt100'}, ask('go\n')),
    'no terminal at all': ({'command': 'read x; tty', 'request_pty': False, 'term_type': 'vt100'}, ask('go\n')),
    'our close': ({'command': 'cat'}, lambda chan: chan.close()),
    'our abort': ({'command': 'cat'}, lambda chan: chan.abort()),
}


async def run(module: Any, target: Target, stays_open: bool, started: Callable[[Any], None], **options: Any) -> Any:
    make = session_class(module)
    async with module.connect(**target.connect_options()) as conn:
        chan, session = await conn.create_session(lambda: make(started, stays_open), **options)
        await asyncio.wait_for(chan.wait_closed(), 20)
        assert session.calls[:2] == ['made', 'started'] and session.calls[-1] == ('lost', None)
        ends = chan.get_exit_status(), chan.get_returncode(), (chan.get_exit_signal() or ('',))[0]
        return session.calls, session.ends, ends, chan.get_command(), dict(chan.get_environment()), chan.get_encoding()


@pytest.mark.parametrize('stays_open', [True, False])
@pytest.mark.parametrize('case', CASES)
async def test_openssh_server(case: str, stays_open: bool, openssh_server: OpenSSHServer) -> None:
    options, started = CASES[case]
    ours = await run(ssh_fast, openssh_server.target, stays_open, started, **options)
    theirs = await run(asyncssh, openssh_server.target, stays_open, started, **options)
    assert ours == theirs


async def handle(process: Any) -> None:
    """Say what was asked for and what comes besides data."""
    process.stdout.write(f'{process.command} {process.term_type} {process.term_size} {dict(process.env)}\n')
    while not process.stdin.at_eof():
        try:
            line = await process.stdin.readline()
        except asyncssh.BreakReceived as exc:
            process.stdout.write(f'break {exc.msec}\n')
        except asyncssh.SignalReceived as exc:
            process.stdout.write(f'signal {exc.signal}\n')
        except asyncssh.TerminalSizeChanged as exc:
            process.stdout.write(f'size {exc.width} {exc.height} {exc.pixwidth} {exc.pixheight}\n')
        else:
            process.stdout.write(line)
    if process.command == 'die':
        process.exit_with_signal('ABRT', True, 'why', 'en')
    else:
        process.exit(300)


@pytest.fixture
async def handling(key_ring: KeyRing, tmp_path: Path) -> AsyncIterator[Target]:
    async with asyncssh_server(key_ring, tmp_path / 'server', process_factory=handle, line_editor=False) as target:
        yield target


REQUESTS: dict[str, Callable[[Any], None]] = {
    'nothing': lambda chan: None,
    'a break': lambda chan: chan.send_break(500),
    'a signal by name': lambda chan: chan.send_signal('USR1'),
    'a signal by number': lambda chan: chan.send_signal(2),
    'terminate': lambda chan: chan.terminate(),
    'kill': lambda chan: chan.kill(),
    'a size': lambda chan: chan.change_terminal_size(1, 2, 3, 4),
}


@pytest.mark.parametrize('command', ['x', 'die'])
@pytest.mark.parametrize('name', REQUESTS)
async def test_asyncssh_server(name: str, command: str, handling: Target) -> None:
    """What is sent between two lines arrives between them."""
    options = {'command': command, 'term_type': 'dumb', 'term_size': (80, 24, 800, 600), 'env': {'A': 'b'}}
    started = press(ask('before\n', eof=False), REQUESTS[name], ask('behind\n'))
    ours = await run(ssh_fast, handling, True, started, **options)
    theirs = await run(asyncssh, handling, True, started, **options)
    assert ours == theirs
    assert ours[2] == ((44, 44, '') if command == 'x' else (-1, -6, 'ABRT'))
