"""Principals files: names compared whole, options as in authorized_keys, bad lines refused by number."""

import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssh_fast.keys.principals import SSHAuthorizedPrincipals, read_authorized_principals


def validate(text: str, *names: str, addr: str = '10.0.0.1', now: float = 0) -> Any:
    return SSHAuthorizedPrincipals(text).validate(names, 'client.example', addr, now=now)


def test_names() -> None:
    text = '# people\n\nalice\n  bob  \ncarol,dave\n'
    assert validate(text, 'alice') == {} and validate(text, 'x', 'bob') == {}
    for names in ((), ('',), ('ali',), ('Alice',), ('alice,bob',), ('carol',), ('people',), ('#',)):
        assert validate(text, *names) is None, names
    assert validate(text, 'carol,dave') == {}, 'a name that holds a comma is that name'


def test_options() -> None:
    text = 'from="192.168.0.0/16" alice\nrestrict,command="x y" alice\nexpiry-time="20200101Z" bob\n'
    assert validate(text, 'alice')['command'] == 'x y'
    assert 'command' not in validate(text, 'alice', addr='192.168.3.4')
    assert validate(text, 'bob', now=1577836799) is not None and validate(text, 'bob', now=1577836800) is None


@pytest.mark.parametrize('line', [
    'what alice', 'command="x alice', 'cert-authority alice', 'principals="x" alice', 'from="10.0.0.1/8" alice',
    'command="x", alice', 'a\0b', 'x' * 16385,
])
def test_bad_lines_admit_nobody(line: str, tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / 'principals'
    path.write_text(f'bob\n{line}\n')
    with caplog.at_level(logging.WARNING):
        principals = read_authorized_principals(path)
    assert f'{path}:2: the line is refused' in caplog.text
    assert principals.validate([line.split()[-1], line], '', '') is None
    assert principals.validate(['bob'], '', '') == {}


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    SSHAuthorizedPrincipals(text).validate(['a', text], 'h', '::1')
