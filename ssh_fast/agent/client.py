"""The client of a key agent: lists the agent's keys, has it sign, and adds and removes keys.

The protocol is draft-ietf-sshm-ssh-agent: uint32 length, then a message that begins with its type; one reply a request.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Generator, Iterable, Sequence
from types import TracebackType
from typing import Protocol, Self

from ..errors import KeyImportError, PacketDecodeError
from ..keys.certificate import decode_certificate, is_certificate_blob
from ..keys.key import decode_public_key, verify_signature
from ..keys.keypair import SSHKeyPair
from ..keys.load import KeyPairList, load_default_keypairs, load_keypairs
from ..logging import logger, printable
from ..wire import Cursor, encode_boolean, encode_byte, encode_string, encode_uint32
from .constraints import SSHAgentDestination, encode_constraints
from .streams import default_agent_path, open_agent_stream

# Message numbers (draft-ietf-sshm-ssh-agent section 6.1)
_FAILURE = 5
_SUCCESS = 6
_REQUEST_IDENTITIES = 11
_IDENTITIES_ANSWER = 12
_SIGN_REQUEST = 13
_SIGN_RESPONSE = 14
_ADD_IDENTITY = 17
_REMOVE_IDENTITY = 18
_REMOVE_ALL_IDENTITIES = 19
_ADD_SMARTCARD_KEY = 20
_REMOVE_SMARTCARD_KEY = 21
_LOCK = 22
_UNLOCK = 23
_ADD_ID_CONSTRAINED = 25
_ADD_SMARTCARD_KEY_CONSTRAINED = 26
_EXTENSION = 27
_EXTENSION_FAILURE = 28
_EXTENSION_RESPONSE = 29

_SESSION_BIND = 'session-bind@openssh.com'

# What OpenSSH calls the support of security keys that is built in
_SK_INTERNAL = 'internal'

# Flags of a sign request, by signature algorithm
_SIGN_FLAGS = {b'rsa-sha2-256': 2, b'rsa-sha2-512': 4}

# OpenSSH's AGENT_MAX_LEN and MAX_AGENT_IDENTITIES
_MAX_MESSAGE_SIZE = 256 * 1024
_MAX_IDENTITIES = 2048


class SSHAgentError(ValueError):
    """The agent refused a request, or its reply is not one to that request."""


class SSHAgentRefusal(SSHAgentError):
    """The agent said no to a request; the connection to it goes on."""


class AgentOpener(Protocol):
    """What can open a stream to an agent elsewhere: a server's connection whose client forwards its agent."""

    def open_agent_connection(self) -> Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Open the stream."""


class SSHAgentKeyPair(SSHKeyPair):
    """A key pair whose private key an agent holds; its signatures are awaitables."""

    _key_type = 'agent'

    def __init__(self, agent: 'SSHAgentClient', algorithm: bytes, public_data: bytes, comment: bytes) -> None:
        cert = decode_certificate(public_data) if is_certificate_blob(public_data) else None
        self._public_key = cert.key if cert else decode_public_key(public_data)
        super().__init__(
            self._public_key.algorithm, self._public_key.sig_algorithms, self._public_key.public_data, comment
        )

        # By what the agent knows the key, also if it is shown with a certificate that the agent doesn't have
        self.held_data = public_data
        self._agent = agent

        if cert:
            self.set_certificate(cert)

    def sign(self, data: bytes) -> Awaitable[bytes]:
        """Have the agent sign data with the chosen algorithm."""

        return self.sign_async(data)

    async def sign_async(self, data: bytes) -> bytes:
        """Have the agent sign data; a signature that is wrong, or by another algorithm, raises `SSHAgentError`."""

        sig_algorithm = self.sig_algorithm
        sig = await self._agent.sign(self.held_data, data, _SIGN_FLAGS.get(sig_algorithm, 0))

        if not verify_signature(self._public_key, data, sig, (sig_algorithm,)):
            raise SSHAgentError(f'The agent did not make a valid {sig_algorithm.decode()} signature')

        return sig

    async def remove(self) -> None:
        """Remove the key from the agent."""

        await self._agent.remove_keys([self])


class SSHAgentClient:
    """A connection to an agent, opened when first needed and again after it broke. Requests wait for each other."""

    def __init__(self, agent_path: str | AgentOpener) -> None:
        self._agent_path = agent_path
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        await self.wait_closed()

    async def connect(self) -> None:
        """Connect to the agent; `OSError` if that fails."""

        if isinstance(self._agent_path, str):
            self._reader, self._writer = await open_agent_stream(self._agent_path)
        else:
            self._reader, self._writer = await self._agent_path.open_agent_connection()

    # --- keys

    async def get_keys(self, identities: Sequence[bytes] | None = None) -> Sequence[SSHKeyPair]:
        """Return the agent's keys, or those of them whose public key blob is in `identities`.

        Keys of a type that is not known are left out.
        """

        cursor = await self._request(_IDENTITIES_ANSWER, 'list its keys', encode_byte(_REQUEST_IDENTITIES))

        try:
            # A count is no reason to allocate: each key must be there.
            count = cursor.uint32()

            if count > _MAX_IDENTITIES:
                raise SSHAgentError(f'Expected at most {_MAX_IDENTITIES} keys from the agent, got {count}')

            blobs = [(cursor.string(), cursor.string()) for _ in range(count)]
            cursor.check_end()
        except PacketDecodeError as exc:
            raise SSHAgentError(f'Malformed list of keys from the agent: {exc.reason}') from None

        keypairs: list[SSHKeyPair] = []

        for public_data, comment in blobs:
            if identities is not None and public_data not in identities:
                continue

            try:
                keypairs.append(SSHAgentKeyPair(self, Cursor(public_data).string(), public_data, comment))
            except (KeyImportError, PacketDecodeError) as exc:
                logger.debug('A key of the agent is left out: %s', printable(str(exc)))

        return keypairs

    async def sign(self, key_blob: bytes, data: bytes, flags: int = 0) -> bytes:
        """Have the agent sign data with a key; return string algorithm, string signature, as the agent sent it."""

        request = encode_byte(_SIGN_REQUEST) + encode_string(key_blob) + encode_string(data) + encode_uint32(flags)
        cursor = await self._request(_SIGN_RESPONSE, 'sign', request)

        try:
            sig = cursor.string()
            cursor.check_end()
        except PacketDecodeError as exc:
            raise SSHAgentError(f'Malformed signature from the agent: {exc.reason}') from None

        return sig

    async def add_keys(
        self,
        keylist: KeyPairList = (),
        passphrase: str | None = None,
        lifetime: int | None = None,
        confirm: bool = False,
    ) -> None:
        """Add keys, by default the user's own of ~/.ssh, for `lifetime` seconds, each use to be confirmed if asked."""

        await self.add_constrained_keys(keylist, passphrase, lifetime=lifetime, confirm=confirm)

    async def add_constrained_keys(
        self,
        keylist: KeyPairList = (),
        passphrase: str | None = None,
        *,
        lifetime: int | None = None,
        confirm: bool = False,
        destinations: Iterable[SSHAgentDestination] = (),
        sk_provider: str | None = None,
    ) -> None:
        """Add keys as `add_keys` does, that the agent uses for logins at these destinations only, if there are any.

        `sk_provider` is the library by which the agent reaches a security key: by default that of SSH_SK_PROVIDER, or
        the agent's own.
        """

        sk_provider = sk_provider or os.environ.get('SSH_SK_PROVIDER') or _SK_INTERNAL
        steps = tuple(destinations)
        plain = encode_constraints(lifetime, confirm, steps)
        for_sk = encode_constraints(lifetime, confirm, steps, sk_provider)
        loop = asyncio.get_running_loop()

        # Opening an encrypted key takes a second of computing.
        if keylist:
            keypairs = await loop.run_in_executor(None, load_keypairs, keylist, passphrase)
        else:
            keypairs = await loop.run_in_executor(None, load_default_keypairs, passphrase)

        for keypair in keypairs:
            constraints = for_sk if keypair.algorithm.startswith(b'sk-') else plain
            kind = _ADD_ID_CONSTRAINED if constraints else _ADD_IDENTITY
            private = await loop.run_in_executor(None, keypair.get_agent_private_key)
            comment = encode_string(keypair.get_comment_bytes() or b'')
            await self._request(_SUCCESS, 'add a key', encode_byte(kind) + private + comment + constraints)

    async def remove_keys(self, keylist: Sequence[SSHKeyPair]) -> None:
        """Remove keys."""

        for keypair in keylist:
            data = keypair.held_data if isinstance(keypair, SSHAgentKeyPair) else keypair.public_data
            request = encode_byte(_REMOVE_IDENTITY) + encode_string(data)
            await self._request(_SUCCESS, 'remove a key', request)

    async def remove_all(self) -> None:
        """Remove all keys."""

        await self._request(_SUCCESS, 'remove all keys', encode_byte(_REMOVE_ALL_IDENTITIES))

    async def add_smartcard_keys(
        self, provider: str, pin: str | None = None, lifetime: int | None = None, confirm: bool = False
    ) -> None:
        """Add the keys of a smartcard, by the path of its PKCS#11 provider."""

        await self.add_constrained_smartcard_keys(provider, pin, lifetime=lifetime, confirm=confirm)

    async def add_constrained_smartcard_keys(
        self,
        provider: str,
        pin: str | None = None,
        *,
        lifetime: int | None = None,
        confirm: bool = False,
        destinations: Iterable[SSHAgentDestination] = (),
    ) -> None:
        """Add the keys of a smartcard, for logins at these destinations only, if there are any."""

        constraints = encode_constraints(lifetime, confirm, destinations)
        kind = _ADD_SMARTCARD_KEY_CONSTRAINED if constraints else _ADD_SMARTCARD_KEY
        request = encode_byte(kind) + encode_string(provider) + encode_string(pin or '') + constraints
        await self._request(_SUCCESS, 'add smartcard keys', request)

    async def remove_smartcard_keys(self, provider: str, pin: str | None = None) -> None:
        """Remove the keys of a smartcard."""

        request = encode_byte(_REMOVE_SMARTCARD_KEY) + encode_string(provider) + encode_string(pin or '')
        await self._request(_SUCCESS, 'remove smartcard keys', request)

    @staticmethod
    def encode_constraints(lifetime: int | None, confirm: bool) -> bytes:
        """Encode the constraints of an added key (draft-ietf-sshm-ssh-agent section 3.2.7)."""

        return encode_constraints(lifetime, confirm)

    # --- the agent itself

    async def lock(self, passphrase: str) -> None:
        """Lock the agent until it is unlocked with the same passphrase."""

        await self._request(_SUCCESS, 'lock', encode_byte(_LOCK) + encode_string(passphrase))

    async def unlock(self, passphrase: str) -> None:
        """Unlock the agent."""

        await self._request(_SUCCESS, 'unlock', encode_byte(_UNLOCK) + encode_string(passphrase))

    async def query_extensions(self) -> Sequence[str]:
        """Return the names of the extensions that the agent says it has; none if it doesn't say."""

        reply = await self._exchange(encode_byte(_EXTENSION) + encode_string('query'))
        cursor = Cursor(reply)
        kind = cursor.byte()

        if kind in (_FAILURE, _EXTENSION_FAILURE):
            return []

        names = []

        try:
            if kind == _EXTENSION_RESPONSE:
                cursor.string()
            elif kind != _SUCCESS:
                self._drop()
                raise SSHAgentError(f'Expected a list of extensions from the agent, got message {kind}')

            while cursor.remaining:
                names.append(cursor.text())
        except PacketDecodeError as exc:
            raise SSHAgentError(f'Malformed list of extensions from the agent: {exc.reason}') from None

        return names

    async def bind_session(
        self, host_key: bytes, session_id: bytes, signature: bytes, is_forwarding: bool = False
    ) -> None:
        """Tell the agent for which connection this one is used, which its constraints of destinations need.

        The host key and its signature of the session id are those of the connection's first key exchange. An agent that
        doesn't know of this, or doesn't find the signature valid, raises `SSHAgentError`.
        """

        fields = encode_string(host_key) + encode_string(session_id) + encode_string(signature)
        request = encode_byte(_EXTENSION) + encode_string(_SESSION_BIND) + fields + encode_boolean(is_forwarding)
        await self._request(_SUCCESS, 'bind a session', request)

    async def detach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Give the stream away, connected if it isn't: this client opens another one when it is used again."""

        async with self._lock:
            if self._reader is None or self._writer is None or self._writer.is_closing():
                await self.connect()

            reader, writer = self._reader, self._writer
            self._reader = self._writer = None
            assert reader is not None and writer is not None

            return reader, writer

    def close(self) -> None:
        """Close the connection; keys got from this client can no longer sign unless it is connected anew."""

        if self._writer is not None:
            self._writer.close()

    async def wait_closed(self) -> None:
        """Wait until the connection is closed."""

        if self._writer is not None:
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

            self._reader = self._writer = None

    # --- requests and replies

    async def _request(self, expected: int, action: str, request: bytes) -> Cursor:
        """Exchange a request for the reply expected; the cursor returned stands behind its type."""

        reply = await self._exchange(request)

        if reply[0] == expected:
            cursor = Cursor(reply)
            cursor.byte()

            if expected == _SUCCESS:
                # Bytes behind it have no meaning; they do no harm.
                cursor.rest()

            return cursor

        if reply[0] == _FAILURE or (reply[0] == _EXTENSION_FAILURE and request[0] == _EXTENSION):
            raise SSHAgentRefusal(f'The agent refused to {action}')

        # Whatever this is a reply to, the next one may be just as late.
        self._drop()

        raise SSHAgentError(f'Expected message {expected} from the agent asked to {action}, got {reply[0]}')

    async def _exchange(self, request: bytes) -> bytes:
        """Send a request, and return the reply; it holds at least its type."""

        if len(request) > _MAX_MESSAGE_SIZE:
            raise SSHAgentError(f'Expected an agent request of at most {_MAX_MESSAGE_SIZE} bytes, got {len(request)}')

        async with self._lock:
            if self._reader is None or self._writer is None or self._writer.is_closing():
                await self.connect()

            reader, writer = self._reader, self._writer
            assert reader is not None and writer is not None

            try:
                writer.write(encode_string(request))
                await writer.drain()
                size = int.from_bytes(await reader.readexactly(4), 'big')

                if not 1 <= size <= _MAX_MESSAGE_SIZE:
                    raise SSHAgentError(
                        f'Expected an agent message of 1 to {_MAX_MESSAGE_SIZE} bytes, got one of {size}'
                    )

                return await reader.readexactly(size)
            except (asyncio.IncompleteReadError, OSError) as exc:
                self._drop()
                raise SSHAgentError('The agent closed the connection before it replied') from exc
            except BaseException:
                # Cancelled too: the reply that is still to come must not be taken for the next one's.
                self._drop()
                raise

    def _drop(self) -> None:
        if self._writer is not None:
            self._writer.close()

        self._reader = self._writer = None


class _AgentConnection:
    """What `connect_agent` returns: to be awaited, or entered with `async with`."""

    def __init__(self, agent_path: str | AgentOpener) -> None:
        self._agent_path = agent_path
        self._agent: SSHAgentClient | None = None

    def __await__(self) -> Generator[object, None, SSHAgentClient]:
        return self._connect().__await__()

    async def __aenter__(self) -> SSHAgentClient:
        self._agent = await self._connect()

        return self._agent

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._agent is not None:
            self._agent.close()
            await self._agent.wait_closed()

    async def _connect(self) -> SSHAgentClient:
        agent = SSHAgentClient(self._agent_path or default_agent_path())
        await agent.connect()

        return agent


def connect_agent(agent_path: str | AgentOpener = '') -> _AgentConnection:
    """Connect to an agent by the path of its socket, by default that of SSH_AUTH_SOCK; `OSError` if that fails.

    On Windows the path may be that of a pipe; by default it is Pageant's, or else that of OpenSSH's agent. The result
    is awaited, or used with `async with`. A connection whose client forwards its agent can stand for a path.
    """

    return _AgentConnection(agent_path)
