"""Attacks on SFTP that the field has seen, over live connections and against both ends."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from tests.security.peer import (
    LOOPBACK,
    Gone,
    Peer,
    client_options,
    data,
    hostile_server,
    resident_kib,
    serving,
    string,
    take_string,
    uint32,
)

INIT = uint32(5) + b'\x01' + uint32(3)
VERSION = uint32(5) + b'\x02' + uint32(3)
LONGEST = 256 * 1024
ENDS = (ssh_fast.SFTPError, ssh_fast.ProtocolError)     # how a client hears of a server that keeps to no protocol


def uint64(value: int) -> bytes:
    return value.to_bytes(8, 'big')


def message(kind: int, request: int, body: bytes = b'') -> bytes:
    return uint32(5 + len(body)) + bytes([kind]) + uint32(request) + body


class Talk:
    """SFTP messages over one channel of a hostile peer."""

    def __init__(self, peer: Peer, theirs: int) -> None:
        self._peer, self._theirs, self._data = peer, theirs, b''

    def send(self, content: bytes) -> None:
        for start in range(0, len(content), 32768):
            self._peer.send(data(self._theirs, content[start : start + 32768]))

    async def receive(self) -> tuple[int, int, bytes]:
        """Return the next message's type, request id and body."""
        while len(self._data) < 4 or len(self._data) < 4 + int.from_bytes(self._data[:4], 'big'):
            payload = await self._peer.expect(94, 97)
            if payload[0] == 97:
                self._peer.send(b'\x61' + uint32(self._theirs))
                raise Gone(None, 'the channel was closed')
            content, _ = take_string(payload[5:])
            self._data += content
        size = 4 + int.from_bytes(self._data[:4], 'big')
        taken, self._data = self._data[:size], self._data[size:]
        return taken[4], int.from_bytes(taken[5:9], 'big'), taken[9:]


async def talk_to_server(peer: Peer) -> Talk:
    await peer.login()
    talk = Talk(peer, await peer.subsystem())
    talk.send(INIT)
    assert (await talk.receive())[0] == 2
    return talk


async def opened(talk: Talk, path: Path, flags: int = 1) -> bytes:
    talk.send(message(3, 1, string(os.fsencode(path)) + uint32(flags) + uint32(0)))
    kind, _, body = await talk.receive()
    assert kind == 102
    return take_string(body)[0]


# --- against our server


@pytest.mark.parametrize('length', [0, LONGEST + 1025, 2**31, 2**32 - 1])
async def test_cve_2026_59844_oversized_messages_to_a_live_server(length: int) -> None:
    """The channel closes, nothing of that size is allocated, and other channels and connections go on."""
    async with serving(sftp_factory=True) as server:
        async with await Peer.connect(server.port) as peer:
            talk = await talk_to_server(peer)
            before = resident_kib()
            talk.send(uint32(length) + b'\x05' + bytes(64))
            await peer.expect(97)
            assert resident_kib() - before < 1024
            other = await peer.subsystem(number=1)
            peer.send(data(other, INIT))
            assert await peer.expect(94)


async def test_cve_2025_5318_and_5449_handles(tmp_path: Path) -> None:
    """Empty, long, forged, closed handles, and those of another session, are an error and nothing more."""
    (tmp_path / 'file').write_bytes(b'content')
    async with serving(sftp_factory=True) as server:
        async with await Peer.connect(server.port) as peer, await Peer.connect(server.port) as another:
            talk, stranger = await talk_to_server(peer), await talk_to_server(another)
            handle, closed = await opened(talk, tmp_path / 'file'), await opened(talk, tmp_path / 'file')
            talk.send(message(4, 2, string(closed)))
            await talk.receive()
            forged = [b'', bytes(257), bytes(65536), handle + b'\0', handle[:-1], b'\xff' * len(handle), closed]
            for kind in (4, 5, 6, 8, 10, 12):
                for number, bad in enumerate(forged):
                    fields = {5: uint64(0) + uint32(4), 6: uint64(0) + string(b'x'), 10: uint32(0)}.get(kind, b'')
                    talk.send(message(kind, number, string(bad) + fields))
                    reply = await talk.receive()
                    assert reply[:2] == (101, number) and int.from_bytes(reply[2][:4], 'big') not in (0, 1), (kind, bad)
            stranger.send(message(5, 9, string(handle) + uint64(0) + uint32(7)))
            assert (await stranger.receive())[0] == 101
            talk.send(message(5, 9, string(handle) + uint64(0) + uint32(7)))
            assert await talk.receive() == (103, 9, string(b'content'))


async def test_cve_2025_48038_handles_run_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('ssh_fast.sftp.handles._MAX_HANDLES', 20)
    (tmp_path / 'file').touch()
    async with serving(sftp_factory=True) as server:
        async with await Peer.connect(server.port) as peer:
            talk = await talk_to_server(peer)
            held = len(os.listdir('/proc/self/fd'))
            for number in range(50):
                talk.send(message(3, number, string(os.fsencode(tmp_path / 'file')) + uint32(1) + uint32(0)))
            kinds = [(await talk.receive())[0] for _ in range(50)]
            assert kinds == [102] * 20 + [101] * 30
            peer.send(b'\x61' + uint32(0))
            await peer.expect(97)
            await asyncio.sleep(0.05)
            assert len(os.listdir('/proc/self/fd')) <= held


async def test_cve_2026_59844_a_read_of_4_gib_is_clamped(tmp_path: Path) -> None:
    (tmp_path / 'file').write_bytes(os.urandom(1 << 20))
    async with serving(sftp_factory=True) as server:
        async with await Peer.connect(server.port) as peer:
            talk = await talk_to_server(peer)
            handle = await opened(talk, tmp_path / 'file')
            before = resident_kib()
            talk.send(message(5, 7, string(handle) + uint64(0) + uint32(2**32 - 1)))
            kind, number, body = await talk.receive()
            assert (kind, number) == (103, 7) and 0 < len(body) <= 4 + LONGEST
            for offset in (2**63 - 1, 2**63, 2**64 - 1):
                talk.send(message(5, 8, string(handle) + uint64(offset) + uint32(2**32 - 1)))
                assert (await talk.receive())[0] == 101
            assert resident_kib() - before < 2048


async def test_reads_that_are_never_taken_are_bounded(tmp_path: Path) -> None:
    """Thousands of READs of a client that closes its window: nothing is read for them."""
    (tmp_path / 'file').write_bytes(bytes(1 << 20))
    async with serving(sftp_factory=True) as server:
        async with await Peer.connect(server.port) as peer:
            await peer.login()
            talk = Talk(peer, await peer.subsystem(window=4096))
            talk.send(INIT)
            await talk.receive()
            handle = await opened(talk, tmp_path / 'file')
            before = resident_kib()
            for number in range(5000):
                talk.send(message(5, number, string(handle) + uint64(0) + uint32(LONGEST)))
            await asyncio.sleep(0.3)
            assert resident_kib() - before < 16 * 1024
            peer.send(b'\x50' + string(b'keepalive@openssh.com') + b'\x01')
            assert await peer.expect(82)


async def test_duplicate_request_ids_are_each_answered(tmp_path: Path) -> None:
    """Numbers are the client's business: a server answers every request with the number it came with."""
    async with serving(sftp_factory=True) as server:
        async with await Peer.connect(server.port) as peer:
            talk = await talk_to_server(peer)
            talk.send(message(17, 5, string(os.fsencode(tmp_path))) * 3 + message(16, 5, string(b'/')))
            replies = sorted([(await talk.receive())[:2] for _ in range(4)])
            assert replies == [(104, 5), (105, 5), (105, 5), (105, 5)] or replies == [(104, 5)] + [(105, 5)] * 3


async def test_cve_2026_23942_and_2017_15906_a_confined_server_keeps_to_its_root(tmp_path: Path) -> None:
    """By the wire: `..`, a sibling with the same prefix, symlinks of either end, NUL, and READLINK."""
    root, sibling = tmp_path / 'u1', tmp_path / 'u10'
    root.mkdir()
    sibling.mkdir()
    (sibling / 'secret').write_bytes(b'secret')
    os.symlink(sibling, root / 'out')
    os.symlink(str(sibling / 'secret'), root / 'leak')

    def factory(chan: Any) -> ssh_fast.SFTPServer:
        return ssh_fast.SFTPServer(chan, chroot=os.fsencode(root))

    async with serving(sftp_factory=factory) as server:
        async with await Peer.connect(server.port) as peer:
            talk = await talk_to_server(peer)
            bad = [b'../u10/secret', b'/../u10/secret', b'/..//u10/./secret', b'out/secret', b'leak',
                   b'/out/../u10/secret', b'x\0/../u10/secret', os.fsencode(sibling / 'secret'),
                   b'../' * 50 + b'etc/passwd']
            for number, path in enumerate(bad):
                talk.send(message(3, number, string(path) + uint32(1) + uint32(0)))
                kind, _, body = await talk.receive()
                assert kind == 101, path
                assert b'u10' not in body or b'u10' in path
                talk.send(message(3, number, string(path) + uint32(0x1a) + uint32(0)))
                kind, _, body = await talk.receive()
                if kind == 102:
                    talk.send(message(4, number, body))
                    await talk.receive()
            assert (sibling / 'secret').read_bytes() == b'secret'
            assert sorted(os.listdir(tmp_path)) == ['u1', 'u10'] and os.listdir(sibling) == ['secret']
            talk.send(message(16, 1, string(b'.')))
            assert str(tmp_path).encode() not in (await talk.receive())[2]


# --- against our client


def answering(
    answer: Callable[[Talk, int, int, bytes], Awaitable[None] | None],
) -> Callable[[Peer], Awaitable[None]]:
    """A server whose SFTP requests are answered by a function of the test."""
    async def script(peer: Peer) -> None:
        await peer.admit()
        talk = Talk(peer, await peer.accept_session(window=1 << 24))
        await talk.receive()
        talk.send(VERSION)
        while True:
            try:
                kind, number, body = await talk.receive()
            except Gone:
                await peer.expect_gone()
                return
            done = answer(talk, kind, number, body)
            if done is not None:
                await done

    return script


@pytest.mark.parametrize(
    'reply', [uint32(2**32 - 1) + b'\x65', uint32(2**31) + b'\x67', uint32(0), uint32(4) + b'\x65\0\0\0',
              message(101, 12345, uint32(0) + string(b'') * 2), message(105, 99, uint32(0)), message(250, 77)],
    ids=['4 GiB', '2 GiB', 'nothing', 'no number', 'unknown id', 'unknown id of ATTRS', 'unknown type'],
)
async def test_cve_2026_15370_replies_that_end_the_session_of_a_live_client(reply: bytes) -> None:
    """Everyone who waits hears of it at once, and nothing of the claimed size is allocated."""
    def answer(talk: Talk, kind: int, number: int, body: bytes) -> None:
        talk.send(reply)

    async with hostile_server(answering(answer)) as port:
        async with ssh_fast.connect(LOOPBACK, port, **client_options()) as conn:
            async with conn.start_sftp_client() as sftp:
                before = resident_kib()
                results = await asyncio.wait_for(
                    asyncio.gather(*(sftp.stat(f'/{number}') for number in range(5)), return_exceptions=True), 10
                )
                assert all(isinstance(result, ENDS) for result in results), results
                assert resident_kib() - before < 2048


async def test_a_reply_that_comes_twice() -> None:
    """A request is answered once; what comes with its number again is a message out of place."""
    def answer(talk: Talk, kind: int, number: int, body: bytes) -> None:
        talk.send(message(105, number, uint32(1) + uint64(5)) * 2)

    async with hostile_server(answering(answer)) as port:
        async with ssh_fast.connect(LOOPBACK, port, **client_options()) as conn:
            async with conn.start_sftp_client() as sftp:
                assert (await sftp.stat('/a')).size == 5
                with pytest.raises(ENDS):
                    await sftp.stat('/b')
                    await sftp.stat('/c')


@pytest.mark.parametrize('wrong', ['too much', 'another type', 'never ending', 'count'])
async def test_cve_2025_15661_data_and_counts_are_not_believed(wrong: str, tmp_path: Path) -> None:
    def answer(talk: Talk, kind: int, number: int, body: bytes) -> None:
        if kind in (7, 17, 8):
            talk.send(message(105, number, uint32(5) + uint64(100_000) + uint32(0o100644)))
        elif kind in (3, 11):
            talk.send(message(102, number, string(b'h')))
        elif kind == 5:
            size = int.from_bytes(body[-4:], 'big')
            extra = {'too much': string(bytes(size + 1)), 'another type': b''}.get(wrong, string(b''))
            talk.send(message(104 if wrong == 'another type' else 103, number, extra))
        elif kind == 12:
            talk.send(message(104, number, uint32(2**32 - 1) + string(b'a') * 2 + uint32(0)))
        else:
            talk.send(message(101, number, uint32(0) + string(b'') * 2))

    async with hostile_server(answering(answer)) as port:
        async with ssh_fast.connect(LOOPBACK, port, **client_options()) as conn:
            async with conn.start_sftp_client() as sftp:
                with pytest.raises(ENDS):
                    if wrong == 'count':
                        await asyncio.wait_for(sftp.listdir('/'), 10)
                    else:
                        await asyncio.wait_for(sftp.get('/file', tmp_path / 'file'), 10)


@pytest.mark.parametrize('name', [b'..', b'../evil', b'/tmp/evil', b'a/b', b'', b'.', b'..\0', b'\x1b]0;x\x07'])
async def test_cve_2019_6110_and_2026_54591_names_of_a_live_server(name: bytes, tmp_path: Path) -> None:
    """Nothing is written outside the target, whatever a directory of the server's is said to hold."""
    target = tmp_path / 'here' / 'target'
    target.mkdir(parents=True)
    listed: list[int] = []

    def answer(talk: Talk, kind: int, number: int, body: bytes) -> None:
        directory = take_string(body)[0] in (b'/top', b'/top/.')
        if kind in (7, 17, 8):
            talk.send(message(105, number, uint32(5) + uint64(4) + uint32(0o40755 if directory else 0o100644)))
        elif kind in (3, 11):
            talk.send(message(102, number, string(b'h')))
        elif kind == 12 and not listed:
            listed.append(number)
            attrs = uint32(5) + uint64(4) + uint32(0o100644)
            talk.send(message(104, number, uint32(1) + string(name) + string(name) + attrs))
        elif kind == 5:
            talk.send(message(103, number, string(b'evil')))
        else:
            talk.send(message(101, number, uint32(1 if kind == 12 else 0) + string(b'') * 2))

    async with hostile_server(answering(answer)) as port:
        async with ssh_fast.connect(LOOPBACK, port, **client_options()) as conn:
            async with conn.start_sftp_client() as sftp:
                with contextlib.suppress(ssh_fast.SFTPError, OSError, ValueError):
                    await asyncio.wait_for(sftp.get('/top', target, recurse=True), 10)
    assert os.listdir(tmp_path) == ['here'] and os.listdir(tmp_path / 'here') == ['target']
    assert not os.path.exists('/tmp/evil')


async def test_a_failed_write_of_a_live_upload_surfaces(tmp_path: Path) -> None:
    """One WRITE of many fails: the copy fails, whatever the later ones say (OpenSSH 2c504a74e)."""
    (tmp_path / 'file').write_bytes(bytes(4 << 20))
    writes: list[int] = []

    def answer(talk: Talk, kind: int, number: int, body: bytes) -> None:
        if kind == 3:
            talk.send(message(102, number, string(b'h')))
        elif kind in (7, 8, 17):
            talk.send(message(101, number, uint32(2) + string(b'no such file') + string(b'')))
        else:
            writes.append(kind)
            failed = kind == 6 and writes.count(6) == 3
            talk.send(message(101, number, uint32(4 if failed else 0) + string(b'disk full') + string(b'')))

    async with hostile_server(answering(answer)) as port:
        async with ssh_fast.connect(LOOPBACK, port, **client_options()) as conn:
            async with conn.start_sftp_client() as sftp:
                with pytest.raises(ssh_fast.SFTPFailure, match='disk full'):
                    await asyncio.wait_for(sftp.put(tmp_path / 'file', '/file'), 20)
