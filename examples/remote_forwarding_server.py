"""Serve clients that may have us listen on port 8080 of this machine, and nothing else: `ssh -R` with a limit.

    python examples/remote_forwarding_server.py --authorized-keys FILE [--listen 8080] [--port 8022] [--host-key FILE]

Only this machine reaches that port, whatever address a client names.
"""

import argparse
import asyncio
import contextlib

import ssh_fast


class Server(ssh_fast.SSHServer):
    def __init__(self, listen_port: int) -> None:
        self._listen_port = listen_port

    def server_requested(self, listen_host: str, listen_port: int) -> bool:
        return listen_port == self._listen_port



async def serve(options: argparse.Namespace) -> None:
    async with ssh_fast.listen(
        options.host,
        options.port,
        server_host_keys=[options.host_key or ssh_fast.generate_private_key('ssh-ed25519')],
        authorized_client_keys=options.authorized_keys,
        server_factory=lambda: Server(options.listen),
        gateway_ports='no',
    ) as server:
        print(f'Listening on port {server.get_port()}', flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description='Serve clients that may have us listen on one port.')
    parser.add_argument('--host', default='127.0.0.1', help="the address to listen on; '' for all")
    parser.add_argument('--port', type=int, default=8022, help='0 for a free one')
    parser.add_argument('--host-key', help="a private key, as ssh-keygen makes it with -t ed25519 -N ''")
    parser.add_argument('--authorized-keys', required=True)
    parser.add_argument('--listen', type=int, default=8080, help='the port that clients may have us listen on')

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == '__main__':
    main()
