"""The name `asyncssh` for the package, in processes of their own: an alias is for a whole program."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from ssh_fast.asyncssh_config import SSHClientConfig

ROOT = Path(__file__).resolve().parents[2]
BEFORE = 'import ssh_fast; ssh_fast.install_as_asyncssh()\n'


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, '-c', dedent(program), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def shows(program: str, *arguments: str) -> str:
    done = run(BEFORE + dedent(program), *arguments)
    assert (done.returncode, done.stderr) == (0, '')
    return done.stdout.strip()


def test_names_and_modules_are_ours() -> None:
    program = """
        import asyncssh, asyncssh.misc, asyncssh.connection, asyncssh.stream
        from asyncssh import connect, SFTPClient
        from asyncssh.sftp import _MAX_SFTP_REQUESTS, SFTPNoSuchFile, FILEXFER_TYPE_REGULAR
        from asyncssh.packet import String, UInt32
        from asyncssh.config import SSHClientConfig
        ssh_fast.install_as_asyncssh()    # a second time changes nothing
        assert connect is asyncssh.connection.connect is ssh_fast.connect
        assert asyncssh.misc.PermissionDenied is ssh_fast.PermissionDenied
        assert asyncssh.__version__ == '2.24.1' and asyncssh.__url__ == ''
        assert String('ab') + UInt32(1) == b'\\0\\0\\0\\2ab\\0\\0\\0\\1'
        assert SFTPNoSuchFile is ssh_fast.SFTPNoSuchFile and SFTPClient is ssh_fast.SFTPClient
        assert set(ssh_fast.__all__) <= set(dir(asyncssh))
        names = {}
        exec('from asyncssh import *', names)
        assert names['listen'] is ssh_fast.listen
        print(_MAX_SFTP_REQUESTS, FILEXFER_TYPE_REGULAR)
    """
    assert shows(program) == '128 1'


@pytest.mark.parametrize(
    ('statement', 'error'),
    [
        ('import asyncssh.keys', "ModuleNotFoundError: No module named 'asyncssh.keys'"),
        ('import asyncssh.endpoints', "ModuleNotFoundError: No module named 'asyncssh.endpoints'"),
        ('from asyncssh.sftp import SFTPServerHandler', "ImportError: cannot import name 'SFTPServerHandler'"),
        ('import asyncssh; asyncssh.endpoints', 'AttributeError: asyncssh: ssh_fast has no endpoints'),
    ],
)
def test_what_is_not_there_is_an_error(statement: str, error: str) -> None:
    assert error in run(BEFORE + statement).stderr


def test_real_asyncssh_was_imported_before(tmp_path: Path) -> None:
    (tmp_path / 'asyncssh.py').write_text('connect = None\n')
    program = f'import sys; sys.path.insert(0, {str(tmp_path)!r}); import asyncssh\n' + BEFORE
    assert f'RuntimeError: install_as_asyncssh: AsyncSSH is imported already, from {tmp_path}' in run(program).stderr


def test_program_written_for_asyncssh() -> None:
    program = """
        import asyncio, asyncssh, tempfile
        from asyncssh.sftp import SFTPNoSuchFile

        class Server(asyncssh.SSHServer):
            def begin_auth(self, username):
                return False

        async def main():
            key = asyncssh.generate_private_key('ssh-ed25519')
            async with asyncssh.listen('127.0.0.1', 0, server_factory=Server, server_host_keys=[key],
                                       process_factory=lambda process: process.exit(3), sftp_factory=True) as server:
                async with asyncssh.connect('127.0.0.1', server.get_port(), known_hosts=None, config=None) as conn:
                    print((await conn.run('x')).exit_status)
                    async with conn.start_sftp_client() as sftp:
                        try:
                            await sftp.stat('/no/such/file')
                        except SFTPNoSuchFile as exc:
                            print(type(exc).__name__)

        asyncio.run(main())
    """
    assert shows(program) == '3\nSFTPNoSuchFile'


# --- ssh_config ------------------------------------------------------------------------------------------------------


def load(paths: object, **changed: object) -> SSHClientConfig:
    named = {'local_user': 'me', 'user': (), 'host': 'base', 'port': (), **changed}
    return SSHClientConfig.load(None, paths, False, False, False, *named.values())    # type: ignore[arg-type]


def test_configuration_of_a_host(tmp_path: Path) -> None:
    path = tmp_path / 'config'
    path.write_text(
        'Host base\n HostName Base.example.org\n Port 222\n IdentityFile ~/.ssh/%u_key\n IdentityFile b\n'
        ' ProxyCommand nc %h %p\n ForwardX11 yes\nMatch user other\n User never\n'
    )
    config = load(path)
    assert config.get('Hostname') == 'base.example.org'
    assert config.get('port') == 222
    assert config.get('IdentityFile') == ['~/.ssh/me_key', 'b']
    assert config.get('ProxyCommand') == 'nc base.example.org 222'
    assert config.get('User') is None
    assert config.get('Compression', 'none') == 'none'
    assert load([path], host='elsewhere').get('HostName') is None
    assert load([str(path)], user='other', port=5).get('ProxyCommand') == 'nc base.example.org 5'


def test_no_files_keep_what_there_was(tmp_path: Path) -> None:
    (tmp_path / 'config').write_text('Port 7\n')
    before = load(tmp_path / 'config')
    assert SSHClientConfig.load(before, None, False, False, False, 'me', (), 'h', ()) is before
    assert load(None).get('Port', 1) == 1
