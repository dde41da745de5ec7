"""Every method, right and wrong, between our client and our server."""

import pytest

from ssh_fast.errors import IllegalUserName, PermissionDenied
from ssh_fast.userauth import messages
from ssh_fast.wire import Cursor

from .login import ECDSA_KEY, KEY_A, KEY_B, RSA_KEY, SESSION_ID, ClientHost, Login, ServerHost, pair

PASSWORD_PROMPT = ('', '', '', [('Password: ', False)])


def methods_tried(login):
    tried = []

    for payload in login.to_server:
        if payload[0] == 50:
            cursor = Cursor(payload)
            cursor.byte()
            cursor.string()
            assert cursor.string() == b'ssh-connection'
            tried.append(cursor.string())

    return tried


def passwords_sent(login, password):
    return sum(password.encode() in payload for payload in login.to_server)


# --- none


def test_none_lets_in_where_no_authentication_is_needed():
    login = Login(ClientHost(), ServerHost(begin=False))

    assert login.run() is True
    assert login.server_host.events == [('begin', 'user'), ('completed', 'user')]


@pytest.mark.parametrize('begin', [True, None, '', 0])
def test_only_an_explicit_false_lets_in_without_authentication(begin):
    assert isinstance(Login(ClientHost(), ServerHost(begin=begin)).run(), PermissionDenied)


def test_trivial_authentication_can_be_disabled():
    login = Login(ClientHost(), ServerHost(begin=False), disable_trivial_auth=True)

    assert 'Trivial' in str(login.run())


def test_a_challenge_without_prompts_is_trivial():
    server = ServerHost(kbdint=True, challenges=[('', '', '', []), True])
    login = Login(ClientHost(kbdint='', responses=[]), server, disable_trivial_auth=True)

    assert 'Trivial' in str(login.run())

    server = ServerHost(kbdint=True, challenges=[('', '', '', []), True])
    assert Login(ClientHost(kbdint='', responses=[]), server).run() is True


def test_proof_is_not_trivial():
    login = Login(ClientHost(keys=[pair(KEY_A)]), ServerHost(keys=[KEY_A]), disable_trivial_auth=True)

    assert login.run() is True


def test_error_names_user_and_methods():
    error = Login(ClientHost(), ServerHost(kbdint=True), username='me').run()

    assert isinstance(error, PermissionDenied)
    assert str(error) == (
        'Permission denied for user me: the server can continue with publickey, keyboard-interactive, password'
    )


# --- publickey

KEY_THEN_PASSWORD = (b'publickey', b'password')


@pytest.mark.parametrize('key', [KEY_A, ECDSA_KEY, RSA_KEY], ids=['ed25519', 'ecdsa', 'rsa'])
@pytest.mark.parametrize('at_once', [False, True])
def test_public_key(key, at_once):
    login = Login(
        ClientHost(keys=[pair(key)]), ServerHost(keys=[key]), preferred=KEY_THEN_PASSWORD, sign_at_once=at_once
    )

    assert login.run() is True
    assert methods_tried(login) == ([b'publickey'] if at_once else [b'none', b'publickey', b'publickey'])
    assert [k.public_data for k in login.server.accepted_keys] == [key.public_data]
    assert login.server.completed_methods == (b'publickey',)
    assert login.server.done


def test_second_key_is_found_by_query_and_the_first_not_signed_with():
    login = Login(ClientHost(keys=[pair(KEY_A), pair(KEY_B)]), ServerHost(keys=[KEY_B]))

    assert login.run() is True
    assert [k.public_data for k in login.server.accepted_keys] == [KEY_B.public_data]
    assert methods_tried(login) == [b'none', b'publickey', b'publickey', b'publickey']


def test_unknown_key_is_refused():
    login = Login(
        ClientHost(keys=[pair(KEY_A)]), ServerHost(keys=[KEY_B]), preferred=KEY_THEN_PASSWORD, sign_at_once=True
    )

    assert isinstance(login.run(), PermissionDenied)
    assert login.server.accepted_keys == ()
    # What needs no authentication is found out last, if the first key was tried first.
    assert methods_tried(login) == [b'publickey', b'none']


def test_a_key_that_was_tried_first_does_not_keep_others_from_being_tried():
    login = Login(
        ClientHost(keys=[pair(KEY_A), pair(KEY_B)]),
        ServerHost(keys=[KEY_B]),
        preferred=KEY_THEN_PASSWORD,
        sign_at_once=True,
    )

    assert login.run() is True
    assert methods_tried(login) == [b'publickey', b'publickey', b'publickey']

    login = Login(
        ClientHost(keys=[pair(KEY_A)], passwords=['word']),
        ServerHost(passwords={'user': 'word'}),
        preferred=KEY_THEN_PASSWORD,
        sign_at_once=True,
    )

    assert login.run() is True
    assert methods_tried(login) == [b'publickey', b'password']


def test_a_key_that_came_too_early_is_tried_again_in_its_turn():
    login = Login(
        ClientHost(keys=[pair(KEY_A)], passwords=['word']),
        ServerHost(keys=[KEY_A], passwords={'user': 'word'}),
        sequences=((b'password', b'publickey'),),
        preferred=KEY_THEN_PASSWORD,
        sign_at_once=True,
    )

    assert login.run() is True
    assert methods_tried(login) == [b'publickey', b'password', b'publickey']
    assert login.server.completed_methods == (b'password', b'publickey')


def test_the_method_that_is_preferred_comes_before_a_key_that_could_be_tried_first():
    login = Login(
        ClientHost(keys=[pair(KEY_A)], passwords=['word']),
        ServerHost(keys=[KEY_A], passwords={'user': 'word'}),
        preferred=(b'password', b'publickey'),
        sign_at_once=True,
    )

    assert login.run() is True
    assert methods_tried(login) == [b'none', b'password']


def test_key_pair_of_many_connections_is_not_changed():
    keypair = pair(RSA_KEY)
    keypair.set_sig_algorithm(b'rsa-sha2-512')
    login = Login(ClientHost(keys=[keypair]), ServerHost(keys=[RSA_KEY]), peer_sig_algs=(b'rsa-sha2-256',))

    assert login.run() is True
    assert keypair.sig_algorithm == b'rsa-sha2-512'
    assert b'rsa-sha2-256' in login.to_server[1]


@pytest.mark.parametrize(
    ('peer', 'ours', 'expected'),
    [
        (None, (b'rsa-sha2-256', b'ssh-ed25519'), b'rsa-sha2-256'),
        ((b'rsa-sha2-512',), None, b'rsa-sha2-512'),
        ((b'rsa-sha2-512', b'rsa-sha2-256'), (b'rsa-sha2-256',), b'rsa-sha2-256'),
        ((b'ssh-ed25519',), None, None),
        ((), None, None),
        (None, (b'ssh-ed25519',), None),
    ],
)
def test_rsa_signature_algorithm_is_chosen_by_server_sig_algs(peer, ours, expected):
    login = Login(
        ClientHost(keys=[pair(RSA_KEY)]), ServerHost(keys=[RSA_KEY]), peer_sig_algs=peer, signature_algs=ours
    )
    result = login.run()

    if expected:
        assert result is True
        cursor = Cursor(login.to_server[-1])
        cursor.byte()
        assert [cursor.string() for _ in range(3)] == [b'user', b'ssh-connection', b'publickey']
        assert cursor.boolean()
        assert cursor.string() == expected
    else:
        assert 'no signature algorithm in common' in str(result)
        assert methods_tried(login) == [b'none']


def test_key_of_one_algorithm_is_tried_though_server_sig_algs_omits_it():
    login = Login(ClientHost(keys=[pair(KEY_A)]), ServerHost(keys=[KEY_A]), peer_sig_algs=(b'rsa-sha2-512',))

    assert login.run() is True


def test_key_that_cannot_sign_is_passed_over():
    class Broken(type(pair(KEY_A))):
        def sign(self, data):
            raise OSError('agent went away')

    login = Login(ClientHost(keys=[Broken(KEY_A), pair(KEY_B)]), ServerHost(keys=[KEY_A, KEY_B]))

    assert login.run() is True
    assert [k.public_data for k in login.server.accepted_keys] == [KEY_B.public_data]

    login = Login(ClientHost(keys=[Broken(KEY_A)]), ServerHost(keys=[KEY_A]))
    assert 'the ssh-ed25519 key could not sign: agent went away' in str(login.run())


def test_keys_tried_are_bounded():
    client = ClientHost(keys=[pair(RSA_KEY)] * 300)
    login = Login(client, ServerHost(), peer_sig_algs=())

    assert 'gave up after 100 keys' in str(login.run())


# --- password


def test_password():
    login = Login(ClientHost(passwords=['secret']), ServerHost(passwords={'user': 'secret'}))

    assert login.run() is True
    assert ('password', 'user', 'secret') in login.server_host.events


def test_password_is_sent_once_though_offered_again_and_again():
    client = ClientHost(passwords=['wrong', 'wrong', 'wrong'])
    login = Login(client, ServerHost(passwords={'user': 'secret'}))

    assert isinstance(login.run(), PermissionDenied)
    assert passwords_sent(login, 'wrong') == 1


def test_next_password_is_tried():
    login = Login(ClientHost(passwords=['one', 'two']), ServerHost(passwords={'user': 'two'}))

    assert login.run() is True


def test_server_prepares_names_and_passwords_for_comparison():
    client = ClientHost(passwords=['pa\u00adss\u2168'])
    login = Login(client, ServerHost(passwords={'aIX': 'passIX'}), username='\u00aaIX')

    assert login.run() is True
    assert login.server_host.events[0] == ('begin', 'aIX')


def test_password_change():
    server = ServerHost(passwords={'user': 'old pw'})
    server.expired.add('user')
    client = ClientHost(passwords=['old pw'], change=[('old pw', 'new'), ('old pw', 'new pw')])
    login = Login(client, server)

    assert login.run() is True
    assert client.events == [
        ('change', 'Choose another', 'en'),
        'change failed',
        ('change', 'Too short', 'en'),
        'changed',
    ]
    assert server.passwords == {'user': 'new pw'}


def test_password_change_with_a_wrong_old_password():
    server = ServerHost(passwords={'user': 'old pw'})
    server.expired.add('user')
    client = ClientHost(passwords=['old pw'], change=[('other', 'new pw')])

    assert isinstance(Login(client, server).run(), PermissionDenied)
    assert client.events[-1] == 'change failed'
    assert server.passwords == {'user': 'old pw'}


def test_password_change_declined():
    server = ServerHost(passwords={'user': 'old pw'})
    server.expired.add('user')

    assert 'password change declined' in str(Login(ClientHost(passwords=['old pw']), server).run())


@pytest.mark.parametrize('kbdint', ['', NotImplemented])
def test_secrets_are_not_sent_in_the_clear(kbdint):
    client = ClientHost(keys=[pair(KEY_A)], passwords=['secret'], kbdint=kbdint, responses=['secret'])
    server = ServerHost(passwords={'user': 'secret'}, kbdint=True)
    login = Login(client, server, encrypted=False)
    login.server.encrypted = True

    assert isinstance(login.run(), PermissionDenied)
    assert client.asked == ['key', 'key']
    assert passwords_sent(login, 'secret') == 0


def test_server_offers_no_secrets_in_the_clear():
    login = Login(ClientHost(), ServerHost(kbdint=True), encrypted=False)
    login.run()

    assert login.client.server_methods == (b'publickey',)


@pytest.mark.parametrize('password', ['x' * 1025, 'é' * 513])
def test_client_refuses_long_passwords(password):
    with pytest.raises(ValueError, match='at most 1024 bytes'):
        Login(ClientHost(passwords=[password]), ServerHost()).run()


# --- keyboard-interactive


def test_dialogue():
    challenges = [
        ('Title', 'Do it', 'en', [('User-name: ', True), ('Token: ', False)]),
        ('', 'Once more', '', [('Again: ', False)]),
        True,
    ]
    server = ServerHost(kbdint=True, challenges=list(challenges))
    client = ClientHost(kbdint='pam', responses=lambda prompts: [prompt for prompt, _ in prompts])

    assert Login(client, server).run() is True
    assert client.events == [
        ('prompts', 'Title', 'Do it', [('User-name: ', True), ('Token: ', False)]),
        ('prompts', '', 'Once more', [('Again: ', False)]),
    ]
    assert server.events[1:] == [
        ('kbdint', 'user', 'pam'),
        ('responses', ['User-name: ', 'Token: ']),
        ('responses', ['Again: ']),
        ('completed', 'user'),
    ]


def test_dialogue_of_a_hundred_prompts_and_not_more():
    prompts = [(str(i), True) for i in range(100)]
    server = ServerHost(kbdint=True, challenges=[('', '', '', prompts), True])
    client = ClientHost(kbdint='', responses=lambda prompts: ['x'] * len(prompts))
    assert Login(client, server).run() is True

    server = ServerHost(kbdint=True, challenges=[('', '', '', [*prompts, ('', True)]), True])
    with pytest.raises(ValueError, match='at most 100 prompts'):
        Login(ClientHost(kbdint=''), server).run()


def test_dialogue_that_fails_for_ever_ends():
    server = ServerHost(kbdint=True, challenges=[PASSWORD_PROMPT, False] * 10)
    client = ClientHost(kbdint='', responses=['wrong'])

    assert isinstance(Login(client, server).run(), PermissionDenied)
    assert len(client.events) == 3


def test_dialogue_not_answered_goes_on_to_the_next_method():
    server = ServerHost(kbdint=True, challenges=[PASSWORD_PROMPT], passwords={'user': 'secret'})
    client = ClientHost(kbdint='', responses=None, passwords=['secret'])

    assert Login(client, server).run() is True


@pytest.mark.parametrize('responses', [[], ['a', 'b'], 'a'])
def test_callback_must_answer_every_prompt(responses):
    server = ServerHost(kbdint=True, challenges=[PASSWORD_PROMPT])

    with pytest.raises(ValueError, match='Expected 1 keyboard-interactive responses'):
        Login(ClientHost(kbdint='', responses=responses), server).run()


@pytest.mark.parametrize('followed_by', [[True], [('', 'Welcome', '', []), True]])
def test_password_answers_a_single_hidden_prompt(followed_by):
    server = ServerHost(kbdint=True, password=False, challenges=[PASSWORD_PROMPT, *followed_by])
    client = ClientHost(kbdint=NotImplemented, passwords=['secret'])

    assert Login(client, server).run() is True
    assert ('responses', ['secret']) in server.events


def test_password_given_to_a_dialogue_is_not_given_to_the_password_method():
    server = ServerHost(kbdint=True, challenges=[PASSWORD_PROMPT, False], passwords={'user': 'other'})
    login = Login(ClientHost(kbdint=NotImplemented, passwords=['secret']), server)

    assert isinstance(login.run(), PermissionDenied)
    assert passwords_sent(login, 'secret') == 1


@pytest.mark.parametrize(
    'challenge',
    [False, ('', '', '', [('Name: ', True)]), ('', '', '', [('Password: ', False), ('Token: ', False)])],
)
def test_password_that_a_dialogue_did_not_ask_for_is_kept(challenge):
    server = ServerHost(kbdint=True, challenges=[challenge], passwords={'user': 'secret'})
    login = Login(ClientHost(kbdint=NotImplemented, passwords=['secret']), server)

    assert login.run() is True
    assert login.server.completed_methods == (b'password',)


def test_server_without_challenges_asks_for_the_password():
    server = ServerHost(kbdint=NotImplemented, passwords={'user': 'secret'})
    client = ClientHost(kbdint='', responses=['secret'])

    login = Login(client, server)
    assert login.run() is True
    assert login.server.completed_methods == (b'keyboard-interactive',)
    assert ('password', 'user', 'secret') in server.events


def test_server_without_challenges_changes_an_expired_password():
    server = ServerHost(kbdint=NotImplemented, passwords={'user': 'secret'})
    server.expired.add('user')
    answers = [['secret'], ['new secret', 'new secret']]
    client = ClientHost(kbdint='', responses=lambda prompts: answers.pop(0))

    assert Login(client, server).run() is True
    assert server.passwords == {'user': 'new secret'}


def test_new_passwords_that_differ_are_refused():
    server = ServerHost(kbdint=NotImplemented, passwords={'user': 'secret'})
    server.expired.add('user')
    answers = [['secret'], ['new secret', 'new secrte'], ['x'], ['x']]
    client = ClientHost(kbdint='', responses=lambda prompts: answers.pop(0))

    assert isinstance(Login(client, server).run(), PermissionDenied)
    assert server.passwords == {'user': 'secret'}


# --- several methods


def test_two_methods_in_sequence():
    sequences = ((b'publickey', b'password'),)
    server = ServerHost(keys=[KEY_A], passwords={'user': 'secret'}, kbdint=True)
    login = Login(ClientHost(keys=[pair(KEY_A)], passwords=['secret']), server, sequences=sequences)

    assert login.run() is True
    assert login.server.completed_methods == (b'publickey', b'password')
    assert [k.public_data for k in login.server.accepted_keys] == [KEY_A.public_data]
    assert messages.encode_failure([b'publickey'], partial=False) in login.to_client
    assert messages.encode_failure([b'password'], partial=True) in login.to_client


def test_half_of_a_sequence_is_not_enough():
    sequences = ((b'publickey', b'password'),)
    server = ServerHost(keys=[KEY_A], passwords={'user': 'secret'})
    login = Login(ClientHost(keys=[pair(KEY_A)], passwords=['wrong', '']), server, sequences=sequences)

    assert isinstance(login.run(), PermissionDenied)
    assert not login.server.done

    login = Login(ClientHost(passwords=['secret']), server, sequences=sequences)
    assert isinstance(login.run(), PermissionDenied)
    assert b'password' not in methods_tried(login)


def test_two_keys_must_differ():
    sequences = ((b'publickey', b'publickey'),)
    login = Login(ClientHost(keys=[pair(KEY_A), pair(KEY_A)]), ServerHost(keys=[KEY_A, KEY_B]), sequences=sequences)
    assert isinstance(login.run(), PermissionDenied)

    login = Login(ClientHost(keys=[pair(KEY_A), pair(KEY_B)]), ServerHost(keys=[KEY_A, KEY_B]), sequences=sequences)
    assert login.run() is True
    assert [k.public_data for k in login.server.accepted_keys] == [KEY_A.public_data, KEY_B.public_data]


def test_sequence_of_an_unsupported_method_leads_nowhere():
    server = ServerHost(keys=[KEY_A], password=False)
    login = Login(ClientHost(keys=[pair(KEY_A)]), server, sequences=((b'publickey', b'password'),))

    assert isinstance(login.run(), PermissionDenied)
    assert login.client.server_methods == ()


def test_preferred_order_is_followed():
    server = ServerHost(keys=[KEY_A], passwords={'user': 'secret'})
    client = ClientHost(keys=[pair(KEY_A)], passwords=['secret'])
    login = Login(client, server, preferred=(b'password', b'publickey'))

    assert login.run() is True
    assert methods_tried(login) == [b'none', b'password']


def test_method_not_preferred_is_not_tried():
    client = ClientHost(keys=[pair(KEY_A)], passwords=['secret'])
    login = Login(client, ServerHost(keys=[KEY_A]), preferred=(b'password',))

    assert isinstance(login.run(), PermissionDenied)
    assert methods_tried(login) == [b'none', b'password']


# --- banners and names


def test_banner_reaches_the_user_without_control_characters():
    login = Login(ClientHost(), ServerHost(begin=False))
    login.server.send_banner('Hello\x1b[2J\x9b\x07\r\n\tfriend\x7f\n', 'en')

    assert login.run() is True
    assert login.client_host.events == [('banner', 'Hello[2J\r\n\tfriend\n', 'en')]

    with pytest.raises(ValueError, match='once authentication is complete'):
        login.server.send_banner('late')


def test_long_user_names():
    assert Login(ClientHost(), ServerHost(begin=False), username='é' * 512).run() is True

    with pytest.raises(IllegalUserName):
        Login(ClientHost(), ServerHost(begin=False), username='é' * 512 + 'x')


def test_signature_covers_the_session():
    login = Login(ClientHost(keys=[pair(KEY_A)]), ServerHost(keys=[KEY_A]), sign_at_once=True)
    login.client.session_id = SESSION_ID[::-1]

    assert isinstance(login.run(), PermissionDenied)
    assert login.server.accepted_keys == ()
