"""A client and a server of SFTP joined in memory, over real channels; and a server that answers what a test says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ssh_fast.channel.client_channel import SSHClientChannel
from ssh_fast.channel.session import SSHServerSession
from ssh_fast.sftp.client import SFTPClient
from ssh_fast.sftp.requests import SFTPClientSession
from ssh_fast.sftp.server import SFTPServer
from ssh_fast.sftp.server_session import SFTPServerSession
from ssh_fast.wire import Cursor, encode_string, encode_uint32
from tests.channel.pair import PACKET, WINDOW, Pair, serve


async def open_session(pair: Pair) -> SFTPClientSession:
    chan: SSHClientChannel[bytes] = SSHClientChannel(
        pair.client.mux, asyncio.get_running_loop(), None, 'strict', WINDOW, PACKET
    )
    session = await chan.create(SFTPClientSession, subsystem='sftp')
    assert isinstance(session, SFTPClientSession)
    await session.start()

    return session


@asynccontextmanager
async def sftp_pair(
    factory: Callable[[Any], SFTPServer | Awaitable[SFTPServer]] = SFTPServer, **options: Any
) -> AsyncIterator[tuple[SFTPClient, SFTPServerSession, Pair]]:
    pair = Pair()
    sessions: list[SFTPServerSession] = []

    def make_session(chan: Any) -> SFTPServerSession:
        sessions.append(SFTPServerSession(factory))

        return sessions[-1]

    serve(pair, SSHServerSession, subsystems={'sftp': make_session})
    client = SFTPClient(await open_session(pair), **options)

    async with client:
        yield client, sessions[0], pair

    await asyncio.sleep(0)


def rooted(root: Path) -> Callable[[Any], SFTPServer]:
    return lambda chan: SFTPServer(chan, chroot=str(root))


class ScriptedServer(SSHServerSession[bytes]):
    """Answers each request with what `answer(type, request_id, cursor)` returns: bytes of whole messages, or None."""

    def __init__(self, answer: Callable[[int, int, Cursor], bytes | None], extensions: dict[bytes, bytes]) -> None:
        self._answer = answer
        self._extensions = extensions
        self._buffer = b''
        self.requests: list[tuple[int, int, bytes]] = []
        self.chan: Any = None

    def connection_made(self, chan: Any) -> None:
        self.chan = chan

    def subsystem_requested(self, subsystem: str) -> bool:
        return subsystem == 'sftp'

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._buffer += data

        while len(self._buffer) >= 4:
            size = int.from_bytes(self._buffer[:4], 'big')

            if len(self._buffer) < 4 + size:
                return

            message, self._buffer = self._buffer[4 : 4 + size], self._buffer[4 + size :]

            if message[0] == 1:
                fields = b''.join(encode_string(item) for pair in self._extensions.items() for item in pair)
                self.chan.write(encode_string(b'\2' + encode_uint32(3) + fields))
                continue

            request_id = int.from_bytes(message[1:5], 'big')
            self.requests.append((message[0], request_id, message[5:]))
            answer = self._answer(message[0], request_id, Cursor(message[5:]))

            if answer is not None:
                self.chan.write(answer)


def reply(message_type: int, request_id: int, body: bytes = b'') -> bytes:
    return encode_string(bytes([message_type]) + encode_uint32(request_id) + body)


def status(request_id: int, code: int, text: str = 'said so') -> bytes:
    return reply(101, request_id, encode_uint32(code) + encode_string(text) + encode_string(''))


@asynccontextmanager
async def scripted(
    answer: Callable[[int, int, Cursor], bytes | None], extensions: dict[bytes, bytes] | None = None
) -> AsyncIterator[tuple[SFTPClient, ScriptedServer, Pair]]:
    pair = Pair()
    server = ScriptedServer(answer, extensions or {})
    serve(pair, server)
    client = SFTPClient(await open_session(pair))

    async with client:
        yield client, server, pair
