"""The page of a run of several works and pairs: its figures as medians over the rounds, and what all such pages say."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report import Spread

_NAMES = {'ssh_fast': 'ssh_fast', 'openssh': 'OpenSSH', 'asyncssh': 'AsyncSSH', 'lftp': 'lftp', 'rclone': 'rclone'}


def pair_name(pair: str) -> str:
    """Return what a reader calls a pair."""

    return ' → '.join(_NAMES[end] for end in pair.split('-'))


class Results:
    """The measurements of a run, and what was asked of it."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.conditions: dict[str, str] = content['conditions']
        self.options: dict[str, Any] = content['options']
        self.cipher: str = content['cipher']
        self.failures: dict[str, str] = content['failures']
        self.measurements: list[dict[str, Any]] = content['measurements']
        self.rounds = max(one['round'] for one in self.measurements)

    def pairs(self, work: Any) -> list[str]:
        """Return the pairs that a work was measured with, in its order."""

        found = {one['pair'] for one in self.measurements if one['work'] == work.name}

        return [pair for pair in work.pairs if pair in found]

    def spread(self, work: str, pair: str, field: str = 'wall', unit: float = 1.0) -> Spread | None:
        """Return a figure's median over the rounds, in `unit`s, None if it was not measured."""

        values = [
            (one[field] if field in one else one['extra'][field]) / unit
            for one in self.measurements
            if (one['work'], one['pair']) == (work, pair)
        ]

        return Spread(median(values), min(values), max(values)) if values else None


def page(title: str, explanation: str, results: Results, parts: Sequence[str]) -> str:
    """Return a page: `explanation` has places for the rounds and the cipher; empty parts are left out."""

    content = results.content
    quiet = (
        f'{content["repeated"]} measurements were repeated because others kept more than {results.options["busy"]:g} '
        f'of a CPU busy; {content["kept_busy"]} were kept although they did.'
    )
    whole = [
        f'# {title}',
        explanation.format(rounds=results.rounds, cipher=results.cipher),
        quiet,
        '## Conditions',
        '\n'.join(f'- {name}: {value}' for name, value in results.conditions.items()),
        *parts,
    ]

    if results.failures:
        whole += ['## Failed', '\n'.join(f'- {case}: {why.splitlines()[0]}' for case, why in results.failures.items())]

    return '\n\n'.join(part for part in whole if part) + '\n'


def load(path: Path) -> dict[str, Any]:
    """Read the JSON file of a run."""

    content: dict[str, Any] = json.loads(path.read_text())

    return content


def write_page(path: Path, text: str) -> None:
    """Write the page beside the JSON file of a run, and print it."""

    path.with_suffix('.md').write_text(text)
    print('\n' + text)
    print(f'Written: {path}, {path.with_suffix(".md").name}')
