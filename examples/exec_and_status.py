"""Run a command on a server, show its output while it runs, and end with its exit status.

    python examples/exec_and_status.py HOST COMMAND [--port 22] [--user NAME] [--key FILE] [--known-hosts FILE]

The status is 128 and the signal's number if a signal ended the command, 255 if the connection failed, as with `ssh`.
"""

import argparse
import asyncio
import sys
from typing import TextIO

import ssh_fast


async def show(reader: ssh_fast.SSHReader[str], stream: TextIO) -> None:
    while text := await reader.read(65536):
        stream.write(text)
        stream.flush()


async def run(options: argparse.Namespace) -> int:
    async with (
        ssh_fast.connect(
            options.host,
            options.port,
            username=options.user,
            client_keys=options.key,
            known_hosts=options.known_hosts,
        ) as conn,
        conn.create_process(options.command, stdin=ssh_fast.DEVNULL, errors='replace') as process,
    ):
        await asyncio.gather(show(process.stdout, sys.stdout), show(process.stderr, sys.stderr))
        await process.wait()

        if process.exit_signal:
            print(f'Ended by the signal {process.exit_signal[0]}', file=sys.stderr)

        status = process.returncode

    if status is None:
        return 255

    return status if status >= 0 else 128 - status


def main() -> int:
    parser = argparse.ArgumentParser(description='Run a command on a server and end with its exit status.')
    parser.add_argument('host')
    parser.add_argument('command')
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
