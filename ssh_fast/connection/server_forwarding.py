"""A server's connection as far as forwarding goes: what its client asks for, and connections to the client."""

from collections.abc import Awaitable, Callable
from typing import Any

from ..channel.channel import DEFAULT_MAX_PACKET, DEFAULT_WINDOW
from ..channel.forward_channel import DIRECT_STREAMLOCAL, DIRECT_TCPIP, SSHTCPChannel, SSHUNIXChannel
from ..channel.mux import Mux
from ..channel.session import SSHTCPSession, SSHUNIXSession
from ..channel.tuntap_channel import TUN_CHANNEL, SSHTunTapChannel
from ..forwarding.forwarder import SSHForwarder
from ..forwarding.listeners import SSHListener
from ..keys.permissions import Permissions
from ..opening import opening
from ..process.streams import SSHReader, SSHWriter
from ..wire import Cursor
from .callbacks import SSHServer
from .connection import SSHConnection
from .forward_server import REQUESTS, ServerForwarding
from .forwarding import SSHAcceptHandler, TCPStreamSession, UNIXStreamSession
from .options import SSHServerConnectionOptions


class ForwardingServerConnection(SSHConnection):
    """A server's connection with its forwarding."""

    _owner: SSHServer
    _options: SSHServerConnectionOptions
    _forwarding: ServerForwarding | None = None

    def _start_forwarding(self, mux: Mux, permissions: Permissions) -> None:
        self._forwarding = ServerForwarding(
            mux,
            self._loop,
            self._options.max_window,
            self._owner,
            permissions,
            (self._options.tcp_forwarding, self._options.unix_forwarding, self._options.tunnel_forwarding),
            self._options.gateway_ports,
            self.create_task,
            self._logger,
        )

    def _stop_forwarding(self) -> None:
        if self._forwarding:
            self._forwarding.close()

    def _require_forwarding(self) -> ServerForwarding:
        self._require_mux()
        assert self._forwarding is not None

        return self._forwarding

    def channel_open_requested(self, channel_type: bytes, cursor: Cursor) -> Any:
        """Take a connection or a tunnel that the client opens through us; refuse other channels.

        Raises:
          ChannelOpenError: it is not allowed
        """

        if self._forwarding and channel_type == DIRECT_TCPIP:
            return self._forwarding.open_tcp(cursor)

        if self._forwarding and channel_type == DIRECT_STREAMLOCAL:
            return self._forwarding.open_unix(cursor)

        if self._forwarding and channel_type == TUN_CHANNEL:
            return self._forwarding.open_tuntap(cursor)

        return super().channel_open_requested(channel_type, cursor)

    def global_request_received(
        self, name: bytes, cursor: Cursor, want_reply: bool
    ) -> bool | bytes | Awaitable[bool | bytes]:
        """Listen for a client, or listen no more."""

        if self._forwarding and name in REQUESTS:
            return self._forwarding.request(name, cursor)

        return super().global_request_received(name, cursor, want_reply)

    # --- channels for what the client opens

    def create_tcp_channel(
        self,
        encoding: str | None = None,
        errors: str = 'strict',
        window: int = DEFAULT_WINDOW,
        max_pktsize: int = DEFAULT_MAX_PACKET,
    ) -> SSHTCPChannel[Any]:
        """Make a channel to return with a session or handler from `connection_requested`."""

        return self._require_forwarding().tcp_channel(encoding, errors, window, max_pktsize)

    def create_unix_channel(
        self,
        encoding: str | None = None,
        errors: str = 'strict',
        window: int = DEFAULT_WINDOW,
        max_pktsize: int = DEFAULT_MAX_PACKET,
    ) -> SSHUNIXChannel[Any]:
        """Make a channel to return with a session or handler from `unix_connection_requested`."""

        return self._require_forwarding().unix_channel(encoding, errors, window, max_pktsize)

    def create_tuntap_channel(
        self, window: int = DEFAULT_WINDOW, max_pktsize: int = DEFAULT_MAX_PACKET
    ) -> SSHTunTapChannel:
        """Make a channel to return with a session or handler from `tun_requested` or `tap_requested`."""

        return self._require_forwarding().tuntap_channel(window, max_pktsize)

    # --- connections to the client

    async def create_connection(
        self,
        session_factory: Callable[[], SSHTCPSession[Any]],
        remote_host: str,
        remote_port: int,
        orig_host: str = '',
        orig_port: int = 0,
        *,
        encoding: str | None = None,
        errors: str = 'strict',
        window: int = DEFAULT_WINDOW,
        max_pktsize: int = DEFAULT_MAX_PACKET,
    ) -> tuple[SSHTCPChannel[Any], SSHTCPSession[Any]]:
        """Hand the client a connection that came to a host and port it asked for; return the channel and its session.

        Raises:
          ChannelOpenError: the client has not asked for it, or cannot take it
        """

        chan = self.create_tcp_channel(encoding, errors, window, max_pktsize)

        return chan, await chan.accept(session_factory, remote_host, remote_port, orig_host, orig_port)

    async def open_connection(self, *args: Any, **kwargs: Any) -> tuple[SSHReader[Any], SSHWriter[Any]]:
        """Hand the client a connection as `create_connection` does; return its streams."""

        chan, session = await self.create_connection(TCPStreamSession, *args, **kwargs)
        assert isinstance(session, TCPStreamSession)

        return SSHReader(session, chan), SSHWriter(session, chan)

    async def create_unix_connection(
        self,
        session_factory: Callable[[], SSHUNIXSession[Any]],
        remote_path: str,
        *,
        encoding: str | None = None,
        errors: str = 'strict',
        window: int = DEFAULT_WINDOW,
        max_pktsize: int = DEFAULT_MAX_PACKET,
    ) -> tuple[SSHUNIXChannel[Any], SSHUNIXSession[Any]]:
        """Hand the client a connection that came to a path it asked for; return the channel and its session.

        Raises:
          ChannelOpenError: the client has not asked for it, or cannot take it
        """

        chan = self.create_unix_channel(encoding, errors, window, max_pktsize)

        return chan, await chan.accept(session_factory, remote_path)

    async def open_unix_connection(self, *args: Any, **kwargs: Any) -> tuple[SSHReader[Any], SSHWriter[Any]]:
        """Hand the client a connection as `create_unix_connection` does; return its streams."""

        chan, session = await self.create_unix_connection(UNIXStreamSession, *args, **kwargs)
        assert isinstance(session, UNIXStreamSession)

        return SSHReader(session, chan), SSHWriter(session, chan)

    # --- what an application may answer with

    async def forward_connection(self, dest_host: str, dest_port: int) -> SSHForwarder:
        """Connect to a TCP port from here, and return the session for a channel that leads there.

        Raises:
          ChannelOpenError: nobody answers there
        """

        return await self._require_forwarding().connect_tcp(dest_host, dest_port)

    async def forward_unix_connection(self, dest_path: str) -> SSHForwarder:
        """Connect to a UNIX domain socket here, and return the session for a channel that leads there.

        Raises:
          ChannelOpenError: nobody listens there
        """

        return await self._require_forwarding().connect_path(dest_path)

    @opening
    async def forward_local_port(
        self,
        listen_host: str,
        listen_port: int,
        dest_host: str,
        dest_port: int,
        accept_handler: SSHAcceptHandler | None = None,
    ) -> SSHListener:
        """Listen on a TCP port here, and hand the client each connection as one to a host and port it asked for.

        `accept_handler` is called with host and port of who connects, and returns whether it may.

        Raises:
          ChannelListenError: the port cannot be listened on
        """

        forwarding = self._require_forwarding()

        return await forwarding.listen_tcp(
            listen_host, listen_port, forwarding.opener_tcp(dest_host, dest_port), accept_handler
        )

    @opening
    async def forward_local_path(self, listen_path: str, dest_path: str) -> SSHListener:
        """Listen on a UNIX domain socket here, and hand the client each connection as one to a path it asked for.

        Raises:
          ChannelListenError: the path cannot be listened on
        """

        forwarding = self._require_forwarding()

        return forwarding.listen_path(listen_path, forwarding.opener_path(dest_path))
