"""One end of a measured transfer by a library with AsyncSSH's API, as a process of its own.

    python -m benchmarks.worker server MODULE OPTIONS    prints its port; serves until its standard input ends
    python -m benchmarks.worker client MODULE OPTIONS    prints `ready`; then for each line of JSON with `direction`,
                                                         `remote`, `local` one transfer and `done`, until the input ends

OPTIONS is JSON: {"port", "loop", "listen": {...}} or {"port", "loop", "connect": {...}, "transfer": {...}}.
"""

import asyncio
import json
import os
import sys
from collections.abc import Coroutine
from importlib import import_module
from typing import Any


def say(words: str) -> None:
    print(words, flush=True)


async def serve(module: Any, options: dict[str, Any]) -> None:
    acceptor = await module.listen('127.0.0.1', options['port'], **options['listen'])
    ended = asyncio.Event()
    # Nothing is ever written to the server's standard input: it becomes readable when it ends.
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    say(str(acceptor.get_port()))
    await ended.wait()
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    acceptor.close()


async def transfer(module: Any, options: dict[str, Any]) -> None:
    async with (
        module.connect('127.0.0.1', options['port'], **options['connect']) as connection,
        connection.start_sftp_client() as sftp,
    ):
        say('ready')

        # Reading stops the loop: what waits is the whole program.
        while line := sys.stdin.readline():
            job = json.loads(line)

            if job['direction'] == 'get':
                await sftp.get(job['remote'], job['local'], **options['transfer'])
            else:
                await sftp.put(job['local'], job['remote'], **options['transfer'])

            say('done')


def run(coroutine: Coroutine[Any, Any, None], loop: str) -> None:
    if loop == 'uvloop':
        import_module('uvloop').run(coroutine)
    else:
        asyncio.run(coroutine)


if __name__ == '__main__':
    role, name, text = sys.argv[1:]
    given = json.loads(text)
    run((serve if role == 'server' else transfer)(import_module(name), given), given['loop'])
    sys.stdout.flush()
    os._exit(0)    # what an interpreter frees at its end belongs to no transfer
