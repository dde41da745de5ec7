"""Forwarded agents, in both roles, between ssh-agent, ssh-add, OpenSSH's client and server, and ours."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from ssh_fast import SSHAgentDestination, SSHAgentHop
from ssh_fast.agent.client import SSHAgentError
from ssh_fast.connection.agent_forwarding import MAX_RELAYS
from tests.interop import peers
from tests.interop.ours import our_server
from tests.interop.peers import KeyRing, OpenSSHServer, Target
from tests.interop.test_auth import agent

LIST = 'ssh-add -L'

# uint32 length, byte SSH_AGENT_FAILURE
REFUSAL = b'\0\0\0\1\5'


@pytest.fixture
async def agent_path(key_ring: KeyRing, tmp_path: Path) -> AsyncIterator[str]:
    with agent(tmp_path, key_ring.private('forwarded', 'ed25519')) as path:
        yield str(path)


def key_of(ring: KeyRing) -> str:
    return ring.public('forwarded', 'ed25519').read_text()


class Shell:
    """A handler that runs each command in a shell, in the session's environment."""

    def __init__(self) -> None:
        self.paths: list[str | None] = []

    async def __call__(self, process: Any) -> None:
        path = process.channel.get_agent_path()
        self.paths.append(path)
        assert process.env.get('SSH_AUTH_SOCK') == path
        ours = {name: value for name, value in os.environ.items() if name != 'SSH_AUTH_SOCK'}
        environment = {**ours, **process.env}
        shell = await asyncio.create_subprocess_shell(process.command, env=environment, stdout=-1, stderr=-2)
        output, _ = await shell.communicate()
        process.stdout.write(output.decode())
        process.exit(shell.returncode)


@contextlib.asynccontextmanager
async def shell_server(ring: KeyRing, folder: Path, **options: Any) -> AsyncIterator[tuple[Target, Shell]]:
    shell = Shell()
    async with our_server(ring, folder / 'ours', process_factory=shell, **options) as target:
        yield target, shell


async def test_our_client_and_an_sshd(key_ring: KeyRing, agent_path: str, tmp_path: Path) -> None:
    with OpenSSHServer(key_ring, tmp_path / 'sshd') as server:
        for option in (True, agent_path):
            path = agent_path if option is True else None
            options = server.target.connect_options(agent_path=path, agent_forwarding=option)
            async with ssh_fast.connect(**options) as connection:
                done = await asyncio.gather(*(connection.run(LIST, check=True) for _ in range(5)))
                assert {result.stdout for result in done} == {key_of(key_ring)}


async def test_nothing_is_forwarded_unless_told(key_ring: KeyRing, agent_path: str, tmp_path: Path) -> None:
    with OpenSSHServer(key_ring, tmp_path / 'sshd') as server:
        async with ssh_fast.connect(**server.target.connect_options(agent_path=agent_path)) as connection:
            assert (await connection.run('echo "[$SSH_AUTH_SOCK]"', check=True)).stdout == '[]\n'


async def test_openssh_and_our_server(key_ring: KeyRing, agent_path: str, tmp_path: Path) -> None:
    async with shell_server(key_ring, tmp_path) as (target, shell):
        done = await peers.ssh(target, LIST, options=['ForwardAgent=yes', f'IdentityAgent={agent_path}']).run_async()
        assert done.stdout.decode() == key_of(key_ring)
        assert 'ssh_fast-' in str(shell.paths[0])
        alone = await peers.ssh(target, LIST, options=['ForwardAgent=no']).run_async(check=False)
        assert (alone.status, shell.paths[1]) == (2, None)


async def test_ours_and_ours_and_what_is_left(key_ring: KeyRing, agent_path: str, tmp_path: Path) -> None:
    async with shell_server(key_ring, tmp_path) as (target, shell):
        options = target.connect_options(agent_path=agent_path, agent_forwarding=True)
        async with ssh_fast.connect(**options) as connection:
            assert (await connection.run(LIST, check=True)).stdout == key_of(key_ring)
            assert (await connection.run(LIST, check=True)).stdout == key_of(key_ring)
            socket = Path(str(shell.paths[0]))
            assert shell.paths == [str(socket)] * 2, 'one socket serves all sessions of a connection'
            assert socket.is_socket() and socket.stat().st_mode & 0o777 == 0o600
            assert socket.parent.stat().st_mode & 0o777 == 0o700

        for _ in range(100):
            if not socket.parent.exists():
                break
            await asyncio.sleep(0.05)
        assert not socket.parent.exists()


class Keeper(ssh_fast.SSHServer):
    """Keeps its connection."""

    made: Any = None

    def connection_made(self, conn: Any) -> None:
        Keeper.made = conn


async def test_the_server_itself_asks(key_ring: KeyRing, agent_path: str, tmp_path: Path) -> None:
    async with shell_server(key_ring, tmp_path, server_factory=Keeper) as (target, _):
        options = target.connect_options(agent_path=agent_path, agent_forwarding=True)
        async with ssh_fast.connect(**options) as connection:
            with pytest.raises(ssh_fast.ChannelOpenError, match='forwards no agent'):
                await Keeper.made.open_agent_connection()

            await connection.run('true', check=True)

            async with ssh_fast.connect_agent(Keeper.made) as remote:
                [pair] = await remote.get_keys()
                assert pair.get_comment() == 'forwarded'
                sig = await pair.sign(b'data')
                assert ssh_fast.import_public_key(key_of(key_ring)).verify(b'data', sig)

            # as many as can be at a time, and one more
            opened = [await Keeper.made.open_agent_connection() for _ in range(MAX_RELAYS)]
            with pytest.raises(ssh_fast.ChannelOpenError, match='at most'):
                await Keeper.made.open_agent_connection()
            for _, writer in opened:
                writer.close()
                await writer.wait_closed()
            _, writer = await Keeper.made.open_agent_connection()
            writer.close()


@pytest.mark.parametrize('why', ['option', 'key', 'client'])
async def test_forwarding_that_is_not_allowed(why: str, key_ring: KeyRing, agent_path: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {'server_factory': Keeper}
    if why == 'option':
        settings['agent_forwarding'] = False
    if why == 'key':
        restricted = tmp_path / 'restricted'
        restricted.write_text(f'no-agent-forwarding {key_ring.public("user", "ed25519").read_text()}')
        settings['authorized_client_keys'] = str(restricted)
    async with shell_server(key_ring, tmp_path, **settings) as (target, shell):
        options = target.connect_options(agent_path=agent_path, agent_forwarding=why != 'client')
        async with ssh_fast.connect(**options) as connection:
            await connection.run('true', check=True)
            assert shell.paths == [None]
            if why == 'client':
                # A server that opens the channel all the same is refused by the client.
                assert await Keeper.made.create_agent_listener()
                with pytest.raises(ssh_fast.ChannelOpenError, match='No agent is forwarded'):
                    await Keeper.made.open_agent_connection()
            else:
                assert not await Keeper.made.create_agent_listener()
                with pytest.raises(ssh_fast.ChannelOpenError, match='forwards no agent'):
                    await Keeper.made.open_agent_connection()


async def test_an_agent_that_is_gone(key_ring: KeyRing, tmp_path: Path) -> None:
    async with shell_server(key_ring, tmp_path, server_factory=Keeper) as (target, _):
        options = target.connect_options(agent_forwarding=str(tmp_path / 'nothing'))
        async with ssh_fast.connect(**options) as connection:
            await connection.run('true', check=True)
            with pytest.raises(ssh_fast.ChannelOpenError, match='cannot be reached'):
                await Keeper.made.open_agent_connection()
            assert (await connection.run(LIST)).exit_status != 0
            assert (await connection.run('true')).exit_status == 0


async def test_a_forwarded_key_goes_only_where_it_may(key_ring: KeyRing, agent_path: str, tmp_path: Path) -> None:
    """The agent is told that a channel comes from that server, so keys that may not be used from there stay hidden."""

    host_key = ssh_fast.read_public_key(key_ring.public('host-ed25519', 'ed25519'))
    key = ssh_fast.generate_private_key('ssh-ed25519', 'bound')
    here = SSHAgentHop('here', [host_key])
    other = SSHAgentHop('other', [ssh_fast.generate_private_key('ssh-ed25519')])
    async with shell_server(key_ring, tmp_path) as (target, _), ssh_fast.connect_agent(agent_path) as local:
        options = target.connect_options(agent_path=agent_path, agent_forwarding=True)
        for destinations, shown in [
            ([SSHAgentDestination(here)], False),
            ([SSHAgentDestination(here), SSHAgentDestination(other, here)], True),
        ]:
            await local.remove_all()
            await local.add_constrained_keys([key], destinations=destinations)
            async with ssh_fast.connect(**options) as connection:
                listed = (await connection.run(LIST)).stdout
                assert ('bound' in str(listed)) is shown

        # What is forwarded may not be locked or emptied by the other side: OpenSSH's agent itself refuses to add.
        with pytest.raises(SSHAgentError):
            await local.unlock('x')


@pytest.mark.parametrize(
    ('reply', 'opens'), [(REFUSAL, True), (b'', False), (b'\0\0\0\1\x0c', False), (bytes(4), False)]
)
async def test_an_agent_that_was_not_told_of_the_session_is_not_forwarded(
    reply: bytes, opens: bool, key_ring: KeyRing, tmp_path: Path
) -> None:
    """Its keys for certain destinations would be there for all: to an agent a new connection is one of this host's."""

    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readexactly(int.from_bytes(await reader.readexactly(4), 'big'))
        writer.write(reply)
        if not reply:
            writer.close()
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(serve, str(tmp_path / 'closing')):
        async with shell_server(key_ring, tmp_path, server_factory=Keeper) as (target, _):
            options = target.connect_options(agent_forwarding=str(tmp_path / 'closing'))
            async with ssh_fast.connect(**options) as connection:
                await connection.run('true', check=True)
                if opens:
                    _, writer = await Keeper.made.open_agent_connection()
                    writer.close()
                else:
                    with pytest.raises(ssh_fast.ChannelOpenError, match='cannot be reached'):
                        await Keeper.made.open_agent_connection()
    assert connections == 1


async def test_large_answers_and_a_client_that_does_not_read(key_ring: KeyRing, tmp_path: Path) -> None:
    """The relay takes no more from the agent than the channel does."""

    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.suppress(OSError):
            await reader.readexactly(int.from_bytes(await reader.readexactly(4), 'big'))
            writer.write(REFUSAL)
            while True:
                writer.write(bytes(65536))
                sent += 65536
                await writer.drain()

    async with await asyncio.start_unix_server(serve, str(tmp_path / 'endless')):
        async with shell_server(key_ring, tmp_path, server_factory=Keeper) as (target, _):
            options = target.connect_options(agent_forwarding=str(tmp_path / 'endless'))
            async with ssh_fast.connect(**options) as connection:
                await connection.run('true', check=True)
                reader, writer = await Keeper.made.open_agent_connection()
                before = -1
                while sent != before:
                    before = sent
                    await asyncio.sleep(0.3)
                assert sent < 24 << 20
                assert await reader.readexactly(1 << 20) == bytes(1 << 20)
                writer.close()
