"""Have the server listen on a port, and answer each connection with its own data, by callbacks.

    python examples/listening_client.py HOST [--listen PORT] [--port 22] [--user NAME] [--key FILE] [--known-hosts FILE]

The port that the server listens on is printed; Ctrl-C ends it all.
"""

import argparse
import asyncio
import contextlib
import sys

import ssh_fast


class EchoSession(ssh_fast.SSHTCPSession[bytes]):
    def connection_made(self, chan: ssh_fast.SSHTCPChannel[bytes]) -> None:
        self._chan = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._chan.write(data)

    def eof_received(self) -> bool:
        # Behind what was written
        self._chan.close()

        return True

    def pause_writing(self) -> None:
        self._chan.pause_reading()

    def resume_writing(self) -> None:
        self._chan.resume_reading()


def accept(orig_host: str, orig_port: int) -> EchoSession:
    print(f'Connection from {orig_host}', flush=True)

    return EchoSession()


async def run(options: argparse.Namespace) -> None:
    async with ssh_fast.connect(
        options.host,
        options.port,
        username=options.user,
        client_keys=options.key,
        known_hosts=options.known_hosts,
    ) as conn, conn.create_server(accept, '127.0.0.1', options.listen) as listener:
        print(f'Listening on port {listener.get_port()}', flush=True)
        await conn.wait_closed()



def main() -> int:
    parser = argparse.ArgumentParser(description='Echo what comes to a port of a server.')
    parser.add_argument('host')
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
