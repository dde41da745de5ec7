"""CPU time and memory of processes and of the whole machine, as the kernel counts them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

MIB = 1 << 20
GIB = 1 << 30

_PROC = sys.platform == 'linux'
_TICKS = os.sysconf('SC_CLK_TCK')


class Process(NamedTuple):
    """One process: CPU seconds (user and system) of itself and of the ended children that it waited for."""

    pid: int
    parent: int
    cpu: float


def _read_processes() -> dict[int, Process]:
    found = {}

    for entry in os.scandir('/proc'):
        if not entry.name.isdigit():
            continue

        try:
            stat = Path(entry.path, 'stat').read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue

        # The name in parentheses may hold anything; after it come state, parent ..., and as 12th to 15th the times.
        fields = stat[stat.rindex(b')') + 2 :].split()
        pid = int(entry.name)
        found[pid] = Process(pid, int(fields[1]), sum(map(int, fields[11:15])) / _TICKS)

    return found


def _ask_ps() -> dict[int, Process]:
    """Read the processes where there is no /proc; the times of ended children are then lost."""

    rows = subprocess.run(['ps', '-A', '-o', 'pid=,ppid=,time='], check=True, capture_output=True, text=True).stdout
    found = {}

    for row in rows.splitlines():
        pid, parent, time = row.split()
        cpu = 0.0

        for part in re.split('[-:]', time):
            cpu = cpu * 60 + float(part)

        found[int(pid)] = Process(int(pid), int(parent), cpu)

    return found


def process_tree(root: int) -> list[Process]:
    """Return the process `root` and all that descend from it, parents first; empty if it has ended."""

    processes = _read_processes() if _PROC else _ask_ps()
    tree = [processes[root]] if root in processes else []

    for member in tree:    # grows while it is walked
        tree += [process for process in processes.values() if process.parent == member.pid]

    return tree


def peak_memory(pids: Iterable[int]) -> int:
    """Return the sum of the processes' peaks of resident memory (VmHWM), in bytes; 0 where it is not known."""

    total = 0

    for pid in pids:
        try:
            status = Path(f'/proc/{pid}/status').read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue

        if peak := re.search(r'^VmHWM:\s+(\d+) kB', status, re.MULTILINE):
            total += int(peak[1]) * 1024

    return total


def machine_cpu() -> tuple[float, float]:
    """Return the CPU seconds that all processors were busy since boot, and those that the host took away."""

    if not _PROC:
        return 0.0, 0.0

    with open('/proc/stat') as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, stat.readline().split()[1:])

    return (user + nice + system + irq + softirq) / _TICKS, steal / _TICKS


@dataclass
class Usage:
    """What a stretch of work took: CPU seconds by side, and those of everything else on the machine."""

    sides: dict[str, float]
    others: float
    stolen: float


class Meter:
    """Counts the CPU seconds that named sides, each a process and its descendants, use between `start` and `stop`."""

    def __init__(self, **roots: int) -> None:
        self._roots = roots

    def _read(self) -> dict[str, float]:
        return {side: sum(process.cpu for process in process_tree(root)) for side, root in self._roots.items()}

    def start(self) -> None:
        self._sides = self._read()
        self._own = sum(os.times()[:4])
        self._machine = machine_cpu()

    def stop(self) -> Usage:
        busy, stolen = (now - before for now, before in zip(machine_cpu(), self._machine, strict=True))
        own = sum(os.times()[:4]) - self._own
        sides = {side: cpu - self._sides[side] for side, cpu in self._read().items()}

        return Usage(sides, max(0.0, busy - own - sum(sides.values())), stolen)
