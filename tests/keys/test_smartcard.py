"""Keys of tokens: a token made of software by SoftHSM."""

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ssh_fast
from ssh_fast.errors import KeyImportError
from ssh_fast.keys.key import decode_public_key, verify_signature
from ssh_fast.keys.smartcard import load_pkcs11_keys

PROVIDER = '/usr/lib/softhsm/libsofthsm2.so'
PIN = '1234'

needs_softhsm = pytest.mark.skipif(
    not Path(PROVIDER).exists() or not shutil.which('softhsm2-util'), reason='needs the Debian package softhsm2'
)


@pytest.fixture(scope='module')
def token(tmp_path_factory):
    """A token with a key of each type; the library reads its settings once in a process."""
    pkcs11 = pytest.importorskip('pkcs11')
    from pkcs11.util.ec import encode_named_curve_parameters

    folder = tmp_path_factory.mktemp('softhsm')
    (folder / 'tokens').mkdir()
    (folder / 'conf').write_text(f'directories.tokendir = {folder / "tokens"}\n')
    os.environ['SOFTHSM2_CONF'] = str(folder / 'conf')
    init = ['softhsm2-util', '--init-token', '--free', '--label', 'a token', '--pin', PIN, '--so-pin', PIN]
    subprocess.run(init, check=True, capture_output=True)
    made = pkcs11.lib(PROVIDER).get_token(token_label='a token')

    with made.open(user_pin=PIN, rw=True) as session:
        session.generate_keypair(pkcs11.KeyType.RSA, 2048, store=True, label='rsa', id=b'\1')
        session.generate_keypair(pkcs11.KeyType.RSA, 1024, store=True, label='short', id=b'\x0f')

        for number, name in enumerate(['secp256r1', 'secp384r1', 'secp521r1', 'secp256k1'], 2):
            parameters = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(name)}
            domain = session.create_domain_parameters(pkcs11.KeyType.EC, parameters, local=True)
            domain.generate_keypair(store=True, label=name, id=bytes([number]))

        parameters = {pkcs11.Attribute.EC_PARAMS: b'\x13\x0cedwards25519'}
        domain = session.create_domain_parameters(pkcs11.KeyType.EC_EDWARDS, parameters, local=True)
        mechanism = pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN
        domain.generate_keypair(mechanism=mechanism, store=True, label='edwards', id=b'\x08')

    yield made
    gc.collect()
    del os.environ['SOFTHSM2_CONF']


@needs_softhsm
def test_keys_of_every_type_sign(token):
    pairs = load_pkcs11_keys(PROVIDER, PIN)
    assert sorted(pair.get_algorithm() for pair in pairs) == [
        'ecdsa-sha2-nistp256',
        'ecdsa-sha2-nistp384',
        'ecdsa-sha2-nistp521',
        'ssh-ed25519',
        'ssh-rsa',
    ]

    for pair in pairs:
        assert pair.get_key_type() == 'pkcs11'
        assert pair.get_comment().startswith('a token: ')
        assert pair.use_executor
        key = decode_public_key(pair.public_data)

        for algorithm in pair.sig_algorithms:
            pair.set_sig_algorithm(algorithm)
            assert verify_signature(key, b'data', pair.sign(b'data'), {algorithm})


@needs_softhsm
def test_keys_are_chosen(token):
    def names(**kwargs):
        return [pair.get_comment().removeprefix('a token: ') for pair in load_pkcs11_keys(PROVIDER, PIN, **kwargs)]

    assert names(key_label='rsa') == ['rsa']
    assert names(key_id='02') == names(key_id=b'\2') == ['secp256r1']
    assert names(token_label='a token', key_id='03') == ['secp384r1']
    assert names(token_serial=token.serial, key_id='03') == ['secp384r1']
    assert names(token_serial=token.serial.decode(), key_id='03') == ['secp384r1']
    assert names(token_label='another') == names(token_serial='x') == names(key_label='other') == []

    with pytest.raises(ValueError, match='key_id'):
        names(key_id='xy')


@needs_softhsm
async def test_a_login_with_a_token(token):
    pairs = load_pkcs11_keys(PROVIDER, PIN, key_label='secp256r1')
    line = decode_public_key(pairs[0].public_data).export_public_key().decode()
    server = await ssh_fast.listen(
        '127.0.0.1',
        0,
        server_host_keys=[ssh_fast.generate_private_key('ssh-ed25519')],
        authorized_client_keys=ssh_fast.import_authorized_keys(line),
        process_factory=lambda process: process.exit(0),
    )

    async with (
        server,
        ssh_fast.connect(
            '127.0.0.1',
            server.get_port(),
            known_hosts=None,
            username='user',
            client_keys=pairs,
            agent_path=None,
            config=None,
        ) as conn,
    ):
        assert (await conn.run('x')).exit_status == 0


@needs_softhsm
def test_options_and_configurations_name_a_provider(token, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.delenv('SSH_AUTH_SOCK', raising=False)
    (tmp_path / 'config').write_text(f'PKCS11Provider {PROVIDER}\n')
    own = ssh_fast.generate_private_key('ssh-ed25519')

    for kwargs, before in [
        ({'pkcs11_provider': PROVIDER, 'config': None}, 0),
        ({'pkcs11_provider': PROVIDER, 'config': None, 'client_keys': [own]}, 1),
        ({'config': str(tmp_path / 'config')}, 0),
    ]:
        options = ssh_fast.SSHClientConnectionOptions(host='example.com', pkcs11_pin=PIN, **kwargs)
        assert [pair.get_key_type() for pair in options.client_keys] == ['local'] * before + ['pkcs11'] * 5
        assert PIN not in repr(options)

    for kwargs in ({'client_keys': None}, {'public_key_auth': False}):
        given = {'pkcs11_provider': '/nowhere.so', **kwargs}
        assert ssh_fast.SSHClientConnectionOptions(config=None, **given).client_keys == ()

    with pytest.raises(KeyImportError, match=r'nowhere\.so'):
        ssh_fast.SSHClientConnectionOptions(config=None, pkcs11_provider='/nowhere.so')


@needs_softhsm
def test_what_fails_is_typed(token):
    gc.collect()

    with pytest.raises(KeyImportError, match='failed: PinIncorrect'):
        load_pkcs11_keys(PROVIDER, '9999')

    with pytest.raises(KeyImportError, match=r'nowhere\.so'):
        load_pkcs11_keys('/nowhere.so', PIN)

    pair, again = (load_pkcs11_keys(PROVIDER, PIN, key_label='rsa')[0] for _ in range(2))
    assert verify_signature(decode_public_key(pair.public_data), b'data', again.sign(b'data'), {again.sig_algorithm})
    pair._session._session.close()

    with pytest.raises(KeyImportError, match='The token failed'):
        pair.sign(b'data')


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pkcs11', None)

    with pytest.raises(KeyImportError, match=r'ssh_fast\[pkcs11\]'):
        load_pkcs11_keys(PROVIDER)
