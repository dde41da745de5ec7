"""Waiting for connections, and the reverse direction: clients that listen for servers, servers that connect to them."""

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from .acceptor import Acceptor, ErrorHandler, SSHAcceptor, listen_on
from .admission import Admission
from .establish import establish_server, open_route
from .gate import Gate
from .gss_kex import require_keys
from .options import SSHClientConnectionOptions, SSHServerConnectionOptions
from .server import SSHServerConnection

# Makes a client's connection: of a loop, options, contexts of GSSAPI, an acceptor and an error handler.
ClientClass = Callable[..., Any]


async def listen_for_clients(
    client_class: ClientClass,
    options: SSHServerConnectionOptions,
    acceptor: Acceptor | None = None,
    error_handler: ErrorHandler | None = None,
    **binding: Any,
) -> SSHAcceptor:
    """Serve who connects.

    Raises:
      OSError, ChannelListenError: it cannot be listened there
      ValueError: there is no host key, or no way to listen there
    """

    await require_keys(options)
    loop = asyncio.get_running_loop()
    make = partial(SSHServerConnection, loop, options, acceptor, error_handler)

    return await _listen(client_class, partial(Gate, Admission(options, loop.time), make), options, **binding)


async def listen_for_servers(
    client_class: ClientClass,
    options: SSHClientConnectionOptions,
    acceptor: Acceptor | None = None,
    error_handler: ErrorHandler | None = None,
    **binding: Any,
) -> SSHAcceptor:
    """Log in to servers that connect.

    Raises:
      OSError, ChannelListenError: it cannot be listened there
      ValueError: there is no way to listen there, or what the options ask for takes a server that is known before
    """

    if options.gss_kex:
        raise ValueError('gss_kex: a client that listens does not know whom to have a ticket for')

    if options.strict_host_key_checking == 'accept-new':
        raise ValueError('strict_host_key_checking: a client that listens would trust whoever connects')

    factory = partial(client_class, asyncio.get_running_loop(), options, None, acceptor, error_handler, accepted=True)

    return await _listen(client_class, factory, options, **binding)


async def connect_to_client(
    client_class: ClientClass,
    options: SSHServerConnectionOptions,
    flags: int = 0,
    sock: socket.socket | None = None,
    acceptor: Acceptor | None = None,
    error_handler: ErrorHandler | None = None,
) -> SSHServerConnection:
    """Connect to a client that listens, or take a connected socket, and serve it; returns when it is logged in.

    Raises:
      OSError: no connection could be made
      ValueError: there is no host key
    """

    factory = partial(SSHServerConnection, asyncio.get_running_loop(), options, acceptor, error_handler)

    return await establish_server(client_class, factory, options, flags, sock)


async def _listen(
    client_class: ClientClass,
    factory: Callable[[], asyncio.BufferedProtocol],
    options: SSHClientConnectionOptions | SSHServerConnectionOptions,
    *,
    sock: socket.socket | None = None,
    **binding: Any,
) -> SSHAcceptor:
    if options.proxy_command:
        raise ValueError('proxy_command: nothing can be listened on through a command')

    outer: Any = None
    owned = False

    if sock is None and options.route is not None:
        outer, owned = await open_route(client_class, options)

    try:
        return await listen_on(factory, options, outer, owned, sock=sock, **binding)
    except BaseException:
        if owned:
            outer.abort()

        raise
