"""Commands, streams and connections of the programs of the day: python -m benchmarks channel [--quick] [options].

Each round makes every measurement once, in a new random order, with a server and a client started for it. Counted are
the wall time of the work, the CPU time of the client while it works and of its whole life (wait4), and the CPU time of
the server while the client works. What is transferred to files is compared by SHA-256 afterwards.
"""

import argparse
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.conditions import conditions
from benchmarks.files import blank, default_folder, digest, make_source, parse_size
from benchmarks.measure import GIB, MIB, Meter
from benchmarks.peers import (
    ROOT,
    START_TIMEOUT,
    Keys,
    OpenSSHServer,
    PeerFailed,
    Program,
    Server,
    connect_options,
    listen_options,
    missing,
    openssh_flags,
    worker,
)

RESULTS = ROOT / 'benchmarks' / 'results'
QUICK_RESULTS = ROOT / 'build' / 'benchmarks'
CIPHER = 'aes128-gcm@openssh.com'
WORK_TIMEOUT = 900.0

# sshd would turn many clients at once away, which is not what is measured.
SSHD_SETTINGS = 'MaxStartups 500:30:1000\nMaxSessions 1000\n'


@dataclass(frozen=True)
class Work:
    """Something that is measured: between which pairs, CLIENT-SERVER, and what the client is told for it."""

    name: str
    pairs: tuple[str, ...]
    make_job: Callable[['Bench'], dict[str, Any]]
    to_file: bool = False            # what arrives in the target is compared with the source
    connected: bool = True           # the client is connected before the work begins
    shell: str = ''                  # what OpenSSH's ssh runs, with its redirections

    @property
    def size_matters(self) -> bool:
        """Whether it moves the file, so that CPU time is counted a GiB."""

        return bool(self.shell)


@dataclass
class Measurement:
    """What one work took: seconds, of CPU too; `server_cpu` is that of the whole tree of processes."""

    work: str
    pair: str
    round: int
    wall: float
    client_cpu: float
    client_cpu_whole: float
    server_cpu: float
    others: float                                          # CPUs that the rest of the machine kept busy
    stolen: float                                          # CPUs that the host took away
    extra: dict[str, Any] = field(default_factory=dict)    # what the client measured beside


_BULK = ('ssh_fast-openssh', 'openssh-openssh', 'asyncssh-openssh')
_FILES = ('ssh_fast-ssh_fast', 'openssh-openssh', 'asyncssh-asyncssh')
_OWN = ('ssh_fast-ssh_fast', 'asyncssh-asyncssh')
_LINES = ('ssh_fast-openssh', 'asyncssh-openssh')
_CONNECT = (
    'ssh_fast-openssh', 'asyncssh-openssh', 'ssh_fast-ssh_fast', 'asyncssh-ssh_fast', 'asyncssh-asyncssh',
)

WORKS = [
    Work(
        'receive',
        _BULK,
        lambda bench: {'path': str(bench.source)},
        shell='{ssh} cat {source} > /dev/null',
    ),
    Work(
        'send',
        _BULK,
        lambda bench: {'path': str(bench.source)},
        shell="{ssh} 'cat > /dev/null' < {source}",
    ),
    Work(
        'receive_file',
        _FILES,
        lambda bench: {'command': f'send {bench.source}', 'target': str(bench.target)},
        to_file=True,
        shell='{ssh} cat {source} 1<> {target}',
    ),
    Work(
        'send_file',
        _FILES,
        lambda bench: {'command': f'keep {bench.target}', 'source': str(bench.source)},
        to_file=True,
        shell="{ssh} 'cat 1<> {target}' < {source}",
    ),
    Work('run_sequential', _OWN, lambda bench: {'work': 'run', 'count': bench.options.runs, 'at_once': 1}),
    Work('run_100_at_once', _OWN, lambda bench: {'work': 'run', 'count': bench.options.runs, 'at_once': 100}),
    Work(
        'lines_text_iterated',
        _LINES,
        lambda bench: {'work': 'lines', 'path': str(bench.lines), 'text': True, 'way': 'iterate'},
    ),
    Work(
        'lines_bytes_readline',
        _LINES,
        lambda bench: {'work': 'lines', 'path': str(bench.lines), 'text': False, 'way': 'readline'},
    ),
    Work(
        'channels',
        _OWN,
        lambda bench: {
            'count': bench.options.channels // bench.options.parts,
            'at_once': bench.options.at_once,
            'rounds': bench.options.parts,
        },
    ),
    Work(
        'connect_sequential',
        _CONNECT,
        lambda bench: {'work': 'connect', 'count': bench.options.connects, 'at_once': 1},
        connected=False,
    ),
    Work(
        'connect_50_at_once',
        _CONNECT,
        lambda bench: {'work': 'connect', 'count': bench.options.connects, 'at_once': 50},
        connected=False,
    ),
]


class LibraryServer(Server):
    """A server by ssh_fast or AsyncSSH that runs the commands of `channel_worker.handle`."""

    def __init__(self, module: str, keys: Keys, loop: str) -> None:
        listen = listen_options(keys)

        if module == 'ssh_fast':
            listen['max_sessions'] = 2000    # AsyncSSH has no bound

        options = {'port': 0, 'loop': loop, 'listen': listen}
        super().__init__(f'{module} server', worker('server', module, options, 'channel_worker'))

        try:
            self.port = int(self.hear(r'\d+', START_TIMEOUT)[0])
        except BaseException:
            self.end()
            raise


class LibraryClient(Program):
    """A client by ssh_fast or AsyncSSH that does the works of `channel_worker.Client`."""

    def __init__(self, module: str, keys: Keys, port: int, loop: str, connected: bool) -> None:
        options = {'port': port, 'loop': loop, 'connect': connect_options(keys, port, CIPHER), 'connected': connected}
        super().__init__(f'{module} client', worker('client', module, options, 'channel_worker'))

        try:
            self.hear('ready', START_TIMEOUT)
        except BaseException:
            self.end()
            raise

    def work(self, job: dict[str, Any]) -> dict[str, Any]:
        """Have it do a work, and return what it measured."""

        self.say(json.dumps(job))
        found: dict[str, Any] = json.loads(self.hear(r'done (.*)', WORK_TIMEOUT)[1])

        return found


class WrongContent(Exception):
    """What arrived is not what was sent."""


class Bench:
    """The files and keys of a run, in one folder that is removed at its end."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.options = options
        self.source = folder / 'source'
        self.target = folder / 'target'
        self.lines = folder / 'lines'
        self._keys = Keys(folder)
        self._digest = make_source(self.source, options.size)
        self.lines.write_text(''.join(f'line {number}\n' for number in range(options.lines)))

    def measure(self, work: Work, pair: str, number: int) -> Measurement:
        """Start a server and a client, have the client do the work, and end both."""

        client_kind, server_kind = pair.split('-')

        if work.to_file:
            blank(self.target, self.options.size)

        with self._start_server(server_kind) as server:
            measure = self._measure_openssh if client_kind == 'openssh' else self._measure_library
            measurement = measure(work, pair, number, server)

        if work.to_file and (arrived := digest(self.target)) != self._digest:
            raise WrongContent(f'{work.name} {pair}: SHA-256 {arrived} arrived, {self._digest} was sent')

        return measurement

    def _start_server(self, kind: str) -> Server:
        if kind == 'openssh':
            return OpenSSHServer(self._keys, SSHD_SETTINGS)

        return LibraryServer(kind, self._keys, self.options.loop)

    def _measure_library(self, work: Work, pair: str, number: int, server: Server) -> Measurement:
        module = pair.split('-')[0]

        with LibraryClient(module, self._keys, server.port, self.options.loop, work.connected) as client:
            meter = Meter(client=client.pid, server=server.pid)
            meter.start()
            extra = client.work({'work': work.name} | work.make_job(self))
            usage = meter.stop()
            client.wait()

        wall, cpu = extra.pop('wall'), extra.pop('cpu')
        self._check(work, extra)

        return Measurement(
            work.name, pair, number, wall, cpu, client.cpu, usage.sides['server'], usage.others / wall,
            usage.stolen / wall, extra,
        )

    def _measure_openssh(self, work: Work, pair: str, number: int, server: Server) -> Measurement:
        """Time one run of `ssh` by a shell that becomes it; connecting and logging in are a part of it."""

        where = f'{self._keys.user}@127.0.0.1'
        ssh = shlex.join(['ssh', *openssh_flags(self._keys, server.port, CIPHER), '-p', str(server.port), where])
        command = 'exec ' + work.shell.format(ssh=ssh, source=self.source, target=self.target)
        meter = Meter(server=server.pid)
        meter.start()
        began = time.perf_counter()
        process = subprocess.Popen(['sh', '-c', command], stdin=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        usage = meter.stop()

        if process.returncode:
            raise PeerFailed(f'{work.name} {pair}: ssh exited with status {process.returncode}')

        cpu = used.ru_utime + used.ru_stime
        others = max(0.0, usage.others - cpu)

        return Measurement(
            work.name, pair, number, wall, cpu, cpu, usage.sides['server'], others / wall, usage.stolen / wall
        )

    def _check(self, work: Work, extra: dict[str, Any]) -> None:
        expected = {'bytes': self.options.size, 'lines': self.options.lines}

        for name in expected.keys() & extra.keys():
            if extra[name] != expected[name]:
                raise WrongContent(f'{work.name}: {extra[name]} {name} instead of {expected[name]}')


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""

    names = [work.name for work in WORKS]
    parser = argparse.ArgumentParser(prog='benchmarks channel', description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--works', help=f'some of: {",".join(names)}; default: all')
    parser.add_argument('--pairs', help='only these, CLIENT-SERVER,...')
    parser.add_argument('--rounds', type=int, help='default 5')
    parser.add_argument('--size', type=parse_size, help='of the file; default 1G')
    parser.add_argument('--lines', type=int, help='default 1000000')
    parser.add_argument('--runs', type=int, help='of the command `true`; default 5000')
    parser.add_argument('--channels', type=int, help='opened, used and closed; default 10000')
    parser.add_argument('--at-once', type=int, help='channels that are open together; default 1000')
    parser.add_argument('--connects', type=int, help='default 200')
    parser.add_argument('--loop', choices=('asyncio', 'uvloop'), default='asyncio', help="of the libraries' processes")
    parser.add_argument('--dir', type=Path, default=default_folder(), help='for the files; default %(default)s')
    parser.add_argument('--busy', type=float, default=0.1, help='CPUs that others may use; default %(default)s')
    parser.add_argument('--repeats', type=int, help='of a measurement when others are busy; default 5')
    parser.add_argument('--quick', action='store_true', help='small, one round, no repeats: to see that it works')
    parser.add_argument('--output', type=Path, help='folder of the results')
    options = parser.parse_args(arguments)
    full = {
        'rounds': 5, 'size': GIB, 'lines': 1_000_000, 'runs': 5000, 'channels': 10_000, 'at_once': 1000,
        'connects': 200, 'repeats': 5, 'output': RESULTS,
    }
    quick = {
        'rounds': 1, 'size': 64 * MIB, 'lines': 100_000, 'runs': 500, 'channels': 1000, 'at_once': 100,
        'connects': 50, 'repeats': 0, 'output': QUICK_RESULTS,
    }

    for name, value in (quick if options.quick else full).items():
        if getattr(options, name) is None:
            setattr(options, name, value)

    options.works = options.works.split(',') if options.works else names
    options.pairs = options.pairs.split(',') if options.pairs else []
    options.parts = 10    # the channels are opened in so many parts, each timed by itself

    if unknown := set(options.works) - set(names):
        parser.error(f'--works: {", ".join(sorted(unknown))} is not one of {", ".join(names)}')

    if unknown := set(options.pairs) - {pair for work in WORKS for pair in work.pairs}:
        parser.error(f'--pairs: {", ".join(sorted(unknown))} is not measured')

    if min(options.rounds, options.lines, options.runs, options.connects) < 1 or options.repeats < 0:
        parser.error('--rounds, --lines, --runs and --connects are at least 1, --repeats at least 0')

    if options.at_once < 1 or options.channels % (options.parts * options.at_once):
        parser.error(f'--channels must be a multiple of {options.parts} times --at-once')

    return options


def plan(options: argparse.Namespace) -> tuple[list[tuple[Work, str]], list[str]]:
    """Return what to measure, and for each pair that cannot be measured here a line that says why."""

    cases = [
        (work, pair)
        for work in WORKS
        if work.name in options.works
        for pair in work.pairs
        if not options.pairs or pair in options.pairs
    ]
    absent = {}

    for pair in dict.fromkeys(pair for _, pair in cases):
        why = [missing(kind, role) for kind, role in zip(pair.split('-'), ('client', 'server'), strict=True)]

        if reasons := [reason for reason in why if reason]:
            absent[pair] = f'{pair} is not measured: {reasons[0]}'

    return [(work, pair) for work, pair in cases if pair not in absent], list(absent.values())


class Run:
    """All rounds: the measurements that count, how many were taken again, what failed."""

    def __init__(self, bench: Bench, options: argparse.Namespace) -> None:
        self._bench = bench
        self._options = options
        self.measurements: list[Measurement] = []
        self.repeated = 0
        self.kept_busy = 0
        self.failures: dict[str, str] = {}

    def measure_round(self, number: int, cases: Sequence[tuple[Work, str]]) -> None:
        """Measure every case once."""

        for work, pair in random.sample(cases, len(cases)):
            case = f'{work.name} {pair}'

            if case in self.failures:
                continue

            try:
                measurement = self._measure_quietly(work, pair, number)
            except (PeerFailed, WrongContent) as exc:
                self.failures[case] = str(exc)
                print(f'  {case}: FAILED: {exc}', flush=True)
                continue

            self.measurements.append(measurement)
            print(
                f'  {case}: {measurement.wall:.3f} s, CPU client {measurement.client_cpu:.3f} '
                f'({measurement.client_cpu_whole:.3f} from start to end), server {measurement.server_cpu:.3f}',
                flush=True,
            )

    def _measure_quietly(self, work: Work, pair: str, number: int) -> Measurement:
        """Measure until the others are quiet; when they never are, keep the time when they were quietest."""

        taken: list[Measurement] = []

        while True:
            measurement = self._bench.measure(work, pair, number)
            taken.append(measurement)

            if measurement.others + measurement.stolen <= self._options.busy:
                return measurement

            if len(taken) > self._options.repeats:
                self.kept_busy += 1

                return min(taken, key=lambda one: one.others + one.stolen)

            self.repeated += 1
            time.sleep(1)

    def save(self, path: Path, about: dict[str, str]) -> None:
        """Write what there is."""

        path.parent.mkdir(parents=True, exist_ok=True)
        names = ('size', 'lines', 'runs', 'channels', 'at_once', 'parts', 'connects', 'loop', 'busy')
        content = {
            'conditions': about,
            'options': {name: getattr(self._options, name) for name in names},
            'cipher': CIPHER,
            'repeated': self.repeated,
            'kept_busy': self.kept_busy,
            'failures': self.failures,
            'measurements': [asdict(one) for one in self.measurements],
        }
        path.write_text(json.dumps(content, indent=1) + '\n')


def _stop(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main(arguments: list[str] | None = None) -> int:
    """Measure, and write the results; the exit status is 1 if something failed."""

    options = parse_options(arguments)
    signal.signal(signal.SIGTERM, _stop)
    cases, absent = plan(options)

    for line in absent:
        print(line)

    with tempfile.TemporaryDirectory(prefix='bench_channel.', dir=options.dir) as name:
        about = conditions(options.dir)
        run = Run(Bench(Path(name), options), options)
        path = options.output / 'channel.json'

        for number in range(1, options.rounds + 1):
            print(f'round {number} of {options.rounds}', flush=True)
            run.measure_round(number, cases)
            run.save(path, about | {'load at the end': ' '.join(f'{load:.2f}' for load in os.getloadavg())})

    if run.measurements:
        from benchmarks.channel_report import write_report

        write_report(path)

    for case, why in run.failures.items():
        print(f'Failed: {case}: {why}')

    return 1 if run.failures else 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
