"""Packet framing: what other compiled modules may use of it."""

from libc.stdint cimport uint32_t, uint64_t

from ssh_fast._cipher_modes cimport OpeningCipher, SealingCipher


cdef enum:
    MAX_PACKET_LENGTH = 256 * 1024      # OpenSSH's PACKET_MAX_SIZE; RFC 4253 section 6.1 asks for 35000 at least
    PREFIX = 5                          # packet_length and padding_length
    TRAILER = 64 + 32                   # the longest MAC and the longest padding that is used


cdef class Flow:
    cdef readonly uint32_t local_id
    # in the reader's list of those that got something in this pass; in the writer's of those that could send
    cdef bint dirty
    cdef bint is_ready

    # `data` is borrowed: valid until `deliver` returns, or as long as `owner` if there is one.
    cdef int receive_data(self, const unsigned char *data, Py_ssize_t size, uint32_t datatype, object owner) except -1
    cdef int receive_adjust(self, uint32_t size) except -1
    cdef int deliver(self) except -1
    cdef int end_pass(self) except -1
    # Lay about `budget` bytes into the writer's chunk.
    cdef int lay(self, Py_ssize_t budget) except -1


cdef class PacketReader:
    # construction
    cdef object _handler
    # the receive buffer: bytes start..end are received and not yet taken
    cdef unsigned char *_data
    cdef Py_ssize_t _capacity
    cdef Py_ssize_t _start
    cdef Py_ssize_t _end
    cdef Py_ssize_t _offered
    cdef uint64_t _idle_since
    cdef bint _grow
    # the packet being received
    cdef OpeningCipher _cipher
    cdef object _decompress
    cdef uint32_t _length
    cdef bint _length_known
    cdef bint _doomed
    cdef uint32_t _checked              # bytes of the doomed packet that were put through the MAC already
    cdef bint _keyed
    cdef bint _parsing
    # the flows, by local channel number, and those that got data in this pass
    cdef list _flows
    cdef list _dirty
    cdef readonly bint held
    cdef public bint identified
    cdef public bint express
    cdef public bint strict
    cdef public uint32_t longest        # packet_length that is taken; a small one keeps the buffer small too
    cdef public uint32_t sequence
    cdef readonly uint64_t packets
    cdef readonly uint64_t bytes
    cdef readonly uint64_t total_packets
    cdef readonly uint64_t total_bytes
    cdef public double now

    cdef int _parse(self) except -1
    cdef int _take_packets(self) except -1
    cdef int _open_chained(self, unsigned char *packet) except -1
    cdef int _take_line(self) except -1
    cdef int _take_length(self, unsigned char *packet, Py_ssize_t available) except -1
    cdef int _dispatch(self, const unsigned char *payload, Py_ssize_t size, object owner, uint32_t sequence) except -1
    cdef int _channel_message(self, const unsigned char *payload, Py_ssize_t size, object owner) except -1
    cdef int _flush(self) except -1
    cdef int _end_pass(self) except -1
    cdef int _end_failed_pass(self) except -1
    cdef int _check_outside(self) except -1
    cdef int _check_held(self) except -1
    cdef int _make_room(self, Py_ssize_t wanted) except -1


cdef class PacketWriter:
    cdef object _wake
    cdef bint _awake
    # the outgoing chunk
    cdef object _chunk
    cdef unsigned char *_base
    cdef Py_ssize_t _capacity
    cdef Py_ssize_t _used
    cdef uint64_t _idle_since
    # a payload on its way into the compressor
    cdef object _scratch
    cdef SealingCipher _cipher
    cdef object _compress
    cdef bint _keyed
    cdef object _ready
    cdef bint _blocked
    cdef public bint paused
    cdef public bint strict
    cdef public uint32_t sequence
    cdef readonly uint64_t packets
    cdef readonly uint64_t bytes
    cdef readonly uint64_t total_packets
    cdef readonly uint64_t total_bytes

    cdef int _want_take(self) except -1
    cdef int _ensure(self, Py_ssize_t size) except -1
    cdef Py_ssize_t _wire_size(self, Py_ssize_t payload_size) noexcept
    cdef int _frame(self, unsigned char *packet, Py_ssize_t payload_size) except -1
    cdef unsigned char *reserve(self, Py_ssize_t payload_size) except NULL
    cdef int commit(self, Py_ssize_t payload_size) except -1
    cdef int _add_ready(self, Flow flow) except -1
