# cython: language_level=3
"""The ciphers' C interface, with each packet laid against a page that must not be touched."""

from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE, mmap, mprotect, munmap

from ssh_fast._cipher_modes cimport OpeningCipher, SealingCipher

cdef size_t PAGE = 4096


cdef class GuardedMemory:
    """Bytes whose neighbour is a forbidden page: behind them, or in front of them."""

    cdef unsigned char *mapping
    cdef unsigned char *data
    cdef size_t mapped

    def __cinit__(self, size_t size, bint guard_behind):
        cdef size_t body = (size + PAGE - 1) // PAGE * PAGE

        self.mapped = body + 2 * PAGE
        self.mapping = <unsigned char *>mmap(NULL, self.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)

        if self.mapping == MAP_FAILED:
            raise MemoryError

        self.data = self.mapping + PAGE + (body - size if guard_behind else 0)

        if mprotect(self.mapping, PAGE, PROT_NONE) or mprotect(self.mapping + PAGE + body, PAGE, PROT_NONE):
            raise OSError

    def __dealloc__(self):
        munmap(self.mapping, self.mapped)


def seal(SealingCipher cipher, uint32_t seq, bytes packet, bint guard_behind=True):
    """Seal a packet; return the exception or None, and what stands in its memory."""

    cdef size_t size = len(packet) + cipher.tag_size
    cdef GuardedMemory memory = GuardedMemory(size, guard_behind)

    memcpy(memory.data, <const unsigned char *>packet, len(packet))
    memset(memory.data + len(packet), 0xee, cipher.tag_size)

    try:
        cipher.seal(seq, memory.data, len(packet) - 4)
    except Exception as exc:
        return exc, memory.data[:size]

    return None, memory.data[:size]


def open(OpeningCipher cipher, uint32_t seq, bytes sealed, bint guard_behind=True):
    """Open a packet, taking its length from its size; return the exception or None, and what stands in its memory."""

    cdef size_t size = len(sealed)
    cdef GuardedMemory memory = GuardedMemory(size, guard_behind)
    cdef uint32_t length = 0

    memcpy(memory.data, <const unsigned char *>sealed, size)

    try:
        cipher.open_length(seq, memory.data, &length)
        cipher.open(seq, memory.data, <uint32_t>(size - 4 - cipher.tag_size))
    except Exception as exc:
        return exc, memory.data[:size]

    return None, memory.data[:size]


def open_length(OpeningCipher cipher, uint32_t seq, bytes head, bint guard_behind=True):
    """Decrypt a packet length from exactly the head."""

    cdef GuardedMemory memory = GuardedMemory(len(head), guard_behind)
    cdef uint32_t length = 0

    memcpy(memory.data, <const unsigned char *>head, len(head))
    cipher.open_length(seq, memory.data, &length)

    return length
