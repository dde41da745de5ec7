"""A remote process in the shape of asyncio's subprocesses: a transport, its pipes, and the protocol that is called."""

from collections.abc import Callable, Iterable
from typing import Any, AnyStr, Generic, cast

from ..channel.channel import SSHChannel
from ..constants import EXTENDED_DATA_STDERR
from .process import SSHClientProcess
from .redirect_session import Redirections

_STDIN, _STDOUT, _STDERR = range(3)
_DATATYPES: dict[int, int | None] = {_STDOUT: None, _STDERR: EXTENDED_DATA_STDERR}


class SSHSubprocessProtocol(Generic[AnyStr]):
    """The calls that a remote process makes; one that has `pause_writing` and `resume_writing` is asked to, too."""

    def connection_made(self, transport: 'SSHSubprocessTransport[AnyStr]') -> None:
        """Take note of the transport: the process runs."""

    def pipe_data_received(self, fd: int, data: AnyStr) -> None:
        """Take output of the process: `fd` is 1, or 2 for errors."""

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Take note that no more output comes from `fd`, after an error if there is one."""

    def process_exited(self) -> None:
        """Take note that the process ended: the transport's return code is None if nobody said how."""


class SSHSubprocessPipe(Generic[AnyStr]):
    """What the pipes of a process have."""

    def __init__(self, chan: SSHChannel[AnyStr], datatype: int | None = None) -> None:
        self._chan: SSHChannel[AnyStr] = chan
        self._datatype = datatype

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Look up what is known of the channel or its connection."""

        return self._chan.get_extra_info(name, default)

    def close(self) -> None:
        """Close the channel, and with it the process."""

        self._chan.close()


class SSHSubprocessReadPipe(SSHSubprocessPipe[AnyStr]):
    """The output or the error output of a process.

    While it is paused, as much is kept as the channel's receive window was at first; then the channel is paused.
    """

    def __init__(self, chan: SSHChannel[AnyStr], datatype: int | None = None) -> None:
        super().__init__(cast(Any, chan), datatype)

        self.paused = False
        self._resumed: Callable[[], None] = _do_nothing

    def call_when_resumed(self, resumed: Callable[[], None]) -> None:
        """Set who delivers what was kept."""

        self._resumed = resumed

    def pause_reading(self) -> None:
        """Stop the calls of `pipe_data_received` for this pipe."""

        self.paused = True

    def resume_reading(self) -> None:
        """Go on with them, at once for what has come meanwhile."""

        if self.paused:
            self.paused = False
            self._resumed()


class SSHSubprocessWritePipe(SSHSubprocessPipe[AnyStr]):
    """The standard input of a process."""

    def abort(self) -> None:
        """Close the channel at once; what has not been sent is dropped."""

        self._chan.abort()

    def can_write_eof(self) -> bool:
        """Return true: an end of file can be sent."""

        return self._chan.can_write_eof()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be sent."""

        return self._chan.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks, in bytes, at which the protocol's `pause_writing` and `resume_writing` are called."""

        self._chan.set_write_buffer_limits(high, low)

    def write(self, data: AnyStr) -> None:
        """Send data."""

        self._chan.write(data, self._datatype)

    def writelines(self, list_of_data: Iterable[AnyStr]) -> None:
        """Send several pieces of data."""

        self._chan.writelines(list_of_data, self._datatype)

    def write_eof(self) -> None:
        """Send an end of file behind the data."""

        self._chan.write_eof()


class SSHSubprocessTransport(SSHClientProcess[AnyStr]):
    """A remote process, as `create_subprocess` gives it."""

    def __init__(self, protocol_factory: Callable[[], SSHSubprocessProtocol[AnyStr]]) -> None:
        super().__init__()

        self._protocol: SSHSubprocessProtocol[AnyStr] = protocol_factory()
        self._write_pipe: SSHSubprocessWritePipe[AnyStr]
        self._read_pipes: dict[int, SSHSubprocessReadPipe[AnyStr]] = {}
        # The calls begin when the streams lead where they should.
        self._begun = False
        self._exited = False
        self._exit_told = False
        self._pipes_told: set[int] = set()

    def get_protocol(self) -> SSHSubprocessProtocol[AnyStr]:
        """Return the protocol that is called."""

        return self._protocol

    def get_pid(self) -> int | None:
        """Return None: a remote process has no number here."""

        return None

    def get_pipe_transport(self, fd: int) -> SSHSubprocessPipe[AnyStr] | None:
        """Return the pipe of a stream: 0 to write, 1 and 2 to read from, None for anything else."""

        return self._write_pipe if fd == _STDIN else self._read_pipes.get(fd)

    def get_returncode(self) -> int | None:
        """Return the exit status, the negated number of a signal, or None while nothing is known."""

        return self.returncode

    # --- the channel's calls ------------------------------------------------------------------------------------------

    def connection_made(self, chan: Any) -> None:
        """Make the pipes."""

        super().connection_made(chan)

        self._write_pipe = SSHSubprocessWritePipe(chan)

        for fd, datatype in _DATATYPES.items():
            pipe = SSHSubprocessReadPipe[AnyStr](chan, datatype)
            pipe.call_when_resumed(self._deliver)
            self._read_pipes[fd] = pipe

    async def attach_redirections(self, opened: Redirections) -> None:
        """Redirect streams; the first time, this begins the protocol's calls."""

        await super().attach_redirections(opened)

        if not self._begun:
            self._begun = True
            self._protocol.connection_made(self)

        self._deliver()

    def data_received(self, data: AnyStr, datatype: int | None) -> None:
        """Keep data, and give them to the protocol unless their pipe is paused or redirected."""

        super().data_received(cast(Any, data), datatype)
        self._deliver()

    def exit_status_received(self, status: int) -> None:
        """Tell the protocol that the process ended."""

        self._process_ended()

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        """Tell the protocol that the process ended."""

        self._process_ended()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the protocol that the pipes, and so the process, are gone."""

        super().connection_lost(exc)

        self._process_ended()

    def pause_writing(self) -> None:
        """Ask the protocol to pause, if it can."""

        super().pause_writing()
        getattr(self._protocol, 'pause_writing', _do_nothing)()

    def resume_writing(self) -> None:
        """Let the protocol go on."""

        super().resume_writing()
        getattr(self._protocol, 'resume_writing', _do_nothing)()

    # --- private ------------------------------------------------------------------------------------------------------

    def _process_ended(self) -> None:
        self._exited = True
        self._deliver()

    def _deliver(self) -> None:
        """Make the calls that are due, in their order for each pipe."""

        if not self._begun:
            return

        for fd, pipe in list(self._read_pipes.items()):
            datatype = _DATATYPES[fd]

            if datatype in self._takers:
                continue

            while not pipe.paused and (data := self._buffers[datatype].take(-1, self._empty)):
                self._after_reading()
                self._protocol.pipe_data_received(fd, data)

        if self._exited and not self._exit_told:
            self._exit_told = True
            self._protocol.process_exited()

        for fd, pipe in list(self._read_pipes.items()):
            if self._lost and not pipe.paused and fd not in self._pipes_told:
                self._pipes_told.add(fd)
                self._protocol.pipe_connection_lost(fd, self._end_error)


def _do_nothing() -> None:
    """Do nothing."""
