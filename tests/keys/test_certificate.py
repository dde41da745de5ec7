"""Certificates: what is issued is read back, what is not right is refused, and by what a certificate is judged."""

import functools
import itertools
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssh_fast.errors import KeyExportError, KeyGenerationError, KeyImportError
from ssh_fast.keys.certificate import CERT_TYPE_HOST, CERT_TYPE_USER, NEVER, decode_certificate, is_certificate_blob
from ssh_fast.keys.certificate_files import (
    import_certificate,
    load_certificates,
    read_certificate,
    read_certificate_list,
)
from ssh_fast.keys.certificate_issue import parse_time
from ssh_fast.keys.certificate_names import certificate_algorithm, certificate_algorithms, plain_algorithm
from ssh_fast.keys.key import SSHKey, generate_private_key
from ssh_fast.wire import encode_string, encode_uint32, encode_uint64
from tests.interop import peers

TYPES = ('ssh-ed25519', 'ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp521', 'ssh-rsa', 'ssh-ed448', 'ssh-dss')
NOW = 1_800_000_000.0
FLAGS = ['permit-X11-forwarding', 'permit-agent-forwarding', 'permit-port-forwarding', 'permit-pty', 'permit-user-rc']


@functools.cache
def key(name: str = 'ssh-ed25519', number: int = 0) -> SSHKey:
    return generate_private_key(name, **({'key_size': 2048} if name == 'ssh-rsa' else {}))


CA = key(number=1)


def build(
    *, algorithm: bytes = b'ssh-ed25519-cert-v01@openssh.com', fields: bytes | None = None, cert_type: int = 1,
    principals: bytes = b'', after: int = 0, before: int = NEVER, critical: bytes = b'', extensions: bytes = b'',
    authority: bytes | None = None, signer: SSHKey = CA, key_id: bytes = b'id', end: bytes = b'',
    sig_algorithm: bytes = b'ssh-ed25519', spoil: int | None = None,
) -> bytes:
    """Encode a certificate by hand, whatever is in it, with a right signature."""
    data = b''.join((
        encode_string(algorithm), encode_string(b'n' * 32), key().encode_ssh_public() if fields is None else fields,
        encode_uint64(5), encode_uint32(cert_type), encode_string(key_id), encode_string(principals),
        encode_uint64(after), encode_uint64(before), encode_string(critical), encode_string(extensions),
        encode_string(b''), encode_string(CA.public_data if authority is None else authority),
    ))
    return data + encode_string(signer.sign(data, sig_algorithm)) + end


def option(name: str, value: bytes = b'') -> bytes:
    return encode_string(name) + encode_string(value)


# --- issuing and reading


@pytest.mark.parametrize('name', TYPES)
@pytest.mark.parametrize('authority', ['ssh-ed25519', 'ssh-rsa', 'ecdsa-sha2-nistp256', 'ssh-ed448'])
def test_user_certificates(name: str, authority: str) -> None:
    cert = key(authority, 1).generate_user_certificate(
        key(name), 'who', serial=2**64 - 1, principals=['alice', 'bob'], valid_after=10, valid_before=NOW,
        force_command='run "it"', source_address=['10.0.0.0/8', '::1'], permit_pty=False, touch_required=False,
        comment='c',
    )
    again = import_certificate(cert.export_certificate())
    assert again == cert == import_certificate(cert.export_certificate('rfc4716'))
    assert again.get_comment() == 'c' and again.get_algorithm() == certificate_algorithm(name.encode()).decode()
    assert (again.serial, again.cert_type, again.key_id) == (2**64 - 1, CERT_TYPE_USER, 'who')
    assert again.principals == ['alice', 'bob'] and (again.valid_after, again.valid_before) == (10, int(NOW))
    assert again.options.pop('force-command') == 'run "it"'
    assert [str(network) for network in again.options.pop('source-address')] == ['10.0.0.0/8', '::1/128']
    assert again.options == {name: True for name in [*FLAGS, 'no-touch-required'] if name != 'permit-pty'}
    assert again.key.public_data == key(name).public_data and not again.key.is_private
    assert again.signing_key.public_data == key(authority, 1).public_data
    assert again.sig_algorithms == key(name).sig_algorithms
    assert again.host_key_algorithms == certificate_algorithms(key(name).sig_algorithms)


@pytest.mark.parametrize('name', TYPES)
def test_host_certificates_are_read_by_ssh_keygen(name: str, tmp_path: Path) -> None:
    cert = CA.generate_host_certificate(key(name), 'host', principals='a.example, *.b.example', comment=None)
    assert cert.cert_type == CERT_TYPE_HOST and cert.options == {} and cert.principals == ['a.example', '*.b.example']
    if name == 'ssh-ed448':
        return  # OpenSSH has no such keys
    cert.write_certificate(tmp_path / 'cert')
    shown = peers.run_tool(peers.find_program('ssh-keygen'), '-L', '-f', str(tmp_path / 'cert')).stdout
    assert 'host certificate' in shown and '*.b.example' in shown and 'Valid: forever' in shown


def test_files(tmp_path: Path) -> None:
    certs = [CA.generate_user_certificate(key(name), name, principals='x') for name in TYPES[:3]]
    path = tmp_path / 'certs'
    certs[0].write_certificate(path, 'rfc4716')
    for cert in certs[1:]:
        cert.append_certificate(path)
    assert list(read_certificate_list(path)) == certs and read_certificate(path) == certs[0]
    single = tmp_path / 'single'
    certs[1].write_certificate(single)
    assert list(load_certificates([path, certs[0], certs[2].export_certificate(), str(single)])) == [
        *certs, certs[0], certs[2], certs[1]
    ]
    assert list(load_certificates(certs[0])) == list(load_certificates(certs[0].export_certificate())) == [certs[0]]
    path.write_text('# nothing\n')
    with pytest.raises(KeyImportError, match=re.escape(str(path))):
        read_certificate(path)
    path.write_text('# one\n\nssh-ed25519-cert-v01@openssh.com AAAA\n')
    with pytest.raises(KeyImportError, match=f'{re.escape(str(path))}: line 3: '):
        read_certificate_list(path)
    path.write_bytes(b'x' * (1 << 20) + b'xx')
    with pytest.raises(KeyImportError, match=re.escape(str(path))):
        read_certificate(path)
    with pytest.raises(KeyImportError, match='found none'):
        import_certificate('')
    with pytest.raises(KeyImportError, match='Expected a certificate'):
        import_certificate(key().export_public_key())
    with pytest.raises(KeyExportError):
        certs[0].export_certificate('pkcs8-pem')


@pytest.mark.parametrize('arguments', [
    {'version': 0}, {'serial': -1}, {'serial': 2**64}, {'source_address': ['10.0.0.1/8']},
    {'source_address': '10.0.0.1'}, {'source_address': []},
    {'principals': ['a,b']}, {'principals': ['']}, {'principals': ['a\0']},
    {'principals': [str(i) for i in range(257)]}, {'sig_alg': 'rsa-sha2-512'}, {'force_command': 'a\0b'},
    {'valid_after': 5, 'valid_before': 5}, {'valid_after': -1}, {'valid_before': 2**64}, {'valid_before': float('nan')},
    {'key_id': '\0'},
])  # fmt: skip
def test_what_cannot_be_issued(arguments: dict[str, Any]) -> None:
    with pytest.raises((KeyGenerationError, ValueError)):
        CA.generate_user_certificate(key(), **{'key_id': 'x', **arguments})
    with pytest.raises(KeyGenerationError, match='private'):
        CA.convert_to_public().generate_user_certificate(key(), 'x')


def test_times() -> None:
    local = datetime(2030, 1, 2, 3, 4, 5)
    assert parse_time('20300102030405') == local.timestamp() and parse_time(local) == local.timestamp()
    assert parse_time('20300102') == datetime(2030, 1, 2).timestamp()
    assert parse_time('203001020304') == datetime(2030, 1, 2, 3, 4).timestamp()
    utc = local.replace(tzinfo=UTC)
    assert parse_time('20300102030405Z') == utc.timestamp() == parse_time(utc)
    assert parse_time(1.9) == 1 and parse_time(NEVER) == NEVER
    for text, seconds in (('now', 0), ('1w2d3h4m5s', 788645), ('+1d', 86400), ('-1H', -3600), ('90', 90), ('0', 0)):
        assert abs(parse_time(text) - time.time() - seconds) < 3, text
    for wrong in ('', 'soon', '2030-01-02', '20301302', '1y', '1d ', '٣d', '+', True, None, b'now', '9' * 40):
        with pytest.raises(ValueError):
            parse_time(wrong)


def test_names_of_algorithms() -> None:
    for name, certificate in (
        (b'ssh-ed25519', b'ssh-ed25519-cert-v01@openssh.com'), (b'rsa-sha2-512', b'rsa-sha2-512-cert-v01@openssh.com'),
        (b'sk-ssh-ed25519@openssh.com', b'sk-ssh-ed25519-cert-v01@openssh.com'),
        (b'sk-ecdsa-sha2-nistp256@openssh.com', b'sk-ecdsa-sha2-nistp256-cert-v01@openssh.com'),
    ):
        assert certificate_algorithm(name) == certificate and plain_algorithm(certificate) == name
    assert plain_algorithm(b'ssh-rsa') == b'ssh-rsa' and plain_algorithm(b'-cert-v01@openssh.com')[:1] == b'-'
    assert certificate_algorithms([b'ssh-rsa-sha256@ssh.com']) == ()


# --- what is refused

MALFORMED = {
    'type 0': {'cert_type': 0},
    'type 3': {'cert_type': 3},
    'trailing bytes': {'end': b'\0'},
    'another key type': {'algorithm': b'ecdsa-sha2-nistp256-cert-v01@openssh.com'},
    'an unknown type': {'algorithm': b'ssh-what-cert-v01@openssh.com'},
    'version 0': {'algorithm': b'ssh-ed25519-cert-v00@openssh.com'},
    'a key that is none': {'fields': encode_string(b'k' * 31)},
    'a key id that is no text': {'key_id': b'\xff'},
    'an empty principal': {'principals': encode_string(b'')},
    'a principal with NUL': {'principals': encode_string(b'root\0x')},
    'a cut principal': {'principals': encode_uint32(9) + b'a'},
    'too many principals': {'principals': encode_string(b'a') * 257},
    'unknown critical option': {'critical': option('what@example.com')},
    'a critical option of a host': {'cert_type': 2, 'critical': option('force-command', encode_string('x'))},
    'an option twice': {'critical': option('force-command', encode_string('x')) * 2},
    'options out of order': {
        'critical': option('source-address', encode_string('::1')) + option('force-command', encode_string('x'))
    },
    'an extension twice': {'extensions': option('permit-pty') * 2},
    'extensions out of order': {'extensions': option('permit-user-rc') + option('permit-pty')},
    'an extension with a value': {'extensions': option('permit-pty', b'x')},
    'a command without its string': {'critical': option('force-command', b'x')},
    'a command and more': {'critical': option('force-command', encode_string('x') + b'y')},
    'a command with NUL': {'critical': option('force-command', encode_string('x\0'))},
    'an address that is none': {'critical': option('source-address', encode_string('10.0.0.0/8,what'))},
    'a negated address': {'critical': option('source-address', encode_string('!10.0.0.0/8'))},
    'an empty address': {'critical': option('source-address', encode_string(''))},
    'a flag with a value': {'critical': option('verify-required', encode_string('x'))},
    "another authority's signature": {'signer': key(number=2)},
    'no authority': {'authority': b''},
}  # fmt: skip


@pytest.mark.parametrize('why', MALFORMED)
def test_malformed_certificates(why: str) -> None:
    assert decode_certificate(build()).key_id == 'id'
    with pytest.raises(KeyImportError):
        decode_certificate(build(**MALFORMED[why]))


def test_a_certificate_is_no_authority() -> None:
    """CVE-2026-42508's relative: certificates in certificates, 200 deep, are refused at the first."""
    inner = build()
    for _ in range(200):
        inner = build(authority=inner)
    with pytest.raises(KeyImportError, match='Unknown key algorithm'):
        decode_certificate(inner)


def test_every_flipped_bit_and_every_cut_is_refused() -> None:
    blob = build(principals=encode_string(b'alice'), critical=option('force-command', encode_string('x')))
    for at, bit in itertools.product(range(len(blob)), (1, 0x80)):
        spoiled = bytearray(blob)
        spoiled[at] ^= bit
        with pytest.raises(KeyImportError):
            decode_certificate(bytes(spoiled))
    for size in range(len(blob)):
        with pytest.raises(KeyImportError):
            decode_certificate(blob[:size])


@settings(max_examples=300, deadline=1000)
@given(st.binary(max_size=400), st.integers(0, 400), st.integers(0, 400))
def test_mutated_certificates(junk: bytes, start: int, end: int) -> None:
    blob = build(principals=encode_string(b'alice'))
    mutated = blob[:start] + junk + blob[end:]
    if mutated != blob:
        with pytest.raises(KeyImportError):
            decode_certificate(mutated)
    is_certificate_blob(mutated)
    line = b'ssh-ed25519-cert-v01@openssh.com ' + junk
    with pytest.raises(KeyImportError):
        import_certificate(line)


# --- by what it is judged


def test_validity() -> None:
    cert = decode_certificate(build(principals=encode_string('alice'), after=100, before=200))
    for now, valid in ((99.9, False), (100, True), (199.9, True), (200, False)):
        if valid:
            cert.check(CERT_TYPE_USER, now=now)
            cert.validate(CERT_TYPE_USER, 'alice', now)
        else:
            with pytest.raises(ValueError, match=r'not valid before 1970-01-01 00:01:40 UTC|expired'):
                cert.check(CERT_TYPE_USER, now=now)
    with pytest.raises(ValueError, match='Expected a host certificate, got a user'):
        cert.check(CERT_TYPE_HOST, now=150)
    with pytest.raises(ValueError, match='ssh-ed25519, which is not allowed'):
        cert.check(CERT_TYPE_USER, [b'rsa-sha2-512'], now=150)
    with pytest.raises(ValueError, match='not made out to bob'):
        cert.validate(CERT_TYPE_USER, 'bob', 150)
    decode_certificate(build()).check(CERT_TYPE_USER, now=1e18)
    with pytest.raises(ValueError, match='seconds after 1970'):
        decode_certificate(build(after=2**63)).check(CERT_TYPE_USER)
    with pytest.raises(ValueError, match='expired'):
        decode_certificate(build(after=0, before=0)).check(CERT_TYPE_USER)


def test_sha1_signatures_of_authorities_are_not_taken() -> None:
    rsa = key('ssh-rsa', 1)
    cert = decode_certificate(build(signer=rsa, authority=rsa.public_data, sig_algorithm=b'ssh-rsa'))
    with pytest.raises(ValueError, match='ssh-rsa, which is not allowed'):
        cert.check(CERT_TYPE_USER)
    assert rsa.generate_user_certificate(key(), 'x').signature_algorithm in (b'rsa-sha2-512', b'rsa-sha2-256')


def test_principals_are_compared_whole() -> None:
    user = decode_certificate(build(principals=encode_string('a,b') + encode_string('*') + encode_string('Carol')))
    assert [user.names(name) for name in ('a', 'b', 'a,b', '*', 'x', 'Carol', 'carol', '')] == [
        False, False, True, True, False, True, False, False
    ]
    host = decode_certificate(build(cert_type=2, principals=encode_string('*.Example.com') + encode_string('::1')))
    assert [host.names(name) for name in ('a.example.com', 'A.EXAMPLE.com', 'example.com', '::1', '')] == [
        True, True, False, True, False
    ]
    for cert_type in (1, 2):
        assert not decode_certificate(build(cert_type=cert_type)).names('anybody')


def test_source_addresses() -> None:
    cert = decode_certificate(build(critical=option('source-address', encode_string('10.0.0.0/8,2001:db8::/32'))))
    for addr, admitted in (
        ('10.1.2.3', True), ('11.1.2.3', False), ('::ffff:10.1.2.3', True), ('2001:db8::1%eth0', True), ('::1', False),
        ('', False), ('10.1.2.3.example.com', False),
    ):
        assert cert.admits_address(addr) is admitted, addr
    assert decode_certificate(build()).admits_address('')


def test_options_of_others_are_kept() -> None:
    extensions = option('a@example.com') + option('login@github.com', encode_string('alice')) + option('raw', b'\xff')
    assert decode_certificate(build(extensions=extensions)).options == {
        'a@example.com': True, 'login@github.com': 'alice', 'raw': b'\xff'
    }
    assert decode_certificate(build(cert_type=2, extensions=option('permit-pty'))).options == {'permit-pty': True}


def test_repr_shows_no_control_characters() -> None:
    assert '\x1b' not in repr(decode_certificate(build(key_id=b'\x1b[2J')))
