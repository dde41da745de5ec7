"""The example's shell server, driven by OpenSSH's client on a terminal: real programs, resizing, signals, hang-ups."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.interop import peers
from tests.interop.peers import KeyRing, Target, make_target

ROOT = Path(__file__).resolve().parent.parent.parent
PROMPT = 'prompt> '
SECONDS = 30


@pytest.fixture(scope='module')
def server(key_ring: KeyRing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Target, int]]:
    """The server's target and its process; in the end it must have left nothing and said nothing."""
    arguments = [
        *('--port', '0', '--kill-after', '1', '--shell', shutil.which('bash') or '/bin/bash'),
        *('--host-key', key_ring.private('host-ed25519', 'ed25519')),
        *('--authorized-keys', key_ring.public('user', 'ed25519')),
    ]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / 'examples/shell_server.py'), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**peers.plain_environment(), 'PYTHONPATH': str(ROOT), 'HOME': str(tmp_path_factory.mktemp('home'))},
    )
    assert process.stdout
    try:
        line = process.stdout.readline()
        assert line.startswith('Listening on port '), process.communicate()
        folder = tmp_path_factory.mktemp('shell')
        yield make_target(key_ring, folder, int(line.split()[-1]), [key_ring.public('host-ed25519')]), process.pid
        assert children(process.pid) == []
    finally:
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
    assert (process.returncode, errors) == (0, '')


@pytest.fixture
def target(server: tuple[Target, int]) -> Target:
    return server[0]


@pytest.fixture
def terminal(target: Target) -> Iterator[Callable[..., Any]]:
    """Starts `ssh -tt` on a terminal."""
    with contextlib.ExitStack() as stack:

        def start(*command: str, size: tuple[int, int] = (24, 80), modes: str = 'iutf8') -> Any:
            client = peers.ssh(target, *command, options=['RequestTTY=force', 'EscapeChar=none', 'SendEnv=LC_*'])
            child = pexpect.spawn(
                client.argv[0],
                list(client.argv[1:]),
                env={**peers.plain_environment(), 'TERM': 'xterm', 'LC_ALL': 'C.UTF-8'},
                dimensions=size,
                preexec_fn=lambda: os.system(f'stty {modes}'),
                timeout=SECONDS,
                encoding='utf-8',
            )
            stack.callback(child.close, force=True)
            return child

        yield start


@pytest.fixture
def shell(terminal: Callable[..., Any]) -> Any:
    """A login shell at its prompt."""
    child = terminal()
    child.sendline("PROMPT_COMMAND= PS1='pro''mpt> '; bind 'set enable-bracketed-paste off'")
    child.expect_exact(PROMPT)
    return child


def run(shell: Any, command: str) -> str:
    """Run a command in the shell; return what it printed."""
    shell.sendline(command)
    shell.expect_exact(PROMPT)
    return str(shell.before.partition('\r\n')[2])


def end(child: Any) -> int | None:
    """Wait until the client has ended, and return its status."""
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus


def needs(program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f'{program} is not installed')


def children(pid: int) -> list[str]:
    """Describe the children of a process, zombies too, once those that are about to go have gone."""
    give_up = time.monotonic() + SECONDS
    while True:
        found = []
        for stat in Path('/proc').glob('[0-9]*/stat'):
            with contextlib.suppress(OSError):
                name, _, fields = stat.read_text().rpartition(')')
                if int(fields.split()[1]) == pid:
                    found.append(f'{name}){fields[:20]}')
        if not found or time.monotonic() > give_up:
            return found
        time.sleep(0.05)


def wait_until_gone(pid: int) -> None:
    give_up = time.monotonic() + SECONDS
    while time.monotonic() < give_up:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError(f'process {pid} is still there')


def test_login_shell(shell: Any) -> None:
    assert run(shell, 'echo $((6*7)); shopt -q login_shell && echo login') == '42\r\nlogin\r\n'
    assert run(shell, 'tty; echo "$TERM $SSH_TTY" | tr -d "\\n"').startswith('/dev/')
    assert run(shell, 'printf "é日\\n"') == 'é日\r\n'
    shell.sendline('exit 7')
    assert end(shell) == 7


def test_there_is_a_controlling_terminal_of_its_own(shell: Any) -> None:
    assert run(shell, 'echo to the terminal > /dev/tty') == 'to the terminal\r\n'
    assert run(shell, 'set -o | grep monitor').split() == ['monitor', 'on']
    assert run(shell, 'sleep 60 & jobs; kill %1; wait %1').count('Terminated') == 1


def test_modes_are_applied(terminal: Callable[..., Any]) -> None:
    child = terminal('stty -a', modes='iutf8 -echoctl intr ^G eof undef')
    child.expect(pexpect.EOF)
    words = child.before.split()
    assert 'iutf8' in words and '-echoctl' in words and 'icanon' in words
    assert 'intr = ^G;' in child.before and 'eof = <undef>;' in child.before


def test_the_size_and_its_changes(terminal: Callable[..., Any]) -> None:
    # A signal that comes while bash runs its trap is lost, so the trap is short.
    loop = 'while :; do if test -n "$told"; then told=; stty size; fi; sleep 0.05; done'
    child = terminal(f'stty size; trap told=1 WINCH; echo ready; {loop}', size=(30, 100))
    child.expect('30 100\r\n')
    child.expect('ready')
    child.setwinsize(43, 132)
    child.expect('43 132\r\n')
    child.setwinsize(10, 20)
    child.expect('10 20\r\n')
    child.send('\x03')
    assert end(child) == 255    # SIGINT, which OpenSSH's client doesn't name


def test_vim_edits_a_file(shell: Any, tmp_path: Path) -> None:
    needs('vim')
    path = tmp_path / 'text'
    path.write_text('one\ntwo\nthree\n')
    shell.sendline(f'vim -u NONE -N -n {path}')
    shell.expect_exact('three')
    shell.send('ggdd')
    shell.send('ofour é\x1b')
    shell.expect_exact('four')
    shell.send(':wq\r')
    shell.expect_exact(PROMPT)
    assert path.read_text() == 'two\nfour é\nthree\n'
    assert run(shell, 'echo still here') == 'still here\r\n'


def test_vim_is_told_of_a_new_size(shell: Any) -> None:
    needs('vim')
    shell.sendline('vim -u NONE -N -n')
    shell.expect('~')
    shell.setwinsize(31, 117)
    shell.send(':redraw | echo "size" &lines &columns\r')
    shell.expect('size 31 117')
    shell.send(':q!\r')
    shell.expect_exact(PROMPT)


def test_top_draws_and_quits(shell: Any) -> None:
    needs('top')
    shell.sendline('top -d 60')
    shell.expect('load average')
    shell.expect('PID')
    shell.send('q')
    shell.expect_exact(PROMPT)
    assert run(shell, 'echo $?') == '0\r\n'


def test_control_c_interrupts(shell: Any) -> None:
    shell.sendline('echo sl""eeping; sleep 600')
    shell.expect_exact('sleeping')
    shell.send('\x03')
    shell.expect_exact(PROMPT)
    assert run(shell, 'echo $?') == '130\r\n'
    shell.send('\x04')
    assert end(shell) == 0


def test_control_z_and_a_soft_end_of_file(shell: Any) -> None:
    shell.sendline('cat; echo ca""t ended')
    shell.send('a line\r')
    shell.expect_exact('a line\r\na line\r\n')
    shell.send('\x04')
    shell.expect_exact('cat ended')
    shell.expect_exact(PROMPT)
    shell.sendline('sleep 600')
    shell.send('\x1a')
    shell.expect_exact('Stopped')
    shell.expect_exact(PROMPT)
    assert run(shell, 'kill %1; wait 2>&1 | cat; echo done').endswith('done\r\n')


def test_a_hang_up_ends_the_process_group(terminal: Callable[..., Any], server: tuple[Target, int]) -> None:
    child = terminal('sleep 601 & echo "pids $$ $!"; sleep 602')
    child.expect(r'pids (\d+) (\d+)\r\n')
    pids = [int(child.match[1]), int(child.match[2])]
    os.kill(child.pid, signal.SIGKILL)
    for pid in pids:
        wait_until_gone(pid)
    assert children(server[1]) == []


def test_a_hang_up_that_is_ignored(terminal: Callable[..., Any], server: tuple[Target, int]) -> None:
    child = terminal("trap '' HUP; echo \"pid $$\"; while :; do sleep 0.2; done")
    child.expect(r'pid (\d+)\r\n')
    pid = int(child.match[1])
    child.close(force=True)
    wait_until_gone(pid)
    assert children(server[1]) == []


def test_much_output_arrives_whole(terminal: Callable[..., Any]) -> None:
    child = terminal('seq 100000; echo the end; exit 3')
    child.expect_exact('the end\r\n')
    assert child.before == ''.join(f'{number}\r\n' for number in range(1, 100_001))
    assert end(child) == 3


# --- without a terminal


def test_a_command_without_a_terminal(target: Target) -> None:
    result = peers.ssh(target, 'cat; echo errors >&2; exit 9', stdin=bytes(range(256)) * 10_000).run(check=False)
    assert (result.status, result.stdout, result.stderr) == (9, bytes(range(256)) * 10_000, 'errors\n')


def test_a_command_that_a_signal_ends(target: Target) -> None:
    result = peers.ssh(target, 'kill -9 $$').run(check=False)
    assert (result.status, result.stdout) == (255, b'')


def test_a_command_that_does_not_read(target: Target) -> None:
    assert peers.ssh(target, 'exec <&-; exit 4', stdin=bytes(5_000_000)).run(check=False).status == 4


def test_a_hang_up_without_a_terminal(target: Target, server: tuple[Target, int]) -> None:
    command = peers.ssh(target, 'echo $$; exec sleep 603')
    process = subprocess.Popen(command.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout
    pid = int(process.stdout.readline())
    process.kill()
    process.communicate()
    wait_until_gone(pid)
    assert children(server[1]) == []


def test_another_user_gets_no_shell(target: Target) -> None:
    result = peers.ssh(target, 'true', options=['User=nobody']).run(check=False)
    assert result.status == 255
    assert 'Session refused' in result.stderr or 'open failed' in result.stderr
