"""Attacks on certificates, revocation, security keys and vouching hosts, against live connections in both roles."""

import hashlib
import random
from typing import Any

import pytest

import ssh_fast
from ssh_fast.keys.certificate import NEVER
from ssh_fast.keys.key import decode_public_key
from ssh_fast.wire import encode_uint64
from tests.security.peer import (
    HOST_KEY,
    LOOPBACK,
    USER,
    Gone,
    Peer,
    Server,
    client_options,
    serving,
    string,
    uint32,
)

CA, OTHER_CA, KEY, HOST_CA = (ssh_fast.generate_private_key('ssh-ed25519') for _ in range(4))
NAME = USER.decode() if isinstance(USER, bytes) else USER


def authorized(options: str = 'cert-authority', key: ssh_fast.SSHKey = CA) -> Any:
    return ssh_fast.import_authorized_keys(f'{options} {key.export_public_key().decode()}')


def issued(key: ssh_fast.SSHKey = KEY, authority: ssh_fast.SSHKey = CA, **options: Any) -> Any:
    return authority.generate_user_certificate(key, 'id', **{'principals': [NAME], **options})


def request(
    peer: Peer, blob: bytes, signer: ssh_fast.SSHKey | None, algorithm: bytes = b'ssh-ed25519-cert-v01@openssh.com'
) -> bytes:
    """A query for a certificate, or a request that `signer` has signed."""
    fields = bytes([signer is not None]) + string(algorithm) + string(blob)
    asked = peer.request(b'publickey', fields)
    return asked if signer is None else asked + string(signer.sign(string(peer.session_id) + asked, b'ssh-ed25519'))


async def answer(
    blob: bytes,
    *,
    signer: ssh_fast.SSHKey = KEY,
    algorithm: bytes = b'ssh-ed25519-cert-v01@openssh.com',
    **options: Any,
) -> int:
    """Log in with a certificate; return the number of the server's answer."""
    async with serving(**{'authorized_client_keys': authorized(), **options}) as server:
        async with await Peer.connect(server.port) as peer:
            await peer.start_auth()
            peer.send(request(peer, blob, signer, algorithm))
            return (await peer.expect(51, 52))[0]


# --- who is meant


@pytest.mark.parametrize('principals', [
    [], [f'x,{NAME}'], [f'{NAME},x'], [f'{NAME} '], [NAME.upper()], ['*'], [f'{NAME}*'], ['root'],
], ids=str)  # fmt: skip
async def test_cve_2026_35414_principals_are_compared_whole(principals: list[str]) -> None:
    """A name that holds a comma is one name, no principals are nobody (CVE-2024-7594), and users have no wildcards."""
    data = b''.join(string(name) for name in principals)
    cert = handmade(principals=data)
    assert await answer(handmade(principals=string(NAME))) == 52
    assert await answer(cert) == 51
    line = authorized(f'cert-authority,principals="{NAME}"')
    assert await answer(cert, authorized_client_keys=line) == 51


def handmade(
    *, key: bytes = KEY.encode_ssh_public(), kind: int = 1, principals: bytes = b'', critical: bytes = b'',
    authority: bytes = CA.public_data, signer: ssh_fast.SSHKey = CA,
) -> bytes:
    data = b''.join((
        string(b'ssh-ed25519-cert-v01@openssh.com'), string(b'n'), key, encode_uint64(1), uint32(kind), string(b'id'),
        string(principals), encode_uint64(0), encode_uint64(NEVER), string(critical), string(b''), string(b''),
        string(authority),
    ))
    return data + string(signer.sign(data, b'ssh-ed25519'))


async def test_cve_2024_45337_a_certificate_counts_only_for_its_key() -> None:
    """Asked about with one certificate, signed with another key or another certificate: who signs is who is judged."""
    mine, forced = issued(), issued(HOST_KEY, force_command='forced')
    async with serving(authorized_client_keys=authorized()) as server:
        async with await Peer.connect(server.port) as peer:
            await peer.start_auth()
            peer.send(request(peer, mine.public_data, None))
            await peer.expect(60)
            peer.send(request(peer, mine.public_data, HOST_KEY))
            await peer.expect(51)
            peer.send(request(peer, forced.public_data, HOST_KEY))
            await peer.expect(52)
            assert server.made[0].conn.permissions.command == 'forced'


async def test_cve_2026_35387_certificates_are_matched_by_their_whole_name() -> None:
    """A certificate as a plain key, a plain key as a certificate, and another type's name."""
    cert = issued()
    for blob, algorithm in (
        (cert.public_data, b'ssh-ed25519'), (KEY.public_data, b'ssh-ed25519-cert-v01@openssh.com'),
        (cert.public_data, b'ecdsa-sha2-nistp256-cert-v01@openssh.com'),
        (cert.public_data, b'ssh-ed25519-cert-v00@openssh.com'),
    ):
        assert await answer(blob, algorithm=algorithm) == 51
    # The key that a line admits as an authority does not log in itself, nor does a key's line admit what it signed.
    assert await answer(CA.public_data, signer=CA, algorithm=b'ssh-ed25519') == 51
    assert await answer(cert.public_data, authorized_client_keys=authorized('', CA)) == 51
    assert await answer(cert.public_data, authorized_client_keys=authorized('', KEY)) == 51
    assert await answer(cert.public_data, signature_algs=['rsa-sha2-512']) == 51
    assert await answer(cert.public_data, ca_signature_algs=['rsa-sha2-512']) == 51


# --- who signs


async def test_cve_2026_42508_a_revoked_authority_vouches_for_nobody() -> None:
    cert = issued()
    revoked = CA.export_public_key()
    assert await answer(cert.public_data, revoked_keys=revoked) == 51
    assert await answer(cert.public_data, revoked_keys=OTHER_CA.export_public_key()) == 52
    host_cert = HOST_CA.generate_host_certificate(HOST_KEY, 'host', principals=[LOOPBACK])
    line = HOST_CA.export_public_key().decode()
    async with serving(server_host_keys=[(HOST_KEY, host_cert)]) as server:
        known = f'@cert-authority * {line}'
        async with ssh_fast.connect(LOOPBACK, server.port, **client_options(known_hosts=known.encode())):
            pass
        for options in ({'known_hosts': f'{known}\n@revoked * {line}'.encode()},
                        {'known_hosts': known.encode(), 'revoked_host_keys': line.encode()}):
            with pytest.raises(ssh_fast.HostKeyNotVerifiable, match='revoked'):
                await ssh_fast.connect(LOOPBACK, server.port, **client_options(**options))


async def test_cve_2026_42508_certificates_in_certificates() -> None:
    """An authority's key that is a certificate is refused before it is looked into, 100 of them deep."""
    blob = handmade(principals=string(NAME))
    for _ in range(100):
        blob = handmade(principals=string(NAME), authority=blob)
    assert await answer(blob) == 51
    assert await answer(handmade(principals=string(NAME), authority=issued(CA, OTHER_CA).public_data)) == 51
    chain = authorized('cert-authority', OTHER_CA)
    assert await answer(issued().public_data, authorized_client_keys=chain) == 51


async def test_cve_2020_9283_certificates_that_are_none_fail_their_attempt_only() -> None:
    """Whatever is sent as a certificate, the server's answer is a failure, and the next attempt is judged."""
    generator = random.Random(9)
    good = issued().public_data
    bad = [handmade(key=string(b'k' * size)) for size in (0, 31, 33)]
    bad += [handmade(kind=kind, principals=string(NAME)) for kind in (0, 2, 3)]
    bad += [handmade(principals=string(NAME), critical=string('what') + string(b''))]
    bad += [handmade(principals=string(NAME), signer=OTHER_CA), b'', good[:40], good + b'\0', string(good)]
    for _ in range(40):
        at = generator.randrange(len(good))
        bad.append(good[:at] + generator.randbytes(generator.randrange(1, 9)) + good[at + 4 :])
    async with serving(authorized_client_keys=authorized(), max_auth_tries=1000) as server:
        async with await Peer.connect(server.port) as peer:
            await peer.start_auth()
            for blob in bad:
                peer.send(request(peer, blob, KEY))
                await peer.expect(51)
            peer.send(request(peer, good, KEY))
            await peer.expect(52)


# --- what a certificate restricts


async def test_cve_2024_45337_restrictions_of_a_certificate_hold_in_every_combination() -> None:
    """source-address and force-command: for lines, authorities, the application's word, and a second factor."""
    elsewhere, forced = issued(source_address=['10.0.0.0/8']), issued(force_command='forced', permit_pty=False)

    class Trusting(Server):
        def public_key_auth_supported(self) -> bool:
            return True

        def validate_ca_key(self, username: str, key: ssh_fast.SSHKey) -> bool:
            return True

    ways: list[dict[str, Any]] = [
        {}, {'authorized_client_keys': None, 'trusted_user_ca_keys': [CA]},
        {'authorized_client_keys': None, 'base': Trusting}, {'auth_methods': ['publickey,password']},
    ]
    for way in ways:
        assert await answer(elsewhere.public_data, **way) == 51
        options = {'authorized_client_keys': authorized(), **way}
        async with serving(**options) as server:
            async with await Peer.connect(server.port) as peer:
                await peer.start_auth()
                peer.send(request(peer, forced.public_data, KEY))
                if 'auth_methods' in way:
                    assert (await peer.expect(51))[-1] == 1
                    peer.send(peer.password())
                await peer.expect(52)
                permissions = server.made[0].conn.permissions
                assert permissions.command == 'forced' and not permissions.pty


async def test_a_command_of_the_line_and_another_of_the_certificate() -> None:
    """Neither is obeyed at the other's cost: the login fails."""
    cert = issued(force_command='a')
    assert await answer(cert.public_data, authorized_client_keys=authorized('cert-authority,command="b"')) == 51
    assert await answer(cert.public_data, authorized_client_keys=authorized('cert-authority,command="a"')) == 52


# --- security keys


class Device:
    """A security key in plain Python, whose flags are whatever the attacker likes."""

    def __init__(self) -> None:
        self._key = ssh_fast.generate_private_key('ssh-ed25519')
        self.algorithm = b'sk-ssh-ed25519@openssh.com'
        self.application = b'ssh:'
        self.public_data = string(self.algorithm) + self._key.encode_ssh_public() + string(self.application)

    def sign(self, data: bytes, flags: int, application: bytes = b'ssh:') -> bytes:
        rest = bytes([flags]) + uint32(7)
        signed = hashlib.sha256(application).digest() + rest + hashlib.sha256(data).digest()
        return string(self.algorithm) + string(self._key.sign(signed, b'ssh-ed25519')[19:]) + rest


SK_CASES = [
    ('', 1, True), ('', 0, False), ('', 4, False), ('no-touch-required', 0, True), ('verify-required', 1, False),
    ('verify-required', 5, True), ('no-touch-required,verify-required', 4, True), ('no-touch-required', 0x40, False),
]


@pytest.mark.parametrize('options, flags, accepted', SK_CASES)
async def test_cve_2026_39831_a_security_key_must_have_been_touched(options: str, flags: int, accepted: bool) -> None:
    device = Device()
    lines = ssh_fast.import_authorized_keys(
        f'{options} {decode_public_key(device.public_data).export_public_key().decode()}'
    )
    async with serving(authorized_client_keys=lines) as server:
        async with await Peer.connect(server.port) as peer:
            await peer.start_auth()
            fields = b'\1' + string(device.algorithm) + string(device.public_data)
            asked = peer.request(b'publickey', fields)
            signed = string(peer.session_id) + asked
            peer.send(asked + string(device.sign(signed, flags, b'ssh:other')))
            await peer.expect(51)
            peer.send(asked + string(device.sign(signed, flags)))
            assert (await peer.expect(51, 52))[0] == (52 if accepted else 51)


@pytest.mark.parametrize('line, cert, accepted', [
    ('cert-authority', {}, False), ('cert-authority,no-touch-required', {}, False),
    ('cert-authority', {'touch_required': False}, False),
    ('cert-authority,no-touch-required', {'touch_required': False}, True),
])
async def test_cve_2026_39831_certificates_of_security_keys(line: str, cert: Any, accepted: bool) -> None:
    """Without a touch only if the authority's line and the certificate both say that none is needed."""
    device = Device()
    blob = issued(decode_public_key(device.public_data), **cert).public_data
    async with serving(authorized_client_keys=authorized(line)) as server:
        async with await Peer.connect(server.port) as peer:
            await peer.start_auth()
            fields = b'\1' + string(b'sk-ssh-ed25519-cert-v01@openssh.com') + string(blob)
            asked = peer.request(b'publickey', fields)
            peer.send(asked + string(device.sign(string(peer.session_id) + asked, 0)))
            assert (await peer.expect(51, 52))[0] == (52 if accepted else 51)


# --- hosts


async def test_a_host_that_is_not_known_vouches_for_nobody() -> None:
    """A host's key proves the host, not the user: by the user's method it opens nothing, and the other way round."""
    known = f'client.example {HOST_CA.export_public_key().decode()}'.encode()
    options = {'known_client_hosts': known, 'trust_client_host': True, 'authorized_client_keys': authorized('', KEY)}

    def vouched(peer: Peer, key: ssh_fast.SSHKey, host: str, user: str = NAME, signed_host: str = '') -> bytes:
        head = string(b'ssh-ed25519') + string(key.public_data)
        asked = peer.request(b'hostbased', head + string(host) + string(user))
        meant = peer.request(b'hostbased', head + string(signed_host or host) + string(user))
        return asked + string(key.sign(string(peer.session_id) + meant, b'ssh-ed25519'))

    async with serving(**options, max_auth_tries=1000) as server:
        async with await Peer.connect(server.port) as peer:
            await peer.start_auth()
            for key, host, user, signed_host in (
                (KEY, 'client.example', NAME, ''), (HOST_CA, 'other.example', NAME, ''),
                (HOST_CA, 'client.example', 'root', ''), (HOST_CA, 'client.example', NAME, 'other.example'),
                (HOST_CA, '', NAME, ''), (HOST_CA, '*', NAME, ''), (HOST_CA, 'client.example,x', NAME, ''),
                (HOST_CA, '\0client.example', NAME, ''),
            ):
                peer.send(vouched(peer, key, host, user, signed_host))
                await peer.expect(51)
            peer.send(request(peer, HOST_CA.public_data, HOST_CA, b'ssh-ed25519'))
            await peer.expect(51)
            peer.send(vouched(peer, HOST_CA, 'CLIENT.example.'))
            await peer.expect(52)
            assert server.made[0].conn.permissions.pty


@pytest.mark.parametrize(
    ('known', 'host', 'accepted'),
    [
        ('127.0.0.1', 'client.example', False),
        ('127.0.0.0/8', 'client.example', False),
        ('!127.0.0.1,*.example', 'client.example', False),
        ('127.0.0.1,client.example', 'client.example', True),
    ],
)
async def test_the_key_of_an_address_does_not_prove_a_name(known: str, host: str, accepted: bool) -> None:
    """A host whose name is taken from its request must hold the key of that name, whatever its address has."""
    hosts = f'{known} {HOST_CA.export_public_key().decode()}'.encode()
    async with serving(known_client_hosts=hosts, trust_client_host=True) as server:
        async with await Peer.connect(server.port) as peer:
            await peer.start_auth()
            head = string(b'ssh-ed25519') + string(HOST_CA.public_data)
            asked = peer.request(b'hostbased', head + string(host) + string(NAME))
            peer.send(asked + string(HOST_CA.sign(string(peer.session_id) + asked, b'ssh-ed25519')))
            assert (await peer.expect(51, 52))[0] == (52 if accepted else 51)


@pytest.mark.parametrize('name', ['hostkeys-00@openssh.com', 'hostkeys-prove-00@openssh.com'])
async def test_host_key_requests_prove_nothing_for_others(name: str) -> None:
    """A server signs for its own host keys only, and takes no list of keys."""
    async with serving() as server:
        async with await Peer.connect(server.port) as peer:
            await peer.login()
            for keys in (b'', string(KEY.public_data), string(HOST_KEY.public_data) + string(b''), string(b'x')):
                peer.send(b'\x50' + string(name) + b'\1' + keys)
                await peer.expect(82)
            peer.send(b'\x50' + string(name) + b'\1' + string(HOST_KEY.public_data))
            if name.startswith('hostkeys-prove'):
                reply = await peer.expect(81)
                signed = string(name) + string(peer.session_id) + string(HOST_KEY.public_data)
                assert HOST_KEY.verify(signed, reply[5:])
            else:
                await peer.expect(82)
            peer.send(b'\x50' + string('hostkeys-prove-00@openssh.com') + b'\1' + b'\0\0\0\xffx')
            with pytest.raises(Gone):
                await peer.expect(81, 82)
