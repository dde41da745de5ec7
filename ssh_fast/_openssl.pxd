"""Every libcrypto declaration that the compiled core uses (OpenSSL 3.0 and later).

The GIL is kept for packet-sized work: sealing 32 KiB with AES-GCM takes about 8 us, less than it costs to give the GIL
up and win it back from a busy thread, and a cipher's state then has no second user. Nothing here blocks.
"""

cdef extern from "openssl/crypto.h" nogil:
    int CRYPTO_memcmp(const void *one, const void *other, size_t size)
    void OPENSSL_cleanse(void *data, size_t size)

cdef extern from "openssl/rand.h" nogil:
    int RAND_bytes(unsigned char *buffer, int size)

cdef extern from "openssl/err.h" nogil:
    void ERR_clear_error()

cdef extern from "openssl/params.h" nogil:
    ctypedef struct OSSL_PARAM:
        pass
    OSSL_PARAM OSSL_PARAM_construct_utf8_string(const char *key, char *value, size_t size)
    OSSL_PARAM OSSL_PARAM_construct_end()

cdef extern from "openssl/core_names.h" nogil:
    const char *OSSL_MAC_PARAM_DIGEST

cdef extern from "openssl/crypto.h" nogil:
    ctypedef struct OSSL_LIB_CTX:
        pass
    OSSL_LIB_CTX *OSSL_LIB_CTX_new()
    void OSSL_LIB_CTX_free(OSSL_LIB_CTX *library)

cdef extern from "openssl/provider.h" nogil:
    ctypedef struct OSSL_PROVIDER:
        pass
    OSSL_PROVIDER *OSSL_PROVIDER_load(OSSL_LIB_CTX *library, const char *name)

cdef extern from "openssl/evp.h" nogil:
    ctypedef struct EVP_CIPHER:
        pass
    ctypedef struct EVP_CIPHER_CTX:
        pass
    int EVP_CTRL_AEAD_SET_TAG
    int EVP_CTRL_AEAD_GET_TAG
    EVP_CIPHER *EVP_CIPHER_fetch(OSSL_LIB_CTX *library, const char *algorithm, const char *properties)
    void EVP_CIPHER_free(EVP_CIPHER *cipher)
    EVP_CIPHER_CTX *EVP_CIPHER_CTX_new()
    void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX *context)
    int EVP_CIPHER_get_key_length(const EVP_CIPHER *cipher)
    int EVP_CIPHER_CTX_set_key_length(EVP_CIPHER_CTX *context, int size)
    int EVP_CIPHER_CTX_set_padding(EVP_CIPHER_CTX *context, int padding)
    int EVP_CIPHER_CTX_ctrl(EVP_CIPHER_CTX *context, int command, int size, void *data)
    int EVP_CipherInit_ex2(EVP_CIPHER_CTX *context, const EVP_CIPHER *cipher, const unsigned char *key,
                           const unsigned char *iv, int encrypt, const OSSL_PARAM *params)
    int EVP_CipherUpdate(EVP_CIPHER_CTX *context, unsigned char *out, int *out_size,
                         const unsigned char *data, int size)
    int EVP_CipherFinal_ex(EVP_CIPHER_CTX *context, unsigned char *out, int *out_size)

    ctypedef struct EVP_MAC:
        pass
    ctypedef struct EVP_MAC_CTX:
        pass
    EVP_MAC *EVP_MAC_fetch(OSSL_LIB_CTX *library, const char *algorithm, const char *properties)
    void EVP_MAC_free(EVP_MAC *mac)
    EVP_MAC_CTX *EVP_MAC_CTX_new(EVP_MAC *mac)
    void EVP_MAC_CTX_free(EVP_MAC_CTX *context)
    int EVP_MAC_init(EVP_MAC_CTX *context, const unsigned char *key, size_t key_size, const OSSL_PARAM *params)
    int EVP_MAC_update(EVP_MAC_CTX *context, const unsigned char *data, size_t size)
    int EVP_MAC_final(EVP_MAC_CTX *context, unsigned char *out, size_t *out_size, size_t out_room)

cdef extern from "openssl/bn.h" nogil:
    ctypedef struct BIGNUM:
        pass
    ctypedef struct BN_CTX:
        pass
    ctypedef struct BN_MONT_CTX:
        pass
    BN_CTX *BN_CTX_new()
    void BN_CTX_free(BN_CTX *context)
    BIGNUM *BN_new()
    BIGNUM *BN_bin2bn(const unsigned char *data, int size, BIGNUM *number)
    int BN_bn2binpad(const BIGNUM *number, unsigned char *out, int size)
    void BN_clear_free(BIGNUM *number)
    void BN_free(BIGNUM *number)
    int BN_mod_exp_mont_consttime(BIGNUM *result, const BIGNUM *base, const BIGNUM *exponent, const BIGNUM *modulus,
                                  BN_CTX *context, BN_MONT_CTX *montgomery)
