"""A session channel as the client has it: opening it, its requests, and how its command ended (RFC 4254 section 6).

The connection opens one with

    chan = SSHClientChannel(mux, loop, encoding, errors, window, max_pktsize)
    session = await chan.create(session_factory, command=..., env=prepare_environment(env, send_env), ...)

Nothing waits for the event loop in between: `connection_made` is called as the confirmation arrives, `session_started`
as the command is granted, so a session that attaches a sink to `chan.flow` there misses no data.
"""

import asyncio
import os
import signal as signals
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, AnyStr, NamedTuple, TypeAlias, cast

from ..constants import (
    EXTENDED_DATA_STDERR,
    OPEN_REQUEST_PTY_FAILED,
    OPEN_REQUEST_SESSION_FAILED,
    OPEN_REQUEST_X11_FORWARDING_FAILED,
    PTY_OP_END,
    PTY_OP_RESERVED,
)
from ..errors import ChannelOpenError
from ..logging import printable
from ..wire import Cursor, encode_byte, encode_string, encode_uint32
from .agent_channel import AGENT_REQUEST
from .channel import SSHChannel
from .session import SSHClientSession
from .x11_channel import X11_REQUEST, X11Asked

Text: TypeAlias = str | bytes
Environment: TypeAlias = Mapping[Any, Any] | Sequence[tuple[Text, Text]] | Sequence[Text] | None
TerminalSize: TypeAlias = tuple[int, int] | tuple[int, int, int, int] | None

_UNKNOWN_SIGNAL = 99    # what get_returncode says for a signal that this system doesn't have


class _Start(NamedTuple):
    """What to ask for, once the channel is open."""

    request: bytes
    fields: tuple[bytes, ...]
    pty: tuple[bytes, ...] | None


def prepare_environment(env: Environment = None, send_env: Sequence[Text] | None = None) -> dict[bytes, bytes]:
    """Make one mapping of an environment given as a mapping, as pairs, or as 'name=value', and of our own variables.

    `send_env` names variables of this process to send, where set; `*` and `?` in names are wildcards.

    Raises:
      ValueError: an entry is not of the form 'name=value', or has a name or value that no environment can hold
      TypeError: an entry is neither text nor bytes
    """

    result: dict[bytes, bytes] = {}

    if isinstance(send_env, str | bytes):
        raise ValueError('send_env must be a list of names, not one name')

    for pattern in send_env or ():
        for key, value in os.environb.items():
            if fnmatchcase(key, _as_bytes('send_env', pattern)):
                result[key] = value

    if isinstance(env, str | bytes):
        raise ValueError('env must be a mapping or a list, not one text')

    items = env.items() if isinstance(env, Mapping) else env or ()

    for item in items:
        if isinstance(item, str | bytes):
            key, separator, value = _as_bytes('env', item).partition(b'=')
            is_entry = bool(separator)
        else:
            key, value = (_as_bytes('env', part) for part in item) if len(item) == 2 else (b'', b'')
            is_entry = b'=' not in key

        # The values may be secret, and are not shown.
        if not is_entry or not key:
            raise ValueError(f'env must have entries of the form name=value, got one with the name {key!r}')

        result[key] = value

    return result


class SSHClientChannel(SSHChannel[AnyStr]):
    """A session channel as the client has it."""

    _read_datatypes = frozenset({EXTENDED_DATA_STDERR})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make a channel that is not open yet; the arguments are those of `SSHChannel`."""

        super().__init__(*args, **kwargs)

        self._exit_status: int | None = None
        self._exit_signal: tuple[str, bool, str, str] | None = None
        self._session_factory: Callable[[], SSHClientSession[AnyStr]]
        self._start_request: _Start
        self._agent_forwarding = False
        self._x11: X11Asked | None = None
        self._created: asyncio.Future[SSHClientSession[AnyStr]] | None = None

    # --- opening ------------------------------------------------------------------------------------------------------

    async def create(
        self,
        session_factory: Callable[[], SSHClientSession[AnyStr]],
        command: str | None = None,
        subsystem: str | None = None,
        env: Environment = None,
        request_pty: bool | str = True,
        term_type: str | None = None,
        term_size: TerminalSize = None,
        term_modes: Mapping[int, int] | None = None,
        agent_forwarding: bool = False,
        x11: X11Asked | None = None,
    ) -> SSHClientSession[AnyStr]:
        """Open the channel and run a command, a subsystem, or else a shell on it; return the session that was made.

        A terminal is asked for if `term_type` is set; with `request_pty` False never, 'force' always, 'auto' only for a
        shell. `term_size` is width and height in characters, then, if known, in pixels. With `agent_forwarding` the
        server is asked to give the session a way to our agent, with `x11` one to a display.

        Raises:
          ChannelOpenError: the server refused the channel, the terminal, the display or the command
          ValueError: both a command and a subsystem, or a name, size or mode that cannot be sent
          DisconnectError: the connection went away
        """

        self._start_request = self._prepare(command, subsystem, request_pty, term_type, term_size, term_modes)
        self._environment = prepare_environment(env)
        self._agent_forwarding = agent_forwarding
        self._x11 = x11
        self._command = command
        self._subsystem = subsystem
        self._session_factory = session_factory
        self._created = self._loop.create_future()

        try:
            self._mux.open_channel(self, b'session')
        except Exception as exc:
            self.open_failed(exc)

        try:
            return await self._created
        except BaseException:
            self.abort()
            raise

    @staticmethod
    def _prepare(
        command: str | None,
        subsystem: str | None,
        request_pty: bool | str,
        term_type: str | None,
        term_size: TerminalSize,
        term_modes: Mapping[int, int] | None,
    ) -> _Start:
        if command is not None and subsystem is not None:
            raise ValueError('command and subsystem cannot both be given')

        if request_pty not in (True, False, 'force', 'auto'):
            raise ValueError(f"request_pty must be True, False, 'force' or 'auto', not {request_pty!r}")

        size = _encode_size('term_size', *(term_size or ()))
        is_shell = command is None and subsystem is None
        wants_pty = request_pty == 'force' or (
            bool(request_pty) and bool(term_type) and (request_pty != 'auto' or is_shell)
        )
        pty = None

        if wants_pty:
            name = _as_bytes('term_type', term_type or '')
            pty = (encode_string(name), size, encode_string(_encode_modes(term_modes or {})))

        if is_shell:
            return _Start(b'shell', (), pty)

        if command is not None:
            return _Start(b'exec', (encode_string(_as_bytes('command', command)),), pty)

        return _Start(b'subsystem', (encode_string(_as_bytes('subsystem', subsystem)),), pty)

    def _opened(self, cursor: Cursor) -> None:
        try:
            session = self._session_factory()
            self._session = session
            session.connection_made(self)
        except Exception as exc:
            self._refused(exc)
            return

        if self._agent_forwarding:
            self._send_request(AGENT_REQUEST)

        for key, value in self._environment.items():
            self._send_request(b'env', encode_string(key), encode_string(value))

        if self._x11:
            self._send_request(X11_REQUEST, *self._x11.request.encode(), answer=self._x11_answered)
        else:
            self._ask_for_terminal()

    def _x11_answered(self, granted: bool) -> None:
        if not granted and self._x11:
            self._x11.ended()

            if self._x11.required:
                self._refused(ChannelOpenError(OPEN_REQUEST_X11_FORWARDING_FAILED, 'The server forwards no X11'))

            self._logger.info('The server forwards no X11')

        if not self._closing:
            self._ask_for_terminal()

    def _ask_for_terminal(self) -> None:
        if self._start_request.pty is None:
            self._ask_to_start(True)
        else:
            self._send_request(b'pty-req', *self._start_request.pty, answer=self._ask_to_start)

    def _ask_to_start(self, granted: bool) -> None:
        if not granted:
            self._refused(ChannelOpenError(OPEN_REQUEST_PTY_FAILED, 'The server refused a terminal'))
        elif not self._closing:
            self._send_request(self._start_request.request, *self._start_request.fields, answer=self._start_answered)

    def _start_answered(self, granted: bool) -> None:
        if not granted:
            request = self._start_request.request.decode()
            self._refused(ChannelOpenError(OPEN_REQUEST_SESSION_FAILED, f'The server refused the {request} request'))
        elif self._created and not self._created.done():
            self._created.set_result(cast('SSHClientSession[AnyStr]', self._session))
            self._start()

    def _refused(self, exc: Exception) -> None:
        """Let `create` raise, unless it already knows better."""

        if self._created and not self._created.done():
            self._created.set_exception(exc)

        self.abort()

    def open_failed(self, exc: Exception) -> None:
        """Let `create` raise what kept the channel from being opened."""

        super().open_failed(exc)
        self._refused(exc)

    def channel_closed(self, exc: Exception | None) -> None:
        """Pass the close on; a `create` that waits raises."""

        if not self._started:
            self._refused(
                exc or ChannelOpenError(OPEN_REQUEST_SESSION_FAILED, 'The server closed the channel before it started')
            )

        super().channel_closed(exc)

    def _finish(self) -> None:
        if self._x11:
            self._x11.ended()

        super()._finish()

    # --- requests to the server ---------------------------------------------------------------------------------------

    def change_terminal_size(self, width: int, height: int, pixwidth: int = 0, pixheight: int = 0) -> None:
        """Tell the server the terminal's new size, in characters and in pixels."""

        self._send_request(b'window-change', _encode_size('terminal size', width, height, pixwidth, pixheight))

    def send_break(self, msec: int) -> None:
        """Send a break of `msec` milliseconds (RFC 4335)."""

        self._send_request(b'break', encode_uint32(msec))

    def send_signal(self, signal: str | int) -> None:
        """Send a signal, by its name without SIG or by its number on this system.

        Raises:
          ValueError: the number is not a signal's
        """

        if isinstance(signal, int):
            signal = signals.Signals(signal).name.removeprefix('SIG')

        self._send_request(b'signal', encode_string(_as_bytes('signal', signal)))

    def terminate(self) -> None:
        """Send the signal TERM."""

        self.send_signal('TERM')

    def kill(self) -> None:
        """Send the signal KILL."""

        self.send_signal('KILL')

    def _send_request(self, name: bytes, *fields: bytes, answer: Callable[[bool], None] | None = None) -> None:
        link = self._link

        if not link or self._closing or not link.is_open:
            raise BrokenPipeError('The channel is not open')

        link.send_request(name, *fields, answer=answer)

    # --- how it ended -------------------------------------------------------------------------------------------------

    def get_exit_status(self) -> int | None:
        """Return the exit status, 0 to 255; -1 if a signal ended the command, None if nothing is known."""

        return -1 if self._exit_signal else self._exit_status

    def get_exit_signal(self) -> tuple[str, bool, str, str] | None:
        """Return the signal that ended the command: its name, whether core was dumped, a message and its language."""

        return self._exit_signal

    def get_returncode(self) -> int | None:
        """Return the exit status; if a signal ended the command, its number on this system, negated, or -99."""

        if not self._exit_signal:
            return self._exit_status

        try:
            return -int(signals.Signals[f'SIG{self._exit_signal[0]}'])
        except KeyError:
            return -_UNKNOWN_SIGNAL

    def request_received(self, name: bytes, cursor: Cursor) -> bool:
        """Take how the command ended, and whether the server does flow control."""

        session = cast('SSHClientSession[AnyStr] | None', self._session)

        if name == b'exit-status':
            status = cursor.uint32() & 0xFF
            cursor.check_end()
            self._exit_status = status

            if session:
                self._call(session.exit_status_received, status)
        elif name == b'exit-signal':
            signal = printable(cursor.text())
            core_dumped = cursor.boolean()
            message = cursor.string().decode('utf-8', 'replace')
            lang = cursor.string().decode('utf-8', 'replace')
            self._exit_signal = (signal, core_dumped, message, lang)

            if session:
                self._call(session.exit_signal_received, *self._exit_signal)
        elif name == b'xon-xoff':
            client_can_do = cursor.boolean()

            if session:
                self._call(session.xon_xoff_requested, client_can_do)
        else:
            # eow@openssh.com comes here too: that nobody reads our data any more will show by itself.
            return False

        return True


def _as_bytes(name: str, value: object) -> bytes:
    """Encode an argument that becomes a C string on the other side: OpenSSH ends the connection at a NUL in one."""

    if isinstance(value, str):
        value = value.encode()
    elif not isinstance(value, bytes):
        raise TypeError(f'{name} must be text or bytes, not {type(value).__name__}')

    if b'\0' in value:
        raise ValueError(f'{name} must not have a NUL in it')

    return value


def _encode_size(name: str, *size: int) -> bytes:
    if len(size) not in (0, 2, 4) or not all(0 <= value <= 0xFFFFFFFF for value in size):
        raise ValueError(f'{name} must be two or four numbers of 32 bits, got {size}')

    return b''.join(encode_uint32(value) for value in (*size, 0, 0, 0, 0)[:4])


def _encode_modes(modes: Mapping[int, int]) -> bytes:
    for mode, value in modes.items():
        if not PTY_OP_END < mode < PTY_OP_RESERVED or not 0 <= value <= 0xFFFFFFFF:
            raise ValueError(f'term_modes must map 1 to {PTY_OP_RESERVED - 1} to 32 bits, got {mode}: {value}')

    return b''.join(encode_byte(mode) + encode_uint32(value) for mode, value in modes.items()) + encode_byte(PTY_OP_END)
