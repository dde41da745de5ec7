"""Run a command whose input and output are files on this machine.

    python examples/redirect_file.py HOST COMMAND [--input FILE] [--output FILE] [--port 22] [--user NAME] [--key FILE]
        [--known-hosts FILE]

With `encoding=None` the content is bytes, which go between file and connection as they are. What is not redirected to a
file is shown at the end.
"""

import argparse
import asyncio
import sys
from pathlib import Path

import ssh_fast


async def run(options: argparse.Namespace) -> int:
    async with ssh_fast.connect(
        options.host,
        options.port,
        username=options.user,
        client_keys=options.key,
        known_hosts=options.known_hosts,
    ) as conn:
        result = await conn.run(
            options.command,
            stdin=options.input or ssh_fast.DEVNULL,
            stdout=options.output or ssh_fast.PIPE,
            encoding=None,
        )

    sys.stdout.buffer.write(result.stdout)
    sys.stderr.buffer.write(result.stderr)

    return 255 if result.exit_status is None or result.exit_signal else result.exit_status


def main() -> int:
    parser = argparse.ArgumentParser(description='Run a command whose input and output are files on this machine.')
    parser.add_argument('host')
    parser.add_argument('command')
    parser.add_argument('--input', type=Path, metavar='FILE')
    parser.add_argument('--output', type=Path, metavar='FILE')
    parser.add_argument('--port', type=int, default=22)
    # The empty tuple leaves an option to its default.
    parser.add_argument('--user', default=())
    parser.add_argument('--key', default=(), help='a private key to log in with')
    parser.add_argument('--known-hosts', default=(), help='the file of the servers to trust')

    try:
        return asyncio.run(run(parser.parse_args()))
    except (OSError, ssh_fast.Error) as exc:
        print(f'Failed: {exc}', file=sys.stderr)

        return 255


if __name__ == '__main__':
    sys.exit(main())
