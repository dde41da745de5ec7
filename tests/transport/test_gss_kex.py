"""Key exchanges by GSSAPI over memory pipes: with mechanisms made up here, and with peers that break the rules."""

import pytest

from ssh_fast.errors import KeyExchangeFailed, ProtocolError
from ssh_fast.gss_context import MAX_MIC, MAX_TOKEN, MAX_TOKENS, GSSFailure, GSSStep
from ssh_fast.transport.kex.gss import gss_kex_algorithms, is_gss, plain_method
from ssh_fast.transport.negotiation import KexInit, negotiate
from ssh_fast.wire import Cursor, encode_boolean, encode_byte, encode_mpint, encode_string, encode_uint32
from tests.memory_pipe import PacketFactory, host_key, make_pipe

KERBEROS = bytes.fromhex('06092a864886f712010202')
SUFFIX = b'-toWM5Slw5Ew8Mqkay+al2g=='
CURVE = b'gss-curve25519-sha256' + SUFFIX
NAMES = tuple(
    name + SUFFIX
    for name in (
        b'gss-curve25519-sha256', b'gss-curve448-sha512', b'gss-nistp256-sha256', b'gss-nistp384-sha384',
        b'gss-nistp521-sha512', b'gss-group14-sha256', b'gss-group15-sha512', b'gss-group16-sha512',
        b'gss-group17-sha512', b'gss-group18-sha512',
    )
)  # fmt: skip


class Context:
    """A mechanism of `rounds` tokens each way, whose MIC is the data with a key in front."""

    mechanism = KERBEROS

    def __init__(self, is_client, rounds=1, integrity=True, mutual=True, key=b'k', fail_at=0, last=b'ap-rep'):
        self.is_client = is_client
        self.rounds = rounds
        self.flags = integrity, mutual
        self.key = key
        self.fail_at = fail_at
        self.last = last
        self.steps = 0

    def step(self, token):
        self.steps += 1

        if self.steps == self.fail_at:
            raise GSSFailure('no tickets')

        complete = self.steps >= self.rounds + (self.is_client and bool(self.last))
        answer = b'' if self.is_client and self.steps > self.rounds else b'ap-req' if self.is_client else b'ap-rep'
        flags = self.flags if complete else (False, False)
        return GSSStep(self.last if complete and not self.is_client else answer, complete, *flags)

    def sign(self, data):
        return self.key + data

    def verify(self, data, mic):
        if mic != self.key + data:
            raise GSSFailure('bad MIC')


def gss_pipe(client=None, server=None, *, kex_algs=(CURVE,), server_options=None, client_options=None, **both):
    made = {True: [], False: []}

    def contexts(is_client, settings):
        def new():
            made[is_client].append(Context(is_client, **{**both, **(settings or {})}))
            return made[is_client][-1]

        return new

    pipe = make_pipe(
        client={'kex_algs': kex_algs, 'new_gss_context': contexts(True, client), **(client_options or {})},
        server={'kex_algs': kex_algs, 'new_gss_context': contexts(False, server), **(server_options or {})},
    )
    pipe.made = made
    return pipe


def test_names():
    plain = (b'curve25519-sha256', b'mlkem768x25519-sha256', b'diffie-hellman-group14-sha256')
    assert gss_kex_algorithms(KERBEROS, plain) == (CURVE, b'gss-group14-sha256' + SUFFIX)
    assert [plain_method(name) for name in gss_kex_algorithms(KERBEROS, plain)] == [plain[0], plain[2]]
    assert is_gss(CURVE) and not is_gss(b'gss-other-toWM5Slw5Ew8Mqkay+al2g==') and not is_gss(b'curve25519-sha256')


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('shown', [True, False])
def test_each_method(name, shown):
    pipe = gss_pipe(kex_algs=(name,), server_options={} if shown else {'host_keys': []}).start().check()
    client, server = pipe.client.transport, pipe.server.transport

    assert client.algorithms.kex == name
    assert client.session_id == server.session_id != b''
    assert client.algorithms.host_key == (b'ssh-ed25519' if shown else b'null')
    assert (client.gss_context, server.gss_context) == (pipe.made[True][0], pipe.made[False][0])
    assert client.session_proof is None
    assert pipe.client.host.host_keys == []        # nobody has to judge it
    assert client._exchanges.host_key_data == (host_key().public_data if shown else b'')
    pipe.login()


@pytest.mark.parametrize('rounds', [1, 2, MAX_TOKENS])
@pytest.mark.parametrize('last', [b'', b'ap-rep'])
def test_rounds(rounds, last):
    pipe = gss_pipe(rounds=rounds, last=last).start().check()
    assert pipe.client.transport.session_id == pipe.server.transport.session_id != b''


def test_too_many_rounds():
    pipe = gss_pipe(rounds=MAX_TOKENS + 1).start()
    assert isinstance(pipe.server.error, ProtocolError)
    assert not pipe.client.transport.session_id


@pytest.mark.parametrize(
    ('client', 'server', 'end', 'match'),
    [
        ({'key': b'x'}, {}, 'client', 'MIC .* bad MIC'),
        ({'integrity': False}, {}, 'client', 'makes MICs'),
        ({'mutual': False}, {}, 'client', 'proves the server'),
        ({}, {'integrity': False}, 'server', 'makes MICs'),
        ({}, {'mutual': False}, 'server', 'proves the server'),
        ({'fail_at': 1}, {}, 'client', 'no tickets'),
        ({}, {'fail_at': 1}, 'server', '^The GSSAPI mechanism failed$'),
        ({'fail_at': 2}, {}, 'client', 'no tickets'),
        ({'rounds': 2, 'last': b''}, {'last': b''}, 'client', 'not established'),
        ({'rounds': 2}, {}, 'client', 'needs an answer'),
    ],
)
def test_failures(client, server, end, match):
    pipe = gss_pipe(client, server).start()
    error = getattr(pipe, end).error

    assert isinstance(error, KeyExchangeFailed)
    with pytest.raises(KeyExchangeFailed, match=match):
        raise error

    assert not pipe.client.transport.session_id
    assert pipe.client.host.exchanges == []


def test_a_server_that_fails_says_so_without_saying_why():
    pipe = gss_pipe(server={'fail_at': 1}).start()

    with pytest.raises(KeyExchangeFailed, match='GSSAPI error 0xd0000, 0x0: The GSSAPI mechanism failed'):
        raise pipe.client.error

    # What becomes of it on the wire is its text; the application has its cause.
    assert 'no tickets' not in str(pipe.server.error)
    assert str(pipe.server.error.__cause__) == 'no tickets'


# --- who renews the keys how


def test_a_rekey_is_by_the_host_key_once_it_is_known():
    pipe = gss_pipe(kex_algs=(CURVE, b'curve25519-sha256')).start().login()
    pipe.client.transport.rekey()
    pipe.pump().check()

    assert pipe.client.transport.rekeys == 1
    assert pipe.client.transport.algorithms.kex == b'curve25519-sha256'
    assert pipe.client.transport.gss_context is pipe.made[True][0]
    assert pipe.client.host.host_keys == []


@pytest.mark.parametrize('starter', ['client', 'server'])
def test_a_rekey_is_by_gssapi_if_no_host_key_is_known(starter):
    pipe = gss_pipe(kex_algs=(CURVE, b'curve25519-sha256'), server_options={'host_keys': []}).start().login()
    getattr(pipe, starter).transport.rekey()
    pipe.pump().check()

    assert pipe.client.transport.rekeys == 1
    assert len(pipe.made[True]) == 2
    assert pipe.client.transport.gss_context is pipe.made[True][0]


def test_another_host_key_in_a_rekey_by_gssapi():
    pipe = gss_pipe().start().login()
    pipe.client.transport._exchanges.host_key_data = host_key(b'ssh-rsa').public_data
    pipe.client.transport.rekey()
    pipe.pump()

    with pytest.raises(KeyExchangeFailed, match='the host key of the first key exchange'):
        raise pipe.client.error


def test_a_client_without_gssapi_gets_the_host_key():
    pipe = gss_pipe(
        kex_algs=(CURVE, b'curve25519-sha256'),
        client_options={'kex_algs': (b'curve25519-sha256',), 'new_gss_context': None},
    )
    pipe.start().check()

    assert pipe.client.transport.gss_context is pipe.server.transport.gss_context is None
    assert pipe.client.host.host_keys == [(host_key().public_data, b'ssh-ed25519')]
    assert pipe.client.transport.session_proof is not None


def lists(kex_algs, host_key_algs):
    none = (b'none',)
    return KexInit(kex_algs, host_key_algs, (b'aes128-gcm@openssh.com',), (b'aes128-gcm@openssh.com',), (), (),
                   none, none)


def test_no_plain_method_goes_without_a_host_key():
    both = (b'curve25519-sha256', CURVE)
    null, key = (b'null',), (b'null', b'ssh-ed25519')

    chosen = negotiate(lists(both, key), lists(both, key), is_client=True)
    assert (chosen.kex, chosen.host_key) == (b'curve25519-sha256', b'ssh-ed25519')

    chosen = negotiate(lists(both, key), lists(both, null), is_client=True)
    assert (chosen.kex, chosen.host_key) == (CURVE, b'null')

    with pytest.raises(KeyExchangeFailed, match='common host key algorithm'):
        negotiate(lists(both[:1], key), lists(both, null), is_client=True)


# --- hostile messages, before there are keys


def client_got(*messages, host_keys=None, settings=None):
    """Send a client what no honest server does, after its INIT, and return its error."""

    pipe = gss_pipe(settings, server_options={} if host_keys is None else {'host_keys': host_keys})
    client, server = pipe.client, pipe.server
    client.transport.start()
    server.transport.start()
    to_client = server.take()
    client.take()
    client.feed(to_client)
    assert client.error is None and client.take()

    for message in messages:
        client.feed(PacketFactory.frame(message))

    return client.error


def complete(value=None, mic=b'kx', token=b'ap-rep', rest=b''):
    fields = encode_byte(32) + encode_string(b'\x09' * 32 if value is None else value) + encode_string(mic)
    return fields + encode_boolean(token is not None) + (b'' if token is None else encode_string(token)) + rest


def host_key_message(data=None):
    return encode_byte(33) + encode_string(host_key().public_data if data is None else data)


def continues(token=b'ap-rep'):
    return encode_byte(31) + encode_string(token)


@pytest.mark.parametrize(
    ('messages', 'kind', 'match'),
    [
        ([complete()], KeyExchangeFailed, 'bad MIC'),
        ([complete(value=bytes(32))], KeyExchangeFailed, 'low order'),
        ([complete(value=b'short')], KeyExchangeFailed, '32 bytes'),
        ([complete(token=b'')], ProtocolError, 'empty'),
        ([complete(token=None)], KeyExchangeFailed, 'not established'),
        ([complete(mic=bytes(MAX_MIC + 1))], ProtocolError, 'at most'),
        ([complete(token=bytes(MAX_TOKEN + 1))], ProtocolError, 'at most'),
        ([complete(rest=b'x')], ProtocolError, None),
        ([complete()[:-1]], ProtocolError, None),
        ([b'\x20'], ProtocolError, None),
        ([continues(b'')], ProtocolError, 'empty'),
        ([continues() + b'x'], ProtocolError, None),
        # The mechanism is done, and has nothing more to say.
        ([continues()], KeyExchangeFailed, 'for the server'),
        ([host_key_message(), host_key_message()], ProtocolError, 'at most one host key'),
        ([host_key_message(b'')], ProtocolError, 'at most one host key'),
        ([host_key_message() + b'x'], ProtocolError, None),
        ([encode_byte(30) + encode_string(b'ap-req') + encode_string(bytes(32))], ProtocolError, 'message 30'),
        ([encode_byte(35)], ProtocolError, 'message 35'),
        ([encode_byte(40)], ProtocolError, 'message 40'),
        ([encode_byte(34) + bytes(8) + encode_string('a\x1b[0m') + encode_string('')], KeyExchangeFailed, 'error 0x0'),
        ([encode_byte(34) + bytes(8)], ProtocolError, None),
        ([encode_byte(21)], ProtocolError, 'NEWKEYS'),
    ],
)
def test_hostile_servers(messages, kind, match):
    error = client_got(*messages)

    with pytest.raises(kind, match=match):
        raise error

    assert isinstance(error, (KeyExchangeFailed, ProtocolError)) and '\x1b' not in str(error)


def test_a_host_key_that_comes_late():
    error = client_got(continues(), host_key_message(), settings={'rounds': 2})
    assert isinstance(error, ProtocolError) and 'at most one host key' in str(error)


def test_a_host_key_where_none_was_agreed_upon():
    error = client_got(host_key_message(), host_keys=[])
    assert isinstance(error, ProtocolError) and 'at most one host key' in str(error)


def replace_host_key(data):
    """Make a man in the middle who shows another host key."""

    def change(stream):
        position = stream.find(encode_byte(33) + encode_string(host_key().public_data))

        if position < 0:
            return stream

        start = position - 5
        size = 4 + int.from_bytes(stream[start : start + 4], 'big')
        return stream[:start] + PacketFactory.frame(host_key_message(data)) + stream[start + size :]

    return change


@pytest.mark.parametrize('data', [encode_string('ssh-ed25519') + encode_string(bytes(32)), b'\x00'])
def test_another_host_key_is_not_what_the_mic_is_of(data):
    pipe = gss_pipe()
    pipe.on_server_bytes = replace_host_key(data)
    pipe.start()

    with pytest.raises(KeyExchangeFailed, match='MIC'):
        raise pipe.client.error


def test_a_host_key_of_another_kind_than_agreed_upon():
    class Wrong(Context):
        def verify(self, data, mic):
            pass

    for data, match in ((host_key(b'ecdsa-sha2-nistp256').public_data, 'for ssh-ed25519'), (b'x', 'a valid host key')):
        pipe = gss_pipe(client_options={'new_gss_context': lambda: Wrong(True)})
        pipe.on_server_bytes = replace_host_key(data)
        pipe.start()

        with pytest.raises(KeyExchangeFailed, match=match):
            raise pipe.client.error


def server_got(*messages, settings=None, name=CURVE):
    """Send a server what no honest client does, and return its error and what it sent."""

    pipe = gss_pipe(server=settings, kex_algs=(name,))
    client, server = pipe.client, pipe.server
    client.transport.start()
    server.transport.start()
    server.take()
    server.feed(client.take())

    for message in messages:
        server.feed(PacketFactory.frame(message))

    return server.error, server.take()


def init(token=b'ap-req', value=None):
    return encode_byte(30) + encode_string(token) + (encode_string(b'\x09' * 32) if value is None else value)


GROUP = b'gss-group14-sha256' + SUFFIX


@pytest.mark.parametrize(
    ('messages', 'name', 'kind', 'match'),
    [
        ([init(b'')], CURVE, ProtocolError, 'empty'),
        ([init(bytes(MAX_TOKEN + 1))], CURVE, ProtocolError, 'at most'),
        ([init()[:-1]], CURVE, ProtocolError, None),
        ([init() + b'x'], CURVE, ProtocolError, None),
        ([b'\x1e'], CURVE, ProtocolError, None),
        ([init(value=encode_string(bytes(32)))], CURVE, KeyExchangeFailed, 'low order'),
        ([init(value=encode_mpint(1))], GROUP, KeyExchangeFailed, 'from 2 to p-2'),
        ([init(value=encode_mpint(0))], GROUP, KeyExchangeFailed, 'from 2 to p-2'),
        ([continues()], CURVE, ProtocolError, 'message 31'),
        ([host_key_message()], CURVE, ProtocolError, 'message 33'),
        ([complete()], CURVE, ProtocolError, 'message 32'),
        ([encode_byte(34) + bytes(16)], CURVE, ProtocolError, 'message 34'),
    ],
)
def test_hostile_clients(messages, name, kind, match):
    error, _ = server_got(*messages, name=name)

    with pytest.raises(kind, match=match):
        raise error


def test_a_second_init():
    error, _ = server_got(init(), init(), settings={'rounds': 2})
    assert isinstance(error, ProtocolError) and 'message 30' in str(error)


def test_what_a_server_sends():
    error, sent = server_got(init())
    assert error is None
    first, second, third = PacketFactory.split(sent)[:3]
    assert first[5 : 6] == b'\x21' and second[5 : 6] == b'\x20' and third[5 : 6] == b'\x15'

    cursor = Cursor(second[6 : -second[4]])
    assert len(cursor.string()) == 32
    assert cursor.string().startswith(b'k')
    assert cursor.boolean() and cursor.string() == b'ap-rep'
    cursor.check_end()


def test_openssh_clients_are_not_shown_the_host_key():
    pipe = gss_pipe(client_options={'version': b'OpenSSH_9.2p1'}).start().check()

    assert pipe.client.transport.algorithms.host_key == b'ssh-ed25519'
    assert pipe.client.transport._exchanges.host_key_data == b''
    assert pipe.client.transport.session_id == pipe.server.transport.session_id != b''


def test_an_error_message():
    _, sent = server_got(init(), settings={'fail_at': 1})
    packet = PacketFactory.split(sent)[0]
    fields = encode_byte(34) + encode_uint32(0xD0000) + encode_uint32(0)
    assert packet[5:].startswith(fields + encode_string('The GSSAPI mechanism failed'))
