"""Serve all whom a certificate authority (CA) vouches for; the server needs no list of users.

    python examples/simple_cert_server.py --ca-keys FILE [--port 8022] [--host-key FILE] [--host-cert FILE]

FILE has the public keys of the authorities, one a line. A user gets in with a certificate that names him:

    ssh-keygen -s CA -I anna@example.com -n anna -V +1d id_ed25519.pub

With a host key there may be a certificate for it (`ssh-keygen -h -s CA ...`); clients that trust the authority
(`@cert-authority` in their known_hosts) then know this server.
"""

import argparse
import asyncio
import contextlib
from pathlib import Path

import ssh_fast


def greet(process: ssh_fast.SSHServerProcess[str]) -> None:
    process.stdout.write(f'Hello {process.get_extra_info("username")}, your certificate is good.\n')
    process.exit(0)


async def serve(options: argparse.Namespace) -> None:
    # What makes a key an authority is a word in front of it, as in OpenSSH's authorized_keys.
    lines = [line for line in options.ca_keys.read_text().splitlines() if line.strip()]
    authorities = ssh_fast.import_authorized_keys(''.join(f'cert-authority {line}\n' for line in lines))

    async with ssh_fast.listen(
        options.host,
        options.port,
        server_host_keys=[options.host_key or ssh_fast.generate_private_key('ssh-ed25519')],
        server_host_certs=options.host_cert,
        authorized_client_keys=authorities,
        process_factory=greet,
    ) as server:
        print(f'Listening on port {server.get_port()}', flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description='Serve all whom a certificate authority vouches for.')
    parser.add_argument('--host', default='127.0.0.1', help="the address to listen on; '' for all")
    parser.add_argument('--port', type=int, default=8022, help='0 for a free one')
    parser.add_argument('--host-key', help="a private key, as ssh-keygen makes it with -t ed25519 -N ''")
    parser.add_argument('--host-cert', default=(), help='a certificate for the host key')
    parser.add_argument('--ca-keys', required=True, type=Path)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == '__main__':
    main()
