"""What joins a channel with a socket, with sockets of the system and channels that are none."""

import asyncio
import socket
import struct
from typing import Any

from ssh_fast.forwarding.forwarder import SSHForwarder
from tests.connection.test_forwarding import settled


class Channel:
    """Counts what a forwarder asks of its channel."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def is_closing(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.calls.append(name)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(('127.0.0.1', 0)) as server:
        near = socket.create_connection(server.getsockname())
        return near, server.accept()[0]


async def test_the_end_of_data_for_a_socket_that_was_reset_unnoticed() -> None:
    """Nobody reads the socket while its channel is full, so that nobody sees the reset."""
    near, far = tcp_pair()
    near.setblocking(False)
    forwarder, chan = SSHForwarder(asyncio.get_running_loop()), Channel()
    await forwarder.attach(near)
    forwarder.connection_made(chan)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    far.close()
    assert forwarder.eof_received() is True
    await settled(lambda: bool(chan.calls))
    assert chan.calls == ['close']
    assert near.fileno() == -1
