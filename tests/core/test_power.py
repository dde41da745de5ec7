"""Powers modulo a large number, beside Python's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssh_fast._power import power


def raised(base: int, exponent: int, modulus: int) -> int:
    size = (modulus.bit_length() + 7) // 8
    result = power(base.to_bytes(size, 'big'), exponent.to_bytes(size, 'big'), modulus.to_bytes(size, 'big'))
    assert len(result) == size
    return int.from_bytes(result, 'big')


@given(st.integers(1, 1 << 700), st.data())
def test_agrees_with_python(half: int, data: st.DataObject) -> None:
    modulus = 2 * half + 1
    base, exponent = data.draw(st.integers(0, modulus - 1)), data.draw(st.integers(0, modulus - 1))
    assert raised(base, exponent, modulus) == pow(base, exponent, modulus)


@pytest.mark.parametrize('bits', [2048, 8192])
def test_large_numbers(bits: int) -> None:
    modulus = (1 << bits) - 12345
    assert raised(modulus - 2, 1 << 511, modulus) == pow(modulus - 2, 1 << 511, modulus)


@pytest.mark.parametrize(
    ('base', 'exponent', 'modulus'),
    [(b'\1', b'\1', b''), (b'\1', b'\1', b'\0'), (b'\0', b'\1', b'\1'), (b'\1', b'\1', b'\4'), (b'\1', b'\1', b'\3\0'),
     (b'\3', b'\1', b'\3'), (b'\4', b'\1', b'\3'), (b'\0\1', b'\1', b'\3'), (b'\1', b'\0\1', b'\3'),
     (b'\1', b'\1', b'\1' * 65537)],
)  # fmt: skip
def test_refused(base: bytes, exponent: bytes, modulus: bytes) -> None:
    with pytest.raises(ValueError, match='Expected'):
        power(base, exponent, modulus)
