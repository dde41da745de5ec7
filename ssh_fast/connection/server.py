"""A server's connection: its login, and what each session of a client becomes."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from inspect import isawaitable
from typing import Any, cast

from ..channel.agent_channel import SSHAgentChannel
from ..channel.channel import DEFAULT_MAX_PACKET, DEFAULT_WINDOW, SSHChannel
from ..channel.mux import Mux
from ..channel.server_channel import LineEditing, SSHServerChannel
from ..channel.session import SSHServerSession, SSHUNIXSession
from ..constants import DEFAULT_LANG, OPEN_ADMINISTRATIVELY_PROHIBITED
from ..errors import ChannelOpenError, ServiceNotAvailable
from ..keys.keypair import SSHKeyPair
from ..keys.permissions import Permissions
from ..process.process import SSHServerProcess
from ..process.streams import SSHReader, SSHServerStreamSession, SSHWriter
from ..sftp.scp_command import is_scp
from ..sftp.scp_server import serve_scp
from ..sftp.server import SFTPServer
from ..sftp.server_session import SFTPServerSession
from ..transport.algorithms import host_key_algorithms, x509_algorithms
from ..transport.options import TransportOptions
from ..wire import Cursor
from .acceptor import Acceptor, ErrorHandler, tell_acceptor
from .admission import Startup
from .agent_forwarding import AgentListener, AgentStreamSession
from .callbacks import SSHServer
from .connection import SSHConnection
from .gss_kex import server_contexts, with_gss
from .host_key_update import HOST_KEYS, PROVE_HOST_KEYS, encode_host_keys, prove_host_keys
from .options import SSHServerConnectionOptions
from .server_forwarding import ForwardingServerConnection
from .server_login import ServerLogin
from .session_proxy import run_through
from .x11_server import ServerX11

_USERAUTH = b'ssh-userauth'

# RFC 4253 section 6.1 has every implementation take packets of 35,000 bytes, which are enough for logins.
_MAX_PACKET_OF_STRANGERS = 36 * 1024

# As in the client: SFTP moves most of its data in large packets.
_SFTP_MAX_PACKET = 128 * 1024


class SSHServerConnection(ForwardingServerConnection):
    """A connection from a client."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: SSHServerConnectionOptions,
        acceptor: Acceptor | None = None,
        error_handler: ErrorHandler | None = None,
        startup: Startup | None = None,
    ) -> None:
        super().__init__(loop, options, is_client=False)

        self._options = options
        self._owner: SSHServer = options.server_factory()
        self._acceptor = acceptor
        self._error_handler = error_handler
        self._startup = startup
        self._login: ServerLogin | None = None
        self._permissions = Permissions()
        self._agent_listener: AgentListener | None = None
        self._x11: ServerX11 | None = None

    @property
    def owner(self) -> SSHServer:
        """The server object that `server_factory` made."""

        return self._owner

    def _transport_options(self) -> TransportOptions:
        options = self._options
        new_gss_context = server_contexts(options)

        return TransportOptions(
            version=options.server_version,
            kex_algs=with_gss(options.kex_algs, new_gss_context),
            encryption_algs=options.encryption_algs,
            mac_algs=options.mac_algs,
            compression_algs=options.compression_algs,
            sig_algs=(
                options.signature_algs
                + (x509_algorithms(options.signature_algs) if options.x509_authorities else ())
            ),
            host_key_algs=host_key_algorithms(options.signature_algs, options.server_host_keys),
            host_keys=options.server_host_keys,
            rekey_bytes=options.rekey_bytes,
            rekey_seconds=options.rekey_seconds,
            new_gss_context=new_gss_context,
            # The tickets of GSSAPI may be larger.
            longest_before_login=0 if new_gss_context or options.gss_auth else _MAX_PACKET_OF_STRANGERS,
        )

    def get_server_host_key(self) -> SSHKeyPair | None:
        """Return the host key that this connection used."""

        algorithm = self._ssh.algorithms.host_key

        return next((key for key in self._options.server_host_keys if algorithm in key.host_key_algorithms), None)

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
            gss_context=self._ssh.gss_context,
        )
        self._ssh.accept_service(name)

    def _login_message_received(self, message_type: int, payload: bytes) -> bool:
        return self._login is not None and self._login.message_received(message_type, payload)

    def options_chosen(self, options: SSHServerConnectionOptions) -> None:
        """Go on with the options that the configuration has for this client."""

        self._options = options

    def login_succeeded(self, username: str) -> None:
        """Open the channels' part of the connection: USERAUTH_SUCCESS is on its way."""

        self._ssh.authentication_complete()
        self._extra['username'] = username
        login = cast(ServerLogin, self._login)

        if self._startup:
            self._startup.logged_in()

        self._permissions = login.permissions()

        if login.delegated_credentials is not None:
            self._extra['gss_delegated_creds'] = login.delegated_credentials

        mux = Mux(self._ssh, self._reader, self._writer, self, max_sessions=self._options.max_sessions)
        self._start_forwarding(mux, self._permissions)
        self._start_channels(mux)

        if self._options.x11_forwarding and self._permissions.x11_forwarding:
            self._x11 = ServerX11(
                mux,
                self._loop,
                self._options.max_window,
                self._require_forwarding(),
                self._options.x11_auth_path,
                self._logger,
            )

        if self._options.send_server_host_keys:
            self.send_server_host_keys()

        self.ask(self._owner.auth_completed, self._accept)

    def send_server_host_keys(self) -> None:
        """Tell the client all of this server's keys, so that it can learn new ones before the old ones go."""

        self._require_mux().send_global_request(HOST_KEYS, *encode_host_keys(self._options.server_host_keys))

    def global_request_received(
        self, name: bytes, cursor: Cursor, want_reply: bool
    ) -> bool | bytes | Awaitable[bool | bytes]:
        """Prove to a client that this server holds the keys that it told of, or listen for it."""

        if name != PROVE_HOST_KEYS or not want_reply:
            return super().global_request_received(name, cursor, want_reply)

        return prove_host_keys(
            self._options.server_host_keys, cursor, self._ssh.session_id, self._ssh.algorithms.host_key
        )

    def _accept(self, _: None) -> None:
        tell_acceptor(self._acceptor, self)

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

    @property
    def permissions(self) -> Permissions:
        """What the client's keys and certificates let it do: to be asked before anything is granted."""

        return self._permissions

    def get_key_option(self, option: str, default: Any = None) -> Any:
        """Return an option that authorized_keys puts on the key that the client logged in with."""

        return self._permissions.key_option(option, default)

    def check_key_permission(self, permission: str) -> bool:
        """Return whether the key leaves a permission.

        It is one of pty, agent-forwarding, port-forwarding, X11-forwarding and user-rc.
        """

        return self._permissions.key_allows(permission)

    def get_certificate_option(self, option: str, default: Any = None) -> Any:
        """Return an option of the certificate that the client logged in with, such as force-command."""

        return self._permissions.certificate_option(option, default)

    def check_certificate_permission(self, permission: str) -> bool:
        """Return whether the certificate gives a permission, one of those of `check_key_permission`."""

        return self._permissions.certificate_allows(permission)

    # --- the owner's calls

    def _owner_connection_made(self) -> None:
        self._owner.connection_made(self)

    def _owner_connection_lost(self, exc: Exception | None) -> None:
        if self._agent_listener:
            self._agent_listener.close()

        if self._x11:
            self._x11.close()

        self._stop_forwarding()

        if self._startup:
            self._startup.ended(exc, self._login.failures if self._login else 0)

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
        """Make the channel for a session, or of a connection through us.

        Raises:
          ChannelOpenError: it is not allowed
        """

        if channel_type != b'session':
            return cast('SSHChannel[Any]', super().channel_open_requested(channel_type, cursor))

        cursor.check_end()

        return self._session_answered(self._owner.session_requested(), None)

    def _session_answered(
        self, answer: Any, chan: SSHServerChannel[Any] | None
    ) -> SSHChannel[Any] | Awaitable[SSHChannel[Any]]:
        """Make the channel of an answer: a session, a handler for streams, what has to be awaited for one of these.

        The answer may also be a tuple of a channel and one of these; False is what the options say.
        """

        if isinstance(answer, tuple):
            chan, answer = answer
        elif answer is False and not chan:
            answer = self._default_session()

        if isawaitable(answer):
            return self._await_session(answer, chan)

        return self._make_channel(answer, chan)

    async def _await_session(
        self, awaitable: Awaitable[Any], chan: SSHServerChannel[Any] | None
    ) -> SSHChannel[Any]:
        answer = self._session_answered(await awaitable, chan)

        return await answer if isawaitable(answer) else answer

    def _default_session(self) -> Any:
        options = self._options

        if options.process_factory:
            return SSHServerProcess(options.process_factory)

        if options.session_factory or options.sftp_factory:
            return SSHServerStreamSession(options.session_factory)

        return False

    def _make_channel(self, answer: Any, chan: SSHServerChannel[Any] | None) -> SSHChannel[Any]:
        if answer is False or answer is None:
            raise ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, 'Session refused')

        session = answer if isinstance(answer, SSHServerSession) else None

        if isinstance(answer, SSHConnection):
            session = SSHServerProcess(partial(run_through, answer))
            chan = chan or self.create_server_channel(encoding=None)

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
        line_editing = LineEditing(options.line_echo, options.line_history, options.max_line_length)

        return SSHServerChannel(
            self._require_mux(),
            self._loop,
            options.encoding if encoding == '' else encoding,
            errors or options.errors,
            window or options.window,
            max(max_packet, _SFTP_MAX_PACKET) if sftp else max_packet,
            options.max_window,
            allow_pty=options.allow_pty and self._permissions.pty,
            line_editing=line_editing if options.line_editor else None,
            subsystems={'sftp': sftp} if sftp else None,
            commands=self._scp_factory if options.allow_scp else None,
            forced_command=self._permissions.command,
            environment=self._permissions.environment,
            forward_agent=self._forward_agent if self._allows_agent() else None,
            forward_x11=self._x11.forward if self._x11 else None,
        )

    # --- the client's agent

    def _allows_agent(self) -> bool:
        return self._options.agent_forwarding and self._permissions.agent_forwarding

    async def _forward_agent(self) -> str | None:
        return self.get_agent_path() if await self.create_agent_listener() else None

    def create_agent_channel(
        self, window: int = DEFAULT_WINDOW, max_pktsize: int = DEFAULT_MAX_PACKET
    ) -> SSHAgentChannel:
        """Make a channel to the agent that the client forwards."""

        return SSHAgentChannel(self._require_mux(), self._loop, window, max_pktsize, self._options.max_window)

    async def create_agent_connection(
        self,
        session_factory: Callable[[], SSHUNIXSession[bytes]],
        *,
        window: int = DEFAULT_WINDOW,
        max_pktsize: int = DEFAULT_MAX_PACKET,
    ) -> tuple[SSHAgentChannel, SSHUNIXSession[bytes]]:
        """Open a channel to the agent that the client forwards; return it and its session.

        Raises:
          ChannelOpenError: the client has not asked for that on a session, or must not, or has no agent
        """

        if self._agent_listener is None or not self._allows_agent():
            raise ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, 'The client forwards no agent')

        chan = self.create_agent_channel(window, max_pktsize)

        return chan, await chan.create(session_factory)

    async def open_agent_connection(self) -> tuple[SSHReader[bytes], SSHWriter[bytes]]:
        """Open streams to the agent that the client forwards, for `connect_agent` say.

        Raises:
          ChannelOpenError: the client has not asked for that on a session, or must not, or has no agent
        """

        chan, session = await self.create_agent_connection(AgentStreamSession)
        assert isinstance(session, AgentStreamSession)

        return SSHReader(session, chan), SSHWriter(session, chan)

    async def create_agent_listener(self) -> bool:
        """Make the socket at `get_agent_path`, if it isn't there; return whether it is."""

        if not self._allows_agent():
            return False

        if self._agent_listener is None:
            self._agent_listener = AgentListener(self.create_agent_connection, self._logger)

        return await self._agent_listener.start()

    def get_agent_path(self) -> str | None:
        """Return the path of the socket that leads to the client's agent, None if there is none."""

        return self._agent_listener.path if self._agent_listener else None

    # --- files

    def _sftp_session(self, chan: SSHServerChannel[Any]) -> SSHServerSession[Any]:
        return SFTPServerSession(self._make_sftp_server())

    def _scp_factory(self, command: str) -> Callable[[Any], SSHServerSession[Any]] | None:
        """Return what makes the session of a command of SCP, None for any other command."""

        if not is_scp(command):
            return None

        serve = partial(serve_scp, self._make_sftp_server(), command)

        return lambda chan: SSHServerStreamSession(serve)

    def _make_sftp_server(self) -> Callable[..., Any]:
        factory = self._options.sftp_factory

        return SFTPServer if factory is True else cast(Callable[..., Any], factory)
