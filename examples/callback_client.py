"""Run a command on a server by callbacks: one object hears of the connection, another one of the session.

    python examples/callback_client.py HOST COMMAND [--port 22] [--user NAME] [--key FILE] [--known-hosts FILE]
"""

import argparse
import asyncio
import sys

import ssh_fast


class Client(ssh_fast.SSHClient):
    """Tells how far the connection has come."""

    def connection_made(self, conn: ssh_fast.SSHClientConnection) -> None:
        print(f'Connected to {conn.get_extra_info("peername")[0]}', file=sys.stderr)

    def auth_completed(self) -> None:
        print('Logged in', file=sys.stderr)


class Session(ssh_fast.SSHClientSession[str]):
    """Prints the output as it comes."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def data_received(self, data: str, datatype: int | None) -> None:
        print(data, end='', file=sys.stderr if datatype == ssh_fast.EXTENDED_DATA_STDERR else sys.stdout)

    def exit_status_received(self, status: int) -> None:
        print(f'Exit status {status}', file=sys.stderr)

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc


async def run(options: argparse.Namespace) -> None:
    conn, _client = await ssh_fast.create_connection(
        Client,
        options.host,
        options.port,
        username=options.user,
        client_keys=options.key,
        known_hosts=options.known_hosts,
    )

    async with conn:
        channel, session = await conn.create_session(Session, options.command)
        await channel.wait_closed()

    if session.error:
        raise session.error


def main() -> int:
    parser = argparse.ArgumentParser(description='Run a command on a server by callbacks.')
    parser.add_argument('host')
    parser.add_argument('command')
    parser.add_argument('--port', type=int, default=22)
    # The empty tuple leaves an option to its default.
    parser.add_argument('--user', default=())
    parser.add_argument('--key', default=(), help='a private key to log in with')
    parser.add_argument('--known-hosts', default=(), help='the file of the servers to trust')

    try:
        asyncio.run(run(parser.parse_args()))
    except (OSError, ssh_fast.Error) as exc:
        print(f'Failed: {exc}', file=sys.stderr)

        return 1

    return 0


if __name__ == '__main__':
    sys.exit(main())
