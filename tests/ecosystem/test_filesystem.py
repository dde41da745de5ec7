"""The fsspec filesystem, with fsspec's own abstract tests, on OpenSSH's server and ours."""

import asyncio
import contextlib
import os
import pickle
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from tests.interop.peers import Target

fsspec = pytest.importorskip('fsspec', reason='fsspec is not installed')

from fsspec.tests import abstract  # noqa: E402

from ssh_fast.filesystem import PROTOCOL, SSHFileSystem  # noqa: E402


@pytest.fixture(autouse=True, scope='module')
def registered() -> None:
    """The entry point as an installed package has it."""
    project = tomllib.loads((Path(__file__).parents[2] / 'pyproject.toml').read_text())['project']
    fsspec.register_implementation(PROTOCOL, project['entry-points']['fsspec.specs'][PROTOCOL], clobber=True)


@pytest.fixture
def fs(server: Target) -> Iterator[SSHFileSystem]:
    made = SSHFileSystem(**server.connect_options(), skip_instance_cache=True)
    yield made
    made.close()


class _Fixtures(abstract.AbstractFixtures):
    @pytest.fixture
    def fs(self, server: Target) -> Iterator[SSHFileSystem]:
        made = SSHFileSystem(**server.connect_options(), skip_instance_cache=True)
        yield made
        made.close()

    @pytest.fixture
    def fs_path(self, tmp_path: Path) -> str:
        (tmp_path / 'remote').mkdir()
        return str(tmp_path / 'remote')


class TestCopy(abstract.AbstractCopyTests, _Fixtures):
    pass


class TestGet(abstract.AbstractGetTests, _Fixtures):
    pass


class TestPut(abstract.AbstractPutTests, _Fixtures):
    pass


class TestPipe(abstract.AbstractPipeTests, _Fixtures):
    pass


class TestOpen(abstract.AbstractOpenTests, _Fixtures):
    pass


def url(target: Target, path: Path) -> str:
    return f'{PROTOCOL}://{target.user}@{target.host}:{target.port}{path}'


def options(target: Target) -> dict[str, Any]:
    """The options that a URL does not have."""
    return {name: value for name, value in target.connect_options().items() if name not in ('host', 'port', 'username')}


def test_protocol_is_registered(server: Target, tmp_path: Path) -> None:
    with fsspec.open(url(server, tmp_path / 'a?b#c'), 'wt', **options(server)) as file:
        file.write('by url')
    assert (tmp_path / 'a?b#c').read_text() == 'by url'
    assert isinstance(fsspec.url_to_fs(url(server, tmp_path), **options(server))[0], SSHFileSystem)


def test_addresses() -> None:
    parts = SSHFileSystem._get_kwargs_from_urls('ssh-fast://me:p%40ss@host:2222/a/b')
    assert parts == {'host': 'host', 'port': 2222, 'username': 'me', 'password': 'p@ss'}
    assert SSHFileSystem._get_kwargs_from_urls('ssh-fast://[::1]/a') == {'host': '::1'}
    assert SSHFileSystem._strip_protocol('ssh-fast://me@host/a/b/') == '/a/b'
    assert SSHFileSystem._strip_protocol('ssh-fast://host') == '/'
    assert SSHFileSystem._strip_protocol('a/b') == 'a/b'


def test_names(fs: SSHFileSystem, tmp_path: Path) -> None:
    (tmp_path / 'd/e').mkdir(parents=True)
    (tmp_path / 'd/one').write_bytes(b'1' * 10)
    (tmp_path / 'd/e/two').write_bytes(b'2' * 20)
    (tmp_path / 'link').symlink_to('d')
    (tmp_path / 'broken').symlink_to('nowhere')
    root = str(tmp_path)
    assert fs.ls(root, detail=False) == [f'{root}/{name}' for name in ('broken', 'd', 'link')]
    kinds = {Path(entry['name']).name: (entry['type'], entry.get('islink', False)) for entry in fs.ls(root)}
    assert kinds == {'d': ('directory', False), 'link': ('directory', True), 'broken': ('other', True)}
    assert fs.du(f'{root}/d') == 30
    assert fs.find(f'{root}/d') == [f'{root}/d/e/two', f'{root}/d/one']
    assert fs.glob(f'{root}/d/**/t*') == [f'{root}/d/e/two']
    assert fs.info(f'{root}/d/one')['size'] == 10
    assert fs.modified(f'{root}/d/one').timestamp() == int((tmp_path / 'd/one').stat().st_mtime)
    fs.mv(f'{root}/d/one', f'{root}/d/e')
    assert (tmp_path / 'd/e/one').read_bytes() == b'1' * 10
    (tmp_path / 'old').write_bytes(b'old')
    fs.mv(f'{root}/d/e/one', f'{root}/old')
    assert (tmp_path / 'old').read_bytes() == b'1' * 10
    fs.touch(f'{root}/old', truncate=False)
    assert fs.size(f'{root}/old') == 10
    fs.touch(f'{root}/old')
    assert fs.size(f'{root}/old') == 0
    fs.rm(f'{root}/link', recursive=True)    # the link, not what it leads to
    fs.rm([f'{root}/d'], recursive=True)
    assert sorted(os.listdir(root)) == ['broken', 'old']
    fs.rm(f'{root}/broken')
    fs.mkdir(f'{root}/x/y')
    with pytest.raises(FileExistsError):
        fs.mkdir(f'{root}/x/y')
    with pytest.raises(FileExistsError):
        fs.makedirs(f'{root}/x/y')
    fs.rmdir(f'{root}/x/y')


def test_errors_are_those_of_the_system(fs: SSHFileSystem, tmp_path: Path) -> None:
    for work in (fs.ls, fs.info, fs.cat_file, fs.rm_file, fs.open):
        with pytest.raises(FileNotFoundError):
            work(str(tmp_path / 'none'))
    with pytest.raises(FileNotFoundError):
        fs.open(str(tmp_path / 'none/below'), 'wb')
    assert not fs.exists(str(tmp_path / 'none'))
    (tmp_path / 'file').write_bytes(b'')
    with pytest.raises(OSError):
        fs.pipe_file(str(tmp_path / 'file/below'), b'')
    for work in (fs.cp_file, fs.put_file):
        with pytest.raises(FileNotFoundError):
            work(str(tmp_path / 'none'), str(tmp_path / 'new/none'))
    assert not (tmp_path / 'new').exists()


def test_ranges(fs: SSHFileSystem, tmp_path: Path) -> None:
    content = os.urandom(1_000_000)
    (tmp_path / 'a').write_bytes(content)
    (tmp_path / 'b').write_bytes(content[::-1])
    one, two, none = (str(tmp_path / name) for name in ('a', 'b', 'none'))
    assert fs.cat_ranges([one, two, one, one], [0, 5, -10, 999_990], [10, 6, None, 2_000_000]) == [
        content[:10],
        content[::-1][5:6],
        content[-10:],
        content[-10:],
    ]
    assert fs.cat_file(one, 100, -100) == content[100:-100]
    assert fs.cat_file(one, 5, 5) == b''
    found = fs.cat_ranges([one, none], 0, 3)
    assert found[0] == content[:3] and isinstance(found[1], FileNotFoundError)
    assert len(fs.cat_ranges([one] * 500, list(range(500)), list(range(100, 600)))) == 500
    with pytest.raises(ValueError):
        fs.cat_ranges([one], [0, 1], [2])


def test_open_files(fs: SSHFileSystem, tmp_path: Path) -> None:
    content = os.urandom(10_000_000)
    path = str(tmp_path / 'file')
    with fs.open(path, 'wb', block_size=1 << 20) as file:
        for start in range(0, len(content), 300_000):
            file.write(content[start : start + 300_000])
    assert (tmp_path / 'file').read_bytes() == content
    with fs.open(path, 'ab') as file:
        assert file.tell() == len(content)
        file.write(b'more')
    with fs.open(path, 'rb') as file:
        file.seek(-4, 2)
        assert file.read() == b'more'
        file.seek(123)
        assert file.read(1000) == content[123:1123]
    with fs.open(path, 'rt', encoding='latin-1', newline='') as file:
        assert file.read(100).encode('latin-1') == content[:100]
    with fs.open(path, 'wb'):
        pass
    assert fs.size(path) == 0


def test_transactions(fs: SSHFileSystem, tmp_path: Path) -> None:
    path = tmp_path / 'file'
    path.write_bytes(b'before')
    with fs.transaction:
        with fs.open(str(path), 'wb') as file:
            file.write(b'after')
        assert path.read_bytes() == b'before'
    assert path.read_bytes() == b'after'
    with pytest.raises(KeyError):
        with fs.transaction:
            with fs.open(str(path), 'wb') as file:
                file.write(b'never')
            raise KeyError
    assert path.read_bytes() == b'after'
    assert os.listdir(tmp_path) == ['file']


def test_progress_and_bulk(fs: SSHFileSystem, tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / 'tree' / str(number % 7)).mkdir(parents=True, exist_ok=True)
        (tmp_path / 'tree' / str(number % 7) / str(number)).write_bytes(os.urandom(number))
    callback = fsspec.Callback()
    fs.put(str(tmp_path / 'tree'), str(tmp_path / 'there'), recursive=True, callback=callback)
    assert (callback.size, callback.value) == (300, 300)
    fs.get(str(tmp_path / 'there'), str(tmp_path / 'back'), recursive=True)
    for path in (tmp_path / 'tree').rglob('*'):
        if path.is_file():
            assert (tmp_path / 'back' / path.relative_to(tmp_path / 'tree')).read_bytes() == path.read_bytes()


def test_connection_that_was_lost_is_made_anew(fs: SSHFileSystem, tmp_path: Path) -> None:
    (tmp_path / 'file').write_bytes(b'x')
    assert fs.cat_file(str(tmp_path / 'file')) == b'x'
    first = fs._connection
    assert first is not None
    fs.loop.call_soon_threadsafe(first.abort)
    with contextlib.suppress(ssh_fast.DisconnectError, OSError):
        while fs._connection is first:    # what was under way may still fail
            fs.cat_file(str(tmp_path / 'file'))
    assert fs.cat_file(str(tmp_path / 'file')) == b'x'
    assert fs._connection is not None and fs._connection is not first


async def test_in_the_callers_loop(server: Target, tmp_path: Path) -> None:
    made = SSHFileSystem(**server.connect_options(), asynchronous=True, skip_instance_cache=True)
    await made._pipe({str(tmp_path / str(number)): b'%d' % number for number in range(20)})
    found = await made._cat([str(tmp_path / str(number)) for number in range(20)])
    assert sorted(found.values(), key=int) == [b'%d' % number for number in range(20)]
    async with await made.open_async(str(tmp_path / '7')) as file:
        assert await file.read() == b'7'
    assert made._connection is not None
    made._connection.close()
    await asyncio.wait_for(made._connection.wait_closed(), 10)


def test_pickled_for_workers(fs: SSHFileSystem, tmp_path: Path) -> None:
    (tmp_path / 'file').write_bytes(b'x')
    fs.info(str(tmp_path))
    other = pickle.loads(pickle.dumps(fs))
    assert other.cat_file(str(tmp_path / 'file')) == b'x'
    other.close()


# --- those who read tables -------------------------------------------------------------------------------------------


def test_pandas(server: Target, tmp_path: Path) -> None:
    pandas = pytest.importorskip('pandas', reason='pandas is not installed')
    table = pandas.DataFrame({'a': range(1000), 'b': [f'text {number}' for number in range(1000)]})
    table.to_csv(url(server, tmp_path / 'table.csv'), index=False, storage_options=options(server))
    assert pandas.read_csv(url(server, tmp_path / 'table.csv'), storage_options=options(server)).equals(table)


def test_pyarrow(fs: SSHFileSystem, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip('pyarrow', reason='pyarrow is not installed')
    parquet = pytest.importorskip('pyarrow.parquet', reason='pyarrow is not installed')
    table = pyarrow.table({'a': list(range(100_000)), 'b': [str(number) for number in range(100_000)]})
    parquet.write_table(table, str(tmp_path / 'table.parquet'), filesystem=fs, row_group_size=10_000)
    assert parquet.read_table(str(tmp_path / 'table.parquet'), filesystem=fs).equals(table)
    part = parquet.read_table(str(tmp_path / 'table.parquet'), filesystem=fs, columns=['a'], filters=[('a', '<', 5)])
    assert part.to_pydict() == {'a': [0, 1, 2, 3, 4]}


def test_duckdb(fs: SSHFileSystem, tmp_path: Path) -> None:
    duckdb = pytest.importorskip('duckdb', reason='duckdb is not installed')
    (tmp_path / 'table.csv').write_text('a,b\n1,2\n3,4\n')
    connection = duckdb.connect()
    connection.register_filesystem(fs)
    assert connection.sql(f"select sum(b) from read_csv('{PROTOCOL}://{tmp_path}/table.csv')").fetchall() == [(6,)]
