"""What waits in a flow: the entries and their ring, for the flow and its blocks."""

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    DATA = 0
    MESSAGE = 1
    BLOCK = 2


cdef struct Item:
    # One entry of a flow's queue; which fields count depends on `kind`.
    int kind
    uint32_t datatype
    void *owner                 # owned reference: the object the bytes lie in, or the block's source
    void *header                # owned reference: a block's header, or NULL
    const unsigned char *data   # borrowed from owner
    Py_ssize_t size             # bytes not yet sent; of a block: bytes wanted from the file
    uint64_t offset             # of a block: its place in the file
    uint32_t tag                # of a block: what its source knows it by


cdef class ItemQueue:
    cdef Item *_items           # a ring: `count` entries from _head
    cdef Py_ssize_t _head
    cdef Py_ssize_t _capacity   # a power of 2, or 0
    cdef readonly Py_ssize_t count

    # A pointer into the ring is good until the next push.
    cdef Item *at(self, Py_ssize_t index) noexcept
    cdef Item *push(self) except NULL
    cdef Item *push_first(self) except NULL
    cdef void pop(self) noexcept
    # Give the first entry away, with its references.
    cdef Item take(self) noexcept
    # Drop the entries behind the first `count`, whose references are not owned any more.
    cdef void truncate(self, Py_ssize_t count) noexcept
    cdef int _grow(self) except -1


# Drop the references of an entry that is in no queue.
cdef void clear_item(Item *item) noexcept
