"""What joins a channel with a connected socket: bytes, ends and back pressure are passed on in both directions.

Memory is bounded: while the socket takes no data the channel's reading pauses, and at most its receive window waits;
while the peer takes none, the socket is not read. What has come is written however long that takes, also when the
channel has ended: see `Lingering`.
"""

import asyncio
import socket
from typing import Any, Self, cast

from ..channel.channel import SSHChannel
from ..channel.session import SSHTCPSession, SSHUNIXSession
from .lingering import Lingering


class SSHForwarder(SSHTCPSession[bytes], SSHUNIXSession[bytes]):
    """The session of a channel that leads to a socket."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        to_socket: bytes = b'',
        to_channel: bytes = b'',
        lingering: Lingering | None = None,
    ) -> None:
        if lingering is None:
            lingering = Lingering(loop)
            lingering.end()

        self._loop = loop
        self._lingering = lingering
        self._to_socket = to_socket      # what goes first, once the channel is open
        self._to_channel = to_channel
        self._end = _SocketEnd(self)
        self._chan: SSHChannel[bytes] | None = None
        self._started = False
        self._lost = False
        self._ended = False          # the channel's data has ended
        self._socket_ended = False
        self._socket_lost = False
        self.local_port = 0          # of the socket, if it is one of TCP

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    async def attach(self, sock: socket.socket) -> None:
        """Take a connected socket; it is read from when the channel is open, and closed with it.

        Raises:
          OSError: the socket is gone already
        """

        try:
            name = sock.getsockname()
            self.local_port = name[1] if isinstance(name, tuple) else 0
            await self._loop.create_connection(lambda: self._end, sock=sock)
        except BaseException:
            sock.close()
            raise

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Look up what is known of the socket, or else of the channel."""

        found = self._end.get_extra_info(name)

        if found is None and self._chan:
            return self._chan.get_extra_info(name, default)

        return default if found is None else found

    def refuse(self, reply: bytes) -> None:
        """Tell the socket's other end that there is no channel, and close it."""

        self._end.write(reply)
        self._let_go()

    def close(self) -> None:
        """Drop the socket, and close the channel if there is one."""

        self._end.abort()

        if self._chan:
            self._chan.abort()

    # --- the channel's calls

    def connection_made(self, chan: Any) -> None:
        """Take the channel."""

        self._chan = chan

    def session_started(self) -> None:
        """Begin to read the socket."""

        assert self._chan is not None

        self._started = True
        self._end.write(self._to_socket)
        self.socket_received(self._to_channel)

        if self._socket_ended:
            self._chan.write_eof()

        if self._socket_lost:
            self._chan.close()

        self._end.resume_reading()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Pass data on to the socket."""

        self._end.write(data)

    def eof_received(self) -> bool:
        """Pass the end of the data on to the socket; what it still gives goes on."""

        self._ended = True
        self._end.write_eof()
        self._finish()

        return True

    def pause_writing(self) -> None:
        """Read the socket no more: the peer takes no data."""

        self._end.pause_reading()

    def resume_writing(self) -> None:
        """Read the socket again."""

        self._end.resume_reading()

    def peer_closed(self) -> None:
        """Take note that the peer has closed the channel, whose data the socket has yet to take."""

        if not self._socket_lost:
            self._lingering.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the socket go: at once if the channel failed before its data had ended, else when it has taken that."""

        self._lost = True

        if exc and not self._ended:
            self._end.abort()
        else:
            self._let_go()

    # --- the socket's calls

    def socket_received(self, data: bytes) -> None:
        """Pass data on to the channel; keep what uvloop has read before there is one, although it was told not to."""

        if not self._started:
            self._to_channel += data
            self._end.pause_reading()
        elif data and self._chan and not self._chan.is_closing():
            self._chan.write(data)

    def socket_paused(self, paused: bool) -> None:
        """Take no more from the channel while the socket is full."""

        if self._chan and not self._lost:
            if paused:
                self._chan.pause_reading()
            else:
                self._chan.resume_reading()

    def socket_ended(self) -> None:
        """Pass the end of the socket's data on."""

        if self._socket_ended:
            return

        self._socket_ended = True

        if self._started and self._chan and not self._chan.is_closing():
            self._chan.write_eof()

        self._finish()

    def socket_lost(self, exc: Exception | None) -> None:
        """Close the channel: the socket was reset, or has nothing more to give or to take."""

        self._socket_lost = True
        self._lingering.discard(self)

        if self._started and self._chan and not self._lost:
            if exc:
                self._chan.abort()
            else:
                self._chan.close()

    def _let_go(self) -> None:
        self._end.close()

        if self._end.holds_data:
            self._lingering.add(self)

    def _finish(self) -> None:
        if self._ended and self._socket_ended and self._chan:
            self._chan.close()


class _SocketEnd(asyncio.Protocol):
    """The protocol of the socket."""

    def __init__(self, forwarder: SSHForwarder) -> None:
        self._forwarder = forwarder
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info('socket')

        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        self._transport.pause_reading()

    def get_extra_info(self, name: str) -> Any:
        return self._transport.get_extra_info(name) if self._transport else None

    def resume_reading(self) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.resume_reading()

    def pause_reading(self) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.pause_reading()

    def write(self, data: bytes) -> None:
        if data and self._transport and not self._transport.is_closing():
            self._transport.write(data)

    def write_eof(self) -> None:
        if self._transport and not self._transport.is_closing():
            try:
                self._transport.write_eof()
            except OSError:
                # It was reset, which nobody noticed as nobody was reading it.
                self._transport.abort()

    @property
    def holds_data(self) -> bool:
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    def abort(self) -> None:
        if self._transport:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._forwarder.socket_received(data)

    def eof_received(self) -> bool:
        self._forwarder.socket_ended()

        return True

    def pause_writing(self) -> None:
        self._forwarder.socket_paused(True)

    def resume_writing(self) -> None:
        self._forwarder.socket_paused(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._forwarder.socket_lost(exc)
