"""Work with descriptors that is done in a thread, and has ended before anybody else has a say about them."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar('_T')


async def in_thread(work: Callable[[threading.Event], _T]) -> _T:
    """Do something in a thread; who is cancelled sets the event that it was given, and waits for its end."""

    stop = threading.Event()
    working = asyncio.ensure_future(asyncio.to_thread(work, stop))

    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([working])
        raise
