"""Trees of many small directories: how much of them is under way at once, and what stays when a copy ends early."""

import asyncio
import gc
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ssh_fast.sftp import local
from ssh_fast.sftp.attrs import SFTPAttrs, SFTPName
from ssh_fast.sftp.errors import SFTPConnectionLost, SFTPError, SFTPPermissionDenied
from ssh_fast.sftp.server import SFTPServer

from .ends import rooted, sftp_pair


class Gate:
    """Lets nobody pass until `wanted` have come."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._come = 0
        self._open = asyncio.Event()

    async def passed(self) -> None:
        self._come += 1

        if self._come >= self._wanted:
            self._open.set()

        await self._open.wait()


def make_directories(root: Path, directories: int, files: int) -> dict[str, bytes]:
    content = {}

    for number in range(directories):
        for name in range(files):
            path = root / f'd{number % 3}' / f'e{number}' / f'f{name}'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(number * 100 + name))
            content[str(path.relative_to(root))] = path.read_bytes()

    return content


def read_files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob('*') if path.is_file()}


@asynccontextmanager
async def nothing_left_behind() -> AsyncIterator[None]:
    """Fail if a task or a descriptor is there afterwards that was not before."""

    tasks, descriptors = asyncio.all_tasks(), set(os.listdir('/proc/self/fd'))

    yield

    for _ in range(500):
        await asyncio.sleep(0)

        if asyncio.all_tasks() == tasks and set(os.listdir('/proc/self/fd')) <= descriptors:
            break

        # A thread of the server may be at work for what was asked for.
        await asyncio.sleep(0.01)

    assert asyncio.all_tasks() == tasks
    assert set(os.listdir('/proc/self/fd')) <= descriptors


class Gated(SFTPServer):
    """Reads, writes and lists only when enough others are to be read, written or listed as well."""

    gates: dict[str, Gate]

    async def read(self, file_obj: object, offset: int, size: int) -> bytes:
        await self.gates['read'].passed()

        return super().read(file_obj, offset, size)  # type: ignore[return-value]

    async def write(self, file_obj: object, offset: int, data: bytes) -> int:
        await self.gates['write'].passed()

        return super().write(file_obj, offset, data)  # type: ignore[return-value]

    async def scandir(self, path: bytes) -> AsyncIterator[SFTPName]:
        if os.path.basename(path).startswith(b'e'):
            await self.gates['list'].passed()

        async for name in super().scandir(path):
            yield name


@pytest.mark.parametrize('way', ['get', 'put', 'copy', 'rmtree'])
async def test_directories_of_one_file_overlap(tmp_path: Path, way: str) -> None:
    (tmp_path / 'far').mkdir()
    source = tmp_path / ('near' if way == 'put' else 'far') / 'tree'
    content = make_directories(source, 24, 1)
    wanted = {'get': ('read', 'list'), 'put': ('write',), 'copy': ('read', 'write', 'list'), 'rmtree': ('list',)}[way]
    Gated.gates = {name: Gate(6 if name in wanted else 0) for name in ('read', 'write', 'list')}

    async with sftp_pair(lambda chan: Gated(chan, str(tmp_path / 'far'))) as (sftp, session, _):
        # One directory after another would have one file under way, and never pass.
        async with asyncio.timeout(20):
            if way == 'get':
                await sftp.get('tree', tmp_path / 'out', recurse=True)
            elif way == 'put':
                await sftp.put(source, 'out', recurse=True)
            elif way == 'copy':
                await sftp.copy('tree', 'out', recurse=True)
            else:
                await sftp.rmtree('tree')

        assert not list(session._handles)

    if way == 'rmtree':
        assert not source.exists()
    else:
        assert read_files(tmp_path / ('out' if way == 'get' else 'far/out')) == content


async def test_few_directories_are_open_however_deep_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = 60
    (tmp_path / 'far').mkdir()

    for number in range(12):
        path = tmp_path / 'far' / f'd{number}' / '/'.join(['x'] * deep)
        path.mkdir(parents=True)
        (path / 'file').write_text(str(number))

    now = most = 0
    make, close = local.LocalPlace.make_directory, local.LocalDirectory.close

    def making(self: local.LocalPlace, permissions: int | None) -> local.LocalDirectory:
        nonlocal now, most
        now += 1
        most = max(most, now)

        return make(self, permissions)

    def closing(self: local.LocalDirectory) -> None:
        nonlocal now
        now -= 1
        close(self)

    monkeypatch.setattr(local.LocalPlace, 'make_directory', making)
    monkeypatch.setattr(local.LocalDirectory, 'close', closing)

    async with sftp_pair(rooted(tmp_path / 'far')) as (sftp, _, _):
        await sftp.get('.', tmp_path / 'out', recurse=True)

    assert read_files(tmp_path / 'out') == read_files(tmp_path / 'far')
    # Nine ways down to where only one of them goes on, and that one to the end.
    assert now == 0 and deep < most <= 9 * 17 + deep


async def test_a_failure_in_one_directory_does_not_wait_for_the_others(tmp_path: Path) -> None:
    released = asyncio.Event()
    opened: list[bytes] = []

    class Stuck(SFTPServer):
        async def open(self, path: bytes, pflags: int, attrs: SFTPAttrs) -> object:
            opened.append(path)

            if len(opened) == 6:
                raise SFTPPermissionDenied('Not this one')

            return super().open(path, pflags, attrs)

        async def read(self, file_obj: object, offset: int, size: int) -> bytes:
            await released.wait()

            return super().read(file_obj, offset, size)  # type: ignore[return-value]

    make_directories(tmp_path / 'far' / 'tree', 20, 2)

    async with sftp_pair(lambda chan: Stuck(chan, str(tmp_path / 'far'))) as (sftp, session, _):
        async with asyncio.timeout(20):
            with pytest.raises(SFTPPermissionDenied, match='Not this one') as caught:
                await sftp.get('tree', tmp_path / 'out', recurse=True)

        assert opened[5].endswith(caught.value.srcpath)  # type: ignore[attr-defined]
        assert set(read_files(tmp_path / 'out').values()) <= {b''}
        released.set()
        await sftp.stat('/')

        for _ in range(20):
            await asyncio.sleep(0)

        assert not list(session._handles)


async def test_errors_of_many_directories_are_all_told(tmp_path: Path) -> None:
    class Refusing(SFTPServer):
        async def open(self, path: bytes, pflags: int, attrs: SFTPAttrs) -> object:
            if path.endswith(b'/f1'):
                raise SFTPPermissionDenied('Not this one')

            return super().open(path, pflags, attrs)

    content = make_directories(tmp_path / 'far' / 'tree', 30, 2)
    errors: list[Any] = []

    async with sftp_pair(lambda chan: Refusing(chan, str(tmp_path / 'far'))) as (sftp, _, _):
        await sftp.get('tree', tmp_path / 'out', recurse=True, error_handler=errors.append)

    refused = sorted(os.fsencode(f'tree/{path}') for path in content if path.endswith('/f1'))
    assert sorted(exc.srcpath for exc in errors) == refused
    assert read_files(tmp_path / 'out') == {path: data for path, data in content.items() if path.endswith('/f0')}


@pytest.mark.parametrize('way', ['get', 'put', 'copy'])
@pytest.mark.parametrize('seed', range(5))
async def test_cancelled_anywhere(tmp_path: Path, way: str, seed: int) -> None:
    (tmp_path / 'far').mkdir()
    source = tmp_path / ('near' if way == 'put' else 'far') / 'tree'
    content = make_directories(source, 30, 3)
    out = tmp_path / ('out' if way == 'get' else 'far/out')
    turns = random.Random(seed).randrange(3, 150)

    async with sftp_pair(rooted(tmp_path / 'far')) as (sftp, session, _):
        calls: dict[str, Callable[[], Any]] = {
            'get': lambda: sftp.get('tree', out, recurse=True),
            'put': lambda: sftp.put(source, 'out', recurse=True),
            'copy': lambda: sftp.copy('tree', 'out', recurse=True),
        }

        async with nothing_left_behind():
            task = asyncio.create_task(calls[way]())

            for _ in range(turns):
                await asyncio.sleep(0)

            task.cancel()
            await asyncio.wait([task])

            # What the server has been asked for is done before its answer to this.
            await sftp.stat('/')

        assert not list(session._handles)

        for path, data in (read_files(out) if out.exists() else {}).items():
            assert content[path].startswith(data)

        # A second time into the same tree: nothing of the first is in the way.
        await calls[way]()
        copied = out / 'tree' if (out / 'tree').exists() else out
        assert read_files(copied) == content


async def test_rmtree_ends_at_the_first_failure(tmp_path: Path) -> None:
    class Refusing(SFTPServer):
        async def remove(self, path: bytes) -> None:
            if path.endswith(b'e7/f0'):
                raise SFTPPermissionDenied('Not this one')

            super().remove(path)

    content = make_directories(tmp_path / 'tree', 60, 2)

    async with sftp_pair(lambda chan: Refusing(chan, str(tmp_path))) as (sftp, session, _):
        async with nothing_left_behind():
            with pytest.raises(SFTPPermissionDenied, match='Not this one'):
                await sftp.rmtree('tree')

        assert not list(session._handles)
        assert 'd1/e7/f0' in read_files(tmp_path / 'tree') and len(read_files(tmp_path / 'tree')) < len(content)
        seen: list[tuple[str, bytes]] = []
        await sftp.rmtree('tree', onerror=lambda function, path, exc_info: seen.append((function.__name__, path)))

    # All but what holds the file that is refused is gone, and each of these is told once, from the inside out.
    assert list(read_files(tmp_path / 'tree')) == ['d1/e7/f0']
    assert seen == [('remove', b'tree/d1/e7/f0'), ('rmdir', b'tree/d1/e7'), ('rmdir', b'tree/d1'), ('rmdir', b'tree')]


async def test_a_failure_of_rmtree_does_not_wait_for_other_directories(tmp_path: Path) -> None:
    released = asyncio.Event()
    listed: list[bytes] = []

    class Stuck(SFTPServer):
        async def scandir(self, path: bytes) -> AsyncIterator[SFTPName]:
            number = 0

            if os.path.basename(path).startswith(b'e'):
                listed.append(path)
                number = len(listed)

            # The server fetches the first name as it opens a directory, before it removes anything.
            async for name in super().scandir(path):
                yield name

                if number > 1:
                    await released.wait()

        async def remove(self, path: bytes) -> None:
            raise SFTPPermissionDenied('Nothing goes')

    make_directories(tmp_path / 'tree', 12, 1)

    async with sftp_pair(lambda chan: Stuck(chan, str(tmp_path))) as (sftp, session, _):
        async with asyncio.timeout(20):
            with pytest.raises(SFTPPermissionDenied, match='Nothing goes'):
                await sftp.rmtree('tree')

        released.set()
        await sftp.stat('/')

        for _ in range(20):
            await asyncio.sleep(0)

        assert not list(session._handles)


async def lose_connection_in_rmtree(root: Path) -> str:
    removing = asyncio.Event()

    class Stuck(SFTPServer):
        async def remove(self, path: bytes) -> None:
            removing.set()
            await asyncio.Event().wait()

    async with sftp_pair(lambda chan: Stuck(chan, str(root))) as (sftp, _, pair):
        async with nothing_left_behind():
            task = asyncio.create_task(sftp.rmtree('tree'))
            await removing.wait()

            for _ in range(5):
                await asyncio.sleep(0)

            # Several files of several directories are asked for: all of them fail at once, and one is told.
            pair.lose(SFTPConnectionLost('gone'))
            await asyncio.wait([task])

        return type(task.exception()).__name__


async def test_rmtree_without_its_connection(tmp_path: Path) -> None:
    make_directories(tmp_path / 'tree', 20, 5)
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context['message']))
    assert await lose_connection_in_rmtree(tmp_path) in ('SFTPConnectionLost', 'SFTPNoConnection')
    gc.collect()
    assert not complaints


async def test_rmtree_cancelled_anywhere(tmp_path: Path) -> None:
    rng = random.Random(1)

    for number in range(6):
        make_directories(tmp_path / 'tree', 40, 2)

        async with sftp_pair(rooted(tmp_path)) as (sftp, session, _):
            async with nothing_left_behind():
                task = asyncio.create_task(sftp.rmtree('tree'))

                for _ in range(rng.randrange(2, 60)):
                    await asyncio.sleep(0)

                task.cancel()
                await asyncio.wait([task])
                await sftp.stat('/')

            assert not list(session._handles), number

            if (tmp_path / 'tree').exists():
                await sftp.rmtree('tree')

        assert not (tmp_path / 'tree').exists()


async def test_rmtree_empties_few_directories_at_once(tmp_path: Path) -> None:
    now = most = 0

    class Counting(SFTPServer):
        async def scandir(self, path: bytes) -> AsyncIterator[SFTPName]:
            nonlocal now, most
            now += 1
            most = max(most, now)

            try:
                async for name in super().scandir(path):
                    await asyncio.sleep(0)
                    yield name
            finally:
                now -= 1

    make_directories(tmp_path / 'tree', 120, 1)

    async with sftp_pair(lambda chan: Counting(chan, str(tmp_path))) as (sftp, _, _):
        await sftp.rmtree('tree')

        with pytest.raises(SFTPError):
            await sftp.stat('tree')

    assert 1 < most <= 16
