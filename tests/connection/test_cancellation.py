"""Cancelled at every await: no channel, task, file or socket is left, and the connection's other channels go on.

A coroutine is stepped by hand, so that each of its suspensions is seen. For each k it is cancelled at the k-th: once
while it waits there, and once when what it waits for has come but it has not run again, which is where results get
lost.
"""

import asyncio
import contextlib
import gc
import logging
import os
import socket
import tempfile
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from ssh_fast.connection.agent_forwarding import AgentListener
from tests.security.peer import HOST_KEY, LOOPBACK, USER, Server, Serving, client_options, serving

MOMENTS = ('waiting', 'woken')
MAX_STEPS = 200


class Stepper:
    """Runs a coroutine in a task of its own and cancels it at its k-th suspension; k 0 never does."""

    def __init__(self, coro: Coroutine[Any, Any, Any], k: int, moment: str) -> None:
        self.steps = 0
        self._coro = coro
        self._k = k
        self._moment = moment
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> Any:
        return await self._step()

    @types.coroutine
    def _step(self) -> Generator[Any, Any, Any]:
        resume: Callable[[], Any] = lambda: self._coro.send(None)    # noqa: E731
        while True:
            try:
                future = resume()
            except StopIteration as stop:
                return stop.value
            self.steps += 1
            if self.steps == self._k:
                if self._moment == 'waiting' or future is None:
                    asyncio.get_running_loop().call_soon(self.task.cancel)
                else:
                    # In front of the task's own callback, which the yield adds.
                    future.add_done_callback(lambda _: self.task.cancel())
            try:
                value = yield future
            except BaseException as exc:
                resume = lambda exc=exc: self._coro.throw(exc)    # type: ignore[misc] # noqa: E731
            else:
                resume = lambda value=value: self._coro.send(value)    # type: ignore[misc] # noqa: E731


def descriptors() -> int:
    return len(os.listdir('/proc/self/fd'))


async def until(holds: Callable[[], bool]) -> None:
    """Wait until the other side's part of an end is done, too."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


async def cancel_everywhere(
    operation: Callable[[], Coroutine[Any, Any, Any]], check: Callable[[bool, Any], Awaitable[None]]
) -> int:
    """Run an operation, cancelled at each of its awaits in turn until it has none left; return how many it had.

    `check` is told whether it was cancelled, and what it returned if not.
    """
    most = 0
    for moment in MOMENTS:
        for k in range(1, MAX_STEPS):
            stepper = Stepper(operation(), k, moment)
            try:
                result, cancelled = await asyncio.wait_for(asyncio.shield(stepper.task), 20), False
            except asyncio.CancelledError:
                result, cancelled = None, True
            await check(cancelled, result)
            most = max(most, stepper.steps)
            if stepper.steps < k:
                break
        else:
            pytest.fail(f'more than {MAX_STEPS} awaits')
    return most


async def echo(process: Any) -> None:
    """Send the lines back; `end` ends it, and so does the end of the input."""
    process.stdout.write('ready\n')
    async for line in process.stdin:
        if line == 'end\n':
            break
        process.stdout.write(line)
    process.exit(0)


class Bench:
    """A server, a connection to it, and a bystander: a process on that connection that must go on."""

    def __init__(self, server: Serving, conn: Any, bystander: Any) -> None:
        self.server, self.conn, self.bystander = server, conn, bystander
        self._turn = 0
        self._tasks = len(asyncio.all_tasks())
        self._files = descriptors()

    async def check(self) -> None:
        """Nothing is left but the bystander, which goes on."""
        await until(lambda: len(self.conn._mux.channels) == 1)
        await until(lambda: len(self.server.made[0].conn._mux.channels) == 1)
        await until(lambda: len(asyncio.all_tasks()) <= self._tasks)
        assert descriptors() <= self._files
        self._turn += 1
        self.bystander.stdin.write(f'{self._turn}\n')
        assert await asyncio.wait_for(self.bystander.stdout.readline(), 10) == f'{self._turn}\n'
        assert not self.conn._mux._replies and not self.conn._tasks

    async def check_any(self, cancelled: bool, result: Any) -> None:
        await self.check()

    async def close(self, result: Any) -> None:
        """Close what an operation opened although it was to be cancelled: it was done before."""
        if result is not None:
            result.close()
            await result.wait_closed()


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    async with serving(process_factory=echo, sftp_factory=True, max_sessions=100) as server:
        async with ssh_fast.connect(LOOPBACK, server.port, **client_options()) as conn:
            bystander = await conn.create_process('bystander')
            assert await bystander.stdout.readline() == 'ready\n'
            yield Bench(server, conn, bystander)


# --- connections


@pytest.mark.parametrize('how', ['connect', 'create_connection', 'run_client', 'async with'])
async def test_connect(how: str) -> None:
    tasks_before = len(asyncio.all_tasks())
    async with serving(process_factory=echo) as server:
        options = client_options()
        tasks, files = len(asyncio.all_tasks()), descriptors()

        async def operation() -> Any:
            if how == 'connect':
                return await ssh_fast.connect(LOOPBACK, server.port, **options)
            if how == 'create_connection':
                return (await ssh_fast.create_connection(None, LOOPBACK, server.port, **options))[0]
            if how == 'run_client':
                return await ssh_fast.run_client(await dialled(server.port), **options)
            async with ssh_fast.connect(LOOPBACK, server.port, **options) as conn:
                await conn.run('x', input='line\n')

        async def check(cancelled: bool, result: Any) -> None:
            if result is not None:
                result.close()
                await result.wait_closed()
            await until(lambda: len(asyncio.all_tasks()) <= tasks)
            await until(lambda: all(owner.conn.is_closed() for owner in server.made if owner.conn))
            await until(lambda: descriptors() <= files)

        assert await cancel_everywhere(operation, check) >= 3
        assert len(server.made) > 3
        async with ssh_fast.connect(LOOPBACK, server.port, **options) as conn:
            assert conn.get_extra_info('username') == USER
    await until(lambda: len(asyncio.all_tasks()) <= tasks_before)


async def dialled(port: int) -> Any:
    sock = socket.socket()
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (LOOPBACK, port))
    except BaseException:
        sock.close()
        raise
    return sock


async def test_listen() -> None:
    files, tasks = descriptors(), len(asyncio.all_tasks())

    async def operation() -> Any:
        return await ssh_fast.listen(LOOPBACK, 0, server_host_keys=[HOST_KEY])

    async def check(cancelled: bool, result: Any) -> None:
        if result is not None:
            result.close()
            await result.wait_closed()
        await until(lambda: descriptors() <= files and len(asyncio.all_tasks()) <= tasks)

    assert await cancel_everywhere(operation, check) >= 2


async def test_run_server() -> None:
    files, tasks = descriptors(), len(asyncio.all_tasks())

    async def operation() -> Any:
        ours, theirs = socket.socketpair()
        client = asyncio.ensure_future(_log_in_over(theirs))
        try:
            return await ssh_fast.run_server(ours, server_host_keys=[HOST_KEY], server_factory=Server)
        finally:
            client.cancel()
            theirs.close()

    async def check(cancelled: bool, result: Any) -> None:
        if result is not None:
            result.close()
            await result.wait_closed()
        await until(lambda: descriptors() <= files and len(asyncio.all_tasks()) <= tasks)

    assert await cancel_everywhere(operation, check) >= 2


async def _log_in_over(sock: socket.socket) -> None:
    with contextlib.suppress(ssh_fast.Error, OSError):
        conn = await ssh_fast.run_client(sock, **client_options())
        conn.abort()


async def test_close_of_a_connection() -> None:
    async with serving(process_factory=echo) as server:
        files = descriptors()

        for moment in MOMENTS:
            for k in range(1, MAX_STEPS):
                conn = await ssh_fast.connect(LOOPBACK, server.port, **client_options())
                process = await conn.create_process('x')
                stepper = Stepper(conn.__aexit__(None, None, None), k, moment)
                waiting = asyncio.ensure_future(process.wait())
                await asyncio.wait([stepper.task], timeout=10)
                # The close goes on without the one who asked for it.
                await asyncio.wait_for(conn.wait_closed(), 10)
                with pytest.raises(ssh_fast.ConnectionLost):
                    await asyncio.wait_for(waiting, 10)
                await until(lambda: descriptors() <= files)
                if stepper.steps < k:
                    break


# --- sessions


async def test_sessions_of_every_kind() -> None:
    async with bench() as b:
        async def process() -> Any:
            return await b.conn.create_process('x')

        async def terminal() -> Any:
            return await b.conn.create_process('x', term_type='xterm', env={'A': 'b'})

        async def session() -> Any:
            return (await b.conn.create_session(ssh_fast.SSHClientSession, 'x'))[0]

        async def streams() -> Any:
            return (await b.conn.open_session('x'))[0].channel

        async def check(cancelled: bool, result: Any) -> None:
            await b.close(result)
            await b.check()

        for operation in (process, terminal, session, streams):
            assert await cancel_everywhere(operation, check) >= 1, operation.__name__


async def test_run() -> None:
    async with bench() as b:
        async def operation() -> None:
            result = await b.conn.run('x', input='hello\n', check=True)
            assert result.stdout == 'ready\nhello\n'

        async def with_a_limit() -> None:
            await b.conn.run('x', input='hello\n', timeout=10)

        async def without_an_end() -> None:
            with pytest.raises(ssh_fast.TimeoutError):
                await b.conn.run('x', timeout=0.01)

        for each in (operation, with_a_limit, without_an_end):
            assert await cancel_everywhere(each, b.check_any) >= 2, each.__name__


async def test_run_whose_connection_is_under_rekeying() -> None:
    async with serving(process_factory=echo, max_sessions=100) as server:
        async with ssh_fast.connect(LOOPBACK, server.port, **client_options()) as conn:
            b = Bench(server, conn, await conn.create_process('bystander'))
            await b.bystander.stdout.readline()

            async def operation() -> None:
                conn._ssh.rekey()
                conn._flush()
                await conn.run('x', input='hello\n', check=True)

            assert await cancel_everywhere(operation, b.check_any) >= 2


async def test_wait_leaves_the_process() -> None:
    """A wait that is cancelled takes nothing: the next one returns the whole output."""
    async with bench() as b:
        for wait in ('wait', 'communicate', 'wait_closed'):
            for moment in MOMENTS:
                for k in range(1, MAX_STEPS):
                    process = await b.conn.create_process('x')
                    stepper = Stepper(getattr(process, wait)(), k, moment)
                    await asyncio.sleep(0)
                    process.stdin.write('one\ntwo\nend\n')
                    await asyncio.wait([stepper.task], timeout=10)
                    if stepper.task.cancelled() or wait == 'wait_closed':
                        result = await asyncio.wait_for(process.wait(check=True), 10)
                        assert result.stdout == 'ready\none\ntwo\n'
                    process.close()
                    await process.wait_closed()
                    await b.check()
                    if stepper.steps < k:
                        break


async def test_reading_and_draining() -> None:
    async with bench() as b:
        async def operation() -> None:
            process = await b.conn.create_process('x', window=65536)
            try:
                assert await process.stdout.readline() == 'ready\n'
                process.stdin.write(('x' * 99 + '\n') * 3000)
                await process.stdin.drain()
                await process.stdout.readexactly(100_000)
                await process.stdout.readuntil('\n')
                process.stdin.write_eof()
                await process.stdout.read()
            finally:
                process.channel.abort()

        assert await cancel_everywhere(operation, b.check_any) >= 5


async def test_redirected_processes(tmp_path: Path) -> None:
    """Files that were opened for a process are closed with it, or with the attempt to start it."""
    (tmp_path / 'in').write_text('line\n' * 2000)

    async with bench() as b:
        async def files() -> None:
            result = await b.conn.run('x', stdin=tmp_path / 'in', stdout=tmp_path / 'out', check=True)
            assert not result.stdout

        async def byte_files() -> None:
            await b.conn.run('x', stdin=tmp_path / 'in', stdout=tmp_path / 'out', encoding=None, check=True)

        async def two_processes() -> None:
            async with b.conn.create_process('x', stdin=tmp_path / 'in') as first:
                await b.conn.run('y', stdin=first.stdout, stdout=tmp_path / 'out')

        async def in_mid_flight() -> None:
            async with b.conn.create_process('x') as process:
                await process.stdout.readline()
                await process.redirect(stdout=tmp_path / 'out')
                await process.redirect(stdin=tmp_path / 'in')
                await process.wait()

        async def subprocess() -> None:
            exited = asyncio.get_running_loop().create_future()

            class Protocol(ssh_fast.SSHSubprocessProtocol[bytes]):
                def process_exited(self) -> None:
                    if not exited.done():
                        exited.set_result(None)

            transport, _ = await b.conn.create_subprocess(Protocol, 'x', input=b'end\n')
            try:
                await exited
            finally:
                transport.close()

        async def input_of_the_wrong_type() -> None:
            with pytest.raises(TypeError):
                await b.conn.create_process('x', input=b'bytes')

        for operation in (files, byte_files, two_processes, in_mid_flight, subprocess, input_of_the_wrong_type):
            assert await cancel_everywhere(operation, b.check_any) >= 1, operation.__name__


async def test_leaving_a_process() -> None:
    """Cancelled while `async with` waits for the close: the close goes on by itself."""
    async with bench() as b:
        async def operation() -> None:
            async with b.conn.create_process('x') as process:
                process.stdin.write('hello\n')
                await process.stdout.readline()

        assert await cancel_everywhere(operation, b.check_any) >= 2


async def test_sftp() -> None:
    async with bench() as b:
        async def start() -> None:
            sftp = await b.conn.start_sftp_client()
            sftp.exit()
            await sftp.wait_closed()

        async def use() -> None:
            async with b.conn.start_sftp_client() as sftp:
                await sftp.stat('/')
                async with sftp.open('/etc/hostname') as file:
                    await file.read()

        for operation in (start, use):
            assert await cancel_everywhere(operation, b.check_any) >= 2, operation.__name__


async def test_nothing_refers_to_a_cancelled_connection() -> None:
    """Its keys and its password go with it."""
    before = _connections()
    async with serving() as server:
        for steps in range(0, 30, 3):
            connecting = asyncio.ensure_future(_connect(server.port))
            for _ in range(steps):
                await asyncio.sleep(0)
            connecting.cancel()
            for result in await asyncio.gather(connecting, return_exceptions=True):
                if isinstance(result, ssh_fast.SSHClientConnection):
                    result.abort()
            del connecting, result
        await until(lambda: all(owner.conn.is_closed() for owner in server.made if owner.conn))
        assert not [one for one in _connections() if not any(one is other for other in before)]


def _connections() -> list[Any]:
    """List the client connections that anything refers to, those of other tests too."""
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, ssh_fast.SSHClientConnection)]


async def _connect(port: int) -> Any:
    return await ssh_fast.connect(LOOPBACK, port, **client_options())


@pytest.mark.parametrize('ending', ['cancelled', 'closed'])
async def test_the_socket_of_a_forwarded_agent(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that ends while the socket is being made leaves none, nor a folder."""
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))

    async def connect(factory: Any) -> None:
        raise AssertionError('nobody connects')

    def sockets() -> int:
        return sum(os.readlink(f'/proc/self/fd/{fd}').startswith('socket:') for fd in files())

    def files() -> list[str]:
        return [fd for fd in os.listdir('/proc/self/fd') if os.path.islink(f'/proc/self/fd/{fd}')]

    before = sockets()
    listener = AgentListener(connect, logging.getLogger('test'))
    starting = asyncio.ensure_future(listener.start())
    await asyncio.sleep(0)
    [folder] = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700 and not starting.done()
    if ending == 'cancelled':
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    else:
        listener.close()
        assert await starting is False
    await asyncio.sleep(0)
    assert (sockets(), list(tmp_path.iterdir()), listener.path) == (before, [], None)
    assert await listener.start()
    assert listener.path and os.stat(listener.path).st_mode & 0o777 == 0o600
    listener.close()
