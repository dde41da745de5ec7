"""Big-endian integers in memory, and a bounds-checked cursor over received bytes (RFC 4251 section 5)."""

from libc.stdint cimport uint32_t, uint64_t


# --- integers ---------------------------------------------------------------------------------------------------------

cdef inline uint32_t load_u32(const unsigned char *data) noexcept nogil:
    # Compilers turn the shifts into one load and a byte swap; data needs no alignment.
    return <uint32_t>data[0] << 24 | <uint32_t>data[1] << 16 | <uint32_t>data[2] << 8 | <uint32_t>data[3]


cdef inline uint64_t load_u64(const unsigned char *data) noexcept nogil:
    return <uint64_t>load_u32(data) << 32 | load_u32(data + 4)


cdef inline void store_u32(unsigned char *data, uint32_t value) noexcept nogil:
    data[0] = <unsigned char>(value >> 24)
    data[1] = <unsigned char>(value >> 16)
    data[2] = <unsigned char>(value >> 8)
    data[3] = <unsigned char>value


cdef inline void store_u64(unsigned char *data, uint64_t value) noexcept nogil:
    store_u32(data, <uint32_t>(value >> 32))
    store_u32(data + 4, <uint32_t>value)


# --- cursor -----------------------------------------------------------------------------------------------------------

# A field that does not fit in what is left makes the cursor bad: it then stands at its end, and every later field of at
# least one byte fails too. So a decoder may read all its fields and look at `bad` once, before it uses any of them.
cdef struct Cursor:
    const unsigned char *pos
    const unsigned char *end
    bint bad


cdef inline void init_cursor(Cursor *cursor, const unsigned char *data, size_t size) noexcept nogil:
    cursor.pos = data
    cursor.end = data + size
    cursor.bad = False


cdef inline size_t left(const Cursor *cursor) noexcept nogil:
    return cursor.end - cursor.pos


cdef inline bint take(Cursor *cursor, size_t size, const unsigned char **data) noexcept nogil:
    """Move past `size` bytes and point `data` at them; when they do not fit, at the end."""

    data[0] = cursor.pos

    if size > left(cursor):
        data[0] = cursor.pos = cursor.end
        cursor.bad = True

        return False

    cursor.pos += size

    return True


cdef inline unsigned char get_u8(Cursor *cursor) noexcept nogil:
    cdef const unsigned char *data

    return data[0] if take(cursor, 1, &data) else 0


cdef inline uint32_t get_u32(Cursor *cursor) noexcept nogil:
    cdef const unsigned char *data

    return load_u32(data) if take(cursor, 4, &data) else 0


cdef inline uint64_t get_u64(Cursor *cursor) noexcept nogil:
    cdef const unsigned char *data

    return load_u64(data) if take(cursor, 8, &data) else 0


cdef inline const unsigned char *get_string(Cursor *cursor, uint32_t *size) noexcept nogil:
    """Decode a string as a pointer into the cursor's bytes and its size; a bad one is empty, and never NULL."""

    cdef const unsigned char *data

    size[0] = get_u32(cursor)

    if not take(cursor, size[0], &data):
        size[0] = 0

    return data
