# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Packets: framing in both directions, and the two roads that they take.

A packet on the wire (RFC 4253 section 6):

    uint32 packet_length | byte padding_length | payload | padding | MAC or tag

The reader opens packets where they were received. Channel data and window adjusts go to their `ChannelFlow` without a
Python object (the express lane); every other payload is handed to the handler as bytes (the main road). The writer lays
payloads behind room for the prefix and seals them in place; the chunk they fill is given away to the transport.
"""

from collections import deque

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.buffer cimport PyBUF_WRITE
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcpy, memmove

from ssh_fast._cipher_modes cimport OpeningCipher, SealingCipher, fail_mac
from ssh_fast._openssl cimport RAND_bytes
from ssh_fast._wire cimport load_u32, store_u32

from ssh_fast._cipher import new_opening_cipher, new_sealing_cipher
from ssh_fast.errors import MACError, ProtocolError

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *o)

cdef enum:
    MSG_CHANNEL_WINDOW_ADJUST = 93
    MSG_CHANNEL_DATA = 94
    MSG_CHANNEL_EXTENDED_DATA = 95
    DATA_HEADER = 9                     # message number, recipient channel, length of the data
    EXTENDED_DATA_HEADER = 13

    MIN_PACKET_LENGTH = 5               # padding_length and the least padding
    MAX_LINE = 8192                     # what OpenSSH and AsyncSSH take before an identification line gives up
    MAX_HELD = 2 * 1024 * 1024          # received while held: more is a peer that ignores TCP's own window
    MIN_BUFFER = 16 * 1024
    MAX_BUFFER = 1024 * 1024

    CHUNK_SIZE = 128 * 1024             # what the socket does not take is copied by asyncio: large chunks cost more
    MIN_CHUNK = 4 * 1024
    SMALL_CHUNK = 64 * 1024
    QUANTUM = 64 * 1024                 # what one flow may lay before the next one's turn

    RANDOM_POOL = 4096

cdef uint64_t MAX_PACKETS = 0xffffffff  # under one key: the sequence number must not repeat (RFC 4344 section 3.1)

cdef unsigned char _random[RANDOM_POOL]
cdef int _random_used = RANDOM_POOL


cdef int _random_padding(unsigned char *padding, int size) except -1:
    # RFC 4253 section 6 asks for random padding; one call to the generator serves some hundred packets.
    global _random_used

    if _random_used + size > RANDOM_POOL:
        if RAND_bytes(_random, RANDOM_POOL) != 1:
            raise MemoryError('The random number generator failed')

        _random_used = 0

    memcpy(padding, &_random[_random_used], size)
    _random_used += size

    return 0


cdef class Flow:
    """One channel's data path, as the reader and the writer know it; `_flow.ChannelFlow` is the one there is."""

    cdef int receive_data(self, const unsigned char *data, Py_ssize_t size, uint32_t datatype,
                          object owner) except -1:
        raise RuntimeError('A flow has to take data')

    cdef int receive_adjust(self, uint32_t size) except -1:
        raise RuntimeError('A flow has to take window adjusts')

    cdef int deliver(self) except -1:
        return 0

    cdef int end_pass(self) except -1:
        return 0

    cdef int lay(self, Py_ssize_t budget) except -1:
        return 0


cdef class PacketReader:
    """Owns the receive buffer: finds packets, opens them in place, and hands each to its road."""

    def __cinit__(self, handler):
        self._handler = handler
        self._data = NULL
        self.longest = MAX_PACKET_LENGTH
        self._cipher = new_opening_cipher(b'none', b'', b'')
        self._flows = []
        self._dirty = []

    def __dealloc__(self):
        free(self._data)

    # --- receiving

    def get_buffer(self, sizehint=-1):
        """Lend the free part of the receive buffer, until the next call of `buffer_updated`."""

        self._check_outside()

        if self._start == self._end:
            self._start = self._end = 0

        if self._grow and 0 < self._capacity < MAX_BUFFER and self.longest == MAX_PACKET_LENGTH:
            self._make_room(min(self._capacity * 4, MAX_BUFFER) - (self._end - self._start))
        else:
            self._make_room(MIN_BUFFER // 4)

        self._grow = False
        self._offered = self._capacity - self._end

        return PyMemoryView_FromMemory(<char *>self._data + self._end, self._offered, PyBUF_WRITE)

    def buffer_updated(self, Py_ssize_t size):
        """Take `size` bytes that were received into the lent buffer: open and hand on every complete packet.

        Raises:
          ProtocolError: the framing, or a message of the express lane, breaks the protocol
          MACError: a packet's MAC or tag is wrong
        """

        self._check_outside()

        if size < 0 or size > self._offered:
            raise ValueError(f'size must be between 0 and the {self._offered} bytes lent, got {size}')

        self._check_held()
        self._end += size
        self._grow = size == self._offered
        self._offered = 0
        self._parse()

    def feed(self, data):
        """Take bytes that were received elsewhere; they are copied."""

        cdef const unsigned char[::1] view = data
        cdef Py_ssize_t size = view.shape[0]
        cdef Py_ssize_t taken = 0, part

        self._check_outside()

        while taken < size:
            self._check_held()
            part = min(size - taken, MAX_BUFFER)
            self._make_room(part)
            memcpy(self._data + self._end, &view[taken], part)
            self._end += part
            taken += part
            self._parse()

    def hold(self):
        """Stop after the packet that is being handled: a question is open."""

        self.held = True

    def release(self):
        """Go on with what has been received."""

        self.held = False

        if not self._parsing:
            self._parse()

    def release_idle(self):
        """Keep no large buffer if nothing was received since the last call."""

        self._check_outside()

        if self._idle_since == self.total_packets and self._start == self._end and self._capacity > MIN_BUFFER:
            free(self._data)
            self._data = NULL
            self._start = self._end = self._capacity = self._offered = 0
            self._grow = False

        self._idle_since = self.total_packets

    # --- set-up

    def set_cipher(self, OpeningCipher cipher not None, bint reset_sequence):
        """Open the packets from the next one on with `cipher`; `reset_sequence` as strict key exchange asks.

        Raises:
          RuntimeError: the next packet was begun with the cipher before
        """

        if self._length_known:
            raise RuntimeError('The cipher was changed inside a packet')

        self._cipher = cipher
        self._keyed = True
        self.packets = 0
        self.bytes = 0

        if reset_sequence:
            self.sequence = 0

    def set_decompressor(self, decompress):
        """Expand the payloads from the next packet on with `decompress`, which bounds its own output."""

        self._decompress = decompress

    def add_flow(self, Flow flow not None):
        """Route the messages for the flow's local channel number to it."""

        while len(self._flows) <= flow.local_id:
            self._flows.append(None)

        self._flows[flow.local_id] = flow

    def remove_flow(self, Flow flow not None):
        """Route nothing to the flow any more."""

        if flow.local_id < <uint32_t>len(self._flows) and self._flows[flow.local_id] is flow:
            self._flows[flow.local_id] = None

        while self._flows and self._flows[len(self._flows) - 1] is None:
            self._flows.pop()

    # --- private

    cdef int _check_outside(self) except -1:
        # What is being parsed lies in the receive buffer, which must stay where it is.
        if self._parsing:
            raise RuntimeError('A packet handler called its own reader')

        return 0

    cdef int _check_held(self) except -1:
        if self.held and self._end - self._start > MAX_HELD:
            raise ProtocolError('Received too much data while waiting for a decision')

        return 0

    cdef int _make_room(self, Py_ssize_t wanted) except -1:
        """Make at least `wanted` bytes free behind what is received, or room for the packet that is on its way."""

        cdef Py_ssize_t pending = self._end - self._start
        cdef Py_ssize_t needed = pending + wanted
        cdef unsigned char *data

        if self._length_known:
            needed = max(needed, 4 + <Py_ssize_t>self._length + self._cipher.tag_size)

        if self._start and (self._capacity - self._end < wanted or self._capacity - self._start < needed):
            memmove(self._data, self._data + self._start, pending)
            self._start = 0
            self._end = pending

        if needed > self._capacity - self._start:
            needed = max(needed, <Py_ssize_t>MIN_BUFFER)
            data = <unsigned char *>realloc(self._data, needed)

            if data == NULL:
                raise MemoryError()

            self._data = data
            self._capacity = needed

        return 0

    cdef int _parse(self) except -1:
        cdef bint again = True

        self._check_outside()
        self._parsing = True

        try:
            while again:
                self._take_packets()
                again = self.held
                self._end_pass()
                # What is delivered at the end may answer the question that the reader was held for.
                again = again and not self.held
        except BaseException:
            self._end_failed_pass()
            raise
        finally:
            self._parsing = False

        return 0

    cdef int _take_packets(self) except -1:
        cdef unsigned char *packet
        cdef Py_ssize_t available, total, payload_size
        cdef uint32_t sequence
        cdef OpeningCipher cipher
        cdef bytes expanded

        while not self.held:
            packet = self._data + self._start
            available = self._end - self._start

            if not self.identified:
                if self._take_line():
                    continue
                break

            cipher = self._cipher

            if not self._length_known:
                if available < cipher.head_size:
                    break

                self._take_length(packet, available)

            total = 4 + <Py_ssize_t>self._length + cipher.tag_size

            if available < total:
                break

            sequence = self.sequence

            if self._doomed:
                cipher.discard(sequence, packet, self._length - self._checked)
                fail_mac(sequence)

            if cipher.conceals_tag:
                if not self._open_chained(packet):
                    continue
            else:
                cipher.open(sequence, packet, self._length)

            payload_size = <Py_ssize_t>self._length - 1 - packet[4]

            if packet[4] < 4 or payload_size < 1:
                raise ProtocolError(f'Expected 4 to {<Py_ssize_t>self._length - 2} bytes of padding in a packet '
                                    f'of length {self._length}, got {packet[4]}')

            self._start += total
            self._length_known = False
            self.sequence = sequence + 1
            self.packets += 1
            self.bytes += total
            self.total_packets += 1
            self.total_bytes += total

            if self.packets >= MAX_PACKETS or (self.sequence == 0 and not self._keyed):
                raise ProtocolError('Expected a key exchange before the sequence numbers repeat')

            if self._decompress is None:
                self._dispatch(packet + PREFIX, payload_size, None, sequence)
            else:
                expanded = self._decompress(PyBytes_FromStringAndSize(<char *>packet + PREFIX, payload_size))

                if not expanded:
                    raise ProtocolError('Expected a message, got an empty payload')

                self._dispatch(<const unsigned char *>PyBytes_AS_STRING(expanded), PyBytes_GET_SIZE(expanded),
                               expanded, sequence)

        return 0

    cdef int _open_chained(self, unsigned char *packet) except -1:
        """Open a packet in CBC mode; 0 if its MAC is wrong, which is told when the longest packet has come.

        Otherwise the number of bytes that are taken before the connection ends would tell what the length field of a
        stolen block decrypts to (CVE-2008-5161).
        """

        try:
            self._cipher.open(self.sequence, packet, self._length)
        except MACError:
            self._doomed = True
            self._checked = self._length
            self._length = self.longest

            return 0

        return 1

    cdef int _take_line(self) except -1:
        """Hand one line of the identification phase to the handler; 0 if it is not complete yet."""

        cdef unsigned char *line = self._data + self._start
        cdef Py_ssize_t available = self._end - self._start
        cdef unsigned char *end = <unsigned char *>memchr(line, 10, available) if available else NULL
        cdef Py_ssize_t size = end - line if end != NULL else available

        if size > MAX_LINE:
            raise ProtocolError(f'Expected an identification line of at most {MAX_LINE} bytes')

        if end == NULL:
            return 0

        self._start += size + 1

        if size and line[size - 1] == 13:
            size -= 1

        self._handler.line_received(PyBytes_FromStringAndSize(<char *>line, size))

        return 1

    cdef int _take_length(self, unsigned char *packet, Py_ssize_t available) except -1:
        cdef OpeningCipher cipher = self._cipher
        cdef uint32_t length = 0
        cdef uint32_t apart = 0 if cipher.length_apart else 4

        cipher.open_length(self.sequence, packet, &length)

        if length < MIN_PACKET_LENGTH or length > self.longest or (length + apart) % cipher.block_size:
            if not cipher.conceals_length:
                raise ProtocolError(f'Expected a packet length of {MIN_PACKET_LENGTH} to {self.longest}, a '
                                    f'multiple of {cipher.block_size} with its head, got {length}')

            # The length was decrypted before any MAC was checked: telling a bad one at once would be an oracle
            # (CVE-2008-5161), so as much as the longest packet is awaited and then its MAC is called wrong.
            self._doomed = True
            length = self.longest

        self._length = length
        self._length_known = True

        return 0

    cdef int _dispatch(self, const unsigned char *payload, Py_ssize_t size, object owner,
                       uint32_t sequence) except -1:
        if self.express and MSG_CHANNEL_WINDOW_ADJUST <= payload[0] <= MSG_CHANNEL_EXTENDED_DATA:
            if self._channel_message(payload, size, owner):
                return 0

        self._flush()

        if owner is None:
            owner = PyBytes_FromStringAndSize(<char *>payload, size)

        self._handler.packet_received(owner, sequence)

        return 0

    cdef int _channel_message(self, const unsigned char *payload, Py_ssize_t size, object owner) except -1:
        """Hand a message to its flow; 0 if the channel number is not a flow's."""

        cdef Flow flow
        cdef uint32_t channel, datatype = 0
        cdef Py_ssize_t header = DATA_HEADER

        if size < 9:
            raise ProtocolError(f'Expected a channel message of at least 9 bytes, got {size}')

        channel = load_u32(payload + 1)

        if channel >= <uint32_t>len(self._flows):
            return 0

        found = self._flows[channel]

        if found is None:
            return 0

        flow = <Flow>found

        if payload[0] == MSG_CHANNEL_WINDOW_ADJUST:
            if size != 9:
                raise ProtocolError(f'Expected a window adjust of 9 bytes, got {size}')

            flow.receive_adjust(load_u32(payload + 5))
            return 1

        if payload[0] == MSG_CHANNEL_EXTENDED_DATA:
            header = EXTENDED_DATA_HEADER

            if size < header:
                raise ProtocolError(f'Expected extended data of at least {header} bytes, got {size}')

            datatype = load_u32(payload + 5)

            if not datatype:
                raise ProtocolError('Expected an extended data type, got 0')

        if load_u32(payload + header - 4) != <uint64_t>(size - header):
            raise ProtocolError(f'Expected {size - header} bytes of channel data, got a length of '
                                f'{load_u32(payload + header - 4)}')

        flow.receive_data(payload + header, size - header, datatype, owner)

        return 1

    cdef int _flush(self) except -1:
        """Deliver what the flows got in this pass, before a message that comes after it."""

        cdef Flow flow

        if self._dirty:
            for flow in list(self._dirty):
                flow.deliver()

        return 0

    cdef int _end_pass(self) except -1:
        cdef Flow flow

        if self._dirty:
            dirty, self._dirty = self._dirty, []

            for flow in dirty:
                flow.dirty = False

            try:
                for flow in dirty:
                    flow.deliver()
                    flow.end_pass()
            except BaseException:
                self._dirty += dirty
                raise

        return 0

    cdef int _end_failed_pass(self) except -1:
        """Deliver what came before an error: no flow may look into the receive buffer any more."""

        cdef Flow flow

        dirty, self._dirty = self._dirty, []

        for flow in dirty:
            flow.dirty = False

            try:
                flow.deliver()
            except BaseException:
                # The first error is the one that ends the connection.
                continue

        return 0


cdef class PacketWriter:
    """Owns the outgoing chunk: lays packets behind each other, seals each in place, and gives the chunk away."""

    def __cinit__(self, wake):
        self._wake = wake
        self._chunk = None
        self._cipher = new_sealing_cipher(b'none', b'', b'')
        self._ready = deque()

    # --- sending

    def send_raw(self, data):
        """Send bytes that are not a packet: the identification line."""

        cdef bytes raw = bytes(data)
        cdef Py_ssize_t size = len(raw)

        self._ensure(size)
        memcpy(self._base + self._used, PyBytes_AS_STRING(raw), size)
        self._used += size
        self._want_take()

    def send_packet(self, bytes payload not None):
        """Seal one packet now, in front of everything that waits in flows."""

        cdef Py_ssize_t size = len(payload)

        memcpy(self.reserve(size), PyBytes_AS_STRING(payload), size)
        self.commit(size)

    def take_chunk(self):
        """Let the waiting flows fill the chunk, each in turn, and give it away; None if there is nothing to send.

        Only after None does the writer wake its owner again, unless it is None because the writer is paused.
        The memory is the caller's until the view and everything made from it is gone.
        """

        cdef Flow flow

        if self.paused:
            return None

        # Nobody is woken for what becomes ready while the owner takes: it asks again until there is nothing.
        self._awake = True

        # A flow may tell its owner to go on sending, who may begin a key exchange.
        while self._ready and self._used < CHUNK_SIZE and not self._blocked:
            flow = self._ready.popleft()
            flow.is_ready = False
            flow.lay(QUANTUM)

        if not self._used:
            self._awake = False
            return None

        view = memoryview(self._chunk)[:self._used]

        self._used = 0

        return view

    def release_idle(self):
        """Keep no large chunk if nothing was sent since the last call."""

        if self._idle_since == self.total_packets and not self._used and self._capacity > SMALL_CHUNK:
            self._chunk = None
            self._capacity = 0

        self._idle_since = self.total_packets

    @property
    def backlog(self):
        """Sealed bytes that have not been taken."""

        return self._used

    @property
    def waiting(self):
        """Whether a flow has data that it could send now."""

        return bool(self._ready) and not self._blocked

    @property
    def blocked(self):
        """Whether flows have to wait, because a key exchange runs; packets that are sent singly are not held up."""

        return self._blocked

    @blocked.setter
    def blocked(self, bint blocked):
        self._blocked = blocked

        if self._ready and not blocked:
            self._want_take()

    # --- set-up

    def set_cipher(self, SealingCipher cipher not None, bint reset_sequence):
        """Seal the packets from the next one on with `cipher`; `reset_sequence` as strict key exchange asks."""

        self._cipher = cipher
        self._keyed = True
        self.packets = 0
        self.bytes = 0

        if reset_sequence:
            self.sequence = 0

    def set_compressor(self, compress):
        """Compress the payloads from the next packet on with `compress`."""

        self._compress = compress

    # --- private

    cdef int _want_take(self) except -1:
        if not self._awake:
            self._awake = True
            self._wake()

        return 0

    cdef int _add_ready(self, Flow flow) except -1:
        if not flow.is_ready:
            flow.is_ready = True
            self._ready.append(flow)

        return self._want_take()

    cdef int _ensure(self, Py_ssize_t size) except -1:
        """Make `size` bytes free in the chunk. A chunk that somebody still looks at is left to them."""

        cdef Py_ssize_t needed = self._used + size
        cdef object chunk

        if self._chunk is not None and not self._used and Py_REFCNT(<PyObject *>self._chunk) > 1:
            self._chunk = None

        if self._chunk is None or needed > self._capacity:
            if self._ready and needed < CHUNK_SIZE + MAX_PACKET_LENGTH and size > SMALL_CHUNK // 4:
                needed = CHUNK_SIZE + MAX_PACKET_LENGTH

            needed = max(needed, self._capacity * 2 if self._used else 0, <Py_ssize_t>MIN_CHUNK)
            chunk = PyBytes_FromStringAndSize(NULL, needed)

            if self._used:
                memcpy(PyBytes_AS_STRING(chunk), self._base, self._used)

            self._chunk = chunk
            self._capacity = needed
            self._base = <unsigned char *>PyBytes_AS_STRING(chunk)

        return 0

    cdef Py_ssize_t _wire_size(self, Py_ssize_t payload_size) noexcept:
        """Bytes that a packet with this payload takes on the wire."""

        cdef int block = self._cipher.block_size
        cdef Py_ssize_t bare = 1 + payload_size + (0 if self._cipher.length_apart else 4)
        cdef Py_ssize_t padding = block - bare % block

        if padding < 4:
            padding += block

        return 4 + 1 + payload_size + padding + self._cipher.tag_size

    cdef int _frame(self, unsigned char *packet, Py_ssize_t payload_size) except -1:
        """Put prefix and padding around a payload that lies behind the prefix, and seal."""

        cdef Py_ssize_t size = self._wire_size(payload_size)
        cdef uint32_t length = <uint32_t>(size - 4 - self._cipher.tag_size)
        cdef int padding = <int>(length - 1 - payload_size)

        if size - 4 - self._cipher.tag_size > MAX_PACKET_LENGTH:
            raise ProtocolError(f'Expected a message of less than {MAX_PACKET_LENGTH} bytes, got {payload_size}')

        store_u32(packet, length)
        packet[4] = <unsigned char>padding
        _random_padding(packet + PREFIX + payload_size, padding)
        self._cipher.seal(self.sequence, packet, length)

        self.sequence += 1
        self.packets += 1
        self.bytes += size
        self.total_packets += 1
        self.total_bytes += size

        if self.packets >= MAX_PACKETS or (self.sequence == 0 and not self._keyed):
            raise ProtocolError('Expected a key exchange before the sequence numbers repeat')

        return 0

    cdef unsigned char *reserve(self, Py_ssize_t payload_size) except NULL:
        """Lend room for a payload, until `commit`."""

        if self._compress is not None:
            self._scratch = PyBytes_FromStringAndSize(NULL, payload_size)
            return <unsigned char *>PyBytes_AS_STRING(self._scratch)

        self._ensure(PREFIX + payload_size + TRAILER)

        return self._base + self._used + PREFIX

    cdef int commit(self, Py_ssize_t payload_size) except -1:
        """Frame and seal the payload that was written where `reserve` said."""

        cdef bytes packed

        if self._compress is not None:
            packed = self._compress(self._scratch)
            self._scratch = None
            payload_size = PyBytes_GET_SIZE(packed)
            self._ensure(PREFIX + payload_size + TRAILER)
            memcpy(self._base + self._used + PREFIX, PyBytes_AS_STRING(packed), payload_size)

        self._frame(self._base + self._used, payload_size)
        self._used += self._wire_size(payload_size)

        return self._want_take()
