"""The library's logger, and its variants that name the connection and channel a record belongs to."""

import logging
from collections.abc import MutableMapping
from typing import Any

logger = logging.getLogger('ssh_fast')
sftp_logger = logger.getChild('sftp')

_DEBUG_LEVELS = (1, 2, 3)


def set_log_level(level: int | str) -> None:
    """Set the level from which messages are logged: a constant of `logging`, or its name such as 'DEBUG'."""

    logger.setLevel(level)


def set_sftp_log_level(level: int | str) -> None:
    """Set the level from which messages about SFTP are logged; they follow `set_log_level` until this is called."""

    sftp_logger.setLevel(level)


def set_debug_level(level: int) -> None:
    """Check a level of detail of 1 to 3, and log the same at each: what is in packets may be secret.

    Raises:
      ValueError: there is no such level
    """

    if level not in _DEBUG_LEVELS:
        raise ValueError(f'level: expected a debug level from 1 to 3, got {level!r}')


class ContextLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records begin with a context such as `[conn=3, chan=0]`."""

    def __init__(self, context: str, parent: logging.Logger = logger) -> None:
        super().__init__(parent, {})
        self._context = context

    def child(self, name: str) -> 'ContextLogger':
        """Return a logger of the same context whose records can be told apart by the logger's name."""

        # What was given may be a logger with a context of its own.
        parent: Any = self.logger
        below: Any = parent.child(name) if isinstance(parent, ContextLogger) else parent.getChild(name)

        return ContextLogger(self._context, below)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the context in front of the message."""

        return f'[{self._context}] {msg}', kwargs


_ESCAPED = {code: chr(code).encode('unicode_escape').decode() for code in (*range(0x20), *range(0x7f, 0xa0))}


def printable(text: str, limit: int = 256) -> str:
    """Make a peer's text safe to log or raise: control characters escaped, cut to `limit` characters."""

    # In whole strings, not character by character: a peer may send a flood of such texts.
    shown = text[:limit].translate(_ESCAPED)

    if not shown.isprintable():
        shown = shown.encode('ascii', 'backslashreplace').decode()

    return shown + '...' if len(text) > limit else shown
