"""Whether a client trusts the host key that a server shows (known_hosts, and the owner's own word)."""

from collections.abc import Sequence
from typing import Any, Protocol

from ..errors import HostKeyNotVerifiable, KeyImportError
from ..keys.key import SSHKey, decode_public_key
from ..keys.known_hosts import match_known_hosts


class HostKeyOwner(Protocol):
    """The client object's part in the decision."""

    def validate_host_public_key(self, host: str, addr: str, port: int, key: SSHKey) -> bool:
        """Return whether a key that known_hosts does not list is trusted."""


class HostKeyPolicy:
    """The trusted and the revoked keys of one server; `known_hosts` None trusts every key.

    The files are read when the policy is made: what they list decides which algorithms the client offers first.
    """

    def __init__(self, known_hosts: Any, host: str, addr: str, port: int) -> None:
        self._host = host
        self._addr = addr
        self._port = port
        self._check = known_hosts is not None
        self._trusted: Sequence[SSHKey] = ()
        self._revoked: Sequence[SSHKey] = ()

        if self._check:
            self._trusted, _, self._revoked = match_known_hosts(known_hosts, host, addr, port)[:3]

    @property
    def known_algorithms(self) -> tuple[bytes, ...]:
        """The signature algorithms of the trusted keys: a server is asked for a key that can be verified."""

        return tuple(dict.fromkeys(algorithm for key in self._trusted for algorithm in key.sig_algorithms))

    def verify(self, key_data: bytes, owner: HostKeyOwner) -> SSHKey:
        """Return the key if it is trusted; every doubt is a refusal.

        Raises:
          HostKeyNotVerifiable: it is malformed, revoked, or not known
        """

        try:
            key = decode_public_key(key_data)
        except KeyImportError as exc:
            raise HostKeyNotVerifiable(f'Host key of {self._name} is not valid: {exc}') from exc

        if any(key.public_data == revoked.public_data for revoked in self._revoked):
            raise HostKeyNotVerifiable(f'Host key of {self._name} is revoked: {key.get_fingerprint()}')

        if not self._check or any(key.public_data == trusted.public_data for trusted in self._trusted):
            return key

        if owner.validate_host_public_key(self._host, self._addr, self._port, key) is True:
            return key

        known = 'has another key than' if self._trusted else 'is not in'

        raise HostKeyNotVerifiable(
            f'Host key is not trusted: {self._name} {known} known_hosts, it showed {key.get_fingerprint()}'
        )

    @property
    def _name(self) -> str:
        return self._host if self._port == 22 else f'[{self._host}]:{self._port}'


def order_algorithms(offered: Sequence[bytes], known: Sequence[bytes], explicit: bool) -> tuple[bytes, ...]:
    """Put the algorithms of the keys that are known first, so that a server with several keys shows a known one.

    A list that the user gave stays as it is. What is known decides only the order: a key of another type is then
    refused for what it is, rather than for want of an algorithm. An observer can tell from the order whether a key is
    known, as with OpenSSH (CVE-2020-14145).
    """

    if explicit or not known:
        return tuple(offered)

    first = [name for name in offered if name in known]

    return (*first, *(name for name in offered if name not in first))


