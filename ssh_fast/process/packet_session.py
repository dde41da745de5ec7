"""What lies behind the streams of a channel that carries packets: each read gives one of them, whole."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from ..channel.session import SSHTunTapSession
from .stream_session import SSHStreamSession

_MAX_PACKETS = 1024    # that wait for somebody to read them


class PacketStreamSession(SSHStreamSession[bytes], SSHTunTapSession):
    """Keeps the packets that a channel receives for its reader, and stops the channel when that falls behind."""

    def __init__(self) -> None:
        super().__init__()

        self._packets: deque[bytes] = deque()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Keep a packet."""

        self._packets.append(data)
        self._wake_reader(datatype)
        self._update_pausing()

    async def read(self, datatype: int | None, n: int, exact: bool) -> bytes:
        """Read the next packet, whatever its size; nothing is the end.

        Raises:
          IncompleteReadError: exactly `n` bytes were wanted, and the packet has another size
        """

        if not n:
            return b''

        async with self._locks[datatype]:
            while not self._packets and not self._eof_received:
                await self._wait(datatype)

            if not self._packets and self._lost_error:
                raise self._lost_error

            packet = self._packets.popleft() if self._packets else b''
            self._after_reading()

        if exact and len(packet) != n:
            raise asyncio.IncompleteReadError(packet, n)

        return packet

    def take_line(self, datatype: int | None) -> bytes | None:
        """Tell that no line is there: packets have none."""

        return None

    async def readuntil(self, separator: object, datatype: int | None, max_separator_len: int = 0) -> bytes:
        """Refuse: packets have neither lines nor separators.

        Raises:
          TypeError: always
        """

        raise TypeError('A tunnel is read packet by packet: use read')

    async def aiter(self, datatype: int | None) -> AsyncIterator[bytes]:
        """Iterate over the packets."""

        while packet := await self.read(datatype, -1, exact=False):
            yield packet

    def at_eof(self, datatype: int | None) -> bool:
        """Return whether the end was received and every packet before it read."""

        return self._eof_received and not self._packets

    def _is_full(self, datatype: int | None) -> bool:
        return len(self._packets) >= _MAX_PACKETS
