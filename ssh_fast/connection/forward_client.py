"""A client's forwarding: channels to where the server leads, and ports and paths of the server that lead to us."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from inspect import isawaitable
from typing import Any

from ..channel.forward_channel import SSHForwardChannel, decode_path, decode_tcp
from ..channel.mux import Mux
from ..constants import OPEN_ADMINISTRATIVELY_PROHIBITED, OPEN_CONNECT_FAILED
from ..errors import ChannelListenError, ChannelOpenError, PacketDecodeError
from ..forwarding.forwarder import SSHForwarder
from ..forwarding.listeners import PeerListener, SocketListener, listen_tcp
from ..forwarding.socks import SocksError, SocksRequest
from ..forwarding.tuntap import TunTapForwarder, open_device
from ..logging import printable
from ..wire import Cursor, encode_string, encode_uint32
from .forwarding import Forwarding

TCPIP_FORWARD = b'tcpip-forward'
CANCEL_TCPIP_FORWARD = b'cancel-tcpip-forward'
STREAMLOCAL_FORWARD = b'streamlocal-forward@openssh.com'
CANCEL_STREAMLOCAL_FORWARD = b'cancel-streamlocal-forward@openssh.com'

_SOCKS_TIMEOUT = 30.0    # seconds for a whole request
_SOCKS_READ = 4096       # bytes at a time

PasswordValidator = Callable[[str, str], bool | Awaitable[bool]]

# Makes the channel and the session of a connection that came to the server from a host and port.
Taker = Callable[[str, int], Awaitable[SSHForwardChannel[Any]]]


class ClientForwarding(Forwarding):
    """What a client forwards."""

    peer_version = 'server_version'

    def __init__(self, mux: Mux, loop: asyncio.AbstractEventLoop, max_window: int) -> None:
        super().__init__(mux, loop, max_window)

        self._takers: dict[tuple[str, int] | str, Taker] = {}

    def opener_tcp(self, host: str, port: int) -> Callable[[SSHForwarder, str, int], Awaitable[Any]]:
        """Return what opens a channel to a port for a connection of ours."""

        def open_channel(forwarder: SSHForwarder, orig_host: str, orig_port: int) -> Awaitable[Any]:
            chan = self.tcp_channel(None, 'strict', self.window, self.max_pktsize)

            return chan.connect(lambda: forwarder, host, port, orig_host, orig_port)

        return open_channel

    def opener_path(self, path: str) -> Callable[[SSHForwarder, str, int], Awaitable[Any]]:
        """Return what opens a channel to a UNIX domain socket for a connection of ours."""

        def open_channel(forwarder: SSHForwarder, orig_host: str, orig_port: int) -> Awaitable[Any]:
            return self.unix_channel(None, 'strict', self.window, self.max_pktsize).connect(lambda: forwarder, path)

        return open_channel

    async def listen_socks(
        self, host: str, port: int, validate_password: PasswordValidator | None = None
    ) -> SocketListener:
        """Listen on a port for clients of SOCKS, and have the server connect to where they want.

        Raises:
          ChannelListenError: it cannot be listened on
        """

        return self._keep(await listen_tcp(host, port, partial(self._accept_socks, validate_password)))

    async def _accept_socks(
        self, validate_password: PasswordValidator | None, sock: socket.socket, orig_host: str, orig_port: int
    ) -> None:
        request = SocksRequest(needs_password=validate_password is not None)

        try:
            async with asyncio.timeout(_SOCKS_TIMEOUT):
                while request.target is None:
                    data = await self._loop.sock_recv(sock, _SOCKS_READ)

                    if not data:
                        raise SocksError('Expected a whole request')

                    await self._loop.sock_sendall(sock, request.feed(data))

                    if request.credentials and validate_password:
                        right = validate_password(*request.credentials)
                        reply = request.judge((await right if isawaitable(right) else right) is True)
                        await self._loop.sock_sendall(sock, reply)
        except SocksError as exc:
            with suppress(OSError):
                sock.send(exc.reply)

            raise

        forwarder = SSHForwarder(self._loop, request.granted(), request.rest, self._lingering)
        await forwarder.attach(sock)

        try:
            await self.opener_tcp(*request.target)(forwarder, orig_host, orig_port)
        except Exception:
            forwarder.refuse(request.failed())
            raise
        except BaseException:
            forwarder.close()
            raise

    async def forward_tuntap(self, mode: int, local_unit: int | None, remote_unit: int | None) -> TunTapForwarder:
        """Join a tunnel device of ours with one of the server.

        Raises:
          OSError: the device here cannot be opened
          ChannelOpenError: the server refused
        """

        forwarder = TunTapForwarder(self._loop, *open_device(mode, local_unit))

        try:
            await self.tuntap_channel(self.window, self.max_pktsize).connect(lambda: forwarder, mode, remote_unit)
        except BaseException:
            forwarder.close()
            raise

        return forwarder

    # --- ports and paths of the server

    async def listen_port(self, host: str, port: int, taker: Taker) -> PeerListener:
        """Have the server listen on a port, and give its connections to `taker`.

        Raises:
          ChannelListenError: the server refused
        """

        if not 0 <= port <= 65535:
            raise ValueError(f'listen_port must be between 0 and 65535, got {port}')

        def opened(reply: bytes) -> PeerListener:
            actual = port

            if not port:
                cursor = Cursor(reply)
                actual = cursor.uint32()
                cursor.check_end()

                if not 0 < actual <= 65535:
                    raise PacketDecodeError(f'Expected the port that the server listens on, got {actual}')

            fields = encode_string(host), encode_uint32(actual)

            return self._add((host, actual), actual, taker, CANCEL_TCPIP_FORWARD, *fields)

        where = f'{host or "*"} port {port}'

        return await self._request(where, opened, TCPIP_FORWARD, encode_string(host), encode_uint32(port))

    async def listen_remote_path(self, path: str, taker: Taker) -> PeerListener:
        """Have the server listen on a UNIX domain socket, and give its connections to `taker`.

        Raises:
          ChannelListenError: the server refused
        """

        def opened(reply: bytes) -> PeerListener:
            return self._add(path, 0, taker, CANCEL_STREAMLOCAL_FORWARD, encode_string(path))

        return await self._request(path, opened, STREAMLOCAL_FORWARD, encode_string(path))

    def _add(
        self, place: tuple[str, int] | str, port: int, taker: Taker, cancel_name: bytes, *fields: bytes
    ) -> PeerListener:
        self._takers[place] = taker

        def cancel() -> Awaitable[Any] | None:
            # Another listener may have the place by now.
            if self._takers.get(place) is not taker:
                return None

            del self._takers[place]

            if self._closed:
                return None

            future: asyncio.Future[None] = self._loop.create_future()
            self._mux.send_global_request(
                cancel_name,
                *fields,
                answer=lambda success, reply: _settle(future),
                failed=lambda exc: _settle(future),
            )

            return future

        return PeerListener(port, cancel)

    async def _request(
        self, where: str, opened: Callable[[bytes], PeerListener], name: bytes, *fields: bytes
    ) -> PeerListener:
        """Ask the server to listen; what it answers is acted on at once, as connections may be right behind it."""

        future: asyncio.Future[PeerListener] = self._loop.create_future()

        def answered(success: bool, reply: bytes) -> None:
            if not success:
                failed(ChannelListenError(f'The server does not listen on {where}'))
                return

            try:
                listener = opened(reply)
            except PacketDecodeError as exc:
                failed(exc)
                return

            if future.done():
                # Whoever wanted it has been cancelled.
                listener.close()
            else:
                future.set_result(listener)

        def failed(exc: Exception) -> None:
            if not future.done():
                future.set_exception(exc)

        self._mux.send_global_request(name, *fields, answer=answered, failed=failed)

        return await future

    # --- connections that came to the server

    def take_tcp(self, cursor: Cursor) -> Awaitable[SSHForwardChannel[Any]]:
        """Take a connection to a port that was asked for.

        Raises:
          ChannelOpenError: it was not
        """

        self._check_asked()
        host, port, orig_host, orig_port = decode_tcp(cursor)
        taker = self._takers.get((host, port)) or self._only_taker(port)

        if not taker:
            raise ChannelOpenError(OPEN_CONNECT_FAILED, f'Nothing listens on {printable(host)} port {port}')

        return taker(orig_host, orig_port)

    def _check_asked(self) -> None:
        if not self._takers:
            raise ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, 'No forwarding was asked for')

    def _only_taker(self, port: int) -> Taker | None:
        # Servers may name the address in another way than it was asked for.
        takers = [taker for place, taker in self._takers.items() if isinstance(place, tuple) and place[1] == port]

        return takers[0] if len(takers) == 1 else None

    def take_unix(self, cursor: Cursor) -> Awaitable[SSHForwardChannel[Any]]:
        """Take a connection to a UNIX domain socket that was asked for.

        Raises:
          ChannelOpenError: it was not
        """

        self._check_asked()
        path = decode_path(cursor, reserved_port=False)
        taker = self._takers.get(path)

        if not taker:
            raise ChannelOpenError(OPEN_CONNECT_FAILED, f'Nothing listens on {printable(path)}')

        return taker('', 0)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
