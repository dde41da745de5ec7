"""A server of ours in a process of its own, so that clients that block have somebody to talk to; and sshd."""

from collections.abc import Iterator

import pytest

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
