"""How long a failed login takes at least: as long for a user that there is as for one that there is not."""

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable

_SECRET = os.urandom(32)    # so that nobody can tell which delay a name has
_MAX_DELAY = 5.0


class FailureDelay:
    """The delay of one login: `least` seconds, and up to as many again, which depend on the user's name.

    What takes longer waits for the next doubling of that, so that the time that a check took is hidden in each case.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self._began = 0.0

    def begin(self) -> None:
        """A request came: its time begins."""

        self._began = time.monotonic()

    def rest(self, username: str) -> Awaitable[None] | None:
        """Return what to await before its failure is told, None if nothing."""

        if not self._least:
            return None

        passed = time.monotonic() - self._began
        delay = self._least * (1 + _fraction(username))

        while delay < passed:
            delay *= 2

        return asyncio.sleep(delay - passed) if delay <= _MAX_DELAY else None


def _fraction(username: str) -> float:
    digest = hashlib.blake2b(username.encode(), key=_SECRET, digest_size=4).digest()

    return int.from_bytes(digest, 'big') / 2**32
