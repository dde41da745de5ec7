"""The server's side of gssapi-with-mic (RFC 4462 section 3): a context with the client, then a MIC of the session.

Whatever is wrong ends in the same refusal. The host learns of a principal only after its MIC was right, and is asked
the same way whether or not there is such a user.
"""

from ..wire import Cursor
from .gss import (
    MAX_MIC,
    MAX_TOKENS,
    MSG_USERAUTH_GSSAPI_ERRTOK,
    MSG_USERAUTH_GSSAPI_EXCHANGE_COMPLETE,
    MSG_USERAUTH_GSSAPI_MIC,
    MSG_USERAUTH_GSSAPI_RESPONSE,
    MSG_USERAUTH_GSSAPI_TOKEN,
    GSSContext,
    GSSFailure,
    GSSStep,
    decode_mechanisms,
    decode_token,
    encode_gss,
    signed_data,
)
from .messages import GSSAPI_WITH_MIC
from .server_methods import LoginOwner, ServerMethod, settle


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
        self._signed_data = signed_data(self._owner.session_id, request.string())
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

        def verify() -> None:
            context.verify(self._signed_data, mic)

        def verified(_: None) -> None:
            self._context = None
            host, username = self._owner.host, self._owner.username
            self._owner.ask(
                lambda: host.validate_gss_context(username, context), lambda valid: settle(self._owner, valid)
            )

        self._owner.ask(verify, verified, self._failed)

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
