"""Attacks on SCP that the field has seen: a server that sends what was not asked for, and a client that does."""

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from tests.security.peer import HOST_KEY, LOOPBACK, client_options, resident_kib, serving

ENDS = (ssh_fast.SFTPError, OSError)


class HostileScp:
    """A server whose scp does what a script says; it keeps the commands and what it was told."""

    def __init__(self, script: Any) -> None:
        self.commands: list[str] = []
        self.begin(script)

    def begin(self, script: Any) -> None:
        """Do this for the next command."""
        self.script, self.told, self.ended = script, b'', asyncio.Event()

    async def run(self, process: Any) -> None:
        self.commands.append(process.command)
        try:
            if isinstance(self.script, bytes):
                process.stdout.write(self.script)
                process.stdout.write_eof()
            else:
                await self.script(process)
            while piece := await process.stdin.read(65536):
                self.told += piece
        except (OSError, ssh_fast.Error):
            pass
        finally:
            process.exit(0)
            self.ended.set()


@contextlib.asynccontextmanager
async def hostile(script: Any) -> AsyncIterator[tuple[HostileScp, Any]]:
    """Serve a script as scp; yield it, and a connection to it."""
    made = HostileScp(script)
    options = {'server_host_keys': [HOST_KEY], 'encoding': None, 'process_factory': made.run}

    class Owner(ssh_fast.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return False

    async with ssh_fast.listen(LOOPBACK, 0, server_factory=Owner, **options) as server:
        async with ssh_fast.connect(LOOPBACK, server.get_port(), **client_options()) as conn:
            yield made, conn


def everything(folder: Path) -> dict[str, Any]:
    """Describe all that there is in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else 'folder'
        for path in sorted(folder.rglob('*'))
    }


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A destination with a file in it, and another one that nothing may touch, beside it."""
    target = tmp_path / 'target'
    target.mkdir()
    (target / '.bashrc').write_text('mine')
    (tmp_path / 'outside').mkdir()
    (tmp_path / 'outside/file').write_text('untouched')
    target.chmod(0o750)
    return tmp_path, target


def file(name: bytes, data: bytes = b'evil', mode: bytes = b'0644') -> bytes:
    return b'C%s %d %s\n%s\0' % (mode, len(data), name, data)


# --- a server's names


NAMES = [
    b'', b'.', b'..', b'/', b'/etc/passwd', b'../outside/file', b'..\\x', b'a/../../outside/file', b'x/y', b'file/',
    b'a\0b', b'\x1b[31mfile', b'file\r', b'other', b'.bashrc', b'FILE', b'file ', b' file',
]  # fmt: skip


@pytest.mark.parametrize('kind', ['file', 'directory'])
@pytest.mark.parametrize('recurse', [False, True])
async def test_cve_2019_6111_a_name_that_was_not_asked_for(
    places: tuple[Path, Path], kind: str, recurse: bool
) -> None:
    """A server that answers a request for `file` with anything else writes nothing, and is told so."""
    top, target = places
    before = everything(top)
    async with hostile(b'') as (server, conn):
        for name in NAMES:
            directory = b'D0777 0 ' + name + b'\n' + file(b'file') + b'E\n'
            server.begin(file(name) if kind == 'file' else directory)
            with pytest.raises(ssh_fast.SFTPBadMessage, match='Expected'):
                await ssh_fast.scp((conn, 'dir/file'), target, recurse=recurse)
            await server.ended.wait()
            assert everything(top) == before, name
            assert server.told.startswith(b'\0\2scp: Expected'), name


@pytest.mark.parametrize('name', [b'.bashrc', b'b.txt.exe', b'..txt/../x', b'.txt', b'a.tx', b'.a.txt'])
async def test_cve_2019_6111_a_name_that_does_not_match_the_pattern(places: tuple[Path, Path], name: bytes) -> None:
    top, target = places
    before = everything(top)
    async with hostile(file(b'good.txt', b'good') + file(name)) as (_, conn):
        with pytest.raises(ssh_fast.SFTPBadMessage, match='Expected'):
            await ssh_fast.scp((conn, '*.txt'), target)
    assert everything(top) == {**before, 'target/good.txt': b'good'}


async def test_cve_2019_6111_more_than_one_file(places: tuple[Path, Path]) -> None:
    """Nor does the file that was asked for come twice, into a directory or onto a name."""
    for target in (places[1], places[1] / 'name'):
        async with hostile(file(b'file', b'first') + file(b'file', b'second')) as (_, conn):
            with pytest.raises(ssh_fast.SFTPBadMessage, match='Expected one file'):
                await ssh_fast.scp((conn, 'file'), target)
    assert (places[1] / 'file').read_bytes() == (places[1] / 'name').read_bytes() == b'first'


async def test_cve_2019_6111_several_matches_onto_one_name(places: tuple[Path, Path]) -> None:
    async with hostile(file(b'a', b'first') + file(b'b', b'second')) as (_, conn):
        with pytest.raises(ssh_fast.SFTPNotADirectory, match='must be a directory'):
            await ssh_fast.scp((conn, '*'), places[1] / 'name')
    assert (places[1] / 'name').read_bytes() == b'first'


@pytest.mark.parametrize('name', [b'', b'.'])
async def test_cve_2018_20685_the_mode_of_the_destination(places: tuple[Path, Path], name: bytes) -> None:
    """A directory without a name, or called `.`, does not change the destination's own permissions."""
    _, target = places
    for recurse, path in ((True, 'dir'), (True, '*'), (False, '*')):
        async with hostile(b'T1 0 1 0\nD0777 0 ' + name + b'\nE\n') as (_, conn):
            with pytest.raises(ssh_fast.SFTPBadMessage):
                await ssh_fast.scp((conn, path), target, recurse=recurse, preserve=True)
    assert stat.S_IMODE(target.stat().st_mode) == 0o750
    assert target.stat().st_mtime > 1_000_000_000


async def test_cve_2018_20685_a_directory_where_a_file_was_asked_for(places: tuple[Path, Path]) -> None:
    async with hostile(b'D0755 0 file\n' + file(b'x') + b'E\n') as (_, conn):
        with pytest.raises(ssh_fast.SFTPBadMessage, match='Expected files only'):
            await ssh_fast.scp((conn, 'file'), places[1])
    assert not (places[1] / 'file').exists()


async def test_cve_2019_6109_text_of_a_server_is_escaped(places: tuple[Path, Path]) -> None:
    """Neither messages, nor names, nor errors bring a terminal's sequences into what an application shows."""
    texts: list[str] = []
    scripts = [
        b'\1\x1b[2J\x1b]0;x\x07\xc2\x9b1m\n',
        b'\2\x1b[2J\n',
        file(b'\x1b[2Jfile'),
        file('\x9b2Jfile'.encode()),
        b'\x1b[2J\n',
        b'\x1b[2J' * 10_000,
    ]
    for script in scripts:
        async with hostile(script) as (_, conn):
            with pytest.raises(ssh_fast.SFTPError) as caught:
                await ssh_fast.scp((conn, '*'), places[1])
        texts.append(f'{caught.value} {caught.value.reason}')
    assert all(text.isprintable() for text in texts), texts
    assert max(map(len, texts)) < 4096


async def test_cve_2019_6110_the_error_stream_is_not_shown(
    places: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """What a server writes as errors goes to nobody's terminal, and into an exception only in a safe form."""

    async def script(process: Any) -> None:
        process.stderr.write(b'\x1b[1A\x1b[2K' * 1000)
        process.exit(3)

    async with hostile(script) as (_, conn):
        with pytest.raises(ssh_fast.SFTPFailure, match='ended with status 3') as caught:
            await ssh_fast.scp((conn, 'file'), places[1])
    assert str(caught.value).isprintable() and len(str(caught.value)) < 4096
    assert capfd.readouterr() == ('', '')


# --- a server's other records


async def test_cve_2026_35385_set_id_bits_are_not_taken_over(places: tuple[Path, Path]) -> None:
    _, target = places
    script = b'D6777 0 dir\n' + file(b'inner', mode=b'6755') + b'E\n'
    async with hostile(script) as (_, conn):
        await ssh_fast.scp((conn, 'dir'), target, recurse=True, preserve=True)
    assert stat.S_IMODE((target / 'dir').stat().st_mode) == 0o777
    assert stat.S_IMODE((target / 'dir/inner').stat().st_mode) == 0o755


async def test_cve_2019_6111_a_planted_link_is_not_followed(places: tuple[Path, Path]) -> None:
    """Links in a tree that is being made, and those that a pattern's names hit, lead nowhere."""
    top, target = places
    (target / 'tree').mkdir()
    (target / 'tree/inner').symlink_to(top / 'outside/file')
    (target / 'tree/dir').symlink_to(top / 'outside')
    (target / 'a').symlink_to(top / 'outside/file')
    (target / 'b').symlink_to(top / 'outside')
    scripts = {
        'tree': b'D0755 0 tree\n' + file(b'inner') + b'E\n',
        'tre*': b'D0755 0 tree\nD0755 0 dir\n',
        '*': file(b'a'),
        '?': b'D0755 0 b\n',
    }
    for path, script in scripts.items():
        async with hostile(script) as (_, conn):
            with pytest.raises(ENDS):
                await ssh_fast.scp((conn, path), target, recurse=True)
    assert everything(top / 'outside') == {'file': b'untouched'}


async def test_a_link_planted_while_the_tree_is_filled(places: tuple[Path, Path]) -> None:
    top, target = places

    async def script(process: Any) -> None:
        process.stdout.write(b'D0755 0 tree\n')
        await process.stdin.readexactly(2)
        (target / 'tree').rename(target / 'moved')
        (target / 'tree').symlink_to(top / 'outside')
        process.stdout.write(file(b'file') + b'E\n')
        process.stdout.write_eof()

    async with hostile(script) as (_, conn):
        await ssh_fast.scp((conn, 'tree'), target, recurse=True)
    assert everything(top / 'outside') == {'file': b'untouched'}
    assert (target / 'moved/file').read_bytes() == b'evil'


@pytest.mark.parametrize(
    'script',
    [
        b'E\n', b'D0755 0 dir\nE\nE\n', b'T1 0 1 0\nT1 0 1 0\n', b'T-1 0 1 0\n', b'T1 0 1\n', b'C0644 -1 dir\n',
        b'C0644 99999999999999999999 dir\n', b'C9999 1 dir\n', b'C0644 1\n', b'D0755 0 dir\nT1 0 1 0\nE\n', b'X\n',
        b'\n', b'x' * 100_000, b'D0755 0 dir\n', b'T1 0 1 0\n', b'C0644 10 dir\n12345', b'C0644 1 dir\n1X\n',
        b'C0644 1 dir\n1',
        b'D0755 0 dir\n' + b'D0755 0 d\n' * 300,
    ],
)  # fmt: skip
async def test_records_that_are_none_end_the_copy(places: tuple[Path, Path], script: bytes) -> None:
    """Each is an error of SFTP; no file stays of which only a part came, and the connection goes on."""
    async with hostile(script) as (_, conn):
        with pytest.raises(ssh_fast.SFTPError):
            await asyncio.wait_for(ssh_fast.scp((conn, 'dir'), places[1], recurse=True, preserve=True), 10)
        assert not [path for path in places[1].rglob('*') if path.is_file() and path.name != '.bashrc']
        await asyncio.wait_for(conn.create_process('x'), 5)


async def test_a_size_is_not_believed(places: tuple[Path, Path]) -> None:
    """A file of 8 EiB takes no more memory and disk than what comes of it."""
    before = resident_kib()
    async with hostile(b'C0644 9223372036854775807 file\n' + bytes(100_000)) as (_, conn):
        with pytest.raises(ssh_fast.SFTPError):
            await ssh_fast.scp((conn, 'file'), places[1])
    assert resident_kib() - before < 32 * 1024
    assert not (places[1] / 'file').exists()


async def test_a_server_that_sends_nothing(places: tuple[Path, Path]) -> None:
    async with hostile(b'') as (_, conn):
        with pytest.raises(ssh_fast.SFTPFailure, match='sent nothing'):
            await ssh_fast.scp((conn, 'file'), places[1])


# --- what is run on a server


async def test_cve_2020_15778_names_are_no_commands(places: tuple[Path, Path]) -> None:
    """A name with a command in it is quoted, as a source and as a destination."""
    for path, quoted in (
        ('a; touch x', "a'; 'touch' 'x"),
        ('`touch x`', "'`'touch' 'x'`'"),
        ('$(id)', "'$('id')'"),
        ("it's", "it''\\'''s"),
        ('-oProxyCommand=x', './-oProxyCommand=x'),
        ('a\nb', "a'\n'b"),
    ):
        async with hostile(b'\2no\n') as (server, conn):
            for copy in (((conn, path), places[1]), (places[1] / '.bashrc', (conn, path))):
                with pytest.raises(ssh_fast.SFTPError):
                    await ssh_fast.scp(*copy)
        assert server.commands == [f'scp -f {quoted}', f'scp -t {quoted}']


async def test_answers_to_an_upload_that_are_none(places: tuple[Path, Path]) -> None:
    for script in (b'X', b'\0X\n', b'\0\0X', b'\1' + b'x' * 100_000, b'\2no\n', b'', b'\0', b'\0\0', b'\3'):
        async with hostile(script) as (_, conn):
            with pytest.raises(ssh_fast.SFTPError):
                await asyncio.wait_for(ssh_fast.scp(places[1] / '.bashrc', (conn, 'x'), preserve=True), 10)


async def test_a_relay_passes_nothing_on_that_was_not_asked_for(places: tuple[Path, Path]) -> None:
    """A hostile source cannot have our client write to another server what it was not told to."""
    _, target = places
    async with serving(sftp_factory=True, allow_scp=True) as server:
        async with ssh_fast.connect(LOOPBACK, server.port, **client_options()) as good:
            for script in (file(b'.bashrc'), file(b'../x'), b'D0777 0 .\nE\n', b'E\n', b'C0644 9 file\n12'):
                async with hostile(script) as (_, bad):
                    with pytest.raises(ssh_fast.SFTPError):
                        await ssh_fast.scp((bad, 'file'), (good, target), recurse=True)
    assert (target / '.bashrc').read_text() == 'mine'
    assert {path.name for path in target.iterdir()} <= {'.bashrc', 'file'}
    # The server has emptied what was cut.
    assert not (target / 'file').exists() or (target / 'file').read_bytes() == b''


# --- a client against our server


@contextlib.asynccontextmanager
async def confined(root: Path, **options: Any) -> AsyncIterator[Callable[[str, bytes], Any]]:
    """Serve a folder by SCP; yield a function that runs a command with an input, and returns output and status."""

    def factory(chan: Any) -> ssh_fast.SFTPServer:
        return ssh_fast.SFTPServer(chan, chroot=os.fsencode(root))

    async with serving(sftp_factory=factory, allow_scp=True, **options) as server:
        async with ssh_fast.connect(LOOPBACK, server.port, **client_options()) as conn:

            async def run(command: str, data: bytes) -> tuple[bytes, int | None]:
                result = await asyncio.wait_for(conn.run(command, input=data, encoding=None), 10)
                return result.stdout + result.stderr, result.exit_status

            yield run


async def test_cve_2019_6111_names_that_a_client_sends(places: tuple[Path, Path]) -> None:
    top, target = places
    before = everything(top)
    async with confined(target) as run:
        for name in (b'..', b'.', b'', b'/etc/x', b'../x', b'a/b', b'a\0b', b'a\x1b[2Jb'):
            for command in ('scp -t .', 'scp -r -t .', 'scp -t new', 'scp -rpt /'):
                for data in (file(name), b'D0777 0 ' + name + b'\n' + file(b'x') + b'E\n'):
                    output, status = await run(command, data)
                    assert (status, output[:16]) == (1, b'\0\2scp: Expected '), (name, command)
    assert everything(top) == before
    assert stat.S_IMODE(target.stat().st_mode) == 0o750


async def test_cve_2026_23942_a_root_holds_for_scp(places: tuple[Path, Path]) -> None:
    """Neither paths, nor patterns, nor links lead out of a server's root."""
    top, target = places
    (target / 'link').symlink_to('../outside')
    (target / 'abs').symlink_to(top / 'outside/file')
    before = everything(top)
    async with confined(target) as run:
        for path in ('../outside/file', '/../outside/file', 'link/file', 'abs', str(top / 'outside/file'), '../out*/*',
                     'li*/*', '/*/file', "'..'/outside/file"):
            output, status = await run(f'scp -f {path}', b'\0' * 20)
            assert status == 1 and b'untouched' not in output, path
        for path in ('../outside/file', 'link/file', 'abs', '../outside', 'link'):
            await run(f'scp -t {path}', file(b'file', b'changed'))
    assert everything(top / 'outside') == {'file': b'untouched'}
    assert {key: value for key, value in everything(top).items() if not key.startswith('target/')} == {
        key: value for key, value in before.items() if not key.startswith('target/')
    }


async def test_scp_is_off_unless_it_is_allowed(places: tuple[Path, Path]) -> None:
    async with serving(sftp_factory=True) as server:
        async with ssh_fast.connect(LOOPBACK, server.port, **client_options()) as conn:
            with pytest.raises(ssh_fast.ChannelOpenError):
                await ssh_fast.scp((conn, places[1] / '.bashrc'), places[1] / 'copy')
    with pytest.raises(ValueError, match='allow_scp: expected sftp_factory'):
        ssh_fast.SSHServerConnectionOptions(allow_scp=True)


@pytest.mark.parametrize(
    ('command', 'data'),
    [
        ('scp', b''),
        ('scp -t', b''),
        ('scp -t a b', b''),
        ('scp -S /bin/sh -t a', b''),
        ("scp -t 'a", b''),
        ('scp -t .', b'x' * 1_000_000),
        ('scp -t .', b'C0644 9223372036854775807 f\n' + bytes(100_000)),
        ('scp -t .', b'C0644 4 f\nab'),
        ('scp -rt .', b'D0755 0 d\n'),
        ('scp -d -t .bashrc', b''),
        ('scp -f .bashrc', b''),
        ('scp -f .bashrc', b'\2'),
        ('scp -f .bashrc', b'X\n'),
        ('scp -f missing', b'\0'),
        ('scp -f -r missing*', b'\0'),
        ('scp -f /', b'\0'),
        ('scp -f .', b'\0'),
    ],
)
async def test_what_a_client_may_send_that_is_no_copy(places: tuple[Path, Path], command: str, data: bytes) -> None:
    """Status 1, in bounded time and memory; nothing that looks like a whole file stays, and SCP goes on."""
    before = resident_kib()
    async with confined(places[1]) as run:
        _, status = await run(command, data)
        assert status == 1
        output, status = await run('scp -f .bashrc', b'\0\0\0')
        assert (output, status) == (b'C0644 4 .bashrc\nmine\0', 0)
    assert resident_kib() - before < 32 * 1024
    assert [path.read_bytes() for path in places[1].rglob('f')] in ([], [b''])


async def test_a_forced_command_holds_for_scp(places: tuple[Path, Path], tmp_path: Path) -> None:
    """A key that may only run `scp -t upload` can do nothing else, and one for another command no SCP at all."""
    _, target = places
    (target / 'upload').mkdir()
    key = ssh_fast.generate_private_key('ssh-ed25519')
    public = key.export_public_key().decode().strip()
    for forced in ('scp -t upload', 'true', 'internal-sftp'):
        keys = tmp_path / 'keys'
        keys.write_text(f'command="{forced}" {public}\n')
        options: dict[str, Any] = {
            'server_host_keys': [HOST_KEY],
            'authorized_client_keys': str(keys),
            'sftp_factory': lambda chan: ssh_fast.SFTPServer(chan, chroot=os.fsencode(target)),
            'allow_scp': True,
        }
        async with ssh_fast.listen(LOOPBACK, 0, **options) as server:
            login = {'known_hosts': None, 'client_keys': [key], 'username': 'user', 'config': None, 'agent_path': None}
            async with ssh_fast.connect(LOOPBACK, server.get_port(), **login) as conn:
                if forced == 'scp -t upload':
                    # Where this goes is not the client's to say.
                    (tmp_path / 'new').write_text(forced)
                    await ssh_fast.scp(tmp_path / 'new', (conn, '/elsewhere'))
                    with pytest.raises(ssh_fast.SFTPError):
                        await asyncio.wait_for(ssh_fast.scp((conn, '.bashrc'), tmp_path / 'stolen'), 10)
                try:
                    shown = await conn.run('scp -f .bashrc', input=b'\0\0\0', encoding=None, timeout=10)
                    assert b'mine' not in shown.stdout
                except ssh_fast.ChannelOpenError:
                    assert forced == 'true'
        assert not (tmp_path / 'stolen').exists()
    assert everything(target) == {'.bashrc': b'mine', 'upload': 'folder', 'upload/new': b'scp -t upload'}
