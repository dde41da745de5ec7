"""Attacks on the login that the field has seen, against live connections in both roles."""

import asyncio
import contextlib
import logging
from typing import Any

import pytest

import ssh_fast
from tests.security.peer import (
    LOOPBACK,
    PASSWORD,
    USER,
    Gone,
    Peer,
    Server,
    client_options,
    hostile_server,
    serving,
    string,
    uint32,
)

CONTROLS = '\x1b[2J\r\nFeb 30 root: \x9b31mall is well\u202e\0'
SAFE = {code for code in range(0x110000) if chr(code).isprintable()}


# --- messages of another state or role


@pytest.mark.parametrize('state', ['before NEWKEYS', 'before the service', 'before the login', 'after a failure'])
async def test_cve_2018_7750_and_2025_32433_channel_messages_before_the_login(state: str) -> None:
    """Each of 80 to 127 is fatal before USERAUTH_SUCCESS, and opens, answers and calls nothing."""
    calls: list[str] = []

    class Watching(Server):
        def session_requested(self) -> Any:
            calls.append('session')
            return False

    async def attack(number: int, server: Any) -> None:
        async with await Peer.connect(server.port) as peer:
            if state == 'before NEWKEYS':
                await peer.identify()
                peer.send(peer.kexinit())
            elif state == 'before the service':
                await peer.handshake()
            else:
                await peer.start_auth()
            if state == 'after a failure':
                peer.send(peer.password('wrong'))
                await peer.expect(51)
            body = {80: string(b'tcpip-forward') + b'\x01', 90: peer.open_session()[1:]}.get(number, uint32(0) * 3)
            peer.send(bytes([number]) + body)
            gone = await peer.expect_gone()
            assert gone.code == 2, (number, str(gone))
            assert not [payload for payload in peer.stash if payload[0] >= 80]

    async with serving(Watching) as server:
        for first in range(80, 128, 8):
            await asyncio.gather(*(attack(number, server) for number in range(first, first + 8)))
    assert calls == []


@pytest.mark.parametrize('number', [6, 51, 52, 53, 60, 63, 79])
@pytest.mark.parametrize('state', ['handshake', 'start_auth'])
async def test_cve_2018_10933_and_2018_1000805_messages_of_a_server_sent_by_a_client(number: int, state: str) -> None:
    """A client that says what only servers say is not let in, but thrown out."""
    async with serving() as server:
        async with await Peer.connect(server.port) as peer:
            await getattr(peer, state)()
            peer.send(bytes([number]) + string(b'ssh-userauth') + b'\0')
            assert (await peer.expect_gone()).code == 2
        assert server.made[0].conn.get_extra_info('username') is None


@pytest.mark.parametrize('number', [5, 50, 61, 66, 80, 90, 94, 98])
async def test_cve_2018_1000805_messages_of_a_client_sent_by_a_server(number: int) -> None:
    """A server that says what only clients say before the login, or anything of channels, is left."""
    async def script(peer: Peer) -> None:
        await peer.handshake()
        await peer.expect(5)
        peer.send(b'\x06' + string(b'ssh-userauth'))
        await peer.expect(50)
        peer.send(bytes([number]) + string(b'ssh-userauth') + string(b'ssh-connection') + string(b'none') + bytes(8))
        await peer.expect_gone()

    async with hostile_server(script) as port:
        with pytest.raises(ssh_fast.ProtocolError):
            await ssh_fast.connect(LOOPBACK, port, **client_options())


@pytest.mark.parametrize('second', [b'\x34', b'\x33' + string(b'password') + b'\0', b'\x33' + string(b'x') + b'\x01'])
async def test_cve_2023_46446_a_second_result_of_the_login(second: bytes) -> None:
    """After USERAUTH_SUCCESS a client takes no further result."""
    async def script(peer: Peer) -> None:
        await peer.admit()
        peer.send(second)
        await peer.expect_gone()

    lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    class Client(ssh_fast.SSHClient):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set_result(exc)

    async with hostile_server(script) as port:
        with contextlib.suppress(ssh_fast.ProtocolError):
            await ssh_fast.connect(LOOPBACK, port, **client_options(client_factory=Client))
        assert isinstance(await asyncio.wait_for(lost, 10), ssh_fast.ProtocolError)


async def test_cve_2023_46446_a_request_after_the_login_changes_nobody() -> None:
    async with serving() as server:
        async with await Peer.connect(server.port) as peer:
            await peer.login()
            peer.send(peer.password('secret', 'root'), peer.request(user='root'), b'\x50' + string(b'k') + b'\x01')
            peer.stash.clear()
            assert await peer.expect(82) and not peer.stash
            assert server.made[0].conn.get_extra_info('username') == USER
            assert server.made[0].users == [USER]


async def test_cve_2026_46705_another_user_or_service_between_requests() -> None:
    """What was begun for one user ends with the connection when another one is named."""
    async with serving() as server:
        for change in ('user', 'service'):
            async with await Peer.connect(server.port) as peer:
                await peer.start_auth()
                peer.send(peer.request())
                await peer.expect(51)
                other = peer.password(user='root' if change == 'user' else USER)
                peer.send(other if change == 'user' else other.replace(b'\x0essh-connection', b'\x0essh-connectiom'))
                assert (await peer.expect_gone()).code in (2, 7)
            assert server.made[-1].conn.get_extra_info('username') is None


# --- keys


def public_blob(key: ssh_fast.SSHKey) -> bytes:
    return key.public_data


def key_request(peer: Peer, asked: ssh_fast.SSHKey, signer: ssh_fast.SSHKey | None, algorithm: bytes = b'') -> bytes:
    """A query for a key, or a request signed by `signer`."""
    algorithm = algorithm or asked.algorithm
    fields = bytes([signer is not None]) + string(algorithm) + string(public_blob(asked))
    request = peer.request(b'publickey', fields)
    if signer is None:
        return request
    return request + string(signer.sign(string(peer.session_id) + request, signer.sig_algorithms[0]))


KEY_A, KEY_B, KEY_C = (ssh_fast.generate_private_key('ssh-ed25519') for _ in range(3))


def authorized(*lines: tuple[str, ssh_fast.SSHKey]) -> Any:
    text = ''.join(f'{options} {key.export_public_key().decode()}'.lstrip() for options, key in lines)
    return ssh_fast.import_authorized_keys(text)


async def test_cve_2024_45337_the_key_that_signs_is_the_key_that_counts() -> None:
    """A query for key A, then a signature of B: B's restrictions hold, and A's do not."""
    keys = authorized(('command="for A",no-pty', KEY_A), ('command="for B"', KEY_B))
    for first, second, command in ((KEY_A, KEY_B, 'for B'), (KEY_B, KEY_A, 'for A')):
        async with serving(authorized_client_keys=keys) as server:
            async with await Peer.connect(server.port) as peer:
                await peer.start_auth()
                peer.send(key_request(peer, first, None))
                await peer.expect(60)
                peer.send(key_request(peer, second, second))
                await peer.expect(52)
                conn = server.made[0].conn
                assert conn.get_key_option('command') == command
                assert conn.check_key_permission('pty') is (second is KEY_B)


@pytest.mark.parametrize('signer', ['another key', 'another session', 'another user', 'damaged'])
async def test_cve_2024_45337_signatures_that_prove_nothing(signer: str) -> None:
    async with serving(authorized_client_keys=authorized(('', KEY_A))) as server:
        async with await Peer.connect(server.port) as peer:
            await peer.start_auth()
            request = key_request(peer, KEY_A, KEY_B if signer == 'another key' else KEY_A)
            if signer == 'another session':
                kept, peer.session_id = peer.session_id, bytes(32)
                request = key_request(peer, KEY_A, KEY_A)
                peer.session_id = kept
            elif signer == 'another user':
                request = request.replace(string(USER), string(b'root'))
            elif signer == 'damaged':
                request = request[:-1] + bytes([request[-1] ^ 1])
            peer.send(request)
            assert await peer.expect(51)
        assert server.made[0].conn.get_extra_info('username') is None


async def test_dropbear_2026_90_a_forced_command_holds_in_every_combination() -> None:
    """command= is in force however the login goes on after the key: alone, and with a password behind it."""
    keys = authorized(('command="forced"', KEY_A), ('', KEY_C))
    for methods in (None, ['publickey,password'], ['password,publickey']):
        options = {} if methods is None else {'auth_methods': methods}
        async with serving(authorized_client_keys=keys, **options) as server:
            async with await Peer.connect(server.port) as peer:
                await peer.start_auth()
                steps = [key_request(peer, KEY_A, KEY_A), peer.password()]
                if methods is None:
                    steps = steps[:1]
                elif methods[0].startswith('password'):
                    steps.reverse()
                for step in steps[:-1]:
                    peer.send(step)
                    assert (await peer.expect(51))[-1] == 1
                peer.send(steps[-1])
                await peer.expect(52)
                assert server.made[0].conn.get_key_option('command') == 'forced'


async def test_dropbear_2026_90_a_blank_password_is_one_method_and_not_two() -> None:
    class Blank(Server):
        def validate_password(self, username: str, password: str) -> bool:
            return password == ''

    keys = authorized(('', KEY_A))
    async with serving(Blank, authorized_client_keys=keys, auth_methods=['publickey,password']) as server:
        async with await Peer.connect(server.port) as peer:
            await peer.start_auth()
            peer.send(peer.password(''))
            assert (await peer.expect(51))[-1] == 0
            peer.send(key_request(peer, KEY_A, KEY_A))
            assert (await peer.expect(51))[-1] == 1
            peer.send(peer.password(''))
            await peer.expect(52)


async def test_cve_2026_35387_a_signature_algorithm_is_matched_by_its_whole_name() -> None:
    """An RSA key under ssh-rsa, an ECDSA key under another curve's name: not taken."""
    rsa, ecdsa = ssh_fast.generate_private_key('ssh-rsa', key_size=2048), ssh_fast.generate_private_key(
        'ecdsa-sha2-nistp384'
    )
    keys = authorized(('', rsa), ('', ecdsa))
    async with serving(authorized_client_keys=keys, signature_algs=['rsa-sha2-256', 'ecdsa-sha2-nistp256']) as server:
        for key, name in ((rsa, b'ssh-rsa'), (rsa, b'rsa-sha2-512'), (ecdsa, b'ecdsa-sha2-nistp384'),
                          (ecdsa, b'ecdsa-sha2-nistp256'), (rsa, b'ssh-ed25519')):
            async with await Peer.connect(server.port) as peer:
                await peer.start_auth()
                peer.send(key_request(peer, key, None, name), peer.request())
                assert (await peer.expect(51, 60))[0] == 51, name


@pytest.mark.parametrize(
    'blob', [b'', b'\0', string(b'ssh-ed25519') + string(bytes(31)), string(b'ssh-ed25519') + string(bytes(33)),
             string(b'ssh-rsa') + string(b'\x03') + string(b'\x7f' * 4096), string(b'ssh-rsa') + b'\xff' * 8,
             string(b'ecdsa-sha2-nistp256') + string(b'nistp256') + string(b'\x04' + bytes(64)),
             string(b'ssh-ed25519-cert-v01@openssh.com') + bytes(64), string(b'../../etc/passwd')],
)
async def test_cve_2020_9283_keys_that_are_none_fail_their_attempt_only(blob: bytes) -> None:
    """Malformed, wrong-sized or huge keys are a failure like any other; they name no file either (CVE-2024-5806)."""
    async with serving(authorized_client_keys=authorized(('', KEY_A))) as server:
        async with await Peer.connect(server.port) as peer:
            await peer.start_auth()
            for signature in (b'', string(string(b'ssh-ed25519') + string(bytes(64)))):
                fields = bytes([bool(signature)]) + string(b'ssh-ed25519') + string(blob) + signature
                peer.send(peer.request(b'publickey', fields))
                await peer.expect(51)
            peer.send(key_request(peer, KEY_A, KEY_A))
            await peer.expect(52)


# --- counting and oracles


@pytest.mark.parametrize('method', ['password', 'publickey', 'keyboard-interactive', 'unknown'])
async def test_cve_2015_5600_every_method_counts(method: str) -> None:
    """Six failures of any kind end the connection."""
    async with serving(authorized_client_keys=authorized(('', KEY_A))) as server:
        async with await Peer.connect(server.port) as peer:
            await peer.start_auth()
            with pytest.raises(Gone, match='Too many'):
                for _ in range(7):
                    if method == 'password':
                        peer.send(peer.password('wrong'))
                    elif method == 'publickey':
                        peer.send(key_request(peer, KEY_B, KEY_B))
                    elif method == 'unknown':
                        peer.send(peer.request(b'gssapi-with-mic', uint32(0)))
                    else:
                        peer.send(peer.request(b'keyboard-interactive', string(b'') * 2))
                        if (await peer.expect(51, 60))[0] == 51:
                            continue
                        peer.send(b'\x3d' + uint32(1) + string(b'wrong'))
                    await peer.expect(51)


async def test_cve_2016_6515_long_passwords_are_not_judged() -> None:
    judged: list[int] = []

    class Judge(Server):
        def validate_password(self, username: str, password: str) -> bool:
            judged.append(len(password))
            return False

    async with serving(Judge) as server:
        async with await Peer.connect(server.port) as peer:
            await peer.start_auth()
            for size in (1024, 1025, 30_000):
                peer.send(peer.password('x' * size))
                await peer.expect(51)
    assert judged == [1024]


async def test_cve_2025_58181_counts_of_responses() -> None:
    """A count that is a claim, a hundred or 2^32-1, drives no allocation and does not pass."""
    async with serving() as server:
        for count in (0, 2, 100, 2**32 - 1):
            async with await Peer.connect(server.port) as peer:
                await peer.start_auth()
                peer.send(peer.request(b'keyboard-interactive', string(b'') * 2))
                await peer.expect(60)
                peer.send(b'\x3d' + uint32(count) + string(PASSWORD) * min(count, 2))
                try:
                    assert await peer.expect(51)
                except Gone as gone:
                    assert gone.code == 2


async def test_cve_2018_15473_unknown_users_get_the_same_bytes() -> None:
    """Whatever is asked, well or malformed, what comes back does not tell whether there is such a user."""
    attempts = [
        lambda peer, user: peer.request(user=user),
        lambda peer, user: peer.password('wrong', user),
        lambda peer, user: peer.request(b'password', b'\x00', user),
        lambda peer, user: peer.request(b'publickey', b'\x00' + string(b'ssh-ed25519') + string(b'x'), user),
        lambda peer, user: peer.request(b'publickey', b'\x01' + string(b'ssh-ed25519'), user),
        lambda peer, user: peer.request(b'publickey', b'\0' + string(b'ssh-ed25519') + string(KEY_B.public_data), user),
        lambda peer, user: peer.request(b'keyboard-interactive', string(b'') * 2, user),
        lambda peer, user: peer.request(b'keyboard-interactive', b'\xff', user),
        lambda peer, user: peer.request(b'hostbased', b'', user),
    ]
    async with serving(authorized_client_keys=authorized(('', KEY_A))) as server:
        for number, attempt in enumerate(attempts):
            replies = []
            for user in (USER, 'nobody', 'root', 'x' * 32):
                async with await Peer.connect(server.port) as peer:
                    await peer.start_auth()
                    peer.send(attempt(peer, user))
                    try:
                        replies.append(await peer.expect(51, 52, 60))
                    except Gone as gone:
                        replies.append(str(gone).encode())
            assert len(set(replies)) == 1, (number, replies)


@pytest.mark.parametrize('user', ['a\0b', 'a\nb', '\x1b[31m', '\u202eroot', 'x' * 2000, b'\xff\xfe'])
async def test_cve_2023_51385_user_names_with_control_characters(user: str | bytes) -> None:
    """Such a name reaches no callback; with `/` and `..` it does, and is the callback's to check."""
    async with serving() as server:
        async with await Peer.connect(server.port) as peer:
            await peer.start_auth()
            peer.send(peer.request(user=user))
            gone = await peer.expect_gone()
            assert gone.code == 15, str(gone)
            assert set(map(ord, gone.reason)) <= SAFE
        assert server.made[0].users == []


@pytest.mark.parametrize('host', ['a b', 'a\nb', 'a\0b', '\x1b[m', 'x' * 300])
async def test_cve_2023_6004_host_names_with_metacharacters(host: str) -> None:
    with pytest.raises(ValueError, match='host'):
        await ssh_fast.connect(host, 1, **client_options())


# --- logs and errors


def assert_safe(text: str) -> None:
    assert set(map(ord, text)) <= SAFE, ascii(text)


async def test_log_injection_by_a_client(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever text a client sends, each record stays one printable line."""
    caplog.set_level(logging.DEBUG, 'ssh_fast')
    evil = string(CONTROLS)
    async with serving(sftp_factory=True) as server:
        async with await Peer.connect(server.port) as peer:
            await peer.login()
            peer.send(
                b'\x04\x01' + evil * 2,
                b'\x50' + evil + b'\x01',
                b'\x5a' + evil + uint32(0) + uint32(100) * 2,
            )
            theirs = await peer.subsystem()
            request = b'\x62' + uint32(theirs)
            peer.send(request + evil + b'\x01', request + string(b'env') + b'\0' + evil * 2)
            peer.send(b'\x01' + uint32(2) + evil * 2)
            assert_safe(str(await server.made[0].lost))
        for request in (b'\x32' + string(USER) + evil + string(b'none'), Peer.request(Peer, CONTROLS.encode())):
            async with await Peer.connect(server.port) as peer:
                await peer.start_auth()
                peer.send(request, Peer.request(Peer, b'x', user='other'))
                assert_safe((await peer.expect_gone()).reason)
        async with await Peer.connect(server.port) as peer:
            peer.versions[0] = b'SSH-2.0-\x1b[31m'
            peer.writer.write(peer.versions[0] + b'\r\n')
            assert_safe(str(await server.made[-1].lost))
    assert caplog.records
    for record in caplog.records:
        assert_safe(record.getMessage())


@pytest.mark.parametrize('where', ['disconnect', 'methods', 'banner', 'channel', 'version', 'pre-line'])
async def test_log_injection_by_a_server(where: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, 'ssh_fast')
    evil = string(CONTROLS)

    async def script(peer: Peer) -> None:
        if where == 'pre-line':
            peer.writer.write(b'\x1b[2J\x07 hello\r\n')
        if where == 'version':
            peer.versions[0] = b'SSH-2.0-a\x1b[2Jb'
        await peer.handshake()
        await peer.expect(5)
        peer.send(b'\x06' + string(b'ssh-userauth'))
        await peer.expect(50)
        if where == 'disconnect':
            peer.send(b'\x01' + uint32(2) + evil * 2)
        elif where == 'methods':
            peer.send(b'\x33' + evil + b'\0')
        elif where == 'banner':
            peer.send(b'\x35' + evil * 2, b'\x01' + uint32(2) + evil * 2)
        else:
            peer.send(b'\x34')
            number = (await peer.expect(90))[12:16]
            peer.send(b'\x5c' + number + uint32(1) + evil * 2)
        await peer.expect_gone()

    banners: list[str] = []

    class Client(ssh_fast.SSHClient):
        def auth_banner_received(self, msg: str, lang: str) -> None:
            banners.append(msg)

    async with hostile_server(script) as port:
        with pytest.raises((ssh_fast.DisconnectError, ssh_fast.ChannelOpenError)) as raised:
            async with ssh_fast.connect(LOOPBACK, port, **client_options(client_factory=Client)) as conn:
                await conn.create_session(ssh_fast.SSHClientSession, 'x')
        assert_safe(str(raised.value))
    for banner in banners:
        assert '\x1b' not in banner and '\x9b' not in banner and '\0' not in banner
    for record in caplog.records:
        assert_safe(record.getMessage())


async def test_secrets_are_in_no_record_and_no_repr(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving() as server:
        secret = 'correct horse battery'
        with pytest.raises(ssh_fast.PermissionDenied) as raised:
            await ssh_fast.connect(LOOPBACK, server.port, **client_options(password=secret))
        options = ssh_fast.SSHClientConnectionOptions(**client_options(password=secret))
        shown = [str(raised.value), repr(options), *(record.getMessage() for record in caplog.records)]
        assert not [text for text in shown if secret in text]
