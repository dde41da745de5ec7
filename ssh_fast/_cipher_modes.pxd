"""Packet ciphers, one direction each: what other compiled modules may use of them."""

from libc.stdint cimport uint32_t

from ssh_fast._openssl cimport EVP_CIPHER, EVP_MAC, OSSL_LIB_CTX


# A packet is  packet_length (4) | padding_length (1) | payload | padding | tag ; `length` is always its packet_length.
cdef class OpeningCipher:
    cdef readonly int block_size         # what the padding aligns to, at least 8
    cdef readonly int tag_size
    cdef readonly int head_size          # the bytes that open_length needs
    cdef readonly bint length_apart      # AEAD and EtM: packet_length is not part of what the padding aligns
    cdef readonly bint conceals_length   # a bad packet_length must not be told from a bad MAC
    cdef readonly bint conceals_tag      # CBC: nor may anybody see how long the packet was whose MAC is bad

    # Exactly once a packet, before open; may decrypt the head in place.
    cdef int open_length(self, uint32_t seq, unsigned char *packet, uint32_t *length) except -1

    # The packet has 4 + length + tag_size bytes. MACError if the tag is wrong: the packet then holds no plaintext.
    cdef int open(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1

    # Take as long over these bytes as over a packet of that size: it is refused already.
    cdef int discard(self, uint32_t seq, unsigned char *packet, uint32_t size) except -1


cdef class SealingCipher:
    cdef readonly int block_size
    cdef readonly int tag_size
    cdef readonly bint length_apart

    # Lays packet_length and the tag too: there is room for 4 + length + tag_size bytes.
    cdef int seal(self, uint32_t seq, unsigned char *packet, uint32_t length) except -1


# Raise the MACError of packet `seq`: one wording for a wrong tag and for a length that must not be told from it.
cdef int fail_mac(uint32_t seq) except -1


cdef class FetchedCipher:
    cdef EVP_CIPHER *cipher
    cdef int block                       # what the padding aligns to
    cdef bint chained                    # CBC
    cdef bint skips                      # RFC 4345: the first bytes of the key stream are thrown away


cdef class FetchedMac:
    cdef EVP_MAC *mac
    cdef bytes digest
    cdef size_t digest_size


cdef FetchedCipher fetch_cipher(OSSL_LIB_CTX *library, const char *name, int block, bint chained, bint skips)
cdef FetchedMac fetch_mac(const char *name, bytes digest, size_t digest_size)
cdef bint starts_anew(FetchedMac fetched)
cdef bint has_poly1305() noexcept

# The function bytes -> bytes of a cipher, and (seq, packet) -> tag of a MAC, for what is written in Python beside them.
cdef object new_stream(FetchedCipher fetched, bytes key, bytes iv, bint encrypt)
cdef object new_tag(FetchedMac fetched, bytes key, size_t size)
