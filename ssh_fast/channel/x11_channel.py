"""X11 forwarding on the wire (RFC 4254 section 6.3): what a session asks for, and the channels of X clients."""

import asyncio
import re
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol, Self

from ..wire import Cursor, encode_boolean, encode_string, encode_uint32
from .forward_channel import SSHForwardChannel, check_port, decode_text
from .mux import Mux
from .session import SSHTCPSession

X11_CHANNEL: Final = b'x11'
X11_REQUEST: Final = b'x11-req'

# What is longer than this authenticates nobody: a cookie of X11 has 16 bytes.
MAX_PROTOCOL = 64
MAX_COOKIE = 256

_PROTOCOL = re.compile(rb'[A-Za-z0-9_-]{1,%d}' % MAX_PROTOCOL)


class X11Request(NamedTuple):
    """What a client asks for on a session, with the cookie that X clients on the server's side are to present."""

    single_connection: bool
    protocol: bytes
    cookie: bytes
    screen: int

    def encode(self) -> tuple[bytes, ...]:
        """Return the fields of the request; the cookie goes as hexadecimal text."""

        return (
            encode_boolean(self.single_connection),
            encode_string(self.protocol),
            encode_string(self.cookie.hex()),
            encode_uint32(self.screen),
        )

    @classmethod
    def decode(cls, cursor: Cursor) -> Self | None:
        """Read the fields of the request; None if nobody could authenticate with what they say.

        Raises:
          PacketDecodeError: they are malformed
        """

        single_connection = cursor.boolean()
        protocol, digits = cursor.string(), cursor.string()
        screen = cursor.uint32()
        cursor.check_end()

        if not _PROTOCOL.fullmatch(protocol) or not re.fullmatch(rb'(?:[0-9A-Fa-f]{2}){1,%d}' % MAX_COOKIE, digits):
            return None

        return cls(single_connection, protocol, bytes.fromhex(digits.decode()), screen)


class X11Asked(NamedTuple):
    """A client's wish for X11 on a session: whether the session cannot be without, and what to call at its end."""

    request: X11Request
    required: bool
    ended: Callable[[], None]


class X11Granted(Protocol):
    """What a server has made ready for the X clients of a session."""

    @property
    def display(self) -> str:
        """The name of the display that they connect to."""

    @property
    def environment(self) -> dict[str, str]:
        """The variables that tell them of it."""

    def close(self) -> None:
        """Take it away."""


class SSHX11Channel(SSHForwardChannel[bytes]):
    """A channel that carries the connection of an X client."""

    def __init__(
        self, mux: Mux, loop: asyncio.AbstractEventLoop, window: int, max_pktsize: int, max_window: int
    ) -> None:
        super().__init__(mux, loop, None, 'strict', window, max_pktsize, max_window)

    async def accept(
        self, session_factory: Callable[[], SSHTCPSession[bytes]], orig_host: str, orig_port: int
    ) -> SSHTCPSession[bytes]:
        """Server: hand the client the connection of an X client.

        Raises:
          ChannelOpenError: the client does not take it
        """

        self.note_origin(orig_host, orig_port)

        return await self.open(session_factory, X11_CHANNEL, encode_string(orig_host), encode_uint32(orig_port))

    def note_origin(self, orig_host: str, orig_port: int) -> None:
        """Keep where the X client is, for `get_extra_info`."""

        self.set_extra_info(local_peername=('', 0), remote_peername=(orig_host, orig_port))


def decode_x11(cursor: Cursor) -> tuple[str, int]:
    """Decode what the open of an X11 channel says: the originator's host and port.

    Raises:
      ChannelOpenError: the port is out of range, or the host is no text
    """

    host, port = decode_text(cursor.string()), check_port(cursor.uint32())
    cursor.check_end()

    return host, port
