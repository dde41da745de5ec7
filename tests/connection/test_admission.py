"""Who is admitted before anybody is logged in: early drop, penalties of sources, bounds, and live listeners."""

import asyncio
from typing import Any

import pytest

import ssh_fast
from ssh_fast.connection.admission import NOT_NOW, TOO_MANY, Admission, Startup
from ssh_fast.connection.options_limits import (
    Penalties,
    Startups,
    net_block_size,
    networks,
    optional_count,
    penalties,
    startups,
)
from ssh_fast.errors import ConnectionLost, IllegalUserName, PermissionDenied, ProtocolError
from tests.security.peer import HOST_KEY, LOOPBACK, Gone, Peer, client_options, logs_in, serving


class Limits:
    def __init__(self, **changes: Any) -> None:
        self.max_connections: int | None = None
        self.max_startups: Startups | None = None
        self.per_source_max_startups: int | None = None
        self.per_source_net_block_size = 32, 128
        self.per_source_penalties: Penalties | None = Penalties()
        self.per_source_penalty_exempt: Any = ()
        self.login_timeout = 120.0
        self.__dict__.update(changes)


class Door:
    """An admission with a clock and dice of the test's."""

    def __init__(self, **limits: Any) -> None:
        self.now, self.dice = 1000.0, 0.0
        self.admission = Admission(Limits(**limits), lambda: self.now, lambda: self.dice)

    def enter(self, address: str | None = '192.0.2.1') -> Startup | bytes:
        return self.admission.admit((address, 4321) if address else '')

    def enters(self, address: str | None = '192.0.2.1') -> Startup:
        startup = self.enter(address)
        assert isinstance(startup, Startup), startup
        return startup

    def fail(self, address: str = '192.0.2.1', exc: Exception | None = None, failures: int = 1) -> None:
        self.enters(address).ended(exc or ConnectionLost('gone'), failures)


# --- startups


def test_the_share_that_is_dropped() -> None:
    rule = Startups(10, 30, 100)
    assert [rule.dropped(count) for count in (0, 9, 10, 55, 99, 100, 5000)] == [0, 0, 30, 65, 99, 100, 100]
    assert [Startups(10, 100, 10).dropped(count) for count in (9, 10, 11)] == [0, 100, 100]


def test_random_early_drop() -> None:
    door = Door(max_startups=Startups(2, 50, 4))
    inside = [door.enters(), door.enters()]
    door.dice = 0.49
    assert door.enter() == TOO_MANY
    door.dice = 0.51
    inside.append(door.enters())
    assert door.enter() == TOO_MANY     # 75 of a hundred
    door.dice = 0.76
    inside.append(door.enters())
    door.dice = 0.999
    assert door.enter() == TOO_MANY, 'full'
    inside[0].logged_in()
    inside[1].ended(None, 0)
    assert door.admission.startups == 2
    inside[0].ended(None, 0)
    door.enters()


def test_one_source_and_all_connections() -> None:
    door = Door(per_source_max_startups=2, max_connections=4)
    first = door.enters('192.0.2.1')
    door.enters('::ffff:192.0.2.1')
    assert door.enter('192.0.2.1') == TOO_MANY, 'IPv4 in IPv6 is the same'
    door.enters('192.0.2.2')
    door.enters(None)
    assert door.enter('192.0.2.3') == TOO_MANY
    first.logged_in()
    assert door.enter('192.0.2.3') == TOO_MANY, 'one that is logged in still is a connection'
    first.ended(None, 0)
    door.enters('192.0.2.1')


# --- penalties


def test_penalties_add_up_and_pass() -> None:
    door = Door()
    door.fail()
    door.fail()
    door.enters('192.0.2.2')
    door.fail()
    assert door.enter() == NOT_NOW
    door.enters('192.0.2.2')
    door.now += 14.9
    assert door.enter() == NOT_NOW
    door.now += 0.2
    door.fail()
    assert isinstance(door.enter(), Startup), 'one failure counts from nothing again'


@pytest.mark.parametrize(
    ('exc', 'failures', 'seconds'),
    [
        (ConnectionLost('gone'), 0, 1), (ProtocolError('nonsense'), 0, 1), (PermissionDenied('no'), 6, 5),
        (IllegalUserName('..'), 0, 5), (KeyError('a fault of ours'), 0, 90), (ConnectionLost('gone'), 1, 5),
    ],
)  # fmt: skip
def test_what_a_failure_costs(exc: Exception, failures: int, seconds: float) -> None:
    door = Door(per_source_penalties=Penalties(min=seconds))
    door.fail(exc=exc, failures=failures)
    door.now += seconds - 0.1
    assert door.enter() == NOT_NOW
    door.now += 0.2
    door.enters()


def test_the_grace_time_costs_more() -> None:
    door = Door(per_source_penalties=Penalties(min=10))
    startup = door.enters()
    door.now += 120
    startup.ended(ConnectionLost('Login timeout expired'), 3)
    assert door.enter() == NOT_NOW


def test_the_most_a_source_is_kept_out() -> None:
    door = Door(per_source_penalties=Penalties(min=5, max=30))
    together = [door.enters() for _ in range(100)]
    for startup in together:
        startup.ended(PermissionDenied('no'), 6)
    door.now += 29
    assert door.enter() == NOT_NOW
    door.now += 2
    door.enters()


def test_no_penalty_for_those_who_were_in_or_are_exempt_or_were_sent_away_by_us() -> None:
    door = Door(per_source_penalties=Penalties(min=1), per_source_penalty_exempt=networks('x', '198.51.100.0/24'))
    startup = door.enters()
    startup.logged_in()
    startup.ended(ConnectionLost('gone'), 5)
    door.enters().ended(None, 5)
    door.fail('198.51.100.7')
    for address in ('192.0.2.1', '198.51.100.7'):
        door.enters(address)
    assert Door(per_source_penalties=None).enters()


def test_networks_are_one_source() -> None:
    door = Door(per_source_net_block_size=(24, 64), per_source_penalties=Penalties(min=1))
    door.fail('192.0.2.1')
    door.fail('2001:db8::1')
    for address, refused in (('192.0.2.99', True), ('192.0.3.1', False), ('2001:db8::ffff', True),
                             ('fe80::1%eth0', False), ('2001:db8:0:1::1', False)):  # fmt: skip
        assert (door.enter(address) == NOT_NOW) is refused, address


def test_what_is_remembered_is_bounded() -> None:
    door = Door(per_source_penalties=Penalties(min=1, max_sources4=100, max_sources6=50))
    for i in range(5000):
        door.now += 0.001
        door.fail(f'10.0.{i // 250}.{i % 250}')
        door.fail(f'2001:db8::{i:x}')
    assert door.admission.remembered == 150
    assert door.enter('10.0.19.249') == NOT_NOW
    door.enters('10.0.0.0').ended(None, 0)
    door.now += 600
    door.enters().ended(None, 0)
    door.enters('2001:db8::1').ended(None, 0)
    assert door.admission.remembered <= 150


def test_a_source_that_fails_for_ever_is_remembered_once() -> None:
    door = Door(per_source_penalties=Penalties(min=500, max=600))
    for _ in range(10_000):
        door.now += 10
        door.fail()
    assert door.admission.remembered == 1
    assert len(door.admission._penalties[4]._order) < 30


def test_deny_all_when_the_table_is_full() -> None:
    door = Door(per_source_penalties=Penalties(min=10, max_sources4=2, overflow='deny-all'))
    waiting = door.enters('192.0.2.3')
    door.fail('192.0.2.1')
    door.fail('192.0.2.2')
    waiting.ended(PermissionDenied('no'), 1)
    assert door.admission.remembered == 2
    assert door.enter('192.0.2.4') == NOT_NOW
    door.enters('2001:db8::1')
    door.now += 6
    door.enters('192.0.2.4')


# --- options


def test_forms_of_the_options() -> None:
    assert startups('x', '10:30:100') == startups('x', (10, 30, 100)) == Startups(10, 30, 100)
    assert startups('x', 7) == startups('x', '7') == Startups(7, 100, 7)
    assert startups('x', None) is None
    assert optional_count('x', 'none') is None and optional_count('x', '3') == 3
    assert net_block_size('x', '24') == (24, 128) and net_block_size('x', [24, 56]) == (24, 56)
    assert penalties('x', False) is penalties('x', 'no') is None
    assert penalties('x', 'yes') == penalties('x', True) == Penalties()
    assert penalties('x', 'authfail:1m max-sources4:9 overflow:deny-all') == penalties(
        'x', {'authfail': 60, 'max_sources4': 9, 'overflow': 'deny-all'}
    ) == Penalties(authfail=60, max_sources4=9, overflow='deny-all')  # fmt: skip
    assert [str(network) for network in networks('x', '192.0.2.1, 2001:db8::/32')] == ['192.0.2.1/32', '2001:db8::/32']


@pytest.mark.parametrize(
    ('check', 'value'),
    [
        (startups, '10:30'), (startups, '10:0:100'), (startups, '10:101:100'), (startups, '100:30:10'), (startups, 0),
        (startups, True), (startups, 'a:b:c'), (startups, 1.5), (optional_count, 0), (optional_count, 'x'),
        (net_block_size, '33:128'), (net_block_size, '1:2:3'), (net_block_size, ''), (penalties, 'authfail'),
        (penalties, 'nothing:5s'), (penalties, 'authfail:x'), (penalties, 'overflow:maybe'), (penalties, {}),
        (penalties, 5), (networks, '192.0.2.1/99'), (networks, '192.0.2.*'), (networks, 5),
    ],
)  # fmt: skip
def test_values_that_cannot_be(check: Any, value: object) -> None:
    with pytest.raises(ValueError, match='name'):
        check('name', value)


async def test_sshd_config(tmp_path: Any) -> None:
    (tmp_path / 'config').write_text(
        'MaxStartups 5:50:20\nPerSourceMaxStartups 3\nPerSourceNetBlockSize 24:56\n'
        'PerSourcePenalties authfail:7s refuseconnection:9s min:8s\nPerSourcePenaltyExemptList 192.0.2.0/24\n'
    )
    options = await ssh_fast.SSHServerConnectionOptions.construct(config=tmp_path / 'config')
    assert options.max_startups == Startups(5, 50, 20)
    assert options.per_source_max_startups == 3
    assert options.per_source_net_block_size == (24, 56)
    assert options.per_source_penalties == Penalties(authfail=7, min=8)
    assert [str(network) for network in options.per_source_penalty_exempt] == ['192.0.2.0/24']
    (tmp_path / 'config').write_text('\nMaxStartups 0\n')
    with pytest.raises(ssh_fast.ConfigParseError, match='line 2'):
        await ssh_fast.SSHServerConnectionOptions.construct(config=tmp_path / 'config')


# --- live listeners


async def turned_away(port: int) -> bytes:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        return await asyncio.wait_for(reader.read(), 6)
    finally:
        writer.close()


async def test_a_full_listener_says_so_and_lets_in_again() -> None:
    async with serving(max_startups=2) as server:
        async with await Peer.connect(server.port) as first, await Peer.connect(server.port) as second:
            await first.identify()
            await second.identify()
            assert await turned_away(server.port) == TOO_MANY
            with pytest.raises(ssh_fast.Error):
                await ssh_fast.connect(LOOPBACK, server.port, **client_options())
            assert len(server.made) == 2, 'nothing was made for those who were turned away'
        await asyncio.wait_for(asyncio.gather(*(owner.lost for owner in server.made)), 6)
        assert await logs_in(server.port)


async def test_those_who_are_in_do_not_count() -> None:
    async with serving(max_startups=1, max_connections=3) as server:
        inside = [await ssh_fast.connect(LOOPBACK, server.port, **client_options()) for _ in range(3)]
        assert await turned_away(server.port) == TOO_MANY
        inside[0].close()
        await inside[0].wait_closed()
        await asyncio.wait_for(server.made[0].lost, 6)
        assert await logs_in(server.port)
        for conn in inside:
            conn.abort()


async def test_failed_logins_keep_a_source_out() -> None:
    rules = {'authfail': 20, 'min': 30}
    async with serving(per_source_penalties=rules, per_source_penalty_exempt=None) as server:
        assert await logs_in(server.port)
        for _ in range(2):
            with pytest.raises(ssh_fast.PermissionDenied):
                await ssh_fast.connect(LOOPBACK, server.port, **client_options(password='wrong'))
            await asyncio.wait_for(asyncio.shield(server.made[-1].lost), 6)
        assert await turned_away(server.port) == NOT_NOW
    async with serving(per_source_penalties=rules) as server:
        for _ in range(4):
            with pytest.raises(ssh_fast.PermissionDenied):
                await ssh_fast.connect(LOOPBACK, server.port, **client_options(password='wrong'))
        assert await logs_in(server.port), 'loopback is exempt unless told'


async def test_a_stranger_is_asked_for_nothing_before_the_grace_time_is_over() -> None:
    rules = {'grace_exceeded': 30, 'min': 30}
    options = {'per_source_penalties': rules, 'per_source_penalty_exempt': None, 'login_timeout': 0.3}
    async with serving(**options) as server:
        async with await Peer.connect(server.port) as peer:
            await peer.identify()
            with pytest.raises(Gone):
                while True:
                    await peer.receive()
        assert await turned_away(server.port) == NOT_NOW


async def test_a_failure_is_told_late() -> None:
    """Of unknown and known users alike: after a time that depends on the name alone."""
    async with serving(auth_failure_delay=0.2) as server, await Peer.connect(server.port) as peer:
        await peer.start_auth()
        loop = asyncio.get_running_loop()
        began = loop.time()
        peer.send(peer.password('wrong'))
        await peer.expect(51)
        assert loop.time() - began >= 0.2


async def test_a_factory_that_raises_leaves_no_startup_behind() -> None:
    async def connect() -> bytes:
        reader, writer = await asyncio.open_connection(LOOPBACK, listener.get_port())
        try:
            return await asyncio.wait_for(reader.read(), 6)
        except ConnectionResetError:
            return b''
        finally:
            writer.close()

    def factory() -> ssh_fast.SSHServer:
        raise ValueError('no server today')

    async with ssh_fast.listen(LOOPBACK, 0, server_host_keys=[HOST_KEY], server_factory=factory, max_startups=1,
                               max_connections=1) as listener:  # fmt: skip
        assert [await connect() for _ in range(3)] == [b''] * 3
