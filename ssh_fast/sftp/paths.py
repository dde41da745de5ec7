"""The paths that callers give to a client, and what they are on the wire."""

import os
import posixpath
from collections.abc import Sequence
from pathlib import PurePath

from .errors import SFTPBadMessage

SFTPPath = bytes | str | PurePath
SFTPPaths = SFTPPath | Sequence[SFTPPath]


def is_list(paths: SFTPPaths) -> bool:
    """Whether several paths were given, be it a list of one."""

    return not isinstance(paths, (bytes, str, PurePath))


def as_list(paths: SFTPPaths) -> Sequence[SFTPPath]:
    """Return the paths that were given as a sequence."""

    return [paths] if isinstance(paths, (bytes, str, PurePath)) else paths


def local_path(path: SFTPPath | None) -> bytes | None:
    """Return a local path as bytes."""

    return None if path is None else os.fsencode(path)


class RemotePaths:
    """Encodes and decodes paths, and knows the current directory."""

    def __init__(self, encoding: str | None, errors: str) -> None:
        self.encoding = encoding
        self._errors = errors
        self.cwd: bytes | None = None

    def encode(self, path: SFTPPath) -> bytes:
        """Turn a path into the bytes that are sent."""

        if isinstance(path, PurePath):
            path = str(path)

        if isinstance(path, str):
            if self.encoding is None:
                raise SFTPBadMessage('Paths must be bytes when there is no path_encoding')

            return path.encode(self.encoding, self._errors)

        return path

    def decode(self, path: bytes, want_string: bool = True) -> bytes | str:
        """Turn a path as it came into text, if that is wanted and there is an encoding; SFTPBadMessage if it cannot."""

        if not want_string or self.encoding is None:
            return path

        try:
            return path.decode(self.encoding, self._errors)
        except UnicodeDecodeError as exc:
            raise SFTPBadMessage(f'Cannot decode the name {path!r}: {exc.reason}') from None

    def compose(self, path: SFTPPath, parent: bytes | None = None) -> bytes:
        """Turn a path into bytes, below `parent` or the current directory if it is relative."""

        encoded = self.encode(path)
        parent = self.cwd if parent is None else parent

        return encoded if parent is None else posixpath.join(parent, encoded)
