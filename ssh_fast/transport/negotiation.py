"""The KEXINIT message, and how both ends' lists become the algorithms in force (RFC 4253 section 7.1)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from .._cipher import cipher_suite
from ..constants import MSG_KEXINIT
from ..errors import KeyExchangeFailed, ProtocolError
from ..logging import printable
from ..wire import Cursor, encode_boolean, encode_byte, encode_name_list, encode_uint32
from .kex.gss import NULL, is_gss

MAX_KEXINIT = 32 * 1024
MAX_NAMES = 1024
_COOKIE_SIZE = 16


@dataclass(frozen=True)
class KexInit:
    """One end's KEXINIT: its lists of names, each in order of preference."""

    kex_algs: tuple[bytes, ...]
    host_key_algs: tuple[bytes, ...]
    encryption_cs: tuple[bytes, ...]
    encryption_sc: tuple[bytes, ...]
    mac_cs: tuple[bytes, ...]
    mac_sc: tuple[bytes, ...]
    compression_cs: tuple[bytes, ...]
    compression_sc: tuple[bytes, ...]
    languages_cs: tuple[bytes, ...] = ()
    languages_sc: tuple[bytes, ...] = ()
    first_kex_packet_follows: bool = field(default=False, kw_only=True)

    def encode(self) -> bytes:
        """Encode the message, with a new random cookie."""

        lists = (
            self.kex_algs,
            self.host_key_algs,
            self.encryption_cs,
            self.encryption_sc,
            self.mac_cs,
            self.mac_sc,
            self.compression_cs,
            self.compression_sc,
            self.languages_cs,
            self.languages_sc,
        )

        return (
            encode_byte(MSG_KEXINIT)
            + os.urandom(_COOKIE_SIZE)
            + b''.join(encode_name_list(names) for names in lists)
            + encode_boolean(self.first_kex_packet_follows)
            + encode_uint32(0)
        )

    @classmethod
    def decode(cls, payload: bytes) -> 'KexInit':
        """Decode the message; `ProtocolError` if it is larger than any honest one."""

        if len(payload) > MAX_KEXINIT:
            raise ProtocolError(f'Expected a KEXINIT of at most {MAX_KEXINIT} bytes, got {len(payload)}')

        cursor = Cursor(payload)
        cursor.bytes(1 + _COOKIE_SIZE)
        lists = [tuple(cursor.name_list()) for _ in range(10)]
        follows = cursor.boolean()
        cursor.uint32()
        cursor.check_end()

        count = sum(len(names) for names in lists)

        if count > MAX_NAMES:
            raise ProtocolError(f'Expected at most {MAX_NAMES} names in KEXINIT, got {count}')

        return cls(*lists, first_kex_packet_follows=follows)


@dataclass(frozen=True)
class Algorithms:
    """The algorithms that both ends agreed upon; a cipher with its own authentication leaves its MAC empty."""

    kex: bytes = b''
    host_key: bytes = b''
    send_cipher: bytes = b'none'
    recv_cipher: bytes = b'none'
    send_mac: bytes = b''
    recv_mac: bytes = b''
    send_compression: bytes = b'none'
    recv_compression: bytes = b'none'

    @property
    def opening_forgets(self) -> bool:
        """Whether the opening cipher has no state that a missing packet would disturb before its MAC is checked."""

        return self.recv_cipher.startswith(b'chacha20') or self.recv_mac.endswith(b'-etm@openssh.com')


def _choose(kind: str, client: Sequence[bytes], server: Sequence[bytes]) -> bytes:
    """Take the client's first name that the server has too."""

    for name in client:
        if name in server:
            return name

    raise KeyExchangeFailed(
        f'Expected a common {kind} algorithm: the client offers {_show(client)}, the server {_show(server)}'
    )


def _show(names: Sequence[bytes]) -> str:
    return printable(b', '.join(names).decode(errors='replace'), 512) or 'none'


def _choose_mac(cipher: bytes, client: Sequence[bytes], server: Sequence[bytes]) -> bytes:
    # OpenSSH's rule for AEAD ciphers: the lists of MACs are not looked at.
    return b'' if cipher_suite(cipher).aead else _choose('MAC', client, server)


def negotiate(client: KexInit, server: KexInit, *, is_client: bool) -> Algorithms:
    """Choose the algorithms; `KeyExchangeFailed` says what both offered where nothing is common.

    Our own list must hold nothing but algorithms that can be used: neither markers nor names unknown here.
    """

    # Every method but GSSAPI's needs a host key that signs, and every host key but the null one signs: the further
    # conditions that RFC 4253 section 7.1 puts on the choice of the method come to this.
    signing = [name for name in client.host_key_algs if name != NULL]
    gss_only = [name for name in client.kex_algs if is_gss(name) and name in server.kex_algs]

    if any(name in server.host_key_algs for name in signing) or not gss_only:
        kex = _choose('key exchange', client.kex_algs, server.kex_algs)
    else:
        kex = gss_only[0]

    host_key = _choose('host key', client.host_key_algs if is_gss(kex) else signing, server.host_key_algs)
    cipher_cs = _choose('encryption', client.encryption_cs, server.encryption_cs)
    cipher_sc = _choose('encryption', client.encryption_sc, server.encryption_sc)
    mac_cs = _choose_mac(cipher_cs, client.mac_cs, server.mac_cs)
    mac_sc = _choose_mac(cipher_sc, client.mac_sc, server.mac_sc)
    compression_cs = _choose('compression', client.compression_cs, server.compression_cs)
    compression_sc = _choose('compression', client.compression_sc, server.compression_sc)

    to_server = cipher_cs, mac_cs, compression_cs
    to_client = cipher_sc, mac_sc, compression_sc
    send, receive = (to_server, to_client) if is_client else (to_client, to_server)

    return Algorithms(kex, host_key, send[0], receive[0], send[1], receive[1], send[2], receive[2])


def guess_is_right(ours: KexInit, theirs: KexInit) -> bool:
    """Tell whether a guessed first packet counts: both ends prefer the same method and host key algorithm."""

    return ours.kex_algs[:1] == theirs.kex_algs[:1] and ours.host_key_algs[:1] == theirs.host_key_algs[:1]
