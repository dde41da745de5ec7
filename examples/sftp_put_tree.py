"""Upload a directory with all below it; what cannot be uploaded is named, and the rest goes on.

    python examples/sftp_put_tree.py HOST LOCAL REMOTE [--port 22] [--user NAME] [--key FILE] [--known-hosts FILE]

If REMOTE is a directory, LOCAL becomes one in it. Permissions and times are kept; links are uploaded as links.
"""

import argparse
import asyncio
import os
import sys

import ssh_fast


async def run(options: argparse.Namespace) -> int:
    failed = 0

    def note(exc: Exception) -> None:
        nonlocal failed

        failed += 1
        print(f'{os.fsdecode(getattr(exc, "srcpath", b""))}: {exc}', file=sys.stderr)

    async with (
        ssh_fast.connect(
            options.host,
            options.port,
            username=options.user,
            client_keys=options.key,
            known_hosts=options.known_hosts,
        ) as conn,
        conn.start_sftp_client() as sftp,
    ):
        await sftp.put(options.local, options.remote, recurse=True, preserve=True, error_handler=note)

    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description='Upload a directory with all below it.')
    parser.add_argument('host')
    parser.add_argument('local')
    parser.add_argument('remote')
    parser.add_argument('--port', type=int, default=22)
    # The empty tuple leaves an option to its default.
    parser.add_argument('--user', default=())
    parser.add_argument('--key', default=(), help='a private key to log in with')
    parser.add_argument('--known-hosts', default=(), help='the file of the servers to trust')

    try:
        failed = asyncio.run(run(parser.parse_args()))
    except (OSError, ssh_fast.Error) as exc:
        print(f'Failed: {exc}', file=sys.stderr)

        return 1

    if failed:
        print(f'{failed} could not be uploaded', file=sys.stderr)

    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
