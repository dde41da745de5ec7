"""Files, pipes, terminals and sockets as sources and targets of a redirection.

Nothing here blocks the loop, but for plain files and for Python objects that only look like files. A pipe or terminal
that is written to is nonblocking meanwhile; its mode is set back when the last redirection is done with it.
"""

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

from .redirect import Lease

# How many redirections have made a descriptor nonblocking, for those that were not.
_unblocked: dict[int, int] = {}


class FileObject:
    """An object with `read`, `write` and `close` as a file has them, which may be coroutines."""

    def __init__(self, file: Any, lease: Lease, text: bool, size: int = 0) -> None:
        self._file = file
        self._lease = lease.take()
        self._size = size
        self.takes_text = text
        self.encoding: str | None = _encoding_of(file) if text else None

    async def read(self) -> Any:
        """Return the next data; a plain file object is read while the loop waits."""

        data = self._file.read(self._size)

        if isawaitable(data):
            data = await data

        if not isinstance(data, str | bytes | bytearray | memoryview):
            raise TypeError(f'{type(self._file).__name__}.read must return bytes or str, not {type(data).__name__}')

        return data

    async def write(self, data: Any) -> None:
        """Write data; a plain file object is written while the loop waits."""

        result = self._file.write(data)

        if isawaitable(result):
            await result

    def feed_exception(self, exc: Exception) -> bool:
        """Take nothing but data."""

        return False

    async def close(self) -> None:
        """Close the file object, or flush it if it stays open."""

        await self._lease.drop()


class PlainFile:
    """A file on disk by its descriptor, read and written at its own position."""

    takes_text = False
    encoding: str | None = None

    def __init__(self, fd: int, lease: Lease, size: int = 0) -> None:
        self.fd = fd
        self._lease = lease.take()
        self._size = size

    async def read(self) -> bytes:
        """Return the next data, which a disk has at once or soon."""

        return os.read(self.fd, self._size)

    async def write(self, data: Any) -> None:
        """Write data."""

        view = memoryview(data)

        while view:
            view = view[os.write(self.fd, view) :]

    def feed_exception(self, exc: Exception) -> bool:
        """Take nothing but data."""

        return False

    async def close(self) -> None:
        """Let go of the file."""

        await self._lease.drop()


class PolledFile:
    """A pipe, a terminal or another device by its descriptor, of which a copy is polled."""

    takes_text = False

    def __init__(self, fd: int, lease: Lease, encoding: str | None, size: int = 0) -> None:
        """Use a descriptor, to read at most `size` bytes at a time from it, or to write if that is 0."""

        self.encoding = encoding
        self._key = fd
        self._fd = os.dup(fd)
        self._size = size
        self._lease = lease.take()
        mode = os.fstat(fd).st_mode
        # A terminal that is only read keeps its mode: it is often the one that others write to.
        self._unblocked = (not size or stat.S_ISFIFO(mode)) and _unblock(fd)
        # The end of a FIFO that nobody has opened for writing yet is not the end of its data.
        self._poll_first = stat.S_ISFIFO(mode) or os.get_blocking(fd)

    async def read(self) -> bytes:
        """Return what is there, as soon as there is something."""

        while True:
            if self._poll_first:
                await _wait_for_reading(self._fd)
                self._poll_first = os.get_blocking(self._fd)

            try:
                return os.read(self._fd, self._size)
            except BlockingIOError:
                await _wait_for_reading(self._fd)
            except OSError as exc:
                # So ends a terminal whose other side was closed.
                if exc.errno == errno.EIO and os.isatty(self._fd):
                    return b''

                raise

    async def write(self, data: Any) -> None:
        """Write data as fast as they are taken."""

        view = memoryview(data)

        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await _wait_for_writing(self._fd)

    def feed_exception(self, exc: Exception) -> bool:
        """Take nothing but data."""

        return False

    async def close(self) -> None:
        """Set the mode back and let go of the descriptor."""

        if self._unblocked:
            _reblock(self._key, self._fd)

        os.close(self._fd)
        await self._lease.drop()


class PolledSocket:
    """A connected socket, of which a copy is polled; its own mode is not touched."""

    takes_text = False
    encoding: str | None = None

    def __init__(self, fd: int, lease: Lease, end: Lease | None, size: int = 0) -> None:
        """Use a socket's descriptor; `end` ends its sending direction, which may be before all of it is done with."""

        self._socket = socket.socket(fileno=os.dup(fd))
        self._size = size
        self._leases = [used.take() for used in (end, lease) if used]

    async def read(self) -> bytes:
        """Return what is there, as soon as there is something."""

        while True:
            try:
                return self._socket.recv(self._size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                await _wait_for_reading(self._socket.fileno())

    async def write(self, data: Any) -> None:
        """Send data as fast as they are taken."""

        view = memoryview(data)

        while view:
            try:
                view = view[self._socket.send(view, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                await _wait_for_writing(self._socket.fileno())

    def feed_exception(self, exc: Exception) -> bool:
        """Take nothing but data."""

        return False

    async def close(self) -> None:
        """End what is sent, if that is wanted, and let go of the socket."""

        self._socket.close()

        for lease in self._leases:
            await lease.drop()


def _encoding_of(file: Any) -> str | None:
    encoding = getattr(file, 'encoding', None)

    return encoding if isinstance(encoding, str) else None


def _unblock(fd: int) -> bool:
    """Make a descriptor nonblocking; return whether it must be set back."""

    if fd not in _unblocked and not os.get_blocking(fd):
        return False

    _unblocked[fd] = _unblocked.get(fd, 0) + 1
    os.set_blocking(fd, False)

    return True


def _reblock(fd: int, copy: int) -> None:
    _unblocked[fd] -= 1

    if not _unblocked[fd]:
        del _unblocked[fd]
        os.set_blocking(copy, True)


async def _wait_for_reading(fd: int) -> None:
    loop = asyncio.get_running_loop()
    await _wait(loop, fd, loop.add_reader, loop.remove_reader)


async def _wait_for_writing(fd: int) -> None:
    loop = asyncio.get_running_loop()
    await _wait(loop, fd, loop.add_writer, loop.remove_writer)


async def _wait(
    loop: asyncio.AbstractEventLoop, fd: int, add: Callable[..., Any], remove: Callable[[int], object]
) -> None:
    ready = loop.create_future()

    try:
        add(fd, _settle, ready)
    except PermissionError:
        # A device that cannot be polled, as /dev/null, is always ready.
        await asyncio.sleep(0)
        return

    try:
        await ready
    finally:
        remove(fd)


def _settle(ready: 'asyncio.Future[None]') -> None:
    if not ready.done():
        ready.set_result(None)
