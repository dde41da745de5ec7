"""Adding algorithms from outside the package: key exchange methods, ciphers, MACs, compression and key types.

What is registered holds for the whole process, and for connections made from then on. See docs/algorithms.md.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from .._cipher import CipherSuite, MacSuite, register_cipher, register_mac, unregister
from ..keys.key import SSHKey, register_key_type
from .algorithms import add_algorithm, remove_algorithm
from .compression import COMPRESSION_METHODS, BoundedDecompressor, CompressionMethod
from .kex import KEX_METHODS, KexContext, KeyExchange

# RFC 4250 section 4.6.1
_NAME = re.compile(r'[!-+\--~]{1,64}')


class StreamCipher(Protocol):
    """A cipher without authentication, keyed for one direction; `cryptography`'s cipher contexts are such."""

    def update(self, data: bytes, /) -> bytes:
        """Encrypt or decrypt whole blocks, going on where the last call ended."""


class AEADCipher(Protocol):
    """A cipher with authentication, keyed for one direction; the packet's length, 4 bytes, is `head` and not secret."""

    def seal(self, sequence: int, head: bytes, body: bytes, /) -> bytes:
        """Encrypt the body; return it with the tag behind."""

    def open(self, sequence: int, head: bytes, body: bytes, /) -> bytes:
        """Verify and decrypt the body, its tag behind it; raise anything if the tag is wrong."""


def register_kex_alg(name: str, method: Callable[[KexContext], KeyExchange], *, default: bool = False) -> None:
    """Add a key exchange method: `method` makes one running exchange, in either role, of its context.

    With `default` it stands last in the default offer; else it is offered only where an option names it.
    A name that is not one, or that is taken, raises `ValueError`.
    """

    add_algorithm('kex', _check_name(name), default)
    KEX_METHODS[name.encode()] = method


def register_encryption_alg(
    name: str,
    cipher: Callable[[bytes, bytes, bool], StreamCipher | AEADCipher],
    *,
    key_size: int,
    iv_size: int,
    block_size: int = 16,
    tag_size: int = 0,
    default: bool = False,
) -> None:
    """Add a cipher: cipher(key, iv, encrypt) makes one direction's; sizes in bytes.

    With a `tag_size` it is a cipher that authenticates by itself, and no MAC is used beside it. `block_size` is what
    packets are padded to, 8 to 64.
    """

    encoded = _check_name(name)
    suite = CipherSuite(encoded, key_size, iv_size, block_size, tag_size, tag_size > 0)
    _add('encryption', encoded, default, partial(register_cipher, suite, cipher))


def register_mac_alg(
    name: str,
    mac: Callable[[bytes], Callable[[int, bytes], bytes]],
    *,
    key_size: int,
    tag_size: int,
    etm: bool = False,
    default: bool = False,
) -> None:
    """Add a MAC: mac(key) makes a function of a packet's sequence number and its bytes, which returns the tag.

    With `etm` it is computed over the encrypted packet; sizes in bytes.
    """

    encoded = _check_name(name)
    suite = MacSuite(encoded, key_size, tag_size, etm)
    _add('mac', encoded, default, partial(register_mac, suite, mac))


def register_compression_alg(
    name: str,
    compressor: Callable[[], Callable[[bytes], bytes]],
    decompressor: Callable[[], Callable[[bytes], bytes]],
    *,
    delayed: bool = True,
    default: bool = False,
) -> None:
    """Add a compression: each call makes a new stream, a function of one payload after another.

    A payload must expand to 256 KiB at most; the decompressor should stop there by itself, as more is refused only
    when it is in memory. `delayed`: it begins when the login is done, so that strangers can't have anything expanded.
    """

    add_algorithm('compression', _check_name(name), default)
    COMPRESSION_METHODS[name.encode()] = CompressionMethod(
        compressor, lambda: BoundedDecompressor(decompressor()), delayed
    )


def register_public_key_alg(key_class: type[SSHKey], *, default: bool = False) -> None:
    """Add a key type: `algorithm` and `sig_algorithms` of the class are its names.

    The signature algorithms are then known for host keys and for users' keys.
    """

    names = [_check_name(name.decode()) for name in (key_class.algorithm, *key_class.sig_algorithms)]

    for name in dict.fromkeys(names[1:]):
        add_algorithm('signature', name, default)
        add_algorithm('host_key', name, default)

    register_key_type(key_class, names[:1], lambda pyca_key: None)


def unregister_alg(name: str) -> None:
    """Take a registered algorithm away again; running connections keep it. `ValueError` if the name is not registered.

    A key type stays readable: only its signatures are no longer offered or accepted.
    """

    encoded = name.encode()
    kinds = remove_algorithm(encoded)

    if not kinds:
        raise ValueError(f'name: expected an algorithm that was registered, got {name!r}')

    if 'kex' in kinds:
        del KEX_METHODS[encoded]

    if 'compression' in kinds:
        del COMPRESSION_METHODS[encoded]

    if {'encryption', 'mac'} & {*kinds}:
        unregister(encoded)


def _add(kind: str, name: bytes, default: bool, register: Callable[[], Any]) -> None:
    add_algorithm(kind, name, default)

    try:
        register()
    except ValueError:
        remove_algorithm(name)
        raise


def _check_name(name: str) -> bytes:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f'name: expected 1 to 64 printable ASCII characters without space and comma, got {name!r}')

    return name.encode()
