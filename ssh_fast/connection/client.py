"""A client's connection: trust in the server, the login, and the sessions that are opened on it."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from inspect import isawaitable
from typing import Any, TypeVar, cast

from ..channel.agent_channel import AGENT_CHANNEL, SSHAgentChannel
from ..channel.channel import DEFAULT_MAX_PACKET, DEFAULT_WINDOW
from ..channel.client_channel import Environment, SSHClientChannel, TerminalSize, prepare_environment
from ..channel.mux import Mux
from ..channel.session import SSHClientSession
from ..channel.x11_channel import X11_CHANNEL
from ..constants import DEFAULT_PORT, OPEN_ADMINISTRATIVELY_PROHIBITED, PIPE
from ..errors import ChannelOpenError, HostKeyNotVerifiable, ServiceNotAvailable
from ..keys.key import SSHKey
from ..keys.known_hosts_file import add_known_host
from ..opening import opening
from ..process.process import BUFSIZE, SSHClientProcess, open_client_redirections, run_process
from ..process.results import SSHCompletedProcess
from ..process.streams import SSHClientStreamSession, SSHReader, SSHWriter
from ..process.subprocess import SSHSubprocessProtocol, SSHSubprocessTransport
from ..sftp.client import SFTPClient
from ..sftp.requests import SFTPClientSession
from ..transport.options import TransportOptions
from ..wire import Cursor
from .acceptor import Acceptor, ErrorHandler, tell_acceptor
from .agent_forwarding import AgentSource
from .callbacks import SSHClient
from .client_login import ClientLogin, needs_no_answers
from .client_tunnels import TunnelingClientConnection
from .gss_kex import NewContext, with_gss
from .host_key_update import HOST_KEYS, HostKeyChange, HostKeyUpdate, update_file
from .host_keys import HostKeyPolicy
from .options import SSHClientConnectionOptions
from .options_prepare import x11_forwarding as check_x11_forwarding
from .options_trust import known_hosts_file
from .x11_client import ClientX11, X11Wish

_USERAUTH = b'ssh-userauth'

# SFTP channels take larger packets than others: fewer, for the same data.
_SFTP_MAX_PACKET = 128 * 1024

Unset = tuple[()]
T = TypeVar('T')
P = TypeVar('P', bound=SSHClientProcess[Any])


class SSHClientConnection(TunnelingClientConnection):
    """A connection to a server, as `connect` gives it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: SSHClientConnectionOptions,
        new_gss_context: NewContext | None = None,
        acceptor: Acceptor | None = None,
        error_handler: ErrorHandler | None = None,
        *,
        accepted: bool = False,
    ) -> None:
        super().__init__(loop, options, is_client=True)

        self._options = options
        self._new_gss_context = new_gss_context
        self._acceptor = acceptor
        self._error_handler = error_handler
        self._accepted = accepted
        self._owner: SSHClient = options.client_factory()
        self._host_key_policy: HostKeyPolicy
        self._host_key: SSHKey | None = None
        self._known_as = '', 0
        self._host_key_update: HostKeyUpdate | None = None
        self._login: ClientLogin | None = None
        self._stop_before_login = False
        self._agent_source: AgentSource | None = None
        self._x11: ClientX11 | None = None

    def stop_before_login(self, stop: bool) -> None:
        """Choose whether the connection counts as established once the host key is trusted, without a login."""

        self._stop_before_login = stop

    # --- the server's key

    def _transport_options(self) -> TransportOptions:
        options = self._options
        peer = self.get_extra_info('peername')
        addr = peer[0] if isinstance(peer, tuple) else ''

        if self._accepted:
            # The options' host and port are where we listen, and who connects there has a name of his own.
            name, port = options.host_key_alias or addr, options.port or DEFAULT_PORT
        else:
            port = options.port if options.host or not isinstance(peer, tuple) else peer[1]
            name = options.host_key_alias or options.host or addr

        self._known_as = name, port
        self._host_key_policy = HostKeyPolicy(
            options.known_hosts,
            name,
            addr,
            port,
            revoked_keys=options.revoked_host_keys,
            ca_signature_algs=options.ca_signature_algs,
            x509_trusted=options.x509_authorities,
            x509_purposes=options.x509_purposes,
            accept_new=self._accept_new_host if self._accepts_new_hosts() else None,
        )

        return TransportOptions(
            version=options.client_version,
            kex_algs=with_gss(options.kex_algs, self._new_gss_context),
            host_key_algs=self._host_key_policy.offered_algorithms(
                options.server_host_key_algs, options.is_set('server_host_key_algs')
            ),
            encryption_algs=options.encryption_algs,
            mac_algs=options.mac_algs,
            compression_algs=options.compression_algs,
            rekey_bytes=options.rekey_bytes,
            rekey_seconds=options.rekey_seconds,
            new_gss_context=self._new_gss_context,
        )

    def host_key_received(self, key_data: bytes, algorithm: bytes) -> None:
        """Decide whether the server's host key is trusted.

        Raises:
          HostKeyNotVerifiable: it is not
        """

        self._host_key = self._host_key_policy.verify(key_data, self._owner)
        self._ssh.host_key_accepted()

    def get_server_host_key(self) -> SSHKey | None:
        """Return the server's host key, once it is trusted; None if GSSAPI proved who the server is."""

        return self._host_key

    def _accepts_new_hosts(self) -> bool:
        # Who connects to us is not somebody whom the user chose. The options of a listener may have been updated.
        return self._options.strict_host_key_checking == 'accept-new' and not self._accepted

    def _accept_new_host(self, key: SSHKey) -> None:
        """Trust a server at first sight, and write its key down: it is not trusted if that fails."""

        path = known_hosts_file(self._options)

        try:
            add_known_host(path, *self._known_as, [key], self._options.hash_known_hosts)
        except (OSError, ValueError) as exc:
            raise HostKeyNotVerifiable(f'The key of a new host cannot be added to {path}: {exc}') from exc

        self._logger.info('Added the key of a new host to %s: %s', path, key.get_fingerprint())

    def global_request_received(
        self, name: bytes, cursor: Cursor, want_reply: bool
    ) -> bool | bytes | Awaitable[bool | bytes]:
        """Take a server's list of host keys; the answer to other requests is the same as a server's."""

        if name != HOST_KEYS or self._host_key is None or not self._wants_host_keys():
            return super().global_request_received(name, cursor, want_reply)

        if self._host_key_update is None:
            self._host_key_update = HostKeyUpdate(
                self,
                self._host_key_policy,
                self._host_key,
                self._ssh.session_id,
                self._options.server_host_key_algs,
            )

        self._host_key_update.keys_received(cursor, self._require_mux())

        return True

    def _wants_host_keys(self) -> bool:
        return self._options.update_host_keys or self._options.server_host_keys_handler is not None

    def host_keys_changed(self, change: HostKeyChange) -> None:
        """Tell the handler how the server's keys differ from those in known_hosts, and update the file if asked to."""

        self.create_task(self._act_on_host_keys(change))

    async def _act_on_host_keys(self, change: HostKeyChange) -> None:
        options = self._options

        if options.server_host_keys_handler and isawaitable(told := options.server_host_keys_handler(*change)):
            await told

        if options.update_host_keys and (change.added or change.removed or change.revoked):
            update = partial(update_file, known_hosts_file(options), *self._known_as, change)
            await self._loop.run_in_executor(None, update, options.hash_known_hosts, self._logger)

    # --- the login

    def keys_exchanged(self, first: bool) -> None:
        """Ask for the login service, once."""

        if not first:
            return

        if self._stop_before_login:
            self._settle_established()
        else:
            self._ssh.request_service(_USERAUTH)

            if needs_no_answers(self._options):
                self._begin_login()

    def service_accepted(self, name: bytes) -> None:
        """Begin the login, if it has not begun."""

        if name != _USERAUTH:
            raise ServiceNotAvailable(f'Expected the service {_USERAUTH.decode()}, got {name!r}')

        if not self._login:
            self._begin_login()

    def _begin_login(self) -> None:
        self._extra['username'] = self._options.username
        self._login = ClientLogin(
            self,
            self._owner,
            self._options,
            self._ssh.session_id,
            self._ssh.peer_sig_algs,
            encrypted=self._ssh.algorithms.send_cipher != b'none',
            proof=self._ssh.session_proof,
            gss_context=self._ssh.gss_context,
        )
        self._login.start()

    def _login_message_received(self, message_type: int, payload: bytes) -> bool:
        return self._login is not None and self._login.message_received(message_type, payload)

    def login_succeeded(self) -> None:
        """Open the channels' part of the connection."""

        self._ssh.authentication_complete()
        mux = Mux(self._ssh, self._reader, self._writer, self, max_sessions=0)
        self._start_forwarding(mux, self._options.max_window)
        self._x11 = ClientX11(mux, self._loop, self._options.max_window, self.create_task, self._logger)
        self._start_channels(mux)

    def login_completed(self) -> None:
        """Tell the acceptor, if we listened for this server."""

        tell_acceptor(self._acceptor, self)

    def get_server_auth_methods(self) -> Sequence[str]:
        """Return the methods that the server named last as able to continue."""

        return [name.decode('ascii', 'replace') for name in (self._login.server_methods if self._login else ())]

    # --- the owner's calls

    def _owner_connection_made(self) -> None:
        self._owner.connection_made(self)

    def _owner_connection_lost(self, exc: Exception | None) -> None:
        self._stop_forwarding()

        if self._login:
            self._login.close()

        try:
            if exc and not self._mux and self._error_handler:
                self._error_handler(self, exc)
        finally:
            self._owner.connection_lost(exc)

    def _owner_debug_received(self, message: str, lang: str, always_display: bool) -> None:
        self._owner.debug_msg_received(message, lang, always_display)

    # --- sessions

    async def create_session(
        self,
        session_factory: Callable[[], SSHClientSession[Any]],
        command: str | Unset | None = (),
        *,
        subsystem: str | Unset | None = (),
        env: Environment | Unset = (),
        send_env: Sequence[str | bytes] | Unset | None = (),
        request_pty: bool | str | Unset = (),
        term_type: str | Unset | None = (),
        term_size: TerminalSize | Unset = (),
        term_modes: Mapping[int, int] | Unset | None = (),
        x11_forwarding: bool | str | Unset = (),
        x11_display: str | Unset | None = (),
        x11_auth_path: str | Unset | None = (),
        x11_single_connection: bool | Unset = (),
        encoding: str | Unset | None = (),
        errors: str | Unset = (),
        window: int | Unset = (),
        max_pktsize: int | Unset = (),
    ) -> tuple[SSHClientChannel[Any], SSHClientSession[Any]]:
        """Open a session, and run a command, a subsystem, or else a shell on it; return its channel and its session.

        What is left unset, as an empty tuple, is taken from the connection's options.

        Raises:
          ChannelOpenError: the server refused the channel, the terminal, X11 or the command, or there is no display
          ValueError: an argument asks for what there is not
        """

        options = self._options
        chan: SSHClientChannel[Any] = SSHClientChannel(
            self._require_mux(),
            self._loop,
            _chosen(encoding, options.encoding),
            _chosen(errors, options.errors),
            _chosen(window, options.window),
            _chosen(max_pktsize, options.max_pktsize),
            options.max_window,
        )
        given_env = {**options.env, **prepare_environment(_chosen(env, None))}
        sent_env = prepare_environment(None, _chosen(send_env, options.send_env))

        # A subsystem that is named replaces a command of the options, and the other way round.
        given_command = _chosen(command, options.command if subsystem == () else None)
        given_subsystem = _chosen(subsystem, options.subsystem if given_command is None else None)

        wish = X11Wish(
            check_x11_forwarding('x11_forwarding', _chosen(x11_forwarding, options.x11_forwarding)),
            _chosen(x11_display, options.x11_display),
            _chosen(x11_auth_path, options.x11_auth_path),
            _chosen(x11_single_connection, options.x11_single_connection),
        )

        x11 = await self._require_x11().ask(wish)

        try:
            session = await chan.create(
                session_factory,
                given_command or None,
                given_subsystem or None,
                {**sent_env, **given_env},
                _chosen(request_pty, options.request_pty),
                _chosen(term_type, options.term_type),
                _chosen(term_size, options.term_size),
                _chosen(term_modes, options.term_modes),
                self._forwards_agent(),
                x11,
            )
        except BaseException:
            if x11:
                x11.ended()

            raise

        return chan, session

    def _require_x11(self) -> ClientX11:
        self._require_mux()
        assert self._x11 is not None

        return self._x11

    def _forwards_agent(self) -> bool:
        """Tell whether the server may ask our agent from now on; there must be one."""

        wanted = self._options.agent_forwarding
        path = wanted if isinstance(wanted, str) else self._options.agent_path or os.environ.get('SSH_AUTH_SOCK')

        if wanted and path and self._agent_source is None:
            self._agent_source = AgentSource(path, self._ssh.session_proof)

        return bool(wanted and path)

    def create_agent_channel(
        self, window: int = DEFAULT_WINDOW, max_pktsize: int = DEFAULT_MAX_PACKET
    ) -> SSHAgentChannel:
        """Make a channel from a server's program to our agent."""

        return SSHAgentChannel(self._require_mux(), self._loop, window, max_pktsize, self._options.max_window)

    def channel_open_requested(self, channel_type: bytes, cursor: Cursor) -> Any:
        """Let the server's programs reach our agent or display, if that is forwarded; refuse other channels.

        Raises:
          ChannelOpenError: it is not allowed
        """

        if channel_type == X11_CHANNEL:
            return self._require_x11().take(cursor)

        if channel_type != AGENT_CHANNEL:
            return super().channel_open_requested(channel_type, cursor)

        cursor.check_end()

        if self._agent_source is None:
            raise ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, 'No agent is forwarded')

        return self._agent_source.open(self.create_agent_channel())

    async def open_session(
        self, *args: Any, **kwargs: Any
    ) -> tuple[SSHWriter[Any], SSHReader[Any], SSHReader[Any]]:
        """Open a session as `create_session` does and return its streams: stdin, stdout, stderr."""

        _, session = await self.create_session(SSHClientStreamSession, *args, **kwargs)
        assert isinstance(session, SSHClientStreamSession)

        return session.stdin, session.stdout, session.stderr

    @opening
    async def create_process(
        self,
        *args: Any,
        input: Any = None,
        stdin: Any = PIPE,
        stdout: Any = PIPE,
        stderr: Any = PIPE,
        bufsize: int = BUFSIZE,
        send_eof: bool = True,
        recv_eof: bool = True,
        **kwargs: Any,
    ) -> SSHClientProcess[Any]:
        """Start a process; the arguments are those of `create_session`, and where its streams lead.

        Streams are redirected as `SSHClientProcess.redirect` does it; `input` is the whole standard input, whatever
        `stdin` is. Files are opened before the process is started.

        Raises:
          OSError: a file cannot be opened
          TypeError, ValueError: an argument is nothing that a stream can be redirected to
        """

        streams = (stdin, stdout, stderr, bufsize, send_eof, recv_eof)

        return await self._start_process(SSHClientProcess, streams, input, args, kwargs)

    async def _start_process(
        self,
        factory: Callable[[], P],
        streams: tuple[Any, Any, Any, int, bool, bool],
        input: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> P:
        stdin, *others = streams
        opened = await open_client_redirections(stdin if input is None else PIPE, *others)

        try:
            _, session = await self.create_session(factory, *args, **kwargs)
        except BaseException:
            await opened.abandon()
            raise

        process = cast(P, session)

        try:
            await process.attach_redirections(opened)

            if input is not None:
                process.write_input(input)
        except BaseException:
            process.channel.abort()
            raise

        return process

    async def create_subprocess(
        self,
        protocol_factory: Callable[[], SSHSubprocessProtocol[Any]],
        command: str | Unset | None = (),
        bufsize: int = BUFSIZE,
        input: Any = None,
        stdin: Any = PIPE,
        stdout: Any = PIPE,
        stderr: Any = PIPE,
        encoding: str | None = None,
        **kwargs: Any,
    ) -> tuple[SSHSubprocessTransport[Any], SSHSubprocessProtocol[Any]]:
        """Start a process as asyncio's `subprocess_exec` does: its output is given to a protocol, in bytes by default.

        The other arguments are those of `create_process`.
        """

        streams = (stdin, stdout, stderr, bufsize, kwargs.pop('send_eof', True), kwargs.pop('recv_eof', True))
        kwargs['encoding'] = encoding

        transport = await self._start_process(
            lambda: SSHSubprocessTransport(protocol_factory), streams, input, (command,), kwargs
        )

        return transport, transport.get_protocol()

    async def run(
        self, *args: Any, check: bool = False, timeout: float | None = None, **kwargs: Any
    ) -> SSHCompletedProcess:
        """Run a process to its end, and return how it ended and what it wrote; the arguments are `create_process`'s.

        Raises:
          ProcessError: with `check`, the exit status is not 0
          TimeoutError: it did not end in `timeout` seconds
        """

        return await run_process(await self.create_process(*args, **kwargs), check, timeout)

    # --- SFTP

    @opening
    async def start_sftp_client(
        self,
        env: Environment | Unset = (),
        send_env: Sequence[str | bytes] | Unset | None = (),
        path_encoding: str | None = 'utf-8',
        path_errors: str = 'strict',
        sftp_version: int = 3,
    ) -> SFTPClient:
        """Start an SFTP session; paths given as text are sent in `path_encoding`.

        Raises:
          ChannelOpenError: the server has no SFTP
          SFTPError: it speaks a version that is not known
          ValueError: another version than 3 was asked for
        """

        if sftp_version != 3:
            raise ValueError(f'sftp_version must be 3, got {sftp_version}')

        async def open_session() -> SFTPClientSession:
            _, session = await self.create_session(
                SFTPClientSession,
                None,
                subsystem='sftp',
                env=env,
                send_env=send_env,
                request_pty=False,
                x11_forwarding=False,
                encoding=None,
                max_pktsize=max(self._options.max_pktsize, _SFTP_MAX_PACKET),
            )
            assert isinstance(session, SFTPClientSession)
            await session.start()

            return session

        return SFTPClient(await open_session(), path_encoding, path_errors, open_session=open_session)


def _chosen(value: T | Unset, default: T) -> T:
    """Return what was given, or the default for what was left unset."""

    return default if value == () else cast(T, value)
