"""Whether key exchanges by GSSAPI are offered: by a client with a ticket, by a server with the key of its service."""

from collections.abc import Callable
from functools import partial

from ..gss_context import GSSContext, GSSFailure
from ..logging import logger
from ..transport.kex.gss import gss_kex_algorithms
from .gss import KERBEROS, ClientContext, ServerContext
from .options import SSHClientConnectionOptions, SSHServerConnectionOptions

NewContext = Callable[[], GSSContext]


async def client_contexts(options: SSHClientConnectionOptions) -> NewContext | None:
    """Return what makes a client's contexts; None if they are not asked for, or if there is no ticket for the server.

    The first token is made to find out: it is not sent, but the ticket for it stays in the cache.
    """

    host = options.gss_host or options.host

    if not options.gss_kex or not host:
        return None

    try:
        await ClientContext(host, options.gss_store, delegate=False).step(b'')
    except GSSFailure as exc:
        logger.info('No key exchange by GSSAPI: %s', exc)

        return None

    return partial(ClientContext, host, options.gss_store, delegate=options.gss_delegate_creds)


def server_contexts(options: SSHServerConnectionOptions) -> NewContext | None:
    """Return what makes a server's contexts; None if they are not asked for."""

    return partial(ServerContext, options.gss_host or '', options.gss_store) if options.gss_kex else None


async def require_keys(options: SSHServerConnectionOptions) -> None:
    """Make sure that a server can prove who it is in each way that it offers.

    Raises:
      ValueError: it has no host key and no key exchange by GSSAPI, or no key for the latter
    """

    if not options.server_host_keys and not options.gss_kex:
        raise ValueError('server_host_keys: a server needs at least one host key')

    if options.gss_kex:
        try:
            await ServerContext(options.gss_host or '', options.gss_store).acquire()
        except GSSFailure as exc:
            raise ValueError(f'gss_kex: expected a key of the service in the keytab: {exc}') from None


def with_gss(kex_algs: tuple[bytes, ...], contexts: NewContext | None) -> tuple[bytes, ...]:
    """Put the methods of GSSAPI in front of the plain ones, if there are contexts for them."""

    return (gss_kex_algorithms(KERBEROS, kex_algs) if contexts else ()) + kex_algs
