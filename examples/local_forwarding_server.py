"""Serve clients that may connect to port 80 of any host through us, and nothing else: `ssh -L` with a limit.

    python examples/local_forwarding_server.py --authorized-keys FILE [--open 80] [--port 8022] [--host-key FILE]
"""

import argparse
import asyncio
import contextlib

import ssh_fast


class Server(ssh_fast.SSHServer):
    def __init__(self, open_port: int) -> None:
        self._open_port = open_port

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        return dest_port == self._open_port



async def serve(options: argparse.Namespace) -> None:
    async with ssh_fast.listen(
        options.host,
        options.port,
        server_host_keys=[options.host_key or ssh_fast.generate_private_key('ssh-ed25519')],
        authorized_client_keys=options.authorized_keys,
        server_factory=lambda: Server(options.open),
    ) as server:
        print(f'Listening on port {server.get_port()}', flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description='Serve clients that may connect to one port.')
    parser.add_argument('--host', default='127.0.0.1', help="the address to listen on; '' for all")
    parser.add_argument('--port', type=int, default=8022, help='0 for a free one')
    parser.add_argument('--host-key', help="a private key, as ssh-keygen makes it with -t ed25519 -N ''")
    parser.add_argument('--authorized-keys', required=True)
    parser.add_argument('--open', type=int, default=80, help='the port that clients may connect to')

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == '__main__':
    main()
