"""The editing of a line on a terminal: what is typed comes in, lines and what to write to the terminal go out.

Keys: left and right (Ctrl-B, Ctrl-F), by words (Ctrl-left, Ctrl-right, Alt-B, Alt-F), begin and end (Ctrl-A, Ctrl-E,
Home, End), erase to the left (Backspace, Ctrl-H) and to the right (Delete, Ctrl-D), kill a word (Ctrl-W, Alt-D), to the
end (Ctrl-K) or all (Ctrl-U), yank what was last killed (Ctrl-Y), history (up and down, Ctrl-P, Ctrl-N) and its search
(Ctrl-R, ended by Ctrl-G), draw anew (Ctrl-L), break (Ctrl-C), and a soft end of file (Ctrl-D on an empty line).
"""

import re
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeAlias

from .line_editor_history import History, Search
from .line_editor_screen import DEFAULT_WIDTH, InputScreen, OutputColumn, character_width, split_cells

# Given the line and the cursor's position in it; returns both as they become, whether the key is to be inserted (True)
# or cannot be used (False), or the name of a signal and a negative number.
KeyHandler: TypeAlias = Callable[[str, int], bool | tuple[str, int]]

BELL = '\a'
NEWLINE = '\r\n'

# Terminals that know no escape sequences.
_PLAIN_TERMINALS = frozenset({'', 'dumb', 'emacs', 'network', 'teletype', 'tty', 'unknown'})

# What a key sends that has no meaning here: an escape sequence, or ESC and a character, as Alt- gives it.
_ESCAPE = re.compile(r'\x1b(?:(?=\x1b)|\[[0-?]*[ -/]*[^ -?]|O.|[^\[O\x1b])', re.DOTALL)

# The longest sequence that is waited for.
_MAX_ESCAPE = 64

# Characters that are looked at in one piece: what is left of it is copied at every key.
_PIECE = 256


class EditorHost(Protocol):
    """What happens because of the keys."""

    @property
    def holds_input(self) -> bool:
        """Whether no more lines are wanted for now; `LineEditor.resume` goes on."""

    def send_output(self, text: str) -> None:
        """Write to the terminal."""

    def line_entered(self, text: str) -> None:
        """Take a line with its newline, or if lines are not edited, what was typed."""

    def break_typed(self) -> None:
        """Break: Ctrl-C was typed."""

    def soft_eof_typed(self) -> None:
        """End the input that came so far."""

    def signal_typed(self, signal: str) -> None:
        """Deliver a signal, named without SIG, that a key's handler asked for."""


class LineEditor:
    """Edits one line after another."""

    def __init__(
        self,
        host: EditorHost,
        line_echo: bool = True,
        history_size: int = 1000,
        max_line_length: int = 1024,
        term_type: str = '',
        width: int = DEFAULT_WIDTH,
    ) -> None:
        """Make the editor of a terminal.

        Without `line_echo` a line disappears when it is entered. A line has at most `max_line_length` characters.
        """

        self._host = host
        self._line_echo = line_echo
        self._max_length = max_line_length
        self._screen = InputScreen(width or DEFAULT_WIDTH, term_type not in _PLAIN_TERMINALS)
        self._output_column = OutputColumn()
        self._line_mode = True
        self._echo = True
        self._line = ''
        self._position = 0
        self._killed = ''
        self._history = History(history_size)
        self._search: Search | None = None
        self._typed: deque[str] = deque()
        self._pending = ''               # the piece of what was typed that is being processed
        self._processing = False
        self._after_return = False       # a \n now belongs to the \r before it
        self._written_return = False     # the application's output ended with \r
        self._bell = False
        self._handlers: dict[str, KeyHandler] = {}
        self._unregistered: set[str] = set()
        self._find_key()

    # --- the application's settings

    def register_key(self, key: str, handler: KeyHandler) -> None:
        """Call a handler when a key, or a sequence of characters, is typed.

        Raises:
          ValueError: the key is empty
        """

        if not key:
            raise ValueError('key must be at least one character')

        self._handlers[key] = handler
        self._find_key()

    def unregister_key(self, key: str) -> None:
        """Give a key no meaning: it is inserted if it is printable, else it rings the bell."""

        self._handlers.pop(key, None)
        self._unregistered.add(key)
        self._find_key()

    def set_line_mode(self, line_mode: bool) -> None:
        """Edit lines, or pass on what is typed as it comes; a line that is begun is passed on then."""

        if line_mode == self._line_mode:
            return

        self._line_mode = line_mode

        if not line_mode:
            self._leave_search()
            line = self._line
            self._take_line()
            self._send(self._screen.erase())

            if line:
                self._host.line_entered(line)

            self.resume()

    def set_echo(self, echo: bool) -> None:
        """Show the line while it is edited, or not, as for a password, which the history does not keep either."""

        self._echo = echo
        self._show()

    def set_input(self, line: str, position: int) -> None:
        """Replace the line, and put the cursor before the character numbered `position`."""

        self._leave_search()
        self._replace(line, position)
        self._show()

    def clear_input(self) -> None:
        """Empty the line."""

        self.set_input('', 0)

    def resize(self, width: int) -> None:
        """Take the terminal's new width in columns, 0 if it is not known."""

        width = width or DEFAULT_WIDTH
        self._output_column.resize(width)
        self._show(self._screen.resize(width, self._output_column.column))

    # --- input

    def feed(self, text: str) -> None:
        """Take what was typed."""

        self._typed.extend(text[at : at + _PIECE] for at in range(0, len(text), _PIECE))
        self.resume()

    def resume(self) -> None:
        """Process what was typed while the host held input."""

        if self._processing:
            return

        self._processing = True

        try:
            while (self._pending or self._typed) and not self._host.holds_input:
                if not self._line_mode:
                    text, self._pending = self._pending + ''.join(self._typed), ''
                    self._typed.clear()
                    self._after_return = False
                    self._host.line_entered(text)
                elif not (self._pending and self._process()):
                    if not self._typed:
                        break

                    self._pending += self._typed.popleft()

            self._show()
        finally:
            self._processing = False

    def end(self) -> None:
        """Pass on the unfinished line: no more is typed."""

        line = self._line
        self._leave_search()
        self._take_line()
        self._screen.begin(self._screen.start)

        if line:
            self._host.line_entered(line)

    # --- output

    def process_output(self, text: str) -> tuple[str, str, str]:
        """Prepare the application's output: what takes the line away, the output, and what shows the line again.

        A newline becomes a carriage return and a newline, unless there is a return before it.
        """

        if not text:
            return '', '', ''

        before = self._screen.erase()
        self._output_column.column = self._screen.start
        head = text[0] if self._written_return and text[0] == '\n' else ''
        self._written_return = text[-1] == '\r'
        text = head + re.sub(r'(?<!\r)\n', NEWLINE, text[len(head) :])
        self._output_column.follow(text, self._screen.width)
        self._screen.begin(self._output_column.column)

        return before, text, self._redraw() if not self._processing else ''

    def _send(self, output: str) -> None:
        if self._bell:
            self._bell = False
            output += BELL

        if output:
            self._host.send_output(output)

    def _show(self, output: str = '') -> None:
        self._send(output + self._redraw())

    def _redraw(self) -> str:
        """Return the output that brings the terminal up to date."""

        if not (self._echo and self._line_mode):
            return self._screen.erase()

        if self._search:
            text, position = self._search.shown()
        else:
            text, position = self._line, self._position

        cells = split_cells(text)
        cursor = len(cells) if position == len(text) else len(split_cells(text[:position]))

        return self._screen.show(cells, cursor)

    def _newline(self) -> None:
        """End the line on the terminal."""

        if self._line_echo:
            self._written_return = False
            output = self._screen.finish(split_cells(self._line)) if self._echo else self._redraw()
            # A line that fills its last row has brought the cursor to the next one.
            self._send(output if self._screen.is_at_new_row else output + NEWLINE)
            self._output_column.begin_line()
            self._screen.begin(0)
        else:
            self._send(self._screen.erase())

    # --- keys

    def _find_key(self) -> None:
        """Prepare the search for keys: the longest that matches, and text up to the first that may be one."""

        known = (_KEYS.keys() - self._unregistered) | self._handlers.keys()
        self._known_keys = known
        self._longest_key = max(map(len, known), default=0)
        self._key_starts = {key[:end] for key in known for end in range(1, len(key))}
        firsts = ''.join(sorted({re.escape(key[0]) for key in known}))
        self._text = re.compile(f'[^\x00-\x1f\x7f-\x9f{firsts}]+')

    def _process(self) -> bool:
        """Process the next key or run of text; return false if it is not complete."""

        pending = self._pending

        if self._after_return:
            self._after_return = False

            if pending[0] == '\n':
                self._pending = pending[1:]
                return True

        if match := self._text.match(pending):
            self._pending = pending[match.end() :]
            self._insert(match[0])
            return True

        for size in range(min(self._longest_key, len(pending)), 0, -1):
            key = pending[:size]

            if key in self._known_keys:
                self._pending = pending[size:]
                self._run_key(key)
                return True

            if size == len(pending) and key in self._key_starts:
                return False

        if pending[0] == '\x1b':
            match = _ESCAPE.match(pending[:_MAX_ESCAPE])

            if not match and len(pending) < _MAX_ESCAPE:
                return False

            self._pending = pending[match.end() if match else _MAX_ESCAPE :]
            self._ring()
        else:
            self._pending = pending[1:]
            self._insert(pending[0]) if pending[0].isprintable() else self._ring()

        return True

    def _run_key(self, key: str) -> None:
        if key in self._handlers:
            self._leave_search()
            self._call_handler(key)
            return

        if self._search and key not in _SEARCH_KEYS:
            self._leave_search()

        _KEYS[key](self)

    def _call_handler(self, key: str) -> None:
        answer = self._handlers[key](self._line, self._position)

        if answer is True:
            if key.isprintable():
                self._insert(key)
        elif answer is False:
            self._ring()
        else:
            line, position = answer

            if position < 0:
                self._show()
                self._host.signal_typed(line)
            elif len(line) > self._max_length:
                self._ring()
            else:
                self._replace(line, position)

    def _ring(self) -> None:
        self._bell = True

    def _insert(self, text: str) -> None:
        if self._search:
            if not self._search.add(text):
                self._ring()

            return

        room = self._max_length - len(self._line)

        if len(text) > room:
            self._ring()
            text = text[:room]

        self._line = self._line[: self._position] + text + self._line[self._position :]
        self._position += len(text)

    def _replace(self, line: str, position: int) -> None:
        self._line = line
        self._position = max(0, min(position, len(line)))

    def _take_line(self) -> None:
        """Begin a new line."""

        self._line = ''
        self._position = 0
        self._history.leave()

    def _enter_by_return(self) -> None:
        self._after_return = True
        self._enter()

    def _enter(self) -> None:
        self._leave_search()
        line = self._line
        self._newline()

        if self._echo:
            self._history.add(line)

        self._take_line()
        self._host.line_entered(line + '\n')

    def _break(self) -> None:
        self._search = None
        self._show()
        self._host.break_typed()

    # --- movement

    def _left_of(self, position: int) -> int:
        """Return the start of the cell in front of a position."""

        position -= 1

        while position > 0 and not character_width(self._line[position]):
            position -= 1

        return max(0, position)

    def _right_of(self, position: int) -> int:
        position += 1

        while position < len(self._line) and not character_width(self._line[position]):
            position += 1

        return min(len(self._line), position)

    def _word_left_of(self, position: int) -> int:
        return self._line[:position].rstrip().rfind(' ') + 1

    def _word_right_of(self, position: int) -> int:
        spaces = len(self._line) - len(self._line[position:].lstrip())
        end = self._line.find(' ', spaces)

        return len(self._line) if end < 0 else end

    def _go_to(self, position: int) -> None:
        if position == self._position:
            self._ring()

        self._position = position

    def _left(self) -> None:
        self._go_to(self._left_of(self._position))

    def _right(self) -> None:
        self._go_to(self._right_of(self._position))

    def _word_left(self) -> None:
        self._go_to(self._word_left_of(self._position))

    def _word_right(self) -> None:
        self._go_to(self._word_right_of(self._position))

    def _home(self) -> None:
        self._position = 0

    def _end(self) -> None:
        self._position = len(self._line)

    def _draw_anew(self) -> None:
        self._send(self._screen.erase())

    # --- erasing

    def _remove(self, start: int, end: int, keep: bool = False) -> None:
        if start == end:
            self._ring()
            return

        if keep:
            self._killed = self._line[start:end]

        self._replace(self._line[:start] + self._line[end:], start)

    def _erase_left(self) -> None:
        if self._search:
            self._search.remove()
        else:
            self._remove(self._left_of(self._position), self._position)

    def _erase_right(self) -> None:
        self._remove(self._position, self._right_of(self._position))

    def _erase_right_or_end(self) -> None:
        if self._line:
            self._erase_right()
        else:
            self._show()
            self._host.soft_eof_typed()

    def _kill_word_left(self) -> None:
        self._remove(self._word_left_of(self._position), self._position, keep=True)

    def _kill_word_right(self) -> None:
        self._remove(self._position, self._word_right_of(self._position), keep=True)

    def _kill_to_end(self) -> None:
        self._remove(self._position, len(self._line), keep=True)

    def _kill_line(self) -> None:
        self._remove(0, len(self._line), keep=True)

    def _yank(self) -> None:
        self._insert(self._killed)

    # --- history

    def _recall(self, place: int) -> None:
        line = self._history.recall(place, self._line)

        if line is None:
            self._ring()
        else:
            self._replace(line, len(line))

    def _previous(self) -> None:
        self._recall(self._history.place - 1)

    def _next(self) -> None:
        self._recall(self._history.place + 1)

    def _search_history(self) -> None:
        if not self._echo:
            self._ring()
        elif self._search is None:
            self._search = Search(self._history.lines)
        elif not self._search.older():
            self._ring()

    def _leave_search(self) -> None:
        """Go on with the line that was found."""

        if self._search and (found := self._search.found()) is not None:
            self._recall(found)

        self._search = None

    def _cancel_search(self) -> None:
        if not self._search:
            self._ring()

        self._search = None


_KEYS: dict[str, Callable[[LineEditor], None]] = {
    key: action
    for keys, action in (
        (('\r',), LineEditor._enter_by_return),
        (('\n',), LineEditor._enter),
        (('\x01', '\x1b[H', '\x1bOH', '\x1b[1~', '\x1b[7~'), LineEditor._home),
        (('\x02', '\x1b[D', '\x1bOD'), LineEditor._left),
        (('\x03',), LineEditor._break),
        (('\x04',), LineEditor._erase_right_or_end),
        (('\x05', '\x1b[F', '\x1bOF', '\x1b[4~', '\x1b[8~'), LineEditor._end),
        (('\x06', '\x1b[C', '\x1bOC'), LineEditor._right),
        (('\x07',), LineEditor._cancel_search),
        (('\x08', '\x7f'), LineEditor._erase_left),
        (('\x0b',), LineEditor._kill_to_end),
        (('\x0c',), LineEditor._draw_anew),
        (('\x0e', '\x1b[B', '\x1bOB'), LineEditor._next),
        (('\x10', '\x1b[A', '\x1bOA'), LineEditor._previous),
        (('\x12',), LineEditor._search_history),
        (('\x15',), LineEditor._kill_line),
        (('\x17', '\x1b\x7f'), LineEditor._kill_word_left),
        (('\x19',), LineEditor._yank),
        (('\x1b[3~',), LineEditor._erase_right),
        (('\x1bb', '\x1b[1;5D', '\x1b[1;3D'), LineEditor._word_left),
        (('\x1bd',), LineEditor._kill_word_right),
        (('\x1bf', '\x1b[1;5C', '\x1b[1;3C'), LineEditor._word_right),
    )
    for key in keys
}
_SEARCH_KEYS = frozenset({'\x03', '\x07', '\x08', '\x12', '\x7f'})
