"""How a process ended: the completed process, and the errors that carry the same."""

import builtins
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ..constants import DEFAULT_LANG
from ..errors import Error

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


def _describe_end(exit_status: int | None, exit_signal: ExitSignal | None) -> str:
    if not exit_signal:
        return f'The process exited with status {exit_status}'

    signal, core_dumped, message, _ = exit_signal
    dumped = ', core dumped' if core_dumped else ''

    return f'The process was ended by signal {signal}{dumped}{message and f": {message}"}'
