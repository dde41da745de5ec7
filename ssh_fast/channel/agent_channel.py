"""A channel to the agent that a client forwards, or from a server that asks it: plain bytes both ways.

OpenSSH's auth-agent@openssh.com; the server opens it, after the client asked for that with auth-agent-req@openssh.com.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from ..wire import Cursor
from .channel import SSHChannel
from .mux import Mux
from .session import SSHUNIXSession

AGENT_CHANNEL: Final = b'auth-agent@openssh.com'
AGENT_REQUEST: Final = b'auth-agent-req@openssh.com'


class SSHAgentChannel(SSHChannel[bytes]):
    """A channel to a forwarded agent, or from one who asks it."""

    def __init__(
        self, mux: Mux, loop: asyncio.AbstractEventLoop, window: int, max_pktsize: int, max_window: int
    ) -> None:
        super().__init__(mux, loop, None, 'strict', window, max_pktsize, max_window)

        self._created: asyncio.Future[None] | None = None

    def set_session(self, session: SSHUNIXSession[bytes]) -> None:
        """Set the session that this channel calls, before it is opened."""

        self._session = session

    async def create(self, session_factory: Callable[[], SSHUNIXSession[bytes]]) -> SSHUNIXSession[bytes]:
        """Server: open the channel, and return the session that was made for it.

        Raises:
          ChannelOpenError: the client forwards no agent, or has lost it
        """

        session = session_factory()
        self._session = session
        self._created = self._loop.create_future()

        try:
            self._mux.open_channel(self, AGENT_CHANNEL)
        except Exception as exc:
            self.open_failed(exc)

        try:
            await self._created
        except BaseException:
            self.abort()
            raise

        return session

    def open_failed(self, exc: Exception) -> None:
        """End: the channel was never opened. A session that was ready to serve it lets go of what it holds."""

        session, self._session = self._session, None
        super().open_failed(exc)

        if self._created and not self._created.done():
            self._created.set_exception(exc)
        elif session:
            self._call(session.connection_lost, exc)

    def _opened(self, cursor: Cursor) -> None:
        cursor.check_end()

        if self._session:
            self._call(self._session.connection_made, self)

        self._start()

        if self._created and not self._created.done():
            self._created.set_result(None)
