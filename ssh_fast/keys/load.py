"""From what options name to key pairs: files, keys and their certificates, the user's defaults.

An encrypted key whose public half is known is opened when it first signs, if its passphrase can be asked for.
"""

import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path, PurePath
from typing import TypeAlias, TypeGuard, cast

from ..errors import KeyEncryptionError, KeyImportError
from ..logging import logger, printable
from .certificate import SSHCertificate
from .certificate_files import CertificateList, load_certificates
from .key import SSHKey
from .key_files import (
    Passphrase,
    import_private_key,
    import_public_key,
    needs_passphrase,
    public_of_sealed,
    read_private_key,
    read_private_key_list,
    read_public_key,
    read_public_key_list,
)
from .keypair import PassphraseValue, Seal, SSHKeyPair, SSHLocalKeyPair, SSHSealedKeyPair
from .rsa import set_default_skip_rsa_key_validation
from .x509 import SSHX509CertificateChain

__all__ = [
    'KeyPairItem',
    'KeyPairList',
    'import_private_key',
    'import_public_key',
    'load_default_keypairs',
    'load_keypairs',
    'load_public_keys',
    'open_keypairs',
    'read_private_key',
    'read_private_key_list',
    'read_public_key',
    'read_public_key_list',
    'set_default_skip_key_file_check',
    'set_default_skip_rsa_key_validation',
]

_Path: TypeAlias = str | PurePath
_KeySource: TypeAlias = SSHKey | bytes | _Path
_CertSource: TypeAlias = SSHCertificate | bytes | _Path
KeyPairItem: TypeAlias = SSHKeyPair | _KeySource | tuple[_KeySource, _CertSource | None]
KeyPairList: TypeAlias = KeyPairItem | Sequence[KeyPairItem]

# In the order in which they are offered to a server; what needs a device comes last.
_DEFAULT_KEY_FILES = ('id_ed25519', 'id_ecdsa', 'id_rsa', 'id_ed448', 'id_dsa', 'id_ed25519_sk', 'id_ecdsa_sk')

# A private key in PEM is told by its first line, before which may be text.
_LABEL_WITHIN = 4096

_skip_file_check = False


def set_default_skip_key_file_check(skip_check: bool) -> None:
    """Set whether `load_keypairs` takes private key files that others than their owner can open (default: no)."""

    global _skip_file_check

    _skip_file_check = skip_check


def _check_file(path: str) -> None:
    """Refuse a private key file of ours that others can open, as OpenSSH does; other owners' files are theirs to guard.

    A key that was read by `read_private_key` and is given as such is taken from wherever it comes.
    """

    if _skip_file_check or not hasattr(os, 'getuid'):
        return

    status = os.stat(path)

    if status.st_uid == os.getuid() and status.st_mode & 0o077:
        raise KeyImportError(
            f'{path}: expected a private key file that its owner alone can open, got one of mode '
            f'{stat.S_IMODE(status.st_mode):04o}: run chmod 600'
        )


# --- key pairs


def load_keypairs(
    keylist: KeyPairList,
    passphrase: Passphrase = None,
    certlist: CertificateList = (),
    skip_public: bool = False,
    ignore_encrypted: bool = False,
    unsafe_skip_rsa_key_validation: bool | None = None,
) -> Sequence[SSHKeyPair]:
    """Load key pairs from one or more key files, keys, key pairs, private keys as bytes, or (key, certificate).

    A single path may hold several keys. A certificate, of `certlist`, of the pair, or of a file `<key>-cert.pub`, gives
    a key pair with it, in front of the one without. `skip_public` passes over public keys, `ignore_encrypted` over
    files whose passphrase is missing or wrong; both raise otherwise. `passphrase` may be a callable that is given the
    file's name: it is asked when the key first signs, if its public half is known, and may then be a coroutine.
    """

    loader = _Loader(passphrase, skip_public, ignore_encrypted, unsafe_skip_rsa_key_validation)
    certs = load_certificates(certlist) if certlist else ()
    pairs: list[SSHKeyPair] = []

    if isinstance(keylist, str | PurePath):
        pairs.extend(loader.load_file(keylist))
    elif isinstance(keylist, bytes | SSHKey | SSHKeyPair) or _is_pair_alone(keylist):
        pairs.extend(loader.load(cast(KeyPairItem, keylist)))
    else:
        for item in cast(Sequence[KeyPairItem], keylist):
            pairs.extend(loader.load(item))

    by_key = {cert.key.public_data: cert for cert in reversed(certs)}

    return [made for pair in pairs for made in _with_certificate(pair, by_key.get(pair.public_data), certs)]


def open_keypairs(keypairs: Sequence[SSHKeyPair]) -> Sequence[SSHKeyPair]:
    """Ask for the passphrases of all keys that are still sealed, now; one that is a coroutine cannot be asked here."""

    for pair in keypairs:
        if isinstance(pair, SSHSealedKeyPair):
            pair.open_now()

    return keypairs


def _is_pair_alone(item: object) -> TypeGuard[tuple[_KeySource, _CertSource | None]]:
    """Tell the pair (key, certificate or None) from a list of keys."""

    return (
        isinstance(item, tuple)
        and len(item) == 2
        and (item[1] is None or isinstance(item[1], SSHCertificate) or _is_certificate_of(item[0], item[1]))
    )


def _is_certificate_of(key: object, other: object) -> bool:
    """Tell a certificate, as bytes or a file, behind a key from another private key."""

    if not isinstance(key, SSHKey | bytes | str | PurePath) or not isinstance(other, bytes | str | PurePath):
        return False

    if not isinstance(other, bytes):
        with open(other, 'rb') as file:
            other = file.read(_LABEL_WITHIN)

    return b'PRIVATE KEY-----' not in other[:_LABEL_WITHIN] and other[:1] != b'\x30'


def _with_authorities(cert: SSHCertificate, certs: Sequence[SSHCertificate]) -> SSHCertificate:
    """Return a certificate as it is shown: one of X.509 with those above it."""

    if not cert.is_x509 or cert.is_x509_chain:
        return cert

    return SSHX509CertificateChain.construct_from_certs([cert, *(other for other in certs if other is not cert)])


def _with_certificate(
    pair: SSHKeyPair, cert: SSHCertificate | None, others: Sequence[SSHCertificate] = ()
) -> list[SSHKeyPair]:
    return [pair] if cert is None else [pair.with_certificate(_with_authorities(cert, others)), pair]


class _Loader:
    """The options of one `load_keypairs`, for all that it loads."""

    def __init__(
        self, passphrase: Passphrase, skip_public: bool, ignore_encrypted: bool, skip_validation: bool | None
    ) -> None:
        self._passphrase = passphrase
        self._skip_public = skip_public
        self._ignore_encrypted = ignore_encrypted
        self._skip_validation = skip_validation

    def load(self, item: KeyPairItem) -> list[SSHKeyPair]:
        """Load one item of a list; a file gives its first key."""

        cert = None

        if isinstance(item, tuple):
            if len(item) != 2:
                raise KeyImportError(f'Expected a pair of key and certificate, got {len(item)} items')

            item, source = item

            if source is not None:
                found = load_certificates(source)

                if not found:
                    raise KeyImportError('Expected a certificate behind the key, found none')

                cert = _with_authorities(found[0], found)

        if isinstance(item, SSHKeyPair):
            pairs = [item]
        elif isinstance(item, SSHKey):
            pairs = self._pairs([item])
        elif isinstance(item, bytes):
            secret = self._passphrase('') if callable(self._passphrase) else self._passphrase
            pairs = self._pairs([import_private_key(item, cast(PassphraseValue, secret), self._skip_validation)])
        elif isinstance(item, str | PurePath):
            pairs = self.load_file(item, alone=True, explicit=cert is not None)
        else:
            raise TypeError(f'Expected keys or their files, got {type(item).__name__}')

        if cert is None:
            return pairs

        return [made for pair in pairs for made in _with_certificate(pair, cert)]

    def load_file(self, filename: _Path, alone: bool = False, explicit: bool = False) -> list[SSHKeyPair]:
        """Load the keys of a file, `alone` its first; a certificate beside it counts if none is given explicitly."""

        path = os.path.abspath(filename)
        _check_file(path)

        try:
            public = public_of_sealed(path) if callable(self._passphrase) else None

            if public is not None:
                pairs: list[SSHKeyPair] = [self._sealed(filename, public)]
            elif alone:
                pairs = self._pairs([read_private_key(filename, self._passphrase, self._skip_validation)])
            else:
                keys = read_private_key_list(filename, self._passphrase, self._skip_validation)
                pairs = self._pairs(keys)

                if not keys and not self._skip_public:
                    raise KeyImportError(f'{path}: expected a private key, found none')
        except (KeyImportError, KeyEncryptionError):
            if self._ignore_encrypted and needs_passphrase(path):
                return []

            raise

        if not explicit:
            cert = _certificate_beside(path)
            pairs = [
                made
                for pair in pairs
                for made in _with_certificate(pair, cert if cert and cert.key.public_data == pair.public_data else None)
            ]

        return pairs

    def _pairs(self, keys: Sequence[SSHKey]) -> list[SSHKeyPair]:
        return [SSHLocalKeyPair(key) for key in keys if key.is_private or not self._skip_public]

    def _sealed(self, filename: _Path, public: SSHKey) -> SSHSealedKeyPair:
        """Return the pair of an encrypted file, for whose passphrase a callable is asked later."""

        ask = cast(Callable[[str], PassphraseValue | Awaitable[PassphraseValue]], self._passphrase)
        skip_validation = self._skip_validation

        def open_with(secret: PassphraseValue) -> SSHKey:
            key = read_private_key(filename, secret, skip_validation)

            if key.public_data != public.public_data:
                raise KeyImportError(f'{os.path.abspath(filename)}: the private key is not that of its public key')

            return key

        return SSHSealedKeyPair(public, Seal(lambda: ask(os.fspath(filename)), open_with))


def _certificate_beside(path: str) -> SSHCertificate | None:
    """Read the certificate that ssh-keygen put beside a key; one that cannot be read is logged and left out."""

    name = path + '-cert.pub'

    try:
        found = load_certificates(name) if os.path.exists(name) else ()
    except (OSError, KeyImportError) as exc:
        logger.warning('The certificate %s is left out: %s', name, printable(str(exc)))

        return None

    return found[0] if found else None


def load_default_keypairs(
    passphrase: Passphrase = None, certlist: CertificateList = (), directory: _Path | None = None
) -> Sequence[SSHKeyPair]:
    """Load the user's keys, id_ed25519 and so on of ~/.ssh; what cannot be read is logged and left out."""

    pairs: list[SSHKeyPair] = []
    folder = Path.home() / '.ssh' if directory is None else Path(directory)

    for name in _DEFAULT_KEY_FILES:
        path = folder / name

        try:
            if path.exists():
                pairs.extend(load_keypairs([path], passphrase, certlist))
        except (OSError, KeyImportError, KeyEncryptionError) as exc:
            logger.info('The default key %s is left out: %s', path, printable(str(exc)))

    return pairs


def load_public_keys(keylist: _Path | Sequence[bytes | _Path | SSHKey]) -> Sequence[SSHKey]:
    """Load public keys from one file, or from a list of files, keys, and public keys as bytes."""

    if isinstance(keylist, str | PurePath):
        return read_public_key_list(keylist)

    keys = []

    for item in keylist:
        if isinstance(item, SSHKey):
            keys.append(item)
        elif isinstance(item, bytes):
            keys.append(import_public_key(item))
        else:
            keys.append(read_public_key(item))

    return keys
