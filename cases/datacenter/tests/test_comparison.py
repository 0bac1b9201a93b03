"""Many replays: each once, in one process or several, and refused where something differs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_runs import PLAN, made_up, same

from memento.errors import DamagedError, ForeignError, SettingError
from memento.files import readable_json
from memento_datacenter import comparison, experiments
from memento_datacenter.comparison import compare
from memento_datacenter.replay import replay
from memento_datacenter.scenarios import Plan, scenario

pytest.importorskip("torch")
pytest.importorskip("psutil")


def test_compare_keeps_what_is_there_and_does_the_rest(made_up_runs, tmp_path):
    told = []
    arguments = {"memories": ["fifo", "memento"], "plan": PLAN}
    one = compare(made_up_runs, tmp_path, ["incremental"], seeds=[0], **arguments)
    both = compare(
        *(made_up_runs, tmp_path, ["incremental"]),
        seeds=[0, 1],
        progress=lambda *a: told.append(a),
        **arguments,
    )
    # Iterations: those of two replays are there, those of the others come.
    assert [told[0][:2], told[-1][:2]] == [(12, 24), (24, 24)]
    assert told[0][2] == "already there"
    assert told[1][2] == "datacenter-replay/incremental-fifo-1"
    assert sorted({done for done, _, _ in told}) == [done for done, _, _ in told]
    # In the order that was asked for: seeds, and in each of them memories.
    first = both.take(np.flatnonzero(both["seed"] == 0))
    assert same(first, one)
    assert np.array_equal(first["select"], one["select"])  # read, not computed again
    assert same(first.rows(0, 6), replay("incremental", "fifo", made_up_runs, 0, PLAN))
    assert set(both["seed"].tolist()) == {0, 1}
    assert {path.name for path in tmp_path.iterdir()} == {"datacenter-replay"}


def test_several_processes_begin_with_the_longest(made_up_runs, tmp_path, monkeypatch):
    began = []

    def run_all(asked, root, **options):
        began.extend((a.parameters["scenario"], a.parameters["memory"]) for a in asked)
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "run_all", run_all)
    memories = ["fifo", "k-center", "herding"]
    for jobs in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            compare(
                *(made_up_runs, tmp_path, ["incremental", "congestion"], memories),
                plan=PLAN,
                jobs=jobs,
            )
    asked = [(s, m) for s in ("incremental", "congestion") for m in memories]
    longest = [(s, m) for s in ("congestion", "incremental") for m in reversed(memories)]
    assert began == asked + longest


@pytest.mark.compiled
def test_two_processes_find_the_same_as_one_also_when_stopped(made_up_runs, tmp_path):
    arguments = {"memories": ["fifo", "random"], "plan": PLAN}
    both = ["incremental", "congestion"]
    one = compare(made_up_runs, tmp_path / "one", both, jobs=1, **arguments)

    def stop(done, total, last):
        if done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(made_up_runs, tmp_path / "two", both, jobs=2, progress=stop, **arguments)
    states = [readable_json(p)["state"] for p in (tmp_path / "two").rglob("state.json")]
    assert "running" not in states  # nobody works on unseen
    # Goes on where those were, also with the runs in another folder.
    moved = made_up_runs.rename(made_up_runs.with_name("moved"))
    try:
        two = compare(moved, tmp_path / "two", both, jobs=1, **arguments)
    finally:
        moved.rename(made_up_runs)
    assert same(one, two)
    assert np.isnan(one["balanced_accuracy"][one["scenario"] == "congestion"]).all()
    assert not list(tmp_path.rglob("checkpoint-*"))


def test_what_does_not_apply_is_left_out(made_up_runs, tmp_path):
    both = ["incremental", "congestion"]
    table = compare(made_up_runs, tmp_path, both, ["lars", "fifo"], plan=PLAN)
    there = set(zip(table["scenario"].tolist(), table["memory"].tolist(), strict=True))
    assert there == {("incremental", "lars"), ("incremental", "fifo"), ("congestion", "fifo")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scenarios": ["nonsense"]}, "scenario 'nonsense'"),
        ({"memories": ["nonsense"]}, "memory 'nonsense'"),
        ({"seeds": [-1]}, "seed is -1"),
        ({"seeds": []}, "no seeds"),
        ({"seeds": [1, 1]}, "seeds 1, 1; name each once"),
        ({"memories": []}, "no memories; name at least one"),
        ({"scenarios": []}, "no scenarios"),
        (
            {"scenarios": ["congestion"], "memories": ["lars"]},
            "memories lars need classes.* memento",
        ),
        ({"jobs": 0}, "jobs is 0"),
    ],
)
def test_compare_refuses(made_up_runs, tmp_path, changes, message):
    arguments = {"scenarios": ["incremental"], "memories": ["fifo"], "plan": PLAN, **changes}
    with pytest.raises(SettingError, match=message):
        compare(made_up_runs, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_results_of_another_plan_are_refused(made_up_runs, tmp_path):
    arguments = (made_up_runs, tmp_path, ["incremental"], ["fifo"])
    compare(*arguments, plan=PLAN)
    with pytest.raises(ForeignError, match=r"made with plan\.judged = 100, now asked for with 50"):
        compare(*arguments, plan=dataclasses.replace(PLAN, judged=50))
    compare(*arguments, plan=PLAN)
    table = next(tmp_path.rglob("iterations.csv"))
    table.write_bytes(table.read_bytes().replace(b"0", b"1"))
    with pytest.raises(DamagedError, match=r"incremental-fifo-0: .*remove the folder"):
        compare(*arguments, plan=PLAN)


def test_results_of_an_earlier_version_are_refused(made_up_runs, tmp_path):
    (tmp_path / "incremental").mkdir()
    (tmp_path / "incremental" / "fifo-0.json").write_text("{}")
    with pytest.raises(ForeignError, match=r"fifo-0\.json: a result of an earlier version"):
        compare(made_up_runs, tmp_path, ["incremental"], ["fifo"], plan=PLAN)


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
        with pytest.raises(ForeignError, match=r"made with made\.digest"):
            compare(*arguments, plan=PLAN)
        path.write_bytes(before)
    compare(*arguments, plan=PLAN)


def test_a_run_that_is_cut_off_is_told_before_anything_is_computed(own_runs, tmp_path):
    path = own_runs.path("w3", 1)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DamagedError, match=r"run-01\.npz.*simulate it again"):
        compare(own_runs.folder, tmp_path / "out", ["incremental"], ["fifo"], plan=PLAN)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------- experiments


def test_declared_experiments_cover_everything():
    found = list(experiments.experiments())
    assert len({one.key for one in found}) == len(found)
    replays = [o for o in found if o.group == "datacenter-replay" and not o.on_demand]
    assert len(replays) == 5 * (10 + 10 + 8)
    assert {one.name for one in found if one.group == "datacenter-tuning"} == {
        "classification",
        "regression",
    }


def test_the_body_of_an_experiment_goes_on_and_writes_its_table(made_up_runs, tmp_path):
    told = []

    class Stopping(experiments.Run):
        def report(self, done, total, note=""):
            told.append((done, total))
            if told == [(1, 6), (2, 6)]:
                raise KeyboardInterrupt

    arguments = {
        "scenario": "incremental", "memory": "random", "seed": 0, "runs": str(made_up_runs),
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
    straight = replay("incremental", "random", made_up_runs, 0, PLAN)
    place = lines[0].split(",").index("balanced_accuracy")
    written = [float(line.split(",")[place]) for line in lines[1:]]
    assert written == pytest.approx(straight["balanced_accuracy"].tolist())
