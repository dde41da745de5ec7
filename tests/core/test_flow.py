"""A channel's data path: windows against a model, order, back pressure, joining, fairness, blocks read late."""

import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssh_fast._flow import ChannelFlow
from ssh_fast._packet import PacketReader, PacketWriter
from ssh_fast.errors import ProtocolError


class Channel:
    """The handler of one flow; takes what comes and credits it unless told to wait."""

    def __init__(self, end: 'End', local_id: int, window: int, max_window: int, max_packet: int) -> None:
        self.flow = ChannelFlow(end.reader, end.writer, local_id, self, window, max_window, max_packet)
        self.pieces: list[tuple[bytes, int]] = []
        self.calls: list[str] = []
        self.credits = True

    @property
    def data(self) -> bytes:
        return b''.join(data for data, datatype in self.pieces if not datatype)

    def data_received(self, data: bytes, datatype: int) -> None:
        self.pieces.append((data, datatype))

        if self.credits:
            self.flow.credit(len(data))

    def sending_paused(self) -> None:
        self.calls.append('paused')

    def sending_resumed(self) -> None:
        self.calls.append('resumed')

    def sink_failed(self, exc: Exception) -> None:
        raise exc


class End:
    """One end of a connection in memory, with packets in the clear."""

    def __init__(self) -> None:
        self.reader = PacketReader(self)
        self.writer = PacketWriter(lambda: None)
        self.reader.identified = self.reader.express = True
        self.messages: list[bytes] = []

    def line_received(self, line: bytes) -> None:
        raise AssertionError(line)

    def packet_received(self, payload: bytes, sequence: int) -> None:
        self.messages.append(payload)

    def send_to(self, other: 'End') -> int:
        sent = 0

        while (chunk := self.writer.take_chunk()) is not None:
            sent += len(chunk)
            other.reader.feed(chunk)

        return sent


class Pair:
    """Two ends with channels between them; channel n here is channel n there."""

    def __init__(
        self, window: int = 1 << 20, max_packet: int = 32768, count: int = 1, max_window: int | None = None
    ) -> None:
        self.left, self.right = End(), End()
        self.channels = [
            [Channel(end, number, window, max_window or window, max_packet) for number in range(count)]
            for end in (self.left, self.right)
        ]

        for end, channels in zip((self.left, self.right), self.channels, strict=True):
            for channel in channels:
                channel.flow.open(channel.flow.local_id, window, max_packet)
                end.reader.add_flow(channel.flow)

        self.here, self.there = self.channels[0][0], self.channels[1][0]

    def run(self) -> None:
        while self.left.send_to(self.right) + self.right.send_to(self.left):
            pass


def data_message(channel: int, data: bytes, datatype: int = 0) -> bytes:
    kind = channel.to_bytes(4, 'big') + (datatype.to_bytes(4, 'big') if datatype else b'')

    return bytes([95 if datatype else 94]) + kind + len(data).to_bytes(4, 'big') + data


def test_data_arrives_in_order_whatever_its_sizes() -> None:
    pair = Pair(window=100_000, max_packet=1000)
    rng = random.Random(7)
    parts = [rng.randbytes(rng.choice([1, 10, 999, 1000, 1001, 50_000])) for _ in range(100)]

    for part in parts:
        pair.here.flow.send(part)

    pair.here.flow.send_in_order(b'\x60the end')
    pair.run()

    assert pair.there.data == b''.join(parts)
    assert pair.right.messages == [b'\x60the end']
    assert pair.here.flow.queued == pair.here.flow.queued_items == 0


def test_a_message_in_order_waits_for_the_data_before_it() -> None:
    pair = Pair(window=1000)
    pair.there.credits = False
    pair.here.flow.send(bytes(1500))
    pair.here.flow.send_in_order(b'\x60end')
    pair.run()
    assert (len(pair.there.data), pair.right.messages) == (1000, [])

    pair.there.flow.credit(1000)
    pair.run()
    assert (len(pair.there.data), pair.right.messages) == (1500, [b'\x60end'])


def test_a_message_alone_needs_no_window() -> None:
    pair = Pair(window=10)
    pair.there.credits = False
    pair.here.flow.send(bytes(10))
    pair.here.flow.send_in_order(b'\x60end')
    pair.run()
    assert pair.here.flow.send_window == 0
    assert pair.right.messages == [b'\x60end']


def test_neighbouring_packets_are_delivered_as_one() -> None:
    pair = Pair(max_packet=1000)
    pair.here.flow.send(bytes(range(250)) * 80)
    pair.run()
    assert pair.there.pieces == [(bytes(range(250)) * 80, 0)]


def test_types_are_not_joined_and_keep_their_order() -> None:
    pair = Pair()

    for number, datatype in enumerate([0, 1, 1, 0, 2, 0, 0]):
        pair.here.flow.send(bytes([number]) * 3, datatype)

    pair.run()
    assert [(data[::3], datatype) for data, datatype in pair.there.pieces] == [
        (b'\0', 0),
        (b'\1\2', 1),
        (b'\3', 0),
        (b'\4', 2),
        (b'\5\6', 0),
    ]


def test_data_is_delivered_before_a_message_that_follows_it() -> None:
    pair = Pair()
    seen = []
    pair.here.flow.send(b'first')
    pair.here.flow.send_in_order(b'\x60')
    pair.right.packet_received = lambda payload, sequence: seen.append(pair.there.data)  # type: ignore[method-assign]
    pair.run()
    assert seen == [b'first']


def test_small_writes_share_a_packet() -> None:
    pair = Pair()

    for _ in range(1000):
        pair.here.flow.send(b'abc')

    pair.run()
    assert pair.there.data == b'abc' * 1000
    assert pair.left.writer.packets == 1


def test_the_sender_is_told_to_pause_and_to_go_on() -> None:
    pair = Pair(window=100_000)
    pair.there.credits = False
    pair.here.flow.send(bytes(60_000))
    assert pair.here.calls == []
    pair.here.flow.send(bytes(60_000))
    assert pair.here.calls == ['paused']
    pair.run()
    assert pair.here.flow.queued == 20_000
    assert pair.here.calls == ['paused']
    pair.there.flow.credit(100_000)
    pair.run()
    assert pair.here.calls == ['paused', 'resumed']


def test_nothing_leaves_while_a_key_exchange_runs_and_all_of_it_afterwards() -> None:
    pair = Pair()
    pair.left.writer.blocked = True
    pair.here.flow.send(b'waits')
    pair.left.writer.send_packet(b'\x14kexinit')
    pair.run()
    assert (pair.there.data, pair.right.messages) == (b'', [b'\x14kexinit'])

    pair.left.writer.blocked = False
    pair.run()
    assert pair.there.data == b'waits'


def test_credit_waits_for_the_end_of_a_key_exchange_too() -> None:
    pair = Pair(window=1000)
    pair.right.writer.blocked = True
    pair.here.flow.send(bytes(3000))
    pair.run()
    assert len(pair.there.data) == 1000
    pair.right.writer.blocked = False
    pair.run()
    assert len(pair.there.data) == 3000


def test_a_busy_channel_does_not_starve_another() -> None:
    pair = Pair(window=64 << 20, count=3)
    pair.channels[0][0].flow.send(bytes(32 << 20))
    pair.channels[0][1].flow.send(b'small')
    pair.channels[0][2].flow.send(bytes(32 << 20))
    chunk = pair.left.writer.take_chunk()
    assert chunk is not None
    pair.right.reader.feed(chunk)

    assert pair.channels[1][1].data == b'small'
    sizes = [len(channel.data) for channel in pair.channels[1]]
    assert sizes[0] > 0
    assert sizes[2] > 0
    assert abs(sizes[0] - sizes[2]) <= 256 * 1024


def test_what_is_sent_before_the_channel_opens_waits() -> None:
    end = End()
    channel = Channel(end, 0, 1000, 1000, 1000)
    channel.flow.send(b'early')
    assert end.writer.take_chunk() is None
    channel.flow.open(3, 1000, 1000)
    chunk = end.writer.take_chunk()
    assert chunk is not None
    assert bytes(chunk)[5:19] == data_message(3, b'early')


# --- windows


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(['send', 'credit', 'run']), st.integers(1, 5000)), max_size=60),
    st.integers(1, 4000),
    st.integers(1, 3000),
)
def test_windows_follow_the_model(steps: list[tuple[str, int]], window: int, max_packet: int) -> None:
    pair = Pair(window=window, max_packet=max_packet)
    pair.there.credits = False
    sent = credited = 0

    for step, size in steps:
        if step == 'send':
            # A few windows: a window of one byte is credited byte by byte.
            size = 1 + size % (4 * window)
            pair.here.flow.send(bytes(size))
            sent += size
        elif step == 'credit':
            size = min(size, len(pair.there.data) - credited)
            pair.there.flow.credit(size)
            credited += size
        else:
            pair.run()

        received = len(pair.there.data)
        assert received <= credited + window
        assert received + pair.here.flow.queued == sent
        assert pair.here.flow.send_window <= window

    pair.run()
    received = len(pair.there.data)

    # What is not there yet is held back by the window alone, and less than half a window of credit is kept back.
    if received < sent:
        assert pair.here.flow.send_window == 0
        assert received >= credited + window / 2 - 1

    while received < sent:
        pair.there.flow.credit(received - credited)
        credited = received
        pair.run()
        received = len(pair.there.data)

    assert received == sent


def test_an_overrun_of_the_window_ends_the_connection() -> None:
    pair = Pair(window=1000)
    pair.there.credits = False
    pair.left.writer.send_packet(data_message(0, bytes(1000)))
    pair.left.writer.send_packet(data_message(0, bytes(1)))

    with pytest.raises(ProtocolError, match='window'):
        pair.run()


def test_a_packet_larger_than_the_maximum_ends_the_connection() -> None:
    pair = Pair(window=5000, max_packet=1000)
    pair.left.writer.send_packet(data_message(0, bytes(1001)))

    with pytest.raises(ProtocolError, match='at most 1000'):
        pair.run()


def test_an_adjust_past_the_largest_window_ends_the_connection() -> None:
    pair = Pair(window=1000)
    pair.left.writer.send_packet(b'\x5d' + bytes(4) + (0xFFFFFFFF - 1000).to_bytes(4, 'big'))
    pair.run()
    assert pair.there.flow.send_window == 0xFFFFFFFF
    pair.left.writer.send_packet(b'\x5d' + bytes(4) + (1).to_bytes(4, 'big'))

    with pytest.raises(ProtocolError, match='2\\^32'):
        pair.run()


def test_a_maximum_packet_of_nothing_is_refused_and_of_one_byte_obeyed() -> None:
    end = End()
    channel = Channel(end, 0, 1000, 1000, 1000)

    with pytest.raises(ProtocolError, match='maximum packet size'):
        channel.flow.open(0, 1000, 0)

    pair = Pair(max_packet=1)
    pair.here.flow.send(b'abc')
    pair.run()
    assert pair.there.data == b'abc'
    assert pair.left.writer.packets == 3


def test_data_after_the_end_ends_the_connection() -> None:
    pair = Pair()
    pair.there.flow.receive_eof()
    pair.here.flow.send(b'x')

    with pytest.raises(ProtocolError, match='after its end'):
        pair.run()


def test_a_closed_side_drops_what_comes_within_the_window_only() -> None:
    pair = Pair(window=100)
    pair.there.flow.discard()
    pair.here.flow.send(bytes(100))
    pair.run()
    assert pair.there.pieces == []
    pair.left.writer.send_packet(data_message(0, b'x'))

    with pytest.raises(ProtocolError, match='window'):
        pair.run()


@pytest.mark.parametrize(
    'message',
    [
        b'\x5e' + bytes(4),
        b'\x5e' + bytes(7),
        data_message(0, b'abc')[:-1],
        data_message(0, b'abc') + b'x',
        b'\x5e' + bytes(4) + b'\xff\xff\xff\xff' + b'abc',
        data_message(0, b'abc', 1)[:-1],
        b'\x5f' + bytes(4) + bytes(4) + bytes(4),
        b'\x5f' + bytes(4) + b'\0\0\0\1',
        b'\x5d' + bytes(4),
        b'\x5d' + bytes(4) + bytes(5),
    ],
)
def test_a_malformed_message_of_the_express_lane_ends_the_connection(message: bytes) -> None:
    pair = Pair()
    pair.left.writer.send_packet(message)

    with pytest.raises(ProtocolError):
        pair.run()

    assert pair.there.pieces == []


def test_messages_for_unknown_channels_take_the_main_road() -> None:
    pair = Pair()

    for number in (1, 77, 0xFFFFFFFF):
        pair.left.writer.send_packet(data_message(number, b'x'))

    pair.run()
    assert pair.right.messages == [data_message(number, b'x') for number in (1, 77, 0xFFFFFFFF)]

    pair.right.reader.remove_flow(pair.there.flow)
    pair.here.flow.send(b'late')
    pair.run()
    assert pair.right.messages[-1] == data_message(0, b'late')


def test_the_express_lane_is_closed_before_login() -> None:
    pair = Pair()
    pair.right.reader.express = False
    pair.here.flow.send(b'early')
    pair.run()
    assert pair.right.messages == [data_message(0, b'early')]


def send_over_a_link(pair: Pair, size: int, seconds: float) -> int:
    """Send bytes over a link where each direction takes so long; return in how many round trips they all came."""
    now, trips = 100.0, 0
    pair.here.flow.send(bytes(size))
    while pair.left.send_to(pair.right):
        trips += 1
        now += seconds
        pair.right.send_to(pair.left)
        now += seconds
        pair.right.reader.now = now
    return trips


def test_a_window_grows_when_it_is_what_the_peer_waits_for() -> None:
    pair = Pair(window=10_000, max_window=70_000)
    trips = send_over_a_link(pair, 700_000, 0.05)

    assert len(pair.there.data) == 700_000
    assert trips < 20
    assert 40_000 < pair.there.flow.receive_window <= 70_000


def test_a_large_window_opens_again_piece_by_piece() -> None:
    """Half of it at once would have the other half wait for a whole round trip."""
    pair = Pair(window=16 << 20)
    pair.here.flow.send(bytes(3 << 20))
    pair.run()
    assert pair.there.flow.receive_window > (15 << 20)


def test_a_window_does_not_grow_while_credit_is_held_back() -> None:
    pair = Pair(window=10_000, max_window=70_000)
    pair.here.flow.send(bytes(9000))
    pair.left.send_to(pair.right)
    pair.right.send_to(pair.left)
    pair.run()
    pair.there.flow.credit_limit_items = -1
    pair.right.reader.now = 100.0
    pair.here.flow.send(bytes(100_000))
    pair.run()
    pair.right.reader.now = 200.0
    pair.run()
    assert 9000 < len(pair.there.data) < 30_000
    pair.there.flow.credit_limit_items = 0
    pair.there.flow.credit(0)
    pair.run()
    assert len(pair.there.data) == 109_000


def test_a_window_stays_as_it_is_on_a_short_link() -> None:
    pair = Pair(window=10_000, max_window=70_000)
    send_over_a_link(pair, 700_000, 0.0005)

    assert len(pair.there.data) == 700_000
    assert pair.there.flow.receive_window <= 10_000


def test_a_window_stays_as_it_is_for_a_slow_consumer() -> None:
    pair = Pair(window=10_000, max_window=70_000)
    pair.there.credits = False
    taken, now = 0, 100.0
    pair.here.flow.send(bytes(300_000))

    while taken < 300_000:
        now += 10
        pair.right.reader.now = now
        pair.run()
        assert pair.there.flow.receive_window + len(pair.there.data) - taken <= 10_000
        pair.there.flow.credit(2500)
        taken += 2500


def test_a_window_stays_as_it_is_for_a_peer_that_sends_in_bursts() -> None:
    """Its pauses fall where it has something left to send."""
    pair = Pair(window=10_000, max_window=70_000)
    now = 100.0

    for _ in range(100):
        now += 10
        pair.right.reader.now = now
        pair.here.flow.send(bytes(4001))
        pair.run()

    assert len(pair.there.data) == 400_100
    assert pair.there.flow.receive_window <= 10_000


def test_closing_forgets_everything() -> None:
    pair = Pair(window=10)
    pair.here.flow.send(bytes(1000))
    pair.here.flow.send_in_order(b'\x60')
    pair.here.flow.close()
    assert pair.here.flow.queued == pair.here.flow.queued_items == 0
    pair.run()
    assert pair.there.pieces == []
    pair.here.flow.send(b'more')
    assert pair.left.writer.take_chunk() is None


def test_what_the_caller_may_change_is_copied() -> None:
    pair = Pair()
    data = bytearray(b'before')
    pair.here.flow.send(data)
    data[:] = b'after!'
    pair.run()
    assert pair.there.data == b'before'


# --- what callbacks may do


def test_a_key_exchange_that_begins_while_chunks_are_taken_holds_all_flows_back() -> None:
    pair = Pair(count=2)
    first, second = pair.channels[0]
    first.flow.send(bytes(70_000))
    second.flow.send(b'must wait')
    first.sending_resumed = lambda: setattr(pair.left.writer, 'blocked', True)  # type: ignore[method-assign]
    pair.run()
    assert pair.channels[1][0].data
    assert pair.channels[1][1].data == b''
    del first.sending_resumed
    pair.left.writer.blocked = False
    pair.run()
    assert pair.channels[1][0].data == bytes(70_000)
    assert pair.channels[1][1].data == b'must wait'


def test_the_end_of_a_key_exchange_wakes_the_owner() -> None:
    wakes: list[int] = []
    end = End()
    writer = PacketWriter(lambda: wakes.append(1))
    channel = Channel(end, 0, 1000, 1000, 1000)
    channel.flow = ChannelFlow(end.reader, writer, 0, channel, 1000, 1000, 1000)
    channel.flow.open(0, 1000, 1000)
    writer.blocked = True
    channel.flow.send(b'waits')
    assert writer.take_chunk() is None
    assert writer.waiting is False
    del wakes[:]
    writer.blocked = False
    assert wakes == [1]
    assert writer.take_chunk() is not None


def test_a_callback_may_take_a_chunk_itself() -> None:
    """What a connection does that is closed in a callback: the rest goes out at once, in order."""
    pair = Pair(count=2)
    parts: list[bytes] = []
    first, second = pair.channels[0]

    def resumed() -> None:
        first.flow.send(b'tail')
        chunk = pair.left.writer.take_chunk()
        assert chunk is not None
        parts.append(bytes(chunk))

    first.sending_resumed = resumed  # type: ignore[method-assign]
    first.flow.send(bytes(70_000))
    second.flow.send(b'second')

    while (chunk := pair.left.writer.take_chunk()) is not None:
        parts.append(bytes(chunk))

    for part in parts:
        pair.right.reader.feed(part)

    assert pair.channels[1][0].data == bytes(70_000) + b'tail'
    assert pair.channels[1][1].data == b'second'


def test_a_flow_may_be_closed_while_it_is_delivered() -> None:
    pair = Pair(count=2)
    first, second = pair.channels[1]

    def received(data: bytes, datatype: int) -> None:
        first.pieces.append((data, datatype))
        first.flow.close()
        second.flow.close()

    first.data_received = received  # type: ignore[method-assign]
    pair.channels[0][0].flow.send(b'one')
    pair.channels[0][0].flow.send(b'two', 1)
    pair.channels[0][1].flow.send(b'three')
    pair.run()
    assert first.pieces == [(b'one', 0)]
    assert second.pieces == []


def test_a_consumer_that_fails_costs_nobody_else_his_data() -> None:
    pair = Pair(count=3)

    def fail(data: bytes, datatype: int) -> None:
        raise KeyError('consumer')

    pair.channels[1][1].data_received = fail  # type: ignore[method-assign]

    for number in range(3):
        pair.channels[0][number].flow.send(b'data %d' % number)

    chunk = pair.left.writer.take_chunk()
    assert chunk is not None

    with pytest.raises(KeyError, match='consumer'):
        pair.right.reader.feed(chunk)

    assert [channel.data for channel in pair.channels[1]] == [b'data 0', b'', b'data 2']

    # The receive buffer moves now: nobody may still look into it.
    pair.here.flow.send(bytes(500_000))
    pair.run()
    assert pair.there.data == b'data 0' + bytes(500_000)


def test_what_came_before_a_broken_packet_is_delivered() -> None:
    pair = Pair()
    pair.here.flow.send(b'good')
    first = pair.left.writer.take_chunk()
    pair.left.writer.send_packet(b'\x5e' + bytes(4))
    second = pair.left.writer.take_chunk()
    assert first is not None
    assert second is not None

    with pytest.raises(ProtocolError):
        pair.right.reader.feed(bytes(first) + bytes(second))

    assert pair.there.data == b'good'

    with pytest.raises(ProtocolError):
        pair.right.reader.feed(bytes(second))

    assert pair.there.data == b'good'


def test_an_answer_that_is_given_at_the_end_of_a_pass_lets_the_reader_go_on() -> None:
    end = End()
    writer = PacketWriter(end.reader.hold)
    channel = Channel(end, 0, 1000, 1000, 1000)
    channel.flow = ChannelFlow(end.reader, writer, 0, channel, 1000, 1000, 1000)
    channel.flow.open(0, 0, 1000)
    channel.flow.send(b'parked')
    end.reader.add_flow(channel.flow)
    channel.data_received = lambda data, datatype: end.reader.release()  # type: ignore[method-assign]

    # The adjust wakes the writer, whose owner holds the reader; the data lets it go on at the end of the pass.
    sender = PacketWriter(lambda: None)

    for message in (data_message(0, b'x'), b'\x5d' + bytes(7) + b'\1', b'\x60'):
        sender.send_packet(message)

    end.reader.feed(sender.take_chunk())
    assert end.messages == [b'\x60']


def test_more_credit_than_was_received_is_refused() -> None:
    pair = Pair(window=1000)
    pair.there.credits = False
    pair.here.flow.send(bytes(600))
    pair.run()

    with pytest.raises(ValueError, match='credited'):
        pair.there.flow.credit(601)

    pair.there.flow.credit(600)

    with pytest.raises(ValueError, match='credited'):
        pair.there.flow.credit(1)

    pair.run()
    assert pair.here.flow.send_window == 1000


def test_a_side_that_closes_reads_on_until_its_close_has_left() -> None:
    """The peer takes our data only while we take its own: without credit our CLOSE would wait for ever."""
    pair = Pair(window=1000)
    pair.there.credits = False
    pair.there.flow.send(bytes(5000))
    pair.here.flow.send(bytes(1500))
    pair.here.flow.send_in_order(b'\x61')
    pair.here.flow.discard()
    pair.run()
    assert (pair.there.flow.queued, pair.right.messages) == (0, [])
    pair.there.flow.credit(1000)
    pair.run()
    assert pair.right.messages == [b'\x61']


def test_a_flood_of_tiny_packets_leaves_no_large_tables() -> None:
    pair = Pair(window=1 << 20)

    for _ in range(20_000):
        pair.left.writer.send_packet(data_message(0, b'x'))

    before = sys.getallocatedblocks()
    pair.run()
    assert len(pair.there.data) == 20_000
    assert sys.getallocatedblocks() - before < 1000
    pair.left.writer.send_packet(data_message(0, b'y'))
    pair.run()
    assert pair.there.data[-1:] == b'y'
