"""Signs of life: an idle peer is asked for one, and given up after too many silences."""

import asyncio
from typing import Protocol

from ..errors import ConnectionLost


class KeepaliveHost(Protocol):
    """The connection that is watched."""

    def send_keepalive(self) -> None:
        """Ask the peer for a sign of life."""

    def fail(self, exc: Exception) -> None:
        """End the connection."""


class Keepalive:
    """Asks after `interval` seconds without data, and ends the connection after `count_max` requests in silence."""

    def __init__(self, host: KeepaliveHost, interval: float, count_max: int) -> None:
        self._host = host
        self._interval = 0.0
        self._count_max = 0
        self._missed = 0
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._running = False
        self.set(interval, count_max)

    def set(self, interval: float | None, count_max: int | None) -> None:
        """Change the interval in seconds (0: never ask) and the count; None leaves one as it is."""

        if interval is not None:
            if interval < 0:
                raise ValueError(f'keepalive interval must not be negative, got {interval}')

            self._interval = interval

        if count_max is not None:
            if count_max < 0:
                raise ValueError(f'keepalive count max must not be negative, got {count_max}')

            self._count_max = count_max

        if self._running:
            self._schedule()

    def start(self) -> None:
        """Begin to watch."""

        self._running = True
        self._schedule()

    def stop(self) -> None:
        """Watch no more."""

        self._running = False

        if self._timer:
            self._timer.cancel()
            self._timer = None

    def heard(self, now: float) -> None:
        """Note that data came, at a time of the event loop: no timer is touched here."""

        self._heard = now
        self._missed = 0

    def _schedule(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

        if self._interval:
            loop = asyncio.get_running_loop()
            self._heard = max(self._heard, loop.time())
            self._timer = loop.call_later(self._interval, self._check)

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        quiet = loop.time() - self._heard
        delay = self._interval

        if quiet < self._interval and not self._missed:
            delay -= quiet
        else:
            self._missed += 1

            if self._missed > self._count_max:
                self._host.fail(
                    ConnectionLost(f'Expected a sign of life within {self._interval:g} s, got {self._missed} silences')
                )
                return

            self._host.send_keepalive()

        self._timer = loop.call_later(delay, self._check)
