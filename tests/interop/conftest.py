"""The peers as fixtures. Where a peer is not installed its tests are skipped and say so; in CI they fail."""

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.interop.asyncssh_peer import asyncssh_server
from tests.interop.paramiko_peer import paramiko_server
from tests.interop.peers import PACKAGES, KeyRing, OpenSSHServer, PeerMissing, Target, find_program


def pytest_report_header() -> list[str]:
    missing = []
    for name in PACKAGES:
        try:
            find_program(name)
        except PeerMissing:
            missing.append(name)
    return [f'peers not installed: {", ".join(missing)}'] if missing else []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with _skipping():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with _skipping():
        return (yield)


@contextlib.contextmanager
def _skipping() -> Iterator[None]:
    try:
        yield
    except PeerMissing as exc:
        if 'CI' in os.environ:
            raise
        pytest.skip(str(exc))


@pytest.fixture(scope='session')
def key_ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    """Throw-away keys, made once: `key_ring.private('user', 'ed25519')` is the one that the servers let in."""
    return KeyRing(tmp_path_factory.mktemp('keys'))


@pytest.fixture(scope='session')
def openssh_server(key_ring: KeyRing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSSHServer]:
    """OpenSSH's sshd at its defaults, one for all tests."""
    with OpenSSHServer(key_ring, tmp_path_factory.mktemp('sshd')) as server:
        yield server


@pytest.fixture
def start_openssh(key_ring: KeyRing, tmp_path: Path) -> Iterator[Callable[..., OpenSSHServer]]:
    """A function that starts an sshd of its own: `start_openssh(['Ciphers aes128-ctr', 'RekeyLimit 1M'])`."""
    with contextlib.ExitStack() as stack:
        started = 0

        def start(lines: Sequence[str] = (), **options: Any) -> OpenSSHServer:
            nonlocal started
            started += 1
            return stack.enter_context(OpenSSHServer(key_ring, tmp_path / f'sshd-{started}', lines, **options))

        yield start


@pytest.fixture
async def asyncssh_target(key_ring: KeyRing, tmp_path: Path) -> AsyncIterator[Target]:
    """AsyncSSH's server at its defaults, in this test's loop."""
    async with asyncssh_server(key_ring, tmp_path / 'asyncssh') as target:
        yield target


@pytest.fixture
def paramiko_target(key_ring: KeyRing, tmp_path: Path) -> Iterator[Target]:
    """Paramiko's server, in threads."""
    with paramiko_server(key_ring, tmp_path / 'paramiko') as target:
        yield target
