"""Channels that carry the packets of a tunnel of layer 3 or the frames of one of layer 2 (OpenSSH's PROTOCOL 2.3).

Each is a message of its own. One of layer 3 has its address family in front, which is added and taken away here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

from .._datagrams import DatagramFlow
from .._flow import ChannelFlow
from ..errors import ChannelOpenError, ProtocolError
from ..wire import Cursor, encode_uint32
from .forward_channel import SSHForwardChannel
from .mux import Mux
from .session import SSHTunTapSession

TUN_CHANNEL: Final = b'tun@openssh.com'

# Modes of a tunnel
POINT_TO_POINT: Final = 1
ETHERNET: Final = 2

# A unit of the server's choice, and the last one that can be named
ANY_UNIT: Final = 0x7FFFFFFF
MAX_UNIT: Final = ANY_UNIT - 2

_FAMILIES = {4: encode_uint32(2), 6: encode_uint32(24)}
_FAMILY_SIZE = 4

# Packets that wait for a session that takes none; more are dropped, as on any link.
MAX_WAITING = 1024

# What OpenSSH takes of its window for each packet beside the packet: the length before it in its own buffer
_OPENSSH_OVERHEAD = 4

S = TypeVar('S', bound=SSHTunTapSession)


class SSHTunTapChannel(SSHForwardChannel[bytes]):
    """A channel that carries packets; what is written at once arrives at once."""

    flow_class: type[ChannelFlow] = DatagramFlow

    def __init__(
        self,
        mux: Mux,
        loop: asyncio.AbstractEventLoop,
        window: int,
        max_pktsize: int,
        max_window: int,
        peer_version: str,
    ) -> None:
        super().__init__(mux, loop, None, 'strict', window, max_pktsize, max_window)

        self._overhead = _OPENSSH_OVERHEAD if '-OpenSSH_' in peer_version else 0
        self._mode = POINT_TO_POINT

    async def connect(self, session_factory: Callable[[], S | Awaitable[S]], mode: int, unit: int | None) -> S:
        """Client: have the server open one of its devices, None for one of its choice.

        Raises:
          ChannelOpenError: the server refused
          ValueError: no unit has this number
        """

        self.set_mode(mode)

        return await self.open(session_factory, TUN_CHANNEL, encode_uint32(mode), encode_uint32(encode_unit(unit)))

    def set_mode(self, mode: int) -> None:
        """Choose the layer of the tunnel: `POINT_TO_POINT` or `ETHERNET`."""

        self._mode = mode

    def write(self, data: bytes, datatype: int | None = None) -> None:
        """Send a packet of IP or, in a tunnel of layer 2, a frame.

        Raises:
          BrokenPipeError: the channel is closed or closing, or its end of file was written
          ValueError: the packet is not of IP version 4 or 6, or larger than the peer takes
        """

        if not data:
            return

        if self._mode == POINT_TO_POINT:
            family = _FAMILIES.get(data[0] >> 4)

            if family is None:
                raise ValueError(f'data must be a packet of IP version 4 or 6, got version {data[0] >> 4}')

            data = family + bytes(data)

        if self._link and self._link.is_open and len(data) > (most := self._datagrams.max_send_size):
            raise ValueError(f'data must be at most {most} bytes with its head, got {len(data)}')

        super().write(data, datatype)

    def writelines(self, list_of_data: Iterable[bytes], datatype: int | None = None) -> None:
        """Send several packets."""

        for data in list_of_data:
            self.write(data, datatype)

    @property
    def _datagrams(self) -> DatagramFlow:
        flow = self.flow
        assert isinstance(flow, DatagramFlow)

        return flow

    def _opened(self, cursor: Cursor) -> None:
        self._datagrams.overhead = self._overhead

        super()._opened(cursor)

    def _keep(self, data: bytes, datatype: int) -> None:
        if len(self._received) < MAX_WAITING:
            self._received.append((data, datatype))
        else:
            self.flow.credit(len(data))

    def _deliver(self, data: bytes, datatype: int) -> None:
        if self._mode == POINT_TO_POINT and len(data) < _FAMILY_SIZE:
            self._fail(ProtocolError(f'Expected an address family of 4 bytes in front of a packet, got {data!r}'))
            return

        packet = data[_FAMILY_SIZE:] if self._mode == POINT_TO_POINT else data

        if packet and self._session:
            self._call(self._session.data_received, packet, None)

        if self._link:
            self._link.flow.credit(len(data))


def encode_unit(unit: int | None) -> int:
    """Return the number that stands for a unit.

    Raises:
      ValueError: no unit has this number
    """

    if unit is None:
        return ANY_UNIT

    if not 0 <= unit <= MAX_UNIT:
        raise ValueError(f'unit must be between 0 and {MAX_UNIT}, or None, got {unit}')

    return unit


def decode_tun(cursor: Cursor) -> tuple[int, int | None]:
    """Decode what the open of a tunnel says: its mode and its unit, None for one of our choice.

    Raises:
      ChannelOpenError: there is no such mode or unit
    """

    mode, unit = cursor.uint32(), cursor.uint32()
    cursor.check_end()

    if mode not in (POINT_TO_POINT, ETHERNET):
        raise ChannelOpenError(2, f'Expected a tunnel of mode {POINT_TO_POINT} or {ETHERNET}, got {mode}')

    if unit > MAX_UNIT and unit != ANY_UNIT:
        raise ChannelOpenError(2, f'Expected a unit of at most {MAX_UNIT}, or {ANY_UNIT}, got {unit}')

    return mode, None if unit == ANY_UNIT else unit
