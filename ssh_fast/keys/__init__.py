"""Keys and trust: key types, key files, known_hosts and authorized_keys."""

# Importing a key type makes its names known to `key.decode_public_key`, whichever module of this floor comes first.
from . import ecdsa, eddsa, rsa

__all__ = ['ecdsa', 'eddsa', 'rsa']
