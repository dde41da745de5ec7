"""A long link on one machine: python -m benchmarks.link_relay PORT SECONDS RATE

Prints its port, whose connections lead to PORT of 127.0.0.1. Whatever it carries arrives SECONDS later, in each
direction, and no faster than RATE bytes a second. Where the kernel has no netem, this stands in for it: the round trip
and the rate are those of the link, TCP's slow start and losses are not there. It works until its standard input ends.
"""

import socket
import sys
import threading
import time
from collections import deque

_PIECE = 128 * 1024
_BACKLOG = 128


class Direction:
    """One direction of a connection: two threads, and between them what is on its way."""

    def __init__(self, source: socket.socket, target: socket.socket, delay: float, rate: float) -> None:
        self._source = source
        self._target = target
        self._delay = delay
        self._rate = rate
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._size = 0
        # What a link holds, and a router's queue of a quarter of that.
        self._most = int(rate * delay * 1.25) + _PIECE
        self._changed = threading.Condition()

    def start(self) -> None:
        """Begin to carry."""

        for work in (self._receive, self._send):
            threading.Thread(target=work, daemon=True).start()

    def _receive(self) -> None:
        free_at = 0.0
        data = b' '

        while data:
            with self._changed:
                self._changed.wait_for(lambda: self._size < self._most)

            try:
                data = self._source.recv(_PIECE)
            except OSError:
                data = b''

            free_at = max(free_at, time.monotonic()) + len(data) / self._rate

            with self._changed:
                self._under_way.append((free_at + self._delay, data))
                self._size += len(data)
                self._changed.notify_all()

    def _send(self) -> None:
        data = b' '

        while data:
            with self._changed:
                self._changed.wait_for(lambda: self._under_way)
                due, data = self._under_way.popleft()

            time.sleep(max(0.0, due - time.monotonic()))

            with self._changed:
                self._size -= len(data)
                self._changed.notify_all()

            try:
                if data:
                    self._target.sendall(data)
                else:
                    self._target.shutdown(socket.SHUT_WR)
            except OSError:
                return


def accept(listener: socket.socket, port: int, delay: float, rate: float) -> None:
    """Carry each connection that comes."""

    while True:
        near, _ = listener.accept()
        far = socket.create_connection(('127.0.0.1', port))

        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        Direction(near, far, delay, rate).start()
        Direction(far, near, delay, rate).start()


def main(port: int, delay: float, rate: float) -> None:
    """Listen, and carry until the standard input ends."""

    with socket.create_server(('127.0.0.1', 0), backlog=_BACKLOG) as listener:
        print(listener.getsockname()[1], flush=True)
        threading.Thread(target=accept, args=(listener, port, delay, rate), daemon=True).start()
        sys.stdin.read()


if __name__ == '__main__':
    main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
