"""Where a server's paths lead on the local disk: as they are, or held inside of a root directory.

A confined path is walked from the root one component at a time, each opened below the directory before it and never
through a symbolic link: links are read and followed here, with the root as their `/`. What comes out is an open
directory and one name in it, and the operation is done on exactly these two, so that nothing that happens to the tree
in between can lead out of the root.
"""

import errno
import os
import posixpath
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, Protocol

from .errors import SFTPInvalidFilename, SFTPNoSuchFile

# As Linux; and a bound on the steps of one walk, which links full of `..` could otherwise make long.
_MAX_LINKS = 40
_MAX_STEPS = 8192

_DIRECTORY = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, 'O_PATH', os.O_RDONLY)


class Place(NamedTuple):
    """A file: a name below an open directory (or any path if that is None), and whether a link there is followed."""

    dir_fd: int | None
    name: bytes
    follow: bool


class Paths(Protocol):
    """Where local paths lead."""

    def locate(self, path: bytes, follow: bool = True) -> AbstractContextManager[Place]:
        """Give the place of a path while the context lasts; `follow` says if a link at its end is followed."""

    def resolve(self, path: bytes) -> bytes:
        """Return the path without links and dots; components at its end need not exist."""


def check_path(path: bytes) -> None:
    """Refuse a path that no file system can hold."""

    if b'\0' in path:
        raise SFTPInvalidFilename('A path cannot contain a NUL byte')


def components(path: bytes) -> list[bytes]:
    """Split a path into the names that count."""

    return [name for name in path.split(b'/') if name not in (b'', b'.')]


def below(root: bytes, path: bytes) -> list[bytes] | None:
    """Return the components of an absolute path below the root, or None if it does not begin with the root's."""

    root_names, names = components(root), components(path)
    count = len(root_names)

    return names[count:] if names[:count] == root_names else None


class HostPaths:
    """Paths as the operating system sees them."""

    @contextmanager
    def locate(self, path: bytes, follow: bool = True) -> Iterator[Place]:
        """Give the path itself as its place."""

        check_path(path)
        yield Place(None, path, follow)

    def resolve(self, path: bytes) -> bytes:
        """Return the absolute path without links and dots."""

        check_path(path)

        return os.path.realpath(path)


class ConfinedPaths:
    """Absolute local paths that must begin with the root, and are held inside of it."""

    def __init__(self, root: bytes) -> None:
        self._root = root

    @contextmanager
    def locate(self, path: bytes, follow: bool = True) -> Iterator[Place]:
        """Walk to the path's last directory; the place's name is never a link that has to be followed."""

        dir_fd, _, name = self._walk(path, follow)

        try:
            yield Place(dir_fd, name, False)
        finally:
            os.close(dir_fd)

    def resolve(self, path: bytes) -> bytes:
        """Return the path below the root without links and dots."""

        dir_fd, names, _ = self._walk(path, follow=True, must_exist=False)
        os.close(dir_fd)

        return b'/'.join([self._root.rstrip(b'/'), *names]) or b'/'

    def _walk(self, path: bytes, follow: bool, must_exist: bool = True) -> tuple[int, list[bytes], bytes]:
        """Return an open directory, all components from the root on, and the name of the last one in the directory."""

        pending = self._path_names(path)[::-1]
        names: list[bytes] = []
        links = steps = 0
        dir_fd = os.open(self._root, _DIRECTORY)

        try:
            while pending:
                steps += 1

                if steps > _MAX_STEPS or links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

                name = pending.pop()

                if name == b'..':
                    # The parent is found again from the root: the directory itself may have been moved meanwhile.
                    pending += names[-2::-1]
                    names, dir_fd = [], self._exchange(dir_fd, self._root)
                    continue

                try:
                    if pending:
                        dir_fd = self._exchange(dir_fd, name, dir_fd)
                        names.append(name)
                        continue

                    target = _read_link(name, dir_fd) if follow else None
                except FileNotFoundError:
                    if must_exist:
                        raise

                    return dir_fd, components(posixpath.normpath(b'/'.join([b'', *names, name, *pending[::-1]]))), b'.'
                except OSError as exc:
                    if exc.errno not in (errno.ENOTDIR, errno.ELOOP):
                        raise

                    target = _read_link(name, dir_fd)

                    if target is None:
                        raise

                if target is None:
                    return dir_fd, [*names, name], name

                links += 1

                if target.startswith(b'/'):
                    names, dir_fd = [], self._exchange(dir_fd, self._root)

                pending += self._link_names(target)[::-1]

            return dir_fd, names, b'.'
        except BaseException:
            os.close(dir_fd)
            raise

    def _path_names(self, path: bytes) -> list[bytes]:
        """Split a path that was asked for into its names below the root."""

        check_path(path)
        names = below(self._root, posixpath.normpath(path))

        if names is None:
            raise SFTPNoSuchFile('No such file')

        return names

    def _link_names(self, target: bytes) -> list[bytes]:
        """Split a link's target into names that count from the link, or from the root if it is absolute.

        An absolute target that begins with the root's own path is one that the server made; any other is read as if the
        root were `/`, as a process in a real chroot would.
        """

        inside = below(self._root, posixpath.normpath(target)) if target.startswith(b'/') else None

        return components(target) if inside is None else inside

    @staticmethod
    def _exchange(dir_fd: int, name: bytes, below_fd: int | None = None) -> int:
        """Open a directory in exchange for the one that was open."""

        fd = os.open(name, _DIRECTORY, dir_fd=below_fd)
        os.close(dir_fd)

        return fd


def _read_link(name: bytes, dir_fd: int) -> bytes | None:
    """Return a link's target, or None for anything else and for what does not exist."""

    try:
        return os.readlink(name, dir_fd=dir_fd)
    except OSError as exc:
        if exc.errno in (errno.EINVAL, errno.ENOENT):
            return None

        raise
