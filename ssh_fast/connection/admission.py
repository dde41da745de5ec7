"""Which connections a listener takes at all: how many may be logging in, and which sources have lost their credit.

Asked before anything is made for a connection, so that a refusal costs next to nothing. What is remembered of sources
is bounded. Addresses are cut to `per_source_net_block_size` bits; what has no address, as UNIX sockets, is one crowd.
"""

import random
from collections import Counter
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, NamedTuple, Protocol

from ..errors import ConnectionLost, DisconnectError, IllegalUserName
from ..logging import logger
from .options_limits import Network, Penalties, Startups

# What is told to who is turned away, in place of an identification; the words are sshd's.
TOO_MANY = b'Exceeded MaxStartups\r\n'
NOT_NOW = b'Not allowed at this time\r\n'


_draw = random.SystemRandom().random


class Limits(Protocol):
    """The options that admission depends on; looked at each time, as they may be updated."""

    max_connections: int | None
    max_startups: Startups | None
    per_source_max_startups: int | None
    per_source_net_block_size: tuple[int, int]
    per_source_penalties: Penalties | None
    per_source_penalty_exempt: tuple[Network, ...]
    login_timeout: float


class Source(NamedTuple):
    """Where connections come from: a network, as the version of IP, its bits, and how many they are."""

    version: int
    bits: int
    size: int

    @property
    def network(self) -> str:
        """The network as people write it."""

        if self.version == 4:
            return str(IPv4Network((self.bits << (32 - self.size), self.size)))

        return str(IPv6Network((self.bits << (128 - self.size), self.size)))


class PenaltyTable:
    """When the penalties of sources end; at most `max_sources` of one version of IP."""

    def __init__(self) -> None:
        self._ends: dict[Source, float] = {}
        self._barred: set[Source] = set()
        self._order: list[tuple[float, Source]] = []

    def __len__(self) -> int:
        return len(self._ends)

    def __contains__(self, source: Source) -> bool:
        return source in self._ends

    def add(self, source: Source, seconds: float, now: float, *, least: float, most: float) -> bool:
        """Add to a source's penalty; return whether it is kept out from now on: at `least` seconds together."""

        end = min(max(self._ends.get(source, now), now) + seconds, now + most)
        self._ends[source] = end
        heappush(self._order, (end, source))

        if end - now >= least:
            self._barred.add(source)

        # Ends that have moved since are left in the heap until they come up; not for ever.
        if len(self._order) > 2 * len(self._ends) + 16:
            self._order = [(when, which) for which, when in self._ends.items()]
            heapify(self._order)

        return source in self._barred

    def bars(self, source: Source, now: float) -> bool:
        """Return whether a source is kept out."""

        self.expire(now)

        return source in self._barred

    def expire(self, now: float) -> None:
        """Forget the penalties that are over."""

        while self._order and (self._order[0][0] <= now or self._ends.get(self._order[0][1]) != self._order[0][0]):
            self._forget_first()

    def make_room(self, most: int) -> None:
        """Forget the penalties that end first until there are less than `most`."""

        while self._order and len(self._ends) >= most:
            self._forget_first()

    def _forget_first(self) -> None:
        end, source = heappop(self._order)

        if self._ends.get(source) == end:
            del self._ends[source]
            self._barred.discard(source)


class Startup:
    """One connection that was admitted, until it has ended."""

    def __init__(self, admission: 'Admission', source: Source | None, since: float, *, exempt: bool) -> None:
        self._admission = admission
        self._source = source
        self._since = since
        self._exempt = exempt
        self._logging_in = True

    def logged_in(self) -> None:
        """The client is in: it is no stranger any more."""

        if self._logging_in:
            self._logging_in = False
            self._admission.login_over(self._source)

    def ended(self, exc: Exception | None, failures: int) -> None:
        """The connection is over; `failures` is how often the client failed to log in."""

        if self._logging_in:
            self.logged_in()

            if self._source and exc is not None and not self._exempt:
                self._admission.failed(self._source, exc, failures, self._since)

        self._admission.connection_over()


class Admission:
    """Decides about the connections of one listener."""

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], float],
        draw: Callable[[], float] = _draw,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._draw = draw
        self._connections = 0
        self._startups = 0
        self._of_source: Counter[Source] = Counter()
        self._penalties = {4: PenaltyTable(), 6: PenaltyTable()}

    @property
    def startups(self) -> int:
        """How many connections are logging in."""

        return self._startups

    @property
    def remembered(self) -> int:
        """How many sources anything is remembered of."""

        return len(self._of_source) + sum(map(len, self._penalties.values()))

    def admit(self, peername: Any) -> Startup | bytes:
        """Return the startup of a connection from this address, or what to tell it before it is closed."""

        limits, now = self._limits, self._clock()
        address = _address(peername)
        source = _source(address, limits.per_source_net_block_size)

        if limits.max_connections is not None and self._connections >= limits.max_connections:
            return TOO_MANY

        exempt = any(address in network for network in limits.per_source_penalty_exempt) if source else True

        if source and not exempt and self._is_barred(source, now):
            return NOT_NOW

        most = limits.per_source_max_startups

        if source and most is not None and self._of_source[source] >= most:
            return TOO_MANY

        if limits.max_startups and self._draw() * 100 < limits.max_startups.dropped(self._startups):
            return TOO_MANY

        self._connections += 1
        self._startups += 1

        if source:
            self._of_source[source] += 1

        return Startup(self, source, now, exempt=exempt)

    def _is_barred(self, source: Source, now: float) -> bool:
        rules = self._limits.per_source_penalties

        if not rules:
            return False

        table = self._penalties[source.version]
        most, overflow = _bounds(source, rules)

        if table.bars(source, now):
            return True

        return overflow == 'deny-all' and len(table) >= most

    # --- what startups tell

    def login_over(self, source: Source | None) -> None:
        """A connection logs in no more."""

        self._startups -= 1

        if source:
            self._of_source[source] -= 1

            if not self._of_source[source]:
                del self._of_source[source]

    def connection_over(self) -> None:
        """A connection is over."""

        self._connections -= 1

    def failed(self, source: Source, exc: Exception, failures: int, since: float) -> None:
        """A connection ended before its client was in: that costs its source something."""

        rules, now = self._limits.per_source_penalties, self._clock()

        if not rules:
            return

        seconds = _penalty(rules, exc, failures, now - since >= self._limits.login_timeout > 0)
        table = self._penalties[source.version]
        most, overflow = _bounds(source, rules)
        table.expire(now)

        if not seconds or (source not in table and len(table) >= most and overflow == 'deny-all'):
            return

        if source not in table:
            table.make_room(most)

        if table.add(source, seconds, now, least=rules.min, most=rules.max):
            logger.info('Connections from %s are not allowed for %.0f seconds at least', source.network, rules.min)


def _penalty(rules: Penalties, exc: Exception, failures: int, late: bool) -> float:
    if not isinstance(exc, DisconnectError | OSError):
        return rules.crash

    if late and isinstance(exc, ConnectionLost):
        return rules.grace_exceeded

    if isinstance(exc, IllegalUserName):
        return rules.invaliduser

    return rules.authfail if failures else rules.noauth


def _bounds(source: Source, rules: Penalties) -> tuple[int, str]:
    return (rules.max_sources4, rules.overflow) if source.version == 4 else (rules.max_sources6, rules.overflow6)


def _address(peername: Any) -> Any:
    """Return the address of a socket's peer, None if it has none."""

    if not isinstance(peername, tuple) or not isinstance(peername[0], str):
        return None

    try:
        address = ip_address(peername[0].partition('%')[0])
    except ValueError:
        return None

    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _source(address: Any, sizes: tuple[int, int]) -> Source | None:
    if address is None:
        return None

    size = sizes[0] if address.version == 4 else sizes[1]

    return Source(address.version, int(address) >> (address.max_prefixlen - size), size)
