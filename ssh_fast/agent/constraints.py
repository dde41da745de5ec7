"""What an agent is told to demand of a key that it is given: constraints, OpenSSH's of destinations among them.

draft-ietf-sshm-ssh-agent section 3.2.7; OpenSSH's PROTOCOL.agent for restrict-destination-v00 and sk-provider.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..keys.key import SSHKey
from ..wire import encode_boolean, encode_byte, encode_string, encode_uint32

_LIFETIME = 1
_CONFIRM = 2
_EXTENSION = 255

_RESTRICT_DESTINATION = 'restrict-destination-v00@openssh.com'
_SK_PROVIDER = 'sk-provider@openssh.com'


@dataclass(frozen=True)
class SSHAgentHop:
    """One end of a step that a key may be used for: a host by the host keys that it can have, or by authorities.

    An empty hop is the machine that the agent runs on. `username` is the user at the host, any if it is empty.
    """

    hostname: str = ''
    host_keys: Sequence[SSHKey] = ()
    ca_keys: Sequence[SSHKey] = ()
    username: str = ''

    def encode(self) -> bytes:
        """Encode the hop; `ValueError` if it names a host without any of its keys."""

        if bool(self.hostname) != bool(self.host_keys or self.ca_keys):
            raise ValueError(f'Expected host keys with the name of a host, and none without, got {self.hostname!r}')

        keys = [(key, False) for key in self.host_keys] + [(key, True) for key in self.ca_keys]

        return encode_string(
            encode_string(self.username)
            + encode_string(self.hostname)
            + encode_string(b'')
            + b''.join(encode_string(key.public_data) + encode_boolean(is_ca) for key, is_ca in keys)
        )


@dataclass(frozen=True)
class SSHAgentDestination:
    """One step that a key may be used for: a login at `target`, coming from `source`, by default from here."""

    target: SSHAgentHop
    source: SSHAgentHop = SSHAgentHop()

    def encode(self) -> bytes:
        """Encode the step; `ValueError` if it leads nowhere, or names the user where it comes from."""

        if not self.target.hostname or self.source.username:
            raise ValueError('Expected a destination with a host to log in at, and no user at the source')

        return encode_string(self.source.encode() + self.target.encode() + encode_string(b''))


def encode_constraints(
    lifetime: int | None,
    confirm: bool,
    destinations: Iterable[SSHAgentDestination] = (),
    sk_provider: str | None = None,
) -> bytes:
    """Encode constraints: seconds to live, confirmation of each use, where to, and the library of a security key."""

    constraints = b''

    if lifetime is not None:
        if not 0 < lifetime < 1 << 32:
            raise ValueError(f'Expected a lifetime of 1 to {(1 << 32) - 1} seconds, got {lifetime}')

        constraints += encode_byte(_LIFETIME) + encode_uint32(lifetime)

    if confirm:
        constraints += encode_byte(_CONFIRM)

    if steps := b''.join(destination.encode() for destination in destinations):
        constraints += encode_byte(_EXTENSION) + encode_string(_RESTRICT_DESTINATION) + encode_string(steps)

    if sk_provider is not None:
        constraints += encode_byte(_EXTENSION) + encode_string(_SK_PROVIDER) + encode_string(sk_provider)

    return constraints
