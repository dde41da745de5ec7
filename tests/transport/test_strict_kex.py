"""Strict key exchange, each of its rules, and the Terrapin attack on every cipher in both roles (CVE-2023-48795)."""

import pytest

from ssh_fast.errors import DisconnectError, ProtocolError
from ssh_fast.transport.algorithms import EXT_INFO_CLIENT, available_algorithms
from ssh_fast.transport.exchange import Exchanges
from ssh_fast.transport.negotiation import KexInit
from tests.memory_pipe import End, PacketFactory, Pipe, make_pipe, seeded_cutter

FAST = {'kex_algs': (b'curve25519-sha256',)}
CIPHERS = [(cipher, b'') for cipher in available_algorithms('encryption') if not cipher.endswith(b'ctr')] + [
    (b'aes128-ctr', mac) for mac in (b'hmac-sha2-256-etm@openssh.com', b'hmac-sha2-256', b'hmac-sha1')
]
# the victim's role, and the message of its peer that something is put in front of
PLACES = [(True, 20), (True, 31), (True, 21), (False, 20), (False, 30), (False, 21)]
OPTIONAL = {
    'ignore': PacketFactory.ignore(), 'debug': PacketFactory.debug(), 'unimplemented': PacketFactory.unimplemented(),
    'ext-info': PacketFactory.ext_info(), 'ping': b'\xc0\0\0\0\0', 'pong': b'\xc1\0\0\0\0', 'unknown': b'\x16',
    'service': b'\x05\0\0\0\x0cssh-userauth', 'auth': b'\x32',
}  # fmt: skip


def be_lax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make both ends behave as if the other had not sent its marker."""

    def not_strict(self: Exchanges, peer: KexInit, sequence: int) -> None:
        self.peer_takes_ext_info = not self._is_client and EXT_INFO_CLIENT in peer.kex_algs

    monkeypatch.setattr(Exchanges, '_begin_strict', not_strict)


class Injector:
    """A man in the middle of one direction: puts a packet in front of an unencrypted one, and can cut what follows."""

    def __init__(self, before: int, payload: bytes, drop_encrypted: int = 0) -> None:
        self._before = before
        self._frame = PacketFactory.frame(payload)
        self._drop_left = drop_encrypted
        self._line_passed = False
        self._encrypted = False
        self.injected = 0
        self.dropped = 0

    def __call__(self, data: bytes) -> bytes:
        passed = b''
        if not self._line_passed:
            line, end, data = data.partition(b'\r\n')
            passed = line + end
            self._line_passed = True
        while data and not self._encrypted:
            size = 4 + int.from_bytes(data[:4], 'big')
            if data[5] == self._before:
                passed += self._frame
                self.injected += 1
            self._encrypted = data[5] == 21
            passed += data[:size]
            data = data[size:]
        if data and self._drop_left:
            self._drop_left -= 1
            self.dropped += len(data)
            data = b''
        return passed + data


def roles(pipe: Pipe, is_client: bool) -> tuple[End, End]:
    return (pipe.client, pipe.server) if is_client else (pipe.server, pipe.client)


def attack(pipe: Pipe, is_client: bool, injector: Injector) -> Pipe:
    if is_client:
        pipe.on_server_bytes = injector
    else:
        pipe.on_client_bytes = injector
    return pipe


@pytest.mark.parametrize(('is_client', 'before'), PLACES)
@pytest.mark.parametrize('payload', OPTIONAL.values(), ids=OPTIONAL)
def test_nothing_may_come_in_between(is_client: bool, before: int, payload: bytes) -> None:
    injector = Injector(before, payload)
    pipe = attack(make_pipe(**FAST), is_client, injector).start()
    victim, _ = roles(pipe, is_client)
    assert injector.injected == 1
    assert isinstance(victim.error, ProtocolError)
    assert victim.host.exchanges == [] and victim.host.messages == [] and victim.host.services == []


@pytest.mark.parametrize(('is_client', 'before'), PLACES)
def test_disconnect_alone_is_honoured(is_client: bool, before: int) -> None:
    pipe = attack(make_pipe(**FAST), is_client, Injector(before, PacketFactory.disconnect())).start()
    victim, _ = roles(pipe, is_client)
    assert victim.error is None and isinstance(victim.host.disconnect, DisconnectError)
    assert victim.host.exchanges == []


@pytest.mark.parametrize('is_client', [True, False], ids=['client', 'server'])
@pytest.mark.parametrize('strict', [True, False], ids=['strict', 'lax'])
@pytest.mark.parametrize(('cipher', 'mac'), CIPHERS, ids=[b'+'.join(pair).decode() for pair in CIPHERS])
@pytest.mark.parametrize('before', [20, 21])
@pytest.mark.parametrize('payload', [PacketFactory.ignore(), PacketFactory.unimplemented(), PacketFactory.debug()])
def test_terrapin(
    monkeypatch: pytest.MonkeyPatch,
    is_client: bool,
    strict: bool,
    cipher: bytes,
    mac: bytes,
    before: int,
    payload: bytes,
) -> None:
    """One message is slipped in, and the first encrypted one is cut out: the victim must never believe the rest."""
    if not strict:
        be_lax(monkeypatch)
    injector = Injector(before, payload, drop_encrypted=1)
    pipe = make_pipe(encryption_algs=(cipher,), mac_algs=(mac or b'hmac-sha1',), **FAST)
    attack(pipe, is_client, injector)
    victim, peer = roles(pipe, is_client)
    peer.host.keys_exchanged = lambda first: peer.transport.send_message(b'\xc8first')
    pipe.start()
    if victim.error is None:
        peer.transport.send_message(b'\x05\0\0\0\x0cssh-userauth')
        peer.transport.send_message(b'\x50second')
        pipe.pump()
        assert injector.dropped > 0, 'the attack did what it says'
        assert victim.host.messages == []
        # Encrypt-and-MAC conceals which length it read: the error comes when the longest packet is there.
        peer.transport.send_message(b'\x50' + bytes(200_000))
        peer.transport.send_message(b'\x50' + bytes(200_000))
        pipe.pump()
    assert injector.injected == 1
    assert isinstance(victim.error, DisconnectError)
    assert victim.host.services == [] and victim.host.messages == [] and victim.transport.peer_extensions == {}


@pytest.mark.parametrize('cipher', [b'aes128-gcm@openssh.com', b'chacha20-poly1305@openssh.com'])
def test_lax_peers_may_say_optional_things(monkeypatch: pytest.MonkeyPatch, cipher: bytes) -> None:
    """Without the marker RFC 4253 lets IGNORE come at any time; only ciphers that could be cut refuse it."""
    be_lax(monkeypatch)
    pipe = make_pipe(encryption_algs=(cipher,), **FAST)
    attack(pipe, True, Injector(31, PacketFactory.debug())).start()
    assert pipe.client.transport.strict_kex is False
    if cipher.startswith(b'aes'):
        pipe.check()
        assert pipe.client.host.debug and pipe.client.host.exchanges == [True]
    else:
        assert 'chacha20' in str(pipe.client.error) and pipe.client.host.exchanges == []


@pytest.mark.parametrize('cut', [seeded_cutter(7), seeded_cutter(8, 3000)])
def test_sequences_begin_anew_with_each_newkeys(cut: object) -> None:
    pipe = make_pipe(cut, **FAST).start().check()
    assert pipe.client.transport.strict_kex and pipe.server.transport.strict_kex
    pipe.login()
    for count in range(6):
        roles(pipe, bool(count % 2))[0].transport.rekey()
        pipe.pump().check()
    # (receiving, sending) when NEWKEYS came; the server had sent EXT_INFO behind its first NEWKEYS
    assert pipe.client.host.sequences == [(0, 0)] * 7
    assert pipe.server.host.sequences == [(0, 1)] + [(0, 0)] * 6
    pipe.client.transport.send_message(b'\x50')
    pipe.pump().check()
    assert pipe.server.host.messages[-1] == (0x50, b'\x50', 0)


def test_sequences_go_on_without_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    be_lax(monkeypatch)
    pipe = make_pipe(**FAST).start().check().login()
    pipe.client.transport.rekey()
    pipe.pump().check()
    (received, sent), (received_again, sent_again) = pipe.client.host.sequences
    assert (received, sent) == (3, 3), 'KEXINIT, one kex message and NEWKEYS'
    assert received_again > received and sent_again > sent


def test_sequence_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fatal in the first exchange; afterwards the number just begins again."""
    be_lax(monkeypatch)     # a strict end would refuse the first packet for its number
    for is_client in (True, False):
        pipe = make_pipe(**FAST)
        victim, peer = roles(pipe, is_client)
        pipe.client.transport.reader.sequence = pipe.server.transport.reader.sequence = 0xFFFFFFFE
        pipe.client.transport.writer.sequence = pipe.server.transport.writer.sequence = 0xFFFFFFFE
        pipe.start()
        assert 'sequence numbers' in str(victim.error) + str(peer.error)
        assert victim.host.exchanges == [] == peer.host.exchanges
    monkeypatch.undo()

    pipe = make_pipe(**FAST).start().check().login()
    pipe.client.transport.writer.sequence = pipe.server.transport.reader.sequence = 2**32 - 3
    for _ in range(10):
        pipe.client.transport.send_message(b'\x50')
    pipe.pump().check()
    assert [sequence for *_, sequence in pipe.server.host.messages] == [2**32 - 3, 2**32 - 2, 2**32 - 1, *range(7)]


def test_markers_are_in_the_first_kexinit_only() -> None:
    seen: list[KexInit] = []
    pipe = make_pipe(**FAST)
    for end in (pipe.client, pipe.server):
        original = end.transport.packet_received

        def packet_received(payload: bytes, sequence: int, original: object = original) -> None:
            if payload[0] == 20:
                seen.append(KexInit.decode(payload))
            original(payload, sequence)

        end.transport.packet_received = packet_received
    pipe.start().check().login()
    first = {init.kex_algs for init in seen}
    assert first == {
        (b'curve25519-sha256', b'ext-info-c', b'kex-strict-c-v00@openssh.com'),
        (b'curve25519-sha256', b'ext-info-s', b'kex-strict-s-v00@openssh.com'),
    }
    seen.clear()
    pipe.client.transport.rekey()
    pipe.pump().check()
    assert [init.kex_algs for init in seen] == [(b'curve25519-sha256',)] * 2


def test_markers_in_a_later_kexinit_mean_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    be_lax(monkeypatch)
    pipe = make_pipe(**FAST).start().check().login()
    monkeypatch.undo()
    for end in (pipe.client, pipe.server):
        end.transport._exchanges._options = end.transport._options
    session_id, pipe.client.transport._exchanges.session_id = pipe.client.transport.session_id, b''
    pipe.client.transport._begin_exchange()         # with markers
    pipe.client.transport._exchanges.session_id = session_id
    pipe.pump().check()
    assert not pipe.server.transport.strict_kex and not pipe.client.transport.strict_kex
    assert pipe.server.host.sequences[-1][0] > 3


def test_markers_are_never_negotiated() -> None:
    """A peer that lists our own markers gets no key exchange called `ext-info-c`."""
    pipe = make_pipe(client=FAST, server={'kex_algs': (b'ecdh-sha2-nistp256',)})
    pipe.server.transport._exchanges._options = type(pipe.server.transport._options)(
        kex_algs=(b'ext-info-c', b'kex-strict-c-v00@openssh.com')
    )
    pipe.start()
    assert 'key exchange' in str(pipe.client.error) and pipe.client.host.exchanges == []
