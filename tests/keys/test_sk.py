"""Keys of security keys: formats, what a signature must say of its user, signing through a device made of software."""

import base64
import hashlib
import struct
import subprocess
import sys

import asyncssh
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nacl.signing import SigningKey

from ssh_fast.errors import KeyExportError, KeyGenerationError, KeyImportError
from ssh_fast.keys import openssh_format, sk_device
from ssh_fast.keys.key import decode_public_key, generate_private_key, verify_signature
from ssh_fast.keys.load import import_private_key, import_public_key, load_keypairs
from ssh_fast.keys.sk import load_resident_keys
from ssh_fast.keys.sshsig import _signed_data, create_sshsig, validate_sshsig
from ssh_fast.wire import encode_byte, encode_mpint, encode_string, encode_uint32

ED25519 = 'sk-ssh-ed25519@openssh.com'
ECDSA = 'sk-ecdsa-sha2-nistp256@openssh.com'
WEBAUTHN = 'webauthn-sk-ecdsa-sha2-nistp256@openssh.com'
NAMES = [ED25519, ECDSA]
APPLICATION = 'ssh:test'
HANDLE = b'a handle of 20 bytes'


class Device:
    """A security key made of software: one key of each type."""

    def __init__(self):
        self.ed25519 = SigningKey.generate()
        self.ecdsa = ec.generate_private_key(ec.SECP256R1())
        self.counter = 0

    def point(self):
        return self.ecdsa.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def public_data(self, name):
        if name == ED25519:
            fields = encode_string(bytes(self.ed25519.verify_key))
        else:
            fields = encode_string('nistp256') + encode_string(self.point())

        return encode_string(name) + fields + encode_string(APPLICATION)

    def private_data(self, name, flags=1):
        return self.public_data(name) + encode_byte(flags) + encode_string(HANDLE) + encode_string('')

    def sign(self, name, digest, flags, extensions=b''):
        self.counter += 1
        data = hashlib.sha256(APPLICATION.encode()).digest() + struct.pack('>BI', flags, self.counter)
        data += extensions + digest

        if name == ED25519:
            return self.ed25519.sign(data).signature

        return self.ecdsa.sign(data, ec.ECDSA(hashes.SHA256()))

    def ssh_signature(self, name, data, flags=1):
        blob = self.sign(name, hashlib.sha256(data).digest(), flags)

        if name == ECDSA:
            blob = b''.join(map(encode_mpint, decode_dss_signature(blob)))

        return encode_string(name) + encode_string(blob) + struct.pack('>BI', flags, self.counter)

    def webauthn_signature(self, data, flags=1, extensions=b'', origin='https://example.com', **changes):
        challenge = base64.urlsafe_b64encode(data).rstrip(b'=').decode()
        fields = {'type': 'webauthn.get', 'challenge': challenge, 'origin': origin, **changes}
        client_data = ('{' + ','.join(f'"{name}":"{value}"' for name, value in fields.items()) + '}').encode()
        blob = self.sign(ECDSA, hashlib.sha256(client_data).digest(), flags, extensions)
        blob = b''.join(map(encode_mpint, decode_dss_signature(blob)))

        return (
            encode_string(WEBAUTHN)
            + encode_string(blob)
            + struct.pack('>BI', flags, self.counter)
            + encode_string('https://example.com')
            + encode_string(client_data)
            + encode_string(extensions)
        )


DEVICE = Device()


@pytest.mark.parametrize('name', NAMES)
def test_public_formats(name, tmp_path):
    key = decode_public_key(DEVICE.public_data(name))
    key.set_comment('a comment')
    assert key.public_data == DEVICE.public_data(name)
    assert key.application == APPLICATION
    assert not key.is_private
    key.write_public_key(tmp_path / 'key.pub')
    shown = subprocess.run(
        ['ssh-keygen', '-lv', '-f', tmp_path / 'key.pub'], check=True, capture_output=True, text=True
    ).stdout
    assert key.get_fingerprint() in shown
    assert key.get_randomart().splitlines() == shown.splitlines()[1:]

    for data in (key.export_public_key(), key.export_public_key('rfc4716')):
        assert import_public_key(data) == key
        assert import_public_key(data).get_comment() == 'a comment'

    assert asyncssh.import_public_key(key.export_public_key()).public_data == key.public_data

    for format_name in ('pkcs8-pem', 'pkcs8-der', 'pkcs1-pem'):
        with pytest.raises(KeyExportError, match='openssh or rfc4716'):
            key.export_public_key(format_name)


def private_key(name, flags=1):
    """The private key as OpenSSH's file has it, made by AsyncSSH."""

    theirs = asyncssh.import_private_key(our_file(name, flags))

    return import_private_key(theirs.export_private_key('openssh'))


def our_file(name, flags=1):
    data = DEVICE.private_data(name, flags)

    return openssh_format.encode_private(DEVICE.public_data(name), data, b'a comment', None, '', 0, False)


@pytest.mark.parametrize('name', NAMES)
def test_private_formats(name, tmp_path):
    key = import_private_key(our_file(name))
    assert key.is_private
    assert key.get_comment() == 'a comment'
    assert key.private_data == DEVICE.private_data(name)
    assert private_key(name) == key

    for passphrase in (None, 'secret'):
        (tmp_path / 'key').write_bytes(key.export_private_key(passphrase=passphrase, rounds=2, ignore_few_rounds=True))
        (tmp_path / 'key').chmod(0o600)
        shown = subprocess.run(
            ['ssh-keygen', '-y', '-P', passphrase or '', '-f', tmp_path / 'key'], check=True, capture_output=True
        ).stdout
        assert import_public_key(shown) == key.convert_to_public()

    with pytest.raises(KeyExportError, match='pkcs8|openssh'):
        key.export_private_key('pkcs8-pem')

    # As an agent wants it: without what a certificate has
    assert key.private_data.endswith(key.encode_agent_cert_private())


@pytest.mark.parametrize('name', NAMES)
def test_what_a_signature_must_say(name):
    key = decode_public_key(DEVICE.public_data(name))
    allowed = {name.encode()}

    for flags, touch, verify, right in [
        (0x01, True, False, True),
        (0x05, True, False, True),
        (0x05, True, True, True),
        (0x04, True, True, False),
        (0x01, True, True, False),
        (0x00, True, False, False),
        (0x00, False, False, True),
        (0x00, False, True, False),
        (0x04, False, True, True),
        (0x41, True, False, False),
        (0x81, True, False, False),
    ]:
        key.set_touch_required(touch)
        key.set_verify_required(verify)
        sig = DEVICE.ssh_signature(name, b'data', flags)
        assert key.verify(b'data', sig) is right
        assert key.convert_to_public().verify(b'data', sig) is right
        assert verify_signature(key, b'data', sig, allowed) is right
        assert not key.verify(b'Data', sig)


@pytest.mark.parametrize('name', NAMES)
def test_every_flipped_bit_is_refused(name):
    key = decode_public_key(DEVICE.public_data(name))
    key.set_touch_required(False)
    sig = DEVICE.ssh_signature(name, b'data')
    assert key.verify(b'data', sig)

    for pos in range(len(sig)):
        assert not key.verify(b'data', sig[:pos] + bytes([sig[pos] ^ 1]) + sig[pos + 1 :])
        assert not key.verify(b'data', sig[:pos])

    assert not key.verify(b'data', sig + b'\0')


def test_another_application_is_refused():
    blob = DEVICE.public_data(ED25519)
    other = blob.replace(encode_string(APPLICATION), encode_string('ssh:other'))
    assert not decode_public_key(other).verify(b'data', DEVICE.ssh_signature(ED25519, b'data'))


def test_webauthn():
    key = decode_public_key(DEVICE.public_data(ECDSA))

    for right, args in [
        (True, {}),
        (True, {'crossOrigin': 'false'}),
        (True, {'flags': 0x81, 'extensions': b'\xa0'}),
        (False, {'flags': 0x81}),
        (False, {'extensions': b'\xa0'}),
        (False, {'flags': 0x00}),
        (False, {'origin': 'https://evil.example.com'}),
        (False, {'type': 'webauthn.create'}),
        (False, {'challenge': 'AAAA'}),
    ]:
        sig = DEVICE.webauthn_signature(b'data', **args)
        assert key.verify(b'data', sig) is right, args
        assert verify_signature(key, b'data', sig, {WEBAUTHN.encode()}) is right
        assert not verify_signature(key, b'data', sig, {ECDSA.encode()})
        assert not key.verify(b'Data', sig)

    sig = DEVICE.webauthn_signature(b'data')
    assert not key.verify(b'data', sig + b'\0')
    assert not key.verify(b'data', sig.replace(encode_string('https://example.com'), encode_string('https://ex","a":"b')))


@pytest.mark.parametrize('name', [*NAMES, WEBAUTHN, 'extensions'])
def test_ssh_keygen_verifies_what_we_verify(name, tmp_path):
    sign = {
        WEBAUTHN: DEVICE.webauthn_signature,
        'extensions': lambda data: DEVICE.webauthn_signature(data, 0x81, b'\xa0'),
    }.get(name, lambda data: DEVICE.ssh_signature(name, data))
    name = name if name in NAMES else ECDSA
    key = decode_public_key(DEVICE.public_data(name))
    signed = _signed_data(b'file', b'', 'sha512', hashlib.sha512(b'data').digest())
    blob = b'SSHSIG' + encode_uint32(1) + encode_string(key.public_data) + encode_string('file') + encode_string('')
    blob += encode_string('sha512') + encode_string(sign(signed))
    line = b'me ' + key.export_public_key()
    assert validate_sshsig(b'data', blob, 'me', line)

    (tmp_path / 'signers').write_bytes(line)
    text = b'-----BEGIN SSH SIGNATURE-----\n' + base64.encodebytes(blob) + b'-----END SSH SIGNATURE-----\n'
    (tmp_path / 'sig').write_bytes(text)
    verify = ['-n', 'file', '-I', 'me', '-f', tmp_path / 'signers', '-s', tmp_path / 'sig']
    subprocess.run(['ssh-keygen', '-Y', 'verify', *verify], input=b'data', check=True, capture_output=True)


def test_malformed_keys():
    point = DEVICE.point()
    nist = encode_string('nistp256')

    for blob in [
        encode_string(ED25519) + encode_string(bytes(31)) + encode_string('ssh:'),
        encode_string(ED25519) + encode_string(bytes(33)) + encode_string('ssh:'),
        encode_string(ED25519) + encode_string(bytes(32)),
        encode_string(ED25519) + encode_string(bytes(32)) + encode_string('ssh:') + b'\0',
        encode_string(ED25519) + encode_string(bytes(32)) + encode_string(b'\xff'),
        encode_string(ED25519) + encode_string(bytes(32)) + encode_string('a\0b'),
        encode_string(ED25519) + encode_string(bytes(32)) + encode_string('a' * 5000),
        encode_string(ECDSA) + encode_string('nistp384') + encode_string(point) + encode_string('ssh:'),
        encode_string(ECDSA) + nist + encode_string(point[:-1]) + encode_string('ssh:'),
        encode_string(ECDSA) + nist + encode_string(b'\4' + bytes(64)) + encode_string('ssh:'),
        encode_string(ECDSA) + nist + encode_string(b'\2' + point[1:33]) + encode_string('ssh:'),
    ]:
        with pytest.raises(KeyImportError):
            decode_public_key(blob)


# --- a device


class CTAPError(Exception):
    class ERR:
        NO_CREDENTIALS = 0x2E
        INVALID_CREDENTIAL = 0x22

    def __init__(self, code):
        super().__init__(f'CTAP error {code}')
        self.code = code


@pytest.fixture
def fido2():
    """The package `fido2` with our device behind its protocol in CBOR."""

    return pytest.importorskip('fido2')


@pytest.fixture
def device(fido2, monkeypatch):
    from fido2 import cbor
    from fido2.hid import CAPABILITY, CTAPHID, CtapHidDevice

    made = Device()

    class HidDevice:
        capabilities = CAPABILITY.CBOR
        handle = HANDLE
        touched = True
        calls = []

        def call(self, cmd, data=b'', event=None, on_keepalive=None):
            assert cmd == CTAPHID.CBOR
            fields = cbor.decode(data[1:]) if len(data) > 1 else {}
            self.calls.append((data[0], fields))

            return {1: self.make, 2: self.get, 4: self.info}[data[0]](fields)

        def info(self, fields):
            return b'\0' + cbor.encode({1: ['FIDO_2_0'], 3: bytes(16), 4: {'rk': True, 'up': True}})

        def make(self, fields):
            algorithm = fields[4][0]['alg']

            if algorithm == -8:
                public = {1: 1, 3: -8, -1: 6, -2: bytes(made.ed25519.verify_key)}
            else:
                point = made.point()
                public = {1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]}

            data = hashlib.sha256(fields[2]['id'].encode()).digest() + struct.pack('>BI', 0x41, 0)
            data += bytes(16) + struct.pack('>H', len(HANDLE)) + HANDLE + cbor.encode(public)

            return b'\0' + cbor.encode({1: 'none', 2: data, 3: {}})

        def get(self, fields):
            if fields[3][0]['id'] != self.handle:
                return b'\x2e'

            if not self.touched:
                return b'\x2f'

            flags = 1 if fields.get(5, {}).get('up', True) else 0
            name = ED25519 if self.sign_ed25519 else ECDSA
            signature = made.sign(name, fields[2], flags)
            data = hashlib.sha256(fields[1].encode()).digest() + struct.pack('>BI', flags, made.counter)

            return b'\0' + cbor.encode({1: {'id': HANDLE, 'type': 'public-key'}, 2: data, 3: signature})

    hid = HidDevice()
    monkeypatch.setattr(CtapHidDevice, 'list_devices', classmethod(lambda cls: iter([hid])))

    return hid


@pytest.mark.parametrize('name', NAMES)
def test_generate_and_sign(name, device):
    device.sign_ed25519 = name == ED25519
    key = generate_private_key(name, 'mine', application=APPLICATION, user='me')
    assert key.is_private
    assert key.application == APPLICATION
    assert import_private_key(key.export_private_key()) == key

    public = decode_public_key(key.public_data)
    sig = key.sign(b'data', name.encode())
    assert public.verify(b'data', sig)
    assert validate_sshsig(b'data', create_sshsig(key, b'data'), 'me', b'me ' + public.export_public_key())

    pair = load_keypairs(key)[0]
    assert pair.use_executor
    assert public.verify(b'data', pair.sign(b'data'))


@pytest.mark.parametrize('name', NAMES)
def test_keys_that_need_no_touch(name, device):
    device.sign_ed25519 = name == ED25519
    key = generate_private_key(name, application=APPLICATION, touch_required=False)
    sig = key.sign(b'data', name.encode())
    public = decode_public_key(key.public_data)
    assert not public.verify(b'data', sig)
    public.set_touch_required(False)
    assert public.verify(b'data', sig)

    key = generate_private_key(name, application=APPLICATION)
    assert device.calls[-1][0] == 1
    key.set_touch_required(False)
    assert not decode_public_key(key.public_data).verify(b'data', key.sign(b'data', name.encode()))
    key.set_touch_required(True)
    assert decode_public_key(key.public_data).verify(b'data', key.sign(b'data', name.encode()))


def test_devices_that_cannot_sign(device, monkeypatch):
    device.sign_ed25519 = True
    key = generate_private_key(ED25519, application=APPLICATION)
    device.touched = False

    with pytest.raises(sk_device.DeviceError, match='refused'):
        key.sign(b'data', ED25519.encode())

    device.handle = b'another'

    with pytest.raises(sk_device.DeviceError, match='holds this key'):
        key.sign(b'data', ED25519.encode())

    from fido2.hid import CtapHidDevice

    monkeypatch.setattr(CtapHidDevice, 'list_devices', classmethod(lambda cls: iter(())))

    with pytest.raises(sk_device.DeviceError, match='No security key'):
        key.sign(b'data', ED25519.encode())

    with pytest.raises(KeyGenerationError, match='No security key'):
        generate_private_key(ED25519)

    with pytest.raises(KeyImportError, match='No security key'):
        load_resident_keys('1234')

    with pytest.raises(KeyGenerationError, match='application'):
        generate_private_key(ED25519, application='https://example.com')


def test_resident_keys(device, monkeypatch):
    from fido2 import ctap2

    class Manager:
        RESULT = ctap2.CredentialManagement.RESULT
        is_supported = staticmethod(lambda info: True)

        def __init__(self, ctap, protocol, token):
            assert token == b'token for 1234'

        def get_metadata(self):
            return {self.RESULT.EXISTING_CRED_COUNT: 3}

        def enumerate_creds(self, application):
            assert application == hashlib.sha256(APPLICATION.encode()).digest()
            public = {1: 1, 3: -8, -1: 6, -2: bytes(DEVICE.ed25519.verify_key)}
            point = DEVICE.point()
            other = {1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]}

            names = self.RESULT.USER, self.RESULT.CREDENTIAL_ID, self.RESULT.PUBLIC_KEY

            return [
                dict(zip(names, ({'name': user}, {'id': HANDLE}, key), strict=True))
                for user, key in [('me', public), ('you', other), ('me', {3: -257})]
            ]

    monkeypatch.setattr(ctap2, 'CredentialManagement', Manager)
    monkeypatch.setattr(sk_device, '_pin_token', lambda ctap, pin, *rest: (None, b'token for ' + pin.encode()))
    keys = load_resident_keys('1234', application=APPLICATION)
    assert [key.public_data for key in keys] == [DEVICE.public_data(name) for name in NAMES]
    assert all(key.is_private for key in keys)
    assert [key.get_algorithm() for key in load_resident_keys('1234', application=APPLICATION, user='you')] == [ECDSA]


def test_without_the_package(monkeypatch):
    for name in ('fido2', 'fido2.client', 'fido2.ctap', 'fido2.hid'):
        monkeypatch.setitem(sys.modules, name, None)

    for error, call in [
        (KeyGenerationError, lambda: generate_private_key(ED25519)),
        (KeyImportError, lambda: load_resident_keys('1234')),
        (sk_device.DeviceError, lambda: import_private_key(our_file(ED25519)).sign(b'data', ED25519.encode())),
    ]:
        with pytest.raises(error, match=r'ssh_fast\[fido2\]'):
            call()
