"""What a login may do: each option of keys and certificates, alone and together, at the one place that judges."""

import itertools
from typing import Any

import pytest

from ssh_fast.keys.authorized_keys import parse_options
from ssh_fast.keys.permissions import PERMISSIONS, Grant, Permissions

ALL = {f'permit-{name}': True for name in PERMISSIONS}


def judged(options: str = '', cert: dict[str, Any] | None = None, *more: str) -> Permissions:
    return Permissions([Grant(parse_options(options), cert), *(Grant(parse_options(text)) for text in more)])


def forwardings(permissions: Permissions) -> list[bool]:
    """Every kind of forwarding there is."""
    return [
        permissions.may_connect('example.com', 80), permissions.may_connect_path('/run/x'),
        permissions.may_listen('', 0), permissions.may_listen('localhost', 8080), permissions.may_listen_path('/run/x'),
        permissions.may_tunnel(None), permissions.may_tunnel(3),
        permissions.agent_forwarding, permissions.x11_forwarding,
    ]


def test_without_keys_there_are_no_restrictions() -> None:
    permissions = Permissions()
    assert all(forwardings(permissions)) and permissions.pty and permissions.user_rc
    assert permissions.command is None and permissions.environment == {} and permissions.tunnel is None
    assert permissions.key_option('x', 5) == permissions.certificate_option('x', 5) == 5
    with pytest.raises(ValueError, match='Unknown permission'):
        permissions.allows('everything')


@pytest.mark.parametrize('name', PERMISSIONS)
def test_each_permission(name: str) -> None:
    """Taken by the line, missing in the certificate, or both: gone, and no other."""
    without = {other: True for other in ALL if other != f'permit-{name}'}
    for options, cert in ((f'no-{name}', None), ('', without), (f'no-{name}', ALL), (f'no-{name}', without)):
        permissions = judged(options, cert)
        assert [permissions.allows(other) for other in PERMISSIONS] == [other != name for other in PERMISSIONS]
        assert permissions.key_allows(name) is (options == '')
        assert permissions.certificate_allows(name) is (cert is not without)


@pytest.mark.parametrize('options, cert', [('restrict', None), ('', {}), ('restrict', ALL), ('RESTRICT', ALL)])
def test_restrict_covers_every_kind(options: str, cert: dict[str, Any] | None) -> None:
    """CVE-2026-73283, -59999, CVE-2025-32728."""
    permissions = judged(options, cert)
    assert not any(forwardings(permissions)) and not permissions.pty and not permissions.user_rc
    again = judged(f'{options},pty'.lstrip(','), cert)
    assert not any(forwardings(again)) and again.pty is (cert is None or cert is ALL)


def test_no_port_forwarding_covers_sockets_and_tunnels() -> None:
    permissions = judged('no-port-forwarding,permitopen="*:*",permitlisten="*:*",tunnel="any"')
    assert forwardings(permissions) == [False] * 7 + [True] * 2


def test_permitopen_and_permitlisten() -> None:
    permissions = judged('permitopen="db.Example.com:5432",permitopen="[::1]:*",permitopen="*:443",permitlisten="8080"')
    for host, port, permitted in (
        ('db.example.com', 5432, True), ('DB.example.com', 5432, True), ('db.example.com', 5433, False),
        ('0:0:0:0:0:0:0:1', 1, True), ('::2', 1, False), ('anything', 443, True), ('anything', 444, False),
        ('xdb.example.com', 5432, False), ('db.example.com.', 5432, False),
    ):
        assert permissions.may_connect(host, port) is permitted, (host, port)
    assert permissions.may_listen('localhost', 8080) and not permissions.may_listen('localhost', 0)
    assert not permissions.may_connect_path('/run/x') and not permissions.may_listen_path('/run/x')
    permissions = judged('permitlisten="localhost:8080"')
    assert permissions.may_listen('localhost', 8080) and not permissions.may_listen('', 8080)
    assert permissions.may_connect('any', 1) and permissions.may_connect_path('/run/x')


def test_tunnels() -> None:
    permissions = judged('tunnel="3"')
    assert permissions.tunnel == 3 and permissions.may_tunnel(3) and permissions.may_tunnel(None)
    assert not permissions.may_tunnel(4) and judged('tunnel="any"').may_tunnel(4)


def test_several_keys_allow_what_all_allow() -> None:
    permissions = judged('no-pty,permitopen="a:1",permitopen="b:1"', None, 'no-X11-forwarding,permitopen="b:1"')
    assert not permissions.pty and not permissions.x11_forwarding and permissions.agent_forwarding
    assert permissions.may_connect('b', 1) and not permissions.may_connect('a', 1)
    permissions = judged('environment="A=1",command="x"', None, 'environment="B=2",environment="A=1"', 'command="x"')
    assert permissions.environment == {'A': '1', 'B': '2'} and permissions.command == 'x'
    assert judged('from="10.0.0.0/8"', None, 'from="10.0.0.0/8"').pty, 'what admitted a key restricts nothing more'


@pytest.mark.parametrize('first, second', [
    ('command="a"', 'command="b"'), ('environment="A=1"', 'environment="A=2"'), ('tunnel="1"', 'tunnel="2"'),
    ('tunnel="1"', 'tunnel="any"'),
])
def test_contradictions_are_refused(first: str, second: str) -> None:
    for one, two in itertools.permutations((first, second)):
        with pytest.raises(ValueError, match='different values'):
            judged(one, None, two)


def test_commands_of_certificates() -> None:
    assert judged('', {'force-command': 'x'}).command == 'x' and judged('command="x"', {}).command == 'x'
    assert judged('command="x"', {'force-command': 'x'}).command == 'x'
    with pytest.raises(ValueError, match='forced command'):
        judged('command="x"', {'force-command': 'y'})
    permissions = judged('command="x"', {'force-command': 'x', 'other@example.com': 'z'})
    assert permissions.certificate_option('other@example.com') == 'z' and permissions.key_option('command') == 'x'


def test_security_keys() -> None:
    """CVE-2026-39831: a touch is wanted unless both the line and the certificate say otherwise."""
    off = {'no-touch-required': True}
    for options, cert, touch in (
        ('', None, True), ('no-touch-required', None, False), ('', off, True), ('no-touch-required', {}, True),
        ('no-touch-required', off, False),
    ):
        assert Grant(parse_options(options), cert).touch_required is touch, (options, cert)
    for options, cert, verify in (
        ('', None, False), ('verify-required', None, True), ('', {'verify-required': True}, True), ('', {}, False),
    ):
        assert Grant(parse_options(options), cert).verify_required is verify
