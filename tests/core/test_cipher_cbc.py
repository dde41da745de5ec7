"""CBC with a MAC that is not encrypt-then-mac: nothing tells how long a packet was that is refused (CVE-2008-5161)."""

import pytest

from ssh_fast._cipher import new_opening_cipher
from ssh_fast._packet import PacketReader
from ssh_fast.errors import MACError, ProtocolError
from tests.reference.cipher import new_reference_cipher
from tests.reference.packet import frame
from tests.reference.suites import CBC_KEYS, ETM, Suite

LONGEST = 256 * 1024
CHAINED = [Suite(name, b'hmac-sha1') for name in CBC_KEYS]
every_chained = pytest.mark.parametrize('suite', CHAINED, ids=str)


class Received:
    """A handler that keeps what it is given."""

    def __init__(self, suite: Suite) -> None:
        self.payloads: list[bytes] = []
        self.reader = PacketReader(self)
        self.reader.identified = True
        self.reader.set_cipher(new_opening_cipher(*suite.keys()), True)

    def line_received(self, line: bytes) -> None:
        raise AssertionError

    def packet_received(self, payload: bytes, sequence: int) -> None:
        self.payloads.append(payload)


def taken_before_the_error(suite: Suite, stream: bytes) -> tuple[int, str]:
    """Feed a stream block by block; return how many bytes the reader took before it failed, and what it then said."""

    received = Received(suite)
    fed = 0

    with pytest.raises(MACError) as info:
        # Long steps at first, the last ones byte by byte.
        for step in [4096] * 63 + [1] * 8192:
            received.reader.feed(stream[fed : fed + step])
            fed += step

    assert received.payloads == []

    return fed + step, str(info.value)


@every_chained
def test_every_wrong_packet_ends_after_the_same_number_of_bytes(suite: Suite) -> None:
    """Whatever the length field decrypts to, and whether the length or only the MAC is wrong."""

    told = set()
    payloads = {'small': b'p', 'large': bytes(30_000)}

    for payload in payloads.values():
        sealing = new_reference_cipher(*suite.keys())
        sealed = bytearray(sealing.seal_packet(0, frame(payload, sealing.block_size, False)))

        for place in (4, len(sealed) - 21, len(sealed) - 1):
            damaged = bytearray(sealed)
            damaged[place] ^= 1
            told.add(taken_before_the_error(suite, bytes(damaged) + bytes(2 * LONGEST)))

    for length in (0, 1, 4, 2**31, 2**32 - 1, LONGEST + 4, 13, 35_001):
        sealing = new_reference_cipher(*suite.keys())
        bad = sealing.seal_packet(0, length.to_bytes(4, 'big') + bytes(60))
        told.add(taken_before_the_error(suite, bad + bytes(2 * LONGEST)))

    assert told == {
        (4 + LONGEST + 20, 'Expected a packet with a valid MAC, got one that does not match at sequence number 0')
    }


@every_chained
def test_a_stolen_block_in_front_tells_nothing(suite: Suite) -> None:
    """The attack itself: a block from the middle of the stream, sent as the first block of a packet."""

    told = set()

    for secret in range(6):
        sealing = new_reference_cipher(*suite.keys(bytes([secret])))
        stream = sealing.seal_packet(0, frame(b'a secret %d' % secret * 20, sealing.block_size, False))
        reader = Received(suite).reader
        reader.set_cipher(new_opening_cipher(*suite.keys(bytes([secret]))), True)
        block = stream[5 * sealing.block_size : 6 * sealing.block_size]
        reader.feed(block + bytes(4 + LONGEST + 20 - len(block) - 1))

        with pytest.raises(MACError) as info:
            reader.feed(b'\0')

        told.add(str(info.value))

    assert len(told) == 1


@every_chained
def test_nothing_behind_a_refused_packet_is_taken(suite: Suite) -> None:
    sealing = new_reference_cipher(*suite.keys())
    packets = [sealing.seal_packet(seq, frame(b'payload %d' % seq, sealing.block_size, False)) for seq in range(3)]
    received = Received(suite)
    received.reader.feed(packets[0])
    received.reader.feed(packets[1][:-1] + bytes([packets[1][-1] ^ 1]) + packets[2])

    assert received.payloads == [b'payload 0']

    with pytest.raises(MACError, match='sequence number 1$'):
        received.reader.feed(bytes(LONGEST))

    assert received.payloads == [b'payload 0']


@pytest.mark.parametrize('name', [*CBC_KEYS])
def test_encrypt_then_mac_needs_no_such_care(name: bytes) -> None:
    """With an -etm MAC nothing is decrypted before it is known to be right: a wrong packet is refused at once."""

    suite = Suite(name, b'hmac-sha2-256' + ETM)
    sealing = new_reference_cipher(*suite.keys())
    sealed = sealing.seal_packet(0, frame(b'payload', sealing.block_size, True))

    with pytest.raises(MACError):
        Received(suite).reader.feed(sealed[:-1] + bytes([sealed[-1] ^ 1]))

    with pytest.raises(ProtocolError):
        Received(suite).reader.feed(b'\0\0\0\x05' + sealed[4:])
