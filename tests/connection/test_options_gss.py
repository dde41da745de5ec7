"""The options of GSSAPI, with and without its package."""

import pytest

from ssh_fast import ConfigParseError, SSHClientConnectionOptions, SSHServer, SSHServerConnectionOptions
from ssh_fast.connection import config_client_options, options_gss

BOTH = [SSHClientConnectionOptions, SSHServerConnectionOptions]
ASKING = [
    ('gss_auth', True), ('gss_kex', True), ('gss_host', 'server.example.com'), ('gss_store', '/tmp/x'),
    ('gss_store', {'a': 'b'}),
]  # fmt: skip


@pytest.fixture
def _installed(monkeypatch):
    monkeypatch.setattr(options_gss, 'gss_available', lambda: True)
    monkeypatch.setattr(config_client_options, 'gss_available', lambda: True)


@pytest.mark.parametrize('cls', BOTH)
@pytest.mark.parametrize(('name', 'value'), ASKING)
def test_without_the_package(monkeypatch, cls, name, value):
    monkeypatch.setattr(options_gss, 'gss_available', lambda: False)

    with pytest.raises(ValueError, match=rf"^{name}: GSSAPI needs the gssapi package: .*'ssh_fast\[gssapi\]'"):
        cls(config=None, **{name: value})

    assert cls(config=None, gss_auth=False, gss_host=None, gss_store=None).gss_auth is False


def test_delegation_without_the_package(monkeypatch):
    monkeypatch.setattr(options_gss, 'gss_available', lambda: False)

    with pytest.raises(ValueError, match=r'^gss_delegate_creds: .*ssh_fast\[gssapi\]'):
        SSHClientConnectionOptions(config=None, gss_delegate_creds=True)


@pytest.mark.usefixtures('_installed')
@pytest.mark.parametrize('cls', BOTH)
@pytest.mark.parametrize(('name', 'value'), ASKING)
def test_what_turns_it_on(cls, name, value):
    options = cls(config=None, **{name: value})

    assert options.gss_auth
    assert not cls(options, gss_auth=False).gss_auth
    assert not cls(options, gss_host=None).gss_auth
    assert not cls(config=None).gss_auth


@pytest.mark.usefixtures('_installed')
def test_methods_of_clients():
    def methods(**options):
        return SSHClientConnectionOptions(config=None, **options).preferred_auth

    others = (b'publickey', b'keyboard-interactive', b'password')
    assert methods(gss_auth=True) == (b'gssapi-keyex', b'gssapi-with-mic', *others)
    assert methods(gss_auth=True, preferred_auth='password,gssapi-with-mic') == (b'password', b'gssapi-with-mic')
    assert methods(preferred_auth='password,gssapi-with-mic') == (b'password',)
    assert methods() == others

    options = SSHClientConnectionOptions(config=None)
    options.update(gss_delegate_creds=True)
    assert options.preferred_auth == (b'gssapi-keyex', b'gssapi-with-mic', *others)
    assert options.gss_delegate_creds


@pytest.mark.usefixtures('_installed')
def test_a_clients_configuration(tmp_path):
    path = tmp_path / 'config'
    path.write_text(
        'Host on\n GSSAPIAuthentication yes\n GSSAPIDelegateCredentials yes\n'
        'Host off\n GSSAPIAuthentication no\nHost *\n GSSAPIDelegateCredentials no\n'
    )

    def options(host, **more):
        return SSHClientConnectionOptions(config=str(path), host=host, **more)

    assert (options('on').gss_auth, options('on').gss_delegate_creds) == (True, True)
    assert options('on').preferred_auth[:2] == (b'gssapi-keyex', b'gssapi-with-mic')
    assert not options('off').gss_auth
    assert not options('off', gss_host='x').gss_auth
    assert not options('on', gss_auth=False).gss_auth
    assert (options('other', gss_host='x').gss_auth, options('other').gss_auth) == (True, False)

    path.write_text('GSSAPIDelegateCredentials yes\n')
    assert not options('other').gss_auth

    path.write_text('GSSAPIAuthentication maybe\n')
    with pytest.raises(ConfigParseError, match='GSSAPIAuthentication'):
        options('other')


@pytest.mark.usefixtures('_installed')
def test_a_servers_configuration(tmp_path):
    path = tmp_path / 'config'
    path.write_text('GSSAPIAuthentication yes\nAuthenticationMethods gssapi-with-mic publickey,gssapi-with-mic\n')
    options = SSHServerConnectionOptions(config=str(path))

    assert options.gss_auth
    assert options.auth_methods == ((b'gssapi-with-mic',), (b'publickey', b'gssapi-with-mic'))

    path.write_text('Match User ann\n GSSAPIAuthentication yes\n')
    assert not SSHServerConnectionOptions(config=str(path)).gss_auth


@pytest.mark.parametrize('cls', BOTH)
def test_a_configuration_without_the_package(monkeypatch, tmp_path, cls):
    monkeypatch.setattr(config_client_options, 'gss_available', lambda: False)
    path = tmp_path / 'config'
    path.write_text('GSSAPIAuthentication yes\n')

    assert not cls(config=str(path)).gss_auth


@pytest.mark.usefixtures('_installed')
def test_stores():
    assert SSHClientConnectionOptions(config=None, gss_store='FILE:/x').gss_store == {'ccache': 'FILE:/x'}
    assert SSHServerConnectionOptions(gss_store=b'/x').gss_store == {'keytab': b'/x'}
    assert SSHServerConnectionOptions(gss_store={'keytab': '/x'}).gss_store == {'keytab': '/x'}


@pytest.mark.usefixtures('_installed')
@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('gss_auth', 'yes'), ('gss_auth', 1), ('gss_host', ''), ('gss_host', 'a b'), ('gss_host', 5),
        ('gss_store', 5), ('gss_store', ''), ('gss_store', {'keytab': 5}), ('gss_store', {5: 'x'}),
    ],
)  # fmt: skip
@pytest.mark.parametrize('cls', BOTH)
def test_bad_values(cls, name, value):
    with pytest.raises(ValueError, match=f'^{name}: '):
        cls(config=None, **{name: value})


@pytest.mark.parametrize(
    ('user', 'principal', 'valid'),
    [
        ('ann', 'ann@REALM', True), ('ann', 'ann@OTHER', False), ('ann', 'bob@REALM', False), ('ann', 'ann', False),
        ('ann', 'ann/admin@REALM', False), ('', '@REALM', False), ('ann', '', False),
    ],
)  # fmt: skip
def test_the_default_judgement_of_principals(user, principal, valid):
    assert SSHServer().validate_gss_principal(user, principal, 'host/server@REALM') is valid
    assert SSHServer().validate_gss_principal(user, principal, '') is False


@pytest.mark.usefixtures('_installed')
@pytest.mark.parametrize('cls', BOTH)
def test_key_exchange(cls):
    assert not cls(config=None, gss_auth=True, gss_host='server.example.com').gss_kex

    options = cls(config=None, gss_kex=True, gss_auth=False)
    assert options.gss_kex and not options.gss_auth
    assert not cls(options, gss_host=None).gss_kex
    assert not cls(options, gss_kex=False).gss_kex
    assert cls(options, kex_algs='curve25519-sha256').gss_kex

    with pytest.raises(ValueError, match='^gss_kex: expected one of kex_algs .* got mlkem768x25519-sha256'):
        cls(options, kex_algs='mlkem768x25519-sha256')

    with pytest.raises(ValueError, match='^gss_kex: expected True or False'):
        cls(config=None, gss_kex='yes')


@pytest.mark.usefixtures('_installed')
@pytest.mark.parametrize('cls', BOTH)
def test_key_exchange_by_a_configuration(tmp_path, cls):
    path = tmp_path / 'config'
    path.write_text('GSSAPIKeyExchange yes\n')
    options = cls(config=str(path))

    assert options.gss_kex and not options.gss_auth
    assert not cls(config=str(path), gss_kex=False).gss_kex
    assert not cls(config=str(path), gss_host=None).gss_kex

    # A file for many hosts may ask for what does not go with the methods chosen here.
    assert not cls(config=str(path), kex_algs='mlkem768x25519-sha256').gss_kex

    path.write_text('GSSAPIKeyExchange no\n')
    assert not cls(config=str(path)).gss_kex
    assert cls(config=str(path), gss_kex=True).gss_kex

    path.write_text('GSSAPIKeyExchange perhaps\n')
    with pytest.raises(ConfigParseError, match='(?i)gssapikeyexchange'):
        cls(config=str(path))


@pytest.mark.parametrize('cls', BOTH)
def test_key_exchange_by_a_configuration_without_the_package(monkeypatch, tmp_path, cls):
    monkeypatch.setattr(config_client_options, 'gss_available', lambda: False)
    path = tmp_path / 'config'
    path.write_text('GSSAPIKeyExchange yes\n')

    assert not cls(config=str(path)).gss_kex
