"""The ring of what waits to be sent in a flow; used by compiled modules only."""

class ItemQueue:
    """The pieces of data, messages and blocks that wait in a flow, in order."""

    @property
    def count(self) -> int: ...
