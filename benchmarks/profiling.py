"""Where the two ends of a transfer spend their CPU time, by sampling with perf: bench_sftp --profile [--pairs ...]."""

import argparse
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.bench_sftp import LIMITS, Bench, Job
from benchmarks.measure import Meter, Usage, process_tree
from benchmarks.peers import Program

_RATE = 1999    # samples a second; odd, so that it does not fall in step with timers
_TOP = 12
# The first that matches the path of an object names its share.
_SHARES = [
    ('kernel', re.compile(r'kernel|kallsyms|\.ko$|\[guest')),
    ('libcrypto', re.compile(r'libcrypto|_rust.*\.so')),
    ('ssh_fast', re.compile(r'ssh_fast/_.*\.so')),
    ('interpreter', re.compile(r'python|/lib-dynload/|uvloop')),
    ('OpenSSH', re.compile(r'/(ssh|sshd|sftp|sftp-server|sshd-session)$')),
    ('libc and the rest', re.compile('')),
]
# What `perf script -F pid,ip,sym,dso` gives for a sample.
_SAMPLE = re.compile(r'\s*(\d+)\s+[0-9a-f]+\s+(.*?)\s+\((.*)\)\s*')


def _share(dso: str) -> str:
    return next(name for name, pattern in _SHARES if pattern.search(dso))


def _print_samples(side: str, samples: list[tuple[str, str]], cpu: float) -> None:
    shares = Counter(_share(dso) for _, dso in samples)
    print(f'\n{side}: {cpu:.2f} s of CPU, {len(samples)} samples')

    for name, count in shares.most_common():
        print(f'  {100 * count / len(samples):5.1f} %  {name}')

    print('  of which')

    for (symbol, dso), count in Counter(samples).most_common(_TOP):
        print(f'  {100 * count / len(samples):5.1f} %  {symbol} ({Path(dso).name})')


def _record(pids: list[int], data: Path) -> subprocess.Popen[bytes]:
    command = ['perf', 'record', '-q', '-F', str(_RATE), '-o', str(data), '-p', ','.join(map(str, pids))]
    recorder = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    time.sleep(0.5)    # until it is attached

    return recorder


def _read(data: Path) -> list[tuple[int, str, str]]:
    command = ['perf', 'script', '-i', str(data), '-F', 'pid,ip,sym,dso']
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = (_SAMPLE.fullmatch(line) for line in text.splitlines())

    return [(int(one[1]), one[2] or '[unknown]', one[3]) for one in found if one]


def _profile(bench: Bench, job: Job, data: Path) -> bool:
    with bench.connected(job) as (server, client, transfer):
        ends: dict[str, Program] = {'client': client, 'server': server}
        trees = {side: [process.pid for process in process_tree(end.pid)] for side, end in ends.items()}
        recorder = _record([pid for tree in trees.values() for pid in tree], data) if shutil.which('perf') else None

        try:
            meter = Meter(client=client.pid, server=server.pid)
            meter.start()
            began = time.perf_counter()
            transfer()
            wall = time.perf_counter() - began
            usage = meter.stop()
        finally:
            if recorder:
                recorder.send_signal(signal.SIGINT)
                said = recorder.communicate()[1].decode(errors='replace')

        client.wait()

    print(f'\n=== {job}: {job.size / 1e6 / wall:.0f} MB/s while sampled')
    samples = _read(data) if recorder and data.exists() else []

    if not samples:
        _print_without_perf(usage, said.strip() if recorder else 'perf is not installed')

        return False

    for side, pids in trees.items():
        if mine := [(symbol, dso) for pid, symbol, dso in samples if pid in pids]:
            _print_samples(side, mine, usage.sides[side])

    return True


def _print_without_perf(usage: Usage, why: str) -> None:
    print(f'No samples: {why}')

    for side, cpu in usage.sides.items():
        print(f'{side}: {cpu:.2f} s of CPU')


def profile_pair(bench: Bench, pair: str, options: argparse.Namespace) -> int:
    """Print the shares of kernel, libcrypto, interpreter and own modules, for each direction; 0 if all were sampled."""

    if pair in LIMITS:
        print('--profile: limit.c connects by itself; use perf record on it')

        return 2

    with tempfile.TemporaryDirectory(prefix='profile.') as folder:
        jobs = [Job(pair, options.ciphers[0], direction, options.size) for direction in options.directions]
        sampled = [_profile(bench, job, Path(folder, f'{job.direction}.data')) for job in jobs]

    return 0 if all(sampled) else 1
