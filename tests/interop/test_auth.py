"""Logins with real peers, in both roles: every method, several in sequence, agents, banners, and who stays outside."""

import asyncio
import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncssh
import paramiko
import pytest

import ssh_fast
from tests.interop import peers
from tests.interop.asyncssh_peer import asyncssh_server
from tests.interop.ours import SIGNATURES, Watcher, our_server, run_in_thread, watching
from tests.interop.peers import KEY_TYPES, LOOPBACK, CommandFailed, KeyRing, OpenSSHServer, Target, find_program

SECRET = 'correct horse'


async def quiet(process: Any) -> None:
    process.exit(0)


@pytest.fixture(scope='module')
def every_key(key_ring: KeyRing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSSHServer]:
    """An sshd that lets a key of each type in, and has a host key of each."""
    folder = tmp_path_factory.mktemp('sshd')
    keys = folder / 'every-key'
    keys.write_text(''.join(key_ring.public(f'user-{name}', name).read_text() for name in KEY_TYPES))
    with OpenSSHServer(key_ring, folder, [f'AuthorizedKeysFile {keys}'], host_keys=tuple(KEY_TYPES)) as server:
        yield server


# --- our client: keys -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', SIGNATURES)
async def test_key_to_openssh(name: str, key_ring: KeyRing, every_key: OpenSSHServer, tmp_path: Path) -> None:
    key = key_ring.private(f'user-{SIGNATURES[name]}', SIGNATURES[name])
    options = every_key.target.connect_options(client_keys=[str(key)], signature_algs=[name])
    async with ssh_fast.connect(**options) as connection:
        assert (await connection.run('echo in', check=True)).stdout == 'in\n'


async def test_keys_are_tried_in_turn(key_ring: KeyRing, every_key: OpenSSHServer) -> None:
    keys = [key_ring.private(name, 'ed25519') for name in ('no1', 'no2', 'no3')] + [key_ring.private('user-rsa', 'rsa')]
    options = every_key.target.connect_options(client_keys=[str(key) for key in keys])
    async with ssh_fast.connect(**options) as connection:
        assert connection.get_extra_info('username') == every_key.target.user


async def test_encrypted_key(key_ring: KeyRing, every_key: OpenSSHServer, tmp_path: Path) -> None:
    key = shutil.copy(key_ring.private('user-ed25519', 'ed25519'), tmp_path / 'key')
    change = [find_program('ssh-keygen'), '-q', '-p', '-P', '', '-N', SECRET, '-f', str(key)]
    subprocess.run(change, check=True, capture_output=True)
    options = every_key.target.connect_options(client_keys=[str(key)], passphrase=SECRET)
    async with ssh_fast.connect(**options):
        pass
    with pytest.raises(ssh_fast.KeyImportError, match=r'(?i)passphrase'):
        await ssh_fast.connect(**every_key.target.connect_options(client_keys=[str(key)]))


async def test_default_key(key_ring: KeyRing, every_key: OpenSSHServer, monkeypatch: Any, tmp_path: Path) -> None:
    """As OpenSSH users expect: the keys and known hosts of ~/.ssh."""
    folder = tmp_path / '.ssh'
    folder.mkdir(mode=0o700)
    shutil.copy(key_ring.private('user-ecdsa-384', 'ecdsa-384'), folder / 'id_ecdsa')
    shutil.copy(every_key.target.known_hosts, folder / 'known_hosts')
    monkeypatch.setenv('HOME', str(tmp_path))
    target = every_key.target
    async with ssh_fast.connect(target.host, target.port, username=target.user) as connection:
        assert (await connection.run('true')).exit_status == 0


@contextlib.contextmanager
def agent(folder: Path, *keys: Path) -> Iterator[Path]:
    """OpenSSH's agent with some keys."""
    path = folder / 'agent'
    process = subprocess.Popen([find_program('ssh-agent'), '-D', '-a', str(path)], stdout=subprocess.DEVNULL)
    try:
        while not path.exists():
            time.sleep(0.01)
        if keys:
            add = [shutil.which('ssh-add') or 'ssh-add', '-q', *map(str, keys)]
            subprocess.run(add, env={**os.environ, 'SSH_AUTH_SOCK': str(path)}, check=True, capture_output=True)
        yield path
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize('name', KEY_TYPES)
async def test_agent(name: str, key_ring: KeyRing, every_key: OpenSSHServer, tmp_path: Path) -> None:
    keys = key_ring.private('nobody', 'ed25519'), key_ring.private(f'user-{name}', name)
    with agent(tmp_path, *keys) as path:
        options = every_key.target.connect_options(client_keys=(), agent_path=str(path))
        async with ssh_fast.connect(**options) as connection:
            assert (await connection.run('true')).exit_status == 0


async def test_agent_of_the_environment(
    key_ring: KeyRing, every_key: OpenSSHServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with agent(tmp_path, key_ring.private('user-ed25519', 'ed25519')) as path:
        monkeypatch.setenv('SSH_AUTH_SOCK', str(path))
        options = every_key.target.connect_options(client_keys=())
        del options['agent_path']
        async with ssh_fast.connect(**options) as connection:
            assert (await connection.run('true')).exit_status == 0


async def test_agent_that_is_gone(every_key: OpenSSHServer, tmp_path: Path) -> None:
    options = every_key.target.connect_options(client_keys=(), agent_path=str(tmp_path / 'nothing'))
    with pytest.raises(ssh_fast.PermissionDenied):
        await ssh_fast.connect(**options)


async def test_two_keys_in_sequence(key_ring: KeyRing, tmp_path: Path) -> None:
    """OpenSSH's `publickey,publickey` wants two different ones; the first brings partial success."""
    names = ('first', 'second')
    keys = tmp_path / 'both'
    keys.write_text(''.join(key_ring.public(name, 'ed25519').read_text() for name in names))
    lines = [f'AuthorizedKeysFile {keys}', 'AuthenticationMethods publickey,publickey']
    with OpenSSHServer(key_ring, tmp_path / 'sshd', lines) as server:
        options = server.target.connect_options(client_keys=[str(key_ring.private(name, 'ed25519')) for name in names])
        async with ssh_fast.connect(**options) as connection:
            assert (await connection.run('true')).exit_status == 0
        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(**{**options, 'client_keys': options['client_keys'][:1]})


async def test_key_is_refused(key_ring: KeyRing, openssh_server: OpenSSHServer) -> None:
    options = openssh_server.target.connect_options(client_keys=[str(key_ring.private('nobody', 'ed25519'))])
    with pytest.raises(ssh_fast.PermissionDenied):
        await ssh_fast.connect(**options)


async def test_no_method_is_left(openssh_server: OpenSSHServer) -> None:
    options = openssh_server.target.connect_options(client_keys=None, password='unused')
    with pytest.raises(ssh_fast.PermissionDenied):
        await ssh_fast.connect(**options)


# --- our client: the server's key -------------------------------------------------------------------------------------


def known(target: Target, folder: Path, *lines: str) -> dict[str, Any]:
    (folder / 'known').write_text(''.join(f'{line}\n' for line in lines))
    return target.connect_options(known_hosts=str(folder / 'known'))


async def test_unknown_host(openssh_server: OpenSSHServer, tmp_path: Path) -> None:
    with pytest.raises(ssh_fast.HostKeyNotVerifiable):
        await ssh_fast.connect(**known(openssh_server.target, tmp_path))


async def test_changed_host(openssh_server: OpenSSHServer, key_ring: KeyRing, tmp_path: Path) -> None:
    target = openssh_server.target
    other = key_ring.public('stranger', 'ed25519').read_text()
    with pytest.raises(ssh_fast.HostKeyNotVerifiable):
        await ssh_fast.connect(**known(target, tmp_path, f'[{LOOPBACK}]:{target.port} {other}'))


async def test_revoked_host(openssh_server: OpenSSHServer, tmp_path: Path) -> None:
    target = openssh_server.target
    key = target.host_key.read_text().strip()
    lines = f'@revoked * {key}', f'[{LOOPBACK}]:{target.port} {key}'
    with pytest.raises(ssh_fast.HostKeyNotVerifiable):
        await ssh_fast.connect(**known(target, tmp_path, *lines))
    asked = []

    class Trusting(ssh_fast.SSHClient):  # type: ignore[misc, name-defined]
        def validate_host_public_key(self, host: str, addr: str, port: int, key: Any) -> bool:
            asked.append(key)
            return True

    with pytest.raises(ssh_fast.HostKeyNotVerifiable):
        await ssh_fast.connect(client_factory=Trusting, **known(target, tmp_path, lines[0]))
    assert asked == []


async def test_trusted_by_the_application(openssh_server: OpenSSHServer, tmp_path: Path) -> None:
    asked: list[tuple[str, str, int]] = []

    class Trusting(ssh_fast.SSHClient):  # type: ignore[misc, name-defined]
        def validate_host_public_key(self, host: str, addr: str, port: int, key: Any) -> bool:
            asked.append((host, addr, port))
            return True

    target = openssh_server.target
    async with ssh_fast.connect(client_factory=Trusting, **known(target, tmp_path)):
        assert asked == [(LOOPBACK, LOOPBACK, target.port)]


async def test_hashed_host(openssh_server: OpenSSHServer, tmp_path: Path) -> None:
    copy = shutil.copy(openssh_server.target.known_hosts, tmp_path / 'hashed')
    subprocess.run([find_program('ssh-keygen'), '-q', '-H', '-f', str(copy)], check=True, capture_output=True)
    assert LOOPBACK not in Path(copy).read_text()
    async with ssh_fast.connect(**openssh_server.target.connect_options(known_hosts=str(copy))):
        pass


@pytest.mark.parametrize('name', KEY_TYPES)
async def test_one_known_key_of_many(name: str, key_ring: KeyRing, every_key: OpenSSHServer, tmp_path: Path) -> None:
    """The client asks for the type of key that it knows."""
    line = f'[{LOOPBACK}]:{every_key.target.port} {key_ring.public(f"host-{name}", name).read_text()}'
    options = known(every_key.target, tmp_path, line)
    options['client_keys'] = [str(key_ring.private('user-ed25519', 'ed25519'))]
    async with ssh_fast.connect(**options):
        pass


# --- our client: passwords and questions ------------------------------------------------------------------------------


class AsyncSSHLogin(asyncssh.SSHServer):
    """AsyncSSH's server with one password, which may have expired, and two questions."""

    expired = False

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        if type(self).expired and password == SECRET:
            raise asyncssh.PasswordChangeRequired('Choose a new one')
        return password == SECRET

    def change_password(self, username: str, old_password: str, new_password: str) -> bool:
        return (old_password, new_password) == (SECRET, 'new')

    def kbdint_auth_supported(self) -> bool:
        return True

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return 'Title', 'Instructions', '', [('Colour? ', True), ('Number? ', False)]

    def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> Any:
        if list(responses) == ['blue', '7']:
            return 'Again', '', '', [('Sure? ', True)]
        return list(responses) == ['yes']


@pytest.fixture
async def asking_asyncssh(key_ring: KeyRing, tmp_path: Path) -> AsyncIterator[Target]:
    options: dict[str, Any] = {'authorized_client_keys': (), 'server_factory': AsyncSSHLogin}
    async with asyncssh_server(key_ring, tmp_path / 'asyncssh', **options) as target:
        yield target


async def test_password_to_asyncssh(asking_asyncssh: Target) -> None:
    options = asking_asyncssh.connect_options(client_keys=None, kbdint_auth=False)
    async with ssh_fast.connect(password=SECRET, **options) as connection:
        async with connection.start_sftp_client() as sftp:
            assert await sftp.getcwd()
    with pytest.raises(ssh_fast.PermissionDenied):
        await ssh_fast.connect(password='wrong', **options)


@pytest.mark.parametrize(('new', 'allowed'), [('new', True), ('too short', False)])
async def test_password_change(
    new: str, allowed: bool, asking_asyncssh: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AsyncSSHLogin, 'expired', True)
    prompts = []

    class Changing(ssh_fast.SSHClient):  # type: ignore[misc, name-defined]
        def password_change_requested(self, prompt: str, lang: str) -> tuple[str, str] | None:
            prompts.append(prompt)
            return (SECRET, new) if len(prompts) == 1 else None

    options = asking_asyncssh.connect_options(
        client_keys=None, kbdint_auth=False, password=SECRET, client_factory=Changing
    )
    if allowed:
        async with ssh_fast.connect(**options):
            pass
    else:
        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(**options)
    assert prompts[0] == 'Choose a new one'


def answering(answers: dict[str, str], asked: list[tuple[str, str, tuple[str, ...]]]) -> type:
    class Answering(ssh_fast.SSHClient):  # type: ignore[misc, name-defined]
        rounds = 0

        def kbdint_auth_requested(self) -> str | None:
            self.rounds += 1
            return '' if self.rounds == 1 else None

        async def kbdint_challenge_received(
            self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
        ) -> Sequence[str]:
            await asyncio.sleep(0.01)
            asked.append((name, instructions, tuple(prompt for prompt, _ in prompts)))
            return [answers[prompt] for prompt, _ in prompts]

    return Answering


async def test_questions_of_asyncssh(asking_asyncssh: Target) -> None:
    asked: list[tuple[str, str, tuple[str, ...]]] = []
    factory = answering({'Colour? ': 'blue', 'Number? ': '7', 'Sure? ': 'yes'}, asked)
    options = asking_asyncssh.connect_options(client_keys=None, client_factory=factory)
    async with ssh_fast.connect(**options):
        assert asked == [('Title', 'Instructions', ('Colour? ', 'Number? ')), ('Again', '', ('Sure? ',))]
    wrong = answering({'Colour? ': 'red', 'Number? ': '7', 'Sure? ': 'yes'}, [])
    with pytest.raises(ssh_fast.PermissionDenied):
        await ssh_fast.connect(**{**options, 'client_factory': wrong})


class ParamikoLogin(paramiko.ServerInterface):
    """Paramiko's server: a key and then a password, or two answers."""

    def __init__(self, key: paramiko.PKey) -> None:
        self._key = key
        self._has_key = False

    def get_allowed_auths(self, username: str) -> str:
        if username == 'asked':
            return 'keyboard-interactive'
        return 'password' if self._has_key else 'publickey'

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self._has_key = key == self._key
        return paramiko.AUTH_PARTIALLY_SUCCESSFUL if self._has_key else paramiko.AUTH_FAILED

    def check_auth_password(self, username: str, password: str) -> int:
        return paramiko.AUTH_SUCCESSFUL if self._has_key and password == SECRET else paramiko.AUTH_FAILED

    def check_auth_interactive(self, username: str, submethods: str) -> Any:
        return paramiko.InteractiveQuery('Title', 'Instructions', ('Colour? ', True), ('Number? ', False))

    def check_auth_interactive_response(self, responses: Sequence[str]) -> int:
        return paramiko.AUTH_SUCCESSFUL if list(responses) == ['blue', '7'] else paramiko.AUTH_FAILED


@contextlib.asynccontextmanager
async def asking_paramiko(ring: KeyRing, folder: Path) -> AsyncIterator[Target]:
    """One connection to such a server."""
    private = ring.private('host-ecdsa-256', 'ecdsa-256')
    transports: list[paramiko.Transport] = []
    with socket.create_server((LOOPBACK, 0)) as listener:

        def serve() -> None:
            transport = paramiko.Transport(listener.accept()[0])
            transports.append(transport)
            transport.add_server_key(paramiko.PKey.from_path(private))
            login = ParamikoLogin(paramiko.PKey.from_path(ring.private('user', 'ed25519')))
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                transport.start_server(event=threading.Event(), server=login)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield peers.make_target(ring, folder, listener.getsockname()[1], [Path(f'{private}.pub')])
        thread.join(5)
        for transport in transports:
            transport.close()
            await run_in_thread(transport.join, 5)


@pytest.mark.parametrize('password', [SECRET, 'wrong', None])
async def test_key_then_password_to_paramiko(password: str | None, key_ring: KeyRing, tmp_path: Path) -> None:
    async with asking_paramiko(key_ring, tmp_path) as target:
        attempt = ssh_fast.connect(**target.connect_options(password=password))
        if password == SECRET:
            async with attempt:
                pass
        else:
            with pytest.raises(ssh_fast.PermissionDenied):
                await attempt


async def test_questions_of_paramiko(key_ring: KeyRing, tmp_path: Path) -> None:
    asked: list[tuple[str, str, tuple[str, ...]]] = []
    factory = answering({'Colour? ': 'blue', 'Number? ': '7'}, asked)
    async with asking_paramiko(key_ring, tmp_path) as target:
        options = target.connect_options(username='asked', client_keys=None, client_factory=factory)
        async with ssh_fast.connect(**options):
            assert asked == [('Title', 'Instructions', ('Colour? ', 'Number? '))]


async def test_banner_of_openssh(key_ring: KeyRing, tmp_path: Path) -> None:
    shown = []

    class Reader(ssh_fast.SSHClient):  # type: ignore[misc, name-defined]
        def auth_banner_received(self, msg: str, lang: str) -> None:
            shown.append(msg)

    (tmp_path / 'banner').write_text('Be welcome, ä\n')
    with OpenSSHServer(key_ring, tmp_path / 'sshd', [f'Banner {tmp_path}/banner']) as server:
        async with ssh_fast.connect(client_factory=Reader, **server.target.connect_options()):
            assert [text.strip() for text in shown] == ['Be welcome, ä']


# --- our server -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def open_to_every_key(key_ring: KeyRing, tmp_path: Path) -> AsyncIterator[Target]:
    keys = tmp_path / 'every-key'
    keys.write_text(''.join(key_ring.public(f'user-{name}', name).read_text() for name in KEY_TYPES))
    options: dict[str, Any] = {'authorized_client_keys': str(keys), 'process_factory': quiet}
    async with our_server(key_ring, tmp_path / 'ours', **options) as target:
        yield target


@pytest.mark.parametrize('name', SIGNATURES)
async def test_key_of_openssh(name: str, key_ring: KeyRing, open_to_every_key: Target) -> None:
    key = key_ring.private(f'user-{SIGNATURES[name]}', SIGNATURES[name])
    options = [f'IdentityFile={key}', f'PubkeyAcceptedAlgorithms={name}']
    target = dataclasses.replace(open_to_every_key, key=key)
    assert (await peers.ssh(target, 'true', options=options).run_async()).status == 0


@pytest.mark.parametrize('name', KEY_TYPES)
async def test_agent_of_openssh(name: str, key_ring: KeyRing, open_to_every_key: Target, tmp_path: Path) -> None:
    with agent(tmp_path, key_ring.private(f'user-{name}', name)) as path:
        options = [f'IdentityAgent={path}', 'IdentitiesOnly=no']
        target = dataclasses.replace(open_to_every_key, key=tmp_path / 'no-such-key')
        assert (await peers.ssh(target, 'true', options=options).run_async()).status == 0


async def test_key_of_a_stranger(key_ring: KeyRing, open_to_every_key: Target) -> None:
    target = dataclasses.replace(open_to_every_key, key=key_ring.private('nobody', 'ed25519'))
    with pytest.raises(CommandFailed, match=r'Permission denied \(publickey\)'):
        await peers.ssh(target, 'true').run_async()


async def test_too_many_guesses(key_ring: KeyRing, tmp_path: Path) -> None:
    """Passwords may be guessed six times, however patient the client is."""
    guesses = []

    class Counting(PasswordLogin):
        def validate_password(self, username: str, password: str) -> bool:
            guesses.append(password)
            return False

    async with asked_by_us(key_ring, tmp_path, Counting) as target:
        command = with_answers(peers.ssh(target, 'true', options=asked_options('password', prompts=20)), tmp_path, 'no')
        result = await command.run_async(check=False)
    assert result.status == 255
    assert 1 < len(guesses) <= 6


class PasswordLogin(Watcher):
    """Our server with one password and two questions."""

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    async def validate_password(self, username: str, password: str) -> bool:
        await asyncio.sleep(0.01)
        return password == SECRET


class AskingLogin(PasswordLogin):
    def kbdint_auth_supported(self) -> bool:
        return True

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return 'Title', 'Instructions', '', [('Colour? ', True), ('Number? ', False)]

    def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> Any:
        if len(responses) == 2:
            return 'Again', '', '', [('Sure? ', True)]
        return list(responses) == [SECRET]


@contextlib.asynccontextmanager
async def asked_by_us(
    ring: KeyRing, folder: Path, login: type[Watcher] = AskingLogin, **options: Any
) -> AsyncIterator[Target]:
    settings: dict[str, Any] = {'server_factory': login, 'process_factory': quiet, **options}
    async with our_server(ring, folder / 'ours', **settings) as target:
        yield target


def asked_options(methods: str, prompts: int = 1) -> list[str]:
    return ['BatchMode=no', f'PreferredAuthentications={methods}', f'NumberOfPasswordPrompts={prompts}']


def with_answers(command: peers.Command, folder: Path, answer: str) -> peers.Command:
    """Let OpenSSH's client get the same answer to whatever it asks its user."""
    script = folder / 'askpass'
    script.write_text(f'#!/bin/sh\necho "{answer}"\n')
    script.chmod(0o755)
    environment = {**command.environment, 'SSH_ASKPASS': str(script), 'SSH_ASKPASS_REQUIRE': 'force', 'DISPLAY': ':9'}
    return dataclasses.replace(command, environment=environment)


@pytest.mark.parametrize('method', ['password', 'keyboard-interactive'])
async def test_answers_of_openssh(method: str, key_ring: KeyRing, tmp_path: Path) -> None:
    async with asked_by_us(key_ring, tmp_path) as target:
        command = peers.ssh(target, 'true', options=asked_options(method))
        assert (await with_answers(command, tmp_path, SECRET).run_async()).status == 0
        with pytest.raises(CommandFailed, match='Permission denied'):
            await with_answers(command, tmp_path, 'wrong').run_async()


async def test_password_as_a_question(key_ring: KeyRing, tmp_path: Path) -> None:
    """A server with passwords offers them by keyboard-interactive as well."""
    async with asked_by_us(key_ring, tmp_path, PasswordLogin) as target:
        command = peers.ssh(target, 'true', options=asked_options('keyboard-interactive'))
        assert (await with_answers(command, tmp_path, SECRET).run_async()).status == 0


@pytest.mark.parametrize('methods', ['publickey,password', 'publickey,keyboard-interactive', 'password,publickey'])
async def test_methods_in_sequence_from_openssh(methods: str, key_ring: KeyRing, tmp_path: Path) -> None:
    async with asked_by_us(key_ring, tmp_path, auth_methods=[methods]) as target:
        command = peers.ssh(target, 'true', options=asked_options(methods))
        assert (await with_answers(command, tmp_path, SECRET).run_async()).status == 0
        with pytest.raises(CommandFailed, match='Permission denied'):
            await with_answers(command, tmp_path, 'wrong').run_async()
        with pytest.raises(CommandFailed, match='Permission denied'):
            await peers.ssh(target, 'true').run_async()  # the key alone


@pytest.mark.parametrize('methods', ['publickey,password', 'password,publickey'])
async def test_methods_in_sequence_from_ourselves(methods: str, key_ring: KeyRing, tmp_path: Path) -> None:
    async with asked_by_us(key_ring, tmp_path, auth_methods=[methods]) as target:
        async with ssh_fast.connect(**target.connect_options(password=SECRET)) as connection:
            assert (await connection.run('true')).exit_status == 0
        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(**target.connect_options())
        with pytest.raises(ssh_fast.PermissionDenied):
            await ssh_fast.connect(**target.connect_options(password=SECRET, client_keys=None))


async def test_methods_in_sequence_from_asyncssh(key_ring: KeyRing, tmp_path: Path) -> None:
    async with asked_by_us(key_ring, tmp_path, auth_methods=['publickey,password']) as target:
        async with asyncssh.connect(**target.connect_options(password=SECRET)) as connection:
            assert (await connection.run('true')).exit_status == 0


async def test_methods_in_sequence_from_paramiko(key_ring: KeyRing, tmp_path: Path) -> None:
    def work(target: Target) -> None:
        transport = paramiko.Transport((target.host, target.port))
        try:
            transport.start_client(timeout=20)
            key = paramiko.PKey.from_path(target.key)
            assert transport.auth_publickey(target.user, key) == ['password']
            assert transport.auth_password(target.user, SECRET) == []
            assert transport.is_authenticated()
        finally:
            transport.close()

    async with asked_by_us(key_ring, tmp_path, auth_methods=['publickey,password']) as target:
        await run_in_thread(work, target)


async def test_asyncssh_answers(key_ring: KeyRing, tmp_path: Path) -> None:
    async with asked_by_us(key_ring, tmp_path, PasswordLogin) as target:
        options = target.connect_options(client_keys=None)
        async with asyncssh.connect(password=SECRET, kbdint_auth=False, **options):
            pass
        async with asyncssh.connect(password=SECRET, password_auth=False, **options):
            pass
        with pytest.raises(asyncssh.PermissionDenied):
            await asyncssh.connect(password='wrong', **options)


async def test_paramiko_answers(key_ring: KeyRing, tmp_path: Path) -> None:
    def work(target: Target) -> None:
        transport = paramiko.Transport((target.host, target.port))
        try:
            transport.start_client(timeout=20)
            with pytest.raises(paramiko.AuthenticationException):
                transport.auth_password(target.user, 'wrong', fallback=False)
            answers = {2: ['blue', '7'], 1: [SECRET]}
            transport.auth_interactive(target.user, lambda title, text, prompts: answers[len(prompts)])
            assert transport.is_authenticated()
        finally:
            transport.close()

    async with asked_by_us(key_ring, tmp_path) as target:
        await run_in_thread(work, target)


async def test_password_change_by_openssh(key_ring: KeyRing, tmp_path: Path) -> None:
    changed = []

    class Expired(PasswordLogin):
        def validate_password(self, username: str, password: str) -> bool:
            raise ssh_fast.PasswordChangeRequired('Too old')

        def change_password(self, username: str, old_password: str, new_password: str) -> bool:
            changed.append((old_password, new_password))
            return True

    async with asked_by_us(key_ring, tmp_path, Expired) as target:
        command = peers.ssh(target, 'true', options=asked_options('password'))
        assert (await with_answers(command, tmp_path, SECRET).run_async()).status == 0
    assert changed == [(SECRET, SECRET)]


async def test_nobody_must_log_in(key_ring: KeyRing, tmp_path: Path) -> None:
    class Open(Watcher):
        def begin_auth(self, username: str) -> bool:
            return username != 'guest'

    async with asked_by_us(key_ring, tmp_path, Open) as target:
        guest = dataclasses.replace(target, user='guest', key=tmp_path / 'no-such-key')
        assert (await peers.ssh(guest, 'true').run_async()).status == 0
        with pytest.raises(CommandFailed, match='Permission denied'):
            await peers.ssh(dataclasses.replace(guest, user='other'), 'true').run_async()


async def test_our_banner(key_ring: KeyRing, tmp_path: Path) -> None:
    async with our_server(key_ring, tmp_path / 'ours', process_factory=quiet, banner='Be welcome\n') as target:
        assert 'Be welcome' in (await peers.ssh(target, 'true').run_async()).stderr


async def test_options_of_authorized_keys(key_ring: KeyRing, tmp_path: Path) -> None:
    """A key that may only come from elsewhere doesn't get in; one from here does, with the command it is bound to."""
    commands = []

    async def handler(process: Any) -> None:
        commands.append(process.command)
        process.exit(0)

    public = key_ring.public('user', 'ed25519').read_text()
    for options, allowed in (('from="10.1.2.3"', False), ('from="127.0.0.0/8",command="bound"', True)):
        (tmp_path / 'keys').write_text(f'{options} {public}')
        settings: dict[str, Any] = {'authorized_client_keys': str(tmp_path / 'keys'), 'process_factory': handler}
        async with our_server(key_ring, tmp_path / 'ours', **settings) as target:
            assert ((await peers.ssh(target, 'asked').run_async(check=False)).status == 0) == allowed
    assert commands == ['bound']


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('stage', ['nothing', 'version', 'login'])
async def test_grace_time_of_our_server(stage: str, key_ring: KeyRing, tmp_path: Path) -> None:
    made, factory = watching(PasswordLogin)
    options: dict[str, Any] = {'server_factory': factory, 'login_timeout': 0.6}
    async with our_server(key_ring, tmp_path / 'ours', **options) as target:
        began = time.monotonic()
        if stage == 'login':
            script = tmp_path / 'slow'
            script.write_text('#!/bin/sh\nsleep 5\n')
            script.chmod(0o755)
            command = with_answers(peers.ssh(target, 'true', options=asked_options('password')), tmp_path, 'unused')
            shutil.copy(script, tmp_path / 'askpass')
            attempt = asyncio.ensure_future(command.run_async(check=False))
            while not made:
                await asyncio.sleep(0.01)
            began = time.monotonic()
            await asyncio.wait_for(made[0].lost, 5)
            attempt.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await attempt
        else:
            reader, writer = await asyncio.open_connection(target.host, target.port)
            if stage == 'version':
                writer.write(b'SSH-2.0-slow\r\n')
            await asyncio.wait_for(reader.read(), 5)
            writer.close()
        assert 0.4 < time.monotonic() - began < 2


async def test_login_timeout_of_our_client(key_ring: KeyRing, tmp_path: Path) -> None:
    """A server that accepts and then says nothing."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, LOOPBACK, 0) as server:
        port = server.sockets[0].getsockname()[1]
        target = peers.make_target(key_ring, tmp_path, port, [key_ring.public('host-ed25519', 'ed25519')])
        began = time.monotonic()
        with pytest.raises(ssh_fast.ConnectionLost, match='(?i)login timeout'):
            await ssh_fast.connect(**target.connect_options(login_timeout=0.4))
        with pytest.raises(TimeoutError):
            await ssh_fast.connect(**target.connect_options(connect_timeout=0.4))
        assert time.monotonic() - began < 3


async def test_many_at_once(key_ring: KeyRing, open_to_every_key: Target) -> None:
    """Logins overlap; the server serves sixty at a time."""

    async def login() -> int:
        options = open_to_every_key.connect_options(client_keys=[str(key_ring.private('user-ed25519', 'ed25519'))])
        async with ssh_fast.connect(**options) as connection:
            return int((await connection.run('true')).exit_status)

    assert await asyncio.gather(*(login() for _ in range(60))) == [0] * 60
