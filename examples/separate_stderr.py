"""Run a command and keep what it wrote to its two outputs apart, each in the order in which it came.

    python examples/separate_stderr.py HOST COMMAND [--port 22] [--user NAME] [--key FILE] [--known-hosts FILE]
"""

import argparse
import asyncio
import sys

import ssh_fast


async def show(name: str, reader: ssh_fast.SSHReader[str]) -> None:
    async for line in reader:
        print(f'{name}: {line}', end='' if line.endswith('\n') else '\n', flush=True)


async def run(options: argparse.Namespace) -> None:
    async with ssh_fast.connect(
        options.host,
        options.port,
        username=options.user,
        client_keys=options.key,
        known_hosts=options.known_hosts,
    ) as conn:
        stdin, stdout, stderr = await conn.open_session(options.command)
        stdin.write_eof()
        # Both are read at once: one that nobody reads would stop the command when its window is full.
        await asyncio.gather(show('output', stdout), show('error', stderr))


def main() -> int:
    parser = argparse.ArgumentParser(description='Run a command and keep its two outputs apart.')
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
