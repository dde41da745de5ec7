"""File attributes, names and file system figures of SFTP version 3 (filexfer-02 section 5), to and from bytes."""

import os
import stat
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Self

from .._sftp_codec import decode_names as decode_entries
from .._sftp_codec import encode_attrs as encode_fields
from ..constants import (
    FILEXFER_ATTR_ACMODTIME,
    FILEXFER_ATTR_DEFINED_V3,
    FILEXFER_ATTR_EXTENDED,
    FILEXFER_ATTR_PERMISSIONS,
    FILEXFER_ATTR_SIZE,
    FILEXFER_ATTR_UIDGID,
    FILEXFER_TYPE_BLOCK_DEVICE,
    FILEXFER_TYPE_CHAR_DEVICE,
    FILEXFER_TYPE_DIRECTORY,
    FILEXFER_TYPE_FIFO,
    FILEXFER_TYPE_REGULAR,
    FILEXFER_TYPE_SOCKET,
    FILEXFER_TYPE_SPECIAL,
    FILEXFER_TYPE_SYMLINK,
    FILEXFER_TYPE_UNKNOWN,
)
from ..errors import PacketDecodeError
from ..wire import Cursor, encode_string, encode_uint32, encode_uint64

UINT32_MAX = 0xffffffff
UINT64_MAX = 0xffffffffffffffff

# What nearly every server sends, coded at once: size, uid, gid, permissions, atime, mtime.
_USUAL = FILEXFER_ATTR_SIZE | FILEXFER_ATTR_UIDGID | FILEXFER_ATTR_PERMISSIONS | FILEXFER_ATTR_ACMODTIME
_USUAL_FIELDS = struct.Struct('>QIIIII')
_LENGTH = struct.Struct('>I')

_FILE_TYPES = {
    stat.S_IFREG: FILEXFER_TYPE_REGULAR,
    stat.S_IFDIR: FILEXFER_TYPE_DIRECTORY,
    stat.S_IFLNK: FILEXFER_TYPE_SYMLINK,
    stat.S_IFSOCK: FILEXFER_TYPE_SOCKET,
    stat.S_IFCHR: FILEXFER_TYPE_CHAR_DEVICE,
    stat.S_IFBLK: FILEXFER_TYPE_BLOCK_DEVICE,
    stat.S_IFIFO: FILEXFER_TYPE_FIFO,
}


def file_type(mode: int) -> int:
    """Return the FILEXFER_TYPE_ constant of a file's mode; a mode with permission bits only is of unknown type."""

    kind = stat.S_IFMT(mode)

    return _FILE_TYPES.get(kind, FILEXFER_TYPE_SPECIAL if kind else FILEXFER_TYPE_UNKNOWN)


def _checked(name: str, value: int, maximum: int) -> int:
    if not 0 <= value <= maximum:
        raise ValueError(f'Attribute {name} must be from 0 to {maximum}, got {value}')

    return value


def _encode_time(name: str, seconds: float | None, nanoseconds: int | None) -> bytes:
    """Encode a time as whole seconds since 1970; what lies outside of 32 bits becomes the nearest that fits."""

    if seconds is None:
        if nanoseconds is None:
            raise ValueError(f'Attribute {name} is missing: version 3 carries atime and mtime together')

        seconds = nanoseconds // 1_000_000_000

    return encode_uint32(min(max(int(seconds), 0), UINT32_MAX))


@dataclass(slots=True)
class SFTPAttrs:
    """The attributes of a file; None means that it is not known, or not to be changed.

    Version 3 of the protocol carries `size`, `uid` with `gid`, `permissions`, `atime` with `mtime` and `extended`; the
    file's `type` is taken from the permissions. Times are seconds since 1970, those of the `_ns` fields nanoseconds.
    """

    type: int = FILEXFER_TYPE_UNKNOWN
    size: int | None = None
    alloc_size: int | None = None
    uid: int | None = None
    gid: int | None = None
    owner: str | None = None
    group: str | None = None
    permissions: int | None = None
    atime: float | None = None
    atime_ns: int | None = None
    crtime: float | None = None
    crtime_ns: int | None = None
    mtime: float | None = None
    mtime_ns: int | None = None
    ctime: float | None = None
    ctime_ns: int | None = None
    acl: bytes | None = None
    attrib_bits: int | None = None
    attrib_valid: int | None = None
    text_hint: int | None = None
    mime_type: str | None = None
    nlink: int | None = None
    untrans_name: bytes | None = None
    extended: Sequence[tuple[bytes, bytes]] = ()

    def __repr__(self) -> str:
        known = [(item.name, getattr(self, item.name)) for item in fields(self)]

        return f'SFTPAttrs({", ".join(f"{name}={value!r}" for name, value in known if value not in (None, ()))})'

    def encode(self) -> bytes:
        """Encode what version 3 can carry; ValueError if half of a pair is missing or a value does not fit."""

        if not self.extended and self.size is not None and self.mtime is not None and self.atime is not None:
            try:
                times = int(self.atime), int(self.mtime)

                return encode_fields((_USUAL, self.size, self.uid, self.gid, self.permissions, *times, ()))
            except (TypeError, OverflowError):
                # Something is missing, or does not fit: what it is, is seen one by one.
                pass

        return self._encode_one_by_one()

    def _encode_one_by_one(self) -> bytes:
        flags = 0
        parts = []

        if self.size is not None:
            flags |= FILEXFER_ATTR_SIZE
            parts.append(encode_uint64(_checked('size', self.size, UINT64_MAX)))

        if self.uid is not None or self.gid is not None:
            if self.uid is None or self.gid is None:
                raise ValueError('Attributes uid and gid must be given together: version 3 carries them as a pair')

            flags |= FILEXFER_ATTR_UIDGID
            parts.append(encode_uint32(_checked('uid', self.uid, UINT32_MAX)))
            parts.append(encode_uint32(_checked('gid', self.gid, UINT32_MAX)))
        elif self.owner is not None or self.group is not None:
            raise ValueError('Attributes owner and group cannot be sent: version 3 has numeric uid and gid only')

        if self.permissions is not None:
            flags |= FILEXFER_ATTR_PERMISSIONS
            parts.append(encode_uint32(_checked('permissions', self.permissions, UINT32_MAX)))

        if any(value is not None for value in (self.atime, self.atime_ns, self.mtime, self.mtime_ns)):
            flags |= FILEXFER_ATTR_ACMODTIME
            parts.append(_encode_time('atime', self.atime, self.atime_ns))
            parts.append(_encode_time('mtime', self.mtime, self.mtime_ns))

        if self.extended:
            flags |= FILEXFER_ATTR_EXTENDED
            parts.append(encode_uint32(len(self.extended)))
            parts += [encode_string(name) + encode_string(value) for name, value in self.extended]

        return encode_uint32(flags) + b''.join(parts)

    @classmethod
    def decode(cls, cursor: Cursor) -> Self:
        """Decode attributes; a flag unknown to version 3 makes what follows unreadable: PacketDecodeError."""

        flags = cursor.uint32()

        if flags & ~FILEXFER_ATTR_DEFINED_V3:
            raise PacketDecodeError(f'Expected attribute flags of SFTP version 3, got {flags:#010x}')

        if flags == _USUAL:
            size, uid, gid, permissions, atime, mtime = _USUAL_FIELDS.unpack(cursor.bytes(_USUAL_FIELDS.size))

            return cls(file_type(permissions), size, None, uid, gid, None, None, permissions, atime, mtime=mtime)

        attrs = cls()

        if flags & FILEXFER_ATTR_SIZE:
            attrs.size = cursor.uint64()

        if flags & FILEXFER_ATTR_UIDGID:
            attrs.uid = cursor.uint32()
            attrs.gid = cursor.uint32()

        if flags & FILEXFER_ATTR_PERMISSIONS:
            attrs.permissions = cursor.uint32()
            attrs.type = file_type(attrs.permissions)

        if flags & FILEXFER_ATTR_ACMODTIME:
            attrs.atime = cursor.uint32()
            attrs.mtime = cursor.uint32()

        if flags & FILEXFER_ATTR_EXTENDED:
            count = cursor.uint32()

            # Two empty strings take eight bytes: a count that cannot fit is refused before anything is made of it.
            if count * 8 > cursor.remaining:
                raise PacketDecodeError(f'Expected {count} extended attributes, got {cursor.remaining} bytes')

            attrs.extended = [(cursor.string(), cursor.string()) for _ in range(count)]

        return attrs

    @classmethod
    def from_local(cls, result: os.stat_result) -> Self:
        """Take the attributes from the result of `os.stat`."""

        mode = result.st_mode

        return cls(
            file_type(mode),
            result.st_size,
            None,
            result.st_uid,
            result.st_gid,
            None,
            None,
            mode,
            result.st_atime,
            result.st_atime_ns,
            None,
            None,
            result.st_mtime,
            result.st_mtime_ns,
            result.st_ctime,
            result.st_ctime_ns,
            nlink=result.st_nlink,
        )


@dataclass(slots=True)
class SFTPName:
    """An entry of a directory: its name, the line that `ls -l` would show, and its attributes.

    The names are bytes on the wire and in a server; a client whose caller uses text gets text.
    """

    filename: bytes | str = ''
    longname: bytes | str = ''
    attrs: SFTPAttrs = field(default_factory=SFTPAttrs)

    def encode(self) -> bytes:
        """Encode as one entry of a NAME reply."""

        filename, longname = self.filename, self.longname

        if isinstance(filename, str):
            filename = filename.encode()

        if isinstance(longname, str):
            longname = longname.encode()

        return b''.join(
            (_LENGTH.pack(len(filename)), filename, _LENGTH.pack(len(longname)), longname, self.attrs.encode())
        )


def decode_names(cursor: Cursor) -> list[SFTPName]:
    """Decode the count and the entries of a NAME reply, which are all that is left; the names are bytes."""

    return [
        SFTPName(
            filename,
            longname,
            SFTPAttrs(
                FILEXFER_TYPE_UNKNOWN if permissions is None else file_type(permissions),
                size,
                None,
                uid,
                gid,
                None,
                None,
                permissions,
                atime,
                mtime=mtime,
                extended=list(extended) if extended else (),
            ),
        )
        for filename, longname, (_, size, uid, gid, permissions, atime, mtime, extended) in decode_entries(
            cursor.rest()
        )
    ]


def encode_names(names: Sequence[SFTPName]) -> bytes:
    """Encode the count and the entries of a NAME reply."""

    return encode_uint32(len(names)) + b''.join(name.encode() for name in names)


@dataclass(slots=True)
class SFTPVFSAttrs:
    """The figures of a file system, as statvfs@openssh.com carries them; sizes in bytes, blocks of `frsize` bytes."""

    bsize: int = 0
    frsize: int = 0
    blocks: int = 0
    bfree: int = 0
    bavail: int = 0
    files: int = 0
    ffree: int = 0
    favail: int = 0
    fsid: int = 0
    flags: int = 0
    namemax: int = 0

    def encode(self) -> bytes:
        """Encode as the reply's eleven uint64."""

        values = [(item.name, getattr(self, item.name)) for item in fields(self)]

        return b''.join(encode_uint64(_checked(name, value, UINT64_MAX)) for name, value in values)

    @classmethod
    def decode(cls, cursor: Cursor) -> Self:
        """Decode the reply's eleven uint64."""

        return cls(*[cursor.uint64() for _ in fields(cls)])

    @classmethod
    def from_local(cls, result: os.statvfs_result) -> Self:
        """Take the figures from the result of `os.statvfs`."""

        return cls(
            result.f_bsize,
            result.f_frsize,
            result.f_blocks,
            result.f_bfree,
            result.f_bavail,
            result.f_files,
            result.f_ffree,
            result.f_favail,
            result.f_fsid & UINT64_MAX,
            # OpenSSH's two flags are those of POSIX: ST_RDONLY and ST_NOSUID.
            result.f_flag & (os.ST_RDONLY | os.ST_NOSUID),
            result.f_namemax,
        )


@dataclass(slots=True)
class SFTPLimits:
    """What limits@openssh.com tells: lengths in bytes; 0 or None means that the server names no limit."""

    max_packet_len: int | None = None
    max_read_len: int | None = None
    max_write_len: int | None = None
    max_open_handles: int | None = None

    def encode(self) -> bytes:
        """Encode as the reply's four uint64."""

        return b''.join(encode_uint64(getattr(self, item.name) or 0) for item in fields(self))

    @classmethod
    def decode(cls, cursor: Cursor) -> Self:
        """Decode the reply's four uint64."""

        return cls(*[cursor.uint64() for _ in fields(cls)])


def owner_attrs(
    uid_or_owner: int | str | None,
    gid_or_group: int | str | None,
    uid: int | None,
    gid: int | None,
    owner: str | None,
    group: str | None,
) -> SFTPAttrs:
    """Make the attributes of a change of owner from the arguments of `chown`."""

    if isinstance(uid_or_owner, int):
        uid = uid_or_owner
    elif uid_or_owner is not None:
        owner = uid_or_owner

    if isinstance(gid_or_group, int):
        gid = gid_or_group
    elif gid_or_group is not None:
        group = gid_or_group

    return SFTPAttrs(uid=uid, gid=gid, owner=owner, group=group)


def time_attrs(times: tuple[float, float] | None, ns: tuple[int, int] | None) -> SFTPAttrs:
    """Make the attributes of a change of times from the arguments of `utime`; without any it is now."""

    if times is not None and ns is not None:
        raise ValueError('Only one of times and ns can be given')

    if ns is not None:
        return SFTPAttrs(atime_ns=ns[0], mtime_ns=ns[1])

    atime, mtime = times or (time.time(),) * 2

    return SFTPAttrs(atime=atime, mtime=mtime)


def nanoseconds(seconds: float | None) -> int | None:
    """Return a time in nanoseconds, if it is known."""

    return None if seconds is None else int(seconds * 1_000_000_000)
