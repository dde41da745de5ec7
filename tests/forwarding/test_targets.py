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
