"""The facade without `async`, with OpenSSH's sshd; calls come from threads, notebooks' loops, and are interrupted."""

import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import ssh_fast
from ssh_fast import sync
from tests.interop.peers import Target

ROOT = Path(__file__).resolve().parents[2]


def test_run(target: Target) -> None:
    with sync.connect(**target.connect_options()) as conn:
        done = conn.run('read x; echo "got $x"; exit 3', input='this\n')
        assert (done.stdout, done.exit_status) == ('got this\n', 3)
        assert conn.get_extra_info('username') == target.user
        with pytest.raises(ssh_fast.ProcessError):
            conn.run('false', check=True)
    assert conn.is_closed()
    assert sync.run(command='echo once', **target.connect_options()).stdout == 'once\n'


def test_sftp(target: Target, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / 'source').write_bytes(content)
    seen: list[int] = []
    with sync.sftp(**target.connect_options()) as session:
        remote = str(tmp_path / 'remote')
        session.makedirs(f'{remote}/a')
        session.put(tmp_path / 'source', f'{remote}/a/b', progress_handler=lambda *args: seen.append(args[2]))
        session.get(f'{remote}/a/b', str(tmp_path / 'back'))
        assert sorted(session.listdir(f'{remote}/a')) == ['.', '..', 'b']
        with session.open(f'{remote}/t', 'w+') as file:
            assert file.write('text ä') == 7
            file.seek(0)
            assert file.read() == 'text ä'
        assert session.stat(f'{remote}/t').size == 7
        with pytest.raises(ssh_fast.SFTPNoSuchFile):
            session.stat(f'{remote}/none')
        session.rmtree(remote)
        assert not session.exists(remote)
    assert (tmp_path / 'back').read_bytes() == content
    assert seen[-1] == len(content)


def test_scp_and_forwarding(target: Target, tmp_path: Path) -> None:
    (tmp_path / 'source').write_bytes(b'by scp')
    with sync.connect(**target.connect_options()) as conn:
        sync.scp(str(tmp_path / 'source'), (conn, str(tmp_path / 'copy')))
        with conn.forward_local_port('127.0.0.1', 0, target.host, target.port) as listener:
            options = target.connect_options(port=listener.get_port(), known_hosts=None)
            assert sync.run(command='echo inside', **options).stdout == 'inside\n'
        with sync.connect(**target.connect_options(tunnel=conn)) as inner:
            assert inner.run('echo jumped').stdout == 'jumped\n'
    assert (tmp_path / 'copy').read_bytes() == b'by scp'


async def test_within_a_running_loop(target: Target) -> None:
    with sync.connect(**target.connect_options()) as conn:
        assert conn.run('echo notebook').stdout == 'notebook\n'


def test_many_threads(target: Target) -> None:
    results: list[str] = []
    with sync.connect(**target.connect_options()) as conn:
        threads = [threading.Thread(target=lambda i=i: results.append(conn.run(f'echo {i}').stdout)) for i in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(results) == [f'{i}\n' for i in range(5)]


def test_handler_that_calls_back_is_refused(target: Target, tmp_path: Path) -> None:
    (tmp_path / 'source').write_bytes(b'x')
    with sync.sftp(**target.connect_options()) as session:
        with pytest.raises(RuntimeError, match='in its own event loop'):
            session.put(
                str(tmp_path / 'source'), str(tmp_path / 'to'), progress_handler=lambda *_: session.getcwd()
            )


def test_errors_of_connecting(target: Target) -> None:
    with pytest.raises(ssh_fast.HostKeyNotVerifiable):
        sync.connect(**target.connect_options(known_hosts=([], [], [])))
    with pytest.raises(OSError):
        sync.connect('127.0.0.1', 1, config=None)


def test_methods_look_like_those_that_are_awaited() -> None:
    assert inspect.signature(sync.SFTP.get) == inspect.signature(ssh_fast.SFTPClient.get)
    assert sync.SFTP.get.__doc__ == ssh_fast.SFTPClient.get.__doc__


def test_interrupt_cancels_and_leaves_the_connection_usable(target: Target) -> None:
    program = f"""
from ssh_fast import sync
with sync.connect(**{target.connect_options()!r}) as conn:
    try:
        print('ready', flush=True)
        conn.run('sleep 100')
    except KeyboardInterrupt:
        print(conn.run('echo still here').stdout, end='', flush=True)
"""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-c', program]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == 'ready\n'
        time.sleep(0.5)    # let it get into `run`; earlier is as good, but tests less
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[0] == 'still here\n'
    assert process.returncode == 0


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='there is no fork')
def test_child_process_has_a_loop_of_its_own(target: Target) -> None:
    program = f"""
import os
from ssh_fast import sync
options = {target.connect_options()!r}
assert sync.run(command='echo parent', **options).stdout == 'parent\\n'
child = os.fork()
if child == 0:
    os._exit(0 if sync.run(command='echo child', **options).stdout == 'child\\n' else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    subprocess.run([sys.executable, '-c', program], env=environment, check=True, timeout=60)
