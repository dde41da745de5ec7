# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The data path of a channel that carries packets: a message for each, which are neither joined nor cut."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from ssh_fast._flow cimport ChannelFlow
from ssh_fast._queue cimport MESSAGE, Item
from ssh_fast._wire cimport store_u32

cdef enum:
    MSG_CHANNEL_DATA = 94
    DATA_HEADER = 9                     # message number, recipient channel, length of the data
    MAX_KEPT_SEGMENTS = 1024


cdef class DatagramFlow(ChannelFlow):
    """A channel's data path that keeps packets whole: what is sent at once is received at once.

    `overhead` is what the peer takes of the window for each packet beside its bytes: OpenSSH counts 4.
    """

    cdef public uint32_t overhead

    @property
    def max_send_size(self):
        """The largest packet, in bytes, that the peer takes."""

        return self._max_send_packet

    cdef bint _can_send(self) noexcept:
        cdef Item *item

        if not self._opened or self._closed or not self._queue.count:
            return False

        item = self._queue.at(0)

        return item.kind == MESSAGE or <uint64_t>item.size + self.overhead <= self._send_left

    cdef Py_ssize_t _lay_data(self) except -1:
        """Lay the next packet."""

        cdef Item *item = self._queue.at(0)
        cdef Py_ssize_t size = item.size
        cdef unsigned char *payload = self._writer.reserve(DATA_HEADER + size)

        payload[0] = MSG_CHANNEL_DATA
        store_u32(payload + 1, self.remote_id)
        store_u32(payload + 5, <uint32_t>size)
        memcpy(payload + DATA_HEADER, item.data, size)
        self._queue.pop()
        self._send_left -= <uint64_t>size + self.overhead
        self.queued -= <uint64_t>size
        self._writer.commit(DATA_HEADER + size)

        return size

    cdef int deliver(self) except -1:
        """Hand over each packet; the receive buffer may move afterwards."""

        cdef Py_ssize_t index

        if not self._segment_count:
            return 0

        packets = []

        try:
            for index in range(self._segment_count):
                data = PyBytes_FromStringAndSize(<const char *>self._segments[index].data, self._segments[index].size)
                packets.append((data, self._segments[index].datatype))
        finally:
            self._segment_count = 0

            if self._segment_capacity > MAX_KEPT_SEGMENTS:
                free(self._segments)
                self._segments = NULL
                self._segment_capacity = 0

        for data, datatype in packets:
            self._hand_over(data, datatype)

        return 0
