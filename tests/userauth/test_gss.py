"""gssapi-with-mic in memory: with mechanisms made up here, and with peers that break its rules."""

import pytest

from ssh_fast.errors import PacketDecodeError, PermissionDenied, ProtocolError
from ssh_fast.gss_context import MAX_MIC, MAX_TOKEN, MAX_TOKENS, GSSFailure, GSSStep
from ssh_fast.userauth import gss
from ssh_fast.userauth.messages import encode_failure, encode_request, encode_success
from ssh_fast.wire import encode_boolean, encode_byte, encode_string, encode_uint32

from .login import KEY_A, SESSION_ID, ClientHost, Login, ServerHost, make_server, pair, receive

OID = bytes.fromhex('06092a864886f712010202')
OTHER_OID = bytes.fromhex('06062b0601050502')
GSS, KEY = b'gssapi-with-mic', b'publickey'


class Context:
    """A mechanism of `rounds` tokens each way, whose MIC is the data with a letter in front."""

    mechanism = OID

    def __init__(self, *, is_client, principal='user@REALM', rounds=1, integrity=True, key=b'k', fail_at=0):
        self.is_client = is_client
        self.user_principal = principal
        self.rounds = rounds
        self.integrity = integrity
        self.key = key
        self.fail_at = fail_at
        self.steps = 0
        self.data = None

    def step(self, token):
        self.steps += 1

        if self.steps == self.fail_at:
            raise GSSFailure('no tickets')

        if self.is_client:
            complete = self.steps > self.rounds
            return GSSStep(b'' if complete else b'ap-req', complete, complete and self.integrity)

        assert token == b'ap-req'
        complete = self.steps >= self.rounds
        return GSSStep(b'ap-rep', complete, complete and self.integrity)

    def sign(self, data):
        self.data = data
        return self.key + data

    def verify(self, data, mic):
        if mic != self.key + data:
            raise GSSFailure('bad MIC')


def client_host(*, keys=(), **settings):
    return ClientHost(keys=list(keys), gss=Context(is_client=True, **settings))


def server_host(*, keys=(), **settings):
    return ServerHost(keys=list(keys), gss=lambda: Context(is_client=False, **settings))


@pytest.mark.parametrize('rounds', [1, 2, MAX_TOKENS])
def test_login(rounds):
    client, server = client_host(rounds=rounds), server_host(rounds=rounds)
    login = Login(client, server)

    assert login.run() is True
    assert login.server.completed_methods == (GSS,)
    assert login.server.accepted_credentials == ()
    assert ('gss', 'user', 'user@REALM') in server.events

    # RFC 4462 section 3.5
    assert client.gss.data == b''.join((
        encode_string(SESSION_ID), b'\x32', encode_string('user'), encode_string('ssh-connection'), encode_string(GSS),
    ))  # fmt: skip
    assert login.to_server[1] == encode_request('user', GSS, encode_uint32(1) + encode_string(OID))
    assert login.to_client[1] == encode_byte(60) + encode_string(OID)
    assert [payload[0] for payload in login.to_client[2:]] == [61] * rounds + [52]


def test_it_comes_before_keys_and_leaves_them_to_follow():
    login = Login(client_host(keys=[pair(KEY_A)], fail_at=1), server_host(keys=[KEY_A]))

    assert login.run() is True
    assert login.server.completed_methods == (KEY,)
    assert login.client_host.asked == ['gss', 'key']


def test_a_sequence_with_a_key():
    login = Login(client_host(keys=[pair(KEY_A)]), server_host(keys=[KEY_A]), sequences=((GSS, KEY),))

    assert login.run() is True
    assert login.server.completed_methods == (GSS, KEY)


@pytest.mark.parametrize(
    ('ours', 'theirs'),
    [
        ({}, {'principal': 'other@REALM'}),
        ({'key': b'x'}, {}),
        ({}, {'integrity': False}),
        ({}, {'fail_at': 1}),
        ({'rounds': 2}, {'rounds': 2, 'fail_at': 2}),
    ],
)
def test_refusals_all_look_the_same(ours, theirs):
    login = Login(client_host(**ours), server_host(**theirs))

    assert isinstance(login.run(), PermissionDenied)
    assert login.to_client[-1] == encode_failure([GSS, KEY, b'password'], partial=False)
    assert login.server._failures == 1
    assert not login.server.done


def test_unknown_and_known_users_get_the_same_messages():
    told = []

    for name in ('user', 'nobody'):
        login = Login(client_host(), server_host(principal='third@REALM'), username=name)
        login.run()
        told.append(login.to_client)

    assert told[0] == told[1]


def test_the_reason_is_told_to_the_user_only():
    login = Login(client_host(fail_at=1), server_host())

    assert 'GSSAPI: no tickets' in str(login.run())

    login = Login(client_host(integrity=False), server_host())
    assert 'which session' in str(login.run())
    assert all(payload[0] != 66 for payload in login.to_server)


def test_a_client_without_a_context_goes_on():
    login = Login(ClientHost(keys=[pair(KEY_A)]), server_host(keys=[KEY_A]))

    assert login.run() is True
    assert [payload[0] for payload in login.to_server].count(50) == 3


def test_a_server_without_credentials_refuses():
    host = ServerHost(gss=lambda: None)

    assert isinstance(Login(client_host(), host).run(), PermissionDenied)


# --- a client that breaks the rules


def begun(*mechanisms, **settings):
    host = server_host(**settings)
    server = make_server(host)
    receive(server, encode_request('user', GSS, gss.encode_mechanisms(*mechanisms)))
    return host, server


def replies(host):
    types = [payload[0] for payload in host.outgoing]
    host.outgoing.clear()
    return types


def token(data=b'ap-req', number=61):
    return gss.encode_gss(number, data)


def mic(data=None, session_id=SESSION_ID, username=b'user'):
    return gss.encode_gss(66, data or b'k' + gss.signed_data(session_id, username, GSS))


def test_mechanisms():
    assert replies(begun(OID, OTHER_OID)[0]) == [60]
    assert replies(begun(OTHER_OID, OID)[0]) == [60]
    assert replies(begun(OTHER_OID)[0]) == [51]
    assert replies(begun()[0]) == [51]
    assert replies(begun(OID[2:])[0]) == [51]
    assert replies(begun(*[OTHER_OID] * gss.MAX_MECHANISMS)[0]) == [51]

    with pytest.raises(ProtocolError, match='at most 64 GSSAPI mechanisms'):
        begun(*[OTHER_OID] * (gss.MAX_MECHANISMS + 1))

    for fields in (b'', encode_uint32(2) + encode_string(OID), encode_uint32(1) + encode_string(OID) + b'x'):
        with pytest.raises(PacketDecodeError):
            receive(make_server(server_host()), encode_request('user', GSS, fields))

    with pytest.raises(ProtocolError):
        receive(make_server(server_host()), encode_request('user', GSS, encode_uint32(0xFFFFFFFF)))


@pytest.mark.parametrize(
    'bad',
    [
        mic(b'k'),
        mic(session_id=bytes(32)),
        mic(username=b'other'),
        mic(b'\0'),
        gss.encode_gss(66, b''),
        encode_byte(63),
        token(number=65),
        token(),
    ],
)
def test_what_follows_a_context_must_be_its_mic(bad):
    host, server = begun(OID)
    receive(server, token())
    assert replies(host) == [60, 61]

    receive(server, bad)
    assert replies(host) == [51]
    assert not any(event[0] == 'gss' for event in host.events)

    # The context is gone with the refusal.
    with pytest.raises(ProtocolError):
        receive(server, mic())


@pytest.mark.parametrize('early', [mic(), encode_byte(63), token(number=65)])
def test_nothing_can_come_before_the_context(early):
    host, server = begun(OID)
    receive(server, early)

    assert replies(host) == [60, 51]
    assert not server.done


@pytest.mark.parametrize('number', [61, 63, 65, 66])
def test_messages_without_a_request(number):
    server = make_server(server_host())

    with pytest.raises(ProtocolError):
        receive(server, token(number=number))


def test_a_context_does_not_outlive_its_request():
    host, server = begun(OID)
    receive(server, token())
    receive(server, encode_request('user', GSS, gss.encode_mechanisms(OID)))
    assert replies(host) == [60, 61, 60]

    receive(server, mic())
    assert replies(host) == [51]
    assert server._failures == 2


def test_another_method_ends_the_dialogue():
    _, server = begun(OID)
    receive(server, token())
    receive(server, encode_request('user', b'password', encode_boolean(False) + encode_string('x')))

    with pytest.raises(ProtocolError):
        receive(server, mic())


def test_tokens_are_bounded_in_size_and_number():
    _, server = begun(OID)

    with pytest.raises(ProtocolError, match='at most 163840 bytes'):
        receive(server, token(bytes(MAX_TOKEN + 1)))

    host, server = begun(OID, rounds=100)

    for _ in range(MAX_TOKENS):
        receive(server, token())

    receive(server, token())
    assert replies(host) == [60] + [61] * MAX_TOKENS + [51]

    host, server = begun(OID)
    receive(server, token())

    with pytest.raises(ProtocolError, match='at most 4096 bytes'):
        receive(server, gss.encode_gss(66, bytes(MAX_MIC + 1)))


@pytest.mark.parametrize('number', [61, 65, 66])
@pytest.mark.parametrize('body', [b'', b'\0\0\0\5abcd', encode_string(b'x') + b'y'])
def test_malformed_messages_of_clients(number, body):
    _, server = begun(OID)

    with pytest.raises(PacketDecodeError):
        receive(server, encode_byte(number) + body)


def test_failures_end_at_the_limit():
    host = server_host(fail_at=1)
    server = make_server(host, max_failures=3)

    for _ in range(2):
        receive(server, encode_request('user', GSS, gss.encode_mechanisms(OID)))
        receive(server, token())

    receive(server, encode_request('user', GSS, gss.encode_mechanisms(OID)))

    with pytest.raises(PermissionDenied):
        receive(server, token())


# --- a server that breaks the rules


def waiting(**settings):
    host = client_host(**settings)
    client = Login(host, server_host()).client
    client.start()
    receive(client, encode_failure([GSS], partial=False))
    return host, client


def response(mechanism=OID):
    return gss.encode_gss(60, mechanism)


def test_an_honest_server():
    host, client = waiting()
    receive(client, response())
    receive(client, token(b'ap-rep'))
    receive(client, encode_success())

    assert host.result is True
    assert [payload[0] for payload in host.outgoing] == [50, 50, 61, 66]


@pytest.mark.parametrize(
    'messages',
    [
        [response(OTHER_OID)],
        [response(b'')],
        [response(), response()],
        [token()],
        [response(), token(), token()],
        [response(), token(bytes(MAX_TOKEN + 1))],
        [response(), token(number=66)],
        [response(), encode_byte(63)],
        [encode_byte(60)],
        [response(), encode_byte(61) + b'\0\0\0\5abcd'],
        [encode_byte(64) + encode_uint32(1)],
        [token(number=65)] * (MAX_TOKENS + 1),
    ],
)
def test_servers_that_break_the_rules(messages):
    _, client = waiting()

    with pytest.raises(ProtocolError):
        for message in messages:
            receive(client, message)


def test_a_server_that_never_ends():
    _, client = waiting(rounds=100)
    receive(client, response())

    for _ in range(MAX_TOKENS):
        receive(client, token())

    with pytest.raises(ProtocolError):
        receive(client, token())


def test_errors_of_a_server_are_shown_safely():
    host, client = waiting()
    error = encode_uint32(0xD0000) + encode_uint32(7) + encode_string(b'bad \x1b[2J\xff clock') + encode_string('en')
    receive(client, response())
    receive(client, encode_byte(64) + error)
    receive(client, token(number=65))
    receive(client, encode_failure([GSS], partial=False))

    assert '0xd0000' in str(host.result) and 'clock' in str(host.result)
    assert '\x1b' not in str(host.result)


def test_success_before_the_context_is_not_taken_for_a_proof():
    host, client = waiting()
    receive(client, response())
    receive(client, encode_success())

    # The server let us in; that it did not prove its name is no harm here, as its host key did.
    assert host.result is True


# --- gssapi-keyex


KEYEX = b'gssapi-keyex'


def keyex_login(*, key=b'k', ours=True, theirs=True, principal='user@REALM', **settings):
    client, server = client_host(**settings), server_host()
    client.kex_gss = Context(is_client=True, key=key) if ours else None
    server.kex_gss = Context(is_client=False, principal=principal) if theirs else None
    return Login(client, server)


def test_the_context_of_the_key_exchange_logs_in():
    login = keyex_login()

    assert login.run() is True
    assert login.server.completed_methods == (KEYEX,)
    assert ('gss', 'user', 'user@REALM') in login.server_host.events

    # RFC 4462 section 4
    signed = b''.join((
        encode_string(SESSION_ID), b'\x32', encode_string('user'), encode_string('ssh-connection'),
        encode_string(KEYEX),
    ))  # fmt: skip
    assert login.client_host.kex_gss.data == signed
    assert login.to_server[1:] == [encode_request('user', KEYEX, encode_string(b'k' + signed))]


@pytest.mark.parametrize('settings', [{'ours': False}, {'theirs': False}, {'key': b'x'}])
def test_without_it_or_with_a_wrong_mic_the_other_method_is_tried(settings):
    login = keyex_login(**settings)

    assert login.run() is True
    assert login.server.completed_methods == (GSS,)


def test_its_principal_is_judged():
    login = keyex_login(principal='other@REALM', fail_at=1)

    assert isinstance(login.run(), PermissionDenied)
    assert login.server._failures == 1


def test_a_mic_of_something_else():
    for session_id, username, method in (
        (b'other', b'user', KEYEX), (SESSION_ID, b'other', KEYEX), (SESSION_ID, b'user', GSS),
    ):  # fmt: skip
        login = keyex_login()
        mic = b'k' + gss.signed_data(session_id, username, method)
        receive(login.server, encode_request('user', KEYEX, encode_string(mic)))
        assert [payload[0] for payload in login.server_host.outgoing] == [51]
        assert not login.server.done


def test_hostile_mics():
    for fields in (b'', encode_string(b'')[:-1], encode_string(b'k') + b'x', encode_string(bytes(MAX_MIC + 1))):
        with pytest.raises((ProtocolError, PacketDecodeError)):
            receive(keyex_login().server, encode_request('user', KEYEX, fields))
