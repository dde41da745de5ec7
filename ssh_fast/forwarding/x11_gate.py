"""The session of an X client's channel: nothing of it reaches the display before the client has shown the cookie."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from ..channel.channel import SSHChannel
from ..errors import PacketDecodeError
from ..logging import ContextLogger
from .forwarder import SSHForwarder
from .x11_auth import MIT_MAGIC_COOKIE
from .x11_display import X11Display
from .x11_setup import MAX_SIZE, X11Setup


class X11Target(NamedTuple):
    """A display that clients may be joined with, and the cookie that opens it, if one is needed."""

    display: X11Display
    cookie: bytes | None


class X11Gate(SSHForwarder):
    """Joins a channel with a display once its first message has a cookie that `admit` takes."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        admit: Callable[[bytes, bytes], X11Target | None],
        create_task: Callable[[Coroutine[Any, Any, None]], object],
        logger: ContextLogger,
    ) -> None:
        super().__init__(loop)

        self._admit = admit
        self._create_task = create_task
        self._logger = logger
        self._first = bytearray()
        self._decided = False
        self._display_full = False

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Look at the first message; pass on what comes when the display has been reached."""

        if self._decided:
            super().data_received(data, datatype)
            return

        self._first += data

        try:
            parsed = X11Setup.parse(bytes(self._first[:MAX_SIZE]))
        except PacketDecodeError as exc:
            self._logger.warning('Refused an X11 connection: %s', exc)
            self._decided = True
            self._drop()
            return

        if parsed:
            self._decided = True
            self._decide(*parsed)

    def eof_received(self) -> bool:
        """Pass the end of the data on; one before the first message is the end of all."""

        if not self._decided:
            self._drop()

        return super().eof_received()

    def socket_paused(self, paused: bool) -> None:
        """Take no more from the channel while the display takes nothing."""

        self._display_full = paused
        super().socket_paused(paused)

    def _drop(self) -> None:
        self._first.clear()

        if self._chan:
            self._chan.abort()

    def _decide(self, setup: X11Setup, size: int) -> None:
        target = self._admit(setup.name, setup.data)

        if target:
            assert self._chan is not None
            self._chan.pause_reading()
            cookie = target.cookie
            shown = setup._replace(name=MIT_MAGIC_COOKIE if cookie else b'', data=cookie or b'')
            first = shown.encode() + bytes(self._first[size:])
            self._first.clear()
            self._create_task(self._join(self._chan, target.display, first, setup))
        else:
            self._logger.warning('Refused an X11 connection: it has not shown the cookie that was asked for')
            self._refuse(setup, b'Wrong authentication')

    def _refuse(self, setup: X11Setup, reason: bytes) -> None:
        self._first.clear()

        if self._chan and not self._chan.is_closing():
            self._chan.write(setup.refusal(reason))
            self._chan.close()

    async def _join(self, chan: SSHChannel[bytes], display: X11Display, first: bytes, setup: X11Setup) -> None:
        try:
            await self.attach(await display.connect())
        except (OSError, TimeoutError) as exc:
            self._logger.warning('The X11 display cannot be reached: %s', exc)
            self._refuse(setup, b'The display cannot be reached')
            return

        if self._lost:
            self._end.abort()
            return

        self._end.write(first)
        self._end.resume_reading()

        if not self._display_full:
            chan.resume_reading()
