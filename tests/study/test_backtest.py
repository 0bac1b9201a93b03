"""Arms over a stream: a worse one is found worse, an equal one is not, and a stop costs little."""

from __future__ import annotations

import numpy as np
import pytest

import memento
from memento import FIFO, Every, Memory, Never, Reservoir, Samples, backtest
from memento.errors import DamagedError, ForeignError, SchemaError, SettingError
from memento.study import measures, paired
from memento.study.verdict import TEMPERATURES, verdict
from memento.testing import ConstantLearner, ToyStream
from memento.training.calibrated import softened


def units(days=9):
    stream = ToyStream(days=days, size=120, seed=1, drift=0.4)
    return [(name, samples.select(["x", "label"])) for name, samples in stream]


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
    pytest.importorskip("psutil")
    made = []

    def make(seed):
        made.append(seed)
        if len(made) == 3:
            raise KeyboardInterrupt
        return ConstantLearner()

    settings = {"capacity": 100, "seeds": 2, "folder": tmp_path, "controls": False}
    with pytest.raises(KeyboardInterrupt):
        backtest(units(), make, {"a/b": FIFO()}, **settings)
    stopped = backtest(units(), make, {"a/b": FIFO()}, **settings)
    assert made == [0, 1, 0, 0, 1]
    straight = backtest(units(), learner, {"a/b": FIFO()}, capacity=100, seeds=2, controls=False)
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
        *(units(5), learner, {"fifo": FIFO()}),
        wrappers={"same": lambda inner: inner},
        seeds=2,
        controls=False,
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


def test_controls_and_the_frontier_by_hand():
    result = backtest(units(), learner, {"fifo": FIFO()}, capacity=100, seeds=2)
    arms = list(dict.fromkeys(result.table["arm"].tolist()))
    assert arms == ["fifo", "random", "random-triple", "random+T"]
    assert not any("@" in name for name in result.table["measure"].tolist())

    class Softer(ConstantLearner):
        def annotate(self, samples):
            return softened(super().annotate(samples), 1.5)

    by_hand = backtest(
        *(units(), learner, {"random": Reservoir()}),
        wrappers={"soft": lambda inner: Softer()},
        capacity=100,
        seeds=2,
        controls=False,
    )
    point = next(p for p in result.frontier if p["temperature"] == 1.5)
    expected = rows(by_hand, "random+soft")
    for measure in ("mean", "median", "worst1", "balanced_accuracy"):
        assert point[measure] == pytest.approx(expected[measure]["gain"], abs=1e-6)
    assert result.frontier[0]["worst1"] == 0
    assert set(result.above) == {"fifo"}
    triple = backtest(units(), learner, {"random": Reservoir()}, capacity=300, seeds=2)
    assert rows(result, "random-triple")["mean"]["value"] == rows(triple, "random")["mean"]["value"]


def test_arms_of_the_user_win_over_controls_of_the_same_name():
    policies = {"random": Reservoir(), "random-triple": FIFO()}
    result = backtest(units(), learner, policies, capacity=100, seeds=2)
    expected = backtest(units(), learner, {"fifo": FIFO()}, capacity=100, seeds=2)
    assert rows(result, "random-triple")["mean"]["value"] == rows(expected, "fifo")["mean"]["value"]


def test_numbers_have_no_temperature():
    class Numbers(ConstantLearner):
        kind = "regressor"

        def annotate(self, samples):
            y = samples["label"].astype(float)
            return {"yhat": np.full(samples.size, y.mean()), "loss": np.abs(y - y.mean())}

    result = backtest(units(), lambda seed: Numbers(), {"fifo": FIFO()}, capacity=100, seeds=2)
    assert set(result.table["arm"].tolist()) == {"fifo", "random", "random-triple"}
    assert (list(result.frontier), dict(result.above)) == ([], {})
    assert result.recommended in ("random", "fifo")


def values(**measures):
    """Three seeds, six units; each measure is level, with a little noise."""
    rng = np.random.default_rng(1)
    return {m: v + 0.001 * rng.standard_normal((3, 6)) for m, v in measures.items()}


def with_frontier(mean, worst1):
    found = values(mean=mean, worst1=worst1)
    for t in TEMPERATURES:  # each step of temperature costs mean and buys tail
        found |= {f"mean@{t:g}": found["mean"] - 0.05 * (t - 1)}
        found |= {f"worst1@{t:g}": found["worst1"] + (t - 1)}
    return found


@pytest.mark.parametrize(
    ("arm", "wins"),
    [
        (values(mean=-0.9, worst1=-5.0), True),  # a better mean
        (values(mean=-1.0, worst1=-5.0), False),  # nothing is better
        (values(mean=-1.05, worst1=-1.0), False),  # the mean pays for the tail
        (values(mean=-1.015, worst1=-4.0), True),  # more tail than a temperature of the same mean
        (values(mean=-1.015, worst1=-4.9), False),  # less than that
    ],
)
def test_verdicts(arm, wins):
    arms = {
        "random": with_frontier(-1.0, -5.0),
        "ours": arm,
        "random+T": values(mean=-1, worst1=-4),
    }
    found = verdict(arms, "random", ["random+T"], 3)
    assert found.recommended == ("ours" if wins else "random+T")
    assert found.text.startswith("ours is worth it" if wins else "keep a random memory and fit")
    assert "1 arms compared" in found.text


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_are_a_hint(seeds):
    arms = {n: {m: v[:seeds] for m, v in values(mean=-1).items()} for n in ("random", "other")}
    found = verdict(arms, "random", [], seeds)
    assert found.recommended == "random"
    assert found.text.startswith("a hint only")


def test_units_without_names_are_refused(tmp_path):
    """With a folder, units are told apart before any is used."""
    with pytest.raises(SchemaError, match="unit 0 of the stream is a float"):
        backtest([1.5], lambda seed: ConstantLearner(), folder=tmp_path / "kept")
