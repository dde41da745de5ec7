"""A channel's data path: what other compiled modules may use of it, and the sinks and sources they put on it."""

from libc.stdint cimport uint32_t, uint64_t

from ssh_fast._packet cimport Flow, PacketReader, PacketWriter
from ssh_fast._queue cimport Item, ItemQueue
from ssh_fast._window_growth cimport WindowGrowth


cdef struct Segment:
    # A run of channel data that still lies in the receive buffer.
    const unsigned char *data
    Py_ssize_t size
    uint32_t datatype


cdef class ByteSink:
    # Takes the CHANNEL_DATA of one flow, in order, as it is opened.

    # `data` is borrowed: valid until feed returns.
    cdef int feed(self, const unsigned char *data, Py_ssize_t size) except -1
    # Called once after each batch of packets in which feed was called.
    cdef int pass_ended(self) except -1
    # The flow is closed; nothing more comes.
    cdef int flow_closed(self) except -1


cdef class BlockSource:
    # A file whose blocks are read when they are laid into packets.

    cdef int fd
    # A block's read gave `got` bytes, fewer than wanted: 0 at the end of the file, -1 with errno `err`.
    # None: send what was read, which only got > 0 allows. bytes: send these in place of the block; empty sends nothing.
    cdef object block_short(self, uint32_t tag, uint32_t wanted, Py_ssize_t got, int err)
    # The block has been read and laid.
    cdef int block_sent(self, uint32_t tag) except -1


cdef class ChannelFlow(Flow):
    cdef PacketReader _reader
    cdef PacketWriter _writer
    cdef object _handler
    cdef ByteSink _sink
    cdef readonly uint32_t remote_id
    # receiving
    cdef uint32_t _receive_left        # what the peer may still send
    cdef uint32_t _max_receive_packet
    cdef uint64_t _consumed            # taken by the consumer and not yet credited
    cdef uint32_t _window              # what the credit tops up to; grows to _max_window
    cdef uint32_t _max_window
    cdef WindowGrowth _growth
    cdef uint32_t _adjust_due
    cdef Segment *_segments
    cdef Py_ssize_t _segment_count
    cdef Py_ssize_t _segment_capacity
    cdef bint _eof_received
    cdef bint _discarding
    cdef bint _sink_fed
    # sending
    cdef uint64_t _send_left           # what we may still send
    cdef uint32_t _max_send_packet
    cdef ItemQueue _queue
    cdef bint _opened
    cdef bint _closed
    cdef bint _paused_sender
    cdef readonly uint64_t queued
    cdef public uint64_t high_water
    cdef public uint64_t low_water
    # more parked items than this hold the credit back: a peer that doesn't take our answers gets no more room to ask
    cdef public Py_ssize_t credit_limit_items

    cdef int send_bytes(self, object data, uint32_t datatype=*) except -1
    cdef int send_block(self, BlockSource source, bytes header, uint64_t offset, uint32_t size,
                        uint32_t tag) except -1
    cdef int drop_blocks(self, BlockSource source) except -1
    cdef int lay_blocks_now(self, BlockSource source) except -1

    cdef int _check_credit(self, uint64_t size) except -1
    cdef int _feed_sink(self, const unsigned char *data, Py_ssize_t size) except -1
    cdef int _fail_sink(self, exc) except -1
    cdef int _hand_over(self, bytes data, uint32_t datatype) except -1
    cdef int _grow(self) except -1
    cdef int _credit(self, uint64_t size) except -1
    cdef bint _can_send(self) noexcept
    cdef int _wake_writer(self) except -1
    cdef Py_ssize_t _lay_data(self) except -1
    cdef Py_ssize_t _lay_block(self, Item *item) except -1
    cdef int _load_block(self) except -1
    cdef bytes _read_block(self, Item item)
    cdef int _put_first(self, bytes data) except -1
    cdef void _fill(self, Item *item, bytes data) noexcept
    cdef int _after_sending(self) except -1
