"""What every kind of channel offers to its session: writing, reading with back pressure, and closing.

A channel's data reaches the session only between `session_started` and the close; until then, and while reading is
paused, it waits here, uncredited, so never more than one receive window of it.
"""

import asyncio
import codecs
import errno
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, AnyStr, ClassVar, Generic, cast

from .._flow import ByteSink, ChannelFlow
from ..errors import ChannelOpenError, ConnectionLost, ProtocolError
from ..logging import ContextLogger
from ..wire import Cursor
from .close_watch import CLOSE_TIMEOUT, CloseWatch
from .link import ChannelLink
from .mux import Mux
from .session import SSHSession

DEFAULT_WINDOW = 2 << 20
DEFAULT_MAX_WINDOW = 16 << 20
DEFAULT_MAX_PACKET = 32 << 10

_MAX_PACKET = 255 << 10    # packets have at most 256 KiB, and data has a head in them
_STATELESS = frozenset({'utf-8', 'ascii', 'iso8859-1', 'iso8859-15', 'cp1252'})
_SMALL = 4096   # bytes: what waits in pieces shorter than this is joined


class SSHChannel(Generic[AnyStr]):
    """A channel; `encoding` None makes it one of bytes, and `window` and `max_pktsize` are what the peer may send.

    The window grows by itself, up to `max_window` bytes, if the peer's round trip asks for it.
    """

    flow_class: type[ChannelFlow] = ChannelFlow
    _read_datatypes: ClassVar[frozenset[int]] = frozenset()
    _write_datatypes: ClassVar[frozenset[int]] = frozenset()
    _patient: ClassVar[bool] = False    # whether a close waits for ever for a peer that does not take the data

    def __init__(
        self,
        mux: Mux,
        loop: asyncio.AbstractEventLoop,
        encoding: str | None,
        errors: str,
        window: int = DEFAULT_WINDOW,
        max_pktsize: int = DEFAULT_MAX_PACKET,
        max_window: int = DEFAULT_MAX_WINDOW,
    ) -> None:
        if not 0 < window < 1 << 32:
            raise ValueError(f'window must be between 1 and {(1 << 32) - 1} bytes, got {window}')

        if not 0 < max_pktsize <= _MAX_PACKET:
            raise ValueError(f'max_pktsize must be between 1 and {_MAX_PACKET} bytes, got {max_pktsize}')

        self.window = window
        self.max_window = max(window, max_window)
        self.max_packet = max_pktsize
        self._mux = mux
        self._loop = loop
        self._link: ChannelLink | None = None
        self._session: SSHSession[AnyStr] | None = None
        self._own_logger: ContextLogger | None = None
        self._extra: dict[str, Any] = {}
        self._environment: dict[bytes, bytes] = {}
        self._command: str | None = None
        self._subsystem: str | None = None
        self._write_limits: tuple[int, int] | None = None
        self._received: deque[tuple[bytes, int]] = deque()
        self._started = False
        self._reading_paused = False
        self._flushing = False
        self._eof_pending = False
        self._close_pending = False
        self._close_error: Exception | None = None
        self._closing = False
        self._closed = asyncio.Event()
        self._close_watch: CloseWatch | None = None
        self.set_encoding(encoding, errors)

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def flow(self) -> ChannelFlow:
        """The data path, which exists once the channel is open; a compiled consumer attaches with `set_sink`."""

        return self._open_link().flow

    @property
    def logger(self) -> ContextLogger:
        """A logger whose records name this channel."""

        # Made when it is first used, as most channels have nothing to say.
        if not self._own_logger and self._link:
            self._own_logger = ContextLogger(f'chan={self._link.local_id}', cast(Any, self._mux.host.logger))

        return self._own_logger or self._mux.host.logger

    @property
    def _logger(self) -> ContextLogger:
        return self.logger

    def get_connection(self) -> Any:
        """Return the connection that carries this channel."""

        return self._mux.host

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop that this channel runs on."""

        return self._loop

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Look up what is known of this channel, or else of its connection, which itself is named `connection`."""

        if name == 'connection':
            return self._mux.host

        return self._extra[name] if name in self._extra else self._mux.host.get_extra_info(name, default)

    def set_extra_info(self, **kwargs: Any) -> None:
        """Keep information with this channel, for `get_extra_info`."""

        self._extra.update(kwargs)

    def get_environment(self) -> Mapping[str, str]:
        """Return the session's environment; what is not UTF-8 is left out."""

        environment = {}

        for key, value in self._environment.items():
            try:
                environment[key.decode()] = value.decode()
            except UnicodeDecodeError:
                self._logger.warning('Left an environment variable out that is not UTF-8')

        return MappingProxyType(environment)

    def get_environment_bytes(self) -> Mapping[bytes, bytes]:
        """Return the session's environment as it was sent."""

        return MappingProxyType(self._environment)

    def get_command(self) -> str | None:
        """Return the command that the session runs."""

        return self._command

    def get_subsystem(self) -> str | None:
        """Return the name of the subsystem that the session runs."""

        return self._subsystem

    def get_encoding(self) -> tuple[str | None, str]:
        """Return the encoding, None for bytes, and how its errors are handled."""

        return self._encoding, self._errors

    def set_encoding(self, encoding: str | None, errors: str = 'strict') -> None:
        """Set the encoding of all further data, None for bytes.

        Raises:
          LookupError: the encoding, or the way to handle errors, is not known
        """

        # Most encodings make of a text the same bytes wherever it stands; others begin with a mark, or shift.
        self._stateful = encoding is not None and codecs.lookup(encoding).name not in _STATELESS

        if encoding is not None:
            codecs.lookup_error(errors)

        self._encoding = encoding
        self._errors = errors
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}
        self._encoders: dict[int | None, codecs.IncrementalEncoder] = {}

    def get_recv_window(self) -> int:
        """Return the receive window, in bytes, that the channel began with."""

        return self.window

    def get_read_datatypes(self) -> set[int]:
        """Return the extended data types that may be received."""

        return set(self._read_datatypes)

    def get_write_datatypes(self) -> set[int]:
        """Return the extended data types that may be written."""

        return set(self._write_datatypes)

    # --- reading ------------------------------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Stop calling `data_received`, until `resume_reading`; the peer can send no more than its window."""

        self._reading_paused = True

    def resume_reading(self) -> None:
        """Call `data_received` again, at once for what has come meanwhile."""

        if self._reading_paused:
            self._reading_paused = False
            self._flush()

    def set_sink(self, sink: ByteSink) -> None:
        """Give the data to compiled code from now on, first what was received before the session started."""

        pending = b''.join(data for data, datatype in self._received if not datatype)
        self._received = deque((data, datatype) for data, datatype in self._received if datatype)
        self.flow.set_sink(sink, pending)

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(self, data: AnyStr, datatype: int | None = None) -> None:
        """Send data; what cannot go yet is kept, and past the high-water mark the session's `pause_writing` is called.

        Raises:
          BrokenPipeError: the channel is closed or closing, or its end of file was written
          TypeError: the data is not text on a channel with an encoding, or not bytes on one without
        """

        if self._encoding is None:
            if not isinstance(data, bytes):
                if not isinstance(data, bytearray | memoryview):
                    raise TypeError(f'data must be bytes on a channel without encoding, not {type(data).__name__}')

                data = bytes(data)

            encoded: bytes = data
        else:
            if not isinstance(data, str):
                raise TypeError(f'data must be str with encoding {self._encoding}, not {type(data).__name__}')

            encoded = self._encode(data, datatype) if self._stateful else data.encode(self._encoding, self._errors)

        if datatype is not None and datatype not in self._write_datatypes:
            raise OSError(errno.EINVAL, f'datatype {datatype} cannot be written to this channel')

        link = self._link

        if not link or self._closing or not link.can_send:
            raise BrokenPipeError(errno.EPIPE, 'The channel is not open for writing')

        if encoded:
            link.flow.send(encoded, datatype or 0)

    def writelines(self, list_of_data: Iterable[AnyStr], datatype: int | None = None) -> None:
        """Send several pieces of data, as `write` does."""

        empty = cast(AnyStr, b'' if self._encoding is None else '')
        self.write(empty.join(list_of_data), datatype)

    def can_write_eof(self) -> bool:
        """Return true: a channel can send an end of file and still receive."""

        return True

    def write_eof(self) -> None:
        """Send an end of file behind the data; nothing can be written afterwards."""

        if self._link and not self._closing:
            self._link.send_eof()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be sent."""

        return self._link.flow.queued if self._link else 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks, in bytes, at which the session's `pause_writing` and `resume_writing` are called.

        Raises:
          ValueError: not 0 <= low <= high
        """

        if high is None:
            high = 64 * 1024 if low is None else 4 * low

        if low is None:
            low = high // 4

        if not 0 <= low <= high:
            raise ValueError(f'high ({high}) must be at least low ({low}), and low at least 0')

        self._write_limits = high, low
        self._apply_write_limits()

    # --- closing ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the channel when what was written has been sent; nothing is received from now on."""

        self._begin_close(abort=False)

    def abort(self) -> None:
        """Close the channel at once; what has not been sent is dropped."""

        self._begin_close(abort=True)

    @property
    def closed_by_peer(self) -> bool:
        """Whether the peer closed this channel, as it does in an orderly end."""

        return self._link is not None and self._link.closed_by_peer

    def is_closing(self) -> bool:
        """Return whether the channel is closing or closed."""

        return self._closing or self._close_pending or self._closed.is_set()

    async def wait_closed(self) -> None:
        """Wait until both sides have closed the channel and the session's `connection_lost` was called.

        Once we close it, a peer that neither takes data nor answers is waited for 10 seconds.
        """

        await self._closed.wait()

    def _begin_close(self, abort: bool) -> None:
        self._closing = True
        self._received.clear()
        self._eof_pending = False

        if self._link:
            if abort:
                self._link.abort()
            else:
                self._link.close()

        self._flush()

        if self._link and not self._close_watch and not self._closed.is_set():
            self._close_watch = CloseWatch(self._loop, self._link.flow, self._close_unanswered, self._patient)

    def _close_unanswered(self) -> None:
        """End without the peer, which keeps the channel's number until it closes its side."""

        self._open_link().abort()
        self._close_error = ConnectionLost(f'Expected the peer to close the channel within {CLOSE_TIMEOUT:g} s')
        self._finish()

    # --- called by the link and the flow ------------------------------------------------------------------------------

    def channel_opened(self, link: ChannelLink, cursor: Cursor) -> None:
        """Begin with an open channel."""

        self._link = link
        self._apply_write_limits()

        if self._closing:
            link.abort()
        else:
            self._opened(cursor)

    def open_failed(self, exc: Exception) -> None:
        """End: the channel was never opened."""

        self._closing = True
        self._closed.set()

    def data_received(self, data: bytes, datatype: int) -> None:
        """Pass data on, or keep it until the session takes it."""

        if datatype and datatype not in self._read_datatypes:
            self._logger.debug('Dropped %d bytes of unknown extended data type %d', len(data), datatype)
            self.flow.credit(len(data))
        elif self._received or self._reading_paused or not self._started or self._flushing:
            self._keep(data, datatype)
        else:
            self._deliver(data, datatype)

    def eof_received(self) -> None:
        """Pass the end of file on, behind the data."""

        self._eof_pending = not self._closing
        self._flush()

    def request_received(self, name: bytes, cursor: Cursor) -> Any:
        """Refuse a request that this kind of channel does not know."""

        return False

    def request_answered(self, name: bytes, granted: bool) -> None:
        """Take note of nothing: nothing depends on a reply here."""

    def channel_closed(self, exc: Exception | None) -> None:
        """Pass the close on, behind the data."""

        self._close_pending = True
        self._close_error = exc

        if not self._started:
            self._received.clear()
            self._eof_pending = False

        self._flush()

        # Our own sessions want to know at once: data may be taken only when writing goes on, which fails from now on.
        if not self._closed.is_set() and (peer_closed := getattr(self._session, 'peer_closed', None)):
            self._call(peer_closed)

    def sending_paused(self) -> None:
        """Ask the session to pause."""

        if self._session:
            self._call(self._session.pause_writing)

    def sending_resumed(self) -> None:
        """Let the session go on."""

        if self._session:
            self._call(self._session.resume_writing)

    def sink_failed(self, exc: Exception) -> None:
        """Close the channel: the compiled consumer of its data cannot go on."""

        self._fail(exc)

    # --- for the kinds of channels ------------------------------------------------------------------------------------

    def _opened(self, cursor: Cursor) -> None:
        """Begin the session of a channel that is open."""

    def _open_link(self) -> ChannelLink:
        if not self._link:
            raise ChannelOpenError(0, 'The channel is not open')

        return self._link

    def _start(self) -> None:
        """Start the session: what is there of its data follows."""

        self._started = True

        if self._session:
            self._call(self._session.session_started)

        self._flush()

    def _call(self, callback: Callable[..., Any], *args: Any) -> Any:
        """Call the session; an exception of it ends this channel, not the connection."""

        try:
            return callback(*args)
        except Exception as exc:
            self._logger.exception('Uncaught exception in a session callback')
            self._fail(exc)

            return None

    def _fail(self, exc: Exception) -> None:
        """Close the channel because of an error, and tell the session at once."""

        self._close_error = exc
        self._begin_close(abort=True)
        self._finish()

    # --- private ------------------------------------------------------------------------------------------------------

    def _apply_write_limits(self) -> None:
        if self._link and self._write_limits:
            self._link.flow.high_water, self._link.flow.low_water = self._write_limits

    def _flush(self) -> None:
        """Deliver what waits, in order: data, the end of file, the close."""

        if self._flushing:
            return

        self._flushing = True

        try:
            while self._received and self._started and not self._reading_paused:
                self._deliver(*self._received.popleft())

            if not self._received and self._eof_pending and self._started:
                self._eof_pending = False
                self._deliver_eof()
        finally:
            self._flushing = False

        if self._close_pending and not self._received:
            self._finish()

    def _keep(self, data: bytes, datatype: int) -> None:
        """Keep data that cannot be delivered yet; tiny pieces are joined, to cost no more than their bytes."""

        if self._received and len(data) < _SMALL:
            last, last_type = self._received[-1]

            if last_type == datatype and len(last) < _SMALL:
                self._received[-1] = (last + data, datatype)
                return

        self._received.append((data, datatype))

    def _deliver(self, data: bytes, datatype: int) -> None:
        text = self._decode(data, datatype) if self._encoding else data

        if text and self._session:
            self._call(self._session.data_received, text, datatype or None)

        if self._link:
            self._link.flow.credit(len(data))

    def _deliver_eof(self) -> None:
        for datatype in self._decoders:
            self._decode(b'', datatype, final=True)

        if self._session and not self._call(self._session.eof_received):
            self.write_eof()

    def _decode(self, data: bytes, datatype: int, final: bool = False) -> str:
        """Decode data; what cannot be decoded ends this channel."""

        decoder = self._decoders.get(datatype)

        if not decoder:
            decoder = codecs.getincrementaldecoder(cast(str, self._encoding))(self._errors)
            self._decoders[datatype] = decoder

        try:
            return decoder.decode(data, final)
        except UnicodeError as exc:
            self._fail(ProtocolError(f'Expected {self._encoding} text on channel {self._open_link().local_id}: {exc}'))

            return ''

    def _encode(self, data: str, datatype: int | None) -> bytes:
        """Encode data in an encoding that depends on what was written before."""

        encoder = self._encoders.get(datatype)

        if not encoder:
            encoder = codecs.getincrementalencoder(cast(str, self._encoding))(self._errors)
            self._encoders[datatype] = encoder

        return encoder.encode(data)

    def _finish(self) -> None:
        if self._closed.is_set():
            return

        session, self._session = self._session, None
        self._closing = True
        self._received.clear()
        self._closed.set()

        if self._close_watch:
            self._close_watch.stop()
            self._close_watch = None

        if session:
            self._call(session.connection_lost, self._close_error)
