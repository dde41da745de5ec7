"""AsyncSSH on loopback: its server in this loop; its client is `asyncssh.connect(**target.connect_options())`."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import asyncssh

from tests.interop.peers import LOOPBACK, KeyRing, Target, make_target


@contextlib.asynccontextmanager
async def asyncssh_server(
    ring: KeyRing, folder: Path, *, host_keys: Sequence[str] = ('ed25519',), **options: Any
) -> AsyncIterator[Target]:
    """Serve SFTP and the user's public key with AsyncSSH until the block ends; `options` are those of its listen()."""
    private = [ring.private(f'host-{name}', name) for name in host_keys]
    settings = {
        'server_host_keys': [str(path) for path in private],
        'authorized_client_keys': str(ring.public('user', 'ed25519')),
        'sftp_factory': True,
        **options,
    }
    server = await asyncssh.listen(LOOPBACK, 0, **settings)
    try:
        yield make_target(ring, folder, server.get_port(), [Path(f'{path}.pub') for path in private])
    finally:
        server.close()
        await server.wait_closed()
