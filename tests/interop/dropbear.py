"""Dropbear's server on loopback, for a user whose home is the test's folder."""

import glob
import os
import pwd
from collections.abc import Sequence
from pathlib import Path

from tests.interop.peers import LOOPBACK, KeyRing, PeerMissing, ServerProcess, find_program, run_tool, user_name


def _name_wrapper() -> str:
    """Find the library that has a program see other users than the system's: Dropbear knows no other home."""
    found = glob.glob('/usr/lib/*/libnss_wrapper.so') + glob.glob('/usr/lib*/libnss_wrapper.so')
    if not found:
        raise PeerMissing('libnss_wrapper.so is not installed (Debian: apt-get install libnss-wrapper)')
    return found[0]


class DropbearServer(ServerProcess):
    """Dropbear in the foreground; `flags` as its manual has them."""

    def __init__(self, ring: KeyRing, folder: Path, flags: Sequence[str] = ()) -> None:
        super().__init__(ring, folder, ['ed25519'])
        self._flags = flags

    def command(self, port: int) -> list[str]:
        """Write the user's home and the host key, and return Dropbear's command line."""
        home = self._folder / 'home'
        (home / '.ssh').mkdir(parents=True, mode=0o700, exist_ok=True)
        home.chmod(0o700)
        authorized_keys = home / '.ssh/authorized_keys'
        authorized_keys.write_text(self._ring.public('user', 'ed25519').read_text())
        authorized_keys.chmod(0o600)
        users, groups = self._folder / 'passwd', self._folder / 'group'
        users.write_text(f'{user_name()}:x:{os.getuid()}:{os.getgid()}::{home}:/bin/sh\n')
        groups.write_text(f'{user_name()}:x:{pwd.getpwuid(os.getuid()).pw_gid}:\n')
        key = self._folder / 'host-key'
        run_tool(find_program('dropbearconvert'), 'openssh', 'dropbear', str(self._host_keys[0]), str(key))
        return [
            'env',
            f'LD_PRELOAD={_name_wrapper()}',
            f'NSS_WRAPPER_PASSWD={users}',
            f'NSS_WRAPPER_GROUP={groups}',
            find_program('dropbear'),
            *('-F', '-E', '-s', '-m', '-p', f'{LOOPBACK}:{port}', '-P', str(self._folder / 'pid'), '-r', str(key)),
            *self._flags,
        ]
