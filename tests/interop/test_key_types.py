"""Keys of the rarer types with OpenSSH: security keys, and DSA."""

import asyncio
import contextlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from ssh_fast.keys.key import decode_public_key
from tests.interop import peers
from tests.interop.peers import KeyRing, OpenSSHServer, find_program
from tests.keys.test_key import KEYS, PUBLIC
from tests.keys.test_sk import DEVICE, NAMES
from tests.security.test_key_rows import DevicePair

DSA = 'ssh-dss'


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize(
    ('options', 'flags', 'admitted'),
    [('', 0x01, True), ('', 0x00, False), ('no-touch-required ', 0x00, True), ('verify-required ', 0x05, True)],
)
async def test_security_keys_to_openssh(
    name: str, options: str, flags: int, admitted: bool, key_ring: KeyRing, tmp_path: Path
) -> None:
    """sshd says of each signature what our own server says of it."""
    keys = tmp_path / 'keys'
    keys.write_text(options + decode_public_key(DEVICE.public_data(name)).export_public_key().decode())
    with OpenSSHServer(key_ring, tmp_path / 'sshd', [f'AuthorizedKeysFile {keys}']) as server:
        made = server.target.connect_options(client_keys=[DevicePair(name, flags)])
        with contextlib.nullcontext() if admitted else pytest.raises(ssh_fast.PermissionDenied):
            async with ssh_fast.connect(**made) as connection:
                assert (await connection.run('echo in', check=True)).stdout == 'in\n'


async def test_dsa_to_openssh_where_it_is_named(key_ring: KeyRing, tmp_path: Path) -> None:
    known = subprocess.run([find_program('ssh'), '-Q', 'key'], capture_output=True, text=True, check=True).stdout
    if DSA not in known.split():
        pytest.skip('this OpenSSH has no DSA')
    keys = tmp_path / 'keys'
    keys.write_bytes(PUBLIC[DSA].export_public_key())
    lines = [f'AuthorizedKeysFile {keys}', f'PubkeyAcceptedAlgorithms +{DSA}']
    with OpenSSHServer(key_ring, tmp_path / 'sshd', lines) as server:
        options = server.target.connect_options(client_keys=[KEYS[DSA]])
        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(**options)
        async with ssh_fast.connect(**options, signature_algs=f'+{DSA}'):
            pass


@pytest.mark.parametrize('named', [True, False])
async def test_openssh_with_a_dsa_key_where_it_is_named(named: bool, tmp_path: Path) -> None:
    known = subprocess.run([find_program('ssh'), '-Q', 'key'], capture_output=True, text=True, check=True).stdout
    if DSA not in known.split():
        pytest.skip('this OpenSSH has no DSA')
    KEYS[DSA].write_private_key(tmp_path / 'id')
    given: dict[str, Any] = {'signature_algs': f'+{DSA}'} if named else {}
    server = await ssh_fast.listen(
        peers.LOOPBACK,
        0,
        server_host_keys=[KEYS['ssh-ed25519']],
        authorized_client_keys=ssh_fast.import_authorized_keys(PUBLIC[DSA].export_public_key().decode()),
        process_factory=lambda process: process.exit(0),
        **given,
    )
    async with server:
        options = f'BatchMode=yes StrictHostKeyChecking=no UserKnownHostsFile=/dev/null PubkeyAcceptedAlgorithms=+{DSA}'
        command = [find_program('ssh'), '-F', 'none', '-i', str(tmp_path / 'id'), '-p', str(server.get_port())]
        command += [word for option in options.split() for word in ('-o', option)]
        process = await asyncio.create_subprocess_exec(
            *command, f'user@{peers.LOOPBACK}', 'true', stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        _, shown = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == (0 if named else 255), shown
