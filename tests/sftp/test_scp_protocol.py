"""SCP's records and command lines, without a connection: what is taken, what is refused, and what is never kept."""

import fnmatch
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssh_fast.sftp.attrs import SFTPAttrs
from ssh_fast.sftp.errors import SFTPBadMessage, SFTPConnectionLost, SFTPFailure, SFTPInvalidFilename
from ssh_fast.sftp.scp_command import (
    has_pattern,
    is_scp,
    parse_command,
    sink_command,
    source_command,
    split_words,
    wanted_names,
)
from ssh_fast.sftp.scp_link import ScpLink
from ssh_fast.sftp.scp_records import (
    MAX_DEPTH,
    MAX_LINE,
    End,
    Entry,
    Message,
    RecordOrder,
    Times,
    encode_entry,
    encode_message,
    encode_times,
    is_fit,
    parse_record,
)
from ssh_fast.sftp.scp_source import RecordSender, matching_paths

NAMES = st.binary(min_size=1, max_size=40).filter(is_fit)
PATHS = st.text(st.characters(exclude_characters='\0', exclude_categories=['Cs']), min_size=1, max_size=30)


class Stream:
    """Gives what it was made with, in pieces of `cut` bytes, and keeps what is written."""

    def __init__(self, data: bytes, cut: int = 0) -> None:
        self.data, self.cut, self.written, self.largest = data, cut, b'', 0

    async def read(self, n: int = -1) -> bytes:
        size = min(n, self.cut or n)
        taken, self.data = self.data[:size], self.data[size:]
        self.largest = max(self.largest, len(taken))
        return taken

    def write(self, data: bytes) -> None:
        self.written += data

    async def drain(self) -> None:
        return


def link(data: bytes, cut: int = 0) -> ScpLink:
    stream = Stream(data, cut)
    return ScpLink(stream, stream)


# --- records


def test_records_of_openssh() -> None:
    assert parse_record(b'C0644 12 a name') == Entry(b'a name', 0o644, 12, False)
    assert parse_record(b'D0755 0 dir') == Entry(b'dir', 0o755, 0, True)
    assert parse_record(b'T1100000000 0 1000000000 500000') == Times(1_100_000_000.0, 1_000_000_000.5)
    assert parse_record(b'E') == End()
    assert parse_record(b'\1scp: x: No such file') == Message('x: No such file', False)
    assert parse_record(b'\2scp: gone') == Message('gone', True)


@given(NAMES, st.integers(0, 0o7777), st.integers(0, 2**63 - 1), st.booleans())
def test_entries_are_read_as_they_are_written(name: bytes, mode: int, size: int, is_directory: bool) -> None:
    line = encode_entry(name, mode, size, is_directory)
    assert line.endswith(b'\n')
    assert parse_record(line[:-1]) == Entry(name, mode & 0o777, size, is_directory)


@given(st.floats(-1e15, 1e15), st.floats(-1e15, 1e15))
def test_times_are_read_as_they_are_written(mtime: float, atime: float) -> None:
    def held(seconds: float) -> float:
        return float(min(max(int(seconds), 0), 10**12 - 1))

    assert parse_record(encode_times(mtime, atime)[:-1]) == Times(held(mtime), held(atime))


@given(st.text(max_size=2000), st.booleans())
def test_messages_hold_one_line_without_control_characters(text: str, fatal: bool) -> None:
    line = encode_message(text, fatal)
    assert line.count(b'\n') == 1 and line.endswith(b'\n') and len(line) <= MAX_LINE
    record = parse_record(line[:-1])
    assert isinstance(record, Message) and record.fatal == fatal
    assert record.text.isprintable()


@given(st.binary(max_size=300))
def test_any_line_is_a_record_or_refused(line: bytes) -> None:
    try:
        record = parse_record(line)
    except SFTPBadMessage:
        return
    if isinstance(record, Entry):
        assert is_fit(record.name) and b'/' not in record.name
        assert 0 <= record.permissions <= 0o777 and 0 <= record.size < 2**63
    elif isinstance(record, Message):
        assert record.text.isprintable()


@given(st.sampled_from([b'C0644 1 a', b'D0755 0 a', b'T1 0 1 0', b'E']), st.data())
def test_a_changed_record_is_a_record_or_refused(line: bytes, data: Any) -> None:
    at = data.draw(st.integers(0, len(line)))
    changed = line[:at] + data.draw(st.binary(max_size=4)) + line[at + data.draw(st.integers(0, 3)) :]
    try:
        record = parse_record(changed)
    except SFTPBadMessage:
        return
    assert not isinstance(record, Entry) or is_fit(record.name)


@pytest.mark.parametrize(
    'line',
    [
        b'', b'X', b'E ', b'EE', b'C', b'C0644', b'C0644 1', b'C0644 1 ', b'C644 1 a', b'C00644 1 a', b'C0844 1 a',
        b'C0644 -1 a', b'C0644 +1 a', b'C0644 0x1 a', b'C0644  1 a', b'C0644 1_0 a', b'C-644 1 a', b'c0644 1 a',
        b'C0644 9223372036854775808 a', b'C0644 99999999999999999999 a', b'C0644 18446744073709551615 a',
        b'T', b'T1', b'T1 0', b'T1 0 1', b'T1 0 1 0 ', b'T-1 0 1 0', b'T1 -1 1 0', b'T1 0 1 1000000',
        b'T1 0 -1 0', b'T1000000000000 0 1 0', b'T1.5 0 1 0', b'T1 0 1 0 0', b'C0644 \xd9\xa1 a',
    ],
)  # fmt: skip
def test_malformed_records_are_refused(line: bytes) -> None:
    with pytest.raises(SFTPBadMessage, match='Expected'):
        parse_record(line)


UNFIT = [
    b'', b'.', b'..', b'/', b'a/b', b'/etc/passwd', b'../a', b'a/', b'./a', b'a\0b', b'a\nb', b'a\rb', b'\x1b[2J',
    b'a\tb', b'\x7f', 'a\x9bb'.encode(), 'a\x85b'.encode(),
]  # fmt: skip


@pytest.mark.parametrize('name', UNFIT)
@pytest.mark.parametrize('kind', [b'C0644 0 ', b'D0755 0 '])
def test_names_that_lead_elsewhere_are_refused(kind: bytes, name: bytes) -> None:
    with pytest.raises(SFTPBadMessage) as caught:
        parse_record(kind + name)
    assert caught.value.reason.isprintable()


@pytest.mark.parametrize('name', UNFIT)
async def test_names_that_lead_elsewhere_are_not_sent(name: bytes) -> None:
    stream = Stream(b'\0')
    with pytest.raises(SFTPInvalidFilename):
        await RecordSender(ScpLink(stream, stream), True).file(name, SFTPAttrs(atime=1, mtime=1), 0)
    assert stream.written == b''


@pytest.mark.parametrize('name', [b'-rf', b'~', b'*', b' ', b'a b', 'ä'.encode(), b'\xff\xfe', b'...', b"'", b'$(x)'])
def test_odd_names_that_are_names(name: bytes) -> None:
    assert parse_record(b'C0644 0 ' + name) == Entry(name, 0o644, 0, False)


# --- their order


def order(path: bytes | None = None, recurse: bool = True) -> RecordOrder:
    return RecordOrder(recurse=recurse, wanted=None if path is None else wanted_names(path))


def test_an_entry_has_the_times_before_it() -> None:
    records = order()
    assert records.take(b'T7 0 8 0') == Times(7, 8)
    assert records.take(b'C0600 1 a') == Entry(b'a', 0o600, 1, False, Times(7, 8))
    assert records.take(b'C0600 1 b') == Entry(b'b', 0o600, 1, False)


@pytest.mark.parametrize(
    'lines',
    [
        [b'E'],
        [b'D0755 0 a', b'E', b'E'],
        [b'T1 0 1 0', b'T1 0 1 0'],
        [b'D0755 0 a', b'T1 0 1 0', b'E'],
    ],
)
def test_records_out_of_place_are_refused(lines: list[bytes]) -> None:
    records = order()
    for line in lines[:-1]:
        record = records.take(line)
        if isinstance(record, Entry) and record.is_directory:
            records.enter()
    with pytest.raises(SFTPBadMessage, match='Expected'):
        records.take(lines[-1])


def test_a_stream_that_ends_too_soon() -> None:
    records = order()
    records.finish()
    records.take(b'D0755 0 a')
    records.enter()
    with pytest.raises(SFTPBadMessage, match='rest of a directory'):
        records.finish()
    records.take(b'E')
    records.finish()
    records.take(b'T1 0 1 0')
    with pytest.raises(SFTPBadMessage):
        records.finish()


def test_a_directory_that_was_refused_is_not_entered() -> None:
    records = order()
    records.take(b'D0755 0 a')
    with pytest.raises(SFTPBadMessage, match='has not begun'):
        records.take(b'E')


def test_directories_only_where_they_were_asked_for() -> None:
    with pytest.raises(SFTPBadMessage, match='Expected files only'):
        order(recurse=False).take(b'D0755 0 a')


def test_depth_is_bounded() -> None:
    records = order()
    for _ in range(MAX_DEPTH):
        records.take(b'D0755 0 a')
        records.enter()
    with pytest.raises(SFTPBadMessage, match='nested'):
        records.take(b'D0755 0 a')
    assert isinstance(records.take(b'C0644 0 a'), Entry)


@pytest.mark.parametrize(
    ('path', 'names', 'others'),
    [
        (b'/a/file', [b'file'], [b'a', b'File', b'file2', b'.bashrc']),
        (b'dir/', [b'dir'], [b'di', b'dir2']),
        (b'~/x', [b'x'], [b'~']),
        (b'*.txt', [b'a.txt', b'b c.txt'], [b'.txt', b'.a.txt', b'a.tx', b'a.txt2']),
        (b'.b*', [b'.bashrc', b'.b'], [b'b', b'.a']),
        (b'a?c', [b'abc', b'a?c'], [b'ac', b'abbc']),
        (b'[a-c]1', [b'a1', b'c1', b'[a-c]1'], [b'd1', b'a2']),
        (b'[!a]', [b'b'], [b'a']),
        (b'[^a]', [b'b'], [b'a']),
        (b'*/file', [b'file'], [b'other']),
        (b'(a|b)+$', [b'(a|b)+$'], [b'a', b'b']),
    ],
)
def test_only_what_was_asked_for_may_come(path: bytes, names: list[bytes], others: list[bytes]) -> None:
    for name in names:
        assert isinstance(order(path).take(b'C0644 0 ' + name), Entry), name
    for name in others:
        with pytest.raises(SFTPBadMessage, match='asked for'):
            order(path).take(b'C0644 0 ' + name)


def test_only_a_pattern_brings_several() -> None:
    records = order(b'a')
    records.take(b'C0644 0 a')
    with pytest.raises(SFTPBadMessage, match='Expected one file'):
        records.take(b'C0644 0 a')
    records = order(b'a*')
    for name in (b'a', b'ab', b'a'):
        records.take(b'C0644 0 ' + name)


def test_below_a_directory_names_are_the_source_s_own() -> None:
    records = order(b'dir')
    records.take(b'D0755 0 dir')
    records.enter()
    records.take(b'C0644 0 anything')
    with pytest.raises(SFTPBadMessage):
        records.take(b'C0644 0 ..')


@pytest.mark.parametrize('path', [b'', b'.', b'..', b'/', b'a/..', b'a/.', b'~', b'~user', b'~/', b'//'])
def test_paths_without_a_name(path: bytes) -> None:
    assert wanted_names(path) is None


# --- the stream


@pytest.mark.parametrize('cut', [0, 1, 7])
async def test_lines_data_and_answers(cut: int) -> None:
    stream = link(b'\0C0644 3 a\nabc\0\1scp: no\n\2scp: end\nE\n', cut)
    assert await stream.answer() is None
    assert await stream.line() == b'C0644 3 a'
    data = b''
    while len(data) < 3:
        data += await stream.data(3 - len(data))
    assert data == b'abc'
    assert await stream.answer() is None
    assert await stream.answer() == Message('no', False)
    assert not stream.broken
    with pytest.raises(SFTPFailure, match='end'):
        await stream.expect_ok()
    assert stream.broken
    assert await stream.line() == b'E'
    assert await stream.line() is None


@pytest.mark.parametrize('cut', [0, 1, 1000])
async def test_lines_are_bounded(cut: int) -> None:
    fits = b'x' * (MAX_LINE - 1)
    assert await link(fits + b'\n', cut).line() == fits
    stream = Stream(b'x' * 200_000, cut)
    with pytest.raises(SFTPBadMessage, match='longer'):
        await ScpLink(stream, stream).line()
    assert len(stream.data) > 100_000


async def test_an_end_within_a_line_or_data() -> None:
    for data in (b'C0644', b''):
        stream = link(data)
        with pytest.raises(SFTPConnectionLost):
            await (stream.line() if data else stream.data(1))
        assert stream.broken
        with pytest.raises(SFTPConnectionLost):
            await stream.send(b'x')
    with pytest.raises(SFTPConnectionLost):
        await link(b'\1no newline').answer()
    with pytest.raises(SFTPConnectionLost):
        await link(b'\1').answer()


@pytest.mark.parametrize('data', [b'\0', b'X', b'\n', b'c0644 1 a', b'\xff'])
async def test_what_is_no_record_is_refused_before_its_line_ends(data: bytes) -> None:
    """Two sinks would wait for each other for ever."""

    class Silent(Stream):
        async def read(self, n: int = -1) -> bytes:
            assert self.data, 'nothing more comes'
            return await super().read(n)

    stream = Silent(data)
    with pytest.raises(SFTPBadMessage, match='Expected a record'):
        await ScpLink(stream, stream).record()


async def test_what_is_no_answer_is_shown() -> None:
    stream = link(b'This service allows sftp connections only.\n')
    with pytest.raises(SFTPBadMessage, match='This service allows'):
        await stream.answer()
    assert stream.broken


async def test_cve_2019_6109_escape_sequences_in_messages() -> None:
    with pytest.raises(SFTPFailure) as caught:
        await link(b'\1\x1b[2J\x1b]0;title\x07\xc2\x9b1m' + b'x' * 5000 + b'\n').expect_ok()
    assert caught.value.reason.isprintable()
    assert len(caught.value.reason) < 1100


# --- command lines


@given(PATHS)
def test_any_path_is_one_word_of_a_shell(path: str) -> None:
    encoded = path.encode()
    command = sink_command(encoded, recurse=False, preserve=False, must_be_directory=False)
    expected = b'./' + encoded if encoded.startswith(b'-') else encoded
    assert b'\n' not in command or b'\n' in encoded
    words = shlex.split(command.decode())
    assert words[:2] == ['scp', '-t']
    assert [word.encode() for word in words[2:]] == [expected]


@given(PATHS.filter(lambda path: not path.startswith('~')))
def test_our_server_reads_what_our_client_writes(path: str) -> None:
    encoded = path.encode()
    parsed = parse_command(sink_command(encoded, recurse=True, preserve=True, must_be_directory=True))
    assert parsed[:4] == (False, True, True, True)
    assert [word.text.removeprefix(b'./') for word in parsed.paths] == [encoded.removeprefix(b'./')]
    assert parsed.paths[0].pattern is None
    word = parse_command(source_command(encoded, recurse=False, preserve=False)).paths[0]
    assert word.text.removeprefix(b'./') == encoded.removeprefix(b'./')
    assert (word.pattern is not None) == has_pattern(encoded)


@pytest.mark.parametrize(
    'path',
    [
        'plain', 'a b', "it's", '$HOME', '`id`', '$(id)', 'a;b', 'a&b', 'a|b', 'a>b', '"', '\\', 'a\\*b', 'ä', '-rf',
        '!x', '#x', '(x)', '{a,b}', 'a\nb', '%s', '=x', ' ',
    ],
)  # fmt: skip
def test_a_real_shell_reads_one_word(path: str, tmp_path: Path) -> None:
    for shell in ('sh', 'bash'):
        for command in (
            source_command(path.encode(), recurse=True, preserve=True),
            sink_command(path.encode(), recurse=False, preserve=False, must_be_directory=False),
        ):
            words = command.split(b' ', 4)[-1] if b' -r' in command else command.split(b' ', 2)[-1]
            line = [shell, '-c', b"printf '%s.' " + words]
            shown = subprocess.run(line, capture_output=True, check=True, cwd=tmp_path)
            assert shown.stdout.decode() == f'{"./" if path.startswith("-") else ""}{path}.'


def test_a_real_shell_expands_patterns_and_homes(tmp_path: Path) -> None:
    for name in ('a 1', 'a 2', 'b'):
        (tmp_path / name).touch()
    for path, expected in (
        (b'a *', 'a 1.a 2.'),
        (b'[!a]*', 'b.'),
        (b'a [0-1]', 'a 1.'),
        (b'~/x y', f'{tmp_path}/x y.'),
        (b'~', f'{tmp_path}.'),
    ):
        words = source_command(path, recurse=False, preserve=False).split(b' ', 2)[-1]
        command = ['sh', '-c', b"printf '%s.' " + words]
        environment = {'HOME': str(tmp_path), 'PATH': '/usr/bin:/bin'}
        shown = subprocess.run(command, capture_output=True, check=True, cwd=tmp_path, env=environment)
        assert shown.stdout.decode() == expected
    # In a destination a star is a star.
    assert sink_command(b'a*', recurse=False, preserve=False, must_be_directory=False) == b"scp -t a'*'"


def test_commands_of_clients() -> None:
    parsed = parse_command(b'scp -v -r -p -d -t -- dir')
    assert (parsed[:4], [word.text for word in parsed.paths]) == ((False, True, True, True), [b'dir'])
    parsed = parse_command(b'scp -prf /a "b c" \'d*\' e\\ f *.txt')
    assert (parsed[:4]) == (True, True, True, False)
    assert [tuple(word) for word in parsed.paths] == [
        (b'/a', None), (b'b c', None), (b'd*', None), (b'e f', None), (b'*.txt', b'*.txt'),
    ]  # fmt: skip
    assert parse_command(b'scp -t -').paths[0].text == b'-'
    assert parse_command(b'scp -t ""').paths[0].text == b''


@pytest.mark.parametrize(
    ('command', 'text', 'pattern'),
    [
        (b'~', b'.', None),
        (b'~/a', b'a', None),
        (b'~/*', b'*', b'*'),
        (b'~/', b'.', None),
        (b'~user/a', b'~user/a', None),
        (b"'~/a'", b'~/a', None),
        (b'\\~', b'~', None),
        (b"~'a'", b'~a', None),
        (b"'a*'*", b'a**', b'a[*]*'),
        (b'"[x]"?', b'[x]?', b'[[]x]?'),
        (b'"a\\"b\\$c\\d"', b'a"b$c\\d', None),
        (b'a;b&c', b'a;b&c', None),
        (b'$HOME', b'$HOME', None),
    ],
)
def test_words_as_a_shell_reads_them(command: bytes, text: bytes, pattern: bytes | None) -> None:
    assert split_words(b'scp ' + command)[1:] == [(text, pattern)]


@pytest.mark.parametrize(
    ('command', 'error'),
    [
        (b'scp', 'one of -t and -f'),
        (b'scp -t -f x', 'one of -t and -f'),
        (b'scp -t', 'one path, got 0'),
        (b'scp -f', 'one path, got 0'),
        (b'scp -t a b', 'quote names'),
        (b"scp -t 'a", 'quotes in pairs'),
        (b'scp -t "a', 'quotes in pairs'),
        (b'scp -t a\\', 'quotes in pairs'),
        (b'scp -S prog -t a', 'got -S'),
        (b'scp -oProxyCommand=x -t a', 'got -'),
        (b'scp --help', 'got --'),
    ],
)
def test_commands_that_are_none(command: bytes, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        parse_command(command)


@given(st.binary(max_size=200))
def test_any_command_is_parsed_or_refused(command: bytes) -> None:
    try:
        parsed = parse_command(b'scp ' + command)
    except ValueError:
        return
    assert parsed.paths and (parsed.is_source or len(parsed.paths) == 1)


@pytest.mark.parametrize(
    ('command', 'is_one'), [('scp -t x', True), ('scp', True), ('scpx -t', False), ('/bin/scp', False)]
)
def test_which_commands_are_scp(command: str, is_one: bool) -> None:
    assert is_scp(command) is is_one


# --- patterns


class Tree:
    """Files of which only names are known: those in a dictionary of directories."""

    def __init__(self, directories: dict[bytes, list[bytes]]) -> None:
        self.directories = directories

    async def attrs(self, path: bytes) -> SFTPAttrs:
        above, _, name = path.rpartition(b'/')
        if name not in self.directories.get(above + b'/' if above else b'.', []):
            raise FileNotFoundError(path)
        return SFTPAttrs()

    async def names(self, path: bytes) -> Any:
        if path not in self.directories:
            raise NotADirectoryError(path)
        for name in self.directories[path]:
            yield name

    async def open(self, path: bytes) -> Any:
        raise AssertionError('nothing is opened')


async def test_patterns_match_as_in_a_shell() -> None:
    tree = Tree({b'.': [b'b', b'a', b'.c', b'd'], b'a/': [b'x', b'y'], b'd/': [b'x', b'.x'], b'b/': []})
    assert await matching_paths(tree, b'*') == [b'a', b'b', b'd']
    assert await matching_paths(tree, b'*/x') == [b'a/x', b'd/x']
    assert await matching_paths(tree, b'*/*') == [b'a/x', b'a/y', b'd/x']
    assert await matching_paths(tree, b'.*') == [b'.c']
    assert await matching_paths(tree, b'z*') == []


async def test_a_pattern_with_very_many_matches_is_refused() -> None:
    names = [b'%d' % number for number in range(400)]
    tree = Tree({b'.': names, **{name + b'/': names for name in names}})
    with pytest.raises(SFTPFailure, match='more than'):
        await matching_paths(tree, b'*/*')


def test_names_match_as_fnmatch_says() -> None:
    wanted = wanted_names(b'[ab]*?')
    assert wanted
    for name in ('a', 'ab', 'b1', 'c1', ''):
        assert wanted.matches(name.encode()) == fnmatch.fnmatchcase(name, '[ab]*?')
