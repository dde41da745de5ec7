"""Pattern lists: wildcards, networks, negation, and the spellings of one address."""

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssh_fast.keys.patterns import HostPatternList, matches_wildcard


@given(st.text('ab*?', max_size=8), st.text('ab', max_size=8))
def test_wildcards_match_as_fnmatch_does(pattern, text):
    assert matches_wildcard(pattern, text) == fnmatch.fnmatchcase(text, pattern)


def test_brackets_are_not_special():
    assert matches_wildcard('[a]', '[a]')
    assert not matches_wildcard('[a]', 'a')


def test_no_pattern_takes_for_ever():
    start = time.monotonic()
    assert not matches_wildcard('a*' * 2000 + 'b', 'a' * 4000)
    assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    ('patterns', 'host', 'addr', 'matches'),
    [
        ('*.example.com', 'a.example.com', '', True),
        ('*.example.com', 'example.com', '', False),
        ('*.EXAMPLE.com', 'A.example.COM', '', True),
        ('*,!evil', 'evil', '1.2.3.4', False),
        ('*,!evil', 'good', '1.2.3.4', True),
        ('!evil', 'good', '', False),
        ('!1.2.3.4,*', 'evil', '::ffff:1.2.3.4', False),
        ('!1.2.3.4,*', '::ffff:1.2.3.4', '', False),
        ('1.2.3.0/24', 'host', '1.2.3.255', True),
        ('1.2.3.0/24', 'host', '1.2.4.0', False),
        ('1.2.3.0/24', 'host', '::ffff:1.2.3.4', True),
        ('1.2.3.0/24,!1.2.3.4', 'host', '1.2.3.4', False),
        ('1.2.3.0/24', 'host', '', False),
        ('2001:db8::/32', 'host', '2001:db8::1', True),
        ('2001:db8::/32', 'host', '1.2.3.4', False),
        ('fe80::/10', 'host', 'fe80::1%eth0', True),
        ('2001:DB8:0::1', 'host', '2001:db8::1', True),
        ('1.2.3.?', '', '1.2.3.4', True),
    ],
)
def test_lists(patterns, host, addr, matches):
    assert HostPatternList(patterns).matches(host, addr) is matches


@pytest.mark.parametrize('bad', ['', 'a,', ',a', '!', '1.2.3.4/24', '1.2.3.0/33', 'host/24', 'a,,b'])
def test_malformed_lists(bad):
    with pytest.raises(ValueError, match='Expected'):
        HostPatternList(bad)
