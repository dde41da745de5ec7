"""Sockets for connections: connecting, with errors that name host and port, and their options."""

import asyncio
import socket
from collections.abc import Callable
from typing import TypeVar

ConnectionT = TypeVar('ConnectionT', bound=asyncio.BaseProtocol)


async def dial(
    factory: Callable[[], ConnectionT],
    host: str,
    port: int,
    *,
    family: int = 0,
    flags: int = 0,
    local_addr: tuple[str, int] | None = None,
    sock: socket.socket | None = None,
) -> ConnectionT:
    """Connect to a host, or take a connected socket, and return the protocol that `factory` makes for it.

    Raises:
      OSError: no address of the host could be connected to; the error names host and port
      ValueError: the host's name has no form in the DNS
    """

    loop = asyncio.get_running_loop()

    if sock is not None:
        _, protocol = await loop.create_connection(factory, sock=sock)

        return protocol

    try:
        _, protocol = await loop.create_connection(
            factory, host, port, family=family, flags=flags, local_addr=local_addr
        )
    except UnicodeError as exc:
        raise ValueError(f'host: {host[:64]!r} cannot be a host name: {exc}') from exc
    except OSError as exc:
        if exc.errno is None:
            raise OSError(f'Cannot connect to {host} port {port}: {exc}') from exc

        raise type(exc)(exc.errno, f'Cannot connect to {host} port {port}: {exc.strerror or exc}') from exc

    return protocol


def tune_socket(sock: socket.socket | None, keepalive: bool) -> None:
    """Send small packets at once, and have the system probe an idle peer if asked to."""

    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(keepalive))
