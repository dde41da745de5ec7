"""What a server decides while a client logs in: authorized keys first, then the owner's word."""

from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from typing import Any, Protocol, TypeVar, cast

from ..errors import PermissionDenied
from ..gss_context import GSSContext, GSSFailure
from ..keys.authorized_keys import SSHAuthorizedKeys, read_authorized_keys
from ..keys.certificate import SSHCertificate
from ..keys.key import SSHKey
from ..keys.permissions import Grant, Permissions
from ..logging import ContextLogger
from ..userauth.server import ServerAuth
from ..userauth.server_policy import AuthPolicy
from .callbacks import SSHServer
from .client_trust import ClientTrust
from .config_server import Client
from .failure_delay import FailureDelay
from .gss import ServerContext
from .host_lookup import name_of
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

    def options_chosen(self, options: SSHServerConnectionOptions) -> None:
        """Other options hold for this client than for others."""

    def login_succeeded(self, username: str) -> None:
        """USERAUTH_SUCCESS was sent."""


class ServerLogin:
    """Answers the questions of a `ServerAuth`, and keeps the options of the keys that let the client in."""

    def __init__(
        self,
        connection: LoginConnection,
        owner: SSHServer,
        options: SSHServerConnectionOptions,
        session_id: bytes,
        *,
        encrypted: bool,
        gss_context: GSSContext | None = None,
    ) -> None:
        self._connection = connection
        self._owner = owner
        self._options = options
        self._authorized_keys = options.authorized_client_keys
        self._trust = ClientTrust(owner, options, connection.logger)
        self._client_name = ''
        self._grants: dict[bytes, Grant] = {}
        self._gss_context: ServerContext | None = None
        self._kex_gss_context = gss_context
        self._delay = FailureDelay(options.auth_failure_delay)
        self._auth = ServerAuth(
            self,
            session_id,
            _policy(options),
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

    @property
    def failures(self) -> int:
        """How often the client failed to log in."""

        return self._auth.failures

    def message_received(self, message_type: int, payload: bytes) -> bool:
        """Handle a message of 50 to 79."""

        self._delay.begin()
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

    @property
    def delegated_credentials(self) -> Any:
        """What the client delegated by GSSAPI, None if nothing."""

        return self._gss_context.delegated if self._gss_context else None

    def permissions(self) -> Permissions:
        """Return what the proven keys let the client do, as the options were that admitted them.

        Raises:
          PermissionDenied: several keys were proven, and their options contradict each other
        """

        proven = (self._grants.get(credential.public_data) for credential in self._auth.accepted_credentials)

        try:
            return Permissions(grant for grant in proven if grant is not None)
        except ValueError as exc:
            raise PermissionDenied(str(exc)) from None

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

    def before_failure(self) -> Awaitable[None] | None:
        """Let a failure wait until it tells nothing by its time."""

        return self._delay.rest(self.username)

    # --- questions

    def begin_auth(self, username: str) -> bool | Awaitable[bool]:
        """Ask the owner whether this user must authenticate."""

        if self._options.depends_on_client:
            return self._begin_configured(username)

        needed = self._owner.begin_auth(username)

        if self._options.rdns_lookup or isawaitable(needed):
            return self._begun(needed)

        self._send_configured_banner()

        return needed

    async def _begin_configured(self, username: str) -> bool:
        """Take the options that the configuration has for this client into use, then ask the owner."""

        peer, local = (self._connection.get_extra_info(name) for name in ('peername', 'sockname'))
        addr, (local_addr, local_port) = peer[0] if isinstance(peer, tuple) else '', _address(local)
        name = await name_of(peer) if self._options.rdns_lookup else ''
        client = Client(username, name or addr, addr, local_addr, local_port)
        options = await self._options.for_client(client)
        self._options = options
        self._authorized_keys = options.authorized_client_keys
        self._trust = ClientTrust(self._owner, options, self._connection.logger)
        self._auth.set_policy(_policy(options), options.signature_algs)
        self._connection.options_chosen(options)

        return await self._begun(self._owner.begin_auth(username))

    async def _begun(self, needed: bool | Awaitable[bool]) -> bool:
        if self._options.rdns_lookup:
            self._client_name = await name_of(self._connection.get_extra_info('peername'))

        answer = await needed if isawaitable(needed) else needed
        self._send_configured_banner()

        return answer

    def _send_configured_banner(self) -> None:
        if self._options.banner:
            self.send_banner(self._options.banner, 'en-US')

    def public_key_auth_supported(self) -> bool:
        """Return whether keys are offered: there are authorized keys or authorities, or the owner decides."""

        return self._options.public_key_auth and (
            self._authorized_keys is not None
            or bool(self._options.trusted_user_ca_keys or self._options.x509_authorities)
            or self._owner.public_key_auth_supported()
        )

    def validate_public_key(self, username: str, key: SSHKey) -> bool | Awaitable[bool]:
        """Look the key up, or ask the owner."""

        return self._judge(key, self._trust.judge_key(username, key, self._authorized_keys, *self._client))

    def validate_certificate(self, username: str, cert: SSHCertificate) -> bool | Awaitable[bool]:
        """Look the certificate's authority up, or ask the owner."""

        return self._judge(cert, self._trust.judge_certificate(username, cert, self._authorized_keys, *self._client))

    def _judge(
        self, credential: SSHKey | SSHCertificate, judged: Grant | Awaitable[Grant | None] | None
    ) -> bool | Awaitable[bool]:
        if isawaitable(judged):
            return self._await_judgement(credential, judged)

        if judged is None:
            return False

        # Kept: what admits the key restricts it, even if the line expires or the list changes meanwhile.
        self._grants[credential.public_data] = judged

        return True

    async def _await_judgement(
        self, credential: SSHKey | SSHCertificate, judged: Awaitable[Grant | None]
    ) -> bool:
        return cast(bool, self._judge(credential, await judged))

    def demands_on_signature(self, credential: SSHKey | SSHCertificate) -> tuple[bool, bool]:
        """Return whether the options of the credential want a FIDO key touched, and its user verified."""

        grant = self._grants[credential.public_data]

        return grant.touch_required, grant.verify_required

    @property
    def _client(self) -> tuple[str, str]:
        """The client's name, which is its address unless names are looked up, and its address."""

        peer = self._connection.get_extra_info('peername')
        addr = str(peer[0]) if isinstance(peer, tuple) else ''

        return self._client_name or addr, addr

    def host_based_auth_supported(self) -> bool:
        """Return whether the word of the client's host is taken."""

        return self._options.host_based_auth and (
            self._options.known_client_hosts is not None or self._owner.host_based_auth_supported()
        )

    async def validate_host_based(
        self, username: str, credential: SSHKey | SSHCertificate, client_host: str, client_username: str
    ) -> bool:
        """Find out which host this is and whether it is trusted, then ask the owner about its user."""

        peer = self._connection.get_extra_info('peername')
        name = client_host.rstrip('.').lower() if self._options.trust_client_host else await name_of(peer)
        addr, port = (str(peer[0]), peer[1]) if isinstance(peer, tuple) else ('', 0)

        if not name or not self._trust.trusts_host(credential, name, addr, port):
            return False

        valid = self._owner.validate_host_based_user(username, name, client_username)

        return (await valid if isawaitable(valid) else valid) is True

    def kex_gss_context(self) -> GSSContext | None:
        """Return the context that authenticated the key exchange, if GSSAPI may log clients in."""

        return self._kex_gss_context if self._options.gss_auth else None

    def gss_auth_supported(self) -> bool:
        """Return whether GSSAPI is offered."""

        return self._options.gss_auth

    async def new_gss_context(self) -> ServerContext | None:
        """Make a context with the key of this host, if there is one."""

        context = ServerContext(self._options.gss_host or '', self._options.gss_store)

        try:
            await context.acquire()
        except GSSFailure as exc:
            self._connection.logger.warning('No GSSAPI credentials to log clients in with: %s', exc)

            return None

        return context

    async def validate_gss_context(self, username: str, context: GSSContext) -> bool:
        """Ask the owner about the principal; what it delegated is kept only if that may log in."""

        assert isinstance(context, ServerContext)
        valid = self._owner.validate_gss_principal(username, context.user_principal, context.host_principal)
        admitted = (await valid if isawaitable(valid) else valid) is True

        if admitted:
            self._gss_context = context

        return admitted

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


def _policy(options: SSHServerConnectionOptions) -> AuthPolicy:
    return AuthPolicy(sequences=options.auth_methods, max_failures=options.max_auth_tries)


def _address(name: Any) -> tuple[str, int]:
    return (name[0], name[1]) if isinstance(name, tuple) else ('', 0)
