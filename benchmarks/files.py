"""The files that are transferred: random sources, targets that hold nothing of an earlier transfer, digests."""

import argparse
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import GIB, MIB


def parse_size(text: str) -> int:
    """Return the bytes that a size like 64M, 1G or 4096 means."""

    unit = {'K': 1 << 10, 'M': MIB, 'G': GIB}.get(text[-1:].upper())
    number = text[:-1] if unit else text

    if not number.isascii() or not number.isdigit() or int(number) == 0:
        raise argparse.ArgumentTypeError(f'{text!r} is no size: expected a number of bytes, or one with K, M or G')

    return int(number) * (unit or 1)


def default_folder() -> Path:
    """Return a folder in memory if the system has one, else that of temporary files."""

    shared = Path('/dev/shm')

    return shared if shared.is_dir() and os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


def make_source(path: Path, size: int, progress: Callable[[int], object] = lambda done: None) -> str:
    """Write a file of random bytes; return its SHA-256. `progress` is told the bytes that are done."""

    sha256 = hashlib.sha256()

    with path.open('wb') as stream:
        for begin in range(0, size, MIB):
            block = os.urandom(min(MIB, size - begin))
            stream.write(block)
            sha256.update(block)
            progress(begin + len(block))

    return sha256.hexdigest()


def blank(path: Path, size: int) -> None:
    """Overwrite a file with zeros, or make it, so that it exists and holds nothing of an earlier transfer."""

    zeros = bytes(MIB)

    with open(path, 'r+b' if path.exists() else 'w+b', buffering=0) as stream:
        for begin in range(0, size, MIB):
            stream.write(zeros[: min(MIB, size - begin)])

        stream.truncate(size)


def digest(path: Path) -> str:
    """Return a file's SHA-256."""

    with path.open('rb') as stream:
        return hashlib.file_digest(stream, 'sha256').hexdigest()
