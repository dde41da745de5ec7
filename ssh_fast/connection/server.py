"""A server's connection: its login, and what each session of a client becomes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from typing import Any, cast

from ..channel.channel import SSHChannel
from ..channel.mux import Mux
from ..channel.server_channel import SSHServerChannel
from ..channel.session import SSHServerSession
from ..constants import DEFAULT_LANG, OPEN_ADMINISTRATIVELY_PROHIBITED
from ..errors import ChannelOpenError, ServiceNotAvailable
from ..keys.keypair import SSHKeyPair
from ..process.process import SSHServerProcess
from ..process.streams import SSHServerStreamSession
from ..sftp.server import SFTPServer
from ..sftp.server_session import SFTPServerSession
from ..transport.options import TransportOptions
from ..wire import Cursor
from .callbacks import SSHServer
from .connection import SSHConnection
from .options import SSHServerConnectionOptions
from .server_login import ServerLogin

_USERAUTH = b'ssh-userauth'

# As in the client: SFTP moves most of its data in large packets.
_SFTP_MAX_PACKET = 128 * 1024

Acceptor = Callable[['SSHServerConnection'], Awaitable[None] | None]
ErrorHandler = Callable[['SSHServerConnection', Exception | None], None]


class SSHServerConnection(SSHConnection):
    """A connection from a client."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: SSHServerConnectionOptions,
        acceptor: Acceptor | None = None,
        error_handler: ErrorHandler | None = None,
    ) -> None:
        super().__init__(loop, options, is_client=False)

        self._options = options
        self._owner: SSHServer = options.server_factory()
        self._acceptor = acceptor
        self._error_handler = error_handler
        self._login: ServerLogin | None = None
        self._key_options: Mapping[str, Any] = {}

    @property
    def owner(self) -> SSHServer:
        """The server object that `server_factory` made."""

        return self._owner

    def _transport_options(self) -> TransportOptions:
        options = self._options

        return TransportOptions(
            version=options.server_version,
            kex_algs=options.kex_algs,
            encryption_algs=options.encryption_algs,
            mac_algs=options.mac_algs,
            compression_algs=options.compression_algs,
            sig_algs=options.signature_algs,
            host_keys=options.server_host_keys,
            rekey_bytes=options.rekey_bytes,
            rekey_seconds=options.rekey_seconds,
        )

    def get_server_host_key(self) -> SSHKeyPair | None:
        """Return the host key that this connection used."""

        algorithm = self._ssh.algorithms.host_key

        return next((key for key in self._options.server_host_keys if algorithm in key.sig_algorithms), None)

    # --- the login

    def service_requested(self, name: bytes) -> None:
        """Begin the login.

        Raises:
          ServiceNotAvailable: another service was asked for
        """

        if name != _USERAUTH:
            raise ServiceNotAvailable(f'Expected a request for the service {_USERAUTH.decode()}, got {name!r}')

        self._login = ServerLogin(
            self,
            self._owner,
            self._options,
            self._ssh.session_id,
            encrypted=self._ssh.algorithms.recv_cipher != b'none',
        )
        self._ssh.accept_service(name)

    def _login_message_received(self, message_type: int, payload: bytes) -> bool:
        return self._login is not None and self._login.message_received(message_type, payload)

    def login_succeeded(self, username: str) -> None:
        """Open the channels' part of the connection: USERAUTH_SUCCESS is on its way."""

        self._ssh.authentication_complete()
        self._extra['username'] = username
        self._key_options = cast(ServerLogin, self._login).key_options()
        self._start_channels(Mux(self._ssh, self._reader, self._writer, self, max_sessions=self._options.max_sessions))
        self.ask(self._owner.auth_completed, self._accept)

    def _accept(self, _: None) -> None:
        if self._acceptor and isawaitable(accepted := self._acceptor(self)):
            self.create_task(_wait(accepted))

    def send_auth_banner(self, msg: str, lang: str = DEFAULT_LANG) -> None:
        """Send a text to show to the user; possible while the login runs.

        Raises:
          ValueError: it does not run
        """

        if not self._login:
            raise ValueError('A banner can be sent only while authentication runs')

        self._login.send_banner(msg, lang)

    def set_authorized_keys(self, authorized_keys: Any) -> None:
        """Decide by another list which keys this client may log in with; for `SSHServer.begin_auth`.

        Raises:
          ValueError: no login is running
        """

        if not self._login:
            raise ValueError('Authorized keys can be set only while authentication runs')

        self._login.set_authorized_keys(authorized_keys)

    def get_key_option(self, option: str, default: Any = None) -> Any:
        """Return an option that authorized_keys puts on the key that the client logged in with."""

        return self._key_options.get(option, default)

    def check_key_permission(self, permission: str) -> bool:
        """Return whether the key leaves a permission: pty, agent-forwarding, port-forwarding, X11-forwarding."""

        return not self._key_options.get(f'no-{permission}', False)

    # --- the owner's calls

    def _owner_connection_made(self) -> None:
        self._owner.connection_made(self)

    def _owner_connection_lost(self, exc: Exception | None) -> None:
        try:
            if exc and not self.get_extra_info('username') and self._error_handler:
                self._error_handler(self, exc)
        finally:
            self._owner.connection_lost(exc)

    def _owner_debug_received(self, message: str, lang: str, always_display: bool) -> None:
        self._owner.debug_msg_received(message, lang, always_display)

    # --- sessions

    def channel_open_requested(
        self, channel_type: bytes, cursor: Cursor
    ) -> SSHChannel[Any] | Awaitable[SSHChannel[Any]]:
        """Make the channel for a session; nothing else is allowed.

        Raises:
          ChannelOpenError: it is not allowed
        """

        if channel_type != b'session':
            return cast('SSHChannel[Any]', super().channel_open_requested(channel_type, cursor))

        cursor.check_end()
        answer = self._owner.session_requested()

        if answer is False:
            answer = self._default_session()

        if isawaitable(answer):
            return self._await_session(answer)

        return self._make_channel(answer)

    async def _await_session(self, answer: Awaitable[Any]) -> SSHChannel[Any]:
        return self._make_channel(await answer)

    def _default_session(self) -> Any:
        options = self._options

        if options.process_factory:
            return SSHServerProcess(options.process_factory)

        if options.session_factory or options.sftp_factory:
            return SSHServerStreamSession(options.session_factory)

        return False

    def _make_channel(self, answer: Any) -> SSHChannel[Any]:
        """Make the channel of an answer: a session, a handler for streams, or a channel made for one of these."""

        chan: SSHServerChannel[Any] | None = None

        if isinstance(answer, tuple):
            chan, answer = answer

        if answer is False or answer is None:
            raise ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, 'Session refused')

        session = answer if isinstance(answer, SSHServerSession) else None

        if session is None:
            if not callable(answer):
                raise TypeError(
                    f'session_requested must return a session, a handler or False, got {type(answer).__name__}'
                )

            session = SSHServerStreamSession(answer)

        if chan is None:
            chan = self.create_server_channel()

        chan.set_session(session)

        return chan

    def create_server_channel(
        self, encoding: str | None = '', errors: str = '', window: int = 0, max_pktsize: int = 0
    ) -> SSHServerChannel[Any]:
        """Make a channel to return with a session from `session_requested`; what is empty is taken from the options."""

        options = self._options
        sftp = self._sftp_session if options.sftp_factory else None
        max_packet = max_pktsize or options.max_pktsize

        return SSHServerChannel(
            self._require_mux(),
            self._loop,
            options.encoding if encoding == '' else encoding,
            errors or options.errors,
            window or options.window,
            max(max_packet, _SFTP_MAX_PACKET) if sftp else max_packet,
            options.max_window,
            allow_pty=options.allow_pty and self.check_key_permission('pty'),
            subsystems={'sftp': sftp} if sftp else None,
            forced_command=self.get_key_option('command'),
            environment=self.get_key_option('environment'),
        )

    def _sftp_session(self, chan: SSHServerChannel[Any]) -> SSHServerSession[Any]:
        factory = self._options.sftp_factory

        return SFTPServerSession(SFTPServer if factory is True else cast(Callable[..., Any], factory))


async def _wait(awaitable: Awaitable[None]) -> None:
    await awaitable
