"""Run a command with environment variables, given here as NAME=VALUE or taken from this program's environment.

    python examples/set_environment.py HOST COMMAND [--set NAME=VALUE]... [--send NAME]... [--port 22] [--user NAME]
        [--key FILE] [--known-hosts FILE]

A server takes only the names that it allows: with OpenSSH's sshd, those that its AcceptEnv lists.
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
        result = await conn.run(options.command, env=options.set, send_env=options.send, check=True)
        print(result.stdout, end='')


def main() -> int:
    parser = argparse.ArgumentParser(description='Run a command with environment variables.')
    parser.add_argument('host')
    parser.add_argument('command')
    parser.add_argument('--set', action='append', default=[], metavar='NAME=VALUE')
    parser.add_argument('--send', action='append', default=[], metavar='NAME', help='may have * and ? in it')
    parser.add_argument('--port', type=int, default=22)
    # The empty tuple leaves an option to its default.
    parser.add_argument('--user', default=())
    parser.add_argument('--key', default=(), help='a private key to log in with')
    parser.add_argument('--known-hosts', default=(), help='the file of the servers to trust')

    try:
        asyncio.run(run(parser.parse_args()))
    except (OSError, ValueError, ssh_fast.Error) as exc:
        print(f'Failed: {exc}', file=sys.stderr)

        return 1

    return 0


if __name__ == '__main__':
    sys.exit(main())
