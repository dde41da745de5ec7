"""The compiled ciphers: known answers, every kind of damage, hostile lengths, memory bounds and a failing libcrypto."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import ssh_fast._cipher
from ssh_fast._cipher import (
    CIPHER_SUITES,
    MAC_SUITES,
    OpeningCipher,
    SealingCipher,
    cipher_suite,
    legacy_cipher_suites,
    legacy_mac_suites,
    mac_suite,
    new_opening_cipher,
    new_sealing_cipher,
)
from ssh_fast.errors import MACError, ProtocolError
from tests.reference.cipher import new_reference_cipher
from tests.reference.packet import frame
from tests.reference.suites import (
    AEAD_KEYS,
    ARCFOUR_KEYS,
    CBC_KEYS,
    LEGACY_MAC_KEYS,
    LEGACY_SUITES,
    MAC_KEYS,
    STREAM_KEYS,
    SUITES,
    Suite,
)

HERE = Path(__file__).parent
MAX_LENGTH = 256 * 1024

every_suite = pytest.mark.parametrize('suite', SUITES + LEGACY_SUITES, ids=str)


def pair(suite: Suite, seed: bytes = b'') -> tuple[SealingCipher, OpeningCipher]:
    return new_sealing_cipher(*suite.keys(seed)), new_opening_cipher(*suite.keys(seed))


def packet_for(cipher: SealingCipher | OpeningCipher, payload: bytes) -> bytes:
    return frame(payload, cipher.block_size, cipher.length_apart)


def raw_packet(length: int) -> bytes:
    """A packet of any length at all, its padding_length 4 if there is room for one."""

    return length.to_bytes(4, 'big') + (b'\4' + bytes(length - 1) if length else b'')


def flip(data: bytes, bit: int) -> bytes:
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8

    return bytes(flipped)


# --- the tables and the constructors ----------------------------------------------------------------------------------


def test_tables_hold_every_suite() -> None:
    sizes = AEAD_KEYS | STREAM_KEYS

    assert {suite.name for suite in SUITES} == set(CIPHER_SUITES) == set(sizes)
    assert {suite.mac for suite in SUITES if suite.mac} == set(MAC_SUITES)

    for name, row in CIPHER_SUITES.items():
        assert row.name == name
        assert (row.key_size, row.iv_size) == sizes[name]
        assert row.aead == (name in AEAD_KEYS)

    for name, row in MAC_SUITES.items():
        assert row.name == name
        assert row.key_size == row.tag_size == MAC_KEYS[name.removesuffix(b'-etm@openssh.com')]
        assert row.etm == name.endswith(b'-etm@openssh.com')


def test_legacy_tables_hold_every_legacy_suite_and_nobody_else_sees_them() -> None:
    ciphers, macs = legacy_cipher_suites(), legacy_mac_suites()
    sizes = CBC_KEYS | ARCFOUR_KEYS

    assert set(ciphers) == set(sizes)
    assert set(macs) == {name + etm for name in LEGACY_MAC_KEYS for etm in (b'', b'-etm@openssh.com')}
    assert not set(ciphers) & set(CIPHER_SUITES) and not set(macs) & set(MAC_SUITES)

    for name, suite in ciphers.items():
        assert suite == cipher_suite(name) == (name, *sizes[name], Suite(name).block_size, 0, False)

    for name, mac in macs.items():
        base = name.removesuffix(b'-etm@openssh.com')
        tag_size = 12 if base.endswith(b'-96') else LEGACY_MAC_KEYS[base]
        assert mac == mac_suite(name) == (name, LEGACY_MAC_KEYS[base], tag_size, name != base)

    for find in (cipher_suite, mac_suite):
        with pytest.raises(ValueError, match='expected one of .*, got'):
            find(b'none')


@every_suite
def test_sizes_of_both_directions_agree_with_the_reference(suite: Suite) -> None:
    sealing, opening = pair(suite)
    reference = new_reference_cipher(*suite.keys())

    assert sealing.block_size == opening.block_size == reference.block_size
    assert sealing.tag_size == opening.tag_size == reference.tag_size
    assert sealing.length_apart == opening.length_apart == reference.length_apart
    assert opening.head_size == reference.head_size
    assert opening.conceals_length == suite.conceals_length
    assert opening.conceals_tag == (suite.conceals_length and suite.chained)


@every_suite
@pytest.mark.parametrize('make', [new_opening_cipher, new_sealing_cipher])
def test_wrong_sizes_name_the_argument(suite: Suite, make: object) -> None:
    name, key, iv, mac, mac_key = suite.keys()
    assert callable(make)

    for wrong in (b'', key[:-1], key + b'x'):
        with pytest.raises(ValueError, match=rf'^key: expected {len(key)} bytes for .*, got {len(wrong)}$'):
            make(name, wrong, iv, mac, mac_key)

    with pytest.raises(ValueError, match=r'^iv: '):
        make(name, key, iv + b'x', mac, mac_key)

    if mac:
        with pytest.raises(ValueError, match=r'^mac_key: '):
            make(name, key, iv, mac, mac_key[:-1])

        with pytest.raises(ValueError, match=r"^mac: expected one of .*, got b''$"):
            make(name, key, iv)
    else:
        with pytest.raises(ValueError, match=r'^mac: expected none'):
            make(name, key, iv, b'hmac-sha2-256', bytes(32))


@pytest.mark.parametrize('make', [new_opening_cipher, new_sealing_cipher])
def test_unknown_names_and_needless_keys_are_refused(make: object) -> None:
    assert callable(make)

    with pytest.raises(ValueError, match=r'^name: expected one of .*aes128-ctr'):
        make(b'rijndael-cbc@lysator.liu.se', bytes(16), bytes(16), b'hmac-sha1', bytes(20))

    with pytest.raises(ValueError, match=r'^mac: expected one of .*hmac-sha1'):
        make(b'aes128-ctr', bytes(16), bytes(16), b'umac-64@openssh.com', bytes(16))

    with pytest.raises(ValueError, match='got none'):
        make(b'none', bytes(16), b'')

    with pytest.raises(TypeError):
        make(b'aes128-ctr', None, bytes(16))


def test_no_cipher_exists_without_its_keys() -> None:
    opening, sealing = new_opening_cipher(*SUITES[0].keys()), new_sealing_cipher(*SUITES[0].keys())

    for cls in (OpeningCipher, SealingCipher):
        with pytest.raises(TypeError, match='abstract'):
            cls()

    keyless: list[Any] = [type(opening), type(sealing)]

    for cls in keyless:
        with pytest.raises(TypeError):
            cls()

        with pytest.raises(TypeError):
            cls.__new__(cls, None, b'', b'')


# --- known answers ----------------------------------------------------------------------------------------------------


def test_counter_mode_known_answer() -> None:
    """NIST SP 800-38A, F.5.1."""

    plain = bytes.fromhex(
        '6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51'
        '30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710'
    )
    sealed = bytes.fromhex(
        '874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff'
        '5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee'
    )
    key, iv = bytes.fromhex('2b7e151628aed2a6abf7158809cf4f3c'), bytes(range(0xF0, 0x100))
    cipher = new_sealing_cipher(b'aes128-ctr', key, iv, b'hmac-sha2-256-etm@openssh.com', bytes(32))

    assert cipher.seal_packet(0, b'\0\0\0\x40' + plain)[4:-32] == sealed


def test_gcm_known_answer() -> None:
    """Test case 3 of the GCM specification; its tag has no additional data, so the tag is the reference's to check."""

    plain = bytes.fromhex(
        'd9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72'
        '1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255'
    )
    sealed = bytes.fromhex(
        '42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e'
        '21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f5985'
    )
    key, iv = bytes.fromhex('feffe9928665731c6d6a8f9467308308'), bytes.fromhex('cafebabefacedbaddecaf888')
    cipher = new_sealing_cipher(b'aes128-gcm@openssh.com', key, iv)

    assert cipher.seal_packet(0, b'\0\0\0\x40' + plain)[:-16] == b'\0\0\0\x40' + sealed


def chacha20_block(key: bytes, counter: int, nonce: int) -> bytes:
    """ChaCha20 with its first, 64-bit nonce: RFC 8439 section 2.3, the words 12 to 15 as Bernstein laid them."""

    start = b'expand 32-byte k' + key + counter.to_bytes(8, 'little') + nonce.to_bytes(8, 'big')
    words = [int.from_bytes(start[i : i + 4], 'little') for i in range(0, 64, 4)]
    state = words.copy()

    def quarter(a: int, b: int, c: int, d: int) -> None:
        for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = (state[x] + state[y]) & 0xFFFFFFFF
            mixed = state[z] ^ state[x]
            state[z] = (mixed << turn | mixed >> (32 - turn)) & 0xFFFFFFFF

    for _ in range(10):
        for column in range(4):
            quarter(column, column + 4, column + 8, column + 12)

        for column in range(4):
            quarter(column, (column + 1) % 4 + 4, (column + 2) % 4 + 8, (column + 3) % 4 + 12)

    return b''.join(((one + two) & 0xFFFFFFFF).to_bytes(4, 'little') for one, two in zip(words, state, strict=True))


def poly1305(key: bytes, data: bytes) -> bytes:
    """RFC 8439 section 2.5."""

    r = int.from_bytes(key[:16], 'little') & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0

    for i in range(0, len(data), 16):
        total = (total + int.from_bytes(data[i : i + 16] + b'\1', 'little')) * r % (2**130 - 5)

    return ((total + int.from_bytes(key[16:], 'little')) % 2**128).to_bytes(16, 'little')


def test_the_chacha_and_poly1305_of_this_file_are_right() -> None:
    """RFC 8439 sections 2.5.2 and A.1, test vector 1."""

    key = bytes.fromhex('85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b')

    assert poly1305(key, b'Cryptographic Forum Research Group').hex() == 'a8061dc1305136c6c22b8baf0c0127a9'
    assert chacha20_block(bytes(32), 0, 0).hex().startswith('76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1a')


@pytest.mark.parametrize('seq', [0, 1, 7, 2**31, 2**32 - 1])
def test_chacha_poly_known_answer(seq: int) -> None:
    """The construction of PROTOCOL.chacha20poly1305 over this file's own ChaCha20 and Poly1305."""

    _, key, _, _, _ = SUITES[0].keys()
    packet = b'\0\0\0\x68' + bytes(range(0x68))
    stream = b''.join(chacha20_block(key[:32], counter, seq) for counter in range(3))
    head = bytes(one ^ two for one, two in zip(packet[:4], chacha20_block(key[32:], 0, seq), strict=False))
    body = bytes(one ^ two for one, two in zip(packet[4:], stream[64:], strict=False))
    sealed = head + body + poly1305(stream[:32], head + body)

    assert SUITES[0].name == b'chacha20-poly1305@openssh.com'
    assert new_sealing_cipher(*SUITES[0].keys()).seal_packet(seq, packet) == sealed
    assert new_opening_cipher(*SUITES[0].keys()).open_packet(seq, sealed) == packet


# --- damage -----------------------------------------------------------------------------------------------------------


@every_suite
def test_every_flipped_bit_of_a_small_packet_is_found(suite: Suite, harness: ModuleType) -> None:
    payload = b'attack at dawn, all of us'
    sealing, opening = pair(suite)
    packet = packet_for(sealing, payload)
    sealed = sealing.seal_packet(3, packet)

    for bit in range(8 * len(sealed)):
        damaged = flip(sealed, bit)

        with pytest.raises((MACError, ProtocolError) if bit < 32 and not suite.conceals_length else MACError):
            new_opening_cipher(*suite.keys()).open_packet(3, damaged)

        # The size is known here, so that a damaged length field too must be found by the tag alone.
        exc, left = harness.open(new_opening_cipher(*suite.keys()), 3, damaged)
        assert type(exc) is MACError
        assert payload[8:] not in left

    assert opening.open_packet(3, sealed) == packet


@every_suite
def test_damage_anywhere_in_a_large_packet_is_found(suite: Suite) -> None:
    sealing, _ = pair(suite)
    sealed = sealing.seal_packet(0, packet_for(sealing, bytes(range(256)) * 128))
    edges = {4, 5, 15, 16, 19, 20, 4095, 4096, 16384, len(sealed) // 2}
    places = edges | {*range(len(sealed) - 80, len(sealed)), *range(64, len(sealed), 999)}

    for place in places:
        with pytest.raises(MACError):
            new_opening_cipher(*suite.keys()).open_packet(0, flip(sealed, 8 * place + place % 8))


@every_suite
def test_wrong_key_or_sequence_number_is_found(suite: Suite) -> None:
    sealing, _ = pair(suite)
    sealed = sealing.seal_packet(5, packet_for(sealing, b'payload'))
    name, key, iv, mac, mac_key = suite.keys()
    others = [(name, flip(key, 0), iv, mac, mac_key), (name, flip(key, 8 * len(key) - 1), iv, mac, mac_key)]

    if name.endswith(b'-gcm@openssh.com'):
        others += [(name, key, flip(iv, bit), mac, mac_key) for bit in (0, 40, 95)]

    if mac:
        others = [(name, key, iv, mac, flip(mac_key, bit)) for bit in (0, 8 * len(mac_key) - 1)]

    for other in others:
        with pytest.raises((MACError, ProtocolError)):
            new_opening_cipher(*other).open_packet(5, sealed)

    # AES-GCM counts packets by itself (RFC 5647 section 7.1); with it the sequence number is not used.
    if not name.endswith(b'-gcm@openssh.com'):
        for seq in (4, 6, 5 + 2**31):
            with pytest.raises((MACError, ProtocolError)):
                new_opening_cipher(*suite.keys()).open_packet(seq, sealed)


@every_suite
def test_repeated_dropped_and_swapped_packets_are_found(suite: Suite) -> None:
    sealing, opening = pair(suite)
    sealed = [sealing.seal_packet(seq, packet_for(sealing, b'number %d' % seq)) for seq in range(3)]
    opening.open_packet(0, sealed[0])

    with pytest.raises((MACError, ProtocolError)):
        opening.open_packet(1, sealed[0])

    opening = new_opening_cipher(*suite.keys())
    opening.open_packet(0, sealed[0])

    with pytest.raises((MACError, ProtocolError)):
        opening.open_packet(1, sealed[2])


@every_suite
def test_every_truncation_is_refused(suite: Suite) -> None:
    sealing, _ = pair(suite)
    sealed = sealing.seal_packet(0, packet_for(sealing, b'p' * 40))

    for size in range(len(sealed)):
        with pytest.raises((MACError, ProtocolError)):
            new_opening_cipher(*suite.keys()).open_packet(0, sealed[:size])

    with pytest.raises((MACError, ProtocolError)):
        new_opening_cipher(*suite.keys()).open_packet(0, sealed + b'\0')


def test_mac_error_tells_nothing_but_the_sequence_number() -> None:
    messages = set()

    for suite in SUITES:
        sealing, opening = pair(suite)
        sealed = sealing.seal_packet(9, packet_for(sealing, b'secret'))

        with pytest.raises(MACError) as info:
            opening.open_packet(9, flip(sealed, 8 * len(sealed) - 1))

        messages.add(str(info.value))

        if suite.conceals_length:
            with pytest.raises(MACError) as info:
                new_opening_cipher(*suite.keys()).open_packet(9, flip(sealed, 0))

            messages.add(str(info.value))

    assert messages == {'Expected a packet with a valid MAC, got one that does not match at sequence number 9'}


# --- hostile lengths --------------------------------------------------------------------------------------------------

LENGTHS = [*range(66), 100, 34999, 35000, 35001, MAX_LENGTH - 8, MAX_LENGTH - 4, MAX_LENGTH - 1, MAX_LENGTH]
TOO_LONG = [MAX_LENGTH + 4, MAX_LENGTH + 8, MAX_LENGTH + 12, MAX_LENGTH + 16, MAX_LENGTH + 64]


@every_suite
def test_lengths_with_a_valid_tag_open_only_if_the_mode_can_have_them(suite: Suite) -> None:
    block = suite.block_size

    for length in LENGTHS + TOO_LONG:
        opening = new_opening_cipher(*suite.keys())
        packet = raw_packet(length)
        sealed = new_reference_cipher(*suite.keys()).seal_packet(0, packet)
        aligned = length if opening.length_apart else length + 4

        if aligned >= block and aligned % block == 0 and length <= MAX_LENGTH:
            assert opening.open_packet(0, sealed) == packet
        else:
            whole = len(sealed) >= opening.head_size + opening.tag_size

            with pytest.raises(MACError if suite.conceals_length and whole else ProtocolError):
                opening.open_packet(0, sealed)


@every_suite
@pytest.mark.parametrize('length', [MAX_LENGTH + 1, 2**31 - 1, 2**31, 2**32 - 4, 2**32 - 1])
def test_lengths_that_no_packet_has_are_refused(suite: Suite, length: int, harness: ModuleType) -> None:
    sealed = new_reference_cipher(*suite.keys()).seal_packet(0, length.to_bytes(4, 'big') + bytes(60))
    opening = new_opening_cipher(*suite.keys())

    assert harness.open_length(new_opening_cipher(*suite.keys()), 0, sealed[: opening.head_size]) == length

    with pytest.raises(MACError if suite.conceals_length else ProtocolError):
        opening.open_packet(0, sealed)


@every_suite
def test_sealing_refuses_what_the_peer_would(suite: Suite) -> None:
    sealing, opening = pair(suite)
    offset = 0 if sealing.length_apart else 4

    for length in range(66):
        packet = raw_packet(length)

        if length + offset >= sealing.block_size and (length + offset) % sealing.block_size == 0:
            assert opening.open_packet(1, sealing.seal_packet(1, packet)) == packet
        else:
            with pytest.raises(ProtocolError, match=rf'got {length}$'):
                sealing.seal_packet(1, packet)

    with pytest.raises(ProtocolError, match=r'got 3$'):
        sealing.seal_packet(0, b'\0\0\0')

    with pytest.raises(ProtocolError, match='Expected a packet_length of 60, got 61'):
        sealing.seal_packet(0, b'\0\0\0\x3d' + bytes(60))

    with pytest.raises(ProtocolError):
        sealing.seal_packet(0, raw_packet(MAX_LENGTH + 16 - offset))


def test_plain_packets_are_checked_for_their_length() -> None:
    sealing, opening = new_sealing_cipher(b'none', b'', b''), new_opening_cipher(b'none', b'', b'')
    assert (opening.block_size, opening.tag_size, opening.head_size) == (8, 0, 4)
    assert (sealing.block_size, sealing.tag_size) == (8, 0)
    assert not (opening.length_apart or opening.conceals_length or sealing.length_apart)

    for length in LENGTHS + TOO_LONG:
        packet = raw_packet(length)

        if (length + 4) % 8 == 0 and length <= MAX_LENGTH:
            assert opening.open_packet(0, packet) == sealing.seal_packet(0, packet) == packet
        else:
            with pytest.raises(ProtocolError):
                opening.open_packet(0, packet)


# --- the C interface --------------------------------------------------------------------------------------------------


def compiler() -> list[str]:
    command = (os.environ.get('CC') or sysconfig.get_config_var('CC') or 'cc').split()

    if not shutil.which(command[0]):
        pytest.skip(f'needs a C compiler, and {command[0]} is not here')

    return command


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope='session')
def harness_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip('Cython')
    folder = tmp_path_factory.mktemp('cipher_harness')
    package = Path(ssh_fast._cipher.__file__).parent.parent
    source = str(folder / 'cipher_harness.c')
    target = str(folder / 'cipher_harness') + sysconfig.get_config_var('EXT_SUFFIX')

    run(sys.executable, '-m', 'cython', '-3', '-I', str(package), '-o', source, str(HERE / 'cipher_harness.pyx'))
    run(*compiler(), '-O1', '-fPIC', '-shared', f'-I{sysconfig.get_path("include")}', '-o', target, source)

    return folder


@pytest.fixture(scope='session')
def harness(harness_folder: Path) -> ModuleType:
    path = next(harness_folder.glob('*' + sysconfig.get_config_var('EXT_SUFFIX')))
    spec = importlib.util.spec_from_file_location('cipher_harness', path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    return module


@every_suite
@pytest.mark.parametrize('guard_behind', [True, False], ids=['page behind', 'page in front'])
def test_nothing_outside_the_packet_is_touched(suite: Suite, guard_behind: bool, harness: ModuleType) -> None:
    """Any step outside is a segmentation fault."""

    sealing, opening = pair(suite)
    reference = new_reference_cipher(*suite.keys())

    for seq, size in enumerate([0, 1, 7, 30, 100, 4000, 32768, 200_000]):
        packet = packet_for(sealing, os.urandom(size))
        exc, sealed = harness.seal(sealing, seq, packet, guard_behind)
        assert exc is None
        assert sealed == reference.seal_packet(seq, packet)
        exc, opened = harness.open(opening, seq, sealed, guard_behind)
        assert exc is None
        assert opened == packet + sealed[len(packet) :]


@every_suite
@pytest.mark.parametrize('guard_behind', [True, False], ids=['page behind', 'page in front'])
def test_no_length_leads_outside_the_packet(suite: Suite, guard_behind: bool, harness: ModuleType) -> None:
    sealing, opening = pair(suite)
    offset = 0 if sealing.length_apart else 4
    least = max(1, opening.head_size - 4)

    for length in [*range(least, 66), 1000, MAX_LENGTH - 4, MAX_LENGTH - 1, MAX_LENGTH, MAX_LENGTH + 16]:
        aligned = length + offset
        fits = length <= MAX_LENGTH and aligned >= sealing.block_size and aligned % sealing.block_size == 0
        exc, _ = harness.seal(sealing, 0, raw_packet(length), guard_behind)
        assert exc is None if fits else type(exc) is ProtocolError

        exc, _ = harness.open(opening, 0, bytes(4 + length + opening.tag_size), guard_behind)
        assert type(exc) is MACError if fits or suite.conceals_length else type(exc) is ProtocolError


@every_suite
def test_a_wrong_tag_leaves_no_plaintext(suite: Suite, harness: ModuleType) -> None:
    secret = b'the payload that nobody may see before its tag was found right '
    sealing, opening = pair(suite)
    sealed = sealing.seal_packet(0, packet_for(sealing, secret * 500))
    exc, left = harness.open(opening, 0, flip(sealed, 8 * len(sealed) - 1))

    assert type(exc) is MACError
    assert all(secret[place : place + 8] not in left for place in range(len(secret) - 8))


# --- a libcrypto that fails -------------------------------------------------------------------------------------------

FAILING_SCRIPT = """
import ctypes, sys
import cipher_harness
from ssh_fast._cipher import legacy_cipher_suites, new_opening_cipher, new_sealing_cipher
from ssh_fast.errors import MACError, ProtocolError
from tests.reference.packet import frame
from tests.reference.suites import LEGACY_SUITES, SUITES

libcrypto = ctypes.CDLL(None)
legacy_cipher_suites()
secret = b'a secret payload that is longer than one block of any cipher'
failures = 0

for suite in SUITES + LEGACY_SUITES:
    for make in (new_opening_cipher, new_sealing_cipher):
        number = 0
        while True:
            number += 1
            libcrypto.fail_call(number)
            try:
                make(*suite.keys())
            except (MemoryError, ProtocolError):
                assert libcrypto.has_failed(), (suite, make, number)
                failures += 1
                continue
            assert not libcrypto.has_failed(), (suite, make, number)
            break

    sealing = new_sealing_cipher(*suite.keys())
    packet = frame(secret, sealing.block_size, sealing.length_apart)
    sealed = sealing.seal_packet(0, packet)

    number = 0
    while True:
        number += 1
        sealing = new_sealing_cipher(*suite.keys())
        libcrypto.fail_call(number)
        try:
            result = sealing.seal_packet(0, packet)
        except ProtocolError as exc:
            assert libcrypto.has_failed() and 'libcrypto' in str(exc), exc
            failures += 1
            continue
        assert not libcrypto.has_failed(), (suite, number, 'sealed')
        assert result == sealed
        break

    number = 0
    while True:
        number += 1
        opening = new_opening_cipher(*suite.keys())
        libcrypto.fail_call(number)
        exc, left = cipher_harness.open(opening, 0, sealed)
        failed = libcrypto.has_failed()
        assert failed == (exc is not None), (suite, number, exc)
        if not failed:
            assert left[:len(packet)] == packet
            break
        assert isinstance(exc, (MACError, ProtocolError)), exc
        assert not (suite.conceals_length or 'gcm' in str(suite)) or secret[16:32] not in left, (suite, number)
        failures += 1

print(failures)
"""


@pytest.fixture(scope='session')
def failing_libcrypto(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.platform != 'linux':
        pytest.skip('needs LD_PRELOAD')

    target = tmp_path_factory.mktemp('failing_libcrypto') / 'failing_libcrypto.so'
    source = str(HERE / 'failing_libcrypto.c')

    # The real libcrypto must be loaded with it, so that it is what comes next in the search.
    run(*compiler(), '-shared', '-fPIC', '-Wall', '-o', str(target), source, '-Wl,--no-as-needed', '-lcrypto', '-ldl')

    return target


def run_with(failing_libcrypto: Path, script: str, path: list[Path], **variables: str) -> str:
    # An AddressSanitizer runtime, if one is preloaded, must stay the first.
    preload = ':'.join([*filter(None, [os.environ.get('LD_PRELOAD')]), str(failing_libcrypto)])
    root = Path(ssh_fast._cipher.__file__).parent.parent
    search = os.pathsep.join(map(str, [*path, root, HERE.parent.parent]))
    environment = os.environ | variables | {'LD_PRELOAD': preload, 'PYTHONPATH': search}
    done = subprocess.run([sys.executable, '-c', script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    return done.stdout.strip()


def test_every_failure_of_libcrypto_raises(failing_libcrypto: Path, harness_folder: Path) -> None:
    """Let each call of each operation fail in turn: an error comes out, never a packet."""

    failures = int(run_with(failing_libcrypto, FAILING_SCRIPT, [harness_folder]))

    # At the least: a context, a key, a start, an update and a final for each of the three operations of each suite.
    assert failures >= 10 * len(SUITES + LEGACY_SUITES)


@pytest.mark.parametrize(
    ('lacking', 'ciphers', 'macs'),
    [
        ('ChaCha20', set(CIPHER_SUITES) - {b'chacha20-poly1305@openssh.com'}, set(MAC_SUITES)),
        ('POLY1305', set(CIPHER_SUITES) - {b'chacha20-poly1305@openssh.com'}, set(MAC_SUITES)),
        ('AES-128-GCM', set(CIPHER_SUITES) - {b'aes128-gcm@openssh.com'}, set(MAC_SUITES)),
        ('HMAC', set(CIPHER_SUITES), set()),
    ],
)
def test_what_libcrypto_lacks_is_not_offered(
    failing_libcrypto: Path, lacking: str, ciphers: set[bytes], macs: set[bytes]
) -> None:
    script = 'from ssh_fast._cipher import *; print(sorted(CIPHER_SUITES), sorted(MAC_SUITES), sep="|")'
    offered = run_with(failing_libcrypto, script, [], FAILING_LIBCRYPTO_LACKS=lacking)

    assert offered == f'{sorted(ciphers)}|{sorted(macs)}'


@pytest.mark.parametrize(
    ('lacking', 'absent'),
    [
        ('legacy', {b'blowfish-cbc', b'cast128-cbc', b'seed-cbc@ssh.com', *ARCFOUR_KEYS}),
        ('RC4', {*ARCFOUR_KEYS}),
        ('DES-EDE3-CBC', {b'3des-cbc'}),
    ],
)
def test_what_the_legacy_provider_lacks_is_not_known(failing_libcrypto: Path, lacking: str, absent: set[bytes]) -> None:
    script = 'from ssh_fast._cipher import *; print(sorted(legacy_cipher_suites()))'
    known = run_with(failing_libcrypto, script, [], FAILING_LIBCRYPTO_LACKS=lacking)

    assert known == f'{sorted((CBC_KEYS | ARCFOUR_KEYS).keys() - absent)}'


def test_the_legacy_provider_stays_ours(failing_libcrypto: Path) -> None:
    """Nobody else in the process gets it, nor loses the default one."""

    script = """
import ctypes, hashlib
from ssh_fast._cipher import legacy_cipher_suites
assert b'arcfour' in legacy_cipher_suites()
libcrypto = ctypes.CDLL(None)
libcrypto.EVP_CIPHER_fetch.restype = ctypes.c_void_p
print(*(bool(libcrypto.EVP_CIPHER_fetch(None, name, None)) for name in (b'RC4', b'AES-128-CBC')))
"""

    assert run_with(failing_libcrypto, script, []) == 'False True'
