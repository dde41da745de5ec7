"""Download files from a server, with their progress.

    python examples/sftp_get.py HOST REMOTE... LOCAL [--port 22] [--user NAME] [--key FILE] [--known-hosts FILE]

LOCAL is a file, or a directory for the files to go to.
"""

import argparse
import asyncio
import os
import sys

import ssh_fast


def show(source: bytes, target: bytes, done: int, total: int) -> None:
    print(f'\r{os.fsdecode(source)}: {done} of {total} bytes', end='\n' if done == total else '', file=sys.stderr)


async def run(options: argparse.Namespace) -> None:
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
        remote = options.remote[0] if len(options.remote) == 1 else options.remote
        await sftp.get(remote, options.local, preserve=True, progress_handler=show)


def main() -> int:
    parser = argparse.ArgumentParser(description='Download files from a server, with their progress.')
    parser.add_argument('host')
    parser.add_argument('remote', nargs='+')
    parser.add_argument('local')
    parser.add_argument('--port', type=int, default=22)
    # The empty tuple leaves an option to its default.
    parser.add_argument('--user', default=())
    parser.add_argument('--key', default=(), help='a private key to log in with')
    parser.add_argument('--known-hosts', default=(), help='the file of the servers to trust')

    try:
        asyncio.run(run(parser.parse_args()))
    except ssh_fast.SFTPError as exc:
        print(f'Failed: {os.fsdecode(exc.srcpath or b"")}: {exc}', file=sys.stderr)

        return 1
    except (OSError, ssh_fast.Error) as exc:
        print(f'Failed: {exc}', file=sys.stderr)

        return 1

    return 0


if __name__ == '__main__':
    sys.exit(main())
