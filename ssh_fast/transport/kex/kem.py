"""The key encapsulation methods that libraries here offer: ML-KEM of `cryptography`, sntrup761 of `pqcrypto`."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import mlkem


class KEM(NamedTuple):
    """One method; sizes in bytes. Its functions raise `ValueError` for a value that is not valid."""

    name: str
    public_size: int
    ciphertext_size: int
    generate: Callable[[], tuple[Any, bytes]]               # private key, public key
    encapsulate: Callable[[bytes], tuple[bytes, bytes]]     # public key -> secret, ciphertext
    decapsulate: Callable[[Any, bytes], bytes]              # private key, ciphertext -> secret


def _mlkem(name: str, private: Any, public: Any, public_size: int, ciphertext_size: int) -> KEM | None:
    """Make a KEM of the classes of `cryptography`, if the library behind it has it."""

    def generate() -> tuple[Any, bytes]:
        key = private.generate()

        return key, key.public_key().public_bytes_raw()

    try:
        generate()
    except UnsupportedAlgorithm:
        return None

    return KEM(
        name,
        public_size,
        ciphertext_size,
        generate,
        lambda data: public.from_public_bytes(data).encapsulate(),
        lambda key, ciphertext: key.decapsulate(ciphertext),
    )


def _sntrup761() -> KEM | None:
    """Make a KEM of the optional package `pqcrypto`, if it is installed and has what is needed."""

    try:
        module = import_module('pqcrypto.kem.sntrup_761')
        sizes = module.PUBLIC_KEY_SIZE, module.CIPHERTEXT_SIZE
    except (ImportError, AttributeError):
        return None

    # Making a key takes about 20 ms.
    def generate() -> tuple[Any, bytes]:
        public, private = module.keygen()

        return private, public

    def encapsulate(data: bytes) -> tuple[bytes, bytes]:
        ciphertext, secret = module.encaps(data)

        return secret, ciphertext

    def decapsulate(key: Any, ciphertext: bytes) -> bytes:
        secret: bytes = module.decaps(key, ciphertext)

        return secret

    return KEM('sntrup761', *sizes, generate, encapsulate, decapsulate) if sizes == (1158, 1039) else None


# FIPS 203: the sizes of a public key and a ciphertext
MLKEM768 = _mlkem('ML-KEM-768', mlkem.MLKEM768PrivateKey, mlkem.MLKEM768PublicKey, 1184, 1088)
MLKEM1024 = _mlkem('ML-KEM-1024', mlkem.MLKEM1024PrivateKey, mlkem.MLKEM1024PublicKey, 1568, 1568)
SNTRUP761 = _sntrup761()
