"""Sockets whose channel has ended before they took all that came: how many there may be, and for how long."""

import asyncio
from typing import Protocol

# They are no channels any more that a limit would count; each holds what its channel's receive window let come.
MAX_LINGERING = 1024

# Seconds that the last bytes may take to leave once there is no connection either.
END_TIMEOUT = 10.0


class Closable(Protocol):
    """What lingers."""

    def close(self) -> None:
        """Drop what was not taken yet."""


class Lingering:
    """Those of one connection: beyond the limit the oldest are dropped, and all of them some time after its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[Closable, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    def add(self, item: Closable) -> None:
        """Let one more linger."""

        self._waiting[item] = None

        if len(self._waiting) > MAX_LINGERING:
            oldest = next(iter(self._waiting))
            self.discard(oldest)
            oldest.close()

        if self._ended:
            self.end()

    def discard(self, item: Closable) -> None:
        """Forget one that has taken everything."""

        self._waiting.pop(item, None)

        if not self._waiting and self._timer:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """Bound the time of those that there are: the connection has ended."""

        self._ended = True

        if self._waiting and not self._timer:
            self._timer = self._loop.call_later(END_TIMEOUT, self._drop_all)

    def _drop_all(self) -> None:
        self._timer = None

        for item in list(self._waiting):
            self.discard(item)
            item.close()
