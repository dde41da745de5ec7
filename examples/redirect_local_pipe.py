"""Send the output of a command on this machine through one on a server, as `LOCAL | ssh HOST REMOTE`.

    python examples/redirect_local_pipe.py HOST LOCAL REMOTE [--port 22] [--user NAME] [--key FILE]
        [--known-hosts FILE]

Both run in a shell. The status is that of the command on the server.
"""

import argparse
import asyncio
import subprocess
import sys
from typing import IO

import ssh_fast


async def run(options: argparse.Namespace, source: IO[bytes]) -> int:
    async with ssh_fast.connect(
        options.host,
        options.port,
        username=options.user,
        client_keys=options.key,
        known_hosts=options.known_hosts,
    ) as conn:
        result = await conn.run(options.remote, stdin=source, encoding=None)

    sys.stdout.buffer.write(result.stdout)
    sys.stderr.buffer.write(result.stderr)

    return 255 if result.exit_status is None or result.exit_signal else result.exit_status


def main() -> int:
    parser = argparse.ArgumentParser(description='Send the output of a local command through one on a server.')
    parser.add_argument('host')
    parser.add_argument('local')
    parser.add_argument('remote')
    parser.add_argument('--port', type=int, default=22)
    # The empty tuple leaves an option to its default.
    parser.add_argument('--user', default=())
    parser.add_argument('--key', default=(), help='a private key to log in with')
    parser.add_argument('--known-hosts', default=(), help='the file of the servers to trust')
    options = parser.parse_args()

    try:
        # At the end of either side the pipe is closed, which ends the local command as in a shell.
        with subprocess.Popen(options.local, shell=True, stdout=subprocess.PIPE) as local:
            assert local.stdout

            return asyncio.run(run(options, local.stdout))
    except (OSError, ssh_fast.Error) as exc:
        print(f'Failed: {exc}', file=sys.stderr)

        return 255


if __name__ == '__main__':
    sys.exit(main())
