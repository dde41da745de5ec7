"""X.509 certificates: written and read by the openssl command, and every reason for which a path is refused."""

import datetime
import itertools
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

import ssh_fast
from ssh_fast.errors import KeyExportError, KeyGenerationError, KeyImportError
from ssh_fast.keys.authorized_keys import SSHAuthorizedKeys
from ssh_fast.keys.known_hosts import import_known_hosts
from ssh_fast.keys.load import load_keypairs
from ssh_fast.keys.x509 import MAX_CHAIN_LENGTH, SSHX509Certificate, SSHX509CertificateChain, decode_shown_certificate
from ssh_fast.keys.x509_names import X509NamePattern, parse_name
from ssh_fast.keys.x509_path import find_path, purpose_ids
from ssh_fast.wire import encode_string, encode_uint32

CLIENT = purpose_ids('secureShellClient')
KEYS = {
    name: ssh_fast.generate_private_key(name, **({'key_size': 2048} if name == 'ssh-rsa' else {}))
    for name in (
        'ssh-ed25519',
        'ssh-ed448',
        'ecdsa-sha2-nistp256',
        'ecdsa-sha2-nistp384',
        'ecdsa-sha2-nistp521',
        'ssh-rsa',
    )
}
ROOT_KEY = KEYS['ecdsa-sha2-nistp384']
MID_KEY = KEYS['ecdsa-sha2-nistp521']
USER_KEY = KEYS['ssh-ed25519']
ROOT = ROOT_KEY.generate_x509_ca_certificate(ROOT_KEY, 'O=Example,CN=Root')
MID = ROOT_KEY.generate_x509_ca_certificate(MID_KEY, 'CN=Mid', issuer='O=Example,CN=Root', ca_path_len=0)
USER = MID_KEY.generate_x509_user_certificate(
    USER_KEY, 'O=Example,CN=User', issuer='CN=Mid', principals=['alice', 'bob']
)
HOST = MID_KEY.generate_x509_host_certificate(
    USER_KEY, 'CN=Host', issuer='CN=Mid', principals='h.example.com,*.a.org,10.0.0.1'
)


def openssl(*args, **kwargs):
    return subprocess.run(['openssl', *args], capture_output=True, check=False, timeout=20, **kwargs)


# --- reading and writing


@pytest.mark.parametrize('name', KEYS)
def test_openssl_verifies_what_is_issued(name, tmp_path):
    key = KEYS[name]
    root = key.generate_x509_ca_certificate(key, 'CN=R', ca_path_len=1)
    user = key.generate_x509_user_certificate(USER_KEY, 'CN=U', issuer='CN=R', principals='alice')
    root.write_certificate(tmp_path / 'root', 'pem')
    user.write_certificate(tmp_path / 'user', 'pem')

    done = openssl('verify', '-x509_strict', '-CAfile', str(tmp_path / 'root'), str(tmp_path / 'user'))
    assert done.returncode == 0, done.stderr
    text = openssl('x509', '-noout', '-text', '-in', str(tmp_path / 'user')).stdout.decode()
    assert 'email:alice' in text
    assert 'CA:FALSE' in text
    assert '1.3.6.1.5.5.7.3.21' in text or 'SSH Client' in text
    assert find_path([user], [root], CLIENT) == [user, root]


@pytest.mark.parametrize('kind', ['ED25519', 'ED448', 'EC', 'RSA'])
def test_certificates_that_openssl_made(kind, tmp_path):
    option = {'EC': ['-pkeyopt', 'ec_paramgen_curve:P-256'], 'RSA': ['-pkeyopt', 'rsa_keygen_bits:2048']}.get(kind, [])
    (tmp_path / 'key').write_bytes(openssl('genpkey', '-algorithm', kind, *option).stdout)
    done = openssl(
        'req',
        '-x509',
        '-new',
        '-key',
        str(tmp_path / 'key'),
        '-out',
        str(tmp_path / 'cert'),
        '-days',
        '2',
        '-subj',
        '/O=Example/CN=alice',
    )
    assert done.returncode == 0, done.stderr
    cert = ssh_fast.read_certificate(tmp_path / 'cert')
    (tmp_path / 'key').chmod(0o600)

    assert isinstance(cert, SSHX509Certificate)
    assert cert.subject == parse_name('O=Example,CN=alice')
    assert cert.user_principals == ['alice']
    # Trusted by itself
    assert find_path([cert], [cert], CLIENT) == [cert]
    [shown, plain] = load_keypairs([(str(tmp_path / 'key'), str(tmp_path / 'cert'))])
    assert shown.has_x509_chain and not plain.has_x509_chain
    assert decode_shown_certificate(shown.public_data).certs == (cert,)


def test_formats(tmp_path):
    for format_name in ('der', 'pem', 'openssh'):
        data = USER.export_certificate(format_name)
        assert ssh_fast.import_certificate(data) == USER
        (tmp_path / format_name).write_bytes(data)
        assert list(ssh_fast.load_certificates(str(tmp_path / format_name))) == [USER]

    with pytest.raises(KeyExportError, match='rfc4716'):
        USER.export_certificate('rfc4716')

    bundle = b'Subject: CN=Mid\n' + MID.export_certificate('pem') + b'\n# root\n' + ROOT.export_certificate('pem')
    assert ssh_fast.load_certificates(bundle) == [MID, ROOT]

    with pytest.raises(KeyImportError, match='END CERTIFICATE'):
        ssh_fast.import_certificate(MID.export_certificate('pem')[:200])

    with pytest.raises(KeyImportError, match='named before it'):
        ssh_fast.import_certificate(USER.export_certificate().replace(b'x509v3-ssh-ed25519', b'x509v3-ssh-rsa'))


def test_names_and_times():
    cert = ROOT_KEY.generate_x509_user_certificate(
        USER_KEY,
        r'O=a\, b,CN=x',
        serial=7,
        valid_after='20200101Z',
        valid_before='20300101Z',
        purposes=None,
        comment='c',
    )
    assert cert.x509_cert.serial_number == 7
    assert cert.subject.rfc4514_string() == r'CN=x,O=a\, b'
    assert cert.issuer == cert.subject
    assert cert.x509_cert.not_valid_before_utc == datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    assert cert.get_comment() == 'c'
    assert USER.x509_cert.not_valid_after_utc.year == 9999

    for wrong in ('', 'CN', 'XX=1', 'CN=', 'CN=a\\'):
        with pytest.raises(ValueError):
            ROOT_KEY.generate_x509_user_certificate(USER_KEY, wrong)

    with pytest.raises(KeyGenerationError, match='sha256'):
        ROOT_KEY.generate_x509_user_certificate(USER_KEY, 'CN=x', hash_alg='sha1')

    with pytest.raises(KeyGenerationError, match='private'):
        ROOT_KEY.convert_to_public().generate_x509_user_certificate(USER_KEY, 'CN=x')

    with pytest.raises(ValueError, match='purposes'):
        ROOT_KEY.generate_x509_user_certificate(USER_KEY, 'CN=x', purposes='nonsense')


def test_patterns_of_names():
    name = parse_name('O=Example,CN=User')
    assert X509NamePattern('O=Example,CN=User').matches(name)
    assert X509NamePattern('O=Example,*').matches(name)
    assert X509NamePattern('*').matches(name)
    for other in ('O=Example', 'CN=User,O=Example', 'O=Exam,*', 'CN=User,*', 'O=Example,CN=User,OU=x'):
        assert not X509NamePattern(other).matches(name)


def test_who_a_certificate_is_for():
    assert USER.user_principals == ['alice', 'bob']
    assert HOST.user_principals == []

    for name in ('h.example.com', 'H.Example.com.', 'x.a.org', '10.0.0.1'):
        assert HOST.names_host(name)

    for name in ('example.com', 'x.h.example.com', 'x.y.a.org', 'a.org', '.a.org', '10.0.0.2', '*.a.org', ''):
        assert not HOST.names_host(name)

    wide = ROOT_KEY.generate_x509_host_certificate(USER_KEY, 'CN=h', principals='*.org')
    assert not wide.names_host('example.org')


# --- paths


def issue(
    signer, issuer, key=USER_KEY, subject='CN=leaf', *extensions, hash_alg=None, before=0, after=3600, builder=None
):
    """Sign what `generate_x509_...` would not."""

    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(
        issuer_name=parse_name(issuer),
        subject_name=parse_name(subject),
        public_key=key.convert_to_public().pyca_key if hasattr(key, 'convert_to_public') else key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(days=1) + datetime.timedelta(seconds=before),
        not_valid_after=now + datetime.timedelta(seconds=after),
    )

    for extension, critical in extensions:
        made = made.add_extension(extension, critical)

    return SSHX509Certificate(made.sign(signer.pyca_key, hash_alg or hashes.SHA256()))


def usage(**bits):
    names = (
        'digital_signature',
        'content_commitment',
        'key_encipherment',
        'data_encipherment',
        'key_agreement',
        'key_cert_sign',
        'crl_sign',
        'encipher_only',
        'decipher_only',
    )

    return x509.KeyUsage(**{name: bits.get(name, False) for name in names})


def test_a_path():
    assert find_path([USER, MID], [ROOT], CLIENT) == [USER, MID, ROOT]
    assert find_path([USER], [MID, ROOT], CLIENT) == [USER, MID]
    assert find_path([USER, ROOT, HOST, MID], [ROOT], CLIENT) == [USER, MID, ROOT]
    assert find_path([USER], [USER], CLIENT) == [USER]
    assert find_path([HOST, MID], [ROOT], None)[0] is HOST

    with pytest.raises(ValueError, match='other purposes'):
        find_path([HOST, MID], [ROOT], CLIENT)

    for shown, trusted in (([USER], [ROOT]), ([USER, MID], []), ([USER, MID], [HOST]), ([MID], [USER])):
        with pytest.raises(ValueError):
            find_path(shown, trusted, CLIENT)


def test_an_authority_of_the_same_name():
    other = KEYS['ecdsa-sha2-nistp256']
    forged = other.generate_x509_user_certificate(USER_KEY, 'CN=User', issuer='CN=Mid', principals='alice')
    root = other.generate_x509_ca_certificate(other, 'O=Example,CN=Root')

    with pytest.raises(ValueError, match='not that of'):
        find_path([forged, MID], [ROOT], CLIENT)

    # The right one is found behind a wrong one of the same name.
    assert find_path([USER, MID], [root, ROOT], CLIENT)[-1] is ROOT


def test_times():
    for before, after, message in ((90000, 95000, 'not valid before'), (0, -10, 'expired')):
        cert = issue(ROOT_KEY, 'O=Example,CN=Root', before=before, after=after)

        with pytest.raises(ValueError, match=message):
            find_path([cert], [ROOT], CLIENT)

        with pytest.raises(ValueError, match=message):
            find_path([cert], [cert], CLIENT)

    authority = ROOT_KEY.generate_x509_ca_certificate(ROOT_KEY, 'O=Example,CN=Root', valid_before='20200101')

    with pytest.raises(ValueError, match='expired'):
        find_path([USER, MID], [authority], CLIENT)

    assert find_path(
        [issue(ROOT_KEY, 'O=Example,CN=Root', before=90000, after=95000)],
        [ROOT],
        CLIENT,
        now=datetime.datetime.now().timestamp() + 4800,
    )


@pytest.mark.parametrize(
    ('extensions', 'message'),
    [
        ([], 'not that of an authority'),
        ([(x509.BasicConstraints(False, None), True)], 'not that of an authority'),
        ([(x509.BasicConstraints(True, None), True), (usage(digital_signature=True), True)], 'signing certificates'),
        (
            [(x509.BasicConstraints(True, None), True), (x509.ExtendedKeyUsage(purpose_ids('serverAuth')), False)],
            'other purposes',
        ),
        (
            [(x509.BasicConstraints(True, None), True), (x509.NameConstraints([x509.DNSName('a.org')], None), False)],
            '2.5.29.30',
        ),
        ([(x509.BasicConstraints(True, None), True), (x509.PolicyConstraints(0, None), True)], '2.5.29.36'),
        (
            [
                (x509.BasicConstraints(True, None), True),
                (x509.UnrecognizedExtension(x509.ObjectIdentifier('1.2.3.4'), b''), True),
            ],
            '1.2.3.4',
        ),
    ],
)
def test_authorities_that_are_none(extensions, message):
    for root in (False, True):
        key = ROOT_KEY if root else MID_KEY
        mid = issue(ROOT_KEY, 'O=Example,CN=Root', key, 'O=Example,CN=Root' if root else 'CN=Mid', *extensions)
        leaf = issue(key, 'O=Example,CN=Root' if root else 'CN=Mid')

        with pytest.raises(ValueError, match=message):
            find_path([leaf] if root else [leaf, mid], [mid if root else ROOT], CLIENT)


@pytest.mark.parametrize(
    ('extension', 'critical', 'message'),
    [
        (usage(key_agreement=True), True, 'not for signatures'),
        (x509.ExtendedKeyUsage(purpose_ids('serverAuth,secureShellServer')), False, 'other purposes'),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier('1.2.3.4'), b''), True, '1.2.3.4'),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier('1.2.3.4'), b''), False, None),
        (x509.ExtendedKeyUsage(purpose_ids(['any'])), True, None),
        (usage(content_commitment=True), True, None),
    ],
)
def test_extensions_of_the_keys_own_certificate(extension, critical, message):
    cert = issue(ROOT_KEY, 'O=Example,CN=Root', USER_KEY, 'CN=leaf', (extension, critical))

    if message is None:
        assert find_path([cert], [ROOT], CLIENT)
    else:
        with pytest.raises(ValueError, match=message):
            find_path([cert], [ROOT], CLIENT)


def test_lengths_of_paths():
    names = [f'CN=c{number}' for number in range(MAX_CHAIN_LENGTH + 2)]
    certs = [ROOT_KEY.generate_x509_ca_certificate(ROOT_KEY, names[0])]
    certs += [
        ROOT_KEY.generate_x509_ca_certificate(ROOT_KEY, name, issuer=above) for above, name in itertools.pairwise(names)
    ]
    leaf = ROOT_KEY.generate_x509_user_certificate(USER_KEY, 'CN=u', issuer=names[7])
    assert len(find_path([leaf, *certs[7:0:-1]], [certs[0]], CLIENT)) == 9

    deep = ROOT_KEY.generate_x509_user_certificate(USER_KEY, 'CN=u', issuer=names[-1])

    with pytest.raises(ValueError, match='longer than 10'):
        find_path([deep, *certs[:0:-1][:9]], [certs[0], *certs[1:3]], CLIENT)

    with pytest.raises(KeyImportError, match='1 to 10'):
        SSHX509CertificateChain([leaf, *certs[:10]])

    low = ROOT_KEY.generate_x509_ca_certificate(MID_KEY, 'CN=low', issuer='CN=Mid0')
    mid = ROOT_KEY.generate_x509_ca_certificate(ROOT_KEY, 'CN=Mid0', issuer='O=Example,CN=Root', ca_path_len=0)
    leaf = MID_KEY.generate_x509_user_certificate(USER_KEY, 'CN=u', issuer='CN=low')

    with pytest.raises(ValueError, match='admits 0 authorities'):
        find_path([leaf, low, mid], [ROOT], CLIENT)


def test_weak_signatures_and_keys():
    # `cryptography` signs with SHA-1 no more: openssl does.
    weak = rsa.generate_private_key(65537, 1024)

    with pytest.raises(KeyImportError, match='2048'):
        issue(ROOT_KEY, 'CN=x', weak.public_key())

    with pytest.raises(KeyImportError):
        issue(ROOT_KEY, 'CN=x', ec.generate_private_key(ec.SECP224R1()).public_key())


@pytest.mark.parametrize('digest', ['sha1', 'md5', 'sha224'])
def test_weak_hashes(digest, tmp_path):
    key = KEYS['ssh-rsa']
    (tmp_path / 'key').write_bytes(
        key.pyca_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    root = key.generate_x509_ca_certificate(key, 'CN=R')
    root.write_certificate(tmp_path / 'root', 'pem')
    openssl('req', '-new', '-key', str(tmp_path / 'key'), '-subj', '/CN=u', '-out', str(tmp_path / 'csr'))
    done = openssl(
        'x509',
        '-req',
        '-in',
        str(tmp_path / 'csr'),
        '-CA',
        str(tmp_path / 'root'),
        '-CAkey',
        str(tmp_path / 'key'),
        '-set_serial',
        '5',
        f'-{digest}',
        '-days',
        '2',
        '-out',
        str(tmp_path / 'cert'),
        '-extfile',
        '/dev/stdin',
        input=b'basicConstraints=CA:FALSE\n',
    )

    if done.returncode:
        pytest.skip(f'openssl does not sign with {digest}')

    cert = ssh_fast.read_certificate(tmp_path / 'cert')

    with pytest.raises(ValueError, match='too weak'):
        find_path([cert], [root], CLIENT)


def test_many_authorities_of_one_name_cost_a_bounded_number_of_signatures():
    others = [ROOT_KEY.generate_x509_ca_certificate(ROOT_KEY, 'CN=Mid') for _ in range(60)]

    with pytest.raises(ValueError, match='more than 32 signatures'):
        find_path([USER], others, CLIENT)


# --- chains, and what peers make of them


def test_chains():
    chain = SSHX509CertificateChain.construct_from_certs([USER, ROOT, HOST, MID])
    assert chain.certs == (USER, MID, ROOT)
    assert chain.get_algorithm() == 'x509v3-ssh-ed25519'
    assert decode_shown_certificate(chain.public_data).certs == chain.certs
    assert ssh_fast.load_certificates(chain.export_certificate('pem')) == [USER, MID, ROOT]

    single = encode_string(USER.public_data)
    head = encode_string(b'x509v3-ssh-ed25519')
    assert SSHX509CertificateChain.decode(head + encode_uint32(1) + single + encode_uint32(1) + encode_string(b'x'))

    for wrong in (
        b'',
        head,
        head + encode_uint32(0) + encode_uint32(0),
        head + encode_uint32(11) + single * 11 + encode_uint32(0),
        head + encode_uint32(0xFFFFFFFF),
        head + encode_uint32(1) + single,
        head + encode_uint32(1) + single + encode_uint32(9999),
        head + encode_uint32(1) + single + encode_uint32(0) + b'x',
        head + encode_uint32(1) + encode_string(bytes(40000)) + encode_uint32(0),
        encode_string(b'x509v3-ssh-ed448') + encode_uint32(1) + single + encode_uint32(0),
        encode_string(b'x509v3-ssh-rsa') + encode_uint32(1) + single + encode_uint32(0),
        encode_string(b'x509v3-ssh-dss') + encode_uint32(1) + single + encode_uint32(0),
    ):
        with pytest.raises(KeyImportError):
            SSHX509CertificateChain.decode(wrong)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(USER.public_data) - 1), st.integers(1, 255))
def test_a_changed_certificate_is_never_trusted(position, change):
    data = bytearray(USER.public_data)
    data[position] ^= change
    blob = (
        encode_string(b'x509v3-ssh-ed25519')
        + encode_uint32(2)
        + encode_string(bytes(data))
        + encode_string(MID.public_data)
        + encode_uint32(0)
    )

    try:
        chain = decode_shown_certificate(blob)
    except KeyImportError:
        return

    # The signature can be written in other ways: the byte before it counts bits that are not used.
    if chain.certs[0].x509_cert.tbs_certificate_bytes == USER.x509_cert.tbs_certificate_bytes:
        assert chain.certs[0] != USER
        return

    with pytest.raises(ValueError):
        find_path(chain.certs, [ROOT], CLIENT)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_what_is_no_chain(data):
    with pytest.raises(KeyImportError):
        decode_shown_certificate(encode_string(b'x509v3-ssh-ed25519') + data)


def test_rsa_signs_under_a_name_of_its_own():
    key = KEYS['ssh-rsa']
    pair = load_keypairs([(key, ROOT_KEY.generate_x509_user_certificate(key, 'CN=r'))])[0]
    assert pair.host_key_algorithms == (b'x509v3-rsa2048-sha256',)
    signature = pair.sign(b'data')
    assert signature.startswith(encode_string(b'rsa2048-sha256'))
    # A plain key never signs so.
    assert not key.verify(b'data', signature)
    assert b'rsa2048-sha256' not in key.sig_algorithms


# --- lists


def test_known_hosts():
    text = ''.join(
        f'{marker}{host} {rest}\n'
        for marker, host, rest in (
            ('', 'a', ROOT.export_certificate().decode().strip()),
            ('', 'b', 'x509v3-ssh-rsa subject=O=Example,*'),
            ('@revoked ', 'a', MID.export_certificate().decode().strip()),
            ('@revoked ', 'b', 'x509v3-ssh-rsa subject=CN=bad'),
        )
    )
    known = import_known_hosts(text)
    assert known.match('a', '', None)[3:] == ([ROOT], [MID], [], [])
    assert known.match('b', '', None)[3:] == ([], [], [X509NamePattern('O=Example,*')], [X509NamePattern('CN=bad')])
    assert not any(known.match('c', '', None))

    with pytest.raises(KeyImportError, match='malformed'):
        import_known_hosts('@revoked a x509v3-ssh-rsa AAAA')


def test_authorized_keys():
    chain = SSHX509CertificateChain([USER, MID])
    root, own = (cert.export_certificate().decode() for cert in (ROOT, USER))

    def match(line, addr='1.2.3.4'):
        return SSHAuthorizedKeys(line).validate_x509(chain, addr, addr)

    assert match(own) == ({}, USER)
    assert match('cert-authority ' + root) == ({'cert-authority': True}, ROOT)
    assert match('cert-authority,principals="x,bob" ' + root)[1] == ROOT
    assert match('cert-authority,subject="O=Example,*",command="c" ' + root)[0]['command'] == 'c'

    for line in (
        root,
        'cert-authority,subject="CN=User,O=Example" ' + root,
        'cert-authority,from="9.9.9.9" ' + root,
        'cert-authority,principals="carol" ' + root,
        'cert-authority,expiry-time="20200101" ' + root,
        'cert-authority,nonsense ' + root,
        'subject="CN=x" ' + USER_KEY.export_public_key().decode(),
    ):
        assert match(line) == (None, None)
