"""connect, listen and their like on loopback: what they return, what they raise, and what they leave behind."""

import asyncio
import gc
import os
import socket
from typing import Any

import pytest

import ssh_fast
from ssh_fast.connection import establish
from tests.security.peer import (
    HOST_KEY,
    LOOPBACK,
    PASSWORD,
    USER,
    Peer,
    Server,
    client_options,
    hostile_server,
    serving,
)

KNOWN = HOST_KEY.export_public_key().decode()


def trusting(port: int) -> bytes:
    return f'[{LOOPBACK}]:{port} {KNOWN}'.encode()


def open_files() -> int:
    return len(os.listdir('/proc/self/fd'))


async def echo(process: Any) -> None:
    async for line in process.stdin:
        process.stdout.write(line)
    process.exit(0)


# --- connecting


async def test_a_refused_port_names_host_and_port() -> None:
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        port = sock.getsockname()[1]
        with pytest.raises(ConnectionRefusedError, match=f'{LOOPBACK} port {port}'):
            await ssh_fast.connect(LOOPBACK, port, **client_options())


async def test_connect_timeout_covers_the_login() -> None:
    async def script(peer: Peer) -> None:
        await peer.handshake()
        await peer.expect_gone()

    async with hostile_server(script) as port:
        before = open_files()
        with pytest.raises(TimeoutError):
            await ssh_fast.connect(LOOPBACK, port, **client_options(connect_timeout=0.2))
        await asyncio.sleep(0.05)
        assert open_files() <= before


async def test_login_timeout_of_a_client() -> None:
    async def script(peer: Peer) -> None:
        await peer.handshake()
        await peer.expect_gone()

    async with hostile_server(script) as port:
        with pytest.raises(ssh_fast.ConnectionLost, match='[Ll]ogin'):
            await ssh_fast.connect(LOOPBACK, port, **client_options(login_timeout=0.2))


async def test_a_wrong_password_is_permission_denied() -> None:
    async with serving() as server:
        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(LOOPBACK, server.port, **client_options(password='wrong'))


@pytest.mark.parametrize('known', ['right', 'none', 'other', 'revoked', 'trust all'])
async def test_host_keys(known: str) -> None:
    async with serving() as server:
        host = f'[{LOOPBACK}]:{server.port}'
        other = ssh_fast.generate_private_key('ssh-ed25519').export_public_key().decode()
        lists = {
            'right': f'{host} {KNOWN}', 'none': '', 'other': f'{host} {other}',
            'revoked': f'{host} {KNOWN}\n@revoked * {KNOWN}',
        }
        hosts = None if known == 'trust all' else lists[known].encode()
        if known in ('right', 'trust all'):
            async with ssh_fast.connect(LOOPBACK, server.port, **client_options(known_hosts=hosts)) as conn:
                assert conn.get_server_host_key().public_data == HOST_KEY.public_data
        else:
            with pytest.raises(ssh_fast.HostKeyNotVerifiable):
                await ssh_fast.connect(LOOPBACK, server.port, **client_options(known_hosts=hosts))


@pytest.mark.parametrize('answer', [True, False, None, 'yes'])
async def test_a_client_object_may_trust_a_host_key(answer: Any) -> None:
    """Only True itself is trust; the object is shown the host as it was dialled."""
    asked: list[tuple[str, str, int]] = []

    class Client(ssh_fast.SSHClient):
        def validate_host_public_key(self, host: str, addr: str, port: int, key: ssh_fast.SSHKey) -> bool:
            asked.append((host, addr, port))
            return answer

    async with serving() as server:
        options = client_options(known_hosts=b'', client_factory=Client)
        if answer is True:
            async with ssh_fast.connect('localhost', server.port, family=socket.AF_INET, **options):
                assert asked == [('localhost', LOOPBACK, server.port)]
        else:
            with pytest.raises(ssh_fast.HostKeyNotVerifiable):
                await ssh_fast.connect(LOOPBACK, server.port, **options)


async def test_get_server_host_key() -> None:
    async with serving() as server:
        key = await ssh_fast.get_server_host_key(LOOPBACK, server.port)
        assert key.public_data == HOST_KEY.public_data
        await server.made[0].lost
        assert server.made[0].users == []


async def test_create_connection_and_create_server() -> None:
    made: list[Server] = []

    def factory() -> Server:
        made.append(Server())
        return made[-1]

    async with await ssh_fast.create_server(factory, LOOPBACK, 0, server_host_keys=[HOST_KEY]) as server:
        client = ssh_fast.SSHClient()
        conn, owner = await ssh_fast.create_connection(lambda: client, LOOPBACK, server.get_port(), **client_options())
        assert owner is client
        conn.close()
        await conn.wait_closed()
        assert await made[0].lost is None


async def test_run_client_and_run_server_over_a_socketpair() -> None:
    ours, theirs = socket.socketpair()
    serve = asyncio.ensure_future(
        ssh_fast.run_server(theirs, server_host_keys=[HOST_KEY], server_factory=Server, process_factory=echo)
    )
    async with ssh_fast.run_client(ours, **client_options()) as conn:
        result = await conn.run('x', input='hello\n')
        assert result.stdout == 'hello\n'
    async with await serve:
        pass


async def test_extra_info() -> None:
    async with serving() as server:
        async with ssh_fast.connect(LOOPBACK, server.port, encryption_algs='aes128-ctr', **client_options()) as conn:
            there = server.made[0].conn
            assert conn.get_extra_info('peername') == (LOOPBACK, server.port)
            assert there.get_extra_info('peername') == conn.get_extra_info('sockname')
            assert conn.get_extra_info('username') == there.get_extra_info('username') == USER
            assert conn.get_extra_info('send_cipher') == there.get_extra_info('recv_cipher') == 'aes128-ctr'
            assert conn.get_extra_info('server_version').startswith('SSH-2.0-')
            assert conn.get_extra_info('nothing', 5) == 5
            conn.set_extra_info(mine=1)
            assert conn.get_extra_info('mine') == 1


async def test_options_change_for_later_connections_only() -> None:
    async with ssh_fast.listen(LOOPBACK, 0, server_host_keys=[HOST_KEY], server_factory=Server) as server:
        async with ssh_fast.connect(LOOPBACK, server.get_port(), **client_options()) as first:
            server.update(encryption_algs=['aes256-ctr'])
            async with ssh_fast.connect(LOOPBACK, server.get_port(), **client_options()) as second:
                assert second.get_extra_info('send_cipher') == 'aes256-ctr' != first.get_extra_info('send_cipher')


async def test_many_connections_at_once() -> None:
    async with serving(process_factory=echo) as server:
        async def one(number: int) -> None:
            async with ssh_fast.connect(LOOPBACK, server.port, **client_options()) as conn:
                assert (await conn.run('x', input=f'{number}\n')).stdout == f'{number}\n'

        await asyncio.gather(*(one(number) for number in range(30)))
        assert [await owner.lost for owner in server.made] == [None] * 30


async def test_an_acceptor_and_an_error_handler() -> None:
    accepted: list[Any] = []
    failed: list[Any] = []

    async def acceptor(conn: Any) -> None:
        accepted.append(conn.get_extra_info('username'))

    async with serving(acceptor=acceptor, error_handler=lambda conn, exc: failed.append(exc)) as server:
        async with ssh_fast.connect(LOOPBACK, server.port, **client_options()):
            await asyncio.sleep(0.02)
        async with await Peer.connect(server.port) as peer:
            await peer.handshake()
        await asyncio.sleep(0.05)
    assert accepted == [USER]
    assert len(failed) == 1 and isinstance(failed[0], ssh_fast.ConnectionLost)


# --- the application's code


@pytest.mark.parametrize('kind', ['plain', 'coroutine'])
async def test_authentication_callbacks_plain_and_awaited(kind: str) -> None:
    async def later(value: Any) -> Any:
        await asyncio.sleep(0.01)
        return value

    answer = later if kind == 'coroutine' else lambda value: value

    class Asking(Server):
        def begin_auth(self, username: str) -> Any:
            return answer(True)

        def validate_password(self, username: str, password: str) -> Any:
            return answer(password == PASSWORD)

        def auth_completed(self) -> Any:
            return answer(None)

    class Client(ssh_fast.SSHClient):
        tries = ['wrong', PASSWORD]

        def password_auth_requested(self) -> Any:
            return answer(self.tries.pop(0) if self.tries else None)

    async with serving(Asking) as server:
        options = client_options(password=None, client_factory=Client, preferred_auth='password')
        async with ssh_fast.connect(LOOPBACK, server.port, **options) as conn:
            assert conn.get_extra_info('username') == USER


CALLBACKS = ['connection_made', 'begin_auth', 'validate_password', 'auth_completed', 'session_requested',
             'connection_lost', 'factory']


@pytest.mark.parametrize('callback', CALLBACKS)
async def test_an_exception_in_a_servers_callback_ends_that_connection_only(
    callback: str, caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    broken = True

    def fail(self: Any, *args: Any) -> Any:
        if broken:
            raise ZeroDivisionError(callback)
        return getattr(Server, callback)(self, *args)

    faulty = type('Faulty', (Server,), {} if callback == 'factory' else {callback: fail})
    if callback == 'factory':
        faulty = type('Faulty', (Server,), {'__init__': lambda self: fail(self) if broken else Server.__init__(self)})

    async def use(port: int) -> None:
        async with ssh_fast.connect(LOOPBACK, port, **client_options(connect_timeout=5)) as conn:
            await conn.run('x', input='')

    async with serving(process_factory=echo) as good, serving(faulty, process_factory=echo) as server:
        async with ssh_fast.connect(LOOPBACK, good.port, **client_options()) as bystander:
            before = open_files()
            if callback == 'connection_lost':
                await asyncio.wait_for(use(server.port), 5)
            else:
                with pytest.raises((ssh_fast.DisconnectError, ssh_fast.ChannelOpenError)):
                    await asyncio.wait_for(use(server.port), 5)
            for _ in range(100):
                gc.collect()
                if open_files() <= before:
                    break
                await asyncio.sleep(0.02)
            assert open_files() <= before, 'the socket is left open'
            assert (await bystander.run('x', input='')).exit_status == 0
            if callback != 'factory':
                broken = False
                await use(server.port)


@pytest.mark.parametrize('callback', ['connection_lost', 'error_handler'])
async def test_a_socket_is_closed_although_the_application_fails_to_hear_of_it(callback: str) -> None:
    """The timer of the login finds a silent peer; what the application is told of it raises."""
    heard: list[str] = []

    def fail(*args: Any) -> Any:
        heard.append('failed')
        raise ZeroDivisionError(callback)

    class Faulty(Server):
        def connection_lost(self, exc: Exception | None) -> None:
            heard.append('lost')
            if callback == 'connection_lost':
                fail()

    handler = fail if callback == 'error_handler' else None
    async with serving(Faulty, login_timeout=0.1, error_handler=handler) as server:
        async with await Peer.connect(server.port) as peer:
            await peer.handshake()
            gone = await peer.expect_gone(2)
            assert gone.code is not None
            await asyncio.wait_for(server.made[0].conn.wait_closed(), 2)
    assert sorted(heard) == ['failed', 'lost']


@pytest.mark.parametrize('callback', ['connection_made', 'begin_auth', 'auth_completed', 'validate_host_public_key',
                                      'password_auth_requested', 'factory'])
async def test_an_exception_in_a_clients_callback_is_raised_by_connect(callback: str) -> None:
    def fail(*args: Any) -> Any:
        raise ZeroDivisionError(callback)

    factory = fail if callback == 'factory' else type('Faulty', (ssh_fast.SSHClient,), {callback: fail})
    async with serving() as server:
        before = open_files()
        with pytest.raises(ZeroDivisionError, match=callback):
            await ssh_fast.connect(
                LOOPBACK,
                server.port,
                **client_options(
                    client_factory=factory,
                    known_hosts=b'' if 'host' in callback else None,
                    password=None if 'password' in callback else PASSWORD,
                ),
            )
        del factory
        for _ in range(50):
            gc.collect()
            if open_files() <= before:
                break
            await asyncio.sleep(0.02)
        assert open_files() <= before


async def test_authorized_keys_of_a_connection() -> None:
    """A server object may choose the keys of each user; their options are in force."""
    mine, forced = (ssh_fast.generate_private_key('ssh-ed25519') for _ in range(2))

    class Choosing(Server):
        def begin_auth(self, username: str) -> bool:
            line = mine.export_public_key().decode()
            if username == 'forced':
                line = 'command="echo forced",no-pty,environment="A=b" ' + forced.export_public_key().decode()
            self.conn.set_authorized_keys(ssh_fast.import_authorized_keys(line))
            return True

    seen: list[Any] = []

    def handle(process: Any) -> None:
        seen.append((process.command, process.get_terminal_type(), dict(process.env)))
        process.exit(0)

    async with serving(Choosing, process_factory=handle) as server:
        base = client_options(password=None)
        async with ssh_fast.connect(LOOPBACK, server.port, **{**base, 'client_keys': [mine]}) as conn:
            await conn.run('mine', term_type='vt100', env={'X': 'y'})
        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(LOOPBACK, server.port, **{**base, 'client_keys': [forced]})
        async with ssh_fast.connect(
            LOOPBACK, server.port, **{**base, 'client_keys': [forced], 'username': 'forced'}
        ) as conn:
            await conn.run('something else', env={'A': 'mine', 'X': 'y'})
            with pytest.raises(ssh_fast.ChannelOpenError):
                await conn.run('x', term_type='vt100')
    assert seen[0][:2] == ('mine', 'vt100') and seen[0][2].get('X') == 'y'
    assert seen[1][0] == 'echo forced' and seen[1][1] is None
    assert (seen[1][2].get('A'), seen[1][2].get('X')) == ('b', 'y'), "what the key sets is not the client's to change"


@pytest.mark.parametrize(
    ('pattern', 'admitted'), [('127.0.0.0/8', True), ('10.0.0.0/8', False), ('!127.0.0.1,*', False)]
)
async def test_from_is_checked_against_the_peer(pattern: str, admitted: bool) -> None:
    key = ssh_fast.generate_private_key('ssh-ed25519')
    keys = ssh_fast.import_authorized_keys(f'from="{pattern}" {key.export_public_key().decode()}')
    async with serving(authorized_client_keys=keys) as server:
        options = client_options(password=None, client_keys=[key])
        if admitted:
            async with ssh_fast.connect(LOOPBACK, server.port, **options):
                pass
        else:
            with pytest.raises(ssh_fast.PermissionDenied):
                await ssh_fast.connect(LOOPBACK, server.port, **options)


async def test_gssapi_is_asked_before_anything_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(options: Any) -> Any:
        raise ValueError('no ticket')

    monkeypatch.setattr(establish, 'client_contexts', refuse)
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(ValueError, match='no ticket'):
        await ssh_fast.run_client(ours, config=None, username='user', known_hosts=None, agent_path=None)
    assert ours.fileno() == -1
