"""Channels that carry a connection: of TCP (RFC 4254 section 7.2), of UNIX domain sockets (OpenSSH's PROTOCOL 2.4)."""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, AnyStr, Final, TypeVar

from ..errors import ChannelOpenError
from ..wire import Cursor, encode_string, encode_uint32
from .channel import SSHChannel
from .session import SSHSession

DIRECT_TCPIP: Final = b'direct-tcpip'
FORWARDED_TCPIP: Final = b'forwarded-tcpip'
DIRECT_STREAMLOCAL: Final = b'direct-streamlocal@openssh.com'
FORWARDED_STREAMLOCAL: Final = b'forwarded-streamlocal@openssh.com'

S = TypeVar('S', bound=SSHSession[Any])


class SSHForwardChannel(SSHChannel[AnyStr]):
    """A channel that carries a connection, opened by either side.

    Who wrote to such a connection does not hear that its end was not taken, so that is waited for.
    """

    _patient = True
    _created: asyncio.Future[None] | None = None

    def set_session(self, session: SSHSession[AnyStr]) -> None:
        """Set the session that this channel calls, before it is opened."""

        self._session = session

    async def open(self, session_factory: Callable[[], S | Awaitable[S]], channel_type: bytes, *fields: bytes) -> S:
        """Open the channel, and return the session that was made for it.

        Raises:
          ChannelOpenError: the peer refused it
        """

        made = session_factory()
        session: S = await made if isawaitable(made) else made
        self._session = session
        self._created = self._loop.create_future()

        try:
            self._mux.open_channel(self, channel_type, *fields)
        except Exception as exc:
            self.open_failed(exc)

        try:
            await self._created
        except BaseException:
            if not self._started:
                # It never was its session: whoever made it lets go of what it holds.
                self._session = None

            self.abort()
            raise

        return session

    def open_failed(self, exc: Exception) -> None:
        """End: the channel was never opened. A session that was ready to serve it lets go of what it holds."""

        session, self._session = self._session, None
        super().open_failed(exc)

        if self._created and not self._created.done():
            self._created.set_exception(exc)
        elif session:
            self._call(session.connection_lost, exc)

    def _opened(self, cursor: Cursor) -> None:
        cursor.check_end()

        if self._session:
            self._call(self._session.connection_made, self)

        self._start()

        if self._created and not self._created.done():
            self._created.set_result(None)


class SSHTCPChannel(SSHForwardChannel[AnyStr]):
    """A channel that carries a TCP connection."""

    async def connect(
        self, session_factory: Callable[[], S | Awaitable[S]], host: str, port: int, orig_host: str, orig_port: int
    ) -> S:
        """Have the server connect to a port, on behalf of who came from `orig_host`."""

        self.note_ends(host, port, orig_host, orig_port)

        return await self.open(session_factory, DIRECT_TCPIP, *tcp_fields(host, port, orig_host, orig_port))

    async def accept(
        self, session_factory: Callable[[], S | Awaitable[S]], host: str, port: int, orig_host: str, orig_port: int
    ) -> S:
        """Hand the client a connection that came to a port it asked for."""

        self.note_ends(host, port, orig_host, orig_port)

        return await self.open(session_factory, FORWARDED_TCPIP, *tcp_fields(host, port, orig_host, orig_port))

    def note_ends(self, host: str, port: int, orig_host: str, orig_port: int) -> None:
        """Keep the two ends of the connection, for `get_extra_info`."""

        self.set_extra_info(local_peername=(host, port), remote_peername=(orig_host, orig_port))


class SSHUNIXChannel(SSHForwardChannel[AnyStr]):
    """A channel that carries a connection of UNIX domain sockets."""

    async def connect(self, session_factory: Callable[[], S | Awaitable[S]], path: str) -> S:
        """Have the server connect to a socket."""

        self.note_path(path)

        return await self.open(
            session_factory, DIRECT_STREAMLOCAL, encode_string(path), encode_string(b''), encode_uint32(0)
        )

    async def accept(self, session_factory: Callable[[], S | Awaitable[S]], path: str) -> S:
        """Hand the client a connection that came to a socket it asked for."""

        self.note_path(path)

        return await self.open(session_factory, FORWARDED_STREAMLOCAL, encode_string(path), encode_string(b''))

    def note_path(self, path: str) -> None:
        """Keep the path of the socket, for `get_extra_info`."""

        self.set_extra_info(local_peername=path, remote_peername='')


def tcp_fields(host: str, port: int, orig_host: str, orig_port: int) -> tuple[bytes, ...]:
    """Encode what the open of a TCP channel says.

    Raises:
      ValueError: a port is out of range, or a name has a NUL in it
    """

    for name, value in (('port', port), ('orig_port', orig_port)):
        if not 0 <= value <= 65535:
            raise ValueError(f'{name} must be between 0 and 65535, got {value}')

    if '\0' in host:
        raise ValueError('host must not contain a NUL')

    return encode_string(host), encode_uint32(port), encode_string(orig_host), encode_uint32(orig_port)


def decode_tcp(cursor: Cursor) -> tuple[str, int, str, int]:
    """Decode what the open of a TCP channel says: host, port, the originator's host and port.

    Raises:
      ChannelOpenError: a port is out of range, or a host is no text
    """

    host, port = decode_text(cursor.string()), check_port(cursor.uint32())
    orig_host, orig_port = decode_text(cursor.string()), check_port(cursor.uint32())
    cursor.check_end()

    return host, port, orig_host, orig_port


def decode_path(cursor: Cursor, reserved_port: bool) -> str:
    """Decode what the open of a UNIX channel says: the socket's path; the rest is reserved."""

    path = decode_text(cursor.string())
    cursor.string()

    if reserved_port:
        cursor.uint32()

    cursor.check_end()

    return path


def check_port(value: int) -> int:
    """Return a port that a peer named.

    Raises:
      ChannelOpenError: it is out of range
    """

    if value > 65535:
        raise ChannelOpenError(2, f'Expected a port of at most 65535, got {value}')

    return value


def decode_text(data: bytes) -> str:
    """Decode a host or path that a peer named.

    Raises:
      ChannelOpenError: it is no text
    """

    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ChannelOpenError(2, 'Expected a host or path in UTF-8') from None

    if any(ord(char) < 32 for char in text):
        raise ChannelOpenError(2, 'Expected a host or path without control characters')

    return text
