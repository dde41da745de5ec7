"""The addresses that a server listens on for its client, as sshd's GatewayPorts has them."""

import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from tests.interop.ours import our_server
from tests.interop.peers import LOOPBACK, KeyRing, Target
from tests.interop.test_jump import Gate

MODES = ['no', 'yes', 'clientspecified']
HOSTS = ['', '*', 'localhost', '127.0.0.1', '0.0.0.0', '127.0.0.3', '::1', '::']
FROM = ['127.0.0.1', '127.0.0.2', '127.0.0.3', '::1']


def reachable(port: int) -> list[str]:
    """Return the addresses of this machine at which somebody listens on a port."""
    found = []
    for address in FROM:
        with contextlib.suppress(OSError), socket.create_connection((address, port), 5):
            found.append(address)
    return found


async def listened(target: Target) -> dict[str, Any]:
    """Return where a server listens for each host that it is asked to listen on."""
    found: dict[str, Any] = {}
    async with ssh_fast.connect(**target.connect_options()) as conn:
        for host in HOSTS:
            try:
                async with conn.forward_remote_port(host, 0, LOOPBACK, 1) as listener:
                    found[host] = reachable(listener.get_port())
            except ssh_fast.ChannelListenError:
                found[host] = 'refused'
    return found


@pytest.mark.parametrize('mode', MODES)
async def test_the_same_addresses_as_sshd(mode: str, start_openssh: Any, key_ring: KeyRing, tmp_path: Path) -> None:
    expected = await listened(start_openssh([f'GatewayPorts {mode}']).target)
    assert expected['127.0.0.1'] != 'refused'
    async with our_server(key_ring, tmp_path / 'ours', server_factory=Gate, gateway_ports=mode) as target:
        assert await listened(target) == expected
    config = tmp_path / 'config'
    config.write_text(f'Match user {target.user}\n GatewayPorts {mode}\n')
    async with our_server(key_ring, tmp_path / 'by-file', server_factory=Gate, config=str(config)) as target:
        assert await listened(target) == expected
