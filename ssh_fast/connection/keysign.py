"""Signatures with this host's keys through OpenSSH's ssh-keysign, which alone may read them.

It is given the socket of the connection, to see that the request names this host, and string-framed messages: byte
version, uint32 descriptor, string data; and back: byte version, string signature (ssh-keysign(8)).
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import KeyImportError, PacketDecodeError
from ..keys.key import SSHKey
from ..keys.keypair import SSHKeyPair
from ..keys.load import read_public_key
from ..logging import logger, printable
from ..wire import Cursor, encode_byte, encode_string, encode_uint32

_VERSION = 2
_TIMEOUT = 30.0     # seconds
_MAX_REPLY = 64 * 1024
_HOST_KEYS = tuple(
    Path(f'/etc/ssh/ssh_host_{kind}_key.pub') for kind in ('ed25519', 'ecdsa', 'rsa')
)


class KeySignError(Exception):
    """ssh-keysign did not sign."""


class SSHKeySignKeyPair(SSHKeyPair):
    """A key of this host, whose private part ssh-keysign holds."""

    _key_type = 'keysign'

    def __init__(self, program: Path, sock: Any, key: SSHKey) -> None:
        super().__init__(key.algorithm, key.sig_algorithms, key.public_data, key.get_comment_bytes())

        self._program = program
        self._socket = sock

    async def sign(self, data: bytes) -> bytes:
        """Have the program sign a request; it takes requests of host-based logins only.

        Raises:
          KeySignError: it does not sign
        """

        fd = self._socket.fileno()
        message = encode_byte(_VERSION) + encode_uint32(fd) + encode_string(data)

        try:
            process = await asyncio.create_subprocess_exec(
                str(self._program),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(fd,),
            )
        except OSError as exc:
            raise KeySignError(f'{self._program} cannot be run: {exc}') from exc

        try:
            reply, errors = await asyncio.wait_for(process.communicate(encode_string(message)), _TIMEOUT)
        except TimeoutError:
            raise KeySignError(f'{self._program} did not answer in {_TIMEOUT:.0f} seconds') from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

        return self._decode(reply[:_MAX_REPLY], errors)

    def _decode(self, reply: bytes, errors: bytes) -> bytes:
        cursor = Cursor(reply)

        try:
            answer = Cursor(cursor.string())
            version = answer.byte()
            signature = answer.string()
        except PacketDecodeError:
            told = printable(errors.decode(errors='replace').strip(), 256) or 'no reason given'
            raise KeySignError(f'{self._program} did not sign: {told}') from None

        if version != _VERSION:
            raise KeySignError(f'{self._program} speaks version {version}, expected {_VERSION}')

        return signature


def keysign_pairs(program: Path, sock: Any, files: Sequence[Path] = _HOST_KEYS) -> list[SSHKeyPair]:
    """List this host's keys, as far as their public parts can be read."""

    pairs: list[SSHKeyPair] = []

    for path in files:
        try:
            if os.access(path, os.R_OK):
                pairs.append(SSHKeySignKeyPair(program, sock, read_public_key(path)))
        except (OSError, KeyImportError) as exc:
            logger.info("This host's key %s is left out: %s", path, printable(str(exc)))

    return pairs
