"""Many files, single requests and long links of the programs of the day: python -m benchmarks files [options].

Each round makes every measurement once, in a new random order, with a server and a client started for it. The libraries
are connected before they are measured; `sftp`, lftp and rclone are measured from their start to their end, with what it
takes them to connect, as `ssh` is in `channel`. Trees and files are compared with their sources afterwards.
"""

import argparse
import contextlib
import filecmp
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.conditions import conditions
from benchmarks.files import default_folder, digest, make_source, parse_size
from benchmarks.measure import MIB, Meter
from benchmarks.peers import (
    START_TIMEOUT,
    Keys,
    OpenSSHServer,
    PeerFailed,
    Program,
    Server,
    connect_options,
    missing,
    openssh_flags,
    start_server,
)
from benchmarks.rounds import (
    CIPHER,
    QUICK_RESULTS,
    RESULTS,
    SSHD_SETTINGS,
    Measurement,
    Run,
    WorkClient,
    WrongContent,
    choose,
    plan,
    stop,
)

FILE_SIZE = 4096
AT_ONCE = 64
FILES_IN_A_DIRECTORY = 10    # of the tree that is removed
PROGRAMS = ('openssh', 'lftp', 'rclone')    # clients that are not libraries

_OWN = ('ssh_fast-ssh_fast', 'asyncssh-asyncssh')
_LIBRARIES = ('ssh_fast-openssh', 'asyncssh-openssh', *_OWN)
_TREES = ('ssh_fast-openssh', 'openssh-openssh', 'asyncssh-openssh', 'lftp-openssh', 'rclone-openssh', *_OWN)
_LINKS = ('ssh_fast-openssh', 'openssh-openssh', 'asyncssh-openssh', *_OWN)


@dataclass(frozen=True)
class Work:
    """Something that is measured: between which pairs, CLIENT-SERVER, on what, and what the client is told for it."""

    name: str
    pairs: tuple[str, ...]
    make_job: Callable[['Bench'], dict[str, Any]]
    ready: Callable[['Bench'], None] = lambda bench: None      # before the client starts
    check: Callable[['Bench'], None] = lambda bench: None      # what it did
    is_link: bool = False


class Bench:
    """The files and keys of a run, in one folder that is removed at its end."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.options = options
        self.tree = folder / 'tree'
        self.copy = folder / 'copy'
        self.doomed = folder / 'doomed'
        self.entries = folder / 'entries'
        self.file = folder / 'file'
        self.arrived = folder / 'arrived'
        self._keys = Keys(folder)
        self._digest = ''
        wanted = set(options.works)

        if wanted & {'get_tree', 'put_tree'}:
            fill(self.tree, options.files)

        if 'scandir' in wanted:
            self.entries.mkdir()

            for number in range(options.entries):
                os.close(os.open(self.entries / f'entry-{number:06}', os.O_CREAT | os.O_WRONLY))

        if wanted & {'stat_sequential', 'stat_64_at_once', 'read_4k_at_random', 'link_get', 'link_put'}:
            self._digest = make_source(self.file, options.size)

    # --- what works need, and leave

    def remove_copy(self) -> None:
        """Have nothing where a tree is going to be copied to."""

        shutil.rmtree(self.copy, ignore_errors=True)

    def fill_doomed(self) -> None:
        """Make the tree that is to be removed."""

        shutil.rmtree(self.doomed, ignore_errors=True)

        for number in range(self.options.removes // FILES_IN_A_DIRECTORY):
            fill(self.doomed / f'directory-{number:05}', FILES_IN_A_DIRECTORY, 0)

    def check_copy(self) -> None:
        """Compare the copied tree with its source."""

        names = sorted(os.listdir(self.tree))

        if sorted(os.listdir(self.copy)) != names:
            raise WrongContent(f'{len(os.listdir(self.copy))} files instead of {len(names)}')

        _, different, failed = filecmp.cmpfiles(self.tree, self.copy, names, shallow=False)

        if different or failed:
            raise WrongContent(f'{len(different) + len(failed)} files are not as they were')

    def check_removed(self) -> None:
        """See that the tree is gone."""

        if self.doomed.exists():
            raise WrongContent('the tree is still there')

    def check_arrived(self) -> None:
        """Compare the copied file with its source."""

        if digest(self.arrived) != self._digest:
            raise WrongContent('another file arrived')

        self.arrived.unlink()

    # --- measuring

    def measure(self, work: Work, pair: str, number: int) -> Measurement:
        """Start a server and a client, have the client do the work, and end both."""

        client, server_kind = pair.split('-')
        work.ready(self)

        with self._start_server(server_kind) as server, contextlib.ExitStack() as stack:
            port = stack.enter_context(relay(server.port, self.options)) if work.is_link else server.port
            job = {'work': work.name.removeprefix('link_')} | work.make_job(self)

            if client in PROGRAMS:
                measurement = self._measure_program(work, pair, number, self._command(client, port, job), server.pid)
            else:
                measurement = self._measure_library(work, pair, number, port, job, server.pid)

        work.check(self)

        return measurement

    def _start_server(self, kind: str) -> Server:
        if kind == 'openssh':
            return OpenSSHServer(self._keys, SSHD_SETTINGS)

        return start_server(kind, self._keys, self.options.loop)

    def _measure_library(
        self, work: Work, pair: str, number: int, port: int, job: dict[str, Any], server: int
    ) -> Measurement:
        module = pair.split('-')[0]

        connect = connect_options(self._keys, port, CIPHER)
        options = {'port': port, 'loop': self.options.loop, 'connect': connect}

        with WorkClient(module, 'files_worker', options) as client:
            meter = Meter(client=client.pid, server=server)
            meter.start()
            extra = client.work(job)
            usage = meter.stop()
            client.wait()

        wall, cpu = extra.pop('wall'), extra.pop('cpu')

        if 'entries' in extra and extra['entries'] != self.options.entries + 2:
            raise WrongContent(f'{extra["entries"]} entries instead of {self.options.entries} and two')

        return Measurement(
            work.name, pair, number, wall, cpu, client.cpu, usage.sides['server'], usage.others / wall,
            usage.stolen / wall, extra,
        )

    def _measure_program(self, work: Work, pair: str, number: int, command: list[str], server: int) -> Measurement:
        meter = Meter(server=server)
        meter.start()
        began = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        usage = meter.stop()

        if process.returncode:
            raise PeerFailed(f'{work.name} {pair}: {command[0]} exited with status {process.returncode}')

        cpu = used.ru_utime + used.ru_stime
        others = max(0.0, usage.others - cpu)

        return Measurement(
            work.name, pair, number, wall, cpu, cpu, usage.sides['server'], others / wall, usage.stolen / wall
        )

    def _command(self, client: str, port: int, job: dict[str, Any]) -> list[str]:
        """Return how a program is told to copy."""

        is_get = job['work'] in ('get', 'get_tree')
        names = [job['remote'], job['local']] if is_get else [job['local'], job['remote']]
        user, flags = self._keys.user, openssh_flags(self._keys, port, CIPHER)

        if client == 'openssh':
            batch = self._keys.folder / 'batch'
            recurse = ' -r' if job['recurse'] else ''
            batch.write_text(f'{"get" if is_get else "put"}{recurse} {shlex.join(names)}\n')

            return ['sftp', *flags, '-P', str(port), '-b', str(batch), f'{user}@127.0.0.1']

        if client == 'lftp':
            ssh = shlex.join(['ssh', '-a', '-x', *flags])
            reverse = '' if is_get else '-R '
            script = (
                f'set cmd:fail-exit yes; set net:max-retries 1; set sftp:connect-program "{ssh}"; '
                f'set net:connection-limit 16; open -u {user}, -p {port} sftp://127.0.0.1; '
                f'mirror {reverse}--parallel=16 {names[0]} {names[1]}; bye'
            )

            return ['lftp', '-c', script]

        where = (
            f':sftp,host=127.0.0.1,port={port},user={user},key_file="{self._keys.user_key}",'
            f'known_hosts_file="{self._keys.known_hosts(port)}",shell_type=none:'
        )
        places = [where + names[0], names[1]] if is_get else [names[0], where + names[1]]

        return ['rclone', '--config=', 'copy', '--transfers=16', '--checkers=16', '--no-traverse', *places]


def fill(folder: Path, files: int, size: int = FILE_SIZE) -> None:
    """Make a folder with files of random content."""

    folder.mkdir(parents=True)

    for number in range(files):
        (folder / f'file-{number:06}').write_bytes(os.urandom(size))


@contextlib.contextmanager
def relay(port: int, options: argparse.Namespace) -> Iterator[int]:
    """Put a long link before a port; gives the one to connect to."""

    command = [sys.executable, '-m', 'benchmarks.link_relay', str(port), str(options.delay / 2), str(options.rate)]

    with Program('the relay', command) as program:
        yield int(program.hear(r'\d+', START_TIMEOUT)[0])


WORKS = [
    Work(
        'get_tree',
        _TREES,
        lambda bench: {'work': 'get', 'remote': str(bench.tree), 'local': str(bench.copy), 'recurse': True},
        Bench.remove_copy,
        Bench.check_copy,
    ),
    Work(
        'put_tree',
        _TREES,
        lambda bench: {'work': 'put', 'remote': str(bench.copy), 'local': str(bench.tree), 'recurse': True},
        Bench.remove_copy,
        Bench.check_copy,
    ),
    Work('scandir', _LIBRARIES, lambda bench: {'remote': str(bench.entries)}),
    Work('rmtree', _LIBRARIES, lambda bench: {'remote': str(bench.doomed)}, Bench.fill_doomed, Bench.check_removed),
    Work(
        'stat_sequential',
        _LIBRARIES,
        lambda bench: {'work': 'stat', 'remote': str(bench.file), 'count': bench.options.requests, 'many': 1},
    ),
    Work(
        'stat_64_at_once',
        _LIBRARIES,
        lambda bench: {'work': 'stat', 'remote': str(bench.file), 'count': bench.options.requests, 'many': AT_ONCE},
    ),
    Work(
        'read_4k_at_random',
        _OWN,
        lambda bench: {
            'work': 'read_random', 'remote': str(bench.file), 'count': bench.options.requests, 'many': AT_ONCE,
            'size': bench.options.size,
        },
    ),
    Work(
        'link_get',
        _LINKS,
        lambda bench: {'remote': str(bench.file), 'local': str(bench.arrived), 'recurse': False},
        check=Bench.check_arrived,
        is_link=True,
    ),
    Work(
        'link_put',
        _LINKS,
        lambda bench: {'remote': str(bench.arrived), 'local': str(bench.file), 'recurse': False},
        check=Bench.check_arrived,
        is_link=True,
    ),
]


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""

    names = [work.name for work in WORKS]
    parser = argparse.ArgumentParser(prog='benchmarks files', description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--works', help=f'some of: {",".join(names)}; default: all')
    parser.add_argument('--pairs', help='only these, CLIENT-SERVER,...')
    parser.add_argument('--rounds', type=int, help='default 5')
    parser.add_argument('--files', type=int, help='of 4 KiB in the tree that is copied; default 5000')
    parser.add_argument('--entries', type=int, help='of the directory that is listed; default 100000')
    parser.add_argument('--removes', type=int, help='files in the tree that is removed; default 10000')
    parser.add_argument('--requests', type=int, help='of stat and of read; default 10000')
    parser.add_argument('--size', type=parse_size, help='of the file that goes over the long link; default 256M')
    parser.add_argument('--delay', type=float, default=0.1, help='of a round trip, seconds; default %(default)s')
    parser.add_argument('--rate', type=float, default=125e6, help='of the link, bytes a second; default %(default)g')
    parser.add_argument('--loop', choices=('asyncio', 'uvloop'), default='asyncio', help="of the libraries' processes")
    parser.add_argument('--dir', type=Path, default=default_folder(), help='for the files; default %(default)s')
    parser.add_argument('--busy', type=float, default=0.1, help='CPUs that others may use; default %(default)s')
    parser.add_argument('--repeats', type=int, help='of a measurement when others are busy; default 5')
    parser.add_argument('--quick', action='store_true', help='small, one round, no repeats: to see that it works')
    parser.add_argument('--output', type=Path, help='folder of the results')
    options = parser.parse_args(arguments)
    full = {
        'rounds': 5, 'files': 5000, 'entries': 100_000, 'removes': 10_000, 'requests': 10_000, 'size': 256 * MIB,
        'repeats': 5, 'output': RESULTS,
    }
    quick = {
        'rounds': 1, 'files': 200, 'entries': 2000, 'removes': 200, 'requests': 500, 'size': 16 * MIB, 'repeats': 0,
        'output': QUICK_RESULTS,
    }

    for name, value in (quick if options.quick else full).items():
        if getattr(options, name) is None:
            setattr(options, name, value)

    choose(parser, options, WORKS)

    if min(options.rounds, options.files, options.entries, options.removes, options.requests) < 1:
        parser.error('--rounds, --files, --entries, --removes and --requests are at least 1')

    return options


def absent(kind: str, role: str) -> str | None:
    """Say what is missing to measure an end of this kind, or None."""

    if kind in ('lftp', 'rclone'):
        return None if shutil.which(kind) else f'{kind} is not installed'

    return missing(kind, role)


def main(arguments: list[str] | None = None) -> int:
    """Measure, and write the results; the exit status is 1 if something failed."""

    options = parse_options(arguments)
    signal.signal(signal.SIGTERM, stop)
    cases, left_out = plan(WORKS, options, absent)

    for line in left_out:
        print(line)

    names = ('files', 'entries', 'removes', 'requests', 'size', 'delay', 'rate', 'loop', 'busy')
    path = options.output / 'files.json'

    with tempfile.TemporaryDirectory(prefix='bench_files.', dir=options.dir) as name:
        run = Run(Bench(Path(name), options), options, names)
        run.measure_all(cases, path, conditions(options.dir))

    from benchmarks.files_report import write_report

    return run.report(write_report, path)


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
