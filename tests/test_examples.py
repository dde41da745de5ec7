"""Every example is a program that runs: a newcomer's first commands must work, and end with the right status."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ssh_fast
from tests.interop import peers
from tests.interop.peers import KeyRing, OpenSSHServer, PeerMissing, Target, make_target

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

        assert [path.name for path in folder.iterdir()] == ['file']
        assert (folder / 'file').read_bytes() == b'content'


def test_all_examples_are_run() -> None:
    text = Path(__file__).read_text()
    unused = [path.stem for path in EXAMPLES.glob('*.py') if path.stem != 'demo' and f"'{path.stem}'" not in text]
    assert unused == []
