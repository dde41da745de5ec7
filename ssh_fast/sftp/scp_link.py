"""The stream between the two sides of an SCP copy: its lines, answers and data, and whether it can go on."""

from typing import Protocol

from .errors import SFTPBadMessage, SFTPConnectionLost, SFTPError, SFTPFailure
from .scp_records import MAX_LINE, OK, RECORD_STARTS, Message, encode_message, message_text

# What is read at once where lines are expected.
_PIECE = 16384


class Reader(Protocol):
    """What the link needs of the stream that it reads."""

    async def read(self, n: int = -1) -> bytes:
        """Read at most `n` bytes, none at the end."""


class Writer(Protocol):
    """What the link needs of the stream that it writes."""

    def write(self, data: bytes) -> None:
        """Send data."""

    async def drain(self) -> None:
        """Wait until little enough waits to be sent."""


class ScpLink:
    """One side's end of the stream; when it is `broken` its place in the protocol is lost, and nothing can follow."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self.broken = False
        self.refusal: SFTPError | None = None    # the peer's last one
        self._reader = reader
        self._writer = writer
        self._buffer = b''

    # --- receiving

    async def record(self) -> bytes | None:
        """Return the line of the next record, without its newline; None at the end of the stream.

        Raises:
          SFTPBadMessage: it is too long, or none of a record
          SFTPConnectionLost: the stream ended within it
        """

        if not self._buffer:
            self._buffer = await self._reader.read(_PIECE)

        # The newline may never come, as where the peer is a sink too and waits for us.
        if self._buffer and self._buffer[0] not in RECORD_STARTS:
            raise SFTPBadMessage(f'Expected a record of SCP, got {self._buffer[:256]!r}')

        return await self.line()

    async def line(self) -> bytes | None:
        """Return the next line, without its newline; None at the end of the stream.

        Raises:
          SFTPBadMessage: it is too long
          SFTPConnectionLost: the stream ended within it
        """

        while (end := self._buffer.find(b'\n', 0, MAX_LINE)) < 0:
            if len(self._buffer) >= MAX_LINE:
                raise self._break(SFTPBadMessage(f'Expected a line of at most {MAX_LINE} bytes, got a longer one'))

            data = await self._reader.read(_PIECE)

            if not data and not self._buffer:
                return None

            if not data:
                raise self._lost()

            self._buffer += data

        line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]

        return line

    async def data(self, limit: int) -> bytes:
        """Return what is there of a file's data, at least a byte.

        Raises:
          SFTPConnectionLost: the stream ended
        """

        if self._buffer:
            data, self._buffer = self._buffer[:limit], self._buffer[limit:]
        else:
            data = await self._reader.read(limit)

        if not data:
            raise self._lost()

        return data

    async def answer(self) -> Message | None:
        """Return the peer's answer: None if all is well.

        Raises:
          SFTPBadMessage: it is no answer
          SFTPConnectionLost: the stream ended
        """

        code = await self.data(1)

        if code == OK:
            return None

        if code not in (b'\1', b'\2'):
            self._buffer = code + self._buffer
            text = await self.line() or b''

            raise self._break(SFTPBadMessage(f'Expected an answer of SCP, got {text[:256]!r}'))

        line = await self.line()

        if line is None:
            raise self._lost()

        return Message(message_text(line), code == b'\2')

    async def expect_ok(self) -> None:
        """Wait for the answer that all is well.

        Raises:
          SFTPFailure: it is not; the link is broken if nothing more can be done
        """

        answer = await self.answer()

        if answer:
            raise self.failure(answer)

    def failure(self, message: Message) -> SFTPError:
        """Return the error that the peer told of."""

        self.refusal = SFTPFailure(message.text)

        return self._break(self.refusal) if message.fatal else self.refusal

    # --- sending

    async def send(self, data: bytes) -> None:
        """Send data, and wait while too much of it waits.

        Raises:
          SFTPConnectionLost: the stream ended
        """

        if self.broken:
            raise SFTPConnectionLost('The other side of the SCP copy has ended')

        try:
            self._writer.write(data)
            await self._writer.drain()
        except BrokenPipeError:
            # What the peer said last tells more.
            raise self._break(await self._last_words()) from None

    async def acknowledge(self) -> None:
        """Tell the peer that all is well."""

        await self.send(OK)

    async def refuse(self, text: str, fatal: bool = False) -> None:
        """Tell the peer that something failed, or that nothing more can be done."""

        await self.send(encode_message(text, fatal))

    # --- private

    async def _last_words(self) -> SFTPError:
        try:
            answer = await self.answer()
        except SFTPError as exc:
            return exc

        return SFTPFailure(answer.text) if answer else self._lost()

    def _lost(self) -> SFTPError:
        return self._break(SFTPConnectionLost('The other side of the SCP copy ended early'))

    def _break(self, exc: SFTPError) -> SFTPError:
        self.broken = True

        return exc
