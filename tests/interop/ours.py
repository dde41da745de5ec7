"""Our server on loopback in this test's loop, and the files and trees that transfers are tested with."""

import asyncio
import contextlib
import hashlib
import os
import random
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ssh_fast
from tests.interop.peers import LOOPBACK, KeyRing, Target, make_target

KIB, MIB = 1024, 1024 * 1024
SIZES = (0, 1, 32 * KIB - 1, 32 * KIB, 32 * KIB + 1, 5 * MIB)
BIG = 256 * MIB

# The signature algorithms of each key, as OpenSSH and we both name them.
SIGNATURES = {
    'ssh-ed25519': 'ed25519',
    'ecdsa-sha2-nistp256': 'ecdsa-256',
    'ecdsa-sha2-nistp384': 'ecdsa-384',
    'ecdsa-sha2-nistp521': 'ecdsa-521',
    'rsa-sha2-256': 'rsa',
    'rsa-sha2-512': 'rsa',
}


class Watcher(ssh_fast.SSHServer):
    """A server's callbacks that keep the connection, and how it ended."""

    def __init__(self) -> None:
        self.conn: Any = None
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, conn: Any) -> None:
        self.conn = conn

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


@contextlib.asynccontextmanager
async def our_server(
    ring: KeyRing, folder: Path, *, host_keys: Sequence[str] = ('ed25519',), **options: Any
) -> AsyncIterator[Target]:
    """Serve SFTP and the user's public key until the block ends; `options` are those of listen()."""
    private = [ring.private(f'host-{name}', name) for name in host_keys]
    settings = {
        'server_host_keys': [str(path) for path in private],
        'authorized_client_keys': str(ring.public('user', 'ed25519')),
        'sftp_factory': True,
        **options,
    }
    async with ssh_fast.listen(LOOPBACK, 0, **settings) as server:
        yield make_target(ring, folder, server.get_port(), [Path(f'{path}.pub') for path in private])


def watching(base: type[Watcher] = Watcher) -> tuple[list[Any], Callable[[], Watcher]]:
    """Return a list that grows by one watcher a connection, and the `server_factory` for it."""
    made: list[Any] = []

    def factory() -> Watcher:
        made.append(base())
        return made[-1]

    return made, factory


def rekeys(connection: Any) -> int:
    """Return how often a connection of ours has exchanged keys after the first time."""
    return int(connection._ssh.rekeys) - 1


async def run_in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run a blocking peer beside a server in the loop."""
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for a condition; fail if it doesn't come true in time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


# --- files ------------------------------------------------------------------------------------------------------------


def digest(path: Path) -> str:
    """Return a file's SHA-256."""
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def make_files(folder: Path, sizes: Sequence[int] = SIZES) -> Path:
    """Make one file of random content for each size, named by it."""
    folder.mkdir(parents=True, exist_ok=True)
    for size in sizes:
        (folder / f'f{size}').write_bytes(os.urandom(size))
    return folder


def make_tree(folder: Path, *, files: int = 200, links: bool = True) -> Path:
    """Make a tree of files in folders up to three deep, with old times, odd modes, odd names, and links."""
    dice = random.Random(files)
    folders = [folder, folder / 'a', folder / 'a/b', folder / 'a/b/c d', folder / 'é', folder / 'empty']
    for path in folders:
        path.mkdir(parents=True)
    for number in range(files):
        path = folders[number % 5] / f'{"ä " if number % 7 == 0 else ""}file{number}'
        path.write_bytes(dice.randbytes(dice.choice((0, 1, 100, 5000, 40000))))
        path.chmod(dice.choice((0o600, 0o644, 0o755, 0o400)))
        os.utime(path, (1_000_000_000 + number, 1_100_000_000 + number))
    if links:
        (folder / 'link').symlink_to('a/file1')
        (folder / 'a/up').symlink_to('../file0')
    for number, path in enumerate(folders):
        path.chmod(0o750 if number % 2 else 0o755)
        os.utime(path, (1_200_000_000, 1_200_000_000 + number))
    return folder


def describe_tree(folder: Path, *, preserved: bool = False) -> dict[str, tuple[Any, ...]]:
    """Describe what lies below a folder: contents and links, with `preserved` also modes and modification times."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(folder.rglob('*')):
        info = path.lstat()
        kept = (stat.S_IMODE(info.st_mode), int(info.st_mtime)) if preserved else ()
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = ('link', os.readlink(path))
        elif path.is_dir():
            found[name] = ('folder', *kept)
        else:
            found[name] = ('file', digest(path), *kept)
    return found


@contextlib.contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder in memory where there is one, for what is too big for a disk that others use too."""
    memory = Path('/dev/shm')
    place = memory if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 * BIG else None
    folder = Path(tempfile.mkdtemp(prefix='interop-', dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def open_fds() -> set[str]:
    """Return the file descriptors of this process and what they are."""
    found = set()
    for name in os.listdir('/proc/self/fd'):
        with contextlib.suppress(OSError):
            found.add(f'{name} -> {os.readlink(f"/proc/self/fd/{name}")}')
    return found


@contextlib.asynccontextmanager
async def nothing_leaks() -> AsyncIterator[None]:
    """Check that what happens in the block leaves no task and no file descriptor behind, a second later at most."""
    tasks, fds = asyncio.all_tasks(), open_fds()
    yield
    with contextlib.suppress(TimeoutError):
        await until(lambda: asyncio.all_tasks() <= tasks and open_fds() <= fds, 1.0)
    assert asyncio.all_tasks() - tasks == set()
    assert open_fds() - fds == set()
