"""Key types: signatures, blobs, bounds on what a peer sends, fingerprints."""

import subprocess

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssh_fast.errors import KeyExportError, KeyGenerationError, KeyImportError
from ssh_fast.keys.key import (
    KeyRefused,
    SSHKey,
    decode_public_key,
    generate_private_key,
    key_from_pyca,
    verify_signature,
)
from ssh_fast.keys.keypair import SSHLocalKeyPair
from ssh_fast.keys.load import import_private_key, import_public_key
from ssh_fast.keys.rsa import RSAKey
from ssh_fast.wire import encode_mpint, encode_string

ALGORITHMS = ['ssh-ed25519', 'ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp384', 'ecdsa-sha2-nistp521', 'ssh-rsa', 'ssh-dss']

# Those that ssh-keygen doesn't have
OTHER_ALGORITHMS = ['ssh-ed448', 'ecdsa-sha2-1.3.132.0.10']
ALL_ALGORITHMS = ALGORITHMS + OTHER_ALGORITHMS
KEYS = {
    name: generate_private_key(name, **({'key_size': 2048} if name == 'ssh-rsa' else {})) for name in ALL_ALGORITHMS
}
PUBLIC = {name: key.convert_to_public() for name, key in KEYS.items()}


@pytest.mark.parametrize('name', ALL_ALGORITHMS)
def test_sign_and_verify(name):
    key = KEYS[name]
    public = decode_public_key(key.public_data)

    for sig_algorithm in key.sig_algorithms:
        sig = key.sign(b'data', sig_algorithm)
        assert sig.startswith(encode_string(sig_algorithm))
        assert public.verify(b'data', sig) is (sig_algorithm != b'ssh-rsa')
        assert not public.verify(b'Data', sig)
        assert verify_signature(public, b'data', sig, {sig_algorithm})
        assert not verify_signature(public, b'data', sig, set())


@pytest.mark.parametrize('name', ALL_ALGORITHMS)
def test_signature_algorithm_names_are_exact(name):
    key = KEYS[name]
    sig = key.sign(b'data', key.sig_algorithms[0])
    others = {alg for other in KEYS.values() for alg in other.sig_algorithms} - {key.sig_algorithms[0]}

    assert not verify_signature(PUBLIC[name], b'data', sig, others)
    assert not any(PUBLIC[other].verify(b'data', sig) for other in ALL_ALGORITHMS if other != name)


@pytest.mark.parametrize('name', ALL_ALGORITHMS)
def test_every_flipped_bit_of_a_signature_is_refused(name):
    key = KEYS[name]
    sig = key.sign(b'data', key.sig_algorithms[0])

    for pos in range(len(sig)):
        assert not PUBLIC[name].verify(b'data', sig[:pos] + bytes([sig[pos] ^ 1]) + sig[pos + 1 :])
        assert not PUBLIC[name].verify(b'data', sig[:pos])

    assert not PUBLIC[name].verify(b'data', sig + b'\0')


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(ALL_ALGORITHMS), st.binary(max_size=600))
@example('ecdsa-sha2-nistp256', encode_mpint(-1) + encode_mpint(1))
@example('ecdsa-sha2-nistp256', encode_mpint(0) + encode_mpint(0))
@example('ecdsa-sha2-nistp521', encode_mpint(1 << 520) + encode_mpint(1 << 520))
@example('ssh-rsa', b'')
@example('ssh-rsa', bytes(256))
@example('ssh-rsa', b'\xff' * 256)
def test_any_signature_blob_gives_false(name, blob):
    for sig_algorithm in KEYS[name].sig_algorithms:
        assert not PUBLIC[name].verify(b'data', encode_string(sig_algorithm) + encode_string(blob))

    assert not PUBLIC[name].verify(b'data', blob)


def test_sha1_signatures_count_only_where_they_are_named():
    key = KEYS['ssh-rsa']
    blob = key.pyca_key.sign(b'data', padding.PKCS1v15(), hashes.SHA1())
    sig = encode_string(b'ssh-rsa') + encode_string(blob)
    assert not key.verify(b'data', sig)
    assert not verify_signature(PUBLIC['ssh-rsa'], b'data', sig, {b'rsa-sha2-256', b'rsa-sha2-512'})
    assert verify_signature(PUBLIC['ssh-rsa'], b'data', sig, {b'ssh-rsa'})

    for name in ALL_ALGORITHMS:
        assert KEYS[name].sig_algorithms[0] != b'ssh-rsa'


def test_rsa_signature_without_leading_zero_is_accepted():
    key = KEYS['ssh-rsa']

    for count in range(4000):
        data = str(count).encode()
        blob = key.sign_raw(data, b'rsa-sha2-256')

        if blob[0] == 0:
            break
    else:
        pytest.fail('no signature with a leading zero')

    sig = encode_string(b'rsa-sha2-256') + encode_string(blob[1:])
    assert PUBLIC['ssh-rsa'].verify(data, sig)
    assert not PUBLIC['ssh-rsa'].verify(data, encode_string(b'rsa-sha2-256') + encode_string(b'\0' + blob))


def test_a_wrong_rsa_signature_is_never_returned():
    key = KEYS['ssh-rsa']
    damaged = RSAKey(generate_private_key('ssh-rsa', key_size=2048).convert_to_public().pyca_key, key.pyca_key)

    with pytest.raises(ValueError, match='does not verify'):
        damaged.sign(b'data', b'rsa-sha2-512')


def test_a_public_key_cannot_sign_or_be_exported_as_private():
    for key in PUBLIC.values():
        with pytest.raises(ValueError, match='private key'):
            key.sign(b'', key.sig_algorithms[0])

        with pytest.raises(KeyExportError, match='private key'):
            key.export_private_key()

        with pytest.raises(ValueError, match='private key'):
            SSHLocalKeyPair(key)


def rsa_blob(e, n):
    return encode_string(b'ssh-rsa') + encode_mpint(e) + encode_mpint(n)


N2048 = PUBLIC['ssh-rsa'].pyca_key.public_numbers().n


@pytest.mark.parametrize(
    'blob',
    [
        rsa_blob(65537, (1 << 1023) + 1),
        rsa_blob(65537, (1 << 16384) + 1),
        rsa_blob(65537, (1 << 500_000) + 1),
        rsa_blob(65537, N2048 + 1),
        rsa_blob(65537, -N2048),
        rsa_blob(1, N2048),
        rsa_blob(0, N2048),
        rsa_blob(-3, N2048),
        rsa_blob(65536, N2048),
        rsa_blob((1 << 64) + 1, N2048),
        rsa_blob((1 << 100_000) + 1, N2048),
        rsa_blob(65537, N2048) + b'\0',
        rsa_blob(65537, N2048)[:-1],
    ],
)
def test_rsa_bounds(blob):
    with pytest.raises(KeyImportError):
        decode_public_key(blob)


def test_rsa_leading_zeros_are_normalised():
    n = N2048.to_bytes(256, 'big')
    blob = encode_string(b'ssh-rsa') + encode_string(b'\0\1\0\1') + encode_string(bytes(40) + n)

    assert decode_public_key(blob).public_data == rsa_blob(65537, N2048)


@pytest.mark.parametrize('size', [0, 1, 31, 33, 64])
def test_ed25519_size(size):
    with pytest.raises(KeyImportError, match='32 bytes'):
        decode_public_key(encode_string(b'ssh-ed25519') + encode_string(bytes(size)))


def ec_blob(name, curve, point):
    return encode_string(name) + encode_string(curve) + encode_string(point)


@pytest.mark.parametrize('name', [name for name in ALGORITHMS if name.startswith('ecdsa')])
def test_ec_points(name):
    curve = name.rpartition('-')[2].encode()
    point = PUBLIC[name].public_data[-(1 + 2 * {b'nistp256': 32, b'nistp384': 48, b'nistp521': 66}[curve]) :]
    half = len(point) // 2
    assert decode_public_key(ec_blob(name.encode(), curve, point)) == PUBLIC[name]

    compressed = bytes([2 + point[-1] % 2]) + point[1 : 1 + half]
    off_curve = point[:-1] + bytes([point[-1] ^ 1])
    wrong = [b'', b'\0', compressed, off_curve, point + b'\0', point[:-1], b'\4' + bytes(2 * half)]
    # The hybrid form, and the field's own prime and more as coordinates
    wrong += [bytes([6 + point[-1] % 2]) + point[1:], b'\4' + b'\xff' * (2 * half)]

    for bad in wrong:
        with pytest.raises(KeyImportError):
            decode_public_key(ec_blob(name.encode(), curve, bad))

    with pytest.raises(KeyImportError, match='curve'):
        decode_public_key(ec_blob(name.encode(), b'nistp192', point))


@settings(max_examples=300, deadline=1000)
@given(st.data(), st.sampled_from(ALL_ALGORITHMS))
def test_mutated_public_keys(data, name):
    blob = bytearray(PUBLIC[name].public_data)

    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))

    blob = bytes(blob[: data.draw(st.integers(0, len(blob)))]) if data.draw(st.booleans()) else bytes(blob)

    try:
        key = decode_public_key(blob)
    except KeyImportError:
        return

    assert isinstance(key, SSHKey)
    assert not key.verify(b'data', KEYS[name].sign(b'data', KEYS[name].sig_algorithms[0])) or key == PUBLIC[name]


@given(st.binary(max_size=200))
def test_any_blob(blob):
    with pytest.raises(KeyImportError):
        decode_public_key(blob)


def test_unknown_algorithm_is_refused():
    with pytest.raises(KeyRefused, match='Unknown key algorithm'):
        decode_public_key(encode_string(b'ssh-foo\x1b[31m') + encode_string(b'x'))


def test_unknown_pyca_keys_are_refused():
    for key in (ec.generate_private_key(ec.BrainpoolP256R1()), dsa.generate_private_key(2048).public_key()):
        with pytest.raises(KeyRefused):
            key_from_pyca(key)

    with pytest.raises(KeyRefused, match='2048'):
        key_from_pyca(rsa.generate_private_key(65537, 1024))


@pytest.mark.parametrize('name', ALGORITHMS)
@pytest.mark.parametrize('hash_name', ['md5', 'sha1', 'sha256', 'sha384', 'sha512'])
def test_fingerprints_as_ssh_keygen_shows_them(name, hash_name, tmp_path):
    KEYS[name].write_public_key(tmp_path / 'key.pub')
    shown = subprocess.run(
        ['ssh-keygen', '-lv', '-E', hash_name, '-f', tmp_path / 'key.pub'], check=True, capture_output=True, text=True
    ).stdout
    assert shown.split()[1] == KEYS[name].get_fingerprint(hash_name)
    assert shown.splitlines()[1:] == KEYS[name].get_randomart(hash_name).splitlines()

    with pytest.raises(ValueError, match='crc32'):
        KEYS[name].get_fingerprint('crc32')


def test_equality_and_hash():
    key = KEYS['ssh-ed25519']
    public = PUBLIC['ssh-ed25519']
    assert public == decode_public_key(public.public_data)
    assert hash(public) == hash(decode_public_key(public.public_data))
    assert key != public
    assert key == import_private_key(key.export_private_key())
    assert public != PUBLIC['ssh-rsa']
    assert public != public.public_data


def test_comments():
    key = generate_private_key('ssh-ed25519', 'gr\xfcn key')
    assert key.get_comment() == 'gr\xfcn key'
    assert key.has_comment()
    assert import_public_key(key.export_public_key()).get_comment_bytes() == 'gr\xfcn key'.encode()
    assert import_private_key(key.export_private_key()).get_comment() == 'gr\xfcn key'
    assert key.convert_to_public().get_comment() == 'gr\xfcn key'

    key.set_comment(None)
    assert key.get_comment() is None

    for bad in ('two\nlines', b'nul\0'):
        with pytest.raises(ValueError, match='comment'):
            key.set_comment(bad)


@pytest.mark.parametrize('name', ALL_ALGORITHMS)
def test_reprs_show_no_secret(name):
    key = KEYS[name]
    secret = key.private_data
    text = (repr(key) + repr(SSHLocalKeyPair(key))).encode()
    assert key.get_algorithm().encode() in text
    assert not any(secret[pos : pos + 8].hex().encode() in text for pos in range(len(key.public_data), len(secret), 8))
    assert len(text) < 300


def test_generation_arguments():
    for name, kwargs, match in [
        ('ssh-foo', {}, 'ssh-foo'),
        ('ssh-ed25519', {'key_size': 256}, 'key_size'),
        ('ecdsa-sha2-nistp256', {'curve': 1}, 'curve'),
        ('ssh-rsa', {'key_size': 1024}, '2048'),
        ('ssh-rsa', {'key_size': 65536}, '16384'),
        ('ssh-rsa', {'exponent': 4}, 'exponent'),
        ('ssh-rsa', {'bits': 2048}, 'bits'),
    ]:
        with pytest.raises(KeyGenerationError, match=match):
            generate_private_key(name, **kwargs)


def test_keypair_signature_algorithms():
    pair = SSHLocalKeyPair(KEYS['ssh-rsa'])
    assert pair.algorithm == b'ssh-rsa'
    assert pair.sig_algorithm == b'rsa-sha2-512'
    pair.set_sig_algorithm(b'rsa-sha2-256')
    assert verify_signature(PUBLIC['ssh-rsa'], b'data', pair.sign(b'data'), {b'rsa-sha2-256'})

    with pytest.raises(ValueError, match='ssh-ed25519'):
        pair.set_sig_algorithm(b'ssh-ed25519')
