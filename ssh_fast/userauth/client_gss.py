"""The client's side of gssapi-with-mic and gssapi-keyex (RFC 4462 sections 3 and 4): a MIC of the session.

The former makes a context with the server first, the latter has that of the key exchange.
"""

from ..errors import ProtocolError
from ..gss_context import MAX_TOKENS, GSSContext, GSSFailure, GSSStep
from ..logging import printable
from ..wire import Cursor, encode_string
from .client_methods import AttemptOwner, ClientMethod
from .gss import (
    MSG_USERAUTH_GSSAPI_ERROR,
    MSG_USERAUTH_GSSAPI_ERRTOK,
    MSG_USERAUTH_GSSAPI_MIC,
    MSG_USERAUTH_GSSAPI_RESPONSE,
    MSG_USERAUTH_GSSAPI_TOKEN,
    decode_token,
    encode_gss,
    encode_mechanisms,
    signed_data,
)
from .messages import GSSAPI_KEYEX, GSSAPI_WITH_MIC, decode_text, displayable, encode_request


class GSSKeyExchange(ClientMethod):
    """One attempt with the context that authenticated the first key exchange, if one did."""

    name = GSSAPI_KEYEX

    def __init__(self, owner: AttemptOwner) -> None:
        super().__init__(owner)
        self._tried = False

    def begin(self) -> None:
        """Send the MIC of the session."""

        context = self._owner.host.kex_gss_context()

        if context is None or self._tried:
            self._owner.method_exhausted(self)
            return

        self._tried = True
        data = signed_data(self._owner.session_id, self._owner.username.encode(), self.name)
        self._owner.ask(lambda: context.sign(data), self._signed, self._failed)

    def _signed(self, mic: bytes) -> None:
        request = encode_request(self._owner.username, self.name, encode_string(mic))
        self._owner.send_and_wait(request, trivial=False)

    def _failed(self, exc: Exception) -> None:
        if not isinstance(exc, GSSFailure):
            raise exc

        self._owner.note(f'GSSAPI: {exc}')
        self._owner.method_exhausted(self)


class GSSWithMic(ClientMethod):
    """One attempt with the credentials that there are: a second one would have the same."""

    name = GSSAPI_WITH_MIC

    def __init__(self, owner: AttemptOwner) -> None:
        super().__init__(owner)
        self._context: GSSContext | None = None
        self._tried = False
        self._chosen = False
        self._complete = False
        self._tokens = 0

    def begin(self) -> None:
        """Ask the server whether it takes the mechanism."""

        if self._tried:
            self._owner.method_exhausted(self)
        else:
            self._tried = True
            self._owner.ask(self._owner.host.new_gss_context, self._context_made)

    def finished(self, accepted: bool) -> None:
        """Let the context go."""

        self._context = None

    def _context_made(self, context: GSSContext | None) -> None:
        if context is None:
            self._owner.method_exhausted(self)
            return

        self._context = context
        fields = encode_mechanisms(context.mechanism)
        self._owner.send_and_wait(encode_request(self._owner.username, self.name, fields), trivial=False)

    def _running_context(self) -> GSSContext:
        assert self._context is not None

        return self._context

    def _response_received(self, cursor: Cursor) -> None:
        mechanism = decode_token(cursor)

        if self._chosen or mechanism != self._running_context().mechanism:
            raise ProtocolError(f'Expected one choice of the GSSAPI mechanism offered, got {mechanism[:32].hex()}')

        self._chosen = True
        self._step(b'')

    def _token_received(self, cursor: Cursor) -> None:
        token = decode_token(cursor)
        self._tokens += 1

        if not self._chosen or self._complete or self._tokens > MAX_TOKENS:
            raise ProtocolError(f'Expected at most {MAX_TOKENS} GSSAPI tokens for a context that needs them, got more')

        self._step(token)

    def _step(self, token: bytes) -> None:
        context = self._running_context()
        self._owner.ask(lambda: context.step(token), self._stepped, self._failed)

    def _stepped(self, step: GSSStep) -> None:
        context = self._running_context()

        if step.token:
            self._owner.send_and_wait(encode_gss(MSG_USERAUTH_GSSAPI_TOKEN, step.token), trivial=False)

        if not step.complete:
            if not step.token:
                self._give_up('the GSSAPI mechanism has nothing to say and is not done')

            return

        self._complete = True

        if not step.protects_integrity:
            self._give_up('the GSSAPI mechanism cannot prove which session it is for')
            return

        # The server's name in the context is proven now; the MIC is worth nothing in another session.
        data = signed_data(self._owner.session_id, self._owner.username.encode(), self.name)
        self._owner.ask(lambda: context.sign(data), self._signed, self._failed)

    def _signed(self, mic: bytes) -> None:
        self._owner.send_and_wait(encode_gss(MSG_USERAUTH_GSSAPI_MIC, mic), trivial=False)

    def _failed(self, exc: Exception) -> None:
        if not isinstance(exc, GSSFailure):
            raise exc

        self._give_up(f'GSSAPI: {exc}')

    def _give_up(self, text: str) -> None:
        self._context = None
        self._owner.note(text)
        self._owner.method_exhausted(self)

    def _error_received(self, cursor: Cursor) -> None:
        major, minor = cursor.uint32(), cursor.uint32()
        message = decode_text(cursor, 'replace')
        decode_text(cursor, 'replace')
        cursor.check_end()

        # A failure follows (RFC 4462 section 3.8).
        self._count_error()
        text = printable(displayable(message), 256)
        self._owner.note(f'the server had the GSSAPI error {major:#x}, {minor:#x}: {text}')

    def _error_token_received(self, cursor: Cursor) -> None:
        decode_token(cursor)
        self._count_error()

    def _count_error(self) -> None:
        self._tokens += 1

        if self._tokens > MAX_TOKENS:
            raise ProtocolError('Expected a failure after GSSAPI errors, got more of them')

    handlers = {
        MSG_USERAUTH_GSSAPI_RESPONSE: _response_received,
        MSG_USERAUTH_GSSAPI_TOKEN: _token_received,
        MSG_USERAUTH_GSSAPI_ERROR: _error_received,
        MSG_USERAUTH_GSSAPI_ERRTOK: _error_token_received,
    }
