"""Two transports joined in memory, a seeded cutter of byte streams, and a factory of hostile packets."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ssh_fast.constants import MSG_DEBUG, MSG_DISCONNECT, MSG_EXT_INFO, MSG_IGNORE, MSG_UNIMPLEMENTED
from ssh_fast.errors import DisconnectError
from ssh_fast.keys.key import SSHKey, generate_private_key
from ssh_fast.keys.keypair import SSHLocalKeyPair
from ssh_fast.transport import Transport, TransportOptions
from ssh_fast.wire import encode_boolean, encode_string, encode_uint32

Cutter = Callable[[bytes], Iterator[bytes]]


# --- cutters


def whole(data: bytes) -> Iterator[bytes]:
    """Deliver everything at once."""
    if data:
        yield data


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    """Deliver one byte at a time."""
    for i in range(len(data)):
        yield data[i : i + 1]


def seeded_cutter(seed: int, most: int = 200) -> Cutter:
    """Make a cutter whose pieces have random sizes, the same ones each time."""
    generator = random.Random(seed)

    def cut(data: bytes) -> Iterator[bytes]:
        position = 0
        while position < len(data):
            size = generator.randint(1, most)
            yield data[position : position + size]
            position += size

    return cut


# --- ends


class RecordingHost:
    """A transport host that says yes to everything and remembers it."""

    def __init__(self) -> None:
        self.transport: Transport | None = None
        self.accept_host_key = True
        self.host_keys: list[tuple[bytes, bytes]] = []
        self.exchanges: list[bool] = []
        self.sequences: list[tuple[int, int]] = []      # (receiving, sending), when keys came into force
        self.services: list[bytes] = []
        self.messages: list[tuple[int, bytes, int]] = []
        self.disconnect: DisconnectError | None = None
        self.debug: list[tuple[str, str, bool]] = []

    def host_key_received(self, key_data: bytes, algorithm: bytes) -> None:
        self.host_keys.append((key_data, algorithm))
        if self.accept_host_key:
            self.transport.host_key_accepted()

    def ask(self, question: Callable[[], Any], answer: Callable[[Any], None],
            failed: Callable[[Exception], None] | None = None) -> None:
        try:
            value = question()
        except Exception as exc:
            if failed is None:
                raise
            failed(exc)
        else:
            answer(value)

    def keys_exchanged(self, first: bool) -> None:
        self.exchanges.append(first)
        self.sequences.append((self.transport.reader.sequence, self.transport.writer.sequence))

    def service_requested(self, name: bytes) -> None:
        self.services.append(name)
        self.transport.accept_service(name)

    def service_accepted(self, name: bytes) -> None:
        self.services.append(name)

    def message_received(self, message_type: int, payload: bytes, sequence: int) -> None:
        self.messages.append((message_type, payload, sequence))

    def disconnect_received(self, exc: DisconnectError) -> None:
        self.disconnect = exc

    def debug_received(self, message: str, lang: str, always_display: bool) -> None:
        self.debug.append((message, lang, always_display))


class End:
    """One end of a pipe: a transport, its host, and the error that ended it."""

    def __init__(self, options: TransportOptions, *, is_client: bool, now: float = 0.0) -> None:
        self.host = RecordingHost()
        self.wakes = 0
        self.transport = Transport(self.host, options, is_client=is_client, wake=self._wake, now=now)
        self.host.transport = self.transport
        self.error: Exception | None = None

    def _wake(self) -> None:
        self.wakes += 1

    @property
    def messages(self) -> list[bytes]:
        """The payloads of the messages that came for the protocols above."""
        return [payload for _, payload, _ in self.host.messages]

    def take(self) -> bytes:
        """Take everything that the transport has to send."""
        parts = []
        while (chunk := self.transport.writer.take_chunk()) is not None:
            parts.append(bytes(chunk))
        return b''.join(parts)

    def feed(self, data: bytes, cut: Cutter = whole) -> None:
        """Deliver bytes; an error ends this end as a connection would: it tells the peer, and takes no more."""
        for part in cut(data):
            if self.error is not None:
                return
            try:
                self.transport.reader.feed(part)
            except Exception as exc:
                self.error = exc
                if isinstance(exc, DisconnectError):
                    self.transport.disconnect(exc.code, exc.reason)


@dataclass
class Pipe:
    """A client and a server end; `pump` carries bytes until both have nothing left to say."""

    client: End
    server: End
    cut: Cutter = whole
    on_client_bytes: Callable[[bytes], bytes] | None = None     # what a man in the middle makes of it
    on_server_bytes: Callable[[bytes], bytes] | None = None
    carried: list[int] = field(default_factory=lambda: [0, 0])

    def start(self) -> 'Pipe':
        """Start both ends and carry until they rest."""
        self.client.transport.start()
        self.server.transport.start()
        return self.pump()

    def step(self) -> bool:
        """Carry once in both directions; False if there was nothing."""
        to_server = self.client.take()
        if to_server and self.on_client_bytes:
            to_server = self.on_client_bytes(to_server)
        self.server.feed(to_server, self.cut)

        to_client = self.server.take()
        if to_client and self.on_server_bytes:
            to_client = self.on_server_bytes(to_client)
        self.client.feed(to_client, self.cut)

        self.carried[0] += len(to_server)
        self.carried[1] += len(to_client)
        return bool(to_server or to_client)

    def pump(self) -> 'Pipe':
        """Carry until nothing is left."""
        for _ in range(1000):
            if not self.step():
                return self
        raise AssertionError('Both ends go on talking')

    def check(self) -> 'Pipe':
        """Raise the error that ended one of the ends."""
        for end in (self.client, self.server):
            if end.error is not None:
                raise end.error
        return self

    def login(self) -> 'Pipe':
        """Come to the state after login, with nothing but SUCCESS of it."""
        self.client.transport.request_service(b'ssh-userauth')
        self.pump()
        self.server.transport.send_message(b'\x34')
        self.server.transport.authentication_complete()
        self.pump()
        self.client.transport.authentication_complete()
        return self.check()


_KEYS: dict[bytes, SSHKey] = {}


def host_key(algorithm: bytes = b'ssh-ed25519') -> SSHLocalKeyPair:
    """Return a host key pair; the same one each time."""
    if algorithm not in _KEYS:
        options: dict[str, Any] = {'key_size': 2048} if algorithm == b'ssh-rsa' else {}
        _KEYS[algorithm] = generate_private_key(algorithm.decode(), **options)
    return SSHLocalKeyPair(_KEYS[algorithm])


def options(**changes: Any) -> TransportOptions:
    """Make options; `algs` names are single algorithms, and a server's host key is ssh-ed25519 unless given."""
    changes.setdefault('host_keys', [host_key()])
    return TransportOptions(**changes)


def make_pipe(cut: Cutter = whole, client: dict[str, Any] | None = None, server: dict[str, Any] | None = None,
              **both: Any) -> Pipe:
    """Join a client and a server; options for both ends, or for one."""
    return Pipe(
        End(options(**{**both, **(client or {})}), is_client=True),
        End(options(**{**both, **(server or {})}), is_client=False),
        cut,
    )


# --- hostile packets


class PacketFactory:
    """Builds packets that no honest end sends, unencrypted, whose framing can be wrong in each field."""

    @staticmethod
    def frame(payload: bytes, *, length: int | None = None, padding: int | None = None, block: int = 8) -> bytes:
        """Frame a payload without encryption; `length` and `padding` override what would be right."""
        size = padding
        if size is None:
            size = block - (5 + len(payload)) % block
            size += block if size < 4 else 0
        true_length = 1 + len(payload) + size
        return encode_uint32(true_length if length is None else length) + bytes([size]) + payload + bytes(size)

    @staticmethod
    def ignore(data: bytes = b'') -> bytes:
        return bytes([MSG_IGNORE]) + encode_string(data)

    @staticmethod
    def debug(text: bytes = b'hello') -> bytes:
        return bytes([MSG_DEBUG]) + encode_boolean(True) + encode_string(text) + encode_string(b'')

    @staticmethod
    def unimplemented(sequence: int = 0) -> bytes:
        return bytes([MSG_UNIMPLEMENTED]) + encode_uint32(sequence)

    @staticmethod
    def ext_info(entries: Sequence[tuple[bytes, bytes]] = (), count: int | None = None) -> bytes:
        fields = b''.join(encode_string(name) + encode_string(value) for name, value in entries)
        return bytes([MSG_EXT_INFO]) + encode_uint32(len(entries) if count is None else count) + fields

    @staticmethod
    def disconnect(code: int = 11, reason: bytes = b'bye') -> bytes:
        return bytes([MSG_DISCONNECT]) + encode_uint32(code) + encode_string(reason) + encode_string(b'')

    @staticmethod
    def split(data: bytes) -> list[bytes]:
        """Split unencrypted packets."""
        packets = []
        while data:
            size = 4 + int.from_bytes(data[:4], 'big')
            packets.append(data[:size])
            data = data[size:]
        return packets
