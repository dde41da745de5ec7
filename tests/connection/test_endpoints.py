"""connect and listen: what they raise to whoever awaits them, and what they leave behind."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

import ssh_fast


@pytest.fixture
async def silent_port() -> AsyncIterator[tuple[int, list[asyncio.StreamWriter]]]:
    """The port of a server that says nothing, and the connections that it has."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError):
            await reader.read()
        writers.remove(writer)
        writer.close()

    server = await asyncio.start_server(accept, '127.0.0.1', 0)
    yield server.sockets[0].getsockname()[1], writers
    server.close()


async def test_connect_timeout_says_what_took_how_long(
    silent_port: tuple[int, list[asyncio.StreamWriter]],
) -> None:
    port, connections = silent_port
    with pytest.raises(TimeoutError, match=f'^Connecting to 127.0.0.1 port {port} took longer than 0.2 seconds$'):
        await ssh_fast.connect(
            '127.0.0.1', port, known_hosts=None, client_keys=None, username='user', connect_timeout=0.2
        )

    async with asyncio.timeout(5):
        while connections:
            await asyncio.sleep(0.01)


async def test_timeout_of_the_caller_stays_its_own(silent_port: tuple[int, list[asyncio.StreamWriter]]) -> None:
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.2):
            await ssh_fast.connect(
                '127.0.0.1', silent_port[0], known_hosts=None, client_keys=None, username='user', connect_timeout=60
            )
    assert str(caught.value) == ''


async def test_refused_connection_names_host_and_port() -> None:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
        with pytest.raises(ConnectionRefusedError, match=f'Cannot connect to 127.0.0.1 port {port}'):
            await ssh_fast.connect('127.0.0.1', port, known_hosts=None, client_keys=None, username='user')


async def test_listen_needs_a_host_key() -> None:
    with pytest.raises(ValueError, match='^server_host_keys: a server needs at least one host key'):
        await ssh_fast.listen('127.0.0.1', 0)
