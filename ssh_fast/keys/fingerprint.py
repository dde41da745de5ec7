"""What people compare keys by: the fingerprint, and the picture that ssh-keygen draws of it."""

import base64
import hashlib

_HASHES = ('md5', 'sha1', 'sha256', 'sha384', 'sha512')

# The picture's size, and its marks by how often a place was visited; the last two are where the walk began and ended.
_WIDTH, _HEIGHT = 17, 9
_MARKS = ' .o+=*BOX@%&#/^SE'


def _digest(public_data: bytes, hash_name: str) -> bytes:
    if hash_name not in _HASHES:
        raise ValueError(f'Unknown fingerprint hash {hash_name!r}, expected one of {", ".join(_HASHES)}')

    return hashlib.new(hash_name, public_data, usedforsecurity=False).digest()


def fingerprint(public_data: bytes, hash_name: str) -> str:
    """Return the fingerprint as OpenSSH shows it: the hash's name, a colon, the hash (md5 in hex, else base64)."""

    digest = _digest(public_data, hash_name)

    if hash_name == 'md5':
        return 'MD5:' + digest.hex(':')

    return f'{hash_name.upper()}:{base64.b64encode(digest).rstrip(b"=").decode()}'


def randomart(public_data: bytes, hash_name: str, type_name: str, bits: int) -> str:
    """Draw the picture of `ssh-keygen -lv`: a walk over a field, two bits of the fingerprint for each step."""

    start, end = len(_MARKS) - 2, len(_MARKS) - 1
    field = [[0] * _WIDTH for _ in range(_HEIGHT)]
    x, y = _WIDTH // 2, _HEIGHT // 2

    for byte in _digest(public_data, hash_name):
        for shift in (0, 2, 4, 6):
            step = byte >> shift
            x = min(max(x + (1 if step & 1 else -1), 0), _WIDTH - 1)
            y = min(max(y + (1 if step & 2 else -1), 0), _HEIGHT - 1)
            field[y][x] = min(field[y][x] + 1, start - 1)

    field[_HEIGHT // 2][_WIDTH // 2] = start
    field[y][x] = end

    title = f'[{type_name} {bits}]'

    if len(title) > _WIDTH:
        title = f'[{type_name}]'

    lines = [_border(title[: _WIDTH - 1])]
    lines += [f'|{"".join(_MARKS[count] for count in row)}|' for row in field]
    lines.append(_border(f'[{hash_name.upper()}]'))

    return '\n'.join(lines) + '\n'


def _border(text: str) -> str:
    left = (_WIDTH - len(text)) // 2

    return f'+{"-" * left}{text}{"-" * (_WIDTH - left - len(text))}+'
