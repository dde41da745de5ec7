"""Blocks that are read when they are laid: every size against every packet and window, and what callbacks may do."""

import errno
import gc
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ssh_fast._sftp_codec import ReadPipeline, RequestAssembler, WritePipeline, encode_message, encode_read
from tests.core.sftp_ends import DATA, FAILURE, INIT, READ, STATUS, VERSION, Peers, Served, carry, string

SIZES = [0, 1, 8, 21, 22, 23, 999, 4096, 32755, 32768, 100_000, 261_120]


@pytest.fixture
def content(tmp_path: Path) -> tuple[Path, bytes]:
    data = random.Random(5).randbytes(600_000)
    path = tmp_path / 'file'
    path.write_bytes(data)

    return path, data


@pytest.mark.parametrize('packet', [14, 23, 64, 4099, 32768, 131072])
@pytest.mark.parametrize('window', [300, 5000, 2 << 20])
def test_every_block_arrives_whatever_packets_and_window_are(
    content: tuple[Path, bytes], packet: int, window: int
) -> None:
    path, data = content
    served = Served(packet=packet, window=window)
    served.serve(b'h', path)
    rng = random.Random(packet * window)

    for size in SIZES if packet > 64 else SIZES[:8]:
        offset = rng.randrange(len(data))
        kind, body = served.ask(lambda i, o=offset, s=size: encode_read(i, b'h', o, s))  # type: ignore[misc]

        if size:
            assert (kind, body) == (DATA, string(data[offset : offset + size]))
        else:
            assert kind == STATUS

    assert served.server.flow.queued == served.server.flow.queued_items == 0


def test_a_block_that_the_window_cuts_is_loaded_and_the_rest_waits(content: tuple[Path, bytes]) -> None:
    path, data = content
    served = Served(window=40_000, packet=1000)
    served.serve(b'h', path)

    for number in range(20):
        served.client.flow.send(encode_read(served.assembler.next_request_id(), b'h', number * 7000, 7000))

    served.carry()
    assert [body for _, _, body in served.replies] == [string(data[n * 7000 :][:7000]) for n in range(20)]


def failing_service(
    served: Served, path: Path, on_failure: Callable[[], object]
) -> tuple[RequestAssembler, list[tuple[int, int, bytes]]]:
    """A server's end whose reads all fail, because the file was opened for writing; `on_failure` runs inside each."""

    end = Peers()
    requests: list[tuple[int, int, bytes]] = []

    def status(number: int) -> tuple[int, str]:
        on_failure()
        return FAILURE, errno.errorcode[number]

    service = RequestAssembler(end.server.flow, lambda *message: requests.append(message), status)
    end.server.flow.set_sink(service)
    served.client, served.server, served.replies, served.assembler = end.client, end.server, end.replies, end.assembler
    served.client.flow.send(encode_message(INIT, 3))
    served.carry()
    served.server.flow.send(encode_message(VERSION, 3))
    served.carry()
    assert served.replies.pop()[0] == VERSION
    fd = os.open(path, os.O_WRONLY)
    service.register_file(b'w', fd, True, True)
    os.close(fd)

    return service, requests


def park(served: Served, count: int) -> None:
    """Let reads reach the server, and stay there: its key exchange is under way."""

    served.server.writer.blocked = True

    for number in range(count):
        served.client.flow.send(encode_read(served.assembler.next_request_id(), b'w', number, 10))

    served.carry()


def test_a_failed_read_may_close_the_flow(content: tuple[Path, bytes]) -> None:
    served = Served()
    failing_service(served, content[0], lambda: served.server.flow.close())
    park(served, 50)
    assert served.server.flow.queued_items == 50
    served.server.writer.blocked = False
    served.carry()
    assert served.server.flow.queued == served.server.flow.queued_items == 0
    assert served.replies == []


def test_a_read_that_fails_while_it_is_settled_may_close_the_flow(content: tuple[Path, bytes]) -> None:
    served = Served()
    calls: list[int] = []

    def close() -> None:
        calls.append(1)
        served.server.flow.close()

    service, _ = failing_service(served, content[0], close)
    park(served, 50)
    served.server.flow.send_in_order(b'\x60')
    service.settle_file(b'w')
    assert served.server.flow.queued == served.server.flow.queued_items == 0
    assert calls == [1]


def test_a_failed_read_may_send(content: tuple[Path, bytes]) -> None:
    served = Served()
    sent: list[bytes] = []

    def send() -> None:
        sent.append(encode_message(STATUS, 1000 + len(sent), bytes(12) + bytes(200)))
        served.server.flow.send(sent[-1])

    failing_service(served, content[0], send)
    served.client.flow.set_sink(None)
    park(served, 40)
    served.server.writer.blocked = False
    carry(served.client, served.server)
    kinds = served.client.messages()
    assert len(kinds) == 80
    assert [request_id for _, request_id, _ in kinds if request_id >= 1000] == [1000 + n for n in range(40)]
    assert served.server.flow.queued == 0


def test_settling_keeps_order_and_what_failing_sends(content: tuple[Path, bytes]) -> None:
    served = Served()
    service, _ = failing_service(
        served, content[0], lambda: served.server.flow.send(encode_message(STATUS, 2000, bytes(12)))
    )
    served.client.flow.set_sink(None)
    park(served, 20)
    served.server.flow.send(encode_message(STATUS, 3000, bytes(12)))
    service.settle_file(b'w')
    served.server.writer.blocked = False
    carry(served.client, served.server)
    order = [request_id for _, request_id, _ in served.client.messages()]
    assert len(order) == 41
    assert order[-1] == 3000
    assert order.count(2000) == 20
    assert served.server.flow.queued == 0


def test_settling_survives_a_failure_of_the_failure(content: tuple[Path, bytes]) -> None:
    served = Served()
    failures = iter([KeyError('once')])

    def fail() -> None:
        if (exc := next(failures, None)) is not None:
            raise exc

    service, _ = failing_service(served, content[0], fail)
    served.client.flow.set_sink(None)
    park(served, 20)

    with pytest.raises(KeyError, match='once'):
        service.settle_file(b'w')

    served.server.writer.blocked = False
    carry(served.client, served.server)
    assert len(served.client.messages()) == 19
    assert served.server.flow.queued == served.server.flow.queued_items == 0


def test_a_key_exchange_that_a_callback_begins_stops_the_laying_at_once(content: tuple[Path, bytes]) -> None:
    served = Served()

    def begin() -> None:
        served.server.writer.blocked = True

    failing_service(served, content[0], begin)
    park(served, 30)
    served.server.writer.blocked = False
    before = served.server.writer.total_packets
    served.server.writer.take_chunk()
    assert served.server.writer.total_packets == before
    assert served.server.flow.queued_items == 30


# --- taking blocks back


def test_a_message_behind_dropped_blocks_is_sent_at_once(content: tuple[Path, bytes]) -> None:
    """The window is used up, so nothing but the dropping itself can let the message go."""
    peers = Peers(window=1000)
    peers.greet()
    done: list[WritePipeline] = []
    peers.server.data_received = lambda data, datatype: None  # type: ignore[method-assign]
    fd = os.open(content[0], os.O_RDONLY)
    pipeline = WritePipeline(
        peers.assembler, b'h', done=done.append, fd=fd, size=100_000, block_size=4000, max_requests=8
    )
    pipeline.start()
    peers.carry()
    assert peers.client.flow.send_window == 0
    kept = peers.client.flow.queued_items
    seen: list[bytes] = []
    peers.server.packet_received = lambda payload, sequence: seen.append(payload)  # type: ignore[method-assign]
    peers.client.flow.send_in_order(b'\x60eof')
    peers.carry()
    assert seen == []

    pipeline.cancel()
    # What had begun is still owed to the peer: it is in memory, in front of the message.
    assert peers.client.flow.queued_items < kept
    peers.server.flow.credit(1000)
    peers.carry()
    while peers.client.flow.queued:
        peers.server.flow.credit(1000)
        peers.carry()
    assert seen == [b'\x60eof']
    os.close(fd)


def test_a_message_alone_behind_dropped_blocks_needs_no_adjust(content: tuple[Path, bytes]) -> None:
    peers = Peers(window=100)
    peers.greet()
    peers.server.data_received = lambda data, datatype: None  # type: ignore[method-assign]
    seen: list[bytes] = []
    peers.server.packet_received = lambda payload, sequence: seen.append(payload)  # type: ignore[method-assign]
    peers.client.flow.send(bytes(100))
    peers.carry()
    assert peers.client.flow.send_window == 0
    fd = os.open(content[0], os.O_RDONLY)
    pipeline = WritePipeline(peers.assembler, b'h', done=lambda p: None, fd=fd, size=1000, block_size=100)
    pipeline.start()
    peers.client.flow.send_in_order(b'\x60eof')
    peers.carry()
    assert (peers.client.flow.queued_items, seen) == (11, [])

    pipeline.cancel()
    peers.carry()
    assert seen == [b'\x60eof']
    assert pipeline.finished
    os.close(fd)


def test_a_paused_sender_goes_on_when_the_blocks_it_waited_for_are_dropped(content: tuple[Path, bytes]) -> None:
    peers = Peers(window=100)
    peers.greet()
    calls: list[str] = []
    peers.client.sending_paused = lambda: calls.append('paused')  # type: ignore[method-assign]
    peers.client.sending_resumed = lambda: calls.append('resumed')  # type: ignore[method-assign]
    peers.client.writer.blocked = True
    fd = os.open(content[0], os.O_RDONLY)
    pipeline = WritePipeline(peers.assembler, b'h', done=lambda p: None, fd=fd, size=300_000, block_size=30_000)
    pipeline.start()
    peers.client.flow.send(b'x')
    assert calls == ['paused']
    pipeline.cancel()
    assert calls == ['paused', 'resumed']
    os.close(fd)


# --- results


@pytest.mark.parametrize('end', ['cancel', 'close'])
def test_an_interrupted_read_into_memory_has_no_result(end: str) -> None:
    peers = Peers()
    peers.greet()
    pipeline = ReadPipeline(
        peers.assembler, b'h', done=peers.finished.append, size=None, block_size=1000, max_requests=4
    )
    pipeline.start()
    (first, offset, wanted), (second, _, _) = peers.asked()
    assert (offset, wanted) == (0, 1000)

    # The end of the file is known, the data before it never came.
    peers.reply_status(second, 1)

    if end == 'cancel':
        pipeline.cancel()
        peers.reply_data(first, bytes(1000))
    else:
        peers.client.flow.close()

    assert peers.finished == [pipeline]

    with pytest.raises(RuntimeError, match='no result'):
        pipeline.take_result()


def test_reads_after_a_close_are_not_answered(content: tuple[Path, bytes]) -> None:
    served = Served()
    served.serve(b'h', content[0])
    served.server.flow.close()
    served.client.flow.send(encode_read(served.assembler.next_request_id(), b'h', 0, 10))
    served.carry()
    assert served.replies == []
    assert served.requests == [] or served.requests[0][0] != READ


def test_every_reference_is_given_back(content: tuple[Path, bytes]) -> None:
    """Sent, taken back, or dropped with the flow: data, messages and blocks."""
    data, message = bytes(70_000), bytes([96]) * 9
    before = sys.getrefcount(data), sys.getrefcount(message)

    for end in ('send', 'close', 'cancel'):
        peers = Peers(window=100_000)
        peers.greet()
        peers.server.data_received = lambda data, datatype: None  # type: ignore[method-assign]
        peers.server.packet_received = lambda payload, sequence: None  # type: ignore[method-assign]
        fd = os.open(content[0], os.O_RDONLY)
        handle = bytes([104]) * 40
        handles = sys.getrefcount(handle)
        pipeline = WritePipeline(peers.assembler, handle, done=lambda p: None, fd=fd, size=50_000, block_size=7000)
        pipeline.start()
        peers.client.flow.send(data)
        peers.client.flow.send(memoryview(data)[1:])
        peers.client.flow.send_in_order(message)

        if end == 'send':
            peers.carry()
            peers.server.flow.credit(100_000)
            peers.carry()
        elif end == 'close':
            peers.client.flow.close()
        elif end == 'cancel':
            pipeline.cancel()
            peers.client.flow.close()

        os.close(fd)
        # Clears what the assembler, the flow and their end hold of each other.
        peers.client.flow.close()
        del peers, pipeline
        gc.collect()
        assert (sys.getrefcount(data), sys.getrefcount(message)) == before, end
        assert sys.getrefcount(handle) == handles, end
