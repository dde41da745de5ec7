"""The page of a run of bench_files: python -m benchmarks.files_report results/files.json writes it again."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bench_files import FILE_SIZE, FILES_IN_A_DIRECTORY, WORKS
from benchmarks.measure import MIB
from benchmarks.report import Spread, table

_NAMES = {'ssh_fast': 'ssh_fast', 'openssh': 'OpenSSH', 'asyncssh': 'AsyncSSH', 'lftp': 'lftp', 'rclone': 'rclone'}


class Results:
    """The measurements of a run, and what was asked of it."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.conditions: dict[str, str] = content['conditions']
        self.options: dict[str, Any] = content['options']
        self.cipher: str = content['cipher']
        self.repeated: int = content['repeated']
        self.kept_busy: int = content['kept_busy']
        self.failures: dict[str, str] = content['failures']
        self.measurements: list[dict[str, Any]] = content['measurements']
        self.rounds = max(one['round'] for one in self.measurements)

    def pairs(self, work: str) -> list[str]:
        """Return the pairs that a work was measured with, in the order of the tables."""

        found = {one['pair'] for one in self.measurements if one['work'] == work}

        return [pair for known in WORKS if known.name == work for pair in known.pairs if pair in found]

    def spread(self, work: str, pair: str, field: str = 'wall') -> Spread | None:
        """Return a figure's median over the rounds, None if it was not measured."""

        values = [one[field] for one in self.measurements if (one['work'], one['pair']) == (work, pair)]

        return Spread(median(values), min(values), max(values)) if values else None

    def count(self, work: str) -> int:
        """Return how many files or requests one such work is; of a link, bytes."""

        options = self.options
        counts = {
            'get_tree': options['files'], 'put_tree': options['files'], 'scandir': options['entries'],
            'rmtree': options['removes'], 'link_get': options['size'], 'link_put': options['size'],
        }
        found: int = counts.get(work, options['requests'])

        return found


# --- goals

@dataclass(frozen=True)
class Goal:
    """A ratio of our speed over the best of some peers, and what it must be at least."""

    text: str
    work: str
    pair: str
    peers: tuple[str, ...]
    bound: float

    def value(self, results: Results) -> float | None:
        """Return what was reached."""

        ours = results.spread(self.work, self.pair)
        theirs = [spread.middle for peer in self.peers if (spread := results.spread(self.work, peer))]

        return min(theirs) / ours.middle if ours and theirs else None


def _over_asyncssh(text: str, work: str, bound: float, servers: tuple[str, ...]) -> list[Goal]:
    return [
        Goal(
            f'{text}, {"to sshd" if server == "openssh" else "our server"} : AsyncSSH',
            work,
            f'ssh_fast-{server}',
            ('asyncssh-openssh' if server == 'openssh' else 'asyncssh-asyncssh',),
            bound,
        )
        for server in servers
    ]


_BOTH = ('openssh', 'ssh_fast')

GOALS = [
    goal
    for work, text in (('get_tree', 'small files, get'), ('put_tree', 'small files, put'))
    for goal in (
        Goal(f'{text}, to sshd : `sftp -r`', work, 'ssh_fast-openssh', ('openssh-openssh',), 3),
        Goal(
            f'{text}, to sshd : best of AsyncSSH, lftp, rclone', work, 'ssh_fast-openssh',
            ('asyncssh-openssh', 'lftp-openssh', 'rclone-openssh'), 2,
        ),
        *_over_asyncssh(text, work, 6, ('ssh_fast',)),
    )
] + [
    *_over_asyncssh('`scandir`', 'scandir', 5, _BOTH),
    *_over_asyncssh('`rmtree`', 'rmtree', 5, _BOTH),
    *_over_asyncssh('`stat` one after another', 'stat_sequential', 2, _BOTH),
    *_over_asyncssh('`stat` 64 at once', 'stat_64_at_once', 5, _BOTH),
    *_over_asyncssh('READ of 4 KiB at random, 64 at once', 'read_4k_at_random', 5, ('ssh_fast',)),
]


def goals_table(results: Results) -> str:
    """Return what was to be reached, and what was."""

    rows = [
        [goal.text, f'≥ {goal.bound:.2g}', f'{value:.2f}', 'yes' if value >= goal.bound else 'no']
        for goal in GOALS
        if (value := goal.value(results)) is not None
    ]
    links = [
        (work, pair, results.count(work) / spread.middle / results.options['rate'])
        for work in ('link_get', 'link_put')
        for pair in ('ssh_fast-openssh', 'ssh_fast-ssh_fast')
        if (spread := results.spread(work, pair))
    ]
    rows += [
        [f'long link, {work.removeprefix("link_")}, {pair_name(pair)} : rate of the link', '≥ 0.9', f'{share:.2f}',
         'yes' if share >= 0.9 else 'no']
        for work, pair, share in links
    ]

    return table(['ours : theirs', 'wanted', 'measured', 'reached'], rows) if rows else ''


# --- tables

def pair_name(pair: str) -> str:
    """Return what a reader calls a pair."""

    return ' → '.join(_NAMES[end] for end in pair.split('-'))


_TITLES: dict[str, Callable[[dict[str, Any]], str]] = {
    'get_tree': lambda o: f'{o["files"]} files of {FILE_SIZE // 1024} KiB, get of their directory',
    'put_tree': lambda o: f'{o["files"]} files of {FILE_SIZE // 1024} KiB, put of their directory',
    'scandir': lambda o: f'`scandir` of {o["entries"]} entries',
    'rmtree': lambda o: f'`rmtree` of {o["removes"]} files in {o["removes"] // FILES_IN_A_DIRECTORY} directories',
    'stat_sequential': lambda o: f'{o["requests"]} times `stat`, one after another',
    'stat_64_at_once': lambda o: f'{o["requests"]} times `stat`, 64 at once',
    'read_4k_at_random': lambda o: f'{o["requests"]} reads of 4 KiB at random places, 64 at once',
    'link_get': lambda o: f'get of {o["size"] / MIB:.0f} MiB, {o["delay"] * 1000:g} ms and {o["rate"] * 8e-9:g} Gbit/s',
    'link_put': lambda o: f'put of {o["size"] / MIB:.0f} MiB, {o["delay"] * 1000:g} ms and {o["rate"] * 8e-9:g} Gbit/s',
}


def _show(value: float) -> str:
    return f'{value:.0f}' if value >= 100 else f'{value:.2f}'


def work_table(results: Results, work: str) -> str:
    """Return what one work took with each pair."""

    is_link = work.startswith('link_')
    rows = []

    for pair in results.pairs(work):
        wall, client, server = (results.spread(work, pair, name) for name in ('wall', 'client_cpu', 'server_cpu'))
        assert wall and client and server
        speed = results.count(work) / wall.middle / (1e6 if is_link else 1)
        rows.append([
            pair_name(pair), _show(speed), f'{_show(wall.middle)} ({_show(wall.least)}-{_show(wall.most)})',
            _show(client.middle), _show(server.middle),
        ])

    return table(
        ['client → server', 'MB/s' if is_link else 'a second', 'seconds', 'client CPU s', 'server CPU s'], rows
    )


_EXPLANATION = """\
Medians of {rounds} rounds (least-most) in which all measurements took place in random order, with {cipher}
(rclone: its default), each with a server and a client started for it. CPU is user and system seconds: of the client
while it works, of the server while the client works, all its processes together. `sftp`, lftp (16 connections) and
rclone (16 transfers) connect and log in as a part of it. Copies were compared with their sources. The long link is
`link_relay.py`, a relay with that delay and rate: there is no slow start and no loss of TCP in it."""


def render(results: Results) -> str:
    """Return the page of a run."""

    quiet = (
        f'{results.repeated} measurements were repeated because others kept more than {results.options["busy"]:g} of a '
        f'CPU busy; {results.kept_busy} were kept although they did.'
    )
    parts = [
        '# Many files, single requests and long links',
        _EXPLANATION.format(rounds=results.rounds, cipher=results.cipher),
        quiet,
        '## Conditions',
        '\n'.join(f'- {name}: {value}' for name, value in results.conditions.items()),
    ]

    if goals := goals_table(results):
        parts += ['## Goals', goals]

    for work in WORKS:
        if results.pairs(work.name):
            parts += [f'## {_TITLES[work.name](results.options)}', work_table(results, work.name)]

    if results.failures:
        parts += ['## Failed', '\n'.join(f'- {case}: {why.splitlines()[0]}' for case, why in results.failures.items())]

    return '\n\n'.join(parts) + '\n'


def write_report(path: Path) -> None:
    """Write the page beside the JSON file of a run, and print it."""

    page = render(Results(json.loads(path.read_text())))
    path.with_suffix('.md').write_text(page)
    print('\n' + page)
    print(f'Written: {path}, {path.with_suffix(".md").name}')


if __name__ == '__main__':
    write_report(Path(sys.argv[1]))
