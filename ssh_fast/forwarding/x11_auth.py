"""Xauthority files: which cookie opens which display; read, and changed under the lock that libXau's programs take."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import PacketDecodeError
from ..wire import Cursor

MIT_MAGIC_COOKIE = b'MIT-MAGIC-COOKIE-1'

# Of an entry's address: of the internet, on this host alone, or of every display
FAMILY_INTERNET = 0
FAMILY_INTERNET6 = 6
FAMILY_LOCAL = 256
FAMILY_WILD = 65535

_MAX_FILE = 1 << 20     # bytes; an entry has about 60

_LOCK_TIMEOUT = 10.0    # seconds to wait for others who change the file
_LOCK_POLL = 0.02
_STALE = 600.0          # seconds after which a lock is one that somebody left behind, as xauth has it


class XauthorityError(Exception):
    """An Xauthority file cannot be read or changed."""


class XauthorityEntry(NamedTuple):
    """An entry: a display by family, address and number (empty for any), a protocol of authorization, and its data."""

    family: int
    address: bytes
    number: bytes
    name: bytes
    data: bytes

    def encode(self) -> bytes:
        """Return the entry as it stands in a file."""

        return b''.join((self.family.to_bytes(2, 'big'), *map(_encode, self[1:])))

    @property
    def opens(self) -> tuple[int, bytes, bytes, bytes]:
        """What it opens, and how: a file has one entry of each."""

        return self[:4]


def default_path() -> str:
    """Return where the user's file is: what XAUTHORITY says, or else in the home folder."""

    return os.environ.get('XAUTHORITY') or os.path.expanduser('~/.Xauthority')


def local_entry(number: int, name: bytes, data: bytes) -> XauthorityEntry:
    """Return an entry for a display of this host: Xlib takes it for one at a loopback address too."""

    return XauthorityEntry(FAMILY_LOCAL, os.fsencode(socket.gethostname()), b'%d' % number, name, data)


def read_entries(path: str) -> list[XauthorityEntry]:
    """Read a file; one that is not there has no entries.

    Raises:
      XauthorityError: it cannot be read, or not be understood
    """

    try:
        with open(path, 'rb') as file:
            content = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise XauthorityError(f'{path} cannot be read: {exc.strerror}') from exc

    if len(content) > _MAX_FILE:
        raise XauthorityError(f'{path}: expected at most {_MAX_FILE} bytes')

    try:
        return list(_decode(content))
    except PacketDecodeError as exc:
        raise XauthorityError(f'{path}: {exc}') from exc


def find_cookie(entries: list[XauthorityEntry], addresses: list[tuple[int, bytes]], number: int) -> bytes | None:
    """Return the cookie of the first entry for a display at one of these addresses, each with its family."""

    for entry in entries:
        if (
            entry.name == MIT_MAGIC_COOKIE
            and entry.number in (b'', b'%d' % number)
            and (entry.family == FAMILY_WILD or (entry.family, entry.address) in addresses)
        ):
            return entry.data

    return None


def add_entry(path: str, entry: XauthorityEntry) -> None:
    """Add an entry, in place of another one that opens the same.

    Raises:
      XauthorityError: the file cannot be changed
    """

    _change(path, lambda entries: [kept for kept in entries if kept.opens != entry.opens] + [entry])


def remove_entry(path: str, entry: XauthorityEntry) -> None:
    """Remove an entry, unless somebody else has put another one in its place.

    Raises:
      XauthorityError: the file cannot be changed
    """

    _change(path, lambda entries: [kept for kept in entries if kept != entry])


def _change(path: str, change: Callable[[list[XauthorityEntry]], list[XauthorityEntry]]) -> None:
    with _locked(path):
        before = read_entries(path)
        after = change(before)

        if after == before:
            return

        new = Path(f'{path}-n')

        try:
            # Whoever reads sees the old file or the new one; only the holder of the lock writes this one.
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

            with open(descriptor, 'wb') as file:
                file.write(b''.join(entry.encode() for entry in after))

            new.replace(path)
        except OSError as exc:
            new.unlink(missing_ok=True)
            raise XauthorityError(f'{path} cannot be written: {exc.strerror}') from exc


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold the lock of a file: whoever can link its `-l` to its `-c` has it, on network file systems too."""

    made, link = Path(f'{path}-c'), Path(f'{path}-l')

    try:
        _remove_stale(made)
        _remove_stale(link)
        _take(made, link)
    except OSError as exc:
        raise XauthorityError(f'{path} cannot be locked: {exc.strerror}') from exc

    try:
        yield
    finally:
        made.unlink(missing_ok=True)
        link.unlink(missing_ok=True)


def _remove_stale(lock: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if time.time() - lock.stat().st_ctime > _STALE:
            lock.unlink()


def _take(made: Path, link: Path) -> None:
    deadline = time.monotonic() + _LOCK_TIMEOUT
    ours = False

    try:
        while True:
            try:
                if not ours:
                    os.close(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
                    ours = True

                os.link(made, link)
            except FileExistsError:
                pass
            except FileNotFoundError:
                if not ours:
                    raise

                # Somebody took it for one that was left behind.
                ours = False
            else:
                return

            if time.monotonic() > deadline:
                raise XauthorityError(f'{made} or {link} is held by another program')

            time.sleep(_LOCK_POLL)
    except BaseException:
        if ours:
            made.unlink(missing_ok=True)

        raise


def _decode(content: bytes) -> Iterator[XauthorityEntry]:
    cursor = Cursor(content)

    while cursor.remaining:
        yield XauthorityEntry(int.from_bytes(cursor.bytes(2), 'big'), *(_field(cursor) for _ in range(4)))


def _field(cursor: Cursor) -> bytes:
    return cursor.bytes(int.from_bytes(cursor.bytes(2), 'big'))


def _encode(field: bytes) -> bytes:
    return len(field).to_bytes(2, 'big') + field
