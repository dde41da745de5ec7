"""Serve those whose public keys are in a file; every session shows the environment that its client sent.

    python examples/show_environment.py --authorized-keys FILE [--port 8022] [--host-key FILE]

With OpenSSH's client, `SetEnv NAME=VALUE` and `SendEnv NAME` say what is sent.
"""

import argparse
import asyncio
import contextlib

import ssh_fast


def show(process: ssh_fast.SSHServerProcess[str]) -> None:
    # What a client sends is text of its choice: repr keeps control characters from the terminal that shows it.
    for name, value in sorted(process.env.items()):
        process.stdout.write(f'{name}={value!r}\n')

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
    parser = argparse.ArgumentParser(description='Show every client the environment that it sent.')
    parser.add_argument('--host', default='127.0.0.1', help="the address to listen on; '' for all")
    parser.add_argument('--port', type=int, default=8022, help='0 for a free one')
    parser.add_argument('--host-key', help="a private key, as ssh-keygen makes it with -t ed25519 -N ''")
    parser.add_argument('--authorized-keys', required=True)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == '__main__':
    main()
