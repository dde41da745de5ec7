"""The callback classes that an application derives from to follow, and decide about, a connection.

Nothing is trusted, offered or let in unless a method is overridden, or an option says so. A method whose result may be
awaited may also be a coroutine; nothing else is received on that connection meanwhile.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, cast

from ..channel.session import SSHServerSession, SSHTCPSession, SSHUNIXSession
from ..keys.key import SSHKey
from ..keys.load import KeyPairList
from .tunnel import Opener

# A handler of the stream interface, called with readers and writers
_StreamHandler: TypeAlias = Callable[..., Awaitable[None] | None]

_Prompts: TypeAlias = Sequence[tuple[str, bool]]
_Challenge: TypeAlias = bool | tuple[str, str, str, _Prompts]
_KeyPairs: TypeAlias = KeyPairList | None

# What a request for a channel is answered with: False to refuse it, a session, the awaitable of one, a stream handler,
# one of these in a tuple behind the channel made for it, a client's connection to go through; True (not for sessions)
# to forward it to where it wants to go.
_SessionAnswer: TypeAlias = (
    bool
    | SSHServerSession[Any]
    | Opener
    | Awaitable[Any]
    | _StreamHandler
    | tuple[Any, SSHServerSession[Any] | Awaitable[Any]]
)
_TCPAnswer: TypeAlias = (
    bool
    | SSHTCPSession[Any]
    | Opener
    | Awaitable[Any]
    | _StreamHandler
    | tuple[Any, SSHTCPSession[Any] | Awaitable[Any]]
)
_UNIXAnswer: TypeAlias = (
    bool
    | SSHUNIXSession[Any]
    | Opener
    | Awaitable[Any]
    | _StreamHandler
    | tuple[Any, SSHUNIXSession[Any] | Awaitable[Any]]
)


class SSHClient:
    """The application's side of a client connection."""

    # --- the connection

    def connection_made(self, conn: Any) -> None:
        """Take note of the connection, an `SSHClientConnection`: the socket is connected, nothing else is done yet."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the connection is closed; `exc` is None after an orderly close."""

    def debug_msg_received(self, msg: str, lang: str, always_display: bool) -> None:
        """Take a debug message from the server (RFC 4253 section 11.3)."""

    # --- the server's key

    def validate_host_public_key(self, host: str, addr: str, port: int, key: SSHKey) -> bool:
        """Return whether to trust a server's key that known_hosts does not vouch for.

        It is asked only if known_hosts is in use and has not revoked the key. The default trusts none.
        """

        return False

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: SSHKey) -> bool:
        """Return whether to trust the authority that signed a server's certificate. The default trusts none."""

        return False

    # --- the login

    def begin_auth(self, username: str) -> None:
        """Take note that the login of a user begins: the server's key is trusted."""

    def auth_banner_received(self, msg: str, lang: str) -> None:
        """Take a text that the server wants shown; control characters are already removed (RFC 4252 section 5.4)."""

    def auth_completed(self) -> None:
        """Take note that the user is logged in."""

    def public_key_auth_requested(self) -> _KeyPairs | Awaitable[_KeyPairs]:
        """Return a key to try, or several, in a form the `client_keys` option takes; None if there are no more.

        It is called again each time the server has refused what was returned.
        """

        return None

    def password_auth_requested(self) -> str | Awaitable[str | None] | None:
        """Return a password to try, or None if there are no more; one that was already sent ends the attempts."""

        return None

    def password_change_requested(
        self, prompt: str, lang: str
    ) -> tuple[str, str] | Awaitable[tuple[str, str] | None] | None:
        """Return the old and the new password, or None to give up: the server demands a change of the password."""

        return None

    def password_changed(self) -> None:
        """Take note that the server took the new password."""

    def password_change_failed(self) -> None:
        """Take note that the server did not take the new password."""

    def kbdint_auth_requested(self) -> str | Awaitable[str | None] | None:
        """Return the submethods to ask for, mostly an empty string; None to skip keyboard-interactive.

        The default, NotImplemented, answers a challenge with one prompt that does not echo with a password.
        """

        return cast(str, NotImplemented)

    def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: _Prompts
    ) -> Sequence[str] | Awaitable[Sequence[str] | None] | None:
        """Return one response for each prompt (a text, and whether to echo what is typed), or None to give up."""

        return None


class SSHServer:
    """The application's side of a server connection."""

    # --- the connection

    def connection_made(self, conn: Any) -> None:
        """Take note of the connection, an `SSHServerConnection`: a client is there, nothing else is done yet."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the connection is closed; `exc` is None after an orderly close."""

    def debug_msg_received(self, msg: str, lang: str, always_display: bool) -> None:
        """Take a debug message from the client (RFC 4253 section 11.3)."""

    # --- the login

    def begin_auth(self, username: str) -> bool | Awaitable[bool]:
        """Return whether the user must authenticate; only False itself lets everybody in under that name.

        The name comes from the client, in the form that RFC 4013 prepares: check it before it becomes part of a path.
        """

        return True

    def auth_completed(self) -> Awaitable[None] | None:
        """Take note that the user is logged in."""

        return None

    def public_key_auth_supported(self) -> bool:
        """Return whether keys are offered; they also are if there are authorized client keys."""

        return False

    def validate_public_key(self, username: str, key: SSHKey) -> bool | Awaitable[bool]:
        """Return whether the user may log in with the key.

        It is called for keys that a client only asks about, so do not take the key for the user's: who has proven to
        hold its private part is known in `auth_completed`. Unknown users should cost as much time as known ones.
        """

        return False

    def validate_ca_key(self, username: str, key: SSHKey) -> bool | Awaitable[bool]:
        """Return whether the authority that signed the user's certificate is trusted for that user."""

        return False

    def password_auth_supported(self) -> bool:
        """Return whether passwords are offered."""

        return False

    def validate_password(self, username: str, password: str) -> bool | Awaitable[bool]:
        """Return whether the password is the user's, or raise `PasswordChangeRequired` if it is but has expired.

        It is called for unknown users too: compare with a hash that nobody has then, so that the time tells nothing.
        """

        return False

    def change_password(self, username: str, old_password: str, new_password: str) -> bool | Awaitable[bool]:
        """Check the old password and set the new one; return whether both was done.

        `PasswordChangeRequired` asks for another new password. A client may call for a change at any time.
        """

        return False

    def kbdint_auth_supported(self) -> bool:
        """Return whether keyboard-interactive is offered.

        The default, NotImplemented, offers it where passwords are, with a challenge that asks for the password.
        """

        return cast(bool, NotImplemented)

    def get_kbdint_challenge(
        self, username: str, lang: str, submethods: str
    ) -> _Challenge | Awaitable[_Challenge]:
        """Return a challenge (title, instructions, language, prompts), or whether the user is in without one.

        A prompt is a text and whether to echo what is typed; a challenge has at most 100.
        """

        return False

    def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> _Challenge | Awaitable[_Challenge]:
        """Return whether the responses, one for each prompt, are right, or a further challenge."""

        return False

    def host_based_auth_supported(self) -> bool:
        """Return whether logins vouched for by the client's host are offered."""

        return False

    def validate_host_public_key(self, client_host: str, client_addr: str, client_port: int, key: SSHKey) -> bool:
        """Return whether a client host's key is trusted to vouch for its users."""

        return False

    def validate_host_ca_key(self, client_host: str, client_addr: str, client_port: int, key: SSHKey) -> bool:
        """Return whether the authority that signed a client host's certificate is trusted."""

        return False

    def validate_host_based_user(
        self, username: str, client_host: str, client_username: str
    ) -> bool | Awaitable[bool]:
        """Return whether a user of a trusted client host may log in under this name; by default, under its own."""

        return username == client_username

    def validate_gss_principal(
        self, username: str, user_principal: str, host_principal: str
    ) -> bool | Awaitable[bool]:
        """Return whether a GSSAPI principal may log in under this name.

        By default, if it has this name and the realm of the host's principal.
        """

        realm = host_principal.rpartition('@')[2]

        return bool(username and realm) and user_principal == f'{username}@{realm}'

    # --- what the client asks for

    def session_requested(self) -> _SessionAnswer:
        """Return a session, or a handler called with stdin, stdout and stderr, or False to refuse.

        A client's connection may be returned too: its server runs the session.
        """

        return False

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> _TCPAnswer:
        """Return what takes a direct TCP connection, True to open it to its destination, or False to refuse.

        A client's connection may be returned too: its server opens it.
        """

        return False

    def server_requested(self, listen_host: str, listen_port: int) -> Any:
        """Return a listener, or True to listen and forward what connects to the client, or False to refuse.

        A client's connection may be returned too: its server listens. A callable is an accept handler: we listen, and
        it is told host and port of who connects, and returns whether that may be forwarded.
        """

        return False

    def unix_connection_requested(self, dest_path: str) -> _UNIXAnswer:
        """Return what takes a direct UNIX socket connection, True to open it to its destination, or False to refuse.

        A client's connection may be returned too: its server opens it.
        """

        return False

    def unix_server_requested(self, listen_path: str) -> Any:
        """Return a listener, or True to listen and forward what connects to the client, or False to refuse.

        A client's connection may be returned too: its server listens.
        """

        return False

    def tun_requested(self, unit: int | None) -> Any:
        """Return what takes the packets of a layer 3 tunnel, or False to refuse.

        It is True for the TUN device of that unit, None for a free one; a session, a handler of streams, or a client's
        connection to another server.
        """

        return False

    def tap_requested(self, unit: int | None) -> Any:
        """Return what takes the frames of a layer 2 tunnel, or False to refuse.

        It is True for the TAP device of that unit, None for a free one; else as for `tun_requested`.
        """

        return False
