"""The tests. Shared parts are imported as `from tests.memory_pipe import ...`; test folders need no `__init__.py`."""
