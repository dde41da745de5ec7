"""The client's side of each authentication method: which credential comes next, and what is said about it.

A method is asked to `begin`: it finds a credential, sends a request and waits, or reports that it is exhausted. Only
while its request is unanswered does it get messages 60 to 79.
"""

import copy
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import ClassVar, Protocol, TypeVar

from ..errors import ProtocolError
from ..gss_context import GSSContext
from ..keys.certificate_names import certificate_algorithm, is_certificate_algorithm, needed_signature
from ..keys.keypair import SSHKeyPair
from ..wire import Cursor, encode_boolean, encode_string
from .messages import (
    HOST_BASED,
    KEYBOARD_INTERACTIVE,
    MAX_KBDINT_ROUNDS,
    MAX_PASSWORD,
    MSG_USERAUTH_INFO_REQUEST,
    MSG_USERAUTH_PASSWD_CHANGEREQ,
    MSG_USERAUTH_PK_OK,
    PASSWORD,
    PUBLIC_KEY,
    Prompts,
    decode_prompts,
    decode_text,
    encode_info_response,
    encode_request,
)

T = TypeVar('T')

# Keys tried in one login, far above any server's limit: the search for a usable one must end
MAX_KEYS = 100

# Dialogues that the callbacks may fail before keyboard-interactive is given up, as OpenSSH's NumberOfPasswordPrompts
MAX_KBDINT_FAILURES = 3

MAX_PASSWORD_CHANGES = 6


# A key pair of the client's host, the host's name, and the user's name there
HostCredential = tuple[SSHKeyPair, str, str]


class ClientAuthHost(Protocol):
    """The connection as the client's authentication sees it: a sender, its listener, and who answers its questions.

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

    def auth_succeeded(self) -> None:
        """The user is logged in."""

    def auth_failed(self, exc: Exception) -> None:
        """No method is left; the error says which the server had."""

    def banner_received(self, message: str, lang: str) -> None:
        """Show a text to the user; control characters are already removed."""

    def next_public_key(self) -> SSHKeyPair | Awaitable[SSHKeyPair | None] | None:
        """Return a key that was not returned before, or None."""

    def next_host_key(self) -> HostCredential | Awaitable[HostCredential | None] | None:
        """Return a key of this host that was not returned before, its name and the user's name on it, or None."""

    def kex_gss_context(self) -> GSSContext | None:
        """Return the context that authenticated the first key exchange, or None."""

    def new_gss_context(self) -> GSSContext | None:
        """Return the client's end of a GSSAPI context with this server, or None."""

    def next_password(self) -> str | Awaitable[str | None] | None:
        """Return a password that was not returned before, or None."""

    def change_password(self, prompt: str, lang: str) -> tuple[str, str] | Awaitable[tuple[str, str] | None] | None:
        """Return the old and the new password, or None to give up."""

    def password_changed(self) -> None:
        """The server took the new password."""

    def password_change_failed(self) -> None:
        """The server refused the new password."""

    def kbdint_submethods(self) -> str | Awaitable[str | None] | None:
        """Return the submethods wanted, None to skip the method, NotImplemented to answer it with passwords."""

    def kbdint_response(
        self, name: str, instructions: str, lang: str, prompts: Prompts
    ) -> Collection[str] | Awaitable[Collection[str] | None] | None:
        """Return one response for each prompt, or None to give up."""


class AttemptOwner(Protocol):
    """The login in progress, as its methods see it."""

    host: ClientAuthHost
    username: str
    session_id: bytes
    peer_sig_algs: Collection[bytes] | None
    signature_algs: Collection[bytes] | None
    sign_at_once: bool
    utf8_decode_errors: str
    passwords: 'PasswordSource'

    def ask(
        self,
        question: Callable[[], T | Awaitable[T]],
        answer: Callable[[T], None],
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Put a question; nothing but what `answer` does follows until it is answered."""

    def send_and_wait(self, payload: bytes, *, trivial: bool) -> None:
        """Send a message that the server must answer; `trivial` if it proves nothing."""

    def method_exhausted(self, method: 'ClientMethod') -> None:
        """Go on to another method: this one has no credential left."""

    def note(self, text: str) -> None:
        """Keep what the final error should say."""


class ClientMethod:
    """One authentication method of a login."""

    name: ClassVar[bytes]
    needs_encryption: ClassVar[bool] = False
    handlers: ClassVar[Mapping[int, Callable[..., None]]] = {}

    def __init__(self, owner: AttemptOwner) -> None:
        self._owner = owner

    def begin(self) -> None:
        """Send a request with the next credential, or report that there is none."""

        raise NotImplementedError

    def finished(self, accepted: bool) -> None:
        """Note the answer to the request; partial success counts as accepted."""


class PublicKey(ClientMethod):
    """Signatures over the session (RFC 4252 section 7), each after a query whether the key would do.

    The first key is signed with at once if the owner says so: it saves a round trip where there is only one key.
    """

    name = PUBLIC_KEY

    def __init__(self, owner: AttemptOwner) -> None:
        super().__init__(owner)
        self._keys = 0
        self._keypair: SSHKeyPair | None = None
        self._kept: SSHKeyPair | None = None
        self._queried: tuple[bytes, bytes] | None = None

    def begin(self) -> None:
        """Ask for the next key."""

        if kept := self._kept:
            self._kept = None
            self._key_chosen(kept)
        elif self._keys >= MAX_KEYS:
            self._owner.note(f'gave up after {MAX_KEYS} keys')
            self._owner.method_exhausted(self)
        else:
            self._owner.ask(self._owner.host.next_public_key, self._key_chosen)

    def finished(self, accepted: bool) -> None:
        """Forget the key that was answered."""

        self._keypair = None
        self._queried = None

    def keep(self) -> None:
        """Try the key anew in its turn: it was sent before the server wanted any."""

        self._kept = self._keypair
        self._keys = 0

    def _key_chosen(self, keypair: SSHKeyPair | None) -> None:
        if keypair is None:
            self._owner.method_exhausted(self)
            return

        self._keys += 1
        chosen = choose_algorithm(self._owner, keypair)

        if chosen is None:
            self._owner.note(f'no signature algorithm in common for {_describe(keypair)}')
            self.begin()
            return

        self._keypair, algorithm = chosen

        if self._owner.sign_at_once and self._keys == 1:
            self._sign(algorithm)
        else:
            self._queried = (algorithm, keypair.public_data)
            self._owner.send_and_wait(self._encode(algorithm, signed=False), trivial=True)

    def _encode(self, algorithm: bytes, *, signed: bool) -> bytes:
        assert self._keypair is not None

        fields = encode_boolean(signed) + encode_string(algorithm) + encode_string(self._keypair.public_data)

        return encode_request(self._owner.username, self.name, fields)

    def _pk_ok_received(self, cursor: Cursor) -> None:
        algorithm = cursor.string()
        key_data = cursor.string()
        cursor.check_end()

        if self._queried is None or self._keypair is None:
            raise ProtocolError('Expected an answer to a signature, got USERAUTH_PK_OK')

        # Some servers answer with the key's own algorithm name, as if it named the signature.
        if key_data != self._queried[1] or algorithm not in (self._queried[0], self._keypair.algorithm):
            raise ProtocolError('Expected USERAUTH_PK_OK for the key that was asked about, got another key')

        self._sign(self._queried[0])

    def _sign(self, algorithm: bytes) -> None:
        keypair = self._keypair
        assert keypair is not None

        request = self._encode(algorithm, signed=True)
        data = encode_string(self._owner.session_id) + request

        def signed(signature: bytes) -> None:
            self._queried = None
            self._owner.send_and_wait(request + encode_string(signature), trivial=False)

        def failed(exc: Exception) -> None:
            self._owner.note(f'{_describe(keypair)} could not sign: {exc}')
            self.finished(False)
            self.begin()

        self._owner.ask(lambda: keypair.sign(data), signed, failed)

    handlers = {MSG_USERAUTH_PK_OK: _pk_ok_received}


class HostBased(ClientMethod):
    """The word of the client's host: its key signs for the user's name there (RFC 4252 section 9)."""

    name = HOST_BASED

    def __init__(self, owner: AttemptOwner) -> None:
        super().__init__(owner)
        self._keys = 0

    def begin(self) -> None:
        """Sign with the host's next key."""

        if self._keys >= MAX_KEYS:
            self._owner.method_exhausted(self)
        else:
            self._owner.ask(self._owner.host.next_host_key, self._key_chosen)

    def _key_chosen(self, credential: HostCredential | None) -> None:
        if credential is None:
            self._owner.method_exhausted(self)
            return

        self._keys += 1
        keypair, client_host, client_username = credential
        chosen = choose_algorithm(self._owner, keypair)

        if chosen is None:
            self._owner.note(f"no signature algorithm in common for this host's {_describe(keypair)}")
            self.begin()
            return

        signer, algorithm = chosen
        fields = b''.join(
            encode_string(field) for field in (algorithm, signer.public_data, client_host, client_username)
        )
        request = encode_request(self._owner.username, self.name, fields)

        def signed(signature: bytes) -> None:
            self._owner.send_and_wait(request + encode_string(signature), trivial=False)

        def failed(exc: Exception) -> None:
            self._owner.note(f"this host's {_describe(signer)} could not sign: {exc}")
            self.begin()

        self._owner.ask(lambda: signer.sign(encode_string(self._owner.session_id) + request), signed, failed)


def choose_algorithm(owner: AttemptOwner, keypair: SSHKeyPair) -> tuple[SSHKeyPair, bytes] | None:
    """Choose how to sign, by our order among what server-sig-algs names (RFC 8308 section 3.1).

    Return a copy of the pair that signs so (pairs are shared by connections whose servers want different algorithms),
    and the algorithm's name in the request, which for a certificate is the certificate's. A key with a single algorithm
    is tried even if the list leaves it out: some servers list RSA only.
    """

    if keypair.has_x509_chain:
        # One way to sign, which servers that list none of X.509 may take too
        if owner.signature_algs is not None and needed_signature(keypair.algorithm) not in owner.signature_algs:
            return None

        return copy.copy(keypair), keypair.algorithm

    ours = [alg for alg in keypair.sig_algorithms if owner.signature_algs is None or alg in owner.signature_algs]
    theirs = owner.peer_sig_algs

    if theirs is not None and len(keypair.sig_algorithms) > 1:
        ours = [alg for alg in ours if alg in theirs or certificate_algorithm(alg) in theirs]

    if not ours:
        return None

    signer = copy.copy(keypair)
    signer.set_sig_algorithm(ours[0])
    certified = is_certificate_algorithm(keypair.algorithm)

    return signer, certificate_algorithm(ours[0]) if certified else ours[0]


class PasswordSource:
    """Passwords from the host, none of them sent twice in a login, whichever method sends it."""

    def __init__(self, owner: AttemptOwner) -> None:
        self._owner = owner
        self._kept: str | None = None
        self._sent: set[str] = set()

    def next(self, answer: Callable[[str | None], None]) -> None:
        """Answer with a password that was not sent yet, or None."""

        if self._kept is not None:
            kept, self._kept = self._kept, None
            answer(kept)
            return

        def chosen(password: str | None) -> None:
            if password is not None and password in self._sent:
                password = None

            if password is not None:
                check_password(password)

            answer(password)

        self._owner.ask(self._owner.host.next_password, chosen)

    def keep(self, password: str) -> None:
        """Take back a password that was not sent."""

        self._kept = password

    def sent(self, password: str) -> None:
        """Note that a password is on its way."""

        self._sent.add(password)

    def clear(self) -> None:
        """Forget every password."""

        self._kept = None
        self._sent.clear()


class Password(ClientMethod):
    """A password, and its change if the server wants one (RFC 4252 section 8)."""

    name = PASSWORD
    needs_encryption = True

    def __init__(self, owner: AttemptOwner) -> None:
        super().__init__(owner)
        self._changes = 0
        self._changing = False

    def begin(self) -> None:
        """Ask for the next password."""

        self._owner.passwords.next(self._password_chosen)

    def finished(self, accepted: bool) -> None:
        """Tell the host what became of a change."""

        if self._changing:
            self._changing = False

            if accepted:
                self._owner.host.password_changed()
            else:
                self._owner.host.password_change_failed()

    def _password_chosen(self, password: str | None) -> None:
        if password is None:
            self._owner.method_exhausted(self)
            return

        self._owner.passwords.sent(password)
        fields = encode_boolean(False) + encode_string(password)
        self._owner.send_and_wait(encode_request(self._owner.username, self.name, fields), trivial=False)

    def _changereq_received(self, cursor: Cursor) -> None:
        prompt = decode_text(cursor, self._owner.utf8_decode_errors)
        lang = decode_text(cursor, self._owner.utf8_decode_errors)
        cursor.check_end()

        self.finished(False)
        self._changes += 1

        if self._changes > MAX_PASSWORD_CHANGES:
            raise ProtocolError(f'Expected at most {MAX_PASSWORD_CHANGES} password change requests, got more')

        self._owner.ask(lambda: self._owner.host.change_password(prompt, lang), self._change_chosen)

    def _change_chosen(self, passwords: tuple[str, str] | None) -> None:
        if passwords is None:
            self._owner.note('password change declined')
            self._owner.method_exhausted(self)
            return

        old_password, new_password = passwords
        check_password(old_password)
        check_password(new_password)

        self._changing = True
        self._owner.passwords.sent(old_password)
        self._owner.passwords.sent(new_password)
        fields = encode_boolean(True) + encode_string(old_password) + encode_string(new_password)
        self._owner.send_and_wait(encode_request(self._owner.username, self.name, fields), trivial=False)

    handlers = {MSG_USERAUTH_PASSWD_CHANGEREQ: _changereq_received}


class KeyboardInteractive(ClientMethod):
    """A dialogue of prompts (RFC 4256), led by the host's callbacks.

    If the host leaves the method to passwords, a challenge with one prompt that does not echo is answered with one; any
    other challenge ends the attempt, and the password stays unsent for the password method.
    """

    name = KEYBOARD_INTERACTIVE
    needs_encryption = True

    def __init__(self, owner: AttemptOwner) -> None:
        super().__init__(owner)
        self._rounds = 0
        self._failures = 0
        self._by_password = False
        self._password: str | None = None

    def begin(self) -> None:
        """Ask whether a dialogue is wanted."""

        if self._failures >= MAX_KBDINT_FAILURES:
            self._owner.method_exhausted(self)
        else:
            self._owner.ask(self._owner.host.kbdint_submethods, self._submethods_chosen)

    def finished(self, accepted: bool) -> None:
        """Count a failed dialogue, and keep a password that it did not ask for."""

        unsent = self._password is not None
        self._return_password()

        # Passwords end by themselves; callbacks may be ready to answer for ever, and a server may never ask.
        if not accepted and unsent:
            self._failures = MAX_KBDINT_FAILURES
        elif not accepted and not self._by_password:
            self._failures += 1

    def _submethods_chosen(self, submethods: str | None) -> None:
        if submethods is None:
            self._owner.method_exhausted(self)
        elif submethods is NotImplemented:
            self._by_password = True
            self._owner.passwords.next(self._password_chosen)
        else:
            self._by_password = False
            self._send_request(submethods)

    def _password_chosen(self, password: str | None) -> None:
        if password is None:
            self._owner.method_exhausted(self)
        else:
            self._password = password
            self._send_request('')

    def _send_request(self, submethods: str) -> None:
        # The language tag is deprecated and sent empty (RFC 4256 section 3.1).
        fields = encode_string('') + encode_string(submethods)
        self._owner.send_and_wait(encode_request(self._owner.username, self.name, fields), trivial=True)

    def _info_request_received(self, cursor: Cursor) -> None:
        errors = self._owner.utf8_decode_errors
        name = decode_text(cursor, errors)
        instructions = decode_text(cursor, errors)
        lang = decode_text(cursor, errors)
        prompts = decode_prompts(cursor, errors)

        self._rounds += 1

        if self._rounds > MAX_KBDINT_ROUNDS:
            raise ProtocolError(f'Expected at most {MAX_KBDINT_ROUNDS} keyboard-interactive challenges, got more')

        def responded(responses: Collection[str] | None) -> None:
            self._send_responses(responses, len(prompts))

        if not self._by_password:
            self._owner.ask(lambda: self._owner.host.kbdint_response(name, instructions, lang, prompts), responded)
        elif not prompts:
            responded(())
        elif len(prompts) == 1 and not prompts[0][1] and self._password is not None:
            password, self._password = self._password, None
            self._owner.passwords.sent(password)
            responded((password,))
        else:
            responded(None)

    def _send_responses(self, responses: Collection[str] | None, wanted: int) -> None:
        if responses is None:
            self._owner.note('keyboard-interactive challenge not answered')
            self._return_password()
            self._owner.method_exhausted(self)
            return

        if isinstance(responses, str) or len(responses) != wanted:
            raise ValueError(f'Expected {wanted} keyboard-interactive responses, got {len(responses)}')

        for response in responses:
            check_password(response, 'keyboard-interactive response')

        self._owner.send_and_wait(encode_info_response(tuple(responses)), trivial=not responses)

    def _return_password(self) -> None:
        if self._password is not None:
            self._owner.passwords.keep(self._password)
            self._password = None

    handlers = {MSG_USERAUTH_INFO_REQUEST: _info_request_received}


def check_password(password: str, what: str = 'password') -> None:
    """Refuse what a callback returned as a secret if no server takes it."""

    if not isinstance(password, str):
        raise TypeError(f'Expected a {what} as str, got {type(password).__name__}')

    if len(password.encode()) > MAX_PASSWORD:
        raise ValueError(f'Expected a {what} of at most {MAX_PASSWORD} bytes, got {len(password.encode())}')


def _describe(keypair: SSHKeyPair) -> str:
    return f'the {keypair.algorithm.decode(errors="replace")} key'


CLIENT_METHODS: tuple[type[ClientMethod], ...] = (HostBased, PublicKey, KeyboardInteractive, Password)
