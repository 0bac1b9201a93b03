"""Arms over a stream: a worse one is found worse, an equal one is not, and a stop costs little."""

from __future__ import annotations

import numpy as np
import pytest

import memento
from memento import FIFO, Every, Memory, Never, Reservoir, Samples, backtest
from memento.errors import DamagedError, ForeignError, SettingError
from memento.study import measures, paired
from memento.testing import ConstantLearner, ToyStream


def units(days=9):
    stream = ToyStream(days=days, size=120, seed=1, drift=0.4)
    return [(name, samples.select(["x", "y_bin"])) for name, samples in stream]


def rows(result, arm):
    table = result.table
    at = np.flatnonzero(table["arm"] == arm)
    return {str(table["measure"][i]): {n: table[n][i] for n in table} for i in at}


def learner(seed):
    return ConstantLearner()


def test_a_worse_arm_is_worse_and_an_equal_one_is_not():
    """The labels drift, so the newest samples predict them better than the first ones do."""
    result = backtest(
        units(),
        learner,
        {"newest": FIFO(), "again": FIFO(), "random": Reservoir()},
        {"every": Every(1), "never": Never()},
        capacity=120,
        seeds=3,
        baseline="newest",
    )
    assert result.baseline == "newest/every"
    assert set(result.table) == {"arm", "measure", "value", "gain", "low", "high"}
    assert result.units == tuple(f"day-{day:03d}" for day in range(3, 9))
    for arm in ("newest/never", "random/every"):
        mean = rows(result, arm)["mean"]
        assert mean["low"] <= mean["gain"] <= mean["high"] < 0
    for found in rows(result, "again/every").values():
        assert found["low"] <= 0 <= found["high"]
    assert rows(result, "again/every").keys() == {
        *("mean", "median", "worst1", "worst5", "balanced_accuracy"),
    }
    assert result.trainings["newest/every"] == 9
    assert result.trainings["newest/never"] == 1


def test_values_are_those_of_the_loop():
    result = backtest(units(), learner, {"fifo": FIFO()}, capacity=200, seeds=[4], baseline="fifo")
    steps = memento.run(units(), Memory(200, FIFO(), seed=4), ConstantLearner(), Every(1), rng=4)
    expected = [step.scores["mean"] for step in steps if step.scores][2:]
    found = rows(result, "fifo")["mean"]
    assert found["value"] == pytest.approx(np.mean(expected))
    assert (found["gain"], found["low"], found["high"]) == (0, 0, 0)


def test_a_single_seed_has_no_interval():
    result = backtest(iter(units()), learner, {"fifo": FIFO()}, capacity=50, seeds=1)
    found = rows(result, "fifo")["mean"]
    assert np.isfinite(found["gain"])
    assert np.isnan(found["low"])


def test_what_is_stored_is_not_computed_again(tmp_path):
    made = []

    def make(seed):
        made.append(seed)
        if len(made) == 3:
            raise KeyboardInterrupt
        return ConstantLearner()

    settings = {"capacity": 100, "seeds": 2, "folder": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        backtest(units(), make, {"a/b": FIFO()}, **settings)
    stopped = backtest(units(), make, {"a/b": FIFO()}, **settings)
    assert made == [0, 1, 0, 0, 1]
    straight = backtest(units(), learner, {"a/b": FIFO()}, capacity=100, seeds=2)
    for name in straight.table:
        np.testing.assert_array_equal(stopped.table[name], straight.table[name])
    with pytest.raises(ForeignError, match="capacity = 100, now asked for with 101"):
        backtest(units(), make, {"a/b": FIFO()}, **{**settings, "capacity": 101})
    other = [(name, samples.take(range(1, samples.size))) for name, samples in units()]
    with pytest.raises(ForeignError, match="stream = "):  # the same names, other samples
        backtest(other, make, {"a/b": FIFO()}, **settings)
    damaged = next(tmp_path.rglob("steps.csv"))
    damaged.write_bytes(damaged.read_bytes().replace(b"0", b"1"))
    with pytest.raises(DamagedError, match="remove the folder"):
        backtest(units(), make, {"a/b": FIFO()}, **settings)


def test_results_of_an_earlier_version_are_refused(tmp_path):
    (tmp_path / "fifo").mkdir()
    (tmp_path / "fifo" / "seed-0.json").write_text('{"format": 1}')
    with pytest.raises(ForeignError, match="earlier version"):
        backtest(units(), learner, {"fifo": FIFO()}, seeds=1, folder=tmp_path)


def test_wrappers():
    result = backtest(
        units(5), learner, {"fifo": FIFO()}, wrappers={"same": lambda inner: inner}, seeds=2
    )
    assert list(dict.fromkeys(result.table["arm"].tolist())) == [
        *("fifo", "fifo+same", "random", "random+same"),
    ]


def test_settings_that_do_not_fit():
    with pytest.raises(SettingError, match="baseline 'best' is no arm; there are fifo"):
        backtest(units(5), learner, {"fifo": FIFO()}, baseline="best")
    with pytest.raises(SettingError, match="no unit counts"):
        backtest(units(3), learner, {"fifo": FIFO()}, seeds=1)
    with pytest.raises(SettingError, match="expected a Policy"):
        backtest(units(5), learner, {"fifo": FIFO})
    with pytest.raises(SettingError, match="seeds"):
        backtest(units(5), learner, seeds=0)


def test_measures_by_hand():
    score = np.log(np.linspace(0.1, 0.9, 40))
    yhat = np.tile([0.9, 0.1], (40, 1))
    samples = Samples(logscore=score, yhat=yhat, y=[0, 1] * 20, g=["a"] * 20 + ["b"] * 20)
    found = measures(samples, group="g")
    assert found["worst1"] == score[0]
    assert found["worst5"] == pytest.approx(score[:2].mean())
    assert found["balanced_accuracy"] == 0.5
    assert found["worst_group"] == pytest.approx(score[:20].mean())
    numbers = Samples(y=np.arange(101.0), yhat=np.arange(101.0) + 5, loss=np.full(101, 5.0))
    assert measures(numbers) == pytest.approx(
        dict.fromkeys(("mean", "median", "worst1", "worst5"), -0.1)
    )


def test_intervals_cover():
    """Of 300 repetitions with nothing to find about 90 % hold 0."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        found = paired(rng.normal(size=(5, 20)))
        covered += found.low <= 0 <= found.high
    assert 250 <= covered <= 300
