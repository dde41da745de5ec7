"""The payload compression of RFC 4253 section 6.2: one stream for each direction and each set of keys."""

import zlib
from collections.abc import Callable
from typing import NamedTuple

from ..errors import CompressionError

MAX_INFLATED = 256 * 1024      # a payload no larger than the largest packet without compression


class Compressor:
    """The stream of what is sent; each payload ends at a byte, so that the peer can read all of it."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj()

    def __call__(self, payload: bytes) -> bytes:
        """Compress a payload."""

        return self._stream.compress(payload) + self._stream.flush(zlib.Z_PARTIAL_FLUSH)


class Decompressor:
    """The stream of what is received; its output is bounded (CVE-2026-23943: 256 KiB can become 255 MB)."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj()

    def __call__(self, data: bytes) -> bytes:
        """Expand a payload; `CompressionError` if it is not of the stream, or expands to more than 256 KiB."""

        try:
            payload = self._stream.decompress(data, MAX_INFLATED + 1)
        except zlib.error as exc:
            raise CompressionError(f'Expected compressed data, got what does not expand: {exc}') from None

        if len(payload) > MAX_INFLATED:
            raise CompressionError(f'Expected a payload of at most {MAX_INFLATED} bytes, got one that expands to more')

        if self._stream.eof:
            raise CompressionError('Expected a compressed stream that goes on, got its end')

        return payload


class CompressionMethod(NamedTuple):
    """How streams are made for one direction and one set of keys. `delayed`: they begin when the login is done."""

    compressor: Callable[[], Callable[[bytes], bytes]]
    decompressor: Callable[[], Callable[[bytes], bytes]]
    delayed: bool


# `none` is the absence of one. `zlib` begins before anybody has logged in, and is offered only to who names it.
COMPRESSION_METHODS: dict[bytes, CompressionMethod] = {
    b'zlib@openssh.com': CompressionMethod(Compressor, Decompressor, True),
    b'zlib': CompressionMethod(Compressor, Decompressor, False),
}


def is_delayed(name: bytes) -> bool:
    """Tell whether a compression begins when the login is done, and not with the keys."""

    method = COMPRESSION_METHODS.get(name)

    return method is not None and method.delayed


def new_compressor(name: bytes, authenticated: bool) -> Callable[[bytes], bytes] | None:
    """Make the stream of what is sent; None if nothing is compressed, or not yet."""

    method = COMPRESSION_METHODS.get(name)

    return method.compressor() if method is not None and (authenticated or not method.delayed) else None


def new_decompressor(name: bytes, authenticated: bool) -> Callable[[bytes], bytes] | None:
    """Make the stream of what is received; None if nothing is compressed, or not yet."""

    method = COMPRESSION_METHODS.get(name)

    return method.decompressor() if method is not None and (authenticated or not method.delayed) else None


class BoundedDecompressor:
    """A stream that was registered: what it raises, and what it gives beyond the bound, is a `CompressionError`."""

    def __init__(self, decompress: Callable[[bytes], bytes]) -> None:
        self._decompress = decompress

    def __call__(self, data: bytes) -> bytes:
        """Expand a payload."""

        try:
            payload = self._decompress(data)
        except Exception as exc:
            raise CompressionError(f'Expected compressed data, got what does not expand: {exc}') from None

        if not isinstance(payload, bytes) or len(payload) > MAX_INFLATED:
            raise CompressionError(f'Expected a payload of at most {MAX_INFLATED} bytes, got one that expands to more')

        return payload
