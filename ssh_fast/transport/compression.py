"""The payload compression of RFC 4253 section 6.2: one zlib stream for each direction and each set of keys."""

import zlib

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
