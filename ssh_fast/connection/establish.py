"""Establishing a client's connection: directly, by a command, or through other connections, and then the login."""

import asyncio
import re
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from .dial import dial
from .gss_kex import NewContext, client_contexts
from .options import SSHClientConnectionOptions
from .proxy_command import dial_command
from .tunnel import Opener, dial_through

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
    """Connect and log in; whatever goes wrong leaves no connection behind.

    It leads through `outer`, a connection that is then closed with it, or else where the options lead.

    Raises:
      TimeoutError: it took longer than the option `connect_timeout`
      ValueError: a jump host is nothing that can be one
    """

    loop = asyncio.get_running_loop()
    connection: ConnectionT | None = None

    def make_connection() -> ConnectionT:
        nonlocal connection

        connection = connection_class(loop, options, new_gss_context)
        connection.stop_before_login(before_login)

        if made_connection:
            made_connection(connection)

        return connection

    limit = asyncio.timeout(options.connect_timeout)
    owned = outer is not None

    try:
        async with limit:
            try:
                new_gss_context = await client_contexts(options)
            except BaseException:
                if sock is not None:
                    sock.close()

                raise

            if outer is None and sock is None and options.route is not None:
                outer, owned = await _open_route(connection_class, options, hops)

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
            where = f'{options.host} port {options.port}' if options.host else 'the server'
            raise TimeoutError(f'Connecting to {where} took longer than {options.connect_timeout:g} seconds') from None

        raise

    return made


async def _open_route(connection_class: Any, options: SSHClientConnectionOptions, hops: int) -> tuple[Opener, bool]:
    """Return the connection to go through, and whether it was opened for that."""

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
            hop_options = await _hop_options(place, options)
            outer = await establish(connection_class, hop_options, outer=outer, hops=hops)
        except Exception as exc:
            exc.add_note(f'While connecting to the jump host {place}')
            raise

    return outer, True


async def _hop_options(place: str, options: SSHClientConnectionOptions) -> SSHClientConnectionOptions:
    found = _HOP.fullmatch(place)

    if not found:
        raise ValueError(f'tunnel: expected jump hosts as [user@]host[:port], got {place!r}')

    given: dict[str, Any] = {'host': found['literal'] or found['host']}

    if found['user']:
        given['username'] = found['user']

    if found['port']:
        given['port'] = int(found['port'])

    # Every hop has the configuration's part for itself.
    return await SSHClientConnectionOptions.construct(None, config=options.config_given, **given)
