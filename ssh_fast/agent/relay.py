"""What joins a channel with a stream: of a forwarded agent's client, and of the agent itself."""

import asyncio
import contextlib
from typing import Any

from ..channel.agent_channel import SSHAgentChannel
from ..channel.session import SSHUNIXSession

_CHUNK = 32 * 1024             # bytes read at a time
_HIGH_WATER = 64 * 1024        # bytes not yet taken by the stream, at which the channel's reading pauses


class AgentRelay(SSHUNIXSession[bytes]):
    """Copies both ways between its channel and a stream, and ends with either; neither side can run ahead."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._chan: SSHAgentChannel
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, chan: Any) -> None:
        """Take the channel."""

        self._chan = chan

    def session_started(self) -> None:
        """Begin to copy what the stream gives."""

        self._run(self._copy())

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Copy what the channel gives."""

        if self._writer.is_closing():
            return

        self._writer.write(data)

        if self._writer.transport.get_write_buffer_size() > _HIGH_WATER:
            self._chan.pause_reading()
            self._run(self._drain())

    def eof_received(self) -> bool:
        """Tell the stream; answers may still come from it."""

        if self._writer.can_write_eof() and not self._writer.is_closing():
            with contextlib.suppress(OSError):
                self._writer.write_eof()

        return True

    def pause_writing(self) -> None:
        """Stop taking from the stream."""

        self._may_write.clear()

    def resume_writing(self) -> None:
        """Go on taking from the stream."""

        self._may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the stream go."""

        for task in self._tasks:
            task.cancel()

        self._writer.close()

    def _run(self, coro: Any) -> None:
        task = asyncio.get_running_loop().create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _copy(self) -> None:
        try:
            while data := await self._reader.read(_CHUNK):
                await self._may_write.wait()
                self._chan.write(data)
        except OSError:
            self._chan.abort()
        else:
            self._chan.close()

    async def _drain(self) -> None:
        try:
            await self._writer.drain()
        except OSError:
            self._chan.abort()
        else:
            self._chan.resume_reading()
