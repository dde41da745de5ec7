"""The page of a run of bench_files: python -m benchmarks.files_report results/files.json writes it again."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench_files import FILE_SIZE, FILES_IN_A_DIRECTORY, WORKS, Work
from benchmarks.measure import MIB
from benchmarks.report import table
from benchmarks.rounds_report import Results, load, page, pair_name, write_page


class FilesResults(Results):
    """The measurements of a run of bench_files."""

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

    def value(self, results: FilesResults) -> float | None:
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


def goals_table(results: FilesResults) -> str:
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


def work_table(results: FilesResults, work: Work) -> str:
    """Return what one work took with each pair."""

    is_link = work.is_link
    rows = []

    for pair in results.pairs(work):
        wall, client, server = (results.spread(work.name, pair, name) for name in ('wall', 'client_cpu', 'server_cpu'))
        assert wall and client and server
        speed = results.count(work.name) / wall.middle / (1e6 if is_link else 1)
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


def render(results: FilesResults) -> str:
    """Return the page of a run."""

    goals = goals_table(results)
    parts = ['## Goals', goals] if goals else []

    for work in WORKS:
        if results.pairs(work):
            parts += [f'## {_TITLES[work.name](results.options)}', work_table(results, work)]

    return page('Many files, single requests and long links', _EXPLANATION, results, parts)


def write_report(path: Path) -> None:
    """Write the page beside the JSON file of a run, and print it."""

    write_page(path, render(FilesResults(load(path))))


if __name__ == '__main__':
    write_report(Path(sys.argv[1]))
