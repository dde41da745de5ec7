"""What joins two channels, of two connections: bytes, ends and back pressure are passed on in both directions.

The second channel is opened first. What it gives waits in its receive window until the first is open too.
"""

from typing import Any

from ..channel.channel import SSHChannel
from ..channel.session import SSHTCPSession, SSHUNIXSession


class ChannelEnd(SSHTCPSession[bytes], SSHUNIXSession[bytes]):
    """The session of one of two channels that are joined."""

    other: 'ChannelEnd'

    def __init__(self) -> None:
        self._chan: SSHChannel[bytes] | None = None
        self._started = False
        self._ended = False      # the data of this channel
        self._lost = False

    # --- the channel's calls

    def connection_made(self, chan: Any) -> None:
        """Take the channel."""

        self._chan = chan

    def session_started(self) -> None:
        """Begin, when the other channel is there too."""

        self._started = True

        if self.other._lost:
            self._close_channel(None)
        elif self.other._started:
            self.other._go_on()
        elif self._chan:
            self._chan.pause_reading()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Pass data on."""

        self.other._write(data)

    def eof_received(self) -> bool:
        """Pass the end of the data on; what comes from the other channel goes on."""

        self._ended = True
        self.other._write_eof()

        if self.other._ended:
            self._close_channel(None)
            self.other._close_channel(None)

        return True

    def pause_writing(self) -> None:
        """Take no more from the other channel: this one's peer takes no data."""

        if self.other._chan and not self.other._lost:
            self.other._chan.pause_reading()

    def resume_writing(self) -> None:
        """Take data from the other channel again."""

        self.other._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other channel, behind what it still has to send."""

        self._lost = True
        self.other._close_channel(exc)

    # --- the other end's calls

    def _go_on(self) -> None:
        if self._chan and not self._lost:
            self._chan.resume_reading()

    def _write(self, data: bytes) -> None:
        if self._chan and not self._chan.is_closing():
            self._chan.write(data)

    def _write_eof(self) -> None:
        if self._chan and not self._chan.is_closing():
            self._chan.write_eof()

    def _close_channel(self, exc: Exception | None) -> None:
        if self._chan and not self._lost:
            if exc:
                self._chan.abort()
            else:
                self._chan.close()


def make_bridge() -> tuple[ChannelEnd, ChannelEnd]:
    """Make the sessions of two channels that are to be joined."""

    first, second = ChannelEnd(), ChannelEnd()
    first.other, second.other = second, first

    return first, second
