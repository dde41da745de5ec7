"""Serve those whose public keys are in a file; the program adds up the numbers that are typed into it.

    python examples/simple_keyed_server.py --authorized-keys FILE [--port 8022] [--host-key FILE]

The file has one key a line, as OpenSSH's authorized_keys. Without a host key file a throw-away key is made.
"""

import argparse
import asyncio
import contextlib

import ssh_fast


async def add_up(process: ssh_fast.SSHServerProcess[str]) -> None:
    total = 0.0

    async for line in process.stdin:
        try:
            total += float(line)
        except ValueError:
            process.stderr.write(f'{line.strip()[:40]!r} is not a number\n')

    process.stdout.write(f'{total:g}\n')
    process.exit(0)


async def serve(options: argparse.Namespace) -> None:
    async with ssh_fast.listen(
        options.host,
        options.port,
        server_host_keys=[options.host_key or ssh_fast.generate_private_key('ssh-ed25519')],
        authorized_client_keys=options.authorized_keys,
        process_factory=add_up,
    ) as server:
        print(f'Listening on port {server.get_port()}', flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description='Serve those whose public keys are in a file.')
    parser.add_argument('--host', default='127.0.0.1', help="the address to listen on; '' for all")
    parser.add_argument('--port', type=int, default=8022, help='0 for a free one')
    parser.add_argument('--host-key', help="a private key, as ssh-keygen makes it with -t ed25519 -N ''")
    parser.add_argument('--authorized-keys', required=True)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == '__main__':
    main()
