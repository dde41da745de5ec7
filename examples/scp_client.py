"""Copy files to and from servers by SCP; names of servers stand before a colon, as in `host:path`.

    python examples/scp_client.py SOURCE... TARGET [--recurse] [--port 22] [--user NAME] [--key FILE]
        [--known-hosts FILE]

Of several sources, or of patterns such as `host:*.log`, each goes into the directory TARGET.
"""

import argparse
import asyncio
import os
import sys

import ssh_fast


async def run(options: argparse.Namespace) -> None:
    await ssh_fast.scp(
        options.source,
        options.target,
        preserve=True,
        recurse=options.recurse,
        port=options.port,
        username=options.user,
        client_keys=options.key,
        known_hosts=options.known_hosts,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description='Copy files to and from servers by SCP.')
    parser.add_argument('source', nargs='+')
    parser.add_argument('target')
    parser.add_argument('--recurse', action='store_true', help='copy directories with all that is in them')
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
