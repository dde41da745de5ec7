"""Attacks on channels that the field has seen, against live connections."""

import asyncio
from typing import Any

import pytest

import ssh_fast
from tests.security.peer import (
    LOOPBACK,
    Gone,
    Peer,
    Server,
    client_options,
    data,
    hostile_server,
    resident_kib,
    serving,
    string,
    take_string,
    uint32,
)

KEEPALIVE = b'\x50' + string(b'keepalive@openssh.com') + b'\x01'


class Recorder(ssh_fast.SSHServerSession):
    """A session that takes everything and remembers what it was called with."""

    made: list['Recorder']

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.received = 0

    def connection_made(self, chan: Any) -> None:
        self.chan = chan

    def exec_requested(self, command: str) -> bool:
        return True

    def data_received(self, content: Any, datatype: Any) -> None:
        self.calls.append('data')
        self.received += len(content)

    def eof_received(self) -> bool:
        self.calls.append('eof')
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append('lost')


def recording() -> tuple[list[Recorder], type[Server]]:
    made: list[Recorder] = []

    class Recording(Server):
        def session_requested(self) -> Any:
            made.append(Recorder())
            return made[-1]

    return made, Recording


async def start(peer: Peer, **options: int) -> int:
    """Log in and start a command; return the server's channel number."""
    await peer.login()
    peer.send(peer.open_session(**options))
    theirs = int.from_bytes((await peer.expect(91))[5:9], 'big')
    peer.send(b'\x62' + uint32(theirs) + string(b'exec') + b'\x01' + string(b'x'))
    await peer.expect(99)
    return theirs


# --- windows


async def test_an_overrun_of_the_window_ends_the_connection() -> None:
    """A server that is sent more than it granted does not take it (no grace is granted either)."""
    made, owner = recording()
    async with serving(owner, window=65536, max_window=65536, encoding=None) as server:
        async with await Peer.connect(server.port) as peer:
            theirs = await start(peer)
            made[0].chan.pause_reading()
            peer.send(*[data(theirs, bytes(32768))] * 2)
            peer.send(KEEPALIVE)
            await peer.expect(82)
            peer.send(data(theirs, b'x'))
            assert (await peer.expect_gone()).code == 2
        assert made[0].received <= 65536


async def test_a_packet_larger_than_the_maximum_ends_the_connection() -> None:
    made, owner = recording()
    async with serving(owner, encoding=None) as server:
        async with await Peer.connect(server.port) as peer:
            theirs = await start(peer)
            peer.send(data(theirs, bytes(32769)))
            assert (await peer.expect_gone()).code == 2
        assert made[0].received == 0


async def test_cve_2025_54804_a_window_that_overflows() -> None:
    _made, owner = recording()
    async with serving(owner) as server:
        for window, adjusts in ((2**32 - 1, [1]), (1, [2**32 - 1]), (0, [2**31, 2**31])):
            async with await Peer.connect(server.port) as peer:
                theirs = await start(peer, window=window)
                peer.send(*(b'\x5d' + uint32(theirs) + uint32(size) for size in adjusts))
                assert (await peer.expect_gone()).code == 2
        async with await Peer.connect(server.port) as peer:
            theirs = await start(peer, window=2**32 - 2)
            peer.send(b'\x5d' + uint32(theirs) + uint32(1), KEEPALIVE)
            assert await peer.expect(82)


async def test_a_client_is_overrun_by_a_server() -> None:
    """The same in the other role: a client whose window a hostile server does not keep."""
    async def script(peer: Peer) -> None:
        await peer.admit()
        theirs = await peer.accept_session()
        peer.send(*[data(theirs, bytes(32768))] * 100)
        assert (await peer.expect_gone()).code == 2

    async with hostile_server(script) as port:
        options = client_options(window=65536, max_window=65536, encoding=None)
        async with ssh_fast.connect(LOOPBACK, port, **options) as conn:
            with pytest.raises(ssh_fast.ProtocolError):
                async with conn.create_process('x') as process:
                    await asyncio.sleep(0.2)
                    while await process.stdout.read(1000):
                        pass


# --- sizes and numbers


@pytest.mark.parametrize('packet', [0, 1, 2**32 - 1])
async def test_cve_2026_59843_maximum_packet_sizes_of_a_client(packet: int) -> None:
    """Of 0 the connection ends; of 1 byte every byte goes in a packet of its own; 2^32-1 is not believed."""
    made, owner = recording()
    async with serving(owner, encoding=None) as server:
        async with await Peer.connect(server.port) as peer:
            if not packet:
                await peer.login()
                peer.send(peer.open_session(packet=0))
                assert (await peer.expect_gone()).code == 2
                return
            await start(peer, packet=packet, window=2**31)
            made[0].chan.write(b'hello' if packet == 1 else bytes(1 << 20))
            received = 0
            while received < (5 if packet == 1 else 1 << 20):
                content, _ = take_string((await peer.expect(94))[5:])
                assert 1 <= len(content) <= min(packet, 256 * 1024)
                received += len(content)


@pytest.mark.parametrize('packet', [0, 1])
async def test_cve_2026_59843_maximum_packet_sizes_of_a_server(packet: int) -> None:
    received: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.admit()
        await peer.accept_session(packet=packet)
        while len(received) < 5:
            received.append((await peer.expect(94))[9:])

    async with hostile_server(script) as port:
        async with ssh_fast.connect(LOOPBACK, port, **client_options()) as conn:
            if packet:
                process = await conn.create_process('x')
                process.stdin.write('hello')
                await asyncio.wait_for(conn.wait_closed(), 10)
                assert received == [b'h', b'e', b'l', b'l', b'o']
            else:
                with pytest.raises(ssh_fast.ProtocolError):
                    await conn.create_process('x')


@pytest.mark.parametrize('number', [93, 94, 95, 96, 97, 98, 99, 100])
@pytest.mark.parametrize('channel', [1, 7, 2**31, 2**32 - 1])
async def test_cve_2026_59850_messages_for_channels_that_are_not_open(number: int, channel: int) -> None:
    made, owner = recording()
    body = {93: uint32(1), 94: string(b'x'), 95: uint32(1) + string(b'x'), 98: string(b'exec') + b'\0' + string(b'y')}
    async with serving(owner) as server:
        async with await Peer.connect(server.port) as peer:
            await start(peer)
            peer.send(bytes([number]) + uint32(channel) + body.get(number, b''))
            assert (await peer.expect_gone()).code == 2
        assert 'data' not in made[0].calls and 'eof' not in made[0].calls


async def test_cve_2026_59850_messages_after_eof_and_close() -> None:
    """Behind its EOF a peer has no data, behind its CLOSE nothing at all."""
    for end, late in ((b'\x60', 94), (b'\x61', 94), (b'\x61', 96), (b'\x61', 97), (b'\x61', 98), (b'\x61', 93)):
        made, owner = recording()
        body = {93: uint32(1), 94: string(b'x'), 98: string(b'exec') + b'\0' + string(b'y')}.get(late, b'')
        async with serving(owner) as server:
            async with await Peer.connect(server.port) as peer:
                theirs = await start(peer)
                # An application that has not finished keeps the channel: it is half closed.
                peer.send(end + uint32(theirs), bytes([late]) + uint32(theirs) + body)
                assert (await peer.expect_gone()).code == 2, (end, late)
            assert 'data' not in made[0].calls


async def test_cve_2026_59850_confirmations_that_nobody_waits_for() -> None:
    _made, owner = recording()
    async with serving(owner) as server:
        for payload in (b'\x5b' + uint32(0) * 4, b'\x5c' + uint32(0) * 2 + string(b'') * 2, b'\x5b' + uint32(9) * 4):
            async with await Peer.connect(server.port) as peer:
                await start(peer)
                peer.send(payload)
                assert (await peer.expect_gone()).code == 2


# --- what must not grow, stall or spin


async def test_cve_2026_39827_rejected_channels_leave_nothing() -> None:
    async with serving() as server:
        async with await Peer.connect(server.port) as peer:
            await peer.login()
            for turn in range(6):
                for number in range(1000):
                    kind = peer.open_session(number) if number % 2 else (
                        b'\x5a' + string(b'x11') + uint32(number) + uint32(100) * 2 + string(b'h') + uint32(1)
                    )
                    peer.send(kind)
                for _ in range(1000):
                    await peer.expect(92)
                if turn == 1:
                    before = resident_kib()
            assert resident_kib() - before < 1024
            assert server.made[0].conn._mux.channels == []


async def test_cve_2026_39830_unsolicited_replies_are_dropped() -> None:
    _made, owner = recording()
    async with serving(owner) as server:
        async with await Peer.connect(server.port) as peer:
            theirs = await start(peer)
            peer.send(b'\x51' + b'x' * 100, b'\x52', b'\x63' + uint32(theirs), b'\x64' + uint32(theirs))
            peer.send(KEEPALIVE)
            assert await peer.expect(82)


async def test_extended_data_that_nobody_reads_gives_its_window_back() -> None:
    """Types that are not known are dropped and credited; a client's stderr that is not read stalls not its stdout."""
    made, owner = recording()
    async with serving(owner, window=65536, max_window=65536) as server:
        async with await Peer.connect(server.port) as peer:
            theirs = await start(peer)
            for _ in range(32):
                peer.send(b'\x5f' + uint32(theirs) + uint32(77) + string(bytes(32768)))
                await peer.expect(93)
            assert 'data' not in made[0].calls

    async def script(peer: Peer) -> None:
        await peer.admit()
        theirs = await peer.accept_session()
        room = 65536
        for turn in range(64):
            while room < 4096:
                room += int.from_bytes((await peer.expect(93))[5:9], 'big')
            error = b'\x5f' + uint32(theirs) + uint32(1) + string(b'e' * 4096)
            peer.send(error if turn < 63 else data(theirs, b'out\n'))
            room -= 4096
        await peer.expect_gone()

    async with hostile_server(script) as port:
        async with ssh_fast.connect(LOOPBACK, port, **client_options(window=65536, max_window=65536)) as conn:
            _, stdout, _ = await conn.open_session('x')
            assert await asyncio.wait_for(stdout.readline(), 10) == 'out\n'


async def test_cve_2026_73283_nothing_is_forwarded() -> None:
    """Each kind of forwarding is refused, whatever a key's options say."""
    opens = {
        b'direct-tcpip': string(b'localhost') + uint32(22) + string(b'h') + uint32(1),
        b'direct-streamlocal@openssh.com': string(b'/run/x') + string(b'') + uint32(0),
        b'tun@openssh.com': uint32(1) * 2,
        b'forwarded-tcpip': string(b'h') + uint32(1) + string(b'h') + uint32(1),
        b'x11': string(b'h') + uint32(1),
        b'auth-agent@openssh.com': b'',
    }
    requests = {
        b'tcpip-forward': string(b'') + uint32(0),
        b'cancel-tcpip-forward': string(b'') + uint32(1),
        b'streamlocal-forward@openssh.com': string(b'/tmp/x'),
    }
    _made, owner = recording()
    async with serving(owner) as server:
        async with await Peer.connect(server.port) as peer:
            theirs = await start(peer)
            for kind, fields in opens.items():
                peer.send(b'\x5a' + string(kind) + uint32(5) + uint32(1000) * 2 + fields)
                await peer.expect(92)
            for name, fields in requests.items():
                peer.send(b'\x50' + string(name) + b'\x01' + fields)
                await peer.expect(82)
            for name, fields in ((b'x11-req', b'\0' + string(b'MIT') + string(b'ab') + uint32(0)),
                                 (b'auth-agent-req@openssh.com', b'')):
                peer.send(b'\x62' + uint32(theirs) + string(name) + b'\x01' + fields)
                await peer.expect(100)


async def test_cve_2023_38408_a_client_opens_nothing_for_a_server() -> None:
    """Agent, X11 and forwarded channels that a server opens without being asked for are refused."""
    codes: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.admit()
        for kind in (b'auth-agent@openssh.com', b'x11', b'forwarded-tcpip', b'session', b'direct-tcpip'):
            peer.send(b'\x5a' + string(kind) + uint32(5) + uint32(1000) * 2)
            codes.append(int.from_bytes((await peer.expect(92))[5:9], 'big'))

    async with hostile_server(script) as port:
        async with ssh_fast.connect(LOOPBACK, port, **client_options()) as conn:
            await asyncio.wait_for(conn.wait_closed(), 10)
    assert len(codes) == 5 and set(codes) <= {1, 3, 4}


async def test_max_sessions() -> None:
    """The eleventh session of a connection is refused, and one that was closed makes room."""
    _made, owner = recording()
    async with serving(owner) as server:
        async with await Peer.connect(server.port) as peer:
            await peer.login()
            peer.send(*(peer.open_session(number) for number in range(11)))
            replies = [(await peer.expect(91, 92))[0] for _ in range(11)]
            assert replies == [91] * 10 + [92]
            peer.send(b'\x61' + uint32(0))
            await peer.expect(97)
            peer.send(peer.open_session(20))
            assert await peer.expect(91)


async def test_a_flood_of_requests_on_a_channel_is_bounded() -> None:
    """Requests whose answers are not taken: the server stops reading, and goes on when they are."""
    _made, owner = recording()
    async with serving(owner) as server:
        async with await Peer.connect(server.port) as peer:
            theirs = await start(peer)
            peer.writer.transport.pause_reading()
            before = resident_kib()
            try:
                for _ in range(60):
                    peer.send(*[b'\x62' + uint32(theirs) + string(b'no-such') + b'\x01'] * 500)
                    await asyncio.wait_for(peer.writer.drain(), 0.3)
            except TimeoutError:
                pass
            except (Gone, ConnectionError):
                pytest.fail('an honest if noisy peer is not thrown out')
            assert server.made[0].conn._writer.backlog <= 2 * 1024 * 1024
            assert resident_kib() - before < 16 * 1024
