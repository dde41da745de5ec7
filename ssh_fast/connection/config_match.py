"""Which blocks of a configuration apply: the patterns of Host, and the criteria of Match."""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..keys.patterns import HostPatternList, matches_wildcard, parse_address
from .config_network import local_addresses
from .config_parser import Directive, next_word, split_arguments

# A command that hangs would hold up the connection for ever.
_EXEC_SECONDS = 30.0

# Criteria without an argument
_BARE = ('all', 'canonical', 'final')


class Criterion(NamedTuple):
    """One part of a Match line: its name, whether `!` stands in front of it, and its argument."""

    name: str
    negated: bool
    argument: str


def parse_host(_: str, rest: str) -> tuple[str, ...]:
    """Take the patterns of Host."""

    patterns = split_arguments(rest)

    if not patterns or not all(patterns):
        raise ValueError('expected patterns that are not empty')

    return tuple(patterns)


def parse_include(_: str, rest: str) -> tuple[str, ...]:
    """Take the names of files."""

    names = split_arguments(rest)

    if not names or not all(names):
        raise ValueError('expected names of files that are not empty')

    return tuple(names)


def match_parser(known: Sequence[str], *, all_alone: bool = False) -> Callable[[str, str], tuple[Criterion, ...]]:
    """Make a parser of Match lines with these criteria; clients may have one in front of `all`, servers none."""

    def parse(_: str, rest: str) -> tuple[Criterion, ...]:
        criteria: list[Criterion] = []

        while rest and not rest.startswith('#'):
            word, rest = next_word(rest)
            negated = word.startswith('!')
            name = word[negated:].lower()

            if name not in known:
                raise ValueError(f'{word!r} is not a criterion, expected some of {", ".join(known)}')

            if name == 'all' and (len(criteria) > (0 if all_alone else 1) or (rest and not rest.startswith('#'))):
                raise ValueError("'all' cannot stand beside other criteria")

            argument = ''

            if name not in _BARE:
                if rest.startswith('#'):
                    raise ValueError(f'{name} needs an argument')

                argument, rest = next_word(rest)

                if not argument:
                    raise ValueError(f'{name} needs an argument')

            criteria.append(Criterion(name, negated, argument))

        if not criteria:
            raise ValueError('expected at least one criterion')

        return tuple(criteria)

    return parse


def matches_host(patterns: tuple[str, ...], host: str) -> bool:
    """Tell whether a Host line means a host: one pattern fits, and none that is negated."""

    found = False

    for pattern in patterns:
        negated = pattern[0] == '!' if pattern else False
        text = pattern[1:] if negated else pattern

        # Most are plain names, of which a file may have thousands.
        if text == host or (('*' in text or '?' in text) and matches_wildcard(text, host)):
            if negated:
                return False

            found = True

    return found


def matches_list(patterns: str, text: str, *, lower: bool = False) -> bool:
    """Tell whether a text fits a list of patterns between commas, and none of it that is negated."""

    if lower:
        patterns, text = patterns.lower(), text.lower()

    return matches_host(tuple(patterns.split(',')), text)


def matches_addresses(patterns: str, address: str) -> bool:
    """Tell whether an address fits a list of addresses, networks and patterns.

    Raises:
      ValueError: a network is not one
    """

    return HostPatternList(patterns).matches('', address)


def matches_local_network(networks: str) -> bool:
    """Tell whether an address of this host is in one of the networks.

    Raises:
      ValueError: a network is not one
    """

    wanted = HostPatternList(networks)

    return any(wanted.matches('', address) for address in local_addresses() if parse_address(address))


def command_succeeds(command: str, shell: str) -> bool:
    """Run a command of Match exec; tell whether its exit status is 0.

    Raises:
      ValueError: it could not be run, or did not end in half a minute
    """

    try:
        done = subprocess.run(
            [shell, '-c', command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=_EXEC_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f'the command of exec did not end in {_EXEC_SECONDS:g} seconds') from None
    except (OSError, ValueError) as exc:
        raise ValueError(f'the command of exec cannot be run: {exc}') from None

    return done.returncode == 0


Test = Callable[[str], bool]


def matches_criteria(directive: Directive, tests: Mapping[str, Test], *, final: bool, run: bool) -> bool:
    """Tell whether a Match line applies; with `run` False no command is run, and the line does not apply.

    Raises:
      ConfigParseError: an argument is malformed, or a command cannot be run
    """

    result = run

    for name, negated, argument in directive.value:
        if name == 'all':
            return result and not negated

        if name in ('canonical', 'final'):
            fits = final
        elif name == 'exec' and not result:
            continue
        else:
            try:
                fits = tests[name](argument)
            except ValueError as exc:
                raise directive.error(exc) from None

        if fits == negated:
            result = False

    return result
