"""A client's X11 forwarding: the cookies that its sessions gave out, and the displays that these open."""

import asyncio
import os
import secrets
from collections.abc import Callable, Coroutine
from hmac import compare_digest
from typing import Any, NamedTuple

from ..channel.channel import DEFAULT_MAX_PACKET, DEFAULT_WINDOW
from ..channel.mux import Mux
from ..channel.x11_channel import SSHX11Channel, X11Asked, X11Request, decode_x11
from ..constants import OPEN_ADMINISTRATIVELY_PROHIBITED, OPEN_REQUEST_X11_FORWARDING_FAILED
from ..errors import ChannelOpenError
from ..forwarding.x11_auth import MIT_MAGIC_COOKIE, XauthorityError, default_path
from ..forwarding.x11_display import X11Display
from ..forwarding.x11_gate import X11Gate, X11Target
from ..logging import ContextLogger
from ..wire import Cursor

_COOKIE_SIZE = 16

CreateTask = Callable[[Coroutine[Any, Any, None]], object]


class X11Wish(NamedTuple):
    """What is wanted for a session: X11 or not, or 'ignore_failure'; a display, a file of cookies, one client only."""

    forwarding: bool | str
    display: str | None
    auth_path: str | None
    single_connection: bool


class ClientX11:
    """What a client's connection forwards to displays."""

    def __init__(
        self, mux: Mux, loop: asyncio.AbstractEventLoop, max_window: int, create_task: CreateTask, logger: ContextLogger
    ) -> None:
        self._mux = mux
        self._loop = loop
        self._max_window = max_window
        self._create_task = create_task
        self._logger = logger
        self._targets: dict[bytes, tuple[X11Target, bool]] = {}

    async def ask(self, wish: X11Wish) -> X11Asked | None:
        """Return what a session asks its server for; None if it asks for nothing.

        Raises:
          ChannelOpenError: there is no display, though one is needed
          ValueError: the display that was given cannot be one
        """

        if not wish.forwarding:
            return None

        required = wish.forwarding != 'ignore_failure'

        try:
            target = await self._find_target(wish)
        except (XauthorityError, LookupError) as exc:
            if required:
                raise ChannelOpenError(OPEN_REQUEST_X11_FORWARDING_FAILED, str(exc)) from exc

            self._logger.info('X11 is not forwarded: %s', exc)

            return None

        # The peer never learns the display's own cookie, so what it has is worth nothing beside this connection.
        cookie = secrets.token_bytes(_COOKIE_SIZE)
        self._targets[cookie] = target, wish.single_connection
        request = X11Request(wish.single_connection, MIT_MAGIC_COOKIE, cookie, target.display.screen)

        return X11Asked(request, required, lambda: self._end(cookie))

    async def _find_target(self, wish: X11Wish) -> X11Target:
        if wish.display:
            try:
                display = X11Display.parse(wish.display)
            except ValueError as exc:
                raise ValueError(f'x11_display: {exc}') from None
        else:
            name = os.environ.get('DISPLAY')

            if not name:
                raise LookupError('There is no x11_display, and no DISPLAY in the environment')

            try:
                display = X11Display.parse(name)
            except ValueError as exc:
                raise LookupError(f'DISPLAY: {exc}') from None

        path = wish.auth_path or default_path()

        return X11Target(display, await self._loop.run_in_executor(None, display.find_cookie, path))

    def _end(self, cookie: bytes) -> None:
        self._targets.pop(cookie, None)

    def take(self, cursor: Cursor) -> SSHX11Channel:
        """Take the connection of an X client; what it shows first decides whether it is joined with a display.

        Raises:
          ChannelOpenError: no session has asked for that
        """

        if not self._targets:
            raise ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, 'X11 forwarding was not asked for')

        orig_host, orig_port = decode_x11(cursor)
        chan = SSHX11Channel(self._mux, self._loop, DEFAULT_WINDOW, DEFAULT_MAX_PACKET, self._max_window)
        chan.note_origin(orig_host, orig_port)
        chan.set_session(X11Gate(self._loop, self._admit, self._create_task, self._logger))

        return chan

    def _admit(self, name: bytes, data: bytes) -> X11Target | None:
        """Return the display that a cookie opens, in a time that tells nothing about cookies that are close to it."""

        admitted = None

        for cookie in self._targets:
            if compare_digest(cookie, data) and name == MIT_MAGIC_COOKIE:
                admitted = cookie

        if admitted is None:
            return None

        target, single_connection = self._targets[admitted]

        if single_connection:
            del self._targets[admitted]

        return target
