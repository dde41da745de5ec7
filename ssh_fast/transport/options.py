"""What the user of a transport chooses: algorithms, host keys, and when keys are renewed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..gss_context import GSSContext
from ..keys.keypair import SSHKeyPair
from .algorithms import available_algorithms


def _available(kind: str) -> tuple[bytes, ...]:
    return field(default_factory=lambda: available_algorithms(kind))


@dataclass(frozen=True)
class TransportOptions:
    """The choices of one transport; lists of algorithms are in order of preference.

    `version` is the software version of the identification line. `host_key_algs` are the signature algorithms a client
    accepts and a server offers, as far as its `host_keys` can make them. `sig_algs` are those a server accepts from
    users (the server-sig-algs of RFC 8308). `new_gss_context` makes the contexts of those `kex_algs` that are GSSAPI's;
    a server with it needs no host key. `longest_before_login` bounds the packets of strangers, and so what one of them
    can have kept; 0 is no bound of its own.
    """

    version: bytes = b'ssh_fast'
    kex_algs: tuple[bytes, ...] = _available('kex')
    host_key_algs: tuple[bytes, ...] = _available('host_key')
    encryption_algs: tuple[bytes, ...] = _available('encryption')
    mac_algs: tuple[bytes, ...] = _available('mac')
    compression_algs: tuple[bytes, ...] = _available('compression')
    sig_algs: tuple[bytes, ...] = _available('signature')
    host_keys: Sequence[SSHKeyPair] = ()
    rekey_bytes: int = 1 << 30
    rekey_seconds: float = 3600.0
    rekey_packets: int = 1 << 31
    kex_timeout: float = 120.0
    longest_before_login: int = 0
    new_gss_context: Callable[[], GSSContext] | None = None
