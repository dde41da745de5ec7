"""From what a user names as a redirection to the source or target that it is."""

import asyncio
import errno
import io
import os
import socket
import stat
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from ..errors import BreakReceived, SignalReceived, TerminalSizeChanged
from .redirect import LEAST_READ, Lease, Source, Target
from .redirect_files import FileObject, PlainFile, PolledFile, PolledSocket
from .stream_session import SSHStreamSession
from .streams import SSHReader, SSHWriter

# Nobody wants these closed because a remote process ended.
_STANDARD_STREAMS = range(3)


class ReaderSource:
    """An SSHReader or an asyncio.StreamReader; who made it closes it."""

    encoding: str | None = None

    def __init__(self, reader: SSHReader[Any] | asyncio.StreamReader, size: int) -> None:
        self.reader = reader
        self._size = size

    async def read(self) -> Any:
        """Return what is there, as soon as there is something."""

        return await self.reader.read(self._size)

    async def close(self) -> None:
        """Leave the reader to who made it."""


class SSHTarget:
    """What an SSHWriter writes to."""

    encoding: str | None = None

    def __init__(self, writer: SSHWriter[Any], lease: Lease) -> None:
        self._session, self._datatype = writer.get_redirect_info()
        self._writer = writer
        self._lease = lease.take()
        self.takes_text = writer.channel.get_encoding()[0] is not None

    async def write(self, data: Any) -> None:
        """Send data, and wait until little of it waits."""

        self._writer.write(data)
        await SSHStreamSession.drain(self._session, self._datatype)

    def feed_exception(self, exc: Exception) -> bool:
        """Send what the exception stands for, if the writer is a client's."""

        return send_exception(self._writer.channel, exc)

    async def close(self) -> None:
        """Send an end of file, if that is wanted."""

        await self._lease.drop()


class StreamTarget:
    """An asyncio.StreamWriter; who made it closes it."""

    takes_text = False
    encoding: str | None = None

    def __init__(self, writer: asyncio.StreamWriter, lease: Lease) -> None:
        self._writer = writer
        self._lease = lease.take()

    async def write(self, data: Any) -> None:
        """Write data, and wait until little of it waits."""

        self._writer.write(data)
        await self._writer.drain()

    def feed_exception(self, exc: Exception) -> bool:
        """Take nothing but data."""

        return False

    async def close(self) -> None:
        """Write an end of file, if that is wanted."""

        await self._lease.drop()


class Opener:
    """Opens the redirections of one call, so that what two streams share is closed once, when both are done.

    Sources are read `bufsize` bytes at a time, at least 64 KiB. With `end_targets`, the end of the data is passed on:
    files are closed, writers and sockets are told.
    """

    def __init__(self, bufsize: int, end_targets: bool) -> None:
        if bufsize < 1:
            raise ValueError(f'bufsize must be at least 1, got {bufsize}')

        self._size = max(bufsize, LEAST_READ)
        self._end_targets = end_targets
        self._leases: dict[Any, Lease] = {}
        self._opened: list[Source | Target] = []

    async def abandon(self) -> None:
        """Undo: nothing is redirected after all, and what the caller gave stays open."""

        for key, lease in self._leases.items():
            if not isinstance(key, _OwnFile):
                lease.keep()

        for opened in self._opened:
            await opened.close()

    # --- sources

    def source(self, name: str, value: Any) -> Source:
        """Open a source, given as the argument `name`.

        Raises:
          OSError: it cannot be opened
          TypeError: it is nothing that can be read from
          ValueError: it is a number that is no file descriptor
        """

        source = self._open_source(name, value)
        self._opened.append(source)

        return source

    def _open_source(self, name: str, value: Any) -> Source:
        if isinstance(value, SSHReader | asyncio.StreamReader):
            return ReaderSource(value, self._size)

        if isinstance(value, str | PurePath):
            if os.path.isdir(value):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(value))

            fd = os.open(value, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
            return self._from_fd(fd, self._own(fd), None, self._size)

        if isinstance(value, socket.socket):
            return PolledSocket(value.fileno(), self._lease(value, _leave), None, self._size)

        if isinstance(value, int):
            fd = _descriptor(name, value)
            return self._from_fd(fd, self._lease(fd, lambda: _close_fd(fd)), None, self._size)

        if not hasattr(value, 'read'):
            raise TypeError(f'{name} must be something that can be read from, not {type(value).__name__}')

        lease = self._lease(value, lambda: _close_file(value))
        plain = _plain_descriptor(value)

        if plain is None or (_is_text(value) and _is_regular(plain)):
            return FileObject(value, lease, _is_text(value), self._size)

        if _is_regular(plain):
            # What the object has read ahead belongs to what is read.
            os.lseek(plain, value.tell(), os.SEEK_SET)

        return self._from_fd(plain, lease, _text_encoding(value), self._size)

    # --- targets

    def target(self, name: str, value: Any) -> Target:
        """Open a target, given as the argument `name`; it raises as `source` does."""

        target = self._open_target(name, value)
        self._opened.append(target)

        return target

    def _open_target(self, name: str, value: Any) -> Target:
        ends = self._end_targets

        if isinstance(value, SSHWriter):
            session, _ = value.get_redirect_info()
            return SSHTarget(value, self._lease(session, value.write_eof if ends else _leave))

        if isinstance(value, asyncio.StreamWriter):
            return StreamTarget(value, self._lease(value, lambda: _end_stream(value) if ends else None))

        if isinstance(value, str | PurePath):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_NOCTTY
            fd = os.open(value, flags, 0o666)
            return self._from_fd(fd, self._own(fd), None)

        if isinstance(value, socket.socket):
            fd = value.fileno()
            return PolledSocket(fd, self._lease(value, _leave), self._end_of_sending(fd))

        if isinstance(value, int):
            fd = _descriptor(name, value)
            return self._from_fd(fd, self._lease(fd, (lambda: _close_fd(fd)) if ends else _leave), None)

        if not hasattr(value, 'write'):
            raise TypeError(f'{name} must be something that can be written to, not {type(value).__name__}')

        plain = _plain_descriptor(value)
        lease = self._lease(value, lambda: _close_file(value) if ends else _flush_file(value, plain))

        if plain is None or (_is_text(value) and _is_regular(plain)):
            return FileObject(value, lease, _is_text(value))

        value.flush()

        return self._from_fd(plain, lease, _text_encoding(value))

    # --- private

    def _lease(self, key: Any, close: Callable[[], Any]) -> Lease:
        """Find what is shared, or begin to share it."""

        if not isinstance(key, int | tuple):
            key = id(key)

        return self._leases.setdefault(key, Lease(close))

    def _own(self, fd: int) -> Lease:
        """Begin to share a file that was opened here."""

        return self._lease(_OwnFile((fd,)), lambda: os.close(fd))

    def _end_of_sending(self, fd: int) -> Lease | None:
        return self._lease(('end', fd), lambda: _shut_down(fd)) if self._end_targets else None

    def _from_fd(
        self, fd: int, lease: Lease, encoding: str | None, size: int = 0
    ) -> PlainFile | PolledFile | PolledSocket:
        mode = os.fstat(fd).st_mode

        if stat.S_ISSOCK(mode):
            return PolledSocket(fd, lease, None if size else self._end_of_sending(fd), size)

        if stat.S_ISREG(mode):
            return PlainFile(fd, lease, size)

        return PolledFile(fd, lease, encoding, size)


class _OwnFile(tuple[int]):
    """The key of a file that was opened here, not by the caller."""


def send_exception(chan: Any, exc: Exception) -> bool:
    """Send the signal, break or size of a terminal that a server's session received to another server's process."""

    if not hasattr(chan, 'send_signal') or chan.is_closing():
        return False

    if isinstance(exc, BreakReceived):
        chan.send_break(exc.msec)
    elif isinstance(exc, SignalReceived):
        chan.send_signal(exc.signal)
    elif isinstance(exc, TerminalSizeChanged):
        chan.change_terminal_size(*exc.term_size)
    else:
        return False

    return True


def _descriptor(name: str, value: int) -> int:
    if isinstance(value, bool) or value < 0:
        raise ValueError(f'{name} must be a file descriptor, or PIPE, DEVNULL or, for stderr, STDOUT, got {value!r}')

    return value


def _plain_descriptor(file: Any) -> int | None:
    """Return the descriptor whose bytes are a file object's own: not so if it compresses, or is not of this module."""

    if type(file) is io.TextIOWrapper:
        file = file.buffer

    if type(file) in (io.BufferedReader, io.BufferedWriter, io.BufferedRandom):
        file = file.raw

    return file.fileno() if type(file) is io.FileIO else None


def _is_text(file: Any) -> bool:
    if isinstance(file, io.TextIOBase) or isinstance(getattr(file, 'encoding', None), str):
        return True

    mode = getattr(file, 'mode', None)

    return isinstance(mode, str) and mode != '' and 'b' not in mode and not isinstance(file, io.IOBase)


def _text_encoding(file: Any) -> str | None:
    return file.encoding if _is_text(file) else None


def _is_regular(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


def _leave() -> None:
    """Leave it open: it is the caller's."""


def _close_fd(fd: int) -> None:
    if fd not in _STANDARD_STREAMS:
        os.close(fd)


def _end_stream(writer: asyncio.StreamWriter) -> None:
    if writer.can_write_eof() and not writer.is_closing():
        writer.write_eof()


def _shut_down(fd: int) -> None:
    with socket.socket(fileno=os.dup(fd)) as copy:
        try:
            copy.shutdown(socket.SHUT_WR)
        except OSError as exc:
            # The other side has gone, or was never there.
            if exc.errno != errno.ENOTCONN:
                raise


def _close_file(file: Any) -> Any:
    if getattr(file, 'closed', False):
        return None

    if _plain_descriptor(file) not in _STANDARD_STREAMS:
        return file.close() if hasattr(file, 'close') else None

    return None


def _flush_file(file: Any, fd: int | None) -> Any:
    """Let a file object that stays open know what was written behind its back."""

    if fd is not None and _is_regular(fd) and not _is_text(file):
        file.seek(os.lseek(fd, 0, os.SEEK_CUR))
        return None

    return file.flush() if hasattr(file, 'flush') else None
