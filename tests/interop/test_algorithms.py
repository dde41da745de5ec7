"""Every algorithm that OpenSSH and we both know, in both roles: a login, a file up and the same file down."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncssh
import pytest

import ssh_fast
from tests.interop import peers
from tests.interop.asyncssh_peer import asyncssh_server
from tests.interop.ours import SIGNATURES, our_server
from tests.interop.peers import KEY_TYPES, KeyRing, OpenSSHServer, Target, openssh_knows, openssh_version

KEX = (
    'mlkem768x25519-sha256',
    'sntrup761x25519-sha512',
    'sntrup761x25519-sha512@openssh.com',
    'curve25519-sha256',
    'curve25519-sha256@libssh.org',
    'ecdh-sha2-nistp256',
    'ecdh-sha2-nistp384',
    'ecdh-sha2-nistp521',
    'diffie-hellman-group14-sha256',
    'diffie-hellman-group16-sha512',
    'diffie-hellman-group18-sha512',
    'diffie-hellman-group-exchange-sha256',
)
CIPHERS = (
    'chacha20-poly1305@openssh.com',
    'aes128-gcm@openssh.com',
    'aes256-gcm@openssh.com',
    'aes128-ctr',
    'aes192-ctr',
    'aes256-ctr',
)
MACS = tuple(f'hmac-{name}{tail}' for name in ('sha2-256', 'sha2-512', 'sha1') for tail in ('', '-etm@openssh.com'))

LEGACY_KEX = ('diffie-hellman-group1-sha1', 'diffie-hellman-group14-sha1', 'diffie-hellman-group-exchange-sha1')
LEGACY_CIPHERS = ('aes128-cbc', 'aes192-cbc', 'aes256-cbc', '3des-cbc')
LEGACY_MACS = tuple(f'hmac-{name}{tail}' for name in ('sha1-96', 'md5', 'md5-96') for tail in ('', '-etm@openssh.com'))

LEGACY_CASES = [
    *(pytest.param('kex', name, id=name) for name in LEGACY_KEX),
    *(pytest.param('cipher', name, id=name) for name in LEGACY_CIPHERS),
    *(pytest.param('mac', name, id=name) for name in LEGACY_MACS),
    pytest.param('HostKeyAlgorithms', 'ssh-rsa', id='ssh-rsa'),
]
CASES = [
    *(pytest.param('kex', name, id=name) for name in KEX),
    *(pytest.param('cipher', name, id=name) for name in CIPHERS),
    *(pytest.param('mac', name, id=name) for name in MACS),
    *(pytest.param('HostKeyAlgorithms', name, id=name) for name in SIGNATURES),
]
# What OpenSSH's and our options are called for each kind; a MAC matters only beside a cipher that has none of its own.
SSH_OPTIONS = {'kex': 'KexAlgorithms', 'cipher': 'Ciphers', 'mac': 'MACs', 'HostKeyAlgorithms': 'HostKeyAlgorithms'}
OUR_OPTIONS = {
    'kex': 'kex_algs',
    'cipher': 'encryption_algs',
    'mac': 'mac_algs',
    'HostKeyAlgorithms': 'server_host_key_algs',
}
CONTENT = os.urandom(300_000)


@pytest.fixture(scope='module')
def every_algorithm(key_ring: KeyRing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSSHServer]:
    """An sshd that offers all it knows, with a key of each type."""
    offers = [f'{option} {",".join(openssh_knows(kind))}' for kind, option in SSH_OPTIONS.items()]
    with OpenSSHServer(key_ring, tmp_path_factory.mktemp('sshd'), offers, host_keys=tuple(KEY_TYPES)) as server:
        yield server


@pytest.fixture
async def our_target(key_ring: KeyRing, tmp_path: Path) -> AsyncIterator[Target]:
    async with our_server(key_ring, tmp_path / 'ours', host_keys=tuple(KEY_TYPES)) as target:
        yield target


@pytest.fixture
async def our_legacy_target(key_ring: KeyRing, tmp_path: Path) -> AsyncIterator[Target]:
    offers = dict.fromkeys(('kex_algs', 'encryption_algs', 'mac_algs', 'signature_algs'), 'legacy')
    async with our_server(key_ring, tmp_path / 'ours', host_keys=('rsa',), **offers) as target:
        yield target


def need(kind: str, name: str) -> None:
    if name.startswith('sntrup'):
        pytest.importorskip('pqcrypto')
    if name not in openssh_knows(kind):
        pytest.skip(f'the installed OpenSSH {openssh_version()} does not know {name}')


def our_options(kind: str, name: str) -> dict[str, list[str]]:
    return {OUR_OPTIONS[kind]: [name], **({'encryption_algs': ['aes256-ctr']} if kind == 'mac' else {})}


def check_choice(connection: object, kind: str, name: str) -> None:
    info = connection.get_extra_info  # type: ignore[attr-defined]
    if kind in ('cipher', 'mac'):
        assert (info(f'send_{kind}'), info(f'recv_{kind}')) == (name, name)
    else:
        assert info('kex_alg' if kind == 'kex' else 'host_key_alg') == name


@pytest.mark.parametrize(('kind', 'name'), CASES + LEGACY_CASES)
async def test_our_client(kind: str, name: str, every_algorithm: OpenSSHServer, tmp_path: Path) -> None:
    need(kind, name)
    (tmp_path / 'source').write_bytes(CONTENT)
    options = every_algorithm.target.connect_options(**our_options(kind, name))
    async with ssh_fast.connect(**options) as connection, connection.start_sftp_client() as sftp:
        check_choice(connection, kind, name)
        await sftp.put(str(tmp_path / 'source'), str(tmp_path / 'there'))
        await sftp.get(str(tmp_path / 'there'), str(tmp_path / 'back'))
    assert (tmp_path / 'there').read_bytes() == (tmp_path / 'back').read_bytes() == CONTENT


@pytest.mark.parametrize(('kind', 'name'), CASES)
async def test_our_server(kind: str, name: str, our_target: Target, tmp_path: Path) -> None:
    need(kind, name)
    (tmp_path / 'source').write_bytes(CONTENT)
    options = [f'{SSH_OPTIONS[kind]}={name}', *(['Ciphers=aes256-ctr'] if kind == 'mac' else [])]
    batch = [f'put {tmp_path}/source {tmp_path}/there', f'get {tmp_path}/there {tmp_path}/back']
    await peers.sftp(our_target, *batch, options=options).run_async()
    assert (tmp_path / 'there').read_bytes() == (tmp_path / 'back').read_bytes() == CONTENT


@pytest.mark.parametrize(('kind', 'name'), LEGACY_CASES)
async def test_our_server_for_old_clients(kind: str, name: str, our_legacy_target: Target, tmp_path: Path) -> None:
    await test_our_server(kind, name, our_legacy_target, tmp_path)


@pytest.mark.parametrize(('kind', 'name'), [case.values for case in LEGACY_CASES])
async def test_our_server_has_none_of_the_old_unless_told(kind: str, name: str, our_target: Target) -> None:
    options = [f'{SSH_OPTIONS[kind]}={name}', *(['Ciphers=aes256-ctr'] if kind == 'mac' else [])]
    refused = await peers.ssh(our_target, 'true', options=options).run_async(check=False)
    assert refused.status == 255
    assert 'no match' in refused.stderr.lower()


# AsyncSSH knows what the installed OpenSSH may be too old for, or has dropped.
@pytest.mark.parametrize(
    ('kind', 'name'),
    [
        *(('encryption', name) for name in ('blowfish-cbc', 'cast128-cbc', 'seed-cbc@ssh.com')),
        *(('encryption', name) for name in ('arcfour', 'arcfour128', 'arcfour256')),
        *(('mac', name) for name in ('hmac-sha2-256-96', 'hmac-sha2-512-96-etm@openssh.com')),
        ('compression', 'zlib'),
    ],
)
async def test_old_algorithms_with_asyncssh(kind: str, name: str, key_ring: KeyRing, tmp_path: Path) -> None:
    options: dict[str, list[str]] = {f'{kind}_algs': [name]}
    options |= {'encryption_algs': ['aes256-ctr']} if kind == 'mac' else {}
    (tmp_path / 'source').write_bytes(CONTENT)
    async with asyncssh_server(key_ring, tmp_path / 'theirs', **options) as target:
        async with ssh_fast.connect(**target.connect_options(**options)) as connection:
            async with connection.start_sftp_client() as sftp:
                await sftp.put(str(tmp_path / 'source'), str(tmp_path / 'copy'))
    assert (tmp_path / 'copy').read_bytes() == CONTENT
    async with our_server(key_ring, tmp_path / 'ours', **options) as target:
        async with asyncssh.connect(**target.connect_options(**options)) as connection:
            async with connection.start_sftp_client() as sftp:
                await sftp.get(str(tmp_path / 'source'), str(tmp_path / 'back'))
    assert (tmp_path / 'back').read_bytes() == CONTENT


@pytest.mark.parametrize('name', [
    'mlkem768x25519-sha256',
    'mlkem768nistp256-sha256',
    'mlkem1024nistp384-sha384',
    'curve448-sha512',
    'ecdh-sha2-1.3.132.0.10',
    'diffie-hellman-group15-sha512',
    'diffie-hellman-group17-sha512',
])
async def test_kex_with_asyncssh(name: str, key_ring: KeyRing, tmp_path: Path) -> None:
    async with asyncssh_server(key_ring, tmp_path / 'theirs', kex_algs=[name]) as target:
        async with ssh_fast.connect(**target.connect_options()) as connection, connection.start_sftp_client() as sftp:
            assert await sftp.getcwd()
    async with our_server(key_ring, tmp_path / 'ours') as target:
        options = target.connect_options(kex_algs=[name])
        async with asyncssh.connect(**options) as connection, connection.start_sftp_client() as sftp:
            assert await sftp.getcwd()


async def test_our_server_has_no_common_cipher(our_target: Target) -> None:
    refused = await peers.ssh(our_target, 'true', options=['Ciphers=aes128-cbc']).run_async(check=False)
    assert refused.status == 255
    assert 'no matching cipher' in refused.stderr


@pytest.mark.parametrize('way', ['put', 'get'])
async def test_compression_of_our_client(way: str, every_algorithm: OpenSSHServer, tmp_path: Path) -> None:
    content = b'a line that comes again and again\n' * 100_000 + CONTENT
    (tmp_path / 'source').write_bytes(content)
    options = every_algorithm.target.connect_options(compression_algs=['zlib@openssh.com'])
    async with ssh_fast.connect(**options) as connection, connection.start_sftp_client() as sftp:
        await getattr(sftp, way)(str(tmp_path / 'source'), str(tmp_path / 'copy'))
        assert connection.get_extra_info('send_compression') == 'zlib@openssh.com'
    assert (tmp_path / 'copy').read_bytes() == content


@pytest.mark.parametrize('way', ['put', 'get'])
async def test_compression_of_our_server(way: str, our_target: Target, tmp_path: Path) -> None:
    content = b'a line that comes again and again\n' * 100_000 + CONTENT
    (tmp_path / 'source').write_bytes(content)
    batch = f'{way} {tmp_path}/source {tmp_path}/copy'
    await peers.sftp(our_target, batch, options=['Compression=yes']).run_async()
    assert (tmp_path / 'copy').read_bytes() == content


@pytest.mark.parametrize(('options', 'what'), [
    ({'kex_algs': ['diffie-hellman-group14-sha256']}, 'key exchange'),
    ({'encryption_algs': ['aes192-ctr']}, 'encryption|cipher'),
    ({'encryption_algs': ['aes128-ctr'], 'mac_algs': ['hmac-sha1']}, 'MAC|mac'),
    ({'server_host_key_algs': ['ecdsa-sha2-nistp521']}, 'host key'),
])
async def test_our_client_has_no_common_algorithm(
    options: dict[str, list[str]], what: str, key_ring: KeyRing, tmp_path: Path
) -> None:
    lines = ['KexAlgorithms curve25519-sha256', 'Ciphers aes128-ctr', 'MACs hmac-sha2-256']
    with OpenSSHServer(key_ring, tmp_path / 'sshd', lines, host_keys=('ed25519',)) as server:
        with pytest.raises(ssh_fast.KeyExchangeFailed, match=f'(?i){what}'):
            await ssh_fast.connect(**server.target.connect_options(known_hosts=None, **options))
