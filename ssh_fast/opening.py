"""An operation that can be awaited for its result, or entered with `async with`."""

from collections.abc import Callable, Coroutine, Generator
from functools import wraps
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar


class AsyncContext(Protocol):
    """What an opened thing must offer to be entered."""

    async def __aenter__(self) -> Self:
        """Enter."""

    async def __aexit__(self, *exc_info: Any) -> Any:
        """Close, and wait until it is closed."""


P = ParamSpec('P')
T = TypeVar('T', bound=AsyncContext)


class Opening(Generic[T]):
    """Holds the coroutine that opens something: `await` gives the thing, `async with` closes it at the end too."""

    def __init__(self, coro: Coroutine[Any, Any, T]) -> None:
        self._coro = coro
        self._opened: T | None = None

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coro.__await__()

    async def __aenter__(self) -> T:
        self._opened = await self._coro

        return await self._opened.__aenter__()

    async def __aexit__(self, *exc_info: Any) -> Any:
        if self._opened is not None:
            return await self._opened.__aexit__(*exc_info)


def opening(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Opening[T]]:
    """Decorate a coroutine function so that its result can be awaited or entered."""

    @wraps(function)
    def start(*args: P.args, **kwargs: P.kwargs) -> Opening[T]:
        return Opening(function(*args, **kwargs))

    return start
