"""The compiled core against its plain-Python reference: `pytest benchmarks/bench_core.py`.

A cipher's figure is one packet sealed and opened again, through the Python methods of both.
"""

from collections.abc import Callable
from typing import Any

import pytest

from ssh_fast._cipher import new_opening_cipher, new_sealing_cipher
from tests.reference.cipher import new_reference_cipher
from tests.reference.packet import frame
from tests.reference.suites import SUITES, Suite

KINDS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    'compiled': (new_sealing_cipher, new_opening_cipher),
    'reference': (new_reference_cipher, new_reference_cipher),
}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('size', [64, 32768])
@pytest.mark.parametrize('suite', SUITES, ids=str)
def test_seal_and_open(benchmark: Any, suite: Suite, size: int, kind: str) -> None:
    new_sealing, new_opening = KINDS[kind]
    sealing, opening = new_sealing(*suite.keys()), new_opening(*suite.keys())
    packet = frame(bytes(size), sealing.block_size, sealing.length_apart)
    sequence = 0

    def seal_and_open() -> bytes:
        nonlocal sequence

        opened: bytes = opening.open_packet(sequence, sealing.seal_packet(sequence, packet))
        sequence = (sequence + 1) % 2**32

        return opened

    benchmark.group = f'seal and open {size} bytes: {suite}'

    assert benchmark(seal_and_open) == packet
