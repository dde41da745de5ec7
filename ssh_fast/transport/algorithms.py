"""The names of the transport's algorithms: the three presets, their order, and the syntax of the options."""

import functools
import platform
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from .._cipher import CIPHER_SUITES, MAC_SUITES, legacy_cipher_suites, legacy_mac_suites
from ..keys.certificate_names import X509_ALGORITHMS, certificate_algorithms, needed_signature
from ..keys.keypair import SSHKeyPair
from .kex import KEX_METHODS

# What asks for an extension in the list of kex algorithms; never negotiated (RFC 8308 section 2.1, strict kex)
EXT_INFO_CLIENT = b'ext-info-c'
EXT_INFO_SERVER = b'ext-info-s'
STRICT_KEX_CLIENT = b'kex-strict-c-v00@openssh.com'
STRICT_KEX_SERVER = b'kex-strict-s-v00@openssh.com'

NONE = b'none'

# Names of lists, which may stand wherever the name of an algorithm may
PRESETS = (b'default', b'hardened', b'legacy')
DELAYED_ZLIB = b'zlib@openssh.com'

# Post-quantum first, then by cost: the NIST curves and the finite fields are slower at the same strength (RFC 9142).
_KEX = (
    b'mlkem768x25519-sha256',
    b'sntrup761x25519-sha512',
    b'sntrup761x25519-sha512@openssh.com',
    b'mlkem768nistp256-sha256',
    b'mlkem1024nistp384-sha384',
    b'curve25519-sha256',
    b'curve25519-sha256@libssh.org',
    b'ecdh-sha2-nistp256',
    b'ecdh-sha2-nistp384',
    b'ecdh-sha2-nistp521',
    b'curve448-sha512',
    b'ecdh-sha2-1.3.132.0.10',
    b'diffie-hellman-group-exchange-sha256',
    b'diffie-hellman-group16-sha512',
    b'diffie-hellman-group15-sha512',
    b'diffie-hellman-group17-sha512',
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
    b'sk-ssh-ed25519@openssh.com',
    b'ecdsa-sha2-nistp256',
    b'ecdsa-sha2-nistp384',
    b'ecdsa-sha2-nistp521',
    b'sk-ecdsa-sha2-nistp256@openssh.com',
    b'webauthn-sk-ecdsa-sha2-nistp256@openssh.com',
    b'ssh-ed448',
    b'ecdsa-sha2-1.3.132.0.10',
    b'rsa-sha2-512',
    b'rsa-sha2-256',
)

# ssh-audit's policies for hardened servers and clients of OpenSSH 10.4, without what no library here has (umac).
_HARDENED = {
    'kex': _KEX[:3],
    'encryption': (
        b'chacha20-poly1305@openssh.com',
        b'aes256-gcm@openssh.com',
        b'aes256-ctr',
        b'aes192-ctr',
        b'aes128-gcm@openssh.com',
        b'aes128-ctr',
    ),
    'mac': (b'hmac-sha2-512-etm@openssh.com', b'hmac-sha2-256-etm@openssh.com'),
    'compression': (NONE,),
    'signature': (b'rsa-sha2-512', b'rsa-sha2-256', b'ssh-ed25519', b'sk-ssh-ed25519@openssh.com'),
    # the policy of clients has another order than that of servers
    'host_key': (b'sk-ssh-ed25519@openssh.com', b'ssh-ed25519', b'rsa-sha2-512', b'rsa-sha2-256'),
}

# What only old peers need, best first: each is broken or weak, and is offered only to who names it.
_LEGACY = {
    'kex': (
        b'diffie-hellman-group-exchange-sha1',
        b'diffie-hellman-group14-sha1',
        b'diffie-hellman-group1-sha1',
    ),
    'encryption': (
        b'aes256-cbc',
        b'aes192-cbc',
        b'aes128-cbc',
        b'3des-cbc',
        b'blowfish-cbc',
        b'cast128-cbc',
        b'seed-cbc@ssh.com',
        b'arcfour256',
        b'arcfour128',
        b'arcfour',
    ),
    'mac': tuple(
        name + etm
        for etm in (b'-etm@openssh.com', b'')
        for name in (b'hmac-sha2-256-96', b'hmac-sha2-512-96', b'hmac-sha1-96', b'hmac-md5', b'hmac-md5-96')
    ),
    'compression': (b'zlib',),
    'signature': (b'ssh-rsa', b'ssh-dss'),
}

_KINDS = ('kex', 'encryption', 'mac', 'compression', 'host_key', 'signature')

# What was registered: by kind, the names and whether they are in the default offer
_registered: dict[str, dict[bytes, bool]] = {kind: {} for kind in _KINDS}

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

    if kind not in _KINDS:
        raise ValueError(f'Unknown kind of algorithm {kind!r}')

    names: tuple[bytes, ...]

    if kind == 'encryption':
        names = _AES_GCM + _CHACHA + _AES_CTR if _cpu_has_aes() else _CHACHA + _AES_GCM + _AES_CTR
    elif kind == 'host_key':
        # Certificates first: a server that has one is then known by its authority.
        names = certificate_algorithms(_SIGNATURES) + _SIGNATURES
    else:
        names = {'kex': _KEX, 'mac': _MACS, 'compression': _COMPRESSION, 'signature': _SIGNATURES}[kind]

    return _usable(kind, names) + tuple(name for name, default in _registered[kind].items() if default)


@functools.cache
def hardened_algorithms(kind: str) -> tuple[bytes, ...]:
    """List the algorithms of the preset `hardened`, as far as the libraries here have them."""

    names = _HARDENED[kind]

    return certificate_algorithms(names) + names if kind == 'host_key' else _usable(kind, names)


@functools.cache
def legacy_algorithms(kind: str) -> tuple[bytes, ...]:
    """List what the preset `legacy` adds to the default offer, as far as the libraries here have it."""

    names = _LEGACY['signature' if kind == 'host_key' else kind]

    return names + certificate_algorithms(names) + (b'x509v3-ssh-rsa',) if kind == 'host_key' else _usable(kind, names)


def known_algorithms(kind: str) -> tuple[bytes, ...]:
    """List every algorithm that can be named: the default offer, what was registered, and that of old peers.

    Those of X.509 are in no default offer: who trusts such certificates offers them.
    """

    x509 = X509_ALGORITHMS if kind == 'host_key' else ()

    return tuple(dict.fromkeys([*available_algorithms(kind), *_registered[kind], *x509, *legacy_algorithms(kind)]))


def x509_algorithms(signature_algs: Sequence[bytes]) -> tuple[bytes, ...]:
    """List the X.509 algorithms whose signatures are among those allowed."""

    return tuple(name for name in X509_ALGORITHMS if needed_signature(name) in signature_algs)


def host_key_algorithms(signature_algs: Sequence[bytes], host_keys: Iterable[SSHKeyPair]) -> tuple[bytes, ...]:
    """List what a server's host keys are offered for: the signature algorithms chosen, those of certificates first.

    A key that can make none of these is offered for those of the default offer that it can make.
    """

    chosen = (*x509_algorithms(signature_algs), *certificate_algorithms(signature_algs), *signature_algs)
    names = list(chosen)

    for pair in host_keys:
        if not any(name in pair.host_key_algorithms for name in chosen):
            names += [name for name in available_algorithms('host_key') if name in pair.host_key_algorithms]

    return tuple(dict.fromkeys(names))


def add_algorithm(kind: str, name: bytes, default: bool) -> None:
    """Make a name known that was registered; it stands last in the default offer, or is offered only when named."""

    if name in known_algorithms(kind) or name in (NONE, *PRESETS):
        raise ValueError(f'There is an algorithm {name.decode()} already')

    _registered[kind][name] = default
    available_algorithms.cache_clear()


def remove_algorithm(name: bytes) -> list[str]:
    """Forget a registered name; return the kinds that it was known as."""

    kinds = [kind for kind, names in _registered.items() if names.pop(name, None) is not None]
    available_algorithms.cache_clear()

    return kinds


def _usable(kind: str, names: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Leave out the names that the libraries here don't have."""

    if kind == 'kex':
        return tuple(name for name in names if name in KEX_METHODS)

    if kind == 'encryption':
        return tuple(name for name in names if name in CIPHER_SUITES or name in legacy_cipher_suites())

    if kind == 'mac':
        return tuple(name for name in names if name in MAC_SUITES or name in legacy_mac_suites())

    return names


# --- the syntax of the options


def _matches(kind: str, pattern: str, default: tuple[bytes, ...]) -> Sequence[bytes]:
    """List what one pattern stands for: a preset, a name, or the names that a wildcard matches.

    A wildcard that matches a name of the default offer stands for such names alone: `*` and `aes*` bring no weak
    algorithm in, while `*-cbc` names nothing else.
    """

    known = available_algorithms(kind)

    if pattern == 'default':
        return default

    if pattern == 'hardened':
        return hardened_algorithms(kind)

    if pattern == 'legacy':
        return (*default, *(name for name in legacy_algorithms(kind) if name not in default))

    if any(char in pattern for char in '*?'):
        # Brackets have no meaning in SSH patterns.
        escaped = pattern.replace('[', '[[]')
        found = [name for name in known if fnmatchcase(name.decode(), escaped)]

        return found or [name for name in known_algorithms(kind) if fnmatchcase(name.decode(), escaped)]

    return [name for name in known_algorithms(kind) if name == pattern.encode()]


def _expand(kind: str, patterns: Sequence[str], default: tuple[bytes, ...], option_name: str) -> list[bytes]:
    """Replace each pattern by the known names that it stands for; each name once, at its first place."""

    names: dict[bytes, None] = {}

    for pattern in patterns:
        matches = _matches(kind, pattern, default)

        if not matches:
            known = b', '.join(known_algorithms(kind)).decode()
            raise ValueError(f'{option_name}: {pattern!r} is not a known algorithm, expected one of {known}')

        names.update(dict.fromkeys(matches))

    return list(names)


def select_algorithms(
    kind: str, value: str | Sequence[str] | None, option_name: str, default: Sequence[bytes] | None = None
) -> tuple[bytes, ...]:
    """Turn the value of an algorithm option into the names that it selects, in order.

    The value is a list of names, or one string of names between commas; `*` and `?` match any text and any one
    character. A string that begins with `+` appends to the default, with `-` takes away from it, and with `^` puts
    in front of it. Three names stand for lists: `default`, the default offer unless another is given, `hardened`, and
    `legacy`, the default and what old peers need.

    An empty value or None is no compression, or no MAC, so that only ciphers that authenticate by themselves are left.
    Of the other kinds there must be one: `ValueError`, which names the option, as for a name that is not known.
    """

    default = available_algorithms(kind) if default is None else tuple(default)

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

    names = _expand(kind, patterns, default, option_name)

    if prefix == '+':
        names = list(dict.fromkeys([*default, *names]))
    elif prefix == '-':
        names = [name for name in default if name not in names]
    elif prefix == '^':
        names = list(dict.fromkeys([*names, *default]))

    if not names:
        raise ValueError(f'{option_name}: no algorithm is left')

    return tuple(names)
