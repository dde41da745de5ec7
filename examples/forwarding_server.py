"""Serve clients that may connect to one port through us, have us listen on another, and are answered by us on port 7.

    python examples/forwarding_server.py --authorized-keys FILE [--open 80] [--listen 8080] [--port 8022]
        [--host-key FILE]

What goes to port 7 of any host is echoed by this program itself. Everything else is refused.
"""

import argparse
import asyncio
import contextlib
from typing import Any

import ssh_fast


async def echo(reader: ssh_fast.SSHReader[bytes], writer: ssh_fast.SSHWriter[bytes]) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()

    writer.close()


class Server(ssh_fast.SSHServer):
    def __init__(self, open_port: int, listen_port: int) -> None:
        self._open_port = open_port
        self._listen_port = listen_port

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
        return echo if dest_port == 7 else dest_port == self._open_port

    def server_requested(self, listen_host: str, listen_port: int) -> bool:
        return listen_port == self._listen_port


async def serve(options: argparse.Namespace) -> None:
    async with ssh_fast.listen(
        options.host,
        options.port,
        server_host_keys=[options.host_key or ssh_fast.generate_private_key('ssh-ed25519')],
        authorized_client_keys=options.authorized_keys,
        server_factory=lambda: Server(options.open, options.listen),
    ) as server:
        print(f'Listening on port {server.get_port()}', flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description='Serve clients that may forward some ports.')
    parser.add_argument('--host', default='127.0.0.1', help="the address to listen on; '' for all")
    parser.add_argument('--port', type=int, default=8022, help='0 for a free one')
    parser.add_argument('--host-key', help="a private key, as ssh-keygen makes it with -t ed25519 -N ''")
    parser.add_argument('--authorized-keys', required=True)
    parser.add_argument('--open', type=int, default=80, help='the port that clients may connect to')
    parser.add_argument('--listen', type=int, default=8080, help='the port that clients may have us listen on')

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == '__main__':
    main()
