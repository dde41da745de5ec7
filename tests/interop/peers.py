"""Other people's SSH programs on loopback: servers that end with their `with` block, and their clients as commands.

Nothing here needs pytest, so that the benchmarks use it too. A program that is not installed raises `PeerMissing`.
"""

import asyncio
import contextlib
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

LOOPBACK = '127.0.0.1'
START_TIMEOUT = 20.0  # seconds until a server must answer
STOP_TIMEOUT = 5.0  # seconds until a server that was asked to end is killed
RUN_TIMEOUT = 60.0  # seconds that a client command may take

KEY_TYPES: Mapping[str, Sequence[str]] = {
    'ed25519': ('-t', 'ed25519'),
    'ecdsa-256': ('-t', 'ecdsa', '-b', '256'),
    'ecdsa-384': ('-t', 'ecdsa', '-b', '384'),
    'ecdsa-521': ('-t', 'ecdsa', '-b', '521'),
    'rsa': ('-t', 'rsa', '-b', '3072'),
}
PACKAGES = {
    'dbclient': 'dropbear-bin',
    'dropbear': 'dropbear-bin',
    'dropbearconvert': 'dropbear-bin',
    'kadmin.local': 'krb5-admin-server',
    'kdb5_util': 'krb5-kdc',
    'kinit': 'krb5-user',
    'krb5kdc': 'krb5-kdc',
    'lftp': 'lftp',
    'pscp': 'putty-tools',
    'psftp': 'putty-tools',
    'puttygen': 'putty-tools',
    'rclone': 'rclone',
    'redis-benchmark': 'redis-tools',
    'redis-cli': 'redis-tools',
    'redis-server': 'redis-server',
    'scp': 'openssh-client',
    'sftp': 'openssh-client',
    'sftp-server': 'openssh-sftp-server',
    'ssh': 'openssh-client',
    'ssh-agent': 'openssh-client',
    'ssh-keygen': 'openssh-client',
    'ssh-keysign': 'openssh-client',
    'sshd': 'openssh-server',
    'xauth': 'xauth',
    'xdpyinfo': 'x11-utils',
    'Xvfb': 'xvfb',
}
FOLDERS = (
    '/usr/sbin',
    '/usr/local/sbin',
    '/sbin',
    '/usr/lib/openssh',
    '/usr/libexec',
    '/usr/libexec/openssh',
    '/usr/lib/ssh',
)


class PeerMissing(Exception):
    """A program of a peer is not installed."""


class CommandFailed(Exception):
    """A client ended with a status other than 0, or did not end in time."""


def find_program(name: str) -> str:
    """Find a program in PATH or where systems keep servers."""
    path = shutil.which(name) or shutil.which(name, path=os.pathsep.join(FOLDERS))
    if path is None:
        raise PeerMissing(f'{name} is not installed (Debian: apt-get install {PACKAGES[name]})')
    return path


def plain_environment() -> dict[str, str]:
    """Return the environment for a peer: English, and no sanitizer library as our own process may have."""
    return {**{name: value for name, value in os.environ.items() if name != 'LD_PRELOAD'}, 'LC_ALL': 'C'}


def run_tool(*argv: str) -> subprocess.CompletedProcess[str]:
    """Run a small program that needs no server, and return what it printed."""
    environment = plain_environment()
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=RUN_TIMEOUT, env=environment)


def openssh_version() -> tuple[int, int]:
    """Return the version of the installed OpenSSH client, as (9, 2)."""
    shown = run_tool(find_program('ssh'), '-V').stderr
    major, minor = shown.removeprefix('OpenSSH_').split(' ')[0].split('p')[0].split('.')[:2]
    return int(major), int(minor)


def openssh_knows(kind: str) -> list[str]:
    """Return the algorithms that OpenSSH's `ssh -Q` lists for `cipher`, `mac`, `kex`, `HostKeyAlgorithms`..."""
    return run_tool(find_program('ssh'), '-Q', kind).stdout.split()


def free_port() -> int:
    """Return a port of the loopback address that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def user_name() -> str:
    """Name the user who runs this, the only one whom an sshd without root's rights lets in."""
    return pwd.getpwuid(os.getuid()).pw_name


# --- keys and targets -------------------------------------------------------------------------------------------------


class KeyRing:
    """Throw-away keys in a folder, made when first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def private(self, name: str, key_type: str = '') -> Path:
        """Return the path of the private key `name`; its type is `key_type`, or the name itself."""
        path = self._folder / f'key-{name}'
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            command = [
                find_program('ssh-keygen'),
                '-q',
                *KEY_TYPES[key_type or name],
                '-N',
                '',
                '-C',
                name,
                '-f',
                str(path),
            ]
            run_tool(*command)
        return path

    def public(self, name: str, key_type: str = '') -> Path:
        """Return the path of the public key `name`."""
        return self.private(name, key_type).with_suffix('.pub')


@dataclass(frozen=True)
class Target:
    """Where a server listens, and what a client needs to get in."""

    port: int
    key: Path  # the user's private key, in OpenSSH's format
    known_hosts: Path
    host_key: Path  # one of the server's public keys, for clients that are told a fingerprint
    folder: Path  # scratch for the clients' own files
    user: str = field(default_factory=user_name)
    host: str = LOOPBACK

    def connect_options(self, **options: Any) -> dict[str, Any]:
        """Return the arguments of AsyncSSH's connect(), which are ssh_fast's as well."""
        return {
            'host': self.host,
            'port': self.port,
            'username': self.user,
            'known_hosts': str(self.known_hosts),
            'client_keys': [str(self.key)],
            'config': None,
            'agent_path': None,
            **options,
        }


def make_target(ring: KeyRing, folder: Path, port: int, host_keys: Sequence[Path], **fields: Any) -> Target:
    """Describe a server on loopback by its port and public host keys, and write the known_hosts that trusts them."""
    folder.mkdir(parents=True, exist_ok=True)
    known_hosts = folder / 'known_hosts'
    keys = [path.read_text().split()[:2] for path in host_keys]
    # A port in brackets is OpenSSH's form; dropbear looks for a line that begins with the plain address.
    names = (f'[{LOOPBACK}]:{port}', LOOPBACK)
    known_hosts.write_text(''.join(f'{name} {algorithm} {key}\n' for name in names for algorithm, key in keys))
    key = fields.pop('key', None) or ring.private('user', 'ed25519')
    return Target(port=port, key=key, known_hosts=known_hosts, host_key=host_keys[0], folder=folder, **fields)


# --- commands ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What a command printed, and how it ended."""

    status: int
    stdout: bytes
    stderr: str


@dataclass(frozen=True)
class Command:
    """A client's command line; it can be run in a blocking way, or by a loop that also runs the server."""

    argv: Sequence[str]
    stdin: bytes = b''
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *, timeout: float = RUN_TIMEOUT, check: bool = True) -> Result:
        """Run to the end; raise CommandFailed if it fails (not if `check` is False) or takes over `timeout` seconds."""
        with subprocess.Popen(
            self.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._full_environment(),
            start_new_session=True,
        ) as process:
            try:
                stdout, stderr = process.communicate(self.stdin, timeout)
            except subprocess.TimeoutExpired:
                _kill_group(process.pid)
                stdout, stderr = process.communicate()
                raise CommandFailed(self._story(f'ran longer than {timeout} s', stdout, stderr)) from None
        return self._judge(process.returncode, stdout, stderr, check)

    async def run_async(self, *, timeout: float = RUN_TIMEOUT, check: bool = True) -> Result:
        """Run as `run` does, without blocking the loop."""
        process = await asyncio.create_subprocess_exec(
            *self.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._full_environment(),
            start_new_session=True,
        )
        talk = asyncio.ensure_future(process.communicate(self.stdin))
        try:
            stdout, stderr = await asyncio.wait_for(asyncio.shield(talk), timeout)
        except TimeoutError:
            _kill_group(process.pid)
            raise CommandFailed(self._story(f'ran longer than {timeout} s', *await talk)) from None
        except asyncio.CancelledError:
            _kill_group(process.pid)
            await talk
            raise
        assert process.returncode is not None
        return self._judge(process.returncode, stdout, stderr, check)

    def _full_environment(self) -> dict[str, str]:
        return {**plain_environment(), **self.environment}

    def _judge(self, status: int, stdout: bytes, stderr: bytes, check: bool) -> Result:
        if check and status != 0:
            raise CommandFailed(self._story(f'ended with status {status}', stdout, stderr))
        return Result(status, stdout, stderr.decode(errors='replace'))

    def _story(self, end: str, stdout: bytes, stderr: bytes) -> str:
        out, err = (data.decode(errors='replace')[-4000:] for data in (stdout, stderr))
        return f'{shlex.join(self.argv)} {end}\nstdin: {self.stdin[:200]!r}\nstdout: {out}\nstderr: {err}'


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def openssh_options(target: Target, options: Sequence[str] = ()) -> list[str]:
    """Return the options that keep OpenSSH's clients to this target's keys; `options` as `Ciphers=...` win."""
    settings = [
        *options,
        f'UserKnownHostsFile={target.known_hosts}',
        f'IdentityFile={target.key}',
        f'User={target.user}',
        *('GlobalKnownHostsFile=/dev/null', 'StrictHostKeyChecking=yes', 'UpdateHostKeys=no', 'BatchMode=yes'),
        *('IdentitiesOnly=yes', 'IdentityAgent=none', 'ControlPath=none', 'ConnectTimeout=20'),
    ]
    return ['-F', 'none', *(part for setting in settings for part in ('-o', setting))]


def ssh(target: Target, *command: str, options: Sequence[str] = (), stdin: bytes = b'') -> Command:
    """OpenSSH's `ssh`, running a command, or a shell without one."""
    argv = [find_program('ssh'), *openssh_options(target, options), '-p', str(target.port), target.host, *command]
    return Command(argv, stdin)


def sftp(target: Target, *lines: str, options: Sequence[str] = (), flags: Sequence[str] = ()) -> Command:
    """OpenSSH's `sftp` with a batch of lines; `flags` as `-B 32768` or `-R 64`."""
    argv = [
        find_program('sftp'),
        '-q',
        *openssh_options(target, options),
        '-P',
        str(target.port),
        *flags,
        '-b',
        '-',
        target.host,
    ]
    return Command(argv, '\n'.join([*lines, 'bye', '']).encode())


def scp(target: Target, *arguments: str, options: Sequence[str] = (), sftp_mode: bool = True) -> Command:
    """OpenSSH's `scp`; a remote path is written `remote:PATH`. Without `sftp_mode` it speaks the old protocol."""
    version = openssh_version()
    mode = [] if sftp_mode and version >= (9, 0) else ['-s'] if sftp_mode else ['-O'] if version >= (9, 0) else []
    paths = [
        f'{target.host}:{path.removeprefix("remote:")}' if path.startswith('remote:') else path for path in arguments
    ]
    return Command(
        [find_program('scp'), '-q', *mode, *openssh_options(target, options), '-P', str(target.port), *paths]
    )


def dbclient(target: Target, *command: str, flags: Sequence[str] = (), stdin: bytes = b'') -> Command:
    """Dropbear's client at its defaults, host key checked; `flags` as `-c aes128-ctr`."""
    key = target.folder / f'{target.key.name}.dropbear'
    if not key.exists():
        convert = [find_program('dropbearconvert'), 'openssh', 'dropbear', str(target.key), str(key)]
        run_tool(*convert)
    home = target.folder / 'dropbear-home'
    (home / '.ssh').mkdir(parents=True, exist_ok=True)
    shutil.copy(target.known_hosts, home / '.ssh/known_hosts')
    argv = [
        find_program('dbclient'),
        '-i',
        str(key),
        '-p',
        str(target.port),
        '-l',
        target.user,
        *flags,
        target.host,
        *command,
    ]
    return Command(argv, stdin, {'HOME': str(home)})


def rclone(target: Target, *arguments: str, flags: Sequence[str] = ()) -> Command:
    """rclone with the server as its `:sftp:` remote, as `rclone(target, 'copyto', 'file', ':sftp:/path')`."""
    settings = {
        'host': target.host,
        'port': str(target.port),
        'user': target.user,
        'key-file': str(target.key),
        'known-hosts-file': str(target.known_hosts),
        'shell-type': 'none',
    }
    told = [part for name, value in settings.items() for part in (f'--sftp-{name}', value)]
    argv = [
        find_program('rclone'),
        '--config',
        '/dev/null',
        '--retries',
        '1',
        '--low-level-retries',
        '1',
        *told,
        *flags,
        *arguments,
    ]
    return Command(argv, environment={'HOME': str(target.folder), 'XDG_CACHE_HOME': str(target.folder / 'cache')})


def lftp(target: Target, *lines: str, options: Sequence[str] = ()) -> Command:
    """lftp's sftp client, with OpenSSH's `ssh` as its way there."""
    program = shlex.join([find_program('ssh'), '-a', '-x', *openssh_options(target, options)])
    script = [
        'set cmd:fail-exit yes',
        'set net:max-retries 1',
        'set net:timeout 20',
        'set net:persist-retries 0',
        f'set sftp:connect-program "{program}"',
        f'open -u {target.user}, -p {target.port} sftp://{target.host}',
        *lines,
        'bye',
    ]
    home = {'HOME': str(target.folder), 'LFTP_HOME': str(target.folder / 'lftp')}
    return Command([find_program('lftp'), '-c', '; '.join(script)], environment=home)


def psftp(target: Target, *lines: str) -> Command:
    """PuTTY's sftp client with a batch of lines; it is told the fingerprint of the target's first host key."""
    script = target.folder / 'psftp-batch'
    script.write_text('\n'.join([*lines, 'bye', '']))
    argv = [find_program('psftp'), *_putty_options(target), '-b', str(script), f'{target.user}@{target.host}']
    return Command(argv, environment={'HOME': str(target.folder)})


def pscp(target: Target, *arguments: str) -> Command:
    """PuTTY's scp client, which speaks the old protocol; a remote path is written `remote:PATH`."""
    there = f'{target.user}@{target.host}:'
    paths = [there + path.removeprefix('remote:') if path.startswith('remote:') else path for path in arguments]
    argv = [find_program('pscp'), '-scp', *_putty_options(target), *paths]
    return Command(argv, environment={'HOME': str(target.folder)})


def _putty_options(target: Target) -> list[str]:
    key = target.folder / f'{target.key.name}.ppk'
    if not key.exists():
        convert = [find_program('puttygen'), str(target.key), '-O', 'private', '-o', str(key)]
        run_tool(*convert)
    ask = [find_program('ssh-keygen'), '-lf', str(target.host_key)]
    fingerprint = run_tool(*ask).stdout.split()[1]
    return ['-batch', '-P', str(target.port), '-i', str(key), '-hostkey', fingerprint]


# --- servers ----------------------------------------------------------------------------------------------------------


class ServerProcess:
    """A server in the foreground on a free loopback port, in its own folder; use it as a context manager."""

    def __init__(self, ring: KeyRing, folder: Path, host_keys: Sequence[str]) -> None:
        self._ring = ring
        self._folder = folder
        self._host_keys = [ring.private(f'host-{name}', name) for name in host_keys]
        self._process: subprocess.Popen[bytes] | None = None
        self.target: Target

    @property
    def pid(self) -> int:
        """The process that listens."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server has written so far."""
        return (self._folder / 'log').read_text(errors='replace')

    def processes(self) -> list[int]:
        """Return the server's process and all that it started, its own first."""
        table = run_tool('ps', '-A', '-o', 'pid=,ppid=').stdout
        pairs = [tuple(map(int, line.split())) for line in table.splitlines()]
        found = [self.pid]
        for parent in found:  # grows as children are found
            found += [pid for pid, ppid in pairs if ppid == parent]
        return found

    def command(self, port: int) -> list[str]:
        """Write what the server needs for listening on `port`, and return its command line."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(5):
            port = free_port()
            with (self._folder / 'log').open('wb') as log:
                self._process = subprocess.Popen(
                    self.command(port), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=plain_environment()
                )
            if self._wait_until_it_listens(port):
                break
            # Somebody else may have taken the port meanwhile; anything else is an error at once.
            if 'in use' not in self.log or attempt == 4:
                raise RuntimeError(f'{type(self).__name__} did not start:\n{self.log}')
        public = [Path(f'{path}.pub') for path in self._host_keys]
        self.target = make_target(self._ring, self._folder, port, public)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server and the processes of its connections."""
        assert self._process is not None
        children = self.processes()[1:] if self._process.poll() is None else []
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _wait_until_it_listens(self, port: int) -> bool:
        assert self._process is not None
        give_up = time.monotonic() + START_TIMEOUT
        while self._process.poll() is None and time.monotonic() < give_up:
            try:
                socket.create_connection((LOOPBACK, port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return True
        self.stop()
        return False


class OpenSSHServer(ServerProcess):
    """OpenSSH's sshd; `lines` are put in front of its configuration, as `Ciphers aes128-ctr` or `RekeyLimit 1M`."""

    def __init__(
        self,
        ring: KeyRing,
        folder: Path,
        lines: Sequence[str] = (),
        *,
        host_keys: Sequence[str] = ('ed25519', 'ecdsa-256', 'rsa'),
        sftp_server: str = 'internal-sftp',
        log_level: str = 'INFO',
    ) -> None:
        super().__init__(ring, folder, host_keys)
        self._lines = lines
        self._sftp_server = sftp_server
        self._log_level = log_level

    def command(self, port: int) -> list[str]:
        """Write sshd_config and authorized_keys, and return sshd's command line."""
        sshd = find_program('sshd')
        if os.getuid() == 0:
            Path('/run/sshd').mkdir(mode=0o755, exist_ok=True)  # sshd refuses to start without it
        authorized_keys = self._folder / 'authorized_keys'
        authorized_keys.write_text(self._ring.public('user', 'ed25519').read_text())
        subsystem = self._sftp_server if self._sftp_server == 'internal-sftp' else find_program(self._sftp_server)
        home = self._folder / 'home'
        home.mkdir(exist_ok=True)
        config = [
            *self._lines,
            f'SetEnv HOME={home}',  # the shell of a command must not run the start-up files of whoever runs the tests
            f'ListenAddress {LOOPBACK}:{port}',
            *(f'HostKey {path}' for path in self._host_keys),
            f'AuthorizedKeysFile {authorized_keys}',
            'PidFile none',
            'StrictModes no',
            'UsePAM no',
            'UseDNS no',
            'PrintMotd no',
            'PrintLastLog no',
            'AcceptEnv *',
            'PermitRootLogin yes',
            'PasswordAuthentication no',
            'KbdInteractiveAuthentication no',
            'MaxStartups 1000',
            'MaxSessions 1000',
            f'LogLevel {self._log_level}',
            f'Subsystem sftp {subsystem}',
            *(['PerSourcePenalties no'] if openssh_version() >= (9, 8) else []),
        ]
        (self._folder / 'sshd_config').write_text('\n'.join([*config, '']))
        return [sshd, '-D', '-e', '-f', str(self._folder / 'sshd_config')]
