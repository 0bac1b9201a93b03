"""The newest stay."""

from __future__ import annotations

import numpy as np
import pytest

from memento import FIFO, Memory, Unbounded
from memento.errors import SettingError


@pytest.mark.parametrize("sizes", [[3, 4, 5], [12], [1] * 12, [11, 1]])
def test_the_newest_stay_in_order(sizes):
    memory = Memory(5, FIFO())
    start = 0
    for size in sizes:
        memory.insert(number=np.arange(start, start + size))
        start += size
    np.testing.assert_array_equal(memory.samples["number"], np.arange(7, 12))
    assert memory.weights is None


def test_unbounded_keeps_everything_with_weight_1():
    memory = Memory(None, Unbounded())
    for start in (0, 4, 8):
        memory.insert(number=np.arange(start, start + 4))
    np.testing.assert_array_equal(memory.samples["number"], np.arange(12))
    np.testing.assert_array_equal(memory.weights, np.ones(12))


def test_unbounded_refuses_a_capacity():
    with pytest.raises(SettingError, match="capacity=None"):
        Memory(10, Unbounded())


def test_fifo_without_a_capacity_keeps_everything():
    memory = Memory(None, FIFO())
    memory.insert(number=np.arange(12))
    assert len(memory) == 12
