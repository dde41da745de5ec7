"""The agent client: with a real ssh-agent, and with agents that answer wrongly."""

import asyncio
import contextlib
import os
import subprocess

import pytest

from ssh_fast.agent.client import SSHAgentClient, SSHAgentError, SSHAgentKeyPair, connect_agent
from ssh_fast.keys.key import decode_public_key, generate_private_key, verify_signature
from ssh_fast.keys.keypair import SSHLocalKeyPair
from ssh_fast.wire import Cursor, encode_string, encode_uint32

KEYS = {
    name: generate_private_key(name, f'comment of {name}', **kwargs)
    for name, kwargs in [
        ('ssh-ed25519', {}),
        ('ecdsa-sha2-nistp256', {}),
        ('ecdsa-sha2-nistp384', {}),
        ('ecdsa-sha2-nistp521', {}),
        ('ssh-rsa', {'key_size': 2048}),
    ]
}
ED25519 = KEYS['ssh-ed25519']
BLOB = ED25519.public_data


@pytest.fixture
def agent_path(tmp_path):
    path = str(tmp_path / 'agent')
    agent = subprocess.Popen(['ssh-agent', '-D', '-a', path], stdout=subprocess.PIPE)
    agent.stdout.readline()
    yield path
    agent.terminate()
    agent.wait()


def ssh_add(agent_path, *args):
    env = {**os.environ, 'SSH_AUTH_SOCK': agent_path}

    return subprocess.run(['ssh-add', *args], env=env, check=True, capture_output=True).stdout


# --- a real agent


async def test_add_list_and_sign(agent_path):
    async with connect_agent(agent_path) as agent:
        assert await agent.get_keys() == []
        await agent.add_keys(list(KEYS.values()))
        pairs = await agent.get_keys()
        assert [pair.get_algorithm() for pair in pairs] == list(KEYS)
        assert [pair.get_comment() for pair in pairs] == [f'comment of {name}' for name in KEYS]

        for pair in pairs:
            assert pair.get_key_type() == 'agent'
            key = decode_public_key(pair.public_data)
            assert pair.sig_algorithms == key.sig_algorithms

            for sig_algorithm in pair.sig_algorithms:
                pair.set_sig_algorithm(sig_algorithm)
                sig = await pair.sign(b'data')
                assert verify_signature(key, b'data', sig, {sig_algorithm})

        assert ssh_add(agent_path, '-L') == b''.join(key.export_public_key() for key in KEYS.values())


async def test_keys_added_by_ssh_add(agent_path, tmp_path, monkeypatch):
    monkeypatch.setenv('SSH_AUTH_SOCK', agent_path)
    ED25519.write_private_key(tmp_path / 'key')
    ssh_add(agent_path, '-q', tmp_path / 'key')
    agent = await connect_agent()
    pairs = await agent.get_keys()
    assert [pair.public_data for pair in pairs] == [BLOB]
    assert await agent.get_keys(identities=[KEYS['ssh-rsa'].public_data]) == []
    assert len(await agent.get_keys(identities=[BLOB])) == 1
    agent.close()
    await agent.wait_closed()


async def test_remove(agent_path):
    async with connect_agent(agent_path) as agent:
        await agent.add_keys(list(KEYS.values()))
        pairs = await agent.get_keys()
        await pairs[0].remove()
        await agent.remove_keys(pairs[1:3])
        assert len(await agent.get_keys()) == 2

        with pytest.raises(SSHAgentError, match='refused to sign'):
            await pairs[0].sign(b'data')

        with pytest.raises(SSHAgentError, match='refused to remove'):
            await pairs[0].remove()

        await agent.remove_all()
        assert await agent.get_keys() == []


async def test_lock(agent_path):
    async with connect_agent(agent_path) as agent:
        await agent.add_keys([ED25519])
        await agent.lock('pass')
        assert await agent.get_keys() == []

        with pytest.raises(SSHAgentError, match='refused to unlock'):
            await agent.unlock('wrong')

        await agent.unlock('pass')
        assert len(await agent.get_keys()) == 1


async def test_lifetime_and_files(agent_path, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / '.ssh').mkdir()
    ED25519.write_private_key(tmp_path / '.ssh' / 'id_ed25519', passphrase='pass', rounds=1, ignore_few_rounds=True)

    async with connect_agent(agent_path) as agent:
        await agent.add_keys(passphrase='pass', lifetime=1)
        assert len(await agent.get_keys()) == 1
        await agent.add_keys([SSHLocalKeyPair(KEYS['ssh-rsa'])], lifetime=1000)
        await asyncio.sleep(2.1)
        assert [pair.get_algorithm() for pair in await agent.get_keys()] == ['ssh-rsa']

        with pytest.raises(ValueError, match='cannot be added'):
            await agent.add_keys(await agent.get_keys())


async def test_confirmation_is_asked_for(agent_path, monkeypatch):
    async with connect_agent(agent_path) as agent:
        await agent.add_keys([ED25519], confirm=True)

        # The agent has nobody to ask here, so that it refuses.
        with pytest.raises(SSHAgentError, match='refused to sign'):
            await (await agent.get_keys())[0].sign(b'data')

    assert SSHAgentClient.encode_constraints(5, True) == b'\1\0\0\0\5\2'
    assert SSHAgentClient.encode_constraints(None, False) == b''

    for bad in (0, -1, 1 << 32):
        with pytest.raises(ValueError, match='lifetime'):
            SSHAgentClient.encode_constraints(bad, False)


async def test_requests_at_the_same_time(agent_path):
    async with connect_agent(agent_path) as agent:
        await agent.add_keys([ED25519])
        pair = (await agent.get_keys())[0]
        sigs = await asyncio.gather(*(pair.sign(str(number).encode()) for number in range(50)))

        assert all(ED25519.verify(str(number).encode(), sig) for number, sig in enumerate(sigs))


async def test_extensions_of_an_agent_that_has_no_query(agent_path):
    async with connect_agent(agent_path) as agent:
        assert await agent.query_extensions() == []


async def test_smartcards_are_refused(agent_path):
    async with connect_agent(agent_path) as agent:
        with pytest.raises(SSHAgentError, match='refused'):
            await agent.add_smartcard_keys('/nowhere.so', 'pin', lifetime=10)

        with pytest.raises(SSHAgentError, match='refused'):
            await agent.remove_smartcard_keys('/nowhere.so')


async def test_no_agent(tmp_path, monkeypatch):
    monkeypatch.delenv('SSH_AUTH_SOCK', raising=False)

    with pytest.raises(OSError, match='SSH_AUTH_SOCK'):
        await connect_agent()

    with pytest.raises(OSError, match='No such file'):
        async with connect_agent(str(tmp_path / 'nothing')):
            pass


# --- agents that answer wrongly


class ScriptedAgent:
    """Answers each request by what a function returns: raw bytes, or None for no answer at all."""

    def __init__(self, path, answer):
        self.path = path
        self.answer = answer
        self.connections = 0

    async def __aenter__(self):
        self.server = await asyncio.start_unix_server(self.serve, self.path)
        self.client = SSHAgentClient(self.path)

        return self.client

    async def __aexit__(self, *exc_info):
        self.client.close()
        await self.client.wait_closed()
        self.server.close()

    async def serve(self, reader, writer):
        self.connections += 1

        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = await reader.readexactly(int.from_bytes(await reader.readexactly(4), 'big'))
                reply = self.answer(request)

                if reply is None:
                    break

                writer.write(reply)
                await writer.drain()

        writer.close()


def identities(*blobs, count=None):
    body = encode_uint32(len(blobs) if count is None else count)

    return encode_string(b'\x0c' + body + b''.join(encode_string(blob) + encode_string(b'c') for blob in blobs))


REQUESTS = {
    'get_keys': (lambda agent: agent.get_keys(), 12),
    'sign': (lambda agent: agent.sign(BLOB, b'data'), 14),
    'pair.sign': (lambda agent: SSHAgentKeyPair(agent, b'ssh-ed25519', BLOB, b'').sign(b'data'), 14),
    'add_keys': (lambda agent: agent.add_keys([ED25519]), 6),
    'remove_keys': (lambda agent: agent.remove_keys([SSHLocalKeyPair(ED25519)]), 6),
    'remove_all': (lambda agent: agent.remove_all(), 6),
    'add_smartcard_keys': (lambda agent: agent.add_smartcard_keys('x'), 6),
    'remove_smartcard_keys': (lambda agent: agent.remove_smartcard_keys('x'), 6),
    'lock': (lambda agent: agent.lock('x'), 6),
    'unlock': (lambda agent: agent.unlock('x'), 6),
}


@pytest.mark.parametrize('name', REQUESTS)
async def test_every_reply_type_to_every_request(name, tmp_path):
    request, expected = REQUESTS[name]
    kind = 0

    async with ScriptedAgent(str(tmp_path / 'agent'), lambda _: encode_string(bytes([kind]))) as agent:
        for kind in range(256):
            if kind == expected == 6:
                await request(agent)
            else:
                with pytest.raises(SSHAgentError):
                    await request(agent)


async def test_every_reply_type_to_an_extension_query(tmp_path):
    kind = 0

    names = encode_string(b'query') + encode_string(b'a@b')

    async with ScriptedAgent(str(tmp_path / 'agent'), lambda _: encode_string(bytes([kind]) + names)) as agent:
        for kind in range(256):
            if kind in (5, 28):
                assert await agent.query_extensions() == []
            elif kind == 29:
                assert await agent.query_extensions() == ['a@b']
            elif kind == 6:
                assert await agent.query_extensions() == ['query', 'a@b']
            else:
                with pytest.raises(SSHAgentError):
                    await agent.query_extensions()


@pytest.mark.parametrize(
    'reply',
    [
        None,
        b'\0\0\0\0',
        b'\0\4\0\1',
        b'\xff\xff\xff\xff',
        encode_string(b'\x0c'),
        encode_string(b'\x0c\0\0\0'),
        identities(count=1),
        identities(count=2048),
        identities(count=2049),
        identities(count=0xFFFFFFFF),
        identities(BLOB, count=0),
        identities(BLOB, count=2),
        identities(BLOB)[:-1] + b'\0',
    ],
)
async def test_malformed_lists_of_keys(reply, tmp_path):
    if reply is not None and reply[-1:] == b'\0' and len(reply) > 50:
        reply = encode_string(reply[4:] + b'\0')

    async with ScriptedAgent(str(tmp_path / 'agent'), lambda _: reply) as agent:
        with pytest.raises(SSHAgentError):
            await agent.get_keys()


async def test_2048_keys_are_taken(tmp_path):
    async with ScriptedAgent(str(tmp_path / 'agent'), lambda _: identities(*[BLOB] * 2048)) as agent:
        assert len(await agent.get_keys()) == 2048


async def test_keys_that_are_not_known_are_left_out(tmp_path):
    blobs = [b'', b'x', encode_string(b'ssh-foo'), encode_string(b'ssh-ed25519') + encode_string(bytes(31)), BLOB]

    async with ScriptedAgent(str(tmp_path / 'agent'), lambda _: identities(*blobs)) as agent:
        assert [pair.public_data for pair in await agent.get_keys()] == [BLOB]


@pytest.mark.parametrize(
    'sig',
    [
        b'',
        b'\0\0\0\x40',
        encode_string(b'ssh-ed25519') + encode_string(bytes(64)),
        encode_string(b'ssh-ed25519') + encode_string(bytes(63)),
        KEYS['ecdsa-sha2-nistp256'].sign(b'data', b'ecdsa-sha2-nistp256'),
        ED25519.sign(b'other data', b'ssh-ed25519'),
        ED25519.sign(b'data', b'ssh-ed25519') + b'\0',
    ],
)
async def test_wrong_signatures(sig, tmp_path):
    async with ScriptedAgent(str(tmp_path / 'agent'), lambda _: encode_string(b'\x0e' + encode_string(sig))) as agent:
        with pytest.raises(SSHAgentError, match='valid'):
            await SSHAgentKeyPair(agent, b'ssh-ed25519', BLOB, b'').sign(b'data')


async def test_an_rsa_signature_must_be_by_the_algorithm_asked_for(tmp_path):
    key = KEYS['ssh-rsa']
    flags = []

    def answer(request):
        cursor = Cursor(request[1:])
        cursor.string()
        cursor.string()
        flags.append(cursor.uint32())

        return encode_string(b'\x0e' + encode_string(key.sign(b'data', b'rsa-sha2-256')))

    async with ScriptedAgent(str(tmp_path / 'agent'), answer) as agent:
        pair = SSHAgentKeyPair(agent, b'ssh-rsa', key.public_data, b'')

        with pytest.raises(SSHAgentError, match='rsa-sha2-512'):
            await pair.sign(b'data')

        pair.set_sig_algorithm(b'rsa-sha2-256')
        assert key.verify(b'data', await pair.sign(b'data'))

    assert flags == [4, 2]


async def test_a_connection_out_of_step_is_not_used_again(tmp_path):
    """A reply to a request that was cancelled is not taken for the next one's."""

    release = asyncio.Event()
    served = 0

    async def serve(reader, writer):
        nonlocal served
        served += 1
        slow = served == 1
        await reader.readexactly(int.from_bytes(await reader.readexactly(4), 'big'))

        if slow:
            await release.wait()

        writer.write(identities(KEYS['ssh-rsa'].public_data if slow else BLOB))
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / 'agent')
    agent = SSHAgentClient(str(tmp_path / 'agent'))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(agent.get_keys(), 0.1)

    release.set()
    assert [pair.public_data for pair in await agent.get_keys()] == [BLOB]
    assert served == 2
    agent.close()
    await agent.wait_closed()
    server.close()


async def test_a_request_that_is_too_long(tmp_path):
    async with ScriptedAgent(str(tmp_path / 'agent'), lambda _: None) as agent:
        with pytest.raises(SSHAgentError, match='262144'):
            await agent.sign(BLOB, bytes(1 << 18))


async def test_a_stream_through_a_connection(agent_path):
    class Opener:
        async def open_agent_connection(self):
            return await asyncio.open_unix_connection(agent_path)

    async with connect_agent(Opener()) as agent:
        await agent.add_keys([ED25519])
        assert len(await agent.get_keys()) == 1
