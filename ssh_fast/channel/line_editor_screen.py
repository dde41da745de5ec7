"""Where the characters of an edited line are on the terminal, and the output that moves them there.

The line begins where the application's output ended and is wrapped at the terminal's width; on terminals that cannot
move the cursor up, a part of it that fits into one row is shown instead. A cell is a character and the combining
characters behind it. A row's last column is never left with the cursor on it: the terminal's own wrapping, which waits
for the next character there, is brought about by a space and a carriage return.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

DEFAULT_WIDTH = 80
TAB_WIDTH = 8

# Combining marks, formatting characters, and the separators that only Unicode knows.
_ZERO_WIDTH = frozenset({'Mn', 'Me', 'Cf', 'Zl', 'Zp'})

# Of an escape sequence that never ends, this much is waited for.
_MAX_ESCAPE = 256

_OUTPUT = re.compile(
    r'(?P<text>[^\x00-\x1f\x7f-\x9f]+)'
    r'|\x1b\[(?P<params>[0-?]*)[ -/]*(?P<final>[@-~])'
    r'|\x1b[\]PX^_].*?(?:\x07|\x1b\\)'
    r'|\x1b[ -/]*[0-OQ-WYZ\\`-~]'
    r'|(?P<control>[\x00-\x1a\x1c-\x1f\x7f-\x9f])'
    r'|\x1b(?=[^ -~])'
    r'|(?P<escape>\x1b)',
    re.DOTALL,
)


class Cell(NamedTuple):
    """What is drawn as one: a character with what combines with it, and its width in columns, 1 or 2."""

    text: str
    width: int


_ASCII_CELLS = {chr(code): Cell(chr(code), 1) for code in range(32, 127)}


def character_width(character: str) -> int:
    """Return the columns that a character takes: 0 if it combines with the one before it, 2 if it is wide."""

    if ' ' <= character <= '~':
        return 1

    category = unicodedata.category(character)

    if (category in _ZERO_WIDTH and character != '\u00ad') or '\u1160' <= character <= '\u11ff':
        return 0

    return 2 if unicodedata.east_asian_width(character) in 'WF' else 1


def split_cells(text: str) -> list[Cell]:
    """Split text into cells; a control character becomes what shows it, as ^C."""

    if text.isascii() and text.isprintable():
        return [_ASCII_CELLS[character] for character in text]

    cells: list[Cell] = []

    for character in text:
        if character < ' ' or character == '\x7f':
            cells.append(Cell('^' + chr(ord(character) ^ 64), 2))
        elif '\x80' <= character < '\xa0':
            cells.append(Cell('?', 1))
        elif width := character_width(character):
            cells.append(Cell(character, width))
        elif cells:
            cells[-1] = Cell(cells[-1].text + character, cells[-1].width)
        else:
            # Nothing to combine with: on a space, as terminals show it.
            cells.append(Cell(' ' + character, 1))

    return cells


class OutputColumn:
    """Follows the application's output to know the column where it ends."""

    def __init__(self) -> None:
        self.column = 0
        self.length = 0     # columns since the line began, on however many rows
        self._rest = ''     # the start of an escape sequence whose end has not been written yet

    def follow(self, text: str, width: int) -> None:
        """Take note of output; a column equal to the width is the terminal waiting to wrap."""

        # Only the last line counts, unless an escape sequence may begin before it.
        if not self._rest and '\x1b' not in text and (start := max(text.rfind('\r'), text.rfind('\n')) + 1):
            text = text[start:]
            self.column = self.length = 0

        text = self._rest + text
        self._rest = ''

        for match in _OUTPUT.finditer(text):
            if plain := match['text']:
                for character in plain:
                    columns = character_width(character)
                    self.column = columns if self.column + columns > width else self.column + columns
                    self.length += columns
            elif final := match['final']:
                self._follow_sequence(final, match['params'], width)
            elif control := match['control']:
                self._follow_control(control, width)
            elif match['escape']:
                self._rest = text[match.start() :] if len(text) - match.start() <= _MAX_ESCAPE else ''
                break

    def begin_line(self) -> None:
        """Take note of a new line."""

        self.column = self.length = 0

    def resize(self, width: int) -> None:
        """Take note that the terminal has wrapped the line to its new width."""

        self.column = (self.length - 1) % width + 1 if self.length else 0

    def _follow_control(self, control: str, width: int) -> None:
        column = self.column

        if control == '\r' or control == '\n':
            self.column = 0
        elif control == '\b':
            self.column = max(0, min(self.column, width - 1) - 1)
        elif control == '\t':
            self.column = min(width - 1, (self.column // TAB_WIDTH + 1) * TAB_WIDTH)

        self.length = max(0, self.length + self.column - column) if self.column else 0

    def _follow_sequence(self, final: str, params: str, width: int) -> None:
        values = [int(value[:9]) if value.isdecimal() else 0 for value in params.split(';')]
        first = max(1, values[0])
        column = self.column

        if final in 'EF':
            self.column = 0
        elif final in 'Hf':
            self.column = min(width, max(1, values[1] if len(values) > 1 else 1)) - 1
        elif final in 'G`':
            self.column = min(width, first) - 1
        elif final in 'Ca':
            self.column = min(width - 1, self.column + first)
        elif final == 'D':
            self.column = max(0, min(self.column, width - 1) - first)

        if self.column != column:
            self.length = self.column


class InputScreen:
    """Draws the edited line: `show` gives the output that brings what is on the terminal to what should be there."""

    def __init__(self, width: int = DEFAULT_WIDTH, can_move_up: bool = True) -> None:
        """Make the screen of a terminal; one that cannot move up understands no escape sequences at all."""

        self.width = width
        self.start = 0                            # the column where the line begins
        self._can_move_up = can_move_up
        self._cells: Sequence[Cell] = ()          # what is on the terminal
        self._index = 0                           # the cell that the cursor is on
        self._at = (0, 0)                         # where that is: row, counted from the line's first, and column

    @property
    def is_at_new_row(self) -> bool:
        """Whether the cursor is behind a line that has filled its last row."""

        return self._at[0] > 0 and self._at[1] == 0 and self._index == len(self._cells)

    def begin(self, column: int) -> None:
        """Begin a line at a column; nothing of it is on the terminal."""

        self.start = column
        self._cells = ()
        self._index = 0
        self._at = (0, column)

    def show(self, cells: Sequence[Cell], cursor: int) -> str:
        """Return the output that shows the cells, with the cursor on the one numbered `cursor`, or behind the last."""

        if not self._can_move_up:
            cells, cursor = self._window(cells, cursor)

        return ''.join(self._draw(cells, cursor))

    def finish(self, cells: Sequence[Cell]) -> str:
        """Return the output that shows all of the line, with the cursor behind it, for the last time."""

        if self._can_move_up or self._window(cells, len(cells))[0] == cells:
            return self.show(cells, len(cells))

        return self._move(self._origin) + ''.join(cell.text for cell in cells)

    def erase(self) -> str:
        """Return the output that takes the line off the terminal, with the cursor where it began."""

        return self.show((), 0)

    def resize(self, width: int, start: int) -> str:
        """Return the output that clears the line, which the terminal has wrapped to its new width, to be shown anew.

        Also the application's output in front of it was wrapped, and ends at column `start`.
        """

        if not self._can_move_up:
            output = self.erase()
        elif self._cells:
            self.width = width
            self.start = start
            self._at = self._places(self._cells)[self._index]
            output = self._move(self._origin) + '\x1b[J'
            start = self._at[1]
        else:
            output = ''

        self.width = width
        self.begin(start)

        return output

    # --- private ------------------------------------------------------------------------------------------------------

    def _draw(self, cells: Sequence[Cell], cursor: int) -> Iterator[str]:
        old, same = self._cells, 0

        if not cells and not old:
            return

        if not old and self.start >= self.width:
            yield ' \r'
            self._at = self._origin

        for ours, theirs in zip(cells, old, strict=False):
            if ours != theirs:
                break

            same += 1

        places = self._places(cells)
        changed = same < max(len(cells), len(old))

        if not self._can_move_up and self._index < (same if changed else cursor):
            # Without escape sequences the way forward is to write what is there again.
            same = self._index
            yield self._write(cells, places, same, len(cells) if changed else cursor)
        elif changed:
            yield self._move(self._behind(cells, places, same - 1) if same else self._origin)
            yield self._write(cells, places, same, len(cells))

        if changed and len(old) > same:
            yield self._clear(old, cells)

        yield self._move(places[cursor])
        self._cells = cells
        self._index = cursor

        if not cells:
            self.begin(self._at[1])

    @property
    def _origin(self) -> tuple[int, int]:
        """Where the line begins: on the next row if the output in front of it filled its own."""

        return (1, 0) if self.start >= self.width else (0, self.start)

    def _write(self, cells: Sequence[Cell], places: list[tuple[int, int]], start: int, stop: int) -> str:
        """Return the output that writes some cells at the cursor."""

        row, column = self._at
        parts = []

        for index in range(start, stop):
            if places[index][0] > row and 0 < column < self.width:
                parts.append(' ' * (self.width - column))

            parts.append(cells[index].text)
            row, column = places[index][0], places[index][1] + cells[index].width

        if start < stop:
            if self._can_move_up and column >= self.width:
                parts.append(' \r')

            self._at = self._behind(cells, places, stop - 1)

        return ''.join(parts)

    def _clear(self, old: Sequence[Cell], cells: Sequence[Cell]) -> str:
        """Return the output that clears what was longer, from the end of the line on."""

        if self._can_move_up:
            return '\x1b[J'

        columns = sum(cell.width for cell in old) - sum(cell.width for cell in cells)

        return ' ' * columns + '\b' * columns

    def _window(self, cells: Sequence[Cell], cursor: int) -> tuple[Sequence[Cell], int]:
        """Choose the cells around the cursor that fit into the row, without its last column."""

        room = max(2, self.width - 1 - self.start)
        first = last = cursor
        used = 0

        for limit in (room // 2, room):
            while first > 0 and used + cells[first - 1].width <= limit:
                first -= 1
                used += cells[first].width

            while limit == room // 2 and last < len(cells) and used + cells[last].width <= room:
                used += cells[last].width
                last += 1

        return cells[first:last], cursor - first

    def _places(self, cells: Sequence[Cell]) -> list[tuple[int, int]]:
        """Return row and column of each cell, and of the cursor behind the last."""

        places: list[tuple[int, int]] = []
        row, column = 0, self.start

        for cell in cells:
            if self._can_move_up and column and column + cell.width > self.width:
                row, column = row + 1, 0

            places.append((row, column))
            column += cell.width

        places.append(self._behind(cells, places, len(cells) - 1) if cells else self._origin)

        return places

    def _behind(self, cells: Sequence[Cell], places: list[tuple[int, int]], index: int) -> tuple[int, int]:
        """Return where the cursor is when a cell was written: the next row if that filled its own."""

        row, column = places[index]
        column += cells[index].width

        return (row + 1, 0) if self._can_move_up and column >= self.width else (row, column)

    def _move(self, to: tuple[int, int]) -> str:
        """Return the output that moves the cursor."""

        (row, column), (to_row, to_column) = self._at, to
        self._at = to

        if row == to_row and to_column <= column and (column - to_column < 4 or not self._can_move_up):
            return '\b' * (column - to_column)

        output = ''

        if to_row != row:
            output = f'\x1b[{row - to_row}A' if to_row < row else f'\x1b[{to_row - row}B'

        if to_column == 0 and column:
            output += '\r'
        elif to_column < column:
            output += f'\x1b[{column - to_column}D'
        elif to_column > column:
            output += f'\x1b[{to_column - column}C'

        return output
