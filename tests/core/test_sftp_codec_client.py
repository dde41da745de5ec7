"""The client's SFTP sink and its pipelines, against scripted servers."""

import os
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssh_fast._sftp_codec import (
    Pipeline,
    ReadPipeline,
    ReplyAssembler,
    WritePipeline,
    encode_message,
    encode_read,
    encode_status,
)
from ssh_fast.errors import PacketDecodeError, ProtocolError
from tests.core.sftp_ends import (
    DATA,
    EOF,
    FAILURE,
    HANDLE,
    NAME,
    OK,
    READ,
    STATUS,
    VERSION,
    Peers,
    string,
)
from tests.reference import sftp_codec as reference

MIB = 1024 * 1024


@pytest.fixture
def peers() -> Peers:
    made = Peers()
    made.greet()
    return made


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / 'target', os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def reading(peers: Peers, size: int | None, **options: Any) -> ReadPipeline:
    options.setdefault('block_size', 1000)
    pipeline = ReadPipeline(peers.assembler, b'handle', done=peers.finished.append, size=size, **options)
    pipeline.start()
    return pipeline


def writing(peers: Peers, **options: Any) -> WritePipeline:
    options.setdefault('block_size', 1000)
    pipeline = WritePipeline(peers.assembler, b'handle', done=peers.finished.append, **options)
    pipeline.start()
    return pipeline


def refused(peers: Peers, *messages: bytes) -> str:
    peers.reply(*messages)
    assert isinstance(peers.client.failure, ProtocolError)
    return str(peers.client.failure)


# --- the stream


def test_version_comes_first_and_once() -> None:
    assert 'VERSION first, got type 101' in refused(Peers(), encode_status(0, OK))
    peers = Peers()
    peers.greet()
    assert 'an SFTP reply, got type 2' in refused(peers, encode_message(VERSION, 3))


@pytest.mark.parametrize('length', [0, 1, 4, 256 * 1024 + 1025, 1 << 31, 0xFFFFFFFF])
def test_lengths_out_of_range_are_refused_at_once(peers: Peers, length: int) -> None:
    assert f'length of 5 to 263168, got {length}' in refused(peers, struct.pack('>I', length))


def test_the_longest_message_is_taken(peers: Peers) -> None:
    request_id = peers.assembler.next_request_id()
    body = bytes(256 * 1024 + 1024 - 5)
    peers.reply(encode_message(NAME, request_id, body))
    assert peers.replies == [(NAME, request_id, body)]


def test_nothing_is_taken_after_a_broken_message(peers: Peers) -> None:
    request_id = peers.assembler.next_request_id()
    refused(peers, bytes(4))
    peers.client.flow.set_sink(peers.assembler)
    peers.reply(encode_status(request_id, OK))
    assert peers.replies == []


@pytest.mark.parametrize('message_type', [0, 1, 3, 5, 100, 106, 199, 200, 202, 255])
def test_types_that_are_no_replies(peers: Peers, message_type: int) -> None:
    request_id = peers.assembler.next_request_id()
    assert f'an SFTP reply, got type {message_type}' in refused(peers, encode_message(message_type, request_id))


def test_unknown_and_duplicate_request_ids() -> None:
    fresh = Peers()
    fresh.greet()
    assert 'outstanding SFTP request, got request id 77' in refused(fresh, encode_status(77, OK))
    peers = Peers()
    peers.greet()
    request_id = peers.assembler.next_request_id()
    peers.reply(encode_status(request_id, OK))
    assert [reply[:2] for reply in peers.replies] == [(STATUS, request_id)]
    assert f'got request id {request_id}' in refused(peers, encode_status(request_id, OK))


@given(st.lists(st.binary(max_size=700), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_any_split_gives_the_same_messages(bodies: list[bytes], cut: random.Random) -> None:
    peers = Peers()
    peers.greet()
    peers.cut = cut
    stream = b''.join(encode_message(NAME, peers.assembler.next_request_id(), body) for body in bodies)
    size = cut.randrange(1, len(stream) + 1)
    chunks = [stream[at : at + size] for at in range(0, len(stream), size)]
    for chunk in chunks:
        peers.reply(chunk)
    assert peers.replies == list(reference.cut(chunks, 1 << 20))
    assert peers.assembler.outstanding == 0


def test_ids_are_unique_among_many_outstanding(peers: Peers) -> None:
    ids = [peers.assembler.next_request_id() for _ in range(5000)]
    assert len(set(ids)) == peers.assembler.outstanding == 5000
    random.Random(1).shuffle(ids)
    peers.reply(*(encode_status(request_id, OK) for request_id in ids))
    assert [reply[1] for reply in peers.replies] == ids
    assert peers.assembler.outstanding == 0


@given(st.binary(max_size=400))
def test_any_bytes_are_replies_or_refused(stream: bytes) -> None:
    peers = Peers()
    peers.greet()
    pipelines = [reading(peers, 3000), writing(peers, data=bytes(3000))]
    peers.carry()
    for prefix in (b'', reference.data(0, bytes(1000))[:-3], struct.pack('>IBI', 40, STATUS, 3)):
        peers.reply(prefix + stream)
    assert peers.client.failure is None or isinstance(peers.client.failure, ProtocolError)
    peers.client.flow.close()
    assert sorted(map(id, peers.finished)) == sorted(map(id, pipelines))


def test_a_callback_may_close_the_channel(peers: Peers) -> None:
    request_id, other = peers.assembler.next_request_id(), peers.assembler.next_request_id()
    assembler = ReplyAssembler(peers.client.flow, lambda *message: peers.client.flow.close())
    peers.client.flow.set_sink(assembler)
    del assembler
    peers.reply(encode_message(VERSION, 3) + encode_status(request_id, OK) + encode_status(other, OK))
    assert peers.replies == [] and peers.client.failure is None


# --- reading


def test_read_in_order(peers: Peers, target: int) -> None:
    data = random.Random(2).randbytes(10_500)
    pipeline = reading(peers, len(data), fd=target, max_requests=4)
    assert not pipeline.complete
    asked = peers.asked()
    assert [(offset, size) for _, offset, size in asked] == [(0, 1000), (1000, 1000), (2000, 1000), (3000, 1000)]
    sizes = []
    while asked:
        request_id, offset, size = asked.pop(0)
        sizes.append(size)
        peers.reply_data(request_id, data[offset : offset + size])
        asked += peers.asked()
        assert len(asked) <= 4
    assert sizes == [1000] * 10 + [500]
    assert pipeline.complete and pipeline.finished and not pipeline.eof
    assert peers.finished == [pipeline]
    assert content(target) == data
    assert peers.replies == []


def test_many_requests_leave_in_one_message_to_the_channel(peers: Peers) -> None:
    before = peers.client.writer.total_packets
    reading(peers, 400_000, max_requests=400)
    assert len(peers.asked()) == 400
    assert peers.client.writer.total_packets == before + 1


@pytest.mark.parametrize('seed', range(20))
@pytest.mark.parametrize('memory', [False, True])
def test_read_with_short_and_reordered_replies_cut_anywhere(seed: int, memory: bool, target: int) -> None:
    chance = random.Random(seed)
    peers = Peers(packet=chance.choice((50, 1000, 32768)))
    peers.greet()
    peers.cut = chance
    data = chance.randbytes(chance.randrange(1, 20_000))
    unbounded = chance.random() < 0.5
    pipeline = reading(
        peers,
        None if unbounded else len(data),
        fd=-1 if memory else target,
        block_size=chance.choice((700, 4096)),
        max_requests=chance.randrange(1, 9),
    )
    asked = peers.asked()
    while asked:
        chance.shuffle(asked)
        request_id, offset, size = asked.pop()
        block = data[offset : offset + chance.randrange(1, size + 1)]
        if block:
            peers.reply_data(request_id, block)
        else:
            peers.reply_status(request_id, EOF)
        asked += peers.asked()
        assert len(asked) <= pipeline.max_requests
    assert peers.client.failure is None
    assert pipeline.complete and pipeline.eof is unbounded
    assert pipeline.bytes_done == len(data)
    assert (pipeline.take_result() if memory else content(target)) == data
    assert peers.assembler.outstanding == 0


@pytest.mark.parametrize('seed', range(20))
@pytest.mark.parametrize('way', ['cancelled', 'failed', 'lost'])
def test_what_is_whole_of_a_read_that_ends_early(seed: int, way: str, target: int) -> None:
    """Whatever came in whatever order: up to there nothing is missing, and the next byte is."""
    chance = random.Random(seed)
    peers = Peers()
    peers.greet()
    data = bytes(chance.randrange(1, 256) for _ in range(20_000))
    pipeline = reading(peers, len(data), fd=target, max_requests=chance.randrange(2, 9), offset=100)
    asked = peers.asked()

    for _ in range(chance.randrange(15)):
        chance.shuffle(asked)
        request_id, offset, size = asked.pop()
        peers.reply_data(request_id, data[offset - 100 :][: chance.randrange(1, size + 1)])
        asked += peers.asked()

    if way == 'cancelled':
        pipeline.cancel()
    elif way == 'lost':
        peers.client.flow.close()
    else:
        peers.reply_status(asked.pop()[0], FAILURE)

    for request_id, offset, size in asked if way != 'lost' else []:
        peers.reply_data(request_id, data[offset - 100 :][:size])

    whole = pipeline.bytes_whole
    there = os.pread(target, len(data), 100)
    assert pipeline.finished and there[:whole] == data[:whole]
    assert there[whole : whole + 1] in (b'', b'\0')


def test_read_a_range_to_another_place(peers: Peers, target: int) -> None:
    pipeline = reading(peers, 1500, fd=target, offset=5000, fd_offset=2)
    for request_id, offset, size in peers.asked():
        peers.reply_data(request_id, bytes([offset // 1000]) * size)
    assert pipeline.complete
    assert content(target) == b'\0\0' + b'\5' * 1000 + b'\6' * 500


@pytest.mark.parametrize('size', [0, None])
def test_read_of_an_empty_file(peers: Peers, size: int | None) -> None:
    pipeline = reading(peers, size)
    for request_id, _, _ in peers.asked():
        peers.reply_status(request_id, EOF)
    assert pipeline.complete and pipeline.bytes_done == 0 and pipeline.take_result() == b''
    assert peers.finished == [pipeline]


def test_read_of_unknown_size_begins_with_few_requests(peers: Peers) -> None:
    reading(peers, None, max_requests=100)
    asked = peers.asked()
    assert len(asked) == 2
    peers.reply(*(reference.data(request_id, bytes(size)) for request_id, _, size in asked))
    assert len(peers.asked()) == 8


def test_file_shorter_than_said(peers: Peers) -> None:
    pipeline = reading(peers, 5000)
    for request_id, offset, size in reversed(peers.asked()):
        if offset >= 2500:
            peers.reply_status(request_id, EOF)
        else:
            peers.reply_data(request_id, b'x' * min(size, 2500 - offset))
    [(request_id, offset, size)] = peers.asked()
    assert (offset, size) == (2500, 500)
    peers.reply_status(request_id, EOF)
    assert pipeline.finished and pipeline.eof and not pipeline.complete
    assert pipeline.bytes_done == 2500 and pipeline.status is None
    assert pipeline.take_result() == b'x' * 2500


def test_empty_data_counts_as_the_end(peers: Peers) -> None:
    pipeline = reading(peers, 1000)
    [(request_id, _, _)] = peers.asked()
    peers.reply_data(request_id, b'')
    assert pipeline.finished and pipeline.eof and not pipeline.complete and pipeline.bytes_done == 0


def test_first_failure_is_kept_and_the_rest_is_absorbed(peers: Peers, target: int) -> None:
    pipeline = reading(peers, 100_000, fd=target, max_requests=5)
    asked = peers.asked()
    peers.reply_status(asked[3][0], FAILURE, 'disk broke')
    peers.reply_status(asked[1][0], 3, 'second')
    assert peers.asked() == [] and not pipeline.finished
    for request_id, _, size in (asked[0], asked[2], asked[4]):
        peers.reply_data(request_id, bytes(size))
    assert peers.finished == [pipeline] and not pipeline.complete
    assert pipeline.status == (FAILURE, 'disk broke', '') and pipeline.failed_offset == 3000
    assert content(target) == b''
    with pytest.raises(RuntimeError, match='no result'):
        pipeline.take_result()


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda i: reference.data(i, bytes(1001)), 'at most 1000 bytes'),
        (lambda i: reference.message(DATA, i, struct.pack('>I', 900) + bytes(899)), 'with 899 bytes left, got 900'),
        (lambda i: reference.message(DATA, i, struct.pack('>I', 0xFFFFFFFF)), 'got 4294967295'),
        (lambda i: reference.message(DATA, i, b'\0\0\0'), 'length of the SFTP data, got 3'),
        (lambda i: reference.message(HANDLE, i, string(b'h')), 'fits the SFTP request, got type 102'),
        (lambda i: reference.status(i, OK), 'got the status OK'),
        (lambda i: reference.message(STATUS, i, b'\0'), 'Expected a status code'),
    ],
)
def test_replies_that_do_not_fit_a_read(peers: Peers, make: Callable[[int], bytes], words: str) -> None:
    pipeline = reading(peers, 3000)
    [(first, _, _), *_] = peers.asked()
    assert words in refused(peers, make(first))
    assert not pipeline.finished
    peers.client.flow.close()
    assert peers.finished == [pipeline] and pipeline.closed and not pipeline.complete


def test_a_truncated_status_is_a_decode_error(peers: Peers) -> None:
    reading(peers, 10)
    [(request_id, _, _)] = peers.asked()
    refused(peers, reference.message(STATUS, request_id, b'\0\0\0\4\0\0\0\7abc'))
    assert isinstance(peers.client.failure, PacketDecodeError)


def test_a_reply_after_its_data_is_a_duplicate(peers: Peers) -> None:
    reading(peers, 3000)
    [(first, _, _), *_] = peers.asked()
    peers.reply_data(first, bytes(1000))
    assert f'got request id {first}' in refused(peers, reference.data(first, bytes(1000)))


def test_bytes_behind_the_data_are_skipped(peers: Peers) -> None:
    """Later versions put an end-of-file flag there."""
    pipeline = reading(peers, 500)
    [(request_id, _, _)] = peers.asked()
    peers.reply(reference.message(DATA, request_id, string(b'd' * 500) + b'\1'), encode_status(7, OK))
    assert pipeline.complete and pipeline.take_result() == b'd' * 500
    assert 'request id 7' in str(peers.client.failure)


def test_blocks_longer_than_the_message_limit_are_taken_while_asked_for(peers: Peers, target: int) -> None:
    pipeline = reading(peers, 4 * MIB, block_size=4 * MIB, fd=target)
    [(request_id, _, size)] = peers.asked()
    data = random.Random(3).randbytes(size)
    peers.reply_data(request_id, data)
    assert pipeline.complete and content(target) == data
    assert 'length of 5 to 263168' in refused(peers, struct.pack('>I', 4 * MIB + 9))


def test_disk_full_stops_the_read(peers: Peers) -> None:
    fd = os.open('/dev/full', os.O_WRONLY)
    pipeline = reading(peers, 100_000, fd=fd, max_requests=3)
    asked = peers.asked()
    for request_id, _, size in asked:
        peers.reply_data(request_id, bytes(size))
    os.close(fd)
    assert peers.asked() == [] and peers.client.failure is None
    assert peers.finished == [pipeline] and not pipeline.complete
    assert isinstance(pipeline.os_error, OSError) and pipeline.os_error.strerror == 'No space left on device'
    assert pipeline.failed_offset == 0 and pipeline.status is None and pipeline.bytes_done == 0


def test_cancelled_read_drops_what_comes(peers: Peers, target: int) -> None:
    pipeline = reading(peers, 100_000, fd=target, max_requests=3)
    asked = peers.asked()
    peers.reply_data(asked[0][0], b'a' * 1000)
    asked += peers.asked()
    pipeline.cancel()
    pipeline.cancel()
    assert not pipeline.finished
    for request_id, _, size in asked[1:]:
        assert not pipeline.finished
        peers.reply_data(request_id, bytes(size))
    assert peers.finished == [pipeline] and pipeline.cancelled and not pipeline.complete
    assert content(target) == b'a' * 1000
    pipeline.cancel()
    assert peers.finished == [pipeline]


def test_cancel_before_start_and_start_twice(peers: Peers) -> None:
    pipeline = ReadPipeline(peers.assembler, b'h', done=peers.finished.append, size=10, block_size=5)
    pipeline.cancel()
    assert peers.finished == [pipeline]
    with pytest.raises(RuntimeError, match='started once'):
        pipeline.start()


def test_channel_lost_in_the_middle_of_a_block(peers: Peers) -> None:
    first = reading(peers, 5000)
    [(request_id, _, _), *_] = peers.asked()
    second = writing(peers, data=bytes(5000))
    peers.reply(reference.data(request_id, bytes(1000))[:500])
    peers.client.flow.close()
    assert peers.finished == [first, second]
    assert first.closed and second.closed and not first.complete and not second.complete
    assert peers.assembler.closed and peers.assembler.outstanding == 0
    late = reading(peers, 10)
    assert late.closed and peers.finished[-1] is late


def test_progress_is_told_in_steps_and_at_the_end(peers: Peers) -> None:
    told: list[int] = []
    pipeline = reading(peers, 10_400, progress=told.append, progress_step=2500)
    for request_id, _, size in peers.asked():
        peers.reply_data(request_id, bytes(size))
    assert pipeline.complete and told == [3000, 6000, 9000, 10_400]


def test_a_failing_progress_stops_the_transfer(peers: Peers) -> None:
    def fail(done: int) -> None:
        raise ZeroDivisionError(done)

    pipeline = reading(peers, 5000, max_requests=2, progress=fail)
    for request_id, _, size in peers.asked():
        peers.reply_data(request_id, bytes(size))
    assert peers.asked() == []
    assert pipeline.finished and isinstance(pipeline.progress_error, ZeroDivisionError) and not pipeline.complete


def test_memory_grows_beyond_what_is_claimed_at_first(peers: Peers) -> None:
    """A size that nobody can mean claims no memory before data comes."""
    pipeline = reading(peers, 1 << 62, block_size=MIB, max_requests=1)
    for count in range(70):
        [(request_id, offset, size)] = peers.asked()
        assert (offset, size) == (count * MIB, MIB)
        peers.reply_data(request_id, bytes([count]) * MIB)
    [(request_id, _, _)] = peers.asked()
    peers.reply_status(request_id, EOF)
    result = pipeline.take_result()
    assert len(result) == 70 * MIB and result[::MIB] == bytes(range(70))


def test_depth_follows_the_block_size(peers: Peers) -> None:
    for block_size, depth in ((1024, 512), (32768, 512), (261120, 64), (4 * MIB, 16)):
        pipeline = ReadPipeline(peers.assembler, b'h', done=print, size=0, block_size=block_size)
        assert pipeline.max_requests == depth


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'block_size': 0}, 'block_size'),
        ({'block_size': 1 << 27}, 'block_size'),
        ({'max_requests': 0}, 'max_requests'),
        ({'max_requests': 1 << 17}, 'max_requests'),
        ({'size': -1}, 'size'),
        ({'offset': -1}, 'offset'),
        ({'offset': 1 << 63}, 'offset'),
        ({'fd_offset': (1 << 63) - 5}, 'fd_offset'),
    ],
)
def test_arguments_are_checked(peers: Peers, options: dict[str, Any], words: str) -> None:
    defaults: dict[str, Any] = {'done': print, 'size': 10, 'block_size': 10}
    with pytest.raises(ValueError, match=words):
        ReadPipeline(peers.assembler, b'h', **defaults | options)


# --- writing


@pytest.mark.parametrize('from_file', [False, True])
@pytest.mark.parametrize('packet', [100, 32768])
def test_write(from_file: bool, packet: int, target: int) -> None:
    peers = Peers(packet=packet)
    peers.greet()
    data = random.Random(4).randbytes(10_500)
    os.pwrite(target, b'..' + data, 0)
    source: dict[str, Any] = {'fd': target, 'size': len(data), 'fd_offset': 2} if from_file else {'data': data}
    pipeline = writing(peers, offset=7, max_requests=3, **source)
    arrived = bytearray(7 + len(data))
    written = peers.written()
    assert [offset for _, offset, _ in written] == [7, 1007, 2007]
    while written:
        assert not pipeline.finished and len(written) <= 3
        request_id, offset, block = written.pop()
        arrived[offset : offset + len(block)] = block
        peers.reply_status(request_id, OK)
        written += peers.written()
    assert pipeline.complete and peers.finished == [pipeline]
    assert bytes(arrived[7:]) == data and pipeline.bytes_done == len(data)
    assert peers.assembler.outstanding == 0


@pytest.mark.parametrize('data', [b'', bytearray(b'abc'), memoryview(b'abcdef')[1:3]])
def test_write_of_small_buffers(peers: Peers, data: bytes | bytearray | memoryview) -> None:
    pipeline = writing(peers, data=data)
    for request_id, offset, block in peers.written():
        assert offset == 0 and block == bytes(data)
        peers.reply_status(request_id, OK)
    assert pipeline.complete and peers.finished == [pipeline]


@pytest.mark.parametrize('failing', range(6))
def test_every_failed_write_surfaces(peers: Peers, failing: int, target: int) -> None:
    """Whichever block fails, later successes don't mask it, and no new block is sent."""
    os.ftruncate(target, 100_000)
    pipeline = writing(peers, fd=target, size=100_000, max_requests=6)
    written = peers.written()
    for index in range(6):
        peers.reply_status(written[index][0], FAILURE if index == failing else OK, 'no space')
        if index < failing:
            written += peers.written()
    assert peers.written() == [] and len(written) == 6 + failing
    for request_id, _, _ in written[6:]:
        assert not pipeline.finished
        peers.reply_status(request_id, OK)
    assert peers.finished == [pipeline] and not pipeline.complete
    assert pipeline.status == (FAILURE, 'no space', '') and pipeline.failed_offset == failing * 1000


def test_write_of_a_file_that_ends_early(peers: Peers, target: int) -> None:
    os.ftruncate(target, 2500)
    pipeline = writing(peers, fd=target, size=10_000, max_requests=5)
    written = peers.written()
    assert [(offset, len(block)) for _, offset, block in written] == [(0, 1000), (1000, 1000), (2000, 500)]
    for request_id, _, _ in written:
        assert not pipeline.finished
        peers.reply_status(request_id, OK)
    assert pipeline.finished and pipeline.eof and not pipeline.complete
    assert pipeline.bytes_done == 2500 and pipeline.os_error is None and peers.assembler.outstanding == 0


def test_write_of_a_file_that_is_empty_after_all(peers: Peers, target: int) -> None:
    pipeline = writing(peers, fd=target, size=10_000)
    assert peers.written() == []
    assert peers.finished == [pipeline] and pipeline.eof and not pipeline.complete


def test_write_of_an_unreadable_file(peers: Peers, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    pipeline = writing(peers, fd=fd, size=10_000, offset=50)
    assert peers.written() == []
    os.close(fd)
    assert peers.finished == [pipeline] and not pipeline.complete
    assert isinstance(pipeline.os_error, IsADirectoryError) and pipeline.failed_offset == 50
    assert peers.assembler.outstanding == 0


def test_cancelled_write_takes_back_what_was_not_sent(target: int) -> None:
    peers = Peers(window=1500)
    peers.greet()
    os.ftruncate(target, 100_000)
    peers.server.flow.set_sink(None)
    pipeline = writing(peers, fd=target, size=100_000, max_requests=50)
    peers.client.reader.feed(b'')
    chunk = peers.client.writer.take_chunk()
    assert chunk is not None and pipeline.outstanding == 50
    pipeline.cancel()
    os.ftruncate(target, 0)
    assert 1 <= pipeline.outstanding <= 2
    peers.server.reader.feed(chunk)
    written = peers.written()
    assert len(written) == pipeline.outstanding and not pipeline.finished
    for request_id, _, _ in written:
        peers.reply_status(request_id, OK)
    assert peers.finished == [pipeline] and pipeline.cancelled and peers.assembler.outstanding == 0


def test_replies_that_do_not_fit_a_write(peers: Peers) -> None:
    writing(peers, data=bytes(10))
    [(request_id, _, _)] = peers.written()
    assert 'fits the SFTP request, got type 103' in refused(peers, reference.data(request_id, b''))


def test_reply_to_a_write_that_is_not_sent(target: int) -> None:
    peers = Peers(window=1500)
    peers.greet()
    os.ftruncate(target, 100_000)
    pipeline = writing(peers, fd=target, size=100_000, max_requests=50)
    peers.client.writer.take_chunk()
    assert pipeline.outstanding == 50
    assert 'not sent yet' in refused(peers, encode_status(49, OK))


def test_unacknowledged_bytes_are_bounded_unless_the_user_says(peers: Peers, target: int) -> None:
    os.ftruncate(target, 100 * MIB)
    assert writing(peers, fd=target, size=100 * MIB, block_size=4 * MIB).outstanding == 4
    assert writing(peers, fd=target, size=100 * MIB, block_size=4 * MIB, max_requests=10).outstanding == 10


def test_write_needs_one_source(peers: Peers) -> None:
    for options in ({}, {'data': b'', 'fd': 1}, {'fd': 1}, {'data': b'a', 'size': 2}):
        with pytest.raises(ValueError, match=r'data|size'):
            WritePipeline(peers.assembler, b'h', done=print, block_size=1, **options)


def test_pipelines_and_python_share_the_channel(peers: Peers) -> None:
    pipelines: list[Pipeline] = [reading(peers, 3000), writing(peers, data=bytes(3000))]
    mine = peers.assembler.next_request_id()
    peers.client.flow.send(encode_read(mine, b'handle', 0, 1 << 20))
    peers.carry()
    ids = set()
    for kind, request_id, _ in peers.server.messages():
        ids.add(request_id)
        if request_id == mine:
            peers.reply_data(request_id, b'for python')
        elif kind == READ:
            peers.reply_data(request_id, bytes(1000))
        else:
            peers.reply_status(request_id, OK)
    assert len(ids) == 7 and all(pipeline.complete for pipeline in pipelines)
    assert peers.replies == [(DATA, mine, string(b'for python'))]
