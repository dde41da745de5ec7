"""What a hostile server may say on a session of our client: it ends in a typed error, within a bound, or is dropped."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import ssh_fast
from tests.security.peer import (
    LOOPBACK,
    Peer,
    client_options,
    data,
    hostile_server,
    resident_kib,
    string,
    uint32,
)

WINDOW = 65536
ENDS = 20.0    # seconds that anything here may take


class Session(ssh_fast.SSHClientSession[Any]):
    """Remembers what it was called with, in order; neighbouring pieces of data count once."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.size = 0

    def note(self, call: Any) -> None:
        if not self.calls or self.calls[-1] != call:
            self.calls.append(call)

    def connection_made(self, chan: Any) -> None:
        self.chan = chan

    def session_started(self) -> None:
        self.note('started')

    def data_received(self, content: Any, datatype: int | None) -> None:
        self.size += len(content)
        self.note(('data', datatype))

    def eof_received(self) -> bool:
        self.note('eof')
        return True

    def exit_status_received(self, status: int) -> None:
        self.note(('status', status))

    def exit_signal_received(self, *args: Any) -> None:
        self.note(('signal', *args))

    def connection_lost(self, exc: Exception | None) -> None:
        self.note(('lost', type(exc)))


def request(channel: int, name: bytes, fields: bytes = b'', want_reply: bool = False) -> bytes:
    return b'\x62' + uint32(channel) + string(name) + bytes([want_reply]) + fields


def extended(channel: int, datatype: int, content: bytes) -> bytes:
    return b'\x5f' + uint32(channel) + uint32(datatype) + string(content)


def plain(number: int, channel: int, fields: bytes = b'') -> bytes:
    return bytes([number]) + uint32(channel) + fields


BODIES = {
    91: uint32(0) + uint32(1000) * 2,
    92: uint32(2) + string(b'no') + string(b''),
    93: uint32(1),
    94: string(b'x'),
    95: uint32(1) + string(b'x'),
    98: string(b'exit-status') + b'\0' + uint32(0),
}
STATUS = string(b'exit-status')


async def converse(
    script: Callable[[Peer, int], Awaitable[None]], **options: Any
) -> tuple[Session, Exception | None, bool]:
    """Let a server act once it has granted a session; return the session, why the connection ended, and whether."""
    sessions: list[Session] = []

    def factory() -> Session:
        sessions.append(Session())
        return sessions[-1]

    async def serve(peer: Peer) -> None:
        await peer.admit()
        await script(peer, await peer.accept_session())
        await peer.expect_gone(patience=ENDS)

    settings = client_options(window=WINDOW, max_window=WINDOW, encoding=None)
    async with hostile_server(serve) as port, asyncio.timeout(ENDS):
        async with ssh_fast.connect(LOOPBACK, port, **settings) as conn:
            chan, session = await conn.create_session(factory, 'x', **options)
            await chan.wait_closed()
            return session, conn._exc, conn.is_closed()
    raise AssertionError('not reached')


# --- what does not belong to the state that the channel is in


@pytest.mark.parametrize('number', [91, 92, *range(93, 101)])
@pytest.mark.parametrize('channel', [1, 7, 2**32 - 1])
async def test_messages_for_channels_that_there_are_not(number: int, channel: int) -> None:
    async def script(peer: Peer, theirs: int) -> None:
        peer.send(plain(number, channel, BODIES.get(number, b'')))

    session, exc, closed = await converse(script)
    assert isinstance(exc, ssh_fast.ProtocolError) and closed
    assert session.calls == ['started', ('lost', ssh_fast.ProtocolError)]


@pytest.mark.parametrize('number', range(93, 101))
async def test_messages_for_a_channel_that_is_being_opened(number: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.admit()
        theirs = int.from_bytes((await peer.expect(90))[12:16], 'big')
        peer.send(plain(number, theirs, BODIES.get(number, b'')))
        assert (await peer.expect_gone()).code == 2

    async with hostile_server(script) as port, asyncio.timeout(ENDS):
        async with ssh_fast.connect(LOOPBACK, port, **client_options()) as conn:
            with pytest.raises(ssh_fast.ProtocolError):
                await conn.create_process('x')


@pytest.mark.parametrize('late', [93, 94, 95, 96, 97, 98, 99, 100])
async def test_messages_behind_a_close(late: int) -> None:
    async def script(peer: Peer, theirs: int) -> None:
        peer.send(plain(97, theirs), plain(late, theirs, BODIES.get(late, b'')))
        assert (await peer.expect_gone()).code == 2

    session, _, _ = await converse(script)
    assert session.calls == ['started', ('lost', type(None))]


@pytest.mark.parametrize('late', [94, 95])
async def test_data_behind_an_end_of_file(late: int) -> None:
    async def script(peer: Peer, theirs: int) -> None:
        peer.send(plain(96, theirs), plain(late, theirs, BODIES[late]))
        assert (await peer.expect_gone()).code == 2

    session, exc, _ = await converse(script)
    assert isinstance(exc, ssh_fast.ProtocolError)
    assert session.calls == ['started', 'eof', ('lost', ssh_fast.ProtocolError)]


async def test_what_may_come_behind_an_end_of_file() -> None:
    """A window, a second end of file, how the command ended."""
    async def script(peer: Peer, theirs: int) -> None:
        peer.send(plain(96, theirs), plain(93, theirs, uint32(5)), plain(96, theirs))
        peer.send(request(theirs, b'exit-status', uint32(7)), plain(97, theirs))
        await peer.expect(97)

    session, exc, _ = await converse(script)
    assert session.calls == ['started', 'eof', ('status', 7), ('lost', type(None))] and exc is None


async def test_a_channel_is_confirmed_once() -> None:
    for second in (plain(91, 0, BODIES[91]), plain(92, 0, BODIES[92])):
        async def script(peer: Peer, theirs: int, second: bytes = second) -> None:
            peer.send(second)
            assert (await peer.expect_gone()).code == 2

        _, exc, _ = await converse(script)
        assert isinstance(exc, ssh_fast.ProtocolError)


@pytest.mark.parametrize('fields', [b'', uint32(0), uint32(0) * 2, uint32(0) + uint32(1) + uint32(0)])
async def test_confirmations_that_are_cut_or_senseless(fields: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.admit()
        theirs = int.from_bytes((await peer.expect(90))[12:16], 'big')
        peer.send(plain(91, theirs, fields))
        assert (await peer.expect_gone()).code == 2

    async with hostile_server(script) as port, asyncio.timeout(ENDS):
        async with ssh_fast.connect(LOOPBACK, port, **client_options()) as conn:
            with pytest.raises(ssh_fast.ProtocolError):
                await conn.create_process('x')


async def test_a_refusal_is_shown_without_its_control_characters() -> None:
    async def script(peer: Peer) -> None:
        await peer.admit()
        theirs = int.from_bytes((await peer.expect(90))[12:16], 'big')
        reason = b'no \x1b[31mway\r\n' + b'x' * 100_000
        peer.send(plain(92, theirs, uint32(1) + string(reason) + string(b'\x07')))
        await peer.expect_gone(patience=ENDS)

    async with hostile_server(script) as port, asyncio.timeout(ENDS):
        async with ssh_fast.connect(LOOPBACK, port, **client_options()) as conn:
            with pytest.raises(ssh_fast.ChannelOpenError) as caught:
                await conn.create_process('x')
            assert caught.value.code == 1 and caught.value.reason.startswith('no ')
            assert caught.value.reason.isprintable() and len(caught.value.reason) < 10_000
            assert conn._mux.channels == [] and not conn.is_closed()


# --- replies


async def test_replies_that_nobody_waits_for_are_dropped() -> None:
    async def script(peer: Peer, theirs: int) -> None:
        for _ in range(1000):
            peer.send(plain(99, theirs), plain(100, theirs))
        peer.send(data(theirs, b'x'), plain(97, theirs))
        await peer.expect(97)

    session, exc, _ = await converse(script)
    assert session.calls == ['started', ('data', None), ('lost', type(None))] and exc is None


@pytest.mark.parametrize('end', ['refused', 'closed', 'eof and closed', 'gone'])
async def test_a_start_that_fails(end: str) -> None:
    """The terminal is granted, the command not: create raises, the channel goes, the connection stays."""
    async def script(peer: Peer) -> None:
        await peer.admit()
        theirs = int.from_bytes((await peer.expect(90))[12:16], 'big')
        peer.send(plain(91, theirs, BODIES[91]))
        assert b'pty-req' in await peer.expect(98)
        peer.send(plain(99, theirs))
        assert b'exec' in await peer.expect(98)
        if end == 'gone':
            return
        peer.send(data(theirs, b'early'))
        if end == 'refused':
            peer.send(plain(100, theirs))
            await peer.expect(97)
            peer.send(data(theirs, b'late'))
        elif end == 'eof and closed':
            peer.send(plain(96, theirs))
        peer.send(plain(97, theirs))
        await peer.expect_gone(patience=ENDS)

    async with hostile_server(script) as port, asyncio.timeout(ENDS):
        async with ssh_fast.connect(LOOPBACK, port, **client_options()) as conn:
            error = ssh_fast.ConnectionLost if end == 'gone' else ssh_fast.ChannelOpenError
            with pytest.raises(error):
                await conn.create_process('x', term_type='dumb')
            if end != 'gone':
                while conn._mux.channels:
                    await asyncio.sleep(0.001)
                assert not conn.is_closed()


@pytest.mark.parametrize('stage', ['open', 'terminal', 'command'])
async def test_a_server_that_does_not_answer(stage: str) -> None:
    """There is no limit of time by itself, as there is none for a command: whoever gives up leaves nothing."""
    reached = asyncio.get_running_loop().create_future()

    async def script(peer: Peer) -> None:
        await peer.admit()
        theirs = int.from_bytes((await peer.expect(90))[12:16], 'big')
        if stage != 'open':
            peer.send(plain(91, theirs, BODIES[91]))
            await peer.expect(98)
        if stage == 'command':
            peer.send(plain(99, theirs))
            await peer.expect(98)
        reached.set_result(None)
        if stage != 'open':
            await peer.expect(97)
            peer.send(plain(97, theirs))
        await peer.expect_gone(patience=ENDS)

    async with hostile_server(script) as port, asyncio.timeout(ENDS):
        async with ssh_fast.connect(LOOPBACK, port, **client_options()) as conn:
            creating = asyncio.ensure_future(_create(conn))
            await reached
            assert not creating.done()
            creating.cancel()
            with pytest.raises(asyncio.CancelledError):
                await creating
            # A channel that was never confirmed has a number that only the server can free.
            while len(conn._mux.channels) > (stage == 'open'):
                await asyncio.sleep(0.001)
            assert not conn._tasks and not conn.is_closed()


async def _create(conn: Any) -> Any:
    return await conn.create_process('x', term_type='dumb')


# --- requests


@pytest.mark.parametrize('fields', [
    b'', b'\x62', STATUS, STATUS + b'\0', STATUS + b'\0' + b'\0\0\0', STATUS + b'\0' + uint32(1) + b'x',
    string(b'exit-signal') + b'\0' + string(b'KILL'), string(b'exit-signal') + b'\0' + string(b'\xff'),
    string(b'exit-signal') + b'\0' + uint32(2**32 - 1) + b'KILL', uint32(2**31) + b'exit-status',
    string(b'xon-xoff') + b'\0',
])
async def test_malformed_requests(fields: bytes) -> None:
    async def script(peer: Peer, theirs: int) -> None:
        peer.send(plain(98, theirs, fields))
        assert (await peer.expect_gone()).code == 2

    session, exc, _ = await converse(script)
    assert isinstance(exc, ssh_fast.ProtocolError | ssh_fast.DisconnectError)
    assert len(session.calls) == 2


async def test_requests_of_odd_content() -> None:
    """A status has 8 bits; a signal's name is shown printable; what is unknown is refused; the last word counts."""
    replies: list[int] = []

    async def script(peer: Peer, theirs: int) -> None:
        for name, fields in (
            (b'exit-status', uint32(0xFFFFFF05)),
            (b'exit-signal', string(b'A\x1b[B') + b'\x01' + string(b'\xff\xfe') + string(b'')),
            (b'no-such@request', b'\0' * 50_000),
            (b'exec', string(b'rm')),
            (b'\xff\0', b''),
        ):
            peer.send(request(theirs, name, fields, want_reply=True))
            replies.append((await peer.expect(99, 100))[0])
        peer.send(plain(97, theirs))
        await peer.expect(97)

    session, exc, _ = await converse(script)
    assert replies == [99, 99, 100, 100, 100] and exc is None
    assert session.calls[1] == ('status', 5)
    _, signal, dumped, message, _ = session.calls[2]
    assert '\x1b' not in signal and dumped is True and message == '\ufffd\ufffd'
    assert session.chan.get_exit_status() == -1 and session.chan.get_returncode() == -99


async def test_a_flood_of_statuses_is_bounded() -> None:
    async def script(peer: Peer, theirs: int) -> None:
        before = resident_kib()
        for turn in range(20):
            peer.send(*[request(theirs, b'exit-status', uint32(turn), want_reply=True)] * 1000)
            for _ in range(1000):
                await peer.expect(99)
            peer.stash.clear()
        assert resident_kib() - before < 8 * 1024
        peer.send(plain(97, theirs))
        await peer.expect(97)

    session, exc, _ = await converse(script)
    assert session.calls[-2] == ('status', 19) and exc is None


# --- data


async def test_extended_data_of_type_0_and_of_unknown_types() -> None:
    async def zero(peer: Peer, theirs: int) -> None:
        peer.send(extended(theirs, 0, b'x'))
        assert (await peer.expect_gone()).code == 2

    session, exc, _ = await converse(zero)
    assert isinstance(exc, ssh_fast.ProtocolError) and session.size == 0

    async def unknown(peer: Peer, theirs: int) -> None:
        room = WINDOW
        for datatype in (2, 77, 2**32 - 1):
            for _ in range(16):
                while room < 16384:
                    room += int.from_bytes((await peer.expect(93))[5:9], 'big')
                peer.send(extended(theirs, datatype, bytes(16384)))
                room -= 16384
        peer.send(plain(97, theirs))
        await peer.expect(97)

    session, exc, _ = await converse(unknown)
    assert session.calls == ['started', ('lost', type(None))] and exc is None


async def test_data_before_the_command_is_granted_waits_within_the_window() -> None:
    early = 0

    async def script(peer: Peer) -> None:
        nonlocal early
        await peer.admit()
        theirs = int.from_bytes((await peer.expect(90))[12:16], 'big')
        peer.send(plain(91, theirs, BODIES[91]))
        await peer.expect(98)
        for _ in range(WINDOW // 16384):
            peer.send(data(theirs, b'e' * 16384))
        with pytest.raises(TimeoutError):
            await peer.expect(93, patience=0.2)    # nothing is credited
        peer.send(plain(99, theirs))
        early = int.from_bytes((await peer.expect(93))[5:9], 'big')
        peer.send(request(theirs, b'exit-status', uint32(0)), plain(96, theirs), plain(97, theirs))
        await peer.expect(97)
        await peer.expect_gone(patience=ENDS)

    async with hostile_server(script) as port, asyncio.timeout(ENDS):
        async with ssh_fast.connect(LOOPBACK, port, **client_options(window=WINDOW, max_window=WINDOW)) as conn:
            result = await conn.run('x')
            assert result.stdout == 'e' * WINDOW and early


async def test_a_flood_that_nobody_reads_is_bounded_by_the_windows() -> None:
    """A stream holds its bound and the channel one window more; then the server's window is used up."""
    sent = 0
    stuck = asyncio.get_running_loop().create_future()

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.admit()
        theirs = await peer.accept_session()
        room = WINDOW
        try:
            while sent < 100 * WINDOW:
                while room < 16384:
                    room += int.from_bytes((await peer.expect(93, patience=0.5))[5:9], 'big')
                peer.send(extended(theirs, 1, bytes(8192)), data(theirs, bytes(8192)))
                room -= 16384
                sent += 16384
        except TimeoutError:
            stuck.set_result(None)
        await peer.expect_gone(patience=ENDS)

    async with hostile_server(script) as port, asyncio.timeout(ENDS):
        options = client_options(window=WINDOW, max_window=WINDOW, encoding=None)
        async with ssh_fast.connect(LOOPBACK, port, **options) as conn:
            process = await conn.create_process('x')
            await stuck
            assert sent <= 4 * WINDOW
            assert len(await process.stdout.read(1 << 20)) > 0


async def test_windows_that_overflow() -> None:
    async def script(peer: Peer, theirs: int) -> None:
        peer.send(plain(93, theirs, uint32(2**32 - 1)))
        assert (await peer.expect_gone()).code == 2

    _, exc, _ = await converse(script)
    assert isinstance(exc, ssh_fast.ProtocolError)


async def test_one_channel_that_fails_by_itself_leaves_the_others() -> None:
    """Text that is none ends its channel; on the other one everything goes on."""
    async def script(peer: Peer) -> None:
        await peer.admit()
        first, second = await peer.accept_session(), await peer.accept_session()
        peer.send(data(first, b'\xff'))
        await peer.expect(97)
        peer.send(data(second, b'well\n'), plain(97, first))
        await peer.expect_gone(patience=ENDS)

    async with hostile_server(script) as port, asyncio.timeout(ENDS):
        async with ssh_fast.connect(LOOPBACK, port, **client_options()) as conn:
            first, second = await conn.create_process('x'), await conn.create_process('y')
            with pytest.raises(ssh_fast.ProtocolError):
                await first.wait()
            assert await second.stdout.readline() == 'well\n'
            assert not conn.is_closed()


async def test_a_server_that_vanishes_in_every_state() -> None:
    """Whoever waits gets ConnectionLost: for the open, the start, the data, the window, and the close."""
    async def script(peer: Peer) -> None:
        await peer.admit()
        await peer.accept_session(window=0)
        await peer.expect(90)
        peer.writer.transport.abort()

    async with hostile_server(script) as port, asyncio.timeout(ENDS):
        async with ssh_fast.connect(LOOPBACK, port, **client_options(encoding=None)) as conn:
            process = await conn.create_process('x')
            process.stdin.write(bytes(1 << 20))
            results = await asyncio.gather(
                process.stdout.read(),
                process.stderr.readline(),
                process.stdin.drain(),
                process.wait(),
                conn.create_process('y'),
                return_exceptions=True,
            )
            assert [type(result) for result in results] == [ssh_fast.ConnectionLost] * 5
            with pytest.raises((ssh_fast.Error, OSError)):
                await conn.run('z')
