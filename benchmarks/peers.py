"""The programs that are measured: servers and clients of ssh_fast, AsyncSSH and OpenSSH, each started and ended here.

A client is connected by `start`, then makes any number of transfers at the word of `transfer`, so that what is measured
holds no connecting. OpenSSH's `sftp` is led in the same way: it takes its batch from a pipe, and `!echo` tells when a
command has ended.
"""

import contextlib
import getpass
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.measure import process_tree

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT = 30.0
TRANSFER_TIMEOUT = 600.0
_SFTP_SERVERS = [
    '/usr/lib/openssh/sftp-server',
    '/usr/libexec/openssh/sftp-server',
    '/usr/lib/ssh/sftp-server',
    '/usr/libexec/sftp-server',
]


class PeerFailed(Exception):
    """A program did not do what it was asked to."""


class Keys:
    """Throw-away keys in a folder: of the host, of the user, and the files in which each end finds the other's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host_key, host_public = self._make('host_key')
        self.user_key, user_public = self._make('user_key')
        self._host_public = host_public
        self.authorized_keys = folder / 'authorized_keys'
        self.authorized_keys.write_text(user_public + '\n')
        self.user = getpass.getuser()

    def _make(self, name: str) -> tuple[Path, str]:
        key = Ed25519PrivateKey.generate()
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption()))

        return path, key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH).decode()

    def known_hosts(self, port: int) -> Path:
        """Return a known_hosts file with our host key for 127.0.0.1 and this port."""

        path = self.folder / f'known_hosts.{port}'
        path.write_text(f'[127.0.0.1]:{port} {self._host_public}\n')

        return path


class Program:
    """A process that is spoken to by lines, with its error output kept for the case that it fails."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile()    # noqa: SIM115 (closed by `end`)
        # A session of its own: Ctrl-C reaches only us, and we end what we started.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            bufsize=0,
            cwd=ROOT,
        )
        self._unread = b''
        self.cpu = 0.0    # of the ended process and the children that it waited for, seconds

    @property
    def pid(self) -> int:
        return self.process.pid

    def fail(self, reason: str) -> PeerFailed:
        self._errors.seek(0)
        said = self._errors.read().decode(errors='replace').strip()

        return PeerFailed(f'{self.name}: {reason}' + (f'; it said:\n{said[-2000:]}' if said else ''))

    def say(self, line: str) -> None:
        assert self.process.stdin

        try:
            self.process.stdin.write(line.encode() + b'\n')
        except BrokenPipeError:
            raise self.fail('ended too early') from None

    def hear(self, pattern: str, timeout: float) -> re.Match[str]:
        """Wait for a line that matches the pattern wholly; other lines are passed over."""

        if heard := self.hear_within(pattern, timeout):
            return heard

        raise self.fail(f'did not say {pattern!r} within {timeout:.0f} s')

    def hear_within(self, pattern: str, timeout: float) -> re.Match[str] | None:
        """Wait as `hear` does, but give None if it did not come in time."""

        assert self.process.stdout
        deadline = time.monotonic() + timeout

        while True:
            line, newline, rest = self._unread.partition(b'\n')

            if newline:
                self._unread = rest

                if heard := re.fullmatch(pattern, line.decode(errors='replace').strip()):
                    return heard

                continue

            left = deadline - time.monotonic()

            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                return None

            data = os.read(self.process.stdout.fileno(), 65536)

            if not data:
                raise self.fail(f'ended before it said {pattern!r}')

            self._unread += data

    def wait(self, timeout: float = START_TIMEOUT) -> None:
        """Close its input and wait for its end; PeerFailed if that was a failure, or does not come."""

        assert self.process.stdin
        self.process.stdin.close()
        deadline = time.monotonic() + timeout

        while True:
            # wait4 instead of Popen.wait: it gives the CPU time too, its children's included.
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)

            if pid:
                break

            if time.monotonic() > deadline:
                raise self.fail(f'did not end within {timeout:.0f} s')

            time.sleep(0.01)

        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu = usage.ru_utime + usage.ru_stime

        if self.process.returncode:
            raise self.fail(f'exit status {self.process.returncode}')

    def end(self) -> None:
        """End it and all its descendants, whatever they do."""

        for how in (signal.SIGTERM, signal.SIGKILL):
            if self.process.returncode is None:
                for process in process_tree(self.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.pid, how)

                try:
                    self.process.wait(5)
                except subprocess.TimeoutExpired:
                    continue

        for stream in (self.process.stdin, self.process.stdout, self._errors):
            if stream:
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()


def worker(role: str, module: str, options: dict[str, Any], program: str = 'worker') -> list[str]:
    """Return the command of one end by a library (see worker.py, or the other program)."""

    return [sys.executable, '-m', f'benchmarks.{program}', role, module, json.dumps(options, default=str)]


def listen_options(keys: Keys) -> dict[str, Any]:
    """Return what a library's server needs to know for `listen`."""

    return {'server_host_keys': [keys.host_key], 'authorized_client_keys': keys.authorized_keys}


def connect_options(keys: Keys, port: int, cipher: str, mac: str | None = None) -> dict[str, Any]:
    """Return what a library's client needs to know for `connect`."""

    options = {
        'username': keys.user,
        'client_keys': [keys.user_key],
        'known_hosts': keys.known_hosts(port),
        'encryption_algs': [cipher],
        'compression_algs': ['none'],
        'config': None,
    }

    return options | ({'mac_algs': [mac]} if mac else {})


def openssh_flags(keys: Keys, port: int, cipher: str, mac: str | None = None) -> list[str]:
    """Return the options of OpenSSH's clients for this server and these keys."""

    options = {
        'IdentityFile': keys.user_key,
        'IdentitiesOnly': 'yes',
        'IdentityAgent': 'none',
        'UserKnownHostsFile': keys.known_hosts(port),
        'GlobalKnownHostsFile': 'none',
        'UpdateHostKeys': 'no',
        'Ciphers': cipher,
    }

    if mac:
        options['MACs'] = mac

    return ['-F', 'none', '-q', *(f'-o{name}={value}' for name, value in options.items())]


# --- servers

class Server(Program):
    """A server that listens on `port` of 127.0.0.1."""

    port: int


class LibraryServer(Server):
    """An SFTP server by ssh_fast or AsyncSSH."""

    def __init__(self, module: str, keys: Keys, loop: str = 'asyncio') -> None:
        options = {'port': 0, 'loop': loop, 'listen': listen_options(keys) | {'sftp_factory': True}}
        super().__init__(f'{module} server', worker('server', module, options))

        try:
            self.port = int(self.hear(r'\d+', START_TIMEOUT)[0])
        except BaseException:
            self.end()
            raise


class OpenSSHServer(Server):
    """OpenSSH's sshd in the foreground, with a configuration of its own and sftp-server, as Debian sets it up."""

    def __init__(self, keys: Keys, settings: str = '') -> None:
        sshd = find_sshd()

        if not sshd:
            raise PeerFailed('OpenSSH server: there is no sshd')

        # It insists on this folder if root starts it; its service makes it at boot.
        self._made = Path('/run/sshd') if os.geteuid() == 0 and not os.path.exists('/run/sshd') else None

        if self._made:
            self._made.mkdir(mode=0o755)

        with socket.create_server(('127.0.0.1', 0)) as free:
            self.port = free.getsockname()[1]

        sftp_server = next((path for path in _SFTP_SERVERS if os.path.exists(path)), 'internal-sftp')
        config = keys.folder / f'sshd_config.{self.port}'
        config.write_text(
            f'ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {keys.host_key}\nPidFile none\nUsePAM no\n'
            f'AuthorizedKeysFile {keys.authorized_keys}\nStrictModes no\nPermitRootLogin prohibit-password\n'
            f'PasswordAuthentication no\nKbdInteractiveAuthentication no\nSubsystem sftp {sftp_server}\n'
            f'{settings}'
        )
        log = keys.folder / f'sshd_log.{self.port}'
        super().__init__('OpenSSH server', [sshd, '-D', '-f', str(config), '-E', str(log)])
        deadline = time.monotonic() + START_TIMEOUT

        while not (log.exists() and 'Server listening' in log.read_text()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.end()
                raise PeerFailed(f'OpenSSH server does not start; it said:\n{log.read_text() if log.exists() else ""}')

            time.sleep(0.01)

    def end(self) -> None:
        super().end()

        if self._made:
            with contextlib.suppress(OSError):
                self._made.rmdir()


# --- clients

class Client(Program):
    """A client that is connected to a server and has its SFTP session."""

    def begin(self, direction: str, remote: Path, local: Path) -> None:
        """Begin one `get` or `put`."""

        raise NotImplementedError

    def done(self, timeout: float) -> bool:
        """Wait for the end of what was begun; False if it did not come within `timeout` seconds."""

        return self.hear_within('done', timeout) is not None

    def transfer(self, direction: str, remote: Path, local: Path) -> None:
        """Make one `get` or `put`, and wait for its end."""

        self.begin(direction, remote, local)
        self.hear('done', TRANSFER_TIMEOUT)


class LibraryClient(Client):
    """A client by ssh_fast or AsyncSSH; `transfer_options` go to its get and put."""

    def __init__(
        self,
        module: str,
        keys: Keys,
        port: int,
        cipher: str,
        mac: str | None,
        loop: str = 'asyncio',
        **transfer_options: Any,
    ) -> None:
        connect = connect_options(keys, port, cipher, mac)
        options = {'port': port, 'loop': loop, 'connect': connect, 'transfer': transfer_options}
        super().__init__(f'{module} client', worker('client', module, options))

        try:
            self.hear('ready', START_TIMEOUT)
        except BaseException:
            self.end()
            raise

    def begin(self, direction: str, remote: Path, local: Path) -> None:
        self.say(json.dumps({'direction': direction, 'remote': str(remote), 'local': str(local)}))


class OpenSSHClient(Client):
    """OpenSSH's `sftp`, which starts `ssh` below it."""

    def __init__(self, keys: Keys, port: int, cipher: str, mac: str | None) -> None:
        flags = openssh_flags(keys, port, cipher, mac)
        command = ['sftp', *flags, '-P', str(port), '-b', '-', f'{keys.user}@127.0.0.1']
        super().__init__('OpenSSH client', command)

        try:
            self.say('!echo ready')
            self.hear('ready', START_TIMEOUT)
        except BaseException:
            self.end()
            raise

    def begin(self, direction: str, remote: Path, local: Path) -> None:
        names = [remote, local] if direction == 'get' else [local, remote]
        self.say(f'{direction} {shlex.join(map(str, names))}')
        self.say('!echo done')


# --- what there is

def find_sshd() -> str | None:
    """Return the path of sshd, which is often outside the search path of users."""

    return shutil.which('sshd', path=os.pathsep.join([os.environ.get('PATH', ''), '/usr/sbin', '/usr/local/sbin']))


def missing(kind: str, role: str) -> str | None:
    """Say what is missing to measure an end of this kind, or None."""

    if kind == 'openssh':
        if role == 'client':
            return None if shutil.which('sftp') else 'sftp of OpenSSH is not installed'

        return None if find_sshd() else 'sshd of OpenSSH is not installed'

    return None if find_spec(kind) else f'the package {kind} is not installed'


def start_server(kind: str, keys: Keys, loop: str = 'asyncio') -> Server:
    """Start a server: `openssh`, or the name of a library."""

    return OpenSSHServer(keys) if kind == 'openssh' else LibraryServer(kind, keys, loop)


def start_client(
    kind: str, keys: Keys, port: int, cipher: str, mac: str | None, loop: str = 'asyncio', **transfer_options: Any
) -> Client:
    """Start a client, connected and logged in: `openssh`, or the name of a library."""

    if kind == 'openssh':
        return OpenSSHClient(keys, port, cipher, mac)

    return LibraryClient(kind, keys, port, cipher, mac, loop, **transfer_options)
