"""Run one command on a server and print what it wrote.

    python examples/simple_client.py HOST COMMAND [--port 22] [--user NAME] [--key FILE] [--known-hosts FILE]

What is not given is as OpenSSH's `ssh` has it: your name, your keys and agent, your known_hosts.
"""

import argparse
import asyncio
import sys

import ssh_fast


async def run(options: argparse.Namespace) -> None:
    async with ssh_fast.connect(
        options.host,
        options.port,
        username=options.user,
        client_keys=options.key,
        known_hosts=options.known_hosts,
    ) as conn:
        result = await conn.run(options.command, check=True)
        print(result.stdout, end='')


def main() -> int:
    parser = argparse.ArgumentParser(description='Run one command on a server and print what it wrote.')
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
