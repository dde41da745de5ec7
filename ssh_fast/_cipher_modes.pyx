# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The packet ciphers over libcrypto: one class per mode and direction, which opens or seals a whole packet in place.

    MacThenStream  E(length | rest) | MAC(seq, length | rest)       RFC 4253 section 6.4: counter mode, CBC, arcfour
    StreamThenMac  length | E(rest) | MAC(seq, length | E(rest))    the -etm@openssh.com MACs
    Gcm            length | E(rest) | tag                           RFC 5647, length is the additional data
    ChaChaPoly     E2(length) | E(rest) | Poly1305(both)            chacha20-poly1305@openssh.com

Contexts are made once per key and then only started anew: a third of the cost for a small packet. A context's keys are
wiped when it is freed. Which algorithms there are, and by what names, is told in `_cipher`.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset

from ssh_fast._openssl cimport (
    EVP_CIPHER_CTX, EVP_MAC_CTX, OSSL_LIB_CTX, OSSL_PARAM,
    CRYPTO_memcmp, ERR_clear_error, OPENSSL_cleanse,
    EVP_CIPHER_CTX_ctrl, EVP_CIPHER_CTX_free, EVP_CIPHER_CTX_new, EVP_CIPHER_CTX_set_key_length,
    EVP_CIPHER_CTX_set_padding, EVP_CIPHER_fetch, EVP_CIPHER_free, EVP_CIPHER_get_key_length,
    EVP_CipherFinal_ex, EVP_CipherInit_ex2, EVP_CipherUpdate, EVP_CTRL_AEAD_GET_TAG, EVP_CTRL_AEAD_SET_TAG,
    EVP_MAC_CTX_free, EVP_MAC_CTX_new, EVP_MAC_fetch, EVP_MAC_final, EVP_MAC_free, EVP_MAC_init, EVP_MAC_update,
    OSSL_MAC_PARAM_DIGEST, OSSL_PARAM_construct_end, OSSL_PARAM_construct_utf8_string,
)
from ssh_fast._wire cimport load_u32, load_u64, store_u32, store_u64

from ssh_fast.errors import MACError, ProtocolError


cdef enum:
    LENGTH_SIZE = 4
    MAX_LENGTH = 256 * 1024     # OpenSSH's PACKET_MAX_SIZE; also keeps every size within libcrypto's int
    MAX_MAC_SIZE = 64           # HMAC-SHA2-512
    PLAIN_BLOCK = 8             # RFC 4253 section 6: the padding of an unencrypted packet aligns to 8
    AES_BLOCK = 16
    AEAD_TAG_SIZE = 16          # RFC 5647 section 5.3, RFC 8439 section 2.5: a shorter tag is never asked for
    GCM_NONCE_SIZE = 12
    CHACHA_ALIGN = 8
    CHACHA_BLOCK = 64
    CHACHA_KEY_SIZE = 32
    CHACHA_IV_SIZE = 16
    ARCFOUR_SKIP = 1536         # RFC 4345 section 4: what arcfour128 and arcfour256 throw away


# --- errors -----------------------------------------------------------------------------------------------------------

cdef int fail_mac(uint32_t seq) except -1:
    # Python's ssl module looks at the same thread's error queue, so nothing may be left in it.
    ERR_clear_error()

    raise MACError(f'Expected a packet with a valid MAC, got one that does not match at sequence number {seq}')


cdef int fail_length(uint32_t length, str expected) except -1:
    raise ProtocolError(f'Expected a packet_length of {expected} bytes, at most {MAX_LENGTH}, got {length}')


cdef int fail_libcrypto(str what) except -1:
    ERR_clear_error()

    raise ProtocolError(f'Expected libcrypto to {what}, got a failure')


cdef inline int check_length(uint32_t length, uint32_t block) except -1:
    """Refuse a packet_length that the mode cannot take; the length field stands apart from the blocks."""

    if length < block or length > MAX_LENGTH or length % block:
        return fail_length(length, f'{block} * n')

    return 0


cdef inline bint fits_blocks(uint32_t length, uint32_t block) noexcept:
    """Tell if a packet_length is one that the mode can take; the length field is part of the blocks."""

    return length <= MAX_LENGTH and length + LENGTH_SIZE >= block and (length + LENGTH_SIZE) % block == 0


# --- keyed contexts ---------------------------------------------------------------------------------------------------

cdef class FetchedCipher:
    """A cipher of libcrypto, fetched once, and how packets are encrypted with it."""

    def __dealloc__(self):
        EVP_CIPHER_free(self.cipher)


cdef class FetchedMac:
    """A MAC of libcrypto, fetched once, and the digest it uses (empty: it needs none)."""

    def __dealloc__(self):
        EVP_MAC_free(self.mac)


cdef FetchedCipher fetch_cipher(OSSL_LIB_CTX *library, const char *name, int block, bint chained, bint skips):
    """Fetch a cipher; None if this libcrypto lacks it. Padding aligns to `block`; `chained`: it is in CBC mode."""

    cdef FetchedCipher fetched = FetchedCipher()

    fetched.cipher = EVP_CIPHER_fetch(library, name, NULL)
    fetched.block = block
    fetched.chained = chained
    fetched.skips = skips
    ERR_clear_error()

    return fetched if fetched.cipher is not NULL else None


cdef FetchedMac fetch_mac(const char *name, bytes digest, size_t digest_size):
    """Fetch a MAC; None if this libcrypto lacks it."""

    cdef FetchedMac fetched = FetchedMac()

    fetched.mac = EVP_MAC_fetch(NULL, name, NULL)
    fetched.digest = digest
    fetched.digest_size = digest_size
    ERR_clear_error()

    return fetched if fetched.mac is not NULL else None


cdef bint starts_anew(FetchedMac fetched):
    """Tell if the digest is there, and a context started anew gives the same MAC: early 3.0 releases fail that."""

    cdef unsigned char first[MAX_MAC_SIZE]
    cdef unsigned char second[MAX_MAC_SIZE]
    cdef size_t size = fetched.digest_size
    cdef _MacContext mac

    try:
        mac = _MacContext(fetched, bytes(size), size)
    except ProtocolError:
        return False

    return mac.compute(0, b'', 0, first) and mac.compute(0, b'', 0, second) and CRYPTO_memcmp(first, second, size) == 0


cdef FetchedMac _POLY1305 = fetch_mac(b'POLY1305', b'', AEAD_TAG_SIZE)


cdef bint has_poly1305() noexcept:
    return _POLY1305 is not None


@cython.final
cdef class _CipherContext:
    """A keyed EVP_CIPHER_CTX for one direction."""

    cdef EVP_CIPHER_CTX *context

    def __cinit__(self, FetchedCipher fetched not None, bytes key not None, bytes iv not None, bint encrypt):
        cdef int size = <int>PyBytes_GET_SIZE(key)

        self.context = EVP_CIPHER_CTX_new()

        if self.context is NULL:
            raise MemoryError

        if size == EVP_CIPHER_get_key_length(fetched.cipher):
            if EVP_CipherInit_ex2(self.context, fetched.cipher, key, iv, encrypt, NULL) != 1:
                fail_libcrypto('set a cipher key')
        elif (
            EVP_CipherInit_ex2(self.context, fetched.cipher, NULL, NULL, encrypt, NULL) != 1
            or EVP_CIPHER_CTX_set_key_length(self.context, size) != 1
            or EVP_CipherInit_ex2(self.context, NULL, key, iv, encrypt, NULL) != 1
        ):
            fail_libcrypto(f'set a cipher key of {size} bytes')

        # Packets are whole blocks, padded by us: libcrypto must neither add a block nor hold one back.
        if fetched.chained and EVP_CIPHER_CTX_set_padding(self.context, 0) != 1:
            fail_libcrypto('leave padding to the packets')

        if fetched.skips:
            self._skip()

    def __dealloc__(self):
        EVP_CIPHER_CTX_free(self.context)

    def crypt(self, bytes data not None):
        """Encrypt or decrypt whole blocks: for a MAC that is written in Python."""

        cdef bytes out = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(data))

        if data and not self.update(<unsigned char *>PyBytes_AS_STRING(out), data, <int>PyBytes_GET_SIZE(data)):
            fail_libcrypto('use a cipher')

        return out

    cdef int _skip(self) except -1:
        cdef unsigned char skipped[ARCFOUR_SKIP]

        memset(skipped, 0, ARCFOUR_SKIP)

        if not self.update(skipped, skipped, ARCFOUR_SKIP):
            fail_libcrypto('use a cipher')

        OPENSSL_cleanse(skipped, ARCFOUR_SKIP)

        return 0

    cdef inline bint start(self, const unsigned char *iv) noexcept:
        return EVP_CipherInit_ex2(self.context, NULL, NULL, iv, -1, NULL) == 1

    cdef inline bint update(self, unsigned char *out, const unsigned char *data, int size) noexcept:
        cdef int done = 0

        return EVP_CipherUpdate(self.context, out, &done, data, size) == 1 and done == size

    cdef inline bint finish(self) noexcept:
        cdef unsigned char rest[AES_BLOCK]
        cdef int done = 0

        return EVP_CipherFinal_ex(self.context, rest, &done) == 1 and done == 0


@cython.final
cdef class _MacContext:
    """A keyed HMAC over a sequence number and a packet; `size` bytes of it are the tag (the -96 forms: 12)."""

    cdef EVP_MAC_CTX *context
    cdef size_t digest_size
    cdef size_t size

    def __cinit__(self, FetchedMac fetched not None, bytes key not None, size_t size):
        cdef OSSL_PARAM params[2]

        self.context = EVP_MAC_CTX_new(fetched.mac)
        self.digest_size = fetched.digest_size
        self.size = size

        if self.context is NULL:
            raise MemoryError

        params[0] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, fetched.digest, 0)
        params[1] = OSSL_PARAM_construct_end()

        if EVP_MAC_init(self.context, key, PyBytes_GET_SIZE(key), params) != 1:
            fail_libcrypto('set a MAC key')

    def __dealloc__(self):
        EVP_MAC_CTX_free(self.context)

    def tag(self, uint32_t seq, bytes packet not None):
        """Compute the tag of a packet: for a cipher that is written in Python."""

        cdef unsigned char out[MAX_MAC_SIZE]

        if not self.compute(seq, packet, PyBytes_GET_SIZE(packet), out):
            fail_libcrypto('compute a MAC')

        return PyBytes_FromStringAndSize(<char *>out, self.size)

    cdef inline bint compute(self, uint32_t seq, const unsigned char *packet, size_t size, unsigned char *out) noexcept:
        cdef unsigned char seq_bytes[4]
        cdef unsigned char digest[MAX_MAC_SIZE]
        cdef size_t done = 0

        store_u32(seq_bytes, seq)

        # A NULL key keeps the one that was set: half the cost of setting it again.
        if not (EVP_MAC_init(self.context, NULL, 0, NULL) == 1
                and EVP_MAC_update(self.context, seq_bytes, 4) == 1
                and EVP_MAC_update(self.context, packet, size) == 1
                and EVP_MAC_final(self.context, digest, &done, MAX_MAC_SIZE) == 1
                and done == self.digest_size):
            return False

        memcpy(out, digest, self.size)

        return True

    cdef inline bint verify(self, uint32_t seq, const unsigned char *packet, size_t size) noexcept:
        """Tell if the tag behind the packet is right; a MAC that cannot be computed makes it wrong."""

        cdef unsigned char expected[MAX_MAC_SIZE]

        return self.compute(seq, packet, size, expected) and CRYPTO_memcmp(expected, packet + size, self.size) == 0


@cython.final
@cython.internal
cdef class _GcmContext:
    """AES-GCM whose nonce is 4 fixed bytes and a 64-bit invocation counter (RFC 5647 section 7.1)."""

    cdef _CipherContext cipher
    cdef unsigned char nonce[GCM_NONCE_SIZE]

    def __cinit__(self, FetchedCipher fetched, bytes key, bytes iv, bint encrypt):
        self.cipher = _CipherContext(fetched, key, iv, encrypt)
        memcpy(self.nonce, PyBytes_AS_STRING(iv), GCM_NONCE_SIZE)

    def __dealloc__(self):
        OPENSSL_cleanse(self.nonce, GCM_NONCE_SIZE)

    cdef inline bint begin(self, const unsigned char *length_field) noexcept:
        cdef bint started = self.cipher.start(self.nonce)

        # It moves on before anything is sealed, so no failure can lead to a nonce used twice. It starts anywhere and
        # wraps into itself alone; the transport changes keys long before 2^64 packets.
        store_u64(self.nonce + 4, load_u64(self.nonce + 4) + 1)

        return started and self.cipher.update(NULL, length_field, LENGTH_SIZE)


@cython.final
@cython.internal
cdef class _ChaChaPolyContext:
    """The two ChaCha20 keys of chacha20-poly1305@openssh.com, and Poly1305 with a fresh key for each packet."""

    cdef _CipherContext body
    cdef _CipherContext head
    cdef EVP_MAC_CTX *poly1305
    cdef unsigned char poly1305_key[CHACHA_BLOCK]

    def __cinit__(self, FetchedCipher fetched, bytes key):
        cdef bytes iv = bytes(CHACHA_IV_SIZE)

        # K_2, the first half, is for the payload; K_1, the second, for the length.
        self.body = _CipherContext(fetched, key[:CHACHA_KEY_SIZE], iv, True)
        self.head = _CipherContext(fetched, key[CHACHA_KEY_SIZE:], iv, True)
        self.poly1305 = EVP_MAC_CTX_new(_POLY1305.mac)

        if self.poly1305 is NULL:
            raise MemoryError

    def __dealloc__(self):
        EVP_MAC_CTX_free(self.poly1305)
        OPENSSL_cleanse(self.poly1305_key, CHACHA_BLOCK)

    cdef inline bint crypt_length(self, uint32_t seq, unsigned char *out, const unsigned char *data) noexcept:
        cdef unsigned char iv[CHACHA_IV_SIZE]

        self._lay_iv(iv, seq)

        return self.head.start(iv) and self.head.update(out, data, LENGTH_SIZE)

    cdef inline bint begin(self, uint32_t seq) noexcept:
        """Take the Poly1305 key from block 0 of the key stream; the payload's part of it then begins at block 1."""

        cdef unsigned char iv[CHACHA_IV_SIZE]

        self._lay_iv(iv, seq)
        memset(self.poly1305_key, 0, CHACHA_BLOCK)

        return self.body.start(iv) and self.body.update(self.poly1305_key, self.poly1305_key, CHACHA_BLOCK)

    cdef inline bint compute(self, const unsigned char *packet, size_t size, unsigned char *out) noexcept:
        cdef size_t done = 0

        # Unlike HMAC, POLY1305 must always be given its key: without one, libcrypto 3.0 crashes at the update.
        return (EVP_MAC_init(self.poly1305, self.poly1305_key, CHACHA_KEY_SIZE, NULL) == 1
                and EVP_MAC_update(self.poly1305, packet, size) == 1
                and EVP_MAC_final(self.poly1305, out, &done, AEAD_TAG_SIZE) == 1
                and done == AEAD_TAG_SIZE)

    cdef inline void _lay_iv(self, unsigned char *iv, uint32_t seq) noexcept:
        # libcrypto's form: a 64-bit block counter, little-endian, then the 64-bit nonce, which is the sequence number.
        memset(iv, 0, CHACHA_IV_SIZE)
        store_u32(iv + 12, seq)


# --- opening ----------------------------------------------------------------------------------------------------------

cdef class OpeningCipher:
    """One direction's keys, for packets received."""

    def __cinit__(self):
        if type(self) is OpeningCipher:
            raise TypeError('OpeningCipher is abstract: call new_opening_cipher')

        self.block_size = AES_BLOCK
        self.head_size = LENGTH_SIZE

    cdef int open_length(self, uint32_t seq, unsigned char *packet, uint32_t *length) except -1:
        length[0] = load_u32(packet)

        return 0

    cdef int open(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1:
        raise NotImplementedError

    cdef int discard(self, uint32_t seq, unsigned char *packet, uint32_t size) except -1:
        return 0

    def open_packet(self, uint32_t seq, bytes packet not None):
        """Open a whole packet, tag included, and return it without its tag."""

        cdef Py_ssize_t size = PyBytes_GET_SIZE(packet)
        cdef bytes opened
        cdef unsigned char *data
        cdef uint32_t length = 0

        if size < self.head_size + self.tag_size:
            raise ProtocolError(f'Expected a packet of {self.head_size + self.tag_size} bytes or more, got {size}')

        # A copy that nobody else can see yet, so it may be changed in place.
        opened = PyBytes_FromStringAndSize(PyBytes_AS_STRING(packet), size)
        data = <unsigned char *>PyBytes_AS_STRING(opened)
        self.open_length(seq, data, &length)

        if <Py_ssize_t>length != size - LENGTH_SIZE - self.tag_size:
            if self.conceals_length:
                fail_mac(seq)

            raise ProtocolError(f'Expected a packet_length of {size - LENGTH_SIZE - self.tag_size}, got {length}')

        self.open(seq, data, length)

        return opened[:size - self.tag_size]


@cython.final
cdef class PlainOpening(OpeningCipher):
    """No encryption and no MAC: until the first key exchange ends."""

    def __cinit__(self):
        self.block_size = PLAIN_BLOCK

    cdef int open(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1:
        if not fits_blocks(length, PLAIN_BLOCK):
            return fail_length(length, f'{PLAIN_BLOCK} * n - {LENGTH_SIZE}')

        return 0


@cython.final
cdef class MacThenStreamOpening(OpeningCipher):
    cdef _CipherContext cipher
    cdef _MacContext mac

    def __cinit__(self, FetchedCipher fetched, key, iv, fetched_mac, mac_key, tag_size):
        self.cipher = _CipherContext(fetched, key, iv, False)
        self.mac = _MacContext(fetched_mac, mac_key, tag_size)
        self.tag_size = tag_size
        self.block_size = self.head_size = fetched.block
        self.conceals_length = True
        self.conceals_tag = fetched.chained

    cdef int open_length(self, uint32_t seq, unsigned char *packet, uint32_t *length) except -1:
        if not self.cipher.update(packet, packet, self.block_size):
            return fail_libcrypto('decrypt a packet')

        length[0] = load_u32(packet)

        return 0

    cdef int open(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1:
        cdef uint32_t block = self.block_size

        if not fits_blocks(length, block):
            return fail_mac(seq)

        cdef uint32_t size = LENGTH_SIZE + length

        # Zero bytes would be nothing to decrypt, and libcrypto releases differ in what they say of that.
        if size > block and not self.cipher.update(packet + block, packet + block, size - block):
            OPENSSL_cleanse(packet, size)

            return fail_libcrypto('decrypt a packet')

        if not self.mac.verify(seq, packet, size):
            OPENSSL_cleanse(packet, size)

            return fail_mac(seq)

        return 0

    cdef int discard(self, uint32_t seq, unsigned char *packet, uint32_t size) except -1:
        cdef unsigned char unused[MAX_MAC_SIZE]

        # What it gives is wrong already; only the time it takes matters.
        self.mac.compute(seq, packet, size, unused)

        return 0


@cython.final
cdef class StreamThenMacOpening(OpeningCipher):
    cdef _CipherContext cipher
    cdef _MacContext mac

    def __cinit__(self, FetchedCipher fetched, key, iv, fetched_mac, mac_key, tag_size):
        self.cipher = _CipherContext(fetched, key, iv, False)
        self.mac = _MacContext(fetched_mac, mac_key, tag_size)
        self.tag_size = tag_size
        self.block_size = fetched.block
        self.length_apart = True

    cdef int open(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1:
        check_length(length, self.block_size)

        if not self.mac.verify(seq, packet, LENGTH_SIZE + length):
            return fail_mac(seq)

        if not self.cipher.update(packet + LENGTH_SIZE, packet + LENGTH_SIZE, length):
            return fail_libcrypto('decrypt a packet')

        return 0


@cython.final
cdef class GcmOpening(OpeningCipher):
    cdef _GcmContext gcm

    def __cinit__(self, fetched, key, iv):
        self.gcm = _GcmContext(fetched, key, iv, False)
        self.tag_size = AEAD_TAG_SIZE
        self.length_apart = True

    cdef int open(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1:
        check_length(length, AES_BLOCK)

        cdef unsigned char *body = packet + LENGTH_SIZE
        cdef _CipherContext cipher = self.gcm.cipher

        if not (self.gcm.begin(packet)
                and EVP_CIPHER_CTX_ctrl(cipher.context, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG_SIZE, body + length) == 1
                and cipher.update(body, body, length)):
            OPENSSL_cleanse(body, length)

            return fail_libcrypto('decrypt a packet')

        # The update above has already laid the plaintext, so a wrong tag must take it away again.
        if not cipher.finish():
            OPENSSL_cleanse(body, length)

            return fail_mac(seq)

        return 0


@cython.final
cdef class ChaChaPolyOpening(OpeningCipher):
    cdef _ChaChaPolyContext chacha

    def __cinit__(self, fetched, key, iv):
        self.chacha = _ChaChaPolyContext(fetched, key)
        self.block_size = CHACHA_ALIGN
        self.tag_size = AEAD_TAG_SIZE
        self.length_apart = True

    cdef int open_length(self, uint32_t seq, unsigned char *packet, uint32_t *length) except -1:
        cdef unsigned char opened[LENGTH_SIZE]

        # The packet keeps the encrypted length, which the tag covers.
        if not self.chacha.crypt_length(seq, opened, packet):
            return fail_libcrypto('decrypt a packet length')

        length[0] = load_u32(opened)

        return 0

    cdef int open(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1:
        check_length(length, CHACHA_ALIGN)

        cdef unsigned char *body = packet + LENGTH_SIZE
        cdef unsigned char expected[AEAD_TAG_SIZE]

        if not (self.chacha.begin(seq) and self.chacha.compute(packet, LENGTH_SIZE + length, expected)):
            return fail_libcrypto('compute a MAC')

        if CRYPTO_memcmp(expected, body + length, AEAD_TAG_SIZE) != 0:
            return fail_mac(seq)

        if not self.chacha.body.update(body, body, length):
            return fail_libcrypto('decrypt a packet')

        store_u32(packet, length)

        return 0


# --- sealing ----------------------------------------------------------------------------------------------------------

cdef class SealingCipher:
    """One direction's keys, for packets sent."""

    def __cinit__(self):
        if type(self) is SealingCipher:
            raise TypeError('SealingCipher is abstract: call new_sealing_cipher')

        self.block_size = AES_BLOCK

    cdef int seal(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1:
        raise NotImplementedError

    def seal_packet(self, uint32_t seq, bytes packet not None):
        """Seal a whole packet, from its packet_length to its padding, and return it with its tag."""

        cdef Py_ssize_t size = PyBytes_GET_SIZE(packet)
        cdef bytes sealed
        cdef unsigned char *data

        if size < LENGTH_SIZE or size > LENGTH_SIZE + MAX_LENGTH:
            raise ProtocolError(f'Expected a packet of {LENGTH_SIZE} to {LENGTH_SIZE + MAX_LENGTH} bytes, got {size}')

        sealed = PyBytes_FromStringAndSize(NULL, size + self.tag_size)
        data = <unsigned char *>PyBytes_AS_STRING(sealed)
        memcpy(data, PyBytes_AS_STRING(packet), size)

        if load_u32(data) != <uint32_t>size - LENGTH_SIZE:
            raise ProtocolError(f'Expected a packet_length of {size - LENGTH_SIZE}, got {load_u32(data)}')

        self.seal(seq, data, <uint32_t>size - LENGTH_SIZE)

        return sealed


@cython.final
cdef class PlainSealing(SealingCipher):
    def __cinit__(self):
        self.block_size = PLAIN_BLOCK

    cdef int seal(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1:
        if not fits_blocks(length, PLAIN_BLOCK):
            return fail_length(length, f'{PLAIN_BLOCK} * n - {LENGTH_SIZE}')

        store_u32(packet, length)

        return 0


@cython.final
cdef class MacThenStreamSealing(SealingCipher):
    cdef _CipherContext cipher
    cdef _MacContext mac

    def __cinit__(self, FetchedCipher fetched, key, iv, fetched_mac, mac_key, tag_size):
        self.cipher = _CipherContext(fetched, key, iv, True)
        self.mac = _MacContext(fetched_mac, mac_key, tag_size)
        self.tag_size = tag_size
        self.block_size = fetched.block

    cdef int seal(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1:
        if not fits_blocks(length, self.block_size):
            return fail_length(length, f'{self.block_size} * n - {LENGTH_SIZE}')

        cdef uint32_t size = LENGTH_SIZE + length

        store_u32(packet, length)

        if not self.mac.compute(seq, packet, size, packet + size):
            return fail_libcrypto('compute a MAC')

        if not self.cipher.update(packet, packet, size):
            return fail_libcrypto('encrypt a packet')

        return 0


@cython.final
cdef class StreamThenMacSealing(SealingCipher):
    cdef _CipherContext cipher
    cdef _MacContext mac

    def __cinit__(self, FetchedCipher fetched, key, iv, fetched_mac, mac_key, tag_size):
        self.cipher = _CipherContext(fetched, key, iv, True)
        self.mac = _MacContext(fetched_mac, mac_key, tag_size)
        self.tag_size = tag_size
        self.block_size = fetched.block
        self.length_apart = True

    cdef int seal(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1:
        check_length(length, self.block_size)

        cdef uint32_t size = LENGTH_SIZE + length

        store_u32(packet, length)

        if not self.cipher.update(packet + LENGTH_SIZE, packet + LENGTH_SIZE, length):
            return fail_libcrypto('encrypt a packet')

        if not self.mac.compute(seq, packet, size, packet + size):
            return fail_libcrypto('compute a MAC')

        return 0


@cython.final
cdef class GcmSealing(SealingCipher):
    cdef _GcmContext gcm

    def __cinit__(self, fetched, key, iv):
        self.gcm = _GcmContext(fetched, key, iv, True)
        self.tag_size = AEAD_TAG_SIZE
        self.length_apart = True

    cdef int seal(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1:
        check_length(length, AES_BLOCK)

        cdef unsigned char *body = packet + LENGTH_SIZE
        cdef _CipherContext cipher = self.gcm.cipher

        store_u32(packet, length)

        if not (self.gcm.begin(packet)
                and cipher.update(body, body, length)
                and cipher.finish()
                and EVP_CIPHER_CTX_ctrl(cipher.context, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_SIZE, body + length) == 1):
            return fail_libcrypto('encrypt a packet')

        return 0


@cython.final
cdef class ChaChaPolySealing(SealingCipher):
    cdef _ChaChaPolyContext chacha

    def __cinit__(self, fetched, key, iv):
        self.chacha = _ChaChaPolyContext(fetched, key)
        self.block_size = CHACHA_ALIGN
        self.tag_size = AEAD_TAG_SIZE
        self.length_apart = True

    cdef int seal(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1:
        check_length(length, CHACHA_ALIGN)

        cdef unsigned char *body = packet + LENGTH_SIZE

        store_u32(packet, length)

        if not (self.chacha.crypt_length(seq, packet, packet)
                and self.chacha.begin(seq)
                and self.chacha.body.update(body, body, length)
                and self.chacha.compute(packet, LENGTH_SIZE + length, body + length)):
            return fail_libcrypto('encrypt a packet')

        return 0


# --- beside what is written in Python ---------------------------------------------------------------------------------

cdef object new_stream(FetchedCipher fetched, bytes key, bytes iv, bint encrypt):
    return _CipherContext(fetched, key, iv, encrypt).crypt


cdef object new_tag(FetchedMac fetched, bytes key, size_t size):
    return _MacContext(fetched, key, size).tag
