"""Have the server listen on a port, and decide about each connection: `ssh -R` with a choice.

    python examples/choosing_forwarding_client.py HOST DEST_HOST DEST_PORT [--from ADDRESS] [--listen PORT] [--port 22]
        [--user NAME] [--key FILE] [--known-hosts FILE]

Who comes from that address is connected to a port from here, all others are refused. The port that the server listens
on is printed; Ctrl-C ends it all.
"""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Awaitable

import ssh_fast


async def run(options: argparse.Namespace) -> None:
    async with ssh_fast.connect(
        options.host,
        options.port,
        username=options.user,
        client_keys=options.key,
        known_hosts=options.known_hosts,
    ) as conn:

        def choose(orig_host: str, orig_port: int) -> Awaitable[ssh_fast.SSHForwarder]:
            if orig_host != options.origin:
                print(f'Refused {orig_host}', flush=True)

                raise ssh_fast.ChannelOpenError(
                    ssh_fast.OPEN_ADMINISTRATIVELY_PROHIBITED, 'This address may not connect'
                )

            return conn.forward_connection(options.dest_host, options.dest_port)

        async with conn.create_server(choose, '127.0.0.1', options.listen) as listener:
            print(f'Listening on port {listener.get_port()}', flush=True)
            await conn.wait_closed()



def main() -> int:
    parser = argparse.ArgumentParser(description='Forward some connections of a port of a server.')
    parser.add_argument('host')
    parser.add_argument('dest_host')
    parser.add_argument('dest_port', type=int)
    parser.add_argument('--from', dest='origin', default='127.0.0.1', help='the address that may connect')
    parser.add_argument('--listen', type=int, default=0, help='0 for a free one')
    parser.add_argument('--port', type=int, default=22)
    # The empty tuple leaves an option to its default.
    parser.add_argument('--user', default=())
    parser.add_argument('--key', default=(), help='a private key to log in with')
    parser.add_argument('--known-hosts', default=(), help='the file of the servers to trust')

    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(run(parser.parse_args()))
    except (OSError, ssh_fast.Error, ssh_fast.ChannelListenError) as exc:
        print(f'Failed: {exc}', file=sys.stderr)

        return 1

    return 0


if __name__ == '__main__':
    sys.exit(main())
