"""Serve one user with a password; whatever command is asked for, the answer is a greeting.

    python examples/simple_server.py [--port 8022] [--host-key FILE] [--user guest]

The password is asked for, or taken from the environment variable SERVER_PASSWORD. Without a host key file a throw-away
key is made: clients then meet a server that they cannot know.
"""

import argparse
import asyncio
import contextlib
import functools
import getpass
import os

import bcrypt

import ssh_fast


class PasswordServer(ssh_fast.SSHServer):
    """Lets one user in; only the hash of the password is kept."""

    def __init__(self, username: str, hashed: bytes) -> None:
        self._username = username
        self._hashed = hashed

    def password_auth_supported(self) -> bool:
        return True

    async def validate_password(self, username: str, password: str) -> bool:
        # Unknown names cost as much time as the known one; bcrypt takes long, so it runs in a thread, and it takes no
        # more than 72 bytes.
        right = await asyncio.to_thread(bcrypt.checkpw, password.encode()[:72], self._hashed)

        return right and username == self._username


def greet(process: ssh_fast.SSHServerProcess[str]) -> None:
    name = process.get_extra_info('username')
    process.stdout.write(f'Hello {name}, you asked for {process.command or "a shell"}.\n')
    process.exit(0)


async def serve(options: argparse.Namespace, hashed: bytes) -> None:
    async with ssh_fast.listen(
        options.host,
        options.port,
        server_factory=functools.partial(PasswordServer, options.user, hashed),
        server_host_keys=[options.host_key or ssh_fast.generate_private_key('ssh-ed25519')],
        process_factory=greet,
    ) as server:
        print(f'Listening on port {server.get_port()}', flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description='Serve one user with a password.')
    parser.add_argument('--host', default='127.0.0.1', help="the address to listen on; '' for all")
    parser.add_argument('--port', type=int, default=8022, help='0 for a free one')
    parser.add_argument('--host-key', help="a private key, as ssh-keygen makes it with -t ed25519 -N ''")
    parser.add_argument('--user', default='guest')
    options = parser.parse_args()
    password = os.environ.get('SERVER_PASSWORD') or getpass.getpass(f'Password for {options.user}: ')

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(options, bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt())))


if __name__ == '__main__':
    main()
