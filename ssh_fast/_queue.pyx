# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The ring of what waits to be sent in a flow; each entry owns references to what its bytes lie in."""

from cpython.ref cimport Py_DECREF
from libc.stdlib cimport free, malloc


cdef void clear_item(Item *item) noexcept:
    if item.owner != NULL:
        Py_DECREF(<object>item.owner)

    if item.header != NULL:
        Py_DECREF(<object>item.header)


cdef class ItemQueue:
    """The pieces of data, messages and blocks that wait in a flow, in order."""

    def __dealloc__(self):
        while self.count:
            self.pop()

        free(self._items)

    cdef Item *at(self, Py_ssize_t index) noexcept:
        return &self._items[(self._head + index) & (self._capacity - 1)]

    cdef Item *push(self) except NULL:
        """Add an empty entry at the tail."""

        cdef Item *item

        if self.count == self._capacity:
            self._grow()

        item = self.at(self.count)
        item[0] = Item(DATA, 0, NULL, NULL, NULL, 0, 0, 0)
        self.count += 1

        return item

    cdef Item *push_first(self) except NULL:
        """Add an empty entry at the head."""

        cdef Item *item

        if self.count == self._capacity:
            self._grow()

        self._head = (self._head - 1) & (self._capacity - 1)
        self.count += 1
        item = self.at(0)
        item[0] = Item(DATA, 0, NULL, NULL, NULL, 0, 0, 0)

        return item

    cdef void pop(self) noexcept:
        """Drop the first entry."""

        # It has left the queue when its references go, whoever hears of that.
        cdef Item item = self.take()

        clear_item(&item)

    cdef Item take(self) noexcept:
        cdef Item item = self._items[self._head]

        self._head = (self._head + 1) & (self._capacity - 1)
        self.count -= 1

        return item

    cdef void truncate(self, Py_ssize_t count) noexcept:
        self.count = count

    cdef int _grow(self) except -1:
        cdef Py_ssize_t capacity = self._capacity * 2 if self._capacity else 8, index
        cdef Item *items = <Item *>malloc(capacity * sizeof(Item))

        if items == NULL:
            raise MemoryError()

        for index in range(self.count):
            items[index] = self.at(index)[0]

        free(self._items)
        self._items = items
        self._head = 0
        self._capacity = capacity

        return 0
