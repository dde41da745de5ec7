"""Establishing connections: directly, by a command, or through other connections, and then the login."""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from .dial import dial
from .gss_kex import NewContext, client_contexts, require_keys
from .options import SSHClientConnectionOptions, SSHServerConnectionOptions
from .proxy_command import dial_command
from .tunnel import dial_through

# Hosts that one connection may lead through. A configuration whose jump hosts lead back to themselves ends here.
_MAX_HOPS = 16

_HOP = re.compile(r'(?:ssh://)?(?:(?P<user>.+)@)?(?:\[(?P<literal>[^]]+)\]|(?P<host>[^:@\s]+))(?::(?P<port>\d{1,5}))?/?')


ConnectionT = TypeVar('ConnectionT', bound=Any)


async def establish(
    connection_class: Callable[[asyncio.AbstractEventLoop, SSHClientConnectionOptions, NewContext | None], ConnectionT],
    options: SSHClientConnectionOptions,
    flags: int = 0,
    sock: socket.socket | None = None,
    *,
    before_login: bool = False,
    made_connection: Callable[[ConnectionT], object] | None = None,
    outer: Any = None,
    hops: int = 0,
) -> ConnectionT:
    """Connect to a server and log in; whatever goes wrong leaves no connection behind.

    It leads through `outer`, a connection that is then closed with it, or else where the options lead.

    Raises:
      TimeoutError: it took longer than the option `connect_timeout`
      ValueError: a jump host is nothing that can be one
    """

    loop = asyncio.get_running_loop()

    async def prepare() -> Callable[[], ConnectionT]:
        new_gss_context = await client_contexts(options)

        def make_connection() -> ConnectionT:
            connection = connection_class(loop, options, new_gss_context)
            connection.stop_before_login(before_login)

            if made_connection:
                made_connection(connection)

            return connection

        return make_connection

    return await _reach(connection_class, prepare, options, flags, sock, outer, hops)


async def establish_server(
    client_class: Callable[..., Any],
    make_connection: Callable[[], ConnectionT],
    options: SSHServerConnectionOptions,
    flags: int = 0,
    sock: socket.socket | None = None,
) -> ConnectionT:
    """Connect to a client that listens, and let it log in; whatever goes wrong leaves no connection behind.

    Raises:
      TimeoutError: it took longer than the option `connect_timeout`
      ValueError: there is no host key, or a jump host is nothing that can be one
    """

    async def prepare() -> Callable[[], ConnectionT]:
        await require_keys(options)

        return make_connection

    return await _reach(client_class, prepare, options, flags, sock, None, 0)


async def _reach(
    client_class: Callable[..., Any],
    prepare: Callable[[], Awaitable[Callable[[], ConnectionT]]],
    options: SSHClientConnectionOptions | SSHServerConnectionOptions,
    flags: int,
    sock: socket.socket | None,
    outer: Any,
    hops: int,
) -> ConnectionT:
    """Open the way that the options lead, and wait for the login of the connection that is made for it."""

    connection: ConnectionT | None = None
    limit = asyncio.timeout(options.connect_timeout)
    owned = outer is not None

    try:
        async with limit:
            try:
                factory = await prepare()
            except BaseException:
                if sock is not None:
                    sock.close()

                raise

            def make_connection() -> ConnectionT:
                nonlocal connection

                connection = factory()

                return connection

            if outer is None and sock is None and options.route is not None:
                outer, owned = await open_route(client_class, options, hops)

            if outer is not None:
                made = await dial_through(make_connection, outer, options.host, options.port, owned=owned)
            elif sock is None and options.proxy_command:
                made = await dial_command(make_connection, options.proxy_command)
            else:
                made = await dial(
                    make_connection,
                    options.host,
                    options.port,
                    family=options.family,
                    flags=flags,
                    local_addr=options.local_addr,
                    sock=sock,
                )

            await made.wait_established()
    except BaseException as exc:
        if connection is not None:
            connection.abort()

        if owned:
            outer.abort()

        if isinstance(exc, TimeoutError) and limit.expired():
            where = f'{options.host} port {options.port}' if options.host else 'the peer'
            raise TimeoutError(f'Connecting to {where} took longer than {options.connect_timeout:g} seconds') from None

        raise

    return made


async def open_route(
    client_class: Callable[..., Any],
    options: SSHClientConnectionOptions | SSHServerConnectionOptions,
    hops: int = 0,
) -> tuple[Any, bool]:
    """Return the connection to go through, and whether it was opened for that.

    Raises:
      ValueError: a jump host is nothing that can be one
    """

    route = options.route

    if not isinstance(route, str):
        return route, False

    places = [place.strip() for place in route.split(',')]
    hops += len(places)

    if hops > _MAX_HOPS:
        raise ValueError(f'tunnel: expected at most {_MAX_HOPS} jump hosts, got {hops} with {places[-1]!r}')

    outer: Any = None

    for place in places:
        try:
            hop_options = await _hop_options(place, options.config_given)
            outer = await establish(client_class, hop_options, outer=outer, hops=hops)
        except BaseException as exc:
            if outer is not None:
                outer.abort()

            exc.add_note(f'While connecting to the jump host {place}')
            raise

    return outer, True


async def _hop_options(place: str, config: Any) -> SSHClientConnectionOptions:
    found = _HOP.fullmatch(place)

    if not found:
        raise ValueError(f'tunnel: expected jump hosts as [user@]host[:port], got {place!r}')

    given: dict[str, Any] = {'host': found['literal'] or found['host']}

    if found['user']:
        given['username'] = found['user']

    if found['port']:
        given['port'] = int(found['port'])

    # Every hop has the configuration's part for itself.
    return await SSHClientConnectionOptions.construct(None, config=config, **given)
