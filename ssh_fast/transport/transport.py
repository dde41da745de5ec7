"""The transport protocol of one connection, both roles: who may say what when (RFC 4253).

    identification lines -> KEXINIT both ways -> exchange -> NEWKEYS both ways -> service -> ... -> KEXINIT (rekey) ...

Between our KEXINIT and our NEWKEYS only messages 1 to 4 and 20 to 49 are sent; the others wait here, bounded, and
channel data waits in its flows. Between the peer's KEXINIT and its NEWKEYS only these are taken from it. What a peer
does wrong is raised as a `DisconnectError` out of the packet reader.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress

from .._cipher import OpeningCipher
from .._packet import PacketReader, PacketWriter
from ..constants import (
    DEFAULT_LANG,
    MSG_CHANNEL_LAST,
    MSG_DEBUG,
    MSG_DISCONNECT,
    MSG_EXT_INFO,
    MSG_GLOBAL_REQUEST,
    MSG_IGNORE,
    MSG_KEX_FIRST,
    MSG_KEX_LAST,
    MSG_KEXINIT,
    MSG_NEWKEYS,
    MSG_PING,
    MSG_PONG,
    MSG_SERVICE_ACCEPT,
    MSG_SERVICE_REQUEST,
    MSG_UNIMPLEMENTED,
    MSG_USERAUTH_REQUEST,
    MSG_USERAUTH_SUCCESS,
)
from ..errors import DisconnectError, ProtocolError, disconnect_error
from ..gss_context import GSSContext
from ..logging import printable
from ..wire import Cursor, encode_byte, encode_string, encode_uint32
from .compression import is_delayed, new_compressor, new_decompressor
from .exchange import Exchanges, SessionProof
from .ext_info import PING, SERVER_SIG_ALGS, decode_ext_info, encode_ext_info
from .host import TransportHost
from .kex import KexResult
from .negotiation import Algorithms
from .options import TransportOptions
from .rekey import RekeyPolicy
from .version_line import VersionReader, make_version_line

MAX_QUEUED_BYTES = 1 << 20     # of messages that wait for a key exchange to end
MAX_QUEUED_MESSAGES = 4096
MAX_REPLY_BACKLOG = 256 * 1024  # unsent bytes above which a peer gets no replies to what needs none
MAX_EXT_INFO_FROM_SERVER = 2   # after NEWKEYS and before USERAUTH_SUCCESS (RFC 8308 section 2.4)
_TEXT_LIMIT = 1024


class Transport:
    """One end of the transport protocol: packets in through `reader`, packets out through `writer`, and no clock."""

    def __init__(
        self,
        host: TransportHost,
        options: TransportOptions,
        *,
        is_client: bool,
        wake: Callable[[], object],
        now: float,
    ) -> None:
        self._host = host
        self._options = options
        self._is_client = is_client

        self.reader = PacketReader(self)
        self.writer = PacketWriter(wake)
        self._longest = self.reader.longest
        self.reader.longest = options.longest_before_login or self._longest
        self.client_version = b''
        self.server_version = b''
        self.rekeys = 0         # completed exchanges after the first
        self.peer_extensions: dict[bytes, bytes] = {}

        self._version_reader = VersionReader(is_client=is_client)
        self._policy = RekeyPolicy(
            options.rekey_bytes, options.rekey_seconds, options.rekey_packets, options.kex_timeout, now
        )

        # the exchange that runs
        self._exchanges = Exchanges(host, options, self.writer.send_packet, self._exchanged, is_client=is_client)
        self._question: KexResult | None = None         # the host key is being decided about
        self._next_opening: OpeningCipher | None = None
        self._queue: deque[bytes | None] = deque()      # None: compression begins here
        self._queued_bytes = 0

        # what has happened
        self._keyed = False             # the peer's first NEWKEYS came
        self._optional_messages = 0     # that came before it
        self._ext_info_due = False      # the next message may be EXT_INFO
        self._ext_infos = 0
        self._success_due = False       # the next message must be USERAUTH_SUCCESS
        self._requested_service: bytes | None = None
        self._service: bytes | None = None
        self._authenticated = False
        self._compress_sent = False
        self._rekey_wanted = False
        self._express = False           # to be set again after the exchange
        self._closed = False

    @property
    def algorithms(self) -> Algorithms:
        """The algorithms in force, or being changed to."""

        return self._exchanges.algorithms

    @property
    def session_id(self) -> bytes:
        """The hash of the first exchange; empty before its end."""

        return self._exchanges.session_id

    @property
    def session_proof(self) -> SessionProof | None:
        """What proves to others whose session this is; None before the first exchange ends, and if GSSAPI proved it."""

        return self._exchanges.proof

    @property
    def gss_context(self) -> GSSContext | None:
        """The context that authenticated the first exchange, None if a host key did."""

        return self._exchanges.gss_context

    @property
    def strict_kex(self) -> bool:
        """Whether both ends follow the strict key exchange (draft-ietf-sshm-strict-kex)."""

        return self._exchanges.strict

    @property
    def kex_running(self) -> bool:
        """Whether a key exchange runs, from the first KEXINIT of either end to the last NEWKEYS."""

        return self._exchanges.running

    @property
    def peer_sig_algs(self) -> tuple[bytes, ...] | None:
        """The signature algorithms that a server said it takes from users; None if it did not say."""

        value = self.peer_extensions.get(SERVER_SIG_ALGS)

        return None if value is None else tuple(value.split(b','))

    # --- running

    def start(self) -> None:
        """Send the identification line and the first KEXINIT."""

        line = make_version_line(self._options.version)

        if self._is_client:
            self.client_version = line
        else:
            self.server_version = line

        self.writer.send_raw(line + b'\r\n')
        self._begin_exchange()

    def pass_ended(self, now: float) -> None:
        """Look at the clock and the counters; to be called after each pass of reading or writing, and now and then.

        Starts a rekey that is due. Raises `KeyExchangeFailed` if the key exchange that runs has taken too long.
        """

        if self._closed:
            return

        if self.kex_running:
            if self._question is None:
                self._policy.check_timeout(now)
        elif self._authenticated and (self._rekey_wanted or self._policy.due(self.reader, self.writer, now)):
            self._begin_exchange()

    def rekey(self) -> None:
        """Renew the keys: now, or after login if that is not done; an exchange that runs already counts as this one."""

        if self._closed or self.kex_running:
            return

        if self._authenticated:
            self._begin_exchange()
        else:
            self._rekey_wanted = True

    def fail(self, exc: DisconnectError) -> None:
        """Refuse to go on: tell the peer why, and look at nothing more that it sends."""

        self.disconnect(exc.code, exc.reason, exc.lang)

    def disconnect(self, code: int, reason: str, lang: str = DEFAULT_LANG) -> None:
        """Send DISCONNECT, if the peer is known to speak the protocol; nothing is sent or looked at after it."""

        if self._closed:
            return

        if self.reader.identified:
            # The writer refuses when its sequence numbers are used up.
            with suppress(ProtocolError):
                self.writer.send_packet(
                    encode_byte(MSG_DISCONNECT) + encode_uint32(code) + encode_string(reason) + encode_string(lang)
                )

        self._close()

    def _close(self) -> None:
        self._closed = True
        self._queue.clear()
        self._question = None
        self.reader.hold()
        self.writer.blocked = True

    # --- sending

    def send_message(self, payload: bytes) -> None:
        """Send a message, or let it wait for the end of a key exchange, in order.

        At most 1 MiB or 4096 messages wait, then `ProtocolError` is raised: a peer that does not finish a key exchange
        and still makes us answer it. Channel data does not pass here; it waits in its flow.
        """

        if self._closed:
            return

        message_type = payload[0]

        if not self.writer.blocked or message_type <= MSG_DEBUG or MSG_KEXINIT <= message_type <= MSG_KEX_LAST:
            self.writer.send_packet(payload)
            return

        if self._queued_bytes + len(payload) > MAX_QUEUED_BYTES or len(self._queue) >= MAX_QUEUED_MESSAGES:
            raise ProtocolError('Expected the key exchange to end before more messages are sent')

        self._queued_bytes += len(payload)
        self._queue.append(payload)

    def send_unimplemented(self, sequence: int) -> None:
        """Tell the peer that its packet with this sequence number was not understood."""

        if self.writer.backlog <= MAX_REPLY_BACKLOG:
            self.send_message(encode_byte(MSG_UNIMPLEMENTED) + encode_uint32(sequence))

    def _send_queued(self) -> None:
        while self._queue:
            payload = self._queue.popleft()

            if payload is None:
                self._compress_sent = True
                self._set_compressor(at_login=True)
            else:
                self.writer.send_packet(payload)

        self._queued_bytes = 0

    # --- services and login

    def request_service(self, name: bytes) -> None:
        """Client: ask for a service."""

        self._requested_service = name
        self.send_message(encode_byte(MSG_SERVICE_REQUEST) + encode_string(name))

    def accept_service(self, name: bytes) -> None:
        """Server: grant the service that was requested."""

        if name != self._requested_service:
            raise ValueError(f'Service {name!r} was not requested')

        self._service = name
        self.send_message(encode_byte(MSG_SERVICE_ACCEPT) + encode_string(name))

    def authentication_complete(self) -> None:
        """Login is done: delayed compression begins, PING is answered, and keys may be renewed.

        A server calls this right after it sent USERAUTH_SUCCESS, a client on its receipt.
        """

        self._authenticated = True
        self.reader.longest = self._longest

        # USERAUTH_SUCCESS itself may still be waiting here, and is not compressed.
        if self._queue:
            self._queue.append(None)
        else:
            self._compress_sent = True

            if not self.writer.blocked:
                self._set_compressor(at_login=True)

        # A peer that is in the middle of a key exchange compresses after its NEWKEYS only.
        if not self._exchanges.peer_started:
            self._set_decompressor(at_login=True)

    def _set_compressor(self, *, at_login: bool = False) -> None:
        if is_delayed(self.algorithms.send_compression) or not at_login:
            self.writer.set_compressor(new_compressor(self.algorithms.send_compression, self._compress_sent))

    def _set_decompressor(self, *, at_login: bool = False) -> None:
        if is_delayed(self.algorithms.recv_compression) or not at_login:
            self.reader.set_decompressor(new_decompressor(self.algorithms.recv_compression, self._authenticated))

    # --- called by the packet reader

    def line_received(self, line: bytes) -> None:
        """Take a line of the identification phase."""

        if self._closed:
            return

        version = self._version_reader.line_received(line)

        if version is None:
            return

        if self._is_client:
            self.server_version = version
        else:
            self.client_version = version

        self.reader.identified = True

    def packet_received(self, payload: bytes, sequence: int) -> None:
        """Take a packet of the main road: check that it may come now, and hand it to whom it is for."""

        if self._closed:
            return

        message_type = payload[0]

        if not self._check_in_exchange(message_type):
            return

        first_after_keys, self._ext_info_due = self._ext_info_due, False

        if self._success_due:
            self._success_due = False

            if message_type != MSG_USERAUTH_SUCCESS and message_type != MSG_DISCONNECT:
                raise ProtocolError(f'Expected USERAUTH_SUCCESS after EXT_INFO, got message {message_type}')

        if message_type >= MSG_USERAUTH_REQUEST:
            self._upper_message_received(message_type, payload, sequence)
        elif message_type >= MSG_KEX_FIRST:
            self._exchanges.message_received(message_type, payload)
        elif message_type == MSG_KEXINIT:
            self._kexinit_received(payload, sequence)
        elif message_type == MSG_NEWKEYS:
            self._newkeys_received(payload)
        elif message_type == MSG_DISCONNECT:
            self._disconnect_received(payload)
        elif message_type == MSG_DEBUG:
            self._debug_received(payload)
        elif message_type == MSG_SERVICE_REQUEST:
            self._service_request_received(payload)
        elif message_type == MSG_SERVICE_ACCEPT:
            self._service_accept_received(payload)
        elif message_type == MSG_EXT_INFO:
            self._ext_info_received(payload, first_after_keys)
        elif message_type not in (MSG_IGNORE, MSG_UNIMPLEMENTED):
            self.send_unimplemented(sequence)

    def _check_in_exchange(self, message_type: int) -> bool:
        """Raise for a message that may not come while the peer is in a key exchange; False if it is to be dropped."""

        if self._keyed and not self._exchanges.peer_started:
            return True

        is_kex = message_type in (MSG_KEXINIT, MSG_NEWKEYS) or MSG_KEX_FIRST <= message_type <= MSG_KEX_LAST

        if not self._keyed and not is_kex and message_type != MSG_DISCONNECT:
            if self.strict_kex:
                raise ProtocolError(f'Expected key exchange messages only, got message {message_type} (strict kex)')

            self._optional_messages += 1

        if message_type in (MSG_PING, MSG_PONG):
            return False

        if message_type > MSG_KEX_LAST or message_type in (MSG_SERVICE_REQUEST, MSG_SERVICE_ACCEPT, MSG_EXT_INFO):
            raise ProtocolError(f'Expected the key exchange to end first, got message {message_type}')

        return True

    def _upper_message_received(self, message_type: int, payload: bytes, sequence: int) -> None:
        if message_type < MSG_GLOBAL_REQUEST:
            if self._service is None:
                raise ProtocolError(f'Expected a service request before authentication, got message {message_type}')

            self._host.message_received(message_type, payload, sequence)
        elif message_type <= MSG_CHANNEL_LAST:
            if not self._authenticated:
                raise ProtocolError(f'Expected authentication before channels are used, got message {message_type}')

            self._host.message_received(message_type, payload, sequence)
        elif message_type == MSG_PING:
            self._ping_received(payload)
        elif message_type != MSG_PONG:
            self.send_unimplemented(sequence)

    # --- the small messages

    def _ping_received(self, payload: bytes) -> None:
        """Answer after login only, never in a key exchange, and not without bound (CVE-2025-26466)."""

        cursor = Cursor(payload)
        cursor.byte()
        data = cursor.string()
        cursor.check_end()

        if self._authenticated and not self.writer.blocked and self.writer.backlog <= MAX_REPLY_BACKLOG:
            self.send_message(encode_byte(MSG_PONG) + encode_string(data))

    def _disconnect_received(self, payload: bytes) -> None:
        cursor = Cursor(payload)
        cursor.byte()
        code = cursor.uint32()
        reason = _text(cursor)
        lang = _text(cursor) if cursor.remaining else DEFAULT_LANG     # some implementations leave it out
        self._close()
        self._host.disconnect_received(disconnect_error(code, reason, lang))

    def _debug_received(self, payload: bytes) -> None:
        cursor = Cursor(payload)
        cursor.byte()
        always_display = cursor.boolean()
        message = _text(cursor)
        lang = _text(cursor)
        cursor.check_end()
        self._host.debug_received(message, lang, always_display)

    def _service_request_received(self, payload: bytes) -> None:
        name = _service_name(payload)

        if not self._is_client and name == self._service and not self._authenticated:
            return self.accept_service(name)    # some clients ask anew for each authentication method

        if self._is_client or self._requested_service is not None:
            raise ProtocolError('Expected no service request here')

        self._requested_service = name
        self._host.service_requested(name)

    def _service_accept_received(self, payload: bytes) -> None:
        name = _service_name(payload)

        if not self._is_client or self._service is not None or name != self._requested_service:
            raise ProtocolError('Expected no acceptance of a service that was not requested')

        self._service = name
        self._host.service_accepted(name)

    def _ext_info_received(self, payload: bytes, first_after_keys: bool) -> None:
        """Take EXT_INFO where RFC 8308 section 2.4 lets it stand, and nowhere else (CVE-2023-46445)."""

        before_success = self._is_client and self._service is not None and not self._authenticated
        self._ext_infos += 1

        if not (first_after_keys or before_success) or self._ext_infos > MAX_EXT_INFO_FROM_SERVER:
            raise ProtocolError('Expected EXT_INFO right after the first NEWKEYS or before USERAUTH_SUCCESS only')

        self._success_due = not first_after_keys
        self.peer_extensions.update(decode_ext_info(payload))

    # --- key exchange

    def _begin_exchange(self) -> None:
        if self._keyed:
            self._policy.exchange_started()

        self._rekey_wanted = False
        self.writer.blocked = True
        self._exchanges.begin()

    def _kexinit_received(self, payload: bytes, sequence: int) -> None:
        if not self._exchanges.running:
            self._begin_exchange()

        self._exchanges.kexinit_received(payload, sequence, self.client_version, self.server_version)

        if not self._keyed:
            self.reader.strict = self.writer.strict = self.strict_kex

        # Channel data must not come between KEXINIT and NEWKEYS: it takes the main road, where that is checked.
        self._express = self.reader.express
        self.reader.express = False

    def _exchanged(self, result: KexResult) -> None:
        if self._is_client and result.gss_context is not None:
            self._exchanges.host_key_data = result.host_key_data or self._exchanges.host_key_data
            self._change_keys(result)
        elif not self._is_client or self._exchanges.host_key_data:
            self._change_keys(result)
        else:
            self._question = result
            self.reader.hold()
            self._host.host_key_received(result.host_key_data, self.algorithms.host_key)

    def host_key_accepted(self) -> None:
        """Trust the host key that `host_key_received` told of, and go on with what has been received.

        Raises what the packets that are waiting give rise to.
        """

        result = self._question

        if result is None:
            return

        self._question = None
        self._exchanges.host_key_data = result.host_key_data
        self._policy.exchange_started()
        self._change_keys(result)
        self.reader.release()

    def _change_keys(self, result: KexResult) -> None:
        """Send NEWKEYS, and seal with the new keys from then on; the peer's NEWKEYS switches the other direction."""

        sealing, self._next_opening = self._exchanges.make_ciphers(result)

        self.writer.send_packet(encode_byte(MSG_NEWKEYS))
        self.writer.set_cipher(sealing, self.strict_kex)
        self._set_compressor()
        self.writer.blocked = False

        if not self._keyed and self._exchanges.peer_takes_ext_info:
            self.writer.send_packet(
                encode_ext_info({SERVER_SIG_ALGS: b','.join(self._options.sig_algs), PING: b'0'})
            )

        self._send_queued()

    def _newkeys_received(self, payload: bytes) -> None:
        if self._next_opening is None or len(payload) != 1:
            raise ProtocolError('Expected NEWKEYS at the end of a key exchange only')

        first = not self._keyed
        algorithms = self.algorithms

        # Without strict kex, messages that were slipped in here let an attacker cut the beginning off what follows, if
        # the cipher's only memory is the sequence number (Terrapin, CVE-2023-48795).
        if first and self._optional_messages and algorithms.opening_forgets:
            raise ProtocolError(
                f'Expected nothing but key exchange messages before {algorithms.recv_cipher.decode()} is used'
            )

        self.reader.set_cipher(self._next_opening, self.strict_kex)
        self._next_opening = None
        self._exchanges.end()
        self._keyed = True
        self.reader.express = self._express or self.reader.express
        self._set_decompressor()
        self._policy.keys_changed(algorithms.send_cipher, algorithms.recv_cipher)

        if first:
            self._ext_info_due = True
        else:
            self.rekeys += 1

        self._host.keys_exchanged(first)


def _text(cursor: Cursor) -> str:
    """Take text of the peer's, safe to print."""

    return printable(cursor.string().decode(errors='replace'), _TEXT_LIMIT)


def _service_name(payload: bytes) -> bytes:
    cursor = Cursor(payload)
    cursor.byte()
    name = cursor.string()
    cursor.check_end()

    return name
