"""Forwarding of agents: a client lets its server's programs ask its agent, a server gives them a socket for that."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ..agent.client import SSHAgentClient, SSHAgentError, SSHAgentRefusal
from ..agent.relay import AgentRelay
from ..channel.agent_channel import SSHAgentChannel
from ..channel.session import SSHUNIXSession
from ..constants import OPEN_CONNECT_FAILED, OPEN_RESOURCE_SHORTAGE
from ..errors import ChannelOpenError
from ..process.stream_session import SSHStreamSession

MAX_RELAYS = 64     # of one connection, at a time: each is a socket

SessionFactory = Callable[[], SSHUNIXSession[bytes]]


class AgentStreamSession(SSHStreamSession[bytes], SSHUNIXSession[bytes]):
    """The session of a channel to a forwarded agent that is used as streams."""


class AgentSource:
    """Client: the agent that its server may ask, while the connection lasts."""

    def __init__(self, path: str, proof: tuple[bytes, bytes, bytes] | None) -> None:
        self._path = path
        self._proof = proof
        self._relays = 0

    async def open(self, chan: SSHAgentChannel) -> SSHAgentChannel:
        """Connect a channel that the server opened with the agent, and tell the agent who asks.

        Raises:
          ChannelOpenError: there is no agent, or there are too many channels to it
        """

        if self._relays >= MAX_RELAYS:
            raise ChannelOpenError(OPEN_RESOURCE_SHORTAGE, f'Expected at most {MAX_RELAYS} channels to the agent')

        self._relays += 1
        agent = SSHAgentClient(self._path)

        try:
            await agent.connect()

            # An agent that knows nothing of sessions has no keys that are bound to one. Anything but its refusal leaves
            # a connection that it would take for one of this host's own programs.
            if self._proof is not None:
                with contextlib.suppress(SSHAgentRefusal):
                    await agent.bind_session(*self._proof, is_forwarding=True)

            streams = await agent.detach()
        except BaseException as exc:
            self._relays -= 1
            agent.close()

            if not isinstance(exc, OSError | SSHAgentError):
                raise

            raise ChannelOpenError(OPEN_CONNECT_FAILED, 'The agent cannot be reached') from exc

        chan.set_session(_CountedRelay(*streams, self._release))

        return chan

    def _release(self) -> None:
        self._relays -= 1


class _CountedRelay(AgentRelay):
    """A relay that tells when it ends."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ended: Callable[[], None]
    ) -> None:
        super().__init__(reader, writer)
        self._ended = ended

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the stream go, and tell."""

        super().connection_lost(exc)
        self._ended()


class AgentListener:
    """Server: a socket in a folder of its own, whose connections lead to the client's agent."""

    def __init__(self, connect: Callable[[SessionFactory], Awaitable[Any]], logger: Any) -> None:
        self._connect = connect
        self._logger = logger
        self._folder: Path | None = None
        self._server: asyncio.Server | None = None
        self._relays = 0
        self._lock = asyncio.Lock()

    @property
    def path(self) -> str | None:
        """The path of the socket; None before it is there."""

        return str(self._folder / 'agent') if self._folder and self._server else None

    async def start(self) -> bool:
        """Make the socket, once; return whether it is there."""

        async with self._lock:
            if self._server is None:
                try:
                    # Others must not even see the socket: the folder is the user's alone.
                    self._folder = Path(tempfile.mkdtemp(prefix='ssh_fast-'))
                    socket = self._folder / 'agent'
                    # It serves only once it is known here, so that whatever ends the wait takes it away.
                    self._server = await asyncio.start_unix_server(self._accept, socket, start_serving=False)
                    os.chmod(socket, 0o600)
                    await self._server.start_serving()
                except OSError as exc:
                    self._logger.warning('No socket for the forwarded agent: %s', exc)
                    self.close()
                except BaseException:
                    self.close()
                    raise

        return self._server is not None

    def close(self) -> None:
        """Take the socket away; what runs over it ends with its channels."""

        if self._server:
            self._server.close()
            self._server = None

        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._relays >= MAX_RELAYS:
            writer.close()
            return

        self._relays += 1
        relay = _CountedRelay(reader, writer, self._release)

        try:
            await self._connect(lambda: relay)
        except Exception as exc:
            self._logger.info('The forwarded agent cannot be reached: %s', exc)
            self._release()
            writer.close()

    def _release(self) -> None:
        self._relays -= 1
