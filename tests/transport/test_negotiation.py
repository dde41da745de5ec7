"""KEXINIT and the choice of algorithms."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssh_fast.errors import KeyExchangeFailed, PacketDecodeError, ProtocolError
from ssh_fast.transport.negotiation import Algorithms, KexInit, guess_is_right, negotiate

BASE = KexInit(
    (b'curve25519-sha256', b'ecdh-sha2-nistp256'), (b'ssh-ed25519', b'rsa-sha2-512'),
    (b'aes128-gcm@openssh.com', b'aes128-ctr'), (b'aes128-gcm@openssh.com', b'aes128-ctr'),
    (b'hmac-sha2-256', b'hmac-sha1'), (b'hmac-sha2-256', b'hmac-sha1'), (b'none', b'zlib@openssh.com'), (b'none',),
)  # fmt: skip

names = st.lists(st.text('abcdefgh-@.0123456789', min_size=1, max_size=20).map(str.encode), max_size=6).map(tuple)


@given(st.lists(names, min_size=10, max_size=10), st.booleans())
def test_round_trip(lists: list[tuple[bytes, ...]], follows: bool) -> None:
    message = KexInit(*lists, first_kex_packet_follows=follows)
    payload = message.encode()
    assert KexInit.decode(payload) == message
    assert message.encode() != payload, 'each message has a cookie of its own'
    for cut in range(1, len(payload), 7):
        with pytest.raises(PacketDecodeError):
            KexInit.decode(payload[:cut])
    with pytest.raises(PacketDecodeError):
        KexInit.decode(payload + b'\0')


@given(st.binary(max_size=400))
def test_garbage(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        KexInit.decode(b'\x14' + data)


def test_limits() -> None:
    many = tuple(b'n%d' % i for i in range(1025 - 13))
    KexInit.decode(replace(BASE, kex_algs=many[:-1]).encode())
    with pytest.raises(ProtocolError, match='1024 names'):
        KexInit.decode(replace(BASE, kex_algs=many).encode())
    KexInit.decode(replace(BASE, languages_cs=(b'x' * 32000,)).encode())
    with pytest.raises(ProtocolError, match='32768 bytes'):
        KexInit.decode(replace(BASE, languages_cs=(b'x' * 33000,)).encode())


def test_the_clients_order_counts() -> None:
    server = replace(
        BASE, kex_algs=BASE.kex_algs[::-1], host_key_algs=BASE.host_key_algs[::-1], encryption_sc=(b'aes128-ctr',),
        mac_sc=(b'hmac-sha1',), compression_cs=(b'zlib@openssh.com', b'none'),
    )  # fmt: skip
    assert negotiate(BASE, server, is_client=True) == Algorithms(
        b'curve25519-sha256', b'ssh-ed25519', b'aes128-gcm@openssh.com', b'aes128-ctr', b'', b'hmac-sha1',
        b'none', b'none',
    )  # fmt: skip
    assert negotiate(BASE, server, is_client=False) == Algorithms(
        b'curve25519-sha256', b'ssh-ed25519', b'aes128-ctr', b'aes128-gcm@openssh.com', b'hmac-sha1', b'',
        b'none', b'none',
    )  # fmt: skip


def test_aead_needs_no_common_mac() -> None:
    other = replace(BASE, mac_cs=(b'hmac-md5',), mac_sc=())
    assert negotiate(BASE, other, is_client=True).send_mac == b''
    with pytest.raises(KeyExchangeFailed, match='MAC'):
        negotiate(replace(BASE, encryption_cs=(b'aes128-ctr',)), other, is_client=True)


@pytest.mark.parametrize(
    ('field', 'kind'),
    [('kex_algs', 'key exchange'), ('host_key_algs', 'host key'), ('encryption_cs', 'encryption'),
     ('encryption_sc', 'encryption'), ('compression_cs', 'compression'), ('compression_sc', 'compression')],
)  # fmt: skip
def test_nothing_in_common_says_what_both_offered(field: str, kind: str) -> None:
    theirs = replace(BASE, **{field: (b'odd\x1b[2J', b'even')})
    with pytest.raises(KeyExchangeFailed) as caught:
        negotiate(BASE, theirs, is_client=True)
    text = str(caught.value)
    assert kind in text and getattr(BASE, field)[0].decode() in text and 'even' in text and '\x1b' not in text


def test_guess() -> None:
    assert guess_is_right(BASE, replace(BASE, encryption_cs=(b'x',)))
    assert not guess_is_right(BASE, replace(BASE, kex_algs=BASE.kex_algs[::-1]))
    assert not guess_is_right(BASE, replace(BASE, host_key_algs=BASE.host_key_algs[::-1]))
