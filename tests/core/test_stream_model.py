"""Connections in memory against a model: random ciphers, rekeys, cuts, compression, windows; and damaged streams."""

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssh_fast._cipher import CIPHER_SUITES, MAC_SUITES, new_opening_cipher, new_sealing_cipher
from ssh_fast._flow import ChannelFlow
from ssh_fast._packet import PacketReader, PacketWriter
from ssh_fast.errors import CompressionError, MACError, ProtocolError
from ssh_fast.transport.compression import Compressor, Decompressor

SUITES = [(name, b'') for name, suite in CIPHER_SUITES.items() if suite.aead] + [
    (name, mac) for name, suite in CIPHER_SUITES.items() if not suite.aead for mac in MAC_SUITES
]
NEWKEYS, MESSAGE, EOF = 21, 80, 96


class Channel:
    """One flow's handler: keeps what comes, credits it when told to."""

    def __init__(self, end: 'End', number: int, window: int, max_packet: int) -> None:
        self.flow = ChannelFlow(end.reader, end.writer, number, self, window, window * 2, max_packet)
        self.sent: dict[int, bytearray] = {0: bytearray(), 1: bytearray()}
        self.received: dict[int, bytearray] = {0: bytearray(), 1: bytearray()}
        self.order: list[tuple[int, int]] = []
        self.sent_order: list[tuple[int, int]] = []
        self.owed = 0
        self.paused = 0

    def send(self, data: bytes, datatype: int) -> None:
        self.sent[datatype] += data
        self._note(self.sent_order, datatype, len(data))
        self.flow.send(data, datatype)

    def data_received(self, data: bytes, datatype: int) -> None:
        assert data
        self.received.setdefault(datatype, bytearray()).extend(data)
        self._note(self.order, datatype, len(data))
        self.owed += len(data)

    @staticmethod
    def _note(order: list[tuple[int, int]], datatype: int, size: int) -> None:
        if order and order[-1][0] == datatype:
            order[-1] = datatype, order[-1][1] + size
        else:
            order.append((datatype, size))

    def credit(self) -> None:
        owed, self.owed = self.owed, 0
        self.flow.credit(owed)

    def sending_paused(self) -> None:
        assert self.paused == 0
        self.paused = 1

    def sending_resumed(self) -> None:
        assert self.paused == 1
        self.paused = 0

    def sink_failed(self, exc: Exception) -> None:
        raise exc


class End:
    """One end: what a transport does of a key exchange is switching ciphers at NEWKEYS."""

    def __init__(self, rng: random.Random, count: int, window: int, max_packet: int, peer_packet: int) -> None:
        self.rng = rng
        self.reader = PacketReader(self)
        self.writer = PacketWriter(self.wake)
        self.reader.identified = self.reader.express = True
        self.reader.now = 1.0
        self.awake = False
        self.wire = bytearray()
        self.messages: list[int] = []
        self.keys: list[tuple[tuple[bytes, ...], bool, bool]] = []
        self.peer: End
        self.numbers = itertools.count()
        self.channels = [Channel(self, number, window, max_packet) for number in range(count)]

        for channel in self.channels:
            channel.flow.open(channel.flow.local_id, window, peer_packet)
            self.reader.add_flow(channel.flow)

    def wake(self) -> None:
        self.awake = True

    @property
    def busy(self) -> bool:
        waiting = any(channel.flow.queued or channel.owed for channel in self.channels)

        return bool(self.wire or self.awake or self.reader.held or waiting)

    def message(self) -> None:
        self.writer.send_packet(bytes([MESSAGE]) + next(self.numbers).to_bytes(4, 'big') + self.rng.randbytes(9))

    def change_keys(self) -> None:
        """Send NEWKEYS, and go on with new keys; the peer finds them where its reader finds NEWKEYS."""
        name, mac = self.rng.choice(SUITES)
        suite = CIPHER_SUITES[name]
        keys = (
            name,
            self.rng.randbytes(suite.key_size),
            self.rng.randbytes(suite.iv_size),
            mac,
            self.rng.randbytes(MAC_SUITES[mac].key_size if mac else 0),
        )
        reset, compress = self.rng.random() < 0.5, self.rng.random() < 0.3
        self.peer.keys.append((keys, reset, compress))
        self.writer.send_packet(bytes([NEWKEYS]))
        self.writer.set_cipher(new_sealing_cipher(*keys), reset)
        self.writer.set_compressor(Compressor() if compress else None)

    def line_received(self, line: bytes) -> None:
        raise AssertionError(line)

    def packet_received(self, payload: bytes, sequence: int) -> None:
        if payload[0] == NEWKEYS:
            keys, reset, compress = self.keys.pop(0)
            self.reader.set_cipher(new_opening_cipher(*keys), reset)
            self.reader.set_decompressor(Decompressor() if compress else None)
        else:
            assert payload[0] == MESSAGE
            self.messages.append(int.from_bytes(payload[1:5], 'big'))

            if self.rng.random() < 0.1:
                self.reader.hold()

    def flush(self) -> None:
        """Do what a connection does after it was woken: take until there is nothing."""
        if not self.awake or self.writer.paused:
            return

        self.awake = False

        while (chunk := self.writer.take_chunk()) is not None:
            self.wire += chunk

    def receive(self, most: int) -> None:
        """Take some of what is on the wire, by either of the two ways."""
        size = min(most, len(self.peer.wire))
        data = bytes(self.peer.wire[:size])
        del self.peer.wire[:size]

        if self.rng.random() < 0.5:
            self.reader.feed(data)
            return

        while data:
            buffer = self.reader.get_buffer(-1)
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            data = data[size:]
            self.reader.buffer_updated(size)


def new_ends(rng: random.Random) -> tuple[End, End]:
    count, window = rng.randint(1, 4), rng.choice([1, 50, 3000, 100_000])
    packets = rng.choice([1, 100, 5000, 32768]), rng.choice([7, 1000, 131_072])
    one, other = (End(rng, count, window, mine, theirs) for mine, theirs in (packets, packets[::-1]))
    one.peer, other.peer = other, one

    return one, other


STEPS = ['send', 'send', 'receive', 'receive', 'receive', 'credit', 'credit', 'rekey', 'message', 'block', 'pause',
         'release', 'idle']  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 1)), max_size=120), st.integers(0, 2**32))
def test_every_byte_arrives_once_and_in_order(steps: list[tuple[str, int]], seed: int) -> None:
    rng = random.Random(seed)
    ends = new_ends(rng)

    for step, side in steps:
        end = ends[side]
        channel = rng.choice(end.channels)

        if step == 'send':
            channel.send(rng.randbytes(rng.choice([1, 5, 300, 5000, 40_000])), rng.choice([0, 0, 0, 1]))
        elif step == 'receive':
            end.receive(rng.choice([1, 3, 20, 1000, 30_000, 1 << 30]))
        elif step == 'credit':
            channel.credit()
        elif step == 'rekey':
            end.change_keys()
        elif step == 'message':
            end.message()
        elif step == 'block':
            end.writer.blocked = not end.writer.blocked
        elif step == 'pause':
            end.writer.paused = not end.writer.paused
            # As resume_writing does, whether it was woken or not.
            end.awake = True
        elif step == 'release':
            end.reader.release()
        else:
            end.reader.release_idle()
            end.writer.release_idle()

        end.flush()

    # All brakes off: only the wakes and the windows drive it now.
    for end in ends:
        end.awake |= end.writer.paused
        end.writer.paused = end.writer.blocked = False

    for _ in range(200_000):
        for end in ends:
            end.reader.release()
            end.flush()
            end.receive(1 << 30)

            for channel in end.channels:
                channel.credit()

        if not any(end.busy for end in ends):
            break

    for end in ends:
        assert end.messages == list(range(next(end.peer.numbers)))

        for here, there in zip(end.channels, end.peer.channels, strict=True):
            assert here.received == there.sent
            assert here.order == there.sent_order
            assert here.flow.queued == here.flow.queued_items == here.paused == 0
            # Less than half a window is kept back, and a window that grew was granted.
            assert there.flow.send_window * 2 >= here.flow.receive_window


# --- damage


def recorded(seed: int) -> tuple[list[bytes], list[tuple[tuple[bytes, ...], bool, bool]]]:
    """A stream with rekeys and data, cut at random, and the keys it takes."""
    rng = random.Random(seed)
    one, other = new_ends(rng)

    for _ in range(6):
        if rng.random() < 0.6:
            one.change_keys()

        one.message()

        for channel in one.channels:
            channel.send(rng.randbytes(rng.choice([3, 700])), rng.choice([0, 1]))

        one.flush()

    return [bytes(one.wire)], other.keys


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_a_damaged_stream_gives_an_error_or_nothing_but_what_was_sent(seed: int, data: st.DataObject) -> None:
    (stream,), keys = recorded(seed)
    damaged = bytearray(stream)

    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        kind = data.draw(st.sampled_from(['flip', 'cut', 'repeat', 'insert', 'length']))

        if kind == 'flip':
            damaged[place] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == 'cut':
            del damaged[place : place + data.draw(st.integers(1, 50))]
        elif kind == 'repeat':
            damaged[place:place] = damaged[place : place + data.draw(st.integers(1, 200))]
        elif kind == 'insert':
            damaged[place:place] = data.draw(st.binary(min_size=1, max_size=40))
        else:
            length = data.draw(st.sampled_from([0, 1, 3, 12, 35_000, 1 << 18, 2**31, 2**32 - 1]))
            damaged[place : place + 4] = length.to_bytes(4, 'big')

        if not damaged:
            return

    rng = random.Random(seed)
    _, end = new_ends(rng)
    end.keys = keys
    # A packet of the first, unprotected part may well be good in spite of the damage.
    end.packet_received = lenient(end)  # type: ignore[method-assign]

    try:
        for start in range(0, len(damaged), 1000):
            end.reader.feed(damaged[start : start + 1000])
    except (ProtocolError, MACError, CompressionError):
        pass

    for _ in range(3):
        # It stays broken, and touches nothing it should not.
        try:
            end.reader.feed(bytes(100))
        except (ProtocolError, MACError, CompressionError):
            continue


def lenient(end: End) -> Callable[[bytes, int], None]:
    def packet_received(payload: bytes, sequence: int) -> None:
        if payload[0] == NEWKEYS and end.keys:
            End.packet_received(end, payload, sequence)

    return packet_received


@pytest.mark.parametrize('suite', SUITES, ids=lambda suite: b'+'.join(filter(None, suite)).decode())
def test_a_protected_stream_gives_nothing_from_the_damage_on(suite: tuple[bytes, bytes]) -> None:
    rng = random.Random(3)
    name, mac = suite
    sizes = CIPHER_SUITES[name]
    keys = name, rng.randbytes(sizes.key_size), rng.randbytes(sizes.iv_size), mac, rng.randbytes(
        MAC_SUITES[mac].key_size if mac else 0
    )
    sender = PacketWriter(lambda: None)
    sender.set_cipher(new_sealing_cipher(*keys), True)
    ends = [0]
    stream = b''

    for number in range(12):
        sender.send_packet(bytes([MESSAGE]) + number.to_bytes(4, 'big') + rng.randbytes(rng.randrange(60)))
        stream += sender.take_chunk() or b''
        ends.append(len(stream))

    for _ in range(60):
        _, end = new_ends(rng)
        end.rng = random.Random(0)
        end.packet_received = lambda payload, sequence, e=end: e.messages.append(payload[4])  # type: ignore[misc]
        end.reader.set_cipher(new_opening_cipher(*keys), True)
        place = rng.randrange(len(stream))
        damaged = bytearray(stream)
        damaged[place] ^= 1 << rng.randrange(8)

        try:
            end.reader.feed(damaged)
            # Only a longer length can still be waiting.
            end.reader.feed(bytes(300_000))
        except (ProtocolError, MACError):
            assert end.messages == list(range(sum(place >= e for e in ends) - 1))
        else:
            pytest.fail('The damage was not found')
