"""The compiled core beside its plain-Python reference: runs the pytest-benchmark files and writes their table."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.conditions import conditions
from benchmarks.peers import ROOT
from benchmarks.report import table

_FILES = ['benchmarks/bench_core.py', 'benchmarks/bench_flow.py', 'benchmarks/bench_codec.py']
# What the parameters of a test call the two implementations.
_COMPILED, _REFERENCE = 'compiled', ('reference', 'python')


def _time(seconds: float) -> str:
    return f'{seconds * 1e6:.1f}' if seconds >= 1e-6 else f'{seconds * 1e6:.3f}'


def _times_faster(times: dict[str, float]) -> str:
    ratio = times['reference'] / times[_COMPILED]

    return f'{ratio:.1f}' if ratio < 10 else f'{ratio:.0f}'


def _rows(benchmarks: list[dict[str, Any]]) -> list[list[str]]:
    """Pair the tests that differ in the implementation alone."""

    pairs: dict[str, dict[str, float]] = {}

    for one in benchmarks:
        kinds = [value for value in one['params'].values() if value == _COMPILED or value in _REFERENCE]
        kind = _COMPILED if _COMPILED in kinds else 'reference'
        # Tests that have no group are known by their name without the implementation.
        words = [word for word in one['name'].rstrip(']').replace('[', '-').split('-') if word not in kinds]
        name = ' '.join(words).removeprefix('test_').replace('_', ' ')
        pairs.setdefault(one['group'] or name, {})[kind] = one['stats']['median']

    return [
        [name, _time(times[_COMPILED]), _time(times['reference']), _times_faster(times)]
        for name, times in pairs.items()
        if len(times) == 2
    ]


def main(output: Path, seconds: float = 0.5) -> int:
    """Run the benchmarks, each for `seconds`; write core.json and core.md, print the table; return pytest's status."""

    output.mkdir(parents=True, exist_ok=True)
    path = output / 'core.json'
    options = ['--benchmark-only', '--benchmark-quiet', f'--benchmark-max-time={seconds}']
    command = [sys.executable, '-m', 'pytest', '-q', *options, f'--benchmark-json={path.absolute()}', *_FILES]
    status = subprocess.run(command, cwd=ROOT, stdout=sys.stderr).returncode

    if status:
        return status

    benchmarks = json.loads(path.read_text())['benchmarks']
    about = '\n'.join(f'- {name}: {value}' for name, value in conditions(output).items() if name != 'files')
    page = '\n\n'.join(
        [
            '# Compiled core',
            'Microseconds a call, medians. The reference is plain Python (tests/reference). Its ciphers are those of '
            'the `cryptography` package, which brings a libcrypto of its own: see the conditions.',
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
