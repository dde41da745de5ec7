"""What a connection can tell of its transport: the versions of both sides, and the algorithms in force."""

from typing import Any

from ..transport.transport import Transport

_ALGORITHM_NAMES = frozenset(
    ('kex', 'host_key', *(f'{way}_{what}' for way in ('send', 'recv') for what in ('cipher', 'mac', 'compression')))
)


def algorithm_info(transport: Transport, name: str, default: Any) -> Any:
    """Look up a version or an algorithm by the name that `get_extra_info` gives it, as text; `default` if unknown."""

    if name in ('client_version', 'server_version'):
        version: bytes = getattr(transport, name)
        return version.decode('ascii', 'backslashreplace') if version else default

    algorithms = transport.algorithms
    attribute = {'kex_alg': 'kex', 'host_key_alg': 'host_key'}.get(name, name)

    if algorithms and attribute in _ALGORITHM_NAMES:
        return getattr(algorithms, attribute).decode('ascii')

    return default
