"""How certificate algorithms are named after the key and signature algorithms they are for (PROTOCOL.certkeys)."""

from collections.abc import Iterable

_SUFFIX = b'-cert-v01@openssh.com'


def certificate_algorithm(name: bytes) -> bytes:
    """Name the certificate algorithm of a key or signature algorithm; a domain in the name gives way."""

    return name.partition(b'@')[0] + _SUFFIX


def is_certificate_algorithm(name: bytes) -> bool:
    """Tell whether a name is that of a certificate algorithm."""

    return name.endswith(_SUFFIX) and len(name) > len(_SUFFIX)


def plain_algorithm(name: bytes) -> bytes:
    """Name the key or signature algorithm of a certificate algorithm; another name is returned as it is.

    The names of FIDO keys have a domain of their own, which the certificate's name has dropped.
    """

    if not is_certificate_algorithm(name):
        return name

    plain = name[: -len(_SUFFIX)]

    return plain + b'@openssh.com' if plain.startswith((b'sk-', b'webauthn-sk-')) else plain


def certificate_algorithms(names: Iterable[bytes]) -> tuple[bytes, ...]:
    """Name the certificate algorithms of those signature algorithms that have one."""

    pairs = ((certificate_algorithm(name), name) for name in names)

    return tuple(certificate for certificate, name in pairs if plain_algorithm(certificate) == name)
