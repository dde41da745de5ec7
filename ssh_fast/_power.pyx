# cython: language_level=3
"""Powers modulo a large number, in constant time: for Diffie-Hellman in groups that a server made up.

OpenSSL's own Diffie-Hellman first proves that such a group's modulus is a safe prime, which takes seconds, each time.
"""

from ._openssl cimport (
    BIGNUM, BN_CTX, BN_CTX_free, BN_CTX_new, BN_bin2bn, BN_bn2binpad, BN_clear_free, BN_free,
    BN_mod_exp_mont_consttime, BN_new, ERR_clear_error,
)


def power(bytes base, bytes exponent, bytes modulus):
    """Return base ** exponent % modulus, as long as the modulus; all are unsigned numbers in network order.

    ValueError: the modulus is not an odd number over 1, or the base is not below it.
    """

    cdef Py_ssize_t size = len(modulus)

    if not 0 < size <= 1 << 16 or len(base) > size or len(exponent) > size:
        raise ValueError('Expected numbers that are no longer than the modulus')

    if not modulus[size - 1] & 1 or modulus.strip(b'\0') in (b'', b'\1'):
        raise ValueError('Expected an odd modulus over 1')

    if base.rjust(size, b'\0') >= modulus:
        raise ValueError('Expected a base below the modulus')

    cdef bytearray out = bytearray(size)
    cdef BN_CTX *context = BN_CTX_new()
    cdef BIGNUM *result = BN_new()
    cdef BIGNUM *b = BN_bin2bn(base, <int>len(base), NULL)
    cdef BIGNUM *e = BN_bin2bn(exponent, <int>len(exponent), NULL)
    cdef BIGNUM *m = BN_bin2bn(modulus, <int>size, NULL)

    try:
        if (
            context == NULL or result == NULL or b == NULL or e == NULL or m == NULL
            or BN_mod_exp_mont_consttime(result, b, e, m, context, NULL) != 1
            or BN_bn2binpad(result, out, <int>size) != size
        ):
            ERR_clear_error()
            raise MemoryError('OpenSSL could not compute a power')
    finally:
        BN_clear_free(result)
        BN_clear_free(e)
        BN_free(b)
        BN_free(m)
        BN_CTX_free(context)

    return bytes(out)
