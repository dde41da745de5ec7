"""Forwarding that both roles share: sockets of our own whose connections become channels, and channels made sockets."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from typing import Any, AnyStr

from ..channel.channel import DEFAULT_MAX_PACKET, DEFAULT_WINDOW
from ..channel.forward_channel import SSHTCPChannel, SSHUNIXChannel
from ..channel.mux import Mux
from ..channel.session import SSHTCPSession, SSHUNIXSession
from ..channel.tuntap_channel import SSHTunTapChannel
from ..constants import OPEN_CONNECT_FAILED
from ..errors import ChannelOpenError
from ..forwarding.forwarder import SSHForwarder
from ..forwarding.lingering import Lingering
from ..forwarding.listeners import SocketListener, listen_path, listen_tcp
from ..forwarding.targets import connect_path, connect_tcp
from ..logging import printable
from ..process.stream_session import SSHStreamSession
from ..process.streams import SSHReader, SSHWriter

SSHAcceptHandler = Callable[[str, int], bool | Awaitable[bool]]
SSHSocketSessionFactory = Callable[[SSHReader[Any], SSHWriter[Any]], Awaitable[None] | None]

# Opens a channel for a connection that came from a host and port, with a forwarder as its session.
Opener = Callable[[SSHForwarder, str, int], Awaitable[Any]]


class TCPStreamSession(SSHStreamSession[AnyStr], SSHTCPSession[AnyStr]):
    """The session of a TCP channel that is used as streams."""


class UNIXStreamSession(SSHStreamSession[AnyStr], SSHUNIXSession[AnyStr]):
    """The session of a UNIX domain channel that is used as streams."""


class Forwarding:
    """What a connection forwards: its own listeners, which end with it, and the channels it makes."""

    window = DEFAULT_WINDOW
    max_pktsize = DEFAULT_MAX_PACKET
    peer_version = ''     # what the peer's version is called in the connection's extra info

    def __init__(self, mux: Mux, loop: asyncio.AbstractEventLoop, max_window: int) -> None:
        self._mux = mux
        self._loop = loop
        self._max_window = max_window
        self._listeners: list[SocketListener] = []
        self._lingering = Lingering(loop)
        self._closed = False

    def tcp_channel(
        self, encoding: str | None, errors: str, window: int, max_pktsize: int
    ) -> SSHTCPChannel[Any]:
        """Make a channel for a TCP connection."""

        return SSHTCPChannel(self._mux, self._loop, encoding, errors, window, max_pktsize, self._max_window)

    def unix_channel(
        self, encoding: str | None, errors: str, window: int, max_pktsize: int
    ) -> SSHUNIXChannel[Any]:
        """Make a channel for a UNIX domain connection."""

        return SSHUNIXChannel(self._mux, self._loop, encoding, errors, window, max_pktsize, self._max_window)

    def tuntap_channel(self, window: int, max_pktsize: int) -> SSHTunTapChannel:
        """Make a channel for a tunnel of layer 2 or 3."""

        version: str = self._mux.host.get_extra_info(self.peer_version, '')

        return SSHTunTapChannel(self._mux, self._loop, window, max_pktsize, self._max_window, version)

    def close(self) -> None:
        """Listen on nothing any more: the connection has ended."""

        self._closed = True

        self._lingering.end()

        for listener in self._listeners:
            listener.abandon()

    # --- sockets that become channels

    async def listen_tcp(
        self, host: str | None, port: int, opener: Opener, accept_handler: SSHAcceptHandler | None = None
    ) -> SocketListener:
        """Listen on a port, and open a channel for each connection that `accept_handler` does not refuse.

        The host may be '' for every address, or None for those that only this machine reaches.

        Raises:
          ChannelListenError: it cannot be listened on
        """

        return self._keep(await listen_tcp(host, port, self._acceptor(opener, accept_handler)))

    def listen_path(self, path: str, opener: Opener) -> SocketListener:
        """Listen on a UNIX domain socket, and open a channel for each connection.

        Raises:
          ChannelListenError: it cannot be listened on
        """

        return self._keep(listen_path(path, self._acceptor(opener, None)))

    def listen_sockets(
        self, sockets: Sequence[socket.socket], opener: Opener, accept_handler: SSHAcceptHandler
    ) -> SocketListener:
        """Take sockets that are listened on, and open a channel for each connection that `accept_handler` lets in.

        Raises:
          ChannelOpenError: the connection is closed
        """

        return self._keep(SocketListener(sockets, self._acceptor(opener, accept_handler)))

    def _keep(self, listener: SocketListener) -> SocketListener:
        if self._closed:
            listener.abandon()
            raise ChannelOpenError(OPEN_CONNECT_FAILED, 'The connection is closed')

        self._listeners = [kept for kept in self._listeners if kept.is_open]
        self._listeners.append(listener)

        return listener

    def _acceptor(
        self, opener: Opener, accept_handler: SSHAcceptHandler | None
    ) -> Callable[[socket.socket, str, int], Awaitable[None]]:
        async def accept(sock: socket.socket, host: str, port: int) -> None:
            if accept_handler:
                allowed = accept_handler(host, port)

                if not (await allowed if isawaitable(allowed) else allowed):
                    sock.close()
                    return

            forwarder = SSHForwarder(self._loop, lingering=self._lingering)
            await forwarder.attach(sock)

            try:
                await opener(forwarder, host, port)
            except BaseException:
                forwarder.close()
                raise

        return accept

    # --- channels that become sockets

    async def connect_tcp(self, host: str, port: int) -> SSHForwarder:
        """Connect to a port, and return the session for the channel that leads there.

        Raises:
          ChannelOpenError: nobody answers there
        """

        return await self._forward(connect_tcp(host, port), f'{host} port {port}')

    async def connect_path(self, path: str) -> SSHForwarder:
        """Connect to a UNIX domain socket, and return the session for the channel that leads there.

        Raises:
          ChannelOpenError: nobody listens there
        """

        return await self._forward(connect_path(path), path)

    async def _forward(self, connecting: Awaitable[socket.socket], where: str) -> SSHForwarder:
        forwarder = SSHForwarder(self._loop, lingering=self._lingering)

        try:
            await forwarder.attach(await connecting)
        except (OSError, TimeoutError) as exc:
            reason = f'Cannot connect to {printable(where)}: {getattr(exc, "strerror", None) or exc}'
            raise ChannelOpenError(OPEN_CONNECT_FAILED, reason) from exc

        return forwarder
