"""Attacks with keys and signatures that the field has seen: sizes, shapes, names, and what a signature proves."""

import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa

import ssh_fast
from ssh_fast.errors import KeyEncryptionError, KeyImportError
from ssh_fast.keys import sk
from ssh_fast.keys.key import SSHKey, decode_public_key, verify_signature
from ssh_fast.keys.keypair import SSHKeyPair
from ssh_fast.keys.rsa import set_required_rsa_size
from ssh_fast.wire import encode_mpint, encode_string
from tests.keys.test_key import ALL_ALGORITHMS, KEYS, PUBLIC
from tests.keys.test_sk import DEVICE, ECDSA, ED25519, NAMES

HOST_KEY = KEYS['ssh-ed25519']


# --- CVE-2026-39831: the user of a security key must be there


class DevicePair(SSHKeyPair):
    """A key pair that signs with the flags that an attacker wants."""

    def __init__(self, name: str, flags: int) -> None:
        key = decode_public_key(DEVICE.public_data(name))
        super().__init__(key.algorithm, key.sig_algorithms[:1], key.public_data, None)
        self.flags = flags

    def sign(self, data: bytes) -> bytes:
        return DEVICE.ssh_signature(self.algorithm.decode(), data, self.flags)


@contextlib.asynccontextmanager
async def serving(authorized_keys: str) -> AsyncIterator[Any]:
    server = await ssh_fast.listen(
        '127.0.0.1',
        0,
        server_host_keys=[HOST_KEY],
        authorized_client_keys=ssh_fast.import_authorized_keys(authorized_keys),
        process_factory=lambda process: process.exit(0),
    )

    async with server:
        yield server


async def logs_in(server: Any, pair: SSHKeyPair) -> bool:
    try:
        async with ssh_fast.connect(
            '127.0.0.1',
            server.get_port(),
            known_hosts=None,
            username='user',
            client_keys=[pair],
            agent_path=None,
            config=None,
            signature_algs='+*sk-*',
        ):
            return True
    except ssh_fast.PermissionDenied:
        return False


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize(
    ('options', 'flags', 'admitted'),
    [
        ('', 0x00, False),
        ('', 0x04, False),
        ('', 0x01, True),
        ('no-touch-required ', 0x00, True),
        ('no-touch-required,verify-required ', 0x00, False),
        ('verify-required ', 0x01, False),
        ('verify-required ', 0x05, True),
        ('verify-required ', 0x04, False),
    ],
)
async def test_cve_2026_39831_a_user_who_was_not_there(name: str, options: str, flags: int, admitted: bool) -> None:
    line = options + decode_public_key(DEVICE.public_data(name)).export_public_key().decode()

    async with serving(line) as server:
        assert await logs_in(server, DevicePair(name, flags)) is admitted


@pytest.mark.parametrize('name', NAMES)
def test_cve_2026_39831_flags_belong_to_the_signature(name: str) -> None:
    """Flags that were changed after signing don't count, whatever they are changed to."""
    key = decode_public_key(DEVICE.public_data(name))
    key.set_touch_required(False)
    sig = DEVICE.ssh_signature(name, b'data', 0)
    assert key.verify(b'data', sig)

    for flags in range(1, 256):
        assert not key.verify(b'data', sig[:-5] + bytes([flags]) + sig[-4:])


# --- CVE-2020-9283 and what followed: sizes and shapes before any arithmetic


def rsa_blob(e: int, n: int) -> bytes:
    return encode_string('ssh-rsa') + encode_mpint(e) + encode_mpint(n)


def dsa_blob(p: int, q: int, g: int, y: int) -> bytes:
    return encode_string('ssh-dss') + b''.join(map(encode_mpint, (p, q, g, y)))


def point_blob(name: str, curve: str, point: bytes) -> bytes:
    return encode_string(name) + encode_string(curve) + encode_string(point)


DSA = PUBLIC['ssh-dss'].pyca_key.public_numbers()
GROUP = DSA.parameter_numbers
BIG = (1 << 2047) | 1
POINT = b'\4' + bytes(64)
BLOBS = {
    'RSA of 1024 bits': rsa_blob(65537, (1 << 1023) | 1),
    'RSA of 2047 bits': rsa_blob(65537, (1 << 2046) | 1),
    'RSA of 16385 bits': rsa_blob(65537, (1 << 16384) | 1),
    'RSA of a megabit': rsa_blob(65537, (1 << 1_000_000) | 1),
    'RSA with an even exponent': rsa_blob(65536, BIG),
    'RSA with the exponent 1': rsa_blob(1, BIG),
    'RSA with the exponent 0': rsa_blob(0, BIG),
    'RSA with a huge exponent': rsa_blob((1 << 1000) | 1, BIG),
    'RSA with a negative modulus': rsa_blob(65537, -BIG),
    'RSA with an even modulus': rsa_blob(65537, BIG - 1),
    'DSA of 2048 bits': dsa_blob(BIG, GROUP.q, GROUP.g, DSA.y),
    'DSA of a megabit': dsa_blob((1 << 1_000_000) | 1, GROUP.q, GROUP.g, DSA.y),
    'DSA with a subgroup of 256 bits': dsa_blob(GROUP.p, (1 << 255) | 1, GROUP.g, DSA.y),
    'DSA with a subgroup of 8 bits': dsa_blob(GROUP.p, 251, GROUP.g, DSA.y),
    'DSA with an even modulus': dsa_blob(GROUP.p - 1, GROUP.q, GROUP.g, DSA.y),
    'DSA with a negative number': dsa_blob(GROUP.p, GROUP.q, -GROUP.g, DSA.y),
    'DSA with the generator 1': dsa_blob(GROUP.p, GROUP.q, 1, DSA.y),
    'DSA with the key 0': dsa_blob(GROUP.p, GROUP.q, GROUP.g, 0),
    'DSA with a key beyond the modulus': dsa_blob(GROUP.p, GROUP.q, GROUP.g, DSA.y + GROUP.p),
    'Ed25519 of 31 bytes': encode_string('ssh-ed25519') + encode_string(bytes(31)),
    'Ed25519 of 33 bytes': encode_string('ssh-ed25519') + encode_string(bytes(33)),
    'Ed25519 of none': encode_string('ssh-ed25519') + encode_string(b''),
    'Ed448 of 56 bytes': encode_string('ssh-ed448') + encode_string(bytes(56)),
    'Ed448 of 64 bytes': encode_string('ssh-ed448') + encode_string(bytes(64)),
    'ECDSA with a point of 64 bytes': point_blob('ecdsa-sha2-nistp256', 'nistp256', POINT[:-1]),
    'ECDSA with a compressed point': point_blob('ecdsa-sha2-nistp256', 'nistp256', b'\2' + bytes(32)),
    'ECDSA at infinity': point_blob('ecdsa-sha2-nistp256', 'nistp256', b'\0'),
    'ECDSA without a point': point_blob('ecdsa-sha2-nistp256', 'nistp256', b''),
    'ECDSA with another curve': point_blob('ecdsa-sha2-nistp256', 'nistp384', POINT),
    'secp256k1 with a point of 64 bytes': point_blob('ecdsa-sha2-1.3.132.0.10', '1.3.132.0.10', POINT[:-1]),
    'sk-ssh-ed25519 of 31 bytes': encode_string(ED25519) + encode_string(bytes(31)) + encode_string('ssh:'),
    'sk-ecdsa with a point of 64 bytes': point_blob(ECDSA, 'nistp256', POINT[:-1]) + encode_string('ssh:'),
}


@pytest.mark.parametrize('kind', BLOBS)
def test_cve_2020_9283_sizes_are_checked_before_any_arithmetic(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def arithmetic(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError('arithmetic was done')

    for owner, name in [
        (rsa, 'RSAPublicNumbers'),
        (dsa, 'DSAPublicNumbers'),
        (ed448.Ed448PublicKey, 'from_public_bytes'),
        (ec.EllipticCurvePublicKey, 'from_encoded_point'),
    ]:
        monkeypatch.setattr(owner, name, arithmetic)
    monkeypatch.setattr('ssh_fast.keys.dsa.pow', arithmetic, raising=False)

    with pytest.raises(KeyImportError):
        decode_public_key(BLOBS[kind])


@pytest.mark.parametrize('name', ['ecdsa-sha2-nistp256', 'ecdsa-sha2-1.3.132.0.10'])
def test_cve_2020_9283_points_are_on_their_curve(name: str) -> None:
    for x in range(5):
        point = b'\4' + x.to_bytes(32, 'big') + (7).to_bytes(32, 'big')
        with pytest.raises(KeyImportError, match='not on the curve'):
            decode_public_key(point_blob(name, name.rpartition('-')[2], point))


def test_cve_2020_9283_dsa_keys_are_of_their_subgroup() -> None:
    for number in (2, 3, GROUP.p - 2):
        for blob in (dsa_blob(GROUP.p, GROUP.q, number, DSA.y), dsa_blob(GROUP.p, GROUP.q, GROUP.g, number)):
            with pytest.raises(KeyImportError, match='subgroup'):
                decode_public_key(blob)


def test_cve_2026_39829_the_bounds_of_rsa_can_be_moved_only_so_far() -> None:
    short = rsa.generate_private_key(65537, 1024).public_key().public_numbers()

    for bits in (0, 512, 1023, 16385):
        with pytest.raises(ValueError, match='1024'):
            set_required_rsa_size(bits)

    set_required_rsa_size(1024)
    try:
        assert decode_public_key(rsa_blob(short.e, short.n)).bits == 1024
    finally:
        set_required_rsa_size(2048)

    with pytest.raises(KeyImportError, match='2048'):
        decode_public_key(rsa_blob(short.e, short.n))


# --- CVE-2026-35387: names are whole


@pytest.mark.parametrize('name', ALL_ALGORITHMS)
def test_cve_2026_35387_no_name_admits_another(name: str) -> None:
    key = KEYS[name]
    every = {algorithm for other in KEYS.values() for algorithm in other.sig_algorithms} | {
        ED25519.encode(),
        ECDSA.encode(),
    }

    for algorithm in key.sig_algorithms:
        sig = key.sign(b'data', algorithm)
        assert verify_signature(PUBLIC[name], b'data', sig, {algorithm})
        assert not verify_signature(PUBLIC[name], b'data', sig, every - {algorithm})

        # A signature under another name than it was made for
        for other in every - {algorithm}:
            renamed = encode_string(other) + sig[4 + len(algorithm) :]
            assert not verify_signature(PUBLIC[name], b'data', renamed, every)


# --- CVE-2023-2283, CVE-2023-6918: what fails inside is never a success


@pytest.mark.parametrize('name', [*ALL_ALGORITHMS, *NAMES])
def test_cve_2023_2283_a_failure_inside_is_no_success(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key: SSHKey = decode_public_key(DEVICE.public_data(name)) if name in NAMES else PUBLIC[name]
    sig = DEVICE.ssh_signature(name, b'data') if name in NAMES else KEYS[name].sign(b'data', key.sig_algorithms[0])
    assert key.verify(b'data', sig) is True

    class Broken:
        key_size = 2048

        def verify(self, *args: Any) -> None:
            raise MemoryError

    for attribute in ('_public_key', '_verify_key'):
        if hasattr(key, attribute):
            monkeypatch.setattr(key, attribute, Broken())

    with pytest.raises(MemoryError):
        key.verify(b'data', sig)


def test_cve_2023_6918_a_digest_that_fails_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise MemoryError

    key = decode_public_key(DEVICE.public_data(ED25519))
    sig = DEVICE.ssh_signature(ED25519, b'data')
    monkeypatch.setattr(sk.hashlib, 'sha256', broken)
    with pytest.raises(MemoryError):
        key.verify(b'data', sig)
    monkeypatch.undo()
    assert hashlib.sha256(b'').digest_size == 32
    assert key.verify(b'data', sig)


# --- files of keys that make work


@pytest.mark.parametrize('mark', ['-----BEGIN A-----', '-----BEGIN OPENSSH PRIVATE KEY-----', '-----BEGIN %d-----'])
@pytest.mark.timeout(20)
def test_files_of_many_marks_are_read_in_one_pass(mark: str) -> None:
    lines = (mark % number if '%d' in mark else mark for number in range((1 << 20) // (len(mark) + 6)))
    data = '\n'.join(lines).encode()

    for read in (ssh_fast.import_private_key, ssh_fast.import_public_key):
        with pytest.raises((KeyImportError, KeyEncryptionError)):
            read(data)
