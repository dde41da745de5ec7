"""Two ends of one channel joined in memory, and scripted SFTP peers on them."""

import errno
import os
import random
import struct
from collections.abc import Callable

from ssh_fast._flow import ChannelFlow
from ssh_fast._packet import PacketReader, PacketWriter
from ssh_fast._sftp_codec import (
    Pipeline,
    ReplyAssembler,
    RequestAssembler,
    encode_message,
    encode_status,
    encode_string_message,
)

WINDOW = 2 * 1024 * 1024
MAX_PACKET = 128 * 1024

INIT, VERSION, OPEN, CLOSE, READ, WRITE, STAT = 1, 2, 3, 4, 5, 6, 17
STATUS, HANDLE, DATA, NAME = 101, 102, 103, 104
OK, EOF, FAILURE, BAD_MESSAGE = 0, 1, 4, 5


class End:
    """One end: a reader, a writer and a flow, without encryption; what no sink takes is in `received`."""

    def __init__(self, window: int = WINDOW) -> None:
        self.received = bytearray()
        self.failure: Exception | None = None
        self.reader = PacketReader(self)
        self.reader.identified = self.reader.express = True
        self.writer = PacketWriter(lambda: None)
        self.flow = ChannelFlow(self.reader, self.writer, 0, self, window, window, MAX_PACKET)
        self.reader.add_flow(self.flow)

    def line_received(self, line: bytes) -> None:
        raise AssertionError(line)

    def packet_received(self, payload: bytes, sequence: int) -> None:
        raise AssertionError(payload)

    def data_received(self, data: bytes, datatype: int) -> None:
        self.received += data
        self.flow.credit(len(data))

    def sending_paused(self) -> None:
        pass

    def sending_resumed(self) -> None:
        pass

    def sink_failed(self, exc: Exception) -> None:
        self.failure = exc

    def messages(self) -> list[tuple[int, int, bytes]]:
        """Take the whole messages received: type, request id and body."""
        found = []
        while len(self.received) >= 4 and len(self.received) >= 4 + (size := int.from_bytes(self.received[:4], 'big')):
            message = bytes(self.received[4 : 4 + size])
            del self.received[: 4 + size]
            found.append((message[0], int.from_bytes(message[1:5], 'big'), message[5:]))
        return found


def join(one: End, other: End, packet: int = MAX_PACKET, window: int = WINDOW) -> None:
    """Open the flows of both ends to each other, each with packets of at most `packet` bytes."""
    one.flow.open(0, window, packet)
    other.flow.open(0, window, packet)


def carry(one: End, other: End, cut: random.Random | None = None) -> int:
    """Carry what both ends have to say until both are silent; with `cut` in pieces of random size."""
    carried = 0
    moved = True
    while moved:
        moved = False
        for sender, receiver in ((one, other), (other, one)):
            chunk = sender.writer.take_chunk()
            if chunk is None:
                continue
            moved = True
            data = bytes(chunk)
            carried += len(data)
            while cut is not None and data:
                size = cut.choice((1, 2, 3, 7, 100, 5000, len(data)))
                receiver.reader.feed(data[:size])
                data = data[size:]
            receiver.reader.feed(data)
    return carried


def status_for_errno(number: int) -> tuple[int, str]:
    return FAILURE, errno.errorcode[number]


def string(value: bytes) -> bytes:
    return struct.pack('>I', len(value)) + value


class Peers:
    """A client's end with its assembler, and what Python was given there."""

    def __init__(self, *, packet: int = MAX_PACKET, window: int = WINDOW, max_message: int = 256 * 1024 + 1024) -> None:
        self.client, self.server = End(window), End(window)
        join(self.client, self.server, packet, window)
        self.replies: list[tuple[int, int, bytes]] = []
        self.requests: list[tuple[int, int, bytes]] = []
        self.finished: list[Pipeline] = []
        self.assembler = ReplyAssembler(self.client.flow, lambda *message: self.replies.append(message), max_message)
        self.client.flow.set_sink(self.assembler)
        self.cut: random.Random | None = None

    def carry(self) -> int:
        return carry(self.client, self.server, self.cut)

    def greet(self) -> None:
        """Let the VERSION come from a scripted server."""
        self.server.flow.send(encode_message(VERSION, 3))
        self.carry()
        assert self.replies.pop() == (VERSION, 3, b'')

    def reply(self, *messages: bytes) -> None:
        for message in messages:
            self.server.flow.send(message)
        self.carry()

    def reply_data(self, request_id: int, data: bytes) -> None:
        self.reply(encode_string_message(DATA, request_id, data))

    def reply_status(self, request_id: int, code: int, message: str = '') -> None:
        self.reply(encode_status(request_id, code, message))

    def asked(self) -> list[tuple[int, int, int]]:
        """Take the READ requests that came: request id, offset, size."""
        self.carry()
        found = []
        for kind, request_id, body in self.server.messages():
            assert kind == READ
            size = int.from_bytes(body[:4], 'big')
            offset, wanted = struct.unpack('>QI', body[4 + size :])
            found.append((request_id, offset, wanted))
        return found

    def written(self) -> list[tuple[int, int, bytes]]:
        """Take the WRITE requests that came: request id, offset, data."""
        self.carry()
        found = []
        for kind, request_id, body in self.server.messages():
            assert kind == WRITE
            size = int.from_bytes(body[:4], 'big')
            offset, length = struct.unpack_from('>QI', body, 4 + size)
            assert len(body) == 4 + size + 12 + length
            found.append((request_id, offset, body[16 + size :]))
        return found


class Served(Peers):
    """A client's end and a real server's end; requests that reach Python are in `requests`."""

    def __init__(self, max_read: int = 261120, max_message: int = 256 * 1024 + 1024, **options: int) -> None:
        super().__init__(max_message=max_message, **options)
        self.service = RequestAssembler(
            self.server.flow,
            lambda *message: self.requests.append(message),
            status_for_errno,
            max_message=max_message,
            max_read=max_read,
        )
        self.server.flow.set_sink(self.service)
        self.client.flow.send(encode_message(INIT, 3))
        self.carry()
        assert self.requests.pop() == (INIT, 3, b'')
        self.greet()

    def serve(self, handle: bytes, path: os.PathLike[str] | str, flags: int = os.O_RDWR, append: bool = False) -> None:
        fd = os.open(path, flags)
        try:
            self.service.register_file(handle, fd, flags != os.O_WRONLY, flags != os.O_RDONLY, append)
        finally:
            os.close(fd)

    def ask(self, encode: Callable[[int], bytes]) -> tuple[int, bytes]:
        """Send one request by Python and take its reply: type and body."""
        request_id = self.assembler.next_request_id()
        self.client.flow.send(encode(request_id))
        self.carry()
        kind, answered, body = self.replies.pop()
        assert answered == request_id
        return kind, body


