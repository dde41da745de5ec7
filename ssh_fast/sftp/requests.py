"""The client's requests and their replies on one SFTP channel: the version, the extensions, and who waits for what."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from .. import constants as c
from .._sftp_codec import Pipeline, ReplyAssembler, encode_message, encode_string_message
from ..channel.session import SSHClientSession
from ..errors import PacketDecodeError
from ..wire import Cursor, encode_string
from .attrs import SFTPAttrs, SFTPLimits, SFTPName, decode_names
from .errors import (
    SFTPBadMessage,
    SFTPConnectionLost,
    SFTPEOFError,
    SFTPNoConnection,
    SFTPOpUnsupported,
    decode_status,
    status_error,
)

_T = TypeVar('_T')

# What every server takes where none names its limits (filexfer-02 section 3), and the longest that is worth asking for:
# OpenSSH's limit. A message has its head around the block.
_SAFE_BLOCK = 32768
_LARGE_BLOCK = 261120
_MESSAGE_HEAD = 1024

# What bulk reads ask for: sshd with sftp-server takes a fifth less processor time for it than for its longest reads.
_READ_BLOCK = 126976

_REPLY_NAMES = {
    c.FXP_STATUS: 'STATUS',
    c.FXP_HANDLE: 'HANDLE',
    c.FXP_DATA: 'DATA',
    c.FXP_NAME: 'NAME',
    c.FXP_ATTRS: 'ATTRS',
    c.FXP_EXTENDED_REPLY: 'EXTENDED_REPLY',
}


class SFTPClientSession(SSHClientSession[bytes]):
    """The session of an SFTP client: give it to a bytes channel with the `sftp` subsystem, then await `start`.

    Requests are sent when they are made, in order; each gives a future or coroutine of its reply. Whoever stops waiting
    leaves nothing behind: a late reply is dropped, and a handle that it brings is closed.
    """

    def __init__(self) -> None:
        self._chan: Any = None
        self._assembler: ReplyAssembler | None = None
        self._waiting: dict[int, asyncio.Future[tuple[int, bytes]]] = {}
        self._version: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closed_by: Exception | None = None
        self._closed = False

        #: The extensions that the server announced, name to data.
        self.extensions: dict[bytes, bytes] = {}

        #: What the server said about its limits; nothing where it does not tell them.
        self.limits = SFTPLimits()

    # --- the session's calls

    def connection_made(self, chan: Any) -> None:
        """Keep the channel."""

        self._chan = chan

    def session_started(self) -> None:
        """Take the channel's data, and say which version is spoken."""

        self._assembler = ReplyAssembler(self._chan.flow, self._message_received)
        self._chan.set_sink(self._assembler)
        self._chan.flow.send(encode_message(c.FXP_INIT, 3))

    def eof_received(self) -> bool:
        """Close the channel: without the server there is nothing to do on it."""

        self._chan.close()

        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail everything that is waited for."""

        self._closed = True
        self._closed_by = exc
        waiting, self._waiting = self._waiting, {}

        for future in waiting.values():
            if not future.done():
                future.set_exception(self.lost_error())

        if not self._version.done():
            self._version.set_exception(self.lost_error())
            # Nobody may be waiting for it any more.
            self._version.exception()

    # --- beginning and end

    async def start(self) -> None:
        """Wait for the server's version and extensions, and ask for its limits; SFTPError if they are not usable.

        What ends the wait early ends the session.
        """

        try:
            await self._negotiate()
        except BaseException:
            self._chan.abort()
            raise

    async def _negotiate(self) -> None:
        await self._version

        if b'limits@openssh.com' in self.extensions:
            try:
                self.limits = SFTPLimits.decode(await self.extended(b'limits@openssh.com', b''))
            except (SFTPOpUnsupported, PacketDecodeError):
                self.limits = SFTPLimits()

    def close(self) -> None:
        """End the session."""

        self._chan.close()

    async def wait_closed(self) -> None:
        """Wait until the channel is closed."""

        await self._chan.wait_closed()

    @property
    def channel(self) -> Any:
        """The channel that the session runs on."""

        return self._chan

    @property
    def assembler(self) -> ReplyAssembler:
        """Where the pipelines of bulk transfers attach; SFTPNoConnection if the session has ended."""

        if self._closed or self._assembler is None:
            raise SFTPNoConnection('The SFTP session is not open')

        return self._assembler

    def lost_error(self) -> Exception:
        """Return the error of what was under way when the channel went."""

        return self._closed_by or SFTPConnectionLost('The SFTP session was closed')

    @property
    def read_size(self) -> int:
        """The longest READ that the server answers in full, as far as is known."""

        return self._block(self.limits.max_read_len)

    @property
    def usual_read_size(self) -> int:
        """The READ of bulk reads where the user chose none."""

        return min(self.read_size, _READ_BLOCK)

    @property
    def write_size(self) -> int:
        """The longest WRITE that the server takes, as far as is known."""

        return self._block(self.limits.max_write_len)

    def _block(self, limit: int | None) -> int:
        size = min(limit, _LARGE_BLOCK) if limit else _SAFE_BLOCK

        if self.limits.max_packet_len:
            size = min(size, max(self.limits.max_packet_len - _MESSAGE_HEAD, 1))

        return size

    # --- requests

    def send(self, message_type: int, body: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send a request now; the future gives the reply's type and body."""

        assembler = self.assembler
        request_id = assembler.next_request_id()
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = future
        assembler.flow.send(encode_message(message_type, request_id, body))

        return future

    async def status(self, message_type: int, body: bytes) -> None:
        """Make a request that is answered by a status only."""

        self.check_reply(await self.send(message_type, body))

    async def handle(self, message_type: int, body: bytes) -> bytes:
        """Make a request that is answered by a handle: OPEN or OPENDIR."""

        future = self.send(message_type, body)

        try:
            reply = await future
        except asyncio.CancelledError:
            # The reply was here already, and its reader is not any more.
            if future.done() and not future.cancelled() and not future.exception():
                self._close_late_handle(*future.result())

            raise

        handle = self._reply(c.FXP_HANDLE, reply, Cursor.string)

        if len(handle) > 256:
            raise SFTPBadMessage(f'Expected a handle of at most 256 bytes, got {len(handle)}')

        return handle

    async def attrs(self, message_type: int, body: bytes) -> SFTPAttrs:
        """Make a request that is answered by attributes."""

        return self.attrs_reply(await self.send(message_type, body))

    def attrs_reply(self, reply: tuple[int, bytes]) -> SFTPAttrs:
        """Decode a reply of attributes."""

        return self._reply(c.FXP_ATTRS, reply, SFTPAttrs.decode)

    async def path(self, message_type: int, body: bytes) -> bytes:
        """Make a request that is answered by one name: REALPATH or READLINK."""

        names = self._reply(c.FXP_NAME, await self.send(message_type, body), decode_names)

        if len(names) != 1:
            raise SFTPBadMessage(f'Expected one name, got {len(names)}')

        name = names[0].filename
        assert isinstance(name, bytes)

        return name

    def names_reply(self, reply: tuple[int, bytes]) -> list[SFTPName] | None:
        """Decode the reply to a READDIR: None at the end of the directory."""

        try:
            return self._reply(c.FXP_NAME, reply, decode_names)
        except SFTPEOFError:
            return None

    def require(self, extension: bytes) -> None:
        """SFTPOpUnsupported if the server did not announce an extension."""

        if extension not in self.extensions:
            raise SFTPOpUnsupported(f'The server does not support {extension.decode()}')

    async def extended(self, extension: bytes, body: bytes) -> Cursor:
        """Make a request of an extension that is answered by data."""

        self.require(extension)

        return await self.announced(extension, body)

    async def announced(self, extension: bytes, body: bytes) -> Cursor:
        """Make a request of an extension that was found to be there, under whatever name."""

        reply = await self.send(c.FXP_EXTENDED, encode_string(extension) + body)

        return self._reply(c.FXP_EXTENDED_REPLY, reply, lambda cursor: cursor)

    async def extended_status(self, extension: bytes, body: bytes) -> None:
        """Make a request of an extension that is answered by a status only."""

        self.require(extension)
        await self.status(c.FXP_EXTENDED, encode_string(extension) + body)

    async def extended_path(self, extension: bytes, body: bytes) -> bytes:
        """Make a request of an extension that is answered by one name."""

        self.require(extension)

        return await self.path(c.FXP_EXTENDED, encode_string(extension) + body)

    async def close_handle(self, handle: bytes) -> None:
        """Close a file or directory."""

        await self.status(c.FXP_CLOSE, encode_string(handle))

    def forget_handle(self, handle: bytes) -> None:
        """Close a file or directory without waiting for it; an error has nobody to hear of it."""

        if self._assembler and not self._closed:
            request_id = self._assembler.next_request_id()
            self._assembler.flow.send(encode_string_message(c.FXP_CLOSE, request_id, handle))

    # --- pipelines

    async def run(self, make: Callable[[Callable[[Any], object]], Pipeline]) -> Pipeline:
        """Run the pipeline that `make` gives for a done callback; returns it when it has ended, however it did.

        When the caller is cancelled the pipeline is too, and does not touch its local file any more.
        """

        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def ended(_: object) -> None:
            if not done.done():
                done.set_result(None)

        pipeline = make(ended)

        try:
            pipeline.start()
            await done
        except BaseException:
            pipeline.cancel()
            raise

        return pipeline

    def pipeline_error(self, pipeline: Pipeline) -> Exception | None:
        """Return why a pipeline failed, if it did; an early end of the file is for the caller to judge."""

        if pipeline.progress_error:
            return pipeline.progress_error

        if pipeline.os_error:
            return pipeline.os_error

        if pipeline.status:
            code, reason, lang = pipeline.status
            exc = status_error(code, reason.encode(), lang.encode())
            exc.offset = pipeline.failed_offset

            return exc

        return self.lost_error() if pipeline.closed else None

    # --- replies

    def _message_received(self, message_type: int, request_id: int, body: bytes) -> None:
        """Take a message of the server: VERSION, then replies to ids that the assembler knows to be outstanding."""

        if message_type == c.FXP_VERSION:
            self._version_received(request_id, body)
            return

        future = self._waiting.pop(request_id, None)

        if future is None or future.cancelled():
            self._close_late_handle(message_type, body)
        elif not future.done():
            future.set_result((message_type, body))

    def _version_received(self, version: int, body: bytes) -> None:
        if self._version.done():
            return

        if version != 3:
            self._version.set_exception(SFTPBadMessage(f'Expected SFTP version 3, got {version}'))
            return

        cursor = Cursor(body)

        try:
            while cursor.remaining:
                name = cursor.string()
                self.extensions[name] = cursor.string()
        except PacketDecodeError as exc:
            self._version.set_exception(SFTPBadMessage(f'Malformed extensions in VERSION: {exc.reason}'))
        else:
            self._version.set_result(None)

    def _close_late_handle(self, message_type: int, body: bytes) -> None:
        if message_type == c.FXP_HANDLE:
            try:
                self.forget_handle(Cursor(body).string())
            except PacketDecodeError:
                return

    def check_reply(self, reply: tuple[int, bytes]) -> None:
        """Raise the error that a reply stands for, unless it is a status of success."""

        message_type, body = reply

        if message_type != c.FXP_STATUS:
            raise SFTPBadMessage(f'Expected STATUS, got {_REPLY_NAMES.get(message_type, message_type)}')

        try:
            exc = decode_status(Cursor(body))
        except PacketDecodeError as error:
            raise SFTPBadMessage(f'Malformed STATUS: {error.reason}') from None

        if exc:
            raise exc

    def _reply(self, wanted: int, reply: tuple[int, bytes], decode: Callable[[Cursor], _T]) -> _T:
        """Decode a reply of the wanted type; a failing status becomes its error."""

        message_type, body = reply

        if message_type == wanted:
            try:
                return decode(Cursor(body))
            except PacketDecodeError as exc:
                raise SFTPBadMessage(f'Malformed {_REPLY_NAMES[wanted]}: {exc.reason}') from None

        if message_type == c.FXP_STATUS:
            self.check_reply(reply)

        raise SFTPBadMessage(f'Expected {_REPLY_NAMES[wanted]}, got {_REPLY_NAMES.get(message_type, message_type)}')
