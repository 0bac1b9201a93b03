"""The reservoir is uniform over the stream, and forgets what it is told to."""

from __future__ import annotations

import numpy as np
import pytest

from chances import assert_counts, follow
from memento import Memory, Reservoir
from memento.errors import SettingError


def fed(capacity: int, sizes, seed, **settings) -> Memory:
    memory = Memory(capacity, Reservoir(**settings), seed)
    start = 0
    for size in sizes:
        memory.insert(number=np.arange(start, start + size))
        start += size
    return memory


def test_every_sample_has_the_same_chance():
    """Chi-square over 60 numbers, 1,000 memories of 12; a false alarm once in 10,000 seeds.

    The numbers that are held together are drawn without replacement, which makes the statistic
    smaller by (60 - 1) / (60 - 12); it is scaled back.
    """
    rng = np.random.default_rng(1)
    counts = np.zeros(60)
    units = [{"number": part} for part in np.split(np.arange(60), [7, 37, 38])]
    for _ in range(1000):
        counts[follow(Reservoir(), units, 12, rng)["number"]] += 1
    expected = np.full(60, 200.0)
    stretched = expected + (counts - expected) * np.sqrt(59 / 48)
    assert_counts(stretched, expected)


def test_contents_do_not_depend_on_how_the_stream_is_split():
    whole = fed(20, [500], seed=4).samples["number"]
    split = fed(20, [1, 99, 250, 150], seed=4).samples["number"]
    np.testing.assert_array_equal(whole, split)


def test_weights_are_seen_over_held():
    np.testing.assert_allclose(fed(20, [30, 70], seed=0).weights, 5.0)
    np.testing.assert_allclose(fed(200, [30, 70], seed=0).weights, 1.0)
    assert Memory(5, Reservoir()).weights.shape == (0,)


def test_total_weight_is_what_was_seen():
    assert fed(20, [30, 7, 60], seed=0).weights.sum() == pytest.approx(97)


def test_forgetting_happens_once_an_insert_and_takes_its_share():
    """100 held and 30 % forgotten: 30 of the old ones go, before the keys decide."""
    memory = Memory(1000, Reservoir(forget=0.3), seed=0)
    memory.insert(number=np.arange(100))
    memory.insert(number=np.arange(100, 200))
    numbers = memory.samples["number"]
    assert (numbers < 100).sum() == 70
    assert (numbers >= 100).sum() == 100


def test_forgetting_takes_at_most_as_many_as_come():
    memory = Memory(1000, Reservoir(forget=0.3), seed=0)
    memory.insert(number=np.arange(100))
    memory.insert(number=np.arange(100, 104))
    assert (memory.samples["number"] < 100).sum() == 96


def test_what_is_forgotten_is_any_of_the_old():
    """Each of 10 old samples goes with probability 0.2, in 2,000 memories; alarm 1e-4."""
    rng = np.random.default_rng(2)
    gone = np.zeros(10)
    units = [{"number": np.arange(10)}, {"number": np.arange(10, 20)}]
    for _ in range(2000):
        held = follow(Reservoir(forget=0.2), units, 30, rng)["number"]
        gone[np.setdiff1d(np.arange(10), held)] += 1
    # two of ten go together, which narrows the counts by (10 - 1) / (10 - 2)
    assert_counts(400 + (gone - 400) * np.sqrt(9 / 8), np.full(10, 400.0))


def test_ages_fall_geometrically_with_forgetting():
    """In the long run a tenth is of the last day and each day before has 0.9 times as many.

    Within 10 %: the law holds for large memories; at 1,000 samples the last day has 0.105.
    """
    rng = np.random.default_rng(3)
    days = [{"day": np.full(3000, day)} for day in range(40)]
    held = [follow(Reservoir(forget=0.1), days, 1000, rng)["day"] for _ in range(30)]
    shares = np.bincount(39 - np.concatenate(held))[:4] / 30_000
    np.testing.assert_allclose(shares, 0.1 * 0.9 ** np.arange(4), rtol=0.1)


def test_forgetting_states_no_weights():
    assert fed(20, [30], seed=0, forget=0.1).weights is None


def test_all_can_be_forgotten():
    memory = fed(50, [50, 50], seed=0, forget=1.0)
    assert memory.samples["number"].min() == 50


@pytest.mark.parametrize("forget", [-0.1, 1.5, float("nan")])
def test_forget_is_a_share(forget):
    with pytest.raises(SettingError, match=r"expected a share in \[0, 1\]"):
        Reservoir(forget=forget)
