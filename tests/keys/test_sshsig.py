"""Signatures of files: interchange with `ssh-keygen -Y`, who may sign for what and when, malformed input."""

import hashlib
import subprocess

import asyncssh
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssh_fast.errors import KeyImportError
from ssh_fast.keys.allowed_signers import SSHAllowedSigners, import_allowed_signers, read_allowed_signers
from ssh_fast.keys.certificate_issue import issue_user_certificate
from ssh_fast.keys.sshsig import _decode, _digest, _signed_data, create_sshsig, validate_sshsig
from ssh_fast.wire import encode_string, encode_uint32
from tests.keys.test_key import ALL_ALGORITHMS, KEYS, PUBLIC

SIGNING = ['ssh-ed25519', 'ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp384', 'ecdsa-sha2-nistp521', 'ssh-rsa']
ED25519 = KEYS['ssh-ed25519']
LINE = PUBLIC['ssh-ed25519'].export_public_key().decode().strip()
DATA = b'some data\n'


def keygen(*args, data=None):
    return subprocess.run(['ssh-keygen', *map(str, args)], check=True, capture_output=True, input=data).stdout.decode()


def signers(line):
    return import_allowed_signers(line + '\n')


@pytest.mark.parametrize('name', SIGNING)
@pytest.mark.parametrize('hash_name', ['sha256', 'sha512'])
def test_ssh_keygen_verifies_ours(name, hash_name, tmp_path):
    (tmp_path / 'sig').write_bytes(create_sshsig(KEYS[name], DATA, hash_name=hash_name, namespace='mail'))
    (tmp_path / 'signers').write_text(f'me@example.com {PUBLIC[name].export_public_key().decode()}')
    files = '-f', tmp_path / 'signers', '-s', tmp_path / 'sig'
    assert 'Good' in keygen('-Y', 'verify', *files, '-n', 'mail', '-I', 'me@example.com', data=DATA)
    assert keygen('-Y', 'find-principals', *files) == 'me@example.com\n'

    with pytest.raises(subprocess.CalledProcessError):
        keygen('-Y', 'verify', *files, '-n', 'file', '-I', 'me@example.com', data=DATA)


@pytest.mark.parametrize('name', SIGNING)
@pytest.mark.parametrize('hash_name', ['sha256', 'sha512'])
def test_signatures_made_by_ssh_keygen(name, hash_name, tmp_path):
    KEYS[name].write_private_key(tmp_path / 'key')
    (tmp_path / 'data').write_bytes(DATA)
    keygen('-Y', 'sign', '-O', f'hashalg={hash_name}', '-n', 'mail', '-f', tmp_path / 'key', tmp_path / 'data')
    allowed = signers(f'me@example.com {PUBLIC[name].export_public_key().decode().strip()}')

    assert validate_sshsig(tmp_path / 'data', str(tmp_path / 'data.sig'), 'me@example.com', allowed)
    assert validate_sshsig(DATA, (tmp_path / 'data.sig').read_bytes(), 'me@example.com', allowed)
    assert not validate_sshsig(DATA + b'x', tmp_path / 'data.sig', 'me@example.com', allowed)
    assert not validate_sshsig(DATA, tmp_path / 'data.sig', 'you@example.com', allowed)
    assert allowed.find_principals(PUBLIC[name]) == ['me@example.com']


@pytest.mark.parametrize('name', [name for name in ALL_ALGORITHMS if name != 'ssh-dss'])
def test_interchange_with_asyncssh(name):
    theirs = asyncssh.import_private_key(KEYS[name].export_private_key())
    line = f'*@example.com {PUBLIC[name].export_public_key().decode()}'
    ours = create_sshsig(KEYS[name], DATA)
    assert asyncssh.validate_sshsig(DATA, ours, 'me@example.com', asyncssh.import_allowed_signers(line))
    assert validate_sshsig(DATA, asyncssh.create_sshsig(theirs, DATA), 'me@example.com', line.encode())


def test_certificates(tmp_path):
    ca = KEYS['ecdsa-sha2-nistp256']
    cert = issue_user_certificate(ca, PUBLIC['ssh-ed25519'], 'id', principals=['me@example.com'])
    ca_line = PUBLIC['ecdsa-sha2-nistp256'].export_public_key().decode().strip()
    (tmp_path / 'signers').write_text(f'*@example.com cert-authority {ca_line}\n')
    sig = create_sshsig((ED25519, cert), DATA)
    (tmp_path / 'sig').write_bytes(sig)

    verify = '-Y', 'verify', '-n', 'file', '-f', tmp_path / 'signers', '-s', tmp_path / 'sig', '-I'
    assert 'Good' in keygen(*verify, 'me@example.com', data=DATA)
    assert validate_sshsig(DATA, sig, 'me@example.com', str(tmp_path / 'signers'))
    assert not validate_sshsig(DATA, sig, 'you@example.com', str(tmp_path / 'signers'))
    assert not validate_sshsig(DATA, sig, '', str(tmp_path / 'signers'))

    # An authority's line is for certificates, the line of a key for the key alone.
    assert not validate_sshsig(DATA, sig, 'me@example.com', signers(f'* {LINE}'))
    assert not validate_sshsig(DATA, sig, 'me@example.com', signers(f'* {ca_line}'))
    plain = create_sshsig(ca, DATA)
    assert not validate_sshsig(DATA, plain, 'me@example.com', str(tmp_path / 'signers'))
    assert validate_sshsig(DATA, plain, 'me@example.com', signers(f'* {ca_line}'))

    expired = issue_user_certificate(
        ca, PUBLIC['ssh-ed25519'], 'id', principals=['me@example.com'], valid_after=1, valid_before=2
    )
    assert not validate_sshsig(DATA, create_sshsig((ED25519, expired), DATA), 'me@example.com', tmp_path / 'signers')


@pytest.mark.parametrize(
    ('line', 'allowed'),
    [
        (f'me {LINE}', True),
        (f'"me" {LINE} with a comment', True),
        (f'you,m? {LINE}', True),
        (f'*,!me {LINE}', False),
        (f'you {LINE}', False),
        (f'me namespaces="file" {LINE}', True),
        (f'me namespaces="git,f*" {LINE}', True),
        (f'me namespaces="git" {LINE}', False),
        (f'me valid-after="20200101" {LINE}', True),
        (f'me valid-after="20200101Z",valid-before="99990101000000Z" {LINE}', True),
        (f'me valid-before="20200101" {LINE}', False),
        (f'me valid-after="99990101" {LINE}', False),
        (f'me cert-authority {LINE}', False),
        (f'me CERT-AUTHORITY,namespaces="file" {LINE}', False),
    ],
)
def test_lines(line, allowed, tmp_path):
    sig = create_sshsig(ED25519, DATA)
    assert validate_sshsig(DATA, sig, 'me', signers(line)) is allowed

    (tmp_path / 'signers').write_text(line + '\n')
    (tmp_path / 'sig').write_bytes(sig)
    verify = '-Y', 'verify', '-n', 'file', '-f', tmp_path / 'signers', '-s', tmp_path / 'sig', '-I', 'me'
    done = subprocess.run(['ssh-keygen', *map(str, verify)], input=DATA, capture_output=True)
    assert (done.returncode == 0) is allowed


@pytest.mark.parametrize(
    'line',
    [
        'me',
        'me x',
        f'me unknown="1" {LINE}',
        f'me namespaces {LINE}',
        f'me cert-authority="x" {LINE}',
        f'me valid-after="2020" {LINE}',
        f'me valid-after="20200101",valid-after="20200102" {LINE}',
        f'me valid-after="20200102",valid-before="20200101" {LINE}',
        f'me namespaces="a {LINE}',
        f'me {LINE[:-8]}',
        f'me {LINE} {"x" * 70000}',
    ],
)
def test_malformed_lines_allow_nobody(line, caplog, tmp_path):
    (tmp_path / 'signers').write_text(f'# comment\n{line}\n')

    with pytest.raises(KeyImportError, match=r'signers:2: '):
        read_allowed_signers(tmp_path / 'signers')

    caplog.clear()
    other = PUBLIC['ssh-rsa'].export_public_key().decode()
    (tmp_path / 'signers').write_text(f'{line}\n* {other}')
    allowed = read_allowed_signers([tmp_path / 'signers'])
    assert not allowed.validate(PUBLIC['ssh-ed25519'], 'me', 'file')
    assert allowed.validate(PUBLIC['ssh-rsa'], 'me', 'file')
    assert 'signers:1: ' in caplog.text


def test_an_empty_text_is_no_list():
    for text in ('\n', '# nothing\n'):
        with pytest.raises(KeyImportError, match='allowed_signers'):
            import_allowed_signers(text)

    assert not SSHAllowedSigners().validate(PUBLIC['ssh-ed25519'], 'me', 'file')


def test_hashed_data_and_raw_signatures(tmp_path):
    digest = hashlib.sha512(DATA).digest()
    allowed = signers(f'me {LINE}')
    raw = create_sshsig(ED25519, digest, is_hashed=True, raw=True)
    assert raw.startswith(b'SSHSIG')
    assert validate_sshsig(DATA, raw, 'me', allowed)
    assert validate_sshsig(digest, raw, 'me', allowed, is_hashed=True)
    assert not validate_sshsig(digest[:32], raw, 'me', allowed, is_hashed=True)
    assert not validate_sshsig(bytes(64), raw, 'me', allowed, is_hashed=True)

    (tmp_path / 'digest').write_bytes(digest)
    assert validate_sshsig(tmp_path / 'digest', raw, 'me', allowed, is_hashed=True)


def test_what_cannot_sign_is_refused():
    for args, kwargs, match in [
        ((ED25519, DATA), {'hash_name': 'md5'}, 'hash_name'),
        ((ED25519, DATA), {'namespace': ''}, 'namespace'),
        ((ED25519, DATA), {'is_hashed': True}, 'data'),
        (([], DATA), {}, 'key'),
        ((KEYS['ssh-dss'], DATA), {}, 'ssh-dss'),
    ]:
        with pytest.raises(ValueError, match=match):
            create_sshsig(*args, **kwargs)

    with pytest.raises(FileNotFoundError):
        create_sshsig(ED25519, 'no such file')


def test_weak_signatures_do_not_count():
    allowed = signers(f'me {PUBLIC["ssh-rsa"].export_public_key().decode()}')

    for algorithm, right in ((b'rsa-sha2-256', True), (b'ssh-rsa', False)):
        signed = _signed_data(b'file', b'', 'sha512', _digest(DATA, 'sha512', False))
        blob = b'SSHSIG' + encode_uint32(1) + encode_string(PUBLIC['ssh-rsa'].public_data) + encode_string('file')
        blob += encode_string('') + encode_string('sha512') + encode_string(KEYS['ssh-rsa'].sign(signed, algorithm))
        assert _decode(blob).namespace == b'file'
        assert validate_sshsig(DATA, blob, 'me', allowed) is right


@settings(max_examples=300, deadline=1000)
@given(st.data())
def test_mutated_signatures(data):
    sig = bytearray(create_sshsig(ED25519, DATA, raw=data.draw(st.booleans())))
    original = bytes(sig)

    for _ in range(data.draw(st.integers(1, 3))):
        sig[data.draw(st.integers(0, len(sig) - 1))] = data.draw(st.integers(0, 255))

    sig = bytes(sig[: data.draw(st.integers(0, len(sig)))]) if data.draw(st.booleans()) else bytes(sig)

    try:
        if _decode(sig) == _decode(original):
            return
    except KeyImportError:
        pass

    assert not validate_sshsig(DATA, sig, 'me', signers(f'me {LINE}'))


@settings(max_examples=300, deadline=1000)
@given(st.text(max_size=300), st.sampled_from(['', 'me ', f'me {LINE} ', 'me namespaces="']))
def test_any_line(text, start):
    try:
        allowed = import_allowed_signers(start + text)
    except KeyImportError:
        return

    assert not allowed.validate(PUBLIC['ssh-rsa'], 'me', 'file')


@pytest.mark.timeout(10)
def test_hostile_sizes_end_soon():
    allowed = signers(f'me {LINE}')

    for sig in (
        b'-----BEGIN SSH SIGNATURE-----\n' * 8000,
        b'-----BEGIN SSH SIGNATURE-----\n' + b'A' * 250_000,
        b' ' * 260_000,
        b'SSHSIG' + b'\xff' * 200_000,
        b'x' * 1_000_000,
    ):
        assert not validate_sshsig(DATA, sig, 'me', allowed)
