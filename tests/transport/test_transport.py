"""Handshakes between two ends in memory, and what may be said in each state."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssh_fast.constants import MSG_KEXINIT, MSG_PING, MSG_PONG, MSG_UNIMPLEMENTED
from ssh_fast.errors import (
    DisconnectError,
    HostKeyNotVerifiable,
    KeyExchangeFailed,
    MACError,
    PacketDecodeError,
    ProtocolError,
    ServiceNotAvailable,
)
from ssh_fast.keys.key import generate_private_key
from ssh_fast.keys.keypair import SSHLocalKeyPair
from ssh_fast.transport import exchange as exchange_module
from ssh_fast.transport.algorithms import available_algorithms
from ssh_fast.transport.exchange import Exchanges
from ssh_fast.transport.ext_info import decode_ext_info
from ssh_fast.wire import encode_byte, encode_string, encode_uint32
from tests.memory_pipe import (
    Cutter,
    End,
    PacketFactory,
    Pipe,
    byte_by_byte,
    host_key,
    make_pipe,
    options,
    seeded_cutter,
    whole,
)

CIPHERS = available_algorithms('encryption')
MACS = available_algorithms('mac')
FAST = {'kex_algs': (b'curve25519-sha256',)}
CUTTERS = {'whole': whole, 'bytes': byte_by_byte, 'random 1': seeded_cutter(1), 'random 2': seeded_cutter(2, 17)}

IGNORE, DEBUG, UNIMPLEMENTED = PacketFactory.ignore(), PacketFactory.debug(), PacketFactory.unimplemented()
SERVICE_REQUEST = encode_byte(5) + encode_string(b'ssh-userauth')
SERVICE_ACCEPT = encode_byte(6) + encode_string(b'ssh-userauth')
PING = encode_byte(MSG_PING) + encode_string(b'data')


def keyed(cut: Cutter = whole, **changes: object) -> Pipe:
    """Come to the end of the first key exchange."""
    return make_pipe(cut, **{**FAST, **changes}).start().check()


def logged_in(cut: Cutter = whole, **changes: object) -> Pipe:
    """Come to the state after login, and forget what was heard on the way."""
    pipe = keyed(cut, **changes).login()
    pipe.client.host.messages.clear()
    return pipe


def capture(end: End) -> list[bytes]:
    """Collect every payload that reaches an end's transport from now on."""
    seen: list[bytes] = []
    original = end.transport.packet_received

    def packet_received(payload: bytes, sequence: int) -> None:
        seen.append(payload)
        original(payload, sequence)

    end.transport.packet_received = packet_received
    return seen


def send_raw(end: End, *payloads: bytes) -> None:
    """Send messages without asking the transport whether they may be sent now."""
    for payload in payloads:
        end.transport.writer.send_packet(payload)


# --- handshakes


@pytest.mark.parametrize('cut', CUTTERS.values(), ids=CUTTERS)
@pytest.mark.parametrize('kex', available_algorithms('kex'))
def test_every_kex_at_every_cut(kex: bytes, cut: Cutter) -> None:
    pipe = make_pipe(cut, kex_algs=(kex,)).start().check()
    client, server = pipe.client.transport, pipe.server.transport
    assert client.session_id == server.session_id and len(client.session_id) in (32, 48, 64)
    assert client.strict_kex and server.strict_kex
    assert not client.kex_running and not server.kex_running
    assert pipe.client.host.exchanges == pipe.server.host.exchanges == [True]
    assert pipe.client.host.host_keys == [(host_key().public_data, b'ssh-ed25519')]
    assert client.algorithms.kex == server.algorithms.kex == kex
    pipe.login()
    assert pipe.client.host.services == pipe.server.host.services == [b'ssh-userauth']


@pytest.mark.parametrize(
    ('cipher', 'mac'),
    [(cipher, mac) for cipher in CIPHERS for mac in (MACS if cipher.endswith(b'ctr') else MACS[:1])],
)
@pytest.mark.parametrize('cut', [whole, seeded_cutter(3)], ids=['whole', 'random'])
def test_every_cipher_and_mac(cipher: bytes, mac: bytes, cut: Cutter) -> None:
    pipe = logged_in(cut, encryption_algs=(cipher,), mac_algs=(mac,))
    assert pipe.client.transport.algorithms.send_cipher == cipher
    assert pipe.client.transport.algorithms.send_mac == (mac if cipher.endswith(b'ctr') else b'')
    for size in (0, 1, 15, 16, 17, 1000, 32768, 250000):
        for sender, receiver in ((pipe.client, pipe.server), (pipe.server, pipe.client)):
            sender.transport.send_message(b'\x50' + bytes(size))
            pipe.pump().check()
            assert receiver.messages[-1] == b'\x50' + bytes(size)


def test_directions_may_differ() -> None:
    pipe = logged_in(
        client={'encryption_algs': CIPHERS}, server={'encryption_algs': CIPHERS[::-1]}
    )
    assert pipe.client.transport.algorithms.send_cipher == CIPHERS[0]


@pytest.mark.parametrize('algorithm', [name for name in available_algorithms('signature') if b'sk-' not in name])
def test_every_host_key_algorithm(algorithm: bytes) -> None:
    kind = b'ssh-rsa' if algorithm.startswith(b'rsa') else algorithm
    pipe = keyed(client={'host_key_algs': (algorithm,)}, server={'host_keys': [host_key(), host_key(kind)]})
    assert pipe.client.host.host_keys == [(host_key(kind).public_data, algorithm)]


@pytest.mark.parametrize('kind', [b'ssh-ed25519', b'ecdsa-sha2-nistp256', b'ssh-rsa'])
def test_host_certificates(kind: bytes) -> None:
    """Each algorithm of a certificate, and again in a rekey; the signature is the key's own."""
    authority = generate_private_key('ssh-ed25519')
    plain = host_key(kind)
    pair = plain.with_certificate(authority.generate_host_certificate(plain.key, 'host', principals='x'))
    names = [name for name in pair.host_key_algorithms if name in available_algorithms('host_key')]
    assert names and not set(names) & set(plain.sig_algorithms)
    for algorithm in names:
        pipe = keyed(client={'host_key_algs': (algorithm,)}, server={'host_keys': [pair, plain]}).login()
        pipe.server.transport.rekey()
        pipe.pump().check()
        assert pipe.client.host.host_keys == [(pair.public_data, algorithm)] and pipe.client.transport.rekeys == 1


def test_a_certificate_is_shown_only_under_its_name() -> None:
    authority = generate_private_key('ssh-ed25519')
    plain = host_key()
    cert = authority.generate_host_certificate(plain.key, 'host', principals='x')

    class Liar(SSHLocalKeyPair):
        def __init__(self, shown: bytes, named: bytes) -> None:
            super().__init__(plain.key)
            self.public_data, self.host_key_algorithms = shown, (named,)

    for shown, named in (
        (cert.public_data, b'ssh-ed25519'), (plain.public_data, b'ssh-ed25519-cert-v01@openssh.com'),
        (cert.public_data, b'rsa-sha2-512-cert-v01@openssh.com'), (cert.public_data[:-1], cert.algorithm),
    ):
        pipe = make_pipe(server={'host_keys': [Liar(shown, named)]}, **FAST).start()
        if named == b'rsa-sha2-512-cert-v01@openssh.com':
            assert isinstance(pipe.server.error, ValueError), 'the key cannot sign so'
        else:
            assert isinstance(pipe.client.error, KeyExchangeFailed)


def test_server_offers_what_its_keys_can_sign() -> None:
    with pytest.raises(ValueError, match='host_keys'):
        make_pipe(server={'host_keys': []})
    pipe = make_pipe(client={'host_key_algs': (b'ssh-ed25519',)}, server={'host_keys': [host_key(b'ssh-rsa')]}).start()
    assert isinstance(pipe.client.error, KeyExchangeFailed)
    assert 'rsa-sha2-512, rsa-sha2-256' in str(pipe.client.error)
    assert 'host key' in str(pipe.server.error) and pipe.server.host.exchanges == []


# --- the host key


def test_host_key_question_holds_everything() -> None:
    pipe = make_pipe(**FAST)
    pipe.client.host.accept_host_key = False
    pipe.start().check()
    client = pipe.client.transport
    assert client.reader.held and client.kex_running and pipe.client.host.exchanges == []
    client.pass_ended(10.0)
    client.pass_ended(10_000.0)     # a person takes his time
    client.host_key_accepted()
    client.pass_ended(10_001.0)
    pipe.pump().check().login()
    assert pipe.client.host.exchanges == [True]
    client.host_key_accepted()      # a second answer changes nothing
    pipe.pump().check()


def test_host_key_question_does_not_count_as_the_peers_time() -> None:
    pipe = make_pipe(**FAST)
    pipe.client.host.accept_host_key = False
    kept = bytearray()

    def keep_newkeys(data: bytes) -> bytes:
        line, end, rest = data.rpartition(b'\r\n') if data.startswith(b'SSH-') else (b'', b'', data)
        first = PacketFactory.split(rest)[:1]
        kept.extend(rest[sum(map(len, first)) :])
        return line + end + b''.join(first)

    pipe.on_server_bytes = keep_newkeys
    pipe.start().check()
    assert pipe.client.transport.reader.held
    pipe.client.transport.host_key_accepted()
    pipe.client.transport.pass_ended(10_000.0)
    assert pipe.client.transport.kex_running
    with pytest.raises(KeyExchangeFailed, match='120 seconds'):
        pipe.client.transport.pass_ended(10_120.0)
    pipe.client.feed(bytes(kept))
    assert pipe.client.host.exchanges == [True]


def test_host_key_refused() -> None:
    pipe = make_pipe(**FAST)
    pipe.client.host.accept_host_key = False
    pipe.start().check()
    pipe.client.transport.fail(HostKeyNotVerifiable('Host key is not trusted'))
    pipe.pump()
    assert isinstance(pipe.server.host.disconnect, HostKeyNotVerifiable)
    assert pipe.server.host.exchanges == []
    pipe.client.transport.host_key_accepted()       # too late
    pipe.pump()
    assert pipe.client.host.exchanges == [] and not pipe.client.take()


@pytest.mark.parametrize('step', ['decode_public_key', 'verify_signature'])
@pytest.mark.parametrize('fault', [MemoryError(), RuntimeError('odd'), ValueError('odd')])
def test_fault_while_verifying_fails_closed(monkeypatch: pytest.MonkeyPatch, step: str, fault: Exception) -> None:
    """CVE-2025-26465: an internal error is not a yes."""

    def fail(*args: object) -> None:
        raise fault

    monkeypatch.setattr(exchange_module, step, fail)
    pipe = make_pipe(**FAST).start()
    assert pipe.client.error is fault
    assert pipe.client.host.host_keys == [] and pipe.client.host.exchanges == [] == pipe.server.host.exchanges


@pytest.mark.parametrize('answer', [False, None, 1, 'yes', b'\1'])
def test_only_true_is_a_good_signature(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    monkeypatch.setattr(exchange_module, 'verify_signature', lambda *args: answer)
    pipe = make_pipe(**FAST).start()
    assert isinstance(pipe.client.error, KeyExchangeFailed)
    assert pipe.client.host.host_keys == []


def test_wrong_signature() -> None:
    class Forger(SSHLocalKeyPair):
        def sign(self, data: bytes) -> bytes:
            signature = bytearray(super().sign(data))
            signature[-1] ^= 1
            return bytes(signature)

    pipe = make_pipe(server={'host_keys': [Forger(host_key().key)]}, **FAST).start()
    assert 'does not verify' in str(pipe.client.error)
    assert pipe.server.host.disconnect.code == 3


def test_signature_by_another_algorithm_of_the_key() -> None:
    class Stubborn(SSHLocalKeyPair):
        def set_sig_algorithm(self, sig_algorithm: bytes) -> None:
            super().set_sig_algorithm(b'rsa-sha2-256')

    pair = Stubborn(host_key(b'ssh-rsa').key)
    pipe = make_pipe(client={'host_key_algs': (b'rsa-sha2-512',)}, server={'host_keys': [pair]}, **FAST).start()
    assert 'does not verify' in str(pipe.client.error)


def test_key_of_another_type_than_agreed() -> None:
    class Liar(SSHLocalKeyPair):
        def __init__(self) -> None:
            super().__init__(host_key().key)
            self.sig_algorithms = self.host_key_algorithms = (b'ecdsa-sha2-nistp256',)

        def set_sig_algorithm(self, sig_algorithm: bytes) -> None:
            pass

    pipe = make_pipe(server={'host_keys': [Liar()]}, **FAST).start()
    assert 'Expected a host key for ecdsa-sha2-nistp256, got one for ssh-ed25519' in str(pipe.client.error)


def test_malformed_host_key() -> None:
    class Broken(SSHLocalKeyPair):
        def __init__(self) -> None:
            super().__init__(host_key().key)
            self.public_data = self.public_data[:-1]

    pipe = make_pipe(server={'host_keys': [Broken()]}, **FAST).start()
    assert isinstance(pipe.client.error, KeyExchangeFailed)


# --- the state table

STATES = ('version', 'exchange', 'keyed', 'service', 'login', 'rekey')
TYPES = [*range(61), 79, 80, 81, 90, *range(93, 97), 100, 127, 128, 191, 192, 193, 194, 255]
PAYLOADS = {
    1: PacketFactory.disconnect(), 2: IGNORE, 3: UNIMPLEMENTED, 4: DEBUG, 5: SERVICE_REQUEST, 6: SERVICE_ACCEPT,
    7: PacketFactory.ext_info(), 192: PING, 193: encode_byte(MSG_PONG) + encode_string(b''),
}  # fmt: skip


def expected(state: str, message_type: int, is_client: bool) -> str:
    """The table of SECURITY: what must come of a message; `up` is given to the floors above."""
    t = message_type
    if t == 1:
        return 'disconnected'
    if state == 'exchange':
        return 'fatal'      # strict: nothing but the next message of the exchange, and these are none
    if t in (20, 21) or 30 <= t <= 49:
        return 'fatal'      # not well formed, or not now
    if t in (2, 3, 4):
        return 'quiet'
    if state in ('version', 'rekey'):
        if t in (5, 6, 7):
            return 'fatal'
        if t >= 50:
            return 'quiet' if t in (192, 193) else 'fatal'
        return 'unimplemented'
    if t == 5:
        if is_client or state == 'login':
            return 'fatal'
        return 'served' if state == 'keyed' else 'granted'    # again
    if t == 6:
        return 'fatal'
    if t == 7:
        return 'quiet' if is_client and state == 'service' else 'fatal'
    if 50 <= t <= 79:
        return 'fatal' if state == 'keyed' else 'up'
    if 80 <= t <= 127:
        return 'up' if state == 'login' else 'fatal'
    if t == 192:
        return 'pong' if state == 'login' else 'quiet'
    return 'quiet' if t == 193 else 'unimplemented'


def bring_to(state: str, is_client: bool) -> tuple[Pipe, End, End]:
    """Return a pipe whose peer end is about to speak to the victim in a state."""
    if state in ('version', 'exchange'):
        pipe = make_pipe(**FAST)
        victim, peer = (pipe.client, pipe.server) if is_client else (pipe.server, pipe.client)
        victim.transport.start()
        victim.take()
        if state == 'version':
            victim.feed(b'SSH-2.0-peer\r\n')
            peer.transport.reader.identified = True
        else:
            peer.transport.start()
            victim.feed(peer.take())
            victim.take()
        return pipe, victim, peer
    pipe = keyed()
    if state in ('service', 'login', 'rekey'):
        pipe.client.transport.request_service(b'ssh-userauth')
        pipe.pump().check()
    if state in ('login', 'rekey'):
        pipe.client.transport.authentication_complete()
        pipe.server.transport.authentication_complete()
    if state == 'keyed':
        # EXT_INFO is legal as the first message only.
        send_raw(pipe.client, IGNORE)
        send_raw(pipe.server, IGNORE)
        pipe.pump().check()
    victim, peer = (pipe.client, pipe.server) if is_client else (pipe.server, pipe.client)
    if state == 'rekey':
        peer.transport.rekey()
        victim.feed(peer.take())
        victim.take()
    return pipe, victim, peer


@pytest.mark.parametrize('is_client', [True, False], ids=['client', 'server'])
@pytest.mark.parametrize('state', STATES)
def test_every_message_in_every_state(state: str, is_client: bool) -> None:
    pipe, victim, peer = bring_to(state, is_client)
    story = ''
    for message_type in TYPES:
        if victim.error is not None or victim.host.disconnect is not None or story in ('served', 'granted'):
            pipe, victim, peer = bring_to(state, is_client)
        payload = PAYLOADS.get(message_type, bytes([message_type]))
        sent = victim.transport.writer.total_packets
        services, messages = len(victim.host.services), len(victim.messages)
        heard = capture(peer)
        send_raw(peer, payload)
        victim.feed(peer.take())
        answers = victim.transport.writer.total_packets - sent

        if victim.error is not None:
            assert isinstance(victim.error, ProtocolError), (state, message_type)
            story = 'fatal'
        elif victim.host.disconnect is not None:
            story = 'disconnected'
        elif len(victim.host.services) > services:
            story = 'served'
        elif len(victim.messages) > messages:
            story = 'up'
            assert victim.messages[-1] == payload
        elif answers:
            assert answers == 1
            if message_type == 5:
                with pytest.raises(ProtocolError, match='acceptance'):      # the peer is one that asks once
                    pipe.pump().check()
                story = 'granted'
            elif state in ('keyed', 'service', 'login'):
                pipe.pump().check()
                story = {MSG_UNIMPLEMENTED: 'unimplemented', MSG_PONG: 'pong'}[heard[-1][0]]
            else:
                victim.take()
                story = 'unimplemented'
        else:
            story = 'quiet'
        assert story == expected(state, message_type, is_client), (state, message_type)
        if state == 'service' and message_type == 7 and is_client:
            victim.transport._success_due = False


# --- small messages


def test_unimplemented_names_the_packet() -> None:
    pipe = logged_in()
    heard = capture(pipe.client)
    send_raw(pipe.client, IGNORE)
    sequence = pipe.client.transport.writer.sequence
    send_raw(pipe.client, bytes([200, 1, 2]))
    pipe.pump().check()
    assert heard == [encode_byte(MSG_UNIMPLEMENTED) + encode_uint32(sequence)]


def test_ping_is_answered_after_login() -> None:
    pipe = logged_in()
    heard = capture(pipe.client)
    send_raw(pipe.client, PING)
    pipe.pump().check()
    assert heard == [encode_byte(MSG_PONG) + encode_string(b'data')]
    assert pipe.client.transport.peer_extensions[b'ping@openssh.com'] == b'0'
    send_raw(pipe.client, PING + b'x')
    pipe.pump()
    assert isinstance(pipe.server.error, PacketDecodeError)


@pytest.mark.parametrize('state', ['keyed', 'service', 'rekey', 'version'])
def test_ping_flood_grows_nothing(state: str) -> None:
    """CVE-2025-26466: no answer before login and in a key exchange."""
    _, victim, peer = bring_to(state, is_client=False)
    sent = victim.transport.writer.total_packets
    for _ in range(2000):
        send_raw(peer, PING)
    victim.feed(peer.take())
    assert victim.error is None and victim.transport.writer.total_packets == sent
    assert victim.transport.writer.backlog == 0


def test_replies_to_a_peer_that_does_not_read_are_bounded() -> None:
    pipe = logged_in()
    for payload in (encode_byte(MSG_PING) + encode_string(bytes(10000)), bytes([200])):
        for _ in range(20):
            for _ in range(1000 if len(payload) == 1 else 20):
                send_raw(pipe.client, payload)
            pipe.server.feed(pipe.client.take())
    assert pipe.server.transport.writer.backlog < 300_000


def test_debug_text_is_safe() -> None:
    pipe = logged_in()
    send_raw(pipe.client, PacketFactory.debug(b'a\x1b[2J\nb\xff' + b'x' * 5000))
    pipe.pump().check()
    (message, _, always_display), = pipe.server.host.debug
    assert always_display and '\x1b' not in message and '\n' not in message and len(message) < 1100


def test_disconnect() -> None:
    pipe = logged_in()
    pipe.client.transport.disconnect(11, 'Good bye', 'en')
    pipe.client.transport.disconnect(2, 'again')
    pipe.client.transport.send_message(b'\x50')
    pipe.pump()
    exc = pipe.server.host.disconnect
    assert (exc.code, exc.reason, exc.lang) == (11, 'Good bye', 'en')
    assert pipe.server.messages == []


def test_nothing_after_disconnect_is_looked_at() -> None:
    pipe = logged_in()
    send_raw(pipe.client, PacketFactory.disconnect(2, b'evil\x1b[2J'), b'\x50', bytes([MSG_KEXINIT]))
    pipe.pump().check()
    assert pipe.server.messages == [] and '\x1b' not in pipe.server.host.disconnect.reason
    assert isinstance(pipe.server.host.disconnect, ProtocolError)


def test_disconnect_without_language() -> None:
    pipe = logged_in()
    send_raw(pipe.client, PacketFactory.disconnect()[:-4])
    pipe.pump().check()
    assert isinstance(pipe.server.host.disconnect, DisconnectError)


def test_mac_error_tells_the_peer() -> None:
    pipe = logged_in()
    pipe.on_client_bytes = lambda data: data[:-1] + bytes([data[-1] ^ 1])
    pipe.client.transport.send_message(b'\x50')
    pipe.step()
    assert isinstance(pipe.server.error, MACError)
    assert pipe.client.host.disconnect.code == 5


# --- services


def test_service_refused() -> None:
    pipe = keyed()

    def refuse(name: bytes) -> None:
        raise ServiceNotAvailable(f'No {name.decode()} here')

    pipe.server.host.service_requested = refuse
    pipe.client.transport.request_service(b'ssh-gopher')
    pipe.pump()
    assert isinstance(pipe.client.host.disconnect, ServiceNotAvailable)


def test_service_accepted_must_be_the_one_requested() -> None:
    for asked, granted in ((b'ssh-userauth', b'ssh-connection'), (None, b'ssh-userauth')):
        pipe = keyed()
        if asked:
            pipe.client.transport.request_service(asked)
            pipe.client.take()
        send_raw(pipe.server, encode_byte(6) + encode_string(granted))
        pipe.pump()
        assert isinstance(pipe.client.error, ProtocolError)


def test_wrong_service_cannot_be_accepted() -> None:
    pipe = keyed()
    with pytest.raises(ValueError, match='not requested'):
        pipe.server.transport.accept_service(b'ssh-userauth')


# --- extension info


def test_ext_info() -> None:
    pipe = keyed(server={'sig_algs': (b'ssh-ed25519', b'rsa-sha2-256')})
    assert pipe.client.transport.peer_sig_algs == (b'ssh-ed25519', b'rsa-sha2-256')
    assert pipe.server.transport.peer_sig_algs is None


def test_ext_info_only_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, 'EXT_INFO_CLIENT', b'unheard-of')
    monkeypatch.setattr(Exchanges, '_begin_strict', lambda self, peer, sequence: None)
    assert keyed().client.transport.peer_extensions == {}


def test_ext_info_count() -> None:
    for count in (0xFFFFFFFF, 1024, 3):
        with pytest.raises(ProtocolError):
            decode_ext_info(PacketFactory.ext_info([(b'a', b'b'), (b'c', b'd')], count))
    entries = [(b'%d' % i, b'') for i in range(1023)]
    assert decode_ext_info(PacketFactory.ext_info(entries)) == dict(entries)
    with pytest.raises(PacketDecodeError):
        decode_ext_info(PacketFactory.ext_info([(b'a', b'b')], 0))


def test_ext_info_before_success() -> None:
    pipe = keyed()
    pipe.client.transport.request_service(b'ssh-userauth')
    pipe.pump()
    send_raw(pipe.server, PacketFactory.ext_info([(b'server-sig-algs', b'ssh-ed25519')]), b'\x34')
    pipe.pump().check()
    assert pipe.client.transport.peer_sig_algs == (b'ssh-ed25519',)
    assert pipe.client.messages == [b'\x34']


@pytest.mark.parametrize('follower', [b'\x33', IGNORE, PacketFactory.ext_info(), b'\x35'])
def test_ext_info_must_be_followed_by_success(follower: bytes) -> None:
    pipe = keyed()
    pipe.client.transport.request_service(b'ssh-userauth')
    pipe.pump()
    send_raw(pipe.server, PacketFactory.ext_info(), follower)
    pipe.pump()
    assert isinstance(pipe.client.error, ProtocolError) and pipe.client.messages == []


def test_ext_info_from_a_client_once_and_first() -> None:
    for before in ([], [IGNORE], [PacketFactory.ext_info()]):
        pipe = make_pipe(**FAST)
        wanted = [*before, PacketFactory.ext_info()]
        pipe.client.host.keys_exchanged = lambda first, p=pipe, w=wanted: send_raw(p.client, *w)
        pipe.start()
        assert (pipe.server.error is None) == (not before)


def test_ext_info_unencrypted() -> None:
    """CVE-2023-46445, before and after KEXINIT."""
    for is_client in (True, False):
        for state in ('version', 'exchange'):
            _, victim, _ = bring_to(state, is_client)
            victim.feed(PacketFactory.frame(PacketFactory.ext_info([(b'server-sig-algs', b'none')])))
            assert isinstance(victim.error, ProtocolError) and victim.transport.peer_extensions == {}


# --- hostile framing and other odds


def test_hostile_lengths_unencrypted() -> None:
    for length in (0, 1, 4, 5, 7, 35001, 262145, 0x7FFFFFFF, 0xFFFFFFFF):
        _, victim, _ = bring_to('version', is_client=False)
        victim.feed(PacketFactory.frame(IGNORE, length=length))
        assert isinstance(victim.error, ProtocolError), length
    for padding in (0, 3, 255):
        _, victim, _ = bring_to('version', is_client=False)
        frame = bytearray(PacketFactory.frame(IGNORE))
        frame[4] = padding
        victim.feed(bytes(frame))
        assert isinstance(victim.error, ProtocolError), padding


@pytest.mark.parametrize('is_client', [True, False])
def test_truncated_messages(is_client: bool) -> None:
    for payload in (PacketFactory.disconnect(), DEBUG, PING, SERVICE_REQUEST):
        for cut in range(1, len(payload)):
            if payload[0] == 1 and cut >= len(payload) - 4:
                continue
            if payload[0] == 1 and cut % 3:
                continue
            pipe, victim, peer = bring_to('login' if payload[0] != 5 else 'keyed', is_client)
            send_raw(peer, payload[:cut])
            pipe.pump()
            assert isinstance(victim.error, ProtocolError), (payload, cut)
            assert victim.host.services in ([], [b'ssh-userauth']) and not victim.host.debug


def test_wake_is_called_when_there_is_something_to_take() -> None:
    end = End(options(**FAST), is_client=True)
    assert end.wakes == 0
    end.transport.start()
    assert end.wakes >= 1


def test_host_keys_shared_by_connections() -> None:
    """One RSA pair serves two handshakes with different algorithms, interleaved."""
    pair = SSHLocalKeyPair(generate_private_key('ssh-rsa', key_size=2048))
    pipes = [
        make_pipe(client={'host_key_algs': (name,)}, server={'host_keys': [pair]}, **FAST)
        for name in (b'rsa-sha2-256', b'rsa-sha2-512')
    ]
    for pipe in pipes:
        pipe.client.transport.start()
        pipe.server.transport.start()
    for _ in range(8):
        for pipe in pipes:
            pipe.step()
    for pipe in pipes:
        assert pipe.check().client.host.exchanges == [True]



# --- whatever comes, the error is one of ours


@given(st.binary(max_size=600))
def test_random_bytes(data: bytes) -> None:
    for is_client in (True, False):
        end = End(options(**FAST), is_client=is_client)
        end.transport.start()
        end.feed(b'SSH-2.0-x\r\n' + data)
        assert end.error is None or isinstance(end.error, DisconnectError)
        assert end.host.messages == [] and end.host.exchanges == []


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 20, 21, 30, 31, 32, 33, 34, 50, 52, 80, 192]),
                          st.binary(max_size=80)), max_size=6), st.sampled_from(STATES), st.booleans())  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_random_messages(messages: list[tuple[int, bytes]], state: str, is_client: bool) -> None:
    _, victim, peer = bring_to(state, is_client)
    for message_type, body in messages:
        send_raw(peer, bytes([message_type]) + body)
    victim.feed(peer.take())
    assert victim.error is None or isinstance(victim.error, DisconnectError)
