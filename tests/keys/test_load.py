"""What options name as keys: sealed keys that are opened when they sign, certificates, files that others can open."""

import asyncio
import os
import subprocess

import pytest

import ssh_fast
from ssh_fast.errors import KeyEncryptionError, KeyImportError
from ssh_fast.keys.certificate_issue import issue_host_certificate, issue_user_certificate
from ssh_fast.keys.key import verify_signature
from ssh_fast.keys.load import (
    load_default_keypairs,
    load_keypairs,
    open_keypairs,
    read_private_key,
    read_public_key,
    set_default_skip_key_file_check,
)
from tests.keys.test_formats import write_secret
from tests.keys.test_key import ALL_ALGORITHMS, KEYS, PUBLIC

ED25519, RSA, CA = KEYS['ssh-ed25519'], KEYS['ssh-rsa'], KEYS['ecdsa-sha2-nistp256']
SEALED = ED25519.export_private_key(passphrase='secret', rounds=1, ignore_few_rounds=True)


@pytest.fixture
def key_file(tmp_path):
    write_secret(tmp_path / 'key', SEALED)

    return tmp_path / 'key'


def is_signed(pair, sig, public):
    return verify_signature(public, b'data', sig, {pair.sig_algorithm})


class Asked:
    """A callable that has a passphrase, and notes for which file it was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.names = []

    def __call__(self, name):
        self.names.append(name)

        return self.answers.pop(0)


# --- passphrases


def test_a_passphrase_is_asked_for_at_the_first_signature(key_file):
    asked = Asked('secret')
    pair = load_keypairs(str(key_file), asked)[0]
    assert asked.names == []
    assert pair.public_data == ED25519.public_data
    assert pair.get_filename() == os.fsencode(key_file)

    # Each login signs with a copy of its own.
    copies = [load_keypairs(pair)[0], pair.with_certificate(issue_user_certificate(CA, ED25519, 'id'))]
    assert all(is_signed(pair, each.sign(b'data'), PUBLIC['ssh-ed25519']) for each in copies)
    assert asked.names == [str(key_file)]


def test_a_wrong_passphrase_is_asked_for_again_at_the_next_signature(key_file):
    pair = load_keypairs(str(key_file), Asked('wrong', None, 'secret'))[0]

    with pytest.raises(KeyEncryptionError, match='key:1: Incorrect passphrase'):
        pair.sign(b'data')

    with pytest.raises(KeyImportError, match='key:1: Passphrase must'):
        pair.sign(b'data')

    assert is_signed(pair, pair.sign(b'data'), PUBLIC['ssh-ed25519'])


async def test_a_passphrase_may_be_a_coroutine(key_file):
    asked = []

    async def passphrase(name):
        await asyncio.sleep(0)
        asked.append(name)

        return 'secret'

    pair = load_keypairs([key_file], passphrase)[0]
    assert is_signed(pair, await pair.sign(b'data'), PUBLIC['ssh-ed25519'])
    assert is_signed(pair, pair.sign(b'data'), PUBLIC['ssh-ed25519'])
    assert asked == [str(key_file)]

    with pytest.raises(KeyImportError, match='awaited'):
        open_keypairs(load_keypairs([key_file], passphrase))

    with pytest.raises(KeyImportError, match='coroutine'):
        read_private_key(key_file, passphrase)


@pytest.mark.parametrize('format_name', ['pkcs1-pem', 'pkcs8-pem', 'pkcs8-der'])
async def test_other_formats_need_the_public_key_beside_them(format_name, tmp_path):
    path = tmp_path / 'key'
    write_secret(path, RSA.export_private_key(format_name, 'secret'))
    asked = Asked('secret', 'secret')
    assert load_keypairs(str(path), asked)[0].public_data == RSA.public_data
    assert asked.names == [str(path)]

    async def passphrase(name):
        return 'secret'

    with pytest.raises(KeyImportError, match=r'key: .*coroutine.*\.pub'):
        load_keypairs(str(path), passphrase)

    RSA.write_public_key(tmp_path / 'key.pub')
    pair = load_keypairs(str(path), asked)[0]
    assert len(asked.names) == 1
    assert is_signed(pair, pair.sign(b'data'), PUBLIC['ssh-rsa'])

    # The file beside a key may be that of another.
    ED25519.write_public_key(tmp_path / 'key.pub')
    pair = load_keypairs(str(path), Asked('secret'))[0]

    with pytest.raises(KeyImportError, match='not that of its public key'):
        pair.sign(b'data')


def test_keys_are_opened_at_once_where_they_must_be(key_file):
    asked = Asked('secret')
    pairs = open_keypairs(load_keypairs([key_file, RSA], asked))
    assert asked.names == [str(key_file)]
    assert [pair.public_data for pair in pairs] == [ED25519.public_data, RSA.public_data]
    assert pairs[0].get_agent_private_key() == ED25519.private_data

    with pytest.raises(KeyEncryptionError):
        open_keypairs(load_keypairs([key_file], Asked('wrong')))


@pytest.mark.parametrize('awaited', [True, False])
async def test_logins_ask_for_the_passphrase_once(awaited, key_file):
    """Logins with one options object, one after the other and at the same time."""
    asked = []

    async def later(name):
        await asyncio.sleep(0.05)
        asked.append(name)

        return 'secret'

    def at_once(name):
        # Not in the thread of the loop: it may ask a person.
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()

        asked.append(name)

        return 'secret'

    passphrase = later if awaited else at_once

    listener = await ssh_fast.listen(
        '127.0.0.1',
        0,
        server_host_keys=[RSA],
        authorized_client_keys=ssh_fast.import_authorized_keys(PUBLIC['ssh-ed25519'].export_public_key().decode()),
        process_factory=lambda process: process.exit(0),
    )
    options = ssh_fast.SSHClientConnectionOptions(
        known_hosts=None, username='user', client_keys=[str(key_file)], passphrase=passphrase, agent_path=None
    )

    async with listener:
        assert asked == []

        async def login():
            async with ssh_fast.connect('127.0.0.1', listener.get_port(), options=options) as conn:
                assert (await conn.run('x')).exit_status == 0

        await asyncio.gather(*(login() for _ in range(5)))
        await login()

    assert asked == [str(key_file)]


# --- certificates


def test_a_certificate_goes_in_front_of_the_plain_key(tmp_path):
    cert = issue_user_certificate(CA, ED25519, 'id', principals=['me'])
    ED25519.write_private_key(tmp_path / 'key')
    cert.write_certificate(tmp_path / 'other.pub')

    for keylist, certlist in [
        ([ED25519], [cert]),
        (ED25519, cert),
        ((ED25519, cert), ()),
        ([(ED25519, cert)], ()),
        ((str(tmp_path / 'key'), cert), ()),
        ([(tmp_path / 'key', tmp_path / 'other.pub')], ()),
        ((tmp_path / 'key', str(tmp_path / 'other.pub')), ()),
        ((ED25519, cert.export_certificate()), ()),
        ([tmp_path / 'key'], str(tmp_path / 'other.pub')),
        ([tmp_path / 'key'], [cert.export_certificate()]),
        ([(ED25519.export_private_key(), cert.export_certificate())], ()),
    ]:
        pairs = load_keypairs(keylist, certlist=certlist)
        assert [pair.public_data for pair in pairs] == [cert.public_data, ED25519.public_data]
        assert [pair.has_cert for pair in pairs] == [True, False]
        assert not pairs[0].has_x509_chain
        assert pairs[0].host_key_algorithms == (b'ssh-ed25519-cert-v01@openssh.com',)
        assert is_signed(pairs[0], pairs[0].sign(b'data'), PUBLIC['ssh-ed25519'])

    # Two keys in a tuple are two keys.
    two = (tmp_path / 'key', RSA.export_private_key('pkcs8-der')), (ED25519, RSA.export_private_key())
    assert [[pair.has_cert for pair in load_keypairs(keys)] for keys in two] == [[False, False]] * 2

    # The certificate of another key is nobody's.
    assert [pair.has_cert for pair in load_keypairs(RSA, certlist=[cert])] == [False]

    with pytest.raises(ValueError, match='another key'):
        load_keypairs((RSA, cert))


def test_a_certificate_beside_its_key_is_found(tmp_path, caplog):
    key = tmp_path / 'key'
    cert = issue_host_certificate(CA, RSA, 'id', principals=['host'])
    RSA.write_private_key(key)
    cert.write_certificate(tmp_path / 'key-cert.pub')
    assert [pair.has_cert for pair in load_keypairs([key])] == [True, False]
    assert [pair.has_cert for pair in load_keypairs(str(key))] == [True, False]
    assert [pair.has_cert for pair in load_keypairs([(key, None)])] == [True, False]

    write_secret(key, RSA.export_private_key(passphrase='secret', rounds=1, ignore_few_rounds=True))
    assert [pair.has_cert for pair in load_keypairs([key], lambda name: 'secret')] == [True, False]

    write_secret(key, ED25519.export_private_key())
    assert [pair.has_cert for pair in load_keypairs([key])] == [False]

    (tmp_path / 'key-cert.pub').write_bytes(b'garbage')
    assert [pair.has_cert for pair in load_keypairs([key])] == [False]
    assert 'key-cert.pub' in caplog.text


@pytest.mark.parametrize('name', [name for name in ALL_ALGORITHMS if name not in ('ssh-ed448', ALL_ALGORITHMS[-1])])
def test_an_agent_takes_keys_with_certificates(name, tmp_path):
    """What follows a certificate in an agent's request is understood by OpenSSH's agent."""
    cert = issue_user_certificate(CA, KEYS[name], 'id', principals=['me'])
    pair = load_keypairs((KEYS[name], cert))[0]

    async def add():
        async with ssh_fast.connect_agent(str(tmp_path / 'agent')) as agent:
            await agent.add_keys([pair])
            (found,) = await agent.get_keys()
            assert found.public_data == cert.public_data
            assert found.has_cert
            assert is_signed(found, await found.sign(b'data'), PUBLIC[name])

            # A key that the agent has plain may be shown with a certificate too.
            await found.remove()
            await agent.add_keys([KEYS[name]])
            (found,) = await agent.get_keys()
            found.set_certificate(cert)
            assert is_signed(found, await found.sign(b'data'), PUBLIC[name])
            await found.remove()
            assert await agent.get_keys() == []
            await agent.add_keys([pair])

    process = subprocess.Popen(['ssh-agent', '-D', '-a', tmp_path / 'agent'], stdout=subprocess.PIPE)

    try:
        process.stdout.readline()
        asyncio.run(add())
        env = {**os.environ, 'SSH_AUTH_SOCK': str(tmp_path / 'agent')}
        shown = subprocess.run(['ssh-add', '-L'], env=env, check=True, capture_output=True).stdout
    finally:
        process.terminate()
        process.communicate()

    assert shown.split()[:2] == cert.export_certificate().split()[:2]


# --- files that others can open


@pytest.mark.skipif(not hasattr(os, 'getuid'), reason='files have no owner')
def test_files_that_others_can_open_are_refused(tmp_path, caplog):
    folder = tmp_path / 'home'
    folder.mkdir()
    path = folder / 'id_ed25519'
    ED25519.write_private_key(path)
    assert path.stat().st_mode & 0o777 == 0o600

    for mode in (0o604, 0o640, 0o602, 0o610, 0o777):
        path.chmod(mode)
        refusal = f'id_ed25519: .*{mode:04o}.*chmod 600'

        for keylist in (str(path), [path], (path, None)):
            with pytest.raises(KeyImportError, match=refusal):
                load_keypairs(keylist)

        caplog.clear()
        caplog.set_level('INFO', 'ssh_fast')
        assert load_default_keypairs(directory=folder) == []
        assert f'{mode:04o}' in caplog.text

        # ssh-keygen says the same.
        done = subprocess.run(['ssh-keygen', '-y', '-f', path], capture_output=True, stdin=subprocess.DEVNULL)
        assert done.returncode != 0
        assert b'UNPROTECTED' in done.stderr

        # Who reads a key and gives it as such has looked at it.
        assert load_keypairs(read_private_key(path))[0].public_data == ED25519.public_data

    set_default_skip_key_file_check(True)

    try:
        assert len(load_keypairs([path])) == 1
    finally:
        set_default_skip_key_file_check(False)

    path.chmod(0o400)
    assert len(load_keypairs([path])) == 1


@pytest.mark.skipif(not hasattr(os, 'getuid') or os.getuid() != 0, reason='only root can give files away')
def test_files_of_others_are_theirs_to_guard(tmp_path):
    ED25519.write_private_key(tmp_path / 'key')
    (tmp_path / 'key').chmod(0o640)
    os.chown(tmp_path / 'key', 12345, -1)
    assert len(load_keypairs([tmp_path / 'key'])) == 1


def test_the_users_own_keys(tmp_path):
    names = {
        'ssh-ed25519': 'id_ed25519',
        'ecdsa-sha2-nistp384': 'id_ecdsa',
        'ssh-rsa': 'id_rsa',
        'ssh-ed448': 'id_ed448',
        'ssh-dss': 'id_dsa',
    }

    for algorithm, name in names.items():
        KEYS[algorithm].write_private_key(tmp_path / name)

    assert [pair.get_algorithm() for pair in load_default_keypairs(directory=tmp_path)] == list(names)


def test_appended_and_written_files(tmp_path):
    path = tmp_path / 'key'
    path.write_bytes(b'')
    path.chmod(0o644)
    ED25519.append_private_key(path)
    RSA.append_private_key(path, 'pkcs8-pem', 'secret')
    assert path.stat().st_mode & 0o777 == 0o600
    assert [pair.get_algorithm() for pair in load_keypairs(str(path), 'secret')] == ['ssh-ed25519', 'ssh-rsa']
    assert len(load_keypairs(str(path), lambda name: 'secret')) == 2

    for key in (ED25519, RSA):
        key.append_public_key(tmp_path / 'pub')

    assert read_public_key(tmp_path / 'pub') == PUBLIC['ssh-ed25519']
    assert len(ssh_fast.load_public_keys(str(tmp_path / 'pub'))) == 2
