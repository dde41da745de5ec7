"""What listens for connections: sockets of our own, or a port that a connection's server listens on for us."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from .options_base import SSHConnectionOptions
from .tunnel import TunnelServer, listen_through

BACKLOG = 100

Acceptor = Callable[[Any], Awaitable[None] | None]
ErrorHandler = Callable[[Any, Exception | None], None]

ConnectionT = TypeVar('ConnectionT', bound=asyncio.BufferedProtocol)


class _TaskHost(Protocol):
    def create_task(self, coro: Any) -> object:
        """Run a coroutine that belongs to the connection."""


class SSHAcceptor:
    """A listening server, or a listening client; `async with` closes it at the end."""

    def __init__(self, server: asyncio.Server | TunnelServer, options: SSHConnectionOptions) -> None:
        self._server = server
        self._options = options

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        await self.wait_closed()

    @property
    def sockets(self) -> Sequence[Any]:
        """The sockets that are listened on; none if another connection's server listens."""

        return () if isinstance(self._server, TunnelServer) else self._server.sockets

    def get_addresses(self) -> list[Any]:
        """Return the addresses that are listened on."""

        if isinstance(self._server, TunnelServer):
            return [self._server.address]

        return [sock.getsockname() for sock in self._server.sockets]

    def get_port(self) -> int:
        """Return the port that is listened on; 0 if there are several, or none."""

        ports = {address[1] for address in self.get_addresses() if isinstance(address, tuple)}

        return ports.pop() if len(ports) == 1 else 0

    def close(self) -> None:
        """Listen no more; the connections that there are go on."""

        self._server.close()

    async def wait_closed(self) -> None:
        """Wait until nothing is listened on any more."""

        if isinstance(self._server, TunnelServer):
            await self._server.wait_closed()
        else:
            # Server.wait_closed waits for connections too, from Python 3.12 on: those are not the acceptor's to end.
            await asyncio.sleep(0)

    def update(self, **kwargs: object) -> None:
        """Change options; connections accepted from now on have them."""

        self._options.update(**kwargs)


async def listen_on(
    factory: Callable[[], ConnectionT],
    options: SSHConnectionOptions,
    outer: Any,
    owned: bool,
    *,
    flags: int = socket.AI_PASSIVE,
    backlog: int = BACKLOG,
    sock: socket.socket | None = None,
    reuse_address: bool | None = None,
    reuse_port: bool | None = None,
) -> SSHAcceptor:
    """Listen where the options say, or have the server of `outer` listen there; `factory` makes each connection.

    Raises:
      OSError, ChannelListenError: it cannot be listened there
    """

    if outer is not None:
        return SSHAcceptor(
            await listen_through(factory, outer, options.host, options.port, owned=owned), options
        )

    loop = asyncio.get_running_loop()

    # Started apart: asyncio, cancelled while it starts one, would leave a server behind that nobody knows.
    if sock is not None:
        server = await loop.create_server(factory, sock=sock, backlog=backlog, start_serving=False)
    else:
        server = await loop.create_server(
            factory,
            options.host or None,
            options.port,
            family=options.family,
            flags=flags,
            backlog=backlog,
            reuse_address=reuse_address,
            reuse_port=reuse_port,
            start_serving=False,
        )

    try:
        await server.start_serving()
    except BaseException:
        server.close()
        raise

    return SSHAcceptor(server, options)


def tell_acceptor(acceptor: Acceptor | None, connection: _TaskHost) -> None:
    """Call an acceptor with a connection that is logged in; what it has to wait for is a task of that."""

    if acceptor and isawaitable(accepted := acceptor(connection)):
        connection.create_task(_wait(accepted))


async def _wait(awaitable: Awaitable[None]) -> None:
    await awaitable
