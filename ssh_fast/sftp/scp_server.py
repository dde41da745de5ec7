"""SCP on a server: the commands `scp -f` and `scp -t`, done by the `SFTPServer` that serves SFTP as well."""

import os
import posixpath
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from .. import constants as c
from ..errors import BreakReceived, SignalReceived, TerminalSizeChanged
from .attrs import SFTPAttrs, SFTPName
from .errors import (
    SFTPError,
    SFTPFailure,
    SFTPNoSuchFile,
    SFTPNoSuchPath,
    SFTPNotADirectory,
    SFTPOpUnsupported,
    error_from_os,
)
from .remote import preserved
from .scp_command import ScpCommand, parse_command
from .scp_link import Reader, ScpLink, Writer
from .scp_records import RecordOrder
from .scp_sink import ScpSink
from .scp_source import RecordSender, ScpSource, matching_paths, reason_of
from .server import SFTPServer
from .transfer import CopyOptions

# The size of the reads of files that are sent.
_BLOCK = 256 * 1024


class ServerWriter(Writer, Protocol):
    """What is needed of a stream to the client."""

    @property
    def channel(self) -> Any:
        """The channel that it writes to."""


async def serve_scp(
    make_server: Callable[[Any], SFTPServer | Awaitable[SFTPServer]],
    command: str,
    stdin: Reader,
    stdout: ServerWriter,
    stderr: Writer,
) -> None:
    """Do a command of SCP, and exit: with status 0 if nothing failed."""

    chan = stdout.channel
    chan.set_write_buffer_limits(2 * _BLOCK, _BLOCK)
    status = 1

    try:
        parsed = parse_command(command.encode())
        status = await _serve(parsed, make_server, chan, ScpLink(stdin, stdout))
    except ValueError as exc:
        stderr.write(f'scp: {exc}\n'.encode())
    except (OSError, SFTPError, BreakReceived, SignalReceived, TerminalSizeChanged) as exc:
        # The client has been told, or is gone.
        chan.logger.child('sftp').debug('An SCP copy ended early: %r', exc)
    finally:
        chan.exit(status)


async def _serve(
    command: ScpCommand,
    make_server: Callable[[Any], SFTPServer | Awaitable[SFTPServer]],
    chan: Any,
    link: ScpLink,
) -> int:
    made = make_server(chan)
    server = made if isinstance(made, SFTPServer) else await made
    calls = _Calls(server)
    failures = 0

    def failed(exc: Exception, source: bytes, path: bytes) -> None:
        nonlocal failures
        failures += 1

    try:
        options = CopyOptions(preserve=command.preserve, recurse=command.recurse, block_size=_BLOCK)

        if command.is_source:
            await _send(calls, command, link, options, failed)
        elif server.read_only:
            await link.refuse('This server is read-only', fatal=True)
            failures += 1
        else:
            await _receive(calls, command, link, options, failed)
    finally:
        await calls.call('exit')

    return 1 if failures else 0


async def _send(
    calls: '_Calls', command: ScpCommand, link: ScpLink, options: CopyOptions, failed: Callable[..., None]
) -> None:
    files = _ServerFiles(calls)
    source = ScpSource(files, RecordSender(link, command.preserve), options, failed, tells=True)
    await link.expect_ok()

    for word in command.paths:
        paths = await matching_paths(files, word.pattern) if word.pattern is not None else []

        # As a shell does: a pattern that matches nothing may be the name of a file.
        for path in paths or [word.text]:
            await source.send(path)


async def _receive(
    calls: '_Calls', command: ScpCommand, link: ScpLink, options: CopyOptions, failed: Callable[..., None]
) -> None:
    path = command.paths[0].text

    try:
        takes_many = await calls.is_directory(path)

        if command.must_be_directory and not takes_many:
            raise SFTPNotADirectory('Not a directory')
    except SFTPError as exc:
        await link.refuse(f'{os.fsdecode(path)}: {reason_of(exc)}', fatal=True)
        raise

    order = RecordOrder(recurse=command.recurse)
    await ScpSink(link, _ServerTarget(calls, path, takes_many), order, options, failed).receive()


class _Calls:
    """Calls an SFTPServer's methods, plain or coroutines; whatever fails becomes an error of SFTP."""

    def __init__(self, server: SFTPServer) -> None:
        self._server = server

    async def call(self, method: str, *args: Any) -> Any:
        """Call a method, and await what it returns if it must be."""

        with self.converting_errors():
            result = getattr(self._server, method)(*args)

            return await result if hasattr(result, '__await__') else result

    @contextmanager
    def converting_errors(self) -> Iterator[None]:
        """Make errors of SFTP of all errors; what the client is not to know of is told in the log only."""

        try:
            yield
        except SFTPError:
            raise
        except OSError as exc:
            raise error_from_os(exc) from None
        except NotImplementedError:
            raise SFTPOpUnsupported('Operation not supported') from None
        except Exception as exc:
            self._server.logger.error('An SCP request failed', exc_info=exc)
            raise SFTPFailure('The request failed') from exc

    async def attrs(self, path: bytes) -> SFTPAttrs:
        """Return a file's attributes, of a link those of its target."""

        return _attrs(await self.call('stat', path))

    async def is_directory(self, path: bytes) -> bool:
        """Whether there is a directory at a path."""

        try:
            return (await self.attrs(path)).type == c.FILEXFER_TYPE_DIRECTORY
        except (SFTPNoSuchFile, SFTPNoSuchPath):
            return False


def _attrs(result: os.stat_result | SFTPAttrs) -> SFTPAttrs:
    return SFTPAttrs.from_local(result) if isinstance(result, os.stat_result) else result


class _ServerFiles:
    """A server's files as the source."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls

    async def attrs(self, path: bytes) -> SFTPAttrs:
        return await self._calls.attrs(path)

    async def names(self, path: bytes) -> AsyncIterator[bytes]:
        listed = await self._calls.call('scandir', path)

        with self._calls.converting_errors():
            if not hasattr(listed, '__aiter__'):
                for name in listed:
                    if _is_entry(name):
                        yield name.filename

                return

            async for name in listed:
                if _is_entry(name):
                    yield name.filename

    async def open(self, path: bytes) -> '_ServerInput':
        file = _ServerInput(self._calls, await self._calls.call('open', path, c.FXF_READ, SFTPAttrs()))

        try:
            file.attrs = _attrs(await self._calls.call('fstat', file.file_obj))

            if file.attrs.type not in (c.FILEXFER_TYPE_REGULAR, c.FILEXFER_TYPE_UNKNOWN):
                raise SFTPFailure('Not a regular file')
        except BaseException:
            await file.close()
            raise

        return file


def _is_entry(name: SFTPName) -> bool:
    return name.filename not in (b'.', b'..')


class _ServerInput:
    attrs: SFTPAttrs

    def __init__(self, calls: _Calls, file_obj: object) -> None:
        self.file_obj = file_obj
        self._calls = calls

    async def read(self, offset: int, size: int) -> bytes:
        data: bytes = await self._calls.call('read', self.file_obj, offset, size)

        return data

    async def close(self) -> None:
        await self._calls.call('close', self.file_obj)


class _ServerTarget:
    """A path of a server as the target."""

    def __init__(self, calls: _Calls, path: bytes, takes_many: bool) -> None:
        self.path = path
        self.takes_many = takes_many
        self._calls = calls

    async def create(self, name: bytes, attrs: SFTPAttrs, size: int) -> '_ServerOutput':
        mode = 0o666 if attrs.permissions is None else attrs.permissions | 0o200
        pflags = c.FXF_WRITE | c.FXF_CREAT | c.FXF_TRUNC
        file_obj = await self._calls.call('open', self._path_of(name), pflags, SFTPAttrs(permissions=mode))

        return _ServerOutput(self._calls, file_obj)

    async def make_directory(self, name: bytes, attrs: SFTPAttrs) -> '_ServerTarget':
        path = self._path_of(name)
        mode = 0o777 if attrs.permissions is None else attrs.permissions | 0o700

        try:
            await self._calls.call('mkdir', path, SFTPAttrs(permissions=mode))
        except SFTPError:
            if not await self._calls.is_directory(path):
                raise

        return _ServerTarget(self._calls, path, takes_many=True)

    async def finish(self, attrs: SFTPAttrs | None) -> None:
        if attrs is not None:
            await self._calls.call('setstat', self.path, preserved(attrs))

    def close(self) -> None:
        """Let go of nothing: a path is not open."""

    def _path_of(self, name: bytes) -> bytes:
        return posixpath.join(self.path, name) if self.takes_many else self.path


class _ServerOutput:
    def __init__(self, calls: _Calls, file_obj: object) -> None:
        self._calls = calls
        self._file_obj = file_obj
        self._open = True

    async def write(self, offset: int, data: bytes) -> None:
        await self._calls.call('write', self._file_obj, offset, data)

    async def finish(self, attrs: SFTPAttrs | None) -> None:
        if attrs is not None:
            await self._calls.call('fsetstat', self._file_obj, preserved(attrs))

        await self._close()

    async def discard(self, reason: str | None) -> None:
        if self._open:
            # A server that cannot empty a file keeps what has come of it.
            with suppress(SFTPError):
                await self._calls.call('fsetstat', self._file_obj, SFTPAttrs(size=0))

            with suppress(SFTPError):
                await self._close()

    async def _close(self) -> None:
        self._open = False
        await self._calls.call('close', self._file_obj)
