"""Which methods may come next, and when it is enough."""

import pytest

from ssh_fast.userauth.server_policy import AuthPolicy, parse_sequences

KEY, KBDINT, PASSWORD = b'publickey', b'keyboard-interactive', b'password'
ALL = (KEY, KBDINT, PASSWORD)


def test_any_single_method_is_enough_without_sequences():
    policy = AuthPolicy()

    assert policy.can_continue((), (PASSWORD, KEY)) == [KEY, PASSWORD]
    assert not policy.is_satisfied(())
    assert policy.is_satisfied((PASSWORD,))


def test_sequences():
    policy = AuthPolicy(((KEY, PASSWORD), (KEY, KBDINT), (PASSWORD, KBDINT, KEY)))

    assert policy.can_continue((), ALL) == [KEY, PASSWORD]
    assert policy.can_continue((KEY,), ALL) == [KBDINT, PASSWORD]
    assert policy.can_continue((PASSWORD,), ALL) == [KBDINT]
    assert policy.can_continue((KBDINT,), ALL) == []
    assert policy.can_continue((), (KEY, PASSWORD)) == [KEY]
    assert not policy.is_satisfied((KEY,))
    assert not policy.is_satisfied((PASSWORD, KEY))
    assert policy.is_satisfied((KEY, KBDINT))


def test_parse():
    assert parse_sequences(['publickey,password', ['keyboard-interactive'], ('password', 'publickey')]) == (
        (KEY, PASSWORD), (KBDINT,), (PASSWORD, KEY),
    )  # fmt: skip

    with pytest.raises(ValueError, match='list of method sequences'):
        parse_sequences('publickey,password')


@pytest.mark.parametrize('sequences', [((),), ((b'external-keyx',),), ((b'none',),), ((KEY, b''),)])
def test_bad_sequences(sequences):
    with pytest.raises(ValueError, match='method'):
        AuthPolicy(sequences)


def test_bad_limit():
    with pytest.raises(ValueError, match='at least one'):
        AuthPolicy(max_failures=0)
