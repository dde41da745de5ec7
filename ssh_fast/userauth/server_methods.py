"""The server's side of each authentication method: what a request says, and whom to ask about it.

Every field of a request is decoded before anything is decided, and a wrong credential, an unknown user and a credential
that cannot be used all end in the same refusal: the reply tells nothing about which it was.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import ClassVar, Protocol, TypeVar, cast

from ..errors import KeyImportError, PasswordChangeRequired, PermissionDenied
from ..gss_context import GSSContext
from ..keys.certificate import SSHCertificate
from ..keys.certificate_names import is_certificate_algorithm, needed_signature, plain_algorithm
from ..keys.key import SSHKey, decode_public_key, verify_signature
from ..keys.x509 import decode_shown_certificate
from ..wire import Cursor, encode_string
from .messages import (
    HOST_BASED,
    KEYBOARD_INTERACTIVE,
    MAX_KBDINT_ROUNDS,
    MAX_PASSWORD,
    MSG_USERAUTH_INFO_RESPONSE,
    PASSWORD,
    PUBLIC_KEY,
    Challenge,
    encode_info_request,
    encode_passwd_changereq,
    encode_pk_ok,
)
from .saslprep import saslprep

T = TypeVar('T')

# What a client proves to hold the private part of
Credential = SSHKey | SSHCertificate


class ServerAuthHost(Protocol):
    """The connection as the server's authentication sees it: a sender, its listener, and who answers its questions.

    A question may return its value or an awaitable of it. `ask` runs the question and gives its value to `answer`; it
    holds back all received messages until then. What the question raises goes to `failed`, or ends the connection.
    """

    def send_message(self, payload: bytes) -> None:
        """Send a message."""

    def ask(
        self,
        question: Callable[[], T | Awaitable[T]],
        answer: Callable[[T], None],
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Put a question; nothing but what `answer` does follows until it is answered."""

    def before_failure(self) -> Awaitable[None] | None:
        """Wait for when a failure may be told."""

    def begin_auth(self, username: str) -> bool | Awaitable[bool]:
        """Return whether the user must authenticate."""

    def auth_completed(self, username: str) -> None:
        """USERAUTH_SUCCESS was sent; which keys were proven stands in the login's `accepted_credentials`."""

    def public_key_auth_supported(self) -> bool:
        """Return whether keys are offered."""

    def validate_public_key(self, username: str, key: SSHKey) -> bool | Awaitable[bool]:
        """Return whether the key may log the user in. Being asked does not mean that the peer holds the key."""

    def validate_certificate(self, username: str, cert: SSHCertificate) -> bool | Awaitable[bool]:
        """Return whether the certificate may log the user in; its authority's signature is right."""

    def demands_on_signature(self, credential: Credential) -> tuple[bool, bool]:
        """Return whether the FIDO key of a valid credential must have been touched, and must have verified its user."""

    def host_based_auth_supported(self) -> bool:
        """Return whether the word of a client's host is taken."""

    def validate_host_based(
        self, username: str, credential: Credential, client_host: str, client_username: str
    ) -> bool | Awaitable[bool]:
        """Return whether a host, which has proven to hold the key, may vouch for its user."""

    def gss_auth_supported(self) -> bool:
        """Return whether GSSAPI is offered."""

    def kex_gss_context(self) -> GSSContext | None:
        """Return the context that authenticated the first key exchange, if it may be logged in with, or None."""

    def new_gss_context(self) -> GSSContext | Awaitable[GSSContext | None] | None:
        """Return the server's end of a new GSSAPI context, None if there are no credentials for it."""

    def validate_gss_context(self, username: str, context: GSSContext) -> bool | Awaitable[bool]:
        """Return whether the principal of an established context, proven for this session, may log in."""

    def password_auth_supported(self) -> bool:
        """Return whether passwords are offered."""

    def validate_password(self, username: str, password: str) -> bool | Awaitable[bool]:
        """Return whether the password is right, or raise `PasswordChangeRequired`."""

    def change_password(self, username: str, old_password: str, new_password: str) -> bool | Awaitable[bool]:
        """Return whether the old password was right and the new one is now set, or raise `PasswordChangeRequired`."""

    def kbdint_auth_supported(self) -> bool:
        """Return whether there are challenges; NotImplemented: ask for the password in one."""

    def get_kbdint_challenge(
        self, username: str, lang: str, submethods: str
    ) -> bool | Challenge | Awaitable[bool | Challenge]:
        """Return the first challenge, or whether the user is in without one."""

    def validate_kbdint_response(
        self, username: str, responses: Sequence[str]
    ) -> bool | Challenge | Awaitable[bool | Challenge]:
        """Return whether the responses are right, or a further challenge."""


class LoginOwner(Protocol):
    """The login in progress, as its methods see it."""

    host: ServerAuthHost
    session_id: bytes
    signature_algs: Collection[bytes]
    encrypted: bool

    @property
    def username(self) -> str:
        """The user who logs in."""

    @property
    def accepted_credentials(self) -> tuple[Credential, ...]:
        """The keys and certificates proven so far."""

    def ask(
        self,
        question: Callable[[], T | Awaitable[T]],
        answer: Callable[[T], None],
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Put a question; nothing but what `answer` does follows until it is answered."""

    def accept(self, credential: Credential | None = None) -> None:
        """Note that the current method succeeded; `credential` is the key or certificate that was proven."""

    def refuse(self, *, counted: bool = True) -> None:
        """Answer with a failure; at the limit of failures, end the connection instead."""

    def answer(self, payload: bytes, *, running: bool) -> None:
        """Send a method's own message; `running` if its reply belongs to the method too."""

    def wait_for_more(self) -> None:
        """Give the method the client's next message: it comes without being asked for."""

    def count_key_query(self) -> None:
        """Count a query whether a key would do."""


class ServerMethod:
    """One authentication method of a login; `begin` ends in one of the owner's accept, refuse and answer."""

    name: ClassVar[bytes]
    handlers: ClassVar[Mapping[int, Callable[..., None]]] = {}

    def __init__(self, owner: LoginOwner) -> None:
        self._owner = owner

    def supported(self) -> bool:
        """Tell whether the method is offered."""

        raise NotImplementedError

    def begin(self, cursor: Cursor, payload: bytes) -> None:
        """Handle a request, whose method name is behind the cursor; `payload` is the whole message."""

        raise NotImplementedError


class PublicKey(ServerMethod):
    """Signatures over the session (RFC 4252 section 7), and queries whether a key would do.

    Nothing is kept from a query: a signature is judged with the key of its own request (CVE-2024-45337). It is verified
    before the host is asked, so that a peer without the private key learns nothing from the time this takes.
    """

    name = PUBLIC_KEY

    def supported(self) -> bool:
        """Tell whether keys are offered."""

        return self._owner.host.public_key_auth_supported()

    def begin(self, cursor: Cursor, payload: bytes) -> None:
        """Handle a query or a signature."""

        signed = cursor.boolean()
        algorithm = cursor.string()
        key_data = cursor.string()
        request = payload[: cursor.position]
        signature = cursor.string() if signed else b''
        cursor.check_end()

        if not signed:
            self._owner.count_key_query()

        credential = usable_credential(self._owner, algorithm, key_data)

        if credential is None or self._is_used(credential):
            self._owner.refuse(counted=signed)
            return

        data = encode_string(self._owner.session_id) + request

        if signed and not signature_is_right(credential, algorithm, data, signature):
            self._owner.refuse()
            return

        def validated(trusted: bool) -> None:
            if not trusted:
                self._owner.refuse(counted=signed)
            elif not signed:
                self._owner.answer(encode_pk_ok(algorithm, key_data), running=False)
            elif signature_is_right(
                credential, algorithm, data, signature, *self._owner.host.demands_on_signature(credential)
            ):
                self._owner.accept(credential)
            else:
                self._owner.refuse()

        def validate() -> bool | Awaitable[bool]:
            host, username = self._owner.host, self._owner.username

            if isinstance(credential, SSHCertificate):
                return host.validate_certificate(username, credential)

            return host.validate_public_key(username, credential)

        self._owner.ask(validate, validated)

    def _is_used(self, credential: Credential) -> bool:
        """Tell whether the key was proven before: a sequence that wants two keys wants two different ones."""

        accepted = (key_of(other).public_data for other in self._owner.accepted_credentials)

        return key_of(credential).public_data in accepted


class HostBased(ServerMethod):
    """The word of the client's host: its key signs for the user's name there (RFC 4252 section 9)."""

    name = HOST_BASED

    def supported(self) -> bool:
        """Tell whether the word of hosts is taken."""

        return self._owner.host.host_based_auth_supported()

    def begin(self, cursor: Cursor, payload: bytes) -> None:
        """Handle a request."""

        algorithm = cursor.string()
        key_data = cursor.string()
        client_host = cursor.text()
        client_username = cursor.text()
        request = payload[: cursor.position]
        signature = cursor.string()
        cursor.check_end()

        credential = usable_credential(self._owner, algorithm, key_data)
        data = encode_string(self._owner.session_id) + request

        # A FIDO key of a host was never touched, and nobody's rule says that it need not be.
        if credential is None or not signature_is_right(credential, algorithm, data, signature, True):
            self._owner.refuse()
            return

        def validate() -> bool | Awaitable[bool]:
            return self._owner.host.validate_host_based(
                self._owner.username, credential, client_host, client_username
            )

        self._owner.ask(validate, lambda valid: settle(self._owner, valid))


def usable_credential(owner: LoginOwner, algorithm: bytes, key_data: bytes) -> Credential | None:
    """Decode the key or certificate of a request; None if it is malformed, not accepted, or not the algorithm's."""

    if needed_signature(algorithm) not in owner.signature_algs:
        return None

    try:
        if is_certificate_algorithm(algorithm):
            cert = decode_shown_certificate(key_data)

            return cert if algorithm in cert.host_key_algorithms else None

        key = decode_public_key(key_data)
    except KeyImportError:
        return None

    return key if algorithm in key.sig_algorithms else None


def key_of(credential: Credential) -> SSHKey:
    """Return the key itself, whoever vouches for it."""

    return credential.key if isinstance(credential, SSHCertificate) else credential


def signature_is_right(
    credential: Credential,
    algorithm: bytes,
    data: bytes,
    signature: bytes,
    touch_required: bool = False,
    verify_required: bool = False,
) -> bool:
    """Tell whether a signature is the credential's, and was made as a FIDO key's must be."""

    key = key_of(credential)
    key.set_touch_required(touch_required)
    key.set_verify_required(verify_required)

    return verify_signature(key, data, signature, (plain_algorithm(algorithm),)) is True


class Password(ServerMethod):
    """A password, and its change (RFC 4252 section 8); offered on encrypted connections only."""

    name = PASSWORD

    def supported(self) -> bool:
        """Tell whether passwords are offered."""

        return self._owner.encrypted and self._owner.host.password_auth_supported()

    def begin(self, cursor: Cursor, payload: bytes) -> None:
        """Handle a password or a change of it."""

        change = cursor.boolean()
        password = prepare_password(cursor.string())
        new_password = prepare_password(cursor.string()) if change else ''
        cursor.check_end()

        if password is None or new_password is None:
            self._owner.refuse()
            return

        def validate() -> bool | Awaitable[bool]:
            host, username = self._owner.host, self._owner.username

            if change:
                return host.change_password(username, password, new_password)

            return host.validate_password(username, password)

        self._owner.ask(validate, lambda valid: settle(self._owner, valid), self._validation_failed)

    def _validation_failed(self, exc: Exception) -> None:
        if not isinstance(exc, PasswordChangeRequired):
            raise exc

        self._owner.answer(encode_passwd_changereq(exc.prompt, exc.lang), running=False)


class KeyboardInteractive(ServerMethod):
    """A dialogue of prompts (RFC 4256), led by the host, or one that asks for the password if the host has no other."""

    name = KEYBOARD_INTERACTIVE

    def __init__(self, owner: LoginOwner) -> None:
        super().__init__(owner)
        self._rounds = 0
        self._prompts = 0
        self._old_password: str | None = None

    def supported(self) -> bool:
        """Tell whether dialogues are offered."""

        host = self._owner.host
        supported = host.kbdint_auth_supported()

        if supported is NotImplemented:
            supported = host.password_auth_supported()

        return self._owner.encrypted and supported

    @property
    def _by_password(self) -> bool:
        return self._owner.host.kbdint_auth_supported() is NotImplemented

    def begin(self, cursor: Cursor, payload: bytes) -> None:
        """Handle the request for a dialogue."""

        lang = cursor.text()
        submethods = cursor.text()
        cursor.check_end()

        self._old_password = None

        if self._by_password:
            self._answer(('', '', '', [('Password: ', False)]))
            return

        def first_challenge() -> bool | Challenge | Awaitable[bool | Challenge]:
            return self._owner.host.get_kbdint_challenge(self._owner.username, lang, submethods)

        self._ask(first_challenge)

    def _ask(self, question: Callable[[], bool | Challenge | Awaitable[bool | Challenge]]) -> None:
        # The cast is for type checkers, which do not find the type variable in a union of unions.
        self._owner.ask(cast(Callable[[], Awaitable[bool | Challenge]], question), self._answer)

    def _answer(self, result: bool | Challenge) -> None:
        if isinstance(result, bool) or not result:
            settle(self._owner, bool(result))
            return

        self._rounds += 1

        # A host that challenges again after a wrong response must not become a way around the limit of failures.
        if self._rounds > MAX_KBDINT_ROUNDS:
            raise PermissionDenied('Too many keyboard-interactive challenges')

        message = encode_info_request(result)
        self._prompts = len(result[3])
        self._owner.answer(message, running=True)

    def _response_received(self, cursor: Cursor) -> None:
        # A wrong count is a failure, not an error (RFC 4256 section 3.4); it must not drive the decoding either.
        if cursor.uint32() != self._prompts:
            self._owner.refuse()
            return

        data = [cursor.string() for _ in range(self._prompts)]
        cursor.check_end()

        if self._by_password:
            self._password_received(data)
            return

        try:
            responses = [response.decode() for response in data]
        except UnicodeDecodeError:
            self._owner.refuse()
            return

        if any(len(response) > MAX_PASSWORD for response in data):
            self._owner.refuse()
            return

        def validate() -> bool | Challenge | Awaitable[bool | Challenge]:
            return self._owner.host.validate_kbdint_response(self._owner.username, responses)

        self._ask(validate)

    def _password_received(self, data: list[bytes]) -> None:
        host, username = self._owner.host, self._owner.username
        old_password, self._old_password = self._old_password, None
        password = prepare_password(data[0])

        if password is None or any(repeated != data[0] for repeated in data[1:]):
            self._owner.refuse()
            return

        def validate() -> bool | Awaitable[bool]:
            if old_password is None:
                return host.validate_password(username, password)

            return host.change_password(username, old_password, password)

        def failed(exc: Exception) -> None:
            if not isinstance(exc, PasswordChangeRequired):
                raise exc

            self._old_password = password if old_password is None else old_password
            prompts = [('New password: ', False), ('Repeat new password: ', False)]
            self._answer(('Password change required', exc.prompt, '', prompts))

        self._owner.ask(validate, lambda valid: settle(self._owner, valid), failed)

    handlers = {MSG_USERAUTH_INFO_RESPONSE: _response_received}


def settle(owner: LoginOwner, valid: bool) -> None:
    """End an attempt as the host judged it."""

    if valid:
        owner.accept()
    else:
        owner.refuse()


def prepare_password(data: bytes) -> str | None:
    """Prepare a received password for comparison; None if it is too long, or text that no password can be."""

    if len(data) > MAX_PASSWORD:
        return None

    try:
        return saslprep(data.decode())
    except ValueError:
        return None


SERVER_METHODS: tuple[type[ServerMethod], ...] = (HostBased, PublicKey, KeyboardInteractive, Password)
