"""A client's connection as far as tunnels of layer 2 and 3 go: from a program, or a device, to one of the server."""

from collections.abc import Callable
from typing import Any

from ..channel.channel import DEFAULT_MAX_PACKET, DEFAULT_WINDOW
from ..channel.session import SSHTunTapSession
from ..channel.tuntap_channel import ETHERNET, POINT_TO_POINT, SSHTunTapChannel
from ..forwarding.forwarder import SSHForwarder
from ..opening import opening
from ..process.packet_session import PacketStreamSession
from ..process.streams import SSHReader, SSHWriter
from .client_forwarding import ForwardingClientConnection


class TunnelingClientConnection(ForwardingClientConnection):
    """A client's connection with its tunnels."""

    async def create_tun(
        self,
        session_factory: Callable[[], SSHTunTapSession],
        remote_unit: int | None = None,
        *,
        window: int = DEFAULT_WINDOW,
        max_pktsize: int = DEFAULT_MAX_PACKET,
    ) -> tuple[SSHTunTapChannel, SSHTunTapSession]:
        """Open a tunnel of layer 3 to a TUN device of the server, None for one of its choice.

        The session is given packets of IP, one at a time, and writes as such; return its channel and it.

        Raises:
          ChannelOpenError: the server refused
        """

        chan = self._require_forwarding().tuntap_channel(window, max_pktsize)

        return chan, await chan.connect(session_factory, POINT_TO_POINT, remote_unit)

    async def create_tap(
        self,
        session_factory: Callable[[], SSHTunTapSession],
        remote_unit: int | None = None,
        *,
        window: int = DEFAULT_WINDOW,
        max_pktsize: int = DEFAULT_MAX_PACKET,
    ) -> tuple[SSHTunTapChannel, SSHTunTapSession]:
        """Open a tunnel of layer 2 to a TAP device of the server, None for one of its choice.

        The session is given Ethernet frames, one at a time, and writes as such; return its channel and it.

        Raises:
          ChannelOpenError: the server refused
        """

        chan = self._require_forwarding().tuntap_channel(window, max_pktsize)

        return chan, await chan.connect(session_factory, ETHERNET, remote_unit)

    async def open_tun(self, *args: Any, **kwargs: Any) -> tuple[SSHReader[bytes], SSHWriter[bytes]]:
        """Open a tunnel as `create_tun` does; return streams, of which each read or write is a packet."""

        chan, session = await self.create_tun(PacketStreamSession, *args, **kwargs)
        assert isinstance(session, PacketStreamSession)

        return SSHReader(session, chan), SSHWriter(session, chan)

    async def open_tap(self, *args: Any, **kwargs: Any) -> tuple[SSHReader[bytes], SSHWriter[bytes]]:
        """Open a tunnel as `create_tap` does; return streams, of which each read or write is a frame."""

        chan, session = await self.create_tap(PacketStreamSession, *args, **kwargs)
        assert isinstance(session, PacketStreamSession)

        return SSHReader(session, chan), SSHWriter(session, chan)

    @opening
    async def forward_tun(self, local_unit: int | None = None, remote_unit: int | None = None) -> SSHForwarder:
        """Join a TUN device of this host with one of the server; the system still has to give them addresses.

        `get_extra_info('interface')` of what is returned is the device's name here, and its `close` ends both.

        Raises:
          OSError: the device here cannot be opened
          ChannelOpenError: the server refused
        """

        return await self._require_forwarding().forward_tuntap(POINT_TO_POINT, local_unit, remote_unit)

    @opening
    async def forward_tap(self, local_unit: int | None = None, remote_unit: int | None = None) -> SSHForwarder:
        """Join a TAP device of this host with one of the server, as `forward_tun` does.

        Raises:
          OSError: the device here cannot be opened
          ChannelOpenError: the server refused
        """

        return await self._require_forwarding().forward_tuntap(ETHERNET, local_unit, remote_unit)
