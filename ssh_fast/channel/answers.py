"""Requests answered one after another, although an answer may have to be awaited."""

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from inspect import isawaitable
from typing import Any, Generic, Protocol, TypeVar

from ..errors import DisconnectError, ProtocolError
from ..logging import ContextLogger

Message = TypeVar('Message')
Answer = TypeVar('Answer')

# A client may send its environment and its command without waiting; more while an answer is awaited is a flood.
MAX_WAITING_MESSAGES = 1024
MAX_WAITING_BYTES = 1 << 20


class AnswerHost(Protocol):
    """What of the connection an answer needs."""

    @property
    def logger(self) -> ContextLogger:
        """The connection's logger."""

    def create_task(self, coro: Coroutine[Any, Any, None]) -> object:
        """Run a coroutine."""

    def fail(self, exc: DisconnectError) -> None:
        """End the connection."""


class OrderedAnswers(Generic[Message, Answer]):
    """Messages handled in order: while the answer to one is awaited, the next ones wait here, within a bound.

    `handle(message)` gives the answer or an awaitable of it; `answered(message, answer)` is called before the next
    message is handled. An awaitable that raises answers `refusal`.
    """

    __slots__ = ('_answered', '_busy', '_closed', '_handle', '_host', '_refusal', '_size', '_waiting')

    def __init__(
        self,
        host: AnswerHost,
        handle: Callable[[Message], Answer | Awaitable[Answer]],
        answered: Callable[[Message, Answer], None],
        refusal: Answer,
    ) -> None:
        self._host = host
        self._handle = handle
        self._answered = answered
        self._refusal = refusal
        self._busy = False
        self._closed = False
        self._size = 0
        self._waiting: deque[tuple[Message, int]] = deque()

    def receive(self, message: Message, size: int) -> None:
        """Handle a message of `size` bytes, or keep it until those before it are answered."""

        if not self._busy:
            self._start(message)
            return

        self._size += size
        self._waiting.append((message, size))

        if self._size > MAX_WAITING_BYTES or len(self._waiting) > MAX_WAITING_MESSAGES:
            raise ProtocolError(
                f'Expected at most {MAX_WAITING_MESSAGES} messages and {MAX_WAITING_BYTES} bytes while a request is '
                f'answered, got {len(self._waiting)} messages and {self._size} bytes'
            )

    def close(self) -> None:
        """Forget what waits; an answer that still comes is ignored."""

        self._closed = True
        self._waiting.clear()

    def _start(self, message: Message) -> None:
        answer = self._handle(message)

        if answer is True or answer is False:
            self._answered(message, answer)
        elif isawaitable(answer):
            self._busy = True
            self._host.create_task(self._await(message, answer))
        else:
            self._answered(message, answer)

    async def _await(self, message: Message, awaitable: Awaitable[Answer]) -> None:
        try:
            answer = await awaitable
        except Exception:
            self._host.logger.exception('Uncaught exception while a request was handled')
            answer = self._refusal

        self._busy = False

        if self._closed:
            return

        try:
            self._answered(message, answer)

            while self._waiting and not self._busy:
                message, size = self._waiting.popleft()
                self._size -= size
                self._start(message)
        except DisconnectError as exc:
            self._host.fail(exc)
