"""The line that `ls -l` shows of a file, with the names of the system's users and groups."""

import grp
import pwd
import stat
import time
from collections.abc import Sequence
from functools import lru_cache

from .attrs import SFTPName

# ls shows the year in place of the time for files older than about half a year.
_RECENT = 180 * 86400


@lru_cache(maxsize=1024)
def user_name(uid: int) -> str:
    """Return a user's name, or the number as text if it has none."""

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@lru_cache(maxsize=1024)
def group_name(gid: int) -> str:
    """Return a group's name, or the number as text if it has none."""

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def look_up(uids: Sequence[int], gids: Sequence[int]) -> None:
    """Have the names at hand: where they come from a directory service this may take long."""

    for uid in uids:
        user_name(uid)

    for gid in gids:
        group_name(gid)


@lru_cache(maxsize=1024)
def _time_text(minute: int, recent: bool) -> str:
    """Return the time that ls shows, which has no seconds; `minute` counts from 1970."""

    return time.strftime('%b %e %H:%M' if recent else '%b %e  %Y', time.localtime(minute * 60))


def long_name(name: SFTPName, user: str, group: str) -> bytes:
    """Return the line that `ls -l` would show."""

    attrs = name.attrs
    mode = '?---------' if attrs.permissions is None else stat.filemode(attrs.permissions)
    mtime = ''

    if attrs.mtime is not None:
        mtime = _time_text(int(attrs.mtime // 60), 0 <= time.time() - attrs.mtime < _RECENT)

    size = '' if attrs.size is None else str(attrs.size)
    nlink = '' if attrs.nlink is None else str(attrs.nlink)
    line = f'{mode} {nlink:>4} {user:<8} {group:<8} {size:>8} {mtime:12} '.encode('utf-8', 'replace')

    return line + (name.filename if isinstance(name.filename, bytes) else name.filename.encode())
