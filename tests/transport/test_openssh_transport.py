"""The transport against real OpenSSH on loopback, in both roles, up to the beginning of authentication."""

import asyncio
import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssh_fast.transport import TransportOptions
from ssh_fast.transport.algorithms import available_algorithms
from tests.interop import peers
from tests.interop.asyncssh_peer import asyncssh_server
from tests.interop.peers import KEY_TYPES, LOOPBACK, KeyRing, OpenSSHServer, PeerMissing, Target
from tests.memory_pipe import End, host_key, options

DEADLINE = 20.0     # seconds for one handshake

KEX = [name.decode() for name in available_algorithms('kex')]
CIPHERS = [name.decode() for name in available_algorithms('encryption')]
MACS = [name.decode() for name in available_algorithms('mac')]
SIGNATURES = [name.decode() for name in available_algorithms('signature') if b'sk-' not in name]    # no device here
KEY_OF_SIGNATURE = {'rsa-sha2-256': b'ssh-rsa', 'rsa-sha2-512': b'ssh-rsa'}


@contextlib.contextmanager
def needs_peer() -> Iterator[None]:
    try:
        yield
    except PeerMissing as exc:
        if 'CI' in os.environ:
            raise
        pytest.skip(str(exc))


def converse(end: End, sock: socket.socket, done: Callable[[], bool]) -> None:
    """Carry bytes between an end and a socket until `done`, the end of the connection, or an error of the end."""
    give_up = time.monotonic() + DEADLINE
    sock.settimeout(DEADLINE)
    while not done() and end.error is None:
        assert time.monotonic() < give_up, 'The peers did not get that far in time'
        sock.sendall(end.take())
        if done():
            break
        data = sock.recv(65536)
        if not data:
            break
        end.feed(data)
        end.transport.pass_ended(time.monotonic())
    with contextlib.suppress(OSError):
        sock.sendall(end.take())


def connect_to(target: Target, choices: TransportOptions) -> End:
    """Come up to SERVICE_ACCEPT with a real server."""
    end = End(choices, is_client=True, now=time.monotonic())
    asked = False

    def done() -> bool:
        nonlocal asked
        if end.host.exchanges and not asked:
            asked = True
            end.transport.request_service(b'ssh-userauth')
        return bool(end.host.services)

    with socket.create_connection((target.host, target.port), DEADLINE) as sock:
        end.transport.start()
        converse(end, sock, done)
    if end.error is not None:
        raise end.error
    assert end.host.disconnect is None, end.host.disconnect
    assert end.host.services == [b'ssh-userauth']
    return end


def serve_ssh(key_ring: KeyRing, folder: Path, choices: TransportOptions, ssh_options: list[str]) -> End:
    """Let a real `ssh` come up to its first USERAUTH_REQUEST."""
    end = End(choices, is_client=False, now=time.monotonic())
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
        public = folder / 'host.pub'
        folder.mkdir(parents=True, exist_ok=True)
        public.write_bytes(b''.join(
            pair.key.convert_to_public().export_public_key() for pair in choices.host_keys
        ))
        target = peers.make_target(key_ring, folder, port, [public])
        known = [
            f'[{LOOPBACK}]:{port} ' + pair.key.convert_to_public().export_public_key().decode()
            for pair in choices.host_keys
        ]
        target.known_hosts.write_text(''.join(known))
        command = peers.ssh(target, 'true', options=ssh_options)
        process = subprocess.Popen(command.argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, start_new_session=True)
        try:
            listener.settimeout(DEADLINE)
            sock, _ = listener.accept()
            with sock:
                end.transport.start()
                converse(end, sock, lambda: bool(end.host.messages))
                end.transport.disconnect(11, 'Seen enough')
                with contextlib.suppress(OSError):
                    sock.sendall(end.take())
            said = process.communicate(timeout=DEADLINE)[1].decode()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if end.error is not None:
        raise end.error
    assert end.host.messages, said
    assert 'Seen enough' in said
    return end


@pytest.fixture(scope='module')
def key_ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    return KeyRing(tmp_path_factory.mktemp('keys'))


@pytest.fixture(scope='module')
def sshd(key_ring: KeyRing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSSHServer]:
    with needs_peer():
        lines = [
            f'KexAlgorithms {",".join(peers.openssh_knows("kex"))}',
            f'Ciphers {",".join(peers.openssh_knows("cipher"))}',
            f'MACs {",".join(peers.openssh_knows("mac"))}',
            'Compression delayed',
        ]
        folder = tmp_path_factory.mktemp('sshd')
        with OpenSSHServer(key_ring, folder, lines, host_keys=list(KEY_TYPES)) as server:
            yield server


def both_know(kind: str, name: str) -> None:
    with needs_peer():
        if name not in peers.openssh_knows(kind):
            pytest.skip(f'This OpenSSH does not know {name}')


# --- our client, their server


@pytest.mark.parametrize('name', KEX)
def test_client_kex(sshd: OpenSSHServer, name: str) -> None:
    both_know('kex', name)
    end = connect_to(sshd.target, options(kex_algs=(name.encode(),)))
    assert end.transport.algorithms.kex == name.encode()
    assert b'ssh-ed25519' in end.transport.peer_sig_algs


@pytest.mark.parametrize('name', CIPHERS)
def test_client_ciphers(sshd: OpenSSHServer, name: str) -> None:
    both_know('cipher', name)
    end = connect_to(sshd.target, options(encryption_algs=(name.encode(),)))
    assert end.transport.algorithms.send_cipher == end.transport.algorithms.recv_cipher == name.encode()


@pytest.mark.parametrize('name', MACS)
def test_client_macs(sshd: OpenSSHServer, name: str) -> None:
    both_know('mac', name)
    end = connect_to(sshd.target, options(encryption_algs=(b'aes256-ctr',), mac_algs=(name.encode(),)))
    assert end.transport.algorithms.send_mac == end.transport.algorithms.recv_mac == name.encode()


@pytest.mark.parametrize('name', SIGNATURES)
def test_client_host_keys(sshd: OpenSSHServer, name: str) -> None:
    both_know('HostKeyAlgorithms', name)
    end = connect_to(sshd.target, options(host_key_algs=(name.encode(),)))
    key_data, algorithm = end.host.host_keys[0]
    assert algorithm == name.encode()
    assert KEY_OF_SIGNATURE.get(name, name.encode()) in key_data


def test_client_defaults(sshd: OpenSSHServer) -> None:
    end = connect_to(sshd.target, options())
    known = peers.openssh_knows('kex')
    assert end.transport.algorithms.kex.decode() == next(name for name in KEX if name in known)
    assert end.transport.server_version.startswith(b'SSH-2.0-OpenSSH_')
    assert end.transport.strict_kex or peers.openssh_version() < (9, 6)


def test_client_against_asyncssh_hybrid(key_ring: KeyRing, tmp_path: Path) -> None:
    """OpenSSH knows the hybrid from 9.9 on; AsyncSSH's is an independent implementation of it as well."""

    async def run() -> End:
        async with asyncssh_server(key_ring, tmp_path / 'asyncssh') as target:
            return await asyncio.to_thread(connect_to, target, options(kex_algs=(b'mlkem768x25519-sha256',)))

    end = asyncio.run(run())
    assert end.transport.algorithms.kex == b'mlkem768x25519-sha256'
    assert end.transport.strict_kex


# --- our server, their client


@pytest.mark.parametrize('name', KEX)
def test_server_kex(key_ring: KeyRing, tmp_path: Path, name: str) -> None:
    both_know('kex', name)
    end = serve_ssh(key_ring, tmp_path, options(), [f'KexAlgorithms={name}'])
    assert end.transport.algorithms.kex == name.encode()
    assert end.host.messages[0][0] == 50
    assert b'ssh-connection' in end.host.messages[0][1]


@pytest.mark.parametrize('name', CIPHERS)
def test_server_ciphers(key_ring: KeyRing, tmp_path: Path, name: str) -> None:
    both_know('cipher', name)
    end = serve_ssh(key_ring, tmp_path, options(), [f'Ciphers={name}'])
    assert end.transport.algorithms.recv_cipher == name.encode()


@pytest.mark.parametrize('name', MACS)
def test_server_macs(key_ring: KeyRing, tmp_path: Path, name: str) -> None:
    both_know('mac', name)
    end = serve_ssh(key_ring, tmp_path, options(), ['Ciphers=aes128-ctr', f'MACs={name}'])
    assert end.transport.algorithms.recv_mac == name.encode()


@pytest.mark.parametrize('name', SIGNATURES)
def test_server_host_keys(key_ring: KeyRing, tmp_path: Path, name: str) -> None:
    both_know('HostKeyAlgorithms', name)
    kinds = ('ssh-ed25519', 'ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp384', 'ecdsa-sha2-nistp521', 'ssh-rsa')
    choices = options(host_keys=[host_key(kind.encode()) for kind in kinds])
    end = serve_ssh(key_ring, tmp_path, choices, [f'HostKeyAlgorithms={name}'])
    assert end.transport.algorithms.host_key == name.encode()


def test_server_compression_is_delayed(key_ring: KeyRing, tmp_path: Path) -> None:
    """Before login nothing is compressed, though it is agreed upon."""
    end = serve_ssh(key_ring, tmp_path, options(), ['Compression=yes'])
    assert end.transport.algorithms.recv_compression == b'zlib@openssh.com'
    assert end.host.messages[0][0] == 50
