"""The compiled core beside its plain-Python reference: runs the pytest-benchmark files and writes their table."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.conditions import conditions
from benchmarks.peers import ROOT
from benchmarks.report import table

_FILES = ['benchmarks/bench_core.py', 'benchmarks/bench_codec.py']
# What the parameters of a test call the two implementations.
_COMPILED, _REFERENCE = 'compiled', ('reference', 'python')


def _time(seconds: float) -> str:
    return f'{seconds * 1e6:.1f}' if seconds >= 1e-6 else f'{seconds * 1e6:.3f}'


def _rows(benchmarks: list[dict[str, Any]]) -> list[list[str]]:
    """Pair the tests that differ in the implementation alone."""

    pairs: dict[str, dict[str, float]] = {}

    for one in benchmarks:
        kinds = [value for value in one['params'].values() if value == _COMPILED or value in _REFERENCE]
        kind = _COMPILED if _COMPILED in kinds else 'reference'
        # Tests that have no group are known by their name without the implementation.
        words = [word for word in one['name'].rstrip(']').replace('[', '-').split('-') if word not in kinds]
        pairs.setdefault(one['group'] or ' '.join(words), {})[kind] = one['stats']['median']

    return [
        [name, _time(times[_COMPILED]), _time(times['reference']), f'{times["reference"] / times[_COMPILED]:.0f}']
        for name, times in pairs.items()
        if len(times) == 2
    ]


def main(output: Path) -> int:
    """Run the benchmarks, write core.json and core.md into the folder, print the table; return pytest's status."""

    output.mkdir(parents=True, exist_ok=True)
    path = output / 'core.json'
    options = ['-q', '-p', 'no:cacheprovider', '--benchmark-only', '--benchmark-columns=median,iqr,rounds']
    command = [sys.executable, '-m', 'pytest', *options, f'--benchmark-json={path.absolute()}', *_FILES]
    status = subprocess.run(command, cwd=ROOT, stdout=sys.stderr).returncode

    if status:
        return status

    benchmarks = json.loads(path.read_text())['benchmarks']
    about = '\n'.join(f'- {name}: {value}' for name, value in conditions(output).items() if name != 'files')
    page = '\n\n'.join(
        [
            '# Compiled core',
            'Microseconds for one call, medians; the reference is the plain Python of tests/reference.',
            table(['work', 'compiled', 'reference', 'times faster'], _rows(benchmarks)),
            '## Conditions',
            about,
        ]
    )
    path.with_suffix('.md').write_text(page + '\n')
    # The raw rounds are many megabytes; the figures of each test are what is kept.
    path.write_text(json.dumps([_figures(one) for one in benchmarks], indent=1) + '\n')
    print(page)

    return 0


def _figures(one: dict[str, Any]) -> dict[str, Any]:
    figures = {key: one['stats'][key] for key in ('median', 'iqr', 'min', 'max', 'rounds')}

    return {key: one[key] for key in ('name', 'group', 'params')} | figures
