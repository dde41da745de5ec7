"""Serve sums, by callbacks: numbers come a line each, an end of file or a break asks for the total.

    python examples/callback_math_server.py --authorized-keys FILE [--port 8022] [--host-key FILE]

The file has one key a line, as OpenSSH's authorized_keys. Without a host key file a throw-away key is made.
"""

import argparse
import asyncio
import contextlib

import ssh_fast

LONGEST_LINE = 1000    # characters: what is kept must have a bound


class Session(ssh_fast.SSHServerSession[str]):
    """Adds up what it receives; data may come in any pieces, so what is not a whole line yet is kept."""

    def __init__(self) -> None:
        self._line = ''
        self._total = 0.0

    def connection_made(self, chan: ssh_fast.SSHServerChannel[str]) -> None:
        self._channel = chan

    def shell_requested(self) -> bool:
        return True

    def session_started(self) -> None:
        self._channel.write('Numbers, one a line:\n')

    def data_received(self, data: str, datatype: int | None) -> None:
        *lines, self._line = (self._line + data).split('\n')

        for line in lines:
            self._take(line.strip())

        if len(self._line) > LONGEST_LINE:
            self._channel.write_stderr('A line is too long\n')
            self._channel.exit(1)

    def eof_received(self) -> bool:
        self._take(self._line.strip())
        self._finish()

        return True

    def break_received(self, msec: int) -> bool:
        self._finish()

        return True

    def _take(self, text: str) -> None:
        if not text:
            return

        try:
            self._total += float(text)
        except ValueError:
            self._channel.write_stderr(f'{text[:40]!r} is not a number\n')

    def _finish(self) -> None:
        self._channel.write(f'Total: {self._total:g}\n')
        self._channel.exit(0)


class Server(ssh_fast.SSHServer):
    """Has a session object made for every session of its client."""

    def session_requested(self) -> Session:
        return Session()


async def serve(options: argparse.Namespace) -> None:
    async with ssh_fast.listen(
        options.host,
        options.port,
        server_factory=Server,
        server_host_keys=[options.host_key or ssh_fast.generate_private_key('ssh-ed25519')],
        authorized_client_keys=options.authorized_keys,
    ) as server:
        print(f'Listening on port {server.get_port()}', flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description='Serve sums, by callbacks.')
    parser.add_argument('--host', default='127.0.0.1', help="the address to listen on; '' for all")
    parser.add_argument('--port', type=int, default=8022, help='0 for a free one')
    parser.add_argument('--host-key', help="a private key, as ssh-keygen makes it with -t ed25519 -N ''")
    parser.add_argument('--authorized-keys', required=True)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == '__main__':
    main()
