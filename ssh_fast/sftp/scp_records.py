"""The records of SCP, which is rcp's protocol: what a line means, whether it may come now, and how one is written.

The side that has the files (source) sends records, the side that gets them (sink) answers each with a zero byte or a
message; the sink begins, with a zero byte. There is no input or output here.

    T<mtime> <usec> <atime> <usec>\\n   times of the entry that follows
    C<mode> <size> <name>\\n            a file: its data follows once it is answered, then a zero byte or a message
    D<mode> 0 <name>\\n                 a directory: what follows is in it
    E\\n                                the end of a directory
    \\1<text>\\n   \\2<text>\\n           a message: something failed, or nothing more can be done
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..logging import printable
from .errors import SFTPBadMessage

# OpenSSH's scp takes lines of 2 KiB; a file's name has at most 255 bytes on most systems.
MAX_LINE = 8192

# As copies by SFTP.
MAX_DEPTH = 256

OK = b'\0'
RECORD_STARTS = b'CDET\1\2'

_ENTRY = re.compile(rb'([CD])([0-7]{4}) ([0-9]{1,19}) (.*)', re.DOTALL)
_TIMES = re.compile(rb'T([0-9]{1,12}) ([0-9]{1,6}) ([0-9]{1,12}) ([0-9]{1,6})')

# Control characters of ASCII, and those of Unicode above it, which terminals may obey as well.
_UNFIT = re.compile(rb'[\x00-\x1f\x7f/]|\xc2[\x80-\x9f]')

_LARGEST = (1 << 63) - 1
_LATEST = 10**12 - 1    # seconds: what twelve digits can say, which no file system needs
_SHOWN = 1024


class Message(NamedTuple):
    """A message of the peer: one entry failed, or, if it is fatal, everything."""

    text: str
    fatal: bool


class Times(NamedTuple):
    """The times of the entry that follows, in seconds since 1970."""

    mtime: float
    atime: float


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, or a directory whose entries follow; only permission bits are left of the mode."""

    name: bytes
    permissions: int
    size: int
    is_directory: bool
    times: Times | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The end of a directory."""


Record = Message | Times | Entry | End


class Wanted(NamedTuple):
    """What was asked for: which names may come at the top, and whether more than one."""

    matches: Callable[[bytes], bool]
    many: bool


def is_fit(name: bytes) -> bool:
    """Whether a name can be that of an entry: one component of a path, without control characters."""

    return name not in (b'', b'.', b'..') and not _UNFIT.search(name)


def parse_record(line: bytes) -> Record:
    """Parse a line, without its newline.

    Raises:
      SFTPBadMessage: it is none of the records, or one with a name, size or time that cannot be
    """

    kind = line[:1]

    if kind in (b'\1', b'\2'):
        return Message(message_text(line[1:]), kind == b'\2')

    if line == b'E':
        return End()

    if kind == b'T':
        return _parse_times(line)

    found = _ENTRY.fullmatch(line)

    if not found:
        raise SFTPBadMessage(f'Expected a record of SCP, got {_shown(line)}')

    size, name = int(found[3]), found[4]

    if size > _LARGEST:
        raise SFTPBadMessage(f'Expected a size of at most {_LARGEST} bytes, got {size}')

    if not is_fit(name):
        raise SFTPBadMessage(f'Expected the name of a file, got {_shown(name)}')

    return Entry(name, int(found[2], 8) & 0o777, size, found[1] == b'D')


def _parse_times(line: bytes) -> Times:
    found = _TIMES.fullmatch(line)

    if not found:
        raise SFTPBadMessage(f'Expected the times of a file, got {_shown(line)}')

    mtime, mtime_usec, atime, atime_usec = map(int, found.groups())

    return Times(mtime + mtime_usec / 1_000_000, atime + atime_usec / 1_000_000)


def message_text(text: bytes) -> str:
    """Make the text of a peer's message safe to raise and to log."""

    return printable(text.decode('utf-8', 'replace').removeprefix('scp: '), _SHOWN) or 'The peer gave no reason'


def _shown(data: bytes) -> str:
    return repr(data[:256])


class RecordOrder:
    """Judges a source's records one by one: what is not a record, not asked for, or not in its place is refused."""

    def __init__(self, *, recurse: bool, wanted: Wanted | None = None) -> None:
        """With `wanted` None anything may come at the top, as it may where the source chooses."""

        self._recurse = recurse
        self._wanted = wanted
        self._times: Times | None = None
        self._depth = 0
        self._seen = 0

    def take(self, line: bytes) -> Record:
        """Return what a line says; an entry has the times that came before it.

        Raises:
          SFTPBadMessage: the line must not come here
        """

        record = parse_record(line)

        if isinstance(record, Message):
            self._times = None
        elif isinstance(record, Times):
            self._expect_no_times()
            self._times = record
        elif isinstance(record, End):
            self._expect_no_times()

            if not self._depth:
                raise SFTPBadMessage('Expected an entry, got the end of a directory that has not begun')

            self._depth -= 1
        else:
            self._judge(record)
            record, self._times = replace(record, times=self._times), None

        return record

    def enter(self) -> None:
        """Note that the directory which was taken last has been accepted: what follows is in it."""

        self._depth += 1

    def finish(self) -> None:
        """Check that the source may end here."""

        if self._depth or self._times:
            raise SFTPBadMessage('Expected the rest of a directory, got the end of the stream')

    def _expect_no_times(self) -> None:
        if self._times:
            raise SFTPBadMessage('Expected the entry that times belong to, got another record')

    def _judge(self, entry: Entry) -> None:
        if entry.is_directory and not self._recurse:
            raise SFTPBadMessage(f'Expected files only, got the directory {_shown(entry.name)}')

        if self._depth:
            if entry.is_directory and self._depth >= MAX_DEPTH:
                raise SFTPBadMessage(f'Expected directories nested at most {MAX_DEPTH} deep, got more')

            return

        self._seen += 1

        if self._wanted is None:
            return

        if not self._wanted.matches(entry.name):
            raise SFTPBadMessage(f'Expected a file that was asked for, got {_shown(entry.name)}')

        if self._seen > 1 and not self._wanted.many:
            raise SFTPBadMessage(f'Expected one file, got another, {_shown(entry.name)}')


def encode_entry(name: bytes, permissions: int | None, size: int, is_directory: bool) -> bytes:
    """Encode the record of a file or directory, whose name must be fit for it."""

    default = 0o755 if is_directory else 0o644
    mode = default if permissions is None else permissions & 0o7777

    return b'%c%04o %d %s\n' % (b'D' if is_directory else b'C', mode, size, name)


def encode_times(mtime: float, atime: float) -> bytes:
    """Encode the record of times; what lies before 1970 becomes 1970, as there is no sign."""

    return b'T%d 0 %d 0\n' % (min(max(int(mtime), 0), _LATEST), min(max(int(atime), 0), _LATEST))


def encode_message(text: str, fatal: bool = False) -> bytes:
    """Encode a message that something failed."""

    return (b'\2' if fatal else b'\1') + b'scp: ' + printable(text, _SHOWN).encode('utf-8', 'replace') + b'\n'
