# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, auto_pickle=False
"""The server's side of an SFTP channel: requests cut from the stream, READ and WRITE served straight from files."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EINVAL, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy
from posix.stat cimport fstat, struct_stat
from posix.unistd cimport close

from ssh_fast._flow cimport BlockSource, ChannelFlow
from ssh_fast._sftp_messages cimport (
    DATA_HEAD,
    DEFAULT_MAX_MESSAGE,
    FX_BAD_MESSAGE,
    FX_EOF,
    FX_FAILURE,
    FXP_INIT,
    FXP_READ,
    FXP_WRITE,
    HEAD_SLACK,
    MAX_BLOCK,
    MAX_HANDLE,
    MAX_OFFSET,
    MESSAGE_HEAD,
    MessageAssembler,
    new_data_head,
    write_fragment,
)
from ssh_fast._wire cimport load_u32, load_u64, store_u32

import fcntl

from ssh_fast._sftp_messages import (
    MAX_MESSAGE,
    Attrs,
    decode_attrs,
    decode_names,
    decode_status,
    encode_attrs,
    encode_data_head,
    encode_message,
    encode_names,
    encode_read,
    encode_status,
    encode_string_message,
    encode_write_head,
)
from ssh_fast._sftp_pipeline import Pipeline, ReadPipeline, ReplyAssembler, WritePipeline
from ssh_fast.errors import ProtocolError

__all__ = [
    'MAX_MESSAGE',
    'Attrs',
    'Pipeline',
    'ReadPipeline',
    'ReplyAssembler',
    'RequestAssembler',
    'WritePipeline',
    'decode_attrs',
    'decode_names',
    'decode_status',
    'encode_attrs',
    'encode_data_head',
    'encode_message',
    'encode_names',
    'encode_read',
    'encode_status',
    'encode_string_message',
    'encode_write_head',
]

cdef enum:
    MAX_PARKED_BYTES = 64 * 1024 * 1024 # READ data that waits in files; four times what our own client asks for ahead
    MAX_PARKED_ITEMS = 4096
    CREDIT_LIMIT_ITEMS = 1024           # a client with more replies than this to come gets no more room to ask
    LEAST_READ = 4096                   # what a READ above MAX_PARKED_BYTES is cut to
    STATUS_OK_SIZE = 28
    REPLIES_SIZE = 128 * STATUS_OK_SIZE

cdef const char *STATUS_OK = b'\0\0\0\x18\x65\0\0\0\0\0\0\0\0\0\0\0\x07Success\0\0\0\0'


cdef class ServedFile(BlockSource):
    """An open file of the server, by a descriptor of its own: parked blocks keep it after the file was closed."""

    cdef RequestAssembler _assembler
    cdef bytes _handle
    cdef bint _readable
    cdef bint _writable
    cdef bint _append
    cdef uint32_t _parked               # accepted READs that are not read yet

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)

    cdef object block_short(self, uint32_t tag, uint32_t wanted, Py_ssize_t got, int err):
        if got > 0:
            return None

        self._parked -= 1

        return self._assembler._failure(tag, err) if err else encode_status(tag, FX_EOF, 'End of file')

    cdef int block_sent(self, uint32_t tag) except -1:
        self._parked -= 1

        return 0

    cdef int _end(self, uint64_t *end) noexcept:
        """Find where the file ends; returns 0 or an errno."""

        cdef struct_stat info

        if fstat(self.fd, &info):
            return errno

        end[0] = <uint64_t>info.st_size

        return 0


cdef class RequestAssembler(MessageAssembler):
    """The server's sink: READ and WRITE of registered files stay in compiled code, all else goes to `on_message`."""

    cdef public Py_ssize_t max_read
    cdef object _status_for_errno
    cdef dict _files
    cdef ServedFile _latest             # the file of the last request: most requests are for the same one
    cdef ServedFile _written            # the file of the WRITE that is coming in,
    cdef uint64_t _place                # where its next fragment goes,
    cdef int _error                     # and what went wrong with it
    cdef unsigned char _replies[REPLIES_SIZE]
    cdef Py_ssize_t _replies_used       # STATUS OK replies that wait for the end of the pass

    def __cinit__(self, ChannelFlow flow not None, on_message not None, status_for_errno not None,
                  Py_ssize_t max_message=DEFAULT_MAX_MESSAGE, Py_ssize_t max_read=DEFAULT_MAX_MESSAGE - HEAD_SLACK):
        if not 0 < max_read <= MAX_BLOCK:
            raise ValueError(f'max_read must be between 1 and {MAX_BLOCK}, got {max_read}')

        self.max_message = max_message
        self.max_read = max_read
        self._status_for_errno = status_for_errno
        self._files = {}
        flow.credit_limit_items = CREDIT_LIMIT_ITEMS

    def register_file(self, bytes handle not None, int fd, bint readable, bint writable, bint append=False):
        """Serve READ and WRITE of `handle` from a duplicate of `fd`, a file for pread and pwrite."""

        cdef ServedFile served

        if not 0 < len(handle) <= MAX_HANDLE:
            raise ValueError(f'handle must be 1 to {MAX_HANDLE} bytes long, got {len(handle)}')

        if handle in self._files:
            raise ValueError(f'handle {handle.hex()} is registered already')

        served = ServedFile()
        served._assembler = self
        served._handle = handle
        served._readable = readable
        served._writable = writable
        served._append = append
        served.fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)
        self._files[handle] = served

    def unregister_file(self, bytes handle not None):
        """Stop serving `handle`. Accepted READs are still answered from the duplicate."""

        if self._files.pop(handle, None) is self._latest:
            self._latest = None

    def settle_file(self, bytes handle not None):
        """Read what accepted READs of `handle` asked for now, before Python changes the file."""

        served = self._files.get(handle)

        if served is not None:
            self.flow.lay_blocks_now(served)

    cdef bytes _failure(self, uint32_t request_id, int err):
        code, message = self._status_for_errno(err)

        return encode_status(request_id, code, message)

    cdef ServedFile _lookup(self, const unsigned char *handle, Py_ssize_t size):
        cdef ServedFile served = self._latest

        if (served is None or PyBytes_GET_SIZE(served._handle) != size
                or memcmp(PyBytes_AS_STRING(served._handle), handle, size)):
            served = self._files.get(PyBytes_FromStringAndSize(<const char *>handle, size))

            if served is not None:
                self._latest = served

        return served

    cdef int _route(self) except -1:
        cdef int message_type = self._head[4]
        cdef uint32_t handle_size, request_id, size
        cdef uint64_t offset
        cdef unsigned char *rest
        cdef ServedFile served

        if self._began == (message_type == FXP_INIT):
            raise ProtocolError(f'Expected the SFTP message INIT first and once, got type {message_type}')

        if message_type != FXP_READ and message_type != FXP_WRITE:
            return self._collect()

        # What is malformed goes to Python like any other request, which answers with a status.
        if self._need == MESSAGE_HEAD:
            if self._left < 4:
                return self._collect()

            self._need_more(4, self._left)

            return 0

        handle_size = load_u32(self._head + MESSAGE_HEAD)

        if self._need == DATA_HEAD:
            if handle_size > MAX_HANDLE or <Py_ssize_t>handle_size + 12 > self._left:
                return self._collect()

            self._need_more(<Py_ssize_t>handle_size + 12, self._left)

            return 0

        served = self._lookup(self._head + DATA_HEAD, handle_size)

        if served is None or not (served._readable if message_type == FXP_READ else served._writable):
            return self._collect()

        rest = self._head + DATA_HEAD + handle_size
        request_id = load_u32(self._head + 5)
        offset = load_u64(rest)
        size = load_u32(rest + 8)

        if message_type == FXP_READ:
            self._skip()

            return self._read(served, request_id, offset, size)

        if size > <uint64_t>self._left:
            self._flush()
            self.flow.send_bytes(encode_status(request_id, FX_BAD_MESSAGE, f'Expected {size} bytes of data, got '
                                                                           f'{self._left}'))
            self._skip()

            return 0

        if served._parked:
            # READs that were accepted before this WRITE see the file as it was.
            self.flow.lay_blocks_now(served)

        self._written = served
        self._place = offset
        self._error = served._end(&self._place) if served._append else 0

        return self._begin_stream(size)

    cdef int _read(self, ServedFile served, uint32_t request_id, uint64_t offset, uint32_t size) except -1:
        cdef ChannelFlow flow = self.flow
        cdef uint64_t room = LEAST_READ

        self._flush()

        if flow.queued < <uint64_t>MAX_PARKED_BYTES - LEAST_READ:
            room = <uint64_t>MAX_PARKED_BYTES - flow.queued

        size = <uint32_t>min(<uint64_t>size, <uint64_t>self.max_read, room)

        if flow._queue.count >= MAX_PARKED_ITEMS:
            return flow.send_bytes(encode_status(request_id, FX_FAILURE, 'Too many requests are outstanding'))

        if offset > MAX_OFFSET - size:
            return flow.send_bytes(self._failure(request_id, EINVAL))

        if not size:
            return flow.send_bytes(encode_status(request_id, FX_EOF, 'End of file'))

        served._parked += 1

        return flow.send_block(served, new_data_head(request_id, size), offset, size, request_id)

    cdef int _stream(self, const unsigned char *data, Py_ssize_t size) except -1:
        if not self._error:
            self._error = write_fragment(self._written.fd, data, size, self._place)
            self._place += size

        return 0

    cdef int _stream_ended(self) except -1:
        cdef uint32_t request_id = load_u32(self._head + 5)
        cdef unsigned char *out

        self._written = None

        if self._error:
            self._flush()

            return self.flow.send_bytes(self._failure(request_id, self._error))

        if self._replies_used == REPLIES_SIZE:
            self._flush()

        out = self._replies + self._replies_used
        memcpy(out, STATUS_OK, STATUS_OK_SIZE)
        store_u32(out + 5, request_id)
        self._replies_used += STATUS_OK_SIZE

        return 0

    cdef int _flush(self) except -1:
        """Send the waiting replies, ahead of what is sent next."""

        cdef Py_ssize_t size = self._replies_used

        if size and not self.closed:
            self._replies_used = 0
            self.flow.send_bytes(PyBytes_FromStringAndSize(<char *>self._replies, size))

        return 0

    cdef int _complete(self, int message_type, uint32_t request_id, const unsigned char *body,
                       Py_ssize_t size) except -1:
        self._began = True
        self._flush()
        self._on_message(message_type, request_id, PyBytes_FromStringAndSize(<const char *>body, size))

        return 0

    cdef int pass_ended(self) except -1:
        return self._flush()

    cdef int flow_closed(self) except -1:
        self.closed = True
        self._latest = self._written = None
        self._files.clear()

        return 0
