"""The names of hosts by their addresses."""

import asyncio
import socket
from typing import Any


async def name_of(address: Any) -> str:
    """Return the name of a socket address, in lower case, or the address itself if it has none that leads back to it.

    Whoever owns an address also owns its reverse record, and may write any name there: the name's own records decide.
    """

    if not isinstance(address, tuple):
        return ''

    loop = asyncio.get_running_loop()
    addr = str(address[0])

    try:
        name, _ = await loop.getnameinfo(address, socket.NI_NAMEREQD)
        found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return addr

    return name.lower() if any(entry[4][0] == addr for entry in found) else addr


async def own_name(address: Any) -> str:
    """Return the name of this host for an address of its own, as OpenSSH finds it; else the name that it gives itself.

    Whoever is told it will look it up again.
    """

    if isinstance(address, tuple):
        try:
            name, _ = await asyncio.get_running_loop().getnameinfo(address, socket.NI_NAMEREQD)

            return name.lower()
        except OSError:
            pass

    return socket.gethostname().lower()
