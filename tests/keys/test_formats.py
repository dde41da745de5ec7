"""Key files: interchange with ssh-keygen in every format, passphrases, bounds, mutations."""

import base64
import os
import stat
import subprocess
import time

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from ssh_fast.errors import KeyEncryptionError, KeyExportError, KeyImportError
from ssh_fast.keys import key_files
from ssh_fast.keys.key import generate_private_key
from ssh_fast.keys.load import (
    import_private_key,
    import_public_key,
    load_default_keypairs,
    load_keypairs,
    load_public_keys,
    read_private_key,
    read_private_key_list,
    read_public_key,
    read_public_key_list,
    set_default_skip_rsa_key_validation,
)
from ssh_fast.wire import encode_mpint, encode_string, encode_uint32
from tests.keys.test_key import ALGORITHMS, KEYS, PUBLIC

CIPHERS = [
    'aes128-cbc', 'aes192-cbc', 'aes256-cbc', 'aes128-ctr', 'aes192-ctr', 'aes256-ctr',
    'aes128-gcm@openssh.com', 'aes256-gcm@openssh.com', 'chacha20-poly1305@openssh.com',
]  # fmt: skip
KEYGEN_TYPES = {
    'ssh-ed25519': ['-t', 'ed25519'],
    'ecdsa-sha2-nistp256': ['-t', 'ecdsa', '-b', '256'],
    'ecdsa-sha2-nistp384': ['-t', 'ecdsa', '-b', '384'],
    'ecdsa-sha2-nistp521': ['-t', 'ecdsa', '-b', '521'],
    'ssh-rsa': ['-t', 'rsa', '-b', '2048'],
    'ssh-dss': ['-t', 'dsa'],
}


def keygen(*args):
    return subprocess.run(['ssh-keygen', *args], check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout


def public_of(path, passphrase=''):
    """The public key of a private key file, as ssh-keygen reads it."""

    path.chmod(0o600)

    return import_public_key(keygen('-y', '-P', passphrase, '-f', path))


def write_secret(path, data):
    path.write_bytes(data)
    path.chmod(0o600)


# --- interchange


@pytest.mark.parametrize('passphrase', ['', 'secret words'])
@pytest.mark.parametrize('file_format', ['openssh', 'PEM', 'PKCS8'])
@pytest.mark.parametrize('name', ALGORITHMS)
def test_private_keys_made_by_ssh_keygen(name, file_format, passphrase, tmp_path):
    if name == 'ssh-ed25519' and file_format != 'openssh':
        pytest.skip('ssh-keygen writes Ed25519 keys in its own format only')

    options = [] if file_format == 'openssh' else ['-m', file_format]
    keygen('-q', *KEYGEN_TYPES[name], *options, '-a', '2', '-C', 'a comment', '-N', passphrase, '-f', tmp_path / 'key')
    key = read_private_key(tmp_path / 'key', passphrase or None)
    public = read_public_key(tmp_path / 'key.pub')

    assert key.get_algorithm() == name
    assert key.convert_to_public() == public
    assert public.get_comment() == 'a comment'
    assert public.verify(b'data', key.sign(b'data', key.sig_algorithms[0]))
    assert key.get_filename() == os.fsencode(tmp_path / 'key')

    if file_format == 'openssh':
        assert key.get_comment() == 'a comment'

    if passphrase:
        with pytest.raises(KeyImportError, match=r'key:1: Passphrase must be specified'):
            read_private_key(tmp_path / 'key')

        with pytest.raises(KeyEncryptionError, match=r'key:1: .*Incorrect passphrase'):
            read_private_key(tmp_path / 'key', 'wrong')


@pytest.mark.parametrize('cipher', CIPHERS)
def test_every_cipher_made_by_ssh_keygen(cipher, tmp_path):
    keygen('-q', '-t', 'ed25519', '-a', '1', '-Z', cipher, '-N', 'pass', '-f', tmp_path / 'key')
    assert read_private_key(tmp_path / 'key', b'pass').convert_to_public() == read_public_key(tmp_path / 'key.pub')

    with pytest.raises(KeyEncryptionError, match='Incorrect passphrase'):
        read_private_key(tmp_path / 'key', b'Pass')


@pytest.mark.parametrize('cipher', [None, *CIPHERS])
@pytest.mark.parametrize('name', ALGORITHMS)
def test_private_keys_read_by_ssh_keygen(name, cipher, tmp_path):
    passphrase = 'pass' if cipher else None
    KEYS[name].write_private_key(
        tmp_path / 'key', passphrase=passphrase, cipher_name=cipher, rounds=1, ignore_few_rounds=True
    )
    assert stat.S_IMODE((tmp_path / 'key').stat().st_mode) == 0o600
    assert public_of(tmp_path / 'key', passphrase or '') == PUBLIC[name]
    assert read_private_key(tmp_path / 'key', passphrase) == KEYS[name]


@pytest.mark.parametrize('passphrase', [None, 'pass'])
@pytest.mark.parametrize('format_name', ['pkcs1-pem', 'pkcs8-pem'])
@pytest.mark.parametrize('name', ALGORITHMS)
def test_pem_keys_read_by_ssh_keygen(name, format_name, passphrase, tmp_path):
    if name == 'ssh-ed25519':
        if format_name == 'pkcs1-pem':
            with pytest.raises(KeyExportError, match='PKCS#1'):
                KEYS[name].export_private_key(format_name)

            return

        # ssh-keygen 9.2 does not read Ed25519 keys in PKCS#8; the round trip must do.
        data = KEYS[name].export_private_key(format_name, passphrase)
        assert import_private_key(data, passphrase) == KEYS[name]

        return

    KEYS[name].write_private_key(tmp_path / 'key', format_name, passphrase)
    assert public_of(tmp_path / 'key', passphrase or '') == PUBLIC[name]
    assert import_private_key((tmp_path / 'key').read_bytes(), passphrase) == KEYS[name]


@pytest.mark.parametrize('format_name', ['pkcs1-der', 'pkcs8-der'])
@pytest.mark.parametrize('name', ALGORITHMS[1:])
def test_der_keys(name, format_name):
    assert import_private_key(KEYS[name].export_private_key(format_name)) == KEYS[name]

    if format_name == 'pkcs8-der':
        data = KEYS[name].export_private_key(format_name, 'pass')
        assert import_private_key(data, 'pass') == KEYS[name]

        with pytest.raises(KeyImportError, match='Passphrase must'):
            import_private_key(data)
    else:
        with pytest.raises(KeyExportError, match='pkcs1-der'):
            KEYS[name].export_private_key(format_name, 'pass')


@pytest.mark.parametrize(
    ('format_name', 'keygen_format'), [('rfc4716', 'RFC4716'), ('pkcs8-pem', 'PKCS8'), ('pkcs1-pem', 'PEM')]
)
@pytest.mark.parametrize('name', ALGORITHMS)
def test_public_formats(name, format_name, keygen_format, tmp_path):
    KEYS[name].write_public_key(tmp_path / 'key.pub')

    if format_name == 'pkcs1-pem' and name != 'ssh-rsa':
        with pytest.raises(KeyExportError, match='pkcs1-pem'):
            KEYS[name].export_public_key(format_name)

        return

    data = KEYS[name].export_public_key(format_name)
    assert import_public_key(data) == PUBLIC[name]

    if name == 'ssh-ed25519' and format_name == 'pkcs8-pem':
        return

    assert import_public_key(keygen('-e', '-m', keygen_format, '-f', tmp_path / 'key.pub')) == PUBLIC[name]
    (tmp_path / 'ours').write_bytes(data)
    assert import_public_key(keygen('-i', '-m', keygen_format, '-f', tmp_path / 'ours')) == PUBLIC[name]


def test_rfc4716_comments():
    for comment in ('short', 'x' * 300, 'with "quotes" and \\ backslash', 'a: b'):
        key = generate_private_key('ssh-ed25519', comment)
        data = key.export_public_key('rfc4716')
        assert max(map(len, data.splitlines())) <= 72
        assert import_public_key(data).get_comment() == comment


def test_public_line_with_options_and_comment():
    line = PUBLIC['ssh-ed25519'].export_public_key().strip()
    key = import_public_key(b'command="echo \\"hi there\\"",no-pty ' + line + b' my  comment')
    assert key == PUBLIC['ssh-ed25519']
    assert key.get_comment() == 'my  comment'


def test_lists(tmp_path):
    for name in ALGORITHMS:
        KEYS[name].append_private_key(tmp_path / 'private')
        KEYS[name].append_public_key(tmp_path / 'public')

    assert read_private_key_list(tmp_path / 'private') == [KEYS[name] for name in ALGORITHMS]
    assert read_public_key_list(tmp_path / 'public') == [PUBLIC[name] for name in ALGORITHMS]
    assert load_public_keys(str(tmp_path / 'public')) == [PUBLIC[name] for name in ALGORITHMS]
    assert len(load_keypairs(str(tmp_path / 'private'))) == len(ALGORITHMS)


def test_comments_in_other_encodings(tmp_path):
    path = tmp_path / 'key.pub'
    path.write_bytes(PUBLIC['ssh-ed25519'].export_public_key().strip() + ' gr\xfcn\n'.encode('latin-1'))
    key = read_public_key(path)
    assert key.get_comment('latin-1') == 'gr\xfcn'
    assert import_public_key(key.export_public_key('rfc4716')).get_comment_bytes() == b'gr\xfcn'

    with pytest.raises(KeyImportError, match='surrogates'):
        import_public_key('ssh-ed25519 \udc80')


# --- options of export and import


def test_export_refuses_what_it_cannot_write():
    key = KEYS['ssh-rsa']

    for args, error in [
        (('foo',), KeyExportError),
        (('pkcs8',), KeyExportError),
        (('openssh', 'pass', 'rot13'), KeyEncryptionError),
        (('openssh', ''), KeyExportError),
        (('pkcs8-pem', ''), KeyExportError),
        (('pkcs8-pem', 'pass', 'des-cbc'), KeyEncryptionError),
        (('pkcs8-pem', 'pass', 'aes256-cbc', 'md5'), KeyEncryptionError),
        (('pkcs8-pem', 'pass', 'aes256-cbc', 'sha256', 1), KeyEncryptionError),
        (('openssh', 'pass', None, 'sha256', 2, 0), KeyEncryptionError),
        (('openssh', 'pass', None, 'sha256', 2, 1 << 31), KeyEncryptionError),
    ]:
        with pytest.raises(error):
            key.export_private_key(*args)

    with pytest.raises(KeyExportError):
        key.export_public_key('foo')

    with pytest.warns(UserWarning, match='few'):
        key.export_private_key(passphrase='pass', rounds=2)


def rebuilt(data, change):
    """Change the decoded body of an OpenSSH private key."""

    lines = data.split(b'\n')
    body = change(base64.b64decode(b''.join(lines[1:-2])))

    return b'\n'.join([lines[0], base64.b64encode(body), *lines[-2:]])


ENCRYPTED = KEYS['ssh-ed25519'].export_private_key(passphrase='pass', rounds=1, ignore_few_rounds=True)


@pytest.mark.parametrize('rounds', [0, 2049, 1 << 31, (1 << 32) - 1])
def test_rounds_are_bounded(rounds):
    data = rebuilt(ENCRYPTED, lambda body: body.replace(encode_uint32(24), encode_uint32(24), 1))
    assert import_private_key(data, 'pass') == KEYS['ssh-ed25519']

    def change(body):
        head, options, rest = body.partition(b'bcrypt' + encode_uint32(24))

        return head + options + rest[:20] + encode_uint32(rounds) + rest[24:]

    start = time.monotonic()

    with pytest.raises(KeyEncryptionError, match='rounds'):
        import_private_key(rebuilt(ENCRYPTED, change), 'pass')

    assert time.monotonic() - start < 1


def der(tag, *parts):
    body = b''.join(parts)
    size = len(body)
    length = bytes([size]) if size < 128 else bytes([0x82, size >> 8, size & 255])

    return bytes([tag]) + length + body


def der_integer(value):
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, 'big'))


def encrypted_pkcs8(kdf):
    cipher = der(0x30, der(6, bytes.fromhex('60864801650304012a')), der(4, bytes(16)))
    algorithm = der(0x30, der(6, bytes.fromhex('2a864886f70d01050d')), der(0x30, kdf, cipher))

    return der(0x30, algorithm, der(4, bytes(160)))


def kdf(oid, *numbers):
    return der(0x30, der(6, bytes.fromhex(oid)), der(0x30, der(4, bytes(8)), *map(der_integer, numbers)))


@pytest.mark.parametrize(
    'data',
    [
        encrypted_pkcs8(kdf('2a864886f70d01050c', 1 << 31)),
        encrypted_pkcs8(kdf('2b06010401da47040b', 1 << 30, 8, 1)),
        der(0x30, kdf('2a864886f70d01050a', 1 << 31), der(4, bytes(160))),
    ],
    ids=['pbkdf2', 'scrypt', 'pbes1'],
)
def test_pkcs8_work_is_bounded(data):
    label = b'ENCRYPTED PRIVATE KEY-----\n'
    pem = b'-----BEGIN ' + label + base64.encodebytes(data) + b'-----END ' + label
    start = time.monotonic()

    for form in (data, pem):
        with pytest.raises(KeyEncryptionError, match='at most'):
            import_private_key(form, 'pass')

    assert time.monotonic() - start < 1


def test_pkcs8_of_openssl_with_scrypt(tmp_path):
    KEYS['ecdsa-sha2-nistp256'].write_private_key(tmp_path / 'plain', 'pkcs8-pem')
    command = ['openssl', 'pkcs8', '-topk8', '-scrypt', '-passout', 'pass:word']
    subprocess.run([*command, '-in', tmp_path / 'plain', '-out', tmp_path / 'key'], check=True, capture_output=True)
    assert read_private_key(tmp_path / 'key', 'word') == KEYS['ecdsa-sha2-nistp256']


def plain_openssh(private_data, public_data, padding=None, check=(1, 1), comment=b''):
    plain = encode_uint32(check[0]) + encode_uint32(check[1]) + private_data + encode_string(comment)
    plain += bytes(range(1, 1 + -len(plain) % 8)) if padding is None else padding
    body = b'openssh-key-v1\0' + encode_string(b'none') * 2 + encode_string(b'') + encode_uint32(1)
    body += encode_string(public_data) + encode_string(plain)

    return b'-----BEGIN OPENSSH PRIVATE KEY-----\n' + base64.b64encode(body) + b'\n-----END OPENSSH PRIVATE KEY-----\n'


def test_private_and_public_parts_must_agree():
    key, other = KEYS['ssh-ed25519'], generate_private_key('ssh-ed25519')
    public, secret = key.public_data[-32:], key.private_data[-64:-32]
    good = plain_openssh(key.private_data, key.public_data)
    assert import_private_key(good) == key
    head = encode_string(b'ssh-ed25519')

    for bad in [
        plain_openssh(key.private_data, other.public_data),
        plain_openssh(other.private_data, key.public_data),
        plain_openssh(head + encode_string(other.public_data[-32:]) + encode_string(secret + public), key.public_data),
        plain_openssh(head + encode_string(public) + encode_string(secret + other.public_data[-32:]), key.public_data),
        plain_openssh(head + encode_string(public) + encode_string(secret), key.public_data),
        plain_openssh(key.private_data, key.public_data, padding=bytes(8)),
        plain_openssh(key.private_data, key.public_data, check=(1, 2)),
    ]:
        with pytest.raises(KeyImportError):
            import_private_key(bad)


def test_ecdsa_parts_must_agree():
    key, other = KEYS['ecdsa-sha2-nistp256'], generate_private_key('ecdsa-sha2-nistp256')
    value = other.pyca_key.private_numbers().private_value
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

    for bad in (value, 0, order, -1, 1 << 300, 1 << 30000):
        with pytest.raises(KeyImportError):
            import_private_key(plain_openssh(key.public_data + encode_mpint(bad), key.public_data))


def test_rsa_numbers_must_agree():
    key = KEYS['ssh-rsa']
    numbers = key.pyca_key.private_numbers()
    n, e, fields = numbers.public_numbers.n, numbers.public_numbers.e, (numbers.d, numbers.iqmp, numbers.p, numbers.q)

    def private(*values):
        return encode_string(b'ssh-rsa') + b''.join(encode_mpint(value) for value in (n, e, *values))

    assert import_private_key(plain_openssh(private(*fields), key.public_data)) == key

    for pos in range(4):
        for bad in (0, 1, 2, 3, -5, fields[pos] + 2, fields[pos] - 2, fields[pos] << 9000, 1 << 100_000):
            values = (*fields[:pos], bad, *fields[pos + 1 :])

            with pytest.raises(KeyImportError):
                import_private_key(plain_openssh(private(*values), key.public_data))

    with pytest.raises(KeyImportError):
        import_private_key(plain_openssh(private(numbers.d, 0, n, 1), key.public_data))


def test_rsa_validation_can_be_left_out():
    key = KEYS['ssh-rsa']
    numbers = key.pyca_key.private_numbers()
    public = numbers.public_numbers
    fields = (public.n, public.e, numbers.d + 2, numbers.iqmp, numbers.p, numbers.q)
    data = plain_openssh(encode_string(b'ssh-rsa') + b''.join(map(encode_mpint, fields)), key.public_data)

    with pytest.raises(KeyImportError, match='do not agree'):
        import_private_key(data)

    damaged = import_private_key(data, unsafe_skip_rsa_key_validation=True)

    # Even then no wrong signature leaves.
    with pytest.raises(ValueError, match='verify'):
        damaged.sign(b'data', b'rsa-sha2-256')

    set_default_skip_rsa_key_validation(True)

    try:
        assert import_private_key(data).is_private

        with pytest.raises(KeyImportError, match='do not agree'):
            import_private_key(data, unsafe_skip_rsa_key_validation=False)
    finally:
        set_default_skip_rsa_key_validation(False)


def test_malformed_files(tmp_path):
    for data in [
        b'',
        b'garbage',
        b'-----BEGIN OPENSSH PRIVATE KEY-----\n-----END OPENSSH PRIVATE KEY-----\n',
        b'-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n',
        b'-----BEGIN OPENSSH PRIVATE KEY-----\n!!!!\n-----END OPENSSH PRIVATE KEY-----\n',
        b'-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n',
        b'-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n',
        b'-----BEGIN OPENSSH PRIVATE KEY-----\n' * 1000,
        b'\x30',
        b'\x30\x00',
        b'\x30\x84\xff\xff\xff\xff',
        b'x' * (1 << 20) + b'y',
    ]:
        (tmp_path / 'key').write_bytes(data)

        with pytest.raises(KeyImportError, match=r'key(:1)?: '):
            read_private_key(tmp_path / 'key')

        with pytest.raises(KeyImportError):
            import_private_key(data)

        with pytest.raises(KeyImportError, match=r'key(:1)?: '):
            read_public_key(tmp_path / 'key')

    with pytest.raises(FileNotFoundError, match='missing'):
        read_private_key(tmp_path / 'missing')


@pytest.mark.parametrize(
    'info', [b'AES-256-CBC,00', b'AES-256-CBC', b'DES-EDE3-CBC,' + b'0' * 32, b'FOO,' + b'0' * 32, b'']
)
def test_malformed_traditional_encryption(info):
    lines = KEYS['ecdsa-sha2-nistp256'].export_private_key('pkcs1-pem', 'pass').split(b'\n')
    assert lines[2].startswith(b'DEK-Info: AES-256-CBC,')
    lines[2] = b'DEK-Info: ' + info

    with pytest.raises(KeyEncryptionError, match='DEK-Info'):
        import_private_key(b'\n'.join(lines), 'pass')


@pytest.mark.parametrize('cipher', ['-aes128', '-aes256', '-des3'])
def test_traditional_encryption_of_openssl(cipher, tmp_path):
    key = KEYS['ssh-rsa']
    key.write_private_key(tmp_path / 'plain', 'pkcs1-pem')
    command = ['openssl', 'rsa', '-traditional', cipher, '-passout', 'pass:word']
    subprocess.run([*command, '-in', tmp_path / 'plain', '-out', tmp_path / 'key'], check=True, capture_output=True)
    assert b'DEK-Info' in (tmp_path / 'key').read_bytes()
    assert read_private_key(tmp_path / 'key', 'word') == key


SAMPLES = [
    (KEYS['ssh-ed25519'].export_private_key(), None),
    (KEYS['ecdsa-sha2-nistp384'].export_private_key(), None),
    (KEYS['ssh-rsa'].export_private_key(), None),
    (ENCRYPTED, 'pass'),
    (KEYS['ecdsa-sha2-nistp256'].export_private_key('pkcs1-pem'), None),
    (KEYS['ecdsa-sha2-nistp256'].export_private_key('pkcs8-pem', 'pass'), 'pass'),
    (KEYS['ssh-rsa'].export_private_key('pkcs1-pem', 'pass'), 'pass'),
    (KEYS['ssh-rsa'].export_private_key('pkcs8-der'), None),
    (KEYS['ecdsa-sha2-nistp521'].export_private_key('pkcs8-der', 'pass'), 'pass'),
]


@settings(max_examples=400, deadline=1000)
@given(st.data(), st.sampled_from(SAMPLES))
def test_mutated_private_keys(data, sample):
    original, passphrase = sample
    text = bytearray(original)

    for _ in range(data.draw(st.integers(1, 3))):
        pos = data.draw(st.integers(0, len(text) - 1))
        action = data.draw(st.sampled_from(['set', 'delete', 'insert']))

        if action == 'delete':
            del text[pos : pos + data.draw(st.integers(1, 8))]
        else:
            text[pos : pos + (action == 'set')] = bytes([data.draw(st.sampled_from([*b'AQ/+=g4', 0, 255]))])

        if not text:
            break

    try:
        key = import_private_key(bytes(text), passphrase)
    except (KeyImportError, KeyEncryptionError):
        return

    # What still loads is whole: it can sign, and its own public part verifies.
    assert key.convert_to_public().verify(b'data', key.sign(b'data', key.sig_algorithms[0]))


@settings(max_examples=200, deadline=1000)
@given(st.data())
def test_mutated_bodies_of_openssh_keys(data):
    original, passphrase = data.draw(st.sampled_from(SAMPLES[:3]))

    def change(body):
        body = bytearray(body)

        for _ in range(data.draw(st.integers(1, 3))):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))

        return bytes(body)

    try:
        key = import_private_key(rebuilt(original, change), passphrase)
    except (KeyImportError, KeyEncryptionError):
        return

    assert key.convert_to_public().verify(b'data', key.sign(b'data', key.sig_algorithms[0]))


@settings(max_examples=200, deadline=1000)
@given(st.binary(max_size=300) | st.text(max_size=300))
def test_any_key_data(data):
    for load_one in (import_private_key, import_public_key):
        with pytest.raises((KeyImportError, KeyEncryptionError)):
            load_one(data)


# --- loading


def test_passphrase_from_a_callable(tmp_path):
    write_secret(tmp_path / 'key', ENCRYPTED)
    KEYS['ssh-rsa'].write_private_key(tmp_path / 'plain')
    asked = []

    def passphrase(filename):
        asked.append(filename)

        return 'pass'

    pairs = load_keypairs([tmp_path / 'key', str(tmp_path / 'plain')], passphrase)
    assert [pair.public_data for pair in pairs] == [PUBLIC['ssh-ed25519'].public_data, PUBLIC['ssh-rsa'].public_data]
    assert asked == []
    assert PUBLIC['ssh-ed25519'].verify(b'data', pairs[0].sign(b'data'))
    assert PUBLIC['ssh-ed25519'].verify(b'more', pairs[0].sign(b'more'))
    assert asked == [str(tmp_path / 'key')]

    with pytest.raises(TypeError, match='passphrase'):
        read_private_key(tmp_path / 'key', lambda filename: 5)

    with pytest.raises(KeyImportError, match='Passphrase must'):
        read_private_key(tmp_path / 'key', lambda filename: None)


def test_load_keypairs_forms(tmp_path):
    key = KEYS['ssh-ed25519']
    key.write_private_key(tmp_path / 'key')
    pair = load_keypairs(key)[0]
    public_data = key.public_data

    for keylist in (
        key,
        pair,
        key.export_private_key(),
        tmp_path / 'key',
        str(tmp_path / 'key'),
        [key],
        (pair,),
        [(key, None)],
        (key, None),
        [(str(tmp_path / 'key'), None)],
        [key.export_private_key()],
    ):
        assert [item.public_data for item in load_keypairs(keylist)] == [public_data]

    assert load_keypairs([]) == []
    assert [item.public_data for item in load_keypairs([PUBLIC['ssh-rsa'], key], skip_public=True)] == [public_data]

    with pytest.raises(ValueError, match='private key'):
        load_keypairs([PUBLIC['ssh-rsa']])

    with pytest.raises(FileNotFoundError):
        load_keypairs([(key, str(tmp_path / 'cert'))])

    with pytest.raises(KeyImportError, match='pair'):
        load_keypairs([(key, None, None)])

    with pytest.raises(TypeError, match='int'):
        load_keypairs([5])


def test_load_keypairs_ignores_encrypted_only_if_asked(tmp_path):
    write_secret(tmp_path / 'key', ENCRYPTED)
    write_secret(tmp_path / 'bad', SAMPLES[0][0].replace(b'b3Bl', b'b3Bm'))

    for keylist in (str(tmp_path / 'key'), [tmp_path / 'key']):
        assert load_keypairs(keylist, ignore_encrypted=True) == []
        assert load_keypairs(keylist, 'wrong', ignore_encrypted=True) == []

        with pytest.raises(KeyImportError, match='Passphrase must'):
            load_keypairs(keylist)

    with pytest.raises(KeyImportError, match='bad:1: '):
        load_keypairs([tmp_path / 'bad'], ignore_encrypted=True)


def test_default_keypairs(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert load_default_keypairs() == []
    folder = tmp_path / '.ssh'
    folder.mkdir()
    KEYS['ssh-rsa'].write_private_key(folder / 'id_rsa')
    write_secret(folder / 'id_ed25519', ENCRYPTED)
    write_secret(folder / 'id_ecdsa', b'garbage')
    caplog.set_level('INFO', 'ssh_fast')

    assert [pair.get_algorithm() for pair in load_default_keypairs()] == ['ssh-rsa']
    assert 'id_ed25519' in caplog.text
    assert 'id_ecdsa' in caplog.text
    assert [pair.get_algorithm() for pair in load_default_keypairs('pass')] == ['ssh-ed25519', 'ssh-rsa']


def test_parsed_files_are_remembered_until_they_change(tmp_path, monkeypatch):
    path = tmp_path / 'key'
    path.write_bytes(ENCRYPTED)
    parses = []
    parse = key_files._private_keys
    monkeypatch.setattr(key_files, '_private_keys', lambda *args: parses.append(args) or parse(*args))

    first = read_private_key(path, 'pass')
    first.set_comment('mine')
    again = read_private_key(path, b'pass')
    assert again == first
    assert again.get_comment() is None
    assert len(parses) == 1

    # A remembered key is for those who know its passphrase.
    with pytest.raises(KeyEncryptionError):
        read_private_key(path, 'wrong')

    with pytest.raises(KeyImportError):
        read_private_key(path)

    KEYS['ssh-rsa'].write_private_key(path)
    assert read_private_key(path) == KEYS['ssh-rsa']


def test_a_file_of_the_same_size_and_time_is_read_anew(tmp_path):
    path = tmp_path / 'key.pub'
    one, two = PUBLIC['ssh-ed25519'], generate_private_key('ssh-ed25519')
    one.write_public_key(path)
    assert read_public_key(path) == one
    status = path.stat()
    time.sleep(0.05)  # longer than a tick of the file system's clock
    two.write_public_key(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert read_public_key(path) == two.convert_to_public()


def test_traditional_pem_of_openssl_is_read():
    for name in ALGORITHMS[1:]:
        data = KEYS[name].pyca_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.BestAvailableEncryption(b'pass'),
        )
        assert import_private_key(b'Some text before\n' + data, 'pass') == KEYS[name]
