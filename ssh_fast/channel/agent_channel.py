"""A channel to the agent that a client forwards, or from a server that asks it: plain bytes both ways.

OpenSSH's auth-agent@openssh.com; the server opens it, after the client asked for that with auth-agent-req@openssh.com.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from .forward_channel import SSHForwardChannel
from .mux import Mux
from .session import SSHUNIXSession

AGENT_CHANNEL: Final = b'auth-agent@openssh.com'
AGENT_REQUEST: Final = b'auth-agent-req@openssh.com'


class SSHAgentChannel(SSHForwardChannel[bytes]):
    """A channel to a forwarded agent, or from one who asks it."""

    def __init__(
        self, mux: Mux, loop: asyncio.AbstractEventLoop, window: int, max_pktsize: int, max_window: int
    ) -> None:
        super().__init__(mux, loop, None, 'strict', window, max_pktsize, max_window)

    async def create(self, session_factory: Callable[[], SSHUNIXSession[bytes]]) -> SSHUNIXSession[bytes]:
        """Server: open the channel, and return the session that was made for it.

        Raises:
          ChannelOpenError: the client forwards no agent, or has lost it
        """

        return await self.open(session_factory, AGENT_CHANNEL)
