"""One SFTP session on a server's channel: its beginning and end, and the requests under way in between."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from .. import constants as c
from .._sftp_codec import RequestAssembler, encode_message
from ..channel.session import SSHServerSession
from ..errors import PacketDecodeError, ProtocolError
from ..logging import printable
from ..wire import encode_string
from .dispatch import EXTENSIONS, Dispatcher
from .errors import (
    SFTPBadMessage,
    SFTPError,
    SFTPFailure,
    SFTPInvalidFilename,
    SFTPOpUnsupported,
    encode_status,
    error_from_os,
)
from .handles import HandleTable
from .server import SFTPServer
from .server_replies import Reply, Request

SFTPServerFactory = Callable[[Any], SFTPServer | Awaitable[SFTPServer]]

# With more unanswered requests than this the client gets no more room to send, until a quarter of them is left.
_MAX_PENDING = 512

# Requests that may come before an asynchronous sftp_factory has made its server.
_MAX_EARLY = 16


def _status_for_errno(code: int) -> tuple[int, str]:
    """Tell the compiled core which status a failed read or write of a file gives."""

    exc = error_from_os(OSError(code, os.strerror(code)))

    return exc.code if exc.code <= c.FX_V3_END else c.FX_FAILURE, exc.reason


class SFTPServerSession(SSHServerSession[bytes]):
    """Runs one SFTP session on a server's channel; the factory gives the `SFTPServer` that does the work.

    The channel must be one of bytes. When the client ends the session, or the channel goes, every open handle is closed
    and the server's `exit` is called; the channel's exit status is then 0.
    """

    def __init__(self, factory: SFTPServerFactory) -> None:
        self._factory = factory
        self._server: SFTPServer | None = None
        self._chan: Any = None
        self._assembler: RequestAssembler
        self._dispatcher: Dispatcher | None = None
        self._handles = HandleTable()
        self._early: list[tuple[int, int, bytes]] = []
        self._ended = False
        self._eof = False
        self._pending = 0
        self._held_back = False
        self._credit_limit = 0
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the session's calls

    def connection_made(self, chan: Any) -> None:
        """Keep the channel."""

        self._chan = chan

    def subsystem_requested(self, subsystem: str) -> bool:
        """Take the subsystem that this session serves."""

        return subsystem == 'sftp'

    def session_started(self) -> None:
        """Make the server, and take the channel's data."""

        self._assembler = RequestAssembler(self._chan.flow, self._message_received, _status_for_errno)
        made = self._factory(self._chan)

        if isinstance(made, SFTPServer):
            self._server_made(made)
        else:
            self._spawn(self._make_server(made))

        # A client may have sent requests before it knew that its session was granted.
        self._chan.set_sink(self._assembler)

    def eof_received(self) -> bool:
        """End the session when the requests under way have been answered."""

        self._eof = True
        self._end_if_idle()

        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """End the session: what is under way is cancelled."""

        self._end(cancel=True)

    # --- beginning and end

    async def _make_server(self, made: Awaitable[SFTPServer]) -> None:
        try:
            server = await made
        except Exception:
            self._chan.logger.child('sftp').exception('The sftp_factory failed')
            self._ended = True
            self._chan.exit(1)
        else:
            self._server_made(server)

    def _server_made(self, server: SFTPServer) -> None:
        self._server = server
        # AsyncSSH's client keeps the draft's order with servers that do not call themselves OpenSSH.
        link_first = 'AsyncSSH' in self._chan.get_extra_info('client_version', '')
        self._dispatcher = Dispatcher(server, self._assembler, self._handles, link_first=link_first)
        early, self._early = self._early, []

        for message in early:
            self._message_received(*message)

        self._end_if_idle()

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end_if_idle(self) -> None:
        if self._eof and self._dispatcher and not self._pending:
            self._end(cancel=False)

    def _end(self, cancel: bool) -> None:
        if self._ended:
            return

        self._ended = True

        # Not one of the session's tasks: nothing cancels the clearing up.
        self._closing = asyncio.get_running_loop().create_task(self._clear_up(cancel))

    async def _clear_up(self, cancel: bool) -> None:
        if cancel:
            # A task must have begun before it can be cancelled, so that it ends what it was made for.
            await asyncio.sleep(0)

            for task in self._tasks:
                task.cancel()

            if self._tasks:
                await asyncio.wait(self._tasks)

        if self._server and self._dispatcher:
            for handle in self._handles:
                await self._logged(self._dispatcher.close, handle)

            await self._logged(self._server.exit)

        if self._eof:
            self._chan.exit(0)

    async def _logged(self, call: Callable[..., Any], *args: Any) -> None:
        """Make a call whose failure nobody is there to hear of."""

        try:
            result = call(*args)

            if hasattr(result, '__await__'):
                await result
        except Exception as exc:
            self._chan.logger.child('sftp').error('The end of an SFTP session failed', exc_info=exc)

    # --- messages

    def _message_received(self, message_type: int, request_id: int, body: bytes) -> None:
        """Take a message of the client; the assembler saw to it that INIT is the first and the only one."""

        if self._ended:
            return

        if not self._dispatcher:
            if len(self._early) == _MAX_EARLY:
                raise ProtocolError(f'Expected at most {_MAX_EARLY} SFTP requests before the VERSION reply')

            self._early.append((message_type, request_id, body))
        elif message_type == c.FXP_INIT:
            self._init_received(request_id)
        else:
            self._request_received(self._dispatcher, message_type, request_id, body)

    def _init_received(self, version: int) -> None:
        if version < 3:
            raise ProtocolError(f'Expected SFTP version 3 or later, got {version}')

        extensions = b''.join(encode_string(name) + encode_string(value) for name, value in EXTENSIONS)
        self._assembler.flow.send(encode_message(c.FXP_VERSION, 3, extensions))

    def _request_received(self, dispatcher: Dispatcher, message_type: int, request_id: int, body: bytes) -> None:
        try:
            request = dispatcher.decode(message_type, body)
        except PacketDecodeError as exc:
            self._send(request_id, self._error_reply(SFTPBadMessage(exc.reason)))
        except SFTPError as exc:
            self._send(request_id, self._error_reply(exc))
        else:
            self._pending += 1

            if self._pending > _MAX_PENDING and not self._held_back:
                flow = self._assembler.flow
                self._credit_limit, flow.credit_limit_items = flow.credit_limit_items, -1
                self._held_back = True

            request.lane.enter(request.exclusive, lambda: self._begin(request_id, request))

    def _begin(self, request_id: int, request: Request) -> None:
        """Do a request whose turn it is: at once if its method is plain, else in a task."""

        try:
            if self._ended:
                raise SFTPFailure('The session has ended')

            result = request.call()

            if hasattr(result, '__await__'):
                self._spawn(self._answer(request_id, request, result))

                return

            answer = request.reply(result)
        except Exception as exc:
            answer = self._error_reply(exc)

        self._finish(request_id, request, answer)

    async def _answer(self, request_id: int, request: Request, result: Awaitable[Any]) -> None:
        answer = None

        try:
            answer = request.reply(await result)
        except Exception as exc:
            answer = self._error_reply(exc)
        finally:
            self._finish(request_id, request, answer)

    def _finish(self, request_id: int, request: Request, answer: Reply | None) -> None:
        if answer is not None:
            self._send(request_id, answer)

        self._pending -= 1

        if self._held_back and self._pending <= _MAX_PENDING // 4:
            self._held_back = False
            self._assembler.flow.credit_limit_items = self._credit_limit
            self._assembler.flow.credit(0)

        request.lane.leave(request.exclusive)
        self._end_if_idle()

    def _send(self, request_id: int, answer: Reply) -> None:
        if not self._assembler.closed:
            self._assembler.flow.send(encode_message(answer[0], request_id, answer[1]))

    def _error_reply(self, exc: Exception) -> Reply:
        """Tell a failure to the client; what is not an error of SFTP or of the system is told in the log only."""

        if isinstance(exc, OSError):
            exc = error_from_os(exc)
        elif isinstance(exc, NotImplementedError):
            exc = SFTPOpUnsupported('Operation not supported')
        elif isinstance(exc, UnicodeError):
            exc = SFTPInvalidFilename('The name is not of a form that this server takes')
        elif not isinstance(exc, SFTPError):
            self._chan.logger.child('sftp').error('An SFTP request failed', exc_info=exc)
            exc = SFTPFailure('The request failed')

        assert isinstance(exc, SFTPError)

        return c.FXP_STATUS, encode_status(exc.code, printable(exc.reason, 1024), exc.lang)

