"""What every key exchange method shares: its two messages, the exchange hash, and the keys derived from it.

    client                                   server
    INIT    client value           ->
                                   <-        REPLY   host key, server value, signature of H

    H = HASH(V_C | V_S | I_C | I_S | K_S | parameters | client value | server value | K)      RFC 4253 section 8
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from ...constants import MSG_KEX_FIRST
from ...errors import ProtocolError
from ...gss_context import GSSContext
from ...keys.certificate_names import plain_algorithm
from ...keys.keypair import SSHKeyPair
from ...wire import Cursor, encode_byte, encode_mpint, encode_string


@dataclass(frozen=True)
class KexContext:
    """What an exchange is given: its role, what is hashed first, a way to send, and the server's host key."""

    is_client: bool
    hash_prefix: bytes      # V_C, V_S, I_C and I_S, each as a string
    send: Callable[[bytes], None]
    host_key: SSHKeyPair | None = None
    host_key_algorithm: bytes = b''


@dataclass(frozen=True)
class KexResult:
    """What an exchange ends with. A client must still check that `signature` is the host key's over `exchange_hash`.

    With a `gss_context` there is no signature: GSSAPI has proven the server, and the host key, if one was shown.
    """

    hash_name: str
    exchange_hash: bytes
    host_key_data: bytes
    signature: bytes
    shared_secret: bytes = field(repr=False)      # K as it was hashed: an mpint or a string
    gss_context: GSSContext | None = field(default=None, repr=False)

    def derive_key(self, letter: bytes, session_id: bytes, size: int) -> bytes:
        """Derive `size` bytes for the purpose that the letter A to F names (RFC 4253 section 7.2)."""

        head = self.shared_secret + self.exchange_hash
        key = hashlib.new(self.hash_name, head + letter + session_id).digest()

        while len(key) < size:
            key += hashlib.new(self.hash_name, head + key).digest()

        return key[:size]


def encode_secret(data: bytes) -> bytes:
    """Encode a shared secret, bytes in network order, as the mpint that is hashed."""

    return encode_mpint(int.from_bytes(data, 'big'))


class KeyExchange(ABC):
    """One running exchange of a method; values and secrets pass as the fields that are sent and hashed."""

    init_type = MSG_KEX_FIRST
    reply_type = MSG_KEX_FIRST + 1

    def __init__(self, context: KexContext, hash_name: str) -> None:
        self._context = context
        self.hash_name = hash_name
        self._parameters = b''
        self._client_value: bytes | None = None

    # --- what a method defines

    @abstractmethod
    def make_client_value(self) -> bytes:
        """Client: make the ephemeral key, and the encoded value that INIT carries."""

    @abstractmethod
    def answer(self, client_value: bytes) -> tuple[bytes, bytes]:
        """Server: make the encoded value of REPLY, and K as it is hashed; `KeyExchangeFailed` for a bad value."""

    @abstractmethod
    def agree(self, server_value: bytes) -> bytes:
        """Client: make K as it is hashed; `KeyExchangeFailed` for a bad value."""

    def read_value(self, cursor: Cursor) -> bytes:
        """Take the peer's value from its message, encoded as it is hashed."""

        return encode_string(cursor.string())

    # --- running

    def start(self) -> None:
        """Begin: the client speaks first."""

        if self._context.is_client:
            self._send_init()

    def message_received(self, message_type: int, payload: bytes) -> KexResult | None:
        """Take a message of the numbers 30 to 49; return the result if the exchange ends with it."""

        cursor = Cursor(payload)
        cursor.byte()

        if message_type == self.init_type and not self._context.is_client:
            return self._init_received(cursor)

        if message_type == self.reply_type and self._client_value is not None:
            return self._reply_received(cursor, self._client_value)

        raise ProtocolError(f'Expected the next message of the key exchange, got message {message_type}')

    def _send_init(self) -> None:
        self._client_value = self.make_client_value()
        self._context.send(encode_byte(self.init_type) + self._client_value)

    def _init_received(self, cursor: Cursor) -> KexResult:
        client_value = self.read_value(cursor)
        cursor.check_end()
        server_value, secret = self.answer(client_value)

        host_key = self._context.host_key

        if host_key is None:
            raise ValueError('A server needs a host key')

        exchange_hash = self.exchange_hash(host_key.public_data, client_value, server_value, secret)

        # Pairs are shared by connections: the algorithm is chosen anew for each signature.
        host_key.set_sig_algorithm(plain_algorithm(self._context.host_key_algorithm))
        signature = host_key.sign(exchange_hash)

        if not isinstance(signature, bytes):
            raise TypeError('A host key must sign at once')

        self._context.send(
            encode_byte(self.reply_type)
            + encode_string(host_key.public_data)
            + server_value
            + encode_string(signature)
        )

        return KexResult(self.hash_name, exchange_hash, host_key.public_data, signature, secret)

    def _reply_received(self, cursor: Cursor, client_value: bytes) -> KexResult:
        host_key_data = cursor.string()
        server_value = self.read_value(cursor)
        signature = cursor.string()
        cursor.check_end()

        secret = self.agree(server_value)
        exchange_hash = self.exchange_hash(host_key_data, client_value, server_value, secret)

        return KexResult(self.hash_name, exchange_hash, host_key_data, signature, secret)

    def exchange_hash(self, host_key_data: bytes, client_value: bytes, server_value: bytes, secret: bytes) -> bytes:
        """Make H of the fields as they are sent and hashed."""

        return hashlib.new(
            self.hash_name,
            self._context.hash_prefix
            + encode_string(host_key_data)
            + self._parameters
            + client_value
            + server_value
            + secret,
        ).digest()
