"""Channel data from one end to the other, compiled against plain Python: `pytest benchmarks/bench_flow.py`.

Each round sends 1 MiB over a channel whose windows are 256 KiB: cut into packets of 1 or 32 KiB, sealed, opened,
counted against the window, delivered, and credited by WINDOW_ADJUST.
"""

from collections import deque
from typing import Any

import pytest

from ssh_fast._cipher import new_opening_cipher, new_sealing_cipher
from ssh_fast.constants import MSG_CHANNEL_DATA, MSG_CHANNEL_WINDOW_ADJUST
from tests.core.sftp_ends import End, join
from tests.reference.cipher import new_reference_cipher
from tests.reference.packet import PacketReceiver, PacketSender
from tests.reference.suites import SUITES, Suite

DATA = bytes(1 << 20)
WINDOW = 256 * 1024
# Those of bench_sftp, and one that conceals the length.
CHOSEN = [
    suite
    for suite in SUITES
    if not suite.mac or (suite.name == b'aes256-ctr' and suite.mac.startswith(b'hmac-sha2-256'))
]


class CompiledPair:
    """Both ends of a channel of the compiled core."""

    def __init__(self, suite: Suite | None, max_packet: int) -> None:
        self.sender, self.receiver = End(WINDOW), End(WINDOW)
        join(self.sender, self.receiver, max_packet, WINDOW)

        if suite:
            for one, other, seed in ((self.sender, self.receiver, b'a'), (self.receiver, self.sender, b'b')):
                one.writer.set_cipher(new_sealing_cipher(*suite.keys(seed)), True)
                other.reader.set_cipher(new_opening_cipher(*suite.keys(seed)), True)

    def send(self, data: bytes) -> int:
        self.sender.flow.send(data)
        moved = True

        while moved:
            moved = False

            for one, other in ((self.sender, self.receiver), (self.receiver, self.sender)):
                while (chunk := one.writer.take_chunk()) is not None:
                    moved = True
                    other.reader.feed(chunk)

        received = len(self.receiver.received)
        self.receiver.received.clear()

        return received


class ReferenceEnd:
    """One end of a channel by RFC 4254 section 5.2, over the reference's packets."""

    def __init__(self, max_packet: int) -> None:
        self.max_packet = max_packet
        self.sender, self.receiver = PacketSender(), PacketReceiver()
        self.wire: deque[bytes] = deque()
        self.waiting = memoryview(b'')
        self.send_window = self.receive_window = WINDOW
        self.taken = 0
        self.received = bytearray()

    def fill(self) -> None:
        while self.waiting and self.send_window:
            size = min(len(self.waiting), self.send_window, self.max_packet)
            head = bytes([MSG_CHANNEL_DATA]) + bytes(4) + size.to_bytes(4, 'big')
            self.wire.append(self.sender.send(head + self.waiting[:size]))
            self.send_window -= size
            self.waiting = self.waiting[size:]

    def feed(self, packet: bytes) -> None:
        self.receiver.feed(packet)

        for payload in self.receiver.payloads():
            if payload[0] == MSG_CHANNEL_WINDOW_ADJUST:
                self.send_window += int.from_bytes(payload[5:9], 'big')
                continue

            size = int.from_bytes(payload[5:9], 'big')
            assert size == len(payload) - 9 and size <= self.receive_window
            self.received += payload[9:]
            self.receive_window -= size
            self.taken += size

            if self.taken >= WINDOW // 2:
                credit = self.taken.to_bytes(4, 'big')
                self.wire.append(self.sender.send(bytes([MSG_CHANNEL_WINDOW_ADJUST]) + bytes(4) + credit))
                self.receive_window += self.taken
                self.taken = 0


class ReferencePair:
    """Both ends of a channel in plain Python."""

    def __init__(self, suite: Suite | None, max_packet: int) -> None:
        self.sender, self.receiver = ReferenceEnd(max_packet), ReferenceEnd(max_packet)

        if suite:
            for one, other, seed in ((self.sender, self.receiver, b'a'), (self.receiver, self.sender, b'b')):
                one.sender.set_cipher(new_reference_cipher(*suite.keys(seed)))
                other.receiver.set_cipher(new_reference_cipher(*suite.keys(seed)))

    def send(self, data: bytes) -> int:
        self.sender.waiting = memoryview(data)
        moved = True

        while moved:
            moved = False
            self.sender.fill()

            for one, other in ((self.sender, self.receiver), (self.receiver, self.sender)):
                while one.wire:
                    moved = True
                    other.feed(one.wire.popleft())

        received = len(self.receiver.received)
        self.receiver.received.clear()

        return received


@pytest.mark.parametrize('kind', ['compiled', 'reference'])
@pytest.mark.parametrize('packet', [1024, 32768])
@pytest.mark.parametrize('suite', [None, *CHOSEN], ids=lambda suite: str(suite or 'none'))
def test_send(benchmark: Any, suite: Suite | None, packet: int, kind: str) -> None:
    pair = (CompiledPair if kind == 'compiled' else ReferencePair)(suite, packet)
    benchmark.group = f'1 MiB over a channel in packets of {packet} bytes: {suite or "no cipher"}'

    assert benchmark(pair.send, DATA) == len(DATA)
