"""How long a channel that we are closing waits for its peer."""

import asyncio
from collections.abc import Callable

from .._flow import ChannelFlow

# Seconds without progress: a peer that is slow but takes what was written keeps its time.
CLOSE_TIMEOUT = 10.0


class CloseWatch:
    """Calls `given_up` once the peer has neither taken data nor answered our CLOSE for `CLOSE_TIMEOUT` seconds.

    A `patient` one gives up only what is no loss: it waits for ever for a peer that has not taken all data.
    """

    __slots__ = ('_flow', '_given_up', '_loop', '_patient', '_queued', '_timer')

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        flow: ChannelFlow,
        given_up: Callable[[], None],
        patient: bool = False,
    ) -> None:
        self._loop = loop
        self._patient = patient
        self._flow = flow
        self._given_up = given_up
        self._queued = flow.queued
        self._timer = loop.call_later(CLOSE_TIMEOUT, self._look)

    def stop(self) -> None:
        """Watch no more: the channel is closed."""

        self._timer.cancel()

    def _look(self) -> None:
        queued, self._queued = self._queued, self._flow.queued

        if self._queued < queued or (self._patient and self._queued):
            self._timer = self._loop.call_later(CLOSE_TIMEOUT, self._look)
        else:
            self._given_up()
