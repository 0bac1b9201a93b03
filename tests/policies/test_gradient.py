"""GSS-Greedy against the plain loop that its definition is."""

from __future__ import annotations

import numpy as np
import pytest

from chances import assert_same_law, follow
from memento import GradientSampleSelection, Memory
from memento.errors import DomainError, SchemaError, SettingError


def naive_gss(gradients, capacity: int, compared: int, threshold: float, rng) -> list[int]:
    """Numbers of the samples that are held after all have come, one after the other."""
    unit = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    held: list[int] = []
    scores: list[float] = []
    for i, gradient in enumerate(unit):
        score = 1.0
        if held:
            asked = rng.choice(held, min(compared, len(held)), replace=False)
            score = max(0.0, 1 + (unit[asked] @ gradient).max())
        if len(held) < capacity:
            held.append(i)
            scores.append(score)
        elif score < 1 + threshold:
            victim = rng.choice(capacity, p=np.array(scores) / sum(scores))
            if rng.random() < scores[victim] / (scores[victim] + score):
                held[victim], scores[victim] = i, score
    return sorted(held)


@pytest.mark.parametrize(("compared", "threshold"), [(2, 0.0), (10, 0.0), (3, 0.7), (1, 1.0)])
def test_the_law_of_the_whole_stream(compared, threshold):
    """How often each of 16 samples is held in the end, 1,500 runs of each; alarm 1e-4."""
    rng = np.random.default_rng(8)
    gradients = rng.standard_normal((16, 3)) + np.array([1.0, 0, 0])
    columns = {"g": gradients, "number": np.arange(16)}
    parts = (slice(0, 4), slice(4, 5), slice(5, 16))
    units = [{name: column[part] for name, column in columns.items()} for part in parts]
    policy = GradientSampleSelection("g", compared=compared, threshold=threshold)
    ours, naive = np.zeros(16), np.zeros(16)
    for _ in range(1500):
        ours[follow(policy, units, 5, rng)["number"]] += 1
        naive[naive_gss(gradients, 5, compared, threshold, rng)] += 1
    assert_same_law(ours, naive)


def test_scores_are_those_of_the_definition():
    """With more compared than are held, nothing is random while there is room."""
    rng = np.random.default_rng(9)
    gradients = rng.standard_normal((30, 4))
    memory = Memory(40, GradientSampleSelection("g", compared=99))
    for part in np.array_split(gradients, 3):
        memory.insert(g=part)
    unit = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
    expected = [1.0] + [1 + (unit[:i] @ unit[i]).max() for i in range(1, 30)]
    np.testing.assert_allclose(memory.state.marks["score"], expected, atol=1e-6)
    assert memory.weights is None


def test_only_what_points_elsewhere_enters():
    memory = Memory(50, GradientSampleSelection("g"), seed=0)
    same = np.tile([1.0, 0.2], (200, 1))
    memory.insert(g=same, other=np.zeros(200, int))
    memory.insert(g=same * 3, other=np.ones(200, int))
    assert memory.samples["other"].sum() == 0
    memory.insert(g=-same, other=np.ones(200, int))
    # The first to enter have the score 0, and once it is among the ten compared none follows.
    assert 1 <= memory.samples["other"].sum() < 50


def test_directions_become_more_even():
    """Of 4,000 gradients 2 % point away; a random 200 hold 4 +- 2 of them."""
    rng = np.random.default_rng(0)
    memory = Memory(200, GradientSampleSelection("g"), seed=0)
    for _ in range(4):
        away = rng.random(1000) < 0.02
        g = np.where(away[:, None], [-1.0, 0.0, 0.0], [1.0, 0.0, 0.0])
        memory.insert(g=g + 0.3 * rng.standard_normal((1000, 3)), away=away)
    assert memory.samples["away"].sum() > 12


def test_gradients_of_zero():
    memory = Memory(5, GradientSampleSelection("g", threshold=1.0), seed=0)
    memory.insert(g=np.zeros((20, 2)), number=np.arange(20))
    assert len(memory) == 5
    np.testing.assert_array_equal(memory.state.marks["score"], 1.0)
    opposite = Memory(2, GradientSampleSelection("g"), seed=0)
    opposite.insert(g=[[1.0], [-1.0], [1.0], [-1.0]])
    assert len(opposite) == 2


def test_many_draws_come_in_pieces(monkeypatch):
    from memento.policies import gradient

    rng = np.random.default_rng(1)
    columns = {"g": rng.standard_normal((300, 3)), "number": np.arange(300)}
    kept = []
    for draws in (1 << 20, 40):
        monkeypatch.setattr(gradient, "_DRAWS", draws)
        memory = Memory(40, GradientSampleSelection("g"), seed=3)
        memory.insert(columns)
        kept.append(memory.samples["number"])
    np.testing.assert_array_equal(*kept)


def test_without_gradients_a_random_sample_stays_until_there_are_some():
    memory = Memory(50, GradientSampleSelection(missing="random"), seed=1)
    for start in range(0, 400, 100):
        memory.insert(number=np.arange(start, start + 100))
    assert 130 < memory.samples["number"].mean() < 270  # 200 +- 16
    memory.annotate(gradient=np.ones((50, 2)))
    memory.insert(number=np.arange(500, 600), gradient=-np.ones((100, 2)))
    assert (memory.samples["number"] >= 500).any()


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"y": [1]}, SchemaError, "'gradient' is missing"),
        ({"gradient": ["a"]}, SchemaError, "expected numbers"),
        ({"gradient": [[1.0, np.nan]]}, DomainError, "gradient"),
    ],
)
def test_bad_columns(columns, error, message):
    with pytest.raises(error, match=message):
        Memory(5, GradientSampleSelection()).insert(columns)


@pytest.mark.parametrize(
    "settings",
    [{"compared": 0}, {"compared": 1.5}, {"threshold": -1}, {"threshold": np.nan}, {"missing": ""}],
)
def test_bad_settings(settings):
    with pytest.raises(SettingError, match=f"{next(iter(settings))} is"):
        GradientSampleSelection(**settings)
