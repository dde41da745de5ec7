"""Listeners: sockets of our own whose connections are handed on, and ports of a peer that lead to us."""

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from ..errors import ChannelListenError
from ..logging import logger

_BACKLOG = 100

# Seconds before sockets are accepted again after the system had none left.
_PAUSE = 0.2

# Connections of one listener that may wait for their channel at a time.
_MAX_OPENING = 128

Accept = Callable[[socket.socket, str, int], Awaitable[None]]


class SSHListener:
    """Something that is listened on; `async with` closes it at the end."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        await self.wait_closed()

    def get_port(self) -> int:
        """Return the port that is listened on; 0 if it is a path."""

        return 0

    def close(self) -> None:
        """Listen no more; the connections that there are go on."""

        raise TypeError('A listener is one of sockets or of a peer')

    async def wait_closed(self) -> None:
        """Wait until nothing is listened on any more."""

        raise TypeError('A listener is one of sockets or of a peer')


class SocketListener(SSHListener):
    """Sockets of our own: `accept` is run for each connection, and owns its socket."""

    def __init__(self, sockets: Sequence[socket.socket], accept: Accept, path: str = '') -> None:
        self._sockets = list(sockets)
        self._accept = accept
        self._path = path
        self._identity = _identity(path)
        self._port = 0 if path else sockets[0].getsockname()[1]
        self._slots = asyncio.Semaphore(_MAX_OPENING)
        self._opening: set[asyncio.Task[None]] = set()
        self._tasks = {asyncio.get_running_loop().create_task(self._serve(sock)) for sock in sockets}

    def get_port(self) -> int:
        """Return the port that is listened on; 0 if it is a path."""

        return self._port

    def close(self) -> None:
        """Listen no more; the connections that there are go on."""

        for task in self._tasks:
            task.cancel()

        while self._sockets:
            sock = self._sockets.pop()
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()

        if self._path and self._identity == _identity(self._path):
            with suppress(OSError):
                os.unlink(self._path)

        self._path = ''

    @property
    def is_open(self) -> bool:
        """Whether connections are accepted."""

        return bool(self._sockets)

    def abandon(self) -> None:
        """Listen no more, and drop the connections whose channel is not open yet."""

        self.close()

        for task in self._opening:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until nothing is listened on any more."""

        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()

        while True:
            await self._slots.acquire()

            try:
                sock, address = await loop.sock_accept(listening)
            except OSError as exc:
                self._slots.release()

                if not self._sockets:
                    return

                # No descriptors are left, or the peer has gone: neither ends the listening.
                logger.warning('A forwarded connection could not be accepted: %s', exc)
                await asyncio.sleep(_PAUSE)
                continue
            except BaseException:
                self._slots.release()
                raise

            host, port = address[:2] if isinstance(address, tuple) else ('', 0)
            task = loop.create_task(self._run(sock, host, port))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _run(self, sock: socket.socket, host: str, port: int) -> None:
        try:
            await self._accept(sock, host, port)
        except Exception as exc:
            logger.info('A connection was not forwarded: %s', exc)
            sock.close()
        except BaseException:
            sock.close()
            raise
        finally:
            self._slots.release()


class PeerListener(SSHListener):
    """A port or path of the peer: connections to it come as channels, until `cancel` is sent."""

    def __init__(self, port: int, cancel: Callable[[], Awaitable[Any] | None]) -> None:
        self._port = port
        self._cancel = cancel
        self._cancelled: asyncio.Future[Any] | None = None

    def get_port(self) -> int:
        """Return the port that is listened on; 0 if it is a path."""

        return self._port

    def close(self) -> None:
        """Listen no more; the connections that there are go on."""

        if self._cancelled is None:
            waiting = self._cancel()
            self._cancelled = asyncio.ensure_future(waiting) if waiting is not None else _done()

    async def wait_closed(self) -> None:
        """Wait until the peer has answered."""

        if self._cancelled:
            await asyncio.wait([self._cancelled])


def _done() -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_result(None)

    return future


async def listen_tcp(host: str | None, port: int, accept: Accept) -> SocketListener:
    """Listen on all addresses of a host, '' or '*' for every one, None for those that only this machine reaches.

    Port 0 finds a free one, the same for all.

    Raises:
      ChannelListenError: none can be listened on
    """

    loop = asyncio.get_running_loop()
    sockets: list[socket.socket] = []

    try:
        addresses = await loop.getaddrinfo(
            host if host not in ('', '*') else None,
            port,
            type=socket.SOCK_STREAM,
            flags=0 if host is None else socket.AI_PASSIVE,
        )

        for family, kind, proto, _, address in dict.fromkeys(addresses):
            try:
                sock = socket.socket(family, kind, proto)
            except OSError:
                # IPv6 may be switched off.
                continue

            sockets.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)

            try:
                sock.bind((address[0], port, *address[2:]))
            except OSError as exc:
                if exc.errno != errno.EADDRNOTAVAIL or family != socket.AF_INET6 or len(addresses) == 1:
                    raise

                # IPv6 is there, but none of its addresses.
                sockets.pop().close()
                continue

            sock.listen(_BACKLOG)
            port = port or sock.getsockname()[1]

        if not sockets:
            raise OSError('the host has no address')
    except (OSError, UnicodeError, OverflowError) as exc:
        for sock in sockets:
            sock.close()

        where = 'localhost' if host is None else host or '*'
        raise ChannelListenError(f'Cannot listen on {where} port {port}: {exc}') from exc

    return SocketListener(sockets, accept)


def listen_path(path: str, accept: Accept) -> SocketListener:
    """Listen on a UNIX domain socket, which only this user may connect to; there must be nothing at its path.

    Raises:
      ChannelListenError: it cannot be listened on
    """

    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)

    try:
        sock.bind(path)
    except (OSError, ValueError) as exc:
        sock.close()
        raise ChannelListenError(f'Cannot listen on {path}: {exc}') from exc

    try:
        os.chmod(path, 0o600)
        sock.listen(_BACKLOG)
    except OSError as exc:
        sock.close()
        os.unlink(path)
        raise ChannelListenError(f'Cannot listen on {path}: {exc}') from exc

    return SocketListener([sock], accept, path)


def _identity(path: str) -> tuple[int, int] | None:
    """Tell a socket's file from one that took its place."""

    if not path:
        return None

    try:
        status = os.lstat(path)
    except OSError:
        return None

    return (status.st_dev, status.st_ino) if stat.S_ISSOCK(status.st_mode) else None
