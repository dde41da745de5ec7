"""Forwarding on uvloop, whose sockets differ from asyncio's in small things: tests of the other files, run by it."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.connection import test_forwarding, test_reverse, test_server_connections, test_tunnels

uvloop = pytest.importorskip('uvloop')

MIB = 1 << 20
NEEDING_A_FOLDER = [
    test_forwarding.test_paths_and_ports_in_every_mixture,
    test_forwarding.test_streams_and_sessions_through_the_server,
    test_forwarding.test_listeners_end_with_the_connection,
    test_server_connections.test_answers_that_the_connection_makes,
    partial(test_server_connections.test_connections_through_another_server, 300_000),
    partial(test_server_connections.test_listening_through_another_server, 300_000),
]
CASES = [
    *(partial(test_forwarding.test_local_port, size) for size in (0, 1, 8 * MIB)),
    *(partial(test_forwarding.test_remote_port, size) for size in (0, 1, 8 * MIB)),
    test_forwarding.test_many_connections_through_rekeys,
    test_forwarding.test_handlers_take_what_comes_to_the_server,
    test_forwarding.test_a_reset_closes_the_channel,
    test_forwarding.test_a_slow_receiver_holds_its_sender_and_nobody_else,
    test_forwarding.test_a_peer_that_leaves_while_its_channel_opens_leaves_nothing,
    test_reverse.test_a_server_connects_and_its_client_works,
    partial(test_reverse.test_a_server_that_listens_through_a_connection, 1 << 20),
    test_reverse.test_reverse_through_a_connection_in_both_parts,
    test_server_connections.test_connections_that_a_server_hands_over,
    test_server_connections.test_many_at_once_through_another_server_and_rekeys,
    test_server_connections.test_sessions_on_another_server,
    partial(test_tunnels.test_one_connection_inside_of_another, 1 << 20),
]


def name_of(case: Any) -> str:
    if isinstance(case, partial):
        return f'{case.func.__name__}-{case.args[0]}'
    return str(case.__name__)


def run(case: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
    async def main() -> None:
        assert type(asyncio.get_running_loop()).__module__.startswith('uvloop')
        # Its first listener opens /dev/null, for all.
        first = await asyncio.start_server(lambda reader, writer: None, '127.0.0.1', 0)
        first.close()
        await first.wait_closed()
        await case(*args)

    uvloop.run(main())


@pytest.mark.parametrize('case', CASES, ids=name_of)
def test_the_same(case: Any) -> None:
    run(case)


@pytest.mark.parametrize('case', NEEDING_A_FOLDER, ids=name_of)
def test_the_same_in_a_folder(case: Any, tmp_path: Path) -> None:
    run(case, tmp_path)
