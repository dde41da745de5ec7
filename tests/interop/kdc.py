"""MIT's Kerberos KDC for a realm of its own, on a free loopback port and in a temporary folder."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.interop.peers import LOOPBACK, START_TIMEOUT, find_program, free_port, plain_environment

REALM = 'SSH.TEST'
HOST = 'localhost'
PASSWORD = 'not a secret'


class KDC:
    """A running KDC; `environment` is what makes Kerberos programs and libraries use it, and nothing else."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.keytab = folder / 'host.keytab'
        self.environment = {
            'KRB5_CONFIG': str(folder / 'krb5.conf'),
            'KRB5_KDC_PROFILE': str(folder / 'kdc.conf'),
            'KRB5_KTNAME': str(self.keytab),
            'KRB5CCNAME': f'FILE:{folder / "no-tickets"}',
            'KRB5RCACHETYPE': 'none',
        }
        self._process: subprocess.Popen[bytes] | None = None

    def write_configuration(self) -> None:
        address = f'{LOOPBACK}:{self.port}'
        (self.folder / 'krb5.conf').write_text(
            f'[libdefaults]\n default_realm = {REALM}\n dns_lookup_kdc = false\n dns_lookup_realm = false\n'
            f' rdns = false\n dns_canonicalize_hostname = false\n udp_preference_limit = 1\n forwardable = true\n'
            f'[realms]\n {REALM} = {{\n  kdc = {address}\n }}\n[domain_realm]\n {HOST} = {REALM}\n'
        )
        (self.folder / 'kdc.conf').write_text(
            f'[kdcdefaults]\n kdc_listen = {address}\n kdc_tcp_listen = {address}\n'
            f'[realms]\n {REALM} = {{\n  database_name = {self.folder / "principal"}\n'
            f'  key_stash_file = {self.folder / "stash"}\n  max_life = 1h\n }}\n'
            f'[logging]\n kdc = FILE:{self.folder / "kdc.log"}\n'
        )

    def run(self, *argv: str, stdin: str = '', environment: dict[str, str] | None = None) -> None:
        subprocess.run(
            [find_program(argv[0]), *argv[1:]],
            input=stdin,
            text=True,
            check=True,
            capture_output=True,
            timeout=60,
            env={**plain_environment(), **self.environment, **(environment or {})},
        )

    def add_host(self, host: str, keytab: Path) -> None:
        """Make a service's key and put it into a keytab."""
        self.run('kadmin.local', 'addprinc', '-randkey', f'host/{host}')
        self.run('kadmin.local', 'ktadd', '-k', str(keytab), f'host/{host}')

    def add_user(self, user: str) -> None:
        self.run('kadmin.local', 'addprinc', '-pw', PASSWORD, user)

    def tickets(self, user: str, lifetime: str = '30m') -> str:
        """Log a user in, and return the name of the cache with the tickets."""
        cache = f'FILE:{self.folder / f"tickets-{user}-{lifetime}"}'
        self.run('kinit', '-f', '-l', lifetime, user, stdin=f'{PASSWORD}\n', environment={'KRB5CCNAME': cache})
        return cache

    def start(self) -> None:
        log = (self.folder / 'log').open('wb')
        with log:
            self._process = subprocess.Popen(
                [find_program('krb5kdc'), '-n', '-r', REALM],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**plain_environment(), **self.environment},
            )
        give_up = time.monotonic() + START_TIMEOUT
        while time.monotonic() < give_up and self._process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection((LOOPBACK, self.port), 1).close()
                return
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f'The KDC did not start:\n{(self.folder / "log").read_text()}')

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let the KDC answer nobody until the block ends."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def running_kdc(folder: Path) -> Iterator[KDC]:
    """A KDC with a key for this host in its keytab, until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    kdc = KDC(folder, free_port())
    kdc.write_configuration()
    kdc.run('kdb5_util', '-r', REALM, 'create', '-s', '-P', PASSWORD)
    kdc.add_host(HOST, kdc.keytab)
    os.chmod(kdc.keytab, 0o600)
    kdc.start()
    try:
        yield kdc
    finally:
        kdc.stop()
