"""Logins and host keys by X.509 certificates, ours with ours: who is trusted for what, and what is offered."""

import asyncio

import pytest

import ssh_fast
from ssh_fast.connection.options import SSHClientConnectionOptions, SSHServerConnectionOptions
from ssh_fast.errors import HostKeyNotVerifiable, KeyExchangeFailed, PermissionDenied

CA, MID_KEY, HOST_KEY, USER_KEY, OTHER = (ssh_fast.generate_private_key('ecdsa-sha2-nistp256') for _ in range(5))
RSA = ssh_fast.generate_private_key('ssh-rsa', key_size=2048)
ROOT = CA.generate_x509_ca_certificate(CA, 'O=Example,CN=Root')
MID = CA.generate_x509_ca_certificate(MID_KEY, 'CN=Mid', issuer='O=Example,CN=Root')
HOST = MID_KEY.generate_x509_host_certificate(HOST_KEY, 'O=Example,CN=host', issuer='CN=Mid', principals='127.0.0.1')
USER = MID_KEY.generate_x509_user_certificate(USER_KEY, 'O=Example,CN=user', issuer='CN=Mid', principals='alice')
NOBODY = ([], [], [])


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty home, so that the tester's own keys and hosts play no part."""

    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.delenv('SSH_AUTH_SOCK', raising=False)


async def login(server=None, **client):
    """Log in by default as a user whose certificate is right, at a host whose is; return the key of the host."""

    server = {'server_host_keys': [(HOST_KEY, [HOST, MID])], 'x509_trusted_certs': ROOT, **(server or {})}
    client = {
        'known_hosts': NOBODY,
        'x509_trusted_certs': [ROOT],
        'username': 'alice',
        'client_keys': [(USER_KEY, [USER, MID])],
        **client,
    }

    async with await ssh_fast.listen(
        '127.0.0.1', 0, process_factory=lambda process: process.exit(0), **server
    ) as acceptor:
        async with asyncio.timeout(20), ssh_fast.connect('127.0.0.1', acceptor.get_port(), **client) as conn:
            return conn.get_server_host_key()


async def test_both_sides():
    assert (await login()).public_data == HOST_KEY.public_data


async def test_rsa():
    host = CA.generate_x509_host_certificate(RSA, 'CN=h', issuer='O=Example,CN=Root', principals=['127.0.0.1'])
    user = CA.generate_x509_user_certificate(RSA, 'CN=alice', issuer='O=Example,CN=Root')
    key = await login({'server_host_keys': [(RSA, host)]}, client_keys=[(RSA, user)])
    assert key.public_data == RSA.public_data


def user(subject='CN=u', **kwargs):
    return CA.generate_x509_user_certificate(USER_KEY, subject, issuer='O=Example,CN=Root', **kwargs)


@pytest.mark.parametrize(
    ('server', 'client'),
    [
        ({}, {'username': 'bob'}),
        ({}, {'client_keys': [(USER_KEY, USER)]}),
        ({'x509_trusted_certs': []}, {}),
        ({'x509_trusted_certs': None}, {}),
        ({'x509_purposes': 'serverAuth'}, {}),
        ({'x509_trusted_certs': OTHER.generate_x509_ca_certificate(OTHER, 'O=Example,CN=Root')}, {}),
        ({'revoked_keys': USER_KEY.export_public_key()}, {}),
        ({'revoked_keys': MID_KEY.export_public_key()}, {}),
        ({'revoked_keys': CA.export_public_key()}, {}),
        ({'revoked_keys': USER.export_certificate()}, {}),
        ({'revoked_keys': MID.export_certificate()}, {}),
        ({}, {'client_keys': [(USER_KEY, user('CN=u', principals='alice@x,bob'))]}),
        ({}, {'client_keys': [(USER_KEY, user('CN=alice', principals='bob'))]}),
        ({}, {'client_keys': [(USER_KEY, user('CN=alice', valid_before='20200101'))]}),
        (
            {},
            {
                'client_keys': [
                    (
                        USER_KEY,
                        CA.generate_x509_host_certificate(
                            USER_KEY, 'CN=alice', issuer='O=Example,CN=Root', principals='alice'
                        ),
                    )
                ]
            },
        ),
        ({'signature_algs': 'rsa-sha2-256'}, {}),
    ],
)
async def test_users_who_are_refused(server, client):
    if 'signature_algs' in server:
        server['server_host_keys'] = [
            (RSA, CA.generate_x509_host_certificate(RSA, 'CN=h', issuer='O=Example,CN=Root', principals='127.0.0.1'))
        ]

    with pytest.raises(PermissionDenied):
        await login(server, **client)


async def test_authorized_keys():
    line = ROOT.export_certificate().decode()
    own = user('CN=carol').export_certificate().decode()

    for text, client in (
        (f'cert-authority {line}', {}),
        (f'cert-authority,principals="alice",subject="O=Example,*" {line}', {'username': 'bob'}),
        (own, {'client_keys': [(USER_KEY, ssh_fast.import_certificate(own))]}),
    ):
        keys = ssh_fast.import_authorized_keys(text)
        assert await login({'x509_trusted_certs': [], 'authorized_client_keys': keys}, **client)

        with pytest.raises(PermissionDenied):
            await login({'x509_trusted_certs': None, 'authorized_client_keys': keys}, **client)

    for text, client in (
        (line, {}),
        (f'cert-authority {line}', {'username': 'bob'}),
        (f'cert-authority,subject="O=Other,*" {line}', {}),
        (f'cert-authority {HOST.export_certificate().decode()}', {}),
    ):
        keys = ssh_fast.import_authorized_keys(text)

        with pytest.raises(PermissionDenied):
            await login({'x509_trusted_certs': [], 'authorized_client_keys': keys}, **client)


async def test_the_options_of_a_line_hold():
    keys = ssh_fast.import_authorized_keys(f'cert-authority,command="forced" {ROOT.export_certificate().decode()}')
    commands = []

    def run(process):
        commands.append(process.command)
        process.exit(0)

    async with (
        await ssh_fast.listen(
            '127.0.0.1', 0, process_factory=run, server_host_keys=[HOST_KEY], authorized_client_keys=keys
        ) as acceptor,
        ssh_fast.connect(
            '127.0.0.1', acceptor.get_port(), known_hosts=None, username='alice', client_keys=[(USER_KEY, [USER, MID])]
        ) as conn,
    ):
        await conn.run('asked')

    assert commands == ['forced']


async def test_a_revoked_certificate_whose_signature_is_written_differently():
    # One whose last bit is 0, which can be said to be unused
    made = (
        MID_KEY.generate_x509_user_certificate(USER_KEY, 'CN=u', issuer='CN=Mid', principals='alice')
        for _ in range(200)
    )
    cert = next(cert for cert in made if cert.x509_cert.signature[-1] % 2 == 0)
    der = cert.export_certificate('der')
    at = len(der) - len(cert.x509_cert.signature) - 1
    assert der[at] == 0
    changed = ssh_fast.import_certificate(der[:at] + b'\1' + der[at + 1 :])
    assert changed != cert
    client = {'client_keys': [(USER_KEY, [changed, MID])]}
    assert await login(**client)

    with pytest.raises(PermissionDenied):
        await login({'revoked_keys': cert.export_certificate()}, **client)


def host(**kwargs):
    return CA.generate_x509_host_certificate(HOST_KEY, 'CN=h', issuer='O=Example,CN=Root', **kwargs)


@pytest.mark.parametrize(
    ('certs', 'client', 'message'),
    [
        ([HOST, MID], {'x509_trusted_certs': [USER]}, 'not issued by'),
        ([HOST], {}, 'not issued by'),
        ([HOST, MID], {'x509_purposes': ['clientAuth']}, 'other purposes'),
        ([host(principals='127.0.0.2,localhost')], {}, 'not made out'),
        ([host()], {}, 'not made out'),
        ([host(principals='127.0.0.1', valid_before='20200101')], {}, 'expired'),
        ([HOST, MID], {'revoked_host_keys': MID_KEY.export_public_key()}, 'revoked'),
        ([HOST, MID], {'revoked_host_keys': HOST_KEY.export_public_key()}, 'revoked'),
        ([HOST, MID], {'known_hosts': ([], [], [], [], [MID], [], [])}, 'revoked'),
        ([HOST, MID], {'known_hosts': ([], [], [], [], [], [], ['O=Example,*'])}, 'subject is revoked'),
        ([HOST, MID], {'known_hosts': ([], [], [], [], [], ['O=Other,*'], [])}, 'not made out'),
        ([HOST, MID], {'known_hosts': ([], [], [CA])}, 'revoked'),
        ([HOST, MID], {'x509_trusted_certs': None}, 'not in known_hosts'),
        ([HOST, MID], {'x509_trusted_certs': []}, 'not in known_hosts'),
    ],
)
async def test_hosts_that_are_refused(certs, client, message):
    with pytest.raises(HostKeyNotVerifiable, match=message):
        await login({'server_host_keys': [(HOST_KEY, certs)]}, **client)


LISTED = host()


@pytest.mark.parametrize(
    ('certs', 'client'),
    [
        ([HOST, MID], {'x509_trusted_certs': (), 'known_hosts': ([], [], [], [ROOT], [], [], [])}),
        ([HOST, MID], {'x509_trusted_certs': (), 'known_hosts': b'127.0.0.1 ' + ROOT.export_certificate()}),
        ([LISTED], {'x509_trusted_certs': [], 'known_hosts': b'127.0.0.1 ' + LISTED.export_certificate()}),
        ([host()], {'known_hosts': b'127.0.0.1 x509v3-ssh-rsa subject=CN=h'}),
        ([host()], {'known_hosts': ([HOST_KEY.convert_to_public()], [], [])}),
        ([HOST, MID], {'x509_purposes': None}),
    ],
)
async def test_hosts_that_are_trusted(certs, client):
    assert await login({'server_host_keys': [(HOST_KEY, certs)]}, **client)


async def test_x509_is_asked_for_only_where_it_is_trusted():
    with pytest.raises(HostKeyNotVerifiable, match='no X.509 certificate is trusted'):
        await login(x509_trusted_certs=[], server_host_key_algs=['x509v3-ecdsa-sha2-nistp256'])

    assert await login(server_host_key_algs=['x509v3-ecdsa-sha2-nistp256'])

    with pytest.raises(KeyExchangeFailed):
        await login(server_host_key_algs=['x509v3-ssh-ed448'])


# --- options


def test_files_of_trusted_certificates(tmp_path):
    bundle, folder = tmp_path / 'bundle', tmp_path / 'crt'
    bundle.write_bytes(ROOT.export_certificate('pem') + MID.export_certificate('pem'))
    folder.mkdir()
    (folder / '0123abcd.0').write_bytes(ROOT.export_certificate('pem'))
    (folder / '0123abcd.1').write_bytes(b'-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')
    (folder / 'other.pem').write_bytes(MID.export_certificate('pem'))

    for cls in (SSHClientConnectionOptions, SSHServerConnectionOptions):
        assert cls().x509_authorities == ()
        options = cls(x509_trusted_certs=str(bundle), x509_trusted_cert_paths=[folder])
        assert options.x509_trusted_certs == (ROOT, MID)
        assert options.x509_trusted_cert_paths == (ROOT,)
        assert options.x509_authorities == (ROOT, MID, ROOT)
        assert cls(x509_trusted_certs=None, x509_trusted_cert_paths=[folder]).x509_authorities is None
        assert cls(x509_purposes=None).x509_purposes is None
        assert [oid.dotted_string for oid in cls(x509_purposes='any,1.2.3').x509_purposes] == ['2.5.29.37.0', '1.2.3']

        for wrong in (
            {'x509_purposes': 'x'},
            {'x509_purposes': 5},
            {'x509_trusted_certs': 5},
            {'x509_purposes': []},
            {'x509_trusted_cert_paths': [5]},
            {'x509_trusted_certs': CA.generate_user_certificate(CA, 'x')},
        ):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                cls(**wrong)

        with pytest.raises(OSError):
            cls(x509_trusted_certs=str(tmp_path / 'missing'))

        with pytest.raises(OSError):
            cls(x509_trusted_cert_paths=[tmp_path / 'missing'])


def test_the_users_own_files(tmp_path):
    (tmp_path / '.ssh' / 'crt').mkdir(parents=True)
    (tmp_path / '.ssh' / 'ca-bundle.crt').write_bytes(MID.export_certificate('pem'))
    (tmp_path / '.ssh' / 'crt' / '00000000.0').write_bytes(ROOT.export_certificate('der'))
    assert SSHClientConnectionOptions().x509_authorities == (MID, ROOT)
    assert SSHServerConnectionOptions().x509_authorities == ()
