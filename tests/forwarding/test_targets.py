"""Connecting to where a channel leads."""

import asyncio
import socket
from pathlib import Path

import pytest

from ssh_fast.forwarding import targets
from tests.interop.ours import nothing_leaks


async def test_a_path_whose_listener_has_no_room_yet(tmp_path: Path) -> None:
    path, loop = str(tmp_path / 'path'), asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(0)
        server.setblocking(False)
        connecting = [asyncio.create_task(targets.connect_path(path)) for _ in range(5)]
        await asyncio.sleep(0.1)
        assert not all(task.done() for task in connecting)
        for _ in connecting:
            sock, _ = await loop.sock_accept(server)
            sock.sendall(b'welcome')
            sock.close()
        for task in connecting:
            sock = await task
            assert await loop.sock_recv(sock, 100) == b'welcome'
            sock.close()


async def test_a_path_whose_listener_never_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, '_TIMEOUT', 0.1)
    path = str(tmp_path / 'path')
    async with nothing_leaks():
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen(0)
            results = await asyncio.gather(*(targets.connect_path(path) for _ in range(5)), return_exceptions=True)
            assert any(isinstance(result, TimeoutError) for result in results)
            for result in results:
                if isinstance(result, socket.socket):
                    result.close()


@pytest.mark.parametrize('path', ['nothing', 'a\0b', 'x' * 200])
async def test_a_path_where_nobody_listens(path: str, tmp_path: Path) -> None:
    async with nothing_leaks():
        with pytest.raises(OSError):
            await targets.connect_path(str(tmp_path / path))


async def test_a_silent_address_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, '_TIMEOUT', 1.0)
    loop = asyncio.get_running_loop()
    with socket.socket() as silent, socket.create_server(('127.0.0.1', 0)) as good:
        silent.bind(('127.0.0.1', 0))
        silent.listen(0)
        # Who is in its queue leaves no room: the kernel answers nobody behind.
        with socket.create_connection(silent.getsockname()):
            found = [(socket.AF_INET, socket.SOCK_STREAM, 0, '', sock.getsockname()) for sock in (silent, good)]

            async def getaddrinfo(*args: object, **kwargs: object) -> object:
                return found

            monkeypatch.setattr(loop, 'getaddrinfo', getaddrinfo)
            async with nothing_leaks():
                sock = await targets.connect_tcp('host', 1)
                assert sock.getpeername() == good.getsockname()
                sock.close()
                found.pop()
                with pytest.raises(TimeoutError, match='the host does not answer'):
                    await targets.connect_tcp('host', 1)
