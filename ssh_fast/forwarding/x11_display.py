"""Displays of X11: where a name leads to and what opens it, and ports of our own that pass for one."""

import errno
import os
import re
import socket
from typing import NamedTuple, Self

from ..errors import ChannelListenError
from .targets import connect_path, connect_tcp
from .x11_auth import FAMILY_INTERNET, FAMILY_INTERNET6, FAMILY_LOCAL, find_cookie, read_entries

_FIRST_PORT = 6000
_SOCKETS = '/tmp/.X11-unix/X'

# The numbers of displays that forward, as OpenSSH has them: X servers of the host itself have small ones.
FIRST_DISPLAY = 10
LAST_DISPLAY = 999

_BACKLOG = 20

_NAME = re.compile(r'(?P<host>.*):(?P<number>\d{1,5})(?:\.(?P<screen>\d{1,5}))?', re.DOTALL)


class X11Display(NamedTuple):
    """A display: a socket's path for one of this host, or else a host; its number, and its default screen."""

    path: str
    host: str
    number: int
    screen: int

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read a name, as `:0`, `unix:0.1`, `host:10`, `[::1]:10.0` or, on macOS, the path of a socket and `:0`.

        Raises:
          ValueError: it is none
        """

        match = _NAME.fullmatch(name)

        if not match or (number := int(match['number'])) > 65535 - _FIRST_PORT or '\0' in name:
            raise ValueError(f'expected a display as [host]:number[.screen], got {name!r}')

        host, screen = match['host'], int(match['screen'] or 0)

        if host in ('', 'unix'):
            return cls(f'{_SOCKETS}{number}', '', number, screen)

        if host.startswith('/'):
            return cls(f'{host}:{number}', '', number, screen)

        return cls('', host.removeprefix('[').removesuffix(']'), number, screen)

    async def connect(self) -> socket.socket:
        """Connect to the X server.

        Raises:
          OSError: it cannot be reached
        """

        if self.path:
            return await connect_path(self.path)

        return await connect_tcp(self.host, _FIRST_PORT + self.number)

    def find_cookie(self, auth_path: str) -> bytes | None:
        """Look up the cookie that opens the display; this may wait for the network.

        Raises:
          XauthorityError: the file cannot be read, or not be understood
        """

        return find_cookie(read_entries(auth_path), self._addresses(), self.number)

    def _addresses(self) -> list[tuple[int, bytes]]:
        local = FAMILY_LOCAL, os.fsencode(socket.gethostname())

        if self.path:
            return [local]

        found: list[tuple[int, bytes]] = []

        try:
            addresses = socket.getaddrinfo(self.host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return []

        for family, _, _, _, address in addresses:
            packed = socket.inet_pton(family, str(address[0]).partition('%')[0])

            if packed in (b'\x7f\0\0\1', bytes(15) + b'\1'):
                found.append(local)
            else:
                found.append((FAMILY_INTERNET if family == socket.AF_INET else FAMILY_INTERNET6, packed))

        return found


def bind_display() -> tuple[int, list[socket.socket]]:
    """Listen on the port of the first free display, on the loopback address of each family; return its number too.

    Raises:
      ChannelListenError: none is free
    """

    for number in range(FIRST_DISPLAY, LAST_DISPLAY + 1):
        if sockets := _bind(_FIRST_PORT + number):
            return number, sockets

    raise ChannelListenError(f'No display between {FIRST_DISPLAY} and {LAST_DISPLAY} is free')


def _bind(port: int) -> list[socket.socket]:
    """Listen on a port; nothing if anybody else does so on either address."""

    sockets: list[socket.socket] = []

    for family, address in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            # The family may be switched off.
            continue

        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            sock.listen(_BACKLOG)
        except OSError as exc:
            sock.close()

            if exc.errno == errno.EADDRNOTAVAIL:
                continue

            # What listens at one of them could take connections for the other.
            while sockets:
                sockets.pop().close()

            break

        sockets.append(sock)

    return sockets
