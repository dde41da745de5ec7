"""The first message of an X client (X Window System Protocol, section 8): who it says that it is, and a refusal."""

from struct import Struct
from typing import NamedTuple, Self

from ..errors import PacketDecodeError

_BIG, _LITTLE = b'B', b'l'
_HEAD = {_BIG: Struct('>2xHHHH2x'), _LITTLE: Struct('<2xHHHH2x')}
_HEAD_SIZE = 12

# The longest protocol of authorization that there is has 19 characters, and the longest data some hundred bytes.
MAX_NAME = 256
MAX_DATA = 4096
MAX_SIZE = _HEAD_SIZE + MAX_NAME + MAX_DATA


class X11Setup(NamedTuple):
    """What a client sends first: its byte order, the version of the protocol, and what authorizes it."""

    order: bytes
    major: int
    minor: int
    name: bytes
    data: bytes

    @classmethod
    def parse(cls, received: bytes) -> tuple[Self, int] | None:
        """Read the message at the start of `received`; return it and its size, None if more has to come.

        Raises:
          PacketDecodeError: no X client begins like this
        """

        head = _HEAD.get(received[:1])

        if not received:
            return None

        if not head:
            raise PacketDecodeError(f'Expected the byte order of an X client, B or l, got {received[:1]!r}')

        if len(received) < _HEAD_SIZE:
            return None

        major, minor, name_size, data_size = head.unpack_from(received)

        if name_size > MAX_NAME or data_size > MAX_DATA:
            raise PacketDecodeError(
                f'Expected at most {MAX_NAME} and {MAX_DATA} bytes of authorization of an X client, got {name_size} '
                f'and {data_size}'
            )

        data_start = _HEAD_SIZE + _padded(name_size)
        size = data_start + _padded(data_size)

        if len(received) < size:
            return None

        name = received[_HEAD_SIZE : _HEAD_SIZE + name_size]

        return cls(received[:1], major, minor, name, received[data_start : data_start + data_size]), size

    def encode(self) -> bytes:
        """Return the message."""

        head = bytearray(_HEAD[self.order].pack(self.major, self.minor, len(self.name), len(self.data)))
        head[:1] = self.order

        return b''.join((head, _pad(self.name), _pad(self.data)))

    def refusal(self, reason: bytes) -> bytes:
        """Return the answer of an X server that does not let the client in."""

        answer = Struct(f'{">" if self.order == _BIG else "<"}BBHHH')
        text = _pad(reason)

        return answer.pack(0, len(reason), 11, 0, len(text) // 4) + text


def _padded(size: int) -> int:
    return size + -size % 4


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
