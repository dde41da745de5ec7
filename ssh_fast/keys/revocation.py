"""Keys and certificates that are revoked: OpenSSH's binary lists (PROTOCOL.krl), and plain lists of public keys.

Whatever cannot be understood in a list raises `KeyImportError`: what it meant to revoke would otherwise be let in.
"""

import hashlib
import os
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import PurePath
from typing import TypeAlias

from ..errors import KeyImportError, PacketDecodeError
from ..wire import Cursor
from .certificate import SSHCertificate, SSHOpenSSHCertificate
from .certificate_names import is_x509_algorithm
from .file_cache import FileCache, read_bounded
from .key import KeyRefused, SSHKey
from .openssh_format import decode_public_line
from .x509 import SSHX509Certificate

_Path: TypeAlias = str | PurePath
RevokedSource: TypeAlias = 'bytes | _Path | RevokedKeys | Sequence[_Path]'

_MAGIC = b'SSHKRL\n\0'
_FORMAT_VERSION = 1
_MAX_FILE_SIZE = 64 << 20
_MAX_SERIAL = 0xffffffffffffffff

_SECTION_CERTIFICATES = 1
_SECTION_KEYS = 2
_SECTION_SHA1 = 3
_SECTION_SIGNATURE = 4
_SECTION_SHA256 = 5
_SECTION_EXTENSION = 255

_CERT_SERIAL_LIST = 0x20
_CERT_SERIAL_RANGE = 0x21
_CERT_SERIAL_BITMAP = 0x22
_CERT_KEY_IDS = 0x23
_CERT_EXTENSION = 0x39


class _Serials:
    """Revoked serial numbers of one authority: single ones, ranges, and bitmaps, as compact as in the file."""

    def __init__(self) -> None:
        self._single: array[int] = array('Q')
        self._ranges: list[tuple[int, int]] = []
        self._bitmaps: list[tuple[int, bytes]] = []
        self.key_ids: set[str] = set()

    def add_list(self, data: bytes) -> None:
        """Add a list of uint64."""

        if len(data) % 8:
            raise KeyImportError(f'Expected serial numbers of 8 bytes each, got {len(data)} bytes')

        numbers = array('Q', data)

        if sys.byteorder == 'little':
            numbers.byteswap()

        self._single.extend(numbers)

    def add_range(self, low: int, high: int) -> None:
        """Add all from low to high."""

        if low > high:
            raise KeyImportError(f'Expected a range of serial numbers, got {low} to {high}')

        self._ranges.append((low, high))

    def add_bitmap(self, offset: int, bitmap: bytes) -> None:
        """Add those whose bit is set, the lowest bit standing for the offset."""

        if bitmap[:1] >= b'\x80':
            raise KeyImportError('Expected a bitmap of serial numbers that is not negative')

        if offset + 8 * len(bitmap.lstrip(b'\0')) > _MAX_SERIAL + 1:
            raise KeyImportError('Expected a bitmap of serial numbers of 64 bits')

        self._bitmaps.append((offset, bitmap))

    def freeze(self) -> None:
        """Sort, and join ranges that overlap, so that look-ups are quick."""

        self._single = array('Q', sorted(self._single))
        merged: list[tuple[int, int]] = []

        for low, high in sorted(self._ranges):
            if merged and low <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
            else:
                merged.append((low, high))

        self._ranges = merged

    def covers(self, serial: int) -> bool:
        """Tell whether a serial number is revoked; 0 means that the certificate has none."""

        if not serial:
            return False

        at = bisect_left(self._single, serial)

        if at < len(self._single) and self._single[at] == serial:
            return True

        at = bisect_right(self._ranges, (serial, _MAX_SERIAL)) - 1

        if at >= 0 and self._ranges[at][0] <= serial <= self._ranges[at][1]:
            return True

        for offset, bitmap in self._bitmaps:
            byte, bit = divmod(serial - offset, 8)

            if 0 <= byte < len(bitmap) and bitmap[-1 - byte] >> bit & 1:
                return True

        return False


class RevokedKeys:
    """Parsed lists of revoked keys; made once, they can be used for many connections."""

    def __init__(self) -> None:
        self._blobs: set[bytes] = set()
        self._sha1: set[bytes] = set()
        self._sha256: set[bytes] = set()
        self._serials: dict[bytes, _Serials] = {}

    def __repr__(self) -> str:
        return f'<{type(self).__name__} of {len(self._blobs) + len(self._sha1) + len(self._sha256)} keys>'

    def load(self, data: bytes, source: str = 'revoked_keys') -> None:
        """Add a list, binary or text; `source` is its name in messages."""

        try:
            if data.startswith(_MAGIC):
                self._load_krl(Cursor(data))
            else:
                self._load_text(data.decode(errors='surrogateescape'))
        except PacketDecodeError as exc:
            raise KeyImportError(f'{source}: malformed revocation list: {exc.reason}') from None
        except KeyImportError as exc:
            raise KeyImportError(f'{source}: {exc}') from None

        for serials in self._serials.values():
            serials.freeze()

    def revokes(self, credential: SSHKey | SSHCertificate) -> bool:
        """Tell whether a key is revoked, or a certificate, its key, or its authority's key."""

        if isinstance(credential, SSHKey):
            return self._revokes_blob(credential.public_data)

        if isinstance(credential, SSHX509Certificate) and credential.x509_cert.tbs_certificate_bytes in self._blobs:
            return True

        if self._revokes_blob(credential.public_data) or self._revokes_blob(credential.key.public_data):
            return True

        return isinstance(credential, SSHOpenSSHCertificate) and self._revokes_certificate(credential)

    def _revokes_certificate(self, cert: SSHOpenSSHCertificate) -> bool:
        if self._revokes_blob(cert.signing_key.public_data):
            return True

        # An empty name stands for every authority.
        for authority in (cert.signing_key.public_data, b''):
            serials = self._serials.get(authority)

            if serials and (cert.key_id in serials.key_ids or serials.covers(cert.serial)):
                return True

        return False

    def _revokes_blob(self, blob: bytes) -> bool:
        return (
            blob in self._blobs
            or (bool(self._sha256) and hashlib.sha256(blob).digest() in self._sha256)
            or (bool(self._sha1) and hashlib.sha1(blob, usedforsecurity=False).digest() in self._sha1)
        )

    # --- plain lists

    def _load_text(self, text: str) -> None:
        for number, line in enumerate(text.split('\n'), 1):
            line = line.strip()

            if line and not line.startswith('#'):
                try:
                    fields = decode_public_line(line)

                    if fields.options:
                        raise KeyImportError('Expected a public key, got something else before it')

                    if is_x509_algorithm(fields.algorithm):
                        self._revoke_x509(fields.public_data)
                        continue
                except KeyImportError as exc:
                    raise KeyImportError(f'line {number}: {exc}') from None

                # Not decoded: a type that is unknown here is revoked all the same.
                self._blobs.add(fields.public_data)

    def _revoke_x509(self, der: bytes) -> None:
        try:
            cert = SSHX509Certificate.construct_from_der(der)
        except KeyRefused:
            # Nobody can use such a certificate.
            return

        # By what is signed: who holds a certificate can write its signature in other ways that verify as well.
        self._blobs.add(cert.x509_cert.tbs_certificate_bytes)

    # --- binary lists

    def _load_krl(self, cursor: Cursor) -> None:
        cursor.bytes(len(_MAGIC))
        version = cursor.uint32()

        if version != _FORMAT_VERSION:
            raise KeyImportError(f'Expected a revocation list of version {_FORMAT_VERSION}, got {version}')

        cursor.uint64()     # the list's number
        cursor.uint64()     # when it was made
        cursor.uint64()     # flags, none of which is defined
        cursor.string()
        cursor.string()     # a comment

        while cursor.remaining:
            kind = cursor.byte()
            section = Cursor(cursor.string())

            if kind == _SECTION_CERTIFICATES:
                self._load_certificates(section)
            elif kind == _SECTION_KEYS:
                _add_all(self._blobs, section, 0)
            elif kind == _SECTION_SHA1:
                _add_all(self._sha1, section, hashlib.sha1(usedforsecurity=False).digest_size)
            elif kind == _SECTION_SHA256:
                _add_all(self._sha256, section, hashlib.sha256().digest_size)
            elif kind == _SECTION_EXTENSION:
                _skip_extension(section)
            elif kind != _SECTION_SIGNATURE:
                # Signatures of lists are obsolete: files are trusted as they lie there.
                raise KeyImportError(f'Unknown section {kind} of a revocation list')

    def _load_certificates(self, cursor: Cursor) -> None:
        serials = self._serials.setdefault(cursor.string(), _Serials())
        cursor.string()

        while cursor.remaining:
            kind = cursor.byte()
            section = Cursor(cursor.string())

            if kind == _CERT_SERIAL_LIST:
                serials.add_list(section.rest())
            elif kind == _CERT_SERIAL_RANGE:
                serials.add_range(section.uint64(), section.uint64())
            elif kind == _CERT_SERIAL_BITMAP:
                serials.add_bitmap(section.uint64(), section.string())
            elif kind == _CERT_KEY_IDS:
                while section.remaining:
                    serials.key_ids.add(section.text())
            elif kind == _CERT_EXTENSION:
                _skip_extension(section)
            else:
                raise KeyImportError(f'Unknown section {kind:#x} of revoked certificates')

            section.check_end()


def _add_all(values: set[bytes], cursor: Cursor, size: int) -> None:
    """Add every string of a section; each has `size` bytes, if that is not 0."""

    while cursor.remaining:
        value = cursor.string()

        if not value or (size and len(value) != size):
            raise KeyImportError(f'Expected {size or "some"} bytes for each revoked key, got {len(value)}')

        values.add(value)


def _skip_extension(cursor: Cursor) -> None:
    name = cursor.string()
    critical = cursor.boolean()
    cursor.string()
    cursor.check_end()

    if critical:
        raise KeyImportError(f'Unknown critical extension {name[:64]!r} of a revocation list')


_cache: FileCache[RevokedKeys] = FileCache(8)


def load_revoked_keys(source: RevokedSource) -> RevokedKeys:
    """Load revoked keys from a file, a list of files, or bytes as of a file; each file is binary or text.

    The parse of a single file is remembered while it is unchanged. A file that is missing or malformed raises.
    """

    if isinstance(source, RevokedKeys):
        return source

    revoked = RevokedKeys()

    if isinstance(source, bytes):
        revoked.load(source)
        return revoked

    if not isinstance(source, str | PurePath):
        for filename in source:
            path = os.path.abspath(filename)
            revoked.load(_read(path)[0], path)

        return revoked

    path = os.path.abspath(source)
    cached = _cache.get(path, None, os.stat(path))

    if cached is None:
        data, status = _read(path)
        revoked.load(data, path)
        _cache.put(path, None, status, revoked)
        cached = revoked

    return cached


def _read(path: str) -> tuple[bytes, os.stat_result]:
    try:
        return read_bounded(path, _MAX_FILE_SIZE)
    except ValueError as exc:
        raise KeyImportError(str(exc)) from None
