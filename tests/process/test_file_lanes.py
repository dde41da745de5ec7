"""The compiled lanes between channels and plain files: every size, small windows, files that change, and failures."""

import asyncio
import os
import random

import pytest

from ssh_fast._file_lanes import FileFeed, FileSink
from ssh_fast.process.process import SSHClientProcess, SSHServerProcess
from tests.channel.pair import Pair, client_channel, serve, settle

BLOCK = 128 * 1024


async def start(factory, window=2 << 20):
    """Start a process of bytes that the server's factory runs."""

    pair = Pair()
    serve(pair, lambda: SSHServerProcess(factory), None, window=window)

    return await client_channel(pair, None, window=window).create(SSHClientProcess)


async def echo(process):
    while data := await process.stdin.read(1 << 20):
        process.stdout.write(data)
        await process.stdout.drain()

    process.exit(0)


@pytest.mark.parametrize('window', [1000, 100_000, 2 << 20])
@pytest.mark.parametrize('size', [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 1_000_001])
async def test_files_of_every_size(tmp_path, size, window):
    content = random.Random(size).randbytes(size)
    (tmp_path / 'source').write_bytes(content)
    process = await start(echo, window)
    await process.redirect(stdin=tmp_path / 'source', stdout=tmp_path / 'copy')
    result = await process.wait(check=True)

    assert (tmp_path / 'copy').read_bytes() == content
    assert result.stdout == b''


async def test_files_on_both_sides(tmp_path):
    content = random.Random(1).randbytes(1_000_000)
    (tmp_path / 'source').write_bytes(content)

    async def copy(process):
        await process.redirect(stdin=tmp_path / 'there', stdout=tmp_path / 'source')
        await process.wait_for_redirections()
        process.exit(0)

    process = await start(copy)
    await process.redirect(stdin=tmp_path / 'source', stdout=tmp_path / 'back')
    await process.wait(check=True)
    assert (tmp_path / 'there').read_bytes() == (tmp_path / 'back').read_bytes() == content


async def test_data_between_two_files_keeps_its_place(tmp_path):
    (tmp_path / 'source').write_bytes(b'file ' * 100_000)
    process = await start(echo)
    process.stdin.write(b'before ')
    await process.redirect(stdin=tmp_path / 'source', stdout=tmp_path / 'copy', send_eof=False)
    await process.stdin.drain()
    process.stdin.write(b'after')
    process.stdin.write_eof()
    await process.wait(check=True)
    assert (tmp_path / 'copy').read_bytes() == b'before ' + b'file ' * 100_000 + b'after'


async def test_a_descriptor_is_used_at_its_place_and_left_behind_what_was_sent(tmp_path):
    (tmp_path / 'source').write_bytes(b'skipped' + bytes(300_000))
    source = (tmp_path / 'source').open('rb')
    copy = os.dup(source.fileno())
    assert source.read(7) == b'skipped'
    process = await start(echo)
    (tmp_path / 'copy').write_bytes(b'kept')
    await process.redirect(stdin=source, stdout=(tmp_path / 'copy').open('ab'))
    await process.wait(check=True)
    assert (tmp_path / 'copy').read_bytes() == b'kept' + bytes(300_000)
    assert source.closed and os.lseek(copy, 0, os.SEEK_CUR) == 300_007
    os.close(copy)


async def test_a_file_that_shrinks_or_grows_ends_where_it_ends(tmp_path):
    for size in (BLOCK + 5, 5 * BLOCK):
        (tmp_path / 'source').write_bytes(b'a' * (3 * BLOCK))
        process = await start(echo)
        process.channel.set_write_buffer_limits(0)
        await process.redirect(stdin=tmp_path / 'source', stdout=tmp_path / 'copy')
        os.truncate(tmp_path / 'source', size)
        await process.wait(check=True)
        assert (tmp_path / 'copy').stat().st_size == size


async def test_no_block_follows_an_end_or_a_close(tmp_path):
    with (tmp_path / 'source').open('wb') as source:
        source.truncate(100 * BLOCK)

    received = []
    ended = asyncio.Event()

    async def count(process):
        await ended.wait()
        received.append(len(await process.stdin.read()))
        process.exit(0)

    process = await start(count, 100_000)
    await process.redirect(stdin=tmp_path / 'source')
    await settle()
    process.stdin.write_eof()
    ended.set()
    await process.wait(check=True)
    assert 0 < received[0] < 100 * BLOCK

    ended.clear()
    process = await start(count, 100_000)
    await process.redirect(stdin=tmp_path / 'source')
    await settle()
    process.close()
    ended.set()
    await asyncio.wait_for(process.wait(), 5)
    assert not process._redirect_tasks


async def test_a_file_that_cannot_be_read_or_written(tmp_path):
    (tmp_path / 'file').write_bytes(b'content')
    process = await start(echo)
    await process.redirect(stdin=os.open(tmp_path / 'file', os.O_WRONLY))

    with pytest.raises(OSError, match='Bad file descriptor'):
        await process.wait()

    process = await start(echo)
    await process.redirect(stdout=os.open(tmp_path / 'file', os.O_RDONLY))
    process.stdin.write(b'x' * 10_000)

    with pytest.raises(OSError, match='Bad file descriptor'):
        await process.wait()

    assert (tmp_path / 'file').read_bytes() == b'content'


async def test_stopping_takes_the_block_back(tmp_path):
    (tmp_path / 'source').write_bytes(bytes(BLOCK))
    process = await start(echo)
    fd = os.open(tmp_path / 'source', os.O_RDONLY)
    calls = []
    feed = FileFeed(process.channel.flow, fd, 5, calls.append)
    feed.start()
    assert process.channel.get_write_buffer_size() == BLOCK
    feed.stop()
    assert process.channel.get_write_buffer_size() == 0
    await settle()
    assert feed.position == 5 and not calls
    os.close(fd)
    process.close()
    assert FileSink(1).written == 0
