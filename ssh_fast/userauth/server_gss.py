"""The server's side of gssapi-with-mic and gssapi-keyex (RFC 4462 sections 3 and 4): a MIC of the session.

The former makes a context with the client first, the latter has that of the key exchange.

Whatever is wrong ends in the same refusal. The host learns of a principal only after its MIC was right, and is asked
the same way whether or not there is such a user.
"""

from ..gss_context import MAX_MIC, MAX_TOKENS, GSSContext, GSSFailure, GSSStep
from ..wire import Cursor
from .gss import (
    MSG_USERAUTH_GSSAPI_ERRTOK,
    MSG_USERAUTH_GSSAPI_EXCHANGE_COMPLETE,
    MSG_USERAUTH_GSSAPI_MIC,
    MSG_USERAUTH_GSSAPI_RESPONSE,
    MSG_USERAUTH_GSSAPI_TOKEN,
    decode_mechanisms,
    decode_token,
    encode_gss,
    signed_data,
)
from .messages import GSSAPI_KEYEX, GSSAPI_WITH_MIC
from .server_methods import LoginOwner, ServerMethod, settle


def _judge(owner: LoginOwner, context: GSSContext, data: bytes, mic: bytes) -> None:
    """Verify the MIC, then ask the host about the principal."""

    def failed(exc: Exception) -> None:
        if not isinstance(exc, GSSFailure):
            raise exc

        owner.refuse()

    def verified(_: None) -> None:
        owner.ask(
            lambda: owner.host.validate_gss_context(owner.username, context), lambda valid: settle(owner, valid)
        )

    owner.ask(lambda: context.verify(data, mic), verified, failed)


class GSSKeyExchange(ServerMethod):
    """A MIC by the context that authenticated the first key exchange."""

    name = GSSAPI_KEYEX

    def supported(self) -> bool:
        """Tell whether there is such a context."""

        return self._owner.host.kex_gss_context() is not None

    def begin(self, cursor: Cursor, payload: bytes) -> None:
        """Judge the MIC of a request."""

        mic = decode_token(cursor, MAX_MIC)
        context = self._owner.host.kex_gss_context()
        request = Cursor(payload)
        request.byte()

        if context is None:
            self._owner.refuse()
        else:
            _judge(self._owner, context, signed_data(self._owner.session_id, request.string(), self.name), mic)


class GSSWithMic(ServerMethod):
    """A context that proves who the client's principal is, and a MIC that ties it to this session and user."""

    name = GSSAPI_WITH_MIC

    def __init__(self, owner: LoginOwner) -> None:
        super().__init__(owner)
        self._context: GSSContext | None = None
        self._signed_data = b''
        self._complete = False
        self._tokens = 0

    def supported(self) -> bool:
        """Tell whether there is a mechanism."""

        return self._owner.host.gss_auth_supported()

    def begin(self, cursor: Cursor, payload: bytes) -> None:
        """Choose the mechanism."""

        mechanisms = decode_mechanisms(cursor)
        request = Cursor(payload)
        request.byte()

        self._context = None
        self._signed_data = signed_data(self._owner.session_id, request.string(), self.name)
        self._complete = False
        self._tokens = 0

        def made(context: GSSContext | None) -> None:
            if context is None or context.mechanism not in mechanisms:
                self._owner.refuse()
                return

            self._context = context
            self._owner.answer(encode_gss(MSG_USERAUTH_GSSAPI_RESPONSE, context.mechanism), running=True)

        self._owner.ask(self._owner.host.new_gss_context, made, self._failed)

    def _token_received(self, cursor: Cursor) -> None:
        token = decode_token(cursor)
        context = self._context
        self._tokens += 1

        if context is None or self._complete or self._tokens > MAX_TOKENS:
            self._refuse()
        else:
            self._owner.ask(lambda: context.step(token), self._stepped, self._failed)

    def _stepped(self, step: GSSStep) -> None:
        self._complete = step.complete

        # A context without MICs would prove nothing about this session.
        if step.complete and not step.protects_integrity:
            self._refuse()
        elif step.token:
            self._owner.answer(encode_gss(MSG_USERAUTH_GSSAPI_TOKEN, step.token), running=True)
        elif step.complete:
            self._owner.wait_for_more()
        else:
            self._refuse()

    def _mic_received(self, cursor: Cursor) -> None:
        mic = decode_token(cursor, MAX_MIC)
        context = self._context

        if context is None or not self._complete:
            self._refuse()
            return

        self._context = None
        _judge(self._owner, context, self._signed_data, mic)

    def _failed(self, exc: Exception) -> None:
        if not isinstance(exc, GSSFailure):
            raise exc

        self._refuse()

    def _refuse(self) -> None:
        self._context = None
        self._owner.refuse()

    def _complete_received(self, cursor: Cursor) -> None:
        # For contexts without MICs, which are not taken.
        cursor.check_end()
        self._refuse()

    def _error_token_received(self, cursor: Cursor) -> None:
        decode_token(cursor)
        self._refuse()

    handlers = {
        MSG_USERAUTH_GSSAPI_TOKEN: _token_received,
        MSG_USERAUTH_GSSAPI_EXCHANGE_COMPLETE: _complete_received,
        MSG_USERAUTH_GSSAPI_ERRTOK: _error_token_received,
        MSG_USERAUTH_GSSAPI_MIC: _mic_received,
    }
