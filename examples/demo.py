"""Upload and download a file on this machine, with ssh_fast at both ends, and beside it with OpenSSH's `sftp`.

    python examples/demo.py [--size 1G] [--dir FOLDER]

A server with throw-away keys runs in a process of its own on a free loopback port; the client is this program. The
exit status is 0 only if all that arrived has the SHA-256 of what was sent. Nothing stays behind, on Ctrl-C neither.
"""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

try:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
    from rich.table import Table
except ImportError:
    sys.exit("The demo needs rich: pip install 'ssh_fast[demo]'")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))    # where the benchmarks' harness is, too

import ssh_fast
from benchmarks.files import blank, default_folder, digest, make_source, parse_size
from benchmarks.measure import GIB, MIB, Meter
from benchmarks.peers import Keys, OpenSSHClient, PeerFailed, missing, start_server

CIPHER = 'aes128-gcm@openssh.com'
FILES_AT_ONCE = 3    # what is sent, what was uploaded, what was downloaded


@dataclass
class Transfer:
    """What one transfer took: MB/s, and CPU seconds a GiB of each side."""

    speed: float
    client: float
    server: float


class Demo:
    """The files of a demonstration, its keys and its progress bars."""

    def __init__(self, folder: Path, size: int, progress: Progress) -> None:
        self._keys = Keys(folder)
        self._size = size
        self._progress = progress
        self._source, self._uploaded, self._downloaded = (
            folder / name for name in ('source', 'uploaded', 'downloaded')
        )
        bar = self._bar('random file')
        self._digest = make_source(self._source, size, lambda done: progress.update(bar, completed=done))

    def _bar(self, words: str) -> TaskID:
        return self._progress.add_task(words, total=self._size)

    def _blank_targets(self) -> None:
        for target in (self._uploaded, self._downloaded):
            blank(target, self._size)

    def _check(self) -> None:
        for target in (self._uploaded, self._downloaded):
            if digest(target) != self._digest:
                raise PeerFailed(f'{target.name}: its SHA-256 is not that of the source')

    def _rate(self, seconds: float, client: float, server: float) -> Transfer:
        gib = self._size / GIB

        return Transfer(self._size / 1e6 / seconds, client / gib, server / gib)

    async def run_ours(self) -> list[Transfer]:
        """Upload, then download with ssh_fast; return what each took."""

        self._blank_targets()
        taken = []

        with start_server('ssh_fast', self._keys) as server:
            async with (
                ssh_fast.connect(
                    '127.0.0.1',
                    server.port,
                    username=self._keys.user,
                    client_keys=[self._keys.user_key],
                    known_hosts=str(self._keys.known_hosts(server.port)),
                    encryption_algs=[CIPHER],
                    config=None,
                ) as connection,
                connection.start_sftp_client() as sftp,
            ):
                for direction in ('upload', 'download'):
                    bar = self._bar(f'ssh_fast {direction}')
                    meter = Meter(server=server.pid)
                    meter.start()
                    cpu, began = time.process_time(), time.perf_counter()

                    def show(source: bytes, target: bytes, done: int, total: int, bar: TaskID = bar) -> None:
                        self._progress.update(bar, completed=done)

                    if direction == 'upload':
                        await sftp.put(self._source, self._uploaded, progress_handler=show)
                    else:
                        await sftp.get(self._uploaded, self._downloaded, progress_handler=show)

                    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
                    taken.append(self._rate(seconds, cpu, meter.stop().sides['server']))
                    self._progress.update(bar, completed=self._size)

        self._check()

        return taken

    def run_openssh(self) -> list[Transfer]:
        """Do the same work with OpenSSH's `sftp` and `sshd`."""

        self._blank_targets()
        taken = []

        with (
            start_server('openssh', self._keys) as server,
            OpenSSHClient(self._keys, server.port, CIPHER, None) as client,
        ):
            for direction, words in (('put', 'OpenSSH upload'), ('get', 'OpenSSH download')):
                local = self._source if direction == 'put' else self._downloaded
                target = self._uploaded if direction == 'put' else self._downloaded
                bar = self._bar(words)
                meter = Meter(client=client.pid, server=server.pid)
                meter.start()
                began = time.perf_counter()
                client.begin(direction, self._uploaded, local)

                while not client.done(0.1):
                    # The target exists, full of zeros, until it is opened.
                    done = target.stat().st_size
                    self._progress.update(bar, completed=done if done < self._size else None)

                seconds = time.perf_counter() - began
                taken.append(self._rate(seconds, **meter.stop().sides))
                self._progress.update(bar, completed=self._size)

            client.wait()

        self._check()

        return taken


def make_table(rows: dict[str, list[Transfer]], size: int) -> Table:
    """Return the table of what each program took."""

    table = Table(title=f'{size / MIB:.0f} MiB, {CIPHER}', caption='CPU in seconds a GiB; SHA-256 equal')
    table.add_column('')

    for head in ('upload MB/s', 'client CPU', 'server CPU', 'download MB/s', 'client CPU', 'server CPU'):
        table.add_column(head, justify='right')

    for name, transfers in rows.items():
        cells = [(f'{one.speed:.0f}', f'{one.client:.2f}', f'{one.server:.2f}') for one in transfers]
        table.add_row(name, *(cell for part in cells for cell in part))

    if len(rows) == 2:
        ours, theirs = rows.values()
        ratios = [
            f'{getattr(mine, field) / getattr(peer, field):.2f}' if getattr(peer, field) else ''
            for mine, peer in zip(ours, theirs, strict=True)
            for field in ('speed', 'client', 'server')
        ]
        table.add_row('ratio', *ratios, style='bold')

    return table


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--size', type=parse_size, default=GIB, help='of the file, as 64M; default 1G')
    parser.add_argument('--dir', type=Path, help='for the files; default: in memory if there is room')
    options = parser.parse_args()
    needed = FILES_AT_ONCE * options.size + 16 * MIB

    if options.dir is None:
        folders = [default_folder(), Path(tempfile.gettempdir())]
        options.dir = next((one for one in folders if shutil.disk_usage(one).free > needed), folders[-1])
    elif not options.dir.is_dir():
        parser.error(f'--dir: there is no folder {options.dir}')

    if shutil.disk_usage(options.dir).free < needed:
        parser.error(f'{options.dir} has not the room for {FILES_AT_ONCE} files of {options.size / MIB:.0f} MiB')

    return options


def run(options: argparse.Namespace, console: Console) -> None:
    columns = (
        TextColumn('{task.description:18}'),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
    )
    lacking = missing('openssh', 'client') or missing('openssh', 'server')

    with tempfile.TemporaryDirectory(prefix='ssh_fast_demo.', dir=options.dir) as folder:
        console.print(f'Files in {folder}')

        with Progress(*columns, console=console) as progress:
            demo = Demo(Path(folder), options.size, progress)
            rows = {'ssh_fast': asyncio.run(demo.run_ours())}

            if not lacking:
                rows['OpenSSH'] = demo.run_openssh()

    console.print(make_table(rows, options.size))

    if lacking:
        console.print(f'Not compared with OpenSSH: {lacking}.')


def _stop(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main() -> int:
    console = Console()
    options = parse_options()

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)

    try:
        run(options, console)
    except KeyboardInterrupt:
        console.print('Interrupted: server, keys and files are gone.')

        return 130
    except (PeerFailed, OSError, ssh_fast.Error, ssh_fast.SFTPError) as exc:
        console.print(f'Failed: {type(exc).__name__}: {exc}', markup=False)

        return 1

    return 0


if __name__ == '__main__':
    sys.exit(main())
