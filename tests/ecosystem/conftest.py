"""Servers for clients that block: OpenSSH's sshd, and one of ours in a thread of its own."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from tests.interop.ours import our_server
from tests.interop.peers import KeyRing, OpenSSHServer, PeerMissing, Target


@pytest.fixture(scope='session')
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSSHServer]:
    """OpenSSH's sshd at its defaults."""
    try:
        with OpenSSHServer(KeyRing(tmp_path_factory.mktemp('keys')), tmp_path_factory.mktemp('sshd')) as server:
            yield server
    except PeerMissing as exc:
        pytest.skip(str(exc))


@pytest.fixture
def target(sshd: OpenSSHServer) -> Target:
    """What a client needs to get in."""
    return sshd.target


@pytest.fixture(scope='session')
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server of ours in a thread with a loop of its own, so that clients that block find it awake."""
    started: Future[Target] = Future()
    stop = asyncio.Event()

    async def serve() -> None:
        ring = KeyRing(tmp_path_factory.mktemp('keys'))
        async with our_server(ring, tmp_path_factory.mktemp('ours')) as target:
            started.set_result(target)
            await stop.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    yield started.result(30)
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    loop.close()


@pytest.fixture(params=['OpenSSH', 'ours'])
def server(request: pytest.FixtureRequest) -> Target:
    """Both servers."""
    return request.getfixturevalue('sshd').target if request.param == 'OpenSSH' else request.getfixturevalue('ours')
