"""All channels of one connection, by number: opening, dispatch and closing, and the global requests (RFC 4254).

The mux has no event loop: messages are given to it, what it sends goes to a `PacketSender`, and what has to be decided
goes to the `ChannelHost`. To open a channel, call `open_channel(channel, type, *fields)`; the channel is told of the
outcome. To answer a peer's open, `ChannelHost.channel_open_requested` returns a channel, an awaitable of one, or raises
`ChannelOpenError`.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from heapq import heappop, heappush
from inspect import isawaitable
from struct import Struct
from typing import NamedTuple, TypeAlias

from .._packet import PacketReader, PacketWriter
from ..constants import (
    DEFAULT_LANG,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_CONFIRMATION,
    MSG_CHANNEL_OPEN_FAILURE,
    MSG_CHANNEL_WINDOW_ADJUST,
    MSG_GLOBAL_REQUEST,
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_CONNECT_FAILED,
    OPEN_RESOURCE_SHORTAGE,
)
from ..errors import ChannelOpenError, DisconnectError, PacketDecodeError, ProtocolError
from ..logging import printable
from ..wire import Cursor, encode_boolean, encode_byte, encode_string, encode_uint32
from .answers import OrderedAnswers
from .host import ChannelHandler, ChannelHost, PacketSender
from .link import ChannelLink

_THREE = Struct('>III')    # our number of a channel, the window and the largest packet that we offer

DEFAULT_MAX_CHANNELS = 4096
DEFAULT_MAX_SESSIONS = 10   # OpenSSH's MaxSessions


# Its name, whether a reply is wanted, and its fields.
_GlobalRequest: TypeAlias = tuple[bytes, bool, Cursor]


class _PendingReply(NamedTuple):
    answer: Callable[[bool, bytes], None]
    failed: Callable[[Exception], None]


class _OpenRequest(NamedTuple):
    channel_type: bytes
    remote_id: int
    window: int
    max_packet: int


class Mux:
    """The channels of one connection, by number."""

    def __init__(
        self,
        sender: PacketSender,
        reader: PacketReader,
        writer: PacketWriter,
        host: ChannelHost,
        *,
        max_channels: int = DEFAULT_MAX_CHANNELS,
        max_sessions: int = DEFAULT_MAX_SESSIONS,
    ) -> None:
        """Make the mux; `max_sessions` bounds the session channels that the peer opens, `max_channels` all channels."""

        self._sender = sender
        self._reader = reader
        self._writer = writer
        self._max_channels = max_channels
        self._max_sessions = max_sessions
        self._links: dict[int, ChannelLink] = {}
        self._free: list[int] = []
        self._next_id = 0
        self._deciding = 0
        self._sessions = 0
        self._no_more_sessions = False
        self._lost: Exception | None = None
        self._is_lost = False
        self._replies: deque[_PendingReply] = deque()
        self._answers: OrderedAnswers[_GlobalRequest, bool | bytes] = OrderedAnswers(
            host, self._handle_global_request, self._answer_global_request, False
        )
        self.host = host

    @property
    def channels(self) -> list[ChannelLink]:
        """The channels that are opening, open or closing."""

        return list(self._links.values())

    # --- receiving ----------------------------------------------------------------------------------------------------

    def message_received(self, message_type: int, payload: bytes, sequence: int) -> bool:
        """Handle a message of number 80 to 127; return whether the number is a known one.

        Raises:
          ProtocolError: the message is malformed, or not allowed at this point
        """

        if MSG_CHANNEL_EOF <= message_type <= MSG_CHANNEL_FAILURE:
            self._find(payload).receive(message_type, payload)
        elif message_type == MSG_CHANNEL_OPEN:
            self._receive_open(payload)
        elif message_type == MSG_CHANNEL_OPEN_CONFIRMATION:
            self._receive_confirmation(payload)
        elif message_type == MSG_CHANNEL_OPEN_FAILURE:
            self._receive_failure(payload)
        elif MSG_CHANNEL_WINDOW_ADJUST <= message_type <= MSG_CHANNEL_EXTENDED_DATA:
            self._receive_data(message_type, payload)
        elif message_type == MSG_GLOBAL_REQUEST:
            cursor = Cursor(payload)
            cursor.byte()
            self._answers.receive((cursor.string(), cursor.boolean(), cursor), len(payload))
        elif message_type in (MSG_REQUEST_SUCCESS, MSG_REQUEST_FAILURE):
            self._receive_global_reply(message_type == MSG_REQUEST_SUCCESS, payload)
        else:
            return False

        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every channel and everyone who waits that the connection is gone (None: closed in order)."""

        if self._is_lost:
            return

        self._is_lost = True
        self._lost = exc
        self._answers.close()

        for link in self.channels:
            link.connection_lost(exc)

        self._links.clear()

        while self._replies:
            self._replies.popleft().failed(self._closed_error())

    # --- opening ------------------------------------------------------------------------------------------------------

    def open_channel(self, channel: ChannelHandler, channel_type: bytes, *fields: bytes) -> ChannelLink:
        """Ask the peer for a channel; `channel.channel_opened` or `channel.open_failed` tells the outcome."""

        if self._is_lost:
            raise self._closed_error()

        if len(self._links) + self._deciding >= self._max_channels:
            raise ChannelOpenError(OPEN_RESOURCE_SHORTAGE, f'More than {self._max_channels} channels')

        link = self._add(channel, False)
        numbers = _THREE.pack(link.local_id, channel.window, channel.max_packet)
        self._send(MSG_CHANNEL_OPEN, encode_string(channel_type), numbers, *fields)

        return link

    def _receive_confirmation(self, payload: bytes) -> None:
        link, cursor = self._find_opening(payload)
        link.open(cursor.uint32(), cursor.uint32(), cursor.uint32())
        link.opened(cursor)

    def _receive_failure(self, payload: bytes) -> None:
        link, cursor = self._find_opening(payload)
        code = cursor.uint32()
        reason = cursor.string().decode('utf-8', 'replace')
        # Some servers leave out the language tag.
        lang = cursor.string().decode('ascii', 'replace') if cursor.remaining else DEFAULT_LANG
        self._release(link)
        link.open_failed(ChannelOpenError(code, printable(reason), printable(lang)))

    def _receive_open(self, payload: bytes) -> None:
        cursor = Cursor(payload)
        cursor.byte()
        request = _OpenRequest(cursor.string(), cursor.uint32(), cursor.uint32(), cursor.uint32())

        if not request.max_packet:
            raise ProtocolError('Expected a maximum packet size of at least 1 in a channel open, got 0')

        try:
            self._check_room(request)
            answer = self.host.channel_open_requested(request.channel_type, cursor)
        except DisconnectError:
            raise
        except Exception as exc:
            self._refuse(request, exc)
            return

        if isawaitable(answer):
            self._deciding += 1
            self._sessions += request.channel_type == b'session'
            self.host.create_task(self._decide(request, answer))
        else:
            self._accept(request, answer)

    async def _decide(self, request: _OpenRequest, answer: Awaitable[ChannelHandler]) -> None:
        try:
            channel = await answer
        except Exception as exc:
            refusal: Exception | None = exc
        else:
            refusal = None
        finally:
            self._deciding -= 1
            self._sessions -= request.channel_type == b'session'

        try:
            if refusal:
                if not self._is_lost:
                    self._refuse(request, refusal)
            elif self._is_lost:
                channel.open_failed(self._closed_error())
            else:
                self._accept(request, channel)
        except DisconnectError as exc:
            self.host.fail(exc)

    def _check_room(self, request: _OpenRequest) -> None:
        if len(self._links) + self._deciding >= self._max_channels:
            raise ChannelOpenError(OPEN_RESOURCE_SHORTAGE, f'More than {self._max_channels} channels')

        if request.channel_type == b'session':
            if self._no_more_sessions:
                raise ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, 'No more sessions were announced')

            if self._sessions >= self._max_sessions:
                raise ChannelOpenError(OPEN_RESOURCE_SHORTAGE, f'More than {self._max_sessions} sessions')

    def _accept(self, request: _OpenRequest, channel: ChannelHandler) -> None:
        link = self._add(channel, request.channel_type == b'session')
        link.open(request.remote_id, request.window, request.max_packet)
        numbers = _THREE.pack(link.local_id, channel.window, channel.max_packet)
        self._send(MSG_CHANNEL_OPEN_CONFIRMATION, encode_uint32(request.remote_id), numbers)
        link.opened(Cursor(b''))

    def _refuse(self, request: _OpenRequest, exc: Exception) -> None:
        if isinstance(exc, ChannelOpenError):
            code, reason, lang = exc.code, exc.reason, exc.lang
        else:
            self.host.logger.error('Uncaught exception while a channel open was decided', exc_info=exc)
            code, reason, lang = OPEN_CONNECT_FAILED, 'The channel could not be opened', DEFAULT_LANG

        self._send(
            MSG_CHANNEL_OPEN_FAILURE,
            encode_uint32(request.remote_id),
            encode_uint32(code),
            encode_string(reason),
            encode_string(lang),
        )

    # --- channel numbers ----------------------------------------------------------------------------------------------

    def _add(self, channel: ChannelHandler, serves_session: bool) -> ChannelLink:
        # The smallest free number: the express lane looks flows up in a list.
        if self._free:
            local_id = heappop(self._free)
        else:
            local_id = self._next_id
            self._next_id += 1

        flow = channel.flow_class(
            self._reader, self._writer, local_id, channel, channel.window, channel.max_window, channel.max_packet
        )
        link = ChannelLink(
            self._sender, self._reader, self.host, channel, flow, local_id, self._release, serves_session
        )
        self._links[local_id] = link
        self._sessions += serves_session

        return link

    def _release(self, link: ChannelLink) -> None:
        del self._links[link.local_id]
        heappush(self._free, link.local_id)
        self._sessions -= link.serves_session

    def _find(self, payload: bytes) -> ChannelLink:
        if len(payload) < 5:
            raise PacketDecodeError(f'Expected a channel message of at least 5 bytes, got {len(payload)}')

        local_id = int.from_bytes(payload[1:5], 'big')
        link = self._links.get(local_id)

        if not link or not link.is_open:
            raise ProtocolError(f'Expected the number of an open channel in message {payload[0]}, got {local_id}')

        return link

    def _find_opening(self, payload: bytes) -> tuple[ChannelLink, Cursor]:
        cursor = Cursor(payload)
        cursor.byte()
        local_id = cursor.uint32()
        link = self._links.get(local_id)

        if not link or link.is_open:
            raise ProtocolError(f'Expected the number of an opening channel in message {payload[0]}, got {local_id}')

        return link, cursor

    # --- data by the main road ----------------------------------------------------------------------------------------

    def _receive_data(self, message_type: int, payload: bytes) -> None:
        flow = self._find(payload).flow
        cursor = Cursor(payload)
        cursor.bytes(5)

        if message_type == MSG_CHANNEL_WINDOW_ADJUST:
            size = cursor.uint32()
            cursor.check_end()
            flow.adjust(size)
            return

        datatype = 0

        if message_type == MSG_CHANNEL_EXTENDED_DATA:
            datatype = cursor.uint32()

            if not datatype:
                raise ProtocolError('Expected an extended data type, got 0')
        elif message_type != MSG_CHANNEL_DATA:
            raise ProtocolError(f'Expected channel data, got message {message_type}')

        data = cursor.string()
        cursor.check_end()
        flow.receive(data, datatype)

    # --- global requests ----------------------------------------------------------------------------------------------

    def send_global_request(
        self,
        name: bytes,
        *fields: bytes,
        answer: Callable[[bool, bytes], None] | None = None,
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Send a global request; `answer` asks for a reply and is given whether it is a success, and its data.

        `failed` is called if the connection goes away first.
        """

        if self._is_lost:
            raise self._closed_error()

        if answer:
            self._replies.append(_PendingReply(answer, failed or _ignore))

        self._send(MSG_GLOBAL_REQUEST, encode_string(name), encode_boolean(answer is not None), *fields)

    def _receive_global_reply(self, success: bool, payload: bytes) -> None:
        if self._replies:
            self._replies.popleft().answer(success, payload[1:])
        else:
            self.host.logger.debug('Dropped a reply to no global request')

    def _handle_global_request(self, request: _GlobalRequest) -> bool | bytes | Awaitable[bool | bytes]:
        name, want_reply, cursor = request

        if name == b'no-more-sessions@openssh.com':
            self._no_more_sessions = True
            return True

        return self.host.global_request_received(name, cursor, want_reply)

    def _answer_global_request(self, request: _GlobalRequest, answer: bool | bytes) -> None:
        _, want_reply, _ = request

        if not want_reply:
            return

        if answer is False:
            self._send(MSG_REQUEST_FAILURE)
        else:
            self._send(MSG_REQUEST_SUCCESS, b'' if answer is True else answer)

    # --- private ------------------------------------------------------------------------------------------------------

    def _send(self, message_type: int, *fields: bytes) -> None:
        self._sender.send_message(b''.join((encode_byte(message_type), *fields)))

    def _closed_error(self) -> Exception:
        return self._lost or ChannelOpenError(OPEN_CONNECT_FAILED, 'The connection is closed')


def _ignore(exc: Exception) -> None:
    """Take note of nothing."""
