"""Let `bc` on a server do sums, by streams: a line goes in, a line comes out.

    python examples/math_client.py HOST SUM... [--port 22] [--user NAME] [--key FILE] [--known-hosts FILE]
"""

import argparse
import asyncio
import sys

import ssh_fast


async def run(options: argparse.Namespace) -> None:
    async with (
        ssh_fast.connect(
            options.host,
            options.port,
            username=options.user,
            client_keys=options.key,
            known_hosts=options.known_hosts,
        ) as conn,
        # What is wrong with a sum comes as its result, so that every line has an answer.
        conn.create_process('bc', stderr=ssh_fast.STDOUT) as process,
    ):
        for sum_ in options.sums:
            process.stdin.write(f'{sum_}\n')
            result = await process.stdout.readline()
            print(f'{sum_} = {result}', end='')

        process.stdin.write_eof()
        await process.wait(check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description='Let bc on a server do sums, by streams.')
    parser.add_argument('host')
    parser.add_argument('sums', nargs='+', metavar='sum')
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
