"""Plans and their course: order of needs, failures, circles, what others run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento.errors import SettingError
from memento.runner import schedule
from memento.runner.executors import Executor
from memento.runner.job import Job, Outcome
from memento.runner.registry import Registry
from memento.runner.results import Attempt
from memento.runner.settings import Overrides
from memento.runner.spec import Experiment


class Fake(Executor):
    """Completes jobs in any order, without a body; the folders are real."""

    name = "fake"

    def __init__(self, room: int = 3, fails: frozenset[str] = frozenset(), seed: int = 0) -> None:
        self.room, self.fails, self.rng = room, fails, random.Random(seed)
        self.started: list[str] = []
        self.ended: list[str] = []
        self.now: list[Job] = []

    def free(self) -> int:
        return self.room - len(self.now)

    def submit(self, job: Job) -> str:
        assert self.free() > 0
        self.started.append(job.key)
        self.now.append(job)
        return "fake"

    def poll(self, timeout: float) -> list[tuple[str, Outcome]]:
        job = self.now.pop(self.rng.randrange(len(self.now)))
        self.ended.append(job.key)
        with job.place.lock():
            attempt = Attempt(job.place, job.experiment.document(), job.digest, "fake")
            attempt.begin()
            if job.key in self.fails:
                attempt.fail("no")
                return [(job.key, Outcome("failed", "no"))]
            attempt.commit([])
        return [(job.key, Outcome("done"))]

    def stop(self, grace: float) -> None:
        self.now.clear()


@st.composite
def graphs(draw):
    """Needs among up to 7 experiments, each of later ones on earlier ones."""
    size = draw(st.integers(1, 7))
    return [sorted(draw(st.sets(st.integers(0, i - 1), max_size=3))) if i else []
            for i in range(size)]  # fmt: skip


def registry_of(graph, monkeypatch) -> Registry:
    known = Registry(pages={})
    known._declared["g"] = {
        f"e{i}": Experiment("g", f"e{i}", "m:f", needs=[f"e{need}" for need in needs])
        for i, needs in enumerate(graph)
    }
    return known


@given(graph=graphs(), room=st.integers(1, 4), seed=st.integers(0, 9), data=st.data())
def test_every_experiment_runs_once_after_what_it_needs(tmp_path_factory, graph, room, seed, data):
    root = tmp_path_factory.mktemp("results")
    known = registry_of(graph, None)
    names = [f"g/e{i}" for i in range(len(graph))]
    fails = frozenset(data.draw(st.sets(st.sampled_from(names), max_size=2)))
    plan = schedule.make(known, "g", root=root)
    executor = Fake(room, fails, seed)
    reports = schedule.run(plan, executor)
    assert list(reports) == list(plan.jobs)
    assert len(executor.started) == len(set(executor.started))
    for i, needs in enumerate(graph):
        key = f"g/e{i}"
        above = [reports[f"g/e{need}"].state for need in needs]
        if any(state != "done" for state in above):
            assert (reports[key].state, key in executor.started) == ("missing", False)
            continue
        assert reports[key].state == ("failed" if key in fails else "done")
        for need in needs:
            assert executor.ended.index(f"g/e{need}") < executor.started.index(key) + len(names)
            assert executor.started.index(f"g/e{need}") < executor.started.index(key)
    again = Fake(room, frozenset(), seed)
    reports = schedule.run(plan, again)
    assert {report.state for report in reports.values()} == {"done"}
    done_before = {key for key in executor.started if key not in fails}
    assert not done_before & set(again.started), "done work was done again"


def test_a_need_ends_before_what_needs_it_starts(plan):
    class Strict(Fake):
        def submit(self, job: Job) -> str:
            assert set(job.needs) <= set(self.ended), f"{job.key} starts too early"
            return super().submit(job)

    reports = schedule.run(plan("counting"), Strict(room=4))
    assert {report.state for report in reports.values()} == {"done"}


def test_needs_of_what_is_asked_for_come_along(plan):
    found = plan("counting", "sum")
    assert list(found.jobs) == [
        f"counting/{n}" for n in ("base", "walk-1", "walk-2", "walk-3", "sum")
    ]
    assert found.asked == ("counting/sum",)


def test_circles_are_refused_with_their_names(tmp_path):
    known = Registry(pages={})
    known._declared["g"] = {
        "a": Experiment("g", "a", "m:f", needs=["b"]),
        "b": Experiment("g", "b", "m:f", needs=["c"]),
        "c": Experiment("g", "c", "m:f", needs=["a"]),
    }
    with pytest.raises(SettingError, match=r"circle: g/\w needs g/\w needs g/\w needs g/\w"):
        schedule.make(known, "g", root=tmp_path)
    known = Registry(pages={})
    known._declared["g"] = {"a": Experiment("g", "a", "m:f", needs=["*"])}
    with pytest.raises(SettingError, match="circle: g/a needs g/a"):
        schedule.make(known, "g", root=tmp_path)


def test_long_chains_are_no_problem(tmp_path):
    known = registry_of([[i - 1] if i else [] for i in range(3000)], None)
    plan = schedule.make(known, "g", ["e2999"], root=tmp_path)
    assert list(plan.jobs) == [f"g/e{i}" for i in range(3000)]


def test_settings_reach_jobs_and_make_results_stale(plan):
    first = plan("counting")
    schedule.run(first, Fake())
    changed = plan("counting", overrides=Overrides((("counting/walk-1", {"seed": 77}),)), threads=3)
    states = {job.experiment.name: job.status().state for job in changed.jobs.values()}
    assert states == {
        "base": "done", "walk-1": "stale", "walk-2": "done", "walk-3": "done", "sum": "stale",
    }  # fmt: skip
    assert {job.threads for job in changed.jobs.values()} == {3}
    executor = Fake()
    schedule.run(changed, executor)
    assert executor.started == ["counting/walk-1", "counting/sum"]


def test_force_is_for_what_was_asked_and_only_once(plan):
    import time

    schedule.run(plan("counting"), Fake())
    forced = plan("counting", "walk-1", forced_at=time.time())
    executor = Fake()
    schedule.run(forced, executor)
    assert executor.started == ["counting/walk-1"]
    executor = Fake()
    schedule.run(forced, executor)
    assert executor.started == []


def test_a_missing_file_is_said_and_stops_only_what_needs_it(plan):
    reports = schedule.run(plan("trouble", "no-file", "fine"), Fake())
    assert reports["trouble/fine"].state == "done"
    assert reports["trouble/no-file"].error == (
        "needs no/such/file.csv, which does not exist; put it there"
    )


def test_what_another_process_runs_is_waited_for(plan):
    found = plan("counting", "base", "walk-1")
    base = found.jobs["counting/base"]
    with base.place.lock():
        attempt = Attempt(base.place, base.experiment.document(), base.digest, "other")
        attempt.begin()
        ticks = []

        def show(event: schedule.Event) -> None:
            if event.kind == "tick":
                ticks.append(event)
                if len(ticks) == 2:
                    attempt.commit([])

        executor = Fake()
        reports = schedule.run(found, executor, show)
    assert executor.started == ["counting/walk-1"]
    assert [report.state for report in reports.values()] == ["done", "done"]


@pytest.mark.parametrize("end", ["fails", "dies"])
def test_what_another_process_gives_up_is_taken_over_or_reported(plan, end, tmp_path: Path):
    found = plan("counting", "base")
    base = found.jobs["counting/base"]
    base.place.lock()
    attempt = Attempt(base.place, base.experiment.document(), base.digest, "other")
    attempt.begin()
    ticks = []

    def show(event: schedule.Event) -> None:
        if event.kind == "tick":
            ticks.append(event)
            if len(ticks) == 2:
                attempt.fail("no") if end == "fails" else attempt.interrupt()

    executor = Fake()
    reports = schedule.run(found, executor, show)
    expected = ("failed", []) if end == "fails" else ("done", ["counting/base"])
    assert (reports["counting/base"].state, executor.started) == expected


def test_an_interrupt_stops_the_executor(plan):
    class Interrupted(Fake):
        stopped = None

        def poll(self, timeout: float) -> list[tuple[str, Outcome]]:
            raise KeyboardInterrupt

        def stop(self, grace: float) -> None:
            self.stopped = grace

    executor = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        schedule.run(plan("counting"), executor, grace=3.0)
    assert executor.stopped == 3.0
