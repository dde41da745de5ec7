"""Keys and trust: key types, key files, known_hosts and authorized_keys."""

# Importing a key type makes its names known to `key.decode_public_key`, whichever module of this floor comes first.
from . import dsa, ecdsa, eddsa, rsa, sk

__all__ = ['dsa', 'ecdsa', 'eddsa', 'rsa', 'sk']
