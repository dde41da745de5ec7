"""authorized_keys: options, refusals, from, expiry, principals."""

import calendar
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssh_fast.keys.authorized_keys import import_authorized_keys, parse_options, read_authorized_keys
from ssh_fast.keys.key import generate_private_key

KEYS = [generate_private_key('ssh-ed25519').convert_to_public() for _ in range(2)]
LINES = [key.export_public_key().decode().strip() for key in KEYS]
RESTRICTED = {
    'restrict': True,
    'no-pty': True,
    'no-X11-forwarding': True,
    'no-agent-forwarding': True,
    'no-port-forwarding': True,
    'no-user-rc': True,
}


def validate(text, key=KEYS[0], host='host', addr='1.2.3.4', **kwargs):
    return import_authorized_keys(text).validate(key, host, addr, **kwargs)


def test_keys_without_options():
    text = f'# comment\n\n{LINES[0]} a comment\n'
    assert validate(text) == {}
    assert validate(text, KEYS[1]) is None
    assert validate(text, ca=True) is None
    assert validate('') is None


@pytest.mark.parametrize(
    ('text', 'options'),
    [
        ('no-pty', {'no-pty': True}),
        ('NO-PTY,No-X11-Forwarding', {'no-pty': True, 'no-X11-forwarding': True}),
        ('restrict', RESTRICTED),
        ('restrict,pty', {name: True for name in RESTRICTED if name != 'no-pty'}),
        ('pty,restrict', RESTRICTED),
        (
            'restrict,pty,x11-forwarding,agent-forwarding,port-forwarding,user-rc',
            {'restrict': True},
        ),
        ('command="echo \\"a, b\\" \\n"', {'command': 'echo "a, b" \\n'}),
        ('command=""', {'command': ''}),
        ('command="a\\b\\\\c"', {'command': 'a\\b\\\\c'}),
        ('environment="A=b c",environment="D_1=",environment="A=late"', {'environment': {'A': 'b c', 'D_1': ''}}),
        ('permitopen="host:22",permitopen="[::1]:*"', {'permitopen': {('host', 22), ('::1', None)}}),
        ('permitlisten="8080",permitlisten="localhost:80"', {'permitlisten': {('*', 8080), ('localhost', 80)}}),
        ('principals="a,b c"', {'principals': ['a', 'b c']}),
        ('tunnel="3"', {'tunnel': 3}),
        ('tunnel="any"', {'tunnel': 'any'}),
        ('no-touch-required,verify-required', {'no-touch-required': True, 'verify-required': True}),
    ],
)
def test_options(text, options):
    assert parse_options(text) == options
    assert validate(f'{text} {LINES[0]}') == options


MALFORMED = [
    'unknown',
    'no-unknown',
    'unknown="x"',
    'no-pty="yes"',
    'command',
    'command=ls',
    'command="a',
    'command="a" x',
    'command="a\\\\"',
    'command="a""b"',
    'command="a",command="b"',
    'no-pty,',
    ',no-pty',
    'no-pty,,restrict',
    'no pty',
    'environment="A"',
    'environment="A B=c"',
    'environment="=c"',
    'permitopen="host"',
    'permitopen="host:0"',
    'permitopen="host:65536"',
    'permitopen="host:22:23"',
    'permitopen="8080"',
    'permitlisten="x"',
    'from="1.2.3.4/8"',
    'from=""',
    'from="a,,b"',
    'principals=""',
    'principals="a,,b"',
    'expiry-time="2020"',
    'expiry-time="20201301"',
    'expiry-time="20200101Z2"',
    'expiry-time="202001010"',
    'tunnel="x"',
    'tunnel="1",tunnel="2"',
    'subject="CN=x"',
    'restrict\0',
]


@pytest.mark.parametrize('options', MALFORMED)
def test_a_line_with_an_option_that_is_not_valid_is_refused(options, caplog, tmp_path):
    path = tmp_path / 'keys'
    path.write_text(f'{options} {LINES[0]}\n{LINES[1]}\n')
    keys = read_authorized_keys(path)

    assert keys.validate(KEYS[0], 'host', '1.2.3.4') is None
    assert keys.validate(KEYS[1], 'host', '1.2.3.4') == {}
    assert f'{path}:1: the line is refused' in caplog.text


def test_a_long_line_is_refused_whole(caplog):
    # What follows the limit looks like a line of its own without the restriction.
    filler = 'x' * (16384 - len('restrict,environment="A="'))
    text = f'restrict,environment="A={filler}" {LINES[0]}\n{LINES[1]}'

    assert validate(text) is None
    assert validate(text, KEYS[1]) == {}
    assert '16384' in caplog.text
    assert validate(f'environment="A={filler[:16000]}" {LINES[0]}') is not None


@pytest.mark.parametrize('separator', ['\x0b', '\x0c', '\x1c', '\x1d', '\x85', '\u2028', '\r'])
def test_only_a_newline_ends_a_line(separator):
    text = f'command="false" {LINES[0]} comment{separator}{LINES[0]}\n'
    assert validate(text) == {'command': 'false'}
    assert len(import_authorized_keys(text)._entries) == 1


def test_a_malformed_key_refuses_its_line_only(caplog):
    text = f'ssh-ed25519 AAAA\nssh-rsa {LINES[0].split()[1]}\nssh-foo AAAAB3NzaC1mb28=\n{LINES[0]}\n'
    assert validate(text) == {}
    assert len(caplog.records) == 3


@pytest.mark.parametrize(
    ('patterns', 'host', 'addr', 'admitted'),
    [
        ('1.2.3.0/24', 'x', '1.2.3.4', True),
        ('1.2.3.0/24,!1.2.3.4', 'x', '1.2.3.4', False),
        ('*.com,!bad.com', 'good.com', '1.1.1.1', True),
        ('*.com,!bad.com', 'BAD.com', '1.1.1.1', False),
        ('!1.2.3.4,*', 'x', '::ffff:1.2.3.4', False),
        ('::1', 'localhost', '::1', True),
        ('1.2.3.4', 'x', '1.2.3.40', False),
    ],
)
def test_from(patterns, host, addr, admitted):
    options = validate(f'from="{patterns}",no-pty {LINES[0]}', host=host, addr=addr)
    assert (options is not None) is admitted


def test_the_first_line_that_admits_the_key_counts():
    text = f'from="10.0.0.0/8" {LINES[0]}\nno-pty {LINES[0]}\n{LINES[0]}\n'
    assert 'from' in validate(text, addr='10.1.1.1')
    assert validate(text, addr='11.1.1.1') == {'no-pty': True}


def test_two_from_options_must_both_match():
    text = f'from="10.0.0.0/8",from="*.com" {LINES[0]}'
    assert validate(text, host='a.com', addr='10.1.1.1') is not None
    assert validate(text, host='a.org', addr='10.1.1.1') is None
    assert validate(text, host='a.com', addr='11.1.1.1') is None


def test_expiry_time():
    utc = float(calendar.timegm((2030, 1, 2, 3, 4, 5)))
    text = f'expiry-time="20300102030405Z" {LINES[0]}'
    assert validate(text, now=utc - 1) is not None
    assert validate(text, now=utc) is None

    local = time.mktime((2030, 1, 2, 3, 4, 0, 0, 0, -1))
    text = f'expiry-time="203001020304",expiry-time="20310101" {LINES[0]}'
    assert validate(text, now=local - 1) is not None
    assert validate(text, now=local) is None

    assert validate(f'expiry-time="20010101" {LINES[0]}') is None
    assert validate(f'expiry-time="99990101" {LINES[0]}') is not None


def test_certificate_authorities_and_principals():
    text = f'cert-authority,principals="alice,bob" {LINES[0]}\ncert-authority {LINES[1]}\n'

    assert validate(text) is None
    assert validate(text, ca=True, cert_principals=['bob']) is not None
    assert validate(text, ca=True, cert_principals=['carol', 'alice']) is not None
    assert validate(text, ca=True, cert_principals=['alice,bob']) is None
    assert validate(text, ca=True, cert_principals=['ali']) is None
    assert validate(text, ca=True, cert_principals=[]) is None
    assert validate(text, KEYS[1], ca=True, cert_principals=[]) == {'cert-authority': True}


def test_several_files(tmp_path):
    for number in range(2):
        (tmp_path / str(number)).write_text(LINES[number] + '\n')

    keys = read_authorized_keys([tmp_path / '0', str(tmp_path / '1')])
    assert all(keys.validate(key, '', '') == {} for key in KEYS)

    with pytest.raises(FileNotFoundError):
        read_authorized_keys(tmp_path / 'missing')


def test_options_cannot_be_changed_by_who_got_them():
    keys = import_authorized_keys(f'no-pty {LINES[0]}')
    keys.validate(KEYS[0], '', '')['no-pty'] = False
    assert keys.validate(KEYS[0], '', '') == {'no-pty': True}


SAMPLE = f'command="a b",from="10.0.0.0/8,!x",no-pty,expiry-time="20300101" {LINES[0]} comment\nrestrict {LINES[1]}\n'


@settings(max_examples=400, deadline=1000)
@given(st.data())
def test_mutated_files_admit_only_restricted_keys(data):
    """No change inside of the options makes a line with restrictions one without."""

    end = SAMPLE.index(' ssh-')
    text = list(SAMPLE[:end])

    for _ in range(data.draw(st.integers(1, 5))):
        pos = data.draw(st.integers(0, max(0, len(text) - 1)))
        text[pos : pos + data.draw(st.integers(0, 2))] = data.draw(st.text('aA"\\,=!*-/ \t\r\0\xe9', max_size=2))

    options = validate(''.join(text) + SAMPLE[end:], addr='10.1.1.1')
    assert options is None or options or ''.join(text).strip() in ('', '"')


@settings(max_examples=200, deadline=1000)
@given(st.text(max_size=200))
def test_any_text(text):
    keys = import_authorized_keys(text)
    assert keys.validate(KEYS[0], 'host', '1.2.3.4') is None
