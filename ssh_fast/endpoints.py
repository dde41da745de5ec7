"""Where connections begin: connecting to servers, listening for clients, and taking sockets that are connected."""

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from .connection.acceptor import BACKLOG, Acceptor, ErrorHandler, SSHAcceptor
from .connection.callbacks import SSHClient, SSHServer
from .connection.client import SSHClientConnection
from .connection.connection import SSHConnection
from .connection.establish import establish
from .connection.listening import connect_to_client, listen_for_clients, listen_for_servers
from .connection.options import SSHClientConnectionOptions, SSHServerConnectionOptions
from .connection.server import SSHServerConnection
from .errors import PermissionDenied
from .keys.key import SSHKey
from .opening import opening
from .userauth.messages import NONE

Unset = tuple[()]

@opening
async def connect(
    host: str = '',
    port: int | Unset = (),
    *,
    tunnel: Any = (),
    family: int | Unset = (),
    flags: int = 0,
    local_addr: tuple[str, int] | Unset = (),
    sock: socket.socket | None = None,
    config: Any = (),
    options: SSHClientConnectionOptions | None = None,
    **kwargs: object,
) -> SSHClientConnection:
    """Connect to a server and log in; the keywords are those of `SSHClientConnectionOptions`.

    Raises:
      OSError: no connection could be made
      TimeoutError: it took longer than `connect_timeout`
      HostKeyNotVerifiable: the server's host key is not trusted
      PermissionDenied: the login failed
      DisconnectError: the connection ended otherwise
    """

    with _closing_on_failure(sock):
        new_options = await SSHClientConnectionOptions.construct(
            options,
            **_given(host=host, port=port, tunnel=tunnel, family=family, local_addr=local_addr, config=config),
            **kwargs,
        )

    return await establish(SSHClientConnection, new_options, flags, sock)


async def create_connection(
    client_factory: Callable[[], SSHClient] | None, host: str = '', port: int | Unset = (), **kwargs: Any
) -> tuple[SSHClientConnection, SSHClient]:
    """Connect as `connect` does, with an object made by `client_factory`; return the connection and the object."""

    connection = await connect(host, port, client_factory=client_factory or SSHClient, **kwargs)

    return connection, connection.owner


@opening
async def run_client(
    sock: socket.socket, config: Any = (), options: SSHClientConnectionOptions | None = None, **kwargs: object
) -> SSHClientConnection:
    """Log in over a connected socket, which is closed whatever goes wrong."""

    with _closing_on_failure(sock):
        new_options = await SSHClientConnectionOptions.construct(options, **_given(config=config), **kwargs)

    return await establish(SSHClientConnection, new_options, 0, sock)


@opening
async def listen(
    host: str = '',
    port: int | Unset = (),
    *,
    tunnel: Any = (),
    family: int | Unset = (),
    flags: int = socket.AI_PASSIVE,
    backlog: int = BACKLOG,
    sock: socket.socket | None = None,
    reuse_address: bool | None = None,
    reuse_port: bool | None = None,
    acceptor: Acceptor | None = None,
    error_handler: ErrorHandler | None = None,
    config: Any = (),
    options: SSHServerConnectionOptions | None = None,
    **kwargs: object,
) -> SSHAcceptor:
    """Listen for clients; the keywords are those of `SSHServerConnectionOptions`.

    `acceptor` is called with each connection once its client is logged in, `error_handler` with those that fail before.

    Raises:
      OSError: the address cannot be listened on
      ValueError: there is no host key
    """

    with _closing_on_failure(sock):
        new_options = await SSHServerConnectionOptions.construct(
            options, **_given(host=host, port=port, tunnel=tunnel, family=family, config=config), **kwargs
        )

        return await listen_for_clients(
            SSHClientConnection,
            new_options,
            acceptor,
            error_handler,
            flags=flags,
            backlog=backlog,
            sock=sock,
            reuse_address=reuse_address,
            reuse_port=reuse_port,
        )


def create_server(
    server_factory: Callable[[], SSHServer] | None, host: str = '', port: int | Unset = (), **kwargs: Any
) -> Any:
    """Listen as `listen` does, with a server object made by `server_factory` for each connection."""

    return listen(host, port, server_factory=server_factory or SSHServer, **kwargs)


@opening
async def run_server(
    sock: socket.socket,
    config: Any = (),
    options: SSHServerConnectionOptions | None = None,
    *,
    acceptor: Acceptor | None = None,
    error_handler: ErrorHandler | None = None,
    **kwargs: object,
) -> SSHServerConnection:
    """Serve the client on a connected socket, which is closed whatever goes wrong; returns when it is logged in."""

    with _closing_on_failure(sock):
        new_options = await SSHServerConnectionOptions.construct(options, **_given(config=config), **kwargs)

    return await connect_to_client(SSHClientConnection, new_options, 0, sock, acceptor, error_handler)


@opening
async def connect_reverse(
    host: str = '',
    port: int | Unset = (),
    *,
    tunnel: Any = (),
    family: int | Unset = (),
    flags: int = 0,
    local_addr: tuple[str, int] | Unset = (),
    sock: socket.socket | None = None,
    config: Any = (),
    options: SSHServerConnectionOptions | None = None,
    **kwargs: object,
) -> SSHServerConnection:
    """Connect to a client that listens by `listen_reverse`, and serve it; returns when it is logged in.

    The keywords are those of `SSHServerConnectionOptions`.

    Raises:
      OSError: no connection could be made
      TimeoutError: it took longer than `connect_timeout`
      ValueError: there is no host key
      DisconnectError: the connection ended before the client was logged in
    """

    with _closing_on_failure(sock):
        new_options = await SSHServerConnectionOptions.construct(
            options,
            **_given(host=host, port=port, tunnel=tunnel, family=family, local_addr=local_addr, config=config),
            **kwargs,
        )

    return await connect_to_client(SSHClientConnection, new_options, flags, sock)


@opening
async def listen_reverse(
    host: str = '',
    port: int | Unset = (),
    *,
    tunnel: Any = (),
    family: int | Unset = (),
    flags: int = socket.AI_PASSIVE,
    backlog: int = BACKLOG,
    sock: socket.socket | None = None,
    reuse_address: bool | None = None,
    reuse_port: bool | None = None,
    acceptor: Acceptor | None = None,
    error_handler: ErrorHandler | None = None,
    config: Any = (),
    options: SSHClientConnectionOptions | None = None,
    **kwargs: object,
) -> SSHAcceptor:
    """Listen for servers that connect by `connect_reverse`, and log in to each.

    The keywords are those of `SSHClientConnectionOptions`. In known_hosts a server is `host_key_alias`, or the address
    that it comes from. `acceptor` is called with each connection that is logged in, `error_handler` with those that
    fail before.

    Raises:
      OSError: the address cannot be listened on
    """

    with _closing_on_failure(sock):
        new_options = await SSHClientConnectionOptions.construct(
            options, **_given(host=host, port=port, tunnel=tunnel, family=family, config=config), **kwargs
        )

        return await listen_for_servers(
            SSHClientConnection,
            new_options,
            acceptor,
            error_handler,
            flags=flags,
            backlog=backlog,
            sock=sock,
            reuse_address=reuse_address,
            reuse_port=reuse_port,
        )


async def get_server_host_key(
    host: str = '',
    port: int | Unset = (),
    *,
    tunnel: Any = (),
    proxy_command: Any = (),
    family: int | Unset = (),
    flags: int = 0,
    local_addr: tuple[str, int] | Unset = (),
    sock: socket.socket | None = None,
    client_version: bytes | str | Unset = (),
    kex_algs: Any = (),
    server_host_key_algs: Any = (),
    config: Any = (),
    options: SSHClientConnectionOptions | None = None,
) -> SSHKey | None:
    """Return the host key that a server shows, without trusting it and without a login."""

    new_options = await SSHClientConnectionOptions.construct(
        options,
        **_given(
            host=host, port=port, tunnel=tunnel, proxy_command=proxy_command, family=family, local_addr=local_addr,
            client_version=client_version, kex_algs=kex_algs, server_host_key_algs=server_host_key_algs, config=config,
        ),
        known_hosts=None,
        client_keys=None,
        gss_kex=False,
        username='nobody',
    )
    connection = await establish(SSHClientConnection, new_options, flags, sock, before_login=True)

    async with cast(SSHConnection, connection):
        return connection.get_server_host_key()


async def get_server_auth_methods(
    host: str = '',
    port: int | Unset = (),
    username: str | Unset = (),
    *,
    tunnel: Any = (),
    proxy_command: Any = (),
    family: int | Unset = (),
    flags: int = 0,
    local_addr: tuple[str, int] | Unset = (),
    sock: socket.socket | None = None,
    client_version: bytes | str | Unset = (),
    kex_algs: Any = (),
    server_host_key_algs: Any = (),
    config: Any = (),
    options: SSHClientConnectionOptions | None = None,
) -> Sequence[str]:
    """Return the ways in which a server lets a user log in, without trusting it, and without showing it any secret.

    They are ['none'] if it lets the user in at once.
    """

    with _closing_on_failure(sock):
        new_options = await SSHClientConnectionOptions.construct(
            options,
            **_given(
                host=host, port=port, username=username, tunnel=tunnel, proxy_command=proxy_command, family=family,
                local_addr=local_addr, client_version=client_version, kex_algs=kex_algs,
                server_host_key_algs=server_host_key_algs, config=config,
            ),
            known_hosts=None,
            client_keys=None,
            preferred_auth=[],
        )

    tried: list[SSHClientConnection] = []

    try:
        connection = await establish(SSHClientConnection, new_options, flags, sock, made_connection=tried.append)
    except PermissionDenied:
        return tried[-1].get_server_auth_methods()

    async with cast(SSHConnection, connection):
        return [NONE.decode()]


def _given(**kwargs: object) -> dict[str, object]:
    """Leave out what was not given."""

    return {name: value for name, value in kwargs.items() if value != () and value != ''}


@contextlib.contextmanager
def _closing_on_failure(sock: socket.socket | None) -> Iterator[None]:
    """Close a socket that was given to us, if it comes to no connection that would close it."""

    try:
        yield
    except BaseException:
        if sock is not None:
            sock.close()

        raise
