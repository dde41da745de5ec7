"""Copies, hashes and homes of our SFTP server asked for by others' clients, and of others' servers by ours."""

import hashlib
import os
import pwd
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

import ssh_fast
from tests.interop import peers
from tests.interop.asyncssh_peer import asyncssh_server
from tests.interop.ours import MIB, our_server, run_in_thread
from tests.interop.paramiko_peer import paramiko_client
from tests.interop.peers import KeyRing, OpenSSHServer, Target

DATA = os.urandom(3 * MIB + 5)


@pytest.fixture
async def target(key_ring: KeyRing, tmp_path: Path) -> AsyncIterator[Target]:
    async with our_server(key_ring, tmp_path / 'ours') as target:
        yield target


async def test_openssh_copies_on_our_server(target: Target, tmp_path: Path) -> None:
    (tmp_path / 'a').write_bytes(DATA)
    (tmp_path / 'a').chmod(0o640)
    result = await peers.sftp(target, f'cp {tmp_path}/a {tmp_path}/b', flags=('-vvv',)).run_async()
    assert 'copy-data' in result.stderr
    assert (tmp_path / 'b').read_bytes() == DATA
    assert (tmp_path / 'b').stat().st_mode & 0o777 == 0o640
    # The client has emptied it by then; that nothing is left to copy is told.
    result = await peers.sftp(target, f'cp {tmp_path}/a {tmp_path}/a').run_async(check=False)
    assert result.status != 0


async def test_openssh_expands_homes_on_our_server(target: Target, tmp_path: Path) -> None:
    own = pwd.getpwuid(os.geteuid())
    name = f'.ssh_fast-test-{os.getpid()}'
    file = Path(own.pw_dir) / name
    file.write_bytes(b'at home')

    try:
        await peers.scp(target, f'remote:~{own.pw_name}/{name}', str(tmp_path / 'got'), sftp_mode=True).run_async()
    finally:
        file.unlink()

    assert (tmp_path / 'got').read_bytes() == b'at home'


async def test_asyncssh_copies_on_our_server(target: Target, tmp_path: Path) -> None:
    (tmp_path / 'a').write_bytes(DATA)

    async with asyncssh.connect(**target.connect_options()) as connection, connection.start_sftp_client() as sftp:
        assert sftp.supports_remote_copy
        await sftp.copy(f'{tmp_path}/a', f'{tmp_path}/b', remote_only=True)
        assert (tmp_path / 'b').read_bytes() == DATA
        await sftp.remote_copy(f'{tmp_path}/a', f'{tmp_path}/c', 10, 20, 30)
        assert (tmp_path / 'c').read_bytes() == bytes(30) + DATA[10:30]


async def test_paramiko_checks_files_of_our_server(target: Target, tmp_path: Path) -> None:
    (tmp_path / 'a').write_bytes(DATA)

    def check() -> None:
        with paramiko_client(target) as client, client.open_sftp() as sftp, sftp.open(f'{tmp_path}/a') as file:
            assert file.check('sha1') == hashlib.sha1(DATA).digest()
            assert file.check('md5', 5, 1000, 512) == b''.join(
                hashlib.md5(part).digest() for part in (DATA[5:517], DATA[517:1005])
            )

    await run_in_thread(check)


async def test_our_client_copies_on_sshd_and_asyncssh(
    openssh_server: OpenSSHServer, key_ring: KeyRing, tmp_path: Path
) -> None:
    (tmp_path / 'a').write_bytes(DATA)

    async def check(target: Target) -> None:
        async with ssh_fast.connect(**target.connect_options()) as connection, connection.start_sftp_client() as sftp:
            await sftp.copy(f'{tmp_path}/a', f'{tmp_path}/b', remote_only=True)
            assert (tmp_path / 'b').read_bytes() == DATA
            (tmp_path / 'b').unlink()

    await check(openssh_server.target)

    async with asyncssh_server(key_ring, tmp_path / 'asyncssh') as target:
        await check(target)


async def test_our_client_asks_sshd_for_homes_and_names(openssh_server: OpenSSHServer) -> None:
    own = pwd.getpwuid(os.geteuid())

    async with (
        ssh_fast.connect(**openssh_server.target.connect_options()) as connection,
        connection.start_sftp_client() as sftp,
    ):
        assert await sftp.expand_path('~') == os.path.realpath(own.pw_dir)
        assert await sftp.expand_path(f'~{own.pw_name}/x') == os.path.realpath(own.pw_dir) + '/x'

        if b'home-directory' in sftp.session.extensions:
            assert await sftp.home_directory(own.pw_name) == own.pw_dir

        if b'users-groups-by-id@openssh.com' in sftp.session.extensions:
            assert await sftp.users_groups_by_id([os.geteuid(), 4_000_000_000]) == ([own.pw_name, None], [])
