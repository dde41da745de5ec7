"""A peer in plain Python that holds the keys and says whatever it is told to, in any state and either role.

It shares no code with the package: curve25519-sha256, ssh-ed25519, and the packets of tests/reference. What it does by
itself is only what is needed to come to the state that a test is about.
"""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import ssh_fast
from tests.reference.cipher import new_reference_cipher
from tests.reference.packet import PacketReceiver, PacketSender
from tests.reference.suites import AEAD_KEYS, ETM, MAC_KEYS, STREAM_KEYS, Suite

LOOPBACK = '127.0.0.1'
PATIENCE = 6.0     # seconds that a peer waits for an answer before the test fails
GCM = Suite(b'aes128-gcm@openssh.com')
USER, PASSWORD = 'user', 'secret'

# One suite for each way in which lengths and tags are laid out
MODES = [
    Suite(b'chacha20-poly1305@openssh.com'),
    GCM,
    Suite(b'aes256-ctr', b'hmac-sha2-256'),
    Suite(b'aes256-ctr', b'hmac-sha2-256-etm@openssh.com'),
]

HOST_KEY = ssh_fast.generate_private_key('ssh-ed25519')


def uint32(value: int) -> bytes:
    return value.to_bytes(4, 'big')


def string(data: bytes | str) -> bytes:
    data = data.encode() if isinstance(data, str) else data
    return uint32(len(data)) + data


def mpint(value: int) -> bytes:
    return string(value.to_bytes(value.bit_length() // 8 + 1, 'big') if value else b'')


def take_string(data: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(data[:4], 'big')
    return data[4 : 4 + size], data[4 + size :]


def resident_kib() -> int:
    """Return this process's resident memory in KiB."""
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') // 1024


IGNORE = b'\x02' + string(b'nothing')


class Gone(Exception):
    """The other end closed the connection; `reason` is what its DISCONNECT said, if it sent one."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f'{code}: {reason}')
        self.code, self.reason = code, reason


class Peer:
    """One end of a connection, with a hostile mind."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        is_client: bool,
        suite: Suite = GCM,
        strict: bool = True,
        host_key: Ed25519PrivateKey | None = None,
    ) -> None:
        self._reader, self.writer = reader, writer
        self.is_client, self.suite, self.strict = is_client, suite, strict
        self.sender, self.receiver = PacketSender(), PacketReceiver()
        self.session_id = b''
        self.stash: list[bytes] = []        # what came while something else was waited for
        self.versions = [b'SSH-2.0-hostile', b'']
        self._host_key = host_key or Ed25519PrivateKey.generate()

    @classmethod
    async def connect(cls, port: int, **options: Any) -> Self:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        return cls(reader, writer, is_client=True, **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    # --- bytes and packets

    def send(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.writer.write(self.sender.send(payload))

    def send_framed(self, packet: bytes) -> None:
        """Send a packet whose length and padding fields are the caller's, under a valid tag."""
        self.writer.write(self.sender.send_framed(packet))

    async def drain(self) -> None:
        await asyncio.wait_for(self.writer.drain(), PATIENCE)

    async def receive(self, patience: float = PATIENCE) -> bytes:
        """Return the next payload; raise `Gone` at a DISCONNECT or the end of the stream."""
        while (payload := self.receiver.next_payload()) is None:
            try:
                data = await asyncio.wait_for(self._reader.read(65536), patience)
            except ConnectionError:
                data = b''
            if not data:
                raise Gone(None, 'closed without a word')
            self.receiver.feed(data)
        if payload[0] == 1:
            reason, _ = take_string(payload[5:])
            raise Gone(int.from_bytes(payload[1:5], 'big'), reason.decode())
        return payload

    async def expect(self, *numbers: int, patience: float = PATIENCE) -> bytes:
        """Return the next payload with one of these numbers; what comes before it goes to the stash."""
        while (payload := await self.receive(patience))[0] not in numbers:
            self.stash.append(payload)
        return payload

    async def expect_gone(self, patience: float = PATIENCE) -> Gone:
        """Return how the other end left; everything before that goes to the stash."""
        try:
            while True:
                self.stash.append(await self.receive(patience))
        except Gone as gone:
            return gone

    # --- the handshake

    async def identify(self) -> None:
        self.writer.write(self.versions[0] + b'\r\n')
        self.versions[1] = (await asyncio.wait_for(self._reader.readline(), PATIENCE)).rstrip(b'\r\n')
        if not self.versions[1]:
            raise Gone(None, 'closed before its identification')

    def kexinit(self, *, kex: bytes = b'curve25519-sha256', follows: bool = False) -> bytes:
        """Make a KEXINIT with the one algorithm of each kind that this peer speaks."""
        marker = b'kex-strict-c-v00@openssh.com' if self.is_client else b'kex-strict-s-v00@openssh.com'
        if self.strict and not self.session_id:
            kex += b',' + marker
        if self.is_client and not self.session_id:
            kex += b',ext-info-c'
        mac = self.suite.mac or b'hmac-sha2-256'
        lists = (kex, b'ssh-ed25519', self.suite.name, self.suite.name, mac, mac, b'none', b'none', b'', b'')
        return b'\x14' + os.urandom(16) + b''.join(map(string, lists)) + bytes([follows]) + uint32(0)

    async def exchange(
        self, *, between: Sequence[bytes] = (), before_newkeys: Sequence[bytes] = (), kexinit: bytes | None = None
    ) -> None:
        """Exchange keys: `between` goes right behind our KEXINIT, `before_newkeys` right before our NEWKEYS."""
        kexinit = kexinit or self.kexinit()
        self.send(kexinit, *between)
        theirs = await self.expect(20)
        await self.finish_exchange(kexinit, theirs, before_newkeys)

    async def finish_exchange(self, ours: bytes, theirs: bytes, before_newkeys: Sequence[bytes] = ()) -> None:
        """Go on from both KEXINITs."""
        ephemeral = X25519PrivateKey.generate()
        public = ephemeral.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        if self.is_client:
            self.send(b'\x1e' + string(public))
            host_key, rest = take_string((await self.expect(31))[1:])
            value, rest = take_string(rest)
            parts = [*self.versions, ours, theirs, host_key, public, value]
        else:
            value, _ = take_string((await self.expect(30))[1:])
            raw = self._host_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
            host_key = string(b'ssh-ed25519') + string(raw)
            parts = [*self.versions[::-1], theirs, ours, host_key, value, public]
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(value))
        secret = mpint(int.from_bytes(shared, 'big'))
        digest = hashlib.sha256(b''.join(map(string, parts)) + secret).digest()
        self.session_id = self.session_id or digest
        if not self.is_client:
            signature = string(b'ssh-ed25519') + string(self._host_key.sign(digest))
            self.send(b'\x1f' + string(host_key) + string(public) + string(signature))
        self.send(*before_newkeys, b'\x15')
        to_server, to_client = (self._cipher(secret + digest, letters) for letters in (b'CAE', b'DBF'))
        mine, other = (to_server, to_client) if self.is_client else (to_client, to_server)
        self.sender.set_cipher(mine, self.strict)
        await self.expect(21)
        self.receiver.set_cipher(other, self.strict)

    def _cipher(self, head: bytes, letters: bytes) -> Any:
        key_size, iv_size = (AEAD_KEYS | STREAM_KEYS)[self.suite.name]
        mac_size = MAC_KEYS.get(self.suite.mac.removesuffix(ETM), 0)

        def derive(letter: int, size: int) -> bytes:
            key = hashlib.sha256(head + bytes([letter]) + self.session_id).digest()
            while len(key) < size:
                key += hashlib.sha256(head + key).digest()
            return key[:size]

        sizes = (key_size, iv_size, mac_size)
        key, iv, mac_key = (derive(letter, size) for letter, size in zip(letters, sizes, strict=True))
        return new_reference_cipher(self.suite.name, key, iv, self.suite.mac, mac_key)

    async def handshake(self, **options: Any) -> Self:
        await self.identify()
        await self.exchange(**options)
        return self

    # --- the login and a session, as a client

    async def start_auth(self) -> Self:
        """Come to where the first authentication request is expected."""
        await self.handshake()
        self.send(b'\x05' + string(b'ssh-userauth'))
        await self.expect(6)
        return self

    def request(self, method: bytes = b'none', fields: bytes = b'', user: str | bytes = USER) -> bytes:
        return b'\x32' + string(user) + string(b'ssh-connection') + string(method) + fields

    def password(self, password: str | bytes = PASSWORD, user: str | bytes = USER) -> bytes:
        return self.request(b'password', b'\x00' + string(password), user)

    async def login(self) -> Self:
        """Come to the state after a client's login."""
        await self.start_auth()
        self.send(self.password())
        await self.expect(52)
        return self

    def open_session(self, number: int = 0, window: int = 1 << 21, packet: int = 32768) -> bytes:
        return b'\x5a' + string(b'session') + uint32(number) + uint32(window) + uint32(packet)

    async def subsystem(self, name: bytes = b'sftp', **options: int) -> int:
        """Open a session with a subsystem on it; return the other end's channel number."""
        self.send(self.open_session(**options))
        theirs = int.from_bytes((await self.expect(91))[5:9], 'big')
        self.send(b'\x62' + uint32(theirs) + string(b'subsystem') + b'\x01' + string(name))
        await self.expect(99)
        return theirs

    # --- the login and a session, as a server

    async def admit(self) -> Self:
        """Let a client in, whatever it shows."""
        await self.handshake()
        await self.expect(5)
        self.send(b'\x06' + string(b'ssh-userauth'))
        await self.expect(50)
        self.send(b'\x34')
        return self

    async def accept_session(self, window: int = 1 << 21, packet: int = 32768) -> int:
        """Confirm the client's session as our channel 0 and grant its first request; return its channel number."""
        theirs = int.from_bytes((await self.expect(90))[12:16], 'big')
        self.send(b'\x5b' + uint32(theirs) + uint32(0) + uint32(window) + uint32(packet))
        while True:
            request = await self.expect(98)
            name, rest = take_string(request[5:])
            if rest[0]:
                self.send(b'\x63' + uint32(theirs))
            if name in (b'exec', b'shell', b'subsystem'):
                return theirs


def data(channel: int, content: bytes) -> bytes:
    return b'\x5e' + uint32(channel) + string(content)


class Server(ssh_fast.SSHServer):
    """Lets `USER` in with `PASSWORD`; remembers what happened to it."""

    made: list['Server']

    def __init__(self) -> None:
        self.conn: Any = None
        self.users: list[str] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, conn: Any) -> None:
        self.conn = conn

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    def begin_auth(self, username: str) -> bool:
        self.users.append(username)
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == (USER, PASSWORD)


class Serving:
    """A listening server of ours and the objects made for its connections."""

    def __init__(self, port: int, made: list[Any]) -> None:
        self.port, self.made = port, made


@contextlib.asynccontextmanager
async def serving(base: type[ssh_fast.SSHServer] = Server, **options: Any) -> AsyncIterator[Serving]:
    """Serve on loopback until the block ends; `options` are those of listen()."""
    made: list[Any] = []

    def factory() -> ssh_fast.SSHServer:
        made.append(base())
        return made[-1]

    settings = {'server_host_keys': [HOST_KEY], 'server_factory': factory, 'login_timeout': 30, **options}
    async with ssh_fast.listen(LOOPBACK, 0, **settings) as server:
        try:
            yield Serving(server.get_port(), made)
        finally:
            for owner in made:
                if getattr(owner, 'conn', None):
                    owner.conn.abort()


@contextlib.asynccontextmanager
async def hostile_server(script: Callable[[Peer], Awaitable[None]], **options: Any) -> AsyncIterator[int]:
    """Run `script` for each client; yield the port. What it raises, but for `Gone`, is raised at the end."""
    tasks: list[asyncio.Task[None]] = []

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with Peer(reader, writer, is_client=False, **options) as peer:
            with contextlib.suppress(Gone, ConnectionError):
                await script(peer)

    server = await asyncio.start_server(lambda r, w: tasks.append(asyncio.ensure_future(run(r, w))), LOOPBACK, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


def client_options(**options: Any) -> dict[str, Any]:
    """Options of a client of ours that trusts any server."""
    return {'known_hosts': None, 'client_keys': None, 'username': USER, 'password': PASSWORD, **options}


async def logs_in(port: int, **options: Any) -> bool:
    """Tell whether a client of ours gets in."""
    async with ssh_fast.connect(LOOPBACK, port, **client_options(**options)) as conn:
        return bool(conn.get_extra_info('username') == USER)
