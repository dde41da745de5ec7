"""ssh-audit's judgement of our server and our client with the preset `hardened`."""

import asyncio
import importlib.util
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

import ssh_fast
from ssh_fast.transport.algorithms import hardened_algorithms

HARDENED: dict[str, Any] = dict.fromkeys(
    ('kex_algs', 'encryption_algs', 'mac_algs', 'compression_algs', 'signature_algs'), 'hardened'
)
UMAC = 'umac-128-etm@openssh.com'
FULL = b'sntrup761x25519-sha512' in hardened_algorithms('kex')

pytestmark = pytest.mark.skipif(importlib.util.find_spec('ssh_audit') is None, reason='needs ssh-audit')
needs_sntrup = pytest.mark.skipif(not FULL, reason='the policy needs sntrup761: pip install pqcrypto')


async def audit(*arguments: str) -> tuple[int, str]:
    """Run ssh-audit; return its exit status and what it said."""

    command = [sys.executable, '-m', 'ssh_audit', '-n', *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-2)
    output, _ = await process.communicate()
    assert process.returncode is not None

    return process.returncode, output.decode()


@pytest.fixture(scope='module')
def host_keys() -> list[ssh_fast.SSHKey]:
    return [ssh_fast.generate_private_key('ssh-rsa', key_size=4096), ssh_fast.generate_private_key('ssh-ed25519')]


@pytest.fixture
async def port(host_keys: list[ssh_fast.SSHKey]) -> AsyncIterator[int]:
    async with ssh_fast.listen('127.0.0.1', 0, server_host_keys=host_keys, **HARDENED) as server:
        yield server.get_port()


async def audit_client(*arguments: str) -> tuple[int, str]:
    """Have ssh-audit listen, and connect to it with the preset."""

    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]

    running = asyncio.create_task(audit('-c', '-p', str(port), *arguments))

    while not running.done():
        try:
            # It shows its lists, of which none fits, and goes.
            await ssh_fast.connect(
                '127.0.0.1', port, known_hosts=None, client_keys=None, config=None,
                server_host_key_algs='hardened', **HARDENED,
            )  # fmt: skip
        except (OSError, ssh_fast.DisconnectError):
            await asyncio.sleep(0.05)

    return await running


async def test_the_scan_of_a_hardened_server_finds_nothing(port: int) -> None:
    status, said = await audit('--skip-rate-test', '-p', str(port), '127.0.0.1')
    assert status == 0, said
    assert '[fail]' not in said and '[warn]' not in said
    assert 'mlkem768x25519-sha256' in said


async def test_the_scan_of_a_hardened_client_finds_nothing() -> None:
    status, said = await audit_client()
    assert status == 0, said
    assert '[fail]' not in said and '[warn]' not in said


async def test_the_scan_sees_what_is_not_hardened(host_keys: list[ssh_fast.SSHKey]) -> None:
    async with ssh_fast.listen('127.0.0.1', 0, server_host_keys=host_keys, mac_algs='legacy') as server:
        status, said = await audit('--skip-rate-test', '-p', str(server.get_port()), '127.0.0.1')

    assert status == 3 and 'hmac-md5-96' in said


@needs_sntrup
@pytest.mark.parametrize('policy', ['Hardened OpenSSH Server v10.4 (version 1)', 'Hardened Debian 13 (version 1)'])
async def test_a_policy_for_servers_misses_nothing_but_umac(port: int, policy: str) -> None:
    status, said = await audit('-p', str(port), '-P', policy, '127.0.0.1')
    check_policy(status, said)


@needs_sntrup
async def test_a_policy_for_clients_misses_nothing_but_umac() -> None:
    check_policy(*await audit_client('-P', 'Hardened Debian Client 13 (version 1)'))


def check_policy(status: int, said: str) -> None:
    """Nothing but the one MAC that no library here has, which docs/security.md says."""

    if 'Unknown policy' in said or 'Invalid policy' in said:
        pytest.skip('the installed ssh-audit has no such policy')

    assert status == 3, said
    faults = [line.strip() for line in said.splitlines() if line.strip().startswith('* ')]
    assert faults == ['* MACs did not match.'], said
    expected, actual = (
        line.split(':', 1)[1].strip().split(', ') for line in said.splitlines() if line.strip().startswith('- ')
    )
    assert [name for name in expected if name != UMAC] == actual
