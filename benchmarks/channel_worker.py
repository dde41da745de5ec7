"""One end of a measurement of channels, by a library with AsyncSSH's API, as a process of its own.

    python -m benchmarks.channel_worker server MODULE OPTIONS    prints its port; serves until its input ends
    python -m benchmarks.channel_worker client MODULE OPTIONS    prints `ready`; then for each line of JSON with the
                                                                 `work` and its arguments `done` and what was measured

OPTIONS is JSON: {"port", "loop", "listen": {...}} or {"port", "loop", "connect": {...}}.
"""

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.worker import run, say

MIB = 1 << 20
PIECE = 1 << 20    # bytes that a stream is asked for, or given, at once


def open_unbuffered(path: str, mode: str) -> Any:
    """Open a file that exists, in memory as a rule, so nobody waits for it."""

    return open(path, mode, buffering=0)


# --- the server

async def handle(process: Any) -> None:
    """Do what the command says: what a server by `process_factory` would do."""

    word, _, path = (process.command or '').partition(' ')

    if word == 'true':
        process.exit(0)
    elif word == 'echo':
        process.stdout.write(await process.stdin.readline())
        process.exit(0)
    elif word == 'send':
        await process.redirect(stdout=path)
        await process.stdout.drain()
        process.exit(0)
    elif word == 'keep':
        with open_unbuffered(path, 'r+b') as target:
            await process.redirect(stdin=target)
            await input_written(process)

        process.exit(0)
    elif word == 'memory':
        process.stdout.write(f'{resident()}\n'.encode())
        process.exit(0)
    else:
        process.exit(127)


async def input_written(process: Any) -> None:
    """Wait until the redirected input has ended, and is in its file."""

    if hasattr(process, 'wait_for_redirections'):
        await process.wait_for_redirections()
        return

    # AsyncSSH has no word for it, and writes what it has taken at once.
    while not process.stdin.at_eof():    # noqa: ASYNC110 (it has no event either)
        await asyncio.sleep(0.005)


async def serve(module: Any, options: dict[str, Any]) -> None:
    acceptor = await module.listen(
        '127.0.0.1', options['port'], process_factory=handle, encoding=None, **options['listen']
    )
    ended = asyncio.Event()
    # Nothing is ever written to the server's standard input: it becomes readable when it ends.
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    say(str(acceptor.get_port()))
    await ended.wait()
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    acceptor.close()


def resident() -> int:
    """Return the resident memory of this process now, in bytes; its peak where there is no /proc."""

    try:
        pages = int(Path('/proc/self/statm').read_text().split()[1])
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    return pages * os.sysconf('SC_PAGE_SIZE')


# --- the client's works: each takes what it needs of the job, and returns what it measured beside the times

class Client:
    """The works of a client; `connection` is there unless the work is connecting."""

    def __init__(self, module: Any, options: dict[str, Any]) -> None:
        self.module = module
        self.options = options
        self.connection: Any = None

    async def receive(self, path: str) -> dict[str, Any]:
        """Read the output of `cat`, in bytes."""

        received = 0

        async with self.connection.create_process(f'cat {path}', encoding=None) as process:
            while data := await process.stdout.read(PIECE):
                received += len(data)

        return {'bytes': received}

    async def send(self, path: str, remote: str = '/dev/null') -> dict[str, Any]:
        """Write a file to the input of `cat`, in bytes."""

        sent = 0

        with open_unbuffered(path, 'rb') as source:
            async with self.connection.create_process(f'cat > {remote}', encoding=None) as process:
                while data := source.read(PIECE):
                    process.stdin.write(data)
                    await process.stdin.drain()
                    sent += len(data)

                process.stdin.write_eof()
                await process.wait()

        return {'bytes': sent}

    async def receive_file(self, command: str, target: str) -> dict[str, Any]:
        """Redirect the output of a command into a file that exists."""

        with open_unbuffered(target, 'r+b') as stream:
            await self.connection.run(command, stdout=stream, encoding=None, check=True)

        return {}

    async def send_file(self, command: str, source: str) -> dict[str, Any]:
        """Redirect the input of a command from a file."""

        await self.connection.run(command, stdin=source, encoding=None, check=True)

        return {}

    async def run(self, count: int, at_once: int, command: str = 'true') -> dict[str, Any]:
        """Run a command so many times."""

        async def one(number: int) -> None:
            result = await self.connection.run(command)
            assert result.exit_status == 0

        await repeat(one, count, at_once)

        return {}

    async def lines(self, path: str, text: bool, way: str) -> dict[str, Any]:
        """Read lines one by one, by iteration or by `readline`."""

        count = 0
        options = {} if text else {'encoding': None}

        async with self.connection.create_process(f'cat {path}', **options) as process:
            if way == 'iterate':
                async for _ in process.stdout:
                    count += 1
            else:
                while await process.stdout.readline():
                    count += 1

        return {'lines': count}

    async def channels(self, count: int, at_once: int, rounds: int) -> dict[str, Any]:
        """Open, use and close channels, `count` a round and `at_once` of them open together."""

        line = b'0123456789' * 9 + b'\n'

        async def one(number: int, all_open: Awaitable[Any]) -> None:
            async with self.connection.create_process('echo', encoding=None) as process:
                await all_open
                process.stdin.write(line)
                assert await process.stdout.readline() == line

        times, memory = [], []

        for _ in range(rounds):
            began = time.perf_counter()

            for _ in range(count // at_once):
                barrier = asyncio.Barrier(at_once)
                await asyncio.gather(*(one(number, barrier.wait()) for number in range(at_once)))

            times.append(time.perf_counter() - began)
            far = await self.connection.run('memory', encoding=None)
            memory.append([resident() / MIB, int(far.stdout) / MIB])

        return {'times': times, 'memory': memory}

    async def connect(self, count: int, at_once: int) -> dict[str, Any]:
        """Connect, log in, run one command and close, so many times."""

        async def one(number: int) -> None:
            async with open_connection(self.module, self.options) as connection:
                result = await connection.run('true')
                assert result.exit_status == 0

        await repeat(one, count, at_once)

        return {}


async def repeat(one: Callable[[int], Awaitable[None]], count: int, at_once: int) -> None:
    """Do something `count` times, `at_once` at a time."""

    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(some() for _ in range(at_once)))


@asynccontextmanager
async def open_connection(module: Any, options: dict[str, Any]) -> AsyncIterator[Any]:
    async with module.connect('127.0.0.1', options['port'], **options['connect']) as connection:
        yield connection


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)

    return usage.ru_utime + usage.ru_stime


async def work(module: Any, options: dict[str, Any]) -> None:
    client = Client(module, options)

    async def obey() -> None:
        say('ready')

        # Reading stops the loop: what waits is the whole program.
        while line := sys.stdin.readline():
            job = json.loads(line)
            method = getattr(client, job.pop('work'))
            began, cpu_before = time.perf_counter(), cpu()
            result = await method(**job)
            result |= {'wall': time.perf_counter() - began, 'cpu': cpu() - cpu_before}
            say('done ' + json.dumps(result))

    if options['connected']:
        async with open_connection(module, options) as client.connection:
            await obey()
    else:
        await obey()


if __name__ == '__main__':
    role, name, text = sys.argv[1:]
    given = json.loads(text)
    run((serve if role == 'server' else work)(import_module(name), given), given['loop'])
    sys.stdout.flush()
    os._exit(0)    # what an interpreter frees at its end belongs to no work
