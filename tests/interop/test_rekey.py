"""New keys for every MiB of a file on its way: wanted by us, by the peer, by both; in both roles and directions."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

import ssh_fast
from tests.interop import peers
from tests.interop.asyncssh_peer import asyncssh_server
from tests.interop.ours import MIB, digest, make_files, our_server, quick_folder, rekeys, run_in_thread, watching
from tests.interop.paramiko_peer import paramiko_client
from tests.interop.peers import KeyRing, OpenSSHServer

SIZE = 16 * MIB

sides = pytest.mark.parametrize('side', ['ours', 'theirs', 'both'])
ways = pytest.mark.parametrize('way', ['put', 'get'])


@pytest.fixture(scope='module')
def folder() -> Iterator[Path]:
    with quick_folder() as folder:
        make_files(folder, (SIZE,))
        yield folder


@pytest.fixture(scope='module')
def rekeying_openssh(key_ring: KeyRing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSSHServer]:
    with OpenSSHServer(key_ring, tmp_path_factory.mktemp('sshd'), ['RekeyLimit 1M']) as server:
        yield server


def check_count(count: int, side: str) -> None:
    """The file is 16 times what one set of keys may take.

    We look once for each chunk that we send or receive, and send on with new keys while the peer's answer to them is on
    its way: up to as much again may pass until the exchange is over and its bytes count. OpenSSH looks rarely when it
    receives; when it sends, it compares the bytes of the next packet with a number of cipher blocks, so that each of
    our large ones makes it rekey.
    """
    least, most = {'ours': (7, 20), 'theirs': (5, 140), 'both': (7, 140)}[side]
    assert least <= count <= most


@sides
@ways
async def test_our_client_with_openssh(
    side: str, way: str, rekeying_openssh: OpenSSHServer, openssh_server: OpenSSHServer, folder: Path
) -> None:
    server = openssh_server if side == 'ours' else rekeying_openssh
    # What the peer may send before it sees that new keys are wanted is a window: a busy machine has it all under way.
    ours = {'rekey_bytes': MIB, 'window': MIB // 2, 'max_window': MIB // 2}
    options = server.target.connect_options(**({} if side == 'theirs' else ours))
    source, copy = folder / f'f{SIZE}', folder / f'{side}-{way}'
    async with ssh_fast.connect(**options) as connection, connection.start_sftp_client() as sftp:
        await getattr(sftp, way)(str(source), str(copy))
        check_count(rekeys(connection), side)
    assert digest(copy) == digest(source)


@sides
@ways
async def test_our_server_with_openssh(side: str, way: str, key_ring: KeyRing, folder: Path, tmp_path: Path) -> None:
    made, factory = watching()
    source, copy = folder / f'f{SIZE}', folder / f'{side}-{way}-server'
    # As above: a window that grows would have it all under way.
    ours = {'rekey_bytes': MIB, 'window': MIB // 2, 'max_window': MIB // 2}
    options = {} if side == 'theirs' else ours
    async with our_server(key_ring, tmp_path / 'ours', server_factory=factory, **options) as target:
        limit = ['RekeyLimit=1M'] if side != 'ours' else []
        await peers.sftp(target, f'{way} {source} {copy}', options=limit).run_async()
    check_count(rekeys(made[0].conn), side)
    assert digest(copy) == digest(source)


@sides
async def test_our_client_with_asyncssh(side: str, key_ring: KeyRing, folder: Path, tmp_path: Path) -> None:
    theirs = {'rekey_bytes': MIB} if side != 'ours' else {}
    ours = {'rekey_bytes': MIB} if side != 'theirs' else {}
    source, there, back = folder / f'f{SIZE}', folder / 'there', folder / 'back'
    async with asyncssh_server(key_ring, tmp_path / 'theirs', **theirs) as target:
        options = target.connect_options(**ours)
        async with ssh_fast.connect(**options) as connection, connection.start_sftp_client() as sftp:
            await sftp.put(str(source), str(there))
            await sftp.get(str(there), str(back))
            assert rekeys(connection) >= 12
    assert digest(there) == digest(back) == digest(source)


@sides
async def test_our_server_with_asyncssh(side: str, key_ring: KeyRing, folder: Path, tmp_path: Path) -> None:
    theirs = {'rekey_bytes': MIB} if side != 'ours' else {}
    ours = {'rekey_bytes': MIB} if side != 'theirs' else {}
    source, there, back = folder / f'f{SIZE}', folder / 'there', folder / 'back'
    made, factory = watching()
    async with our_server(key_ring, tmp_path / 'ours', server_factory=factory, **ours) as target:
        options = target.connect_options(**theirs)
        async with asyncssh.connect(**options) as connection, connection.start_sftp_client() as sftp:
            await sftp.put(str(source), str(there))
            await sftp.get(str(there), str(back))
    assert rekeys(made[0].conn) >= 12
    assert digest(there) == digest(back) == digest(source)


async def test_our_server_with_paramiko(key_ring: KeyRing, folder: Path, tmp_path: Path) -> None:
    source = make_files(tmp_path, (4 * MIB,)) / f'f{4 * MIB}'
    made, factory = watching()

    def work(target: peers.Target) -> None:
        with paramiko_client(target) as client, client.open_sftp() as sftp:
            client.get_transport().packetizer.REKEY_BYTES = MIB
            sftp.put(str(source), str(tmp_path / 'there'))
            sftp.get(str(tmp_path / 'there'), str(tmp_path / 'back'))

    async with our_server(key_ring, tmp_path / 'ours', server_factory=factory) as target:
        await run_in_thread(work, target)
    assert rekeys(made[0].conn) >= 2
    assert digest(tmp_path / 'there') == digest(tmp_path / 'back') == digest(source)


async def test_keys_age(openssh_server: OpenSSHServer) -> None:
    options = openssh_server.target.connect_options(rekey_seconds=0.3)
    async with ssh_fast.connect(**options) as connection:
        process = await connection.create_process('cat')
        for number in range(15):
            process.stdin.write(f'{number}\n')
            assert await process.stdout.readline() == f'{number}\n'
            await asyncio.sleep(0.1)
        assert 2 <= rekeys(connection) <= 6
        process.stdin.write_eof()
        assert (await process.wait()).exit_status == 0


async def test_both_directions_at_once(rekeying_openssh: OpenSSHServer, folder: Path) -> None:
    source = folder / f'f{SIZE}'
    options: dict[str, Any] = rekeying_openssh.target.connect_options(rekey_bytes=MIB)
    async with ssh_fast.connect(**options) as connection, connection.start_sftp_client() as sftp:
        await asyncio.gather(
            sftp.put(str(source), str(folder / 'put')),
            sftp.get(str(source), str(folder / 'got')),
            *(connection.run('cat', input='x' * 200_000) for _ in range(5)),
        )
        assert rekeys(connection) >= 16
    assert digest(folder / 'put') == digest(folder / 'got') == digest(source)


@pytest.mark.parametrize('cipher', ['chacha20-poly1305@openssh.com', 'aes128-ctr', 'aes256-gcm@openssh.com'])
@pytest.mark.parametrize('compression', ['none', 'zlib@openssh.com'])
async def test_kinds_of_keys(cipher: str, compression: str, openssh_server: OpenSSHServer, folder: Path) -> None:
    """Cipher, MAC and compression all begin anew."""
    source, copy = folder / f'f{SIZE}', folder / 'copy'
    options = openssh_server.target.connect_options(
        rekey_bytes=MIB, encryption_algs=[cipher], compression_algs=[compression]
    )
    async with ssh_fast.connect(**options) as connection, connection.start_sftp_client() as sftp:
        async with sftp.open(str(source), 'rb') as file:
            data = await file.read(4 * MIB)
        async with sftp.open(str(copy), 'wb') as file:
            await file.write(data)
        assert rekeys(connection) >= 5
    assert copy.read_bytes() == data == source.read_bytes()[: 4 * MIB]
