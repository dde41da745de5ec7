"""What a stream of a process can be redirected to: sources and targets, who closes them, and bytes against text."""

import codecs
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, Protocol

# What is asked of a source at a time, unless `bufsize` says more: less would cost a turn of the loop for every packet.
LEAST_READ = 64 * 1024


class Source(Protocol):
    """What a channel is fed from."""

    # Of the data if they are text of an encoding of their own, else None.
    encoding: str | None

    async def read(self) -> Any:
        """Return the next data, bytes or text; empty at the end."""

    async def close(self) -> None:
        """Let go of what is read."""


class Target(Protocol):
    """What takes the data that a channel receives."""

    # Whether `write` takes text, not bytes; and the encoding of those, None for that of the channel.
    takes_text: bool
    encoding: str | None

    async def write(self, data: Any) -> None:
        """Write data, and return when there is room for more."""

    def feed_exception(self, exc: Exception) -> bool:
        """Pass a signal, a break or a terminal's size on; return whether there is anybody who takes it."""

    async def close(self) -> None:
        """End the data and let go of what is written."""


class Lease:
    """What redirections share, as one file for output and errors: the last one that is done with it closes it."""

    def __init__(self, close: Callable[[], Awaitable[None] | None]) -> None:
        self._close = close
        self._users = 0

    def take(self) -> 'Lease':
        """Count a user."""

        self._users += 1

        return self

    def keep(self) -> None:
        """Leave it open after the last user too."""

        self._close = _leave

    async def drop(self) -> None:
        """Count a user off, and close after the last."""

        self._users -= 1

        if not self._users:
            result = self._close()

            if isawaitable(result):
                await result


class Converter:
    """Makes text of bytes, or bytes of text, piece by piece; what is right already is passed on as it is."""

    def __init__(self, to_text: bool, encoding: str | None, errors: str) -> None:
        self._to_text = to_text
        self._encoding = encoding or 'utf-8'
        self._errors = errors
        self._coder: Any = None

    def __call__(self, data: Any) -> Any:
        """Convert one piece.

        Raises:
          UnicodeError: it cannot be decoded or encoded
        """

        if isinstance(data, str) is self._to_text:
            return data

        if not self._coder:
            find = codecs.getincrementaldecoder if self._to_text else codecs.getincrementalencoder
            self._coder = find(self._encoding)(self._errors)

        return self._coder.decode(data) if self._to_text else self._coder.encode(data)

    def finish(self) -> Any:
        """Return what is left at the end, which may be empty.

        Raises:
          UnicodeError: the data ended within a character
        """

        if self._to_text:
            return self._coder.decode(b'', True) if self._coder else ''

        return self._coder.encode('', True) if self._coder else b''


def _leave() -> None:
    """Close nothing."""
