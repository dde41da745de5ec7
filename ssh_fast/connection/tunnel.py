"""Connections inside of connections: the transport of one is a channel of another.

What arrives is copied once, from the channel's data into the inner connection's buffer, and what is sent once, from its
chunk; no stream stands in between. Back pressure passes through in both directions.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from ..channel.session import SSHTCPSession
from ..forwarding.listeners import SSHListener

ConnectionT = TypeVar('ConnectionT', bound=asyncio.BufferedProtocol)


class Opener(Protocol):
    """A connection that can open a channel to a host and port: what a connection is tunnelled through."""

    async def create_connection(
        self, session_factory: Callable[[], Any], remote_host: str, remote_port: int
    ) -> tuple[Any, Any]:
        """Open a channel to a host and port; return it and its session."""

    def close(self) -> None:
        """Close the connection."""


class Listener(Protocol):
    """A connection whose server can listen on a port for us."""

    async def create_server(
        self, session_factory: Callable[[str, int], Any], listen_host: str, listen_port: int
    ) -> SSHListener:
        """Have the server listen on a port, and make a session for each connection."""

    def close(self) -> None:
        """Close the connection."""


class TunnelTransport(asyncio.Transport, SSHTCPSession[bytes]):
    """A channel's session, and the transport of the connection inside."""

    def __init__(self, protocol: asyncio.BufferedProtocol, ended: Callable[[], object] | None) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.BufferedProtocol = protocol
        self._ended = ended
        self._chan: Any = None
        self._closing = False
        self._lost = False

    # --- the channel's calls

    def connection_made(self, chan: Any) -> None:
        """Take the channel."""

        self._chan = chan

    def session_started(self) -> None:
        """Begin the connection inside."""

        self._protocol.connection_made(self)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Hand data on to the connection inside."""

        rest = memoryview(data)

        while rest and not self._lost:
            buffer = memoryview(self._protocol.get_buffer(len(rest))).cast('B')
            size = min(len(buffer), len(rest))
            buffer[:size] = rest[:size]
            rest = rest[size:]
            buffer.release()
            self._protocol.buffer_updated(size)

    def eof_received(self) -> bool:
        """Tell the connection inside."""

        if not self._lost:
            self._protocol.eof_received()

        return True

    def pause_writing(self) -> None:
        """Have the connection inside seal nothing more."""

        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Let the connection inside go on."""

        if not self._lost:
            self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the connection inside that the one around it, or its channel, is gone."""

        self._closing = True

        if not self._lost:
            self._lost = True
            self._loop.call_soon(self._protocol.connection_lost, exc)

        if self._ended:
            self._ended()

    # --- what a transport does

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Look up what is known of the channel; there is no socket and no address of its own."""

        if name in ('socket', 'peername', 'sockname', 'pipe'):
            return default

        return self._chan.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Tell whether this transport is closing or closed."""

        return self._closing

    def close(self) -> None:
        """Close the channel behind what was written."""

        if not self._closing:
            self._closing = True
            self._chan.close()

    def abort(self) -> None:
        """Close the channel at once."""

        self._closing = True
        self._chan.abort()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Go on with another connection inside."""

        self._protocol = cast(asyncio.BufferedProtocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the connection inside."""

        return self._protocol

    def is_reading(self) -> bool:
        """Tell whether data is handed on."""

        return not self._closing

    def pause_reading(self) -> None:
        """Take no more data from the channel."""

        if not self._lost:
            self._chan.pause_reading()

    def resume_reading(self) -> None:
        """Take data from the channel again."""

        if not self._lost:
            self._chan.resume_reading()

    def write(self, data: Any) -> None:
        """Send data behind what was written before."""

        if data and not self._closing:
            self._chan.write(bytes(data))

    def write_eof(self) -> None:
        """Send the end of the data."""

        self._chan.write_eof()

    def can_write_eof(self) -> bool:
        """Tell that the two directions end apart."""

        return True

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait."""

        return int(self._chan.get_write_buffer_size())

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Keep the channel's limits: so much waits unsealed, and never in a socket."""


class TunnelServer:
    """A port that the server of a connection listens on; the connections that come there are inside of that one.

    If the outer connection is `owned`, it is closed when nothing is listened on and the last one inside has ended.
    """

    def __init__(self, outer: Listener, owned: bool) -> None:
        self._outer = outer
        self._owned = owned
        self._listener: SSHListener | None = None
        self._closed = False
        self._inside = 0
        self.address = '', 0

    async def start(self, factory: Callable[[], asyncio.BufferedProtocol], host: str, port: int) -> None:
        """Begin to listen; `factory` makes the protocol of each connection.

        Raises:
          ChannelListenError: the server refused
        """

        def make_session(orig_host: str, orig_port: int) -> TunnelTransport:
            transport = TunnelTransport(factory(), self._one_ended)
            self._inside += 1

            return transport

        self._listener = await self._outer.create_server(make_session, host, port)
        self.address = host, self._listener.get_port()

    def _one_ended(self) -> None:
        self._inside -= 1
        self._close_outer()

    def _close_outer(self) -> None:
        if self._owned and self._closed and not self._inside:
            self._outer.close()

    def close(self) -> None:
        """Listen no more; the connections that there are go on."""

        if self._listener:
            self._listener.close()

        if not self._closed:
            self._closed = True
            self._close_outer()

    async def wait_closed(self) -> None:
        """Wait until the server listens no more."""

        if self._listener:
            await self._listener.wait_closed()


async def listen_through(
    factory: Callable[[], asyncio.BufferedProtocol], outer: Listener, host: str, port: int, *, owned: bool
) -> TunnelServer:
    """Have the server of `outer` listen on a port; `factory` makes the protocol of each connection to it.

    Raises:
      ChannelListenError: the server refused
      ValueError: `outer` is no connection that can do that
    """

    if not hasattr(outer, 'create_server'):
        raise ValueError(f'tunnel: expected a connection whose server can listen, got {type(outer).__name__}')

    server = TunnelServer(outer, owned)
    await server.start(factory, host, port)

    return server


async def dial_through(
    factory: Callable[[], ConnectionT], outer: Opener, host: str, port: int, *, owned: bool
) -> ConnectionT:
    """Open a channel to a host and port, and return the protocol that `factory` makes for it.

    If the outer connection is `owned`, it is closed with the one inside.

    Raises:
      ChannelOpenError: the outer connection's server does not connect there
    """

    protocol = factory()
    transport = TunnelTransport(protocol, outer.close if owned else None)
    await outer.create_connection(lambda: transport, host, port)

    return protocol
