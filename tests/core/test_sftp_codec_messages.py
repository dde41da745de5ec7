"""SFTP messages to and from bytes, against the reference."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssh_fast import _sftp_codec as codec
from ssh_fast.errors import PacketDecodeError
from tests.reference import sftp_codec as reference

UINT32 = st.integers(0, 0xFFFFFFFF)
UINT64 = st.integers(0, 0xFFFFFFFFFFFFFFFF)
TEXT = st.binary(max_size=40)


@st.composite
def attributes(draw: st.DrawFn) -> codec.Attrs:
    flags = 0
    fields: list[int | None] = [None] * 6
    for flag, places in ((1, (0,)), (2, (1, 2)), (4, (3,)), (8, (4, 5))):
        if draw(st.booleans()):
            flags |= flag
            for place in places:
                fields[place] = draw(UINT64 if place == 0 else UINT32)
    extended: tuple[tuple[bytes, bytes], ...] = ()
    if draw(st.booleans()):
        flags |= 0x80000000
        extended = tuple(draw(st.lists(st.tuples(TEXT, TEXT), max_size=3)))
    size, uid, gid, permissions, atime, mtime = fields
    return flags, size, uid, gid, permissions, atime, mtime, extended


NAMES = st.lists(st.tuples(TEXT, TEXT, attributes()), max_size=5)


def body_of(message: bytes) -> bytes:
    assert int.from_bytes(message[:4], 'big') == len(message) - 4
    return message[9:]


@given(UINT32, st.binary(max_size=300), UINT64, UINT32)
def test_read_and_heads(request_id: int, handle: bytes, offset: int, size: int) -> None:
    assert codec.encode_read(request_id, handle, offset, size) == reference.read(request_id, handle, offset, size)
    block = bytes(size % 5000)
    head = codec.encode_write_head(request_id, handle, offset, len(block))
    assert head + block == reference.write(request_id, handle, offset, block)
    assert codec.encode_data_head(request_id, len(block)) + block == reference.data(request_id, block)


@given(st.integers(0, 255), UINT32, st.binary(max_size=300))
def test_any_message(message_type: int, request_id: int, body: bytes) -> None:
    assert codec.encode_message(message_type, request_id, body) == reference.message(message_type, request_id, body)
    assert codec.encode_string_message(message_type, request_id, body) == reference.message(
        message_type, request_id, reference.string(body)
    )


def test_heads_refuse_sizes_that_no_message_holds() -> None:
    with pytest.raises(OverflowError):
        codec.encode_write_head(1, b'h', 0, 0xFFFFFFFF)
    with pytest.raises(OverflowError):
        codec.encode_data_head(1, 0xFFFFFFFF)
    with pytest.raises(OverflowError):
        codec.encode_read(1, b'h', 1 << 64, 1)


@given(UINT32, UINT32, st.text(st.characters(exclude_categories=['Cs'])), st.text('abc-', max_size=5))
def test_status(request_id: int, code: int, text: str, lang: str) -> None:
    message = codec.encode_status(request_id, code, text, lang)
    assert message == reference.status(request_id, code, text, lang)
    assert codec.decode_status(body_of(message)) == (code, text, lang)


def test_status_takes_names_that_are_not_utf8() -> None:
    body = body_of(codec.encode_status(1, 2, 'no file a\udcffb'))
    assert codec.decode_status(body) == (2, 'no file a\\udcffb', '')


def test_status_without_texts_is_tolerated() -> None:
    assert codec.decode_status(struct.pack('>I', 4)) == (4, '', '')
    assert codec.decode_status(struct.pack('>II', 4, 2) + b'ab') == (4, 'ab', '')


@pytest.mark.parametrize(
    'body', [b'', b'\0\0\0', b'\0\0\0\4\0\0\0\5abcd', b'\0\0\0\4\0\0', b'\0\0\0\4\xff\xff\xff\xff']
)
def test_status_that_ends_before_its_fields(body: bytes) -> None:
    with pytest.raises(PacketDecodeError):
        codec.decode_status(body)


@given(attributes(), st.binary(max_size=10))
def test_attrs(attrs: codec.Attrs, before: bytes) -> None:
    encoded = codec.encode_attrs(attrs)
    assert encoded == reference.encode_attrs(attrs)
    assert codec.decode_attrs(before + encoded + b'x', len(before)) == (attrs, len(before + encoded))


@given(UINT32, NAMES)
def test_names(request_id: int, names: list[tuple[bytes, bytes, codec.Attrs]]) -> None:
    message = codec.encode_names(request_id, names)
    assert message == reference.encode_names(request_id, names)
    assert codec.decode_names(body_of(message)) == names


@given(NAMES)
def test_names_truncated_anywhere(names: list[tuple[bytes, bytes, codec.Attrs]]) -> None:
    body = body_of(codec.encode_names(1, names))
    for size in range(len(body)):
        with pytest.raises(PacketDecodeError):
            codec.decode_names(body[:size])


@given(st.binary(max_size=200))
def test_any_bytes_as_names_and_attrs(body: bytes) -> None:
    """Compiled and reference agree on every input: the same value, or both refuse."""
    for name in ('decode_names', 'decode_attrs', 'decode_status'):
        try:
            wanted = getattr(reference, name)(body)
        except reference.BadMessageError:
            with pytest.raises(PacketDecodeError):
                getattr(codec, name)(body)
        else:
            assert getattr(codec, name)(body) == wanted


def test_counts_beyond_the_message_are_refused_at_once() -> None:
    with pytest.raises(PacketDecodeError, match='4294967295 names, got 0 bytes'):
        codec.decode_names(b'\xff\xff\xff\xff')
    with pytest.raises(PacketDecodeError, match='4294967295 extended attributes'):
        codec.decode_attrs(b'\x80\0\0\0\xff\xff\xff\xff' + bytes(100))
    with pytest.raises(PacketDecodeError):
        codec.decode_attrs(b'abcd', 5)


def test_attrs_that_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match='flags of version 3, got 0x10'):
        codec.encode_attrs((16, None, None, None, None, None, None, ()))
    with pytest.raises(OverflowError):
        codec.encode_attrs((4, None, None, None, 1 << 32, None, None, ()))
    with pytest.raises((TypeError, ValueError)):
        codec.encode_attrs((8, None, None, None, None, 1, None, ()))
