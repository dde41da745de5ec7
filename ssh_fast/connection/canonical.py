"""The canonical name of a host: its domain and, if permitted, the name that it is an alias of (ssh_config(5))."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Protocol

from ..keys.patterns import parse_address
from ..logging import logger, printable
from .config_match import matches_list


class CanonicalOptions(Protocol):
    """What decides about a name."""

    host: str
    family: int
    proxy_command: tuple[str, ...] | None
    canonicalize_hostname: bool | str
    canonical_domains: tuple[str, ...]
    canonicalize_fallback_local: bool
    canonicalize_max_dots: int
    canonicalize_permitted_cnames: tuple[tuple[str, str], ...]

    @property
    def route(self) -> object:
        """What the connection leads through."""


async def canonical_name(options: CanonicalOptions, loop: asyncio.AbstractEventLoop) -> str:
    """Look the host's name up in the DNS, in each of the domains in turn, and return the first that is there.

    Behind a proxy names are looked up only if that is asked for by `canonicalize_hostname` 'always'.

    Raises:
      OSError: the name is in none of the domains, and may not be looked for elsewhere
    """

    host = options.host
    proxied = options.proxy_command is not None or options.route is not None

    if not host or parse_address(host) or (proxied and options.canonicalize_hostname != 'always'):
        return host

    rules = options.canonicalize_permitted_cnames

    if host.endswith('.'):
        # It has all of its domain.
        name = await _look_up(host, options.family, loop)

        return host[:-1] if name is None else _follow(host[:-1], name.rstrip('.'), rules)

    if host.count('.') <= options.canonicalize_max_dots:
        for domain in options.canonical_domains:
            full = f'{host}.{domain.strip(".")}'
            name = await _look_up(f'{full}.', options.family, loop)

            if name is not None:
                return _follow(full, name.rstrip('.'), rules)

        if options.canonical_domains and not options.canonicalize_fallback_local:
            domains = ', '.join(options.canonical_domains)
            raise OSError(f'Cannot find the host {host} in the domains {domains}')

    if rules:
        name = await _look_up(host, options.family, loop)

        if name is not None:
            return _follow(host, name.rstrip('.'), rules)

    return host


async def _look_up(host: str, family: int, loop: asyncio.AbstractEventLoop) -> str | None:
    """Return the canonical name of a host, or its own if the system knows no other; None if there is no such host."""

    try:
        found = await loop.getaddrinfo(
            host, None, family=family, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME
        )
    except (OSError, UnicodeError) as exc:
        logger.debug('No host %s: %s', printable(host), exc)
        return None

    return next((entry[3] for entry in found if entry[3]), host)


def _follow(host: str, name: str, rules: Sequence[tuple[str, str]]) -> str:
    """Return the name that a host is an alias of, if a rule lets it be followed there."""

    name = name.lower()

    if name == host.lower():
        return host

    for sources, targets in rules:
        if matches_list(sources, host, lower=True) and matches_list(targets, name, lower=True):
            return name

    return host
