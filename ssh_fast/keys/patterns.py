"""Pattern lists of host names and addresses: `*` and `?`, CIDR networks, and `!` in front of what must not match."""

import ipaddress
from functools import lru_cache

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def matches_wildcard(pattern: str, text: str) -> bool:
    """Tell whether a text matches a pattern of `*` (any run) and `?` (any one); no other character is special.

    Takes len(pattern) * len(text) steps at most, where a regular expression may take for ever.
    """

    at = text_at = 0
    star = -1
    star_text = 0

    while text_at < len(text):
        if at < len(pattern) and pattern[at] == '*':
            star, star_text = at, text_at
            at += 1
        elif at < len(pattern) and pattern[at] in ('?', text[text_at]):
            at += 1
            text_at += 1
        elif star >= 0:
            star_text += 1
            at, text_at = star + 1, star_text
        else:
            return False

    return not pattern[at:].strip('*')


@lru_cache(maxsize=1024)
def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an address; a mapped IPv4 address counts as IPv4, a zone is left out. None if it is not one."""

    try:
        address = ipaddress.ip_address(text.partition('%')[0])
    except ValueError:
        return None

    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def canonical_address(text: str) -> str:
    """Write an address in its one form, so that no other spelling slips past a pattern; a name is left as it is."""

    # An IPv4 address has one form only.
    address = parse_address(text) if ':' in text else None

    return text if address is None else str(address)


class HostPattern:
    """One pattern of a list."""

    __slots__ = ('negated', 'network', 'text')

    def __init__(self, text: str) -> None:
        self.negated = text.startswith('!')
        self.text = text[self.negated :].lower()
        self.network: _Network | None = None

        if not self.text:
            raise ValueError('Expected a host pattern, got an empty one')

        if '/' in self.text:
            try:
                self.network = ipaddress.ip_network(self.text)
            except ValueError:
                raise ValueError(f'Expected a network with no host bits set, got {self.text!r}') from None
        else:
            self.text = canonical_address(self.text)

    def matches(self, host: str, addr: str) -> bool:
        """Tell whether the name or the address, both in lower case, fits, whatever `negated` says."""

        if self.network is not None:
            address = parse_address(addr)

            return address is not None and address in self.network

        return bool(host and matches_wildcard(self.text, host)) or bool(addr and matches_wildcard(self.text, addr))


class HostPatternList:
    """A comma-separated list of patterns: one must match, and none that is negated (ssh_config(5), PATTERNS)."""

    __slots__ = ('patterns',)

    def __init__(self, text: str) -> None:
        self.patterns = [HostPattern(part) for part in text.split(',')]

    def matches(self, host: str, addr: str) -> bool:
        """Tell whether a host of this name or address is meant."""

        host, addr = canonical_address(host.lower()), canonical_address(addr.lower())
        found = False

        for pattern in self.patterns:
            if pattern.matches(host, addr):
                if pattern.negated:
                    return False

                found = True

        return found
