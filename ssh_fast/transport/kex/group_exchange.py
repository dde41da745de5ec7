"""Diffie-Hellman in a group that the server chooses for the size the client asks for (RFC 4419, RFC 8270)."""

from ...constants import MSG_KEX_FIRST
from ...errors import KeyExchangeFailed, ProtocolError
from ...wire import Cursor, encode_byte, encode_mpint, encode_uint32
from .base import KexContext, KexResult
from .dh import DHExchange
from .groups import MODP_GROUPS

MSG_GROUP = MSG_KEX_FIRST + 1
MSG_REQUEST = MSG_KEX_FIRST + 4

MIN_BITS = 2048                # RFC 8270
PREFERRED_BITS = 3072          # as strong as a 128-bit cipher key
MAX_BITS = 8192


class GroupExchange(DHExchange):
    """diffie-hellman-group-exchange: REQUEST and GROUP go before INIT and REPLY.

    A client takes a group of the server's own as it is, as OpenSSH does: the server has signed it, and could give the
    secret away in any case, while the proof that its prime is one takes seconds.
    """

    init_type = MSG_KEX_FIRST + 2
    reply_type = MSG_KEX_FIRST + 3

    def __init__(self, context: KexContext, hash_name: str) -> None:
        super().__init__(context, 0, hash_name)
        self._request = b''

    def start(self) -> None:
        """Ask for a group: the least, the wanted and the greatest number of bits."""

        if self._context.is_client:
            self._request = encode_uint32(MIN_BITS) + encode_uint32(PREFERRED_BITS) + encode_uint32(MAX_BITS)
            self._context.send(encode_byte(MSG_REQUEST) + self._request)

    def message_received(self, message_type: int, payload: bytes) -> KexResult | None:
        """Agree upon the group, then go on as in a fixed one."""

        cursor = Cursor(payload)
        cursor.byte()

        if message_type == MSG_REQUEST and not self._context.is_client and not self._request:
            self._request_received(cursor)

            return None

        if message_type == MSG_GROUP and self._context.is_client and not self._prime:
            self._group_received(cursor)

            return None

        if not self._prime:
            raise ProtocolError(f'Expected a group to be agreed upon first, got message {message_type}')

        return super().message_received(message_type, payload)

    def _request_received(self, cursor: Cursor) -> None:
        low, wanted, high = cursor.uint32(), cursor.uint32(), cursor.uint32()
        cursor.check_end()

        if not low <= wanted <= high:
            raise KeyExchangeFailed(f'Expected group sizes in ascending order, got {low}, {wanted}, {high}')

        sizes = [bits for bits in sorted(MODP_GROUPS) if max(low, MIN_BITS) <= bits <= min(high, MAX_BITS)]

        if not sizes:
            raise KeyExchangeFailed(f'Expected a group size from {MIN_BITS} to {MAX_BITS} bits, got {low} to {high}')

        bits = next((bits for bits in sizes if bits >= wanted), sizes[-1])
        self._request = encode_uint32(low) + encode_uint32(wanted) + encode_uint32(high)
        self._use_group(MODP_GROUPS[bits], 2)
        self._context.send(encode_byte(MSG_GROUP) + encode_mpint(MODP_GROUPS[bits]) + encode_mpint(2))

    def _group_received(self, cursor: Cursor) -> None:
        prime, generator = cursor.mpint(), cursor.mpint()
        cursor.check_end()

        if not MIN_BITS <= prime.bit_length() <= MAX_BITS or prime < 0 or prime % 2 == 0:
            raise KeyExchangeFailed(
                f'Expected an odd prime of {MIN_BITS} to {MAX_BITS} bits, got a number of {prime.bit_length()}'
            )

        if not 2 <= generator <= prime - 2:
            raise KeyExchangeFailed('Expected a generator from 2 to p-2, got one outside that range')

        self._use_group(prime, generator)
        self._send_init()

    def _use_group(self, prime: int, generator: int) -> None:
        self._set_group(prime, generator)
        self._parameters = self._request + encode_mpint(prime) + encode_mpint(generator)
