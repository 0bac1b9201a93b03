"""The demo's arms: what they are, that they repeat, and what their comparison says."""

from __future__ import annotations

import math
import queue
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from memento import Decision, Memento, Reservoir, Step
from memento.cases.puffer import demo
from memento.cases.puffer.demo import ARMS, ArmResult, compare, prepare, run_arm, summary
from memento.cases.puffer.traces import Population, Traces, days
from memento.cases.puffer.transmission import CLASSES, samples_of
from memento.errors import SettingError

DAYS, CHUNKS, ROOM = 4, 800, 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("days")
    list(prepare(days(Population(seed=3, chunks=CHUNKS), DAYS), path))
    return path


@pytest.fixture(scope="module")
def results(folder) -> dict[str, ArmResult]:
    return compare(folder, capacity=ROOM, workers=1, seed=1)


def same(first: ArmResult, second: ArmResult) -> bool:
    np.testing.assert_array_equal(first.ages, second.ages)
    np.testing.assert_array_equal(first.classes, second.classes)
    # repr, because NaN is not equal to itself
    return (first.name, repr(first.steps)) == (second.name, repr(second.steps))


# --------------------------------------------------------------------------------------------- days


def test_prepared_days_are_the_samples_of_the_traces(tmp_path):
    source = Population(seed=5, chunks=300)
    found = list(prepare(days(source, 2), tmp_path, size_MB=0.5))
    assert found == [(f"day {i + 1}", len(samples_of(source.day(i))["y"])) for i in range(2)]
    for number, (name, samples) in enumerate(demo._days(tmp_path)):
        assert name == f"day {number + 1}"
        expected = samples_of(source.day(number), size_MB=0.5)
        assert set(samples) == set(expected)
        for column, values in expected.items():
            np.testing.assert_array_equal(samples[column], values)
            assert samples[column].dtype == values.dtype


def test_days_stay_in_order(tmp_path):
    traces = Traces([0, 0], [0.0, 1.0], [1.0, 1.0])
    names = [f"n{i}" for i in range(12)]
    list(prepare(((name, traces) for name in names), tmp_path))
    assert [name for name, _ in demo._days(tmp_path)] == names


def test_a_day_without_samples(tmp_path):
    lonely = [("day 1", Traces([0, 1], [0.0, 0.0], [1.0, 1.0]))]
    with pytest.raises(SettingError, match="day 1: no stream of two chunks or more"):
        list(prepare(lonely, tmp_path))


# --------------------------------------------------------------------------------------------- arms


def test_arms(results):
    assert tuple(results) == ARMS
    for name, result in results.items():
        assert result.name == name
        assert [step.name for step in result.steps] == [f"day {i + 1}" for i in range(DAYS)]
        assert [step.evaluated_on for step in result.steps] == ["day 2", "day 3", "day 4", None]
        assert result.steps[0].trained
        assert result.ages.shape == (DAYS,)
        assert result.classes.shape == (CLASSES,)
        assert result.ages.sum() == result.classes.sum() == result.steps[-1].held <= ROOM
        for step in result.steps[:-1]:
            assert set(step.scores) == {"p01", "median", "mean"}
            assert step.scores["p01"] <= step.scores["median"] < 0


def test_the_static_model_is_of_the_first_day(results):
    steps = results["static"].steps
    assert [step.trained for step in steps] == [True, False, False, False]
    assert [step.frozen for step in steps] == [False, True, True, True]
    assert results["static"].ages.tolist() == [ROOM, 0, 0, 0]


def test_the_random_memory_is_retrained_every_day(results):
    assert all(step.trained for step in results["random"].steps)
    assert not any(step.frozen for step in results["random"].steps)
    assert results["random"].ages.sum() == ROOM


def test_the_others_are_retrained_when_coverage_says_so(results):
    for name in ("memento", "density-reservoir"):
        for step in results[name].steps[1:]:
            decision = step.decision
            rose = decision.value >= decision.threshold == demo.THRESHOLD
            assert step.trained == decision.due == (rose and decision.p_value <= 0.05)


def test_all_arms_start_with_the_same_model(results):
    """Where memories hold the same samples, so where they are random: static and random."""
    first = [results[name].steps[0].scores for name in ("static", "random")]
    assert first[0] == first[1]


def test_an_arm_repeats(folder, results):
    calls = []
    again = run_arm(
        "memento", folder, capacity=ROOM, seed=1, on_step=lambda name, step: calls.append(name)
    )
    assert same(again, results["memento"])
    assert calls == ["memento"] * DAYS


def test_another_seed_is_another_run(folder, results):
    other = run_arm("static", folder, capacity=ROOM, seed=2)
    assert other.steps[0].scores != results["static"].steps[0].scores


def test_always(folder):
    result = run_arm("density-reservoir", folder, capacity=ROOM, retrain="always")
    assert all(step.trained for step in result.steps)


def test_workers_do_not_matter(folder, results):
    calls = []
    found = compare(
        folder,
        capacity=ROOM,
        arms=["density-reservoir", "static"],
        workers=2,
        seed=1,
        on_step=lambda name, step: calls.append((name, step.unit)),
    )
    assert list(found) == ["density-reservoir", "static"]
    for name, result in found.items():
        assert same(result, results[name])
        assert [unit for called, unit in calls if called == name] == list(range(DAYS))


def test_a_worker_that_dies_is_not_waited_for():
    """A process killed for want of memory ends its future, and reports nothing any more."""
    alive, killed = Future(), Future()
    reports = queue.Queue()
    reports.put(("memento", 1))
    reports.put(("memento", 2))
    alive.set_result(None)
    killed.set_exception(RuntimeError("killed"))
    calls = []
    demo._forward(reports, [alive, killed], lambda name, step: calls.append((name, step)))
    assert calls == [("memento", 1), ("memento", 2)]
    demo._forward(reports, [alive, killed], None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arms": ["static", "best"]}, "unknown arm 'best'; expected one of static, random,"),
        ({"retrain": "weekly"}, 'retrain is \'weekly\'; expected "coverage" or "always"'),
        ({"workers": 0}, "0 workers; give at least one process"),
        ({"capacity": 10}, "capacity 10 is less than one batch of 64"),
    ],
)
def test_what_is_wrong_shows_before_anything_is_computed(tmp_path, settings, message):
    with pytest.raises(SettingError, match=message):
        compare(tmp_path / "nothing is here", **{"capacity": ROOM, **settings})


def test_memories_with_distances_see_samples_alike():
    policy, _, freeze = demo._arm("memento", "coverage")
    other = demo._arm("density-reservoir", "coverage")[0]
    assert isinstance(policy, Memento)
    assert (policy.distances, policy.batch_size) == (other.distances, other.batch_size)
    assert freeze is None
    assert demo._arm("random", "always")[0] == Reservoir()


# ------------------------------------------------------------------------------------------ summary


def made_up(name: str, scores: np.ndarray, trained: list[bool]) -> ArmResult:
    """An arm with these scores, (days, 3), and a last day that nothing follows."""
    steps = []
    for i, flag in enumerate(trained):
        last = i == len(trained) - 1
        named = {} if last else dict(zip(("p01", "median", "mean"), scores[i], strict=True))
        decision = Decision(flag, "made up")
        following = None if last else f"day {i + 1}"
        step = Step(i, f"day {i}", 9, 9, 9, decision, flag, False, following, named)
        steps.append(step)
    return ArmResult(name, steps, np.zeros(len(trained)), np.zeros(CLASSES))


def test_summary_against_plain_numpy():
    rng = np.random.default_rng(0)
    scores = {name: rng.normal(size=(5, 3)) for name in ("static", "random", "memento")}
    flags = {name: [True, *(rng.random(5) < 0.5)] for name in scores}
    results = {name: made_up(name, scores[name], flags[name]) for name in scores}
    for reference in ("static", "random"):
        found = summary(results, reference)
        assert list(found) == list(results)
        for name in results:
            change = scores[name] - scores[reference]
            for i, score in enumerate(("p01", "median", "mean")):
                mean = sum(change[:, i]) / 5
                spread = math.sqrt(sum((change[:, i] - mean) ** 2) / 4)
                assert found[name][score] == pytest.approx(mean, abs=1e-12)
                assert found[name][f"{score}_error"] == pytest.approx(
                    spread / math.sqrt(5), abs=1e-12
                )
            assert found[name]["retrained"] == sum(flags[name])
        assert found[reference]["p01"] == found[reference]["p01_error"] == 0


def test_summary_of_a_single_day():
    one = {name: made_up(name, np.full((1, 3), 1.0), [True, False]) for name in ("static", "a")}
    found = summary(one, "static")
    assert found["a"]["p01"] == 0
    assert math.isnan(found["a"]["p01_error"])


def test_summary_against_nobody():
    with pytest.raises(SettingError, match=r"no arm 'best'; there are \['static'\]"):
        summary({"static": made_up("static", np.zeros((1, 3)), [True, False])}, "best")
