"""Copies by SCP: what was named as source and destination, and the commands on servers that they take."""

import os
import posixpath
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import PurePath
from typing import Any, Literal, NamedTuple

from .connection.client import SSHClientConnection
from .endpoints import connect
from .errors import DisconnectError
from .logging import printable
from .process.streams import SSHReader, SSHWriter
from .sftp.errors import SFTPConnectionLost, SFTPError, SFTPFailure
from .sftp.scp_command import has_pattern, sink_command, source_command, wanted_names
from .sftp.scp_link import ScpLink
from .sftp.scp_local import LocalFiles, LocalScpTarget
from .sftp.scp_records import RecordOrder
from .sftp.scp_relay import RelayTarget
from .sftp.scp_sink import ScpSink, ScpTarget
from .sftp.scp_source import RecordSender, ScpSource, matching_paths
from .sftp.transfer import CopyOptions, ErrorHandler, ProgressHandler, is_handled

_Path = bytes | str | PurePath
_Host = bytes | str | tuple[str, int]
_Connection = SSHClientConnection | _Host | None
_ConnectionPath = tuple[_Connection, _Path] | SSHClientConnection | tuple[str, int] | _Path | None

_BLOCK = 256 * 1024
_MAX_PACKET = 128 * 1024

# How much is told of what a server's scp wrote as errors.
_MAX_ERRORS = 1024

# As OpenSSH: a colon behind a slash is part of a local path.
_REMOTE = re.compile(rb'(?P<host>(?:[^:/]+@)?(?:\[[^]/]+\]|[^:/@[\]]+)):(?P<path>.*)', re.DOTALL)


class _Place(NamedTuple):
    """A path, local without a connection."""

    connection: _Connection
    path: bytes


async def scp(
    srcpaths: _ConnectionPath | Sequence[_ConnectionPath],
    dstpath: _ConnectionPath = None,
    *,
    preserve: bool = False,
    recurse: bool = False,
    block_size: int = _BLOCK,
    progress_handler: ProgressHandler = None,
    error_handler: Callable[[Exception], object] | Literal[False] | None = None,
    **kwargs: Any,
) -> None:
    """Copy files between this host and servers, or from one server to another through this host.

    A place is a local path, `'host:path'`, or a tuple of a connection and a path. The connection may also be a host, or
    a tuple of host and port; it is then opened, with `kwargs` for `connect`, and closed at the end. Sources may be
    patterns with `*`, `?` and `[...]`. Of several, and of a directory with `recurse`, each goes into the destination.

    `progress_handler` is called with source, destination, bytes done and bytes in all. `error_handler` gets what fails
    while the copy goes on with the next file, but for the end of a connection; False passes over it.

    Raises:
      OSError: a local file cannot be read or written
      SFTPError: the server failed, or sent what was not asked for
      ChannelOpenError: the server runs no scp
      ValueError: all places are local, or an argument is nothing that can be copied
    """

    if not isinstance(block_size, int) or block_size < 1:
        raise ValueError(f'block_size: expected at least 1 byte, got {block_size!r}')

    sources = [_place('srcpaths', source) for source in _as_list(srcpaths)]
    target = _place('dstpath', dstpath)

    if not sources:
        raise ValueError('srcpaths: expected at least one source, got none')

    if target.connection is None and any(source.connection is None for source in sources):
        raise ValueError('srcpaths, dstpath: expected a source or the destination on a server, got local paths only')

    options = CopyOptions(
        preserve=preserve,
        recurse=recurse,
        block_size=block_size,
        progress_handler=progress_handler,
        error_handler=error_handler,
    )

    async with _Connections(kwargs) as connections:
        copy = _Copy(connections, options)

        if target.connection is None:
            await copy.download(sources, target.path or b'.')
        else:
            await copy.upload(sources, target)


# --- what was named


def _as_list(places: Any) -> Sequence[Any]:
    """Return a sequence of sources: a tuple of two is one source, or two of which the first is a host."""

    if (isinstance(places, tuple) and len(places) == 2) or not isinstance(places, Sequence):
        return [places]

    return [places] if isinstance(places, bytes | str) else places


def _place(name: str, place: Any) -> _Place:
    if isinstance(place, tuple) and len(place) == 2 and not isinstance(place[1], int):
        connection, path = place
    elif isinstance(place, SSHClientConnection | tuple):
        connection, path = place, b''
    else:
        connection, path = None, b'' if place is None else place

        if not isinstance(path, PurePath) and (found := _REMOTE.fullmatch(_as_bytes(name, path))):
            connection, path = found['host'], found['path']

    is_pair = isinstance(connection, tuple) and [type(part) for part in connection] == [str, int]

    if not is_pair and not isinstance(connection, bytes | str | SSHClientConnection | None):
        raise TypeError(f'{name}: expected a connection or host, got {type(connection).__name__}')

    return _Place(connection, _as_bytes(name, path))


def _as_bytes(name: str, path: Any) -> bytes:
    if not isinstance(path, bytes | str | PurePath):
        raise TypeError(f'{name}: expected a path, got {type(path).__name__}')

    encoded = os.fsencode(path)

    if b'\0' in encoded:
        raise ValueError(f'{name}: expected a path without a NUL in it, got {path!r}')

    return encoded


class _Connections:
    """The connections of one copy: those that it opens are opened once for each host, and closed at the end."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._opened: dict[_Host, SSHClientConnection] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> '_Connections':
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._stack.aclose()

    async def get(self, connection: _Connection) -> SSHClientConnection:
        """Return the connection to a server."""

        if isinstance(connection, SSHClientConnection):
            return connection

        assert connection is not None
        host = os.fsdecode(connection) if isinstance(connection, bytes) else connection
        opened = self._opened.get(host)

        if opened is None:
            opened = await self._stack.enter_async_context(connect(**{**self._options, **_where(host)}))
            self._opened[host] = opened

        return opened


def _where(host: str | tuple[str, int]) -> dict[str, Any]:
    """Return the arguments of `connect` that a host says."""

    if isinstance(host, tuple):
        return {'host': host[0], 'port': host[1]}

    user, _, name = host.rpartition('@')
    where = {'host': name[1:-1] if name.startswith('[') and name.endswith(']') else name}

    return {**where, 'username': user} if user else where


# --- the copy


class _Failures:
    """Gives what fails to the error handler, or raises it; what is raised once is raised again by all that it ends."""

    def __init__(self, handler: ErrorHandler) -> None:
        self.count = 0
        self._handler = handler
        self._stopping = False

    def __call__(self, exc: Exception, source: bytes, path: bytes) -> None:
        if self._stopping:
            raise exc

        self.count += 1
        self._stopping = True

        if not is_handled(exc, source, path, self._handler):
            raise exc

        self._stopping = False


class _Copy:
    def __init__(self, connections: _Connections, options: CopyOptions) -> None:
        self._connections = connections
        self._options = options
        self._failures = _Failures(options.error_handler)

    async def download(self, sources: Sequence[_Place], path: bytes) -> None:
        """Copy from servers into a local directory, or to a local name."""

        for source in sources:
            try:
                follow_names = not has_pattern(source.path)
                target = LocalScpTarget(path, must_be_directory=len(sources) > 1, follow_names=follow_names)

                with target:
                    await self._fetch(source, target)
            except (OSError, SFTPError) as exc:
                self._failures(exc, source.path, path)

    async def upload(self, sources: Sequence[_Place], target: _Place) -> None:
        """Copy to a server, from here or from other servers."""

        connection = await self._connections.get(target.connection)
        places = await _expanded(sources)
        # How many files a server's pattern matches is not known before they come.
        many = len(places) > 1 or any(place.connection is not None and has_pattern(place.path) for place in places)
        command = sink_command(
            target.path, recurse=self._options.recurse, preserve=self._options.preserve, must_be_directory=many
        )

        try:
            async with self._running(connection, command) as remote:
                await remote.link.expect_ok()
                sender = RecordSender(remote.link, self._options.preserve)

                for place in places:
                    await self._send(place, sender)
        except (OSError, SFTPError) as exc:
            self._failures(exc, sources[0].path, target.path)

    async def _send(self, place: _Place, sender: RecordSender) -> None:
        try:
            if place.connection is None:
                source = ScpSource(LocalFiles(), sender, self._options, self._failures, tells=False)
                await source.send(place.path)
            else:
                await self._fetch(place, RelayTarget(sender))
        except (OSError, SFTPError) as exc:
            # The destination's own end has a better explanation.
            if sender.link.broken:
                raise

            self._failures(exc, place.path, posixpath.basename(place.path))

    async def _fetch(self, source: _Place, target: ScpTarget) -> None:
        """Copy what a server has, to a target of any kind."""

        wanted = wanted_names(source.path)

        if wanted is None:
            raise SFTPFailure(f'{os.fsdecode(source.path)!r} has no name of its own: name the file or directory')

        connection = await self._connections.get(source.connection)
        command = source_command(source.path, recurse=self._options.recurse, preserve=self._options.preserve)
        failures = self._failures.count

        async with self._running(connection, command) as remote:
            order = RecordOrder(recurse=self._options.recurse, wanted=wanted)
            sink = ScpSink(remote.link, target, order, self._options, self._failures, source.path)
            await sink.receive()

        if not sink.count and failures == self._failures.count:
            raise SFTPFailure(f'The server sent nothing for {os.fsdecode(source.path)}')

    @asynccontextmanager
    async def _running(self, connection: SSHClientConnection, command: bytes) -> AsyncIterator['_RemoteScp']:
        """Run a server's scp; at the end it must have succeeded, unless something that failed has been told."""

        stdin, stdout, stderr = await connection.open_session(
            command, request_pty=False, encoding=None, max_pktsize=_MAX_PACKET
        )
        remote = _RemoteScp(stdin, stdout, stderr, self._options.block_size)
        failures = self._failures.count

        try:
            yield remote

            if not remote.link.broken:
                await remote.finish(may_fail=failures != self._failures.count)
        except SFTPConnectionLost as exc:
            # It may be another stream that ended: that of the other server.
            if not remote.link.broken:
                raise

            raise await remote.explained(exc) from None
        finally:
            remote.close()


class _RemoteScp:
    """The scp that runs on a server."""

    def __init__(self, stdin: SSHWriter[Any], stdout: SSHReader[Any], stderr: SSHReader[Any], block_size: int) -> None:
        self.link = ScpLink(stdout, stdin)
        self._chan: Any = stdin.channel
        self._stderr = stderr
        self._chan.set_write_buffer_limits(2 * block_size, block_size)

    async def finish(self, may_fail: bool) -> None:
        """Wait for the end.

        Raises:
          SFTPFailure: it failed, which only it may do that has told of a failure
        """

        self._chan.write_eof()
        await self._chan.wait_closed()

        if self._chan.get_exit_status() not in (None, 0) and not may_fail:
            raise SFTPFailure(await self._end())

    def close(self) -> None:
        """End it, if it has not ended: at once, or behind the reason that it was told."""

        if self.link.broken:
            self._chan.close()
        else:
            self._chan.abort()

    async def explained(self, exc: SFTPConnectionLost) -> SFTPError:
        """Return why the stream ended early: how scp ended, if the server says it."""

        self._chan.close()
        await self._chan.wait_closed()

        return exc if self._chan.get_exit_status() is None else SFTPFailure(await self._end())

    async def _end(self) -> str:
        try:
            errors = (await self._stderr.read(_MAX_ERRORS)).decode('utf-8', 'replace').strip()
        except (OSError, DisconnectError, BufferError):
            errors = ''

        end = f'scp on the server ended with status {self._chan.get_exit_status()}'

        return f'{end}: {printable(errors, _MAX_ERRORS)}' if errors else end


async def _expanded(sources: Sequence[_Place]) -> list[_Place]:
    """Replace local patterns by the paths that match; one that matches nothing may be the name of a file."""

    places = []

    for source in sources:
        paths = []

        if source.connection is None and has_pattern(source.path):
            paths = await matching_paths(LocalFiles(), source.path)

        places += [_Place(source.connection, path) for path in paths or [source.path]]

    return places
