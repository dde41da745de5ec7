"""Options: every name of AsyncSSH's is known, values are checked, files are read once, nothing is silently ignored."""

import asyncio
import inspect
import re
import socket

import pytest

from ssh_fast.connection.callbacks import SSHClient, SSHServer
from ssh_fast.connection.options import SSHClientConnectionOptions, SSHServerConnectionOptions
from ssh_fast.errors import KeyEncryptionError, KeyImportError
from ssh_fast.keys.authorized_keys import SSHAuthorizedKeys
from ssh_fast.keys.key import generate_private_key
from ssh_fast.keys.keypair import SSHLocalKeyPair
from ssh_fast.keys.known_hosts import match_known_hosts
from ssh_fast.transport.algorithms import available_algorithms

CLIENT_NAMES = set(re.findall(r'\w+', """
    loop last_config config reload canonical final client_factory client_version host port tunnel proxy_command
    family local_addr tcp_keepalive utf8_decode_errors canonicalize_hostname canonical_domains
    canonicalize_fallback_local canonicalize_max_dots canonicalize_permitted_cnames kex_algs encryption_algs
    mac_algs compression_algs signature_algs host_based_auth public_key_auth kbdint_auth password_auth
    x509_trusted_certs x509_trusted_cert_paths x509_purposes rekey_bytes rekey_seconds connect_timeout
    login_timeout keepalive_interval keepalive_count_max known_hosts host_key_alias server_host_key_algs
    server_host_keys_handler username password client_host_keysign client_host_keys client_host_certs
    client_host client_username client_keys client_certs passphrase ignore_encrypted gss_host gss_store gss_kex
    gss_auth gss_delegate_creds preferred_auth disable_trivial_auth agent_path agent_identities agent_forwarding
    pkcs11_provider pkcs11_pin command subsystem env send_env request_pty term_type term_size term_modes
    x11_forwarding x11_display x11_auth_path x11_single_connection encoding errors window max_pktsize
"""))

SERVER_NAMES = set(re.findall(r'\w+', """
    loop last_config config reload canonical final accept_addr accept_port username client_host client_addr
    server_factory server_version host port tunnel proxy_command family local_addr tcp_keepalive
    utf8_decode_errors canonicalize_hostname canonical_domains canonicalize_fallback_local canonicalize_max_dots
    canonicalize_permitted_cnames kex_algs encryption_algs mac_algs compression_algs signature_algs
    host_based_auth public_key_auth kbdint_auth password_auth x509_trusted_certs x509_trusted_cert_paths
    x509_purposes rekey_bytes rekey_seconds connect_timeout login_timeout keepalive_interval keepalive_count_max
    server_host_keys server_host_certs send_server_host_keys passphrase known_client_hosts trust_client_host
    authorized_client_keys gss_host gss_store gss_kex gss_auth allow_pty line_editor line_echo line_history
    max_line_length rdns_lookup x11_forwarding x11_auth_path agent_forwarding process_factory session_factory
    encoding errors sftp_factory sftp_version allow_scp window max_pktsize
"""))

OUR_NAMES = set(re.findall(r'\w+', """
    auth_failure_delay max_connections max_startups per_source_max_startups per_source_net_block_size
    per_source_penalties per_source_penalty_exempt
    max_window auth_methods max_auth_tries max_sessions banner ca_signature_algs strict_host_key_checking
    update_host_keys hash_known_hosts revoked_host_keys revoked_keys trusted_user_ca_keys authorized_principals
    tcp_forwarding unix_forwarding tunnel_forwarding gateway_ports
"""))

BOTH = [SSHClientConnectionOptions, SSHServerConnectionOptions]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty home, so that the tester's own keys and hosts play no part."""

    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('LOGNAME', 'tester')
    monkeypatch.delenv('SSH_AUTH_SOCK', raising=False)
    (tmp_path / '.ssh').mkdir()

    return tmp_path


def write_key(path, alg='ssh-ed25519', **kwargs):
    key = generate_private_key(alg)
    key.write_private_key(path, **kwargs)

    return key


# --- names


@pytest.mark.parametrize(
    ('cls', 'names'), [(SSHClientConnectionOptions, CLIENT_NAMES), (SSHServerConnectionOptions, SERVER_NAMES)]
)
def test_every_name_is_known_and_may_be_unset(cls, names):
    options = cls(**dict.fromkeys(names, ()))

    assert not any(options.is_set(name) for name in names)
    assert len(names) > 70


@pytest.mark.parametrize('cls', BOTH)
def test_every_supported_name_is_an_attribute(cls):
    options = cls()
    hints = {name for base in cls.__mro__ for name in inspect.get_annotations(base) if not name.startswith('_')}

    for name in hints:
        assert hasattr(options, name), name

    hidden = {'passphrase', 'client_host_certs', 'server_host_certs', 'pkcs11_pin'}
    assert hints == cls._options.keys() - hidden


@pytest.mark.parametrize('cls', BOTH)
def test_unknown_names_are_refused(cls):
    with pytest.raises(TypeError, match="unexpected option 'hots'"):
        cls(hots='example.com')


UNSUPPORTED = {
    'tunnel': 'jump', 'proxy_command': 'nc %h %p', 'canonicalize_hostname': True,
    'canonical_domains': ['x'], 'canonicalize_fallback_local': False, 'canonicalize_max_dots': 2,
    'canonicalize_permitted_cnames': [('a', 'b')], 'loop': object(), 'last_config': object(),
    'reload': True, 'canonical': True, 'final': True, 'allow_scp': True, 'username': 'u', 'client_host': 'h',
    'client_addr': '::1', 'accept_addr': '::', 'accept_port': 22,
}  # fmt: skip


@pytest.mark.parametrize(
    ('cls', 'name', 'value'),
    [(cls, name, UNSUPPORTED[name]) for cls in BOTH for name in cls._unsupported],
)
def test_options_of_later_versions_are_refused(cls, name, value):
    with pytest.raises(ValueError, match=f"option '{name}' is not supported by this version"):
        cls(**{name: value})

    with pytest.raises(ValueError, match='not supported'):
        cls().update(**{name: value})


def test_supported_and_unsupported_names_together_are_all_names():
    for cls, names in zip(BOTH, [CLIENT_NAMES, SERVER_NAMES], strict=True):
        ours = cls._options.keys() & OUR_NAMES
        assert cls._options.keys() - ours <= names
        assert names == (cls._options.keys() | cls._unsupported.keys()) - ours


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('loop', None),
        ('last_config', None),
        ('reload', False),
    ],
)  # fmt: skip
def test_values_that_turn_an_unsupported_option_off_are_fine(name, value):
    assert not SSHClientConnectionOptions(**{name: value}).is_set(name)


# --- defaults


def test_client_defaults():
    options = SSHClientConnectionOptions()

    assert (options.host, options.port, options.username) == ('', 22, 'tester')
    assert options.client_factory is SSHClient
    assert options.password is None
    assert options.client_keys == ()
    assert options.known_hosts == [] or all(str(path).startswith('/etc/') for path in options.known_hosts)
    assert options.preferred_auth == (b'publickey', b'keyboard-interactive', b'password')
    assert (options.rekey_bytes, options.rekey_seconds) == (1 << 30, 3600)
    assert (options.connect_timeout, options.login_timeout) == (None, 120)
    assert (options.keepalive_interval, options.keepalive_count_max) == (0, 3)
    assert (options.window, options.max_window, options.max_pktsize) == (2 << 20, 16 << 20, 32768)
    assert (options.encoding, options.errors) == ('utf-8', 'strict')
    assert (options.env, options.send_env, options.request_pty) == ({}, (), True)
    assert options.tcp_keepalive
    assert not options.disable_trivial_auth

    for name, kind in (('kex_algs', 'kex'), ('server_host_key_algs', 'host_key'), ('signature_algs', 'signature')):
        assert getattr(options, name) == available_algorithms(kind)

    assert not options.is_set('server_host_key_algs')


def test_server_defaults():
    options = SSHServerConnectionOptions()

    assert options.server_factory is SSHServer
    assert options.server_host_keys == ()
    assert options.authorized_client_keys is None
    assert options.auth_methods == ()
    assert options.max_auth_tries == 6
    assert options.max_sessions == 10
    assert options.sftp_factory is None
    assert options.allow_pty
    assert options.banner is None


# --- values

GOOD = [
    ('port', 2222, 2222),
    ('host', 'example.com', 'example.com'),
    ('family', socket.AF_INET6, socket.AF_INET6),
    ('local_addr', ('127.0.0.1', 0), ('127.0.0.1', 0)),
    ('rekey_bytes', '1g', 1 << 30),
    ('rekey_bytes', '1.5K', 1536),
    ('rekey_bytes', 100, 100),
    ('rekey_seconds', '1h30m', 5400),
    ('rekey_seconds', '2d', 172800),
    ('rekey_seconds', 0.5, 0.5),
    ('login_timeout', 0, 0),
    ('login_timeout', '2m', 120),
    ('connect_timeout', None, None),
    ('connect_timeout', 0, None),
    ('connect_timeout', '10', 10),
    ('keepalive_interval', '30s', 30),
    ('encryption_algs', 'aes128-ctr,aes256-ctr', (b'aes128-ctr', b'aes256-ctr')),
    ('encryption_algs', ['aes256-ctr'], (b'aes256-ctr',)),
    ('mac_algs', '*-256', (b'hmac-sha2-256',)),
    ('kex_algs', 'default', available_algorithms('kex')),
    ('compression_algs', '^zlib@openssh.com', (b'zlib@openssh.com', b'none')),
    ('compression_algs', None, (b'none',)), ('mac_algs', [], ()),
    ('encoding', None, None),
    ('encoding', 'latin-1', 'latin-1'),
    ('errors', 'replace', 'replace'),
]

BAD = [
    ('port', 65536), ('port', -1), ('port', '22'), ('port', True), ('host', 5), ('host', 'a b'), ('host', 'a\0'),
    ('host', 'a\nb'), ('family', socket.AF_UNIX), ('local_addr', '127.0.0.1'), ('local_addr', ('a', 'b')),
    ('tcp_keepalive', 1), ('rekey_bytes', 0), ('rekey_bytes', '-1'), ('rekey_bytes', '1x'), ('rekey_bytes', 'g'),
    ('rekey_bytes', '1h'), ('rekey_bytes', None), ('rekey_bytes', float('nan')), ('rekey_bytes', float('inf')),
    ('rekey_seconds', 0), ('rekey_seconds', '1g'), ('rekey_seconds', -1), ('rekey_seconds', ' '),
    ('login_timeout', -1), ('login_timeout', 'soon'), ('login_timeout', float('nan')), ('login_timeout', True),
    ('keepalive_interval', '-5'), ('keepalive_count_max', 0), ('encryption_algs', 'aes128-cfb'),
    ('encryption_algs', 5), ('kex_algs', ['x']), ('kex_algs', [b'x']), ('compression_algs', 'lzma'),
    ('mac_algs', '-*'), ('signature_algs', 'ssh-xmss'), ('encoding', 'klingon'), ('encoding', 8), ('errors', 'nope'),
    ('utf8_decode_errors', 'nope'), ('window', 0), ('window', 1 << 32), ('max_pktsize', 0), ('max_pktsize', 1 << 20),
    ('max_window', 0), ('password_auth', 'yes'), ('public_key_auth', 0),
]  # fmt: skip


@pytest.mark.parametrize('cls', BOTH)
@pytest.mark.parametrize(('name', 'value', 'expected'), GOOD)
def test_good_values(cls, name, value, expected):
    options = cls(**{name: value})

    assert getattr(options, name) == expected
    assert options.is_set(name)


@pytest.mark.parametrize('cls', BOTH)
@pytest.mark.parametrize(('name', 'value'), BAD)
def test_bad_values_are_refused_by_name(cls, name, value):
    with pytest.raises(ValueError, match=f'^{name}: '):
        cls(**{name: value})


@pytest.mark.parametrize(
    ('name', 'value', 'expected'),
    [
        ('client_version', 'Mine_1.0', b'Mine_1.0'),
        ('client_version', b'x', b'x'),
        ('preferred_auth', 'password,publickey', (b'password', b'publickey')),
        ('preferred_auth', ['keyboard-interactive'], (b'keyboard-interactive',)),
        ('send_env', ['LANG', b'LC_*'], ('LANG', b'LC_*')),
        ('send_env', None, ()),
        ('env', {'A': 'b'}, {b'A': b'b'}),
        ('env', ['A=b=c'], {b'A': b'b=c'}),
        ('env', [(b'A', 'b')], {b'A': b'b'}),
        ('env', None, {}),
        ('request_pty', 'force', 'force'),
        ('term_size', (80, 24), (80, 24)),
        ('term_size', [80, 24, 640, 480], (80, 24, 640, 480)),
        ('term_modes', {53: 0}, {53: 0}),
        ('command', 'ls', 'ls'),
        ('subsystem', 'sftp', 'sftp'),
        ('host_key_alias', 'alias', 'alias'),
        ('disable_trivial_auth', True, True),
        ('username', 'jürgen', 'jürgen'),
    ],
)
def test_good_client_values(name, value, expected):
    assert getattr(SSHClientConnectionOptions(**{name: value}), name) == expected


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('client_version', ''), ('client_version', 'a\n'), ('client_version', 'vérsion'),
        ('client_version', 'x' * 300), ('client_version', 5), ('preferred_auth', 'external-keyx'),
        ('preferred_auth', 5), ('preferred_auth', [b'password']), ('send_env', 'LANG'), ('send_env', [5]),
        ('env', ['A']), ('env', 5), ('request_pty', 'yes'), ('term_size', (80,)), ('term_size', (80, -1)),
        ('term_modes', {0: 1}), ('term_modes', {53: -1}), ('term_modes', [53]), ('command', 5), ('username', ''),
        ('username', 'x' * 1025), ('username', 'a\0'), ('username', None), ('password', 5), ('password', b'secret'),
        ('password', 'x' * 1025), ('passphrase', 5), ('known_hosts', 5), ('known_hosts', [[], []]),
        ('agent_path', 5), ('client_factory', 5), ('client_keys', 5), ('agent_identities', 5),
    ],
)  # fmt: skip
def test_bad_client_values_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f'^{name}: '):
        SSHClientConnectionOptions(**{name: value})


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('sftp_version', 4), ('sftp_version', 6), ('auth_methods', 'publickey'), ('auth_methods', ['external-keyx']),
        ('auth_methods', [[]]), ('auth_methods', [5]), ('auth_methods', 5), ('authorized_client_keys', 5),
        ('authorized_client_keys', [5]), ('banner', b'x'), ('session_factory', 5),
        ('sftp_factory', 5), ('allow_pty', None), ('max_auth_tries', 0), ('max_sessions', 0), ('server_host_keys', 5),
        ('tcp_forwarding', True), ('unix_forwarding', 'all'), ('tunnel_forwarding', 'local'), ('gateway_ports', True),
    ],
)  # fmt: skip
def test_bad_server_values_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f'^{name}: '):
        SSHServerConnectionOptions(**{name: value})


def test_server_values():
    options = SSHServerConnectionOptions(
        auth_methods=['publickey,password', ['keyboard-interactive']],
        sftp_factory=True,
        banner='Hello\n',
        sftp_version=3,
    )

    assert options.auth_methods == ((b'publickey', b'password'), (b'keyboard-interactive',))
    assert options.sftp_factory is True
    assert options.banner == 'Hello\n'


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ({'window': 4 << 20}, (4 << 20, 16 << 20)),
        ({'window': 32 << 20}, (32 << 20, 32 << 20)),
        ({'max_window': 65536}, (65536, 65536)),
        ({'window': 65536, 'max_window': 1 << 20}, (65536, 1 << 20)),
    ],
)
def test_windows_keep_within_their_bound(given, expected):
    options = SSHServerConnectionOptions(**given)

    assert (options.window, options.max_window) == expected


def test_window_above_its_bound_is_refused():
    with pytest.raises(ValueError, match='at most max_window'):
        SSHClientConnectionOptions(window=65537, max_window=65536)

    with pytest.raises(ValueError, match='at most max_window'):
        SSHClientConnectionOptions(SSHClientConnectionOptions(max_window=65536), window=65537)


@pytest.mark.parametrize(('cls', 'name'), [(cls, name) for cls in BOTH for name in cls._options])
def test_no_option_takes_anything(cls, name):
    with pytest.raises(ValueError, match=f'^{name}: '):
        cls(**{name: object()})


# --- secrets


def test_secrets_are_not_shown():
    options = SSHClientConnectionOptions(password='hunter2', passphrase='hunter3', host='h')

    assert 'hunter' not in repr(options)
    assert repr(options) == "<SSHClientConnectionOptions host='h' port=22>"

    for name, value in (('password', b'hunter2'), ('passphrase', ['hunter2']), ('env', ['hunter2'])):
        with pytest.raises(ValueError) as error:
            SSHClientConnectionOptions(**{name: value})

        assert 'hunter' not in str(error.value)


def test_password_may_be_a_callable():
    options = SSHClientConnectionOptions(password=lambda: 'secret')

    assert callable(options.password)


# --- keys


def test_default_keys_are_loaded_and_encrypted_ones_left_out(home):
    plain = write_key(home / '.ssh/id_ed25519')
    write_key(home / '.ssh/id_ecdsa', 'ecdsa-sha2-nistp256', passphrase='secret', rounds=1, ignore_few_rounds=True)

    assert [pair.public_data for pair in SSHClientConnectionOptions().client_keys] == [plain.public_data]
    assert not SSHClientConnectionOptions().is_set('client_keys')
    assert SSHClientConnectionOptions(client_keys=[]).is_set('client_keys')
    assert len(SSHClientConnectionOptions(passphrase='secret').client_keys) == 2


def test_keys_in_every_form(home):
    key = write_key(home / 'key')
    other = generate_private_key('ssh-ed25519')

    for value in (
        str(home / 'key'),
        home / 'key',
        '~/key',
        [str(home / 'key')],
        key,
        [key],
        SSHLocalKeyPair(key),
        [SSHLocalKeyPair(key)],
        key.export_private_key(),
    ):
        options = SSHClientConnectionOptions(client_keys=value)
        assert [pair.public_data for pair in options.client_keys] == [key.public_data]
        options = SSHServerConnectionOptions(server_host_keys=value)
        assert [pair.public_data for pair in options.server_host_keys] == [key.public_data]

    assert len(SSHClientConnectionOptions(client_keys=['~/key', other]).client_keys) == 2


def test_errors_of_key_files_name_them(home):
    with pytest.raises(FileNotFoundError, match='missing'):
        SSHClientConnectionOptions(client_keys=[str(home / 'missing')])

    (home / 'broken').write_text('-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n')
    with pytest.raises(KeyImportError, match='broken'):
        SSHServerConnectionOptions(server_host_keys=str(home / 'broken'))

    write_key(home / 'locked', passphrase='secret', rounds=1, ignore_few_rounds=True)
    with pytest.raises(KeyEncryptionError, match='locked'):
        SSHClientConnectionOptions(client_keys='~/locked', passphrase='wrong')

    with pytest.raises(KeyImportError, match='locked'):
        SSHClientConnectionOptions(client_keys='~/locked')

    assert SSHClientConnectionOptions(client_keys='~/locked', ignore_encrypted=True).client_keys == ()
    assert len(SSHClientConnectionOptions(client_keys='~/locked', passphrase=lambda name: 'secret').client_keys) == 1


def test_no_keys_turns_key_authentication_off(home, monkeypatch):
    write_key(home / '.ssh/id_ed25519')
    monkeypatch.setenv('SSH_AUTH_SOCK', '/run/agent')

    for given in ({'client_keys': None}, {'public_key_auth': False}, {'client_keys': None, 'agent_path': '/run/agent'}):
        options = SSHClientConnectionOptions(**given)
        assert options.client_keys == ()
        assert options.agent_path is None
        assert options.preferred_auth == (b'keyboard-interactive', b'password')


def test_agent_path(monkeypatch, home):
    monkeypatch.setenv('SSH_AUTH_SOCK', '/run/agent')

    assert SSHClientConnectionOptions().agent_path == '/run/agent'
    assert SSHClientConnectionOptions(agent_path='~/agent').agent_path == str(home / 'agent')
    assert SSHClientConnectionOptions(agent_path=None).agent_path is None


def test_agent_identities(home):
    key = generate_private_key('ssh-ed25519').convert_to_public()
    key.write_public_key(home / 'key.pub')

    for value in (key, [key], '~/key.pub', [str(home / 'key.pub')], key.export_public_key()):
        assert SSHClientConnectionOptions(agent_identities=value).agent_identities == (key.public_data,)

    assert SSHClientConnectionOptions(agent_identities=None).agent_identities is None


def test_flags_take_methods_away():
    options = SSHClientConnectionOptions(password_auth=False, preferred_auth='password,publickey,keyboard-interactive')
    assert options.preferred_auth == (b'publickey', b'keyboard-interactive')

    options = SSHClientConnectionOptions(options, kbdint_auth=False)
    assert options.preferred_auth == (b'publickey',)

    options = SSHClientConnectionOptions(options, password_auth=True)
    assert options.preferred_auth == (b'password', b'publickey')


# --- trust


def line(host, key):
    return f'{host} {key.export_public_key().decode()}'


def test_known_hosts_in_every_form(home):
    key = generate_private_key('ssh-ed25519').convert_to_public()
    text = line('example.com', key)
    path = home / 'hosts'
    path.write_text(text)

    lists = ([key], [], [])

    for value in (str(path), path, '~/hosts', [str(path)], text.encode(), lists, lambda *args: lists):
        options = SSHClientConnectionOptions(known_hosts=value)
        assert match_known_hosts(options.known_hosts, 'example.com', '', 22).host_keys == [key]

    assert SSHClientConnectionOptions(known_hosts=None).known_hosts is None

    with pytest.raises(FileNotFoundError, match='missing'):
        SSHClientConnectionOptions(known_hosts=str(home / 'missing'))


def test_default_known_hosts_are_the_users(home):
    key = generate_private_key('ssh-ed25519').convert_to_public()
    (home / '.ssh/known_hosts').write_text(line('example.com', key))
    options = SSHClientConnectionOptions()

    assert match_known_hosts(options.known_hosts, 'example.com', '', 22).host_keys == [key]
    assert match_known_hosts(options.known_hosts, 'example.org', '', 22).host_keys == []


def test_authorized_keys(home):
    key = generate_private_key('ssh-ed25519').convert_to_public()
    path = home / 'authorized'
    path.write_bytes(key.export_public_key())

    for value in (str(path), '~/authorized', [str(path)], SSHAuthorizedKeys(path.read_text())):
        options = SSHServerConnectionOptions(authorized_client_keys=value)
        assert options.authorized_client_keys.validate(key, '', '') == {}

    assert SSHServerConnectionOptions(authorized_client_keys=None).authorized_client_keys is None

    with pytest.raises(FileNotFoundError, match='missing'):
        SSHServerConnectionOptions(authorized_client_keys=str(home / 'missing'))


# --- one object from another


def test_options_from_options():
    base = SSHClientConnectionOptions(username='user', port=2222, encryption_algs='aes128-ctr')
    options = SSHClientConnectionOptions(base, host='h', port=())

    assert (options.host, options.port, options.username) == ('h', 22, 'user')
    assert options.encryption_algs == (b'aes128-ctr',)
    assert (base.host, base.port) == ('', 2222)
    assert not options.is_set('port')
    assert options.is_set('username')


def test_keys_are_loaded_once(home, monkeypatch):
    key = write_key(home / 'key')
    base = SSHClientConnectionOptions(client_keys='~/key', known_hosts=b'')
    (home / 'key').unlink()

    options = SSHClientConnectionOptions(base, host='h', password='secret')
    assert options.client_keys is base.client_keys
    assert options.known_hosts is base.known_hosts
    assert [pair.public_data for pair in options.client_keys] == [key.public_data]

    with pytest.raises(FileNotFoundError):
        SSHClientConnectionOptions(base, passphrase='secret')


def test_update_sets_all_or_nothing():
    options = SSHClientConnectionOptions(port=2222)
    options.update(host='h', login_timeout='1m')
    assert (options.host, options.port, options.login_timeout) == ('h', 2222, 60)

    with pytest.raises(ValueError):
        options.update(host='other', port=-1)

    assert (options.host, options.port) == ('h', 2222)
    assert not options.is_set('login_grace')


def test_options_do_not_change_by_assignment():
    options = SSHClientConnectionOptions()

    with pytest.raises(AttributeError, match=r'update\(port=...\)'):
        options.port = 2222


def test_options_of_the_other_side_are_refused():
    with pytest.raises(TypeError, match='SSHClientConnectionOptions'):
        SSHClientConnectionOptions(SSHServerConnectionOptions())


async def test_construct():
    base = await SSHClientConnectionOptions.construct(host='h')
    assert base.host == 'h'
    assert await SSHClientConnectionOptions.construct(base) is base
    assert (await SSHClientConnectionOptions.construct(base, port=1)).port == 1

    with pytest.raises(ValueError, match=r'^port: '):
        await SSHClientConnectionOptions.construct(base, port=-1)


async def test_construct_leaves_the_loop_free(home):
    write_key(home / 'key', passphrase='secret', rounds=64)
    turns = 0

    async def count():
        nonlocal turns

        while True:
            turns += 1
            await asyncio.sleep(0.001)

    task = asyncio.create_task(count())
    await SSHClientConnectionOptions.construct(client_keys='~/key', passphrase='secret')
    task.cancel()

    assert turns > 10
