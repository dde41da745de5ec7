"""Connecting to where a channel leads: a TCP port, or a UNIX domain socket."""

import asyncio
import socket

_TIMEOUT = 30.0    # seconds that all addresses of a host together may take
_PAUSE = 0.02      # seconds between attempts at a path


async def connect_tcp(host: str, port: int) -> socket.socket:
    """Connect to the first address of a host that answers; one that is silent leaves time for those behind it.

    Raises:
      OSError: none does
    """

    loop = asyncio.get_running_loop()
    end = loop.time() + _TIMEOUT
    failure = OSError('the host has no address')

    try:
        async with asyncio.timeout_at(end):
            addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as exc:
        raise OSError(f'the host has no form in the DNS: {exc}') from exc

    for left, (family, kind, proto, _, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
        now = loop.time()

        try:
            async with asyncio.timeout_at(now + (end - now) / left):
                return await _connect(socket.socket(family, kind, proto), address)
        except TimeoutError:
            failure = TimeoutError('the host does not answer')
        except OSError as exc:
            failure = exc

    raise failure


async def connect_path(path: str) -> socket.socket:
    """Connect to a UNIX domain socket.

    Raises:
      OSError: nobody listens there
    """

    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)

    try:
        async with asyncio.timeout(_TIMEOUT):
            while True:
                try:
                    sock.connect(path)
                except BlockingIOError:
                    # So many wait there already that there is no room for us. Nobody tells when there is again: asyncio
                    # would take the socket for connected.
                    await asyncio.sleep(_PAUSE)
                else:
                    return sock
    except ValueError as exc:
        sock.close()
        raise OSError(str(exc)) from exc
    except BaseException:
        sock.close()
        raise


async def _connect(sock: socket.socket, address: object) -> socket.socket:
    sock.setblocking(False)

    try:
        await asyncio.get_running_loop().sock_connect(sock, address)  # type: ignore[arg-type]
    except BaseException:
        sock.close()
        raise

    return sock
