"""A session channel as the server has it: the client's requests, their answers, and the exit (RFC 4254 section 6).

The connection answers an open of type 'session' by returning one from `channel_open_requested`:

    chan = SSHServerChannel(mux, loop, encoding, errors, window, max_pktsize, subsystems={'sftp': make_sftp_session})
    chan.set_session(session)
    return chan

`connection_made` is called when the channel is confirmed, then the `..._requested` calls, which may be coroutines, and
`session_started` once a shell, command or subsystem is granted and the reply is on its way. A subsystem named in
`subsystems`, or a command that `commands` has a factory for, is granted without asking the session: what its factory
makes takes the session's place, in bytes.
"""

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from inspect import isawaitable
from types import MappingProxyType
from typing import Any, AnyStr, NamedTuple, TypeAlias, cast

from ..constants import DEFAULT_LANG, EXTENDED_DATA_STDERR, PTY_OP_END, PTY_OP_RESERVED
from ..logging import printable
from ..wire import Cursor, encode_boolean, encode_string, encode_uint32
from .agent_channel import AGENT_REQUEST
from .channel import SSHChannel
from .line_editor_channel import SSHLineEditorChannel
from .mux import Mux
from .session import Granted, SSHServerSession
from .x11_channel import X11_REQUEST, X11Granted, X11Request

SubsystemFactory: TypeAlias = Callable[['SSHServerChannel[Any]'], SSHServerSession[Any]]

# OpenSSH's sshd takes 128 variables of any size; a client's whole environment is rarely longer than this.
MAX_ENVIRONMENT_COUNT = 1024
MAX_ENVIRONMENT_BYTES = 128 << 10


class LineEditing(NamedTuple):
    """How lines are edited where the client has a terminal, and the channel an encoding."""

    line_echo: bool = True
    history_size: int = 1000       # lines
    max_line_length: int = 1024    # characters


class SSHServerChannel(SSHChannel[AnyStr]):
    """A session channel as the server has it."""

    _patient = True    # for somebody who reads with `less`: what a command wrote before it ended is not lost
    _write_datatypes = frozenset({EXTENDED_DATA_STDERR})

    def __init__(
        self,
        mux: Mux,
        *args: Any,
        allow_pty: bool = True,
        line_editing: LineEditing | None = None,
        subsystems: Mapping[str, SubsystemFactory] | None = None,
        commands: Callable[[str], SubsystemFactory | None] | None = None,
        forced_command: str | None = None,
        environment: Mapping[str, str] | None = None,
        forward_agent: Callable[[], Awaitable[str | None]] | None = None,
        forward_x11: Callable[[X11Request], Awaitable[X11Granted | None]] | None = None,
        **kwargs: Any,
    ) -> None:
        """Make the channel for a client's open request; the other arguments are those of `SSHChannel`.

        With `line_editing` the session sees an `SSHLineEditorChannel` in place of this one. A `forced_command` runs
        whatever the client asks for; `internal-sftp` is the sftp subsystem. The client can add to the `environment`,
        but not change it. `forward_agent` gives the path of a socket to the client's agent, and `forward_x11` a
        display, None if there can be none.
        """

        super().__init__(mux, *args, **kwargs)

        self._allow_pty = allow_pty
        self._line_editing = line_editing
        self._edited: SSHLineEditorChannel | None = None
        self._subsystems = subsystems or {}
        self._commands = commands
        self._forced_command = forced_command
        self._environment.update((name.encode(), value.encode()) for name, value in (environment or {}).items())
        self._fixed_variables = frozenset(self._environment)
        self._forward_agent = forward_agent
        self._agent_path: str | None = None
        self._forward_x11 = forward_x11
        self._x11: X11Granted | None = None
        self._environment_size = 0
        self._environment_refused = False
        self._asked_to_start = False
        self._exit_sent = False
        self._has_pty = False
        self._term_type: str | None = None
        self._term_size = (0, 0, 0, 0)
        self._term_modes: dict[int, int] = {}

    def set_session(self, session: SSHServerSession[AnyStr]) -> None:
        """Set the session that this channel calls, before it is opened."""

        self._session = session

    # --- what the client asked for ------------------------------------------------------------------------------------

    def get_terminal_type(self) -> str | None:
        """Return the terminal's type, None if the client asked for no terminal."""

        return self._term_type

    def get_terminal_size(self) -> tuple[int, int, int, int]:
        """Return the terminal's size in characters, then in pixels; zeros are unknown."""

        return self._term_size

    def get_terminal_mode(self, mode: int) -> int | None:
        """Return the value of a terminal mode, a PTY_ constant, None if the client did not set it."""

        return self._term_modes.get(mode)

    def get_terminal_modes(self) -> Mapping[int, int]:
        """Return the values of the terminal modes that the client set."""

        return MappingProxyType(self._term_modes)

    def get_x11_display(self) -> str | None:
        """Return the name of the display that leads to the client's, None if it forwards none; it is DISPLAY too."""

        return self._x11.display if self._x11 else None

    def get_agent_path(self) -> str | None:
        """Return the path of the socket to the client's agent, None if it forwards none; it is SSH_AUTH_SOCK too."""

        return self._agent_path

    # --- writing and the exit -----------------------------------------------------------------------------------------

    def write_stderr(self, data: AnyStr) -> None:
        """Send data of the error stream, as `write` does."""

        self.write(data, EXTENDED_DATA_STDERR)

    def writelines_stderr(self, list_of_data: Iterable[AnyStr]) -> None:
        """Send several pieces of data of the error stream."""

        self.writelines(list_of_data, EXTENDED_DATA_STDERR)

    def set_xon_xoff(self, client_can_do: bool) -> None:
        """Tell the client whether it may do flow control with ^S and ^Q (RFC 4254 section 6.8)."""

        if self._link and self._link.is_open and not self._closing:
            self._link.send_request(b'xon-xoff', encode_boolean(client_can_do))

    def exit(self, status: int) -> None:
        """Close the channel behind what was written, with an exit status of which 8 bits count."""

        self._send_exit(b'exit-status', encode_uint32(status & 0xFF))
        self.close()

    def exit_with_signal(
        self, signal: str, core_dumped: bool = False, msg: str = '', lang: str = DEFAULT_LANG
    ) -> None:
        """Close the channel behind what was written; say that a signal, named without SIG, ended the command."""

        self._send_exit(
            b'exit-signal',
            encode_string(signal),
            encode_boolean(core_dumped),
            encode_string(msg),
            encode_string(lang),
        )
        self.close()

    def close(self) -> None:
        """Close the channel behind what was written; a subsystem that said nothing else exits with status 0."""

        # OpenSSH's scp takes a missing exit status for a failure.
        if self._subsystem is not None and self._started:
            self._send_exit(b'exit-status', encode_uint32(0))

        super().close()

    def _send_exit(self, name: bytes, *fields: bytes) -> None:
        link = self._link

        if link and link.is_open and not self._closing and not self._exit_sent:
            self._exit_sent = True
            link.send_eof()
            link.send_request(name, *fields, in_order=True)

    # --- the client's requests ----------------------------------------------------------------------------------------

    def _opened(self, cursor: Cursor) -> None:
        if not self._session:
            return

        if self._line_editing and self._encoding is not None:
            self._edited = SSHLineEditorChannel(self, cast(Any, self._session), *self._line_editing)

        self._call(self._session.connection_made, self._edited or self)

    def channel_closed(self, exc: Exception | None) -> None:
        """Pass the close on; what was typed and not processed is dropped, as a terminal does when it is hung up."""

        super().channel_closed(exc)

        if self._edited and self._edited.has_editor:
            self.resume_reading()

    def call_session(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call the session for the line editor; an exception ends this channel, not the connection."""

        told = self._tell(callback, *args)

        if isawaitable(told):
            self._mux.host.create_task(_wait(told))

    def request_received(self, name: bytes, cursor: Cursor) -> Granted:
        """Answer a request of the client.

        Raises:
          PacketDecodeError: the request is malformed
        """

        handler = self._REQUESTS.get(name)

        if not handler or self._closing:
            return False

        return handler(self, cursor)

    def request_answered(self, name: bytes, granted: bool) -> None:
        """Start the session, now that the reply is on its way."""

        if granted and name in (b'shell', b'exec', b'subsystem') and not self._closing:
            self._start()

    def _receive_agent(self, cursor: Cursor) -> Granted:
        cursor.check_end()

        if self._forward_agent is None or self._asked_to_start:
            return False

        return self._settle_agent(self._forward_agent())

    async def _settle_agent(self, path: Awaitable[str | None]) -> bool:
        self._agent_path = await path

        if self._agent_path is not None:
            self._environment[b'SSH_AUTH_SOCK'] = os.fsencode(self._agent_path)

        return self._agent_path is not None

    def _receive_x11(self, cursor: Cursor) -> Granted:
        request = X11Request.decode(cursor)

        if request is None or self._forward_x11 is None or self._x11 or self._asked_to_start:
            return False

        return self._settle_x11(self._forward_x11(request))

    async def _settle_x11(self, granting: Awaitable[X11Granted | None]) -> bool:
        granted = await granting

        if granted is None:
            return False

        if self._closing or self._closed.is_set():
            granted.close()

            return False

        self._x11 = granted
        variables = {name.encode(): os.fsencode(value) for name, value in granted.environment.items()}
        self._environment.update(variables)
        self._fixed_variables |= variables.keys()

        return True

    def _finish(self) -> None:
        if self._x11:
            self._x11.close()

        super()._finish()

    def _receive_environment(self, cursor: Cursor) -> bool:
        key, value = cursor.string(), cursor.string()
        cursor.check_end()
        size = self._environment_size + len(key) + len(value)
        count = len(self._environment) + (key not in self._environment)

        if self._asked_to_start or not key or b'=' in key or b'\0' in key + value:
            return False

        # What a key's options set may tell a forced command who this is.
        if key in self._fixed_variables:
            return False

        if size > MAX_ENVIRONMENT_BYTES or count > MAX_ENVIRONMENT_COUNT:
            if not self._environment_refused:
                self._environment_refused = True
                self._logger.warning(
                    'Refused environment variables: expected at most %d with %d bytes',
                    MAX_ENVIRONMENT_COUNT,
                    MAX_ENVIRONMENT_BYTES,
                )

            return False

        self._environment_size = size
        self._environment[key] = value

        return True

    def _receive_pty(self, cursor: Cursor) -> Granted:
        term_type = cursor.text()
        size = (cursor.uint32(), cursor.uint32(), cursor.uint32(), cursor.uint32())
        modes = _decode_modes(cursor.string())
        cursor.check_end()

        if not self._allow_pty or self._has_pty or self._asked_to_start or '\0' in term_type:
            return False

        self._has_pty = True
        self._term_type = term_type
        self._term_size = size
        self._term_modes = modes
        answer = self._ask('pty_requested', term_type, size, MappingProxyType(modes))

        return self._settle_pty(answer) if isawaitable(answer) else self._pty_answered(answer)

    async def _settle_pty(self, answer: Any) -> bool:
        return self._pty_answered(await self._settle(answer))

    def _pty_answered(self, granted: bool) -> bool:
        if not granted:
            self._term_type = None
            self._term_size = (0, 0, 0, 0)
            self._term_modes = {}
        elif self._edited and (session := self._edited.create_editor()):
            self._session = cast(Any, session)

        return granted

    def _receive_window_change(self, cursor: Cursor) -> Granted:
        size = (cursor.uint32(), cursor.uint32(), cursor.uint32(), cursor.uint32())
        cursor.check_end()

        if self._term_type is None:
            return False

        self._term_size = size

        return self._tell(self._server_session.terminal_size_changed, *size)

    def _receive_shell(self, cursor: Cursor) -> Granted:
        cursor.check_end()

        if self._forced_command is not None:
            return self._start_forced()

        return self._request_start('shell_requested')

    def _receive_exec(self, cursor: Cursor) -> Granted:
        command = self._receive_name(cursor)

        if command is None or self._asked_to_start:
            return False

        if self._forced_command is not None:
            return self._start_forced()

        return self._start_command(command)

    def _receive_subsystem(self, cursor: Cursor) -> Granted:
        subsystem = self._receive_name(cursor)

        if subsystem is None or self._asked_to_start:
            return False

        if self._forced_command is not None:
            return self._start_forced()

        return self._start_subsystem(subsystem)

    def _start_forced(self) -> Granted:
        if self._asked_to_start:
            return False

        if self._forced_command == 'internal-sftp':
            return self._start_subsystem('sftp')

        return self._start_command(cast(str, self._forced_command))

    def _start_command(self, command: str) -> Granted:
        self._command = command
        factory = self._commands(command) if self._commands else None

        return self._replace_session(factory) if factory else self._request_start('exec_requested', command)

    def _start_subsystem(self, subsystem: str) -> Granted:
        self._subsystem = subsystem
        factory = self._subsystems.get(subsystem)

        return self._replace_session(factory) if factory else self._request_start('subsystem_requested', subsystem)

    def _replace_session(self, factory: SubsystemFactory) -> bool:
        self._asked_to_start = True
        session = self._call(factory, self)

        if not session:
            return False

        self.set_encoding(None)
        replaced, self._session = self._session, session

        if replaced:
            self._call(replaced.connection_lost, None)

        self._call(session.connection_made, self)

        return not self._closing

    def _receive_name(self, cursor: Cursor) -> str | None:
        """Decode a command or name; one that no program can be started with is refused, not an error."""

        data = cursor.string()
        cursor.check_end()

        try:
            name = data.decode()
        except UnicodeDecodeError:
            return None

        return None if '\0' in name else name

    def _request_start(self, method: str, *args: str) -> Granted:
        if self._asked_to_start:
            return False

        self._asked_to_start = True

        return self._ask(method, *args)

    def _receive_signal(self, cursor: Cursor) -> Granted:
        signal = printable(cursor.text())
        cursor.check_end()

        return self._tell(self._server_session.signal_received, signal) if self._started else False

    def _receive_break(self, cursor: Cursor) -> Granted:
        msec = cursor.uint32()
        cursor.check_end()

        return self._ask('break_received', msec) if self._started else False

    @property
    def _server_session(self) -> SSHServerSession[AnyStr]:
        return cast(SSHServerSession[AnyStr], self._session)

    def _ask(self, method: str, *args: Any) -> Granted:
        """Ask the session; an exception of it is a refusal."""

        if not self._session:
            return False

        try:
            answer = getattr(self._session, method)(*args)
        except Exception:
            self._logger.exception('Uncaught exception in %s', method)

            return False

        return self._settle(answer) if isawaitable(answer) else bool(answer)

    async def _settle(self, answer: Any) -> bool:
        return bool(await answer)

    def _tell(self, callback: Callable[..., Any], *args: Any) -> Granted:
        """Tell the session something; an exception of it ends this channel."""

        told = self._call(callback, *args)

        return self._settle_told(told) if isawaitable(told) else True

    async def _settle_told(self, told: Awaitable[Any]) -> bool:
        try:
            await told
        except Exception as exc:
            self._logger.exception('Uncaught exception in a session callback')
            self._fail(exc)

        return True

    _REQUESTS: Mapping[bytes, Callable[..., Granted]] = {
        AGENT_REQUEST: _receive_agent,
        X11_REQUEST: _receive_x11,
        b'env': _receive_environment,
        b'pty-req': _receive_pty,
        b'window-change': _receive_window_change,
        b'shell': _receive_shell,
        b'exec': _receive_exec,
        b'subsystem': _receive_subsystem,
        b'signal': _receive_signal,
        b'break': _receive_break,
    }


async def _wait(told: Awaitable[bool]) -> None:
    await told


def _decode_modes(data: bytes) -> dict[int, int]:
    """Decode terminal modes: opcode and value, until the end, TTY_OP_END, or an opcode that has no value of 32 bits."""

    cursor = Cursor(data)
    modes: dict[int, int] = {}

    while cursor.remaining:
        mode = cursor.byte()

        if mode == PTY_OP_END or mode >= PTY_OP_RESERVED:
            break

        modes[mode] = cursor.uint32()

    return modes
