"""Kerberos through the `gssapi` package, which is optional: the security contexts of clients and servers.

Whatever may ask a KDC, a name server or a file runs in another thread: the event loop goes on meanwhile.
"""

import asyncio
import importlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeVar

from ..gss_context import GSSFailure, GSSStep

T = TypeVar('T')

# Kerberos 5, 1.2.840.113554.1.2.2, in DER (RFC 1964 section 1)
KERBEROS = bytes.fromhex('06092a864886f712010202')

_SERVICE = 'host'

Store = Mapping[str | bytes, str | bytes] | None


def gss_available() -> bool:
    """Tell whether the `gssapi` package is installed; it is loaded when a login first needs it."""

    return find_spec('gssapi') is not None


class _Context:
    """One end of a context: made with its credentials at the first step, or by `acquire`."""

    mechanism = KERBEROS

    def __init__(self, host: str, store: Store) -> None:
        self._host = host
        self._store = store
        self._context: Any = None

    def step(self, token: bytes) -> Awaitable[GSSStep]:
        """Take the peer's token.

        Raises:
          GSSFailure: it is wrong, or there are no credentials
        """

        return _in_thread(partial(self._step, token))

    def _step(self, token: bytes) -> GSSStep:
        if self._context is None:
            self._context = self._make()

        # An error is wanted now, not when the context is looked at next.
        self._context.__DEFER_STEP_ERRORS__ = False
        answer = self._context.step(token or None)
        complete: bool = self._context.complete

        return GSSStep(
            answer or b'', complete, complete and self._established(), complete and self._has('mutual_authentication')
        )

    def _established(self) -> bool:
        """Learn what there is to know of the context; return whether it makes MICs. It may have expired by now."""

        return self._has('integrity')

    def _has(self, flag: str) -> bool:
        return bool(self._context.actual_flags & getattr(_gssapi().RequirementFlag, flag))

    def _make(self) -> Any:
        raise NotImplementedError

    def sign(self, data: bytes) -> bytes:
        """Return the MIC of data."""

        mic: bytes = _failing(lambda: self._context.get_signature(data))

        return mic

    def verify(self, data: bytes, mic: bytes) -> None:
        """Raise `GSSFailure` if the MIC is not the data's."""

        _failing(lambda: self._context.verify_signature(data, mic))


class ClientContext(_Context):
    """A client's end: for the service `host` on a host, or for a principal if it is named as one."""

    def __init__(self, host: str, store: Store, *, delegate: bool) -> None:
        super().__init__(host, store)
        self._delegate = delegate

    def _established(self) -> bool:
        # The server has proven its name, too.
        return super()._established() and self._has('mutual_authentication')

    def _make(self) -> Any:
        gssapi = _gssapi()
        flags = gssapi.RequirementFlag
        wanted = flags.mutual_authentication | flags.integrity

        if self._delegate:
            wanted |= flags.delegate_to_peer

        mech = gssapi.MechType.kerberos
        creds = gssapi.Credentials(usage='initiate', mechs=[mech], store=self._store)

        return gssapi.SecurityContext(name=_name(self._host), creds=creds, mech=mech, flags=wanted, usage='initiate')


class ServerContext(_Context):
    """A server's end, with the key of its service in a keytab.

    Once established it knows the principals of both ends, and the credentials that the client delegated, a
    `gssapi.Credentials` or None.
    """

    def __init__(self, host: str, store: Store) -> None:
        super().__init__(host or socket.gethostname(), store)
        self.user_principal = ''
        self.host_principal = ''
        self.delegated: Any = None

    async def acquire(self) -> None:
        """Get the credentials.

        Raises:
          GSSFailure: there are none
        """

        self._context = await _in_thread(self._make)

    def _make(self) -> Any:
        gssapi = _gssapi()
        mech = gssapi.MechType.kerberos
        creds = gssapi.Credentials(name=_name(self._host), usage='accept', mechs=[mech], store=self._store)

        return gssapi.SecurityContext(creds=creds, usage='accept')

    def _established(self) -> bool:
        self.user_principal = str(self._context.initiator_name)
        self.host_principal = str(self._context.target_name)

        if self._has('delegate_to_peer'):
            self.delegated = self._context.delegated_creds

        return super()._established()


def _name(host: str) -> Any:
    gssapi = _gssapi()

    if '@' in host or '/' in host:
        return gssapi.Name(host, gssapi.NameType.kerberos_principal)

    return gssapi.Name(f'{_SERVICE}@{host}', gssapi.NameType.hostbased_service)


def _gssapi() -> Any:
    try:
        return importlib.import_module('gssapi')
    except (ImportError, OSError) as exc:
        # The package is there, but not the system's library.
        raise GSSFailure(f'the gssapi package cannot be loaded: {exc}') from None


def _in_thread(work: Callable[[], T]) -> Awaitable[T]:
    return asyncio.get_running_loop().run_in_executor(None, partial(_failing, work))


def _failing(work: Callable[[], T]) -> T:
    gssapi = _gssapi()

    try:
        return work()
    except gssapi.exceptions.GSSError as exc:
        raise GSSFailure(' '.join(str(exc).split())) from None
