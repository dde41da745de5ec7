"""Send the output of a command on a server through another one on the same or a second server, by way of this program.

    python examples/redirect_remote_pipe.py HOST[:PORT] COMMAND HOST[:PORT] COMMAND [--user NAME] [--key FILE]
        [--known-hosts FILE]

A second command that is slow stops the first one: between them wait no more than two windows.
"""

import argparse
import asyncio
import sys
from typing import Any

import ssh_fast


def connect(address: str, options: argparse.Namespace) -> Any:
    host, _, port = address.partition(':')

    return ssh_fast.connect(
        host,
        int(port or 22),
        username=options.user,
        client_keys=options.key,
        known_hosts=options.known_hosts,
    )


async def run(options: argparse.Namespace) -> int:
    async with (
        connect(options.first_host, options) as first_conn,
        connect(options.second_host, options) as second_conn,
        first_conn.create_process(options.first_command, encoding=None, stdin=ssh_fast.DEVNULL) as first,
    ):
        result = await second_conn.run(options.second_command, encoding=None, stdin=first.stdout)
        sys.stdout.buffer.write(result.stdout)
        sys.stderr.buffer.write(result.stderr)

        return result.exit_status or 0


def main() -> int:
    parser = argparse.ArgumentParser(description='Send the output of a command on a server through another one.')
    parser.add_argument('first_host')
    parser.add_argument('first_command')
    parser.add_argument('second_host')
    parser.add_argument('second_command')
    # The empty tuple leaves an option to its default.
    parser.add_argument('--user', default=())
    parser.add_argument('--key', default=(), help='a private key to log in with')
    parser.add_argument('--known-hosts', default=(), help='the file of the servers to trust')

    try:
        return asyncio.run(run(parser.parse_args()))
    except (OSError, ssh_fast.Error) as exc:
        print(f'Failed: {exc}', file=sys.stderr)

        return 1


if __name__ == '__main__':
    sys.exit(main())
