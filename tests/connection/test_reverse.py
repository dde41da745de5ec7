"""The reverse direction: clients that listen, servers that connect to them, and both inside of other connections."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from tests.connection.test_forwarding import LOOPBACK, settled
from tests.connection.test_server_sessions import HOST_KEY
from tests.connection.test_tunnels import OPTIONS, Cat, server, use
from tests.interop.ours import nothing_leaks

SERVER: dict[str, Any] = {'server_host_keys': [HOST_KEY], 'server_factory': Cat}
KEY = HOST_KEY.export_public_key().decode()


class Waiting:
    """A listening client's acceptor and error handler: what came of each connection."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[Any] = asyncio.Queue()

    async def accept(self, conn: ssh_fast.SSHClientConnection) -> None:
        self.came.put_nowait(conn)

    def failed(self, conn: ssh_fast.SSHClientConnection, exc: Exception | None) -> None:
        self.came.put_nowait(exc)

    @property
    def options(self) -> dict[str, Any]:
        return {**OPTIONS, 'acceptor': self.accept, 'error_handler': self.failed}


@contextlib.asynccontextmanager
async def listening(**options: Any) -> AsyncIterator[tuple[Waiting, int]]:
    waiting = Waiting()
    async with ssh_fast.listen_reverse(LOOPBACK, 0, **{**waiting.options, **options}) as acceptor:
        yield waiting, acceptor.get_port()


async def test_a_server_connects_and_its_client_works() -> None:
    async with nothing_leaks(), listening() as (waiting, port):
        async with ssh_fast.connect_reverse(LOOPBACK, port, **SERVER) as serving:
            assert isinstance(serving, ssh_fast.SSHServerConnection)
            assert serving.get_extra_info('username') == 'user'
            async with await waiting.came.get() as conn:
                assert isinstance(conn, ssh_fast.SSHClientConnection)
                await use(conn)
            await serving.wait_closed()


async def test_one_that_listens_has_many_servers() -> None:
    async with listening() as (waiting, port):
        servers = await asyncio.gather(*(ssh_fast.connect_reverse(LOOPBACK, port, **SERVER) for _ in range(8)))
        clients = [await waiting.came.get() for _ in servers]
        await asyncio.gather(*(use(conn) for conn in clients))
        for conn in (*servers, *clients):
            conn.close()
            await conn.wait_closed()


async def test_acceptors_may_be_plain_functions() -> None:
    came: list[Any] = []
    async with listening(acceptor=came.append) as (_, port):
        async with ssh_fast.connect_reverse(LOOPBACK, port, **SERVER):
            await settled(lambda: bool(came))


@pytest.mark.parametrize(
    ('hosts', 'options', 'trusted'),
    [
        (f'{LOOPBACK} {KEY}', {}, True),
        (f'[{LOOPBACK}]:%d {KEY}', {}, True),
        (f'friend {KEY}', {'host_key_alias': 'friend'}, True),
        (f'localhost {KEY}', {'host': 'localhost', 'family': socket.AF_INET}, False),
        ('', {}, False),
        (f'{LOOPBACK} {KEY}\n@revoked * {KEY}', {}, False),
    ],
    ids=['address', 'address and port', 'alias', 'where it listens', 'nothing', 'revoked'],
)
async def test_a_server_is_known_by_where_it_comes_from(hosts: str, options: dict[str, Any], trusted: bool) -> None:
    waiting = Waiting()
    with socket.create_server((LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    known = (hosts % port if '%d' in hosts else hosts).encode()
    given = {'host': LOOPBACK, **waiting.options, **options, 'known_hosts': known}
    async with ssh_fast.listen_reverse(port=port, **given):
        if trusted:
            async with ssh_fast.connect_reverse(LOOPBACK, port, **SERVER):
                assert isinstance(await waiting.came.get(), ssh_fast.SSHClientConnection)
        else:
            with pytest.raises(ssh_fast.HostKeyNotVerifiable):
                await ssh_fast.connect_reverse(LOOPBACK, port, **SERVER)
            assert isinstance(await waiting.came.get(), ssh_fast.HostKeyNotVerifiable)


async def test_a_login_that_fails_is_an_error_on_both_sides() -> None:
    class Locked(Cat):
        def begin_auth(self, username: str) -> bool:
            return True

    async with nothing_leaks(), listening() as (waiting, port):
        with pytest.raises((ssh_fast.DisconnectError, OSError)):
            await ssh_fast.connect_reverse(LOOPBACK, port, **{**SERVER, 'server_factory': Locked})
        assert isinstance(await waiting.came.get(), ssh_fast.PermissionDenied)


async def test_what_cannot_be_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='accept-new|whoever connects'):
        await ssh_fast.listen_reverse(LOOPBACK, 0, strict_host_key_checking='accept-new', **OPTIONS)
    with pytest.raises(ValueError, match='proxy_command'):
        await ssh_fast.listen_reverse(LOOPBACK, 0, proxy_command='true', **OPTIONS)
    with pytest.raises(ValueError, match='proxy_command'):
        await ssh_fast.listen(LOOPBACK, 0, proxy_command='true', **SERVER)
    with pytest.raises(ValueError, match='server_host_keys'):
        await ssh_fast.connect_reverse(LOOPBACK, 1)
    with pytest.raises(ValueError, match='tunnel'):
        await ssh_fast.listen(LOOPBACK, 0, tunnel=7, **SERVER)
    with pytest.raises(ConnectionRefusedError, match='port 1'):
        await ssh_fast.connect_reverse(LOOPBACK, 1, **SERVER)


async def test_connect_timeout_of_a_server_covers_the_login() -> None:
    silent = await asyncio.start_server(lambda reader, writer: None, LOOPBACK, 0)
    port = silent.sockets[0].getsockname()[1]
    with pytest.raises(TimeoutError, match=str(port)):
        await ssh_fast.connect_reverse(LOOPBACK, port, connect_timeout=0.2, **SERVER)
    silent.close()


async def test_sockets_that_are_there() -> None:
    waiting = Waiting()
    bound = socket.create_server((LOOPBACK, 0))
    async with ssh_fast.listen_reverse(sock=bound, **waiting.options):
        connected = socket.create_connection(bound.getsockname())
        async with ssh_fast.connect_reverse(sock=connected, **SERVER):
            await use(await waiting.came.get())


async def test_a_server_by_a_command(tmp_path: Path) -> None:
    async with listening() as (waiting, port):
        command = f'bash -c "exec 3<>/dev/tcp/{LOOPBACK}/{port}; cat <&3 & cat >&3"'
        async with ssh_fast.connect_reverse('nowhere', proxy_command=command, **SERVER):
            await use(await waiting.came.get())


# --- inside of connections


@pytest.mark.parametrize('rekey_bytes', [1 << 30, 1 << 20], ids=['once', 'often'])
async def test_a_server_that_listens_through_a_connection(rekey_bytes: int) -> None:
    async with nothing_leaks(), server(rekey_bytes=rekey_bytes) as gate:
        async with ssh_fast.connect(LOOPBACK, gate, **OPTIONS) as outer:
            async with outer.listen_ssh(LOOPBACK, 0, rekey_bytes=rekey_bytes, **SERVER) as acceptor:
                port = acceptor.get_port()
                assert acceptor.get_addresses() == [(LOOPBACK, port)] and port
                async with ssh_fast.connect(LOOPBACK, port, **OPTIONS) as first:
                    async with ssh_fast.connect(LOOPBACK, port, **OPTIONS) as second:
                        await asyncio.gather(use(first), use(second))
            await settled(lambda: not outer._mux.channels)
            with pytest.raises(OSError):
                await ssh_fast.connect(LOOPBACK, port, **OPTIONS)


async def test_the_option_of_listen_is_the_same() -> None:
    waiting = Waiting()
    async with server() as gate, ssh_fast.connect(LOOPBACK, gate, **OPTIONS) as outer:
        async with ssh_fast.listen(LOOPBACK, 0, tunnel=outer, **SERVER) as acceptor:
            async with ssh_fast.connect(LOOPBACK, acceptor.get_port(), **OPTIONS) as conn:
                await use(conn)
        async with ssh_fast.listen_reverse(LOOPBACK, 0, tunnel=outer, **waiting.options) as acceptor:
            async with ssh_fast.connect_reverse(LOOPBACK, acceptor.get_port(), **SERVER):
                await use(await waiting.came.get())


async def test_reverse_through_a_connection_in_both_parts() -> None:
    waiting = Waiting()
    async with nothing_leaks(), server() as gate, ssh_fast.connect(LOOPBACK, gate, **OPTIONS) as outer:
        async with outer.listen_reverse_ssh(LOOPBACK, 0, **waiting.options) as acceptor:
            async with outer.connect_reverse_ssh(LOOPBACK, acceptor.get_port(), **SERVER) as serving:
                async with await waiting.came.get() as conn:
                    await use(conn)
                await serving.wait_closed()
        await settled(lambda: not outer._mux.channels)


async def test_names_of_servers_that_come_through_a_connection() -> None:
    waiting = Waiting()
    async with server() as gate, ssh_fast.connect(LOOPBACK, gate, **OPTIONS) as outer:
        known = {**waiting.options, 'known_hosts': f'friend {KEY}'.encode()}
        async with outer.listen_reverse_ssh(LOOPBACK, 0, **known) as acceptor:
            with pytest.raises(ssh_fast.HostKeyNotVerifiable):
                await ssh_fast.connect_reverse(LOOPBACK, acceptor.get_port(), **SERVER)
            assert isinstance(await waiting.came.get(), ssh_fast.HostKeyNotVerifiable)
            acceptor.update(host_key_alias='friend')
            async with ssh_fast.connect_reverse(LOOPBACK, acceptor.get_port(), **SERVER):
                await use(await waiting.came.get())


async def test_jump_hosts_of_what_listens_end_with_the_last_connection(tmp_path: Path) -> None:
    config = tmp_path / 'config'
    (tmp_path / 'hosts').write_text(f'* {KEY}\n')
    config.write_text(f'UserKnownHostsFile {tmp_path}/hosts\nIdentityFile none\nUser user\n')
    made: list[Cat] = []

    def factory() -> Cat:
        made.append(Cat())
        return made[-1]

    async with server(server_factory=factory) as gate:
        tunnel, waiting = f'{LOOPBACK}:{gate}', Waiting()
        options = {**waiting.options, 'config': str(config)}
        async with ssh_fast.listen_reverse(LOOPBACK, 0, tunnel=tunnel, **options) as acceptor:
            serving = await ssh_fast.connect_reverse(LOOPBACK, acceptor.get_port(), **SERVER)
            conn = await waiting.came.get()
        assert len(made) == 1 and not made[0].conn.is_closed()
        await use(conn)
        conn.close()
        await serving.wait_closed()
        await settled(made[0].conn.is_closed)


async def test_servers_lead_through_jump_hosts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server has no client's configuration: that of the jump host is the user's own."""
    (tmp_path / '.ssh').mkdir()
    (tmp_path / '.ssh/config').write_text(f'UserKnownHostsFile {tmp_path}/hosts\nUser jumper\nIdentityFile none\n')
    (tmp_path / 'hosts').write_text(f'* {KEY}\n')
    monkeypatch.setenv('HOME', str(tmp_path))
    users: list[str] = []

    class Gate(Cat):
        def begin_auth(self, username: str) -> bool:
            users.append(username)
            return False

    async with server(server_factory=Gate) as gate, listening() as (waiting, port):
        tunnel = f'{LOOPBACK}:{gate}'
        async with ssh_fast.listen(LOOPBACK, 0, tunnel=tunnel, **SERVER) as acceptor:
            async with ssh_fast.connect(LOOPBACK, acceptor.get_port(), **OPTIONS) as conn:
                await use(conn)
        async with ssh_fast.connect_reverse(LOOPBACK, port, tunnel=tunnel, **SERVER):
            await use(await waiting.came.get())
        assert users == ['jumper', 'jumper']
        with pytest.raises(ssh_fast.HostKeyNotVerifiable) as caught:
            (tmp_path / 'hosts').write_text('')
            await ssh_fast.listen(LOOPBACK, 0, tunnel=tunnel, **SERVER)
        assert tunnel in caught.value.__notes__[0]


async def test_new_hosts_are_never_accepted_from_who_connects(tmp_path: Path) -> None:
    waiting, hosts = Waiting(), tmp_path / 'hosts'
    hosts.write_text('')
    options = {**waiting.options, 'known_hosts': str(hosts)}
    async with ssh_fast.listen_reverse(LOOPBACK, 0, **options) as acceptor:
        acceptor.update(strict_host_key_checking='accept-new')
        with pytest.raises(ssh_fast.HostKeyNotVerifiable):
            await ssh_fast.connect_reverse(LOOPBACK, acceptor.get_port(), **SERVER)
    assert hosts.read_text() == ''


async def test_a_gate_that_refuses_to_listen() -> None:
    class Closed(Cat):
        def server_requested(self, *where: Any) -> Any:
            return False

    async with server(server_factory=Closed) as gate, ssh_fast.connect(LOOPBACK, gate, **OPTIONS) as outer:
        with pytest.raises(ssh_fast.ChannelListenError):
            await outer.listen_ssh(LOOPBACK, 0, **SERVER)
        with pytest.raises(ssh_fast.ChannelListenError):
            await outer.listen_reverse_ssh(LOOPBACK, 0, **OPTIONS)
        with pytest.raises(ssh_fast.ChannelOpenError):
            await outer.connect_reverse_ssh(LOOPBACK, 1, **SERVER)
        with pytest.raises(TypeError, match='backlog'):
            await outer.listen_ssh(LOOPBACK, 0, backlog=3, **SERVER)
        assert not outer._mux.channels
