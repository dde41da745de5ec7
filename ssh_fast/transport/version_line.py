"""The identification lines with which both ends begin (RFC 4253 section 4.2)."""

from ..errors import ProtocolError, ProtocolNotSupported
from ..logging import printable

MAX_VERSION_LINE = 255 - 2     # RFC 4253 section 4.2 counts CR LF
MAX_OTHER_LINES = 1024         # before a server's identification; OpenSSH's limit
MAX_OTHER_LINE = 8192          # the longest line that OpenSSH takes


def make_version_line(software: bytes) -> bytes:
    """Make our identification, without CR LF, from the software version and an optional comment after a space.

    Raises `ValueError` for what RFC 4253 section 4.2 does not let stand there.
    """

    line = b'SSH-2.0-' + software
    version = software.split(b' ')[0]

    if not version or b'-' in version or any(not 0x20 <= char < 0x7F for char in software):
        raise ValueError(f'version: expected printable ASCII with no "-" in its first word, got {software!r}')

    if len(line) > MAX_VERSION_LINE:
        raise ValueError(f'version: expected at most {MAX_VERSION_LINE - 8} characters, got {len(software)}')

    return line


class VersionReader:
    """Finds the peer's identification among the first lines it sends."""

    def __init__(self, *, is_client: bool) -> None:
        self._is_client = is_client
        self._other_lines = 0

    def line_received(self, line: bytes) -> bytes | None:
        """Take one line without its CR LF; return it if it is the peer's identification, None to read on.

        A server may send other lines first, a client may not. Raises `ProtocolError` for a line that breaks a limit,
        and `ProtocolNotSupported` for another protocol.
        """

        if not line.startswith(b'SSH-'):
            self._other_line_received(line)

            return None

        if len(line) > MAX_VERSION_LINE:
            raise ProtocolError(f'Expected an identification line of at most {MAX_VERSION_LINE} bytes, got {len(line)}')

        if any(char < 0x20 or char == 0x7F for char in line):
            raise ProtocolError(f'Expected no control characters in the identification line, got {_show(line)}')

        # 1.99 is a server that speaks version 1 too (RFC 4253 section 5.1).
        if line.startswith(b'SSH-2.0-') or (self._is_client and line.startswith(b'SSH-1.99-')):
            return line

        raise ProtocolNotSupported(f'Expected version 2.0 of the SSH protocol, got {_show(line)}')

    def _other_line_received(self, line: bytes) -> None:
        if not self._is_client:
            raise ProtocolNotSupported(f'Expected an SSH identification line, got {_show(line)}')

        self._other_lines += 1

        if self._other_lines > MAX_OTHER_LINES or len(line) > MAX_OTHER_LINE:
            raise ProtocolNotSupported(
                f'Expected an SSH identification line after at most {MAX_OTHER_LINES} others, got {_show(line)}'
            )

        if 0 in line:
            raise ProtocolNotSupported(f'Expected lines of text before the SSH identification line, got {_show(line)}')


def _show(line: bytes) -> str:
    return repr(printable(line.decode(errors='replace'), 64))
