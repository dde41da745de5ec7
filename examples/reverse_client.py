"""Wait for servers that connect to this client, and run a command on each; `reverse_server.py` is one.

    python examples/reverse_client.py COMMAND --known-hosts FILE [--port 8022] [--user NAME] [--key FILE]

Servers are known by the address that they come from: `* ssh-ed25519 ...` in that file trusts a key wherever it is.
"""

import argparse
import asyncio
import contextlib
import sys

import ssh_fast


async def serve(options: argparse.Namespace) -> None:
    async def run_command(conn: ssh_fast.SSHClientConnection) -> None:
        result = await conn.run(options.command)
        print(result.stdout, end='', flush=True)
        print(f'Exit status {result.exit_status}', flush=True)
        conn.close()

    def report(conn: ssh_fast.SSHClientConnection, exc: Exception | None) -> None:
        print(f'A server was refused: {exc}', file=sys.stderr)

    async with ssh_fast.listen_reverse(
        options.host,
        options.port,
        username=options.user,
        client_keys=options.key,
        known_hosts=options.known_hosts,
        acceptor=run_command,
        error_handler=report,
    ) as acceptor:
        print(f'Listening on port {acceptor.get_port()}', flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description='Run a command on each server that connects.')
    parser.add_argument('command')
    parser.add_argument('--host', default='127.0.0.1', help="the address to listen on; '' for all")
    parser.add_argument('--port', type=int, default=8022, help='0 for a free one')
    # The empty tuple leaves an option to its default.
    parser.add_argument('--user', default=())
    parser.add_argument('--key', default=(), help='a private key to log in with')
    parser.add_argument('--known-hosts', required=True, help='the file of the servers to trust')

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == '__main__':
    main()
