"""Let `bc` on a server do sums, by callbacks: each result that comes sends the next sum.

    python examples/callback_math_client.py HOST SUM... [--port 22] [--user NAME] [--key FILE] [--known-hosts FILE]
"""

import argparse
import asyncio
import functools
import sys
from collections.abc import Sequence

import ssh_fast


class Calculation(ssh_fast.SSHClientSession[str]):
    """Has one sum under way at a time; an end of file behind the last one lets `bc` end."""

    def __init__(self, sums: Sequence[str]) -> None:
        self.error: Exception | None = None
        self._waiting = list(sums)
        self._line = ''

    def connection_made(self, chan: ssh_fast.SSHClientChannel[str]) -> None:
        self._channel = chan

    def session_started(self) -> None:
        self._send_next()

    def data_received(self, data: str, datatype: int | None) -> None:
        if datatype == ssh_fast.EXTENDED_DATA_STDERR:
            print(data, end='', file=sys.stderr)
            return

        *results, self._line = (self._line + data).split('\n')

        for result in results:
            print(f'{self._asked} = {result}')
            self._send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc

    def _send_next(self) -> None:
        if self._waiting:
            self._asked = self._waiting.pop(0)
            self._channel.write(f'{self._asked}\n')
        else:
            self._channel.write_eof()


async def run(options: argparse.Namespace) -> None:
    async with ssh_fast.connect(
        options.host,
        options.port,
        username=options.user,
        client_keys=options.key,
        known_hosts=options.known_hosts,
    ) as conn:
        channel, session = await conn.create_session(functools.partial(Calculation, options.sums), 'bc')
        await channel.wait_closed()

    if session.error:
        raise session.error


def main() -> int:
    parser = argparse.ArgumentParser(description='Let bc on a server do sums, by callbacks.')
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
