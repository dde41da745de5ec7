"""Where agents are found, as far as that can be told without Windows."""

import asyncio
import ctypes
import hashlib
import sys
from typing import Any

import pytest

from ssh_fast.agent import streams


def test_pageant_pipe_is_named_after_the_user_and_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('USERNAME', 'me')
    seen = []

    def protect(data: bytes) -> bytes:
        seen.append(data)

        return b'0123456789abcdef'

    digest = hashlib.sha256(b'\0\0\0\x100123456789abcdef').hexdigest()
    assert streams.pageant_pipe(protect) == rf'\\.\pipe\pageant.me.{digest}'
    assert seen == [b'Pageant' + bytes(9)]


class Windows:
    """What of Windows is called, played."""

    def __init__(self, works: bool) -> None:
        self.crypt32 = self
        self.works = works

    def CryptProtectMemory(self, buffer: Any, size: int, flags: int) -> int:
        assert (size, flags) == (16, 1)
        buffer.raw = buffer.raw[::-1]

        return int(self.works)


@pytest.mark.parametrize('there', [True, False])
def test_windows_prefers_the_variable_then_pageant(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(sys, 'platform', 'win32')
    monkeypatch.setattr(ctypes, 'windll', Windows(True), raising=False)
    monkeypatch.setattr(streams.os.path, 'exists', lambda path: there)
    monkeypatch.setenv('SSH_AUTH_SOCK', 'wherever')
    assert streams.default_agent_path() == 'wherever'
    monkeypatch.delenv('SSH_AUTH_SOCK')
    path = streams.default_agent_path()
    assert path.startswith('\\\\.\\pipe\\pageant.') if there else path == streams.OPENSSH_PIPE
    monkeypatch.setattr(ctypes, 'windll', Windows(False))

    with pytest.raises(OSError, match='Pageant'):
        streams.default_agent_path()


async def test_pipes_need_the_loop_of_windows() -> None:
    with pytest.raises(OSError, match='proactor'):
        await streams.open_agent_stream(streams.OPENSSH_PIPE)


class Pipe(asyncio.Transport):
    def is_closing(self) -> bool:
        return True


async def test_a_pipe_is_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that has pipes is given the name and a protocol; what the protocol receives is read."""

    given = []

    async def create_pipe_connection(factory: Any, path: str) -> tuple[Any, Any]:
        protocol = factory()
        given.append(path)
        protocol.connection_made(Pipe())
        protocol.data_received(b'\0\0\0\1\6')

        return Pipe(), protocol

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, 'create_pipe_connection', create_pipe_connection, raising=False)
    reader, _ = await streams.open_agent_stream(r'\\.\pipe\some-agent')
    assert await reader.readexactly(5) == b'\0\0\0\1\6'
    assert given == [r'\\.\pipe\some-agent']
