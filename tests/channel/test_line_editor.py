"""The line editor on a terminal emulator: what is on the screen, what is handed on, and what it costs."""

import unicodedata
from typing import Any

import pyte
import pytest
import wcwidth
from hypothesis import given, settings
from hypothesis import strategies as st

from ssh_fast.channel.line_editor import LineEditor
from ssh_fast.channel.line_editor_screen import OutputColumn, character_width, split_cells

LEFT, RIGHT, UP, DOWN = '\x1b[D', '\x1b[C', '\x1b[A', '\x1b[B'
HOME, END, DELETE, BACKSPACE = '\x01', '\x05', '\x1b[3~', '\x7f'


class Terminal:
    """A terminal with an editor behind it; it notes what the application is told, and what it is shown itself."""

    def __init__(self, width: int = 20, height: int = 50, **options: Any) -> None:
        self.screen = pyte.Screen(width, height)
        self.stream = pyte.Stream(self.screen)
        self.output = ''
        self.events: list[Any] = []
        self.holds_input = False
        self.hold_after = 0
        self.on_line: Any = None
        self.editor = LineEditor(self, width=width, term_type='xterm', **options)

    def send_output(self, text: str) -> None:
        self.output += text
        self.stream.feed(text)

    def line_entered(self, text: str) -> None:
        self.events.append(text)

        if self.hold_after:
            self.hold_after -= 1
            self.holds_input = not self.hold_after

        if self.on_line:
            self.on_line(text)

    def break_typed(self) -> None:
        self.events.append('<break>')

    def soft_eof_typed(self) -> None:
        self.events.append('<soft eof>')

    def signal_typed(self, signal: str) -> None:
        self.events.append(f'<{signal}>')

    def type(self, *texts: str) -> None:
        for text in texts:
            self.editor.feed(text)

    def write(self, text: str) -> None:
        """Write as the application does."""
        for part in self.editor.process_output(text):
            self.send_output(part)

    def shown(self) -> list[str]:
        rows = [row.rstrip() for row in self.screen.display]

        while rows and not rows[-1]:
            rows.pop()

        return rows

    @property
    def cursor(self) -> tuple[int, int]:
        return self.screen.cursor.y, self.screen.cursor.x

    @property
    def bells(self) -> int:
        return self.output.count('\a')


def typed(*texts: str, **options: Any) -> Terminal:
    terminal = Terminal(**options)
    terminal.type(*texts)

    return terminal


def line_of(*texts: str, **options: Any) -> str:
    """Return the line that these keys make."""
    terminal = typed(*texts, '\r', **options)
    assert len(terminal.events) == 1

    return terminal.events[0].removesuffix('\n')


# --- keys


@pytest.mark.parametrize(
    ('keys', 'line'),
    [
        ('abc', 'abc'),
        ('abc\x02\x02X', 'aXbc'),
        (f'abc{LEFT}{LEFT}{RIGHT}X', 'abXc'),
        ('abc\x1bOD\x1bODX\x1bOCY', 'aXbYc'),
        ('bc\x01a\x05d', 'abcd'),
        ('bc\x1b[Ha\x1b[Fd', 'abcd'),
        ('bc\x1bOHa\x1bOFd', 'abcd'),
        ('bc\x1b[1~a\x1b[4~d\x1b[7~>\x1b[8~<', '>abcd<'),
        ('abc\x08\x7f', 'a'),
        ('abc\x01\x04\x1b[3~', 'c'),
        ('abc\x02\x04', 'ab'),
        ('abcdef\x02\x02\x02\x0b', 'abc'),
        ('abcdef\x02\x02\x02\x0b\x19\x19', 'abcdefdef'),
        ('abc\x15x', 'x'),
        ('abc\x15x\x19', 'xabc'),
        ('one two  three\x17', 'one two  '),
        ('one two  \x17', 'one '),
        ('one two\x1b\x7f', 'one '),
        ('one two three\x1bb\x1bbX', 'one Xtwo three'),
        ('one two three\x01\x1bf\x1bfX', 'one twoX three'),
        ('one two three\x01\x1b[1;5C\x1b[1;5C\x1b[1;5DX', 'one Xtwo three'),
        ('one two three\x01\x1bd\x1bd', ' three'),
        ('ab\x0cc', 'abc'),
        ('a\x1b[5~b\x1b[200~c\x1bOPd\x1bze', 'abcde'),
        ('a\x1b\x1b[Db', 'ba'),
        ('a\tb\x00c\x9bd', 'abcd'),
        ('日本\x02x\x7f\x7f語', '語本'),
        ('e\u0301\x02x', 'xe\u0301'),
        ('ae\u0301\x7f', 'a'),
        ('ae\u0301b\x01\x06\x04', 'ab'),
    ],
)
def test_keys(keys: str, line: str) -> None:
    assert line_of(keys) == line
    assert line_of(*keys) == line


def test_lines_end_with_any_newline() -> None:
    assert typed('a\rb\nc\r\nd\r\r\ne\n\n').events == ['a\n', 'b\n', 'c\n', 'd\n', '\n', 'e\n', '\n']
    assert typed('a\r', '\nb\n').events == ['a\n', 'b\n']


def test_keys_that_do_nothing_ring_the_bell() -> None:
    for key in ('\x02', '\x06', '\x0b', '\x15', '\x17', '\x7f', '\x10', '\x0e', '\t', '\x1b[5~', '\x07', '\x1bz'):
        terminal = typed(key)
        assert terminal.bells == 1, repr(key)
        assert terminal.shown() == []


def test_one_bell_for_what_comes_at_once() -> None:
    assert typed('\x00' * 1000).bells == 1


def test_break_leaves_the_line() -> None:
    terminal = typed('ab\x03cd\r')
    assert terminal.events == ['<break>', 'abcd\n']


def test_soft_eof_only_on_an_empty_line() -> None:
    terminal = typed('\x04', 'a\x02\x04', '\x04', 'b\x04', '\r')
    assert terminal.events == ['<soft eof>', '<soft eof>', 'b\n']
    assert terminal.bells == 1


def test_end_hands_on_the_unfinished_line() -> None:
    terminal = typed('one\rtw\x1b[')
    terminal.editor.end()
    terminal.editor.end()
    assert terminal.events == ['one\n', 'tw']


def test_an_escape_sequence_in_pieces() -> None:
    assert line_of('ab', '\x1b', '[', 'D', 'x') == 'axb'
    assert line_of('ab', '\x1b[1;', '5', 'D', 'x') == 'xab'


def test_an_escape_sequence_without_end_is_not_kept_for_ever() -> None:
    terminal = Terminal()

    for _ in range(200):
        terminal.type('\x1b[', '1;' * 16)

    assert len(terminal.editor._pending) < 100
    assert line_of('\x1b[' + '1;' * 500 + 'x', max_line_length=2000).endswith('x')


# --- history


def test_history() -> None:
    terminal = typed('one\r', 'two\r', 'two\r', '\r', 'three')
    terminal.type(UP)
    assert terminal.shown()[-1] == 'two'
    terminal.type('\x10')
    assert terminal.shown()[-1] == 'one'
    terminal.type(UP)
    assert terminal.bells == 1
    terminal.type(DOWN, '\x0e')
    assert terminal.shown()[-1] == 'three'
    terminal.type('\x0e')
    assert terminal.bells == 2
    terminal.type(UP, UP, '!\r')
    assert terminal.events[-1] == 'one!\n'


def test_history_is_bounded() -> None:
    terminal = Terminal(history_size=3)
    terminal.type(*(f'{number}\r' for number in range(10)))
    assert terminal.editor._history.lines == ['7', '8', '9']
    terminal.type(UP * 4)
    assert terminal.shown()[-1] == '7'


def test_no_history() -> None:
    terminal = typed('one\r', UP, history_size=0)
    assert terminal.editor._history.lines == []
    assert terminal.bells == 1


def test_what_is_not_shown_is_not_kept() -> None:
    terminal = typed('user\r')
    terminal.editor.set_echo(False)
    terminal.type('secret\r')
    terminal.editor.set_echo(True)
    terminal.type(UP)
    assert terminal.shown() == ['user', '', 'user']
    assert 'secret' not in terminal.output
    assert terminal.events == ['user\n', 'secret\n']


def test_search() -> None:
    terminal = typed('make all\r', 'git pull\r', 'make test\r', 'ls\r', width=40)
    terminal.type('dra', '\x12', 'ma')
    assert terminal.shown()[-1] == "(search) 'ma': make test"
    terminal.type('\x12')
    assert terminal.shown()[-1] == "(search) 'ma': make all"
    terminal.type('\x12')
    assert terminal.bells == 1
    assert terminal.shown()[-1] == "(search) 'ma': make all"
    terminal.type('ke t')
    assert terminal.shown()[-1] == "(failed search) 'make t':"
    terminal.type(BACKSPACE)
    assert terminal.shown()[-1] == "(search) 'make ': make test"
    terminal.type('\x07')
    assert terminal.shown()[-1] == 'dra'
    terminal.type('\x12', 'pull', HOME, 'X')
    assert terminal.shown()[-1] == 'Xgit pull'
    terminal.type('\x15', '\x12', 'l', '\x12', '\r')
    assert terminal.events[-1] == 'git pull\n'
    terminal.type('x', '\x12', 'make', '\x03', 'y\r')
    assert terminal.events[-2:] == ['<break>', 'xy\n']


def test_search_is_bounded() -> None:
    terminal = Terminal()
    terminal.type('\x12' + 'x' * 100_000)
    assert len(terminal.editor._search._query) <= 256    # type: ignore[union-attr]
    assert terminal.bells == 1


# --- limits


def test_the_longest_line() -> None:
    terminal = typed('x' * 15, max_line_length=10)
    assert terminal.bells == 1
    terminal.type('y', HOME, 'z', '\r')
    assert terminal.events == ['x' * 10 + '\n']
    assert typed('ab\x15' + '\x19' * 50 + '\r', max_line_length=10).events == ['ab' * 5 + '\n']


def test_input_is_held() -> None:
    """What the application does not want yet waits, so that a client cannot have it do everything at once."""
    terminal = Terminal()
    terminal.type('a' * 1000 + '\r')
    terminal.output = ''
    terminal.hold_after = 3
    terminal.type('\x10\r' * 100_000)
    assert len(terminal.events) == 4
    assert len(terminal.output) < 5000
    terminal.hold_after = 2
    terminal.holds_input = False
    terminal.editor.resume()
    assert len(terminal.events) == 6


def test_a_large_paste_is_not_copied_at_every_key() -> None:
    terminal = Terminal()
    sizes: list[int] = []
    terminal.on_line = lambda text: sizes.append(len(terminal.editor._pending))
    terminal.hold_after = 1
    terminal.type(*['a\r'] * 500, 'a\r' * 5000)
    terminal.holds_input = False
    terminal.editor.resume()
    assert terminal.events == ['a\n'] * 5500
    assert max(sizes) < 1024


def test_a_paste_is_drawn_once() -> None:
    terminal = Terminal(width=80)
    terminal.type('x\x01' * 1000)
    assert len(terminal.output) < 2000


# --- the application


def test_output_leaves_the_line_whole() -> None:
    terminal = Terminal()
    terminal.write('> ')
    terminal.type('hello', LEFT)
    terminal.write('\nnews\n> ')
    assert terminal.shown() == ['>', 'news', '> hello']
    assert terminal.cursor == (2, 6)
    terminal.write('! ')
    assert terminal.shown() == ['>', 'news', '> ! hello']
    terminal.type('X\r')
    assert terminal.events == ['hellXo\n']
    assert terminal.shown() == ['>', 'news', '> ! hellXo']
    assert terminal.cursor == (3, 0)


def test_newlines_are_never_doubled() -> None:
    terminal = Terminal()
    terminal.write('a\nb\r\nc\r')
    terminal.write('\nd\n')
    terminal.write('\n')
    assert terminal.output == 'a\r\nb\r\nc\r\nd\r\n\r\n'


def test_output_that_ends_at_the_margin() -> None:
    terminal = Terminal(width=10)
    terminal.write('0123456789')
    terminal.type('ab')
    assert terminal.shown() == ['0123456789', 'ab']
    terminal.write('cd')
    assert terminal.shown() == ['0123456789', 'cdab']


def test_a_line_that_fills_its_row_is_not_followed_by_an_empty_one() -> None:
    terminal = Terminal(width=10)
    terminal.type('0123456789\r', 'a')
    assert terminal.shown() == ['0123456789', 'a']


def test_application_writes_as_a_line_comes() -> None:
    terminal = Terminal()
    terminal.on_line = lambda line: terminal.write(f'[{line.strip()}]\n> ')
    terminal.write('> ')
    terminal.type('a\rb\rcd')
    assert terminal.shown() == ['> a', '[a]', '> b', '[b]', '> cd']


def test_echo_off_and_on() -> None:
    terminal = Terminal()
    terminal.write('Password: ')
    terminal.editor.set_echo(False)
    terminal.type('secret', LEFT, BACKSPACE)
    assert terminal.shown() == ['Password:']
    terminal.editor.set_echo(True)
    assert terminal.shown() == ['Password: secrt']
    terminal.editor.set_echo(False)
    assert terminal.shown() == ['Password:']
    terminal.type('\r')
    assert terminal.events == ['secrt\n']
    assert terminal.cursor == (1, 0)


def test_echo_off_between_two_lines_that_come_together() -> None:
    terminal = Terminal()
    terminal.on_line = lambda line: terminal.editor.set_echo(line != 'user\n')
    terminal.type('user\nsecret\nmore\n')
    assert terminal.shown() == ['user', '', 'more']


def test_lines_that_are_not_echoed() -> None:
    terminal = Terminal(line_echo=False)
    terminal.write('> ')
    terminal.type('abc')
    assert terminal.shown() == ['> abc']
    terminal.type('\r')
    assert terminal.shown() == ['>']
    terminal.write('abc\n')
    assert terminal.shown() == ['> abc']
    assert terminal.events == ['abc\n']


def test_line_mode() -> None:
    terminal = Terminal()
    terminal.type('ab', '\x1b')
    terminal.editor.set_line_mode(False)
    assert terminal.events == ['ab', '\x1b']
    assert terminal.shown() == []
    terminal.type('x\r', '\x03')
    assert terminal.events[2:] == ['x\r', '\x03']
    terminal.editor.set_line_mode(True)
    terminal.type('y\r')
    assert terminal.events[4:] == ['y\n']
    assert terminal.shown() == ['y']


def test_line_mode_ends_between_two_lines() -> None:
    terminal = Terminal()
    terminal.on_line = lambda line: terminal.editor.set_line_mode(False)
    terminal.type('raw\rabc\r')
    assert terminal.events == ['raw\n', 'abc\r']


def test_input_is_set_and_cleared() -> None:
    terminal = Terminal()
    terminal.write('> ')
    terminal.editor.set_input('hello', 2)
    assert (terminal.shown(), terminal.cursor) == (['> hello'], (0, 4))
    terminal.type('X')
    assert terminal.shown() == ['> heXllo']
    terminal.editor.clear_input()
    assert (terminal.shown(), terminal.cursor) == (['>'], (0, 2))
    terminal.editor.set_input('abc', 99)
    terminal.type('d\r')
    assert terminal.events == ['abcd\n']


def test_control_characters_that_the_application_sets_are_shown() -> None:
    terminal = Terminal()
    terminal.editor.set_input('a\tb\x1b[2Jc\x9b', 99)
    assert terminal.shown() == ['a^Ib^[[2Jc?']


# --- keys of the application


def test_completion() -> None:
    def complete(line: str, position: int) -> tuple[str, int] | bool:
        words = [word for word in ('hello', 'world') if word.startswith(line[:position])]
        return (words[0], len(words[0])) if len(words) == 1 else False

    terminal = Terminal()
    terminal.editor.register_key('\t', complete)
    terminal.type('\t')
    assert terminal.bells == 1
    terminal.type('w\t\r')
    assert terminal.events == ['world\n']


def test_what_a_handler_may_return() -> None:
    terminal = Terminal(max_line_length=10)
    register = terminal.editor.register_key
    register('!', lambda line, position: True)
    register('?', lambda line, position: False)
    register('\x1b[17~', lambda line, position: ('KILL', -1))
    register('\x14', lambda line, position: True)
    register('+', lambda line, position: (line * 20, 0))
    register('-', lambda line, position: (line, 99))
    terminal.type('a!b?', LEFT, '\x1b[17~', '\x14', '-', 'c', '+')
    assert terminal.events == ['<KILL>']
    assert terminal.shown() == ['a!bc']
    terminal.type('\r')
    assert terminal.events == ['<KILL>', 'a!bc\n']


def test_keys_are_changed_and_taken_away() -> None:
    terminal = Terminal()
    terminal.editor.register_key('\x01', lambda line, position: ('HOME', 4))
    terminal.editor.register_key('jk', lambda line, position: ('', 0))
    terminal.type('abc\x01')
    assert terminal.shown() == ['HOME']
    terminal.type('j')
    assert terminal.shown() == ['HOME']
    terminal.type('x')
    assert terminal.shown() == ['HOMEjx']
    terminal.type('j', 'k')
    assert terminal.shown() == []
    terminal.editor.unregister_key('jk')
    terminal.editor.unregister_key('\x01')
    terminal.editor.unregister_key('\x05')
    terminal.editor.unregister_key('never there')
    terminal.type('j', 'k\x01\x05')
    assert terminal.shown() == ['jk']
    assert terminal.bells == 1
    terminal.editor.register_key('\x05', lambda line, position: ('back', 4))
    terminal.type('\x05\r')
    assert terminal.events == ['back\n']

    with pytest.raises(ValueError, match='at least one character'):
        terminal.editor.register_key('', lambda line, position: True)


def test_a_handler_that_fails_leaves_the_editor_usable() -> None:
    terminal = Terminal()
    terminal.editor.register_key('!', lambda line, position: (1 // 0, ''))    # type: ignore[return-value]

    with pytest.raises(ZeroDivisionError):
        terminal.type('a!')

    terminal.type('b\r')
    assert terminal.events == ['ab\n']


# --- the screen


def expected(prompt: str, line: str, position: int, width: int) -> tuple[list[str], tuple[int, int]]:
    """Lay a prompt and a line out: rows, and where the cursor is."""
    rows, used, cursor = [''], 0, None

    for index, (text, columns) in enumerate((*split_cells(prompt), *split_cells(line))):
        if index == len(split_cells(prompt)) + len(split_cells(line[:position])):
            cursor = index

        if used + columns > width:
            rows.append('')
            used = 0

        if index == cursor:
            cursor = None
            place = len(rows) - 1, used

        rows[-1] += text
        used += columns

    if position == len(line):
        place = (len(rows), 0) if used >= width else (len(rows) - 1, used)

    return [row.rstrip() for row in rows], place


def check(terminal: Terminal, prompt: str, width: int) -> None:
    editor = terminal.editor
    rows, cursor = expected(prompt, editor._line, editor._position, width)

    if not editor._line:
        return

    while rows and not rows[-1]:
        rows.pop()

    assert terminal.shown() == [unicodedata.normalize('NFC', row) for row in rows]
    assert terminal.cursor == cursor


KEYS = st.sampled_from(
    [
        *('a', 'B ', 'some words ', '日', '本語', '0123456789', 'e\u0301', '\uff21'),
        *(LEFT, RIGHT, UP, DOWN, HOME, END, DELETE, BACKSPACE),
        *('\x0b', '\x15', '\x17', '\x19', '\x0c', '\x1bb', '\x1bf'),
    ]
)


@given(st.lists(KEYS, max_size=25), st.integers(5, 30), st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_the_screen_shows_the_line(keys: list[str], width: int, prompt_length: int) -> None:
    prompt = ('prompt> ' * 5)[:prompt_length]
    terminal = Terminal(width=width, height=80)
    terminal.write(prompt)

    for key in keys:
        terminal.type(key)
        check(terminal, prompt, width)


@given(st.lists(KEYS, max_size=20), st.integers(5, 30), st.integers(5, 30), st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_the_screen_shows_the_line_when_it_is_resized(
    keys: list[str], width: int, new_width: int, prompt_length: int
) -> None:
    """A terminal wraps what is there to its new width, and so says the model of it; then the line is drawn anew."""
    prompt = ('prompt> ' * 5)[:prompt_length]
    terminal = Terminal(width=width, height=80)
    terminal.write(prompt)
    terminal.type(''.join(keys))
    line, position = terminal.editor._line, terminal.editor._position

    if not line:
        return

    rows, (row, column) = expected(prompt, line, position, new_width)
    terminal.screen = pyte.Screen(new_width, 80)
    terminal.stream = pyte.Stream(terminal.screen)
    terminal.stream.feed('\r\n'.join(rows))
    terminal.stream.feed(f'\x1b[{row + 1};{column + 1}H')
    terminal.editor.resize(new_width)
    check(terminal, prompt, new_width)
    terminal.type('xyz', BACKSPACE)
    check(terminal, prompt, new_width)


def test_the_screen_scrolls() -> None:
    terminal = Terminal(width=10, height=4)
    terminal.write('1\n2\n3\n> ')
    terminal.type('abcdefghijklmnopq')
    assert terminal.shown() == ['2', '3', '> abcdefgh', 'ijklmnopq']
    terminal.type('r', HOME, 'XY')
    assert terminal.shown()[-3:] == ['> XYabcdef', 'ghijklmnop', 'qr']
    terminal.type('\x15', 'z')
    assert terminal.shown() == ['3', '> z']


def test_a_size_of_zero_and_enormous_sizes() -> None:
    for width in (0, 1, 2, 2**32 - 1):
        terminal = Terminal()
        terminal.editor = LineEditor(terminal, width=width, term_type='xterm')
        terminal.type('日本 text')
        terminal.editor.resize(width)
        terminal.editor.resize(80)
        terminal.editor.resize(width)
        terminal.write('more\n')
        terminal.type('\r')
        assert terminal.events == ['日本 text\n']
        assert len(terminal.output) < 1000


def test_terminals_that_cannot_move_up() -> None:
    """A part of the line is shown, and nothing but backspaces moves the cursor."""
    terminal = Terminal()
    terminal.editor = LineEditor(terminal, width=20, term_type='dumb')
    terminal.write('> ')
    terminal.type('0123456789', LEFT, LEFT, RIGHT, 'x')
    assert terminal.shown() == ['> 012345678x9']
    terminal.type(' the end of it')
    assert terminal.shown()[0].endswith('d of it9')
    terminal.type(HOME)
    assert terminal.shown() == ['> 012345678x the en']
    assert terminal.cursor == (0, 2)
    terminal.type('日', END)
    assert terminal.cursor[0] == 0
    terminal.write('news\n> ')
    assert terminal.shown()[0] == '> news'
    terminal.type('\r')
    assert terminal.events == ['日012345678x the end of it9\n']
    assert '\x1b' not in terminal.output


@given(st.lists(KEYS, max_size=25), st.integers(6, 30))
@settings(max_examples=40, deadline=None)
def test_a_plain_terminal_shows_what_is_around_the_cursor(keys: list[str], width: int) -> None:
    terminal = Terminal(width=width)
    terminal.editor = editor = LineEditor(terminal, width=width, term_type='dumb')
    terminal.write('> ')

    for key in keys:
        terminal.type(key)
        row = terminal.screen.display[0].removeprefix('> ').rstrip()
        assert row in unicodedata.normalize('NFC', editor._line)
        assert terminal.cursor[0] == 0
        assert '\x1b' not in terminal.output


# --- widths and columns


def test_widths_are_those_of_terminals() -> None:
    """Our widths, from Python's own tables, are wcwidth's but where the two know different Unicode versions."""
    different = [
        code
        for code in range(32, 0x30000)
        if wcwidth.wcwidth(chr(code)) >= 0
        and unicodedata.category(chr(code)) not in ('Cn', 'Mc')
        and character_width(chr(code)) != wcwidth.wcwidth(chr(code))
    ]
    assert len(different) < 400
    assert [character_width(character) for character in 'aé日\uff21\u0301\u200b\u200d\u1160😀\u00ad'] == [
        1, 1, 2, 2, 0, 0, 0, 0, 2, 1,
    ]


@pytest.mark.parametrize(
    ('output', 'column'),
    [
        ('abc', 3),
        ('abc\r\nde', 2),
        ('abc\rd', 1),
        ('abc\b\b', 1),
        ('a\tb', 9),
        ('\x1b[31mred\x1b[0m', 3),
        ('\x1b]0;title\x07ab', 2),
        ('\x1b]0;title\x1b\\ab', 2),
        ('abc\x1b[2J\x1b[Hde', 2),
        ('\x1b[3;7Hx', 7),
        ('\x1b[5Gx', 5),
        ('abc\x1b[2D', 1),
        ('abc\x1b[2C', 5),
        ('\x1b(Bab', 2),
        ('日本', 4),
        ('0123456789', 10),
        ('01234567890', 1),
        ('012345678日', 2),
        ('ab\x1b\x00c', 3),
    ],
)
def test_the_column_of_output(output: str, column: int) -> None:
    whole, pieces = OutputColumn(), OutputColumn()
    whole.follow(output, 10)

    for character in output:
        pieces.follow(character, 10)

    assert whole.column == column
    assert pieces.column == column


def test_an_unfinished_sequence_in_output_is_not_kept_for_ever() -> None:
    column = OutputColumn()

    for _ in range(100):
        column.follow('\x1b]' + 'x' * 100, 80)

    assert len(column._rest) <= 256


TYPED = st.lists(
    st.one_of(
        KEYS,
        st.sampled_from(['\r', '\n', '\r\n', '\x03', '\x04', '\x12', '\x07', '\t', 'jk']),
        st.sampled_from(['\x1b', '\x1b[', '\x1bO', ';5', '~']),
        st.text(max_size=3),
    ),
    max_size=30,
)


@given(TYPED, st.integers(1, 30), st.sampled_from(['xterm', 'dumb']))
@settings(max_examples=40, deadline=None)
def test_anything_typed_means_the_same_in_any_pieces(texts: list[str], width: int, term_type: str) -> None:
    terminals = []

    for pieces in (texts, [''.join(texts)], ''.join(texts)):
        terminal = Terminal(width=30)
        terminal.editor = LineEditor(terminal, width=width, term_type=term_type, history_size=5, max_line_length=50)
        terminal.editor.register_key('jk', lambda line, position: (line.upper(), position))
        terminal.type(*pieces)
        terminals.append((terminal.events, terminal.editor._line, terminal.editor._position, terminal.editor._pending))

    assert terminals[0] == terminals[1] == terminals[2]
    assert all(len(event) <= 51 or event.startswith('<') for event in terminals[0][0])
