"""The key exchange methods by name; one family a module."""

from collections.abc import Callable
from functools import partial

from cryptography.hazmat.primitives.asymmetric import ec

from .base import KexContext, KexResult, KeyExchange
from .dh import DHExchange
from .ecdh import X448, X25519, CurveExchange, WeierstrassKey
from .group_exchange import GroupExchange
from .hybrid import HybridExchange
from .kem import MLKEM768, MLKEM1024, SNTRUP761

__all__ = ['KEX_METHODS', 'KexContext', 'KexResult', 'KeyExchange']

_P256 = partial(WeierstrassKey, ec.SECP256R1())
_P384 = partial(WeierstrassKey, ec.SECP384R1())
_P521 = partial(WeierstrassKey, ec.SECP521R1())
_SECP256K1 = partial(WeierstrassKey, ec.SECP256K1())

KEX_METHODS: dict[bytes, Callable[[KexContext], KeyExchange]] = {
    b'curve25519-sha256': partial(CurveExchange, make_key=X25519, hash_name='sha256'),
    b'curve25519-sha256@libssh.org': partial(CurveExchange, make_key=X25519, hash_name='sha256'),
    b'curve448-sha512': partial(CurveExchange, make_key=X448, hash_name='sha512'),
    b'ecdh-sha2-nistp256': partial(CurveExchange, make_key=_P256, hash_name='sha256'),
    b'ecdh-sha2-nistp384': partial(CurveExchange, make_key=_P384, hash_name='sha384'),
    b'ecdh-sha2-nistp521': partial(CurveExchange, make_key=_P521, hash_name='sha512'),
    b'ecdh-sha2-1.3.132.0.10': partial(CurveExchange, make_key=_SECP256K1, hash_name='sha256'),
    b'diffie-hellman-group14-sha256': partial(DHExchange, bits=2048, hash_name='sha256'),
    b'diffie-hellman-group15-sha512': partial(DHExchange, bits=3072, hash_name='sha512'),
    b'diffie-hellman-group16-sha512': partial(DHExchange, bits=4096, hash_name='sha512'),
    b'diffie-hellman-group17-sha512': partial(DHExchange, bits=6144, hash_name='sha512'),
    b'diffie-hellman-group18-sha512': partial(DHExchange, bits=8192, hash_name='sha512'),
    b'diffie-hellman-group-exchange-sha256': partial(GroupExchange, hash_name='sha256'),
    # only for old peers: never offered unless named
    b'diffie-hellman-group14-sha1': partial(DHExchange, bits=2048, hash_name='sha1'),
    b'diffie-hellman-group1-sha1': partial(DHExchange, bits=1024, hash_name='sha1'),
    b'diffie-hellman-group-exchange-sha1': partial(GroupExchange, hash_name='sha1'),
}

if MLKEM768 is not None:
    KEX_METHODS[b'mlkem768x25519-sha256'] = partial(
        HybridExchange, kem=MLKEM768, make_curve_key=X25519, hash_name='sha256'
    )
    KEX_METHODS[b'mlkem768nistp256-sha256'] = partial(
        HybridExchange, kem=MLKEM768, make_curve_key=_P256, hash_name='sha256'
    )

if MLKEM1024 is not None:
    KEX_METHODS[b'mlkem1024nistp384-sha384'] = partial(
        HybridExchange, kem=MLKEM1024, make_curve_key=_P384, hash_name='sha384'
    )

if SNTRUP761 is not None:
    for _name in (b'sntrup761x25519-sha512', b'sntrup761x25519-sha512@openssh.com'):
        KEX_METHODS[_name] = partial(HybridExchange, kem=SNTRUP761, make_curve_key=X25519, hash_name='sha512')
