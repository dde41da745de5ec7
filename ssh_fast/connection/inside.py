"""SSH connections inside of a client's connection, in either role, connecting and listening."""

from typing import Any

from .acceptor import Acceptor, ErrorHandler, SSHAcceptor
from .establish import establish
from .listening import connect_to_client, listen_for_clients, listen_for_servers
from .options import SSHClientConnectionOptions, SSHServerConnectionOptions
from .server import SSHServerConnection

Unset = tuple[()]


async def connect_inside(
    outer: Any, host: str, port: int | Unset, *, options: SSHClientConnectionOptions | None = None, **kwargs: object
) -> Any:
    """Connect to a server through that of `outer`, and log in; the connection is one of `outer`'s class."""

    given = _given(outer, host, port, kwargs)

    return await establish(type(outer), await SSHClientConnectionOptions.construct(options, **given))


async def connect_reverse_inside(
    outer: Any, host: str, port: int | Unset, *, options: SSHServerConnectionOptions | None = None, **kwargs: object
) -> SSHServerConnection:
    """Connect to a client that listens, through the server of `outer`, and serve it."""

    given = _given(outer, host, port, kwargs)

    return await connect_to_client(type(outer), await SSHServerConnectionOptions.construct(options, **given))


async def listen_inside(
    outer: Any,
    host: str,
    port: int | Unset,
    *,
    acceptor: Acceptor | None = None,
    error_handler: ErrorHandler | None = None,
    options: SSHServerConnectionOptions | None = None,
    **kwargs: object,
) -> SSHAcceptor:
    """Have the server of `outer` listen, and serve the clients that connect there."""

    given = _given(outer, host, port, kwargs)
    made = await SSHServerConnectionOptions.construct(options, **given)

    return await listen_for_clients(type(outer), made, acceptor, error_handler)


async def listen_reverse_inside(
    outer: Any,
    host: str,
    port: int | Unset,
    *,
    acceptor: Acceptor | None = None,
    error_handler: ErrorHandler | None = None,
    options: SSHClientConnectionOptions | None = None,
    **kwargs: object,
) -> SSHAcceptor:
    """Have the server of `outer` listen, and log in to the servers that connect there."""

    given = _given(outer, host, port, kwargs)
    made = await SSHClientConnectionOptions.construct(options, **given)

    return await listen_for_servers(type(outer), made, acceptor, error_handler)


def _given(outer: Any, host: str, port: int | Unset, kwargs: dict[str, object]) -> dict[str, Any]:
    named: dict[str, Any] = {'host': host} if host else {}

    if port != ():
        named['port'] = port

    return {**named, **kwargs, 'tunnel': outer}
