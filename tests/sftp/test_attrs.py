import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssh_fast import constants as c
from ssh_fast.errors import PacketDecodeError
from ssh_fast.sftp import errors
from ssh_fast.sftp.attrs import (
    SFTPAttrs,
    SFTPLimits,
    SFTPName,
    SFTPVFSAttrs,
    decode_names,
    encode_names,
    file_type,
    owner_attrs,
    time_attrs,
)
from ssh_fast.sftp.errors import (
    SFTPEOFError,
    SFTPError,
    SFTPFailure,
    SFTPNoSpaceOnFilesystem,
    SFTPNoSuchFile,
    decode_status,
    encode_status,
    error_from_os,
    sftp_error,
)
from ssh_fast.wire import Cursor, encode_uint32

UINT32 = st.integers(0, 0xffffffff)


@st.composite
def attributes(draw: st.DrawFn) -> SFTPAttrs:
    attrs = SFTPAttrs(size=draw(st.none() | st.integers(0, (1 << 64) - 1)), permissions=draw(st.none() | UINT32))
    attrs.type = c.FILEXFER_TYPE_UNKNOWN if attrs.permissions is None else file_type(attrs.permissions)

    if draw(st.booleans()):
        attrs.uid, attrs.gid = draw(UINT32), draw(UINT32)

    if draw(st.booleans()):
        attrs.atime, attrs.mtime = draw(UINT32), draw(UINT32)

    attrs.extended = draw(st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=3)) or ()

    return attrs


@given(attributes())
def test_attributes_come_back(attrs: SFTPAttrs) -> None:
    cursor = Cursor(attrs.encode() + b'rest')
    assert SFTPAttrs.decode(cursor) == attrs and cursor.rest() == b'rest'


@given(attributes())
def test_attributes_cut_anywhere_are_refused(attrs: SFTPAttrs) -> None:
    data = attrs.encode()

    for size in range(len(data)):
        with pytest.raises(PacketDecodeError):
            SFTPAttrs.decode(Cursor(data[:size]))


@given(st.binary(max_size=80))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    for decode in (SFTPAttrs.decode, decode_names, SFTPVFSAttrs.decode, SFTPLimits.decode, decode_status):
        try:
            decode(Cursor(data))
        except PacketDecodeError:
            continue


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20), attributes()), max_size=5))
def test_names_come_back(entries: list[tuple[bytes, bytes, SFTPAttrs]]) -> None:
    names = [SFTPName(*entry) for entry in entries]
    cursor = Cursor(encode_names(names))
    assert decode_names(cursor) == names and not cursor.remaining


def test_known_bytes() -> None:
    attrs = SFTPAttrs(size=5, uid=1, gid=2, permissions=0o100644, atime=3.9, mtime=4)
    assert attrs.encode().hex() == '0000000f' '0000000000000005' '00000001' '00000002' '000081a4' '00000003' '00000004'
    assert SFTPAttrs(atime=-5, mtime=1e12).encode()[4:].hex() == '00000000ffffffff'
    assert repr(SFTPAttrs(size=1)) == 'SFTPAttrs(type=5, size=1)'


@pytest.mark.parametrize(
    ('attrs', 'name'),
    [
        (SFTPAttrs(size=-1), 'size'),
        (SFTPAttrs(size=1 << 64), 'size'),
        (SFTPAttrs(uid=-1, gid=0), 'uid'),
        (SFTPAttrs(uid=0, gid=1 << 32), 'gid'),
        (SFTPAttrs(gid=1), 'uid and gid'),
        (SFTPAttrs(mtime=1), 'atime'),
        (SFTPAttrs(owner='root', group='root'), 'owner'),
        (SFTPAttrs(permissions=1 << 32), 'permissions'),
    ],
)
def test_what_cannot_be_sent_is_named(attrs: SFTPAttrs, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        attrs.encode()


def test_local_results(tmp_path: Path) -> None:
    (tmp_path / 'f').write_text('12')
    os.symlink('f', tmp_path / 'l')
    attrs = SFTPAttrs.from_local(os.stat(tmp_path / 'f'))
    assert (attrs.type, attrs.size, attrs.uid, attrs.nlink) == (c.FILEXFER_TYPE_REGULAR, 2, os.getuid(), 1)
    assert SFTPAttrs.from_local(os.lstat(tmp_path / 'l')).type == c.FILEXFER_TYPE_SYMLINK
    assert SFTPAttrs.from_local(os.stat(tmp_path)).type == c.FILEXFER_TYPE_DIRECTORY
    assert SFTPAttrs.from_local(os.stat('/dev/null')).type == c.FILEXFER_TYPE_CHAR_DEVICE
    figures = SFTPVFSAttrs.from_local(os.statvfs(tmp_path))
    assert SFTPVFSAttrs.decode(Cursor(figures.encode())) == figures and figures.namemax
    assert SFTPLimits.decode(Cursor(SFTPLimits(1, None, 3).encode())) == SFTPLimits(1, 0, 3, 0)
    assert stat.S_IFMT(0o644) == 0 and file_type(0o644) == c.FILEXFER_TYPE_UNKNOWN


def test_arguments_of_chown_and_utime() -> None:
    assert owner_attrs(1, 2, None, None, None, None) == SFTPAttrs(uid=1, gid=2)
    assert owner_attrs('a', 'b', None, None, None, None) == SFTPAttrs(owner='a', group='b')
    assert owner_attrs(None, None, 3, 4, None, None) == SFTPAttrs(uid=3, gid=4)
    assert time_attrs((1, 2), None) == SFTPAttrs(atime=1, mtime=2)
    assert time_attrs(None, (5 * 10**9, 6 * 10**9)).encode()[4:].hex() == '0000000500000006'
    assert (time_attrs(None, None).mtime or 0) > 1_700_000_000

    with pytest.raises(ValueError, match='ns'):
        time_attrs((1, 2), (1, 2))


def test_every_code_has_its_class() -> None:
    for code in range(1, c.FX_V6_END + 1):
        exc = sftp_error(code, 'why', 'de')
        assert type(exc) is not SFTPError and isinstance(exc, SFTPError)
        assert (exc.code, exc.reason, exc.lang) == (code, 'why', 'de')
        assert getattr(errors, type(exc).__name__) is type(exc)
        assert (exc.srcpath, exc.dstpath, exc.offset) == (None, None, None)

    assert type(sftp_error(99, 'x')) is SFTPError and SFTPEOFError().code == c.FX_EOF
    assert SFTPFailure('plain').code == c.FX_FAILURE and sftp_error(c.FX_FAILURE, '').reason


@given(st.integers(0, 40), st.text(max_size=20))
def test_statuses_of_version_3(code: int, reason: str) -> None:
    exc = decode_status(Cursor(encode_status(code, reason)))

    if code == c.FX_OK:
        assert exc is None
    else:
        assert exc is not None and exc.code <= c.FX_V3_END and (not reason or exc.reason == reason)
        assert code > c.FX_V3_END or exc.code == code


def test_statuses_of_errors_of_the_system() -> None:
    exc = error_from_os(FileNotFoundError(2, 'No such file or directory', '/secret'))
    assert isinstance(exc, SFTPNoSuchFile) and 'secret' not in exc.reason
    assert isinstance(error_from_os(OSError(28, 'x')), SFTPNoSpaceOnFilesystem)
    assert isinstance(error_from_os(OSError(5, 'x')), SFTPFailure) and error_from_os(OSError(5, 'x')).reason
    assert isinstance(error_from_os(OSError('odd')), SFTPFailure)
    assert encode_status(c.FX_NOT_A_DIRECTORY)[:4] == encode_uint32(c.FX_NO_SUCH_FILE)
