"""Every example is a program that runs: a newcomer's first commands must work, and end with the right status."""

import asyncio
import contextlib
import dataclasses
import fcntl
import http.server
import os
import random
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

import ssh_fast
from tests.interop import peers
from tests.interop.peers import Command, KeyRing, OpenSSHServer, PeerMissing, Target, make_target

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / 'examples'
PASSWORD = 'correct horse'
SECONDS = 30


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of the examples, which find the package that is tested."""
    return {**os.environ, 'PYTHONPATH': str(ROOT), **variables}


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, check=False, env=environment()
    )


def example(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(EXAMPLES / f'{name}.py'), *map(str, arguments)]


def run_client(name: str, target: Target, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run an example that is a client, with the target's keys."""
    where = ['--port', target.port, '--user', target.user, '--key', target.key, '--known-hosts', target.known_hosts]
    return run(example(name, target.host, *arguments, *where))


@contextlib.contextmanager
def running(name: str, *arguments: object) -> Iterator[int]:
    """Run an example that is a server until the block ends, by Ctrl-C; gives its port."""
    server = subprocess.Popen(
        example(name, '--port', 0, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(SERVER_PASSWORD=PASSWORD),
    )
    assert server.stdout and server.stderr
    try:
        line = server.stdout.readline()
        assert line.startswith('Listening on port '), server.stderr.read()
        yield int(line.split()[-1])
    finally:
        server.send_signal(signal.SIGINT)
        try:
            _, errors = server.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            _, errors = server.communicate()
    assert errors == ''
    assert server.returncode == 0


class Conversation:
    """A command of OpenSSH's client that is talked to while it runs."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._seen = b''
        self.status: int | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        assert self._process.stdin and self._process.stdout
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        return self

    def __exit__(self, exc_type: object, *exc_info: object) -> None:
        try:
            if not exc_type:
                self.status = self._process.wait(SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._close()

    def _close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()

    def kill(self) -> None:
        self._process.kill()

    def until(self, text: str) -> str:
        """Read until a text has come, and return what came before it."""
        while text.encode() not in self._seen:
            assert select.select([self._output], [], [], SECONDS)[0], f'only this came: {self._seen!r}'
            try:
                data = os.read(self._output, 65536)
            except OSError:
                data = b''
            assert data, f'it ended with {self._seen!r}'
            self._seen += data
        before, _, self._seen = self._seen.partition(text.encode())
        return before.decode()

    def write(self, data: bytes | None) -> None:
        """Write to its input, or end it."""
        if data is None:
            assert self._process.stdin
            self._process.stdin.close()
        else:
            os.write(self._input, data)


class Terminal(Conversation):
    """The same with a terminal of its own, which can be resized."""

    def __init__(self, command: Command, term: str, size: tuple[int, int]) -> None:
        super().__init__(command)
        self._term, self._size = term, size

    def __enter__(self) -> Self:
        self._input, inner = os.openpty()
        self._output = self._input
        self.resize(*self._size)
        self._process = subprocess.Popen(
            self._command.argv,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env={**os.environ, 'TERM': self._term},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inner)
        return self

    def _close(self) -> None:
        os.close(self._input)

    def resize(self, width: int, height: int) -> None:
        """Change the size, of which the system tells the command."""
        fcntl.ioctl(self._input, termios.TIOCSWINSZ, struct.pack('4H', height, width, 0, 0))


def children() -> list[int]:
    """List the processes below this one."""
    found = [os.getpid()]
    for pid in found:
        with contextlib.suppress(OSError):
            for task in Path(f'/proc/{pid}/task').iterdir():
                found += map(int, (task / 'children').read_text().split())
    return found


def needs(*programs: str) -> None:
    """Skip without a program that an example runs, but not in CI."""
    for program in programs:
        if not shutil.which(program) and 'CI' not in os.environ:
            pytest.skip(f'{program} is not installed')


@pytest.fixture(scope='module', autouse=True)
def skipping() -> None:
    """Skip where OpenSSH is not installed, but not in CI."""
    try:
        for program in ('sshd', 'ssh', 'sftp', 'ssh-keygen'):
            peers.find_program(program)
    except PeerMissing as exc:
        if 'CI' in os.environ:
            raise
        pytest.skip(str(exc))


@pytest.fixture(scope='module')
def ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    return KeyRing(tmp_path_factory.mktemp('keys'))


@pytest.fixture(scope='module')
def sshd(ring: KeyRing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """OpenSSH's server."""
    with OpenSSHServer(ring, tmp_path_factory.mktemp('sshd')) as server:
        yield server.target


@pytest.fixture
def target_of(ring: KeyRing, tmp_path: Path) -> Callable[[int], Target]:
    """Makes the target of one of our servers, whose host key is `host-ed25519`."""

    def make(port: int) -> Target:
        return make_target(ring, tmp_path / 'client', port, [ring.public('host-ed25519', 'ed25519')])

    return make


@pytest.fixture
def keys(ring: KeyRing) -> list[object]:
    """The arguments of our servers that name their keys."""
    return [
        *('--host-key', ring.private('host-ed25519', 'ed25519')),
        *('--authorized-keys', ring.public('user', 'ed25519')),
    ]


# --- clients, with OpenSSH's server -----------------------------------------------------------------------------------


def test_simple_client(sshd: Target) -> None:
    result = run_client('simple_client', sshd, 'echo hello; echo to whom >&2')
    assert (result.returncode, result.stdout, result.stderr) == (0, 'hello\n', '')


def test_simple_client_whose_command_fails(sshd: Target) -> None:
    result = run_client('simple_client', sshd, 'exit 3')
    assert result.returncode == 1
    assert 'exited with status 3' in result.stderr
    assert 'Traceback' not in result.stderr


def test_simple_client_without_a_server(sshd: Target, target_of: Callable[[int], Target]) -> None:
    result = run_client('simple_client', target_of(peers.free_port()), 'true')
    assert result.returncode == 1
    assert result.stderr.startswith('Failed: ')
    assert 'Cannot connect to 127.0.0.1 port' in result.stderr


def test_simple_client_of_an_unknown_server(sshd: Target, tmp_path: Path) -> None:
    strangers = tmp_path / 'known_hosts'
    strangers.touch()
    where = ['--port', sshd.port, '--user', sshd.user, '--key', sshd.key, '--known-hosts', strangers]
    result = run(example('simple_client', sshd.host, 'true', *where))
    assert result.returncode == 1
    assert 'Host key is not trusted' in result.stderr


@pytest.mark.parametrize(('command', 'status'), [('true', 0), ('exit 7', 7), ('kill -TERM $$', 128 + signal.SIGTERM)])
def test_exec_and_status(sshd: Target, command: str, status: int) -> None:
    result = run_client('exec_and_status', sshd, f'echo out; echo err >&2; {command}')
    assert (result.returncode, result.stdout) == (status, 'out\n')
    assert result.stderr.startswith('err\n')


def test_exec_and_status_without_a_server(target_of: Callable[[int], Target]) -> None:
    assert run_client('exec_and_status', target_of(peers.free_port()), 'true').returncode == 255


def test_callback_client(sshd: Target) -> None:
    result = run_client('callback_client', sshd, 'echo out; echo err >&2; exit 3')
    assert (result.returncode, result.stdout) == (0, 'out\n')
    assert sorted(result.stderr.splitlines()) == ['Connected to 127.0.0.1', 'Exit status 3', 'Logged in', 'err']

    result = run_client('callback_client', sshd, 'kill -9 $PPID')
    assert result.returncode == 1
    assert 'Failed: ' in result.stderr


def test_separate_stderr(sshd: Target) -> None:
    command = 'for i in 1 2 3; do echo o$i; echo e$i >&2; done; printf "last"; head -c 300000 /dev/zero >&2'
    result = run_client('separate_stderr', sshd, command)
    assert (result.returncode, result.stderr) == (0, '')
    lines = result.stdout.splitlines()
    output = [line for line in lines if line.startswith('output')]
    assert output == ['output: o1', 'output: o2', 'output: o3', 'output: last']
    errors = [line.removeprefix('error: ') for line in lines if line.startswith('error: ')]
    assert errors[:3] == ['e1', 'e2', 'e3'] and sum(map(len, errors[3:])) == 300_000


@pytest.mark.parametrize('name', ['callback_math_client', 'math_client'])
def test_math_clients(sshd: Target, name: str) -> None:
    needs('bc')
    result = run_client(name, sshd, '6*7', '2^10', '10/4')
    assert (result.returncode, result.stdout, result.stderr) == (0, '6*7 = 42\n2^10 = 1024\n10/4 = 2\n', '')


def test_set_environment(sshd: Target) -> None:
    command = 'echo "$LC_ONE|$LC_TWO"'
    result = run_client('set_environment', sshd, command, '--set', 'LC_ONE=a b', '--set', 'LC_TWO=c=d')
    assert (result.returncode, result.stdout) == (0, 'a b|c=d\n')

    result = run_client('set_environment', sshd, command, '--set', 'LC_ONE')
    assert result.returncode == 1
    assert "'LC_ONE'" in result.stderr


def test_set_terminal(sshd: Target) -> None:
    resized = 'trap "stty size; exit" WINCH; echo "$TERM $(stty size)"; while :; do sleep 0.05; done'
    where = ['--type', 'vt100', '--size', '100x30', '--resize', '132x43']
    result = run_client('set_terminal', sshd, resized, *where)
    assert (result.returncode, result.stderr) == (0, '')
    assert result.stdout.splitlines() == ['vt100 30 100', '43 132']

    result = run_client('set_terminal', sshd, 'stty -a')
    assert '-echo ' in result.stdout and 'columns 80' in result.stdout


def test_gather_results(sshd: Target) -> None:
    absent = f'{sshd.host}:{peers.free_port()}'
    hosts = [f'{sshd.host}:{sshd.port}', absent, f'{sshd.host}:{sshd.port}']
    where = ['--user', sshd.user, '--key', sshd.key, '--known-hosts', sshd.known_hosts]
    result = run(example('gather_results', 'echo hello', *hosts, *where))
    assert result.returncode == 1
    assert result.stdout == f'{hosts[0]}: status 0\nhello\n' * 2
    assert result.stderr.startswith(f'{absent}: ') and 'Cannot connect' in result.stderr


def test_redirect_file(sshd: Target, tmp_path: Path) -> None:
    content = os.urandom(1_000_000)
    (tmp_path / 'in').write_bytes(content)
    files = ['--input', tmp_path / 'in', '--output', tmp_path / 'out']
    result = run_client('redirect_file', sshd, 'echo hello >&2; cat; exit 5', *files)
    assert (result.returncode, result.stdout, result.stderr) == (5, '', 'hello\n')
    assert (tmp_path / 'out').read_bytes() == content

    result = run_client('redirect_file', sshd, 'cat', '--input', tmp_path / 'absent')
    assert result.returncode == 255
    assert result.stderr.startswith('Failed: ') and 'absent' in result.stderr


def test_redirect_local_pipe(sshd: Target) -> None:
    result = run_client('redirect_local_pipe', sshd, 'seq 100000', 'tail -n 1; echo err >&2')
    assert (result.returncode, result.stdout, result.stderr) == (0, '100000\n', 'err\n')

    # As with a pipe: what the other command does not read any more ends the first.
    result = run_client('redirect_local_pipe', sshd, 'yes', 'head -n 2')
    assert result.stdout == 'y\ny\n'


def test_redirect_remote_pipe(sshd: Target) -> None:
    address = f'{sshd.host}:{sshd.port}'
    where = ['--user', sshd.user, '--key', sshd.key, '--known-hosts', sshd.known_hosts]
    first, second = 'seq 200000', 'sort -n | tail -n 1; exit 4'
    result = run(example('redirect_remote_pipe', address, first, address, second, *where))
    assert (result.returncode, result.stdout, result.stderr) == (4, '200000\n', '')
    result = run(example('redirect_remote_pipe', address, 'yes', address, 'head -n 2', *where))
    assert (result.returncode, result.stdout, result.stderr) == (0, 'y\ny\n', '')


def test_sftp_get(sshd: Target, tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / 'source').write_bytes(content)
    (tmp_path / 'other').write_bytes(b'2')
    os.utime(tmp_path / 'source', (1e9, 1e9))

    result = run_client('sftp_get', sshd, tmp_path / 'source', tmp_path / 'target')
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'target').read_bytes() == content
    assert (tmp_path / 'target').stat().st_mtime == 1e9
    assert '300000 of 300000 bytes\n' in result.stderr

    (tmp_path / 'folder').mkdir()
    result = run_client('sftp_get', sshd, tmp_path / 'source', tmp_path / 'other', tmp_path / 'folder')
    assert result.returncode == 0, result.stderr
    assert {path.name for path in (tmp_path / 'folder').iterdir()} == {'source', 'other'}

    result = run_client('sftp_get', sshd, tmp_path / 'absent', tmp_path / 'folder')
    assert result.returncode == 1
    assert result.stderr.startswith(f'Failed: {tmp_path}/absent: ')


def test_scp_client(sshd: Target, tmp_path: Path) -> None:
    where = ['--port', sshd.port, '--user', sshd.user, '--key', sshd.key, '--known-hosts', sshd.known_hosts]
    (tmp_path / 'tree/below').mkdir(parents=True)
    (tmp_path / 'tree/below/file').write_bytes(b'content')

    result = run(example('scp_client', '--recurse', f'{sshd.host}:{tmp_path}/tree', tmp_path / 'copy', *where))
    assert (result.returncode, result.stderr) == (0, '')
    assert (tmp_path / 'copy/below/file').read_bytes() == b'content'

    result = run(example('scp_client', tmp_path / 'copy/below/file', f'{sshd.host}:{tmp_path}/sent', *where))
    assert (result.returncode, result.stderr) == (0, '')
    assert (tmp_path / 'sent').read_bytes() == b'content'

    result = run(example('scp_client', f'{sshd.host}:{tmp_path}/absent', tmp_path / 'got', *where))
    assert result.returncode == 1
    assert result.stderr.startswith(f'Failed: {tmp_path}/absent: ')


def test_sftp_put_tree(sshd: Target, tmp_path: Path) -> None:
    tree = tmp_path / 'tree'
    (tree / 'below').mkdir(parents=True)
    (tree / 'below/file').write_bytes(b'content')
    (tree / 'below/file').chmod(0o640)
    (tree / 'link').symlink_to('below/file')

    result = run_client('sftp_put_tree', sshd, tree, tmp_path / 'copy')
    assert (result.returncode, result.stderr) == (0, '')
    assert (tmp_path / 'copy/below/file').read_bytes() == b'content'
    assert (tmp_path / 'copy/below/file').stat().st_mode & 0o777 == 0o640
    assert os.readlink(tmp_path / 'copy/link') == 'below/file'


def test_sftp_put_tree_that_fails_in_part(sshd: Target, tmp_path: Path) -> None:
    tree = tmp_path / 'tree'
    tree.mkdir()
    (tree / 'good').write_bytes(b'content')
    (tree / 'bad').write_bytes(b'content')
    (tmp_path / 'copy/bad').mkdir(parents=True)    # a directory stands where the file should go

    result = run_client('sftp_put_tree', sshd, f'{tree}/.', tmp_path / 'copy')
    assert result.returncode == 1
    assert f'{tree}/./bad: ' in result.stderr or f'{tree}/bad: ' in result.stderr
    assert (tmp_path / 'copy/good').read_bytes() == b'content'


# --- servers, with our clients and OpenSSH's --------------------------------------------------------------------------


async def test_simple_server(ring: KeyRing, target_of: Callable[[int], Target]) -> None:
    with running('simple_server', '--host-key', ring.private('host-ed25519', 'ed25519'), '--user', 'anna') as port:
        where = {**target_of(port).connect_options(), 'username': 'anna', 'client_keys': None}

        async with ssh_fast.connect(**where, password=PASSWORD) as conn:
            result = await conn.run('a favour')
            assert (result.stdout, result.exit_status) == ('Hello anna, you asked for a favour.\n', 0)

        for wrong in ({'password': 'wrong'}, {'password': PASSWORD, 'username': 'bert'}):
            with pytest.raises(ssh_fast.PermissionDenied):
                await ssh_fast.connect(**{**where, **wrong})


def test_simple_keyed_server(keys: list[object], target_of: Callable[[int], Target]) -> None:
    with running('simple_keyed_server', *keys) as port:
        target = target_of(port)
        result = peers.ssh(target, 'sum', stdin=b'1\nx\n2.5\n').run()
        assert (result.stdout, result.stderr) == (b'3.5\n', "'x' is not a number\n")


def test_simple_cert_server(ring: KeyRing, target_of: Callable[[int], Target], tmp_path: Path) -> None:
    authority, host_key = ring.private('authority', 'ed25519'), ring.private('host-ed25519', 'ed25519')
    sign = ['ssh-keygen', '-q', '-s', str(authority)]
    user_keys = {}
    for name, signer in (('user', authority), ('other', authority), ('forged', ring.private('forger', 'ed25519'))):
        user_keys[name] = shutil.copy(ring.private(name, 'ed25519'), tmp_path / name)
        shutil.copy(ring.public(name, 'ed25519'), tmp_path / f'{name}.pub')
        principal = 'nobody' if name == 'other' else peers.user_name()
        peers.run_tool(*sign[:3], str(signer), '-I', name, '-n', principal, str(tmp_path / f'{name}.pub'))
    shutil.copy(ring.public('host-ed25519', 'ed25519'), tmp_path / 'host.pub')
    peers.run_tool(*sign, '-h', '-I', 'host', '-n', '127.0.0.1', str(tmp_path / 'host.pub'))
    files = ['--ca-keys', ring.public('authority', 'ed25519'), '--host-cert', tmp_path / 'host-cert.pub']

    with running('simple_cert_server', '--host-key', host_key, *files) as port:
        target = dataclasses.replace(target_of(port), key=Path(user_keys['user']))
        # The client knows the authority, not the server.
        public = ring.public('authority', 'ed25519').read_text()
        target.known_hosts.write_text(f'@cert-authority [127.0.0.1]:{port} {public}')
        result = peers.ssh(target, 'x').run()
        assert result.stdout == f'Hello {target.user}, your certificate is good.\n'.encode()

        for name in ('other', 'forged'):
            target = dataclasses.replace(target, key=Path(user_keys[name]))
            result = peers.ssh(target, 'x').run(check=False)
            assert result.status == 255 and 'Permission denied' in result.stderr


def test_callback_math_server(keys: list[object], target_of: Callable[[int], Target]) -> None:
    with running('callback_math_server', *keys) as port:
        target = target_of(port)
        result = peers.ssh(target, options=['RequestTTY=no'], stdin=b'1\nx\n2.5\n\n-1').run()
        assert (result.stdout, result.stderr) == (b'Numbers, one a line:\nTotal: 2.5\n', "'x' is not a number\n")
        assert peers.ssh(target, 'command').run(check=False).status == 255
        endless = peers.ssh(target, options=['RequestTTY=no'], stdin=b'1' * 100_000).run(check=False)
        assert (endless.status, endless.stderr) == (1, 'A line is too long\n')
        assert peers.ssh(target, options=['RequestTTY=force', 'EscapeChar=~'], stdin=b'4\r~B').run().status == 0


async def test_math_server(keys: list[object], target_of: Callable[[int], Target]) -> None:
    with running('math_server', *keys) as port:
        target = target_of(port)
        result = await peers.ssh(target, options=['RequestTTY=no'], stdin=b'1\nx\n2.5\n').run_async()
        assert (result.stdout, result.stderr) == (b'Numbers, one a line:\nTotal: 3.5\n', "'x' is not a number\n")

        async with (
            ssh_fast.connect(**target.connect_options()) as conn,
            conn.create_process(term_type='dumb') as process,
        ):
            seen = ''

            async def until(text: str) -> None:
                nonlocal seen
                while text not in seen:
                    seen += await asyncio.wait_for(process.stdout.read(1000), SECONDS)
                seen = seen.partition(text)[2]

            await until('one a line:')
            process.stdin.write('5\n')
            process.send_break(100)
            await until('So far: 5')
            process.change_terminal_size(90, 20)
            await until('90 columns and 20 lines')
            process.send_signal('INT')
            await until('From the beginning:')
            process.stdin.write('7\n')
            process.send_break(100)
            await until('So far: 7')
            process.terminate()
            await process.wait()
            assert process.exit_signal and process.exit_signal[0] == 'TERM'


def test_show_environment(
    keys: list[object], target_of: Callable[[int], Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('LC_COLOUR', 'blue')

    with running('show_environment', *keys) as port:
        target = target_of(port)
        result = peers.ssh(target, options=['SetEnv=ONE=1 TWO="2 3"']).run()
        assert result.stdout == b"ONE='1'\nTWO='2 3'\n"
        ours = run_client('set_environment', target, 'x', '--set', 'A=\x1bx', '--send', 'LC_COL*')
        assert (ours.returncode, ours.stdout) == (0, "A='\\x1bx'\nLC_COLOUR='blue'\n")


def test_show_terminal(keys: list[object], target_of: Callable[[int], Target]) -> None:
    with running('show_terminal', *keys) as port:
        target = target_of(port)
        result = peers.ssh(target, options=['RequestTTY=no']).run(check=False)
        assert (result.status, result.stderr) == (1, 'You asked for no terminal\n')

        with Terminal(peers.ssh(target, options=['RequestTTY=force']), 'vt220', (100, 30)) as terminal:
            terminal.until("Terminal 'vt220': 100 columns, 30 lines")
            terminal.resize(120, 40)
            terminal.until('Now 120 columns, 40 lines')
            terminal.resize(60, 10)
            terminal.until('Now 60 columns, 10 lines')
            terminal.write(b'\r~.')
        assert terminal.status == 255


def test_line_editor_server(keys: list[object], target_of: Callable[[int], Target]) -> None:
    with running('line_editor_server', *keys) as port:
        target = target_of(port)
        assert 'ssh -t' in peers.ssh(target, options=['RequestTTY=no']).run(check=False).stderr

        with Terminal(peers.ssh(target, options=['RequestTTY=force']), 'xterm', (80, 24)) as terminal:
            terminal.until('> ')
            # Completed; then to the begin, four to the right, and the rest away
            terminal.write(b'ad\tmilk\x01\x1b[C\x1b[C\x1b[C\x1b[C\x0bbread\r')
            terminal.until('> ')
            terminal.write(b'\x1b[A, butter\r')    # the line before again
            terminal.until('> ')
            terminal.write(b'hide\r')
            terminal.until('Not shown: ')
            terminal.write(b'secret\r')
            assert 'secret' not in terminal.until('> ')
            terminal.write(b'list\r')
            terminal.until('1. bread\r\n2. bread, butter\r\n3. secret\r\n> ')
            terminal.write(b'quit\r')
        assert terminal.status == 0


def test_redirect_server(keys: list[object], target_of: Callable[[int], Target]) -> None:
    with running('redirect_server', *keys, '--', 'sh', '-c', 'cat; echo err >&2; exit 6') as port:
        target = target_of(port)
        content = os.urandom(300_000)
        result = peers.ssh(target, 'something else', stdin=content).run(check=False)
        assert (result.status, result.stdout, result.stderr) == (6, content, 'err\n')

    with running('redirect_server', *keys, '--', 'sh', '-c', 'echo $$; exec sleep 1000') as port:
        with Conversation(peers.ssh(target_of(port), 'x')) as client:
            client.until('\n')
            child = next(pid for pid in children() if Path(f'/proc/{pid}/comm').read_text() == 'sleep\n')
            client.kill()
        for _ in range(200):
            if child not in children():
                break
            time.sleep(0.05)
        else:
            pytest.fail('the program outlives its client')


def test_chat_server(keys: list[object], target_of: Callable[[int], Target]) -> None:
    with running('chat_server', *keys) as port:
        target = target_of(port)
        with Conversation(peers.ssh(target, options=['RequestTTY=no'])) as first:
            first.until('0 others are here')
            second = Conversation(peers.ssh(target, options=['RequestTTY=no']))
            with second:
                second.until('1 others are here')
                first.until(f'{target.user} comes')
                second.write(b'hello \x1b[31mthere\n')
                first.until(f'{target.user}: hello [31mthere\n')
                second.write(None)
            first.until(f'{target.user} goes')
            first.write(None)
        assert (first.status, second.status) == (0, 0)


async def test_keyed_server_refuses_other_keys(
    ring: KeyRing, keys: list[object], target_of: Callable[[int], Target]
) -> None:
    stranger = str(ring.private('stranger', 'ed25519'))

    with running('simple_keyed_server', *keys) as port:
        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(**target_of(port).connect_options(client_keys=[stranger]))


def test_sftp_server(keys: list[object], target_of: Callable[[int], Target], tmp_path: Path) -> None:
    folder = tmp_path / 'served'
    folder.mkdir()
    (folder / 'file').write_bytes(b'content')
    (tmp_path / 'secret').write_bytes(b'secret')

    with running('sftp_server', folder, *keys) as port:
        target = target_of(port)
        peers.sftp(target, f'get /file {tmp_path}/got', f'put {tmp_path}/got /sent').run()
        assert (tmp_path / 'got').read_bytes() == (folder / 'sent').read_bytes() == b'content'
        assert peers.sftp(target, f'get /../secret {tmp_path}/stolen').run(check=False).status != 0
        assert not (tmp_path / 'stolen').exists()
        peers.scp(target, 'remote:/file', str(tmp_path / 'copied'), sftp_mode=False).run()
        assert (tmp_path / 'copied').read_bytes() == b'content'


def test_read_only_sftp_server(keys: list[object], target_of: Callable[[int], Target], tmp_path: Path) -> None:
    folder = tmp_path / 'served'
    folder.mkdir()
    (folder / 'file').write_bytes(b'content')

    with running('sftp_server', folder, '--read-only', *keys) as port:
        target = target_of(port)
        peers.sftp(target, f'get /file {tmp_path}/got').run()
        assert (tmp_path / 'got').read_bytes() == b'content'

        for change in (
            f'put {tmp_path}/got /file',
            f'put {tmp_path}/got /new',
            'rm /file',
            'mkdir /d',
            'chmod 600 /file',
            'rename /file /other',
            'ln -s /file /link',
            'ln /file /link',
        ):
            result = peers.sftp(target, change).run(check=False)
            assert result.status != 0, change

        assert peers.scp(target, str(tmp_path / 'got'), 'remote:/new', sftp_mode=False).run(check=False).status != 0
        assert [path.name for path in folder.iterdir()] == ['file']
        assert (folder / 'file').read_bytes() == b'content'


@contextlib.contextmanager
def web() -> Iterator[int]:
    """A web server."""
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def head(port: int) -> str:
    with socket.create_connection(('127.0.0.1', port), SECONDS) as sock:
        sock.sendall(b'HEAD / HTTP/1.0\r\n\r\n')
        return sock.makefile('rb').read().decode()


def where(target: Target) -> list[object]:
    return ['--port', target.port, '--user', target.user, '--key', target.key, '--known-hosts', target.known_hosts]


@pytest.mark.parametrize('name', ['local_forwarding_client', 'remote_forwarding_client'])
def test_forwarding_clients(sshd: Target, name: str) -> None:
    with web() as port, running(name, sshd.host, '127.0.0.1', port, *where(sshd)) as listening:
        assert 'SimpleHTTP' in head(listening)


@pytest.mark.parametrize('name', ['direct_client', 'stream_direct_client'])
def test_direct_clients(sshd: Target, name: str) -> None:
    with web() as port:
        result = run_client(name, sshd, '127.0.0.1', port)
        assert 'SimpleHTTP' in result.stdout and (result.returncode, result.stderr) == (0, '')
    result = run_client(name, sshd, '127.0.0.1', peers.free_port())
    assert result.returncode == 1 and 'Failed: ' in result.stderr


@pytest.mark.parametrize(('origin', 'taken'), [('127.0.0.1', True), ('127.0.0.2', False)])
def test_choosing_forwarding_client(sshd: Target, origin: str, taken: bool) -> None:
    with web() as port:
        away = (sshd.host, '127.0.0.1', port, '--from', origin, *where(sshd))
        with running('choosing_forwarding_client', *away) as listening:
            try:
                got = head(listening)
            except ConnectionResetError:
                got = ''
            assert ('SimpleHTTP' in got) is taken


def echoed(port: int, data: bytes) -> bytes:
    """Return what comes back from a port; sent and read at once, as nobody holds it all."""
    with socket.create_connection(('127.0.0.1', port), SECONDS) as sock:

        def send() -> None:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        sending = threading.Thread(target=send)
        sending.start()
        got = sock.makefile('rb').read()
        sending.join()
        return got


@pytest.mark.parametrize('name', ['listening_client', 'stream_listening_client'])
def test_listening_clients(sshd: Target, name: str) -> None:
    data = random.Random(0).randbytes(8 << 20)
    with running(name, sshd.host, *where(sshd)) as listening:
        for sent in (b'', b'hello', data):
            assert echoed(listening, sent) == sent


def openssh_to(target: Target, place: str, stdin: bytes) -> peers.Result:
    """Connect to a place through a server by `ssh -W`."""
    command = peers.ssh(target, stdin=stdin)
    return Command([*command.argv[:-1], '-W', place, command.argv[-1]], stdin).run(check=False)


def test_local_forwarding_server(keys: list[object], target_of: Callable[[int], Target]) -> None:
    with web() as port, running('local_forwarding_server', *keys, '--open', port) as number:
        target = target_of(number)
        assert b'SimpleHTTP' in openssh_to(target, f'127.0.0.1:{port}', b'HEAD / HTTP/1.0\r\n\r\n').stdout
        refused = openssh_to(target, '127.0.0.1:1', b'')
        assert refused.status != 0 and 'administratively prohibited' in refused.stderr
        away = (target.host, '127.0.0.1', port, *where(target))
        assert run(example('remote_forwarding_client', *away)).returncode == 1


def test_remote_forwarding_server(keys: list[object], target_of: Callable[[int], Target]) -> None:
    listen = peers.free_port()
    with web() as port, running('remote_forwarding_server', *keys, '--listen', listen) as number:
        target = target_of(number)
        away = (target.host, '127.0.0.1', port, *where(target))
        with running('remote_forwarding_client', '--listen', listen, *away) as listening:
            assert listening == listen and 'SimpleHTTP' in head(listening)
        refused = run(example('remote_forwarding_client', *away))
        assert refused.returncode == 1 and 'does not listen' in refused.stderr
        assert openssh_to(target, f'127.0.0.1:{port}', b'').status != 0


@pytest.mark.parametrize('name', ['direct_server', 'stream_direct_server'])
def test_direct_servers(keys: list[object], target_of: Callable[[int], Target], name: str) -> None:
    data = random.Random(0).randbytes(8 << 20)
    with running(name, *keys) as number:
        target = target_of(number)
        for sent in (b'', b'hello', data):
            assert openssh_to(target, 'anywhere:7', sent).stdout == sent
        refused = openssh_to(target, 'anywhere:8', b'')
        assert refused.status != 0 and 'Only port 7 is served' in refused.stderr


def test_reverse_client_and_server(ring: KeyRing, keys: list[object], tmp_path: Path) -> None:
    known = tmp_path / 'known_hosts'
    known.write_text(f'127.0.0.1 {ring.public("host-ed25519", "ed25519").read_text()}')
    login = ('--user', 'somebody', '--key', ring.private('user', 'ed25519'), '--known-hosts', known)
    client = subprocess.Popen(
        example('reverse_client', 'echo hello; exit 3', '--port', 0, *login),
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert client.stdout
    try:
        port = client.stdout.readline().split()[-1]
        for _ in range(2):
            result = run(example('reverse_server', '127.0.0.1', '--port', port, *keys))
            assert (result.returncode, result.stdout, result.stderr) == (0, 'somebody is logged in\n', '')
            assert [client.stdout.readline() for _ in range(2)] == ['hello\n', 'Exit status 3\n']
        stranger = ('--host-key', ring.private('stranger', 'ed25519'), *keys[2:])
        result = run(example('reverse_server', '127.0.0.1', '--port', port, *stranger))
        assert result.returncode == 1 and 'Failed: ' in result.stderr
    finally:
        client.send_signal(signal.SIGINT)
        assert client.wait(SECONDS) == 0


def test_all_examples_are_run_and_listed() -> None:
    # The shell server needs more than its lines here.
    text = ''.join((ROOT / 'tests' / name).read_text() for name in ('test_examples.py', 'interop/test_shell_server.py'))
    names = {path.stem for path in EXAMPLES.glob('*.py')}
    assert [name for name in names - {'demo'} if not re.search(rf"'{name}'|/{name}\.py'", text)] == []
    assert set(re.findall(r'^\| `(\w+)\.py`', (EXAMPLES / 'README.md').read_text(), re.MULTILINE)) == names
