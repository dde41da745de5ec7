"""One end of a measurement of forwarding, by a library with AsyncSSH's API, as a process of its own.

    python -m benchmarks.forward_worker server MODULE OPTIONS    prints its port; serves until its input ends
    python -m benchmarks.forward_worker client MODULE OPTIONS    prints the port that leads to `target`, of its own or,
                                                                 with `remote`, of the server; until its input ends
    python -m benchmarks.forward_worker target - {}              prints the port of what connections are to lead to

OPTIONS is JSON: {"port", "loop", "listen": {...}} or {"port", "loop", "connect": {...}, "target", "remote"}.

The target is told by the first byte what to do: `w` takes everything and answers with how much it was, `r` and a length
sends so much, `e` sends back what comes.
"""

import asyncio
import json
import os
import socket
import sys
import threading
from importlib import import_module
from typing import Any

from benchmarks.worker import run, say

PIECE = 1 << 20


async def input_ended() -> None:
    """Wait for the end of the standard input, which nothing is ever written to."""

    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())


async def serve(module: Any, options: dict[str, Any]) -> None:
    class Server(module.SSHServer):    # type: ignore[misc]
        def connection_requested(self, *args: Any) -> bool:
            return True

        def server_requested(self, *args: Any) -> bool:
            return True

    acceptor = await module.listen('127.0.0.1', options['port'], server_factory=Server, **options['listen'])
    say(str(acceptor.get_port()))
    await input_ended()
    acceptor.close()


async def forward(module: Any, options: dict[str, Any]) -> None:
    async with module.connect('127.0.0.1', options['port'], **options['connect']) as connection:
        listen = connection.forward_remote_port if options['remote'] else connection.forward_local_port
        listener = await listen('127.0.0.1', 0, '127.0.0.1', options['target'])
        say(str(listener.get_port()))
        await input_ended()


# --- what connections lead to

def answer(connection: socket.socket) -> None:
    """Do what the first byte says."""

    buffer = bytearray(PIECE)

    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        word = connection.recv(1)

        if word == b'w':
            received = 0

            while count := connection.recv_into(buffer):
                received += count

            connection.sendall(received.to_bytes(8, 'big'))
        elif word == b'r':
            left = int.from_bytes(connection.recv(8), 'big')

            while left:
                sent = min(left, PIECE)
                connection.sendall(memoryview(buffer)[:sent])
                left -= sent
        elif word == b'e':
            while count := connection.recv_into(buffer):
                connection.sendall(memoryview(buffer)[:count])


def be_target() -> None:
    with socket.create_server(('127.0.0.1', 0), backlog=1024) as listener:
        say(str(listener.getsockname()[1]))
        threading.stack_size(256 * 1024)    # there may be thousands of connections

        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


if __name__ == '__main__':
    role, name, text = sys.argv[1:]
    given = json.loads(text)

    if role == 'target':
        threading.Thread(target=be_target, daemon=True).start()
        sys.stdin.read()
    else:
        run((serve if role == 'server' else forward)(import_module(name), given), given['loop'])

    sys.stdout.flush()
    os._exit(0)
