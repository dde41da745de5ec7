"""A server's forwarding: what a client may connect to and listen on through us, and what its requests become.

Every kind is asked of the options and the login's permissions first, then of the application's `SSHServer`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

from ..channel.forward_channel import SSHForwardChannel, decode_path, decode_tcp
from ..channel.mux import Mux
from ..channel.session import SSHSession
from ..channel.tuntap_channel import ETHERNET, POINT_TO_POINT, decode_tun
from ..constants import OPEN_ADMINISTRATIVELY_PROHIBITED, OPEN_CONNECT_FAILED
from ..errors import ChannelListenError, ChannelOpenError, DisconnectError
from ..forwarding.bridge import make_bridge
from ..forwarding.forwarder import SSHForwarder
from ..forwarding.listeners import SSHListener
from ..forwarding.tuntap import TunTapForwarder, open_device
from ..keys.permissions import Permissions
from ..logging import ContextLogger
from ..process.packet_session import PacketStreamSession
from ..process.streams import SSHReader, SSHWriter
from ..wire import Cursor, encode_uint32
from .callbacks import SSHServer
from .connection import SSHConnection
from .forward_client import CANCEL_STREAMLOCAL_FORWARD, CANCEL_TCPIP_FORWARD, STREAMLOCAL_FORWARD, TCPIP_FORWARD
from .forwarding import Forwarding, TCPStreamSession, UNIXStreamSession

# Ports and paths that one client may have us listen on at a time.
MAX_LISTENERS = 256

# What the option calls the tunnels of a mode
_TUNNELS = {POINT_TO_POINT: 'point-to-point', ETHERNET: 'ethernet'}

REQUESTS = frozenset({TCPIP_FORWARD, CANCEL_TCPIP_FORWARD, STREAMLOCAL_FORWARD, CANCEL_STREAMLOCAL_FORWARD})


class ServerForwarding(Forwarding):
    """What a server forwards for its client."""

    peer_version = 'client_version'

    def __init__(
        self,
        mux: Mux,
        loop: asyncio.AbstractEventLoop,
        max_window: int,
        owner: SSHServer,
        permissions: Permissions,
        directions: tuple[str, str, str],
        gateway_ports: str,
        create_task: Callable[[Any], object],
        logger: ContextLogger,
    ) -> None:
        super().__init__(mux, loop, max_window)

        self._owner = owner
        self._permissions = permissions
        self._tcp, self._unix, self._tunnel = directions
        self._gateway_ports = gateway_ports
        self._create_task = create_task
        self._logger = logger
        self._serving: dict[tuple[str, int] | str, SSHListener | None] = {}

    def close(self) -> None:
        """Listen on nothing any more, the application's listeners included: the connection has ended."""

        super().close()

        for listener in self._serving.values():
            if listener:
                listener.close()

        self._serving.clear()

    # --- connections that the client opens through us

    async def open_tcp(self, cursor: Cursor) -> SSHForwardChannel[Any]:
        """Answer a client that wants to connect to a port.

        Raises:
          ChannelOpenError: it must not, or nobody answers there
        """

        host, port, orig_host, orig_port = decode_tcp(cursor)

        if not self._may_connect(host, port):
            raise ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, f'Port {port} of that host is not permitted')

        answer = await _value(self._owner.connection_requested(host, port, orig_host, orig_port))
        chan, answer = self._channel(answer, self.tcp_channel)
        chan.note_ends(host, port, orig_host, orig_port)

        if answer is True:
            answer = await self.connect_tcp(host, port)
        elif isinstance(answer, SSHConnection):
            answer = await _join('create_connection', answer, host, port, orig_host, orig_port)

        return self._serve(chan, answer, TCPStreamSession)

    async def open_unix(self, cursor: Cursor) -> SSHForwardChannel[Any]:
        """Answer a client that wants to connect to a UNIX domain socket.

        Raises:
          ChannelOpenError: it must not, or nobody listens there
        """

        path = decode_path(cursor, reserved_port=True)

        if not self._may_connect(path):
            raise ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, 'Connections to UNIX sockets are not permitted')

        answer = await _value(self._owner.unix_connection_requested(path))
        chan, answer = self._channel(answer, self.unix_channel)
        chan.note_path(path)

        if answer is True:
            answer = await self.connect_path(path)
        elif isinstance(answer, SSHConnection):
            answer = await _join('create_unix_connection', answer, path)

        return self._serve(chan, answer, UNIXStreamSession)

    def _may_connect(self, where: str, port: int | None = None) -> bool:
        if port is None:
            return self._unix in ('yes', 'local') and self._permissions.may_connect_path(where)

        return self._tcp in ('yes', 'local') and self._permissions.may_connect(where, port)

    def _channel(self, answer: Any, make: Callable[..., Any]) -> tuple[Any, Any]:
        """Take an answer apart: a channel and what it is for, or only the latter."""

        if isinstance(answer, tuple):
            return answer

        return make(None, 'strict', self.window, self.max_pktsize), answer

    def _serve(
        self, chan: SSHForwardChannel[Any], answer: Any, make_streams: Callable[[], Any]
    ) -> SSHForwardChannel[Any]:
        if not answer:
            raise ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, 'Connection refused')

        if isinstance(answer, SSHSession):
            chan.set_session(answer)
        elif callable(answer):
            chan.set_session(handler_session(make_streams, answer, self._create_task))
        else:
            raise TypeError(f'Expected True, a session, a handler or False, got {type(answer).__name__}')

        return chan

    # --- tunnels of layer 2 and 3

    async def open_tuntap(self, cursor: Cursor) -> SSHForwardChannel[Any]:
        """Answer a client that wants a tunnel.

        Raises:
          ChannelOpenError: it must not have one, or the device cannot be opened
        """

        mode, unit = decode_tun(cursor)

        if self._tunnel not in ('yes', _TUNNELS[mode]) or not self._permissions.may_tunnel(unit):
            raise ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, 'This tunnel is not permitted')

        if unit is None and isinstance(self._permissions.tunnel, int):
            unit = self._permissions.tunnel

        asked = self._owner.tap_requested if mode == ETHERNET else self._owner.tun_requested
        answer = await _value(asked(unit))
        chan, answer = answer if isinstance(answer, tuple) else (None, answer)
        chan = chan or self.tuntap_channel(self.window, self.max_pktsize)
        chan.set_mode(mode)

        if answer is True:
            answer = self._open_device(mode, unit)
        elif isinstance(answer, SSHConnection):
            answer = await _join('create_tap' if mode == ETHERNET else 'create_tun', answer, unit)

        return self._serve(chan, answer, PacketStreamSession)

    def _open_device(self, mode: int, unit: int | None) -> TunTapForwarder:
        try:
            return TunTapForwarder(self._loop, *open_device(mode, unit))
        except OSError as exc:
            self._logger.info('A tunnel device cannot be opened: %s', exc)
            raise ChannelOpenError(OPEN_CONNECT_FAILED, 'The tunnel device cannot be opened') from exc

    # --- ports and paths that the client has us listen on

    def request(self, name: bytes, cursor: Cursor) -> bool | bytes | Awaitable[bool | bytes]:
        """Answer one of `REQUESTS`."""

        text = cursor.string()
        port = cursor.uint32() if name in (TCPIP_FORWARD, CANCEL_TCPIP_FORWARD) else None
        cursor.check_end()

        try:
            where = text.decode()
        except UnicodeDecodeError:
            return False

        if not where.isprintable():
            return False

        place = where if port is None else (where, port)

        if name in (TCPIP_FORWARD, STREAMLOCAL_FORWARD):
            return self._listen(place)

        return self._cancel(place)

    def _cancel(self, place: tuple[str, int] | str) -> bool:
        listener = self._serving.get(place)

        if listener is None:
            return False

        del self._serving[place]
        listener.close()

        return True

    async def _listen(self, place: tuple[str, int] | str) -> bool | bytes:
        if place in self._serving or len(self._serving) >= MAX_LISTENERS or not self._may_listen(place):
            return False

        self._serving[place] = None
        listener: Any = None

        try:
            listener = await self._make_listener(place)
        except (ChannelListenError, ChannelOpenError, DisconnectError, OSError) as exc:
            self._logger.info('Nothing is listened on for the client: %s', exc)
        finally:
            if not listener:
                self._serving.pop(place, None)

        if not listener:
            return False

        if self._closed:
            listener.close()
            return False

        if isinstance(place, str) or place[1]:
            self._serving[place] = listener
            return True

        del self._serving[place]
        port = listener.get_port()
        self._serving[place[0], port] = listener

        return encode_uint32(port)

    def _may_listen(self, place: tuple[str, int] | str) -> bool:
        if isinstance(place, str):
            return self._unix in ('yes', 'remote') and self._permissions.may_listen_path(place)

        host, port = place

        return port <= 65535 and self._tcp in ('yes', 'remote') and self._permissions.may_listen(host, port)

    async def _make_listener(self, place: tuple[str, int] | str) -> SSHListener | None:
        """Return what listens for the client: a listener of the application's, or one as its answer has it."""

        if isinstance(place, str):
            answer = await _value(self._owner.unix_server_requested(place))

            if answer is True:
                return self.listen_path(place, self.opener_path(place))

            if isinstance(answer, SSHConnection):
                return await self._listen_path_through(answer, place)
        else:
            answer = await _value(self._owner.server_requested(*place))

            if isinstance(answer, SSHConnection):
                return await self._listen_port_through(answer, *place)

            if answer is True or callable(answer):
                host, port = place
                accept_handler = None if answer is True else answer

                return await self.listen_tcp(
                    bind_host(host, self._gateway_ports), port, self.opener_tcp(host), accept_handler
                )

        if answer and not isinstance(answer, SSHListener):
            raise TypeError(f'Expected True, a listener, a connection or False, got {type(answer).__name__}')

        return answer or None

    async def _listen_port_through(self, conn: Any, host: str, port: int) -> SSHListener:
        """Have the server of another connection listen on a port, and hand what comes there to our client."""

        opened: asyncio.Future[int] = self._loop.create_future()

        async def take(orig_host: str, orig_port: int) -> SSHSession[Any]:
            first, second = make_bridge()
            chan = self.tcp_channel(None, 'strict', self.window, self.max_pktsize)
            await _reached(chan.accept(lambda: second, host, await opened, orig_host, orig_port))

            return first

        try:
            listener: SSHListener = await conn.create_server(take, host, port)
        except BaseException:
            opened.set_exception(ChannelOpenError(OPEN_CONNECT_FAILED, 'Nothing is listened on any more'))
            opened.exception()
            raise

        # The client is told of the port before it is told of a connection to it.
        self._loop.call_soon(opened.set_result, listener.get_port())

        return listener

    async def _listen_path_through(self, conn: Any, path: str) -> SSHListener:
        """Have the server of another connection listen on a path, and hand what comes there to our client."""

        async def take() -> SSHSession[Any]:
            first, second = make_bridge()
            chan = self.unix_channel(None, 'strict', self.window, self.max_pktsize)
            await _reached(chan.accept(lambda: second, path))

            return first

        listener: SSHListener = await conn.create_unix_server(take, path)

        return listener

    def opener_tcp(self, host: str, port: int = 0) -> Callable[[SSHForwarder, str, int], Awaitable[Any]]:
        """Return what hands the client a connection of ours as one to a host and port, by default the real one."""

        def open_channel(forwarder: SSHForwarder, orig_host: str, orig_port: int) -> Awaitable[Any]:
            chan = self.tcp_channel(None, 'strict', self.window, self.max_pktsize)

            return chan.accept(lambda: forwarder, host, port or forwarder.local_port, orig_host, orig_port)

        return open_channel

    def opener_path(self, path: str) -> Callable[[SSHForwarder, str, int], Awaitable[Any]]:
        """Return what hands the client a connection of ours as one to a path."""

        def open_channel(forwarder: SSHForwarder, orig_host: str, orig_port: int) -> Awaitable[Any]:
            return self.unix_channel(None, 'strict', self.window, self.max_pktsize).accept(lambda: forwarder, path)

        return open_channel


def bind_host(host: str, gateway_ports: str) -> str | None:
    """Return what to listen on where a client names a host: '' is every address, None those of this machine alone.

    As with OpenSSH's GatewayPorts, 'no' leaves the choice among the latter, and 'yes' none.
    """

    if gateway_ports == 'yes':
        return ''

    if gateway_ports == 'no':
        return host if host in ('127.0.0.1', '::1') else None

    return None if host == 'localhost' else host


async def _join(opener: str, conn: Any, *where: Any) -> SSHSession[Any]:
    """Open a channel of another connection, and return the session of the channel to join with it."""

    first, second = make_bridge()
    await _reached(getattr(conn, opener)(lambda: second, *where))

    return first


async def _reached(opening: Awaitable[object]) -> None:
    """Open a channel of one connection for one of another, which goes on although that has ended."""

    try:
        await opening
    except DisconnectError as exc:
        raise ChannelOpenError(OPEN_CONNECT_FAILED, 'The connection that leads there has ended') from exc


def handler_session(session_class: Any, handler: Callable[..., Any], create_task: Callable[[Any], object]) -> Any:
    """Make a session that calls a handler with a reader and a writer once its channel is open."""

    class HandlerSession(session_class):  # type: ignore[misc]
        """Calls a handler with streams."""

        def session_started(self) -> None:
            """Call the handler."""

            super().session_started()
            result = handler(SSHReader(self, self._chan), SSHWriter(self, self._chan))

            if isawaitable(result):
                create_task(self._handle(result))

        async def _handle(self, running: Awaitable[Any]) -> None:
            try:
                await running
            except Exception as exc:
                self._chan.logger.error('Uncaught exception in the handler of a connection', exc_info=exc)
                self._chan.abort()

    return HandlerSession()


async def _value(answer: Any) -> Any:
    return await answer if isawaitable(answer) else answer
