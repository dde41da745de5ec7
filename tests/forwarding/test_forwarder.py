"""What joins a channel with a socket, with sockets of the system and channels that are none."""

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ssh_fast.forwarding.forwarder import SSHForwarder
from tests.connection.test_forwarding import settled


class Channel:
    """Counts what a forwarder asks of its channel."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.written = b''

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.written += data

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.calls.append(name)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(('127.0.0.1', 0)) as server:
        near = socket.create_connection(server.getsockname())
        return near, server.accept()[0]


async def the_end_of_data_for_a_socket_that_was_reset_unnoticed() -> None:
    """Nobody reads the socket while its channel is full, so that nobody sees the reset."""
    near, far = tcp_pair()
    near.setblocking(False)
    forwarder, chan = SSHForwarder(asyncio.get_running_loop()), Channel()
    await forwarder.attach(near)
    forwarder.connection_made(chan)
    forwarder.session_started()
    forwarder.pause_writing()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    far.close()
    assert forwarder.eof_received() is True
    await settled(lambda: bool(chan.calls))
    assert chan.calls in (['close'], ['abort'])
    assert near.fileno() == -1


async def what_comes_before_there_is_a_channel_waits_for_it() -> None:
    """Under uvloop a socket is read although it was told not to be."""
    near, far = tcp_pair()
    near.setblocking(False)
    forwarder, chan = SSHForwarder(asyncio.get_running_loop(), b'', b'first, '), Channel()
    await forwarder.attach(near)
    far.sendall(b'then')
    far.close()
    await asyncio.sleep(0.1)
    forwarder.connection_made(chan)
    assert chan.written == b'' and chan.calls == []
    forwarder.session_started()
    await settled(lambda: 'write_eof' in chan.calls)
    assert chan.written == b'first, then'
    forwarder.close()


async def a_socket_that_is_gone_before_there_is_a_channel_closes_it() -> None:
    forwarder, chan = SSHForwarder(asyncio.get_running_loop()), Channel()
    near, far = tcp_pair()
    near.setblocking(False)
    await forwarder.attach(near)
    forwarder.socket_lost(ConnectionResetError())
    forwarder.connection_made(chan)
    assert chan.calls == []
    forwarder.session_started()
    assert chan.calls == ['close']
    forwarder.close()
    far.close()


async def all_that_came_is_written_although_the_channel_fails_afterwards() -> None:
    received, data = await what_is_received(ended=True)
    assert received == data


async def a_channel_that_fails_before_its_data_has_ended_lets_the_socket_go_at_once() -> None:
    received, data = await what_is_received(ended=False)
    assert len(received) < len(data) and data.startswith(received)


async def what_is_received(ended: bool) -> tuple[bytes, bytes]:
    """Write more than the system holds, have the channel fail, and read what there is; return both."""
    loop, (near, far) = asyncio.get_running_loop(), tcp_pair()
    near.setblocking(False)
    far.setblocking(False)
    forwarder, data, received = SSHForwarder(loop), bytes(range(256)) * (1 << 17), b''
    await forwarder.attach(near)
    forwarder.connection_made(Channel())
    forwarder.session_started()
    forwarder.data_received(data, None)
    if ended:
        forwarder.eof_received()
    forwarder.connection_lost(ConnectionResetError())
    await asyncio.sleep(0.05)
    while piece := await loop.sock_recv(far, 1 << 20):
        received += piece
    far.close()
    return received, data


@pytest.mark.parametrize('loop', ['asyncio', 'uvloop'])
@pytest.mark.parametrize(
    'scenario',
    [
        the_end_of_data_for_a_socket_that_was_reset_unnoticed,
        what_comes_before_there_is_a_channel_waits_for_it,
        a_socket_that_is_gone_before_there_is_a_channel_closes_it,
        all_that_came_is_written_although_the_channel_fails_afterwards,
        a_channel_that_fails_before_its_data_has_ended_lets_the_socket_go_at_once,
    ],
)
def test_on_each_loop(loop: str, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run: Any = asyncio.run if loop == 'asyncio' else pytest.importorskip('uvloop').run
    run(scenario())
