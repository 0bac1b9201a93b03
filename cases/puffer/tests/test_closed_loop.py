"""The closed loop with a handful of viewers: what arms share, what repeats, what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from memento.errors import ForeignError, SettingError
from memento.loop import Step
from memento.memory import Memory
from memento.retrain import Decision, Every, OnCoverage
from memento.samples import Samples
from memento_puffer.data.features import HORIZONS, Features
from memento_puffer.predictor.ttp_training import TrainingSettings
from memento_puffer.quality import aggregates
from memento_puffer.streaming.traces import Population, Traces
from memento_puffer.studies import closed_loop_bodies as bodies
from memento_puffer.studies.arms import ARMS, CONTROLLED
from memento_puffer.studies.closed_loop import ClosedLoop
from memento_puffer.studies.outcomes import ArmResult, Outcome, read_network, summary

LOOP = ClosedLoop(
    population=Population(seed=3),
    days=3,
    viewers=6,
    judges=6,
    capacity=1200,
    batch_size=32,
    trigger=OnCoverage(0.01),
    training=TrainingSettings(
        epochs=6, scratch_epochs=12, learning_rate=1e-3, patience=3, moments="estimate"
    ),
    seed=3,
)
NAMES = ("static", "random", "memento", "density-reservoir")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("loop")


@pytest.fixture(scope="module")
def sizes(folder):
    return LOOP.prepare(folder, workers=1)


@pytest.fixture(scope="module")
def results(folder, sizes):
    return LOOP.compare(folder, NAMES, workers=1)


@pytest.fixture(scope="module")
def outcome(folder, results):
    return LOOP.control(folder, results, workers=1, parts=2)


def same(one: ArmResult, other: ArmResult) -> bool:
    weights = [
        all(np.array_equal(a, b) for a, b in zip(m.weights, n.weights, strict=True))
        for m, n in zip(one.networks, other.networks, strict=True)
    ]
    plain = [[dataclasses.replace(s, restored=False) for s in steps] for steps in one.steps]
    return (
        one.name == other.name
        and all(weights)
        and repr(plain)
        == repr([[dataclasses.replace(s, restored=False) for s in steps] for steps in other.steps])
        and np.array_equal(one.ages, other.ages)
        and np.array_equal(one.classes, other.classes)
    )


def first_network(folder, horizon):
    return read_network(folder / f"closed-loop/first-{horizon}/output-1/network")


def test_every_arm_has_each_day_and_horizon(sizes, results):
    assert list(results) == list(NAMES)
    for name, result in results.items():
        assert len(result.steps) == len(result.networks) == HORIZONS
        for steps in result.steps:
            assert [s.name for s in steps] == ["day 1", "day 2", "day 3"]
            assert [s.evaluated_on for s in steps] == ["day 2", "day 3", None]
            assert all(set(s.scores) == {"p01", "median", "mean"} for s in steps[:-1])
        assert [s.offered for s in result.steps[0]] == sizes
        if name != "static":
            assert 0 < result.ages.sum() == result.classes.sum() <= LOOP.capacity


def test_the_static_arm_stays_with_the_first_network(folder, results):
    for horizon, network in enumerate(results["static"].networks):
        base = first_network(folder, horizon)
        assert all(np.array_equal(a, b) for a, b in zip(network.weights, base.weights, strict=True))
    assert not any(s.trained for s in results["static"].steps[0])
    assert results["static"].ages.sum() == 0


def test_the_random_arm_retrains_every_day_and_others_when_coverage_rose(results):
    assert all(s.trained for s in results["random"].steps[0])
    for name in ("memento", "density-reservoir"):
        steps = results[name].steps[0]
        assert steps[0].trained
        for step in steps[1:]:
            decision = step.decision
            rose = decision.value >= decision.threshold
            assert step.trained == decision.due == rose


def test_predictions_steer_what_is_kept_from_the_first_day_on(folder, results, tmp_path):
    """The base network annotates the first day, so Memento need not do without predictions."""
    days = [folder / f"closed-loop/day-{day:03d}/output-1" for day in range(LOOP.days)]
    base = first_network(folder, 0)
    steps, _ = bodies._run_loop(LOOP, "memento", 0, days, base, tmp_path / "loop")
    assert steps[0].kept < steps[0].offered
    assert steps[-1].notes["classes"] == results["memento"].classes.tolist()


def test_arrivals_decide_by_streams_that_no_other_day_has(folder, results, tmp_path):
    days = [str(folder / "closed-loop" / f"day-{n:03d}") for n in range(LOOP.days)]
    days = [str(next(Path(day).glob("output-*"))) for day in days]
    first = read_network(next((folder / "closed-loop" / "first-0").glob("output-*")) / "network")
    steps, _ = bodies._run_loop(LOOP, "memento-arrivals", 0, days, first, tmp_path / "loop")
    assert steps[0].trained
    assert {"clusters", "worse"} <= set(steps[-1].decision.figures)
    streams = [columns["stream"] for _, columns in bodies._stream(days, 0, of_streams=True)]
    assert all(not set(a) & set(b) for a, b in itertools.combinations(streams, 2))
    counts = [len(set(part)) for part in streams]
    assert counts == [len(set(Features.read(Path(d)).columns(0)["stream"])) for d in days]


def test_a_fitted_temperature_goes_into_control_and_a_fixed_one_stays(folder, results, tmp_path):
    """One day of the random arm: the served networks are its own, at a temperature."""
    days = [str(folder / "closed-loop" / f"day-{n:03d}") for n in range(LOOP.days)]
    days = [str(next(Path(day).glob("output-*"))) for day in days]
    first = read_network(next((folder / "closed-loop" / "first-0").glob("output-*")) / "network")
    learners = {}
    for name in ("random", "random-softened", "random-calibrated"):
        steps, learners[name] = bodies._run_loop(LOOP, name, 0, days, first, tmp_path / name)
        assert [step.trained for step in steps] == [True] * LOOP.days
    assert learners["random-softened"].temperature == 1.5
    fitted = learners["random-calibrated"].temperature
    assert 0.4 < fitted != 1
    x = np.random.default_rng(0).standard_normal((50, 62)).astype(np.float32)
    plain = learners["random"].network
    for name, learner in learners.items():
        served = bodies._serving(learner)
        certain = np.maximum(plain.probabilities(x), 1e-30)
        logits = np.log(certain) / getattr(learner, "temperature", 1.0)
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(served.probabilities(x), expected, atol=2e-5, err_msg=name)


def test_what_is_there_is_not_computed_again(folder, results, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("simulated or trained again")

    monkeypatch.setattr(ClosedLoop, "simulate_day", refuse)
    monkeypatch.setattr(bodies, "Training", refuse)
    calls = []
    LOOP.prepare(folder, workers=1, report=lambda *what: calls.append(what))
    assert calls[-1] == ("days", 2, 2)
    again = LOOP.compare(folder, NAMES, workers=1)
    assert all(same(again[name], results[name]) for name in NAMES)


@pytest.mark.slow
def test_processes_do_not_matter(tmp_path, results, outcome):
    LOOP.prepare(tmp_path, workers=2)
    found = LOOP.compare(tmp_path, ("random", "static"), workers=2)
    assert list(found) == ["random", "static"]
    assert all(same(found[name], results[name]) for name in found)
    again = LOOP.control(tmp_path, found, workers=2, parts=3)
    for name in found:
        mine, theirs = (t.streams.take(t.streams["scheme"] == name) for t in (again, outcome))
        for column in mine:
            assert np.array_equal(mine[column], theirs[column], equal_nan=column not in (
                "scheme", "considered", "slow"))  # fmt: skip
        # Matrix products of other numbers of rows round in another way.
        assert again.scores[name] == pytest.approx(outcome.scores[name], rel=1e-4)


def test_the_same_viewers_under_every_arm(outcome):
    """Who watches what for how long is the same; what they get is not."""
    table = outcome.streams
    seen = {}
    for name in NAMES:
        own = table.take(table["scheme"] == name)
        assert own.size
        seen[name] = list(zip(own["viewer"].tolist(), own["index"].tolist(), strict=True))
    assert all(seen[name] == seen["static"] for name in NAMES)
    assert set(outcome.scores) == set(NAMES)
    assert all(row["p01"] <= row["median"] < 0 for row in outcome.scores.values())


def test_differences_are_those_of_the_streams(outcome):
    table = outcome.streams
    found = outcome.difference_rows("random")
    assert set(found) == set(NAMES) - {"random"}
    value, low, high = found["memento"]["ssim"]
    assert low <= value <= high
    index = {}
    for name in ("memento", "random"):
        own = table.take(table["scheme"] == name)
        index[name] = {
            (v, i): (s, w)
            for v, i, s, w, c in zip(
                *(own[k].tolist() for k in ("viewer", "index", "ssim", "watch", "considered")),
                strict=True,
            )
            if c and math.isfinite(s)
        }
    pairs = index["memento"].keys() & index["random"].keys()
    means = [
        -10 * math.log10(1 - sum(index[n][k][0] * index[n][k][1] for k in pairs)
                         / sum(index[n][k][1] for k in pairs))
        for n in ("memento", "random")
    ]  # fmt: skip
    assert value == pytest.approx(means[0] - means[1], abs=1e-9)
    assert set(outcome.level_rows()) == set(NAMES)
    assert outcome.hours > 0


def test_real_paths_instead_of_a_population(tmp_path):
    rng = np.random.default_rng(0)
    day = Traces(
        np.repeat(np.arange(4), 60), np.tile(np.arange(60) * 2.0, 4), rng.uniform(0.3, 3.0, 240)
    )
    loop = dataclasses.replace(LOOP, traces=[day] * 4, horizons=1)
    sizes = loop.prepare(tmp_path, workers=1)
    assert len(sizes) == 3
    assert min(sizes) > 0
    # The same traces, but other viewers every day.
    assert len(set(sizes)) > 1
    found = loop.compare(tmp_path, ("static",), workers=1)
    with pytest.raises(SettingError, match="has networks for 1 of 5 horizons"):
        loop.control(tmp_path, found, workers=1)


def test_the_folder_is_of_one_comparison(folder, sizes):
    other = dataclasses.replace(LOOP, seed=4)
    with pytest.raises(
        ForeignError, match=r"day-000: made with loop\.seed = 3, now asked for with 4; give another"
    ):
        other.prepare(folder, workers=1)
    dataclasses.replace(LOOP, capacity=600).compare(folder, (), workers=1)


def test_arms_in_another_setting_do_not_go_on_from_this_one(folder, results):
    with pytest.raises(ForeignError, match="trigger"):
        dataclasses.replace(LOOP, trigger=Every(1)).compare(folder, ("memento",), workers=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"days": 2}, "days is 2; expected a whole number from 3"),
        ({"viewers": 0}, "viewers is 0; expected a whole number above 0"),
        ({"horizons": 6}, "horizons is 6; expected a whole number from 1 to 5"),
        ({"capacity": 10}, "capacity 10 is less than one batch of 32"),
        ({"traces": []}, "traces of 0 days; 3 days of telemetry and one under control"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(SettingError, match=message):
        dataclasses.replace(LOOP, **settings)


def test_unknown_arms_and_no_workers(folder, sizes):
    with pytest.raises(SettingError, match="no arm 'best'; there are static, random,"):
        LOOP.compare(folder, ("best",), workers=1)
    with pytest.raises(SettingError, match="workers is 0; expected"):
        LOOP.compare(folder, ("static",), workers=0)


@pytest.mark.parametrize("name", CONTROLLED)
def test_every_arm_fits_a_memory(name):
    memory = LOOP.memory(name)
    assert isinstance(memory, Memory)
    assert memory.capacity == (3600 if name == "random-triple" else 1200)
    assert ARMS[name].frozen == (name == "static")
    assert ARMS[name].weighted != (name == "density-reservoir-unweighted")


# ------------------------------------------------------------------------------------------ summary


def made_up(name: str, scores: np.ndarray, trained: list[bool]) -> ArmResult:
    """An arm with these scores, (days, 3), and a last day that nothing follows."""
    steps = []
    for i, flag in enumerate(trained):
        last = i == len(trained) - 1
        named = {} if last else dict(zip(("p01", "median", "mean"), scores[i], strict=True))
        following = None if last else f"day {i + 1}"
        decision = Decision(flag, "made up")
        steps.append(Step(i, f"day {i}", 9, 9, 9, decision, flag, False, following, named))
    return ArmResult(name, [steps], [], np.zeros(len(trained)), np.zeros(21))


def test_summary_against_plain_numpy():
    rng = np.random.default_rng(0)
    scores = {name: rng.normal(size=(5, 3)) for name in ("static", "random", "memento")}
    flags = {name: [True, *(rng.random(5) < 0.5)] for name in scores}
    found = summary({n: made_up(n, scores[n], flags[n]) for n in scores}, "random")
    assert list(found) == list(scores)
    for name in scores:
        change = scores[name] - scores["random"]
        for i, score in enumerate(("p01", "median", "mean")):
            mean = sum(change[:, i]) / 5
            spread = math.sqrt(sum((change[:, i] - mean) ** 2) / 4)
            assert found[name][score] == pytest.approx(mean, abs=1e-12)
            assert found[name][f"{score}_error"] == pytest.approx(spread / math.sqrt(5), abs=1e-12)
        assert found[name]["retrained"] == sum(flags[name])


def test_summary_of_a_single_day_and_against_nobody():
    one = {name: made_up(name, np.full((1, 3), 1.0), [True, False]) for name in ("static", "a")}
    found = summary(one, "static")
    assert found["a"]["p01"] == 0
    assert math.isnan(found["a"]["p01_error"])
    with pytest.raises(SettingError, match=r"no arm 'best'; there are \['a', 'static'\]"):
        summary(one, "best")


def test_levels_are_those_of_the_official_method():
    rng = np.random.default_rng(1)
    n = 40
    streams = Samples(
        day=np.zeros(n, np.int64),
        scheme=np.repeat(["a", "b"], n // 2),
        viewer=np.tile(np.arange(n // 2), 2),
        index=np.zeros(n, np.int64),
        considered=np.ones(n, bool),
        slow=np.zeros(n, bool),
        watch=rng.uniform(10, 100, n),
        stall=rng.uniform(0, 1, n),
        stall_capped=rng.uniform(0, 1, n),
        ssim=rng.uniform(0.9, 0.99, n),
        delta_ssim=rng.uniform(0, 2, n),
        startup=rng.uniform(0, 2, n),
        bitrate=rng.uniform(1e6, 2e6, n),
    )
    outcome = Outcome(streams, {"b": {}, "a": {}})
    rows = outcome.level_rows()
    assert list(rows) == ["b", "a"]
    expected = aggregates.official(streams, rng=np.random.default_rng(0), realisations=2000)
    assert rows["a"]["stall_ratio"] == expected["stall_ratio"][0]
    assert outcome.hours == pytest.approx(streams["watch"].sum() / 3600 / 2)
