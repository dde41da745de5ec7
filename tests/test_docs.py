"""The documents say what is so: their code runs, their links and names lead somewhere, their tables are compared."""

import ast
import inspect
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from ssh_fast.connection import options
from tests.interop import peers
from tests.interop.peers import LOOPBACK
from tests.test_floors import FLOORS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'ssh_fast'
DOCUMENTS = [*(ROOT / name for name in ('README.md', 'CHANGELOG.md', 'CONTRIBUTING.md')), *(ROOT / 'docs').glob('*.md')]
README, ARCHITECTURE = ROOT / 'README.md', ROOT / 'docs/architecture.md'
COMPATIBILITY = (ROOT / 'docs/compatibility.md').read_text()
ASYNCSSH: dict[str, Any] = json.loads((ROOT / 'tests/asyncssh_names.json').read_text())
SECONDS = 30


def blocks(path: Path) -> Iterator[tuple[str, str]]:
    """Find the code blocks of a document: language and text."""
    yield from re.findall(r'^```(\w*)\n(.*?)^```$', path.read_text(), re.MULTILINE | re.DOTALL)


def section(text: str, title: str) -> str:
    """Return what stands below a heading, up to the next one of its level."""
    found = re.search(rf'^## {re.escape(title)}\n(.*?)(?=^## |\Z)', text, re.MULTILINE | re.DOTALL)
    assert found, f'there is no section {title}'
    return found[1]


def rows(text: str) -> list[list[str]]:
    """Return the cells of a table's rows, without its head."""
    lines = [line for line in text.splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[2:]]


def marked(cell: str) -> list[str]:
    """Return what stands between backticks."""
    return re.findall(r'`([^`]+)`', cell)


def listed(title: str, column: int = 1) -> list[str]:
    """Return the names in one column of the table in a section of the page on compatibility."""
    return [name for row in rows(section(COMPATIBILITY, title)) for name in marked(row[column])]


# --- code ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda path: path.name)
def test_blocks_are_well_formed(path: Path) -> None:
    for language, text in blocks(path):
        if language == 'python':
            compile(text, path.name, 'exec')
        elif language == 'sh':
            subprocess.run(['bash', '-n'], input=text, text=True, check=True)
        else:
            assert language == 'text', f'{path.name} has a block of {language or "nothing"}'
    assert path.read_text().count('```') % 2 == 0


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_exist(path: Path) -> None:
    for target in set(re.findall(r'(?:^|`)make ([a-z][a-z-]*)', path.read_text(), re.MULTILINE)):
        subprocess.run(['make', '-n', target], cwd=ROOT, check=True, capture_output=True)


def readme_block(word: str) -> str:
    return next(text for language, text in blocks(README) if language == 'python' and word in text)


def test_short_programs_are_short() -> None:
    for word in ('ssh_fast.connect', 'ssh_fast.listen'):
        lines = [line for line in readme_block(word).splitlines() if line.strip()]
        assert len(lines) <= 10


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a program of a document in a folder, as a user whose home is tmp_path/home."""
    started: list[subprocess.Popen[str]] = []

    def start(text: str, folder: Path) -> subprocess.Popen[str]:
        environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'HOME': str(tmp_path / 'home')}
        started.append(
            subprocess.Popen(
                [sys.executable, '-c', text],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start

    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.skipif('CI' not in os.environ and shutil.which('ssh-keygen') is None, reason='there is no ssh-keygen')
def test_readme_client_and_server(program: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    served, ours, home = (tmp_path / name for name in ('served', 'ours', 'home/.ssh'))
    for folder in (served, ours / 'tree/below', home):
        folder.mkdir(parents=True)
    content = os.urandom(3_000_000)
    (served / 'big.bin').write_bytes(content)
    (ours / 'tree/below/file').write_bytes(b'content')

    # The command that the README gives, and what its reader has at home.
    subprocess.run("ssh-keygen -q -t ed25519 -N '' -f host_key", shell=True, cwd=served, check=True)
    subprocess.run("ssh-keygen -q -t ed25519 -N '' -f id_ed25519", shell=True, cwd=home, check=True)
    shutil.copy(home / 'id_ed25519.pub', served / 'keys')
    port = peers.free_port()
    (home / 'known_hosts').write_text(f'[{LOOPBACK}]:{port} {(served / "host_key.pub").read_text()}')

    text = readme_block('ssh_fast.listen')
    assert text.count("'', 8022") == 1
    server = program(text.replace("'', 8022", f"'', {port}"), served)
    wait_for(server, port)

    text = readme_block('ssh_fast.connect')
    assert text.count("'files.example.org', ") == 1
    client = program(text.replace("'files.example.org', ", f"'{LOOPBACK}', {port}, "), ours)
    shown, errors = client.communicate(timeout=SECONDS)
    assert (client.returncode, errors) == (0, '')
    assert shown.splitlines()[-1].startswith('big.bin: ') or 'big.bin: 3000000 of 3000000 bytes' in shown
    assert (ours / 'big.bin').read_bytes() == content
    assert (served / 'tree/below/file').read_bytes() == b'content'


def wait_for(server: subprocess.Popen[str], port: int) -> None:
    give_up = time.monotonic() + SECONDS
    while time.monotonic() < give_up:
        if server.poll() is not None:
            raise AssertionError(server.communicate()[1])
        try:
            socket.create_connection((LOOPBACK, port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError('the server does not listen')


def test_readme_sftp_factory(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(readme_block('chroot').replace('/srv/files', str(tmp_path)), names)
    assert isinstance(names['sftp_factory'](None), ssh_fast.SFTPServer)


def test_readme_has_a_place_for_the_benchmark_table() -> None:
    text = README.read_text()
    assert text.count('<!-- benchmark table -->') == text.count('<!-- end -->') == 1
    assert text.index('<!-- benchmark table -->') < text.index('<!-- end -->')


def test_changelog_and_package_agree_on_the_version() -> None:
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    newest = re.search(r'^## (\S+)', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == project['version'] == ssh_fast.__version__


# --- links and names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r'\]\(([^)#]+)[^)]*\)', path.read_text()):
        assert link.startswith('https://') or (path.parent / link).exists(), link


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(path: Path) -> None:
    for name in re.findall(r'`((?:[\w.]+/)+[\w.]*)`', path.read_text()):
        if not name.startswith(('.ssh', 'benchmarks/results')):
            assert (ROOT / name).exists() or (PACKAGE / name).exists(), name


def defined() -> set[str]:
    """Return every class, function, method and public attribute that the package's source defines."""
    names = set()
    for path in PACKAGE.rglob('*'):
        if path.suffix in ('.py', '.pyx', '.pxd'):
            text = path.read_text()
            names |= set(re.findall(r'(?:def|class) (\w+)', text))
            names |= set(re.findall(r'cdef [^(=#\n]*?(\w+)\(', text))
            names |= set(re.findall(r'cdef (?:public|readonly) \w+ (\w+)$', text, re.MULTILINE))
    return names


def test_architecture_names_what_there_is() -> None:
    known = defined()
    for text in marked(re.sub(r'```.*?```', '', ARCHITECTURE.read_text(), flags=re.DOTALL)):
        if re.fullmatch(r'[A-Z]\w+(\.\w+)?', text) and not text.isupper():
            for name in text.split('.'):
                assert name in known, text


def test_architecture_has_the_floors_as_they_are() -> None:
    table = {int(row[0]): tuple(marked(row[1])) for row in rows(section(ARCHITECTURE.read_text(), 'Floors'))}
    assert table == FLOORS


# --- AsyncSSH --------------------------------------------------------------------------------------------------------


def shape(function: Any) -> str:
    """Describe parameters as the data file does: names in order, `=` where there is a default, `*` before keywords."""
    words, keywords_only = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            keywords_only = True
            words.append(f'*{parameter.name}')
        elif parameter.kind is parameter.VAR_KEYWORD:
            words.append(f'**{parameter.name}')
        else:
            if parameter.kind is parameter.KEYWORD_ONLY and not keywords_only:
                keywords_only = True
                words.append('*')
            words.append(parameter.name + ('=' if parameter.default is not parameter.empty else ''))
    return ' '.join(words)


def members(kind: str) -> Iterator[tuple[str, Any, Any]]:
    """Go through the methods or properties of AsyncSSH's classes that we have: full name, theirs, ours or None."""
    for name, entry in ASYNCSSH['names'].items():
        if hasattr(ssh_fast, name):
            for member in entry.get(kind, ()):
                ours = getattr(getattr(ssh_fast, name), member, None)
                yield f'{name}.{member}', entry[kind][member] if kind == 'methods' else None, ours


def test_absent_names_are_those_listed() -> None:
    absent = [name for name in ASYNCSSH['names'] if not hasattr(ssh_fast, name)]
    assert sorted(listed('Absent names')) == sorted(absent)
    assert f'Of {len(ASYNCSSH["names"])} names of AsyncSSH' in COMPATIBILITY
    assert f'AsyncSSH {ASYNCSSH["version"]}' in COMPATIBILITY


def test_names_that_are_there_are_public() -> None:
    present = {name for name, entry in ASYNCSSH['names'].items() if entry['kind'] != 'constant'}
    present -= set(listed('Absent names'))
    assert present <= set(ssh_fast.__all__)


def test_absent_methods_are_those_listed() -> None:
    absent = [name for name, _, ours in members('methods') if ours is None]
    assert sorted(listed('Absent methods')) == sorted(absent)


def test_every_callback_is_called() -> None:
    classes = [ssh_fast.SSHClient, ssh_fast.SSHServer, ssh_fast.SSHClientSession, ssh_fast.SSHServerSession]
    declared = {PACKAGE / 'connection/callbacks.py', PACKAGE / 'channel/session.py'}
    source = '\n'.join(path.read_text() for path in PACKAGE.rglob('*.py') if path not in declared)
    used = set(re.findall(r"[.'](\w+)", source))
    callbacks = [(made.__name__, name) for made in classes for name in vars(made) if not name.startswith('_')]
    assert [f'{made}.{name}' for made, name in callbacks if name not in used] == []


def test_all_properties_are_there() -> None:
    assert [name for name, _, ours in members('properties') if ours is None] == []


def test_parameters_are_the_same_but_for_those_listed() -> None:
    different = []
    for name, entry in ASYNCSSH['names'].items():
        if 'params' in entry and hasattr(ssh_fast, name) and shape(getattr(ssh_fast, name)) != entry['params']:
            different.append(name)
    for name, theirs, ours in members('methods'):
        if ours is not None and shape(ours) != (theirs.removeprefix('cls ') if inspect.ismethod(ours) else theirs):
            different.append(name)
    assert sorted(listed('Other parameters', 0)) == sorted(different)


@pytest.mark.parametrize('side', ['client', 'server'])
def test_options_are_the_same_but_for_those_listed(side: str) -> None:
    made: Any = {'client': options.SSHClientConnectionOptions, 'server': options.SSHServerConnectionOptions}[side]
    theirs = set(ASYNCSSH['options'][made.__name__].split())

    def on_this_side(title: str) -> list[str]:
        return [name for row in rows(section(COMPATIBILITY, title)) if row[0] == side for name in marked(row[1])]

    assert theirs <= made._options.keys() | made._unsupported.keys()
    assert sorted(on_this_side('Refused options')) == sorted(theirs & made._unsupported.keys())
    assert sorted(on_this_side('Options of our own')) == sorted(made._options.keys() - theirs)


def test_data_file_is_well_formed() -> None:
    for name, entry in ASYNCSSH['names'].items():
        for parameters in (entry.get('params', ''), *entry.get('methods', {}).values()):
            text = re.sub(r'=(?= |$)', '=0', parameters).replace(' ', ', ')
            ast.parse(f'def f({text}): pass'), name
