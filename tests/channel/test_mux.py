"""The mux and its links, message by message."""

import asyncio
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssh_fast._flow import ChannelFlow
from ssh_fast.channel.answers import MAX_WAITING_MESSAGES
from ssh_fast.errors import ChannelOpenError, ConnectionLost, PacketDecodeError, ProtocolError
from ssh_fast.wire import Cursor, encode_boolean, encode_string, encode_uint32
from tests.channel.pair import PACKET, WINDOW, End, Pair, later, live_objects, settle

OPEN, CONFIRMATION, FAILURE, ADJUST, DATA, EXTENDED, EOF, CLOSE, REQUEST, SUCCESS, REFUSAL = range(90, 101)


class Recorder:
    """A channel that writes down what it is told."""

    def __init__(self, window=WINDOW, max_packet=PACKET, answers=None):
        self.window = self.max_window = window
        self.max_packet = max_packet
        self.flow_class = ChannelFlow
        self.answers = answers or {}
        self.calls = []
        self.data = []
        self.link = None
        self.credit = True

    def channel_opened(self, link, cursor):
        self.link = link
        self.calls.append('opened')

    def open_failed(self, exc):
        self.calls.append(('failed', exc))

    def data_received(self, data, datatype):
        self.data.append((data, datatype))
        self.calls.append('data')

        if self.credit:
            self.link.flow.credit(len(data))

    def eof_received(self):
        self.calls.append('eof')

    def request_received(self, name, cursor):
        self.calls.append(('request', name, cursor.rest()))
        answer = self.answers.get(name, False)

        return answer() if callable(answer) else answer

    def request_answered(self, name, granted):
        self.calls.append(('answered', name, granted))

    def channel_closed(self, exc):
        self.calls.append(('closed', exc))

    def sending_paused(self):
        self.calls.append('paused')

    def sending_resumed(self):
        self.calls.append('resumed')

    def sink_failed(self, exc):
        self.calls.append(('sink failed', exc))


def join(pair, ours=None, theirs=None):
    """Open one channel from the client's end; both recorders."""

    ours, theirs = ours or Recorder(), theirs or Recorder()
    pair.server.open_requested = lambda channel_type, cursor: theirs
    pair.client.mux.open_channel(ours, b'session')
    pair.run()

    assert ours.calls == theirs.calls == ['opened']

    return ours, theirs


def message(number, *fields):
    return bytes([number]) + b''.join(encode_uint32(field) if isinstance(field, int) else field for field in fields)


def open_message(sender=7, window=1000, max_packet=1000, kind=b'session'):
    return message(OPEN, encode_string(kind), sender, window, max_packet)


def give(end: End, payload: bytes) -> None:
    """Hand a message to an end as its transport would."""

    assert end.mux.message_received(payload[0], payload, 0)


# --- the ordinary life of a channel -----------------------------------------------------------------------------------


@pytest.mark.parametrize('cut', [0, 1, 7])
def test_data_eof_and_close_reach_the_other_side_in_order(cut):
    pair = Pair(cut=cut)
    ours, theirs = join(pair)

    ours.link.flow.send(b'x' * 100_000)
    ours.link.flow.send(b'error', 1)
    ours.link.send_eof()
    pair.run()

    assert b''.join(data for data, datatype in theirs.data if not datatype) == b'x' * 100_000
    assert [data for data in theirs.data if data[1]] == [(b'error', 1)]
    assert theirs.calls[-1] == 'eof'

    theirs.link.flow.send(b'reply')
    theirs.link.close()
    pair.run()

    assert ours.data == [(b'reply', 0)]
    assert ours.calls[-1] == theirs.calls[-1] == ('closed', None)
    assert not pair.client.mux.channels and not pair.server.mux.channels


def test_a_number_is_used_again_only_when_both_sides_closed():
    pair = Pair()
    first, _ = join(pair)
    second, _ = join(pair)
    assert (first.link.local_id, second.link.local_id) == (0, 1)

    first.link.close()
    pair.held = True
    third = Recorder()
    assert pair.client.mux.open_channel(third, b'session').local_id == 2

    pair.held = False
    pair.run()
    fourth, _ = join(pair)
    assert fourth.link.local_id == 0


def test_a_close_waits_for_the_data_and_an_abort_does_not():
    pair = Pair()
    ours, theirs = join(pair, theirs=Recorder(window=1000))
    theirs.credit = False
    ours.link.flow.send(b'x' * 1500)
    ours.link.close()
    pair.run()

    assert sum(len(data) for data, _ in theirs.data) == 1000
    assert theirs.calls[-1] == 'data'

    theirs.link.flow.credit(1000)
    pair.run()

    assert sum(len(data) for data, _ in theirs.data) == 1500
    assert theirs.calls[-1] == ours.calls[-1] == ('closed', None)

    ours, theirs = join(pair, theirs=Recorder(window=1000))
    theirs.credit = False
    ours.link.flow.send(b'x' * 1500)
    ours.link.close()
    pair.run()
    ours.link.abort()
    pair.run()

    assert sum(len(data) for data, _ in theirs.data) == 1000
    assert theirs.calls[-1] == ours.calls[-1] == ('closed', None)
    assert pair.server.types().count(CLOSE) == 2


def test_the_close_is_sent_once_when_one_side_aborts_while_both_have_data_parked():
    pair = Pair()
    ours, theirs = join(pair, Recorder(window=10), Recorder(window=10))
    ours.credit = theirs.credit = False
    pair.held = True

    for link in (ours.link, theirs.link):
        link.flow.send(b'x' * 1000)
        link.close()

    theirs.link.abort()
    pair.held = False
    pair.run()

    assert pair.client.types().count(CLOSE) == pair.server.types().count(CLOSE) == 1
    assert not pair.client.mux.channels and not pair.server.mux.channels
    assert not pair.client.error and not pair.server.error


def test_both_can_close_with_more_data_parked_than_the_windows_let_through():
    pair = Pair()
    ours, theirs = join(pair, Recorder(window=10), Recorder(window=10))
    ours.credit = theirs.credit = False

    for link in (ours.link, theirs.link):
        link.flow.send(b'x' * 1000)
        link.close()

    pair.run()

    assert pair.client.types().count(CLOSE) == pair.server.types().count(CLOSE) == 1
    assert not pair.client.mux.channels and not pair.server.mux.channels
    assert not pair.client.error and not pair.server.error


def test_data_that_crosses_our_close_is_dropped():
    pair = Pair()
    ours, theirs = join(pair)
    ours.link.abort()
    theirs.link.flow.send(b'late')
    theirs.link.send_request(b'late', answer=theirs.calls.append)
    pair.run()

    assert not ours.data and not pair.client.error
    assert theirs.calls[-1] is False or ('closed', None) in theirs.calls
    assert not pair.client.mux.channels


def test_a_second_eof_says_nothing_new():
    pair = Pair()
    ours, _ = join(pair)
    give(pair.client, message(EOF, 0))
    give(pair.client, message(EOF, 0))

    assert ours.calls == ['opened', 'eof']


# --- opens ------------------------------------------------------------------------------------------------------------


def test_a_refused_open_tells_code_and_reason():
    pair = Pair()
    ours = Recorder()

    def refuse(channel_type, cursor):
        raise ChannelOpenError(1, 'no\x1b[2J', 'en')

    pair.server.open_requested = refuse
    pair.client.mux.open_channel(ours, b'session')
    pair.run()

    (_, exc), = ours.calls
    assert isinstance(exc, ChannelOpenError) and exc.code == 1 and exc.reason == 'no\\x1b[2J'
    assert not pair.client.mux.channels and not pair.server.mux.channels


def test_an_exception_while_an_open_is_decided_refuses_it():
    pair = Pair()
    ours = Recorder()
    pair.server.open_requested = lambda channel_type, cursor: 1 // 0
    pair.client.mux.open_channel(ours, b'session')
    pair.run()

    assert ours.calls[0][1].code == 2
    assert 'zero' not in ours.calls[0][1].reason


def test_the_fields_of_a_channel_type_reach_the_host():
    pair = Pair()
    seen = []

    def requested(channel_type, cursor):
        seen.append((channel_type, cursor.string(), cursor.uint32()))
        return Recorder()

    pair.server.open_requested = requested
    pair.client.mux.open_channel(Recorder(), b'direct-tcpip', encode_string('host'), encode_uint32(22))
    pair.run()

    assert seen == [(b'direct-tcpip', b'host', 22)]


async def test_an_awaited_open_lets_others_pass():
    pair = Pair()
    slow, fast = Recorder(), Recorder()
    pair.server.open_requested = lambda kind, cursor: later(Recorder(), 30) if kind == b'slow' else Recorder()
    pair.client.mux.open_channel(slow, b'slow')
    pair.client.mux.open_channel(fast, b'fast')
    await settle()

    assert fast.calls == ['opened'] and not slow.calls

    await settle(40)

    assert slow.calls == ['opened']


async def test_an_awaited_open_may_be_refused_or_outlived_by_the_connection():
    pair = Pair()
    refused, lost = Recorder(), Recorder()
    pair.server.open_requested = lambda kind, cursor: later(ChannelOpenError(4, 'full'))
    pair.client.mux.open_channel(refused, b'session')
    await settle()
    assert refused.calls[0][1].code == 4

    theirs = Recorder()
    pair.server.open_requested = lambda kind, cursor: later(theirs, 10)
    pair.client.mux.open_channel(lost, b'session')
    pair.run()
    error = ConnectionLost('gone')
    pair.lose(error)
    await settle()

    assert lost.calls == [('failed', error)]
    assert theirs.calls == [('failed', error)]
    assert not pair.server.tasks and not pair.server.mux.channels


def test_limits_of_sessions_and_channels():
    pair = Pair(max_sessions=3, max_channels=5)
    pair.server.open_requested = lambda kind, cursor: Recorder()
    sessions = [Recorder() for _ in range(4)]

    for session in sessions:
        pair.client.mux.open_channel(session, b'session')

    pair.run()
    assert [session.calls[0] == 'opened' for session in sessions] == [True, True, True, False]
    assert sessions[3].calls[0][1].code == 4

    others = [Recorder() for _ in range(2)]

    for other in others:
        pair.client.mux.open_channel(other, b'other')

    pair.run()
    assert all(other.calls == ['opened'] for other in others)

    with pytest.raises(ChannelOpenError, match='More than 5 channels'):
        pair.client.mux.open_channel(Recorder(), b'other')

    sessions[0].link.close()
    pair.run()
    again = Recorder()
    pair.client.mux.open_channel(again, b'session')
    pair.run()
    assert again.calls == ['opened']


async def test_opens_that_are_being_decided_count():
    pair = Pair(max_sessions=2)
    pair.server.open_requested = lambda kind, cursor: later(Recorder(), 10)
    sessions = [Recorder() for _ in range(3)]

    for session in sessions:
        pair.client.mux.open_channel(session, b'session')

    await settle(40)
    assert [session.calls[0] == 'opened' for session in sessions] == [True, True, False]


def test_the_client_may_announce_that_no_more_sessions_come():
    pair = Pair()
    join(pair)
    answers = []
    pair.client.mux.send_global_request(
        b'no-more-sessions@openssh.com', answer=lambda success, data: answers.append(success)
    )
    second = Recorder()
    pair.client.mux.open_channel(second, b'session')
    pair.run()

    assert answers == [True] and second.calls[0][1].code == 1


@pytest.mark.parametrize('max_packet', [1, 32, 0xFFFFFFFF])
def test_odd_maximum_packet_sizes_work(max_packet):
    pair = Pair()
    theirs = Recorder()
    pair.server.open_requested = lambda kind, cursor: theirs
    give(pair.server, open_message(max_packet=max_packet))
    theirs.link.flow.send(b'x' * 100)
    pair.server.writer.take_chunk()

    assert theirs.link.flow.queued == 0 and theirs.link.flow.send_window == 900


# --- requests ---------------------------------------------------------------------------------------------------------


async def test_replies_come_in_order_although_answers_are_awaited():
    pair = Pair()
    ours, theirs = join(pair, theirs=Recorder(answers={b'slow': lambda: later(True, 10), b'fast': True}))
    other, _ = join(pair, theirs=Recorder(answers={b'fast': True}))
    replies = []

    for name in (b'slow', b'no', b'fast', b'slow'):
        ours.link.send_request(name, answer=lambda granted, name=name: replies.append((name, granted)))

    ours.link.send_request(b'quiet')
    other.link.send_request(b'fast', answer=lambda granted: replies.append(('other', granted)))
    ours.link.send_eof()
    await settle(60)

    assert replies == [('other', True), (b'slow', True), (b'no', False), (b'fast', True), (b'slow', True)]
    assert [call for call in theirs.calls if call[0] == 'answered'][-1] == ('answered', b'quiet', False)
    assert theirs.calls[-1] == 'eof'


async def test_an_awaited_answer_that_raises_is_a_refusal():
    pair = Pair()
    ours, _ = join(pair, theirs=Recorder(answers={b'bad': lambda: later(RuntimeError('bad'))}))
    replies = []
    ours.link.send_request(b'bad', answer=replies.append)
    await settle()

    assert replies == [False] and not pair.server.error


async def test_an_answer_after_the_close_is_ignored():
    pair = Pair()
    ours, theirs = join(pair, theirs=Recorder(answers={b'slow': lambda: later(True, 10)}))
    replies = []
    ours.link.send_request(b'slow', answer=replies.append)
    ours.link.send_request(b'next', answer=replies.append)
    ours.link.close()
    await settle()

    assert replies == [False, False]
    assert ('request', b'next', b'') not in theirs.calls
    assert not pair.client.error and not pair.server.error and not pair.server.tasks


async def test_a_flood_of_requests_behind_an_awaited_answer_ends_the_connection():
    pair = Pair()
    never = asyncio.get_running_loop().create_future()
    ours, _ = join(pair, theirs=Recorder(answers={b'slow': lambda: never}))
    ours.link.send_request(b'slow')

    for _ in range(MAX_WAITING_MESSAGES + 1):
        ours.link.send_request(b'more')

    pair.run()
    assert isinstance(pair.server.error, ProtocolError)
    never.cancel()

    pair = Pair()
    never = asyncio.get_running_loop().create_future()
    ours, _ = join(pair, theirs=Recorder(answers={b'slow': lambda: never}))
    ours.link.send_request(b'slow')

    for _ in range(20):
        ours.link.send_request(b'more', b'x' * 100_000)

    pair.run()
    assert isinstance(pair.server.error, ProtocolError)
    never.cancel()


async def test_a_malformed_request_behind_an_awaited_answer_ends_the_connection():
    pair = Pair()
    # The fields are decoded when it is a request's turn, the rest as it comes.
    answers = {b'slow': lambda: later(True), b'fields': lambda: Cursor(b'').uint32()}
    _, _ = join(pair, theirs=Recorder(answers=answers))
    give(pair.server, message(REQUEST, 0, encode_string(b'slow'), encode_boolean(False)))
    give(pair.server, message(REQUEST, 0, encode_string(b'fields'), encode_boolean(False)))

    with pytest.raises(PacketDecodeError):
        give(pair.server, message(REQUEST, 0, encode_uint32(1 << 31)))

    assert not pair.server.error
    await settle()

    assert isinstance(pair.server.error, PacketDecodeError)


def test_replies_that_nobody_asked_for_are_dropped():
    pair = Pair()
    ours, _ = join(pair)

    for number in (SUCCESS, REFUSAL):
        for _ in range(10_000):
            give(pair.client, message(number, 0))

    for number in (81, 82):
        give(pair.client, message(number))

    ours.link.flow.send(b'still open')
    pair.run()
    assert ours.calls == ['opened']


def test_requests_that_wait_for_a_reply_end_with_the_channel():
    pair = Pair()
    ours, _ = join(pair)
    replies = []
    pair.held = True
    ours.link.send_request(b'one', answer=replies.append)
    give(pair.client, message(CLOSE, 0))

    assert replies == [False]


# --- global requests --------------------------------------------------------------------------------------------------


async def test_global_replies_come_in_order():
    pair = Pair()
    replies = []
    answers = {b'slow': lambda: later(b'data', 10), b'yes': lambda: True, b'no': lambda: False}
    pair.server.global_requested = lambda name, cursor, want_reply: answers[name]()

    for name in (b'slow', b'yes', b'no', b'slow'):
        pair.client.mux.send_global_request(
            name, answer=lambda success, data, name=name: replies.append((name, success, data))
        )

    pair.client.mux.send_global_request(b'yes')
    await settle(60)

    assert replies == [(b'slow', True, b'data'), (b'yes', True, b''), (b'no', False, b''), (b'slow', True, b'data')]
    assert pair.client.types() == [81, 81, 82, 81]


def test_who_waits_for_a_global_reply_hears_of_the_loss():
    pair = Pair()
    failures = []
    pair.held = True
    pair.client.mux.send_global_request(b'one', answer=lambda success, data: None, failed=failures.append)
    error = ConnectionLost('gone')
    pair.lose(error)

    assert failures == [error]

    with pytest.raises(ConnectionLost):
        pair.client.mux.send_global_request(b'two')

    with pytest.raises(ConnectionLost):
        pair.client.mux.open_channel(Recorder(), b'session')


def test_every_channel_hears_of_the_loss_once():
    pair = Pair()
    ours, theirs = join(pair)
    opening = Recorder()
    pair.held = True
    pair.client.mux.open_channel(opening, b'session')
    error = ConnectionLost('gone')
    pair.lose(error)
    pair.lose(error)

    assert ours.calls == theirs.calls == ['opened', ('closed', error)]
    assert opening.calls == [('failed', error)]
    assert not pair.client.mux.channels


# --- hostile peers ----------------------------------------------------------------------------------------------------


def request(channel, name=b'exec'):
    return message(REQUEST, channel, encode_string(name), encode_boolean(True))


HOSTILE = {
    'data for an unknown channel': message(DATA, 9, encode_string(b'x')),
    'extended data for an unknown channel': message(EXTENDED, 9, 1, encode_string(b'x')),
    'adjust for an unknown channel': message(ADJUST, 9, 1),
    'end of file of an unknown channel': message(EOF, 9),
    'close of an unknown channel': message(CLOSE, 9),
    'request for an unknown channel': request(9),
    'success for an unknown channel': message(SUCCESS, 9),
    'failure for an unknown channel': message(REFUSAL, 9),
    'confirmation of an unknown channel': message(CONFIRMATION, 9, 0, 1, 1),
    'open failure of an unknown channel': message(FAILURE, 9, 1, encode_string(b''), encode_string(b'')),
    'data for a half-open channel': message(DATA, 1, encode_string(b'x')),
    'adjust for a half-open channel': message(ADJUST, 1, 1),
    'end of file of a half-open channel': message(EOF, 1),
    'close of a half-open channel': message(CLOSE, 1),
    'request for a half-open channel': request(1),
    'success for a half-open channel': message(SUCCESS, 1),
    'confirmation of an open channel': message(CONFIRMATION, 0, 0, 1, 1),
    'open failure of an open channel': message(FAILURE, 0, 1, encode_string(b''), encode_string(b'')),
    'confirmation with packet size 0': message(CONFIRMATION, 1, 0, 1, 0),
    'open with packet size 0': open_message(max_packet=0),
    'data for a closed channel': message(DATA, 2, encode_string(b'x')),
    'request for a closed channel': request(2),
    'end of file of a closed channel': message(EOF, 2),
    'a second close': message(CLOSE, 2),
    'data after the end of file': message(DATA, 3, encode_string(b'x')),
    'window beyond 32 bits': message(ADJUST, 0, 0xFFFFFFFF),
    'data beyond the window': message(DATA, 4, encode_string(b'x' * 11)),
    'data beyond the packet size': message(DATA, 0, encode_string(b'x' * (PACKET + 1))),
    'extended data of type 0': message(EXTENDED, 0, 0, encode_string(b'x')),
    'channel number cut off': b'\x60\0\0',
    'close with a tail': message(CLOSE, 0, b'x'),
    'end of file with a tail': message(EOF, 0, b'x'),
    'success with a tail': message(SUCCESS, 0, b'x'),
    'adjust with a tail': message(ADJUST, 0, 1, b'x'),
    'data shorter than it says': message(DATA, 0, 100, b'x'),
    'data longer than it says': message(DATA, 0, encode_string(b'x'), b'x'),
    'request cut off': message(REQUEST, 0, 100, b'exec'),
    'open cut off': message(OPEN, encode_string(b'session'), 1),
    'confirmation cut off': message(CONFIRMATION, 1, 0),
    'open failure cut off': message(FAILURE, 1),
    'global request cut off': message(80, 5, b'x'),
}


@pytest.mark.parametrize('express', [True, False])
@pytest.mark.parametrize('payload', HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_message_is_a_protocol_error_and_calls_nobody(payload, express):
    pair = Pair()
    channels = [Recorder(), Recorder(), Recorder(), Recorder(), Recorder(window=10)]

    # 0: open, 1: half-open, 2: closed, 3: at its end, 4: open with a small window
    for channel in channels:
        link = pair.client.mux.open_channel(channel, b'session')

        if link.local_id != 1:
            give(pair.client, message(CONFIRMATION, link.local_id, link.local_id, 1000, 1000))

    give(pair.client, message(CLOSE, 2))
    give(pair.client, message(EOF, 3))
    pair.client.writer.take_chunk()
    calls = [list(channel.calls) for channel in channels]

    pair.client.reader.express = express
    pair.server.writer.send_packet(payload)
    chunk = bytes(pair.server.writer.take_chunk())

    with pytest.raises(ProtocolError, match=r'Expected|Unknown'):
        pair.client.reader.feed(chunk)

    assert [channel.calls for channel in channels] == calls


@pytest.mark.parametrize('express', [True, False])
def test_data_and_adjusts_work_by_either_road(express):
    pair = Pair()
    pair.client.reader.express = pair.server.reader.express = express
    ours, theirs = join(pair, theirs=Recorder(window=1000))

    ours.link.flow.send(b'x' * 5000)
    ours.link.flow.send(b'y', 1)
    pair.run()

    assert sum(len(data) for data, datatype in theirs.data if not datatype) == 5000
    assert theirs.data[-1] == (b'y', 1)


def test_numbers_that_are_not_known_are_left_to_the_transport():
    pair = Pair()

    for number in (83, 89, 101, 127):
        assert not pair.client.mux.message_received(number, bytes([number]), 0)


def test_100_000_refused_opens_leave_nothing():
    pair = Pair()
    payload = open_message()

    def flood(count):
        for _ in range(count):
            pair.server.mux.message_received(OPEN, payload, 0)
            pair.server.sent.clear()

        pair.server.writer.take_chunk()

    flood(1000)
    tracemalloc.start()

    try:
        before = tracemalloc.get_traced_memory()[0]

        for _ in range(100):
            flood(1000)

        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    # One outgoing chunk; a leak of 8 bytes each would be 800 KB.
    assert grown < 200 * 1024
    assert not pair.server.mux.channels


def test_1000_channels_at_once_and_10_000_in_turn_leave_nothing():
    pair = Pair(max_sessions=1000)
    pair.server.open_requested = lambda kind, cursor: Recorder()

    def run_many(at_once):
        channels = [Recorder() for _ in range(at_once)]

        for channel in channels:
            pair.client.mux.open_channel(channel, b'session')

        pair.run()

        for channel in channels:
            channel.link.flow.send(b'x')
            channel.link.close()

        pair.run()
        assert all(channel.calls == ['opened', ('closed', None)] for channel in channels)

        for end in (pair.client, pair.server):
            assert not end.mux.channels
            end.sent.clear()
            end.received.clear()

    run_many(1000)
    before = live_objects()
    run_many(1000)

    for _ in range(100):
        run_many(100)

    assert live_objects() - before < 50
    assert pair.client.mux.open_channel(Recorder(), b'session').local_id == 0


# --- windows against a model ------------------------------------------------------------------------------------------

STEP = st.one_of(
    st.tuples(st.just('send'), st.integers(1, 3000)),
    st.tuples(st.just('errors'), st.integers(1, 3000)),
    st.tuples(st.just('credit'), st.integers(1, 3000)),
    st.tuples(st.just('run'), st.just(0)),
)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEP, max_size=60), window=st.integers(1, 5000), max_packet=st.integers(1, 2000))
def test_the_window_holds_what_a_model_says(steps, window, max_packet):
    pair = Pair()
    ours, theirs = join(pair, theirs=Recorder(window=window, max_packet=max_packet))
    theirs.credit = False
    sent = received = credited = 0

    def check():
        nonlocal received
        received = sum(len(data) for data, _ in theirs.data)
        assert not pair.client.error and not pair.server.error
        # Nobody gets more than the window and what was credited, and nothing is lost on the way.
        assert received <= window + credited
        assert received <= sent
        # Credit may be held back until it is half a window; then at least what was open must have been used.
        assert received >= min(sent, window + credited - (credited and window // 2 + 1))
        assert theirs.link.flow.receive_window + received <= window + credited

    for step, size in steps:
        if step == 'send':
            ours.link.flow.send(b'x' * size)
            sent += size
        elif step == 'errors':
            ours.link.flow.send(b'e' * size, 1)
            sent += size
        elif step == 'credit':
            size = min(size, received - credited)
            credited += size
            theirs.link.flow.credit(size)
        else:
            pair.run()
            check()

    # A consumer that takes everything gets everything, the end included.
    theirs.credit = True
    theirs.link.flow.credit(sum(len(data) for data, _ in theirs.data) - credited)
    ours.link.send_eof()
    pair.run()

    assert sum(len(data) for data, _ in theirs.data) == sent
    assert theirs.calls[-1] == 'eof'


def test_a_cursor_is_what_a_global_request_gets():
    pair = Pair()
    seen = []

    def requested(name, cursor, want_reply):
        assert isinstance(cursor, Cursor)
        seen.append((name, cursor.string(), want_reply))

        return False

    pair.server.global_requested = requested
    pair.client.mux.send_global_request(b'tcpip-forward', encode_string('host'))
    pair.run()

    assert seen == [(b'tcpip-forward', b'host', False)]
