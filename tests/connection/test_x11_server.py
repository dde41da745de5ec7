"""A session's display on a server: its entry in the Xauthority file is there while the session is, and no longer."""

import asyncio
import logging
import threading
from pathlib import Path

import pytest

from ssh_fast.connection import x11_server
from ssh_fast.connection.x11_server import SessionDisplay
from ssh_fast.forwarding.x11_auth import add_entry, local_entry, read_entries
from ssh_fast.logging import ContextLogger
from tests.interop.ours import until

ENTRY = local_entry(10, b'MIT-MAGIC-COOKIE-1', b'c' * 16)


def display_at(path: Path, single_connection: bool = False) -> SessionDisplay:
    loop = asyncio.get_running_loop()

    return SessionDisplay(loop, 'localhost:10.0', ENTRY, str(path), single_connection, ContextLogger('test'))


async def test_the_entry_comes_and_goes(tmp_path: Path) -> None:
    path = tmp_path / 'Xauthority'
    display = display_at(path)
    assert display.environment == {'DISPLAY': 'localhost:10.0', 'XAUTHORITY': str(path)}
    await display.publish()
    assert read_entries(str(path)) == [ENTRY]
    display.close()
    display.close()
    await until(lambda: not read_entries(str(path)))


async def test_the_users_own_file_is_what_the_session_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('XAUTHORITY', str(tmp_path / 'mine'))
    display = SessionDisplay(
        asyncio.get_running_loop(), 'localhost:10.0', ENTRY, None, False, ContextLogger('test')
    )
    assert display.environment['XAUTHORITY'] == str(tmp_path / 'mine')


async def test_a_close_while_the_entry_is_written_takes_it_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session, or the whole connection, may end while another program holds the lock of the file."""
    path, writing, go_on = tmp_path / 'Xauthority', threading.Event(), threading.Event()

    def slow(*args: object) -> None:
        writing.set()
        assert go_on.wait(10)
        add_entry(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(x11_server, 'add_entry', slow)
    display = display_at(path)
    publishing = asyncio.create_task(display.publish())
    await until(writing.is_set)
    publishing.cancel()
    display.close()
    go_on.set()
    await until(path.exists)
    await until(lambda: not read_entries(str(path)))


async def test_a_close_before_the_entry_is_written_lets_none_be_written(tmp_path: Path) -> None:
    path = tmp_path / 'Xauthority'
    display = display_at(path)
    display.close()
    await display.publish()
    assert not path.exists()


async def test_an_entry_that_cannot_be_removed_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / 'Xauthority'
    display = display_at(path)
    await display.publish()
    path.write_bytes(b'\1')
    with caplog.at_level(logging.WARNING, 'ssh_fast'):
        display.close()
        await until(lambda: 'was left behind' in caplog.text)
    assert path.read_bytes() == b'\1'


def test_the_entry_goes_although_the_loop_ends(tmp_path: Path) -> None:
    path = tmp_path / 'Xauthority'
    displays = []

    async def run() -> None:
        displays.append(display_at(path))
        await displays[0].publish()
        await asyncio.get_running_loop().shutdown_default_executor()
        displays[0].close()

    asyncio.run(run())
    assert not read_entries(str(path))


async def test_one_client_only(tmp_path: Path) -> None:
    display = display_at(tmp_path / 'Xauthority', single_connection=True)
    assert [display.admits('127.0.0.1', 1) for _ in range(3)] == [True, False, False]
    display = display_at(tmp_path / 'Xauthority')
    assert [display.admits('127.0.0.1', 1) for _ in range(3)] == [True, True, True]
