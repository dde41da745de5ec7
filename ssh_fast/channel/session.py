"""The callback classes that an application derives from to use a channel.

The calls come in this order: `connection_made`, on a server the `..._requested` calls, `session_started`, then
`data_received` and `eof_received`, and last `connection_lost`.
"""

from collections.abc import Awaitable, Mapping
from typing import Any, AnyStr, Generic, TypeAlias

BytesOrStr: TypeAlias = bytes | str

# Of received data: None, or EXTENDED_DATA_STDERR
DataType: TypeAlias = int | None

# What a server's requests answer, plain or awaited. The channel's later messages wait for it; other channels go on.
Granted: TypeAlias = bool | Awaitable[bool]


# What takes note of something may be a coroutine too.
Told: TypeAlias = Awaitable[None] | None


class SSHSession(Generic[AnyStr]):
    """The calls that every kind of session has; each does nothing until overridden."""

    def connection_made(self, chan: Any) -> None:
        """Take note of the channel, which is open now but not started."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the channel is closed; `exc` is None after an orderly close."""

    def session_started(self) -> None:
        """Begin: the channel may be written to, and its data follows."""

    def data_received(self, data: AnyStr, datatype: int | None) -> None:
        """Take data: `str` if the channel has an encoding, else `bytes`; `datatype` is None or EXTENDED_DATA_STDERR."""

    def eof_received(self) -> bool | None:
        """Take note that the peer sends no more data; return true to keep the sending direction open.

        If the result is false, an end of file is sent in return.
        """

        return False

    def pause_writing(self) -> None:
        """Stop writing, if possible: more than the high-water mark waits to be sent."""

    def resume_writing(self) -> None:
        """Go on writing: less than the low-water mark waits to be sent."""


class SSHClientSession(SSHSession[AnyStr]):
    """A client's session: a command, a shell or a subsystem on the server."""

    def xon_xoff_requested(self, client_can_do: bool) -> None:
        """Take note whether the client may do flow control with ^S and ^Q (RFC 4254 section 6.8)."""

    def exit_status_received(self, status: int) -> None:
        """Take the exit status, 0 to 255; more output may follow it."""

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        """Take the name, without SIG, of the signal that ended the command."""


class SSHServerSession(SSHSession[AnyStr]):
    """A server's session; the calls that only servers have may also be coroutines."""

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> Granted:
        """Grant or refuse a terminal; sizes are in characters and then in pixels."""

        return True

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> Told:
        """Take the terminal's new size."""

        return None

    def shell_requested(self) -> Granted:
        """Grant or refuse a shell."""

        return False

    def exec_requested(self, command: str) -> Granted:
        """Grant or refuse the execution of a command."""

        return False

    def subsystem_requested(self, subsystem: str) -> Granted:
        """Grant or refuse a subsystem."""

        return False

    def break_received(self, msec: int) -> Granted:
        """Take a break of `msec` milliseconds; return whether it was performed (RFC 4335)."""

        return False

    def signal_received(self, signal: str) -> Told:
        """Take a signal's name, without SIG."""

        return None

    def soft_eof_received(self) -> Told:
        """Take note of an end of file typed into a terminal, after which input may go on."""

        return None


class SSHTCPSession(SSHSession[AnyStr]):
    """The session of a forwarded TCP connection."""


class SSHUNIXSession(SSHSession[AnyStr]):
    """The session of a forwarded UNIX domain connection."""


class SSHTunTapSession(SSHSession[bytes]):
    """The session of a tunnel of IP or Ethernet packets."""
