"""One scenario with one memory, on small made-up runs; the whole path is in `test_cli`."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from small_runs import EVERY, PLAN, made_up, same

from memento.errors import ForeignError, StorageError
from memento.samples import Samples
from memento_datacenter import replay as case
from memento_datacenter.replay import replay, samples_of
from memento_datacenter.scenarios import MEMORIES, memories_of, scenario
from memento_datacenter.schema import COLUMNS, Run, Runs
from memento_datacenter.simulate import SETTINGS

pytest.importorskip("torch")


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


@pytest.mark.parametrize("memory", MEMORIES)
def test_each_memory_runs_through_a_scenario(made_up_runs, memory):
    table = replay("rare-patterns", memory, made_up_runs, plan=PLAN)
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
def test_each_memory_for_delays(made_up_runs, memory):
    table = replay("congestion", memory, made_up_runs, plan=PLAN)
    assert len(table["iteration"]) == 6
    assert (table["error_p99"] > table["error_mean"]).all()
    assert (table["error_p99"] < 0.2).all()
    loads = sum(table[f"held_{load}"] for load in (66, 100, 133))
    assert np.array_equal(loads, table["held"])
    assert table["held_100"].tolist()[:2] == [0.0, 0.0]
    if memory == "fifo":
        assert table["held_133"].tolist()[-1] == table["held"][-1]


def test_the_same_seed_the_same_table(made_up_runs):
    first, again = (replay("incremental", "memento", made_up_runs, 1, PLAN) for _ in range(2))
    assert same(first, again)
    assert not same(first, replay("incremental", "memento", made_up_runs, 2, PLAN))


@pytest.mark.parametrize("stop", [0, 3, 5])
@pytest.mark.parametrize(
    ("name", "memory"), [("incremental", "memento"), ("incremental", "gss"), ("congestion", "fifo")]
)
def test_a_replay_that_was_stopped_goes_on_exactly(made_up_runs, tmp_path, stop, name, memory):
    def cut(step):
        if step.unit == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(name, memory, made_up_runs, 0, PLAN, checkpoint=tmp_path, on_step=cut)
    seen = []
    rest = replay(
        name,
        memory,
        made_up_runs,
        0,
        PLAN,
        checkpoint=tmp_path,
        on_step=lambda s: seen.append(s.unit),
    )
    assert seen == list(range(stop, 6))
    assert same(rest, replay(name, memory, made_up_runs, 0, PLAN))
    assert np.isnan(rest["select"]).tolist() == [i < stop for i in range(6)]
    done = replay(name, memory, made_up_runs, 0, PLAN, checkpoint=tmp_path)
    assert same(done, rest)


def test_a_missing_run_is_named_before_anything_is_computed(made_up_runs, tmp_path):
    steps = []
    with pytest.raises(StorageError, match=r"9 more .*simulate w1 w2 w3 --runs 6-11 --to .*runs"):
        replay(
            "rare-patterns",
            "fifo",
            made_up_runs,
            plan=dataclasses.replace(PLAN, phase=5, runs=10),
            on_step=steps.append,
        )
    assert steps == []
    with pytest.raises(StorageError, match="no such run"):
        replay("incremental", "fifo", tmp_path, plan=PLAN)


def test_judging_weighs_settings_by_their_samples(tmp_path):
    """All errors are those of w2, which has nearly all samples, although as many are looked at."""
    folder = Runs(tmp_path)
    for setting in ("w1", "w2", "w3"):
        made_up(setting, 1, 5000 if setting == "w2" else 120).write(folder.path(setting, 1))
    plan = dataclasses.replace(PLAN, judged=50)

    class Wrong:
        def annotate(self, samples):
            slow = samples["setting"] == SETTINGS.index("w1")
            return {"loss": np.where(slow, 1.0, np.linspace(0, 0.1, samples.size))}

    class Held:
        samples = Samples(setting=[0, 0, 4])

    judge = case._Judge(plan, scenario("congestion", 2), folder)
    found = judge(SimpleNamespace(unit=0, learner=Wrong(), memory=Held()))
    assert found["error_p99_w1"] == 1.0
    assert found["error_p99_w2"] == pytest.approx(0.1, abs=0.01)
    assert 0.09 < found["error_mean"] * 2 < 0.16  # w1 is 2 % of the samples
    assert found["error_p99"] == 1.0
    assert (found["held_w1"], found["held_w2"], found["held_66"], found["held_100"]) == (2, 1, 2, 1)


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (1, {"network": {"end": 2.0}}, "network.end = 2.0, .* with 1.0"),
        (
            1,
            {"network": {"end": 1.0, "start_window": 1.0}},
            "network.start_window = 1.0, .* with None",
        ),
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
    with pytest.raises(ForeignError, match=rf"w3.run-0{number}.npz: made with .*{message}"):
        replay("incremental", "fifo", own_runs.folder, plan=EVERY, on_step=steps.append)
    assert steps == []
