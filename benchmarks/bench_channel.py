"""Commands, streams and connections of the programs of the day: python -m benchmarks channel [--quick] [options].

Each round makes every measurement once, in a new random order, with a server and a client started for it. Counted are
the wall time of the work, the CPU time of the client while it works and of its whole life (wait4), and the CPU time of
the server while the client works. What is transferred to files is compared by SHA-256 afterwards.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.conditions import conditions
from benchmarks.files import blank, default_folder, digest, make_source, parse_size
from benchmarks.measure import GIB, MIB, Meter
from benchmarks.peers import (
    START_TIMEOUT,
    Keys,
    OpenSSHServer,
    PeerFailed,
    Server,
    connect_options,
    listen_options,
    openssh_flags,
    worker,
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

        options = {
            'port': server.port, 'loop': self.options.loop, 'connected': work.connected,
            'connect': connect_options(self._keys, server.port, CIPHER),
        }

        with WorkClient(module, 'channel_worker', options) as client:
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

    choose(parser, options, WORKS)
    options.parts = 10    # the channels are opened in so many parts, each timed by itself

    if min(options.rounds, options.lines, options.runs, options.connects) < 1 or options.repeats < 0:
        parser.error('--rounds, --lines, --runs and --connects are at least 1, --repeats at least 0')

    if options.at_once < 1 or options.channels % (options.parts * options.at_once):
        parser.error(f'--channels must be a multiple of {options.parts} times --at-once')

    return options


def main(arguments: list[str] | None = None) -> int:
    """Measure, and write the results; the exit status is 1 if something failed."""

    options = parse_options(arguments)
    signal.signal(signal.SIGTERM, stop)
    cases, absent = plan(WORKS, options)

    for line in absent:
        print(line)

    names = ('size', 'lines', 'runs', 'channels', 'at_once', 'parts', 'connects', 'loop', 'busy')
    path = options.output / 'channel.json'

    with tempfile.TemporaryDirectory(prefix='bench_channel.', dir=options.dir) as name:
        run = Run(Bench(Path(name), options), options, names)
        run.measure_all(cases, path, conditions(options.dir))

    from benchmarks.channel_report import write_report

    return run.report(write_report, path)


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
