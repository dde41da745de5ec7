"""The key exchange methods: agreement, what is hashed, and every peer value that must be refused."""

import hashlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ssh_fast.errors import KeyExchangeFailed, PacketDecodeError, ProtocolError
from ssh_fast.transport.algorithms import known_algorithms
from ssh_fast.transport.kex import KEX_METHODS, KexContext, KexResult, KeyExchange
from ssh_fast.transport.kex.base import encode_secret
from ssh_fast.transport.kex.groups import MODP_GROUPS
from ssh_fast.wire import Cursor, encode_byte, encode_mpint, encode_string, encode_uint32
from tests.memory_pipe import host_key

P14 = MODP_GROUPS[2048]
CURVES = {
    b'ecdh-sha2-nistp256': ec.SECP256R1(),
    b'ecdh-sha2-nistp384': ec.SECP384R1(),
    b'ecdh-sha2-nistp521': ec.SECP521R1(),
    b'ecdh-sha2-1.3.132.0.10': ec.SECP256K1(),
}
LOW_ORDER = [
    bytes(32), b'\1' + bytes(31), b'\xec' + b'\xff' * 30 + b'\x7f', b'\xed' + b'\xff' * 30 + b'\x7f',
    b'\xee' + b'\xff' * 30 + b'\x7f',
    bytes.fromhex('e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800'),
    bytes.fromhex('5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157'),
]  # fmt: skip


class Side:
    """One end of an exchange without a transport: what it sent, and how it ended."""

    def __init__(self, name: bytes, *, is_client: bool) -> None:
        self.sent: list[bytes] = []
        key = None if is_client else host_key()
        self.method: KeyExchange = KEX_METHODS[name](
            KexContext(is_client, b'prefix', self.sent.append, key, b'ssh-ed25519')
        )
        self.result: KexResult | None = None
        self.method.start()

    def receive(self, payload: bytes) -> None:
        self.result = self.method.message_received(payload[0], payload)


def agree(name: bytes) -> tuple[Side, Side]:
    client, server = Side(name, is_client=True), Side(name, is_client=False)
    while client.result is None:
        server.receive(client.sent.pop(0))
        client.receive(server.sent.pop(0))
    return client, server


@pytest.mark.parametrize('name', known_algorithms('kex'))
def test_both_agree(name: bytes) -> None:
    client, server = agree(name)
    assert client.result == server.result
    assert client.result.host_key_data == host_key().public_data
    assert host_key().key.verify(client.result.exchange_hash, client.result.signature)
    assert repr(client.result.shared_secret) not in repr(client.result)
    assert agree(name)[0].result.exchange_hash != client.result.exchange_hash
    is_string = name.startswith((b'mlkem', b'sntrup'))
    sizes = {'sha256': 32, 'sha384': 48, 'sha512': 64}
    assert len(Cursor(client.result.shared_secret).string()) == sizes.get(client.result.hash_name) or not is_string


def test_keys_derived() -> None:
    """RFC 4253 section 7.2, written out."""
    result = agree(b'curve25519-sha256')[0].result
    k, h = result.shared_secret, result.exchange_hash
    k1 = hashlib.sha256(k + h + b'C' + b'session').digest()
    k2 = hashlib.sha256(k + h + k1).digest()
    k3 = hashlib.sha256(k + h + k1 + k2).digest()
    assert result.derive_key(b'C', b'session', 80) == (k1 + k2 + k3)[:80]
    assert result.derive_key(b'C', b'session', 16) == k1[:16]
    assert result.derive_key(b'C', b'session', 0) == b''


def test_secret_as_mpint() -> None:
    """Leading zeros go, a high bit gets one (the bug of russh a7fc1eb)."""
    assert encode_secret(b'\0\0\x12' + bytes(29)) == encode_string(b'\x12' + bytes(29))
    assert encode_secret(b'\x80' + bytes(31)) == encode_string(b'\0\x80' + bytes(31))
    assert encode_secret(b'\0\x80' + bytes(30)) == encode_string(b'\0\x80' + bytes(30))
    assert encode_secret(b'\x7f' + bytes(31)) == encode_string(b'\x7f' + bytes(31))


@pytest.mark.parametrize('name', [b'curve25519-sha256', b'ecdh-sha2-nistp256', b'diffie-hellman-group14-sha256'])
@pytest.mark.parametrize('wanted', ['zero', 'high', 'low'])
def test_agreement_for_each_shape_of_the_secret(name: bytes, wanted: str) -> None:
    """Exchanges are repeated until the secret has a leading zero byte, a high first bit, or neither."""
    size = 256 if name.startswith(b'diffie') else 32
    # The rarest shape comes once in 512 exchanges: this many are in vain once in 10^10 runs.
    for _ in range(12_000):
        client, server = agree(name)
        assert client.result == server.result
        secret = Cursor(client.result.shared_secret).string()
        shape = 'high' if secret[0] == 0 else 'zero' if len(secret) < size else 'low'
        assert secret[0] or secret[1] & 0x80
        if shape == wanted:
            return
    pytest.fail(f'No secret of the shape {wanted}')


def reply(value: bytes) -> bytes:
    return encode_byte(31) + encode_string(host_key().public_data) + value + encode_string(b'sig')


def refuse_both(name: bytes, client_value: bytes, server_value: bytes) -> None:
    """A bad value is refused in INIT by the server, and in REPLY by the client."""
    server = Side(name, is_client=False)
    with pytest.raises(KeyExchangeFailed, match='Expected'):
        server.receive(encode_byte(30) + client_value)
    assert server.sent == [], 'nothing was signed'

    client = Side(name, is_client=True)
    with pytest.raises(KeyExchangeFailed, match='Expected'):
        client.receive(reply(server_value))


@pytest.mark.parametrize('bits', [2048, 4096, 8192])
@pytest.mark.parametrize('value', [lambda p: 0, lambda p: 1, lambda p: p - 1, lambda p: p, lambda p: p + 1,
                                   lambda p: -2, lambda p: p << 8])  # fmt: skip
def test_dh_range(bits: int, value: Callable[[int], int]) -> None:
    name = {2048: b'diffie-hellman-group14-sha256', 4096: b'diffie-hellman-group16-sha512',
            8192: b'diffie-hellman-group18-sha512'}[bits]  # fmt: skip
    field = encode_mpint(value(MODP_GROUPS[bits]))
    refuse_both(name, field, field)


def test_dh_edges_are_allowed() -> None:
    for value in (2, P14 - 2):
        side = Side(b'diffie-hellman-group14-sha256', is_client=False)
        side.receive(encode_byte(30) + encode_mpint(value))
        assert side.result is not None


@pytest.mark.parametrize('value', [*LOW_ORDER, b'', bytes(31), b'\x09' + bytes(32), bytes(64)])
def test_curve25519_values(value: bytes) -> None:
    refuse_both(b'curve25519-sha256', encode_string(value), encode_string(value))


@pytest.mark.parametrize('name', CURVES)
def test_points(name: bytes) -> None:
    curve = CURVES[name]
    public = ec.generate_private_key(curve).public_key()
    good = public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    packed = public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    off = good[:-1] + bytes([good[-1] ^ 1])
    foreign = CURVES[b'ecdh-sha2-nistp384' if name.endswith(b'256') else b'ecdh-sha2-nistp256']
    other = ec.generate_private_key(foreign).public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    hybrid = bytes([6 | good[-1] & 1]) + good[1:]
    for bad in (off, packed, b'\0', b'', good[:-1], good + b'\0', other, hybrid, b'\4' + bytes(len(good) - 1)):
        refuse_both(name, encode_string(bad), encode_string(bad))
    side = Side(name, is_client=False)
    side.receive(encode_byte(30) + encode_string(good))
    assert side.result is not None


def test_hybrid_lengths_and_parts() -> None:
    name = b'mlkem768x25519-sha256'
    good_init = Cursor(Side(name, is_client=True).sent[0][1:]).string()
    assert len(good_init) == 1184 + 32
    server = Side(name, is_client=False)
    server.receive(encode_byte(30) + encode_string(good_init))
    cursor = Cursor(server.sent[0][1:])
    cursor.string()
    good_reply = cursor.string()
    assert len(good_reply) == 1088 + 32

    for cut in (0, 32, 1, 1183, 1088, len(good_init) - 1):
        refuse_both(name, encode_string(good_init[:cut]), encode_string(good_reply[:min(cut, 1119)]))
    refuse_both(name, encode_string(good_init + b'\0'), encode_string(good_reply + b'\0'))
    refuse_both(name, encode_string(good_init[:1184] + bytes(32)), encode_string(good_reply[:1088] + bytes(32)))
    # A public key whose coefficients are not reduced modulo q (FIPS 203 section 7.2) is no key.
    server = Side(name, is_client=False)
    with pytest.raises(KeyExchangeFailed):
        server.receive(encode_byte(30) + encode_string(b'\xff' * 1184 + good_init[1184:]))


def test_hybrid_ciphertext_of_another_key_gives_another_secret() -> None:
    """ML-KEM rejects implicitly: a forged ciphertext gives a secret that nobody knows, and the hash differs."""
    name = b'mlkem768x25519-sha256'
    client, server = Side(name, is_client=True), Side(name, is_client=False)
    server.receive(client.sent[0])
    forged = bytearray(server.sent[0])
    offset = forged.index(encode_uint32(1120)) + 4
    forged[offset + 10] ^= 1
    client.receive(bytes(forged))
    assert client.result.exchange_hash != server.result.exchange_hash
    assert not host_key().key.verify(client.result.exchange_hash, client.result.signature)


@pytest.mark.parametrize('name', known_algorithms('kex'))
def test_truncated_and_trailing(name: bytes) -> None:
    for is_client in (True, False):
        template = Side(name, is_client=not is_client)
        side = Side(name, is_client=is_client)
        if is_client:
            template.receive(side.sent[0])
        message = template.sent[0]
        for bad in (message[:1], message[:9], message[:-1], message + b'\0'):
            fresh = Side(name, is_client=is_client)
            with pytest.raises((PacketDecodeError, KeyExchangeFailed)):
                fresh.receive(bad)
            assert fresh.result is None


@pytest.mark.parametrize('name', known_algorithms('kex'))
def test_unexpected_messages(name: bytes) -> None:
    for is_client in (True, False):
        group = b'group-exchange' in name
        expected = {(True, True): 31, (True, False): 34, (False, True): 31, (False, False): 30}[group, is_client]
        for message_type in set(range(30, 50)) - {expected}:
            side = Side(name, is_client=is_client)
            with pytest.raises(ProtocolError):
                side.receive(encode_byte(message_type) + bytes(100))


HYBRIDS = {
    b'mlkem768x25519-sha256': (1184, 1088, 32),
    b'mlkem768nistp256-sha256': (1184, 1088, 65),
    b'mlkem1024nistp384-sha384': (1568, 1568, 97),
    b'sntrup761x25519-sha512': (1158, 1039, 32),
}


@pytest.mark.parametrize('name', [name for name in HYBRIDS if name in KEX_METHODS])
def test_every_hybrid_checks_sizes_and_both_parts(name: bytes) -> None:
    public, ciphertext, curve = HYBRIDS[name]
    client, server = Side(name, is_client=True), Side(name, is_client=False)
    init = Cursor(client.sent[0][1:]).string()
    server.receive(client.sent[0])
    cursor = Cursor(server.sent[0][1:])
    cursor.string()
    answer = cursor.string()
    assert (len(init), len(answer)) == (public + curve, ciphertext + curve)
    client.receive(server.sent[0])
    assert client.result == server.result

    for cut in (0, curve, public, len(init) - 1):
        refuse_both(name, encode_string(init[:cut]), encode_string(answer[: min(cut, len(answer) - 1)]))
    refuse_both(name, encode_string(init + b'\0'), encode_string(answer + b'\0'))
    # all zero: of low order on Curve25519, no uncompressed point on the others
    refuse_both(name, encode_string(init[:public] + bytes(curve)), encode_string(answer[:ciphertext] + bytes(curve)))
    if curve > 32:
        for bad in (bytes([init[public] | 6]), b'\2', b'\3'):
            refuse_both(
                name,
                encode_string(init[:public] + bad + init[public + 1 :]),
                encode_string(answer[:ciphertext] + bad + answer[ciphertext + 1 :]),
            )


X448_PRIME = 2**448 - 2**224 - 1


@pytest.mark.parametrize(
    'value',
    [bytes(56), b'\1' + bytes(55), *((X448_PRIME + shift).to_bytes(56, 'little') for shift in (-1, 0, 1)),
     b'', bytes(55), b'\x05' + bytes(56), b'\x09' + bytes(31)],
)  # fmt: skip
def test_curve448_values(value: bytes) -> None:
    refuse_both(b'curve448-sha512', encode_string(value), encode_string(value))


def test_the_group_of_1024_bits_is_that_of_rfc_2409() -> None:
    """The first 894 bits of pi and the constant 129093 give the prime of its section 6.2."""

    def arctan(inverse: int) -> int:
        term, total, count = (1 << 1100) // inverse, 0, 1
        while term:
            total += term // count if count % 4 == 1 else -(term // count)
            term, count = term // (inverse * inverse), count + 2
        return total

    pi = 16 * arctan(5) - 4 * arctan(239)
    assert MODP_GROUPS[1024] == 2**1024 - 2**960 - 1 + 2**64 * ((pi >> (1100 - 894)) + 129093)


# --- group exchange

GEX = b'diffie-hellman-group-exchange-sha256'

# One of those that OpenSSH brings along in its file of moduli
OWN_PRIME = int(
    'E98F2A209BA9F4C8C1FFB02490E599A99FBE28F6A053E240A4BD5FEDE80B23FEA8A1476E9EF6605A4B4B41CC74CB945C'
    '7E168A91DB112424480A85CBF5853234B9B1F60F030D38F678BA80AE1461F716C463D7396151EB5F037CC88690FEEF8D'
    '16A1B67F56C11874DB5AA3D541BEFF390077C79C86434EDBC2B46821D2AE5D2FA4FFF1B086B07669B09498EA11B0FE26'
    'C773F79ACA044E085E0BA43BBE1EBE954AA1EC7A465A3232699E54958B1760AB7A04D9627EC1810970706C96B58BF849'
    '99EBED8846D8B384CB945BF782141B1BE2B7C0E04D531A2334DB41BBFD1BEA428C5FD22F50BABDBDFCC5B848F64CBA8D'
    '039636311F8D844DFFFBD77A42A9BFB7'
    , 16)  # fmt: skip


def request(low: int, wanted: int, high: int) -> bytes:
    return encode_byte(34) + encode_uint32(low) + encode_uint32(wanted) + encode_uint32(high)


@pytest.mark.parametrize(
    ('sizes', 'bits'),
    [((2048, 3072, 8192), 3072), ((2048, 2048, 8192), 2048), ((1024, 1024, 8192), 2048), ((2048, 7000, 8192), 8192),
     ((2048, 7000, 7500), 6144), ((2048, 16384, 16384), 8192), ((3000, 3000, 3100), 3072)],
)  # fmt: skip
def test_group_chosen(sizes: tuple[int, int, int], bits: int) -> None:
    server = Side(GEX, is_client=False)
    server.receive(request(*sizes))
    cursor = Cursor(server.sent[0])
    assert cursor.byte() == 31 and cursor.mpint() == MODP_GROUPS[bits] and cursor.mpint() == 2


@pytest.mark.parametrize('sizes', [(1024, 1024, 2047), (9000, 9000, 9999), (4096, 2048, 8192), (2048, 8192, 4096),
                                   (2049, 2050, 3071)])  # fmt: skip
def test_group_not_to_be_had(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(KeyExchangeFailed, match='group size'):
        Side(GEX, is_client=False).receive(request(*sizes))


def test_group_asked_for_once() -> None:
    server = Side(GEX, is_client=False)
    server.receive(request(2048, 2048, 8192))
    with pytest.raises(ProtocolError):
        server.receive(request(2048, 2048, 8192))
    with pytest.raises(ProtocolError):
        Side(GEX, is_client=False).receive(encode_byte(32) + encode_mpint(4))


@pytest.mark.parametrize(
    ('prime', 'generator'),
    [(MODP_GROUPS[2048] >> 1, 2), (MODP_GROUPS[2048] - 1, 2), (0, 2), (-MODP_GROUPS[2048], 2), ((1 << 8192) + 1, 2),
     (P14, 1), (P14, 0), (P14, P14 - 1), (P14, P14), (P14, -2)],
)  # fmt: skip
def test_group_refused(prime: int, generator: int) -> None:
    client = Side(GEX, is_client=True)
    with pytest.raises(KeyExchangeFailed):
        client.receive(encode_byte(31) + encode_mpint(prime) + encode_mpint(generator))
    assert len(client.sent) == 1


def test_group_sent_once() -> None:
    client = Side(GEX, is_client=True)
    client.receive(encode_byte(31) + encode_mpint(P14) + encode_mpint(2))
    with pytest.raises(ProtocolError):
        client.receive(encode_byte(31) + encode_mpint(P14) + encode_mpint(2))


def test_group_values_are_checked() -> None:
    for value in (0, 1, P14 - 1, P14, P14 + 1):
        server = Side(GEX, is_client=False)
        server.receive(request(2048, 2048, 8192))
        with pytest.raises(KeyExchangeFailed):
            server.receive(encode_byte(32) + encode_mpint(value))
        client = Side(GEX, is_client=True)
        client.receive(encode_byte(31) + encode_mpint(P14) + encode_mpint(2))
        bad = b'\x21' + encode_string(host_key().public_data) + encode_mpint(value) + encode_string(b'sig')
        with pytest.raises(KeyExchangeFailed):
            client.receive(bad)


def test_group_of_the_servers_own() -> None:
    """A 2048-bit safe prime that no standard names; the secret is the same on both sides, and values are checked."""
    client = Side(GEX, is_client=True)
    client.receive(encode_byte(31) + encode_mpint(OWN_PRIME) + encode_mpint(5))
    cursor = Cursor(client.sent[1])
    assert cursor.byte() == 32
    ours = cursor.mpint()
    assert 2 <= ours <= OWN_PRIME - 2
    theirs = 0xC0FFEE << 500
    reply = encode_byte(33) + encode_string(host_key().public_data)
    client.receive(reply + encode_mpint(pow(5, theirs, OWN_PRIME)) + encode_string(b'sig'))
    assert client.result.shared_secret == encode_mpint(pow(ours, theirs, OWN_PRIME))
    for value in (0, 1, OWN_PRIME - 1, OWN_PRIME, -5):
        client = Side(GEX, is_client=True)
        client.receive(encode_byte(31) + encode_mpint(OWN_PRIME) + encode_mpint(5))
        with pytest.raises(KeyExchangeFailed):
            client.receive(reply + encode_mpint(value) + encode_string(b'sig'))


def test_groups_are_safe_primes() -> None:
    """A Fermat test each for p and (p-1)/2; both have 64 one bits at either end (RFC 3526)."""
    for bits, prime in MODP_GROUPS.items():
        assert prime.bit_length() == bits
        assert prime >> (bits - 64) == prime & (2**64 - 1) == 2**64 - 1
        if bits <= 4096:
            assert pow(3, prime - 1, prime) == 1
            assert pow(3, prime // 2 - 1, prime // 2) == 1
