"""Commands and shells with OpenSSH, in both roles: streams, environment, terminals, exit status and signals."""

import asyncio
import contextlib
import hashlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

import ssh_fast
from tests.interop import peers
from tests.interop.asyncssh_peer import asyncssh_server
from tests.interop.ours import nothing_leaks, our_server, until, watching
from tests.interop.peers import LOOPBACK, KeyRing, OpenSSHServer, Target, free_port

CONTENT = os.urandom(5_000_000)


@pytest.fixture
async def connection(openssh_server: OpenSSHServer) -> AsyncIterator[Any]:
    async with ssh_fast.connect(**openssh_server.target.connect_options()) as connection:
        yield connection


# --- our client -------------------------------------------------------------------------------------------------------


async def test_output_and_exit_status(connection: Any) -> None:
    result = await connection.run('echo out; echo ä wrong >&2; exit 3')
    assert (result.stdout, result.stderr) == ('out\n', 'ä wrong\n')
    assert (result.exit_status, result.returncode, result.exit_signal) == (3, 3, None)
    assert result.command == 'echo out; echo ä wrong >&2; exit 3'


async def test_failure_can_raise(connection: Any) -> None:
    with pytest.raises(ssh_fast.ProcessError) as caught:
        await connection.run('echo out; exit 4', check=True)
    assert (caught.value.exit_status, caught.value.stdout) == (4, 'out\n')


async def test_signals_end_commands(connection: Any) -> None:
    result = await connection.run('kill -TERM $$')
    assert result.exit_signal[0] == 'TERM'
    assert result.returncode == -signal.SIGTERM
    assert result.exit_status == -1


@pytest.mark.parametrize(('method', 'name'), [('terminate', 'TERM'), ('kill', 'KILL'), ('send_signal', 'INT')])
async def test_signals_are_sent(method: str, name: str, key_ring: KeyRing, tmp_path: Path) -> None:
    """OpenSSH passes signals on only to users other than root, so AsyncSSH takes them here."""

    async def handler(process: Any) -> None:
        process.stdout.write('ready\n')
        try:
            await process.stdin.read()
        except asyncssh.SignalReceived as exc:
            process.stdout.write(f'{exc.signal}\n')
            process.exit_with_signal('ALRM', msg='As told')

    async with asyncssh_server(key_ring, tmp_path / 'theirs', process_factory=handler) as target:
        async with (
            ssh_fast.connect(**target.connect_options()) as connection,
            connection.create_process('anything') as process,
        ):
            assert await process.stdout.readline() == 'ready\n'
            getattr(process, method)(*(['INT'] if method == 'send_signal' else []))
            result = await asyncio.wait_for(process.wait(), 5)
    assert result.stdout == f'{name}\n'
    assert result.exit_signal[0] == 'ALRM'
    assert result.exit_signal[2] == 'As told'


async def test_input_both_ways(connection: Any) -> None:
    result = await connection.run('cat', input=CONTENT, encoding=None)
    assert result.stdout == CONTENT
    result = await connection.run('wc -c', input='')
    assert result.stdout.strip() == '0'


async def test_streams(connection: Any) -> None:
    stdin, stdout, stderr = await connection.open_session('while read x; do echo "<$x>"; echo "$x!" >&2; done')
    for number in range(100):
        stdin.write(f'{number}\n')
        assert await stdout.readline() == f'<{number}>\n'
        assert await stderr.readline() == f'{number}!\n'
    stdin.write_eof()
    assert await stdout.read() == ''
    await stdout.channel.wait_closed()
    assert stdout.channel.get_exit_status() == 0


async def test_reader_may_be_slow(connection: Any) -> None:
    """What is not read stays at the peer: memory is bounded by windows."""
    async with connection.create_process('head -c 50000000 /dev/zero; echo end', encoding=None) as process:
        await asyncio.sleep(0.3)
        size = 0
        while data := await process.stdout.read(100_000):
            size += len(data)
        assert size == 50_000_004
        assert (await process.wait()).exit_status == 0


async def test_writer_waits(connection: Any) -> None:
    async with connection.create_process('sleep 0.3; sha256sum', encoding=None) as process:
        for start in range(0, len(CONTENT), 50_000):
            process.stdin.write(CONTENT[start : start + 50_000])
            await process.stdin.drain()
        process.stdin.write_eof()
        assert (await process.stdout.read()).split()[0].decode() == hashlib.sha256(CONTENT).hexdigest()


async def test_standard_error_can_be_joined(connection: Any) -> None:
    result = await connection.run('echo one; echo two >&2', stderr=ssh_fast.STDOUT)
    assert sorted(result.stdout.split()) == ['one', 'two']


async def test_environment(connection: Any) -> None:
    result = await connection.run('echo "$ONE-$TWO"', env={'ONE': '1', 'TWO': 'ä b'})
    assert result.stdout == '1-ä b\n'


async def test_terminal(connection: Any) -> None:
    result = await connection.run('tty; stty size; echo $TERM', term_type='xterm-256color', term_size=(123, 45))
    tty, size, term = result.stdout.split('\r\n')[:3]
    assert tty.startswith('/dev/')
    assert (size, term) == ('45 123', 'xterm-256color')
    async with connection.create_process('read x; stty size', term_type='vt100', term_size=(80, 24)) as process:
        process.change_terminal_size(100, 50)
        process.stdin.write('go\n')
        assert '50 100' in await process.stdout.read()


async def test_shell(connection: Any) -> None:
    async with connection.create_process() as process:
        process.stdin.write('echo $((6 * 7))\nexit 6\n')
        result = await process.wait()
    assert (result.stdout, result.exit_status) == ('42\n', 6)


async def test_time_is_limited(connection: Any) -> None:
    began = time.monotonic()
    with pytest.raises(ssh_fast.TimeoutError) as caught:
        await connection.run('echo begun; sleep 20', timeout=0.5)
    assert caught.value.stdout == 'begun\n'
    assert time.monotonic() - began < 5
    assert (await connection.run('echo still here')).stdout == 'still here\n'


async def test_commands_side_by_side(connection: Any) -> None:
    async def work(number: int) -> None:
        result = await connection.run(f'cat; exit {number}', input=CONTENT[: number * 10_000], encoding=None)
        assert (result.stdout, result.exit_status) == (CONTENT[: number * 10_000], number)

    await asyncio.gather(*(work(number) for number in range(50)))


async def test_command_is_refused(key_ring: KeyRing, tmp_path: Path) -> None:
    with OpenSSHServer(key_ring, tmp_path / 'sshd', ['MaxSessions 2']) as server:
        async with ssh_fast.connect(**server.target.connect_options()) as connection:
            async with connection.create_process('cat'), connection.create_process('cat'):
                with pytest.raises(ssh_fast.ChannelOpenError):
                    await connection.run('true')


async def test_nothing_is_left(openssh_server: OpenSSHServer) -> None:
    async with nothing_leaks():
        async with ssh_fast.connect(**openssh_server.target.connect_options()) as connection:
            await connection.run('true')
            process = await connection.create_process('sleep 20')
            process.stdin.write('unread')
        with pytest.raises(ssh_fast.ConnectionLost):
            await connection.run('true')


# --- our server -------------------------------------------------------------------------------------------------------


async def handler(process: Any) -> None:
    """What our server's commands do."""
    command, _, argument = (process.command or 'shell').partition(' ')
    if command == 'shell':
        async for line in process.stdin:
            process.stdout.write(f'<{line.rstrip()}>\n')
    elif command == 'both':
        process.stdout.write('out\n')
        process.stderr.write('ä wrong\n')
    elif command == 'env':
        process.stdout.write(process.env.get(argument, 'nothing') + '\n')
    elif command == 'signal':
        process.exit_with_signal(argument)
        return
    elif command == 'terminal':
        process.stdout.write(f'{process.term_type} {process.term_size[:2]}\n')
    elif command == 'wait':
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(20)
    elif command == 'raise':
        raise RuntimeError('A test')
    process.exit(int(argument) if command == 'exit' else 0)


@pytest.fixture
async def target(key_ring: KeyRing, tmp_path: Path) -> AsyncIterator[Target]:
    async with our_server(key_ring, tmp_path / 'ours', process_factory=handler, line_editor=False) as target:
        yield target


async def test_ssh_gets_output_and_status(target: Target) -> None:
    result = await peers.ssh(target, 'both').run_async()
    assert (result.status, result.stdout, result.stderr) == (0, b'out\n', 'ä wrong\n')
    for status in (1, 42, 255):
        assert (await peers.ssh(target, f'exit {status}').run_async(check=False)).status == status


async def test_ssh_gets_a_signal(target: Target) -> None:
    assert (await peers.ssh(target, 'signal TERM').run_async(check=False)).status == 255


async def test_ssh_gets_a_shell(target: Target) -> None:
    result = await peers.ssh(target, stdin=b'one\ntwo\n').run_async()
    assert result.stdout == b'<one>\n<two>\n'


async def test_ssh_sends_its_environment(target: Target) -> None:
    options = ['SetEnv=WHAT=this']
    assert (await peers.ssh(target, 'env WHAT', options=options).run_async()).stdout == b'this\n'


async def test_ssh_asks_for_a_terminal(target: Target) -> None:
    command = peers.ssh(target, 'terminal', options=['RequestTTY=force'])
    result = await peers.Command(command.argv, environment={'TERM': 'xterm'}).run_async()
    assert result.stdout.startswith(b'xterm (')


async def test_a_failing_handler_ends_its_session_only(target: Target) -> None:
    result = await peers.ssh(target, 'raise').run_async(check=False)
    assert result.status != 0
    assert (await peers.ssh(target, 'both').run_async()).stdout == b'out\n'


async def test_ssh_goes_away(key_ring: KeyRing, tmp_path: Path) -> None:
    made, factory = watching()
    options: dict[str, Any] = {'process_factory': handler, 'server_factory': factory}
    async with our_server(key_ring, tmp_path / 'ours', **options) as target, nothing_leaks():
        attempt = asyncio.ensure_future(peers.ssh(target, 'wait').run_async(check=False))
        await until(lambda: bool(made) and made[0].conn and made[0].conn.get_extra_info('username') is not None)
        await asyncio.sleep(0.1)
        attempt.cancel()  # which kills it
        with contextlib.suppress(asyncio.CancelledError):
            await attempt
        assert isinstance(await asyncio.wait_for(made[0].lost, 1), ssh_fast.ConnectionLost | None)


async def test_ssh_shares_a_connection(target: Target, tmp_path: Path) -> None:
    """A master connection with many sessions, and one that asks for what it may not have."""
    path = tmp_path / 'm'
    options = [f'ControlPath={path}', 'ControlMaster=auto', 'ControlPersist=10']
    assert (await peers.ssh(target, 'both', options=options).run_async()).stdout == b'out\n'
    results = await asyncio.gather(
        *(peers.ssh(target, f'exit {number}', options=options).run_async(check=False) for number in range(8))
    )
    assert [result.status for result in results] == list(range(8))
    await peers.ssh(target, options=[*options, 'LogLevel=QUIET'], stdin=b'').run_async()
    leave = peers.ssh(target, options=options)
    await peers.Command([*leave.argv[:1], '-O', 'exit', *leave.argv[1:]]).run_async()
    await until(lambda: not path.exists())


@pytest.mark.parametrize('option', ['RemoteForward={port} 127.0.0.1:9', 'ForwardAgent=yes', 'ForwardX11=yes'])
async def test_forwarding_is_refused(option: str, target: Target, tmp_path: Path) -> None:
    """What isn't offered is refused, and the session goes on."""
    options = [option.format(port=free_port())]
    assert (await peers.ssh(target, 'both', options=options).run_async()).stdout == b'out\n'
    if option.startswith('Remote'):
        strict = await peers.ssh(target, 'both', options=[*options, 'ExitOnForwardFailure=yes']).run_async(check=False)
        assert strict.status == 255


async def test_direct_connections_are_refused(target: Target) -> None:
    command = peers.ssh(target)
    argv = [*command.argv[:-1], '-W', f'{LOOPBACK}:{target.port}', command.argv[-1]]
    result = await peers.Command(argv).run_async(check=False)
    assert result.status == 255
    assert 'open failed' in result.stderr


async def test_keepalives_of_ssh(target: Target) -> None:
    options = ['ServerAliveInterval=1', 'ServerAliveCountMax=2']
    command = peers.ssh(target, options=options)
    process = await asyncio.create_subprocess_exec(
        *command.argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    await asyncio.sleep(3.5)
    stdout, _ = await asyncio.wait_for(process.communicate(b'alive\n'), 5)
    assert (stdout, process.returncode) == (b'<alive>\n', 0)


async def test_streams_of_our_server(key_ring: KeyRing, tmp_path: Path) -> None:
    async def session(stdin: Any, stdout: Any, stderr: Any) -> None:
        stdout.write(f'got {await stdin.read()}')
        stderr.write('end')
        stdout.channel.exit(9)

    async with our_server(key_ring, tmp_path / 'ours', session_factory=session, line_editor=False) as target:
        result = await peers.ssh(target, 'anything', stdin=b'this').run_async(check=False)
    assert (result.status, result.stdout, result.stderr) == (9, b'got this', 'end')


async def test_callbacks_of_our_server(key_ring: KeyRing, tmp_path: Path) -> None:
    class Session(ssh_fast.SSHServerSession):  # type: ignore[misc, name-defined]
        def connection_made(self, chan: Any) -> None:
            self.chan = chan
            self.size = 0

        def exec_requested(self, command: str) -> bool:
            self.command = command
            return command != 'forbidden'

        def data_received(self, data: str, datatype: Any) -> None:
            self.size += len(data)

        def eof_received(self) -> bool:
            self.chan.write(f'{self.command} {self.size}')
            self.chan.exit(0)
            return True

    class Server(ssh_fast.SSHServer):  # type: ignore[misc, name-defined]
        def session_requested(self) -> Any:
            return Session()

    async with our_server(key_ring, tmp_path / 'ours', server_factory=Server) as target:
        assert (await peers.ssh(target, 'count', stdin=b'x' * 300_000).run_async()).stdout == b'count 300000'
        refused = await peers.ssh(target, 'forbidden').run_async(check=False)
        assert refused.status != 0
        assert refused.stdout == b''
