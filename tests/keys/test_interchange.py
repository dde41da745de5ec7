"""Keys of every type in every format and cipher, read by ssh-keygen or openssl and made by them."""

import shutil
import subprocess
import warnings

import asyncssh
import pytest

from ssh_fast.errors import KeyEncryptionError, KeyExportError
from ssh_fast.keys.load import import_private_key, import_public_key, load_keypairs, read_private_key, read_public_key
from tests.keys.test_formats import CIPHERS, KEYGEN_TYPES, write_secret
from tests.keys.test_key import ALGORITHMS, ALL_ALGORITHMS, KEYS, OTHER_ALGORITHMS, PUBLIC

pytestmark = pytest.mark.skipif(not shutil.which('openssl'), reason='needs the Debian package openssl')

TRADITIONAL = [name for name in ALL_ALGORITHMS if KEYS[name].has_traditional_format]
PKCS8_CIPHERS = ['aes128-cbc', 'aes192-cbc', 'aes256-cbc', 'des3-cbc']
PKCS8_HASHES = ['sha1', 'sha224', 'sha256', 'sha384', 'sha512']
OPENSSL_GENERATES = {
    'ssh-ed25519': ['-algorithm', 'ed25519'],
    'ssh-ed448': ['-algorithm', 'ed448'],
    'ssh-rsa': ['-algorithm', 'rsa', '-pkeyopt', 'rsa_keygen_bits:2048'],
    'ecdsa-sha2-nistp256': ['-algorithm', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'],
    'ecdsa-sha2-nistp384': ['-algorithm', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384'],
    'ecdsa-sha2-nistp521': ['-algorithm', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-521'],
    'ecdsa-sha2-1.3.132.0.10': ['-algorithm', 'ec', '-pkeyopt', 'ec_paramgen_curve:secp256k1'],
}
SECRET = 'secret words'


def run(program, *args, data=None):
    return subprocess.run([program, *map(str, args)], check=True, capture_output=True, input=data).stdout


def keygen_public(path, passphrase=''):
    return import_public_key(run('ssh-keygen', '-y', '-P', passphrase, '-f', path))


def openssl_public(data, form, passphrase=None):
    """The public key of a private key, as openssl reads it."""
    args = ['-passin', f'pass:{passphrase}'] if passphrase else []

    return import_public_key(run('openssl', 'pkey', '-inform', form, '-pubout', *args, data=data))


# --- private keys that we make


@pytest.mark.parametrize('name', ALGORITHMS)
@pytest.mark.parametrize('cipher', CIPHERS)
def test_openssh_ciphers(name, cipher, tmp_path):
    data = KEYS[name].export_private_key('openssh', SECRET, cipher, rounds=2, ignore_few_rounds=True)
    write_secret(tmp_path / 'key', data)
    assert keygen_public(tmp_path / 'key', SECRET) == PUBLIC[name]
    assert read_private_key(tmp_path / 'key', SECRET) == KEYS[name]


@pytest.mark.parametrize('name', ALL_ALGORITHMS)
@pytest.mark.parametrize('format_name', ['pkcs1-pem', 'pkcs1-der', 'pkcs8-pem', 'pkcs8-der'])
@pytest.mark.parametrize('passphrase', [None, SECRET])
def test_pem_and_der(name, format_name, passphrase):
    if format_name.startswith('pkcs1') and (name not in TRADITIONAL or (passphrase and 'der' in format_name)):
        with pytest.raises(KeyExportError):
            KEYS[name].export_private_key(format_name, passphrase)
        return

    data = KEYS[name].export_private_key(format_name, passphrase)
    assert import_private_key(data, passphrase) == KEYS[name]
    assert openssl_public(data, format_name[-3:].upper(), passphrase) == PUBLIC[name]
    theirs = asyncssh.import_private_key(data, passphrase)
    assert theirs.public_data == KEYS[name].public_data

    if passphrase:
        with pytest.raises(KeyEncryptionError):
            import_private_key(data, 'wrong')


@pytest.mark.parametrize('name', [name for name in TRADITIONAL if name in ALGORITHMS])
def test_ssh_keygen_reads_pem(name, tmp_path):
    for format_name in ('pkcs1-pem', 'pkcs8-pem'):
        for passphrase in (None, SECRET):
            write_secret(tmp_path / 'key', KEYS[name].export_private_key(format_name, passphrase))
            assert keygen_public(tmp_path / 'key', passphrase or '') == PUBLIC[name]


@pytest.mark.parametrize(
    ('cipher', 'hash_name'),
    [(cipher, 'sha256') for cipher in PKCS8_CIPHERS] + [('aes256-cbc', name) for name in PKCS8_HASHES],
)
def test_pkcs8_ciphers(cipher, hash_name):
    for form in ('pem', 'der'):
        data = KEYS['ssh-ed25519'].export_private_key(f'pkcs8-{form}', SECRET, cipher, hash_name)
        assert import_private_key(data, SECRET) == KEYS['ssh-ed25519']
        assert openssl_public(data, form.upper(), SECRET) == PUBLIC['ssh-ed25519']


@pytest.mark.parametrize('cipher', ['aes128-cbc', 'aes256-cbc', 'des3-cbc'])
@pytest.mark.parametrize('name', TRADITIONAL)
def test_traditional_ciphers(name, cipher):
    data = KEYS[name].export_private_key('pkcs1-pem', SECRET, cipher)
    assert import_private_key(data, SECRET) == KEYS[name]
    assert openssl_public(data, 'PEM', SECRET) == PUBLIC[name]


@pytest.mark.parametrize('name', OTHER_ALGORITHMS)
def test_types_that_ssh_keygen_does_not_have(name):
    data = KEYS[name].export_private_key('openssh', SECRET, rounds=2, ignore_few_rounds=True)
    theirs = asyncssh.import_private_key(data, SECRET)
    assert theirs.public_data == PUBLIC[name].public_data

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert import_private_key(theirs.export_private_key('openssh', SECRET, rounds=2), SECRET) == KEYS[name]

    sig = KEYS[name].sign(b'data', name.encode())
    assert asyncssh.import_public_key(PUBLIC[name].export_public_key()).verify(b'data', sig)
    assert PUBLIC[name].verify(b'data', theirs.sign(b'data', name.encode()))


# --- private keys made by others


@pytest.mark.parametrize('name', ALGORITHMS)
@pytest.mark.parametrize('cipher', CIPHERS)
def test_openssh_ciphers_of_ssh_keygen(name, cipher, tmp_path):
    KEYS[name].write_private_key(tmp_path / 'key')
    run('ssh-keygen', '-q', '-p', '-a', '1', '-Z', cipher, '-P', '', '-N', SECRET, '-f', tmp_path / 'key')
    assert read_private_key(tmp_path / 'key', SECRET) == KEYS[name]

    with pytest.raises(KeyEncryptionError):
        read_private_key(tmp_path / 'key', 'wrong')


@pytest.mark.parametrize('name', OPENSSL_GENERATES)
def test_private_keys_made_by_openssl(name, tmp_path):
    run('openssl', 'genpkey', *OPENSSL_GENERATES[name], '-out', tmp_path / 'key')
    key = read_private_key(tmp_path / 'key')
    assert key.get_algorithm() == name
    der = run('openssl', 'pkey', '-in', tmp_path / 'key', '-outform', 'DER')
    assert import_private_key(der) == key
    run('openssl', 'pkey', '-in', tmp_path / 'key', '-pubout', '-out', tmp_path / 'pub')
    assert read_public_key(tmp_path / 'pub') == key.convert_to_public()

    for cipher in ('-aes128', '-aes256', '-des3'):
        sealed = run('openssl', 'pkey', '-in', tmp_path / 'key', cipher, '-passout', f'pass:{SECRET}')
        assert b'ENCRYPTED' in sealed
        assert import_private_key(sealed, SECRET) == key


@pytest.mark.parametrize(
    'args',
    [
        ['-v2', 'aes128'],
        ['-v2', 'aes-192-cbc'],
        ['-v2', 'aes256', '-v2prf', 'hmacWithSHA1'],
        ['-v2', 'aes256', '-v2prf', 'hmacWithSHA512'],
        ['-v2', 'des3'],
        ['-v1', 'PBE-SHA1-3DES'],
        ['-scrypt', '-scrypt_N', '1024', '-scrypt_r', '8', '-scrypt_p', '1'],
    ],
    ids=' '.join,
)
def test_pkcs8_schemes_of_openssl(args):
    plain = KEYS['ecdsa-sha2-nistp256'].export_private_key('pkcs8-pem')
    sealed = run('openssl', 'pkcs8', '-topk8', *args, '-passout', f'pass:{SECRET}', data=plain)
    assert b'ENCRYPTED' in sealed
    assert import_private_key(sealed, SECRET) == KEYS['ecdsa-sha2-nistp256']

    with pytest.raises(KeyEncryptionError):
        import_private_key(sealed, 'wrong')


@pytest.mark.parametrize('name', ALGORITHMS)
def test_passphrases_changed_by_ssh_keygen(name, tmp_path):
    KEYS[name].set_comment('a comment')
    KEYS[name].write_private_key(tmp_path / 'key')
    KEYS[name].set_comment(None)
    run('ssh-keygen', '-q', '-p', '-a', '2', '-P', '', '-N', SECRET, '-f', tmp_path / 'key')
    assert load_keypairs(str(tmp_path / 'key'), SECRET)[0].public_data == KEYS[name].public_data
    run('ssh-keygen', '-q', '-c', '-C', 'another', '-P', SECRET, '-f', tmp_path / 'key')
    assert read_private_key(tmp_path / 'key', SECRET).get_comment() == 'another'


# --- public keys


@pytest.mark.parametrize('name', ALGORITHMS)
@pytest.mark.parametrize(('ours', 'theirs'), [('rfc4716', 'RFC4716'), ('pkcs8-pem', 'PKCS8'), ('pkcs1-pem', 'PEM')])
def test_public_formats(name, ours, theirs, tmp_path):
    if ours != 'rfc4716' and (name == 'ssh-ed25519' or (ours == 'pkcs1-pem' and name != 'ssh-rsa')):
        pytest.skip(f'ssh-keygen or the format itself has no {name} there')

    PUBLIC[name].write_public_key(tmp_path / 'ours', ours)
    assert import_public_key(run('ssh-keygen', '-i', '-m', theirs, '-f', tmp_path / 'ours')) == PUBLIC[name]
    PUBLIC[name].write_public_key(tmp_path / 'line')
    assert import_public_key(run('ssh-keygen', '-e', '-m', theirs, '-f', tmp_path / 'line')) == PUBLIC[name]


@pytest.mark.parametrize('name', ALL_ALGORITHMS)
def test_public_keys_and_openssl(name):
    for form in ('pem', 'der'):
        data = PUBLIC[name].export_public_key(f'pkcs8-{form}')
        back = run('openssl', 'pkey', '-pubin', '-inform', form.upper(), '-pubout', '-outform', form.upper(), data=data)
        assert import_public_key(data) == import_public_key(back) == PUBLIC[name]


def test_every_type_of_ssh_keygen_is_here():
    assert set(KEYGEN_TYPES) == set(ALGORITHMS)
