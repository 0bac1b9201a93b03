"""Scenarios, memories and results on small made-up runs; the whole path is in tests/cli."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import shutil
import time

import numpy as np
import pytest

from memento.errors import DamagedError, ForeignError, SettingError, StorageError
from memento.samples import Samples
from memento_datacenter import experiments
from memento_datacenter import replay as case
from memento_datacenter.models import NetworkSettings
from memento_datacenter.replay import (
    MEMORIES,
    SCENARIOS,
    Plan,
    Results,
    compare,
    memories_of,
    replay,
    samples_of,
    scenario,
)
from memento_datacenter.schema import COLUMNS, Run, Runs
from memento_datacenter.simulate import SETTINGS

SMALL = NetworkSettings(layers=1, units=8, epochs=2, batch_size=64)
PLAN = Plan(
    phase=2, window=4, runs=4, judged=100, batch_size=16, classification=SMALL, regression=SMALL,
    capacities=dict.fromkeys(SCENARIOS, 128),
)  # fmt: skip
EVERY = dataclasses.replace(PLAN, phase=4)  # needs all runs of w3
EXACT = ("select",)  # seconds, which no seed decides


def made_up(setting: str, number: int, packets: int = 120) -> Run:
    """Sizes tell the workload, delays grow with the load."""
    place = SETTINGS.index(setting)
    label, load = place % 3 + 1, place // 3
    rng = np.random.default_rng([place, number])
    arrival = np.sort(rng.integers(0, 10**9, packets))
    delay = rng.gamma(2.0, 1e6 * (1 + load), packets) + 15e6
    size = rng.choice([60, 300 * label, 1500], packets)
    about = {
        "setting": setting, "run": number, "label": label, "network": {"end": 1.0}, "seed": 1,
        "ns3": "3.44", "source": "digest", "workload": f"w{label}", "sizes": f"w{label}",
    }  # fmt: skip
    return Run(arrival, delay.astype(np.int64), size, rng.integers(0, 3, packets), about)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = Runs(tmp_path_factory.mktemp("runs"))
    for setting in SETTINGS:
        for number in range(1, 6):
            made_up(setting, number).write(folder.path(setting, number))
    return folder.folder


@pytest.fixture
def own_runs(runs, tmp_path):
    """A copy that a test may change."""
    return Runs(shutil.copytree(runs, tmp_path / "runs"))


def same(a: Samples, b: Samples) -> bool:
    return set(a) == set(b) and all(
        np.array_equal(a[c], b[c], equal_nan=a[c].dtype.kind == "f") for c in a if c not in EXACT
    )


# --------------------------------------------------------------------------------------- scenarios


def test_rare_patterns_are_those_of_the_paper():
    arrivals = scenario("rare-patterns").arrivals
    assert len(arrivals) == 20
    assert all("w2" in names for names in arrivals)
    assert [i for i, names in enumerate(arrivals, 1) if "w1" in names] == [1, 6, 11, 16]
    assert [i for i, names in enumerate(arrivals, 1) if "w3" in names] == [1, 11]


def test_the_other_scenarios_are_those_of_the_paper():
    assert scenario("incremental").arrivals == (("w1",),) * 10 + (("w2",),) * 10 + (("w3",),) * 10
    congestion = scenario("congestion")
    assert len(congestion) == 30
    assert congestion.arrivals[0] == ("w1", "w2", "w3")
    assert congestion.arrivals[10] == congestion.judged[10] == ("w1_c100", "w2_c100", "w3_c100")
    assert congestion.arrivals[29] == ("w1_c133", "w2_c133", "w3_c133")
    assert [scenario(name).capacity for name in SCENARIOS] == [20_000, 20_000, 60_000]


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_run_is_used_twice_and_none_of_those_for_tuning_and_judging(name):
    shift = scenario(name)
    needed = [one for runs in Plan().needed(shift, 3) for one in runs]
    assert len(set(needed)) == len(needed)
    assert min(number for _, number in needed) >= 2
    assert max(number for _, number in needed) <= 21
    assert [tuple(n for n, _ in runs) for runs in Plan().needed(shift, 3)] == list(shift.arrivals)
    assert Plan().needed(shift, 4) != Plan().needed(shift, 3)


def test_unknown_names_and_phases():
    with pytest.raises(SettingError, match="give one of rare-patterns"):
        scenario("rare")
    with pytest.raises(SettingError, match="at least 2"):
        scenario("incremental", phase=1)
    with pytest.raises(SettingError, match="needs 20 runs of w2, the plan has 4"):
        Plan(runs=4).needed(scenario("rare-patterns"), 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"phase": 1}, "phase=1"),
        ({"stride": 0}, "stride=0"),
        ({"window": True}, "window=True"),
        ({"capacities": {"incremental": 0}}, "capacity 0"),
        ({"capacities": {"nonsense": 5}}, "capacity of 'nonsense'"),
    ],
)
def test_plans_out_of_range(values, message):
    with pytest.raises(SettingError, match=message):
        Plan(**values)


def test_a_plan_survives_being_written_down():
    plan = dataclasses.replace(PLAN, stride=2)
    assert Plan.from_document(json.loads(json.dumps(plan.document()))) == plan
    assert Plan.from_document({}) == Plan()
    assert Plan.from_document({"classification": {"epochs": 3}}).classification.epochs == 3
    with pytest.raises(SettingError, match="plan with 'strid'"):
        Plan.from_document({"strid": 1})
    with pytest.raises(SettingError, match="epoch"):
        Plan.from_document({"regression": {"epoch": 3}})


def test_a_stride_leaves_as_many_batches_and_steps():
    whole, part = Plan(), Plan(stride=4)
    shift = scenario("rare-patterns")
    assert part.capacity(shift) * 4 == whole.capacity(shift) == 20_000
    assert part.policy("memento", shift.task).batch_size * 4 == 256
    assert part.network(shift.task).batch_size * 4 == whole.network(shift.task).batch_size


def test_memories_apply_to_tasks():
    assert memories_of("classification") == tuple(MEMORIES)
    assert set(MEMORIES) - set(memories_of("regression")) == {"lars", "class-balanced"}
    with pytest.raises(SettingError, match="needs classes"):
        Plan().policy("lars", "regression")
    with pytest.raises(SettingError, match="give one of memento"):
        Plan().policy("nonsense", "classification")


def test_samples_know_their_setting():
    samples = samples_of([made_up("w1", 2), made_up("w3_c133", 2)], "classification", 4)
    for setting, label in (("w1", 0), ("w3_c133", 2)):
        own = samples["setting"] == SETTINGS.index(setting)
        assert 0 < own.sum() < samples.size
        assert set(samples["y"][own].tolist()) == {label}
    assert np.allclose(samples["yhat"], 1 / 3)
    delays = samples_of([made_up("w2_c100", 2)], "regression", 4)
    assert delays["x"].shape == (delays.size, 7)
    assert set(delays["setting"].tolist()) == {SETTINGS.index("w2_c100")}


# ------------------------------------------------------------------------------------------ replay


@pytest.mark.parametrize("memory", MEMORIES)
def test_each_memory_runs_through_a_scenario(runs, memory):
    table = replay("rare-patterns", memory, runs, plan=PLAN)
    assert table["iteration"].tolist() == [1, 2, 3, 4]
    assert table["settings"].tolist() == ["w1+w2+w3", "w1+w2", "w1+w2+w3", "w1+w2"]
    held = sum(table[f"held_{w}"] for w in ("w1", "w2", "w3"))
    assert np.array_equal(held, table["held"])
    assert (table["held"] > 128 - 16).all()
    assert (table["held"] <= 128).all()
    assert np.isfinite(table["balanced_accuracy"]).all()
    parts = np.mean([table[f"accuracy_{w}"] for w in ("w1", "w2", "w3")], axis=0)
    assert table["balanced_accuracy"] == pytest.approx(parts)
    assert np.isnan(table["rci"]).all() != memory.startswith("memento")
    assert (table["select"] >= 0).all()


@pytest.mark.parametrize("memory", memories_of("regression"))
def test_each_memory_for_delays(runs, memory):
    table = replay("congestion", memory, runs, plan=PLAN)
    assert len(table["iteration"]) == 6
    assert (table["error_p99"] > table["error_mean"]).all()
    assert (table["error_p99"] < 0.2).all()
    loads = sum(table[f"held_{load}"] for load in (66, 100, 133))
    assert np.array_equal(loads, table["held"])
    assert table["held_100"].tolist()[:2] == [0.0, 0.0]
    if memory == "fifo":
        assert table["held_133"].tolist()[-1] == table["held"][-1]


def test_the_same_seed_the_same_table(runs):
    first, again = (replay("incremental", "memento", runs, 1, PLAN) for _ in range(2))
    assert same(first, again)
    assert not same(first, replay("incremental", "memento", runs, 2, PLAN))


@pytest.mark.parametrize("stop", [0, 3, 5])
@pytest.mark.parametrize(
    ("name", "memory"), [("incremental", "memento"), ("incremental", "gss"), ("congestion", "fifo")]
)
def test_a_replay_that_was_stopped_goes_on_exactly(runs, tmp_path, stop, name, memory):
    def cut(step):
        if step.unit == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(name, memory, runs, 0, PLAN, checkpoint=tmp_path, on_step=cut)
    seen = []
    rest = replay(
        name, memory, runs, 0, PLAN, checkpoint=tmp_path, on_step=lambda s: seen.append(s.unit)
    )
    assert seen == list(range(stop, 6))
    assert same(rest, replay(name, memory, runs, 0, PLAN))
    assert np.isnan(rest["select"]).tolist() == [i < stop for i in range(6)]
    done = replay(name, memory, runs, 0, PLAN, checkpoint=tmp_path)
    assert same(done, rest)


def test_a_missing_run_is_named_before_anything_is_computed(runs, tmp_path):
    steps = []
    with pytest.raises(StorageError, match=r"9 more .*simulate w1 w2 w3 --runs 6-11 --to .*runs"):
        replay(
            "rare-patterns",
            "fifo",
            runs,
            plan=dataclasses.replace(PLAN, phase=5, runs=10),
            on_step=steps.append,
        )
    assert steps == []
    with pytest.raises(StorageError, match="no such run"):
        compare(tmp_path, tmp_path / "out", plan=PLAN)
    assert not (tmp_path / "out").exists()


def test_judging_weighs_settings_by_their_samples(runs, tmp_path):
    """All errors are those of w2, which has nearly all samples, although as many are looked at."""
    folder = Runs(tmp_path)
    for setting in ("w1", "w2", "w3"):
        made_up(setting, 1, 5000 if setting == "w2" else 120).write(folder.path(setting, 1))
    plan = dataclasses.replace(PLAN, judged=50)
    shift = scenario("congestion", 2)

    class Wrong:
        def annotate(self, samples):
            slow = samples["setting"] == SETTINGS.index("w1")
            return {"error": np.where(slow, 1.0, np.linspace(0, 0.1, samples.size))}

    judge = case._Judge(plan, shift, folder, Wrong(), None)
    judge._held = dict
    found = judge(None)
    assert found["error_p99_w1"] == 1.0
    assert found["error_p99_w2"] == pytest.approx(0.1, abs=0.01)
    assert 0.09 < found["error_mean"] * 2 < 0.16  # w1 is 2 % of the samples
    assert found["error_p99"] == 1.0


# ----------------------------------------------------------------------------------------- results


def test_compare_keeps_what_is_there_and_does_the_rest(runs, tmp_path):
    told = []
    arguments = {"memories": ["fifo", "memento"], "plan": PLAN}
    one = compare(runs, tmp_path, ["incremental"], seeds=[0], **arguments)
    both = compare(
        *(runs, tmp_path, ["incremental"]),
        seeds=[0, 1],
        progress=lambda *a: told.append(a),
        **arguments,
    )
    # Iterations: those of two replays are there, those of the others come one by one.
    assert [(done, total) for done, total, _ in told] == [(i, 24) for i in range(12, 25)]
    assert [last for *_, last in told[:2]] == ["already there", "incremental fifo 1"]
    # In the order that was asked for: seeds, and in each of them memories.
    first = both.take(np.flatnonzero(both["seed"] == 0))
    assert same(first, one)
    assert np.array_equal(first["select"], one["select"])  # read, not computed again
    assert set(both["seed"].tolist()) == {0, 1}
    assert {path.name for path in tmp_path.iterdir()} == {"incremental"}


def test_several_processes_begin_with_the_longest(runs, tmp_path, monkeypatch):
    began = []

    def each(jobs, keys, arguments, report):
        began.extend(keys)
        assert [values[:3] for values in arguments] == keys
        raise KeyboardInterrupt

    monkeypatch.setattr(case, "_each", each)
    memories = ["fifo", "k-center", "herding"]
    for jobs in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            compare(runs, tmp_path, ["incremental", "congestion"], memories, plan=PLAN, jobs=jobs)
    asked = [(s, m, 0) for s in ("incremental", "congestion") for m in memories]
    longest = [(s, m, 0) for s in ("congestion", "incremental") for m in reversed(memories)]
    assert began == asked + longest


def test_two_processes_find_the_same_as_one_also_when_stopped(runs, tmp_path):
    arguments = {"memories": ["fifo", "random"], "plan": PLAN}
    one = compare(runs, tmp_path / "one", ["incremental", "congestion"], jobs=1, **arguments)
    told = []

    def stop(done, total, last):
        told.append((done, total))
        if done >= 8:
            raise KeyboardInterrupt

    both = (runs, tmp_path / "two", ["incremental", "congestion"])
    with pytest.raises(KeyboardInterrupt):
        compare(*both, jobs=2, progress=stop, **arguments)
    # Iterations are reported, not whole replays of six; and nobody works on unseen.
    assert told == [(i, 24) for i in range(9)]
    # Not joined here: the pool's own thread does so, and which of two gets to know is chance.
    deadline = time.monotonic() + 300
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not multiprocessing.active_children()
    two = compare(*both, jobs=1, **arguments)  # goes on where those were
    assert same(one, two)
    assert np.isnan(one["balanced_accuracy"][one["scenario"] == "congestion"]).all()


def test_what_does_not_apply_is_left_out(runs, tmp_path):
    both = ["incremental", "congestion"]
    table = compare(runs, tmp_path, both, ["lars", "fifo"], plan=PLAN)
    there = set(zip(table["scenario"].tolist(), table["memory"].tolist(), strict=True))
    assert there == {("incremental", "lars"), ("incremental", "fifo"), ("congestion", "fifo")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scenarios": ["nonsense"]}, "scenario 'nonsense'"),
        ({"memories": ["nonsense"]}, "memory 'nonsense'"),
        ({"seeds": [-1]}, "seed -1"),
        ({"seeds": []}, "no seeds"),
        ({"seeds": [1, 1]}, "seeds 1, 1; name each once"),
        ({"memories": []}, "no memories; name at least one"),
        ({"scenarios": []}, "no scenarios"),
        (
            {"scenarios": ["congestion"], "memories": ["lars"]},
            "memories lars need classes.* memento",
        ),
        ({"jobs": 0}, "jobs 0"),
    ],
)
def test_compare_refuses(runs, tmp_path, changes, message):
    arguments = {"scenarios": ["incremental"], "memories": ["fifo"], "plan": PLAN, **changes}
    with pytest.raises(SettingError, match=message):
        compare(runs, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def finished(runs, tmp_path):
    compare(runs, tmp_path, ["incremental"], ["fifo"], plan=PLAN)
    return Results(tmp_path)


def test_results_of_other_plans_or_runs_are_refused(runs, finished):
    with pytest.raises(ForeignError, match=r"made with plan\.judged = 100, now asked for with 50"):
        compare(
            *(runs, finished.folder, ["incremental"], ["fifo"]),
            plan=dataclasses.replace(PLAN, judged=50),
        )


def test_results_of_runs_that_were_replaced_are_refused(own_runs, tmp_path):
    """A run that comes in, or one that is judged on: the results are of others now."""
    arguments = (own_runs.folder, tmp_path / "out", ["incremental"], ["fifo"])
    compare(*arguments, plan=PLAN)
    compare(*arguments, plan=PLAN)
    came = Plan.needed(PLAN, scenario("incremental", 2), 0)[1][0]
    for setting, number in (came, ("w3", 1)):
        path = own_runs.path(setting, number)
        before = path.read_bytes()
        made_up(setting, number, packets=119).write(path)
        with pytest.raises(ForeignError, match=r"made with runs\.digest"):
            compare(*arguments, plan=PLAN)
        path.write_bytes(before)
    compare(*arguments, plan=PLAN)


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (1, {"network": {"end": 2.0}}, "end = 2.0, .* with 1.0"),
        (1, {"network": {"end": 1.0, "start_window": 1.0}}, "start_window = 1.0, .* with None"),
        (2, {"seed": 7}, "seed = 7, .* with 1"),
        (3, {"ns3": "3.99"}, "ns3 = '3.99', .* with '3.44'"),
        (4, {"source": "other"}, "source = 'other'"),
        (5, {"sizes": "other"}, "sizes = 'other', .*w3.* with 'w3'"),
    ],
)
def test_runs_that_were_made_in_different_ways_are_refused(own_runs, number, change, message):
    path = own_runs.path("w3", number)
    run = made_up("w3", number)
    Run(*(getattr(run, c) for c in COLUMNS), about={**run.about, **change}).write(path)
    steps = []
    with pytest.raises(ForeignError, match=rf"w3.run-0{number}.npz: made with {message}"):
        replay("incremental", "fifo", own_runs.folder, plan=EVERY, on_step=steps.append)
    assert steps == []


def test_a_run_that_is_cut_off_is_told_before_anything_is_computed(own_runs, tmp_path):
    path = own_runs.path("w3", 1)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DamagedError, match=r"run-01\.npz.*simulate it again"):
        compare(own_runs.folder, tmp_path / "out", ["incremental"], ["fifo"], plan=PLAN)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda text: text[: len(text) // 2], DamagedError),
        (lambda text: text.replace('"seed": [', '"seed": [1, '), DamagedError),
        (lambda text: text.replace('"format": 1', '"format": 7'), ForeignError),
        (lambda text: "[]", ForeignError),
    ],
)
def test_damaged_results_are_told(runs, finished, change, error):
    path = finished.path("incremental", "fifo", 0)
    path.write_text(change(path.read_text()))
    with pytest.raises(error, match=r"fifo-0.json.*remove the file"):
        compare(runs, finished.folder, ["incremental"], ["fifo"], plan=PLAN)


def test_results_are_plain_json_without_nan(finished):
    def refuse(text):
        raise AssertionError(text)

    text = finished.path("incremental", "fifo", 0).read_text()
    document = json.loads(text, parse_constant=refuse)
    assert document["columns"]["rci"] == [None] * 6
    assert all(math.isnan(v) for v in finished.read("incremental", "fifo", 0)["rci"])


# ------------------------------------------------------------------------------------- experiments


def test_declared_experiments_cover_everything():
    found = list(experiments.experiments())
    assert len({one.key for one in found}) == len(found)
    replays = [one for one in found if one.group == "datacenter-replay"]
    assert len(replays) == 5 * (10 + 10 + 8)
    assert {one.name for one in found if one.group == "datacenter-tuning"} == {
        "classification",
        "regression",
    }


def test_the_body_of_an_experiment_goes_on_and_writes_its_table(runs, tmp_path):
    told = []

    class Stopping(experiments.Run):
        def report(self, done, total, note=""):
            told.append((done, total))
            if told == [(1, 6), (2, 6)]:
                raise KeyboardInterrupt

    arguments = {
        "scenario": "incremental", "memory": "random", "seed": 0, "runs": str(runs),
        "plan": PLAN.document(),
    }  # fmt: skip
    folder = tmp_path / "out"
    folder.mkdir()
    run = Stopping(folder, tmp_path / "checkpoint")
    with pytest.raises(KeyboardInterrupt):
        experiments.replaying(run, **arguments)
    experiments.replaying(run, **arguments)
    assert told[2:] == [(i, 6) for i in range(2, 7)]  # the second one was not saved
    lines = (folder / "iterations.csv").read_text().splitlines()
    assert len(lines) == 7
    straight = replay("incremental", "random", runs, 0, PLAN)
    place = lines[0].split(",").index("balanced_accuracy")
    written = [float(line.split(",")[place]) for line in lines[1:]]
    assert written == pytest.approx(straight["balanced_accuracy"].tolist())
