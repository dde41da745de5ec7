"""Connections inside of connections: how they begin, what they carry, and how they end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from tests.connection.test_forwarding import LOOPBACK, Permissive, settled
from tests.connection.test_server_sessions import HOST_KEY

OPTIONS: dict[str, Any] = {'username': 'user', 'known_hosts': None, 'config': None, 'agent_path': None}
SIZE = 8 << 20


class Cat(Permissive):
    """Forwards everything, and gives back the input of its sessions."""

    def session_requested(self) -> Any:
        async def cat(stdin: Any, stdout: Any, stderr: Any) -> None:
            while data := await stdin.read(1 << 16):
                stdout.write(data)
                await stdout.drain()
            stdout.channel.exit(0)

        return self.conn.create_server_channel(encoding=None), cat


@contextlib.asynccontextmanager
async def server(**options: Any) -> AsyncIterator[int]:
    settings = {'server_host_keys': [HOST_KEY], 'server_factory': Cat, **options}
    async with ssh_fast.listen(LOOPBACK, 0, **settings) as acceptor:
        yield acceptor.get_port()


async def use(conn: Any) -> None:
    data = bytes(range(256)) * (SIZE // 256)
    result = await conn.run('cat', input=data, encoding=None, check=True)
    assert result.stdout == data


@pytest.mark.parametrize('rekey_bytes', [1 << 30, 1 << 20], ids=['once', 'often'])
async def test_one_connection_inside_of_another(rekey_bytes: int) -> None:
    async with server(rekey_bytes=rekey_bytes) as gate, server(rekey_bytes=rekey_bytes) as inner:
        async with ssh_fast.connect(LOOPBACK, gate, **OPTIONS) as outer:
            async with outer.connect_ssh(LOOPBACK, inner, **OPTIONS) as conn:
                await use(conn)
                assert conn.get_extra_info('peername') is None
            await settled(lambda: not outer._mux.channels)
            assert not outer.is_closed()


async def test_the_option_takes_a_connection() -> None:
    async with server() as gate, server() as inner, ssh_fast.connect(LOOPBACK, gate, **OPTIONS) as outer:
        async with ssh_fast.connect(LOOPBACK, inner, tunnel=outer, **OPTIONS) as conn:
            await use(conn)
        client = ssh_fast.SSHClient()
        conn, owner = await outer.create_ssh_connection(lambda: client, LOOPBACK, inner, **OPTIONS)
        assert owner is client
        conn.close()
        await conn.wait_closed()


async def test_a_connection_inside_ends_with_the_one_around_it() -> None:
    async with server() as gate, server() as inner:
        async with ssh_fast.connect(LOOPBACK, gate, **OPTIONS) as outer:
            conn = await outer.connect_ssh(LOOPBACK, inner, **OPTIONS)
            waiting = asyncio.create_task(conn.run('cat', encoding=None, stdin=ssh_fast.PIPE))
            await asyncio.sleep(0.1)
            outer.abort()
            with pytest.raises(ssh_fast.ConnectionLost):
                await waiting
            await conn.wait_closed()


async def test_a_server_that_does_not_connect_there() -> None:
    async with server() as gate, ssh_fast.connect(LOOPBACK, gate, **OPTIONS) as outer:
        with pytest.raises(ssh_fast.ChannelOpenError, match='Cannot connect'):
            await outer.connect_ssh(LOOPBACK, 1, **OPTIONS)
        assert not outer._mux.channels


async def test_cancellation_leaves_no_channel() -> None:
    silent = await asyncio.start_server(lambda reader, writer: None, LOOPBACK, 0)
    port = silent.sockets[0].getsockname()[1]
    async with server() as gate, ssh_fast.connect(LOOPBACK, gate, **OPTIONS) as outer:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await outer.connect_ssh(LOOPBACK, port, **OPTIONS)
        await settled(lambda: not outer._mux.channels)
    silent.close()


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / 'config'
    path.write_text(f'UserKnownHostsFile {tmp_path}/hosts\nIdentityFile none\nUser user\n')
    key = HOST_KEY.export_public_key().decode()
    (tmp_path / 'hosts').write_text(f'* {key}')
    return str(path)


async def test_jump_hosts_by_name(config: str) -> None:
    options: dict[str, Any] = {'config': config, 'agent_path': None}
    async with server() as first, server() as second, server() as inner:
        for tunnel in (
            f'{LOOPBACK}:{first},user@{LOOPBACK}:{second}',
            [f'{LOOPBACK}:{first}', f'ssh://user@[{LOOPBACK}]:{second}'],
        ):
            async with ssh_fast.connect(LOOPBACK, inner, tunnel=tunnel, **options) as conn:
                await use(conn)
        with open(config, 'a') as file:
            file.write(f'Host inside\n HostName {LOOPBACK}\n Port {inner}\n ProxyJump {LOOPBACK}:{first}\n')
        async with ssh_fast.connect('inside', **options) as conn:
            await use(conn)


async def test_a_jump_host_that_fails_is_named(config: str) -> None:
    async with server() as first:
        with pytest.raises(ssh_fast.ChannelOpenError) as caught:
            await ssh_fast.connect(LOOPBACK, 1, tunnel=f'{LOOPBACK}:{first},{LOOPBACK}:2', config=config)
        assert caught.value.__notes__ == [f'While connecting to the jump host {LOOPBACK}:2']


@pytest.mark.parametrize('tunnel', ['a b', 'host:99999x', '@', 'u@', 'a,,b'])
async def test_what_is_no_jump_host_is_refused(tunnel: str, config: str) -> None:
    with pytest.raises((ValueError, OSError)):
        await ssh_fast.connect(LOOPBACK, 1, tunnel=tunnel, config=config)


@pytest.mark.parametrize('tunnel', [5, [], [''], ['a', 5]])
def test_what_is_no_tunnel_is_refused(tunnel: Any) -> None:
    with pytest.raises(ValueError, match='tunnel: expected a connection'):
        ssh_fast.SSHClientConnectionOptions(tunnel=tunnel, config=None)
