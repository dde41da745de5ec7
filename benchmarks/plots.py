"""The plots of a run of bench_sftp."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('svg')

import matplotlib.pyplot as plt

from benchmarks.report import DIRECTIONS, Results, pair_name

_COLOURS = {'get': '#2a6f97', 'put': '#e09f3e'}
_CLIENT, _SERVER = '#3d5a80', '#98c1d9'


def _bars(axes: Any, results: Results, labels: list[str], cells: list[tuple[str, str]]) -> None:
    """Draw one bar a direction for each (pair, cipher), with the rounds' spread."""

    for shift, direction in zip((-0.2, 0.2), DIRECTIONS, strict=True):
        for place, (pair, cipher) in enumerate(cells):
            if spread := results.spread(pair, cipher, direction, 'mb_per_second'):
                errors = [[spread.middle - spread.least], [spread.most - spread.middle]]
                axes.barh(
                    place + shift,
                    spread.middle,
                    0.38,
                    color=_COLOURS[direction],
                    xerr=errors,
                    error_kw={'elinewidth': 0.8, 'capsize': 2},
                    label=direction if place == 0 else None,
                )

    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel('MB/s')
    axes.legend(loc='lower right', fontsize='small')


def _cpu_bars(axes: Any, results: Results, pairs: list[str], cipher: str) -> None:
    """Draw the CPU time of client and server, one bar a direction, get above put."""

    for shift, direction in zip((-0.2, 0.2), DIRECTIONS, strict=True):
        for place, pair in enumerate(pairs):
            client, server = (results.spread(pair, cipher, direction, field) for field in ('client_cpu', 'server_cpu'))

            if client and server:
                first = place == 0 and direction == 'get'
                axes.barh(place + shift, client.middle, 0.38, color=_CLIENT, label='client' if first else None)
                axes.barh(
                    place + shift,
                    server.middle,
                    0.38,
                    left=client.middle,
                    color=_SERVER,
                    label='server' if first else None,
                )

    axes.set_yticks(range(len(pairs)), [])
    axes.invert_yaxis()
    axes.set_xlabel('CPU seconds a GiB of the transfer (get above put)')
    axes.legend(loc='lower right', fontsize='small')


def draw(results: Results, path: Path) -> None:
    """Write the plot of the pairs with the first cipher, and of the ciphers, as SVG."""

    ciphers = results.ciphers()
    pairs = results.pairs(ciphers[0])
    suite_pairs = [pair for pair in pairs if len(ciphers) > 1 and pair in results.pairs(ciphers[1])]
    cells = [(pair, cipher) for cipher in ciphers for pair in suite_pairs] if len(ciphers) > 1 else []
    plt.rcParams.update({'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False, 'svg.hashsalt': 'sftp'})
    heights = [max(2.0, 0.5 * len(pairs)), max(2.0, 0.45 * len(cells))] if cells else [max(2.0, 0.5 * len(pairs))]
    figure = plt.figure(figsize=(11, sum(heights) + 1.5), layout='constrained')
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    speed, cpu = (figure.add_subplot(grid[0, column]) for column in (0, 1))
    _bars(speed, results, [pair_name(pair) for pair in pairs], [(pair, ciphers[0]) for pair in pairs])
    speed.set_title(ciphers[0])
    _cpu_bars(cpu, results, pairs, ciphers[0])

    if cells:
        suites = figure.add_subplot(grid[1, :])
        _bars(suites, results, [f'{cipher.partition("@")[0]}: {pair_name(pair)}' for pair, cipher in cells], cells)

    figure.savefig(path, metadata={'Date': None})
    plt.close(figure)
