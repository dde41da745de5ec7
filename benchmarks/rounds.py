"""What benchmarks of several works and pairs share: the plan, the rounds, and what is kept of them."""

import argparse
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

from benchmarks.peers import ROOT, START_TIMEOUT, PeerFailed, Program, missing, worker

RESULTS = ROOT / 'benchmarks' / 'results'
QUICK_RESULTS = ROOT / 'build' / 'benchmarks'
CIPHER = 'aes128-gcm@openssh.com'
WORK_TIMEOUT = 900.0

# sshd would turn many clients at once away, which is not what is measured.
SSHD_SETTINGS = 'MaxStartups 500:30:1000\nMaxSessions 1000\n'


class WrongContent(Exception):
    """What arrived is not what was sent."""


class Work(Protocol):
    """Something that is measured."""

    @property
    def name(self) -> str:
        """What it is called in the command line and the results."""

    @property
    def pairs(self) -> tuple[str, ...]:
        """Between which pairs, CLIENT-SERVER."""


class Bench(Protocol):
    """What can be measured."""

    def measure(self, work: Any, pair: str, number: int) -> 'Measurement':
        """Start a server and a client, have the client do the work, and end both."""


class WorkClient(Program):
    """A client by ssh_fast or AsyncSSH that does the works of a worker program."""

    def __init__(self, module: str, program: str, options: dict[str, Any]) -> None:
        super().__init__(f'{module} client', worker('client', module, options, program))

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


def plan(
    works: Sequence[Work],
    options: argparse.Namespace,
    absent: Callable[[str, str], str | None] = missing,
) -> tuple[list[tuple[Any, str]], list[str]]:
    """Return what to measure, and for each pair that cannot be measured here a line that says why."""

    cases = [
        (work, pair)
        for work in works
        if work.name in options.works
        for pair in work.pairs
        if not options.pairs or pair in options.pairs
    ]
    why = {}

    for pair in dict.fromkeys(pair for _, pair in cases):
        reasons = [absent(kind, role) for kind, role in zip(pair.split('-'), ('client', 'server'), strict=True)]

        if reason := next(filter(None, reasons), None):
            why[pair] = f'{pair} is not measured: {reason}'

    return [(work, pair) for work, pair in cases if pair not in why], list(why.values())


def choose(parser: argparse.ArgumentParser, options: argparse.Namespace, works: Sequence[Work]) -> None:
    """Make lists of the works and pairs that were asked for; end with an error if there are none of that name."""

    names = [work.name for work in works]
    options.works = options.works.split(',') if options.works else names
    options.pairs = options.pairs.split(',') if options.pairs else []

    if unknown := set(options.works) - set(names):
        parser.error(f'--works: {", ".join(sorted(unknown))} is not one of {", ".join(names)}')

    if unknown := set(options.pairs) - {pair for work in works for pair in work.pairs}:
        parser.error(f'--pairs: {", ".join(sorted(unknown))} is not measured')


def stop(number: int, frame: object) -> NoReturn:
    """End with the status of a signal; what was started is ended on the way."""

    raise SystemExit(128 + number)


class Run:
    """All rounds: the measurements that count, how many were taken again, what failed."""

    def __init__(self, bench: Bench, options: argparse.Namespace, names: Sequence[str]) -> None:
        """`names` are the options that the results depend on."""

        self._bench = bench
        self._options = options
        self._names = names
        self.measurements: list[Measurement] = []
        self.repeated = 0
        self.kept_busy = 0
        self.failures: dict[str, str] = {}
        self.more: dict[str, Any] = {}    # what is kept beside the measurements

    def measure_all(self, cases: Sequence[tuple[Any, str]], path: Path, about: dict[str, str]) -> None:
        """Measure all rounds, and keep what there is after each."""

        for number in range(1, self._options.rounds + 1):
            print(f'round {number} of {self._options.rounds}', flush=True)
            self._measure_round(number, cases)
            self.save(path, about)

    def _measure_round(self, number: int, cases: Sequence[tuple[Any, str]]) -> None:
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

    def _measure_quietly(self, work: Any, pair: str, number: int) -> Measurement:
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
        load = ' '.join(f'{load:.2f}' for load in os.getloadavg())
        content = {
            'conditions': about | {'load at the end': load},
            'options': {name: getattr(self._options, name) for name in self._names},
            'cipher': CIPHER,
            'repeated': self.repeated,
            'kept_busy': self.kept_busy,
            'failures': self.failures,
            **self.more,
            'measurements': [asdict(one) for one in self.measurements],
        }
        path.write_text(json.dumps(content, indent=1) + '\n')

    def report(self, write_report: Callable[[Path], None], path: Path) -> int:
        """Write the page and name what failed; returns the exit status."""

        if self.measurements:
            write_report(path)

        for case, why in self.failures.items():
            print(f'Failed: {case}: {why}')

        return 1 if self.failures else 0
