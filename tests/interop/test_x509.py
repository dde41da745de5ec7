"""X.509 certificates with AsyncSSH as the other side, which needs pyOpenSSL for them."""

import asyncio

import pytest

import ssh_fast
from ssh_fast.errors import HostKeyNotVerifiable, PermissionDenied

asyncssh = pytest.importorskip('asyncssh')
pytest.importorskip('OpenSSL', reason='pyOpenSSL is not installed: AsyncSSH has no X.509 certificates without it')

CA = ssh_fast.generate_private_key('ecdsa-sha2-nistp384')
MID_KEY = ssh_fast.generate_private_key('ssh-rsa', key_size=2048)
ROOT = CA.generate_x509_ca_certificate(CA, 'O=Example,CN=Root', ca_path_len=1)
MID = CA.generate_x509_ca_certificate(MID_KEY, 'CN=Mid', issuer='O=Example,CN=Root', ca_path_len=0)
ALGORITHMS = ['ssh-ed25519', 'ssh-ed448', 'ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp521', 'ssh-rsa']
KEYS = {name: ssh_fast.generate_private_key(name) for name in ALGORITHMS}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty home, so that the tester's own keys and hosts play no part."""

    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.delenv('SSH_AUTH_SOCK', raising=False)


def give(package, key, certs):
    """Hand a key and certificates to one of the two packages, in files' formats."""

    return (
        package.import_private_key(key.export_private_key()),
        [package.import_certificate(cert.export_certificate('pem')) for cert in certs],
    )


async def login(server, client, key, host_cert, user_cert, username='alice', trusted=ROOT, **options):
    _, [server_root] = give(server, key, [ROOT])
    _, [client_root] = give(client, key, [trusted])
    authorized = server.import_authorized_keys('cert-authority ' + ROOT.export_certificate().decode())
    acceptor = await server.listen(
        '127.0.0.1', 0, server_host_keys=[give(server, key, [host_cert, MID])], x509_trusted_certs=[server_root],
        authorized_client_keys=authorized, process_factory=lambda process: process.exit(7),
    )  # fmt: skip

    try:
        async with asyncio.timeout(20), client.connect(
            '127.0.0.1', acceptor.get_port(), known_hosts=([], [], [], [], [], [], []), username=username, config=None,
            client_keys=[give(client, key, [user_cert, MID])], x509_trusted_certs=[client_root], **options,
        ) as conn:  # fmt: skip
            return (await conn.run('x')).exit_status
    finally:
        acceptor.close()
        await acceptor.wait_closed()


BOTH = pytest.mark.parametrize(
    ('server', 'client'), [(ssh_fast, asyncssh), (asyncssh, ssh_fast)], ids=['to-ours', 'to-theirs']
)


@BOTH
@pytest.mark.parametrize('name', ALGORITHMS)
async def test_certificates_of_ours(server, client, name):
    key = KEYS[name]
    host = MID_KEY.generate_x509_host_certificate(key, 'CN=host', issuer='CN=Mid', principals='127.0.0.1')
    user = MID_KEY.generate_x509_user_certificate(key, 'CN=user', issuer='CN=Mid', principals=['alice', 'carol'])
    assert await login(server, client, key, host, user) == 7
    assert await login(server, client, key, host, user, username='carol') == 7

    with pytest.raises((PermissionDenied, asyncssh.PermissionDenied)):
        await login(server, client, key, host, user, username='bob')


@BOTH
async def test_certificates_of_theirs(server, client):
    key, mid = KEYS['ssh-rsa'], asyncssh.import_private_key(MID_KEY.export_private_key())
    public = asyncssh.import_public_key(key.export_public_key())
    host, user = (
        ssh_fast.import_certificate(cert.export_certificate('pem'))
        for cert in (
            mid.generate_x509_host_certificate(public, 'CN=host', issuer='CN=Mid', principals='127.0.0.1'),
            mid.generate_x509_user_certificate(public, 'O=x,CN=user', issuer='CN=Mid', principals='alice'),
        )
    )
    assert user.user_principals == ['alice']
    assert await login(server, client, key, host, user) == 7


@BOTH
async def test_hosts_that_are_refused(server, client):
    key = KEYS['ssh-ed25519']
    host = MID_KEY.generate_x509_host_certificate(key, 'CN=host', issuer='CN=Mid', principals='127.0.0.1')
    user = MID_KEY.generate_x509_user_certificate(key, 'CN=user', issuer='CN=Mid', principals='alice')
    other = MID_KEY.generate_x509_host_certificate(key, 'CN=host', issuer='CN=Mid', principals='127.0.0.2')
    refusals = (HostKeyNotVerifiable, asyncssh.HostKeyNotVerifiable)

    for cert, options in (
        (host, {'trusted': KEYS['ssh-rsa'].generate_x509_ca_certificate(KEYS['ssh-rsa'], 'O=Example,CN=Root')}),
        (host, {'x509_purposes': 'serverAuth'}),
        (other, {}),
        (user, {}),
    ):
        with pytest.raises(refusals):
            await login(server, client, key, cert, user, **options)
