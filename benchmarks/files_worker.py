"""The client of a measurement of many files, by a library with AsyncSSH's API, as a process of its own.

    python -m benchmarks.files_worker client MODULE OPTIONS    prints `ready`; then for each line of JSON with the
                                                               `work` and its arguments `done` and what was measured

OPTIONS is JSON: {"port", "loop", "connect": {...}}. The server is that of worker.py.
"""

import asyncio
import json
import os
import random
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

from benchmarks.worker import run, say

READ_SIZE = 4096


async def at_once(count: int, many: int, work: Callable[[int], Awaitable[Any]]) -> None:
    """Do a work `count` times, `many` at once."""

    numbers = iter(range(count))

    async def lane() -> None:
        for number in numbers:
            await work(number)

    await asyncio.gather(*(lane() for _ in range(many)))


class Client:
    """The works of a client; each returns what it measured beside the times."""

    def __init__(self, sftp: Any) -> None:
        self._sftp = sftp

    async def get(self, remote: str, local: str, recurse: bool) -> dict[str, Any]:
        """Download a file or tree."""

        await self._sftp.get(remote, local, recurse=recurse)

        return {}

    async def put(self, remote: str, local: str, recurse: bool) -> dict[str, Any]:
        """Upload a file or tree."""

        await self._sftp.put(local, remote, recurse=recurse)

        return {}

    async def scandir(self, remote: str) -> dict[str, Any]:
        """List a directory with the attributes of its entries."""

        return {'entries': sum([1 async for _ in self._sftp.scandir(remote)]), 'peak': peak()}

    async def rmtree(self, remote: str) -> dict[str, Any]:
        """Remove a tree."""

        await self._sftp.rmtree(remote)

        return {}

    async def stat(self, remote: str, count: int, many: int) -> dict[str, Any]:
        """Ask for the attributes of a file, again and again."""

        await at_once(count, many, lambda number: self._sftp.stat(remote))

        return {}

    async def read_random(self, remote: str, count: int, many: int, size: int) -> dict[str, Any]:
        """Read pieces of a file at random places."""

        rng = random.Random(1)
        places = [rng.randrange(size - READ_SIZE) for _ in range(count)]

        async with self._sftp.open(remote, 'rb', block_size=None) as file:
            async def read(number: int) -> None:
                if len(await file.read(READ_SIZE, places[number])) != READ_SIZE:
                    raise EOFError(f'{remote} ended early')

            await at_once(count, many, read)

        return {}


def peak() -> int:
    """Return the peak of this process's resident memory, in bytes."""

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def work(module: Any, options: dict[str, Any]) -> None:
    async with (
        module.connect('127.0.0.1', options['port'], **options['connect']) as connection,
        connection.start_sftp_client() as sftp,
    ):
        client = Client(sftp)
        say('ready')

        # Reading stops the loop: what waits is the whole program.
        while line := sys.stdin.readline():
            job = json.loads(line)
            began, cpu = time.perf_counter(), sum(os.times()[:2])
            found = await getattr(client, job.pop('work'))(**job)
            found |= {'wall': time.perf_counter() - began, 'cpu': sum(os.times()[:2]) - cpu}
            say(f'done {json.dumps(found)}')


if __name__ == '__main__':
    given = json.loads(sys.argv[3])
    run(work(import_module(sys.argv[2]), given), given['loop'])
