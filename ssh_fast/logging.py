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


_ESCAPED = {code: chr(code).encode('unicode_escape').decode() for code in (*range(0x20), *range(0x7f, 0xa0))}


def printable(text: str, limit: int = 256) -> str:
    """Make a peer's text safe to log or raise: control characters escaped, cut to `limit` characters."""

    # In whole strings, not character by character: a peer may send a flood of such texts.
    shown = text[:limit].translate(_ESCAPED)

    if not shown.isprintable():
        shown = shown.encode('ascii', 'backslashreplace').decode()

    return shown + '...' if len(text) > limit else shown
