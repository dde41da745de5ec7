"""Proxy commands: programs whose standard input and output lead to the server, and that end with the connection."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from ..logging import logger
from .connection import SSHConnection

# How long a program may take to end after its connection has, before it is killed
_GRACE = 2.0


ConnectionT = TypeVar('ConnectionT', bound=SSHConnection)

# The loop keeps only weak references to tasks.
_watchers: set[asyncio.Task[None]] = set()


async def dial_command(factory: Callable[[], ConnectionT], command: Sequence[str]) -> ConnectionT:
    """Run a program, without a shell, and return the protocol that `factory` makes for its input and output.

    What it writes to its standard error goes where ours goes. It is ended when the connection is.

    Raises:
      OSError: it cannot be run
    """

    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()

    try:
        try:
            process = await asyncio.create_subprocess_exec(*command, stdin=theirs.fileno(), stdout=theirs.fileno())
        except OSError as exc:
            raise type(exc)(exc.errno, f'Cannot run the proxy command {command[0]}: {exc.strerror or exc}') from exc
        finally:
            theirs.close()

        try:
            ours.setblocking(False)
            _, protocol = await loop.create_connection(factory, sock=ours)
        except BaseException:
            await asyncio.shield(_end(process))
            raise
    except BaseException:
        ours.close()
        raise

    watcher = loop.create_task(_watch(process, protocol))
    _watchers.add(watcher)
    watcher.add_done_callback(_watchers.discard)

    return protocol


async def _watch(process: asyncio.subprocess.Process, connection: SSHConnection) -> None:
    """End the program with the connection; the other way round, the connection sees the end of its input."""

    try:
        await connection.wait_closed()
    finally:
        await asyncio.shield(_end(process))


async def _end(process: asyncio.subprocess.Process) -> None:
    """Have a program end, and take its status from the system."""

    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()

        try:
            async with asyncio.timeout(_GRACE):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()

            await process.wait()

    logger.debug('The proxy command ended with status %s', process.returncode)
