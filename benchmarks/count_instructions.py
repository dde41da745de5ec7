"""Instructions of the compiled core, counted by callgrind: python -m benchmarks.count_instructions.

The counts of our code repeat exactly, whatever else the machine does. Each work is done a number of times and three
times as often; what is shown is half of the difference, which holds nothing of the counting itself.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.bench_flow import CHOSEN, CompiledPair
from benchmarks.peers import ROOT
from benchmarks.report import table
from ssh_fast._cipher import new_opening_cipher, new_sealing_cipher
from tests.reference.packet import frame
from tests.reference.suites import Suite

_TIMES = 20
_PACKET = 32768
# Callgrind writes what it has counted, and begins again, when this function of libc is entered.
_MARK = 'getloadavg'


# --- the works, in the process under valgrind

def _seal_and_open(suite: Suite) -> Callable[[], object]:
    sealing, opening = new_sealing_cipher(*suite.keys()), new_opening_cipher(*suite.keys())
    packet = frame(bytes(_PACKET), sealing.block_size, sealing.length_apart, bytes)
    sequence = -1

    def work() -> None:
        nonlocal sequence

        sequence += 1
        opening.open_packet(sequence, sealing.seal_packet(sequence, packet))

    return work


def _send(suite: Suite | None) -> Callable[[], object]:
    pair, data = CompiledPair(suite, _PACKET), bytes(_PACKET)

    return lambda: pair.send(data)


def _works() -> Iterator[tuple[str, Callable[[], object]]]:
    for suite in CHOSEN:
        yield f'seal and open: {suite}', _seal_and_open(suite)

    for chosen in (None, *CHOSEN):
        yield f'channel data, both ends: {chosen or "no cipher"}', _send(chosen)


def _work_all() -> None:
    for _, work in _works():
        work()    # the first time is not like the others
        os.getloadavg()

        for times in (_TIMES, 3 * _TIMES):
            for _ in range(times):
                work()

            os.getloadavg()


# --- counting

def _read(path: Path) -> Counter[str]:
    """Return the instructions of one dump by object file."""

    counts: Counter[str] = Counter()
    own = ''
    calls = False

    with path.open() as lines:
        for line in lines:
            if line.startswith('ob='):
                own = line[3:].strip()
            elif line.startswith('calls='):
                calls = True    # the next line is what the called function cost, and is counted there
            elif re.match(r'[\d+*-]', line):
                if not calls:
                    counts[own] += int(line.split()[1])

                calls = False

    return counts


def _count(folder: Path) -> list[Counter[str]]:
    """Do all works under callgrind; return what each dump counted, in their order."""

    options = ['--tool=callgrind', '--compress-strings=no', '--compress-pos=no', f'--dump-before={_MARK}']
    command = ['valgrind', *options, f'--callgrind-out-file={folder}/out', sys.executable]
    run = subprocess.run(
        [*command, '-m', 'benchmarks.count_instructions', 'work'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {'PYTHONHASHSEED': '0'},
    )

    if run.returncode:
        raise SystemExit(f'valgrind: exit status {run.returncode}\n{run.stderr[-2000:]}')

    dumps = sorted(folder.glob('out.*'), key=lambda path: int(path.suffix[1:]))

    return [_read(path) for path in dumps]


def _share(path: str) -> str:
    if '/ssh_fast/' in path:
        return 'ssh_fast'

    return 'libcrypto' if 'libcrypto' in path else 'the rest'


def main() -> int:
    """Print the table of all works."""

    if not shutil.which('valgrind'):
        print('valgrind is not installed')

        return 1

    with tempfile.TemporaryDirectory() as folder:
        dumps = _count(Path(folder))

    rows = []

    for number, (title, _) in enumerate(_works()):
        few, many = dumps[3 * number + 1 : 3 * number + 3]
        shares: Counter[str] = Counter()

        for path in many:
            shares[_share(path)] += many[path] - few[path]

        rows.append([title, *(f'{shares[part] / (2 * _TIMES):,.0f}' for part in ('ssh_fast', 'libcrypto', 'the rest'))])

    print(f'Instructions for {_PACKET} bytes in one packet; libcrypto as valgrind lets it choose its instructions\n')
    print(table(['work', 'ssh_fast', 'libcrypto', 'interpreter, libc'], rows))

    return 0


if __name__ == '__main__':
    if sys.argv[1:] == ['work']:
        _work_all()
    else:
        sys.exit(main())
