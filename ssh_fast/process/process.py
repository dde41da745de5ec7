"""Commands as processes: on a client what `create_process` returns, on a server what a process factory is given.

A connection makes a client's process with `await chan.create(lambda: SSHClientProcess(stdin=..., input=...), command)`
and runs it to its end with `run_process`; it serves one with `chan.set_session(SSHServerProcess(process_factory))`.
"""

import asyncio
import builtins
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, AnyStr, Generic, Self, TypeAlias, cast

from ..channel.channel import SSHChannel
from ..channel.client_channel import SSHClientChannel
from ..channel.server_channel import SSHServerChannel
from ..constants import DEFAULT_LANG, DEVNULL, EXTENDED_DATA_STDERR, PIPE, STDOUT
from ..errors import Error
from ..logging import ContextLogger
from .stream_session import SSHStreamSession
from .streams import SSHClientStreamSession, SSHServerStreamSession

ExitSignal: TypeAlias = tuple[str, bool, str, str]


class ProcessError(Error):
    """A process run with `check` ended with a status other than 0, or by a signal; `code` is its exit status."""

    def __init__(
        self,
        env: Mapping[str, str] | None,
        command: str | None,
        subsystem: str | None,
        exit_status: int | None,
        exit_signal: ExitSignal | None,
        returncode: int | None,
        stdout: bytes | str,
        stderr: bytes | str,
        reason: str = '',
        lang: str = DEFAULT_LANG,
    ) -> None:
        super().__init__(exit_status or 0, reason or _describe_end(exit_status, exit_signal), lang)

        self.env = env
        self.command = command
        self.subsystem = subsystem
        self.exit_status = exit_status
        self.exit_signal = exit_signal
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr


class TimeoutError(ProcessError, builtins.TimeoutError):
    """A process did not end in the time that was given; the output until then is in `stdout` and `stderr`."""


@dataclass
class SSHCompletedProcess:
    """How a process ended, and the output that it left."""

    env: Mapping[str, str] | None = None
    command: str | None = None
    subsystem: str | None = None
    exit_status: int | None = None
    exit_signal: ExitSignal | None = None
    returncode: int | None = None
    stdout: bytes | str | None = None
    stderr: bytes | str | None = None


class SSHProcess(SSHStreamSession[AnyStr]):
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
        """Wait until the channel is closed."""

        await self._chan.wait_closed()

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

    def __init__(
        self, stdin: Any = PIPE, stdout: Any = PIPE, stderr: Any = PIPE, input: AnyStr | None = None
    ) -> None:
        """Make the session of a process.

        The streams are PIPE or DEVNULL, `stderr` also STDOUT; `input` is written as the whole standard input.

        Raises:
          ValueError: a stream is anything else, or `input` is given with DEVNULL
        """

        super().__init__()

        _check_target('stdin', stdin, PIPE, DEVNULL)
        _check_target('stdout', stdout, PIPE, DEVNULL)
        _check_target('stderr', stderr, PIPE, DEVNULL, STDOUT)

        if input is not None and stdin == DEVNULL:
            raise ValueError('input cannot be given when stdin is DEVNULL')

        self._input: AnyStr | None = input
        self._has_stdin = stdin == PIPE
        # Where received data goes, by its type; what is not here is dropped.
        self._targets: dict[int | None, int | None] = {}
        self._end_error: Exception | None = None

        if stdout == PIPE:
            self._targets[None] = None

        if stderr == PIPE:
            self._targets[EXTENDED_DATA_STDERR] = EXTENDED_DATA_STDERR
        elif stderr == STDOUT and stdout == PIPE:
            self._targets[EXTENDED_DATA_STDERR] = None

    def session_started(self) -> None:
        """Write the input that was given."""

        if self._input is not None:
            self._chan.write(self._input)
            self._input = None
            self._chan.write_eof()
        elif not self._has_stdin:
            self._chan.write_eof()

    def data_received(self, data: AnyStr, datatype: int | None) -> None:
        """Keep output where it was directed to."""

        if datatype in self._targets:
            super().data_received(cast(Any, data), self._targets[datatype])

    def connection_lost(self, exc: Exception | None) -> None:
        """Keep the reason: without an exit status nobody knows how the process ended."""

        ended = self._eof_received and self.exit_status is not None

        super().connection_lost(exc)

        if not ended:
            self._end_error = exc or self._lost_error

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
            try:
                self._chan.write(input)
                self._chan.write_eof()
            except BrokenPipeError:
                self.logger.debug('The process ended before its input was written')

        await self._wait_for_end()

        return self.collect_output()

    async def wait(self, check: bool = False, timeout: float | None = None) -> SSHCompletedProcess:
        """Wait for the end and return it with all output that was not read, which is held in memory.

        Raises:
          ProcessError: with `check`, the exit status is not 0
          TimeoutError: the process did not end in `timeout` seconds; it still runs
          DisconnectError: the connection went away before the process ended
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

        for buffer in self._buffers.values():
            buffer.raise_first()

        return (
            self._buffers[None].take(-1, self._empty),
            self._buffers[EXTENDED_DATA_STDERR].take(-1, self._empty),
        )

    async def _wait_for_end(self) -> None:
        await self.wait_closed()

        if self._end_error:
            raise self._end_error

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


async def run_process(
    process: SSHClientProcess[Any], check: bool = False, timeout: float | None = None
) -> SSHCompletedProcess:
    """Wait as `SSHClientProcess.wait` does; whatever ends the wait early closes the process."""

    try:
        return await process.wait(check, timeout)
    finally:
        process.channel.abort()


class SSHServerProcess(SSHProcess[AnyStr], SSHServerStreamSession[AnyStr], Generic[AnyStr]):
    """A process that this server runs for a client: what was asked for, its streams, and its exit."""

    def __init__(self, process_factory: Callable[['SSHServerProcess[AnyStr]'], Awaitable[None] | None]) -> None:
        super().__init__(None)

        self._process_factory: Callable[[SSHServerProcess[AnyStr]], Awaitable[None] | None] = process_factory

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


def _check_target(name: str, value: Any, *allowed: int) -> None:
    # A file object may compare in ways of its own, and True is an int.
    if type(value) is not int or value not in allowed:
        names = {PIPE: 'PIPE', DEVNULL: 'DEVNULL', STDOUT: 'STDOUT'}
        expected = ', '.join(names[choice] for choice in allowed)

        raise ValueError(f'{name} must be one of {expected}: it cannot be redirected to {type(value).__name__} yet')


def _describe_end(exit_status: int | None, exit_signal: ExitSignal | None) -> str:
    if not exit_signal:
        return f'The process exited with status {exit_status}'

    signal, core_dumped, message, _ = exit_signal
    dumped = ', core dumped' if core_dumped else ''

    return f'The process was ended by signal {signal}{dumped}{message and f": {message}"}'
