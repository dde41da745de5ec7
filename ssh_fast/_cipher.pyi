"""The suites: what Python sees of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ._cipher_modes import OpeningCipher as OpeningCipher
from ._cipher_modes import SealingCipher as SealingCipher

class CipherSuite(NamedTuple):
    name: bytes
    key_size: int
    iv_size: int
    block_size: int
    tag_size: int
    aead: bool

class MacSuite(NamedTuple):
    name: bytes
    key_size: int
    tag_size: int
    etm: bool

CIPHER_SUITES: dict[bytes, CipherSuite]
MAC_SUITES: dict[bytes, MacSuite]

def legacy_cipher_suites() -> dict[bytes, CipherSuite]: ...
def legacy_mac_suites() -> dict[bytes, MacSuite]: ...
def cipher_suite(name: bytes) -> CipherSuite: ...
def mac_suite(name: bytes) -> MacSuite: ...
def register_cipher(suite: CipherSuite, factory: Callable[[bytes, bytes, bool], Any]) -> None: ...
def register_mac(suite: MacSuite, factory: Callable[[bytes], Callable[[int, bytes], bytes]]) -> None: ...
def unregister(name: bytes) -> None: ...
def new_opening_cipher(name: bytes, key: bytes, iv: bytes, mac: bytes = b'', mac_key: bytes = b'') -> OpeningCipher: ...
def new_sealing_cipher(name: bytes, key: bytes, iv: bytes, mac: bytes = b'', mac_key: bytes = b'') -> SealingCipher: ...
