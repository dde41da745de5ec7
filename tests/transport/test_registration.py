"""Algorithms from outside the package, by its public names alone: one of each kind, used in a real connection."""

import bz2
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from cryptography.hazmat.primitives.ciphers.modes import CBC, CTR

import ssh_fast
from ssh_fast.transport.algorithms import available_algorithms, known_algorithms
from ssh_fast.transport.kex import KexContext, KeyExchange
from ssh_fast.wire import Cursor, encode_mpint, encode_string

# --- the algorithms


class ToyExchange(KeyExchange):
    """Diffie-Hellman modulo the Mersenne prime 2^521 - 1: a method that is good for a test only."""

    PRIME = 2**521 - 1
    made = 0

    def __init__(self, context: KexContext) -> None:
        super().__init__(context, 'sha512')
        self._private = secrets.randbits(500)
        ToyExchange.made += 1

    def make_client_value(self) -> bytes:
        return encode_string(pow(3, self._private, self.PRIME).to_bytes(66, 'big'))

    def answer(self, client_value: bytes) -> tuple[bytes, bytes]:
        return self.make_client_value(), self.agree(client_value)

    def agree(self, server_value: bytes) -> bytes:
        value = int.from_bytes(Cursor(server_value).string(), 'big')

        if not 2 <= value <= self.PRIME - 2:
            raise ssh_fast.KeyExchangeFailed('Expected a value of the group')

        return encode_mpint(pow(value, self._private, self.PRIME))


def sm4(key: bytes, iv: bytes, encrypt: bool) -> CipherContext:
    cipher = Cipher(SM4(key), CTR(iv))

    return cipher.encryptor() if encrypt else cipher.decryptor()


def sm4_cbc(key: bytes, iv: bytes, encrypt: bool) -> CipherContext:
    cipher = Cipher(SM4(key), CBC(iv))

    return cipher.encryptor() if encrypt else cipher.decryptor()


class ChaChaRFC:
    """ChaCha20-Poly1305 of RFC 8439, the sequence number as its nonce."""

    def __init__(self, key: bytes, iv: bytes, encrypt: bool) -> None:
        self._cipher = ChaCha20Poly1305(key)

    def seal(self, sequence: int, head: bytes, body: bytes) -> bytes:
        return self._cipher.encrypt(sequence.to_bytes(12, 'big'), body, head)

    def open(self, sequence: int, head: bytes, body: bytes) -> bytes:
        return self._cipher.decrypt(sequence.to_bytes(12, 'big'), body, head)


def blake2(key: bytes) -> Callable[[int, bytes], bytes]:
    def tag(sequence: int, packet: bytes) -> bytes:
        return hashlib.blake2b(sequence.to_bytes(4, 'big') + packet, key=key, digest_size=32).digest()

    return tag


def compressor() -> Callable[[bytes], bytes]:
    return bz2.compress


def decompressor() -> Callable[[bytes], bytes]:
    return bz2.decompress


class ToyKey(ssh_fast.SSHKey):
    """Ed25519 by another name."""

    algorithm = b'toy-key@example.com'
    sig_algorithms = (b'toy-key@example.com',)

    def __init__(self, private: Ed25519PrivateKey | None, public: Ed25519PublicKey) -> None:
        super().__init__()
        self._private, self._public = private, public

    @classmethod
    def generate(cls, algorithm: bytes, **kwargs: Any) -> Self:
        key = Ed25519PrivateKey.generate()

        return cls(key, key.public_key())

    @classmethod
    def decode_ssh_public(cls, algorithm: bytes, cursor: Cursor) -> Self:
        return cls(None, Ed25519PublicKey.from_public_bytes(cursor.string()))

    def encode_ssh_public(self) -> bytes:
        return encode_string(self._public.public_bytes_raw())

    @property
    def is_private(self) -> bool:
        return self._private is not None

    def convert_to_public(self) -> 'ToyKey':
        return ToyKey(None, self._public)

    def sign_raw(self, data: bytes, sig_algorithm: bytes) -> bytes:
        assert self._private is not None

        return self._private.sign(data)

    def verify_raw(self, data: bytes, sig_algorithm: bytes, blob: bytes) -> bool:
        try:
            self._public.verify(blob, data)
        except InvalidSignature:
            return False

        return True


ALGORITHMS = {
    'kex': 'toy-exchange@example.com',
    'encryption': 'sm4-ctr@example.com',
    'mac': 'hmac-blake2b@example.com',
    'compression': 'bzip2@example.com',
    'signature': 'toy-key@example.com',
}


@pytest.fixture
def registered() -> Iterator[None]:
    names = [*ALGORITHMS.values(), 'sm4-cbc@example.com', 'chacha-rfc@example.com', 'blake2b-etm@example.com']
    ssh_fast.register_kex_alg(names[0], ToyExchange)
    ssh_fast.register_encryption_alg(names[1], sm4, key_size=16, iv_size=16)
    ssh_fast.register_mac_alg(names[2], blake2, key_size=32, tag_size=32)
    ssh_fast.register_compression_alg(names[3], compressor, decompressor)
    ssh_fast.register_public_key_alg(ToyKey)
    ssh_fast.register_encryption_alg(names[5], sm4_cbc, key_size=16, iv_size=16)
    ssh_fast.register_encryption_alg(names[6], ChaChaRFC, key_size=32, iv_size=0, block_size=8, tag_size=16)
    ssh_fast.register_mac_alg(names[7], blake2, key_size=32, tag_size=32, etm=True)
    yield

    for name in names:
        ssh_fast.unregister_alg(name)


class Server(ssh_fast.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return False


async def handle(process: Any) -> None:
    process.stdout.write(await process.stdin.read())
    process.exit(0)


async def echo(server: dict[str, Any], client: dict[str, Any]) -> dict[str, Any]:
    """Send 200 KB there and back over a connection with these options; return what was negotiated."""

    keys = {'server_host_keys': [ssh_fast.generate_private_key('ssh-ed25519')], **server}
    text = 'some text that is long\n' * 9000

    async with ssh_fast.listen('127.0.0.1', 0, server_factory=Server, process_factory=handle, **keys) as acceptor:
        async with ssh_fast.connect(
            '127.0.0.1', acceptor.get_port(), known_hosts=None, username='user', client_keys=None, config=None, **client
        ) as connection:
            done = await connection.run('', input=text)
            assert done.stdout == text
            names = 'kex_alg host_key_alg send_cipher recv_cipher send_mac recv_mac send_compression'

            return {name: connection.get_extra_info(name) for name in names.split()}


async def test_a_connection_with_one_of_each(registered: None) -> None:
    options = {f'{kind}_algs': [name] for kind, name in ALGORITHMS.items()}
    before = ToyExchange.made
    key = ToyKey.generate(b'')
    chosen = await echo(
        {**options, 'server_host_keys': [key]}, {**options, 'server_host_key_algs': [ALGORITHMS['signature']]}
    )
    assert chosen == {
        'kex_alg': ALGORITHMS['kex'],
        'host_key_alg': ALGORITHMS['signature'],
        'send_cipher': ALGORITHMS['encryption'],
        'recv_cipher': ALGORITHMS['encryption'],
        'send_mac': ALGORITHMS['mac'],
        'recv_mac': ALGORITHMS['mac'],
        'send_compression': ALGORITHMS['compression'],
    }
    assert ToyExchange.made == before + 2


@pytest.mark.parametrize(
    ('cipher', 'mac'),
    [
        ('sm4-ctr@example.com', 'hmac-sha2-256'),
        ('sm4-cbc@example.com', 'hmac-sha2-512-etm@openssh.com'),
        ('sm4-cbc@example.com', 'hmac-md5-96'),
        ('aes128-ctr', 'hmac-blake2b@example.com'),
        ('3des-cbc', 'blake2b-etm@example.com'),
        ('chacha-rfc@example.com', ''),
    ],
)
async def test_ciphers_and_macs_of_both_origins_go_together(registered: None, cipher: str, mac: str) -> None:
    options = {'encryption_algs': [cipher], 'mac_algs': [mac] if mac else []}
    chosen = await echo(options, options)
    assert (chosen['send_cipher'], chosen['recv_mac']) == (cipher, mac)


async def test_named_only_unless_default(registered: None) -> None:
    for kind, name in ALGORITHMS.items():
        assert name.encode() in known_algorithms(kind)
        assert name.encode() not in available_algorithms(kind)

    ssh_fast.register_mac_alg('default-mac@example.com', blake2, key_size=32, tag_size=32, default=True)

    try:
        assert available_algorithms('mac')[-1] == b'default-mac@example.com'
        assert ssh_fast.SSHClientConnectionOptions(config=None).mac_algs[-1] == b'default-mac@example.com'
    finally:
        ssh_fast.unregister_alg('default-mac@example.com')

    assert b'default-mac@example.com' not in available_algorithms('mac')


# --- what is wrong

BAD_NAMES = ['', 'a,b', 'a b', 'ä', 'x' * 65, 'a\n', None, b'bytes']
TAKEN = ['aes128-ctr', 'aes128-cbc', 'none', 'default', 'hardened', 'legacy', 'sm4-ctr@example.com']


@pytest.mark.parametrize('name', BAD_NAMES + TAKEN)
def test_bad_and_taken_names(registered: None, name: Any) -> None:
    with pytest.raises(ValueError, match=r'^(name: expected|There is an algorithm)'):
        ssh_fast.register_encryption_alg(name, sm4, key_size=16, iv_size=16)


def test_taken_names_of_other_kinds(registered: None) -> None:
    for register in (
        lambda: ssh_fast.register_kex_alg('curve25519-sha256', ToyExchange),
        lambda: ssh_fast.register_mac_alg('hmac-sha1', blake2, key_size=1, tag_size=1),
        lambda: ssh_fast.register_compression_alg('zlib@openssh.com', compressor, decompressor),
        lambda: ssh_fast.register_public_key_alg(ToyKey),
    ):
        with pytest.raises(ValueError, match='There is an algorithm'):
            register()

    for name in ('aes128-ctr', 'hmac-sha1', 'curve25519-sha256', 'unheard-of'):
        with pytest.raises(ValueError, match='expected an algorithm that was registered'):
            ssh_fast.unregister_alg(name)


@pytest.mark.parametrize(
    'sizes', [{'block_size': 4}, {'block_size': 65}, {'tag_size': 65}, {'tag_size': -1}, {'key_size': -1}]
)
def test_bad_sizes_register_nothing(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r'_size: expected'):
        ssh_fast.register_encryption_alg('odd@example.com', sm4, **{'key_size': 32, 'iv_size': 16, **sizes})

    with pytest.raises(ValueError, match='registered'):
        ssh_fast.unregister_alg('odd@example.com')

    with pytest.raises(ValueError, match=r'tag_size: expected'):
        ssh_fast.register_mac_alg('odd@example.com', blake2, key_size=32, tag_size=0)


@pytest.mark.parametrize('wrong', ['short tag', 'no bytes', 'short text', 'raises', 'other tag', 'other AEAD tag'])
async def test_a_part_that_does_wrong_ends_the_connection(wrong: str) -> None:
    """Nothing but an error comes of it: neither side goes on with a packet that was not authenticated."""

    class Wrong:
        def __init__(self, key: bytes, iv: bytes, encrypt: bool) -> None:
            self._cipher = sm4(key, iv, encrypt)

        def update(self, data: bytes) -> Any:
            if wrong == 'raises':
                raise RuntimeError('no luck')

            done = self._cipher.update(data)

            return {'no bytes': bytearray(done), 'short text': done[:-1]}.get(wrong, done)

    class WrongAEAD(ChaChaRFC):
        def seal(self, sequence: int, head: bytes, body: bytes) -> bytes:
            sealed = super().seal(sequence, head, body)

            return sealed[:-1] + bytes([sealed[-1] ^ 1])

    def wrong_mac(key: bytes) -> Callable[[int, bytes], bytes]:
        def tag(sequence: int, packet: bytes) -> bytes:
            right = blake2(key)(sequence, packet)

            return right[:8] if wrong == 'short tag' else secrets.token_bytes(32) if wrong == 'other tag' else right

        return tag

    if wrong == 'other AEAD tag':
        ssh_fast.register_encryption_alg(
            'wrong@example.com', WrongAEAD, key_size=32, iv_size=0, block_size=8, tag_size=16
        )
    else:
        ssh_fast.register_encryption_alg('wrong@example.com', Wrong, key_size=16, iv_size=16)

    ssh_fast.register_mac_alg('wrong-mac@example.com', wrong_mac, key_size=32, tag_size=32, etm=True)

    try:
        options = {'encryption_algs': ['wrong@example.com'], 'mac_algs': ['wrong-mac@example.com']}

        with pytest.raises((ssh_fast.DisconnectError, OSError)):
            await echo(options, options)
    finally:
        ssh_fast.unregister_alg('wrong@example.com')
        ssh_fast.unregister_alg('wrong-mac@example.com')


def test_these_tests_use_real_primitives() -> None:
    """The stand-ins above are what they are called, so that what they prove is not about themselves."""

    assert blake2(b'k' * 32)(1, b'p') != blake2(b'k' * 32)(2, b'p')
    assert not hmac.compare_digest(blake2(b'k' * 32)(1, b'p'), blake2(b'l' * 32)(1, b'p'))

    with pytest.raises(InvalidTag):
        ChaChaRFC(bytes(32), b'', False).open(0, b'head', bytes(32))
