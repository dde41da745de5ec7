"""Which message is handled in which state: the golden table, cell by cell, and what no table may ever say."""

import pytest

from tests.connection import state_machine
from tests.connection.state_machine import STATES, TABLE, Cell, cells, read, run, write

GOLDEN = read(TABLE.read_text())
PLACES = pytest.mark.parametrize('cell', list(cells()), ids=lambda cell: f'{cell.role}-{cell.strict}-{cell.state}')
DISCONNECT, NEWKEYS = 1, 21


@PLACES
async def test_every_message_in_every_state(cell: Cell) -> None:
    found = (await run(only=[cell]))[cell]
    wrong = {number: (golden, now) for number, (golden, now) in enumerate(zip(GOLDEN[cell], found, strict=True))
             if golden != now}  # fmt: skip
    assert not wrong, 'number: (in the table, what it came to)'


def test_the_table_is_whole_and_is_what_would_be_written() -> None:
    assert list(GOLDEN) == list(cells())
    assert all(outcome in state_machine.OUTCOMES for outcomes in GOLDEN.values() for outcome in outcomes)
    assert write(GOLDEN) == TABLE.read_text()


@PLACES
def test_what_no_table_may_say(cell: Cell) -> None:
    """The rules of RFC 4253, RFC 4252 and strict kex, whatever was written anew."""
    place, outcomes = STATES.index(cell.state), GOLDEN[cell]
    handled = {number for number, outcome in enumerate(outcomes) if outcome == 'handle'}
    refused = {number for number, outcome in enumerate(outcomes) if outcome == 'disconnect'}
    if cell.state in ('kex reply', 'newkeys') and cell.strict:
        # CVE-2023-48795: nothing but what the exchange waits for, and DISCONNECT.
        assert len(handled) == 2 and DISCONNECT in handled
        assert len(refused) == 254
    if place < STATES.index('authenticated'):
        # CVE-2018-7750, CVE-2025-32433
        assert refused >= set(range(80, 128)) or cell == Cell('client', cell.strict, 'identification')
        assert not handled & set(range(80, 256))
    if place < STATES.index('auth'):
        assert not handled & set(range(50, 80))     # CVE-2023-46446
    if cell.role == 'server':
        assert not handled & {6, 31, 51, 52, 53, 60, 91, 92}     # CVE-2018-10933, CVE-2018-1000805
    else:
        assert not handled & {5, 30, 50}
    if place > STATES.index('auth'):
        assert not handled & set(range(50, 80))
    if ('kex' in cell.state and cell.state != 'kex sent') or cell.state in ('newkeys', 'rekey both'):
        assert 20 in refused     # CVE-2016-8858
        assert not handled & set(range(50, 256))
    assert (NEWKEYS in handled) == (cell.state == 'newkeys')
