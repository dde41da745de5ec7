"""What a server demands of a login: which methods in which order, and how often it may fail."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from .messages import DEFAULT_METHODS

MethodSequence = tuple[bytes, ...]

# OpenSSH's MaxAuthTries; RFC 4252 section 4 recommends at most 20
MAX_FAILURES = 6

# Queries whether a key would do are free of the limit above, as users' agents hold many keys, up to Dropbear's count
MAX_KEY_QUERIES = 15


@dataclass(frozen=True)
class AuthPolicy:
    """The methods and limits of a server.

    `sequences` are alternatives, each a list of methods to complete in that order, as OpenSSH's AuthenticationMethods;
    empty means that any single method is enough.
    """

    sequences: tuple[MethodSequence, ...] = ()
    max_failures: int = MAX_FAILURES
    max_key_queries: int = MAX_KEY_QUERIES

    def __post_init__(self) -> None:
        for sequence in self.sequences:
            if not sequence:
                raise ValueError('Expected at least one method in each authentication sequence, got none')

            for name in sequence:
                if name not in DEFAULT_METHODS:
                    raise ValueError(f'Unknown authentication method {name.decode(errors="replace")!r}')

        if self.max_failures < 1:
            raise ValueError(f'Expected at least one authentication attempt, got {self.max_failures}')

    def can_continue(self, completed: MethodSequence, supported: Collection[bytes]) -> list[bytes]:
        """Return the methods that may come next; a sequence that needs an unsupported method leads nowhere."""

        if not self.sequences:
            return [name for name in DEFAULT_METHODS if name in supported]

        done = len(completed)
        following = {
            sequence[done]
            for sequence in self.sequences
            if len(sequence) > done and sequence[:done] == completed and all(name in supported for name in sequence)
        }

        return [name for name in DEFAULT_METHODS if name in following]

    def is_satisfied(self, completed: MethodSequence) -> bool:
        """Tell whether the methods completed are enough; they were admitted one by one by `can_continue`."""

        return bool(completed) and (not self.sequences or completed in self.sequences)


def parse_sequences(value: Sequence[str | Iterable[str]]) -> tuple[MethodSequence, ...]:
    """Parse alternatives given as comma strings or as sequences of method names."""

    if isinstance(value, str):
        raise ValueError(f'Expected a list of method sequences, got the string {value!r}')

    return tuple(
        tuple(name.strip().encode() for name in (entry.split(',') if isinstance(entry, str) else entry))
        for entry in value
    )
