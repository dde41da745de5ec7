"""The first protocol of a listener's sockets: it turns a connection away, or hands it to one that is made for it."""

import asyncio
from collections.abc import Callable
from typing import cast

from ..logging import logger
from .admission import Admission, Startup


class Gate(asyncio.BufferedProtocol):
    """Asks the admission about one connection; `make` makes the protocol of one that is admitted."""

    def __init__(self, admission: Admission, make: Callable[[Startup], asyncio.BufferedProtocol]) -> None:
        self._admission = admission
        self._make = make

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the connection on, or tell its peer that it was turned away, and close it."""

        transport = cast(asyncio.Transport, transport)
        answer = self._admission.admit(transport.get_extra_info('peername'))

        if isinstance(answer, bytes):
            logger.info('Turned away a connection: %s', answer.decode().strip())
            transport.write(answer)
            transport.close()
            return

        try:
            protocol = self._make(answer)
        except Exception as exc:
            logger.error('Uncaught exception', exc_info=exc)
            answer.ended(None, 0)
            transport.abort()
            return

        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Lend memory for what somebody says who was turned away."""

        return bytearray(1024)

    def buffer_updated(self, nbytes: int) -> None:
        """Look at nothing that somebody says who was turned away."""
