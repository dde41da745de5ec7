"""Processes on both sides: output, input, ends, timeouts, and what cannot be redirected."""

import asyncio
import builtins

import pytest

from ssh_fast.constants import DEVNULL, PIPE, STDOUT
from ssh_fast.errors import ConnectionLost, Error
from ssh_fast.process.process import SSHClientProcess, SSHServerProcess, run_process
from ssh_fast.process.results import ProcessError, TimeoutError
from tests.channel.pair import Pair, client_channel, serve, settle


async def start(factory, encoding='utf-8', pair=None, streams=None, window=2 << 20, **options):
    """Start a process that the server's factory runs."""

    pair = pair or Pair()
    serve(pair, lambda: SSHServerProcess(factory), encoding, window=window)
    chan = client_channel(pair, encoding, window=window)
    data = (streams or {}).get('input')
    others = {name: value for name, value in (streams or {}).items() if name != 'input'}
    process = await chan.create(SSHClientProcess, **options)
    await process.redirect(**others)

    if data is not None:
        process.write_input(data)

    return process


async def upper(process):
    data = await process.stdin.read()
    process.stdout.write(data.upper())
    process.stderr.write('done')
    process.exit(3)


async def hang(process):
    process.stdout.write('started')
    await process.stdin.read()
    process.exit(0)


async def test_a_process_with_input_and_output():
    process = await start(upper, streams={'input': 'text'}, command='upper', env={'A': 'b'})
    result = await process.wait()

    assert (result.stdout, result.stderr, result.exit_status, result.returncode) == ('TEXT', 'done', 3, 3)
    assert (result.command, result.subsystem, result.env, result.exit_signal) == ('upper', None, {'A': 'b'}, None)
    assert process.is_closing() and process.exit_status == 3 and process.returncode == 3


async def test_what_a_server_process_knows():
    seen = []

    def factory(process):
        seen.extend([
            process.command, process.subsystem, dict(process.env), process.term_type, process.term_size,
            dict(process.term_modes), process.get_terminal_type(), process.get_terminal_size(),
            process.get_terminal_mode(1), process.get_extra_info('username'),
        ])
        process.stdout.write('x')
        process.exit_with_signal('TERM', msg='ended')

    process = await start(
        factory, command='c', env={'A': 'b'}, term_type='vt100', term_size=(80, 24), term_modes={1: 3}
    )
    result = await process.wait()

    assert seen == [
        'c', None, {'A': 'b'}, 'vt100', (80, 24, 0, 0), {1: 3}, 'vt100', (80, 24, 0, 0), 3, 'user'
    ]
    assert result.exit_status == -1 and result.exit_signal[:3] == ('TERM', False, 'ended') and result.returncode == -15
    assert result.stdout == 'x'


async def test_a_status_that_is_checked():
    process = await start(upper, streams={'stdin': DEVNULL}, command='upper')

    with pytest.raises(ProcessError, match='status 3') as excinfo:
        await process.wait(check=True)

    exc = excinfo.value
    assert isinstance(exc, Error) and exc.code == exc.exit_status == exc.returncode == 3
    assert (exc.command, exc.stderr, exc.stdout) == ('upper', 'done', '')

    process = await start(lambda process: process.exit_with_signal('KILL', True, 'oom'), command='x')

    with pytest.raises(ProcessError, match='KILL, core dumped: oom'):
        await process.wait(check=True)

    process = await start(lambda process: process.exit(0), command='x')
    assert (await process.wait(check=True)).exit_status == 0


async def test_a_timeout_has_the_output_until_then_and_leaves_the_process():
    process = await start(hang)

    with pytest.raises(TimeoutError) as excinfo:
        await process.wait(timeout=0.05)

    assert isinstance(excinfo.value, builtins.TimeoutError) and isinstance(excinfo.value, ProcessError)
    assert excinfo.value.stdout == 'started' and excinfo.value.exit_status is None
    assert not process.is_closing()

    process.stdin.write_eof()
    assert (await process.wait()).exit_status == 0


async def test_run_closes_the_process_whatever_happens():
    pair = Pair()
    process = await start(hang, pair=pair)

    with pytest.raises(TimeoutError):
        await run_process(process, timeout=0.05)

    await settle()
    assert not pair.client.mux.channels and not pair.server.mux.channels

    process = await start(hang, pair=pair)
    task = asyncio.ensure_future(run_process(process))
    await settle()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    await settle()
    assert not pair.client.mux.channels and not pair.server.mux.channels and not pair.server.tasks

    process = await start(upper, pair=pair, streams={'input': 'x'})
    assert (await run_process(process)).stdout == 'X'


async def test_communicate():
    process = await start(upper)
    assert await process.communicate('abc') == ('ABC', 'done')

    process = await start(lambda process: process.exit(0))
    await settle()
    assert await process.communicate('nobody reads this') == ('', '')


async def test_all_output_is_kept_while_a_process_is_waited_for():
    def produce(process):
        process.stdout.write('o' * 100_000)
        process.stderr.write('e' * 100_000)
        process.exit(0)

    process = await start(produce, window=10_000)
    await settle(50)
    result = await process.wait()

    assert result.stdout == 'o' * 100_000 and result.stderr == 'e' * 100_000


@pytest.mark.parametrize(('streams', 'stdout', 'stderr'), [
    ({}, 'out', 'err'),
    ({'stderr': STDOUT}, 'outerr', ''),
    ({'stdout': DEVNULL}, '', 'err'),
    ({'stderr': DEVNULL}, 'out', ''),
    ({'stdout': DEVNULL, 'stderr': STDOUT}, '', ''),
    ({'stdin': PIPE, 'stdout': PIPE, 'stderr': PIPE}, 'out', 'err'),
])
async def test_where_output_goes(streams, stdout, stderr):
    def produce(process):
        process.stdout.write('out')
        process.stderr.write('err')
        process.exit(0)

    result = await (await start(produce, streams=streams)).wait()
    assert (result.stdout, result.stderr) == (stdout, stderr)


async def test_output_to_nowhere_has_no_bound_to_stall_at():
    def produce(process):
        process.stdout.write('x' * 200_000)
        process.exit(0)

    process = await start(produce, streams={'stdout': DEVNULL}, window=1000)
    await asyncio.wait_for(process.wait_closed(), 5)
    assert process.exit_status == 0


async def test_no_input_is_an_end_of_file():
    process = await start(upper, streams={'stdin': DEVNULL})
    assert (await process.wait()).stdout == ''


async def test_a_lost_connection_is_not_an_end():
    pair = Pair()
    process = await start(hang, pair=pair)
    wait = asyncio.ensure_future(process.wait())
    await settle()
    error = ConnectionLost('gone')
    pair.lose(error)

    with pytest.raises(ConnectionLost):
        await wait

    with pytest.raises(ConnectionLost):
        await process.communicate()

    for task in pair.server.tasks:
        task.cancel()


@pytest.mark.parametrize('closed', [True, False])
async def test_a_connection_that_was_closed_is_not_an_end(closed):
    pair = Pair()
    process = await start(hang, pair=pair)
    wait = asyncio.ensure_future(process.wait())
    await settle()

    if closed:
        pair.client.mux.channels[0].close()

    pair.lose(None)

    with pytest.raises(ConnectionLost):
        await wait

    for task in pair.server.tasks:
        task.cancel()


async def test_our_own_close_is_an_end():
    process = await start(hang)
    process.close()
    result = await process.wait()

    assert result.exit_status is None and not process.channel.get_write_buffer_size()


async def test_a_connection_lost_after_status_and_end_does_not_matter():
    def produce(process):
        process.stdout.write('all')
        process.channel._send_exit(b'exit-status', bytes(3) + b'\5')

    pair = Pair()
    process = await start(produce, pair=pair)
    await settle()
    pair.lose(ConnectionLost('gone'))
    result = await process.wait()

    assert result.stdout == 'all' and result.exit_status == 5


async def test_a_process_in_a_block_is_closed_at_its_end():
    pair = Pair()

    async with await start(hang, pair=pair) as process:
        assert await process.stdout.read(7) == 'started'

    assert not pair.client.mux.channels and process.exit_status is None


async def test_signals_to_a_process():
    seen = []

    async def watch(process):
        while True:
            try:
                if not await process.stdin.read(1):
                    break
            except Exception as exc:
                seen.append(type(exc).__name__)

        process.exit(0)

    process = await start(watch, term_type='vt100')

    for send in (
        lambda: process.send_signal('USR1'), process.terminate, process.kill, lambda: process.send_break(5),
        lambda: process.change_terminal_size(1, 2),
    ):
        send()
        await settle()

    process.stdin.write_eof()
    await process.wait()
    assert seen == ['SignalReceived'] * 3 + ['BreakReceived', 'TerminalSizeChanged']


async def test_a_hundred_processes_at_once():
    pair = Pair(max_sessions=100)
    serve(pair, lambda: SSHServerProcess(upper), None)

    async def run(index):
        process = await client_channel(pair).create(SSHClientProcess, 'upper')
        process.write_input(b'x%d' % index)

        return (await run_process(process)).stdout

    async def upper(process):
        process.stdout.write((await process.stdin.read()).upper())
        process.exit(0)

    serve(pair, lambda: SSHServerProcess(upper), None)
    assert await asyncio.gather(*map(run, range(100))) == [b'X%d' % index for index in range(100)]
    await settle()
    assert not pair.client.mux.channels and not pair.server.mux.channels and not pair.server.tasks
