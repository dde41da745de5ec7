"""SFTP's errors, one class a status code, and their way to and from status replies and operating system errors."""

import errno
import os
from typing import ClassVar

from .. import constants as c
from ..constants import DEFAULT_LANG
from ..errors import Error
from ..wire import Cursor, encode_string, encode_uint32


class SFTPError(Error):
    """An SFTP request failed; the code is one of the FX_ constants, or another that the server made up.

    Errors of copies also say where: `srcpath` and `dstpath` are the paths as bytes, `offset` the position in the file.
    """

    srcpath: bytes | None = None
    dstpath: bytes | None = None
    offset: int | None = None


class _CodedSFTPError(SFTPError):
    """An SFTP error whose class fixes its code."""

    status_code: ClassVar[int]

    def __init_subclass__(cls, code: int) -> None:
        cls.status_code = code
        _STATUS_ERRORS[code] = cls

    def __init__(self, reason: str, lang: str = DEFAULT_LANG) -> None:
        super().__init__(self.status_code, reason, lang)


_STATUS_ERRORS: dict[int, type[_CodedSFTPError]] = {}


class SFTPEOFError(_CodedSFTPError, code=c.FX_EOF):
    """A read began at or behind the end of the file, or a directory has no more names."""

    def __init__(self, reason: str = '', lang: str = DEFAULT_LANG) -> None:
        super().__init__(reason, lang)


class SFTPNoSuchFile(_CodedSFTPError, code=c.FX_NO_SUCH_FILE):
    """The file does not exist."""


class SFTPPermissionDenied(_CodedSFTPError, code=c.FX_PERMISSION_DENIED):
    """The user may not do this."""


class SFTPFailure(_CodedSFTPError, code=c.FX_FAILURE):
    """The operation failed, for a reason that has no code of its own."""


class SFTPBadMessage(_CodedSFTPError, code=c.FX_BAD_MESSAGE):
    """A message was badly formed, or does not fit the protocol."""


class SFTPNoConnection(_CodedSFTPError, code=c.FX_NO_CONNECTION):
    """There is no connection to the server: the session was never begun, or has been closed."""


class SFTPConnectionLost(_CodedSFTPError, code=c.FX_CONNECTION_LOST):
    """The connection to the server went away while the request was under way."""


class SFTPOpUnsupported(_CodedSFTPError, code=c.FX_OP_UNSUPPORTED):
    """The other side does not know this operation."""


class SFTPInvalidHandle(_CodedSFTPError, code=c.FX_INVALID_HANDLE):
    """The handle is not one that is open in this session."""


class SFTPNoSuchPath(_CodedSFTPError, code=c.FX_NO_SUCH_PATH):
    """A directory on the way to the file does not exist."""


class SFTPFileAlreadyExists(_CodedSFTPError, code=c.FX_FILE_ALREADY_EXISTS):
    """The file exists already."""


class SFTPWriteProtect(_CodedSFTPError, code=c.FX_WRITE_PROTECT):
    """The file system or medium cannot be written."""


class SFTPNoMedia(_CodedSFTPError, code=c.FX_NO_MEDIA):
    """The drive holds no medium."""


class SFTPNoSpaceOnFilesystem(_CodedSFTPError, code=c.FX_NO_SPACE_ON_FILESYSTEM):
    """The file system is full."""


class SFTPQuotaExceeded(_CodedSFTPError, code=c.FX_QUOTA_EXCEEDED):
    """The user's quota does not allow more."""


class SFTPUnknownPrincipal(_CodedSFTPError, code=c.FX_UNKNOWN_PRINCIPAL):
    """A user or group is not known to the server; `unknown_names` says which."""

    def __init__(self, reason: str, lang: str = DEFAULT_LANG, unknown_names: tuple[str, ...] = ()) -> None:
        super().__init__(reason, lang)
        self.unknown_names = unknown_names


class SFTPLockConflict(_CodedSFTPError, code=c.FX_LOCK_CONFLICT):
    """The file is locked by somebody else."""


class SFTPDirNotEmpty(_CodedSFTPError, code=c.FX_DIR_NOT_EMPTY):
    """The directory is not empty."""


class SFTPNotADirectory(_CodedSFTPError, code=c.FX_NOT_A_DIRECTORY):
    """The file is not a directory."""


class SFTPInvalidFilename(_CodedSFTPError, code=c.FX_INVALID_FILENAME):
    """The name cannot be a file's name here."""


class SFTPLinkLoop(_CodedSFTPError, code=c.FX_LINK_LOOP):
    """Too many symbolic links lie on the way to the file."""


class SFTPCannotDelete(_CodedSFTPError, code=c.FX_CANNOT_DELETE):
    """The file cannot be deleted."""


class SFTPInvalidParameter(_CodedSFTPError, code=c.FX_INVALID_PARAMETER):
    """A value in the request is out of its range."""


class SFTPFileIsADirectory(_CodedSFTPError, code=c.FX_FILE_IS_A_DIRECTORY):
    """The file is a directory."""


class SFTPByteRangeLockConflict(_CodedSFTPError, code=c.FX_BYTE_RANGE_LOCK_CONFLICT):
    """Part of the range is locked by somebody else."""


class SFTPByteRangeLockRefused(_CodedSFTPError, code=c.FX_BYTE_RANGE_LOCK_REFUSED):
    """The lock was refused."""


class SFTPDeletePending(_CodedSFTPError, code=c.FX_DELETE_PENDING):
    """The file is about to be deleted."""


class SFTPFileCorrupt(_CodedSFTPError, code=c.FX_FILE_CORRUPT):
    """The file system is damaged."""


class SFTPOwnerInvalid(_CodedSFTPError, code=c.FX_OWNER_INVALID):
    """The file cannot be given to this owner."""


class SFTPGroupInvalid(_CodedSFTPError, code=c.FX_GROUP_INVALID):
    """The file cannot be given to this group."""


class SFTPNoMatchingByteRangeLock(_CodedSFTPError, code=c.FX_NO_MATCHING_BYTE_RANGE_LOCK):
    """There is no lock on exactly this range."""


# How operating system errors are told to clients; what is not listed is a plain failure with its own text.
_ERRNO_ERRORS: dict[int, type[_CodedSFTPError]] = {
    errno.ENOENT: SFTPNoSuchFile,
    errno.EACCES: SFTPPermissionDenied,
    errno.EPERM: SFTPPermissionDenied,
    errno.ENOSYS: SFTPOpUnsupported,
    errno.EOPNOTSUPP: SFTPOpUnsupported,
    errno.EBADF: SFTPInvalidHandle,
    errno.EEXIST: SFTPFileAlreadyExists,
    errno.EROFS: SFTPWriteProtect,
    errno.ENOSPC: SFTPNoSpaceOnFilesystem,
    errno.EDQUOT: SFTPQuotaExceeded,
    errno.ENOTEMPTY: SFTPDirNotEmpty,
    errno.ENOTDIR: SFTPNotADirectory,
    errno.ENAMETOOLONG: SFTPInvalidFilename,
    errno.EILSEQ: SFTPInvalidFilename,
    errno.ELOOP: SFTPLinkLoop,
    errno.EINVAL: SFTPInvalidParameter,
    errno.EISDIR: SFTPFileIsADirectory,
}

# Codes that came after version 3, and the version 3 code nearest in meaning; the others become FX_FAILURE.
_V3_CODES = {
    c.FX_NO_SUCH_PATH: c.FX_NO_SUCH_FILE,
    c.FX_NOT_A_DIRECTORY: c.FX_NO_SUCH_FILE,
    c.FX_WRITE_PROTECT: c.FX_PERMISSION_DENIED,
    c.FX_CANNOT_DELETE: c.FX_PERMISSION_DENIED,
}

_NO_TEXT = {
    c.FX_EOF: 'End of file',
    c.FX_NO_SUCH_FILE: 'No such file',
    c.FX_PERMISSION_DENIED: 'Permission denied',
    c.FX_BAD_MESSAGE: 'Bad message',
    c.FX_OP_UNSUPPORTED: 'Operation unsupported',
}


def sftp_error(code: int, reason: str, lang: str = DEFAULT_LANG) -> SFTPError:
    """Make the error that a status code other than FX_OK stands for."""

    reason = reason or _NO_TEXT.get(code, f'Failure (status {code})')
    cls = _STATUS_ERRORS.get(code)

    return cls(reason, lang) if cls else SFTPError(code, reason, lang)


def decode_status(cursor: Cursor) -> SFTPError | None:
    """Decode the fields of a STATUS reply: None for FX_OK. Some servers leave out the text and its language."""

    code = cursor.uint32()
    reason = cursor.string() if cursor.remaining else b''
    lang = cursor.string() if cursor.remaining else b''

    return None if code == c.FX_OK else status_error(code, reason, lang)


def status_error(code: int, reason: bytes, lang: bytes = b'') -> SFTPError:
    """Make the error of a failed status as it came over the wire."""

    return sftp_error(code, reason.decode('utf-8', 'backslashreplace'), lang.decode('ascii', 'replace') or DEFAULT_LANG)


def encode_status(code: int, reason: str = '', lang: str = DEFAULT_LANG) -> bytes:
    """Encode the fields of a STATUS reply; a code that version 3 does not have is sent as its nearest."""

    if code > c.FX_V3_END:
        code = _V3_CODES.get(code, c.FX_FAILURE)

    return encode_uint32(code) + encode_string(reason.encode('utf-8', 'replace')) + encode_string(lang)


def error_from_os(exc: OSError) -> SFTPError:
    """Make the SFTP error that tells a client of an operating system error; the local path is not told."""

    reason = os.strerror(exc.errno) if exc.errno else str(exc) or 'Failure'
    cls = _ERRNO_ERRORS.get(exc.errno, SFTPFailure) if exc.errno else SFTPFailure

    return cls(reason)
