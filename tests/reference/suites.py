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

# Only for old peers: key size, IV size; RFC 4253 section 6.3, RFC 4345
CBC_KEYS = {
    b'aes128-cbc': (16, 16),
    b'aes192-cbc': (24, 16),
    b'aes256-cbc': (32, 16),
    b'3des-cbc': (24, 8),
    b'blowfish-cbc': (16, 8),
    b'cast128-cbc': (16, 8),
    b'seed-cbc@ssh.com': (16, 16),
}
ARCFOUR_KEYS = {b'arcfour': (16, 0), b'arcfour128': (16, 0), b'arcfour256': (32, 0)}
LEGACY_MAC_KEYS = {
    b'hmac-sha2-256-96': 32,
    b'hmac-sha2-512-96': 64,
    b'hmac-sha1-96': 20,
    b'hmac-md5': 16,
    b'hmac-md5-96': 16,
}
EIGHTS = (b'chacha20-poly1305@openssh.com', b'3des-cbc', b'blowfish-cbc', b'cast128-cbc', *ARCFOUR_KEYS)


class Suite(NamedTuple):
    """A cipher and the MAC that goes with it, if it needs one."""

    name: bytes
    mac: bytes = b''

    def __str__(self) -> str:
        return '+'.join(part.decode().removesuffix('@openssh.com') for part in self if part)

    @property
    def block_size(self) -> int:
        """What the padding aligns to."""

        return 8 if self.name in EIGHTS else 16

    @property
    def chained(self) -> bool:
        """Tell if the cipher is in CBC mode."""

        return self.name in CBC_KEYS

    @property
    def conceals_length(self) -> bool:
        """Tell if the length is encrypted and covered by nothing but the MAC."""

        return bool(self.mac) and not self.mac.endswith(ETM)

    def keys(self, seed: bytes = b'') -> tuple[bytes, bytes, bytes, bytes, bytes]:
        """Make the arguments of a new cipher: name, key, IV, MAC, MAC key."""

        key_size, iv_size = (AEAD_KEYS | STREAM_KEYS | CBC_KEYS | ARCFOUR_KEYS)[self.name]
        mac_size = (MAC_KEYS | LEGACY_MAC_KEYS).get(self.mac.removesuffix(ETM), 0)

        def derive(purpose: bytes, size: int) -> bytes:
            return hashlib.shake_256(b'|'.join((*self, seed, purpose))).digest(size)

        return self.name, derive(b'key', key_size), derive(b'iv', iv_size), self.mac, derive(b'mac', mac_size)


SUITES = [
    *(Suite(name) for name in AEAD_KEYS),
    *(Suite(name, mac + etm) for name in STREAM_KEYS for mac in MAC_KEYS for etm in (b'', ETM)),
]

# Every cipher and every MAC of old peers, and each kind of them with each kind of the other
LEGACY_SUITES = [
    *(Suite(name, b'hmac-sha1') for name in (*CBC_KEYS, *ARCFOUR_KEYS)),
    *(Suite(name, b'hmac-md5-96' + ETM) for name in (b'aes128-cbc', b'3des-cbc', b'arcfour')),
    *(Suite(b'aes128-ctr', mac) for mac in LEGACY_MAC_KEYS),
    *(Suite(b'aes128-ctr', mac + ETM) for mac in LEGACY_MAC_KEYS),
]
