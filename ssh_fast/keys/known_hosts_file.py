"""Writing known_hosts files: new hosts are appended, changed ones replaced in one step.

Only lines that are written for one host by its very name are changed: patterns, networks and marked lines are their
author's.
"""

import base64
import contextlib
import os
import tempfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import PurePath

from .file_cache import read_bounded
from .key import SSHKey
from .known_hosts import HASH_PREFIX, MAX_FILE_SIZE, decode_hash, hash_name, host_name

_SALT_SIZE = 20


def known_hosts_line(host: str, port: int, key: SSHKey, hashed: bool = False) -> str:
    """Make a host's line: its name, with a port that is not 22, and its key; `hashed` hides the name."""

    name = host_name(host, port)

    if any(char in name for char in ' \t\r\n,*?!#\0') or not name:
        raise ValueError(f'Expected a host name that known_hosts can hold, got {name!r}')

    if hashed:
        salt = os.urandom(_SALT_SIZE)
        digest = hash_name(salt, name.encode())
        name = f'{HASH_PREFIX}{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}'

    return f'{name} {key.get_algorithm()} {base64.b64encode(key.public_data).decode()}\n'


def add_known_host(
    filename: str | PurePath, host: str, port: int, keys: Iterable[SSHKey], hashed: bool = False
) -> None:
    """Append a host's keys to a file, which is made, with its folder, if it isn't there."""

    path = os.path.abspath(filename)
    lines = ''.join(known_hosts_line(host, port, key, hashed) for key in keys).encode()
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)

    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), 'r+b', buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            lines = lines if file.read(1) == b'\n' else b'\n' + lines

        # One write to the end: lines of several programs don't mix.
        file.write(lines)


def replace_known_host(
    filename: str | PurePath,
    host: str,
    port: int,
    added: Sequence[SSHKey],
    removed: Collection[SSHKey],
    hashed: bool = False,
) -> None:
    """Add keys of a host to a file and remove others, in one step: nobody sees a file that is half changed.

    A name among several of a line is taken out of the line. The file keeps its mode.
    """

    path = os.path.realpath(filename)
    data, status = read_bounded(path, MAX_FILE_SIZE)
    lines = data.decode(errors='surrogateescape').split('\n')
    name = host_name(host, port)
    unwanted = {base64.b64encode(key.public_data).decode() for key in removed}
    kept = [changed for line in lines if (changed := _without_host(line, name, unwanted)) is not None]

    while kept and not kept[-1].strip():
        kept.pop()

    text = ''.join(f'{line}\n' for line in kept)
    text += ''.join(known_hosts_line(host, port, key, hashed) for key in added)
    fd, temporary = tempfile.mkstemp(prefix='.known_hosts.', dir=os.path.dirname(path))

    try:
        with open(fd, 'wb') as file:
            os.fchmod(fd, status.st_mode & 0o777)
            file.write(text.encode(errors='surrogateescape'))
            file.flush()
            os.fsync(fd)

        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)

        raise


def _without_host(line: str, name: str, unwanted: Collection[str]) -> str | None:
    """Take a host out of a line with an unwanted key; None if nobody is left."""

    fields = line.split(None, 3)

    if len(fields) < 3 or fields[0].startswith(('#', '@')) or fields[2] not in unwanted:
        return line

    if fields[0].startswith(HASH_PREFIX):
        try:
            salt, digest = decode_hash(fields[0])
        except ValueError:
            return line

        return None if hash_name(salt, name.encode()) == digest else line

    names = fields[0].split(',')
    others = [other for other in names if other.lower() != name]

    if len(others) == len(names):
        return line

    return ' '.join((','.join(others), *fields[1:])) if others else None
