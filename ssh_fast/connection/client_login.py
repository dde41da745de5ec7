"""What a client answers while it logs in: the keys, passwords and responses of its options, agent and owner."""

import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from inspect import isawaitable
from typing import Any, Protocol, TypeVar, cast

from ..agent.client import SSHAgentClient, SSHAgentError
from ..gss_context import GSSContext
from ..keys.keypair import SSHKeyPair
from ..keys.load import load_keypairs
from ..logging import ContextLogger
from ..userauth.client import ClientAuth
from ..userauth.client_methods import HostCredential
from .callbacks import SSHClient
from .gss import ClientContext
from .host_lookup import own_name
from .keysign import keysign_pairs
from .options import SSHClientConnectionOptions
from .threaded_keys import in_thread

T = TypeVar('T')


class LoginConnection(Protocol):
    """The connection that a login is for."""

    @property
    def logger(self) -> ContextLogger:
        """The connection's logger."""

    def send_message(self, payload: bytes) -> None:
        """Send a message."""

    def ask(
        self,
        question: Callable[[], T | Awaitable[T]],
        answer: Callable[[T], None],
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Put a question; received messages are held back until it is answered."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Look up what is known of the connection."""

    def login_succeeded(self) -> None:
        """The user is logged in."""

    def login_completed(self) -> None:
        """The owner knows it too."""

    def fail(self, exc: Exception) -> None:
        """End the connection."""


class ClientLogin:
    """Answers the questions of a `ClientAuth`: what the options give comes first, then what the owner is asked for."""

    def __init__(
        self,
        connection: LoginConnection,
        owner: SSHClient,
        options: SSHClientConnectionOptions,
        session_id: bytes,
        peer_sig_algs: Collection[bytes] | None,
        *,
        encrypted: bool,
        proof: tuple[bytes, bytes, bytes] | None = None,
        gss_context: GSSContext | None = None,
    ) -> None:
        self._connection = connection
        self._proof = proof
        self._kex_gss_context = gss_context
        self._owner = owner
        self._options = options
        self._keys: deque[SSHKeyPair] | None = None
        self._host_keys = deque(options.client_host_keys)
        self._host_name = ''
        self._keysign_used = False
        self._password_taken = False
        self._agent: SSHAgentClient | None = None
        self._auth = ClientAuth(
            self,
            options.username,
            session_id,
            options.preferred_auth,
            peer_sig_algs,
            encrypted=encrypted,
            signature_algs=options.signature_algs,
            sign_at_once=_has_one_key(options),
            disable_trivial_auth=options.disable_trivial_auth,
            utf8_decode_errors=options.utf8_decode_errors,
        )

    @property
    def server_methods(self) -> tuple[bytes, ...]:
        """The methods that can continue, as the server named them last."""

        return self._auth.server_methods

    def start(self) -> None:
        """Begin."""

        self._owner.begin_auth(self._options.username)
        self._auth.start()

    def message_received(self, message_type: int, payload: bytes) -> bool:
        """Handle a message of 50 to 79."""

        self._auth.message_received(message_type, payload)

        return True

    def close(self) -> None:
        """Let the agent go."""

        if self._agent:
            self._agent.close()
            self._agent = None

    # --- what the login tells

    def send_message(self, payload: bytes) -> None:
        """Send a message."""

        self._connection.send_message(payload)

    def ask(
        self,
        question: Callable[[], T | Awaitable[T]],
        answer: Callable[[T], None],
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Put a question to whoever answers it."""

        self._connection.ask(question, answer, failed)

    def auth_succeeded(self) -> None:
        """Go on to the channels."""

        self.close()
        self._connection.login_succeeded()
        self._owner.auth_completed()
        self._connection.login_completed()

    def auth_failed(self, exc: Exception) -> None:
        """End the connection."""

        self.close()
        self._connection.fail(exc)

    def banner_received(self, message: str, lang: str) -> None:
        """Show the server's text to the owner."""

        self._owner.auth_banner_received(message, lang)

    # --- keys

    def next_public_key(self) -> SSHKeyPair | Awaitable[SSHKeyPair | None] | None:
        """Return the next key: of the options and the agent, then the owner's."""

        if self._keys is None:
            self._keys = deque(self._options.client_keys)

            if self._options.agent_path:
                return self._add_agent_keys()

        if self._keys:
            return in_thread(self._keys.popleft())

        requested = self._owner.public_key_auth_requested()

        if isawaitable(requested):
            return self._await_keys(requested)

        return self._take_keys(requested)

    async def _add_agent_keys(self) -> SSHKeyPair | None:
        keys = cast('deque[SSHKeyPair]', self._keys)
        found: Sequence[SSHKeyPair] = ()
        agent = SSHAgentClient(cast(str, self._options.agent_path))
        identities = self._options.agent_identities

        try:
            await agent.connect()
            await self._bind_agent(agent)
            found = await agent.get_keys(None if identities is None else list(identities))
        except (OSError, SSHAgentError) as exc:
            self._connection.logger.info('No keys from the agent: %s', exc)
            agent.close()
        else:
            self._agent = agent
            found = self._with_certificates(found)

        held = {key.public_data for key in keys}

        if not self._options.is_set('client_keys'):
            # As OpenSSH does: the agent's keys need no file to be read.
            found_data = {key.public_data for key in found}
            rest = [key for key in keys if key.public_data not in found_data]
            keys.clear()
            keys.extend((*found, *rest))
        else:
            keys.extend(key for key in found if key.public_data not in held)

        answer = self.next_public_key()

        return await answer if isawaitable(answer) else answer

    def _with_certificates(self, found: Sequence[SSHKeyPair]) -> list[SSHKeyPair]:
        """Put in front of each of the agent's keys the certificates of the options that are for it.

        Agents know no X.509, whose signatures by RSA have another name.
        """

        pairs: list[SSHKeyPair] = []

        for pair in found:
            certs = [
                cert
                for cert in self._options.client_certs
                if cert.key.public_data == pair.public_data and not cert.is_x509
            ]
            pairs.extend((*(pair.with_certificate(cert) for cert in certs), pair))

        return pairs

    async def _bind_agent(self, agent: SSHAgentClient) -> None:
        """Tell the agent which server its keys are used with, so that those with constraints of destinations can be."""

        if self._proof is not None:
            with contextlib.suppress(SSHAgentError):
                await agent.bind_session(*self._proof)

    async def _await_keys(self, requested: Awaitable[Any]) -> SSHKeyPair | None:
        return self._take_keys(await requested)

    def _take_keys(self, requested: Any) -> SSHKeyPair | None:
        keys = cast('deque[SSHKeyPair]', self._keys)

        if requested:
            keys.extend(load_keypairs(requested))

        return in_thread(keys.popleft()) if keys else None

    # --- the word of this host

    def next_host_key(self) -> HostCredential | Awaitable[HostCredential | None] | None:
        """Return the next key of this host, with the host's name and the user's."""

        if self._options.client_host_keysign and not self._keysign_used:
            self._keysign_used = True
            sock = self._connection.get_extra_info('socket')

            if not self._host_keys and sock is not None:
                self._host_keys.extend(keysign_pairs(self._options.client_host_keysign, sock))

        if not self._host_keys:
            return None

        if self._options.client_host:
            self._host_name = self._options.client_host

        return self._host_credential() if self._host_name else self._look_up_host()

    async def _look_up_host(self) -> HostCredential | None:
        self._host_name = await own_name(self._connection.get_extra_info('sockname'))

        return self._host_credential() if self._host_name else None

    def _host_credential(self) -> HostCredential:
        # A full name ends in a dot, as OpenSSH sends it.
        return self._host_keys.popleft(), self._host_name.rstrip('.') + '.', self._options.client_username

    # --- GSSAPI

    def kex_gss_context(self) -> GSSContext | None:
        """Return the context that authenticated the key exchange."""

        return self._kex_gss_context

    def new_gss_context(self) -> ClientContext | None:
        """Make the context with the server, by the name that it was asked for under."""

        options = self._options
        peer = self._connection.get_extra_info('peername')
        host = options.gss_host or options.host or (str(peer[0]) if isinstance(peer, tuple) else '')

        return ClientContext(host, options.gss_store, delegate=options.gss_delegate_creds) if host else None

    # --- passwords and dialogues

    def next_password(self) -> str | Awaitable[str | None] | None:
        """Return the password of the options, once, then what the owner has."""

        if not self._password_taken:
            self._password_taken = True
            password = self._options.password

            value = password() if callable(password) else password

            if value is not None:
                return value

        return self._owner.password_auth_requested()

    def change_password(self, prompt: str, lang: str) -> tuple[str, str] | Awaitable[tuple[str, str] | None] | None:
        """Ask the owner for the old and the new password."""

        return self._owner.password_change_requested(prompt, lang)

    def password_changed(self) -> None:
        """Tell the owner."""

        self._owner.password_changed()

    def password_change_failed(self) -> None:
        """Tell the owner."""

        self._owner.password_change_failed()

    def kbdint_submethods(self) -> str | Awaitable[str | None] | None:
        """Ask the owner whether to start a dialogue."""

        return self._owner.kbdint_auth_requested()

    def kbdint_response(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> Collection[str] | Awaitable[Collection[str] | None] | None:
        """Put the server's prompts to the owner."""

        return self._owner.kbdint_challenge_received(name, instructions, lang, prompts)


def needs_no_answers(options: SSHClientConnectionOptions) -> bool:
    """Return whether a login begins with one request, whatever the server says of itself before.

    It does with one key that has one signature algorithm: the request can then follow that for the service.
    """

    return _has_one_key(options) and len(options.client_keys[0].sig_algorithms) == 1


def _has_one_key(options: SSHClientConnectionOptions) -> bool:
    return options.is_set('client_keys') and len(options.client_keys) == 1
