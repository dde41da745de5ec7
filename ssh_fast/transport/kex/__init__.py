"""The key exchange methods by name; one family a module."""

from collections.abc import Callable
from functools import partial

from cryptography.hazmat.primitives.asymmetric import ec

from .base import KexContext, KexResult, KeyExchange
from .dh import DHExchange
from .ecdh import Curve25519Exchange, ECDHExchange
from .group_exchange import GroupExchange
from .hybrid import MLKEM768X25519Exchange, mlkem_available

__all__ = ['KEX_METHODS', 'KexContext', 'KexResult', 'KeyExchange']

KEX_METHODS: dict[bytes, Callable[[KexContext], KeyExchange]] = {
    b'curve25519-sha256': Curve25519Exchange,
    b'curve25519-sha256@libssh.org': Curve25519Exchange,
    b'ecdh-sha2-nistp256': partial(ECDHExchange, curve=ec.SECP256R1(), hash_name='sha256'),
    b'ecdh-sha2-nistp384': partial(ECDHExchange, curve=ec.SECP384R1(), hash_name='sha384'),
    b'ecdh-sha2-nistp521': partial(ECDHExchange, curve=ec.SECP521R1(), hash_name='sha512'),
    b'diffie-hellman-group14-sha256': partial(DHExchange, bits=2048, hash_name='sha256'),
    b'diffie-hellman-group16-sha512': partial(DHExchange, bits=4096, hash_name='sha512'),
    b'diffie-hellman-group18-sha512': partial(DHExchange, bits=8192, hash_name='sha512'),
    b'diffie-hellman-group-exchange-sha256': partial(GroupExchange, hash_name='sha256'),
}

if mlkem_available():
    KEX_METHODS[b'mlkem768x25519-sha256'] = MLKEM768X25519Exchange
