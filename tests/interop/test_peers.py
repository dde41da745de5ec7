"""The harness itself: every peer works with another peer on this machine, so that a failure elsewhere is ours."""

import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncssh
import pytest

from tests.interop import peers
from tests.interop.paramiko_peer import paramiko_client
from tests.interop.peers import CommandFailed, OpenSSHServer, PeerMissing, Target

CONTENT = bytes(range(256)) * 1200


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / 'source'
    path.write_bytes(CONTENT)
    return path


def test_ssh_runs_a_command(openssh_server: OpenSSHServer) -> None:
    result = peers.ssh(openssh_server.target, 'cat; exit 3', stdin=b'some data').run(check=False)
    assert (result.status, result.stdout) == (3, b'some data')


def test_commands_run_in_an_empty_home(openssh_server: OpenSSHServer) -> None:
    assert peers.ssh(openssh_server.target, 'ls -A "$HOME"; basename "$HOME"').run().stdout == b'home\n'


def test_host_key_is_checked(openssh_server: OpenSSHServer, tmp_path: Path) -> None:
    ring = peers.KeyRing(tmp_path)
    stranger = peers.make_target(
        ring, tmp_path, openssh_server.target.port, [ring.public('other', 'ed25519')], key=openssh_server.target.key
    )
    with pytest.raises(CommandFailed, match=r'Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED'):
        peers.ssh(stranger, 'true').run()


def test_user_key_is_checked(openssh_server: OpenSSHServer, key_ring: peers.KeyRing, tmp_path: Path) -> None:
    options = [f'IdentityFile={key_ring.private("nobody", "ed25519")}']
    target = openssh_server.target
    other = Target(target.port, key_ring.private('nobody'), target.known_hosts, target.host_key, tmp_path)
    with pytest.raises(CommandFailed, match='Permission denied'):
        peers.ssh(other, 'true', options=options).run()


COPIES: dict[str, Callable[[Target, Path, Path], peers.Command]] = {
    'sftp': lambda target, source, copy: peers.sftp(target, f'put {source} {copy}'),
    'scp': lambda target, source, copy: peers.scp(target, str(source), f'remote:{copy}'),
    'scp-old': lambda target, source, copy: peers.scp(target, str(source), f'remote:{copy}', sftp_mode=False),
    'dbclient': lambda target, source, copy: peers.dbclient(target, f'cat > {copy}', stdin=source.read_bytes()),
    'rclone': lambda target, source, copy: peers.rclone(target, 'copyto', str(source), f':sftp:{copy}'),
    'lftp': lambda target, source, copy: peers.lftp(target, f'put {source} -o {copy}'),
    'psftp': lambda target, source, copy: peers.psftp(target, f'put {source} {copy}'),
}


@pytest.mark.parametrize('client', COPIES)
def test_client_uploads_to_openssh(client: str, openssh_server: OpenSSHServer, source: Path, tmp_path: Path) -> None:
    copy = tmp_path / 'copy'
    COPIES[client](openssh_server.target, source, copy).run()
    assert copy.read_bytes() == CONTENT


# AsyncSSH's server ends the subsystem without a status, which scp takes for a failure, and refuses what rclone sends.
@pytest.mark.parametrize('client', ['sftp', 'lftp', 'psftp'])
async def test_client_uploads_to_asyncssh(client: str, asyncssh_target: Target, source: Path, tmp_path: Path) -> None:
    copy = tmp_path / 'copy'
    await COPIES[client](asyncssh_target, source, copy).run_async()
    assert copy.read_bytes() == CONTENT


async def test_asyncssh_downloads_from_openssh(openssh_server: OpenSSHServer, source: Path, tmp_path: Path) -> None:
    async with (
        asyncssh.connect(**openssh_server.target.connect_options()) as connection,
        connection.start_sftp_client() as sftp,
    ):
        await sftp.get(str(source), str(tmp_path / 'copy'))
    assert (tmp_path / 'copy').read_bytes() == CONTENT


def test_paramiko_downloads_from_openssh(openssh_server: OpenSSHServer, source: Path, tmp_path: Path) -> None:
    with paramiko_client(openssh_server.target) as client, client.open_sftp() as sftp:
        sftp.get(str(source), str(tmp_path / 'copy'))
    assert (tmp_path / 'copy').read_bytes() == CONTENT


def test_openssh_works_with_paramiko(paramiko_target: Target, source: Path, tmp_path: Path) -> None:
    batch = [
        f'put {source} {tmp_path}/copy',
        f'get {tmp_path}/copy {tmp_path}/again',
        f'mkdir {tmp_path}/folder',
        f'rename {tmp_path}/copy {tmp_path}/folder/copy',
        f'ls -l {tmp_path}/folder',
        f'chmod 600 {tmp_path}/folder/copy',
    ]
    assert b'copy' in peers.sftp(paramiko_target, *batch).run().stdout
    assert (tmp_path / 'again').read_bytes() == (tmp_path / 'folder/copy').read_bytes() == CONTENT


def test_sshd_options_are_used(start_openssh: Callable[..., OpenSSHServer], source: Path, tmp_path: Path) -> None:
    server = start_openssh(
        ['Ciphers aes128-ctr', 'MACs hmac-sha2-256', 'RekeyLimit 64K'], sftp_server='sftp-server', log_level='DEBUG1'
    )
    peers.sftp(server.target, f'put {source} {tmp_path}/copy').run()
    assert (tmp_path / 'copy').read_bytes() == CONTENT
    assert 'cipher: aes128-ctr MAC: hmac-sha2-256' in server.log
    assert server.log.count('SSH2_MSG_NEWKEYS received') >= 2
    with pytest.raises(CommandFailed, match='no matching cipher'):
        peers.ssh(server.target, 'true', options=['Ciphers=aes256-ctr']).run()


def test_stopping_ends_every_process(key_ring: peers.KeyRing, tmp_path: Path) -> None:
    with OpenSSHServer(key_ring, tmp_path / 'sshd') as server, ThreadPoolExecutor() as pool:
        session = pool.submit(peers.ssh(server.target, 'echo began; sleep 60').run, check=False)
        wait_until(lambda: len(server.processes()) >= 3)  # sshd, the connection's, the command
        processes = server.processes()
        server.stop()
        session.result()
    for pid in processes:
        wait_until(lambda pid=pid: not is_running(pid))


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    state = subprocess.run(['ps', '-o', 'stat=', '-p', str(pid)], capture_output=True, text=True, check=False).stdout
    return state.strip() != '' and not state.startswith('Z')


def test_slow_command_is_ended(openssh_server: OpenSSHServer) -> None:
    with pytest.raises(CommandFailed, match='ran longer'):
        peers.ssh(openssh_server.target, 'sleep 30').run(timeout=1)


def test_missing_program_is_named() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers, 'FOLDERS', ())
        patch.setenv('PATH', '')
        with pytest.raises(PeerMissing, match='apt-get install rclone'):
            peers.find_program('rclone')
