"""Serve those whose public keys are in a file; a session shows its terminal, and each new size until the input ends.

    python examples/show_terminal.py --authorized-keys FILE [--port 8022] [--host-key FILE]

With OpenSSH's client, `ssh -t` asks for a terminal also where a command is given.
"""

import argparse
import asyncio
import contextlib

import ssh_fast


def describe(size: tuple[int, int, int, int]) -> str:
    width, height, pixel_width, pixel_height = size
    pixels = f', {pixel_width} by {pixel_height} pixels' if pixel_width and pixel_height else ''

    return f'{width} columns, {height} lines{pixels}'


async def show(process: ssh_fast.SSHServerProcess[str]) -> None:
    if process.term_type is None:
        process.stderr.write('You asked for no terminal\n')
        process.exit(1)
        return

    process.stdout.write(f'Terminal {process.term_type!r}: {describe(process.term_size)}\n')

    while not process.stdin.at_eof():
        try:
            await process.stdin.readline()
        except ssh_fast.TerminalSizeChanged as exc:
            process.stdout.write(f'Now {describe((exc.width, exc.height, exc.pixwidth, exc.pixheight))}\n')
        except (ssh_fast.BreakReceived, ssh_fast.SignalReceived):
            break

    process.exit(0)


async def serve(options: argparse.Namespace) -> None:
    async with ssh_fast.listen(
        options.host,
        options.port,
        server_host_keys=[options.host_key or ssh_fast.generate_private_key('ssh-ed25519')],
        authorized_client_keys=options.authorized_keys,
        process_factory=show,
    ) as server:
        print(f'Listening on port {server.get_port()}', flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description='Show every client its terminal and how it is resized.')
    parser.add_argument('--host', default='127.0.0.1', help="the address to listen on; '' for all")
    parser.add_argument('--port', type=int, default=8022, help='0 for a free one')
    parser.add_argument('--host-key', help="a private key, as ssh-keygen makes it with -t ed25519 -N ''")
    parser.add_argument('--authorized-keys', required=True)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == '__main__':
    main()
