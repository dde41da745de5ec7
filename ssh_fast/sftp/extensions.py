"""The client's requests of extensions whose replies have a form of their own: hashes of files, names of users."""

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import PacketDecodeError
from ..wire import Cursor, encode_string, encode_uint32, encode_uint64
from .errors import SFTPBadMessage, SFTPOpUnsupported
from .requests import SFTPClientSession

_DIGEST_SIZES = {'md5': 16, 'sha1': 20, 'sha224': 28, 'sha256': 32, 'sha384': 48, 'sha512': 64}
_LEAST_BLOCK = 256


class FileCheck(NamedTuple):
    """What a server made of a file: the algorithm that it chose, and a digest for each block."""

    algorithm: str
    digests: list[bytes]


async def check_file(
    session: SFTPClientSession,
    handle: bytes | None,
    path: bytes,
    algorithms: Sequence[str] | str,
    offset: int,
    length: int,
    block_size: int,
) -> FileCheck:
    """Have the server hash a range of an open file, or of the one at a path if there is no handle."""

    wanted = [algorithms] if isinstance(algorithms, str) else list(algorithms)

    for algorithm in wanted:
        if algorithm not in _DIGEST_SIZES:
            raise ValueError(f'algorithms: expected some of {", ".join(_DIGEST_SIZES)}, got {algorithm!r}')

    if not wanted:
        raise ValueError('algorithms: expected at least one, got none')

    if block_size and block_size < _LEAST_BLOCK:
        raise ValueError(f'block_size: expected 0 or at least {_LEAST_BLOCK}, got {block_size}')

    name = b'check-file-name' if handle is None else b'check-file-handle'

    # Servers announce it by one name or by two.
    if b'check-file' not in session.extensions and name not in session.extensions:
        raise SFTPOpUnsupported('The server does not support check-file')

    body = encode_string(path if handle is None else handle) + encode_string(','.join(wanted))
    body += encode_uint64(offset) + encode_uint64(length) + encode_uint32(block_size)

    return _decode_check(await session.announced(name, body), wanted, block_size > 0)


def _decode_check(cursor: Cursor, wanted: Sequence[str], many: bool) -> FileCheck:
    try:
        algorithm = cursor.string()

        # Later drafts have no name before the algorithm.
        if algorithm == b'check-file':
            algorithm = cursor.string()
    except PacketDecodeError as exc:
        raise SFTPBadMessage(f'Malformed reply of check-file: {exc.reason}') from None

    chosen = algorithm.decode('ascii', 'replace')

    if chosen not in wanted:
        raise SFTPBadMessage(f'Expected a hash of {", ".join(wanted)}, got {chosen[:64]!r}')

    size = _DIGEST_SIZES[chosen]
    digests = cursor.rest()

    if len(digests) % size or (not many and len(digests) != size):
        raise SFTPBadMessage(f'Expected digests of {size} bytes, got {len(digests)} bytes')

    return FileCheck(chosen, [digests[start : start + size] for start in range(0, len(digests), size)])


async def user_names(
    session: SFTPClientSession, uids: Sequence[int], gids: Sequence[int]
) -> tuple[list[str | None], list[str | None]]:
    """Ask for the names of users and groups; None is one that the server does not know."""

    body = b''.join(encode_string(b''.join(encode_uint32(number) for number in ids)) for ids in (uids, gids))
    cursor = await session.extended(b'users-groups-by-id@openssh.com', body)

    try:
        return _names(cursor.string(), len(uids)), _names(cursor.string(), len(gids))
    except PacketDecodeError as exc:
        raise SFTPBadMessage(f'Malformed reply of users-groups-by-id: {exc.reason}') from None


def _names(packed: bytes, count: int) -> list[str | None]:
    cursor = Cursor(packed)
    names = [cursor.string().decode('utf-8', 'backslashreplace') or None for _ in range(count)]
    cursor.check_end()

    return names
