"""Every cipher suite by its wire names, written down here and not asked of the package, with keys made from a seed."""

import hashlib
from typing import NamedTuple

ETM = b'-etm@openssh.com'
AEAD_KEYS = {
    b'chacha20-poly1305@openssh.com': (64, 0),
    b'aes128-gcm@openssh.com': (16, 12),
    b'aes256-gcm@openssh.com': (32, 12),
}
STREAM_KEYS = {b'aes128-ctr': (16, 16), b'aes192-ctr': (24, 16), b'aes256-ctr': (32, 16)}
MAC_KEYS = {b'hmac-sha2-256': 32, b'hmac-sha2-512': 64, b'hmac-sha1': 20}


class Suite(NamedTuple):
    """A cipher and the MAC that goes with it, if it needs one."""

    name: bytes
    mac: bytes = b''

    def __str__(self) -> str:
        return '+'.join(part.decode().removesuffix('@openssh.com') for part in self if part)

    @property
    def conceals_length(self) -> bool:
        """Tell if the length is encrypted and covered by nothing but the MAC."""

        return bool(self.mac) and not self.mac.endswith(ETM)

    def keys(self, seed: bytes = b'') -> tuple[bytes, bytes, bytes, bytes, bytes]:
        """Make the arguments of a new cipher: name, key, IV, MAC, MAC key."""

        key_size, iv_size = (AEAD_KEYS | STREAM_KEYS)[self.name]
        mac_size = MAC_KEYS.get(self.mac.removesuffix(ETM), 0)

        def derive(purpose: bytes, size: int) -> bytes:
            return hashlib.shake_256(b'|'.join((*self, seed, purpose))).digest(size)

        return self.name, derive(b'key', key_size), derive(b'iv', iv_size), self.mac, derive(b'mac', mac_size)


SUITES = [
    *(Suite(name) for name in AEAD_KEYS),
    *(Suite(name, mac + etm) for name in STREAM_KEYS for mac in MAC_KEYS for etm in (b'', ETM)),
]
