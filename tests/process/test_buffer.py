"""The buffer under the streams, against a model."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssh_fast.errors import SignalReceived, TerminalSizeChanged
from ssh_fast.process.buffer import MAX_EXCEPTIONS, ReceiveBuffer

STEP = st.one_of(
    st.tuples(st.just('feed'), st.binary(min_size=1, max_size=12).map(lambda data: data.replace(b'\xff', b'\n'))),
    st.tuples(st.just('feed'), st.integers(4000, 6000).map(lambda size: b'ab;' * (size // 3))),
    st.tuples(st.just('take'), st.integers(0, 6000)),
    st.tuples(st.just('all'), st.none()),
    st.tuples(st.just('line'), st.none()),
    st.tuples(st.just('find'), st.sampled_from([b'\n', b';a', b'b;ab', b'\0'])),
)


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(STEP, max_size=40))
def test_the_buffer_holds_what_a_model_says(steps):
    buffer = ReceiveBuffer()
    model = b''
    # The end of a search is remembered for one separator only: a reader that waits has one.
    waiting = None

    for step, value in steps:
        if step == 'feed':
            buffer.feed(value)
            model += value
        elif step == 'take' or step == 'all':
            limit = -1 if step == 'all' else value
            data = buffer.take(limit, b'')
            expected = model if limit < 0 else model[:limit]
            assert data == expected
            model = model[len(data):]
            waiting = None
        elif step == 'line':
            line = buffer.take_line(b'\n')

            if line is not None:
                assert line == model[:model.index(b'\n') + 1]
                model = model[len(line):]
                waiting = None
        elif waiting in (None, value):
            waiting = value
            end = buffer.find(re.compile(re.escape(value)), len(value))
            position = model.find(value)
            assert end == (None if position < 0 else position + len(value))

            if end is not None:
                assert buffer.take(end, b'') == model[:end]
                model = model[end:]
                waiting = None

        assert buffer.size == buffer.readable == len(model)


def test_exceptions_stand_between_data():
    buffer = ReceiveBuffer()
    buffer.feed('one\ntwo')
    buffer.feed_exception(SignalReceived('INT'))
    buffer.feed('three\n')

    assert buffer.take_line('\n') == 'one\n'
    assert buffer.readable == 3 and buffer.size == 9
    assert buffer.find(re.compile('\n'), 1) is None
    assert buffer.take(-1, '') == 'two' and buffer.take(-1, '') == '' and buffer.take_line('\n') is None

    with pytest.raises(SignalReceived):
        buffer.raise_next()

    buffer.raise_next()
    assert not buffer.has_exception and buffer.take_line('\n') == 'three\n'


def test_a_flood_of_exceptions_is_bounded():
    buffer = ReceiveBuffer()

    for width in range(100_000):
        buffer.feed_exception(TerminalSizeChanged(width, 0, 0, 0))

    assert len(buffer._pieces) == 1

    with pytest.raises(TerminalSizeChanged) as excinfo:
        buffer.raise_next()

    assert excinfo.value.width == 99_999

    for _ in range(MAX_EXCEPTIONS * 2):
        buffer.feed_exception(SignalReceived('INT'))

    assert len(buffer._pieces) == MAX_EXCEPTIONS


def test_a_separator_is_found_in_linear_time():
    buffer = ReceiveBuffer()
    pattern = re.compile(b'\r\n')

    # With a search from the start each time this would look at 100 GB.
    for _ in range(100_000):
        buffer.feed(b'x' * 20)
        assert buffer.find(pattern, 2) is None

    buffer.feed(b'\r')
    assert buffer.find(pattern, 2) is None
    buffer.feed(b'\n')
    assert buffer.find(pattern, 2) == 2_000_002


def test_tiny_pieces_are_joined():
    buffer = ReceiveBuffer()

    for _ in range(50_000):
        buffer.feed(b'x')

    assert len(buffer._pieces) < 30 and buffer.take(-1, b'') == b'x' * 50_000
