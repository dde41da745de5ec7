"""The walk through the lines of a configuration that apply: blocks on and off, files that are included."""

from collections.abc import Callable, Iterable

from .config_parser import MAX_DEPTH, ConfigFiles, Directive

# Each inclusion counts anew, however often the same file is meant: it bounds the time of a walk.
_MAX_INCLUSIONS = 4096
_MAX_LINES = 200_000

_BLOCKS = frozenset(('host', 'match'))

Applies = Callable[[Directive, bool], bool]
Take = Callable[[Directive, bool, bool], None]


class Walk:
    """Hands on each line that may matter, in order.

    `applies` is asked of each Host and Match line whether its block does; its second argument is False where nothing
    may come of the block anyway, because a block around it is off. `take` is given the other lines, whether they stand
    in a block, and whether they apply; those that do not only with `check_all`.
    """

    def __init__(self, files: ConfigFiles, applies: Applies, take: Take, *, check_all: bool = False) -> None:
        self._files = files
        self._applies = applies
        self._take = take
        self._check_all = check_all
        self._inclusions = 0
        self._lines_seen = 0

    def run(self) -> None:
        """Go through all files.

        Raises:
          ConfigParseError: a line that applies cannot be, or Include goes too deep
          OSError: a file cannot be read
        """

        for path in self._files.paths:
            self._lines(self._files.read(path), on=True, in_block=False, depth=0)

    def _lines(self, directives: Iterable[Directive], *, on: bool, in_block: bool, depth: int) -> None:
        active = on

        for directive in directives:
            keyword = directive.keyword
            self._lines_seen += 1

            if self._lines_seen > _MAX_LINES:
                raise directive.error(f'more than {_MAX_LINES} lines are to be read')

            if keyword in _BLOCKS:
                active = self._applies(directive, on) and on
                in_block = True
            elif keyword == 'include':
                self._include(directive, on=active, in_block=in_block, depth=depth + 1)
            elif active or self._check_all:
                self._take(directive, in_block, active)

    def _include(self, directive: Directive, *, on: bool, in_block: bool, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise directive.error(f'files include each other more than {MAX_DEPTH} deep')

        for pattern in directive.value:
            for path in self._files.included(pattern):
                self._inclusions += 1

                if self._inclusions > _MAX_INCLUSIONS:
                    raise directive.error(f'more than {_MAX_INCLUSIONS} files are included')

                try:
                    directives = self._files.read(path, included=True)
                except OSError as exc:
                    raise directive.error(f'{path} cannot be read: {exc.strerror or exc}') from exc

                self._lines(directives, on=on, in_block=in_block, depth=depth)
