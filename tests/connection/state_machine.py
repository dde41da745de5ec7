"""Drives a connection of ours into a state over memory, sends it one message, and says what became of that.

    python -m tests.connection.state_machine

writes tests/connection/state_machine.txt anew. Read its changes before they are committed: each is a change of what a
stranger may do.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ssh_fast
from ssh_fast.connection.client import SSHClientConnection
from ssh_fast.connection.options import SSHClientConnectionOptions, SSHServerConnectionOptions
from ssh_fast.connection.server import SSHServerConnection
from tests.security.peer import GCM, HOST_KEY, PASSWORD, USER, Peer, Server, string, uint32

TABLE = Path(__file__).with_name('state_machine.txt')
ROLES = ('server', 'client')
STATES = (
    'identification', 'kex sent', 'kex reply', 'newkeys', 'service', 'auth', 'authenticated', 'rekey sent', 'rekey both'
)  # fmt: skip
OUTCOMES = ('handle', 'ignore', 'unimplemented', 'disconnect')
UNIMPLEMENTED = 3

# What counts messages, or remembers that there was one, is no sign that it was acted on.
NO_SIGNS = {'_ext_info_due', '_optional_messages', '_ext_infos', '_tick_timer', '_flush_scheduled', '_logger', 'now'}


class Cell(NamedTuple):
    """A place of the table, but for the message's number."""

    role: str
    strict: bool
    state: str


def cells() -> Iterator[Cell]:
    """List all places."""
    for role in ROLES:
        for strict in (True, False):
            for state in STATES:
                yield Cell(role, strict, state)


# --- a socket in memory


class MemorySocket(asyncio.Transport):
    """What a connection writes to; and what the peer reads from and writes to."""

    def __init__(self, protocol: asyncio.BufferedProtocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._sent = b''
        self._closing = False
        self.sent_disconnect = False

    # what the connection calls

    def write(self, data: Any) -> None:
        self._sent += bytes(data)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There are none."""

    def pause_reading(self) -> None:
        """What comes is kept by the connection."""

    def resume_reading(self) -> None:
        """What comes is kept by the connection."""

    # what the peer calls

    def take(self) -> bytes:
        sent, self._sent = self._sent, b''
        return sent

    async def _wait(self) -> None:
        for _ in range(1000):
            if self._sent or self._closing:
                return
            await asyncio.sleep(0)
        raise AssertionError('The connection has nothing to say')

    async def read(self, size: int) -> bytes:
        await self._wait()
        return self.take()

    async def readline(self) -> bytes:
        await self._wait()
        line, end, self._sent = self._sent.partition(b'\n')
        return line + end


class PeerWriter:
    """The peer's way to the connection."""

    def __init__(self, protocol: asyncio.BufferedProtocol, sock: MemorySocket) -> None:
        self._protocol, self._socket = protocol, sock

    def write(self, data: bytes) -> None:
        while data and not self._socket.is_closing():
            buffer = self._protocol.get_buffer(-1)
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            del buffer
            self._protocol.buffer_updated(size)
            data = data[size:]


# --- what the connections are for


class Session(ssh_fast.SSHServerSession):
    """Remembers its calls; has more to say than the window of the peer takes."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls
        self.chan: Any = None

    def connection_made(self, chan: Any) -> None:
        self.chan = chan

    def shell_requested(self) -> bool:
        return True

    def session_started(self) -> None:
        self.chan.write('more than one byte')

    def data_received(self, data: Any, datatype: Any) -> None:
        self.calls.append('data')

    def eof_received(self) -> bool:
        self.calls.append('eof')
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append('close')


class ClientSession(ssh_fast.SSHClientSession):
    """As the server's; it speaks once its command is started."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls
        self.chan: Any = None

    def connection_made(self, chan: Any) -> None:
        self.chan = chan

    session_started = Session.session_started
    data_received = Session.data_received
    eof_received = Session.eof_received
    connection_lost = Session.connection_lost

    def exit_status_received(self, status: int) -> None:
        self.calls.append('status')


class RecordingServer(Server):
    """Lets `USER` in, and serves one kind of session."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def debug_msg_received(self, msg: str, lang: str, always_display: bool) -> None:
        self.calls.append('debug')

    def session_requested(self) -> Any:
        return Session(self.calls)

    def kbdint_auth_supported(self) -> bool:
        return False


class RecordingClient(ssh_fast.SSHClient):
    """Remembers what its server said."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def debug_msg_received(self, msg: str, lang: str, always_display: bool) -> None:
        self.calls.append('debug')

    def auth_banner_received(self, msg: str, lang: str) -> None:
        self.calls.append('banner')


class Bench:
    """A connection of ours, and its peer."""

    def __init__(self, cell: Cell, options: Any) -> None:
        self.cell = cell
        is_client = cell.role == 'client'
        loop = asyncio.get_running_loop()
        self.conn: Any = (SSHClientConnection if is_client else SSHServerConnection)(loop, options)
        self.calls: list[str] = self.conn.owner.calls
        self.socket = MemorySocket(self.conn)
        self.conn.connection_made(self.socket)
        writer: Any = PeerWriter(self.conn, self.socket)
        reader: Any = self.socket
        self.peer = Peer(reader, writer, is_client=not is_client, suite=GCM, strict=cell.strict)
        self.channel = 0
        self.kexinits = b'', b''    # the peer's and ours, while an exchange waits for its reply
        self.task: asyncio.Task[Any] | None = None

    async def come_to_state(self) -> None:
        """Walk from state to state until this one is reached."""
        place = STATES.index(self.cell.state)
        peer, is_server = self.peer, self.cell.role == 'server'
        if place == 0:
            return
        await peer.identify()
        theirs = await peer.expect(20)
        if place == 1:
            return
        ours = peer.kexinit()
        peer.send(ours)
        if place == 2:
            self.kexinits = ours, theirs
            return
        if place == 3:
            await self._stop_before_newkeys(ours, theirs)
            return
        await peer.finish_exchange(ours, theirs)
        if is_server:
            if place > 4:
                peer.send(b'\x05' + string(b'ssh-userauth'))
                await peer.expect(6)
            if place > 5:
                peer.send(peer.password())
                await peer.expect(52)
        else:
            await peer.expect(5)
            if place > 4:
                peer.send(b'\x06' + string(b'ssh-userauth'))
                await peer.expect(50)
            if place > 5:
                peer.send(b'\x34')
        if place > 5:
            await self._open_session()
        if place > 6:
            self.conn._ssh.rekey()
            self.conn._flush()
            theirs = await peer.expect(20)
        if place > 7:
            ours = peer.kexinit()
            peer.send(ours)
            self.kexinits = ours, theirs
        await self.settle()

    async def _stop_before_newkeys(self, ours: bytes, theirs: bytes) -> None:
        """Exchange keys without a NEWKEYS of the peer's; its keys are in force in the other direction."""
        send, stash = self.peer.send, []

        def hold_newkeys(*payloads: bytes) -> None:
            send(*(payload for payload in payloads if payload != b'\x15'))
            stash.extend(payload for payload in payloads if payload == b'\x15')

        sender = self.peer.sender
        set_cipher = sender.set_cipher
        self.peer.send = hold_newkeys     # type: ignore[method-assign]
        sender.set_cipher = lambda *args: None     # type: ignore[method-assign]
        try:
            await self.peer.finish_exchange(ours, theirs)
        finally:
            self.peer.send = send     # type: ignore[method-assign]
            sender.set_cipher = set_cipher     # type: ignore[method-assign]
        assert stash == [b'\x15']

    async def _open_session(self) -> None:
        """Open a session whose window takes one byte, so that an adjust has an effect."""
        peer = self.peer
        if self.cell.role == 'server':
            peer.send(peer.open_session(7, window=1))
            self.channel = int.from_bytes((await peer.expect(91))[5:9], 'big')
            peer.send(b'\x62' + uint32(self.channel) + string(b'shell') + b'\x01')
            await peer.expect(99)
        else:
            await self.settle()
            self.task = asyncio.ensure_future(self.conn.create_session(lambda: ClientSession(self.calls)))
            self.channel = int.from_bytes((await peer.expect(90))[12:16], 'big')
            peer.send(b'\x5b' + uint32(self.channel) + uint32(7) + uint32(1) + uint32(32768))
            await peer.expect(98)
            peer.send(b'\x63' + uint32(self.channel))
            await self.task
        await peer.expect(94)
        await self.settle()

    async def settle(self) -> None:
        """Let everything happen that is ready to."""
        for _ in range(5):
            await asyncio.sleep(0)

    def signs(self) -> list[Any]:
        """Take down what a message that is acted on would change."""
        conn = self.conn
        places = [conn, conn._ssh, conn._ssh._exchanges, conn._ssh._policy, conn._mux]
        login = conn._login
        places += [login, getattr(login, '_auth', None)]
        places += conn._mux.channels if conn._mux else []
        found = [list(self.calls), conn._ssh.strict_kex, conn._reader.identified, conn._reader.express]
        found += [(link.flow.send_window, link.flow.queued) for link in (conn._mux.channels if conn._mux else [])]
        for place in places:
            fields = dict(getattr(place, '__dict__', {}))
            for slot in getattr(type(place), '__slots__', ()):
                fields[slot] = getattr(place, slot, None)
            for name, value in sorted(fields.items()):
                if name not in NO_SIGNS:
                    plain = isinstance(value, bool | int | float | str | bytes | tuple | list | dict | set | None)
                    found.append((type(place).__name__, name, repr(value) if plain else id(value)))
        return found

    async def outcome(self, number: int) -> str:
        """Send a message with this number and say what became of it."""
        await self.settle()
        payload = await reply(self) if number == 31 else message(self, number)
        if self.cell.state != 'identification':
            self._sent()
        before = self.signs()
        if self.cell.state == 'identification':
            self.peer.writer.write(self.peer.sender.send(payload) + b'\r\n')
        else:
            self.peer.send(payload)
        await self.settle()
        if self.cell.state == 'identification':
            return 'disconnect' if self.socket.is_closing() else 'ignore' if self.signs() == before else 'handle'
        sent = self._sent()
        if self.socket.is_closing():
            # A DISCONNECT of the peer's is answered by nothing.
            return 'disconnect' if sent[-1:] == [1] else 'handle'
        if UNIMPLEMENTED in sent:
            return 'unimplemented'
        return 'handle' if sent or self.signs() != before else 'ignore'

    def _sent(self) -> list[int]:
        """List the numbers of what was sent, up to a NEWKEYS: the peer lacks the keys that follow."""
        receiver = self.peer.receiver
        receiver.feed(self.socket.take())
        sent: list[int] = []
        while sent[-1:] != [21] and (payload := receiver.next_payload()) is not None:
            sent.append(payload[0])
        return sent

    async def close(self) -> None:
        """Leave nothing behind."""
        self.conn.abort()
        await self.settle()
        if self.task:
            await asyncio.gather(self.task, return_exceptions=True)


def message(bench: Bench, number: int) -> bytes:
    """Make the most acceptable message of this number: one that would be taken where it may stand."""
    peer, to_server = bench.peer, bench.cell.role == 'server'
    channel = uint32(bench.channel)
    fields: dict[int, Callable[[], bytes]] = {
        1: lambda: uint32(11) + string(b'bye') + string(b''),
        2: lambda: string(b'nothing'),
        3: lambda: uint32(0),
        4: lambda: b'\x01' + string(b'hello') + string(b''),
        5: lambda: string(b'ssh-userauth'),
        6: lambda: string(b'ssh-userauth'),
        7: lambda: uint32(1) + string(b'server-sig-algs') + string(b'ssh-ed25519'),
        20: lambda: peer.kexinit()[1:],
        30: lambda: string(bytes([9]) + bytes(31)),
        50: lambda: peer.password()[1:],
        51: lambda: string(b'password') + b'\x00',
        53: lambda: string(b'welcome') + string(b''),
        60: lambda: string(b'please') + string(b''),
        61: lambda: uint32(0),
        80: lambda: string(b'nothing@example.com') + b'\x01',
        90: lambda: peer.open_session(8)[1:] if to_server else string(b'nothing') + uint32(8) + uint32(9) + uint32(99),
        91: lambda: channel + uint32(7) + uint32(1) + uint32(32768),
        92: lambda: channel + uint32(1) + string(b'no') + string(b''),
        93: lambda: channel + uint32(1000),
        94: lambda: channel + string(b'data'),
        95: lambda: channel + uint32(1) + string(b'data'),
        96: lambda: channel,
        97: lambda: channel,
        98: lambda: channel + string(b'nothing@example.com') + b'\x01',
        99: lambda: channel,
        100: lambda: channel,
        192: lambda: string(b'ping'),
        193: lambda: string(b'pong'),
    }
    return bytes([number]) + (fields[number]() if number in fields else b'')


class Captured(Exception):
    """What would have been sent."""


async def reply(bench: Bench) -> bytes:
    """Make the reply of an exchange, good and signed if the connection awaits one."""
    if bench.cell.role == 'server' or not bench.kexinits[0]:
        return b'\x1f' + string(string(b'ssh-ed25519') + string(bytes(32))) + string(bytes(32)) + string(b'')
    send = bench.peer.send

    def capture(*payloads: bytes) -> None:
        raise Captured(*payloads)

    bench.peer.send = capture     # type: ignore[method-assign]
    try:
        await bench.peer.finish_exchange(*bench.kexinits)
    except Captured as captured:
        return bytes(captured.args[0])
    finally:
        bench.peer.send = send     # type: ignore[method-assign]
    raise AssertionError('Nothing was sent')


# --- the table


async def run(numbers: range = range(256), only: list[Cell] | None = None) -> dict[Cell, list[str]]:
    """Try each number in each place, each time with a connection of its own."""
    logger = logging.getLogger('ssh_fast')
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        return await _run(numbers, only or list(cells()))
    finally:
        logger.setLevel(level)


async def _run(numbers: range, places: list[Cell]) -> dict[Cell, list[str]]:
    table: dict[Cell, list[str]] = {}
    for cell in places:
        table[cell] = []
        options = await make_options(cell.role)
        for number in numbers:
            bench = Bench(cell, options)
            try:
                await bench.come_to_state()
                table[cell].append(await bench.outcome(number))
            except Exception as exc:
                raise AssertionError(f'{cell}, message {number}') from exc
            finally:
                await bench.close()
    return table


async def make_options(role: str) -> Any:
    """Make the options of connections."""
    if role == 'server':
        return await SSHServerConnectionOptions.construct(
            server_factory=RecordingServer, server_host_keys=[HOST_KEY], config=None
        )
    return await SSHClientConnectionOptions.construct(
        client_factory=RecordingClient, host='localhost', username=USER, password=PASSWORD, known_hosts=None,
        client_keys=None, agent_path=None, config=None, preferred_auth='password', gss_kex=False,
    )  # fmt: skip


def ranges(numbers: list[int]) -> str:
    """Write numbers as 1 3-7 9."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ' '.join(str(first) if first == last else f'{first}-{last}' for first, last in parts)


HEAD = """\
# What becomes of each message in each state, but for its content: the most acceptable message of its number is sent.
# Written by: python -m tests.connection.state_machine    asserted by: tests/connection/test_state_machine.py
# The state is named for what the connection has done: its KEXINIT is sent; it owes or awaits the reply of the exchange;
# the peer's NEWKEYS is awaited; the service is; the login; and so on. "strict" is whether the peer sent its marker.
# One session is open once the peer is authenticated; channel messages are for that one.
"""


def write(table: dict[Cell, list[str]]) -> str:
    """Write the table."""
    lines = [HEAD]
    for cell, outcomes in table.items():
        lines.append(f'{cell.role}, {"strict" if cell.strict else "not strict"}, {cell.state}')
        for outcome in OUTCOMES:
            numbers = [number for number, found in enumerate(outcomes) if found == outcome]
            if numbers:
                lines.append(f'    {outcome:<14}{ranges(numbers)}')
        lines.append('')
    return '\n'.join(lines)


def read(text: str) -> dict[Cell, list[str]]:
    """Read a table."""
    table: dict[Cell, list[str]] = {}
    outcomes: list[str] = []
    for line in text.splitlines():
        if not line or line.startswith('#'):
            continue
        if not line.startswith(' '):
            role, strict, state = line.split(', ')
            outcomes = table[Cell(role, strict == 'strict', state)] = [''] * 256
            continue
        outcome, *parts = line.split()
        for part in parts:
            first, _, last = part.partition('-')
            for number in range(int(first), int(last or first) + 1):
                assert not outcomes[number], f'{line}: {number} stands twice'
                outcomes[number] = outcome
    return table


if __name__ == '__main__':
    TABLE.write_text(write(asyncio.run(run())))
    sys.stdout.write(f'{TABLE} is written\n')
