# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, auto_pickle=False
"""SFTP version 3 messages to and from bytes, and a channel's stream cut into them (draft-ietf-secsh-filexfer-02).

    uint32 length | byte type | uint32 request id | ...        the length counts what follows it

What `MessageAssembler` does with the next bytes; the data of blocks is passed on in fragments, as it is received:

    HEAD -> (STREAM -> SKIP | COLLECT | SKIP) -> HEAD           and BROKEN after an error
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EINTR, EINVAL, EIO, errno
from libc.stdint cimport UINT32_MAX, uint32_t, uint64_t
from libc.string cimport memcpy

from ssh_fast._flow cimport ByteSink, ChannelFlow
from ssh_fast._wire cimport Cursor, get_string, get_u32, get_u64, init_cursor, left, load_u32, store_u32, store_u64

from ssh_fast.errors import PacketDecodeError, ProtocolError

cdef extern from "<unistd.h>" nogil:
    Py_ssize_t pwrite(int fd, const void *data, size_t size, long long offset)

cdef enum:
    ATTR_SIZE = 1
    ATTR_UIDGID = 2
    ATTR_PERMISSIONS = 4
    ATTR_ACMODTIME = 8

    HEAD = 0
    STREAM = 1
    COLLECT = 2
    SKIP = 3
    BROKEN = 4

    RELEASE_SIZE = 16 * 1024            # from here on a write is worth giving up the GIL for

cdef uint32_t ATTR_EXTENDED = 0x80000000
cdef uint32_t ATTRS_DEFINED = 0x8000000f
cdef uint64_t MAX_OFFSET = 0x7fffffffffffffff

MAX_MESSAGE = DEFAULT_MAX_MESSAGE
Attrs = tuple


# --- messages ---------------------------------------------------------------------------------------------------------

cdef unsigned char *store_head(unsigned char *out, uint32_t length, unsigned char message_type,
                               uint32_t request_id) noexcept:
    store_u32(out, length)
    out[4] = message_type
    store_u32(out + 5, request_id)

    return out + MESSAGE_HEAD


cdef unsigned char *store_bytes(unsigned char *out, bytes value) noexcept:
    store_u32(out, <uint32_t>PyBytes_GET_SIZE(value))
    memcpy(out + 4, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))

    return out + 4 + PyBytes_GET_SIZE(value)


cdef unsigned char *store_block_request(unsigned char *out, int message_type, uint32_t request_id, bytes handle,
                                        uint64_t offset, uint32_t size) noexcept:
    cdef uint32_t data_size = size if message_type == FXP_WRITE else 0

    out = store_head(out, <uint32_t>(WRITE_HEAD - 4 + PyBytes_GET_SIZE(handle)) + data_size,
                     <unsigned char>message_type, request_id)
    out = store_bytes(out, handle)
    store_u64(out, offset)
    store_u32(out + 8, size)

    return out + 12


cdef bytes new_block_request(int message_type, uint32_t request_id, bytes handle, uint64_t offset, uint32_t size):
    cdef bytes message = PyBytes_FromStringAndSize(NULL, WRITE_HEAD + PyBytes_GET_SIZE(handle))

    store_block_request(<unsigned char *>PyBytes_AS_STRING(message), message_type, request_id, handle, offset, size)

    return message


def encode_message(unsigned char message_type, uint32_t request_id, bytes body not None=b''):
    """Encode any message: length, type, request id (the version for INIT and VERSION), and `body` as it is."""

    cdef bytes message = PyBytes_FromStringAndSize(NULL, MESSAGE_HEAD + PyBytes_GET_SIZE(body))
    cdef unsigned char *out = <unsigned char *>PyBytes_AS_STRING(message)

    out = store_head(out, <uint32_t>(5 + PyBytes_GET_SIZE(body)), message_type, request_id)
    memcpy(out, PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))

    return message


def encode_string_message(unsigned char message_type, uint32_t request_id, bytes value not None):
    """Encode a message with one string: a handle or a path."""

    cdef bytes message = PyBytes_FromStringAndSize(NULL, DATA_HEAD + PyBytes_GET_SIZE(value))
    cdef unsigned char *out = <unsigned char *>PyBytes_AS_STRING(message)

    store_bytes(store_head(out, <uint32_t>(9 + PyBytes_GET_SIZE(value)), message_type, request_id), value)

    return message


def encode_read(uint32_t request_id, bytes handle not None, uint64_t offset, uint32_t size):
    """Encode a READ request."""

    return new_block_request(FXP_READ, request_id, handle, offset, size)


def encode_write_head(uint32_t request_id, bytes handle not None, uint64_t offset, uint32_t size):
    """Encode a WRITE request up to its data, which must be sent behind it."""

    if <uint64_t>size + WRITE_HEAD + PyBytes_GET_SIZE(handle) > UINT32_MAX:
        raise OverflowError(f'Expected a size that a message can hold, got {size}')

    return new_block_request(FXP_WRITE, request_id, handle, offset, size)


cdef bytes new_data_head(uint32_t request_id, uint32_t size):
    cdef bytes message = PyBytes_FromStringAndSize(NULL, DATA_HEAD)
    cdef unsigned char *out = <unsigned char *>PyBytes_AS_STRING(message)

    store_u32(store_head(out, DATA_HEAD - 4 + size, FXP_DATA, request_id), size)

    return message


def encode_data_head(uint32_t request_id, uint32_t size):
    """Encode a DATA reply up to its data, which must be sent behind it."""

    if size > UINT32_MAX - DATA_HEAD:
        raise OverflowError(f'Expected a size that a message can hold, got {size}')

    return new_data_head(request_id, size)


def encode_status(uint32_t request_id, uint32_t code, str message not None='', str lang not None=''):
    """Encode a STATUS reply."""

    # A file name that is not UTF-8 reaches a message as surrogates.
    cdef bytes text = message.encode('utf-8', 'backslashreplace')
    cdef bytes tag = lang.encode()
    cdef bytes reply = PyBytes_FromStringAndSize(NULL, MESSAGE_HEAD + 12 + len(text) + len(tag))
    cdef unsigned char *out = <unsigned char *>PyBytes_AS_STRING(reply)

    out = store_head(out, <uint32_t>(len(reply) - 4), FXP_STATUS, request_id)
    store_u32(out, code)
    store_bytes(store_bytes(out + 4, text), tag)

    return reply


def encode_attrs(attrs not None):
    """Encode ATTRS; the flags say which fields are sent."""

    cdef uint32_t flags, value
    cdef uint64_t size
    cdef unsigned char fixed[32]
    cdef unsigned char *out = fixed + 4
    cdef list parts

    flags, wide, uid, gid, permissions, atime, mtime, extended = attrs

    if flags & ~ATTRS_DEFINED:
        raise ValueError(f'Expected attribute flags of version 3, got {flags:#x}')

    store_u32(fixed, flags)

    if flags & ATTR_SIZE:
        size = wide
        store_u64(out, size)
        out += 8

    for wanted, first, second in ((ATTR_UIDGID, uid, gid), (ATTR_PERMISSIONS, permissions, None),
                                  (ATTR_ACMODTIME, atime, mtime)):
        if flags & <uint32_t>wanted:
            value = first
            store_u32(out, value)
            out += 4

            if <uint32_t>wanted != ATTR_PERMISSIONS:
                value = second
                store_u32(out, value)
                out += 4

    parts = [PyBytes_FromStringAndSize(<char *>fixed, out - fixed)]

    if flags & ATTR_EXTENDED:
        parts.append(len(extended).to_bytes(4, 'big'))

        for pair in extended:
            for text in pair:
                parts.append(len(text).to_bytes(4, 'big'))
                parts.append(text)

    return b''.join(parts)


def encode_names(uint32_t request_id, names not None):
    """Encode a NAME reply of (filename, longname, attrs)."""

    cdef list parts = [len(names).to_bytes(4, 'big')]

    for filename, longname, attrs in names:
        parts.append(len(filename).to_bytes(4, 'big'))
        parts.append(filename)
        parts.append(len(longname).to_bytes(4, 'big'))
        parts.append(longname)
        parts.append(encode_attrs(attrs))

    return encode_message(FXP_NAME, request_id, b''.join(parts))


cdef bytes take_string(Cursor *cursor):
    cdef uint32_t size = 0
    cdef const unsigned char *data = get_string(cursor, &size)

    return PyBytes_FromStringAndSize(<const char *>data, size)


cdef tuple read_status(const unsigned char *body, Py_ssize_t size):
    cdef Cursor cursor
    cdef uint32_t code
    cdef bytes message = b'', lang = b''

    init_cursor(&cursor, body, size)
    code = get_u32(&cursor)

    # Servers of version 2, and some of version 3, send the code alone.
    if left(&cursor):
        message = take_string(&cursor)

        if left(&cursor):
            lang = take_string(&cursor)

    if cursor.bad:
        raise PacketDecodeError(f'Expected a status code, a message and a language, got {size} bytes that end before')

    return code, message.decode('utf-8', 'replace'), lang.decode('utf-8', 'replace')


def decode_status(bytes body not None):
    """Decode a STATUS body into code, message and language; servers that leave out the texts are tolerated."""

    return read_status(<const unsigned char *>PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))


cdef tuple read_attrs(Cursor *cursor):
    cdef uint32_t flags = get_u32(cursor)
    cdef uint32_t count = 0
    cdef list pairs
    cdef object size = None, uid = None, gid = None, permissions = None, atime = None, mtime = None, extended = ()

    if flags & ~ATTRS_DEFINED:
        raise PacketDecodeError(f'Expected attribute flags of version 3, got {flags:#x}')

    if flags & ATTR_SIZE:
        size = get_u64(cursor)

    if flags & ATTR_UIDGID:
        uid = get_u32(cursor)
        gid = get_u32(cursor)

    if flags & ATTR_PERMISSIONS:
        permissions = get_u32(cursor)

    if flags & ATTR_ACMODTIME:
        atime = get_u32(cursor)
        mtime = get_u32(cursor)

    if flags & ATTR_EXTENDED:
        count = get_u32(cursor)

        if count > left(cursor) // 8:
            raise PacketDecodeError(f'Expected {count} extended attributes, got {left(cursor)} bytes')

        pairs = []

        while count and not cursor.bad:
            name = take_string(cursor)
            pairs.append((name, take_string(cursor)))
            count -= 1

        extended = tuple(pairs)

    if cursor.bad:
        raise PacketDecodeError(f'Expected attributes with the flags {flags:#x}, got a message that ends before')

    return flags, size, uid, gid, permissions, atime, mtime, extended


def decode_attrs(bytes body not None, Py_ssize_t pos=0):
    """Decode ATTRS at `pos`; returns them and the position behind."""

    cdef Cursor cursor
    cdef const unsigned char *start = <const unsigned char *>PyBytes_AS_STRING(body)

    if pos < 0 or pos > PyBytes_GET_SIZE(body):
        raise PacketDecodeError(f'Expected attributes at {pos}, got {PyBytes_GET_SIZE(body)} bytes')

    init_cursor(&cursor, start + pos, PyBytes_GET_SIZE(body) - pos)
    attrs = read_attrs(&cursor)

    return attrs, cursor.pos - start


def decode_names(bytes body not None):
    """Decode a NAME body into (filename, longname, attrs)."""

    cdef Cursor cursor
    cdef uint32_t count
    cdef list names = []

    init_cursor(&cursor, <const unsigned char *>PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
    count = get_u32(&cursor)

    if cursor.bad or count > left(&cursor) // 12:
        raise PacketDecodeError(f'Expected {count} names, got {left(&cursor)} bytes')

    while count:
        filename = take_string(&cursor)
        longname = take_string(&cursor)
        names.append((filename, longname, read_attrs(&cursor)))
        count -= 1

    return names


# --- the stream -------------------------------------------------------------------------------------------------------

cdef int write_all(int fd, const unsigned char *data, Py_ssize_t size, uint64_t offset) noexcept nogil:
    """Write everything at an offset; returns 0 or an errno."""

    cdef Py_ssize_t wrote

    if offset > MAX_OFFSET - <uint64_t>size:
        return EINVAL

    while size:
        wrote = pwrite(fd, data, size, <long long>offset)

        if wrote > 0:
            data += wrote
            size -= wrote
            offset += <uint64_t>wrote
        elif wrote == 0:
            return EIO
        elif errno != EINTR:
            return errno

    return 0


cdef int write_fragment(int fd, const unsigned char *data, Py_ssize_t size, uint64_t offset) noexcept:
    cdef int err

    if size < RELEASE_SIZE:
        return write_all(fd, data, size, offset)

    # The reader's buffer stays in place while its parse is under way, so the pointer is good without the GIL.
    with nogil:
        err = write_all(fd, data, size, offset)

    return err


cdef class MessageAssembler(ByteSink):
    """Cuts the bytes of a channel into SFTP messages; what each message means is its subclasses' business."""

    def __cinit__(self, ChannelFlow flow not None, on_message not None, *args, **kwargs):
        self.flow = flow
        self._on_message = on_message
        self._need = 4

    cdef Py_ssize_t _longest(self) noexcept:
        return self.max_message

    cdef int _route(self) except -1:
        return 0

    cdef int _stream(self, const unsigned char *data, Py_ssize_t size) except -1:
        return 0

    cdef int _stream_ended(self) except -1:
        return 0

    cdef int _complete(self, int message_type, uint32_t request_id, const unsigned char *body,
                       Py_ssize_t size) except -1:
        return 0

    cdef int feed(self, const unsigned char *data, Py_ssize_t size) except -1:
        # A callback may close the flow, which then lets go of its sink.
        cdef MessageAssembler keep = self

        if self._state == BROKEN:
            raise ProtocolError('Expected no SFTP data after a broken message')

        try:
            keep._feed(data, size)
        except BaseException:
            self._state = BROKEN
            self._body = None
            raise

        return 0

    cdef int _feed(self, const unsigned char *data, Py_ssize_t size) except -1:
        cdef Py_ssize_t part

        while size and not self.closed:
            if self._state == HEAD:
                part = min(size, self._need - self._have)
                memcpy(self._head + self._have, data, part)
                self._have += part

                if self._have == self._need:
                    if self._need == 4:
                        self._check_length()
                    else:
                        self._route()
            elif self._state == STREAM:
                part = min(size, self._stream_left)
                self._stream_left -= part
                self._left -= part
                self._stream(data, part)

                if not self._stream_left:
                    self._end_stream()
            elif self._state == COLLECT:
                part = min(size, self._left)
                self._take_body(data, part)
            else:
                part = min(size, self._left)
                self._left -= part

                if not self._left:
                    self._next_message()

            data += part
            size -= part

        return 0

    cdef int _check_length(self) except -1:
        cdef uint32_t length = load_u32(self._head)

        if length < 5 or length > <uint64_t>self._longest():
            raise ProtocolError(f'Expected an SFTP message length of 5 to {self._longest()}, got {length}')

        self._need_more(MESSAGE_HEAD - 4, length)

        return 0

    cdef void _need_more(self, Py_ssize_t size, Py_ssize_t message_left) noexcept:
        self._need += size
        self._left = message_left - size

    cdef void _next_message(self) noexcept:
        self._state = HEAD
        self._have = 0
        self._need = 4

    cdef void _skip(self) noexcept:
        if self._left:
            self._state = SKIP
        else:
            self._next_message()

    cdef int _begin_stream(self, Py_ssize_t size) except -1:
        self._state = STREAM
        self._stream_left = size

        return 0 if size else self._end_stream()

    cdef int _end_stream(self) except -1:
        self._skip()

        return self._stream_ended()

    cdef int _collect(self) except -1:
        """Take the message as a whole; what lies in _head behind the request id belongs to it."""

        cdef Py_ssize_t begun = self._have - MESSAGE_HEAD

        self._state = COLLECT
        self._body_have = 0

        if begun:
            self._left += begun
            self._body = PyBytes_FromStringAndSize(NULL, self._left)

            return self._take_body(self._head + MESSAGE_HEAD, begun)

        return 0 if self._left else self._take_body(self._head, 0)

    cdef int _take_body(self, const unsigned char *data, Py_ssize_t size) except -1:
        cdef bytes body
        cdef int message_type = self._head[4]
        cdef uint32_t request_id = load_u32(self._head + 5)

        if self._body is None:
            if size == self._left:
                self._next_message()

                return self._complete(message_type, request_id, data, size)

            self._body = PyBytes_FromStringAndSize(NULL, self._left)

        memcpy(PyBytes_AS_STRING(self._body) + self._body_have, data, size)
        self._body_have += size
        self._left -= size

        if not self._left:
            body, self._body = self._body, None
            self._next_message()
            self._complete(message_type, request_id, <const unsigned char *>PyBytes_AS_STRING(body),
                           PyBytes_GET_SIZE(body))

        return 0
