"""Ask a web server that the SSH server can reach for the head of its first page, by callbacks.

    python examples/direct_client.py HOST WEB_HOST WEB_PORT [--port 22] [--user NAME] [--key FILE] [--known-hosts FILE]
"""

import argparse
import asyncio
import sys

import ssh_fast


class HeadSession(ssh_fast.SSHTCPSession[bytes]):
    def connection_made(self, chan: ssh_fast.SSHTCPChannel[bytes]) -> None:
        self._chan = chan

    def session_started(self) -> None:
        self._chan.write(b'HEAD / HTTP/1.0\r\n\r\n')
        self._chan.write_eof()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        print(data.decode('latin-1'), end='')

    def connection_lost(self, exc: Exception | None) -> None:
        if exc:
            print(f'Failed: {exc}', file=sys.stderr)


async def run(options: argparse.Namespace) -> None:
    async with ssh_fast.connect(
        options.host,
        options.port,
        username=options.user,
        client_keys=options.key,
        known_hosts=options.known_hosts,
    ) as conn:
        chan, _ = await conn.create_connection(HeadSession, options.web_host, options.web_port)
        await chan.wait_closed()



def main() -> int:
    parser = argparse.ArgumentParser(description='Ask a web server through an SSH server.')
    parser.add_argument('host')
    parser.add_argument('web_host')
    parser.add_argument('web_port', type=int)
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
