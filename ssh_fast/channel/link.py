"""One channel's side of the protocol: what was sent, what came, and what may come next (RFC 4254 section 5)."""

from collections import deque
from collections.abc import Awaitable, Callable
from struct import Struct
from typing import TypeAlias

from .._flow import ChannelFlow
from .._packet import PacketReader
from ..constants import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_SUCCESS,
    OPEN_CONNECT_FAILED,
)
from ..errors import ChannelOpenError, ConnectionLost, ProtocolError
from ..wire import Cursor, encode_string
from .answers import OrderedAnswers
from .host import ChannelHandler, ChannelHost, PacketSender

_HEAD = Struct('>BI')    # of every message of a channel: its number, and the peer's number of the channel

# Called with whether a request of ours was granted; also with False if the channel closes before the reply.
ReplyCallback: TypeAlias = Callable[[bool], None]

# A request of the peer: its name, whether it wants a reply, and its fields. An end of file, which waits with the
# requests for its turn, is None.
_Request: TypeAlias = tuple[bytes, bool, Cursor]


class ChannelLink:
    """A channel that is opening, open, or closing; the mux drops it when both sides have closed it.

    Data goes through `flow`. What must not overtake data (EOF, CLOSE, an exit status) is given to the flow too;
    requests are not: a signal has to arrive although the window is used up.
    """

    __slots__ = (
        '_answers', '_close_queued', '_close_sent', '_eof_received', '_eof_sent', '_handler', '_host', '_reader',
        '_released', '_replies', '_sender', 'closed_by_peer', 'flow', 'is_open', 'local_id', 'remote_id',
        'serves_session',
    )

    def __init__(
        self,
        sender: PacketSender,
        reader: PacketReader,
        host: ChannelHost,
        handler: ChannelHandler,
        flow: ChannelFlow,
        local_id: int,
        released: Callable[['ChannelLink'], None],
        serves_session: bool = False,
    ) -> None:
        self._sender = sender
        self._reader = reader
        self._host = host
        self._handler = handler
        self._released = released
        self._answers: OrderedAnswers[_Request | None, bool] = OrderedAnswers(
            host, self._handle, self._answered, False
        )
        self._replies: deque[ReplyCallback] = deque()
        self._eof_sent = False
        self._eof_received = False
        self._close_queued = False
        self._close_sent = False
        self.closed_by_peer = False
        self.flow = flow
        self.local_id = local_id
        self.remote_id = 0
        self.is_open = False
        self.serves_session = serves_session

    # --- opening ------------------------------------------------------------------------------------------------------

    def open(self, remote_id: int, window: int, max_packet: int) -> None:
        """Begin with what the peer said of its side; data may come from now on."""

        self.flow.open(remote_id, window, max_packet)
        self.remote_id = remote_id
        self.is_open = True
        self._reader.add_flow(self.flow)

    def opened(self, cursor: Cursor) -> None:
        """Tell the channel that it is open."""

        self._handler.channel_opened(self, cursor)

    def open_failed(self, exc: Exception) -> None:
        """Tell the channel that it could not be opened."""

        self._handler.open_failed(exc)

    @property
    def can_send(self) -> bool:
        """Whether data may be sent: the channel is open, and neither EOF nor CLOSE was sent."""

        return self.is_open and not self._eof_sent and not self._close_queued

    # --- receiving ----------------------------------------------------------------------------------------------------

    def receive(self, message_type: int, payload: bytes) -> None:
        """Handle one of the messages 96 to 100 of this channel, which is open."""

        if message_type == MSG_CHANNEL_REQUEST:
            cursor = Cursor(payload)
            cursor.bytes(5)
            self._answers.receive((cursor.string(), cursor.boolean(), cursor), len(payload))
        elif message_type == MSG_CHANNEL_EOF:
            self._receive_eof(payload)
        elif message_type == MSG_CHANNEL_CLOSE:
            _expect_no_fields(payload)
            self._receive_close()
        else:
            _expect_no_fields(payload)
            self._receive_reply(message_type == MSG_CHANNEL_SUCCESS)

    def _receive_eof(self, payload: bytes) -> None:
        _expect_no_fields(payload)

        # Some clients send a second EOF with their close: it says nothing new.
        if not self._eof_received:
            self._eof_received = True
            self.flow.receive_eof()
            self._answers.receive(None, len(payload))

    def _receive_close(self) -> None:
        if not self._close_has_left():
            self._close_now()

        self.closed_by_peer = True
        self._release(None)

    def _receive_reply(self, granted: bool) -> None:
        if self._replies:
            self._replies.popleft()(granted)
        else:
            self._host.logger.debug('Dropped a reply to no request on channel %d', self.local_id)

    def _handle(self, request: _Request | None) -> bool | Awaitable[bool]:
        if request is None:
            self._handler.eof_received()
            return True

        name, _, cursor = request

        return self._handler.request_received(name, cursor)

    def _answered(self, request: _Request | None, granted: bool) -> None:
        if request is None:
            return

        name, want_reply, _ = request

        if want_reply and self.is_open and not self._close_queued:
            self._send(MSG_CHANNEL_SUCCESS if granted else MSG_CHANNEL_FAILURE)

        self._handler.request_answered(name, granted)

    # --- sending ------------------------------------------------------------------------------------------------------

    def send_request(
        self, name: bytes, *fields: bytes, answer: ReplyCallback | None = None, in_order: bool = False
    ) -> None:
        """Send a channel request; `answer` asks for a reply, `in_order` keeps it behind the data sent before it.

        Without either it overtakes only data that the peer's window keeps from being sent.
        """

        payload = self._message(
            MSG_CHANNEL_REQUEST, encode_string(name), b'\1' if answer else b'\0', *fields
        )

        if answer:
            self._replies.append(answer)

        if not answer and self.flow.queued_items:
            in_order = in_order or self.flow.queued <= self.flow.send_window

        if in_order:
            self.flow.send_in_order(payload)
        else:
            self._sender.send_message(payload)

    def send_eof(self) -> None:
        """Send an end of file behind the data, once."""

        if self.can_send:
            self._eof_sent = True
            self.flow.send_in_order(self._message(MSG_CHANNEL_EOF))

    def close(self) -> None:
        """Send CLOSE behind the data; what still comes is dropped."""

        if self.is_open and not self._close_queued:
            self._close_queued = True
            self.flow.discard()
            self.flow.send_in_order(self._message(MSG_CHANNEL_CLOSE))

    def abort(self) -> None:
        """Send CLOSE at once; data that was not sent is dropped, and so is what still comes."""

        if self.is_open and not self._close_has_left():
            self._close_now()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the channel that its connection is gone, which is an error unless we were closing the channel."""

        if self.is_open:
            if not exc and not self._close_queued:
                exc = ConnectionLost('The connection was closed')

            self._release(exc)
        else:
            self._handler.open_failed(exc or ChannelOpenError(OPEN_CONNECT_FAILED, 'The connection is closed'))

    def _message(self, message_type: int, *fields: bytes) -> bytes:
        return b''.join((_HEAD.pack(message_type, self.remote_id), *fields))

    def _send(self, message_type: int) -> None:
        self._sender.send_message(self._message(message_type))

    def _close_has_left(self) -> bool:
        # CLOSE is the last thing that a flow is given: if nothing is parked, it is on its way.
        return self._close_sent or (self._close_queued and not self.flow.queued_items)

    def _close_now(self) -> None:
        self.flow.close()
        self._close_queued = self._close_sent = True
        self._send(MSG_CHANNEL_CLOSE)

    def _release(self, exc: Exception | None) -> None:
        self.is_open = False
        self._reader.remove_flow(self.flow)
        self.flow.close()
        self._answers.close()
        self._released(self)
        self._handler.channel_closed(exc)

        while self._replies:
            self._replies.popleft()(False)


def _expect_no_fields(payload: bytes) -> None:
    if len(payload) != 5:
        raise ProtocolError(f'Expected a channel message of 5 bytes, got type {payload[0]} with {len(payload)} bytes')
