"""Host key rotation: a server tells its keys to clients that know it already (draft-miller-sshm-hostkey-update).

hostkeys-00@openssh.com carries all the keys of a server; for those that are new to it a client asks, by
hostkeys-prove-00@openssh.com, for a signature of each over: string request name | string session id | string key.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..channel.mux import Mux
from ..errors import KeyImportError, PacketDecodeError
from ..keys.certificate_names import is_certificate_algorithm, plain_algorithm
from ..keys.key import SSHKey, decode_public_key, verify_signature
from ..keys.keypair import SSHKeyPair
from ..keys.known_hosts_file import replace_known_host
from ..logging import ContextLogger
from ..wire import Cursor, encode_string
from .host_keys import HostKeyPolicy, includes

HOST_KEYS = b'hostkeys-00@openssh.com'
PROVE_HOST_KEYS = b'hostkeys-prove-00@openssh.com'

# A server has one key of each type, two while it changes them.
_MAX_KEYS = 64

Handler = Callable[[list[SSHKey], list[SSHKey], list[SSHKey], list[SSHKey]], Awaitable[None] | None]


class HostKeyChange(NamedTuple):
    """How the keys that a server says it has differ from those that known_hosts lists for it."""

    added: list[SSHKey]
    removed: list[SSHKey]
    retained: list[SSHKey]
    revoked: list[SSHKey]


class UpdateConnection(Protocol):
    """The client connection that hears of a server's keys."""

    @property
    def logger(self) -> ContextLogger:
        """The connection's logger."""

    def host_keys_changed(self, change: HostKeyChange) -> None:
        """Act on a change whose new keys the server has proven to hold."""


class HostKeyUpdate:
    """The client's part: takes one list of keys, and has the new ones proven."""

    def __init__(
        self,
        connection: UpdateConnection,
        policy: HostKeyPolicy,
        host_key: SSHKey,
        session_id: bytes,
        host_key_algs: Sequence[bytes],
    ) -> None:
        self._connection = connection
        self._policy = policy
        self._host_key = host_key
        self._session_id = session_id
        self._algorithms = frozenset(plain_algorithm(name) for name in host_key_algs)
        self._seen = False

    def keys_received(self, cursor: Cursor, mux: Mux) -> None:
        """Take the server's keys; those of types that are not known here are passed over.

        Nothing follows unless the key that the server showed is in known_hosts: who is trusted for another reason, a
        certificate or the application's word, changes no file.
        """

        if self._seen or not includes(self._policy.trusted, self._host_key):
            return

        self._seen = True
        keys = _decode_keys(cursor)

        if not includes(keys, self._host_key):
            self._connection.logger.info("The server's list of host keys lacks the key that it used: ignored")
            return

        trusted = self._policy.trusted
        valid = [key for key in keys if not self._policy.is_revoked(key)]
        change = HostKeyChange(
            [key for key in valid if not includes(trusted, key)],
            [key for key in trusted if not includes(keys, key)],
            [key for key in valid if includes(trusted, key)],
            [key for key in keys if self._policy.is_revoked(key)],
        )

        if change.added:
            mux.send_global_request(
                PROVE_HOST_KEYS,
                *(encode_string(key.public_data) for key in change.added),
                answer=partial(self._proof_received, change),
            )
        elif change.removed or change.revoked or change.retained:
            self._connection.host_keys_changed(change)

    def _proof_received(self, change: HostKeyChange, success: bool, data: bytes) -> None:
        proven = self._proven(change.added, data) if success else []

        if len(proven) < len(change.added):
            self._connection.logger.warning(
                'The server told of %d new host keys and proved to hold %d: the others are ignored',
                len(change.added),
                len(proven),
            )

        if proven or (success and change.removed):
            self._connection.host_keys_changed(change._replace(added=proven))

    def _proven(self, keys: Sequence[SSHKey], data: bytes) -> list[SSHKey]:
        """Return the keys whose signature is right; RSA's with SHA-1, as AsyncSSH's servers make them, are not."""

        cursor = Cursor(data)

        try:
            signatures = [cursor.string() for _ in keys]
            cursor.check_end()
        except PacketDecodeError:
            return []

        return [
            key
            for key, signature in zip(keys, signatures, strict=True)
            if verify_signature(key, _proof(self._session_id, key.public_data), signature, self._algorithms) is True
        ]


def update_file(
    path: Path, host: str, port: int, change: HostKeyChange, hashed: bool, logger: ContextLogger
) -> None:
    """Write a change to a known_hosts file, in one step; what fails is logged: the connection does not depend on it."""

    try:
        replace_known_host(path, host, port, change.added, [*change.removed, *change.revoked], hashed)
    except (OSError, ValueError) as exc:
        logger.warning('%s was not updated: %s', path, exc)


def _decode_keys(cursor: Cursor) -> list[SSHKey]:
    keys: list[SSHKey] = []

    for _ in range(_MAX_KEYS):
        if not cursor.remaining:
            return keys

        try:
            key = decode_public_key(cursor.string())
        except KeyImportError:
            continue

        if not includes(keys, key):
            keys.append(key)

    raise PacketDecodeError(f'Expected at most {_MAX_KEYS} host keys, got more')


def _proof(session_id: bytes, key_data: bytes) -> bytes:
    return encode_string(PROVE_HOST_KEYS) + encode_string(session_id) + encode_string(key_data)


# --- the server's part


def encode_host_keys(pairs: Sequence[SSHKeyPair]) -> list[bytes]:
    """Encode the keys that a server tells its clients of, each once, without certificates."""

    blobs = [pair.public_data for pair in pairs if not is_certificate_algorithm(pair.algorithm)]

    return [encode_string(blob) for blob in dict.fromkeys(blobs)]


def prove_host_keys(
    pairs: Sequence[SSHKeyPair], cursor: Cursor, session_id: bytes, host_key_alg: bytes
) -> bool | bytes:
    """Sign for the keys that a client asks about; False if one is not ours.

    An RSA key signs with the algorithm of the key exchange if that was RSA's, as OpenSSH's clients expect it.
    """

    held = {pair.public_data: pair for pair in pairs if not is_certificate_algorithm(pair.algorithm)}
    chosen = plain_algorithm(host_key_alg)
    signatures: list[bytes] = []

    while cursor.remaining:
        blob = cursor.string()
        pair: Any = held.get(blob)

        if pair is None or len(signatures) == _MAX_KEYS:
            return False

        pair.set_sig_algorithm(chosen if chosen in pair.sig_algorithms else pair.sig_algorithms[0])
        signature = pair.sign(_proof(session_id, blob))

        if not isinstance(signature, bytes):
            raise TypeError('A host key must sign at once')

        signatures.append(encode_string(signature))

    return b''.join(signatures) if signatures else False
