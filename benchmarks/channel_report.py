"""The page of a run of bench_channel: python -m benchmarks.channel_report results/channel.json writes it again."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bench_channel import WORKS
from benchmarks.measure import GIB, MIB
from benchmarks.report import Spread, table
from benchmarks.rounds_report import Results, load, page, pair_name

_BULK = [work.name for work in WORKS if work.size_matters]


class ChannelResults(Results):
    """The measurements of a run of bench_channel."""

    def cases(self) -> list[tuple[str, str]]:
        """Return the works and pairs that were measured, in the order of the tables."""

        found = {(one['work'], one['pair']) for one in self.measurements}

        return [(work.name, pair) for work in WORKS for pair in work.pairs if (work.name, pair) in found]

    def ratio(self, work: str, pair: str, peer: str, field: str) -> float | None:
        """Return one median over another."""

        ours, theirs = (self.spread(work, one, field) for one in (pair, peer))

        return ours.middle / theirs.middle if ours and theirs and theirs.middle else None

    def parts(self, pair: str, name: str) -> list[Any]:
        """Return the medians over the rounds of what was measured after each part of the work `channels`."""

        rounds = [one['extra'][name] for one in self.measurements if (one['work'], one['pair']) == ('channels', pair)]

        if name == 'times':
            return [median(values) for values in zip(*rounds, strict=True)]

        return [tuple(map(median, zip(*values, strict=True))) for values in zip(*rounds, strict=True)]


# --- goals

@dataclass(frozen=True)
class Goal:
    """A ratio of ours over a peer's, and what it must be: at least of speed, at most of CPU time."""

    text: str
    work: str
    pair: str
    peer: str
    field: str
    bound: float

    @property
    def of_speed(self) -> bool:
        """Whether it is a speed: wall time the other way round."""

        return self.field == 'wall'

    def value(self, results: ChannelResults) -> float | None:
        """Return what was reached."""

        if self.of_speed:
            return results.ratio(self.work, self.peer, self.pair, self.field)

        return results.ratio(self.work, self.pair, self.peer, self.field)


def _bulk_goals() -> list[Goal]:
    goals = []

    for work, title in (('receive', 'output of `cat FILE`'), ('send', 'input of `cat >/dev/null`')):
        for peer, name, bound in (('openssh', '`ssh`', 0.8), ('asyncssh', 'AsyncSSH', 0.6)):
            goals.append(
                Goal(
                    f'CPU time of the client while it works, {title}, to sshd : {name}',
                    work, 'ssh_fast-openssh', f'{peer}-openssh', 'client_cpu', bound,
                )
            )

    return goals


GOALS = [
    *_bulk_goals(),
    *(
        Goal(f'speed, {title} by redirection : OpenSSH', work, 'ssh_fast-ssh_fast', 'openssh-openssh', 'wall', 1.5)
        for work, title in (('receive_file', 'output into a file'), ('send_file', 'input from a file'))
    ),
    *(
        Goal(f'speed, `run` {title} : AsyncSSH', work, 'ssh_fast-ssh_fast', 'asyncssh-asyncssh', 'wall', 3)
        for work, title in (('run_sequential', 'one after another'), ('run_100_at_once', '100 at once'))
    ),
    *(
        Goal(f'speed, lines, {title} : AsyncSSH', work, 'ssh_fast-openssh', 'asyncssh-openssh', 'wall', 3)
        for work, title in (
            ('lines_text_iterated', 'text by iteration'), ('lines_bytes_readline', 'bytes by `readline`'),
        )
    ),
    *(
        Goal(f'{what}, {title}, to {pair_name(server)} : AsyncSSH', work, f'ssh_fast-{server}', f'asyncssh-{server}',
             field, bound)
        for work, title in (
            ('connect_sequential', 'connecting one after another'), ('connect_50_at_once', 'connecting 50 at once'),
        )
        for server in ('ssh_fast', 'openssh')
        for what, field, bound in (('speed', 'wall', 3.0), ('CPU time of the client', 'client_cpu', 1 / 3))
    ),
]


def goals_table(results: ChannelResults) -> str:
    """Return what was to be reached, and what was."""

    rows = []

    for goal in GOALS:
        value = goal.value(results)

        if value is not None:
            reached = value >= goal.bound if goal.of_speed else value <= goal.bound
            wanted = f'{"≥" if goal.of_speed else "≤"} {goal.bound:.2g}'
            rows.append([goal.text, wanted, f'{value:.2f}', 'yes' if reached else 'no'])

    return table(['ours : theirs', 'wanted', 'measured', 'reached'], rows) if rows else ''


# --- tables

_TITLES: dict[str, Callable[[dict[str, Any]], str]] = {
    'receive': lambda o: f'output of `cat FILE`, {o["size"] / MIB:.0f} MiB, read in bytes',
    'send': lambda o: f'{o["size"] / MIB:.0f} MiB written to the input of `cat >/dev/null`, in bytes',
    'receive_file': lambda o: f'{o["size"] / MIB:.0f} MiB of output, from a file and into one by redirection',
    'send_file': lambda o: f'{o["size"] / MIB:.0f} MiB of input, from a file and into one by redirection',
    'run_sequential': lambda o: f"{o['runs']} times `run('true')` on one connection, one after another",
    'run_100_at_once': lambda o: f"{o['runs']} times `run('true')` on one connection, 100 at once",
    'lines_text_iterated': lambda o: f'{o["lines"]} short lines of text, `async for`',
    'lines_bytes_readline': lambda o: f'{o["lines"]} short lines of bytes, `readline`',
    'channels': lambda o: f'{o["channels"]} channels opened, used and closed on one connection, {o["at_once"]} at once',
    'connect_sequential': lambda o: f'{o["connects"]} times connect, log in, one command, close; one after another',
    'connect_50_at_once': lambda o: f'{o["connects"]} times connect, log in, one command, close; 50 at once',
}


def _show(spread: Spread | None, with_spread: bool = False) -> str:
    if not spread:
        return ''

    digits = 2 if spread.middle < 100 else 0
    text = f'{spread.middle:.{digits}f}'

    return text + (f' ({spread.least:.{digits}f}-{spread.most:.{digits}f})' if with_spread else '')


def work_table(results: ChannelResults, work: str) -> str:
    """Return what one work took with each pair."""

    pairs = [pair for name, pair in results.cases() if name == work]
    unit = results.options['size'] / GIB if work in _BULK else 1.0
    rows = [
        [
            pair_name(pair),
            _show(results.spread(work, pair, 'wall'), True),
            *(_show(results.spread(work, pair, field, unit)) for field in ('client_cpu', 'client_cpu_whole')),
            _show(results.spread(work, pair, 'server_cpu', unit)),
        ]
        for pair in pairs
    ]
    per = ' a GiB' if work in _BULK else ''
    head = ['client → server', 'seconds', f'client CPU s{per}, work', f'client CPU s{per}, all', f'server CPU s{per}']

    return table(head, rows)


def channels_table(results: ChannelResults) -> str:
    """Return the time and memory after each part of the channels: the first is linear, the other flat."""

    rows = []

    for work, pair in results.cases():
        if work == 'channels':
            times, memory = results.parts(pair, 'times'), results.parts(pair, 'memory')
            rows.append([f'{pair_name(pair)}: seconds', *(f'{value:.2f}' for value in times)])

            for end, name in enumerate(('client', 'server')):
                rows.append([f'{pair_name(pair)}: {name} MiB', *(f'{values[end]:.0f}' for values in memory)])

    if not rows:
        return ''

    count = results.options['channels'] // results.options['parts']

    return table(['channels so far', *(f'{part * count}' for part in range(1, results.options['parts'] + 1))], rows)


_EXPLANATION = """\
Medians of {rounds} rounds (least-most) in which all measurements took place in random order, with {cipher}, each with a
server and a client started for it. CPU is user and system seconds: of the client while it works, which is what the
goals are about, and of its whole life with the start of the interpreter and its imports; of the server while the client
works, all its processes together. OpenSSH's `ssh` is one process a work: what it takes to connect is in all its
figures, and not in those of the libraries' bulk works. Files were compared by SHA-256."""


def render(results: ChannelResults) -> str:
    """Return the page of a run."""

    parts = []

    if goals := goals_table(results):
        parts += ['## Goals', goals, '![The goals, and what was reached](channel.svg)']

    for work in dict.fromkeys(work for work, _ in results.cases()):
        parts += [f'## {_TITLES[work](results.options)}', work_table(results, work)]

        if work == 'channels':
            parts.append(channels_table(results))

    return page('Commands, streams and connections', _EXPLANATION, results, parts)


def draw(results: ChannelResults, path: Path) -> None:
    """Draw how far each goal was reached: 1 is the goal, more is better."""

    import matplotlib

    matplotlib.use('svg')

    import matplotlib.pyplot as plt

    shown = [(goal, value) for goal in GOALS if (value := goal.value(results))]
    reached = [value / goal.bound if goal.of_speed else goal.bound / value for goal, value in shown]
    figure, axes = plt.subplots(figsize=(10, 0.9 + 0.36 * len(shown)))
    colours = ['#2a6f97' if value >= 1 else '#e09f3e' for value in reached]
    axes.barh(range(len(shown)), reached, 0.7, color=colours)
    axes.set_yticks(range(len(shown)), [goal.text.replace('`', '') for goal, _ in shown], fontsize='small')
    axes.axvline(1, color='black', linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel('what was reached, as a part of the goal')
    figure.tight_layout()
    figure.savefig(path, metadata={'Date': None})
    plt.close(figure)


def write_report(path: Path) -> None:
    """Write the page and the plot beside the JSON file of a run, and print the page."""

    results = ChannelResults(load(path))
    text = render(results)
    path.with_suffix('.md').write_text(text)
    print('\n' + text)

    if any(goal.value(results) for goal in GOALS):
        draw(results, path.with_suffix('.svg'))

    print(f'Written: {path}, {path.with_suffix(".md").name}, {path.with_suffix(".svg").name}')


if __name__ == '__main__':
    write_report(Path(sys.argv[1]))
