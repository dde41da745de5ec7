/* A libcrypto whose n-th call fails, and which lacks the algorithms named in FAILING_LIBCRYPTO_LACKS; for LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <stdlib.h>
#include <string.h>

static int calls_left;
static int fired;

void fail_call(int number)
{
    calls_left = number;
    fired = 0;
}

int has_failed(void)
{
    calls_left = 0;

    return fired;
}

static int fails(void)
{
    if (calls_left == 0 || --calls_left != 0)
        return 0;

    fired = 1;

    return 1;
}

static int lacks(const char *name)
{
    const char *lacking = getenv("FAILING_LIBCRYPTO_LACKS");

    return lacking != NULL && strcmp(lacking, name) == 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

EVP_CIPHER *EVP_CIPHER_fetch(OSSL_LIB_CTX *library, const char *name, const char *properties)
{
    return lacks(name) ? NULL : REAL(EVP_CIPHER_fetch)(library, name, properties);
}

EVP_MAC *EVP_MAC_fetch(OSSL_LIB_CTX *library, const char *name, const char *properties)
{
    return lacks(name) ? NULL : REAL(EVP_MAC_fetch)(library, name, properties);
}

OSSL_PROVIDER *OSSL_PROVIDER_load(OSSL_LIB_CTX *library, const char *name)
{
    return lacks(name) ? NULL : REAL(OSSL_PROVIDER_load)(library, name);
}

EVP_CIPHER_CTX *EVP_CIPHER_CTX_new(void)
{
    return fails() ? NULL : REAL(EVP_CIPHER_CTX_new)();
}

EVP_MAC_CTX *EVP_MAC_CTX_new(EVP_MAC *mac)
{
    return fails() ? NULL : REAL(EVP_MAC_CTX_new)(mac);
}

int EVP_CipherInit_ex2(EVP_CIPHER_CTX *context, const EVP_CIPHER *cipher, const unsigned char *key, const unsigned char *iv,
                       int encrypt, const OSSL_PARAM params[])
{
    return fails() ? 0 : REAL(EVP_CipherInit_ex2)(context, cipher, key, iv, encrypt, params);
}

int EVP_CIPHER_CTX_set_key_length(EVP_CIPHER_CTX *context, int size)
{
    return fails() ? 0 : REAL(EVP_CIPHER_CTX_set_key_length)(context, size);
}

int EVP_CIPHER_CTX_set_padding(EVP_CIPHER_CTX *context, int padding)
{
    return fails() ? 0 : REAL(EVP_CIPHER_CTX_set_padding)(context, padding);
}

int EVP_CipherUpdate(EVP_CIPHER_CTX *context, unsigned char *out, int *out_size, const unsigned char *data, int size)
{
    /* As the real one may: the data is laid, and then something goes wrong. */
    int result = REAL(EVP_CipherUpdate)(context, out, out_size, data, size);

    return fails() ? 0 : result;
}

int EVP_CipherFinal_ex(EVP_CIPHER_CTX *context, unsigned char *out, int *out_size)
{
    /* Some of libcrypto's functions answer a failure with -1. */
    return fails() ? -1 : REAL(EVP_CipherFinal_ex)(context, out, out_size);
}

int EVP_CIPHER_CTX_ctrl(EVP_CIPHER_CTX *context, int command, int size, void *data)
{
    return fails() ? -1 : REAL(EVP_CIPHER_CTX_ctrl)(context, command, size, data);
}

int EVP_MAC_init(EVP_MAC_CTX *context, const unsigned char *key, size_t key_size, const OSSL_PARAM params[])
{
    return fails() ? 0 : REAL(EVP_MAC_init)(context, key, key_size, params);
}

int EVP_MAC_update(EVP_MAC_CTX *context, const unsigned char *data, size_t size)
{
    return fails() ? 0 : REAL(EVP_MAC_update)(context, data, size);
}

int EVP_MAC_final(EVP_MAC_CTX *context, unsigned char *out, size_t *out_size, size_t out_room)
{
    return fails() ? 0 : REAL(EVP_MAC_final)(context, out, out_size, out_room);
}
