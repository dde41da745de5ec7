"""The options of trust, and how a client judges host keys and certificates."""

import re
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from ssh_fast.connection.client_trust import ClientTrust
from ssh_fast.connection.host_keys import HostKeyPolicy, order_algorithms
from ssh_fast.keys.certificate import DEFAULT_CA_SIGNATURES
from ssh_fast.keys.certificate_names import is_certificate_algorithm
from ssh_fast.keys.revocation import load_revoked_keys
from ssh_fast.logging import ContextLogger
from ssh_fast.transport.algorithms import available_algorithms

KEY, OTHER, CA = (ssh_fast.generate_private_key('ssh-ed25519') for _ in range(3))
HOST, ADDR = 'host.example', '10.0.0.1'


class Owner(ssh_fast.SSHClient):
    """Answers as it is told, and notes what it is asked."""

    def __init__(self, key: Any = False, authority: Any = False) -> None:
        self.key, self.authority, self.asked = key, authority, ''

    def validate_host_public_key(self, host: str, addr: str, port: int, key: ssh_fast.SSHKey) -> Any:
        assert (host, addr, port) == (HOST, ADDR, 22)
        self.asked += 'k'
        return self.key

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: ssh_fast.SSHKey) -> Any:
        assert (host, addr, port) == (HOST, ADDR, 22) and key.public_data == CA.public_data
        self.asked += 'a'
        return self.authority


def line(key: ssh_fast.SSHKey, marker: str = '', hosts: str = HOST) -> str:
    return f'{marker} {hosts} {key.export_public_key().decode()}'


def policy(text: str | None, **options: Any) -> HostKeyPolicy:
    known = None if text is None else ssh_fast.import_known_hosts(text)
    return HostKeyPolicy(known, HOST, ADDR, 22, **options)


def cert(**options: Any) -> bytes:
    made = CA.generate_host_certificate(KEY, 'host', **{'principals': [HOST], **options})
    return bytes(made.public_data)


AUTHORITY = line(CA, '@cert-authority', '*.example')


@pytest.mark.parametrize('known, shown, owner, outcome', [
    (AUTHORITY, cert(), Owner(), ''),
    (AUTHORITY, KEY.public_data, Owner(), 'not trusted'),
    (AUTHORITY, cert(principals=['*.example']), Owner(), ''),
    (AUTHORITY, cert(principals=[ADDR]), Owner(True, True), 'not made out'),
    (AUTHORITY, cert(valid_after=5, valid_before=6), Owner(True, True), 'expired'),
    (line(CA, '@cert-authority', 'other'), cert(), Owner(), 'not trusted'),
    (line(CA), cert(), Owner(), 'another key'),
    (line(KEY), cert(), Owner(), ''),
    (line(KEY), cert(principals=['other']), Owner(), ''),
    ('', cert(), Owner(authority=True), ''),
    ('', cert(), Owner(key=True), ''),
    ('', cert(principals=[]), Owner(authority=True), 'not made out'),
    ('', cert(), Owner('yes', 1), 'not trusted'),
    (AUTHORITY + line(CA, '@revoked', '*'), cert(), Owner(True, True), 'revoked'),
    (AUTHORITY + line(KEY, '@revoked', '*'), cert(), Owner(True, True), 'revoked'),
    (line(KEY) + line(KEY, '@revoked', '*'), KEY.public_data, Owner(True, True), 'revoked'),
    (None, cert(valid_after=5, valid_before=6), Owner(), ''),
    (None, cert()[:-1], Owner(True, True), 'not valid'),
    (None, b'', Owner(True, True), 'not valid'),
])  # fmt: skip
def test_judgements(known: str | None, shown: bytes, owner: Owner, outcome: str) -> None:
    if outcome:
        with pytest.raises(ssh_fast.HostKeyNotVerifiable, match=outcome):
            policy(known).verify(shown, owner)
        assert outcome != 'revoked' or owner.asked == '', 'what is revoked is no question'
    else:
        assert policy(known).verify(shown, owner).public_data == KEY.public_data


def test_lists_and_algorithms_of_authorities() -> None:
    for key in (KEY, CA):
        revoked = load_revoked_keys(key.export_public_key())
        for text in (AUTHORITY, None) if key is CA else (AUTHORITY, line(KEY), None):
            with pytest.raises(ssh_fast.HostKeyNotVerifiable, match='revoked'):
                policy(text, revoked_keys=revoked).verify(cert(), Owner(True, True))
    with pytest.raises(ssh_fast.HostKeyNotVerifiable, match='ssh-ed25519, which is not allowed'):
        policy(AUTHORITY, ca_signature_algs=(b'rsa-sha2-512',)).verify(cert(), Owner(True, True))


def test_what_is_offered_first() -> None:
    offered = available_algorithms('host_key')
    plain = [name for name in offered if not is_certificate_algorithm(name)]
    certificates = [name for name in offered if is_certificate_algorithm(name)]
    assert list(offered) == certificates + plain and len(certificates) == len(plain)

    def order(text: str | None, explicit: bool = False) -> list[bytes]:
        return list(order_algorithms(offered, policy(text).known_algorithms, explicit))

    assert order(AUTHORITY) == order('') == order(None) == order(line(KEY)) == list(offered)
    rsa = ssh_fast.generate_private_key('ssh-rsa', key_size=2048)
    assert order(line(rsa))[:2] == [b'rsa-sha2-512', b'rsa-sha2-256'] and sorted(order(line(rsa))) == sorted(offered)
    assert order(AUTHORITY + line(rsa))[: len(certificates) + 2] == [*certificates, b'rsa-sha2-512', b'rsa-sha2-256']
    assert order(line(rsa), True) == list(offered)


@pytest.mark.parametrize('text', [line(OTHER), AUTHORITY, line(OTHER, '@revoked')])
def test_new_hosts_are_those_of_whom_nothing_is_known(text: str) -> None:
    written: list[ssh_fast.SSHKey] = []
    with pytest.raises(ssh_fast.HostKeyNotVerifiable):
        policy(text, accept_new=written.append).verify(KEY.public_data, Owner())
    new = policy('', accept_new=written.append)
    assert new.verify(KEY.public_data, Owner()).public_data == KEY.public_data
    assert [key.public_data for key in written] == [KEY.public_data] and new.trusted == written
    assert policy('', accept_new=written.append).verify(KEY.public_data, Owner(True)) and len(written) == 1


# --- options


def server(**options: Any) -> ssh_fast.SSHServerConnectionOptions:
    return ssh_fast.SSHServerConnectionOptions(**options)


def client(**options: Any) -> ssh_fast.SSHClientConnectionOptions:
    return ssh_fast.SSHClientConnectionOptions(config=None, client_keys=None, **options)


def test_defaults() -> None:
    for made in (server(), client()):
        assert made.ca_signature_algs == DEFAULT_CA_SIGNATURES
    assert server().revoked_keys is server().authorized_principals is client().revoked_host_keys is None
    assert server().trusted_user_ca_keys == () and not server().trust_client_host and not server().rdns_lookup
    assert client().strict_host_key_checking == 'yes' and not client().update_host_keys


def test_lists_are_read_once(tmp_path: Path) -> None:
    revoked, principals, authorities = (tmp_path / name for name in ('revoked', 'principals', 'authorities'))
    revoked.write_bytes(KEY.export_public_key())
    principals.write_text('alice\n')
    authorities.write_bytes(CA.export_public_key() + OTHER.export_public_key())
    made = server(
        revoked_keys=str(revoked), authorized_principals=[principals], trusted_user_ca_keys=authorities,
        ca_signature_algs='-rsa-sha2-256',
    )
    for path in (revoked, principals, authorities):
        path.unlink()
    assert made.revoked_keys.revokes(KEY) and made.authorized_principals.validate(['alice'], '', '') == {}
    assert [key.public_data for key in made.trusted_user_ca_keys] == [CA.public_data, OTHER.public_data]
    assert made.ca_signature_algs == tuple(name for name in DEFAULT_CA_SIGNATURES if name != b'rsa-sha2-256')
    assert server(revoked_keys=made.revoked_keys).revoked_keys is made.revoked_keys
    assert server(ca_signature_algs=['rsa-sha2-512']).ca_signature_algs == (b'rsa-sha2-512',)
    assert client(revoked_host_keys=KEY.export_public_key()).revoked_host_keys.revokes(KEY)
    assert callable(server(authorized_principals=lambda username: None).authorized_principals)


@pytest.mark.parametrize('make, option, value', [
    (server, 'revoked_keys', 5), (server, 'revoked_keys', [b'x']), (server, 'revoked_keys', lambda: None),
    (server, 'authorized_principals', 5), (server, 'authorized_principals', b'alice'),
    (server, 'trusted_user_ca_keys', 5), (server, 'ca_signature_algs', ['what']), (server, 'ca_signature_algs', ''),
    (server, 'trust_client_host', 'yes'), (client, 'revoked_host_keys', True),
    (client, 'strict_host_key_checking', 'no'), (client, 'strict_host_key_checking', False),
    (client, 'update_host_keys', 'ask'), (client, 'client_host', 'a b'),
])  # fmt: skip
def test_bad_values_name_the_option(make: Any, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        make(**{option: value})


def test_bad_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / 'file'
    path.write_text('what\n')
    for make, option in ((server, 'revoked_keys'), (client, 'revoked_host_keys'), (server, 'trusted_user_ca_keys')):
        with pytest.raises(ssh_fast.KeyImportError, match=re.escape(str(path))):
            make(**{option: str(path)})
        with pytest.raises(FileNotFoundError):
            make(**{option: str(tmp_path / 'missing')})
    with pytest.raises(ssh_fast.KeyImportError, match=re.escape(str(path))):
        server(server_host_keys=[KEY], server_host_certs=[str(path)])


# --- the hosts of clients


class HostJudge(ssh_fast.SSHServer):
    def __init__(self, key: Any = False, authority: Any = False) -> None:
        self.key, self.authority = key, authority

    def host_based_auth_supported(self) -> bool:
        return True

    def validate_host_public_key(self, host: str, addr: str, port: int, key: ssh_fast.SSHKey) -> Any:
        assert (host, addr, port) == (HOST, ADDR, 4000)
        return self.key

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: ssh_fast.SSHKey) -> Any:
        assert (host, addr, port) == (HOST, ADDR, 4000) and key.public_data == CA.public_data
        return self.authority


@pytest.mark.parametrize('known, shown, owner, revoked, trusted', [
    (line(KEY), None, HostJudge(), None, True),
    (line(KEY, hosts='other'), None, HostJudge(), None, False),
    (None, None, HostJudge(), None, False),
    (None, None, HostJudge(True), None, True),
    (None, None, HostJudge('yes'), None, False),
    (line(KEY) + line(KEY, '@revoked', '*'), None, HostJudge(True, True), None, False),
    (line(KEY), None, HostJudge(True, True), KEY, False),
    (AUTHORITY, {}, HostJudge(), None, True),
    (AUTHORITY, None, HostJudge(False, True), None, False),
    (None, {}, HostJudge(True), None, False),
    (None, {}, HostJudge(authority=True), None, True),
    (None, {}, HostJudge(authority=1), None, False),
    (line(KEY), {}, HostJudge(True), None, False),
    (AUTHORITY, {'principals': ['other']}, HostJudge(True, True), None, False),
    (AUTHORITY, {'principals': []}, HostJudge(True, True), None, False),
    (AUTHORITY, {'valid_after': 5, 'valid_before': 6}, HostJudge(True, True), None, False),
    (AUTHORITY + line(CA, '@revoked', '*'), {}, HostJudge(True, True), None, False),
    (AUTHORITY + line(KEY, '@revoked', '*'), {}, HostJudge(True, True), None, False),
    (AUTHORITY, {}, HostJudge(True, True), CA, False),
])  # fmt: skip
def test_hosts_that_vouch(known: str | None, shown: Any, owner: HostJudge, revoked: Any, trusted: bool) -> None:
    options = server(
        known_client_hosts=None if known is None else known.encode(),
        revoked_keys=None if revoked is None else revoked.export_public_key(),
    )
    credential: Any = KEY.convert_to_public()
    if shown is not None:
        credential = ssh_fast.import_certificate(
            CA.generate_host_certificate(KEY, 'h', **{'principals': [HOST], **shown}).export_certificate()
        )
    judge = ClientTrust(owner, options, ContextLogger('test'))
    assert judge.trusts_host(credential, HOST, ADDR, 4000) is trusted


def test_a_users_certificate_is_no_hosts_and_the_other_way_round() -> None:
    judge = ClientTrust(HostJudge(True, True), server(trusted_user_ca_keys=[CA]), ContextLogger('test'))
    user = CA.generate_user_certificate(KEY, 'u', principals=[HOST])
    host = CA.generate_host_certificate(KEY, 'h', principals=[HOST])
    assert not judge.trusts_host(user, HOST, ADDR, 4000) and judge.trusts_host(host, HOST, ADDR, 4000)
    assert judge.judge_certificate(HOST, user, None, '', ADDR) is not None
    assert judge.judge_certificate(HOST, host, None, '', ADDR) is None


def test_a_callable_of_principals_is_asked_by_name() -> None:
    asked: list[str] = []

    def principals(username: str) -> Any:
        asked.append(username)
        return {'deploy': ssh_fast.SSHAuthorizedPrincipals('alice'), 'wrong': 'alice'}.get(username)

    options = server(trusted_user_ca_keys=[CA], authorized_principals=principals)
    judge = ClientTrust(ssh_fast.SSHServer(), options, ContextLogger('test'))
    user = CA.generate_user_certificate(KEY, 'u', principals=['alice'])
    assert judge.judge_certificate('deploy', user, None, '', ADDR) is not None
    assert judge.judge_certificate('alice', user, None, '', ADDR) is None, 'no file for her: nobody is named'
    assert judge.judge_certificate('bob', user, None, '', ADDR) is None
    assert asked == ['deploy', 'alice', 'bob']
    with pytest.raises(TypeError, match='authorized_principals'):
        judge.judge_certificate('wrong', user, None, '', ADDR)
