# cython: language_level=3
"""The suites: which ciphers and MACs there are by their wire names, and how one direction's cipher is made of them.

What this libcrypto lacks is left out of the tables. What only old peers need is looked for when it is first asked for:
some of it is in OpenSSL's legacy provider, which is loaded into a library context of its own, so that nobody else in
the process gets it.
"""

from cpython.bytes cimport PyBytes_GET_SIZE

from ssh_fast._cipher_modes cimport (
    FetchedCipher, FetchedMac, fetch_cipher, fetch_mac, has_poly1305, new_stream, new_tag, starts_anew,
)
from ssh_fast._openssl cimport (
    ERR_clear_error, OSSL_LIB_CTX, OSSL_LIB_CTX_free, OSSL_LIB_CTX_new, OSSL_PROVIDER_load,
)

from typing import NamedTuple

from ssh_fast._cipher_modes import (
    ChaChaPolyOpening, ChaChaPolySealing, GcmOpening, GcmSealing, MacThenStreamOpening, MacThenStreamSealing,
    OpeningCipher, PlainOpening, PlainSealing, SealingCipher, StreamThenMacOpening, StreamThenMacSealing,
)
from ssh_fast._cipher_registered import (
    RegisteredAeadOpening, RegisteredAeadSealing, RegisteredMacThenStreamOpening, RegisteredMacThenStreamSealing,
    RegisteredStreamThenMacOpening, RegisteredStreamThenMacSealing,
)


cdef enum:
    OPENING = 0     # the places in pairs of classes
    SEALING = 1
    MAX_BLOCK = 64  # what a registered cipher may align to: padding is at most 255 bytes


class CipherSuite(NamedTuple):
    """An encryption algorithm by its wire name; sizes in bytes."""

    name: bytes
    key_size: int
    iv_size: int
    block_size: int
    tag_size: int
    aead: bool


class MacSuite(NamedTuple):
    """A MAC algorithm by its wire name; sizes in bytes. `etm`: computed over the encrypted packet."""

    name: bytes
    key_size: int
    tag_size: int
    etm: bool


cdef tuple _GCM = (GcmOpening, GcmSealing)
cdef tuple _CHACHA_POLY = (ChaChaPolyOpening, ChaChaPolySealing)
cdef tuple _MAC_THEN_STREAM = (MacThenStreamOpening, MacThenStreamSealing)
cdef tuple _STREAM_THEN_MAC = (StreamThenMacOpening, StreamThenMacSealing)
cdef tuple _REGISTERED_AEAD = (RegisteredAeadOpening, RegisteredAeadSealing)
cdef tuple _REGISTERED_MAC_THEN_STREAM = (RegisteredMacThenStreamOpening, RegisteredMacThenStreamSealing)
cdef tuple _REGISTERED_STREAM_THEN_MAC = (RegisteredStreamThenMacOpening, RegisteredStreamThenMacSealing)

# The suite, libcrypto's name, and for AEAD the classes that open and seal: with the others the MAC decides these.
cdef tuple _CIPHER_ROWS = (
    (CipherSuite(b'chacha20-poly1305@openssh.com', 64, 0, 8, 16, True), b'ChaCha20', _CHACHA_POLY),
    (CipherSuite(b'aes256-gcm@openssh.com', 32, 12, 16, 16, True), b'AES-256-GCM', _GCM),
    (CipherSuite(b'aes128-gcm@openssh.com', 16, 12, 16, 16, True), b'AES-128-GCM', _GCM),
    (CipherSuite(b'aes256-ctr', 32, 16, 16, 0, False), b'AES-256-CTR', None),
    (CipherSuite(b'aes192-ctr', 24, 16, 16, 0, False), b'AES-192-CTR', None),
    (CipherSuite(b'aes128-ctr', 16, 16, 16, 0, False), b'AES-128-CTR', None),
)

# The suite, libcrypto's name, whether it is in the legacy provider, and whether it skips (RFC 4345).
cdef tuple _LEGACY_CIPHER_ROWS = (
    (CipherSuite(b'aes256-cbc', 32, 16, 16, 0, False), b'AES-256-CBC', False, False),
    (CipherSuite(b'aes192-cbc', 24, 16, 16, 0, False), b'AES-192-CBC', False, False),
    (CipherSuite(b'aes128-cbc', 16, 16, 16, 0, False), b'AES-128-CBC', False, False),
    (CipherSuite(b'3des-cbc', 24, 8, 8, 0, False), b'DES-EDE3-CBC', False, False),
    (CipherSuite(b'blowfish-cbc', 16, 8, 8, 0, False), b'BF-CBC', True, False),
    (CipherSuite(b'cast128-cbc', 16, 8, 8, 0, False), b'CAST5-CBC', True, False),
    (CipherSuite(b'seed-cbc@ssh.com', 16, 16, 16, 0, False), b'SEED-CBC', True, False),
    (CipherSuite(b'arcfour256', 32, 0, 8, 0, False), b'RC4', True, True),
    (CipherSuite(b'arcfour128', 16, 0, 8, 0, False), b'RC4', True, True),
    (CipherSuite(b'arcfour', 16, 0, 8, 0, False), b'RC4', True, False),
)

# The name without `-etm@openssh.com`, which each has too; key and digest size, tag size, digest.
cdef tuple _MAC_ROWS = (
    (b'hmac-sha2-256', 32, 32, b'SHA256'),
    (b'hmac-sha2-512', 64, 64, b'SHA512'),
    (b'hmac-sha1', 20, 20, b'SHA1'),
)

cdef tuple _LEGACY_MAC_ROWS = (
    (b'hmac-sha2-256-96', 32, 12, b'SHA256'),
    (b'hmac-sha2-512-96', 64, 12, b'SHA512'),
    (b'hmac-sha1-96', 20, 12, b'SHA1'),
    (b'hmac-md5', 16, 16, b'MD5'),
    (b'hmac-md5-96', 16, 12, b'MD5'),
)

# Name -> suite, what was fetched (None: registered), the classes (None: the MAC decides) or the factory
cdef dict _ciphers = {}
cdef dict _macs = {}
cdef dict _legacy_ciphers = {}
cdef dict _legacy_macs = {}
cdef bint _legacy_filled = False

CIPHER_SUITES = {}
MAC_SUITES = {}


cdef int fill_macs(dict macs, tuple rows) except -1:
    cdef FetchedMac fetched

    for etm in (True, False):
        for name, key_size, tag_size, digest in rows:
            fetched = fetch_mac(b'HMAC', digest, key_size)

            if fetched is not None and starts_anew(fetched):
                name = name + b'-etm@openssh.com' if etm else name
                macs[name] = (MacSuite(name, key_size, tag_size, etm), fetched, None)

    return 0


cdef int fill_tables() except -1:
    cdef FetchedCipher fetched

    for suite, algorithm, classes in _CIPHER_ROWS:
        fetched = fetch_cipher(NULL, algorithm, suite.block_size, False, False)

        if fetched is not None and (algorithm != b'ChaCha20' or has_poly1305()):
            _ciphers[suite.name] = (suite, fetched, classes)

    fill_macs(_macs, _MAC_ROWS)
    CIPHER_SUITES.update({name: row[0] for name, row in _ciphers.items()})
    MAC_SUITES.update({name: row[0] for name, row in _macs.items()})

    return 0


cdef int fill_legacy_tables() except -1:
    global _legacy_filled

    cdef FetchedCipher fetched
    cdef OSSL_LIB_CTX *library

    if _legacy_filled:
        return 0

    _legacy_filled = True
    library = OSSL_LIB_CTX_new()

    # It stays for the life of the process, as the algorithms that were fetched from it need it.
    if library is not NULL and OSSL_PROVIDER_load(library, b'legacy') is NULL:
        OSSL_LIB_CTX_free(library)
        library = NULL

    ERR_clear_error()

    for suite, algorithm, provided, skips in _LEGACY_CIPHER_ROWS:
        if provided and library is NULL:
            continue

        fetched = fetch_cipher(library if provided else NULL, algorithm, suite.block_size, algorithm != b'RC4', skips)

        if fetched is not None:
            _legacy_ciphers[suite.name] = (suite, fetched, None)

    return fill_macs(_legacy_macs, _LEGACY_MAC_ROWS)


fill_tables()


def legacy_cipher_suites():
    """Return the ciphers that only old peers need, as far as this libcrypto and its legacy provider have them."""

    fill_legacy_tables()

    return {name: row[0] for name, row in _legacy_ciphers.items()}


def legacy_mac_suites():
    """Return the MACs that only old peers need, as far as this libcrypto has them."""

    fill_legacy_tables()

    return {name: row[0] for name, row in _legacy_macs.items()}


cdef tuple find_row(str argument, dict table, dict legacy, bytes name):
    row = table.get(name)

    if row is None:
        fill_legacy_tables()
        row = legacy.get(name)

    if row is None:
        raise ValueError(f'{argument}: expected one of {b", ".join(table).decode()}, got {name!r}')

    return row


def cipher_suite(bytes name not None):
    """Return the suite of a cipher of any table; `ValueError` if it is in none."""

    return find_row('name', _ciphers, _legacy_ciphers, name)[0]


def mac_suite(bytes name not None):
    """Return the suite of a MAC of any table; `ValueError` if it is in none."""

    return find_row('mac', _macs, _legacy_macs, name)[0]


# --- registering ------------------------------------------------------------------------------------------------------

def register_cipher(suite, factory):
    """Add a cipher: factory(key, iv, encrypt) makes an object with `update`, or for AEAD with `seal` and `open`."""

    if not 8 <= suite.block_size <= MAX_BLOCK or suite.key_size < 0 or suite.iv_size < 0:
        raise ValueError(f'block_size: expected 8 to {MAX_BLOCK} bytes, and sizes of 0 or more, got {suite!r}')

    if not 0 <= suite.tag_size <= MAX_BLOCK or suite.aead != (suite.tag_size > 0):
        raise ValueError(f'tag_size: expected 0, or up to {MAX_BLOCK} bytes for AEAD, got {suite.tag_size}')

    _ciphers[suite.name] = (suite, None, factory)
    CIPHER_SUITES[suite.name] = suite


def register_mac(suite, factory):
    """Add a MAC: factory(key) gives a function (sequence, packet) -> tag."""

    if not 0 < suite.tag_size <= MAX_BLOCK or suite.key_size < 0:
        raise ValueError(f'tag_size: expected 1 to {MAX_BLOCK} bytes, and a key of 0 or more, got {suite!r}')

    _macs[suite.name] = (suite, None, factory)
    MAC_SUITES[suite.name] = suite


def unregister(bytes name not None):
    """Take a registered cipher or MAC away; ours stay."""

    for rows, suites in ((_ciphers, CIPHER_SUITES), (_macs, MAC_SUITES)):
        if name in rows and rows[name][1] is None:
            del rows[name], suites[name]


# --- making ciphers ---------------------------------------------------------------------------------------------------

cdef int check_size(str argument, bytes value, Py_ssize_t size, bytes name) except -1:
    if PyBytes_GET_SIZE(value) != size:
        raise ValueError(f'{argument}: expected {size} bytes for {name.decode()}, got {PyBytes_GET_SIZE(value)}')

    return 0


cdef object new_cipher(bytes name, bytes key, bytes iv, bytes mac, bytes mac_key, int direction):
    """Make the cipher of a suite for one direction."""

    if name == b'none':
        if key or iv or mac or mac_key:
            raise ValueError('name: expected a cipher for the key, IV and MAC given, got none')

        return PlainOpening() if direction == OPENING else PlainSealing()

    suite, fetched, classes = find_row('name', _ciphers, _legacy_ciphers, name)
    check_size('key', key, suite.key_size, name)
    check_size('iv', iv, suite.iv_size, name)

    if suite.aead:
        if mac or mac_key:
            raise ValueError(f'mac: expected none, because {name.decode()} authenticates by itself, got {mac!r}')

        if fetched is None:
            aead = classes(key, iv, direction == SEALING)

            return _REGISTERED_AEAD[direction](aead, suite.block_size, suite.tag_size)

        return classes[direction](fetched, key, iv)

    mac_row = find_row('mac', _macs, _legacy_macs, mac)
    check_size('mac_key', mac_key, mac_row[0].key_size, mac)

    if fetched is None or mac_row[1] is None:
        return new_registered(suite, fetched, classes, mac_row, key, iv, mac_key, direction)

    modes = _STREAM_THEN_MAC if mac_row[0].etm else _MAC_THEN_STREAM

    return modes[direction](fetched, key, iv, mac_row[1], mac_key, mac_row[0].tag_size)


cdef object new_registered(suite, fetched, factory, tuple mac_row, bytes key, bytes iv, bytes mac_key, int direction):
    """Make the cipher of a cipher and a MAC of which at least one was registered."""

    mac_suite, fetched_mac, mac_factory = mac_row
    crypt = new_stream(fetched, key, iv, direction == SEALING) if fetched is not None else (
        factory(key, iv, direction == SEALING).update
    )
    tag = new_tag(fetched_mac, mac_key, mac_suite.tag_size) if fetched_mac is not None else mac_factory(mac_key)
    modes = _REGISTERED_STREAM_THEN_MAC if mac_suite.etm else _REGISTERED_MAC_THEN_STREAM

    return modes[direction](crypt, tag, suite.block_size, mac_suite.tag_size)


def new_opening_cipher(bytes name not None, bytes key not None, bytes iv not None,
                       bytes mac not None=b'', bytes mac_key not None=b''):
    """Make the cipher that opens received packets; `none` is the absence of one.

    An unknown name or a key, IV or MAC key of the wrong size raises `ValueError`.
    """

    return new_cipher(name, key, iv, mac, mac_key, OPENING)


def new_sealing_cipher(bytes name not None, bytes key not None, bytes iv not None,
                       bytes mac not None=b'', bytes mac_key not None=b''):
    """Make the cipher that seals packets to send; `none` is the absence of one.

    An unknown name or a key, IV or MAC key of the wrong size raises `ValueError`.
    """

    return new_cipher(name, key, iv, mac, mac_key, SEALING)
