"""Questions that the application answers, at once or later; nothing else is received on the connection meanwhile."""

from collections.abc import Awaitable, Callable, Coroutine
from inspect import isawaitable
from typing import Any, Protocol, TypeVar

T = TypeVar('T')


class Asker(Protocol):
    """The connection that has questions."""

    def hold_messages(self) -> None:
        """Hand no message on: a question is open."""

    def settle_question(self, settle: Callable[[], None]) -> None:
        """Act on an answer, and after the last one go on with the messages that were held back."""

    def create_task(self, coro: Coroutine[Any, Any, None]) -> object:
        """Run a coroutine that is cancelled with the connection."""


class Questions:
    """Runs questions and counts those that are open."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._count = 0

    @property
    def open(self) -> bool:
        """Whether an answer is awaited."""

        return self._count > 0

    def ask(
        self,
        question: Callable[[], T | Awaitable[T]],
        answer: Callable[[T], None],
        failed: Callable[[Exception], None] | None,
    ) -> None:
        """Run a question; its value goes to `answer`, what it raises to `failed`, or to the connection."""

        try:
            value = question()
        except Exception as exc:
            if not failed:
                raise

            failed(exc)
            return

        if isawaitable(value):
            self._count += 1
            self._asker.hold_messages()
            self._asker.create_task(self._wait(value, answer, failed))
        else:
            answer(value)

    async def _wait(
        self, value: Awaitable[T], answer: Callable[[T], None], failed: Callable[[Exception], None] | None
    ) -> None:
        error: Exception | None = None

        try:
            result = await value
        except Exception as exc:
            error = exc

        def settle() -> None:
            self._count -= 1

            if error is None:
                answer(result)
            elif failed:
                failed(error)
            else:
                raise error

        self._asker.settle_question(settle)
