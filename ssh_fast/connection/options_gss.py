"""What the options about GSSAPI become: whether it is wanted, of which host, with whose credentials."""

import os
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from ..transport.kex.gss import gss_kex_algorithms
from .gss import KERBEROS, gss_available

GSS_NAMES = ('gss_auth', 'gss_kex', 'gss_host', 'gss_store', 'gss_delegate_creds')


def switch(name: str, value: object) -> bool:
    """Take True, or False or None for off.

    Raises:
      ValueError: it is neither, or there is no package for it
    """

    if value is None or value is False:
        return False

    if value is not True:
        raise ValueError(f'{name}: expected True or False, got {value!r}')

    _check_available(name)

    return True


def host(name: str, value: object) -> str | None:
    """Take the name of a host, or a Kerberos principal; None turns GSSAPI off."""

    if value is None:
        return None

    if not isinstance(value, str) or not value or any(char <= ' ' or char == '\x7f' for char in value):
        raise ValueError(f'{name}: expected the name of a host or a principal, got {value!r}')

    _check_available(name)

    return value


def store(kind: str) -> Callable[[str, Any], Mapping[str | bytes, str | bytes] | None]:
    """Make a check for where credentials are: a path of this kind, or a mapping of kinds as the library has them."""

    def check(name: str, value: Any) -> Mapping[str | bytes, str | bytes] | None:
        if value is None:
            return None

        items = value if isinstance(value, Mapping) else {kind: value}
        found: dict[str | bytes, str | bytes] = {}

        for key, place in items.items():
            place = os.fspath(place) if isinstance(place, PurePath) else place

            if not isinstance(key, str | bytes) or not isinstance(place, str | bytes) or not place:
                raise ValueError(f'{name}: expected a path, or a mapping of texts, got {value!r}')

            found[key] = place

        _check_available(name)

        return found

    return check


def is_wanted(given: Mapping[str, Any], effective: Mapping[str, Any]) -> bool:
    """Tell whether GSSAPI is to be used: if it is switched on, or if nothing is said and a keyword would need it.

    `effective` are the values of a configuration and those that were given as keywords.
    """

    if 'gss_host' in given and given['gss_host'] is None:
        return False

    if 'gss_auth' in effective:
        return bool(effective['gss_auth'])

    return any(given.get(name) for name in GSS_NAMES)


def kex_is_wanted(given: Mapping[str, Any], effective: Mapping[str, Any], kex_algs: tuple[bytes, ...]) -> bool:
    """Tell whether keys are to be exchanged by GSSAPI.

    Raises:
      ValueError: they are, by a keyword, but none of the methods chosen has a counterpart there
    """

    wanted = bool(effective.get('gss_kex')) and not ('gss_host' in given and given['gss_host'] is None)

    if wanted and not gss_kex_algorithms(KERBEROS, kex_algs):
        if 'gss_kex' not in given:
            return False

        chosen = b', '.join(kex_algs).decode()
        raise ValueError(f'gss_kex: expected one of kex_algs to exist with GSSAPI too, got {chosen}')

    return wanted


def _check_available(name: str) -> None:
    if not gss_available():
        raise ValueError(f"{name}: GSSAPI needs the gssapi package: pip install 'ssh_fast[gssapi]'")
