"""SFTP messages, compiled against plain Python, and both ends of a bulk transfer joined in memory without encryption.

Run with pytest-benchmark:  python -m pytest benchmarks/bench_codec.py
As a program it prints MB/s and microseconds per block of the joined ends:  python benchmarks/bench_codec.py [MiB]
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ssh_fast import _sftp_codec as codec
from tests.core.sftp_ends import Served
from tests.reference import sftp_codec as reference

MIB = 1024 * 1024
Done = Callable[[codec.Pipeline], object]
ATTRS = (15, 123456, 1000, 1000, 0o100644, 1_700_000_000, 1_700_000_000, ())
NAMES = [(f'file-{i:04}'.encode(), f'-rw-r--r-- 1 user group 123456 file-{i:04}'.encode(), ATTRS) for i in range(100)]
STREAM = b''.join(reference.data(i, bytes(32768)) for i in range(64))


class Modules:
    """Both implementations by name."""

    compiled: Any = codec
    python: Any = reference


@pytest.fixture(params=['compiled', 'python'])
def made(request: pytest.FixtureRequest) -> Any:
    return getattr(Modules, request.param)


def test_encode_read(benchmark: Any, made: Any) -> None:
    encode = made.encode_read if made is codec else made.read
    assert benchmark(encode, 7, b'\0\0\0\1', 1 << 33, 32768) == reference.read(7, b'\0\0\0\1', 1 << 33, 32768)


def test_encode_status(benchmark: Any, made: Any) -> None:
    encode = made.encode_status if made is codec else made.status
    assert benchmark(encode, 7, 0, 'Success', '') == reference.status(7, 0, 'Success')


def test_encode_names(benchmark: Any, made: Any) -> None:
    assert benchmark(made.encode_names, 7, NAMES) == reference.encode_names(7, NAMES)


def test_decode_names(benchmark: Any, made: Any) -> None:
    assert benchmark(made.decode_names, reference.encode_names(7, NAMES)[9:]) == NAMES


def test_cut_data_replies(benchmark: Any, made: Any) -> None:
    """Two MiB of DATA replies of 32 KiB, in packets of 32 KiB: into one result in memory."""
    chunks = [STREAM[at : at + 32768] for at in range(0, len(STREAM), 32768)]

    def compiled() -> int:
        served = Served(window=4 * MIB)
        done: list[codec.Pipeline] = []
        pipeline = codec.ReadPipeline(
            served.assembler, b'h', done=done.append, size=64 * 32768, block_size=32768, max_requests=64
        )
        pipeline.start()
        for chunk in chunks:
            served.client.flow.receive(chunk)
        served.client.reader.release()
        return len(pipeline.take_result())

    def python() -> int:
        result = bytearray(64 * 32768)
        for _, request_id, body in reference.cut(chunks, 1 << 20):
            result[request_id * 32768 : request_id * 32768 + 32768] = reference.Fields(body).string()
        return len(result)

    assert benchmark(compiled if made is codec else python) == 64 * 32768


def transfer(served: Served, make: Callable[[Done], codec.Pipeline]) -> float:
    done: list[codec.Pipeline] = []
    pipeline = make(done.append)
    start = time.process_time()
    pipeline.start()
    moved = True
    while moved:
        moved = False
        for sender, receiver in ((served.client, served.server), (served.server, served.client)):
            while (chunk := sender.writer.take_chunk()) is not None:
                moved = True
                receiver.reader.feed(chunk)
                del chunk
    assert done == [pipeline] and pipeline.complete, pipeline.status or pipeline.os_error
    return time.process_time() - start


def main(size: int) -> None:
    shared = Path('/dev/shm')
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        here, there = Path(folder, 'here'), Path(folder, 'there')
        here.write_bytes(os.urandom(MIB) * (size // MIB))
        there.write_bytes(bytes(size))
        fd = os.open(here, os.O_RDWR)
        print(f'{size // MIB} MiB in {folder}, both ends in one process, no encryption; CPU time of both ends together')
        for block_size in (32768, 261120, 4 * MIB):
            served = Served(max_read=4 * MIB, max_message=4 * MIB + 1024)
            served.serve(b'h', there)

            def put(done: Done, to: Served = served, block: int = block_size) -> codec.Pipeline:
                return codec.WritePipeline(to.assembler, b'h', done=done, fd=fd, size=size, block_size=block)

            def get(done: Done, of: Served = served, block: int = block_size) -> codec.Pipeline:
                return codec.ReadPipeline(of.assembler, b'h', done=done, fd=fd, size=size, block_size=block)

            for name, make in (('put', put), ('get', get)):
                seconds = sorted(transfer(served, make) for _ in range(5))[2]
                blocks = -(-size // block_size)
                print(
                    f'{name} {block_size:>8} byte blocks: {size / seconds / 1e6:7.0f} MB/s, '
                    f'{seconds / size * (1 << 30):.2f} CPU s/GiB, {seconds / blocks * 1e6:8.1f} us a block'
                )
        assert here.read_bytes() == there.read_bytes()
        os.close(fd)


if __name__ == '__main__':
    main(int(sys.argv[1]) * MIB if len(sys.argv) > 1 else 256 * MIB)
