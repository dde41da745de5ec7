"""Rekeying: when it begins, from either side and both at once, with data in flight, and peers that abuse it."""

import os
import random
from collections.abc import Callable

import pytest

from ssh_fast._flow import ChannelFlow
from ssh_fast.constants import MSG_CHANNEL_DATA, MSG_KEXINIT
from ssh_fast.errors import KeyExchangeFailed, ProtocolError
from ssh_fast.keys.key import generate_private_key
from ssh_fast.keys.keypair import SSHLocalKeyPair
from ssh_fast.transport.algorithms import available_algorithms
from ssh_fast.transport.rekey import CHACHA_MAX_BYTES, RekeyPolicy
from ssh_fast.transport.transport import MAX_QUEUED_BYTES, MAX_QUEUED_MESSAGES
from ssh_fast.wire import encode_byte, encode_string, encode_uint32
from tests.memory_pipe import Cutter, End, PacketFactory, Pipe, byte_by_byte, host_key, make_pipe, seeded_cutter, whole

FAST = {'kex_algs': (b'curve25519-sha256',)}
CUTTERS = {'whole': whole, 'bytes': byte_by_byte, 'random': seeded_cutter(4, 5000)}


def logged_in(cut: Cutter = whole, **changes: object) -> Pipe:
    pipe = make_pipe(cut, **{**FAST, **changes}).start().check().login()
    pipe.client.host.messages.clear()
    return pipe


def message(number: int, size: int = 0) -> bytes:
    return encode_byte(100) + encode_uint32(number) + bytes(size)


class Consumer:
    """Takes a flow's data, and credits it at once."""

    def __init__(self) -> None:
        self.flow: ChannelFlow
        self.data = bytearray()

    def data_received(self, data: bytes, datatype: int) -> None:
        self.data += data
        self.flow.credit(len(data))

    def sending_paused(self) -> None:
        pass

    def sending_resumed(self) -> None:
        pass

    def sink_failed(self, exc: Exception) -> None:
        raise exc


def add_flow(end: End) -> Consumer:
    consumer = Consumer()
    transport = end.transport
    consumer.flow = ChannelFlow(transport.reader, transport.writer, 0, consumer, 1 << 18, 1 << 18, 32768)
    consumer.flow.open(0, 1 << 18, 32768)
    transport.reader.add_flow(consumer.flow)
    transport.reader.express = True
    return consumer


# --- what begins it


class Traffic:
    def __init__(self, packets: int, size: int) -> None:
        self.packets = packets
        self.bytes = size


def make_policy(
    *ciphers: bytes, max_bytes: int = 1 << 40, seconds: float = 3600, packets: int = 1 << 40
) -> RekeyPolicy:
    policy = RekeyPolicy(max_bytes, seconds, packets, 120, 0)
    policy.keys_changed(*ciphers)
    return policy


def test_policy() -> None:
    gcm, chacha, none = b'aes128-gcm@openssh.com', b'chacha20-poly1305@openssh.com', Traffic(0, 0)
    cases: list[tuple[RekeyPolicy, int, bool]] = [
        (make_policy(gcm, gcm, max_bytes=1000), 999, False),
        (make_policy(gcm, gcm, max_bytes=1000), 1000, True),
        (make_policy(gcm, chacha), CHACHA_MAX_BYTES - 1, False),
        (make_policy(gcm, chacha), CHACHA_MAX_BYTES, True),
        (make_policy(gcm, gcm), (1 << 36) - 1, False),
        (make_policy(gcm, gcm), 1 << 36, True),
    ]
    for policy, size, due in cases:
        assert policy.due(Traffic(1, size), none, 0) is due
        assert policy.due(none, Traffic(1, size), 0) is due
        assert policy.due(Traffic(1, size // 2), Traffic(1, size - size // 2), 0) is due
    assert not make_policy(gcm).due(Traffic((1 << 31) - 1, 0), Traffic((1 << 31) - 1, 0), 0)
    assert make_policy(gcm).due(none, Traffic(1 << 31, 0), 0)
    assert make_policy(gcm, packets=10).due(Traffic(10, 0), none, 0)


def test_policy_seconds() -> None:
    policy = make_policy(b'aes128-ctr', seconds=10)
    some, none = Traffic(1, 100), Traffic(0, 0)
    assert not policy.due(some, some, 1000.0), 'counts from the first look at the clock'
    assert not policy.due(some, some, 1009.9)
    assert policy.due(some, some, 1010.0)
    assert not policy.due(none, none, 1010.0), 'keys that were not used stay'


def test_policy_timeout() -> None:
    policy = RekeyPolicy(1, 1, 1, 5, 100.0)
    policy.check_timeout(104.9)
    with pytest.raises(KeyExchangeFailed, match='5 seconds'):
        policy.check_timeout(105.0)
    policy.exchange_started()
    policy.check_timeout(10_000.0)
    with pytest.raises(KeyExchangeFailed):
        policy.check_timeout(10_005.0)


@pytest.mark.parametrize('from_client', [True, False])
@pytest.mark.parametrize('direction', ['sent', 'received'])
@pytest.mark.parametrize('limits', [{'rekey_bytes': 100_000}, {'rekey_packets': 20}])
def test_counted_in_both_directions(from_client: bool, direction: str, limits: dict[str, int]) -> None:
    """The end that has the limit begins, whether it sends or receives."""
    side = 'client' if from_client else 'server'
    pipe = logged_in(**{side: limits})
    keeper, other = (pipe.client, pipe.server) if from_client else (pipe.server, pipe.client)
    sender, receiver = (keeper, other) if direction == 'sent' else (other, keeper)
    for number in range(15):
        sender.transport.send_message(message(number, 5000))
        pipe.pump().check()
        keeper.transport.pass_ended(1.0)
        other.transport.pass_ended(1.0)
    assert pipe.client.transport.rekeys == 0
    for number in range(15, 40):
        sender.transport.send_message(message(number, 5000))
        pipe.pump().check()
        keeper.transport.pass_ended(1.0)
        pipe.pump().check()
    assert pipe.client.transport.rekeys == pipe.server.transport.rekeys >= 1
    assert receiver.messages == [message(number, 5000) for number in range(40)]


def test_seconds() -> None:
    pipe = logged_in(client={'rekey_seconds': 60.0})
    pipe.client.transport.send_message(message(1))
    pipe.pump()
    pipe.client.transport.pass_ended(100.0)
    pipe.client.transport.pass_ended(159.0)
    assert not pipe.client.transport.kex_running
    pipe.client.transport.pass_ended(160.0)
    assert pipe.client.transport.kex_running
    pipe.pump().check()
    assert pipe.client.transport.rekeys == 1
    pipe.client.transport.pass_ended(161.0)
    assert not pipe.client.transport.kex_running


def test_not_before_login() -> None:
    pipe = make_pipe(rekey_bytes=1, rekey_packets=1, **FAST).start().check()
    pipe.client.transport.request_service(b'ssh-userauth')
    pipe.client.transport.rekey()
    pipe.pump().check()
    for end in (pipe.client, pipe.server):
        end.transport.pass_ended(1.0)
        assert not end.transport.kex_running
    pipe.client.transport.authentication_complete()
    pipe.client.transport.pass_ended(1.0)
    assert pipe.client.transport.kex_running, 'what was asked for before login is done after it'


# --- data in flight


@pytest.mark.parametrize('cut', CUTTERS.values(), ids=CUTTERS)
@pytest.mark.parametrize('start', ['client', 'server', 'both'])
def test_messages_keep_their_order(cut: Cutter, start: str) -> None:
    pipe = logged_in(cut)
    expected = []
    for number in range(60):
        for end in (pipe.client, pipe.server):
            end.transport.send_message(message(number, number * 10))
        expected.append(message(number, number * 10))
        if number % 10 == 5:
            for side in ('client', 'server'):
                if start in (side, 'both'):
                    getattr(pipe, side).transport.rekey()
        if number % 3 == 0:
            pipe.step()
            pipe.check()
    pipe.pump().check()
    assert pipe.client.messages == pipe.server.messages == expected
    assert pipe.client.transport.rekeys == pipe.server.transport.rekeys >= 4
    assert len(pipe.client.host.host_keys) == 1, 'the key that was trusted is not asked about again'
    assert pipe.client.transport.session_id == pipe.server.transport.session_id


@pytest.mark.parametrize('cipher', available_algorithms('encryption'))
@pytest.mark.parametrize('start', ['client', 'server', 'both'])
def test_channel_data_both_ways_during_rekeys(cipher: bytes, start: str) -> None:
    pipe = logged_in(seeded_cutter(9, 40_000), encryption_algs=(cipher,))
    ends = {'client': pipe.client, 'server': pipe.server}
    consumers = {side: add_flow(end) for side, end in ends.items()}
    sent = {side: os.urandom(3_000_000) for side in ends}
    for side, consumer in consumers.items():
        consumer.flow.send(sent[side])
    generator = random.Random(11)
    for _ in range(400):
        if generator.random() < 0.5:
            for side, end in ends.items():
                if start in (side, 'both'):
                    end.transport.rekey()
        if not pipe.step():
            break
        pipe.check()
    pipe.pump().check()
    assert bytes(consumers['server'].data) == sent['client']
    assert bytes(consumers['client'].data) == sent['server']
    assert pipe.client.transport.rekeys == pipe.server.transport.rekeys >= 3


def test_nothing_but_kex_goes_out_after_our_kexinit() -> None:
    pipe = logged_in()
    consumer = add_flow(pipe.client)
    pipe.client.transport.rekey()
    consumer.flow.send(b'x' * 100_000)
    pipe.client.transport.send_message(message(1))
    pipe.client.transport.send_message(PacketFactory.ignore())     # 1 to 4 never wait
    before = pipe.client.transport.writer.total_packets
    pipe.client.take()
    assert pipe.client.transport.writer.total_packets == before
    assert pipe.client.transport.writer.blocked and consumer.flow.queued == 100_000


def test_data_between_our_kexinit_and_theirs_is_taken() -> None:
    """The peer has not seen our KEXINIT yet: what it sends until then is legal."""
    pipe = logged_in()
    consumer, sender = add_flow(pipe.client), add_flow(pipe.server)
    pipe.client.transport.rekey()
    sender.flow.send(b'y' * 50_000)
    pipe.server.transport.send_message(message(7))
    pipe.client.feed(pipe.server.take())
    assert pipe.client.error is None
    assert len(consumer.data) == 50_000 and pipe.client.messages == [message(7)]
    pipe.pump().check()
    assert pipe.client.transport.rekeys == 1


@pytest.mark.parametrize('payload', [
    message(1), encode_byte(MSG_CHANNEL_DATA) + encode_uint32(0) + encode_string(b'x'), b'\x50', b'\x32',
    PacketFactory.ext_info(), b'\x05\0\0\0\1x', b'\x06\0\0\0\1x', b'\xc8',
])  # fmt: skip
def test_after_the_peers_kexinit_nothing_but_kex_is_taken(payload: bytes) -> None:
    """Express lane and main road alike (OpenSSH 10.4: a peer could go on for ever)."""
    pipe = logged_in()
    consumer = add_flow(pipe.server)
    pipe.client.transport.rekey()
    pipe.client.transport.writer.send_packet(payload)
    pipe.pump()
    assert isinstance(pipe.server.error, ProtocolError)
    assert pipe.server.messages == [] and not consumer.data


def test_the_express_lane_is_open_again_afterwards() -> None:
    pipe = logged_in()
    consumer, sender = add_flow(pipe.server), add_flow(pipe.client)
    pipe.client.transport.rekey()
    pipe.pump().check()
    assert pipe.server.transport.reader.express and pipe.client.transport.reader.express
    sender.flow.send(b'z' * 1000)
    pipe.pump().check()
    assert consumer.data == b'z' * 1000


def test_optional_messages_during_a_rekey() -> None:
    pipe = logged_in()
    pipe.client.transport.rekey()
    for payload in (PacketFactory.ignore(), PacketFactory.debug(), PacketFactory.unimplemented()):
        pipe.client.transport.writer.send_packet(payload)
    pipe.pump().check()
    assert pipe.server.transport.rekeys == 1 and pipe.server.host.debug


# --- peers that abuse it


def test_queue_is_bounded_when_the_peer_stalls() -> None:
    """CVE-2025-22869."""
    pipe = logged_in()
    client = pipe.client.transport
    client.rekey()
    with pytest.raises(ProtocolError, match='key exchange'):
        for number in range(100):
            client.send_message(message(number, 30_000))
    assert number == MAX_QUEUED_BYTES // 30_005
    pipe.pump().check()
    assert len(pipe.server.messages) == number, 'what was taken before is sent'

    client.rekey()
    with pytest.raises(ProtocolError):
        for _ in range(MAX_QUEUED_MESSAGES + 1):
            client.send_message(b'\x50')


def test_peer_that_makes_us_answer_and_stalls() -> None:
    pipe = logged_in()
    server = pipe.server
    server.transport.rekey()

    def answer(message_type: int, payload: bytes, sequence: int) -> None:
        server.transport.send_message(message(0, 1000))

    server.host.message_received = answer
    for _ in range(20):
        for _ in range(100):
            pipe.client.transport.send_message(message(1))
        server.feed(pipe.client.take())
    assert isinstance(server.error, ProtocolError)


@pytest.mark.parametrize('is_client', [True, False])
def test_kex_timeout(is_client: bool) -> None:
    pipe = logged_in(kex_timeout=30.0)
    end = pipe.client if is_client else pipe.server
    end.transport.rekey()
    end.transport.pass_ended(500.0)
    end.transport.pass_ended(529.0)
    with pytest.raises(KeyExchangeFailed, match='30 seconds'):
        end.transport.pass_ended(530.0)
    end.transport.disconnect(3, 'Too slow')
    end.transport.pass_ended(1000.0)


def test_first_kex_timeout() -> None:
    pipe = make_pipe(kex_timeout=30.0, **FAST)
    pipe.client.transport.start()
    pipe.client.transport.pass_ended(29.0)
    with pytest.raises(KeyExchangeFailed):
        pipe.client.transport.pass_ended(30.0)


def test_timeout_counts_anew_for_each_exchange() -> None:
    pipe = logged_in(kex_timeout=30.0)
    for start in (1000.0, 2000.0, 3000.0):
        pipe.client.transport.pass_ended(start)
        pipe.server.transport.rekey()
        pipe.client.feed(pipe.server.take())
        pipe.client.transport.pass_ended(start + 500.0)     # the first look since it began
        pipe.client.transport.pass_ended(start + 529.0)
        pipe.pump().check()


@pytest.mark.parametrize('when', ['first', 'rekey'])
def test_second_kexinit(when: str) -> None:
    """CVE-2016-8858."""
    pipe = logged_in() if when == 'rekey' else make_pipe(**FAST)
    if when == 'rekey':
        pipe.client.transport.rekey()
    else:
        pipe.client.transport.start()
    pipe.client.transport.writer.send_packet(pipe.client.transport._exchanges._our_payload)
    pipe.server.feed(pipe.client.take())
    assert isinstance(pipe.server.error, ProtocolError)


@pytest.mark.parametrize('payload', [b'\x15', b'\x15\0', b'\x1e\0\0\0\0', b'\x1f\0\0\0\0', b'\x31'])
def test_kex_messages_without_an_exchange(payload: bytes) -> None:
    for is_client in (True, False):
        pipe = logged_in()
        victim, peer = (pipe.client, pipe.server) if is_client else (pipe.server, pipe.client)
        peer.transport.writer.send_packet(payload)
        pipe.pump()
        assert isinstance(victim.error, ProtocolError)


def test_newkeys_before_the_exchange_is_done() -> None:
    for is_client in (True, False):
        for name in (b'curve25519-sha256', b'diffie-hellman-group-exchange-sha256'):
            pipe = make_pipe(kex_algs=(name,))
            victim, peer = (pipe.client, pipe.server) if is_client else (pipe.server, pipe.client)
            peer.transport.start()
            peer.transport.writer.send_packet(b'\x15')
            victim.transport.start()
            victim.feed(peer.take())
            assert isinstance(victim.error, ProtocolError) and victim.host.exchanges == []


@pytest.mark.parametrize('change', ['other key', 'other type'])
def test_host_key_must_stay(change: str) -> None:
    """CVE-2026-60002."""
    other = host_key(b'ecdsa-sha2-nistp256')
    if change == 'other key':
        other = SSHLocalKeyPair(generate_private_key('ssh-ed25519'))
    pipe = logged_in()
    exchanges = pipe.server.transport._exchanges
    exchanges._options = type(exchanges._options)(**{**vars(exchanges._options), 'host_keys': [other]})
    exchanges._host_key_algs = exchanges._algorithms_of_host_keys()
    pipe.client.transport.rekey()
    pipe.pump()
    assert isinstance(pipe.client.error, KeyExchangeFailed) and 'host key' in str(pipe.client.error)
    assert pipe.client.transport.rekeys == 0 and len(pipe.client.host.host_keys) == 1


def test_same_key_with_another_signature_algorithm_is_fine() -> None:
    pipe = logged_in(server={'host_keys': [host_key(b'ssh-rsa')]})
    assert pipe.client.transport.algorithms.host_key == b'rsa-sha2-512'
    pipe.server.transport._exchanges._host_key_algs = (b'rsa-sha2-256',)
    pipe.server.transport.rekey()
    pipe.pump().check()
    assert pipe.client.transport.algorithms.host_key == b'rsa-sha2-256' and pipe.client.transport.rekeys == 1


# --- guessed packets

ECDH, CURVE = b'ecdh-sha2-nistp256', b'curve25519-sha256'
NEITHER_FIRST = {'client': {'kex_algs': (ECDH, CURVE)}, 'server': {'kex_algs': (CURVE, ECDH)}}


def guess(end: End, packet: bytes | None) -> None:
    """Let an end say in each KEXINIT that a guessed packet follows, and send one (None: its own is the guess)."""
    exchanges = end.transport._exchanges
    begin, send = exchanges.begin, exchanges._send

    def begin_with_guess() -> None:
        exchanges._send = lambda payload: None
        begin()
        exchanges._send = send
        exchanges._our_payload = exchanges._our_payload[:-5] + b'\1' + bytes(4)
        send(exchanges._our_payload)
        if packet is not None:
            send(packet)

    exchanges.begin = begin_with_guess


@pytest.mark.parametrize('cut', CUTTERS.values(), ids=CUTTERS)
def test_right_guess_is_used(cut: Cutter) -> None:
    pipe = make_pipe(cut, **{**FAST, 'client': {**FAST.get('client', {}), 'host_key_algs': (b'ssh-ed25519',)}})
    guess(pipe.client, None)
    pipe.start().check().login()
    for _ in range(5):
        pipe.client.transport.rekey()
        pipe.pump().check()
    assert pipe.server.transport.rekeys == 5


@pytest.mark.parametrize('packet', [b'\x1e\0\0\0\4junk', b'\x22' + bytes(12), b'\x1e'])
@pytest.mark.parametrize('options', [
    NEITHER_FIRST,
    {'client': {'host_key_algs': (b'ssh-ed25519', b'rsa-sha2-256')},
     'server': {'host_key_algs': (b'ecdsa-sha2-nistp256', b'ssh-ed25519'),
                'host_keys': [host_key(), host_key(b'ecdsa-sha2-nistp256')]}},
])  # fmt: skip
def test_wrong_guess_is_skipped(packet: bytes, options: dict[str, dict[str, object]]) -> None:
    """The method may be right and the host key algorithm wrong: dbclient's guess against many servers."""
    pipe = make_pipe(**options)
    guess(pipe.client, packet)
    pipe.start().check().login()
    for number in range(100):
        (pipe.server if number % 2 else pipe.client).transport.rekey()
        pipe.pump().check()
    assert pipe.client.transport.rekeys == pipe.server.transport.rekeys == 100


def test_exactly_one_packet_is_skipped() -> None:
    pipe = make_pipe(**NEITHER_FIRST)
    guess(pipe.client, b'\x1e\0\0\0\4junk')
    pipe.client.transport.start()
    pipe.client.transport.writer.send_packet(b'\x1e\0\0\0\4junk')
    pipe.server.transport.start()
    pipe.step()
    assert isinstance(pipe.server.error, KeyExchangeFailed)


def test_wrong_guess_of_a_server() -> None:
    pipe = make_pipe(**NEITHER_FIRST)
    guess(pipe.server, b'\x1f\0\0\0\4junk')
    pipe.start().check().login()
    assert pipe.client.transport.algorithms.kex == ECDH


def test_skipping_is_no_way_around_strict_kex() -> None:
    for packet in (PacketFactory.ignore(), b'\x15', b'\x32', bytes([MSG_KEXINIT])):
        pipe = make_pipe(**NEITHER_FIRST)
        guess(pipe.client, packet)
        pipe.start()
        assert isinstance(pipe.server.error, ProtocolError) and pipe.server.host.exchanges == []


# --- the end


def test_rekey_when_closed_does_nothing() -> None:
    pipe = logged_in()
    pipe.client.transport.disconnect(11, 'bye')
    pipe.client.take()
    pipe.client.transport.rekey()
    pipe.client.transport.pass_ended(1e9)
    assert pipe.client.take() == b''


@pytest.mark.parametrize('call', [lambda t: t.rekey(), lambda t: t._begin_exchange()])
def test_asking_twice_is_one_exchange(call: Callable[[object], None]) -> None:
    pipe = logged_in()
    call(pipe.client.transport)
    pipe.client.transport.rekey()
    pipe.client.transport.pass_ended(0.0)
    pipe.pump().check()
    assert pipe.client.transport.rekeys == 1
