"""Key exchanges that GSSAPI authenticates in place of the host key's signature (RFC 4462 section 2, RFC 8732).

    client                                        server
    INIT 30      token, client value       ->
                                           <-     HOSTKEY 33   host key, if there is one
    CONTINUE 31  token                    <->     CONTINUE 31  token, as long as the mechanism needs it
                                           <-     COMPLETE 32  server value, MIC of H, boolean, token if true
                                           <-     ERROR 34     uint32 major, uint32 minor, message, language

H is that of the plain method, with an empty K_S if no HOSTKEY was sent. A step of the mechanism may wait for a KDC, so
each is a question, and no message is looked at before it is answered.
"""

import hashlib
from base64 import b64encode
from collections.abc import Callable, Iterable
from typing import NoReturn

from ...constants import DEFAULT_LANG
from ...errors import KeyExchangeFailed, ProtocolError
from ...gss_context import MAX_MIC, MAX_TOKENS, GSSContext, GSSFailure, GSSStep, read_token
from ...logging import printable
from ...wire import Cursor, encode_boolean, encode_byte, encode_string, encode_uint32
from ..host import TransportHost
from .base import KexContext, KexResult, KeyExchange

MSG_KEXGSS_INIT = 30
MSG_KEXGSS_CONTINUE = 31
MSG_KEXGSS_COMPLETE = 32
MSG_KEXGSS_HOSTKEY = 33
MSG_KEXGSS_ERROR = 34

# The host key algorithm of a server that has no host key (RFC 4462 section 5)
NULL = b'null'

_TEXT_LIMIT = 256
_GSS_S_FAILURE = 13 << 16
_FAILED = 'The GSSAPI mechanism failed'

# The families of names, each with the plain method that makes the secret
_PLAIN_METHODS = {
    b'gss-curve25519-sha256-': b'curve25519-sha256',
    b'gss-curve448-sha512-': b'curve448-sha512',
    b'gss-nistp256-sha256-': b'ecdh-sha2-nistp256',
    b'gss-nistp384-sha384-': b'ecdh-sha2-nistp384',
    b'gss-nistp521-sha512-': b'ecdh-sha2-nistp521',
    b'gss-group14-sha256-': b'diffie-hellman-group14-sha256',
    b'gss-group15-sha512-': b'diffie-hellman-group15-sha512',
    b'gss-group16-sha512-': b'diffie-hellman-group16-sha512',
    b'gss-group17-sha512-': b'diffie-hellman-group17-sha512',
    b'gss-group18-sha512-': b'diffie-hellman-group18-sha512',
}


def gss_kex_algorithms(mechanism: bytes, kex_algs: Iterable[bytes]) -> tuple[bytes, ...]:
    """List the GSSAPI methods whose plain ones are given, in their order, for a mechanism's identifier in DER."""

    families = {plain: family for family, plain in _PLAIN_METHODS.items()}
    suffix = b64encode(hashlib.md5(mechanism, usedforsecurity=False).digest())

    return tuple(families[name] + suffix for name in kex_algs if name in families)


def is_gss(name: bytes) -> bool:
    """Tell whether a method is authenticated by GSSAPI, so that it needs no host key."""

    return _family(name) in _PLAIN_METHODS


def plain_method(name: bytes) -> bytes:
    """Name the plain method that makes the secret of a GSSAPI method."""

    return _PLAIN_METHODS[_family(name)]


def _family(name: bytes) -> bytes:
    # The digest behind it, in base64, has no hyphen.
    return name[: name.rfind(b'-') + 1]


class GSSExchange:
    """One running exchange: `finish` is called with the result once the peer is proven."""

    def __init__(
        self,
        context: KexContext,
        method: KeyExchange,
        gss_context: GSSContext,
        host: TransportHost,
        finish: Callable[[KexResult], None],
    ) -> None:
        self._context = context
        self._method = method
        self._gss = gss_context
        self._host = host
        self._finish = finish
        self._handlers = self._client_handlers if context.is_client else self._server_handlers

        self._tokens = 0
        self._client_value: bytes | None = None
        self._established = False
        self._host_key_data = b''
        self._host_key_done = False             # sent, or received, or too late for it
        self._final: tuple[bytes, bytes] | None = None      # client: the server's value and MIC

    def start(self) -> None:
        """Begin: the client speaks first."""

        if self._context.is_client:
            self._step(b'', self._client_stepped)

    def message_received(self, message_type: int, payload: bytes) -> None:
        """Take a message of the numbers 30 to 49."""

        cursor = Cursor(payload)
        cursor.byte()
        handler = self._handlers.get(message_type)

        if handler is None or (self._client_value is None) is not (message_type == MSG_KEXGSS_INIT):
            raise ProtocolError(f'Expected the next message of the GSSAPI key exchange, got message {message_type}')

        handler(self, cursor)

    # --- the context

    def _step(self, token: bytes, stepped: Callable[[GSSStep], None]) -> None:
        self._host.ask(lambda: self._gss.step(token), stepped, self._failed)

    def _take_token(self, cursor: Cursor) -> bytes:
        token = read_token(cursor)
        self._tokens += 1

        if not token:
            raise ProtocolError('Expected a GSSAPI token, got an empty one')

        if self._established or self._tokens > MAX_TOKENS:
            raise ProtocolError(f'Expected at most {MAX_TOKENS} GSSAPI tokens for a context that needs them, got more')

        return token

    def _note_step(self, step: GSSStep) -> None:
        """Note whether the context is established; it must then prove both ends, and make MICs."""

        self._established = step.complete

        if step.complete and not (step.protects_integrity and step.mutual):
            self._fail('Expected a GSSAPI context that proves the server and makes MICs, got one that does not')

        if not step.complete and not step.token:
            self._fail('Expected a GSSAPI token from the mechanism, got none')

    def _failed(self, exc: Exception) -> NoReturn:
        if not isinstance(exc, GSSFailure):
            raise exc

        # The text becomes a DISCONNECT's: a stranger does not learn from a server what its keytab has.
        self._fail(f'GSSAPI: {exc}' if self._context.is_client else _FAILED, exc)

    def _fail(self, text: str, cause: Exception | None = None) -> NoReturn:
        if not self._context.is_client:
            self._context.send(
                encode_byte(MSG_KEXGSS_ERROR)
                + encode_uint32(_GSS_S_FAILURE)
                + encode_uint32(0)
                + encode_string(_FAILED)
                + encode_string(DEFAULT_LANG)
            )

        raise KeyExchangeFailed(text) from cause

    def _hash(self, server_value: bytes, secret: bytes) -> bytes:
        assert self._client_value is not None

        return self._method.exchange_hash(self._host_key_data, self._client_value, server_value, secret)

    def _succeed(self, exchange_hash: bytes, secret: bytes) -> None:
        self._finish(
            KexResult(self._method.hash_name, exchange_hash, self._host_key_data, b'', secret, self._gss)
        )

    def _continue_received(self, cursor: Cursor) -> None:
        token = self._take_token(cursor)
        cursor.check_end()

        if self._context.is_client:
            self._host_key_done = True

        self._step(token, self._client_stepped if self._context.is_client else self._server_stepped)

    # --- the client

    def _client_stepped(self, step: GSSStep) -> None:
        self._note_step(step)

        if self._final is not None:
            if not step.complete or step.token:
                self._fail('Expected the last GSSAPI token to establish the context, got one that needs an answer')

            self._verify(*self._final)
        elif not step.token:
            self._fail('Expected a GSSAPI token for the server from the mechanism, got none')
        elif self._client_value is None:
            self._client_value = self._method.make_client_value()
            self._context.send(encode_byte(MSG_KEXGSS_INIT) + encode_string(step.token) + self._client_value)
        else:
            self._context.send(encode_byte(MSG_KEXGSS_CONTINUE) + encode_string(step.token))

    def _host_key_received(self, cursor: Cursor) -> None:
        host_key_data = cursor.string()
        cursor.check_end()

        if self._host_key_done or not host_key_data or self._context.host_key_algorithm == NULL:
            raise ProtocolError('Expected at most one host key, first, and only if one was agreed upon, got another')

        self._host_key_done = True
        self._host_key_data = host_key_data

    def _complete_received(self, cursor: Cursor) -> None:
        server_value = self._method.read_value(cursor)
        mic = read_token(cursor, MAX_MIC)
        token = self._take_token(cursor) if cursor.boolean() else b''
        cursor.check_end()

        self._final = server_value, mic

        if token:
            self._step(token, self._client_stepped)
        elif self._established:
            self._verify(server_value, mic)
        else:
            self._fail('Expected a GSSAPI token, as the context is not established, got none')

    def _verify(self, server_value: bytes, mic: bytes) -> None:
        assert self._client_value is not None

        secret = self._method.agree(server_value)
        exchange_hash = self._hash(server_value, secret)

        try:
            self._gss.verify(exchange_hash, mic)
        except GSSFailure as exc:
            raise KeyExchangeFailed(f'Expected a MIC of the key exchange that is right: {exc}') from None

        self._succeed(exchange_hash, secret)

    def _error_received(self, cursor: Cursor) -> None:
        major, minor = cursor.uint32(), cursor.uint32()
        text = printable(cursor.string().decode(errors='replace'), _TEXT_LIMIT)
        cursor.string()
        cursor.check_end()

        raise KeyExchangeFailed(f'The server had the GSSAPI error {major:#x}, {minor:#x}: {text}')

    # --- the server

    def _init_received(self, cursor: Cursor) -> None:
        token = self._take_token(cursor)
        self._client_value = self._method.read_value(cursor)
        cursor.check_end()
        self._step(token, self._server_stepped)

    def _server_stepped(self, step: GSSStep) -> None:
        self._note_step(step)

        if not self._host_key_done:
            self._show_host_key()

        if not step.complete:
            self._context.send(encode_byte(MSG_KEXGSS_CONTINUE) + encode_string(step.token))
            return

        assert self._client_value is not None

        server_value, secret = self._method.answer(self._client_value)
        exchange_hash = self._hash(server_value, secret)

        try:
            mic = self._gss.sign(exchange_hash)
        except GSSFailure as exc:
            self._failed(exc)

        self._context.send(
            encode_byte(MSG_KEXGSS_COMPLETE)
            + server_value
            + encode_string(mic)
            + encode_boolean(bool(step.token))
            + (encode_string(step.token) if step.token else b'')
        )
        self._succeed(exchange_hash, secret)

    def _show_host_key(self) -> None:
        """Let the client know the host key, so that it can renew the keys by it when its ticket has expired."""

        self._host_key_done = True
        host_key = self._context.host_key

        # The message is optional, and OpenSSH's clients end with an internal error when they get it (Debian 12's 9.2).
        if host_key is not None and b'OpenSSH' not in Cursor(self._context.hash_prefix).string():
            self._host_key_data = host_key.public_data
            self._context.send(encode_byte(MSG_KEXGSS_HOSTKEY) + encode_string(self._host_key_data))

    _client_handlers = {
        MSG_KEXGSS_CONTINUE: _continue_received,
        MSG_KEXGSS_COMPLETE: _complete_received,
        MSG_KEXGSS_HOSTKEY: _host_key_received,
        MSG_KEXGSS_ERROR: _error_received,
    }
    _server_handlers = {MSG_KEXGSS_INIT: _init_received, MSG_KEXGSS_CONTINUE: _continue_received}
