"""What a server decides while a client logs in: authorized keys first, then the owner's word."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import isawaitable
from typing import Any, Protocol, TypeVar

from ..errors import PermissionDenied
from ..keys.authorized_keys import SSHAuthorizedKeys, read_authorized_keys
from ..keys.key import SSHKey
from ..logging import ContextLogger
from ..userauth.server import ServerAuth
from ..userauth.server_policy import AuthPolicy
from .callbacks import SSHServer
from .options import SSHServerConnectionOptions

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

    def login_succeeded(self, username: str) -> None:
        """USERAUTH_SUCCESS was sent."""


class ServerLogin:
    """Answers the questions of a `ServerAuth`, and keeps the options of the key that let the client in."""

    def __init__(
        self,
        connection: LoginConnection,
        owner: SSHServer,
        options: SSHServerConnectionOptions,
        session_id: bytes,
        *,
        encrypted: bool,
    ) -> None:
        self._connection = connection
        self._owner = owner
        self._options = options
        self._authorized_keys = options.authorized_client_keys
        self._key_options: dict[bytes, Mapping[str, Any]] = {}
        self._auth = ServerAuth(
            self,
            session_id,
            AuthPolicy(sequences=options.auth_methods, max_failures=options.max_auth_tries),
            encrypted=encrypted,
            signature_algs=options.signature_algs,
        )

    @property
    def username(self) -> str:
        """The user who logs in."""

        return self._auth.username

    @property
    def done(self) -> bool:
        """Whether the client is in."""

        return self._auth.done

    def message_received(self, message_type: int, payload: bytes) -> bool:
        """Handle a message of 50 to 79."""

        self._auth.message_received(message_type, payload)

        return True

    def send_banner(self, message: str, lang: str) -> None:
        """Send a text to show to the user."""

        self._auth.send_banner(message, lang)

    def set_authorized_keys(self, authorized_keys: Any) -> None:
        """Decide about this client's keys by another list."""

        if authorized_keys is None or isinstance(authorized_keys, SSHAuthorizedKeys):
            self._authorized_keys = authorized_keys
        else:
            self._authorized_keys = read_authorized_keys(authorized_keys)

    def key_options(self) -> Mapping[str, Any]:
        """Return the options that authorized_keys put on the proven keys when it admitted them.

        Raises:
          PermissionDenied: several keys were proven, and their options contradict each other
        """

        merged: dict[str, Any] = {}

        for key in self._auth.accepted_keys:
            for name, value in self._key_options.get(key.public_data, {}).items():
                if merged.setdefault(name, value) != value:
                    raise PermissionDenied(f'The keys of this login have different values of the option {name}')

        return merged

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

    def auth_completed(self, username: str) -> None:
        """Go on to the channels."""

        self._connection.login_succeeded(username)

    # --- questions

    def begin_auth(self, username: str) -> bool | Awaitable[bool]:
        """Ask the owner whether this user must authenticate."""

        needed = self._owner.begin_auth(username)

        if isawaitable(needed):
            return self._begun(needed)

        self._send_configured_banner()

        return needed

    async def _begun(self, needed: Awaitable[bool]) -> bool:
        answer = await needed
        self._send_configured_banner()

        return answer

    def _send_configured_banner(self) -> None:
        if self._options.banner:
            self.send_banner(self._options.banner, 'en-US')

    def public_key_auth_supported(self) -> bool:
        """Return whether keys are offered: there are authorized keys, or the owner decides about keys."""

        return self._options.public_key_auth and (
            self._authorized_keys is not None or self._owner.public_key_auth_supported()
        )

    def validate_public_key(self, username: str, key: SSHKey) -> bool | Awaitable[bool]:
        """Look the key up, or ask the owner."""

        options = self._match(key)

        if options is not None:
            # Kept: what admits the key restricts it, even if the line expires or the list changes meanwhile.
            self._key_options[key.public_data] = options
            return True

        return self._owner.public_key_auth_supported() and self._owner.validate_public_key(username, key)

    def _match(self, key: SSHKey) -> Mapping[str, Any] | None:
        if self._authorized_keys is None:
            return None

        peer = self._connection.get_extra_info('peername')
        addr = peer[0] if isinstance(peer, tuple) else ''

        return self._authorized_keys.validate(key, addr, addr)

    def password_auth_supported(self) -> bool:
        """Return whether passwords are offered."""

        return self._options.password_auth and self._owner.password_auth_supported()

    def validate_password(self, username: str, password: str) -> bool | Awaitable[bool]:
        """Ask the owner."""

        return self._owner.validate_password(username, password)

    def change_password(self, username: str, old_password: str, new_password: str) -> bool | Awaitable[bool]:
        """Ask the owner."""

        return self._owner.change_password(username, old_password, new_password)

    def kbdint_auth_supported(self) -> bool:
        """Return whether dialogues are offered."""

        return self._options.kbdint_auth and self._owner.kbdint_auth_supported()

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        """Ask the owner."""

        return self._owner.get_kbdint_challenge(username, lang, submethods)

    def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> Any:
        """Ask the owner."""

        return self._owner.validate_kbdint_response(username, responses)
