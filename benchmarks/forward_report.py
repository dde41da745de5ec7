"""The page of a run of bench_forward: python -m benchmarks.forward_report results/forward.json writes it again."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench_forward import WORKS, Work
from benchmarks.measure import GIB, MIB
from benchmarks.report import table
from benchmarks.rounds_report import Results, load, page, pair_name, write_page


@dataclass(frozen=True)
class Goal:
    """A ratio of a peer's time over ours, and what it must be at least."""

    text: str
    works: tuple[str, str]    # ours and theirs
    pair: str
    peer: str
    field: str
    bound: float

    def value(self, results: Results) -> float | None:
        """Return what was reached."""

        ours = results.spread(self.works[0], self.pair, self.field)
        theirs = results.spread(self.works[1], self.peer, self.field)

        return theirs.middle / ours.middle if ours and theirs and ours.middle else None


def _same(text: str, work: str, pair: str, peer: str, bound: float, field: str = 'wall') -> Goal:
    return Goal(text, (work, work), pair, peer, field, bound)


GOALS = [
    goal
    for work in ('local_send', 'local_receive', 'remote_send', 'remote_receive')
    for goal in (
        _same(f'speed, {work}, to sshd : OpenSSH', work, 'ssh_fast-openssh', 'openssh-openssh', 1.2),
        _same(f'speed, {work}, our server : OpenSSH', work, 'ssh_fast-ssh_fast', 'openssh-openssh', 1.6),
        _same(f'speed, {work}, our server : AsyncSSH', work, 'ssh_fast-ssh_fast', 'asyncssh-asyncssh', 2.5),
    )
] + [
    Goal(
        f'speed, {way}, 16 streams : one stream', (f'local_{way}_16_streams', f'local_{way}'), pair, pair, 'wall', 0.9
    )
    for way in ('send', 'receive')
    for pair in ('ssh_fast-openssh', 'ssh_fast-ssh_fast')
] + [
    *(
        _same(f'{field} of a request, to sshd : OpenSSH', 'requests', 'ssh_fast-openssh', 'openssh-openssh', 1, field)
        for field in ('median', 'p99')
    ),
    _same('small requests a second : AsyncSSH', 'requests', 'ssh_fast-ssh_fast', 'asyncssh-asyncssh', 2),
    _same('new connections a second : AsyncSSH', 'connects', 'ssh_fast-ssh_fast', 'asyncssh-asyncssh', 3),
]


def goals_table(results: Results) -> str:
    """Return what was to be reached, and what was."""

    rows = [
        [goal.text, f'≥ {goal.bound:.2g}', f'{value:.2f}', 'yes' if value >= goal.bound else 'no']
        for goal in GOALS
        if (value := goal.value(results)) is not None
    ]

    return table(['ours : theirs', 'wanted', 'measured', 'reached'], rows) if rows else ''


_TITLES: dict[str, Callable[[dict[str, Any]], str]] = {
    'requests': lambda o: f'{o["requests"]} small requests over one forwarded connection, one after another',
    'connects': lambda o: f'{o["connects"]} forwarded connections, one after another, with a byte there and back',
}


def _title(work: str, options: dict[str, Any]) -> str:
    if work in _TITLES:
        return _TITLES[work](options)

    where = 'server' if work.startswith('remote') else 'client'
    way = 'sent' if 'send' in work else 'received'
    streams = '16 connections' if '16' in work else 'one connection'

    return f'{options["size"] / MIB:.0f} MiB {way} over {streams} to a port that the {where} forwards'


def work_table(results: Results, work: Work) -> str:
    """Return what one work took with each pair."""

    is_bulk = work.size_matters
    unit = results.options['size'] / GIB if is_bulk else 1.0
    rows = []

    for pair in results.pairs(work):
        wall, client, server = (results.spread(work.name, pair, name) for name in ('wall', 'client_cpu', 'server_cpu'))
        assert wall and client and server
        row = [pair_name(pair), f'{wall.middle:.2f} ({wall.least:.2f}-{wall.most:.2f})']
        row += [f'{results.options["size"] / wall.middle / 1e6:.0f}'] if is_bulk else []
        row += [f'{client.middle / unit:.2f}', f'{server.middle / unit:.2f}']

        if work.name == 'requests':
            median_, p99 = results.spread(work.name, pair, 'median'), results.spread(work.name, pair, 'p99')
            assert median_ and p99
            row += [f'{median_.middle * 1e6:.0f}', f'{p99.middle * 1e6:.0f}']

        rows.append(row)

    per = ' a GiB' if is_bulk else ''
    head = ['client → server', 'seconds', *(['MB/s'] if is_bulk else []), f'client CPU s{per}', f'server CPU s{per}']

    return table(head + (['median µs', 'p99 µs'] if work.name == 'requests' else []), rows)


_EXPLANATION = """\
Medians of {rounds} rounds (least-most) in which all measurements took place in random order, with {cipher}, each with a
server and a client started for it, connected and forwarding before anything is counted. CPU is user and system seconds
while the work is done. The ends of the connections are plain sockets in processes of their own."""


def render(results: Results) -> str:
    """Return the page of a run."""

    goals = goals_table(results)
    parts = ['## Goals', goals] if goals else []

    for work in WORKS:
        if results.pairs(work):
            parts += [f'## {_title(work.name, results.options)}', work_table(results, work)]

    if idle := results.content['idle']:
        rows = [[pair_name(one['pair']), *(f'{one[end] / 1024:.1f}' for end in ('client', 'server'))] for one in idle]
        parts += [
            f'## {results.options["idle"]} forwarded connections, open and idle',
            table(['client → server', 'KiB each, client', 'KiB each, server'], rows),
        ]

    return page('Forwarded connections', _EXPLANATION, results, parts)


def write_report(path: Path) -> None:
    """Write the page beside the JSON file of a run, and print it."""

    write_page(path, render(Results(load(path))))


if __name__ == '__main__':
    write_report(Path(sys.argv[1]))
