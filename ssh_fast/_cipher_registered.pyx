# cython: language_level=3
"""Packet ciphers with a part that is written in Python: an algorithm registered from outside, or two of them.

They keep the layout of `_cipher_modes`. Whatever such a part raises or gives wrongly ends the connection: a packet is
handed on only if its tag was compared here, in constant time, or its AEAD's `open` returned.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from ssh_fast._cipher_modes cimport OpeningCipher, SealingCipher, fail_mac
from ssh_fast._wire cimport load_u32, store_u32

from hmac import compare_digest

from ssh_fast.errors import ProtocolError

cdef enum:
    LENGTH_SIZE = 4
    MAX_LENGTH = 256 * 1024


cdef int check_length(uint32_t length, int block, bint apart) except -1:
    cdef uint32_t aligned = length if apart else length + LENGTH_SIZE

    if length > MAX_LENGTH or aligned < <uint32_t>block or aligned % <uint32_t>block:
        raise ProtocolError(f'Expected a packet_length that fits blocks of {block}, at most {MAX_LENGTH}, got {length}')

    return 0


cdef object call(object part, tuple arguments, str what):
    """Call a part that was registered; what it raises is the end of the connection."""

    try:
        return part(*arguments)
    except Exception as exc:
        raise ProtocolError(f'Expected a registered {what} to work, got {type(exc).__name__}') from exc


cdef bytes take(const unsigned char *data, Py_ssize_t size):
    return PyBytes_FromStringAndSize(<const char *>data, size)


cdef int lay(unsigned char *out, object result, Py_ssize_t size, str what) except -1:
    """Lay what the Python part gave, if it is as long as it must be."""

    if not isinstance(result, bytes) or PyBytes_GET_SIZE(result) != size:
        got = f'{len(result)}' if isinstance(result, bytes) else type(result).__name__
        raise ProtocolError(f'Expected {size} bytes from a registered {what}, got {got}')

    memcpy(out, PyBytes_AS_STRING(result), size)

    return 0


cdef int check_tag(object tag, uint32_t seq, bytes packet, bytes received) except -1:
    expected = call(tag, (seq, packet), 'MAC')

    if not isinstance(expected, bytes) or len(expected) < len(received):
        raise ProtocolError(f'Expected {len(received)} bytes from a registered MAC, got {expected!r:.20}')

    if not compare_digest(expected, received):
        fail_mac(seq)

    return 0


@cython.final
cdef class RegisteredMacThenStreamOpening(OpeningCipher):
    """E(length | rest) | MAC(seq, length | rest)."""

    cdef object crypt
    cdef object tag

    def __cinit__(self, crypt, tag, int block_size, int tag_size):
        self.crypt, self.tag = crypt, tag
        self.block_size = self.head_size = block_size
        self.tag_size = tag_size
        # Whatever kind of cipher it is: as careful as for CBC.
        self.conceals_length = self.conceals_tag = True

    cdef int open_length(self, uint32_t seq, unsigned char *packet, uint32_t *length) except -1:
        lay(packet, call(self.crypt, (take(packet, self.block_size),), 'cipher'), self.block_size, 'cipher')
        length[0] = load_u32(packet)

        return 0

    cdef int open(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1:
        cdef Py_ssize_t size = LENGTH_SIZE + <Py_ssize_t>length
        cdef Py_ssize_t block = self.block_size

        if length > MAX_LENGTH or size < block or size % block:
            return fail_mac(seq)

        if size > block:
            crypted = call(self.crypt, (take(packet + block, size - block),), 'cipher')
            lay(packet + block, crypted, size - block, 'cipher')

        return check_tag(self.tag, seq, take(packet, size), take(packet + size, self.tag_size))

    cdef int discard(self, uint32_t seq, unsigned char *packet, uint32_t size) except -1:
        call(self.tag, (seq, take(packet, size)), 'MAC')

        return 0


@cython.final
cdef class RegisteredStreamThenMacOpening(OpeningCipher):
    """length | E(rest) | MAC(seq, length | E(rest))."""

    cdef object crypt
    cdef object tag

    def __cinit__(self, crypt, tag, int block_size, int tag_size):
        self.crypt, self.tag = crypt, tag
        self.block_size = block_size
        self.tag_size = tag_size
        self.length_apart = True

    cdef int open(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1:
        check_length(length, self.block_size, True)

        cdef Py_ssize_t size = LENGTH_SIZE + <Py_ssize_t>length

        check_tag(self.tag, seq, take(packet, size), take(packet + size, self.tag_size))

        crypted = call(self.crypt, (take(packet + LENGTH_SIZE, length),), 'cipher')

        return lay(packet + LENGTH_SIZE, crypted, length, 'cipher')


@cython.final
cdef class RegisteredAeadOpening(OpeningCipher):
    """length | E(rest) | tag, and the length is the additional data."""

    cdef object opens

    def __cinit__(self, aead, int block_size, int tag_size):
        self.opens = aead.open
        self.block_size = block_size
        self.tag_size = tag_size
        self.length_apart = True

    cdef int open(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1:
        check_length(length, self.block_size, True)

        cdef unsigned char *body = packet + LENGTH_SIZE

        try:
            opened = self.opens(seq, take(packet, LENGTH_SIZE), take(body, <Py_ssize_t>length + self.tag_size))
        except Exception:
            opened = None

        if opened is None:
            return fail_mac(seq)

        return lay(body, opened, length, 'cipher')


@cython.final
cdef class RegisteredMacThenStreamSealing(SealingCipher):
    """E(length | rest) | MAC(seq, length | rest)."""

    cdef object crypt
    cdef object tag

    def __cinit__(self, crypt, tag, int block_size, int tag_size):
        self.crypt, self.tag = crypt, tag
        self.block_size = block_size
        self.tag_size = tag_size

    cdef int seal(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1:
        check_length(length, self.block_size, False)
        store_u32(packet, length)

        cdef Py_ssize_t size = LENGTH_SIZE + <Py_ssize_t>length
        cdef bytes plain = take(packet, size)

        lay(packet + size, call(self.tag, (seq, plain), 'MAC'), self.tag_size, 'MAC')

        return lay(packet, call(self.crypt, (plain,), 'cipher'), size, 'cipher')


@cython.final
cdef class RegisteredStreamThenMacSealing(SealingCipher):
    """length | E(rest) | MAC(seq, length | E(rest))."""

    cdef object crypt
    cdef object tag

    def __cinit__(self, crypt, tag, int block_size, int tag_size):
        self.crypt, self.tag = crypt, tag
        self.block_size = block_size
        self.tag_size = tag_size
        self.length_apart = True

    cdef int seal(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1:
        check_length(length, self.block_size, True)
        store_u32(packet, length)

        cdef Py_ssize_t size = LENGTH_SIZE + <Py_ssize_t>length

        lay(packet + LENGTH_SIZE, call(self.crypt, (take(packet + LENGTH_SIZE, length),), 'cipher'), length, 'cipher')

        return lay(packet + size, call(self.tag, (seq, take(packet, size)), 'MAC'), self.tag_size, 'MAC')


@cython.final
cdef class RegisteredAeadSealing(SealingCipher):
    """length | E(rest) | tag, and the length is the additional data."""

    cdef object seals

    def __cinit__(self, aead, int block_size, int tag_size):
        self.seals = aead.seal
        self.block_size = block_size
        self.tag_size = tag_size
        self.length_apart = True

    cdef int seal(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1:
        check_length(length, self.block_size, True)
        store_u32(packet, length)

        sealed = call(self.seals, (seq, take(packet, LENGTH_SIZE), take(packet + LENGTH_SIZE, length)), 'cipher')

        return lay(packet + LENGTH_SIZE, sealed, <Py_ssize_t>length + self.tag_size, 'cipher')
