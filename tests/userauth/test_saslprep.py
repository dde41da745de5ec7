"""The examples of RFC 4013 section 3, and what the tables do beyond them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssh_fast.userauth.saslprep import saslprep


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('I\u00adX', 'IX'),
        ('user', 'user'),
        ('USER', 'USER'),
        ('\u00aa', 'a'),
        ('\u2168', 'IX'),
        ('', ''),
        ('\u00ad', ''),
        ('a\u00a0b\u3000c', 'a b c'),
        ('e\u0301', '\u00e9'),
        ('\u05d0\u05d1', '\u05d0\u05d1'),
        ('\U0001f600', '\U0001f600'),
    ],
)
def test_prepared(text, expected):
    assert saslprep(text) == expected


@pytest.mark.parametrize(
    'text',
    ['\u0007', '\u06271', 'a\u05d0', '\x7f', '\x85', '\ue000', '\ufffe', '\u2028', '\u200e', '\u2ff0', '\U000e0001'],
)
def test_prohibited(text):
    with pytest.raises(ValueError, match='Expected'):
        saslprep(text)


@given(st.text())
def test_prepared_text_stays_as_it_is(text):
    try:
        prepared = saslprep(text)
    except ValueError:
        return

    assert saslprep(prepared) == prepared
