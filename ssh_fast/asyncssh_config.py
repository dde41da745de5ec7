"""`asyncssh.config.SSHClientConfig` as programs use it that read ssh_config by themselves."""

from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

from .connection.config_client import ClientConfig, client_files
from .connection.config_tokens import expand

Paths = str | PathLike[str] | Sequence[str | PathLike[str]] | None

_SHELL = ('proxycommand',)
_TEXTS = ('certificatefile', 'identityagent', 'identityfile', 'remotecommand', 'user')


class SSHClientConfig:
    """What ssh_config has for one host; the keywords are those of ssh_config(5), in any case."""

    def __init__(self, config: ClientConfig | None) -> None:
        self._config = config

    @classmethod
    def load(
        cls,
        last_config: 'SSHClientConfig | None',
        config_paths: Paths,
        reload: bool,
        canonical: bool,
        final: bool,
        local_user: str,
        user: str | tuple[()],
        host: str,
        port: int | tuple[()],
    ) -> 'SSHClientConfig':
        """Read files, and find what they have for a host; without any, `last_config` is returned.

        `user` and `port` are `()` where they were not given. `reload` makes no difference, as values depend on nothing
        else than these arguments.

        Raises:
          OSError: a file cannot be read
          ConfigParseError: a line is malformed
        """

        if not config_paths:
            return last_config or cls(None)

        paths = [config_paths] if isinstance(config_paths, (str, PathLike)) else config_paths
        files = client_files(tuple(fspath(path) for path in paths))
        config = ClientConfig(files, host, user or None, port or None, local_user)

        if canonical or final:
            config.finish()

        return cls(config)

    def get(self, option: str, default: Any = None) -> Any:
        """Return the value of a keyword: text, number, flag or, of those that may be repeated, a list.

        Raises:
          ConfigParseError: a token in it stands for nothing
        """

        keyword = option.lower()

        if self._config is None or keyword not in self._config.values:
            return default

        if keyword == 'hostname':
            return self._config.resolved_host

        value = self._config.values[keyword]

        return [self._text(keyword, item) for item in value] if isinstance(value, tuple) else self._text(keyword, value)

    def _text(self, keyword: str, value: Any) -> Any:
        config = self._config

        if config is None or not isinstance(value, str) or keyword not in _SHELL + _TEXTS:
            return value

        try:
            return expand(value, config.shell_tokens() if keyword in _SHELL else config.tokens())
        except ValueError as exc:
            raise config.lines[keyword].error(exc) from None
