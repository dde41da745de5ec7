"""The conditions of a measurement: machine, system and the versions of everything that takes part."""

import ctypes
import datetime
import importlib
import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.measure import GIB
from benchmarks.peers import ROOT


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ''


def _ask(*command: str) -> str:
    try:
        run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    except FileNotFoundError:
        return ''

    return (run.stdout + run.stderr).strip() if run.returncode == 0 else ''


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ''


def _own_libcrypto() -> str:
    """Return the version of the libcrypto that ssh_fast's compiled modules have loaded."""

    try:
        importlib.import_module('ssh_fast._cipher')
    except ImportError:
        return ''

    if path := re.search(r'(/\S*/libcrypto\.so\S*)', _read('/proc/self/maps')):
        tell = ctypes.CDLL(path[1]).OpenSSL_version
        tell.restype = ctypes.c_char_p

        return str(tell(0).decode())

    return ''


def _cryptography_libcrypto() -> str:
    try:
        from cryptography.hazmat.backends.openssl import backend
    except ImportError:
        return ''

    return str(backend.openssl_version_text())


def _processor() -> str:
    model = re.search(r'^model name\s*:\s*(.+)$', _read('/proc/cpuinfo'), re.MULTILINE)

    return model[1] if model else platform.processor()


def _place(folder: Path) -> str:
    df = _ask('df', '-T', str(folder)).splitlines()

    return f'{folder} ({df[-1].split()[1]})' if df else str(folder)


def conditions(folder: Path) -> dict[str, str]:
    """Return what the figures of a run depend on, by name; what is not there or not known is left out."""

    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / GIB
    found = {
        'date': datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%d %H:%M UTC'),
        'revision': _ask('git', 'describe', '--always', '--dirty'),
        'processor': f'{_processor()}, {os.cpu_count()} CPUs, {memory:.0f} GiB of memory',
        'system': f'{platform.system()} {platform.release()}',
        'TCP': f'loopback, {_read("/proc/sys/net/ipv4/tcp_congestion_control")}',
        'files': f'both ends in {_place(folder)}; existing files are overwritten',
        'Python': f'{platform.python_implementation()} {platform.python_version()}',
        'libcrypto of ssh_fast': _own_libcrypto(),
        'OpenSSH': _ask('ssh', '-V') if shutil.which('ssh') else '',
        'AsyncSSH': _package('asyncssh'),
        'libcrypto of cryptography, which AsyncSSH uses': _cryptography_libcrypto(),
        'load at the start': ' '.join(f'{load:.2f}' for load in os.getloadavg()),
    }

    return {name: value for name, value in found.items() if value}
