"""Logins and key exchanges by GSSAPI, with a local KDC: ours, OpenSSH's and AsyncSSH's."""

import asyncio
import contextlib
import sys
from dataclasses import replace

import pytest

import ssh_fast
from ssh_fast.connection.gss import ClientContext, ServerContext
from ssh_fast.gss_context import GSSFailure, GSSStep
from tests.interop.asyncssh_peer import asyncssh_server
from tests.interop.kdc import HOST, REALM, running_kdc
from tests.interop.ours import Watcher, our_server, watching
from tests.interop.peers import ssh, user_name

gssapi = pytest.importorskip('gssapi', reason='the gssapi package is not installed (pip install gssapi)')


@pytest.fixture(scope='module')
def kdc(tmp_path_factory):
    with running_kdc(tmp_path_factory.mktemp('kdc')) as running:
        running.add_user(user_name())
        running.add_user('mallory')
        running.own = running.tickets(user_name())
        running.mallorys = running.tickets('mallory')
        yield running


@pytest.fixture(autouse=True)
def _environment(kdc, monkeypatch):
    for name, value in kdc.environment.items():
        monkeypatch.setenv(name, value)


class Principals(Watcher):
    def validate_gss_principal(self, username, user_principal, host_principal):
        self.asked = username, user_principal, host_principal
        return super().validate_gss_principal(username, user_principal, host_principal)


async def echo(process):
    process.stdout.write(f'{process.command} by {process.channel.get_connection().get_extra_info("username")}')
    process.exit(0)


@contextlib.asynccontextmanager
async def gss_server(key_ring, tmp_path, **options):
    settings = {'gss_host': HOST, 'authorized_client_keys': None, 'process_factory': echo, 'sftp_factory': None}
    made, factory = watching(Principals)
    async with our_server(key_ring, tmp_path, **{'server_factory': factory, **settings, **options}) as target:
        yield target, made


def gss_options(target, cache, **options):
    return target.connect_options(
        **{'client_keys': None, 'gss_host': HOST, 'gss_store': cache, 'preferred_auth': 'gssapi-with-mic', **options}
    )


@pytest.mark.parametrize('delegate', [False, True])
async def test_ours(key_ring, tmp_path, kdc, delegate):
    async with gss_server(key_ring, tmp_path) as (target, made):
        async with ssh_fast.connect(**gss_options(target, kdc.own, gss_delegate_creds=delegate)) as conn:
            assert (await conn.run('hello', check=True)).stdout == f'hello by {user_name()}'

            creds = made[0].conn.get_extra_info('gss_delegated_creds')
            assert made[0].asked == (user_name(), f'{user_name()}@{REALM}', f'host/{HOST}@{REALM}')
            assert str(creds.name) == f'{user_name()}@{REALM}' if delegate else creds is None


async def test_a_keytab_and_a_cache_by_environment(key_ring, tmp_path, kdc, monkeypatch):
    monkeypatch.setenv('KRB5CCNAME', kdc.own)
    monkeypatch.delenv('KRB5_KTNAME')

    async with gss_server(key_ring, tmp_path, gss_store={'keytab': str(kdc.keytab)}) as (target, _):
        async with ssh_fast.connect(**target.connect_options(gss_host=HOST)) as conn:
            assert (await conn.run('x', check=True)).exit_status == 0


async def test_a_sequence_of_methods(key_ring, tmp_path, kdc):
    settings = {
        'auth_methods': ['gssapi-with-mic,publickey'],
        'authorized_client_keys': str(key_ring.public('user', 'ed25519')),
    }
    async with gss_server(key_ring, tmp_path, **settings) as (target, _):
        async with ssh_fast.connect(**target.connect_options(gss_host=HOST, gss_store=kdc.own)) as conn:
            assert (await conn.run('x', check=True)).exit_status == 0

        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(**gss_options(target, kdc.own))

        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(**target.connect_options())


async def test_another_principal_is_refused(key_ring, tmp_path, kdc):
    async with gss_server(key_ring, tmp_path) as (target, made):
        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(**gss_options(target, kdc.mallorys))

        assert made[0].asked[1] == f'mallory@{REALM}'

        async with ssh_fast.connect(**gss_options(target, kdc.mallorys, username='mallory')) as conn:
            assert (await conn.run('x', check=True)).stdout == 'x by mallory'


async def test_an_awaited_decision(key_ring, tmp_path, kdc):
    class Later(Watcher):
        async def validate_gss_principal(self, username, user_principal, host_principal):
            await asyncio.sleep(0)
            return user_principal == f'mallory@{REALM}'

    async with gss_server(key_ring, tmp_path, server_factory=Later) as (target, _):
        async with ssh_fast.connect(**gss_options(target, kdc.mallorys)) as conn:
            assert (await conn.run('x', check=True)).exit_status == 0

        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(**gss_options(target, kdc.own))


async def test_without_tickets_the_next_method_is_tried(key_ring, tmp_path, kdc):
    keys = {'authorized_client_keys': str(key_ring.public('user', 'ed25519'))}
    async with gss_server(key_ring, tmp_path, **keys) as (target, made):
        async with ssh_fast.connect(**target.connect_options(gss_host=HOST)) as conn:
            assert (await conn.run('x', check=True)).exit_status == 0

        assert not hasattr(made[0], 'asked')

        with pytest.raises(ssh_fast.PermissionDenied, match='GSSAPI: .*[Nn]o.*credentials'):
            await ssh_fast.connect(**target.connect_options(gss_host=HOST, client_keys=None))


async def test_expired_tickets(key_ring, tmp_path, kdc):
    cache = kdc.tickets(user_name(), '1s')
    await asyncio.sleep(1.5)

    async with gss_server(key_ring, tmp_path) as (target, _):
        with pytest.raises(ssh_fast.PermissionDenied, match='GSSAPI: .*expired'):
            await ssh_fast.connect(**gss_options(target, cache))


async def test_a_host_that_the_realm_does_not_know(key_ring, tmp_path, kdc):
    async with gss_server(key_ring, tmp_path) as (target, _):
        with pytest.raises(ssh_fast.PermissionDenied, match='GSSAPI: .*not found'):
            await ssh_fast.connect(**gss_options(target, kdc.own, gss_host=f'host/other.test@{REALM}'))


async def test_a_server_without_the_key(key_ring, tmp_path, kdc):
    async with gss_server(key_ring, tmp_path, gss_store=str(tmp_path / 'none')) as (target, _):
        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(**gss_options(target, kdc.own))


async def test_a_server_with_another_key(key_ring, tmp_path, kdc):
    kdc.add_host('third.test', tmp_path / 'third.keytab')
    settings = {'gss_host': f'host/third.test@{REALM}', 'gss_store': str(tmp_path / 'third.keytab')}

    async with gss_server(key_ring, tmp_path, **settings) as (target, made):
        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(**gss_options(target, kdc.own))

        assert not hasattr(made[0], 'asked')


async def test_the_loop_goes_on_while_a_kdc_is_silent(key_ring, tmp_path, kdc):
    cache = kdc.tickets(user_name(), '20m')

    async with gss_server(key_ring, tmp_path) as (target, made):
        with kdc.frozen():
            login = asyncio.ensure_future(ssh_fast.connect(**gss_options(target, cache)))

            for _ in range(50):
                await asyncio.sleep(0.01)

            assert not login.done()
            assert not hasattr(made[0], 'asked')

        conn = await login
        conn.close()
        await conn.wait_closed()


# --- other programs


async def test_openssh_client(key_ring, tmp_path, kdc):
    async with gss_server(key_ring, tmp_path) as (target, made):
        for delegate in ('no', 'yes'):
            options = (
                'GSSAPIAuthentication=yes',
                f'GSSAPIDelegateCredentials={delegate}',
                'PreferredAuthentications=gssapi-with-mic',
                'HostKeyAlias=127.0.0.1',
            )
            command = ssh(replace(target, host=HOST), 'hello', options=options)
            command = replace(command, environment={**command.environment, 'KRB5CCNAME': kdc.own})
            assert (await command.run_async()).stdout == f'hello by {user_name()}'.encode()

        assert made[0].conn.get_extra_info('gss_delegated_creds') is None
        assert made[1].conn.get_extra_info('gss_delegated_creds') is not None

        command = replace(command, environment={**command.environment, 'KRB5CCNAME': kdc.mallorys})
        refused = await command.run_async(check=False)
        assert refused.status == 255 and 'Permission denied' in refused.stderr


async def test_openssh_server(start_openssh, kdc):
    lines = ['GSSAPIAuthentication yes', 'GSSAPIStrictAcceptorCheck no', 'PubkeyAuthentication no']
    server = start_openssh(lines, log_level='DEBUG1')

    async with ssh_fast.connect(**gss_options(server.target, kdc.own, gss_delegate_creds=True)) as conn:
        assert (await conn.run('echo in', check=True)).stdout == 'in\n'

    with pytest.raises(ssh_fast.PermissionDenied):
        await ssh_fast.connect(**gss_options(server.target, kdc.mallorys))


async def test_asyncssh_client(key_ring, tmp_path, kdc):
    asyncssh = pytest.importorskip('asyncssh')

    async with gss_server(key_ring, tmp_path) as (target, made):
        options = gss_options(target, {'ccache': kdc.own}, gss_delegate_creds=True, gss_kex=False)
        async with asyncssh.connect(**options) as conn:
            assert (await conn.run('hello', check=True)).stdout == f'hello by {user_name()}'

        assert str(made[0].conn.get_extra_info('gss_delegated_creds').name) == f'{user_name()}@{REALM}'

        with pytest.raises(asyncssh.PermissionDenied):
            await asyncssh.connect(**{**options, 'gss_store': {'ccache': kdc.mallorys}})


async def test_asyncssh_server(key_ring, tmp_path, kdc):
    def run(process):
        process.stdout.write('from AsyncSSH')
        process.exit(0)

    settings = {'gss_host': HOST, 'gss_kex': False, 'authorized_client_keys': None, 'process_factory': run}

    async with asyncssh_server(key_ring, tmp_path, **settings) as target:
        async with ssh_fast.connect(**gss_options(target, kdc.own)) as conn:
            assert (await conn.run('x', check=True)).stdout == 'from AsyncSSH'

        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(**gss_options(target, kdc.mallorys))


# --- key exchanges


KEX = 'gssapi-keyex'


def kex_options(target, cache, **options):
    # Nothing but GSSAPI can tell who the server is.
    settings = {'gss_kex': True, 'preferred_auth': KEX, 'known_hosts': ([], [], [])}
    return gss_options(target, cache, **{**settings, **options})


@pytest.mark.parametrize('kex_alg', ['curve25519-sha256', 'ecdh-sha2-nistp256', 'diffie-hellman-group14-sha256'])
@pytest.mark.parametrize('delegate', [False, True])
async def test_our_key_exchange(key_ring, tmp_path, kdc, kex_alg, delegate):
    async with gss_server(key_ring, tmp_path, gss_kex=True) as (target, made):
        options = kex_options(target, kdc.own, kex_algs=[kex_alg], gss_delegate_creds=delegate)

        async with ssh_fast.connect(**options) as conn:
            assert conn.get_extra_info('kex_alg').startswith('gss-')
            assert conn.get_server_host_key() is None
            assert (await conn.run('hello', check=True)).stdout == f'hello by {user_name()}'

            creds = made[0].conn.get_extra_info('gss_delegated_creds')
            assert made[0].asked == (user_name(), f'{user_name()}@{REALM}', f'host/{HOST}@{REALM}')
            assert str(creds.name) == f'{user_name()}@{REALM}' if delegate else creds is None


async def test_a_server_without_host_keys_renews_keys_by_gssapi(key_ring, tmp_path, kdc):
    settings = {'server_host_keys': None, 'gss_kex': True, 'rekey_bytes': 65536}

    async def flood(process):
        process.stdout.write('x' * 300_000)
        process.exit(0)

    async with gss_server(key_ring, tmp_path, process_factory=flood, **settings) as (target, _):
        async with ssh_fast.connect(**kex_options(target, kdc.own)) as conn:
            assert conn.get_extra_info('host_key_alg') == 'null'
            assert len((await conn.run('x', check=True)).stdout) == 300_000
            assert conn._ssh.rekeys > 0 and conn.get_extra_info('kex_alg').startswith('gss-')

        # Without a ticket nothing is left.
        with pytest.raises(ssh_fast.KeyExchangeFailed):
            await ssh_fast.connect(**target.connect_options(client_keys=None))


async def test_without_tickets_the_host_key_counts(key_ring, tmp_path, kdc, monkeypatch):
    keys = {'authorized_client_keys': str(key_ring.public('user', 'ed25519')), 'gss_kex': True}
    monkeypatch.setenv('KRB5CCNAME', str(tmp_path / 'none'))

    async with gss_server(key_ring, tmp_path, **keys) as (target, _):
        options = target.connect_options(gss_host=HOST, gss_kex=True)

        async with ssh_fast.connect(**options) as conn:
            assert not conn.get_extra_info('kex_alg').startswith('gss-')
            assert conn.get_server_host_key() is not None

        with pytest.raises(ssh_fast.HostKeyNotVerifiable):
            await ssh_fast.connect(**{**options, 'known_hosts': ([], [], [])})


async def test_a_key_exchange_for_another_host_is_not_offered(key_ring, tmp_path, kdc):
    async with gss_server(key_ring, tmp_path, gss_kex=True) as (target, _):
        with pytest.raises(ssh_fast.HostKeyNotVerifiable):
            await ssh_fast.connect(**kex_options(target, kdc.own, gss_host=f'host/other.test@{REALM}'))


async def test_a_key_exchange_with_an_impostor(key_ring, tmp_path, kdc):
    kdc.add_host('fourth.test', tmp_path / 'fourth.keytab')
    settings = {'gss_host': f'host/fourth.test@{REALM}', 'gss_store': str(tmp_path / 'fourth.keytab')}

    async with gss_server(key_ring, tmp_path, gss_kex=True, **settings) as (target, made):
        with pytest.raises(ssh_fast.KeyExchangeFailed, match='GSSAPI error'):
            await ssh_fast.connect(**kex_options(target, kdc.own))

        assert not hasattr(made[0], 'asked')


async def test_the_principal_of_a_key_exchange_is_judged(key_ring, tmp_path, kdc):
    async with gss_server(key_ring, tmp_path, gss_kex=True) as (target, _):
        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(**kex_options(target, kdc.mallorys))

        async with ssh_fast.connect(**kex_options(target, kdc.mallorys, username='mallory')) as conn:
            assert (await conn.run('x', check=True)).stdout == 'x by mallory'


async def test_a_key_exchange_without_the_login(key_ring, tmp_path, kdc):
    settings = {'gss_kex': True, 'gss_auth': False, 'authorized_client_keys': str(key_ring.public('user', 'ed25519'))}

    async with gss_server(key_ring, tmp_path, **settings) as (target, made):
        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(**kex_options(target, kdc.own))

        options = target.connect_options(gss_host=HOST, gss_store=kdc.own, gss_kex=True, gss_auth=False)

        async with ssh_fast.connect(**options) as conn:
            assert conn.get_extra_info('kex_alg').startswith('gss-')

        assert not hasattr(made[1], 'asked')


async def test_a_server_that_cannot_exchange_keys_does_not_listen(key_ring, tmp_path, kdc):
    with pytest.raises(ValueError, match='gss_kex: expected a key'):
        async with gss_server(key_ring, tmp_path, gss_kex=True, gss_store=str(tmp_path / 'none')):
            pass


async def test_the_loop_goes_on_while_a_kdc_is_silent_before_a_key_exchange(key_ring, tmp_path, kdc):
    cache = kdc.tickets(user_name(), '25m')

    async with gss_server(key_ring, tmp_path, gss_kex=True) as (target, made):
        with kdc.frozen():
            with pytest.raises(TimeoutError, match='took longer than 0.3 seconds'):
                await ssh_fast.connect(**kex_options(target, cache, connect_timeout=0.3))

        assert made == []

        async with ssh_fast.connect(**kex_options(target, cache)) as conn:
            assert conn.get_extra_info('kex_alg').startswith('gss-')


async def test_openssh_client_exchanges_keys(key_ring, tmp_path, kdc):
    async with gss_server(key_ring, tmp_path, gss_kex=True) as (target, made):
        for name in ('gss-group14-sha256-', 'gss-group16-sha512-', 'gss-nistp256-sha256-', 'gss-curve25519-sha256-'):
            options = (
                'GSSAPIAuthentication=yes',
                'GSSAPIKeyExchange=yes',
                f'GSSAPIKexAlgorithms={name}',
                'PreferredAuthentications=gssapi-keyex',
                'UserKnownHostsFile=/dev/null',
                'StrictHostKeyChecking=yes',
            )
            command = ssh(replace(target, host=HOST), 'hello', options=options)
            command = replace(command, environment={**command.environment, 'KRB5CCNAME': kdc.own})
            assert (await command.run_async()).stdout == f'hello by {user_name()}'.encode()
            assert made[-1].conn.get_extra_info('kex_alg').startswith(name)


@pytest.mark.parametrize('host_key', [True, False])
async def test_openssh_client_renews_keys(key_ring, tmp_path, kdc, host_key):
    settings = {'gss_kex': True, 'rekey_bytes': 65536, **({} if host_key else {'server_host_keys': None})}

    async def flood(process):
        process.stdout.write('x' * 300_000)
        process.exit(0)

    async with gss_server(key_ring, tmp_path, process_factory=flood, **settings) as (target, _):
        options = (
            'GSSAPIAuthentication=yes', 'GSSAPIKeyExchange=yes', 'PreferredAuthentications=gssapi-keyex',
            'UserKnownHostsFile=/dev/null', 'StrictHostKeyChecking=yes',
        )  # fmt: skip
        command = ssh(replace(target, host=HOST), 'x', options=options)
        command = replace(command, environment={**command.environment, 'KRB5CCNAME': kdc.own})
        assert len((await command.run_async()).stdout) == 300_000


@pytest.mark.parametrize('kex_alg', ['curve25519-sha256', 'ecdh-sha2-nistp256', 'diffie-hellman-group16-sha512'])
async def test_openssh_server_exchanges_keys(start_openssh, kdc, kex_alg):
    lines = [
        'GSSAPIAuthentication yes', 'GSSAPIKeyExchange yes', 'GSSAPIStrictAcceptorCheck no',
        'GSSAPIKexAlgorithms gss-group16-sha512-,gss-nistp256-sha256-,gss-curve25519-sha256-',
        'PubkeyAuthentication no',
    ]  # fmt: skip
    server = start_openssh(lines, log_level='DEBUG1')
    options = kex_options(server.target, kdc.own, kex_algs=[kex_alg], gss_delegate_creds=True)

    async with ssh_fast.connect(**options) as conn:
        for rekeys in range(3):
            assert conn.get_extra_info('kex_alg').startswith('gss-')
            assert (await conn.run('echo in', check=True)).stdout == 'in\n'
            assert conn._ssh.rekeys == rekeys
            conn._ssh.rekey()

    with pytest.raises(ssh_fast.PermissionDenied):
        await ssh_fast.connect(**kex_options(server.target, kdc.mallorys))


async def test_asyncssh_client_exchanges_keys(key_ring, tmp_path, kdc):
    asyncssh = pytest.importorskip('asyncssh')

    async with gss_server(key_ring, tmp_path, gss_kex=True) as (target, _):
        options = {**gss_options(target, {'ccache': kdc.own}), 'gss_kex': True, 'preferred_auth': KEX}
        async with asyncssh.connect(**options) as conn:
            assert (await conn.run('hello', check=True)).stdout == f'hello by {user_name()}'
            assert conn.get_extra_info('send_cipher')

        with pytest.raises(asyncssh.PermissionDenied):
            await asyncssh.connect(**{**options, 'gss_store': {'ccache': kdc.mallorys}})


async def test_asyncssh_server_exchanges_keys(key_ring, tmp_path, kdc):
    def run(process):
        process.stdout.write('from AsyncSSH')
        process.exit(0)

    settings = {'gss_host': HOST, 'gss_kex': True, 'authorized_client_keys': None, 'process_factory': run}

    async with asyncssh_server(key_ring, tmp_path, **settings) as target:
        async with ssh_fast.connect(**kex_options(target, kdc.own)) as conn:
            assert conn.get_extra_info('kex_alg').startswith('gss-')
            assert (await conn.run('x', check=True)).stdout == 'from AsyncSSH'

        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(**kex_options(target, kdc.mallorys))


# --- the contexts themselves


async def established(kdc):
    client = ClientContext(HOST, {'ccache': kdc.own}, delegate=False)
    server = ServerContext(HOST, None)
    await server.acquire()
    asked = await client.step(b'')
    answered = await server.step(asked.token)
    assert answered.complete and answered.protects_integrity
    assert await client.step(answered.token) == GSSStep(b'', True, True, True)
    return client, server, asked.token


async def test_mics(kdc):
    client, server, _ = await established(kdc)
    mic = client.sign(b'data')
    server.verify(b'data', mic)

    for data, wrong in ((b'date', mic), (b'data', mic[:-1]), (b'data', b''), (b'data', bytes(len(mic)))):
        with pytest.raises(GSSFailure):
            server.verify(data, wrong)

    other, _, _ = await established(kdc)
    with pytest.raises(GSSFailure):
        server.verify(b'data', other.sign(b'data'))

    # Its own MIC does not come back as the peer's.
    with pytest.raises(GSSFailure):
        server.verify(b'data', server.sign(b'data'))


async def test_bad_tokens(kdc):
    _, _, good = await established(kdc)
    flipped = good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]

    for token in (b'', b'x', bytes(1000), good[:-1], good[: len(good) // 2], flipped, b'\x60\x84\xff\xff\xff\xff'):
        server = ServerContext(HOST, None)
        await server.acquire()
        with pytest.raises(GSSFailure):
            await server.step(token)

        client = ClientContext(HOST, {'ccache': kdc.own}, delegate=False)
        assert not (await client.step(b'')).complete
        with pytest.raises(GSSFailure):
            await client.step(token)


async def test_a_library_that_cannot_be_loaded(kdc, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gssapi', None)

    with pytest.raises(GSSFailure, match='cannot be loaded'):
        await ClientContext(HOST, None, delegate=False).step(b'')
