"""The server's login (RFC 4252): which requests are admitted, what has been proven, and when it is enough.

A user or service name that changes between requests ends the connection: what the application set up for the first user
in `begin_auth` cannot be undone, and RFC 4252 section 5 asks for a disconnect then.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

from ..constants import DEFAULT_LANG, MSG_USERAUTH_FIRST, MSG_USERAUTH_LAST, MSG_USERAUTH_REQUEST
from ..errors import IllegalUserName, PermissionDenied, ProtocolError, ServiceNotAvailable
from ..keys.key import SSHKey
from ..logging import printable
from ..wire import Cursor
from .messages import (
    MAX_USERNAME,
    NONE,
    SERVICE_CONNECTION,
    encode_banner,
    encode_failure,
    encode_success,
)
from .saslprep import saslprep
from .server_gss import GSSKeyExchange, GSSWithMic
from .server_methods import SERVER_METHODS, Credential, ServerAuthHost, ServerMethod, key_of
from .server_policy import AuthPolicy

T = TypeVar('T')

_METHODS: tuple[type[ServerMethod], ...] = (GSSKeyExchange, GSSWithMic, *SERVER_METHODS)


class ServerAuth:
    """Let one client in, or not.

    `signature_algs` are the signature algorithms accepted from clients. Passwords and dialogues are offered only if
    `encrypted`. What was proven stands in `accepted_credentials` and `completed_methods`: a connection takes the
    identity and its restrictions from there once `auth_completed` is called, never from a question it was asked.
    """

    def __init__(
        self,
        host: ServerAuthHost,
        session_id: bytes,
        policy: AuthPolicy,
        *,
        encrypted: bool,
        signature_algs: Collection[bytes],
    ) -> None:
        self.host = host
        self.session_id = session_id
        self.encrypted = encrypted
        self.signature_algs = signature_algs
        self._policy = policy
        self._methods = {cls.name: cls(self) for cls in _METHODS}

        self._username: str | None = None
        self._raw_username = b''
        self._completed: tuple[bytes, ...] = ()
        self._accepted: tuple[Credential, ...] = ()
        self._requests = 0
        self._failures = 0
        self._key_queries = 0
        self._method: bytes = NONE
        self._running: ServerMethod | None = None
        self._asking = False
        self._done = False

    @property
    def username(self) -> str:
        """The user who logs in, prepared by SASLprep; empty before the first request."""

        return self._username or ''

    @property
    def accepted_keys(self) -> tuple[SSHKey, ...]:
        """The keys whose private part the client has proven to hold, in order."""

        return tuple(key_of(credential) for credential in self._accepted)

    @property
    def accepted_credentials(self) -> tuple[Credential, ...]:
        """The keys, or the certificates for them, as the client showed them."""

        return self._accepted

    @property
    def completed_methods(self) -> tuple[bytes, ...]:
        """The methods that succeeded, in order."""

        return self._completed

    @property
    def failures(self) -> int:
        """How often the client failed."""

        return self._failures

    @property
    def done(self) -> bool:
        """Whether the client is in."""

        return self._done

    def send_banner(self, message: str, lang: str = DEFAULT_LANG) -> None:
        """Send a text to show to the user; possible until the login is complete."""

        if self._done:
            raise ValueError('A banner cannot be sent once authentication is complete')

        self.host.send_message(encode_banner(message, lang))

    def set_policy(self, policy: AuthPolicy, signature_algs: Collection[bytes]) -> None:
        """Take another policy, and other signature algorithms: those for the user who begins."""

        self._policy = policy
        self.signature_algs = signature_algs

    # --- received messages

    def message_received(self, message_type: int, payload: bytes) -> None:
        """Handle a message of 50 to 79."""

        if self._asking:
            raise ProtocolError(f'Expected no message while a question is open, got message {message_type}')

        cursor = Cursor(payload)
        cursor.byte()

        if message_type == MSG_USERAUTH_REQUEST:
            # Requests sent on speculation are ignored once one succeeded (RFC 4252 section 5.1).
            if not self._done:
                self._request_received(cursor, payload)
        elif (
            MSG_USERAUTH_FIRST <= message_type <= MSG_USERAUTH_LAST
            and self._running is not None
            and message_type in self._running.handlers
        ):
            method, self._running = self._running, None
            method.handlers[message_type](method, cursor)
        else:
            raise ProtocolError(f'Expected an authentication request, got message {message_type}')

    def _request_received(self, cursor: Cursor, payload: bytes) -> None:
        raw_username = cursor.string()
        service = cursor.string()
        self._method = cursor.string()

        # A running dialogue is aborted by a new request, without a reply (RFC 4252 section 5.1), but not for nothing.
        if self._running is not None:
            self._running = None
            self._count_failure()

        self._requests += 1
        first = self._username is None

        if first:
            self._set_username(raw_username)
        elif raw_username != self._raw_username:
            raise ProtocolError('Expected the user name of the earlier authentication requests, got another one')

        if service != SERVICE_CONNECTION:
            shown = printable(service.decode(errors='replace'), 64)
            raise ServiceNotAvailable(f'Expected a request for the ssh-connection service, got {shown!r}')

        def begun(needed: bool) -> None:
            # Only an explicit False lets a user in without authentication.
            if needed is False:
                self._succeed()
            else:
                self._dispatch(cursor, payload)

        if first:
            self.ask(lambda: self.host.begin_auth(self.username), begun)
        else:
            self._dispatch(cursor, payload)

    def _set_username(self, raw_username: bytes) -> None:
        if len(raw_username) > MAX_USERNAME:
            raise IllegalUserName(f'Expected a user name of at most {MAX_USERNAME} bytes, got {len(raw_username)}')

        try:
            self._username = saslprep(raw_username.decode())
        except ValueError:
            raise IllegalUserName('Expected a user name of printable UTF-8 text, got something else') from None

        self._raw_username = raw_username

    def _dispatch(self, cursor: Cursor, payload: bytes) -> None:
        if self._method == NONE:
            cursor.check_end()
            self.refuse(counted=self._requests > 1)
        elif self._method in self._can_continue():
            self._methods[self._method].begin(cursor, payload)
        else:
            self.refuse()

    def _can_continue(self) -> list[bytes]:
        supported = [name for name, method in self._methods.items() if method.supported()]

        return self._policy.can_continue(self._completed, supported)

    # --- for the methods

    def ask(
        self,
        question: Callable[[], T | Awaitable[T]],
        answer: Callable[[T], None],
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Put a question to the host; nothing may arrive until it is answered."""

        def answered(value: T) -> None:
            self._asking = False
            answer(value)

        self._asking = True

        if failed is None:
            self.host.ask(question, answered)
            return

        handle = failed

        def raised(exc: Exception) -> None:
            self._asking = False
            handle(exc)

        self.host.ask(question, answered, raised)

    def accept(self, credential: Credential | None = None) -> None:
        """Note that the current method succeeded; `credential` is the key or certificate that was proven."""

        self._completed += (self._method,)

        if credential is not None:
            self._accepted += (credential,)

        if self._policy.is_satisfied(self._completed):
            self._succeed()
        else:
            self.host.send_message(encode_failure(self._can_continue(), partial=True))

    def refuse(self, *, counted: bool = True) -> None:
        """Answer with a failure, after a while; at the limit of failures, end the connection instead."""

        failure = encode_failure(self._can_continue(), partial=False)

        if counted:
            self._count_failure()
            self.ask(self.host.before_failure, lambda _: self.host.send_message(failure))
        else:
            self.host.send_message(failure)

    def answer(self, payload: bytes, *, running: bool) -> None:
        """Send a method's own message; `running` if its reply belongs to the method too."""

        if running:
            self.wait_for_more()

        self.host.send_message(payload)

    def wait_for_more(self) -> None:
        """Give the method the client's next message: it comes without being asked for."""

        self._running = self._methods[self._method]

    def count_key_query(self) -> None:
        """Count a query whether a key would do."""

        self._key_queries += 1

        if self._key_queries > self._policy.max_key_queries:
            raise PermissionDenied('Too many authentication failures')

    def _count_failure(self) -> None:
        self._failures += 1

        if self._failures >= self._policy.max_failures:
            raise PermissionDenied('Too many authentication failures')

    def _succeed(self) -> None:
        self._done = True
        self.host.send_message(encode_success())
        self.host.auth_completed(self.username)
