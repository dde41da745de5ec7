"""Attacks on the transport that the field has seen, against live connections: a peer that holds the keys, and a proxy.

The tables of docs/security.md say which row each test stands for. What is tested on the parts themselves, down to every
bit, is in tests/core and tests/transport; here the whole connection must end, cleanly, and without having grown.
"""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import ssh_fast
from tests.reference.suites import Suite
from tests.security.peer import (
    IGNORE,
    LOOPBACK,
    MODES,
    USER,
    Gone,
    Peer,
    client_options,
    hostile_server,
    logs_in,
    resident_kib,
    serving,
    string,
    take_string,
    uint32,
)

KEEPALIVE = b'\x50' + string(b'keepalive@openssh.com') + b'\x01'
PING = b'\xc0' + string(b'are you there')
MAX_PACKET = 256 * 1024
DISCARDED = bytes(MAX_PACKET + 64)      # what a reader that must hide the length takes before it complains

by_mode = pytest.mark.parametrize('suite', MODES, ids=str)


def unaligned(suite: Suite) -> int:
    """How many bytes of the length field count for the alignment."""
    return 4 if suite.conceals_length else 0


def block_size(suite: Suite) -> int:
    return 8 if suite.name.startswith(b'chacha20') else 16


def framed(length: int, padding: int = 4, payload: bytes = IGNORE) -> bytes:
    """A packet of `length`, real if it is of a size that is worth sending."""
    size = min(length, MAX_PACKET + 16)
    return uint32(length) + (bytes([padding]) + payload).ljust(size, b'\0')[:size]


async def alive(peer: Peer) -> bool:
    peer.send(KEEPALIVE)
    return (await peer.expect(82)) == b'\x52'


# --- packets under valid tags


@by_mode
async def test_cve_2024_43410_and_2026_55200_lengths_under_a_valid_tag(suite: Suite) -> None:
    """Every length that no packet can have is refused, before anything of that size is allocated."""
    sizes = [*range(33), 34999, 35001, MAX_PACKET - 1, MAX_PACKET + 1, 2 * MAX_PACKET, 2**31 - 1, 2**31, 2**32 - 1]
    block, apart = block_size(suite), unaligned(suite)
    async with serving() as server:
        for warming in range(2):
            before = resident_kib()
            for length in sizes if warming else sizes[:8]:
                async with await Peer.connect(server.port, suite=suite) as peer:
                    await peer.login()
                    peer.send_framed(framed(length))
                    if (length + apart) % block == 0 and 8 <= length <= MAX_PACKET:
                        assert await alive(peer), length
                        peer.writer.close()
                        await server.made.pop().lost
                        continue
                    if suite.conceals_length:
                        peer.writer.write(DISCARDED)
                    gone = await peer.expect_gone()
                    assert gone.code in (2, 5) or (gone.code is None and suite.conceals_length), (length, str(gone))
                await server.made.pop().lost
            gc.collect()
            grown = resident_kib() - before
        # Where the length is hidden, as much as the longest packet is awaited first.
        assert grown < (4096 if suite.conceals_length else 1024), grown
        assert await logs_in(server.port)


@by_mode
async def test_cve_2021_43565_and_2026_46597_padding_and_empty_payloads(suite: Suite) -> None:
    """Padding of less than 4 bytes, or that leaves no payload, is refused under a valid tag."""
    length = 64 - unaligned(suite)
    async with serving() as server:
        for padding in (0, 1, 2, 3, length - 1, length, length + 1, 255):
            async with await Peer.connect(server.port, suite=suite) as peer:
                await peer.login()
                peer.send_framed(framed(length, padding))
                assert (await peer.expect_gone()).code == 2, padding


@by_mode
async def test_flipped_bits_of_a_live_connection(suite: Suite) -> None:
    """Nothing of a damaged packet is delivered, and the peer is told of the MAC and nothing else."""
    async with serving() as server:
        for position in (0, 3, 4, 20, -1):
            async with await Peer.connect(server.port, suite=suite) as peer:
                await peer.login()
                sealed = bytearray(peer.sender.send(KEEPALIVE))
                sealed[position] ^= 1
                # Behind it: enough for any length that the flip may claim.
                peer.writer.write(bytes(sealed) + DISCARDED)
                gone = await peer.expect_gone()
                assert gone.code in (2, 5, None), str(gone)
                assert not [payload for payload in peer.stash if payload[0] in (81, 82)]
                lost = await server.made[-1].lost
                assert isinstance(lost, (ssh_fast.MACError, ssh_fast.ProtocolError)), lost


async def test_cve_2008_5161_a_bad_length_looks_like_a_bad_mac() -> None:
    """Where the length is decrypted before the MAC is known, a wrong one is told by nothing: neither time nor words."""
    suite = Suite(b'aes128-ctr', b'hmac-sha2-256')
    told = []
    async with serving() as server:
        for length in (5, 2**31, 60):
            async with await Peer.connect(server.port, suite=suite) as peer:
                await peer.login()
                sealed = bytearray(peer.sender.send_framed(uint32(length) + b'\x04' + IGNORE + bytes(47)))
                sealed[-1] ^= length == 60
                peer.writer.write(sealed)
                if length != 60:
                    with pytest.raises(TimeoutError):
                        await peer.receive(0.1)
                    peer.writer.write(DISCARDED)
                await peer.expect_gone()
                lost = await server.made[-1].lost
                told.append((type(lost), lost.code))
    assert len(set(told)) == 1, told


# --- the handshake


ext_info = b'\x07' + uint32(1) + string(b'server-sig-algs') + string(b'none')


@pytest.mark.parametrize('strict', [True, False], ids=['strict', 'lax'])
@pytest.mark.parametrize(
    'payload', [ext_info, Peer.request(Peer, b'none'), b'\x34', b'\x33' + string(b'password') + b'\0',
                b'\x05' + string(b'ssh-userauth'), b'\x06' + string(b'ssh-userauth'), KEEPALIVE],
    ids=['EXT_INFO', 'USERAUTH_REQUEST', 'USERAUTH_SUCCESS', 'USERAUTH_FAILURE', 'SERVICE_REQUEST', 'SERVICE_ACCEPT',
         'GLOBAL_REQUEST'],
)
async def test_cve_2023_46445_and_46446_messages_slipped_in_before_newkeys(payload: bytes, strict: bool) -> None:
    """What is not encrypted takes part in nothing, whoever receives it."""
    async with serving() as server:
        for place in ('between', 'before_newkeys'):
            async with await Peer.connect(server.port, strict=strict) as peer:
                with pytest.raises(Gone):
                    await peer.handshake(**{place: [payload]})
                    raise await peer.expect_gone()
                assert server.made[-1].users == []

    for place in ('between', 'before_newkeys'):
        async def script(peer: Peer, place: str = place) -> None:
            await peer.handshake(**{place: [payload]})
            await peer.expect_gone()

        async with hostile_server(script, strict=strict) as port:
            with pytest.raises(ssh_fast.ProtocolError):
                await logs_in(port)


async def test_cve_2016_8858_a_second_kexinit() -> None:
    async with serving() as server:
        async with await Peer.connect(server.port) as peer:
            await peer.identify()
            peer.send(peer.kexinit(), peer.kexinit())
            assert (await peer.expect_gone()).code == 2
        async with await Peer.connect(server.port) as peer:
            await peer.login()
            peer.send(peer.kexinit(), peer.kexinit())
            assert (await peer.expect_gone()).code == 2


async def test_cve_2025_8277_wrong_guesses_leak_nothing() -> None:
    """1000 rekeys whose guess was wrong: one packet is skipped each time, and no memory stays behind."""
    async with serving() as server:
        async with await Peer.connect(server.port) as peer:
            await peer.login()
            for turn in range(1000):
                if turn == 200:
                    before = resident_kib()
                # Our server prefers a method that this peer does not even have.
                await peer.exchange(kexinit=peer.kexinit(follows=True), between=[b'\x1e' + string(b'a guess')])
            assert await alive(peer)
            assert server.made[0].conn._ssh.rekeys == 1000
            assert resident_kib() - before < 2048


async def test_the_peer_must_end_its_key_exchange_before_anything_else() -> None:
    """After a KEXINIT of the peer's, data of its channels is a disconnect (OpenSSH 10.4, 72b05ecd1)."""
    for payload in (KEEPALIVE, b'\x5e' + uint32(0) + string(b'data'), b'\x05' + string(b'ssh-userauth'), ext_info):
        async with serving() as server:
            async with await Peer.connect(server.port) as peer:
                await peer.login()
                peer.send(peer.kexinit(), payload)
                assert (await peer.expect_gone()).code == 2


async def test_cve_2026_60002_another_host_key_in_a_rekey() -> None:
    async def script(peer: Peer) -> None:
        await peer.admit()
        peer._host_key = Ed25519PrivateKey.generate()
        await peer.exchange()

    lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    class Client(ssh_fast.SSHClient):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set_result(exc)

    async with hostile_server(script) as port:
        async with ssh_fast.connect(LOOPBACK, port, **client_options(client_factory=Client)):
            assert isinstance(await asyncio.wait_for(lost, 10), (ssh_fast.KeyExchangeFailed, ssh_fast.DisconnectError))


async def test_cve_2026_55199_the_count_of_ext_info() -> None:
    async with serving() as server:
        for count in (2**32 - 1, 1024, 2):
            async with await Peer.connect(server.port) as peer:
                await peer.handshake()
                peer.send(b'\x07' + uint32(count) + string(b'a') + string(b'b'))
                assert (await peer.expect_gone()).code == 2


# --- trust in the server


async def serve_handshakes(peer: Peer) -> None:
    await peer.admit()
    await peer.expect_gone()


async def test_cve_2017_3204_no_policy_means_no_trust() -> None:
    """A client that was told nothing about known hosts refuses, and sends nothing of its login."""
    admitted = []

    async def script(peer: Peer) -> None:
        await peer.handshake()
        with contextlib.suppress(Gone):
            admitted.append(await peer.expect(5, 50))

    async with hostile_server(script) as port:
        with pytest.raises(ssh_fast.HostKeyNotVerifiable):
            await ssh_fast.connect(LOOPBACK, port, username=USER, password='secret', client_keys=None)
    assert admitted == []


def broken_known_hosts(host: str, addr: str, port: int) -> Any:
    raise MemoryError('no room to look')


@pytest.mark.parametrize('step', ['known_hosts', 'owner', 'decode', 'signature'])
@pytest.mark.parametrize('fault', [MemoryError('no room'), ValueError('surprise')], ids=['MemoryError', 'ValueError'])
async def test_cve_2025_26465_a_fault_while_the_host_key_is_checked(
    monkeypatch: pytest.MonkeyPatch, step: str, fault: Exception
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise fault

    requests = []

    async def script(peer: Peer) -> None:
        await peer.handshake()
        requests.append(await peer.expect(5))

    class Client(ssh_fast.SSHClient):
        validate_host_public_key = fail if step == 'owner' else lambda *args: True

    known_hosts: Any = b''
    if step == 'known_hosts':
        known_hosts = fail
    elif step == 'decode':
        monkeypatch.setattr('ssh_fast.connection.host_keys.decode_public_key', fail)
    elif step == 'signature':
        monkeypatch.setattr('ssh_fast.transport.exchange.verify_signature', fail)

    async with hostile_server(script) as port:
        with pytest.raises((type(fault), ssh_fast.DisconnectError, OSError)):
            await ssh_fast.connect(
                LOOPBACK, port, **client_options(known_hosts=known_hosts, client_factory=Client, connect_timeout=5)
            )
    assert requests == []


async def test_cve_2020_14145_the_order_of_host_key_algorithms() -> None:
    """A known key changes the order only if its type is not first already."""
    offered = []

    async def script(peer: Peer) -> None:
        await peer.identify()
        payload = await peer.expect(20)
        _, rest = take_string(payload[17:])
        offered.append(take_string(rest)[0])

    async with hostile_server(script) as port:
        first = ssh_fast.generate_private_key('ssh-ed25519').export_public_key().decode()
        other = ssh_fast.generate_private_key('ecdsa-sha2-nistp384').export_public_key().decode()
        for known in ('', first, other):
            line = f'[{LOOPBACK}]:{port} {known}' if known else ''
            with pytest.raises(ssh_fast.DisconnectError):
                await ssh_fast.connect(LOOPBACK, port, **client_options(known_hosts=line.encode()))
    unknown, known_first, known_other = offered
    assert unknown == known_first
    assert known_other.startswith(b'ecdsa-sha2-nistp384,ssh-ed25519')


async def test_what_a_server_and_a_client_offer() -> None:
    """Nothing with SHA-1 in the exchange, no CBC, no RC4, no plain zlib; compression is not preferred."""
    seen = []

    async def script(peer: Peer) -> None:
        await peer.identify()
        seen.append(await peer.expect(20))

    async with hostile_server(script) as port:
        with pytest.raises(ssh_fast.DisconnectError):
            await ssh_fast.connect(LOOPBACK, port, **client_options())
    async with serving() as server:
        async with await Peer.connect(server.port) as peer:
            await peer.identify()
            seen.append(await peer.expect(20))
    for payload in seen:
        lists, rest = [], payload[17:]
        for _ in range(8):
            names, rest = take_string(rest)
            lists.append(names.split(b','))
        kex, host_keys, ciphers, _, _, _, compression, _ = lists
        assert not [name for name in kex if b'sha1' in name or b'group1-' in name]
        assert not {b'ssh-rsa', b'ssh-dss'} & set(host_keys)
        assert not [name for name in ciphers if b'cbc' in name or b'arcfour' in name or b'3des' in name]
        assert compression[0] == b'none'
        assert b'zlib' not in compression


# --- floods


@contextlib.asynccontextmanager
async def flooded(count: int, payload: bytes, prepare: Callable[[Peer], Awaitable[Any]]) -> AsyncIterator[Peer]:
    """Send a message many times without reading anything; memory must stay, and others must be served meanwhile."""
    async with serving() as server:
        async with await Peer.connect(server.port) as peer:
            await prepare(peer)
            peer.writer.transport.pause_reading()
            before = resident_kib()
            for turn in range(0, count, 500):
                peer.send(*[payload] * 500)
                try:
                    await asyncio.wait_for(peer.writer.drain(), 0.3)
                except TimeoutError:
                    # It is not read any more: it has answers to take first.
                    break
                if turn == 1000:
                    assert await logs_in(server.port)
            assert await logs_in(server.port)
            conn = server.made[0].conn
            assert conn._writer.backlog <= 2 * 1024 * 1024
            assert resident_kib() - before < 24 * 1024
            peer.writer.transport.resume_reading()
            yield peer


@pytest.mark.parametrize('state', ['start_auth', 'login'])
async def test_cve_2025_26466_a_flood_of_pings(state: str) -> None:
    """Before the login there is no answer at all; afterwards the answers that wait are bounded."""
    async with flooded(20_000, b'\xc0' + string(bytes(200)), getattr(Peer, state)) as peer:
        if state == 'start_auth':
            peer.send(peer.password())
            await peer.expect(52)
            assert not [payload for payload in peer.stash if payload[0] == 193]
        peer.send(PING)


async def test_cve_2025_26466_pings_in_a_key_exchange() -> None:
    async with serving() as server:
        async with await Peer.connect(server.port) as peer:
            await peer.login()
            ours = peer.kexinit()
            peer.send(ours)
            peer.send(*[PING] * 5000)
            await peer.finish_exchange(ours, await peer.expect(20))
            assert await alive(peer)
            assert not [payload for payload in peer.stash if payload[0] == 193]
            peer.send(PING)
            assert await peer.expect(193) == b'\xc1' + PING[1:]


@pytest.mark.parametrize(
    'payload', [IGNORE, b'\x04\x01' + string(bytes(200)) + string(b''), b'\x03' + uint32(7), KEEPALIVE, b'\xdc',
                b'\x5a' + string(b'no such type') + uint32(0) + uint32(100) * 2],
    ids=['IGNORE', 'DEBUG', 'UNIMPLEMENTED', 'GLOBAL_REQUEST', 'unknown', 'CHANNEL_OPEN'],
)
async def test_floods_of_small_messages(payload: bytes) -> None:
    async with flooded(20_000, payload, Peer.login) as peer:
        await peer.drain()
        assert await alive(peer)


# --- peers that stall


async def test_cve_2025_22869_a_peer_that_stalls_a_rekey() -> None:
    """200 MiB are written while the peer never answers our KEXINIT: what waits is bounded, and the wait ends."""
    stalled = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.admit()
        theirs = await peer.accept_session(window=2**32 - 1)
        await peer.expect(20)
        stalled.set()
        # A careful attacker goes on reading, and answering what keeps a connection alive.
        with contextlib.suppress(Gone):
            while True:
                payload = await peer.receive()
                assert payload[0] not in (80, 90, 94, 98), payload[0]
        del theirs

    async with hostile_server(script) as port:
        async with ssh_fast.connect(LOOPBACK, port, **client_options(rekey_seconds=0.3)) as conn:
            conn._ssh._policy._timeout = 1.5
            writer, _, _ = await conn.open_session('sink', encoding=None)
            before = resident_kib()
            block = bytes(1 << 20)
            written = 0
            with pytest.raises((ssh_fast.KeyExchangeFailed, BrokenPipeError, ConnectionError)):
                for _ in range(200):
                    writer.write(block)
                    written += len(block)
                    await asyncio.wait_for(writer.drain(), 10)
                    await asyncio.sleep(0.01)
            assert stalled.is_set()
            assert written < 200 << 20
            assert resident_kib() - before < 64 * 1024
            await asyncio.wait_for(conn.wait_closed(), 15)
            assert isinstance(conn._exc, ssh_fast.KeyExchangeFailed)


@pytest.mark.parametrize('stage', ['silent', 'dripping', 'identified', 'keyed', 'in auth', 'pinging'])
async def test_cve_2024_6387_slow_peers_before_the_login_are_dropped(stage: str) -> None:
    """The grace time covers everything before the login, and is a timer of the loop."""
    async with serving(login_timeout=0.7) as server:
        async with await Peer.connect(server.port) as peer:
            if stage in ('identified', 'keyed', 'in auth', 'pinging'):
                await (peer.identify() if stage == 'identified' else peer.start_auth())
            loop = asyncio.get_running_loop()
            started = loop.time()
            if stage == 'in auth':
                peer.send(peer.password('wrong'))

            async def keep_busy() -> None:
                while True:
                    if stage == 'dripping':
                        peer.writer.write(b'S' if loop.time() == started else b'x')
                    elif stage == 'pinging':
                        peer.send(PING, IGNORE)
                    await asyncio.sleep(0.05)

            busy = asyncio.ensure_future(keep_busy())
            if stage in ('silent', 'dripping'):
                with contextlib.suppress(ConnectionError):
                    await asyncio.wait_for(peer._reader.read(), 5)
            else:
                await peer.expect_gone(5)
            busy.cancel()
            assert isinstance(await asyncio.wait_for(server.made[0].lost, 5), ssh_fast.DisconnectError)
        assert await logs_in(server.port)


@pytest.mark.parametrize(
    'line', [b'GET / HTTP/1.1\r\n', b'SSH-1.5-old\r\n', b'SSH-2.0-' + b'x' * 300 + b'\r\n', b'SSH-2.0-a\0b\r\n',
             b'x' * 70_000, b'SSH-2.0-\xff\xfe\r\n' + bytes(64)],
    ids=['http', 'version 1', '300 bytes', 'NUL', 'endless', 'not ASCII'],
)
async def test_cve_2022_21716_and_2026_48108_identification_lines(line: bytes) -> None:
    async with serving() as server:
        async with await Peer.connect(server.port) as peer:
            peer.writer.write(line)
            with contextlib.suppress(ConnectionError):
                received = await asyncio.wait_for(peer._reader.read(), 5)
                assert received.startswith(b'SSH-2.0-') or not received
            assert isinstance(await server.made[0].lost, ssh_fast.DisconnectError)


async def test_cve_2022_21716_and_2026_48108_lines_of_a_server() -> None:
    """A server may say a little before its identification, but not for ever."""
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            for _ in range(200_000):
                writer.write(b'welcome, and wait\r\n' * 100)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, LOOPBACK, 0)
    with pytest.raises(ssh_fast.DisconnectError):
        await ssh_fast.connect(LOOPBACK, server.sockets[0].getsockname()[1], **client_options(connect_timeout=10))
    server.close()
