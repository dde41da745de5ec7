"""Commands as processes: on a client what `create_process` returns, on a server what a process factory is given.

A connection makes a client's process with `await chan.create(SSHClientProcess, command)`, redirects its streams, and
runs it to its end with `run_process`; it serves one with `chan.set_session(SSHServerProcess(process_factory))`.
"""

import asyncio
import builtins
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, AnyStr, Generic, Self, cast

from ..channel.channel import SSHChannel
from ..channel.client_channel import SSHClientChannel
from ..channel.server_channel import SSHServerChannel
from ..constants import DEFAULT_LANG, EXTENDED_DATA_STDERR
from ..logging import ContextLogger
from .redirect_pumps import Drain, Feed
from .redirect_session import Redirections, RedirectSession, open_redirections
from .results import ExitSignal, ProcessError, SSHCompletedProcess, TimeoutError
from .streams import SSHClientStreamSession, SSHReader, SSHServerStreamSession, SSHWriter

# The default of `bufsize`, AsyncSSH's; see `Opener` for what it means.
BUFSIZE = 8192


class SSHProcess(RedirectSession[AnyStr]):
    """What processes of both sides have."""

    @property
    def channel(self) -> SSHChannel[AnyStr]:
        """The channel that the process runs on."""

        return self._chan

    @property
    def logger(self) -> ContextLogger:
        """The channel's logger."""

        return self._chan.logger

    @property
    def command(self) -> str | None:
        """The command that is run."""

        return self._chan.get_command()

    @property
    def subsystem(self) -> str | None:
        """The name of the subsystem that is run."""

        return self._chan.get_subsystem()

    @property
    def env(self) -> Mapping[str, str]:
        """The environment that the client sent."""

        return self._chan.get_environment()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Look up what is known of the channel or its connection."""

        return self._chan.get_extra_info(name, default)

    def close(self) -> None:
        """Close the channel when what was written has been sent."""

        self._chan.close()

    def is_closing(self) -> bool:
        """Return whether the channel is closing or closed."""

        return self._chan.is_closing()

    async def wait_closed(self) -> None:
        """Wait until the channel is closed, and what was redirected is written."""

        await self._chan.wait_closed()
        await self.wait_for_redirections()

    async def __aenter__(self) -> Self:
        """Use the process in a block."""

        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the process at the end of the block, and wait for it."""

        self.close()
        await self.wait_closed()


class SSHClientProcess(SSHProcess[AnyStr], SSHClientStreamSession[AnyStr], Generic[AnyStr]):
    """A process on the server: its streams, its end, and what can be sent to it."""

    def __init__(self) -> None:
        super().__init__()

        self._end_error: Exception | None = None
        self._redirect_error: Exception | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Keep the reason: without an exit status nobody knows how the process ended."""

        ended = self._eof_received and self.exit_status is not None

        super().connection_lost(exc)

        if not ended:
            self._end_error = exc or self._lost_error

    # --- redirection --------------------------------------------------------------------------------------------------

    @property
    def redirect_reader(self) -> SSHReader[AnyStr]:
        """The output: what another process is fed from that is given this one."""

        return self.stdout

    @property
    def redirect_writer(self) -> SSHWriter[AnyStr]:
        """The input: what another process writes to that is given this one."""

        return self.stdin

    async def redirect(
        self,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        bufsize: int = BUFSIZE,
        send_eof: bool = True,
        recv_eof: bool = True,
    ) -> None:
        """Redirect streams of the process; None leaves one as it is.

        `stdin` is fed from a path, file object, async file object, file descriptor, socket, `SSHReader`, asyncio
        `StreamReader` or process, and its end is passed on if `send_eof`. `stdout` and `stderr` go to the like of them
        that can be written to, whose ends are closed at the end of the output if `recv_eof`. PIPE gives a stream back,
        DEVNULL is nothing, and for `stderr` STDOUT is where `stdout` goes.

        Raises:
          OSError: a file cannot be opened
          TypeError, ValueError: an argument is nothing that a stream can be redirected to
        """

        await self.attach_redirections(
            await open_client_redirections(stdin, stdout, stderr, bufsize, send_eof, recv_eof)
        )

    def write_input(self, data: AnyStr) -> None:
        """Write the whole input, if the process still takes it."""

        try:
            self._chan.write(data)
            self._chan.write_eof()
        except BrokenPipeError:
            self.logger.debug('The process ended before its input was written')

    def _redirection_failed(self, pump: Drain | Feed, exc: Exception) -> None:
        # Neither half an input nor half an output may look like a whole one.
        self._redirect_error = self._redirect_error or exc
        self._chan.sink_failed(exc)

    # --- its end ------------------------------------------------------------------------------------------------------

    @property
    def _client_channel(self) -> SSHClientChannel[AnyStr]:
        return cast(SSHClientChannel[AnyStr], self._chan)

    @property
    def exit_status(self) -> int | None:
        """The exit status; -1 if a signal ended the process, None if it runs or nothing is known."""

        return self._client_channel.get_exit_status()

    @property
    def exit_signal(self) -> ExitSignal | None:
        """The signal that ended the process: name, whether core was dumped, message, its language."""

        return self._client_channel.get_exit_signal()

    @property
    def returncode(self) -> int | None:
        """The exit status, or the number of the signal that ended the process, negated."""

        return self._client_channel.get_returncode()

    async def communicate(self, input: AnyStr | None = None) -> tuple[AnyStr, AnyStr]:
        """Write the whole input, wait for the end, and return the output and the error output, all held in memory.

        Raises:
          DisconnectError: the connection went away before the process ended
        """

        self._remove_limit()

        if input is not None:
            self.write_input(input)

        await self._wait_for_end()

        return self.collect_output()

    async def wait(self, check: bool = False, timeout: float | None = None) -> SSHCompletedProcess:
        """Wait for the end and return it with all output that was not read, which is held in memory.

        Raises:
          ProcessError: with `check`, the exit status is not 0
          TimeoutError: the process did not end in `timeout` seconds; it still runs
          DisconnectError: the connection went away before the process ended
          OSError, UnicodeError: a redirection failed, which ended the process
        """

        self._remove_limit()

        try:
            await asyncio.wait_for(self._wait_for_end(), timeout)
        except builtins.TimeoutError:
            raise TimeoutError(**vars(self._result()), reason='The process did not end in time') from None

        result = self._result()

        if check and self.exit_status:
            raise ProcessError(**vars(result))

        return result

    def collect_output(self) -> tuple[AnyStr, AnyStr]:
        """Take the output and the error output that nobody has read.

        Raises:
          BufferError: some was dropped, because nobody read it while the other was awaited
        """

        return self._collect(None), self._collect(EXTENDED_DATA_STDERR)

    def _collect(self, datatype: int | None) -> AnyStr:
        if datatype in self._takers:
            return self._empty

        self._buffers[datatype].raise_first()

        return self._buffers[datatype].take(-1, self._empty)

    async def _wait_for_end(self) -> None:
        await self.wait_closed()

        if error := self._redirect_error or self._end_error:
            raise error

    def _result(self) -> SSHCompletedProcess:
        return SSHCompletedProcess(
            self.env,
            self.command,
            self.subsystem,
            self.exit_status,
            self.exit_signal,
            self.returncode,
            *self.collect_output(),
        )

    # --- what can be sent to it ---------------------------------------------------------------------------------------

    def change_terminal_size(self, width: int, height: int, pixwidth: int = 0, pixheight: int = 0) -> None:
        """Tell the server the terminal's new size, in characters and in pixels."""

        self._client_channel.change_terminal_size(width, height, pixwidth, pixheight)

    def send_break(self, msec: int) -> None:
        """Send a break of `msec` milliseconds."""

        self._client_channel.send_break(msec)

    def send_signal(self, signal: str | int) -> None:
        """Send a signal, by its name without SIG or by its number."""

        self._client_channel.send_signal(signal)

    def terminate(self) -> None:
        """Send the signal TERM."""

        self._client_channel.terminate()

    def kill(self) -> None:
        """Send the signal KILL."""

        self._client_channel.kill()


async def open_client_redirections(
    stdin: Any, stdout: Any, stderr: Any, bufsize: int, send_eof: bool, recv_eof: bool
) -> Redirections:
    """Open what a client's process is to be redirected to, as the arguments of `redirect` say."""

    targets = {None: ('stdout', stdout), EXTENDED_DATA_STDERR: ('stderr', stderr)}

    return await open_redirections({None: ('stdin', stdin)}, targets, bufsize, send_eof, recv_eof)


async def run_process(
    process: SSHClientProcess[Any], check: bool = False, timeout: float | None = None
) -> SSHCompletedProcess:
    """Wait as `SSHClientProcess.wait` does; whatever ends the wait early closes the process and its redirections."""

    try:
        return await process.wait(check, timeout)
    finally:
        process.channel.abort()
        process.stop_redirections()
        await process.wait_for_redirections()


class SSHServerProcess(SSHProcess[AnyStr], SSHServerStreamSession[AnyStr], Generic[AnyStr]):
    """A process that this server runs for a client: what was asked for, its streams, and its exit."""

    def __init__(self, process_factory: Callable[['SSHServerProcess[AnyStr]'], Awaitable[None] | None]) -> None:
        super().__init__(None)

        self._process_factory: Callable[[SSHServerProcess[AnyStr]], Awaitable[None] | None] = process_factory

    @property
    def redirect_reader(self) -> SSHReader[AnyStr]:
        """What the client sends: what another process is fed from that is given this one."""

        return self.stdin

    @property
    def redirect_writer(self) -> SSHWriter[AnyStr]:
        """What the client receives: what another process writes to that is given this one."""

        return self.stdout

    async def redirect(
        self,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        bufsize: int = BUFSIZE,
        send_eof: bool = True,
        recv_eof: bool = True,
    ) -> None:
        """Redirect streams as `SSHClientProcess.redirect` does, the other way round: `stdin` is written to a target.

        `stdout` and `stderr` are fed from sources; `await process.stdout.drain()` waits for the end of one. Signals,
        breaks and terminal sizes are passed on if `stdin` goes to a process. A source that fails ends the process with
        status 1; what comes for a `stdin` that nobody reads any more is dropped.
        """

        sources = {None: ('stdout', stdout), EXTENDED_DATA_STDERR: ('stderr', stderr)}
        opened = await open_redirections(sources, {None: ('stdin', stdin)}, bufsize, send_eof, recv_eof)
        await self.attach_redirections(opened)

    def _redirection_failed(self, pump: Drain | Feed, exc: Exception) -> None:
        if isinstance(pump, Drain) and isinstance(exc, BrokenPipeError | ConnectionResetError):
            self.logger.debug('Nobody reads the redirected input any more: %r', exc)
            self._drop_received(pump.datatype)
        else:
            self._handler_failed(exc)

    def shell_requested(self) -> bool:
        """Grant a shell."""

        return True

    def exec_requested(self, command: str) -> bool:
        """Grant any command."""

        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        """Grant any subsystem."""

        return True

    def session_started(self) -> None:
        """Call the process factory."""

        self._run(self._process_factory, self)

    @property
    def _server_channel(self) -> SSHServerChannel[AnyStr]:
        return cast(SSHServerChannel[AnyStr], self._chan)

    @property
    def term_type(self) -> str | None:
        """The terminal's type, None without a terminal."""

        return self._server_channel.get_terminal_type()

    @property
    def term_size(self) -> tuple[int, int, int, int]:
        """The terminal's size in characters, then in pixels."""

        return self._server_channel.get_terminal_size()

    @property
    def term_modes(self) -> Mapping[int, int]:
        """The terminal's modes, by PTY_ constant."""

        return self._server_channel.get_terminal_modes()

    def get_terminal_type(self) -> str | None:
        """Return the terminal's type, None without a terminal."""

        return self.term_type

    def get_terminal_size(self) -> tuple[int, int, int, int]:
        """Return the terminal's size in characters, then in pixels."""

        return self.term_size

    def get_terminal_mode(self, mode: int) -> int | None:
        """Return the value of a terminal mode, None if the client did not set it."""

        return self._server_channel.get_terminal_mode(mode)

    def exit(self, status: int) -> None:
        """End the process with an exit status, behind what was written."""

        self._server_channel.exit(status)

    def exit_with_signal(
        self, signal: str, core_dumped: bool = False, msg: str = '', lang: str = DEFAULT_LANG
    ) -> None:
        """End the process as if by a signal, behind what was written."""

        self._server_channel.exit_with_signal(signal, core_dumped, msg, lang)
