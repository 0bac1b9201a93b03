"""CRC-32C, the checksum that Google's storage gives for every file it holds.

The standard library has CRC-32 only. Numbers here are polynomials over GF(2) modulo the
Castagnoli polynomial (RFC 3720, appendix B.4), lowest bit first. The checksum is linear, so a
block is cut into many short lanes that numpy takes forward together, and the lanes are then
folded pairwise.
"""

from __future__ import annotations

from functools import cache

import numpy as np

__all__ = ["Crc32c"]

_POLYNOMIAL = 0x82F63B78
_LANE = 256  # bytes
_MOST_LANES = 4096  # a power of two; so a block is 1 MiB, which stays in the cache
_ONES = 0xFFFFFFFF


class Crc32c:
    """A running CRC-32C, used like the objects of hashlib.

    Example:
        >>> check = Crc32c()
        >>> check.update(b"12345")
        >>> check.update(b"6789")
        >>> check.digest().hex()
        'e3069283'
    """

    def __init__(self) -> None:
        self._register = _ONES

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take more bytes in."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _LANE * _MOST_LANES):
            self._register = _forward(self._register, view[start : start + _LANE * _MOST_LANES])

    def digest(self) -> bytes:
        """The checksum of everything so far, four bytes, highest first."""
        return (self._register ^ _ONES).to_bytes(4, "big")


def _forward(register: int, block: memoryview) -> int:
    """The register after a block of at most `_LANE * _MOST_LANES` bytes."""
    size = len(block)
    if size < 4:
        low = _byte_table()
        for byte in block:
            register = int(low[(register ^ byte) & 0xFF]) ^ (register >> 8)
        return register
    lanes = 1
    while lanes * _LANE < size:
        lanes *= 2
    # Zeros in front leave a register of zero as it is; the old register goes into the first bytes.
    padded = np.zeros(lanes * _LANE, dtype=np.uint8)
    padded[-size:] = np.frombuffer(block, dtype=np.uint8)
    first = padded[lanes * _LANE - size :][:4]
    first ^= np.frombuffer(register.to_bytes(4, "little"), dtype=np.uint8)
    words = np.ascontiguousarray(padded.view("<u4").reshape(lanes, _LANE // 4).T)
    low, high = _word_tables()
    state = np.zeros(lanes, dtype=np.uint32)
    for word in words:
        state ^= word
        state = low[state & 0xFFFF] ^ high[state >> 16]
    level = 0
    while len(state) > 1:
        state = _shifted(state[0::2], level) ^ state[1::2]
        level += 1
    return int(state[0])


@cache
def _byte_table() -> np.ndarray:
    """(256,) what a byte turns into when it leaves the register."""
    table: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ np.where(table & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return table


@cache
def _word_tables() -> tuple[np.ndarray, np.ndarray]:
    """(65536,) each: the lower and the upper half of a register, four bytes on."""
    low = np.arange(1 << 16, dtype=np.uint32)
    high = low << 16
    table = _byte_table()
    for _ in range(4):
        low = table[low & 0xFF] ^ (low >> 8)
        high = table[high & 0xFF] ^ (high >> 8)
    return low, high


@cache
def _shift_tables(level: int) -> np.ndarray:
    """(4, 256): each byte of a register, `_LANE * 2**level` zero bytes on."""
    table = np.arange(256, dtype=np.uint32) << (8 * np.arange(4, dtype=np.uint32)[:, None])
    if level:
        return _shifted(_shifted(table, level - 1), level - 1)
    step = _byte_table()
    for _ in range(_LANE):
        table = step[table & 0xFF] ^ (table >> 8)
    return table


def _shifted(state: np.ndarray, level: int) -> np.ndarray:
    tables = _shift_tables(level)
    out = tables[0][state & 0xFF] ^ tables[1][(state >> 8) & 0xFF]
    out ^= tables[2][(state >> 16) & 0xFF]
    out ^= tables[3][state >> 24]
    return np.asarray(out)
