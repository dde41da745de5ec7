"""What a server's request is once it is decoded, and the replies that results become."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from .. import constants as c
from ..wire import encode_string
from .attrs import SFTPAttrs, SFTPName, SFTPVFSAttrs, encode_names
from .errors import encode_status

Reply = tuple[int, bytes]

OK = (c.FXP_STATUS, encode_status(c.FX_OK, 'Success'))
EOF = (c.FXP_STATUS, encode_status(c.FX_EOF, 'End of file'))


class Order(Protocol):
    """What a request has to wait for."""

    def enter(self, exclusive: bool, begin: Callable[[], object]) -> None:
        """Call `begin` when the request's turn comes."""

    def leave(self, exclusive: bool) -> None:
        """Note that the request has ended."""


class Request(NamedTuple):
    """A decoded request: what it has to wait for, what does it, and what makes a reply of the result."""

    lane: Order
    exclusive: bool
    call: Callable[[], Any]
    reply: Callable[[Any], Reply]


def done(_: object) -> Reply:
    """Reply that all is well."""

    return OK


def attrs_reply(result: os.stat_result | SFTPAttrs) -> Reply:
    """Reply with a file's attributes."""

    attrs = SFTPAttrs.from_local(result) if isinstance(result, os.stat_result) else result

    return c.FXP_ATTRS, attrs.encode()


def vfs_reply(result: os.statvfs_result | SFTPVFSAttrs) -> Reply:
    """Reply with the figures of a file system."""

    attrs = SFTPVFSAttrs.from_local(result) if isinstance(result, os.statvfs_result) else result

    return c.FXP_EXTENDED_REPLY, attrs.encode()


def path_reply(path: bytes) -> Reply:
    """Reply with one path."""

    return c.FXP_NAME, encode_names([SFTPName(path, path)])


def data_reply(data: bytes) -> Reply:
    """Reply with what was read; nothing is the end of the file."""

    return (c.FXP_DATA, encode_string(data)) if data else EOF


def handle_reply(handle: bytes) -> Reply:
    """Reply with the handle of what was opened."""

    return c.FXP_HANDLE, encode_string(handle)
