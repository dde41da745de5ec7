"""Serve a chat: what one client types, all others read.

    python examples/chat_server.py --authorized-keys FILE [--port 8022] [--host-key FILE]

A client that reads too slowly is put out, so that what waits for it does not grow.
"""

import argparse
import asyncio
import contextlib

import ssh_fast

MOST_WAITING = 1 << 20    # bytes

Process = ssh_fast.SSHServerProcess[str]


class Room:
    """The clients that are there, by name."""

    def __init__(self) -> None:
        self._members: dict[Process, str] = {}

    def tell(self, text: str, sender: Process | None = None) -> None:
        """Write a line to everybody but the sender."""

        for member in [one for one in self._members if one is not sender]:
            if member.channel.get_write_buffer_size() > MOST_WAITING:
                member.channel.abort()
            elif not member.is_closing():
                member.stdout.write(f'{text}\n')

    async def serve(self, process: Process) -> None:
        """Have a client take part until its input ends."""

        name = process.get_extra_info('username')
        process.stdout.write(f'{len(self._members)} others are here\n')
        self._members[process] = name
        self.tell(f'{name} comes', process)

        try:
            async for line in process.stdin:
                self.tell(f'{name}: {"".join(filter(str.isprintable, line))}', process)
        except (ssh_fast.BreakReceived, ssh_fast.SignalReceived):
            process.stdout.write('Goodbye\n')
        finally:
            del self._members[process]
            self.tell(f'{name} goes')
            process.exit(0)


async def serve(options: argparse.Namespace) -> None:
    async with ssh_fast.listen(
        options.host,
        options.port,
        server_host_keys=[options.host_key or ssh_fast.generate_private_key('ssh-ed25519')],
        authorized_client_keys=options.authorized_keys,
        process_factory=Room().serve,
    ) as server:
        print(f'Listening on port {server.get_port()}', flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description='Serve a chat.')
    parser.add_argument('--host', default='127.0.0.1', help="the address to listen on; '' for all")
    parser.add_argument('--port', type=int, default=8022, help='0 for a free one')
    parser.add_argument('--host-key', help="a private key, as ssh-keygen makes it with -t ed25519 -N ''")
    parser.add_argument('--authorized-keys', required=True)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == '__main__':
    main()
