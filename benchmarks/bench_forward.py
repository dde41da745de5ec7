"""Forwarded connections of the programs of the day: python -m benchmarks forward [--quick] [options].

Each round makes every measurement once, in a new random order, with a server and a client started for it, which are
connected and forward a port before anything is counted. The two ends of the connections are plain blocking sockets in
processes of their own. Counted are the wall time of the work, and meanwhile the CPU time of client and server.
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.conditions import conditions
from benchmarks.files import parse_size
from benchmarks.measure import GIB, MIB, Meter, process_tree
from benchmarks.peers import (
    START_TIMEOUT,
    Keys,
    OpenSSHServer,
    PeerFailed,
    Program,
    Server,
    connect_options,
    listen_options,
    openssh_flags,
    worker,
)
from benchmarks.rounds import (
    CIPHER,
    QUICK_RESULTS,
    RESULTS,
    SSHD_SETTINGS,
    Measurement,
    Run,
    WrongContent,
    choose,
    plan,
    stop,
)

_PIECE = 1 << 20
_REQUEST = 64    # bytes of a small request, and of its answer
_TIMEOUT = 600.0

_PAIRS = ('ssh_fast-openssh', 'ssh_fast-ssh_fast', 'openssh-openssh', 'asyncssh-openssh', 'asyncssh-asyncssh')


@dataclass(frozen=True)
class Work:
    """Something that is measured through a forwarded port; `remote` says that the server listens."""

    name: str
    do: Callable[['Bench', int], dict[str, Any]]
    remote: bool = False
    pairs: tuple[str, ...] = _PAIRS

    @property
    def size_matters(self) -> bool:
        """Whether it moves a file's worth, so that CPU time is counted a GiB."""

        return 'send' in self.name or 'receive' in self.name


class LibraryServer(Server):
    """A server by ssh_fast or AsyncSSH that forwards everything."""

    def __init__(self, module: str, keys: Keys, loop: str) -> None:
        options = {'port': 0, 'loop': loop, 'listen': listen_options(keys)}
        super().__init__(f'{module} server', worker('server', module, options, 'forward_worker'))

        try:
            self.port = int(self.hear(r'\d+', START_TIMEOUT)[0])
        except BaseException:
            self.end()
            raise


class Bench:
    """The keys of a run, and what all connections lead to."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.options = options
        self._keys = Keys(folder)
        self._target = 0

    # --- the works: each gets the port, and returns what it measured beside the times

    def send(self, port: int, streams: int = 1) -> dict[str, Any]:
        """Send the bytes, spread over some connections."""

        size = self.options.size // streams

        def one() -> None:
            with _connected(port) as connection:
                connection.sendall(b'w')
                piece = bytes(_PIECE)

                for _ in range(size // _PIECE):
                    connection.sendall(piece)

                connection.shutdown(socket.SHUT_WR)

                if int.from_bytes(connection.recv(8), 'big') != size:
                    raise WrongContent(f'not all of {size} bytes arrived')

        _at_once(one, streams)

        return {}

    def receive(self, port: int, streams: int = 1) -> dict[str, Any]:
        """Receive the bytes, spread over some connections."""

        size = self.options.size // streams

        def one() -> None:
            with _connected(port) as connection:
                connection.sendall(b'r' + size.to_bytes(8, 'big'))
                buffer = bytearray(_PIECE)
                received = 0

                while count := connection.recv_into(buffer):
                    received += count

                if received != size:
                    raise WrongContent(f'{received} of {size} bytes arrived')

        _at_once(one, streams)

        return {}

    def requests(self, port: int) -> dict[str, Any]:
        """Send small requests, each when the answer to the one before is there."""

        took = []

        with _connected(port) as connection:
            connection.sendall(b'e')
            request = bytes(_REQUEST)

            for _ in range(self.options.requests):
                began = time.perf_counter()
                connection.sendall(request)
                left = _REQUEST

                while left:
                    left -= len(connection.recv(left)) or _ended()

                took.append(time.perf_counter() - began)

        took.sort()

        return {'median': took[len(took) // 2], 'p99': took[len(took) * 99 // 100]}

    def connects(self, port: int) -> dict[str, Any]:
        """Open connections one after another; each carries a byte there and back."""

        for _ in range(self.options.connects):
            with _connected(port) as connection:
                connection.sendall(b'ex')

                if connection.recv(1) != b'x':
                    raise WrongContent('nothing came back')

        return {}

    # --- measuring

    def measure(self, work: Work, pair: str, number: int) -> Measurement:
        """Start a server and a client that forward a port, do the work through it, and end both."""

        client_kind, server_kind = pair.split('-')

        with (
            Program('the target', worker('target', '-', {}, 'forward_worker')) as target,
            self._start_server(server_kind) as server,
        ):
            self._target = int(target.hear(r'\d+', START_TIMEOUT)[0])

            with self._forwarding(client_kind, server.port, work.remote) as (client, port):
                meter = Meter(client=client, server=server.pid, target=target.pid)
                meter.start()
                began = time.perf_counter()
                extra = work.do(self, port)
                wall = time.perf_counter() - began
                usage = meter.stop()

        return Measurement(
            work.name, pair, number, wall, usage.sides['client'], usage.sides['client'], usage.sides['server'],
            usage.others / wall, usage.stolen / wall, extra,
        )

    def measure_idle(self, pair: str) -> dict[str, Any]:
        """Open many connections that do nothing, and return what each costs in memory at each end, in bytes."""

        client_kind, server_kind = pair.split('-')

        with (
            Program('the target', worker('target', '-', {}, 'forward_worker')) as target,
            self._start_server(server_kind) as server,
        ):
            self._target = int(target.hear(r'\d+', START_TIMEOUT)[0])

            with self._forwarding(client_kind, server.port, False) as (client, port):
                before = _resident(client), _resident(server.pid)

                with contextlib.ExitStack() as stack:
                    for _ in range(self.options.idle):
                        connection = stack.enter_context(_connected(port))
                        connection.sendall(b'ex')

                        if connection.recv(1) != b'x':
                            raise WrongContent('nothing came back')

                    after = _resident(client), _resident(server.pid)

        return {
            'pair': pair, 'connections': self.options.idle,
            'client': (after[0] - before[0]) / self.options.idle, 'server': (after[1] - before[1]) / self.options.idle,
        }

    def _start_server(self, kind: str) -> Server:
        if kind == 'openssh':
            return OpenSSHServer(self._keys, SSHD_SETTINGS)

        return LibraryServer(kind, self._keys, self.options.loop)

    @contextlib.contextmanager
    def _forwarding(self, kind: str, port: int, remote: bool) -> Iterator[tuple[int, int]]:
        """Start a client that forwards a port; gives its process and the port."""

        if kind == 'openssh':
            with socket.create_server(('127.0.0.1', 0)) as free:
                listening: int = free.getsockname()[1]

            way = ['-R' if remote else '-L', f'127.0.0.1:{listening}:127.0.0.1:{self._target}']
            flags = [*openssh_flags(self._keys, port, CIPHER), '-oExitOnForwardFailure=yes', '-p', str(port)]
            process = subprocess.Popen(['ssh', '-N', *way, *flags, f'{self._keys.user}@127.0.0.1'])

            try:
                _wait_for(listening, process)
                yield process.pid, listening
            finally:
                process.terminate()
                process.wait()

            return

        options = {
            'port': port, 'loop': self.options.loop, 'connect': connect_options(self._keys, port, CIPHER),
            'target': self._target, 'remote': remote,
        }

        with Program(f'{kind} client', worker('client', kind, options, 'forward_worker')) as client:
            yield client.pid, int(client.hear(r'\d+', START_TIMEOUT)[0])


def _connected(port: int) -> socket.socket:
    connection = socket.create_connection(('127.0.0.1', port), _TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    return connection


def _ended() -> NoReturn:
    raise WrongContent('the connection ended early')


def _wait_for(port: int, process: 'subprocess.Popen[bytes]') -> None:
    deadline = time.monotonic() + START_TIMEOUT

    while True:
        try:
            socket.create_connection(('127.0.0.1', port), 1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise PeerFailed('ssh does not forward the port') from None

            time.sleep(0.02)


def _at_once(work: Callable[[], None], count: int) -> None:
    """Do it in so many threads at once."""

    failures: list[Exception] = []

    def one() -> None:
        try:
            work()
        except Exception as exc:
            failures.append(exc)

    threads = [threading.Thread(target=one) for _ in range(count)]

    for thread in threads:
        thread.start()

    for thread in threads:
        thread.join()

    if failures:
        raise WrongContent(str(failures[0])) from failures[0]


def _resident(root: int) -> int:
    """Return the resident memory of a process and those below it, in bytes, without what they share."""

    total = 0

    for process in process_tree(root):
        with contextlib.suppress(OSError):
            fields = Path(f'/proc/{process.pid}/statm').read_text().split()
            total += (int(fields[1]) - int(fields[2])) * os.sysconf('SC_PAGE_SIZE')

    return total


WORKS = [
    Work('local_send', Bench.send),
    Work('local_receive', Bench.receive),
    Work('remote_send', Bench.send, remote=True),
    Work('remote_receive', Bench.receive, remote=True),
    Work('local_send_16_streams', lambda bench, port: bench.send(port, 16)),
    Work('local_receive_16_streams', lambda bench, port: bench.receive(port, 16)),
    Work('requests', Bench.requests),
    Work('connects', Bench.connects),
]


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""

    names = [work.name for work in WORKS]
    parser = argparse.ArgumentParser(prog='benchmarks forward', description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--works', help=f'some of: {",".join(names)}; default: all')
    parser.add_argument('--pairs', help=f'only these of {",".join(_PAIRS)}')
    parser.add_argument('--rounds', type=int, help='default 5')
    parser.add_argument('--size', type=parse_size, help='that goes through a bulk work; default 1G')
    parser.add_argument('--requests', type=int, help='default 5000')
    parser.add_argument('--connects', type=int, help='default 1000')
    parser.add_argument('--idle', type=int, help='connections that are open at once; default 2000, 0 for none')
    parser.add_argument('--loop', choices=('asyncio', 'uvloop'), default='asyncio', help="of the libraries' processes")
    parser.add_argument('--busy', type=float, default=0.1, help='CPUs that others may use; default %(default)s')
    parser.add_argument('--repeats', type=int, help='of a measurement when others are busy; default 5')
    parser.add_argument('--quick', action='store_true', help='small, one round, no repeats: to see that it works')
    parser.add_argument('--output', type=Path, help='folder of the results')
    options = parser.parse_args(arguments)
    full = {
        'rounds': 5, 'size': GIB, 'requests': 5000, 'connects': 1000, 'idle': 2000, 'repeats': 5, 'output': RESULTS,
    }
    quick = {
        'rounds': 1, 'size': 64 * MIB, 'requests': 200, 'connects': 50, 'idle': 50, 'repeats': 0,
        'output': QUICK_RESULTS,
    }

    for name, value in (quick if options.quick else full).items():
        if getattr(options, name) is None:
            setattr(options, name, value)

    choose(parser, options, WORKS)

    if options.size % (16 * MIB):
        parser.error('--size must be a multiple of 16M')

    return options


def main(arguments: list[str] | None = None) -> int:
    """Measure, and write the results; the exit status is 1 if something failed."""

    options = parse_options(arguments)
    signal.signal(signal.SIGTERM, stop)
    cases, absent = plan(WORKS, options)

    for line in absent:
        print(line)

    path = options.output / 'forward.json'

    with tempfile.TemporaryDirectory(prefix='bench_forward.') as name:
        about = conditions(Path(name))
        about.pop('files', None)
        bench = Bench(Path(name), options)
        run = Run(bench, options, ('size', 'requests', 'connects', 'idle', 'loop', 'busy'))
        run.more['idle'] = idle = []
        run.measure_all(cases, path, about)

        for pair in dict.fromkeys(pair for _, pair in cases) if options.idle else ():
            try:
                idle.append(bench.measure_idle(pair))
            except (PeerFailed, WrongContent, OSError) as exc:
                run.failures[f'idle {pair}'] = str(exc)

        run.save(path, about)

    from benchmarks.forward_report import write_report

    return run.report(write_report, path)


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
