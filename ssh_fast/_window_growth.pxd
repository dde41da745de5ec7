"""When a receive window opens again, and whether it is what the peer waits for, which its data tells by when it comes.

A peer that has used up all that it may send goes on when our next adjust has reached it. If that takes long, the link is
long for this window: everything else, as a consumer that is slow, is noticed by who opens the window late.
"""

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    GROWTH = 4                      # times as large at once: a link that is slow to answer is not filled by twice
    LONG_WAIT = 2                   # milliseconds; a shorter one costs no link much: 2 MiB in so much time are 8 Gbit/s
    MAX_UNCREDITED = 1024 * 1024    # of a window for a long link all but this should be open, for there to be no pauses


cdef struct WindowGrowth:
    bint watches        # an adjust is under way
    uint32_t left       # what the peer may send before it has the adjust
    double dry_since    # when it had sent all of that


cdef inline bint is_credit_due(uint64_t consumed, uint32_t window) noexcept nogil:
    return consumed >= <uint64_t>min(window // 2, <uint32_t>MAX_UNCREDITED)


cdef inline void adjust_sent(WindowGrowth *growth, uint32_t left, bint all_taken, double now) noexcept nogil:
    # A peer that has nothing left to send, while our consumer has something left to take, waits for the consumer.
    if not growth.watches and (left or all_taken):
        growth.watches = True
        growth.left = left
        growth.dry_since = 0.0 if left else now


cdef inline bint is_window_too_small(WindowGrowth *growth, uint32_t size, double now) noexcept nogil:
    # To be asked at each `size` bytes that come.
    if not growth.watches or not size:
        return False

    if growth.dry_since:
        growth.watches = False

        return (now - growth.dry_since) * 1000 >= LONG_WAIT

    if size < growth.left:
        growth.left -= size
    elif size == growth.left:
        growth.dry_since = now
    else:
        growth.watches = False

    return False
