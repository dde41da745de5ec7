"""The asyncio protocol of a connection: bytes between the event loop and the transport, timers, and the end of it all.

The only file that knows sockets' events. Incoming: `get_buffer` lends the reader's buffer, `buffer_updated` has it
parsed, and what that made ready to send goes out in one write. Outgoing: the writer wakes the connection once; a flush
at the end of the loop's pass takes chunk after chunk until nothing waits or the socket is full.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Self, TypeVar, cast

from .._packet import PacketReader, PacketWriter
from ..channel.mux import Mux
from ..constants import DEFAULT_LANG, DISC_BY_APPLICATION, DISC_PROTOCOL_ERROR, MSG_DEBUG, OPEN_UNKNOWN_CHANNEL_TYPE
from ..errors import ChannelOpenError, ConnectionLost, DisconnectError, Error
from ..logging import ContextLogger, printable
from ..transport.options import TransportOptions
from ..transport.transport import Transport
from ..wire import Cursor, encode_boolean, encode_byte, encode_string
from .dial import tune_socket
from .extra_info import algorithm_info
from .keepalive import Keepalive
from .options_base import SSHConnectionOptions
from .questions import Questions
from .read_pacing import ReadPacing

T = TypeVar('T')

# Chunks written in one pass of the loop: others get their turn after 2 to 4 MiB.
_MAX_CHUNKS_A_PASS = 16

# Sealed bytes that may wait while the socket is full before a peer that only asks and never reads is not read either.
_MAX_BACKLOG = 1024 * 1024

# Seconds between looks at what depends on time alone: the age of the keys, a key exchange that stalls.
_TICK = 15.0

# How long, in seconds, the last bytes may take to leave before the socket is closed without them.
_CLOSE_TIMEOUT = 10.0

_connection_numbers = itertools.count()


class SSHConnection(asyncio.BufferedProtocol):
    """What client and server connections share."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: SSHConnectionOptions,
        *,
        is_client: bool,
    ) -> None:
        self._loop = loop
        self._common_options = options
        self._ssh: Transport
        self._reader: PacketReader
        self._writer: PacketWriter
        self._socket_transport: asyncio.Transport | None = None
        self._mux: Mux | None = None
        self._is_client = is_client
        self._tick_after = max(0.1, min(_TICK, options.rekey_seconds))
        self._tick_timer: asyncio.TimerHandle | None = None
        self._keepalive = Keepalive(self, options.keepalive_interval, options.keepalive_count_max)

        self._in_pass = False
        self._answering = False
        self._flush_scheduled = False
        self._reading_paused = False
        self._questions = Questions(self)
        self._timers: list[asyncio.TimerHandle] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._exc: Exception | None = None
        self._closed: asyncio.Future[None] = loop.create_future()
        self._established: asyncio.Future[None] = loop.create_future()
        self._extra: dict[str, Any] = {}
        self._logger = ContextLogger(f'conn={next(_connection_numbers)}')

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()
        await self.wait_closed()

    @property
    def logger(self) -> ContextLogger:
        """The logger whose records name this connection."""

        return self._logger

    # --- the event loop's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the socket is connected."""

        self._socket_transport = cast(asyncio.Transport, transport)
        # Back pressure begins with the first byte that the socket doesn't take: data waits unsealed, where it is.
        self._socket_transport.set_write_buffer_limits(high=0)
        self._extra.update(
            (name, transport.get_extra_info(name)) for name in ('peername', 'sockname', 'socket', 'pipe')
        )
        tune_socket(transport.get_extra_info('socket'), self._common_options.tcp_keepalive)

        if self._common_options.login_timeout:
            self._call_later(self._common_options.login_timeout, self._login_timed_out)

        self._ssh = Transport(
            self, self._transport_options(), is_client=self._is_client, wake=self._wake, now=self._loop.time()
        )
        self._reader = self._ssh.reader
        self._writer = self._ssh.writer
        self._pacing = ReadPacing(self._loop, self._reader, self._extra['socket'], self._common_options.rekey_bytes)
        self._tick_timer = self._loop.call_later(self._tick_after, self._tick)

        try:
            self._owner_connection_made()
            self._ssh.start()
        except Exception as exc:
            self.fail(exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the reader's buffer."""

        return self._reader.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        """Have the reader parse what arrived, then send what that made ready."""

        now = self._reader.now = self._loop.time()

        self._run(self._reader.buffer_updated, nbytes)
        self._keepalive.heard(now)

        if self._reader.total_bytes >= self._pacing.look_at:
            self._pacing.look(now)

    def eof_received(self) -> None:
        """Take the end of the peer's stream as the end of the connection."""

        self._cleanup(ConnectionLost('Connection lost'))
        self._close_socket()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody that the socket is gone."""

        self._cleanup(ConnectionLost(f'Connection lost: {exc}' if exc else 'Connection lost'))
        self._socket_transport = None
        self._cancel_timers()

        if not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        """Seal nothing more: the socket is full."""

        self._writer.paused = True

    def resume_writing(self) -> None:
        """Go on sending."""

        self._writer.paused = False
        self._reader.now = self._loop.time()
        self._flush()

    # --- sending

    def _wake(self) -> None:
        if not self._in_pass:
            self._schedule_flush()

    def _schedule_flush(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_later)

    def _flush_later(self) -> None:
        self._flush_scheduled = False
        self._reader.now = self._loop.time()
        self._flush()

    def _flush(self) -> None:
        """Write chunk after chunk until nothing waits, the socket is full, or others should have their turn."""

        transport = self._socket_transport

        if not transport or transport.is_closing():
            return

        try:
            for _ in range(_MAX_CHUNKS_A_PASS):
                chunk = self._writer.take_chunk()

                if chunk is None:
                    break

                transport.write(chunk)
                # The writer takes the chunk back if nobody else kept a view of it.
                del chunk
                self._ssh.pass_ended(self._reader.now)
            else:
                self._schedule_flush()
        except Exception as exc:
            self.fail(exc)

        self._balance_reading()

    def _balance_reading(self) -> None:
        """Read while no question is open and the peer takes our answers."""

        pause = self._questions.open or (self._writer.paused and self._writer.backlog > _MAX_BACKLOG)

        if pause != self._reading_paused and self._socket_transport and not self._socket_transport.is_closing():
            self._reading_paused = pause

            if pause:
                self._socket_transport.pause_reading()
            else:
                self._socket_transport.resume_reading()

    def _run(self, step: Callable[..., object], *args: object) -> None:
        """Run one step of the protocol: its error ends the connection, what it made ready to send goes out."""

        outermost, self._in_pass = not self._in_pass, True

        try:
            step(*args)
            self._ssh.pass_ended(self._reader.now)
        except Exception as exc:
            self.fail(exc)
        finally:
            if outermost:
                self._in_pass = False

        if outermost and self._answering:
            # Whoever was woken by a message may have something to send too: one write for all.
            self._answering = False
            self._schedule_flush()
        elif outermost:
            self._flush()

    def send_message(self, payload: bytes) -> None:
        """Send a message through the transport."""

        self._ssh.send_message(payload)

    # --- what the transport tells

    def message_received(self, message_type: int, payload: bytes, sequence: int) -> None:
        """Hand a message of 50 and above to the login or to the channels."""

        if message_type < 80:
            handled = self._login_message_received(message_type, payload)
        else:
            # CHANNEL_OPEN and its confirmation (90, 91) wake nobody who would send: what they call for goes at once.
            self._answering = self._answering or message_type not in (90, 91)
            handled = self._mux is not None and self._mux.message_received(message_type, payload, sequence)

        if not handled:
            self._ssh.send_unimplemented(sequence)

    def disconnect_received(self, exc: DisconnectError) -> None:
        """End the connection as the peer asked."""

        self._logger.info('Received disconnect: %s (%d)', printable(exc.reason), exc.code)
        self._cleanup(None if exc.code == DISC_BY_APPLICATION and self._established.done() else exc)
        self._close_socket()

    def debug_received(self, message: str, lang: str, always_display: bool) -> None:
        """Tell the owner of a debug message."""

        self._owner_debug_received(message, lang, always_display)

    def _start_channels(self, mux: Mux) -> None:
        """Open the express lane: the login is done."""

        self._mux = mux
        self._reader.express = True
        self._cancel_timers()
        self._keepalive.start()
        self._settle_established()

    def _settle_established(self) -> None:
        if not self._established.done():
            self._established.set_result(None)

    # --- questions and tasks

    def ask(
        self,
        question: Callable[[], T | Awaitable[T]],
        answer: Callable[[T], None],
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Run a question and give its value to `answer`; received messages are held back until then."""

        self._questions.ask(question, answer, failed)

    def hold_messages(self) -> None:
        """Hand no message on: a question is open."""

        self._reader.hold()
        self._balance_reading()

    def settle_question(self, settle: Callable[[], None]) -> None:
        """Act on an answer, and after the last one go on with the messages that were held back."""

        def step() -> None:
            settle()

            if not self._questions.open and not self._closing:
                self._reader.release()

        if not self._closing:
            self._reader.now = self._loop.time()
            self._run(step)
            self._balance_reading()

    def create_task(self, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine that belongs to this connection and is cancelled with it."""

        task = self._loop.create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)

        if not task.cancelled() and (exc := task.exception()):
            self.fail(cast(Exception, exc))

    # --- the end

    def fail(self, exc: Exception) -> None:
        """End the connection because of an error: the peer is told why, everybody here gets the error."""

        if self._closing:
            return

        if isinstance(exc, DisconnectError):
            code, reason, lang = exc.code, exc.reason, exc.lang
        else:
            self._logger.error('Uncaught exception', exc_info=exc)
            code, reason, lang = DISC_PROTOCOL_ERROR, 'Internal error', DEFAULT_LANG

        self._logger.info('Closing: %s (%d)', printable(reason), code)
        self._send_disconnect(code, reason, lang)
        self._cleanup(exc)
        self._close_socket()

    def close(self) -> None:
        """Close every channel and the connection; data that the peer takes at once still goes out."""

        self.disconnect(DISC_BY_APPLICATION, 'Disconnected by application')

    def abort(self) -> None:
        """Drop the connection without a word."""

        self._cleanup(None)

        if self._socket_transport:
            self._socket_transport.abort()

    def disconnect(self, code: int, reason: str, lang: str = DEFAULT_LANG) -> None:
        """Close the connection with a disconnect code (RFC 4253 section 11.1) and a reason for the peer's user."""

        if self._closing:
            return

        if self._mux:
            for link in self._mux.channels:
                link.close()

        self._flush()
        self._send_disconnect(code, reason, lang)
        self._cleanup(None)
        self._close_socket()

    def _send_disconnect(self, code: int, reason: str, lang: str) -> None:
        if not self._socket_transport:
            return

        try:
            self._ssh.disconnect(code, reason, lang)
        except Error as exc:
            self._logger.debug('No disconnect message could be sent: %s', exc)

        # The last chunk goes to the socket's queue although the socket may be full.
        self._writer.paused = False

        if not self._socket_transport.is_closing():
            chunk = self._writer.take_chunk()

            if chunk is not None:
                self._socket_transport.write(chunk)

    def _close_socket(self) -> None:
        if transport := self._socket_transport:
            transport.close()
            self._call_later(_CLOSE_TIMEOUT, transport.abort)

    def _cleanup(self, exc: Exception | None) -> None:
        if self._closing:
            return

        self._closing = True
        self._exc = exc
        self._cancel_timers()
        self._keepalive.stop()

        if self._tick_timer:
            self._tick_timer.cancel()
            self._pacing.stop()

        if self._mux:
            self._mux.connection_lost(exc)

        for task in list(self._tasks):
            if task is not _current_task():
                task.cancel()

        if not self._established.done():
            self._established.set_exception(exc or ConnectionLost('Connection closed'))
            # Nobody may be waiting for it.
            self._established.exception()

        try:
            self._owner_connection_lost(exc)
        except Exception as error:
            self._logger.error('Uncaught exception in connection_lost', exc_info=error)

        if not self._socket_transport and not self._closed.done():
            self._closed.set_result(None)

    async def wait_established(self) -> None:
        """Wait until the login is done.

        Raises:
          Error: it failed
        """

        await asyncio.shield(self._established)

        # It may have ended again in the pass that let the user in.
        if self._exc:
            raise self._exc

    async def wait_closed(self) -> None:
        """Wait until the socket is closed."""

        await asyncio.shield(self._closed)

    def is_closed(self) -> bool:
        """Return whether the connection has ended."""

        return self._closing

    # --- what is known of the connection

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Look up what is known of the connection.

        Names: peername, sockname, socket, username, client_version, server_version, kex_alg, host_key_alg, and send_
        and recv_ with cipher, mac and compression.
        """

        if name in self._extra:
            return self._extra[name]

        if not self._socket_transport and not self._closing:
            return default

        return algorithm_info(self._ssh, name, default)

    def set_extra_info(self, **kwargs: object) -> None:
        """Keep values that get_extra_info returns."""

        self._extra.update(kwargs)

    def set_keepalive(self, interval: float | None = None, count_max: int | None = None) -> None:
        """Change how often, in seconds, an idle peer is asked for a sign of life, and how often it may fail to."""

        self._keepalive.set(interval, count_max)

    def send_debug(self, msg: str, lang: str = DEFAULT_LANG, always_display: bool = False) -> None:
        """Send a debug message (RFC 4253 section 11.3)."""

        self._ssh.send_message(
            encode_byte(MSG_DEBUG) + encode_boolean(always_display) + encode_string(msg) + encode_string(lang)
        )

    # --- requests of the peer

    def global_request_received(
        self, name: bytes, cursor: Cursor, want_reply: bool
    ) -> bool | bytes | Awaitable[bool | bytes]:
        """Answer a global request: keepalives get their failure, which is a sign of life too."""

        self._logger.debug('Refused the global request %s', printable(name.decode('ascii', 'replace')))

        return False

    def send_keepalive(self) -> None:
        """Ask the peer for a sign of life (keepalive@openssh.com): success or failure, its reply is one."""

        if self._mux:
            self._mux.send_global_request(b'keepalive@openssh.com', answer=lambda success, data: None)

    def _require_mux(self) -> Mux:
        if self._closing or not self._mux:
            raise self._exc or ConnectionLost('The connection is closed')

        return self._mux

    # --- private

    def _call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self._timers.append(self._loop.call_later(delay, callback))

    def _cancel_timers(self) -> None:
        while self._timers:
            self._timers.pop().cancel()

    def _tick(self) -> None:
        self._reader.now = self._loop.time()
        self._run(lambda: None)

        if not self._in_pass:
            self._reader.release_idle()
            self._writer.release_idle()

        if not self._closing:
            self._tick_timer = self._loop.call_later(self._tick_after, self._tick)

    def _login_timed_out(self) -> None:
        self.fail(ConnectionLost('Login timeout expired'))

    # --- the two roles' parts

    def _transport_options(self) -> TransportOptions:
        raise TypeError('A connection is a client or a server')

    def _owner_connection_made(self) -> None:
        raise TypeError('A connection is a client or a server')

    def _owner_connection_lost(self, exc: Exception | None) -> None:
        raise TypeError('A connection is a client or a server')

    def _owner_debug_received(self, message: str, lang: str, always_display: bool) -> None:
        raise TypeError('A connection is a client or a server')

    def _login_message_received(self, message_type: int, payload: bytes) -> bool:
        raise TypeError('A connection is a client or a server')

    def host_key_received(self, key_data: bytes, algorithm: bytes) -> None:
        """Decide whether the server's host key is trusted."""

        raise TypeError('Only a client is shown host keys')

    def keys_exchanged(self, first: bool) -> None:
        """New keys are in force."""

    def service_requested(self, name: bytes) -> None:
        """Start the service that the client asked for."""

        raise TypeError('Only a server is asked for services')

    def service_accepted(self, name: bytes) -> None:
        """Use the service that the server granted."""

        raise TypeError('Only a client is granted services')

    def channel_open_requested(self, channel_type: bytes, cursor: Cursor) -> Any:
        """Refuse the channels that nobody asked for."""

        name = printable(channel_type.decode(errors='replace'), 64)

        raise ChannelOpenError(OPEN_UNKNOWN_CHANNEL_TYPE, f'Unknown channel type {name}')


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
