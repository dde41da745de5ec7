"""A client's connection as far as forwarding goes: connections through the server, and listening on either side."""

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, Self, cast

from ..channel.channel import DEFAULT_MAX_PACKET, DEFAULT_WINDOW
from ..channel.forward_channel import (
    FORWARDED_STREAMLOCAL,
    FORWARDED_TCPIP,
    SSHForwardChannel,
    SSHTCPChannel,
    SSHUNIXChannel,
)
from ..channel.mux import Mux
from ..channel.session import SSHTCPSession, SSHUNIXSession
from ..forwarding.forwarder import SSHForwarder
from ..forwarding.listeners import SSHListener
from ..opening import opening
from ..process.streams import SSHReader, SSHWriter
from ..wire import Cursor
from .acceptor import SSHAcceptor
from .callbacks import SSHClient
from .connection import SSHConnection
from .forward_client import ClientForwarding, PasswordValidator
from .forward_server import handler_session
from .forwarding import SSHAcceptHandler, SSHSocketSessionFactory, TCPStreamSession, UNIXStreamSession
from .inside import connect_inside, connect_reverse_inside, listen_inside, listen_reverse_inside
from .server import SSHServerConnection


class ForwardingClientConnection(SSHConnection):
    """A client's connection with its forwarding."""

    _owner: SSHClient
    _forwarding: ClientForwarding | None = None

    def _start_forwarding(self, mux: Mux, max_window: int) -> None:
        self._forwarding = ClientForwarding(mux, self._loop, max_window)

    def _stop_forwarding(self) -> None:
        if self._forwarding:
            self._forwarding.close()

    def _require_forwarding(self) -> ClientForwarding:
        self._require_mux()
        assert self._forwarding is not None

        return self._forwarding

    def channel_open_requested(self, channel_type: bytes, cursor: Cursor) -> Any:
        """Take a connection to a port or path of the server that was asked for; refuse other channels.

        Raises:
          ChannelOpenError: it was not asked for
        """

        if channel_type == FORWARDED_TCPIP:
            return self._require_forwarding().take_tcp(cursor)

        if channel_type == FORWARDED_STREAMLOCAL:
            return self._require_forwarding().take_unix(cursor)

        return super().channel_open_requested(channel_type, cursor)

    # --- connections through the server

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
        """Have the server connect to a TCP port; return the channel and its session.

        Raises:
          ChannelOpenError: the server refused, or nobody answers there
        """

        chan = self._require_forwarding().tcp_channel(encoding, errors, window, max_pktsize)

        return chan, await chan.connect(session_factory, remote_host, remote_port, orig_host, orig_port)

    async def open_connection(self, *args: Any, **kwargs: Any) -> tuple[SSHReader[Any], SSHWriter[Any]]:
        """Have the server connect to a TCP port as `create_connection` does; return its streams."""

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
        """Have the server connect to a UNIX domain socket; return the channel and its session.

        Raises:
          ChannelOpenError: the server refused, or nobody listens there
        """

        chan = self._require_forwarding().unix_channel(encoding, errors, window, max_pktsize)

        return chan, await chan.connect(session_factory, remote_path)

    async def open_unix_connection(self, *args: Any, **kwargs: Any) -> tuple[SSHReader[Any], SSHWriter[Any]]:
        """Have the server connect to a UNIX domain socket as `create_unix_connection` does; return its streams."""

        chan, session = await self.create_unix_connection(UNIXStreamSession, *args, **kwargs)
        assert isinstance(session, UNIXStreamSession)

        return SSHReader(session, chan), SSHWriter(session, chan)

    # --- connections inside of this one

    @opening
    async def connect_ssh(self, host: str, port: int | tuple[()] = (), **kwargs: Any) -> Self:
        """Connect to another server through this one's, and log in; the keywords are those of `connect`.

        Raises:
          ChannelOpenError: this one's server does not connect there
        """

        return cast(Self, await connect_inside(self, host, port, **kwargs))

    async def create_ssh_connection(
        self, client_factory: Callable[[], SSHClient] | None, host: str, port: int | tuple[()] = (), **kwargs: Any
    ) -> tuple[Self, SSHClient]:
        """Connect as `connect_ssh` does, with an object made by `client_factory`; return the connection and it."""

        connection = await self.connect_ssh(host, port, client_factory=client_factory or SSHClient, **kwargs)

        return connection, connection.owner

    @opening
    async def listen_ssh(self, host: str = '', port: int | tuple[()] = (), **kwargs: Any) -> SSHAcceptor:
        """Have the server listen on a port, and serve the SSH clients that connect there.

        The keywords are those of `listen`, but for those about sockets.

        Raises:
          ChannelListenError: the server refused
        """

        return await listen_inside(self, host, port, **kwargs)

    @opening
    async def connect_reverse_ssh(
        self, host: str, port: int | tuple[()] = (), **kwargs: Any
    ) -> SSHServerConnection:
        """Connect to an SSH client that listens, through this one's server, and serve it.

        The keywords are those of `connect_reverse`, but for those about sockets.

        Raises:
          ChannelOpenError: this one's server does not connect there
        """

        return await connect_reverse_inside(self, host, port, **kwargs)

    @opening
    async def listen_reverse_ssh(self, host: str = '', port: int | tuple[()] = (), **kwargs: Any) -> SSHAcceptor:
        """Have the server listen on a port, and log in to the SSH servers that connect there.

        The keywords are those of `listen_reverse`, but for those about sockets. Such a server is known by
        `host_key_alias`: its address is not to be had.

        Raises:
          ChannelListenError: the server refused
        """

        return await listen_reverse_inside(self, host, port, **kwargs)

    @property
    def owner(self) -> SSHClient:
        """The client object that `client_factory` made."""

        return self._owner

    # --- ports and paths of the server

    @opening
    async def create_server(
        self,
        session_factory: Callable[[str, int], SSHTCPSession[Any] | Awaitable[SSHTCPSession[Any]]],
        listen_host: str,
        listen_port: int,
        *,
        encoding: str | None = None,
        errors: str = 'strict',
        window: int = DEFAULT_WINDOW,
        max_pktsize: int = DEFAULT_MAX_PACKET,
    ) -> SSHListener:
        """Have the server listen on a TCP port, 0 for one of its choice, and make a session for each connection.

        Raises:
          ChannelListenError: the server refused
        """

        forwarding = self._require_forwarding()

        async def take(orig_host: str, orig_port: int) -> SSHForwardChannel[Any]:
            chan = forwarding.tcp_channel(encoding, errors, window, max_pktsize)
            session = session_factory(orig_host, orig_port)
            chan.set_session(await session if isawaitable(session) else session)

            return chan

        return await forwarding.listen_port(listen_host, listen_port, take)

    @opening
    async def start_server(
        self, handler_factory: Callable[[str, int], SSHSocketSessionFactory], *args: Any, **kwargs: Any
    ) -> SSHListener:
        """Have the server listen as `create_server` does, and call a handler with streams for each connection."""

        def make_session(orig_host: str, orig_port: int) -> SSHTCPSession[Any]:
            handler = handler_factory(orig_host, orig_port)

            return cast('SSHTCPSession[Any]', handler_session(TCPStreamSession, handler, self.create_task))

        return await self.create_server(make_session, *args, **kwargs)

    @opening
    async def create_unix_server(
        self,
        session_factory: Callable[[], SSHUNIXSession[Any] | Awaitable[SSHUNIXSession[Any]]],
        listen_path: str,
        *,
        encoding: str | None = None,
        errors: str = 'strict',
        window: int = DEFAULT_WINDOW,
        max_pktsize: int = DEFAULT_MAX_PACKET,
    ) -> SSHListener:
        """Have the server listen on a UNIX domain socket, and make a session for each connection.

        Raises:
          ChannelListenError: the server refused
        """

        forwarding = self._require_forwarding()

        async def take(orig_host: str, orig_port: int) -> SSHForwardChannel[Any]:
            chan = forwarding.unix_channel(encoding, errors, window, max_pktsize)
            session = session_factory()
            chan.set_session(await session if isawaitable(session) else session)

            return chan

        return await forwarding.listen_remote_path(listen_path, take)

    @opening
    async def start_unix_server(
        self, handler_factory: Callable[[], SSHSocketSessionFactory], *args: Any, **kwargs: Any
    ) -> SSHListener:
        """Have the server listen as `create_unix_server` does, and call a handler with streams for each connection."""

        def make_session() -> SSHUNIXSession[Any]:
            return cast(
                'SSHUNIXSession[Any]', handler_session(UNIXStreamSession, handler_factory(), self.create_task)
            )

        return await self.create_unix_server(make_session, *args, **kwargs)

    # --- listening here, connecting there

    @opening
    async def forward_local_port(
        self,
        listen_host: str,
        listen_port: int,
        dest_host: str,
        dest_port: int,
        accept_handler: SSHAcceptHandler | None = None,
    ) -> SSHListener:
        """Listen on a TCP port here, 0 for a free one, and have the server connect to a port for each connection.

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
        """Listen on a UNIX domain socket here, and have the server connect to one for each connection.

        Raises:
          ChannelListenError: the path cannot be listened on
        """

        forwarding = self._require_forwarding()

        return forwarding.listen_path(listen_path, forwarding.opener_path(dest_path))

    @opening
    async def forward_local_port_to_path(
        self, listen_host: str, listen_port: int, dest_path: str, accept_handler: SSHAcceptHandler | None = None
    ) -> SSHListener:
        """Listen on a TCP port here, and have the server connect to a UNIX domain socket for each connection.

        Raises:
          ChannelListenError: the port cannot be listened on
        """

        forwarding = self._require_forwarding()

        return await forwarding.listen_tcp(
            listen_host, listen_port, forwarding.opener_path(dest_path), accept_handler
        )

    @opening
    async def forward_local_path_to_port(self, listen_path: str, dest_host: str, dest_port: int) -> SSHListener:
        """Listen on a UNIX domain socket here, and have the server connect to a TCP port for each connection.

        Raises:
          ChannelListenError: the path cannot be listened on
        """

        forwarding = self._require_forwarding()

        return forwarding.listen_path(listen_path, forwarding.opener_tcp(dest_host, dest_port))

    @opening
    async def forward_socks(
        self, listen_host: str, listen_port: int, *, validate_password: PasswordValidator | None = None
    ) -> SSHListener:
        """Listen on a TCP port here for clients of SOCKS 4, 4A and 5, and have the server connect to where they want.

        `validate_password`, which may be a coroutine function, is called with a name and a password and returns whether
        they are right; only clients of SOCKS 5 have these. Without it who can reach the port needs no password:
        'localhost' is what should be listened on, also because passwords are sent in the clear.

        Raises:
          ChannelListenError: the port cannot be listened on
        """

        return await self._require_forwarding().listen_socks(listen_host, listen_port, validate_password)

    # --- listening there, connecting here

    @opening
    async def forward_remote_port(
        self, listen_host: str, listen_port: int, dest_host: str, dest_port: int
    ) -> SSHListener:
        """Have the server listen on a TCP port, and connect to a port from here for each connection.

        Raises:
          ChannelListenError: the server refused
        """

        return await self.create_server(
            lambda orig_host, orig_port: self.forward_connection(dest_host, dest_port), listen_host, listen_port
        )

    @opening
    async def forward_remote_path(self, listen_path: str, dest_path: str) -> SSHListener:
        """Have the server listen on a UNIX domain socket, and connect to one here for each connection.

        Raises:
          ChannelListenError: the server refused
        """

        return await self.create_unix_server(lambda: self.forward_unix_connection(dest_path), listen_path)

    @opening
    async def forward_remote_port_to_path(self, listen_host: str, listen_port: int, dest_path: str) -> SSHListener:
        """Have the server listen on a TCP port, and connect to a UNIX domain socket here for each connection.

        Raises:
          ChannelListenError: the server refused
        """

        return await self.create_server(
            lambda orig_host, orig_port: self.forward_unix_connection(dest_path), listen_host, listen_port
        )

    @opening
    async def forward_remote_path_to_port(self, listen_path: str, dest_host: str, dest_port: int) -> SSHListener:
        """Have the server listen on a UNIX domain socket, and connect to a TCP port from here for each connection.

        Raises:
          ChannelListenError: the server refused
        """

        return await self.create_unix_server(lambda: self.forward_connection(dest_host, dest_port), listen_path)

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
