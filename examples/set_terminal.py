"""Run a command on a terminal of a given type and size, and change the size while it runs.

    python examples/set_terminal.py HOST COMMAND [--type xterm] [--size 80x24] [--resize 132x43] [--port 22]
        [--user NAME] [--key FILE] [--known-hosts FILE]

With `--resize` the size changes at the first line of output. Typed characters are not echoed (PTY_ECHO is 0).
"""

import argparse
import asyncio
import sys

import ssh_fast


def parse_size(text: str) -> tuple[int, int]:
    width, height = (int(part) for part in text.split('x'))

    return width, height


async def run(options: argparse.Namespace) -> None:
    async with (
        ssh_fast.connect(
            options.host,
            options.port,
            username=options.user,
            client_keys=options.key,
            known_hosts=options.known_hosts,
        ) as conn,
        conn.create_process(
            options.command,
            term_type=options.type,
            term_size=options.size,
            term_modes={ssh_fast.PTY_ECHO: 0},
        ) as process,
    ):
        async for line in process.stdout:
            print(line.replace('\r\n', '\n'), end='', flush=True)

            if options.resize:
                process.change_terminal_size(*options.resize)
                options.resize = None


def main() -> int:
    parser = argparse.ArgumentParser(description='Run a command on a terminal of a given type and size.')
    parser.add_argument('host')
    parser.add_argument('command')
    parser.add_argument('--type', default='xterm')
    parser.add_argument('--size', type=parse_size, default=(80, 24), metavar='WIDTHxHEIGHT')
    parser.add_argument('--resize', type=parse_size, metavar='WIDTHxHEIGHT')
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
