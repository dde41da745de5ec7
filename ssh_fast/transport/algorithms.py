"""The names of the transport's algorithms: the default offers, their order, and the syntax of the options."""

import functools
import platform
from collections.abc import Sequence
from fnmatch import fnmatchcase

from .._cipher import CIPHER_SUITES, MAC_SUITES
from ..keys.certificate_names import certificate_algorithms
from .kex import KEX_METHODS

# What asks for an extension in the list of kex algorithms; never negotiated (RFC 8308 section 2.1, strict kex)
EXT_INFO_CLIENT = b'ext-info-c'
EXT_INFO_SERVER = b'ext-info-s'
STRICT_KEX_CLIENT = b'kex-strict-c-v00@openssh.com'
STRICT_KEX_SERVER = b'kex-strict-s-v00@openssh.com'

NONE = b'none'
DELAYED_ZLIB = b'zlib@openssh.com'

# Post-quantum first, then by cost: the NIST curves and the finite fields are slower at the same strength (RFC 9142).
_KEX = (
    b'mlkem768x25519-sha256',
    b'curve25519-sha256',
    b'curve25519-sha256@libssh.org',
    b'ecdh-sha2-nistp256',
    b'ecdh-sha2-nistp384',
    b'ecdh-sha2-nistp521',
    b'diffie-hellman-group-exchange-sha256',
    b'diffie-hellman-group16-sha512',
    b'diffie-hellman-group18-sha512',
    b'diffie-hellman-group14-sha256',
)

_AES_GCM = (b'aes128-gcm@openssh.com', b'aes256-gcm@openssh.com')
_AES_CTR = (b'aes128-ctr', b'aes192-ctr', b'aes256-ctr')
_CHACHA = (b'chacha20-poly1305@openssh.com',)

# Encrypt-then-MAC first: nothing is decrypted before its MAC is known to be right.
_MACS = (
    b'hmac-sha2-256-etm@openssh.com',
    b'hmac-sha2-512-etm@openssh.com',
    b'hmac-sha1-etm@openssh.com',
    b'hmac-sha2-256',
    b'hmac-sha2-512',
    b'hmac-sha1',
)

# `zlib` is not among them: it inflates what an unknown peer sends before login.
_COMPRESSION = (NONE, DELAYED_ZLIB)

_SIGNATURES = (
    b'ssh-ed25519',
    b'ecdsa-sha2-nistp256',
    b'ecdsa-sha2-nistp384',
    b'ecdsa-sha2-nistp521',
    b'rsa-sha2-512',
    b'rsa-sha2-256',
)

_CPUINFO = '/proc/cpuinfo'
_AES_MACHINES = ('x86_64', 'amd64', 'arm64', 'aarch64')


@functools.cache
def _cpu_has_aes() -> bool:
    """Tell whether the processor has AES instructions, from its flags, or else from what its kind usually has."""

    try:
        with open(_CPUINFO, encoding='ascii', errors='replace') as file:
            lines = file.read(16384).lower().splitlines()
    except OSError:
        lines = []

    for line in lines:
        name, _, value = line.partition(':')

        if name.strip() in ('flags', 'features'):
            return 'aes' in value.split()

    return platform.machine().lower() in _AES_MACHINES


@functools.cache
def available_algorithms(kind: str) -> tuple[bytes, ...]:
    """List the algorithms of a kind in the order of the default offer, as far as the libraries here have them.

    The kinds are kex, encryption, mac, compression, host_key and signature.

    AES-GCM leads the ciphers for speed where the processor has AES instructions: a small packet costs it a quarter of
    what ChaCha20-Poly1305 takes, a large one the same. Elsewhere ChaCha20-Poly1305 leads, several times faster than AES
    in software. The 128-bit key comes first: it is the fastest, and no weaker in this protocol in practice.
    """

    if kind == 'kex':
        return tuple(name for name in _KEX if name in KEX_METHODS)

    if kind == 'encryption':
        names = _AES_GCM + _CHACHA + _AES_CTR if _cpu_has_aes() else _CHACHA + _AES_GCM + _AES_CTR

        return tuple(name for name in names if name in CIPHER_SUITES)

    if kind == 'mac':
        return tuple(name for name in _MACS if name in MAC_SUITES)

    if kind == 'compression':
        return _COMPRESSION

    if kind == 'host_key':
        # Certificates first: a server that has one is then known by its authority.
        return certificate_algorithms(_SIGNATURES) + _SIGNATURES

    if kind == 'signature':
        return _SIGNATURES

    raise ValueError(f'Unknown kind of algorithm {kind!r}')


def _expand(
    patterns: Sequence[str], known: tuple[bytes, ...], default: tuple[bytes, ...], option_name: str
) -> list[bytes]:
    """Replace each pattern by the known names that it matches; each name once, at its first place."""

    names: dict[bytes, None] = {}

    for pattern in patterns:
        if pattern == 'default':
            matches = list(default)
        elif any(char in pattern for char in '*?'):
            # Brackets have no meaning in SSH patterns.
            escaped = pattern.replace('[', '[[]')
            matches = [name for name in known if fnmatchcase(name.decode(), escaped)]
        else:
            matches = [name for name in known if name == pattern.encode()]

        if not matches:
            raise ValueError(
                f'{option_name}: {pattern!r} is not a known algorithm, expected one of {b", ".join(known).decode()}'
            )

        names.update(dict.fromkeys(matches))

    return list(names)


def select_algorithms(
    kind: str, value: str | Sequence[str] | None, option_name: str, default: Sequence[bytes] | None = None
) -> tuple[bytes, ...]:
    """Turn the value of an algorithm option into the names that it selects, in order.

    The value is a list of names, or one string of names between commas; `*` and `?` match any text and any one
    character. A string that begins with `+` appends to the default, with `-` takes away from it, and with `^` puts
    in front of it. The name `default` stands for the default, which is everything available unless given.

    An empty value or None is no compression, or no MAC, so that only ciphers that authenticate by themselves are left.
    Of the other kinds there must be one: `ValueError`, which names the option, as for a name that is not known.
    """

    known = available_algorithms(kind)
    default = known if default is None else tuple(default)

    if not value:
        if kind == 'compression':
            return (NONE,)

        if kind == 'mac':
            return ()

        raise ValueError(f'{option_name}: expected at least one algorithm, got {value!r}')

    prefix = ''

    if isinstance(value, str):
        if value[0] in '+-^':
            prefix, value = value[0], value[1:]

        patterns = [pattern.strip() for pattern in value.split(',')]
    else:
        patterns = list(value)

        for pattern in patterns:
            if not isinstance(pattern, str):
                raise ValueError(f'{option_name}: expected names of algorithms as text, got {pattern!r}')

    names = _expand(patterns, known, default, option_name)

    if prefix == '+':
        names = list(dict.fromkeys([*default, *names]))
    elif prefix == '-':
        names = [name for name in default if name not in names]
    elif prefix == '^':
        names = list(dict.fromkeys([*names, *default]))

    if not names:
        raise ValueError(f'{option_name}: no algorithm is left')

    return tuple(names)
