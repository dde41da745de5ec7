"""Streams to an agent by the name of its socket; on Windows by that of its pipe, OpenSSH's or Pageant's.

Pageant's pipe is named after the user and a secret of the login session, which CryptProtectMemory gives: nobody else
can make a pipe of that name first.
"""

import asyncio
import ctypes
import hashlib
import os
import sys
from typing import Any

OPENSSH_PIPE = r'\\.\pipe\openssh-ssh-agent'

_CRYPT_BLOCK = 16               # CRYPTPROTECTMEMORY_BLOCK_SIZE
_CRYPT_CROSS_PROCESS = 1        # CRYPTPROTECTMEMORY_CROSS_PROCESS


def default_agent_path() -> str:
    """Return where the user's agent is; `FileNotFoundError` if nothing says so."""

    if path := os.environ.get('SSH_AUTH_SOCK'):
        return path

    if sys.platform != 'win32':
        raise FileNotFoundError('No agent to connect to: SSH_AUTH_SOCK is not set')

    pageant = pageant_pipe(_protect_memory)

    return pageant if os.path.exists(pageant) else OPENSSH_PIPE


async def open_agent_stream(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open the stream; `OSError` if that fails."""

    if not path.startswith('\\\\.\\pipe\\'):
        return await asyncio.open_unix_connection(path)

    # Only the event loop of Windows that waits for completions has pipes.
    loop: Any = asyncio.get_running_loop()

    if not hasattr(loop, 'create_pipe_connection'):
        raise OSError(f'Pipes such as {path} need the proactor event loop of Windows')

    reader = asyncio.StreamReader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_pipe_connection(lambda: protocol, path)

    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def pageant_pipe(protect: Any) -> str:
    """Return the name of Pageant's pipe; `protect` encrypts memory for this user's login session."""

    name = b'Pageant\0'
    hidden = protect(name.ljust(-(-len(name) // _CRYPT_BLOCK) * _CRYPT_BLOCK, b'\0'))
    digest = hashlib.sha256(len(hidden).to_bytes(4, 'big') + hidden).hexdigest()

    return rf'\\.\pipe\pageant.{os.environ.get("USERNAME", "")}.{digest}'


def _protect_memory(data: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(data, len(data))
    windll: Any = vars(ctypes)['windll']

    if not windll.crypt32.CryptProtectMemory(buffer, len(data), _CRYPT_CROSS_PROCESS):
        raise OSError('Windows could not tell the name of the pipe of Pageant')

    return buffer.raw
