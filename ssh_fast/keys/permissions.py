"""What a login may do: the one place that judges by the options of its keys and certificates.

Whoever grants a terminal, a command, a variable or a forwarding asks here. A login may rest on several keys, each with
its own options: it may do what all of them allow. Logins without keys, by password say, have no restrictions here.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .patterns import canonical_address

# The permissions that keys take away with no-..., and certificates give with permit-...
PERMISSIONS = ('X11-forwarding', 'agent-forwarding', 'port-forwarding', 'pty', 'user-rc')


class Grant(NamedTuple):
    """The options that came with one proven key: of its line in a file, and of its certificate (None: it has none)."""

    key_options: Mapping[str, Any]
    cert_options: Mapping[str, Any] | None = None

    def allows(self, permission: str) -> bool:
        """Tell whether this key leaves a permission: both its line and its certificate must."""

        if self.key_options.get(f'no-{permission}', False):
            return False

        return self.cert_options is None or bool(self.cert_options.get(f'permit-{permission}', False))

    @property
    def touch_required(self) -> bool:
        """Whether a FIDO key must have been touched: not if the line and the certificate both say so."""

        parts = [self.key_options] if self.cert_options is None else [self.key_options, self.cert_options]

        return not all(part.get('no-touch-required', False) for part in parts)

    @property
    def verify_required(self) -> bool:
        """Whether a FIDO key must have verified its user, by a PIN say."""

        return bool(self.key_options.get('verify-required') or (self.cert_options or {}).get('verify-required'))

    @property
    def commands(self) -> set[str]:
        """The commands that the line and the certificate force."""

        found = self.key_options.get('command'), (self.cert_options or {}).get('force-command')

        return {command for command in found if command is not None}


class Permissions:
    """The permissions of one login.

    Grants that contradict each other, in the command that they force, in a variable or in a tunnel's number, raise
    `ValueError`: whichever were obeyed, the other would be broken.
    """

    def __init__(self, grants: Iterable[Grant] = ()) -> None:
        self._grants = tuple(grants)
        self.command: str | None = _single('forced command', [c for grant in self._grants for c in grant.commands])
        self.tunnel: int | str | None = _single('tunnel', self._values('tunnel'))
        self.environment: dict[str, str] = {}

        for variables in self._values('environment'):
            for name, value in variables.items():
                if self.environment.setdefault(name, value) != value:
                    raise ValueError(f'The keys of this login have different values of the variable {name}')

    def _values(self, option: str) -> list[Any]:
        return [grant.key_options[option] for grant in self._grants if option in grant.key_options]

    # --- options as the application asks for them

    def key_option(self, option: str, default: Any = None) -> Any:
        """Return an option of the line that admitted the key, of the first key that has it."""

        return next(iter(self._values(option)), default)

    def certificate_option(self, option: str, default: Any = None) -> Any:
        """Return an option of the certificate, of the first one that has it."""

        certs = [grant.cert_options for grant in self._grants if grant.cert_options is not None]

        return next((options[option] for options in certs if option in options), default)

    def key_allows(self, permission: str) -> bool:
        """Tell whether the lines of the keys leave a permission."""

        return not any(grant.key_options.get(f'no-{permission}', False) for grant in self._grants)

    def certificate_allows(self, permission: str) -> bool:
        """Tell whether the certificates give a permission; without certificates nothing is missing."""

        certs = [grant.cert_options for grant in self._grants if grant.cert_options is not None]

        return all(options.get(f'permit-{permission}', False) for options in certs)

    # --- what may be done

    def allows(self, permission: str) -> bool:
        """Tell whether the login has one of `PERMISSIONS`."""

        if permission not in PERMISSIONS:
            raise ValueError(f'Unknown permission {permission!r}, expected one of {", ".join(PERMISSIONS)}')

        return all(grant.allows(permission) for grant in self._grants)

    @property
    def pty(self) -> bool:
        """Whether a terminal may be had."""

        return self.allows('pty')

    @property
    def agent_forwarding(self) -> bool:
        """Whether the client's agent may be forwarded."""

        return self.allows('agent-forwarding')

    @property
    def x11_forwarding(self) -> bool:
        """Whether X11 may be forwarded."""

        return self.allows('X11-forwarding')

    @property
    def user_rc(self) -> bool:
        """Whether ~/.ssh/rc may be run."""

        return self.allows('user-rc')

    def may_connect(self, host: str, port: int) -> bool:
        """Tell whether a TCP connection to there may be forwarded (direct-tcpip)."""

        return self._may_forward('permitopen', host, port)

    def may_listen(self, host: str, port: int) -> bool:
        """Tell whether a TCP port may be listened on and forwarded (tcpip-forward); port 0 is any."""

        return self._may_forward('permitlisten', host, port)

    def may_connect_path(self, path: str) -> bool:
        """Tell whether a UNIX socket may be forwarded; not if permitopen names what may, as it names no paths."""

        return self.allows('port-forwarding') and not self._values('permitopen')

    def may_listen_path(self, path: str) -> bool:
        """Tell whether a UNIX socket may be listened on; not if permitlisten names what may, as it names no paths."""

        return self.allows('port-forwarding') and not self._values('permitlisten')

    def may_tunnel(self, unit: int | None) -> bool:
        """Tell whether a tunnel device may be had; `unit` None leaves its number to the server."""

        if not self.allows('port-forwarding'):
            return False

        return self.tunnel in (None, 'any') or unit is None or unit == self.tunnel

    def _may_forward(self, option: str, host: str, port: int) -> bool:
        if not self.allows('port-forwarding'):
            return False

        name = canonical_address(host.lower())

        return all(
            any(
                allowed_port in (None, port) and canonical_address(allowed_host.lower()) in ('*', name)
                for allowed_host, allowed_port in allowed
            )
            for allowed in self._values(option)
        )


def _single(what: str, values: list[Any]) -> Any:
    """Return the value on which all agree; None if there is none."""

    if any(value != values[0] for value in values):
        raise ValueError(f'The keys of this login have different values of the {what}')

    return values[0] if values else None
