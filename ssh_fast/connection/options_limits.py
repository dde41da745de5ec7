"""What strangers may cost a server: the values of these options, as AsyncSSH and sshd_config would write them."""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, NamedTuple

from .options_prepare import duration, integer

Network = IPv4Network | IPv6Network

_MAX_SOURCES = 65536
_OVERFLOWS = ('permissive', 'deny-all')

# Proxies and tunnels of the machine itself connect from there: a penalty would keep out all who come through them.
LOOPBACK = (ip_network('127.0.0.0/8'), ip_network('::1/128'))


class Startups(NamedTuple):
    """How many connections may be logging in: from `start` on `rate` percent are dropped, and all from `full` on."""

    start: int
    rate: int
    full: int

    def dropped(self, count: int) -> int:
        """Return how many of a hundred are dropped when so many are logging in."""

        if count < self.start:
            return 0

        if count >= self.full:
            return 100

        return self.rate + (100 - self.rate) * (count - self.start) // (self.full - self.start)


class Penalties(NamedTuple):
    """What a connection that fails costs its source, in seconds, and how that adds up; sshd's PerSourcePenalties."""

    crash: float = 90.0
    authfail: float = 5.0
    invaliduser: float = 5.0
    noauth: float = 1.0
    grace_exceeded: float = 10.0
    max: float = 600.0
    min: float = 15.0
    max_sources4: int = _MAX_SOURCES
    max_sources6: int = _MAX_SOURCES
    overflow: str = 'permissive'
    overflow6: str = 'permissive'


def startups(name: str, value: Any) -> Startups | None:
    """Take a number, or start, rate and full as a tuple or as '10:30:100'; None for no limit."""

    if value is None:
        return None

    parts = value.split(':') if isinstance(value, str) else [value] if isinstance(value, int) else value
    numbers = _numbers(parts)

    if len(numbers) == 1:
        numbers = [numbers[0], 100, numbers[0]]

    if len(numbers) != 3 or not 1 <= numbers[0] <= numbers[2] or not 1 <= numbers[1] <= 100:
        raise ValueError(f"{name}: expected a number, or start, rate and full as '10:30:100', got {value!r}")

    return Startups(*numbers)


def optional_count(name: str, value: Any) -> int | None:
    """Take a number from 1, also as text; None and 'none' stand for no limit."""

    if value is None or value == 'none':
        return None

    return integer(1)(name, int(value) if isinstance(value, str) and value.isdecimal() else value)


def net_block_size(name: str, value: Any) -> tuple[int, int]:
    """Take how many bits of an IPv4 and of an IPv6 address make a source: two numbers, or '32:128', or the first."""

    parts = value.split(':') if isinstance(value, str) else [value] if isinstance(value, int) else value
    numbers = _numbers(parts)
    numbers += [128] if len(numbers) == 1 else []

    if len(numbers) != 2 or not 0 <= numbers[0] <= 32 or not 0 <= numbers[1] <= 128:
        raise ValueError(f"{name}: expected bits of IPv4 and IPv6 addresses as '32:128', got {value!r}")

    return numbers[0], numbers[1]


def penalties(name: str, value: Any) -> Penalties | None:
    """Take True, False, a mapping of some of the fields of `Penalties`, or sshd's 'authfail:5s min:15s'."""

    if isinstance(value, str):
        words = value.lower().split()

        if words in (['yes'], ['no']):
            value = words == ['yes']
        else:
            value = {word.partition(':')[0]: word.partition(':')[2] for word in words}

    if value is None or isinstance(value, bool):
        return Penalties() if value else None

    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{name}: expected True, False, a mapping or text as 'authfail:5s min:15s', got {value!r}")

    fields: dict[str, Any] = {}

    for word, given in value.items():
        field = str(word).replace('-', '_')

        if field not in Penalties._fields:
            raise ValueError(f'{name}: there is no {word!r} among {", ".join(Penalties._fields)}')

        if field.startswith('overflow'):
            if given not in _OVERFLOWS:
                raise ValueError(f'{name}: {word}: expected permissive or deny-all, got {given!r}')

            fields[field] = given
        elif field.startswith('max_sources'):
            fields[field] = integer(1)(f'{name}: {word}', int(given) if str(given).isdecimal() else given)
        else:
            fields[field] = duration(f'{name}: {word}', given)

    return Penalties(**fields)


def networks(name: str, value: Any) -> tuple[Network, ...]:
    """Take networks and addresses: a sequence, or text with commas in between; None and 'none' stand for no network."""

    if value is None or value == 'none':
        return ()

    parts = value.split(',') if isinstance(value, str) else value

    if not isinstance(parts, Sequence):
        raise ValueError(f'{name}: expected networks, got {value!r}')

    try:
        return tuple(ip_network(part.strip() if isinstance(part, str) else part, strict=False) for part in parts)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"{name}: expected networks as '192.0.2.0/24', got {value!r}: {exc}") from None


def _numbers(parts: Any) -> list[int]:
    """Read numbers; an empty list if there is anything else."""

    found = []

    for part in parts if isinstance(parts, Sequence) else ():
        if isinstance(part, bool) or not str(part).isdecimal() or len(str(part)) > 9:
            return []

        found.append(int(part))

    return found
