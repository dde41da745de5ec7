"""How much must have arrived before a connection that receives in bulk is woken.

A peer that seals 32 KiB at a time wakes a reader that keeps up with it for nearly each packet, which then spends its
time on wake-ups. While much arrives, the kernel is asked to wake us for larger pieces (SO_RCVLOWAT). What is held back
so is never waited for long: when nothing more has come for some milliseconds we take what there is, and a connection
whose peer had stopped to wait for us is left alone for longer and longer.
"""

import array
import asyncio
import socket
import sys
from typing import Protocol

if sys.platform == 'linux':
    from fcntl import ioctl
    from termios import FIONREAD

# Looked at again after so many bytes.
_LOOK_EVERY = 4 * 1024 * 1024

# More bytes than any connection counts.
_NEVER = 1 << 64

# Slower peers than this, in bytes a second, may wake us as often as they like: the processor is idle anyway.
_MIN_RATE = 64_000_000

# Pieces are what arrives in this time, in seconds, within these bounds in bytes.
_PIECE_TIME = 0.001
_MIN_PIECE = 64 * 1024
_MAX_PIECE = 512 * 1024

# Pieces are no more than this part of what one set of keys may take: whether new keys are due is seen once a piece.
_PART_OF_REKEY = 32

# Whether anything is held back is looked at every so many seconds; what does not grow from one look to the next is
# released, and so is what grows for this many looks without being a whole piece.
_TICK = 0.002
_MOST_TICKS = 5

# How long a connection is left alone, in seconds, after data was held back for nothing: at first, and at most.
_FIRST_REST = 0.1
_LONGEST_REST = 5.0


class ByteCounter(Protocol):
    """What is asked of a reader."""

    @property
    def total_bytes(self) -> int:
        """Bytes that were received and opened so far."""


class ReadPacing:
    """Sets SO_RCVLOWAT of one TCP socket; does nothing where the system has no such thing."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, reader: ByteCounter, sock: socket.socket | None, rekey_bytes: int
    ) -> None:
        self._most = min(_MAX_PIECE, rekey_bytes // _PART_OF_REKEY)
        self._loop = loop
        self._reader = reader
        self._sock = sock
        self._piece = 0
        self._timer: asyncio.TimerHandle | None = None
        self._rest = _FIRST_REST
        self._not_before = 0.0
        self._looked_at = loop.time()
        self._looked_bytes = 0
        self._ticked_bytes = 0
        self._held = 0
        self._held_ticks = 0
        #: When the reader has counted so many bytes, `look` is to be called.
        self.look_at = _LOOK_EVERY if _can_hold_back(sock) and self._most >= _MIN_PIECE else _NEVER

    def look(self, now: float) -> None:
        """Take the measure of what came since the last time, at a time of the event loop."""

        total = self._reader.total_bytes
        seconds = max(now - self._looked_at, 1e-6)
        rate = (total - self._looked_bytes) / seconds
        self._looked_at = now
        self._looked_bytes = total
        self.look_at = total + _LOOK_EVERY

        if rate < _MIN_RATE or now < self._not_before:
            return

        self._hold_back(int(min(max(rate * _PIECE_TIME, _MIN_PIECE), self._most)))

        if self._timer:
            self._rest = max(self._rest / 2, _FIRST_REST)
        else:
            self._tick_later(total)

    def stop(self) -> None:
        """Hold nothing back any more."""

        if self._timer:
            self._timer.cancel()
            self._timer = None
            self._hold_back(1)

    def _tick_later(self, total: int) -> None:
        self._ticked_bytes = total
        self._held = self._held_ticks = 0
        self._timer = self._loop.call_later(_TICK, self._tick)

    def _tick(self) -> None:
        total = self._reader.total_bytes

        if total != self._ticked_bytes:
            self._tick_later(total)
            return

        waiting = self._waiting()
        stopped = waiting == self._held
        self._held = waiting
        self._held_ticks += 1

        if waiting and not stopped and self._held_ticks < _MOST_TICKS:
            self._timer = self._loop.call_later(_TICK, self._tick)
            return

        self._timer = None
        self._hold_back(1)

        if waiting and stopped:
            self._not_before = self._loop.time() + self._rest
            self._rest = min(self._rest * 2, _LONGEST_REST)

    def _hold_back(self, piece: int) -> None:
        if piece != self._piece and self._sock and self._sock.fileno() >= 0:
            self._piece = piece
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, piece)

    def _waiting(self) -> int:
        """Return how many bytes the kernel keeps for us."""

        count = array.array('i', [0])

        if self._sock and self._sock.fileno() >= 0:
            ioctl(self._sock.fileno(), FIONREAD, count)

        return count[0]


def _can_hold_back(sock: socket.socket | None) -> bool:
    return sys.platform == 'linux' and sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6)
