"""The floors: who may import whom, what each file must have, and how long it may be; there is no exceptions list."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / 'ssh_fast'

# Floor -> the units on it (modules or packages directly below ssh_fast).
FLOORS = {
    0: ('logging', 'constants', 'errors', 'wire', 'gss_context', 'opening', '_openssl', '_wire', '_window_growth'),
    1: (
        '_cipher_modes', '_cipher_registered', '_cipher', '_packet', '_queue', '_flow', '_datagrams', '_file_lanes',
        '_sftp_messages', '_sftp_pipeline', '_sftp_codec', '_power',
    ),
    2: ('keys',),
    3: ('transport', 'userauth'),
    4: ('channel',),
    5: ('process', 'sftp', 'forwarding', 'agent'),
    6: ('connection',),
    7: ('endpoints', 'scp', 'sync', 'filesystem', 'asyncssh_config', 'asyncssh_alias', '__init__', 'cli'),
}
FLOOR_OF = {unit: floor for floor, units in FLOORS.items() for unit in units}
ORDERED = {0, 1, 7}    # a unit here may import those that stand before it on its floor; elsewhere siblings may not
CEILINGS = {'.py': 600, '.pyi': 600, '.pyx': 800, '.pxd': 800}
CLOCKS_AND_LOOPS = {'asyncio', 'uvloop', 'logging', 'time', 'libc.time', 'posix.time', 'cpython.time'}
VAGUE_NAMES = {'utils', 'util', 'misc', 'helpers', 'common'}

Import = tuple[str, str]    # a module's full name, the name taken from it or ''


def sources(package: Path) -> list[Path]:
    """List the source files of the package."""
    return sorted(path for path in package.rglob('*') if path.suffix in CEILINGS and path.is_file())


def unit_of(package: Path, path: Path) -> str:
    """Name the unit that a file belongs to: its folder or module directly below the package."""
    return path.relative_to(package).parts[0].partition('.')[0]


def may_import(unit: str, other: str) -> bool:
    """Say whether the floor table lets `unit` import `other`."""
    floor, other_floor = FLOOR_OF[unit], FLOOR_OF[other]
    if unit == other:
        return True
    if floor == other_floor:
        return floor in ORDERED and FLOORS[floor].index(other) < FLOORS[floor].index(unit)
    if floor == 4:
        return other_floor <= 2
    return other_floor < floor


def absolute(package: Path, path: Path, level: int, module: str) -> str:
    """Resolve the module of a relative import in the file at `path`."""
    if level == 0:
        return module
    parents = [package.name, *path.relative_to(package).parts[:-1]]
    base = parents[: len(parents) - (level - 1)]
    return '.'.join([*base, module] if module else base)


def python_imports(package: Path, path: Path) -> Iterator[Import]:
    """Find every import of a Python file or stub, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ''
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield absolute(package, path, node.level, node.module or ''), alias.name


def cython_imports(package: Path, path: Path) -> Iterator[Import]:
    """Find every import and cimport of a Cython file; strings and comments are taken out first."""
    string = r'("""|\'\'\'|"|\')(?:\\.|(?!\1).)*?\1'
    kept = path.read_text()
    code = re.sub(rf'(?s:{string})|#[^\n]*', lambda match: '' if match[0].startswith('#') else "''", kept)
    code = code.replace('\\\n', ' ')
    code = re.sub(r'\(([^()]*)\)', lambda match: f'({" ".join(match[1].split())})', code)    # one line per statement
    statement = r'^[ \t]*(?:from[ \t]+(\.*)([\w.]*)[ \t]+c?import[ \t]+(.+)|c?import[ \t]+(.+))$'
    for dots, module, names, modules in re.findall(statement, code, re.MULTILINE):
        for name in (names or modules).strip().strip('()').split(','):
            if taken := name.split()[0] if name.split() else '':
                yield (absolute(package, path, len(dots), module), taken) if names else (taken, '')


def imports(package: Path, path: Path) -> Iterator[Import]:
    """Find every import of a source file."""
    return (python_imports if path.suffix in ('.py', '.pyi') else cython_imports)(package, path)


def imported_unit(package: Path, module: str, name: str) -> str | None:
    """Name our unit that an import reaches; None if it is not ours."""
    root, *rest = module.split('.')
    if root != package.name:
        return None
    if rest:
        return rest[0]
    names_unit = (package / name).is_dir() or any((package / f'{name}{suffix}').exists() for suffix in CEILINGS)
    return name if name and names_unit else '__init__'


def import_faults(package: Path) -> list[str]:
    """List the imports that the floor table forbids, and clocks, loops and logs where none may be."""
    faults = []
    for path in sources(package):
        unit, where = unit_of(package, path), path.relative_to(package)
        if unit not in FLOOR_OF:
            faults.append(f'{where}: {unit} stands on no floor')
            continue
        for module, name in imports(package, path):
            other = imported_unit(package, module, name)
            if other is not None and other not in FLOOR_OF:
                faults.append(f'{where}: imports {other}, which stands on no floor')
            elif other is not None and not may_import(unit, other):
                faults.append(f'{where}: floor {FLOOR_OF[unit]} imports {other} of floor {FLOOR_OF[other]}')
            elif other == 'logging' and FLOOR_OF[unit] in (1, 3) and name != 'printable':
                faults.append(f'{where}: floor {FLOOR_OF[unit]} logs')
            elif FLOOR_OF[unit] <= 3 and {module, f'{module}.{name}'} & CLOCKS_AND_LOOPS and unit != 'logging':
                faults.append(f'{where}: floor {FLOOR_OF[unit]} imports {module}')
        if re.search(r'\bTYPE_CHECKING\b', path.read_text()):
            faults.append(f'{where}: uses TYPE_CHECKING')
    return list(dict.fromkeys(faults))


def shape_faults(package: Path) -> list[str]:
    """List the files that are too long, vaguely named, without a docstring or a stub, or that include another."""
    faults = []
    for path in sources(package):
        text, where = path.read_text(), path.relative_to(package)
        if (lines := text.count('\n')) > CEILINGS[path.suffix]:
            faults.append(f'{where}: {lines} lines, the ceiling is {CEILINGS[path.suffix]}')
        if path.stem in VAGUE_NAMES:
            faults.append(f'{where}: a name that says nothing')
        if not re.match(r'(?:\s*#[^\n]*\n|\s*\n)*"""\S[^\n]*[.:"]\s*\n', text):
            faults.append(f'{where}: begins with no docstring whose first line is a sentence')
        if path.suffix == '.pyx' and not path.with_suffix('.pyi').exists():
            faults.append(f'{where}: has no .pyi beside it')
        if path.suffix in ('.pyx', '.pxd') and re.search(r'^[ \t]*include[ \t]+[\'"]', text, re.MULTILINE):
            faults.append(f'{where}: includes another file')
    return faults


# Run in a child: each module is imported in a process forked for it, below a bare package in place of ssh_fast, so
# that neither __init__ nor a module imported earlier hides a missing or circular import.
IMPORT_ALONE = """
import asyncio, importlib, json, os, sys, traceback, types
import bcrypt, cryptography.hazmat.primitives.asymmetric.rsa, cryptography.x509, nacl.signing
path, *names = sys.argv[1:]
for name in names:
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        if name != 'ssh_fast':
            package = types.ModuleType('ssh_fast')
            package.__path__ = [path]
            sys.modules['ssh_fast'] = package
        try:
            importlib.import_module(name)
            answer = sorted(module for module in sys.modules if module.startswith('ssh_fast.'))
        except BaseException:
            answer = traceback.format_exc()
        with open(theirs, 'w') as stream:
            json.dump(answer, stream)
        os._exit(0)
    os.close(theirs)
    with open(ours) as stream:
        print(json.dumps([name, json.loads(stream.read() or '"the process died"')]))
    os.waitpid(pid, 0)
"""


def modules(package: Path) -> dict[str, str]:
    """Map every importable module of the package to its unit."""
    found = {}
    for path in sources(package):
        if path.suffix in ('.py', '.pyx'):
            parts = [package.name, *path.relative_to(package).with_suffix('').parts]
            found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = unit_of(package, path)
    return found


def test_floor_table() -> None:
    faults = import_faults(PACKAGE)
    assert not faults, '\n'.join(faults)


def test_file_shapes() -> None:
    faults = shape_faults(PACKAGE)
    assert not faults, '\n'.join(faults)


def test_each_module_imports_alone() -> None:
    units = modules(PACKAGE)
    command = [sys.executable, '-c', IMPORT_ALONE, str(PACKAGE), *units]
    child = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=300, check=False)
    assert child.returncode == 0, child.stderr
    results = dict(json.loads(line) for line in child.stdout.splitlines())
    assert results.keys() == units.keys()

    for name, loaded in results.items():
        assert isinstance(loaded, list), f'{name} does not import alone: {loaded}'
        above = {other for other in loaded if not may_import(units[name], other.split('.')[1])}
        assert above == set(), f'importing {name} loads {above}'


def plant(tmp_path: Path, files: dict[str, str]) -> Path:
    """Write a small package to check."""
    package = tmp_path / 'ssh_fast'
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


@pytest.mark.parametrize(
    ('name', 'line'),
    [
        ('wire.py', 'from . import keys'),
        ('wire.py', 'from . import something'),
        ('wire.py', 'import ssh_fast'),
        ('errors.py', 'from .wire import encode_string'),
        ('transport/rekey.py', 'from ..userauth import client'),
        ('transport/rekey.py', 'from ...ssh_fast.connection import x'),
        ('transport/kex/dh.py', 'from ...connection.connection import SSHConnection'),
        ('transport/rekey.py', 'def now():\n    import time'),
        ('transport/rekey.py', 'from ..logging import logger'),
        ('channel/mux.py', 'from ..transport.transport import Transport'),
        ('sftp/client.py', 'import ssh_fast.agent.client'),
        ('keys/load.py', 'import asyncio'),
        ('keys/load.py', 'from typing import TYPE_CHECKING'),
        ('endpoints.py', 'from . import __version__'),
        ('_cipher.pyx', 'from ssh_fast._packet cimport ByteSink'),
        ('_cipher.pxd', 'from ssh_fast cimport (\n    _wire,    # a comment\n    _packet,\n)'),
        ('_packet.pyx', 'cimport ssh_fast._sftp_codec as codec'),
        ('_packet.pyx', 'def f():\n    from libc.time cimport time'),
        ('_packet.pyx', 'from libc cimport time'),
        ('_packet.pyx', "A = '\"'; B = 1\nfrom .keys import load"),
        ('oddity.py', ''),
    ],
)
def test_import_fault_is_found(tmp_path: Path, name: str, line: str) -> None:
    others = {'keys/__init__.py': '', '_packet.pxd': '', '_wire.pxd': ''}
    assert import_faults(plant(tmp_path, {**others, name: f'"""Something."""\n\n{line}\n'})) != []


@pytest.mark.parametrize(
    ('name', 'line'),
    [
        ('wire.py', 'from . import constants\nfrom .errors import Error'),
        ('transport/kex/dh.py', 'from ...keys.key import SSHKey\nfrom ..algorithms import x'),
        ('transport/negotiation.py', 'from ..logging import printable'),
        ('channel/mux.py', 'import asyncio\nfrom .._packet import ChannelFlow'),
        ('connection/connection.py', 'import time\nfrom ..sftp.client import SFTPClient'),
        ('__init__.py', 'from .endpoints import connect'),
        ('_packet.pyx', '"""from ssh_fast.connection import x"""\nfrom ssh_fast._cipher cimport Plain  # import time'),
        ('_packet.pyx', 'cdef extern from "time.h":\n    pass'),
    ],
)
def test_import_that_is_right_passes(tmp_path: Path, name: str, line: str) -> None:
    assert import_faults(plant(tmp_path, {'constants.py': '', name: f'"""Something."""\n\n{line}\n'})) == []


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('wire.py', 'import os\n'),
        ('wire.py', '"""\nBegins late.\n"""\n'),
        ('wire.py', '"""Long."""\n' + '\n' * 601),
        ('_wire.pxd', '"""Long."""\n' + '\n' * 801),
        ('keys/utils.py', '"""Something."""\n'),
        ('_cipher.pyx', '# cython: x=1\n"""No stub."""\n'),
        ('_wire.pxd', '"""Included."""\ninclude "other.pxi"\n'),
    ],
)
def test_shape_fault_is_found(tmp_path: Path, name: str, text: str) -> None:
    assert len(shape_faults(plant(tmp_path, {name: text}))) == 1
