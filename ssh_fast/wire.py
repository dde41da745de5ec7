"""The data types of RFC 4251 section 5: encode functions, and a bounds-checked cursor that decodes.

Floors that handle single messages use this module; the compiled core has its own cursor in `_wire.pxd`.
"""

import builtins
from collections.abc import Iterable

from .errors import PacketDecodeError


def encode_byte(value: int) -> bytes:
    """Encode a byte, 0 to 255."""

    return value.to_bytes(1, 'big')


def encode_boolean(value: bool) -> bytes:
    """Encode a boolean as one byte, 0 or 1."""

    return b'\1' if value else b'\0'


def encode_uint32(value: int) -> bytes:
    """Encode a uint32."""

    return value.to_bytes(4, 'big')


def encode_uint64(value: int) -> bytes:
    """Encode a uint64."""

    return value.to_bytes(8, 'big')


def encode_string(value: bytes | str) -> bytes:
    """Encode a string; text is sent as UTF-8."""

    if isinstance(value, str):
        value = value.encode()

    return len(value).to_bytes(4, 'big') + value


def encode_mpint(value: int) -> bytes:
    """Encode a multiple precision integer, two's complement, in the fewest bytes."""

    length = 0 if value == 0 else (value if value > 0 else value + 1).bit_length() // 8 + 1

    return encode_string(value.to_bytes(length, 'big', signed=True))


def encode_name_list(names: Iterable[bytes]) -> bytes:
    """Encode a name-list: the names joined by commas, as a string."""

    return encode_string(b','.join(names))


class Cursor:
    """A position in received bytes; each method decodes one field and moves past it.

    A field that does not fit in what is left raises `PacketDecodeError`, with the bytes wanted and the bytes left.
    """

    __slots__ = ('_data', '_end', '_pos')

    def __init__(self, data: builtins.bytes) -> None:
        self._data = data
        self._pos = 0
        self._end = len(data)

    @property
    def remaining(self) -> int:
        """How many bytes are left."""

        return self._end - self._pos

    @property
    def position(self) -> int:
        """How many bytes have been decoded."""

        return self._pos

    def bytes(self, size: int) -> builtins.bytes:
        """Decode `size` bytes as they are."""

        end = self._pos + size

        if size < 0 or end > self._end:
            raise PacketDecodeError(f'Expected {size} bytes, got {self.remaining}')

        data = self._data[self._pos : end]
        self._pos = end

        return data

    def rest(self) -> builtins.bytes:
        """Take everything that is left."""

        return self.bytes(self.remaining)

    def byte(self) -> int:
        """Decode a byte."""

        return self.bytes(1)[0]

    def boolean(self) -> bool:
        """Decode a boolean: any non-zero byte is true (RFC 4251 section 5)."""

        return self.byte() != 0

    def uint32(self) -> int:
        """Decode a uint32."""

        return int.from_bytes(self.bytes(4), 'big')

    def uint64(self) -> int:
        """Decode a uint64."""

        return int.from_bytes(self.bytes(8), 'big')

    def string(self) -> builtins.bytes:
        """Decode a string as bytes."""

        return self.bytes(self.uint32())

    def text(self) -> str:
        """Decode a string that the protocol says is UTF-8 text."""

        data = self.string()

        try:
            return data.decode()
        except UnicodeDecodeError:
            raise PacketDecodeError(f'Expected a UTF-8 string, got {data[:64]!r}') from None

    def mpint(self) -> int:
        """Decode a multiple precision integer."""

        return int.from_bytes(self.string(), 'big', signed=True)

    def name_list(self) -> list[builtins.bytes]:
        """Decode a name-list; an empty string is an empty list."""

        data = self.string()

        return data.split(b',') if data else []

    def check_end(self) -> None:
        """Raise `PacketDecodeError` if bytes are left that no field accounts for."""

        if self._pos != self._end:
            raise PacketDecodeError(f'Expected the end of the message, got {self.remaining} more bytes')
