"""What a peer may not say: messages out of place, limits, malformed fields, identities not proven."""

import contextlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssh_fast.errors import (
    DisconnectError,
    IllegalUserName,
    PermissionDenied,
    ProtocolError,
    ServiceNotAvailable,
)
from ssh_fast.userauth import messages
from ssh_fast.userauth.client import ClientAuth
from ssh_fast.wire import encode_boolean, encode_string, encode_uint32

from .login import (
    ECDSA_KEY,
    KEY_A,
    KEY_B,
    RSA_KEY,
    SESSION_ID,
    SIG_ALGS,
    ClientHost,
    Login,
    ServerHost,
    make_server,
    pair,
    receive,
)

PROMPT = ('', '', '', [('Token: ', False)])

NONE = messages.encode_request('user', b'none')
PASSWORD = messages.encode_request('user', b'password', encode_boolean(False) + encode_string('secret'))
KBDINT = messages.encode_request('user', b'keyboard-interactive', encode_string('') * 2)
RESPONSE = messages.encode_info_response(['123'])

FAILURE = messages.encode_failure([b'publickey', b'keyboard-interactive', b'password'], False)
SUCCESS = messages.encode_success()
BANNER = messages.encode_banner('Hello', 'en')
PK_OK = messages.encode_pk_ok(KEY_A.algorithm, KEY_A.public_data)
CHANGEREQ = messages.encode_passwd_changereq('New', '')
INFO_REQUEST = messages.encode_info_request(PROMPT)


def query(key, algorithm=None, username='user'):
    fields = encode_boolean(False) + encode_string(algorithm or key.sig_algorithms[0]) + encode_string(key.public_data)

    return messages.encode_request(username, b'publickey', fields)


def signed(key, *, signer=None, algorithm=None, sig_algorithm=None, session_id=SESSION_ID, username='user', said=None):
    algorithm = algorithm or key.sig_algorithms[0]
    fields = encode_boolean(True) + encode_string(algorithm) + encode_string(key.public_data)
    request = messages.encode_request(username, b'publickey', fields)
    sent = messages.encode_request(said or username, b'publickey', fields)

    return sent + encode_string((signer or key).sign(encode_string(session_id) + request, sig_algorithm or algorithm))


# --- the server: messages out of place

SERVER_STATES = {
    'first': [],
    'refused': [NONE],
    'dialogue': [KBDINT],
    'partial': [signed(KEY_A)],
    'done': [signed(KEY_A), PASSWORD],
}


def server_in(state):
    host = ServerHost(keys=[KEY_A], passwords={'user': 'secret'}, kbdint=True, challenges=[PROMPT, True])
    sequences = ((b'publickey', b'password'), (b'keyboard-interactive',))
    server = make_server(host, sequences=sequences)

    for payload in SERVER_STATES[state]:
        receive(server, payload)

    assert server.done == (state == 'done')

    return server, host


SAMPLES = {51: FAILURE, 52: SUCCESS, 53: BANNER, 60: INFO_REQUEST, 61: RESPONSE}


@pytest.mark.parametrize('state', SERVER_STATES)
@pytest.mark.parametrize('number', range(51, 80))
def test_server_takes_no_message_of_a_server_or_of_no_method(state, number):
    server, host = server_in(state)
    host.outgoing.clear()
    payload = SAMPLES.get(number, bytes([number]) + bytes(16))

    if number == 61 and state == 'dialogue':
        receive(server, payload)
        assert server.done
    else:
        with pytest.raises(ProtocolError):
            receive(server, payload)

        assert not host.outgoing
        assert server.done == (state == 'done')


def test_server_ignores_requests_after_success():
    server, host = server_in('done')
    host.outgoing.clear()
    events = list(host.events)

    for payload in (NONE, PASSWORD, KBDINT, signed(KEY_B), messages.encode_request('root', b'none')):
        receive(server, payload)

    assert not host.outgoing
    assert host.events == events
    assert server.username == 'user'


def test_server_takes_nothing_while_a_question_is_open():
    class Slow(ServerHost):
        def ask(self, question, answer, failed=None):
            self.answer = answer

    host = Slow()
    server = make_server(host)
    receive(server, NONE)

    with pytest.raises(ProtocolError, match='while a question is open'):
        receive(server, NONE)

    host.answer(False)
    assert host.outgoing[0] == SUCCESS


# --- the server: who is it

@pytest.mark.parametrize('payloads', [(NONE,), (PASSWORD,), (signed(KEY_A),), (KBDINT,)])
def test_change_of_user_ends_the_connection(payloads):
    host = ServerHost(keys=[KEY_A], passwords={'root': 'secret'}, kbdint=True, challenges=[PROMPT])
    server = make_server(host, sequences=((b'publickey', b'password'), (b'keyboard-interactive',)))

    for payload in payloads:
        receive(server, payload)

    with pytest.raises(ProtocolError, match='user name'):
        receive(server, messages.encode_request('root', b'password', encode_boolean(False) + encode_string('secret')))

    assert ('password', 'root', 'secret') not in host.events


def test_names_that_only_prepare_to_the_same_are_a_change():
    server = make_server(ServerHost())
    receive(server, messages.encode_request('user', b'none'))

    with pytest.raises(ProtocolError):
        receive(server, messages.encode_request('us\u00ader', b'none'))


@pytest.mark.parametrize('before', [[], [NONE]])
def test_another_service_ends_the_connection(before):
    server = make_server(ServerHost(begin=bool(before)))

    for payload in before:
        receive(server, payload)

    with pytest.raises(ServiceNotAvailable):
        receive(server, NONE.replace(b'ssh-connection', b'ssh-conn\x1b[2Jon'))

    assert not server.done


def test_identity_is_the_key_that_signed_not_the_key_asked_about():
    host = ServerHost(keys=[KEY_A, KEY_B])
    server = make_server(host)
    receive(server, query(KEY_A))
    assert host.outgoing.pop() == PK_OK
    assert server.accepted_keys == ()

    receive(server, signed(KEY_B))
    assert server.done
    assert [key.public_data for key in server.accepted_keys] == [KEY_B.public_data]


def test_query_of_a_trusted_key_does_not_vouch_for_another():
    host = ServerHost(keys=[KEY_A])
    server = make_server(host)
    receive(server, query(KEY_A))
    receive(server, signed(KEY_B))
    receive(server, signed(KEY_A, signer=KEY_B))

    assert not server.done
    assert list(host.outgoing)[1:] == [messages.encode_failure([b'publickey', b'password'], False)] * 2


BAD_SIGNATURES = {
    'other session': signed(KEY_A, session_id=SESSION_ID[::-1]),
    'empty session': signed(KEY_A, session_id=b''),
    'other signer': signed(KEY_A, signer=KEY_B),
    'other user': signed(KEY_A, username='root', said='user'),
    'other algorithm named': signed(ECDSA_KEY, signer=KEY_A, sig_algorithm=b'ssh-ed25519'),
    'rsa hash differs from the one named': signed(RSA_KEY, algorithm=b'rsa-sha2-512', sig_algorithm=b'rsa-sha2-256'),
    'algorithm of another key': query(KEY_A, b'ecdsa-sha2-nistp256'),
    'algorithm unknown': query(KEY_A, b'ssh-ed25520'),
    'key name as algorithm': query(RSA_KEY, b'ssh-rsa'),
    'no signature': signed(KEY_A)[:-87] + encode_string(b''),
}


@pytest.mark.parametrize('payload', BAD_SIGNATURES.values(), ids=BAD_SIGNATURES)
def test_bad_signatures_are_refused(payload):
    host = ServerHost(keys=[KEY_A, ECDSA_KEY, RSA_KEY])
    server = make_server(host)
    receive(server, payload)

    assert host.outgoing.pop() == messages.encode_failure([b'publickey', b'password'], False)
    assert not server.done
    assert all(event[0] != 'key' for event in host.events)


def test_every_bit_of_a_signed_request_matters():
    payload = signed(KEY_A)

    for i in range(1, len(payload)):
        for bit in (1, 128):
            host = ServerHost(keys=[KEY_A])
            server = make_server(host)
            changed = bytearray(payload)
            changed[i] ^= bit

            with contextlib.suppress(DisconnectError):
                receive(server, bytes(changed))

            assert not server.done
            assert server.accepted_keys == ()


@pytest.mark.parametrize(
    'blob',
    [
        b'',
        encode_string('ssh-ed25519'),
        encode_string('ssh-ed25519') + encode_string(bytes(31)),
        encode_string('ssh-ed25519') + encode_string(bytes(33)),
        KEY_A.public_data + b'x',
        encode_uint32(0xffffffff),
        encode_string('ssh-ed25519') + encode_uint32(0xffffffff),
    ],
)
def test_malformed_key_fails_its_attempt_only(blob):
    server_host = ServerHost(keys=[KEY_A])
    server = make_server(server_host)
    fields = encode_boolean(True) + encode_string('ssh-ed25519') + encode_string(blob) + encode_string('sig')
    receive(server, messages.encode_request('user', b'publickey', fields))
    receive(server, signed(KEY_A))

    assert server.done


# --- the server: limits


def failures_until_the_end(server, payloads):
    for count, payload in enumerate(payloads, 1):
        try:
            receive(server, payload)
        except PermissionDenied as exc:
            assert exc.code == 14
            return count


WRONG = {
    'password': [PASSWORD],
    'change': [messages.encode_request('user', b'password', encode_boolean(True) + encode_string('a') * 2)],
    'publickey': [signed(KEY_A)],
    'bad signature': [signed(KEY_A, session_id=b'')],
    'long password': [messages.encode_request('user', b'password', encode_boolean(False) + encode_string(bytes(1025)))],
    'unknown method': [messages.encode_request('user', b'hostbased', b'anything')],
    'kbdint': [KBDINT],
    'all in turn': [PASSWORD, signed(KEY_A), KBDINT, messages.encode_request('user', b'gssapi-with-mic')],
}


@pytest.mark.parametrize('payloads', WRONG.values(), ids=WRONG)
def test_sixth_failure_ends_the_connection(payloads):
    server = make_server(ServerHost(kbdint=True))

    assert failures_until_the_end(server, itertools.islice(itertools.cycle(payloads), 20)) == 6


def test_first_none_is_free_and_others_are_not():
    server = make_server(ServerHost())

    assert failures_until_the_end(server, [NONE] * 20) == 7


def test_wrong_responses_count():
    host = ServerHost(kbdint=True, challenges=[PROMPT, False] * 10)

    assert failures_until_the_end(make_server(host), [KBDINT, RESPONSE] * 10) == 12


def test_challenges_after_wrong_responses_are_bounded():
    host = ServerHost(kbdint=True, challenges=[PROMPT] * 100)

    assert failures_until_the_end(make_server(host), [KBDINT] + [RESPONSE] * 100) == 21


def test_aborted_dialogues_count_and_get_no_reply():
    host = ServerHost(kbdint=True, challenges=[PROMPT] * 100)
    server = make_server(host)

    assert failures_until_the_end(server, [KBDINT] * 20) == 7
    assert all(payload[0] == 60 for payload in host.outgoing)


def test_response_to_an_aborted_dialogue_is_fatal():
    server = make_server(ServerHost(kbdint=True, challenges=[PROMPT, True]))
    receive(server, KBDINT)
    receive(server, NONE)

    with pytest.raises(ProtocolError):
        receive(server, RESPONSE)


@pytest.mark.parametrize('trusted', [[], [KEY_A]])
def test_key_queries_are_free_up_to_fifteen(trusted):
    server = make_server(ServerHost(keys=trusted))

    assert failures_until_the_end(server, [query(KEY_A)] * 30) == 16

    server = make_server(ServerHost(keys=trusted))
    assert failures_until_the_end(server, [query(KEY_A)] * 15 + [PASSWORD] * 20) == 21


def test_password_change_requests_are_bounded_by_the_client():
    client = ClientAuth(ClientHost(passwords=['a'], change=[('a', 'b')] * 20), 'user', SESSION_ID, encrypted=True)
    client.start()
    receive(client, messages.encode_failure([b'password'], False))

    with pytest.raises(ProtocolError, match='at most 6'):
        for _ in range(20):
            receive(client, CHANGEREQ)


@pytest.mark.parametrize('secret', [bytes(1024), bytes(1025), b'\xff', b'a\0b', 'x\u0007'.encode()])
def test_secrets_that_cannot_be_passwords_look_like_wrong_ones(secret):
    host = ServerHost(kbdint=NotImplemented, passwords={'user': 'secret'})
    server = make_server(host)
    receive(server, messages.encode_request('user', b'password', encode_boolean(False) + encode_string(secret)))
    receive(server, messages.encode_request('user', b'password', encode_boolean(True) + encode_string(secret) * 2))
    receive(server, KBDINT)
    receive(server, b'\x3d' + encode_uint32(1) + encode_string(secret))

    replies = [payload for payload in host.outgoing if payload[0] != 60]
    assert replies == [FAILURE] * 3
    assert host.events == [('begin', 'user')]


def test_password_of_1024_bytes_is_judged():
    host = ServerHost(passwords={'user': 'p' * 1024})
    server = make_server(host)
    receive(server, messages.encode_request('user', b'password', encode_boolean(False) + encode_string('p' * 1024)))

    assert server.done


@pytest.mark.parametrize('count', [0, 2, 100, 101, 0x7fffffff, 0xffffffff])
def test_response_count_that_differs_is_a_failure(count):
    host = ServerHost(kbdint=True, challenges=[PROMPT, True])
    server = make_server(host)
    receive(server, KBDINT)
    receive(server, b'\x3d' + encode_uint32(count) + encode_string('123') * min(count, 200))

    assert host.outgoing.pop() == FAILURE
    assert all(event[0] != 'responses' for event in host.events)


@pytest.mark.parametrize('response', [b'\xff', bytes(1025)])
def test_responses_that_cannot_be_text_are_a_failure(response):
    host = ServerHost(kbdint=True, challenges=[PROMPT, True])
    server = make_server(host)
    receive(server, KBDINT)
    receive(server, b'\x3d' + encode_uint32(1) + encode_string(response))

    assert host.outgoing.pop() == FAILURE
    assert not server.done


@pytest.mark.parametrize(
    'name', ['x' * 1025, 'é' * 513, 'a\0b', 'a\nb', '\x1b[2J', '\x7f', '\u202e', '\ud7ffa\u05d0']
)
def test_user_names_that_cannot_be(name):
    host = ServerHost(begin=False)

    with pytest.raises(IllegalUserName):
        receive(make_server(host), messages.encode_request(name, b'none'))

    assert host.events == []


def test_unknown_users_get_the_same_replies():
    def replies(username):
        host = ServerHost(keys=[KEY_A], passwords={'known': 'secret'}, kbdint=NotImplemented)
        server = make_server(host)

        for payload in (
            messages.encode_request(username, b'none'),
            messages.encode_request(username, b'password', encode_boolean(False) + encode_string('wrong')),
            messages.encode_request(username, b'password', encode_boolean(True) + encode_string('wrong') * 2),
            query(KEY_B, username=username),
            signed(KEY_B, username=username),
            signed(KEY_A, signer=KEY_B, username=username),
            messages.encode_request(username, b'keyboard-interactive', encode_string('') * 2),
        ):
            receive(server, payload)

        with pytest.raises(ProtocolError) as error:
            receive(server, messages.encode_request(username, b'password', b'\0\0'))

        return list(host.outgoing), str(error.value)

    assert replies('known') == replies('unknown')


# --- the client: messages out of place


def client_in(state):
    host = ClientHost([pair(KEY_A)], ['secret'], kbdint='', responses=['123'], change=[('secret', 'new')])
    client = ClientAuth(host, 'user', SESSION_ID, encrypted=True)

    if state != 'idle':
        client.start()

    if state == 'query':
        receive(client, FAILURE)
    elif state == 'signed':
        receive(client, FAILURE)
        receive(client, PK_OK)
    elif state == 'dialogue':
        receive(client, messages.encode_failure([b'keyboard-interactive'], False))
    elif state == 'password':
        receive(client, messages.encode_failure([b'password'], False))
    elif state == 'done':
        receive(client, SUCCESS)
    elif state == 'failed':
        receive(client, messages.encode_failure([], False))

    host.outgoing.clear()

    return client, host


CLIENT_STATES = ['idle', 'none', 'query', 'signed', 'dialogue', 'password', 'done', 'failed']
WAITING = ['none', 'query', 'signed', 'dialogue', 'password']
CLIENT_SAMPLES = {50: NONE, 51: FAILURE, 52: SUCCESS, 53: BANNER, 60: PK_OK, 61: RESPONSE}
CLIENT_LEGAL = {
    51: WAITING,
    52: WAITING,
    53: WAITING,
    60: ['query'],
}


@pytest.mark.parametrize('state', CLIENT_STATES)
@pytest.mark.parametrize('number', range(50, 80))
def test_client_takes_what_a_server_may_say_and_nothing_else(state, number):
    client, host = client_in(state)
    payload = CLIENT_SAMPLES.get(number, bytes([number]) + bytes(16))
    result = host.result

    if state in CLIENT_LEGAL.get(number, ()):
        receive(client, payload)
    else:
        with pytest.raises(ProtocolError):
            receive(client, payload)

        assert host.result is result
        assert not host.outgoing


@pytest.mark.parametrize('state', CLIENT_STATES)
@pytest.mark.parametrize('name', ['changereq', 'info request', 'pk_ok of another key', 'pk_ok of another algorithm'])
def test_client_takes_the_messages_of_the_running_method_only(state, name):
    payload = {
        'changereq': CHANGEREQ,
        'info request': INFO_REQUEST,
        'pk_ok of another key': messages.encode_pk_ok(KEY_B.algorithm, KEY_B.public_data),
        'pk_ok of another algorithm': messages.encode_pk_ok(b'ssh-rsa', KEY_A.public_data),
    }[name]
    client, host = client_in(state)

    if (state, name) in (('password', 'changereq'), ('dialogue', 'info request')):
        receive(client, payload)
        assert host.outgoing
    else:
        with pytest.raises(ProtocolError):
            receive(client, payload)

        assert not host.outgoing


def test_client_takes_one_pk_ok_for_a_query():
    client, _ = client_in('query')
    receive(client, PK_OK)

    with pytest.raises(ProtocolError):
        receive(client, PK_OK)


def test_client_takes_pk_ok_with_the_name_of_the_key():
    host = ClientHost(keys=[pair(RSA_KEY)])
    client = ClientAuth(host, 'user', SESSION_ID, encrypted=True)
    client.start()
    receive(client, FAILURE)
    receive(client, messages.encode_pk_ok(b'ssh-rsa', RSA_KEY.public_data))

    assert host.outgoing[-1][-1:] != b''
    assert len(host.outgoing) == 3
    assert b'rsa-sha2-' in host.outgoing[-1]


def test_duplicate_success_is_fatal():
    client, host = client_in('none')
    receive(client, SUCCESS)
    assert host.result is True

    with pytest.raises(ProtocolError):
        receive(client, SUCCESS)


def test_client_takes_banners_but_nothing_else_while_it_asks():
    class Slow(ClientHost):
        def ask(self, question, answer, failed=None):
            self.question, self.answer = question, answer

    host = Slow(keys=[pair(KEY_A)])
    client = ClientAuth(host, 'user', SESSION_ID, encrypted=True)
    client.start()
    receive(client, FAILURE)
    receive(client, BANNER)

    for payload in (FAILURE, SUCCESS, PK_OK):
        with pytest.raises(ProtocolError, match='question is open'):
            receive(client, payload)

    host.answer(host.question())
    receive(client, SUCCESS)
    assert host.result is True


def test_partial_success_of_nothing_is_fatal():
    client, _ = client_in('none')

    with pytest.raises(ProtocolError, match='partial'):
        receive(client, messages.encode_failure([b'publickey'], True))


@pytest.mark.parametrize('count', [101, 0x7fffffff, 0xffffffff])
def test_client_bounds_prompts(count):
    client, host = client_in('dialogue')
    payload = b'\x3c' + encode_string('') * 3 + encode_uint32(count) + (encode_string('x') + b'\0') * 200

    with pytest.raises(ProtocolError, match='at most 100'):
        receive(client, payload)

    assert host.events == []


def test_client_bounds_challenges():
    client, _ = client_in('dialogue')

    with pytest.raises(ProtocolError, match='at most 20'):
        for _ in range(30):
            receive(client, INFO_REQUEST)


def test_names_of_methods_are_safe_to_show():
    host = ClientHost()
    client = ClientAuth(host, 'user', SESSION_ID, encrypted=True)
    client.start()
    receive(client, messages.encode_failure([b'\x1b[2J', b'\xff' * 1000], False))

    assert '\x1b' not in str(host.result)
    assert len(str(host.result)) < 500


@pytest.mark.parametrize(('errors', 'expected'), [('strict', None), ('replace', 'caf\ufffd'), ('ignore', 'caf')])
def test_banner_that_is_not_utf8(errors, expected):
    host = ClientHost()
    client = ClientAuth(host, 'user', SESSION_ID, encrypted=True, utf8_decode_errors=errors)
    client.start()
    payload = b'\x35' + encode_string(b'caf\xe9') + encode_string('')

    if expected is None:
        with pytest.raises(ProtocolError):
            receive(client, payload)
    else:
        receive(client, payload)
        assert host.events == [('banner', expected, '')]


# --- malformed messages

SERVER_MESSAGES = [NONE, PASSWORD, KBDINT, query(KEY_A), signed(KEY_A), WRONG['change'][0]]
CLIENT_MESSAGES = {
    'none': [FAILURE, SUCCESS, BANNER],
    'query': [PK_OK],
    'dialogue': [INFO_REQUEST],
    'password': [CHANGEREQ],
}


@pytest.mark.parametrize('payload', SERVER_MESSAGES)
def test_truncated_and_lengthened_messages_to_the_server(payload):
    for size in range(1, len(payload)):
        server = make_server(ServerHost(keys=[KEY_A], passwords={'user': 'secret'}, kbdint=True))

        with pytest.raises((ProtocolError, ServiceNotAvailable, IllegalUserName)):
            receive(server, payload[:size])

        assert not server.done

    server = make_server(ServerHost(keys=[KEY_A], passwords={'user': 'secret'}, kbdint=True, challenges=[PROMPT]))

    with pytest.raises(ProtocolError, match='Expected the end'):
        receive(server, payload + b'x')


@pytest.mark.parametrize('state', CLIENT_MESSAGES)
def test_truncated_and_lengthened_messages_to_the_client(state):
    for payload in CLIENT_MESSAGES[state]:
        for broken in [payload[:size] for size in range(1, len(payload))] + [payload + b'x']:
            client, host = client_in(state)

            with pytest.raises(ProtocolError):
                receive(client, broken)

            assert host.result is None


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(SERVER_STATES)[:-1]), st.binary(max_size=200), st.sampled_from([50, 61]), st.data())
def test_server_survives_anything(state, noise, number, data):
    server, _host = server_in(state)
    base = data.draw(st.sampled_from([*SERVER_MESSAGES, RESPONSE, b'']))
    cut = data.draw(st.integers(0, len(base)))
    payload = bytes([number]) + base[1:cut] + noise
    # The host accepts any text as the response to its prompt.
    good = payload in (signed(KEY_A), PASSWORD) or (state == 'dialogue' and number == 61)

    with contextlib.suppress(DisconnectError):
        receive(server, payload)

    assert good or not server.done


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(CLIENT_STATES), st.binary(max_size=200), st.integers(50, 79), st.data())
def test_client_survives_anything(state, noise, number, data):
    client, host = client_in(state)
    base = data.draw(st.sampled_from([FAILURE, BANNER, PK_OK, INFO_REQUEST, CHANGEREQ, b'']))
    cut = data.draw(st.integers(0, len(base)))
    payload = bytes([number]) + base[1:cut] + noise

    with contextlib.suppress(ProtocolError, ValueError):
        receive(client, payload)

    assert host.result is not True or state == 'done' or payload == SUCCESS


def test_sig_algs_of_the_tests_are_those_of_the_keys():
    assert {key.sig_algorithms[0] for key in (KEY_A, ECDSA_KEY, RSA_KEY)} <= set(SIG_ALGS)


def test_replayed_login_is_refused_in_another_session():
    login = Login(ClientHost(keys=[pair(KEY_A)]), ServerHost(keys=[KEY_A]))
    assert login.run() is True

    other = make_server(ServerHost(keys=[KEY_A]))
    other.session_id = SESSION_ID[::-1]

    for payload in login.to_server:
        receive(other, payload)

    assert not other.done
