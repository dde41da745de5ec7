"""Serve sums, by streams: numbers come a line each, an end of file asks for the total.

    python examples/math_server.py --authorized-keys FILE [--port 8022] [--host-key FILE]

What is no data comes as an exception out of a read, at its place between the data: a break asks for the total so far,
the signal INT begins anew, TERM ends the session, and a new size of the terminal is told.
"""

import argparse
import asyncio
import contextlib

import ssh_fast


async def add_up(
    stdin: ssh_fast.SSHReader[str], stdout: ssh_fast.SSHWriter[str], stderr: ssh_fast.SSHWriter[str]
) -> None:
    total = 0.0
    stdout.write('Numbers, one a line:\n')

    while not stdin.at_eof():
        try:
            line = await stdin.readline()
        except ssh_fast.BreakReceived:
            stdout.write(f'So far: {total:g}\n')
            continue
        except ssh_fast.SignalReceived as exc:
            if exc.signal == 'TERM':
                stdout.channel.exit_with_signal('TERM')
                return

            if exc.signal == 'INT':
                total = 0.0
                stdout.write('From the beginning:\n')

            continue
        except ssh_fast.TerminalSizeChanged as exc:
            stdout.write(f'The terminal has {exc.width} columns and {exc.height} lines now\n')
            continue

        if not line.strip():
            continue

        try:
            total += float(line)
        except ValueError:
            stderr.write(f'{line.strip()[:40]!r} is not a number\n')

    stdout.write(f'Total: {total:g}\n')
    stdout.channel.exit(0)


async def serve(options: argparse.Namespace) -> None:
    async with ssh_fast.listen(
        options.host,
        options.port,
        server_host_keys=[options.host_key or ssh_fast.generate_private_key('ssh-ed25519')],
        authorized_client_keys=options.authorized_keys,
        session_factory=add_up,
    ) as server:
        print(f'Listening on port {server.get_port()}', flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description='Serve sums, by streams.')
    parser.add_argument('--host', default='127.0.0.1', help="the address to listen on; '' for all")
    parser.add_argument('--port', type=int, default=8022, help='0 for a free one')
    parser.add_argument('--host-key', help="a private key, as ssh-keygen makes it with -t ed25519 -N ''")
    parser.add_argument('--authorized-keys', required=True)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == '__main__':
    main()
