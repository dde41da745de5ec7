"""A close that the peer does not answer: bounded in time, as long as nothing moves."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import ssh_fast
from ssh_fast.channel import channel, close_watch
from tests.channel.pair import ClientSession, Pair, ServerSession, client_channel, serve
from tests.security.peer import (
    HOST_KEY,
    LOOPBACK,
    Peer,
    Server,
    client_options,
    data,
    hostile_server,
    string,
    take_string,
    uint32,
)

BOUND = 0.2


@pytest.fixture(autouse=True)
def short_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (channel, close_watch):
        monkeypatch.setattr(module, 'CLOSE_TIMEOUT', BOUND)


async def silent(peer: Peer) -> None:
    """Grant a session, whatever its command, and never close it."""
    await peer.admit()
    await peer.accept_session()
    await peer.expect_gone(patience=20)


async def test_a_process_whose_server_never_closes() -> None:
    async with hostile_server(silent) as port:
        async with ssh_fast.connect(LOOPBACK, port, **client_options()) as conn:
            async with asyncio.timeout(10):
                async with conn.create_process('x') as process:
                    pass
                with pytest.raises(ssh_fast.ConnectionLost, match='close the channel within'):
                    await process.wait()
            assert not conn.is_closed()


async def test_an_sftp_session_whose_server_never_closes() -> None:
    async def script(peer: Peer) -> None:
        await peer.admit()
        theirs = await peer.accept_session()
        await peer.expect(94)
        peer.send(data(theirs, string(b'\x02' + uint32(3))))
        await peer.expect_gone(patience=20)

    async with hostile_server(script) as port:
        async with ssh_fast.connect(LOOPBACK, port, **client_options()) as conn:
            async with asyncio.timeout(10):
                async with conn.start_sftp_client() as sftp:
                    reading = asyncio.ensure_future(sftp.stat('x'))
                    await asyncio.sleep(0)
                with pytest.raises(ssh_fast.ConnectionLost):
                    await reading
                with pytest.raises(ssh_fast.SFTPNoConnection):
                    await sftp.stat('x')
            assert not conn.is_closed()


async def test_a_window_of_0_for_ever() -> None:
    """Writing stops at the high-water mark, `drain` waits, and a close gives up what cannot go."""
    closed = asyncio.get_running_loop().create_future()

    async def script(peer: Peer) -> None:
        await peer.admit()
        await peer.accept_session(window=0)
        closed.set_result(await peer.expect(97, patience=20))
        assert not any(payload[0] == 94 for payload in peer.stash)
        await peer.expect_gone(patience=20)

    async with hostile_server(script) as port:
        async with ssh_fast.connect(LOOPBACK, port, **client_options(encoding=None)) as conn:
            process = await conn.create_process('x')
            process.stdin.write(bytes(100_000))
            draining = asyncio.ensure_future(process.stdin.drain())
            await asyncio.sleep(0.05)
            assert not draining.done() and process.channel.get_write_buffer_size() == 100_000
            process.close()
            async with asyncio.timeout(10):
                await process.wait_closed()
                with pytest.raises(ssh_fast.ConnectionLost):
                    await draining
                assert await closed
            assert process.channel.get_write_buffer_size() == 0


async def test_a_client_that_takes_a_break_gets_all_output_and_the_status() -> None:
    """More than all windows hold, of a command that has ended long before it is read: as with `ssh host ... | less`."""
    size = 40 << 20

    async def write(process: ssh_fast.SSHServerProcess[bytes]) -> None:
        process.stdout.write(bytes(size))
        process.exit(7)

    settings: dict[str, Any] = {'server_host_keys': [HOST_KEY], 'process_factory': write, 'encoding': None}
    async with ssh_fast.listen(LOOPBACK, 0, server_factory=Server, **settings) as server:
        async with ssh_fast.connect(LOOPBACK, server.get_port(), **client_options(encoding=None)) as conn:
            process = await conn.create_process('x')
            await asyncio.sleep(5 * BOUND)
            assert len(await process.stdout.read()) == size
            await process.wait_closed()
            assert process.exit_status == 7


class Clock:
    """The part of an event loop that a watch uses, with a time that the test turns."""

    def __init__(self) -> None:
        self.timers: list[Callable[[], None] | None] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        assert delay == BOUND
        number = len(self.timers)
        self.timers.append(callback)
        return SimpleNamespace(cancel=lambda: self.timers.__setitem__(number, None))

    def turn(self) -> None:
        """Let the bound pass."""
        due, self.timers = self.timers, []
        for callback in due:
            if callback:
                callback()


def test_a_slow_peer_that_takes_data_keeps_its_time() -> None:
    given_up: list[int] = []
    clock, flow = Clock(), SimpleNamespace(queued=1000)
    watch = close_watch.CloseWatch(clock, flow, lambda: given_up.append(flow.queued))    # type: ignore[arg-type]
    for flow.queued in (999, 500, 1, 0):
        clock.turn()
        assert not given_up
    clock.turn()
    assert given_up == [0]

    flow.queued = 10
    watch = close_watch.CloseWatch(clock, flow, lambda: given_up.append(flow.queued))    # type: ignore[arg-type]
    watch.stop()
    clock.turn()
    watch = close_watch.CloseWatch(clock, flow, lambda: given_up.append(flow.queued))    # type: ignore[arg-type]
    clock.turn()
    assert given_up == [0, 10]


def test_a_patient_watch_loses_no_data() -> None:
    given_up: list[int] = []
    clock, flow = Clock(), SimpleNamespace(queued=10)
    close_watch.CloseWatch(clock, flow, lambda: given_up.append(flow.queued), patient=True)    # type: ignore[arg-type]
    for _ in range(100):
        clock.turn()
    assert not given_up
    for flow.queued in (5, 5, 0):
        clock.turn()
        assert not given_up
    clock.turn()
    assert given_up == [0]


async def test_a_close_waits_for_the_data_that_the_peer_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(close_watch, 'CLOSE_TIMEOUT', 10.0)
    received = 0

    async def script(peer: Peer) -> None:
        nonlocal received
        await peer.admit()
        theirs = await peer.accept_session(window=0)
        for _ in range(8):
            peer.send(b'\x5d' + uint32(theirs) + uint32(1000))
            received += len(take_string((await peer.expect(94))[5:])[0])
        await peer.expect(97)
        peer.send(b'\x61' + uint32(theirs))
        await peer.expect_gone(patience=20)

    async with hostile_server(script) as port:
        async with ssh_fast.connect(LOOPBACK, port, **client_options(encoding=None)) as conn:
            chan, session = await conn.create_session(Session, 'x')
            chan.write(bytes(8000))
            chan.close()
            await asyncio.wait_for(chan.wait_closed(), 10)
            assert received == 8000 and session.lost == [None]


class Session(ssh_fast.SSHClientSession[Any]):
    def __init__(self) -> None:
        self.lost: list[Exception | None] = []

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


async def test_the_number_is_kept_until_the_peer_closes_and_its_late_words_reach_nobody() -> None:
    pair = Pair()
    server = ServerSession()
    channels = serve(pair, server)
    chan = client_channel(pair)
    session = await chan.create(ClientSession)
    pair.held = True
    chan.close()
    await asyncio.wait_for(chan.wait_closed(), 10)
    assert [call[0] for call in session.calls if isinstance(call, tuple)] == ['lost']
    assert len(pair.client.mux.channels) == 1
    calls = list(session.calls)
    channels[0].write(b'late')
    channels[0].exit(3)
    pair.held = False
    pair.run()
    assert session.calls == calls
    assert pair.client.mux.channels == pair.server.mux.channels == []
    assert pair.client.error is None and pair.server.error is None


async def test_a_client_that_never_closes_frees_the_servers_session() -> None:
    pair = Pair()
    server = ServerSession()
    channels = serve(pair, server)
    await client_channel(pair).create(ClientSession)
    pair.held = True
    channels[0].exit(0)
    await asyncio.wait_for(channels[0].wait_closed(), 10)
    assert isinstance(server.calls[-1][1], ssh_fast.ConnectionLost)


async def test_closes_that_are_answered_leave_no_timer() -> None:
    loop: Any = asyncio.get_running_loop()
    pair = Pair()
    serve(pair, ServerSession)
    for _ in range(20):
        chan = client_channel(pair)
        await chan.create(ClientSession)
        chan.close()
        await asyncio.wait_for(chan.wait_closed(), 10)
    assert not [timer for timer in loop._scheduled if not timer.cancelled() and 'CloseWatch' in repr(timer)]
