"""Every exception of the floors below SFTP; each disconnect error carries its reason code of RFC 4253 section 11.1."""

from . import constants
from .constants import DEFAULT_LANG


class Error(Exception):
    """The base of the errors of this library: a code, a reason for people, and the reason's language tag."""

    def __init__(self, code: int, reason: str, lang: str = DEFAULT_LANG) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.lang = lang


class DisconnectError(Error):
    """The connection ended, or must end, with the disconnect code that is this error's code (RFC 4253 section 11.1)."""


class _CodedDisconnectError(DisconnectError):
    """A disconnect error whose class fixes its code."""

    disconnect_code: int

    def __init__(self, reason: str, lang: str = DEFAULT_LANG) -> None:
        super().__init__(self.disconnect_code, reason, lang)


class CompressionError(_CodedDisconnectError):
    """Compressed data could not be expanded."""

    disconnect_code = constants.DISC_COMPRESSION_ERROR


class ConnectionLost(_CodedDisconnectError):
    """The connection went away without a disconnect message, or timed out."""

    disconnect_code = constants.DISC_CONNECTION_LOST


class HostKeyNotVerifiable(_CodedDisconnectError):
    """The server's host key is not trusted, or is revoked."""

    disconnect_code = constants.DISC_HOST_KEY_NOT_VERIFIABLE


class IllegalUserName(_CodedDisconnectError):
    """The user name cannot be used on this server."""

    disconnect_code = constants.DISC_ILLEGAL_USER_NAME


class KeyExchangeFailed(_CodedDisconnectError):
    """No common algorithm, or a key exchange value or signature that is not valid."""

    disconnect_code = constants.DISC_KEY_EXCHANGE_FAILED


class MACError(_CodedDisconnectError):
    """A packet's MAC or authentication tag does not match."""

    disconnect_code = constants.DISC_MAC_ERROR


class PermissionDenied(_CodedDisconnectError):
    """No authentication method is left that could succeed."""

    disconnect_code = constants.DISC_NO_MORE_AUTH_METHODS_AVAILABLE


class ProtocolError(_CodedDisconnectError):
    """The peer sent what the protocol does not allow here."""

    disconnect_code = constants.DISC_PROTOCOL_ERROR


class PacketDecodeError(ProtocolError):
    """A message or structure ends before its fields do, or holds a field that is not of its type."""


class ProtocolNotSupported(_CodedDisconnectError):
    """The peer speaks another version of the protocol."""

    disconnect_code = constants.DISC_PROTOCOL_ERROR


class ServiceNotAvailable(_CodedDisconnectError):
    """A service was requested that is not offered, or not now."""

    disconnect_code = constants.DISC_SERVICE_NOT_AVAILABLE


_DISCONNECT_ERRORS: dict[int, type[_CodedDisconnectError]] = {
    cls.disconnect_code: cls
    for cls in (
        CompressionError,
        ConnectionLost,
        HostKeyNotVerifiable,
        IllegalUserName,
        KeyExchangeFailed,
        MACError,
        PermissionDenied,
        ProtocolError,
        ServiceNotAvailable,
    )
}


def disconnect_error(code: int, reason: str, lang: str = DEFAULT_LANG) -> DisconnectError:
    """Make the error that a received disconnect code stands for."""

    cls = _DISCONNECT_ERRORS.get(code)

    return cls(reason, lang) if cls else DisconnectError(code, reason, lang)


class ChannelOpenError(Error):
    """A channel could not be opened; the code is one of the OPEN_ constants (RFC 4254 section 5.1)."""


class ChannelListenError(Exception):
    """A listener that was asked for could not be opened."""


class PasswordChangeRequired(Exception):
    """A server callback raises this to ask the client for a new password (RFC 4252 section 8)."""

    def __init__(self, prompt: str, lang: str = DEFAULT_LANG) -> None:
        super().__init__(f'Password change required: {prompt}')
        self.prompt = prompt
        self.lang = lang


class BreakReceived(Exception):
    """A break request arrived (RFC 4335); `msec` is its length in milliseconds."""

    def __init__(self, msec: int) -> None:
        super().__init__(f'Break for {msec} msec')
        self.msec = msec


class SignalReceived(Exception):
    """A signal request arrived (RFC 4254 section 6.9); `signal` is its name without SIG."""

    def __init__(self, signal: str) -> None:
        super().__init__(f'Signal: {signal}')
        self.signal = signal


class TerminalSizeChanged(Exception):
    """A window-change request arrived (RFC 4254 section 6.7); sizes in characters and in pixels."""

    def __init__(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        super().__init__(f'Terminal size change: ({width}, {height}, {pixwidth}, {pixheight})')
        self.width = width
        self.height = height
        self.pixwidth = pixwidth
        self.pixheight = pixheight

    @property
    def term_size(self) -> tuple[int, int, int, int]:
        """Width and height in characters, then in pixels."""

        return self.width, self.height, self.pixwidth, self.pixheight


class KeyImportError(ValueError):
    """A key, certificate or key file is not of a form that can be read."""


class KeyEncryptionError(ValueError):
    """A key file is encrypted in a way that is not known, or the passphrase is wrong."""


class KeyExportError(ValueError):
    """A key cannot be written in the format that was asked for."""


class KeyGenerationError(ValueError):
    """A key or certificate cannot be generated as asked."""


class ConfigParseError(ValueError):
    """A configuration file has a line that cannot be read."""
