"""SFTP transfers of one file between the programs of the day: python -m benchmarks.bench_sftp [--quick] [options].

Each round makes every measurement once, in a new random order. A measurement starts a server and a client, connects,
and only then counts: wall time, and the CPU time of all processes of each side, from the word to the last byte. What
arrived is compared by SHA-256 afterwards. A measurement during which the rest of the machine was busy is taken again.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.conditions import conditions
from benchmarks.files import blank, default_folder, digest, make_source, parse_size
from benchmarks.measure import GIB, MIB, Meter, Usage, peak_memory, process_tree
from benchmarks.peers import ROOT, Client, Keys, PeerFailed, Server, missing, start_client, start_server

RESULTS = ROOT / 'benchmarks' / 'results'
QUICK_RESULTS = ROOT / 'build' / 'benchmarks'
SUITES: dict[str, str | None] = {    # cipher: MAC
    'aes128-gcm@openssh.com': None,
    'chacha20-poly1305@openssh.com': None,
    'aes256-gcm@openssh.com': None,
    'aes256-ctr': 'hmac-sha2-256-etm@openssh.com',
}
MAIN_SUITE = 'aes128-gcm@openssh.com'


@dataclass(frozen=True)
class End:
    """One end of a pair: its program, its event loop, what its client's get and put are told."""

    kind: str
    loop: str = 'asyncio'
    transfer_options: dict[str, Any] = field(default_factory=dict)


ENDS = {
    'ssh_fast': End('ssh_fast'),
    'ssh_fast_uvloop': End('ssh_fast', 'uvloop'),
    'openssh': End('openssh'),
    'asyncssh': End('asyncssh'),
    'asyncssh_32k': End('asyncssh', transfer_options={'block_size': 32768}),
    'asyncssh_uvloop': End('asyncssh', 'uvloop'),
}
LIMITS = {'limit': 32768, 'limit_128k': 131072}    # the data in a packet of limit.c, bytes
# Measured with every cipher.
SUITE_PAIRS = ['ssh_fast-ssh_fast', 'ssh_fast-openssh', 'openssh-openssh', 'asyncssh-asyncssh', 'limit']
# Measured with the first one only.
MAIN_PAIRS = [
    'openssh-ssh_fast',
    'asyncssh-openssh',
    'asyncssh_32k-openssh',
    'asyncssh-ssh_fast',
    'limit_128k',
]
# Their clients' memory is also looked at with smaller files.
MEMORY_PAIRS = ['ssh_fast-ssh_fast', 'ssh_fast-openssh']


@dataclass(frozen=True)
class Job:
    """What is measured once a round."""

    pair: str
    cipher: str
    direction: str
    size: int

    def __str__(self) -> str:
        return f'{self.pair} {self.direction} {self.cipher} {self.size // MIB} MiB'


@dataclass
class Measurement:
    """What one transfer took. CPU in seconds a GiB: of the transfer proper, and of the client's whole life."""

    job: Job
    round: int
    mb_per_second: float
    client_cpu: float
    client_cpu_whole: float
    server_cpu: float
    client_peak: float | None    # MiB
    server_peak: float | None
    others: float                # CPUs that the rest of the machine kept busy
    stolen: float                # CPUs that the host took away


class WrongContent(Exception):
    """What arrived is not what was sent."""


class Bench:
    """The files, keys and tools of a run, in one folder that is removed at its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._keys = Keys(folder)
        self._target = folder / 'target'
        self._sources: dict[int, tuple[Path, str]] = {}
        self._limit: Path | None = None

    def _source(self, size: int) -> tuple[Path, str]:
        if size not in self._sources:
            path = self._folder / f'source.{size}'
            self._sources[size] = path, make_source(path, size)

        return self._sources[size]

    def measure(self, job: Job, number: int) -> Measurement:
        _, expected = self._source(job.size)
        measurement = (self._measure_limit if job.pair in LIMITS else self._measure_pair)(job, number)

        if (arrived := digest(self._target)) != expected:
            raise WrongContent(f'{job}: SHA-256 {arrived} arrived, {expected} was sent')

        return measurement

    @contextlib.contextmanager
    def connected(self, job: Job) -> Iterator[tuple[Server, Client, Callable[[], None]]]:
        """Give a server, a client connected to it, and the call that makes the transfer over a blank file."""

        source, _ = self._source(job.size)
        blank(self._target, job.size)
        remote, local = (source, self._target) if job.direction == 'get' else (self._target, source)
        near, far = (ENDS[name] for name in job.pair.split('-'))
        options = (job.cipher, SUITES[job.cipher], near.loop)

        with (
            start_server(far.kind, self._keys, far.loop) as server,
            start_client(near.kind, self._keys, server.port, *options, **near.transfer_options) as client,
        ):
            yield server, client, partial(client.transfer, job.direction, remote, local)

    def _measure_pair(self, job: Job, number: int) -> Measurement:
        with self.connected(job) as (server, client, transfer):
            meter = Meter(client=client.pid, server=server.pid)
            meter.start()
            began = time.perf_counter()
            transfer()
            wall = time.perf_counter() - began
            usage = meter.stop()
            peaks = [peak_memory(process.pid for process in process_tree(end.pid)) / MIB for end in (client, server)]
            client.wait()

            return self._measurement(job, number, wall, usage, client.cpu, peaks)

    def _measure_limit(self, job: Job, number: int) -> Measurement:
        source, _ = self._source(job.size)
        blank(self._target, job.size)
        cipher = job.cipher + (f'+{SUITES[job.cipher]}' if SUITES[job.cipher] else '')
        files = ['-s', str(source), '-t', str(self._target)]
        command = [str(self._build_limit()), job.direction, *files, '-c', cipher, '-p', str(LIMITS[job.pair]), '-j']
        meter = Meter()
        meter.start()
        run = subprocess.run(command, capture_output=True, text=True)
        usage = meter.stop()

        if run.returncode:
            raise PeerFailed(f'{job}: {run.stderr}')

        figures = json.loads(run.stdout)
        gib = job.size / GIB
        wall = job.size / 1e6 / figures['mb_per_second']
        usage.sides = {side: figures[f'{side}_cpu_per_gib'] * gib for side in ('client', 'server')}

        return self._measurement(job, number, wall, usage, usage.sides['client'], [None, None])

    def _measurement(
        self, job: Job, number: int, wall: float, usage: Usage, whole: float, peaks: Sequence[float | None]
    ) -> Measurement:
        gib = job.size / GIB

        return Measurement(
            job=job,
            round=number,
            mb_per_second=job.size / 1e6 / wall,
            client_cpu=usage.sides['client'] / gib,
            client_cpu_whole=whole / gib,
            server_cpu=usage.sides['server'] / gib,
            client_peak=peaks[0],
            server_peak=peaks[1],
            others=usage.others / wall,
            stolen=usage.stolen / wall,
        )

    def _build_limit(self) -> Path:
        if not self._limit:
            self._limit = self._folder / 'limit'
            root = os.environ.get('OPENSSL_DIR')
            flags = [f'-I{root}/include', f'-L{root}/lib', f'-Wl,-rpath,{root}/lib'] if root else []
            source = ROOT / 'benchmarks' / 'limit.c'
            command = [os.environ.get('CC', 'cc'), '-O3', *flags, str(source), '-o', str(self._limit), '-lcrypto']
            run = subprocess.run(command, capture_output=True, text=True)

            if run.returncode:
                raise PeerFailed(f'limit.c does not build:\n{run.stderr}')

        return self._limit


def parse_pair(text: str) -> str:
    if text in LIMITS or (text.count('-') == 1 and all(end in ENDS for end in text.split('-'))):
        return text

    raise argparse.ArgumentTypeError(
        f'{text!r} is no pair: expected CLIENT-SERVER with two of {", ".join(ENDS)}; or one of {", ".join(LIMITS)}'
    )


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='bench_sftp', description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument('--size', type=parse_size, help='of the file; default 1G')
    parser.add_argument('--rounds', type=int, help='default 5')
    parser.add_argument('--pairs', help='client-server,...; default: those of the table')
    parser.add_argument('--ciphers', help=f'default: {",".join(SUITES)}')
    parser.add_argument('--directions', default='get,put')
    parser.add_argument('--dir', type=Path, default=default_folder(), help='for the files; default %(default)s')
    parser.add_argument('--busy', type=float, default=0.1, help='CPUs that others may use; default %(default)s')
    parser.add_argument('--repeats', type=int, help='of a measurement when others are busy; default 10')
    parser.add_argument('--quick', action='store_true', help='64 MiB, one round, no repeats: to see that it works')
    parser.add_argument('--profile', action='store_true', help='show where the first pair spends its time, with perf')
    parser.add_argument('--output', type=Path, help='folder of the results')
    options = parser.parse_args(arguments)
    options.size = options.size or (64 * MIB if options.quick else GIB)
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.repeats = (0 if options.quick else 10) if options.repeats is None else options.repeats
    options.output = options.output or (QUICK_RESULTS if options.quick else RESULTS)
    options.ciphers = options.ciphers.split(',') if options.ciphers else list(SUITES)
    options.directions = options.directions.split(',')

    try:
        options.pairs = [parse_pair(pair) for pair in options.pairs.split(',')] if options.pairs else []
    except argparse.ArgumentTypeError as exc:
        parser.error(str(exc))

    if unknown := set(options.ciphers) - set(SUITES):
        parser.error(f'--ciphers: {", ".join(unknown)} is not one of {", ".join(SUITES)}')

    if unknown := set(options.directions) - {'get', 'put'}:
        parser.error(f'--directions: {", ".join(unknown)} is neither get nor put')

    if options.rounds < 1 or options.repeats < 0:
        parser.error('--rounds is at least 1, --repeats at least 0')

    if shutil.disk_usage(options.dir).free < 2.5 * options.size:
        parser.error(f'--dir {options.dir} has not the room for two files of {options.size // MIB} MiB')

    return options


def plan(options: argparse.Namespace) -> tuple[list[Job], list[str]]:
    """Return what to measure, and for each pair that cannot be measured here a line that says why."""

    jobs, absent = [], []

    for pair in options.pairs or SUITE_PAIRS + MAIN_PAIRS:
        ends = [] if pair in LIMITS else pair.split('-')
        why = [missing(ENDS[end].kind, role) for end, role in zip(ends, ('client', 'server'), strict=False)]

        if reasons := [reason for reason in why if reason]:
            absent.append(f'{pair} is not measured: {reasons[0]}')
            continue

        ciphers = options.ciphers if options.pairs or pair in SUITE_PAIRS else options.ciphers[:1]
        jobs += [Job(pair, cipher, way, options.size) for cipher in ciphers for way in options.directions]

        if pair in MEMORY_PAIRS:
            sizes = [size for size in (options.size // 16, options.size // 4) if size >= MIB]
            jobs += [Job(pair, options.ciphers[0], way, size) for size in sizes for way in options.directions]

    return jobs, absent


class Run:
    """All rounds: the measurements that count, how many were taken again, which pairs failed."""

    def __init__(self, bench: Bench, options: argparse.Namespace) -> None:
        self._bench = bench
        self._options = options
        self.measurements: list[Measurement] = []
        self.repeated = 0
        self.kept_busy = 0
        self.failures: dict[str, str] = {}

    def measure_round(self, number: int, jobs: list[Job]) -> None:
        for job in random.sample(jobs, len(jobs)):
            if job.pair in self.failures:
                continue

            try:
                measurement = self._measure_quietly(job, number)
            except (PeerFailed, WrongContent) as exc:
                self.failures[job.pair] = str(exc)
                print(f'  {job}: FAILED: {exc}', flush=True)
                continue

            self.measurements.append(measurement)
            print(
                f'  {job}: {measurement.mb_per_second:.0f} MB/s, CPU s/GiB client {measurement.client_cpu_whole:.2f} '
                f'({measurement.client_cpu:.2f} transferring), server {measurement.server_cpu:.2f}',
                flush=True,
            )

    def _measure_quietly(self, job: Job, number: int) -> Measurement:
        """Measure until the others are quiet; when they never are, keep the time when they were quietest."""

        taken: list[Measurement] = []

        while True:
            measurement = self._bench.measure(job, number)
            taken.append(measurement)

            if measurement.others + measurement.stolen <= self._options.busy:
                return measurement

            if len(taken) > self._options.repeats:
                self.kept_busy += 1

                return min(taken, key=lambda one: one.others + one.stolen)

            self.repeated += 1
            time.sleep(1)

    def save(self, path: Path, about: dict[str, str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            'conditions': about,
            'size': self._options.size,
            'busy': self._options.busy,
            'repeated': self.repeated,
            'kept_busy': self.kept_busy,
            'failures': self.failures,
            'measurements': [asdict(one) for one in self.measurements],
        }
        path.write_text(json.dumps(content, indent=1) + '\n')


def _stop(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main(arguments: list[str] | None = None) -> int:
    options = parse_options(arguments)
    signal.signal(signal.SIGTERM, _stop)
    jobs, absent = plan(options)

    for line in absent:
        print(line)

    with tempfile.TemporaryDirectory(prefix='bench_sftp.', dir=options.dir) as name, contextlib.ExitStack() as stack:
        folder = Path(name)

        if options.profile:
            from benchmarks.profiling import profile_pair

            return profile_pair(Bench(folder), (options.pairs or SUITE_PAIRS)[0], options)

        about = conditions(options.dir)
        run = Run(Bench(folder), options)
        path = options.output / 'sftp.json'
        stack.callback(lambda: run.failures and print('Failed:', *run.failures))

        for number in range(1, options.rounds + 1):
            print(f'round {number} of {options.rounds}', flush=True)
            run.measure_round(number, jobs)
            run.save(path, about | {'load at the end': ' '.join(f'{load:.2f}' for load in os.getloadavg())})

    if run.measurements:
        from benchmarks.report import write_report

        write_report(path)

    return 1 if run.failures else 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
