"""The same names without `async`, for scripts and notebooks: each call waits for its end in one background event loop.

    from ssh_fast import sync

    with sync.connect('host.example.org') as conn:
        print(conn.run('uname', check=True).stdout)

        with conn.start_sftp_client() as sftp:
            sftp.get('big.bin')

The calls may come from any threads, also from one that runs an event loop of its own as notebooks do. An exception that
ends the waiting, as KeyboardInterrupt, cancels what was under way before it goes on. Handlers that are given to a call,
as `progress_handler`, are called in the background thread, and must not call anything of this module.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from . import endpoints
from .connection.client import SSHClientConnection
from .forwarding.listeners import SSHListener
from .process.results import SSHCompletedProcess
from .scp import scp as copy_by_scp
from .sftp.attrs import SFTPAttrs
from .sftp.client import SFTPClient
from .sftp.file import SFTPClientFile
from .sftp.paths import SFTPPath, SFTPPaths
from .sftp.transfer import Transfer

__all__ = ['SFTP', 'Connection', 'File', 'Listener', 'connect', 'run', 'scp', 'sftp']

P = ParamSpec('P')
R = TypeVar('R')
T = TypeVar('T')

_CANCEL_TIMEOUT = 10.0    # seconds that a call which was interrupted may take to clean up


# --- the loop


class _Background:
    """An event loop in a thread, started when it is first needed, and again in a child process."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def run(self, awaitable: Awaitable[R]) -> R:
        """Run something to its end, and return its result."""

        loop = self._started()

        if threading.current_thread() is self._thread:
            if isinstance(awaitable, Coroutine):
                awaitable.close()

            raise RuntimeError('ssh_fast.sync was called in its own event loop, as by a handler: this would never end')

        ended = threading.Event()

        async def work() -> R:
            try:
                return await awaitable
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(work(), loop)

        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                ended.wait(_CANCEL_TIMEOUT)

            raise

    def forget(self) -> None:
        """Leave the loop behind: after a fork its thread is not here."""

        self._loop = self._thread = None
        self._lock = threading.Lock()

    def stop(self) -> None:
        """End the thread, with the interpreter."""

        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CANCEL_TIMEOUT)

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name='ssh_fast.sync', daemon=True)
                self._thread.start()

            return self._loop


_background = _Background()
atexit.register(_background.stop)

if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_background.forget)


class _Held(Generic[T]):
    """What holds an object that lives in the loop."""

    def __init__(self, inner: T) -> None:
        self._inner = inner


def _waiting(function: Callable[Concatenate[T, P], Awaitable[R]]) -> Callable[Concatenate[_Held[T], P], R]:
    """Make a method that waits of one that is awaited, with its name, parameters and documentation."""

    def call(self: _Held[T], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return _background.run(function(self._inner, *args, **kwargs))

    update_wrapper(call, function)

    return call


def _in_loop(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a plain function of an object that lives in the loop."""

    async def call() -> R:
        return function(*args, **kwargs)

    return _background.run(call())


# --- what is there


class File(_Held[SFTPClientFile]):
    """A file on the server: `SFTPClientFile`."""

    read = _waiting(SFTPClientFile.read)
    write = _waiting(SFTPClientFile.write)
    seek = _waiting(SFTPClientFile.seek)
    tell = _waiting(SFTPClientFile.tell)
    truncate = _waiting(SFTPClientFile.truncate)
    stat = _waiting(SFTPClientFile.stat)
    setstat = _waiting(SFTPClientFile.setstat)
    fsync = _waiting(SFTPClientFile.fsync)
    close = _waiting(SFTPClientFile.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class SFTP(_Held[SFTPClient]):
    """An SFTP session: `SFTPClient`."""

    chdir = _waiting(SFTPClient.chdir)
    chmod = _waiting(SFTPClient.chmod)
    chown = _waiting(SFTPClient.chown)
    copy = _waiting(SFTPClient.copy)
    exists = _waiting(SFTPClient.exists)
    get = _waiting(SFTPClient.get)
    getcwd = _waiting(SFTPClient.getcwd)
    getmtime = _waiting(SFTPClient.getmtime)
    getsize = _waiting(SFTPClient.getsize)
    glob = _waiting(SFTPClient.glob)
    isdir = _waiting(SFTPClient.isdir)
    isfile = _waiting(SFTPClient.isfile)
    islink = _waiting(SFTPClient.islink)
    lexists = _waiting(SFTPClient.lexists)
    link = _waiting(SFTPClient.link)
    listdir = _waiting(SFTPClient.listdir)
    lstat = _waiting(SFTPClient.lstat)
    makedirs = _waiting(SFTPClient.makedirs)
    mkdir = _waiting(SFTPClient.mkdir)
    posix_rename = _waiting(SFTPClient.posix_rename)
    put = _waiting(SFTPClient.put)
    readdir = _waiting(SFTPClient.readdir)
    readlink = _waiting(SFTPClient.readlink)
    realpath = _waiting(SFTPClient.realpath)
    remove = _waiting(SFTPClient.remove)
    rename = _waiting(SFTPClient.rename)
    rmdir = _waiting(SFTPClient.rmdir)
    rmtree = _waiting(SFTPClient.rmtree)
    setstat = _waiting(SFTPClient.setstat)
    stat = _waiting(SFTPClient.stat)
    statvfs = _waiting(SFTPClient.statvfs)
    symlink = _waiting(SFTPClient.symlink)
    truncate = _waiting(SFTPClient.truncate)
    unlink = _waiting(SFTPClient.unlink)
    utime = _waiting(SFTPClient.utime)

    def open(
        self,
        path: SFTPPath,
        pflags_or_mode: int | str = 'r',
        attrs: SFTPAttrs | None = None,
        encoding: str | None = 'utf-8',
        errors: str = 'strict',
        block_size: int | None = -1,
        max_requests: int = -1,
    ) -> File:
        """Open a file; the arguments are those of `SFTPClient.open`."""

        return File(
            _background.run(
                self._inner.open(path, pflags_or_mode, attrs, encoding, errors, block_size, max_requests)
            )
        )

    def mcopy(self, srcpaths: SFTPPaths, dstpath: SFTPPath | None = None, **options: Any) -> Transfer:
        """Copy what patterns match, on the server; the arguments are those of `SFTPClient.mcopy`."""

        return _background.run(self._inner.mcopy(srcpaths, dstpath, **options))

    def mget(self, remotepaths: SFTPPaths, localpath: SFTPPath | None = None, **options: Any) -> Transfer:
        """Download what patterns match; the arguments are those of `SFTPClient.mget`."""

        return _background.run(self._inner.mget(remotepaths, localpath, **options))

    def mput(self, localpaths: SFTPPaths, remotepath: SFTPPath | None = None, **options: Any) -> Transfer:
        """Upload what patterns match; the arguments are those of `SFTPClient.mput`."""

        return _background.run(self._inner.mput(localpaths, remotepath, **options))

    def close(self) -> None:
        """End the session."""

        _in_loop(self._inner.exit)
        _background.run(self._inner.wait_closed())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Listener(_Held[SSHListener]):
    """What listens for connections to forward."""

    def get_port(self) -> int:
        """Return the port that is listened on."""

        return self._inner.get_port()

    def close(self) -> None:
        """Stop listening."""

        _in_loop(self._inner.close)
        _background.run(self._inner.wait_closed())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Connection(_Held[SSHClientConnection]):
    """A connection that is logged in: `SSHClientConnection`."""

    def run(
        self, *args: Any, check: bool = False, timeout: float | None = None, **kwargs: Any
    ) -> SSHCompletedProcess:
        """Run a process to its end; the arguments are those of `SSHClientConnection.run`.

        Raises:
          ProcessError: with `check`, the exit status is not 0
          TimeoutError: it did not end in `timeout` seconds
        """

        return _background.run(self._inner.run(*args, check=check, timeout=timeout, **kwargs))

    def start_sftp_client(self, *args: Any, **kwargs: Any) -> SFTP:
        """Start an SFTP session; the arguments are those of `SSHClientConnection.start_sftp_client`."""

        return SFTP(_background.run(self._inner.start_sftp_client(*args, **kwargs)))

    def forward_local_port(self, listen_host: str, listen_port: int, dest_host: str, dest_port: int) -> Listener:
        """Listen here, and have the server connect to a destination, until the listener or this is closed."""

        made = self._inner.forward_local_port(listen_host, listen_port, dest_host, dest_port)

        return Listener(_background.run(made))

    def forward_remote_port(self, listen_host: str, listen_port: int, dest_host: str, dest_port: int) -> Listener:
        """Have the server listen, and connect from here to a destination, until the listener or this is closed."""

        made = self._inner.forward_remote_port(listen_host, listen_port, dest_host, dest_port)

        return Listener(_background.run(made))

    def forward_socks(self, listen_host: str, listen_port: int) -> Listener:
        """Listen for SOCKS clients, and have the server connect to where they want."""

        return Listener(_background.run(self._inner.forward_socks(listen_host, listen_port)))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the connection knows by a name, as 'peername' or 'username'."""

        return self._inner.get_extra_info(name, default)

    def is_closed(self) -> bool:
        """Say whether the connection has ended."""

        return self._inner.is_closed()

    def close(self) -> None:
        """Close the connection, and wait until it is."""

        _in_loop(self._inner.close)
        _background.run(self._inner.wait_closed())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def connect(host: str = '', port: int | tuple[()] = (), **kwargs: Any) -> Connection:
    """Connect to a server and log in; the keywords are those of `ssh_fast.connect`.

    Raises:
      OSError: no connection could be made
      HostKeyNotVerifiable: the server's host key is not trusted
      PermissionDenied: the login failed
      DisconnectError: the connection ended otherwise
    """

    tunnel = kwargs.get('tunnel')

    if isinstance(tunnel, Connection):
        kwargs['tunnel'] = tunnel._inner

    return Connection(_background.run(endpoints.connect(host, port, **kwargs)))


def run(
    host: str, command: str, *, check: bool = False, timeout: float | None = None, input: Any = None, **kwargs: Any
) -> SSHCompletedProcess:
    """Connect, run one command to its end, and close; other keywords are those of `connect`.

    Raises:
      ProcessError: with `check`, the exit status is not 0
      TimeoutError: the command did not end in `timeout` seconds
    """

    with connect(host, **kwargs) as conn:
        return conn.run(command, check=check, timeout=timeout, input=input)


@contextmanager
def sftp(host: str = '', port: int | tuple[()] = (), **kwargs: Any) -> Iterator[SFTP]:
    """Connect, and start an SFTP session that has the connection to itself: `with sftp('host') as session`."""

    with connect(host, port, **kwargs) as conn, conn.start_sftp_client() as session:
        yield session


def scp(srcpaths: Any, dstpath: Any = None, **kwargs: Any) -> None:
    """Copy by SCP as `ssh_fast.scp` does; connections in the places are those of this module."""

    sources = [_place(source) for source in srcpaths] if isinstance(srcpaths, list) else _place(srcpaths)

    _background.run(copy_by_scp(sources, _place(dstpath), **kwargs))


def _place(place: Any) -> Any:
    if isinstance(place, Connection):
        return place._inner

    if isinstance(place, tuple) and place and isinstance(place[0], Connection):
        return (place[0]._inner, *place[1:])

    return place
