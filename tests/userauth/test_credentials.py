"""Certificates and the word of hosts in the login: what is named in a request, what is signed, and who is asked."""

import itertools

import pytest

from ssh_fast.errors import PermissionDenied, ProtocolError
from ssh_fast.keys.certificate_names import certificate_algorithm
from ssh_fast.keys.key import generate_private_key
from ssh_fast.keys.keypair import SSHLocalKeyPair
from ssh_fast.userauth import messages
from ssh_fast.wire import Cursor, encode_boolean, encode_string

from .login import ECDSA_KEY, KEY_A, KEY_B, RSA_KEY, SESSION_ID, ClientHost, Login, ServerHost, make_server, receive

CA = generate_private_key('ssh-ed25519')


def certified(key, principals=('user',)):
    return SSHLocalKeyPair(key).with_certificate(CA.generate_user_certificate(key, 'id', principals=list(principals)))


def fields_of(payload):
    """Take apart a publickey request: signed, algorithm, key, signature."""
    cursor = Cursor(payload)
    cursor.byte()
    assert [cursor.string() for _ in range(3)][2] == b'publickey'
    signed = cursor.boolean()

    return signed, cursor.string(), cursor.string(), cursor.string() if signed else None


@pytest.mark.parametrize('key', [KEY_A, ECDSA_KEY, RSA_KEY], ids=lambda key: key.get_algorithm())
@pytest.mark.parametrize('peer_sig_algs', [None, (b'ssh-ed25519', b'rsa-sha2-256', b'ecdsa-sha2-nistp256')])
def test_certificates_log_in(key, peer_sig_algs):
    """The request names the certificate's algorithm, the signature the key's own, chosen by server-sig-algs."""
    pair = certified(key)
    login = Login(ClientHost(keys=[pair]), ServerHost(authorities=[CA]), peer_sig_algs=peer_sig_algs)
    login.run()
    assert login.client_host.result is True
    requests = [fields_of(payload) for payload in login.to_server if b'publickey' in payload[:60]]
    assert {request[2] for request in requests} == {pair.public_data}
    signature = Cursor(requests[-1][3]).string()
    expected = b'rsa-sha2-256' if key is RSA_KEY and peer_sig_algs else key.sig_algorithms[0]
    assert signature == expected and requests[-1][1] == certificate_algorithm(expected)
    assert [k.public_data for k in login.server.accepted_keys] == [key.public_data]
    assert [c.public_data for c in login.server.accepted_credentials] == [pair.public_data]
    assert ('certificate', 'user', 'id') in login.server_host.events


def test_the_plain_key_follows_its_certificate():
    """As key files give them: where the authority is not known, the key may be."""
    login = Login(ClientHost(keys=[certified(KEY_A), SSHLocalKeyPair(KEY_A)]), ServerHost(keys=[KEY_A]))
    login.run()
    assert login.client_host.result is True
    assert login.server.accepted_credentials[0].public_data == KEY_A.public_data


def test_two_keys_are_two_keys():
    """A certificate and its own key are one, for a sequence that wants two."""
    pairs = [certified(KEY_A), SSHLocalKeyPair(KEY_A), certified(KEY_A, ('user', 'x')), SSHLocalKeyPair(KEY_B)]
    host = ServerHost(keys=[KEY_A, KEY_B], authorities=[CA])
    login = Login(ClientHost(keys=pairs), host, sequences=((b'publickey', b'publickey'),))
    login.run()
    assert login.client_host.result is True
    assert [k.public_data for k in login.server.accepted_keys] == [KEY_A.public_data, KEY_B.public_data]


# --- the word of hosts


def host_request(key=KEY_A, host='client.example', user='user', signer=None, session_id=SESSION_ID):
    fields = [encode_string(field) for field in (key.sig_algorithms[0], key.public_data, host, user)]
    request = messages.encode_request('user', b'hostbased', b''.join(fields))
    signature = (signer or key).sign(encode_string(session_id) + request, key.sig_algorithms[0])

    return request + encode_string(signature)


def test_a_host_vouches():
    host = ServerHost(hosts=[KEY_B])
    client = ClientHost(host_keys=[(SSHLocalKeyPair(key), 'client.example.', 'local') for key in (KEY_A, KEY_B)])
    login = Login(client, host)
    login.run()
    assert login.client_host.result is True and client.host_keys == []
    assert host.events[-2:] == [('host', 'user', 'client.example.', 'local'), ('completed', 'user')]
    assert login.server.accepted_keys == () and login.server.completed_methods == (b'hostbased',)


def test_a_host_that_cannot_sign_is_passed_over():
    class Broken(SSHLocalKeyPair):
        def sign(self, data):
            raise OSError('no keys here')

    host = ServerHost(hosts=[KEY_B], keys=[])
    login = Login(ClientHost(host_keys=[(Broken(KEY_A), 'h', 'u')]), host)
    login.run()
    assert isinstance(login.client_host.result, PermissionDenied) and 'no keys here' in str(login.client_host.result)


@pytest.mark.parametrize('payload', [
    host_request(signer=KEY_B), host_request(session_id=bytes(32)),
    host_request().replace(b'client.example', b'cliant.example'),
    host_request().replace(b'\0\0\0\4user\0', b'\0\0\0\4root\0'),
], ids=range(4))  # fmt: skip
def test_signatures_of_hosts_that_prove_nothing(payload):
    host = ServerHost(hosts=[KEY_A])
    server = make_server(host)
    receive(server, payload)
    assert host.outgoing.pop()[0] == 51 and not [event for event in host.events if event[0] == 'host']


def test_a_signature_of_a_host_that_is_right():
    host = ServerHost(hosts=[KEY_A])
    receive(make_server(host), host_request())
    assert host.outgoing.pop() == messages.encode_success()


def test_cut_requests_of_hosts():
    """Every cut is malformed, wherever it is: the connection ends, and nobody is asked."""
    whole = host_request()
    for size in range(60, len(whole)):
        host = ServerHost(hosts=[KEY_A])
        with pytest.raises(ProtocolError):
            receive(make_server(host), whole[:size])
        assert not [event for event in host.events if event[0] == 'host']
    with pytest.raises(ProtocolError):
        receive(make_server(ServerHost(hosts=[KEY_A])), whole + b'\0')


def test_hosts_are_not_asked_for_their_word_unless_offered():
    host = ServerHost()
    receive(make_server(host), host_request())
    assert host.outgoing.pop() == messages.encode_failure([b'publickey', b'password'], False)
    assert [event[0] for event in host.events] == ['begin']


def test_any_credential_of_any_name():
    """Every name with every blob: only where both fit is anybody asked."""
    pairs = [certified(key) for key in (KEY_A, ECDSA_KEY, RSA_KEY)]
    blobs = [pair.public_data for pair in pairs] + [KEY_A.public_data, ECDSA_KEY.public_data, RSA_KEY.public_data]
    names = [b'ssh-ed25519', b'ecdsa-sha2-nistp256', b'rsa-sha2-256', b'ssh-rsa', b'rsa-sha2-512-cert-v01@openssh.com',
             b'ssh-rsa-cert-v01@openssh.com', b'ssh-ed25519-cert-v01@openssh.com', b'-cert-v01@openssh.com', b'']
    asked = 0
    for name, blob in itertools.product(names, blobs):
        host = ServerHost()
        fields = encode_boolean(False) + encode_string(name) + encode_string(blob)
        receive(make_server(host), messages.encode_request('user', b'publickey', fields))
        asked += len(host.events) - 1
    assert asked == 5, 'three plain keys, and certificates of Ed25519 and RSA'
