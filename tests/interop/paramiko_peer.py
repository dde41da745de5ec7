"""Paramiko on loopback: an SFTP server of the file system in threads, and a connected client."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko

from tests.interop.peers import LOOPBACK, KeyRing, Target, make_target


class _Login(paramiko.ServerInterface):
    """Lets one public key in, and opens session channels."""

    def __init__(self, key: paramiko.PKey) -> None:
        self._key = key

    def get_allowed_auths(self, username: str) -> str:
        return 'publickey'

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_SUCCESSFUL if key == self._key else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED if kind == 'session' else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED


class _Handle(paramiko.SFTPHandle):
    """An open file."""

    def __init__(self, fd: int, flags: int) -> None:
        super().__init__(flags)
        # paramiko reads and writes through these names
        self.filename = ''
        self.readfile = self.writefile = os.fdopen(fd, 'rb' if flags & 3 == os.O_RDONLY else 'r+b', buffering=0)

    def stat(self) -> Any:
        return paramiko.SFTPAttributes.from_stat(os.fstat(self.readfile.fileno()))

    def chattr(self, attr: paramiko.SFTPAttributes) -> int:
        paramiko.SFTPServer.set_file_attr(f'/proc/self/fd/{self.readfile.fileno()}', attr)
        return paramiko.SFTP_OK


def _answer(operation: Any, *arguments: Any) -> Any:
    """Do a file operation; an OSError becomes its status."""
    try:
        operation(*arguments)
    except OSError as exc:
        return paramiko.SFTPServer.convert_errno(exc.errno or 0)
    return paramiko.SFTP_OK


class _Files(paramiko.SFTPServerInterface):
    """The file system as it is."""

    def list_folder(self, path: str) -> Any:
        try:
            return [
                paramiko.SFTPAttributes.from_stat(entry.stat(follow_symlinks=False), entry.name)
                for entry in os.scandir(path)
            ]
        except OSError as exc:
            return paramiko.SFTPServer.convert_errno(exc.errno or 0)

    def _stat(self, path: str, follow: bool) -> Any:
        try:
            return paramiko.SFTPAttributes.from_stat(os.stat(path, follow_symlinks=follow))
        except OSError as exc:
            return paramiko.SFTPServer.convert_errno(exc.errno or 0)

    def stat(self, path: str) -> Any:
        return self._stat(path, True)

    def lstat(self, path: str) -> Any:
        return self._stat(path, False)

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> Any:
        # A file that paramiko opens to write is opened to read as well: _Handle uses one file for both.
        mode = flags if flags & 3 == os.O_RDONLY else flags & ~3 | os.O_RDWR
        try:
            return _Handle(os.open(path, mode, 0o666), flags)
        except OSError as exc:
            return paramiko.SFTPServer.convert_errno(exc.errno or 0)

    def remove(self, path: str) -> Any:
        return _answer(os.remove, path)

    def rename(self, oldpath: str, newpath: str) -> Any:
        return _answer(os.rename, oldpath, newpath)

    def posix_rename(self, oldpath: str, newpath: str) -> Any:
        return _answer(os.replace, oldpath, newpath)

    def mkdir(self, path: str, attr: paramiko.SFTPAttributes) -> Any:
        return _answer(os.mkdir, path)

    def rmdir(self, path: str) -> Any:
        return _answer(os.rmdir, path)

    def chattr(self, path: str, attr: paramiko.SFTPAttributes) -> Any:
        return _answer(paramiko.SFTPServer.set_file_attr, path, attr)

    def symlink(self, target_path: str, path: str) -> Any:
        return _answer(os.symlink, target_path, path)

    def readlink(self, path: str) -> Any:
        try:
            return os.readlink(path)
        except OSError as exc:
            return paramiko.SFTPServer.convert_errno(exc.errno or 0)

    def canonicalize(self, path: str) -> str:
        return os.path.realpath(path)


@contextlib.contextmanager
def paramiko_server(ring: KeyRing, folder: Path, *, host_key: str = 'ecdsa-256') -> Iterator[Target]:
    """Serve SFTP with paramiko until the block ends."""
    private, login = (
        ring.private(f'host-{host_key}', host_key),
        _Login(paramiko.PKey.from_path(ring.private('user', 'ed25519'))),
    )
    transports: list[paramiko.Transport] = []
    listener = socket.create_server((LOOPBACK, 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transports.append(transport)
            transport.add_server_key(paramiko.PKey.from_path(private))
            transport.set_subsystem_handler('sftp', paramiko.SFTPServer, _Files)
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                transport.start_server(event=threading.Event(), server=login)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield make_target(ring, folder, listener.getsockname()[1], [Path(f'{private}.pub')])
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
        for transport in transports:
            transport.close()
            transport.join(5)


@contextlib.contextmanager
def paramiko_client(target: Target, **options: Any) -> Iterator[paramiko.SSHClient]:
    """Connect paramiko's blocking client, with the host key checked; run it in a thread beside a server in the loop."""
    client = paramiko.SSHClient()
    client.load_host_keys(str(target.known_hosts))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    try:
        client.connect(
            target.host,
            target.port,
            target.user,
            key_filename=str(target.key),
            allow_agent=False,
            look_for_keys=False,
            timeout=20,
            banner_timeout=20,
            auth_timeout=20,
            **options,
        )
        yield client
    finally:
        client.close()
