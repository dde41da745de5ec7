"""SFTP messages: what the sinks and pipelines of the other compiled modules use."""

from libc.stdint cimport uint32_t, uint64_t

from ssh_fast._flow cimport ByteSink, ChannelFlow

cdef enum:
    FXP_INIT = 1
    FXP_VERSION = 2
    FXP_READ = 5
    FXP_WRITE = 6
    FXP_STATUS = 101
    FXP_DATA = 103
    FXP_NAME = 104
    FXP_ATTRS = 105
    FXP_EXTENDED_REPLY = 201

    FX_OK = 0
    FX_EOF = 1
    FX_FAILURE = 4
    FX_BAD_MESSAGE = 5

    MESSAGE_HEAD = 9                    # length, type, request id
    DATA_HEAD = 13                      # and the length of the data
    WRITE_HEAD = 25                     # without the handle; a whole READ has the same size
    MAX_HANDLE = 256                    # filexfer-02 section 6.2
    MAX_HEAD = WRITE_HEAD + MAX_HANDLE
    HEAD_SLACK = 1024                   # what a block's message may be longer than the block
    DEFAULT_MAX_MESSAGE = 256 * 1024 + HEAD_SLACK
    MAX_BLOCK = 64 * 1024 * 1024

cdef uint64_t MAX_OFFSET

cdef unsigned char *store_block_request(unsigned char *out, int message_type, uint32_t request_id, bytes handle,
                                        uint64_t offset, uint32_t size) noexcept
cdef bytes new_block_request(int message_type, uint32_t request_id, bytes handle, uint64_t offset, uint32_t size)
cdef bytes new_data_head(uint32_t request_id, uint32_t size)
cdef tuple read_status(const unsigned char *body, Py_ssize_t size)
# Write a fragment of a block at its offset; returns 0 or an errno.
cdef int write_fragment(int fd, const unsigned char *data, Py_ssize_t size, uint64_t offset) noexcept


cdef class MessageAssembler(ByteSink):
    cdef readonly ChannelFlow flow
    cdef readonly bint closed
    cdef public Py_ssize_t max_message
    cdef object _on_message
    cdef bint _began                    # the first message, INIT or VERSION, is through
    cdef int _state
    cdef unsigned char _head[MAX_HEAD]
    cdef Py_ssize_t _have               # bytes in _head
    cdef Py_ssize_t _need               # bytes wanted there before the next decision
    cdef Py_ssize_t _left               # bytes of the message that are not in _head and have not come
    cdef Py_ssize_t _stream_left        # of those, the data of a block
    cdef bytes _body                    # a message being collected, or None if nothing of it has come yet
    cdef Py_ssize_t _body_have

    cdef Py_ssize_t _longest(self) noexcept
    # Decide about a message of which _need bytes, at least type and request id, are in _head.
    cdef int _route(self) except -1
    # Take a fragment of the data of a block, and know of its end.
    cdef int _stream(self, const unsigned char *data, Py_ssize_t size) except -1
    cdef int _stream_ended(self) except -1
    # Take a whole message; `body` is what follows the request id.
    cdef int _complete(self, int message_type, uint32_t request_id, const unsigned char *body,
                       Py_ssize_t size) except -1

    # What _route decides:
    cdef void _need_more(self, Py_ssize_t size, Py_ssize_t message_left) noexcept
    cdef int _collect(self) except -1
    cdef int _begin_stream(self, Py_ssize_t size) except -1
    cdef void _skip(self) noexcept

    cdef int _feed(self, const unsigned char *data, Py_ssize_t size) except -1
    cdef int _check_length(self) except -1
    cdef void _next_message(self) noexcept
    cdef int _end_stream(self) except -1
    cdef int _take_body(self, const unsigned char *data, Py_ssize_t size) except -1
