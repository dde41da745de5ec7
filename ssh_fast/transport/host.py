"""Whom a transport asks and tells: the protocol that a connection satisfies."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from ..errors import DisconnectError

T = TypeVar('T')


class TransportHost(Protocol):
    """Whom a transport tells what happens: the connection."""

    def host_key_received(self, key_data: bytes, algorithm: bytes) -> None:
        """Client: decide about the server's host key, whose signature was right, and answer `host_key_accepted`."""

    def ask(
        self,
        question: Callable[[], T | Awaitable[T]],
        answer: Callable[[T], None],
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Put a question of a key exchange by GSSAPI; nothing is received until it is answered."""

    def keys_exchanged(self, first: bool) -> None:
        """Use the new keys, which are in force in both directions."""

    def service_requested(self, name: bytes) -> None:
        """Server: answer with `accept_service`, or raise `ServiceNotAvailable`."""

    def service_accepted(self, name: bytes) -> None:
        """Client: go on with the service that was requested."""

    def message_received(self, message_type: int, payload: bytes, sequence: int) -> None:
        """Take a message of the protocols above: 50 to 79 once a service runs, 80 to 127 after login."""

    def disconnect_received(self, exc: DisconnectError) -> None:
        """Take the peer's farewell; nothing that follows it is looked at."""

    def debug_received(self, message: str, lang: str, always_display: bool) -> None:
        """Take a debug message, already made safe to print."""
