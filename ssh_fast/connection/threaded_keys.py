"""Key pairs that wait for a person or a device: their signing is moved to a thread, so that the event loop goes on."""

import asyncio
import copy
from collections.abc import Awaitable
from inspect import isawaitable
from weakref import WeakKeyDictionary

from ..keys.keypair import Seal, SSHKeyPair, SSHSealedKeyPair

# Of logins that want the same encrypted key one asks for its passphrase; those of the same loop wait for each other.
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakKeyDictionary[Seal, asyncio.Lock]] = WeakKeyDictionary()


class ThreadedKeyPair(SSHKeyPair):
    """A key pair that signs as another does, in a thread."""

    def __init__(self, pair: SSHKeyPair) -> None:
        super().__init__(
            pair.algorithm, pair.sig_algorithms, pair.public_data, pair.get_comment_bytes(), pair.get_filename()
        )
        self.host_key_algorithms = pair.host_key_algorithms
        self._cert = pair.certificate
        self._pair = pair

    def get_key_type(self) -> str:
        """Return where the private key is kept."""

        return self._pair.get_key_type()

    def sign(self, data: bytes) -> Awaitable[bytes]:
        """Sign data with the chosen algorithm."""

        pair = copy.copy(self._pair)
        pair.set_sig_algorithm(self.sig_algorithm)

        return self._sign(pair, data)

    async def _sign(self, pair: SSHKeyPair, data: bytes) -> bytes:
        if isinstance(pair, SSHSealedKeyPair):
            await _open(pair.seal)

        signature = await asyncio.get_running_loop().run_in_executor(None, pair.sign, data)

        return signature if isinstance(signature, bytes) else await signature


async def _open(seal: Seal) -> None:
    """Open an encrypted key, unless it is open; asking and computing both take their time."""

    if seal.key is not None:
        return

    loop = asyncio.get_running_loop()
    turns = _turns.setdefault(loop, WeakKeyDictionary())

    async with turns.setdefault(seal, asyncio.Lock()):
        if seal.key is None:
            answer = await loop.run_in_executor(None, seal.ask)
            passphrase = await answer if isawaitable(answer) else answer
            await loop.run_in_executor(None, seal.open_with, passphrase)
            turns.pop(seal, None)


def in_thread(pair: SSHKeyPair) -> SSHKeyPair:
    """Return a key pair whose `sign` does not block."""

    return ThreadedKeyPair(pair) if pair.use_executor else pair
