"""The packet reader and writer: framing in every mode, cuts, limits, sequence numbers, the held reader, the chunk."""

import random
import resource
import zlib

import pytest

from ssh_fast._cipher import CIPHER_SUITES, MAC_SUITES, new_opening_cipher, new_sealing_cipher
from ssh_fast._packet import PacketReader, PacketWriter
from ssh_fast.errors import MACError, ProtocolError

MAX_LENGTH = 256 * 1024
SUITES = [(name, b'') for name, suite in CIPHER_SUITES.items() if suite.aead] + [
    (name, mac) for name, suite in CIPHER_SUITES.items() if not suite.aead for mac in MAC_SUITES
]
MODES = [
    (b'none', b''),
    (b'aes128-gcm@openssh.com', b''),
    (b'chacha20-poly1305@openssh.com', b''),
    (b'aes128-ctr', b'hmac-sha2-256'),
    (b'aes128-ctr', b'hmac-sha2-256-etm@openssh.com'),
]


def suite_id(suite: tuple[bytes, bytes]) -> str:
    return '+'.join(part.decode() for part in suite if part)


def keys(name: bytes, mac: bytes) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    if name == b'none':
        return name, b'', b'', b'', b''

    suite = CIPHER_SUITES[name]

    mac_key = b'm' * (MAC_SUITES[mac].key_size if mac else 0)

    return name, bytes(range(suite.key_size)), b'i' * suite.iv_size, mac, mac_key


class Received:
    """A handler that keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.packets: list[tuple[int, bytes]] = []
        self.reader = PacketReader(self)
        self.on_packet = lambda payload: None

    def line_received(self, line: bytes) -> None:
        self.lines.append(line)
        self.reader.identified = line.startswith(b'SSH-')

    def packet_received(self, payload: bytes, sequence: int) -> None:
        self.packets.append((sequence, payload))
        self.on_packet(payload)

    @property
    def payloads(self) -> list[bytes]:
        return [payload for _, payload in self.packets]


def receiver(suite: tuple[bytes, bytes] = (b'none', b'')) -> Received:
    received = Received()
    received.reader.identified = True

    if suite[0] != b'none':
        received.reader.set_cipher(new_opening_cipher(*keys(*suite)), True)

    return received


def writer(suite: tuple[bytes, bytes] = (b'none', b'')) -> PacketWriter:
    packet_writer = PacketWriter(lambda: None)

    if suite[0] != b'none':
        packet_writer.set_cipher(new_sealing_cipher(*keys(*suite)), True)

    return packet_writer


def stream(packet_writer: PacketWriter) -> bytes:
    parts = []

    while (chunk := packet_writer.take_chunk()) is not None:
        parts.append(bytes(chunk))

    return b''.join(parts)


def forge(suite: tuple[bytes, bytes], length: int, body: bytes, sequence: int = 0) -> bytes:
    """Seal a packet with any length and body, with a valid MAC: what a peer that holds the keys can do."""

    sealing = new_sealing_cipher(*keys(*suite))

    return sealing.seal_packet(sequence, length.to_bytes(4, 'big') + body)


def padded(suite: tuple[bytes, bytes], payload: bytes, padding: int | None = None) -> tuple[int, bytes]:
    """Make the inside of a packet; `padding` is what its padding_length says, whatever there is."""

    sealing = new_sealing_cipher(*keys(*suite))
    bare = 1 + len(payload) + (0 if sealing.length_apart else 4)
    size = sealing.block_size - bare % sealing.block_size
    size += sealing.block_size if size < 4 else 0
    body = bytes([size if padding is None else padding]) + payload + bytes(size)

    return len(body), body


@pytest.mark.parametrize('suite', [(b'none', b''), *SUITES], ids=suite_id)
def test_packets_survive_every_cut(suite: tuple[bytes, bytes]) -> None:
    rng = random.Random(5)
    sizes = (1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 16, 255, 1000, 33000)
    payloads = [bytes([50]) + rng.randbytes(size - 1) for size in sizes]
    packet_writer = writer(suite)

    for payload in payloads:
        packet_writer.send_packet(payload)

    data = stream(packet_writer)

    whole = receiver(suite)
    whole.reader.feed(data)
    assert whole.packets == list(enumerate(payloads))

    for _ in range(5):
        cut = receiver(suite)
        start = 0

        while start < len(data):
            end = start + rng.randrange(1, 3000)
            cut.reader.feed(data[start:end])
            start = end

        assert cut.packets == list(enumerate(payloads))

    bytewise = receiver(suite)

    for index in range(3000):
        bytewise.reader.feed(data[index : index + 1])

    assert bytewise.payloads == payloads[: len(bytewise.payloads)]
    assert len(bytewise.payloads) >= 12


@pytest.mark.parametrize('suite', MODES, ids=suite_id)
def test_the_loops_road_gives_the_same_as_feed(suite: tuple[bytes, bytes]) -> None:
    packet_writer = writer(suite)
    payloads = [bytes([60]) * (index * 97 + 1) for index in range(300)]

    for payload in payloads:
        packet_writer.send_packet(payload)

    data = stream(packet_writer)
    received = receiver(suite)

    while data:
        buffer = received.reader.get_buffer(-1)
        size = min(len(buffer), len(data), 70_000)
        buffer[:size] = data[:size]
        buffer.release()
        received.reader.buffer_updated(size)
        data = data[size:]

    assert received.payloads == payloads


def test_lines_come_before_packets() -> None:
    received = Received()
    packet_writer = PacketWriter(lambda: None)
    packet_writer.send_raw(b'hello\r\nSSH-2.0-x\r\n')
    packet_writer.send_packet(b'\x14packet')
    received.reader.feed(stream(packet_writer))

    assert received.lines == [b'hello', b'SSH-2.0-x']
    assert received.payloads == [b'\x14packet']


def test_an_endless_line_is_refused() -> None:
    received = Received()
    received.reader.feed(b'x' * 8192)

    with pytest.raises(ProtocolError, match='identification line'):
        received.reader.feed(b'x')


BAD_LENGTHS = [*range(5), MAX_LENGTH + 1, MAX_LENGTH + 8, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


@pytest.mark.parametrize('suite', MODES, ids=suite_id)
@pytest.mark.parametrize('length', BAD_LENGTHS)
def test_a_bad_length_is_refused_before_anything_is_allocated(suite: tuple[bytes, bytes], length: int) -> None:
    received = receiver(suite)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tag = 64
    packet = length.to_bytes(4, 'big') + bytes(60)

    if suite[0].startswith((b'aes128-ctr', b'chacha')) and not suite[1].endswith(b'etm@openssh.com'):
        # The length itself is encrypted: seal a valid packet and change its length under the stream cipher.
        good_length, body = padded(suite, b'2' * 27)
        sealed = bytearray(forge(suite, good_length, body))

        for index, byte in enumerate((good_length ^ length).to_bytes(4, 'big')):
            sealed[index] ^= byte

        packet = bytes(sealed)

    conceals = suite == (b'aes128-ctr', b'hmac-sha2-256')
    error = MACError if conceals else ProtocolError

    with pytest.raises(error):
        received.reader.feed(packet + bytes(tag))

        if conceals:
            # As much as the longest packet is awaited, then the MAC is called wrong.
            assert not received.packets
            received.reader.feed(bytes(MAX_LENGTH - 1024))
            received.reader.feed(bytes(2048))

    assert received.packets == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096


def block_size(suite: tuple[bytes, bytes]) -> int:
    return new_sealing_cipher(*keys(*suite)).block_size


@pytest.mark.parametrize(
    ('suite', 'extra'),
    [(mode, extra) for mode in MODES for extra in range(1, 16) if extra % block_size(mode)],
    ids=str,
)
def test_a_length_that_is_no_multiple_of_the_block_is_refused(suite: tuple[bytes, bytes], extra: int) -> None:
    length, body = padded(suite, b'2' * 100)

    if suite[0] == b'none':
        packet = (length + extra).to_bytes(4, 'big') + body + bytes(extra)
    else:
        sealed = bytearray(forge(suite, length, body))

        for index, byte in enumerate((length ^ (length + extra)).to_bytes(4, 'big')):
            sealed[index] ^= byte

        packet = bytes(sealed)

    received = receiver(suite)

    with pytest.raises((ProtocolError, MACError)):
        received.reader.feed(packet + bytes(MAX_LENGTH + 1024))

    assert received.packets == []


@pytest.mark.parametrize('suite', MODES, ids=suite_id)
@pytest.mark.parametrize('padding', [0, 1, 2, 3, 200, 254, 255])
def test_bad_padding_under_a_valid_mac_is_refused(suite: tuple[bytes, bytes], padding: int) -> None:
    length, body = padded(suite, b'2' * 20, padding)
    received = receiver(suite)

    with pytest.raises(ProtocolError, match='padding'):
        received.reader.feed(forge(suite, length, body))

    assert received.packets == []


@pytest.mark.parametrize('suite', MODES, ids=suite_id)
def test_an_empty_payload_is_refused(suite: tuple[bytes, bytes]) -> None:
    length, body = padded(suite, b'')
    received = receiver(suite)

    with pytest.raises(ProtocolError, match='padding'):
        received.reader.feed(forge(suite, length, body))


@pytest.mark.parametrize('suite', [mode for mode in MODES if mode[0] != b'none'], ids=suite_id)
def test_every_flipped_bit_is_found_and_nothing_delivered(suite: tuple[bytes, bytes]) -> None:
    packet_writer = writer(suite)
    packet_writer.send_packet(b'2secret payload')
    data = stream(packet_writer)

    for index in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[index // 8] ^= 1 << index % 8
        received = receiver(suite)

        # A flip in the length may make the reader wait for more: give it as much as the longest packet.
        with pytest.raises((MACError, ProtocolError)):
            received.reader.feed(bytes(flipped) + bytes(MAX_LENGTH + 1024))

        assert received.packets == []


@pytest.mark.parametrize('suite', [mode for mode in MODES if mode[0] != b'none'], ids=suite_id)
def test_the_sequence_number_wraps_once_keys_are_in_force(suite: tuple[bytes, bytes]) -> None:
    packet_writer, received = writer(suite), receiver(suite)
    packet_writer.sequence = received.reader.sequence = 0xFFFFFFFD

    for _ in range(10):
        packet_writer.send_packet(b'2x')

    received.reader.feed(stream(packet_writer))
    assert [sequence for sequence, _ in received.packets] == [0xFFFFFFFD, 0xFFFFFFFE, 0xFFFFFFFF, *range(7)]


def test_the_sequence_number_must_not_wrap_in_the_first_key_exchange() -> None:
    packet_writer, received = writer(), receiver()
    packet_writer.sequence = received.reader.sequence = 0xFFFFFFFD

    for _ in range(2):
        packet_writer.send_packet(b'\x02')

    with pytest.raises(ProtocolError, match='sequence numbers'):
        packet_writer.send_packet(b'\x02')

    received.reader.feed(stream(packet_writer))
    length, body = padded((b'none', b''), b'\x02')

    with pytest.raises(ProtocolError, match='sequence numbers'):
        received.reader.feed(length.to_bytes(4, 'big') + body)

    assert len(received.packets) == 2


def test_a_packet_that_was_not_sealed_is_not_sent() -> None:
    packet_writer = writer()
    packet_writer.sequence = 0xFFFFFFFF

    with pytest.raises(ProtocolError, match='sequence numbers'):
        packet_writer.send_packet(b'\x02')

    assert stream(packet_writer) == b''


def test_new_keys_count_anew_and_reset_the_sequence_only_if_asked() -> None:
    suite = MODES[1]
    packet_writer, received = writer(), receiver()
    packet_writer.send_packet(b'\x02')
    received.reader.feed(stream(packet_writer))
    packet_writer.set_cipher(new_sealing_cipher(*keys(*suite)), False)
    received.reader.set_cipher(new_opening_cipher(*keys(*suite)), False)

    assert (packet_writer.sequence, packet_writer.packets, packet_writer.bytes) == (1, 0, 0)
    assert (received.reader.sequence, received.reader.packets, received.reader.bytes) == (1, 0, 0)

    packet_writer.send_packet(b'2x')
    received.reader.feed(stream(packet_writer))
    assert received.packets[-1] == (1, b'2x')
    assert received.reader.total_packets == packet_writer.total_packets == 2
    assert received.reader.bytes == packet_writer.bytes > 0


def test_a_held_reader_hands_nothing_on_until_released() -> None:
    packet_writer, received = writer(), receiver()
    received.on_packet = lambda payload: received.reader.hold() if payload == b'\x02hold' else None

    for payload in (b'\x02one', b'\x02hold', b'\x02two', b'\x02hold', b'\x02three'):
        packet_writer.send_packet(payload)

    received.reader.feed(stream(packet_writer))
    assert received.payloads == [b'\x02one', b'\x02hold']
    received.reader.release()
    assert received.payloads == [b'\x02one', b'\x02hold', b'\x02two', b'\x02hold']
    received.reader.release()
    assert received.payloads[-1] == b'\x02three'


def test_a_held_reader_takes_a_bounded_amount() -> None:
    received = receiver()
    received.reader.hold()

    with pytest.raises(ProtocolError, match='too much data'):
        for _ in range(100):
            received.reader.feed(bytes(100_000))


def test_the_receive_buffer_grows_under_load_and_is_released_when_idle() -> None:
    packet_writer, received = writer(), receiver()
    assert len(received.reader.get_buffer(-1)) == 16 * 1024

    for _ in range(300):
        packet_writer.send_packet(b'\x02' + bytes(32000))

    data = stream(packet_writer)
    sizes = []

    while data:
        buffer = received.reader.get_buffer(-1)
        sizes.append(len(buffer))
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        received.reader.buffer_updated(size)
        data = data[size:]

    assert 512 * 1024 < max(sizes) <= 1024 * 1024

    received.reader.release_idle()
    assert len(received.reader.get_buffer(-1)) >= max(sizes)
    received.reader.release_idle()
    assert len(received.reader.get_buffer(-1)) == 16 * 1024


def test_a_received_part_survives_an_idle_time() -> None:
    packet_writer, received = writer(), receiver()
    packet_writer.send_packet(b'\x02' + bytes(50_000))
    data = stream(packet_writer)
    received.reader.feed(data[:30_000])

    for _ in range(3):
        received.reader.release_idle()

    received.reader.feed(data[30_000:])
    assert received.payloads == [b'\x02' + bytes(50_000)]


def test_buffer_updated_refuses_more_than_was_lent() -> None:
    received = receiver()
    size = len(received.reader.get_buffer(-1))

    with pytest.raises(ValueError, match='size'):
        received.reader.buffer_updated(size + 1)

    with pytest.raises(ValueError, match='size'):
        received.reader.buffer_updated(-1)


def test_a_chunk_that_was_given_away_never_changes() -> None:
    packet_writer = writer()
    kept = []

    for index in range(50):
        packet_writer.send_packet(bytes([2, index]) * 500)
        chunk = packet_writer.take_chunk()
        assert chunk is not None
        kept.append((chunk, bytes(chunk)))

    assert all(bytes(chunk) == copy for chunk, copy in kept)


def test_the_writer_wakes_its_owner_once_until_everything_is_taken() -> None:
    wakes: list[int] = []
    packet_writer = PacketWriter(lambda: wakes.append(1))
    packet_writer.send_packet(b'\x02')
    packet_writer.send_packet(b'\x02')
    assert len(wakes) == 1
    assert packet_writer.take_chunk() is not None
    packet_writer.send_packet(b'\x02')
    assert len(wakes) == 1
    assert packet_writer.take_chunk() is not None
    assert packet_writer.take_chunk() is None
    packet_writer.send_packet(b'\x02')
    assert len(wakes) == 2


def test_a_paused_writer_gives_no_chunk_but_keeps_what_it_is_told() -> None:
    packet_writer, received = writer(), receiver()
    packet_writer.paused = True
    packet_writer.send_packet(b'\x02x')
    assert packet_writer.take_chunk() is None
    assert packet_writer.backlog > 0
    packet_writer.paused = False
    received.reader.feed(stream(packet_writer))
    assert received.payloads == [b'\x02x']


def test_a_message_that_fits_no_packet_is_refused() -> None:
    with pytest.raises(ProtocolError, match='less than'):
        writer().send_packet(bytes(MAX_LENGTH))


def test_payloads_pass_through_compression() -> None:
    packet_writer, received = writer(MODES[1]), receiver(MODES[1])
    compressor, decompressor = zlib.compressobj(), zlib.decompressobj()
    packet_writer.set_compressor(lambda data: compressor.compress(data) + compressor.flush(zlib.Z_PARTIAL_FLUSH))
    received.reader.set_decompressor(decompressor.decompress)
    payloads = [bytes([2]) * size for size in (1, 10, 1000, 30000)]

    for payload in payloads:
        packet_writer.send_packet(payload)

    data = stream(packet_writer)
    assert len(data) < 1000
    received.reader.feed(data)
    assert received.payloads == payloads


def test_padding_is_random_and_at_least_four_bytes() -> None:
    packet_writer = writer()
    paddings = set()

    for _ in range(400):
        packet_writer.send_packet(b'\x02abc')
        data = stream(packet_writer)
        assert len(data) % 8 == 0
        assert data[4] >= 4
        paddings.add(data[5 + 4 :])

    assert len(paddings) == 400


# --- misuse


def test_a_buffer_that_was_just_filled_can_be_released_and_lent_again() -> None:
    packet_writer, received = writer(), receiver()

    # Every read fills the whole buffer, the last one too.
    for _ in range(3):
        buffer = received.reader.get_buffer(-1)
        packet_writer.send_packet(b'\x02' + bytes(len(buffer) - 1 - 4 - 1 - 6))
        data = stream(packet_writer)
        assert len(data) == len(buffer)
        buffer[:] = data
        received.reader.buffer_updated(len(data))

    assert len(buffer) > 16 * 1024
    received.reader.release_idle()
    received.reader.release_idle()
    assert len(received.reader.get_buffer(-1)) == 16 * 1024


@pytest.mark.parametrize('call', ['feed', 'get_buffer', 'buffer_updated', 'release_idle'])
def test_a_handler_cannot_move_the_buffer_under_its_own_packet(call: str) -> None:
    packet_writer, received = writer(), receiver()
    arguments = {'feed': (bytes(1 << 20),), 'buffer_updated': (0,)}.get(call, ())
    received.on_packet = lambda payload: getattr(received.reader, call)(*arguments)
    packet_writer.send_packet(b'\x02one')

    with pytest.raises(RuntimeError, match='its own reader'):
        received.reader.feed(stream(packet_writer))

    received.on_packet = lambda payload: None
    packet_writer.send_packet(b'\x02two')
    received.reader.feed(stream(packet_writer))
    assert received.payloads == [b'\x02one', b'\x02two']


def test_a_held_reader_bounds_what_was_lent_too() -> None:
    received = receiver()
    received.reader.hold()

    with pytest.raises(ProtocolError, match='too much'):
        for _ in range(1000):
            size = len(received.reader.get_buffer(-1))
            received.reader.buffer_updated(size)


def test_bytes_that_are_not_in_one_piece_are_refused() -> None:
    received = receiver()

    with pytest.raises((ValueError, BufferError)):
        received.reader.feed(memoryview(bytes(100))[::-2])


def test_keys_cannot_change_inside_a_packet() -> None:
    packet_writer, received = writer(), receiver()
    packet_writer.send_packet(b'\x02' + bytes(100))
    data = stream(packet_writer)
    received.reader.feed(data[:50])

    with pytest.raises(RuntimeError, match='inside a packet'):
        received.reader.set_cipher(new_opening_cipher(*keys(*SUITES[0])), True)

    received.reader.feed(data[50:])
    assert received.payloads == [b'\x02' + bytes(100)]


@pytest.mark.parametrize('result', [None, bytearray(b'\x02'), 'text', 7])
def test_a_decompressor_that_gives_no_bytes_is_refused(result: object) -> None:
    packet_writer, received = writer(), receiver()
    received.reader.set_decompressor(lambda data: result)
    packet_writer.send_packet(b'\x02abc')

    with pytest.raises((TypeError, ProtocolError)):
        received.reader.feed(stream(packet_writer))

    assert received.payloads == []


def test_a_chunk_is_used_again_once_nobody_looks_at_it() -> None:
    packet_writer = writer()
    packet_writer.send_packet(b'\x02' + bytes(100_000))
    chunk = packet_writer.take_chunk()
    assert chunk is not None
    kept = bytes(chunk)
    first = chunk.obj
    part = chunk[10:]
    del chunk

    packet_writer.send_packet(b'\x02' + b'x' * 100_000)
    second = packet_writer.take_chunk()
    assert second is not None
    assert second.obj is not first
    assert bytes(part) == kept[10:]

    address = id(second.obj)
    del second
    packet_writer.send_packet(b'\x02' + bytes(100_000))
    third = packet_writer.take_chunk()
    assert third is not None
    assert id(third.obj) == address
