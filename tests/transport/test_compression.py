"""Compression: streams that go on from packet to packet, bounded on the way out."""

import os
import zlib

import pytest

from ssh_fast.errors import CompressionError
from ssh_fast.transport.compression import MAX_INFLATED, Compressor, Decompressor
from tests.memory_pipe import Pipe, make_pipe, seeded_cutter

ZLIB = {'compression_algs': (b'zlib@openssh.com', b'none')}


def test_stream() -> None:
    compress, expand = Compressor(), Decompressor()
    for payload in (b'a', b'hello' * 1000, os.urandom(40000), b'', b'x' * MAX_INFLATED):
        packed = compress(payload)
        assert expand(packed) == payload
    assert len(compress(b'y' * 100000)) < 1000


def test_bomb() -> None:
    for size in (MAX_INFLATED + 1, 1 << 26):
        with pytest.raises(CompressionError, match='262144'):
            Decompressor()(Compressor()(bytes(size)))


def test_garbage_and_end() -> None:
    with pytest.raises(CompressionError):
        Decompressor()(b'not zlib')
    with pytest.raises(CompressionError, match='end'):
        Decompressor()(zlib.compress(b'over'))


def logged_in(**changes: object) -> Pipe:
    return make_pipe(seeded_cutter(5), **{**ZLIB, **changes}).start().check().login()


def test_begins_after_success_in_both_directions() -> None:
    pipe = make_pipe(**ZLIB).start().check()
    pipe.client.transport.request_service(b'ssh-userauth')
    pipe.pump()
    # A large compressible message before login goes as it is, SUCCESS too, and the first after it is small.
    pipe.client.transport.send_message(b'\x32' + bytes(20000))
    assert len(pipe.client.take()) > 20000

    pipe = logged_in()
    for sender, receiver in ((pipe.client, pipe.server), (pipe.server, pipe.client)):
        before = pipe.carried[:]
        sender.transport.send_message(b'\x50' + bytes(20000))
        pipe.pump().check()
        assert receiver.messages[-1] == b'\x50' + bytes(20000)
        assert sum(pipe.carried) - sum(before) < 500


def test_starts_anew_with_new_keys() -> None:
    pipe = logged_in()
    for count in range(4):
        (pipe.client if count % 2 else pipe.server).transport.rekey()
        for sender, receiver in ((pipe.client, pipe.server), (pipe.server, pipe.client)):
            message = b'\x50' + os.urandom(100) + b'abc' * count
            sender.transport.send_message(message)
            pipe.pump().check()
            assert receiver.messages[-1] == message
    assert pipe.client.transport.rekeys == 4


def test_success_that_waits_for_a_rekey_is_not_compressed() -> None:
    pipe = make_pipe(**ZLIB).start().check()
    pipe.client.transport.request_service(b'ssh-userauth')
    pipe.pump()
    pipe.client.transport._begin_exchange()      # a peer that renews keys before login
    pipe.server.feed(pipe.client.take())
    pipe.server.transport.send_message(b'\x34')
    pipe.server.transport.authentication_complete()
    pipe.server.transport.send_message(b'\x50' + bytes(5000))
    client, seen = pipe.client, []
    original = client.host.message_received

    def message_received(message_type: int, payload: bytes, sequence: int) -> None:
        seen.append(payload)
        if message_type == 52:
            client.transport.authentication_complete()
        original(message_type, payload, sequence)

    client.host.message_received = message_received
    pipe.pump().check()
    assert seen == [b'\x34', b'\x50' + bytes(5000)]
    client.transport.send_message(b'\x51' + bytes(5000))
    pipe.pump().check()
    assert pipe.server.messages[-1] == b'\x51' + bytes(5000)


def test_bomb_from_a_peer_ends_the_connection() -> None:
    pipe = logged_in()
    bomb = Compressor()(b'\x50' + bytes(1 << 24))
    pipe.client.transport.writer.set_compressor(lambda payload: bomb)
    pipe.client.transport.writer.send_packet(b'\x50')
    pipe.pump()
    assert isinstance(pipe.server.error, CompressionError)
    assert pipe.server.messages == []
    assert pipe.client.host.disconnect.code == 6


def test_not_agreed_not_used() -> None:
    pipe = make_pipe(client={'compression_algs': (b'none',)}, server=ZLIB).start().check().login()
    pipe.client.transport.send_message(b'\x50' + bytes(20000))
    assert len(pipe.client.take()) > 20000
