# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""One channel's data path: both windows, what waits to be sent, and the joining of what was received.

Everything is sent late: data waits by reference, a file's blocks in the file, until the peer's window, the transport and
the key exchange let it go; then it is laid once, straight into the outgoing chunk. Everything is credited late: the
peer's window opens again when the consumer has taken the bytes.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_Check, PyMemoryView_GET_BUFFER
from cpython.ref cimport Py_INCREF
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from ssh_fast._packet cimport MAX_PACKET_LENGTH, PREFIX, TRAILER, Flow, PacketReader, PacketWriter
from ssh_fast._queue cimport BLOCK, DATA, MESSAGE, Item, ItemQueue, clear_item
from ssh_fast._window_growth cimport GROWTH, adjust_sent, is_credit_due, is_window_too_small
from ssh_fast._wire cimport store_u32

from ssh_fast.errors import ProtocolError

cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len
    Py_ssize_t preadv(int fd, const iovec *iov, int iovcnt, long long offset)

cdef extern from "<unistd.h>" nogil:
    Py_ssize_t pread(int fd, void *buf, size_t count, long long offset)

cdef enum:
    MSG_CHANNEL_WINDOW_ADJUST = 93
    MSG_CHANNEL_DATA = 94
    MSG_CHANNEL_EXTENDED_DATA = 95

    DATA_HEADER = 9                     # message number, recipient channel, length of the data
    EXTENDED_DATA_HEADER = 13
    MAX_SEND_PACKET = 128 * 1024        # of data; keeps a packet well under every peer's 256 KiB
    MAX_VECTORS = 64
    MAX_BLOCK_HEADER = 512
    MAX_KEPT_SEGMENTS = 1024            # what a flow keeps for the next pass; a pass of tiny packets needs far more

cdef uint64_t MAX_WINDOW = 0xffffffff   # RFC 4254 section 5.2


cdef class ByteSink:
    """Takes one flow's CHANNEL_DATA in compiled code."""

    cdef int feed(self, const unsigned char *data, Py_ssize_t size) except -1:
        return 0

    cdef int pass_ended(self) except -1:
        return 0

    cdef int flow_closed(self) except -1:
        return 0


cdef class BlockSource:
    """A file whose blocks are read when they are laid into packets."""

    def __cinit__(self):
        self.fd = -1

    cdef object block_short(self, uint32_t tag, uint32_t wanted, Py_ssize_t got, int err):
        return None if got > 0 else b''

    cdef int block_sent(self, uint32_t tag) except -1:
        return 0


cdef class ChannelFlow(Flow):
    """One channel's data path: both windows, what waits to be sent, and the joining of what was received."""

    def __cinit__(self, PacketReader reader not None, PacketWriter writer not None, uint32_t local_id, handler,
                  uint32_t window, uint32_t max_window, uint32_t max_packet):
        if not 0 < max_packet <= MAX_PACKET_LENGTH - 1024:
            raise ValueError(f'max_packet must be between 1 and {MAX_PACKET_LENGTH - 1024}, got {max_packet}')

        self._reader = reader
        self._writer = writer
        self._handler = handler
        self.local_id = local_id
        self._receive_left = window
        self._window = window
        self._max_window = max(window, max_window)
        self._max_receive_packet = max_packet
        self._segments = NULL
        self._queue = ItemQueue()
        self.high_water = 64 * 1024
        self.low_water = 16 * 1024

    def __dealloc__(self):
        free(self._segments)

    # --- opening and closing

    def open(self, uint32_t remote_id, uint32_t send_window, uint32_t max_packet):
        """Start sending to the peer's channel `remote_id`, within its window and packet size in bytes.

        Raises:
          ProtocolError: the packet size is 0
        """

        if not max_packet:
            raise ProtocolError('Expected a maximum packet size of at least 1, got 0')

        self.remote_id = remote_id
        self._send_left = send_window
        self._max_send_packet = min(max_packet, <uint32_t>MAX_SEND_PACKET)
        self._opened = True
        self._wake_writer()

    def set_sink(self, ByteSink sink, bytes pending not None=b''):
        """Give CHANNEL_DATA to `sink`, credited as soon as it has taken it; None gives it to the handler again.

        `pending` is data that the handler was given earlier and has not credited: the sink takes it first.
        """

        if pending and sink is None:
            raise ValueError('pending: expected no data without a sink')

        if self._closed and sink is not None:
            sink.flow_closed()
            return

        self._sink = sink

        if pending and not self._discarding:
            self._check_credit(PyBytes_GET_SIZE(pending))
            self._feed_sink(<const unsigned char *>PyBytes_AS_STRING(pending), PyBytes_GET_SIZE(pending))
            self.end_pass()

    def receive_eof(self):
        """Take any further data as a protocol error: the peer has sent EOF or CLOSE."""

        self._eof_received = True

    def discard(self):
        """Count and drop what still comes: we have sent CLOSE."""

        self._discarding = True

    def close(self):
        """Forget what is parked and call nobody any more."""

        cdef ByteSink sink = self._sink

        self._closed = True
        self._segment_count = 0

        while self._queue.count:
            self._queue.pop()

        self.queued = 0
        self._sink = None

        if sink is not None:
            sink.flow_closed()

    @property
    def send_window(self):
        """Bytes of data that the peer would still take."""

        return self._send_left

    @property
    def receive_window(self):
        """Bytes of data that the peer may still send."""

        return self._receive_left

    @property
    def queued_items(self):
        """Parked pieces: data, messages and blocks."""

        return self._queue.count

    # --- receiving

    def receive(self, bytes data not None, uint32_t datatype=0):
        """Take data of a channel message that came by the main road."""

        self.receive_data(<const unsigned char *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), datatype, data)

    def credit(self, uint64_t size):
        """Let the peer send `size` bytes more: the consumer has taken as many.

        Raises:
          ValueError: so many bytes were not received
        """

        if not self._closed:
            self._check_credit(size)
            self._credit(size)

    cdef int _check_credit(self, uint64_t size) except -1:
        cdef uint64_t open_window = <uint64_t>self._receive_left + self._adjust_due + self._consumed

        if open_window > self._window or size > self._window - open_window:
            raise ValueError(f'size: expected at most the bytes that were received and not credited, got {size}')

        return 0

    cdef int receive_data(self, const unsigned char *data, Py_ssize_t size, uint32_t datatype, object owner) except -1:
        cdef Segment *segments

        if self._eof_received:
            raise ProtocolError(f'Expected no data on channel {self.local_id} after its end, got {size} bytes')

        if size > self._receive_left:
            raise ProtocolError(f'Expected at most {self._receive_left} bytes in the window of channel '
                                f'{self.local_id}, got {size}')

        if size > self._max_receive_packet:
            raise ProtocolError(f'Expected packets of at most {self._max_receive_packet} bytes on channel '
                                f'{self.local_id}, got {size}')

        self._receive_left -= <uint32_t>size

        if is_window_too_small(&self._growth, <uint32_t>size, self._reader.now):
            self._grow()

        if self._closed or not size:
            return 0

        if self._discarding:
            # Our CLOSE waits behind data: a peer that must be read before it reads again would never let it go.
            return self._credit(size) if self._queue.count else 0

        if self._sink is not None and not datatype:
            if not self.dirty:
                self.dirty = True
                self._reader._dirty.append(self)

            return self._feed_sink(data, size)

        if owner is not None:
            # The data lies in a bytes object of its own, which goes when this returns.
            self.deliver()
            return self._hand_over(PyBytes_FromStringAndSize(<char *>data, size), datatype)

        if self._segment_count == self._segment_capacity:
            segments = <Segment *>realloc(self._segments, (self._segment_capacity * 2 + 8) * sizeof(Segment))

            if segments == NULL:
                raise MemoryError()

            self._segments = segments
            self._segment_capacity = self._segment_capacity * 2 + 8

        self._segments[self._segment_count] = Segment(data, size, datatype)
        self._segment_count += 1

        if not self.dirty:
            self.dirty = True
            self._reader._dirty.append(self)

        return 0

    cdef int end_pass(self) except -1:
        cdef ByteSink sink = self._sink

        if self._sink_fed and sink is not None:
            self._sink_fed = False

            try:
                sink.pass_ended()
            except Exception as exc:
                self._fail_sink(exc)

        return 0

    cdef int _feed_sink(self, const unsigned char *data, Py_ssize_t size) except -1:
        # What it calls may close this flow, which then lets go of it.
        cdef ByteSink sink = self._sink

        self._sink_fed = True

        try:
            sink.feed(data, size)
        except Exception as exc:
            return self._fail_sink(exc)

        return self._credit(size)

    cdef int _fail_sink(self, exc) except -1:
        """Drop what still comes: its consumer cannot go on."""

        self._discarding = True
        self._handler.sink_failed(exc)

        return 0

    cdef int deliver(self) except -1:
        """Join neighbouring data of one type and hand it over; the receive buffer may move afterwards."""

        cdef Py_ssize_t index = 0, first, size
        cdef char *joined

        if not self._segment_count:
            return 0

        pieces = []

        try:
            while index < self._segment_count:
                first = index
                size = 0

                while index < self._segment_count and self._segments[index].datatype == self._segments[first].datatype:
                    size += self._segments[index].size
                    index += 1

                data = PyBytes_FromStringAndSize(NULL, size)
                joined = PyBytes_AS_STRING(data)
                pieces.append((data, self._segments[first].datatype))

                while first < index:
                    memcpy(joined, self._segments[first].data, self._segments[first].size)
                    joined += self._segments[first].size
                    first += 1
        finally:
            self._segment_count = 0

            if self._segment_capacity > MAX_KEPT_SEGMENTS:
                free(self._segments)
                self._segments = NULL
                self._segment_capacity = 0

        for data, datatype in pieces:
            self._hand_over(data, datatype)

        return 0

    cdef int _hand_over(self, bytes data, uint32_t datatype) except -1:
        """Give joined data to its consumer, who may have changed, or gone, since it was received."""

        if self._closed or self._discarding:
            return 0

        if self._sink is not None and not datatype:
            self._feed_sink(<const unsigned char *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
            return self.end_pass()

        self._handler.data_received(data, datatype)

        return 0

    cdef int _grow(self) except -1:
        cdef uint32_t window = <uint32_t>min(<uint64_t>self._window * GROWTH, <uint64_t>self._max_window)

        self._consumed += window - self._window
        self._window = window

        return self._credit(0)

    cdef int _credit(self, uint64_t size) except -1:
        self._consumed += size

        if (not is_credit_due(self._consumed, self._window) or self._closed or self._eof_received
                or (self.credit_limit_items and self._queue.count > self.credit_limit_items)):
            return 0

        self._adjust_due += <uint32_t>self._consumed
        self._consumed = 0

        return self._wake_writer()

    # --- sending

    def send(self, data, uint32_t datatype=0):
        """Send data, with `datatype` as extended data; what cannot go now is kept by reference."""

        self.send_bytes(data if PyBytes_CheckExact(data) else bytes(data), datatype)

    def send_in_order(self, bytes payload not None):
        """Send a whole message, which takes no window, behind the data that was sent before it."""

        cdef Item *item

        if self._closed:
            return

        item = self._queue.push()
        item.kind = MESSAGE
        item.owner = <void *>payload
        item.data = <const unsigned char *>PyBytes_AS_STRING(payload)
        item.size = PyBytes_GET_SIZE(payload)
        Py_INCREF(payload)
        self._wake_writer()

    def adjust(self, uint32_t size):
        """Take a window adjust.

        Raises:
          ProtocolError: the window would pass 2^32 - 1 (RFC 4254 section 5.2)
        """

        self.receive_adjust(size)

    cdef int receive_adjust(self, uint32_t size) except -1:
        if self._send_left + size > MAX_WINDOW:
            raise ProtocolError(f'Expected a window of channel {self.local_id} of less than 2^32, got '
                                f'{self._send_left} + {size}')

        self._send_left += size

        return self._wake_writer()

    cdef int send_bytes(self, object data, uint32_t datatype=0) except -1:
        cdef Item *item
        cdef const unsigned char *start
        cdef Py_ssize_t size

        if PyBytes_CheckExact(data):
            start = <const unsigned char *>PyBytes_AS_STRING(data)
            size = PyBytes_GET_SIZE(data)
        elif PyMemoryView_Check(data) and PyMemoryView_GET_BUFFER(data).itemsize == 1 and data.c_contiguous:
            start = <const unsigned char *>PyMemoryView_GET_BUFFER(data).buf
            size = PyMemoryView_GET_BUFFER(data).len
        else:
            raise TypeError(f'data must be bytes or a contiguous memoryview of bytes, got {type(data).__name__}')

        if self._closed or not size:
            return 0

        item = self._queue.push()
        item.kind = DATA
        item.datatype = datatype
        item.owner = <void *>data
        item.data = start
        item.size = size
        Py_INCREF(data)
        self.queued += size
        self._wake_writer()

        if self.queued > self.high_water and not self._paused_sender:
            self._paused_sender = True
            self._handler.sending_paused()

        return 0

    cdef int send_block(self, BlockSource source, bytes header, uint64_t offset, uint32_t size,
                        uint32_t tag) except -1:
        cdef Item *item

        if self._closed:
            return 0

        if PyBytes_GET_SIZE(header) and not 8 <= PyBytes_GET_SIZE(header) <= MAX_BLOCK_HEADER:
            raise ValueError(f'header must be 8 to {MAX_BLOCK_HEADER} bytes or none, got {PyBytes_GET_SIZE(header)}')

        item = self._queue.push()
        item.kind = BLOCK
        item.owner = <void *>source
        item.header = <void *>header
        item.size = size
        item.offset = offset
        item.tag = tag
        Py_INCREF(source)
        Py_INCREF(header)
        self.queued += size + PyBytes_GET_SIZE(header)

        return self._wake_writer()

    cdef int drop_blocks(self, BlockSource source) except -1:
        cdef ItemQueue queue = self._queue
        cdef Py_ssize_t index, kept = 0
        cdef Item *item

        for index in range(queue.count):
            item = queue.at(index)

            if item.kind == BLOCK and item.owner == <void *>source:
                self.queued -= item.size + PyBytes_GET_SIZE(<bytes>item.header)
                clear_item(item)
            else:
                queue.at(kept)[0] = item[0]
                kept += 1

        queue.truncate(kept)
        # A message that waited behind them may go now, and a sender that waited for them go on.
        self._wake_writer()

        return self._after_sending()

    cdef int lay_blocks_now(self, BlockSource source) except -1:
        cdef ItemQueue old = self._queue
        cdef Item item
        cdef bytes loaded
        cdef object failure = None

        # The queue is built anew in its order; what the source sends meanwhile may go between, never inside, messages.
        self._queue = ItemQueue()

        while old.count and not self._closed:
            if old.at(0).kind != BLOCK or old.at(0).owner != <void *>source or failure is not None:
                self._queue.push()[0] = old.at(0)[0]
                old.take()
                continue

            item = old.take()

            try:
                loaded = self._read_block(item)

                if loaded and not self._closed:
                    self._fill(self._queue.push(), loaded)
            except BaseException as exc:
                # What is behind keeps its place.
                failure = exc
            finally:
                clear_item(&item)

        if failure is not None:
            raise failure

        return 0

    cdef bint _can_send(self) noexcept:
        if not self._opened or self._closed or not self._queue.count:
            return False

        return self._queue.at(0).kind == MESSAGE or self._send_left > 0

    cdef int _wake_writer(self) except -1:
        if self._opened and not self._closed and (self._adjust_due or self._can_send()):
            self._writer._add_ready(self)

        return 0

    cdef int lay(self, Py_ssize_t budget) except -1:
        """Lay up to about `budget` bytes of what waits into the writer's chunk."""

        cdef Py_ssize_t laid = 0, size
        cdef Item *item
        cdef unsigned char *payload
        cdef PacketWriter writer = self._writer

        if self._closed:
            return 0

        if self._adjust_due:
            payload = writer.reserve(9)
            payload[0] = MSG_CHANNEL_WINDOW_ADJUST
            store_u32(payload + 1, self.remote_id)
            store_u32(payload + 5, self._adjust_due)
            adjust_sent(&self._growth, self._receive_left, self._adjust_due == self._window, self._reader.now)
            self._receive_left += self._adjust_due
            self._adjust_due = 0
            writer.commit(9)

        while laid < budget and self._can_send() and not writer._blocked:
            item = self._queue.at(0)

            if item.kind == MESSAGE:
                size = item.size
                memcpy(writer.reserve(size), item.data, size)
                self._queue.pop()
                writer.commit(size)
                laid += size
            elif item.kind == BLOCK:
                laid += self._lay_block(item)
            else:
                laid += self._lay_data()

        if self._can_send() and not self.is_ready:
            self.is_ready = True
            writer._ready.append(self)

        return self._after_sending()

    cdef int _after_sending(self) except -1:
        if self._paused_sender and self.queued <= self.low_water:
            self._paused_sender = False
            self._handler.sending_resumed()

        if self.credit_limit_items and self._consumed:
            self._credit(0)

        return 0

    cdef Py_ssize_t _lay_data(self) except -1:
        """Lay one packet of data: as much of the next items of one type as packet size and window take."""

        cdef Py_ssize_t limit = <Py_ssize_t>min(<uint64_t>self._max_send_packet, self._send_left)
        cdef Py_ssize_t size = 0, index = 0, part, left
        cdef ItemQueue queue = self._queue
        cdef Item *item = queue.at(0)
        cdef uint32_t datatype = item.datatype
        cdef int header = EXTENDED_DATA_HEADER if datatype else DATA_HEADER
        cdef unsigned char *payload

        while size < limit and index < queue.count:
            item = queue.at(index)

            if item.kind != DATA or item.datatype != datatype:
                break

            size += item.size
            index += 1

        size = min(size, limit)
        payload = self._writer.reserve(header + size)
        payload[0] = MSG_CHANNEL_EXTENDED_DATA if datatype else MSG_CHANNEL_DATA
        store_u32(payload + 1, self.remote_id)

        if datatype:
            store_u32(payload + 5, datatype)

        store_u32(payload + header - 4, <uint32_t>size)
        payload += header
        left = size

        while left:
            item = queue.at(0)
            part = min(left, item.size)
            memcpy(payload, item.data, part)
            payload += part
            left -= part
            item.data += part
            item.size -= part

            if not item.size:
                queue.pop()

        self._send_left -= size
        self.queued -= size
        self._writer.commit(header + size)

        return size

    cdef Py_ssize_t _lay_block(self, Item *item) except -1:
        """Read a block from its file straight behind the packets' heads; 0 if it had to be loaded instead."""

        cdef PacketWriter writer = self._writer
        cdef BlockSource source = <BlockSource>item.owner
        cdef bytes header = <bytes>item.header
        cdef Py_ssize_t header_size = PyBytes_GET_SIZE(header)
        cdef Py_ssize_t wanted = item.size, got = 0, part, total = header_size + wanted
        cdef Py_ssize_t most = self._max_send_packet
        cdef Py_ssize_t count = (total + most - 1) // most
        cdef Py_ssize_t full, index, first = 0
        cdef uint64_t offset = item.offset
        cdef uint32_t tag = item.tag
        cdef int fd = source.fd, err = 0
        cdef unsigned char *start
        cdef unsigned char *packet
        cdef iovec vectors[MAX_VECTORS]

        if <uint64_t>total > self._send_left or count > MAX_VECTORS or header_size >= most or writer._compress is not None:
            self._load_block()
            return 0

        full = writer._wire_size(DATA_HEADER + most)
        writer._ensure(count * full + TRAILER)
        start = writer._base + writer._used

        for index in range(count):
            packet = start + index * full
            vectors[index].iov_base = packet + PREFIX + DATA_HEADER
            vectors[index].iov_len = most if index < count - 1 else total - index * most

        memcpy(vectors[0].iov_base, PyBytes_AS_STRING(header), header_size)
        vectors[0].iov_base = <unsigned char *>vectors[0].iov_base + header_size
        vectors[0].iov_len -= header_size

        # The file may be slow: others run meanwhile. The chunk is ours alone until it is given away.
        with nogil:
            while got < wanted:
                part = preadv(fd, &vectors[first], <int>(count - first), <long long>(offset + got))

                if part < 0:
                    if errno == EINTR:
                        continue

                    err = errno
                    break

                if part == 0:
                    break

                got += part

                while part and part >= <Py_ssize_t>vectors[first].iov_len:
                    part -= <Py_ssize_t>vectors[first].iov_len
                    first += 1

                if part:
                    vectors[first].iov_base = <unsigned char *>vectors[first].iov_base + part
                    vectors[first].iov_len -= part

        self._queue.pop()
        self.queued -= total

        if got < wanted:
            got = -1 if err else got
            replacement = source.block_short(tag, <uint32_t>wanted, got, err)

            if replacement is not None:
                self._put_first(replacement)
                return 0

            total = header_size + got
            count = (total + most - 1) // most
            packet = start + PREFIX + DATA_HEADER

            if header_size:
                store_u32(packet, <uint32_t>(total - 4))
                store_u32(packet + header_size - 4, <uint32_t>got)

        for index in range(count):
            packet = start + index * full
            part = most if index < count - 1 else total - index * most
            packet[PREFIX] = MSG_CHANNEL_DATA
            store_u32(packet + PREFIX + 1, self.remote_id)
            store_u32(packet + PREFIX + 5, <uint32_t>part)
            writer._frame(packet, DATA_HEADER + part)
            writer._used += writer._wire_size(DATA_HEADER + part)

        self._send_left -= total
        source.block_sent(tag)

        return total

    cdef int _load_block(self) except -1:
        """Put the block at the head of the queue in memory, where it waits as data."""

        cdef Item item = self._queue.take()

        try:
            self._put_first(self._read_block(item))
        finally:
            clear_item(&item)

        return 0

    cdef bytes _read_block(self, Item item):
        """Read a block that has left the queue: the bytes to send for it, which may be none."""

        cdef BlockSource source = <BlockSource>item.owner
        cdef bytes header = <bytes>item.header
        cdef Py_ssize_t header_size = PyBytes_GET_SIZE(header)
        cdef Py_ssize_t wanted = item.size, got = 0, part
        cdef int fd = source.fd, err = 0
        cdef bytes loaded = PyBytes_FromStringAndSize(NULL, header_size + wanted)
        cdef unsigned char *data = <unsigned char *>PyBytes_AS_STRING(loaded)

        self.queued -= header_size + wanted
        memcpy(data, PyBytes_AS_STRING(header), header_size)

        with nogil:
            while got < wanted:
                part = pread(fd, data + header_size + got, wanted - got, <long long>(item.offset + got))

                if part < 0:
                    if errno == EINTR:
                        continue

                    err = errno
                    break

                if part == 0:
                    break

                got += part

        if got < wanted:
            got = -1 if err else got
            replacement = source.block_short(item.tag, <uint32_t>wanted, got, err)

            if replacement is not None:
                return replacement

            if header_size:
                store_u32(data, <uint32_t>(header_size - 4 + got))
                store_u32(data + header_size - 4, <uint32_t>got)

            loaded = loaded[:header_size + got]

        source.block_sent(item.tag)

        return loaded

    cdef int _put_first(self, bytes data) except -1:
        """Put data at the head of the queue."""

        if not self._closed and PyBytes_GET_SIZE(data):
            self._fill(self._queue.push_first(), data)

        return 0

    cdef void _fill(self, Item *item, bytes data) noexcept:
        item[0] = Item(DATA, 0, <void *>data, NULL, <const unsigned char *>PyBytes_AS_STRING(data),
                       PyBytes_GET_SIZE(data), 0, 0)
        Py_INCREF(data)
        self.queued += PyBytes_GET_SIZE(data)
