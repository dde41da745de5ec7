"""Issuing certificates: an authority's key signs a user's or a host's key (PROTOCOL.certkeys)."""

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from ..errors import KeyGenerationError
from ..wire import encode_string, encode_uint32, encode_uint64
from .certificate import (
    CERT_TYPE_HOST,
    CERT_TYPE_USER,
    DEFAULT_CA_SIGNATURES,
    MAX_PRINCIPALS,
    NEVER,
    SSHOpenSSHCertificate,
    decode_certificate,
)
from .certificate_names import certificate_algorithm
from .key import SSHKey

Time: TypeAlias = int | float | datetime | str
Comment: TypeAlias = bytes | str | tuple[()] | None

_NONCE_SIZE = 32
_UNITS = {'w': 604800, 'd': 86400, 'h': 3600, 'm': 60, 's': 1, '': 1}
_RELATIVE = re.compile(r'([+-]?)((?:\d+[wdhms])*\d+[wdhms]?)', re.IGNORECASE | re.ASCII)
_DATES = {8: '%Y%m%d', 12: '%Y%m%d%H%M', 14: '%Y%m%d%H%M%S'}


def issue_user_certificate(
    ca_key: SSHKey,
    user_key: SSHKey,
    key_id: str,
    version: int = 1,
    serial: int = 0,
    principals: str | Sequence[str] = (),
    valid_after: Time = 0,
    valid_before: Time = NEVER,
    force_command: str | None = None,
    source_address: Sequence[str] | None = None,
    permit_x11_forwarding: bool = True,
    permit_agent_forwarding: bool = True,
    permit_port_forwarding: bool = True,
    permit_pty: bool = True,
    permit_user_rc: bool = True,
    touch_required: bool = True,
    sig_alg: str | tuple[()] = (),
    comment: Comment = (),
) -> SSHOpenSSHCertificate:
    """Sign a user's key; the arguments are those of `SSHKey.generate_user_certificate`."""

    critical: dict[str, bytes] = {}

    if force_command is not None:
        critical['force-command'] = encode_string(_without_nul('force_command', force_command))

    if source_address is not None:
        critical['source-address'] = encode_string(','.join(_networks(source_address)))

    extensions = {
        'no-touch-required': not touch_required,
        'permit-X11-forwarding': permit_x11_forwarding,
        'permit-agent-forwarding': permit_agent_forwarding,
        'permit-port-forwarding': permit_port_forwarding,
        'permit-pty': permit_pty,
        'permit-user-rc': permit_user_rc,
    }

    return _issue(
        ca_key,
        CERT_TYPE_USER,
        user_key,
        key_id,
        version,
        serial,
        principals,
        valid_after,
        valid_before,
        critical,
        {name: b'' for name, permitted in extensions.items() if permitted},
        sig_alg,
        comment,
    )


def issue_host_certificate(
    ca_key: SSHKey,
    host_key: SSHKey,
    key_id: str,
    version: int = 1,
    serial: int = 0,
    principals: str | Sequence[str] = (),
    valid_after: Time = 0,
    valid_before: Time = NEVER,
    sig_alg: str | tuple[()] = (),
    comment: Comment = (),
) -> SSHOpenSSHCertificate:
    """Sign a host's key; the arguments are those of `SSHKey.generate_host_certificate`."""

    return _issue(
        ca_key,
        CERT_TYPE_HOST,
        host_key,
        key_id,
        version,
        serial,
        principals,
        valid_after,
        valid_before,
        {},
        {},
        sig_alg,
        comment,
    )


def _issue(
    ca_key: SSHKey,
    cert_type: int,
    key: SSHKey,
    key_id: str,
    version: int,
    serial: int,
    principals: str | Sequence[str],
    valid_after: Time,
    valid_before: Time,
    critical: Mapping[str, bytes],
    extensions: Mapping[str, bytes],
    sig_alg: str | tuple[()],
    comment: Comment,
) -> SSHOpenSSHCertificate:
    if version != 1:
        raise KeyGenerationError(f'Unknown certificate version {version!r}, expected 1')

    if not 0 <= serial <= NEVER:
        raise KeyGenerationError(f'Expected a serial number of 64 bits, got {serial}')

    if not ca_key.is_private:
        raise KeyGenerationError('A certificate is signed with a private key, got a public one')

    after, before = parse_time(valid_after), parse_time(valid_before)

    if before <= after:
        raise ValueError(f'Expected valid_before to be later than valid_after, got {before} and {after}')

    names = _principals(principals)
    algorithm = certificate_algorithm(key.algorithm)
    data = b''.join(
        (
            encode_string(algorithm),
            encode_string(os.urandom(_NONCE_SIZE)),
            key.encode_ssh_public(),
            encode_uint64(serial),
            encode_uint32(cert_type),
            encode_string(_without_nul('key_id', key_id)),
            encode_string(b''.join(encode_string(name) for name in names)),
            encode_uint64(after),
            encode_uint64(before),
            encode_string(_encode_options(critical)),
            encode_string(_encode_options(extensions)),
            encode_string(b''),
            encode_string(ca_key.public_data),
        )
    )
    signature = ca_key.sign(data, _signature_algorithm(ca_key, sig_alg))

    chosen = key.get_comment_bytes() if isinstance(comment, tuple) else comment

    return decode_certificate(data + encode_string(signature), chosen)


def _signature_algorithm(ca_key: SSHKey, sig_alg: str | tuple[()]) -> bytes:
    """Choose what the authority signs with: what was asked for, or the first that others accept."""

    if sig_alg:
        name = sig_alg.encode()

        if name not in ca_key.sig_algorithms:
            raise ValueError(f'A {ca_key.get_algorithm()} key cannot make {sig_alg} signatures')

        return name

    return next((name for name in ca_key.sig_algorithms if name in DEFAULT_CA_SIGNATURES), ca_key.sig_algorithms[0])


def _principals(principals: str | Sequence[str]) -> list[str]:
    if not principals:
        return []

    names = [name.strip() for name in principals.split(',')] if isinstance(principals, str) else list(principals)

    for name in names:
        # Servers before OpenSSH 10.3 took a name with a comma for a list of names.
        if not name or ',' in name:
            raise KeyGenerationError(f'Expected principals that are not empty and hold no comma, got {name!r}')

        _without_nul('principals', name)

    if len(names) > MAX_PRINCIPALS:
        raise KeyGenerationError(f'Expected at most {MAX_PRINCIPALS} principals, got {len(names)}')

    return names


def _networks(addresses: Sequence[str]) -> Iterable[str]:
    if isinstance(addresses, str) or not addresses:
        raise ValueError(f'source_address: expected a list of addresses or networks, got {addresses!r}')

    # An address is written without a prefix length, as users write it.
    return (text.strip() for text in addresses if ipaddress.ip_network(text.strip()))


def _without_nul(name: str, text: str) -> str:
    if '\0' in text:
        raise KeyGenerationError(f'{name}: expected text without NUL')

    return text


def _encode_options(options: Mapping[str, bytes]) -> bytes:
    return b''.join(encode_string(name) + encode_string(options[name]) for name in sorted(options))


def parse_time(value: Time) -> int:
    """Turn a time into seconds since 1970.

    It is a number of seconds since 1970, a datetime, 'now', a local date YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS (with
    a Z behind: in UTC), or a time from now such as '1d12h' or '-1w' in weeks, days, hours, minutes and seconds. What is
    not one of these raises `ValueError`.
    """

    if isinstance(value, bool) or not isinstance(value, int | float | datetime | str):
        raise ValueError(f'Expected a time as a number, a datetime or text, got {value!r}')

    seconds = _parse_text(value) if isinstance(value, str) else value

    if isinstance(seconds, datetime):
        seconds = seconds.timestamp()

    if not 0 <= seconds <= NEVER:
        raise ValueError(f'Expected a time from 1970 on, below 2^64 seconds, got {value!r}')

    return int(seconds)


def _parse_text(text: str) -> float:
    if text == 'now':
        return _now()

    date, zone = (text[:-1], '+0000') if text.endswith('Z') else (text, '')

    if date.isdecimal() and len(date) in _DATES:
        try:
            return datetime.strptime(date + zone, _DATES[len(date)] + ('%z' if zone else '')).timestamp()
        except (ValueError, OverflowError):
            raise ValueError(f'Expected a date of the form YYYYMMDD[HHMM[SS]][Z], got {text!r}') from None

    match = _RELATIVE.fullmatch(text)

    if not match:
        raise ValueError(f"Expected a time such as 'now', '20300101', '20300101120000' or '+1w2d3h', got {text!r}")

    parts = re.findall(r'(\d+)([wdhms]?)', match[2].lower())
    seconds = sum(int(number) * _UNITS[unit] for number, unit in parts)

    return _now() + (-seconds if match[1] == '-' else seconds)


def _now() -> float:
    return datetime.now(UTC).timestamp()
