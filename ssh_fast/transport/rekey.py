"""When keys must be renewed, and how long that may take: the accounting of bytes, packets and seconds."""

from typing import Protocol

from .._cipher import cipher_suite
from ..errors import KeyExchangeFailed

CHACHA_MAX_BYTES = 1 << 30     # OpenSSH's limit for a cipher whose block is 8 bytes
BLOCK_MAX_BYTES = 1 << 36      # 2^32 blocks of 16 bytes (RFC 4344 section 3.2)
MAX_PACKETS = 1 << 31          # RFC 4344 section 3.1


class Traffic(Protocol):
    """One direction's counters since its keys were changed: the packet reader and the packet writer."""

    @property
    def packets(self) -> int:
        """Packets under the present keys."""

    @property
    def bytes(self) -> int:
        """Bytes under the present keys, framing included."""


class RekeyPolicy:
    """Tells when the keys are used up, and when a key exchange has taken too long; all times are `now` in seconds."""

    def __init__(self, max_bytes: int, max_seconds: float, max_packets: int, timeout: float, now: float) -> None:
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._max_packets = min(max_packets, MAX_PACKETS)
        self._timeout = timeout
        self._bytes_left = max_bytes
        self._keyed_at: float | None = None
        self._started_at: float | None = now

    def exchange_started(self) -> None:
        """A key exchange runs; its time counts from the next look at the clock."""

        self._started_at = None

    def keys_changed(self, *ciphers: bytes) -> None:
        """New keys are in force in both directions, for these ciphers."""

        narrow = any(cipher_suite(name).block_size < 16 for name in ciphers)
        limit = CHACHA_MAX_BYTES if narrow else BLOCK_MAX_BYTES
        self._bytes_left = min(self._max_bytes, limit)
        self._keyed_at = None

    def due(self, reader: Traffic, writer: Traffic, now: float) -> bool:
        """Tell whether new keys are wanted: after bytes in both directions together, packets in either, or seconds."""

        if self._keyed_at is None:
            self._keyed_at = now

        if not reader.packets and not writer.packets:
            return False

        return (
            reader.bytes + writer.bytes >= self._bytes_left
            or max(reader.packets, writer.packets) >= self._max_packets
            or now - self._keyed_at >= self._max_seconds
        )

    def check_timeout(self, now: float) -> None:
        """Raise `KeyExchangeFailed` if the exchange that runs has taken too long."""

        if self._started_at is None:
            self._started_at = now
        elif now - self._started_at >= self._timeout:
            raise KeyExchangeFailed(f'Expected the key exchange to end within {self._timeout:g} seconds')
