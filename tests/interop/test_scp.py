"""SCP: ours against sshd's and AsyncSSH's, and OpenSSH's, PuTTY's and AsyncSSH's against our server."""

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

import ssh_fast
from tests.interop import peers
from tests.interop.asyncssh_peer import asyncssh_server
from tests.interop.ours import (
    MIB,
    describe_tree,
    digest,
    make_files,
    make_tree,
    nothing_leaks,
    our_server,
    quick_folder,
    until,
    watching,
)
from tests.interop.peers import CommandFailed, KeyRing, OpenSSHServer, Target

# Names that a shell, a pattern or an option parser could take for more than they are.
ODD_NAMES = [
    'a b', ' lead', 'trail ', 'ä ö', '日本', '-rf', '--', "it's", '"quoted"', '$HOME', '`id`', 'a;b', 'a&b', 'a|b', '~',
    'back\\slash', '(x)', '{a,b}', '#x', '!x', '=', '%s', 'a:b', "'", '$(touch x)',
]  # fmt: skip


@contextlib.asynccontextmanager
async def serve(kind: str, key_ring: KeyRing, folder: Path, openssh: OpenSSHServer) -> AsyncIterator[Target]:
    if kind == 'openssh':
        yield openssh.target
    elif kind == 'ours':
        async with our_server(key_ring, folder, allow_scp=True) as target:
            yield target
    else:
        async with asyncssh_server(key_ring, folder, allow_scp=True) as target:
            yield target


@pytest.fixture(params=['openssh', 'ours', 'asyncssh'])
async def target(
    request: pytest.FixtureRequest, key_ring: KeyRing, openssh_server: OpenSSHServer, tmp_path: Path
) -> AsyncIterator[Target]:
    """Each server that our client is to work with."""
    async with serve(request.param, key_ring, tmp_path / 'server', openssh_server) as target:
        yield target


@pytest.fixture
async def conn(target: Target) -> AsyncIterator[Any]:
    async with ssh_fast.connect(**target.connect_options()) as conn:
        yield conn


@pytest.fixture
async def our_target(key_ring: KeyRing, tmp_path: Path) -> AsyncIterator[Target]:
    async with our_server(key_ring, tmp_path / 'ours', allow_scp=True) as target:
        yield target


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two empty directories to copy to."""
    for name in ('there', 'back'):
        (tmp_path / name).mkdir()
    return tmp_path / 'there', tmp_path / 'back'


def options_of(target: Target) -> dict[str, Any]:
    """Return the arguments of scp() that connect to a target, but for its host."""
    options = target.connect_options()
    del options['host']
    return options


def is_asyncssh(conn: Any) -> bool:
    return 'AsyncSSH' in conn.get_extra_info('server_version')


# --- our client


async def test_files_of_all_sizes(conn: Any, folders: tuple[Path, Path], tmp_path: Path) -> None:
    there, back = folders
    source = make_files(tmp_path / 'source')
    await ssh_fast.scp(sorted(source.iterdir()), (conn, there))
    assert describe_tree(there) == describe_tree(source)
    await ssh_fast.scp([(conn, path) for path in sorted(there.iterdir())], back)
    assert describe_tree(back) == describe_tree(source)


async def test_a_large_file(conn: Any) -> None:
    with quick_folder() as folder:
        source = make_files(folder, (64 * MIB + 1,)) / f'f{64 * MIB + 1}'
        await ssh_fast.scp(source, (conn, folder / 'there'))
        await ssh_fast.scp((conn, folder / 'there'), folder / 'back')
        assert digest(source) == digest(folder / 'there') == digest(folder / 'back')


async def test_trees_with_times_and_modes(conn: Any, folders: tuple[Path, Path], tmp_path: Path) -> None:
    there, back = folders
    source = make_tree(tmp_path / 'source', links=False)
    await ssh_fast.scp(source, (conn, there), recurse=True, preserve=True)
    assert describe_tree(there / 'source', preserved=True) == describe_tree(source, preserved=True)
    await ssh_fast.scp((conn, there / 'source'), back, recurse=True, preserve=True)
    assert describe_tree(back / 'source', preserved=True) == describe_tree(source, preserved=True)
    # Onto a name that is not there yet, then into what is there by that name, and onto a copy.
    await ssh_fast.scp((conn, there / 'source'), back / 'new', recurse=True)
    assert describe_tree(back / 'new') == describe_tree(source)
    for _ in range(2):
        await ssh_fast.scp((conn, there / 'source'), back / 'new', recurse=True)
        assert describe_tree(back / 'new/source') == describe_tree(source)


async def test_links_are_followed(conn: Any, folders: tuple[Path, Path], tmp_path: Path) -> None:
    there, back = folders
    (tmp_path / 'source').mkdir()
    (tmp_path / 'source/file').write_text('text')
    (tmp_path / 'source/link').symlink_to('file')
    await ssh_fast.scp(tmp_path / 'source', (conn, there), recurse=True)
    # AsyncSSH's server refuses the links in a tree.
    if not is_asyncssh(conn):
        await ssh_fast.scp((conn, tmp_path / 'source'), back, recurse=True)
    for folder in (there,) if is_asyncssh(conn) else folders:
        assert not (folder / 'source/link').is_symlink()
        assert (folder / 'source/link').read_text() == 'text'


async def test_odd_names(conn: Any, folders: tuple[Path, Path], tmp_path: Path) -> None:
    there, back = folders
    (tmp_path / 'source').mkdir()
    # AsyncSSH's server takes the space in front off a record's name, and no backslash.
    names = [name for name in ODD_NAMES if not is_asyncssh(conn) or name not in (' lead', 'back\\slash')]
    for number, name in enumerate(names):
        (tmp_path / 'source' / name).write_text(str(number))
        await ssh_fast.scp(tmp_path / 'source' / name, (conn, there))
        await ssh_fast.scp((conn, there / name), back)
        assert (back / name).read_text() == str(number)
        # As the name for the copy.
        await ssh_fast.scp(tmp_path / 'source' / name, (conn, there / f'{name}.copy'))
        assert (there / f'{name}.copy').read_text() == str(number)
    assert not (tmp_path / 'x').exists() and not Path('x').exists()
    assert len(list(there.iterdir())) == 2 * len(names)


@pytest.mark.parametrize('name', ['a*b', 'a?b', '[ab]', 'a[1].txt'])
async def test_names_with_characters_of_patterns(
    conn: Any, folders: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text('text')
    await ssh_fast.scp(tmp_path / name, (conn, folders[0] / f'{name}-copy'))
    assert (folders[0] / f'{name}-copy').read_text() == 'text'
    # AsyncSSH's server takes a name with brackets for a pattern and nothing else.
    if '[' not in name or not is_asyncssh(conn):
        await ssh_fast.scp((conn, tmp_path / name), folders[1])
        assert (folders[1] / name).read_text() == 'text'


async def test_patterns(conn: Any, folders: tuple[Path, Path], tmp_path: Path) -> None:
    there, back = folders
    for name in ('a 1.txt', 'a 2.txt', 'b.txt', '.hidden.txt', 'c.bin'):
        (tmp_path / name).write_text(name)
    await ssh_fast.scp(tmp_path / '*.txt', (conn, there))
    assert sorted(path.name for path in there.iterdir()) == ['a 1.txt', 'a 2.txt', 'b.txt']
    for pattern, expected in (('a *', ['a 1.txt', 'a 2.txt']), ('?.txt', ['b.txt']), ('a [1].*', ['a 1.txt'])):
        target = back / str(len(list(back.iterdir())))
        target.mkdir()
        await ssh_fast.scp((conn, there / pattern), target)
        assert sorted(path.name for path in target.iterdir()) == expected
    (back / 'above').mkdir()
    await ssh_fast.scp((conn, tmp_path / 'the*/b.txt'), back / 'above')
    assert [path.name for path in (back / 'above').iterdir()] == ['b.txt']


async def test_several_sources_need_a_directory(conn: Any, folders: tuple[Path, Path], tmp_path: Path) -> None:
    source = make_files(tmp_path / 'source', (1, 2))
    for target in (tmp_path / 'missing', source / 'f1'):
        with pytest.raises(ssh_fast.SFTPError, match=r'(?i)not a directory|must be a directory|no such file'):
            await ssh_fast.scp([source / 'f1', source / 'f2'], (conn, target))
        with pytest.raises(ssh_fast.SFTPNotADirectory, match='must be a directory'):
            await ssh_fast.scp([(conn, source / 'f1'), (conn, source / 'f2')], target)
    assert not (tmp_path / 'missing').exists()
    assert (source / 'f1').stat().st_size == 1


async def test_what_is_not_there(conn: Any, folders: tuple[Path, Path], tmp_path: Path) -> None:
    there, back = folders
    with pytest.raises(ssh_fast.SFTPError, match='(?i)no such file|not exist') as caught:
        await ssh_fast.scp((conn, tmp_path / 'missing'), back)
    assert (caught.value.srcpath, caught.value.dstpath) == (os.fsencode(tmp_path / 'missing'), os.fsencode(back))
    with pytest.raises(FileNotFoundError, match='missing'):
        await ssh_fast.scp(tmp_path / 'missing', (conn, there))
    (tmp_path / 'file').touch()
    with pytest.raises(ssh_fast.SFTPError):
        await ssh_fast.scp(tmp_path / 'file', (conn, tmp_path / 'missing/file'))
    with pytest.raises(FileNotFoundError):
        await ssh_fast.scp((conn, tmp_path / 'file'), tmp_path / 'missing/file')
    with pytest.raises(ssh_fast.SFTPError):
        await ssh_fast.scp((conn, there), back)
    with pytest.raises(ssh_fast.SFTPFileIsADirectory):
        await ssh_fast.scp(there, (conn, back))
    assert list(there.iterdir()) == list(back.iterdir()) == []
    # The connection is as good as before.
    await ssh_fast.scp((conn, tmp_path / 'file'), back)


async def test_errors_are_told_and_the_copy_goes_on(conn: Any, folders: tuple[Path, Path], tmp_path: Path) -> None:
    there, back = folders
    source = tmp_path / 'source'
    for name in ('a', 'b', 'c'):
        (source / name).mkdir(parents=True)
        (source / name / 'file').write_text(name)
    os.mkfifo(source / 'b/fifo')
    (source / 'b/dangling').symlink_to('nowhere')
    failed: list[Any] = []
    await ssh_fast.scp([source, tmp_path / 'missing'], (conn, there), recurse=True, error_handler=failed.append)
    assert sorted(os.path.basename(exc.srcpath) for exc in failed) == [b'dangling', b'fifo', b'missing']
    assert {name for name, kind in describe_tree(there).items() if kind[0] == 'file'} == {
        'source/a/file', 'source/b/file', 'source/c/file'
    }  # fmt: skip

    failed.clear()
    sources = [(conn, tmp_path / 'missing'), (conn, source)]
    await ssh_fast.scp(sources, back, recurse=True, error_handler=failed.append)
    assert len(failed) >= 2
    assert all(isinstance(exc, ssh_fast.SFTPError) for exc in failed)
    assert describe_tree(back) == describe_tree(there)

    # What cannot be written here.
    (back / 'source/b/file').unlink()
    (back / 'source/b/file').mkdir()
    failed.clear()
    (source / 'b/fifo').unlink()
    (source / 'b/dangling').unlink()
    await ssh_fast.scp((conn, source), back, recurse=True, error_handler=failed.append)
    assert [(type(exc), exc.dstpath) for exc in failed] == [
        (IsADirectoryError, os.fsencode(back / 'source/b/file'))
    ]
    # What cannot be written there.
    (there / 'source/b/file').unlink()
    (there / 'source/b/file').mkdir()
    failed.clear()
    await ssh_fast.scp(source, (conn, there), recurse=True, error_handler=failed.append)
    assert [exc.srcpath for exc in failed] == [os.fsencode(source / 'b/file')]
    assert (there / 'source/c/file').read_text() == 'c'

    with pytest.raises(KeyError, match='stop'):
        await ssh_fast.scp(source, (conn, there), recurse=True, error_handler=lambda exc: {}['stop'])
    await ssh_fast.scp(source, (conn, there), recurse=True, error_handler=False)


async def test_a_full_disk(conn: Any, tmp_path: Path) -> None:
    """A file that cannot be written fails; of several the others are copied."""
    source = make_files(tmp_path / 'source', (MIB, 5))
    with pytest.raises(OSError, match='No space left'):
        await ssh_fast.scp((conn, source / f'f{MIB}'), '/dev/full')
    failed: list[Exception] = []
    await ssh_fast.scp((conn, source / f'f{MIB}'), '/dev/full', error_handler=failed.append)
    assert [type(exc) for exc in failed] == [OSError]


async def test_progress(conn: Any, folders: tuple[Path, Path], tmp_path: Path) -> None:
    there, back = folders
    source = tmp_path / 'source'
    make_files(source, (0, 1_000_000))
    calls: list[tuple[bytes, bytes, int, int]] = []

    def handler(*call: Any) -> None:
        calls.append(call)

    await ssh_fast.scp(source, (conn, there), recurse=True, block_size=300_000, progress_handler=handler)
    big = [call for call in calls if call[3]]
    assert [call[2] for call in big] == [300_000, 600_000, 900_000, 1_000_000]
    assert {call[:2] for call in big} == {(os.fsencode(source / 'f1000000'), b'source/f1000000')}
    assert [call[2:] for call in calls if call not in big] == [(0, 0)]

    calls.clear()
    await ssh_fast.scp((conn, source), back, recurse=True, block_size=300_000, progress_handler=handler)
    big = [call for call in calls if call[3]]
    assert big[-1] == (
        os.fsencode(source / 'f1000000'), os.fsencode(back / 'source/f1000000'), 1_000_000, 1_000_000
    )  # fmt: skip
    assert [call[2] for call in big] == sorted({call[2] for call in big})
    assert [call[2:] for call in calls if call not in big] == [(0, 0)]

    with pytest.raises(ZeroDivisionError):
        await ssh_fast.scp((conn, source / 'f1000000'), back, progress_handler=lambda *call: 1 // 0)
    assert not (back / 'f1000000').exists()


async def test_forms_of_places(
    target: Target, conn: Any, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, _ = folders
    (tmp_path / 'file').write_text('text')
    options = options_of(target)
    host = target.host
    monkeypatch.chdir(tmp_path)

    async def copied(source: Any, destination: Any = None, name: str = 'copy', **kwargs: Any) -> None:
        assert not (there / name).exists()
        await ssh_fast.scp(source, destination, **kwargs)
        assert (there / name).read_text() == 'text'
        (there / name).unlink()

    copy, port = str(there / 'copy'), options.pop('port')
    for source in ('file', b'file', Path('file'), './file', (None, 'file'), ['file'], [Path('file')]):
        await copied(source, (conn, copy))
    for destination in (
        f'{host}:{copy}', f'{host}:{copy}'.encode(), (host, copy), (host.encode(), copy.encode()), (host, Path(copy)),
        f'[{host}]:{copy}',
    ):  # fmt: skip
        await copied('file', destination, port=port, **options)
    user = options.pop('username')
    await copied('file', f'{user}@{host}:{copy}', port=port, **options)
    options['username'] = user
    await copied('file', ((host, port), copy), **options)
    await copied(f'{host}:{tmp_path}/file', copy, port=port, **options)
    await copied(f'{host}:{tmp_path}/file', (None, there), 'file', port=port, **options)
    await copied(((host, port), tmp_path / 'file'), there, 'file', **options)
    # Without a destination it is the directory that one is in.
    monkeypatch.chdir(there)
    await copied((conn, tmp_path / 'file'), name='file')
    await copied((conn, tmp_path / 'file'), '', name='file')


async def test_a_destination_without_a_path(
    our_target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection alone is where its sessions begin."""
    (tmp_path / 'file').write_text('text')
    (tmp_path / 'home').mkdir()
    monkeypatch.chdir(tmp_path / 'home')
    options = options_of(our_target)
    async with ssh_fast.connect(**our_target.connect_options()) as conn:
        await ssh_fast.scp(tmp_path / 'file', conn)
    assert (tmp_path / 'home/file').read_text() == 'text'
    port = options.pop('port')
    for destination in (f'{our_target.host}:', (our_target.host, port), (our_target.host, ''), f'{our_target.host}:~'):
        (tmp_path / 'home/file').unlink()
        given = options if destination[1] == port else {'port': port, **options}
        await ssh_fast.scp(tmp_path / 'file', destination, **given)
        assert (tmp_path / 'home/file').read_text() == 'text'


async def test_connections_that_scp_opens_are_closed(key_ring: KeyRing, tmp_path: Path) -> None:
    """One for each host, and none stays, whatever happens; one that was given does."""
    made, factory = watching()
    source = make_files(tmp_path / 'source', (1, 2, 3))
    async with our_server(key_ring, tmp_path / 'ours', allow_scp=True, server_factory=factory) as target:
        options = options_of(target)
        async with nothing_leaks():
            await ssh_fast.scp([f'{target.host}:{source}/f{size}' for size in (1, 2, 3)], tmp_path, **options)
            assert len(made) == 1
            with pytest.raises(ssh_fast.SFTPError):
                await ssh_fast.scp(f'{target.host}:{source}/nothing', tmp_path, **options)
            for watcher in made:
                assert await asyncio.wait_for(watcher.lost, 5) is None
        async with ssh_fast.connect(**target.connect_options()) as conn:
            await ssh_fast.scp((conn, source / 'f1'), tmp_path)
            assert not made[-1].lost.done()
            await ssh_fast.scp((conn, source / 'f1'), tmp_path)


@pytest.mark.parametrize(
    ('sources', 'target', 'error'),
    [
        ('a', 'b', ValueError),
        (['a', 'b'], 'c', ValueError),
        ([], 'host:b', ValueError),
        (5, 'host:b', TypeError),
        ('a', 5, TypeError),
        ((5, 'a'), 'b', TypeError),
        (('host', None), 'b', TypeError),
        ((('host', '22'), 'a'), 'b', TypeError),
        ('host:a\0b', 'b', ValueError),
        ('./host:a', 'b', ValueError),
        (Path('host:a'), 'b', ValueError),
    ],
)
async def test_places_that_are_none(sources: Any, target: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match='srcpaths|dstpath'):
        await ssh_fast.scp(sources, target)
    with pytest.raises(ValueError, match='block_size'):
        await ssh_fast.scp('host:a', 'b', block_size=0)


async def test_sources_without_a_name(conn: Any, tmp_path: Path) -> None:
    for path in ('', '.', '..', '/', 'a/..', '~'):
        with pytest.raises(ssh_fast.SFTPFailure, match='no name of its own'):
            await ssh_fast.scp((conn, path), tmp_path, recurse=True)
        if path != '~':
            with pytest.raises(ssh_fast.SFTPFailure, match='no name of its own'):
                await ssh_fast.scp(path, (conn, tmp_path), recurse=True)


async def test_cancelled_copies_leave_nothing(conn: Any, tmp_path: Path) -> None:
    with quick_folder() as folder:
        source = make_files(folder, (64 * MIB,)) / f'f{64 * MIB}'
        async with nothing_leaks():
            for copy in (((conn, source), folder / 'back'), (source, (conn, folder / 'there'))):
                begun = asyncio.Event()
                task = asyncio.create_task(ssh_fast.scp(*copy, progress_handler=lambda *_, begun=begun: begun.set()))
                await begun.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        assert not (folder / 'back').exists()
    (tmp_path / 'file').write_text('text')
    await ssh_fast.scp((conn, tmp_path / 'file'), tmp_path / 'copy')


async def test_a_connection_that_is_lost(our_target: Target) -> None:
    with quick_folder() as folder:
        source = make_files(folder, (64 * MIB,)) / f'f{64 * MIB}'
        for upload in (False, True):
            async with ssh_fast.connect(**our_target.connect_options()) as conn:
                place = (source, (conn, folder / 'copy')) if upload else ((conn, source), folder / 'copy')
                with pytest.raises((ssh_fast.DisconnectError, ssh_fast.SFTPConnectionLost)):
                    # The handler gets no error after which nothing can follow.
                    await ssh_fast.scp(
                        *place, progress_handler=lambda *_, conn=conn: conn.abort(), error_handler=lambda exc: None
                    )
            await until(lambda: not (folder / 'copy').exists() or (folder / 'copy').stat().st_size == 0)


async def test_a_server_without_scp(start_openssh: Callable[..., OpenSSHServer], tmp_path: Path) -> None:
    """What the server says about it is in the error."""
    (tmp_path / 'file').touch()
    for command, expected in (
        ('no-such-scp', 'ended with status 127: .*no-such-scp'),
        ('echo only SFTP here', 'only SFTP here'),
        ('exit 0', 'ended with status 0|sent nothing'),
        ('kill -9 $$', 'ended with status -1'),
    ):
        server = start_openssh([f'ForceCommand {command}'])
        async with ssh_fast.connect(**server.target.connect_options()) as conn:
            for copy in (((conn, 'x'), tmp_path), (tmp_path / 'file', (conn, 'x'))):
                with pytest.raises(ssh_fast.SFTPError, match=expected):
                    await ssh_fast.scp(*copy)


# --- from server to server


@pytest.mark.parametrize('source_kind', ['openssh', 'ours', 'asyncssh'])
@pytest.mark.parametrize('target_kind', ['openssh', 'ours', 'asyncssh'])
async def test_from_server_to_server(
    source_kind: str, target_kind: str, key_ring: KeyRing, openssh_server: OpenSSHServer, tmp_path: Path
) -> None:
    there = tmp_path / 'there'
    there.mkdir()
    tree = make_tree(tmp_path / 'source', links=False)
    make_files(tree / 'sizes')
    async with (
        serve(source_kind, key_ring, tmp_path / 's', openssh_server) as first,
        serve(target_kind, key_ring, tmp_path / 't', openssh_server) as second,
        ssh_fast.connect(**first.connect_options()) as one,
        ssh_fast.connect(**second.connect_options()) as two,
    ):
        calls: list[Any] = []
        await ssh_fast.scp(
            (one, tree), (two, there), recurse=True, preserve=True, progress_handler=lambda *call: calls.append(call)
        )
        assert describe_tree(there / 'source', preserved=True) == describe_tree(tree, preserved=True)
        assert (os.fsencode(tree / 'sizes/f5242880'), b'source/sizes/f5242880', 5242880, 5242880) in calls
        # Onto a name; several, from here too; and a pattern.
        await ssh_fast.scp((one, tree / 'sizes/f1'), (two, there / 'name'))
        assert (there / 'name').stat().st_size == 1
        (there / 'many').mkdir()
        many = [(one, tree / 'sizes/f0'), tree / 'sizes/f1', (two, tree / 'sizes/f327*')]
        await ssh_fast.scp(many, (two, there / 'many'))
        assert sorted(path.name for path in (there / 'many').iterdir()) == ['f0', 'f1', 'f32767', 'f32768', 'f32769']
        # What fails is told, and the rest follows.
        os.mkfifo(tree / 'a/fifo')
        (there / 'again').mkdir()
        failed: list[Any] = []
        await ssh_fast.scp(
            [(one, tree), (one, tmp_path / 'missing'), (one, tree / 'sizes/f1')],
            (two, there / 'again'),
            recurse=True,
            error_handler=failed.append,
        )
        assert len(failed) >= 2 and all(isinstance(exc, ssh_fast.SFTPError) for exc in failed)
        (tree / 'a/fifo').unlink()
        assert describe_tree(there / 'again/source') == describe_tree(tree)
        assert (there / 'again/f1').stat().st_size == 1
        with pytest.raises(ssh_fast.SFTPError, match='(?i)not a directory'):
            await ssh_fast.scp((one, tree / 'sizes/*'), (two, there / 'name'))


# --- other clients, our server


async def test_openssh_copies_files(our_target: Target, folders: tuple[Path, Path], tmp_path: Path) -> None:
    there, back = folders
    source = make_files(tmp_path / 'source')
    names = [str(path) for path in sorted(source.iterdir())]
    for sftp_mode in (False, True):
        await peers.scp(our_target, *names, f'remote:{there}', sftp_mode=sftp_mode).run_async()
        await peers.scp(our_target, f'remote:{there}/*', str(back), sftp_mode=sftp_mode).run_async()
        assert describe_tree(there) == describe_tree(back) == describe_tree(source)
        for path in (*there.iterdir(), *back.iterdir()):
            path.unlink()


async def test_openssh_copies_trees(our_target: Target, folders: tuple[Path, Path], tmp_path: Path) -> None:
    there, back = folders
    source = make_tree(tmp_path / 'source', links=False)
    await peers.scp(our_target, '-rp', str(source), f'remote:{there}', sftp_mode=False).run_async()
    assert describe_tree(there / 'source', preserved=True) == describe_tree(source, preserved=True)
    await peers.scp(our_target, '-rp', f'remote:{there}/source', str(back), sftp_mode=False).run_async()
    assert describe_tree(back / 'source', preserved=True) == describe_tree(source, preserved=True)


async def test_openssh_copies_odd_names(our_target: Target, folders: tuple[Path, Path], tmp_path: Path) -> None:
    there, back = folders
    source = tmp_path / 'source'
    source.mkdir()
    for name in ODD_NAMES:
        (source / name).write_text(name)
    await peers.scp(our_target, '-r', f'{source}', f'remote:{there}', sftp_mode=False).run_async()
    assert describe_tree(there / 'source') == describe_tree(source)
    # The user quotes for the server's shell, and our server reads it as one.
    for path in ('a\\ b', 'a?b'):
        await peers.scp(our_target, f'remote:{there}/source/{path}', str(back), sftp_mode=False).run_async()
        assert (back / 'a b').read_text() == 'a b'
        (back / 'a b').unlink()


async def test_openssh_gets_the_right_status(our_target: Target, folders: tuple[Path, Path], tmp_path: Path) -> None:
    there, back = folders
    (tmp_path / 'file').write_text('text')

    async def status(*paths: str, flags: tuple[str, ...] = ()) -> tuple[int, str]:
        result = await peers.scp(our_target, *flags, *paths, sftp_mode=False).run_async(check=False)
        return result.status, result.stderr

    assert await status(str(tmp_path / 'file'), f'remote:{there}') == (0, '')
    assert await status(f'remote:{there}/file', str(back)) == (0, '')
    code, errors = await status(f'remote:{there}/missing', str(back))
    assert code == 1 and 'missing: No such file' in errors
    code, errors = await status(f'remote:{there}', str(back))
    assert code == 1 and 'is a directory' in errors
    code, errors = await status(str(tmp_path / 'file'), f'remote:{there}/missing/file')
    assert code == 1 and 'No such file' in errors
    code, errors = await status(str(tmp_path / 'file'), str(tmp_path / 'file'), f'remote:{there}/file')
    assert code == 1 and 'Not a directory' in errors
    code, errors = await status(f'remote:{there}/file', f'remote:{there}/missing', str(back))
    assert code == 1 and (back / 'file').read_text() == 'text'
    code, errors = await status(f'remote:{there}/*.nothing', str(back))
    assert code == 1 and '*.nothing: No such file' in errors


async def test_pscp(our_target: Target, folders: tuple[Path, Path], tmp_path: Path) -> None:
    there, back = folders
    source = make_files(tmp_path / 'source')
    names = [str(path) for path in sorted(source.iterdir())]
    await peers.pscp(our_target, *names, f'remote:{there}').run_async()
    assert describe_tree(there) == describe_tree(source)
    await peers.pscp(our_target, '-unsafe', f'remote:{there}/*', str(back)).run_async()
    assert describe_tree(back) == describe_tree(source)
    tree = make_tree(tmp_path / 'tree', links=False)
    await peers.pscp(our_target, '-r', '-p', str(tree), f'remote:{there}').run_async()
    assert describe_tree(there / 'tree') == describe_tree(tree)
    assert (there / 'tree/a/file1').stat().st_mtime == 1_100_000_001
    await peers.pscp(our_target, '-r', '-p', f'remote:{there}/tree', str(back)).run_async()
    assert describe_tree(back / 'tree') == describe_tree(tree)
    with pytest.raises(CommandFailed, match='No such file'):
        await peers.pscp(our_target, f'remote:{there}/missing', str(back)).run_async()


async def test_asyncssh_copies(our_target: Target, folders: tuple[Path, Path], tmp_path: Path) -> None:
    there, back = folders
    source = make_tree(tmp_path / 'source', links=False)
    make_files(source / 'sizes')
    async with asyncssh.connect(**our_target.connect_options()) as conn:
        await asyncssh.scp(source, (conn, there), recurse=True, preserve=True)
        assert describe_tree(there / 'source', preserved=True) == describe_tree(source, preserved=True)
        await asyncssh.scp((conn, there / 'source'), back, recurse=True, preserve=True)
        assert describe_tree(back / 'source', preserved=True) == describe_tree(source, preserved=True)
        await asyncssh.scp((conn, f'{source}/sizes/*'), back)
        assert (back / 'f1').stat().st_size == 1
        with pytest.raises(asyncssh.SFTPError, match='No such file'):
            await asyncssh.scp((conn, tmp_path / 'missing'), back)


# --- our server


async def test_set_id_bits_and_links_of_our_server(our_target: Target, tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('text')
    (tmp_path / 'file').chmod(0o6755)
    await peers.scp(our_target, '-p', str(tmp_path / 'file'), f'remote:{tmp_path}/copy', sftp_mode=False).run_async()
    assert stat.S_IMODE((tmp_path / 'copy').stat().st_mode) == 0o755


class Slow(ssh_fast.SFTPServer):
    """Does everything in coroutines, on files of its own in memory."""

    files: dict[bytes, bytes] = {}
    calls: list[str] = []

    async def stat(self, path: bytes) -> Any:  # type: ignore[override]
        if path not in self.files:
            raise ssh_fast.SFTPNoSuchFile('Not in memory')
        return ssh_fast.SFTPAttrs(permissions=0o100644, size=len(self.files[path]))

    async def open(self, path: bytes, pflags: int, attrs: Any) -> Any:
        await asyncio.sleep(0)
        if pflags & ssh_fast.FXF_WRITE:
            self.files[path] = b''
        return path

    async def fstat(self, file_obj: Any) -> Any:  # type: ignore[override]
        return await self.stat(file_obj)

    async def read(self, file_obj: Any, offset: int, size: int) -> bytes:
        if b'broken' in file_obj and offset:
            raise ValueError('a bug of the application')
        return self.files[file_obj][offset : offset + min(size, 70_000)]

    async def write(self, file_obj: Any, offset: int, data: bytes) -> int:
        if offset + len(data) > 2_000_000:
            raise OSError(28, 'No space left on device')
        self.files[file_obj] = self.files[file_obj][:offset] + data
        return len(data)

    async def fsetstat(self, file_obj: Any, attrs: Any) -> None:
        if attrs.size == 0:
            self.files[file_obj] = b''

    async def close(self, file_obj: Any) -> None:
        self.calls.append('close')

    async def exit(self) -> None:
        self.calls.append('exit')


async def test_a_server_of_coroutines(key_ring: KeyRing, tmp_path: Path) -> None:
    """SCP and SFTP are one object's to serve; its errors, and its bugs, are one file's failure."""

    async def factory(chan: Any) -> ssh_fast.SFTPServer:
        await asyncio.sleep(0)
        return Slow(chan)

    content = os.urandom(300_000)
    Slow.files, Slow.calls = {b'a': content, b'broken': content, b'c': b''}, []
    (tmp_path / 'file').write_bytes(content)
    (tmp_path / 'large').write_bytes(bytes(3_000_000))
    async with our_server(key_ring, tmp_path / 'ours', sftp_factory=factory, allow_scp=True) as target:
        async with ssh_fast.connect(**target.connect_options()) as conn:
            await ssh_fast.scp((conn, 'a'), tmp_path / 'a')
            assert (tmp_path / 'a').read_bytes() == content
            await ssh_fast.scp(tmp_path / 'file', (conn, 'new'), preserve=True)
            assert Slow.files[b'new'] == content
            with pytest.raises(ssh_fast.SFTPFailure, match='The request failed'):
                await ssh_fast.scp((conn, 'broken'), tmp_path / 'broken')
            assert not (tmp_path / 'broken').exists()
            failed: list[Any] = []
            await ssh_fast.scp([(conn, 'broken'), (conn, 'c')], tmp_path, error_handler=failed.append)
            assert (len(failed), (tmp_path / 'c').read_bytes()) == (1, b'')
            with pytest.raises(ssh_fast.SFTPFailure, match='No space left'):
                await ssh_fast.scp(tmp_path / 'large', (conn, 'large'))
            assert Slow.files[b'large'] == b''
    await until(lambda: Slow.calls.count('exit') == 6)
    assert Slow.calls.count('close') == 6


async def test_a_server_that_also_runs_commands(key_ring: KeyRing, tmp_path: Path) -> None:
    """Only scp is taken out of what an application's handler gets."""

    async def handle(process: Any) -> None:
        process.stdout.write(process.command)
        process.exit(7)

    (tmp_path / 'file').write_text('text')
    async with our_server(key_ring, tmp_path / 'ours', allow_scp=True, process_factory=handle) as target:
        async with ssh_fast.connect(**target.connect_options()) as conn:
            result = await conn.run('scpx -t x')
            assert (result.stdout, result.exit_status) == ('scpx -t x', 7)
            await ssh_fast.scp((conn, tmp_path / 'file'), tmp_path / 'copy')
    assert (tmp_path / 'copy').read_text() == 'text'
    async with our_server(key_ring, tmp_path / 'ours', process_factory=handle) as target:
        async with ssh_fast.connect(**target.connect_options()) as conn:
            assert (await conn.run('scp -t x')).stdout == 'scp -t x'
