"""What the options of clients and servers share: values from keywords, from another object, or from a configuration."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple, NoReturn, Self

from cryptography.x509 import ObjectIdentifier

from ..errors import ConfigParseError
from ..keys.x509 import SSHX509Certificate
from ..transport.algorithms import available_algorithms
from . import options_load as load
from . import options_prepare as prepare
from . import options_table as table
from .config_parser import Configured

_ALGORITHM_KINDS = {
    'kex_algs': 'kex',
    'encryption_algs': 'encryption',
    'mac_algs': 'mac',
    'compression_algs': 'compression',
    'signature_algs': 'signature',
    'server_host_key_algs': 'host_key',
}


class Sources(NamedTuple):
    """Where values come from: keywords given, a configuration, and both together, as keywords win.

    `changed` are the names whose values are to be set; None means all.
    """

    given: Mapping[str, Any]
    configured: Mapping[str, Configured]
    effective: Mapping[str, Any]
    changed: set[str] | None

    def touched(self, *names: str) -> bool:
        """Tell whether one of these options is to be set."""

        return self.changed is None or not self.changed.isdisjoint(names)

    def only_configured(self, name: str) -> bool:
        """Tell whether an option's value is the configuration's."""

        return name in self.configured and name not in self.given


class SSHConnectionOptions:
    """What the options of clients and of servers share.

    An object is made from keywords, or from another object and the keywords that differ. Files are read when it is made
    (see `construct`), not when it is used: what one object holds serves any number of connections. The empty tuple
    leaves an option unset. A keyword that is not known raises `TypeError`; a value that cannot be, or that asks for
    what this version does not have, `ValueError`.
    """

    _options: ClassVar[Mapping[str, table.Option]] = table.COMMON
    _unsupported: ClassVar[Mapping[str, Sequence[object]]] = table.UNSUPPORTED_COMMON

    host: str
    port: int
    family: int
    local_addr: tuple[str, int] | None
    tunnel: Any
    proxy_command: tuple[str, ...] | None
    tcp_keepalive: bool
    utf8_decode_errors: str
    kex_algs: tuple[bytes, ...]
    encryption_algs: tuple[bytes, ...]
    mac_algs: tuple[bytes, ...]
    compression_algs: tuple[bytes, ...]
    signature_algs: tuple[bytes, ...]
    ca_signature_algs: tuple[bytes, ...]
    host_based_auth: bool
    public_key_auth: bool
    kbdint_auth: bool
    password_auth: bool
    x509_trusted_certs: tuple[SSHX509Certificate, ...] | None
    x509_trusted_cert_paths: tuple[SSHX509Certificate, ...]
    x509_purposes: tuple[ObjectIdentifier, ...] | None
    gss_host: str | None
    gss_store: Mapping[str | bytes, str | bytes] | None
    gss_auth: bool
    gss_kex: bool
    rekey_bytes: int
    rekey_seconds: float
    connect_timeout: float | None
    login_timeout: float
    keepalive_interval: float
    keepalive_count_max: int
    encoding: str | None
    errors: str
    window: int
    max_window: int
    max_pktsize: int

    config: tuple[str, ...]

    _given: Mapping[str, Any]
    _configured: Mapping[str, Configured]

    @property
    def x509_authorities(self) -> tuple[SSHX509Certificate, ...] | None:
        """The X.509 certificates that are trusted, of both options; None if X.509 is turned off."""

        if self.x509_trusted_certs is None:
            return None

        return self.x509_trusted_certs + self.x509_trusted_cert_paths

    def __init__(self, options: Self | None = None, **kwargs: object) -> None:
        if options is not None and not isinstance(options, type(self)):
            raise TypeError(f'Expected options of type {type(self).__name__}, got {type(options).__name__}')

        if options is not None:
            self.__dict__.update(options.__dict__)

        self._apply(kwargs, None if options is None else set(kwargs))

    @classmethod
    async def construct(cls, options: Self | None = None, **kwargs: object) -> Self:
        """Make an object in another thread, so that reading key files doesn't hold up the event loop."""

        loop = asyncio.get_running_loop()
        made = options

        if made is None or kwargs or type(made) is not cls:
            made = await loop.run_in_executor(None, partial(cls, options, **kwargs))

        return await made._settle(loop)

    async def _settle(self, loop: asyncio.AbstractEventLoop) -> Self:
        """Find out what takes the network to know."""

        return self

    def update(self, **kwargs: object) -> None:
        """Set options anew; if a value is refused, none changes."""

        self._apply(kwargs, set(kwargs))

    def is_set(self, name: str) -> bool:
        """Tell whether an option was given, or set by a configuration file, rather than left to its default."""

        return name in self._options and (name in self._given or name in self._configured)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f'Options do not change by assignment: use update({name}=...)')

    def __repr__(self) -> str:
        # Most values are long or secret.
        return f'<{type(self).__name__} host={self.host!r} port={self.port}>'

    def _apply(self, kwargs: Mapping[str, object], changed: set[str] | None) -> None:
        """Check the keywords and set what follows from them; `changed` is None for a new object."""

        given = {**self.__dict__.get('_given', {}), **kwargs}

        for name, value in kwargs.items():
            if name in self._unsupported:
                prepare.refuse_unsupported(name, value, self._unsupported[name])
            elif name not in self._options:
                raise TypeError(f'{type(self).__name__} got an unexpected option {name!r}')

            if prepare.is_unset(value) or name in self._unsupported:
                del given[name]

        if kwargs.get('config', ()) != ():
            # Files are added to those of the object that this one is made from; None adds nothing.
            paths = prepare.config_paths('config', kwargs['config'])
            given['config'] = tuple(dict.fromkeys((*self.__dict__.get('config', ()), *paths)))

        self._set(given, changed)

    def _set(self, given: Mapping[str, Any], changed: set[str] | None, canonical_host: str | None = None) -> None:
        """Set what follows from the options given, and from the configuration, which they override."""

        before: Mapping[str, Configured] = self.__dict__.get('_configured', {})
        state, configured = self._configure(given, changed, canonical_host)
        effective = {**{name: item.value for name, item in configured.items()}, **given}

        if 'host' in configured:
            effective['host'] = configured['host'].value

        if changed is not None:
            changed = changed | {
                name
                for name in before.keys() | configured.keys()
                if name not in before or name not in configured or before[name].value != configured[name].value
            }

        values: dict[str, Any] = {}

        for name in self._options if changed is None else changed & self._options.keys():
            if name in effective:
                # HostName takes the place of the host that was given.
                line = configured.get(name) if name == 'host' or name not in given else None
                values[name] = self._check(name, effective[name], line)
            elif name in _ALGORITHM_KINDS:
                values[name] = available_algorithms(_ALGORITHM_KINDS[name])
            else:
                values[name] = self._options[name].default

        if 'window' in values or 'max_window' in values:
            values['window'], values['max_window'] = load.windows(given)

        self._load(Sources(given, configured, effective, changed), values)
        self.__dict__.update(values, _given=given, _configured=configured, **state)

    def _check(self, name: str, value: Any, configured: Configured | None) -> Any:
        """Check a value; an error names the option, or the line of the configuration."""

        try:
            return self._options[name].check(name, value)
        except ValueError as exc:
            if configured is None or isinstance(exc, ConfigParseError):
                raise

            raise configured.line.error(exc) from None

    def _configure(
        self, given: Mapping[str, Any], changed: set[str] | None, canonical_host: str | None
    ) -> tuple[dict[str, Any], dict[str, Configured]]:
        """Resolve the configuration: return what this object keeps of it, and the options that it has values for."""

        raise NotImplementedError

    def _load(self, sources: Sources, values: dict[str, Any]) -> None:
        """Replace names of files in `values` by what they hold, and unset values by what stands in for them."""

        raise NotImplementedError
