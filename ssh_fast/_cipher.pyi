"""The packet ciphers: what Python sees of them."""

from typing import NamedTuple

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

class OpeningCipher:
    @property
    def block_size(self) -> int: ...
    @property
    def tag_size(self) -> int: ...
    @property
    def head_size(self) -> int: ...
    @property
    def length_apart(self) -> bool: ...
    @property
    def conceals_length(self) -> bool: ...
    def open_packet(self, seq: int, packet: bytes) -> bytes: ...

class SealingCipher:
    @property
    def block_size(self) -> int: ...
    @property
    def tag_size(self) -> int: ...
    @property
    def length_apart(self) -> bool: ...
    def seal_packet(self, seq: int, packet: bytes) -> bytes: ...

def new_opening_cipher(name: bytes, key: bytes, iv: bytes, mac: bytes = b'', mac_key: bytes = b'') -> OpeningCipher: ...
def new_sealing_cipher(name: bytes, key: bytes, iv: bytes, mac: bytes = b'', mac_key: bytes = b'') -> SealingCipher: ...
