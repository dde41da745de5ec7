"""What stands behind the values of options: keys in files, the local user, what the files of a configuration name."""

import getpass
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..channel.channel import DEFAULT_MAX_WINDOW, DEFAULT_WINDOW
from ..errors import KeyEncryptionError, KeyImportError
from ..keys.key import SSHKey
from ..keys.keypair import SSHKeyPair
from ..keys.load import load_default_keypairs, load_keypairs, load_public_keys
from ..keys.smartcard import load_pkcs11_keys
from ..logging import logger, printable
from . import options_prepare as prepare
from . import options_trust as trust


def windows(given: Mapping[str, Any]) -> tuple[int, int]:
    """Return the first receive window and its bound: what is not given follows what is."""

    window, bound = given.get('window'), given.get('max_window')

    if window and bound and window > bound:
        raise ValueError(f'window: expected at most max_window, {bound}, got {window}')

    return window or min(DEFAULT_WINDOW, bound or DEFAULT_WINDOW), bound or max(DEFAULT_MAX_WINDOW, window or 0)


def local_user(name: str) -> str:
    """Return the name of the local user; `name` is the option that it stands for.

    Raises:
      ValueError: the user has none
    """

    try:
        return prepare.username(name, getpass.getuser())
    except (KeyError, OSError) as exc:
        raise ValueError(f'{name}: the local user has no name, so it must be given: {exc}') from None


def local_user_if_any() -> str:
    """Return the name of the local user, or an empty text: containers run as users that have none."""

    try:
        return local_user('username')
    except ValueError:
        return ''


def client_keys(given: Mapping[str, Any], configured: bool) -> tuple[SSHKeyPair, ...]:
    """Load the keys of a client: those given, those that a configuration names, or the user's; then those of tokens."""

    if configured:
        pairs = _configured_keys(given)
    elif 'client_keys' in given:
        pairs = key_pairs('client_keys', 'client_certs', given)
    else:
        pairs = tuple(load_default_keypairs(given.get('passphrase'), _certificates('client_certs', given)))

    if provider := given.get('pkcs11_provider'):
        pairs += tuple(load_pkcs11_keys(os.path.expanduser(provider), given.get('pkcs11_pin')))

    return pairs


def _configured_keys(given: Mapping[str, Any]) -> tuple[SSHKeyPair, ...]:
    """Load those of the files of IdentityFile that can be: as with OpenSSH, some may be missing, or locked."""

    certificates = _certificates('client_certs', given)
    pairs: list[SSHKeyPair] = []

    for path in given['client_keys']:
        try:
            pairs.extend(
                load_keypairs(
                    [path],
                    given.get('passphrase'),
                    certificates,
                    skip_public=True,
                    ignore_encrypted=given.get('ignore_encrypted', True),
                )
            )
        except (OSError, KeyImportError, KeyEncryptionError) as exc:
            logger.info('The key file %s is left out: %s', path, printable(str(exc)))

    return tuple(pairs)


def identities(paths: Sequence[str]) -> list[SSHKey]:
    """Return the public keys of identity files: of `<file>.pub`, or of the file itself if it is public."""

    keys: list[SSHKey] = []

    for path in paths:
        for name in (f'{path}.pub', path):
            try:
                keys.extend(load_public_keys(name))
            except (OSError, KeyImportError):
                continue

            break

    return keys


def key_pairs(name: str, certificates: str, given: Mapping[str, Any]) -> tuple[SSHKeyPair, ...]:
    """Load the keys that an option has, with the certificates that another has.

    Raises:
      OSError: a file cannot be read
      KeyImportError: there is no key in it
      ValueError: the value is neither keys nor files
    """

    keys = given.get(name)

    if keys is None or prepare.is_unset(keys):
        return ()

    try:
        return tuple(
            load_keypairs(
                trust.key_paths(keys),
                given.get('passphrase'),
                _certificates(certificates, given),
                ignore_encrypted=given.get('ignore_encrypted', False),
            )
        )
    except TypeError as exc:
        raise ValueError(f'{name}: expected keys or their files: {exc}') from None


def _certificates(name: str, given: Mapping[str, Any]) -> tuple[Any, ...]:
    return trust.certificates(name, given.get(name))
