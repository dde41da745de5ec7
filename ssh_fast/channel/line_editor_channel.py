"""The line editor between a server's session and its channel: what the application has in place of the channel.

Until a terminal is granted everything passes through. While the client does not take the output, or the session takes
no input, nothing that was typed is processed: it waits here, no more than one receive window of it, and is dropped when
the channel closes.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ..constants import EXTENDED_DATA_STDERR
from .line_editor import KeyHandler, LineEditor
from .session import Granted, SSHServerSession, Told


class SSHLineEditorChannel:
    """A server's channel whose input is edited line by line; the rest is as in `SSHServerChannel`.

    There is a line editor if the client has a terminal and the channel an encoding.
    """

    def __init__(
        self,
        orig_chan: Any,
        orig_session: SSHServerSession[str],
        line_echo: bool,
        history_size: int,
        max_line_length: int,
    ) -> None:
        self._orig_chan = orig_chan
        self._orig_session = orig_session
        self._session: _EditedSession | None = None
        self._line_echo = line_echo
        self._history_size = history_size
        self._max_line_length = max_line_length
        self._editor: LineEditor | None = None
        self._reading_paused = False      # by the application
        self._output_paused = False       # by the client, who does not take what is sent
        # What was set before there was a terminal.
        self._settings: dict[str, tuple[Any, ...]] = {}

    def __getattr__(self, name: str) -> Any:
        """Look up what the editor does not change."""

        return getattr(self._orig_chan, name)

    # --- the editor

    def create_editor(self) -> SSHServerSession[str] | None:
        """Begin to edit, as a terminal was granted; return the session that takes the original one's place.

        Without an encoding there is nothing to edit, and no session.
        """

        if self._orig_chan.get_encoding()[0] is None:
            return None

        self._editor = LineEditor(
            self,
            self._line_echo,
            self._history_size,
            self._max_line_length,
            self._orig_chan.get_terminal_type() or '',
            self._orig_chan.get_terminal_size()[0],
        )

        for method, *args in self._settings.values():
            getattr(self._editor, method)(*args)

        self._settings.clear()
        self._session = _EditedSession(self._editor, self, self._orig_session)

        return self._session

    @property
    def has_editor(self) -> bool:
        """Whether what is typed is edited."""

        return self._editor is not None

    def register_key(self, key: str, handler: KeyHandler) -> None:
        """Have a handler called when a key, or a sequence of characters, is typed into a line.

        It is given the line and the cursor's position, and returns both as they become; or True to insert the key,
        False to ring the bell; or the name of a signal for the session, without SIG, and a negative number.

        Raises:
          ValueError: the key is empty
        """

        if not key:
            raise ValueError('key must be at least one character')

        self._set('key ' + key, 'register_key', key, handler)

    def unregister_key(self, key: str) -> None:
        """Give a key no meaning: it is inserted if it is printable, else it rings the bell."""

        self._set('key ' + key, 'unregister_key', key)

    def set_line_mode(self, line_mode: bool) -> None:
        """Edit lines, which the session gets when they are complete, or pass on what is typed as it comes."""

        self._set('mode', 'set_line_mode', line_mode)

    def set_echo(self, echo: bool) -> None:
        """Show a line while it is edited, or not, as for a password; a line not shown is not kept in the history."""

        self._set('echo', 'set_echo', echo)

    def set_input(self, line: str, pos: int) -> None:
        """Replace the line that is edited, and put the cursor before its character numbered `pos`."""

        self._set('input', 'set_input', line, pos)

    def clear_input(self) -> None:
        """Empty the line that is edited."""

        self._set('input', 'clear_input')

    def _set(self, name: str, method: str, *args: Any) -> None:
        if self._editor:
            getattr(self._editor, method)(*args)
        else:
            self._settings[name] = (method, *args)

    # --- the channel's methods that it changes

    def set_encoding(self, encoding: str | None, errors: str = 'strict') -> None:
        """Set the encoding of all further data; None, for bytes, ends the line editor."""

        if encoding is None and self._editor:
            self._editor.set_line_mode(False)
            self._editor = None

        self._orig_chan.set_encoding(encoding, errors)

    def write(self, data: str, datatype: int | None = None) -> None:
        """Send output: a newline becomes a carriage return and a newline, and the line that is edited stays whole."""

        if self._editor and isinstance(data, str):
            before, data, after = self._editor.process_output(data)

            if datatype is not None:
                self.send_output(before)
                self._orig_chan.write(data, datatype)
                self.send_output(after)
                return

            data = before + data + after

        self._orig_chan.write(data, datatype)

    def writelines(self, list_of_data: Iterable[str], datatype: int | None = None) -> None:
        """Send several pieces of output."""

        data: Any = list(list_of_data)
        empty: Any = b'' if self._orig_chan.get_encoding()[0] is None else ''
        self.write(empty.join(data), datatype)

    def write_stderr(self, data: str) -> None:
        """Send output of the error stream."""

        self.write(data, EXTENDED_DATA_STDERR)

    def writelines_stderr(self, list_of_data: Iterable[str]) -> None:
        """Send several pieces of output of the error stream."""

        self.writelines(list_of_data, EXTENDED_DATA_STDERR)

    def pause_reading(self) -> None:
        """Stop calling `data_received`, until `resume_reading`."""

        self._reading_paused = True
        self._orig_chan.pause_reading()

    def resume_reading(self) -> None:
        """Call `data_received` again."""

        self._reading_paused = False
        self._go_on()

    # --- what the editor tells

    @property
    def holds_input(self) -> bool:
        """Whether nothing that was typed is to be processed for now."""

        return self._reading_paused or self._output_paused or self._orig_chan.is_closing()

    def send_output(self, text: str) -> None:
        """Show output of the editor, unless the application has ended its own."""

        try:
            self._orig_chan.write(text)
        except BrokenPipeError:
            self._orig_chan.logger.debug('Left %d characters of the line editor out: the output has ended', len(text))

    def line_entered(self, text: str) -> None:
        """Hand on a line."""

        self._orig_session.data_received(text, None)

    def break_typed(self) -> None:
        """Tell the session of Ctrl-C, a break of no length."""

        self._orig_chan.call_session(self._orig_session.break_received, 0)

    def soft_eof_typed(self) -> None:
        """Tell the session of Ctrl-D on an empty line."""

        self._orig_chan.call_session(self._orig_session.soft_eof_received)

    def signal_typed(self, signal: str) -> None:
        """Deliver a signal that a key stands for."""

        self._orig_chan.call_session(self._orig_session.signal_received, signal)

    # --- the client's readiness to take output

    def pause_output(self) -> None:
        """Process no more input: what it would show has nowhere to go."""

        self._output_paused = True
        self._orig_chan.pause_reading()

    def resume_output(self) -> None:
        """Process input again."""

        self._output_paused = False
        self._go_on()

    def _go_on(self) -> None:
        if self._session:
            self._orig_chan.call_session(self._session.resume_input)

        if not self._reading_paused and not self._output_paused:
            self._orig_chan.resume_reading()


class _EditedSession(SSHServerSession[str]):
    """What a channel with an editor calls: it passes on to the application's session what the editor does not take."""

    def __init__(self, editor: LineEditor, chan: SSHLineEditorChannel, session: SSHServerSession[str]) -> None:
        self._editor = editor
        self._chan = chan
        self._orig_session = session
        self._eof_pending = False

    def resume_input(self) -> None:
        """Go on with what was typed, and then the end of file."""

        self._editor.resume()

        if self._eof_pending and not self._chan.holds_input:
            self._eof_pending = False
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was typed: nobody sees its output."""

        self._orig_session.connection_lost(exc)

    def session_started(self) -> None:
        """Begin."""

        self._orig_session.session_started()

    def data_received(self, data: str, datatype: int | None) -> None:
        """Edit with what was typed."""

        if isinstance(data, str):
            self._editor.feed(data)
        else:
            # The application has ended the encoding.
            self._orig_session.data_received(data, datatype)

    def eof_received(self) -> bool:
        """Pass on the unfinished line, then the end of file."""

        if self._chan.holds_input:
            self._eof_pending = True
        else:
            self._end()

        # An end of file in return, if it is wanted, is sent by `_end`.
        return True

    def _end(self) -> None:
        self._editor.end()

        if not self._orig_session.eof_received():
            self._chan.write_eof()

    def pause_writing(self) -> None:
        """Stop editing, and tell the session."""

        self._chan.pause_output()
        self._orig_session.pause_writing()

    def resume_writing(self) -> None:
        """Go on editing, and tell the session."""

        self._orig_session.resume_writing()
        self._chan.resume_output()

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> Granted:
        """Refuse: there is a terminal."""

        return False

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> Told:
        """Wrap the line at the new width, and tell the session."""

        self._editor.resize(width)

        return self._orig_session.terminal_size_changed(width, height, pixwidth, pixheight)

    def shell_requested(self) -> Granted:
        """Ask the session."""

        return self._orig_session.shell_requested()

    def exec_requested(self, command: str) -> Granted:
        """Ask the session."""

        return self._orig_session.exec_requested(command)

    def subsystem_requested(self, subsystem: str) -> Granted:
        """Ask the session."""

        return self._orig_session.subsystem_requested(subsystem)

    def break_received(self, msec: int) -> Granted:
        """Tell the session."""

        return self._orig_session.break_received(msec)

    def signal_received(self, signal: str) -> Told:
        """Tell the session."""

        return self._orig_session.signal_received(signal)

    def soft_eof_received(self) -> Told:
        """Tell the session."""

        return self._orig_session.soft_eof_received()
