"""The library's logger, and its variants that name the connection and channel a record belongs to."""

import logging
from collections.abc import MutableMapping
from typing import Any

logger = logging.getLogger('ssh_fast')


class ContextLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records begin with a context such as `[conn=3, chan=0]`."""

    def __init__(self, context: str, parent: logging.Logger = logger) -> None:
        super().__init__(parent, {})
        self._context = context

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the context in front of the message."""

        return f'[{self._context}] {msg}', kwargs


def printable(text: str, limit: int = 256) -> str:
    """Make a peer's text safe to log or raise: control characters escaped, cut to `limit` characters."""

    shown = ''.join(char if char.isprintable() else char.encode('unicode_escape').decode() for char in text[:limit])

    return shown + '...' if len(text) > limit else shown
