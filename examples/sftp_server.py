"""Serve one folder over SFTP and SCP: clients see it as `/` and cannot leave it.

    python examples/sftp_server.py FOLDER --authorized-keys FILE [--port 8022] [--host-key FILE] [--read-only]

The file has one key a line, as OpenSSH's authorized_keys. Without a host key file a throw-away key is made.
"""

import argparse
import asyncio
import contextlib
import functools
from pathlib import Path

import ssh_fast


async def serve(options: argparse.Namespace) -> None:
    async with ssh_fast.listen(
        options.host,
        options.port,
        server_host_keys=[options.host_key or ssh_fast.generate_private_key('ssh-ed25519')],
        authorized_client_keys=options.authorized_keys,
        sftp_factory=functools.partial(
            ssh_fast.SFTPServer, chroot=options.folder, read_only=options.read_only
        ),
        allow_scp=True,
    ) as server:
        print(f'Listening on port {server.get_port()}', flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description='Serve one folder over SFTP and SCP.')
    parser.add_argument('folder', type=Path)
    parser.add_argument('--host', default='127.0.0.1', help="the address to listen on; '' for all")
    parser.add_argument('--port', type=int, default=8022, help='0 for a free one')
    parser.add_argument('--host-key', help="a private key, as ssh-keygen makes it with -t ed25519 -N ''")
    parser.add_argument('--authorized-keys', required=True)
    parser.add_argument('--read-only', action='store_true')
    options = parser.parse_args()

    if not options.folder.is_dir():
        parser.error(f'there is no folder {options.folder}')

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(options))


if __name__ == '__main__':
    main()
