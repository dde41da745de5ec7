"""Run one command on several servers at once, and show the results in their order; a server that fails is named.

    python examples/gather_results.py COMMAND HOST[:PORT]... [--user NAME] [--key FILE] [--known-hosts FILE]
"""

import argparse
import asyncio
import sys

import ssh_fast


async def run_on(address: str, options: argparse.Namespace) -> ssh_fast.SSHCompletedProcess:
    host, _, port = address.partition(':')

    async with ssh_fast.connect(
        host,
        int(port or 22),
        username=options.user,
        client_keys=options.key,
        known_hosts=options.known_hosts,
    ) as conn:
        return await conn.run(options.command, timeout=options.timeout)


async def run(options: argparse.Namespace) -> int:
    """Return how many failed."""

    results = await asyncio.gather(*(run_on(host, options) for host in options.hosts), return_exceptions=True)
    failed = 0

    for host, result in zip(options.hosts, results, strict=True):
        if isinstance(result, OSError | ssh_fast.Error):
            print(f'{host}: {result}', file=sys.stderr)
            failed += 1
        elif isinstance(result, BaseException):
            raise result
        else:
            failed += result.exit_status != 0
            print(f'{host}: status {result.exit_status}\n{result.stdout}', end='')

    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description='Run one command on several servers at once.')
    parser.add_argument('command')
    parser.add_argument('hosts', nargs='+', metavar='host')
    parser.add_argument('--timeout', type=float, default=60, help='in seconds, for the command')
    # The empty tuple leaves an option to its default.
    parser.add_argument('--user', default=())
    parser.add_argument('--key', default=(), help='a private key to log in with')
    parser.add_argument('--known-hosts', default=(), help='the file of the servers to trust')

    return 1 if asyncio.run(run(parser.parse_args())) else 0


if __name__ == '__main__':
    sys.exit(main())
