"""The public key file of RFC 4716: base64 between two marks, with headers before it."""

import base64
from collections.abc import Iterator

from ..errors import KeyImportError
from .openssh_format import decode_base64, wrap_lines

_BEGIN = '---- BEGIN SSH2 PUBLIC KEY ----'
_END = '---- END SSH2 PUBLIC KEY ----'


def encode_rfc4716(public_data: bytes, comment: bytes | None) -> bytes:
    """Make the form of RFC 4716; a comment that doesn't fit on a line goes on behind a backslash."""

    header = b''

    if comment:
        header = b'Comment: "' + comment + b'"\n'

        # RFC 4716 section 3.3: lines of at most 72 bytes; section 3.3.2: a value in double quotes
        parts = [header[pos : pos + 71] for pos in range(0, len(header) - 1, 71)]
        header = b'\\\n'.join(part.rstrip(b'\n') for part in parts) + b'\n'

    body = wrap_lines(base64.b64encode(public_data), 70)

    return _BEGIN.encode() + b'\n' + header + body + _END.encode() + b'\n'


def decode_rfc4716(text: str) -> tuple[bytes, bytes | None]:
    """Decode the form of RFC 4716 into blob and comment."""

    lines = iter(text.strip().splitlines())

    if next(lines, '').strip() != _BEGIN:
        raise KeyImportError(f'Expected {_BEGIN}')

    comment = None
    body: list[str] = []

    for line in lines:
        if line.strip() == _END:
            return decode_base64(''.join(body)), comment

        if ':' in line:
            name, value = _header(line, lines)

            if name.lower() == 'comment':
                comment = value.encode(errors='surrogateescape')
        else:
            body.append(line.strip())

    raise KeyImportError(f'Expected {_END}')


def _header(line: str, lines: Iterator[str]) -> tuple[str, str]:
    """Join a header's continued lines, and take it apart."""

    while line.endswith('\\'):
        line = line[:-1] + next(lines, '')

    name, value = line.split(':', 1)
    value = value.strip()

    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = value[1:-1]

    return name, value
