"""The packet ciphers in plain Python over `cryptography`, written from the RFCs.

They open what the RFCs allow, but seal any length, as a hostile peer that holds the keys may.
A packet here is packet_length | padding_length | payload | padding; sealed, it is followed by its tag.
"""

import hmac
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4, CAST5, SEED, Blowfish, TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES, ChaCha20
from cryptography.hazmat.primitives.ciphers.modes import CBC, CTR
from cryptography.hazmat.primitives.poly1305 import Poly1305

MAX_LENGTH = 256 * 1024


class BadTagError(Exception):
    """The tag of a packet is not the one that its bytes and key give."""


class BadLengthError(Exception):
    """A packet's length is one that its mode cannot have."""


class ReferenceCipher(Protocol):
    """What every mode gives: both directions, each with its own state."""

    block_size: int
    tag_size: int
    head_size: int
    length_apart: bool

    def seal_packet(self, seq: int, packet: bytes) -> bytes:
        """Seal a packet and append its tag."""

    def open_length(self, seq: int, head: bytes) -> int:
        """Tell the packet_length from a packet's first `head_size` bytes, without a lasting effect."""

    def open_packet(self, seq: int, sealed: bytes) -> bytes:
        """Verify and decrypt a packet, and return it without its tag."""


def _check_length(length: int, sealed: bytes, block: int, apart: bool, tag_size: int) -> None:
    """RFC 4253 section 6: what is encrypted in blocks is a positive number of them."""

    aligned = length if apart else 4 + length

    if aligned < block or aligned % block or length > MAX_LENGTH or 4 + length + tag_size != len(sealed):
        raise BadLengthError(length)


class PlainCipher:
    """`none`, with the MAC `none`: RFC 4253 section 6, blocks of 8."""

    block_size = 8
    tag_size = 0
    head_size = 4
    length_apart = False

    def seal_packet(self, seq: int, packet: bytes) -> bytes:
        return packet

    def open_length(self, seq: int, head: bytes) -> int:
        return int.from_bytes(head[:4], 'big')

    def open_packet(self, seq: int, sealed: bytes) -> bytes:
        _check_length(self.open_length(seq, sealed), sealed, 8, False, 0)

        return sealed


class _HmacKey:
    """RFC 4253 section 6.4: mac = MAC(key, sequence_number || packet)."""

    def __init__(self, name: bytes, key: bytes) -> None:
        name = name.removesuffix(b'-etm@openssh.com')
        cut = name.removesuffix(b'-96')
        self._digest = cut.decode().removeprefix('hmac-').replace('sha2-', 'sha')
        self._key = key
        self.size = 12 if cut != name else hmac.new(key, b'', self._digest).digest_size

    def compute(self, seq: int, data: bytes) -> bytes:
        return hmac.digest(self._key, seq.to_bytes(4, 'big') + data, self._digest)[: self.size]

    def verify(self, seq: int, data: bytes, tag: bytes) -> None:
        if self.compute(seq, data) != tag:
            raise BadTagError


_CBC = {
    b'3des-cbc': TripleDES,
    b'blowfish-cbc': Blowfish,
    b'cast128-cbc': CAST5,
    b'seed-cbc@ssh.com': SEED,
}


class _Stream:
    """The cipher alone, in both directions: counter mode (RFC 4344), CBC (RFC 4253 6.3), arcfour (RFC 4345)."""

    def __init__(self, name: bytes, key: bytes, iv: bytes) -> None:
        cipher: Cipher[object]

        if name.startswith(b'arcfour'):
            cipher = Cipher(ARC4(key), None)
        elif name.endswith(b'-ctr'):
            cipher = Cipher(AES(key), CTR(iv))
        else:
            cipher = Cipher(_CBC.get(name, AES)(key), CBC(iv))

        self.block_size = 16 if len(iv) == 16 else 8
        self._encryptor: CipherContext = cipher.encryptor()
        self._decryptor: CipherContext = cipher.decryptor()

        if name in (b'arcfour128', b'arcfour256'):
            self.encrypt(bytes(1536))
            self.decrypt(bytes(1536))

    def encrypt(self, data: bytes) -> bytes:
        return self._encryptor.update(data)

    def decrypt(self, data: bytes) -> bytes:
        return self._decryptor.update(data)


class MacThenStreamCipher:
    """A cipher without its own authentication, with encrypt-and-MAC (RFC 4253 section 6.4)."""

    length_apart = False

    def __init__(self, name: bytes, key: bytes, iv: bytes, mac: bytes, mac_key: bytes) -> None:
        self._stream = _Stream(name, key, iv)
        self._mac = _HmacKey(mac, mac_key)
        self.block_size = self.head_size = self._stream.block_size
        self.tag_size = self._mac.size
        self._head = b''

    def seal_packet(self, seq: int, packet: bytes) -> bytes:
        # A hostile length may leave part of a block, which no peer could decrypt in CBC mode: it is sent as it is.
        whole = len(packet) - len(packet) % self.block_size

        return self._stream.encrypt(packet[:whole]) + packet[whole:] + self._mac.compute(seq, packet)

    def open_length(self, seq: int, head: bytes) -> int:
        if not self._head:
            self._head = self._stream.decrypt(head[: self.head_size])

        return int.from_bytes(self._head[:4], 'big')

    def open_packet(self, seq: int, sealed: bytes) -> bytes:
        length = self.open_length(seq, sealed)
        _check_length(length, sealed, self.block_size, False, self.tag_size)
        packet = self._head + self._stream.decrypt(sealed[self.head_size : 4 + length])
        self._head = b''
        self._mac.verify(seq, packet, sealed[4 + length :])

        return packet


class StreamThenMacCipher:
    """The cipher, then a MAC over the length in clear and the ciphertext (OpenSSH's PROTOCOL, section 1.5)."""

    head_size = 4
    length_apart = True

    def __init__(self, name: bytes, key: bytes, iv: bytes, mac: bytes, mac_key: bytes) -> None:
        self._stream = _Stream(name, key, iv)
        self._mac = _HmacKey(mac, mac_key)
        self.block_size = self._stream.block_size
        self.tag_size = self._mac.size

    def seal_packet(self, seq: int, packet: bytes) -> bytes:
        whole = len(packet) - (len(packet) - 4) % self.block_size if len(packet) > 4 else len(packet)
        sealed = packet[:4] + self._stream.encrypt(packet[4:whole]) + packet[whole:]

        return sealed + self._mac.compute(seq, sealed)

    def open_length(self, seq: int, head: bytes) -> int:
        return int.from_bytes(head[:4], 'big')

    def open_packet(self, seq: int, sealed: bytes) -> bytes:
        length = self.open_length(seq, sealed)
        _check_length(length, sealed, self.block_size, True, self.tag_size)
        self._mac.verify(seq, sealed[: 4 + length], sealed[4 + length :])

        return sealed[:4] + self._stream.decrypt(sealed[4 : 4 + length])


class GcmCipher:
    """AES-GCM of RFC 5647: the length is the additional data; the nonce is 4 fixed bytes and a counter of 8."""

    block_size = 16
    tag_size = 16
    head_size = 4
    length_apart = True

    def __init__(self, key: bytes, iv: bytes) -> None:
        self._gcm = AESGCM(key)
        self._fixed = iv[:4]
        self._counter = int.from_bytes(iv[4:], 'big')

    def _next_nonce(self) -> bytes:
        nonce = self._fixed + self._counter.to_bytes(8, 'big')
        self._counter = (self._counter + 1) % 2**64

        return nonce

    def seal_packet(self, seq: int, packet: bytes) -> bytes:
        return packet[:4] + self._gcm.encrypt(self._next_nonce(), packet[4:], packet[:4])

    def open_length(self, seq: int, head: bytes) -> int:
        return int.from_bytes(head[:4], 'big')

    def open_packet(self, seq: int, sealed: bytes) -> bytes:
        _check_length(self.open_length(seq, sealed), sealed, 16, True, 16)

        try:
            return sealed[:4] + self._gcm.decrypt(self._next_nonce(), sealed[4:], sealed[:4])
        except InvalidTag:
            raise BadTagError from None


class ChaChaPolyCipher:
    """chacha20-poly1305@openssh.com (OpenSSH's PROTOCOL.chacha20poly1305).

    K_2, the first 32 bytes of the key, encrypts the packet from block 1 on; its block 0 gives the Poly1305 key.
    K_1, the rest, encrypts the length. The nonce is the sequence number as a uint64.
    """

    block_size = 8
    tag_size = 16
    head_size = 4
    length_apart = True

    def __init__(self, key: bytes) -> None:
        self._payload_key = key[:32]
        self._length_key = key[32:]

    @staticmethod
    def _crypt(key: bytes, seq: int, block: int, data: bytes) -> bytes:
        nonce = block.to_bytes(8, 'little') + seq.to_bytes(8, 'big')

        return Cipher(ChaCha20(key, nonce), None).encryptor().update(data)

    def _tag(self, seq: int, data: bytes) -> bytes:
        return Poly1305.generate_tag(self._crypt(self._payload_key, seq, 0, bytes(32)), data)

    def seal_packet(self, seq: int, packet: bytes) -> bytes:
        head = self._crypt(self._length_key, seq, 0, packet[:4])
        sealed = head + self._crypt(self._payload_key, seq, 1, packet[4:])

        return sealed + self._tag(seq, sealed)

    def open_length(self, seq: int, head: bytes) -> int:
        return int.from_bytes(self._crypt(self._length_key, seq, 0, head[:4]), 'big')

    def open_packet(self, seq: int, sealed: bytes) -> bytes:
        length = self.open_length(seq, sealed)
        _check_length(length, sealed, 8, True, 16)

        if self._tag(seq, sealed[:-16]) != sealed[-16:]:
            raise BadTagError

        return length.to_bytes(4, 'big') + self._crypt(self._payload_key, seq, 1, sealed[4:-16])


def new_reference_cipher(name: bytes, key: bytes, iv: bytes, mac: bytes = b'', mac_key: bytes = b'') -> ReferenceCipher:
    """Make one direction's cipher, for sealing or for opening; the arguments are those of the compiled ciphers."""

    if name == b'none':
        return PlainCipher()

    if name == b'chacha20-poly1305@openssh.com':
        return ChaChaPolyCipher(key)

    if name.endswith(b'-gcm@openssh.com'):
        return GcmCipher(key, iv)

    if mac.endswith(b'-etm@openssh.com'):
        return StreamThenMacCipher(name, key, iv, mac, mac_key)

    return MacThenStreamCipher(name, key, iv, mac, mac_key)
