# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The lanes between a channel and a plain file, which no Python runs along.

A file's blocks wait in the file until they are laid into packets; what is received is written where it was opened.
"""

from libc.errno cimport EINTR, errno
from libc.stdint cimport uint32_t, uint64_t

from ssh_fast._flow cimport BlockSource, ByteSink, ChannelFlow
from ssh_fast._queue cimport MESSAGE, Item

import os

cdef extern from "<unistd.h>" nogil:
    Py_ssize_t write(int fd, const void *buf, size_t count)

cdef enum:
    BLOCK = 128 * 1024          # four packets as OpenSSH takes them, read by one system call
    RELEASE_SIZE = 4096         # writes shorter than this are not worth giving up the GIL

    MSG_CHANNEL_EOF = 96
    MSG_CHANNEL_CLOSE = 97


cdef class FileSink(ByteSink):
    """Writes a channel's data to a file, at the file's own position; what cannot be written closes the channel."""

    cdef int _fd
    cdef readonly uint64_t written

    def __cinit__(self, int fd):
        self._fd = fd

    cdef int feed(self, const unsigned char *data, Py_ssize_t size) except -1:
        cdef int err

        if size < RELEASE_SIZE:
            err = write_all(self._fd, data, size)
        else:
            # The reader's buffer stays in place while its parse is under way.
            with nogil:
                err = write_all(self._fd, data, size)

        if err:
            raise OSError(err, os.strerror(err))

        self.written += <uint64_t>size

        return 0


cdef class FileFeed(BlockSource):
    """Sends a file from `offset` to its end through a flow; `ended` is called once, with None or an OSError.

    It is called while packets are laid, so it must leave the flow alone. One block of 128 KiB of the file waits in the
    flow, read when its turn comes.
    """

    cdef ChannelFlow _flow
    cdef object _ended
    cdef readonly uint64_t position     # where in the file what was not sent begins
    cdef Py_ssize_t _got                # of the block that is being sent, if it is short
    cdef bint _over

    def __cinit__(self, ChannelFlow flow not None, int fd, uint64_t offset, ended):
        self.fd = fd
        self._flow = flow
        self._ended = ended
        self.position = offset

    def start(self):
        """Send the file."""

        self._flow.send_block(self, b'', self.position, BLOCK, 0)

    def stop(self):
        """Send no more of the file, and do not call `ended`."""

        self._over = True
        self._flow.drop_blocks(self)

    cdef int block_sent(self, uint32_t tag) except -1:
        self.position += <uint64_t>(self._got or BLOCK)
        self._got = 0

        if self._over:
            return 0

        if self._is_ended():
            self._over = True
            self._ended(None)
            return 0

        return self._flow.send_block(self, b'', self.position, BLOCK, 0)

    cdef bint _is_ended(self) noexcept:
        """Whether an end of file or a close waits in the flow: nothing may be sent behind it."""

        cdef Py_ssize_t index
        cdef Item *item

        for index in range(self._flow._queue.count):
            item = self._flow._queue.at(index)

            if item.kind == MESSAGE and item.data[0] in (MSG_CHANNEL_EOF, MSG_CHANNEL_CLOSE):
                return True

        return False

    cdef object block_short(self, uint32_t tag, uint32_t wanted, Py_ssize_t got, int err):
        if got > 0:
            # Only an empty read is the end: the file may be growing.
            self._got = got
            return None

        if not self._over:
            self._over = True
            self._ended(OSError(err, os.strerror(err)) if got < 0 else None)

        return b''


cdef int write_all(int fd, const unsigned char *data, Py_ssize_t size) noexcept nogil:
    """Write everything; gives 0 or an errno."""

    cdef Py_ssize_t part

    while size:
        part = write(fd, data, size)

        if part < 0:
            if errno == EINTR:
                continue

            return errno

        data += part
        size -= part

    return 0
