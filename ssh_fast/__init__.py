"""SSH for asyncio, client and server, with a compiled hot path.

    endpoints                    connect, listen: where connections begin
    connection                   one connection: trust, login, sessions (the only asyncio protocol)
    process, sftp, agent         what runs over channels
    channel                      RFC 4254
    transport, userauth          RFC 4253, RFC 4252: no event loop, no clock
    keys                         keys, known_hosts, authorized_keys
    _cipher, _packet, _flow, _sftp_codec   the compiled core

The public names are those of AsyncSSH: `import ssh_fast as asyncssh`.
"""

import sys as _sys

from .agent.client import (
    SSHAgentClient,
    SSHAgentKeyPair,
    connect_agent,
)
from .agent.constraints import SSHAgentDestination, SSHAgentHop
from .asyncssh_alias import install as _install
from .channel.client_channel import SSHClientChannel
from .channel.forward_channel import SSHTCPChannel, SSHUNIXChannel
from .channel.line_editor_channel import SSHLineEditorChannel
from .channel.server_channel import SSHServerChannel
from .channel.session import (
    BytesOrStr,
    DataType,
    SSHClientSession,
    SSHServerSession,
    SSHTCPSession,
    SSHTunTapSession,
    SSHUNIXSession,
)
from .channel.tuntap_channel import SSHTunTapChannel
from .connection.acceptor import SSHAcceptor
from .connection.callbacks import (
    SSHClient,
    SSHServer,
)
from .connection.client import SSHClientConnection
from .connection.forwarding import SSHAcceptHandler, SSHSocketSessionFactory
from .connection.options import (
    SSHClientConnectionOptions,
    SSHServerConnectionOptions,
    SSHServerProcessFactory,
    SSHServerSessionFactory,
)
from .connection.server import SSHServerConnection
from .constants import *  # noqa: F403
from .endpoints import (
    connect,
    connect_reverse,
    create_connection,
    create_server,
    get_server_auth_methods,
    get_server_host_key,
    listen,
    listen_reverse,
    run_client,
    run_server,
)
from .errors import (
    BreakReceived,
    ChannelListenError,
    ChannelOpenError,
    CompressionError,
    ConfigParseError,
    ConnectionLost,
    DisconnectError,
    Error,
    HostKeyNotVerifiable,
    IllegalUserName,
    KeyEncryptionError,
    KeyExchangeFailed,
    KeyExportError,
    KeyGenerationError,
    KeyImportError,
    MACError,
    PasswordChangeRequired,
    PermissionDenied,
    ProtocolError,
    ProtocolNotSupported,
    ServiceNotAvailable,
    SignalReceived,
    TerminalSizeChanged,
)
from .forwarding.forwarder import SSHForwarder
from .forwarding.listeners import SSHListener
from .keys.allowed_signers import (
    SSHAllowedSigners,
    import_allowed_signers,
    read_allowed_signers,
)
from .keys.authorized_keys import (
    SSHAuthorizedKeys,
    import_authorized_keys,
    read_authorized_keys,
)
from .keys.certificate import SSHCertificate
from .keys.certificate_files import (
    import_certificate,
    load_certificates,
    read_certificate,
    read_certificate_list,
)
from .keys.key import (
    SSHKey,
    generate_private_key,
)
from .keys.keypair import SSHKeyPair
from .keys.known_hosts import (
    SSHKnownHosts,
    import_known_hosts,
    match_known_hosts,
    read_known_hosts,
)
from .keys.load import (
    import_private_key,
    import_public_key,
    load_keypairs,
    load_public_keys,
    read_private_key,
    read_private_key_list,
    read_public_key,
    read_public_key_list,
    set_default_skip_key_file_check,
)
from .keys.principals import SSHAuthorizedPrincipals, read_authorized_principals
from .keys.rsa import set_default_skip_rsa_key_validation, set_required_rsa_size
from .keys.sk import load_resident_keys
from .keys.smartcard import load_pkcs11_keys
from .keys.sshsig import create_sshsig, validate_sshsig
from .logging import logger, set_debug_level, set_log_level, set_sftp_log_level
from .process.process import (
    SSHClientProcess,
    SSHServerProcess,
)
from .process.results import (
    ProcessError,
    SSHCompletedProcess,
    TimeoutError,
)
from .process.streams import (
    SSHReader,
    SSHWriter,
)
from .process.subprocess import (
    SSHSubprocessProtocol,
    SSHSubprocessReadPipe,
    SSHSubprocessTransport,
    SSHSubprocessWritePipe,
)
from .scp import scp
from .sftp.attrs import (
    SFTPAttrs,
    SFTPLimits,
    SFTPName,
    SFTPVFSAttrs,
)
from .sftp.client import SFTPClient
from .sftp.errors import (
    SFTPBadMessage,
    SFTPByteRangeLockConflict,
    SFTPByteRangeLockRefused,
    SFTPCannotDelete,
    SFTPConnectionLost,
    SFTPDeletePending,
    SFTPDirNotEmpty,
    SFTPEOFError,
    SFTPError,
    SFTPFailure,
    SFTPFileAlreadyExists,
    SFTPFileCorrupt,
    SFTPFileIsADirectory,
    SFTPGroupInvalid,
    SFTPInvalidFilename,
    SFTPInvalidHandle,
    SFTPInvalidParameter,
    SFTPLinkLoop,
    SFTPLockConflict,
    SFTPNoConnection,
    SFTPNoMatchingByteRangeLock,
    SFTPNoMedia,
    SFTPNoSpaceOnFilesystem,
    SFTPNoSuchFile,
    SFTPNoSuchPath,
    SFTPNotADirectory,
    SFTPOpUnsupported,
    SFTPOwnerInvalid,
    SFTPPermissionDenied,
    SFTPQuotaExceeded,
    SFTPUnknownPrincipal,
    SFTPWriteProtect,
)
from .sftp.extensions import FileCheck
from .sftp.file import SFTPClientFile
from .sftp.server import SFTPServer
from .sftp.server_session import SFTPServerFactory
from .sftp.transfer import Transfer
from .transport.registration import (
    register_compression_alg,
    register_encryption_alg,
    register_kex_alg,
    register_mac_alg,
    register_public_key_alg,
    unregister_alg,
)

__version__ = '0.1.0'
__author__ = 'The ssh_fast authors'
__author_email__ = __url__ = ''    # there are none; programs that show AsyncSSH's find these


def install_as_asyncssh() -> None:
    """Let `import asyncssh` give this package in the whole program: to be called before anything imports AsyncSSH.

    Raises:
      RuntimeError: AsyncSSH itself was imported before
    """

    _install(_sys.modules[__name__])


__all__ = [
    'BreakReceived',
    'BytesOrStr',
    'ChannelListenError',
    'ChannelOpenError',
    'CompressionError',
    'ConfigParseError',
    'ConnectionLost',
    'DataType',
    'DisconnectError',
    'Error',
    'FileCheck',
    'HostKeyNotVerifiable',
    'IllegalUserName',
    'KeyEncryptionError',
    'KeyExchangeFailed',
    'KeyExportError',
    'KeyGenerationError',
    'KeyImportError',
    'MACError',
    'PasswordChangeRequired',
    'PermissionDenied',
    'ProcessError',
    'ProtocolError',
    'ProtocolNotSupported',
    'SFTPAttrs',
    'SFTPBadMessage',
    'SFTPByteRangeLockConflict',
    'SFTPByteRangeLockRefused',
    'SFTPCannotDelete',
    'SFTPClient',
    'SFTPClientFile',
    'SFTPConnectionLost',
    'SFTPDeletePending',
    'SFTPDirNotEmpty',
    'SFTPEOFError',
    'SFTPError',
    'SFTPFailure',
    'SFTPFileAlreadyExists',
    'SFTPFileCorrupt',
    'SFTPFileIsADirectory',
    'SFTPGroupInvalid',
    'SFTPInvalidFilename',
    'SFTPInvalidHandle',
    'SFTPInvalidParameter',
    'SFTPLimits',
    'SFTPLinkLoop',
    'SFTPLockConflict',
    'SFTPName',
    'SFTPNoConnection',
    'SFTPNoMatchingByteRangeLock',
    'SFTPNoMedia',
    'SFTPNoSpaceOnFilesystem',
    'SFTPNoSuchFile',
    'SFTPNoSuchPath',
    'SFTPNotADirectory',
    'SFTPOpUnsupported',
    'SFTPOwnerInvalid',
    'SFTPPermissionDenied',
    'SFTPQuotaExceeded',
    'SFTPServer',
    'SFTPServerFactory',
    'SFTPUnknownPrincipal',
    'SFTPVFSAttrs',
    'SFTPWriteProtect',
    'SSHAcceptHandler',
    'SSHAcceptor',
    'SSHAgentClient',
    'SSHAgentDestination',
    'SSHAgentHop',
    'SSHAgentKeyPair',
    'SSHAllowedSigners',
    'SSHAuthorizedKeys',
    'SSHAuthorizedPrincipals',
    'SSHCertificate',
    'SSHClient',
    'SSHClientChannel',
    'SSHClientConnection',
    'SSHClientConnectionOptions',
    'SSHClientProcess',
    'SSHClientSession',
    'SSHCompletedProcess',
    'SSHForwarder',
    'SSHKey',
    'SSHKeyPair',
    'SSHKnownHosts',
    'SSHLineEditorChannel',
    'SSHListener',
    'SSHReader',
    'SSHServer',
    'SSHServerChannel',
    'SSHServerConnection',
    'SSHServerConnectionOptions',
    'SSHServerProcess',
    'SSHServerProcessFactory',
    'SSHServerSession',
    'SSHServerSessionFactory',
    'SSHSocketSessionFactory',
    'SSHSubprocessProtocol',
    'SSHSubprocessReadPipe',
    'SSHSubprocessTransport',
    'SSHSubprocessWritePipe',
    'SSHTCPChannel',
    'SSHTCPSession',
    'SSHTunTapChannel',
    'SSHTunTapSession',
    'SSHUNIXChannel',
    'SSHUNIXSession',
    'SSHWriter',
    'ServiceNotAvailable',
    'SignalReceived',
    'TerminalSizeChanged',
    'TimeoutError',
    'Transfer',
    'connect',
    'connect_agent',
    'connect_reverse',
    'create_connection',
    'create_server',
    'create_sshsig',
    'generate_private_key',
    'get_server_auth_methods',
    'get_server_host_key',
    'import_allowed_signers',
    'import_authorized_keys',
    'import_certificate',
    'import_known_hosts',
    'import_private_key',
    'import_public_key',
    'install_as_asyncssh',
    'listen',
    'listen_reverse',
    'load_certificates',
    'load_keypairs',
    'load_pkcs11_keys',
    'load_public_keys',
    'load_resident_keys',
    'logger',
    'match_known_hosts',
    'read_allowed_signers',
    'read_authorized_keys',
    'read_authorized_principals',
    'read_certificate',
    'read_certificate_list',
    'read_known_hosts',
    'read_private_key',
    'read_private_key_list',
    'read_public_key',
    'read_public_key_list',
    'register_compression_alg',
    'register_encryption_alg',
    'register_kex_alg',
    'register_mac_alg',
    'register_public_key_alg',
    'run_client',
    'run_server',
    'scp',
    'set_debug_level',
    'set_default_skip_key_file_check',
    'set_default_skip_rsa_key_validation',
    'set_log_level',
    'set_required_rsa_size',
    'set_sftp_log_level',
    'unregister_alg',
    'validate_sshsig',
]
