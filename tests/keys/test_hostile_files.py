"""Key files that somebody damaged or made to do harm: typed errors that name file and line, soon, in bounded memory."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssh_fast.errors import KeyEncryptionError, KeyExportError, KeyImportError
from ssh_fast.keys import openssh_format
from ssh_fast.keys.load import (
    import_private_key,
    import_public_key,
    load_keypairs,
    read_private_key_list,
    read_public_key_list,
)
from ssh_fast.keys.pem_encryption import _der, encrypt_pkcs8
from tests.keys.test_formats import write_secret
from tests.keys.test_key import ALL_ALGORITHMS, KEYS, PUBLIC
from tests.keys.test_sk import NAMES, our_file

REFUSALS = KeyImportError, KeyEncryptionError
PRIVATE_FORMATS = ['openssh', 'pkcs1-pem', 'pkcs1-der', 'pkcs8-pem', 'pkcs8-der']
PUBLIC_FORMATS = ['openssh', 'rfc4716', 'pkcs1-pem', 'pkcs1-der', 'pkcs8-pem', 'pkcs8-der']


def private_samples():
    """Each type in each format, plain and sealed; sealing of OpenSSH's by the fewest rounds."""
    for name in ALL_ALGORITHMS:
        for format_name in PRIVATE_FORMATS:
            for passphrase in (None, 'pass'):
                try:
                    yield KEYS[name].export_private_key(
                        format_name, passphrase, rounds=1, ignore_few_rounds=True
                    ), KEYS[name]
                except KeyExportError:
                    continue
    for name in NAMES:
        yield our_file(name), import_private_key(our_file(name))


def public_samples():
    for name in ALL_ALGORITHMS:
        for format_name in PUBLIC_FORMATS:
            try:
                yield PUBLIC[name].export_public_key(format_name), PUBLIC[name]
            except KeyExportError:
                continue
    for name in NAMES:
        for format_name in ('openssh', 'rfc4716'):
            key = import_private_key(our_file(name)).convert_to_public()
            yield key.export_public_key(format_name), key


PRIVATE = list(private_samples())
PUBLICS = list(public_samples())


def test_samples_are_whole():
    assert len(PRIVATE) > 50
    assert len(PUBLICS) > 30
    for data, key in PRIVATE:
        assert import_private_key(data, 'pass') == key
    for data, key in PUBLICS:
        assert import_public_key(data) == key


@st.composite
def damaged(draw, samples):
    """A sample with some bytes changed, left out, doubled or cut."""
    data, key = draw(st.sampled_from(samples))
    armoured = data.startswith(b'-----') and draw(st.booleans())

    if armoured:
        lines = data.split(b'\n')
        content = [line for line in lines[1:-2] if b':' not in line and line]
        body = base64.b64decode(b''.join(content))
    else:
        body = data

    body = bytearray(body)
    for _ in range(draw(st.integers(1, 4))):
        pos = draw(st.integers(0, len(body) - 1))
        kind = draw(st.sampled_from(['change', 'cut', 'insert', 'remove', 'length']))
        if kind == 'change':
            body[pos] = draw(st.integers(0, 255))
        elif kind == 'cut' and len(body) > 1:
            del body[max(pos, 1) :]
        elif kind == 'insert':
            body[pos:pos] = draw(st.binary(max_size=8))
        elif kind == 'length':
            body[pos : pos + 4] = draw(st.sampled_from([b'\xff' * 4, b'\x7f\xff\xff\xff', b'\0\0\0\0']))
        elif len(body) > 1:
            del body[pos]

    if armoured:
        header = [line for line in lines[1:-2] if b':' in line]
        header += [b''] if header else []
        body = b'\n'.join([lines[0], *header, base64.b64encode(bytes(body)), *lines[-2:]])

    return bytes(body), key


@settings(max_examples=400, deadline=None)
@given(damaged(PRIVATE))
def test_damaged_private_keys(sample):
    data, key = sample

    # More rounds than one would be no error, and take a second each hundred.
    try:
        found = import_private_key(data, 'pass')
    except REFUSALS:
        return

    if found != key:
        # Numbers that agree among themselves make another key, never half of one.
        sig = found.sign(b'data', found.sig_algorithms[0]) if not found.needs_device else None
        assert sig is None or found.convert_to_public().verify(b'data', sig)


@settings(max_examples=400, deadline=None)
@given(damaged(PUBLICS))
def test_damaged_public_keys(sample):
    data, _ = sample

    try:
        found = import_public_key(data)
    except KeyImportError:
        return

    assert not found.is_private
    assert found.verify(b'data', b'') is False


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([b'', b'0', b'-----BEGIN PRIVATE KEY-----\n', b'ssh-dss ', b'---- ']))
def test_any_bytes(data, start):
    for read in (import_private_key, import_public_key):
        with pytest.raises(REFUSALS):
            read(start + data)


@pytest.mark.parametrize(('data', 'key'), PRIVATE[:: len(PRIVATE) // 12])
def test_cut_private_files_name_file_and_line(data, key, tmp_path):
    path = tmp_path / 'a key'

    for size in range(0, len(data) - 2, max(1, len(data) // 25)):
        write_secret(path, data[:size])
        for passphrase in (None, 'pass'):
            with pytest.raises(REFUSALS, match=r'/a key(:1)?: '):
                load_keypairs(str(path), passphrase)


@pytest.mark.parametrize('format_name', ['openssh', 'rfc4716', 'pkcs8-pem'])
def test_errors_name_the_line(format_name, tmp_path):
    path = tmp_path / 'keys'
    whole = PUBLIC['ecdsa-sha2-nistp256'].export_public_key(format_name)
    bad = whole.replace(b'AAAA', b'AAAB', 1) if format_name != 'pkcs8-pem' else whole.replace(b'MFk', b'MFl', 1)
    path.write_bytes(b'# a comment\n' + whole + bad)
    line = 2 + whole.count(b'\n')

    with pytest.raises(KeyImportError, match=rf'/keys:{line}: '):
        read_public_key_list(path)

    sealed = KEYS['ssh-ed25519'].export_private_key()
    path.write_bytes(sealed + b'\n' + sealed.replace(b'b3Bl', b'b3Bm'))

    with pytest.raises(KeyImportError, match=rf'/keys:{sealed.count(10) + 2}: '):
        read_private_key_list(path)


def test_comments_that_would_end_their_line():
    public = PUBLIC['ssh-ed25519'].export_public_key().strip()
    line = b'---- BEGIN SSH2 PUBLIC KEY ----\nComment: a\0b\n' + public.split()[1] + b'\n---- END SSH2 PUBLIC KEY ----'

    for data in (public + b' a\0b\r\n', public + b' a\rb', line):
        assert import_public_key(data).get_comment() == 'a b'

    key = KEYS['ssh-ed25519']
    sealed = openssh_format.encode_private(key.public_data, key.private_data, b'a\nssh-rsa b', None, '', 0, False)
    assert import_private_key(sealed).get_comment() == 'a ssh-rsa b'
    assert import_private_key(sealed).export_public_key().count(b'\n') == 1


# --- numbers that make work


def number(value):
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, 'big'))


def dsa_pkcs8(bits, private_bits):
    """A private DSA key whose public part is not in the file: whoever reads it must compute it."""
    p, q, g, x = (1 << bits) - 1, (1 << 160) - 1, (1 << bits) // 3, (1 << private_bits) - 1
    algorithm = _der(0x30, bytes.fromhex('06072a8648ce380401') + _der(0x30, number(p) + number(q) + number(g)))

    return _der(0x30, number(0) + algorithm + _der(0x04, number(x)))


def rsa_pkcs1(bits):
    n, p = (1 << bits) - 1, (1 << bits // 2) - 1

    return _der(0x30, b''.join(map(number, (0, n, 65537, n - 2, p, p, p, p, p))))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    'der',
    [
        dsa_pkcs8(20_000, 19_000),
        dsa_pkcs8(1024, 60_000),
        dsa_pkcs8(60_000, 160),
        rsa_pkcs1(20_000),
        rsa_pkcs1(500_000),
        _der(0x30, number(0) + b'\x30' * 10_000),
        b'\x30\x84\x7f\xff\xff\xff' + bytes(1000),
        b'\x30\x80' * 8000,
        b'\x30' * (1 << 20),
    ],
    ids=range(9),
)
def test_numbers_that_are_too_large(der):
    armoured = b'-----BEGIN %s-----\n' + base64.encodebytes(der) + b'-----END %s-----\n'

    for data in (der, *(armoured.replace(b'%s', label) for label in (b'PRIVATE KEY', b'DSA PRIVATE KEY'))):
        with pytest.raises(REFUSALS):
            import_private_key(data)

        with pytest.raises(REFUSALS):
            import_public_key(data)


@pytest.mark.timeout(20)
def test_sealed_numbers_that_are_too_large():
    """What a passphrase opens is bounded as well: by the size of the whole."""
    with pytest.raises(REFUSALS):
        import_private_key(encrypt_pkcs8(dsa_pkcs8(100_000, 100_000), b'pass', 'aes256-cbc', 'sha256', 2), 'pass')


@pytest.mark.timeout(20)
@pytest.mark.parametrize('passphrase', [None, 'pass'])
def test_large_files_are_refused_at_once(passphrase, tmp_path):
    for data in (b'\0' * (1 << 20) + b'x', b'-----BEGIN OPENSSH PRIVATE KEY-----\n' + b'A' * (2 << 20)):
        write_secret(tmp_path / 'key', data)

        with pytest.raises(KeyImportError, match=r'key: .*1048576'):
            load_keypairs(str(tmp_path / 'key'), passphrase)
