"""The client's login (RFC 4252): which method is tried when, and what the server may say meanwhile.

    IDLE --start--> WAITING --51, 60..79--> ASKING --> WAITING ... --52--> DONE
                    (a request is unanswered)  (a question is open)

USERAUTH_SUCCESS, USERAUTH_FAILURE and the running method's messages are legal in WAITING only, banners in WAITING and
ASKING. Everything else, and everything after the end, is a `ProtocolError`.
"""

from collections.abc import Awaitable, Callable, Collection
from enum import Enum
from typing import TypeVar

from ..constants import (
    MSG_USERAUTH_BANNER,
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_FIRST,
    MSG_USERAUTH_LAST,
    MSG_USERAUTH_SUCCESS,
)
from ..errors import IllegalUserName, PermissionDenied, ProtocolError
from ..logging import printable
from ..wire import Cursor
from .client_gss import GSSKeyExchange, GSSWithMic
from .client_methods import CLIENT_METHODS, ClientAuthHost, ClientMethod, PasswordSource, PublicKey
from .messages import DEFAULT_METHODS, MAX_USERNAME, NONE, PUBLIC_KEY, decode_text, displayable, encode_request

T = TypeVar('T')

_METHODS: tuple[type[ClientMethod], ...] = (GSSKeyExchange, GSSWithMic, *CLIENT_METHODS)


class AuthState(Enum):
    """Where a login stands."""

    IDLE = 'not started'
    ASKING = 'a question is open'
    WAITING = 'a request is unanswered'
    DONE = 'over'


class ClientAuth:
    """Log in as a user: the none method first, then those of `preferred` that the server says can continue.

    With `sign_at_once` the first key is the first thing that is tried, with its signature: neither the methods nor the
    key are asked about. If it is refused, the login goes on as usual; what needs no authentication is tried at the end.

    `peer_sig_algs` is the server's server-sig-algs, None if it sent none; `signature_algs` bounds what we sign with,
    None leaves it to the keys. Secrets are sent only if `encrypted`.
    """

    def __init__(
        self,
        host: ClientAuthHost,
        username: str,
        session_id: bytes,
        preferred: Collection[bytes] = DEFAULT_METHODS,
        peer_sig_algs: Collection[bytes] | None = None,
        *,
        encrypted: bool,
        signature_algs: Collection[bytes] | None = None,
        sign_at_once: bool = False,
        disable_trivial_auth: bool = False,
        utf8_decode_errors: str = 'strict',
    ) -> None:
        if len(username.encode()) > MAX_USERNAME:
            raise IllegalUserName(f'Expected a user name of at most {MAX_USERNAME} bytes, got {len(username.encode())}')

        self.host = host
        self.username = username
        self.session_id = session_id
        self.peer_sig_algs = peer_sig_algs
        self.signature_algs = signature_algs
        self.sign_at_once = sign_at_once
        self.utf8_decode_errors = utf8_decode_errors
        self.passwords = PasswordSource(self)

        methods = {cls.name: cls(self) for cls in _METHODS if encrypted or not cls.needs_encryption}
        self._methods = [methods[name] for name in preferred if name in methods]
        self._disable_trivial_auth = disable_trivial_auth

        self._state = AuthState.IDLE
        self._method: ClientMethod | None = None
        self._exhausted: set[bytes] = set()
        self._trivial = True
        self._none_tried = False
        self._server_methods: list[bytes] = []
        self._notes: list[str] = []

    @property
    def server_methods(self) -> tuple[bytes, ...]:
        """The methods that can continue, as the server named them last."""

        return tuple(self._server_methods)

    def start(self) -> None:
        """Begin: with the none method, whose failure tells which methods the server has (RFC 4252 section 5.2)."""

        if self.sign_at_once and self._methods and self._methods[0].name == PUBLIC_KEY:
            self._method = self._methods[0]
            self._method.begin()
        else:
            self._try_none()

    def _try_none(self) -> None:
        self._none_tried = True
        self.send_and_wait(encode_request(self.username, NONE), trivial=True)

    # --- received messages

    def message_received(self, message_type: int, payload: bytes) -> None:
        """Handle a message of 50 to 79."""

        cursor = Cursor(payload)
        cursor.byte()

        if message_type == MSG_USERAUTH_BANNER and self._state in (AuthState.WAITING, AuthState.ASKING):
            self._banner_received(cursor)
            return

        if self._state is not AuthState.WAITING:
            raise ProtocolError(f'Expected no login message while {self._state.value}, got message {message_type}')

        if message_type == MSG_USERAUTH_SUCCESS:
            self._success_received(cursor)
        elif message_type == MSG_USERAUTH_FAILURE:
            self._failure_received(cursor)
        elif (
            MSG_USERAUTH_FIRST <= message_type <= MSG_USERAUTH_LAST
            and self._method is not None
            and message_type in self._method.handlers
        ):
            self._method.handlers[message_type](self._method, cursor)
        else:
            raise ProtocolError(f'Expected an answer to the {self._running} request, got message {message_type}')

    @property
    def _running(self) -> str:
        return (self._method.name if self._method else NONE).decode()

    def _banner_received(self, cursor: Cursor) -> None:
        message = decode_text(cursor, self.utf8_decode_errors)
        lang = decode_text(cursor, self.utf8_decode_errors)
        cursor.check_end()

        self.host.banner_received(displayable(message), displayable(lang))

    def _success_received(self, cursor: Cursor) -> None:
        cursor.check_end()

        self._method_finished(True)
        self._end()

        if self._trivial and self._disable_trivial_auth:
            self.host.auth_failed(PermissionDenied('Trivial authentication is disabled'))
        else:
            self.host.auth_succeeded()

    def _failure_received(self, cursor: Cursor) -> None:
        methods = cursor.name_list()
        partial = cursor.boolean()
        cursor.check_end()

        if partial and self._method is None:
            raise ProtocolError('Expected success or failure of the none method, got partial success')

        if isinstance(self._method, PublicKey) and not self._server_methods and PUBLIC_KEY not in methods:
            self._method.keep()

        self._server_methods = methods
        self._method_finished(partial)

        if partial:
            self._exhausted.clear()

        self._try_next()

    def _method_finished(self, accepted: bool) -> None:
        if self._method is not None:
            self._method.finished(accepted)
            self._method = None

    # --- for the methods

    def ask(
        self,
        question: Callable[[], T | Awaitable[T]],
        answer: Callable[[T], None],
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Put a question to the host; nothing but banners may arrive until it is answered."""

        self._state = AuthState.ASKING
        self.host.ask(question, answer, failed)

    def send_and_wait(self, payload: bytes, *, trivial: bool) -> None:
        """Send a message that the server must answer; `trivial` if it proves nothing."""

        self._trivial = self._trivial and trivial
        self._state = AuthState.WAITING
        self.host.send_message(payload)

    def method_exhausted(self, method: ClientMethod) -> None:
        """Go on to another method: this one has no credential left."""

        self._exhausted.add(method.name)
        self._method = None
        self._try_next()

    def note(self, text: str) -> None:
        """Keep what the final error should say."""

        self._notes.append(text)

    def _try_next(self) -> None:
        for method in self._methods:
            if method.name in self._server_methods and method.name not in self._exhausted:
                self._method = method
                method.begin()
                return

        if not self._none_tried:
            self._try_none()
            return

        self._end()
        self.host.auth_failed(PermissionDenied(self._explain()))

    def _explain(self) -> str:
        offered = printable(b', '.join(self._server_methods).decode(errors='replace')) or 'no method'
        text = f'Permission denied for user {printable(self.username)}: the server can continue with {offered}'

        return '; '.join((text, *self._notes))

    def _end(self) -> None:
        self._state = AuthState.DONE
        self.passwords.clear()
