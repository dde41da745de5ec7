"""The compiled ciphers against the reference: {compiled, reference} seal x {compiled, reference} open, every suite."""

import random
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssh_fast._cipher import new_opening_cipher, new_sealing_cipher
from ssh_fast.errors import MACError, ProtocolError
from tests.reference.cipher import BadLengthError, BadTagError, ReferenceCipher, new_reference_cipher
from tests.reference.packet import BadPacketError, PacketReceiver, PacketSender, frame, unframe
from tests.reference.suites import LEGACY_SUITES, SUITES, Suite

SEALERS: dict[str, Callable[..., Any]] = {'compiled seal': new_sealing_cipher, 'reference seal': new_reference_cipher}
OPENERS: dict[str, Callable[..., Any]] = {'compiled open': new_opening_cipher, 'reference open': new_reference_cipher}

every_suite = pytest.mark.parametrize('suite', SUITES + LEGACY_SUITES, ids=str)
every_pairing = pytest.mark.parametrize(('sealer', 'opener'), list(product(SEALERS, OPENERS)))


@every_suite
@every_pairing
def test_many_packets_in_a_row(suite: Suite, sealer: str, opener: str) -> None:
    """Every small size, then large ones, in one stream, so that the counters of CTR and GCM run on."""

    rng = random.Random(1)
    sealing, opening = SEALERS[sealer](*suite.keys()), OPENERS[opener](*suite.keys())
    sizes = [*range(65), *rng.choices(range(2000), k=60), 4095, 4096, 32767, 32768, 65536, 131072, 261_000]

    for seq, size in enumerate(sizes):
        payload = rng.randbytes(size)
        packet = frame(payload, sealing.block_size, sealing.length_apart, rng.randbytes)
        sealed = sealing.seal_packet(seq, packet)
        assert len(sealed) == len(packet) + sealing.tag_size
        assert payload[:8] not in sealed or size < 8
        opened = opening.open_packet(seq, sealed)
        assert opened == packet
        assert unframe(opened) == payload


@every_suite
@every_pairing
def test_sequence_numbers_up_to_the_wrap(suite: Suite, sealer: str, opener: str) -> None:
    sealing, opening = SEALERS[sealer](*suite.keys()), OPENERS[opener](*suite.keys())

    for seq in (0, 1, 255, 256, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 3, 2**32 - 2, 2**32 - 1, 0, 1):
        packet = frame(b'sequence number %d' % seq, sealing.block_size, sealing.length_apart)
        assert opening.open_packet(seq, sealing.seal_packet(seq, packet)) == packet


@every_suite
def test_both_seal_the_same_bytes(suite: Suite) -> None:
    rng = random.Random(2)
    compiled, reference = new_sealing_cipher(*suite.keys()), new_reference_cipher(*suite.keys())

    for size in [*range(65), 5000, 32768]:
        packet = frame(rng.randbytes(size), compiled.block_size, compiled.length_apart, rng.randbytes)
        seq = rng.randrange(2**32)
        assert compiled.seal_packet(seq, packet) == reference.seal_packet(seq, packet)


@every_pairing
@pytest.mark.parametrize('name', [b'aes128-gcm@openssh.com', b'aes256-gcm@openssh.com'])
@pytest.mark.parametrize('counter', [2**8 - 2, 2**32 - 2, 2**63 - 2, 2**64 - 2])
def test_gcm_invocation_counter_wraps_in_its_field(name: bytes, counter: int, sealer: str, opener: str) -> None:
    _, key, _, _, _ = Suite(name).keys()
    iv = b'fix.' + counter.to_bytes(8, 'big')
    sealing, opening = SEALERS[sealer](name, key, iv), OPENERS[opener](name, key, iv)

    for seq in range(4):
        packet = frame(b'packet', 16, True)
        assert opening.open_packet(seq, sealing.seal_packet(seq, packet)) == packet


@every_pairing
@pytest.mark.parametrize('name', [b'aes128-ctr', b'aes192-ctr', b'aes256-ctr'])
@pytest.mark.parametrize('mac', [b'hmac-sha2-256', b'hmac-sha2-256-etm@openssh.com'])
def test_counter_mode_carries_through_all_16_bytes(name: bytes, mac: bytes, sealer: str, opener: str) -> None:
    _, key, _, _, mac_key = Suite(name, mac).keys()
    sealing = SEALERS[sealer](name, key, b'\xff' * 15 + b'\xfd', mac, mac_key)
    opening = OPENERS[opener](name, key, b'\xff' * 15 + b'\xfd', mac, mac_key)

    for seq in range(3):
        packet = frame(b'p' * 40, 16, sealing.length_apart)
        assert opening.open_packet(seq, sealing.seal_packet(seq, packet)) == packet


@every_suite
@settings(max_examples=25, deadline=None)
@given(
    payloads=st.lists(st.binary(max_size=300), min_size=1, max_size=6),
    seq=st.integers(0, 2**32 - 1),
    seed=st.binary(max_size=8),
)
def test_any_packets_pass_both_ways(suite: Suite, payloads: list[bytes], seq: int, seed: bytes) -> None:
    keys = suite.keys(seed)
    compiled, reference = new_sealing_cipher(*keys), new_reference_cipher(*keys)
    compiled_opening, reference_opening = new_opening_cipher(*keys), new_reference_cipher(*keys)

    for count, payload in enumerate(payloads):
        number = (seq + count) % 2**32
        packet = frame(payload, compiled.block_size, compiled.length_apart)
        sealed = compiled.seal_packet(number, packet)
        assert sealed == reference.seal_packet(number, packet)
        assert compiled_opening.open_packet(number, sealed) == reference_opening.open_packet(number, sealed) == packet


@every_suite
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_both_give_the_same_verdict_on_any_change(suite: Suite, data: st.DataObject) -> None:
    """Change, cut, lengthen or leave a packet: both open it to the same bytes, or both refuse it."""

    sealing = new_reference_cipher(*suite.keys())
    payload = data.draw(st.binary(max_size=100))
    packet = frame(payload, sealing.block_size, sealing.length_apart)
    received = bytearray(sealing.seal_packet(0, packet))

    for _ in range(data.draw(st.integers(0, 2))):
        place = data.draw(st.integers(0, len(received) - 1))

        match data.draw(st.sampled_from(['change', 'cut', 'insert'])):
            case 'change':
                received[place] = data.draw(st.integers(0, 255))
            case 'cut':
                del received[max(place, 48) :]
            case 'insert':
                received[place:place] = data.draw(st.binary(min_size=1, max_size=20))

    def verdict(open_packet: Callable[[int, bytes], bytes]) -> bytes | None:
        try:
            return open_packet(0, bytes(received))
        except (BadTagError, BadLengthError, MACError, ProtocolError):
            return None

    compiled = verdict(new_opening_cipher(*suite.keys()).open_packet)
    assert compiled == verdict(new_reference_cipher(*suite.keys()).open_packet)
    assert compiled in (None, packet)


# --- the reference's framing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize('block_size', [8, 16])
@pytest.mark.parametrize('length_apart', [True, False])
def test_reference_framing_keeps_the_rules_of_rfc_4253(block_size: int, length_apart: bool) -> None:
    for size in range(200):
        packet = frame(bytes(size), block_size, length_apart)
        length, padding = int.from_bytes(packet[:4], 'big'), packet[4]

        assert length == len(packet) - 4 == 1 + size + padding
        assert (len(packet) - 4 * length_apart) % block_size == 0
        assert 4 <= padding <= 255
        assert len(packet) >= 16
        assert padding < 4 + block_size or len(packet) - block_size < 16
        assert unframe(packet) == bytes(size)


@pytest.mark.parametrize('padding', [0, 1, 2, 3, 12, 13, 255])
def test_reference_refuses_bad_padding(padding: int) -> None:
    packet = bytes.fromhex('0000000c') + bytes([padding]) + bytes(11)

    with pytest.raises(BadPacketError):
        unframe(packet)


@every_suite
def test_reference_stream_in_any_pieces_over_a_change_of_keys(suite: Suite) -> None:
    sender, receiver = PacketSender(), PacketReceiver()
    sender.sequence = receiver.sequence = 2**32 - 2
    before, after = [b'one', b'two', b'three'], [b'four' * 1000, b'', b'five']

    for byte in b''.join(map(sender.send, before)):
        receiver.feed(bytes([byte]))

    assert receiver.payloads() == before
    assert sender.sequence == receiver.sequence == 1

    def reference() -> ReferenceCipher:
        return new_reference_cipher(*suite.keys())

    sender.set_cipher(reference(), reset_sequence=True)
    receiver.set_cipher(reference(), reset_sequence=True)
    opened = []

    for byte in b''.join(map(sender.send, after)):
        receiver.feed(bytes([byte]))
        opened += receiver.payloads()

    assert opened == after
    assert sender.sequence == receiver.sequence == 3
    assert receiver.buffered == 0
