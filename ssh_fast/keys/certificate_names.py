"""How certificate algorithms are named after the key and signature algorithms they are for.

The names of OpenSSH's certificates are from PROTOCOL.certkeys, those of X.509 from RFC 6187.
"""

from collections.abc import Iterable

_SUFFIX = b'-cert-v01@openssh.com'

X509_PREFIX = b'x509v3-'

# Its signatures have a name of their own, rsa2048-sha256, and are those of rsa-sha2-256 (RFC 6187 section 3).
X509_RSA_SHA256 = b'x509v3-rsa2048-sha256'
_RSA_SHA256 = b'rsa2048-sha256'

# Without x509v3-ssh-rsa, whose signatures are made with SHA-1
X509_ALGORITHMS = (
    b'x509v3-ssh-ed25519',
    b'x509v3-ecdsa-sha2-nistp256',
    b'x509v3-ecdsa-sha2-nistp384',
    b'x509v3-ecdsa-sha2-nistp521',
    b'x509v3-ssh-ed448',
    b'x509v3-ecdsa-sha2-1.3.132.0.10',
    X509_RSA_SHA256,
)
_X509_NAMES = frozenset((*X509_ALGORITHMS, b'x509v3-ssh-rsa'))


def certificate_algorithm(name: bytes) -> bytes:
    """Name the certificate algorithm of a key or signature algorithm; a domain in the name gives way."""

    return name.partition(b'@')[0] + _SUFFIX


def is_certificate_algorithm(name: bytes) -> bool:
    """Tell whether a name is that of a certificate algorithm, of OpenSSH or X.509."""

    return (name.endswith(_SUFFIX) and len(name) > len(_SUFFIX)) or name in _X509_NAMES


def is_x509_algorithm(name: bytes) -> bool:
    """Tell whether a name is that of an X.509 certificate algorithm."""

    return name in _X509_NAMES


def x509_algorithm(key_algorithm: bytes) -> bytes:
    """Name the X.509 algorithm of a key algorithm; there may be none of that name."""

    return X509_RSA_SHA256 if key_algorithm == b'ssh-rsa' else X509_PREFIX + key_algorithm


def needed_signature(name: bytes) -> bytes:
    """Name the signature algorithm that must be allowed for an algorithm of keys or certificates to be used."""

    plain = plain_algorithm(name)

    return b'rsa-sha2-256' if plain == _RSA_SHA256 else plain


def plain_algorithm(name: bytes) -> bytes:
    """Name the key or signature algorithm of a certificate algorithm; another name is returned as it is.

    The names of FIDO keys have a domain of their own, which the certificate's name has dropped.
    """

    if not is_certificate_algorithm(name):
        return name

    if is_x509_algorithm(name):
        return name[len(X509_PREFIX) :]

    plain = name[: -len(_SUFFIX)]

    return plain + b'@openssh.com' if plain.startswith((b'sk-', b'webauthn-sk-')) else plain


def certificate_algorithms(names: Iterable[bytes]) -> tuple[bytes, ...]:
    """Name the certificate algorithms of those signature algorithms that have one."""

    pairs = ((certificate_algorithm(name), name) for name in names)

    return tuple(certificate for certificate, name in pairs if plain_algorithm(certificate) == name)
