# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, auto_pickle=False
"""The client's side of an SFTP channel: replies matched to requests, and the block pipelines of bulk transfers.

Replies to the requests of a pipeline never become Python objects: DATA is written to its place as its fragments arrive,
and the blocks of WRITE requests wait in their file until they are laid into packets.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from ssh_fast._flow cimport BlockSource, ChannelFlow
from ssh_fast._sftp_messages cimport (
    DATA_HEAD,
    DEFAULT_MAX_MESSAGE,
    FX_EOF,
    FX_OK,
    FXP_ATTRS,
    FXP_DATA,
    FXP_EXTENDED_REPLY,
    FXP_READ,
    FXP_STATUS,
    FXP_VERSION,
    FXP_WRITE,
    HEAD_SLACK,
    MAX_BLOCK,
    MAX_OFFSET,
    MESSAGE_HEAD,
    WRITE_HEAD,
    MessageAssembler,
    new_block_request,
    read_status,
    store_block_request,
    write_fragment,
)
from ssh_fast._wire cimport load_u32

import os

from ssh_fast.errors import ProtocolError

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **data, Py_ssize_t size) except -1
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size) except NULL
    void Py_XDECREF(PyObject *o)

cdef enum:
    DEPTH_BYTES = 16 * 1024 * 1024      # asked for and not answered: the bandwidth-delay product of 1 Gbit/s and 130 ms
    MIN_REQUESTS = 16
    MAX_REQUESTS = 512
    REQUESTS_CEILING = 65536            # what a user may set
    MAX_TABLE = 1024 * 1024
    FIRST_MEMORY = 64 * 1024 * 1024     # memory is claimed at once up to here, then as it fills

    FREE = 0
    ASKED_BY_PYTHON = 1
    ASKED_BY_PIPELINE = 2

cdef struct Request:
    int kind
    bint sent                           # false while the block of a WRITE waits in its file
    uint32_t id
    uint32_t size
    uint64_t offset
    void *owner                         # borrowed: a pipeline is kept in the assembler's list while requests are out

cdef struct Range:
    uint64_t offset
    uint32_t size


cdef class ReplyAssembler(MessageAssembler):
    """The client's sink: replies to pipelines stay in compiled code, all others go to `on_message`."""

    cdef Request *_requests             # by id modulo the capacity; ids are given so that no two fall together
    cdef uint32_t _capacity
    cdef readonly uint32_t outstanding
    cdef uint32_t _next_id
    cdef uint32_t _largest_block        # of the pipelines under way
    cdef list _pipelines
    cdef ReadPipeline _receiver         # of the DATA that is coming in,
    cdef Request _received              # what was asked for,
    cdef uint32_t _received_size        # and how much of it this reply holds

    def __cinit__(self, ChannelFlow flow not None, on_message not None, Py_ssize_t max_message=DEFAULT_MAX_MESSAGE):
        self.max_message = max_message
        self._pipelines = []

    def __dealloc__(self):
        free(self._requests)

    def next_request_id(self):
        """Give the id of a request that Python sends now; one reply with it is expected, and given to `on_message`."""

        return self._ask(NULL, 0, 0)

    cdef uint32_t _ask(self, void *owner, uint64_t offset, uint32_t size) except? 0xffffffff:
        """Note a request that is about to be sent; gives its id."""

        cdef uint32_t mask

        if self.outstanding * 2 >= self._capacity:
            self._grow()

        mask = self._capacity - 1

        while self._requests[self._next_id & mask].kind != FREE:
            self._next_id += 1

        self._requests[self._next_id & mask] = Request(ASKED_BY_PYTHON if owner == NULL else ASKED_BY_PIPELINE,
                                                       False, self._next_id, size, offset, owner)
        self.outstanding += 1
        self._next_id += 1

        return self._next_id - 1

    cdef int _grow(self) except -1:
        cdef uint32_t capacity = self._capacity * 2 if self._capacity else 64, index
        cdef Request *requests

        if capacity > MAX_TABLE:
            raise RuntimeError(f'More than {MAX_TABLE // 2} SFTP requests are outstanding')

        requests = <Request *>calloc(capacity, sizeof(Request))

        if requests == NULL:
            raise MemoryError()

        for index in range(self._capacity):
            if self._requests[index].kind != FREE:
                requests[self._requests[index].id & (capacity - 1)] = self._requests[index]

        free(self._requests)
        self._requests = requests
        self._capacity = capacity

        return 0

    cdef Request *_find(self, uint32_t request_id) except NULL:
        cdef Request *request = NULL

        if self._capacity:
            request = &self._requests[request_id & (self._capacity - 1)]

        if request == NULL or request.kind == FREE or request.id != request_id:
            raise ProtocolError(f'Expected a reply to an outstanding SFTP request, got request id {request_id}')

        return request

    cdef Request _answered(self, Request *request) noexcept:
        cdef Request copy = request[0]

        request.kind = FREE
        self.outstanding -= 1

        return copy

    cdef Py_ssize_t _longest(self) noexcept:
        return max(self.max_message, <Py_ssize_t>self._largest_block + HEAD_SLACK)

    cdef int _route(self) except -1:
        cdef int message_type = self._head[4]
        cdef Request *request

        if not self._began:
            if message_type != FXP_VERSION:
                raise ProtocolError(f'Expected the SFTP message VERSION first, got type {message_type}')

            return self._collect()

        if not FXP_STATUS <= message_type <= FXP_ATTRS and message_type != FXP_EXTENDED_REPLY:
            raise ProtocolError(f'Expected an SFTP reply, got type {message_type}')

        request = self._find(load_u32(self._head + 5))

        if request.kind == ASKED_BY_PYTHON or message_type == FXP_STATUS:
            return self._collect()

        if message_type != FXP_DATA or not (<Pipeline>request.owner)._reads:
            raise ProtocolError(f'Expected a reply that fits the SFTP request, got type {message_type}')

        if self._need == MESSAGE_HEAD:
            if self._left < 4:
                raise ProtocolError(f'Expected the length of the SFTP data, got {self._left} bytes')

            self._need_more(4, self._left)

            return 0

        self._received_size = load_u32(self._head + MESSAGE_HEAD)

        if self._received_size > request.size or self._received_size > <uint64_t>self._left:
            raise ProtocolError(f'Expected at most {request.size} bytes of SFTP data in a message with {self._left} '
                                f'bytes left, got {self._received_size}')

        self._receiver = <ReadPipeline>request.owner
        self._received = self._answered(request)

        return self._begin_stream(self._received_size)

    cdef int _stream(self, const unsigned char *data, Py_ssize_t size) except -1:
        cdef uint64_t taken = self._received_size - self._stream_left - size

        return self._receiver._take(self._received.offset + taken, data, size)

    cdef int _stream_ended(self) except -1:
        cdef ReadPipeline receiver = self._receiver

        self._receiver = None

        return receiver._taken(&self._received, self._received_size)

    cdef int _complete(self, int message_type, uint32_t request_id, const unsigned char *body,
                       Py_ssize_t size) except -1:
        cdef Request request

        if message_type != FXP_VERSION:
            request = self._answered(self._find(request_id))

            if request.kind == ASKED_BY_PIPELINE:
                return (<Pipeline>request.owner)._answer(&request, body, size)

        self._began = True
        self._on_message(message_type, request_id, PyBytes_FromStringAndSize(<const char *>body, size))

        return 0

    cdef int pass_ended(self) except -1:
        cdef Pipeline pipeline

        for pipeline in list(self._pipelines):
            pipeline._advance()

        return 0

    cdef int flow_closed(self) except -1:
        cdef Pipeline pipeline
        cdef uint32_t index

        self.closed = True

        for pipeline in list(self._pipelines):
            pipeline._lose()

        self.outstanding = 0
        self._receiver = None

        for index in range(self._capacity):
            self._requests[index].kind = FREE

        return 0

    cdef int _add(self, Pipeline pipeline) except -1:
        self._pipelines.append(pipeline)
        self._largest_block = max(self._largest_block, pipeline._block)

        return 0

    cdef int _remove(self, Pipeline pipeline) except -1:
        if pipeline in self._pipelines:
            self._pipelines.remove(pipeline)

        self._largest_block = max([(<Pipeline>other)._block for other in self._pipelines], default=0)

        return 0

    cdef uint64_t _forget_unsent(self, Pipeline pipeline) noexcept:
        """Forget the requests of a pipeline whose blocks were dropped before they were read; gives their number."""

        cdef uint32_t index
        cdef uint64_t count = 0
        cdef Request *request

        for index in range(self._capacity):
            request = &self._requests[index]

            if request.kind == ASKED_BY_PIPELINE and request.owner == <void *>pipeline and not request.sent:
                self._answered(request)
                count += 1

        return count


cdef class Pipeline(BlockSource):
    """What reading and writing pipelines share: the range, what is outstanding, and how it ended."""

    cdef ReplyAssembler _assembler
    cdef bytes _handle
    cdef object _done
    cdef object _progress
    cdef bint _reads
    cdef bint _started
    cdef bint _stopped                  # send no more requests
    cdef uint32_t _block
    cdef uint64_t _first                # the range in the remote file: where it begins,
    cdef uint64_t _next                 # the first byte not asked for yet,
    cdef uint64_t _end                  # and where it ends
    cdef uint64_t _eof                  # the lowest offset at which the file was found to end
    cdef uint64_t _fd_first             # the place of _first in the local file
    cdef uint64_t _step
    cdef uint64_t _reported
    cdef bint _unbounded                # the size was not given: the end of the file ends the range
    cdef readonly uint64_t bytes_done
    cdef readonly uint32_t outstanding
    cdef readonly uint32_t max_requests
    cdef readonly bint finished
    cdef readonly bint cancelled
    cdef readonly bint closed
    cdef readonly tuple status
    cdef readonly object os_error
    cdef readonly object progress_error
    cdef readonly object failed_offset

    cdef int _set_up(self, ReplyAssembler assembler, bytes handle, object done, object size, Py_ssize_t block_size,
                     object max_requests, object offset, int fd, object fd_offset, object progress,
                     object progress_step) except -1:
        if not 0 < block_size <= MAX_BLOCK:
            raise ValueError(f'block_size must be between 1 and {MAX_BLOCK}, got {block_size}')

        if max_requests is None:
            max_requests = min(max(DEPTH_BYTES // block_size, MIN_REQUESTS), MAX_REQUESTS)
        elif not 0 < max_requests <= REQUESTS_CEILING:
            raise ValueError(f'max_requests must be between 1 and {REQUESTS_CEILING}, got {max_requests}')

        if fd_offset is None:
            fd_offset = offset

        if size is not None and size < 0:
            raise ValueError(f'size must not be negative, got {size}')

        for name, value in (('offset', offset), ('fd_offset', fd_offset)):
            if not 0 <= value <= MAX_OFFSET - (size or 0):
                raise ValueError(f'{name} must be between 0 and 2^63 - 1 less the size {size}, got {value}')

        self._assembler = assembler
        self._handle = handle
        self._done = done
        self._progress = progress
        self._step = max(progress_step, 1)
        self._block = block_size
        self.max_requests = max_requests
        self.fd = fd
        self._first = self._next = offset
        self._fd_first = fd_offset
        self._unbounded = size is None
        self._end = <uint64_t>MAX_OFFSET if self._unbounded else self._first + <uint64_t>size
        self._eof = UINT64_MAX

        return 0

    @property
    def eof(self):
        """Whether the file ended before the size that was given, or, with none given, ended."""

        return self._eof != UINT64_MAX

    @property
    def complete(self):
        """Whether all is transferred, without an error."""

        return (self.finished and self.failed_offset is None and not self.cancelled and not self.closed
                and self.progress_error is None
                and (self.eof if self._unbounded else self.bytes_done == self._end - self._first))

    def start(self):
        """Send the first requests."""

        if self._started:
            raise RuntimeError('A pipeline is started once')

        self._started = True

        if self._assembler.closed:
            self._lose()
        else:
            self._assembler._add(self)
            self._advance()

    def cancel(self):
        """Send no further request and drop what still comes; the local file is not touched any more."""

        if not self.finished:
            self._stop(UINT64_MAX)
            self._started = self.cancelled = True
            self._advance_stopped()

    # Send what may be sent now.
    cdef int _fill(self) except -1:
        return 0

    # Take the STATUS for one request.
    cdef int _answer(self, Request *request, const unsigned char *body, Py_ssize_t size) except -1:
        return 0

    # Take back what is parked and has not been begun.
    cdef int _take_back(self) except -1:
        return 0

    cdef int _fail(self, uint64_t offset, tuple status, int err) except -1:
        """Keep the first failure, and ask for nothing more."""

        self._stop(offset)

        if self.failed_offset is None:
            self.failed_offset = offset
            self.status = status

            if err:
                self.os_error = OSError(err, os.strerror(err))

        return 0

    cdef int _stop(self, uint64_t missing) except -1:
        """Ask for nothing more, and take nothing any more; `missing` is an offset that has failed."""

        self._stopped = True

        return 0

    cdef int _advance(self) except -1:
        """Go on after some replies: report, refill, and end when nothing is outstanding."""

        if self.finished:
            return 0

        if self._progress is not None and self.bytes_done >= self._reported + self._step:
            self._report()

        if not self._stopped:
            self._fill()

        if self._stopped:
            return self._advance_stopped()

        return 0 if self.outstanding else self._finish()

    cdef int _advance_stopped(self) except -1:
        self._stopped = True
        self._take_back()

        return 0 if self.outstanding else self._finish()

    cdef int _report(self) except -1:
        self._reported = self.bytes_done

        try:
            self._progress(self.bytes_done)
        except Exception as exc:
            self.progress_error = exc
            self._progress = None
            self._stop(UINT64_MAX)

        return 0

    cdef int _lose(self) except -1:
        """The channel is gone."""

        if not self.finished:
            self._stop(UINT64_MAX)
            self.closed = True
            self.outstanding = 0
            self._finish()

        return 0

    cdef int _finish(self) except -1:
        if self.finished:
            return 0

        self.finished = self._stopped = True
        self._assembler._remove(self)

        if self._progress is not None and self._reported < self.bytes_done and not self.cancelled:
            self._report()

        done, self._done, self._progress = self._done, None, None
        done(self)

        return 0


cdef class ReadPipeline(Pipeline):
    """Reads a range of a remote file into a local file, or into memory."""

    cdef readonly uint64_t bytes_whole
    cdef Range *_again                  # what short replies left out
    cdef uint32_t _again_count
    cdef uint32_t _depth                # requests that may be out: all, or doubling from 2 while the end is not known
    cdef PyObject *_memory              # the bytes object being filled; owned here alone, so that it can be resized
    cdef uint64_t _memory_size

    def __cinit__(self, ReplyAssembler assembler not None, bytes handle not None, *, done, size, block_size,
                  max_requests=None, offset=0, int fd=-1, fd_offset=None, progress=None, progress_step=0):
        self._set_up(assembler, handle, done, size, block_size, max_requests, offset, fd, fd_offset, progress,
                     progress_step)
        self._reads = True
        self._depth = min(2, self.max_requests) if self._unbounded else self.max_requests
        self._again = <Range *>malloc(self.max_requests * sizeof(Range))

        if self._again == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self._again)
        Py_XDECREF(self._memory)

    def take_result(self):
        """Give away what was read into memory, `bytes_done` bytes."""

        cdef object result

        if (not self.finished or self.fd >= 0 or self.failed_offset is not None or self.cancelled or self.closed
                or self.progress_error is not None or not (self.complete or self.eof)):
            raise RuntimeError('There is no result of a read into memory')

        if self._memory == NULL:
            return b''

        _PyBytes_Resize(&self._memory, <Py_ssize_t>self.bytes_done)
        result = <object>self._memory
        Py_XDECREF(self._memory)
        self._memory = NULL

        return result

    cdef int _fill(self) except -1:
        """Send READ requests, all in one message to the channel."""

        cdef uint32_t room, count, size, index
        cdef uint64_t blocks, offset
        cdef bytes batch
        cdef unsigned char *out

        while self._again_count and self._again[self._again_count - 1].offset >= self._eof:
            self._again_count -= 1

        if self._eof != UINT64_MAX:
            self._next = self._end

        room = self._depth - min(self.outstanding, self._depth)
        blocks = (self._end - self._next + self._block - 1) // self._block
        count = <uint32_t>min(<uint64_t>room, blocks + self._again_count)

        if not count:
            return 0

        batch = PyBytes_FromStringAndSize(NULL, count * (WRITE_HEAD + PyBytes_GET_SIZE(self._handle)))
        out = <unsigned char *>PyBytes_AS_STRING(batch)

        for index in range(count):
            if self._again_count:
                self._again_count -= 1
                offset = self._again[self._again_count].offset
                size = self._again[self._again_count].size
            else:
                offset = self._next
                size = <uint32_t>min(<uint64_t>self._block, self._end - offset)
                self._next += size

            out = store_block_request(out, FXP_READ, self._assembler._ask(<void *>self, offset, size), self._handle,
                                      offset, size)
            self.outstanding += 1

        return self._assembler.flow.send_bytes(batch)

    cdef int _take(self, uint64_t offset, const unsigned char *data, Py_ssize_t size) except -1:
        """Put a fragment of a DATA reply in its place."""

        cdef uint64_t place
        cdef int err

        if self._stopped or offset >= self._eof:
            return 0

        place = offset - self._first

        if self.fd >= 0:
            err = write_fragment(self.fd, data, size, self._fd_first + place)

            if err:
                return self._fail(offset, None, err)
        else:
            self._need_memory(place + size)
            memcpy(PyBytes_AS_STRING(<object>self._memory) + place, data, size)

        self.bytes_done += size

        return 0

    cdef int _taken(self, Request *request, uint32_t size) except -1:
        """A DATA reply is through."""

        self.outstanding -= 1

        if not size:
            self._end_at(request.offset)
        elif size < request.size and not self._stopped:
            self._again[self._again_count] = Range(request.offset + size, request.size - size)
            self._again_count += 1

        self._depth = min(self._depth * 2, self.max_requests)

        return 0

    cdef int _answer(self, Request *request, const unsigned char *body, Py_ssize_t size) except -1:
        cdef tuple status = read_status(body, size)

        self.outstanding -= 1

        if status[0] == FX_OK:
            raise ProtocolError('Expected data or a failure for an SFTP READ, got the status OK')

        if status[0] == FX_EOF:
            self._end_at(request.offset)
        else:
            self._fail(request.offset, status, 0)

        return 0

    cdef void _end_at(self, uint64_t offset) noexcept:
        self._eof = min(self._eof, offset)

    cdef int _stop(self, uint64_t missing) except -1:
        cdef ReplyAssembler assembler = self._assembler
        cdef uint32_t index
        cdef Request *request

        if not self._stopped:
            missing = min(missing, self._next, self._eof)

            if assembler._receiver is self:
                missing = min(missing, assembler._received.offset)

            for index in range(assembler._capacity):
                request = &assembler._requests[index]

                if request.kind == ASKED_BY_PIPELINE and request.owner == <void *>self:
                    missing = min(missing, request.offset)

            for index in range(self._again_count):
                missing = min(missing, self._again[index].offset)

            self.bytes_whole = missing - self._first

        return Pipeline._stop(self, missing)

    cdef int _need_memory(self, uint64_t size) except -1:
        cdef uint64_t whole = self._end - self._first

        if size <= self._memory_size:
            return 0

        if self._unbounded:
            size = max(size, self._memory_size * 2)
        elif whole <= FIRST_MEMORY:
            size = whole
        else:
            size = min(max(size, self._memory_size * 2, <uint64_t>FIRST_MEMORY), whole)

        # Resizing frees what there is if it fails.
        self._memory_size = 0

        if self._memory == NULL:
            self._memory = new_bytes(NULL, <Py_ssize_t>size)
        else:
            _PyBytes_Resize(&self._memory, <Py_ssize_t>size)

        self._memory_size = size

        return 0

    cdef int _finish(self) except -1:
        if not self.finished and self._eof != UINT64_MAX and self.failed_offset is None:
            self.bytes_done = self._eof - self._first

        if not self._stopped:
            self.bytes_whole = self.bytes_done

        return Pipeline._finish(self)


cdef class WritePipeline(Pipeline):
    """Writes a range of a local file, or a buffer, to a remote file."""

    cdef object _data                   # a memoryview, or None: the file `fd`
    cdef uint64_t _most                 # bytes that may be unacknowledged
    cdef uint64_t _unanswered

    def __cinit__(self, ReplyAssembler assembler not None, bytes handle not None, *, done, block_size, data=None,
                  int fd=-1, size=None, max_requests=None, offset=0, fd_offset=None, progress=None, progress_step=0):
        if (data is None) == (fd < 0):
            raise ValueError('Expected either data or fd')

        if data is not None:
            self._data = memoryview(data).cast('B')

            if size is None:
                size = len(self._data)
            elif size != len(self._data):
                raise ValueError(f'size must be that of data, {len(self._data)}, got {size}')
        elif size is None:
            raise ValueError('size is needed with fd')

        self._set_up(assembler, handle, done, size, block_size, max_requests, offset, fd, fd_offset, progress,
                     progress_step)
        self._most = DEPTH_BYTES if max_requests is None else UINT64_MAX

    cdef int _fill(self) except -1:
        cdef uint64_t start
        cdef uint32_t size, request_id
        cdef bytes head
        cdef ChannelFlow flow = self._assembler.flow

        while not self._stopped and self.outstanding < self.max_requests and self._next < self._end:
            size = <uint32_t>min(<uint64_t>self._block, self._end - self._next)

            if self._unanswered and self._unanswered + size > self._most:
                break

            request_id = self._assembler._ask(<void *>self, self._next, size)
            head = new_block_request(FXP_WRITE, request_id, self._handle, self._next, size)
            start = self._next - self._first
            self._next += size
            self._unanswered += size
            self.outstanding += 1

            if self._data is None:
                flow.send_block(self, head, self._fd_first + start, size, request_id)
            else:
                self._assembler._find(request_id).sent = True
                flow.send_bytes(head)
                flow.send_bytes(self._data[start:start + size])

        return 0

    cdef int _answer(self, Request *request, const unsigned char *body, Py_ssize_t size) except -1:
        cdef tuple status

        self.outstanding -= 1
        self._unanswered -= request.size

        if not request.sent:
            raise ProtocolError('Expected no reply to an SFTP WRITE that is not sent yet')

        if size >= 4 and load_u32(body) == FX_OK:
            self.bytes_done += request.size
        else:
            status = read_status(body, size)
            self._fail(request.offset, status, 0)

        return 0

    cdef int block_sent(self, uint32_t tag) except -1:
        if not self.closed:
            self._assembler._find(tag).sent = True

        return 0

    cdef object block_short(self, uint32_t tag, uint32_t wanted, Py_ssize_t got, int err):
        cdef Request *request
        cdef uint64_t offset

        if self.closed:
            return b''

        request = self._assembler._find(tag)
        offset = request.offset
        self._unanswered -= wanted - <uint32_t>max(got, 0)

        if got < 0:
            self._fail(offset, None, err)
        else:
            self._eof = min(self._eof, offset + <uint64_t>got)
            self._stopped = True

        if got > 0:
            request.size = <uint32_t>got

            return None

        self._assembler._answered(request)
        self.outstanding -= 1

        if not self.outstanding:
            self._finish()

        return b''

    cdef int _take_back(self) except -1:
        cdef uint32_t count

        if self._data is None and self.outstanding and not self.closed:
            self._assembler.flow.drop_blocks(self)
            count = self._assembler._forget_unsent(self)
            self.outstanding -= count

        return 0
