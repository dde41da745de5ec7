"""The server's SFTP sink: requests, and files served in compiled code; also both real ends together."""

import os
import random
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssh_fast._sftp_codec import (
    Pipeline,
    ReadPipeline,
    RequestAssembler,
    WritePipeline,
    decode_status,
    encode_message,
    encode_read,
    encode_status,
    encode_string_message,
    encode_write_head,
)
from ssh_fast.errors import ProtocolError
from tests.core.sftp_ends import (
    BAD_MESSAGE,
    CLOSE,
    DATA,
    EOF,
    FAILURE,
    INIT,
    OK,
    OPEN,
    READ,
    STATUS,
    WRITE,
    End,
    Served,
    carry,
    join,
    status_for_errno,
    string,
)
from tests.reference import sftp_codec as reference

MIB = 1024 * 1024


@pytest.fixture
def served() -> Served:
    return Served()


class Raw:
    """A real server's end, and a client's end that sends bytes as they are."""

    def __init__(self, **options: Any) -> None:
        self.client, self.server = End(), End()
        join(self.client, self.server)
        self.requests: list[tuple[int, int, bytes]] = []
        self.service = RequestAssembler(
            self.server.flow, lambda *message: self.requests.append(message), status_for_errno, **options
        )
        self.server.flow.set_sink(self.service)
        self.cut: random.Random | None = None
        self.send(encode_message(INIT, 3))

    def send(self, *messages: bytes) -> list[tuple[int, int, bytes]]:
        for message in messages:
            self.client.flow.send(message)
        carry(self.client, self.server, self.cut)
        return self.client.messages()

    def serve(self, handle: bytes, path: Path, flags: int = os.O_RDWR, append: bool = False) -> None:
        fd = os.open(path, flags)
        self.service.register_file(handle, fd, flags != os.O_WRONLY, flags != os.O_RDONLY, append)
        os.close(fd)


@pytest.fixture
def raw() -> Raw:
    made = Raw()
    assert made.requests.pop() == (INIT, 3, b'')
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / 'file'
    made.write_bytes(b'0123456789')
    return made


def failed(raw: Raw) -> str:
    assert isinstance(raw.server.failure, ProtocolError)
    return str(raw.server.failure)


def status_of(message: tuple[int, int, bytes]) -> tuple[int, int, str]:
    kind, request_id, body = message
    assert kind == STATUS
    return request_id, *decode_status(body)[:2]


# --- the stream


def test_init_comes_first_and_once(raw: Raw) -> None:
    raw.send(encode_message(INIT, 3))
    assert 'INIT first and once, got type 1' in failed(raw)
    early = Raw.__new__(Raw)
    early.client, early.server = End(), End()
    join(early.client, early.server)
    early.cut = None
    early.server.flow.set_sink(RequestAssembler(early.server.flow, print, status_for_errno))
    early.send(encode_string_message(CLOSE, 1, b'h'))
    assert 'got type 4' in failed(early)


@pytest.mark.parametrize('length', [0, 4, 256 * 1024 + 1025, 0xFFFFFFFF])
def test_lengths_out_of_range_are_refused_at_once(raw: Raw, length: int) -> None:
    raw.send(struct.pack('>I', length))
    assert f'length of 5 to 263168, got {length}' in failed(raw)


def test_an_exception_of_python_breaks_the_stream(raw: Raw) -> None:
    def fail(*message: object) -> None:
        raise ProtocolError('mine')

    broken = RequestAssembler(raw.server.flow, fail, status_for_errno)
    raw.server.flow.set_sink(broken)
    raw.send(encode_message(INIT, 3))
    assert failed(raw) == 'mine'


REQUESTS = st.one_of(
    st.tuples(st.just(READ), st.sampled_from([b'h1', b'h22', b'other']), st.integers(0, 60), st.integers(0, 300)),
    st.tuples(st.just(WRITE), st.sampled_from([b'h1', b'h22', b'other']), st.integers(0, 60), st.binary(max_size=60)),
    st.tuples(st.just(OPEN), st.binary(max_size=400)),
    st.tuples(st.sampled_from([READ, WRITE]), st.just(None), st.binary(max_size=30)),
)


def build(request_id: int, request: Any) -> bytes:
    if request[0] == OPEN:
        return reference.message(OPEN, request_id, request[1])
    if request[1] is None:
        return reference.message(request[0], request_id, request[2])
    return (reference.read if request[0] == READ else reference.write)(request_id, *request[1:])


@given(st.lists(REQUESTS, max_size=12), st.randoms(use_true_random=False))
def test_as_the_reference_at_any_split(
    tmp_path_factory: pytest.TempPathFactory, requests: list[Any], cut: random.Random
) -> None:
    raw = Raw(max_read=200)
    raw.requests.clear()
    files = {b'h1': bytearray(range(50)), b'h22': bytearray()}
    paths = {}
    for handle, content in files.items():
        paths[handle] = tmp_path_factory.getbasetemp() / f'split-{handle.decode()}'
        paths[handle].write_bytes(content)
        raw.serve(handle, paths[handle])
    raw.cut = cut
    stream = b''.join(build(request_id, request) for request_id, request in enumerate(requests))
    replies, handed = [], []
    for message in reference.cut([stream], 1 << 20):
        reply = reference.serve(files, *message, 200) if message[0] in (READ, WRITE) else None
        if reply is None:
            handed.append(message)
        else:
            replies.append(reply)
    answered = []
    while stream:
        size = cut.randrange(1, len(stream) + 1)
        answered += raw.send(stream[:size])
        stream = stream[size:]
    assert raw.server.failure is None
    assert raw.requests == handed
    assert answered == list(reference.cut(replies, 1 << 20))
    assert {handle: paths[handle].read_bytes() for handle in files} == files


@given(st.lists(REQUESTS, max_size=6), st.randoms(use_true_random=False))
def test_damaged_streams_are_answered_or_refused(
    tmp_path_factory: pytest.TempPathFactory, requests: list[Any], chance: random.Random
) -> None:
    raw = Raw()
    path = tmp_path_factory.getbasetemp() / 'damaged'
    path.write_bytes(bytes(100))
    raw.serve(b'h1', path)
    stream = bytearray(b''.join(build(request_id, request) for request_id, request in enumerate(requests)))
    for _ in range(chance.randrange(1, 4)):
        if stream:
            stream[chance.randrange(len(stream))] = chance.choice((0, 1, 5, 6, 9, 13, 255))
    raw.send(bytes(stream))
    path.unlink()
    assert raw.server.failure is None or isinstance(raw.server.failure, ProtocolError)


# --- reading


def test_read(raw: Raw, path: Path) -> None:
    raw.serve(b'h', path)
    replies = raw.send(
        encode_read(1, b'h', 0, 4),
        encode_read(2, b'h', 8, 100),
        encode_read(3, b'h', 10, 5),
        encode_read(4, b'h', 0, 0),
    )
    assert replies[:2] == [(DATA, 1, string(b'0123')), (DATA, 2, string(b'89'))]
    assert [status_of(reply) for reply in replies[2:]] == [(3, EOF, 'End of file'), (4, EOF, 'End of file')]
    assert raw.requests == []


def test_read_is_cut_to_max_read(path: Path) -> None:
    raw = Raw(max_read=3)
    raw.serve(b'h', path)
    assert raw.send(encode_read(1, b'h', 2, 0xFFFFFFFF)) == [(DATA, 1, string(b'234'))]


@pytest.mark.parametrize('offset', [1 << 63, (1 << 64) - 1, (1 << 63) - 4])
def test_offsets_that_no_file_has(raw: Raw, path: Path, offset: int) -> None:
    raw.serve(b'h', path)
    replies = raw.send(encode_read(1, b'h', offset, 5), encode_write_head(2, b'h', offset, 5) + b'abcde')
    assert [status_of(reply) for reply in replies] == [(1, FAILURE, 'EINVAL'), (2, FAILURE, 'EINVAL')]
    assert path.read_bytes() == b'0123456789'


def test_read_error_is_a_status(raw: Raw, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    raw.service.register_file(b'd', fd, True, False)
    os.close(fd)
    assert [status_of(reply) for reply in raw.send(encode_read(9, b'd', 0, 5))] == [(9, FAILURE, 'EISDIR')]


def test_what_is_not_registered_or_not_allowed_goes_to_python(raw: Raw, path: Path) -> None:
    raw.serve(b'ro', path, os.O_RDONLY)
    raw.serve(b'wo', path, os.O_WRONLY)
    messages = [
        encode_read(1, b'xx', 0, 1),
        encode_read(2, b'wo', 0, 1),
        encode_write_head(3, b'ro', 7, 3) + b'abc',
        encode_read(4, b'h' * 257, 0, 1),
        encode_message(READ, 5, b'\0'),
        encode_message(WRITE, 6, b'\xff\xff\xff\xff' + bytes(20)),
        encode_message(WRITE, 7, string(b'ro')),
        encode_message(99, 8, b'anything'),
    ]
    assert raw.send(*messages) == []
    assert raw.requests == [(message[4], index + 1, message[9:]) for index, message in enumerate(messages)]
    assert path.read_bytes() == b'0123456789'


def test_parked_reads_see_the_file_as_it_was(raw: Raw, path: Path) -> None:
    """A READ that waits for window is answered with what it was accepted on, not with what a later WRITE makes."""
    raw.serve(b'h', path)
    raw.server.writer.paused = True
    raw.send(encode_read(1, b'h', 0, 10), encode_write_head(2, b'h', 0, 3) + b'abc', encode_read(3, b'h', 0, 10))
    assert path.read_bytes() == b'abc3456789'
    raw.service.settle_file(b'h')
    raw.service.settle_file(b'unknown')
    os.truncate(path, 0)
    raw.server.writer.paused = False
    replies = raw.send()
    assert [reply for reply in replies if reply[0] == DATA] == [
        (DATA, 1, string(b'0123456789')),
        (DATA, 3, string(b'abc3456789')),
    ]


def test_accepted_reads_outlive_the_handle(raw: Raw, path: Path) -> None:
    raw.serve(b'h', path)
    descriptors = len(os.listdir('/proc/self/fd'))
    raw.server.writer.paused = True
    raw.send(encode_read(1, b'h', 0, 10))
    raw.service.unregister_file(b'h')
    raw.service.unregister_file(b'h')
    raw.send(encode_read(2, b'h', 0, 10))
    assert [request[1] for request in raw.requests] == [2]
    raw.server.writer.paused = False
    assert raw.send() == [(DATA, 1, string(b'0123456789'))]
    assert len(os.listdir('/proc/self/fd')) == descriptors - 1


def test_endless_reads_are_bounded(path: Path) -> None:
    """What a client asks for and never takes costs a bounded number of parked bytes; the rest fails."""
    raw = Raw(max_read=4 * MIB)
    os.truncate(path, 4 * MIB)
    raw.serve(b'h', path)
    raw.server.writer.paused = True
    raw.client.flow.adjust(0x7FFFFFFF - raw.client.flow.send_window)
    for start in range(0, 12_000, 1000):
        raw.send(*(encode_read(request_id, b'h', 0, 4 * MIB) for request_id in range(start, start + 1000)))
        assert raw.server.flow.queued < 85 * MIB
    raw.service.settle_file(b'h')
    raw.server.writer.paused = False
    sizes, failures = [], 0
    for kind, _, body in raw.send():
        if kind == DATA:
            sizes.append(len(body) - 4)
        else:
            assert decode_status(body)[0] == FAILURE
            failures += 1
    assert sizes[:15] == [4 * MIB] * 15 and set(sizes[17:]) == {4096} and len(sizes) <= 4096
    assert len(sizes) + failures == 12_000


# --- writing


def test_write(raw: Raw, path: Path) -> None:
    raw.serve(b'h', path)
    before = raw.server.writer.total_packets
    replies = raw.send(encode_write_head(1, b'h', 8, 5) + b'abcde' + encode_write_head(2, b'h', 0, 0))
    assert [status_of(reply) for reply in replies] == [(1, OK, 'Success'), (2, OK, 'Success')]
    assert raw.server.writer.total_packets == before + 1
    assert path.read_bytes() == b'01234567abcde'


@pytest.mark.parametrize('flags', [os.O_RDWR, os.O_WRONLY | os.O_APPEND])
def test_append_writes_at_the_end(raw: Raw, path: Path, flags: int) -> None:
    fd = os.open(path, flags)
    raw.service.register_file(b'h', fd, False, True, append=True)
    os.close(fd)
    raw.cut = random.Random(5)
    raw.send(encode_write_head(1, b'h', 0, 5) + b'abcde', encode_write_head(2, b'h', 3, 2) + b'fg')
    assert path.read_bytes() == b'0123456789abcdefg'


def test_padding_behind_the_data_is_skipped(raw: Raw, path: Path) -> None:
    """rclone and Go's pkg/sftp end an upload with it."""
    raw.serve(b'h', path)
    padded = reference.message(WRITE, 1, string(b'h') + bytes(8) + string(b'abc') + b'padding')
    replies = raw.send(padded, encode_read(2, b'h', 0, 4))
    assert status_of(replies[0]) == (1, OK, 'Success') and replies[1] == (DATA, 2, string(b'abc3'))


def test_data_longer_than_the_message_is_refused(raw: Raw, path: Path) -> None:
    raw.serve(b'h', path)
    bad = reference.message(WRITE, 1, string(b'h') + bytes(8) + struct.pack('>I', 9) + b'abc')
    replies = raw.send(bad, encode_read(2, b'h', 0, 4))
    assert status_of(replies[0]) == (1, BAD_MESSAGE, 'Expected 9 bytes of data, got 3')
    assert replies[1] == (DATA, 2, string(b'0123'))


def test_disk_full_fails_each_write_and_only_those(raw: Raw, path: Path) -> None:
    raw.serve(b'full', Path('/dev/full'), os.O_WRONLY)
    raw.serve(b'h', path)
    replies = raw.send(
        encode_write_head(1, b'h', 0, 1) + b'a',
        encode_write_head(2, b'full', 0, 3) + b'abc',
        encode_write_head(3, b'full', 3, 3) + b'abc',
        encode_write_head(4, b'h', 1, 1) + b'b',
    )
    assert [status_of(reply) for reply in replies] == [
        (1, OK, 'Success'),
        (2, FAILURE, 'ENOSPC'),
        (3, FAILURE, 'ENOSPC'),
        (4, OK, 'Success'),
    ]
    assert path.read_bytes() == b'ab23456789'


def test_replies_keep_the_order_of_the_requests(raw: Raw, path: Path) -> None:
    raw.serve(b'h', path)
    requests = [encode_write_head(i, b'h', 0, 1) + b'x' if i % 3 else encode_read(i, b'h', 0, 2) for i in range(500)]
    assert [reply[1] for reply in raw.send(b''.join(requests))] == list(range(500))


def test_a_write_is_answered_before_python_is_asked(raw: Raw, path: Path) -> None:
    raw.serve(b'h', path)
    seen: list[int] = []

    def close(kind: int, request_id: int, body: bytes) -> None:
        seen.append(kind)
        raw.server.flow.send(encode_status(request_id, OK))

    service = RequestAssembler(raw.server.flow, close, status_for_errno)
    raw.server.flow.set_sink(service)
    fd = os.open(path, os.O_RDWR)
    service.register_file(b'h', fd, True, True)
    os.close(fd)
    requests = encode_message(INIT, 3) + encode_write_head(1, b'h', 0, 1) + b'x' + encode_string_message(CLOSE, 2, b'h')
    assert [reply[1] for reply in raw.send(requests)] == [3, 1, 2]
    assert seen == [INIT, CLOSE]


# --- files


def test_registration_is_checked(raw: Raw, path: Path) -> None:
    raw.serve(b'h', path)
    with pytest.raises(ValueError, match='registered already'):
        raw.serve(b'h', path)
    for handle in (b'', b'h' * 257):
        with pytest.raises(ValueError, match='1 to 256 bytes'):
            raw.serve(handle, path)
    with pytest.raises(OSError, match='Bad file descriptor'):
        raw.service.register_file(b'x', 1 << 20, True, True)
    with pytest.raises(ValueError, match='max_read'):
        RequestAssembler(raw.server.flow, print, status_for_errno, max_read=0)


def test_closing_the_channel_closes_the_files(path: Path) -> None:
    before = len(os.listdir('/proc/self/fd'))
    raw = Raw()
    for index in range(10):
        raw.serve(b'%d' % index, path)
    raw.server.writer.paused = True
    raw.send(encode_read(1, b'3', 0, 10))
    assert len(os.listdir('/proc/self/fd')) == before + 10
    raw.server.flow.close()
    assert len(os.listdir('/proc/self/fd')) == before
    assert raw.service.closed


# --- both ends


@pytest.mark.parametrize('seed', range(8))
def test_get_and_put_between_both_real_ends(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    served = Served(
        max_read=chance.choice((1000, 261120)),
        packet=chance.choice((97, 32768, 131072)),
        window=chance.choice((3000, 2 * MIB)),
    )
    if seed % 2:
        served.cut = chance
    data = chance.randbytes(chance.choice((0, 1, 32767, 300_001)))
    (tmp_path / 'there').write_bytes(data)
    (tmp_path / 'back').touch()
    served.serve(b'there', tmp_path / 'there', os.O_RDONLY)
    served.serve(b'back', tmp_path / 'back')
    fd = os.open(tmp_path / 'here', os.O_RDWR | os.O_CREAT)
    block_size = chance.choice((5000, 65536))
    get = ReadPipeline(
        served.assembler, b'there', done=served.finished.append, size=len(data), block_size=block_size, fd=fd
    )
    get.start()
    served.carry()
    assert get.complete and (tmp_path / 'here').read_bytes() == data
    put = WritePipeline(
        served.assembler, b'back', done=served.finished.append, fd=fd, size=len(data), block_size=block_size
    )
    put.start()
    served.carry()
    os.close(fd)
    assert put.complete and (tmp_path / 'back').read_bytes() == data
    assert served.finished == [get, put] and served.requests == [] == served.replies
    assert served.client.failure is None is served.server.failure


def test_no_python_runs_for_blocks(served: Served, path: Path, tmp_path: Path) -> None:
    """Eight hundred blocks each way make no Python calls: there are some for each chunk, and one at the end."""
    os.truncate(path, 800 * 1024)
    served.serve(b'h', path)
    calls: list[str] = []
    done, data = served.finished.append, bytes(800 * 1024)
    pipelines: list[Pipeline] = [
        ReadPipeline(served.assembler, b'h', done=done, size=len(data), block_size=1024),
        WritePipeline(served.assembler, b'h', done=done, data=data, block_size=1024),
    ]
    for pipeline in pipelines:
        sys.setprofile(lambda frame, event, argument: calls.append(frame.f_code.co_name) if event == 'call' else None)
        try:
            pipeline.start()
            served.carry()
        finally:
            sys.setprofile(None)
        assert pipeline.complete
    assert len([name for name in calls if name != 'gc_callback']) < 80, calls


def test_python_requests_between_blocks(served: Served, path: Path) -> None:
    served.serve(b'h', path)
    pipeline = ReadPipeline(served.assembler, b'h', done=served.finished.append, size=10, block_size=3)
    pipeline.start()
    encode: Callable[[int], bytes] = lambda request_id: encode_read(request_id, b'h', 4, 2)  # noqa: E731
    assert served.ask(encode) == (DATA, string(b'45'))
    assert pipeline.complete and pipeline.take_result() == b'0123456789'
