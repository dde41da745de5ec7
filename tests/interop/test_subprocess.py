"""Remote processes in the shape of asyncio's, against OpenSSH, AsyncSSH and ourselves as servers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import ssh_fast
from tests.interop.asyncssh_peer import asyncssh_server
from tests.interop.ours import our_server, until
from tests.interop.peers import KeyRing, OpenSSHServer, Target


async def answer(process: Any) -> None:
    """Serve every command as a shell would serve the one of these tests."""
    data = await process.stdin.read()
    # AsyncSSH ends the connection for an exception of a handler.
    with contextlib.suppress(BrokenPipeError):
        process.stdout.write(b'out:' + data)
        process.stderr.write(b'err')
        process.exit(3)


COMMAND = 'printf out:; cat; printf err >&2; exit 3'


@pytest.fixture(params=['openssh', 'ours', 'asyncssh'])
async def target(
    request: pytest.FixtureRequest, key_ring: KeyRing, tmp_path: Path, openssh_server: OpenSSHServer
) -> AsyncIterator[Target]:
    if request.param == 'openssh':
        yield openssh_server.target
    else:
        serve: Callable[..., Any] = our_server if request.param == 'ours' else asyncssh_server
        async with serve(key_ring, tmp_path / 't', process_factory=answer, encoding=None) as made:
            yield made


@pytest.fixture
async def conn(target: Target) -> AsyncIterator[Any]:
    async with ssh_fast.connect(**target.connect_options()) as connection:
        yield connection


class Protocol(ssh_fast.SSHSubprocessProtocol[Any]):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.data: dict[int, list[Any]] = {1: [], 2: []}

    def connection_made(self, transport: Any) -> None:
        self.calls.append('made')

    def pipe_data_received(self, fd: int, data: Any) -> None:
        self.data[fd].append(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self.calls.append((fd, exc))

    def process_exited(self) -> None:
        self.calls.append('exited')


async def test_pipes_and_calls(conn: Any) -> None:
    transport, protocol = await conn.create_subprocess(Protocol, COMMAND)
    assert isinstance(transport, ssh_fast.SSHSubprocessTransport)
    assert transport.get_protocol() is protocol
    assert protocol.calls == ['made']
    assert transport.get_pid() is transport.get_returncode() is transport.get_pipe_transport(3) is None
    stdin = transport.get_pipe_transport(0)
    assert isinstance(stdin, ssh_fast.SSHSubprocessWritePipe)
    assert isinstance(transport.get_pipe_transport(1), ssh_fast.SSHSubprocessReadPipe)
    assert isinstance(transport.get_pipe_transport(2), ssh_fast.SSHSubprocessReadPipe)
    assert stdin.can_write_eof()
    assert stdin.get_extra_info('peername') == conn.get_extra_info('peername')
    stdin.set_write_buffer_limits(1000)
    stdin.write(b'a' * 1000)
    stdin.writelines([b'b', b'c'])
    assert stdin.get_write_buffer_size() >= 0
    stdin.write_eof()
    await transport.wait_closed()
    assert b''.join(protocol.data[1]) == b'out:' + b'a' * 1000 + b'bc'
    assert b''.join(protocol.data[2]) == b'err'
    assert protocol.calls == ['made', 'exited', (1, None), (2, None)]
    assert transport.get_returncode() == 3
    assert transport.is_closing()


async def test_text_input_and_redirection(conn: Any, tmp_path: Path) -> None:
    transport, protocol = await conn.create_subprocess(Protocol, COMMAND, encoding='utf-8', input='grüße')
    await transport.wait_closed()
    assert ''.join(protocol.data[1]) == 'out:grüße'
    (tmp_path / 'in').write_bytes(b'source')
    transport, protocol = await conn.create_subprocess(
        Protocol, COMMAND, stdin=tmp_path / 'in', stdout=tmp_path / 'out', stderr=ssh_fast.PIPE
    )
    await transport.wait_closed()
    assert (protocol.data[1], b''.join(protocol.data[2])) == ([], b'err')
    assert (tmp_path / 'out').read_bytes() == b'out:source'
    assert protocol.calls == ['made', 'exited', (1, None), (2, None)]


async def test_paused_pipe_keeps_its_data(conn: Any) -> None:
    transport, protocol = await conn.create_subprocess(Protocol, COMMAND)
    transport.get_pipe_transport(1).pause_reading()
    transport.get_pipe_transport(0).write_eof()
    await until(lambda: len(protocol.calls) == 3)
    assert (protocol.calls, protocol.data[1]) == (['made', 'exited', (2, None)], [])
    transport.get_pipe_transport(1).resume_reading()
    assert b''.join(protocol.data[1]) == b'out:'
    assert protocol.calls[3] == (1, None)


async def test_closed_from_here(conn: Any) -> None:
    for close in (
        lambda transport: transport.close(),
        lambda transport: transport.get_pipe_transport(0).close(),
        lambda transport: transport.get_pipe_transport(1).close(),
        lambda transport: transport.get_pipe_transport(0).abort(),
    ):
        transport, protocol = await conn.create_subprocess(Protocol, 'cat')
        close(transport)
        await asyncio.wait_for(transport.wait_closed(), 5)
        assert protocol.calls == ['made', 'exited', (1, None), (2, None)]
        assert transport.get_returncode() in (None, 0)


async def test_lost_connection(target: Target) -> None:
    async with ssh_fast.connect(**target.connect_options()) as connection:
        transport, protocol = await connection.create_subprocess(Protocol, 'cat')
        connection.abort()
        await transport.wait_closed()
    made, exited, (_, lost), (_, also) = protocol.calls
    assert (made, exited) == ('made', 'exited')
    assert isinstance(lost, ssh_fast.ConnectionLost)
    assert lost is also


async def test_protocol_that_cannot_be_made(conn: Any) -> None:
    def refuse() -> Any:
        raise RuntimeError('No protocol')

    with pytest.raises((RuntimeError, ssh_fast.ChannelOpenError)):
        await conn.create_subprocess(refuse, 'cat')
    transport, _ = await conn.create_subprocess(Protocol, COMMAND, stdin=ssh_fast.DEVNULL)
    await transport.wait_closed()
    assert transport.get_returncode() == 3
