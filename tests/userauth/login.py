"""A client's and a server's login joined in memory, with hosts whose answers the tests set."""

from collections import deque
from collections.abc import Callable
from typing import Any

from ssh_fast.errors import PasswordChangeRequired
from ssh_fast.keys.key import SSHKey, generate_private_key
from ssh_fast.keys.keypair import SSHKeyPair, SSHLocalKeyPair
from ssh_fast.userauth.client import ClientAuth
from ssh_fast.userauth.server import ServerAuth
from ssh_fast.userauth.server_policy import AuthPolicy

SESSION_ID = bytes(range(32))
SIG_ALGS = (b'ssh-ed25519', b'ecdsa-sha2-nistp256', b'rsa-sha2-512', b'rsa-sha2-256')

KEY_A = generate_private_key('ssh-ed25519')
KEY_B = generate_private_key('ssh-ed25519')
ECDSA_KEY = generate_private_key('ecdsa-sha2-nistp256')
RSA_KEY = generate_private_key('ssh-rsa', key_size=2048)


def pair(key: SSHKey) -> SSHLocalKeyPair:
    return SSHLocalKeyPair(key)


class Host:
    """What both hosts share: messages go to a queue, questions are answered at once."""

    def __init__(self) -> None:
        self.outgoing: deque[bytes] = deque()
        self.events: list[Any] = []

    def send_message(self, payload: bytes) -> None:
        self.outgoing.append(payload)

    def ask(
        self,
        question: Callable[[], Any],
        answer: Callable[[Any], None],
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        try:
            value = question()
        except Exception as exc:
            if failed is None:
                raise

            failed(exc)
            return

        answer(value)


class ClientHost(Host):
    def __init__(
        self,
        keys: list[SSHKeyPair] | None = None,
        passwords: list[str] | None = None,
        kbdint: Any = None,
        responses: Any = None,
        change: Any = None,
        host_keys: list[tuple[SSHKeyPair, str, str]] | None = None,
        gss: Any = None,
    ) -> None:
        super().__init__()
        self.keys = list(keys or [])
        self.host_keys = list(host_keys or [])
        self.passwords = list(passwords or [])
        self.kbdint = kbdint
        self.responses = responses
        self.change = change
        self.gss = gss
        self.kex_gss: Any = None
        self.result: Any = None
        self.asked: list[str] = []

    def auth_succeeded(self) -> None:
        assert self.result is None
        self.result = True

    def auth_failed(self, exc: Exception) -> None:
        assert self.result is None
        self.result = exc

    def banner_received(self, message: str, lang: str) -> None:
        self.events.append(('banner', message, lang))

    def next_public_key(self) -> SSHKeyPair | None:
        self.asked.append('key')
        return self.keys.pop(0) if self.keys else None

    def next_host_key(self) -> tuple[SSHKeyPair, str, str] | None:
        return self.host_keys.pop(0) if self.host_keys else None

    def kex_gss_context(self) -> Any:
        return self.kex_gss

    def new_gss_context(self) -> Any:
        self.asked.append('gss')
        return self.gss

    def next_password(self) -> str | None:
        self.asked.append('password')
        return self.passwords.pop(0) if self.passwords else None

    def change_password(self, prompt: str, lang: str) -> tuple[str, str] | None:
        self.events.append(('change', prompt, lang))
        return self.change.pop(0) if self.change else None

    def password_changed(self) -> None:
        self.events.append('changed')

    def password_change_failed(self) -> None:
        self.events.append('change failed')

    def kbdint_submethods(self) -> str | None:
        self.asked.append('kbdint')
        return self.kbdint

    def kbdint_response(self, name: str, instructions: str, lang: str, prompts: Any) -> Any:
        self.events.append(('prompts', name, instructions, list(prompts)))
        return self.responses(prompts) if callable(self.responses) else self.responses


class ServerHost(Host):
    def __init__(
        self,
        keys: list[SSHKey] | None = None,
        passwords: dict[str, str] | None = None,
        kbdint: Any = False,
        challenges: list[Any] | None = None,
        begin: Any = True,
        public_key: bool = True,
        password: bool = True,
        authorities: list[SSHKey] | None = None,
        hosts: list[SSHKey] | None = None,
        demands: tuple[bool, bool] = (True, False),
        gss: Any = None,
    ) -> None:
        super().__init__()
        self.trusted = {key.public_data for key in keys or []}
        self.authorities = {key.public_data for key in authorities or []}
        self.hosts = {key.public_data for key in hosts or []}
        self.demands = demands
        self.gss = gss
        self.kex_gss: Any = None
        self.passwords = passwords or {}
        self.expired: set[str] = set()
        self.kbdint = kbdint
        self.challenges = list(challenges or [])
        self.begin = begin
        self.public_key = public_key
        self.password = password

    def begin_auth(self, username: str) -> bool:
        self.events.append(('begin', username))
        return self.begin

    def auth_completed(self, username: str) -> None:
        self.events.append(('completed', username))

    def public_key_auth_supported(self) -> bool:
        return self.public_key

    def validate_public_key(self, username: str, key: SSHKey) -> bool:
        self.events.append(('key', username, key.public_data))
        return key.public_data in self.trusted

    def validate_certificate(self, username: str, cert: Any) -> bool:
        self.events.append(('certificate', username, cert.key_id))
        return cert.signing_key.public_data in self.authorities and username in cert.principals

    def demands_on_signature(self, credential: Any) -> tuple[bool, bool]:
        return self.demands

    def host_based_auth_supported(self) -> bool:
        return bool(self.hosts)

    def validate_host_based(self, username: str, credential: Any, client_host: str, client_username: str) -> bool:
        self.events.append(('host', username, client_host, client_username))
        return credential.public_data in self.hosts

    def kex_gss_context(self) -> Any:
        return self.kex_gss

    def gss_auth_supported(self) -> bool:
        return self.gss is not None

    def new_gss_context(self) -> Any:
        return self.gss()

    def validate_gss_context(self, username: str, context: Any) -> bool:
        self.events.append(('gss', username, context.user_principal))
        return context.user_principal == f'{username}@REALM'

    def password_auth_supported(self) -> bool:
        return self.password

    def validate_password(self, username: str, password: str) -> bool:
        self.events.append(('password', username, password))

        if self.passwords.get(username) != password:
            return False

        if username in self.expired:
            raise PasswordChangeRequired('Choose another', 'en')

        return True

    def change_password(self, username: str, old_password: str, new_password: str) -> bool:
        self.events.append(('change', username, old_password, new_password))

        if self.passwords.get(username) != old_password:
            return False

        if len(new_password) < 4:
            raise PasswordChangeRequired('Too short', 'en')

        self.passwords[username] = new_password
        self.expired.discard(username)

        return True

    def kbdint_auth_supported(self) -> bool:
        return self.kbdint

    def before_failure(self) -> None:
        return None

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        self.events.append(('kbdint', username, submethods))
        return self.challenges.pop(0) if self.challenges else False

    def validate_kbdint_response(self, username: str, responses: Any) -> Any:
        self.events.append(('responses', list(responses)))
        return self.challenges.pop(0) if self.challenges else False


class Login:
    """A login of `user`; `run` passes messages to and fro until nobody has anything to say."""

    def __init__(
        self,
        client_host: ClientHost,
        server_host: ServerHost,
        *,
        sequences: tuple[tuple[bytes, ...], ...] = (),
        username: str = 'user',
        encrypted: bool = True,
        **client_args: Any,
    ) -> None:
        self.client_host = client_host
        self.server_host = server_host
        self.client = ClientAuth(client_host, username, SESSION_ID, encrypted=encrypted, **client_args)
        self.server = make_server(server_host, sequences=sequences, encrypted=encrypted)
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []

    def run(self) -> Any:
        self.client.start()

        while self.client_host.outgoing or self.server_host.outgoing:
            while self.client_host.outgoing:
                payload = self.client_host.outgoing.popleft()
                self.to_server.append(payload)
                self.server.message_received(payload[0], payload)

            while self.server_host.outgoing:
                payload = self.server_host.outgoing.popleft()
                self.to_client.append(payload)
                self.client.message_received(payload[0], payload)

        return self.client_host.result


def make_server(
    host: ServerHost, *, sequences: tuple[tuple[bytes, ...], ...] = (), encrypted: bool = True, **policy_args: Any
) -> ServerAuth:
    policy = AuthPolicy(sequences, **policy_args)

    return ServerAuth(host, SESSION_ID, policy, encrypted=encrypted, signature_algs=SIG_ALGS)


def receive(auth: Any, payload: bytes) -> None:
    auth.message_received(payload[0], payload)
