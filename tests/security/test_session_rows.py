"""Malformed and excessive requests on sessions, against live servers: each has a bound, and an error with a type."""

import asyncio
import logging
from typing import Any

import pytest

import ssh_fast
from ssh_fast.channel.server_channel import MAX_ENVIRONMENT_BYTES, MAX_ENVIRONMENT_COUNT
from tests.security.peer import Gone, Peer, Server, Serving, data, resident_kib, serving, string, uint32

SUCCESS, FAILURE = 99, 100
SIZE = uint32(80) + uint32(24) + uint32(640) + uint32(480)


class Session(ssh_fast.SSHServerSession):
    """Grants everything and remembers what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.slow: asyncio.Event | None = None

    def connection_made(self, chan: Any) -> None:
        self.chan = chan

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append('lost')

    def pty_requested(self, *args: Any) -> Any:
        self.calls.append(('pty', *args))
        return self._later() if self.slow else True

    async def _later(self) -> bool:
        assert self.slow
        await self.slow.wait()
        return True

    def shell_requested(self) -> bool:
        self.calls.append('shell')
        return True

    def exec_requested(self, command: str) -> bool:
        self.calls.append(('exec', command))
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        self.calls.append(('subsystem', subsystem))
        return True

    def terminal_size_changed(self, *size: int) -> None:
        self.calls.append(('size', *size))

    def signal_received(self, signal: str) -> None:
        self.calls.append(('signal', signal))

    def break_received(self, msec: int) -> bool:
        self.calls.append(('break', msec))
        return True

    def data_received(self, data: Any, datatype: int | None) -> None:
        self.calls.append(('data', data))


class Sessions(Server):
    """Keeps the sessions of its connection."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions: list[Session] = []

    def session_requested(self) -> Any:
        self.sessions.append(Session())
        return self.sessions[-1]


def request(channel: int, name: bytes, *fields: bytes) -> bytes:
    return b'\x62' + uint32(channel) + string(name) + b'\x01' + b''.join(fields)


def pty(channel: int, modes: bytes = b'\x00', term: bytes = b'xterm', size: bytes = SIZE) -> bytes:
    return request(channel, b'pty-req', string(term), size, string(modes))


async def opened(peer: Peer, server: Serving) -> tuple[int, Session]:
    """Log in and open a session; return the server's channel number and its session."""
    await peer.login()
    peer.send(peer.open_session())
    theirs = int.from_bytes((await peer.expect(91))[5:9], 'big')
    return theirs, server.made[-1].sessions[-1]


async def answer(peer: Peer, payload: bytes) -> bool:
    peer.send(payload)
    return (await peer.expect(SUCCESS, FAILURE))[0] == SUCCESS


async def ends(payload_of: Any, expected: type[Exception]) -> str:
    """Send a message that must end the connection; return the reason that the peer was told."""
    async with serving(Sessions) as server, await Peer.connect(server.port) as peer:
        theirs, session = await opened(peer, server)
        peer.send(payload_of(theirs))
        gone = await peer.expect_gone()
        assert gone.code == 2
        error = await asyncio.wait_for(server.made[0].lost, 5)
        assert isinstance(error, expected)
        assert [call for call in session.calls if call != 'lost'] == []
        return gone.reason


# --- terminals


@pytest.mark.parametrize(
    'modes',
    [b'\x35', b'\x35\x00', b'\x35\x00\x00\x00', b'\x35\x00\x00\x00\x01\x01', b'\x01' * 4],
    ids=['no-value', 'one-byte', 'three-bytes', 'second', 'four-bytes'],
)
async def test_terminal_modes_cut_short(modes: bytes) -> None:
    assert 'xpected' in await ends(lambda theirs: pty(theirs, modes), ssh_fast.ProtocolError)


@pytest.mark.parametrize(
    'fields',
    [
        b'',
        string('xterm'),
        string('xterm') + SIZE[:15] + string(b'\x00'),
        string('xterm') + SIZE,
        string('xterm') + SIZE + uint32(2**32 - 1),
        string('xterm') + SIZE + string(b'\x00') + b'more',
        string(b'\xff\xfe') + SIZE + string(b'\x00'),
    ],
    ids=['nothing', 'no-size', 'size-cut', 'no-modes', 'modes-too-long', 'more', 'not-utf-8'],
)
async def test_terminal_requests_of_the_wrong_form(fields: bytes) -> None:
    await ends(lambda theirs: request(theirs, b'pty-req', fields), ssh_fast.ProtocolError)


async def test_terminal_modes_of_any_value() -> None:
    """Modes that nobody knows are kept as they are; those without a value of 32 bits end the list (RFC 4254)."""
    async with serving(Sessions) as server, await Peer.connect(server.port) as peer:
        theirs, session = await opened(peer, server)
        modes = b''.join(bytes([mode]) + uint32(2**32 - 1) for mode in range(1, 160)) * 300
        assert await answer(peer, pty(theirs, modes + b'\xa0garbage'))
        assert session.chan.get_terminal_modes() == dict.fromkeys(range(1, 160), 2**32 - 1)
        assert session.chan.get_terminal_mode(ssh_fast.PTY_IUTF8) == 2**32 - 1
        with pytest.raises(TypeError):
            session.chan.get_terminal_modes()[1] = 2
        assert not await answer(peer, pty(theirs)), 'one terminal is enough'


@pytest.mark.parametrize('size', [(0, 0, 0, 0), (2**32 - 1,) * 4, (1, 1, 0, 0)])
async def test_terminal_sizes(size: tuple[int, int, int, int]) -> None:
    """Any size is one, also for the line editor, which takes 80 columns for 0; the session is told what came."""
    async with serving(Sessions) as server, await Peer.connect(server.port) as peer:
        theirs, session = await opened(peer, server)
        encoded = b''.join(map(uint32, size))
        assert await answer(peer, pty(theirs, size=encoded))
        assert await answer(peer, request(theirs, b'shell'))
        before = resident_kib()
        for change in (SIZE, encoded, SIZE, encoded):
            peer.send(data(theirs, 'some text and 日本'.encode()))
            assert await answer(peer, request(theirs, b'window-change', change))
        assert session.chan.get_terminal_size() == size
        assert [call for call in session.calls if call[0] == 'size'][-1] == ('size', *size)
        peer.send(data(theirs, b'\r'))
        assert await answer(peer, request(theirs, b'signal', string('INT')))
        assert ('data', 'some text and 日本' * 4 + '\n') in session.calls
        assert resident_kib() - before < 8 * 1024


@pytest.mark.parametrize('fields', [b'', SIZE[:15], SIZE + b'\x00', b'garbage'])
async def test_window_changes_of_the_wrong_form(fields: bytes) -> None:
    await ends(lambda theirs: request(theirs, b'window-change', fields), ssh_fast.ProtocolError)


async def test_window_changes_without_a_terminal_are_refused() -> None:
    async with serving(Sessions) as server, await Peer.connect(server.port) as peer:
        theirs, session = await opened(peer, server)
        assert not await answer(peer, request(theirs, b'window-change', SIZE))
        assert await answer(peer, request(theirs, b'shell'))
        assert not await answer(peer, request(theirs, b'window-change', SIZE))
        assert session.calls == ['shell']
        assert session.chan.get_terminal_size() == (0, 0, 0, 0)


# --- the environment


async def test_ten_thousand_variables(caplog: pytest.LogCaptureFixture) -> None:
    """So many are kept and the others refused, each in its answer, and once in the log; the session goes on."""
    async with serving(Sessions) as server, await Peer.connect(server.port) as peer:
        theirs, session = await opened(peer, server)
        granted = 0
        with caplog.at_level(logging.WARNING, 'ssh_fast'):
            for start in range(0, 10_000, 500):
                names = [f'NAME{number}' for number in range(start, start + 500)]
                peer.send(*(request(theirs, b'env', string(name), string('value')) for name in names))
                for _ in names:
                    granted += (await peer.expect(SUCCESS, FAILURE))[0] == SUCCESS
        assert granted == MAX_ENVIRONMENT_COUNT == len(session.chan.get_environment())
        assert [record.message for record in caplog.records].count(caplog.records[0].message) == 1
        assert 'Refused environment variables: expected at most 1024' in caplog.text
        assert await answer(peer, request(theirs, b'env', string('NAME5'), string('again'))), 'it is one of those'
        assert await answer(peer, request(theirs, b'exec', string('x')))
        assert not await answer(peer, request(theirs, b'env', string('NAME5'), string('late')))
        assert session.chan.get_environment()['NAME5'] == 'again'


async def test_a_large_environment() -> None:
    async with serving(Sessions) as server, await Peer.connect(server.port) as peer:
        theirs, session = await opened(peer, server)
        before = resident_kib()
        for number in range(200):
            peer.send(request(theirs, b'env', string(f'N{number}'), string(bytes(30_000))))
            await peer.expect(SUCCESS, FAILURE)
            peer.send(request(theirs, b'env', string(f'N{number}'), string(b'x' * 30_000)))
            await peer.expect(SUCCESS, FAILURE)
            peer.send(request(theirs, b'env', string('SAME'), string(b'x' * 30_000)))
            await peer.expect(SUCCESS, FAILURE)
        kept = session.chan.get_environment_bytes()
        assert sum(len(name) + len(value) for name, value in kept.items()) <= MAX_ENVIRONMENT_BYTES
        assert resident_kib() - before < 8 * 1024


@pytest.mark.parametrize(('name', 'value'), [('', 'x'), ('A=B', 'x'), ('A\0', 'x'), ('A', 'x\0y')])
async def test_variables_that_no_program_can_have(name: str, value: str) -> None:
    async with serving(Sessions) as server, await Peer.connect(server.port) as peer:
        theirs, session = await opened(peer, server)
        assert not await answer(peer, request(theirs, b'env', string(name), string(value)))
        assert await answer(peer, request(theirs, b'env', string('LANG'), string('C')))
        assert dict(session.chan.get_environment()) == {'LANG': 'C'}


async def test_variables_that_are_not_text() -> None:
    async with serving(Sessions) as server, await Peer.connect(server.port) as peer:
        theirs, session = await opened(peer, server)
        assert await answer(peer, request(theirs, b'env', string('A'), string(b'\xff')))
        assert dict(session.chan.get_environment()) == {}
        assert dict(session.chan.get_environment_bytes()) == {b'A': b'\xff'}


# --- commands and names


@pytest.mark.parametrize('name', [b'exec', b'subsystem'])
@pytest.mark.parametrize('value', [b'cat\0/etc/passwd', b'\0', b'\xff\xfe'])
async def test_a_command_with_nul_is_refused(name: bytes, value: bytes) -> None:
    """What a program would take for a shorter command is none; the session can still ask for another."""
    async with serving(Sessions) as server, await Peer.connect(server.port) as peer:
        theirs, session = await opened(peer, server)
        assert not await answer(peer, request(theirs, name, string(value)))
        assert session.calls == []
        assert session.chan.get_command() is session.chan.get_subsystem() is None
        assert await answer(peer, request(theirs, b'exec', string('true')))
        assert session.calls == [('exec', 'true')]


@pytest.mark.parametrize('name', [b'exec', b'subsystem', b'signal', b'env', b'break'])
@pytest.mark.parametrize('fields', [b'', uint32(2**31), string(b'x') + b'y' * 9], ids=['nothing', 'too-long', 'more'])
async def test_requests_of_the_wrong_form(name: bytes, fields: bytes) -> None:
    if name == b'break':
        fields = fields[:3] or b'\x00'
    await ends(lambda theirs: request(theirs, name, fields), ssh_fast.ProtocolError)


async def test_a_session_starts_once() -> None:
    async with serving(Sessions) as server, await Peer.connect(server.port) as peer:
        theirs, session = await opened(peer, server)
        assert await answer(peer, request(theirs, b'exec', string('one')))
        for again in (request(theirs, b'exec', string('two')), request(theirs, b'shell'), pty(theirs)):
            assert not await answer(peer, again)
        assert not await answer(peer, request(theirs, b'subsystem', string('sftp')))
        assert session.calls == [('exec', 'one')]


async def test_signals_and_breaks_before_the_start_are_refused() -> None:
    async with serving(Sessions) as server, await Peer.connect(server.port) as peer:
        theirs, session = await opened(peer, server)
        assert not await answer(peer, request(theirs, b'signal', string('KILL')))
        assert not await answer(peer, request(theirs, b'break', uint32(100)))
        assert await answer(peer, request(theirs, b'shell'))
        assert await answer(peer, request(theirs, b'break', uint32(2**32 - 1)))
        assert await answer(peer, request(theirs, b'signal', string('\x1b[2J')))
        assert session.calls[1] == ('break', 2**32 - 1)
        assert '\x1b' not in session.calls[2][1], 'the name may be shown to somebody'


# --- channels that are half open


async def test_requests_on_a_channel_that_was_never_opened() -> None:
    reason = await ends(lambda theirs: request(theirs + 7, b'shell'), ssh_fast.ProtocolError)
    assert 'number of an open channel' in reason


async def test_requests_on_a_channel_that_is_still_being_decided() -> None:
    """There is no number to say before the confirmation, so whoever guesses it is thrown out."""
    class Slow(Sessions):
        async def session_requested(self) -> Any:    # type: ignore[override]
            await asyncio.Event().wait()

    async with serving(Slow) as server, await Peer.connect(server.port) as peer:
        await peer.login()
        peer.send(peer.open_session())
        await asyncio.sleep(0.05)
        peer.send(request(0, b'exec', string('x')))
        assert (await peer.expect_gone()).code == 2
        assert isinstance(await asyncio.wait_for(server.made[0].lost, 5), ssh_fast.ProtocolError)


async def test_requests_after_the_end_of_file() -> None:
    """An end of file ends the data alone (RFC 4254 section 5.3)."""
    async with serving(Sessions) as server, await Peer.connect(server.port) as peer:
        theirs, session = await opened(peer, server)
        assert await answer(peer, pty(theirs))
        peer.send(b'\x60' + uint32(theirs))
        assert await answer(peer, request(theirs, b'shell'))
        assert await answer(peer, request(theirs, b'window-change', SIZE))
        assert session.calls[-1][0] == 'size'


async def test_requests_after_the_close() -> None:
    """After the peer's CLOSE the number is free; after ours alone requests are ignored, as they may have crossed it."""
    async with serving(Sessions) as server, await Peer.connect(server.port) as peer:
        theirs, session = await opened(peer, server)
        assert await answer(peer, request(theirs, b'shell'))
        session.chan.close()
        await peer.expect(97)
        peer.send(request(theirs, b'signal', string('INT')), request(theirs, b'window-change', SIZE))
        peer.send(data(theirs, b'late'), b'\x61' + uint32(theirs))
        for _ in range(100):
            if 'lost' in session.calls:
                break
            await asyncio.sleep(0.02)
        assert session.calls == ['shell', 'lost']
        peer.send(request(theirs, b'signal', string('INT')))
        assert (await peer.expect_gone()).code == 2


async def test_requests_while_one_is_decided_are_bounded() -> None:
    """They wait in their order; who sends more than any client would is thrown out."""
    class Slow(Sessions):
        def session_requested(self) -> Any:
            session = super().session_requested()
            session.slow = asyncio.Event()
            return session

    async with serving(Slow) as server:
        async with await Peer.connect(server.port) as peer:
            theirs, session = await opened(peer, server)
            peer.send(pty(theirs), request(theirs, b'shell'), request(theirs, b'window-change', SIZE))
            await asyncio.sleep(0.1)
            assert len(session.calls) == 1
            assert session.slow
            session.slow.set()
            for _ in range(3):
                await peer.expect(SUCCESS)
            assert session.calls[1:] == ['shell', ('size', 80, 24, 640, 480)]

        async with await Peer.connect(server.port) as peer:
            theirs, session = await opened(peer, server)
            peer.send(pty(theirs))
            peer.send(*[request(theirs, b'env', string('A'), string('b'))] * 2000)
            assert (await peer.expect_gone()).code == 2
            assert isinstance(await asyncio.wait_for(server.made[-1].lost, 5), ssh_fast.ProtocolError)


# --- what is typed


async def test_input_that_is_not_text_ends_the_channel_alone() -> None:
    async with serving(Sessions) as server, await Peer.connect(server.port) as peer:
        theirs, session = await opened(peer, server)
        assert await answer(peer, pty(theirs))
        assert await answer(peer, request(theirs, b'shell'))
        peer.send(data(theirs, b'good\r\xff\xfe\r'))
        await peer.expect(97)
        assert session.calls[-1] == 'lost'
        peer.send(b'\x61' + uint32(theirs), peer.open_session(1))
        assert await peer.expect(91)


async def test_output_of_the_line_editor_that_is_not_taken_is_bounded() -> None:
    """Two bytes bring back a line of a thousand: without window for it, nothing more of the input is processed."""
    async with serving(Sessions) as server, await Peer.connect(server.port) as peer:
        await peer.login()
        peer.send(peer.open_session(window=1000))
        theirs = int.from_bytes((await peer.expect(91))[5:9], 'big')
        session = server.made[-1].sessions[-1]
        assert await answer(peer, pty(theirs))
        assert await answer(peer, request(theirs, b'shell'))
        before = resident_kib()
        peer.send(data(theirs, b'x' * 1000 + b'\r'), *[data(theirs, b'\x10\r' * 16_000)] * 40)
        peer.send(b'\x50' + string(b'keepalive@openssh.com') + b'\x01')
        await peer.expect(82)
        assert session.chan.get_write_buffer_size() < 128 * 1024
        assert sum(len(call[1]) for call in session.calls if call[0] == 'data') < 512 * 1024
        assert resident_kib() - before < 24 * 1024
        peer.send(b'\x61' + uint32(theirs))
        with pytest.raises((Gone, TimeoutError)):
            await peer.expect(1, patience=0.3)
        assert session.calls[-1] == 'lost'
