"""The order of concurrent requests on one thing: shared ones together, exclusive ones alone, in order of arrival."""

from collections import deque
from collections.abc import Callable


class Lane:
    """Lets requests begin in the order of their arrival; each says when it has ended."""

    __slots__ = ('_admitting', '_exclusive', '_shared', '_waiting')

    def __init__(self) -> None:
        self._admitting = False
        self._exclusive = False
        self._shared = 0
        self._waiting: deque[tuple[bool, Callable[[], object]]] = deque()

    def enter(self, exclusive: bool, begin: Callable[[], object]) -> None:
        """Call `begin` now or when its turn comes; `leave` is called with the same `exclusive` when it has ended."""

        self._waiting.append((exclusive, begin))
        self._admit()

    def leave(self, exclusive: bool) -> None:
        """Note that a request has ended, and let the next ones begin."""

        if exclusive:
            self._exclusive = False
        else:
            self._shared -= 1

        self._admit()

    def _admit(self) -> None:
        # What begins may end at once and come here again: the outer loop then goes on, whatever the number of requests.
        if self._admitting:
            return

        self._admitting = True

        try:
            while self._waiting and not self._exclusive:
                exclusive, begin = self._waiting[0]

                if exclusive and self._shared:
                    break

                self._waiting.popleft()

                if exclusive:
                    self._exclusive = True
                else:
                    self._shared += 1

                begin()
        finally:
            self._admitting = False


class LanePair:
    """Two lanes for a request that changes one thing and looks at another; it begins when its turn has come in both.

    It takes its place in both at once, so that no two requests wait for each other, and none behind it gets ahead.
    """

    __slots__ = ('_lanes',)

    def __init__(self, changed: Lane, looked_at: Lane) -> None:
        self._lanes = ((changed, True), (looked_at, False))

    def enter(self, exclusive: bool, begin: Callable[[], object]) -> None:
        """Call `begin` now or when its turn comes in both; what is changed is changed by this request alone."""

        missing = len(self._lanes)

        def arrived() -> None:
            nonlocal missing
            missing -= 1

            if not missing:
                begin()

        for lane, alone in self._lanes:
            lane.enter(alone, arrived)

    def leave(self, exclusive: bool) -> None:
        """Note that the request has ended, and let the next ones begin."""

        for lane, alone in self._lanes:
            lane.leave(alone)
