"""The binary packet protocol of RFC 4253 section 6 in plain Python: framing, padding and sequence numbers.

A packet is packet_length (uint32) | padding_length (byte) | payload | random padding | tag.
"""

import os
from collections.abc import Callable

from tests.reference.cipher import MAX_LENGTH, PlainCipher, ReferenceCipher

MIN_PADDING = 4


class BadPacketError(Exception):
    """A packet's length or padding is not one that RFC 4253 section 6 allows."""


def frame(payload: bytes, block_size: int, length_apart: bool, fill: Callable[[int], bytes] = os.urandom) -> bytes:
    """Lay a payload into a packet: padding of 4 bytes or more, up to the next multiple of the block size.

    The length field counts for the alignment, unless the mode leaves it in clear or encrypts it by itself.
    """

    aligned = 1 + len(payload) + (0 if length_apart else 4)
    padding = MIN_PADDING + -(aligned + MIN_PADDING) % block_size

    # Section 6 again: no packet is smaller than 16 bytes, its tag not counted.
    while 4 + 1 + len(payload) + padding < 16:
        padding += block_size

    return (1 + len(payload) + padding).to_bytes(4, 'big') + bytes([padding]) + payload + fill(padding)


def unframe(packet: bytes) -> bytes:
    """Take the payload out of an opened packet."""

    length = int.from_bytes(packet[:4], 'big')

    if length != len(packet) - 4 or length < 1 + MIN_PADDING:
        raise BadPacketError(f'packet_length {length} in a packet of {len(packet)} bytes')

    padding = packet[4]

    if not MIN_PADDING <= padding <= length - 1:
        raise BadPacketError(f'padding_length {padding} in a packet_length of {length}')

    return packet[5 : 4 + length - padding]


class PacketSender:
    """One direction's sending end: payloads in, the bytes of the wire out."""

    def __init__(self) -> None:
        self.sequence = 0
        self._cipher: ReferenceCipher = PlainCipher()

    def set_cipher(self, cipher: ReferenceCipher, reset_sequence: bool = False) -> None:
        """Seal what follows with new keys: right after our NEWKEYS. Strict kex starts the sequence numbers again."""

        self._cipher = cipher

        if reset_sequence:
            self.sequence = 0

    def send(self, payload: bytes) -> bytes:
        """Frame and seal a payload."""

        return self.send_framed(frame(payload, self._cipher.block_size, self._cipher.length_apart))

    def send_framed(self, packet: bytes) -> bytes:
        """Seal a packet as it is, whatever its length and padding: a hostile peer holds the keys too."""

        sealed = self._cipher.seal_packet(self.sequence, packet)
        self.sequence = (self.sequence + 1) % 2**32

        return sealed


class PacketReceiver:
    """One direction's receiving end: the bytes of the wire in, in any pieces, and payloads out."""

    def __init__(self) -> None:
        self.sequence = 0
        self._cipher: ReferenceCipher = PlainCipher()
        self._data = b''

    @property
    def buffered(self) -> int:
        """How many bytes wait for the rest of their packet."""

        return len(self._data)

    def set_cipher(self, cipher: ReferenceCipher, reset_sequence: bool = False) -> None:
        """Open what follows with new keys: right after the peer's NEWKEYS."""

        self._cipher = cipher

        if reset_sequence:
            self.sequence = 0

    def feed(self, data: bytes) -> None:
        """Add received bytes."""

        self._data += data

    def next_payload(self) -> bytes | None:
        """Open the next packet and return its payload, or `None` if it is not complete yet."""

        cipher = self._cipher

        if len(self._data) < cipher.head_size:
            return None

        length = cipher.open_length(self.sequence, self._data[: cipher.head_size])

        if not 1 <= length <= MAX_LENGTH:
            raise BadPacketError(f'packet_length {length}')

        end = 4 + length + cipher.tag_size

        if len(self._data) < end:
            return None

        packet = cipher.open_packet(self.sequence, self._data[:end])
        self._data = self._data[end:]
        self.sequence = (self.sequence + 1) % 2**32

        return unframe(packet)

    def payloads(self) -> list[bytes]:
        """Open every complete packet under the present keys."""

        found = []

        while (payload := self.next_payload()) is not None:
            found.append(payload)

        return found
