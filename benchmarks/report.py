"""The tables of a run of bench_sftp, in Markdown: python -m benchmarks.report results/sftp.json writes them again."""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bench_sftp import LIMITS, MAIN_PAIRS, MAIN_SUITE, SUITE_PAIRS, SUITES
from benchmarks.measure import MIB

DIRECTIONS = ('get', 'put')
_NAMES = {
    'ssh_fast': 'ssh_fast',
    'ssh_fast_uvloop': 'ssh_fast (uvloop)',
    'openssh': 'OpenSSH',
    'asyncssh': 'AsyncSSH',
    'asyncssh_32k': 'AsyncSSH (32 KiB blocks)',
    'asyncssh_uvloop': 'AsyncSSH (uvloop)',
}


def pair_name(pair: str) -> str:
    """Return what a reader calls a pair."""

    if pair in LIMITS:
        return f'limit.c, packets of {LIMITS[pair] // 1024} KiB'

    return ' → '.join(_NAMES[end] for end in pair.split('-'))


@dataclass(frozen=True)
class Spread:
    """A median, and between what the rounds were."""

    middle: float
    least: float
    most: float


class Results:
    """The measurements of a run, and what was asked of it."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.conditions: dict[str, str] = content['conditions']
        self.size: int = content['size']
        self.busy: float = content['busy']
        self.repeated: int = content['repeated']
        self.kept_busy: int = content['kept_busy']
        self.failures: dict[str, str] = content['failures']
        self._measurements: list[dict[str, Any]] = content['measurements']
        self.rounds = max(one['round'] for one in self._measurements)

    def pairs(self, cipher: str) -> list[str]:
        """Return the pairs that were measured with this cipher, in the order of the table."""

        found = {one['job']['pair'] for one in self._measurements if one['job']['cipher'] == cipher}
        order = SUITE_PAIRS[:-1] + MAIN_PAIRS[:-1] + list(LIMITS)

        return sorted(found, key=lambda pair: (order.index(pair) if pair in order else -1, pair))

    def ciphers(self) -> list[str]:
        """Return the ciphers that were measured, in their order."""

        found = {one['job']['cipher'] for one in self._measurements}

        return [cipher for cipher in SUITES if cipher in found]

    def sizes(self) -> list[int]:
        """Return the sizes of the files, ascending."""

        return sorted({one['job']['size'] for one in self._measurements})

    def spread(self, pair: str, cipher: str, direction: str, field: str, size: int | None = None) -> Spread | None:
        """Return a figure's median over the rounds, None if it was not measured."""

        job = {'pair': pair, 'cipher': cipher, 'direction': direction, 'size': size or self.size}
        values = [one[field] for one in self._measurements if one['job'] == job and one[field] is not None]

        return Spread(median(values), min(values), max(values)) if values else None

    def ratio(self, pair: str, peer: str, cipher: str, direction: str, field: str) -> float | None:
        """Return one median over another."""

        ours, theirs = (self.spread(one, cipher, direction, field) for one in (pair, peer))

        return ours.middle / theirs.middle if ours and theirs and theirs.middle else None


def load_results(path: Path) -> Results:
    """Read the JSON file of a run."""

    return Results(json.loads(path.read_text()))


# --- tables

def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ['---'] + ['---:'] * (len(lines[0]) - 1))

    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def _with_spread(spread: Spread | None, digits: int = 0) -> str:
    if not spread:
        return ''

    if spread.least == spread.most:
        return f'{spread.middle:.{digits}f}'

    return f'{spread.middle:.{digits}f} ({spread.least:.{digits}f}-{spread.most:.{digits}f})'


def _middle(spread: Spread | None, digits: int = 2) -> str:
    return f'{spread.middle:.{digits}f}' if spread else ''


def _both(show: Callable[[str], str]) -> str:
    shown = [show(direction) for direction in DIRECTIONS]

    return ' / '.join(part or '-' for part in shown) if any(shown) else ''


def pairs_table(results: Results, cipher: str) -> str:
    """Return the table of all pairs with one cipher."""

    def show(pair: str, field: str, digits: int = 2) -> str:
        return _both(lambda way: _middle(results.spread(pair, cipher, way, field), digits))

    rows = [
        [
            pair_name(pair),
            *(_with_spread(results.spread(pair, cipher, way, 'mb_per_second')) for way in DIRECTIONS),
            show(pair, 'client_cpu_whole'),
            show(pair, 'client_cpu'),
            show(pair, 'server_cpu'),
            show(pair, 'client_peak', 0),
            show(pair, 'server_peak', 0),
        ]
        for pair in results.pairs(cipher)
    ]
    head = [
        'client → server',
        'get MB/s',
        'put MB/s',
        'client CPU, all',
        'client CPU, transfer',
        'server CPU, transfer',
        'client peak MiB',
        'server peak MiB',
    ]

    return table(head, rows)


def _speeds(results: Results, pair: str, cipher: str) -> str:
    return _both(lambda way: _middle(results.spread(pair, cipher, way, 'mb_per_second'), 0))


def _speed_ratios(results: Results, pair: str, peer: str, cipher: str) -> str:
    return _both(lambda way: _ratio(results.ratio(pair, peer, cipher, way, 'mb_per_second')))


def suites_table(results: Results) -> str:
    """Return the speeds of the pairs that were measured with every cipher."""

    peers = [pair for pair in SUITE_PAIRS if any(pair in results.pairs(cipher) for cipher in results.ciphers())]
    rows = []

    for cipher in results.ciphers():
        name = cipher + (f' + {SUITES[cipher]}' if SUITES[cipher] else '')
        rows.append(
            [name]
            + [_speeds(results, pair, cipher) for pair in peers]
            + [_speed_ratios(results, 'ssh_fast-ssh_fast', 'openssh-openssh', cipher)]
        )

    return table(['get / put MB/s', *map(pair_name, peers), 'ssh_fast : OpenSSH'], rows)


def _ratio(value: float | None) -> str:
    return f'{value:.2f}' if value is not None else ''


def memory_table(results: Results) -> str:
    """Return the peaks of our clients by the size of the file."""

    cipher = results.ciphers()[0]
    pairs = [pair for pair in results.pairs(cipher) if pair.startswith('ssh_fast-')]

    def show(pair: str, size: int) -> str:
        return _both(lambda way: _middle(results.spread(pair, cipher, way, 'client_peak', size), 0))

    rows = [[pair_name(pair), *(show(pair, size) for size in results.sizes())] for pair in pairs]

    return table(['client peak MiB, get / put', *(f'{size / MIB:.0f} MiB' for size in results.sizes())], rows)


# --- goals

@dataclass(frozen=True)
class Goal:
    """A ratio of ours over a peer's, and what it must be."""

    work: str
    pair: str
    peer: str
    field: str
    bounds: tuple[float, float]    # get, put
    at_least: bool = True
    cipher: str = MAIN_SUITE


GOALS = [
    Goal('speed, both ends ours : OpenSSH', 'ssh_fast-ssh_fast', 'openssh-openssh', 'mb_per_second', (2.5, 2.5)),
    Goal('speed, both ends ours : AsyncSSH', 'ssh_fast-ssh_fast', 'asyncssh-asyncssh', 'mb_per_second', (2.5, 2.5)),
    Goal('speed to sshd, our client : sftp', 'ssh_fast-openssh', 'openssh-openssh', 'mb_per_second', (1.4, 1.2)),
    Goal(
        'CPU to sshd, our client : sftp + ssh',
        'ssh_fast-openssh',
        'openssh-openssh',
        'client_cpu_whole',
        (0.65, 0.65),
        False,
    ),
    Goal(
        'CPU to sshd, our client : AsyncSSH',
        'ssh_fast-openssh',
        'asyncssh-openssh',
        'client_cpu_whole',
        (0.5, 0.5),
        False,
    ),
    Goal(
        'CPU to sshd, our client : AsyncSSH with 32 KiB blocks',
        'ssh_fast-openssh',
        'asyncssh_32k-openssh',
        'client_cpu_whole',
        (0.25, 0.25),
        False,
    ),
    Goal(
        'CPU of the transfer alone to sshd, our client : sftp + ssh',
        'ssh_fast-openssh',
        'openssh-openssh',
        'client_cpu',
        (0.65, 0.65),
        False,
    ),
    Goal(
        'CPU for sftp, our server : sshd + sftp-server',
        'openssh-ssh_fast',
        'openssh-openssh',
        'server_cpu',
        (0.5, 0.5),
        False,
    ),
    *(
        Goal(f'speed, both ends ours : {pair_name(limit)}', 'ssh_fast-ssh_fast', limit, 'mb_per_second', (0.85, 0.85))
        for limit in LIMITS
    ),
    *(
        Goal(
            f'speed with {cipher}, both ends ours : OpenSSH',
            'ssh_fast-ssh_fast',
            'openssh-openssh',
            'mb_per_second',
            (1.8, 1.8),
            cipher=cipher,
        )
        for cipher in list(SUITES)[1:]
    ),
]
PEAK_BOUND = 64.0    # MiB


def goals_table(results: Results) -> str:
    """Return what was to be reached, and what was."""

    rows = []

    for goal in GOALS:
        values = [results.ratio(goal.pair, goal.peer, goal.cipher, way, goal.field) for way in DIRECTIONS]

        if all(value is None for value in values):
            continue

        right = [
            value is None or (value >= bound if goal.at_least else value <= bound)
            for value, bound in zip(values, goal.bounds, strict=True)
        ]
        wanted = ' / '.join(f'{bound:g}' for bound in dict.fromkeys(goal.bounds))
        rows.append(
            [
                goal.work,
                f'{"≥" if goal.at_least else "≤"} {wanted}',
                ' / '.join(_ratio(value) or '-' for value in values),
                ' / '.join('yes' if one else 'no' for one in dict.fromkeys(right)),
            ]
        )

    peaks = [
        peak.middle
        for pair in results.pairs(MAIN_SUITE)
        if pair.startswith('ssh_fast-')
        for size in results.sizes()
        for way in DIRECTIONS
        if (peak := results.spread(pair, MAIN_SUITE, way, 'client_peak', size))
    ]

    if peaks:
        reached = 'yes' if max(peaks) < PEAK_BOUND else 'no'
        rows.append(['peak memory of our client, MiB', f'< {PEAK_BOUND:g}', f'{max(peaks):.0f}', reached])

    return table(['get / put', 'wanted', 'measured', 'reached'], rows) if rows else ''


# --- the page

_EXPLANATION = """\
One file of {size:.0f} MiB a transfer. Medians of {rounds} rounds (least-most) in which all measurements took place in
random order; get / put. MB are 10^6 bytes. CPU is user and system seconds a GiB of every process of the side (`sftp`
and `ssh`; `sshd` and `sftp-server`): of the transfer, as speed is; or, of a client, *all* from its start to its end,
with the start of the interpreter, connecting and logging in. Peaks are sums of VmHWM over the side's processes. The
SHA-256 of what arrived was right in each round."""


def render(results: Results) -> str:
    """Return the page of a run."""

    conditions = '\n'.join(f'- {name}: {value}' for name, value in results.conditions.items())
    explanation = _EXPLANATION.format(size=results.size / MIB, rounds=results.rounds)
    quiet = (
        f'{results.repeated} measurements were repeated because others kept more than {results.busy:g} of a CPU busy; '
        f'{results.kept_busy} were kept although they did.'
    )
    parts = ['# SFTP', explanation, quiet, '## Conditions', conditions]

    if goals := goals_table(results):
        parts += ['## Goals', goals]

    for cipher in results.ciphers()[:1]:
        parts += [f'## {cipher}', pairs_table(results, cipher)]

    parts += ['## Ciphers', suites_table(results)]

    if any(pair.startswith('ssh_fast-') for pair in results.pairs(results.ciphers()[0])):
        parts += ['## Memory by size of the file', memory_table(results)]

    parts += ['![Speed and CPU of the pairs](sftp.svg)']

    if results.failures:
        parts += ['## Failed', '\n'.join(f'- {pair}: {why.splitlines()[0]}' for pair, why in results.failures.items())]

    return '\n\n'.join(parts) + '\n'


def write_report(path: Path) -> None:
    """Write the page and the plot beside the JSON file of a run, and print the page."""

    from benchmarks.plots import draw

    results = load_results(path)
    page = render(results)
    path.with_suffix('.md').write_text(page)
    print('\n' + page)
    draw(results, path.with_suffix('.svg'))
    print(f'Written: {path}, {path.with_suffix(".md").name}, {path.with_suffix(".svg").name}')


if __name__ == '__main__':
    write_report(Path(sys.argv[1]))
