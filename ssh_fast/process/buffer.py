"""What one direction of a stream has received and nobody has read yet: data, and exceptions between them."""

import re
from collections import deque
from itertools import takewhile
from typing import Any, AnyStr, Generic, cast

from ..errors import TerminalSizeChanged

# Pieces shorter than this are joined as they come, so that a flood of tiny ones costs no more memory than its bytes.
_SMALL = 4096

# A client that sends more signals than this to somebody who does not read is not heard.
MAX_EXCEPTIONS = 1024


class SoftEOF(Exception):
    """An end of file typed into a terminal: what waits for data ends as at the end, and input may go on."""


class ReceiveBuffer(Generic[AnyStr]):
    """Pieces of data in order; an exception among them is raised when what came before it has been read."""

    __slots__ = ('_exceptions', '_offset', '_pieces', '_searched', 'size')

    def __init__(self) -> None:
        self._pieces: deque[AnyStr | Exception] = deque()
        self._exceptions = 0   # how many of the pieces are exceptions
        self._offset = 0       # what was read of the first piece
        self._searched = 0     # characters or bytes, from the first unread one, that hold no separator
        self.size = 0          # characters or bytes unread

    @property
    def readable(self) -> int:
        """Characters or bytes that can be read before an exception."""

        if not self._exceptions:
            return self.size

        return sum(map(len, self._before_exception())) - self._offset

    @property
    def has_exception(self) -> bool:
        """Whether an exception comes behind the data that can be read."""

        return self._exceptions > 0

    def feed(self, data: AnyStr) -> None:
        """Add data."""

        pieces = self._pieces
        self.size += len(data)

        if len(data) < _SMALL and pieces:
            last = pieces[-1]

            if not isinstance(last, Exception) and len(last) < _SMALL:
                pieces[-1] = last + data
                return

        pieces.append(data)

    def feed_exception(self, exc: Exception) -> None:
        """Add an exception; a new terminal size takes the place of one before it."""

        if self._pieces and isinstance(exc, TerminalSizeChanged) and isinstance(self._pieces[-1], TerminalSizeChanged):
            self._pieces[-1] = exc
        elif self._exceptions < MAX_EXCEPTIONS:
            self._pieces.append(exc)
            self._exceptions += 1

    def raise_next(self) -> None:
        """Raise the exception that comes before any more data, if one does."""

        if self._exceptions and isinstance(self._pieces[0], Exception):
            self._exceptions -= 1
            self._searched = 0

            raise cast(Exception, self._pieces.popleft())

    @property
    def at_soft_eof(self) -> bool:
        """Whether an end of file that was typed comes before any more data."""

        return bool(self._pieces) and isinstance(self._pieces[0], SoftEOF)

    def skip_soft_eof(self) -> None:
        """Go on behind an end of file that was typed, if it comes next."""

        if self.at_soft_eof:
            self._pieces.popleft()
            self._exceptions -= 1
            self._searched = 0

    def raise_first(self) -> None:
        """Raise the first exception, if there is one, before the data in front of it is read."""

        for piece in self._pieces:
            if isinstance(piece, Exception):
                self._pieces.remove(piece)
                self._exceptions -= 1

                raise piece

    def take(self, limit: int, empty: AnyStr) -> AnyStr:
        """Take at most `limit` characters or bytes, -1 for all, and no further than the next exception."""

        self._searched = 0
        parts: list[AnyStr] = []
        left = self.size if limit < 0 else limit

        while left and self._pieces:
            piece = self._pieces[0]

            if isinstance(piece, Exception):
                break

            offset = self._offset
            end = offset + left

            if end < len(piece):
                parts.append(piece[offset:end])
                self._offset = end
                left = 0
            else:
                parts.append(piece[offset:] if offset else piece)
                left = end - len(piece)
                self._pieces.popleft()
                self._offset = 0

        data = parts[0] if len(parts) == 1 else empty.join(parts)
        self.size -= len(data)

        return data

    def take_line(self, newline: AnyStr) -> AnyStr | None:
        """Take a line, with its newline, if it ends in the first piece; else None."""

        pieces = self._pieces

        if not pieces:
            return None

        piece = pieces[0]

        if isinstance(piece, Exception):
            return None

        offset = self._offset
        end = piece.find(newline, offset) + 1

        if not end:
            return None

        self._searched = 0
        self.size -= end - offset

        if end < len(piece):
            self._offset = end
            return piece[offset:end]

        pieces.popleft()
        self._offset = 0

        return piece[offset:] if offset else piece

    def find(self, separator: 're.Pattern[Any]', longest: int) -> int | None:
        """Find where the first match of `separator` ends; None if there is none before the end or an exception.

        A match is at most `longest` characters or bytes long, so most of what was searched is not searched again; 0 is
        a match of any length.
        """

        pieces = cast('deque[AnyStr]', self._pieces)
        size = self.size

        if self._exceptions:
            pieces = self._before_exception()
            size = sum(map(len, pieces)) - self._offset

        if not pieces:
            return None

        start = max(0, self._searched - longest + 1) if longest else 0
        parts: list[AnyStr] = []
        length = 0

        for piece in reversed(pieces):
            if parts and length >= size - start:
                break

            parts.append(piece)
            length += len(piece)

        parts.reverse()
        tail = parts[0] if len(parts) == 1 else parts[0][:0].join(parts)
        # Where the tail begins, counted from the first unread character: below 0 if part of its first piece was read.
        tail_start = size - length
        match = separator.search(tail, start - tail_start)

        if match:
            return match.end() + tail_start

        self._searched = size

        return None

    def _before_exception(self) -> 'deque[AnyStr]':
        return cast('deque[AnyStr]', deque(takewhile(lambda piece: not isinstance(piece, Exception), self._pieces)))
