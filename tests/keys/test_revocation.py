"""Revocation lists: those of ssh-keygen and plain ones, and that a list which is not understood lets nobody in."""

import functools
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssh_fast.errors import KeyImportError
from ssh_fast.keys.key import SSHKey, generate_private_key
from ssh_fast.keys.revocation import RevokedKeys, load_revoked_keys
from ssh_fast.wire import encode_boolean, encode_byte, encode_mpint, encode_string, encode_uint32, encode_uint64
from tests.interop import peers

HEAD = b'SSHKRL\n\0' + encode_uint32(1) + encode_uint64(0) * 3 + encode_string(b'') * 2


@functools.cache
def key(number: int = 0) -> SSHKey:
    return generate_private_key('ssh-ed25519')


CA, OTHER_CA = key(1), key(2)


def certificate(serial: int = 0, key_id: str = 'id', authority: SSHKey = CA, certified: SSHKey | None = None) -> Any:
    return authority.generate_user_certificate(certified or key(), key_id, serial=serial, principals='x')


def section(kind: int, *parts: bytes) -> bytes:
    return encode_byte(kind) + encode_string(b''.join(parts))


def certificates(*sections: bytes, authority: bytes = CA.public_data) -> bytes:
    return section(1, encode_string(authority), encode_string(b''), *sections)


def loaded(data: bytes) -> RevokedKeys:
    return load_revoked_keys(data)


def keygen(folder: Path, spec: str, authority: SSHKey | None = CA, *more: str) -> RevokedKeys:
    krl, path, ca = folder / 'krl', folder / 'spec', folder / 'ca.pub'
    path.write_text(spec)
    if authority is not None:
        authority.write_public_key(ca)
    told = ['-s', str(ca)] if authority is not None else []
    peers.run_tool(peers.find_program('ssh-keygen'), '-q', '-k', '-f', str(krl), *told, *more, str(path))
    return load_revoked_keys(krl)


# --- by ssh-keygen


@pytest.mark.parametrize('spec, serials', [
    ('serial: 5\nserial: 7\n', {5, 7}),
    ('serial: 100-300\n', set(range(100, 301))),
    (''.join(f'serial: {serial}\n' for serial in range(1, 400, 3)), set(range(1, 400, 3))),
    ('serial: 18446744073709551615\nserial: 3-4\nserial: 9223372036854775808\n', {2**64 - 1, 3, 4, 2**63}),
])
def test_serials(spec: str, serials: set[int], tmp_path: Path) -> None:
    revoked = keygen(tmp_path, spec)
    asked = {*range(500), 2**64 - 1, 2**64 - 2, 2**63, 2**63 + 1}
    cert = certificate(1)
    found = set()
    for serial in asked:
        cert.serial = serial
        if revoked.revokes(cert):
            found.add(serial)
    assert found == serials
    for other in (certificate(next(iter(serials)), authority=OTHER_CA), key(), CA):
        assert not revoked.revokes(other)


def test_key_ids_keys_and_fingerprints(tmp_path: Path) -> None:
    revoked = keygen(tmp_path, 'id: lost laptop\n')
    assert revoked.revokes(certificate(3, 'lost laptop')) and revoked.revokes(certificate(0, 'lost laptop'))
    assert not revoked.revokes(certificate(3, 'lost')) and not revoked.revokes(certificate(3, 'lost laptop', OTHER_CA))
    public = key().export_public_key().decode()
    for kind in ('key', 'sha1', 'sha256'):
        revoked = keygen(tmp_path, f'{kind}: {public}', None)
        assert revoked.revokes(key()) and revoked.revokes(certificate(authority=OTHER_CA))
        assert not revoked.revokes(key(3)) and not revoked.revokes(certificate(certified=key(3)))
    # An authority that is revoked takes all of its certificates along (CVE-2026-42508).
    revoked = keygen(tmp_path, f'key: {CA.export_public_key().decode()}', None)
    assert revoked.revokes(certificate(4)) and not revoked.revokes(certificate(4, authority=OTHER_CA))
    # Of every authority
    revoked = loaded(HEAD + certificates(section(0x20, encode_uint64(9)), authority=b''))
    assert revoked.revokes(certificate(9, authority=OTHER_CA)) and not revoked.revokes(certificate(8))


# --- plain lists


def test_plain_lists(tmp_path: Path) -> None:
    path, other = tmp_path / 'revoked', tmp_path / 'more'
    path.write_bytes(b'# lost\n\n' + key().export_public_key() + b'ssh-new AAAAB3NzaC1uZXc=\r\n')
    other.write_bytes(HEAD + section(2, encode_string(key(3).public_data)))
    revoked = load_revoked_keys(str(path))
    assert revoked is load_revoked_keys(path), 'parsed once'
    assert revoked.revokes(key()) and revoked.revokes(certificate()) and not revoked.revokes(key(3))
    both = load_revoked_keys([path, other])
    assert both.revokes(key()) and both.revokes(key(3)) and load_revoked_keys(both) is both
    cert = certificate(5)
    assert loaded(cert.export_certificate()).revokes(cert) and not loaded(cert.export_certificate()).revokes(key())
    assert 'ssh' not in repr(both)


@pytest.mark.parametrize('text', [
    'what', 'ssh-ed25519', 'ssh-ed25519 !!', 'ssh-rsa AAAAC3NzaC1lZDI1NTE5', 'from="x" {key}', '\0', 'SHA256:abcdef',
])
def test_malformed_lines_name_file_and_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / 'revoked'
    line = key().export_public_key().decode()
    path.write_text(f'{line}# comment\n{text.replace("{key}", line)}\n')
    with pytest.raises(KeyImportError, match=rf'{re.escape(str(path))}: line 3: '):
        load_revoked_keys(path)
    with pytest.raises(FileNotFoundError):
        load_revoked_keys(tmp_path / 'missing')


# --- what is malformed in a binary list

MALFORMED = {
    'version': b'SSHKRL\n\0' + encode_uint32(2) + HEAD[12:],
    'unknown section': HEAD + section(9),
    'critical extension': HEAD + section(255, encode_string('x'), encode_boolean(True), encode_string('')),
    'cut section': HEAD + section(2, encode_string(b'k'))[:-1],
    'empty key': HEAD + section(2, encode_string(b'')),
    'hash too short': HEAD + section(5, encode_string(b'k' * 20)),
    'sha1 too long': HEAD + section(3, encode_string(b'k' * 32)),
    'unknown certificates': HEAD + certificates(section(0x24)),
    'odd serials': HEAD + certificates(section(0x20, b'\0' * 9)),
    'range the wrong way': HEAD + certificates(section(0x21, encode_uint64(2), encode_uint64(1))),
    'range and more': HEAD + certificates(section(0x21, encode_uint64(1), encode_uint64(2), b'x')),
    'negative bitmap': HEAD + certificates(section(0x22, encode_uint64(1), encode_string(b'\x80'))),
    'bitmap beyond 64 bits': HEAD + certificates(section(0x22, encode_uint64(2**64 - 9), encode_string(b'\x01' * 2))),
    'key id that is no text': HEAD + certificates(section(0x23, encode_string(b'\xff'))),
    'critical extension of certificates': HEAD + certificates(
        section(0x39, encode_string('x'), encode_boolean(True), encode_string(''))
    ),
}


@pytest.mark.parametrize('why', MALFORMED)
def test_malformed_lists(why: str, tmp_path: Path) -> None:
    path = tmp_path / 'krl'
    path.write_bytes(MALFORMED[why])
    with pytest.raises(KeyImportError, match=re.escape(str(path))):
        load_revoked_keys(path)


def test_what_may_be_passed_over() -> None:
    harmless = encode_string('x') + encode_boolean(False) + encode_string('y')
    data = HEAD + section(255, harmless) + section(4, b'signature') + certificates(section(0x39, harmless))
    assert loaded(data + section(5, encode_string(hashlib.sha256(key().public_data).digest()))).revokes(key())
    bitmap = certificates(section(0x22, encode_uint64(64), encode_mpint(0x8001)))
    assert [serial for serial in range(1, 100) if loaded(HEAD + bitmap).revokes(certificate(serial))] == [64, 79]


@settings(max_examples=300, deadline=1000)
@given(st.binary(max_size=200), st.integers(0, 300))
@example(certificates(section(0x21, encode_uint64(0), encode_uint64(2**64 - 1))), len(HEAD))
def test_any_bytes(junk: bytes, at: int) -> None:
    """A list is understood, or refused with the typed error; the largest range costs nothing."""
    whole = HEAD + section(2, encode_string(key().public_data)) + certificates(section(0x20, encode_uint64(9)))
    for data in (HEAD + junk, whole[:at] + junk + whole[at:], junk):
        try:
            revoked = loaded(data)
        except KeyImportError:
            continue
        revoked.revokes(certificate(5))
