"""Tunnel devices of this host, and what joins one with a channel: packets pass in both directions, one at a time."""

import asyncio
import contextlib
import errno
import os
import struct
import sys
from typing import Any

from ..channel.session import SSHTunTapSession
from ..channel.tuntap_channel import ETHERNET, encode_unit
from ..logging import logger
from .forwarder import SSHForwarder

if sys.platform == 'linux':
    import fcntl

_CLONE = '/dev/net/tun'

# <linux/if_tun.h>
_TUNSETIFF = 0x400454CA
_IFF_TUN = 1
_IFF_TAP = 2
_IFF_NO_PI = 0x1000
_IFREQ = struct.Struct('16sH22x')

_LARGEST = 1 << 16    # bytes of a packet
_AT_A_TIME = 64       # packets read before others have their turn


def open_device(mode: int, unit: int | None) -> tuple[int, str]:
    """Open the device of a unit, None for a free one; return its descriptor and its name. It has no address yet.

    Raises:
      OSError: it cannot be opened
      ValueError: no unit has this number
    """

    if sys.platform != 'linux':
        raise OSError(errno.ENOTSUP, 'Tunnel devices are opened on Linux only')

    kind, flag = ('tap', _IFF_TAP) if mode == ETHERNET else ('tun', _IFF_TUN)
    # The system puts a number in place of %d.
    name = f'{kind}%d' if unit is None else f'{kind}{encode_unit(unit)}'
    fd = os.open(_CLONE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    try:
        answer = fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), flag | _IFF_NO_PI))
    except OSError as exc:
        os.close(fd)
        raise OSError(exc.errno, f'{exc.strerror} ({name})') from exc

    return fd, _IFREQ.unpack(answer)[0].rstrip(b'\0').decode()


class TunTapForwarder(SSHForwarder, SSHTunTapSession):
    """The session of a channel that leads to a tunnel device."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, interface: str) -> None:
        super().__init__(loop)

        self._end: Any = _DeviceEnd(loop, self, fd, interface)
        self._full = False

    def pause_writing(self) -> None:
        """Read the device no more: its queue drops what the peer does not take."""

        self._full = True
        super().pause_writing()

    def resume_writing(self) -> None:
        """Read the device again."""

        self._full = False
        super().resume_writing()

    def socket_received(self, data: bytes) -> None:
        """Pass a packet on to the channel; one that cannot pass is dropped, as on any link."""

        with contextlib.suppress(ValueError):
            super().socket_received(data)

    @property
    def takes_packets(self) -> bool:
        """Whether a packet of the device may be passed on now."""

        return not self._full and not self._lost


class _DeviceEnd:
    """The device, as the forwarder has a socket."""

    holds_data = False

    def __init__(self, loop: asyncio.AbstractEventLoop, forwarder: TunTapForwarder, fd: int, interface: str) -> None:
        self._loop = loop
        self._forwarder = forwarder
        self._fd = fd
        self._interface = interface

    def get_extra_info(self, name: str) -> Any:
        return self._interface if name == 'interface' else None

    def resume_reading(self) -> None:
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._readable)

    def pause_reading(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)

    def _readable(self) -> None:
        for _ in range(_AT_A_TIME):
            if self._fd < 0 or not self._forwarder.takes_packets:
                return

            try:
                packet = os.read(self._fd, _LARGEST)
            except BlockingIOError:
                return
            except OSError as exc:
                # The device was taken away.
                self.abort()
                self._forwarder.socket_lost(exc)
                return

            self._forwarder.socket_received(packet)

    def write(self, data: bytes) -> None:
        if not data or self._fd < 0:
            return

        try:
            os.write(self._fd, data)
        except OSError as exc:
            # A packet that is none, a device that is down or full: what a link loses is not our matter.
            logger.debug('%s dropped a packet of %d bytes: %s', self._interface, len(data), exc.strerror)

    def write_eof(self) -> None:
        self.abort()
        self._forwarder.socket_ended()

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
