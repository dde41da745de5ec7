"""A server's X11 forwarding: a display for each session that asks, and its cookie in the Xauthority file."""

import asyncio
from collections.abc import Awaitable
from threading import Lock
from typing import Any

from ..channel.channel import DEFAULT_MAX_PACKET, DEFAULT_WINDOW
from ..channel.mux import Mux
from ..channel.x11_channel import SSHX11Channel, X11Request
from ..errors import ChannelListenError, ChannelOpenError
from ..forwarding.forwarder import SSHForwarder
from ..forwarding.listeners import SocketListener
from ..forwarding.x11_auth import XauthorityEntry, XauthorityError, add_entry, default_path, local_entry, remove_entry
from ..forwarding.x11_display import bind_display
from ..logging import ContextLogger
from .forwarding import Forwarding


class SessionDisplay:
    """The display of a session: its listener, and its entry in an Xauthority file."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        display: str,
        entry: XauthorityEntry,
        auth_path: str | None,
        single_connection: bool,
        logger: ContextLogger,
    ) -> None:
        self._auth_path = auth_path or default_path()
        self.display = display
        self.environment = {'DISPLAY': display, 'XAUTHORITY': self._auth_path}
        self._loop = loop
        self._entry = entry
        self._single_connection = single_connection
        self._logger = logger
        self._listener: SocketListener | None = None
        self._used = False
        self._closed = False
        self._file_lock = Lock()
        self._written = False

    def listen(self, listener: SocketListener) -> None:
        """Take the listener, which ends with the session."""

        self._listener = listener

    def admits(self, host: str, port: int) -> bool:
        """Tell whether a client that connects is let in: any, or the first one only."""

        if not self._single_connection:
            return True

        first, self._used = not self._used, True

        if self._listener:
            self._listener.close()

        return first

    @property
    def is_closed(self) -> bool:
        """Whether it is gone."""

        return self._closed

    async def publish(self) -> None:
        """Write the entry.

        Raises:
          XauthorityError: the file cannot be changed
        """

        await self._loop.run_in_executor(None, self._write)

    def close(self) -> None:
        """Listen no more, and take the entry away; the clients that are connected go on."""

        if self._closed:
            return

        self._closed = True

        if self._listener:
            self._listener.abandon()

        try:
            self._loop.run_in_executor(None, self._erase)
        except RuntimeError:
            # The loop is about to end, and starts no threads any more.
            self._erase()

    def _write(self) -> None:
        with self._file_lock:
            if not self._closed:
                add_entry(self._auth_path, self._entry)
                self._written = True

    def _erase(self) -> None:
        with self._file_lock:
            if not self._written:
                return

            try:
                remove_entry(self._auth_path, self._entry)
            except XauthorityError as exc:
                self._logger.warning('The cookie of a display that is gone was left behind: %s', exc)


class ServerX11:
    """The displays that a connection's client asked for."""

    def __init__(
        self,
        mux: Mux,
        loop: asyncio.AbstractEventLoop,
        max_window: int,
        forwarding: Forwarding,
        auth_path: str | None,
        logger: ContextLogger,
    ) -> None:
        self._mux = mux
        self._loop = loop
        self._max_window = max_window
        self._forwarding = forwarding
        self._auth_path = auth_path
        self._logger = logger
        self._displays: list[SessionDisplay] = []

    async def forward(self, request: X11Request) -> SessionDisplay | None:
        """Make a display for a session; None if there can be none."""

        display: SessionDisplay | None = None

        try:
            display = self._listen(request)
            await display.publish()
        except (ChannelListenError, ChannelOpenError, XauthorityError) as exc:
            self._logger.warning('X11 is not forwarded: %s', exc)

            if display:
                display.close()

            return None

        return display

    def close(self) -> None:
        """Take all displays away: the connection has ended."""

        for display in self._displays:
            display.close()

    def _listen(self, request: X11Request) -> SessionDisplay:
        number, sockets = bind_display()
        entry = local_entry(number, request.protocol, request.cookie)
        display = SessionDisplay(
            self._loop,
            f'localhost:{number}.{request.screen}',
            entry,
            self._auth_path,
            request.single_connection,
            self._logger,
        )
        display.listen(self._forwarding.listen_sockets(sockets, self._open, display.admits))
        self._displays = [kept for kept in self._displays if not kept.is_closed]
        self._displays.append(display)

        return display

    def _open(self, forwarder: SSHForwarder, orig_host: str, orig_port: int) -> Awaitable[Any]:
        chan = SSHX11Channel(self._mux, self._loop, DEFAULT_WINDOW, DEFAULT_MAX_PACKET, self._max_window)

        return chan.accept(lambda: forwarder, orig_host, orig_port)
