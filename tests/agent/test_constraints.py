"""Keys that an agent uses only where they are meant for: what ssh-add says in bytes, and what ssh-agent then does."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from ssh_fast import SSHAgentDestination, SSHAgentHop, connect_agent, generate_private_key
from ssh_fast.agent.client import SSHAgentError
from ssh_fast.agent.constraints import encode_constraints
from ssh_fast.wire import encode_string

KEY = generate_private_key('ssh-ed25519', 'the key')
HOST, OTHER, AUTHORITY = (generate_private_key('ssh-ed25519') for _ in range(3))


@pytest.fixture
def agent_path(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / 'agent')
    agent = subprocess.Popen(['ssh-agent', '-D', '-a', path], stdout=subprocess.PIPE)
    assert agent.stdout
    agent.stdout.readline()
    yield path
    agent.terminate()
    agent.wait()
    agent.stdout.close()


@pytest.fixture
async def recorded(tmp_path: Path) -> AsyncIterator[tuple[str, list[bytes]]]:
    """An agent that says yes to everything, and keeps what it was asked."""

    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                requests.append(await reader.readexactly(int.from_bytes(await reader.readexactly(4), 'big')))
                writer.write(encode_string(b'\6'))

        writer.close()

    async with await asyncio.start_unix_server(serve, str(tmp_path / 'recorder')):
        yield str(tmp_path / 'recorder'), requests


async def test_destinations_are_encoded_as_ssh_add_does(tmp_path: Path, recorded: tuple[str, list[bytes]]) -> None:
    path, requests = recorded
    (tmp_path / 'key').touch(0o600)
    KEY.write_private_key(tmp_path / 'key')
    lines = [f'{name} {key.export_public_key().decode()}' for name, key in (('jump', HOST), ('target', OTHER))]
    lines.append(f'@cert-authority target {AUTHORITY.export_public_key().decode()}')
    (tmp_path / 'known').write_text('\n'.join(lines))
    command = ['ssh-add', '-q', '-t', '600', '-c', '-H', str(tmp_path / 'known')]
    command += ['-h', 'jump', '-h', 'jump>me@target', str(tmp_path / 'key')]
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, 'SSH_AUTH_SOCK': path})
    assert await process.wait() == 0
    theirs = requests.pop()

    jump = SSHAgentHop('jump', [HOST])
    target = SSHAgentHop('target', [OTHER], [AUTHORITY], 'me')
    destinations = [SSHAgentDestination(jump), SSHAgentDestination(target, jump)]

    async with connect_agent(path) as agent:
        await agent.add_constrained_keys([KEY], lifetime=600, confirm=True, destinations=destinations)

    assert requests == [theirs]


async def test_smartcards_and_security_keys(recorded: tuple[str, list[bytes]], monkeypatch: Any) -> None:
    path, requests = recorded
    destination = SSHAgentDestination(SSHAgentHop('host', [HOST]))
    monkeypatch.delenv('SSH_SK_PROVIDER', raising=False)

    class SecurityKey(ssh_fast.SSHKeyPair):
        def get_agent_private_key(self) -> bytes:
            return b'<private>'

    pair = SecurityKey(b'sk-ssh-ed25519@openssh.com', (b'sk-ssh-ed25519@openssh.com',), b'blob', 'c')
    provider = b'\xff' + encode_string('sk-provider@openssh.com')

    async with connect_agent(path) as agent:
        await agent.add_keys([pair])
        await agent.add_constrained_keys([pair], sk_provider='/lib/sk.so')
        monkeypatch.setenv('SSH_SK_PROVIDER', '/env/sk.so')
        await agent.add_keys([pair])
        await agent.add_keys([KEY])
        await agent.add_constrained_smartcard_keys('/lib/pkcs11.so', 'pin', lifetime=5, destinations=[destination])
        await agent.bind_session(b'host key', b'session', b'signature', True)

    sk = [b'\x19<private>' + encode_string('c') + provider + encode_string(name)
          for name in ('internal', '/lib/sk.so', '/env/sk.so')]  # fmt: skip
    assert requests[:3] == sk
    assert requests[3][0] == 17
    assert requests[4] == (
        b'\x1a' + encode_string('/lib/pkcs11.so') + encode_string('pin') + encode_constraints(5, False, [destination])
    )
    fields = ('session-bind@openssh.com', 'host key', 'session', 'signature')
    assert requests[5] == b'\x1b' + b''.join(map(encode_string, fields)) + b'\1'


@pytest.mark.parametrize(
    'destination',
    [
        SSHAgentDestination(SSHAgentHop()),
        SSHAgentDestination(SSHAgentHop('host')),
        SSHAgentDestination(SSHAgentHop('', [HOST])),
        SSHAgentDestination(SSHAgentHop('host', [HOST]), SSHAgentHop('from', [HOST], username='me')),
        SSHAgentDestination(SSHAgentHop('host', [HOST]), SSHAgentHop('from')),
    ],
)
def test_destinations_that_are_none(destination: SSHAgentDestination) -> None:
    with pytest.raises(ValueError, match='Expected'):
        encode_constraints(None, False, [destination])


async def test_a_key_is_used_at_its_destination_only(agent_path: str, tmp_path: Path) -> None:
    """The login tells the agent by which host key it proved itself; the agent judges what it then signs."""

    (tmp_path / 'authorized').write_bytes(KEY.export_public_key())
    listeners = {'server_host_keys': [HOST], 'authorized_client_keys': str(tmp_path / 'authorized')}

    async def login() -> None:
        port = server.get_port()
        await asyncio.sleep(0)
        async with ssh_fast.connect(
            '127.0.0.1', port, known_hosts=None, username='me', client_keys=(), agent_path=agent_path, config=None
        ) as connection:
            assert connection.get_extra_info('username') == 'me'

    async with ssh_fast.listen('127.0.0.1', 0, **listeners) as server, connect_agent(agent_path) as agent:
        for hop, allowed in [
            (SSHAgentHop('here', [HOST]), True),
            (SSHAgentHop('here', [OTHER, HOST], username='me'), True),
            (SSHAgentHop('here', [HOST], username='you'), False),
            (SSHAgentHop('there', [OTHER]), False),
        ]:
            await agent.remove_all()
            await agent.add_constrained_keys([KEY], destinations=[SSHAgentDestination(hop)])

            if allowed:
                await login()
            else:
                with pytest.raises(ssh_fast.PermissionDenied):
                    await login()

        # A program that doesn't say for what it asks gets nothing signed.
        with pytest.raises(SSHAgentError, match='refused to sign'):
            await agent.sign(KEY.public_data, b'data')


async def test_a_binding_must_be_true(agent_path: str) -> None:
    signature = HOST.sign(b'session', b'ssh-ed25519')

    async with connect_agent(agent_path) as agent:
        await agent.bind_session(HOST.public_data, b'session', signature)

    async with connect_agent(agent_path) as agent:
        for fields in [
            (HOST.public_data, b'another session', signature),
            (OTHER.public_data, b'session', signature),
            (b'', b'session', signature),
        ]:
            with pytest.raises(SSHAgentError, match='refused to bind'):
                await agent.bind_session(*fields)
