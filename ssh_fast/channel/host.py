"""What the channels need from the connection above them, and what the mux needs from a channel."""

from collections.abc import Awaitable, Coroutine
from typing import Any, Protocol

from .._flow import ChannelFlow
from ..errors import DisconnectError
from ..logging import ContextLogger
from ..wire import Cursor


class PacketSender(Protocol):
    """Where messages go that are not channel data: the transport."""

    def send_message(self, payload: bytes) -> None:
        """Send a message, now or as soon as a running key exchange is done."""


class ChannelHandler(Protocol):
    """One channel, as the mux sees it."""

    window: int          # bytes offered to the peer at first
    max_window: int      # bytes up to which the offer may grow
    max_packet: int      # the largest data that the peer may put into one packet
    flow_class: type[ChannelFlow]

    def channel_opened(self, link: Any, cursor: Cursor) -> None:
        """The channel is open on both sides; the cursor holds what its type adds to the confirmation."""

    def open_failed(self, exc: Exception) -> None:
        """The open that was asked for failed, or the connection went away before it was answered."""

    def data_received(self, data: bytes, datatype: int) -> None:
        """Data came; `flow.credit` is due when the consumer has taken it."""

    def eof_received(self) -> None:
        """No more data comes."""

    def request_received(self, name: bytes, cursor: Cursor) -> bool | Awaitable[bool]:
        """Handle a channel request; return whether it was granted."""

    def request_answered(self, name: bytes, granted: bool) -> None:
        """The reply to a request, if one was wanted, has been sent."""

    def channel_closed(self, exc: Exception | None) -> None:
        """Both sides closed the channel (None), or the connection went away."""

    def sink_failed(self, exc: Exception) -> None:
        """The compiled consumer of the data cannot go on; what still comes is dropped."""

    def sending_paused(self) -> None:
        """More than `flow.high_water` bytes wait."""

    def sending_resumed(self) -> None:
        """Less than `flow.low_water` bytes wait."""


class ChannelHost(Protocol):
    """The connection, as the mux and its channels see it."""

    @property
    def logger(self) -> ContextLogger:
        """The connection's logger."""

    def channel_open_requested(
        self, channel_type: bytes, cursor: Cursor
    ) -> ChannelHandler | Awaitable[ChannelHandler]:
        """Return the channel made for a peer's open request, or raise ChannelOpenError.

        The cursor holds the fields of that channel type.
        """

    def global_request_received(
        self, name: bytes, cursor: Cursor, want_reply: bool
    ) -> bool | bytes | Awaitable[bool | bytes]:
        """Handle a global request; bytes are a success and what it replies."""

    def create_task(self, coro: Coroutine[Any, Any, None]) -> object:
        """Run a coroutine that belongs to this connection and is cancelled with it."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Look up what is known of the connection."""

    def fail(self, exc: DisconnectError) -> None:
        """End the connection: an error was found outside of `message_received`."""
