"""The lines that were entered: to be recalled one by one, and searched."""

from collections.abc import Sequence

# What is searched for, in characters.
MAX_QUERY = 256


class History:
    """At most `size` lines, and the place among them of the line that is edited."""

    def __init__(self, size: int) -> None:
        self.lines: list[str] = []
        self.place = 0          # of a new line, behind the last
        self._size = size
        self._draft = ''        # the new line while an older one stands in its place

    def add(self, line: str) -> None:
        """Keep a line, unless it is empty or the last one again."""

        if self._size and line and line != (self.lines[-1] if self.lines else ''):
            self.lines.append(line)
            del self.lines[: -self._size]

    def leave(self) -> None:
        """Begin a new line."""

        self.place = len(self.lines)
        self._draft = ''

    def recall(self, place: int, line: str) -> str | None:
        """Return the line at a place, which takes that of the present one; None if there is none."""

        if not 0 <= place <= len(self.lines):
            return None

        if self.place == len(self.lines):
            self._draft = line

        self.place = place

        return self._draft if place == len(self.lines) else self.lines[place]


class Search:
    """A search of the history, made only when its result is wanted: a paste may change it at every character."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._query = ''
        self._below = len(lines)              # matches are older than this
        self._found: int | None = None
        self._is_current = True

    def add(self, text: str) -> bool:
        """Add to what is searched for; return false if it is too long."""

        if len(self._query) + len(text) > MAX_QUERY:
            return False

        # What was found may still match.
        self._below = self._below if self._found is None else self._found + 1
        self._query += text
        self._is_current = False

        return True

    def remove(self) -> None:
        """Take one character off what is searched for."""

        self._query = self._query[:-1]
        self._below = len(self._lines)
        self._found = None
        self._is_current = False

    def found(self) -> int | None:
        """Return the place of the newest line that matches, None if none does."""

        if not self._is_current:
            self._is_current = True
            self._found = None

            for place in range(self._below - 1, -1, -1):
                if self._query and self._query in self._lines[place]:
                    self._found = place
                    break

        return self._found

    def older(self) -> bool:
        """Go to the next older match, and return whether there is one."""

        found = self.found()

        if found is None:
            return False

        self._below = found
        self._is_current = False

        if self.found() is not None:
            return True

        self._found = found

        return False

    def shown(self) -> tuple[str, int]:
        """Return what is shown in place of the line, and the cursor's position in it."""

        found = self.found()
        line = '' if found is None else self._lines[found]
        start = f"({'failed ' if self._query and found is None else ''}search) '{self._query}': "

        return start + line, len(start) + max(0, line.find(self._query))
