"""Packet ciphers with a part that is written in Python: what Python sees of them."""

from collections.abc import Callable
from typing import Protocol

from ._cipher_modes import OpeningCipher, SealingCipher

class _Aead(Protocol):
    def seal(self, sequence: int, head: bytes, body: bytes) -> bytes: ...
    def open(self, sequence: int, head: bytes, body_and_tag: bytes) -> bytes: ...

_Crypt = Callable[[bytes], bytes]
_Tag = Callable[[int, bytes], bytes]

class RegisteredMacThenStreamOpening(OpeningCipher):
    def __init__(self, crypt: _Crypt, tag: _Tag, block_size: int, tag_size: int) -> None: ...

class RegisteredStreamThenMacOpening(OpeningCipher):
    def __init__(self, crypt: _Crypt, tag: _Tag, block_size: int, tag_size: int) -> None: ...

class RegisteredAeadOpening(OpeningCipher):
    def __init__(self, aead: _Aead, block_size: int, tag_size: int) -> None: ...

class RegisteredMacThenStreamSealing(SealingCipher):
    def __init__(self, crypt: _Crypt, tag: _Tag, block_size: int, tag_size: int) -> None: ...

class RegisteredStreamThenMacSealing(SealingCipher):
    def __init__(self, crypt: _Crypt, tag: _Tag, block_size: int, tag_size: int) -> None: ...

class RegisteredAeadSealing(SealingCipher):
    def __init__(self, aead: _Aead, block_size: int, tag_size: int) -> None: ...
