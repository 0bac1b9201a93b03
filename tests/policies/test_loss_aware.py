"""LARS against the plain loop that its definition is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from chances import assert_counts, assert_same_law, follow
from memento import LossAwareReservoir, Memory, Samples
from memento.errors import DomainError, SchemaError, SettingError


def naive_shares(labels: np.ndarray, losses: np.ndarray, scale: str = "counts") -> np.ndarray:
    """Probability of each held sample to be the next victim."""
    counts = np.array([(labels == label).sum() for label in labels], dtype=float)
    size = np.abs(losses).mean()
    a = 0.0 if not size else counts.mean() / size if scale == "counts" else 1 / counts.mean() / size
    score = 0.5 * a * -losses + 0.5 * counts
    spread = score.max() - score.min()
    if spread <= 1e-12 * np.abs(score).max():
        return np.full(len(labels), 1 / len(labels))
    score = (score - score.min()) / spread
    return score / score.sum()


def naive_lars(labels, losses, capacity: int, rng: np.random.Generator, scale) -> np.ndarray:
    """Numbers of the samples that are held after all have come, one after the other."""
    held = list(range(min(capacity, len(labels))))
    for i in range(capacity, len(labels)):
        if rng.random() < capacity / (i + 1):
            victim = rng.choice(capacity, p=naive_shares(labels[held], losses[held], scale))
            held[victim] = i
    return np.sort(held)


def kernel_shares(labels, losses, draws: np.ndarray, inverse: bool) -> np.ndarray:
    """Which sample the kernel replaces by one of a new label, for each number drawn."""
    from memento._kernels import replacement

    size = len(labels)
    _, codes = np.unique(np.append(labels, labels.max() + 1), return_inverse=True)
    losses = np.append(losses, 0.0)
    victims = [
        np.flatnonzero(~replacement.replace(codes, losses, size, np.array([draw]), inverse))[0]
        for draw in draws
    ]
    return np.bincount(victims, minlength=size) / len(draws)


@given(
    data=st.integers(2, 12).flatmap(
        lambda n: st.tuples(
            arrays(np.int64, n, elements=st.integers(0, 3)),
            arrays(np.float64, n, elements=st.floats(-3, 10, width=16)),
        )
    ),
    scale=st.sampled_from(["counts", "published"]),
)
def test_one_victim_has_the_shares_of_the_definition(data, scale):
    """On a grid of 400 draws, so that each share is right within 1/400 and nothing is random."""
    labels, losses = data
    grid = (np.arange(400) + 0.5) / 400
    found = kernel_shares(labels, losses, grid, scale == "published")
    expected = naive_shares(labels, losses, scale)
    assert np.abs(found - expected).max() <= 1 / 400 + 1e-9


@pytest.mark.parametrize(
    ("capacity", "scale"), [(1, "counts"), (2, "counts"), (7, "counts"), (7, "published")]
)
def test_the_law_of_the_whole_stream(capacity, scale):
    """How often each of 16 samples is held in the end, 1,500 runs of each; alarm 1e-4."""
    rng = np.random.default_rng(11)
    labels = np.array([0] * 9 + [1] * 4 + [2] * 3)[rng.permutation(16)]
    losses = rng.exponential(size=16)
    columns = {"label": labels, "loss": losses, "number": np.arange(16)}
    parts = (slice(0, 4), slice(4, 5), slice(5, 16))
    units = [{name: column[part] for name, column in columns.items()} for part in parts]
    policy = LossAwareReservoir(label="label", loss="loss", scale=scale)
    ours, naive = np.zeros(16), np.zeros(16)
    for _ in range(1500):
        ours[follow(policy, units, capacity, rng)["number"]] += 1
        naive[naive_lars(labels, losses, capacity, rng, scale)] += 1
    assert_same_law(ours, naive)


def test_it_enters_like_a_reservoir():
    """The last of 50 samples is held with probability 10/50; 1,000 runs, alarm 1e-4."""
    rng = np.random.default_rng(12)
    whole = Samples(y=np.zeros(50, int), loss=np.ones(50), number=np.arange(50))
    units = [whole.rows(0, 49), whole.rows(49, 50)]
    entered = sum(49 in follow(LossAwareReservoir(), units, 10, rng)["number"] for _ in range(1000))
    assert_counts([entered, 1000 - entered], [200, 800])


def test_seen_counts_over_inserts():
    memory = Memory(10, LossAwareReservoir())
    for _ in range(3):
        memory.insert(y=np.zeros(40, int), loss=np.ones(40))
    assert memory.state.counters == {"seen": 120}
    assert memory.weights is None


def test_labels_become_more_balanced_and_losses_higher():
    """Of 5,000 samples 5 % are rare; a random 300 hold 15 +- 4 of them, with mean loss 0.5."""
    rng = np.random.default_rng(0)
    memory = Memory(300, LossAwareReservoir("y", "loss"), seed=0)
    for _ in range(5):
        y = rng.choice(["common", "rare"], 1000, p=[0.95, 0.05])
        memory.insert(y=y, loss=rng.random(1000))
    held = memory.samples
    assert (held["y"] == "rare").sum() > 25
    assert held["loss"].mean() > 0.54


@pytest.mark.parametrize("scale", [0.0, 1e-300, 1e-12, 1e12, 1e300])
def test_any_magnitude_of_losses(scale):
    rng = np.random.default_rng(0)
    memory = Memory(50, LossAwareReservoir(), seed=0)
    for _ in range(4):
        memory.insert(y=rng.integers(0, 4, 200), loss=scale * rng.exponential(size=200))
    assert len(memory) == 50


@pytest.mark.compiled
def test_many_labels_and_many_samples():
    rng = np.random.default_rng(0)
    memory = Memory(20_000, LossAwareReservoir(), seed=0)
    for _ in range(2):
        memory.insert(y=rng.integers(0, 500, 20_000), loss=rng.exponential(size=20_000))
    assert len(memory) == 20_000
    assert 9_000 < (memory.arrivals == 2).sum() < 11_000


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"y": [1]}, SchemaError, "'loss' is missing"),
        ({"loss": [1.0]}, SchemaError, "'y' is missing"),
        ({"y": [0.5], "loss": [1.0]}, SchemaError, "expected one integer, bool or string"),
        ({"y": [1], "loss": ["a"]}, SchemaError, "expected one number"),
        ({"y": [1], "loss": [[1.0]]}, SchemaError, "has the shape"),
        ({"y": [1, 1], "loss": [1.0, np.nan]}, DomainError, "loss"),
        ({"y": [1, 1], "loss": [1.0, np.inf]}, DomainError, "loss"),
    ],
)
def test_bad_columns(columns, error, message):
    with pytest.raises(error, match=message):
        Memory(5, LossAwareReservoir()).insert(columns)


def test_without_losses_a_random_sample_stays_until_there_are_some():
    memory = Memory(50, LossAwareReservoir(missing="random"), seed=1)
    for start in range(0, 400, 100):
        memory.insert(y=np.zeros(100, int), number=np.arange(start, start + 100))
    assert 130 < memory.samples["number"].mean() < 270  # 200 +- 16
    assert memory.state.counters == {"seen": 400}
    memory.annotate(loss=np.ones(50))
    memory.insert(y=np.ones(400, int), number=np.arange(400), loss=np.ones(400))
    assert 20 < memory.samples["y"].sum() < 45  # enters like a reservoir, victims are 0 at first


def test_without_losses_labels_can_be_balanced_alone():
    memory = Memory(60, LossAwareReservoir(missing="equal", scale="published"), seed=1)
    columns = {"y": np.repeat([0, 1, 2], [900, 60, 40]), "number": np.arange(1000)}
    order = np.random.default_rng(2).permutation(1000)
    memory.insert({name: column[order] for name, column in columns.items()})
    # As many of a rare label as enter are kept: 60 / n of n that have come, about 17 and 11.
    held = np.bincount(memory.samples["y"])
    assert held.sum() == 60
    assert held[1] >= 8
    assert held[2] >= 5
    losses = memory.samples["y"].astype(float)
    memory.annotate(loss=losses)
    memory.insert(y=np.zeros(100, int), number=np.arange(100), loss=np.zeros(100))
    assert np.bincount(memory.samples["y"])[2] >= 5


def test_bad_settings():
    with pytest.raises(SettingError, match="missing is 'skip'; expected one of 'error', 'equal'"):
        LossAwareReservoir(missing="skip")
    with pytest.raises(SettingError, match="scale is 'ranks'; expected one of 'counts'"):
        LossAwareReservoir(scale="ranks")
