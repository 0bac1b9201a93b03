"""Scores: against loops written from their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from memento.errors import DomainError, SchemaError, SettingError
from memento_puffer.predictor.scores import (
    QUANTILES,
    SCORES,
    errors_by_class,
    quantiles,
    score,
    statistics,
    summarise,
)

CENTRES = [0.125, *(0.5 * k for k in range(1, 21))]


def slow_score(p: np.ndarray, y: float) -> dict[str, float]:
    b = min(max(math.floor((y + 0.25) / 0.5), 0), 20)
    y_hat = sum(p[k] * CENTRES[k] for k in range(21))
    return {
        "label": b,
        "y": y,
        "y_hat": y_hat,
        "p": p[b],
        "logscore": math.log(p[b]) if p[b] > 0 else -math.inf,
        "error": y_hat - y,
        "error_rel": (y_hat - y) / y,
        "err": sum(p[k] * (y - CENTRES[k]) for k in range(21)),
        "err_abs": sum(p[k] * abs(y - CENTRES[k]) for k in range(21)),
        "err_sqr": sum(p[k] * (y - CENTRES[k]) ** 2 for k in range(21)),
    }


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def chances(rng: np.random.Generator, *shape: int) -> np.ndarray:
    p = rng.dirichlet(np.full(21, 0.2), shape)
    p[..., 3] = 0
    return p / p.sum(axis=-1, keepdims=True)


def test_every_score_is_its_definition(rng: np.random.Generator) -> None:
    p = chances(rng, 50, 5)
    y = rng.exponential(2.0, (50, 5))
    y[:4, 0] = [0.1, 1.5, 1.7, 30.0]  # 1.5 and 1.7 s are of class 3: impossible
    found = score(p, y)
    assert set(found) == {"label", *SCORES}
    for i in range(50):
        for h in range(5):
            expected = slow_score(p[i, h], y[i, h])
            for name, value in expected.items():
                assert found[name][i, h] == pytest.approx(value, rel=1e-9, abs=1e-12), name
    assert np.isneginf(found["logscore"][1:3, 0]).all()


def test_the_two_signs_are_opposite() -> None:
    sure = np.eye(21)[[4]]  # predicts 2 s
    found = score(sure, [1.5])
    assert found["error"][0] == 0.5  # predicted - actual
    assert found["err"][0] == -0.5  # actual - predicted


def test_float32_and_blocks_of_rows(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, y = chances(rng, 100).astype(np.float32), rng.exponential(1.0, 100)
    whole = score(p, y)
    monkeypatch.setattr("memento_puffer.predictor.scores._ROWS_AT_ONCE", 7)
    parts = score(p, y)
    for name in whole:
        np.testing.assert_allclose(whole[name], parts[name], rtol=1e-12, atol=1e-12)


def test_missing_horizons_are_skipped(rng: np.random.Generator) -> None:
    p, y = chances(rng, 6, 5), rng.exponential(1.0, (6, 5))
    y[2, 3:] = np.nan
    y[4] = np.nan
    p[4] = np.nan  # not read
    found = score(p, y)
    assert (found["label"][4] == -1).all()
    assert np.isnan(found["logscore"][2, 3:]).all()
    table = summarise(found, variables=["y"])
    value = dict(
        zip(zip(table["horizon"], table["metric"], strict=True), table["value"], strict=True)
    )
    assert value[3, "count"] == 4
    assert value[-1, "count"] == 5
    rows = [y[i][~np.isnan(y[i])].mean() for i in (0, 1, 2, 3, 5)]
    assert value[-1, "mean"] == pytest.approx(np.mean(rows))
    assert value[-1, "rms"] == pytest.approx(np.sqrt(np.mean(np.square(rows))))
    for q in QUANTILES:
        assert value[0, f"q{q:g}"] == pytest.approx(np.quantile(y[[0, 1, 2, 3, 5], 0], q))


def test_impossible_outcomes_are_kept_or_left_out() -> None:
    sure = np.eye(21)[[0, 0, 0, 0]]
    found = score(sure, [0.1, 0.1, 0.1, 1.0])

    def mean(**how: bool) -> float:
        table = summarise(found, variables=["logscore"], **how)
        return float(table["value"][table["metric"] == "mean"][0])

    assert mean() == -math.inf
    assert mean(skip_impossible=True) == 0


def test_quantiles_agree_with_numpy_and_stand_infinite_values(rng: np.random.Generator) -> None:
    for n in (1, 2, 3, 10, 101):
        values = rng.normal(size=n)
        np.testing.assert_allclose(quantiles(values), np.quantile(values, QUANTILES), rtol=1e-12)
    values = np.r_[-np.inf, -np.inf, rng.normal(size=9)]
    np.testing.assert_array_equal(quantiles(values, (0.0, 0.05, 0.1, 0.15)), -np.inf)
    assert np.isfinite(quantiles(values, (0.2, 0.5, 1.0))).all()
    assert np.isnan(quantiles([])).all()
    assert statistics([])["count"] == 0


def test_errors_by_class(rng: np.random.Generator) -> None:
    found = score(chances(rng, 300, 2), rng.exponential(2.0, (300, 2)))
    table = errors_by_class(found)
    for k in range(21):
        rows = found["label"] == k
        assert table["count"][k] == rows.sum()
        for name in ("err", "err_abs", "err_sqr"):
            if rows.any():
                assert table[name][k] == pytest.approx(found[name][rows].mean())
            else:
                assert np.isnan(table[name][k])


def test_a_predictor_that_knows_the_truth_scores_best(rng: np.random.Generator) -> None:
    """Log scores are proper. Means of 4,000 differ by 0.31 +- 0.01 here: false alarm < 1e-9."""
    truth = rng.dirichlet(np.ones(21), 4000)
    label = np.array([rng.choice(21, p=row) for row in truth])
    y = np.array(CENTRES)[label]
    own = score(truth, y)["logscore"].mean()
    blurred = score(0.5 * truth + 0.5 / 21, y)["logscore"].mean()
    assert own > blurred


@pytest.mark.parametrize(
    ("p", "y", "error", "match"),
    [
        (np.eye(21)[:2], [1.0], SchemaError, "shape"),
        (np.eye(20)[:1], [1.0], SchemaError, "21"),
        (np.eye(21)[:1], [-1.0], DomainError, "seconds"),
        (np.eye(21)[:1], [np.inf], DomainError, "seconds"),
        (2 * np.eye(21)[:1], [1.0], DomainError, "outside"),
        (np.full((1, 21), 0.1), [1.0], DomainError, "sum to 2.1"),
        (np.full((1, 21), np.nan), [1.0], DomainError, "NaN"),
    ],
)
def test_bad_input(p: np.ndarray, y: list[float], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        score(p, y)


def test_bad_arguments() -> None:
    with pytest.raises(SettingError, match="within 0 and 1"):
        quantiles([1.0], (1.5,))
    with pytest.raises(SchemaError, match="lack"):
        summarise({"y": [1.0]}, variables=["p"])


def test_nothing_to_score() -> None:
    found = score(np.empty((0, 5, 21)), np.empty((0, 5)))
    assert found.size == 0
    table = summarise(found)
    assert set(table["horizon"]) == {-1, 0, 1, 2, 3, 4}
    assert (table["value"][table["metric"] == "count"] == 0).all()
